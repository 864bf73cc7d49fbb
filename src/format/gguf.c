#include "format/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/hash.h"
#include "base/mapfile.h"
#include "quant/quant.h"

enum {
    GGUF_MAGIC = 0x46554747, /* "GGUF" */
    GGUF_VERSION = 3,
    DEFAULT_ALIGNMENT = 32,
    MIN_ALIGNMENT = 8, /* of the format; kernels read floats and 64-bit integers in place */
    MAX_ALIGNMENT = 1 << 30,
    MAX_DIMS = 4,
    MAX_ARRAY_DEPTH = 8,
};

/* Open addressing over the names of an array of structs whose first member is the name. */
typedef struct {
    uint32_t *slots; /* index + 1, 0: free */
    size_t n_slots;  /* a power of two, at least twice the items */
    const char *items;
    size_t item_bytes;
} name_table;

typedef struct {
    char *path;
    mapfile map; /* empty if the caller owns the bytes */
    const uint8_t *data;
    size_t n;
} split_file;

struct gguf {
    char *path; /* as given to open */
    split_file *splits;
    uint32_t n_splits;
    gguf_kv *kv; /* of the first split */
    size_t n_kv, kv_cap;
    gguf_tensor *tensors; /* of all splits, in file order */
    size_t n_tensors, tensor_cap;
    name_table kv_names, tensor_names;
};

/* Makes room for one more item in the array that the pointer at `items` points to. Arrays grow with
 * what was read, never with what a header promises. */
static bool grow(void *items, size_t *n_cap, size_t n, size_t item_bytes) {
    if (n < *n_cap) return true;
    size_t wanted = *n_cap ? 2 * *n_cap : 32;
    if (wanted > SIZE_MAX / item_bytes) return false;
    void *old, *grown;
    memcpy(&old, items, sizeof old);
    grown = realloc(old, wanted * item_bytes);
    if (!grown) return false;
    memcpy(items, &grown, sizeof grown);
    *n_cap = wanted;
    return true;
}

/* ---- names ---- */

static strview table_name(const name_table *t, size_t i) {
    strview name;
    memcpy(&name, t->items + i * t->item_bytes, sizeof name);
    return name;
}

/* The slot of `name`: where it is, or the free one where it would be. */
static uint32_t *table_slot(const name_table *t, strview name) {
    size_t at = (size_t)hash64(name.data, name.n, 0) & (t->n_slots - 1);
    while (t->slots[at] && !strview_equal(table_name(t, t->slots[at] - 1), name))
        at = (at + 1) & (t->n_slots - 1);
    return &t->slots[at];
}

/* The index of `name`; SIZE_MAX if absent. */
static size_t table_find(const name_table *t, const char *name) {
    if (!t->slots) return SIZE_MAX;
    uint32_t index = *table_slot(t, (strview){name, strlen(name)});
    return index ? index - 1 : SIZE_MAX;
}

static ds4_status table_build(name_table *t, const void *items, size_t n, size_t item_bytes,
                              const char *what, const char *path, ds4_error *err) {
    *t = (name_table){.items = items, .item_bytes = item_bytes, .n_slots = 16};
    if (n > UINT32_MAX / 4)
        return ds4_fail(err, DS4_EUNSUPPORTED, "%s: found %zu %ss, expected at most %u", path, n,
                        what, UINT32_MAX / 4);
    while (t->n_slots < 2 * n) t->n_slots *= 2;
    t->slots = calloc(t->n_slots, sizeof *t->slots);
    if (!t->slots) return ds4_fail_nomem(err, path, t->n_slots * sizeof *t->slots);
    for (size_t i = 0; i < n; i++) {
        uint32_t *slot = table_slot(t, table_name(t, i));
        if (*slot)
            return ds4_fail(err, DS4_EFORMAT, "%s: %s '%s' appears twice", path, what,
                            gguf_show(table_name(t, i)).text);
        *slot = (uint32_t)i + 1;
    }
    return DS4_OK;
}

/* ---- one file ---- */

