/* Random walks: several sessions of one engine do everything a session can do, in any order, with
 * steps canceled in between; whatever logits and tokens come out are those of a fresh session with
 * the same tokens. A failure names the seed of the walk and the turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/forward_private.h"
#include "runtime/runtime.h"
#include "tests/support/tiny.h"

enum { N_WALKS = 10 / TINY_HASTE, N_TURNS = 110, N_SLOTS = 3, N_CTX = 220, N_FILES = 2 };

/* A session, and what was heard of it since it last had other tokens than now. */
typedef struct {
    ds4_session *s;
    tiny_record found;
    size_t n_prompt; /* tokens that stood before the generation in `found` */
} walker;

typedef struct {
    tiny_model m;
    ds4_engine_options options, plain;
    ds4_engine *e, *judge; /* judge: one session, the plain way */
    ds4_session *judged;
    walker walkers[N_SLOTS];
    bool has_file[N_FILES];
    uint64_t random, seed;
    int turn;
    const char *act; /* the last one, for messages */
} walk;

/* ---- canceling in the middle ---- */

static struct {
    backend_ops ops;
    const backend_ops *real;
    ds4_engine *e;
    uint32_t n_until; /* calls; 0: not at all */
} brake;

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

/* ---- judging ---- */

/* Everything heard of the session against a fresh one that reads its tokens in one go, and the
 * drafts and tokens against one that generates from the same prompt. */
static void judge(walk *w, walker *k) {
    ds4_error err;
    size_t n;
    const int32_t *ids = ds4_session_tokens(k->s, &n);
    tiny_record *found = &k->found, expected;
    if (n == 0) return;
    tiny_record_init(&expected, w->judge);
    tiny_ok(ds4_session_rewind(w->judged, 0, &err), &err, "rewind");
    if (found->n_tokens > 0) {
        tiny_ok(ds4_session_append(w->judged, ids, k->n_prompt, &err), &err, "append");
        tiny_go_on(w->judged, (uint32_t)found->n_tokens, &expected);
        tiny_ok(ds4_session_rewind(w->judged, 0, &err), &err, "rewind");
    }
    tiny_ok(ds4_session_append(w->judged, ids, n, &err), &err, "append");
    tiny_ok(ds4_session_evaluate(w->judged, tiny_hear_logits, &expected, &err), &err, "evaluate");
    tiny_same(found, &expected, 0, 0, w->options.use_mtp, &w->m,
              "walk of seed %llu, turn %d (%s), slot %td", (unsigned long long)w->seed, w->turn,
              w->act, k - w->walkers);
    tiny_record_release(&expected);
    tiny_record_clear(found);
}

/* ---- what can happen ---- */

static bool is_generating(const walker *k) {
    return k->s->is_generating;
}

static void act_append(walk *w, walker *k) {
    int32_t ids[60];
    size_t n, n_more = tiny_below(&w->random, tiny_below(&w->random, 2) ? 4 : 60);
    ds4_session_tokens(k->s, &n);
    tiny_tokens(&w->m, ids, n_more, tiny_random(&w->random));
    ds4_status status = ds4_session_append(k->s, ids, n_more, NULL);
    assert_int_equal(status, is_generating(k)     ? DS4_EINVAL
                             : n + n_more > N_CTX ? DS4_EFULL
                                                  : DS4_OK);
}

static void act_step(walk *w, walker *k) {
    (void)k;
    ds4_error err;
    tiny_ok(ds4_engine_step(w->e, NULL, &err), &err, "step");
}

static void act_cancel(walk *w, walker *k) {
    (void)k;
    ds4_error err;
    brake.n_until = 1 + tiny_below(&w->random, w->m.shape.n_layer);
    ds4_status status = ds4_engine_step(w->e, NULL, &err);
    /* In the last layer it is too late for this step: the next one ends. */
    if (status == DS4_OK && brake.n_until == 0) status = ds4_engine_step(w->e, NULL, &err);
    if (brake.n_until == 0)
        assert_int_equal(status, DS4_ECANCELED);
    else
        tiny_ok(status, &err, "step without rows");
    brake.n_until = 0;
}

static void act_evaluate(walk *w, walker *k) {
    (void)w;
    ds4_error err;
    if (is_generating(k)) return;
    tiny_ok(ds4_session_evaluate(k->s, tiny_hear_logits, &k->found, &err), &err, "evaluate");
    tiny_take_logits(&k->found, k->s);
}

static void act_start(walk *w, walker *k) {
    size_t n;
    ds4_session_tokens(k->s, &n);
    ds4_status expected = is_generating(k) || n == 0 ? DS4_EINVAL : n == N_CTX ? DS4_EFULL : DS4_OK;
    if (!is_generating(k)) {
        judge(w, k);
        k->n_prompt = n;
    }
    ds4_generation how = tiny_greedy(&k->found, 1 + tiny_below(&w->random, TINY_MAX_GENERATED));
    assert_int_equal(ds4_session_start(k->s, &how, NULL), expected);
}

