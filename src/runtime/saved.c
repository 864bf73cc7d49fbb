/* A session in a file: what it is made of, as sections of a snapshot (format/snapshot.h).
 *
 *   STAT   saved_state, little-endian as the machines this runs on
 *   TOKN   int32 [n_tokens]
 *   KVCA   the slot's caches, as the cache layout defines (backend/cache_layout.h)
 *   STRM   the streams kept for the MTP block; only with one
 *   LOGT   float [n_vocab] after the last evaluated token; only if they are known */
#include <stdlib.h>
#include <string.h>

#include "backend/cache_layout.h"
#include "format/snapshot.h"
#include "runtime/runtime.h"

enum {
    TAG_STATE = 0x54415453,
    TAG_TOKENS = 0x4E4B4F54,
    TAG_CACHE = 0x4143564B,
    TAG_STREAMS = 0x4D525453,
    TAG_LOGITS = 0x54474F4C,
};

typedef struct {
    uint32_t n_tokens, n_evaluated, n_high, n_drafted;
} saved_state;

static ds4_status write_piece(void *user, const void *data, size_t n, ds4_error *err) {
    (void)err; /* the writer keeps its errors for the end */
    snapshot_write(user, data, n);
    return DS4_OK;
}

static void write_section(snapshot_writer *w, uint32_t tag, const void *data, size_t n) {
    snapshot_begin(w, tag);
    snapshot_write(w, data, n);
    snapshot_end(w);
}

static ds4_status write_session(snapshot_writer *w, const ds4_session *s, ds4_error *err) {
    ds4_engine *e = s->engine;
    saved_state state = {s->n_tokens, s->n_evaluated, s->n_high, s->n_drafted};
    write_section(w, TAG_STATE, &state, sizeof state);
    write_section(w, TAG_TOKENS, s->tokens, s->n_tokens * sizeof *s->tokens);

    snapshot_begin(w, TAG_CACHE);
    DS4_TRY(e->device->ops->cache_export(e->device, s->slot, s->n_evaluated, write_piece, w, err));
    snapshot_end(w);

    size_t n_bytes = forward_streams_bytes(e->pass);
    if (n_bytes > 0) {
        void *streams = malloc(n_bytes);
        if (!streams) return ds4_fail_nomem(err, "session: save", n_bytes);
        forward_read_streams(e->pass, s->slot, streams);
        write_section(w, TAG_STREAMS, streams, n_bytes);
        free(streams);
    }
    if (s->has_logits) write_section(w, TAG_LOGITS, s->logits, e->shape.n_vocab * sizeof *s->logits);
    return snapshot_finish(w, err);
}

ds4_status ds4_session_save(const ds4_session *s, const char *path, ds4_error *err) {
    snapshot_writer *w;
    DS4_TRY(snapshot_writer_create(&w, path, s->engine->info.fingerprint, err));
    ds4_status status = write_session(w, s, err);
    snapshot_writer_destroy(w);
    return status;
}

/* ---- loading ------------------------------------------------------------------------------------ */

typedef struct {
    saved_state    state;
    const uint8_t *tokens, *cache, *streams, *logits; /* streams, logits: NULL if not there */
    size_t         n_cache;
} saved_session;

/* A section of exactly n bytes. */
static ds4_status get_section(const snapshot *file, uint32_t tag, size_t n, const uint8_t **data,
                              const char *path, ds4_error *err) {
    size_t found = 0;
    if (!snapshot_find(file, tag, data, &found))
        return ds4_fail(err, DS4_EFORMAT, "%s: section '%.4s' is missing", path, (const char *)&tag);
    if (found != n)
        return ds4_fail(err, DS4_EFORMAT, "%s: section '%.4s': found %zu bytes, expected %zu", path,
                        (const char *)&tag, found, n);
    return DS4_OK;
}

