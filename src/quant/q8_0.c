/* q8_0.c - 32 values in 34 bytes.
 *
 *   f16 d | int8 qs[32]        y[j] = d * qs[j] */
#include "quant/codec.h"

enum { ELEMS = 32, BYTES = 34 };

void q8_0_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *b = row;
    for (size_t at = 0; at < n; at += ELEMS, b += BYTES) {
        float d = load_f16(b);
        for (int j = 0; j < ELEMS; j++) out[at + j] = d * (float)(int8_t)b[2 + j];
    }
}

/* d = max|x| / 127. Values are rounded with the stored d, which f16 has already rounded. */
void q8_0_encode_row(void *row, const float *x, size_t n) {
    uint8_t *b = row;
    for (size_t at = 0; at < n; at += ELEMS, b += BYTES) {
        float amax = 0;
        for (int j = 0; j < ELEMS; j++) amax = fmaxf(amax, fabsf(x[at + j]));
        float d = store_scale_f16(b, amax / 127.0f);
        for (int j = 0; j < ELEMS; j++)
            b[2 + j] = (uint8_t)(d > 0 ? round_clamped(x[at + j] / d, -127, 127) : 0);
    }
}
