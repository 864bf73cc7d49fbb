/* What a session holds, exactly: saved and loaded in every state, rewound, and canceled in the
 * middle of a step, it goes on as one to which nothing happened. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mapfile.h"
#include "format/snapshot.h"
#include "model/forward_private.h"
#include "runtime/runtime.h"
#include "tests/support/tiny.h"

enum { N_PROMPT = 90, N_GENERATE = 6, N_MODELS = TINY_HASTE > 1 ? 1 : 2 };

/* A model, its options and tokens to draw prompts from. */
typedef struct {
    tiny_model m;
    ds4_engine_options options;
    int32_t prompt[TINY_MAX_TOKENS], other[TINY_MAX_TOKENS];
} stage;

static void stage_open(stage *g, uint64_t seed) {
    randmodel_shape shape = tiny_shape(seed);
    tiny_write(&g->m, &shape, seed);
    g->options = tiny_options(&g->m);
    tiny_tokens(&g->m, g->prompt, TINY_MAX_TOKENS, seed + 1);
    tiny_tokens(&g->m, g->other, TINY_MAX_TOKENS, seed + 2);
}

static void append(ds4_session *s, const int32_t *ids, size_t n) {
    ds4_error err;
    tiny_ok(ds4_session_append(s, ids, n, &err), &err, "append");
}

static void evaluate(ds4_session *s) {
    ds4_error err;
    tiny_ok(ds4_session_evaluate(s, NULL, NULL, &err), &err, "evaluate");
}

static void rewind_to(ds4_session *s, size_t n) {
    ds4_error err;
    tiny_ok(ds4_session_rewind(s, n, &err), &err, "rewind");
}

static bool step(ds4_session *s) {
    ds4_error err;
    bool has_work;
    tiny_ok(ds4_engine_step(s->engine, &has_work, &err), &err, "step");
    return has_work;
}

static void start(ds4_session *s, tiny_record *r, uint32_t n) {
    ds4_error err;
    ds4_generation how = tiny_greedy(r, n);
    tiny_ok(ds4_session_start(s, &how, &err), &err, "start");
}

static size_t n_tokens_of(const ds4_session *s) {
    size_t n;
    ds4_session_tokens(s, &n);
    return n;
}

/* What a fresh session says that goes on from these tokens. */
static void expect_from(tiny_record *r, const stage *g, const ds4_session *s, const int32_t *more,
                        size_t n_more, uint32_t n_generate) {
    int32_t ids[TINY_MAX_TOKENS];
    size_t n;
    const int32_t *tokens = ds4_session_tokens(s, &n);
    memcpy(ids, tokens, n * sizeof *ids);
    memcpy(ids + n, more, n_more * sizeof *ids);
    ds4_engine_options plain = g->options;
    tiny_expect(r, &g->m, &plain, &(tiny_talk){ids, n + n_more, n_generate});
}

/* Adds tokens to a session in any state, goes on, and compares with a fresh one. */
static void check_goes_on(const stage *g, ds4_session *s, size_t n_more, const char *what) {
    tiny_record found, expected;
    ds4_error err;
    tiny_record_init(&found, s->engine);
    expect_from(&expected, g, s, g->other, n_more, N_GENERATE);
    append(s, g->other, n_more);
    if (n_more > 0)
        tiny_ok(ds4_session_evaluate(s, tiny_hear_logits, &found, &err), &err, "evaluate");
    ds4_generation how = tiny_greedy(&found, N_GENERATE);
    tiny_ok(ds4_session_generate(s, &how, &err), &err, "generate");
    evaluate(s);
    tiny_take_logits(&found, s);
    size_t end = n_tokens_of(s);
    tiny_same(&found, &expected, end - 1, end, g->options.use_mtp, &g->m, "%s, %zu tokens more",
              what, n_more);
    tiny_record_release(&found);
    tiny_record_release(&expected);
}

/* ---- states ---- */

static tiny_record heard; /* of what make functions generate; nobody compares it */

static void make_empty(const stage *g, ds4_session *s) {
    (void)g, (void)s;
}

