/* test_config.c - shapes read from both file families, derived where keys are absent, and one line
 * for every value that cannot be right. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "tests/support/gguf_edit.h"

#define PREFIX "deepseek4."

static config read_ok(const gguf *g) {
    config c;
    ds4_error err = {0};
    if (config_read(&c, g, &err) != DS4_OK) fail_msg("%s", err.message);
    return c;
}

/* Refused with one line that holds all of `wanted`, parts separated by '|'; *out is untouched. */
static void refused(const gguf *g, const char *wanted) {
    config c;
    ds4_error err = {0};
    memset(&c, 0x5A, sizeof c);
    ds4_status status = config_read(&c, g, &err);
    if (status == DS4_OK) fail_msg("accepted, expected a message with '%s'", wanted);
    assert_true(status == DS4_EFORMAT || status == DS4_EUNSUPPORTED);
    assert_int_equal(err.code, status);
    for (size_t i = 0; i < sizeof c; i++) assert_int_equal(((unsigned char *)&c)[i], 0x5A);
    assert_null(strchr(err.message, '\n'));
    char part[128];
    for (const char *p = wanted; *p;) {
        size_t n = strcspn(p, "|");
        snprintf(part, sizeof part, "%.*s", (int)n, p);
        if (!strstr(err.message, part))
            fail_msg("found '%s', expected '%s' in it", err.message, part);
        p += n + (p[n] == '|');
    }
    assert_int_equal(config_read(&c, g, NULL), status);
}

/* ---- files that are as they should be ---- */

static void check_random(uint64_t seed, const randmodel_shape *s) {
    gguf_edit e;
    gguf_edit_init_random(&e, s, seed);
    config c = read_ok(gguf_edit_finish(&e));
    const struct {
        const char *what;
        uint32_t found, expected;
    } numbers[] = {
        {"n_layer", c.n_layer, s->n_layer},
        {"n_embd", c.n_embd, s->n_embd},
        {"n_vocab", c.n_vocab, s->n_vocab},
        {"n_ctx", c.n_ctx, s->n_ctx},
        {"n_head", c.n_head, s->n_head},
        {"head_dim", c.head_dim, s->head_dim},
        {"n_rot", c.n_rot, s->n_rot},
        {"n_q_rank", c.n_q_rank, s->n_q_rank},
        {"n_out_group", c.n_out_group, s->n_out_group},
        {"n_out_rank", c.n_out_rank, s->n_out_rank},
        {"window", c.window, s->window},
        {"n_stream", c.n_stream, s->n_stream},
        {"n_sinkhorn", c.n_sinkhorn, 20},
        {"n_expert", c.n_expert, s->n_expert},
        {"n_expert_used", c.n_expert_used, s->n_expert_used},
        {"n_ff", c.n_ff, s->n_ff},
        {"score", c.score, s->gating},
        {"is_weight_normed", c.is_weight_normed, s->gating != 1},
        {"n_hash_layer", c.n_hash_layer, s->n_hash_layer},
        {"n_mtp", c.n_mtp, 0},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].found != numbers[i].expected)
            fail_msg("seed %llu: %s: found %u, expected %u", (unsigned long long)seed,
                     numbers[i].what, numbers[i].found, numbers[i].expected);
    bool has_index = false;
    for (uint32_t il = 0; il < s->n_layer; il++) {
        assert_int_equal(c.ratio[il], s->ratio[il]);
        assert_true(c.clamp[il] == s->clamp && c.clamp_shared[il] == s->clamp_shared);
        has_index |= s->ratio[il] == 4;
    }
    assert_int_equal(c.n_index_head, has_index ? s->n_index_head : 0);
    assert_int_equal(c.index_dim, has_index ? s->index_dim : 0);
    assert_int_equal(c.index_top_k, has_index ? s->index_top_k : 0);
    assert_true(c.weight_scale == s->weight_scale);
    gguf_edit_release(&e);
}

static void test_random_shapes(void **state) {
    (void)state;
    randmodel_shape s = randmodel_shape_default();
    check_random(0, &s);
    for (uint64_t seed = 1; seed <= 12; seed++) {
        s = randmodel_shape_random(seed);
        check_random(seed, &s);
    }
}

/* 64 experts of which 2, and 384 of which 6: no number is special. */
static void test_expert_counts(void **state) {
    (void)state;
    static const uint32_t counts[][2] = {{64, 2}, {384, 6}, {16, 4}, {1, 1}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        randmodel_shape s = randmodel_shape_default();
        s.n_expert = counts[i][0];
        s.n_expert_used = counts[i][1];
        s.n_ff = 32;
        check_random(i, &s);
    }
}

static config read_file(const char *path) {
    gguf *g = NULL;
    ds4_error err = {0};
    if (gguf_open(&g, path, &err) != DS4_OK) fail_msg("%s", err.message);
    config c = read_ok(g);
    gguf_close(g);
    return c;
}

