/* measure.c - prefill to a frontier, decode behind it, go on. */
#include "app/bench/measure.h"

#include "app/clock.h"
#include "base/status.h"

ds4_status measure_plan(measure_point *points, const uint32_t *frontiers, size_t n,
                        uint32_t n_generate, ds4_error *err) {
    uint32_t at = 0; /* tokens in the session */
    for (size_t i = 0; i < n; i++) {
        uint32_t context = frontiers[i] ? frontiers[i] : 1;
        if (context <= at)
            return ds4_fail(err, DS4_EINVAL,
                            "--frontiers: %u follows a context of %u tokens, expected more than that",
                            frontiers[i], at);
        points[i] = (measure_point){
            .n_context = frontiers[i],
            .n_prefill = frontiers[i] ? context - at : 0,
            .n_decode = n_generate ? n_generate - 1 : 0,
        };
        at = context + n_generate;
    }
    return DS4_OK;
}

uint32_t measure_n_ctx(const measure_point *points, size_t n, uint32_t n_generate) {
    return n ? points[n - 1].n_context + n_generate + 1 : 1;
}

/* The generated tokens' times; the first one needs no forward pass of its own. */
typedef struct {
    double first_s, last_s;
    size_t n;
} token_times;

static bool take_time(void *user, const ds4_token *token) {
    token_times *t = user;
    (void)token;
    t->last_s = clock_s();
    if (t->n++ == 0) t->first_s = t->last_s;
    return true;
}

/* Makes the session n tokens long and evaluates them. */
static ds4_status prefill(ds4_session *session, uint32_t n, const int32_t *ids, size_t n_ids,
                          double *seconds, ds4_error *err) {
    size_t at;
    ds4_session_tokens(session, &at);
    while (at < n) {
        size_t start = at % n_ids;
        size_t part = n_ids - start < n - at ? n_ids - start : n - at;
        DS4_TRY(ds4_session_append(session, ids + start, part, err));
        at += part;
    }
    double start = clock_s();
    DS4_TRY(ds4_session_evaluate(session, NULL, NULL, err));
    *seconds = clock_s() - start;
    return DS4_OK;
}

static ds4_status decode(ds4_session *session, uint32_t n_generate, double *seconds, ds4_error *err) {
    token_times times = {0};
    ds4_generation generation = ds4_generation_defaults();
    generation.sampling.temperature = 0;
    generation.max_tokens = n_generate;
    generation.ignore_eos = true;
    generation.on_token = take_time;
    generation.user = &times;
    DS4_TRY(ds4_session_generate(session, &generation, err));
    *seconds = times.last_s - times.first_s;
    return DS4_OK;
}

/* The last token that was generated is not in the cache yet: that would count as prefill. */
static ds4_status settle(ds4_session *session, ds4_error *err) {
    return ds4_session_evaluate(session, NULL, NULL, err);
}

ds4_status measure_walk(measure_point *points, size_t n, ds4_session *session, const int32_t *ids,
                        size_t n_ids, uint32_t n_generate, ds4_error *err) {
    for (size_t i = 0; i < n; i++) {
        uint32_t context = points[i].n_context ? points[i].n_context : 1;
        DS4_TRY(prefill(session, context, ids, n_ids, &points[i].prefill_s, err));
        if (n_generate) {
            DS4_TRY(decode(session, n_generate, &points[i].decode_s, err));
            DS4_TRY(settle(session, err));
        }
    }
    return DS4_OK;
}
