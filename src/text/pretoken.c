#include "text/pretoken.h"

#include "base/utf8.h"
#include "text/unicode_tables.h"

/* What the patterns ask about a character. At most one of the class bits is set. */
enum {
    CH_LETTER = 1 << UNICODE_LETTER,
    CH_MARK = 1 << UNICODE_MARK,
    CH_NUMBER = 1 << UNICODE_NUMBER,
    CH_PUNCTUATION = 1 << UNICODE_PUNCTUATION,
    CH_SYMBOL = 1 << UNICODE_SYMBOL,
    CH_SPACE = 1 << UNICODE_SPACE,
    CH_NEWLINE = 1 << 7,  /* CR or LF, beside CH_SPACE */
    CH_HAN_KANA = 1 << 8, /* the ranges of split B, beside the class */

    CH_WORD = CH_LETTER | CH_MARK,
    CH_SIGN = CH_PUNCTUATION | CH_SYMBOL,
    /* Splits A and B part two neighbours that differ in these bits. */
    CH_SEGMENT = CH_NUMBER | CH_HAN_KANA,
};

#define L CH_LETTER
#define N CH_NUMBER
#define P CH_PUNCTUATION
#define S CH_SYMBOL
#define W CH_SPACE
#define E (CH_SPACE | CH_NEWLINE)
static const uint8_t ascii_kind[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, W, E, W, W, E, 0, 0, /* HT LF VT FF CR */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* */
    W, P, P, P, S, P, P, P, P, P, P, S, P, P, P, P, /*   ! " # $ % & ' ( ) * + , - . / */
    N, N, N, N, N, N, N, N, N, N, P, P, S, S, S, P, /* 0 ... 9 : ; < = > ? */
    P, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, /* @ A ... */
    L, L, L, L, L, L, L, L, L, L, L, P, P, P, S, P, /* ... Z [ \ ] ^ _ */
    S, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, /* ` a ... */
    L, L, L, L, L, L, L, L, L, L, L, P, S, P, S, 0, /* ... z { | } ~ DEL */
};
#undef L
#undef N
#undef P
#undef S
#undef W
#undef E

typedef struct {
    unsigned kind;
    size_t n_bytes; /* 0 at the end of the text */
} character;

static character wide_at(const strview *text, size_t at) {
    int32_t code;
    size_t n_bytes = utf8_decode(text->data + at, text->n - at, &code);
    unsigned kind;
    if (code >= 0x4E00 && code <= 0x9FA5) {
        kind = CH_LETTER | CH_HAN_KANA; /* the whole range is letters */
    } else {
        kind = 1u << unicode_class(code) & ~1u;
        if (code >= 0x3040 && code <= 0x30FF) kind |= CH_HAN_KANA;
    }
    return (character){kind, n_bytes};
}

/* The character at `at`. The end of the text reads as a number: like one, it ends every segment. */
static inline character char_at(const strview *text, size_t at) {
    if (at >= text->n) return (character){CH_NUMBER, 0};
    uint8_t byte = (uint8_t)text->data[at];
    if (byte < 0x80) return (character){ascii_kind[byte], 1};
    return wide_at(text, at);
}

/* The end of the run, from `at`, of characters that have a bit of `wanted` and lie in `segment`. */
static size_t run_end(const strview *text, size_t at, unsigned wanted, unsigned segment) {
    for (;;) {
        character c = char_at(text, at);
        if (!(c.kind & wanted) || (c.kind & CH_SEGMENT) != segment) return at;
        at += c.n_bytes;
    }
}

static inline bool is_ascii_letter(const strview *text, size_t at) {
    return at < text->n && (uint8_t)((text->data[at] | 0x20) - 'a') < 26;
}

/* Pattern \p{N}{1,3}: `at` is behind the first number. */
static size_t digits_end(const strview *text, size_t at) {
    for (int n = 1; n < 3; n++) {
        character c = char_at(text, at);
        if (!(c.kind & CH_NUMBER)) break;
        at += c.n_bytes;
    }
    return at;
}

/* White space from `at` on, not taken by a word or a sign behind it: up to its last line end; else
 * all of it at the end of the segment; else all but the last character, which goes with what
 * follows, unless it is the only one. */
static size_t space_end(const strview *text, size_t at) {
    size_t end = at, last = at, newline = 0;
    character c;
    for (;;) {
        c = char_at(text, end);
        if (!(c.kind & CH_SPACE)) break;
        last = end;
        end += c.n_bytes;
        if (c.kind & CH_NEWLINE) newline = end;
    }
    if (newline) return newline;
    if (c.kind & CH_SEGMENT) return end;
    return last > at ? last : end;
}

/* Characters that no pattern matches, from `at` on: they have no class, and none of them is
 * followed by a word that would take it along. */
static size_t unmatched_end(const strview *text, size_t at, unsigned segment) {
    at += char_at(text, at).n_bytes;
    for (;;) {
        character next = char_at(text, at);
        if (next.kind != segment) return at;
        character after = char_at(text, at + next.n_bytes);
        if ((after.kind & CH_WORD) && (after.kind & CH_SEGMENT) == segment) return at;
        at += next.n_bytes;
    }
}

static size_t piece_end(const strview *text, size_t at) {
    character c = char_at(text, at);
    if (c.kind & CH_NUMBER) return digits_end(text, at + c.n_bytes);

    /* Split C; its six alternatives in their order. */
    unsigned segment = c.kind & CH_SEGMENT;
    size_t behind = at + c.n_bytes;

    /* 1. ASCII punctuation and the ASCII letters behind it */
    bool is_ascii = c.n_bytes == 1 && (uint8_t)text->data[at] < 0x80;
    if ((c.kind & CH_SIGN) && is_ascii && is_ascii_letter(text, behind)) {
        do behind++;
        while (is_ascii_letter(text, behind));
        return behind;
    }

    /* 2. a word, with the one character before it that is neither line end, letter nor sign */
    if (c.kind & CH_WORD) return run_end(text, behind, CH_WORD, segment);
    if (!(c.kind & (CH_NEWLINE | CH_SIGN))) {
        size_t end = run_end(text, behind, CH_WORD, segment);
        if (end > behind) return end;
    }

    /* 3. signs, with a space before them and the line ends behind */
    if ((c.kind & CH_SIGN) || text->data[at] == ' ') {
        size_t end = run_end(text, behind, CH_SIGN, segment);
        if (end > behind || (c.kind & CH_SIGN)) return run_end(text, end, CH_NEWLINE, segment);
    }

    /* 4. to 6. */
    if (c.kind & CH_SPACE) return space_end(text, at);
    return unmatched_end(text, at, segment);
}

bool pretoken_next(pretoken_iter *it, strview *piece) {
    if (it->at >= it->text.n) return false;
    size_t end = piece_end(&it->text, it->at);
    *piece = (strview){it->text.data + it->at, end - it->at};
    it->at = end;
    return true;
}
