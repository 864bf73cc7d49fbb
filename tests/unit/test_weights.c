/* test_weights.c - tensors of every class in every type, both kinds of MTP blocks, and one line for
 * every tensor that is missing or not what the shape asks for. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/weights.h"
#include "tests/support/gguf_edit.h"

/* ---- binding ---- */

/* A bound model: a backend that only holds it, and the memory of its structs. */
typedef struct {
    config c;
    weights w;
    backend *b;
    arena a;
} bound;

static ds4_status try_bind(bound *m, const gguf *g, const gguf *mtp, bool use_mtp, bool is_plain,
                           bool has_backend, ds4_error *err) {
    const backend_options options = {.device = "cpu", .kernels = "ref", .n_threads = 1};
    *m = (bound){0};
    DS4_TRY(config_read(&m->c, g, err));
    if (has_backend) DS4_TRY(backend_open(&m->b, &options, err));
    weights_source source = {.file = g, .mtp_file = mtp, .use_mtp = use_mtp, .is_plain = is_plain};
    return weights_bind(&m->w, &source, &m->c, m->b, &m->a, err);
}

static void release(bound *m) {
    if (m->b) m->b->ops->close(m->b);
    arena_release(&m->a);
}

static bound bind_ok(const gguf *g, bool use_mtp, bool is_plain) {
    bound m;
    ds4_error err = {0};
    if (try_bind(&m, g, NULL, use_mtp, is_plain, true, &err) != DS4_OK) fail_msg("%s", err.message);
    return m;
}

/* Refused, with and without a backend, with one line that holds `wanted`; *out is untouched. */
static void refused_with(const gguf *g, const gguf *mtp, bool use_mtp, ds4_status code,
                         const char *wanted) {
    for (int has_backend = 0; has_backend < 2; has_backend++) {
        bound m;
        ds4_error err = {0};
        ds4_status status = try_bind(&m, g, mtp, use_mtp, false, has_backend, &err);
        if (status == DS4_OK) fail_msg("accepted, expected a message with '%s'", wanted);
        if (!strstr(err.message, wanted))
            fail_msg("found '%s', expected '%s' in it", err.message, wanted);
        assert_int_equal(status, code);
        assert_int_equal(err.code, code);
        assert_null(strchr(err.message, '\n'));
        assert_null(m.w.layers);
        release(&m);
    }
}

static void refused(const gguf *g, ds4_status code, const char *wanted) {
    refused_with(g, NULL, true, code, wanted);
}

/* ---- shapes: small, every row length of a matrix a multiple of 256 where `is_even` ---- */

static randmodel_shape small_shape(bool is_even) {
    randmodel_shape s = randmodel_shape_default();
    s.n_layer = 3;
    s.ratio[0] = 0, s.ratio[1] = 4, s.ratio[2] = 8;
    s.n_hash_layer = 1;
    s.n_embd = 64;
    s.n_expert = 4;
    s.n_vocab = RANDMODEL_MIN_VOCAB;
    s.has_mtp = true;
    if (!is_even) return s;
    s.n_embd = s.n_q_rank = s.n_ff = 256;
    s.n_head = 4;
    s.head_dim = 128;
    s.n_out_group = 2;
    s.n_out_rank = 128;
    return s;
}

/* ---- all types ---- */

/* The bound weight is the tensor: same bytes, type and shape; activations as its type wants. */
static void check_weight(const gguf *g, const char *name, const weight *w, bool is_precise,
                         bool is_plain) {
    const gguf_tensor *t = gguf_find_tensor(g, name);
    const quant_info *info = quant_find(t->type);
    assert_int_equal(w->type, t->type);
    assert_true(w->n_in == t->ne[0] && w->n_out == t->ne[1] && w->n_slices == t->ne[2]);
    assert_int_equal(w->act, is_precise || is_plain ? ACT_F32 : info->act);
    assert_ptr_equal(w->data.offset, t->data); /* the CPU reads where the file is mapped */
    assert_true(w->row_bytes * w->n_out * w->n_slices == t->n_bytes);
}

