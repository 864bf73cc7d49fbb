/* test_kernels.c - every kernel table of this build against the scalar definition, and the order of
 * sums.
 *
 *   test_kernels           the tests
 *   test_kernels --bench   the speed of every table, entry and type (support/kernel_bench.h)
 *
 * With DS4_TEST_PLAIN it needs no cmocka (support/plain_cmocka.h): so it runs on other
 * processors. */
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
#include <stdio.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "quant/grids.h"
#include "tests/support/kernel_bench.h"
#include "tests/support/kernel_rows.h"

#define N_OF(array) (sizeof(array) / sizeof *(array))

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Any NaN is as good as any other. */
static bool same_float(float a, float b) {
    return bits_of(a) == bits_of(b) || (isnan(a) && isnan(b));
}

static void check_same(const char *table, const char *what, const float *found,
                       const float *expected, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!same_float(found[i], expected[i]))
            fail_msg("%s, %s: value %zu of %zu is %a, expected %a", table, what, i, n,
                     (double)found[i], (double)expected[i]);
}

/* ---- guards: n bytes between two runs of guard bytes ---- */

enum { N_GUARDS = 64, GUARD = 0xa5 };

static void *guarded(size_t n_bytes, size_t slack) {
    uint8_t *all = rows_alloc(n_bytes + 2 * N_GUARDS, slack);
    memset(all, GUARD, n_bytes + 2 * N_GUARDS);
    return all + N_GUARDS;
}

/* Nothing but n_rows rows of n_bytes, stride bytes apart, was written. */
static void check_guards(const char *what, const void *out, size_t n_rows, size_t n_bytes,
                         size_t stride) {
    const uint8_t *all = (const uint8_t *)out - N_GUARDS;
    size_t n_all = n_rows ? (n_rows - 1) * stride + n_bytes : 0;
    for (size_t i = 0; i < n_all + 2 * N_GUARDS; i++) {
        bool is_row = i >= N_GUARDS && i - N_GUARDS < n_all && (i - N_GUARDS) % stride < n_bytes;
        if (!is_row && all[i] != GUARD)
            fail_msg("%s: %zu rows of %zu bytes: wrote at %td", what, n_rows, n_bytes,
                     (ptrdiff_t)i - N_GUARDS);
    }
}

/* ---- dot products ---- */

/* Rows of one weight type and of its activations. F32 stands for dot_f32. */
typedef struct {
    const quant_info *info;
    size_t n, n_w, n_x, w_bytes, x_bytes;
    rows_kind w_kind, x_kind;
    uint8_t *w, *x; /* packed rows */
} dot_case;

static bool has_dot(const quant_info *info) {
    return info->is_matrix && (info->type == QUANT_F32 || info->act != ACT_F32);
}

/* What strides and addresses of its rows are multiples of. */
static size_t unit_of(const quant_info *info) {
    return info->act == ACT_F32 ? sizeof(float) : 1;
}

static dot_case make_case(const quant_info *info, size_t n, size_t n_w, size_t n_x,
                          rows_kind w_kind, rows_kind x_kind) {
    dot_case c = {.info = info, .n = n, .n_w = n_w, .n_x = n_x, .w_kind = w_kind, .x_kind = x_kind};
    c.w_bytes = quant_row_bytes(info, n);
    c.x_bytes = act_row_bytes(info->act, n);
    c.w = rows_alloc(n_w * c.w_bytes, 0);
    c.x = rows_alloc(n_x * c.x_bytes, 0);
    for (size_t i = 0; i < n_w; i++) rows_make_weight(c.w + i * c.w_bytes, info, n, w_kind);
    for (size_t j = 0; j < n_x; j++) rows_make_act(c.x + j * c.x_bytes, info->act, n, x_kind);
    return c;
}

