/* toolcall.h - reads a block of tool calls as it streams out of the model, and makes events of it.
 *
 *   block = <｜DSML｜tool_calls> { invoke } </｜DSML｜tool_calls>
 *   invoke = <｜DSML｜invoke name="f"> { parameter } </｜DSML｜invoke>
 *   parameter = <｜DSML｜parameter name="k" string="true"> value </｜DSML｜parameter>
 *
 *   CALL "f", ARGUMENTS "{\"k\": \"value\"}" in pieces, CALL_END
 *
 *   White space between tags is free. What the model gets wrong is accepted the later, the less
 *   sure it is that a call was meant, and only if the tools are known:
 *
 *     real markers, `tool_calls`               events come as the text comes
 *     real markers, another name, or no        after each invoke has closed, and only for declared
 *     opening of the block                     tools
 *     `function_calls`, other markers          after the whole block has been read, and only for
 *     (call_tag.h), from the first such on     declared tools
 *
 *   Strings are escaped and passed on at once, but for what may be the start of the closing tag,
 *   which must be spelt as the opening one. Other values wait for it: without a list of tools they
 *   are passed on unchecked, as the model's own parser does; with a list, what is not JSON becomes a
 *   string. If `string` is missing, the value is a string unless the tool's schema excludes that
 *   and it is JSON. A key that comes twice is written twice: readers of JSON take the last one.
 *
 *   What breaks the grammar makes the text since the last complete call content, and the call that
 *   is open is dropped. After a complete call, text that is no further call ends the block.
 *
 *   Owner    The caller stores the struct (zeroed, tools and out to be set) and releases it.
 *   Memory   The text of the block since its last complete call is kept, since it may turn out to
 *            be none. Time is linear.
 *   Errors   Running out of memory shows in toolcall_check and in the queue. */
#ifndef DS4_TEXT_TOOLCALL_H
#define DS4_TEXT_TOOLCALL_H

#include "text/call_tag.h"
#include "text/reply_queue.h"
#include "text/tool_list.h"

typedef enum {
    TOOLCALL_OPEN,   /* it goes on */
    TOOLCALL_END,    /* it is over: what follows is not part of it */
    TOOLCALL_BROKEN, /* no call (any more): raw[0..n_broken) is content, what follows it is to be
                        read again as if it came after that */
} toolcall_state;

typedef struct {
    const tool_list *tools; /* NULL: unknown */
    reply_queue     *out;

    strbuf raw;      /* the text since the last complete call that was passed on */
    size_t n_broken; /* <= raw.n */

    enum { AT_OPENER, AT_INVOKE, AT_PARAMETER, AT_VALUE } place;
    enum { BY_TEXT, BY_INVOKE, BY_BLOCK } trust; /* when events are passed on, as above */
    bool     is_in_tag;
    bool     is_announced; /* a CALL was passed on, its end was not */
    call_tag tag;
    size_t   tag_at;  /* in raw */
    size_t   n_calls; /* complete ones */
    size_t   n_parameters;

    const json_node *tool; /* that is called; NULL: unknown */
    enum { IS_STRING, IS_JSON, IS_EITHER } value;
    size_t value_at;             /* in raw */
    char   closer[32];           /* [n_closer] "</", the marker, "parameter>" */
    size_t n_closer, n_closed;   /* n_closed bytes of it are there */
    strbuf scratch;
} toolcall;

/* A block may begin with the text that is fed next, which starts with '<'. `before` is what would
 * belong to it: the newlines in front. */
void toolcall_start(toolcall *t, strview before);
/* Takes whole characters; stops early when the state is no longer TOOLCALL_OPEN. Returns how many
 * bytes it has taken. */
size_t toolcall_feed(toolcall *t, const char *text, size_t n, toolcall_state *state);
/* The text is over. If it was cut the block is dropped, otherwise it is broken, unless all that is
 * missing is its end. Never TOOLCALL_OPEN. */
toolcall_state toolcall_finish(toolcall *t, bool is_cut);
ds4_status toolcall_check(const toolcall *t, ds4_error *err);
void toolcall_release(toolcall *t);

#endif
