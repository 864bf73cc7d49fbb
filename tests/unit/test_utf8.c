/* test_utf8.c - decoding against a definition written here from the table of well-formed sequences;
 * streams cut anywhere. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/utf8.h"

/* ---- the definition ----
 * A sequence is well-formed if it is the shortest form of a code point that is no surrogate. All of
 * them, by their encodings; their proper prefixes are what may still become valid. */

/* The bytes of `code` in the shortest form, by ranges; 0 for surrogates and beyond U+10FFFF. */
static size_t shortest(uint32_t code, uint8_t out[4]) {
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return 0;
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n; i-- > 1; code >>= 6) out[i] = (uint8_t)(0x80 + code % 64);
    out[0] = (uint8_t)(leads[n] + code);
    return n;
}

/* True if s[0..n), n <= 4, begins a well-formed sequence longer than n or is one: tries what may
 * follow. */
static bool is_prefix(const uint8_t *s, size_t n, bool *is_whole) {
    static const uint8_t lead_of[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    *is_whole = false;
    for (size_t length = n; length <= 4; length++) {
        /* The smallest and the largest code point with these first bytes. */
        uint32_t low = 0, high = 0;
        bool is_form = length == 1
                           ? s[0] < 0x80
                           : length > 1 && s[0] >= lead_of[length] &&
                                 s[0] < (length == 4 ? 0xF8 : lead_of[length] + (0x80 >> length));
        for (size_t i = 0; i < length; i++) {
            uint32_t bits = i == 0 ? (length == 1 ? s[0] : (uint32_t)(s[0] - lead_of[length])) : 0;
            if (i > 0 && i < n) {
                is_form = is_form && s[i] >= 0x80 && s[i] <= 0xBF;
                bits = s[i] & 0x3Fu;
            }
            low = low << 6 | (i < n ? bits : 0);
            high = high << 6 | (i < n ? bits : 0x3F);
        }
        if (!is_form) continue;
        for (uint32_t code = low; code <= high; code++) {
            uint8_t bytes[4];
            if (shortest(code, bytes) != length || memcmp(bytes, s, n) != 0) continue;
            *is_whole = length == n;
            return true;
        }
    }
    return false;
}

/* Length and code of what stands at s[0..n): the definition of utf8_decode. */
static size_t decode_by_definition(const uint8_t *s, size_t n, int32_t *code) {
    size_t n_good = 0;
    bool is_whole = false;
    *code = -1;
    for (size_t length = 1; length <= 4 && length <= n; length++) {
        if (!is_prefix(s, length, &is_whole)) break;
        n_good = length;
        if (!is_whole) continue;
        uint32_t v = length == 1 ? s[0] : s[0] & (0x7Fu >> length);
        for (size_t i = 1; i < length; i++) v = v << 6 | (s[i] & 0x3Fu);
        *code = (int32_t)v;
        return length;
    }
    return n_good ? n_good : 1;
}

static void compare(const uint8_t *s, size_t n) {
    int32_t found, expected;
    size_t length = utf8_decode((const char *)s, n, &found);
    size_t right = decode_by_definition(s, n, &expected);
    if (length != right || found != expected)
        fail_msg("%zu bytes %02x %02x %02x %02x: found U+%04x in %zu, expected U+%04x in %zu", n,
                 s[0], n > 1 ? s[1] : 0, n > 2 ? s[2] : 0, n > 3 ? s[3] : 0, (unsigned)found,
                 length, (unsigned)expected, right);
}

/* ---- tests ---- */

static void test_every_code_point(void **state) {
    (void)state;
    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        uint8_t expected[4];
        char found[4];
        size_t n = shortest(code, expected);
        int32_t again;
        if (n == 0) continue;
        assert_int_equal(utf8_encode(code, found), n);
        assert_memory_equal(found, expected, n);
        assert_int_equal(utf8_decode(found, n, &again), n);
        assert_int_equal(again, code);
    }
}