static void make_appended(const stage *g, ds4_session *s) {
    append(s, g->prompt, 50);
}

static void make_mid_prompt(const stage *g, ds4_session *s) {
    append(s, g->prompt, N_PROMPT);
    step(s);
    step(s);
}

static void make_evaluated(const stage *g, ds4_session *s) {
    append(s, g->prompt, N_PROMPT);
    evaluate(s);
}

static void make_pending(const stage *g, ds4_session *s) {
    make_evaluated(g, s);
    append(s, g->other, 3);
}

static void make_generated(const stage *g, ds4_session *s) {
    ds4_error err;
    append(s, g->prompt, 40);
    ds4_generation how = tiny_greedy(&heard, 9);
    tiny_ok(ds4_session_generate(s, &how, &err), &err, "generate");
}

static void make_mid_generation(const stage *g, ds4_session *s) {
    append(s, g->prompt, 17);
    start(s, &heard, 20);
    while (n_tokens_of(s) < 17 + 6) step(s);
}

static void make_rewound(const stage *g, ds4_session *s) {
    make_generated(g, s);
    rewind_to(s, n_tokens_of(s) - 7);
}

static void make_rewound_further(const stage *g, ds4_session *s) {
    make_rewound(g, s);
    append(s, g->other, 5);
    evaluate(s);
    rewind_to(s, n_tokens_of(s) - 8);
}

static void make_rewound_to_evaluated(const stage *g, ds4_session *s) {
    make_mid_prompt(g, s);
    rewind_to(s, ds4_session_n_evaluated(s));
}

/* The logits it once had are of another position. */
static void make_rewound_into_second_prompt(const stage *g, ds4_session *s) {
    append(s, g->prompt, 30);
    evaluate(s);
    append(s, g->other, 60);
    step(s);
    rewind_to(s, ds4_session_n_evaluated(s));
}

static void make_rewound_far(const stage *g, ds4_session *s) {
    make_generated(g, s);
    rewind_to(s, n_tokens_of(s) - 30);
}

static void make_canceled(const stage *g, ds4_session *s) {
    append(s, g->prompt, 60);
    step(s);
    ds4_engine_cancel(s->engine);
    assert_int_equal(ds4_engine_step(s->engine, NULL, NULL), DS4_ECANCELED);
}

static const struct {
    const char *what;
    void (*make)(const stage *g, ds4_session *s);
} states[] = {
    {"empty", make_empty},
    {"appended", make_appended},
    {"in the middle of the prompt", make_mid_prompt},
    {"evaluated", make_evaluated},
    {"with a few tokens to evaluate", make_pending},
    {"after a generation", make_generated},
    {"in the middle of a generation", make_mid_generation},
    {"rewound", make_rewound},
    {"rewound twice", make_rewound_further},
    {"rewound to what is evaluated", make_rewound_to_evaluated},
    {"rewound into a second prompt", make_rewound_into_second_prompt},
    {"rewound to the start", make_rewound_far},
    {"canceled", make_canceled},
};
enum { N_STATES = sizeof states / sizeof *states };

/* For every state: fn. */
static void for_states(uint64_t seed, uint32_t n_step_rows,
                       void (*fn)(stage *g, ds4_session *s, const char *what)) {
    stage g;
    stage_open(&g, seed);
    g.options.n_step_rows = n_step_rows;
    for (int i = 0; i < N_STATES; i++) {
        ds4_engine *e = tiny_open(&g.m, &g.options);
        ds4_session *s = tiny_session(e);
        tiny_record_init(&heard, e);
        states[i].make(&g, s);
        fn(&g, s, states[i].what);
        tiny_record_release(&heard);
        ds4_session_destroy(s);
        ds4_engine_close(e);
    }
    tiny_remove(&g.m);
}

/* From every state every continuation: tokens or none, then a generation. */
static void check_state(stage *g, ds4_session *s, const char *what) {
    if (s->is_generating) rewind_to(s, n_tokens_of(s));
    check_goes_on(g, s, n_tokens_of(s) == 0 ? 4 : 0, what);
    check_goes_on(g, s, 5, what);
    if (TINY_HASTE > 1) return;
    rewind_to(s, n_tokens_of(s) - 6);
    check_goes_on(g, s, 0, what);
    check_goes_on(g, s, 40, what);
}

