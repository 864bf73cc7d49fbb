/* AArch64 with dot product instructions: 4 floats or 16 int8 at a time. */
#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/kernels_simd.h"
#include "backend/cpu/quantize_row.h"
#include "backend/cpu/weight_blocks.h"
#include "quant/grids.h"

static inline float half_at(const uint8_t *p) {
    __fp16 h;
    memcpy(&h, p, sizeof h);
    return (float)h;
}

static inline float float_at(const int8_t *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* ---- floats ---- */

/* out[0..n_rows) <- n_rows weight rows, a constant, with one x. Each element: four accumulators of
 * 4 over blocks of 16, then the first one over blocks of 4, then single values. */
static inline void dot_rows(float *out, size_t n_rows, const float *w, size_t w_stride,
                            const float *x, size_t n) {
    enum { MAX_ROWS = 4, N_SUMS = 4 };
    float32x4_t s[MAX_ROWS][N_SUMS];
    size_t c = 0;
    for (size_t i = 0; i < n_rows; i++)
        for (int t = 0; t < N_SUMS; t++) s[i][t] = vdupq_n_f32(0);
    for (; c + 16 <= n; c += 16)
        for (int t = 0; t < N_SUMS; t++) {
            float32x4_t v = vld1q_f32(x + c + 4 * t);
            for (size_t i = 0; i < n_rows; i++)
                s[i][t] = vfmaq_f32(s[i][t], vld1q_f32(w + i * w_stride + c + 4 * t), v);
        }
    for (; c + 4 <= n; c += 4)
        for (size_t i = 0; i < n_rows; i++)
            s[i][0] = vfmaq_f32(s[i][0], vld1q_f32(w + i * w_stride + c), vld1q_f32(x + c));
    for (size_t i = 0; i < n_rows; i++) {
        float sum = vaddvq_f32(vaddq_f32(vaddq_f32(s[i][0], s[i][1]), vaddq_f32(s[i][2], s[i][3])));
        for (size_t t = c; t < n; t++) sum = fmaf(w[i * w_stride + t], x[t], sum);
        out[i] = sum;
    }
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
        for (; c + 16 <= n; c += 16) {
            float32x4_t s[4];
            for (int i = 0; i < 4; i++) s[i] = vld1q_f32(o + c + 4 * i);
            for (size_t r = 0; r < n_r; r++) {
                const float *row = rows + r * row_stride + c;
                for (int i = 0; i < 4; i++)
                    s[i] = vfmaq_n_f32(s[i], vld1q_f32(row + 4 * i), p[h * p_stride + r]);
            }
            for (int i = 0; i < 4; i++) vst1q_f32(o + c + 4 * i, s[i]);
        }
        for (; c < n; c++)
            for (size_t r = 0; r < n_r; r++)
                o[c] = fmaf(p[h * p_stride + r], rows[r * row_stride + c], o[c]);
    }
}

/* ---- int8 products, blocks of 32 ---- */

/* One block of 32 weights as int8 and the float they are multiples of. */
typedef int8x16x2_t (*load_block)(const uint8_t *block, float *d);

static inline int8x16x2_t load_q8_0(const uint8_t *block, float *d) {
    *d = half_at(block);
    return (int8x16x2_t){
        {vld1q_s8((const int8_t *)block + 2), vld1q_s8((const int8_t *)block + 18)}};
}

/* 16 bytes -> 32 nibbles: the low ones first. */
static inline uint8x16x2_t nibbles(const uint8_t *p) {
    uint8x16_t bytes = vld1q_u8(p);
    return (uint8x16x2_t){{vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8(bytes, 4)}};
}

static inline int8x16x2_t load_q4_0(const uint8_t *block, float *d) {
    uint8x16x2_t codes = nibbles(block + 2);
    int8x16_t offset = vdupq_n_s8(8);
    *d = half_at(block);
    return (int8x16x2_t){{vsubq_s8(vreinterpretq_s8_u8(codes.val[0]), offset),
                          vsubq_s8(vreinterpretq_s8_u8(codes.val[1]), offset)}};
}