static void check_layer(const gguf *g, const layer_weights *l, const char *prefix, uint32_t ratio,
                        bool is_plain) {
    const struct {
        const char *name;
        const weight *w;
        bool is_precise;
        uint32_t for_ratio; /* 0: always; 1: compressed; 4: with indexer */
    } all[] = {
        {"hc_attn_fn.weight", &l->hc_attn.fn, true, 0},
        {"hc_ffn_fn.weight", &l->hc_ffn.fn, true, 0},
        {"attn_q_a.weight", &l->q_a, false, 0},
        {"attn_q_b.weight", &l->q_b, false, 0},
        {"attn_kv.weight", &l->kv, false, 0},
        {"attn_output_a.weight", &l->out_a, false, 0},
        {"attn_output_b.weight", &l->out_b, false, 0},
        {"attn_compressor_kv.weight", &l->comp_kv, true, 1},
        {"attn_compressor_gate.weight", &l->comp_gate, true, 1},
        {"indexer.attn_q_b.weight", &l->index_q, false, 4},
        {"indexer.proj.weight", &l->index_w, false, 4},
        {"indexer_compressor_kv.weight", &l->icomp_kv, true, 4},
        {"indexer_compressor_gate.weight", &l->icomp_gate, true, 4},
        {"ffn_gate_inp.weight", &l->router, true, 0},
        {"ffn_gate_exps.weight", &l->experts.gate, false, 0},
        {"ffn_up_exps.weight", &l->experts.up, false, 0},
        {"ffn_down_exps.weight", &l->experts.down, false, 0},
        {"ffn_gate_shexp.weight", &l->shared.gate, false, 0},
        {"ffn_up_shexp.weight", &l->shared.up, false, 0},
        {"ffn_down_shexp.weight", &l->shared.down, false, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bool is_there = all[i].for_ratio == 0 || (all[i].for_ratio == 1 ? ratio > 0 : ratio == 4);
        char name[96];
        snprintf(name, sizeof name, "%s%s", prefix, all[i].name);
        assert_int_equal(weight_is_set(all[i].w), is_there);
        if (is_there) check_weight(g, name, all[i].w, all[i].is_precise, is_plain);
    }
}

static void check_model(const gguf *g, const randmodel_shape *s, const bound *m, bool is_plain) {
    check_weight(g, "token_embd.weight", &m->w.embed, true, is_plain);
    check_weight(g, "output.weight", &m->w.output, true, is_plain);
    check_weight(g, "output_hc_fn.weight", &m->w.head.fn, true, is_plain);
    for (uint32_t il = 0; il < s->n_layer; il++) {
        char prefix[16];
        snprintf(prefix, sizeof prefix, "blk.%u.", il);
        check_layer(g, &m->w.layers[il], prefix, s->ratio[il], is_plain);
        assert_int_equal(dev_is_set(m->w.layers[il].tid2eid), il < s->n_hash_layer);
        assert_int_equal(dev_is_set(m->w.layers[il].router_bias), il >= s->n_hash_layer);
    }
    assert_true(m->w.has_mtp);
    check_layer(g, &m->w.mtp.block, "mtp.0.", 0, is_plain);
    check_weight(g, "mtp.0.e_proj.weight", &m->w.mtp.e_proj, false, is_plain);
    check_weight(g, "mtp.0.h_proj.weight", &m->w.mtp.h_proj, false, is_plain);
    check_weight(g, "mtp.0.hc_head_fn.weight", &m->w.mtp.head.fn, true, is_plain);
}

/* Every type, in all classes at once: each tensor is bound as it is, in both numerics. */
static void test_every_type(void **state) {
    (void)state;
    size_t n_types, n_matrix_types = 0;
    const quant_info *types = quant_table(&n_types);
    for (size_t i = 0; i < n_types; i++) {
        if (!types[i].is_matrix) continue;
        n_matrix_types++;
        randmodel_shape s = small_shape(true);
        for (int k = 0; k < RANDMODEL_N_CLASSES; k++) s.types[k] = types[i].type;
        gguf_edit e;
        gguf_edit_init_random(&e, &s, i);
        const gguf *g = gguf_edit_finish(&e);
        assert_int_equal(gguf_find_tensor(g, "blk.1.indexer.proj.weight")->type, types[i].type);
        for (int is_plain = 0; is_plain < 2; is_plain++) {
            bound m = bind_ok(g, true, is_plain);
            check_model(g, &s, &m, is_plain);
            release(&m);
        }
        gguf_edit_release(&e);
    }
    assert_int_equal(n_matrix_types, 13);
}

/* Types differ by class and by layer: mixed recipes, and tensors that were written wider. */
static void test_mixed_types(void **state) {
    (void)state;
    randmodel_shape s = small_shape(true);
    size_t n_types;
    const quant_info *types = quant_table(&n_types);
    gguf_edit e;
    gguf_edit_init_random(&e, &s, 3);
    size_t next = 0;
    for (size_t i = 0; i < gguf_n_tensors(e.from); i++) {
        const gguf_tensor *t = gguf_tensor_at(e.from, i);
        bool is_table = t->type == QUANT_I32, is_vector = t->n_dims == 1;
        if (is_table || is_vector || i % 2) continue;
        do next = (next + 1) % n_types;
        while (!types[next].is_matrix || t->ne[0] % types[next].block_elems);
        char name[96];
        snprintf(name, sizeof name, "%.*s", (int)t->name.n, t->name.data);
        gguf_edit_tensor(&e, name, types[next].type, t->ne);
    }
    const gguf *g = gguf_edit_finish(&e);
    bound m = bind_ok(g, true, false);
    check_model(g, &s, &m, false);
    release(&m);
    gguf_edit_release(&e);
}

/* ---- vectors and tables ---- */

static void check_floats(const gguf *g, backend *b, dev_ptr p, const char *name) {
    const gguf_tensor *t = gguf_find_tensor(g, name);
    size_t n = (size_t)(t->ne[0] * t->ne[1]);
    float *found = malloc(n * sizeof *found), *expected = malloc(n * sizeof *expected);
    b->ops->read(b, found, p, n * sizeof *found);
    quant_find(t->type)->decode_row(expected, t->data, n);
    assert_memory_equal(found, expected, n * sizeof *found);
    free(found);
    free(expected);
}

/* Vectors are floats whatever their type: here norm, sinks and the compressor's table. */
static void test_vectors(void **state) {
    (void)state;
    static const quant_type types[] = {QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_Q8_0, QUANT_Q6_K};
    randmodel_shape s = small_shape(true);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        gguf_edit e;
        gguf_edit_init_random(&e, &s, 1);
        const quant_info *info = quant_find(types[i]);
        uint8_t row[256 * 8 * sizeof(float)];
        for (size_t k = 0; k < sizeof row; k++) row[k] = (uint8_t)(k * 37 + i);
        quant_tame_row(types[i], row, 256 * 8, 1.0f);
        gguf_edit_data(&e, "blk.1.attn_norm.weight", types[i], (uint64_t[4]){256}, row,
                       quant_row_bytes(info, 256));
        gguf_edit_data(&e, "blk.1.attn_compressor_ape.weight", types[i], (uint64_t[4]){256, 4}, row,
                       quant_row_bytes(info, 256 * 4));
        if (info->block_elems == 1)
            gguf_edit_data(&e, "blk.1.attn_sinks.weight", types[i], (uint64_t[4]){4}, row,
                           quant_row_bytes(info, 4));
        const gguf *g = gguf_edit_finish(&e);
        bound m = bind_ok(g, false, false);
        check_floats(g, m.b, m.w.layers[1].attn_norm, "blk.1.attn_norm.weight");
        check_floats(g, m.b, m.w.layers[1].comp_ape, "blk.1.attn_compressor_ape.weight");
        check_floats(g, m.b, m.w.layers[1].sinks, "blk.1.attn_sinks.weight");
        release(&m);
        gguf_edit_release(&e);
    }
}

