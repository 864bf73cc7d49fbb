#include "tests/support/kernel_bench.h"

#include <stdio.h>
#include <time.h>

#include "backend/cpu/kernels.h"
#include "quant/grids.h"
#include "tests/support/kernel_rows.h"

/* Weights of one call: 64 rows of 4096 stay in the second cache but for F32. */
enum { N = 4096, N_W = 64, MAX_X = 16 };

/* Processor time of this thread: other programs do not count. */
static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What a row of the report measures. */
typedef struct {
    const cpu_kernels *k;
    const quant_info *info;
    void (*run)(const cpu_kernels *k, const quant_info *info, size_t n_x);
    size_t n_x;
} job;

static float out[MAX_X * N];
static uint8_t *w, *x;
static const uint8_t scales[N / FP4_BLOCK];

static void run_dot(const cpu_kernels *k, const quant_info *info, size_t n_x) {
    size_t unit = info->act == ACT_F32 ? sizeof(float) : 1;
    cpu_dot_args a = {
        .out = out, .out_stride = N_W, .w = w, .x = x, .n_w = N_W, .n_x = n_x, .n = N};
    a.w_stride = quant_row_bytes(info, N) / unit;
    a.x_stride = act_row_bytes(info->act, N) / unit;
    if (info->act == ACT_F32)
        k->dot_f32(&a);
    else
        k->dot_q8[info->type](&a);
}

static void run_decode(const cpu_kernels *k, const quant_info *info, size_t n_x) {
    (void)n_x;
    k->decode_row[info->type](out, w, N);
}

/* The best of three runs of about 20 ms each, in seconds for one call. */
static double time_of(const job *j) {
    double best = 1e9;
    for (int i = 0; i < 3; i++) {
        double start = now_s(), end;
        long n_calls = 0;
        do {
            for (int call = 0; call < 8; call++) j->run(j->k, j->info, j->n_x);
            n_calls += 8;
            end = now_s();
        } while (end - start < 0.02);
        double each = (end - start) / (double)n_calls;
        if (each < best) best = each;
    }
    return best;
}

static void print_row(const cpu_kernels *k, const char *what, double s, size_t n_results,
                      size_t n_bytes) {
    printf("%-8s %-24s %9.3f ns %8.2f GB/s\n", k->name, what, s * 1e9 / (double)n_results,
           (double)n_bytes / s * 1e-9);
}

static void bench_type(const cpu_kernels *k, const quant_info *info) {
    char what[40];
    size_t row_bytes = quant_row_bytes(info, N), mark = rows_mark();
    w = rows_alloc(N_W * row_bytes, 0);
    x = rows_alloc(MAX_X * act_row_bytes(info->act, N), 0);
    for (size_t i = 0; i < N_W; i++) rows_make_weight(w + i * row_bytes, info, N, ROWS_RANDOM);
    for (size_t i = 0; i < MAX_X; i++)
        rows_make_act(x + i * act_row_bytes(info->act, N), info->act, N, ROWS_RANDOM);
    for (size_t n_x = 1; n_x <= MAX_X; n_x *= MAX_X) {
        if (info->act == ACT_F32 && info->type != QUANT_F32) break;
        snprintf(what, sizeof what, "dot %s x %zu", info->name, n_x);
        print_row(k, what, time_of(&(job){k, info, run_dot, n_x}), N_W * n_x, N_W * row_bytes);
    }
    snprintf(what, sizeof what, "decode %s", info->name);
    print_row(k, what, time_of(&(job){k, info, run_decode, 1}), N, row_bytes);
    rows_free_to(mark);
}

static void run_q8_32(const cpu_kernels *k, const quant_info *info, size_t n_x) {
    (void)info, (void)n_x;
    k->quantize_q8_32(x, (const float *)(const void *)w, N);
}

static void run_q8_256(const cpu_kernels *k, const quant_info *info, size_t n_x) {
    (void)info, (void)n_x;
    k->quantize_q8_256(x, (const float *)(const void *)w, N);
}

/* As attention does it: rows of 512, all heads of a group over them. */
static void run_sum(const cpu_kernels *k, const quant_info *info, size_t n_x) {
    (void)info;
    const float *rows = (const float *)(const void *)w;
    k->weighted_sum(out, 512, rows, 32, n_x, rows, 512, 32, 512);
}

static void run_fp8(const cpu_kernels *k, const quant_info *info, size_t n_x) {
    (void)info, (void)n_x;
    k->fp8_unpack(out, w, scales, N);
}

static void run_fp4(const cpu_kernels *k, const quant_info *info, size_t n_x) {
    (void)info, (void)n_x;
    k->fp4_unpack(out, w, scales, N);
}

static void bench_others(const cpu_kernels *k) {
    const quant_info *f32 = quant_find(QUANT_F32);
    size_t mark = rows_mark();
    w = rows_alloc(16 * N * sizeof(float), 0);
    x = rows_alloc(2 * N, 0);
    for (size_t i = 0; i < 16; i++)
        rows_make_weight(w + i * N * sizeof(float), f32, N, ROWS_RANDOM);
    print_row(k, "quantize_q8_32", time_of(&(job){k, f32, run_q8_32, 1}), N, N * sizeof(float));
    print_row(k, "quantize_q8_256", time_of(&(job){k, f32, run_q8_256, 1}), N, N * sizeof(float));
    print_row(k, "weighted_sum 8 x 32 rows", time_of(&(job){k, f32, run_sum, 8}), 8 * 32 * 512,
              8 * 32 * 512 * sizeof(float));
    print_row(k, "fp8_unpack", time_of(&(job){k, f32, run_fp8, 1}), N, N);
    print_row(k, "fp4_unpack", time_of(&(job){k, f32, run_fp4, 1}), N, N / 2);
    rows_free_to(mark);
}

int kernel_bench(void) {
    size_t n_types;
    const quant_info *types = quant_table(&n_types);
    const cpu_kernels *k;
    printf("%-8s %-24s %12s %13s\n", "table", "entry", "each", "weights");
    for (size_t i = 0; (k = cpu_kernels_at(i)); i++) {
        for (size_t t = 0; t < n_types; t++)
            if (types[t].is_matrix) bench_type(k, &types[t]);
        bench_others(k);
    }
    return 0;
}
