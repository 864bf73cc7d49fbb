/* test_oracle.c - the forward pass against an implementation that nobody of this project wrote:
 * tiny random models with recorded logits and intermediate values (tests/data/oracle/README.md), in
 * plain numerics, since that implementation simulates no cache grids.
 *
 * Every recorded array of every sequence is compared, with the sequence read at once, in uneven
 * chunks and token by token; the logits also with every kernel table. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "tests/support/fixture.h"
#include "tests/support/pass.h"

/* Floats may differ by this much of the array's largest value. Most stay below 2e-6, the rounding
 * of sums of a few hundred products. Rotated vectors reach 8e-6 at position 700: the angle is a
 * float of hundreds of radians, and the two sides round its frequency differently. Leaving out the
 * 1e-6 of a norm or of the Sinkhorn sums hides below it; anything else that was tried (a transposed
 * matrix, a row too many, a shifted position, one iteration less) differs by 4e-5 to 1. */
static const double BOUND = 3e-5;

typedef struct {
    const char *model;
    uint32_t n; /* tokens */
} sequence;

static const sequence sequences[] = {
    {"a", 1},   {"a", 5},   {"a", 37}, {"a", 300}, {"b", 1},  {"b", 5},   {"b", 37},
    {"b", 300}, {"b", 700}, {"c", 1},  {"c", 5},   {"c", 37}, {"c", 300},
};

enum { N_SEQUENCES = sizeof sequences / sizeof *sequences };

/* ---- a model with what is recorded of it ---------------------------------------------------- */

typedef struct {
    pass p;
    fixture recorded;
    char what[64]; /* for messages */
} model;

static void open_model(model *m, const sequence *s, const char *kernels, uint32_t n_threads) {
    char path[128];
    snprintf(path, sizeof path, "tests/data/oracle/%s", s->model);
    fixture_open(&m->recorded, path);
    snprintf(path, sizeof path, "tests/data/oracle/%s/model.gguf", s->model);
    pass_open(&m->p, &(pass_options){.path = path,
                                     .kernels = kernels,
                                     .n_threads = n_threads,
                                     .n_ctx = s->n,
                                     .has_float_weights = true,
                                     .has_float_caches = true,
                                     .is_tapped = true});
}

static void close_model(model *m) {
    pass_close(&m->p);
    fixture_release(&m->recorded);
}

/* ---- comparing ------------------------------------------------------------------------------ */

/* The values of one position with row `row` of the array. */
static void compare_floats(const model *m, const fixture_array *a, uint32_t row, const float *found,
                           size_t n) {
    assert_true(!a->is_i32 && found);
    if (a->n != n * a->shape[0])
        fail_msg("%s, %s: rows of %zu, expected %zu", m->what, a->name, n, a->n / a->shape[0]);
    double max = 0;
    for (size_t i = 0; i < a->n; i++) max = fmax(max, fabs((double)a->f32[i]));
    for (size_t i = 0; i < n; i++) {
        double expected = (double)a->f32[row * n + i], d = fabs((double)found[i] - expected);
        if (!(d <= BOUND * max))
            fail_msg("%s, %s: row %u, value %zu: found %.9g, expected %.9g, which differs by %.2g "
                     "of the largest, %.9g",
                     m->what, a->name, row, i, (double)found[i], expected, d / max, max);
    }
}

static void compare_ints(const model *m, const fixture_array *a, uint32_t row, const int32_t *found,
                         size_t n) {
    assert_true(a->is_i32 && found);
    for (size_t i = 0; i < n; i++) {
        int32_t expected = a->i32[row * n + i];
        if (found[i] != expected)
            fail_msg("%s, %s: row %u, value %zu: found %d, expected %d", m->what, a->name, row, i,
                     found[i], expected);
    }
}

/* The recorded positions of one kind of value. `is_repeated`: what is recorded once is there
 * n_stream times. */
static void compare_kind(const model *m, const fixture_array *a, tap_kind kind, uint32_t layer,
                         const fixture_array *positions, bool is_repeated) {
    assert_int_equal(a->shape[0], positions->n);
    for (uint32_t row = 0; row < a->shape[0]; row++) {
        size_t n;
        const float *found =
            tap_floats(m->p.watched, kind, layer, (uint32_t)positions->i32[row], &n);
        assert_non_null(found);
        uint32_t n_times = is_repeated ? m->p.shape.n_stream : 1;
        for (uint32_t i = 0; i < n_times; i++)
            compare_floats(m, a, row, found + i * (n / n_times), n / n_times);
    }
}

