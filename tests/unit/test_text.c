/* Tokens, bytes and prompts of the public API. They read nothing of an engine but its vocabulary and
 * revision, so a model without weights will do. */
#include "runtime/runtime.h"
#include "tests/support/tokenizer_data.h"

#include <pthread.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char HELLO[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a <｜User｜> b\"}]}";

static ds4_engine *engine_of_nano(void) {
    ds4_engine *e = calloc(1, sizeof *e);
    assert_non_null(e);
    e->words = vocab_of_file(NANO_MODEL);
    if (!e->words) {
        free(e);
        print_message("skipped: %s is not there\n", NANO_MODEL);
        skip();
    }
    return e;
}

static void release_engine(ds4_engine *e) {
    vocab_destroy(e->words);
    free(e);
}

static int32_t user_id(const ds4_engine *e) {
    return vocab_find_marker(e->words, STRVIEW("<｜User｜>"));
}

static size_t count(const int32_t *ids, size_t n, int32_t id) {
    size_t n_found = 0;
    for (size_t i = 0; i < n; i++) n_found += ids[i] == id;
    return n_found;
}

static void test_tokenize(void **state) {
    (void)state;
    ds4_engine *e = engine_of_nano();
    const char text[] = "Hello <｜User｜> \xff there";
    int32_t *ids;
    char *back;
    size_t n, n_back;
    for (int has_markers = 0; has_markers < 2; has_markers++) {
        assert_int_equal(ds4_tokenize(e, &ids, &n, text, sizeof text - 1, has_markers, NULL),
                         DS4_OK);
        assert_int_equal(count(ids, n, user_id(e)), has_markers);
        assert_int_equal(ds4_detokenize(e, &back, &n_back, ids, n, NULL), DS4_OK);
        assert_int_equal(n_back, sizeof text - 1);
        assert_string_equal(back, text);
        ds4_free(ids);
        ds4_free(back);
    }
    /* Nothing is something that can be freed. */
    assert_int_equal(ds4_tokenize(e, &ids, &n, NULL, 0, true, NULL), DS4_OK);
    assert_int_equal(n, 0);
    assert_non_null(ids);
    ds4_free(ids);
    assert_int_equal(ds4_detokenize(e, &back, &n_back, NULL, 0, NULL), DS4_OK);
    assert_int_equal(n_back, 0);
    assert_string_equal(back, "");
    ds4_free(back);
    release_engine(e);
}

static void test_detokenize_refuses(void **state) {
    (void)state;
    ds4_engine *e = engine_of_nano();
    const int32_t ids[] = {1, 1 << 30};
    char *text = (char *)"before";
    size_t n = 17;
    ds4_error err = {0};
    assert_int_equal(ds4_detokenize(e, &text, &n, ids, 2, &err), DS4_EINVAL);
    assert_string_equal(text, "before");
    assert_int_equal(n, 17);
    assert_true(err.message[0]);
    release_engine(e);
}

static void test_render(void **state) {
    (void)state;
    ds4_engine *e = engine_of_nano();
    const char expected[] =
        "<｜begin▁of▁sentence｜><｜User｜>a <｜User｜> b<｜Assistant｜></think>";
    int32_t *ids, *only_ids;
    char *text, *only_text, *back;
    size_t n_ids, n_text, n_only, n_back;
    assert_int_equal(
        ds4_render(e, &text, &n_text, &ids, &n_ids, HELLO, sizeof HELLO - 1, NULL), DS4_OK);
    assert_string_equal(text, expected);
    assert_int_equal(n_text, sizeof expected - 1);
    assert_int_equal(count(ids, n_ids, user_id(e)), 1);
    assert_int_equal(ds4_detokenize(e, &back, &n_back, ids, n_ids, NULL), DS4_OK);
    assert_string_equal(back, expected);

    /* Each output alone. */
    assert_int_equal(
        ds4_render(e, NULL, NULL, &only_ids, &n_only, HELLO, sizeof HELLO - 1, NULL), DS4_OK);
    assert_int_equal(n_only, n_ids);
    assert_memory_equal(only_ids, ids, n_ids * sizeof *ids);
    assert_int_equal(
        ds4_render(e, &only_text, &n_only, NULL, NULL, HELLO, sizeof HELLO - 1, NULL), DS4_OK);
    assert_string_equal(only_text, expected);
    ds4_free(ids);
    ds4_free(only_ids);
    ds4_free(text);
    ds4_free(only_text);
    ds4_free(back);
    release_engine(e);
}

