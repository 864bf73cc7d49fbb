#include "model/config.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PREFIX "deepseek4."

/* ---- tensors as a source of shapes ---- */

static const gguf_tensor *layer_tensor(const gguf *g, uint32_t il, const char *name) {
    char full[96];
    snprintf(full, sizeof full, "blk.%u.%s", il, name);
    return gguf_find_tensor(g, full);
}

/* The tensor of the first layer that has one; NULL if none has. */
static const gguf_tensor *any_layer_tensor(const gguf *g, uint32_t n_layer, const char *name) {
    for (uint32_t il = 0; il < n_layer; il++) {
        const gguf_tensor *t = layer_tensor(g, il, name);
        if (t) return t;
    }
    return NULL;
}

/* A dimension as far as it can be a width; 0 if there is no tensor. */
static uint32_t dim_of(const gguf_tensor *t, int i) {
    return t && t->ne[i] <= CONFIG_MAX_WIDTH ? (uint32_t)t->ne[i] : 0;
}

/* What the tensors alone tell. Fields that they do not tell stay 0. */
static void derive_shape(config *c, const gguf *g) {
    const gguf_tensor *embd = gguf_find_tensor(g, "token_embd.weight");
    const gguf_tensor *out_a = any_layer_tensor(g, c->n_layer, "attn_output_a.weight");
    c->n_embd = dim_of(embd, 0);
    c->n_vocab = dim_of(embd, 1);
    if (c->n_embd) c->n_stream = dim_of(any_layer_tensor(g, c->n_layer, "hc_attn_fn.weight"), 0) / c->n_embd;
    c->n_q_rank = dim_of(any_layer_tensor(g, c->n_layer, "attn_q_a.weight"), 1);
    c->head_dim = dim_of(any_layer_tensor(g, c->n_layer, "attn_kv.weight"), 1);
    c->n_head = dim_of(any_layer_tensor(g, c->n_layer, "attn_sinks.weight"), 0);
    if (dim_of(out_a, 0)) c->n_out_group = c->n_head * c->head_dim / dim_of(out_a, 0);
    if (c->n_out_group) c->n_out_rank = dim_of(out_a, 1) / c->n_out_group;
    c->n_index_head = dim_of(any_layer_tensor(g, c->n_layer, "indexer.proj.weight"), 1);
    c->index_dim = dim_of(any_layer_tensor(g, c->n_layer, "indexer_compressor_norm.weight"), 0);
    c->n_ff = dim_of(any_layer_tensor(g, c->n_layer, "ffn_gate_exps.weight"), 1);
    c->n_expert_used = dim_of(any_layer_tensor(g, c->n_layer, "ffn_gate_tid2eid.weight"), 0);
    while (c->n_hash_layer < c->n_layer && layer_tensor(g, c->n_hash_layer, "ffn_gate_tid2eid.weight"))
        c->n_hash_layer++;
    for (uint32_t il = 0; il < c->n_layer; il++)
        c->ratio[il] = dim_of(layer_tensor(g, il, "attn_compressor_ape.weight"), 1);
}

/* ---- keys ---- */

/* *v <- the key, or what it was if the key is absent and that is not 0; lo <= *v <= hi. */
static ds4_status read_u32(const gguf *g, const char *key, uint32_t *v, uint32_t lo, uint32_t hi,
                           ds4_error *err) {
    bool     found;
    uint32_t read = *v;
    DS4_TRY(gguf_get_u32(g, key, &read, &found, err));
    if (!found && *v == 0 && lo > 0)
        return ds4_fail(err, DS4_EFORMAT, "%s: key '%s' is missing", gguf_path(g), key);
    if (read != lo && lo == hi)
        return ds4_fail(err, DS4_EFORMAT, "%s: '%s': found %u, expected %u", gguf_path(g), key, read, lo);
    if (read < lo || read > hi)
        return ds4_fail(err, DS4_EFORMAT, "%s: '%s': found %u, expected %u to %u", gguf_path(g), key,
                        read, lo, hi);
    *v = read;
    return DS4_OK;
}

static ds4_status read_f32(const gguf *g, const char *key, float *v, float lo, float hi, ds4_error *err) {
    float read;
    DS4_TRY(gguf_get_f32(g, key, &read, NULL, err));
    if (!(read >= lo && read <= hi))
        return ds4_fail(err, DS4_EFORMAT, "%s: '%s': found %g, expected %g to %g", gguf_path(g), key,
                        (double)read, (double)lo, (double)hi);
    *v = read;
    return DS4_OK;
}

