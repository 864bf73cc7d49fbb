/* q6_k.c - 256 values in 210 bytes: 4 bits in ql, 2 in qh, a signed 8-bit scale per 16.
 *
 *   u8 ql[128] | u8 qh[64] | int8 sc[16] | f16 d
 *   each half of 128 is four runs of 32: runs 0, 1 are the low nibbles of its 64 ql bytes, runs 2, 3
 *   the high ones; run r takes bits 2r, 2r + 1 of its 32 qh bytes
 *   y[e] = d * sc[e / 16] * (q - 32) */
#include "quant/codec.h"

enum { ELEMS = 256, BYTES = 210, QH = 128, SC = 192, D = 208 };

void q6_k_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *b = row;
    for (size_t at = 0; at < n; at += ELEMS, b += BYTES) {
        float d = load_f16(b + D);
        for (int e = 0; e < ELEMS; e++) {
            int h = e / 128, run = e / 32 % 4, l = e % 32;
            int low = b[64 * h + 32 * (run & 1) + l] >> (run < 2 ? 0 : 4) & 15;
            int high = b[QH + 32 * h + l] >> 2 * run & 3;
            float scale = d * (float)(int8_t)b[SC + e / 16];
            out[at + e] = scale * (float)((low | high << 4) - 32);
        }
    }
}