/* Position of row `row` of an array that has either all n positions or only the recorded ones. */
static uint32_t pos_of_row(const fixture_array *a, const fixture_array *positions, uint32_t n,
                           uint32_t row) {
    if (a->shape[0] == n) return row;
    assert_int_equal(a->shape[0], positions->n);
    return (uint32_t)positions->i32[row];
}

/* ---- what is recorded of a layer ------------------------------------------------------------ */

enum { MAX_USED = 16 };

/* The choice of one position in ascending order of the experts, with their weights. */
static void sorted_choice(const model *m, uint32_t layer, uint32_t pos, int32_t *ids,
                          float *shares) {
    size_t n_ids, n_shares;
    const int32_t *found = tap_ints(m->p.watched, TAP_EXPERTS, layer, pos, &n_ids);
    const float *found_shares = tap_floats(m->p.watched, TAP_EXPERT_WEIGHTS, layer, pos, &n_shares);
    assert_true(found && found_shares && n_ids == n_shares && n_ids <= MAX_USED);
    for (size_t i = 0; i < n_ids; i++) {
        size_t at = 0;
        for (size_t j = 0; j < n_ids; j++) at += found[j] < found[i];
        ids[at] = found[i];
        shares[at] = found_shares[i];
    }
}

static void compare_experts(model *m, const sequence *s, uint32_t layer,
                            const fixture_array *positions) {
    const fixture_array *ids = fixture_take(&m->recorded, "t%u.layer%u.experts", s->n, layer);
    const fixture_array *shares =
        fixture_take(&m->recorded, "t%u.layer%u.expert_weights", s->n, layer);
    uint32_t k = m->p.shape.n_expert_used;
    int32_t found[MAX_USED];
    float found_shares[MAX_USED];
    assert_true(ids->shape[1] == k && shares->shape[1] == k);
    for (uint32_t row = 0; row < ids->shape[0]; row++) {
        sorted_choice(m, layer, pos_of_row(ids, positions, s->n, row), found, found_shares);
        compare_ints(m, ids, row, found, k);
    }
    for (uint32_t row = 0; row < shares->shape[0]; row++) {
        sorted_choice(m, layer, pos_of_row(shares, positions, s->n, row), found, found_shares);
        compare_floats(m, shares, row, found_shares, k);
    }
}

static void compare_layer(model *m, const sequence *s, uint32_t layer,
                          const fixture_array *positions) {
    /* The streams were not recorded for every layer. */
    const fixture_array *a = fixture_find(&m->recorded, "t%u.layer%u.after_attention", s->n, layer);
    if (a) compare_kind(m, a, TAP_AFTER_ATTENTION, layer, positions, false);
    a = fixture_take(&m->recorded, "t%u.layer%u.router_logits", s->n, layer);
    compare_kind(m, a, TAP_ROUTER_LOGITS, layer, positions, false);
    compare_experts(m, s, layer, positions);
    a = fixture_find(&m->recorded, "t%u.layer%u.after_layer", s->n, layer);
    if (a) compare_kind(m, a, TAP_AFTER_LAYER, layer, positions, false);
}

/* ---- what is recorded of a layer with compressed rows --------------------------------------- */

static void compare_compressed(model *m, const sequence *s, const char *stem) {
    uint32_t layer = (uint32_t)atoi(stem + 3);
    const fixture_array *numbers = fixture_take(&m->recorded, "t%u.%s.compressed_rows", s->n, stem);
    const fixture_array *a = fixture_take(&m->recorded, "t%u.%s.compressed", s->n, stem);
    uint32_t n_rows = s->n / m->p.shape.ratio[layer];
    float *rows = pass_cached_rows(&m->p, s->n, layer, CACHE_ROWS);
    assert_true((n_rows > 0) == (rows != NULL) && (n_rows > 0) == (a->n > 0));
    assert_int_equal(numbers->n, a->shape[0]);
    for (uint32_t i = 0; i < numbers->n; i++) {
        assert_in_range(numbers->i32[i], 0, n_rows - 1);
        compare_floats(m, a, i, rows + (size_t)numbers->i32[i] * m->p.shape.head_dim,
                       m->p.shape.head_dim);
    }
    free(rows);
}