static void test_oracle_files(void **state) {
    (void)state;
    config a = read_file("tests/data/oracle/a/model.gguf");
    assert_int_equal(a.n_layer, 6);
    assert_int_equal(a.n_hash_layer, 3);
    assert_int_equal(a.n_embd, 96);
    assert_int_equal(a.window, 16);
    assert_int_equal(a.ratio[5], 128);
    assert_true(a.rope_compress.factor == 1); /* no YaRN */
    config b = read_file("tests/data/oracle/b/model.gguf");
    assert_int_equal(b.n_layer, 3);
    assert_int_equal(b.head_dim, 128);
    assert_int_equal(b.n_expert, 3);
    assert_int_equal(b.index_top_k, 64);
    config c = read_file("tests/data/oracle/c/model.gguf");
    assert_int_equal(c.n_out_group, 4);
    assert_int_equal(c.n_expert_used, 6);
    assert_true(c.rope_compress.factor == 4 && c.rope_compress.original_ctx == 4096);
    assert_true(c.clamp[2] == 1.5f && c.clamp_shared[0] == 1.5f && c.weight_scale == 2.5f);
}

static void test_nano_file(void **state) {
    (void)state;
    config c = read_file("models/nano/ds4-nano.gguf");
    assert_int_equal(c.n_layer, 6);
    assert_int_equal(c.n_embd, 256);
    assert_int_equal(c.n_vocab, 4096);
    assert_int_equal(c.n_expert, 6);
    assert_int_equal(c.n_expert_used, 2);
    assert_int_equal(c.index_dim, 128);
    assert_true(c.rope_compress.base == 160000 && c.rope_compress.factor == 16);
}

/* ---- the released model, from keys alone ---- */

static void add_flash_attention(gguf_writer *w) {
    gguf_add_u32(w, PREFIX "attention.head_count", 64);
    gguf_add_u32(w, PREFIX "attention.head_count_kv", 1);
    gguf_add_u32(w, PREFIX "attention.key_length", 512);
    gguf_add_u32(w, PREFIX "attention.value_length", 512);
    gguf_add_f32(w, PREFIX "attention.layer_norm_rms_epsilon", 1e-6f);
    gguf_add_u32(w, PREFIX "attention.q_lora_rank", 1024);
    gguf_add_u32(w, PREFIX "attention.output_lora_rank", 1024);
    gguf_add_u32(w, PREFIX "attention.output_group_count", 8);
    gguf_add_u32(w, PREFIX "attention.sliding_window", 128);
    gguf_add_f32(w, PREFIX "attention.compress_rope_freq_base", 160000.0f);
    gguf_add_u32(w, PREFIX "attention.indexer.head_count", 64);
    gguf_add_u32(w, PREFIX "attention.indexer.key_length", 128);
    gguf_add_u32(w, PREFIX "attention.indexer.top_k", 512);
    gguf_add_u32(w, PREFIX "rope.dimension_count", 64);
    gguf_add_f32(w, PREFIX "rope.freq_base", 10000.0f);
    gguf_add_string(w, PREFIX "rope.scaling.type", STRVIEW("yarn"));
    gguf_add_f32(w, PREFIX "rope.scaling.factor", 16.0f);
    gguf_add_f32(w, PREFIX "rope.scaling.yarn_beta_fast", 32.0f);
    gguf_add_f32(w, PREFIX "rope.scaling.yarn_beta_slow", 1.0f);
}

static void add_flash_rest(gguf_writer *w) {
    gguf_add_string(w, "general.architecture", STRVIEW("deepseek4"));
    gguf_add_u32(w, PREFIX "context_length", 1048576);
    gguf_add_u32(w, PREFIX "embedding_length", 4096);
    gguf_add_u32(w, PREFIX "expert_count", 256);
    gguf_add_u32(w, PREFIX "expert_used_count", 6);
    gguf_add_u32(w, PREFIX "expert_shared_count", 1);
    gguf_add_u32(w, PREFIX "expert_feed_forward_length", 2048);
    gguf_add_f32(w, PREFIX "expert_weights_scale", 1.5f);
    gguf_add_bool(w, PREFIX "expert_weights_norm", true);
    gguf_add_u32(w, PREFIX "hash_layer_count", 3);
    gguf_add_u32(w, PREFIX "hyper_connection.count", 4);
    gguf_add_u32(w, PREFIX "hyper_connection.sinkhorn_iterations", 20);
    gguf_add_f32(w, PREFIX "hyper_connection.epsilon", 1e-6f);
}

