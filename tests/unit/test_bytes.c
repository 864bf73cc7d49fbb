/* The bounded cursor and the checked products. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/bytes.h"
#include "base/checked.h"

static void test_reads(void **state) {
    (void)state;
    static const uint8_t data[] = {0xF1, 0x02, 0xF3, 0x04, 0x05, 0x06, 0xF7, 0x08, 0x09, 0x0A,
                                   0x0B, 0x0C, 0x0D, 0x0E, 0xFF, 0x00, 0x00, 0xC0, 0xBF, 0x99};
    bytes_cursor c = bytes_from(data, sizeof data);
    assert_int_equal(bytes_u8(&c), 0xF1);
    assert_int_equal(bytes_u16(&c), 0xF302);
    assert_int_equal(bytes_u32(&c), 0xF7060504);
    assert_true(bytes_u64(&c) == 0xFF0E0D0C0B0A0908u);
    assert_true(bytes_f32(&c) == -1.5f);
    assert_int_equal(c.at, 19);
    assert_false(c.is_short);
    assert_ptr_equal(bytes_take(&c, 1), data + 19);
    assert_ptr_equal(bytes_take(&c, 0), data + 20); /* nothing, at the very end */
    assert_false(c.is_short);
}

/* After a short read everything is zero, also what would still fit. */
static void test_short(void **state) {
    (void)state;
    uint8_t *data = malloc(7); /* an own block: a sanitizer sees a read behind it */
    for (int i = 0; i < 7; i++) data[i] = 0xFF;
    for (size_t n = 0; n < 8; n++) {
        bytes_cursor c = bytes_from(data, n < 7 ? n : 7);
        assert_true(bytes_u64(&c) == 0);
        assert_true(c.is_short);
        assert_int_equal(c.at, 0);
        assert_int_equal(bytes_u8(&c), 0);
        assert_true(bytes_f32(&c) == 0.0f);
        assert_null(bytes_take(&c, 0));
        assert_true(c.is_short);
    }
    free(data);
}

static void test_lengths_that_lie(void **state) {
    (void)state;
    static const uint8_t data[16] = {1};
    static const uint64_t lengths[] = {17, 1ull << 32, (1ull << 63) + 1, UINT64_MAX,
                                       UINT64_MAX - 3};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        bytes_cursor c = bytes_from(data, sizeof data);
        bytes_u32(&c);
        assert_null(bytes_take(&c, lengths[i]));
        assert_true(c.is_short);
        assert_int_equal(c.at, 4);
    }
    bytes_cursor none = bytes_from(NULL, 0);
    assert_int_equal(bytes_u8(&none), 0);
    assert_true(none.is_short);
}

static void test_uint_of_any_width(void **state) {
    (void)state;
    static const uint8_t data[] = {1, 2, 3, 4, 5, 6, 7};
    bytes_cursor c = bytes_from(data, sizeof data);
    assert_true(bytes_uint(&c, 3) == 0x030201);
    assert_true(bytes_uint(&c, 0) == 0);
    assert_true(bytes_uint(&c, 4) == 0x07060504);
}

static void test_checked(void **state) {
    (void)state;
    uint64_t out = 0;
    assert_true(checked_add(&out, UINT64_MAX - 1, 1));
    assert_true(out == UINT64_MAX);
    assert_false(checked_add(&out, UINT64_MAX, 1));
    assert_false(checked_add(&out, 1ull << 63, 1ull << 63));
    assert_true(checked_mul(&out, 0xFFFFFFFFu, 0x100000001u));
    assert_true(out == UINT64_MAX);
    assert_true(checked_mul(&out, UINT64_MAX, 0));
    assert_true(out == 0);
    assert_false(checked_mul(&out, 1ull << 32, 1ull << 32));
    assert_false(checked_mul(&out, UINT64_MAX, 2));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_short),
        cmocka_unit_test(test_lengths_that_lie),
        cmocka_unit_test(test_uint_of_any_width),
        cmocka_unit_test(test_checked),
    };
    return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
