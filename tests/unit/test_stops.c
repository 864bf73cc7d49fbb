#include "runtime/stops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"

typedef struct {
    uint64_t state;
} dice;

static uint32_t roll(dice *d, uint32_t n) {
    d->state = d->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((d->state >> 33) % n);
}

static stops *make(const char *const *sequences, size_t n) {
    stops    *s = NULL;
    ds4_error err = {0};
    assert_int_equal(stops_create(&s, NULL), DS4_OK);
    if (stops_start(s, sequences, n, &err) != DS4_OK) fail_msg("%s", err.message);
    return s;
}

/* Feeds one piece and expects this from it. */
static void feed(stops *s, const char *text, const char *expected, bool is_complete) {
    strbuf out = {0};
    assert_int_equal(stops_feed(s, &out, text, strlen(text)), is_complete);
    assert_string_equal(out.data ? out.data : "", expected);
    strbuf_release(&out);
}

static void finish(stops *s, const char *expected) {
    strbuf out = {0};
    stops_finish(s, &out);
    assert_string_equal(out.data ? out.data : "", expected);
    strbuf_release(&out);
}

static void test_pieces(void **state) {
    (void)state;
    static const char *const list[] = {"</s>", "stop"};
    stops *s = make(list, 2);
    feed(s, "a <", "a ", false);
    feed(s, "", "", false);
    feed(s, "/b> st", "</b> ", false);
    feed(s, "op it", "", true);
    feed(s, "more", "", true);
    finish(s, "");
    /* What was before is forgotten. */
    assert_int_equal(stops_start(s, list, 2, NULL), DS4_OK);
    feed(s, "op sto", "op ", false);
    finish(s, "sto");
    feed(s, "p", "p", false);
    stops_destroy(s);
    stops_destroy(NULL);
}

static void test_choice(void **state) {
    (void)state;
    static const char *const nested[] = {"abcde", "cd", "bcd", "bc_"};
    stops *s = make(nested, 4);
    feed(s, "xab", "x", false);
    feed(s, "cde", "a", true); /* "cd" and "bcd" end first, at the same byte; the longest counts */
    stops_destroy(s);

    static const char *const overlapping[] = {"aab", "aab"};
    s = make(overlapping, 2);
    feed(s, "aaaa", "aa", false);
    feed(s, "b", "", true);
    stops_destroy(s);

    static const char *const letters[] = {"\n"};
    s = make(letters, 1);
    feed(s, "one\ntwo", "one", true);
    stops_destroy(s);

    s = make(NULL, 0);
    feed(s, "all", "all", false);
    finish(s, "");
    stops_destroy(s);
    assert_int_equal(stops_create(&s, NULL), DS4_OK); /* never started */
    feed(s, "all", "all", false);
    stops_destroy(s);
}

/* ---- any split against a search in the whole text -------------------------------------------- */

enum { MAX_TEXT = 400 };

/* Where the text ends, by trying every end and every sequence; n without a match. */
static size_t naive_end(const char *text, size_t n, const char *const *list, size_t n_list,
                        bool *found) {
    for (size_t end = 1; end <= n; end++) {
        size_t longest = 0;
        for (size_t i = 0; i < n_list; i++) {
            size_t length = strlen(list[i]);
            bool   ends_here = length <= end && memcmp(text + end - length, list[i], length) == 0;
            if (ends_here && length > longest) longest = length;
        }
        if (longest) {
            *found = true;
            return end - longest;
        }
    }
    *found = false;
    return n;
}

/* How much of a prefix must stay back: the longest end of it that some sequence begins with. */
static size_t naive_held(const char *text, size_t n, const char *const *list, size_t n_list) {
    for (size_t held = n; held > 0; held--)
        for (size_t i = 0; i < n_list; i++)
            if (strlen(list[i]) > held && memcmp(text + n - held, list[i], held) == 0) return held;
    return 0;
}

/* Feeds the text in random pieces; after each one exactly what is certain must be out. */
static void check_split(stops *s, const char *text, size_t n, const char *const *list,
                        size_t n_list, dice *d, uint32_t max_piece) {
    bool   is_found, was_complete = false;
    size_t end = naive_end(text, n, list, n_list, &is_found);
    strbuf out = {0};
    assert_int_equal(stops_start(s, list, n_list, NULL), DS4_OK);
    for (size_t at = 0; at < n;) {
        size_t piece = roll(d, max_piece + 1);
        if (piece > n - at) piece = n - at;
        char *copy = malloc(piece ? piece : 1); /* exact, for the sanitizer */
        memcpy(copy, text + at, piece);
        was_complete = stops_feed(s, &out, copy, piece);
        free(copy);
        at += piece;
        bool   is_complete;
        size_t n_certain = naive_end(text, at, list, n_list, &is_complete);
        if (!is_complete) n_certain -= naive_held(text, at, list, n_list);
        assert_int_equal(was_complete, is_complete);
        assert_int_equal(out.n, n_certain);
    }
    assert_int_equal(was_complete, is_found);
    stops_finish(s, &out);
    assert_int_equal(out.n, end);
    if (end) assert_memory_equal(out.data, text, end);
    strbuf_release(&out);
}

static void test_any_split(void **state) {
    (void)state;
    dice   d = {20};
    stops *s = make(NULL, 0);
    for (int round = 0; round < 20000; round++) {
        uint32_t    n_letters = 1 + roll(&d, 3), n_list = roll(&d, 5), max_length = 1 + roll(&d, 8);
        char        bytes[5][10];
        const char *list[5];
        for (uint32_t i = 0; i < n_list; i++) {
            uint32_t length = 1 + roll(&d, max_length);
            for (uint32_t k = 0; k < length; k++) bytes[i][k] = (char)('a' + roll(&d, n_letters));
            bytes[i][length] = 0;
            list[i] = bytes[i];
        }
        char   text[40];
        size_t n = roll(&d, sizeof text);
        for (size_t i = 0; i < n; i++) text[i] = (char)('a' + roll(&d, n_letters + 1));
        check_split(s, text, n, list, n_list, &d, 1 + roll(&d, 9));
    }
    stops_destroy(s);
}

