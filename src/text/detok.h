/* detok.h - from a stream of token ids to text that can be shown at once: always whole UTF-8.
 *
 *   A token may end in the middle of a character. Its bytes wait, three at most, until the next
 *   token completes them. Bytes that cannot become a character any more are replaced by U+FFFD, one
 *   for each maximal invalid prefix, as soon as that is certain.
 *
 *   Owner    The caller stores the struct; there is nothing to release. The vocab is borrowed.
 *   Threads  One at a time.
 *   Errors   A failed append shows in `out` (strbuf_check). A number that is no id adds nothing.
 *   Memory   A feed appends at most 3 * (DETOK_HELD_BYTES + bytes of the token). */
#ifndef DS4_TEXT_DETOK_H
#define DS4_TEXT_DETOK_H

#include "text/vocab.h"

enum { DETOK_HELD_BYTES = 3 };

typedef struct {
    const vocab *words;
    bool hides_control;
    uint8_t n_held;                  /* <= DETOK_HELD_BYTES */
    char held[DETOK_HELD_BYTES + 1]; /* the start of a character; the last byte is for work */
} detok;

/* A stream at its start. With hides_control, tokens of the type control ("special" tokens, such as
 * begin- and end-of-text) add nothing; else they give their text, like all markers. */
detok detok_from(const vocab *words, bool hides_control);
/* Appends to out what is certain after this token. */
void detok_feed(detok *d, int32_t id, strbuf *out);
/* The stream ends: what waits becomes U+FFFD. The next feed begins a new stream. */
void detok_finish(detok *d, strbuf *out);

#endif
