/* tiny.h - tiny random models in files, engines over them, and records of what a conversation said,
 * so that two ways of getting there can be compared bit for bit.
 *
 *   model    a file of randmodel.h in a folder of its own
 *   talk     a prompt, and how many tokens to generate greedily after it
 *   record   of one talk: the logits after every position, the generated tokens with everything
 * that a callback hears of them, and the logits at the end
 *
 *   Owner    The caller stores models and records and removes or releases them.
 *   Errors   Whatever goes wrong fails the running test, naming model, way and place. */
#ifndef DS4_TESTS_TINY_H
#define DS4_TESTS_TINY_H

#include "ds4.h"
#include "tests/support/randmodel.h"

enum { TINY_MAX_GENERATED = 40, TINY_TOP = 5, TINY_MAX_TOKENS = 512 };

/* Sanitizer builds are many times slower: they take fewer and shorter cases. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
enum { TINY_HASTE = 6 };
#elif defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
enum { TINY_HASTE = 3 };
#else
enum { TINY_HASTE = 1 };
#endif

/* ---- models ---- */

typedef struct {
    char dir[240], path[260];
    randmodel_shape shape;
    uint64_t seed;
} tiny_model;

/* A random geometry that a step of hundreds of rows goes through in some 100 ms; all of them have a
 * layer with an indexer, every other one an MTP block. */
randmodel_shape tiny_shape(uint64_t seed);

void tiny_write(tiny_model *m, const randmodel_shape *shape, uint64_t seed);
void tiny_remove(tiny_model *m);
/* dir/<name>: a path of a file that tiny_remove removes too. */
const char *tiny_path(const tiny_model *m, char path[300], const char *name);

/* The plain way: reference numerics of the model, best kernels, one thread, one session, every
 * prompt in one chunk, MTP if the model has it. */
ds4_engine_options tiny_options(const tiny_model *m);
ds4_engine *tiny_open(const tiny_model *m, const ds4_engine_options *options);
ds4_session *tiny_session(ds4_engine *e);

/* Fails the running test unless status is DS4_OK. */
void tiny_ok(ds4_status status, const ds4_error *err, const char *what);

/* The same numbers for the same state. */
uint64_t tiny_random(uint64_t *state);
uint32_t tiny_below(uint64_t *state, uint32_t n);
/* ids[n]: random tokens of the model, bytes and markers. */
void tiny_tokens(const tiny_model *m, int32_t *ids, size_t n, uint64_t seed);

/* ---- talks ---- */

typedef struct {
    const int32_t *prompt;
    size_t n_prompt;
    uint32_t n_generate;
} tiny_talk;

typedef struct {
    int32_t id, draft;
    float logprob;
    ds4_logprob top[TINY_TOP];
} tiny_token;

typedef struct {
    uint32_t n_vocab;
    float *logits; /* [TINY_MAX_TOKENS][n_vocab] */
    bool *is_seen; /* [TINY_MAX_TOKENS] positions whose logits were heard */
    tiny_token tokens[TINY_MAX_GENERATED];
    size_t n_tokens;
} tiny_record;

void tiny_record_init(tiny_record *r, const ds4_engine *e);
void tiny_record_clear(tiny_record *r);
void tiny_record_release(tiny_record *r);

/* Callback for ds4_session_evaluate; user: a tiny_record. */
void tiny_hear_logits(void *record, size_t pos, const float *logits);
/* Greedy generation of n tokens that is heard by the record, added to what it has; EOS is nothing
 * special. */
ds4_generation tiny_greedy(tiny_record *r, uint32_t n);
/* Keeps the logits that the session shows now, if any. */
void tiny_take_logits(tiny_record *r, const ds4_session *s);

/* Evaluates everything the session has, generates, evaluates the last token too. */
void tiny_go_on(ds4_session *s, uint32_t n_generate, tiny_record *r);
/* The talk in a fresh engine of these options; then everything is read once more in one go, so that
 * all positions are heard. */
void tiny_expect(tiny_record *r, const tiny_model *m, const ds4_engine_options *options,
                 const tiny_talk *talk);

/* Every position that both have heard is equal, and `found` has heard those of [first, end); the
 * generated tokens are equal, drafts included if has_drafts. */
void tiny_same(const tiny_record *found, const tiny_record *expected, size_t first, size_t end,
               bool has_drafts, const tiny_model *m, const char *way_format, ...) DS4_PRINTF(7, 8);

#endif
