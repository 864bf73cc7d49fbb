/* chat_private.h - the insides of the prompt renderer, shared by its files.
 *
 *   chat_read.c    the conversation's own members, and how values are refused
 *   chat_turns.c   messages -> turns: merge, sort, drop
 *   chat_write.c   turns -> text and marked markers
 *   chat_texts.c   the fixed texts
 *   chat.c         the public functions; token ids; the revision of a model file
 *
 *   Owner    A chat_talk owns its turns and blocks (an arena); nodes are the caller's document's.
 *   Threads  One at a time for each talk. */
#ifndef DS4_TEXT_CHAT_PRIVATE_H
#define DS4_TEXT_CHAT_PRIVATE_H

#include "text/chat.h"
#include "text/markers.h"

typedef enum {
    ROLE_OTHER, /* none that the model knows: refused when it is written, not when it is dropped */
    ROLE_SYSTEM,
    ROLE_DEVELOPER,
    ROLE_USER,
    ROLE_TOOL, /* of messages only: the turn is a user turn */
    ROLE_REMINDER,
    ROLE_ASSISTANT,
} chat_role;

/* Where something stands, as messages tell it: "messages[3]". */
typedef struct {
    const char *list;
    uint32_t index;
} chat_place;

/* One part of a user turn: a user's text, or the result of a tool call. */
typedef struct {
    chat_place at;
    const json_node *content; /* NULL: absent */
    strview call_id;          /* empty: none */
    bool is_result;
} chat_block;

typedef struct {
    chat_place at;
    chat_role role;
    const json_node *message; /* an object; of a merged turn the first one */
    const json_node *task;    /* its value; NULL: none */
    const json_node *tools;   /* an array with items, or NULL */
    chat_place tools_at;
    chat_block *blocks; /* [n_blocks] of a user turn */
    uint32_t n_blocks;
} chat_turn;

typedef struct {
    arena memory;

    /* what chat_read fills in */
    chat_revision revision;
    bool is_thinking;
    bool is_dropping;          /* after the turns are made: tools switch it off */
    bool has_bos;              /* asked for; a prompt with a context has none */
    const char *effort_text;   /* NULL: none */
    const json_node *context;  /* an array, or NULL */
    const json_node *messages; /* an array */
    const json_node *tools;    /* of the request: an array with items, or NULL */
    json_doc tools_doc;        /* holds them if they came as text */

    /* what chat_make_turns makes of it */
    chat_turn *turns; /* [n_turns] the context's, then the new ones */
    size_t n_turns;
    size_t first_new;    /* turns before it were rendered earlier; may be beyond n_turns */
    ptrdiff_t last_user; /* the last user or developer turn; -1: none */
} chat_talk;

/* ---- chat_read.c ----------------------------------------------------------------------------- */

/* Fills in the first part. The talk is released by the caller in any case. */
ds4_status chat_read(chat_talk *t, const json_node *conversation, chat_revision revision,
                     ds4_error *err);
void chat_talk_release(chat_talk *t);

/* "messages[3].role: found "robot", expected system, ...": DS4_EINVAL. */
ds4_status chat_refuse(chat_place at, const char *member, const json_node *found,
                       const char *expected, ds4_error *err);
/* *out: the string; empty if it is absent or null. */
ds4_status chat_text(strview *out, chat_place at, const char *member, const json_node *found,
                     ds4_error *err);
/* *out: the flag; as before if it is absent or null. */
ds4_status chat_flag(bool *out, chat_place at, const char *member, const json_node *found,
                     ds4_error *err);
/* *out: the array; NULL if it is absent, null or empty. */
ds4_status chat_list(const json_node **out, chat_place at, const char *member,
                     const json_node *found, ds4_error *err);
/* True for NULL and null. */
bool chat_is_absent(const json_node *node);

/* ---- chat_turns.c, chat_write.c -------------------------------------------------------------- */

ds4_status chat_make_turns(chat_talk *t, ds4_error *err);
ds4_status chat_write(chat_prompt *out, const chat_talk *t, ds4_error *err);

/* ---- chat_texts.c: the fixed texts, terminated ----------------------------------------------- */

extern const char chat_tools_head[], chat_tools_tail[];
extern const char chat_format_head[];
extern const char chat_effort_absolute[], chat_effort_beyond[];

#endif
