/* gguf_write.h - write GGUF v3: keys and tensor descriptions first, then the data in that order.
 *
 *   Owner    create/destroy; bytes given to add_* are copied, tensor data is borrowed until finish.
 *   Errors   Keys and names are not checked for duplicates. finish writes path.tmp, syncs, renames:
 *            `path` is either the old file or the whole new one. */
#ifndef DS4_FORMAT_GGUF_WRITE_H
#define DS4_FORMAT_GGUF_WRITE_H

#include "format/gguf.h"

typedef struct gguf_writer gguf_writer;

ds4_status gguf_writer_create(gguf_writer **out, uint32_t alignment, ds4_error *err);
void gguf_writer_destroy(gguf_writer *w);

/* A failed addition (no memory) is reported by finish. */
void gguf_add_u32(gguf_writer *w, const char *key, uint32_t v);
void gguf_add_u64(gguf_writer *w, const char *key, uint64_t v);
void gguf_add_f32(gguf_writer *w, const char *key, float v);
void gguf_add_bool(gguf_writer *w, const char *key, bool v);
void gguf_add_string(gguf_writer *w, const char *key, strview v);
/* items: n fixed-size items of `item_type`, in memory order of this (little-endian) machine. */
void gguf_add_array(gguf_writer *w, const char *key, gguf_value_type item_type, const void *items,
                    uint64_t n);
void gguf_add_strings(gguf_writer *w, const char *key, const strview *items, uint64_t n);
/* A key copied from an open file, byte for byte. */
void gguf_add_kv(gguf_writer *w, const gguf_kv *kv);
/* data: n_bytes as the type and dimensions ask; may be NULL when finish is given a producer. */
void gguf_add_tensor(gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                     const uint64_t *ne, const void *data);

ds4_status gguf_writer_finish(gguf_writer *w, const char *path, ds4_error *err);
/* The same bytes into memory (tests): free(*data). */
ds4_status gguf_writer_finish_memory(gguf_writer *w, void **data, size_t *n, ds4_error *err);

#endif