static inline int8x16x2_t load_mxfp4(const uint8_t *block, float *d) {
    uint8x16x2_t codes = nibbles(block + 1);
    int8x16_t values = vld1q_s8(mxfp4_values);
    *d = mxfp4_half_scale(block[0]);
    return (int8x16x2_t){{vqtbl1q_s8(values, codes.val[0]), vqtbl1q_s8(values, codes.val[1])}};
}

/* Weight rows of 32-blocks with up to 4 activation rows at a time, so that a block is unpacked
 * once. Each output element: one accumulator of 4, a multiply-add for each block in order. */
static inline void dot_blocks(const cpu_dot_args *a, size_t block_bytes, load_block load) {
    size_t n_blocks = a->n / ACT_BLOCK_32;
    for (size_t i = 0; i < a->n_w; i++) {
        const uint8_t *row = (const uint8_t *)a->w + i * a->w_stride;
        for (size_t j = 0; j < a->n_x; j += 4) {
            size_t n_now = a->n_x - j < 4 ? a->n_x - j : 4;
            const int8_t *x = (const int8_t *)a->x + j * a->x_stride;
            float32x4_t sum[4];
            for (size_t t = 0; t < 4; t++) sum[t] = vdupq_n_f32(0);
            for (size_t block = 0; block < n_blocks; block++) {
                float d;
                int8x16x2_t w = load(row + block * block_bytes, &d);
                for (size_t t = 0; t < n_now; t++) {
                    const int8_t *qs = x + t * a->x_stride + block * ACT_BLOCK_32;
                    float dx = float_at(x + t * a->x_stride + a->n + block * sizeof(float));
                    int32x4_t part = vdotq_s32(vdupq_n_s32(0), w.val[0], vld1q_s8(qs));
                    part = vdotq_s32(part, w.val[1], vld1q_s8(qs + 16));
                    sum[t] = vfmaq_n_f32(sum[t], vcvtq_f32_s32(part), d * dx);
                }
            }
            for (size_t t = 0; t < n_now; t++)
                a->out[(j + t) * a->out_stride + i] = vaddvq_f32(sum[t]);
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

/* ---- int8 products, blocks of 256 ---- */

/* The 256 products scale * q * x, added up into 4 lanes; q is below 128. */
static inline int32x4_t k_product(const k_block *k, const int8_t *x) {
    int32x4_t sum = vdupq_n_s32(0);
    for (int g = 0; g < K_GROUPS; g++) {
        int8x16_t q = vreinterpretq_s8_u8(vld1q_u8(k->q + 16 * g));
        int32x4_t part = vdotq_s32(vdupq_n_s32(0), q, vld1q_s8(x + 16 * g));
        sum = vmlaq_n_s32(sum, part, k->scale[g]);
    }
    return sum;
}

/* The 16 products of minimums and sums of activations, added up into 4 lanes. */
static inline int32x4_t k_minimums(const k_block *k, const int8_t *x_sums) {
    int16_t sums[K_GROUPS];
    int32x4_t all = vdupq_n_s32(0);
    memcpy(sums, x_sums, sizeof sums);
    for (int i = 0; i < K_GROUPS; i += 4)
        all = vmlal_s16(all, vld1_s16(k->min + i), vld1_s16(sums + i));
    return all;
}

/* sum + the products of one block of weights and one of activations: one multiply-add for a type
 * with an offset, two for one with minimums. */
static inline float32x4_t k_add_block(float32x4_t sum, const k_block *k, const int8_t *x, float dx,
                                      const int8_t *x_sums) {
    int32x4_t scaled = k_product(k, x), mins = k_minimums(k, x_sums);
    if (k->offset) return vfmaq_n_f32(sum, vcvtq_f32_s32(vsubq_s32(scaled, mins)), k->d * dx);
    sum = vfmaq_n_f32(sum, vcvtq_f32_s32(scaled), k->d * dx);
    return vfmaq_n_f32(sum, vcvtq_f32_s32(mins), -k->dmin * dx);
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
            float32x4_t sum[N_TILE];
            k_block k[2];
            for (size_t t = 0; t < n_now; t++) sum[t] = vdupq_n_f32(0);
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
            for (size_t t = 0; t < n_now; t++)
                a->out[(j + t) * a->out_stride + i] = vaddvq_f32(sum[t]);
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

static inline void store_halves(float *out, uint16x8_t bits, float scale) {
    float16x8_t h = vreinterpretq_f16_u16(bits);
    vst1q_f32(out, vmulq_n_f32(vcvt_f32_f16(vget_low_f16(h)), scale));
    vst1q_f32(out + 4, vmulq_n_f32(vcvt_high_f32_f16(h), scale));
}

static void decode_f16(float *out, const void *row, size_t n) {
    const uint8_t *h = row;
    size_t c = 0;
    for (; c + 8 <= n; c += 8) store_halves(out + c, vreinterpretq_u16_u8(vld1q_u8(h + 2 * c)), 1);
    for (; c < n; c++) out[c] = half_at(h + 2 * c);
}

static void decode_bf16(float *out, const void *row, size_t n) {
    const uint8_t *h = row;
    size_t c = 0;
    for (; c + 8 <= n; c += 8) {
        uint16x8_t bits = vreinterpretq_u16_u8(vld1q_u8(h + 2 * c));
        vst1q_f32(out + c, vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(bits), 16)));
        vst1q_f32(out + c + 4, vreinterpretq_f32_u32(vshll_high_n_u16(bits, 16)));
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
        int8x16x2_t w = load(row, &d);
        vst1q_s8(q, w.val[0]);
        vst1q_s8(q + 16, w.val[1]);
        for (int i = 0; i < 32; i++) out[c + i] = d * (float)q[i];
    }
}

static void decode_q8_0(float *out, const void *row, size_t n) {
    decode_blocks(out, row, n, 34, load_q8_0);
}
static void decode_q4_0(float *out, const void *row, size_t n) {
    decode_blocks(out, row, n, 18, load_q4_0);
}

/* Sixteen E2M1 codes, minus zero among them. `half` is half the scale, for doubled values as in
 * mxfp4_values: as binary16 their lower bytes are 0, and these are the upper ones. */
static inline void store_e2m1(float *out, uint8x16_t codes, float half) {
    static const uint8_t upper[16] = {0x00, 0x3c, 0x40, 0x42, 0x44, 0x46, 0x48, 0x4a,
                                      0x80, 0xbc, 0xc0, 0xc2, 0xc4, 0xc6, 0xc8, 0xca};
    uint8x16_t bytes = vqtbl1q_u8(vld1q_u8(upper), codes);
    store_halves(out, vshll_n_u8(vget_low_u8(bytes), 8), half);
    store_halves(out + 8, vshll_high_n_u8(bytes, 8), half);
}

static void decode_mxfp4(float *out, const void *row, size_t n) {
    const uint8_t *block = row;
    for (size_t c = 0; c < n; c += 32, block += 17) {
        float half = mxfp4_half_scale(block[0]);
        uint8x16x2_t codes = nibbles(block + 1);
        store_e2m1(out + c, codes.val[0], half);
        store_e2m1(out + c + 16, codes.val[1], half);
    }
}

static void fp4_unpack_neon(float *x, const uint8_t *codes, const uint8_t *scales, size_t n) {
    size_t c = 0;
    for (; c + FP4_BLOCK <= n; c += FP4_BLOCK) {
        float half = 0.5f * ue8m0_decode(scales[c / FP4_BLOCK]);
        uint8x16x2_t v = nibbles(codes + c / 2);
        store_e2m1(x + c, vzip1q_u8(v.val[0], v.val[1]), half);
        store_e2m1(x + c + 16, vzip2q_u8(v.val[0], v.val[1]), half);
    }
    fp4_unpack(x + c, codes + c / 2, scales + c / FP4_BLOCK, n - c);
}

/* E4M3 -> float: the 7 magnitude bits, moved to the top of a half, are the value divided by 2^8,
 * with subnormals in their place. */
static void fp8_unpack_neon(float *x, const uint8_t *codes, const uint8_t *scales, size_t n) {
    size_t c = 0;
    for (; c + 8 <= n; c += 8) {
        uint16x8_t v = vmovl_u8(vld1_u8(codes + c)), magnitude = vandq_u16(v, vdupq_n_u16(0x7f));
        uint16x8_t is_nan = vceqq_u16(magnitude, vdupq_n_u16(0x7f));
        uint16x8_t sign = vshlq_n_u16(vandq_u16(v, vdupq_n_u16(0x80)), 8);
        uint16x8_t bits = vorrq_u16(vshlq_n_u16(magnitude, 7), sign);
        float scale = ue8m0_decode(scales[c / FP8_BLOCK]);
        float16x8_t h =
            vreinterpretq_f16_u16(vorrq_u16(bits, vandq_u16(is_nan, vdupq_n_u16(0x7e00))));
        /* Two multiplications: 256 times the largest scale is beyond the floats. */
        vst1q_f32(x + c, vmulq_n_f32(vmulq_n_f32(vcvt_f32_f16(vget_low_f16(h)), 256), scale));
        vst1q_f32(x + c + 4, vmulq_n_f32(vmulq_n_f32(vcvt_high_f32_f16(h), 256), scale));
    }
    for (; c < n; c++) x[c] = e4m3_decode(codes[c]) * ue8m0_decode(scales[c / FP8_BLOCK]);
}

/* ---- activations to int8 ---- */

/* Bits of magnitudes compare as integers; a NaN is above everything. */
static inline float largest_magnitude(const float *x, size_t n) {
    uint32x4_t top = vdupq_n_u32(0);
    for (size_t i = 0; i < n; i += 4)
        top = vmaxq_u32(top, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
    uint32_t bits = vmaxvq_u32(top);
    float amax;
    memcpy(&amax, &bits, sizeof amax);
    return amax;
}

/* Eight values as int16, to the nearest even. */
static inline int16x8_t round_8(const float *x, float inverse) {
    int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), inverse));
    int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4), inverse));
    return vcombine_s16(vqmovn_s32(a), vqmovn_s32(b));
}

