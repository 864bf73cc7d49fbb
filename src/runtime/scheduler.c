/* One step of the engine: which rows, and what becomes of their logits. */
#include <string.h>
#include <time.h>

#include "runtime/runtime.h"

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool session_has_work(const ds4_session *s) {
    return s->is_generating || s->n_evaluated < s->n_tokens;
}

void session_end(ds4_session *s, ds4_finish finish) {
    s->is_generating = false;
    s->has_token = false;
    s->finish = finish;
}

/* ---- 1. rows ------------------------------------------------------------------------------------ */

/* The next n tokens of the session as one run; logits of its last row if that is the last token, of
 * every row if somebody wants them. */
static void add_run(ds4_engine *e, step_batch *batch, ds4_session *s, uint32_t n, bool is_prompt) {
    step_run *run = &e->runs[batch->n_runs++];
    *run = (step_run){.first = batch->n_rows, .n = n, .slot = s->slot, .pos = s->n_evaluated,
                      .is_prompt = is_prompt};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t pos = run->pos + i;
        e->rows[batch->n_rows] = (step_row){.token = s->tokens[pos], .slot = s->slot, .pos = pos};
        if (s->on_logits || pos + 1 == s->n_tokens) e->logit_rows[batch->n_logits++] = batch->n_rows;
        batch->n_rows++;
    }
}

/* How many tokens of a prompt may join: within the rows left, and the logits left if all are wanted. */
static uint32_t prompt_rows(const ds4_engine *e, const step_batch *batch, const ds4_session *s) {
    uint32_t n = s->n_tokens - s->n_evaluated, n_left = e->n_step_rows - batch->n_rows;
    uint32_t n_logits_left = e->limits.n_logits - batch->n_logits;
    if (s->on_logits && n > n_logits_left) n = n_logits_left;
    return n < n_left ? n : n_left;
}

static bool is_decoding(const ds4_session *s) {
    return s->is_generating && s->n_evaluated + 1 == s->n_tokens && s->n_generated > 0;
}

/* Generated tokens first, then prompts. One prompt, in turn, may fill the step; the others get as many
 * rows as a canceled step can take back without a copy of the cache (step_batch). */
static void choose_rows(ds4_engine *e, step_batch *batch) {
    uint32_t n_slots = e->limits.n_slots;
    for (uint32_t slot = 0; slot < n_slots; slot++) {
        ds4_session *s = e->sessions[slot];
        if (s && is_decoding(s)) add_run(e, batch, s, 1, false);
    }
    bool is_first = true;
    for (uint32_t i = 0, start = e->next_turn; i < n_slots; i++) {
        uint32_t     slot = (start + i) % n_slots;
        ds4_session *s = e->sessions[slot];
        if (!s || is_decoding(s) || s->n_evaluated == s->n_tokens) continue;
        if (batch->n_logits == e->limits.n_logits) break;
        uint32_t n = prompt_rows(e, batch, s);
        if (n == 0) break;
        /* One less than the slack: the MTP block may lag a row behind and then has one more. */
        if (!is_first && n >= FORWARD_SLACK) n = FORWARD_SLACK - 1;
        if (is_first) e->next_turn = (slot + 1) % n_slots;
        is_first = false;
        add_run(e, batch, s, n, true);
    }
}

/* ---- 2. after the pass -------------------------------------------------------------------------- */

/* Counts the rows as evaluated and hands their logits out. */
static void take_logits(ds4_engine *e, const step_batch *batch, double seconds) {
    size_t   n_vocab = e->shape.n_vocab;
    uint32_t at = 0; /* in logit_rows */
    for (uint32_t i = 0; i < batch->n_runs; i++) {
        const step_run *run = &batch->runs[i];
        ds4_session    *s = e->sessions[run->slot];
        s->n_evaluated = run->pos + run->n;
        if (s->n_evaluated > s->n_high) s->n_high = s->n_evaluated;
        s->has_logits = false;
        if (run->is_prompt) s->stats.n_prompt += run->n, s->stats.prompt_s += seconds;
        else s->stats.generate_s += seconds;
        for (; at < batch->n_logits && batch->logit_rows[at] < run->first + run->n; at++) {
            const float *logits = e->logits + at * n_vocab;
            uint32_t     pos = batch->rows[batch->logit_rows[at]].pos;
            if (pos + 1 == s->n_tokens) {
                memcpy(s->logits, logits, n_vocab * sizeof *logits);
                s->has_logits = true;
            }
            if (s->on_logits) s->on_logits(s->on_logits_user, pos, logits);
        }
    }
}

