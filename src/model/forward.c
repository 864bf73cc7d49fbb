#include "model/forward.h"

#include <stdlib.h>
#include <string.h>

#include "model/forward_private.h"

#define READERS(...) ((const weight *const[]){__VA_ARGS__, NULL})

/* ---- the network ------------------------------------------------------------------------------- */

act_rows forward_act(forward *f, dev_ptr x, uint32_t n_vec, uint32_t n, const weight *const *readers) {
    act_rows act = {.f32 = x};
    for (; *readers; readers++) {
        if ((*readers)->act == ACT_Q8_32) act.q8_32 = f->q8_32;
        if ((*readers)->act == ACT_Q8_256) act.q8_256 = f->q8_256;
    }
    if (dev_is_set(act.q8_32) || dev_is_set(act.q8_256))
        f->ops->quantize_rows(f->b, &(quantize_args){.q8_32 = act.q8_32, .q8_256 = act.q8_256, .in = x,
                                                     .n_vec = n_vec, .n = n});
    return act;
}

static void matmul(forward *f, dev_ptr out, act_rows x, const weight *w, uint32_t n_rows,
                   uint32_t n_groups) {
    f->ops->matmul(f->b, &(matmul_args){.out = out, .x = x, .w = w, .n_rows = n_rows,
                                        .n_groups = n_groups});
}

static void norm(forward *f, dev_ptr x, dev_ptr w, uint32_t n_vec, uint32_t n) {
    f->ops->norm(f->b, &(norm_args){.out = x, .in = x, .w = w, .n_vec = n_vec, .n = n, .eps = f->c->eps});
}

/* The attention sublayer on x, into y. n: rows of the batch. */
static void attention(forward *f, const layer_weights *l, uint32_t il, uint32_t n) {
    const config  *c = f->c;
    const backend_ops *op = f->ops;
    cache_layer    cache = config_cache_layer(c, il);
    bool           is_plain = f->limits.is_plain;
    dev_ptr        freq = cache.ratio ? f->w->freq_compress : f->w->freq_window;

    /* 1. everything that reads x */
    act_rows x = forward_act(f, f->x, n, c->n_embd, READERS(&l->q_a, &l->kv, &l->index_w));
    matmul(f, f->qr, x, &l->q_a, n, 1);
    matmul(f, f->kv, x, &l->kv, n, 1);
    if (cache.ratio) {
        matmul(f, f->u, x, &l->comp_kv, n, 1);
        matmul(f, f->z, x, &l->comp_gate, n, 1);
    }
    if (cache.index_dim) {
        matmul(f, f->iu, x, &l->icomp_kv, n, 1);
        matmul(f, f->iz, x, &l->icomp_gate, n, 1);
        matmul(f, f->iw, x, &l->index_w, n, 1);
    }

    /* 2. queries from their latent, and the row that is key and value of this position */
    norm(f, f->qr, l->q_norm, n, c->n_q_rank);
    act_rows qr = forward_act(f, f->qr, n, c->n_q_rank, READERS(&l->q_b, &l->index_q));
    matmul(f, f->q, qr, &l->q_b, n, 1);
    norm(f, f->q, (dev_ptr){0}, n * c->n_head, c->head_dim);
    rope_args turn = {.x = f->q, .freq = freq, .n_heads = c->n_head, .n = c->head_dim, .n_rot = c->n_rot};
    op->rope(f->b, &turn);
    norm(f, f->kv, l->kv_norm, n, c->head_dim);
    op->rope(f->b, &(rope_args){.x = f->kv, .freq = freq, .n_heads = 1, .n = c->head_dim,
                                .n_rot = c->n_rot, .grid = is_plain ? GRID_NONE : GRID_FP8});

    /* 3. compressed rows that close in this step, and for each query the ones to look at */
    compress_args pool = {.layer = il, .u = f->u, .z = f->z, .ape = l->comp_ape, .norm = l->comp_norm,
                          .freq = freq, .n_rot = c->n_rot, .eps = c->eps};
    if (cache.ratio) op->compress(f->b, &pool);
    if (cache.index_dim) {
        pool.is_index = true;
        pool.u = f->iu, pool.z = f->iz, pool.ape = l->icomp_ape, pool.norm = l->icomp_norm;
        op->compress(f->b, &pool);
        matmul(f, f->iq, qr, &l->index_q, n, 1);
        op->rope(f->b, &(rope_args){.x = f->iq, .freq = freq, .n_heads = c->n_index_head,
                                    .n = c->index_dim, .n_rot = c->n_rot,
                                    .grid = is_plain ? GRID_NONE : GRID_FP4});
        op->index_topk(f->b, &(index_topk_args){.layer = il, .sel = f->sel, .q = f->iq, .w = f->iw,
                                                .n_heads = c->n_index_head, .top_k = c->index_top_k,
                                                .scale = config_index_scale(c)});
    }

    /* 4. attention before the step's rows enter the window: its first queries still see the old ones */
    op->attention(f->b, &(attention_args){.layer = il, .out = f->o, .q = f->q, .kv = f->kv,
                                          .sel = cache.index_dim ? f->sel : (dev_ptr){0},
                                          .sinks = l->sinks, .n_heads = c->n_head,
                                          .top_k = c->index_top_k});
    op->kv_append(f->b, &(kv_append_args){.layer = il, .kv = f->kv});

    /* 5. values were rotated with their keys: turn back by the query's position, then project */
    turn.x = f->o;
    turn.is_inverse = true;
    op->rope(f->b, &turn);
    uint32_t n_group_in = c->n_head / c->n_out_group * c->head_dim;
    act_rows o = forward_act(f, f->o, n * c->n_out_group, n_group_in, READERS(&l->out_a));
    matmul(f, f->latent, o, &l->out_a, n, c->n_out_group);
    uint32_t n_latent = c->n_out_group * c->n_out_rank;
    act_rows latent = forward_act(f, f->latent, n, n_latent, READERS(&l->out_b));
    matmul(f, f->y, latent, &l->out_b, n, 1);
}