/* Every byte, and every pair, triple and quadruple of the bytes where something changes. */
static void test_every_kind_of_sequence(void **state) {
    (void)state;
    static const uint8_t edges[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                    0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
                                    0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF};
    enum { N = sizeof edges };
    uint8_t s[4] = {0};
    for (int byte = 0; byte < 256; byte++) {
        s[0] = (uint8_t)byte;
        compare(s, 1);
    }
    for (size_t a = 0; a < N; a++)
        for (size_t b = 0; b < N; b++) {
            s[0] = edges[a], s[1] = edges[b];
            compare(s, 2);
            for (size_t c = 0; c < N; c++) {
                s[2] = edges[c];
                compare(s, 3);
                s[3] = edges[(a + b + c) % N];
                compare(s, 4);
                s[3] = 0x80;
                compare(s, 4);
            }
        }
}

static void test_is_valid(void **state) {
    (void)state;
    assert_true(utf8_is_valid("", 0));
    assert_true(utf8_is_valid("plain \xC3\xBC \xEF\xBD\x9C \xF0\x9F\xA6\x80", 17));
    assert_true(utf8_is_valid("a\0b", 3));
    assert_false(utf8_is_valid("\xF0\x9F\xA6", 3));
    assert_false(utf8_is_valid("ok\x80", 3));
    assert_false(utf8_is_valid("\xED\xA0\x80", 3)); /* a surrogate */
    assert_false(utf8_is_valid("\xC0\xAF", 2));     /* a slash in two bytes */
}

/* Text of all kinds of characters and of broken ones, fed byte by byte: what a stream shows is
 * always whole, and nothing waits without need. */
static void test_complete_prefix(void **state) {
    (void)state;
    static const char text[] =
        "a\xC3\xBC\xEF\xBD\x9C\xF0\x9F\xA6\x80z\x80\xC3(\xE2\x82\xC3\xBC\xF4\x90\xED\xA0"
        "\xF0\x9F\xF0\x9F\xA6\x80\xFF\xC3\xE2\xF0";
    const size_t n = sizeof text - 1;
    for (size_t start = 0; start < n; start++)
        for (size_t end = start; end <= n; end++) {
            const char *s = text + start;
            size_t n_now = end - start, n_shown = utf8_complete_prefix(s, n_now);
            size_t n_expected = n_now;
            /* The longest tail that is the start of a sequence and not whole stays behind. */
            for (size_t back = 1; back <= 3 && back <= n_now; back++) {
                bool is_whole;
                if (is_prefix((const uint8_t *)s + n_now - back, back, &is_whole) && !is_whole)
                    n_expected = n_now - back;
            }
            if (n_shown != n_expected)
                fail_msg("bytes %zu to %zu: %zu shown, expected %zu", start, end, n_shown,
                         n_expected);
        }
}

static void replaced(const char *s, size_t n, const char *expected) {
    strbuf out = {0};
    strbuf_puts(&out, ">");
    utf8_append_valid(&out, s, n);
    assert_string_equal(out.data + 1, expected);
    strbuf_release(&out);
}
#define R "\xEF\xBF\xBD"

static void test_append_valid(void **state) {
    (void)state;
    replaced("", 0, "");
    replaced("a\xC3\xBC", 3, "a\xC3\xBC");
    replaced("a\x80z", 3, "a" R "z");
    replaced("\xE2\x82", 2, R); /* one prefix, one mark */
    replaced("\xF0\x9F\xA6z", 4, R "z");
    replaced("\xF0\x80\x80\x80", 4, R R R R); /* too long a form: no byte is a prefix */
    replaced("\xED\xA0\x80", 3, R R R);
    /* The examples of the Unicode standard, section 3.9. */
    replaced("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", 9, R R R R R R R R "A");
    replaced("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", 9, R R R R R "A" R R "B");
    replaced("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", 9, R R R R "A");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point), cmocka_unit_test(test_every_kind_of_sequence),
        cmocka_unit_test(test_is_valid),         cmocka_unit_test(test_complete_prefix),
        cmocka_unit_test(test_append_valid),
    };
    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
