/* Weight rows times activation rows: the tile that all operations share, matmul, quantize_rows. */
#include "backend/cpu/cpu.h"

size_t cpu_matmul_floats(const backend_plan *plan) {
    return (size_t)CPU_W_TILE * plan->n_in_max;
}

void cpu_dot_rows(cpu_backend *b, uint32_t worker, float *out, size_t out_stride, const weight *w,
                  size_t first_row, uint32_t n_w, const void *x, size_t x_stride, uint32_t n_x) {
    const uint8_t *rows = (const uint8_t *)cpu_ptr(w->data) + first_row * w->row_bytes;
    cpu_dot_args   dot = {.out = out, .out_stride = out_stride, .w = rows, .w_stride = w->row_bytes,
                          .n_w = n_w, .x = x, .x_stride = x_stride, .n_x = n_x, .n = w->n_in};
    if (w->act != ACT_F32) {
        b->k->dot_q8[w->type](&dot);
        return;
    }

    /* Float activations: the weights become floats, a few rows at a time so that they stay in cache. */
    dot.x_stride = x_stride / sizeof(float);
    if (w->type == QUANT_F32 && (uintptr_t)rows % sizeof(float) == 0) {
        dot.w_stride = w->row_bytes / sizeof(float);
        b->k->dot_f32(&dot);
        return;
    }
    float *tile = cpu_scratch(b, worker);
    dot.w = tile;
    dot.w_stride = w->n_in;
    for (uint32_t i = 0; i < n_w; i += CPU_W_TILE) {
        uint32_t n_now = n_w - i < CPU_W_TILE ? n_w - i : CPU_W_TILE;
        for (uint32_t j = 0; j < n_now; j++)
            b->k->decode_row[w->type](tile + (size_t)j * w->n_in, rows + (i + j) * w->row_bytes, w->n_in);
        dot.out = out + i;
        dot.n_w = n_now;
        b->k->dot_f32(&dot);
    }
}

const void *cpu_act(const act_rows *x, const weight *w, size_t *vec_bytes) {
    *vec_bytes = act_row_bytes(w->act, w->n_in);
    return cpu_ptr(w->act == ACT_F32 ? x->f32 : w->act == ACT_Q8_32 ? x->q8_32 : x->q8_256);
}

typedef struct {
    float         *out;
    size_t         out_stride;
    const weight  *w;
    const uint8_t *x;
    size_t         x_stride, group_bytes;
    uint32_t       n_x, rows_per_group;
} matmul_job;

static void matmul_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    const matmul_job *m = arg;
    for (uint32_t row = first; row < end;) {
        uint32_t group = row / m->rows_per_group;
        uint32_t group_end = (group + 1) * m->rows_per_group;
        uint32_t n = (end < group_end ? end : group_end) - row;
        cpu_dot_rows(b, worker, m->out + row, m->out_stride, m->w, row, n, m->x + group * m->group_bytes,
                     m->x_stride, m->n_x);
        row += n;
    }
}

void cpu_matmul(cpu_backend *b, float *out, size_t out_stride, const weight *w, const void *x,
                size_t x_stride, uint32_t n_x) {
    matmul_job m = {.out = out, .out_stride = out_stride, .w = w, .x = x, .x_stride = x_stride,
                    .n_x = n_x, .rows_per_group = w->n_out};
    cpu_for(b, w->n_out, CPU_W_TILE, (uint64_t)w->n_in * n_x, matmul_range, &m);
}

void cpu_matmul_op(backend *base, const matmul_args *a) {
    cpu_backend  *b = cpu_of(base);
    const weight *w = a->w;
    matmul_job    m = {.out = cpu_ptr(a->out), .out_stride = w->n_out, .w = w, .n_x = a->n_rows,
                       .rows_per_group = w->n_out / a->n_groups};
    m.x = cpu_act(&a->x, w, &m.group_bytes);
    m.x_stride = m.group_bytes * a->n_groups;
    cpu_for(b, w->n_out, CPU_W_TILE, (uint64_t)w->n_in * a->n_rows, matmul_range, &m);
}

typedef struct {
    uint8_t     *out;
    const float *x;
    size_t       row_bytes;
    uint32_t     n;
    void (*fn)(void *row, const float *x, size_t n);
} quantize_job;

static void quantize_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    (void)b, (void)worker;
    const quantize_job *q = arg;
    for (uint32_t i = first; i < end; i++) q->fn(q->out + i * q->row_bytes, q->x + (size_t)i * q->n, q->n);
}

void cpu_quantize(cpu_backend *b, act_kind kind, void *out, const float *x, uint32_t n_vec, uint32_t n) {
    quantize_job q = {.out = out, .x = x, .row_bytes = act_row_bytes(kind, n), .n = n,
                      .fn = kind == ACT_Q8_32 ? b->k->quantize_q8_32 : b->k->quantize_q8_256};
    cpu_for(b, n_vec, 1, n, quantize_range, &q);
}

void cpu_quantize_rows(backend *base, const quantize_args *a) {
    cpu_backend *b = cpu_of(base);
    const float *in = cpu_ptr(a->in);
    if (dev_is_set(a->q8_32)) cpu_quantize(b, ACT_Q8_32, cpu_ptr(a->q8_32), in, a->n_vec, a->n);
    if (dev_is_set(a->q8_256)) cpu_quantize(b, ACT_Q8_256, cpu_ptr(a->q8_256), in, a->n_vec, a->n);
}
