/* Same bytes whatever the way: logits and greedy tokens do not depend on how a prompt is cut, on
 * threads, on company or on what else happens in the process. Saved, rewound and canceled sessions
 * are in test_state.c, everything mixed in test_walks.c. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "backend/cpu/kernels.h"
#include "tests/support/tiny.h"

enum { N_PROMPT = TINY_HASTE > 1 ? 135 : 180, N_GENERATE = 8 };

static int32_t prompt[TINY_MAX_TOKENS];

static tiny_talk whole_talk(const tiny_model *m) {
    tiny_tokens(m, prompt, TINY_MAX_TOKENS, m->seed + 1000);
    return (tiny_talk){prompt, N_PROMPT, N_GENERATE};
}

/* The talk in an engine of its own; the first n_first tokens are evaluated before the others come.
 */
static void run_alone(tiny_record *r, const tiny_model *m, const ds4_engine_options *options,
                      const tiny_talk *talk, size_t n_first) {
    ds4_engine *e = tiny_open(m, options);
    ds4_session *s = tiny_session(e);
    ds4_error err;
    tiny_record_init(r, e);
    tiny_ok(ds4_session_append(s, talk->prompt, n_first, &err), &err, "append");
    tiny_ok(ds4_session_evaluate(s, tiny_hear_logits, r, &err), &err, "evaluate");
    tiny_ok(ds4_session_append(s, talk->prompt + n_first, talk->n_prompt - n_first, &err), &err,
            "append");
    tiny_go_on(s, talk->n_generate, r);
    ds4_session_destroy(s);
    ds4_engine_close(e);
}

/* Runs alone in another way and compares. */
static void check_alone(const tiny_model *m, const ds4_engine_options *options,
                        const tiny_talk *talk, size_t n_first, const tiny_record *expected) {
    tiny_record found;
    run_alone(&found, m, options, talk, n_first);
    tiny_same(&found, expected, 0, talk->n_prompt, options->use_mtp, m,
              "%zu tokens first, %u rows a step, %u threads, %s kernels, %s numerics, MTP %d",
              n_first, options->n_step_rows, options->n_threads,
              options->kernels ? options->kernels : "best",
              options->numerics == DS4_NUMERICS_PLAIN ? "plain" : "model", options->use_mtp);
    tiny_record_release(&found);
}

/* Calls fn for models of several seeds. */
static void for_models(uint64_t first_seed, uint64_t n, void (*fn)(const tiny_model *m)) {
    for (uint64_t seed = first_seed; seed < first_seed + (n + TINY_HASTE - 1) / TINY_HASTE;
         seed++) {
        randmodel_shape shape = tiny_shape(seed);
        tiny_model m;
        tiny_write(&m, &shape, seed);
        fn(&m);
        tiny_remove(&m);
    }
}

/* ---- chunks ---- */

static void check_chunks(const tiny_model *m) {
    static const uint32_t step_rows[] = {1, 3, 128, 129};
    static const size_t edges[] = {1, 3, 4, 5, 127, 128, 129};
    ds4_engine_options o = tiny_options(m);
    tiny_talk talk = whole_talk(m);
    tiny_record expected;
    if (m->shape.ratio[0] == 128) talk.n_prompt += 90; /* for a second window of 128 */
    tiny_expect(&expected, m, &o, &talk);
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
        check_alone(m, &o, &talk, edges[i], &expected);
    for (size_t i = 0; i < sizeof step_rows / sizeof *step_rows; i++) {
        o.n_step_rows = step_rows[i];
        check_alone(m, &o, &talk, 0, &expected);
    }
    tiny_record_release(&expected);
}

static void test_chunks(void **state) {
    (void)state;
    for_models(1, 3, check_chunks);
}

/* A layer that pools 128 tokens, under chunks around its windows; rows beyond the indexer's top-k,
 * and rings that wrap many times, are part of every model here. */
