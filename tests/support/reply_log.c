#include "tests/support/reply_log.h"

#include <string.h>

#include "base/utf8.h"

static void require(reply_log *log, bool is_true, const char *rule) {
    if (!is_true && !log->violation) log->violation = rule;
}

static bool is_flowing(ds4_reply_kind kind) {
    return kind == DS4_REPLY_REASONING || kind == DS4_REPLY_CONTENT || kind == DS4_REPLY_ARGUMENTS;
}

void reply_log_add(void *user, ds4_reply_kind kind, const char *text, size_t n) {
    static const char letters[] = "RCFAED";
    reply_log *log = user;
    bool is_open = log->message.has_open, is_first = log->events.n == 0;
    bool is_of_call =
        kind == DS4_REPLY_ARGUMENTS || kind == DS4_REPLY_CALL_END || kind == DS4_REPLY_CALL_DROPPED;
    require(log, text && utf8_is_valid(text, n), "text is valid UTF-8");
    require(log, is_of_call == is_open, "a call is open exactly for what belongs to it");
    require(log, kind != DS4_REPLY_REASONING || is_first || log->last == kind,
            "reasoning comes first");
    require(log, !is_flowing(kind) || n > 0, "text is not empty");
    require(log, (kind != DS4_REPLY_CALL_END && kind != DS4_REPLY_CALL_DROPPED) || n == 0,
            "the end of a call has no text");

    if (is_first || kind != log->last || !is_flowing(kind)) {
        strbuf_putc(&log->events, '\x01');
        strbuf_putc(&log->events, letters[kind]);
    }
    strbuf_append(&log->events, text, n);
    log->last = kind;
    log->n_ended += kind == DS4_REPLY_CALL_END;
    if (kind == DS4_REPLY_ARGUMENTS) log->n_argument_bytes += n;
    message_add(&log->message, kind, text, n);
}

void reply_log_release(reply_log *log) {
    strbuf_release(&log->events);
    message_release(&log->message);
    *log = (reply_log){0};
}

bool reply_log_equal(const reply_log *a, const reply_log *b) {
    return strview_equal((strview){a->events.data, a->events.n},
                         (strview){b->events.data, b->events.n});
}
