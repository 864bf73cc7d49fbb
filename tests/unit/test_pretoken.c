#include "text/pretoken.h"

#include "base/hash.h"
#include "base/utf8.h"
#include "tests/support/tokenizer_data.h"
#include "text/unicode_tables.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the three splits once more, as literally as they are written ----
 *
 * A text is an array of characters; every split turns a list of ranges into a finer one. */

typedef struct {
    int32_t code;
    size_t at; /* in bytes */
} character;

enum { MAX_CHARS = 4096 };

typedef struct {
    character c[MAX_CHARS + 1]; /* c[n].at is the length of the text */
    size_t n;
    size_t end[MAX_CHARS], n_ends; /* of the pieces, in characters */
} literal;

static unicode_class_id class_at(const literal *t, size_t i) {
    return unicode_class(t->c[i].code);
}
static bool is_word(const literal *t, size_t i) {
    return class_at(t, i) == UNICODE_LETTER || class_at(t, i) == UNICODE_MARK;
}
static bool is_sign(const literal *t, size_t i) {
    return class_at(t, i) == UNICODE_PUNCTUATION || class_at(t, i) == UNICODE_SYMBOL;
}
static bool is_newline(const literal *t, size_t i) {
    return t->c[i].code == '\r' || t->c[i].code == '\n';
}
static bool is_space(const literal *t, size_t i) {
    return class_at(t, i) == UNICODE_SPACE;
}
static bool is_ascii_letter(const literal *t, size_t i) {
    int32_t c = t->c[i].code;
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}
static bool is_ascii_sign(const literal *t, size_t i) {
    int32_t c = t->c[i].code;
    return c > 0 && c < 128 && strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", c);
}
static bool is_b(const literal *t, size_t i) {
    int32_t c = t->c[i].code;
    return (c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3040 && c <= 0x30FF);
}

/* Each matcher gives the end of the match at `i`, or `i` for none, in a text that ends at `end`. */
typedef size_t matcher(const literal *t, size_t i, size_t end);

static size_t run(const literal *t, size_t i, size_t end, bool (*is)(const literal *, size_t)) {
    while (i < end && is(t, i)) i++;
    return i;
}

static size_t match_a(const literal *t, size_t i, size_t end) {
    size_t start = i;
    while (i < end && i < start + 3 && class_at(t, i) == UNICODE_NUMBER) i++;
    return i;
}

static size_t match_b(const literal *t, size_t i, size_t end) {
    return run(t, i, end, is_b);
}

static size_t match_c(const literal *t, size_t i, size_t end) {
    /* 1 */
    if (is_ascii_sign(t, i) && i + 1 < end && is_ascii_letter(t, i + 1))
        return run(t, i + 1, end, is_ascii_letter);
    /* 2, with the optional character first, as a greedy pattern tries it */
    bool is_taken = !is_newline(t, i) && class_at(t, i) != UNICODE_LETTER && !is_sign(t, i);
    if (is_taken && i + 1 < end && is_word(t, i + 1)) return run(t, i + 1, end, is_word);
    if (is_word(t, i)) return run(t, i, end, is_word);
    /* 3 */
    size_t sign = t->c[i].code == ' ' ? i + 1 : i;
    if (sign < end && is_sign(t, sign)) return run(t, run(t, sign, end, is_sign), end, is_newline);
    /* 4: white space gives back one by one until a line end follows */
    size_t space = run(t, i, end, is_space);
    for (size_t k = space; k > i; k--)
        if (is_newline(t, k - 1)) return k;
    /* 5 and 6 */
    if (space == end) return space;
    return space > i + 1 ? space - 1 : space;
}

static void split(literal *t, matcher *match) {
    size_t old[MAX_CHARS], n_old = t->n_ends;
    memcpy(old, t->end, sizeof old);
    t->n_ends = 0;
    for (size_t p = 0, i = 0; p < n_old; p++) {
        size_t unmatched = i;
        while (i < old[p]) {
            size_t end = match(t, i, old[p]);
            if (end == i) {
                i++;
                continue;
            }
            if (unmatched < i) t->end[t->n_ends++] = i;
            t->end[t->n_ends++] = unmatched = i = end;
        }
        if (unmatched < i) t->end[t->n_ends++] = i;
    }
}

