#include "tests/support/tiny.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

uint64_t tiny_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint32_t tiny_below(uint64_t *state, uint32_t n) {
    return (uint32_t)(tiny_random(state) % n);
}

void tiny_ok(ds4_status status, const ds4_error *err, const char *what) {
    if (status != DS4_OK) fail_msg("%s: %s: %s", what, ds4_status_name(status), err->message);
}

/* ---- models ---- */

static uint32_t at_most(uint32_t n, uint32_t limit) {
    return n < limit ? n : limit;
}

randmodel_shape tiny_shape(uint64_t seed) {
    randmodel_shape s = randmodel_shape_random(seed);
    uint64_t state = seed * 77 + 1;
    s.n_layer = at_most(s.n_layer, 4);
    s.ratio[tiny_below(&state, s.n_layer)] = 4;
    s.n_hash_layer = at_most(s.n_hash_layer, s.n_layer);
    s.n_embd = at_most(s.n_embd, 256);
    s.head_dim = at_most(s.head_dim, 64);
    s.n_rot = at_most(s.n_rot, 16);
    s.n_q_rank = at_most(s.n_q_rank, 96);
    if (tiny_below(&state, 2)) {
        static const uint32_t odd[] = {1, 3, 5};
        s.n_head = odd[tiny_below(&state, 3)];
        s.n_out_group = 1;
    }
    s.n_head = at_most(s.n_head, 6);
    s.n_ff = at_most(s.n_ff, 96);
    s.n_index_head = at_most(s.n_index_head, 5);
    s.has_mtp = seed % 2;
    return s;
}

void tiny_write(tiny_model *m, const randmodel_shape *shape, uint64_t seed) {
    const char *tmp = getenv("TMPDIR");
    ds4_error err;
    snprintf(m->dir, sizeof m->dir, "%s/ds4-tiny-XXXXXX", tmp && strlen(tmp) < 200 ? tmp : "/tmp");
    if (!mkdtemp(m->dir)) fail_msg("no folder like %s", m->dir);
    snprintf(m->path, sizeof m->path, "%s/model.gguf", m->dir);
    m->shape = *shape;
    m->seed = seed;
    tiny_ok(randmodel_write_file(shape, seed, m->path, &err), &err, m->path);
}

void tiny_remove(tiny_model *m) {
    DIR *dir = opendir(m->dir);
    for (struct dirent *d; dir && (d = readdir(dir));)
        if (d->d_name[0] != '.') unlinkat(dirfd(dir), d->d_name, 0);
    if (dir) closedir(dir);
    rmdir(m->dir);
}

const char *tiny_path(const tiny_model *m, char path[300], const char *name) {
    snprintf(path, 300, "%s/%.40s", m->dir, name);
    return path;
}

ds4_engine_options tiny_options(const tiny_model *m) {
    ds4_engine_options o = ds4_engine_defaults();
    o.n_threads = 1;
    o.n_step_rows = TINY_MAX_TOKENS;
    o.n_ctx = TINY_MAX_TOKENS;
    o.use_mtp = m->shape.has_mtp;
    return o;
}

ds4_engine *tiny_open(const tiny_model *m, const ds4_engine_options *options) {
    ds4_engine *e = NULL;
    ds4_error err;
    if (ds4_engine_open(&e, m->path, options, &err) != DS4_OK)
        fail_msg("model of seed %llu: %s", (unsigned long long)m->seed, err.message);
    return e;
}

ds4_session *tiny_session(ds4_engine *e) {
    ds4_session *s = NULL;
    ds4_error err;
    tiny_ok(ds4_session_create(&s, e, &err), &err, "session");
    return s;
}

void tiny_tokens(const tiny_model *m, int32_t *ids, size_t n, uint64_t seed) {
    uint64_t state = seed;
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)tiny_below(&state, m->shape.n_vocab);
}

/* ---- talks ---- */

void tiny_record_init(tiny_record *r, const ds4_engine *e) {
    *r = (tiny_record){.n_vocab = ds4_engine_info(e)->n_vocab};
    r->logits = malloc(TINY_MAX_TOKENS * r->n_vocab * sizeof *r->logits);
    r->is_seen = calloc(TINY_MAX_TOKENS, sizeof *r->is_seen);
    if (!r->logits || !r->is_seen) fail_msg("no memory for a record");
}

void tiny_record_clear(tiny_record *r) {
    memset(r->is_seen, 0, TINY_MAX_TOKENS * sizeof *r->is_seen);
    r->n_tokens = 0;
}

void tiny_record_release(tiny_record *r) {
    free(r->logits);
    free(r->is_seen);
    *r = (tiny_record){0};
}

void tiny_hear_logits(void *record, size_t pos, const float *logits) {
    tiny_record *r = record;
    assert_true(pos < TINY_MAX_TOKENS);
    memcpy(r->logits + pos * r->n_vocab, logits, r->n_vocab * sizeof *logits);
    r->is_seen[pos] = true;
}

void tiny_take_logits(tiny_record *r, const ds4_session *s) {
    const float *logits = ds4_session_logits(s);
    size_t n;
    ds4_session_tokens(s, &n);
    if (logits && n > 0) tiny_hear_logits(r, n - 1, logits);
}

static bool hear_token(void *record, const ds4_token *t) {
    tiny_record *r = record;
    assert_true(r->n_tokens < TINY_MAX_GENERATED);
    assert_int_equal(t->n_top, TINY_TOP);
    tiny_token *to = &r->tokens[r->n_tokens++];
    *to = (tiny_token){.id = t->id, .draft = t->draft, .logprob = t->logprob};
    memcpy(to->top, t->top, sizeof to->top);
    return true;
}

