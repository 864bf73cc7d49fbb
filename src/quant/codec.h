/* codec.h - the codec functions of quant/<type>.c, and how they read packed fields.
 *
 *   For src/quant and the CPU kernel tables: everybody else goes through the table in quant.h. Fields inside blocks are
 *   unaligned and little-endian, so they are read byte by byte. */
#ifndef DS4_QUANT_CODEC_H
#define DS4_QUANT_CODEC_H

#include <math.h>

#include "quant/quant.h"

static inline uint16_t load_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t load_u32(const uint8_t *p) {
    return load_u16(p) | (uint32_t)load_u16(p + 2) << 16;
}

static inline void store_u16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline float load_f16(const uint8_t *p) {
    return f16_to_f32(load_u16(p));
}

/* Stores d as f16 and returns what a reader will see. A scale beyond the f16 range is held at its
 * end: infinity would turn the zeros of the block into NaN. */
static inline float store_scale_f16(uint8_t *p, float d) {
    uint16_t h = f32_to_f16(fminf(fmaxf(d, -65504.0f), 65504.0f));
    store_u16(p, h);
    return f16_to_f32(h);
}

/* The integer nearest to x, ties to even, within [lo, hi]; 0 (which must be inside) for NaN. */
static inline int round_clamped(float x, int lo, int hi) {
    if (!(x >= (float)lo)) return x < (float)lo ? lo : 0;
    return x > (float)hi ? hi : (int)rintf(x);
}

/* Scale S and minimum M of sub-block b (0..7) of Q4_K and Q5_K: 6 bits each, packed in 12 bytes. The
 * first four pairs lie in the low 6 bits of bytes 0..7; the last four are split between the nibbles
 * of bytes 8..11 and the top two bits of bytes 0..7. */
static inline void k_scale_min(const uint8_t *sc, int b, float *s, float *m) {
    if (b < 4) {
        *s = (float)(sc[b] & 63);
        *m = (float)(sc[b + 4] & 63);
    } else {
        *s = (float)((sc[b + 4] & 15) | (sc[b - 4] >> 6) << 4);
        *m = (float)((sc[b + 4] >> 4) | (sc[b] >> 6) << 4);
    }
}

void f32_decode_row(float *out, const void *row, size_t n);
void f32_encode_row(void *row, const float *x, size_t n);
void f16_decode_row(float *out, const void *row, size_t n);
void f16_encode_row(void *row, const float *x, size_t n);
void bf16_decode_row(float *out, const void *row, size_t n);
void bf16_encode_row(void *row, const float *x, size_t n);
void i32_decode_row(float *out, const void *row, size_t n);
void i64_decode_row(float *out, const void *row, size_t n);
void q8_0_decode_row(float *out, const void *row, size_t n);
void q8_0_encode_row(void *row, const float *x, size_t n);
void q4_0_decode_row(float *out, const void *row, size_t n);
void q4_0_encode_row(void *row, const float *x, size_t n);
void q2_k_decode_row(float *out, const void *row, size_t n);
void q3_k_decode_row(float *out, const void *row, size_t n);
void q4_k_decode_row(float *out, const void *row, size_t n);
void q5_k_decode_row(float *out, const void *row, size_t n);
void q6_k_decode_row(float *out, const void *row, size_t n);
void iq2_xxs_decode_row(float *out, const void *row, size_t n);
void iq2_xs_decode_row(float *out, const void *row, size_t n);
void mxfp4_decode_row(float *out, const void *row, size_t n);
void mxfp4_encode_row(void *row, const float *x, size_t n);

#endif
