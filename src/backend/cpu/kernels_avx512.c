/* x86-64 with AVX-512 F, BW, VL and VNNI: 16 floats at a time. Rows of int8 and unpacking are in
 * kernels_x86.h. */
#if defined(__x86_64__)

#include "backend/cpu/kernels_x86.h"

static inline float sum16(__m512 v) {
    __m512d upper = _mm512_castps_pd(v);
    return sum8(_mm256_add_ps(_mm512_castps512_ps256(v),
                              _mm256_castpd_ps(_mm512_extractf64x4_pd(upper, 1))));
}

/* The lanes below n of a vector. */
static inline __mmask16 lanes_below(size_t n) {
    return (__mmask16)(n < 16 ? (1u << n) - 1 : 0xffff);
}

/* out[0..n_rows) <- n_rows weight rows, a constant, with one x. Each element: two accumulators of
 * 16 over blocks of 32, then the first one alone, its last block filled up with zeros. */
static inline void dot_rows(float *out, size_t n_rows, const float *w, size_t w_stride,
                            const float *x, size_t n) {
    enum { MAX_ROWS = 4 };
    __m512 s[MAX_ROWS][2];
    size_t c = 0;
    for (size_t i = 0; i < n_rows; i++) s[i][0] = s[i][1] = _mm512_setzero_ps();
    for (; c + 32 <= n; c += 32) {
        __m512 x0 = _mm512_loadu_ps(x + c), x1 = _mm512_loadu_ps(x + c + 16);
        for (size_t i = 0; i < n_rows; i++) {
            const float *row = w + i * w_stride + c;
            s[i][0] = _mm512_fmadd_ps(_mm512_loadu_ps(row), x0, s[i][0]);
            s[i][1] = _mm512_fmadd_ps(_mm512_loadu_ps(row + 16), x1, s[i][1]);
        }
    }
    for (; c < n; c += 16) {
        __mmask16 lanes = lanes_below(n - c);
        __m512 x0 = _mm512_maskz_loadu_ps(lanes, x + c);
        for (size_t i = 0; i < n_rows; i++)
            s[i][0] =
                _mm512_fmadd_ps(_mm512_maskz_loadu_ps(lanes, w + i * w_stride + c), x0, s[i][0]);
    }
    for (size_t i = 0; i < n_rows; i++) out[i] = sum16(_mm512_add_ps(s[i][0], s[i][1]));
}

static void dot_f32(const cpu_dot_args *a) {
    const float *w = a->w, *x = a->x;
    size_t i = 0;
    for (; i + 4 <= a->n_w; i += 4)
        for (size_t j = 0; j < a->n_x; j++)
            dot_rows(a->out + j * a->out_stride + i, 4, w + i * a->w_stride, a->w_stride,
                     x + j * a->x_stride, a->n);
    for (; i < a->n_w; i++)
        for (size_t j = 0; j < a->n_x; j++)
            dot_rows(a->out + j * a->out_stride + i, 1, w + i * a->w_stride, 0, x + j * a->x_stride,
                     a->n);
}

static void weighted_sum(float *out, size_t out_stride, const float *p, size_t p_stride, size_t n_h,
                         const float *rows, size_t row_stride, size_t n_r, size_t n) {
    for (size_t h = 0; h < n_h; h++) {
        float *o = out + h * out_stride;
        size_t c = 0;
        for (; c + 64 <= n; c += 64) {
            __m512 s[4];
            for (int i = 0; i < 4; i++) s[i] = _mm512_loadu_ps(o + c + 16 * i);
            for (size_t r = 0; r < n_r; r++) {
                __m512 weight = _mm512_set1_ps(p[h * p_stride + r]);
                const float *row = rows + r * row_stride + c;
                for (int i = 0; i < 4; i++)
                    s[i] = _mm512_fmadd_ps(weight, _mm512_loadu_ps(row + 16 * i), s[i]);
            }
            for (int i = 0; i < 4; i++) _mm512_storeu_ps(o + c + 16 * i, s[i]);
        }
        for (; c < n; c += 16) {
            __mmask16 lanes = lanes_below(n - c);
            __m512 s = _mm512_maskz_loadu_ps(lanes, o + c);
            for (size_t r = 0; r < n_r; r++) {
                __m512 row = _mm512_maskz_loadu_ps(lanes, rows + r * row_stride + c);
                s = _mm512_fmadd_ps(_mm512_set1_ps(p[h * p_stride + r]), row, s);
            }
            _mm512_mask_storeu_ps(o + c, lanes, s);
        }
    }
}

static const cpu_kernels kernels = {
    .name = "avx512",
    .dot_f32 = dot_f32,
    .dot_q8 = {[QUANT_Q8_0] = dot_q8_0,
               [QUANT_Q4_0] = dot_q4_0,
               [QUANT_MXFP4] = dot_mxfp4,
               [QUANT_Q2_K] = dot_q2_k,
               [QUANT_Q3_K] = dot_q3_k,
               [QUANT_Q4_K] = dot_q4_k,
               [QUANT_Q5_K] = dot_q5_k,
               [QUANT_Q6_K] = dot_q6_k,
               [QUANT_IQ2_XXS] = dot_iq2_xxs,
               [QUANT_IQ2_XS] = dot_iq2_xs},
    .decode_row = {[QUANT_F32] = f32_decode_row,
                   [QUANT_F16] = decode_f16,
                   [QUANT_BF16] = decode_bf16,
                   [QUANT_Q8_0] = decode_q8_0,
                   [QUANT_Q4_0] = decode_q4_0,
                   [QUANT_MXFP4] = decode_mxfp4,
                   [QUANT_Q2_K] = decode_q2_k,
                   [QUANT_Q3_K] = decode_q3_k,
                   [QUANT_Q4_K] = decode_q4_k,
                   [QUANT_Q5_K] = decode_q5_k,
                   [QUANT_Q6_K] = decode_q6_k,
                   [QUANT_IQ2_XXS] = decode_iq2_xxs,
                   [QUANT_IQ2_XS] = decode_iq2_xs},
    .quantize_q8_32 = quantize_q8_32,
    .quantize_q8_256 = quantize_q8_256,
    .weighted_sum = weighted_sum,
    .fp8_unpack = fp8_unpack_x86,
    .fp4_unpack = fp4_unpack_x86,
    .bf16_unpack = bf16_unpack,
};

const cpu_kernels *cpu_kernels_avx512(void) {
    return &kernels;
}

#else
typedef int kernels_avx512_is_for_x86_64; /* ISO C wants something in every file */
#endif
