/* iq2_xs.c - 256 values in 74 bytes: groups of 8 magnitudes from a grid of 512, signs, scales.
 *
 *   f16 d | u16 qs[32] | u8 sc[8]
 *   qs[k]: 9-bit grid index, 7-bit sign index of values 8k .. 8k + 7; a 4-bit scale for each 16
 *   y = d * (0.5 + scale) / 4 * +-magnitude */
#include "quant/codec.h"

enum { ELEMS = 256, BYTES = 74, QS = 2, SC = 66 };

void iq2_xs_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *b = row;
    for (size_t at = 0; at < n; at += ELEMS, b += BYTES) {
        float d = load_f16(b);
        for (int k = 0; k < ELEMS / 8; k++) {
            int i = k / 2, scale = b[SC + i / 2] >> 4 * (i & 1) & 15;
            float s = d * (0.5f + (float)scale) * 0.25f;
            uint16_t q = load_u16(b + QS + 2 * k);
            for (int j = 0; j < 8; j++) {
                int magnitude = (int)(iq2_xs_grid[q & 511] >> 8 * j & 255);
                bool is_negative = iq2_signs[q >> 9] >> j & 1;
                out[at + 8 * k + j] = s * (float)(is_negative ? -magnitude : magnitude);
            }
        }
    }
}
