/* logits.c - ds4 logits: rows of float32, for comparison with other implementations. */
#include <ds4.h>
#include <stdlib.h>
#include <string.h>

#include "app/commands.h"
#include "app/engine_flags.h"
#include "app/interrupt.h"
#include "app/io.h"

typedef struct {
    engine_flags engine;
    const char  *tokens;
    const char  *output;
    uint32_t     n_chunk; /* rows of a step; 0: the engine's own choice */
    bool         has_all;
} settings;

static const option TABLE[] = {
    {0, "tokens", OPTION_STRING, "IDS", offsetof(settings, tokens),
     .help = "Token ids, separated by commas; @FILE reads them from a file. Required."},
    {'o', "output", OPTION_STRING, "FILE", offsetof(settings, output),
     .help = "Where the rows go; - is stdout. The file appears when it is complete. Required."},
    {0, "all", OPTION_SWITCH, NULL, offsetof(settings, has_all),
     .help = "One row after every token, in order; without it only the row after the last one."},
    {0, "chunk", OPTION_UINT32, "N", offsetof(settings, n_chunk), .max = 65536,
     .help = "Tokens read in one step; 0: the engine's choice. The result does not depend on it."},
};

static const manual PAGE = {
    .name = "logits",
    .summary = "the numbers behind the next token",
    .synopsis = "logits [-m MODEL] --tokens IDS [--all] [--chunk N] -o FILE",
    .description = "Evaluates the tokens as they are, without frame or begin marker, and writes one row of "
                   "logits for each position asked for: float32, little-endian, as many as the model "
                   "has tokens, nothing between rows. Without -c the context is as long as the list.",
    .files = "FILE.tmp.PID  the output while it is being written",
    .examples = "ds4 logits --tokens 0,1,2,3 -o last.f32\n"
                "ds4 logits -m model.gguf --tokens @ids.json --numerics plain --all -o rows.f32",
};

/* Rows on their way to the file; the callback cannot fail, so it remembers. */
typedef struct {
    io_output *output;
    uint8_t   *row; /* one row as bytes */
    uint32_t   n_vocab;
    uint64_t   n_rows;
    ds4_engine *engine;
    ds4_status status;
    ds4_error *err;
} sink;

static void write_row(void *user, size_t pos, const float *logits) {
    sink *s = user;
    (void)pos;
    if (s->status != DS4_OK) return;
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof bits);
        for (int k = 0; k < 4; k++) s->row[4 * (size_t)i + k] = (uint8_t)(bits >> 8 * k);
    }
    s->status = io_output_write(s->output, s->row, 4 * (size_t)s->n_vocab, s->err);
    s->n_rows++;
    if (s->status != DS4_OK) ds4_engine_cancel(s->engine); /* a full disk: no reason to go on */
}

static ds4_status evaluate(ds4_engine *engine, const settings *set, const id_list *ids,
                           io_output *output, ds4_error *err) {
    ds4_session *session = NULL;
    ds4_error write_error = {0};
    sink s = {.output = output, .n_vocab = ds4_engine_info(engine)->n_vocab, .engine = engine,
              .err = &write_error};
    s.row = malloc(4 * (size_t)s.n_vocab);
    ds4_status status = s.row ? DS4_OK : ds4_fail_nomem(err, "logits", 4 * (size_t)s.n_vocab);
    if (status == DS4_OK) status = ds4_session_create(&session, engine, err);
    if (status == DS4_OK) status = ds4_session_append(session, ids->data, ids->n, err);
    if (status == DS4_OK)
        status = ds4_session_evaluate(session, set->has_all ? write_row : NULL, &s, err);
    if (status == DS4_OK && !set->has_all) write_row(&s, ids->n - 1, ds4_session_logits(session));
    if (s.status != DS4_OK) {
        status = s.status;
        if (err) *err = write_error;
    }
    if (status == DS4_OK)
        fprintf(stderr, "ds4 logits: %llu rows of %u\n", (unsigned long long)s.n_rows, s.n_vocab);
    ds4_session_destroy(session);
    free(s.row);
    return status;
}

static ds4_status run(settings *set, bool *was_interrupted, ds4_error *err) {
    id_list ids = {0};
    io_output output = {0};
    ds4_engine *engine = NULL;
    ds4_engine_options options;

    ds4_status status = id_list_from_option(&ids, set->tokens, err);
    if (status == DS4_OK && ids.n == 0) status = ds4_fail(err, DS4_EINVAL, "--tokens: the list is empty");
    if (status == DS4_OK) status = engine_flags_resolve(&set->engine, &options, err);
    if (status != DS4_OK) goto done;

    if (!set->engine.has_ctx) options.n_ctx = (uint32_t)ids.n;
    if (set->n_chunk) options.n_step_rows = set->n_chunk;
    status = ds4_engine_open(&engine, set->engine.path, &options, err);
    if (status == DS4_OK) status = io_output_open(&output, set->output, err);
    if (status != DS4_OK) goto done;

    interrupt_begin(engine);
    status = evaluate(engine, set, &ids, &output, err);
    *was_interrupted = interrupt_seen();
    interrupt_end();
    if (status == DS4_OK) status = io_output_commit(&output, err);
done:
    io_output_release(&output);
    ds4_engine_close(engine);
    id_list_release(&ids);
    return status;
}

int logits_main(int argc, char **argv) {
    settings set = {.engine = engine_flags_defaults()};
    const option_group groups[] = {OPTION_GROUP("OPTIONS", TABLE, &set),
                                   engine_flags_group(&set.engine)};
    int exit_status;
    if (!options_parse(&PAGE, groups, 2, argc, argv, &exit_status)) return exit_status;

    ds4_error err = {0};
    bool was_interrupted = false;
    ds4_status status = DS4_OK;
    if (!set.tokens) status = ds4_fail(&err, DS4_EINVAL, "--tokens is missing");
    else if (!set.output) status = ds4_fail(&err, DS4_EINVAL, "-o is missing");
    if (status == DS4_OK) status = run(&set, &was_interrupted, &err);
    if (status == DS4_OK) return APP_OK;
    io_fail("logits", &err);
    return was_interrupted ? APP_INTERRUPTED : APP_ERROR;
}
