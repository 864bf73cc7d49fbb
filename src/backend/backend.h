/* backend.h - the table of functions a device offers: memory, weights, caches, and 13 operations.
 *
 *   The forward pass (model/forward.c) is written once against this table. Formulas, shapes and bounds
 *   of every operation stand in docs/ops.md; the CPU backend over its scalar kernels is their
 *   definition.
 *
 *   Owner    backend_open creates, close destroys everything that came from the backend.
 *   Threads  The engine thread. Work may run elsewhere; step_end waits for it.
 *   Errors   Functions that return ds4_status report at once. Operations return nothing: a failure
 *            inside a step is kept by the device and reported by step_end, and shapes are the caller's
 *            promise, checked by assertions.
 *   Rule     Between step_begin and step_end nothing is allocated and nothing is read back. A row's
 *            result does not depend on rows of other slots, on the number of rows or on threads. */
#ifndef DS4_BACKEND_BACKEND_H
#define DS4_BACKEND_BACKEND_H

#include "backend/types.h"

/* ---- arguments of the operations --------------------------------------------------------------
 * Rows, runs, tokens and positions come from the batch of the step. R = n_rows. */

/* out[R][n_streams][n_embd] <- row of the table for each token, the same in every stream. */
typedef struct {
    dev_ptr       out;
    const weight *table;
    uint32_t      n_streams;
} embed_args;

/* Parameters of one hyper-connection site. */
typedef struct {
    weight   fn;          /* [2S + S*S][S*D]; of a head: [S][S*D] */
    dev_ptr  base, scale; /* [2S + S*S], [3]; of a head: [S], [1] */
    uint32_t n_streams, n_embd, n_iters;
    float    eps, eps_hc;
} hc_params;

/* x[R][D] <- norm(sum of pre[s] * hc[s]), mix[R][S + S*S] <- post, comb. */
typedef struct {
    dev_ptr          x, mix;
    dev_ptr          hc; /* [R][S][D] */
    const hc_params *hc_site;
    dev_ptr          norm; /* [D] */
    float            eps;
} hc_pre_args;

/* hc[t] <- post[t] * y + sum over s of comb[s][t] * hc[s], in place. */
typedef struct {
    dev_ptr  hc;  /* [R][S][D] */
    dev_ptr  y;   /* [R][D] */
    dev_ptr  mix; /* [R][S + S*S]; none: post = 1 and comb = identity */
    uint32_t n_streams, n_embd;
} hc_post_args;

/* out[v] <- RMSNorm(in[v]) * w for n_vec vectors of n; w none: without weight. May be in place. */
typedef struct {
    dev_ptr  out, in, w;
    uint32_t n_vec, n;
    float    eps;
} norm_args;

/* The quantised forms of in[n_vec][n]; either output may be none. */
typedef struct {
    dev_ptr  q8_32, q8_256;
    dev_ptr  in;
    uint32_t n_vec, n;
} quantize_args;

/* out[R][n_groups][n_out / n_groups] <- group g of w times group g of x[R][n_groups][n_in]. */
typedef struct {
    dev_ptr       out;
    act_rows      x;
    const weight *w;
    uint32_t      n_rows;
    uint32_t      n_groups; /* 1: an ordinary matmul */
} matmul_args;

/* What is done to a vector after its rotation. GRID_FP8 rounds the part before the rotary dimensions to
 * FP8 and the rotary part to BF16; GRID_FP4 applies Hadamard and FP4 to the whole vector. */
typedef enum { GRID_NONE, GRID_FP8, GRID_FP4 } rope_grid;

/* Rotates the last n_rot of each vector x[R][n_heads][n] by its row's position, in place. */
typedef struct {
    dev_ptr   x;
    dev_ptr   freq; /* [n_rot / 2] radians per position */
    uint32_t  n_heads, n, n_rot;
    bool      is_inverse;
    rope_grid grid;
} rope_args;

/* Stores kv[R][head_dim] as the window rows of the step's positions. */
typedef struct {
    uint32_t layer;
    dev_ptr  kv;
} kv_append_args;

/* Pools u, z [R][lanes * d] into every compressed row that closes in this step, and keeps what later
 * rows need. */
typedef struct {
    uint32_t layer;
    bool     is_index; /* the indexer's rows; else the attention's */
    dev_ptr  u, z;     /* values, scores without ape */
    dev_ptr  ape;      /* [ratio][lanes * d] */
    dev_ptr  norm;     /* [d] */
    dev_ptr  freq;
    uint32_t n_rot;
    float    eps;
} compress_args;

/* sel[R][top_k] <- the visible index rows of the largest scores, ascending, then -1. Equal scores: the
 * lower row. */
typedef struct {
    uint32_t layer;
    dev_ptr  sel; /* int32 */
    dev_ptr  q;   /* [R][n_heads][index_dim] */
    dev_ptr  w;   /* [R][n_heads], without scale */
    uint32_t n_heads, top_k;
    float    scale; /* of w */
} index_topk_args;

/* out[R][n_heads][head_dim] <- attention of q over the window (older rows from the cache, the step's own
 * from kv, before kv_append), and the compressed rows: those of sel, or all visible ones. */
typedef struct {
    uint32_t layer;
    dev_ptr  out, q;
    dev_ptr  kv;    /* [R][head_dim] */
    dev_ptr  sel;   /* [R][top_k]; none: all */
    dev_ptr  sinks; /* [n_heads] */
    uint32_t n_heads, top_k;
} attention_args;

typedef enum { ROUTER_SOFTMAX = 1, ROUTER_SIGMOID = 2, ROUTER_SQRT_SOFTPLUS = 4 } router_score;

