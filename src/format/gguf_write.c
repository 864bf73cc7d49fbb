#include "format/gguf_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "quant/quant.h"

enum { DEFAULT_ALIGNMENT = 32, MAX_ALIGNMENT = 1 << 30 };

typedef struct {
    const void *data;
    uint64_t n_bytes;
} tensor_data;

struct gguf_writer {
    uint32_t alignment;
    strbuf kv, infos; /* as they will stand in the file */
    strbuf tensors;   /* tensor_data, in file order */
    uint64_t n_kv, n_tensors;
    uint64_t n_data;   /* offset of the next tensor from the data's start */
    ds4_status status; /* of the additions: the first failure, with its message */
    ds4_error error;
};

/* Where the bytes of a finished file go. */
typedef struct {
    void *to;
    ds4_status (*write)(void *to, const void *data, size_t n, ds4_error *err);
} sink;

static void put_uint(strbuf *b, uint64_t v, unsigned n_bytes) {
    uint8_t bytes[8];
    for (unsigned i = 0; i < n_bytes; i++) bytes[i] = (uint8_t)(v >> 8 * i);
    strbuf_append(b, bytes, n_bytes);
}

static void put_string(strbuf *b, const char *s, size_t n) {
    put_uint(b, n, 8);
    strbuf_append(b, s, n);
}

static void put_key(gguf_writer *w, const char *key, gguf_value_type type) {
    put_string(&w->kv, key, strlen(key));
    put_uint(&w->kv, type, 4);
    w->n_kv++;
}

ds4_status gguf_writer_create(gguf_writer **out, uint32_t alignment, ds4_error *err) {
    if (alignment < 8 || alignment > MAX_ALIGNMENT || (alignment & (alignment - 1)))
        return ds4_fail(err, DS4_EINVAL,
                        "gguf: alignment %u, expected a power of two from 8 to 2^30", alignment);
    gguf_writer *w = calloc(1, sizeof *w);
    if (!w) return ds4_fail_nomem(err, "gguf writer", sizeof *w);
    w->alignment = alignment;
    if (alignment != DEFAULT_ALIGNMENT) gguf_add_u32(w, "general.alignment", alignment);
    *out = w;
    return DS4_OK;
}

void gguf_writer_destroy(gguf_writer *w) {
    if (!w) return;
    strbuf_release(&w->kv);
    strbuf_release(&w->infos);
    strbuf_release(&w->tensors);
    free(w);
}

void gguf_add_u32(gguf_writer *w, const char *key, uint32_t v) {
    put_key(w, key, GGUF_U32);
    put_uint(&w->kv, v, 4);
}

void gguf_add_u64(gguf_writer *w, const char *key, uint64_t v) {
    put_key(w, key, GGUF_U64);
    put_uint(&w->kv, v, 8);
}

void gguf_add_f32(gguf_writer *w, const char *key, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_key(w, key, GGUF_F32);
    put_uint(&w->kv, bits, 4);
}

void gguf_add_bool(gguf_writer *w, const char *key, bool v) {
    put_key(w, key, GGUF_BOOL);
    put_uint(&w->kv, v, 1);
}

void gguf_add_string(gguf_writer *w, const char *key, strview v) {
    put_key(w, key, GGUF_STRING);
    put_string(&w->kv, v.data, v.n);
}

void gguf_add_array(gguf_writer *w, const char *key, gguf_value_type item_type, const void *items,
                    uint64_t n) {
    put_key(w, key, GGUF_ARRAY);
    put_uint(&w->kv, item_type, 4);
    put_uint(&w->kv, n, 8);
    strbuf_append(&w->kv, items, (size_t)n * gguf_value_bytes(item_type));
}

void gguf_add_strings(gguf_writer *w, const char *key, const strview *items, uint64_t n) {
    put_key(w, key, GGUF_ARRAY);
    put_uint(&w->kv, GGUF_STRING, 4);
    put_uint(&w->kv, n, 8);
    for (uint64_t i = 0; i < n; i++) put_string(&w->kv, items[i].data, items[i].n);
}

void gguf_add_kv(gguf_writer *w, const gguf_kv *kv) {
    put_string(&w->kv, kv->key.data, kv->key.n);
    put_uint(&w->kv, kv->type, 4);
    if (kv->type == GGUF_ARRAY) {
        put_uint(&w->kv, kv->item_type, 4);
        put_uint(&w->kv, kv->n_items, 8);
    }
    strbuf_append(&w->kv, kv->data, (size_t)kv->n_bytes);
    w->n_kv++;
}

/* Bytes of a tensor; false if the type is unknown or the dimensions do not fit it. */
static bool tensor_bytes(uint32_t type, uint32_t n_dims, const uint64_t *ne, uint64_t *n_bytes) {
    uint32_t block_elems, block_bytes;
    const char *type_name;
    if (!quant_block_size(type, &block_elems, &block_bytes, &type_name)) return false;
    if (n_dims < 1 || n_dims > 4 || ne[0] % block_elems != 0) return false;
    *n_bytes = ne[0] / block_elems;
    for (uint32_t i = 1; i < n_dims; i++)
        if (!checked_mul(n_bytes, *n_bytes, ne[i])) return false;
    return checked_mul(n_bytes, *n_bytes, block_bytes) && *n_bytes > 0;
}

static uint64_t round_up(uint64_t n, uint64_t alignment) {
    return (n + alignment - 1) / alignment * alignment;
}

