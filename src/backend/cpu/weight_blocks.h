/* weight_blocks.h - blocks of weights in the forms that kernels multiply; private to kernels_*.c.
 *
 *   Every K and IQ2 type is brought to one form, so that an instruction set needs one product:
 *
 *       value[e] = d * scale[g] * (q[e] - offset) - dmin * min[g]        g = e / 16
 *
 *   A type has either an offset or minimums. With an offset, min[g] is offset * scale[g], so that
 *   d * (scale . q . x - min . sums of x) is the product, integers all through inside the brackets.
 *
 *   Ranges  q <= 86, q * |x| of two neighbours below 2^15; |scale| <= 128, |min| <= 4096.
 *   Order   Integers and exact products only: the same bits under every instruction set.
 *
 *   One text, compiled with each file's flags: plain loops of 8 or 32 bytes, which compilers turn
 *   into vectors. Little-endian. */
#ifndef DS4_BACKEND_CPU_WEIGHT_BLOCKS_H
#define DS4_BACKEND_CPU_WEIGHT_BLOCKS_H

#include <string.h>

#include "quant/codec.h"

enum { K_ELEMS = 256, K_GROUPS = 16, K_RUN = 32 };

typedef struct {
    uint8_t q[K_ELEMS];
    int16_t scale[K_GROUPS], min[K_GROUPS];
    float d, dmin; /* dmin is 0 for a type with an offset */
    int offset;    /* 0 for a type with minimums */
} k_block;

typedef void (*k_unpack)(k_block *k, const uint8_t *block);

/* q[32] = bits [shift, shift + n_bits) of in[32]; eight bytes at a time, where what comes over from
 * a neighbour falls to the mask. */
static inline void k_take_bits(uint8_t *q, const uint8_t *in, int shift, int n_bits) {
    uint64_t mask = 0x0101010101010101u * ((1u << n_bits) - 1);
    for (int i = 0; i < K_RUN; i += 8) {
        uint64_t v;
        memcpy(&v, in + i, sizeof v);
        v = v >> shift & mask;
        memcpy(q + i, &v, sizeof v);
    }
}

/* q[32] |= bits [shift, shift + n_bits) of in[32], moved up to bit `to`. */
static inline void k_add_bits(uint8_t *q, const uint8_t *in, int shift, int n_bits, int to) {
    uint64_t mask = 0x0101010101010101u * ((1u << n_bits) - 1);
    for (int i = 0; i < K_RUN; i += 8) {
        uint64_t v, low;
        memcpy(&v, in + i, sizeof v);
        memcpy(&low, q + i, sizeof low);
        low |= (v >> shift & mask) << to;
        memcpy(q + i, &low, sizeof low);
    }
}

static inline void k_set_offset(k_block *k, float d, int offset) {
    k->d = d;
    k->dmin = 0;
    k->offset = offset;
    for (int g = 0; g < K_GROUPS; g++) k->min[g] = (int16_t)(offset * k->scale[g]);
}

/* The layouts stand in quant/<type>.c; a run is 32 elements. */

static inline void q2_k_unpack(k_block *k, const uint8_t *block) {
    for (int run = 0; run < 8; run++)
        k_take_bits(k->q + K_RUN * run, block + 16 + K_RUN * (run / 4), 2 * (run % 4), 2);
    for (int g = 0; g < K_GROUPS; g++) {
        k->scale[g] = block[g] & 15;
        k->min[g] = block[g] >> 4;
    }
    k->d = load_f16(block + 80);
    k->dmin = load_f16(block + 82);
    k->offset = 0;
}

static inline void q3_k_unpack(k_block *k, const uint8_t *block) {
    const uint8_t *sc = block + 96;
    for (int run = 0; run < 8; run++) {
        k_take_bits(k->q + K_RUN * run, block + 32 + K_RUN * (run / 4), 2 * (run % 4), 2);
        k_add_bits(k->q + K_RUN * run, block, run, 1, 2);
    }
    for (int g = 0; g < K_GROUPS; g++) {
        int low = sc[g % 8] >> 4 * (g / 8) & 15, high = sc[8 + g % 4] >> 2 * (g / 4) & 3;
        k->scale[g] = (int16_t)((low | high << 4) - 32);
    }
    k_set_offset(k, load_f16(block + 108), 4);
}

/* What Q4_K and Q5_K share: all but the fifth bit. `qs` is where the nibbles begin. */
static inline void q45_k_unpack(k_block *k, const uint8_t *block, const uint8_t *qs) {
    for (int run = 0; run < 8; run++) {
        float s, m;
        k_take_bits(k->q + K_RUN * run, qs + K_RUN * (run / 2), 4 * (run % 2), 4);
        k_scale_min(block + 4, run, &s, &m);
        k->scale[2 * run] = k->scale[2 * run + 1] = (int16_t)s;
        k->min[2 * run] = k->min[2 * run + 1] = (int16_t)m;
    }
    k->d = load_f16(block);
    k->dmin = load_f16(block + 2);
    k->offset = 0;
}

