/* chat.h - the parts of `ds4 chat` and what they share.
 *
 *   chat.c            options, the loop over lines      conversation.h   what was said, as JSON
 *   chat_commands.c   /help and the others              line.h           reading a line
 *   chat_turn.c       a message and its answer          term.h           showing text
 *                                                       stop_key.h       Ctrl-C
 *
 *   Threads  The main thread is the engine thread. */
#ifndef DS4_CHAT_CHAT_H
#define DS4_CHAT_CHAT_H

#include "app/chat/conversation.h"
#include "app/chat/term.h"

/* What the last answer took. */
typedef struct {
    size_t     n_prompt;    /* tokens before the answer */
    size_t     n_reused;    /* of them, in the cache already */
    size_t     n_generated; /* tokens of the answer, thinking included */
    double     prompt_s;    /* until the first token of the answer */
    double     generate_s;  /* from there to the last */
    ds4_finish finish;
} turn_record;

typedef struct {
    ds4_engine    *engine;
    ds4_session   *session;
    ds4_generation generation; /* how to generate; seed is that of the first turn */
    conversation   talk;
    term           screen;
    /* The session's tokens are the conversation as it stands, in the tokens the model itself chose,
     * except perhaps for the end marker of the last answer. */
    bool        is_live;
    uint64_t    n_answers; /* so far, for the seeds */
    turn_record last;      /* zero before the first answer */
} chat;

/* ---- chat_turn.c ---- */

/* Adds the user's message to the conversation, shows the answer as it is generated and adds that too.
 * Ctrl-C ends the answer early; what there is of it stays. Without a single token, and after a failure
 * before one, the message is taken back. DS4_EFULL when the conversation no longer fits. */
ds4_status chat_turn(chat *c, const char *text, size_t n, ds4_error *err);

/* ---- chat_commands.c ---- */

typedef enum {
    COMMAND_DONE, /* failures were told on the screen */
    COMMAND_QUIT,
} command_result;

/* A line that begins with "/", terminated. */
command_result chat_command(chat *c, const char *line);

#endif
