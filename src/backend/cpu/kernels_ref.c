/* The scalar definition of every inner loop: plain loops over the codecs, never tuned. */
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/quantize_row.h"
#include "quant/codec.h"
#include "quant/grids.h"

enum { MAX_BLOCK = 256 };

static void dot_f32(const cpu_dot_args *a) {
    const float *w = a->w, *x = a->x;
    for (size_t i = 0; i < a->n_w; i++) {
        for (size_t j = 0; j < a->n_x; j++) {
            float sum = 0;
            for (size_t c = 0; c < a->n; c++)
                sum += w[i * a->w_stride + c] * x[j * a->x_stride + c];
            a->out[j * a->out_stride + i] = sum;
        }
    }
}

/* Any quantised type: the block's values times the block of int8, then the activation's scale. */
static void dot_blocks(const cpu_dot_args *a, quant_type type, size_t act_block) {
    const quant_info *info = quant_find(type);
    for (size_t i = 0; i < a->n_w; i++) {
        const uint8_t *row = (const uint8_t *)a->w + i * a->w_stride;
        for (size_t j = 0; j < a->n_x; j++) {
            const int8_t *qs = (const int8_t *)a->x + j * a->x_stride;
            float sum = 0;
            for (size_t block = 0; block < a->n / act_block; block++) {
                float values[MAX_BLOCK], d, part = 0;
                info->decode_row(values,
                                 row + block * act_block / info->block_elems * info->block_bytes,
                                 act_block);
                memcpy(&d, qs + a->n + block * sizeof d, sizeof d);
                for (size_t c = 0; c < act_block; c++)
                    part += values[c] * qs[block * act_block + c];
                sum += d * part;
            }
            a->out[j * a->out_stride + i] = sum;
        }
    }
}

#define DOT_OF(name, type, block)                                                                  \
    static void dot_##name(const cpu_dot_args *a) {                                                \
        dot_blocks(a, type, block);                                                                \
    }
DOT_OF(q8_0, QUANT_Q8_0, ACT_BLOCK_32)
DOT_OF(q4_0, QUANT_Q4_0, ACT_BLOCK_32)
DOT_OF(mxfp4, QUANT_MXFP4, ACT_BLOCK_32)
DOT_OF(q2_k, QUANT_Q2_K, ACT_BLOCK_256)
DOT_OF(q3_k, QUANT_Q3_K, ACT_BLOCK_256)
DOT_OF(q4_k, QUANT_Q4_K, ACT_BLOCK_256)
DOT_OF(q5_k, QUANT_Q5_K, ACT_BLOCK_256)
DOT_OF(q6_k, QUANT_Q6_K, ACT_BLOCK_256)
DOT_OF(iq2_xxs, QUANT_IQ2_XXS, ACT_BLOCK_256)
DOT_OF(iq2_xs, QUANT_IQ2_XS, ACT_BLOCK_256)

static void weighted_sum(float *out, size_t out_stride, const float *p, size_t p_stride, size_t n_h,
                         const float *rows, size_t row_stride, size_t n_r, size_t n) {
    for (size_t h = 0; h < n_h; h++)
        for (size_t r = 0; r < n_r; r++)
            for (size_t c = 0; c < n; c++)
                out[h * out_stride + c] += p[h * p_stride + r] * rows[r * row_stride + c];
}

static float quantize_block_ref(int8_t *qs, const float *x, size_t n) {
    float amax = 0, d, inverse;
    for (size_t i = 0; i < n; i++) {
        float v = fabsf(x[i]);
        if (v > amax || isnan(v)) amax = v;
        if (isnan(v)) break;
    }
    bool has_values = quantize_scale(amax, &d, &inverse);
    for (size_t i = 0; i < n; i++) {
        float q = has_values ? rintf(x[i] * inverse) : 0;
        qs[i] = (int8_t)fminf(fmaxf(q, -127.0f), 127.0f);
    }
    return d;
}

static void quantize_q8_32(void *row, const float *x, size_t n) {
    quantize_row_q8_32(row, x, n, quantize_block_ref);
}

static void quantize_q8_256(void *row, const float *x, size_t n) {
    quantize_row_q8_256(row, x, n, quantize_block_ref);
}

static void bf16_unpack(float *x, const uint16_t *bits, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = bf16_to_f32(bits[i]);
}

static const cpu_kernels kernels = {
    .name = "ref",
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
                   [QUANT_F16] = f16_decode_row,
                   [QUANT_BF16] = bf16_decode_row,
                   [QUANT_Q8_0] = q8_0_decode_row,
                   [QUANT_Q4_0] = q4_0_decode_row,
                   [QUANT_MXFP4] = mxfp4_decode_row,
                   [QUANT_Q2_K] = q2_k_decode_row,
                   [QUANT_Q3_K] = q3_k_decode_row,
                   [QUANT_Q4_K] = q4_k_decode_row,
                   [QUANT_Q5_K] = q5_k_decode_row,
                   [QUANT_Q6_K] = q6_k_decode_row,
                   [QUANT_IQ2_XXS] = iq2_xxs_decode_row,
                   [QUANT_IQ2_XS] = iq2_xs_decode_row},
    .quantize_q8_32 = quantize_q8_32,
    .quantize_q8_256 = quantize_q8_256,
    .weighted_sum = weighted_sum,
    .fp8_unpack = fp8_unpack,
    .fp4_unpack = fp4_unpack,
    .bf16_unpack = bf16_unpack,
};

const cpu_kernels *cpu_kernels_ref(void) {
    return &kernels;
}
