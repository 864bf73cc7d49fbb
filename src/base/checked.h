/* checked.h - sums and products of sizes that come from outside: false on overflow. */
#ifndef DS4_BASE_CHECKED_H
#define DS4_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool checked_add(uint64_t *out, uint64_t a, uint64_t b) {
    return !__builtin_add_overflow(a, b, out);
}

static inline bool checked_mul(uint64_t *out, uint64_t a, uint64_t b) {
    return !__builtin_mul_overflow(a, b, out);
}

#endif
