/* kernels_x86.h - what the AVX2 and AVX-512 tables share: all that is bound by loads or by
 * unpacking, and the products of int8 rows around two primitives, dot_32 and k_product; private to
 * kernels_avx*.c.
 *
 *   One text, compiled with each file's flags; __AVX512VNNI__ stands for all that
 *   kernels_avx512.c may use. Every function is static: the tables share the text, not the code. */
#ifndef DS4_BACKEND_CPU_KERNELS_X86_H
#define DS4_BACKEND_CPU_KERNELS_X86_H

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/kernels_simd.h"
#include "backend/cpu/quantize_row.h"
#include "backend/cpu/weight_blocks.h"
#include "quant/grids.h"

/* Lanes are added in one fixed order: upper half to lower, then pairs. */
static inline float sum8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float half_at(const uint8_t *p) {
    return _cvtsh_ss(load_u16(p));
}

static inline float float_at(const int8_t *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline __m256i load_32(const void *p) {
    return _mm256_loadu_si256(p);
}

/* ---- int8 products, blocks of 32 ---- */

/* The 32 products of w and x, added in fours. The instructions take unsigned with signed bytes, so
 * w gives its sign to x; |w| <= 128, |x| <= 127. */
static inline __m256i dot_32(__m256i w, __m256i x) {
    __m256i size = _mm256_sign_epi8(w, w), turned = _mm256_sign_epi8(x, w);
#ifdef __AVX512VNNI__
    return _mm256_dpbusd_epi32(_mm256_setzero_si256(), size, turned);
#else
    /* Two products stay within 16 bits: 2 * 128 * 127 = 32512. */
    return _mm256_madd_epi16(_mm256_maddubs_epi16(size, turned), _mm256_set1_epi16(1));
#endif
}

/* One block of 32 weights as int8 and the float they are multiples of. */
typedef __m256i (*load_block)(const uint8_t *block, float *d);

static inline __m256i load_q8_0(const uint8_t *block, float *d) {
    *d = half_at(block);
    return load_32(block + 2);
}

/* 16 bytes -> 32 nibbles: the low ones first. */
static inline __m256i nibbles(const uint8_t *p) {
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    __m256i both = _mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

static inline __m256i load_q4_0(const uint8_t *block, float *d) {
    *d = half_at(block);
    return _mm256_sub_epi8(nibbles(block + 2), _mm256_set1_epi8(8));
}

static inline __m256i load_mxfp4(const uint8_t *block, float *d) {
    *d = mxfp4_half_scale(block[0]);
    __m128i values = _mm_loadu_si128((const __m128i *)mxfp4_values);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), nibbles(block + 1));
}

/* n_w weight rows from i with n_x activation rows from j, both constants for the compiler, 8 sums
 * at most. Each output element: one accumulator of 8, a multiply-add for each block in order. */
static inline __attribute__((always_inline)) void dot_tile(const cpu_dot_args *a, size_t i,
                                                           size_t j, int n_w, int n_x,
                                                           size_t block_bytes, load_block load) {
    const uint8_t *w = (const uint8_t *)a->w + i * a->w_stride;
    const int8_t *x = (const int8_t *)a->x + j * a->x_stride;
    __m256 sum[8];
    for (int t = 0; t < n_w * n_x; t++) sum[t] = _mm256_setzero_ps();
    for (size_t block = 0; block < a->n / ACT_BLOCK_32; block++) {
        for (int r = 0; r < n_w; r++) {
            float d;
            __m256i values = load(w + (size_t)r * a->w_stride + block * block_bytes, &d);
            for (int c = 0; c < n_x; c++) {
                const int8_t *row = x + (size_t)c * a->x_stride;
                __m256i part = dot_32(values, load_32(row + block * ACT_BLOCK_32));
                __m256 scale = _mm256_set1_ps(d * float_at(row + a->n + block * sizeof(float)));
                __m256 *to = &sum[r * n_x + c];
                *to = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(part), *to);
            }
        }
    }
    for (int r = 0; r < n_w; r++)
        for (int c = 0; c < n_x; c++)
            a->out[(j + (size_t)c) * a->out_stride + i + (size_t)r] = sum8(sum[r * n_x + c]);
}

/* Weight rows of 32-blocks in tiles: several sums at a time hide the latency of a multiply-add,
 * several activation rows share an unpacked block. */
