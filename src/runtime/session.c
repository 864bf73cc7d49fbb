#include <stdlib.h>
#include <string.h>

#include "runtime/runtime.h"

ds4_status ds4_session_create(ds4_session **session, ds4_engine *e, ds4_error *err) {
    uint32_t slot = 0;
    while (slot < e->limits.n_slots && e->sessions[slot]) slot++;
    if (slot == e->limits.n_slots)
        return ds4_fail(err, DS4_EFULL, "session: all %u of the engine are in use", e->limits.n_slots);

    ds4_session *s = calloc(1, sizeof *s);
    if (!s) return ds4_fail_nomem(err, "session", sizeof *s);
    s->engine = e;
    s->slot = slot;
    s->tokens = calloc(e->limits.n_ctx, sizeof *s->tokens);
    s->logits = calloc(e->shape.n_vocab, sizeof *s->logits);
    ds4_status status = DS4_OK;
    if (!s->tokens || !s->logits)
        status = ds4_fail_nomem(err, "session", (size_t)e->limits.n_ctx * sizeof *s->tokens);
    if (status == DS4_OK) status = sampler_create(&s->picker, e->shape.n_vocab, e->limits.n_ctx, err);
    if (status == DS4_OK) status = stops_create(&s->stop_texts, err);
    e->sessions[slot] = s;
    if (status != DS4_OK) {
        ds4_session_destroy(s);
        return status;
    }
    *session = s;
    return DS4_OK;
}

void ds4_session_destroy(ds4_session *s) {
    if (!s) return;
    s->engine->sessions[s->slot] = NULL;
    sampler_destroy(s->picker);
    stops_destroy(s->stop_texts);
    strbuf_release(&s->decoded);
    strbuf_release(&s->text);
    free(s->tokens);
    free(s->logits);
    free(s);
}

/* ---- tokens ------------------------------------------------------------------------------------- */

ds4_status ds4_session_append(ds4_session *s, const int32_t *ids, size_t n, ds4_error *err) {
    uint32_t n_ctx = s->engine->limits.n_ctx, n_vocab = s->engine->shape.n_vocab;
    if (s->is_generating)
        return ds4_fail(err, DS4_EINVAL, "session: tokens cannot be added while it generates");
    if (n > n_ctx - s->n_tokens)
        return ds4_fail(err, DS4_EFULL, "session: %u + %zu tokens, the context holds %u", s->n_tokens, n,
                        n_ctx);
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= n_vocab)
            return ds4_fail(err, DS4_EINVAL, "session: token %zu: found id %d, expected 0 to %u", i, ids[i],
                            n_vocab - 1);
    }
    if (n > 0) memcpy(s->tokens + s->n_tokens, ids, n * sizeof *ids);
    s->n_tokens += (uint32_t)n;
    return DS4_OK;
}

const int32_t *ds4_session_tokens(const ds4_session *s, size_t *n) {
    if (n) *n = s->n_tokens;
    return s->tokens;
}

size_t ds4_session_n_evaluated(const ds4_session *s) {
    return s->n_evaluated;
}

ds4_status ds4_session_rewind(ds4_session *s, size_t n, ds4_error *err) {
    if (n > s->n_tokens)
        return ds4_fail(err, DS4_EINVAL, "session: rewind to %zu, it has %u tokens", n, s->n_tokens);
    if (s->is_generating) session_end(s, DS4_FINISH_CANCELED);
    uint32_t n_kept = (uint32_t)n;
    bool     has_last = n_kept == s->n_evaluated && s->has_logits;
    if (n_kept <= s->n_evaluated && !has_last) {
        /* The last token kept is evaluated again, for its logits. The rings reach back FORWARD_SLACK
         * positions from the highest they held; anything older has been overwritten, and everything
         * is evaluated again from the start. */
        uint32_t next = n_kept > 0 ? n_kept - 1 : 0;
        s->n_evaluated = s->n_high - next <= FORWARD_SLACK ? next : 0;
        s->has_logits = false;
    }
    if (s->n_evaluated == 0) s->n_high = 0;
    /* The MTP row of position p also read token p + 1. */
    uint32_t n_drafted = s->n_evaluated > 0 ? s->n_evaluated - 1 : 0;
    if (s->n_drafted > n_drafted) s->n_drafted = n_drafted;
    s->n_tokens = n_kept;
    return DS4_OK;
}

ds4_status ds4_session_evaluate(ds4_session *s, ds4_logits_fn fn, void *user, ds4_error *err) {
    s->on_logits = fn;
    s->on_logits_user = user;
    ds4_status status = DS4_OK;
    while (status == DS4_OK && s->n_evaluated < s->n_tokens) status = ds4_engine_step(s->engine, NULL, err);
    s->on_logits = NULL;
    return status;
}

const float *ds4_session_logits(const ds4_session *s) {
    return s->has_logits && s->n_evaluated == s->n_tokens ? s->logits : NULL;
}

/* ---- generation --------------------------------------------------------------------------------- */

ds4_sampling ds4_sampling_defaults(void) {
    return (ds4_sampling){.temperature = 0.6f, .top_p = 0.95f, .repeat_penalty = 1};
}

ds4_generation ds4_generation_defaults(void) {
    return (ds4_generation){.sampling = ds4_sampling_defaults()};
}

const char *ds4_finish_name(ds4_finish finish) {
    switch (finish) {
    case DS4_FINISH_NONE: return "none";
    case DS4_FINISH_EOS: return "eos";
    case DS4_FINISH_STOP: return "stop";
    case DS4_FINISH_LENGTH: return "length";
    case DS4_FINISH_CANCELED: return "canceled";
    }
    return "unknown";
}

/* Empty, with room for n bytes, also if memory ran out for it before. */
static ds4_status clear_text(strbuf *b, size_t n, ds4_error *err) {
    if (b->is_failed) strbuf_release(b);
    strbuf_truncate(b, 0);
    strbuf_reserve(b, n);
    return strbuf_check(b, "session: text", err);
}

ds4_status ds4_session_start(ds4_session *s, const ds4_generation *g, ds4_error *err) {
    enum { MAX_TOP = sizeof s->top / sizeof *s->top };
    if (s->is_generating) return ds4_fail(err, DS4_EINVAL, "session: it generates already");
    if (s->n_tokens == 0) return ds4_fail(err, DS4_EINVAL, "session: nothing to go on from: no tokens");
    if (s->n_tokens == s->engine->limits.n_ctx)
        return ds4_fail(err, DS4_EFULL, "session: the context of %u tokens is full", s->n_tokens);
    if (g->n_top > MAX_TOP)
        return ds4_fail(err, DS4_EINVAL, "n_top: found %u, expected at most %d", g->n_top, MAX_TOP);
    DS4_TRY(sampler_start(s->picker, &g->sampling, err));
    DS4_TRY(stops_start(s->stop_texts, g->stops, g->n_stops, err));
    for (uint32_t i = 0; i < s->n_tokens; i++) sampler_see_prompt(s->picker, s->tokens[i]);

    /* So much text that no token of a step makes the buffers grow. */
    size_t n_longest = s->engine->n_longest_token + DETOK_HELD_BYTES;
    DS4_TRY(clear_text(&s->decoded, 3 * n_longest, err));
    DS4_TRY(clear_text(&s->text, 3 * n_longest + STOPS_MAX_BYTES, err));
    s->words = detok_from(s->engine->words, false);
    s->how = *g;
    s->is_generating = true;
    s->finish = DS4_FINISH_NONE;
    s->n_generated = 0;
    s->n_prompt = s->n_tokens - s->n_evaluated;
    return DS4_OK;
}
