/* x86-64 with AVX2, FMA and F16C: 8 floats or 32 int8 at a time. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/kernels_simd.h"
#include "backend/cpu/quantize_row.h"
#include "quant/codec.h"
#include "quant/grids.h"

/* Lanes are added in one fixed order: upper half to lower, then pairs. */
static inline float sum8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* ---- floats ---- */

/* Two accumulators of 8 over blocks of 16, then one block of 8 at most, then single values. */
static inline float dot_row(const float *w, const float *x, size_t n) {
    __m256 s0 = _mm256_setzero_ps(), s1 = s0;
    size_t c = 0;
    for (; c + 16 <= n; c += 16) {
        s0 = _mm256_fmadd_ps(_mm256_loadu_ps(w + c), _mm256_loadu_ps(x + c), s0);
        s1 = _mm256_fmadd_ps(_mm256_loadu_ps(w + c + 8), _mm256_loadu_ps(x + c + 8), s1);
    }
    if (c + 8 <= n) {
        s0 = _mm256_fmadd_ps(_mm256_loadu_ps(w + c), _mm256_loadu_ps(x + c), s0);
        c += 8;
    }
    float sum = sum8(_mm256_add_ps(s0, s1));
    for (; c < n; c++) sum = fmaf(w[c], x[c], sum);
    return sum;
}

/* Four weight rows with one x: every element goes through the steps of dot_row. */
static inline void dot_4_rows(float *out, const float *w, size_t w_stride, const float *x, size_t n) {
    __m256 s[4][2];
    for (int i = 0; i < 4; i++) s[i][0] = s[i][1] = _mm256_setzero_ps();
    size_t c = 0;
    for (; c + 16 <= n; c += 16) {
        __m256 x0 = _mm256_loadu_ps(x + c), x1 = _mm256_loadu_ps(x + c + 8);
        for (int i = 0; i < 4; i++) {
            const float *row = w + (size_t)i * w_stride + c;
            s[i][0] = _mm256_fmadd_ps(_mm256_loadu_ps(row), x0, s[i][0]);
            s[i][1] = _mm256_fmadd_ps(_mm256_loadu_ps(row + 8), x1, s[i][1]);
        }
    }
    if (c + 8 <= n) {
        __m256 x0 = _mm256_loadu_ps(x + c);
        for (int i = 0; i < 4; i++)
            s[i][0] = _mm256_fmadd_ps(_mm256_loadu_ps(w + (size_t)i * w_stride + c), x0, s[i][0]);
        c += 8;
    }
    for (int i = 0; i < 4; i++) {
        float sum = sum8(_mm256_add_ps(s[i][0], s[i][1]));
        for (size_t t = c; t < n; t++) sum = fmaf(w[(size_t)i * w_stride + t], x[t], sum);
        out[i] = sum;
    }
}

static void dot_f32(const cpu_dot_args *a) {
    const float *w = a->w, *x = a->x;
    for (size_t i = 0; i < a->n_w;) {
        bool is_tile = i + 4 <= a->n_w;
        for (size_t j = 0; j < a->n_x; j++) {
            float *out = a->out + j * a->out_stride + i;
            if (is_tile) dot_4_rows(out, w + i * a->w_stride, a->w_stride, x + j * a->x_stride, a->n);
            else *out = dot_row(w + i * a->w_stride, x + j * a->x_stride, a->n);
        }
        i += is_tile ? 4 : 1;
    }
}

static void weighted_sum(float *out, size_t out_stride, const float *p, size_t p_stride, size_t n_h,
                         const float *rows, size_t row_stride, size_t n_r, size_t n) {
    for (size_t h = 0; h < n_h; h++) {
        float *o = out + h * out_stride;
        size_t c = 0;
        for (; c + 32 <= n; c += 32) {
            __m256 s[4];
            for (int i = 0; i < 4; i++) s[i] = _mm256_loadu_ps(o + c + 8 * i);
            for (size_t r = 0; r < n_r; r++) {
                __m256       weight = _mm256_set1_ps(p[h * p_stride + r]);
                const float *row = rows + r * row_stride + c;
                for (int i = 0; i < 4; i++) s[i] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(row + 8 * i), s[i]);
            }
            for (int i = 0; i < 4; i++) _mm256_storeu_ps(o + c + 8 * i, s[i]);
        }
        for (; c < n; c++)
            for (size_t r = 0; r < n_r; r++)
                o[c] = fmaf(p[h * p_stride + r], rows[r * row_stride + c], o[c]);
    }
}