ds4_generation tiny_greedy(tiny_record *r, uint32_t n) {
    ds4_generation g = ds4_generation_defaults();
    g.sampling.temperature = 0;
    g.max_tokens = n;
    g.n_top = TINY_TOP;
    g.ignore_eos = true;
    g.on_token = hear_token;
    g.user = r;
    return g;
}

void tiny_go_on(ds4_session *s, uint32_t n_generate, tiny_record *r) {
    ds4_error err;
    tiny_ok(ds4_session_evaluate(s, tiny_hear_logits, r, &err), &err, "evaluate");
    if (n_generate > 0) {
        ds4_generation g = tiny_greedy(r, n_generate);
        tiny_ok(ds4_session_generate(s, &g, &err), &err, "generate");
        tiny_ok(ds4_session_evaluate(s, tiny_hear_logits, r, &err), &err, "evaluate");
    }
    tiny_take_logits(r, s);
    if (!ds4_session_logits(s)) fail_msg("no logits though everything is evaluated");
}

/* Evaluates all tokens of the session again, from the start: the positions that were generated too.
 */
static void hear_all(tiny_record *r, ds4_session *s, const tiny_model *m) {
    tiny_record all = {.n_vocab = r->n_vocab};
    size_t n;
    const int32_t *lent = ds4_session_tokens(s, &n);
    int32_t ids[TINY_MAX_TOKENS];
    ds4_error err;
    memcpy(ids, lent, n * sizeof *ids);
    all.logits = malloc(TINY_MAX_TOKENS * r->n_vocab * sizeof *all.logits);
    all.is_seen = calloc(TINY_MAX_TOKENS, sizeof *all.is_seen);
    if (!all.logits || !all.is_seen) fail_msg("no memory for a record");
    memcpy(all.tokens, r->tokens, sizeof all.tokens);
    all.n_tokens = r->n_tokens;
    tiny_ok(ds4_session_rewind(s, 0, &err), &err, "rewind");
    tiny_ok(ds4_session_append(s, ids, n, &err), &err, "append");
    tiny_ok(ds4_session_evaluate(s, tiny_hear_logits, &all, &err), &err, "evaluate");
    tiny_same(&all, r, 0, n, true, m, "the plain way, generated and then read");
    tiny_record_release(r);
    *r = all;
}

void tiny_expect(tiny_record *r, const tiny_model *m, const ds4_engine_options *options,
                 const tiny_talk *talk) {
    ds4_engine *e = tiny_open(m, options);
    ds4_session *s = tiny_session(e);
    ds4_error err;
    tiny_record_init(r, e);
    tiny_ok(ds4_session_append(s, talk->prompt, talk->n_prompt, &err), &err, "append");
    tiny_go_on(s, talk->n_generate, r);
    hear_all(r, s, m);
    ds4_session_destroy(s);
    ds4_engine_close(e);
}

/* ---- comparing ---- */

static void differ(const tiny_model *m, const char *way, const char *fmt, ...) DS4_PRINTF(3, 4);

static void differ(const tiny_model *m, const char *way, const char *fmt, ...) {
    char what[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    fail_msg("model of seed %llu, %s: %s", (unsigned long long)m->seed, way, what);
}

static void same_logits(const tiny_record *found, const tiny_record *expected, size_t pos,
                        const tiny_model *m, const char *way) {
    size_t n = found->n_vocab;
    const float *f = found->logits + pos * n, *x = expected->logits + pos * n;
    if (memcmp(f, x, n * sizeof *f) == 0) return;
    size_t id = 0, n_other = 0;
    for (size_t i = n; i-- > 0;)
        if (memcmp(&f[i], &x[i], sizeof *f) != 0) id = i, n_other++;
    differ(
        m, way,
        "%zu of %zu logits after position %zu differ, first of id %zu: found %.9g, expected %.9g",
        n_other, n, pos, id, (double)f[id], (double)x[id]);
}

static void same_tokens(const tiny_record *found, const tiny_record *expected, bool has_drafts,
                        const tiny_model *m, const char *way) {
    if (found->n_tokens != expected->n_tokens)
        differ(m, way, "found %zu tokens, expected %zu", found->n_tokens, expected->n_tokens);
    for (size_t i = 0; i < found->n_tokens; i++) {
        const tiny_token *f = &found->tokens[i], *x = &expected->tokens[i];
        if (f->id != x->id) differ(m, way, "token %zu: found id %d, expected %d", i, f->id, x->id);
        if (memcmp(&f->logprob, &x->logprob, sizeof f->logprob) != 0)
            differ(m, way, "token %zu: found logprob %.9g, expected %.9g", i, (double)f->logprob,
                   (double)x->logprob);
        if (memcmp(f->top, x->top, sizeof f->top) != 0)
            differ(m, way, "token %zu: other likeliest tokens than expected", i);
        if (has_drafts && f->draft != x->draft)
            differ(m, way, "token %zu: found draft %d, expected %d", i, f->draft, x->draft);
    }
}

void tiny_same(const tiny_record *found, const tiny_record *expected, size_t first, size_t end,
               bool has_drafts, const tiny_model *m, const char *way_format, ...) {
    char way[200];
    va_list args;
    va_start(args, way_format);
    vsnprintf(way, sizeof way, way_format, args);
    va_end(args);
    for (size_t pos = 0; pos < TINY_MAX_TOKENS; pos++) {
        if (found->is_seen[pos] && expected->is_seen[pos])
            same_logits(found, expected, pos, m, way);
        if (!found->is_seen[pos] && pos >= first && pos < end)
            differ(m, way, "no logits after position %zu", pos);
    }
    same_tokens(found, expected, has_drafts, m, way);
}