typedef struct {
    gguf *g;
    uint32_t split;
    const char *path;
    bytes_cursor in;
    gguf_kv *kv;
    size_t n_kv, kv_cap;
    uint64_t *offsets; /* of this file's tensors, from the data's start */
    size_t n_offsets, offset_cap;
    ds4_error *err;
} parser;

static bool take_string(bytes_cursor *in, strview *s) {
    uint64_t n = bytes_u64(in);
    *s = (strview){(const char *)bytes_take(in, n), (size_t)n};
    return !in->is_short;
}

/* Steps over n values of a type; their strings and inner arrays are checked on the way. Every turn
 * of the loops takes bytes from the file, so a huge count ends at the end of the file. */
static ds4_status skip_values(parser *p, strview key, gguf_value_type type, uint64_t n, int depth) {
    size_t item_bytes = gguf_value_bytes(type);
    if (item_bytes) {
        uint64_t n_bytes;
        if (!checked_mul(&n_bytes, n, item_bytes)) n_bytes = UINT64_MAX;
        bytes_take(&p->in, n_bytes);
    }
    for (uint64_t i = 0; !item_bytes && i < n && !p->in.is_short; i++) {
        strview ignored;
        if (type == GGUF_STRING) {
            take_string(&p->in, &ignored);
            continue;
        }
        uint32_t inner = bytes_u32(&p->in);
        uint64_t n_inner = bytes_u64(&p->in);
        if (p->in.is_short) break;
        if (inner > GGUF_F64)
            return ds4_fail(p->err, DS4_EFORMAT, "%s: key '%s': item type %u, expected 0 to %d",
                            p->path, gguf_show(key).text, inner, GGUF_F64);
        if (depth == MAX_ARRAY_DEPTH)
            return ds4_fail(p->err, DS4_EFORMAT, "%s: key '%s': arrays nested deeper than %d",
                            p->path, gguf_show(key).text, MAX_ARRAY_DEPTH);
        DS4_TRY(skip_values(p, key, (gguf_value_type)inner, n_inner, depth + 1));
    }
    if (p->in.is_short)
        return ds4_fail(p->err, DS4_EFORMAT,
                        "%s: key '%s': its value goes beyond the end of the file "
                        "(%zu bytes)",
                        p->path, gguf_show(key).text, p->in.n);
    return DS4_OK;
}

static ds4_status parse_kv(parser *p, uint64_t i, uint64_t n) {
    gguf_kv kv = {.n_items = 1};
    take_string(&p->in, &kv.key);
    uint32_t type = bytes_u32(&p->in), item_type = type;
    if (!p->in.is_short && type == GGUF_ARRAY) {
        item_type = bytes_u32(&p->in);
        kv.n_items = bytes_u64(&p->in);
    }
    if (p->in.is_short)
        return ds4_fail(p->err, DS4_EFORMAT,
                        "%s: the file (%zu bytes) ends inside key %llu of %llu", p->path, p->in.n,
                        (unsigned long long)i + 1, (unsigned long long)n);
    if (type > GGUF_F64 || item_type > GGUF_F64)
        return ds4_fail(p->err, DS4_EFORMAT, "%s: key '%s': value type %u, expected 0 to %d",
                        p->path, gguf_show(kv.key).text, type > GGUF_F64 ? type : item_type,
                        GGUF_F64);
    kv.type = (gguf_value_type)type;
    kv.item_type = (gguf_value_type)item_type;

    size_t start = p->in.at;
    DS4_TRY(skip_values(p, kv.key, kv.item_type, kv.n_items, 1));
    kv.data = p->in.data + start;
    kv.n_bytes = p->in.at - start;
    if (!grow(&p->kv, &p->kv_cap, p->n_kv, sizeof *p->kv))
        return ds4_fail_nomem(p->err, p->path, 2 * p->kv_cap * sizeof *p->kv);
    p->kv[p->n_kv++] = kv;
    return DS4_OK;
}

static ds4_status bad_tensor(parser *p, const gguf_tensor *t, const char *what, uint64_t found,
                             const char *expected) {
    return ds4_fail(p->err, DS4_EFORMAT, "%s: tensor '%s': %s %llu, expected %s", p->path,
                    gguf_show(t->name).text, what, (unsigned long long)found, expected);
}

