/* test_moe.c - router and experts of the CPU backend against their formulas in double: every score,
 * with and without normalised weights, bias and token table; clamps that differ between the routed
 * experts and the shared one; expert counts from 3 to 384. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "backend/backend.h"

enum { N_ROWS = 5, N_EMBD = 24, N_FF = 20, N_VOCAB = 7, MAX_EXPERTS = 384, MAX_USED = 6 };

/* Scores are at most 12 and a few float operations away from their logits: 12 * 6e-8 each. Outputs
 * of experts are sums of 20 products of up to 100, all experts together up to 1000: sums of 24 and
 * 20 terms may be off by 24 * 6e-8 of that. */
static const double SCORE_BOUND = 1e-5, OUTPUT_BOUND = 1e-3;

static uint64_t random_state = 1;

/* -1 .. 1 */
static float random_float(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(random_state >> 40) * 0x1p-23f - 1.0f;
}

static void must(ds4_status status, const ds4_error *err) {
    if (status != DS4_OK) fail_msg("%s: %s", ds4_status_name(status), err->message);
}

/* ---- a backend with one step in hand -------------------------------------------------------- */

typedef struct {
    backend *b;
    cache_layer layer;
    step_row rows[N_ROWS];
    step_run run;
    step_batch batch;
} stage;

static void open_stage(stage *s, uint32_t n_expert, uint32_t k) {
    ds4_error err = {0};
    *s = (stage){.layer = {.head_dim = 8, .rot_dim = 4, .window = 4}, .run = {.n = N_ROWS}};
    must(backend_open(&s->b, &(backend_options){.device = "cpu", .n_threads = 2}, &err), &err);
    backend_plan plan = {.caches = {.layers = &s->layer, .n_layers = 1, .n_slots = 1, .n_ctx = 16},
                         .n_rows = N_ROWS,
                         .n_logits = 1,
                         .n_streams = 1,
                         .n_embd = N_EMBD,
                         .n_heads = 1,
                         .head_dim = 8,
                         .n_expert = n_expert,
                         .n_expert_used = k,
                         .n_ff = N_FF,
                         .n_in_max = N_EMBD,
                         .n_mix = 3};
    must(s->b->ops->prepare(s->b, &plan, &err), &err);
    for (uint32_t row = 0; row < N_ROWS; row++)
        s->rows[row] = (step_row){.token = (int32_t)(row * 3 % N_VOCAB), .pos = row};
    s->batch = (step_batch){.rows = s->rows, .runs = &s->run, .n_rows = N_ROWS, .n_runs = 1};
}

static dev_ptr buffer_of(stage *s, const void *values, size_t n_bytes) {
    dev_ptr p;
    ds4_error err = {0};
    must(s->b->ops->buffer_create(s->b, &p, n_bytes, &err), &err);
    if (values) s->b->ops->write(s->b, p, values, n_bytes);
    return p;
}

/* ---- router --------------------------------------------------------------------------------- */

typedef struct {
    uint32_t n_expert, k;
    router_score score;
    bool is_normed, has_bias, has_table;
    float logits[N_ROWS][MAX_EXPERTS], bias[MAX_EXPERTS];
    int32_t table[N_VOCAB][MAX_USED];
} router_case;

static void fill_router(router_case *c) {
    for (uint32_t row = 0; row < N_ROWS; row++)
        for (uint32_t e = 0; e < c->n_expert; e++) c->logits[row][e] = 12 * random_float();
    /* Equal scores: the lower id; 30 is beyond the switch of softplus, -90 next to nothing. */
    c->logits[1][0] = c->logits[1][c->n_expert - 1] = c->logits[1][1] = 30;
    for (uint32_t e = 0; e < c->n_expert; e++) c->logits[2][e] = -90;
    for (uint32_t e = 0; e < c->n_expert; e++) c->bias[e] = 2 * random_float();
    for (uint32_t t = 0; t < N_VOCAB; t++)
        for (uint32_t j = 0; j < c->k; j++) c->table[t][j] = (int32_t)((t + 5 * j) % c->n_expert);
}

static void double_scores(const router_case *c, uint32_t row, double *s) {
    double sum = 0;
    for (uint32_t e = 0; e < c->n_expert; e++) {
        double x = (double)c->logits[row][e];
        s[e] = c->score == ROUTER_SIGMOID         ? 1 / (1 + exp(-x))
               : c->score == ROUTER_SQRT_SOFTPLUS ? sqrt(x > 30 ? x : log1p(exp(x)))
                                                  : exp(x);
        sum += s[e];
    }
    if (c->score == ROUTER_SOFTMAX)
        for (uint32_t e = 0; e < c->n_expert; e++) s[e] /= sum;
}

