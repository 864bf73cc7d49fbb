#include "tests/support/randmodel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "format/gguf_write.h"

/* ---- random numbers: a counter, mixed ---- */

static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t random_below(uint64_t *state, uint32_t n) {
    return (uint32_t)(next_random(state) % n);
}

static uint32_t random_of(uint64_t *state, const uint32_t *choices, uint32_t n) {
    return choices[random_below(state, n)];
}
#define RANDOM_OF(state, ...)                                                                      \
    random_of(state, (const uint32_t[]){__VA_ARGS__},                                              \
              sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* Uniform in [-1, 1). */
static float random_float(uint64_t *state) {
    return (float)(next_random(state) >> 40) * 0x1p-23f - 1.0f;
}

/* ---- shapes ---- */

randmodel_shape randmodel_shape_default(void) {
    return (randmodel_shape){
        .n_layer = 5,
        .ratio = {0, 4, 8, 4, 16},
        .n_embd = 96,
        .n_head = 4,
        .head_dim = 48,
        .n_rot = 16,
        .n_q_rank = 64,
        .n_out_group = 2,
        .n_out_rank = 32,
        .window = 16,
        .n_index_head = 3,
        .index_dim = 32,
        .index_top_k = 6,
        .n_stream = 4,
        .n_expert = 8,
        .n_expert_used = 2,
        .n_ff = 64,
        .n_hash_layer = 2,
        .n_vocab = 288,
        .n_ctx = 4096,
        .has_yarn = true,
        .gating = 4,
        .clamp = 10,
        .clamp_shared = 10,
        .weight_scale = 1.5f,
        .types =
            {
                [RANDMODEL_EMBEDDING] = QUANT_F16,
                [RANDMODEL_ATTENTION] = QUANT_Q8_0,
                [RANDMODEL_SHARED] = QUANT_Q8_0,
                [RANDMODEL_ROUTED] = QUANT_MXFP4,
                [RANDMODEL_ROUTED_DOWN] = QUANT_MXFP4,
                [RANDMODEL_OUTPUT] = QUANT_Q8_0,
                [RANDMODEL_HC] = QUANT_F16,
                [RANDMODEL_COMPRESSOR] = QUANT_F16,
                [RANDMODEL_INDEXER] = QUANT_F16,
                [RANDMODEL_ROUTER] = QUANT_F16,
            },
    };
}

static quant_type random_type(uint64_t *r) {
    size_t n;
    const quant_info *table = quant_table(&n);
    for (;;) {
        const quant_info *info = &table[random_below(r, (uint32_t)n)];
        if (info->is_matrix) return info->type;
    }
}

/* Of one of the three matrices of all experts: keeps whole models small. */
enum { MAX_EXPERT_ELEMS = 400 * 1000 };

randmodel_shape randmodel_shape_random(uint64_t seed) {
    uint64_t state = seed, *r = &state;
    randmodel_shape s = {0};
    s.n_layer = 2 + random_below(r, 5);
    for (uint32_t il = 0; il < s.n_layer; il++)
        s.ratio[il] = RANDOM_OF(r, 0, 4, 4, 4, 8, 16, 3, 128);
    s.n_embd = RANDOM_OF(r, 64, 72, 96, 160, 256, 256, 512);
    s.n_head = RANDOM_OF(r, 2, 4, 6, 8);
    s.head_dim = RANDOM_OF(r, 32, 48, 64, 80, 128);
    s.n_rot = RANDOM_OF(r, 4, 8, 16, 32);
    s.n_q_rank = RANDOM_OF(r, 40, 64, 96, 256);
    s.n_out_group = RANDOM_OF(r, 1, 2);
    s.n_out_rank = RANDOM_OF(r, 20, 32, 64, 128);
    s.window = 8 + random_below(r, 33);
    s.n_index_head = 1 + random_below(r, 8);
    s.index_dim = RANDOM_OF(r, 32, 64, 128);
    s.index_top_k = 1 + random_below(r, 12);
    s.n_stream = RANDOM_OF(r, 4, 4, 2, 3);
    s.n_ff = RANDOM_OF(r, 24, 32, 96, 256);
    s.n_expert = RANDOM_OF(r, 3, 7, 8, 16, 64);
    while (s.n_expert > 3 && s.n_expert * s.n_ff * s.n_embd > MAX_EXPERT_ELEMS) s.n_expert /= 2;
    s.n_expert_used = s.n_expert == 64 ? 2 : 1 + random_below(r, s.n_expert < 6 ? s.n_expert : 6);
    s.n_hash_layer = random_below(r, s.n_layer < 3 ? s.n_layer + 1 : 4);
    s.n_vocab = RANDMODEL_MIN_VOCAB + random_below(r, 100);
    s.n_ctx = RANDOM_OF(r, 2048, 4096);
    s.has_yarn = random_below(r, 3) != 0;
    s.has_mtp = random_below(r, 2);
    s.has_wide_table = random_below(r, 3) == 0;
    s.gating = RANDOM_OF(r, 4, 4, 4, 1, 2);
    s.clamp = (float)RANDOM_OF(r, 10, 10, 2, 1, 0);
    s.clamp_shared = random_below(r, 2) ? s.clamp : (float)RANDOM_OF(r, 10, 1, 0);
    s.weight_scale = 0.5f * (float)RANDOM_OF(r, 2, 3, 5);
    for (int i = 0; i < RANDMODEL_N_CLASSES; i++) s.types[i] = random_type(r);
    return s;
}

static ds4_status check_shape(const randmodel_shape *s, ds4_error *err) {
    const char *what = NULL;
    if (s->n_layer < 1 || s->n_layer > RANDMODEL_MAX_LAYERS)
        what = "n_layer";
    else if (s->n_vocab < RANDMODEL_MIN_VOCAB)
        what = "n_vocab";
    else if (!s->n_embd || !s->n_head || !s->n_q_rank || !s->n_out_rank || !s->n_stream ||
             !s->n_ff || !s->window || !s->n_ctx)
        what = "a dimension of 0";
    else if (s->n_out_group < 1 || s->n_head % s->n_out_group)
        what = "n_out_group";
    else if (s->n_rot < 2 || s->n_rot % 2 || s->head_dim % 2 || s->n_rot > s->head_dim)
        what = "n_rot";
    else if (s->n_index_head < 1 || s->index_top_k < 1 || s->index_dim < s->n_rot ||
             (s->index_dim & (s->index_dim - 1)))
        what = "indexer";
    else if (s->n_expert_used < 1 || s->n_expert_used > s->n_expert)
        what = "n_expert_used";
    else if (s->n_hash_layer > s->n_layer)
        what = "n_hash_layer";
    if (!what) return DS4_OK;
    return ds4_fail(err, DS4_EINVAL, "randmodel: shape contradicts itself: %s", what);
}

/* ---- tensors ---- */

/* A model under way. Tensor data lives in the arena until the file is written. */
typedef struct {
    const randmodel_shape *s;
    uint64_t seed;
    gguf_writer *w;
    arena a;
    char prefix[24]; /* "", "blk.3." or "mtp.0." */
    bool is_out_of_memory;
} builder;

/* Memory of a tensor, and the start of its own random sequence; NULL when memory runs out. */
static void *new_tensor(builder *b, const char *name, size_t n_bytes, char full[96],
                        uint64_t *state) {
    snprintf(full, 96, "%s%s", b->prefix, name);
    *state = hash64(full, strlen(full), b->seed);
    void *data = arena_alloc(&b->a, n_bytes);
    if (!data) b->is_out_of_memory = true;
    return data;
}

static quant_type type_for(const randmodel_shape *s, randmodel_class class, uint32_t n_in) {
    quant_type type = s->types[class];
    if (n_in % quant_find(type)->block_elems != 0) type = QUANT_Q8_0;
    return n_in % quant_find(type)->block_elems != 0 ? QUANT_F16 : type;
}

/* n_slices matrices {n_in, n_out}; a product with inputs near 1 is near `gain`. */
static void add_matrix(builder *b, const char *name, randmodel_class class, uint32_t n_in,
                       uint32_t n_out, uint32_t n_slices, float gain) {
    char full[96];
    uint64_t state;
    uint64_t ne[3] = {n_in, n_out, n_slices};
    const quant_info *info = quant_find(type_for(b->s, class, n_in));
    size_t n_elems = (size_t)n_in * n_out * n_slices;
    size_t n_bytes = quant_row_bytes(info, n_elems);
    uint8_t *data = new_tensor(b, name, n_bytes, full, &state);
    if (!data) return;
    for (size_t i = 0; i < n_bytes; i += sizeof state) {
        uint64_t bits = next_random(&state);
        memcpy(data + i, &bits, n_bytes - i < sizeof bits ? n_bytes - i : sizeof bits);
    }
    quant_tame_row(info->type, data, n_elems, gain / sqrtf((float)n_in));
    gguf_add_tensor(b->w, full, info->type, n_slices > 1 ? 3 : 2, ne, data);
}

/* F32 values within `spread` of `center`, {n} or {n, n_rows}. */
static void add_floats(builder *b, const char *name, uint32_t n, uint32_t n_rows, float center,
                       float spread) {
    char full[96];
    uint64_t state, ne[2] = {n, n_rows};
    float *data = new_tensor(b, name, (size_t)n * n_rows * sizeof *data, full, &state);
    if (!data) return;
    for (size_t i = 0; i < (size_t)n * n_rows; i++)
        data[i] = center + spread * random_float(&state);
    gguf_add_tensor(b->w, full, QUANT_F32, n_rows > 1 ? 2 : 1, ne, data);
}

static void add_norm(builder *b, const char *name, uint32_t n) {
    add_floats(b, name, n, 1, 1.0f, 0.25f);
}

/* For each token k different experts: the first k of a shuffled list. */
static void add_token_table(builder *b, const char *name) {
    const randmodel_shape *s = b->s;
    char full[96];
    uint64_t state, ne[2] = {s->n_expert_used, s->n_vocab};
    size_t n = (size_t)s->n_expert_used * s->n_vocab;
    int64_t *wide = new_tensor(b, name, n * sizeof *wide, full, &state);
    int32_t *narrow = arena_array(&b->a, n, sizeof *narrow);
    int32_t *order = arena_array(&b->a, s->n_expert, sizeof *order);
    b->is_out_of_memory |= !wide || !narrow || !order;
    if (b->is_out_of_memory) return;
    for (uint32_t e = 0; e < s->n_expert; e++) order[e] = (int32_t)e;
    for (size_t i = 0; i < n; i++) {
        uint32_t at = (uint32_t)(i % s->n_expert_used);
        uint32_t other = at + random_below(&state, s->n_expert - at);
        int32_t chosen = order[other];
        order[other] = order[at];
        wide[i] = narrow[i] = order[at] = chosen;
    }
    if (s->has_wide_table)
        gguf_add_tensor(b->w, full, QUANT_I64, 2, ne, wide);
    else
        gguf_add_tensor(b->w, full, QUANT_I32, 2, ne, narrow);
}

static void add_hc(builder *b, const char *stem, bool is_head) {
    const randmodel_shape *s = b->s;
    uint32_t n_out = is_head ? s->n_stream : (2 + s->n_stream) * s->n_stream;
    char name[48];
    snprintf(name, sizeof name, "%s_fn.weight", stem);
    add_matrix(b, name, RANDMODEL_HC, s->n_stream * s->n_embd, n_out, 1, 1.0f);
    snprintf(name, sizeof name, "%s_base.weight", stem);
    add_floats(b, name, n_out, 1, 0.0f, 1.0f);
    snprintf(name, sizeof name, "%s_scale.weight", stem);
    add_floats(b, name, is_head ? 1 : 3, 1, 0.75f, 0.25f);
}

static void add_attention(builder *b) {
    const randmodel_shape *s = b->s;
    uint32_t n_heads_out = s->n_head * s->head_dim, n_latent = s->n_out_group * s->n_out_rank;
    add_norm(b, "attn_norm.weight", s->n_embd);
    add_matrix(b, "attn_q_a.weight", RANDMODEL_ATTENTION, s->n_embd, s->n_q_rank, 1, 1.0f);
    add_norm(b, "attn_q_a_norm.weight", s->n_q_rank);
    add_matrix(b, "attn_q_b.weight", RANDMODEL_ATTENTION, s->n_q_rank, n_heads_out, 1, 1.0f);
    add_matrix(b, "attn_kv.weight", RANDMODEL_ATTENTION, s->n_embd, s->head_dim, 1, 1.0f);
    add_norm(b, "attn_kv_a_norm.weight", s->head_dim);
    add_floats(b, "attn_sinks.weight", s->n_head, 1, 0.0f, 1.0f);
    add_matrix(b, "attn_output_a.weight", RANDMODEL_ATTENTION, n_heads_out / s->n_out_group,
               n_latent, 1, 1.0f);
    add_matrix(b, "attn_output_b.weight", RANDMODEL_ATTENTION, n_latent, s->n_embd, 1, 1.5f);
}

static void add_compressor(builder *b, const char *stem, uint32_t width, uint32_t ratio) {
    uint32_t n_out = ratio == 4 ? 2 * width : width; /* two lanes where windows overlap */
    char name[48];
    snprintf(name, sizeof name, "%s_kv.weight", stem);
    add_matrix(b, name, RANDMODEL_COMPRESSOR, b->s->n_embd, n_out, 1, 1.0f);
    snprintf(name, sizeof name, "%s_gate.weight", stem);
    add_matrix(b, name, RANDMODEL_COMPRESSOR, b->s->n_embd, n_out, 1, 1.0f);
    snprintf(name, sizeof name, "%s_ape.weight", stem);
    add_floats(b, name, n_out, ratio, 0.0f, 1.0f);
    snprintf(name, sizeof name, "%s_norm.weight", stem);
    add_norm(b, name, width);
}

static void add_indexer(builder *b, uint32_t ratio) {
    const randmodel_shape *s = b->s;
    add_matrix(b, "indexer.attn_q_b.weight", RANDMODEL_INDEXER, s->n_q_rank,
               s->n_index_head * s->index_dim, 1, 1.0f);
    add_matrix(b, "indexer.proj.weight", RANDMODEL_INDEXER, s->n_embd, s->n_index_head, 1, 1.0f);
    add_compressor(b, "indexer_compressor", s->index_dim, ratio);
}

static void add_experts(builder *b, bool is_hash) {
    const randmodel_shape *s = b->s;
    add_norm(b, "ffn_norm.weight", s->n_embd);
    add_matrix(b, "ffn_gate_inp.weight", RANDMODEL_ROUTER, s->n_embd, s->n_expert, 1, 2.0f);
    if (is_hash)
        add_token_table(b, "ffn_gate_tid2eid.weight");
    else
        add_floats(b, "exp_probs_b.bias", s->n_expert, 1, 0.0f, 0.3f);
    add_matrix(b, "ffn_gate_exps.weight", RANDMODEL_ROUTED, s->n_embd, s->n_ff, s->n_expert, 1.5f);
    add_matrix(b, "ffn_up_exps.weight", RANDMODEL_ROUTED, s->n_embd, s->n_ff, s->n_expert, 1.5f);
    add_matrix(b, "ffn_down_exps.weight", RANDMODEL_ROUTED_DOWN, s->n_ff, s->n_embd, s->n_expert,
               1.0f);
    add_matrix(b, "ffn_gate_shexp.weight", RANDMODEL_SHARED, s->n_embd, s->n_ff, 1, 1.5f);
    add_matrix(b, "ffn_up_shexp.weight", RANDMODEL_SHARED, s->n_embd, s->n_ff, 1, 1.5f);
    add_matrix(b, "ffn_down_shexp.weight", RANDMODEL_SHARED, s->n_ff, s->n_embd, 1, 1.0f);
}

static void add_block(builder *b, uint32_t ratio, bool is_hash) {
    add_hc(b, "hc_attn", false);
    add_hc(b, "hc_ffn", false);
    add_attention(b);
    if (ratio) add_compressor(b, "attn_compressor", b->s->head_dim, ratio);
    if (ratio == 4) add_indexer(b, ratio);
    add_experts(b, is_hash);
}

static void add_mtp(builder *b) {
    uint32_t n_embd = b->s->n_embd;
    snprintf(b->prefix, sizeof b->prefix, "mtp.0.");
    add_matrix(b, "e_proj.weight", RANDMODEL_ATTENTION, n_embd, n_embd, 1, 0.7f);
    add_matrix(b, "h_proj.weight", RANDMODEL_ATTENTION, n_embd, n_embd, 1, 0.7f);
    add_norm(b, "enorm.weight", n_embd);
    add_norm(b, "hnorm.weight", n_embd);
    add_block(b, 0, false);
    add_norm(b, "norm.weight", n_embd);
    add_hc(b, "hc_head", true);
}

static void add_tensors(builder *b) {
    const randmodel_shape *s = b->s;
    /* Rows of the embedding are inputs, not sums: rms 1 whatever their length. */
    add_matrix(b, "token_embd.weight", RANDMODEL_EMBEDDING, s->n_embd, s->n_vocab, 1,
               sqrtf((float)s->n_embd));
    for (uint32_t il = 0; il < s->n_layer; il++) {
        snprintf(b->prefix, sizeof b->prefix, "blk.%u.", il);
        add_block(b, s->ratio[il], il < s->n_hash_layer);
    }
    b->prefix[0] = 0;
    add_hc(b, "output_hc", true);
    add_norm(b, "output_norm.weight", s->n_embd);
    add_matrix(b, "output.weight", RANDMODEL_OUTPUT, s->n_embd, s->n_vocab, 1, 2.5f);
    if (s->has_mtp) add_mtp(b);
}

/* ---- keys ---- */

#define PREFIX "deepseek4."

/* The character that stands for a byte in the byte alphabet of GPT-2: printable Latin-1 stands for
 * itself, the other bytes in order for U+0100 and on. */
static uint32_t byte_character(uint32_t byte) {
    uint32_t n_other = 0;
    for (uint32_t c = 0; c <= byte; c++) {
        bool is_printable = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || c >= 174;
        if (c == byte) return is_printable ? byte : 256 + n_other;
        n_other += !is_printable;
    }
    return 0;
}

static void add_vocabulary(builder *b) {
    static const char *const first[] = {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>",
                                        "<｜▁pad▁｜>"};
    static const char *const markers[] = {
        "<｜User｜>",      "<｜Assistant｜>",       "<think>",         "</think>",
        "｜DSML｜",        "<｜latest_reminder｜>", "<｜action｜>",    "<｜query｜>",
        "<｜authority｜>", "<｜domain｜>",          "<｜title｜>",     "<｜read_url｜>",
        "<｜EOT｜>",       "<｜fim▁hole｜>",        "<｜fim▁begin｜>", "<｜fim▁end｜>",
    };
    enum { N_MARKERS = sizeof markers / sizeof *markers, TEXT_BYTES = 32 };
    enum { CONTROL = 3, NORMAL = 1, UNUSED = 5 };
    uint32_t n = b->s->n_vocab;
    strview *tokens = arena_array(&b->a, n, sizeof *tokens);
    int32_t *types = arena_array(&b->a, n, sizeof *types);
    char *text = arena_array(&b->a, n, TEXT_BYTES);
    b->is_out_of_memory |= !tokens || !types || !text;
    if (b->is_out_of_memory) return;
    for (uint32_t id = 0; id < n; id++, text += TEXT_BYTES) {
        uint32_t byte = id - RANDMODEL_FIRST_BYTE, marker = byte - 256;
        types[id] = byte < 256 ? NORMAL : CONTROL;
        if (id < RANDMODEL_FIRST_BYTE) {
            snprintf(text, TEXT_BYTES, "%s", first[id]);
        } else if (byte < 256) {
            utf8_encode(byte_character(byte), text);
        } else if (marker < N_MARKERS) {
            snprintf(text, TEXT_BYTES, "%s", markers[marker]);
        } else {
            snprintf(text, TEXT_BYTES, "<unused_%u>", id);
            types[id] = UNUSED;
        }
        tokens[id] = (strview){text, strlen(text)};
    }
    gguf_add_string(b->w, "tokenizer.ggml.model", STRVIEW("gpt2"));
    gguf_add_string(b->w, "tokenizer.ggml.pre", STRVIEW("joyai-llm"));
    gguf_add_strings(b->w, "tokenizer.ggml.tokens", tokens, n);
    gguf_add_array(b->w, "tokenizer.ggml.token_type", GGUF_I32, types, n);
    gguf_add_strings(b->w, "tokenizer.ggml.merges", NULL, 0);
    gguf_add_u32(b->w, "tokenizer.ggml.bos_token_id", 0);
    gguf_add_u32(b->w, "tokenizer.ggml.eos_token_id", 1);
    gguf_add_u32(b->w, "tokenizer.ggml.padding_token_id", 2);
    gguf_add_bool(b->w, "tokenizer.ggml.add_bos_token", false);
}

static void add_attention_keys(gguf_writer *w, const randmodel_shape *s) {
    int32_t ratios[RANDMODEL_MAX_LAYERS + 1] = {0}; /* the MTP block's, behind the layers, is 0 */
    for (uint32_t il = 0; il < s->n_layer; il++) ratios[il] = (int32_t)s->ratio[il];
    gguf_add_u32(w, PREFIX "attention.head_count", s->n_head);
    gguf_add_u32(w, PREFIX "attention.head_count_kv", 1);
    gguf_add_u32(w, PREFIX "attention.key_length", s->head_dim);
    gguf_add_u32(w, PREFIX "attention.value_length", s->head_dim);
    gguf_add_f32(w, PREFIX "attention.layer_norm_rms_epsilon", 1e-6f);
    gguf_add_u32(w, PREFIX "attention.q_lora_rank", s->n_q_rank);
    gguf_add_u32(w, PREFIX "attention.output_lora_rank", s->n_out_rank);
    gguf_add_u32(w, PREFIX "attention.output_group_count", s->n_out_group);
    gguf_add_u32(w, PREFIX "attention.sliding_window", s->window);
    gguf_add_array(w, PREFIX "attention.compress_ratios", GGUF_I32, ratios,
                   s->n_layer + s->has_mtp);
    gguf_add_f32(w, PREFIX "attention.compress_rope_freq_base", 160000.0f);
    gguf_add_u32(w, PREFIX "attention.indexer.head_count", s->n_index_head);
    gguf_add_u32(w, PREFIX "attention.indexer.key_length", s->index_dim);
    gguf_add_u32(w, PREFIX "attention.indexer.top_k", s->index_top_k);
    gguf_add_u32(w, PREFIX "rope.dimension_count", s->n_rot);
    gguf_add_f32(w, PREFIX "rope.freq_base", 10000.0f);
    gguf_add_string(w, PREFIX "rope.scaling.type", s->has_yarn ? STRVIEW("yarn") : STRVIEW("none"));
    gguf_add_f32(w, PREFIX "rope.scaling.factor", s->has_yarn ? 16.0f : 1.0f);
    gguf_add_u32(w, PREFIX "rope.scaling.original_context_length", 1024);
    gguf_add_f32(w, PREFIX "rope.scaling.yarn_beta_fast", 32.0f);
    gguf_add_f32(w, PREFIX "rope.scaling.yarn_beta_slow", 1.0f);
}

static void add_keys(builder *b) {
    const randmodel_shape *s = b->s;
    gguf_writer *w = b->w;
    float clamps[RANDMODEL_MAX_LAYERS], clamps_shared[RANDMODEL_MAX_LAYERS];
    for (uint32_t il = 0; il < s->n_layer; il++) {
        clamps[il] = s->clamp;
        clamps_shared[il] = s->clamp_shared;
    }
    gguf_add_string(w, "general.architecture", STRVIEW("deepseek4"));
    gguf_add_string(w, "general.name", STRVIEW("random"));
    gguf_add_u32(w, PREFIX "block_count", s->n_layer);
    gguf_add_u32(w, PREFIX "context_length", s->n_ctx);
    gguf_add_u32(w, PREFIX "embedding_length", s->n_embd);
    gguf_add_u32(w, PREFIX "vocab_size", s->n_vocab);
    add_attention_keys(w, s);
    gguf_add_u32(w, PREFIX "expert_count", s->n_expert);
    gguf_add_u32(w, PREFIX "expert_used_count", s->n_expert_used);
    gguf_add_u32(w, PREFIX "expert_shared_count", 1);
    gguf_add_u32(w, PREFIX "expert_feed_forward_length", s->n_ff);
    gguf_add_f32(w, PREFIX "expert_weights_scale", s->weight_scale);
    gguf_add_bool(w, PREFIX "expert_weights_norm", true);
    gguf_add_u32(w, PREFIX "expert_gating_func", s->gating);
    gguf_add_u32(w, PREFIX "expert_group_count", 0);
    gguf_add_u32(w, PREFIX "expert_group_used_count", 0);
    gguf_add_u32(w, PREFIX "hash_layer_count", s->n_hash_layer);
    gguf_add_array(w, PREFIX "swiglu_clamp_exp", GGUF_F32, clamps, s->n_layer);
    gguf_add_array(w, PREFIX "swiglu_clamp_shexp", GGUF_F32, clamps_shared, s->n_layer);
    gguf_add_u32(w, PREFIX "hyper_connection.count", s->n_stream);
    gguf_add_u32(w, PREFIX "hyper_connection.sinkhorn_iterations", 20);
    gguf_add_f32(w, PREFIX "hyper_connection.epsilon", 1e-6f);
    gguf_add_u32(w, PREFIX "nextn_predict_layers", s->has_mtp);
    add_vocabulary(b);
}

/* ---- files ---- */

static ds4_status build(builder *b, ds4_error *err) {
    DS4_TRY(check_shape(b->s, err));
    DS4_TRY(gguf_writer_create(&b->w, 32, err));
    add_keys(b);
    add_tensors(b);
    return b->is_out_of_memory ? ds4_fail_nomem(err, "randmodel", b->a.n_bytes) : DS4_OK;
}

static void release(builder *b) {
    gguf_writer_destroy(b->w);
    arena_release(&b->a);
}

ds4_status randmodel_write_memory(const randmodel_shape *shape, uint64_t seed, void **data,
                                  size_t *n, ds4_error *err) {
    builder b = {.s = shape, .seed = seed};
    ds4_status status = build(&b, err);
    if (status == DS4_OK) status = gguf_writer_finish_memory(b.w, data, n, err);
    release(&b);
    return status;
}

ds4_status randmodel_write_file(const randmodel_shape *shape, uint64_t seed, const char *path,
                                ds4_error *err) {
    builder b = {.s = shape, .seed = seed};
    ds4_status status = build(&b, err);
    if (status == DS4_OK) status = gguf_writer_finish(b.w, path, err);
    release(&b);
    return status;
}
