/* bench.c - ds4 bench: prefill and decode at context frontiers, the median of several walks. */
#include <ds4.h>
#include <stdlib.h>
#include <string.h>

#include "app/bench/measure.h"
#include "app/bench/report.h"
#include "app/commands.h"
#include "app/engine_flags.h"
#include "app/interrupt.h"
#include "app/io.h"

enum { MAX_REPEATS = 100 };

typedef struct {
    engine_flags engine;
    const char  *frontiers;
    const char  *file; /* text of the prompt */
    uint32_t     n_generate;
    uint32_t     n_repeats;
    uint32_t     n_chunk;
    bool         is_json;
    bool         is_quiet;
} settings;

static const option TABLE[] = {
    {0, "frontiers", OPTION_STRING, "N,N,...", offsetof(settings, frontiers),
     .help = "Context lengths, in tokens, rising: prefill is timed from one to the next, decode "
             "at each."},
    {'n', "generate", OPTION_UINT32, "N", offsetof(settings, n_generate), .max = 1e6,
     .help = "Tokens generated at each frontier; the first needs no forward pass of its own and does "
             "not count. 0: no decode."},
    {'r', "repeats", OPTION_UINT32, "N", offsetof(settings, n_repeats), .min = 1, .max = MAX_REPEATS,
     .help = "Walks along all frontiers; every figure is the median of them."},
    {'f', "file", OPTION_STRING, "FILE", offsetof(settings, file),
     .help = "Text to read, repeated as needed; without it evenly spread token ids."},
    {0, "chunk", OPTION_UINT32, "N", offsetof(settings, n_chunk), .max = 65536,
     .help = "Tokens read in one step; 0: the engine's choice."},
    {0, "json", OPTION_SWITCH, NULL, offsetof(settings, is_json),
     .help = "Writes one JSON object instead of CSV."},
    {'q', "quiet", OPTION_SWITCH, NULL, offsetof(settings, is_quiet), .help = "No progress on stderr."},
};

static const manual PAGE = {
    .name = "bench",
    .summary = "speed of prefill and decode at several context lengths",
    .synopsis = "bench [-m MODEL] [--frontiers N,N,...] [-n N] [-r N] [--json]",
    .description =
        "Walks a session along the frontiers: reads the prompt up to one, generates greedily behind it "
        "(also past the end of the turn), reads on to the next. Generated tokens stay in the context, "
        "so nothing is evaluated twice. Lines that begin with # tell machine, build and model; then CSV "
        "with a line of column names. Times are wall-clock seconds. Without -c the context is as "
        "large as the last frontier needs.",
    .examples = "ds4 bench -m model.gguf --frontiers 0,512,2048,8192\n"
                "ds4 bench -t 2 -r 5 --json > bench.json",
};

/* ---- what to measure ---- */

static ds4_status read_frontiers(uint32_t *frontiers, size_t *n, const char *text, ds4_error *err) {
    id_list list = {0};
    ds4_status status = id_list_parse(&list, text, strlen(text), "--frontiers", err);
    if (status == DS4_OK && (list.n == 0 || list.n > MEASURE_MAX_FRONTIERS))
        status = ds4_fail(err, DS4_EINVAL, "--frontiers: found %zu, expected 1 to %d", list.n,
                          MEASURE_MAX_FRONTIERS);
    for (size_t i = 0; status == DS4_OK && i < list.n; i++) frontiers[i] = (uint32_t)list.data[i];
    if (status == DS4_OK) *n = list.n;
    id_list_release(&list);
    return status;
}

/* Ids all over the vocabulary, so that many experts take part; the same on every machine. */
static ds4_status spread_ids(id_list *ids, const ds4_model_info *model, ds4_error *err) {
    enum { N_IDS = 8192, N_FIRST = 3 /* behind the markers at the start */ };
    uint64_t x = 1;
    if (!id_list_add(ids, model->bos)) return ds4_fail_nomem(err, "prompt", N_IDS);
    for (int i = 1; i < N_IDS; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        uint32_t span = model->n_vocab > 2 * N_FIRST ? model->n_vocab - N_FIRST : 1;
        int32_t id = (int32_t)(N_FIRST + (x >> 33) % span);
        if (!id_list_add(ids, id < (int32_t)model->n_vocab ? id : 0))
            return ds4_fail_nomem(err, "prompt", N_IDS);
    }
    return DS4_OK;
}

static ds4_status text_ids(id_list *ids, const ds4_engine *engine, const char *path, ds4_error *err) {
    strbuf text = {0};
    id_list made = {0};
    ds4_status status = io_read(&text, path, err);
    if (status == DS4_OK) status = io_make_valid(&text, err);
    if (status == DS4_OK)
        status = ds4_tokenize(engine, &made.data, &made.n, text.data, text.n, false, err);
    if (status == DS4_OK && made.n == 0)
        status = ds4_fail(err, DS4_EINVAL, "%s: the text is empty", path);
    for (size_t i = 0; status == DS4_OK && i < made.n; i++)
        if (!id_list_add(ids, made.data[i])) status = ds4_fail_nomem(err, path, made.n);
    ds4_free(made.data);
    strbuf_release(&text);
    return status;
}

