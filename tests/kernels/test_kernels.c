/* test_kernels.c - every kernel table of this build against the scalar definition, and the order of sums.
 *
 *   test_kernels           the tests
 *   test_kernels --bench   GB/s of weights (or values) for every table, entry and type
 *
 * With DS4_TEST_PLAIN it needs no cmocka (support/plain_cmocka.h): so it runs on other processors. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#ifdef DS4_TEST_PLAIN
#include "tests/support/plain_cmocka.h"
#else
#include <cmocka.h>
#endif

#include <math.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "quant/grids.h"
#include "tests/support/kernel_bench.h"
#include "tests/support/kernel_rows.h"

#define N_OF(array) (sizeof(array) / sizeof *(array))

/* Table i under test, from 0; NULL past the end. */
static const cpu_kernels *table_at(size_t i) {
    return cpu_kernels_at(i);
}

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* Any NaN is as good as any other. */
static bool same_float(float a, float b) {
    return bits_of(a) == bits_of(b) || (isnan(a) && isnan(b));
}

/* No kernel of these tests computes this NaN. */
static const uint32_t guard_bits = 0x7fa5a5a5;

static float guard(void) {
    float f;
    memcpy(&f, &guard_bits, sizeof f);
    return f;
}

/* n floats between two rows of guards, all of them guards. */
enum { N_GUARDS = 20 };

static float *guarded(size_t n, size_t skew) {
    float *all = rows_alloc((n + 2 * N_GUARDS) * sizeof *all, skew * sizeof *all);
    for (size_t i = 0; i < n + 2 * N_GUARDS; i++) all[i] = guard();
    return all + N_GUARDS;
}

static bool is_guard(const float *p) {
    return memcmp(p, &guard_bits, sizeof *p) == 0;
}

/* Nothing but n_rows rows of n, stride floats apart, was written. */
static void check_guards(const char *what, const float *out, size_t n_rows, size_t n, size_t stride) {
    size_t n_all = n_rows ? (n_rows - 1) * stride + n : 0;
    for (size_t i = 0; i < n_all + 2 * N_GUARDS; i++) {
        bool is_row = i >= N_GUARDS && i - N_GUARDS < n_all && (i - N_GUARDS) % stride < n;
        if (!is_row && !is_guard(out - N_GUARDS + i))
            fail_msg("%s: %zu rows of %zu: wrote at %td", what, n_rows, n, (ptrdiff_t)i - N_GUARDS);
    }
}

/* ---- dot products ---- */

/* Rows of one weight type and of its activations. F32 stands for dot_f32. */
typedef struct {
    const quant_info *info;
    size_t            n, n_w, n_x, w_bytes, x_bytes;
    rows_kind         w_kind, x_kind;
    const uint8_t    *w, *x; /* packed rows */
} dot_case;

static size_t unit_of(const quant_info *info) {
    return info->act == ACT_F32 ? sizeof(float) : 1;
}

static dot_case make_case(const quant_info *info, size_t n, size_t n_w, size_t n_x, rows_kind w_kind,
                          rows_kind x_kind) {
    dot_case c = {.info = info, .n = n, .n_w = n_w, .n_x = n_x, .w_kind = w_kind, .x_kind = x_kind};
    c.w_bytes = quant_row_bytes(info, n);
    c.x_bytes = act_row_bytes(info->act, n);
    uint8_t *w = rows_alloc(n_w * c.w_bytes, 0), *x = rows_alloc(n_x * c.x_bytes, 0);
    for (size_t i = 0; i < n_w; i++) rows_make_weight(w + i * c.w_bytes, info, n, w_kind);
    for (size_t j = 0; j < n_x; j++) rows_make_act(x + j * c.x_bytes, info->act, n, x_kind);
    c.w = w;
    c.x = x;
    return c;
}

/* A copy of n_rows rows, each `gap` bytes longer than needed but the last one: it ends its memory. */
static uint8_t *spread(const uint8_t *rows, size_t n_rows, size_t n_bytes, size_t gap, size_t skew) {
    size_t   stride = n_bytes + gap, n_all = n_rows ? (n_rows - 1) * stride + n_bytes : 0;
    uint8_t *to = rows_alloc(n_all, skew);
    if (n_all) memset(to, 0xff, n_all); /* gaps are NaN in every type */
    for (size_t i = 0; i < n_rows; i++) memcpy(to + i * stride, rows + i * n_bytes, n_bytes);
    return to;
}

