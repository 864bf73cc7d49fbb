#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

/* Where names are looked up and what is counted on the way. */
typedef struct {
    weights       *w;
    const config  *c;
    backend       *b; /* NULL: only check */
    arena         *a;
    const gguf    *file;
    bool           is_plain;
    char           prefix[32];
    hash64_stream  hash;
    ds4_error     *err;
} binder;

/* ---- one tensor ---- */

static ds4_status wrong_shape(binder *n, const gguf_tensor *t, uint64_t n_in, uint64_t n_out,
                              uint64_t n_slices) {
    return ds4_fail(n->err, DS4_EFORMAT,
                    "%s: tensor '%.*s': found {%llu, %llu, %llu}, expected {%llu, %llu, %llu}",
                    gguf_path(n->file), (int)t->name.n, t->name.data, (unsigned long long)t->ne[0],
                    (unsigned long long)t->ne[1], (unsigned long long)t->ne[2], (unsigned long long)n_in,
                    (unsigned long long)n_out, (unsigned long long)n_slices);
}

/* The tensor prefix + name, counted and mixed into the fingerprint. */
static ds4_status find_tensor(binder *n, const char *name, const gguf_tensor **out,
                              const quant_info **info) {
    char full[96];
    snprintf(full, sizeof full, "%s%s", n->prefix, name);
    const gguf_tensor *t = gguf_find_tensor(n->file, full);
    if (!t)
        return ds4_fail(n->err, DS4_EFORMAT, "%s: tensor '%s' is missing", gguf_path(n->file), full);
    *info = quant_find(t->type);
    if (!*info) {
        const char *type_name = "unknown";
        uint32_t    block_elems, block_bytes;
        quant_block_size(t->type, &block_elems, &block_bytes, &type_name);
        return ds4_fail(n->err, DS4_EUNSUPPORTED, "%s: tensor '%s': no kernel for type %u (%s)",
                        gguf_path(n->file), full, t->type, type_name);
    }
    *out = t;
    n->w->n_tensors++;
    n->w->n_params += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    enum { SAMPLE_BYTES = 64 };
    hash64_update(&n->hash, full, strlen(full));
    hash64_update(&n->hash, &t->type, sizeof t->type);
    hash64_update(&n->hash, t->ne, sizeof t->ne);
    hash64_update(&n->hash, t->data, t->n_bytes < SAMPLE_BYTES ? t->n_bytes : SAMPLE_BYTES);
    return DS4_OK;
}

/* Finds a matrix {n_in, n_out, n_slices} of a type with kernels, whose rows can be cut every n_unit
 * elements. */
static ds4_status find_matrix(binder *n, const char *name, uint64_t n_in, uint64_t n_out,
                              uint64_t n_slices, uint64_t n_unit, const gguf_tensor **out,
                              const quant_info **info) {
    DS4_TRY(find_tensor(n, name, out, info));
    const gguf_tensor *t = *out;
    if (!(*info)->is_matrix)
        return ds4_fail(n->err, DS4_EUNSUPPORTED, "%s: tensor '%.*s': no kernel for type %s",
                        gguf_path(n->file), (int)t->name.n, t->name.data, (*info)->name);
    if (t->ne[0] != n_in || t->ne[1] != n_out || t->ne[2] != n_slices || t->ne[3] != 1)
        return wrong_shape(n, t, n_in, n_out, n_slices);
    if (n_unit % (*info)->block_elems != 0)
        return ds4_fail(n->err, DS4_EFORMAT, "%s: tensor '%.*s': rows of %llu, expected a multiple of %u "
                        "for type %s", gguf_path(n->file), (int)t->name.n, t->name.data,
                        (unsigned long long)n_unit, (*info)->block_elems, (*info)->name);
    return DS4_OK;
}

/* A matrix {n_in, n_out, n_slices}. `is_precise`: its activations stay floats in any numerics. */
static ds4_status bind_matrix(binder *n, weight *out, const char *name, uint64_t n_in, uint64_t n_out,
                              uint64_t n_slices, bool is_precise) {
    const gguf_tensor *t;
    const quant_info  *info;
    DS4_TRY(find_matrix(n, name, n_in, n_out, n_slices, n_in, &t, &info));
    if (!n->b) return DS4_OK;
    tensor_source source = {.name = name, .type = info->type, .data = t->data, .n_bytes = t->n_bytes,
                            .n_in = (uint32_t)n_in, .n_out = (uint32_t)n_out,
                            .n_slices = (uint32_t)n_slices};
    act_kind act = n->is_plain || is_precise ? ACT_F32 : info->act;
    return n->b->ops->bind(n->b, out, &source, act, n->err);
}