/* Each vector stands where its name says. */
static void test_every_vector(void **state) {
    (void)state;
    randmodel_shape s = small_shape(false);
    gguf_edit e;
    gguf_edit_init_random(&e, &s, 5);
    const gguf *g = gguf_edit_finish(&e);
    bound m = bind_ok(g, true, false);
    const layer_weights *l = &m.w.layers[1];
    const mtp_weights *mtp = &m.w.mtp;
    const struct {
        const char *name;
        dev_ptr p;
    } all[] = {
        {"output_norm.weight", m.w.output_norm},
        {"output_hc_base.weight", m.w.head.base},
        {"output_hc_scale.weight", m.w.head.scale},
        {"blk.1.hc_attn_base.weight", l->hc_attn.base},
        {"blk.1.hc_attn_scale.weight", l->hc_attn.scale},
        {"blk.1.hc_ffn_base.weight", l->hc_ffn.base},
        {"blk.1.hc_ffn_scale.weight", l->hc_ffn.scale},
        {"blk.1.attn_norm.weight", l->attn_norm},
        {"blk.1.ffn_norm.weight", l->ffn_norm},
        {"blk.1.attn_q_a_norm.weight", l->q_norm},
        {"blk.1.attn_kv_a_norm.weight", l->kv_norm},
        {"blk.1.attn_sinks.weight", l->sinks},
        {"blk.1.attn_compressor_ape.weight", l->comp_ape},
        {"blk.1.attn_compressor_norm.weight", l->comp_norm},
        {"blk.1.indexer_compressor_ape.weight", l->icomp_ape},
        {"blk.1.indexer_compressor_norm.weight", l->icomp_norm},
        {"blk.1.exp_probs_b.bias", l->router_bias},
        {"mtp.0.enorm.weight", mtp->enorm},
        {"mtp.0.hnorm.weight", mtp->hnorm},
        {"mtp.0.norm.weight", mtp->norm},
        {"mtp.0.hc_head_base.weight", mtp->head.base},
        {"mtp.0.hc_head_scale.weight", mtp->head.scale},
        {"mtp.0.exp_probs_b.bias", mtp->block.router_bias},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        check_floats(g, m.b, all[i].p, all[i].name);

    float freq[2][8], expected[8]; /* n_rot / 2 */
    m.b->ops->read(m.b, freq[0], m.w.freq_window, sizeof freq[0]);
    m.b->ops->read(m.b, freq[1], m.w.freq_compress, sizeof freq[1]);
    config_rope_table(&m.c.rope_window, s.n_rot, expected);
    assert_memory_equal(freq[0], expected, sizeof expected);
    config_rope_table(&m.c.rope_compress, s.n_rot, expected);
    assert_memory_equal(freq[1], expected, sizeof expected);
    release(&m);
    gguf_edit_release(&e);
}

static void test_token_table(void **state) {
    (void)state;
    enum { N_IDS = 2 * RANDMODEL_MIN_VOCAB };
    int32_t ids[2][N_IDS];
    for (int is_wide = 0; is_wide < 2; is_wide++) {
        randmodel_shape s = small_shape(false);
        s.has_wide_table = is_wide;
        gguf_edit e;
        gguf_edit_init_random(&e, &s, 1);
        const gguf *g = gguf_edit_finish(&e);
        assert_int_equal(gguf_find_tensor(g, "blk.0.ffn_gate_tid2eid.weight")->type,
                         is_wide ? QUANT_I64 : QUANT_I32);
        bound m = bind_ok(g, false, false);
        m.b->ops->read(m.b, ids[is_wide], m.w.layers[0].tid2eid, sizeof ids[0]);
        release(&m);
        gguf_edit_release(&e);
    }
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    for (int i = 0; i < N_IDS; i++) assert_in_range(ids[0][i], 0, 3);
}

static void test_wrong_token_table(void **state) {
    (void)state;
    static const char *const name = "blk.0.ffn_gate_tid2eid.weight";
    static const struct {
        int64_t id;
        bool is_wide;
        const char *wanted;
    } wrong[] = {
        {4, false, "tid2eid.weight': token 130: expert 4, expected 0 to 3"},
        {-1, false, "tid2eid.weight': token 130: expert -1, expected 0 to 3"},
        {1ll << 32, true, "tid2eid.weight': token 130: expert 4294967296, expected 0 to 3"},
        {INT64_MIN, true, "token 130: expert -9223372036854775808, expected 0 to 3"},
    };
    enum { N = 2 * RANDMODEL_MIN_VOCAB };
    randmodel_shape s = small_shape(false);
    const uint64_t ne[4] = {2, RANDMODEL_MIN_VOCAB};
    gguf_edit e;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int64_t wide[N] = {0};
        int32_t narrow[N] = {0};
        wide[261] = wrong[i].id;
        narrow[261] = (int32_t)wrong[i].id;
        gguf_edit_init_random(&e, &s, 1);
        if (wrong[i].is_wide)
            gguf_edit_data(&e, name, QUANT_I64, ne, wide, sizeof wide);
        else
            gguf_edit_data(&e, name, QUANT_I32, ne, narrow, sizeof narrow);
        refused(gguf_edit_finish(&e), DS4_EFORMAT, wrong[i].wanted);
        gguf_edit_release(&e);
    }
    gguf_edit_init_random(&e, &s, 1);
    gguf_edit_tensor(&e, name, QUANT_F32, ne);
    refused(gguf_edit_finish(&e), DS4_EFORMAT,
            "tensor 'blk.0.ffn_gate_tid2eid.weight': type f32, expected i32 or i64");
    gguf_edit_release(&e);
}

