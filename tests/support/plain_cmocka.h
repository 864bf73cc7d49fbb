/* plain_cmocka.h - the few parts of cmocka that tests/kernels uses, as plain C, so that these tests
 * compile for machines whose cmocka is not at hand (another architecture under an emulator).
 *
 *   A test ends at its first failed assertion; the program goes on with the next one and ends with
 *   the line `N passed, N failed, N skipped`. Include it in one file of a program, instead of
 *   cmocka.h. */
#ifndef DS4_TESTS_PLAIN_CMOCKA_H
#define DS4_TESTS_PLAIN_CMOCKA_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static jmp_buf plain_end_of_test;
enum { PLAIN_FAILED = 1, PLAIN_SKIPPED = 2 };

#define plain_fail(...)                                                                            \
    do {                                                                                           \
        printf("%s:%d: ", __FILE__, __LINE__);                                                     \
        printf(__VA_ARGS__);                                                                       \
        printf("\n");                                                                              \
        longjmp(plain_end_of_test, PLAIN_FAILED);                                                  \
    } while (0)

#define fail_msg(...) plain_fail(__VA_ARGS__)
#define skip()        longjmp(plain_end_of_test, PLAIN_SKIPPED)
#define assert_true(c)                                                                             \
    do {                                                                                           \
        if (!(c)) plain_fail("%s does not hold", #c);                                              \
    } while (0)
#define assert_false(c)              assert_true(!(c))
#define assert_null(p)               assert_true((p) == NULL)
#define assert_non_null(p)           assert_true((p) != NULL)
#define assert_ptr_equal(a, b)       assert_true((a) == (b))
#define assert_int_equal(a, b)       assert_true((long long)(a) == (long long)(b))
#define assert_string_equal(a, b)    assert_true(strcmp(a, b) == 0)
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)

struct CMUnitTest {
    const char *name;
    void (*test)(void **state);
};
#define cmocka_unit_test(f)                                                                        \
    { #f, f }
#define cmocka_run_group_tests_name(group, tests, setup, teardown)                                 \
    plain_run(group, tests, sizeof(tests) / sizeof *(tests))

static inline int plain_run(const char *group, const struct CMUnitTest *tests, size_t n) {
    /* static: they keep their values over longjmp */
    static int n_ended[3];
    static size_t i;
    for (i = 0; i < n; i++) {
        int how = setjmp(plain_end_of_test);
        if (how == 0) tests[i].test(NULL);
        n_ended[how]++;
        static const char *const words[] = {"ok", "FAILED", "skipped"};
        printf("%s: %s: %s\n", group, tests[i].name, words[how]);
        fflush(stdout);
    }
    printf("%d passed, %d failed, %d skipped\n", n_ended[0], n_ended[1], n_ended[2]);
    return n_ended[PLAIN_FAILED];
}

#endif
