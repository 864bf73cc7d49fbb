/* pass.h - a model opened for forward passes alone: file, weights, CPU backend, no engine around.
 *
 *   Owner    The caller stores the struct and releases it with pass_close.
 *   Errors   Anything unexpected fails the running test. */
#ifndef DS4_TESTS_PASS_H
#define DS4_TESTS_PASS_H

#include "backend/cache_layout.h"
#include "tests/support/tap.h"

typedef struct {
    const char *path;
    const char *kernels; /* NULL: the best */
    uint32_t n_threads;
    uint32_t n_ctx;         /* positions; also the rows and logits of one step */
    bool has_float_weights; /* matmuls take float activations */
    bool has_float_caches;  /* no FP8 and FP4 grids */
    bool is_tapped;
} pass_options;

typedef struct {
    pass_options options;
    gguf *file;
    config shape;
    arena memory;
    weights w;
    backend *device;
    tap *watched; /* if is_tapped */
    forward *model;
    float *logits; /* [n_ctx][n_vocab], by position */
} pass;

void pass_open(pass *p, const pass_options *options);
void pass_close(pass *p);

/* How many of the n_left tokens from pos on go into the next step, at least 1. */
typedef uint32_t (*pass_cut)(uint32_t pos, uint32_t n_left);

/* Everything in one step; one token a step; steps of many sizes, with borders inside and at the
 * ends of compressed rows and of the window. */
uint32_t pass_at_once(uint32_t pos, uint32_t n_left);
uint32_t pass_one_by_one(uint32_t pos, uint32_t n_left);
uint32_t pass_in_chunks(uint32_t pos, uint32_t n_left);

/* Evaluates ids[0..n) from position 0 of slot 0 on and keeps all logits. */
void pass_run(pass *p, const int32_t *ids, uint32_t n, pass_cut cut);

/* The float rows that a layer's cache part holds after n_pos positions; free() them. NULL: none.
 * Only with float caches. */
float *pass_cached_rows(const pass *p, uint32_t n_pos, uint32_t layer, cache_part part);

#endif