/* ---- measuring ---- */

static int compare_seconds(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, compare_seconds);
    return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

/* All walks; leaves the medians in points. */
static ds4_status repeat(measure_point *points, size_t n, ds4_engine *engine, const id_list *ids,
                         const settings *set, ds4_error *err) {
    double prefill[MEASURE_MAX_FRONTIERS][MAX_REPEATS], decode[MEASURE_MAX_FRONTIERS][MAX_REPEATS];
    for (uint32_t r = 0; r < set->n_repeats; r++) {
        ds4_session *session;
        DS4_TRY(ds4_session_create(&session, engine, err));
        ds4_status status = measure_walk(points, n, session, ids->data, ids->n, set->n_generate, err);
        ds4_session_destroy(session);
        if (status != DS4_OK) return status;
        for (size_t i = 0; i < n; i++) {
            prefill[i][r] = points[i].prefill_s;
            decode[i][r] = points[i].decode_s;
        }
        if (!set->is_quiet) fprintf(stderr, "ds4 bench: walk %u of %u done\n", r + 1, set->n_repeats);
    }
    for (size_t i = 0; i < n; i++) {
        points[i].prefill_s = median(prefill[i], set->n_repeats);
        points[i].decode_s = median(decode[i], set->n_repeats);
    }
    return DS4_OK;
}

static ds4_status write_report(const report *r, bool is_json, ds4_error *err) {
    strbuf out = {0};
    if (is_json) report_write_json(&out, r);
    else report_write_csv(&out, r);
    ds4_status status = strbuf_check(&out, "report", err);
    if (status == DS4_OK) io_put(out.data, out.n);
    strbuf_release(&out);
    return status;
}

static ds4_status run(settings *set, bool *was_interrupted, ds4_error *err) {
    uint32_t frontiers[MEASURE_MAX_FRONTIERS];
    measure_point points[MEASURE_MAX_FRONTIERS];
    size_t n = 0;
    ds4_engine_options options;
    DS4_TRY(read_frontiers(frontiers, &n, set->frontiers, err));
    DS4_TRY(measure_plan(points, frontiers, n, set->n_generate, err));
    DS4_TRY(engine_flags_resolve(&set->engine, &options, err));
    if (!set->engine.has_ctx) options.n_ctx = measure_n_ctx(points, n, set->n_generate);
    if (set->n_chunk) options.n_step_rows = set->n_chunk;

    ds4_engine *engine = NULL;
    id_list ids = {0};
    ds4_status status = ds4_engine_open(&engine, set->engine.path, &options, err);
    if (status == DS4_OK)
        status = set->file ? text_ids(&ids, engine, set->file, err)
                           : spread_ids(&ids, ds4_engine_info(engine), err);
    if (status == DS4_OK) {
        interrupt_begin(engine);
        status = repeat(points, n, engine, &ids, set, err);
        *was_interrupted = status == DS4_ECANCELED && interrupt_seen();
        interrupt_end();
    }
    if (status == DS4_OK) {
        report r = {
            .model_path = set->engine.path,
            .numerics = set->engine.numerics == DS4_NUMERICS_PLAIN ? "plain" : "model",
            .model = ds4_engine_info(engine),
            .memory = ds4_engine_memory(engine),
            .n_repeats = set->n_repeats,
            .n_chunk = options.n_step_rows,
            .points = points,
            .n_points = n,
        };
        machine_read(&r.machine);
        status = write_report(&r, set->is_json, err);
    }
    ds4_engine_close(engine);
    id_list_release(&ids);
    return status;
}

int bench_main(int argc, char **argv) {
    settings set = {.engine = engine_flags_defaults(), .frontiers = "0,512,2048", .n_generate = 33,
                    .n_repeats = 3};
    const option_group groups[] = {OPTION_GROUP("OPTIONS", TABLE, &set),
                                   engine_flags_group(&set.engine)};
    int exit_status;
    if (!options_parse(&PAGE, groups, 2, argc, argv, &exit_status)) return exit_status;

    ds4_error err = {0};
    bool was_interrupted = false;
    ds4_status status = set.n_generate == 1
                            ? ds4_fail(&err, DS4_EINVAL, "-n: found 1, expected 0 or at least 2")
                            : run(&set, &was_interrupted, &err);
    if (status == DS4_OK) return APP_OK;
    io_fail("bench", &err);
    return was_interrupted ? APP_INTERRUPTED : APP_ERROR;
}
