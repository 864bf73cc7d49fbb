/* pretoken.h - cut a span of text into the pieces that BPE works on.
 *
 *   text   --split A-->  digits, at most 3     | the rest
 *          --split B-->  runs of Han and kana  | the rest
 *          --split C-->  words with the character before them, punctuation, white space
 *
 *   The three splits of the model's tokenizer are applied in sequence, each to the pieces of the one
 *   before as if such a piece were the whole text; what no pattern matches stays a piece. The
 *   iterator does all three in one pass: concatenated, its pieces are the span. Characters are
 *   classified by Unicode 16.0 (unicode_tables.h).
 *
 *   Owner    Borrows the text.
 *   Errors   None. A maximal invalid part of UTF-8 counts as one character without a class. */
#ifndef DS4_TEXT_PRETOKEN_H
#define DS4_TEXT_PRETOKEN_H

#include "base/strbuf.h"

typedef struct {
    strview text;
    size_t at; /* <= text.n; where the next piece begins */
} pretoken_iter;

static inline pretoken_iter pretoken_from(strview text) {
    return (pretoken_iter){.text = text};
}

/* The next piece, never empty; false at the end of the text. Linear in the text as a whole. */
bool pretoken_next(pretoken_iter *it, strview *piece);

#endif
