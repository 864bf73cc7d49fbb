/* kernel_rows.h - rows for tests of the CPU kernel tables, and what their dot products should be.
 *
 *   Owner    rows_alloc lends memory until rows_free_to.
 *   Threads  One.
 *   Errors   None: running out of memory ends the process. */
#ifndef DS4_TESTS_KERNEL_ROWS_H
#define DS4_TESTS_KERNEL_ROWS_H

#include "quant/quant.h"

/* The same numbers on every machine. */
uint32_t rows_random(void);
float rows_random_float(void); /* -1 .. 1 */

/* n_bytes of zeros, `slack` bytes before a page that nobody may touch: with a slack of 0 a read of
 * the first byte beyond them ends the program. The alignment of their start follows from both
 * numbers. */
void *rows_alloc(size_t n_bytes, size_t slack);
/* rows_free_to(mark) frees what was allocated since rows_mark gave `mark`; 0: everything. */
size_t rows_mark(void);
void rows_free_to(size_t mark);

typedef enum {
    ROWS_RANDOM,   /* ordinary weights and activations */
    ROWS_EXACT,    /* every product and every sum is a small multiple of a power of two */
    ROWS_MAX,      /* largest scales, largest and smallest codes */
    ROWS_TINY,     /* subnormal scales and values */
    ROWS_NEGATIVE, /* negative scales of weights, negative activations */
    ROWS_ZERO,
    ROWS_N_KINDS,
} rows_kind;

/* One weight row of any matrix type; one activation row in the layout of quant.h. */
void rows_make_weight(void *row, const quant_info *info, size_t n, rows_kind kind);
void rows_make_act(void *row, act_kind act, size_t n, rows_kind kind);

/* Sets the scale (f16 bits; MXFP4: the low byte) of a block; false if the type has none. */
bool rows_set_scale(void *block, quant_type type, uint16_t d, uint16_t dmin);

/* What w . x is, in double. *magnitude <- sum |a * b| over everything that is added: of d * q -
 * dmin * m both terms count. */
double rows_dot(const quant_info *info, const void *w, const void *x, size_t n, double *magnitude);
/* How far a kernel's result may be from it: see the formula in kernel_rows.c. */
double rows_tolerance(const quant_info *info, size_t n, double magnitude);

#endif