static inline __attribute__((always_inline)) void dot_blocks(const cpu_dot_args *a,
                                                             size_t block_bytes, load_block load) {
    size_t i = 0;
    for (; i + 4 <= a->n_w; i += 4) {
        size_t j = 0;
        for (; j + 4 <= a->n_x; j += 4) {
            dot_tile(a, i, j, 2, 4, block_bytes, load);
            dot_tile(a, i + 2, j, 2, 4, block_bytes, load);
        }
        for (; j < a->n_x; j++) dot_tile(a, i, j, 4, 1, block_bytes, load);
    }
    for (; i < a->n_w; i++)
        for (size_t j = 0; j < a->n_x; j++) dot_tile(a, i, j, 1, 1, block_bytes, load);
}

static void dot_q8_0(const cpu_dot_args *a) {
    dot_blocks(a, 34, load_q8_0);
}
static void dot_q4_0(const cpu_dot_args *a) {
    dot_blocks(a, 18, load_q4_0);
}
static void dot_mxfp4(const cpu_dot_args *a) {
    dot_blocks(a, 17, load_mxfp4);
}

/* ---- int8 products, blocks of 256 ---- */

/* The 256 products scale * q * x, added up into 8 lanes. */
#ifdef __AVX512VNNI__
static inline __m256i k_product(const k_block *k, const int8_t *x) {
    /* A vector covers 4 groups: lanes of 16 bits, 8 for each group. */
    const __m512i group =
        _mm512_set_epi64(0x0003000300030003, 0x0003000300030003, 0x0002000200020002,
                         0x0002000200020002, 0x0001000100010001, 0x0001000100010001, 0, 0);
    __m512i scales = _mm512_castsi256_si512(load_32(k->scale)), sum = _mm512_setzero_si512();
    for (int i = 0; i < K_ELEMS / 64; i++) {
        __m512i pairs =
            _mm512_maddubs_epi16(_mm512_loadu_si512(k->q + 64 * i), _mm512_loadu_si512(x + 64 * i));
        __m512i index = _mm512_add_epi16(group, _mm512_set1_epi16((short)(4 * i)));
        sum = _mm512_dpwssd_epi32(sum, pairs, _mm512_permutexvar_epi16(index, scales));
    }
    return _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
}
#else
static inline __m256i k_product(const k_block *k, const int8_t *x) {
    /* A vector covers 2 groups: the lower half takes the 16 bits of the first scale, the upper half
     * those of the second one. */
    const __m256i group = _mm256_set_epi64x(0x0302030203020302, 0x0302030203020302,
                                            0x0100010001000100, 0x0100010001000100);
    __m256i sum = _mm256_setzero_si256();
    for (int half = 0; half < 2; half++) {
        __m128i eight = _mm_loadu_si128((const __m128i *)(k->scale + 8 * half));
        __m256i scales = _mm256_broadcastsi128_si256(eight);
        for (int i = 0; i < 4; i++) {
            int at = 128 * half + 32 * i;
            __m256i index = _mm256_add_epi8(group, _mm256_set1_epi8((char)(4 * i)));
            __m256i pairs = _mm256_maddubs_epi16(load_32(k->q + at), load_32(x + at));
            sum =
                _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_shuffle_epi8(scales, index)));
        }
    }
    return sum;
}
#endif

/* sum + the products of one block of weights and one of activations: one multiply-add for a type
 * with an offset, two for one with minimums. */
static inline __m256 k_add_block(__m256 sum, const k_block *k, const int8_t *x, float dx,
                                 const int8_t *x_sums) {
    __m256i scaled = k_product(k, x), mins = _mm256_madd_epi16(load_32(k->min), load_32(x_sums));
    if (k->offset) {
        __m256i all = _mm256_sub_epi32(scaled, mins);
        return _mm256_fmadd_ps(_mm256_set1_ps(k->d * dx), _mm256_cvtepi32_ps(all), sum);
    }
    sum = _mm256_fmadd_ps(_mm256_set1_ps(k->d * dx), _mm256_cvtepi32_ps(scaled), sum);
    return _mm256_fnmadd_ps(_mm256_set1_ps(k->dmin * dx), _mm256_cvtepi32_ps(mins), sum);
}

/* Weight rows of 256-blocks with up to 16 activation rows at a time, as unpacking is the larger
 * half of the work for a single one. */
