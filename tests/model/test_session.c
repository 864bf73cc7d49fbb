/* Generation through the public API: sampling that repeats, what ends a generation, and what
 * callbacks are told. The sampler's and the stop texts' own rules are in tests/unit. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/tiny.h"

enum { N_PROMPT = 24, N_CTX = 100, EOS = 1, MAX_HEARD = 128 };

/* All that callbacks said of one generation. */
typedef struct {
    int32_t ids[MAX_HEARD];
    float logprobs[MAX_HEARD];
    ds4_logprob top[MAX_HEARD][20];
    uint32_t n_top[MAX_HEARD];
    size_t n;
    char text[16 * MAX_HEARD];
    size_t n_text;
    ds4_finish last;                  /* of the last token */
    size_t stop_after;                /* on_token says so after this many; 0: never */
    size_t n_progress, n_done, n_all; /* calls of on_progress, and what the last one said */
} heard;

static bool on_token(void *user, const ds4_token *t) {
    heard *h = user;
    assert_true(h->n < MAX_HEARD);
    assert_int_equal(h->last, DS4_FINISH_NONE); /* nothing comes behind the last one */
    h->ids[h->n] = t->id;
    h->logprobs[h->n] = t->logprob;
    h->n_top[h->n] = t->n_top;
    memcpy(h->top[h->n], t->top, t->n_top * sizeof *t->top);
    memcpy(h->text + h->n_text, t->text, t->n_text);
    h->n_text += t->n_text;
    h->text[h->n_text] = 0;
    h->last = t->finish;
    return ++h->n != h->stop_after;
}

static void on_progress(void *user, size_t n_done, size_t n_prompt) {
    heard *h = user;
    assert_true(n_done >= h->n_done);
    assert_true(n_done <= n_prompt);
    h->n_progress++;
    h->n_done = n_done;
    h->n_all = n_prompt;
}

/* One model for all tests, an engine of two sessions, a fresh session with a prompt of byte tokens.
 */
typedef struct {
    tiny_model m;
    ds4_engine *e;
    ds4_session *s;
    int32_t prompt[N_PROMPT];
} stage;

static int set_up(void **state) {
    stage *g = calloc(1, sizeof *g);
    randmodel_shape shape = tiny_shape(9);
    tiny_write(&g->m, &shape, 9);
    ds4_engine_options o = tiny_options(&g->m);
    o.n_ctx = N_CTX;
    o.n_step_rows = 10;
    o.n_sessions = 2;
    g->e = tiny_open(&g->m, &o);
    *state = g;
    return 0;
}

static int tear_down(void **state) {
    stage *g = *state;
    ds4_engine_close(g->e);
    tiny_remove(&g->m);
    free(g);
    return 0;
}

static int new_session(void **state) {
    stage *g = *state;
    ds4_error err;
    g->s = tiny_session(g->e);
    for (int i = 0; i < N_PROMPT; i++) g->prompt[i] = RANDMODEL_FIRST_BYTE + 'a' + i;
    tiny_ok(ds4_session_append(g->s, g->prompt, N_PROMPT, &err), &err, "append");
    return 0;
}

static int end_session(void **state) {
    stage *g = *state;
    ds4_session_destroy(g->s);
    return 0;
}

static ds4_generation generation(heard *h, float temperature, uint64_t seed, uint32_t max_tokens) {
    ds4_generation how = ds4_generation_defaults();
    how.sampling.temperature = temperature;
    how.sampling.top_p = 1;
    how.sampling.seed = seed;
    how.max_tokens = max_tokens;
    how.on_token = on_token;
    how.on_progress = on_progress;
    how.user = h;
    how.ignore_eos = true;
    return how;
}

/* Generates from the prompt, whatever was there before. */
static void generate(const stage *g, const ds4_generation *how) {
    heard *h = how->user;
    ds4_error err;
    size_t stop_after = h->stop_after;
    *h = (heard){.stop_after = stop_after};
    tiny_ok(ds4_session_rewind(g->s, N_PROMPT, &err), &err, "rewind");
    tiny_ok(ds4_session_generate(g->s, how, &err), &err, "generate");
}