static void split_literally(literal *t, strview text) {
    t->n = 0;
    for (size_t at = 0; at < text.n; t->n++) {
        assert_true(t->n < MAX_CHARS);
        t->c[t->n].at = at;
        at += utf8_decode(text.data + at, text.n - at, &t->c[t->n].code);
    }
    t->c[t->n].at = text.n;
    t->n_ends = t->n > 0;
    t->end[0] = t->n;
    split(t, match_a);
    split(t, match_b);
    split(t, match_c);
}

static void check_literally(literal *t, strview text, uint64_t seed) {
    split_literally(t, text);
    pretoken_iter it = pretoken_from(text);
    size_t at = 0;
    strview piece;
    for (size_t p = 0; p < t->n_ends; p++) {
        size_t end = t->c[t->end[p]].at;
        if (!pretoken_next(&it, &piece) || piece.data != text.data + at || piece.n != end - at)
            fail_msg("seed %llu: piece %zu at byte %zu: found %zu bytes, expected %zu",
                     (unsigned long long)seed, p, at, piece.n, end - at);
        at = end;
    }
    assert_false(pretoken_next(&it, &piece));
    assert_int_equal(at, text.n);
}

/* ---- tests ---- */

/* Numbers from the table of Unicode 16.0; the hash is over one byte for each code point. */
static void test_classes(void **state) {
    (void)state;
    static const size_t expected[] = {959278, 141028, 2501, 1911, 855, 8514, 25};
    size_t found[7] = {0};
    uint8_t *classes = malloc(0x110000);
    assert_non_null(classes);
    for (int32_t code = 0; code < 0x110000; code++) {
        classes[code] = (uint8_t)unicode_class(code);
        found[classes[code]]++;
    }
    for (int i = 0; i < 7; i++) assert_int_equal(found[i], expected[i]);
    assert_true(hash64(classes, 0x110000, 0) == UINT64_C(0x9ce27d2a39f85d71));
    free(classes);
    assert_int_equal(unicode_class(-1), UNICODE_NONE);
    assert_int_equal(unicode_class(INT32_MAX), UNICODE_NONE);
    assert_int_equal(unicode_class(INT32_MIN), UNICODE_NONE);
}

static void test_vectors(void **state) {
    (void)state;
    jsonl f;
    size_t n_lines = 0;
    for (jsonl_open(&f, "pieces.jsonl"); jsonl_next(&f); n_lines++) {
        pretoken_iter it = pretoken_from(jsonl_text(&f, "text"));
        strview piece = {"", 0};
        for (const json_node *p = json_get(f.doc.root, "pieces")->first; p; p = p->next)
            if (!pretoken_next(&it, &piece) || !strview_equal(piece, p->text))
                fail_msg("pieces.jsonl:%zu: found '%.*s', expected '%.*s'", f.line, (int)piece.n,
                         piece.data, (int)p->text.n, p->text.data);
        assert_false(pretoken_next(&it, &piece));
    }
    assert_int_equal(n_lines, 243);
}

/* Pieces of a text, joined with '|'. */
static void check_pieces(const char *text, const char *expected) {
    strbuf found = {0};
    pretoken_iter it = pretoken_from((strview){text, strlen(text)});
    for (strview piece; pretoken_next(&it, &piece);) {
        if (found.n) strbuf_putc(&found, '|');
        strbuf_view(&found, piece);
    }
    assert_string_equal(found.data ? found.data : "", expected);
    strbuf_release(&found);
}

