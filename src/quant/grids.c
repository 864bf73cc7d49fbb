/* grids.c - FP8 and FP4 grids with power-of-two scales. All of it is exact arithmetic on bits, but for
 * the one rounding to the grid. */
#include "quant/grids.h"

#include <math.h>
#include <string.h>

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

uint8_t e4m3_encode(float x) {
    uint32_t u = bits_of(x), sign = u >> 24 & 0x80;
    u &= 0x7fffffff;
    if (u > 0x7f800000) return (uint8_t)(sign | 0x7f);
    if (u >= 0x43e00000) return (uint8_t)(sign | 0x7e); /* 448 and above */
    if (u < 0x3c800000) {
        /* Below 2^-6 codes are multiples of 2^-9; 8 of them carry into the smallest normal code. */
        return (uint8_t)(sign | (uint32_t)rintf(float_of(u) * 512.0f));
    }
    u -= (127 - 7) << 23;
    return (uint8_t)(sign | (u + 0x7ffff + (u >> 20 & 1)) >> 20);
}

float e4m3_decode(uint8_t code) {
    uint32_t sign = (uint32_t)(code & 0x80) << 24, magnitude = code & 0x7f;
    if (magnitude == 0x7f) return float_of(sign | 0x7fc00000);
    if (magnitude >= 8) return float_of(sign | ((magnitude << 20) + ((127 - 7) << 23)));
    return float_of(sign | bits_of((float)magnitude * 0x1p-9f));
}

uint8_t e2m1_encode(float x) {
    /* Halfway points belong to the even code: 0.25 and 1.25 stay below, 0.75 and 1.75 go up. */
    float a = fabsf(x);
    int code = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) + (a >= 3.5f) +
               (a > 5.0f);
    return (uint8_t)(code | (int)(bits_of(x) >> 31 << 3));
}

float e2m1_decode(uint8_t code) {
    static const float magnitude[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    float v = magnitude[code & 7];
    return code & 8 ? -v : v;
}

float ue8m0_decode(uint8_t byte) {
    if (byte == 255) return float_of(0x7fc00000);
    return float_of(byte ? (uint32_t)byte << 23 : 0x400000); /* 2^-127 is subnormal */
}

uint8_t ue8m0_scale_for(float amax, float grid_max) {
    uint32_t u = bits_of(amax * (1.0f / grid_max)) & 0x7fffffff;
    uint32_t byte = (u >> 23) + ((u & 0x7fffff) != 0);
    return (uint8_t)(byte < 254 ? byte : 254);
}

/* fmaxf passes over NaN, so that one bad value does not decide the scale of its block. */
static uint8_t block_scale(const float *x, size_t n, float floor, float grid_max) {
    float amax = floor;
    for (size_t i = 0; i < n; i++) amax = fmaxf(amax, fabsf(x[i]));
    return ue8m0_scale_for(amax, grid_max);
}

/* The smallest maximum a block is given, as in the reference: all-zero blocks get a harmless scale. */
static uint8_t fp8_scale(const float *x, size_t n) {
    return block_scale(x, n, 1e-4f, 448.0f);
}

static uint8_t fp4_scale(const float *x, size_t n) {
    return block_scale(x, n, 6.0f * 0x1p-126f, 6.0f);
}

static size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

void fp8_round(float *x, size_t n) {
    for (size_t at = 0; at < n; at += FP8_BLOCK) {
        size_t n_block = min_size(FP8_BLOCK, n - at);
        float scale = ue8m0_decode(fp8_scale(x + at, n_block));
        for (size_t i = at; i < at + n_block; i++)
            x[i] = e4m3_decode(e4m3_encode(x[i] / scale)) * scale;
    }
}

void fp4_round(float *x, size_t n) {
    for (size_t at = 0; at < n; at += FP4_BLOCK) {
        size_t n_block = min_size(FP4_BLOCK, n - at);
        float scale = ue8m0_decode(fp4_scale(x + at, n_block));
        for (size_t i = at; i < at + n_block; i++)
            x[i] = e2m1_decode(e2m1_encode(x[i] / scale)) * scale;
    }
}

void fp8_pack(uint8_t *codes, uint8_t *scales, const float *x, size_t n) {
    for (size_t at = 0; at < n; at += FP8_BLOCK) {
        size_t n_block = min_size(FP8_BLOCK, n - at);
        uint8_t byte = fp8_scale(x + at, n_block);
        scales[at / FP8_BLOCK] = byte;
        for (size_t i = at; i < at + n_block; i++)
            codes[i] = e4m3_encode(x[i] / ue8m0_decode(byte));
    }
}

void fp8_unpack(float *x, const uint8_t *codes, const uint8_t *scales, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = e4m3_decode(codes[i]) * ue8m0_decode(scales[i / FP8_BLOCK]);
}

void fp4_pack(uint8_t *codes, uint8_t *scales, const float *x, size_t n) {
    memset(codes, 0, (n + 1) / 2);
    for (size_t at = 0; at < n; at += FP4_BLOCK) {
        size_t n_block = min_size(FP4_BLOCK, n - at);
        uint8_t byte = fp4_scale(x + at, n_block);
        scales[at / FP4_BLOCK] = byte;
        for (size_t i = at; i < at + n_block; i++)
            codes[i / 2] |= (uint8_t)(e2m1_encode(x[i] / ue8m0_decode(byte)) << 4 * (i & 1));
    }
}

void fp4_unpack(float *x, const uint8_t *codes, const uint8_t *scales, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = e2m1_decode(codes[i / 2] >> 4 * (i & 1) & 15) * ue8m0_decode(scales[i / FP4_BLOCK]);
}

void hadamard(float *x, size_t n) {
    for (size_t half = 1; half < n; half *= 2)
        for (size_t at = 0; at < n; at += 2 * half)
            for (size_t i = at; i < at + half; i++) {
                float a = x[i], b = x[i + half];
                x[i] = a + b;
                x[i + half] = a - b;
            }
    float norm = (float)(1.0 / sqrt((double)n));
    for (size_t i = 0; i < n; i++) x[i] *= norm;
}
