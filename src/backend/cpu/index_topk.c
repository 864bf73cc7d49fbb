/* The lightning indexer: which compressed rows a query attends to. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"

static uint32_t max_index_rows(const backend_plan *plan) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < plan->caches.n_layers; i++) {
        uint32_t cap = cache_part_cap(&plan->caches, &plan->caches.layers[i], CACHE_INDEX_ROWS);
        if (cap > n) n = cap;
    }
    return n;
}

static uint32_t max_index_dim(const backend_plan *plan) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < plan->caches.n_layers; i++)
        if (plan->caches.layers[i].index_dim > n) n = plan->caches.layers[i].index_dim;
    return n;
}

size_t cpu_index_floats(const backend_plan *plan) {
    if (max_index_dim(plan) == 0) return 0;
    return 2 * (size_t)max_index_rows(plan) + (size_t)CPU_ROW_BLOCK * max_index_dim(plan) +
           (size_t)CPU_ROW_BLOCK * plan->n_index_heads;
}

/* The k-th largest of v[n], 1 <= k <= n, no NaN; v is reordered. Quickselect, median of three. */
static float kth_largest(float *v, int64_t n, int64_t k) {
    int64_t lo = 0, hi = n - 1, at = k - 1;
    while (lo < hi) {
        float   a = v[lo], b = v[lo + (hi - lo) / 2], c = v[hi];
        float   pivot = fmaxf(fminf(a, b), fminf(fmaxf(a, b), c));
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (v[i] > pivot) i++;
            while (v[j] < pivot) j--;
            if (i > j) break;
            float t = v[i];
            v[i++] = v[j];
            v[j--] = t;
        }
        /* v[lo..j] >= pivot, v[i..hi] <= pivot, anything between is the pivot. */
        if (at <= j) hi = j;
        else if (at >= i) lo = i;
        else break;
    }
    return v[at];
}

typedef struct {
    const index_topk_args *a;
    const float           *q, *w;
    int32_t               *sel;
} topk_job;

/* score[c] = sum over heads of w[h] * max(0, q[h] . row c), for c < n_rows */
static void score_rows(cpu_backend *b, const topk_job *j, uint32_t row, uint32_t n_rows, float *score,
                       float *keys, float *dots) {
    const index_topk_args *a = j->a;
    uint32_t               dim = b->layers[a->layer].index_dim, n_heads = a->n_heads;
    const float           *w = j->w + (size_t)row * n_heads;
    for (uint32_t c0 = 0; c0 < n_rows; c0 += CPU_ROW_BLOCK) {
        uint32_t n = n_rows - c0 < CPU_ROW_BLOCK ? n_rows - c0 : CPU_ROW_BLOCK;
        for (uint32_t c = 0; c < n; c++) {
            const void *key =
                cpu_cache_row(b, b->batch->rows[row].slot, a->layer, CACHE_INDEX_ROWS, c0 + c);
            cpu_index_load(b, a->layer, keys + (size_t)c * dim, key);
        }
        b->k->dot_f32(&(cpu_dot_args){.out = dots, .out_stride = n_heads,
                                      .w = j->q + (size_t)row * n_heads * dim, .w_stride = dim,
                                      .n_w = n_heads, .x = keys, .x_stride = dim, .n_x = n, .n = dim});
        for (uint32_t c = 0; c < n; c++) {
            float sum = 0;
            for (uint32_t h = 0; h < n_heads; h++) {
                float dot = dots[(size_t)c * n_heads + h];
                sum += w[h] * a->scale * (dot > 0 ? dot : 0);
            }
            score[c0 + c] = isnan(sum) ? -INFINITY : sum;
        }
    }
}

static void topk_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    const topk_job    *j = arg;
    const cache_layer *l = &b->layers[j->a->layer];
    uint32_t           top_k = j->a->top_k, max_rows = max_index_rows(&b->plan);
    for (uint32_t row = first; row < end; row++) {
        int32_t *sel = j->sel + (size_t)row * top_k;
        uint32_t n_rows = (b->batch->rows[row].pos + 1) / l->ratio, n = 0;
        if (n_rows <= top_k) {
            for (; n < n_rows; n++) sel[n] = (int32_t)n;
        } else {
            float *score = cpu_scratch(b, worker), *sorted = score + max_rows;
            float *keys = sorted + max_rows, *dots = keys + (size_t)CPU_ROW_BLOCK * l->index_dim;
            score_rows(b, j, row, n_rows, score, keys, dots);
            memcpy(sorted, score, n_rows * sizeof *score);
            float    limit = kth_largest(sorted, n_rows, top_k);
            uint32_t n_above = 0;
            for (uint32_t c = 0; c < n_rows; c++) n_above += score[c] > limit;
            /* Of the rows at the limit the lower ones fill the places left. */
            uint32_t n_equal = top_k - n_above;
            for (uint32_t c = 0; c < n_rows; c++) {
                if (score[c] > limit) sel[n++] = (int32_t)c;
                else if (score[c] == limit && n_equal > 0) sel[n++] = (int32_t)c, n_equal--;
            }
        }
        for (; n < top_k; n++) sel[n] = -1;
    }
}

void cpu_index_topk(backend *base, const index_topk_args *a) {
    cpu_backend       *b = cpu_of(base);
    const cache_layer *l = &b->layers[a->layer];
    topk_job           j = {a, cpu_ptr(a->q), cpu_ptr(a->w), cpu_ptr(a->sel)};
    uint32_t           last = 0;
    for (uint32_t i = 0; i < b->batch->n_rows; i++)
        if (b->batch->rows[i].pos > last) last = b->batch->rows[i].pos;
    uint64_t n_scored = last / l->ratio > a->top_k ? last / l->ratio : 0;
    cpu_for(b, b->batch->n_rows, 1, a->top_k + n_scored * a->n_heads * l->index_dim, topk_range, &j);
}
