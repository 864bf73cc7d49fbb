/* test_oracle.c - the forward pass against an implementation that nobody of this project wrote: tiny
 * random models with recorded logits and intermediate values (tests/data/oracle/README.md), in plain
 * numerics, since that implementation simulates no cache grids.
 *
 * Every recorded array of every sequence is compared, with the sequence read at once, in uneven chunks
 * and token by token; the logits also with every kernel table. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cache_layout.h"
#include "backend/cpu/kernels.h"
#include "model/forward.h"
#include "tests/support/fixture.h"
#include "tests/support/tap.h"

/* Floats may differ by this much of the array's largest value. Most stay below 2e-6, the rounding of sums
 * of a few hundred products. Rotated vectors reach 8e-6 at position 700: the angle is a float of hundreds
 * of radians, and the two sides round its frequency differently. Leaving out the 1e-6 of a norm or of the
 * Sinkhorn sums hides below it; anything else that was tried (a transposed matrix, a row too many, a
 * shifted position, one iteration less) differs by 4e-5 to 1. */
static const double BOUND = 3e-5;

typedef struct {
    const char *model;
    uint32_t    n; /* tokens */
} sequence;

static const sequence sequences[] = {
    {"a", 1}, {"a", 5}, {"a", 37}, {"a", 300},
    {"b", 1}, {"b", 5}, {"b", 37}, {"b", 300}, {"b", 700},
    {"c", 1}, {"c", 5}, {"c", 37}, {"c", 300},
};

enum { N_SEQUENCES = sizeof sequences / sizeof *sequences };

/* How a sequence is cut into steps. */
typedef enum { AT_ONCE, IN_CHUNKS, ONE_BY_ONE } cutting;

static const char *const cutting_names[] = {"at once", "in chunks", "one by one"};

/* ---- a model ready to run ------------------------------------------------------------------------ */

typedef struct {
    fixture  recorded;
    gguf    *file;
    config   shape;
    arena    memory;
    weights  w;
    backend *device;
    tap     *watched;
    forward *pass;
    uint32_t n_ctx;
    float   *logits; /* [n_ctx][n_vocab] */
    char     what[64]; /* for messages */
} model;

static void must(ds4_status status, const ds4_error *err) {
    if (status != DS4_OK) fail_msg("%s: %s", ds4_status_name(status), err->message);
}

static void open_model(model *m, const sequence *s, const char *kernels, uint32_t n_threads) {
    char      path[128];
    ds4_error err = {0};
    *m = (model){.n_ctx = s->n};
    snprintf(path, sizeof path, "tests/data/oracle/%s", s->model);
    fixture_open(&m->recorded, path);
    snprintf(path, sizeof path, "tests/data/oracle/%s/model.gguf", s->model);
    must(gguf_open(&m->file, path, &err), &err);
    must(config_read(&m->shape, m->file, &err), &err);
    must(backend_open(&m->device,
                      &(backend_options){.device = "cpu", .kernels = kernels, .n_threads = n_threads},
                      &err), &err);
    m->watched = tap_create(m->device, &m->shape, s->n);
    must(weights_bind(&m->w, &(weights_source){.file = m->file, .is_plain = true}, &m->shape, m->device,
                      &m->memory, &err), &err);
    forward_limits limits = {.n_rows = s->n, .n_logits = s->n, .n_slots = 1, .n_ctx = s->n,
                             .is_plain = true};
    must(forward_create(&m->pass, &m->shape, &m->w, m->device, &limits, &err), &err);
    m->logits = calloc((size_t)s->n * m->shape.n_vocab, sizeof *m->logits);
    assert_non_null(m->logits);
}

static void close_model(model *m) {
    forward_destroy(m->pass);
    tap_destroy(m->watched);
    m->device->ops->close(m->device);
    arena_release(&m->memory);
    gguf_close(m->file);
    fixture_release(&m->recorded);
    free(m->logits);
}