static void test_states(void **state) {
    (void)state;
    for (uint64_t i = 0; i < N_MODELS; i++) for_states(1 + i, i == 1 ? 7 : 20, check_state);
}

/* ---- saving ---- */

static void assert_same_file(const stage *g, const char *a, const char *b, const char *what) {
    mapfile fa, fb;
    ds4_error err;
    tiny_ok(mapfile_open(&fa, a, &err), &err, "open");
    tiny_ok(mapfile_open(&fb, b, &err), &err, "open");
    if (fa.n != fb.n || memcmp(fa.data, fb.data, fa.n) != 0)
        fail_msg("model of seed %llu: files of %zu and %zu bytes differ: %s",
                 (unsigned long long)g->m.seed, fa.n, fb.n, what);
    mapfile_close(&fa);
    mapfile_close(&fb);
}

static void assert_same_session(const ds4_session *a, const ds4_session *b, const char *what) {
    size_t n, n_b;
    const int32_t *ids = ds4_session_tokens(a, &n), *ids_b = ds4_session_tokens(b, &n_b);
    const float *logits = ds4_session_logits(a), *logits_b = ds4_session_logits(b);
    if (n != n_b || memcmp(ids, ids_b, n * sizeof *ids) != 0 ||
        ds4_session_n_evaluated(a) != ds4_session_n_evaluated(b))
        fail_msg("session %s: loaded with other tokens", what);
    if (!logits != !logits_b ||
        (logits && memcmp(logits, logits_b, a->engine->shape.n_vocab * sizeof *logits) != 0))
        fail_msg("session %s: loaded with other logits", what);
}

/* Saved, loaded where everything but model and numerics is different, saved again: the same file;
 * and both sessions go on alike. The target held something else before. */
static void check_saved(stage *g, ds4_session *s, const char *what) {
    char path[300], again[300];
    ds4_error err;
    tiny_path(&g->m, path, "saved");
    tiny_path(&g->m, again, "again");
    tiny_ok(ds4_session_save(s, path, &err), &err, "save");

    ds4_engine_options o = g->options;
    o.n_ctx = 200;
    o.n_sessions = 3;
    o.n_step_rows = 33;
    o.n_threads = 2;
    o.kernels = NULL;
    ds4_engine *e = tiny_open(&g->m, &o);
    ds4_session *idle = tiny_session(e), *loaded = tiny_session(e);
    append(loaded, g->other, 100);
    evaluate(loaded);
    tiny_ok(ds4_session_load(loaded, path, &err), &err, "load");
    assert_same_session(s, loaded, what);
    tiny_ok(ds4_session_save(loaded, again, &err), &err, "save");
    assert_same_file(g, path, again, what);

    check_state(g, loaded, what);
    check_state(g, s, what);
    ds4_session_destroy(idle);
    ds4_session_destroy(loaded);
    ds4_engine_close(e);
}

static void test_saved_states(void **state) {
    (void)state;
    for (uint64_t i = 0; i < N_MODELS; i++) for_states(1 + i, i == 1 ? 7 : 20, check_saved);
}

/* Reads n tokens of which the last few are generated or not, and saves. */
static void save_after(const stage *g, uint32_t n_step_rows, size_t n_first, size_t n,
                       bool is_generated, const char *path) {
    ds4_engine_options o = g->options;
    tiny_record r;
    ds4_error err;
    o.n_step_rows = n_step_rows;
    ds4_engine *e = tiny_open(&g->m, &o);
    ds4_session *s = tiny_session(e);
    tiny_record_init(&r, e);
    append(s, g->prompt, n_first);
    evaluate(s);
    append(s, g->prompt + n_first, n - n_first);
    if (is_generated) {
        ds4_generation how = tiny_greedy(&r, N_GENERATE);
        tiny_ok(ds4_session_generate(s, &how, &err), &err, "generate");
    }
    evaluate(s);
    tiny_ok(ds4_session_save(s, path, &err), &err, "save");
    tiny_record_release(&r);
    ds4_session_destroy(s);
    ds4_engine_close(e);
}

