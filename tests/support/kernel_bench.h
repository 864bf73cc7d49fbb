/* kernel_bench.h - the speed of every entry of every kernel table, printed as a table. */
#ifndef DS4_TESTS_KERNEL_BENCH_H
#define DS4_TESTS_KERNEL_BENCH_H

/* Prints nanoseconds for each output (dot products) or value, and GB/s of weights or of packed
 * values, on one thread, in its processor time, with rows in cache. Returns 0. */
int kernel_bench(void);

#endif
