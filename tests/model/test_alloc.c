/* Memory: a step takes none; when it runs out anywhere, the call says so, loses nothing and works
 * the next time. The linker hands every allocation of the library to the functions below
 * (Makefile). */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/tiny.h"

/* ---- the faulty heap ---- */

static struct {
    atomic_long n_live;  /* blocks and mappings that are not freed */
    atomic_long n_calls; /* since the count was last set to 0 */
    long fail_at;        /* the call that fails, from 1; 0: none does */
    bool fails_on;       /* so do all calls behind it */
    atomic_bool is_hit;
    atomic_bool is_system; /* a mapping or a thread was refused, not memory */
} heap;

static bool may_have(bool is_system) {
    long n = atomic_fetch_add(&heap.n_calls, 1) + 1;
    bool is_refused =
        heap.fail_at > 0 && (n == heap.fail_at || (heap.fails_on && n > heap.fail_at));
    if (is_refused) atomic_store(&heap.is_hit, true);
    if (is_refused && is_system) atomic_store(&heap.is_system, true);
    if (is_refused) errno = ENOMEM;
    return !is_refused;
}

static void *counted(void *memory) {
    if (memory) atomic_fetch_add(&heap.n_live, 1);
    return memory;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *memory, size_t n);
void __real_free(void *memory);
char *__real_strndup(const char *s, size_t n);
void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t n);
int __real_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *memory, size_t n);
void __wrap_free(void *memory);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t n);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);

void *__wrap_malloc(size_t n) {
    return may_have(false) ? counted(__real_malloc(n)) : NULL;
}

void *__wrap_calloc(size_t n, size_t size) {
    return may_have(false) ? counted(__real_calloc(n, size)) : NULL;
}

void *__wrap_realloc(void *memory, size_t n) {
    if (!may_have(false)) return NULL;
    return memory ? __real_realloc(memory, n) : counted(__real_realloc(NULL, n));
}

void __wrap_free(void *memory) {
    if (memory) atomic_fetch_sub(&heap.n_live, 1);
    __real_free(memory);
}

char *__wrap_strndup(const char *s, size_t n) {
    return may_have(false) ? counted(__real_strndup(s, n)) : NULL;
}

char *__wrap_strdup(const char *s) {
    return __wrap_strndup(s, strlen(s));
}

void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset) {
    if (!may_have(true)) return MAP_FAILED;
    void *memory = __real_mmap(at, n, prot, flags, fd, offset);
    if (memory != MAP_FAILED) counted(memory);
    return memory;
}

int __wrap_munmap(void *at, size_t n) {
    atomic_fetch_sub(&heap.n_live, 1);
    return __real_munmap(at, n);
}

int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg) {
    return may_have(true) ? __real_pthread_create(id, attr, fn, arg) : EAGAIN;
}

/* ---- the world in which calls fail ---- */

enum { N_PROMPT = 40 };

typedef struct {
    tiny_model m;
    ds4_engine *e;
    ds4_session *s;
    int32_t prompt[N_PROMPT];
    char saved[300];
    /* outputs */
    int32_t *ids;
    size_t n_ids;
    char *text;
    size_t n_text;
} world;

static ds4_engine_options world_options(const world *w) {
    ds4_engine_options o = tiny_options(&w->m);
    o.n_threads = 3;
    o.n_sessions = 2;
    o.n_step_rows = 20;
    return o;
}

static ds4_generation world_generation(void) {
    static const ds4_logit_bias bias[] = {{5, 1.5f}, {70, -2}, {5, 0.25f}};
    static const char *const stops[] = {"never said", "\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC",
                                        "stop it"};
    ds4_generation g = ds4_generation_defaults();
    g.sampling = (ds4_sampling){.temperature = 1.5f,
                                .top_k = 50,
                                .top_p = 0.9f,
                                .min_p = 0.01f,
                                .repeat_penalty = 1.1f,
                                .presence_penalty = 0.1f,
                                .frequency_penalty = 0.1f,
                                .penalty_last_n = 30,
                                .seed = 7,
                                .bias = bias,
                                .n_bias = 3};
    g.max_tokens = 12;
    g.n_top = 20;
    g.stops = stops;
    g.n_stops = 3;
    g.ignore_eos = true;
    return g;
}

