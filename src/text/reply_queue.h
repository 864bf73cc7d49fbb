/* reply_queue.h - events of a reply on their way to the caller.
 *
 *   put   [REASONING "a"][CALL "f"][ARGUMENTS "{"] | [ARGUMENTS "}"][CALL_END]
 *                                                  hold: what comes now may still be taken back
 *
 *   Neighbouring texts of one kind become one event, so an event never ends inside a character as
 *   long as what is put between two flushes is whole.
 *
 *   Owner    The caller stores the struct (zeroed = empty, not held; fn and user to be set) and
 *            releases it. Texts are copied.
 *   Errors   Running out of memory shows in the buffers (reply_queue_check); a queue that has
 *            failed gives nothing to the caller any more. */
#ifndef DS4_TEXT_REPLY_QUEUE_H
#define DS4_TEXT_REPLY_QUEUE_H

#include "base/strbuf.h"

typedef struct {
    ds4_reply_fn fn;
    void        *user;
    strbuf       items; /* of reply_item */
    strbuf       text;  /* of all items, one after the other */
    bool         is_held;
    size_t       n_free_items, n_free_text; /* bytes of items and text before the hold */
} reply_queue;

/* Adds an event. Nothing happens for an empty text of a kind that carries text, other than CALL. */
void reply_queue_put(reply_queue *q, ds4_reply_kind kind, strview text);
/* From here on events wait; a second hold changes nothing. */
void reply_queue_hold(reply_queue *q);
/* They wait no more. */
void reply_queue_confirm(reply_queue *q);
/* They never were. */
void reply_queue_discard(reply_queue *q);
/* Hands the caller everything that does not wait. */
void reply_queue_flush(reply_queue *q);
ds4_status reply_queue_check(const reply_queue *q, ds4_error *err);
void reply_queue_release(reply_queue *q);

#endif