/* The next token of a session whose logits are there; it becomes the session's last one. */
static void sample(ds4_engine *e, ds4_session *s) {
    ds4_token *t = &s->token;
    *t = (ds4_token){.id = sampler_pick(s->picker, s->logits), .draft = -1, .top = s->top,
                     .n_top = s->how.n_top};
    t->logprob = logprobs_of(s->logits, e->shape.n_vocab, t->id, s->top, s->how.n_top);
    sampler_see_generated(s->picker, t->id);
    s->tokens[s->n_tokens++] = t->id;
    s->n_generated++;
    s->stats.n_generated++;
    s->has_token = true;
}

/* ---- 3. drafts ---------------------------------------------------------------------------------- */

/* Runs the MTP block over every position whose next token is known; a generating session gets a guess
 * of what follows the token just sampled. */
static ds4_status draft(ds4_engine *e, ds4_error *err) {
    step_batch batch = {.rows = e->rows, .runs = e->runs, .logit_rows = e->logit_rows};
    for (uint32_t slot = 0; slot < e->limits.n_slots; slot++) {
        ds4_session *s = e->sessions[slot];
        if (!s) continue;
        uint32_t end = s->n_evaluated < s->n_tokens ? s->n_evaluated : s->n_tokens - 1;
        if (s->n_tokens == 0 || end <= s->n_drafted) continue;
        step_run *run = &e->runs[batch.n_runs++];
        *run = (step_run){.first = batch.n_rows, .n = end - s->n_drafted, .slot = slot,
                          .pos = s->n_drafted, .is_prompt = !s->has_token || end - s->n_drafted > 1};
        for (uint32_t pos = run->pos; pos < end; pos++)
            e->rows[batch.n_rows++] = (step_row){.token = s->tokens[pos + 1], .slot = slot, .pos = pos};
        if (s->has_token) e->logit_rows[batch.n_logits++] = batch.n_rows - 1;
        s->n_drafted = end;
    }
    if (batch.n_rows == 0) return DS4_OK;
    DS4_TRY(forward_draft(e->pass, &batch, e->logits, err));
    for (uint32_t i = 0; i < batch.n_logits; i++) {
        const step_row *row = &e->rows[e->logit_rows[i]];
        e->sessions[row->slot]->token.draft =
            argmax_of(e->logits + (size_t)i * e->shape.n_vocab, e->shape.n_vocab);
    }
    return DS4_OK;
}

/* ---- 4. reports --------------------------------------------------------------------------------- */

static ds4_finish finish_of(const ds4_engine *e, const ds4_session *s, bool has_stop_text) {
    if (has_stop_text) return DS4_FINISH_STOP;
    if (s->token.id == e->info.eos && !s->how.ignore_eos) return DS4_FINISH_EOS;
    bool is_full = s->n_tokens == e->limits.n_ctx;
    bool is_enough = s->how.max_tokens && s->n_generated >= s->how.max_tokens;
    return is_full || is_enough ? DS4_FINISH_LENGTH : DS4_FINISH_NONE;
}