/* ---- every tensor, spoilt in turn ---- */

typedef enum { MISSING, LONGER, MORE_ROWS, DEEPER, FOREIGN, INTEGERS, N_SPOILS } spoil;

/* Spoils one tensor; false if that is no spoiling. `wanted`: what the message must hold. */
static bool spoil_tensor(gguf_edit *e, const gguf_tensor *t, spoil how, char wanted[192],
                         ds4_status *code) {
    const char *const shape = "tensor '%s': found {%llu, %llu, %llu}, expected {%llu, %llu, %llu}";
    uint64_t ne[4];
    char name[96];
    memcpy(ne, t->ne, sizeof ne);
    snprintf(name, sizeof name, "%.*s", (int)t->name.n, t->name.data);
    bool is_table = t->type == QUANT_I32, is_vector = t->type == QUANT_F32;
    *code = DS4_EFORMAT;
    if (how == MISSING) {
        snprintf(wanted, 192, "tensor '%s' is missing", name);
        gguf_edit_drop(e, name);
        return true;
    }
    if (how == FOREIGN || how == INTEGERS) {
        uint32_t type = how == INTEGERS ? QUANT_I32 : t->ne[0] % 32 ? 24 /* i8 */ : 20 /* iq4_nl */;
        if (how == INTEGERS && is_table) return false;
        if (how == FOREIGN)
            snprintf(wanted, 192, "tensor '%s': no kernel for type %u (%s)", name, type,
                     type == 24 ? "i8" : "iq4_nl");
        else if (is_vector)
            snprintf(wanted, 192, "tensor '%s': type i32, expected f32", name);
        else
            snprintf(wanted, 192, "tensor '%s': no kernel for type i32", name);
        *code = how == INTEGERS && is_vector ? DS4_EFORMAT : DS4_EUNSUPPORTED;
        gguf_edit_tensor(e, name, type, ne);
        return true;
    }
    /* The experts of a layer are counted by its gate: the router does not fit then. */
    bool is_gate = how == DEEPER && strncmp(name, "blk.", 4) == 0 && strstr(name, "ffn_gate_exps");
    ne[how - LONGER] = how == LONGER ? 2 * ne[0] : ne[how - LONGER] + 1;
    snprintf(wanted, 192, shape, name, (unsigned long long)ne[0], (unsigned long long)ne[1],
             (unsigned long long)ne[2], (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
             (unsigned long long)t->ne[2]);
    if (is_gate) snprintf(wanted, 192, "tensor '%.*sinp.weight'", (int)strlen(name) - 11, name);
    gguf_edit_tensor(e, name, t->type, ne);
    return true;
}

static void test_spoilt_tensors(void **state) {
    (void)state;
    randmodel_shape s = small_shape(false);
    void *bytes;
    size_t n;
    gguf *g;
    assert_int_equal(randmodel_write_memory(&s, 1, &bytes, &n, NULL), DS4_OK);
    assert_int_equal(gguf_open_memory(&g, bytes, n, NULL), DS4_OK);
    assert_in_range(gguf_n_tensors(g), 100, 130);
    for (size_t i = 0; i < gguf_n_tensors(g); i++)
        for (spoil how = MISSING; how < N_SPOILS; how++) {
            const gguf_tensor *t = gguf_tensor_at(g, i);
            gguf_edit e;
            char wanted[192];
            ds4_status code;
            gguf_edit_init_random(&e, &s, 1);
            if (spoil_tensor(&e, t, how, wanted, &code)) {
                if (how == MISSING && strview_equal(t->name, STRVIEW("mtp.0.hnorm.weight")))
                    snprintf(wanted, sizeof wanted,
                             "no MTP block: neither 'mtp.0.hnorm.weight' nor "
                             "'blk.3.nextn.hnorm.weight'");
                refused(gguf_edit_finish(&e), code, wanted);
            }
            gguf_edit_release(&e);
        }
    gguf_close(g);
    free(bytes);
}

/* A type that no version of the format knows. */
static void test_unknown_type(void **state) {
    (void)state;
    static const char name[] = "blk.2.attn_q_b.weight";
    randmodel_shape s = small_shape(false);
    gguf_edit e;
    gguf *g;
    gguf_edit_init_random(&e, &s, 1);
    gguf_edit_finish(&e);
    uint8_t *at = memmem(e.result_bytes, e.n_result, name, sizeof name - 1);
    at += sizeof name - 1 + 4 + 2 * 8; /* behind the name: n_dims, ne[2], type */
    assert_int_equal(at[0], QUANT_Q8_0);
    at[0] = 99;
    assert_int_equal(gguf_open_memory(&g, e.result_bytes, e.n_result, NULL), DS4_OK);
    refused(g, DS4_EUNSUPPORTED, "tensor 'blk.2.attn_q_b.weight': no kernel for type 99 (unknown)");
    gguf_close(g);
    gguf_edit_release(&e);
}

/* Tensors that nobody asks for may be anything. */
static void test_foreign_tensors(void **state) {
    (void)state;
    randmodel_shape s = small_shape(false);
    gguf_edit e;
    gguf_edit_init_random(&e, &s, 1);
    gguf_edit_tensor(&e, "vision.patch.weight", 20, (uint64_t[4]){32, 7, 1, 3});
    gguf_edit_tensor(&e, "blk.0.attn_compressor_kv.weight", QUANT_F16, (uint64_t[4]){3, 3});
    bound m = bind_ok(gguf_edit_finish(&e), true, false);
    assert_int_equal(m.w.n_tensors, gguf_n_tensors(e.result) - 2);
    release(&m);
    gguf_edit_release(&e);
}

/* ---- experts counted by layer ---- */

static void set_experts(gguf_edit *e, const char *prefix, uint32_t n) {
    char name[64];
    snprintf(name, sizeof name, "%sffn_gate_inp.weight", prefix);
    gguf_edit_tensor(e, name, QUANT_F16, (uint64_t[4]){64, n});
    snprintf(name, sizeof name, "%sexp_probs_b.bias", prefix);
    gguf_edit_tensor(e, name, QUANT_F32, (uint64_t[4]){n});
    static const char *const stacks[] = {"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"};
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s.weight", prefix, stacks[i]);
        gguf_edit_tensor(e, name, QUANT_MXFP4, (uint64_t[4]){64, 64, n});
    }
}