static void dot_k(const cpu_dot_args *a, size_t block_bytes, k_unpack unpack) {
    enum { N_TILE = 16 };
    size_t n_blocks = a->n / K_ELEMS;
    for (size_t i = 0; i < a->n_w; i++) {
        const uint8_t *row = (const uint8_t *)a->w + i * a->w_stride;
        for (size_t j = 0; j < a->n_x; j += N_TILE) {
            size_t n_now = a->n_x - j < N_TILE ? a->n_x - j : N_TILE;
            const int8_t *x = (const int8_t *)a->x + j * a->x_stride;
            __m256 sum[N_TILE];
            k_block k[2];
            for (size_t t = 0; t < n_now; t++) sum[t] = _mm256_setzero_ps();
            /* A block ahead, so that its stores have left the pipeline when they are loaded. */
            for (size_t ahead = 0; ahead <= n_blocks; ahead++) {
                if (ahead < n_blocks) unpack(&k[ahead % 2], row + ahead * block_bytes);
                for (size_t t = 0; ahead > 0 && t < n_now; t++) {
                    size_t block = ahead - 1;
                    const int8_t *qs = x + t * a->x_stride, *scales = qs + a->n;
                    const int8_t *sums = scales + n_blocks * sizeof(float);
                    sum[t] = k_add_block(sum[t], &k[block % 2], qs + block * K_ELEMS,
                                         float_at(scales + block * sizeof(float)),
                                         sums + block * K_GROUPS * sizeof(int16_t));
                }
            }
            for (size_t t = 0; t < n_now; t++) a->out[(j + t) * a->out_stride + i] = sum8(sum[t]);
        }
    }
}

#define K_TYPE(name, block_bytes)                                                                  \
    static void dot_##name(const cpu_dot_args *a) {                                                \
        dot_k(a, block_bytes, name##_unpack);                                                      \
    }                                                                                              \
    static void decode_##name(float *out, const void *row, size_t n) {                             \
        k_decode_row(out, row, n, block_bytes, name##_unpack);                                     \
    }
K_TYPE(q2_k, 84)
K_TYPE(q3_k, 110)
K_TYPE(q4_k, 144)
K_TYPE(q5_k, 176)
K_TYPE(q6_k, 210)
K_TYPE(iq2_xxs, 66)
K_TYPE(iq2_xs, 74)

/* ---- rows to floats ---- */

static void decode_f16(float *out, const void *row, size_t n) {
    const uint8_t *h = row;
    size_t c = 0;
    for (; c + 8 <= n; c += 8)
        _mm256_storeu_ps(out + c, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(h + 2 * c))));
    for (; c < n; c++) out[c] = half_at(h + 2 * c);
}

static void decode_bf16(float *out, const void *row, size_t n) {
    const uint8_t *h = row;
    size_t c = 0;
    for (; c + 8 <= n; c += 8) {
        __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(h + 2 * c)));
        _mm256_storeu_ps(out + c, _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
    }
    for (; c < n; c++) out[c] = bf16_to_f32(load_u16(h + 2 * c));
}

static void bf16_unpack(float *x, const uint16_t *bits, size_t n) {
    decode_bf16(x, bits, n);
}

/* Blocks of 32 as they are loaded for products. */
static inline void decode_blocks(float *out, const uint8_t *row, size_t n, size_t block_bytes,
                                 load_block load) {
    for (size_t c = 0; c < n; c += 32, row += block_bytes) {
        float d;
        int8_t q[32];
        _mm256_storeu_si256((__m256i *)q, load(row, &d));
        for (int i = 0; i < 32; i++) out[c + i] = d * (float)q[i];
    }
}

static void decode_q8_0(float *out, const void *row, size_t n) {
    decode_blocks(out, row, n, 34, load_q8_0);
}
static void decode_q4_0(float *out, const void *row, size_t n) {
    decode_blocks(out, row, n, 18, load_q4_0);
}

/* Eight E2M1 codes, whatever stands above their four bits; minus zero among them. `half` is half
 * the scale, for doubled values as in mxfp4_values. */
static inline __m256 e2m1_8(__m256i codes, float half) {
    const __m256 magnitudes = _mm256_setr_ps(0, 1, 2, 3, 4, 6, 8, 12);
    __m256 value = _mm256_permutevar8x32_ps(magnitudes, codes); /* by the low three bits */
    __m256 top = _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28));
    value = _mm256_xor_ps(value, _mm256_and_ps(top, _mm256_set1_ps(-0.0f)));
    return _mm256_mul_ps(value, _mm256_set1_ps(half));
}