/* One call that may fail, and what takes its success back. */
typedef struct {
    const char *what;
    ds4_status (*call)(world *w, ds4_error *err);
    void (*undo)(world *w);
} fallible;

static ds4_status call_plan(world *w, ds4_error *err) {
    ds4_engine_options o = world_options(w);
    ds4_memory_plan plan;
    return ds4_engine_plan(&plan, w->m.path, &o, err);
}

static ds4_status call_open(world *w, ds4_error *err) {
    ds4_engine_options o = world_options(w);
    return ds4_engine_open(&w->e, w->m.path, &o, err);
}

static void undo_open(world *w) {
    ds4_engine_close(w->e);
    w->e = NULL;
}

static ds4_status call_create(world *w, ds4_error *err) {
    return ds4_session_create(&w->s, w->e, err);
}

static void undo_create(world *w) {
    ds4_session_destroy(w->s);
    w->s = NULL;
}

static ds4_status call_append(world *w, ds4_error *err) {
    return ds4_session_append(w->s, w->prompt, N_PROMPT, err);
}

static void undo_append(world *w) {
    ds4_session_rewind(w->s, 0, NULL);
}

static ds4_status call_evaluate(world *w, ds4_error *err) {
    return ds4_session_evaluate(w->s, NULL, NULL, err);
}

static ds4_status call_generate(world *w, ds4_error *err) {
    ds4_generation g = world_generation();
    return ds4_session_generate(w->s, &g, err);
}

/* A session keeps what its first start has reserved: a new one. */
static void undo_generate(world *w) {
    ds4_error err;
    undo_create(w);
    tiny_ok(call_create(w, &err), &err, "create");
    tiny_ok(call_append(w, &err), &err, "append");
    tiny_ok(call_evaluate(w, &err), &err, "evaluate");
}

static ds4_status call_save(world *w, ds4_error *err) {
    return ds4_session_save(w->s, w->saved, err);
}

static ds4_status call_load(world *w, ds4_error *err) {
    return ds4_session_load(w->s, w->saved, err);
}

static ds4_status call_tokenize(world *w, ds4_error *err) {
    static const char text[] =
        "<｜User｜>What is 17 * 23? Grüße, 你好!\n\n  def f(x):<｜Assistant｜>";
    return ds4_tokenize(w->e, &w->ids, &w->n_ids, text, sizeof text - 1, true, err);
}

static ds4_status call_detokenize(world *w, ds4_error *err) {
    return ds4_detokenize(w->e, &w->text, &w->n_text, w->prompt, N_PROMPT, err);
}

static ds4_status call_render(world *w, ds4_error *err) {
    static const char json[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"
                               "{\"role\":\"user\",\"content\":\"Hi\"},"
                               "{\"role\":\"assistant\",\"content\":\"Hello\"},{\"role\":\"user\","
                               "\"content\":\"\\u4f60\"}]}";
    return ds4_render(w->e, &w->text, &w->n_text, &w->ids, &w->n_ids, json, sizeof json - 1, err);
}

static void undo_outputs(world *w) {
    ds4_free(w->ids);
    ds4_free(w->text);
    w->ids = NULL;
    w->text = NULL;
}

/* In this order: each needs what those before it made. */
static const fallible calls[] = {
    {"plan", call_plan, NULL},
    {"open", call_open, undo_open},
    {"tokenize", call_tokenize, undo_outputs},
    {"detokenize", call_detokenize, undo_outputs},
    {"render", call_render, undo_outputs},
    {"create", call_create, undo_create},
    {"append", call_append, undo_append},
    {"evaluate", call_evaluate, NULL},
    {"generate", call_generate, undo_generate},
    {"save", call_save, NULL},
    {"load", call_load, NULL},
};
enum { N_CALLS = sizeof calls / sizeof *calls };

static int n_files(const world *w) {
    int n = 0;
    DIR *dir = opendir(w->m.dir);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir));) n += d->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void check_status(const fallible *c, ds4_status status, const ds4_error *err, long n) {
    if (!heap.is_hit) {
        if (status != DS4_OK) fail_msg("%s: without a fault: %s", c->what, err->message);
        return;
    }
    if (status != DS4_OK && status != DS4_ENOMEM && !(status == DS4_EIO && heap.is_system))
        fail_msg("%s, allocation %ld: found %s (%s), expected ENOMEM", c->what, n,
                 ds4_status_name(status), err->message);
    if (status != DS4_OK && (err->code != status || err->message[0] == 0))
        fail_msg("%s, allocation %ld: error without a message", c->what, n);
}

