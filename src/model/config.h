/* config.h - the shape of a model, read from its GGUF and checked against its tensors.
 *
 *   No number of a particular model stands in the code: a Flash, a Pro, the nano model and a tiny random
 *   one differ only in what is read here. Keys win; what a file leaves out is derived from the shapes of
 *   its tensors where that is possible.
 *
 *   Source   key and tensor names: docs/gguf.md of the formats; meaning: the published model.
 *   Owner    The caller stores the struct; config_read fills it; nothing to release.
 *   Errors   DS4_EFORMAT naming key or tensor, found and expected. */
#ifndef DS4_MODEL_CONFIG_H
#define DS4_MODEL_CONFIG_H

#include "backend/backend.h"
#include "format/gguf.h"

enum {
    CONFIG_MAX_LAYERS = 512,
    CONFIG_MAX_STREAMS = 16,
    CONFIG_MAX_WIDTH = 1 << 20, /* any row length */
    CONFIG_MAX_POS = 1 << 24,   /* floats count positions exactly up to here */
};

typedef struct {
    float base, factor, beta_fast, beta_slow; /* factor 1: no YaRN */
    float original_ctx;
} config_rope;

typedef struct {
    uint32_t n_layer; /* without MTP blocks */
    uint32_t n_embd, n_vocab, n_ctx;
    uint32_t n_head, head_dim, n_rot;
    uint32_t n_q_rank;                 /* query latent */
    uint32_t n_out_group, n_out_rank;  /* groups, and latent of each */
    uint32_t window;
    uint32_t n_index_head, index_dim, index_top_k; /* 0 if no layer has an indexer */
    uint32_t n_stream, n_sinkhorn;
    float    eps, eps_hc;
    uint32_t n_expert; /* the most of any layer */
    uint32_t n_expert_used, n_ff;
    router_score score;
    bool     is_weight_normed;
    float    weight_scale;
    uint32_t n_hash_layer; /* the first layers choose experts by token */
    uint32_t n_mtp;        /* MTP blocks that the file says to have behind the layers (family B) */
    config_rope rope_window;   /* layers of ratio 0 */
    config_rope rope_compress; /* all others */
    uint32_t ratio[CONFIG_MAX_LAYERS];        /* tokens behind a compressed row; 0: none */
    float    clamp[CONFIG_MAX_LAYERS];        /* of routed experts; <= 0: none */
    float    clamp_shared[CONFIG_MAX_LAYERS]; /* of the shared expert */
} config;

ds4_status config_read(config *c, const gguf *g, ds4_error *err);

/* What layer `il` keeps in its caches. il = n_layer: the MTP block. */
cache_layer config_cache_layer(const config *c, uint32_t il);

/* What the indexer's head weights are multiplied with: 1 / sqrt(index_dim * n_index_head). */
float config_index_scale(const config *c);

/* freq[n_rot / 2]: radians per position of each pair. */
void config_rope_table(const config_rope *rope, uint32_t n_rot, float *freq);

#endif
