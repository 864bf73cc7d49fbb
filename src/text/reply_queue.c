#include "text/reply_queue.h"

#include <string.h>

typedef struct {
    ds4_reply_kind kind;
    size_t         n; /* bytes of its text */
} reply_item;

static bool is_flowing(ds4_reply_kind kind) {
    return kind == DS4_REPLY_REASONING || kind == DS4_REPLY_CONTENT || kind == DS4_REPLY_ARGUMENTS;
}

/* Adds to the text of the last item; false if that is of another kind or before the hold. */
static bool extend_last(reply_queue *q, ds4_reply_kind kind, strview text) {
    reply_item last;
    if (q->items.n == 0 || (q->is_held && q->items.n == q->n_free_items)) return false;
    memcpy(&last, q->items.data + q->items.n - sizeof last, sizeof last);
    if (last.kind != kind) return false;
    strbuf_view(&q->text, text);
    last.n += text.n;
    memcpy(q->items.data + q->items.n - sizeof last, &last, sizeof last);
    return true;
}

void reply_queue_put(reply_queue *q, ds4_reply_kind kind, strview text) {
    if (is_flowing(kind) && (text.n == 0 || extend_last(q, kind, text))) return;
    reply_item item = {kind, text.n};
    strbuf_append(&q->items, &item, sizeof item);
    strbuf_view(&q->text, text);
}

void reply_queue_hold(reply_queue *q) {
    if (q->is_held) return;
    q->is_held = true;
    q->n_free_items = q->items.n;
    q->n_free_text = q->text.n;
}

void reply_queue_confirm(reply_queue *q) {
    q->is_held = false;
}

void reply_queue_discard(reply_queue *q) {
    if (!q->is_held) return;
    strbuf_truncate(&q->items, q->n_free_items);
    strbuf_truncate(&q->text, q->n_free_text);
    q->is_held = false;
}

/* Removes the first n bytes. */
static void drop_front(strbuf *b, size_t n) {
    if (n == 0) return;
    memmove(b->data, b->data + n, b->n - n);
    strbuf_truncate(b, b->n - n);
}

void reply_queue_flush(reply_queue *q) {
    size_t n_items = q->is_held ? q->n_free_items : q->items.n, text_at = 0;
    if (n_items == 0 || q->items.is_failed || q->text.is_failed) return;
    for (size_t at = 0; at < n_items; at += sizeof(reply_item)) {
        reply_item item;
        memcpy(&item, q->items.data + at, sizeof item);
        q->fn(q->user, item.kind, item.n ? q->text.data + text_at : "", item.n);
        text_at += item.n;
    }
    drop_front(&q->items, n_items);
    drop_front(&q->text, text_at);
    q->n_free_items = q->n_free_text = 0;
}

ds4_status reply_queue_check(const reply_queue *q, ds4_error *err) {
    DS4_TRY(strbuf_check(&q->items, "reply", err));
    return strbuf_check(&q->text, "reply", err);
}

void reply_queue_release(reply_queue *q) {
    strbuf_release(&q->items);
    strbuf_release(&q->text);
}
