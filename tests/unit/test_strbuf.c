/* test_strbuf.c - growing byte strings: contents, termination, failure that stays, views. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"

static void holds(const strbuf *b, const void *bytes, size_t n) {
    assert_false(b->is_failed);
    assert_int_equal(b->n, n);
    assert_true(b->n < b->n_cap);
    assert_memory_equal(b->data, bytes, n);
    assert_int_equal(b->data[n], 0);
}

static void test_append(void **state) {
    (void)state;
    strbuf b = {0};
    strbuf_puts(&b, "one");
    strbuf_putc(&b, ' ');
    strbuf_append(&b, "t\0o", 3);
    strbuf_view(&b, STRVIEW(" three"));
    strbuf_view(&b, (strview){NULL, 0});
    strbuf_append(&b, NULL, 0);
    holds(&b, "one t\0o three", 13);
    strbuf_release(&b);
    assert_null(b.data);
    assert_int_equal(b.n + b.n_cap, 0);
}

/* Byte for byte across every growth. */
static void test_growth(void **state) {
    (void)state;
    enum { N = 100000 };
    strbuf b = {0};
    for (size_t i = 0; i < N; i++) strbuf_putc(&b, (char)(i * 7));
    assert_int_equal(b.n, N);
    for (size_t i = 0; i < N; i++) assert_int_equal((unsigned char)b.data[i], (i * 7) & 0xFF);
    assert_int_equal(b.data[N], 0);
    strbuf_release(&b);
}

static void test_printf(void **state) {
    (void)state;
    strbuf b = {0};
    strbuf_printf(&b, "%s=%d", "n", -3);
    strbuf_printf(&b, "%s", "");
    holds(&b, "n=-3", 4);
    strbuf_printf(&b, "%0500d", 1); /* longer than what there is room for */
    assert_int_equal(b.n, 504);
    assert_int_equal(b.data[503], '1');
    assert_int_equal(b.data[504], 0);
    strbuf_release(&b);
}

static void test_reserve(void **state) {
    (void)state;
    strbuf b = {0};
    strbuf_reserve(&b, 1000);
    const char *data = b.data;
    assert_non_null(data);
    for (int i = 0; i < 1000; i++) strbuf_putc(&b, 'x');
    assert_ptr_equal(b.data, data); /* nothing moved: nothing was allocated */
    strbuf_release(&b);
}

static void test_truncate(void **state) {
    (void)state;
    strbuf b = {0};
    strbuf_truncate(&b, 0);
    assert_null(b.data);
    strbuf_puts(&b, "hyper-connection");
    strbuf_truncate(&b, 5);
    holds(&b, "hyper", 5);
    strbuf_truncate(&b, 6); /* never lengthens */
    holds(&b, "hyper", 5);
    strbuf_truncate(&b, 0);
    holds(&b, "", 0);
    strbuf_release(&b);
}

static void test_take(void **state) {
    (void)state;
    strbuf b = {0};
    size_t n = 99;
    strbuf_puts(&b, "text");
    char *taken = strbuf_take(&b, &n);
    assert_int_equal(n, 4);
    assert_string_equal(taken, "text");
    assert_null(b.data);
    free(taken);

    taken = strbuf_take(&b, &n); /* nothing was appended: an empty string */
    assert_int_equal(n, 0);
    assert_string_equal(taken, "");
    free(taken);
    strbuf_puts(&b, "again");
    taken = strbuf_take(&b, NULL);
    assert_string_equal(taken, "again");
    free(taken);
}

/* Sizes that no memory could have set the flag; what was there stays readable and releasable. */
static void test_failure_stays(void **state) {
    (void)state;
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 8, SIZE_MAX / 2, SIZE_MAX / 4 + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        strbuf b = {0};
        ds4_error err = {0};
        strbuf_puts(&b, "kept");
        assert_int_equal(strbuf_check(&b, "test", &err), DS4_OK);
        strbuf_reserve(&b, sizes[i]);
        assert_true(b.is_failed);
        strbuf_puts(&b, " not this");
        strbuf_printf(&b, "%d", 1);
        assert_int_equal(b.n, 4);
        assert_string_equal(b.data, "kept");
        assert_int_equal(strbuf_check(&b, "test", &err), DS4_ENOMEM);
        assert_int_equal(strncmp(err.message, "test: out of memory", 19), 0);
        assert_null(strbuf_take(&b, NULL));
        assert_null(b.data);
        assert_false(b.is_failed);
    }
}

static void test_views(void **state) {
    (void)state;
    const strview empty = {NULL, 0}, text = STRVIEW("layer");
    assert_int_equal(text.n, 5);
    assert_true(strview_equal(text, (strview){"layers", 5}));
    assert_false(strview_equal(text, STRVIEW("layers")));
    assert_false(strview_equal(text, STRVIEW("Layer")));
    assert_true(strview_equal(STRVIEW("a\0b"), STRVIEW("a\0b")));
    assert_false(strview_equal(STRVIEW("a\0b"), STRVIEW("a\0c")));
    assert_true(strview_equal(empty, STRVIEW("")));
    assert_true(strview_starts(text, STRVIEW("lay")));
    assert_true(strview_starts(text, text));
    assert_true(strview_starts(text, empty));
    assert_true(strview_starts(empty, empty));
    assert_false(strview_starts(empty, text));
    assert_false(strview_starts(text, STRVIEW("layers")));
    assert_false(strview_starts(text, STRVIEW("ay")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append),        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_printf),        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_truncate),      cmocka_unit_test(test_take),
        cmocka_unit_test(test_failure_stays), cmocka_unit_test(test_views),
    };
    return cmocka_run_group_tests_name("strbuf", tests, NULL, NULL);
}