static void decode_mxfp4(float *out, const void *row, size_t n) {
    const uint8_t *block = row;
    for (size_t c = 0; c < n; c += 32, block += 17) {
        float half = mxfp4_half_scale(block[0]);
        __m128i bytes = _mm_loadu_si128((const __m128i *)(block + 1));
        for (int i = 0; i < 16; i += 8, bytes = _mm_srli_si128(bytes, 8)) {
            __m256i codes = _mm256_cvtepu8_epi32(bytes);
            _mm256_storeu_ps(out + c + i, e2m1_8(codes, half));
            _mm256_storeu_ps(out + c + 16 + i, e2m1_8(_mm256_srli_epi32(codes, 4), half));
        }
    }
}

static void fp4_unpack_x86(float *x, const uint8_t *codes, const uint8_t *scales, size_t n) {
    const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    size_t c = 0;
    for (; c + FP4_BLOCK <= n; c += FP4_BLOCK) {
        float half = 0.5f * ue8m0_decode(scales[c / FP4_BLOCK]);
        for (size_t i = 0; i < FP4_BLOCK; i += 8) {
            __m256i eight = _mm256_set1_epi32((int)load_u32(codes + (c + i) / 2));
            _mm256_storeu_ps(x + c + i, e2m1_8(_mm256_srlv_epi32(eight, shifts), half));
        }
    }
    fp4_unpack(x + c, codes + c / 2, scales + c / FP4_BLOCK, n - c);
}

/* E4M3 -> float: the 7 magnitude bits, moved to the top of a half, are the value divided by 2^8,
 * with subnormals in their place. */
static inline __m256 e4m3_8(const uint8_t *codes, float scale) {
    __m128i v = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)codes));
    __m128i magnitude = _mm_and_si128(v, _mm_set1_epi16(0x7F));
    __m128i is_nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7F));
    __m128i sign = _mm_slli_epi16(_mm_and_si128(v, _mm_set1_epi16(0x80)), 8);
    __m128i half = _mm_or_si128(_mm_slli_epi16(magnitude, 7), sign);
    half = _mm_or_si128(half, _mm_and_si128(is_nan, _mm_set1_epi16(0x7E00)));
    __m256 value = _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f));
    return _mm256_mul_ps(value, _mm256_set1_ps(scale));
}

static void fp8_unpack_x86(float *x, const uint8_t *codes, const uint8_t *scales, size_t n) {
    size_t c = 0;
    for (; c + FP8_BLOCK <= n; c += FP8_BLOCK) {
        float scale = ue8m0_decode(scales[c / FP8_BLOCK]);
        for (size_t i = 0; i < FP8_BLOCK; i += 8)
            _mm256_storeu_ps(x + c + i, e4m3_8(codes + c + i, scale));
    }
    fp8_unpack(x + c, codes + c, scales + c / FP8_BLOCK, n - c);
}

/* ---- activations to int8 ---- */

/* Bits of magnitudes compare as integers; a NaN is above everything. */
static inline float largest_magnitude(const float *x, size_t n) {
    __m256i top = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += 8)
        top =
            _mm256_max_epi32(top, _mm256_and_si256(load_32(x + i), _mm256_set1_epi32(0x7fffffff)));
    __m128i t = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(t));
}

static inline float quantize_block_x86(int8_t *qs, const float *x, size_t n) {
    float d, inverse;
    if (!quantize_scale(largest_magnitude(x, n), &d, &inverse)) {
        memset(qs, 0, n);
        return d;
    }
    /* Packing works in halves of 128 bits: four vectors end up as 0 4 1 5 2 6 3 7 by fours. */
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (size_t i = 0; i < n; i += 32) {
        __m256i v[4];
        for (int t = 0; t < 4; t++)
            v[t] = _mm256_cvtps_epi32(
                _mm256_mul_ps(_mm256_loadu_ps(x + i + 8 * t), _mm256_set1_ps(inverse)));
        __m256i q =
            _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
        q = _mm256_max_epi8(_mm256_permutevar8x32_epi32(q, in_order), _mm256_set1_epi8(-127));
        _mm256_storeu_si256((__m256i *)(qs + i), q);
    }
    return d;
}

static void quantize_q8_32(void *row, const float *x, size_t n) {
    quantize_row_q8_32(row, x, n, quantize_block_x86);
}

static void quantize_q8_256(void *row, const float *x, size_t n) {
    quantize_row_q8_256(row, x, n, quantize_block_x86);
}

#endif