/* The caches, with them the MTP block's, are the same bytes for any chunks: stronger than that all
 * logits and drafts are. */
static void test_same_file_whatever_the_chunks(void **state) {
    (void)state;
    static const struct {
        uint32_t n_step_rows;
        size_t n_first; /* the MTP block lags a row behind when the others come */
    } ways[] = {{1, 0},   {2, 73},  {5, 41},  {15, 70}, {16, 70}, {17, 73}, {17, 0},
                {18, 70}, {18, 72}, {19, 71}, {33, 0},  {33, 60}, {90, 60}, {90, 72}};
    for (uint64_t i = 0; i < 2 * N_MODELS; i++) {
        stage g;
        char path[300], other[300], what[100];
        bool is_generated = i / 2 % 2;
        stage_open(&g, 30 + i);
        tiny_path(&g.m, path, "saved");
        tiny_path(&g.m, other, "other");
        save_after(&g, TINY_MAX_TOKENS, 0, N_PROMPT, is_generated, path);
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            save_after(&g, ways[w].n_step_rows, ways[w].n_first, N_PROMPT, is_generated, other);
            snprintf(what, sizeof what, "%u rows a step, %zu tokens first", ways[w].n_step_rows,
                     ways[w].n_first);
            assert_same_file(&g, path, other, what);
        }
        tiny_remove(&g.m);
    }
}

/* A draft right after loading is made of the loaded streams, not of what the slot held before. */
static void test_first_draft_after_load(void **state) {
    (void)state;
    stage g;
    stage_open(&g, 1);
    assert_true(g.options.use_mtp);
    char path[300];
    ds4_error err;
    ds4_engine *e = tiny_open(&g.m, &g.options);
    ds4_session *s = tiny_session(e);
    append(s, g.prompt, 50);
    evaluate(s);
    tiny_ok(ds4_session_save(s, tiny_path(&g.m, path, "saved"), &err), &err, "save");
    rewind_to(s, 0);
    append(s, g.other, 50);
    evaluate(s);
    tiny_ok(ds4_session_load(s, path, &err), &err, "load");
    check_goes_on(&g, s, 0, "loaded over another session");
    ds4_session_destroy(s);
    ds4_engine_close(e);
    tiny_remove(&g.m);
}

/* Fails to load with this code and leaves the session as it was. */
static void check_refused(ds4_session *s, const char *path, ds4_status code, const char *what) {
    ds4_error err = {0};
    size_t n = n_tokens_of(s), n_evaluated = ds4_session_n_evaluated(s);
    ds4_status status = ds4_session_load(s, path, &err);
    if (status != code)
        fail_msg("%s: found %s, expected %s: %s", what, ds4_status_name(status),
                 ds4_status_name(code), err.message);
    assert_int_equal(err.code, code);
    assert_int_equal(n_tokens_of(s), n);
    assert_int_equal(ds4_session_n_evaluated(s), n_evaluated);
}

