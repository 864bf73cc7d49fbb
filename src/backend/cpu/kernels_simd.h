/* kernels_simd.h - what the tables of the instruction sets share; private to kernels*.c. */
#ifndef DS4_BACKEND_CPU_KERNELS_SIMD_H
#define DS4_BACKEND_CPU_KERNELS_SIMD_H

#include "backend/cpu/kernels.h"

#if defined(__x86_64__)
const cpu_kernels *cpu_kernels_avx2(void);
#endif

/* Types without a kernel of their own in a table: the weight block becomes floats once for all
 * activation rows, and `dot` (int8 with floats, n a multiple of 32) does the rest. */
typedef float (*dot_i8_fn)(const float *w, const int8_t *x, size_t n);
void cpu_dot_decoded(const cpu_dot_args *a, quant_type type, size_t act_block, dot_i8_fn dot);

#endif
