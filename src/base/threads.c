#include "base/threads.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 256, SPIN_NS = 30000 };

typedef struct {
    threads *pool;
    uint32_t index;
} worker;

struct threads {
    uint32_t   n_threads, n_started;
    pthread_t *ids;     /* [n_threads - 1] */
    worker    *workers; /* [n_threads - 1] */

    /* The job, written before `generation` is raised. */
    threads_fn  fn;
    void       *arg;
    uint32_t    n_parts;
    atomic_uint next_part;
    atomic_uint n_busy;     /* workers that have not finished the job */
    atomic_uint generation; /* raised for each job, and to stop */
    atomic_bool is_stopping;
    atomic_uint n_asleep;

    pthread_mutex_t mutex; /* guards falling asleep: a waker cannot miss a sleeper */
    pthread_cond_t  wake;
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void run_parts(threads *t, uint32_t index) {
    for (;;) {
        uint32_t part = atomic_fetch_add_explicit(&t->next_part, 1, memory_order_relaxed);
        if (part >= t->n_parts) return;
        t->fn(t->arg, part, index);
    }
}

/* Lets the other hardware thread, or another process, go on. */
static void pause_briefly(uint32_t round) {
    if (round % 64 == 63) sched_yield();
#if defined(__x86_64__) || defined(__i386__)
    else __builtin_ia32_pause();
#endif
}

/* Waits for a generation other than `seen`: spins at first, since the next job follows at once inside a
 * step, then sleeps. */
static uint32_t wait_for_job(threads *t, uint32_t seen) {
    uint64_t start = now_ns();
    for (uint32_t round = 0;; round++) {
        uint32_t now = atomic_load_explicit(&t->generation, memory_order_acquire);
        if (now != seen) return now;
        if (round % 64 == 63 && now_ns() - start > SPIN_NS) break;
        pause_briefly(round);
    }
    pthread_mutex_lock(&t->mutex);
    atomic_fetch_add(&t->n_asleep, 1);
    uint32_t now;
    while ((now = atomic_load(&t->generation)) == seen) pthread_cond_wait(&t->wake, &t->mutex);
    atomic_fetch_sub(&t->n_asleep, 1);
    pthread_mutex_unlock(&t->mutex);
    return now;
}

static void *worker_main(void *arg) {
    worker  *w = arg;
    threads *t = w->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_job(t, seen);
        if (atomic_load(&t->is_stopping)) return NULL;
        run_parts(t, w->index);
        atomic_fetch_sub_explicit(&t->n_busy, 1, memory_order_release);
    }
}

static void raise_generation(threads *t) {
    atomic_fetch_add(&t->generation, 1);
    if (atomic_load(&t->n_asleep) == 0) return;
    pthread_mutex_lock(&t->mutex);
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->mutex);
}

void threads_run(threads *t, uint32_t n_parts, threads_fn fn, void *arg) {
    if (n_parts == 0) return;
    t->fn = fn;
    t->arg = arg;
    t->n_parts = n_parts;
    atomic_store_explicit(&t->next_part, 0, memory_order_relaxed);
    uint32_t n_workers = t->n_threads - 1;
    if (n_workers == 0 || n_parts == 1) {
        run_parts(t, 0);
        return;
    }
    atomic_store_explicit(&t->n_busy, n_workers, memory_order_relaxed);
    raise_generation(t);
    run_parts(t, 0);
    for (uint32_t round = 0; atomic_load_explicit(&t->n_busy, memory_order_acquire) > 0; round++)
        pause_briefly(round);
}

uint32_t threads_of_quota(const char *cpu_max) {
    char              *end, *end_of_all;
    unsigned long long quota = strtoull(cpu_max, &end, 10); /* "max": no digits */
    if (end == cpu_max || *end != ' ') return 0;
    unsigned long long period = strtoull(end, &end_of_all, 10);
    if (end_of_all == end || period == 0 || quota == 0) return 0;
    unsigned long long n = quota / period + (quota % period != 0);
    return n > MAX_THREADS ? MAX_THREADS : (uint32_t)n;
}

#if defined(__linux__)

/* The start of a small file, terminated; false if it cannot be read. */
static bool read_text(const char *path, char *text, size_t n_cap) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, text, n_cap - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* 0: no quota. A container sees its own group as the root; a service is a group below it, whose path
 * stands in /proc/self/cgroup as "0::/path". */
static uint32_t quota_count(void) {
    char     text[512], path[600];
    uint32_t n = read_text("/sys/fs/cgroup/cpu.max", text, sizeof text) ? threads_of_quota(text) : 0;
    if (!read_text("/proc/self/cgroup", text, sizeof text)) return n;
    const char *own = strstr(text, "0::/");
    if (!own || (own != text && own[-1] != '\n')) return n;
    int n_own = (int)strcspn(own + 3, "\n");
    snprintf(path, sizeof path, "/sys/fs/cgroup%.*s/cpu.max", n_own, own + 3);
    uint32_t n_of_own = read_text(path, text, sizeof text) ? threads_of_quota(text) : 0;
    return n == 0 || (n_of_own > 0 && n_of_own < n) ? n_of_own : n;
}

#endif

uint32_t threads_default_count(void) {
    long n = 0;
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
#endif
    if (n < 1) n = sysconf(_SC_NPROCESSORS_ONLN);
#if defined(__linux__)
    uint32_t quota = quota_count();
    if (quota > 0 && n > (long)quota) n = quota;
#endif
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (uint32_t)n;
}

ds4_status threads_create(threads **out, uint32_t n_threads, ds4_error *err) {
    if (n_threads == 0) n_threads = threads_default_count();
    if (n_threads > MAX_THREADS)
        return ds4_fail(err, DS4_EINVAL, "threads: found %u, expected at most %d", n_threads, MAX_THREADS);
    threads *t = calloc(1, sizeof *t);
    if (!t) return ds4_fail_nomem(err, "threads", sizeof *t);
    t->n_threads = n_threads;
    t->ids = calloc(n_threads, sizeof *t->ids);
    t->workers = calloc(n_threads, sizeof *t->workers);
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->wake, NULL);
    if (!t->ids || !t->workers) {
        threads_destroy(t);
        return ds4_fail_nomem(err, "threads", n_threads * sizeof *t->workers);
    }
    for (uint32_t i = 0; i + 1 < n_threads; i++) {
        t->workers[i] = (worker){t, i + 1};
        if (pthread_create(&t->ids[i], NULL, worker_main, &t->workers[i]) != 0) {
            threads_destroy(t);
            return ds4_fail(err, DS4_EIO, "threads: the system refused thread %u of %u", i + 2, n_threads);
        }
        t->n_started++;
    }
    *out = t;
    return DS4_OK;
}

void threads_destroy(threads *t) {
    if (!t) return;
    atomic_store(&t->is_stopping, true);
    raise_generation(t);
    for (uint32_t i = 0; i < t->n_started; i++) pthread_join(t->ids[i], NULL);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->mutex);
    free(t->ids);
    free(t->workers);
    free(t);
}

uint32_t threads_count(const threads *t) {
    return t->n_threads;
}
