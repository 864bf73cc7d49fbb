/* types.h - what the forward pass and every backend have in common: rows, buffers, weights, caches.
 *
 *   step   one forward pass over rows; row r is token `token` at position `pos` of slot `slot`
 *   run    consecutive rows of one slot at consecutive positions: a prompt chunk, or a single row
 *   slot   one sequence's caches, for all layers
 *
 *   Shapes   Last dimension contiguous. Activations are float unless said otherwise. */
#ifndef DS4_BACKEND_TYPES_H
#define DS4_BACKEND_TYPES_H

#include "base/status.h"
#include "quant/quant.h"

typedef struct backend backend;
typedef struct backend_buffer backend_buffer;

/* A place in device memory. The zeroed value is "none". */
typedef struct {
    backend_buffer *buffer;
    size_t          offset; /* bytes */
} dev_ptr;

static inline bool dev_is_set(dev_ptr p) {
    return p.buffer != NULL;
}

static inline dev_ptr dev_add(dev_ptr p, size_t n_bytes) {
    return (dev_ptr){p.buffer, p.offset + n_bytes};
}

/* A bound weight: n_slices matrices [n_out][n_in] (n_slices > 1: stacked experts). */
typedef struct {
    dev_ptr    data;
    quant_type type;
    act_kind   act; /* the form in which a matmul takes its activations */
    uint32_t   n_in, n_out, n_slices;
    size_t     row_bytes;
} weight;

static inline bool weight_is_set(const weight *w) {
    return dev_is_set(w->data);
}

/* Rows of activations [n_vec][n], and the quantised forms that the weights reading them want. */
typedef struct {
    dev_ptr f32;
    dev_ptr q8_32;  /* rows in the layout of ACT_Q8_32; set if asked for */
    dev_ptr q8_256; /* rows in the layout of ACT_Q8_256; set if asked for */
} act_rows;

/* ---- a step ---- */

typedef struct {
    int32_t  token;
    uint32_t slot;
    uint32_t pos;
} step_row;

typedef struct {
    uint32_t first, n; /* rows first .. first + n - 1 */
    uint32_t slot, pos;
    bool     is_prompt; /* GPUs choose the kernel family by it; the CPU does not look */
} step_run;

/* Every row belongs to exactly one run, in order; a slot has at most one run. At most one run is
 * longer than cache_plan.slack. */
typedef struct {
    const step_row *rows;
    const step_run *runs;
    const uint32_t *logit_rows; /* rows whose logits are wanted, ascending */
    uint32_t        n_rows, n_runs, n_logits;
} step_batch;

/* ---- caches ---- */

/* What one layer keeps for each slot. */
typedef struct {
    uint32_t head_dim, rot_dim; /* of window rows and compressed rows */
    uint32_t window;            /* rows a query sees, its own included */
    uint32_t ratio;             /* tokens behind one compressed row; 0: none */
    uint32_t index_dim;         /* width of index rows; 0: none. Set only if the windows overlap */
} cache_layer;

/* Two compressor lanes where windows overlap (ratio 4), else one. */
static inline uint32_t cache_lanes(const cache_layer *l) {
    return l->ratio == 4 ? 2 : 1;
}

typedef struct {
    const cache_layer *layers; /* [n_layers], the MTP block's behind the main ones */
    uint32_t           n_layers;
    uint32_t           n_slots;
    uint32_t           n_ctx; /* positions 0 .. n_ctx - 1 */
    uint32_t           slack; /* positions that a slot can be taken back exactly */
    bool               is_packed; /* rows on the FP8 / FP4 grids; false: floats */
} cache_plan;

/* The largest shapes a backend has to be ready for; nothing is allocated later. */
typedef struct {
    cache_plan caches;
    uint32_t   n_rows;   /* of one step */
    uint32_t   n_logits; /* of one step */
    uint32_t   n_streams, n_embd;
    uint32_t   n_heads, head_dim;
    uint32_t   n_index_heads, index_top_k;
    uint32_t   n_expert, n_expert_used, n_ff;
    uint32_t   n_in_max; /* longest weight row */
    uint32_t   n_mix;    /* outputs of the widest hyper-connection projection */
} backend_plan;

#endif