void gguf_add_tensor(gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                     const uint64_t *ne, const void *data) {
    tensor_data t = {.data = data};
    uint64_t end;
    if (w->status != DS4_OK) return;
    if (!tensor_bytes(type, n_dims, ne, &t.n_bytes) || !checked_add(&end, w->n_data, t.n_bytes) ||
        end > (uint64_t)INT64_MAX - w->alignment) {
        w->status = ds4_fail(&w->error, DS4_EINVAL,
                             "gguf: tensor '%s': type %u does not go with its %u "
                             "dimensions, the first being %llu",
                             name, type, n_dims, (unsigned long long)(n_dims ? ne[0] : 0));
        return;
    }
    put_string(&w->infos, name, strlen(name));
    put_uint(&w->infos, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) put_uint(&w->infos, ne[i], 8);
    put_uint(&w->infos, type, 4);
    put_uint(&w->infos, w->n_data, 8);
    strbuf_append(&w->tensors, &t, sizeof t);
    w->n_tensors++;
    w->n_data = round_up(end, w->alignment);
}

/* ---- the finished file ---- */

static ds4_status check_additions(const gguf_writer *w, ds4_error *err) {
    if (w->status != DS4_OK) return ds4_fail(err, w->status, "%s", w->error.message);
    DS4_TRY(strbuf_check(&w->kv, "gguf keys", err));
    DS4_TRY(strbuf_check(&w->infos, "gguf tensor names", err));
    return strbuf_check(&w->tensors, "gguf tensors", err);
}

static void put_header(strbuf *b, const gguf_writer *w) {
    strbuf_append(b, "GGUF", 4);
    put_uint(b, 3, 4);
    put_uint(b, w->n_tensors, 8);
    put_uint(b, w->n_kv, 8);
}

static ds4_status write_padding(const sink *s, uint64_t n, ds4_error *err) {
    static const uint8_t zeros[4096];
    while (n > 0) {
        size_t n_now = n < sizeof zeros ? (size_t)n : sizeof zeros;
        DS4_TRY(s->write(s->to, zeros, n_now, err));
        n -= n_now;
    }
    return DS4_OK;
}

/* All bytes of the file in order. */
static ds4_status write_all(const gguf_writer *w, const sink *s, ds4_error *err) {
    strbuf header = {0};
    put_header(&header, w);
    ds4_status status = strbuf_check(&header, "gguf header", err);
    if (status == DS4_OK) status = s->write(s->to, header.data, header.n, err);
    uint64_t n_head = header.n + w->kv.n + w->infos.n;
    strbuf_release(&header);
    DS4_TRY(status);
    DS4_TRY(s->write(s->to, w->kv.data, w->kv.n, err));
    DS4_TRY(s->write(s->to, w->infos.data, w->infos.n, err));
    DS4_TRY(write_padding(s, round_up(n_head, w->alignment) - n_head, err));
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        tensor_data t;
        memcpy(&t, w->tensors.data + i * sizeof t, sizeof t);
        DS4_TRY(s->write(s->to, t.data, (size_t)t.n_bytes, err));
        DS4_TRY(write_padding(s, round_up(t.n_bytes, w->alignment) - t.n_bytes, err));
    }
    return DS4_OK;
}

typedef struct {
    int fd;
    const char *path;
} open_file;

static ds4_status write_to_file(void *to, const void *data, size_t n, ds4_error *err) {
    const open_file *file = to;
    for (const char *p = data; n > 0;) {
        ssize_t n_written = write(file->fd, p, n);
        if (n_written < 0 && errno == EINTR) continue;
        if (n_written < 0)
            return ds4_fail(err, DS4_EIO, "%s: cannot write: %s", file->path, strerror(errno));
        p += n_written;
        n -= (size_t)n_written;
    }
    return DS4_OK;
}

/* The whole file at `path`, on the disk. */
static ds4_status write_file(const gguf_writer *w, const char *path, ds4_error *err) {
    open_file file = {open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), path};
    if (file.fd < 0) return ds4_fail(err, DS4_EIO, "%s: cannot create: %s", path, strerror(errno));
    sink s = {&file, write_to_file};
    ds4_status status = write_all(w, &s, err);
    if (status == DS4_OK && fsync(file.fd) != 0)
        status = ds4_fail(err, DS4_EIO, "%s: cannot sync: %s", path, strerror(errno));
    if (close(file.fd) != 0 && status == DS4_OK)
        status = ds4_fail(err, DS4_EIO, "%s: cannot close: %s", path, strerror(errno));
    return status;
}

ds4_status gguf_writer_finish(gguf_writer *w, const char *path, ds4_error *err) {
    DS4_TRY(check_additions(w, err));
    strbuf temporary = {0};
    strbuf_printf(&temporary, "%s.tmp.%ld", path, (long)getpid());
    ds4_status status = strbuf_check(&temporary, "gguf path", err);
    if (status == DS4_OK) {
        status = write_file(w, temporary.data, err);
        if (status == DS4_OK && rename(temporary.data, path) != 0)
            status = ds4_fail(err, DS4_EIO, "%s: cannot rename to it: %s", path, strerror(errno));
        if (status != DS4_OK) unlink(temporary.data);
    }
    strbuf_release(&temporary);
    return status;
}

static ds4_status write_to_memory(void *to, const void *data, size_t n, ds4_error *err) {
    strbuf *b = to;
    if (n) strbuf_append(b, data, n);
    return strbuf_check(b, "gguf in memory", err);
}

ds4_status gguf_writer_finish_memory(gguf_writer *w, void **data, size_t *n, ds4_error *err) {
    DS4_TRY(check_additions(w, err));
    strbuf b = {0};
    sink s = {&b, write_to_memory};
    ds4_status status = write_all(w, &s, err);
    if (status == DS4_OK) *data = strbuf_take(&b, n);
    strbuf_release(&b);
    return status;
}
