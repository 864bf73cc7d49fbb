/* q3_k.c - 256 values in 110 bytes: 2 bits in qs, the third in hm, a 6-bit scale per 16.
 *
 *   u8 hm[32] | u8 qs[64] | u8 sc[12] | f16 d
 *   element e = 128h + 32j + l:  q = ((qs[32h + l] >> 2j) & 3) - (bit 4h + j of hm[l] ? 0 : 4)
 *   scale i = e / 16: low nibble from sc[0..7] (i < 8 low half, else high half), two high bits from
 *   sc[8..11], minus 32;  y[e] = d * scale * q */
#include "quant/codec.h"

enum { ELEMS = 256, BYTES = 110, QS = 32, SC = 96, D = 108 };

static int scale_of(const uint8_t *sc, int i) {
    int lo = i < 8 ? sc[i] & 15 : sc[i - 8] >> 4;
    int hi = sc[8 + (i & 3)] >> 2 * (i >> 2) & 3;
    return (lo | hi << 4) - 32;
}

void q3_k_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *b = row;
    for (size_t at = 0; at < n; at += ELEMS, b += BYTES) {
        float d = load_f16(b + D);
        for (int e = 0; e < ELEMS; e++) {
            int h = e / 128, j = e / 32 % 4, l = e % 32;
            int q = (b[QS + 32 * h + l] >> 2 * j & 3) - (b[l] >> (4 * h + j) & 1 ? 0 : 4);
            out[at + e] = d * (float)scale_of(b + SC, e / 16) * (float)q;
        }
    }
}