/* The keys of stock files (family A), or of converted ones with the MTP block behind the layers. */
static gguf *flash_file(bool is_converted, void **bytes) {
    enum { N = 43, N_BOTH = 44 };
    gguf_writer *w = NULL;
    gguf *g = NULL;
    size_t n;
    static const float ones[4] = {1, 1, 1, 1};
    int32_t ratios[N_BOTH];
    float clamps[N_BOTH];
    for (int il = 0; il < N_BOTH; il++) {
        ratios[il] = il < 2 || il == N ? 0 : il % 2 ? 128 : 4;
        clamps[il] = 10.0f;
    }
    assert_int_equal(gguf_writer_create(&w, 32, NULL), DS4_OK);
    add_flash_attention(w);
    add_flash_rest(w);
    gguf_add_array(w, PREFIX "swiglu_clamp_exp", GGUF_F32, clamps, is_converted ? N_BOTH : N);
    if (is_converted) {
        gguf_add_u32(w, PREFIX "block_count", N_BOTH);
        gguf_add_array(w, PREFIX "attention.compress_ratios", GGUF_U32, ratios, N_BOTH);
        gguf_add_array(w, PREFIX "swiglu_clamp_shexp", GGUF_F32, clamps, N_BOTH);
        gguf_add_u32(w, PREFIX "expert_gating_func", 4);
        gguf_add_u32(w, PREFIX "nextn_predict_layers", 1);
        gguf_add_u32(w, PREFIX "expert_group_count", 0);
        gguf_add_u64(w, PREFIX "rope.scaling.original_context_length", 65536);
        gguf_add_u32(w, PREFIX "vocab_size", 129280);
        gguf_add_u32(w, PREFIX "leading_dense_block_count", 0);
        gguf_add_tensor(w, "blk.43.nextn.hnorm.weight", QUANT_F32, 1, (uint64_t[]){4}, ones);
    } else {
        strview *tokens = calloc(129280, sizeof *tokens);
        gguf_add_u32(w, PREFIX "block_count", N);
        gguf_add_array(w, PREFIX "attention.compress_ratios", GGUF_I32, ratios, N);
        gguf_add_u32(w, PREFIX "rope.scaling.original_context_length", 65536);
        gguf_add_strings(w, "tokenizer.ggml.tokens", tokens, 129280); /* no vocab_size */
        free(tokens);
    }
    assert_int_equal(gguf_writer_finish_memory(w, bytes, &n, NULL), DS4_OK);
    assert_int_equal(gguf_open_memory(&g, *bytes, n, NULL), DS4_OK);
    gguf_writer_destroy(w);
    return g;
}

static void test_flash(void **state) {
    (void)state;
    config both[2];
    for (int is_converted = 0; is_converted < 2; is_converted++) {
        void *bytes;
        gguf *g = flash_file(is_converted, &bytes);
        config c = both[is_converted] = read_ok(g);
        assert_int_equal(c.n_layer, 43);
        assert_int_equal(c.n_mtp, is_converted);
        assert_int_equal(c.n_embd, 4096);
        assert_int_equal(c.n_vocab, 129280);
        assert_int_equal(c.n_ctx, 1048576);
        assert_int_equal(c.n_expert, 256);
        assert_int_equal(c.score, ROUTER_SQRT_SOFTPLUS);
        assert_true(c.is_weight_normed);
        assert_true(c.clamp_shared[42] == 10.0f && c.clamp[43] == 10.0f);
        assert_true(c.rope_window.base == 10000.0f && c.rope_window.factor == 1.0f);
        assert_true(c.rope_compress.original_ctx == 65536.0f);
        uint32_t n_csa = 0, n_hca = 0;
        for (uint32_t il = 0; il < c.n_layer; il++) {
            n_csa += c.ratio[il] == 4;
            n_hca += c.ratio[il] == 128;
        }
        assert_int_equal(n_csa, 21);
        assert_int_equal(n_hca, 20);
        assert_true(fabsf(config_index_scale(&c) - 0.01104854346f) < 1e-9f);
        gguf_close(g);
        free(bytes);
    }
    both[1].n_mtp = 0; /* nothing else may differ: sessions of both files mean the same model */
    assert_memory_equal(&both[0], &both[1], sizeof both[0]);
}

/* The check values of the published description. */
static void test_rope_table(void **state) {
    (void)state;
    static const struct {
        uint32_t i;
        float window, compress; /* 0: not given */
    } known[] = {
        {0, 1, 1},
        {1, 0.749894209f, 0.687656022f},
        {8, 0.1f, 0.05f},
        {15, 0, 3.63553858e-3f},
        {20, 0, 2.96977778e-4f},
        {25, 0, 5.37231267e-6f},
        {31, 1.33352143e-4f, 5.68052904e-7f},
    };
    void *bytes;
    gguf *g = flash_file(false, &bytes);
    config c = read_ok(g);
    float window[32], compress[32];
    config_rope_table(&c.rope_window, 64, window);
    config_rope_table(&c.rope_compress, 64, compress);
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        uint32_t i = known[k].i;
        assert_true(known[k].window == 0 || fabsf(window[i] / known[k].window - 1) < 2e-7f);
        assert_true(fabsf(compress[i] / known[k].compress - 1) < 2e-7f);
    }
    for (int i = 1; i < 32; i++)
        assert_true(window[i] < window[i - 1] && compress[i] < compress[i - 1]);
    gguf_close(g);
    free(bytes);
}