static void test_refused_files(void **state) {
    (void)state;
    stage g, foreign;
    stage_open(&g, 3);
    stage_open(&foreign, 4);
    char path[300], other_path[300], none[300];
    ds4_error err;
    tiny_path(&g.m, path, "saved");
    tiny_path(&foreign.m, other_path, "saved");
    tiny_path(&g.m, none, "none");

    ds4_engine *e = tiny_open(&g.m, &g.options);
    ds4_session *s = tiny_session(e);
    append(s, g.prompt, 80);
    evaluate(s);
    tiny_ok(ds4_session_save(s, path, &err), &err, "save");
    check_refused(s, none, DS4_EIO, "no file");
    check_refused(s, g.m.path, DS4_EFORMAT, "a model");
    check_goes_on(&g, s, 3, "after refused files");
    ds4_session_destroy(s);
    ds4_engine_close(e);

    ds4_engine_options o = g.options;
    o.n_ctx = 79;
    e = tiny_open(&g.m, &o);
    s = tiny_session(e);
    append(s, g.other, 20);
    evaluate(s);
    check_refused(s, path, DS4_EFULL, "a context too small");
    check_goes_on(&g, s, 3, "after a file too long");
    ds4_session_destroy(s);
    ds4_engine_close(e);

    o.n_ctx = 80; /* just enough */
    e = tiny_open(&g.m, &o);
    s = tiny_session(e);
    tiny_ok(ds4_session_load(s, path, &err), &err, "load");
    assert_non_null(ds4_session_logits(s));
    ds4_session_destroy(s);
    ds4_engine_close(e);

    o = g.options;
    o.numerics = DS4_NUMERICS_PLAIN;
    e = tiny_open(&g.m, &o);
    s = tiny_session(e);
    check_refused(s, path, DS4_EFORMAT, "other numerics");
    ds4_session_destroy(s);
    ds4_engine_close(e);

    o = g.options;
    o.use_mtp = false;
    e = tiny_open(&g.m, &o);
    s = tiny_session(e);
    if (g.options.use_mtp) check_refused(s, path, DS4_EFORMAT, "with MTP, into an engine without");
    tiny_ok(ds4_session_save(s, path, &err), &err, "save");
    ds4_session_destroy(s);
    ds4_engine_close(e);

    e = tiny_open(&foreign.m, &foreign.options);
    s = tiny_session(e);
    tiny_ok(ds4_session_save(s, other_path, &err), &err, "save");
    ds4_session_destroy(s);
    ds4_engine_close(e);
    e = tiny_open(&g.m, &g.options);
    s = tiny_session(e);
    check_refused(s, other_path, DS4_EFORMAT, "another model");
    ds4_session_destroy(s);
    ds4_engine_close(e);
    tiny_remove(&g.m);
    tiny_remove(&foreign.m);
}

enum { TAG_STATE = 0x54415453, TAG_LOGITS = 0x54474F4C };

/* Copies a session file with the section left out (n 0), or replaced. */
static void copy_file(const char *to, const char *from, uint64_t fingerprint, uint32_t changed_tag,
                      const void *data, size_t n) {
    static const uint32_t tags[] = {TAG_STATE, 0x4E4B4F54, 0x4143564B, 0x4D525453, TAG_LOGITS};
    snapshot *in;
    snapshot_writer *out;
    ds4_error err;
    tiny_ok(snapshot_open(&in, from, fingerprint, &err), &err, "open");
    tiny_ok(snapshot_writer_create(&out, to, fingerprint, &err), &err, "create");
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        const uint8_t *old;
        size_t n_old;
        bool is_changed = tags[i] == changed_tag;
        if (!snapshot_find(in, tags[i], &old, &n_old) || (is_changed && n == 0)) continue;
        snapshot_begin(out, tags[i]);
        if (is_changed)
            snapshot_write(out, data, n);
        else
            snapshot_write(out, old, n_old);
        snapshot_end(out);
    }
    tiny_ok(snapshot_finish(out, &err), &err, "finish");
    snapshot_writer_destroy(out);
    snapshot_close(in);
}