static inline void q4_k_unpack(k_block *k, const uint8_t *block) {
    q45_k_unpack(k, block, block + 16);
}

static inline void q5_k_unpack(k_block *k, const uint8_t *block) {
    q45_k_unpack(k, block, block + 48);
    for (int run = 0; run < 8; run++) k_add_bits(k->q + K_RUN * run, block + 16, run, 1, 4);
}

static inline void q6_k_unpack(k_block *k, const uint8_t *block) {
    for (int run = 0; run < 8; run++) {
        int half = run / 4, r = run % 4;
        uint8_t *q = k->q + K_RUN * run;
        k_take_bits(q, block + 64 * half + K_RUN * (r & 1), r < 2 ? 0 : 4, 4);
        k_add_bits(q, block + 128 + K_RUN * half, 2 * r, 2, 4);
    }
    for (int g = 0; g < K_GROUPS; g++) k->scale[g] = (int8_t)block[192 + g];
    k_set_offset(k, load_f16(block + 208), 32);
}

/* Magnitudes reach 43. */
enum { IQ2_OFFSET = 43 };

/* 43 +- eight magnitudes, + where the bit of `signs` is clear; no byte borrows from the next. */
static inline uint64_t iq2_codes(uint64_t magnitudes, uint8_t signs) {
    const uint64_t ones = 0x0101010101010101u, offset = IQ2_OFFSET * ones;
    /* Byte j of the mask is all ones if bit j is set: alone in its byte, then carried up. */
    uint64_t bit = signs * ones & 0x8040201008040201u;
    uint64_t mask = ((bit + 0x7f * ones) >> 7 & ones) * 0xff;
    return ((offset + magnitudes) & ~mask) | ((offset - magnitudes) & mask);
}

/* Values are d * (0.5 + s) / 4 * magnitude: multiples of d / 8. */
static inline void iq2_xxs_unpack(k_block *k, const uint8_t *block) {
    for (int run = 0; run < 8; run++) {
        const uint8_t *index = block + 2 + 8 * run;
        uint32_t bits = load_u32(index + 4);
        for (int i = 0; i < 4; i++) {
            uint64_t q = iq2_codes(iq2_xxs_grid[index[i]], iq2_signs[bits >> 7 * i & 127]);
            memcpy(k->q + K_RUN * run + 8 * i, &q, sizeof q);
        }
        k->scale[2 * run] = k->scale[2 * run + 1] = (int16_t)(2 * (bits >> 28) + 1);
    }
    k_set_offset(k, 0.125f * load_f16(block), IQ2_OFFSET);
}

static inline void iq2_xs_unpack(k_block *k, const uint8_t *block) {
    for (int i = 0; i < 32; i++) {
        uint16_t v = load_u16(block + 2 + 2 * i);
        uint64_t q = iq2_codes(iq2_xs_grid[v & 511], iq2_signs[v >> 9]);
        memcpy(k->q + 8 * i, &q, sizeof q);
    }
    for (int g = 0; g < K_GROUPS; g++)
        k->scale[g] = (int16_t)(2 * (block[66 + g / 2] >> 4 * (g % 2) & 15) + 1);
    k_set_offset(k, 0.125f * load_f16(block), IQ2_OFFSET);
}

/* The values of a block. Products are exact, so that only the subtraction of a minimum rounds: the
 * bits are those of the codec. */
static void k_decode_block(float *out, const k_block *k) {
    for (int g = 0; g < K_GROUPS; g++) {
        /* Subtracting +0 leaves a minus zero as it is. */
        float s = k->d * (float)k->scale[g], m = k->offset ? 0 : k->dmin * (float)k->min[g];
        for (int i = 16 * g; i < 16 * g + 16; i++) out[i] = s * (float)(k->q[i] - k->offset) - m;
    }
}

static inline void k_decode_row(float *out, const uint8_t *row, size_t n, size_t block_bytes,
                                k_unpack unpack) {
    for (size_t at = 0; at < n; at += K_ELEMS, row += block_bytes) {
        k_block k;
        unpack(&k, row);
        k_decode_block(out + at, &k);
    }
}

/* MXFP4: 2^(e - 128), half the scale, for the doubled values of mxfp4_values. Always finite. */
static inline float mxfp4_half_scale(uint8_t e) {
    uint32_t bits = e >= 2 ? (uint32_t)(e - 1) << 23 : 0x200000u << e;
    float s;
    memcpy(&s, &bits, sizeof s);
    return s;
}

#endif