/* A copy of n_rows rows, each `gap` bytes longer than needed but the last one. */
static uint8_t *spread(const uint8_t *rows, size_t n_rows, size_t n_bytes, size_t gap,
                       size_t slack) {
    size_t stride = n_bytes + gap, n_all = n_rows ? (n_rows - 1) * stride + n_bytes : 0;
    uint8_t *to = rows_alloc(n_all, slack);
    memset(to, 0xff, n_all); /* as floats, gaps are NaN */
    for (size_t i = 0; i < n_rows; i++) memcpy(to + i * stride, rows + i * n_bytes, n_bytes);
    return to;
}

/* Some rows of a case. */
typedef struct {
    size_t w, n_w, x, n_x;
} part;

/* out[n_x][n_w] <- k's products of a part of the rows, at strides and addresses that depend on
 * `how`; with 0 every row is packed and ends its memory. */
static void run_dots(float *out, const cpu_kernels *k, const dot_case *c, part p, size_t how) {
    size_t mark = rows_mark(), unit = unit_of(c->info), gap_w = how % 3 * unit,
           gap_x = how / 3 % 3 * unit;
    size_t out_stride = p.n_w + how % 5 + (p.n_w == 0);
    float *o =
        guarded((p.n_x ? (p.n_x - 1) * out_stride + p.n_w : 0) * sizeof *o, how % 4 * sizeof *o);
    cpu_dot_args a = {.out = o, .out_stride = out_stride, .n_w = p.n_w, .n_x = p.n_x, .n = c->n};
    a.w = spread(c->w + p.w * c->w_bytes, p.n_w, c->w_bytes, gap_w, how * unit);
    a.x = spread(c->x + p.x * c->x_bytes, p.n_x, c->x_bytes, gap_x, how * 3 * unit);
    a.w_stride = (c->w_bytes + gap_w) / unit;
    a.x_stride = (c->x_bytes + gap_x) / unit;
    if (c->info->act == ACT_F32)
        k->dot_f32(&a);
    else
        k->dot_q8[c->info->type](&a);
    check_guards(k->name, o, p.n_w ? p.n_x : 0, p.n_w * sizeof *o, out_stride * sizeof *o);
    for (size_t j = 0; j < p.n_x; j++)
        memcpy(out + j * p.n_w, o + j * out_stride, p.n_w * sizeof *out);
    rows_free_to(mark);
}

enum { MAX_OUT = 9 * 19 };

/* Every table near the true product; where all sums are exact, on it. */
static void check_values(const dot_case *c, size_t how) {
    bool is_exact = c->w_kind == ROWS_EXACT && c->x_kind == ROWS_EXACT;
    double sums[MAX_OUT], limits[MAX_OUT];
    for (size_t at = 0; at < c->n_w * c->n_x; at++) {
        double magnitude;
        sums[at] = rows_dot(c->info, c->w + at % c->n_w * c->w_bytes,
                            c->x + at / c->n_w * c->x_bytes, c->n, &magnitude);
        limits[at] = is_exact ? 0 : rows_tolerance(c->info, c->n, magnitude);
    }
    const cpu_kernels *k;
    for (size_t t = 0; (k = cpu_kernels_at(t)); t++) {
        float out[MAX_OUT];
        run_dots(out, k, c, (part){0, c->n_w, 0, c->n_x}, how);
        for (size_t at = 0; at < c->n_w * c->n_x; at++)
            if (!(fabs((double)out[at] - sums[at]) <= limits[at]))
                fail_msg(
                    "%s, %s, kinds %d %d, n %zu, %zu x %zu, how %zu: (%zu, %zu) is %.9g, expected "
                    "%.9g +- %.3g",
                    k->name, c->info->name, (int)c->w_kind, (int)c->x_kind, c->n, c->n_w, c->n_x,
                    how, at % c->n_w, at / c->n_w, (double)out[at], sums[at], limits[at]);
    }
}

/* The row lengths to try: odd ones around vector widths for floats, else numbers of blocks. */
static size_t row_length(const quant_info *info, size_t i) {
    static const size_t floats[] = {1,  2,  7,  8,  9,  15, 16,  17,  24,
                                    31, 32, 33, 47, 48, 63, 100, 129, 512};
    static const size_t blocks[] = {1, 2, 3, 5, 8};
    size_t unit = info->act == ACT_Q8_32 ? ACT_BLOCK_32 : ACT_BLOCK_256;
    if (info->act == ACT_F32) return i < N_OF(floats) ? floats[i] : 0;
    return i < N_OF(blocks) ? blocks[i] * unit : 0;
}