static void act_rewind(walk *w, walker *k) {
    ds4_error err;
    size_t n;
    judge(w, k);
    ds4_session_tokens(k->s, &n);
    size_t back = tiny_below(&w->random, tiny_below(&w->random, 6) ? 20 : N_CTX);
    tiny_ok(ds4_session_rewind(k->s, back < n ? n - back : 0, &err), &err, "rewind");
}

static const char *file_path(walk *w, char path[300], uint32_t *file) {
    char name[20];
    *file = tiny_below(&w->random, N_FILES);
    snprintf(name, sizeof name, "session%u", *file);
    return tiny_path(&w->m, path, name);
}

static void act_save(walk *w, walker *k) {
    char path[300];
    uint32_t file;
    ds4_error err;
    tiny_ok(ds4_session_save(k->s, file_path(w, path, &file), &err), &err, "save");
    w->has_file[file] = true;
}

static void act_load(walk *w, walker *k) {
    char path[300];
    uint32_t file;
    ds4_error err;
    file_path(w, path, &file);
    if (!w->has_file[file]) return;
    judge(w, k);
    tiny_ok(ds4_session_load(k->s, path, &err), &err, "load");
    tiny_take_logits(&k->found, k->s);
}

static void act_renew(walk *w, walker *k) {
    judge(w, k);
    ds4_session_destroy(k->s);
    k->s = tiny_session(w->e);
}

/* Many steps: walks get somewhere. */
static void act_run(walk *w, walker *k) {
    for (uint32_t i = 2 + tiny_below(&w->random, 12); i > 0; i--) act_step(w, k);
}

static const struct {
    const char *what;
    void (*fn)(walk *w, walker *k);
    uint32_t odds;
} acts[] = {
    {"append", act_append, 8}, {"step", act_step, 4},         {"run", act_run, 6},
    {"cancel", act_cancel, 4}, {"evaluate", act_evaluate, 3}, {"start", act_start, 5},
    {"rewind", act_rewind, 5}, {"save", act_save, 2},         {"load", act_load, 2},
    {"renew", act_renew, 1},
};
enum { N_ACTS = sizeof acts / sizeof *acts };

static void take_turn(walk *w) {
    uint32_t total = 0, i = 0;
    for (uint32_t a = 0; a < N_ACTS; a++) total += acts[a].odds;
    for (uint32_t at = tiny_below(&w->random, total); at >= acts[i].odds; i++) at -= acts[i].odds;
    walker *k = &w->walkers[tiny_below(&w->random, N_SLOTS)];
    w->act = acts[i].what;
    acts[i].fn(w, k);
}

static void walk_open(walk *w, uint64_t seed) {
    static const uint32_t step_rows[] = {1, 5, 16, 17, 40, 128};
    *w = (walk){.seed = seed, .random = seed};
    randmodel_shape shape = tiny_shape(seed);
    tiny_write(&w->m, &shape, seed);
    w->options = w->plain = tiny_options(&w->m);
    w->options.n_ctx = N_CTX;
    w->options.n_sessions = N_SLOTS;
    w->options.n_step_rows =
        step_rows[tiny_below(&w->random, sizeof step_rows / sizeof *step_rows)];
    w->options.n_threads = 1 + tiny_below(&w->random, 2);
    w->options.numerics = w->plain.numerics =
        tiny_below(&w->random, 4) ? DS4_NUMERICS_MODEL : DS4_NUMERICS_PLAIN;
    w->e = tiny_open(&w->m, &w->options);
    w->judge = tiny_open(&w->m, &w->plain);
    w->judged = tiny_session(w->judge);
    for (int i = 0; i < N_SLOTS; i++) {
        w->walkers[i].s = tiny_session(w->e);
        tiny_record_init(&w->walkers[i].found, w->e);
    }
    brake_install(w->e);
}

static void test_walks(void **state) {
    (void)state;
    for (uint64_t seed = 500; seed < 500 + N_WALKS; seed++) {
        walk w;
        walk_open(&w, seed);
        for (w.turn = 0; w.turn < N_TURNS; w.turn++) take_turn(&w);
        w.act = "the end";
        for (int i = 0; i < N_SLOTS; i++) {
            judge(&w, &w.walkers[i]);
            ds4_session_destroy(w.walkers[i].s);
            tiny_record_release(&w.walkers[i].found);
        }
        ds4_session_destroy(w.judged);
        ds4_engine_close(w.judge);
        ds4_engine_close(w.e);
        tiny_remove(&w.m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walks),
    };
    return cmocka_run_group_tests_name("walks", tests, NULL, NULL);
}
