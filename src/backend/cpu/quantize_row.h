/* quantize_row.h - floats to int8 activation rows (layouts in quant.h); private to kernels*.c.
 *
 *   A table gives the function that quantises one block of 32 or 256; nothing in it depends on the
 *   order of sums, so that all tables agree bit for bit. */
#ifndef DS4_BACKEND_CPU_QUANTIZE_ROW_H
#define DS4_BACKEND_CPU_QUANTIZE_ROW_H

#include <math.h>
#include <string.h>

#include "quant/quant.h"

/* qs[n] of one block; returns its scale. */
typedef float (*quantize_block)(int8_t *qs, const float *x, size_t n);

/* The scale of a block whose largest magnitude is amax: d = amax / 127; *inverse <- 1 / d. False if
 * all qs are zero: a block with a NaN or an infinity has scale NaN, so that the damage stays
 * visible; one so small that 1 / d overflows has scale 0, as nothing in it is worth keeping. */
static inline bool quantize_scale(float amax, float *d, float *inverse) {
    const float largest = 3.4028235e38f;
    bool is_finite = amax <= largest;
    *d = amax / 127.0f;
    *inverse = 1.0f / *d;
    if (is_finite && *inverse <= largest) return true;
    *d = is_finite ? 0 : NAN;
    return false;
}

static inline void quantize_row_q8_32(void *row, const float *x, size_t n, quantize_block block) {
    int8_t *qs = row;
    for (size_t i = 0; i < n; i += ACT_BLOCK_32) {
        float d = block(qs + i, x + i, ACT_BLOCK_32);
        memcpy(qs + n + i / ACT_BLOCK_32 * sizeof d, &d, sizeof d);
    }
}

static inline void quantize_row_q8_256(void *row, const float *x, size_t n, quantize_block block) {
    int8_t *qs = row, *sums = qs + n + n / ACT_BLOCK_256 * sizeof(float);
    for (size_t i = 0; i < n; i += ACT_BLOCK_256) {
        float d = block(qs + i, x + i, ACT_BLOCK_256);
        memcpy(qs + n + i / ACT_BLOCK_256 * sizeof d, &d, sizeof d);
    }
    for (size_t i = 0; i < n; i += ACT_SUM_ELEMS) {
        int16_t sum = 0;
        for (size_t c = 0; c < ACT_SUM_ELEMS; c++) sum = (int16_t)(sum + qs[i + c]);
        memcpy(sums + i / ACT_SUM_ELEMS * sizeof sum, &sum, sizeof sum);
    }
}

#endif