/* One row: the chosen ids have the best scores, best first, or are the table's; weights follow. */
static void check_row(const router_case *c, uint32_t row, int32_t token, const int32_t *ids,
                      const float *weights, float scale) {
    double s[MAX_EXPERTS], sum = 0;
    bool is_taken[MAX_EXPERTS] = {0};
    double_scores(c, row, s);
    for (uint32_t j = 0; j < c->k; j++) {
        if (c->has_table) {
            assert_int_equal(ids[j], c->table[token][j]);
        } else {
            assert_in_range(ids[j], 0, c->n_expert - 1);
            assert_false(is_taken[ids[j]]);
            double found = s[ids[j]] + (c->has_bias ? (double)c->bias[ids[j]] : 0);
            for (uint32_t e = 0; e < c->n_expert; e++) {
                double other = s[e] + (c->has_bias ? (double)c->bias[e] : 0);
                bool is_better =
                    other > found + SCORE_BOUND || (other == found && (int32_t)e < ids[j]);
                if (!is_taken[e] && is_better)
                    fail_msg("row %u, choice %u: found %d (%.9g), expected %u (%.9g)", row, j,
                             ids[j], found, e, other);
            }
            is_taken[ids[j]] = true;
        }
        sum += s[ids[j]];
    }
    for (uint32_t j = 0; j < c->k; j++) {
        double expected = (double)scale * s[ids[j]] / (c->is_normed ? fmax(sum, 6.1035e-5) : 1);
        if (!(fabs((double)weights[j] - expected) <= SCORE_BOUND * (double)scale))
            fail_msg("score %d, normed %d, row %u, choice %u: weight %.9g, expected %.9g", c->score,
                     c->is_normed, row, j, (double)weights[j], expected);
    }
}

static void check_router(router_case *c) {
    const float scale = 2.5f;
    stage s;
    open_stage(&s, c->n_expert, c->k);
    fill_router(c);
    dev_ptr logits = buffer_of(&s, NULL, sizeof(float) * N_ROWS * c->n_expert);
    dev_ptr table = buffer_of(&s, NULL, sizeof(int32_t) * N_VOCAB * c->k);
    for (uint32_t row = 0; row < N_ROWS; row++)
        s.b->ops->write(s.b, dev_add(logits, sizeof(float) * row * c->n_expert), c->logits[row],
                        sizeof(float) * c->n_expert);
    for (uint32_t t = 0; t < N_VOCAB; t++)
        s.b->ops->write(s.b, dev_add(table, sizeof(int32_t) * t * c->k), c->table[t],
                        sizeof(int32_t) * c->k);
    router_args a = {.ids = buffer_of(&s, NULL, sizeof(int32_t) * N_ROWS * c->k),
                     .weights = buffer_of(&s, NULL, sizeof(float) * N_ROWS * c->k),
                     .logits = logits,
                     .bias = buffer_of(&s, c->bias, sizeof(float) * c->n_expert),
                     .tid2eid = c->has_table ? table : (dev_ptr){0},
                     .n_expert = c->n_expert,
                     .k = c->k,
                     .score = c->score,
                     .is_normed = c->is_normed,
                     .scale = scale};
    if (!c->has_bias) a.bias = (dev_ptr){0};
    s.b->ops->step_begin(s.b, &s.batch);
    s.b->ops->router(s.b, &a);
    must(s.b->ops->step_end(s.b, NULL), &(ds4_error){0});
    int32_t ids[N_ROWS * MAX_USED];
    float weights[N_ROWS * MAX_USED];
    s.b->ops->read(s.b, ids, a.ids, sizeof(int32_t) * N_ROWS * c->k);
    s.b->ops->read(s.b, weights, a.weights, sizeof(float) * N_ROWS * c->k);
    for (uint32_t row = 0; row < N_ROWS; row++)
        check_row(c, row, s.rows[row].token, ids + row * c->k, weights + row * c->k, scale);
    s.b->ops->close(s.b);
}

static void test_router(void **state) {
    (void)state;
    static const uint32_t shapes[][2] = {{3, 3}, {8, 2}, {64, 2}, {256, 4}, {256, 6}, {384, 6}};
    static const router_score scores[] = {ROUTER_SOFTMAX, ROUTER_SIGMOID, ROUTER_SQRT_SOFTPLUS};
    static router_case c;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t j = 0; j < sizeof scores / sizeof *scores; j++)
            for (int flags = 0; flags < 8; flags++) {
                c = (router_case){.n_expert = shapes[i][0],
                                  .k = shapes[i][1],
                                  .score = scores[j],
                                  .is_normed = flags & 1,
                                  .has_bias = flags & 2,
                                  .has_table = flags & 4};
                check_router(&c);
            }
}

/* ---- experts -------------------------------------------------------------------------------- */

typedef struct {
    float gate[MAX_EXPERTS][N_FF][N_EMBD], up[MAX_EXPERTS][N_FF][N_EMBD];
    float down[MAX_EXPERTS][N_EMBD][N_FF];
} expert_values;

static expert_values routed, shared; /* of shared only [0] */
static float x[N_ROWS][N_EMBD];

static void fill(float *values, size_t n) {
    for (size_t i = 0; i < n; i++) values[i] = random_float();
}