static ds4_status read_ratios(config *c, const gguf *g, ds4_error *err) {
    const char    *key = PREFIX "attention.compress_ratios";
    const gguf_kv *kv = gguf_find(g, key);
    if (!kv) return DS4_OK; /* derived from the tensors */
    if (kv->type != GGUF_ARRAY || kv->n_items < c->n_layer)
        return ds4_fail(err, DS4_EFORMAT, "%s: '%s': found %llu entries, expected at least %u",
                        gguf_path(g), key, (unsigned long long)kv->n_items, c->n_layer);
    for (uint32_t il = 0; il < c->n_layer; il++) {
        int64_t v;
        DS4_TRY(gguf_item_i64(g, kv, il, &v, err));
        if (v < 0 || v > CONFIG_MAX_WIDTH)
            return ds4_fail(err, DS4_EFORMAT, "%s: '%s': entry %u: found %lld, expected 0 to %d",
                            gguf_path(g), key, il, (long long)v, CONFIG_MAX_WIDTH);
        c->ratio[il] = (uint32_t)v;
    }
    return DS4_OK;
}

/* An entry for each layer, or one for all; `fallback` (may be NULL) if the key is absent. The entry of
 * the MTP block, behind the layers, is the last one there is. */
static ds4_status read_clamps(const config *c, const gguf *g, const char *key, float *clamp,
                              const float *fallback, ds4_error *err) {
    const gguf_kv *kv = gguf_find(g, key);
    for (uint32_t il = 0; il <= c->n_layer; il++) {
        if (!kv) {
            clamp[il] = fallback ? fallback[il] : 0;
            continue;
        }
        if (kv->type == GGUF_ARRAY && kv->n_items < c->n_layer)
            return ds4_fail(err, DS4_EFORMAT, "%s: '%s': found %llu entries, expected %u", gguf_path(g),
                            key, (unsigned long long)kv->n_items, c->n_layer);
        uint64_t last = kv->n_items - 1;
        DS4_TRY(gguf_item_f32(g, kv, il < last ? il : last, &clamp[il], err));
        if (!isfinite(clamp[il]))
            return ds4_fail(err, DS4_EFORMAT, "%s: '%s': entry %u: found %g, expected a finite number",
                            gguf_path(g), key, il < last ? il : (uint32_t)last, (double)clamp[il]);
    }
    return DS4_OK;
}

static ds4_status read_rope(config *c, const gguf *g, ds4_error *err) {
    DS4_TRY(read_f32(g, PREFIX "rope.freq_base", &c->rope_window.base, 1.5f, 1e12f, err));
    c->rope_window.factor = 1;
    bool has_compressed = false;
    for (uint32_t il = 0; il < c->n_layer; il++) has_compressed |= c->ratio[il] != 0;
    c->rope_compress = c->rope_window;
    if (!has_compressed) return DS4_OK;

    config_rope *r = &c->rope_compress;
    DS4_TRY(read_f32(g, PREFIX "attention.compress_rope_freq_base", &r->base, 1.5f, 1e12f, err));
    strview type = {0};
    bool    found;
    DS4_TRY(gguf_get_string(g, PREFIX "rope.scaling.type", &type, &found, err));
    if (!found || strview_equal(type, STRVIEW("none"))) return DS4_OK;
    if (!strview_equal(type, STRVIEW("yarn")))
        return ds4_fail(err, DS4_EUNSUPPORTED, "%s: '" PREFIX "rope.scaling.type': found '%s', "
                        "expected 'yarn' or 'none'", gguf_path(g), gguf_show(type).text);
    DS4_TRY(read_f32(g, PREFIX "rope.scaling.factor", &r->factor, 1.0f, 1e6f, err));
    DS4_TRY(read_f32(g, PREFIX "rope.scaling.original_context_length", &r->original_ctx, 1, 1e9f, err));
    DS4_TRY(read_f32(g, PREFIX "rope.scaling.yarn_beta_fast", &r->beta_fast, 1e-6f, 1e6f, err));
    DS4_TRY(read_f32(g, PREFIX "rope.scaling.yarn_beta_slow", &r->beta_slow, 1e-6f, 1e6f, err));
    return DS4_OK;
}

