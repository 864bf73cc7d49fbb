#include "runtime/sampler.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "runtime/logit_row.h"

enum { N_VOCAB = 129280, MAX_SEEN = 300, MAX_SEEN_ID = 60 };

/* ---- random numbers of the tests, and those of the sampler once more ------------------------- */

static uint64_t splitmix(uint64_t *x) {
    *x += 0x9E3779B97F4A7C15u;
    uint64_t z = *x;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint64_t xoshiro(uint64_t s[4]) {
    uint64_t x = s[1] * 5, result = (x << 7 | x >> 57) * 9, t = s[1] << 17;
    s[2] ^= s[0], s[3] ^= s[1], s[1] ^= s[2], s[0] ^= s[3], s[2] ^= t;
    s[3] = s[3] << 45 | s[3] >> 19;
    return result;
}

static uint32_t roll(uint64_t *dice, uint32_t n) {
    return (uint32_t)((splitmix(dice) >> 32) % n);
}

static double uniform(uint64_t *dice) {
    return (double)(splitmix(dice) >> 11) * 0x1p-53;
}

/* The published first numbers of both generators. */
static void test_generators(void **state) {
    (void)state;
    uint64_t x = 0, s[4] = {1, 2, 3, 4};
    assert_true(splitmix(&x) == 0xE220A8397B1DCDAFu);
    assert_true(splitmix(&x) == 0x6E789E6AA1B965F4u);
    assert_true(splitmix(&x) == 0x06C45D188009454Fu);
    assert_true(xoshiro(s) == 11520);
    assert_true(xoshiro(s) == 0);
    assert_true(xoshiro(s) == 1509978240);
    assert_true(xoshiro(s) == 1215971899390074240u);
}

/* ---- the sampler by its definition, in double and with a full sort --------------------------- */

typedef struct {
    float   v;
    int32_t id;
    double  p; /* relative to the best */
} ranked;

typedef struct {
    int32_t id;
    bool    is_generated;
} seen_token;

typedef struct {
    seen_token seen[MAX_SEEN];
    size_t     n_seen;
} history;

static float clean(float v) {
    return isnan(v) ? -INFINITY : v > FLT_MAX ? FLT_MAX : v;
}

static int by_rank(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    return x->v != y->v ? (x->v > y->v ? -1 : 1) : (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static void naive_edits(ranked *list, size_t n, const ds4_sampling *how, const history *h) {
    for (size_t i = 0; i < how->n_bias; i++) list[how->bias[i].id].v += how->bias[i].bias;
    size_t n_window = how->penalty_last_n ? how->penalty_last_n : h->n_seen;
    for (size_t id = 0; id < n && id < MAX_SEEN_ID; id++) {
        bool     is_recent = false;
        unsigned n_generated = 0;
        for (size_t i = 0; i < h->n_seen; i++) {
            if ((size_t)h->seen[i].id != id) continue;
            is_recent |= i + n_window >= h->n_seen;
            n_generated += h->seen[i].is_generated;
        }
        float *v = &list[id].v;
        if (is_recent && how->repeat_penalty != 1)
            *v = *v > 0 ? *v / how->repeat_penalty : *v * how->repeat_penalty;
        if (n_generated) *v -= how->presence_penalty + how->frequency_penalty * (float)n_generated;
    }
}

/* What remains for the draw, in the order of ids. False if rounding may decide on the last one. */
static bool naive_candidates(ranked *list, size_t *n_list, const float *row,
                             const ds4_sampling *how, const history *h) {
    size_t n = *n_list;
    for (size_t i = 0; i < n; i++) list[i] = (ranked){row[i], (int32_t)i, 0};
    naive_edits(list, n, how, h);
    for (size_t i = 0; i < n; i++) list[i].v = clean(list[i].v);
    qsort(list, n, sizeof *list, by_rank);
    bool is_clear = true;
    for (size_t i = 0; i < n; i++)
        list[i].p = list[i].v == -INFINITY
                        ? 0
                        : exp(((double)list[i].v - (double)list[0].v) / (double)how->temperature);
    if (how->top_k && how->top_k < n) n = how->top_k;
    if (how->top_p < 1) {
        double total = 0, sum = 0;
        for (size_t i = 0; i < n; i++) total += list[i].p;
        double wanted = (double)how->top_p * total;
        size_t kept = 0;
        while (kept < n && (kept == 0 || sum < wanted)) {
            sum += list[kept++].p;
            if (fabs(sum - wanted) < 1e-6 * total) is_clear = false;
        }
        n = kept;
    }
    if (how->min_p > 0) {
        size_t kept = 0;
        while (kept < n && list[kept].p >= (double)how->min_p) kept++;
        if (kept < n && list[kept].p > (double)how->min_p * 0.999999) is_clear = false;
        if (kept > 1 && list[kept - 1].p < (double)how->min_p * 1.000001) is_clear = false;
        n = kept;
    }
    qsort(list, n, sizeof *list, by_id);
    *n_list = n;
    return is_clear;
}

/* The token whose share `u` (0..1) falls into; -1 if it falls too close to a border. */
static int32_t naive_draw(const ranked *list, size_t n, double u) {
    double total = 0, sum = 0;
    for (size_t i = 0; i < n; i++) total += list[i].p;
    for (size_t i = 0; i < n; i++) {
        sum += list[i].p;
        if (fabs(sum - u * total) < 1e-6 * total && i + 1 < n) return -1;
        if (sum > u * total) return list[i].id;
    }
    return -1;
}

static const ranked *naive_best(const ranked *list, size_t n) {
    const ranked *best = &list[0];
    for (size_t i = 1; i < n; i++)
        if (by_rank(&list[i], best) < 0) best = &list[i];
    return best;
}

/* ---- all stages on random rows --------------------------------------------------------------- */

/* Rows of many shapes: bells, plateaus of equal values, single peaks, values that are no number. */
static void make_row(float *row, size_t n, uint64_t *dice) {
    uint32_t shape = roll(dice, 7);
    for (size_t i = 0; i < n; i++) {
        double bell = uniform(dice) + uniform(dice) + uniform(dice) + uniform(dice) - 2;
        row[i] = (float)(bell * 8);
        if (shape == 1) row[i] = roundf(row[i]);
        if (shape == 2) row[i] = 3;
        if (shape == 3) row[i] *= 30;
        if (shape == 4) row[i] *= 0.05f;
        if (shape == 5 && roll(dice, 4) == 0) row[i] = roll(dice, 2) ? NAN : -INFINITY;
    }
    if (shape == 3) row[roll(dice, (uint32_t)n)] = 1000;
    if (shape == 6) row[roll(dice, (uint32_t)n)] = roll(dice, 2) ? INFINITY : FLT_MAX;
}

static ds4_sampling make_options(ds4_logit_bias *bias, size_t n_vocab, uint64_t *dice) {
    static const float temperatures[] = {0, 0.05f, 0.6f, 1, 1, 2, 100},
                       tops[] = {0, 0.3f, 0.9f, 0.95f, 0.999f};
    static const float mins[] = {0.001f, 0.05f, 0.5f, 1}, repeats[] = {0.5f, 1.1f, 2};
    ds4_sampling o = {.temperature = temperatures[roll(dice, 7)], .top_p = 1, .repeat_penalty = 1,
                      .seed = roll(dice, 1000), .bias = bias};
    if (roll(dice, 2))
        o.top_k = roll(dice, 3) ? 1 + roll(dice, 50) : 1 + roll(dice, (uint32_t)n_vocab);
    if (roll(dice, 2)) o.top_p = tops[roll(dice, 5)];
    if (roll(dice, 3) == 0) o.min_p = mins[roll(dice, 4)];
    if (roll(dice, 3) == 0) o.repeat_penalty = repeats[roll(dice, 3)];
    if (roll(dice, 3) == 0) o.presence_penalty = (float)(uniform(dice) * 4 - 2);
    if (roll(dice, 3) == 0) o.frequency_penalty = (float)(uniform(dice) * 4 - 2);
    if (roll(dice, 2)) o.penalty_last_n = 1 + roll(dice, 40);
    if (roll(dice, 2)) o.n_bias = roll(dice, 5);
    for (size_t i = 0; i < o.n_bias; i++)
        bias[i] = (ds4_logit_bias){(int32_t)roll(dice, (uint32_t)n_vocab),
                                   (float)(uniform(dice) * 20 - 10)};
    if (o.n_bias && roll(dice, 4) == 0) bias[0].bias = -INFINITY;
    return o;
}

/* One row and one set of options, n_picks draws; counts those where rounding might decide. */
static void check_row(size_t n_vocab, int n_picks, uint64_t seed, unsigned *n_checked,
                      unsigned *n_unclear) {
    uint64_t       dice = seed;
    ds4_logit_bias bias[5];
    ds4_error      err = {0};
    history       *h = calloc(1, sizeof *h);
    float         *row = malloc(n_vocab * sizeof *row);
    ranked        *list = malloc(n_vocab * sizeof *list);
    ds4_sampling   how = make_options(bias, n_vocab, &dice);
    sampler       *s = NULL;
    make_row(row, n_vocab, &dice);
    assert_int_equal(sampler_create(&s, (uint32_t)n_vocab, MAX_SEEN, NULL), DS4_OK);
    if (sampler_start(s, &how, &err) != DS4_OK)
        fail_msg("seed %llu: %s", (unsigned long long)seed, err.message);
    for (size_t n = roll(&dice, MAX_SEEN); h->n_seen < n;) {
        seen_token t = {
            (int32_t)roll(&dice, (uint32_t)(n_vocab < MAX_SEEN_ID ? n_vocab : MAX_SEEN_ID)),
            roll(&dice, 2)};
        h->seen[h->n_seen++] = t;
        if (t.is_generated) sampler_see_generated(s, t.id);
        else sampler_see_prompt(s, t.id);
    }
    uint64_t random[4], x = how.seed;
    for (int i = 0; i < 4; i++) random[i] = splitmix(&x);

    size_t n_list = n_vocab;
    bool   is_greedy = how.temperature <= 0;
    if (is_greedy) how.temperature = 1, how.top_k = 0, how.top_p = 1, how.min_p = 0;
    bool is_clear = naive_candidates(list, &n_list, row, &how, h);
    const ranked *best = naive_best(list, n_list);
    bool          is_empty = best->v == -INFINITY;
    for (int i = 0; i < n_picks && is_clear; i++) {
        int32_t found = sampler_pick(s, row), expected = best->id;
        if (!is_greedy && !is_empty)
            expected = naive_draw(list, n_list, (double)(xoshiro(random) >> 11) * 0x1p-53);
        (*n_checked)++;
        if (expected < 0) (*n_unclear)++;
        else if (found != expected)
            fail_msg("seed %llu, vocab %zu, pick %d: found %d, expected %d",
                     (unsigned long long)seed, n_vocab, i, found, expected);
    }
    if (!is_clear) (*n_checked)++, (*n_unclear)++;
    sampler_destroy(s);
    free(list);
    free(row);
    free(h);
}

static void test_all_stages(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 2, 3, 16, 127, 128, 129, 300, 1000};
    unsigned n_checked = 0, n_unclear = 0;
    for (uint64_t seed = 0; seed < 2500; seed++)
        check_row(sizes[seed % 9], 20, seed, &n_checked, &n_unclear);
    assert_true(n_unclear * 50 < n_checked);
}

static void test_all_stages_large(void **state) {
    (void)state;
    unsigned n_checked = 0, n_unclear = 0;
    for (uint64_t seed = 10000; seed < 10012; seed++)
        check_row(N_VOCAB, 5, seed, &n_checked, &n_unclear);
    assert_true(n_unclear * 3 < n_checked);
}

/* ---- each stage by itself -------------------------------------------------------------------- */

static sampler *make(uint32_t n_vocab, const ds4_sampling *how) {
    sampler  *s = NULL;
    ds4_error err = {0};
    assert_int_equal(sampler_create(&s, n_vocab, 64, NULL), DS4_OK);
    if (how && sampler_start(s, how, &err) != DS4_OK) fail_msg("%s", err.message);
    return s;
}

/* Draws n_draws times: every token of `kept` and no other one must come. */
static void expect_set(const float *row, uint32_t n_vocab, const ds4_sampling *how,
                       const char *kept) {
    sampler *s = make(n_vocab, how);
    char     found[16] = {0};
    memset(found, '-', n_vocab);
    for (int i = 0; i < 5000; i++) {
        int32_t id = sampler_pick(s, row);
        assert_in_range(id, 0, n_vocab - 1);
        found[id] = 'x';
    }
    sampler_destroy(s);
    assert_string_equal(found, kept);
}

static void test_filters(void **state) {
    (void)state;
    /* Probabilities of 10: 1 4 2 2 1, and twice 0. */
    const float row[] = {0, logf(4), logf(2), logf(2), 0, -INFINITY, -60};
    const struct {
        uint32_t    top_k;
        float       top_p, min_p;
        const char *kept;
    } cases[] = {
        {0, 1, 0, "xxxxx--"},         {7, 1, 0, "xxxxx--"},         {100, 1, 0, "xxxxx--"},
        {1, 1, 0, "-x-----"},         {2, 1, 0, "-xx----"},         {3, 1, 0, "-xxx---"},
        {4, 1, 0, "xxxx---"},         {0, 0, 0, "-x-----"},         {0, 0.39f, 0, "-x-----"},
        {0, 0.41f, 0, "-xx----"},     {0, 0.59f, 0, "-xx----"},     {0, 0.61f, 0, "-xxx---"},
        {0, 0.85f, 0, "xxxx---"},     {0, 0.95f, 0, "xxxxx--"},     {0, 1, 0.2f, "xxxxx--"},
        {0, 1, 0.26f, "-xxx---"},     {0, 1, 0.49f, "-xxx---"},     {0, 1, 0.51f, "-x-----"},
        {0, 1, 1, "-x-----"},         {3, 0.76f, 0, "-xxx---"},     {3, 0.74f, 0, "-xx----"},
        {3, 0.9f, 0.51f, "-x-----"},  {2, 0.65f, 0, "-x-----"},     {2, 0.68f, 0, "-xx----"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ds4_sampling how = {.temperature = 1, .top_k = cases[i].top_k, .top_p = cases[i].top_p,
                            .min_p = cases[i].min_p, .repeat_penalty = 1, .seed = i};
        expect_set(row, 7, &how, cases[i].kept);
    }
}

/* Counts of draws against probabilities: chi-square with 7 degrees of freedom stays below 24.3 in
 * 999 of 1000 cases; the seeds are fixed, so it always or never does. */
static void test_distribution(void **state) {
    (void)state;
    enum { N = 8, N_DRAWS = 200000 };
    const float row[N] = {0.1f, 2, -1, 1.5f, 0, -2, 1.9f, 0.7f};
    static const float temperatures[] = {0.5f, 1, 3};
    for (int t = 0; t < 3; t++) {
        ds4_sampling how = {
            .temperature = temperatures[t], .top_p = 1, .repeat_penalty = 1, .seed = 7};
        sampler     *s = make(N, &how);
        unsigned     counts[N] = {0};
        for (int i = 0; i < N_DRAWS; i++) counts[sampler_pick(s, row)]++;
        double p[N], total = 0, chi = 0;
        for (int i = 0; i < N; i++) total += p[i] = exp((double)row[i] / (double)how.temperature);
        for (int i = 0; i < N; i++) {
            double expected = N_DRAWS * p[i] / total;
            chi += (counts[i] - expected) * (counts[i] - expected) / expected;
        }
        if (chi > 24.3) fail_msg("temperature %g: chi-square %g", (double)how.temperature, chi);
        sampler_destroy(s);
    }
}

/* The same over the whole vocabulary, in 64 groups of equal probability: 63 degrees, 103.4. */
static void test_flat_distribution(void **state) {
    (void)state;
    enum { N_GROUPS = 64, N_DRAWS = 3200 };
    float *row = calloc(N_VOCAB, sizeof *row);
    ds4_sampling how = {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 8};
    sampler     *s = make(N_VOCAB, &how);
    unsigned     counts[N_GROUPS] = {0};
    for (int i = 0; i < N_DRAWS; i++) counts[sampler_pick(s, row) / (N_VOCAB / N_GROUPS)]++;
    double chi = 0, expected = (double)N_DRAWS / N_GROUPS;
    for (int i = 0; i < N_GROUPS; i++)
        chi += (counts[i] - expected) * (counts[i] - expected) / expected;
    if (chi > 103.4) fail_msg("chi-square %g", chi);
    sampler_destroy(s);
    free(row);
}

/* Many tokens far below the best one are drawn as often as they weigh together, 6.8e-4 of all,
 * and with top-p what it leaves of that. */
static void test_far_tail(void **state) {
    (void)state;
    enum { N = 1000, N_DRAWS = 40000 };
    float row[N];
    for (int i = 0; i < N; i++) row[i] = i == 500 ? 14.2f : 0;
    static const float    tops[] = {1, 0.9998f, 0.999f};
    static const unsigned expected[] = {27, 19, 0};
    for (int t = 0; t < 3; t++) {
        ds4_sampling how = {.temperature = 1, .top_p = tops[t], .repeat_penalty = 1, .seed = 9};
        sampler     *s = make(N, &how);
        unsigned     n_tail = 0;
        for (int i = 0; i < N_DRAWS; i++) n_tail += sampler_pick(s, row) != 500;
        sampler_destroy(s);
        unsigned slack = (unsigned)(4 * sqrt(expected[t]));
        assert_in_range(n_tail, expected[t] - slack, expected[t] + slack);
    }
}

static void test_greedy_and_ties(void **state) {
    (void)state;
    const float row[] = {1, 5, 2, 5, 5};
    sampler    *s = make(5, NULL); /* greedy before any start */
    assert_int_equal(sampler_pick(s, row), 1);
    sampler_destroy(s);
    ds4_sampling how = {.top_p = 1, .repeat_penalty = 1};
    s = make(5, &how);
    assert_int_equal(sampler_pick(s, row), 1);
    how.top_p = 0.5f, how.top_k = 2, how.min_p = 0.1f; /* without a meaning here */
    assert_int_equal(sampler_start(s, &how, NULL), DS4_OK);
    assert_int_equal(sampler_pick(s, row), 1);
    sampler_destroy(s);

    how = (ds4_sampling){.temperature = 1, .top_p = 1, .top_k = 2, .repeat_penalty = 1};
    expect_set(row, 5, &how, "-x-x-");
    how.top_k = 1;
    expect_set(row, 5, &how, "-x---");
    how.temperature = 1e-38f, how.top_k = 0;
    expect_set(row, 5, &how, "-x-xx");
    how.top_p = 0.5f;
    expect_set(row, 5, &how, "-x-x-");
}

static void test_strange_rows(void **state) {
    (void)state;
    const float rows[][4] = {
        {NAN, NAN, NAN, NAN},         {-INFINITY, -INFINITY, -INFINITY, -INFINITY},
        {NAN, -INFINITY, NAN, -1e30f}, {NAN, 1, INFINITY, 2},
        {-FLT_MAX, -INFINITY, NAN, -FLT_MAX}, {FLT_MAX, 0, INFINITY, -FLT_MAX},
        {-1e38f, NAN, -3e38f, 0},
    };
    static const char *const kept[] = {"x---", "x---", "---x", "--x-", "x--x", "x-x-", "---x"};
    static const int greedy[] = {0, 0, 3, 2, 0, 0, 3};
    for (int i = 0; i < 7; i++) {
        ds4_sampling how = {.temperature = 1, .top_p = 1, .repeat_penalty = 1};
        expect_set(rows[i], 4, &how, kept[i]);
        how.temperature = 100, how.min_p = 0.01f, how.top_p = 0.999f, how.top_k = 3;
        expect_set(rows[i], 4, &how, kept[i]);
        assert_int_equal(argmax_of(rows[i], 4), greedy[i]);
        how.temperature = 0;
        sampler *s = make(4, &how);
        assert_int_equal(sampler_pick(s, rows[i]), greedy[i]);
        sampler_destroy(s);
    }
}

static void test_bias(void **state) {
    (void)state;
    const float    row[] = {10, 0, 9, -5};
    ds4_logit_bias bias[] = {{0, -100}, {3, 50}, {3, 50}};
    ds4_sampling how = {
        .temperature = 1, .top_p = 1, .repeat_penalty = 1, .bias = bias, .n_bias = 1};
    expect_set(row, 4, &how, "-xx-");
    how.n_bias = 3; /* both of the entries for 3 count */
    expect_set(row, 4, &how, "---x");
    ds4_logit_bias ban[] = {{0, -INFINITY}, {1, -INFINITY}, {2, -INFINITY}, {3, -INFINITY}};
    how.bias = ban, how.n_bias = 3;
    expect_set(row, 4, &how, "---x");
    how.n_bias = 4;
    expect_set(row, 4, &how, "x---");
    how.temperature = 0, how.bias = bias, how.n_bias = 1;
    sampler *s = make(4, &how);
    bias[0].id = 2; /* the list was copied */
    assert_int_equal(sampler_pick(s, row), 2);
    assert_true(row[0] == 10);
    sampler_destroy(s);
}

static void test_repeat_penalty(void **state) {
    (void)state;
    const float  row[] = {4, 3, -1, -1.5f};
    ds4_sampling how = {.top_p = 1, .repeat_penalty = 2, .penalty_last_n = 2};
    sampler     *s = make(4, &how);
    assert_int_equal(sampler_pick(s, row), 0);
    sampler_see_prompt(s, 0);
    assert_int_equal(sampler_pick(s, row), 1); /* 4 / 2 < 3 */
    sampler_see_generated(s, 1);
    assert_int_equal(sampler_pick(s, row), 0); /* 2 > 1.5 */
    sampler_see_prompt(s, 1);
    sampler_see_prompt(s, 1); /* in the window twice, divided once; 0 is out */
    assert_int_equal(sampler_pick(s, row), 0);
    sampler_see_prompt(s, 0);
    sampler_see_prompt(s, 2);
    assert_int_equal(sampler_pick(s, row), 1); /* {0, 2}: 2, 3, -2, -1.5 */
    /* Starting again forgets; 0 looks back on everything. */
    how.penalty_last_n = 0;
    assert_int_equal(sampler_start(s, &how, NULL), DS4_OK);
    assert_int_equal(sampler_pick(s, row), 0);
    sampler_see_prompt(s, 0);
    for (int i = 0; i < 50; i++) sampler_see_prompt(s, 3);
    assert_int_equal(sampler_pick(s, row), 1);
    for (int i = 0; i < 14; i++) sampler_see_prompt(s, 3); /* the history of 64 holds no more */
    assert_int_equal(sampler_pick(s, row), 0);
    sampler_destroy(s);

    const float low[] = {-1, -1.5f};
    s = make(2, &how);
    sampler_see_prompt(s, 0);
    assert_int_equal(sampler_pick(s, low), 1); /* -2 < -1.5 */
    sampler_destroy(s);
}

static void test_presence_and_frequency(void **state) {
    (void)state;
    const float  row[] = {4, 3, 0};
    ds4_sampling how = {
        .top_p = 1, .repeat_penalty = 1, .presence_penalty = 0.75f, .penalty_last_n = 1};
    sampler     *s = make(3, &how);
    sampler_see_prompt(s, 0); /* prompts do not count */
    sampler_see_generated(s, 0);
    sampler_see_generated(s, 0); /* once only */
    assert_int_equal(sampler_pick(s, row), 0);
    sampler_destroy(s);

    how.frequency_penalty = 0.15f;
    s = make(3, &how);
    sampler_see_generated(s, 0);
    assert_int_equal(sampler_pick(s, row), 0); /* 4 - 0.75 - 0.15 */
    sampler_see_generated(s, 0);
    for (int i = 0; i < 5; i++) sampler_see_prompt(s, 2); /* no window for these two */
    assert_int_equal(sampler_pick(s, row), 1); /* 4 - 0.75 - 0.3 < 3 */
    sampler_see_generated(s, 1);
    assert_int_equal(sampler_pick(s, row), 0);
    sampler_destroy(s);

    how.frequency_penalty = -2, how.presence_penalty = 0; /* negative ones attract */
    s = make(3, &how);
    sampler_see_generated(s, 2);
    sampler_see_generated(s, 2);
    sampler_see_generated(s, 2);
    assert_int_equal(sampler_pick(s, row), 2);
    sampler_destroy(s);
}

static void test_refused(void **state) {
    (void)state;
    const ds4_sampling good = {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 3};
    ds4_logit_bias low[] = {{0, 1}, {-1, 1}}, high[] = {{8, 1}}, nan_bias[] = {{0, NAN}};
    ds4_logit_bias inf_bias[] = {{0, INFINITY}};
    struct {
        ds4_sampling how;
        const char  *message;
    } cases[40];
    int n = 0;
#define CASE(text, ...)                                                                            \
    do {                                                                                           \
        cases[n].how = good;                                                                       \
        ds4_sampling *o = &cases[n].how;                                                           \
        __VA_ARGS__;                                                                               \
        cases[n++].message = text;                                                                 \
    } while (0)
    static const float bad[] = {-0.001f, NAN, INFINITY, -INFINITY, 100.1f};
    for (int i = 0; i < 5; i++) {
        CASE("temperature: found", o->temperature = bad[i]);
        CASE("top_p: found", o->top_p = bad[i]);
        CASE("min_p: found", o->min_p = bad[i]);
        CASE("repeat_penalty: found", o->repeat_penalty = bad[i]);
        CASE("presence_penalty: found", o->presence_penalty = i ? bad[i] : -101);
        CASE("frequency_penalty: found", o->frequency_penalty = i ? bad[i] : -101);
    }
    CASE("repeat_penalty: found 0,", o->repeat_penalty = 0);
    CASE("top_p: found 1.001, expected 0 to 1", o->top_p = 1.001f);
    CASE("bias: no list", o->n_bias = 1);
    CASE("bias[1].id: found -1, expected 0 to 7", o->bias = low, o->n_bias = 2);
    CASE("bias[0].id: found 8", o->bias = high, o->n_bias = 1);
    CASE("bias[0].bias: found", o->bias = nan_bias, o->n_bias = 1);
    CASE("bias[0].bias: found inf", o->bias = inf_bias, o->n_bias = 1);
#undef CASE
    /* Refusals between the draws change nothing. */
    const float row[8] = {0};
    sampler    *s = make(8, &good), *undisturbed = make(8, &good);
    for (int i = 0; i < n; i++) {
        ds4_error err = {0};
        if (sampler_start(s, &cases[i].how, &err) != DS4_EINVAL) fail_msg("case %d: accepted", i);
        if (!strstr(err.message, cases[i].message))
            fail_msg("case %d: found \"%s\", expected \"%s\"", i, err.message, cases[i].message);
        assert_int_equal(sampler_pick(s, row), sampler_pick(undisturbed, row));
    }
    sampler_destroy(s);
    sampler_destroy(undisturbed);

    s = NULL;
    assert_int_equal(sampler_create(&s, 0, 1, NULL), DS4_EINVAL);
    assert_int_equal(sampler_create(&s, 1, 0, NULL), DS4_EINVAL);
    assert_int_equal(sampler_create(&s, (1 << 23) + 1, 1, NULL), DS4_EINVAL);
    assert_null(s);
    sampler_destroy(NULL);
}

/* Same seed: same tokens; another: others. And the same on every machine, today and later. */
static void test_repeatable(void **state) {
    (void)state;
    enum { N = 1000 };
    float    row[N];
    int32_t  ids[3][N];
    uint64_t dice = 5;
    for (int i = 0; i < N; i++) row[i] = (float)roll(&dice, 4096) / 512;
    for (int run = 0; run < 3; run++) {
        ds4_sampling how = {.temperature = 0.7f,
                            .top_p = 0.9f,
                            .top_k = 300,
                            .min_p = 0.02f,
                            .repeat_penalty = 1.1f,
                            .penalty_last_n = 16,
                            .seed = run == 2 ? 43 : 42};
        sampler *s = make(N, &how);
        for (int i = 0; i < N; i++) {
            ids[run][i] = sampler_pick(s, row);
            sampler_see_generated(s, ids[run][i]);
        }
        sampler_destroy(s);
    }
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_not_equal(ids[0], ids[2], sizeof ids[0]);
    uint64_t hash = hash64(ids[0], sizeof ids[0], 0);
    if (hash != 0x1a96d9da8c39ac49u)
        fail_msg("found tokens of hash %016llx", (unsigned long long)hash);
}

/* ---- log-probabilities ----------------------------------------------------------------------- */

static void check_logprobs(size_t n, uint64_t seed) {
    uint64_t    dice = seed;
    float      *row = malloc(n * sizeof *row);
    ranked     *list = malloc(n * sizeof *list);
    ds4_logprob top[21];
    make_row(row, n, &dice);
    uint32_t n_top = roll(&dice, 21);
    int32_t  id = (int32_t)roll(&dice, (uint32_t)n);
    top[n_top].id = 77;
    float found = logprobs_of(row, (uint32_t)n, id, top, n_top);
    assert_int_equal(top[n_top].id, 77);

    for (size_t i = 0; i < n; i++) list[i] = (ranked){clean(row[i]), (int32_t)i, 0};
    float v = list[id].v;
    qsort(list, n, sizeof *list, by_rank);
    assert_int_equal(argmax_of(row, (uint32_t)n), list[0].id);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)list[i].v - (double)list[0].v);
    for (uint32_t i = 0; i <= n_top; i++) {
        bool   is_beyond = i < n_top && i >= n;
        float  logit = i == n_top ? v : is_beyond ? -INFINITY : list[i].v;
        float  logprob = i == n_top ? found : top[i].logprob;
        double expected = (double)logit - (double)list[0].v - log(sum);
        if (logit == -INFINITY) expected = -INFINITY; /* also when the whole row is */
        if (i < n_top) assert_int_equal(top[i].id, is_beyond ? -1 : list[i].id);
        bool is_close = logit == -INFINITY
                            ? logprob == -INFINITY
                            : fabs((double)logprob - expected) <= 1e-6 * fmax(1, -expected);
        if (!is_close)
            fail_msg("seed %llu, vocab %zu, rank %u: found %.9g, expected %.9g",
                     (unsigned long long)seed, n, i, (double)logprob, expected);
    }
    free(list);
    free(row);
}

static void test_logprobs(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 2, 19, 20, 21, 128, 129, 1000, 5000};
    for (uint64_t seed = 0; seed < 1500; seed++) check_logprobs(sizes[seed % 9], seed);
    for (uint64_t seed = 0; seed < 7; seed++) check_logprobs(N_VOCAB, seed);
}