static void test_long_windows(void **state) {
    (void)state;
    randmodel_shape shape = tiny_shape(50);
    tiny_model m;
    shape.n_layer = 3;
    shape.ratio[0] = 128, shape.ratio[1] = 4, shape.ratio[2] = 128;
    shape.window = 128;
    shape.has_mtp = true;
    shape.n_hash_layer = 0;
    tiny_write(&m, &shape, 50);
    check_chunks(&m);
    tiny_remove(&m);
}

/* Every plain number of tokens from none on: the first compressed rows, the first window edges. */
static void test_every_cut_of_a_short_prompt(void **state) {
    (void)state;
    randmodel_shape shape = tiny_shape(51);
    tiny_model m;
    shape.n_layer = 2;
    shape.ratio[0] = 4, shape.ratio[1] = 8;
    shape.window = 8;
    shape.index_top_k = 2;
    shape.n_hash_layer = 1;
    tiny_write(&m, &shape, 51);
    ds4_engine_options o = tiny_options(&m);
    tiny_talk talk = whole_talk(&m);
    talk.n_prompt = 26;
    tiny_record expected;
    tiny_expect(&expected, &m, &o, &talk);
    for (size_t n_first = 1; n_first <= talk.n_prompt; n_first++)
        check_alone(&m, &o, &talk, n_first, &expected);
    tiny_record_release(&expected);
    tiny_remove(&m);
}

/* ---- numerics, kernels, types, threads ---- */

/* Both numerics under all kernels of this machine; the scalar ones are slow: shorter talks. */
static void check_kernels(const tiny_model *m) {
    const cpu_kernels *k;
    for (size_t i = 0; (k = cpu_kernels_at(i)); i++) {
        ds4_engine_options o = tiny_options(m);
        tiny_talk talk = whole_talk(m);
        talk.n_prompt = i == 0 ? 26 : 70;
        talk.n_generate = 3;
        o.kernels = k->name;
        for (int is_plain = 0; is_plain < 2; is_plain++) {
            o.numerics = is_plain ? DS4_NUMERICS_PLAIN : DS4_NUMERICS_MODEL;
            o.n_step_rows = TINY_MAX_TOKENS;
            tiny_record expected;
            tiny_expect(&expected, m, &o, &talk);
            o.n_step_rows = 1;
            check_alone(m, &o, &talk, 0, &expected);
            o.n_step_rows = 5;
            check_alone(m, &o, &talk, 2, &expected);
            tiny_record_release(&expected);
        }
    }
}

static void test_kernels_and_numerics(void **state) {
    (void)state;
    for_models(20, 3, check_kernels);
}

/* All matrices of a model in one type. */
static void check_type(quant_type type, const char *kernels) {
    randmodel_shape shape = tiny_shape(52);
    tiny_model m;
    shape.n_layer = 2;
    shape.ratio[0] = 4, shape.ratio[1] = 8;
    shape.n_embd = shape.n_ff = shape.n_q_rank = 256;
    shape.n_head = 4;
    shape.head_dim = 64;
    shape.n_out_group = 1;
    shape.n_out_rank = 256;
    shape.n_expert = 5;
    shape.n_expert_used = 2;
    shape.n_hash_layer = 1;
    shape.has_mtp = true;
    for (int i = 0; i < RANDMODEL_N_CLASSES; i++) shape.types[i] = type;
    tiny_write(&m, &shape, 100 + (uint64_t)type);
    ds4_engine_options o = tiny_options(&m);
    tiny_talk talk = whole_talk(&m);
    talk.n_prompt = strcmp(kernels, "ref") == 0 ? 6 : 20;
    talk.n_generate = 2;
    o.kernels = kernels;
    tiny_record expected;
    tiny_expect(&expected, &m, &o, &talk);
    o.n_step_rows = 1;
    check_alone(&m, &o, &talk, 0, &expected);
    o.n_step_rows = 7;
    o.n_threads = 2;
    check_alone(&m, &o, &talk, 3, &expected);
    tiny_record_release(&expected);
    tiny_remove(&m);
}

