/* The compressor: pools the tokens of a window into one row, and keeps what later rows need. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"

size_t cpu_compress_floats(const backend_plan *plan) {
    uint32_t d_max = 0;
    for (uint32_t i = 0; i < plan->caches.n_layers; i++) {
        const cache_layer *l = &plan->caches.layers[i];
        if (l->head_dim > d_max) d_max = l->head_dim;
        if (l->index_dim > d_max) d_max = l->index_dim;
    }
    return 4 * (size_t)d_max;
}

typedef struct {
    const compress_args *a;
    const cache_layer   *l;
    const step_run      *run;
    const float         *u, *z, *ape, *norm, *freq;
    uint32_t             d, width; /* row width; lanes * d */
    uint32_t             first_window;
    cache_part           part_u, part_z, part_rows;
} compress_job;

/* The value or score of one token: from the step if it is in there, else from the ring. */
static const float *token_u(cpu_backend *b, const compress_job *j, uint32_t pos) {
    if (pos >= j->run->pos) return j->u + (size_t)(j->run->first + pos - j->run->pos) * j->width;
    return cpu_cache_row(b, j->run->slot, j->a->layer, j->part_u, pos);
}

/* score[d] of lane columns `column`.. with ape, which the ring's rows already have */
static void token_z(cpu_backend *b, const compress_job *j, uint32_t pos, uint32_t column, float *score) {
    if (pos < j->run->pos) {
        const float *z = cpu_cache_row(b, j->run->slot, j->a->layer, j->part_z, pos);
        memcpy(score, z + column, j->d * sizeof *score);
        return;
    }
    const float *z = j->z + (size_t)(j->run->first + pos - j->run->pos) * j->width + column;
    const float *ape = j->ape + (size_t)(pos % j->l->ratio) * j->width + column;
    for (uint32_t i = 0; i < j->d; i++) score[i] = z[i] + ape[i];
}

/* pooled[d] of window w: for each channel a softmax over its tokens' scores, in two passes. */
static void pool_window(cpu_backend *b, const compress_job *j, uint32_t w, float *scratch) {
    uint32_t ratio = j->l->ratio, d = j->d;
    float   *pooled = scratch, *score = scratch + d, *max = score + d, *sum = max + d;
    bool     has_two_lanes = cache_lanes(j->l) == 2;
    /* With two lanes the tokens of the window before (if there is one) give their first lane, those of
     * this window their second. */
    uint32_t start = ratio * (has_two_lanes && w > 0 ? w - 1 : w), end = ratio * (w + 1);

    for (uint32_t i = 0; i < d; i++) max[i] = -INFINITY, sum[i] = pooled[i] = 0;
    for (uint32_t p = start; p < end; p++) {
        token_z(b, j, p, has_two_lanes && p >= ratio * w ? d : 0, score);
        for (uint32_t i = 0; i < d; i++) max[i] = cpu_max(score[i], max[i]);
    }
    for (uint32_t p = start; p < end; p++) {
        uint32_t     column = has_two_lanes && p >= ratio * w ? d : 0;
        const float *u = token_u(b, j, p) + column;
        token_z(b, j, p, column, score);
        for (uint32_t i = 0; i < d; i++) {
            float e = expf(score[i] - max[i]);
            sum[i] += e;
            pooled[i] += e * u[i];
        }
    }
    for (uint32_t i = 0; i < d; i++) pooled[i] /= sum[i];
}

static void compress_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    const compress_job *j = arg;
    float              *row = cpu_scratch(b, worker);
    bool                is_packed = b->plan.caches.is_packed;
    for (uint32_t i = first; i < end; i++) {
        uint32_t  w = j->first_window + i;
        void     *to = cpu_cache_row(b, j->run->slot, j->a->layer, j->part_rows, w);
        rope_grid grid = !is_packed ? GRID_NONE : j->a->is_index ? GRID_FP4 : GRID_FP8;
        pool_window(b, j, w, row);
        cpu_rmsnorm(b->k, row, row, j->norm, j->d, j->a->eps);
        cpu_rope(row, j->freq, j->d, j->a->n_rot, w * j->l->ratio, false, grid);
        if (j->a->is_index) cache_index_store(to, row, j->l, is_packed);
        else cache_kv_store(to, row, j->l, is_packed);
    }
}

/* What later windows need of this step's tokens: as much as the rings hold. */
static void keep_tail(cpu_backend *b, const compress_job *j) {
    uint32_t cap = b->layout[j->a->layer].cap[j->part_u], n = j->run->n;
    for (uint32_t i = n > cap ? n - cap : 0; i < n; i++) {
        uint32_t pos = j->run->pos + i;
        float   *u = cpu_cache_row(b, j->run->slot, j->a->layer, j->part_u, pos);
        float   *z = cpu_cache_row(b, j->run->slot, j->a->layer, j->part_z, pos);
        memcpy(u, token_u(b, j, pos), j->width * sizeof *u);
        for (uint32_t column = 0; column < j->width; column += j->d) token_z(b, j, pos, column, z + column);
    }
}

void cpu_compress(backend *base, const compress_args *a) {
    cpu_backend       *b = cpu_of(base);
    const cache_layer *l = &b->layers[a->layer];
    compress_job       j = {.a = a, .l = l, .d = a->is_index ? l->index_dim : l->head_dim};
    j.u = cpu_ptr(a->u), j.z = cpu_ptr(a->z), j.ape = cpu_ptr(a->ape);
    j.norm = cpu_ptr(a->norm), j.freq = cpu_ptr(a->freq);
    j.width = cache_lanes(l) * j.d;
    j.part_u = a->is_index ? CACHE_INDEX_U : CACHE_U;
    j.part_z = a->is_index ? CACHE_INDEX_Z : CACHE_Z;
    j.part_rows = a->is_index ? CACHE_INDEX_ROWS : CACHE_ROWS;

    for (uint32_t i = 0; i < b->batch->n_runs; i++) {
        j.run = &b->batch->runs[i];
        j.first_window = j.run->pos / l->ratio;
        uint32_t n_windows = (j.run->pos + j.run->n) / l->ratio - j.first_window;
        uint64_t work = (uint64_t)l->ratio * cache_lanes(l) * j.d * 10;
        cpu_for(b, n_windows, 1, work, compress_range, &j);
        keep_tail(b, &j);
    }
}