static void test_pruned(void **state) {
    (void)state;
    randmodel_shape s = small_shape(false);
    gguf_edit e;
    gguf_edit_init_random(&e, &s, 1);
    set_experts(&e, "blk.1.", 3);
    set_experts(&e, "blk.2.", 2);
    bound m = bind_ok(gguf_edit_finish(&e), true, false);
    assert_int_equal(m.c.n_expert, 4);
    for (uint32_t il = 0; il < 3; il++) {
        assert_int_equal(m.w.layers[il].router.n_out, 4 - il);
        assert_int_equal(m.w.layers[il].experts.down.n_slices, 4 - il);
    }
    assert_int_equal(m.w.mtp.block.experts.gate.n_slices, 4);
    release(&m);
    gguf_edit_release(&e);

    gguf_edit_init_random(&e, &s, 1);
    set_experts(&e, "blk.2.", 1);
    refused(gguf_edit_finish(&e), DS4_EFORMAT,
            "tensor 'blk.2.ffn_gate_exps.weight': 1 experts, expected at least 2");
    gguf_edit_release(&e);
}

/* ---- the MTP block ---- */

static bool bytes_equal(const weight *a, const weight *b) {
    size_t n = a->row_bytes * a->n_out * a->n_slices;
    return a->type == b->type && a->n_in == b->n_in && a->n_out == b->n_out &&
           a->n_slices == b->n_slices && a->act == b->act &&
           memcmp((const void *)a->data.offset, (const void *)b->data.offset, n) == 0;
}

