#include "text/detok.h"

#include "base/utf8.h"

#include <string.h>

detok detok_from(const vocab *words, bool hides_control) {
    return (detok){.words = words, .hides_control = hides_control};
}

/* Adds one byte to those that wait and appends the part that is certain. */
static void feed_held(detok *d, char byte, strbuf *out) {
    d->held[d->n_held++] = byte;
    size_t n = utf8_complete_prefix(d->held, d->n_held);
    utf8_append_valid(out, d->held, n);
    memmove(d->held, d->held + n, d->n_held - n);
    d->n_held = (uint8_t)(d->n_held - n);
}

void detok_feed(detok *d, int32_t id, strbuf *out) {
    if (d->hides_control && vocab_token_type(d->words, id) == VOCAB_CONTROL) return;
    strview bytes = vocab_token_bytes(d->words, id);

    /* Byte by byte until the character that was begun is decided; then the rest in one go. */
    size_t at = 0;
    while (at < bytes.n && d->n_held) feed_held(d, bytes.data[at++], out);
    size_t n = utf8_complete_prefix(bytes.data + at, bytes.n - at);
    utf8_append_valid(out, bytes.data + at, n);
    at += n;
    while (at < bytes.n) d->held[d->n_held++] = bytes.data[at++];
}

void detok_finish(detok *d, strbuf *out) {
    utf8_append_valid(out, d->held, d->n_held);
    d->n_held = 0;
}
