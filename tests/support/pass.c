#include "tests/support/pass.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void must(ds4_status status, const ds4_error *err) {
    if (status != DS4_OK) fail_msg("%s: %s", ds4_status_name(status), err->message);
}

static forward_limits limits_of(const pass_options *o) {
    return (forward_limits){.n_rows = o->n_ctx,
                            .n_logits = o->n_ctx,
                            .n_slots = 1,
                            .n_ctx = o->n_ctx,
                            .is_plain = o->has_float_caches};
}

void pass_open(pass *p, const pass_options *o) {
    ds4_error err = {0};
    *p = (pass){.options = *o};
    must(gguf_open(&p->file, o->path, &err), &err);
    must(config_read(&p->shape, p->file, &err), &err);
    backend_options device = {.device = "cpu", .kernels = o->kernels, .n_threads = o->n_threads};
    must(backend_open(&p->device, &device, &err), &err);
    if (o->is_tapped) p->watched = tap_create(p->device, &p->shape, o->n_ctx);
    weights_source source = {.file = p->file, .is_plain = o->has_float_weights};
    must(weights_bind(&p->w, &source, &p->shape, p->device, &p->memory, &err), &err);
    forward_limits limits = limits_of(o);
    must(forward_create(&p->model, &p->shape, &p->w, p->device, &limits, &err), &err);
    p->logits = calloc((size_t)o->n_ctx * p->shape.n_vocab, sizeof *p->logits);
    assert_non_null(p->logits);
}

void pass_close(pass *p) {
    forward_destroy(p->model);
    tap_destroy(p->watched);
    p->device->ops->close(p->device);
    arena_release(&p->memory);
    gguf_close(p->file);
    free(p->logits);
    *p = (pass){0};
}

/* ---- steps ---------------------------------------------------------------------------------- */

uint32_t pass_at_once(uint32_t pos, uint32_t n_left) {
    (void)pos;
    return n_left;
}

uint32_t pass_one_by_one(uint32_t pos, uint32_t n_left) {
    (void)pos, (void)n_left;
    return 1;
}

uint32_t pass_in_chunks(uint32_t pos, uint32_t n_left) {
    static const uint32_t sizes[] = {3, 1, 9, 2, 17, 96, 128, 5, 130};
    uint32_t end = 0;
    for (size_t i = 0;; i = (i + 1) % (sizeof sizes / sizeof *sizes)) {
        end += sizes[i];
        if (end > pos) return end - pos < n_left ? end - pos : n_left;
    }
}

void pass_run(pass *p, const int32_t *ids, uint32_t n, pass_cut cut) {
    step_row *rows = calloc(n, sizeof *rows);
    uint32_t *logit_rows = calloc(n, sizeof *logit_rows);
    ds4_error err = {0};
    assert_true(rows && logit_rows && n <= p->options.n_ctx);
    for (uint32_t pos = 0, n_now; pos < n; pos += n_now) {
        n_now = cut(pos, n - pos);
        for (uint32_t i = 0; i < n_now; i++) {
            rows[i] = (step_row){.token = ids[pos + i], .pos = pos + i};
            logit_rows[i] = i;
        }
        step_run run = {.n = n_now, .pos = pos, .is_prompt = n_now > 1};
        step_batch batch = {.rows = rows,
                            .runs = &run,
                            .logit_rows = logit_rows,
                            .n_rows = n_now,
                            .n_runs = 1,
                            .n_logits = n_now};
        float *logits = p->logits + (size_t)pos * p->shape.n_vocab;
        must(forward_step(p->model, &batch, logits, NULL, &err), &err);
    }
    free(rows);
    free(logit_rows);
}

/* ---- caches --------------------------------------------------------------------------------- */

/* Walks the exported stream and copies the bytes [first, first + n) of it. */
typedef struct {
    size_t at, first, n;
    uint8_t *to;
} stream_part;

static ds4_status copy_part(void *user, const void *data, size_t n, ds4_error *err) {
    (void)err;
    stream_part *s = user;
    const uint8_t *bytes = data;
    for (size_t i = 0; i < n; i++, s->at++)
        if (s->at >= s->first && s->at - s->first < s->n) s->to[s->at - s->first] = bytes[i];
    return DS4_OK;
}

float *pass_cached_rows(const pass *p, uint32_t n_pos, uint32_t layer, cache_part part) {
    cache_layer layers[CONFIG_MAX_LAYERS];
    forward_limits limits = limits_of(&p->options);
    cache_plan plan = forward_cache_plan(&p->shape, &limits, layers);
    stream_part s = {0};
    assert_true(p->options.has_float_caches && layer < p->shape.n_layer);
    for (uint32_t il = 0; il <= layer; il++) {
        for (cache_part i = 0; i < (il < layer ? CACHE_N_PARTS : part + 1); i++) {
            uint32_t first, n;
            cache_part_held(&plan, &layers[il], i, n_pos, &first, &n);
            s.first += s.n; /* the one before */
            s.n = n * cache_part_row_bytes(&plan, &layers[il], i);
        }
    }
    if (s.n == 0) return NULL;
    float *rows = malloc(s.n);
    assert_non_null(rows);
    s.to = (uint8_t *)rows;
    ds4_error err = {0};
    must(p->device->ops->cache_export(p->device, 0, n_pos, copy_part, &s, &err), &err);
    assert_int_equal(s.at, cache_stream_bytes(&plan, n_pos));
    return rows;
}