static ffn_weights bind_experts(stage *s, const expert_values *v, uint32_t n_slices) {
    ffn_weights f;
    weight *to[] = {&f.gate, &f.up, &f.down};
    const void *data[] = {v->gate, v->up, v->down};
    ds4_error err = {0};
    for (int i = 0; i < 3; i++) {
        tensor_source source = {.name = "experts",
                                .type = QUANT_F32,
                                .data = data[i],
                                .n_bytes = (size_t)n_slices * N_FF * N_EMBD * sizeof(float),
                                .n_in = i == 2 ? N_FF : N_EMBD,
                                .n_out = i == 2 ? N_EMBD : N_FF,
                                .n_slices = n_slices};
        must(s->b->ops->bind(s->b, to[i], &source, ACT_F32, &err), &err);
    }
    return f;
}

/* y += share * expert e of v on a row, in double. */
static void add_expert(double *y, const expert_values *v, uint32_t e, const float *row,
                       double share, double clamp) {
    double h[N_FF];
    for (uint32_t f = 0; f < N_FF; f++) {
        double gate = 0, up = 0;
        for (uint32_t d = 0; d < N_EMBD; d++) {
            gate += (double)v->gate[e][f][d] * (double)row[d];
            up += (double)v->up[e][f][d] * (double)row[d];
        }
        if (clamp > 0) gate = fmin(gate, clamp), up = fmin(fmax(up, -clamp), clamp);
        h[f] = gate / (1 + exp(-gate)) * up;
    }
    for (uint32_t d = 0; d < N_EMBD; d++)
        for (uint32_t f = 0; f < N_FF; f++) y[d] += share * (double)v->down[e][d][f] * h[f];
}

static void check_experts(uint32_t n_expert, uint32_t k, float clamp, float clamp_shared) {
    stage s;
    open_stage(&s, n_expert, k);
    ffn_weights routed_weights = bind_experts(&s, &routed, n_expert);
    ffn_weights shared_weights = bind_experts(&s, &shared, 1);
    int32_t ids[N_ROWS * MAX_USED];
    float weights[N_ROWS * MAX_USED], found[N_ROWS][N_EMBD];
    for (uint32_t row = 0; row < N_ROWS; row++)
        for (uint32_t j = 0; j < k; j++) {
            /* Rows share some experts, and the last one is used. */
            ids[row * k + j] = (int32_t)((n_expert - 1 + row / 2 + j) % n_expert);
            weights[row * k + j] = random_float();
        }
    moe_args a = {.out = buffer_of(&s, NULL, sizeof found),
                  .x = {.f32 = buffer_of(&s, x, sizeof x)},
                  .ids = buffer_of(&s, ids, sizeof(int32_t) * N_ROWS * k),
                  .weights = buffer_of(&s, weights, sizeof(float) * N_ROWS * k),
                  .experts = &routed_weights,
                  .shared = &shared_weights,
                  .k = k,
                  .clamp = clamp,
                  .clamp_shared = clamp_shared};
    s.b->ops->step_begin(s.b, &s.batch);
    s.b->ops->moe(s.b, &a);
    must(s.b->ops->step_end(s.b, NULL), &(ds4_error){0});
    s.b->ops->read(s.b, found, a.out, sizeof found);
    for (uint32_t row = 0; row < N_ROWS; row++) {
        double y[N_EMBD] = {0};
        for (uint32_t j = 0; j < k; j++)
            add_expert(y, &routed, (uint32_t)ids[row * k + j], x[row], (double)weights[row * k + j],
                       (double)clamp);
        add_expert(y, &shared, 0, x[row], 1, (double)clamp_shared);
        for (uint32_t d = 0; d < N_EMBD; d++)
            if (!(fabs((double)found[row][d] - y[d]) <= OUTPUT_BOUND))
                fail_msg("%u experts, %u used, clamps %g and %g, row %u, value %u: found %.9g, "
                         "expected %.9g",
                         n_expert, k, (double)clamp, (double)clamp_shared, row, d,
                         (double)found[row][d], y[d]);
    }
    s.b->ops->close(s.b);
}

static void test_experts(void **state) {
    (void)state;
    static const uint32_t shapes[][2] = {{3, 3}, {8, 2}, {64, 2}, {256, 6}, {384, 6}};
    /* Products reach about 10, so that 0.5 and 1.5 cut many and 1000 none. */
    static const float clamps[][2] = {{0, 0},       {0.5f, 0},  {0, 0.5f},
                                      {0.5f, 1.5f}, {-1, 0.5f}, {1000, 1000}};
    fill(&routed.gate[0][0][0], sizeof routed / sizeof(float));
    fill(&shared.gate[0][0][0], sizeof shared / sizeof(float));
    fill(&x[0][0], sizeof x / sizeof(float));
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t j = 0; j < sizeof clamps / sizeof *clamps; j++)
            check_experts(shapes[i][0], shapes[i][1], clamps[j][0], clamps[j][1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_router),
        cmocka_unit_test(test_experts),
    };
    return cmocka_run_group_tests_name("moe", tests, NULL, NULL);
}
