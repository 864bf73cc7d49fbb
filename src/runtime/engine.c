#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cache_layout.h"
#include "base/threads.h"
#include "runtime/runtime.h"

#define DS4_VERSION "0.1.0"

const char *ds4_version(void) {
    return DS4_VERSION;
}

/* The kernel tables of backend/cpu that are built for this kind of processor. */
#if defined(__x86_64__)
#define BUILT_KERNELS "ref avx2 avx512"
#elif defined(__aarch64__)
#define BUILT_KERNELS "ref neon"
#else
#define BUILT_KERNELS "ref"
#endif

const char *ds4_build_info(void) {
#if defined(__clang__)
    return "cpu " BUILT_KERNELS "; clang " __clang_version__;
#else
    return "cpu " BUILT_KERNELS "; gcc " __VERSION__;
#endif
}

void ds4_free(void *memory) {
    free(memory);
}

ds4_engine_options ds4_engine_defaults(void) {
    return (ds4_engine_options){.n_sessions = 1, .n_step_rows = 128};
}

/* ---- limits and memory -------------------------------------------------------------------------- */

static ds4_status check_options(const ds4_engine_options *o, ds4_error *err) {
    enum { MAX_SESSIONS = 4096, MAX_STEP_ROWS = 8192 };
    if (o->n_sessions < 1 || o->n_sessions > MAX_SESSIONS)
        return ds4_fail(err, DS4_EINVAL, "n_sessions: found %u, expected 1 to %d", o->n_sessions,
                        MAX_SESSIONS);
    if (o->n_step_rows < 1 || o->n_step_rows > MAX_STEP_ROWS)
        return ds4_fail(err, DS4_EINVAL, "n_step_rows: found %u, expected 1 to %d", o->n_step_rows,
                        MAX_STEP_ROWS);
    if (o->n_ctx > CONFIG_MAX_POS)
        return ds4_fail(err, DS4_EINVAL, "n_ctx: found %u, expected at most %d", o->n_ctx, CONFIG_MAX_POS);
    if (o->numerics != DS4_NUMERICS_MODEL && o->numerics != DS4_NUMERICS_PLAIN)
        return ds4_fail(err, DS4_EINVAL, "numerics: unknown value %d", (int)o->numerics);
    return DS4_OK;
}

/* Every generating session has its row in every step. */
static uint32_t step_rows(const ds4_engine_options *o) {
    return o->n_step_rows > o->n_sessions ? o->n_step_rows : o->n_sessions;
}

forward_limits engine_limits(const config *c, const ds4_engine_options *o, bool has_mtp) {
    /* Logits of a whole prompt chunk are wanted only by measurements: at most 64 MiB for them. */
    const uint64_t max_bytes = 64u << 20;
    forward_limits m = {.n_slots = o->n_sessions,
                        .n_ctx = o->n_ctx ? o->n_ctx : c->n_ctx,
                        .is_plain = o->numerics == DS4_NUMERICS_PLAIN,
                        .has_mtp = has_mtp};
    m.n_rows = step_rows(o) + (has_mtp ? o->n_sessions : 0);
    uint64_t n_logits = max_bytes / ((uint64_t)c->n_vocab * sizeof(float));
    m.n_logits = n_logits < m.n_rows ? (uint32_t)n_logits : m.n_rows;
    if (m.n_logits < o->n_sessions) m.n_logits = o->n_sessions;
    return m;
}

static backend_options device_options(const ds4_engine_options *o) {
    return (backend_options){.device = o->device, .kernels = o->kernels, .n_threads = o->n_threads};
}

static ds4_memory_plan plan_memory(const config *c, const weights *w, const forward_limits *m,
                                   const ds4_engine_options *o, uint64_t file_bytes) {
    cache_layer     layers[CONFIG_MAX_LAYERS];
    cache_plan      caches = forward_cache_plan(c, m, layers);
    backend_options device = device_options(o);
    ds4_memory_plan p = {.file = file_bytes, .weights = w->copy_bytes};
    p.scratch = forward_scratch_bytes(c, m, &device) + (uint64_t)m->n_logits * c->n_vocab * sizeof(float) +
                m->n_rows * sizeof(step_row);
    p.session_fixed = cache_fixed_bytes(&caches) + (uint64_t)c->n_vocab * sizeof(float);
    p.session_growth = cache_rows_bytes(&caches) + (uint64_t)m->n_ctx * sizeof(int32_t);
    p.total = p.file + p.weights + p.scratch + m->n_slots * (p.session_fixed + p.session_growth);
    return p;
}