/* Whole files, checksums and all, that say what no session can be in. */
static void test_impossible_files(void **state) {
    (void)state;
    stage g;
    stage_open(&g, 3);
    char path[300], bad[300];
    ds4_error err;
    tiny_path(&g.m, path, "saved");
    tiny_path(&g.m, bad, "bad");
    ds4_engine *e = tiny_open(&g.m, &g.options);
    ds4_session *s = tiny_session(e);
    uint64_t fingerprint = ds4_engine_info(e)->fingerprint;
    append(s, g.prompt, 40);
    evaluate(s);
    tiny_ok(ds4_session_save(s, path, &err), &err, "save");

    uint32_t high = g.options.use_mtp ? 39 : 0;
    copy_file(bad, path, fingerprint, 0, NULL, 0);
    tiny_ok(ds4_session_load(s, bad, &err), &err, "an equal copy");
    copy_file(bad, path, fingerprint, TAG_LOGITS, NULL, 0);
    check_refused(s, bad, DS4_EFORMAT, "all evaluated, no logits");
    const uint32_t states_of_40[][4] = {
        {40, 41, 41, high},
        {40, 40, 39, high},
        {40, 40, 40, 41},
        {40, 40, 40000000, high},
        {40, 40, 57, high},
        {UINT32_MAX, 40, 40, high},
        {40, UINT32_MAX, UINT32_MAX, high},
    };
    for (size_t i = 0; i < sizeof states_of_40 / sizeof *states_of_40; i++) {
        copy_file(bad, path, fingerprint, TAG_STATE, states_of_40[i], sizeof states_of_40[i]);
        ds4_status status = ds4_session_load(s, bad, &err);
        if (status != DS4_EFORMAT && status != DS4_EFULL) fail_msg("state %zu was taken", i);
    }
    check_goes_on(&g, s, 3, "after impossible files");
    ds4_session_destroy(s);
    ds4_engine_close(e);
    tiny_remove(&g.m);
}

/* A session that holds more positions than it has tokens, as after a rewind, fits into a context of
 * its tokens. */
static void test_load_rewound_into_small_context(void **state) {
    (void)state;
    stage g;
    char path[300];
    ds4_error err;
    stage_open(&g, 5);
    ds4_engine *e = tiny_open(&g.m, &g.options);
    ds4_session *s = tiny_session(e);
    append(s, g.prompt, 60);
    evaluate(s);
    rewind_to(s, 50);
    tiny_ok(ds4_session_save(s, tiny_path(&g.m, path, "saved"), &err), &err, "save");
    ds4_session_destroy(s);
    ds4_engine_close(e);

    ds4_engine_options o = g.options;
    o.n_ctx = 59;
    e = tiny_open(&g.m, &o);
    s = tiny_session(e);
    tiny_ok(ds4_session_load(s, path, &err), &err, "load");
    check_goes_on(&g, s, 1, "rewound, in a small context");
    ds4_session_destroy(s);
    ds4_engine_close(e);
    tiny_remove(&g.m);
}

/* ---- rewinding ---- */

static void check_rewind(const stage *g, size_t n, size_t n_back, size_t n_more) {
    char what[80];
    ds4_engine *e = tiny_open(&g->m, &g->options);
    ds4_session *s = tiny_session(e);
    append(s, g->prompt, n);
    evaluate(s);
    rewind_to(s, n - n_back);
    assert_int_equal(n_tokens_of(s), n - n_back);
    bool is_near = n_back < FORWARD_SLACK && n_back < n;
    if (n_back > 0) assert_int_equal(ds4_session_n_evaluated(s), is_near ? n - n_back - 1 : 0);
    snprintf(what, sizeof what, "%zu tokens rewound by %zu", n, n_back);
    check_goes_on(g, s, n_more, what);
    ds4_session_destroy(s);
    ds4_engine_close(e);
}

static void test_rewind(void **state) {
    (void)state;
    static const size_t back[] = {0, 1, 2, 3, 4, 8, 15, 16, 17, 18, 33};
    for (uint64_t i = 0; i < N_MODELS; i++) {
        stage g;
        stage_open(&g, 10 + i);
        for (size_t b = 0; b < sizeof back / sizeof *back; b++) {
            check_rewind(&g, 64, back[b], 0);
            check_rewind(&g, 61 + b, back[b], back[b] % 2 ? 30 : 2);
        }
        check_rewind(&g, 5, 4, 0);
        check_rewind(&g, 5, 5, 7);
        tiny_remove(&g.m);
    }
}

