/* gguf_edit.c - copies what is not changed behind what was added. */
#include "tests/support/gguf_edit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void require(ds4_status status, const ds4_error *err) {
    if (status == DS4_OK) return;
    fprintf(stderr, "gguf_edit: %s\n", err->message);
    abort();
}

static void *require_memory(void *p) {
    if (p) return p;
    fprintf(stderr, "gguf_edit: out of memory\n");
    abort();
}

void gguf_edit_init(gguf_edit *e, void *bytes, size_t n) {
    ds4_error err;
    *e = (gguf_edit){.from_bytes = bytes};
    require(gguf_open_memory(&e->from, bytes, n, &err), &err);
    require(gguf_writer_create(&e->w, 32, &err), &err);
}

void gguf_edit_init_random(gguf_edit *e, const randmodel_shape *shape, uint64_t seed) {
    void *bytes;
    size_t n;
    ds4_error err;
    require(randmodel_write_memory(shape, seed, &bytes, &n, &err), &err);
    gguf_edit_init(e, bytes, n);
}

static const char *copy_name(gguf_edit *e, const char *name) {
    return require_memory(arena_strdup(&e->a, name, strlen(name)));
}

static void add_change(gguf_edit *e, const char *name, const char *new_name) {
    if (e->n_changes == GGUF_EDIT_MAX_CHANGES) {
        fprintf(stderr, "gguf_edit: more than %d changes\n", GGUF_EDIT_MAX_CHANGES);
        abort();
    }
    e->changes[e->n_changes].name = copy_name(e, name);
    e->changes[e->n_changes++].new_name = new_name ? copy_name(e, new_name) : NULL;
}

void gguf_edit_drop(gguf_edit *e, const char *name) {
    add_change(e, name, NULL);
}

void gguf_edit_rename_tensor(gguf_edit *e, const char *name, const char *new_name) {
    add_change(e, name, new_name);
}

void gguf_edit_data(gguf_edit *e, const char *name, uint32_t type, const uint64_t ne[4],
                    const void *data, size_t n_bytes) {
    void *copy = require_memory(arena_alloc(&e->a, n_bytes));
    if (data) memcpy(copy, data, n_bytes);
    uint32_t n_dims = 4;
    while (n_dims > 1 && ne[n_dims - 1] == 0) n_dims--;
    gguf_edit_drop(e, name);
    gguf_add_tensor(e->w, name, type, n_dims, ne, copy);
}

void gguf_edit_tensor(gguf_edit *e, const char *name, uint32_t type, const uint64_t ne[4]) {
    uint32_t block_elems = 1, block_bytes = 1;
    const char *type_name;
    size_t n = 1;
    for (int i = 0; i < 4; i++) n *= ne[i] ? (size_t)ne[i] : 1;
    quant_block_size(type, &block_elems, &block_bytes, &type_name);
    gguf_edit_data(e, name, type, ne, NULL, n / block_elems * block_bytes);
}

/* The name under which a key or tensor goes on; NULL: it does not. */
static const char *name_after(gguf_edit *e, strview name) {
    for (size_t i = 0; i < e->n_changes; i++)
        if (strview_equal(name, (strview){e->changes[i].name, strlen(e->changes[i].name)}))
            return e->changes[i].new_name;
    return require_memory(arena_strdup(&e->a, name.data, name.n));
}

const gguf *gguf_edit_finish(gguf_edit *e) {
    ds4_error err;
    for (size_t i = 0; i < gguf_n_kv(e->from); i++)
        if (name_after(e, gguf_kv_at(e->from, i)->key)) gguf_add_kv(e->w, gguf_kv_at(e->from, i));
    for (size_t i = 0; i < gguf_n_tensors(e->from); i++) {
        const gguf_tensor *t = gguf_tensor_at(e->from, i);
        const char *name = name_after(e, t->name);
        if (name) gguf_add_tensor(e->w, name, t->type, t->n_dims, t->ne, t->data);
    }
    require(gguf_writer_finish_memory(e->w, &e->result_bytes, &e->n_result, &err), &err);
    require(gguf_open_memory(&e->result, e->result_bytes, e->n_result, &err), &err);
    return e->result;
}

void gguf_edit_release(gguf_edit *e) {
    gguf_close(e->result);
    gguf_close(e->from);
    gguf_writer_destroy(e->w);
    free(e->result_bytes);
    free(e->from_bytes);
    arena_release(&e->a);
    *e = (gguf_edit){0};
}
