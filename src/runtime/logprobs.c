/* Log-probabilities and the best token of a row. Most of a row is far from its best token: blocks
 * that can neither add to the sum nor enter the list are skipped after a look at their maximum. */
#include <assert.h>

#include "runtime/logit_row.h"
#include "runtime/sampler.h"

/* Left-out blocks together weigh less than 2^24 * e^-40 = 7e-11 of the best token. */
static const float FAR_BELOW = 40.0f;

/* The sum of e^(v - best) over a block. */
static double sum_of_block(const float *block, size_t n, float best) {
    float  p[LOGIT_BLOCK];
    double lanes[LOGIT_LANES] = {0};
    logit_exp_block(p, block, n, best, 1);
    size_t i = 0;
    for (; i + LOGIT_LANES <= n; i += LOGIT_LANES)
        for (size_t lane = 0; lane < LOGIT_LANES; lane++) lanes[lane] += (double)p[i + lane];
    double sum = 0;
    for (; i < n; i++) sum += (double)p[i];
    for (size_t lane = 0; lane < LOGIT_LANES; lane++) sum += lanes[lane];
    return sum;
}

/* Puts a token where it belongs in the list, if it does; ids come in rising order, so that of equal
 * tokens the one already there stays ahead. `logprob` holds the logit for now; id -1 marks a free
 * place. */
static void enter_top(ds4_logprob *top, uint32_t n_top, int32_t id, float v) {
    uint32_t at = n_top;
    while (at > 0 && (top[at - 1].id < 0 || v > top[at - 1].logprob)) at--;
    if (at == n_top) return;
    memmove(top + at + 1, top + at, (n_top - at - 1) * sizeof *top);
    top[at] = (ds4_logprob){id, v};
}

static void enter_block(ds4_logprob *top, uint32_t n_top, const float *block, size_t n,
                        uint32_t first) {
    for (size_t i = 0; i < n; i++)
        enter_top(top, n_top, (int32_t)(first + i), logit_clean(block[i]));
}

/* ln(e^(v - best) / sum), -infinity for a row that has no distribution. */
static float logprob_from(float v, float best, double log_sum) {
    if (v == -INFINITY) return -INFINITY;
    return (float)((double)v - (double)best - log_sum);
}

float logprobs_of(const float *logits, uint32_t n_vocab, int32_t id, ds4_logprob *top,
                  uint32_t n_top) {
    assert(id >= 0 && (uint32_t)id < n_vocab);
    float best = logit_row_max(logits, n_vocab);
    for (uint32_t i = 0; i < n_top; i++) top[i] = (ds4_logprob){-1, -INFINITY};

    double sum = 0;
    for (uint32_t first = 0; first < n_vocab; first += LOGIT_BLOCK) {
        const float *block = logits + first;
        size_t       n = n_vocab - first < LOGIT_BLOCK ? n_vocab - first : LOGIT_BLOCK;
        float        block_max = logit_row_max(block, n);
        if (block_max >= best - FAR_BELOW) sum += sum_of_block(block, n, best);
        bool may_enter = n_top && (top[n_top - 1].id < 0 || block_max > top[n_top - 1].logprob);
        if (may_enter) enter_block(top, n_top, block, n, first);
    }
    double log_sum = log(sum);
    for (uint32_t i = 0; i < n_top; i++)
        top[i].logprob = logprob_from(top[i].logprob, best, log_sum);
    return logprob_from(logit_clean(logits[id]), best, log_sum);
}

int32_t argmax_of(const float *logits, uint32_t n_vocab) {
    float best = logit_row_max(logits, n_vocab);
    if (best == -INFINITY) return 0;
    uint32_t id = 0;
    while (!(logits[id] >= best)) id++; /* it is there */
    return (int32_t)id;
}