static ds4_status read_experts(config *c, const gguf *g, ds4_error *err) {
    /* Pruned files have fewer experts in some layers: the tensors decide (weights.c). */
    for (uint32_t il = 0; il < c->n_layer; il++) {
        uint32_t n = dim_of(layer_tensor(g, il, "ffn_gate_exps.weight"), 2);
        if (n > c->n_expert) c->n_expert = n;
    }
    uint32_t n_expert = c->n_expert, n_shared = 1, score = ROUTER_SQRT_SOFTPLUS, n_groups = 0;
    DS4_TRY(read_u32(g, PREFIX "expert_count", &n_expert, 1, 65536, err));
    if (!c->n_expert) c->n_expert = n_expert;
    DS4_TRY(read_u32(g, PREFIX "expert_used_count", &c->n_expert_used, 1, c->n_expert, err));
    DS4_TRY(read_u32(g, PREFIX "expert_shared_count", &n_shared, 1, 1, err));
    DS4_TRY(read_u32(g, PREFIX "expert_feed_forward_length", &c->n_ff, 1, CONFIG_MAX_WIDTH, err));
    DS4_TRY(read_u32(g, PREFIX "expert_group_count", &n_groups, 0, 1, err));
    DS4_TRY(read_u32(g, PREFIX "expert_gating_func", &score, 1, 4, err));
    if (score != ROUTER_SOFTMAX && score != ROUTER_SIGMOID && score != ROUTER_SQRT_SOFTPLUS)
        return ds4_fail(err, DS4_EFORMAT, "%s: '" PREFIX "expert_gating_func': found %u, expected 1 "
                        "(softmax), 2 (sigmoid) or 4 (sqrt(softplus))", gguf_path(g), score);
    c->score = (router_score)score;
    c->is_weight_normed = true;
    bool found;
    DS4_TRY(gguf_get_bool(g, PREFIX "expert_weights_norm", &c->is_weight_normed, &found, err));
    if (c->score == ROUTER_SOFTMAX) c->is_weight_normed = false; /* they are normalised already */
    DS4_TRY(read_f32(g, PREFIX "expert_weights_scale", &c->weight_scale, -1e6f, 1e6f, err));
    DS4_TRY(read_u32(g, PREFIX "hash_layer_count", &c->n_hash_layer, 0, c->n_layer, err));
    DS4_TRY(read_clamps(c, g, PREFIX "swiglu_clamp_exp", c->clamp, NULL, err));
    return read_clamps(c, g, PREFIX "swiglu_clamp_shexp", c->clamp_shared, c->clamp, err);
}

static ds4_status read_attention(config *c, const gguf *g, ds4_error *err) {
    const uint32_t max = CONFIG_MAX_WIDTH;
    uint32_t       n_kv = 1, value_length = 0;
    DS4_TRY(read_u32(g, PREFIX "attention.head_count", &c->n_head, 1, 65536, err));
    DS4_TRY(read_u32(g, PREFIX "attention.head_count_kv", &n_kv, 1, 1, err));
    DS4_TRY(read_u32(g, PREFIX "attention.key_length", &c->head_dim, 2, 65536, err));
    value_length = c->head_dim;
    DS4_TRY(read_u32(g, PREFIX "attention.value_length", &value_length, c->head_dim, c->head_dim, err));
    DS4_TRY(read_u32(g, PREFIX "rope.dimension_count", &c->n_rot, 2, c->head_dim, err));
    DS4_TRY(read_u32(g, PREFIX "attention.q_lora_rank", &c->n_q_rank, 1, max, err));
    DS4_TRY(read_u32(g, PREFIX "attention.output_group_count", &c->n_out_group, 1, c->n_head, err));
    DS4_TRY(read_u32(g, PREFIX "attention.output_lora_rank", &c->n_out_rank, 1, max, err));
    DS4_TRY(read_u32(g, PREFIX "attention.sliding_window", &c->window, 1, max, err));
    DS4_TRY(read_ratios(c, g, err));
    bool has_index = false;
    for (uint32_t il = 0; il < c->n_layer; il++) has_index |= c->ratio[il] == 4;
    if (has_index) {
        DS4_TRY(read_u32(g, PREFIX "attention.indexer.head_count", &c->n_index_head, 1, 65536, err));
        DS4_TRY(read_u32(g, PREFIX "attention.indexer.key_length", &c->index_dim, 2, 65536, err));
        DS4_TRY(read_u32(g, PREFIX "attention.indexer.top_k", &c->index_top_k, 1, max, err));
    } else {
        c->n_index_head = c->index_dim = c->index_top_k = 0;
    }
    if (c->n_head % c->n_out_group || c->head_dim % 2 || c->n_rot % 2)
        return ds4_fail(err, DS4_EFORMAT, "%s: %u heads of %u with %u rotary in %u output groups: expected "
                        "even widths, and heads divisible by groups", gguf_path(g), c->n_head, c->head_dim,
                        c->n_rot, c->n_out_group);
    if (has_index && (c->index_dim < c->n_rot || (c->index_dim & (c->index_dim - 1)) != 0))
        return ds4_fail(err, DS4_EFORMAT, "%s: '" PREFIX "attention.indexer.key_length': found %u, expected "
                        "a power of two, at least %u", gguf_path(g), c->index_dim, c->n_rot);
    return DS4_OK;
}