static heard one, two; /* too big for the stack of a test */

/* ---- sampling ---- */

static void test_seeds_repeat(void **state) {
    stage *g = *state;
    ds4_generation how = generation(&one, 1.0f, 42, 30);
    generate(g, &how);
    how.user = &two;
    generate(g, &how);
    assert_int_equal(one.n, 30);
    assert_int_equal(two.n, 30);
    assert_memory_equal(one.ids, two.ids, sizeof one.ids);
    assert_memory_equal(one.logprobs, two.logprobs, sizeof one.logprobs);
    assert_string_equal(one.text, two.text);
    how.sampling.seed = 43;
    generate(g, &how);
    assert_memory_not_equal(one.ids, two.ids, sizeof one.ids);
}

/* In company, in another slot, with a log of the likeliest tokens: the same tokens. */
static void test_seeds_repeat_in_company(void **state) {
    stage *g = *state;
    ds4_error err;
    ds4_session *other = tiny_session(g->e);
    ds4_generation how = generation(&one, 1.0f, 42, 20);
    generate(g, &how);
    two = (heard){0};
    static heard stranger;
    ds4_generation same = generation(&two, 1.0f, 42, 20),
                   strange = generation(&stranger, 0.7f, 9, 25);
    stranger = (heard){0};
    same.n_top = 3;
    tiny_ok(ds4_session_append(other, g->prompt, N_PROMPT, &err), &err, "append");
    tiny_ok(ds4_session_rewind(g->s, N_PROMPT - 5, &err), &err, "rewind");
    tiny_ok(ds4_session_start(g->s, &strange, &err), &err, "start");
    tiny_ok(ds4_session_start(other, &same, &err), &err, "start");
    for (bool has_work = true; has_work;)
        tiny_ok(ds4_engine_step(g->e, &has_work, &err), &err, "step");
    assert_int_equal(two.n, 20);
    assert_int_equal(stranger.n, 25);
    assert_memory_equal(one.ids, two.ids, sizeof one.ids);
    ds4_session_destroy(other);
}

static void test_greedy_takes_the_likeliest(void **state) {
    stage *g = *state;
    ds4_generation how = generation(&one, 0, 1, 15);
    how.n_top = 20;
    generate(g, &how);
    for (size_t i = 0; i < one.n; i++) {
        assert_int_equal(one.n_top[i], 20);
        assert_int_equal(one.ids[i], one.top[i][0].id);
        assert_true(one.logprobs[i] == one.top[i][0].logprob);
        for (int t = 1; t < 20; t++)
            assert_true(one.top[i][t].logprob <= one.top[i][t - 1].logprob);
    }
}

/* The log-probabilities are those of the session's own logits: before bias, penalties, temperature.
 */
static void test_logprobs_are_of_plain_logits(void **state) {
    stage *g = *state;
    ds4_error err;
    tiny_ok(ds4_session_evaluate(g->s, NULL, NULL, &err), &err, "evaluate");
    const float *logits = ds4_session_logits(g->s);
    uint32_t n_vocab = ds4_engine_info(g->e)->n_vocab;
    double sum = 0;
    assert_non_null(logits);
    for (uint32_t i = 0; i < n_vocab; i++) sum += exp((double)logits[i]);
    double wanted = (double)logits[77] - log(sum);
    const ds4_logit_bias bias = {77, 100};
    ds4_generation how = generation(&one, 3.0f, 1, 1);
    how.sampling.bias = &bias;
    how.sampling.n_bias = 1;
    generate(g, &how);
    assert_int_equal(one.ids[0], 77);
    assert_true(fabs((double)one.logprobs[0] - wanted) < 1e-4);
}

