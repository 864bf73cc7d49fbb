#include "runtime/sampler.h"

#include <assert.h>
#include <stdlib.h>

#include "base/checked.h"
#include "runtime/logit_row.h"

/* The weight of the best token. 2^40 lets 2^23 tokens be summed in 64 bits, and is finer than any
 * probability that matters. */
#define WEIGHT_ONE ((uint64_t)1 << 40)
/* e^-28 < 2^-40: tokens that far below the best, in units of the temperature, weigh nothing. Also
 * exact for `best - FAR_BELOW * temperature` in float: no logit lies between it and its rounding. */
static const float FAR_BELOW = 28.0f;

enum { MAX_VOCAB = 1 << 23 };

__extension__ typedef unsigned __int128 uint128;

typedef struct {
    uint64_t weight; /* WEIGHT_ONE * p / p of the best, rounded down */
    float    logit;  /* after bias and penalties, clean */
    int32_t  id;
} candidate;

/* What penalties know of a token. */
typedef struct {
    uint32_t n_recent;    /* how often it is in the window of the repeat penalty */
    uint32_t n_generated; /* how often it was generated */
    bool     is_listed;
} token_use;

/* A block of the row (LOGIT_BLOCK tokens) during a draw. */
typedef struct {
    uint64_t weight; /* of its tokens together, once weigh_blocks was there */
    float    max;    /* clean */
} row_block;

struct sampler {
    uint32_t     n_vocab, n_history, n_blocks;
    ds4_sampling how; /* its bias list is owned */

    token_use *uses;     /* [n_vocab] */
    int32_t   *listed;   /* [n_vocab] the ids seen since the start, each once */
    uint32_t   n_listed;
    int32_t   *recent;   /* [n_history] the window, a ring: token i of all in i % n_window */
    uint32_t   n_window; /* <= n_history */
    uint64_t   n_seen;
    uint64_t   random[4];

    /* Of the draw under way. */
    float     *edited;     /* [n_vocab] the logits after bias and penalties */
    row_block *blocks;     /* [n_blocks] */
    candidate *candidates; /* [n_vocab] */
};

/* The row a draw works on. */
typedef struct {
    const float *logits; /* [n_vocab] after bias and penalties */
    float        best;   /* the largest of them, clean */
    float        temperature;
} draw_row;

/* ---- random numbers -------------------------------------------------------------------------- */

