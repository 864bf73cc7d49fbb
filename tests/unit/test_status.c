/* test_status.c - codes, and messages that are one line of UTF-8 whatever is put into them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/status.h"
#include "base/utf8.h"

static void test_fail(void **state) {
    (void)state;
    ds4_error err = {0};
    assert_int_equal(ds4_fail(&err, DS4_EFORMAT, "%s: found %d, expected %d", "x", 4, 3),
                     DS4_EFORMAT);
    assert_int_equal(err.code, DS4_EFORMAT);
    assert_string_equal(err.message, "x: found 4, expected 3");
    assert_int_equal(ds4_fail(&err, DS4_EIO, "other"), DS4_EIO);
    assert_int_equal(err.code, DS4_EIO);
    assert_string_equal(err.message, "other");
    assert_int_equal(ds4_fail(NULL, DS4_EFULL, "%s", "nobody listens"), DS4_EFULL);
}

static void test_nomem(void **state) {
    (void)state;
    ds4_error err = {0};
    assert_int_equal(ds4_fail_nomem(&err, "arena", 1000), DS4_ENOMEM);
    assert_int_equal(err.code, DS4_ENOMEM);
    assert_string_equal(err.message, "arena: out of memory (1000 bytes)");
    assert_int_equal(ds4_fail_nomem(NULL, "arena", SIZE_MAX), DS4_ENOMEM);
}

static void test_names(void **state) {
    (void)state;
    static const char *const names[] = {"OK",           "EINVAL",  "ENOMEM", "EIO",      "EFORMAT",
                                        "EUNSUPPORTED", "EDEVICE", "EFULL",  "ECANCELED"};
    for (int i = DS4_OK; i <= DS4_ECANCELED; i++)
        assert_string_equal(ds4_status_name((ds4_status)i), names[i]);
    assert_string_equal(ds4_status_name((ds4_status)99), "unknown status");
}

static void test_one_line(void **state) {
    (void)state;
    ds4_error err;
    ds4_fail(&err, DS4_EIO, "%s: no", "a\nb\r\x1b[2J\x7f\tz");
    assert_string_equal(err.message, "a?b??[2J??z: no");
    ds4_fail(&err, DS4_EIO, "%s: no", "gr\xC3\xBC\xC3\x9F");
    assert_string_equal(err.message, "gr\xC3\xBC\xC3\x9F: no");
    ds4_fail(&err, DS4_EIO, "%s: no", "\xC3\xBC\xFFz");
    assert_string_equal(err.message, "???z: no");
}

/* Cut at every place inside a character. */
static void test_long(void **state) {
    (void)state;
    enum { N = sizeof((ds4_error *)0)->message };
    char text[2 * N];
    for (size_t n_first = 0; n_first < 8; n_first++) {
        ds4_error err;
        strbuf b = {0};
        for (size_t i = 0; i < n_first; i++) strbuf_putc(&b, 'x');
        while (b.n < N + 40) strbuf_puts(&b, "\xF0\x9F\xA6\x80");
        memcpy(text, b.data, b.n + 1);
        strbuf_release(&b);
        assert_int_equal(ds4_fail(&err, DS4_EIO, "%s", text), DS4_EIO);
        size_t n = strlen(err.message);
        assert_in_range(n, N - 4, N - 1);
        assert_true(utf8_is_valid(err.message, n));
        assert_memory_equal(err.message, text, n);
    }
}

static int n_calls;

static ds4_status count(ds4_status result) {
    n_calls++;
    return result;
}

static ds4_status two_steps(ds4_status first, ds4_status second) {
    DS4_TRY(count(first));
    if (first == DS4_OK) DS4_TRY(count(second));
    return DS4_OK;
}

static void test_try(void **state) {
    (void)state;
    assert_int_equal(two_steps(DS4_OK, DS4_OK), DS4_OK);
    assert_int_equal(n_calls, 2); /* each evaluated once */
    assert_int_equal(two_steps(DS4_EIO, DS4_OK), DS4_EIO);
    assert_int_equal(n_calls, 3);
    assert_int_equal(two_steps(DS4_OK, DS4_EFULL), DS4_EFULL);
    assert_int_equal(n_calls, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fail),     cmocka_unit_test(test_nomem), cmocka_unit_test(test_names),
        cmocka_unit_test(test_one_line), cmocka_unit_test(test_long),  cmocka_unit_test(test_try),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
