/* q5_k.c - 256 values in 176 bytes: Q4_K with a fifth bit per value in qh.
 *
 *   f16 d | f16 dmin | u8 sc[12] | u8 qh[32] | u8 qs[128]
 *   value l of sub-block b: nibble as in Q4_K, plus 16 if bit b of qh[l] is set */
#include "quant/codec.h"

enum { ELEMS = 256, BYTES = 176, SUB = 32, SC = 4, QH = 16, QS = 48 };

void q5_k_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *b = row;
    for (size_t at = 0; at < n; at += ELEMS, b += BYTES) {
        float d = load_f16(b), dmin = load_f16(b + 2);
        for (int sub = 0; sub < ELEMS / SUB; sub++) {
            float s, m;
            k_scale_min(b + SC, sub, &s, &m);
            const uint8_t *qs = b + QS + SUB * (sub / 2), *qh = b + QH;
            for (int l = 0; l < SUB; l++) {
                int q = (sub & 1 ? qs[l] >> 4 : qs[l] & 15) + 16 * (qh[l] >> sub & 1);
                out[at + SUB * sub + l] = d * s * (float)q - dmin * m;
            }
        }
    }
}