static void test_bias(void **state) {
    stage *g = *state;
    const ds4_logit_bias likes = {65, 1000}, hates[] = {{65, 1000}, {65, -INFINITY}, {66, 500}};
    ds4_generation how = generation(&one, 1.0f, 5, 12);
    how.sampling.bias = &likes;
    how.sampling.n_bias = 1;
    generate(g, &how);
    for (size_t i = 0; i < one.n; i++) assert_int_equal(one.ids[i], 65);
    how.sampling.bias = hates;
    how.sampling.n_bias = 3;
    generate(g, &how);
    for (size_t i = 0; i < one.n; i++) assert_int_equal(one.ids[i], 66);
}

/* Penalties see what was generated; the repeat penalty sees the prompt too. */
static void test_penalties(void **state) {
    stage *g = *state;
    const ds4_logit_bias likes[] = {{65, 500}, {66, 470}, {67, 440}};
    ds4_generation how = generation(&one, 0, 1, 6);
    how.sampling.bias = likes;
    how.sampling.n_bias = 3;
    how.sampling.presence_penalty = 100;
    generate(g, &how);
    static const int32_t once_each[] = {65, 66, 67};
    assert_memory_equal(one.ids, once_each, sizeof once_each);
    how.sampling.presence_penalty = 0;
    how.sampling.frequency_penalty = 100;
    generate(g, &how);
    int32_t count[3] = {0};
    for (size_t i = 0; i < one.n; i++) count[one.ids[i] - 65]++;
    for (int i = 0; i < 3; i++) assert_int_equal(count[i], 2);

    /* A token of the prompt, liked by little more than one that is not. */
    const ds4_logit_bias prompt_or_not[] = {{g->prompt[3], 520}, {70, 500}};
    how.sampling.frequency_penalty = 0;
    how.sampling.bias = prompt_or_not;
    how.sampling.n_bias = 2;
    how.max_tokens = 1;
    generate(g, &how);
    assert_int_equal(one.ids[0], g->prompt[3]);
    how.sampling.repeat_penalty = 1.5f;
    generate(g, &how);
    assert_int_equal(one.ids[0], 70);
    how.sampling.penalty_last_n = 4; /* that token is further back */
    generate(g, &how);
    assert_int_equal(one.ids[0], g->prompt[3]);
}

/* ---- ends ---- */

static void check_end(const stage *g, const heard *h, ds4_finish finish, size_t n_tokens) {
    size_t n;
    const int32_t *ids = ds4_session_tokens(g->s, &n);
    assert_int_equal(ds4_session_finish(g->s), finish);
    assert_int_equal(h->last, finish == DS4_FINISH_CANCELED ? DS4_FINISH_NONE : finish);
    assert_int_equal(h->n, n_tokens);
    assert_int_equal(n, N_PROMPT + n_tokens);
    assert_memory_equal(ids + N_PROMPT, h->ids, n_tokens * sizeof *ids);
    /* The last one is not evaluated yet. */
    assert_int_equal(ds4_session_n_evaluated(g->s), n - 1);
}

static void test_max_tokens(void **state) {
    stage *g = *state;
    for (uint32_t n = 1; n < 4; n++) {
        ds4_generation how = generation(&one, 1.0f, n, n);
        generate(g, &how);
        check_end(g, &one, DS4_FINISH_LENGTH, n);
    }
}

static void test_full_context(void **state) {
    stage *g = *state;
    ds4_error err;
    ds4_generation how = generation(&one, 1.0f, 1, 0);
    generate(g, &how);
    check_end(g, &one, DS4_FINISH_LENGTH, N_CTX - N_PROMPT);
    assert_int_equal(ds4_session_start(g->s, &how, &err), DS4_EFULL);
    assert_int_equal(ds4_session_append(g->s, g->prompt, 1, &err), DS4_EFULL);
    /* The last token can still be evaluated: nothing is left out of the context. */
    tiny_ok(ds4_session_evaluate(g->s, NULL, NULL, &err), &err, "evaluate");
    assert_non_null(ds4_session_logits(g->s));
    assert_int_equal(ds4_session_start(g->s, &how, &err), DS4_EFULL);
}

/* EOS ends the turn, is a token of the session and no text; if it is ignored it is like any other.
 */
