/* threads.h - a pool of worker threads that run the parts of one job together.
 *
 *   A job is a function and a number of parts. The calling thread and the workers take parts from a
 *   shared counter until none is left; threads_run returns when all are done. Between jobs workers
 *   spin for some microseconds, since the next job of a step follows at once, and then sleep.
 *
 *   Owner    create/destroy; destroy joins the workers.
 *   Threads  One thread at a time calls threads_run; parts run concurrently and must not overlap in
 *            what they write. Which thread runs a part is not defined, so a result must not depend on
 *            it. Everything written before threads_run is seen by the parts, and everything the parts
 *            wrote is seen after it.
 *   Errors   create: DS4_ENOMEM, or DS4_EIO when the system refuses a thread (none is left behind). */
#ifndef DS4_BASE_THREADS_H
#define DS4_BASE_THREADS_H

#include "base/status.h"

typedef struct threads threads;

/* n_threads counts the caller: 1 creates no worker and runs every part in the caller; 0 takes
 * threads_default_count. At most 256. */
ds4_status threads_create(threads **out, uint32_t n_threads, ds4_error *err);
void threads_destroy(threads *t);
uint32_t threads_count(const threads *t);

/* The processors that this process may use: Linux looks at the affinity mask and at the quota of the
 * process's cgroup (version 2). */
uint32_t threads_default_count(void);
/* The processors that a cgroup's cpu.max ("200000 100000": quota and period) comes to, rounded up; 0:
 * no limit, or not such a text. */
uint32_t threads_of_quota(const char *cpu_max);

/* fn(arg, part, worker) for part 0..n_parts-1, worker < threads_count (for scratch memory of its own).
 * Allocates nothing. */
typedef void (*threads_fn)(void *arg, uint32_t part, uint32_t worker);
void threads_run(threads *t, uint32_t n_parts, threads_fn fn, void *arg);

#endif