/* The call with its n-th allocation refused; true while there is an n-th one. */
static bool check_fault(world *w, const fallible *c, long n, bool fails_on) {
    ds4_error err = {0};
    int n_files_before = n_files(w);
    long n_live = heap.n_live;
    heap.n_calls = 0;
    heap.is_hit = heap.is_system = false;
    heap.fails_on = fails_on;
    heap.fail_at = n;
    ds4_status status = c->call(w, &err);
    heap.fail_at = 0;
    check_status(c, status, &err, n);
    if (status != DS4_OK) {
        if (w->ids || w->text) fail_msg("%s, allocation %ld: failed with outputs", c->what, n);
        if (n_files(w) != n_files_before)
            fail_msg("%s, allocation %ld: left a file behind", c->what, n);
        if (c->call == call_plan || c->call == call_open || c->call == call_create) {
            if (heap.n_live != n_live)
                fail_msg("%s, allocation %ld: %ld blocks lost", c->what, n, heap.n_live - n_live);
        }
        /* With memory the same call works. */
        status = c->call(w, &err);
        if (status != DS4_OK)
            fail_msg("%s again after allocation %ld: %s", c->what, n, err.message);
    }
    if (c->undo) c->undo(w);
    return heap.is_hit;
}

static void check_call(world *w, const fallible *c, bool fails_on) {
    long n = 1;
    long n_live = heap.n_live;
    while (check_fault(w, c, n, fails_on)) n++;
    if (c->undo && heap.n_live != n_live)
        fail_msg("%s: %ld blocks lost after %ld faults", c->what, heap.n_live - n_live, n - 1);
    bool takes_none = c->call == call_append || c->call == call_evaluate;
    if (takes_none != (n == 1)) fail_msg("%s: %ld allocations", c->what, n - 1);
    ds4_error err;
    ds4_status status = c->call(w, &err);
    tiny_ok(status, &err, c->what);
}

static void world_open(world *w, uint64_t seed) {
    randmodel_shape shape = tiny_shape(seed);
    *w = (world){0};
    shape.has_mtp = true;
    tiny_write(&w->m, &shape, seed);
    tiny_path(&w->m, w->saved, "saved");
    tiny_tokens(&w->m, w->prompt, N_PROMPT, seed);
}

static void world_close(world *w) {
    undo_outputs(w);
    undo_create(w);
    undo_open(w);
    tiny_remove(&w->m);
}

static void check_world(bool fails_on) {
    world w;
    world_open(&w, 5);
    long n_live = heap.n_live;
    for (int i = 0; i < N_CALLS; i++) {
        undo_outputs(&w);
        check_call(&w, &calls[i], fails_on);
    }
    undo_outputs(&w);
    undo_create(&w);
    undo_open(&w);
    if (heap.n_live != n_live) fail_msg("%ld blocks lost in the end", heap.n_live - n_live);
    tiny_remove(&w.m);
}

static void test_each_allocation_fails(void **state) {
    (void)state;
    check_world(false);
}

static void test_all_allocations_fail_from_some_point(void **state) {
    (void)state;
    check_world(true);
}

/* ---- replies ---- */

static void hear_reply(void *user, ds4_reply_kind kind, const char *text, size_t n) {
    (void)kind, (void)text;
    *(size_t *)user += n;
}

/* Ends at the first failure; every prefix of the calls can be destroyed. */
static ds4_status run_reply(size_t *n_heard, ds4_error *err) {
    static const char tools[] =
        "[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"parameters\":{"
        "\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"number\"}}}}}]";
    static const char *const pieces[] = {"Let me think.",
                                         "</think>",
                                         "I add <b>.\n\n<｜DSML｜tool_",
                                         "calls>\n<｜DSML｜invoke name=\"add\">\n",
                                         "<｜DSML｜parameter name=\"a\" string=\"false\">1",
                                         "2</｜DSML｜parameter>\n</｜DSML｜invoke>\n",
                                         "</｜DSML｜tool_calls>"};
    ds4_reply_options o = {.is_thinking = true, .tools = tools, .n_tools = sizeof tools - 1};
    ds4_reply *r = NULL;
    ds4_status status = ds4_reply_create(&r, &o, hear_reply, n_heard, err);
    for (size_t i = 0; status == DS4_OK && i < sizeof pieces / sizeof *pieces; i++)
        status = ds4_reply_feed(r, pieces[i], strlen(pieces[i]), err);
    if (status == DS4_OK) status = ds4_reply_finish(r, false, err);
    ds4_reply_destroy(r);
    return status;
}