static void test_dot_values(void **state) {
    (void)state;
    static const size_t shapes[][2] = {{1, 1}, {1, 3}, {5, 1}, {4, 4}, {3, 17}, {9, 5}};
    size_t n_types, how = 0;
    const quant_info *types = quant_table(&n_types);
    for (size_t t = 0; t < n_types; t++) {
        if (!has_dot(&types[t])) continue;
        for (size_t kinds = 0; kinds < ROWS_N_KINDS * ROWS_N_KINDS; kinds++)
            for (size_t i = 0, n; (n = row_length(&types[t], i)) > 0; i++) {
                size_t shape = how++ % N_OF(shapes);
                dot_case c =
                    make_case(&types[t], n, shapes[shape][0], shapes[shape][1],
                              (rows_kind)(kinds % ROWS_N_KINDS), (rows_kind)(kinds / ROWS_N_KINDS));
                check_values(&c, how % 11);
                rows_free_to(0);
            }
        for (size_t shape = 0; shape < N_OF(shapes); shape++) {
            dot_case c = make_case(&types[t], 4096, shapes[shape][0], shapes[shape][1], ROWS_RANDOM,
                                   ROWS_RANDOM);
            check_values(&c, 0);
            rows_free_to(0);
        }
    }
}

/* A result is the same to the bit alone, among a few and among all, wherever its rows lie. */
static void check_order(const cpu_kernels *k, const dot_case *c) {
    float all[MAX_OUT], some[MAX_OUT];
    run_dots(all, k, c, (part){0, c->n_w, 0, c->n_x}, 0);
    for (size_t at = 0; at < c->n_w * c->n_x; at++) {
        part p = {.w = at % c->n_w, .x = at / c->n_w};
        for (size_t size = 0; size < 5; size++) {
            size_t n_w = 1 + size, n_x = size ? 6 - size : 1;
            p.n_w = n_w < c->n_w - p.w ? n_w : c->n_w - p.w;
            p.n_x = n_x < c->n_x - p.x ? n_x : c->n_x - p.x;
            run_dots(some, k, c, p, (7 * at + size) % 11);
            if (!same_float(some[0], all[at]))
                fail_msg("%s, %s, n %zu: (%zu, %zu) is %a among %zu x %zu, but %a among all",
                         k->name, c->info->name, c->n, p.w, p.x, (double)some[0], p.n_w, p.n_x,
                         (double)all[at]);
        }
    }
}

static void test_dot_order(void **state) {
    (void)state;
    static const size_t float_lengths[] = {3, 29, 77, 512}, block_lengths[] = {256, 768};
    size_t n_types;
    const quant_info *types = quant_table(&n_types);
    const cpu_kernels *k;
    for (size_t t = 0; t < n_types; t++) {
        if (!has_dot(&types[t])) continue;
        bool is_f32 = types[t].act == ACT_F32;
        for (size_t i = 0; i < (is_f32 ? N_OF(float_lengths) : N_OF(block_lengths)); i++) {
            size_t n = is_f32 ? float_lengths[i] : block_lengths[i];
            dot_case c = make_case(&types[t], n, 6, 19, ROWS_RANDOM, ROWS_RANDOM);
            for (size_t j = 0; (k = cpu_kernels_at(j)); j++) check_order(k, &c);
            rows_free_to(0);
        }
    }
}

/* Every scale of MXFP4, up to the end of the floats: one product of +-0.5. */
static void test_dot_mxfp4_scales(void **state) {
    (void)state;
    const quant_info *info = quant_find(QUANT_MXFP4);
    for (int e = 0; e < 256; e++) {
        dot_case c = make_case(info, ACT_BLOCK_32, 1, 1, ROWS_EXACT, ROWS_EXACT);
        float d = e < 128 ? 0x1p20f : 0x1p-20f;
        c.w[0] = (uint8_t)e;
        for (size_t i = 1; i < c.w_bytes; i++) c.w[i] = (c.w[i] & 0x88) | 0x11;
        memset(c.x, 0, ACT_BLOCK_32);
        c.x[e % ACT_BLOCK_32] = 1;
        memcpy(c.x + ACT_BLOCK_32, &d, sizeof d);
        check_values(&c, 0);
        rows_free_to(0);
    }
}