/* Back and forth many times, always within reach of the highest position. */
static void test_rewind_again_and_again(void **state) {
    (void)state;
    stage g;
    stage_open(&g, 13);
    uint64_t random = 13;
    ds4_engine *e = tiny_open(&g.m, &g.options);
    ds4_session *s = tiny_session(e);
    append(s, g.prompt, 30);
    for (int round = 0; round < 40 / TINY_HASTE; round++) {
        evaluate(s);
        rewind_to(s, n_tokens_of(s) - tiny_below(&random, 19));
        append(s, g.other + tiny_below(&random, 300), 5 + tiny_below(&random, 8));
        if (round % 5 == 0) check_goes_on(&g, s, 1, "rewound many times");
    }
    ds4_session_destroy(s);
    ds4_engine_close(e);
    tiny_remove(&g.m);
}

static void test_rewind_beyond_the_end(void **state) {
    (void)state;
    stage g;
    stage_open(&g, 14);
    ds4_engine *e = tiny_open(&g.m, &g.options);
    ds4_session *s = tiny_session(e);
    append(s, g.prompt, 10);
    assert_int_equal(ds4_session_rewind(s, 11, NULL), DS4_EINVAL);
    check_goes_on(&g, s, 0, "after a refused rewind");
    ds4_session_destroy(s);
    ds4_engine_close(e);
    tiny_remove(&g.m);
}

/* ---- canceling ---- */

/* The device's table with an moe that counts its calls and asks to stop in one of them. */
static struct {
    backend_ops ops;
    const backend_ops *real;
    ds4_engine *e;
    uint32_t n_until; /* calls; 0: not at all */
} brake;              /* tables have no place for a pointer of ours */

static void braking_moe(backend *b, const moe_args *a) {
    if (brake.n_until > 0 && --brake.n_until == 0) ds4_engine_cancel(brake.e);
    brake.real->moe(b, a);
}

static void brake_install(ds4_engine *e) {
    brake.real = e->pass->ops;
    brake.ops = *brake.real;
    brake.ops.moe = braking_moe;
    brake.e = e;
    brake.n_until = 0;
    e->pass->ops = &brake.ops;
}

/* Steps until nothing is left, every step canceled in a random layer with even odds. */
static uint32_t step_with_cancels(const stage *g, ds4_engine *e, uint64_t *random) {
    uint32_t n_canceled = 0;
    for (bool has_work = true; has_work;) {
        ds4_error err = {0};
        brake.n_until = tiny_below(random, 2 * g->m.shape.n_layer + 1);
        ds4_status status = ds4_engine_step(e, &has_work, &err);
        if (status == DS4_ECANCELED)
            n_canceled++;
        else
            tiny_ok(status, &err, "step");
    }
    brake.n_until = 0;
    return n_canceled;
}

enum { N_GUESTS = 4 };

static void check_canceled_steps(const stage *g, uint32_t n_step_rows) {
    static const size_t n_prompt[N_GUESTS] = {150, 70, 9, 33};
    ds4_engine_options o = g->options;
    o.n_sessions = N_GUESTS;
    o.n_step_rows = n_step_rows;
    ds4_engine *e = tiny_open(&g->m, &o);
    ds4_session *s[N_GUESTS];
    tiny_record found[N_GUESTS];
    uint64_t random = g->m.seed;
    brake_install(e);
    for (int i = 0; i < N_GUESTS; i++) {
        s[i] = tiny_session(e);
        tiny_record_init(&found[i], e);
        append(s[i], g->prompt + 20 * i, n_prompt[i]);
        start(s[i], &found[i], N_GENERATE);
    }
    uint32_t n_canceled = step_with_cancels(g, e, &random);
    assert_true(n_canceled > 2);
    ds4_engine_cancel(e); /* undoes itself with the step it ends */
    assert_int_equal(ds4_engine_step(e, NULL, NULL), DS4_ECANCELED);
    for (int i = 0; i < N_GUESTS; i++) {
        tiny_record expected;
        size_t end = n_prompt[i] + N_GENERATE;
        tiny_expect(&expected, &g->m, &g->options,
                    &(tiny_talk){g->prompt + 20 * i, n_prompt[i], N_GENERATE});
        evaluate(s[i]);
        tiny_take_logits(&found[i], s[i]);
        tiny_same(&found[i], &expected, end - 1, end, o.use_mtp, &g->m,
                  "session %d of %d, %u steps canceled, %u rows a step", i, N_GUESTS, n_canceled,
                  n_step_rows);
        tiny_record_release(&expected);
        tiny_record_release(&found[i]);
        ds4_session_destroy(s[i]);
    }
    ds4_engine_close(e);
}