static void test_eos(void **state) {
    stage *g = *state;
    const ds4_logit_bias likes[] = {{EOS, 500}, {RANDMODEL_FIRST_BYTE + 'x', 520}};
    ds4_generation how = generation(&one, 0, 1, 8);
    how.sampling.bias = likes;
    how.sampling.n_bias = 2;
    how.sampling.frequency_penalty = 9; /* x three times, then EOS */
    how.ignore_eos = false;
    generate(g, &how);
    check_end(g, &one, DS4_FINISH_EOS, 4);
    assert_int_equal(one.ids[3], EOS);
    assert_string_equal(one.text, "xxx");
    how.ignore_eos = true;
    generate(g, &how);
    check_end(g, &one, DS4_FINISH_LENGTH, 8);
    assert_non_null(strstr(one.text, "xxx<"));
}

/* Text that repeats: bytes that are liked by turns, "abcabc...". Biases decide by what penalties
 * leave. */
static ds4_generation says_abc(heard *h, uint32_t max_tokens) {
    static const ds4_logit_bias likes[] = {{RANDMODEL_FIRST_BYTE + 'a', 500},
                                           {RANDMODEL_FIRST_BYTE + 'b', 480},
                                           {RANDMODEL_FIRST_BYTE + 'c', 460}};
    ds4_generation how = generation(h, 0, 1, max_tokens);
    how.sampling.bias = likes;
    how.sampling.n_bias = 3;
    how.sampling.frequency_penalty = 60;
    return how;
}

static void test_stop_across_tokens(void **state) {
    stage *g = *state;
    ds4_generation how = says_abc(&one, 9);
    generate(g, &how);
    assert_string_equal(one.text, "abcabcabc");
    check_end(g, &one, DS4_FINISH_LENGTH, 9);

    /* Two tokens make it complete; what was held back for a longer one that does not come is text.
     */
    const char *stops[] = {"bcb", "cab"};
    how.stops = stops;
    how.n_stops = 2;
    generate(g, &how);
    check_end(g, &one, DS4_FINISH_STOP, 5);
    assert_string_equal(one.text, "ab");

    /* Cut off while something is held back: it comes out with the last token. */
    const char *late[] = {"abcabca#"};
    how.stops = late;
    how.n_stops = 1;
    how.max_tokens = 7;
    generate(g, &how);
    check_end(g, &one, DS4_FINISH_LENGTH, 7);
    assert_string_equal(one.text, "abcabca");

    /* The last token that max_tokens allows completes a stop: that is what ended it. */
    const char *last[] = {"ca"};
    how.stops = last;
    how.max_tokens = 4;
    generate(g, &how);
    check_end(g, &one, DS4_FINISH_STOP, 4);
    assert_string_equal(one.text, "ab");

    /* Stops are copied, and forgotten at the next start. */
    how.stops = NULL;
    how.n_stops = 0;
    generate(g, &how);
    assert_string_equal(one.text, "abca");
}

/* A character whose bytes are tokens comes out whole, and as U+FFFD if the end cuts it. */
static void test_characters_across_tokens(void **state) {
    stage *g = *state;
    const ds4_logit_bias likes[] = {{RANDMODEL_FIRST_BYTE + 0xE2, 500},
                                    {RANDMODEL_FIRST_BYTE + 0x82, 480},
                                    {RANDMODEL_FIRST_BYTE + 0xAC, 460}};
    ds4_generation how = generation(&one, 0, 1, 6);
    how.sampling.bias = likes;
    how.sampling.n_bias = 3;
    how.sampling.frequency_penalty = 60;
    generate(g, &how);
    assert_string_equal(one.text, "€€");
    how.max_tokens = 5;
    generate(g, &how);
    assert_string_equal(one.text, "€\uFFFD");
    const char *stops[] = {"€€"};
    how.stops = stops;
    how.n_stops = 1;
    how.max_tokens = 9;
    generate(g, &how);
    check_end(g, &one, DS4_FINISH_STOP, 6);
    assert_string_equal(one.text, "");
}

