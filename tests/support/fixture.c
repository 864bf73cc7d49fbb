#include "tests/support/fixture.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* A copy of the file in f's memory: aligned, as a mapped file at any offset need not be. */
static const uint8_t *read_file(fixture *f, const char *folder, const char *name, size_t *n) {
    char path[256];
    mapfile m;
    ds4_error err = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (mapfile_open(&m, path, &err) != DS4_OK) fail_msg("%s", err.message);
    uint8_t *bytes = arena_alloc(&f->memory, m.n + 1);
    assert_non_null(bytes);
    memcpy(bytes, m.data, m.n);
    *n = m.n;
    mapfile_close(&m);
    return bytes;
}

static int64_t int_of(const json_node *node) {
    int64_t v;
    if (!json_int(node, &v) || v < 0)
        fail_msg("index.json: found %s, expected a count", json_type_name(node));
    return v;
}

static const char *text_of(fixture *f, const json_node *node) {
    assert_true(node && node->type == JSON_STRING);
    const char *copy = arena_strdup(&f->memory, node->text.data, node->text.n);
    assert_non_null(copy);
    return copy;
}

static void read_array(fixture *f, fixture_array *a, const json_node *entry, const uint8_t *bytes,
                       size_t n_bytes) {
    a->name = text_of(f, json_get(entry, "name"));
    a->is_i32 = strcmp(text_of(f, json_get(entry, "dtype")), "i32") == 0;
    a->n = 1;
    for (const json_node *d = json_get(entry, "shape")->first; d; d = d->next) {
        assert_true(a->n_dims < FIXTURE_MAX_DIMS);
        a->shape[a->n_dims] = (uint32_t)int_of(d);
        a->n *= a->shape[a->n_dims++];
    }
    size_t offset = (size_t)int_of(json_get(entry, "offset"));
    if (offset % 4 != 0 || offset + a->n * 4 > n_bytes)
        fail_msg("%s: %zu values at byte %zu, the file has %zu bytes", a->name, a->n, offset,
                 n_bytes);
    const void *values = bytes + offset;
    if (a->is_i32)
        a->i32 = values;
    else
        a->f32 = values;
}

void fixture_open(fixture *f, const char *folder) {
    *f = (fixture){0};
    size_t n;
    ds4_error err = {0};
    const uint8_t *text = read_file(f, folder, "index.json", &n);
    if (json_parse(&f->index, (const char *)text, n, folder, &err) != DS4_OK)
        fail_msg("%s", err.message);
    const json_node *tensors = json_get(f->index.root, "tensors");
    assert_true(tensors && tensors->type == JSON_ARRAY);
    f->arrays = arena_array(&f->memory, tensors->n_items, sizeof *f->arrays);
    assert_non_null(f->arrays);

    /* Arrays of one file stand together. */
    const char *open_name = "";
    const uint8_t *bytes = NULL;
    for (const json_node *entry = tensors->first; entry; entry = entry->next) {
        const char *name = text_of(f, json_get(entry, "file"));
        if (strcmp(name, open_name) != 0) bytes = read_file(f, folder, open_name = name, &n);
        read_array(f, &f->arrays[f->n_arrays++], entry, bytes, n);
    }
}

void fixture_release(fixture *f) {
    json_release(&f->index);
    arena_release(&f->memory);
    *f = (fixture){0};
}

static fixture_array *find(fixture *f, const char *name) {
    for (size_t i = 0; i < f->n_arrays; i++)
        if (strcmp(f->arrays[i].name, name) == 0) return &f->arrays[i];
    return NULL;
}

const fixture_array *fixture_take(fixture *f, const char *fmt, ...) {
    char name[96];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    fixture_array *a = find(f, name);
    if (!a) fail_msg("index.json: no array '%s'", name);
    a->is_taken = true;
    return a;
}

const fixture_array *fixture_find(fixture *f, const char *fmt, ...) {
    char name[96];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    fixture_array *a = find(f, name);
    if (a) a->is_taken = true;
    return a;
}

const fixture_array *fixture_untaken(const fixture *f, const char *prefix) {
    for (size_t i = 0; i < f->n_arrays; i++) {
        const fixture_array *a = &f->arrays[i];
        if (!a->is_taken && strncmp(a->name, prefix, strlen(prefix)) == 0) return a;
    }
    return NULL;
}