/* ---- int8 ---- */

/* The 32 products of w and x, added in fours. |w| <= 128 as unsigned, x in -127..127: a pair of
 * products stays within 16 bits except for two of 128 * 127, which is 32512. */
static inline __m256i dot_32(__m256i w, __m256i x) {
    __m256i pairs = _mm256_maddubs_epi16(_mm256_sign_epi8(w, w), _mm256_sign_epi8(x, w));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}


static inline float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _cvtsh_ss(h);
}

static inline float load_f32(const int8_t *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* One block of 32 weights as int8 and the float they are multiples of. */
typedef __m256i (*load_block)(const uint8_t *block, float *d);

static inline __m256i load_q8_0(const uint8_t *block, float *d) {
    *d = half_at(block);
    return _mm256_loadu_si256((const __m256i *)(block + 2));
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
    /* Values are doubled to be integers, so the scale is halved. */
    *d = 0.5f * ue8m0_decode(block[0]);
    __m128i values = _mm_loadu_si128((const __m128i *)mxfp4_values);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), nibbles(block + 1));
}

/* Weight rows of 32-blocks with up to 4 activation rows at a time, so that a block is unpacked once. Each
 * output element: one accumulator of 8, a multiply-add for each block in order. */
static inline void dot_blocks(const cpu_dot_args *a, size_t block_bytes, load_block load) {
    size_t n_blocks = a->n / ACT_BLOCK_32;
    for (size_t i = 0; i < a->n_w; i++) {
        const uint8_t *row = (const uint8_t *)a->w + i * a->w_stride;
        for (size_t j = 0; j < a->n_x; j += 4) {
            size_t        n_now = a->n_x - j < 4 ? a->n_x - j : 4;
            const int8_t *x[4];
            __m256        sum[4];
            for (size_t t = 0; t < 4; t++) {
                x[t] = (const int8_t *)a->x + (j + (t < n_now ? t : 0)) * a->x_stride;
                sum[t] = _mm256_setzero_ps();
            }
            for (size_t block = 0; block < n_blocks; block++) {
                float   d;
                __m256i w = load(row + block * block_bytes, &d);
                for (size_t t = 0; t < n_now; t++) {
                    __m256i qs = _mm256_loadu_si256((const __m256i *)(x[t] + block * ACT_BLOCK_32));
                    float   scale = d * load_f32(x[t] + a->n + block * sizeof(float));
                    sum[t] = _mm256_fmadd_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(dot_32(w, qs)),
                                             sum[t]);
                }
            }
            for (size_t t = 0; t < n_now; t++) a->out[(j + t) * a->out_stride + i] = sum8(sum[t]);
        }
    }
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

static float dot_i8(const float *w, const int8_t *x, size_t n) {
    __m256 s = _mm256_setzero_ps();
    for (size_t c = 0; c < n; c += 8) {
        __m256i q = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(x + c)));
        s = _mm256_fmadd_ps(_mm256_loadu_ps(w + c), _mm256_cvtepi32_ps(q), s);
    }
    return sum8(s);
}

#define DOT_DECODED(name, type)                                                                    \
    static void dot_##name(const cpu_dot_args *a) {                                                \
        cpu_dot_decoded(a, type, ACT_BLOCK_256, dot_i8);                                           \
    }
DOT_DECODED(q2_k, QUANT_Q2_K)
DOT_DECODED(q3_k, QUANT_Q3_K)
DOT_DECODED(q4_k, QUANT_Q4_K)
DOT_DECODED(q5_k, QUANT_Q5_K)
DOT_DECODED(q6_k, QUANT_Q6_K)
DOT_DECODED(iq2_xxs, QUANT_IQ2_XXS)
DOT_DECODED(iq2_xs, QUANT_IQ2_XS)

/* ---- rows to floats ---- */

static void decode_f16(float *out, const void *row, size_t n) {
    const uint16_t *h = row;
    size_t          c = 0;
    for (; c + 8 <= n; c += 8)
        _mm256_storeu_ps(out + c, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(h + c))));
    for (; c < n; c++) out[c] = half_at((const uint8_t *)row + 2 * c);
}