static void test_cache_layers(void **state) {
    (void)state;
    void *bytes;
    gguf *g = flash_file(true, &bytes);
    config c = read_ok(g);
    static const uint32_t layers[] = {0, 2, 3, 42, 43};
    static const uint32_t ratios[] = {0, 4, 128, 4, 0}, index_dims[] = {0, 128, 0, 128, 0};
    for (size_t i = 0; i < 5; i++) {
        cache_layer l = config_cache_layer(&c, layers[i]);
        assert_int_equal(l.head_dim, 512);
        assert_int_equal(l.rot_dim, 64);
        assert_int_equal(l.window, 128);
        assert_int_equal(l.ratio, ratios[i]);
        assert_int_equal(l.index_dim, index_dims[i]);
    }
    gguf_close(g);
    free(bytes);
}

/* ---- edited files ---- */

/* A model whose tensors tell as much as they can: all kinds of layers, the hash layers first. */
static void init(gguf_edit *e) {
    randmodel_shape s = randmodel_shape_default();
    gguf_edit_init_random(e, &s, 1);
}

/* Keys whose absence changes nothing, because the tensors or the format tell the same. */
static void test_derived(void **state) {
    (void)state;
    static const char *const keys[] = {
        "embedding_length",
        "vocab_size",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.q_lora_rank",
        "attention.output_lora_rank",
        "attention.output_group_count",
        "attention.compress_ratios",
        "attention.indexer.head_count",
        "attention.indexer.key_length",
        "expert_count",
        "expert_used_count",
        "expert_shared_count",
        "expert_feed_forward_length",
        "expert_weights_norm",
        "expert_gating_func",
        "expert_group_count",
        "expert_group_used_count",
        "hash_layer_count",
        "swiglu_clamp_shexp",
        "hyper_connection.count",
        "nextn_predict_layers",
    };
    enum { N = sizeof keys / sizeof *keys };
    gguf_edit e;
    init(&e);
    config whole = read_ok(gguf_edit_finish(&e));
    gguf_edit_release(&e);
    for (size_t i = 0; i <= N; i++) { /* each alone, then all at once */
        init(&e);
        for (size_t k = 0; k < N; k++) {
            char name[96];
            snprintf(name, sizeof name, PREFIX "%s", keys[k]);
            if (i == N || i == k) gguf_edit_drop(&e, name);
        }
        config c = read_ok(gguf_edit_finish(&e));
        if (memcmp(&c, &whole, sizeof c) != 0)
            fail_msg("without %s the shape differs", i == N ? "all keys" : keys[i]);
        gguf_edit_release(&e);
    }
}

static void test_missing(void **state) {
    (void)state;
    static const char *const keys[] = {
        "general.architecture",
        PREFIX "block_count",
        PREFIX "context_length",
        PREFIX "attention.layer_norm_rms_epsilon",
        PREFIX "attention.sliding_window",
        PREFIX "attention.compress_rope_freq_base",
        PREFIX "attention.indexer.top_k",
        PREFIX "rope.dimension_count",
        PREFIX "rope.freq_base",
        PREFIX "rope.scaling.factor",
        PREFIX "rope.scaling.original_context_length",
        PREFIX "rope.scaling.yarn_beta_fast",
        PREFIX "rope.scaling.yarn_beta_slow",
        PREFIX "expert_weights_scale",
        PREFIX "hyper_connection.sinkhorn_iterations",
        PREFIX "hyper_connection.epsilon",
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        gguf_edit e;
        char wanted[128];
        init(&e);
        gguf_edit_drop(&e, keys[i]);
        snprintf(wanted, sizeof wanted, "(memory): key '%s' is missing", keys[i]);
        refused(gguf_edit_finish(&e), wanted);
        gguf_edit_release(&e);
    }
}