static void test_render_refuses(void **state) {
    (void)state;
    static const struct {
        const char *json, *words;
        ds4_status status;
    } cases[] = {
        {"", "conversation: JSON at byte 0", DS4_EFORMAT},
        {"{\"messages\": [", "conversation: JSON at byte 14", DS4_EFORMAT},
        {"[]", "expected an object", DS4_EINVAL},
        {"{\"messages\": [{\"role\": \"robot\"}]}", "messages[0].role", DS4_EINVAL},
    };
    ds4_engine *e = engine_of_nano();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = (char *)"before";
        int32_t *ids = NULL;
        size_t n_text = 1, n_ids = 2;
        ds4_error err = {0};
        assert_int_equal(ds4_render(e, &text, &n_text, &ids, &n_ids, cases[i].json,
                                    strlen(cases[i].json), &err),
                         cases[i].status);
        if (!strstr(err.message, cases[i].words)) fail_msg("case %zu: '%s'", i, err.message);
        assert_string_equal(text, "before");
        assert_null(ids);
        assert_int_equal(n_text, 1);
        assert_int_equal(n_ids, 2);
    }
    release_engine(e);
}

/* The revision is the engine's unless the conversation names one. */
static void test_revision(void **state) {
    (void)state;
    const char json[] = "{\"messages\": [], \"thinking_mode\": \"thinking\", "
                        "\"reasoning_effort\": \"high\"}";
    ds4_engine *e = engine_of_nano();
    for (int i = 0; i < 2; i++) {
        e->revision = i ? CHAT_0731 : CHAT_PREVIEW;
        char *text;
        size_t n;
        /* Without turns there is no turn 0 for a text to stand before. */
        assert_int_equal(ds4_render(e, &text, &n, NULL, NULL, json, sizeof json - 1, NULL), DS4_OK);
        assert_string_equal(text, "<｜begin▁of▁sentence｜>");
        ds4_free(text);

        const char talk[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], "
                            "\"thinking_mode\": \"thinking\", \"reasoning_effort\": \"high\"}";
        assert_int_equal(ds4_render(e, &text, &n, NULL, NULL, talk, sizeof talk - 1, NULL), DS4_OK);
        assert_int_equal(strstr(text, "Absolute maximum") != NULL, i);
        ds4_free(text);
    }
    release_engine(e);
}

/* ---- several threads, one engine ------------------------------------------------------------- */

typedef struct {
    const ds4_engine *engine;
    int n_same;
} worker;

static void *render_many(void *user) {
    worker *w = user;
    int32_t *first = NULL;
    size_t n_first = 0;
    for (int i = 0; i < 20; i++) {
        int32_t *ids;
        size_t n;
        ds4_status status =
            ds4_render(w->engine, NULL, NULL, &ids, &n, HELLO, sizeof HELLO - 1, NULL);
        if (status != DS4_OK) break;
        w->n_same += !first || (n == n_first && memcmp(ids, first, n * sizeof *ids) == 0);
        if (first) {
            ds4_free(ids);
        } else {
            first = ids;
            n_first = n;
        }
    }
    ds4_free(first);
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    enum { N = 4 };
    ds4_engine *e = engine_of_nano();
    pthread_t threads[N];
    worker workers[N];
    for (int i = 0; i < N; i++) {
        workers[i] = (worker){.engine = e};
        assert_int_equal(pthread_create(&threads[i], NULL, render_many, &workers[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].n_same, 20);
    }
    release_engine(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenize), cmocka_unit_test(test_detokenize_refuses),
        cmocka_unit_test(test_render),   cmocka_unit_test(test_render_refuses),
        cmocka_unit_test(test_revision), cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