/* The operation does not give its scores away; they follow from its inputs, the rows in the cache
 * included. All rows of the sequence were scored, also those after the query. */
static void compare_index(model *m, const sequence *s, const char *stem,
                          const fixture_array *positions) {
    uint32_t layer = (uint32_t)atoi(stem + 3), n_rows = s->n / 4, dim = m->p.shape.index_dim;
    if (n_rows == 0) return; /* nothing to choose from, nothing recorded */
    const fixture_array *a = fixture_take(&m->recorded, "t%u.%s.index_scores", s->n, stem);
    float *keys = pass_cached_rows(&m->p, s->n, layer, CACHE_INDEX_ROWS);
    float *scores = calloc(n_rows, sizeof *scores);
    assert_true(keys && scores && a->shape[0] == positions->n && a->shape[1] == n_rows);
    for (uint32_t row = 0; row < a->shape[0]; row++) {
        uint32_t pos = (uint32_t)positions->i32[row];
        size_t n, n_heads;
        const float *q = tap_floats(m->p.watched, TAP_INDEX_QUERY, layer, pos, &n);
        const float *w = tap_floats(m->p.watched, TAP_INDEX_WEIGHTS, layer, pos, &n_heads);
        assert_true(q && w && n == n_heads * dim);
        for (uint32_t r = 0; r < n_rows; r++) {
            scores[r] = 0;
            for (size_t h = 0; h < n_heads; h++) {
                float dot = 0;
                for (uint32_t i = 0; i < dim; i++)
                    dot += q[h * dim + i] * keys[(size_t)r * dim + i];
                scores[r] += w[h] * fmaxf(dot, 0);
            }
        }
        compare_floats(m, a, row, scores, n_rows);
    }
    free(keys);
    free(scores);

    a = fixture_take(&m->recorded, "t%u.%s.index_selected", s->n, stem);
    for (uint32_t row = 0; row < a->shape[0]; row++) {
        size_t n;
        uint32_t pos = pos_of_row(a, positions, s->n, row);
        const int32_t *found = tap_ints(m->p.watched, TAP_INDEX_SELECTED, layer, pos, &n);
        assert_true(found && n == m->p.shape.index_top_k && a->shape[1] <= n);
        compare_ints(m, a, row, found, a->shape[1]);
        for (size_t i = a->shape[1]; i < n; i++) assert_int_equal(found[i], -1);
    }
}

/* stem: "csa4", "hca3": kind and layer. */
static void compare_attention(model *m, const sequence *s, const char *stem,
                              const fixture_array *positions) {
    static const struct {
        const char *name;
        tap_kind kind;
    } kinds[] = {
        {"q", TAP_QUERY}, {"kv", TAP_KV}, {"heads", TAP_HEADS}, {"out", TAP_ATTENTION_OUT}};
    uint32_t layer = (uint32_t)atoi(stem + 3);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const fixture_array *a = fixture_take(&m->recorded, "t%u.%s.%s", s->n, stem, kinds[i].name);
        compare_kind(m, a, kinds[i].kind, layer, positions, false);
    }
    compare_compressed(m, s, stem);
    if (m->p.shape.ratio[layer] == 4) compare_index(m, s, stem, positions);
}

/* ---- whole sequences ------------------------------------------------------------------------ */

static void compare_logits(model *m, const sequence *s) {
    const fixture_array *at = fixture_take(&m->recorded, "t%u.logit_positions", s->n);
    const fixture_array *a = fixture_take(&m->recorded, "t%u.logits", s->n);
    size_t n_vocab = m->p.shape.n_vocab;
    assert_int_equal(a->shape[0], at->n);
    for (uint32_t row = 0; row < at->n; row++)
        compare_floats(m, a, row, m->p.logits + (size_t)at->i32[row] * n_vocab, n_vocab);
    if (s->n == 1) return;
    /* Recorded from that implementation's own cached decoding. */
    a = fixture_take(&m->recorded, "t%u.decode_last_logits", s->n);
    assert_int_equal(a->n, n_vocab);
    fixture_array last = *a;
    last.shape[0] = 1;
    compare_floats(m, &last, 0, m->p.logits + (size_t)(s->n - 1) * n_vocab, n_vocab);
}

static uint32_t layer_by_key(model *m, const char *key) {
    int64_t layer = -1;
    assert_true(json_int(json_get(m->recorded.index.root, key), &layer));
    return (uint32_t)layer;
}

