/* call_tag.h - reads one tag of the markup that calls tools, character by character.
 *
 *       <｜DSML｜tool_calls>             a block of calls, and </｜DSML｜tool_calls>
 *       <｜DSML｜invoke name="NAME">     one call, and </｜DSML｜invoke>
 *       <｜DSML｜parameter name="KEY" string="true">    an argument; its value follows
 *         marker  word       attributes
 *
 *   Nothing is escaped: a name ends at the first quote that is followed by '>', so it may contain
 *   quotes. White space may stand around the attributes. A lenient reader also takes what the model
 *   is known to write by mistake: blocks of another name, and as markers `DSML｜`, ASCII bars, a
 *   space after the marker, or no marker at all (then only words that the model knows).
 *
 *   Owner    The caller stores the struct; views are lent until the next start.
 *   Memory   No allocation: a tag longer than CALL_TAG_MAX is none. */
#ifndef DS4_TEXT_CALL_TAG_H
#define DS4_TEXT_CALL_TAG_H

#include "base/strbuf.h"

enum { CALL_TAG_MAX = 1024 };

/* Bits, so that a reader can tell which ones may come. */
typedef enum {
    TAG_BLOCK = 1,
    TAG_BLOCK_END = 2,
    TAG_INVOKE = 4,
    TAG_INVOKE_END = 8,
    TAG_PARAMETER = 16,
} call_tag_kind;

typedef enum { TAG_MORE, TAG_DONE, TAG_BAD } call_tag_state;

typedef struct {
    /* valid once it is done */
    call_tag_kind kind;
    strview       marker;  /* as it is spelt; empty: none */
    strview       word;    /* "tool_calls" */
    strview       name;    /* of TAG_INVOKE and TAG_PARAMETER */
    bool          is_exact; /* the marker is the real one */
    bool          has_type; /* of TAG_PARAMETER: `string` is there, true or false */
    bool          is_string;

    /* while it is read */
    unsigned allowed; /* call_tag_kind bits */
    bool     is_lenient;
    enum { IN_HEAD, BEFORE_NAME, IN_NAME, BEFORE_END } place;
    uint32_t n;        /* bytes of text */
    uint32_t n_prefix; /* BEFORE_NAME: characters of `name="` that are there */
    uint32_t name_at;  /* IN_NAME: where it starts */
    uint32_t quote_at; /* IN_NAME: the last quote, if only white space came since; else 0 */
    char     text[CALL_TAG_MAX];
} call_tag;

/* A tag whose '<' has been read. */
void call_tag_start(call_tag *t, unsigned allowed, bool is_lenient);
/* Takes one character of n bytes. TAG_BAD as early as no allowed tag is possible any more; the
 * character is then not part of the tag. */
call_tag_state call_tag_put(call_tag *t, const char *c, size_t n);

#endif