static bool same_mtp(const mtp_weights *a, const mtp_weights *b) {
    return bytes_equal(&a->e_proj, &b->e_proj) && bytes_equal(&a->h_proj, &b->h_proj) &&
           bytes_equal(&a->head.fn, &b->head.fn) && bytes_equal(&a->block.kv, &b->block.kv) &&
           bytes_equal(&a->block.experts.down, &b->block.experts.down) &&
           a->block.clamp == b->block.clamp;
}

/* As a converter writes it: the block behind the layers, with other names for its own tensors. */
static void append_block(gguf_edit *e) {
    for (size_t i = 0; i < gguf_n_tensors(e->from); i++) {
        strview name = gguf_tensor_at(e->from, i)->name, mtp = STRVIEW("mtp.0.");
        if (!strview_starts(name, mtp)) continue;
        char old[96], new[128];
        snprintf(old, sizeof old, "%.*s", (int)name.n, name.data);
        const char *stem = old + mtp.n;
        bool is_own =
            strstr("e_proj.weight h_proj.weight enorm.weight hnorm.weight hc_head_fn.weight "
                   "hc_head_base.weight hc_head_scale.weight",
                   stem) != NULL;
        if (strcmp(stem, "norm.weight") == 0)
            snprintf(new, sizeof new, "blk.3.nextn.shared_head_norm.weight");
        else
            snprintf(new, sizeof new, "blk.3.%s%s", is_own ? "nextn." : "", stem);
        gguf_edit_rename_tensor(e, old, new);
    }
    gguf_edit_drop(e, "deepseek4.block_count");
    gguf_add_u32(e->w, "deepseek4.block_count", 4);
}

static void test_mtp_in_the_file(void **state) {
    (void)state;
    randmodel_shape s = small_shape(false);
    gguf_edit stock, converted;
    gguf_edit_init_random(&stock, &s, 1);
    gguf_edit_init_random(&converted, &s, 1);
    append_block(&converted);
    bound a = bind_ok(gguf_edit_finish(&stock), true, false);
    bound b = bind_ok(gguf_edit_finish(&converted), true, false);
    assert_true(weights_have_mtp(stock.result, &a.c));
    assert_true(weights_have_mtp(converted.result, &b.c));
    assert_int_equal(b.c.n_layer, 3);
    assert_int_equal(b.c.n_mtp, 1);
    assert_int_equal(a.w.n_tensors, b.w.n_tensors);
    assert_true(same_mtp(&a.w.mtp, &b.w.mtp));
    check_floats(converted.result, b.b, b.w.mtp.norm, "blk.3.nextn.shared_head_norm.weight");

    bound without;
    assert_int_equal(try_bind(&without, stock.result, NULL, false, false, true, NULL), DS4_OK);
    assert_false(without.w.has_mtp);
    assert_false(weight_is_set(&without.w.mtp.e_proj));
    assert_true(without.w.n_tensors < a.w.n_tensors);
    assert_true(without.w.fingerprint != a.w.fingerprint);
    release(&without);
    release(&a);
    release(&b);
    gguf_edit_release(&stock);
    gguf_edit_release(&converted);
}