/* Without rows nothing is written. */
static void test_dot_empty(void **state) {
    (void)state;
    float none[1];
    static const part parts[] = {{0, 0, 0, 3}, {0, 5, 0, 0}, {0, 0, 0, 0}};
    size_t n_types;
    const quant_info *types = quant_table(&n_types);
    for (size_t t = 0; t < n_types; t++) {
        if (!has_dot(&types[t])) continue;
        dot_case c = make_case(&types[t], 256, 5, 3, ROWS_RANDOM, ROWS_RANDOM);
        const cpu_kernels *k;
        for (size_t i = 0; (k = cpu_kernels_at(i)); i++)
            for (size_t j = 0; j < N_OF(parts); j++) run_dots(none, k, &c, parts[j], 0);
        rows_free_to(0);
    }
}

static void check_damage(const dot_case *c, const char *what) {
    const cpu_kernels *k;
    for (size_t i = 0; (k = cpu_kernels_at(i)); i++) {
        float out[1];
        run_dots(out, k, c, (part){0, 1, 0, 1}, 0);
        if (isfinite(out[0]))
            fail_msg("%s, %s: %s gives %g", k->name, c->info->name, what, (double)out[0]);
    }
}

/* A scale that is no number does not disappear. */
static void test_dot_damage(void **state) {
    (void)state;
    size_t n_types;
    const quant_info *types = quant_table(&n_types);
    for (size_t t = 0; t < n_types; t++) {
        const quant_info *info = &types[t];
        if (!has_dot(info) || info->act == ACT_F32) continue;
        size_t n = 512, n_acts = n / (info->act == ACT_Q8_32 ? ACT_BLOCK_32 : ACT_BLOCK_256);
        dot_case c = make_case(info, n, 1, 1, ROWS_RANDOM, ROWS_RANDOM);
        float bad = NAN, good;
        uint8_t *last_act = c.x + n + (n_acts - 1) * sizeof bad;
        memcpy(&good, last_act, sizeof good);
        memcpy(last_act, &bad, sizeof bad);
        check_damage(&c, "an activation scale of NaN");
        memcpy(last_act, &good, sizeof good);
        uint8_t *last = c.w + c.w_bytes - info->block_bytes;
        if (info->type == QUANT_MXFP4 || !rows_set_scale(last, info->type, 0x7e00, 0x3c00))
            continue;
        check_damage(&c, "a weight scale of NaN");
        rows_set_scale(last, info->type, 0x7c00, 0x3c00);
        check_damage(&c, "an infinite weight scale");
        rows_free_to(0);
    }
}

/* ---- rows to floats ---- */

static void check_decode(const quant_info *info, const uint8_t *row, size_t n, size_t slack) {
    float *expected = rows_alloc(n * sizeof *expected, 0);
    const cpu_kernels *k;
    info->decode_row(expected, row, n);
    for (size_t i = 0; (k = cpu_kernels_at(i)); i++) {
        float *out = guarded(n * sizeof *out, slack * sizeof *out);
        k->decode_row[info->type](out, row, n);
        check_guards(k->name, out, 1, n * sizeof *out, n * sizeof *out);
        check_same(k->name, info->name, out, expected, n);
    }
}

static void test_decode_row(void **state) {
    (void)state;
    size_t n_types;
    const quant_info *types = quant_table(&n_types);
    for (size_t t = 0; t < n_types; t++) {
        const quant_info *info = &types[t];
        if (!info->is_matrix) continue;
        for (size_t i = 0; i < 40; i++)
            for (rows_kind kind = 0; kind < ROWS_N_KINDS; kind++) {
                size_t n = info->block_elems * (info->block_elems == 1 ? i : i % 5);
                size_t n_bytes = quant_row_bytes(info, n), unit = info->type == QUANT_F32 ? 4 : 1;
                uint8_t *row = rows_alloc(n_bytes, i % 3 * unit);
                rows_make_weight(row, info, n, kind);
                check_decode(info, row, n, i % 4);
                rows_free_to(0);
            }
    }
}