/* Neither key nor tensor: what could have been derived is missing as well. */
static void test_missing_with_tensors(void **state) {
    (void)state;
    static const struct {
        const char *tensor, *key;
    } pairs[] = {
        {"attn_q_a.weight", PREFIX "attention.q_lora_rank"},
        {"attn_sinks.weight", PREFIX "attention.head_count"},
        {"attn_kv.weight", PREFIX "attention.key_length"},
        {"hc_attn_fn.weight", PREFIX "hyper_connection.count"},
        {"attn_output_a.weight", PREFIX "attention.output_lora_rank"},
        {"ffn_gate_exps.weight", PREFIX "expert_feed_forward_length"},
        {"ffn_gate_tid2eid.weight", PREFIX "expert_used_count"},
        {"indexer.proj.weight", PREFIX "attention.indexer.head_count"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        gguf_edit e;
        char name[64], wanted[128];
        init(&e);
        gguf_edit_drop(&e, pairs[i].key);
        for (int il = 0; il < 5; il++) {
            snprintf(name, sizeof name, "blk.%d.%s", il, pairs[i].tensor);
            gguf_edit_drop(&e, name);
        }
        snprintf(wanted, sizeof wanted, "key '%s' is missing", pairs[i].key);
        refused(gguf_edit_finish(&e), wanted);
        gguf_edit_release(&e);
    }
}

/* ---- wrong values ---- */

static void refuse_u64(const char *key, uint64_t v, const char *wanted) {
    gguf_edit e;
    char both[192];
    init(&e);
    gguf_edit_drop(&e, key);
    gguf_add_u64(e.w, key, v);
    snprintf(both, sizeof both, "'%s'|%s", key, wanted);
    refused(gguf_edit_finish(&e), both);
    gguf_edit_release(&e);
}

static void refuse_f32(const char *key, float v, const char *wanted) {
    gguf_edit e;
    char both[192];
    init(&e);
    gguf_edit_drop(&e, key);
    gguf_add_f32(e.w, key, v);
    snprintf(both, sizeof both, "'%s'|%s", key, wanted);
    refused(gguf_edit_finish(&e), both);
    gguf_edit_release(&e);
}

static void test_wrong_integers(void **state) {
    (void)state;
    static const struct {
        const char *key;
        uint64_t value;
        const char *wanted;
    } wrong[] = {
        {PREFIX "block_count", 0, "found 0, expected 1 to 511"},
        {PREFIX "block_count", 512, "found 512, expected 1 to 511"},
        {PREFIX "block_count", 1ull << 32, "found 4294967296, expected an integer from 0 to 2^32"},
        {PREFIX "context_length", 0, "found 0, expected 1 to 16777216"},
        {PREFIX "context_length", 16777217, "found 16777217, expected 1 to 16777216"},
        {PREFIX "embedding_length", 0, "found 0, expected 1 to 1048576"},
        {PREFIX "vocab_size", 0, "found 0, expected 1 to 1048576"},
        {PREFIX "vocab_size", 1u << 21, "found 2097152, expected 1 to 1048576"},
        {PREFIX "attention.head_count", 0, "found 0, expected 1 to 65536"},
        {PREFIX "attention.head_count_kv", 8, "found 8, expected 1"},
        {PREFIX "attention.key_length", 1, "found 1, expected 2 to 65536"},
        {PREFIX "attention.value_length", 32, "found 32, expected 48"},
        {PREFIX "rope.dimension_count", 0, "found 0, expected 2 to 48"},
        {PREFIX "rope.dimension_count", 64, "found 64, expected 2 to 48"},
        {PREFIX "attention.q_lora_rank", 0, "found 0, expected 1 to 1048576"},
        {PREFIX "attention.output_group_count", 0, "found 0, expected 1 to 4"},
        {PREFIX "attention.output_group_count", 5, "found 5, expected 1 to 4"},
        {PREFIX "attention.output_lora_rank", 1u << 31, "found 2147483648, expected 1 to 1048576"},
        {PREFIX "attention.sliding_window", 0, "found 0, expected 1 to 1048576"},
        {PREFIX "attention.indexer.head_count", 0, "found 0, expected 1 to 65536"},
        {PREFIX "attention.indexer.key_length", 48,
         "found 48, expected a power of two, at least 16"},
        {PREFIX "attention.indexer.key_length", 8, "found 8, expected a power of two, at least 16"},
        {PREFIX "attention.indexer.top_k", 0, "found 0, expected 1 to 1048576"},
        {PREFIX "expert_count", 0, "found 0, expected 1 to 65536"},
        {PREFIX "expert_used_count", 0, "found 0, expected 1 to 8"},
        {PREFIX "expert_used_count", 9, "found 9, expected 1 to 8"},
        {PREFIX "expert_shared_count", 2, "found 2, expected 1"},
        {PREFIX "expert_feed_forward_length", 0, "found 0, expected 1 to 1048576"},
        {PREFIX "expert_group_count", 8, "found 8, expected 0 to 1"},
        {PREFIX "expert_gating_func", 0, "found 0, expected 1 to 4"},
        {PREFIX "expert_gating_func", 3, "found 3, expected 1 (softmax), 2 (sigmoid) or 4"},
        {PREFIX "expert_gating_func", 5, "found 5, expected 1 to 4"},
        {PREFIX "hash_layer_count", 6, "found 6, expected 0 to 5"},
        {PREFIX "hyper_connection.count", 0, "found 0, expected 1 to 16"},
        {PREFIX "hyper_connection.count", 17, "found 17, expected 1 to 16"},
        {PREFIX "hyper_connection.sinkhorn_iterations", 0, "found 0, expected 1 to 1000"},
        {PREFIX "hyper_connection.sinkhorn_iterations", 1001, "found 1001, expected 1 to 1000"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        refuse_u64(wrong[i].key, wrong[i].value, wrong[i].wanted);
}

static void test_wrong_floats(void **state) {
    (void)state;
    static const struct {
        const char *key;
        float value;
        const char *wanted;
    } wrong[] = {
        {PREFIX "attention.layer_norm_rms_epsilon", -1e-6f, "found -1e-06, expected 0 to 1"},
        {PREFIX "attention.layer_norm_rms_epsilon", NAN, "expected 0 to 1"},
        {PREFIX "hyper_connection.epsilon", 2.0f, "found 2, expected 0 to 1"},
        {PREFIX "rope.freq_base", 0.0f, "found 0, expected 1.5 to 1e+12"},
        {PREFIX "attention.compress_rope_freq_base", INFINITY, "found inf, expected 1.5 to 1e+12"},
        {PREFIX "rope.scaling.factor", 0.5f, "found 0.5, expected 1 to 1e+06"},
        {PREFIX "rope.scaling.original_context_length", 0.0f, "found 0, expected 1 to 1e+09"},
        {PREFIX "rope.scaling.yarn_beta_fast", 0.0f, "found 0, expected 1e-06 to 1e+06"},
        {PREFIX "rope.scaling.yarn_beta_slow", NAN, "expected 1e-06 to 1e+06"},
        {PREFIX "expert_weights_scale", INFINITY, "found inf, expected -1e+06 to 1e+06"},
        {PREFIX "swiglu_clamp_exp", NAN, "entry 0: found nan, expected a finite number"},
        {PREFIX "swiglu_clamp_shexp", INFINITY, "entry 0: found inf, expected a finite number"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        refuse_f32(wrong[i].key, wrong[i].value, wrong[i].wanted);
}

/* Every number as a text and as an array. */
static void test_wrong_types(void **state) {
    (void)state;
    static const char *const keys[] = {
        "block_count",
        "context_length",
        "embedding_length",
        "vocab_size",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
        "rope.freq_base",
        "rope.scaling.factor",
        "expert_count",
        "expert_used_count",
        "expert_weights_scale",
        "expert_weights_norm",
        "expert_gating_func",
        "hash_layer_count",
        "hyper_connection.count",
        "hyper_connection.epsilon",
        "swiglu_clamp_exp",
        "swiglu_clamp_shexp",
        "attention.compress_ratios",
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        for (int is_array = 0; is_array < 2; is_array++) {
            static const strview texts[5] = {{"7", 1}, {"7", 1}, {"7", 1}, {"7", 1}, {"7", 1}};
            gguf_edit e;
            char key[96], wanted[128];
            init(&e);
            snprintf(key, sizeof key, PREFIX "%s", keys[i]);
            gguf_edit_drop(&e, key);
            if (is_array)
                gguf_add_strings(e.w, key, texts, 5);
            else
                gguf_add_string(e.w, key, texts[0]);
            snprintf(wanted, sizeof wanted, "'%s'|found|expected", key);
            refused(gguf_edit_finish(&e), wanted);
            gguf_edit_release(&e);
        }
}

static void refuse_string(const char *key, const char *value, const char *wanted) {
    gguf_edit e;
    init(&e);
    gguf_edit_drop(&e, key);
    gguf_add_string(e.w, key, (strview){value, strlen(value)});
    refused(gguf_edit_finish(&e), wanted);
    gguf_edit_release(&e);
}

static void test_wrong_strings(void **state) {
    (void)state;
    refuse_string("general.architecture", "llama",
                  "'general.architecture': found 'llama', expected 'deepseek4'");
    refuse_string("general.architecture", "", "found '', expected 'deepseek4'");
    refuse_string(PREFIX "rope.scaling.type", "linear",
                  "rope.scaling.type': found 'linear', expected 'yarn' or 'none'");
    /* Text of the file does not get into the message as it is. */
    refuse_string("general.architecture", "a\nb\x1b[31m\xff", "found 'a?b?[31m?'");
    refuse_string(PREFIX "rope.scaling.type", "a\nb", "found 'a?b'");
    char big[3000];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = 0;
    refuse_string(PREFIX "rope.scaling.type", big, "...', expected 'yarn' or 'none'");
}

static void test_wrong_products(void **state) {
    (void)state;
    static const struct {
        const char *keys[2];
        uint32_t values[2];
        const char *wanted;
    } wrong[] = {
        {{PREFIX "embedding_length", PREFIX "hyper_connection.count"},
         {1 << 20, 16},
         "found 16 streams of 1048576, expected at most 4194304"},
        {{PREFIX "attention.head_count", PREFIX "attention.indexer.top_k"},
         {65536, 1},
         NULL}, /* 65536 heads of 48 still fit */
        {{PREFIX "attention.indexer.head_count", PREFIX "attention.indexer.key_length"},
         {65536, 65536},
         "found 65536 indexer heads of 65536, expected at most 4194304"},
        {{PREFIX "attention.output_group_count", PREFIX "attention.output_lora_rank"},
         {4, 1 << 20},
         NULL},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        gguf_edit e;
        init(&e);
        for (int k = 0; k < 2; k++) {
            gguf_edit_drop(&e, wrong[i].keys[k]);
            gguf_add_u32(e.w, wrong[i].keys[k], wrong[i].values[k]);
        }
        const gguf *g = gguf_edit_finish(&e);
        if (wrong[i].wanted)
            refused(g, wrong[i].wanted);
        else
            read_ok(g);
        gguf_edit_release(&e);
    }
    gguf_edit e;
    init(&e);
    gguf_edit_drop(&e, PREFIX "attention.output_group_count");
    gguf_add_u32(e.w, PREFIX "attention.output_group_count", 3);
    refused(gguf_edit_finish(&e), "4 heads|3 output groups|expected|divisible");
    gguf_edit_release(&e);
}

/* ---- values for each layer ---- */

static void test_ratios(void **state) {
    (void)state;
    static const int64_t i64[] = {0, 4, 8, 4, 16, 0, 0};
    static const uint64_t u64[] = {0, 4, 8, 4, 16};
    static const int8_t i8[] = {0, 4, 8, 4, 16, 0};
    static const struct {
        gguf_value_type type;
        const void *items;
        uint32_t n;
    } good[] = {{GGUF_I64, i64, 7}, {GGUF_U64, u64, 5}, {GGUF_I8, i8, 6}};
    gguf_edit e;
    for (size_t i = 0; i < 3; i++) {
        init(&e);
        gguf_edit_drop(&e, PREFIX "attention.compress_ratios");
        gguf_add_array(e.w, PREFIX "attention.compress_ratios", good[i].type, good[i].items,
                       good[i].n);
        config c = read_ok(gguf_edit_finish(&e));
        for (int il = 0; il < 5; il++) assert_int_equal(c.ratio[il], u64[il]);
        gguf_edit_release(&e);
    }

    static const int32_t negative[] = {0, 4, 8, -4, 16}, huge[] = {0, 4, 8, 4, 1 << 21};
    static const float reals[] = {0, 4, 8, 4, 16};
    static const struct {
        gguf_value_type type;
        const void *items;
        uint32_t n;
        const char *wanted;
    } bad[] = {
        {GGUF_I32, negative, 5, "compress_ratios': entry 3: found -4, expected 0 to 1048576"},
        {GGUF_I32, huge, 5, "compress_ratios': entry 4: found 2097152, expected 0 to 1048576"},
        {GGUF_I32, negative, 3, "compress_ratios': found 3 entries, expected at least 5"},
        {GGUF_I32, negative, 0, "compress_ratios': found 0 entries, expected at least 5"},
        {GGUF_F32, reals, 5, "compress_ratios': found array of f32, expected an integer"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        init(&e);
        gguf_edit_drop(&e, PREFIX "attention.compress_ratios");
        gguf_add_array(e.w, PREFIX "attention.compress_ratios", bad[i].type, bad[i].items,
                       bad[i].n);
        refused(gguf_edit_finish(&e), bad[i].wanted);
        gguf_edit_release(&e);
    }
}

static config with_clamps(uint32_t n_exp, uint32_t n_shexp) {
    static const float exp[] = {1, 2, 3, 4, 5, 6}, shexp[] = {10, 20, 30, 40, 50, 60};
    gguf_edit e;
    init(&e);
    gguf_edit_drop(&e, PREFIX "swiglu_clamp_exp");
    gguf_edit_drop(&e, PREFIX "swiglu_clamp_shexp");
    if (n_exp == 1)
        gguf_add_f32(e.w, PREFIX "swiglu_clamp_exp", exp[0]);
    else if (n_exp)
        gguf_add_array(e.w, PREFIX "swiglu_clamp_exp", GGUF_F32, exp, n_exp);
    if (n_shexp == 1)
        gguf_add_f32(e.w, PREFIX "swiglu_clamp_shexp", shexp[0]);
    else if (n_shexp)
        gguf_add_array(e.w, PREFIX "swiglu_clamp_shexp", GGUF_F32, shexp, n_shexp);
    config c = read_ok(gguf_edit_finish(&e));
    gguf_edit_release(&e);
    return c;
}

static void test_clamps(void **state) {
    (void)state;
    config c = with_clamps(5, 1); /* for each layer; one for all */
    for (uint32_t il = 0; il < 5; il++)
        assert_true(c.clamp[il] == (float)il + 1 && c.clamp_shared[il] == 10);
    assert_true(c.clamp[5] == 5); /* the MTP block has none of its own: the last layer's */
    c = with_clamps(6, 6);
    assert_true(c.clamp[4] == 5 && c.clamp[5] == 6 && c.clamp_shared[5] == 60);
    c = with_clamps(5, 0); /* the shared expert's are those of the routed ones */
    for (uint32_t il = 0; il <= 5; il++) assert_true(c.clamp_shared[il] == c.clamp[il]);
    c = with_clamps(0, 0);
    assert_true(c.clamp[2] == 0 && c.clamp_shared[2] == 0);

    static const float few[] = {1, 2, 3};
    gguf_edit e;
    for (uint32_t n = 0; n < 4; n += 3) {
        init(&e);
        gguf_edit_drop(&e, PREFIX "swiglu_clamp_exp");
        gguf_add_array(e.w, PREFIX "swiglu_clamp_exp", GGUF_F32, few, n);
        refused(gguf_edit_finish(&e), n ? "swiglu_clamp_exp': found 3 entries, expected 5"
                                        : "swiglu_clamp_exp': found 0 entries, expected 5");
        gguf_edit_release(&e);
    }
}

/* Pruned files: layers that are routed by score have fewer experts; the most of any layer counts.
 */
static void test_pruned(void **state) {
    (void)state;
    gguf_edit e;
    init(&e);
    for (int il = 2; il < 5; il++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.ffn_gate_exps.weight", il);
        gguf_edit_tensor(&e, name, QUANT_MXFP4, (uint64_t[4]){96, 64, (uint64_t)il + 1});
    }
    assert_int_equal(read_ok(gguf_edit_finish(&e)).n_expert, 8);
    gguf_edit_release(&e);
}

static void test_scores(void **state) {
    (void)state;
    for (uint32_t score = 1; score <= 4; score *= 2)
        for (int is_normed = 0; is_normed < 2; is_normed++) {
            gguf_edit e;
            init(&e);
            gguf_edit_drop(&e, PREFIX "expert_gating_func");
            gguf_edit_drop(&e, PREFIX "expert_weights_norm");
            gguf_add_u32(e.w, PREFIX "expert_gating_func", score);
            gguf_add_bool(e.w, PREFIX "expert_weights_norm", is_normed);
            config c = read_ok(gguf_edit_finish(&e));
            assert_int_equal(c.score, score);
            /* Softmax has summed to one already. */
            assert_int_equal(c.is_weight_normed, is_normed && score != ROUTER_SOFTMAX);
            gguf_edit_release(&e);
        }
}

static void test_rope_scaling(void **state) {
    (void)state;
    static const char *const types[] = {"yarn", "none", NULL};
    for (int i = 0; i < 3; i++) {
        gguf_edit e;
        init(&e);
        gguf_edit_drop(&e, PREFIX "rope.scaling.type");
        if (types[i])
            gguf_add_string(e.w, PREFIX "rope.scaling.type", (strview){types[i], strlen(types[i])});
        if (i > 0) gguf_edit_drop(&e, PREFIX "rope.scaling.original_context_length");
        config c = read_ok(gguf_edit_finish(&e));
        assert_true(c.rope_compress.factor == (i == 0 ? 16.0f : 1.0f));
        assert_true(c.rope_compress.base == 160000.0f && c.rope_window.factor == 1.0f);
        gguf_edit_release(&e);
    }
}

/* No compressed layer: neither indexer nor second RoPE base are asked for. */
static void test_window_only(void **state) {
    (void)state;
    randmodel_shape s = randmodel_shape_default();
    memset(s.ratio, 0, sizeof s.ratio);
    gguf_edit e;
    gguf_edit_init_random(&e, &s, 1);
    gguf_edit_drop(&e, PREFIX "attention.compress_rope_freq_base");
    gguf_edit_drop(&e, PREFIX "attention.indexer.top_k");
    gguf_edit_drop(&e, PREFIX "rope.scaling.factor");
    config c = read_ok(gguf_edit_finish(&e));
    assert_int_equal(c.n_index_head + c.index_dim + c.index_top_k, 0);
    assert_memory_equal(&c.rope_compress, &c.rope_window, sizeof c.rope_window);
    gguf_edit_release(&e);
}

/* MTP blocks behind the layers are not layers. */
static void test_appended_blocks(void **state) {
    (void)state;
    gguf_edit e;
    for (uint32_t n_mtp = 1; n_mtp <= 2; n_mtp++) {
        init(&e);
        gguf_edit_drop(&e, PREFIX "block_count");
        gguf_add_u32(e.w, PREFIX "block_count", 5 + n_mtp);
        for (uint32_t i = 0; i < n_mtp; i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%u.nextn.hnorm.weight", 5 + i);
            gguf_edit_tensor(&e, name, QUANT_F32, (uint64_t[4]){96});
        }
        config c = read_ok(gguf_edit_finish(&e));
        assert_int_equal(c.n_layer, 5);
        assert_int_equal(c.n_mtp, n_mtp);
        gguf_edit_release(&e);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_shapes),  cmocka_unit_test(test_expert_counts),
        cmocka_unit_test(test_oracle_files),   cmocka_unit_test(test_nano_file),
        cmocka_unit_test(test_flash),          cmocka_unit_test(test_rope_table),
        cmocka_unit_test(test_cache_layers),   cmocka_unit_test(test_derived),
        cmocka_unit_test(test_missing),        cmocka_unit_test(test_missing_with_tensors),
        cmocka_unit_test(test_wrong_integers), cmocka_unit_test(test_wrong_floats),
        cmocka_unit_test(test_wrong_types),    cmocka_unit_test(test_wrong_strings),
        cmocka_unit_test(test_wrong_products), cmocka_unit_test(test_ratios),
        cmocka_unit_test(test_clamps),         cmocka_unit_test(test_pruned),
        cmocka_unit_test(test_scores),         cmocka_unit_test(test_rope_scaling),
        cmocka_unit_test(test_window_only),    cmocka_unit_test(test_appended_blocks),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
