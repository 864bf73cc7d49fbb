/* mxfp4.c - 32 values in 17 bytes: E2M1 codes under one power-of-two scale.
 *
 *   u8 e | u8 qs[16]           y[j] = 2^(e - 127) * E2M1(qs[j] & 15), y[16 + j]: the high nibbles */
#include <string.h>

#include "quant/codec.h"
#include "quant/grids.h"

enum { ELEMS = 32, BYTES = 17, HALF = 16 };

const int8_t mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* 2^(e - 128): half the scale, for the doubled values. Finite for every byte; 0 and 1 are subnormal. */
static float half_scale(uint8_t e) {
    uint32_t bits = e >= 2 ? (uint32_t)(e - 1) << 23 : 0x200000u << e;
    float s;
    memcpy(&s, &bits, sizeof s);
    return s;
}

static float value_of(uint8_t code, float half) {
    /* Code 8 is minus zero, which the integer table cannot hold. */
    return code == 8 ? -0.0f : half * (float)mxfp4_values[code];
}

void mxfp4_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *b = row;
    for (size_t at = 0; at < n; at += ELEMS, b += BYTES) {
        float half = half_scale(b[0]);
        for (int j = 0; j < HALF; j++) {
            out[at + j] = value_of(b[1 + j] & 15, half);
            out[at + HALF + j] = value_of(b[1 + j] >> 4, half);
        }
    }
}

/* Writes the block with scale byte e and returns its squared error, in units of the scale. */
static double encode_block(uint8_t *b, const float *x, uint8_t e) {
    double error = 0, scale = 2.0 * (double)half_scale(e);
    b[0] = e;
    memset(b + 1, 0, HALF);
    for (int j = 0; j < ELEMS; j++) {
        double v = (double)x[j] / scale;
        uint8_t code = e2m1_encode((float)v);
        b[1 + j % HALF] |= (uint8_t)(j < HALF ? code : code << 4);
        double diff = (v - 0.5 * mxfp4_values[code]) * scale;
        error += diff * diff;
    }
    return error;
}

/* Two scales are worth a try: the smallest that holds the largest value, and half of it, which cuts
 * that value (by at most a quarter) but halves the steps of all others. */
void mxfp4_encode_row(void *row, const float *x, size_t n) {
    uint8_t *b = row;
    for (size_t at = 0; at < n; at += ELEMS, b += BYTES) {
        float amax = 0;
        for (int j = 0; j < ELEMS; j++) amax = fmaxf(amax, fabsf(x[at + j]));
        uint8_t e = ue8m0_scale_for(amax, 6.0f), wide[BYTES];
        double wide_error = encode_block(wide, x + at, e);
        if (e == 0 || !(encode_block(b, x + at, (uint8_t)(e - 1)) < wide_error))
            memcpy(b, wide, BYTES);
    }
}