static void test_logprobs_of_nothing(void **state) {
    (void)state;
    const float row[] = {NAN, -INFINITY, NAN};
    ds4_logprob top[2];
    assert_true(logprobs_of(row, 3, 1, top, 2) == -INFINITY);
    assert_int_equal(top[0].id, 0);
    assert_int_equal(top[1].id, 1);
    assert_true(top[0].logprob == -INFINITY);
    const float one[] = {-3};
    assert_true(logprobs_of(one, 1, 0, NULL, 0) == 0);
}

/* Each float is within 2 units in the last place. */
static void test_exponential(void **state) {
    (void)state;
    for (double x = 0; x > -87; x -= 0.000173) {
        float  found = logit_exp((float)x);
        double expected = exp((double)(float)x);
        double ulp = (double)(nextafterf((float)expected, INFINITY) - (float)expected);
        if (fabs((double)found - expected) > 2 * ulp)
            fail_msg("e^%.9g: found %.9g, expected %.9g", x, (double)found, expected);
    }
    const float row[] = {2, 5, 2 - 1e-30f, -INFINITY, -FLT_MAX, NAN, -90, INFINITY};
    float       p[8];
    logit_exp_block(p, row, 8, 2, 1);
    for (int i = 0; i < 8; i++)
        assert_true(i < 3 || i == 7 ? p[i] == 1 : p[i] >= 0 && p[i] < 2e-38f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generators),        cmocka_unit_test(test_exponential),
        cmocka_unit_test(test_all_stages),        cmocka_unit_test(test_all_stages_large),
        cmocka_unit_test(test_filters),           cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_flat_distribution), cmocka_unit_test(test_far_tail),
        cmocka_unit_test(test_greedy_and_ties),   cmocka_unit_test(test_strange_rows),
        cmocka_unit_test(test_bias),              cmocka_unit_test(test_repeat_penalty),
        cmocka_unit_test(test_refused),           cmocka_unit_test(test_presence_and_frequency),
        cmocka_unit_test(test_repeatable),        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_logprobs_of_nothing),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