static void test_canceled_steps(void **state) {
    (void)state;
    for (uint64_t i = 0; i < N_MODELS; i++) {
        stage g;
        stage_open(&g, 20 + i);
        check_canceled_steps(&g, 4);
        check_canceled_steps(&g, 17);
        check_canceled_steps(&g, 64);
        tiny_remove(&g.m);
    }
}

/* A canceled step leaves everything that can be seen as it was, also for a rewind after it. */
static void check_cancel_then_rewind(const stage *g, size_t n_first, size_t n_then, size_t n_back) {
    char what[100];
    ds4_engine *e = tiny_open(&g->m, &g->options);
    ds4_session *s = tiny_session(e);
    brake_install(e);
    append(s, g->prompt, n_first);
    evaluate(s);
    append(s, g->other, n_then);
    brake.n_until = g->m.shape.n_layer - 1;
    assert_int_equal(ds4_engine_step(e, NULL, NULL), DS4_ECANCELED);
    assert_int_equal(ds4_session_n_evaluated(s), n_first);
    assert_int_equal(n_tokens_of(s), n_first + n_then);
    rewind_to(s, n_first - n_back);
    snprintf(what, sizeof what, "%zu tokens, %zu canceled, rewound by %zu", n_first, n_then,
             n_back);
    check_goes_on(g, s, 3, what);
    ds4_session_destroy(s);
    ds4_engine_close(e);
}

static void test_cancel_then_rewind(void **state) {
    (void)state;
    stage g;
    stage_open(&g, 24);
    static const size_t then[] = {1, 5, 15, 16, 17, 60};
    for (size_t i = 0; i < sizeof then / sizeof *then; i++) {
        check_cancel_then_rewind(&g, 70, then[i], 0);
        check_cancel_then_rewind(&g, 70, then[i], 1 + i);
        check_cancel_then_rewind(&g, 71, then[i], 14);
    }
    tiny_remove(&g.m);
}

/* Several prompts wait behind evaluated tokens: only one of them may overwrite what the others
 * need. */
static void test_cancel_with_many_prompts(void **state) {
    (void)state;
    stage g;
    stage_open(&g, 25);
    ds4_engine_options o = g.options;
    o.n_sessions = 3;
    ds4_engine *e = tiny_open(&g.m, &o);
    ds4_session *s[3];
    brake_install(e);
    for (int i = 0; i < 3; i++) {
        s[i] = tiny_session(e);
        append(s[i], g.prompt + 30 * i, 70);
        evaluate(s[i]);
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3; i++) append(s[i], g.other + 50 * i, 40);
        brake.n_until = g.m.shape.n_layer - 1;
        assert_int_equal(ds4_engine_step(e, NULL, NULL), DS4_ECANCELED);
        for (int i = 0; i < 3; i++) rewind_to(s[i], 70);
        for (int i = 0; i < 3; i++) {
            if ((i + round) % 3 == 0) check_goes_on(&g, s[i], 2, "one of three canceled prompts");
            rewind_to(s[i], 70);
        }
    }
    for (int i = 0; i < 3; i++) ds4_session_destroy(s[i]);
    ds4_engine_close(e);
    tiny_remove(&g.m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_saved_states),
        cmocka_unit_test(test_same_file_whatever_the_chunks),
        cmocka_unit_test(test_first_draft_after_load),
        cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_impossible_files),
        cmocka_unit_test(test_load_rewound_into_small_context),
        cmocka_unit_test(test_rewind),
        cmocka_unit_test(test_rewind_again_and_again),
        cmocka_unit_test(test_rewind_beyond_the_end),
        cmocka_unit_test(test_canceled_steps),
        cmocka_unit_test(test_cancel_then_rewind),
        cmocka_unit_test(test_cancel_with_many_prompts),
    };
    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