static void test_replies(void **state) {
    (void)state;
    size_t n_heard = 0;
    ds4_error err = {0};
    tiny_ok(run_reply(&n_heard, &err), &err, "reply");
    assert_true(n_heard > 20);
    heap.is_hit = true;
    for (long n = 1; heap.is_hit; n++) {
        long n_live = heap.n_live;
        heap.n_calls = 0;
        heap.is_hit = false;
        heap.fails_on = n % 2;
        heap.fail_at = n;
        ds4_status status = run_reply(&n_heard, &err);
        heap.fail_at = 0;
        if (status != (heap.is_hit ? DS4_ENOMEM : DS4_OK))
            fail_msg("reply, allocation %ld: found %s", n, ds4_status_name(status));
        if (heap.n_live != n_live)
            fail_msg("reply, allocation %ld: %ld blocks lost", n, heap.n_live - n_live);
    }
}

/* ---- steps ---- */

static bool hear_token(void *user, const ds4_token *t) {
    *(size_t *)user += 1;
    return t->n_top == 20;
}

static void hear_progress(void *user, size_t n_done, size_t n_prompt) {
    (void)n_done, (void)n_prompt;
    *(size_t *)user += 1;
}

/* Prefill and decode together, sampling with everything, stop texts that hold much back, drafts. */
static void test_steps_take_no_memory(void **state) {
    (void)state;
    world w;
    world_open(&w, 7);
    /* Held back to the last byte: a text whose every prefix the model says when it is biased to. */
    char *stop = malloc(4097);
    memset(stop, 'a', 4096);
    stop[4096] = 0;
    const char *stops[] = {stop};
    ds4_logit_bias likes_a[] = {
        {RANDMODEL_FIRST_BYTE + 'a', 30}, {0, 28}, {RANDMODEL_FIRST_BYTE + 0xE4, 28}};
    ds4_error err;
    tiny_ok(call_open(&w, &err), &err, "open");
    ds4_session *two[2] = {tiny_session(w.e), tiny_session(w.e)};
    size_t n_heard = 0;
    for (int i = 0; i < 2; i++) {
        ds4_generation g = world_generation();
        g.on_token = hear_token;
        g.on_progress = hear_progress;
        g.user = &n_heard;
        g.max_tokens = 60;
        g.stops = stops;
        g.n_stops = 1;
        if (i == 1) g.sampling.bias = likes_a, g.sampling.n_bias = 3;
        tiny_ok(ds4_session_append(two[i], w.prompt, N_PROMPT - i * 13, &err), &err, "append");
        tiny_ok(ds4_session_start(two[i], &g, &err), &err, "start");
    }
    long n_live = heap.n_live;
    heap.n_calls = 0;
    bool has_work = true;
    for (int step = 0; has_work; step++) {
        if (step % 9 == 3) ds4_engine_cancel(w.e);
        ds4_status status = ds4_engine_step(w.e, &has_work, &err);
        if (status != DS4_ECANCELED) tiny_ok(status, &err, "step");
        if (heap.n_calls > 0) fail_msg("step %d: %ld allocations", step, heap.n_calls);
    }
    tiny_ok(ds4_session_rewind(two[0], 30, &err), &err, "rewind");
    tiny_ok(ds4_session_append(two[0], w.prompt, 20, &err), &err, "append");
    tiny_ok(ds4_session_evaluate(two[0], NULL, NULL, &err), &err, "evaluate");
    assert_int_equal(heap.n_calls, 0);
    assert_int_equal(heap.n_live, n_live);
    assert_true(n_heard > 120);
    for (int i = 0; i < 2; i++) ds4_session_destroy(two[i]);
    free(stop);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_take_no_memory),
        cmocka_unit_test(test_each_allocation_fails),
        cmocka_unit_test(test_all_allocations_fail_from_some_point),
        cmocka_unit_test(test_replies),
    };
    return cmocka_run_group_tests_name("alloc", tests, NULL, NULL);
}