/* n_bytes from type and dimensions; 0 if the type's size is not known. */
static ds4_status measure_tensor(parser *p, gguf_tensor *t) {
    uint64_t n_elems = 1, n_bytes;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (t->ne[i] == 0) return bad_tensor(p, t, "a dimension of", 0, "at least 1");
        if (!checked_mul(&n_elems, n_elems, t->ne[i]))
            return bad_tensor(p, t, "a dimension of", t->ne[i], "a product below 2^64");
    }
    uint32_t block_elems, block_bytes;
    const char *type_name;
    if (!quant_block_size(t->type, &block_elems, &block_bytes, &type_name)) return DS4_OK;
    if (t->ne[0] % block_elems != 0)
        return ds4_fail(p->err, DS4_EFORMAT,
                        "%s: tensor '%s': rows of %llu, expected a multiple of %u for "
                        "type %s",
                        p->path, gguf_show(t->name).text, (unsigned long long)t->ne[0], block_elems,
                        type_name);
    if (!checked_mul(&n_bytes, n_elems / block_elems, block_bytes))
        return bad_tensor(p, t, "elements", n_elems, "fewer than 2^64 bytes");
    t->n_bytes = n_bytes;
    return DS4_OK;
}

static ds4_status parse_tensor(parser *p, uint64_t i, uint64_t n) {
    gguf *g = p->g;
    gguf_tensor t = {.ne = {1, 1, 1, 1}, .split = p->split};
    take_string(&p->in, &t.name);
    t.n_dims = bytes_u32(&p->in);
    if (!p->in.is_short && (t.n_dims == 0 || t.n_dims > MAX_DIMS))
        return bad_tensor(p, &t, "number of dimensions", t.n_dims, "1 to 4");
    for (uint32_t dim = 0; !p->in.is_short && dim < t.n_dims; dim++) t.ne[dim] = bytes_u64(&p->in);
    t.type = bytes_u32(&p->in);
    uint64_t offset = bytes_u64(&p->in);
    if (p->in.is_short)
        return ds4_fail(p->err, DS4_EFORMAT,
                        "%s: the file (%zu bytes) ends inside the description of "
                        "tensor %llu of %llu",
                        p->path, p->in.n, (unsigned long long)i + 1, (unsigned long long)n);
    DS4_TRY(measure_tensor(p, &t));
    if (!grow(&g->tensors, &g->tensor_cap, g->n_tensors, sizeof t) ||
        !grow(&p->offsets, &p->offset_cap, p->n_offsets, sizeof offset))
        return ds4_fail_nomem(p->err, p->path, 2 * g->tensor_cap * sizeof t);
    g->tensors[g->n_tensors++] = t;
    p->offsets[p->n_offsets++] = offset;
    return DS4_OK;
}

static ds4_status find_alignment(parser *p, uint64_t *alignment) {
    const strview key = STRVIEW("general.alignment");
    *alignment = DEFAULT_ALIGNMENT;
    for (size_t i = 0; i < p->n_kv; i++) {
        const gguf_kv *kv = &p->kv[i];
        if (!strview_equal(kv->key, key)) continue;
        if (kv->type != GGUF_U32)
            return ds4_fail(p->err, DS4_EFORMAT, "%s: key '%s': found %s, expected u32", p->path,
                            key.data, gguf_value_type_name(kv->type));
        bytes_cursor value = bytes_from(kv->data, (size_t)kv->n_bytes);
        uint32_t v = bytes_u32(&value);
        if (v < MIN_ALIGNMENT || (v & (v - 1)) || v > MAX_ALIGNMENT)
            return ds4_fail(p->err, DS4_EFORMAT,
                            "%s: key '%s': found %u, expected a power of two, at least %d", p->path,
                            key.data, v, MIN_ALIGNMENT);
        *alignment = v;
    }
    return DS4_OK;
}