/* ---- opening ------------------------------------------------------------------------------------ */

/* Opens the files, reads and checks everything but the vocabulary; binds to e->device if it is set. */
static ds4_status read_model(ds4_engine *e, const char *path, ds4_error *err) {
    DS4_TRY(gguf_open(&e->file, path, err));
    DS4_TRY(config_read(&e->shape, e->file, err));
    if (e->options.n_ctx > e->shape.n_ctx)
        return ds4_fail(err, DS4_EINVAL, "n_ctx: found %u, the model knows %u positions",
                        e->options.n_ctx, e->shape.n_ctx);
    bool has_mtp = e->options.use_mtp || e->options.mtp_path;
    if (e->options.mtp_path) DS4_TRY(gguf_open(&e->mtp_file, e->options.mtp_path, err));
    e->limits = engine_limits(&e->shape, &e->options, has_mtp);
    e->n_step_rows = step_rows(&e->options);
    return DS4_OK;
}

static ds4_status bind_weights(ds4_engine *e, backend *device, ds4_error *err) {
    weights_source source = {.file = e->file, .mtp_file = e->mtp_file, .use_mtp = e->limits.has_mtp,
                             .is_plain = e->limits.is_plain};
    DS4_TRY(weights_bind(&e->w, &source, &e->shape, device, &e->memory, err));
    uint64_t file_bytes = gguf_file_bytes(e->file) + (e->mtp_file ? gguf_file_bytes(e->mtp_file) : 0);
    e->plan = plan_memory(&e->shape, &e->w, &e->limits, &e->options, file_bytes);
    return DS4_OK;
}

ds4_status ds4_engine_plan(ds4_memory_plan *plan, const char *path, const ds4_engine_options *options,
                           ds4_error *err) {
    DS4_TRY(check_options(options, err));
    ds4_engine *e = calloc(1, sizeof *e);
    if (!e) return ds4_fail_nomem(err, "engine", sizeof *e);
    e->options = *options;
    ds4_status status = read_model(e, path, err);
    if (status == DS4_OK) status = bind_weights(e, NULL, err);
    if (status == DS4_OK) *plan = e->plan;
    ds4_engine_close(e);
    return status;
}

static ds4_status load_vocab(ds4_engine *e, ds4_error *err) {
    DS4_TRY(vocab_load(&e->words, e->file, err));
    e->revision = chat_revision_of(e->file);
    if (vocab_n_tokens(e->words) != e->shape.n_vocab)
        return ds4_fail(err, DS4_EFORMAT, "%s: %zu tokens in the vocabulary, expected %u", gguf_path(e->file),
                        vocab_n_tokens(e->words), e->shape.n_vocab);
    for (uint32_t id = 0; id < e->shape.n_vocab; id++) {
        size_t n = vocab_token_bytes(e->words, (int32_t)id).n;
        if (n > e->n_longest_token) e->n_longest_token = n;
    }
    return DS4_OK;
}

static ds4_status allocate(ds4_engine *e, ds4_error *err) {
    const forward_limits *m = &e->limits;
    e->sessions = calloc(m->n_slots, sizeof *e->sessions);
    e->rows = calloc(m->n_rows, sizeof *e->rows);
    e->runs = calloc(m->n_slots, sizeof *e->runs);
    e->logit_rows = calloc(m->n_logits, sizeof *e->logit_rows);
    e->logits = calloc((size_t)m->n_logits * e->shape.n_vocab, sizeof *e->logits);
    if (!e->sessions || !e->rows || !e->runs || !e->logit_rows || !e->logits)
        return ds4_fail_nomem(err, "engine: step buffers", (size_t)m->n_logits * e->shape.n_vocab * 4);
    return DS4_OK;
}

static ds4_status name_model(ds4_engine *e, const char *path, ds4_error *err) {
    strview name = {0};
    bool    found;
    if (gguf_get_string(e->file, "general.name", &name, &found, NULL) != DS4_OK || !found || name.n == 0) {
        const char *slash = strrchr(path, '/');
        name.data = slash ? slash + 1 : path;
        name.n = strlen(name.data);
    }
    e->name = arena_strdup(&e->memory, name.data, name.n);
    return e->name ? DS4_OK : ds4_fail_nomem(err, "engine", name.n);
}