/* The SplitMix64 sequence: any seed, small ones too, fills the state with well mixed bits. */
static uint64_t next_seed(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint64_t rotate(uint64_t x, int n) {
    return (x << n) | (x >> (64 - n));
}

/* The xoshiro256** generator (Blackman and Vigna). */
static uint64_t next_random(uint64_t s[4]) {
    uint64_t result = rotate(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate(s[3], 45);
    return result;
}

/* ---- options and what was seen --------------------------------------------------------------- */

ds4_status sampler_create(sampler **out, uint32_t n_vocab, uint32_t n_history, ds4_error *err) {
    if (n_vocab == 0 || n_vocab > MAX_VOCAB)
        return ds4_fail(err, DS4_EINVAL, "sampler: vocabulary of %u tokens, expected 1 to %d",
                        n_vocab, MAX_VOCAB);
    if (n_history == 0) return ds4_fail(err, DS4_EINVAL, "sampler: history of 0 tokens");
    uint32_t n_blocks = (n_vocab + LOGIT_BLOCK - 1) / LOGIT_BLOCK;
    size_t n_token_bytes = sizeof(token_use) + sizeof(int32_t) + sizeof(float) + sizeof(candidate);
    size_t   n_bytes = sizeof(sampler) + n_vocab * n_token_bytes + n_blocks * sizeof(row_block) +
                     n_history * sizeof(int32_t);
    sampler *s = calloc(1, sizeof *s);
    if (!s) return ds4_fail_nomem(err, "sampler", n_bytes);
    s->n_vocab = n_vocab;
    s->n_blocks = n_blocks;
    s->n_history = s->n_window = n_history;
    s->how = (ds4_sampling){.top_p = 1, .repeat_penalty = 1};
    s->uses = calloc(n_vocab, sizeof *s->uses);
    s->listed = calloc(n_vocab, sizeof *s->listed);
    s->recent = calloc(n_history, sizeof *s->recent);
    s->edited = calloc(n_vocab, sizeof *s->edited);
    s->blocks = calloc(n_blocks, sizeof *s->blocks);
    s->candidates = calloc(n_vocab, sizeof *s->candidates);
    if (!s->uses || !s->listed || !s->recent || !s->edited || !s->blocks || !s->candidates) {
        sampler_destroy(s);
        return ds4_fail_nomem(err, "sampler", n_bytes);
    }
    *out = s;
    return DS4_OK;
}

void sampler_destroy(sampler *s) {
    if (!s) return;
    free((void *)(uintptr_t)s->how.bias);
    free(s->candidates);
    free(s->blocks);
    free(s->edited);
    free(s->recent);
    free(s->listed);
    free(s->uses);
    free(s);
}

/* NaN is in no range. */
static ds4_status check_range(const char *name, float v, float min, float max, ds4_error *err) {
    if (v >= min && v <= max) return DS4_OK;
    return ds4_fail(err, DS4_EINVAL, "%s: found %g, expected %g to %g", name, (double)v,
                    (double)min, (double)max);
}

static ds4_status check_options(const ds4_sampling *o, uint32_t n_vocab, ds4_error *err) {
    DS4_TRY(check_range("temperature", o->temperature, 0, 100, err));
    DS4_TRY(check_range("top_p", o->top_p, 0, 1, err));
    DS4_TRY(check_range("min_p", o->min_p, 0, 1, err));
    DS4_TRY(check_range("repeat_penalty", o->repeat_penalty, 0.01f, 100, err));
    DS4_TRY(check_range("presence_penalty", o->presence_penalty, -100, 100, err));
    DS4_TRY(check_range("frequency_penalty", o->frequency_penalty, -100, 100, err));
    if (o->n_bias && !o->bias)
        return ds4_fail(err, DS4_EINVAL, "bias: no list, expected %zu entries", o->n_bias);
    for (size_t i = 0; i < o->n_bias; i++) {
        if (o->bias[i].id < 0 || (uint32_t)o->bias[i].id >= n_vocab)
            return ds4_fail(err, DS4_EINVAL, "bias[%zu].id: found %d, expected 0 to %u", i,
                            o->bias[i].id, n_vocab - 1);
        if (!(o->bias[i].bias <= FLT_MAX))
            return ds4_fail(err, DS4_EINVAL, "bias[%zu].bias: found %g, expected a finite number",
                            i, (double)o->bias[i].bias);
    }
    return DS4_OK;
}

ds4_status sampler_start(sampler *s, const ds4_sampling *options, ds4_error *err) {
    DS4_TRY(check_options(options, s->n_vocab, err));
    ds4_logit_bias *bias = NULL;
    if (options->n_bias) {
        uint64_t n_bytes;
        if (!checked_mul(&n_bytes, options->n_bias, sizeof *bias) || n_bytes > SIZE_MAX / 2)
            return ds4_fail(err, DS4_EINVAL, "bias: %zu entries", options->n_bias);
        bias = malloc((size_t)n_bytes);
        if (!bias) return ds4_fail_nomem(err, "bias", (size_t)n_bytes);
        memcpy(bias, options->bias, (size_t)n_bytes);
    }
    free((void *)(uintptr_t)s->how.bias);
    s->how = *options;
    s->how.bias = bias;

    uint32_t n_window = options->penalty_last_n;
    s->n_window = n_window && n_window < s->n_history ? n_window : s->n_history;
    s->n_seen = 0;
    s->n_listed = 0;
    memset(s->uses, 0, s->n_vocab * sizeof *s->uses);
    uint64_t seed = options->seed;
    for (int i = 0; i < 4; i++) s->random[i] = next_seed(&seed);
    return DS4_OK;
}

void sampler_see_prompt(sampler *s, int32_t id) {
    assert(id >= 0 && (uint32_t)id < s->n_vocab);
    int32_t *place = &s->recent[s->n_seen % s->n_window];
    if (s->n_seen >= s->n_window) s->uses[*place].n_recent--;
    *place = id;
    s->n_seen++;
    token_use *use = &s->uses[id];
    use->n_recent++;
    if (!use->is_listed) s->listed[s->n_listed++] = id;
    use->is_listed = true;
}

void sampler_see_generated(sampler *s, int32_t id) {
    sampler_see_prompt(s, id);
    s->uses[id].n_generated++;
}

/* ---- bias and penalties ---------------------------------------------------------------------- */

static void apply_penalties(float *row, const sampler *s) {
    const ds4_sampling *how = &s->how;
    for (uint32_t i = 0; i < s->n_listed; i++) {
        const token_use *use = &s->uses[s->listed[i]];
        float           *v = &row[s->listed[i]];
        if (use->n_recent) *v = *v > 0 ? *v / how->repeat_penalty : *v * how->repeat_penalty;
        if (use->n_generated)
            *v -= how->presence_penalty + how->frequency_penalty * (float)use->n_generated;
    }
}

/* The logits as the user wants them changed: the row given, if nothing is to be changed. */
static const float *edited_row(sampler *s, const float *logits) {
    const ds4_sampling *how = &s->how;
    bool has_penalty =
        how->repeat_penalty != 1 || how->presence_penalty != 0 || how->frequency_penalty != 0;
    if (!how->n_bias && !has_penalty) return logits;
    memcpy(s->edited, logits, s->n_vocab * sizeof *s->edited);
    for (size_t i = 0; i < how->n_bias; i++) s->edited[how->bias[i].id] += how->bias[i].bias;
    if (has_penalty) apply_penalties(s->edited, s);
    return s->edited;
}

/* ---- blocks of the row ----------------------------------------------------------------------- */

static uint32_t block_size(const sampler *s, uint32_t block) {
    uint32_t n_left = s->n_vocab - block * LOGIT_BLOCK;
    return n_left < LOGIT_BLOCK ? n_left : LOGIT_BLOCK;
}

/* Fills the maximum of every block; returns the largest. */
static float find_maxima(sampler *s, const float *row) {
    float best = -INFINITY;
    for (uint32_t b = 0; b < s->n_blocks; b++) {
        s->blocks[b].max = logit_row_max(row + b * LOGIT_BLOCK, block_size(s, b));
        if (s->blocks[b].max > best) best = s->blocks[b].max;
    }
    return best;
}

/* weight = 2^20 high + low, the two 20-bit halves of WEIGHT_ONE * p: there are vector instructions
 * for 32-bit integers, and a block of them sums up in 32 bits. */
typedef struct {
    uint32_t high[LOGIT_BLOCK], low[LOGIT_BLOCK];
} block_weights;

static void weigh_tokens(block_weights *w, const float *block, size_t n, const draw_row *row) {
    float p[LOGIT_BLOCK];
    logit_exp_block(p, block, n, row->best, row->temperature);
    for (size_t i = 0; i < n; i++) {
        float   scaled = p[i] * 0x1p20f;
        int32_t high = (int32_t)scaled;
        w->high[i] = (uint32_t)high;
        w->low[i] = (uint32_t)(int32_t)((scaled - (float)high) * 0x1p20f);
    }
}

static uint64_t weight_of(const block_weights *w, size_t i) {
    return ((uint64_t)w->high[i] << 20) + w->low[i];
}

/* Fills the weight of every block; returns their sum. */
static uint64_t weigh_blocks(sampler *s, const draw_row *row) {
    uint64_t total = 0;
    float    weightless = row->best - FAR_BELOW * row->temperature;
    for (uint32_t b = 0; b < s->n_blocks; b++) {
        s->blocks[b].weight = 0;
        if (s->blocks[b].max < weightless) continue;
        block_weights w;
        uint32_t      n = block_size(s, b), high = 0, low = 0;
        weigh_tokens(&w, row->logits + b * LOGIT_BLOCK, n, row);
        for (uint32_t i = 0; i < n; i++) {
            high += w.high[i];
            low += w.low[i];
        }
        s->blocks[b].weight = ((uint64_t)high << 20) + low;
        total += s->blocks[b].weight;
    }
    return total;
}

/* ---- choosing candidates --------------------------------------------------------------------- */

/* The order of rank: no two tokens are equal in it. */
static bool is_better(float logit, int32_t id, const candidate *than) {
    return logit > than->logit || (logit == than->logit && id < than->id);
}

/* Collects the tokens as good as `last` or better in the order of their ids; returns how many. */
static size_t gather(sampler *s, const draw_row *row, const candidate *last) {
    size_t n = 0;
    for (uint32_t b = 0; b < s->n_blocks; b++) {
        if (s->blocks[b].max < last->logit) continue;
        const float  *block = row->logits + b * LOGIT_BLOCK;
        block_weights w;
        uint32_t      n_block = block_size(s, b);
        weigh_tokens(&w, block, n_block, row);
        for (uint32_t i = 0; i < n_block; i++) {
            float   v = logit_clean(block[i]);
            int32_t id = (int32_t)(b * LOGIT_BLOCK + i);
            if (is_better(v, id, last) || id == last->id)
                s->candidates[n++] = (candidate){weight_of(&w, i), v, id};
        }
    }
    return n;
}

/* The same, for all tokens of at least this logit. */
static size_t gather_from(sampler *s, const draw_row *row, float logit) {
    return gather(s, row,
                  &(candidate){.logit = logit < -FLT_MAX ? -FLT_MAX : logit, .id = INT32_MAX});
}

static uint64_t sum_of(const candidate *c, size_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += c[i].weight;
    return sum;
}

static void swap(candidate *a, candidate *b) {
    candidate t = *a;
    *a = *b;
    *b = t;
}

/* Moves what is better than the pivot, a random one, to the front; returns where the pivot is then.
 * A random pivot keeps the time linear for every row, and the outcome does not depend on it. */
static size_t partition(candidate *c, size_t first, size_t end, uint64_t *random) {
    swap(&c[first + next_seed(random) % (end - first)], &c[end - 1]);
    size_t at = first;
    for (size_t i = first; i + 1 < end; i++)
        if (is_better(c[i].logit, c[i].id, &c[end - 1])) swap(&c[at++], &c[i]);
    swap(&c[at], &c[end - 1]);
    return at;
}

/* Reorders so that the fewest best candidates which together reach `wanted` (> 0, in weight, or in
 * number) come first; returns how many those are. Quickselect: nothing gets sorted. */
static size_t select_best(candidate *c, size_t n, uint64_t wanted, bool is_by_weight) {
    uint64_t random = n;
    size_t   first = 0, end = n; /* what is before `first` is in, what is from `end` on is out */
    while (end - first > 1) {
        size_t   pivot = partition(c, first, end, &random);
        uint64_t before = is_by_weight ? sum_of(c + first, pivot - first) : pivot - first;
        uint64_t through = before + (is_by_weight ? c[pivot].weight : 1);
        if (before >= wanted) {
            end = pivot;
        } else if (through >= wanted) {
            return pivot + 1;
        } else {
            wanted -= through;
            first = pivot + 1;
        }
    }
    return end;
}

static candidate worst_of(const candidate *c, size_t n) {
    candidate worst = c[0];
    for (size_t i = 1; i < n; i++)
        if (!is_better(c[i].logit, c[i].id, &worst)) worst = c[i];
    return worst;
}

/* A logit that the k best tokens reach: k blocks have a token at least as good as the k-th largest
 * maximum. */
static float bound_of_best(sampler *s, uint32_t k) {
    if (k > s->n_blocks) return -INFINITY;
    candidate *c = s->candidates;
    for (uint32_t b = 0; b < s->n_blocks; b++) c[b] = (candidate){0, s->blocks[b].max, (int32_t)b};
    return worst_of(c, select_best(c, s->n_blocks, k, false)).logit;
}

/* The fewest best candidates that have the share top_p of the total weight. */
static size_t select_share(candidate *c, size_t n, float top_p, uint64_t total) {
    uint64_t wanted = (uint64_t)ceil((double)top_p * (double)total);
    return select_best(c, n, wanted ? wanted : 1, true);
}

/* The candidates that pass top-k and then top-p, in the order of their ids: selecting loses that
 * order, but finds the last one in rank, and then they are gathered once more. */
static size_t take_top_k(sampler *s, const draw_row *row, float weightless) {
    uint32_t k = s->how.top_k;
    size_t   n = gather_from(s, row, fmaxf(weightless, bound_of_best(s, k)));
    if (k < n) n = select_best(s->candidates, n, k, false);
    if (s->how.top_p < 1)
        n = select_share(s->candidates, n, s->how.top_p, sum_of(s->candidates, n));
    candidate last = worst_of(s->candidates, n);
    return gather(s, row, &last);
}

/* The same for top-p alone, which the best few tokens often make up: tries some first. */
static size_t take_top_p(sampler *s, const draw_row *row) {
    uint64_t total = weigh_blocks(s, row);
    size_t   n = 0;
    for (float depth = FAR_BELOW / 8; depth <= FAR_BELOW; depth *= 2) {
        n = gather_from(s, row, row->best - depth * row->temperature);
        if ((double)sum_of(s->candidates, n) >= (double)s->how.top_p * (double)total) break;
    }
    n = select_share(s->candidates, n, s->how.top_p, total);
    candidate last = worst_of(s->candidates, n);
    return gather(s, row, &last);
}

/* Min-p: keeps the order. */
static size_t drop_unlikely(candidate *c, size_t n, float min_p) {
    size_t n_kept = 0;
    for (size_t i = 0; i < n; i++)
        if ((double)c[i].weight >= (double)min_p * (double)WEIGHT_ONE) c[n_kept++] = c[i];
    return n_kept;
}

static size_t take_candidates(sampler *s, const draw_row *row) {
    const ds4_sampling *how = &s->how;
    float               weightless = row->best - FAR_BELOW * row->temperature;
    size_t              n;
    if (how->top_k && how->top_k < s->n_vocab) {
        n = take_top_k(s, row, weightless);
    } else if (how->top_p < 1) {
        n = take_top_p(s, row);
    } else {
        /* Those min-p may keep, and by the rounding of the logarithm perhaps some more. */
        float unlikely = row->best + row->temperature * (logf(how->min_p) - 0.001f);
        n = gather_from(s, row, fmaxf(weightless, unlikely));
    }
    return how->min_p > 0 ? drop_unlikely(s->candidates, n, how->min_p) : n;
}

/* ---- drawing --------------------------------------------------------------------------------- */

/* A random point of [0, total). */
static uint64_t draw_point(sampler *s, uint64_t total) {
    return (uint64_t)((uint128)next_random(s->random) * total >> 64);
}

/* The candidate in whose share of the whole the point lies. */
static int32_t draw_candidate(sampler *s, size_t n) {
    uint64_t point = draw_point(s, sum_of(s->candidates, n));
    size_t   i = 0;
    for (; point >= s->candidates[i].weight; i++) point -= s->candidates[i].weight;
    return s->candidates[i].id;
}

/* The same among all tokens. */
static int32_t draw_token(sampler *s, const draw_row *row) {
    uint64_t point = draw_point(s, weigh_blocks(s, row));
    uint32_t b = 0;
    for (; point >= s->blocks[b].weight; b++) point -= s->blocks[b].weight;
    block_weights w;
    weigh_tokens(&w, row->logits + b * LOGIT_BLOCK, block_size(s, b), row);
    uint32_t i = 0;
    for (; point >= weight_of(&w, i); i++) point -= weight_of(&w, i);
    return (int32_t)(b * LOGIT_BLOCK + i);
}

int32_t sampler_pick(sampler *s, const float *logits) {
    const ds4_sampling *how = &s->how;
    draw_row            row = {.logits = edited_row(s, logits), .temperature = how->temperature};
    if (how->temperature <= 0) return argmax_of(row.logits, s->n_vocab);
    row.best = find_maxima(s, row.logits);
    if (row.best == -INFINITY) return 0;
    bool has_filter = (how->top_k && how->top_k < s->n_vocab) || how->top_p < 1 || how->min_p > 0;
    return has_filter ? draw_candidate(s, take_candidates(s, &row)) : draw_token(s, &row);
}
