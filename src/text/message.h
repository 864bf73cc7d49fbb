/* message.h - a reply as one message: what the events of a ds4_reply add up to.
 *
 *   {"role": "assistant", "content": "...", "reasoning_content": "...", "tool_calls":
 *    [{"type": "function", "function": {"name": "f", "arguments": "{\"k\": 1}"}}]}
 *
 *   Owner    The caller stores the message (zeroed = empty) and releases it.
 *   Threads  One at a time.
 *   Errors   Running out of memory shows in message_check. */
#ifndef DS4_TEXT_MESSAGE_H
#define DS4_TEXT_MESSAGE_H

#include "base/strbuf.h"

typedef struct {
    strbuf name;
    strbuf arguments; /* JSON text; a key that came twice stands there once, with its last value */
} message_call;

typedef struct {
    strbuf        content;
    strbuf        reasoning;
    message_call *calls; /* [n_calls], and one more that is open if has_open */
    size_t        n_calls, calls_cap;
    bool          has_open;
    bool          is_failed; /* memory ran out */
} message;

/* Adds one event. The type of `user` and the order of arguments make it a ds4_reply_fn. */
void message_add(void *user, ds4_reply_kind kind, const char *text, size_t n);
/* Appends the JSON object, printed as Python does. A call that is open does not count. */
void message_write(const message *m, strbuf *out);
ds4_status message_check(const message *m, ds4_error *err);
void message_release(message *m);

#endif
