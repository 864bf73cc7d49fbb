/* Attention of each query over its window and compressed rows; one key-value head for all heads. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"

/* Heads of one query are split over threads when rows alone do not keep them busy. */
static uint32_t heads_per_part(uint32_t n_heads, uint32_t n_rows, uint32_t n_threads) {
    if (n_threads == 1 || n_rows >= 2 * n_threads) return n_heads;
    return (n_heads + n_threads - 1) / n_threads;
}

/* The most rows that a query of any layer attends to. */
static uint32_t max_attended(const backend_plan *plan) {
    uint32_t max = 0;
    for (uint32_t i = 0; i < plan->caches.n_layers; i++) {
        const cache_layer *l = &plan->caches.layers[i];
        uint32_t           n_rows = cache_part_cap(&plan->caches, l, CACHE_ROWS);
        if (l->index_dim && n_rows > plan->index_top_k) n_rows = plan->index_top_k;
        if (l->window + n_rows > max) max = l->window + n_rows;
    }
    return max;
}

size_t cpu_attention_floats(const backend_plan *plan) {
    return (size_t)CPU_ROW_BLOCK * plan->head_dim + (size_t)max_attended(plan) * plan->n_heads;
}

typedef struct {
    const attention_args *a;
    const float          *q, *kv, *sinks;
    const int32_t        *sel;
    float                *out;
    uint32_t              n_heads_part, n_parts; /* of one query */
} attention_job;

/* The rows of one query, in the fixed order of the sums: window by position, then compressed by row. */
typedef struct {
    const step_run *run;
    const int32_t  *sel;
    uint32_t        first_pos, n_window, n_rows;
} attended;

static attended attended_rows(cpu_backend *b, const attention_job *j, uint32_t row, const step_run *run) {
    const cache_layer *l = &b->layers[j->a->layer];
    uint32_t           pos = b->batch->rows[row].pos;
    attended           t = {.run = run};
    t.n_window = pos + 1 < l->window ? pos + 1 : l->window;
    t.first_pos = pos + 1 - t.n_window;
    uint32_t n_compressed = l->ratio ? (pos + 1) / l->ratio : 0;
    if (j->sel && l->ratio) {
        t.sel = j->sel + (size_t)row * j->a->top_k;
        if (n_compressed > j->a->top_k) n_compressed = j->a->top_k;
    }
    t.n_rows = t.n_window + n_compressed;
    return t;
}

/* Rows first .. first + n - 1 of the query as floats. */
static void load_rows(cpu_backend *b, const attention_job *j, const attended *t, uint32_t first,
                      uint32_t n, float *rows) {
    uint32_t layer = j->a->layer, dim = b->layers[layer].head_dim;
    for (uint32_t i = 0; i < n; i++, rows += dim) {
        uint32_t at = first + i;
        if (at < t->n_window) {
            uint32_t pos = t->first_pos + at;
            if (pos >= t->run->pos)
                memcpy(rows, j->kv + (size_t)(t->run->first + pos - t->run->pos) * dim,
                       dim * sizeof *rows);
            else cpu_kv_load(b, layer, rows, cpu_cache_row(b, t->run->slot, layer, CACHE_WINDOW, pos));
        } else {
            uint32_t c = at - t->n_window;
            if (t->sel) c = (uint32_t)t->sel[c];
            cpu_kv_load(b, layer, rows, cpu_cache_row(b, t->run->slot, layer, CACHE_ROWS, c));
        }
    }
}

/* p[n] <- exp(p - max) / den, the sink being one more score of the denominator. */
static void softmax_with_sink(float *p, uint32_t n, float sink) {
    float max = sink, den = 0;
    for (uint32_t i = 0; i < n; i++) max = cpu_max(p[i], max);
    for (uint32_t i = 0; i < n; i++) den += p[i] = expf(p[i] - max);
    den += expf(sink - max);
    for (uint32_t i = 0; i < n; i++) p[i] /= den;
}

static void attend(cpu_backend *b, const attention_job *j, uint32_t row, const step_run *run,
                   uint32_t first_head, uint32_t n_heads, uint32_t worker) {
    uint32_t     dim = b->layers[j->a->layer].head_dim;
    float        scale = 1.0f / sqrtf((float)dim);
    attended     t = attended_rows(b, j, row, run);
    float       *rows = cpu_scratch(b, worker), *p = rows + (size_t)CPU_ROW_BLOCK * dim;
    size_t       at_head = ((size_t)row * j->a->n_heads + first_head) * dim;
    float       *out = j->out + at_head;

    /* 1. scores p[head][row] */
    for (uint32_t r = 0; r < t.n_rows; r += CPU_ROW_BLOCK) {
        uint32_t n = t.n_rows - r < CPU_ROW_BLOCK ? t.n_rows - r : CPU_ROW_BLOCK;
        load_rows(b, j, &t, r, n, rows);
        b->k->dot_f32(&(cpu_dot_args){.out = p + r, .out_stride = t.n_rows, .w = rows, .w_stride = dim,
                                      .n_w = n, .x = j->q + at_head, .x_stride = dim, .n_x = n_heads,
                                      .n = dim});
    }
    for (uint32_t h = 0; h < n_heads; h++) {
        float *ph = p + (size_t)h * t.n_rows;
        for (uint32_t r = 0; r < t.n_rows; r++) ph[r] *= scale;
        softmax_with_sink(ph, t.n_rows, j->sinks[first_head + h]);
    }

    /* 2. weighted sum of the same rows; a single block is still there */
    memset(out, 0, (size_t)n_heads * dim * sizeof *out);
    for (uint32_t r = 0; r < t.n_rows; r += CPU_ROW_BLOCK) {
        uint32_t n = t.n_rows - r < CPU_ROW_BLOCK ? t.n_rows - r : CPU_ROW_BLOCK;
        if (t.n_rows > CPU_ROW_BLOCK) load_rows(b, j, &t, r, n, rows);
        b->k->weighted_sum(out, dim, p + r, t.n_rows, n_heads, rows, dim, n, dim);
    }
}

/* Part i: query i / n_parts, group of heads i % n_parts. */
static void attention_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    const attention_job *j = arg;
    const step_run      *run = b->batch->runs;
    for (uint32_t i = first; i < end; i++) {
        uint32_t row = i / j->n_parts, head = i % j->n_parts * j->n_heads_part;
        uint32_t n_left = j->a->n_heads - head;
        while (row >= run->first + run->n) run++;
        attend(b, j, row, run, head, n_left < j->n_heads_part ? n_left : j->n_heads_part, worker);
    }
}

void cpu_attention(backend *base, const attention_args *a) {
    cpu_backend       *b = cpu_of(base);
    const cache_layer *l = &b->layers[a->layer];
    attention_job      j = {.a = a, .q = cpu_ptr(a->q), .kv = cpu_ptr(a->kv), .sinks = cpu_ptr(a->sinks),
                            .sel = cpu_ptr(a->sel), .out = cpu_ptr(a->out)};
    j.n_heads_part = heads_per_part(a->n_heads, b->batch->n_rows, threads_count(b->pool));
    j.n_parts = (a->n_heads + j.n_heads_part - 1) / j.n_heads_part;
    uint64_t work = (uint64_t)l->window * l->head_dim * (2 * j.n_heads_part + 4);
    cpu_for(b, b->batch->n_rows * j.n_parts, 1, work, attention_range, &j);
}
