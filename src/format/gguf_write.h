/* gguf_write.h - write GGUF v3: keys and tensor descriptions first, then the data in that order.
 *
 *   Owner    create/destroy; bytes given to add_* are copied, tensor data is borrowed until the last
 *            finish.
 *   Threads  One at a time.
 *   Errors   Keys and names are not checked for duplicates. A failed addition (no memory, dimensions
 *            that do not fit the type) is kept and reported by finish. finish writes path.tmp.<pid>,
 *            syncs and renames: `path` is the old file or the whole new one. Either finish may be
 *            called again. */
#ifndef DS4_FORMAT_GGUF_WRITE_H
#define DS4_FORMAT_GGUF_WRITE_H

#include "format/gguf.h"

typedef struct gguf_writer gguf_writer;

/* alignment: of tensor data, a power of two, at least 8; anything but 32 is noted in the file.
 * DS4_EINVAL, DS4_ENOMEM. */
ds4_status gguf_writer_create(gguf_writer **out, uint32_t alignment, ds4_error *err);
void gguf_writer_destroy(gguf_writer *w);

void gguf_add_u32(gguf_writer *w, const char *key, uint32_t v);
void gguf_add_u64(gguf_writer *w, const char *key, uint64_t v);
void gguf_add_f32(gguf_writer *w, const char *key, float v);
void gguf_add_bool(gguf_writer *w, const char *key, bool v);
void gguf_add_string(gguf_writer *w, const char *key, strview v);
/* items: n fixed-size items of `item_type` (numbers or bool), in memory order of this (little-endian)
 * machine. */
void gguf_add_array(gguf_writer *w, const char *key, gguf_value_type item_type, const void *items,
                    uint64_t n);
void gguf_add_strings(gguf_writer *w, const char *key, const strview *items, uint64_t n);
/* A key copied from an open file, byte for byte. */
void gguf_add_kv(gguf_writer *w, const gguf_kv *kv);
/* data: as many bytes as type and dimensions ask; they are read by finish. */
void gguf_add_tensor(gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                     const uint64_t *ne, const void *data);

ds4_status gguf_writer_finish(gguf_writer *w, const char *path, ds4_error *err);
/* The same bytes into memory (tests): free(*data). */
ds4_status gguf_writer_finish_memory(gguf_writer *w, void **data, size_t *n, ds4_error *err);

#endif