static void test_mtp_in_another_file(void **state) {
    (void)state;
    randmodel_shape s = small_shape(false), trunk_shape = s;
    trunk_shape.has_mtp = false;
    gguf_edit whole, trunk, own, none;
    bound a, b;
    gguf_edit_init_random(&whole, &s, 1);
    gguf_edit_init_random(&trunk, &trunk_shape, 1);
    gguf_edit_init_random(&own, &s, 1); /* the stock MTP file: no layers, no vocabulary */
    for (size_t i = 0; i < gguf_n_tensors(own.from); i++) {
        strview name = gguf_tensor_at(own.from, i)->name;
        char copy[96];
        snprintf(copy, sizeof copy, "%.*s", (int)name.n, name.data);
        if (!strview_starts(name, STRVIEW("mtp."))) gguf_edit_drop(&own, copy);
    }
    a = bind_ok(gguf_edit_finish(&whole), true, false);
    gguf_edit_finish(&trunk);
    gguf_edit_finish(&own);
    ds4_error err = {0};
    if (try_bind(&b, trunk.result, own.result, true, false, true, &err) != DS4_OK)
        fail_msg("%s", err.message);
    assert_true(b.w.has_mtp && same_mtp(&a.w.mtp, &b.w.mtp));
    assert_int_equal(a.w.n_tensors, b.w.n_tensors);
    assert_false(weights_have_mtp(trunk.result, &b.c));
    release(&a);
    release(&b);

    refused(trunk.result, DS4_EFORMAT, "no MTP block");
    gguf_edit_init_random(&none, &trunk_shape, 2);
    refused_with(trunk.result, gguf_edit_finish(&none), true, DS4_EFORMAT, "no MTP block");
    gguf_edit_release(&none);
    gguf_edit_release(&whole);
    gguf_edit_release(&trunk);
    gguf_edit_release(&own);
}

/* One tensor with both projections side by side, e before h. */
static void join_projections(gguf_edit *e, uint32_t n_embd) {
    const gguf_tensor *halves[] = {gguf_find_tensor(e->from, "mtp.0.e_proj.weight"),
                                   gguf_find_tensor(e->from, "mtp.0.h_proj.weight")};
    size_t n = (size_t)halves[0]->n_bytes, row = n / n_embd;
    uint8_t *joint = malloc(2 * n);
    for (size_t i = 0; i < 2u * n_embd; i++)
        memcpy(joint + i * row, halves[i % 2]->data + i / 2 * row, row);
    append_block(e);
    gguf_edit_drop(e, "mtp.0.e_proj.weight");
    gguf_edit_data(e, "blk.3.nextn.eh_proj.weight", halves[0]->type,
                   (uint64_t[4]){2 * n_embd, n_embd}, joint, 2 * n);
    free(joint);
}

static void test_joint_projections(void **state) {
    (void)state;
    static const quant_type types[] = {QUANT_Q8_0, QUANT_F32, QUANT_Q4_K};
    for (size_t i = 0; i < 3; i++) {
        randmodel_shape s = small_shape(true);
        s.types[RANDMODEL_ATTENTION] = types[i];
        gguf_edit apart, joint;
        gguf_edit_init_random(&apart, &s, 1);
        gguf_edit_init_random(&joint, &s, 1);
        join_projections(&joint, s.n_embd);
        gguf_edit_finish(&joint);
        /* The two single ones were renamed; the joint one must be what counts. */
        bound a = bind_ok(gguf_edit_finish(&apart), true, false);
        bound b = bind_ok(joint.result, true, false);
        assert_true(same_mtp(&a.w.mtp, &b.w.mtp));
        assert_true(b.w.copy_bytes > a.w.copy_bytes);
        assert_true(b.w.n_params == a.w.n_params);
        release(&a);
        release(&b);
        gguf_edit_release(&apart);
        gguf_edit_release(&joint);
    }
    /* Rows that cannot be cut in the middle. */
    randmodel_shape s = small_shape(false);
    s.n_embd = 48;
    gguf_edit e;
    gguf_edit_init_random(&e, &s, 1);
    gguf_edit_tensor(&e, "mtp.0.eh_proj.weight", QUANT_Q8_0, (uint64_t[4]){96, 48});
    refused(gguf_edit_finish(&e), DS4_EFORMAT,
            "tensor 'mtp.0.eh_proj.weight': rows of 48, expected a multiple of 32 for type q8_0");
    gguf_edit_release(&e);
}

/* ---- counts and fingerprint ---- */