/* All bits of the 16-bit types, all scales of MXFP4, all f16 scales of the others. */
static void test_decode_all(void **state) {
    (void)state;
    size_t n_types;
    const quant_info *types = quant_table(&n_types);
    for (size_t t = 0; t < n_types; t++) {
        const quant_info *info = &types[t];
        if (info->type == QUANT_F16 || info->type == QUANT_BF16) {
            uint16_t *row = rows_alloc(65536 * sizeof *row, 0);
            for (size_t i = 0; i < 65536; i++) row[i] = (uint16_t)i;
            check_decode(info, (uint8_t *)row, 65536, 0);
        } else if (info->is_matrix && info->type != QUANT_F32) {
            uint8_t *row = rows_alloc(info->block_bytes, 0);
            for (uint32_t d = 0; d < 65536; d += info->type == QUANT_MXFP4 ? 1 : 29) {
                size_t mark = rows_mark();
                if (d % 256 < 29) rows_make_weight(row, info, info->block_elems, ROWS_TINY);
                rows_set_scale(row, info->type, (uint16_t)d, (uint16_t)~d);
                if (d < 256 || info->type != QUANT_MXFP4)
                    check_decode(info, row, info->block_elems, 0);
                rows_free_to(mark);
            }
        }
        rows_free_to(0);
    }
}

/* ---- activations to int8 ---- */

typedef enum {
    X_RANDOM,
    X_TIES,
    X_WIDE,
    X_ZERO,
    X_TINY,
    X_HUGE,
    X_NAN,
    X_INFINITE,
    X_N_KINDS
} x_kind;

static void make_floats(float *x, size_t n, x_kind kind) {
    float scale = kind == X_TINY ? 0x1p-130f : kind == X_HUGE ? 0x1.8p127f : 1.0f;
    for (size_t i = 0; i < n; i++) {
        x[i] = kind == X_ZERO ? (i % 2 ? -0.0f : 0.0f) : scale * rows_random_float();
        if (kind == X_TIES) x[i] = i % 32 == 5 ? -127.0f : (float)(rows_random() % 253) - 126.5f;
        if (kind == X_WIDE) x[i] = ldexpf(x[i], (int)(rows_random() % 250) - 149);
    }
    size_t at = rows_random() % n;
    if (kind == X_NAN) x[at] = float_of(rows_random() & 1 ? 0x7fc00000 : 0xff800001);
    if (kind == X_INFINITE) x[at] = rows_random() & 1 ? INFINITY : -INFINITY;
}

/* The definition itself: every block within half a step of the floats it came from. */
static void check_steps(const int8_t *row, const float *x, size_t n, size_t block) {
    for (size_t i = 0; i < n; i++) {
        float d;
        memcpy(&d, row + n + i / block * sizeof d, sizeof d);
        double step = (double)d, distance = fabs((double)x[i] - step * row[i]);
        if (!(distance <= 0.50001 * step)) /* x * (1 / d) has two roundings */
            fail_msg("value %zu of %zu: %g became %d * %g", i, n, (double)x[i], row[i], step);
    }
}