static uint32_t next_chunk(cutting cut, uint32_t pos, uint32_t n_left) {
    /* Borders inside and at the ends of windows, of compressed rows and of the sliding window; the
     * sequence starts over when it is used up. */
    static const uint32_t sizes[] = {3, 1, 9, 2, 17, 96, 128, 5, 130};
    if (cut == AT_ONCE) return n_left;
    if (cut == ONE_BY_ONE) return 1;
    uint32_t end = 0;
    for (size_t i = 0;; i = (i + 1) % (sizeof sizes / sizeof *sizes)) {
        end += sizes[i];
        if (end > pos) return end - pos < n_left ? end - pos : n_left;
    }
}

/* Evaluates ids[0..n) and keeps all logits. */
static void run(model *m, const int32_t *ids, uint32_t n, cutting cut) {
    step_row *rows = calloc(n, sizeof *rows);
    uint32_t *logit_rows = calloc(n, sizeof *logit_rows);
    assert_true(rows && logit_rows);
    ds4_error err = {0};
    for (uint32_t pos = 0, n_now; pos < n; pos += n_now) {
        n_now = next_chunk(cut, pos, n - pos);
        for (uint32_t i = 0; i < n_now; i++) {
            rows[i] = (step_row){.token = ids[pos + i], .pos = pos + i};
            logit_rows[i] = i;
        }
        step_run   one = {.n = n_now, .pos = pos, .is_prompt = cut != ONE_BY_ONE};
        step_batch batch = {.rows = rows, .runs = &one, .logit_rows = logit_rows, .n_rows = n_now,
                            .n_runs = 1, .n_logits = n_now};
        must(forward_step(m->pass, &batch, m->logits + (size_t)pos * m->shape.n_vocab, NULL, &err), &err);
    }
    free(rows);
    free(logit_rows);
}

/* ---- comparing ----------------------------------------------------------------------------------- */

/* The values of one position with row `row` of the array. */
static void compare_floats(const model *m, const fixture_array *a, uint32_t row, const float *found,
                           size_t n) {
    assert_true(!a->is_i32 && found);
    if (a->n != n * a->shape[0]) fail_msg("%s, %s: rows of %zu, expected %zu", m->what, a->name, n,
                                          a->n / a->shape[0]);
    double max = 0;
    for (size_t i = 0; i < a->n; i++) max = fmax(max, fabs((double)a->f32[i]));
    for (size_t i = 0; i < n; i++) {
        double expected = (double)a->f32[row * n + i], d = fabs((double)found[i] - expected);
        if (!(d <= BOUND * max))
            fail_msg("%s, %s: row %u, value %zu: found %.9g, expected %.9g, which differs by %.2g of the "
                     "largest, %.9g", m->what, a->name, row, i, (double)found[i], expected, d / max, max);
    }
}

static void compare_ints(const model *m, const fixture_array *a, uint32_t row, const int32_t *found,
                         size_t n) {
    assert_true(a->is_i32 && found);
    for (size_t i = 0; i < n; i++) {
        int32_t expected = a->i32[row * n + i];
        if (found[i] != expected)
            fail_msg("%s, %s: row %u, value %zu: found %d, expected %d", m->what, a->name, row, i, found[i],
                     expected);
    }
}

/* The recorded positions of one kind of value. `is_repeated`: what is recorded once is there n_stream
 * times. */
static void compare_kind(const model *m, const fixture_array *a, tap_kind kind, uint32_t layer,
                         const fixture_array *positions, bool is_repeated) {
    assert_int_equal(a->shape[0], positions->n);
    for (uint32_t row = 0; row < a->shape[0]; row++) {
        size_t       n;
        const float *found = tap_floats(m->watched, kind, layer, (uint32_t)positions->i32[row], &n);
        assert_non_null(found);
        uint32_t n_times = is_repeated ? m->shape.n_stream : 1;
        for (uint32_t i = 0; i < n_times; i++) compare_floats(m, a, row, found + i * (n / n_times),
                                                              n / n_times);
    }
}

