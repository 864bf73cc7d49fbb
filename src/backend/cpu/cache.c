/* Slots of the CPU backend: one block of memory each, so that the rings are saved by one copy. */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"

/* The fixed parts of all layers come first. */
static void plan_layout(cpu_backend *b) {
    const cache_plan *plan = &b->plan.caches;
    size_t            offset = 0;
    for (int rings = 1; rings >= 0; rings--) {
        for (uint32_t i = 0; i < plan->n_layers; i++) {
            for (cache_part part = 0; part < CACHE_N_PARTS; part++) {
                if (cache_part_is_ring(part) != (rings == 1)) continue;
                slot_layout *s = &b->layout[i];
                s->offset[part] = offset;
                s->cap[part] = cache_part_cap(plan, &plan->layers[i], part);
                s->row_bytes[part] = cache_part_row_bytes(plan, &plan->layers[i], part);
                offset += s->cap[part] * s->row_bytes[part];
            }
        }
        if (rings) b->fixed_bytes = offset;
    }
}

ds4_status cpu_caches_create(cpu_backend *b, const cache_plan *plan, ds4_error *err) {
    b->layers = calloc(plan->n_layers + 1, sizeof *b->layers);
    b->layout = calloc(plan->n_layers + 1, sizeof *b->layout);
    b->slots = calloc(plan->n_slots, sizeof *b->slots);
    if (!b->layers || !b->layout || !b->slots) return ds4_fail_nomem(err, "cpu: cache layout", 0);
    memcpy(b->layers, plan->layers, plan->n_layers * sizeof *b->layers);
    b->plan.caches = *plan;
    b->plan.caches.layers = b->layers;
    plan_layout(b);

    uint64_t n_bytes = cache_fixed_bytes(plan) + cache_rows_bytes(plan);
    if (n_bytes > SIZE_MAX / 2) return ds4_fail_nomem(err, "cpu: KV cache of one session", SIZE_MAX);
    /* calloc of this size takes fresh pages from the system: rows cost memory when they are written. */
    for (uint32_t i = 0; i < plan->n_slots; i++) {
        b->slots[i] = calloc(1, n_bytes + 1);
        if (!b->slots[i]) return ds4_fail_nomem(err, "cpu: KV cache of one session", n_bytes);
    }
    b->shadow = malloc(b->fixed_bytes + 1);
    if (!b->shadow) return ds4_fail_nomem(err, "cpu: KV cache shadow", b->fixed_bytes);
    b->shadow_slot = -1;
    return DS4_OK;
}

void cpu_caches_destroy(cpu_backend *b) {
    for (uint32_t i = 0; b->slots && i < b->plan.caches.n_slots; i++) free(b->slots[i]);
    free(b->slots);
    free(b->shadow);
    free(b->layers);
    free(b->layout);
}

void cpu_step_begin(backend *base, const step_batch *batch) {
    cpu_backend *b = cpu_of(base);
    b->batch = batch;
    b->shadow_slot = -1;
    /* A run of at most `slack` rows overwrites nothing that is needed at its start; a longer one does,
     * so its slot's rings are kept aside for step_abort. */
    for (uint32_t i = 0; i < batch->n_runs; i++) {
        const step_run *run = &batch->runs[i];
        if (run->n <= b->plan.caches.slack || run->pos == 0) continue;
        b->shadow_slot = run->slot;
        memcpy(b->shadow, b->slots[run->slot], b->fixed_bytes);
    }
}

ds4_status cpu_step_end(backend *base, ds4_error *err) {
    (void)err; /* nothing on this device can fail inside a step */
    cpu_of(base)->batch = NULL;
    return DS4_OK;
}

void cpu_step_abort(backend *base) {
    cpu_backend *b = cpu_of(base);
    if (b->shadow_slot >= 0) memcpy(b->slots[b->shadow_slot], b->shadow, b->fixed_bytes);
    b->shadow_slot = -1;
    b->batch = NULL;
}

/* Calls fn for each stretch of contiguous rows of the exported stream, in its order. */
typedef ds4_status (*stretch_fn)(void *user, uint8_t *rows, size_t n_bytes, ds4_error *err);