static void test_callback_stops(void **state) {
    stage *g = *state;
    ds4_generation how = says_abc(&one, 9);
    one.stop_after = 4;
    generate(g, &how);
    check_end(g, &one, DS4_FINISH_CANCELED, 4);
    one.stop_after = 0;
    /* It goes on from there as if nothing had been. */
    ds4_error err;
    two = (heard){0};
    ds4_generation more = generation(&two, 0, 1, 5);
    tiny_ok(ds4_session_generate(g->s, &more, &err), &err, "generate");
    assert_int_equal(two.n, 5);
}

/* The last token both completes the generation and is refused by the callback: its end counts. */
static void test_callback_stops_at_the_end(void **state) {
    stage *g = *state;
    ds4_generation how = says_abc(&one, 4);
    one.stop_after = 4;
    generate(g, &how);
    check_end(g, &one, DS4_FINISH_LENGTH, 4);
    one.stop_after = 0;
}

static bool cancel_engine(void *user, const ds4_token *t) {
    stage *g = user;
    (void)t;
    ds4_engine_cancel(g->e);
    return true;
}

/* Cancel ends a step with an error, not the generation; generate gives up, a loop of steps goes on.
 */
static void test_cancel_from_callback(void **state) {
    stage *g = *state;
    ds4_error err;
    ds4_generation how = generation(&one, 0, 1, 6);
    how.on_token = cancel_engine;
    how.on_progress = NULL;
    how.user = g;
    assert_int_equal(ds4_session_generate(g->s, &how, &err), DS4_ECANCELED);
    assert_int_equal(err.code, DS4_ECANCELED);
    assert_int_equal(ds4_session_finish(g->s), DS4_FINISH_CANCELED);
    size_t n;
    ds4_session_tokens(g->s, &n);
    assert_int_equal(n, N_PROMPT + 1);

    tiny_ok(ds4_session_rewind(g->s, N_PROMPT, &err), &err, "rewind");
    tiny_ok(ds4_session_start(g->s, &how, &err), &err, "start");
    int n_canceled = 0;
    while (ds4_session_finish(g->s) == DS4_FINISH_NONE)
        n_canceled += ds4_engine_step(g->e, NULL, NULL) == DS4_ECANCELED;
    assert_int_equal(n_canceled, 5); /* the cancel of the sixth token is still to come */
    assert_int_equal(ds4_session_finish(g->s), DS4_FINISH_LENGTH);
    assert_int_equal(ds4_engine_step(g->e, NULL, NULL), DS4_ECANCELED);
    bool has_work = true;
    tiny_ok(ds4_engine_step(g->e, &has_work, &err), &err, "step");
    assert_false(has_work);
}

/* ---- progress, statistics, refusals ---- */

static void test_progress(void **state) {
    stage *g = *state;
    ds4_generation how = generation(&one, 1.0f, 1, 3);
    one = (heard){0};
    ds4_error err;
    tiny_ok(ds4_session_generate(g->s, &how, &err), &err, "generate");
    assert_int_equal(one.n_progress, 3); /* 24 tokens in steps of 10 */
    assert_int_equal(one.n_done, N_PROMPT);
    assert_int_equal(one.n_all, N_PROMPT);
    ds4_session_stats stats = ds4_session_get_stats(g->s);
    assert_int_equal(stats.n_prompt, N_PROMPT);
    assert_int_equal(stats.n_generated, 3);
    assert_true(stats.prompt_s > 0 && stats.generate_s > 0);
}