static ds4_status bind_bytes(binder *n, dev_ptr *out, const void *data, size_t n_bytes) {
    n->w->copy_bytes += n_bytes;
    if (!n->b) return DS4_OK;
    DS4_TRY(n->b->ops->buffer_create(n->b, out, n_bytes, n->err));
    n->b->ops->write(n->b, *out, data, n_bytes);
    return DS4_OK;
}

/* A vector, or small table, of n_rows * n_in floats, from any type that has values: files that were
 * quantised with a broad brush have even the tables in blocks. */
static ds4_status bind_floats(binder *n, dev_ptr *out, const char *name, uint64_t n_in, uint64_t n_rows) {
    const gguf_tensor *t;
    const quant_info  *info;
    DS4_TRY(find_tensor(n, name, &t, &info));
    if (!info->is_matrix)
        return ds4_fail(n->err, DS4_EFORMAT, "%s: tensor '%.*s': type %s, expected f32 or another type of "
                        "weights", gguf_path(n->file), (int)t->name.n, t->name.data, info->name);
    if (t->ne[0] != n_in || t->ne[1] != n_rows || t->ne[2] != 1 || t->ne[3] != 1)
        return wrong_shape(n, t, n_in, n_rows, 1);
    size_t n_bytes = (size_t)(n_in * n_rows) * sizeof(float);
    float *values = malloc(n_bytes);
    if (!values) return ds4_fail_nomem(n->err, name, n_bytes);
    info->decode_row(values, t->data, n_in * n_rows);
    ds4_status status = bind_bytes(n, out, values, n_bytes);
    free(values);
    return status;
}

/* tid2eid: for each token k different experts below n_expert, as int32. */
static ds4_status bind_token_table(binder *n, dev_ptr *out, const char *name, uint32_t n_expert) {
    const gguf_tensor *t;
    const quant_info  *info;
    uint32_t           k = n->c->n_expert_used;
    DS4_TRY(find_tensor(n, name, &t, &info));
    if (info->type != QUANT_I32 && info->type != QUANT_I64)
        return ds4_fail(n->err, DS4_EFORMAT, "%s: tensor '%.*s': type %s, expected i32 or i64",
                        gguf_path(n->file), (int)t->name.n, t->name.data, info->name);
    if (t->ne[0] != k || t->ne[1] != n->c->n_vocab || t->ne[2] != 1 || t->ne[3] != 1)
        return wrong_shape(n, t, k, n->c->n_vocab, 1);
    size_t   n_ids = (size_t)k * n->c->n_vocab;
    int32_t *ids = malloc(n_ids * sizeof *ids);
    if (!ids) return ds4_fail_nomem(n->err, name, n_ids * sizeof *ids);
    for (size_t i = 0; i < n_ids; i++) {
        int64_t id = 0;
        memcpy(&id, t->data + i * info->block_bytes, info->block_bytes);
        if (info->type == QUANT_I32) id = (int32_t)id;
        if (id < 0 || id >= n_expert) {
            free(ids);
            return ds4_fail(n->err, DS4_EFORMAT, "%s: tensor '%.*s': token %zu: expert %lld, expected 0 "
                            "to %u", gguf_path(n->file), (int)t->name.n, t->name.data, i / k,
                            (long long)id, n_expert - 1);
        }
        ids[i] = (int32_t)id;
    }
    ds4_status status = bind_bytes(n, out, ids, n_ids * sizeof *ids);
    free(ids);
    return status;
}

/* ---- groups of tensors ---- */

/* stem_fn, stem_base, stem_scale; a head has n_stream outputs and one scale. */
static ds4_status bind_hc(binder *n, hc_params *hc, const char *stem, bool is_head) {
    const config *c = n->c;
    uint32_t      n_out = is_head ? c->n_stream : (2 + c->n_stream) * c->n_stream;
    char          name[64];
    hc->n_streams = c->n_stream;
    hc->n_embd = c->n_embd;
    hc->n_iters = c->n_sinkhorn;
    hc->eps = c->eps;
    hc->eps_hc = c->eps_hc;
    snprintf(name, sizeof name, "%s_fn.weight", stem);
    DS4_TRY(bind_matrix(n, &hc->fn, name, (uint64_t)c->n_stream * c->n_embd, n_out, 1, true));
    snprintf(name, sizeof name, "%s_base.weight", stem);
    DS4_TRY(bind_floats(n, &hc->base, name, n_out, 1));
    snprintf(name, sizeof name, "%s_scale.weight", stem);
    return bind_floats(n, &hc->scale, name, is_head ? 1 : 3, 1);
}