/* Position of row `row` of an array that has either all n positions or only the recorded ones. */
static uint32_t pos_of_row(const fixture_array *a, const fixture_array *positions, uint32_t n, uint32_t row) {
    if (a->shape[0] == n) return row;
    assert_int_equal(a->shape[0], positions->n);
    return (uint32_t)positions->i32[row];
}

/* ---- what is recorded of a layer ----------------------------------------------------------------- */

/* Recorded in ascending order of the experts, chosen by the best first. */
static void compare_experts(model *m, const sequence *s, uint32_t layer, const fixture_array *positions) {
    enum { MAX_USED = 16 };
    uint32_t             k = m->shape.n_expert_used;
    const fixture_array *ids = fixture_take(&m->recorded, "t%u.layer%u.experts", s->n, layer);
    const fixture_array *shares = fixture_take(&m->recorded, "t%u.layer%u.expert_weights", s->n, layer);
    assert_true(k <= MAX_USED && ids->shape[1] == k);
    for (uint32_t pass = 0; pass < 2; pass++) {
        const fixture_array *a = pass == 0 ? ids : shares;
        for (uint32_t row = 0; row < a->shape[0]; row++) {
            uint32_t       pos = pos_of_row(a, positions, s->n, row);
            size_t         n;
            int32_t        sorted[MAX_USED];
            float          sorted_shares[MAX_USED];
            const int32_t *found = tap_ints(m->watched, TAP_EXPERTS, layer, pos, &n);
            const float   *found_shares = tap_floats(m->watched, TAP_EXPERT_WEIGHTS, layer, pos, &n);
            assert_true(found && found_shares && n == k);
            for (uint32_t i = 0; i < k; i++) {
                uint32_t at = 0;
                for (uint32_t j = 0; j < k; j++) at += found[j] < found[i];
                sorted[at] = found[i];
                sorted_shares[at] = found_shares[i];
            }
            if (pass == 0) compare_ints(m, a, row, sorted, k);
            else compare_floats(m, a, row, sorted_shares, k);
        }
    }
}

static void compare_layer(model *m, const sequence *s, uint32_t layer, const fixture_array *positions) {
    /* The streams were not recorded for every layer. */
    const fixture_array *a = fixture_find(&m->recorded, "t%u.layer%u.after_attention", s->n, layer);
    if (a) compare_kind(m, a, TAP_AFTER_ATTENTION, layer, positions, false);
    a = fixture_take(&m->recorded, "t%u.layer%u.router_logits", s->n, layer);
    compare_kind(m, a, TAP_ROUTER_LOGITS, layer, positions, false);
    compare_experts(m, s, layer, positions);
    a = fixture_find(&m->recorded, "t%u.layer%u.after_layer", s->n, layer);
    if (a) compare_kind(m, a, TAP_AFTER_LAYER, layer, positions, false);
}

/* ---- what is recorded of a layer with compressed rows -------------------------------------------- */

typedef struct {
    uint8_t *bytes;
    size_t   n;
} byte_list;

static ds4_status append_bytes(void *user, const void *data, size_t n, ds4_error *err) {
    (void)err;
    byte_list *list = user;
    list->bytes = realloc(list->bytes, list->n + n);
    assert_non_null(list->bytes);
    memcpy(list->bytes + list->n, data, n);
    list->n += n;
    return DS4_OK;
}

/* The float rows that a layer's cache holds after n positions; free() them. NULL if there are none. */
static float *cached_rows(const model *m, uint32_t n_pos, uint32_t layer, cache_part part) {
    cache_layer    layers[CONFIG_MAX_LAYERS];
    forward_limits limits = {.n_slots = 1, .n_ctx = m->n_ctx, .is_plain = true};
    cache_plan     plan = forward_cache_plan(&m->shape, &limits, layers);
    byte_list      stream = {0};
    ds4_error      err = {0};
    must(m->device->ops->cache_export(m->device, 0, n_pos, append_bytes, &stream, &err), &err);
    assert_int_equal(stream.n, cache_stream_bytes(&plan, n_pos));
    size_t offset = 0;
    for (uint32_t il = 0;; il++) {
        for (cache_part p = 0; p < CACHE_N_PARTS; p++) {
            uint32_t first, n;
            cache_part_held(&plan, &layers[il], p, n_pos, &first, &n);
            size_t n_bytes = n * cache_part_row_bytes(&plan, &layers[il], p);
            if (il == layer && p == part) {
                float *rows = n_bytes ? malloc(n_bytes) : NULL;
                if (rows) memcpy(rows, stream.bytes + offset, n_bytes);
                free(stream.bytes);
                return rows;
            }
            offset += n_bytes;
        }
    }
}