static void test_types(void **state) {
    (void)state;
    size_t n;
    const quant_info *types = quant_table(&n);
    const cpu_kernels *k;
    for (size_t i = 0; i < n; i++) {
        if (!types[i].is_matrix) continue;
        if (TINY_HASTE > 1 && i % 4 != 0) continue;
        for (size_t t = i % 3 ? 1 : 0; (k = cpu_kernels_at(t)); t++)
            check_type(types[i].type, k->name);
    }
}

/* Wide enough that every operation has work for several threads. */
static void test_threads(void **state) {
    (void)state;
    for (uint64_t seed = 60; seed < 62; seed++) {
        randmodel_shape shape = tiny_shape(seed);
        tiny_model m;
        shape.n_embd = 256;
        shape.n_head = seed == 60 ? 5 : 8;
        shape.n_out_group = 1;
        shape.head_dim = 128;
        shape.window = 40;
        shape.n_index_head = 8;
        shape.index_dim = 128;
        shape.n_ff = 256;
        shape.has_mtp = true;
        tiny_write(&m, &shape, seed);
        ds4_engine_options o = tiny_options(&m);
        tiny_talk talk = whole_talk(&m);
        talk.n_prompt = 50;
        tiny_record expected;
        tiny_expect(&expected, &m, &o, &talk);
        for (o.n_threads = 2; o.n_threads <= 4; o.n_threads++) {
            o.n_step_rows = TINY_MAX_TOKENS;
            check_alone(&m, &o, &talk, 0, &expected);
            o.n_step_rows = 7;
            check_alone(&m, &o, &talk, 0, &expected);
        }
        tiny_record_release(&expected);
        tiny_remove(&m);
    }
}

static void check_without_mtp(const tiny_model *m) {
    if (!m->shape.has_mtp) return;
    ds4_engine_options o = tiny_options(m);
    tiny_talk talk = whole_talk(m);
    tiny_record expected;
    tiny_expect(&expected, m, &o, &talk);
    size_t n_right = 0;
    for (size_t i = 0; i < expected.n_tokens; i++) {
        assert_true(expected.tokens[i].draft >= 0);
        n_right += i > 0 && expected.tokens[i - 1].draft == expected.tokens[i].id;
    }
    assert_true(n_right < expected.n_tokens); /* a random block knows nothing */
    o.use_mtp = false;
    check_alone(m, &o, &talk, 0, &expected);
    tiny_record found;
    run_alone(&found, m, &o, &talk, 7);
    for (size_t i = 0; i < found.n_tokens; i++) assert_int_equal(found.tokens[i].draft, -1);
    tiny_record_release(&found);
    tiny_record_release(&expected);
}

static void test_mtp_changes_nothing(void **state) {
    (void)state;
    for_models(31, 6, check_without_mtp);
}

/* ---- company ---- */

enum { N_TALKS = 6, N_SLOTS = 4 };

/* One of several conversations that share an engine. */
typedef struct {
    tiny_talk talk;
    uint32_t start_step; /* when it comes in */
    ds4_session *s;
    tiny_record found, expected;
    bool is_done;
} guest;

/* Brings a guest in, or takes its next turn; true while it is not done. */
static bool attend(guest *g, ds4_engine *e, uint32_t step) {
    ds4_error err;
    if (g->is_done || step < g->start_step) return !g->is_done;
    if (!g->s) {
        if (ds4_session_create(&g->s, e, &err) == DS4_EFULL) return true;
        tiny_ok(ds4_session_append(g->s, g->talk.prompt, g->talk.n_prompt, &err), &err, "append");
        ds4_generation how = tiny_greedy(&g->found, g->talk.n_generate);
        tiny_ok(ds4_session_start(g->s, &how, &err), &err, "start");
        return true;
    }
    if (ds4_session_finish(g->s) == DS4_FINISH_NONE) return true;
    assert_int_equal(ds4_session_finish(g->s), DS4_FINISH_LENGTH);
    tiny_ok(ds4_session_evaluate(g->s, NULL, NULL, &err), &err, "evaluate");
    tiny_take_logits(&g->found, g->s);
    ds4_session_destroy(g->s);
    g->s = NULL;
    g->is_done = true;
    return false;
}