static void check_quantize(const float *x, size_t n, act_kind act, x_kind kind, size_t slack) {
    size_t n_bytes = act_row_bytes(act, n);
    uint8_t *expected = NULL;
    const cpu_kernels *k;
    for (size_t t = 0; (k = cpu_kernels_at(t)); t++) {
        uint8_t *row = guarded(n_bytes, slack);
        if (act == ACT_Q8_32)
            k->quantize_q8_32(row, x, n);
        else
            k->quantize_q8_256(row, x, n);
        check_guards(k->name, row, 1, n_bytes, n_bytes);
        if (t == 0) expected = row;
        for (size_t i = 0; i < n_bytes; i++)
            if (row[i] != expected[i])
                fail_msg("%s, activation kind %d, floats %d, n %zu: byte %zu is %d, expected %d",
                         k->name, (int)act, (int)kind, n, i, row[i], expected[i]);
    }
    if (kind == X_RANDOM || kind == X_TIES || kind == X_ZERO)
        check_steps((int8_t *)expected, x, n, act == ACT_Q8_32 ? ACT_BLOCK_32 : ACT_BLOCK_256);
}

static void test_quantize(void **state) {
    (void)state;
    for (size_t i = 0; i < 60; i++)
        for (x_kind kind = 0; kind < X_N_KINDS; kind++)
            for (act_kind act = ACT_Q8_32; act <= ACT_Q8_256; act++) {
                size_t n = (act == ACT_Q8_32 ? ACT_BLOCK_32 : ACT_BLOCK_256) * (i % 4);
                float *x = rows_alloc(n * sizeof *x, i % 3 * sizeof *x);
                if (n) make_floats(x, n, kind);
                check_quantize(x, n, act, kind, i % 7);
                rows_free_to(0);
            }
}

/* Fields by hand: scale, codes and sums of one block. */
static void test_quantize_fields(void **state) {
    (void)state;
    float x[ACT_BLOCK_256] = {0};
    uint8_t row[ACT_BLOCK_256 + 4 + 32];
    float d;
    int16_t sums[16];
    x[0] = -254;
    x[1] = 3; /* 1.5 steps: to 2 */
    x[2] = 5; /* 2.5 steps: to 2 */
    x[255] = 1.5f;
    const cpu_kernels *k;
    for (size_t t = 0; (k = cpu_kernels_at(t)); t++) {
        k->quantize_q8_256(row, x, ACT_BLOCK_256);
        const int8_t *qs = (const int8_t *)row;
        memcpy(&d, row + 256, sizeof d);
        memcpy(sums, row + 260, sizeof sums);
        assert_true(d == 2.0f);
        assert_true(qs[0] == -127 && qs[1] == 2 && qs[2] == 2 && qs[3] == 0 && qs[255] == 1);
        assert_true(sums[0] == -123 && sums[1] == 0 && sums[15] == 1);
    }
}

/* ---- weighted sums ---- */

typedef struct {
    size_t n_h, n_r, n, p_stride, row_stride, out_stride;
    const float *p, *rows, *start; /* start: out before the sum, [n_h][n] */
} sum_case;

static sum_case make_sums(size_t n_h, size_t n_r, size_t n, size_t how) {
    sum_case c = {.n_h = n_h,
                  .n_r = n_r,
                  .n = n,
                  .p_stride = n_r + how % 3,
                  .row_stride = n + how % 4,
                  .out_stride = n + how % 5};
    size_t n_p = n_h ? (n_h - 1) * c.p_stride + n_r : 0,
           n_rows = n_r ? (n_r - 1) * c.row_stride + n : 0;
    float *p = rows_alloc(n_p * sizeof *p, how % 2 * sizeof *p);
    float *rows = rows_alloc(n_rows * sizeof *rows, how % 3 * sizeof *rows);
    float *start = rows_alloc(n_h * n * sizeof *start, 0);
    for (size_t i = 0; i < n_p; i++) p[i] = NAN;
    for (size_t i = 0; i < n_rows; i++) rows[i] = NAN;
    for (size_t h = 0; h < n_h; h++)
        for (size_t r = 0; r < n_r; r++) p[h * c.p_stride + r] = rows_random_float();
    for (size_t r = 0; r < n_r; r++)
        for (size_t i = 0; i < n; i++) rows[r * c.row_stride + i] = rows_random_float();
    for (size_t i = 0; i < n_h * n; i++) start[i] = rows_random_float();
    c.p = p;
    c.rows = rows;
    c.start = start;
    return c;
}

/* out[n_h][n] <- the sums, of all weights and rows at once or cut: each row of out by itself, each
 * r in a call of its own. */