static ds4_status bind_attention(binder *n, layer_weights *l) {
    const config *c = n->c;
    uint64_t      n_heads_out = (uint64_t)c->n_head * c->head_dim;
    uint64_t      n_latent = (uint64_t)c->n_out_group * c->n_out_rank;
    DS4_TRY(bind_floats(n, &l->attn_norm, "attn_norm.weight", c->n_embd, 1));
    DS4_TRY(bind_matrix(n, &l->q_a, "attn_q_a.weight", c->n_embd, c->n_q_rank, 1, false));
    DS4_TRY(bind_floats(n, &l->q_norm, "attn_q_a_norm.weight", c->n_q_rank, 1));
    DS4_TRY(bind_matrix(n, &l->q_b, "attn_q_b.weight", c->n_q_rank, n_heads_out, 1, false));
    DS4_TRY(bind_matrix(n, &l->kv, "attn_kv.weight", c->n_embd, c->head_dim, 1, false));
    DS4_TRY(bind_floats(n, &l->kv_norm, "attn_kv_a_norm.weight", c->head_dim, 1));
    DS4_TRY(bind_floats(n, &l->sinks, "attn_sinks.weight", c->n_head, 1));
    DS4_TRY(bind_matrix(n, &l->out_a, "attn_output_a.weight", n_heads_out / c->n_out_group, n_latent, 1,
                        false));
    return bind_matrix(n, &l->out_b, "attn_output_b.weight", n_latent, c->n_embd, 1, false);
}

static ds4_status bind_compressor(binder *n, layer_weights *l, const cache_layer *cache) {
    const config *c = n->c;
    uint64_t      width = (uint64_t)cache_lanes(cache) * cache->head_dim;
    DS4_TRY(bind_matrix(n, &l->comp_kv, "attn_compressor_kv.weight", c->n_embd, width, 1, true));
    DS4_TRY(bind_matrix(n, &l->comp_gate, "attn_compressor_gate.weight", c->n_embd, width, 1, true));
    DS4_TRY(bind_floats(n, &l->comp_ape, "attn_compressor_ape.weight", width, cache->ratio));
    DS4_TRY(bind_floats(n, &l->comp_norm, "attn_compressor_norm.weight", cache->head_dim, 1));
    if (!cache->index_dim) return DS4_OK;

    width = (uint64_t)cache_lanes(cache) * cache->index_dim;
    uint64_t n_q = (uint64_t)c->n_index_head * c->index_dim;
    DS4_TRY(bind_matrix(n, &l->index_q, "indexer.attn_q_b.weight", c->n_q_rank, n_q, 1, false));
    DS4_TRY(bind_matrix(n, &l->index_w, "indexer.proj.weight", c->n_embd, c->n_index_head, 1, false));
    DS4_TRY(bind_matrix(n, &l->icomp_kv, "indexer_compressor_kv.weight", c->n_embd, width, 1, true));
    DS4_TRY(bind_matrix(n, &l->icomp_gate, "indexer_compressor_gate.weight", c->n_embd, width, 1, true));
    DS4_TRY(bind_floats(n, &l->icomp_ape, "indexer_compressor_ape.weight", width, cache->ratio));
    return bind_floats(n, &l->icomp_norm, "indexer_compressor_norm.weight", cache->index_dim, 1);
}

