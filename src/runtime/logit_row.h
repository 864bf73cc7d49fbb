/* logit_row.h - what the sampler and the log-probabilities share in reading a row of logits.
 *
 *   A row is as long as the vocabulary (129280) and is read for every token, in blocks: most of
 *   them hold nothing of interest, which their maximum tells. The loops are such that a compiler
 *   can make vector code of them without changing the result.
 *
 *   Special values   NaN counts as -infinity, +infinity as the largest float. */
#ifndef DS4_RUNTIME_LOGIT_ROW_H
#define DS4_RUNTIME_LOGIT_ROW_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    LOGIT_LANES = 16,  /* independent partial results of a loop */
    LOGIT_BLOCK = 128, /* logits that are looked at, or skipped, together */
};

static inline float logit_clean(float v) {
    if (!(v >= -FLT_MAX)) return -INFINITY;
    return v < FLT_MAX ? v : FLT_MAX;
}

/* The largest logit, clean; -infinity if there is none above it. */
static inline float logit_row_max(const float *row, size_t n) {
    float lanes[LOGIT_LANES];
    for (size_t lane = 0; lane < LOGIT_LANES; lane++) lanes[lane] = -INFINITY;
    size_t i = 0;
    for (; i + LOGIT_LANES <= n; i += LOGIT_LANES)
        for (size_t lane = 0; lane < LOGIT_LANES; lane++)
            lanes[lane] = row[i + lane] > lanes[lane] ? row[i + lane] : lanes[lane];
    float max = -INFINITY;
    for (; i < n; i++) max = row[i] > max ? row[i] : max;
    for (size_t lane = 0; lane < LOGIT_LANES; lane++) max = lanes[lane] > max ? lanes[lane] : max;
    return logit_clean(max);
}

/* x within -87..0; NaN becomes -87. */
static inline float logit_clamp(float x) {
    x = x > -87.0f ? x : -87.0f;
    return x < 0.0f ? x : 0.0f;
}

/* e^x for x of -87..0, within 2 ulp. Only sums and products, so that it has the same bits on every
 * machine, unlike expf. */
static inline float logit_exp(float x) {
    /* 1. x = k ln 2 + r with integer k and |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to an integer,
     *    which then stands in the low bits. ln 2 in two parts: k times the first one is exact. */
    const float magic = 12582912.0f;
    float shifted = x * 1.44269504f + magic;
    float k = shifted - magic;
    float r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
    /* 2. e^r by its series; the first term left out is below 6e-9. */
    float e = 1.0f / 5040;
    e = e * r + 1.0f / 720;
    e = e * r + 1.0f / 120;
    e = e * r + 1.0f / 24;
    e = e * r + 1.0f / 6;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    /* 3. times 2^k, whose bits are the biased exponent alone: k >= -126. */
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4B400000u + 127u) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return e * scale;
}

/* p[i] = e^((block[i] - best) / temperature) for n <= LOGIT_BLOCK logits; best is the largest or
 * above it. About 1e-38 stands for anything less. */
static inline void logit_exp_block(float *restrict p, const float *restrict block, size_t n,
                                   float best, float temperature) {
    /* Two loops: in one, compilers split the cases of the clamp and give up on vectors. */
    for (size_t i = 0; i < n; i++) p[i] = logit_clamp((block[i] - best) / temperature);
    for (size_t i = 0; i < n; i++) p[i] = logit_exp(p[i]);
}

#endif
