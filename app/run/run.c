/* run.c - ds4 run: one prompt in, one answer out. */
#include <ds4.h>
#include <string.h>
#include <unistd.h>

#include "app/clock.h"
#include "app/commands.h"
#include "app/interrupt.h"
#include "app/io.h"
#include "app/run/record.h"
#include "app/run/run_options.h"

/* One run, from options to answer; the callbacks get it as `user`. */
typedef struct {
    run_options  options;
    ds4_engine  *engine;
    ds4_session *session;
    id_list      prompt; /* what the session holds before it generates */
    record       made;
    double       load_s;
    double       start_s; /* on the clock: the prompt begins */
    double       first_token_s;
    bool         has_progress; /* a progress line stands on the terminal */
    bool         is_broken;    /* stdout does not take more */
    bool         was_interrupted;
} run_state;

/* ---- while it runs ---- */

static void show_progress(void *user, size_t n_done, size_t n_prompt) {
    run_state *r = user;
    if (r->options.is_quiet || !isatty(STDERR_FILENO)) return;
    double rate = record_rate(n_done, clock_s() - r->start_s);
    fprintf(stderr, "\rprompt %zu/%zu tokens, %.0f tokens/s\033[K", n_done, n_prompt, rate);
    r->has_progress = true;
}

static void clear_progress(run_state *r) {
    if (r->has_progress) fputs("\r\033[K", stderr);
    r->has_progress = false;
}

static bool take_token(void *user, const ds4_token *token) {
    run_state *r = user;
    clear_progress(r);
    if (r->made.generated.n == 0) r->first_token_s = clock_s() - r->start_s;
    record_add(&r->made, token, r->options.has_logprobs);
    if (!r->options.is_json && token->n_text) {
        bool is_ok = io_put(token->text, token->n_text) && fflush(stdout) == 0;
        if (!is_ok) r->is_broken = true;
    }
    return !r->made.is_failed && !r->is_broken;
}

/* ---- the steps of a run ---- */

static ds4_status open_engine(run_state *r, ds4_error *err) {
    ds4_engine_options options;
    DS4_TRY(engine_flags_resolve(&r->options.engine, &options, err));
    if (r->options.has_drafts) options.use_mtp = true;
    double start = clock_s();
    DS4_TRY(ds4_engine_open(&r->engine, r->options.engine.path, &options, err));
    r->load_s = clock_s() - start;
    return ds4_session_create(&r->session, r->engine, err);
}

/* A loaded session may have stopped in the middle of its answer; the next turn needs its end. */
static ds4_status end_open_turn(run_state *r, ds4_error *err) {
    size_t n;
    const int32_t *ids = ds4_session_tokens(r->session, &n);
    int32_t eos = ds4_engine_info(r->engine)->eos;
    bool is_framed = !r->options.prompt.is_raw && !r->options.prompt.tokens;
    if (!is_framed || n == 0 || ids[n - 1] == eos) return DS4_OK;
    return ds4_session_append(r->session, &eos, 1, err);
}

static ds4_status append_prompt(run_state *r, ds4_error *err) {
    id_list ids = {0};
    ds4_status status = prompt_make(&ids, &r->options.prompt, r->engine, err);
    if (status == DS4_OK && ids.n && r->options.load) status = end_open_turn(r, err);
    if (status == DS4_OK && ids.n) status = ds4_session_append(r->session, ids.data, ids.n, err);
    if (status == DS4_EFULL && err) {
        size_t n = strlen(err->message);
        snprintf(err->message + n, sizeof err->message - n, " (-c sets the context)");
    }
    id_list_release(&ids);
    if (status != DS4_OK) return status;

    size_t n;
    const int32_t *all = ds4_session_tokens(r->session, &n);
    if (n == 0) return ds4_fail(err, DS4_EINVAL, "the prompt is empty");
    for (size_t i = 0; i < n; i++)
        if (!id_list_add(&r->prompt, all[i])) return ds4_fail_nomem(err, "prompt", n);
    return DS4_OK;
}