static void compare_everything(model *m, const sequence *s) {
    const fixture_array *positions = fixture_take(&m->recorded, "t%u.positions", s->n);
    compare_kind(m, fixture_take(&m->recorded, "t%u.embedding", s->n), TAP_EMBEDDING, 0, positions,
                 true);
    for (uint32_t layer = 0; layer < m->p.shape.n_layer; layer++)
        compare_layer(m, s, layer, positions);
    char stem[16];
    snprintf(stem, sizeof stem, "csa%u", layer_by_key(m, "csa_layer"));
    compare_attention(m, s, stem, positions);
    snprintf(stem, sizeof stem, "hca%u", layer_by_key(m, "hca_layer"));
    compare_attention(m, s, stem, positions);
    compare_logits(m, s);

    char prefix[16];
    snprintf(prefix, sizeof prefix, "t%u.", s->n);
    const fixture_array *untaken = fixture_untaken(&m->recorded, prefix);
    if (untaken) fail_msg("%s: '%s' is recorded and was not compared", m->what, untaken->name);
}

static void test_states(void **state) {
    const sequence *s = *state;
    static const struct {
        pass_cut cut;
        const char *name;
    } cuts[] = {
        {pass_at_once, "at once"}, {pass_in_chunks, "in chunks"}, {pass_one_by_one, "one by one"}};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        model m;
        open_model(&m, s, NULL, 2);
        snprintf(m.what, sizeof m.what, "%s, %u tokens %s", s->model, s->n, cuts[i].name);
        const fixture_array *ids = fixture_take(&m.recorded, "t%u.ids", s->n);
        assert_int_equal(ids->n, s->n);
        pass_run(&m.p, ids->i32, s->n, cuts[i].cut);
        compare_everything(&m, s);
        close_model(&m);
    }
}

static void test_kernels(void **state) {
    (void)state;
    const cpu_kernels *k;
    for (size_t t = 0; (k = cpu_kernels_at(t)); t++) {
        for (size_t i = 0; i < N_SEQUENCES; i++) {
            const sequence *s = &sequences[i];
            model m;
            open_model(&m, s, k->name, 1);
            snprintf(m.what, sizeof m.what, "%s, %u tokens, kernels %s", s->model, s->n, k->name);
            pass_run(&m.p, fixture_take(&m.recorded, "t%u.ids", s->n)->i32, s->n, pass_at_once);
            compare_logits(&m, s);
            close_model(&m);
        }
    }
}

/* No sequence of a fixture is left out, and no array has got lost in it. */
static void test_fixtures_are_whole(void **state) {
    (void)state;
    static const struct {
        const char *model;
        size_t n_arrays;
    } wholes[] = {{"a", 191}, {"b", 160}, {"c", 134}};
    for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++) {
        char path[64];
        fixture f;
        snprintf(path, sizeof path, "tests/data/oracle/%s", wholes[i].model);
        fixture_open(&f, path);
        assert_int_equal(f.n_arrays, wholes[i].n_arrays);
        for (size_t j = 0; j < f.n_arrays; j++) {
            bool is_covered = false;
            for (size_t k = 0; k < N_SEQUENCES; k++)
                is_covered |= strcmp(sequences[k].model, wholes[i].model) == 0 &&
                              (uint32_t)atoi(f.arrays[j].name + 1) == sequences[k].n;
            if (!is_covered) fail_msg("%s: '%s' belongs to no sequence", path, f.arrays[j].name);
        }
        fixture_release(&f);
    }
}

int main(void) {
    static char names[N_SEQUENCES][48];
    struct CMUnitTest tests[N_SEQUENCES + 2] = {cmocka_unit_test(test_fixtures_are_whole)};
    for (size_t i = 0; i < N_SEQUENCES; i++) {
        snprintf(names[i], sizeof names[i], "test_states_%s_%u", sequences[i].model,
                 sequences[i].n);
        tests[1 + i] = (struct CMUnitTest){.name = names[i],
                                           .test_func = test_states,
                                           .initial_state = (void *)(uintptr_t)&sequences[i]};
    }
    tests[N_SEQUENCES + 1] = (struct CMUnitTest)cmocka_unit_test(test_kernels);
    return cmocka_run_group_tests_name("oracle", tests, NULL, NULL);
}