/* out[n_x][n_w] <- k's products of n_w rows from w0 and n_x rows from x0, at strides and addresses that
 * depend on `how`. */
static void run_dots(float *out, const cpu_kernels *k, const dot_case *c, size_t w0, size_t n_w, size_t x0,
                     size_t n_x, size_t how) {
    size_t       unit = unit_of(c->info), gap_w = how % 3 * unit, gap_x = how / 3 % 3 * unit;
    size_t       skew_w = how * unit, skew_x = (how + 3) * unit, out_stride = n_w + how % 5;
    float       *o = guarded(n_x ? (n_x - 1) * out_stride + n_w : 0, how % 4);
    cpu_dot_args a = {.out = o, .out_stride = out_stride, .n_w = n_w, .n_x = n_x, .n = c->n};
    a.w = spread(c->w + w0 * c->w_bytes, n_w, c->w_bytes, gap_w, skew_w);
    a.x = spread(c->x + x0 * c->x_bytes, n_x, c->x_bytes, gap_x, skew_x);
    a.w_stride = (c->w_bytes + gap_w) / unit;
    a.x_stride = (c->x_bytes + gap_x) / unit;
    if (c->info->act == ACT_F32) k->dot_f32(&a);
    else k->dot_q8[c->info->type](&a);
    check_guards(k->name, o, n_w ? n_x : 0, n_w, out_stride);
    for (size_t j = 0; j < n_x; j++) memcpy(out + j * n_w, o + j * out_stride, n_w * sizeof *out);
}

enum { MAX_OUT = 17 * 17 };

/* Every table near the true product; where all sums are exact, on it. */
static void check_values(const dot_case *c, size_t how) {
    bool is_exact = (c->w_kind == ROWS_EXACT && c->x_kind == ROWS_EXACT);
    const cpu_kernels *k;
    for (size_t t = 0; (k = table_at(t)); t++) {
        float out[MAX_OUT];
        run_dots(out, k, c, 0, c->n_w, 0, c->n_x, how);
        for (size_t j = 0; j < c->n_x; j++)
            for (size_t i = 0; i < c->n_w; i++) {
                double magnitude, found = (double)out[j * c->n_w + i];
                double sum = rows_dot(c->info, c->w + i * c->w_bytes, c->x + j * c->x_bytes, c->n,
                                      &magnitude);
                double limit = is_exact ? 0 : rows_tolerance(c->info, c->n, magnitude);
                if (!(fabs(found - sum) <= limit))
                    fail_msg("%s, %s, kinds %d %d, n %zu, %zu x %zu, how %zu: (%zu, %zu) is %.9g, "
                             "expected %.9g +- %.3g", k->name, c->info->name, (int)c->w_kind,
                             (int)c->x_kind, c->n, c->n_w, c->n_x, how, i, j, found, sum, limit);
            }
    }
}

/* A result is the same to the bit alone, among a few and among all, wherever its rows lie. */
static void check_order(const dot_case *c) {
    const cpu_kernels *k;
    for (size_t t = 0; (k = table_at(t)); t++) {
        float all[MAX_OUT], part[MAX_OUT];
        run_dots(all, k, c, 0, c->n_w, 0, c->n_x, 0);
        for (size_t size = 1; size <= 5; size++)
            for (size_t at = 0; at < c->n_w * c->n_x; at++) {
                size_t i = at % c->n_w, j = at / c->n_w;
                size_t n_w = size < c->n_w - i ? size : c->n_w - i;
                size_t n_x = 6 - size < c->n_x - j ? 6 - size : c->n_x - j;
                run_dots(part, k, c, i, size == 1 ? 1 : n_w, j, size == 1 ? 1 : n_x, at * 7 % 11);
                if (!same_float(part[0], all[at]))
                    fail_msg("%s, %s, n %zu: (%zu, %zu) is %a among %zu x %zu, but %a among all",
                             k->name, c->info->name, c->n, i, j, (double)part[0], n_w, n_x,
                             (double)all[at]);
                if (at % 7 == 6) rows_free_all();
            }
    }
}
