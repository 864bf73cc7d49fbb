/* conversation.h - what was said so far: a system text, then user and assistant messages in turn.
 *
 *   As JSON (the file that /save writes, and with "context" what ds4_render reads):
 *
 *       {"thinking_mode": "thinking" | "chat", "reasoning_effort": "low" | "high" | "max",
 *        "messages": [{"role": "system", "content": ...},
 *                     {"role": "user", "content": ...},
 *                     {"role": "assistant", "content": ..., "reasoning_content": ..., "tool_calls": ...}]}
 *
 *   Owner    The caller stores the struct (zeroed = empty, chat mode) and releases it. Messages are
 *            lent until the conversation changes.
 *   Threads  One thread at a time.
 *   Errors   DS4_ENOMEM; reading JSON also DS4_EFORMAT, and the conversation is then as before. */
#ifndef DS4_CHAT_CONVERSATION_H
#define DS4_CHAT_CONVERSATION_H

#include "base/strbuf.h"

typedef enum {
    EFFORT_NONE,  /* answers at once: chat mode */
    EFFORT_THINK, /* thinks before it answers, without being told how long */
    EFFORT_LOW,   /* ... told so in the prompt; the model's releases differ in which they know */
    EFFORT_HIGH,
    EFFORT_MAX,
} effort;

typedef struct {
    bool   is_user;   /* otherwise the assistant's */
    strbuf content;   /* any bytes; invalid UTF-8 becomes U+FFFD where JSON is written */
    strbuf reasoning; /* assistant only; empty if it did not think */
    strbuf calls;     /* assistant only; the items of "tool_calls" as JSON, or empty */
} chat_message;

typedef struct {
    strbuf   system; /* empty: none */
    chat_message *items;  /* [n] */
    size_t   n;
    size_t   n_cap;
    effort   effort;
} conversation;

/* A new empty message at the end; NULL without memory. */
chat_message *conversation_add(conversation *c, bool is_user);
/* Removes the last message. */
void conversation_drop_last(conversation *c);
/* Removes the last n_turns turns, a turn being a user message and all that follows it; returns how
 * many there were to remove. */
size_t conversation_rewind(conversation *c, size_t n_turns);
/* Removes all messages; the system text and the effort stay. */
void conversation_clear(conversation *c);
void conversation_release(conversation *c);

/* Appends the JSON. The first n_rendered messages (and with any the system text) go to "context":
 * they count as rendered before. */
ds4_status conversation_write(const conversation *c, strbuf *json, size_t n_rendered, ds4_error *err);
/* Replaces everything by what the JSON tells. `what` names it in messages. */
ds4_status conversation_read(conversation *c, const char *json, size_t n, const char *what,
                             ds4_error *err);

#endif