/* More talks than slots, coming in at different steps: prompts of all lengths beside generation. */
static void check_company(const tiny_model *m) {
    ds4_engine_options o = tiny_options(m);
    guest guests[N_TALKS] = {0};
    uint64_t random = m->seed;
    tiny_tokens(m, prompt, TINY_MAX_TOKENS, m->seed + 1000);
    for (int i = 0; i < N_TALKS; i++) {
        guest *g = &guests[i];
        size_t n = 1 + tiny_below(&random, i % 2 ? 20 : 150);
        g->talk = (tiny_talk){prompt + tiny_below(&random, 300), n, 3 + tiny_below(&random, 12)};
        g->start_step = tiny_below(&random, 15);
        tiny_expect(&g->expected, m, &o, &g->talk);
    }
    o.n_sessions = N_SLOTS;
    static const uint32_t step_rows[] = {1, 6, 40};
    for (size_t w = 0; w < sizeof step_rows / sizeof *step_rows; w++) {
        o.n_step_rows = step_rows[w];
        o.n_threads = w == 1 ? 2 : 1;
        ds4_engine *e = tiny_open(m, &o);
        for (int i = 0; i < N_TALKS; i++) {
            tiny_record_init(&guests[i].found, e);
            guests[i].is_done = false;
        }
        bool is_busy = true;
        for (uint32_t step = 0; is_busy; step++) {
            ds4_error err;
            assert_true(step < 5000);
            is_busy = false;
            for (int i = 0; i < N_TALKS; i++) is_busy |= attend(&guests[i], e, step);
            tiny_ok(ds4_engine_step(e, NULL, &err), &err, "step");
        }
        for (int i = 0; i < N_TALKS; i++) {
            guest *g = &guests[i];
            size_t end = g->talk.n_prompt + g->talk.n_generate;
            tiny_same(&g->found, &g->expected, end - 1, end, o.use_mtp, m,
                      "talk %d of %d in company, %u rows a step", i, N_TALKS, o.n_step_rows);
            tiny_record_release(&g->found);
        }
        ds4_engine_close(e);
    }
    for (int i = 0; i < N_TALKS; i++) tiny_record_release(&guests[i].expected);
}

static void test_company(void **state) {
    (void)state;
    for_models(10, 4, check_company);
}

/* Many prompts at once, everybody's logits wanted by turns: evaluate drives the others along. */
static void check_evaluate_beside(const tiny_model *m) {
    ds4_engine_options o = tiny_options(m);
    tiny_talk talk = whole_talk(m), other = {prompt + 100, 90, 0};
    tiny_record expected, expected_other, found, found_other;
    tiny_expect(&expected, m, &o, &talk);
    tiny_expect(&expected_other, m, &o, &other);
    o.n_sessions = 3;
    o.n_step_rows = 20;
    ds4_engine *e = tiny_open(m, &o);
    ds4_session *idle = tiny_session(e), *a = tiny_session(e), *b = tiny_session(e);
    ds4_error err;
    tiny_record_init(&found, e);
    tiny_record_init(&found_other, e);
    tiny_ok(ds4_session_append(a, talk.prompt, talk.n_prompt, &err), &err, "append");
    tiny_ok(ds4_session_append(b, other.prompt, other.n_prompt, &err), &err, "append");
    ds4_generation how = tiny_greedy(&found, talk.n_generate);
    tiny_ok(ds4_session_start(a, &how, &err), &err, "start");
    tiny_go_on(b, 0, &found_other);
    tiny_same(&found_other, &expected_other, 0, other.n_prompt, false, m,
              "evaluated beside a prompt");
    for (bool is_busy = true; is_busy;) tiny_ok(ds4_engine_step(e, &is_busy, &err), &err, "step");
    tiny_go_on(a, 0, &found);
    size_t end = talk.n_prompt + talk.n_generate;
    tiny_same(&found, &expected, end - 1, end, o.use_mtp, m, "generated beside an evaluation");
    ds4_session_destroy(a);
    ds4_session_destroy(b);
    ds4_session_destroy(idle);
    ds4_engine_close(e);
    tiny_record_release(&found);
    tiny_record_release(&found_other);
    tiny_record_release(&expected);
    tiny_record_release(&expected_other);
}