/* Points the tensors of this file to their bytes. */
static ds4_status place_tensors(parser *p, gguf_tensor *tensors) {
    uint64_t alignment, start;
    DS4_TRY(find_alignment(p, &alignment));
    if (p->n_offsets == 0) return DS4_OK;
    start = (p->in.at + alignment - 1) / alignment * alignment;
    for (size_t i = 0; i < p->n_offsets; i++) {
        gguf_tensor *t = &tensors[i];
        uint64_t at, end;
        if (p->offsets[i] % alignment != 0)
            return ds4_fail(p->err, DS4_EFORMAT,
                            "%s: tensor '%s': offset %llu, expected a multiple of %llu", p->path,
                            gguf_show(t->name).text, (unsigned long long)p->offsets[i],
                            (unsigned long long)alignment);
        if (!checked_add(&at, start, p->offsets[i]) || !checked_add(&end, at, t->n_bytes))
            end = UINT64_MAX;
        if (end > p->in.n)
            return ds4_fail(p->err, DS4_EFORMAT,
                            "%s: tensor '%s': its data ends at byte %llu, but the file "
                            "has %zu: is it complete?",
                            p->path, gguf_show(t->name).text, (unsigned long long)end, p->in.n);
        t->data = p->in.data + at;
    }
    return DS4_OK;
}

static int by_address(const void *a, const void *b) {
    const gguf_tensor *x = *(const gguf_tensor *const *)a, *y = *(const gguf_tensor *const *)b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return x->n_bytes < y->n_bytes ? -1 : x->n_bytes > y->n_bytes;
}

static ds4_status check_overlap(parser *p, const gguf_tensor *tensors) {
    size_t n = p->n_offsets;
    if (n < 2) return DS4_OK;
    const gguf_tensor **order = malloc(n * sizeof *order);
    if (!order) return ds4_fail_nomem(p->err, p->path, n * sizeof *order);
    for (size_t i = 0; i < n; i++) order[i] = &tensors[i];
    qsort(order, n, sizeof *order, by_address);

    ds4_status status = DS4_OK;
    for (size_t i = 1; i < n && status == DS4_OK; i++)
        if (order[i - 1]->data + order[i - 1]->n_bytes > order[i]->data)
            status = ds4_fail(p->err, DS4_EFORMAT, "%s: tensors '%s' and '%s' overlap", p->path,
                              gguf_show(order[i - 1]->name).text, gguf_show(order[i]->name).text);
    free(order);
    return status;
}

static ds4_status parse_contents(parser *p) {
    uint32_t magic = bytes_u32(&p->in), version = bytes_u32(&p->in);
    if (p->in.n < 4 || magic != GGUF_MAGIC)
        return ds4_fail(p->err, DS4_EFORMAT, "%s: not a GGUF file: it does not begin with \"GGUF\"",
                        p->path);
    if (p->in.n >= 8 && version != GGUF_VERSION)
        return ds4_fail(p->err, DS4_EFORMAT, "%s: found GGUF version %u, expected %d", p->path,
                        version, GGUF_VERSION);
    uint64_t n_tensors = bytes_u64(&p->in), n_kv = bytes_u64(&p->in);
    if (p->in.is_short)
        return ds4_fail(p->err, DS4_EFORMAT, "%s: the file (%zu bytes) ends inside its header",
                        p->path, p->in.n);
    for (uint64_t i = 0; i < n_kv; i++) DS4_TRY(parse_kv(p, i, n_kv));
    size_t first = p->g->n_tensors;
    for (uint64_t i = 0; i < n_tensors; i++) DS4_TRY(parse_tensor(p, i, n_tensors));
    if (n_tensors == 0) return DS4_OK;
    DS4_TRY(place_tensors(p, p->g->tensors + first));
    return check_overlap(p, p->g->tensors + first);
}

/* Reads split `split`: its tensors behind those of the splits before; its keys if it is the first.
 */