static void test_rules(void **state) {
    (void)state;
    check_pieces("", "");
    check_pieces("x  12", "x|  |12");
    check_pieces("x   y", "x|  | y");
    check_pieces("x   ", "x|   ");
    check_pieces("x  \xE6\x97\xA5", "x|  |\xE6\x97\xA5");
    check_pieces("1234567", "123|456|7");
    check_pieces("1\xD9\xA1\xC2\xBD"
                 "4",
                 "1\xD9\xA1\xC2\xBD|4");
    check_pieces("'a '\xC3\xA8", "'a| '|\xC3\xA8");
    check_pieces("a;\n\nb\n c", "a|;\n\n|b|\n| c");
    check_pieces(" \n  \n  a", " \n  \n| | a");
    /* beyond the range of B: an ordinary letter, which takes the space */
    check_pieces("a \xE9\xBE\xA6", "a| \xE9\xBE\xA6");
    /* katakana middle dot inside a run of B; the long vowel mark behind it is a letter */
    check_pieces("\xE3\x82\xA2\xE3\x83\xBB\xE3\x83\xBC", "\xE3\x82\xA2|\xE3\x83\xBB|\xE3\x83\xBC");
    /* zero width joiners: unmatched, but the last one joins the letter */
    check_pieces("\xE2\x80\x8D\xE2\x80\x8D"
                 "a",
                 "\xE2\x80\x8D|\xE2\x80\x8D"
                 "a");
    /* bytes that are no UTF-8 count like characters without a class */
    check_pieces("\xFF\xFE a", "\xFF\xFE| a");
    check_pieces("a\xE4\xB8", "a|\xE4\xB8");
}

static void test_random_texts(void **state) {
    (void)state;
    literal *t = malloc(sizeof *t);
    assert_non_null(t);
    for (uint64_t seed = 1; seed <= 4000; seed++) {
        uint64_t random = seed;
        strbuf text = {0};
        size_t n = next_random(&random) % 200;
        if (seed % 4)
            random_unicode(&text, &random, n);
        else
            random_bytes(&text, &random, n);
        check_literally(t, (strview){text.data, text.n}, seed);
        strbuf_release(&text);
    }
    free(t);
}

/* All texts of up to six characters out of eight that the rules tell apart. */
static void test_all_short_texts(void **state) {
    (void)state;
    static const char *const chars[] = {" ",  "\n",           "a",           "!", "1",
                                        "\t", "\xE2\x80\x8D", "\xE3\x81\x82"};
    literal *t = malloc(sizeof *t);
    assert_non_null(t);
    for (uint32_t n = 1, n_texts = 8; n <= 6; n++, n_texts *= 8)
        for (uint32_t number = 0; number < n_texts; number++) {
            char text[32];
            size_t n_bytes = 0;
            for (uint32_t i = 0, rest = number; i < n; i++, rest /= 8) {
                size_t n_char = strlen(chars[rest % 8]);
                memcpy(text + n_bytes, chars[rest % 8], n_char);
                n_bytes += n_char;
            }
            check_literally(t, (strview){text, n_bytes}, number);
        }
    free(t);
}

/* A matcher that looks ahead over and over would take minutes here. */
static void test_long_runs(void **state) {
    (void)state;
    static const char *const units[] = {" ",
                                        "\n",
                                        "\t\n",
                                        "!",
                                        "a",
                                        "\xE2\x80\x8D",
                                        "\xC2\xA0 ",
                                        " \xE2\x80\x8D",
                                        "\xE3\x81\x82",
                                        "\xE3\x82\x97",
                                        "\xFF"};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        strbuf text = {0};
        while (text.n < 1 << 20) strbuf_puts(&text, units[i]);
        pretoken_iter it = pretoken_from((strview){text.data, text.n});
        size_t n_bytes = 0;
        for (strview piece; pretoken_next(&it, &piece); n_bytes += piece.n)
            assert_true(piece.n > 0);
        assert_int_equal(n_bytes, text.n);
        strbuf_release(&text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),         cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_rules),           cmocka_unit_test(test_random_texts),
        cmocka_unit_test(test_all_short_texts), cmocka_unit_test(test_long_runs),
    };
    return cmocka_run_group_tests_name("pretoken", tests, NULL, NULL);
}