/* The mixture-of-experts sublayer on x, into y. */
static void experts(forward *f, const layer_weights *l, uint32_t n) {
    const config *c = f->c;
    act_rows x = forward_act(f, f->x, n, c->n_embd, READERS(&l->experts.gate, &l->experts.up,
                                                            &l->shared.gate, &l->shared.up));
    matmul(f, f->router, x, &l->router, n, 1);
    f->ops->router(f->b, &(router_args){.ids = f->ids, .weights = f->expert_weights, .logits = f->router,
                                        .bias = l->router_bias, .tid2eid = l->tid2eid,
                                        .n_expert = l->router.n_out, .k = c->n_expert_used,
                                        .score = c->score, .is_normed = c->is_weight_normed,
                                        .scale = c->weight_scale});
    f->ops->moe(f->b, &(moe_args){.out = f->y, .x = x, .ids = f->ids, .weights = f->expert_weights,
                                  .experts = &l->experts, .shared = &l->shared, .k = c->n_expert_used,
                                  .clamp = l->clamp, .clamp_shared = l->clamp_shared});
}

void forward_block(forward *f, const layer_weights *l, uint32_t il, dev_ptr hc) {
    const config *c = f->c;
    hc_pre_args   pre = {.x = f->x, .mix = f->mix, .hc = hc, .eps = c->eps};
    hc_post_args  post = {.hc = hc, .y = f->y, .mix = f->mix, .n_streams = c->n_stream,
                          .n_embd = c->n_embd};

    pre.hc_site = &l->hc_attn, pre.norm = l->attn_norm;
    f->ops->hc_pre(f->b, &pre);
    attention(f, l, il, f->n_rows);
    f->ops->hc_post(f->b, &post);

    pre.hc_site = &l->hc_ffn, pre.norm = l->ffn_norm;
    f->ops->hc_pre(f->b, &pre);
    experts(f, l, f->n_rows);
    f->ops->hc_post(f->b, &post);
}

