/* q4_k.c - 256 values in 144 bytes: 4 bits each, a 6-bit scale and minimum per 32.
 *
 *   f16 d | f16 dmin | u8 sc[12] | u8 qs[128]
 *   sub-block 2c takes the low nibbles of qs[32c..], sub-block 2c + 1 the high ones
 *   y = d * S * q - dmin * M           (S, M: k_scale_min) */
#include "quant/codec.h"

enum { ELEMS = 256, BYTES = 144, SUB = 32, SC = 4, QS = 16 };

void q4_k_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *b = row;
    for (size_t at = 0; at < n; at += ELEMS, b += BYTES) {
        float d = load_f16(b), dmin = load_f16(b + 2);
        for (int sub = 0; sub < ELEMS / SUB; sub++) {
            float s, m;
            k_scale_min(b + SC, sub, &s, &m);
            const uint8_t *qs = b + QS + SUB * (sub / 2);
            for (int l = 0; l < SUB; l++) {
                int q = sub & 1 ? qs[l] >> 4 : qs[l] & 15;
                out[at + SUB * sub + l] = d * s * (float)q - dmin * m;
            }
        }
    }
}
