/* reply_log.h - what a reply parser says, kept so that two runs can be compared.
 *
 *   Neighbouring texts of one kind count as one event, wherever the input was cut. The log also
 *   follows the rules that callers rely on, and adds the events up to a message.
 *
 *   Owner    The caller stores the log (zeroed = empty) and releases it. */
#ifndef DS4_TESTS_REPLY_LOG_H
#define DS4_TESTS_REPLY_LOG_H

#include "text/message.h"

typedef struct {
    strbuf         events;  /* one after the other: \x01, a letter of RCFAED, the text */
    message        message;
    ds4_reply_kind last;
    size_t         n_ended;   /* calls */
    size_t         n_argument_bytes;
    const char    *violation; /* of the rules, the first one; NULL: none */
} reply_log;

/* The ds4_reply_fn; user is the log. */
void reply_log_add(void *user, ds4_reply_kind kind, const char *text, size_t n);
void reply_log_release(reply_log *log);
bool reply_log_equal(const reply_log *a, const reply_log *b);

#endif