static ds4_status for_stretches(cpu_backend *b, uint32_t slot, uint32_t n_pos, stretch_fn fn, void *user,
                                ds4_error *err) {
    const cache_plan *plan = &b->plan.caches;
    for (uint32_t i = 0; i < plan->n_layers; i++) {
        for (cache_part part = 0; part < CACHE_N_PARTS; part++) {
            uint32_t at, n;
            cache_part_held(plan, &plan->layers[i], part, n_pos, &at, &n);
            while (n > 0) {
                const slot_layout *s = &b->layout[i];
                uint32_t to_wrap = cache_part_is_ring(part) ? s->cap[part] - at % s->cap[part] : n;
                uint32_t n_now = n < to_wrap ? n : to_wrap;
                DS4_TRY(fn(user, cpu_cache_row(b, slot, i, part, at), n_now * s->row_bytes[part], err));
                at += n_now;
                n -= n_now;
            }
        }
    }
    return DS4_OK;
}

typedef struct {
    cache_sink sink;
    void      *user;
} export_state;

static ds4_status export_stretch(void *user, uint8_t *rows, size_t n_bytes, ds4_error *err) {
    export_state *e = user;
    return e->sink(e->user, rows, n_bytes, err);
}

ds4_status cpu_cache_export(backend *base, uint32_t slot, uint32_t n_pos, cache_sink sink, void *user,
                            ds4_error *err) {
    export_state e = {sink, user};
    return for_stretches(cpu_of(base), slot, n_pos, export_stretch, &e, err);
}

static ds4_status import_stretch(void *user, uint8_t *rows, size_t n_bytes, ds4_error *err) {
    (void)err;
    const uint8_t **data = user;
    memcpy(rows, *data, n_bytes);
    *data += n_bytes;
    return DS4_OK;
}

ds4_status cpu_cache_import(backend *base, uint32_t slot, uint32_t n_pos, const void *data, size_t n,
                            ds4_error *err) {
    cpu_backend *b = cpu_of(base);
    uint64_t     n_expected = cache_stream_bytes(&b->plan.caches, n_pos);
    if (n_pos > b->plan.caches.n_ctx)
        return ds4_fail(err, DS4_EFULL, "cache: %u positions, the context holds %u", n_pos,
                        b->plan.caches.n_ctx);
    if (n != n_expected)
        return ds4_fail(err, DS4_EFORMAT, "cache: %zu bytes for %u positions, expected %llu", n, n_pos,
                        (unsigned long long)n_expected);
    const uint8_t *at = data;
    return for_stretches(b, slot, n_pos, import_stretch, &at, err);
}

void cpu_kv_load(const cpu_backend *b, uint32_t layer, float *x, const void *row) {
    const cache_layer *l = &b->layers[layer];
    if (!b->plan.caches.is_packed) {
        memcpy(x, row, l->head_dim * sizeof *x);
        return;
    }
    uint32_t       n_codes = l->head_dim - l->rot_dim;
    const uint8_t *codes = row, *rotary = codes + n_codes;
    b->k->fp8_unpack(x, codes, rotary + l->rot_dim * sizeof(uint16_t), n_codes);
    b->k->bf16_unpack(x + n_codes, (const uint16_t *)(const void *)rotary, l->rot_dim);
}

void cpu_index_load(const cpu_backend *b, uint32_t layer, float *x, const void *row) {
    const cache_layer *l = &b->layers[layer];
    const uint8_t     *codes = row;
    if (b->plan.caches.is_packed)
        b->k->fp4_unpack(x, codes, codes + (l->index_dim + 1) / 2, l->index_dim);
    else memcpy(x, row, l->index_dim * sizeof *x);
}

void cpu_kv_append(backend *base, const kv_append_args *a) {
    cpu_backend       *b = cpu_of(base);
    const cache_layer *l = &b->layers[a->layer];
    const float       *kv = cpu_ptr(a->kv);
    uint32_t           cap = b->layout[a->layer].cap[CACHE_WINDOW];
    for (uint32_t i = 0; i < b->batch->n_runs; i++) {
        const step_run *run = &b->batch->runs[i];
        /* A run longer than the ring would overwrite its own start: only the tail is stored. */
        uint32_t first = run->n > cap ? run->n - cap : 0;
        for (uint32_t j = first; j < run->n; j++) {
            void *row = cpu_cache_row(b, run->slot, a->layer, CACHE_WINDOW, run->pos + j);
            cache_kv_store(row, kv + (size_t)(run->first + j) * l->head_dim, l,
                           b->plan.caches.is_packed);
        }
    }
}
