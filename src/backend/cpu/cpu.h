/* cpu.h - the CPU backend's own state, and what its operation files share. Private to backend/cpu.
 *
 *   Every operation is one function over the kernel table: with kernels_ref it is the scalar definition,
 *   with another table the fast variant of the same text. Work is split over threads by output elements,
 *   never inside a sum, so the number of threads changes nothing.
 *
 *   Owner    The backend owns buffers, slots and scratch; all are allocated by prepare and
 *            buffer_create.
 *   Threads  Operations run on the engine thread and its pool; `worker` picks a scratch area. */
#ifndef DS4_BACKEND_CPU_CPU_H
#define DS4_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "backend/cache_layout.h"
#include "backend/cpu/kernels.h"
#include "base/threads.h"

struct backend_buffer {
    uintptr_t       base; /* 0: the process's own memory; then an offset is an address */
    backend_buffer *next;
};

/* Where the parts of one layer lie in a slot. */
typedef struct {
    size_t   offset[CACHE_N_PARTS];
    size_t   row_bytes[CACHE_N_PARTS];
    uint32_t cap[CACHE_N_PARTS];
} slot_layout;

typedef struct {
    backend           base;
    const cpu_kernels *k;
    threads           *pool;
    backend_buffer    *buffers; /* of buffer_create */
    backend_buffer     process; /* base 0: weights are read where the file is mapped */

    backend_plan  plan;
    cache_layer  *layers; /* [plan.caches.n_layers], owned */
    slot_layout  *layout; /* [plan.caches.n_layers] */
    uint8_t     **slots;  /* [n_slots], each fixed_bytes then the compressed rows */
    size_t        fixed_bytes;
    uint8_t      *shadow; /* [fixed_bytes] of shadow_slot, as it was at step_begin */
    int64_t       shadow_slot; /* -1: nothing saved */

    const step_batch *batch; /* during a step */

    float   *worker_scratch; /* [n_threads][worker_floats] */
    size_t   worker_floats;
    float   *mix;  /* [n_rows][n_mix]: hyper-connection projections */
    float   *head; /* [n_logits][n_embd] */
    uint32_t *pair_row; /* moe: see moe.c */
    uint32_t *pair_of;
    uint32_t *expert_first, *expert_used;
    void     *moe_x, *moe_h;
    float    *moe_up, *moe_y;
    void     *moe_memory;
} cpu_backend;

static inline cpu_backend *cpu_of(backend *b) {
    return (cpu_backend *)b;
}

static inline void *cpu_ptr(dev_ptr p) {
    return p.buffer ? (void *)(p.buffer->base + p.offset) : NULL;
}

static inline float *cpu_scratch(cpu_backend *b, uint32_t worker) {
    return b->worker_scratch + worker * b->worker_floats;
}

/* Runs fn over [0, n) in ranges whose borders are multiples of `unit`. `work` is about the number of
 * multiply-adds of one item: little work stays on the calling thread. */
typedef void (*cpu_range_fn)(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker);
void cpu_for(cpu_backend *b, uint32_t n, uint32_t unit, uint64_t work, cpu_range_fn fn, void *arg);

/* ---- scratch sizes, one function beside each family that needs some ---- */

enum { CPU_W_TILE = 4, CPU_ROW_BLOCK = 256 };

size_t cpu_matmul_floats(const backend_plan *plan);
size_t cpu_attention_floats(const backend_plan *plan);
size_t cpu_index_floats(const backend_plan *plan);
size_t cpu_compress_floats(const backend_plan *plan);
/* All memory of moe.c in one allocation; sets the pointers in b (may be NULL) from `base`. */
size_t cpu_moe_bytes(cpu_backend *b, const backend_plan *plan, uint8_t *base);

/* ---- pieces of operations ---- */

/* out[j * out_stride + i] <- row first_row + i of w times x_j, for i < n_w, j < n_x. x: rows in the form
 * w->act, x_stride bytes apart. Rows of all slices count through. Uses the worker's scratch. */