static void compare_compressed(model *m, const sequence *s, const char *stem) {
    uint32_t             layer = (uint32_t)atoi(stem + 3);
    const fixture_array *numbers = fixture_take(&m->recorded, "t%u.%s.compressed_rows", s->n, stem);
    const fixture_array *a = fixture_take(&m->recorded, "t%u.%s.compressed", s->n, stem);
    uint32_t             n_rows = s->n / m->shape.ratio[layer];
    float               *rows = cached_rows(m, s->n, layer, CACHE_ROWS);
    assert_true((n_rows > 0) == (rows != NULL) && (n_rows > 0) == (a->n > 0));
    assert_int_equal(numbers->n, a->shape[0]);
    for (uint32_t i = 0; i < numbers->n; i++) {
        assert_in_range(numbers->i32[i], 0, n_rows - 1);
        compare_floats(m, a, i, rows + (size_t)numbers->i32[i] * m->shape.head_dim, m->shape.head_dim);
    }
    free(rows);
}

/* The operation does not give its scores away; they follow from its inputs, the rows in the cache
 * included. All rows of the sequence were scored, also those after the query. */
static void compare_index(model *m, const sequence *s, const char *stem, const fixture_array *positions) {
    uint32_t layer = (uint32_t)atoi(stem + 3), n_rows = s->n / 4, dim = m->shape.index_dim;
    if (n_rows == 0) return; /* nothing to choose from, nothing recorded */
    const fixture_array *a = fixture_take(&m->recorded, "t%u.%s.index_scores", s->n, stem);
    float               *keys = cached_rows(m, s->n, layer, CACHE_INDEX_ROWS);
    float               *scores = calloc(n_rows, sizeof *scores);
    assert_true(keys && scores && a->shape[0] == positions->n && a->shape[1] == n_rows);
    for (uint32_t row = 0; row < a->shape[0]; row++) {
        uint32_t     pos = (uint32_t)positions->i32[row];
        size_t       n, n_heads;
        const float *q = tap_floats(m->watched, TAP_INDEX_QUERY, layer, pos, &n);
        const float *w = tap_floats(m->watched, TAP_INDEX_WEIGHTS, layer, pos, &n_heads);
        assert_true(q && w && n == n_heads * dim);
        for (uint32_t r = 0; r < n_rows; r++) {
            scores[r] = 0;
            for (size_t h = 0; h < n_heads; h++) {
                float dot = 0;
                for (uint32_t i = 0; i < dim; i++) dot += q[h * dim + i] * keys[(size_t)r * dim + i];
                scores[r] += w[h] * fmaxf(dot, 0);
            }
        }
        compare_floats(m, a, row, scores, n_rows);
    }
    free(keys);
    free(scores);

    a = fixture_take(&m->recorded, "t%u.%s.index_selected", s->n, stem);
    for (uint32_t row = 0; row < a->shape[0]; row++) {
        size_t         n;
        uint32_t       pos = pos_of_row(a, positions, s->n, row);
        const int32_t *found = tap_ints(m->watched, TAP_INDEX_SELECTED, layer, pos, &n);
        assert_true(found && n == m->shape.index_top_k && a->shape[1] <= n);
        compare_ints(m, a, row, found, a->shape[1]);
        for (size_t i = a->shape[1]; i < n; i++) assert_int_equal(found[i], -1);
    }
}

