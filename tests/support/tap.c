#include "tests/support/tap.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* All values are four bytes. */
typedef struct {
    float *values; /* [n_pos][n]; NULL until the first of them arrives */
    bool *is_set;  /* [n_pos] */
    size_t n;
} series;

struct tap {
    backend_ops ops; /* first: the tapped backend's table points here */
    const backend_ops *inner;
    backend *b;
    const config *c;
    uint32_t n_pos;
    series *all;             /* [TAP_N_KINDS][n_layer] */
    const step_batch *batch; /* during a step */
    uint32_t n_posts;        /* hc_post calls of the step so far: two a layer */
};

static tap *tap_of(const backend *b) {
    return (tap *)(uintptr_t)b->ops;
}

/* ---- keeping ---- */

static series *series_of(const tap *t, tap_kind kind, uint32_t layer) {
    assert_true(layer < t->c->n_layer);
    return &t->all[(size_t)kind * t->c->n_layer + layer];
}

/* Keeps from[R][n], times scale if they are floats, as values of the layer in hand. */
static void keep_scaled(tap *t, tap_kind kind, dev_ptr from, size_t n, float scale) {
    series *s = series_of(t, kind, t->n_posts / 2);
    if (!s->values) {
        s->values = calloc(t->n_pos * n, sizeof *s->values);
        s->is_set = calloc(t->n_pos, sizeof *s->is_set);
        s->n = n;
    }
    assert_true(s->values && s->is_set && s->n == n);
    for (uint32_t row = 0; row < t->batch->n_rows; row++) {
        uint32_t pos = t->batch->rows[row].pos;
        assert_true(pos < t->n_pos);
        float *to = s->values + pos * n;
        t->inner->read(t->b, to, dev_add(from, row * n * sizeof *to), n * sizeof *to);
        for (size_t i = 0; scale != 1 && i < n; i++) to[i] *= scale;
        s->is_set[pos] = true;
    }
}

static void keep(tap *t, tap_kind kind, dev_ptr from, size_t n) {
    keep_scaled(t, kind, from, n, 1);
}

/* ---- the entries that are watched ---- */

static void watch_step_begin(backend *b, const step_batch *batch) {
    tap *t = tap_of(b);
    t->batch = batch;
    t->n_posts = 0;
    t->inner->step_begin(b, batch);
}

static void watch_embed(backend *b, const embed_args *a) {
    tap *t = tap_of(b);
    t->inner->embed(b, a);
    keep(t, TAP_EMBEDDING, a->out, (size_t)a->n_streams * t->c->n_embd);
}

static void watch_index_topk(backend *b, const index_topk_args *a) {
    tap *t = tap_of(b);
    t->inner->index_topk(b, a);
    keep(t, TAP_INDEX_QUERY, a->q, (size_t)a->n_heads * t->c->index_dim);
    keep_scaled(t, TAP_INDEX_WEIGHTS, a->w, a->n_heads, a->scale);
    keep(t, TAP_INDEX_SELECTED, a->sel, a->top_k);
}

static void watch_attention(backend *b, const attention_args *a) {
    tap *t = tap_of(b);
    t->inner->attention(b, a);
    keep(t, TAP_QUERY, a->q, (size_t)a->n_heads * t->c->head_dim);
    keep(t, TAP_KV, a->kv, t->c->head_dim);
}

static void watch_rope(backend *b, const rope_args *a) {
    tap *t = tap_of(b);
    t->inner->rope(b, a);
    if (a->is_inverse) keep(t, TAP_HEADS, a->x, (size_t)a->n_heads * a->n);
}

static void watch_router(backend *b, const router_args *a) {
    tap *t = tap_of(b);
    keep(t, TAP_ROUTER_LOGITS, a->logits, a->n_expert); /* before: scores may take their place */
    t->inner->router(b, a);
    keep(t, TAP_EXPERTS, a->ids, a->k);
    keep(t, TAP_EXPERT_WEIGHTS, a->weights, a->k);
}

static void watch_hc_post(backend *b, const hc_post_args *a) {
    tap *t = tap_of(b);
    bool is_attention = t->n_posts % 2 == 0;
    if (is_attention) keep(t, TAP_ATTENTION_OUT, a->y, a->n_embd);
    t->inner->hc_post(b, a);
    keep(t, is_attention ? TAP_AFTER_ATTENTION : TAP_AFTER_LAYER, a->hc,
         (size_t)a->n_streams * a->n_embd);
    t->n_posts++;
}

/* ---- creation and reading ---- */

tap *tap_create(backend *b, const config *c, uint32_t n_pos) {
    tap *t = calloc(1, sizeof *t);
    assert_non_null(t);
    *t = (tap){.ops = *b->ops, .inner = b->ops, .b = b, .c = c, .n_pos = n_pos};
    t->all = calloc((size_t)TAP_N_KINDS * c->n_layer, sizeof *t->all);
    assert_non_null(t->all);
    t->ops.step_begin = watch_step_begin;
    t->ops.embed = watch_embed;
    t->ops.index_topk = watch_index_topk;
    t->ops.attention = watch_attention;
    t->ops.rope = watch_rope;
    t->ops.router = watch_router;
    t->ops.hc_post = watch_hc_post;
    b->ops = &t->ops;
    return t;
}

void tap_destroy(tap *t) {
    if (!t) return;
    t->b->ops = t->inner;
    for (size_t i = 0; i < (size_t)TAP_N_KINDS * t->c->n_layer; i++) {
        free(t->all[i].values);
        free(t->all[i].is_set);
    }
    free(t->all);
    free(t);
}

const float *tap_floats(const tap *t, tap_kind kind, uint32_t layer, uint32_t pos, size_t *n) {
    const series *s = series_of(t, kind, layer);
    assert_true(pos < t->n_pos);
    if (!s->values || !s->is_set[pos]) return NULL;
    *n = s->n;
    return s->values + pos * s->n;
}

const int32_t *tap_ints(const tap *t, tap_kind kind, uint32_t layer, uint32_t pos, size_t *n) {
    return (const int32_t *)(const void *)tap_floats(t, kind, layer, pos, n);
}
