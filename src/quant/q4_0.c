/* q4_0.c - 32 values in 18 bytes.
 *
 *   f16 d | u8 qs[16]          y[j] = d * ((qs[j] & 15) - 8), y[16 + j] = d * ((qs[j] >> 4) - 8) */
#include "quant/codec.h"

enum { ELEMS = 32, BYTES = 18, HALF = 16 };

void q4_0_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *b = row;
    for (size_t at = 0; at < n; at += ELEMS, b += BYTES) {
        float d = load_f16(b);
        for (int j = 0; j < HALF; j++) {
            out[at + j] = d * (float)((b[2 + j] & 15) - 8);
            out[at + HALF + j] = d * (float)((b[2 + j] >> 4) - 8);
        }
    }
}

/* The codes reach from -8 to +7: the value of largest magnitude is given the -8, and d the sign that
 * goes with it. */
void q4_0_encode_row(void *row, const float *x, size_t n) {
    uint8_t *b = row;
    for (size_t at = 0; at < n; at += ELEMS, b += BYTES) {
        float extreme = 0;
        for (int j = 0; j < ELEMS; j++)
            if (fabsf(x[at + j]) > fabsf(extreme)) extreme = x[at + j];
        float d = store_scale_f16(b, extreme / -8.0f);
        for (int j = 0; j < HALF; j++) {
            int lo = d != 0 ? round_clamped(x[at + j] / d, -8, 7) : 0;
            int hi = d != 0 ? round_clamped(x[at + HALF + j] / d, -8, 7) : 0;
            b[2 + j] = (uint8_t)((lo + 8) | (hi + 8) << 4);
        }
    }
}