/* Turns the session's new token into text, decides whether it is the last one, and tells. */
static void report(ds4_engine *e, ds4_session *s) {
    ds4_token *t = &s->token;
    strbuf_truncate(&s->decoded, 0);
    strbuf_truncate(&s->text, 0);
    bool is_eos = t->id == e->info.eos && !s->how.ignore_eos;
    if (!is_eos) detok_feed(&s->words, t->id, &s->decoded);
    bool has_stop_text = stops_feed(s->stop_texts, &s->text, s->decoded.data, s->decoded.n);
    t->finish = finish_of(e, s, has_stop_text);
    if (t->finish != DS4_FINISH_NONE && !has_stop_text) {
        /* What was held back for the rest of a character or of a stop sequence comes out now. */
        strbuf_truncate(&s->decoded, 0);
        detok_finish(&s->words, &s->decoded);
        if (stops_feed(s->stop_texts, &s->text, s->decoded.data, s->decoded.n))
            t->finish = DS4_FINISH_STOP;
        else stops_finish(s->stop_texts, &s->text);
    }
    t->text = s->text.data ? s->text.data : "";
    t->n_text = s->text.n;
    s->has_token = false;
    bool goes_on = !s->how.on_token || s->how.on_token(s->how.user, t);
    if (t->finish != DS4_FINISH_NONE) session_end(s, t->finish);
    else if (!goes_on) session_end(s, DS4_FINISH_CANCELED);
}

/* While the prompt is read, its end included. */
static void report_progress(const ds4_session *s) {
    uint32_t n_generated_before = s->n_generated - s->has_token;
    if (!s->is_generating || n_generated_before > 0 || s->n_prompt == 0 || !s->how.on_progress) return;
    uint32_t n_left = s->n_tokens - s->has_token - s->n_evaluated;
    s->how.on_progress(s->how.user, s->n_prompt - n_left, s->n_prompt);
}

ds4_status ds4_engine_step(ds4_engine *e, bool *has_work, ds4_error *err) {
    step_batch batch = {.rows = e->rows, .runs = e->runs, .logit_rows = e->logit_rows};
    double     start_s = now_s();
    choose_rows(e, &batch);
    ds4_status status = DS4_OK;
    if (batch.n_rows > 0) {
        status = forward_step(e->pass, &batch, e->logits, &e->cancel, err);
        /* Rows of a step that was given up may have overwritten the oldest ring rows, but for the one
         * long run, whose rings are restored. */
        for (uint32_t i = 0; i < batch.n_runs; i++) {
            ds4_session *s = e->sessions[batch.runs[i].slot];
            uint32_t     end = batch.runs[i].pos + batch.runs[i].n;
            if (batch.runs[i].n <= FORWARD_SLACK && end > s->n_high) s->n_high = end;
        }
    } else if (atomic_load(&e->cancel)) {
        status = ds4_fail(err, DS4_ECANCELED, "step: canceled");
    }
    if (status == DS4_ECANCELED) atomic_store(&e->cancel, false);
    if (status != DS4_OK) return status;

    take_logits(e, &batch, now_s() - start_s);
    bool is_sampling = false;
    for (uint32_t slot = 0; slot < e->limits.n_slots; slot++) {
        ds4_session *s = e->sessions[slot];
        if (!s || !s->is_generating || !s->has_logits || s->n_evaluated < s->n_tokens) continue;
        sample(e, s);
        is_sampling = true;
    }
    if (e->limits.has_mtp && (batch.n_rows > 0 || is_sampling)) DS4_TRY(draft(e, err));

    bool is_busy = false;
    for (uint32_t slot = 0; slot < e->limits.n_slots; slot++) {
        ds4_session *s = e->sessions[slot];
        if (!s) continue;
        report_progress(s);
        if (s->has_token) report(e, s);
        is_busy |= session_has_work(s);
    }
    if (has_work) *has_work = is_busy;
    return DS4_OK;
}

ds4_finish ds4_session_finish(const ds4_session *s) {
    return s->finish;
}

ds4_status ds4_session_generate(ds4_session *s, const ds4_generation *generation, ds4_error *err) {
    DS4_TRY(ds4_session_start(s, generation, err));
    while (s->is_generating) {
        ds4_status status = ds4_engine_step(s->engine, NULL, err);
        if (status == DS4_OK) continue;
        session_end(s, DS4_FINISH_CANCELED);
        return status;
    }
    return DS4_OK;
}

ds4_session_stats ds4_session_get_stats(const ds4_session *s) {
    return s->stats;
}
