/* kernels_simd.h - the tables of the instruction sets, for kernels.c to choose from; private to
 * kernels*.c.
 *
 *   weight_blocks.h, quantize_row.h   what all of them share, as plain loops
 *   kernels_x86.h                     what AVX2 and AVX-512 share */
#ifndef DS4_BACKEND_CPU_KERNELS_SIMD_H
#define DS4_BACKEND_CPU_KERNELS_SIMD_H

#include "backend/cpu/kernels.h"

#if defined(__x86_64__)
const cpu_kernels *cpu_kernels_avx2(void);
const cpu_kernels *cpu_kernels_avx512(void);
#elif defined(__aarch64__)
const cpu_kernels *cpu_kernels_neon(void);
#endif

#endif