static inline float quantize_block_neon(int8_t *qs, const float *x, size_t n) {
    float d, inverse;
    if (!quantize_scale(largest_magnitude(x, n), &d, &inverse)) {
        memset(qs, 0, n);
        return d;
    }
    for (size_t i = 0; i < n; i += 16) {
        int8x8_t low = vqmovn_s16(round_8(x + i, inverse));
        int8x8_t high = vqmovn_s16(round_8(x + i + 8, inverse));
        vst1q_s8(qs + i, vmaxq_s8(vcombine_s8(low, high), vdupq_n_s8(-127)));
    }
    return d;
}

static void quantize_q8_32(void *row, const float *x, size_t n) {
    quantize_row_q8_32(row, x, n, quantize_block_neon);
}

static void quantize_q8_256(void *row, const float *x, size_t n) {
    quantize_row_q8_256(row, x, n, quantize_block_neon);
}

static const cpu_kernels kernels = {
    .name = "neon",
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
    .fp8_unpack = fp8_unpack_neon,
    .fp4_unpack = fp4_unpack_neon,
    .bf16_unpack = bf16_unpack,
};

const cpu_kernels *cpu_kernels_neon(void) {
    return &kernels;
}

#else
typedef int kernels_neon_is_for_aarch64; /* ISO C wants something in every file */
#endif