static ds4_status bind_moe(binder *n, layer_weights *l, uint32_t il) {
    const config *c = n->c;
    /* Pruned files have fewer experts in some layers: each layer's own stack tells. */
    char          name[64];
    snprintf(name, sizeof name, "%sffn_gate_exps.weight", n->prefix);
    const gguf_tensor *gate = gguf_find_tensor(n->file, name);
    uint32_t n_expert = gate && gate->ne[2] <= c->n_expert ? (uint32_t)gate->ne[2] : c->n_expert;
    if (n_expert < c->n_expert_used)
        return ds4_fail(n->err, DS4_EFORMAT, "%s: tensor '%s': %u experts, expected at least %u",
                        gguf_path(n->file), name, n_expert, c->n_expert_used);

    DS4_TRY(bind_floats(n, &l->ffn_norm, "ffn_norm.weight", c->n_embd, 1));
    DS4_TRY(bind_matrix(n, &l->router, "ffn_gate_inp.weight", c->n_embd, n_expert, 1, true));
    if (il < c->n_hash_layer)
        DS4_TRY(bind_token_table(n, &l->tid2eid, "ffn_gate_tid2eid.weight", n_expert));
    else DS4_TRY(bind_floats(n, &l->router_bias, "exp_probs_b.bias", n_expert, 1));
    ffn_weights *e = &l->experts, *s = &l->shared;
    DS4_TRY(bind_matrix(n, &e->gate, "ffn_gate_exps.weight", c->n_embd, c->n_ff, n_expert, false));
    DS4_TRY(bind_matrix(n, &e->up, "ffn_up_exps.weight", c->n_embd, c->n_ff, n_expert, false));
    DS4_TRY(bind_matrix(n, &e->down, "ffn_down_exps.weight", c->n_ff, c->n_embd, n_expert, false));
    DS4_TRY(bind_matrix(n, &s->gate, "ffn_gate_shexp.weight", c->n_embd, c->n_ff, 1, false));
    DS4_TRY(bind_matrix(n, &s->up, "ffn_up_shexp.weight", c->n_embd, c->n_ff, 1, false));
    DS4_TRY(bind_matrix(n, &s->down, "ffn_down_shexp.weight", c->n_ff, c->n_embd, 1, false));
    l->clamp = c->clamp[il];
    l->clamp_shared = c->clamp_shared[il];
    return DS4_OK;
}

/* All tensors of one block under the current prefix; il = n_layer: the MTP block. */
static ds4_status bind_block(binder *n, layer_weights *l, uint32_t il) {
    cache_layer cache = config_cache_layer(n->c, il);
    DS4_TRY(bind_hc(n, &l->hc_attn, "hc_attn", false));
    DS4_TRY(bind_hc(n, &l->hc_ffn, "hc_ffn", false));
    DS4_TRY(bind_attention(n, l));
    if (cache.ratio) DS4_TRY(bind_compressor(n, l, &cache));
    return bind_moe(n, l, il);
}

/* ---- the MTP block: `mtp.0.` of the stock files, `blk.N.nextn.` behind the layers of the others ---- */

typedef struct {
    const char *prefix, *nextn; /* of the block's tensors; of its own ones behind that */
    const char *norm;
} mtp_names;

static mtp_names mtp_names_of(const gguf *file, const config *c, char prefix[32]) {
    if (gguf_find_tensor(file, "mtp.0.hnorm.weight")) {
        snprintf(prefix, 32, "mtp.0.");
        return (mtp_names){prefix, "", "norm.weight"};
    }
    snprintf(prefix, 32, "blk.%u.", c->n_layer);
    char name[96];
    snprintf(name, sizeof name, "%snextn.hnorm.weight", prefix);
    if (!gguf_find_tensor(file, name)) return (mtp_names){0};
    return (mtp_names){prefix, "nextn.", "shared_head_norm.weight"};
}

bool weights_have_mtp(const gguf *file, const config *c) {
    char prefix[32];
    return mtp_names_of(file, c, prefix).prefix != NULL;
}

/* One half of the columns of t {2 * n_embd, n_embd}, copied to be a matrix of its own. */
static ds4_status bind_half(binder *n, weight *out, const char *name, const gguf_tensor *t,
                            const quant_info *info, size_t half) {
    uint32_t n_embd = n->c->n_embd;
    size_t   row_bytes = quant_row_bytes(info, n_embd), n_bytes = row_bytes * n_embd;
    n->w->copy_bytes += n_bytes;
    if (!n->b) return DS4_OK;
    uint8_t *rows = arena_alloc(n->a, n_bytes);
    if (!rows) return ds4_fail_nomem(n->err, name, n_bytes);
    for (size_t row = 0; row < n_embd; row++)
        memcpy(rows + row * row_bytes, t->data + (2 * row + half) * row_bytes, row_bytes);
    tensor_source source = {.name = name, .type = info->type, .data = rows, .n_bytes = n_bytes,
                            .n_in = n_embd, .n_out = n_embd, .n_slices = 1};
    return n->b->ops->bind(n->b, out, &source, n->is_plain ? ACT_F32 : info->act, n->err);
}