static void run_sums(float *out, const cpu_kernels *k, const sum_case *c, bool is_cut) {
    size_t n_bytes = (c->n_h ? (c->n_h - 1) * c->out_stride + c->n : 0) * sizeof *out;
    float *o = guarded(n_bytes, is_cut * sizeof *out);
    for (size_t h = 0; h < c->n_h; h++)
        memcpy(o + h * c->out_stride, c->start + h * c->n, c->n * sizeof *out);
    if (!is_cut)
        k->weighted_sum(o, c->out_stride, c->p, c->p_stride, c->n_h, c->rows, c->row_stride, c->n_r,
                        c->n);
    for (size_t h = 0; is_cut && h < c->n_h; h++)
        for (size_t r = 0; r < c->n_r; r++)
            k->weighted_sum(o + h * c->out_stride, 0, c->p + h * c->p_stride + r, 0, 1,
                            c->rows + r * c->row_stride, 0, 1, c->n);
    check_guards(k->name, o, c->n_h, c->n * sizeof *out, c->out_stride * sizeof *out);
    for (size_t h = 0; h < c->n_h; h++)
        memcpy(out + h * c->n, o + h * c->out_stride, c->n * sizeof *out);
}

/* Each of the n_r additions, and each product, rounds by at most 2^-24 of the sum of magnitudes. */
static void check_sums(const cpu_kernels *k, const sum_case *c, const float *out) {
    for (size_t h = 0; h < c->n_h; h++)
        for (size_t i = 0; i < c->n; i++) {
            double sum = (double)c->start[h * c->n + i], magnitude = fabs(sum);
            for (size_t r = 0; r < c->n_r; r++) {
                double product =
                    (double)c->p[h * c->p_stride + r] * (double)c->rows[r * c->row_stride + i];
                sum += product;
                magnitude += fabs(product);
            }
            double limit = (double)(c->n_r + 1) * 0x1p-24 * magnitude;
            if (!(fabs((double)out[h * c->n + i] - sum) <= limit))
                fail_msg("%s: %zu x %zu x %zu: (%zu, %zu) is %.9g, expected %.9g +- %.3g", k->name,
                         c->n_h, c->n_r, c->n, h, i, (double)out[h * c->n + i], sum, limit);
        }
}

static void test_weighted_sum(void **state) {
    (void)state;
    static const size_t n_h[] = {0, 1, 2, 5}, n_r[] = {0, 1, 3, 8, 33};
    static const size_t n[] = {1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 129, 512};
    for (size_t at = 0; at < N_OF(n_h) * N_OF(n_r) * N_OF(n); at++) {
        sum_case c = make_sums(n_h[at % 4], n_r[at / 4 % 5], n[at / 20], at);
        float *out = rows_alloc(c.n_h * c.n * sizeof *out, 0),
              *cut = rows_alloc(c.n_h * c.n * sizeof *cut, 0);
        const cpu_kernels *k;
        for (size_t t = 0; (k = cpu_kernels_at(t)); t++) {
            run_sums(out, k, &c, false);
            check_sums(k, &c, out);
            run_sums(cut, k, &c, true);
            check_same(k->name, "weighted sum in parts", cut, out, c.n_h * c.n);
        }
        rows_free_to(0);
    }
}

/* ---- packed grids ---- */

typedef enum { FP8, FP4, BF16, N_GRIDS } grid;

static void unpack(const cpu_kernels *k, grid g, float *x, const uint8_t *codes,
                   const uint8_t *scales, size_t n) {
    if (g == FP8)
        k->fp8_unpack(x, codes, scales, n);
    else if (g == FP4)
        k->fp4_unpack(x, codes, scales, n);
    else
        k->bf16_unpack(x, (const uint16_t *)(const void *)codes, n);
}