static void test_evaluate_beside(void **state) {
    (void)state;
    for_models(40, 3, check_evaluate_beside);
}

/* ---- engines ---- */

typedef struct {
    const tiny_model *m;
    ds4_engine_options options;
    tiny_talk talk;
    tiny_record found;
} engine_job;

static void *run_engine(void *arg) {
    engine_job *j = arg;
    run_alone(&j->found, j->m, &j->options, &j->talk, 11);
    return NULL;
}

/* Two engines, of one file and of two, in two threads at once. */
static void test_engines_at_once(void **state) {
    (void)state;
    tiny_model models[2];
    tiny_record expected[2];
    engine_job jobs[3];
    for (uint64_t i = 0; i < 2; i++) {
        randmodel_shape shape = tiny_shape(70 + i);
        tiny_write(&models[i], &shape, 70 + i);
    }
    for (int i = 0; i < 3; i++) {
        const tiny_model *m = &models[i % 2];
        jobs[i] = (engine_job){.m = m, .options = tiny_options(m), .talk = whole_talk(&models[0])};
        if (m->shape.n_vocab < models[0].shape.n_vocab)
            for (size_t t = 0; t < TINY_MAX_TOKENS; t++) prompt[t] %= RANDMODEL_MIN_VOCAB;
        jobs[i].options.n_threads = 2;
        jobs[i].options.n_step_rows = 30;
        jobs[i].talk.n_prompt = 100;
    }
    for (int i = 0; i < 2; i++) {
        ds4_engine_options o = tiny_options(&models[i]);
        tiny_expect(&expected[i], &models[i], &o, &jobs[i].talk);
    }
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_engine, &jobs[i]), 0);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++) {
        tiny_same(&jobs[i].found, &expected[i % 2], 0, 100, jobs[i].options.use_mtp, jobs[i].m,
                  "engine %d of 3 at once", i);
        tiny_record_release(&jobs[i].found);
    }
    for (int i = 0; i < 2; i++) {
        tiny_record_release(&expected[i]);
        tiny_remove(&models[i]);
    }
}

/* Two engines in one thread, step by step in turn. */
static void test_engines_in_turn(void **state) {
    (void)state;
    tiny_model m;
    randmodel_shape shape = tiny_shape(73);
    tiny_write(&m, &shape, 73);
    ds4_engine_options o = tiny_options(&m), plain = tiny_options(&m);
    plain.numerics = DS4_NUMERICS_PLAIN;
    tiny_talk talk = whole_talk(&m);
    tiny_record expected[2], found[2];
    tiny_expect(&expected[0], &m, &o, &talk);
    tiny_expect(&expected[1], &m, &plain, &talk);
    assert_memory_not_equal(expected[0].logits, expected[1].logits,
                            sizeof(float) * expected[0].n_vocab);
    o.n_step_rows = plain.n_step_rows = 13;
    ds4_engine *engines[] = {tiny_open(&m, &o), tiny_open(&m, &plain)};
    ds4_session *sessions[] = {tiny_session(engines[0]), tiny_session(engines[1])};
    ds4_error err;
    for (int i = 0; i < 2; i++) {
        tiny_record_init(&found[i], engines[i]);
        tiny_ok(ds4_session_append(sessions[i], talk.prompt, talk.n_prompt, &err), &err, "append");
        ds4_generation how = tiny_greedy(&found[i], talk.n_generate);
        tiny_ok(ds4_session_start(sessions[i], &how, &err), &err, "start");
    }
    for (bool a = true, b = true; a || b;) {
        tiny_ok(ds4_engine_step(engines[0], &a, &err), &err, "step");
        tiny_ok(ds4_engine_step(engines[1], &b, &err), &err, "step");
    }
    for (int i = 0; i < 2; i++) {
        size_t end = talk.n_prompt + talk.n_generate;
        tiny_go_on(sessions[i], 0, &found[i]);
        tiny_same(&found[i], &expected[i], end - 1, end, o.use_mtp, &m, "engine %d of 2 in turn",
                  i);
        ds4_session_destroy(sessions[i]);
        ds4_engine_close(engines[i]);
        tiny_record_release(&found[i]);
        tiny_record_release(&expected[i]);
    }
    tiny_remove(&m);
}

