/* test_arena.c - zeroed, aligned memory that does not overlap and ends together. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "base/arena.h"

enum { ALIGN = 64, BLOCK_BYTES = 64 * 1024 };

static bool is_zero(const unsigned char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i]) return false;
    return true;
}

/* Sizes around every border, among them some that need a block of their own; each piece is filled
 * with its number, and all of them still hold it at the end. */
static void test_pieces(void **state) {
    (void)state;
    static const size_t sizes[] = {1,
                                   63,
                                   64,
                                   65,
                                   4096,
                                   BLOCK_BYTES - ALIGN,
                                   BLOCK_BYTES - 1,
                                   BLOCK_BYTES,
                                   BLOCK_BYTES + 1,
                                   3 * BLOCK_BYTES,
                                   7,
                                   100000,
                                   64,
                                   1};
    enum { N_SIZES = sizeof sizes / sizeof *sizes, N_PIECES = 10 * N_SIZES };
    static unsigned char *pieces[N_PIECES];
    arena a = {0};
    size_t n_bytes = 0;
    for (size_t i = 0; i < N_PIECES; i++) {
        size_t n = sizes[i % N_SIZES];
        pieces[i] = arena_alloc(&a, n);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % ALIGN, 0);
        assert_true(is_zero(pieces[i], n));
        memset(pieces[i], (int)(i % 255) + 1, n);
        n_bytes += n;
        assert_in_range(a.n_bytes, n_bytes, n_bytes + (i + 1) * (ALIGN - 1));
    }
    for (size_t i = 0; i < N_PIECES; i++)
        for (size_t at = 0; at < sizes[i % N_SIZES]; at++)
            if (pieces[i][at] != i % 255 + 1)
                fail_msg("piece %zu of %zu bytes: byte %zu was overwritten", i, sizes[i % N_SIZES],
                         at);
    arena_release(&a);
    assert_null(a.last);
    assert_int_equal(a.n_bytes, 0);
}

/* Small pieces share blocks: the arena asks the system rarely. */
static void test_small_pieces_share(void **state) {
    (void)state;
    arena a = {0};
    const unsigned char *first = arena_alloc(&a, 8), *second = arena_alloc(&a, 8);
    assert_ptr_equal(second, first + ALIGN);
    struct arena_block *block = a.last;
    for (int i = 0; i < 100; i++) assert_non_null(arena_alloc(&a, 8));
    assert_ptr_equal(a.last, block);
    arena_release(&a);
}

static void test_nothing(void **state) {
    (void)state;
    arena a = {0};
    void *p = arena_alloc(&a, 0), *q = arena_alloc(&a, 0);
    assert_non_null(p);
    assert_non_null(q);
    assert_ptr_not_equal(p, q);
    assert_non_null(arena_array(&a, 0, 8));
    arena_release(&a);
    arena_release(&a); /* an empty one may be released again, and used */
    assert_non_null(arena_alloc(&a, 1));
    arena_release(&a);
}

static void test_too_much(void **state) {
    (void)state;
    arena a = {0};
    int *kept = arena_array(&a, 1, sizeof *kept);
    *kept = 7;
    size_t n_bytes = a.n_bytes;
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 63));
    assert_null(arena_alloc(&a, SIZE_MAX / 2 + 1));
    assert_null(arena_array(&a, SIZE_MAX / 8 + 2, 8)); /* the product wraps to 8 */
    assert_null(arena_strdup(&a, "", SIZE_MAX));
    assert_int_equal(a.n_bytes, n_bytes);
    assert_int_equal(*kept, 7);
    assert_non_null(arena_alloc(&a, 64));
    arena_release(&a);
}

static void test_array(void **state) {
    (void)state;
    arena a = {0};
    uint64_t *items = arena_array(&a, 1000, sizeof *items);
    for (size_t i = 0; i < 1000; i++) assert_int_equal(items[i], 0);
    arena_release(&a);
}

static void test_strdup(void **state) {
    (void)state;
    arena a = {0};
    assert_string_equal(arena_strdup(&a, "window ring", 6), "window");
    assert_string_equal(arena_strdup(&a, NULL, 0), "");
    assert_memory_equal(arena_strdup(&a, "a\0b", 3), "a\0b", 4);
    arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),  cmocka_unit_test(test_small_pieces_share),
        cmocka_unit_test(test_nothing), cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_array),   cmocka_unit_test(test_strdup),
    };
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