void cpu_dot_rows(cpu_backend *b, uint32_t worker, float *out, size_t out_stride, const weight *w,
                  size_t first_row, uint32_t n_w, const void *x, size_t x_stride, uint32_t n_x);
/* All rows of w (one slice), split over threads. */
void cpu_matmul(cpu_backend *b, float *out, size_t out_stride, const weight *w, const void *x,
                size_t x_stride, uint32_t n_x);
/* x in the form that w wants, and the bytes of one vector of w->n_in in it. */
const void *cpu_act(const act_rows *x, const weight *w, size_t *vec_bytes);
/* Quantises n_vec rows of x[n] into the kind's layout. */
void cpu_quantize(cpu_backend *b, act_kind kind, void *out, const float *x, uint32_t n_vec, uint32_t n);

/* out[i] <- in[i] * w[i] / rms(in); w may be NULL. In place is fine. */
void cpu_rmsnorm(const cpu_kernels *k, float *out, const float *in, const float *w, uint32_t n,
                 float eps);
/* Rotates and rounds one vector; see rope_args. */
void cpu_rope(float *x, const float *freq, uint32_t n, uint32_t n_rot, uint32_t pos, bool is_inverse,
              rope_grid grid);

/* sum of hc streams with weights pre[S]: x[D] */
void cpu_collapse(float *x, const float *hc, const float *pre, uint32_t n_streams, uint32_t n_embd);

/* The row of a cache part: by position for rings, by row number for arrays. */
static inline void *cpu_cache_row(const cpu_backend *b, uint32_t slot, uint32_t layer, cache_part part,
                                  uint32_t i) {
    const slot_layout *s = &b->layout[layer];
    uint32_t           row = cache_part_is_ring(part) ? i % s->cap[part] : i;
    return b->slots[slot] + s->offset[part] + (size_t)row * s->row_bytes[part];
}

/* cache_kv_load and cache_index_load through the kernel table. */
void cpu_kv_load(const cpu_backend *b, uint32_t layer, float *x, const void *row);
void cpu_index_load(const cpu_backend *b, uint32_t layer, float *x, const void *row);

/* fmaxf and fminf are library calls, as they have to look after NaN; here a NaN gives b, whichever it is. */
static inline float cpu_max(float a, float b) {
    return a > b ? a : b;
}

static inline float cpu_min(float a, float b) {
    return a < b ? a : b;
}

/* ---- the operations ---- */

void cpu_embed(backend *b, const embed_args *a);
void cpu_hc_pre(backend *b, const hc_pre_args *a);
void cpu_norm(backend *b, const norm_args *a);
void cpu_quantize_rows(backend *b, const quantize_args *a);
void cpu_matmul_op(backend *b, const matmul_args *a);
void cpu_rope_op(backend *b, const rope_args *a);
void cpu_kv_append(backend *b, const kv_append_args *a);
void cpu_compress(backend *b, const compress_args *a);
void cpu_index_topk(backend *b, const index_topk_args *a);
void cpu_attention(backend *b, const attention_args *a);
void cpu_router(backend *b, const router_args *a);
void cpu_moe(backend *b, const moe_args *a);
void cpu_hc_post(backend *b, const hc_post_args *a);
void cpu_head(backend *b, const head_args *a);

/* ---- cache.c ---- */

/* Memory of all slots and the shadow. */
ds4_status cpu_caches_create(cpu_backend *b, const cache_plan *plan, ds4_error *err);
void       cpu_caches_destroy(cpu_backend *b);
ds4_status cpu_cache_export(backend *b, uint32_t slot, uint32_t n_pos, cache_sink sink, void *user,
                            ds4_error *err);
ds4_status cpu_cache_import(backend *b, uint32_t slot, uint32_t n_pos, const void *data, size_t n,
                            ds4_error *err);
void       cpu_step_begin(backend *b, const step_batch *batch);
ds4_status cpu_step_end(backend *b, ds4_error *err);
void       cpu_step_abort(backend *b);

ds4_status cpu_backend_open(backend **out, const backend_options *options, ds4_error *err);
uint64_t   cpu_scratch_bytes(const backend_options *options, const backend_plan *plan);

#endif