static void bf16_unpack(float *x, const uint16_t *bits, size_t n) {
    size_t c = 0;
    for (; c + 8 <= n; c += 8) {
        __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(bits + c)));
        _mm256_storeu_ps(x + c, _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
    }
    for (; c < n; c++) {
        uint16_t h;
        memcpy(&h, (const uint8_t *)bits + 2 * c, sizeof h);
        x[c] = bf16_to_f32(h);
    }
}

static void decode_bf16(float *out, const void *row, size_t n) {
    bf16_unpack(out, row, n);
}

static void decode_q8_0(float *out, const void *row, size_t n) {
    const uint8_t *block = row;
    for (size_t c = 0; c < n; c += 32, block += 34) {
        __m256 d = _mm256_set1_ps(half_at(block));
        for (int i = 0; i < 32; i += 8) {
            __m256i q = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(block + 2 + i)));
            _mm256_storeu_ps(out + c + i, _mm256_mul_ps(d, _mm256_cvtepi32_ps(q)));
        }
    }
}

/* E4M3 -> float: the 7 magnitude bits, moved to the top of a half, are the value divided by 2^8, with
 * subnormals in their place. */
static void fp8_unpack_avx2(float *x, const uint8_t *codes, const uint8_t *scales, size_t n) {
    for (size_t c = 0; c < n; c += FP8_BLOCK) {
        size_t n_now = n - c < FP8_BLOCK ? n - c : FP8_BLOCK, i = 0;
        float  scale = ue8m0_decode(scales[c / FP8_BLOCK]);
        for (; i + 8 <= n_now; i += 8) {
            __m128i v = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(codes + c + i)));
            __m128i magnitude = _mm_and_si128(v, _mm_set1_epi16(0x7F));
            __m128i is_nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7F));
            __m128i half = _mm_or_si128(_mm_slli_epi16(magnitude, 7),
                                        _mm_slli_epi16(_mm_and_si128(v, _mm_set1_epi16(0x80)), 8));
            half = _mm_or_si128(half, _mm_and_si128(is_nan, _mm_set1_epi16(0x7E00)));
            __m256 value = _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f));
            _mm256_storeu_ps(x + c + i, _mm256_mul_ps(value, _mm256_set1_ps(scale)));
        }
        for (; i < n_now; i++) x[c + i] = e4m3_decode(codes[c + i]) * scale;
    }
}

static const cpu_kernels kernels = {
    .name = "avx2",
    .dot_f32 = dot_f32,
    .dot_q8 = {[QUANT_Q8_0] = dot_q8_0, [QUANT_Q4_0] = dot_q4_0, [QUANT_MXFP4] = dot_mxfp4,
               [QUANT_Q2_K] = dot_q2_k, [QUANT_Q3_K] = dot_q3_k, [QUANT_Q4_K] = dot_q4_k,
               [QUANT_Q5_K] = dot_q5_k, [QUANT_Q6_K] = dot_q6_k, [QUANT_IQ2_XXS] = dot_iq2_xxs,
               [QUANT_IQ2_XS] = dot_iq2_xs},
    .decode_row = {[QUANT_F32] = f32_decode_row, [QUANT_F16] = decode_f16, [QUANT_BF16] = decode_bf16,
                   [QUANT_Q8_0] = decode_q8_0, [QUANT_Q4_0] = q4_0_decode_row,
                   [QUANT_MXFP4] = mxfp4_decode_row, [QUANT_Q2_K] = q2_k_decode_row,
                   [QUANT_Q3_K] = q3_k_decode_row, [QUANT_Q4_K] = q4_k_decode_row,
                   [QUANT_Q5_K] = q5_k_decode_row, [QUANT_Q6_K] = q6_k_decode_row,
                   [QUANT_IQ2_XXS] = iq2_xxs_decode_row, [QUANT_IQ2_XS] = iq2_xs_decode_row},
    .quantize_q8_32 = quantize_row_q8_32,
    .quantize_q8_256 = quantize_row_q8_256,
    .weighted_sum = weighted_sum,
    .fp8_unpack = fp8_unpack_avx2,
    .fp4_unpack = fp4_unpack,
    .bf16_unpack = bf16_unpack,
};

const cpu_kernels *cpu_kernels_avx2(void) {
    return &kernels;
}

#else
typedef int kernels_avx2_is_for_x86_64; /* ISO C wants something in every file */
#endif