/* Checks everything against the engine, so that taking it over cannot fail. */
static ds4_status check_session(saved_session *out, const snapshot *file, const ds4_session *s,
                                const char *path, ds4_error *err) {
    const ds4_engine *e = s->engine;
    const uint8_t    *data;
    DS4_TRY(get_section(file, TAG_STATE, sizeof out->state, &data, path, err));
    memcpy(&out->state, data, sizeof out->state);
    const saved_state *st = &out->state;
    if (st->n_tokens > e->limits.n_ctx)
        return ds4_fail(err, DS4_EFULL, "%s: %u tokens, the context holds %u", path, st->n_tokens,
                        e->limits.n_ctx);
    bool is_sound = st->n_evaluated <= st->n_tokens && st->n_evaluated <= st->n_high &&
                    st->n_high - st->n_evaluated <= FORWARD_SLACK && st->n_drafted <= st->n_evaluated &&
                    (!e->limits.has_mtp || st->n_drafted + 1 >= st->n_evaluated);
    if (!is_sound)
        return ds4_fail(err, DS4_EFORMAT, "%s: %u tokens, %u evaluated, %u held, %u drafted: not possible",
                        path, st->n_tokens, st->n_evaluated, st->n_high, st->n_drafted);

    DS4_TRY(get_section(file, TAG_TOKENS, st->n_tokens * sizeof(int32_t), &out->tokens, path, err));
    for (uint32_t i = 0; i < st->n_tokens; i++) {
        int32_t id;
        memcpy(&id, out->tokens + i * sizeof id, sizeof id);
        if (id < 0 || (uint32_t)id >= e->shape.n_vocab)
            return ds4_fail(err, DS4_EFORMAT, "%s: token %u: found id %d, expected 0 to %u", path, i, id,
                            e->shape.n_vocab - 1);
    }
    cache_layer layers[CONFIG_MAX_LAYERS];
    cache_plan  caches = forward_cache_plan(&e->shape, &e->limits, layers);
    out->n_cache = cache_stream_bytes(&caches, st->n_evaluated);
    DS4_TRY(get_section(file, TAG_CACHE, out->n_cache, &out->cache, path, err));
    size_t n_streams = forward_streams_bytes(e->pass), n_logits = e->shape.n_vocab * sizeof(float), n;
    if (n_streams > 0) DS4_TRY(get_section(file, TAG_STREAMS, n_streams, &out->streams, path, err));
    /* With nothing left to evaluate the next token can only come from them. */
    bool needs_logits = st->n_tokens > 0 && st->n_evaluated == st->n_tokens;
    if (needs_logits || snapshot_find(file, TAG_LOGITS, &data, &n))
        DS4_TRY(get_section(file, TAG_LOGITS, n_logits, &out->logits, path, err));
    return DS4_OK;
}

static ds4_status take_session(ds4_session *s, const saved_session *saved, ds4_error *err) {
    ds4_engine *e = s->engine;
    if (s->is_generating) session_end(s, DS4_FINISH_CANCELED);
    s->n_tokens = s->n_evaluated = s->n_high = s->n_drafted = 0;
    s->has_logits = false;
    DS4_TRY(e->device->ops->cache_import(e->device, s->slot, saved->state.n_evaluated, saved->cache,
                                         saved->n_cache, err));
    if (saved->streams) forward_write_streams(e->pass, s->slot, saved->streams);
    if (saved->logits) memcpy(s->logits, saved->logits, e->shape.n_vocab * sizeof *s->logits);
    s->has_logits = saved->logits != NULL;
    memcpy(s->tokens, saved->tokens, saved->state.n_tokens * sizeof *s->tokens);
    s->n_tokens = saved->state.n_tokens;
    s->n_evaluated = saved->state.n_evaluated;
    s->n_high = saved->state.n_high;
    s->n_drafted = saved->state.n_drafted;
    return DS4_OK;
}

ds4_status ds4_session_load(ds4_session *s, const char *path, ds4_error *err) {
    snapshot *file;
    DS4_TRY(snapshot_open(&file, path, s->engine->info.fingerprint, err));
    saved_session saved = {0};
    ds4_status    status = check_session(&saved, file, s, path, err);
    if (status == DS4_OK) status = take_session(s, &saved, err);
    snapshot_close(file);
    return status;
}