/* Widths that are products of two keys. */
static ds4_status check_products(const config *c, const gguf *g, ds4_error *err) {
    const struct {
        const char *what;
        uint32_t    n, width;
    } products[] = {
        {"streams", c->n_stream, c->n_embd},
        {"heads", c->n_head, c->head_dim},
        {"indexer heads", c->n_index_head, c->index_dim},
        {"output groups", c->n_out_group, c->n_out_rank},
    };
    const uint64_t max = CONFIG_MAX_WIDTH * 4u;
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        uint64_t total = (uint64_t)products[i].n * products[i].width;
        if (total > max)
            return ds4_fail(err, DS4_EFORMAT, "%s: found %u %s of %u, expected at most %llu in all",
                            gguf_path(g), products[i].n, products[i].what, products[i].width,
                            (unsigned long long)max);
    }
    return DS4_OK;
}

/* Family B appends the MTP block to the layers: block_count then counts it. */
static void split_off_mtp(config *c, const gguf *g) {
    while (c->n_layer > 1 && layer_tensor(g, c->n_layer - 1, "nextn.hnorm.weight")) {
        c->n_layer--;
        c->n_mtp++;
    }
}

ds4_status config_read(config *out, const gguf *g, ds4_error *err) {
    config  c;
    strview architecture;
    memset(&c, 0, sizeof c); /* padding too: the fingerprint reads the struct as bytes */
    DS4_TRY(gguf_get_string(g, "general.architecture", &architecture, NULL, err));
    if (!strview_equal(architecture, STRVIEW("deepseek4")))
        return ds4_fail(err, DS4_EUNSUPPORTED, "%s: 'general.architecture': found '%s', expected "
                        "'deepseek4'", gguf_path(g), gguf_show(architecture).text);
    DS4_TRY(read_u32(g, PREFIX "block_count", &c.n_layer, 1, CONFIG_MAX_LAYERS - 1, err));
    split_off_mtp(&c, g);
    derive_shape(&c, g);

    DS4_TRY(read_u32(g, PREFIX "context_length", &c.n_ctx, 1, CONFIG_MAX_POS, err));
    DS4_TRY(read_u32(g, PREFIX "embedding_length", &c.n_embd, 1, CONFIG_MAX_WIDTH, err));
    const gguf_kv *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    if (tokens && tokens->n_items <= CONFIG_MAX_WIDTH) c.n_vocab = (uint32_t)tokens->n_items;
    DS4_TRY(read_u32(g, PREFIX "vocab_size", &c.n_vocab, 1, CONFIG_MAX_WIDTH, err));
    DS4_TRY(read_u32(g, PREFIX "hyper_connection.count", &c.n_stream, 1, CONFIG_MAX_STREAMS, err));
    DS4_TRY(read_u32(g, PREFIX "hyper_connection.sinkhorn_iterations", &c.n_sinkhorn, 1, 1000, err));
    DS4_TRY(read_f32(g, PREFIX "hyper_connection.epsilon", &c.eps_hc, 0, 1, err));
    DS4_TRY(read_f32(g, PREFIX "attention.layer_norm_rms_epsilon", &c.eps, 0, 1, err));
    DS4_TRY(read_attention(&c, g, err));
    DS4_TRY(read_experts(&c, g, err));
    DS4_TRY(read_rope(&c, g, err));
    DS4_TRY(check_products(&c, g, err));
    memcpy(out, &c, sizeof c);
    return DS4_OK;
}

cache_layer config_cache_layer(const config *c, uint32_t il) {
    uint32_t ratio = il < c->n_layer ? c->ratio[il] : 0;
    return (cache_layer){.head_dim = c->head_dim,
                         .rot_dim = c->n_rot,
                         .window = c->window,
                         .ratio = ratio,
                         .index_dim = ratio == 4 ? c->index_dim : 0};
}

float config_index_scale(const config *c) {
    return 1.0f / sqrtf((float)c->index_dim * (float)c->n_index_head);
}

/* The pair of dimensions that turns `n_turns` times over the original context. */
static double yarn_dim(const config_rope *r, uint32_t n_rot, double n_turns) {
    const double two_pi = 6.283185307179586;
    return n_rot * log((double)r->original_ctx / (n_turns * two_pi)) / (2 * log((double)r->base));
}

void config_rope_table(const config_rope *r, uint32_t n_rot, float *freq) {
    double lo = 0, hi = 0;
    if (r->factor > 1) {
        lo = fmax(floor(yarn_dim(r, n_rot, (double)r->beta_fast)), 0);
        hi = fmin(ceil(yarn_dim(r, n_rot, (double)r->beta_slow)), n_rot - 1);
        if (lo == hi) hi += 0.001;
    }
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        double f = 1.0 / pow((double)r->base, 2.0 * i / n_rot);
        if (r->factor > 1) {
            /* Slow pairs are stretched to the longer context, fast ones stay. */
            double ramp = fmin(fmax((i - lo) / (hi - lo), 0), 1);
            f = f * (1 - ramp) + f / (double)r->factor * ramp;
        }
        freq[i] = (float)f;
    }
}