ds4_status forward_step(forward *f, const step_batch *batch, float *logits, const atomic_bool *cancel,
                        ds4_error *err) {
    const config *c = f->c;
    if (f->limits.has_mtp) forward_keep_streams(f);
    f->n_rows = batch->n_rows;
    f->ops->step_begin(f->b, batch);
    f->ops->embed(f->b, &(embed_args){.out = f->hc, .table = &f->w->embed, .n_streams = c->n_stream});
    for (uint32_t il = 0; il < c->n_layer; il++) {
        if (cancel && atomic_load_explicit(cancel, memory_order_relaxed)) {
            f->ops->step_abort(f->b);
            return ds4_fail(err, DS4_ECANCELED, "step: canceled before layer %u of %u", il, c->n_layer);
        }
        forward_block(f, &f->w->layers[il], il, f->hc);
    }
    if (batch->n_logits > 0)
        f->ops->head(f->b, &(head_args){.logits = f->logits, .hc = f->hc, .hc_site = &f->w->head,
                                        .norm = f->w->output_norm, .output = &f->w->output,
                                        .eps = c->eps});
    DS4_TRY(f->ops->step_end(f->b, err));
    memcpy(f->last_runs, batch->runs, batch->n_runs * sizeof *batch->runs);
    f->n_last_runs = batch->n_runs;
    f->ops->read(f->b, logits, f->logits, (size_t)batch->n_logits * c->n_vocab * sizeof *logits);
    return DS4_OK;
}

/* ---- memory ------------------------------------------------------------------------------------ */

static uint32_t max_u32(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

/* Compressor lanes of the widest layer; 0 if no layer compresses. */
static uint32_t max_lanes(const config *c) {
    uint32_t n = 0;
    for (uint32_t il = 0; il < c->n_layer; il++) {
        cache_layer l = config_cache_layer(c, il);
        if (l.ratio) n = max_u32(n, cache_lanes(&l));
    }
    return n;
}

/* Creates every buffer (f not NULL), or only adds up their bytes. */
static ds4_status plan_buffers(forward *f, const config *c, const forward_limits *m, uint64_t *n_bytes,
                               ds4_error *err) {
    uint64_t rows = m->n_rows, lanes = max_lanes(c);
    uint64_t streams = (uint64_t)c->n_stream * c->n_embd, heads = (uint64_t)c->n_head * c->head_dim;
    uint64_t latent = (uint64_t)c->n_out_group * c->n_out_rank;
    /* The widest row that is ever quantised; a quantised row takes less than two bytes a value. */
    uint64_t widest = max_u32(max_u32((uint32_t)heads, (uint32_t)latent),
                              max_u32(m->has_mtp ? (uint32_t)streams : c->n_embd, c->n_q_rank));
    uint64_t mtp_rows = m->has_mtp ? rows : 0;
    forward  none;
    forward *to = f ? f : &none;
    struct {
        dev_ptr *to;
        uint64_t n_bytes;
    } buffers[] = {
        {&to->hc, rows * streams * 4},
        {&to->mix, rows * (c->n_stream + c->n_stream * c->n_stream) * 4},
        {&to->x, rows * c->n_embd * 4},
        {&to->y, rows * c->n_embd * 4},
        {&to->qr, rows * c->n_q_rank * 4},
        {&to->q, rows * heads * 4},
        {&to->o, rows * heads * 4},
        {&to->kv, rows * c->head_dim * 4},
        {&to->u, rows * lanes * c->head_dim * 4},
        {&to->z, rows * lanes * c->head_dim * 4},
        {&to->iu, rows * lanes * c->index_dim * 4},
        {&to->iz, rows * lanes * c->index_dim * 4},
        {&to->iq, rows * c->n_index_head * c->index_dim * 4},
        {&to->iw, rows * c->n_index_head * 4},
        {&to->sel, rows * c->index_top_k * 4},
        {&to->latent, rows * latent * 4},
        {&to->router, rows * c->n_expert * 4},
        {&to->ids, rows * c->n_expert_used * 4},
        {&to->expert_weights, rows * c->n_expert_used * 4},
        {&to->q8_32, rows * widest * 2},
        {&to->q8_256, rows * widest * 2},
        {&to->logits, (uint64_t)m->n_logits * c->n_vocab * 4},
        {&to->draft_in, mtp_rows * streams * 4},
        {&to->draft_hc, mtp_rows * streams * 4},
        {&to->streams, m->has_mtp ? m->n_slots * (FORWARD_SLACK + 1) * streams * 4 : 0},
    };
    *n_bytes = 0;
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        *n_bytes += buffers[i].n_bytes;
        if (f) DS4_TRY(f->ops->buffer_create(f->b, buffers[i].to, buffers[i].n_bytes, err));
    }
    return DS4_OK;
}

