/* quantize_row.h - floats to int8 activation rows (layouts in quant/quant.h); private to kernels*.c.
 *
 *   One text for every table, compiled with each file's flags: nothing in it depends on the order of
 *   sums, so that all tables agree bit for bit. */
#ifndef DS4_BACKEND_CPU_QUANTIZE_ROW_H
#define DS4_BACKEND_CPU_QUANTIZE_ROW_H

#include <math.h>
#include <string.h>

#include "quant/quant.h"

/* qs of one block, and its scale: d = amax / 127. A block with a NaN or an infinity becomes zeros with
 * scale NaN, so that the damage stays visible. */
static inline float quantize_row_block(int8_t *qs, const float *x, size_t n) {
    float amax = 0;
    for (size_t i = 0; i < n; i++) {
        float v = fabsf(x[i]);
        if (!(v <= 3.4028235e38f)) {
            memset(qs, 0, n);
            return NAN;
        }
        if (v > amax) amax = v;
    }
    float d = amax / 127.0f, inverse = 1.0f / d;
    /* So small that 1 / d overflows: nothing worth keeping. */
    if (!(inverse <= 3.4028235e38f)) {
        memset(qs, 0, n);
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        float q = rintf(x[i] * inverse);
        qs[i] = (int8_t)fminf(fmaxf(q, -127.0f), 127.0f);
    }
    return d;
}

static inline void quantize_row_q8_32(void *row, const float *x, size_t n) {
    int8_t *qs = row;
    for (size_t i = 0; i < n; i += ACT_BLOCK_32) {
        float d = quantize_row_block(qs + i, x + i, ACT_BLOCK_32);
        memcpy(qs + n + i / ACT_BLOCK_32 * sizeof d, &d, sizeof d);
    }
}

static inline void quantize_row_q8_256(void *row, const float *x, size_t n) {
    int8_t *qs = row, *sums = qs + n + n / ACT_BLOCK_256 * sizeof(float);
    for (size_t i = 0; i < n; i += ACT_BLOCK_256) {
        float d = quantize_row_block(qs + i, x + i, ACT_BLOCK_256);
        memcpy(qs + n + i / ACT_BLOCK_256 * sizeof d, &d, sizeof d);
    }
    for (size_t i = 0; i < n; i += ACT_SUM_ELEMS) {
        int16_t sum = 0;
        for (size_t c = 0; c < ACT_SUM_ELEMS; c++) sum = (int16_t)(sum + qs[i + c]);
        memcpy(sums + i / ACT_SUM_ELEMS * sizeof sum, &sum, sizeof sum);
    }
}

#endif
