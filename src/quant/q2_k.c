/* q2_k.c - 256 values in 84 bytes, 2 bits each with a 4-bit scale and minimum per 16.
 *
 *   u8 sc[16] | u8 qs[64] | f16 d | f16 dmin
 *   element e = 128h + 32j + l:  q = (qs[32h + l] >> 2j) & 3
 *   y[e] = d * (sc[e / 16] & 15) * q - dmin * (sc[e / 16] >> 4) */
#include "quant/codec.h"

enum { ELEMS = 256, BYTES = 84, QS = 16, D = 80, DMIN = 82 };

void q2_k_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *b = row;
    for (size_t at = 0; at < n; at += ELEMS, b += BYTES) {
        float d = load_f16(b + D), dmin = load_f16(b + DMIN);
        for (int e = 0; e < ELEMS; e++) {
            int h = e / 128, j = e / 32 % 4, l = e % 32;
            int q = b[QS + 32 * h + l] >> 2 * j & 3, sc = b[e / 16];
            out[at + e] = d * (float)(sc & 15) * (float)q - dmin * (float)(sc >> 4);
        }
    }
}
