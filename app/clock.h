/* clock.h - seconds on a clock that only goes forward. */
#ifndef DS4_APP_CLOCK_H
#define DS4_APP_CLOCK_H

#include <time.h>

static inline double clock_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif
