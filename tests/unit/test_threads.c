#include "base/threads.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__linux__)
#include <sched.h>
#endif

enum { MAX_PARTS = 5000, MAX_WORKERS = 256 };

/* Plain memory on purpose: a sanitizer sees whether jobs are ordered as the header says. */
typedef struct {
    uint32_t n_threads;
    uint32_t input;
    uint32_t runs[MAX_PARTS]; /* how often each part ran */
    uint32_t seen[MAX_PARTS]; /* input as the part saw it */
    uint32_t scratch[MAX_WORKERS][16];
    atomic_uint n_bad_workers;
} job;

static void count_part(void *arg, uint32_t part, uint32_t worker) {
    job *j = arg;
    if (worker >= j->n_threads) {
        atomic_fetch_add(&j->n_bad_workers, 1);
        return;
    }
    j->scratch[worker][0]++;
    j->runs[part]++;
    j->seen[part] = j->input;
}

static threads *pool_of(uint32_t n_threads) {
    threads *t = NULL;
    ds4_error err;
    if (threads_create(&t, n_threads, &err) != DS4_OK)
        fail_msg("%u threads: %s", n_threads, err.message);
    return t;
}

static void check_job(threads *t, job *j, uint32_t n_parts, uint32_t input) {
    memset(j, 0, sizeof *j);
    j->n_threads = threads_count(t);
    j->input = input;
    threads_run(t, n_parts, count_part, j);
    uint32_t n_by_worker = 0;
    for (uint32_t w = 0; w < j->n_threads; w++) n_by_worker += j->scratch[w][0];
    assert_int_equal(atomic_load(&j->n_bad_workers), 0);
    assert_int_equal(n_by_worker, n_parts);
    for (uint32_t part = 0; part < n_parts; part++) {
        if (j->runs[part] != 1 || j->seen[part] != input)
            fail_msg("%u threads, part %u of %u: ran %u times, saw %u, expected once, %u",
                     j->n_threads, part, n_parts, j->runs[part], j->seen[part], input);
    }
    for (uint32_t part = n_parts; part < MAX_PARTS; part++) assert_int_equal(j->runs[part], 0);
}

static void test_every_part_once(void **state) {
    (void)state;
    static const uint32_t n_threads[] = {1, 2, 3, 4, 7, 16};
    static const uint32_t n_parts[] = {0, 1, 2, 3, 5, 64, MAX_PARTS};
    static job j;
    for (size_t i = 0; i < sizeof n_threads / sizeof *n_threads; i++) {
        threads *t = pool_of(n_threads[i]);
        assert_int_equal(threads_count(t), n_threads[i]);
        for (size_t k = 0; k < sizeof n_parts / sizeof *n_parts; k++)
            check_job(t, &j, n_parts[k], (uint32_t)(1 + i * 100 + k));
        threads_destroy(t);
    }
}

static void add_to_cell(void *arg, uint32_t part, uint32_t worker) {
    (void)worker;
    uint32_t *cells = arg;
    cells[part]++;
}

/* Jobs that follow each other at once, as in a step: what one job wrote the next one sees. */
static void test_jobs_follow_each_other(void **state) {
    (void)state;
    enum { N_JOBS = 3000 };
    threads *t = pool_of(3);
    uint32_t cells[5] = {0};
    for (uint32_t i = 0; i < N_JOBS; i++) {
        threads_run(t, 1 + i % 5, add_to_cell, cells);
        cells[i % 5] += 10; /* between jobs they belong to the caller */
    }
    for (uint32_t part = 0; part < 5; part++)
        assert_int_equal(cells[part], N_JOBS / 5 * 10 + (5 - part) * N_JOBS / 5);
    threads_destroy(t);
}

/* Workers that fell asleep wake up for the next job; none is forgotten when they are just about to.
 */
static void test_after_pauses(void **state) {
    (void)state;
    static const long pause_us[] = {0, 10, 25, 28, 30, 32, 40, 100, 2000, 20000};
    static job j;
    threads *t = pool_of(4);
    for (uint32_t round = 0; round < 200; round++) {
        long us = pause_us[round % 10];
        if (us == 20000 && round > 20) us = 35;
        nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
        check_job(t, &j, 1 + round % 9, round);
    }
    threads_destroy(t);
}

static void test_destroy_at_any_moment(void **state) {
    (void)state;
    static job j;
    for (uint32_t round = 0; round < 60; round++) {
        threads *t = pool_of(1 + round % 5);
        if (round % 3 > 0) check_job(t, &j, 4, round);
        if (round % 3 > 1)
            nanosleep(&(struct timespec){.tv_nsec = (long)(round % 7) * 10000}, NULL);
        threads_destroy(t);
    }
    threads_destroy(NULL);
}

static void *run_pool(void *arg) {
    uint32_t *n_done = arg;
    threads *t;
    if (threads_create(&t, 2, NULL) != DS4_OK) return NULL;
    uint32_t cells[8] = {0};
    for (int i = 0; i < 500; i++) threads_run(t, 8, add_to_cell, cells);
    for (int i = 0; i < 8; i++) *n_done += cells[i];
    threads_destroy(t);
    return NULL;
}

/* Pools do not know of each other. */
static void test_two_pools(void **state) {
    (void)state;
    pthread_t ids[2];
    uint32_t n_done[2] = {0};
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&ids[i], NULL, run_pool, &n_done[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(ids[i], NULL);
    for (int i = 0; i < 2; i++) assert_int_equal(n_done[i], 8 * 500);
}

static void test_counts(void **state) {
    (void)state;
    uint32_t n = threads_default_count();
    assert_true(n >= 1 && n <= 256);
    threads *t = pool_of(0);
    assert_int_equal(threads_count(t), n);
    threads_destroy(t);
    ds4_error err;
    threads *none = NULL;
    assert_int_equal(threads_create(&none, 257, &err), DS4_EINVAL);
    assert_null(none);
    assert_non_null(strstr(err.message, "257"));
}

/* A process that is bound to one processor gets one thread. */
static void test_default_count_of_one_processor(void **state) {
    (void)state;
#if defined(__linux__)
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &all)) cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    uint32_t n = threads_default_count();
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_int_equal(n, 1);
#else
    skip();
#endif
}

static void test_quota(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint32_t n;
    } cases[] = {
        {"max 100000\n", 0},      {"200000 100000\n", 2},
        {"150000 100000\n", 2},   {"1000 100000\n", 1},
        {"100000 100000", 1},     {"9999999 100000\n", 100},
        {"99999999999 1\n", 256}, {"0 100000\n", 0},
        {"100000 0\n", 0},        {"", 0},
        {"100000\n", 0},          {"two 100000\n", 0},
        {"100000 max\n", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t n = threads_of_quota(cases[i].text);
        if (n != cases[i].n) fail_msg("'%s': found %u, expected %u", cases[i].text, n, cases[i].n);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_part_once),
        cmocka_unit_test(test_jobs_follow_each_other),
        cmocka_unit_test(test_after_pauses),
        cmocka_unit_test(test_destroy_at_any_moment),
        cmocka_unit_test(test_two_pools),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_default_count_of_one_processor),
        cmocka_unit_test(test_quota),
    };
    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
