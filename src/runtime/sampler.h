/* sampler.h - from a row of logits to the next token.
 *
 *   logits -> bias -> penalties -> temperature -> top-k -> top-p -> min-p -> draw
 *
 *   Owner    create/destroy; options are copied.
 *   Shapes   logits [n_vocab], borrowed and not changed.
 *   Threads  A sampler belongs to the engine thread.
 *   Errors   Options out of range: DS4_EINVAL naming the field. Picking cannot fail and allocates
 *            nothing; NaN logits count as -infinity, and a row without any finite logit gives the
 *            lowest id.
 *   Same seed, same logits: same tokens, on every machine (own generator, no libm in the draw beyond
 *   expf). Equal logits: the lower id wins. */
#ifndef DS4_RUNTIME_SAMPLER_H
#define DS4_RUNTIME_SAMPLER_H

#include "base/status.h"

typedef struct sampler sampler;

/* n_history: tokens the penalties may have to look back on (the context length). */
ds4_status sampler_create(sampler **out, uint32_t n_vocab, uint32_t n_history, ds4_error *err);
void sampler_destroy(sampler *s);
/* Takes new options and forgets what was seen. May allocate (for the bias list). */
ds4_status sampler_start(sampler *s, const ds4_sampling *options, ds4_error *err);
/* A token of the prompt (the repeat penalty sees it), or one that was generated (all do). */
void sampler_see_prompt(sampler *s, int32_t id);
void sampler_see_generated(sampler *s, int32_t id);
int32_t sampler_pick(sampler *s, const float *logits);

/* The natural logarithm of the softmax probability of `id`, and the n_top (<= 20) likeliest tokens,
 * best first, equal ones by id. */
float logprobs_of(const float *logits, uint32_t n_vocab, int32_t id, ds4_logprob *top, uint32_t n_top);
/* The id of the largest logit; the lowest of equal ones. */
int32_t argmax_of(const float *logits, uint32_t n_vocab);

#endif
