/* f16.c - the plain number types: IEEE binary16 and bfloat16 as bits, and rows of floats and integers.
 *
 *   binary16   s eeeee mmmmmmmmmm      bias 15, subnormals m * 2^-24
 *   bfloat16   the upper half of a binary32 */
#include <string.h>

#include "quant/codec.h"

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
    if (magnitude >= 0x7c00) return float_of(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    if (magnitude >= 0x0400) return float_of(sign | ((magnitude << 13) + ((127 - 15) << 23)));
    /* Zero and subnormals: an integer times 2^-24, exact in binary32. */
    float f = (float)magnitude * 0x1p-24f;
    return sign ? -f : f;
}

uint16_t f32_to_f16(float f) {
    uint32_t u = bits_of(f), sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x1ff));
    if (u >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (u >= 0x38800000) { /* a normal binary16: rebias, then round the 13 bits that fall away */
        u -= (127 - 15) << 23;
        return (uint16_t)(sign | (u + 0xfff + (u >> 13 & 1)) >> 13);
    }
    if (u < 0x33000000) return (uint16_t)sign; /* below 2^-25, half of the smallest subnormal */
    /* Subnormal: the 24-bit mantissa in units of 2^-24. A carry gives the smallest normal. */
    uint32_t mantissa = (u & 0x7fffff) | 0x800000, shift = 126 - (u >> 23);
    uint32_t half = 1u << (shift - 1), kept = mantissa >> shift;
    return (uint16_t)(sign | (mantissa + half - 1 + (kept & 1)) >> shift);
}

float bf16_to_f32(uint16_t h) {
    return float_of((uint32_t)h << 16);
}

uint16_t f32_to_bf16(float f) {
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

void f32_decode_row(float *out, const void *row, size_t n) {
    memcpy(out, row, n * sizeof *out);
}

void f32_encode_row(void *row, const float *x, size_t n) {
    memcpy(row, x, n * sizeof *x);
}

void f16_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *p = row;
    for (size_t i = 0; i < n; i++) out[i] = f16_to_f32(load_u16(p + 2 * i));
}

void f16_encode_row(void *row, const float *x, size_t n) {
    uint8_t *p = row;
    for (size_t i = 0; i < n; i++) store_u16(p + 2 * i, f32_to_f16(x[i]));
}

void bf16_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *p = row;
    for (size_t i = 0; i < n; i++) out[i] = bf16_to_f32(load_u16(p + 2 * i));
}

void bf16_encode_row(void *row, const float *x, size_t n) {
    uint8_t *p = row;
    for (size_t i = 0; i < n; i++) store_u16(p + 2 * i, f32_to_bf16(x[i]));
}

void i32_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *p = row;
    for (size_t i = 0; i < n; i++) out[i] = (float)(int32_t)load_u32(p + 4 * i);
}

void i64_decode_row(float *out, const void *row, size_t n) {
    const uint8_t *p = row;
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(int64_t)(load_u32(p + 8 * i) | (uint64_t)load_u32(p + 8 * i + 4) << 32);
}