/* stem: "csa4", "hca3": kind and layer. */
static void compare_attention(model *m, const sequence *s, const char *stem,
                              const fixture_array *positions) {
    static const struct {
        const char *name;
        tap_kind    kind;
    } kinds[] = {{"q", TAP_QUERY}, {"kv", TAP_KV}, {"heads", TAP_HEADS}, {"out", TAP_ATTENTION_OUT}};
    uint32_t layer = (uint32_t)atoi(stem + 3);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const fixture_array *a = fixture_take(&m->recorded, "t%u.%s.%s", s->n, stem, kinds[i].name);
        compare_kind(m, a, kinds[i].kind, layer, positions, false);
    }
    compare_compressed(m, s, stem);
    if (m->shape.ratio[layer] == 4) compare_index(m, s, stem, positions);
}

/* ---- whole sequences ----------------------------------------------------------------------------- */

static void compare_logits(model *m, const sequence *s) {
    const fixture_array *at = fixture_take(&m->recorded, "t%u.logit_positions", s->n);
    const fixture_array *a = fixture_take(&m->recorded, "t%u.logits", s->n);
    size_t               n_vocab = m->shape.n_vocab;
    assert_int_equal(a->shape[0], at->n);
    for (uint32_t row = 0; row < at->n; row++)
        compare_floats(m, a, row, m->logits + (size_t)at->i32[row] * n_vocab, n_vocab);
    if (s->n == 1) return;
    /* Recorded from that implementation's own cached decoding. */
    a = fixture_take(&m->recorded, "t%u.decode_last_logits", s->n);
    assert_int_equal(a->n, n_vocab);
    fixture_array last = *a;
    last.shape[0] = 1;
    compare_floats(m, &last, 0, m->logits + (size_t)(s->n - 1) * n_vocab, n_vocab);
}

static uint32_t layer_by_key(model *m, const char *key) {
    int64_t layer = -1;
    assert_true(json_int(json_get(m->recorded.index.root, key), &layer));
    return (uint32_t)layer;
}

static void compare_everything(model *m, const sequence *s) {
    const fixture_array *positions = fixture_take(&m->recorded, "t%u.positions", s->n);
    compare_kind(m, fixture_take(&m->recorded, "t%u.embedding", s->n), TAP_EMBEDDING, 0, positions, true);
    for (uint32_t layer = 0; layer < m->shape.n_layer; layer++) compare_layer(m, s, layer, positions);
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
    for (cutting cut = AT_ONCE; cut <= ONE_BY_ONE; cut++) {
        model m;
        open_model(&m, s, NULL, 2);
        snprintf(m.what, sizeof m.what, "%s, %u tokens %s", s->model, s->n, cutting_names[cut]);
        const fixture_array *ids = fixture_take(&m.recorded, "t%u.ids", s->n);
        assert_int_equal(ids->n, s->n);
        run(&m, ids->i32, s->n, cut);
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
            model           m;
            open_model(&m, s, k->name, 1);
            snprintf(m.what, sizeof m.what, "%s, %u tokens, kernels %s", s->model, s->n, k->name);
            run(&m, fixture_take(&m.recorded, "t%u.ids", s->n)->i32, s->n, AT_ONCE);
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
        size_t      n_arrays;
    } wholes[] = {{"a", 191}, {"b", 160}, {"c", 134}};
    for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++) {
        char    path[64];
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
    static char       names[N_SEQUENCES][48];
    struct CMUnitTest tests[N_SEQUENCES + 2] = {cmocka_unit_test(test_fixtures_are_whole)};
    for (size_t i = 0; i < N_SEQUENCES; i++) {
        snprintf(names[i], sizeof names[i], "test_states_%s_%u", sequences[i].model, sequences[i].n);
        tests[1 + i] = (struct CMUnitTest){.name = names[i], .test_func = test_states,
                                           .initial_state = (void *)(uintptr_t)&sequences[i]};
    }
    tests[N_SEQUENCES + 1] = (struct CMUnitTest)cmocka_unit_test(test_kernels);
    return cmocka_run_group_tests_name("oracle", tests, NULL, NULL);
}