static ds4_status parse_split(gguf *g, uint32_t split, ds4_error *err) {
    const split_file *file = &g->splits[split];
    parser p = {.g = g,
                .split = split,
                .path = file->path,
                .in = bytes_from(file->data, file->n),
                .err = err};
    ds4_status status = parse_contents(&p);
    name_table names = {0};
    if (status == DS4_OK)
        status = table_build(&names, p.kv, p.n_kv, sizeof *p.kv, "key", p.path, err);
    free(p.offsets);
    if (split == 0) {
        g->kv = p.kv;
        g->n_kv = p.n_kv;
        g->kv_names = names;
        return status;
    }
    /* The keys of this file alone, for the check below. */
    gguf own = {.path = file->path, .kv = p.kv, .n_kv = p.n_kv, .kv_names = names};
    uint32_t no = split;
    bool found;
    if (status == DS4_OK) status = gguf_get_u32(&own, "split.no", &no, &found, err);
    if (status == DS4_OK && no != split)
        status =
            ds4_fail(err, DS4_EFORMAT, "%s: 'split.no': found %u, expected %u", p.path, no, split);
    free(names.slots);
    free(p.kv);
    return status;
}

/* ---- all files of a model ---- */

/* What the first file says about the whole. */
static ds4_status check_splits(const gguf *g, ds4_error *err) {
    uint32_t no = 0, count = g->n_splits;
    uint64_t n_tensors = g->n_tensors;
    bool found;
    DS4_TRY(gguf_get_u32(g, "split.no", &no, &found, err));
    DS4_TRY(gguf_get_u32(g, "split.count", &count, &found, err));
    DS4_TRY(gguf_get_u64(g, "split.tensors.count", &n_tensors, &found, err));
    if (count == 0)
        return DS4_OK; /* written by tools that once split the file and merged it again */
    if (count != g->n_splits)
        return ds4_fail(err, DS4_EFORMAT,
                        "%s: 'split.count': found %u, expected %u from the file's name "
                        "(which ends in -0000K-of-0000N.gguf if there are N files)",
                        g->splits[0].path, count, g->n_splits);
    if (no != 0)
        return ds4_fail(err, DS4_EFORMAT, "%s: 'split.no': found %u, expected 0", g->splits[0].path,
                        no);
    if (n_tensors != g->n_tensors)
        return ds4_fail(err, DS4_EFORMAT,
                        "%s: 'split.tensors.count': found %llu, but the files have %zu",
                        g->splits[0].path, (unsigned long long)n_tensors, g->n_tensors);
    return DS4_OK;
}

static ds4_status parse_all(gguf *g, ds4_error *err) {
    for (uint32_t i = 0; i < g->n_splits; i++) DS4_TRY(parse_split(g, i, err));
    DS4_TRY(check_splits(g, err));
    return table_build(&g->tensor_names, g->tensors, g->n_tensors, sizeof *g->tensors, "tensor",
                       g->path, err);
}

/* An empty file object with room for its splits; `path` is copied. */
static gguf *gguf_create(const char *path, uint32_t n_splits, ds4_error *err) {
    gguf *g = calloc(1, sizeof *g);
    if (g) {
        g->path = strdup(path);
        g->splits = calloc(n_splits, sizeof *g->splits);
        g->n_splits = n_splits;
    }
    if (g && g->path && g->splits) return g;
    gguf_close(g);
    ds4_fail_nomem(err, path, sizeof *g + n_splits * sizeof *g->splits);
    return NULL;
}

/* True if `path` ends in -KKKKK-of-NNNNN.gguf with 1 <= K <= N; *n_stem: the bytes before that. */
static bool split_name(const char *path, size_t *n_stem, uint32_t *n_splits) {
    enum { DIGITS = 5, TAIL = sizeof "-00001-of-00002.gguf" - 1 };
    size_t n = strlen(path);
    if (n < TAIL) return false;
    const char *tail = path + n - TAIL;
    unsigned value[2] = {0, 0};
    const char *digits[2] = {tail + 1, tail + 1 + DIGITS + 4};
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < DIGITS; i++) {
            if (digits[k][i] < '0' || digits[k][i] > '9') return false;
            value[k] = 10 * value[k] + (unsigned)(digits[k][i] - '0');
        }
    if (tail[0] != '-' || memcmp(tail + 1 + DIGITS, "-of-", 4) != 0 ||
        strcmp(tail + TAIL - 5, ".gguf") != 0 || value[0] < 1 || value[0] > value[1])
        return false;
    *n_stem = n - TAIL;
    *n_splits = value[1];
    return true;
}