/* ---- canceling from another thread ---- */

typedef struct {
    ds4_engine *e;
    atomic_bool is_over;
} canceler;

/* A number of times, since a slow build may never get through a step between two of them. */
static void *cancel_often(void *arg) {
    canceler *c = arg;
    uint64_t random = 1;
    for (int i = 0; i < 60 && !atomic_load(&c->is_over); i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000 * (long)tiny_below(&random, 3000)}, NULL);
        ds4_engine_cancel(c->e);
    }
    return NULL;
}

/* Steps are canceled at any moment; tried again, they say what they would have said. */
static void test_canceled_at_any_moment(void **state) {
    (void)state;
    randmodel_shape shape = tiny_shape(75);
    tiny_model m;
    tiny_write(&m, &shape, 75);
    ds4_engine_options o = tiny_options(&m);
    tiny_talk talk = whole_talk(&m);
    tiny_record expected, found;
    ds4_error err;
    talk.n_generate = 30;
    tiny_expect(&expected, &m, &o, &talk);
    o.n_step_rows = 10;
    o.n_threads = 2;
    ds4_engine *e = tiny_open(&m, &o);
    ds4_session *s = tiny_session(e);
    canceler c = {.e = e};
    pthread_t id;
    tiny_record_init(&found, e);
    ds4_generation how = tiny_greedy(&found, talk.n_generate);
    assert_int_equal(pthread_create(&id, NULL, cancel_often, &c), 0);
    ds4_status status = ds4_session_append(s, talk.prompt, talk.n_prompt, &err);
    if (status == DS4_OK) status = ds4_session_start(s, &how, &err);
    /* The thread ends before anything can fail the test. */
    uint32_t n_canceled = 0;
    while (status == DS4_OK && ds4_session_finish(s) == DS4_FINISH_NONE) {
        status = ds4_engine_step(e, NULL, &err);
        if (status == DS4_ECANCELED) n_canceled++, status = DS4_OK;
    }
    atomic_store(&c.is_over, true);
    pthread_join(id, NULL);
    tiny_ok(status, &err, "step");
    ds4_engine_step(e, NULL, NULL); /* takes a cancel that came too late */
    tiny_go_on(s, 0, &found);
    size_t end = talk.n_prompt + talk.n_generate;
    tiny_same(&found, &expected, end - 1, end, o.use_mtp, &m, "canceled %u times", n_canceled);
    ds4_session_destroy(s);
    ds4_engine_close(e);
    tiny_record_release(&found);
    tiny_record_release(&expected);
    tiny_remove(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_long_windows),
        cmocka_unit_test(test_every_cut_of_a_short_prompt),
        cmocka_unit_test(test_kernels_and_numerics),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_mtp_changes_nothing),
        cmocka_unit_test(test_evaluate_beside),
        cmocka_unit_test(test_engines_in_turn),
    };
    const struct CMUnitTest with_threads[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_company),
        cmocka_unit_test(test_engines_at_once),
        cmocka_unit_test(test_canceled_at_any_moment),
    };
    int n_failed = cmocka_run_group_tests_name("properties in threads", with_threads, NULL, NULL);
    /* A build that looks for races has nothing to find in one thread. */
    if (TINY_HASTE < 6) n_failed += cmocka_run_group_tests_name("properties", tests, NULL, NULL);
    return n_failed;
}