cache_plan forward_cache_plan(const config *c, const forward_limits *limits, cache_layer *layers) {
    uint32_t n_layers = c->n_layer + limits->has_mtp;
    for (uint32_t il = 0; il < n_layers; il++) layers[il] = config_cache_layer(c, il);
    return (cache_plan){.layers = layers,
                        .n_layers = n_layers,
                        .n_slots = limits->n_slots,
                        .n_ctx = limits->n_ctx,
                        .slack = FORWARD_SLACK,
                        .is_packed = !limits->is_plain};
}

static backend_plan plan_backend(const config *c, const forward_limits *limits, cache_layer *layers) {
    uint32_t latent = c->n_out_group * c->n_out_rank;
    uint32_t group_in = c->n_head / c->n_out_group * c->head_dim;
    return (backend_plan){
        .caches = forward_cache_plan(c, limits, layers),
        .n_rows = limits->n_rows,
        .n_logits = limits->n_logits,
        .n_streams = c->n_stream,
        .n_embd = c->n_embd,
        .n_heads = c->n_head,
        .head_dim = c->head_dim,
        .n_index_heads = c->n_index_head,
        .index_top_k = c->index_top_k,
        .n_expert = c->n_expert,
        .n_expert_used = c->n_expert_used,
        .n_ff = c->n_ff,
        .n_in_max = max_u32(max_u32(c->n_stream * c->n_embd, c->n_ff),
                            max_u32(max_u32(latent, group_in), c->n_q_rank)),
        .n_mix = (2 + c->n_stream) * c->n_stream,
    };
}

uint64_t forward_scratch_bytes(const config *c, const forward_limits *limits,
                               const backend_options *options) {
    cache_layer  layers[CONFIG_MAX_LAYERS];
    backend_plan plan = plan_backend(c, limits, layers);
    uint64_t     n_bytes;
    plan_buffers(NULL, c, limits, &n_bytes, NULL);
    return n_bytes + backend_scratch_bytes(options, &plan);
}

ds4_status forward_create(forward **out, const config *c, const weights *w, backend *b,
                          const forward_limits *limits, ds4_error *err) {
    cache_layer  layers[CONFIG_MAX_LAYERS];
    backend_plan plan = plan_backend(c, limits, layers);
    DS4_TRY(b->ops->prepare(b, &plan, err));

    forward *f = calloc(1, sizeof *f);
    if (!f) return ds4_fail_nomem(err, "forward pass", sizeof *f);
    *f = (forward){.c = c, .w = w, .b = b, .ops = b->ops, .limits = *limits};
    uint64_t   n_bytes;
    ds4_status status = plan_buffers(f, c, limits, &n_bytes, err);
    f->last_runs = calloc(limits->n_slots, sizeof *f->last_runs);
    if (status == DS4_OK && !f->last_runs) status = ds4_fail_nomem(err, "forward pass", 0);
    if (status != DS4_OK) {
        forward_destroy(f);
        return status;
    }
    *out = f;
    return DS4_OK;
}

void forward_destroy(forward *f) {
    if (!f) return;
    free(f->last_runs);
    free(f);
}