static ds4_status open_split(split_file *file, const char *path, ds4_error *err) {
    file->path = strdup(path);
    if (!file->path) return ds4_fail_nomem(err, path, strlen(path) + 1);
    DS4_TRY(mapfile_open(&file->map, path, err));
    file->data = file->map.data;
    file->n = file->map.n;
    return DS4_OK;
}

/* stem-0000K-of-0000N.gguf for every K. */
static ds4_status open_splits(gguf *g, size_t n_stem, ds4_error *err) {
    size_t n_cap = n_stem + 64;
    char *path = malloc(n_cap);
    if (!path) return ds4_fail_nomem(err, g->path, n_cap);
    ds4_status status = DS4_OK;
    for (uint32_t i = 0; i < g->n_splits && status == DS4_OK; i++) {
        snprintf(path, n_cap, "%.*s-%05u-of-%05u.gguf", (int)n_stem, g->path, i + 1, g->n_splits);
        status = open_split(&g->splits[i], path, err);
    }
    free(path);
    return status;
}

/* ---- the public functions, in the header's order ---- */

ds4_status gguf_open(gguf **out, const char *path, ds4_error *err) {
    size_t n_stem = 0;
    uint32_t n_splits = 1;
    bool is_split = split_name(path, &n_stem, &n_splits);
    gguf *g = gguf_create(path, n_splits, err);
    if (!g) return DS4_ENOMEM;
    ds4_status status =
        is_split ? open_splits(g, n_stem, err) : open_split(&g->splits[0], path, err);
    if (status == DS4_OK) status = parse_all(g, err);
    if (status == DS4_OK)
        *out = g;
    else
        gguf_close(g);
    return status;
}

ds4_status gguf_open_memory(gguf **out, const void *data, size_t n, ds4_error *err) {
    gguf *g = gguf_create("(memory)", 1, err);
    if (!g) return DS4_ENOMEM;
    split_file *file = &g->splits[0];
    file->path = strdup(g->path);
    file->data = data;
    file->n = n;
    ds4_status status =
        file->path ? parse_all(g, err) : ds4_fail_nomem(err, g->path, sizeof "(memory)");
    if (status == DS4_OK)
        *out = g;
    else
        gguf_close(g);
    return status;
}

void gguf_close(gguf *g) {
    if (!g) return;
    for (uint32_t i = 0; g->splits && i < g->n_splits; i++) {
        mapfile_close(&g->splits[i].map);
        free(g->splits[i].path);
    }
    free(g->splits);
    free(g->kv);
    free(g->tensors);
    free(g->kv_names.slots);
    free(g->tensor_names.slots);
    free(g->path);
    free(g);
}

const char *gguf_path(const gguf *g) {
    return g->path;
}

uint32_t gguf_n_splits(const gguf *g) {
    return g->n_splits;
}

uint64_t gguf_file_bytes(const gguf *g) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < g->n_splits; i++) n += g->splits[i].n;
    return n;
}

void gguf_split_bytes(const gguf *g, uint32_t split, const uint8_t **data, size_t *n) {
    *data = g->splits[split].data;
    *n = g->splits[split].n;
}

size_t gguf_n_tensors(const gguf *g) {
    return g->n_tensors;
}

const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i) {
    return &g->tensors[i];
}

const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name) {
    size_t i = table_find(&g->tensor_names, name);
    return i == SIZE_MAX ? NULL : &g->tensors[i];
}

size_t gguf_n_kv(const gguf *g) {
    return g->n_kv;
}

const gguf_kv *gguf_kv_at(const gguf *g, size_t i) {
    return &g->kv[i];
}

const gguf_kv *gguf_find(const gguf *g, const char *key) {
    size_t i = table_find(&g->kv_names, key);
    return i == SIZE_MAX ? NULL : &g->kv[i];
}
