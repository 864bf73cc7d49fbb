/* sampler.h - from a row of logits to the next token.
 *
 *   logits -> bias -> penalties -> temperature -> top-k -> top-p -> min-p -> draw
 *
 *   bias         logit += bias, for every entry of the list (an id may occur twice)
 *   repeat       tokens among the last penalty_last_n, prompt included: positive logits are
 *                divided, negative ones multiplied by repeat_penalty
 *   presence     logit -= presence_penalty + frequency_penalty * count, for generated tokens
 *   temperature  p ~ e^(logit / temperature); 0 takes the best token and leaves the rest out
 *   top-k        the k best tokens
 *   top-p        of those, the fewest best ones whose probabilities add up to top_p; at least one
 *   min-p        of those, the ones of at least min_p times the best one's probability
 *   draw         what is left, by probability
 *
 *   Ranges       temperature 0..100, top_p and min_p 0..1, repeat_penalty 0.01..100, presence and
 *                frequency -100..100; a bias is finite, or -infinity: the token is never picked
 *   Exactness    Probabilities relative to the best token's are rounded down to multiples of 2^-40
 *                and summed as integers: a token less likely than that is never drawn.
 *   Repeatable   Same seed, same logits: same tokens, on every machine (own generator, own
 *                exponential, integer sums). Equal logits: the lower id is the better one. A draw
 *                takes one number from the generator, and tokens share its range in the order of
 *                their ids, so that slightly different logits rarely change what is drawn.
 *
 *   Owner    create/destroy; options are copied.
 *   Shapes   logits [n_vocab], borrowed and not changed.
 *   Threads  A sampler belongs to the engine thread.
 *   Errors   Options out of range: DS4_EINVAL naming the field; the sampler goes on as before.
 *            Picking cannot fail and allocates nothing; NaN logits count as -infinity, +infinity as
 *            the largest float, and a row of nothing but -infinity gives id 0. */
#ifndef DS4_RUNTIME_SAMPLER_H
#define DS4_RUNTIME_SAMPLER_H

#include "base/status.h"

typedef struct sampler sampler;

/* n_vocab: 1 to 2^23. n_history: tokens the repeat penalty may have to look back on (the context
 * length), at least 1. Until sampler_start it picks greedily. */
ds4_status sampler_create(sampler **out, uint32_t n_vocab, uint32_t n_history, ds4_error *err);
void sampler_destroy(sampler *s);
/* Takes new options and forgets what was seen. May allocate (for the bias list). */
ds4_status sampler_start(sampler *s, const ds4_sampling *options, ds4_error *err);
/* A token of the prompt (the repeat penalty sees it), or one that was generated (all do). Ids are
 * below n_vocab. */
void sampler_see_prompt(sampler *s, int32_t id);
void sampler_see_generated(sampler *s, int32_t id);
/* The next token; it is not seen by that alone. */
int32_t sampler_pick(sampler *s, const float *logits);

/* The natural logarithm of the softmax probability of `id`, and the n_top (<= 20) likeliest tokens,
 * best first, equal ones by id; entries beyond the vocabulary have id -1. Within 1e-6 of the exact
 * value (relative, below -1); -infinity where the logit is, or if the whole row is. */
float logprobs_of(const float *logits, uint32_t n_vocab, int32_t id, ds4_logprob *top,
                  uint32_t n_top);
/* The id of the largest logit; the lowest of equal ones. */
int32_t argmax_of(const float *logits, uint32_t n_vocab);

#endif
