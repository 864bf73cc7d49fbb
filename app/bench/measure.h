/* measure.h - one walk of a session along context frontiers, timing prefill and decode.
 *
 *   tokens   0 ........ F1 . d . ......... F2 . d . ......... F3 . d
 *              prefill 1   ^ decode 1  prefill 2   ^ decode 2
 *   Decoding leaves its tokens in the context, so nothing is evaluated twice: the next prefill is
 *   shorter by them. A frontier of 0 tokens is a context of one token and has no prefill.
 *
 *   Units    Seconds on the wall; rates in tokens per second.
 *   Errors   DS4_EINVAL for frontiers that are not far enough apart. */
#ifndef DS4_APP_BENCH_MEASURE_H
#define DS4_APP_BENCH_MEASURE_H

#include <ds4.h>

enum { MEASURE_MAX_FRONTIERS = 64 };

typedef struct {
    uint32_t n_context;  /* the frontier */
    uint32_t n_prefill;  /* tokens evaluated to get there; 0: not measured */
    double   prefill_s;
    uint32_t n_decode;   /* forward passes of one token: one less than the tokens generated */
    double   decode_s;
} measure_point;

/* Sets n_context, n_prefill and n_decode of points [n] for frontiers in rising order. n_generate: tokens
 * generated at each, at least 2; 0: no decode. */
ds4_status measure_plan(measure_point *points, const uint32_t *frontiers, size_t n,
                        uint32_t n_generate, ds4_error *err);
/* Walks an empty session along the plan and fills the seconds. ids [n_ids] are the prompt, repeated as
 * needed. */
ds4_status measure_walk(measure_point *points, size_t n, ds4_session *session, const int32_t *ids,
                        size_t n_ids, uint32_t n_generate, ds4_error *err);
/* Tokens the session must hold. */
uint32_t measure_n_ctx(const measure_point *points, size_t n, uint32_t n_generate);

#endif