static void check_unpack(grid g, const uint8_t *codes, const uint8_t *scales, size_t n,
                         size_t slack) {
    static const char *const names[] = {"fp8", "fp4", "bf16"};
    float *expected = rows_alloc(n * sizeof *expected, 0);
    const cpu_kernels *k;
    unpack(cpu_kernels_ref(), g, expected, codes, scales, n);
    for (size_t i = 0; (k = cpu_kernels_at(i)); i++) {
        float *x = guarded(n * sizeof *x, slack * sizeof *x);
        unpack(k, g, x, codes, scales, n);
        check_guards(k->name, x, 1, n * sizeof *x, n * sizeof *x);
        check_same(k->name, names[g], x, expected, n);
    }
}

static void test_unpack_lengths(void **state) {
    (void)state;
    for (size_t n = 0; n < 200; n++)
        for (grid g = 0; g < N_GRIDS; g++) {
            size_t n_codes = g == FP8 ? n : g == FP4 ? (n + 1) / 2 : 2 * n;
            size_t block = g == FP8 ? FP8_BLOCK : FP4_BLOCK, n_scales = (n + block - 1) / block;
            uint8_t *codes = rows_alloc(n_codes, 0), *scales = rows_alloc(n_scales, 0);
            for (size_t i = 0; i < n_codes; i++) codes[i] = (uint8_t)rows_random();
            for (size_t i = 0; i < n_scales; i++) scales[i] = (uint8_t)rows_random();
            check_unpack(g, codes, scales, n, n % 4);
            rows_free_to(0);
        }
}

/* Every code under every scale: 256 bytes hold all pairs of nibbles, too. */
static void test_unpack_all(void **state) {
    (void)state;
    uint8_t codes[256], scales[512 / FP4_BLOCK];
    for (int i = 0; i < 256; i++) codes[i] = (uint8_t)i;
    for (int scale = 0; scale < 256; scale++) {
        memset(scales, scale, sizeof scales);
        check_unpack(FP8, codes, scales, 256, 0);
        check_unpack(FP4, codes, scales, 512, 0);
        rows_free_to(0);
    }
}

/* ---- the tables ---- */

static void test_tables(void **state) {
    (void)state;
    assert_ptr_equal(cpu_kernels_at(0), cpu_kernels_ref());
    assert_null(cpu_kernels_find("no such table"));
    size_t n_types;
    const quant_info *types = quant_table(&n_types);
    const cpu_kernels *k, *last = NULL;
    for (size_t i = 0; (k = cpu_kernels_at(i)); i++) {
        assert_ptr_equal(cpu_kernels_find(k->name), k);
        for (size_t t = 0; t < n_types; t++) {
            assert_true((int)types[t].type < CPU_N_TYPES);
            assert_int_equal(k->decode_row[types[t].type] != NULL, types[t].is_matrix);
            bool is_q8 = types[t].is_matrix && types[t].act != ACT_F32;
            assert_int_equal(k->dot_q8[types[t].type] != NULL, is_q8);
        }
        last = k;
    }
    assert_ptr_equal(cpu_kernels_best(), last);
    assert_int_equal(act_row_bytes(ACT_F32, 3), 12);
    assert_int_equal(act_row_bytes(ACT_Q8_32, 64), 64 + 2 * 4);
    assert_int_equal(act_row_bytes(ACT_Q8_256, 512), 512 + 2 * 4 + 32 * 2);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) return kernel_bench();
    const cpu_kernels *k;
    printf("tables:");
    for (size_t i = 0; (k = cpu_kernels_at(i)); i++) printf(" %s", k->name);
    printf("\n");
    fflush(stdout);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),       cmocka_unit_test(test_dot_values),
        cmocka_unit_test(test_dot_order),    cmocka_unit_test(test_dot_mxfp4_scales),
        cmocka_unit_test(test_dot_empty),    cmocka_unit_test(test_dot_damage),
        cmocka_unit_test(test_decode_row),   cmocka_unit_test(test_decode_all),
        cmocka_unit_test(test_quantize),     cmocka_unit_test(test_quantize_fields),
        cmocka_unit_test(test_weighted_sum), cmocka_unit_test(test_unpack_lengths),
        cmocka_unit_test(test_unpack_all),
    };
    return cmocka_run_group_tests_name("kernels", tests, NULL, NULL);
}