static ds4_status generate(run_state *r, ds4_error *err) {
    ds4_generation generation = ds4_generation_defaults();
    generation.sampling = r->options.sampling;
    generation.max_tokens = r->options.max_tokens;
    generation.n_top = r->options.n_top;
    generation.stops = r->options.stops.items;
    generation.n_stops = r->options.stops.n;
    generation.on_token = take_token;
    generation.on_progress = show_progress;
    generation.user = r;

    interrupt_begin(r->engine);
    r->start_s = clock_s();
    ds4_status status = ds4_session_generate(r->session, &generation, err);
    r->was_interrupted = status == DS4_ECANCELED && interrupt_seen();
    interrupt_end();
    clear_progress(r);
    if (r->made.is_failed) return ds4_fail(err, DS4_ENOMEM, "answer: out of memory");
    if (!r->was_interrupted) return status;
    /* Interrupted: what was generated stays, and the session is at rest again. */
    size_t n;
    ds4_session_tokens(r->session, &n);
    return ds4_session_rewind(r->session, n, err);
}

/* ---- its results ---- */

static const char *finish_reason(const run_state *r) {
    ds4_finish finish = ds4_session_finish(r->session);
    return ds4_finish_name(finish == DS4_FINISH_NONE ? DS4_FINISH_CANCELED : finish);
}

static ds4_status write_json(const run_state *r, ds4_error *err) {
    record_frame frame = {
        .prompt_ids = r->prompt.data,
        .n_prompt = r->prompt.n,
        .finish_reason = finish_reason(r),
        .seed = r->options.sampling.seed,
        .load_s = r->load_s,
        .first_token_s = r->first_token_s,
        .stats = ds4_session_get_stats(r->session),
        .has_logprobs = r->options.has_logprobs,
        .has_drafts = ds4_engine_info(r->engine)->has_mtp,
    };
    strbuf json = {0};
    ds4_status status = record_write_json(&json, &r->made, &frame, err);
    if (status == DS4_OK) io_put(json.data, json.n);
    strbuf_release(&json);
    return status;
}

/* On a terminal the shell's prompt starts on its own line; a pipe gets the exact text. */
static void end_text(const run_state *r) {
    const strbuf *text = &r->made.text;
    bool is_open = text->n && text->data[text->n - 1] != '\n';
    if (is_open && isatty(STDOUT_FILENO)) io_put("\n", 1);
    fflush(stdout);
}

static void show_stats(const run_state *r) {
    if (r->options.is_quiet) return;
    ds4_session_stats s = ds4_session_get_stats(r->session);
    fprintf(stderr,
            "ds4 run: prompt %llu tokens in %.3f s (%.1f/s), generated %llu in %.3f s (%.1f/s), "
            "finish %s",
            (unsigned long long)s.n_prompt, s.prompt_s, record_rate(s.n_prompt, s.prompt_s),
            (unsigned long long)s.n_generated, s.generate_s,
            record_rate(s.n_generated, s.generate_s), finish_reason(r));
    if (r->options.sampling.temperature > 0)
        fprintf(stderr, ", seed %llu", (unsigned long long)r->options.sampling.seed);
    fputc('\n', stderr);
}

static ds4_status run(run_state *r, ds4_error *err) {
    DS4_TRY(open_engine(r, err));
    if (r->options.load) DS4_TRY(ds4_session_load(r->session, r->options.load, err));
    DS4_TRY(append_prompt(r, err));
    ds4_status status = generate(r, err);
    if (!r->options.is_json) end_text(r);
    if (status != DS4_OK || r->is_broken) return status;
    if (r->options.is_json) DS4_TRY(write_json(r, err));
    if (r->options.save) DS4_TRY(ds4_session_save(r->session, r->options.save, err));
    show_stats(r);
    return DS4_OK;
}

int run_main(int argc, char **argv) {
    run_state r = {0};
    int exit_status;
    if (!run_options_parse(&r.options, argc, argv, &exit_status)) return exit_status;

    ds4_error err = {0};
    ds4_status status = run(&r, &err);
    exit_status = status != DS4_OK ? io_fail("run", &err) : r.is_broken ? APP_ERROR : APP_OK;
    if (status == DS4_OK && r.was_interrupted) exit_status = APP_INTERRUPTED;
    ds4_session_destroy(r.session);
    ds4_engine_close(r.engine);
    id_list_release(&r.prompt);
    record_release(&r.made);
    return exit_status;
}