/* Two tensors, or one with both side by side: [e, h]. */
static ds4_status bind_projections(binder *n, mtp_weights *m) {
    uint64_t n_embd = n->c->n_embd;
    char     joint[96];
    snprintf(joint, sizeof joint, "%seh_proj.weight", n->prefix);
    if (!gguf_find_tensor(n->file, joint)) {
        DS4_TRY(bind_matrix(n, &m->e_proj, "e_proj.weight", n_embd, n_embd, 1, false));
        return bind_matrix(n, &m->h_proj, "h_proj.weight", n_embd, n_embd, 1, false);
    }
    const gguf_tensor *t;
    const quant_info  *info;
    DS4_TRY(find_matrix(n, "eh_proj.weight", 2 * n_embd, n_embd, 1, n_embd, &t, &info));
    DS4_TRY(bind_half(n, &m->e_proj, "eh_proj.weight", t, info, 0));
    return bind_half(n, &m->h_proj, "eh_proj.weight", t, info, 1);
}

static ds4_status bind_mtp(binder *n, mtp_weights *m, const gguf *file) {
    const config *c = n->c;
    char          block_prefix[32];
    mtp_names     names = mtp_names_of(file, c, block_prefix);
    n->file = file;
    if (!names.prefix)
        return ds4_fail(n->err, DS4_EFORMAT, "%s: no MTP block: neither 'mtp.0.hnorm.weight' nor "
                        "'blk.%u.nextn.hnorm.weight'", gguf_path(file), c->n_layer);
    snprintf(n->prefix, sizeof n->prefix, "%s", names.prefix);
    DS4_TRY(bind_block(n, &m->block, c->n_layer));

    snprintf(n->prefix, sizeof n->prefix, "%.20s%s", names.prefix, names.nextn);
    DS4_TRY(bind_projections(n, m));
    DS4_TRY(bind_floats(n, &m->enorm, "enorm.weight", c->n_embd, 1));
    DS4_TRY(bind_floats(n, &m->hnorm, "hnorm.weight", c->n_embd, 1));
    DS4_TRY(bind_floats(n, &m->norm, names.norm, c->n_embd, 1));
    return bind_hc(n, &m->head, "hc_head", true);
}

static ds4_status bind_rope_table(binder *n, dev_ptr *out, const config_rope *rope) {
    size_t n_bytes = n->c->n_rot / 2 * sizeof(float);
    float *freq = malloc(n_bytes);
    if (!freq) return ds4_fail_nomem(n->err, "rope table", n_bytes);
    config_rope_table(rope, n->c->n_rot, freq);
    ds4_status status = bind_bytes(n, out, freq, n_bytes);
    free(freq);
    return status;
}

ds4_status weights_bind(weights *out, const weights_source *source, const config *c, backend *b, arena *a,
                        ds4_error *err) {
    weights w = {0};
    binder  n = {.w = &w, .c = c, .b = b, .a = a, .file = source->file, .is_plain = source->is_plain,
                 .err = err};
    hash64_init(&n.hash, source->is_plain);
    hash64_update(&n.hash, c, sizeof *c);
    w.layers = arena_alloc(a, c->n_layer * sizeof *w.layers);
    if (!w.layers) return ds4_fail_nomem(err, "weights", c->n_layer * sizeof *w.layers);
    memset(w.layers, 0, c->n_layer * sizeof *w.layers);

    DS4_TRY(bind_matrix(&n, &w.embed, "token_embd.weight", c->n_embd, c->n_vocab, 1, true));
    DS4_TRY(bind_matrix(&n, &w.output, "output.weight", c->n_embd, c->n_vocab, 1, true));
    DS4_TRY(bind_floats(&n, &w.output_norm, "output_norm.weight", c->n_embd, 1));
    DS4_TRY(bind_hc(&n, &w.head, "output_hc", true));
    DS4_TRY(bind_rope_table(&n, &w.freq_window, &c->rope_window));
    DS4_TRY(bind_rope_table(&n, &w.freq_compress, &c->rope_compress));
    for (uint32_t il = 0; il < c->n_layer; il++) {
        snprintf(n.prefix, sizeof n.prefix, "blk.%u.", il);
        DS4_TRY(bind_block(&n, &w.layers[il], il));
    }
    if (source->use_mtp) {
        DS4_TRY(bind_mtp(&n, &w.mtp, source->mtp_file ? source->mtp_file : source->file));
        w.has_mtp = true;
    }
    w.fingerprint = hash64_finish(&n.hash);
    *out = w;
    return DS4_OK;
}