static void test_refusals(void **state) {
    stage *g = *state;
    ds4_error err;
    ds4_generation how = generation(&one, 1.0f, 1, 3);
    const int32_t bad_ids[] = {3, (int32_t)ds4_engine_info(g->e)->n_vocab}, negative = -1;
    one = (heard){0};
    assert_int_equal(ds4_session_append(g->s, bad_ids, 2, &err), DS4_EINVAL);
    assert_int_equal(ds4_session_append(g->s, &negative, 1, &err), DS4_EINVAL);
    size_t n;
    ds4_session_tokens(g->s, &n);
    assert_int_equal(n, N_PROMPT);

    how.n_top = 21;
    assert_int_equal(ds4_session_start(g->s, &how, &err), DS4_EINVAL);
    assert_non_null(strstr(err.message, "n_top"));
    how.n_top = 0;
    how.sampling.top_p = 1.5f;
    assert_int_equal(ds4_session_start(g->s, &how, &err), DS4_EINVAL);
    assert_non_null(strstr(err.message, "top_p"));
    how.sampling.top_p = 1;
    const char *stops[] = {""};
    how.stops = stops;
    how.n_stops = 1;
    assert_int_equal(ds4_session_start(g->s, &how, &err), DS4_EINVAL);
    how.n_stops = 0;
    assert_int_equal(ds4_session_finish(g->s), DS4_FINISH_NONE);

    tiny_ok(ds4_session_start(g->s, &how, &err), &err, "start");
    assert_int_equal(ds4_session_start(g->s, &how, &err), DS4_EINVAL);
    assert_int_equal(ds4_session_append(g->s, g->prompt, 1, &err), DS4_EINVAL);
    for (bool has_work = true; has_work;)
        tiny_ok(ds4_engine_step(g->e, &has_work, &err), &err, "step");
    assert_int_equal(one.n, 3);

    ds4_session *second = tiny_session(g->e), *third = NULL;
    assert_int_equal(ds4_session_create(&third, g->e, &err), DS4_EFULL);
    assert_null(third);
    assert_int_equal(ds4_session_start(second, &how, &err), DS4_EINVAL);
    tiny_ok(ds4_session_evaluate(second, NULL, NULL, &err), &err, "evaluate nothing");
    assert_null(ds4_session_logits(second));
    ds4_session_destroy(second);
    ds4_session_destroy(NULL);
}

static void test_engine_refusals(void **state) {
    stage *g = *state;
    ds4_engine *e = NULL;
    ds4_error err;
    ds4_engine_options good = tiny_options(&g->m), o = good;
    const struct {
        ds4_status code;
        const char *word;
    } expected[] = {
        {DS4_EINVAL, "n_sessions"},   {DS4_EINVAL, "n_step_rows"},      {DS4_EINVAL, "n_ctx"},
        {DS4_EUNSUPPORTED, "abacus"}, {DS4_EUNSUPPORTED, "slide rule"}, {DS4_EIO, "nothing"}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        o = good;
        if (i == 0) o.n_sessions = 0;
        if (i == 1) o.n_step_rows = 0;
        if (i == 2) o.n_ctx = g->m.shape.n_ctx + 1;
        if (i == 3) o.device = "abacus";
        if (i == 4) o.kernels = "slide rule";
        ds4_status status = ds4_engine_open(&e, i == 5 ? "/nothing/here" : g->m.path, &o, &err);
        if (status != expected[i].code || !strstr(err.message, expected[i].word))
            fail_msg("case %zu: found %s: %s", i, ds4_status_name(status), err.message);
        assert_null(e);
    }
    ds4_engine_close(NULL);
}

#define session_test(f) cmocka_unit_test_setup_teardown(f, new_session, end_session)

int main(void) {
    const struct CMUnitTest tests[] = {
        session_test(test_seeds_repeat),
        session_test(test_seeds_repeat_in_company),
        session_test(test_greedy_takes_the_likeliest),
        session_test(test_logprobs_are_of_plain_logits),
        session_test(test_bias),
        session_test(test_penalties),
        session_test(test_max_tokens),
        session_test(test_full_context),
        session_test(test_eos),
        session_test(test_stop_across_tokens),
        session_test(test_characters_across_tokens),
        session_test(test_callback_stops),
        session_test(test_callback_stops_at_the_end),
        session_test(test_cancel_from_callback),
        session_test(test_progress),
        session_test(test_refusals),
        cmocka_unit_test(test_engine_refusals),
    };
    return cmocka_run_group_tests_name("session", tests, set_up, tear_down);
}
