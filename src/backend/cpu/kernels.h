/* kernels.h - the inner loops of the CPU backend, one table of functions for each instruction set.
 *
 *   kernels_ref.c      plain loops; the definition of every entry
 *   kernels_avx2.c     x86-64 with AVX2, FMA and F16C
 *   kernels_avx512.c   the same with AVX-512 F, BW, VL and VNNI
 *   kernels_neon.c     AArch64 with dot product instructions
 *
 *   Order    Within one table the operations of an output element (instruction kind, order of sums,
 *            block width) depend on n alone: never on the number of rows, on strides or on alignment.
 *            So a result is bit-equal whatever rows share the call. Between tables results differ by
 *            rounding, except where an entry is called exact.
 *   Shapes   Strides are in elements for floats, in bytes for quantised rows. Nothing is aligned.
 *            No entry reads or writes beyond the n elements of a row.
 *   Threads  Tables are constant.
 *   Errors   None: callers check shapes. */
#ifndef DS4_BACKEND_CPU_KERNELS_H
#define DS4_BACKEND_CPU_KERNELS_H

#include "quant/quant.h"

enum { CPU_N_TYPES = 40 }; /* quant_type ids are below this */

/* out[j * out_stride + i] = w_i . x_j   for i < n_w, j < n_x: the output row of activation j. */
typedef struct {
    float      *out;
    size_t      out_stride; /* floats */
    const void *w;
    size_t      w_stride; /* floats for dot_f32, else bytes */
    size_t      n_w;
    const void *x;
    size_t      x_stride; /* floats for dot_f32, else bytes */
    size_t      n_x;
    size_t      n; /* elements of a row; quantised rows: a multiple of the block */
} cpu_dot_args;

typedef struct {
    const char *name; /* "ref", "avx2", "avx512", "neon" */

    /* Float rows with float rows. */
    void (*dot_f32)(const cpu_dot_args *a);
    /* Weight rows of a quantised type with activation rows of that type's act_kind (quant.h): integer
     * products and sums inside a block, one float multiply-add for each block. NULL for F32, F16, BF16
     * and for ids that are no matrix type. */
    void (*dot_q8[CPU_N_TYPES])(const cpu_dot_args *a);
    /* Exact: out[n] <- the values of a weight row, as quant_info.decode_row gives them. Every type. */
    void (*decode_row[CPU_N_TYPES])(float *out, const void *row, size_t n);

    /* Exact: an activation row in the layout of quant.h, n a multiple of the block.
     *   q8_32:  d = amax / 127,  qs = nearest even of x / d  (computed as x * (1 / d); d = 0: all 0)
     *   q8_256: the same for 256, and the sums of each 16 qs */
    void (*quantize_q8_32)(void *row, const float *x, size_t n);
    void (*quantize_q8_256)(void *row, const float *x, size_t n);

    /* out[h][0..n) += sum over r, ascending, of p[h][r] * rows[r][0..n)   h < n_h, r < n_r */
    void (*weighted_sum)(float *out, size_t out_stride, const float *p, size_t p_stride, size_t n_h,
                         const float *rows, size_t row_stride, size_t n_r, size_t n);

    /* Exact: the packed grids of quant/grids.h, and bf16, back to floats. */
    void (*fp8_unpack)(float *x, const uint8_t *codes, const uint8_t *scales, size_t n);
    void (*fp4_unpack)(float *x, const uint8_t *codes, const uint8_t *scales, size_t n);
    void (*bf16_unpack)(float *x, const uint16_t *bits, size_t n);
} cpu_kernels;

/* The scalar definition. */
const cpu_kernels *cpu_kernels_ref(void);
/* The best table for this processor. */
const cpu_kernels *cpu_kernels_best(void);
/* Table i of this build that this processor can run, from 0 (ref); NULL past the end. */
const cpu_kernels *cpu_kernels_at(size_t i);
/* By name; NULL if it is not in this build or not for this processor. */
const cpu_kernels *cpu_kernels_find(const char *name);

/* Bytes of an activation row of n elements in the layout of quant.h; n a multiple of the block. */
size_t act_row_bytes(act_kind kind, size_t n);

#endif