/* Sequences near the limits, with long fallbacks: runs of one letter with a rare other one. */
static void test_long(void **state) {
    (void)state;
    dice        d = {21};
    stops      *s = make(NULL, 0);
    const char *list[STOPS_MAX];
    char       *bytes = malloc(STOPS_MAX * (STOPS_MAX_BYTES + 1));
    for (size_t i = 0; i < STOPS_MAX; i++) {
        char  *sequence = bytes + i * (STOPS_MAX_BYTES + 1);
        size_t n = i == 0 ? STOPS_MAX_BYTES : 100 + roll(&d, MAX_TEXT);
        for (size_t k = 0; k < n; k++) sequence[k] = roll(&d, 150) ? 'a' : 'b';
        sequence[n] = 0;
        list[i] = sequence;
    }
    for (int round = 0; round < 20; round++) {
        char text[MAX_TEXT];
        for (size_t i = 0; i < sizeof text; i++) text[i] = roll(&d, 150) ? 'a' : 'b';
        check_split(s, text, sizeof text, list, STOPS_MAX, &d, 100);
    }
    /* The longest one alone, whole, after all but its last byte was held. */
    assert_int_equal(stops_start(s, list, 1, NULL), DS4_OK);
    strbuf out = {0};
    strbuf_reserve(&out, STOPS_MAX_BYTES + 8);
    char *before = out.data;
    assert_false(stops_feed(s, &out, list[0], STOPS_MAX_BYTES - 1));
    size_t n_certain = out.n;
    assert_int_equal(n_certain, 0);
    assert_true(stops_feed(s, &out, list[0] + STOPS_MAX_BYTES - 1, 1));
    assert_int_equal(out.n, 0);
    assert_int_equal(stops_start(s, list, 1, NULL), DS4_OK);
    assert_false(stops_feed(s, &out, list[0], STOPS_MAX_BYTES - 1));
    assert_false(stops_feed(s, &out, "!", 1));
    assert_int_equal(out.n, STOPS_MAX_BYTES);
    assert_ptr_equal(out.data, before); /* as much as was reserved */
    strbuf_release(&out);
    free(bytes);
    stops_destroy(s);
}

/* Whole characters in, whole characters out, also where the characters of text and sequences share
 * bytes. */
static void test_characters(void **state) {
    (void)state;
    static const char *const list[] = {"é€", "€😀"};
    static const char *const letters[] = {"é", "è", "€", "₭", "😀", "😁", "a"};
    dice   d = {22};
    stops *s = make(list, 2);
    for (int round = 0; round < 3000; round++) {
        assert_int_equal(stops_start(s, list, 2, NULL), DS4_OK);
        bool is_complete = false;
        for (int i = 0; i < 12; i++) {
            strbuf      out = {0};
            const char *letter = letters[roll(&d, 7)];
            is_complete |= stops_feed(s, &out, letter, strlen(letter));
            assert_true(utf8_is_valid(out.data ? out.data : "", out.n));
            strbuf_release(&out);
        }
        strbuf out = {0};
        stops_finish(s, &out);
        assert_true(utf8_is_valid(out.data ? out.data : "", out.n));
        if (is_complete) assert_int_equal(out.n, 0);
        strbuf_release(&out);
    }
    stops_destroy(s);
}

static void test_refused(void **state) {
    (void)state;
    static const char *const good[] = {"END"};
    stops      *s = make(good, 1);
    ds4_error   err = {0};
    char       *overlong = malloc(STOPS_MAX_BYTES + 2);
    const char *many[STOPS_MAX + 1];
    memset(overlong, 'x', STOPS_MAX_BYTES + 1);
    overlong[STOPS_MAX_BYTES + 1] = 0;
    for (size_t i = 0; i <= STOPS_MAX; i++) many[i] = "x";
    const char *const empty[] = {"x", ""}, *const null[] = {NULL}, *const invalid[] = {"\xA9x"};
    const char *const is_long[] = {"x", "y", overlong};
    const struct {
        const char *const *list;
        size_t             n;
        const char        *message;
    } cases[] = {
        {many, STOPS_MAX + 1, "stops: found 65"}, {NULL, 1, "stops: no list"},
        {empty, 2, "stops[1]: found no text"},    {null, 1, "stops[0]: found no text"},
        {invalid, 1, "stops[0]: not valid"},      {is_long, 3, "stops[2]: longer than 4096"},
    };
    feed(s, "1 E", "1 ", false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(stops_start(s, cases[i].list, cases[i].n, &err), DS4_EINVAL);
        if (!strstr(err.message, cases[i].message))
            fail_msg("found \"%s\", expected \"%s\"", err.message, cases[i].message);
    }
    feed(s, "ND", "", true); /* as if nothing had happened */
    assert_int_equal(stops_start(s, many, STOPS_MAX, NULL), DS4_OK);
    overlong[STOPS_MAX_BYTES] = 0;
    assert_int_equal(stops_start(s, is_long, 3, NULL), DS4_OK);
    free(overlong);
    stops_destroy(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),     cmocka_unit_test(test_choice),
        cmocka_unit_test(test_any_split),  cmocka_unit_test(test_long),
        cmocka_unit_test(test_characters), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("stops", tests, NULL, NULL);
}