/* ids[R][k], weights[R][k] of the chosen experts, from logits[R][n_expert]. */
typedef struct {
    dev_ptr      ids, weights; /* int32, float */
    dev_ptr      logits;
    dev_ptr      bias;    /* [n_expert], for the choice only; none: no bias */
    dev_ptr      tid2eid; /* int32 [n_vocab][k]: the choice by token; none: by score */
    uint32_t     n_expert, k;
    router_score score;
    bool         is_normed; /* weights divided by their sum */
    float        scale;
} router_args;

typedef struct {
    weight gate, up, down;
} ffn_weights;

/* out[R][D] <- sum over k of the chosen experts + the shared one. */
typedef struct {
    dev_ptr            out;
    act_rows           x;
    dev_ptr            ids, weights;
    const ffn_weights *experts;
    const ffn_weights *shared;
    uint32_t           k;
    float              clamp, clamp_shared; /* <= 0: no clamp */
} moe_args;

/* logits[n_logits][n_vocab] <- of the batch's logit rows of hc[R][S][D]. */
typedef struct {
    dev_ptr          logits;
    dev_ptr          hc;
    const hc_params *hc_site;
    dev_ptr          norm;
    const weight    *output;
    float            eps;
} head_args;

/* ---- the table --------------------------------------------------------------------------------- */

/* A tensor in host memory that lives as long as the backend (a mapped file, or an arena). */
typedef struct {
    const char *name;
    quant_type  type;
    const void *data;
    size_t      n_bytes;
    uint32_t    n_in, n_out, n_slices;
} tensor_source;

/* Takes n bytes of an exported cache, in order; another status than DS4_OK ends the export. */
typedef ds4_status (*cache_sink)(void *user, const void *data, size_t n, ds4_error *err);

typedef struct {
    const char *name; /* "cpu" */

    /* ---- device ---- */
    void (*close)(backend *b);
    /* The instruction set or device, for people. */
    const char *(*describe)(const backend *b);
    /* Allocates caches and private scratch for shapes up to the plan; once, before the first step. */
    ds4_status (*prepare)(backend *b, const backend_plan *plan, ds4_error *err);
    /* Zeroed memory; ends with the backend. */
    ds4_status (*buffer_create)(backend *b, dev_ptr *out, size_t n_bytes, ds4_error *err);
    /* Makes a tensor readable for operations: zero-copy if it can, else a copy. `act` is the form of
     * activations that its matmuls take. */
    ds4_status (*bind)(backend *b, weight *out, const tensor_source *source, act_kind act,
                       ds4_error *err);
    /* Outside steps, or between operations of one (then in their order). */
    void (*copy)(backend *b, dev_ptr to, dev_ptr from, size_t n_bytes);
    /* Outside steps. */
    void (*read)(backend *b, void *to, dev_ptr from, size_t n_bytes);
    void (*write)(backend *b, dev_ptr to, const void *from, size_t n_bytes);

    /* ---- caches of a slot, outside steps ----
     * Caches keep no count of positions: what a row may see follows from its position alone. So a slot
     * is emptied by going on at position 0, and rewound by going on at an earlier position, exactly if
     * that is at most cache_plan.slack below the highest it ever held (cache_layout.h). */

    /* All state after positions 0 .. n_pos - 1, in a layout that depends on the cache plan alone
     * (backend/cache_layout.h), not on the device. */
    ds4_status (*cache_export)(backend *b, uint32_t slot, uint32_t n_pos, cache_sink sink, void *user,
                               ds4_error *err);
    /* data: n bytes as exported; DS4_EFORMAT if n is not what n_pos asks for: nothing is changed. */
    ds4_status (*cache_import)(backend *b, uint32_t slot, uint32_t n_pos, const void *data, size_t n,
                               ds4_error *err);

    /* ---- steps ---- */

    /* `batch` is borrowed until step_end or step_abort. */
    void (*step_begin)(backend *b, const step_batch *batch);
    /* Waits; the first failure of the step's operations. Caches are then as after step_abort. */
    ds4_status (*step_end)(backend *b, ds4_error *err);
    /* Instead of step_end: caches become what they were at step_begin. */
    void (*step_abort)(backend *b);

    /* ---- operations ---- */
    void (*embed)(backend *b, const embed_args *a);
    void (*hc_pre)(backend *b, const hc_pre_args *a);
    void (*norm)(backend *b, const norm_args *a);
    void (*quantize_rows)(backend *b, const quantize_args *a);
    void (*matmul)(backend *b, const matmul_args *a);
    void (*rope)(backend *b, const rope_args *a);
    void (*kv_append)(backend *b, const kv_append_args *a);
    void (*compress)(backend *b, const compress_args *a);
    void (*index_topk)(backend *b, const index_topk_args *a);
    void (*attention)(backend *b, const attention_args *a);
    void (*router)(backend *b, const router_args *a);
    void (*moe)(backend *b, const moe_args *a);
    void (*hc_post)(backend *b, const hc_post_args *a);
    void (*head)(backend *b, const head_args *a);
} backend_ops;

/* Every backend's own struct begins with this. */
struct backend {
    const backend_ops *ops;
};

typedef struct {
    const char *device;  /* NULL: the best of this build and machine */
    const char *kernels; /* CPU: a table of kernels.h; NULL: the best */
    uint32_t    n_threads;
} backend_options;

/* DS4_EUNSUPPORTED naming the device and what this build has. */
ds4_status backend_open(backend **out, const backend_options *options, ds4_error *err);

/* What prepare will allocate for this plan on the device, beside caches; without opening it. */
uint64_t backend_scratch_bytes(const backend_options *options, const backend_plan *plan);

#endif