static void test_counts(void **state) {
    (void)state;
    randmodel_shape s = small_shape(false);
    gguf_edit e;
    gguf_edit_init_random(&e, &s, 1);
    const gguf *g = gguf_edit_finish(&e);
    bound m = bind_ok(g, true, false), only_checked;
    uint64_t n_params = 0, copy_bytes = 2 * s.n_rot / 2 * sizeof(float);
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        uint64_t n = t->ne[0] * t->ne[1] * t->ne[2];
        n_params += n;
        if (t->type == QUANT_F32 || t->type == QUANT_I32) copy_bytes += 4 * n;
    }
    assert_int_equal(m.w.n_tensors, gguf_n_tensors(g));
    assert_true(m.w.n_params == n_params);
    assert_true(m.w.copy_bytes == copy_bytes);

    assert_int_equal(try_bind(&only_checked, g, NULL, true, false, false, NULL), DS4_OK);
    assert_true(only_checked.w.n_params == n_params && only_checked.w.copy_bytes == copy_bytes);
    assert_true(only_checked.w.fingerprint == m.w.fingerprint);
    release(&only_checked);
    release(&m);
    gguf_edit_release(&e);
}

static uint64_t fingerprint_of(const gguf *g, bool is_plain) {
    bound m;
    assert_int_equal(try_bind(&m, g, NULL, true, is_plain, false, NULL), DS4_OK);
    uint64_t fingerprint = m.w.fingerprint;
    release(&m);
    return fingerprint;
}

/* It changes with the weights, the shape and the numerics, and with nothing else. */
static void test_fingerprint(void **state) {
    (void)state;
    randmodel_shape s = small_shape(false);
    uint64_t prints[5];
    for (int i = 0; i < 5; i++) {
        gguf_edit e;
        gguf_edit_init_random(&e, &s, i == 1 ? 2 : 1);
        if (i == 2) {
            gguf_edit_drop(&e, "deepseek4.expert_weights_scale");
            gguf_add_f32(e.w, "deepseek4.expert_weights_scale", 2.0f);
        }
        if (i == 4) { /* another name, another order */
            gguf_edit_drop(&e, "general.name");
            gguf_edit_rename_tensor(&e, "blk.2.attn_kv.weight", "blk.2.attn_kv.weight");
        }
        prints[i] = fingerprint_of(gguf_edit_finish(&e), i == 3);
        gguf_edit_release(&e);
    }
    for (int i = 1; i < 4; i++) assert_true(prints[i] != prints[0]);
    assert_true(prints[4] == prints[0]);
}

static void test_clamps(void **state) {
    (void)state;
    static const float clamps[4] = {1, 2, 3, 4};
    randmodel_shape s = small_shape(false);
    gguf_edit e;
    gguf_edit_init_random(&e, &s, 1);
    gguf_edit_drop(&e, "deepseek4.swiglu_clamp_exp");
    gguf_add_array(e.w, "deepseek4.swiglu_clamp_exp", GGUF_F32, clamps, 4);
    bound m = bind_ok(gguf_edit_finish(&e), true, false);
    for (int il = 0; il < 3; il++)
        assert_true(m.w.layers[il].clamp == clamps[il] && m.w.layers[il].clamp_shared == 10);
    assert_true(m.w.mtp.block.clamp == 4);
    release(&m);
    gguf_edit_release(&e);
}

/* The files beside the tests, as they are. */
static void test_oracle_files(void **state) {
    (void)state;
    static const char *const paths[] = {
        "tests/data/oracle/a/model.gguf", "tests/data/oracle/b/model.gguf",
        "tests/data/oracle/c/model.gguf", "models/nano/ds4-nano.gguf"};
    for (size_t i = 0; i < 4; i++) {
        gguf *g = NULL;
        assert_int_equal(gguf_open(&g, paths[i], NULL), DS4_OK);
        bool has_mtp = gguf_find_tensor(g, "mtp.0.hnorm.weight") != NULL;
        bound m = bind_ok(g, has_mtp, false);
        assert_int_equal(m.w.n_tensors, gguf_n_tensors(g));
        assert_int_equal(weights_have_mtp(g, &m.c), has_mtp);
        release(&m);
        gguf_close(g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type),        cmocka_unit_test(test_mixed_types),
        cmocka_unit_test(test_vectors),           cmocka_unit_test(test_every_vector),
        cmocka_unit_test(test_token_table),       cmocka_unit_test(test_wrong_token_table),
        cmocka_unit_test(test_spoilt_tensors),    cmocka_unit_test(test_unknown_type),
        cmocka_unit_test(test_foreign_tensors),   cmocka_unit_test(test_pruned),
        cmocka_unit_test(test_mtp_in_the_file),   cmocka_unit_test(test_mtp_in_another_file),
        cmocka_unit_test(test_joint_projections), cmocka_unit_test(test_counts),
        cmocka_unit_test(test_fingerprint),       cmocka_unit_test(test_clamps),
        cmocka_unit_test(test_oracle_files),
    };
    return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
