/* gguf.h - read GGUF v3 model files, one or several splits, mapped and never copied.
 *
 *   file    "GGUF" | version 3 | n_tensors | n_kv | kv... | tensor infos... | pad | tensor data
 *   split   name-00001-of-0000N.gguf: each file is complete; metadata counts in the first
 *
 *   Owner    gguf_open creates, gguf_close destroys; names, values and tensor bytes live until then.
 *            Names are bytes of the file: counted, not terminated.
 *   Shapes   ne[0] is the contiguous dimension, as in the file.
 *   Threads  Read-only after open: any thread.
 *   Errors   DS4_EIO / DS4_EFORMAT with one line naming file, key or tensor, found and expected. Every
 *            length is checked against the file before it is used; memory stays below a small
 *            multiple of the metadata's own bytes. */
#ifndef DS4_FORMAT_GGUF_H
#define DS4_FORMAT_GGUF_H

#include "base/strbuf.h"

typedef struct gguf gguf;

typedef enum {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING,
    GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64,
} gguf_value_type;

/* "u8", "string", ... */
const char *gguf_value_type_name(gguf_value_type type);
/* Bytes of one value; 0 for strings and arrays, whose bytes vary. */
size_t gguf_value_bytes(gguf_value_type type);

typedef struct {
    strview         key;
    gguf_value_type type;
    gguf_value_type item_type; /* of an array; else = type */
    uint64_t        n_items;   /* 1 unless an array */
    const uint8_t  *data;      /* the value's (first item's) bytes in the file, unaligned; those of a
                                  string begin with its length */
    uint64_t        n_bytes;   /* of all items */
} gguf_kv;

typedef struct {
    strview        name;
    uint32_t       type; /* GGUF id; may be one ds4 has no kernel for */
    uint32_t       n_dims;
    uint64_t       ne[4]; /* at least 1 each, unused ones are 1; their product fits */
    uint64_t       n_bytes;
    const uint8_t *data;  /* at a multiple of the file's alignment from the file's start */
    uint32_t       split; /* which file, from 0 */
} gguf_tensor;

/* Opens `path`; if it is a split (its name ends in -0000K-of-0000N.gguf, whichever K), all of them.
 * Tensor types of unknown size are accepted, with n_bytes 0. Duplicate tensor names, duplicate keys,
 * overlapping or out-of-file tensors, arrays nested deeper than 8 and missing splits are errors. */
ds4_status gguf_open(gguf **out, const char *path, ds4_error *err);
/* Same, over bytes that the caller keeps alive (tests, fuzzing); no splits. */
ds4_status gguf_open_memory(gguf **out, const void *data, size_t n, ds4_error *err);
void gguf_close(gguf *g);

const char *gguf_path(const gguf *g);
uint32_t    gguf_n_splits(const gguf *g);
uint64_t    gguf_file_bytes(const gguf *g); /* all splits together */
/* The mapped bytes of one split, for zero-copy devices. */
void        gguf_split_bytes(const gguf *g, uint32_t split, const uint8_t **data, size_t *n);

size_t             gguf_n_tensors(const gguf *g);
const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i);
/* By full name; NULL if absent. Constant time. */
const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name);

size_t         gguf_n_kv(const gguf *g);
const gguf_kv *gguf_kv_at(const gguf *g, size_t i);
const gguf_kv *gguf_find(const gguf *g, const char *key);

/* Typed reads. Absent key: *found false, value untouched, DS4_OK. Present with a type that does not
 * convert (integers of any width convert when the value fits; floats from f32, f64 and integers;
 * bool from bool and integers): DS4_EFORMAT naming the key. `found` may be NULL: then absence is an
 * error as well. */
ds4_status gguf_get_u32(const gguf *g, const char *key, uint32_t *v, bool *found, ds4_error *err);
ds4_status gguf_get_u64(const gguf *g, const char *key, uint64_t *v, bool *found, ds4_error *err);
ds4_status gguf_get_f32(const gguf *g, const char *key, float *v, bool *found, ds4_error *err);
ds4_status gguf_get_bool(const gguf *g, const char *key, bool *v, bool *found, ds4_error *err);
ds4_status gguf_get_string(const gguf *g, const char *key, strview *v, bool *found, ds4_error *err);
/* Item i of an array (or i = 0 of a scalar), with the same conversions; DS4_EFORMAT past the end. */
ds4_status gguf_item_i64(const gguf *g, const gguf_kv *kv, uint64_t i, int64_t *v, ds4_error *err);
ds4_status gguf_item_f32(const gguf *g, const gguf_kv *kv, uint64_t i, float *v, ds4_error *err);

/* Text of the file for a message: one line of valid UTF-8 without control characters whatever the
 * file holds, cut where it gets long. */
typedef struct {
    char text[96];
} gguf_shown;
gguf_shown gguf_show(strview s);

/* Walks the strings of a string array in order; starts zeroed. False at the end. Strings were checked
 * at open, so this cannot fail. */
typedef struct {
    uint64_t i;
    size_t   offset;
} gguf_string_iter;
bool gguf_next_string(const gguf_kv *kv, gguf_string_iter *it, strview *s);

#endif
