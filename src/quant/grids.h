/* grids.h - the coarse number grids that the model was trained to have in its caches.
 *
 *   FP8   E4M3 with one power-of-two scale per 64 values   (window KV, compressed rows)
 *   FP4   E2M1 with one power-of-two scale per 32 values   (indexer queries and rows)
 *   both  UE8M0 scale bytes: 2^(byte - 127)
 *   BF16  the rotary part of cached rows
 *
 *   Source   shared formulas of the published inference code: sc = 2^ceil(log2(amax / max)), computed
 *            from float bits, never through log2f. */
#ifndef DS4_QUANT_GRIDS_H
#define DS4_QUANT_GRIDS_H

#include <stddef.h>
#include <stdint.h>

enum { FP8_BLOCK = 64, FP4_BLOCK = 32 };

/* E4M3 (bias 7, subnormals, maximum 448, no infinity), round to nearest even, |x| <= 448. */
uint8_t e4m3_encode(float x);
float   e4m3_decode(uint8_t code);
/* E2M1 0, .5, 1, 1.5, 2, 3, 4, 6 with sign in bit 3; ties to the even code; |x| <= 6. */
uint8_t e2m1_encode(float x);
float   e2m1_decode(uint8_t code);
/* 2^(byte - 127), exact. */
float   ue8m0_decode(uint8_t byte);
/* ceil(log2(amax * (1 / grid_max))) + 127, from the bits of the product. */
uint8_t ue8m0_scale_for(float amax, float grid_max);

/* In place: x[n] <- its nearest point on the FP8 grid; the last block may be shorter than 64. */
void fp8_round(float *x, size_t n);
/* In place, blocks of 32; the last may be shorter. */
void fp4_round(float *x, size_t n);

/* The same grids packed: codes[n], scales[ceil(n / 64)]. pack(x) then unpack equals fp8_round(x). */
void fp8_pack(uint8_t *codes, uint8_t *scales, const float *x, size_t n);
void fp8_unpack(float *x, const uint8_t *codes, const uint8_t *scales, size_t n);
/* codes[ceil(n / 2)]: element 2j in the low nibble; scales[ceil(n / 32)]. */
void fp4_pack(uint8_t *codes, uint8_t *scales, const float *x, size_t n);
void fp4_unpack(float *x, const uint8_t *codes, const uint8_t *scales, size_t n);

/* y = H x / sqrt(n) in place, H the Sylvester-ordered Walsh-Hadamard matrix; n a power of two. */
void hadamard(float *x, size_t n);

#endif