static void fill_info(ds4_engine *e, uint32_t n_threads) {
    const config *c = &e->shape;
    /* A saved cache also depends on how far a slot can be rewound. */
    uint64_t fingerprint = e->w.fingerprint ^ ((uint64_t)FORWARD_SLACK << 56);
    e->info = (ds4_model_info){
        .name = e->name,
        .device = e->device->ops->name,
        .kernels = e->device->ops->describe(e->device),
        .n_threads = n_threads,
        .n_layer = c->n_layer,
        .n_embd = c->n_embd,
        .n_vocab = c->n_vocab,
        .n_expert = c->n_expert,
        .n_expert_used = c->n_expert_used,
        .n_ctx_model = c->n_ctx,
        .n_ctx = e->limits.n_ctx,
        .n_params = e->w.n_params,
        .has_mtp = e->w.has_mtp,
        .bos = vocab_bos(e->words),
        .eos = vocab_eos(e->words),
        .fingerprint = fingerprint,
    };
}

DS4_PRINTF(2, 3) static void log_line(const ds4_engine *e, const char *fmt, ...) {
    char    line[512];
    va_list args;
    if (!e->options.on_log) return;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    e->options.on_log(e->options.user, line);
}

static void log_engine(const ds4_engine *e, const char *path) {
    const ds4_model_info  *i = &e->info;
    const ds4_memory_plan *p = &e->plan;
    const double           mib = 1 << 20;
    log_line(e, "%s: %.200s, %u layers, width %u, %u experts (%u used), %.2f M parameters", path, i->name,
             i->n_layer, i->n_embd, i->n_expert, i->n_expert_used, (double)i->n_params / 1e6);
    log_line(e, "device %s, kernels %s, %u threads, numerics %s%s", i->device, i->kernels, i->n_threads,
             e->limits.is_plain ? "plain" : "model", i->has_mtp ? ", MTP block" : "");
    log_line(e, "%u sessions of %u tokens: mapped file %.1f MiB, copies %.1f, scratch %.1f, "
             "each session %.1f + %.1f MiB", e->limits.n_slots, i->n_ctx, (double)p->file / mib,
             (double)p->weights / mib, (double)p->scratch / mib, (double)p->session_fixed / mib,
             (double)p->session_growth / mib);
}

static ds4_status open_engine(ds4_engine *e, const char *path, ds4_error *err) {
    DS4_TRY(read_model(e, path, err));
    DS4_TRY(load_vocab(e, err));
    if (!e->options.n_threads) e->options.n_threads = threads_default_count();
    backend_options device = device_options(&e->options);
    DS4_TRY(backend_open(&e->device, &device, err));
    DS4_TRY(bind_weights(e, e->device, err));
    DS4_TRY(forward_create(&e->pass, &e->shape, &e->w, e->device, &e->limits, err));
    DS4_TRY(allocate(e, err));
    DS4_TRY(name_model(e, path, err));
    fill_info(e, e->options.n_threads);
    log_engine(e, path);
    return DS4_OK;
}

ds4_status ds4_engine_open(ds4_engine **engine, const char *path, const ds4_engine_options *options,
                           ds4_error *err) {
    DS4_TRY(check_options(options, err));
    ds4_engine *e = calloc(1, sizeof *e);
    if (!e) return ds4_fail_nomem(err, "engine", sizeof *e);
    e->options = *options;
    ds4_status status = open_engine(e, path, err);
    if (status != DS4_OK) {
        ds4_engine_close(e);
        return status;
    }
    *engine = e;
    return DS4_OK;
}

void ds4_engine_close(ds4_engine *e) {
    if (!e) return;
    forward_destroy(e->pass);
    if (e->device) e->device->ops->close(e->device);
    vocab_destroy(e->words);
    gguf_close(e->mtp_file);
    gguf_close(e->file);
    arena_release(&e->memory);
    free(e->sessions);
    free(e->rows);
    free(e->runs);
    free(e->logit_rows);
    free(e->logits);
    free(e);
}

const ds4_model_info *ds4_engine_info(const ds4_engine *e) {
    return &e->info;
}

ds4_memory_plan ds4_engine_memory(const ds4_engine *e) {
    return e->plan;
}

void ds4_engine_cancel(ds4_engine *e) {
    atomic_store(&e->cancel, true);
}
