/* iq2_xxs.c - 256 values in 66 bytes: groups of 8 magnitudes from a grid of 256, signs, scales.
 *
 *   f16 d | 8 groups of { u8 grid_index[4]; u32 b }
 *   b: four 7-bit sign indices from bit 0, then a 4-bit scale; a group is 4 x 8 values
 *   y = d * (0.5 + scale) / 4 * +-magnitude */
#include "quant/codec.h"

enum { ELEMS = 256, BYTES = 66, GROUP = 32 };

void iq2_xxs_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *b = row;
    for (size_t at = 0; at < n; at += ELEMS, b += BYTES) {
        float d = load_f16(b);
        for (int g = 0; g < ELEMS / GROUP; g++) {
            const uint8_t *index = b + 2 + 8 * g;
            uint32_t bits = load_u32(index + 4);
            float s = d * (0.5f + (float)(bits >> 28)) * 0.25f;
            for (int e = 0; e < GROUP; e++) {
                int l = e / 8, j = e % 8;
                int magnitude = (int)(iq2_xxs_grid[index[l]] >> 8 * j & 255);
                bool is_negative = iq2_signs[bits >> 7 * l & 127] >> j & 1;
                out[at + GROUP * g + e] = s * (float)(is_negative ? -magnitude : magnitude);
            }
        }
    }
}
