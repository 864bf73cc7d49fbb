/* show_json.c - the description for programs. */
#include <string.h>

#include "app/inspect/show.h"
#include "app/io.h"

static void put_text(strbuf *out, const char *name, strview text) {
    io_json_key(out, name);
    io_json_text(out, text.data, text.n);
    strbuf_puts(out, ", ");
}

static void put_count(strbuf *out, const char *name, uint64_t v, const char *behind) {
    io_json_key(out, name);
    strbuf_printf(out, "%llu%s", (unsigned long long)v, behind);
}

static void put_shape(strbuf *out, const uint64_t ne[4], uint32_t n_dims, const char *behind) {
    io_json_key(out, "shape");
    strbuf_putc(out, '[');
    for (uint32_t i = 0; i < n_dims && i < 4; i++)
        strbuf_printf(out, "%s%llu", i ? ", " : "", (unsigned long long)ne[i]);
    strbuf_printf(out, "]%s", behind);
}

static void put_type(strbuf *out, uint32_t type) {
    char buffer[24];
    const char *name = tensor_type_name(type, buffer);
    put_text(out, "type", (strview){name, strlen(name)});
}

static void put_model(strbuf *out, const config *c) {
    strbuf_puts(out, "\"shape\": {");
    put_count(out, "n_layer", c->n_layer, ", \"ratios\": [");
    for (uint32_t il = 0; il < c->n_layer; il++)
        strbuf_printf(out, "%s%u", il ? ", " : "", c->ratio[il]);
    strbuf_puts(out, "], ");
    put_count(out, "n_embd", c->n_embd, ", ");
    put_count(out, "n_stream", c->n_stream, ", ");
    put_count(out, "n_sinkhorn", c->n_sinkhorn, ", ");
    put_count(out, "n_vocab", c->n_vocab, ", ");
    put_count(out, "n_ctx", c->n_ctx, ", ");
    put_count(out, "window", c->window, ", ");
    put_count(out, "n_head", c->n_head, ", ");
    put_count(out, "head_dim", c->head_dim, ", ");
    put_count(out, "n_rot", c->n_rot, ", ");
    put_count(out, "n_q_rank", c->n_q_rank, ", ");
    put_count(out, "n_out_group", c->n_out_group, ", ");
    put_count(out, "n_out_rank", c->n_out_rank, ", ");
    put_count(out, "n_index_head", c->n_index_head, ", ");
    put_count(out, "index_dim", c->index_dim, ", ");
    put_count(out, "index_top_k", c->index_top_k, ", ");
    put_count(out, "n_expert", c->n_expert, ", ");
    put_count(out, "n_expert_used", c->n_expert_used, ", ");
    put_count(out, "n_ff", c->n_ff, ", ");
    put_count(out, "n_hash_layer", c->n_hash_layer, "}, ");
}

static void put_classes(strbuf *out, const class_list *list) {
    strbuf_puts(out, "\"classes\": [");
    for (size_t i = 0; i < list->n; i++) {
        const tensor_class *c = &list->items[i];
        strbuf name = {0};
        tensor_class_name(&name, c);
        strbuf_puts(out, i ? ", {" : "{");
        put_text(out, "name", (strview){name.data, name.n});
        strbuf_release(&name);
        put_type(out, c->type);
        put_count(out, "count", c->n_tensors, ", ");
        put_shape(out, c->ne, c->n_dims, ", ");
        put_count(out, "elements", c->n_elements, ", ");
        put_count(out, "bytes", c->n_bytes, "}");
    }
    strbuf_puts(out, "], ");
}

static void put_memory(strbuf *out, const ds4_memory_plan *m, uint32_t n_ctx) {
    strbuf_puts(out, "\"memory\": {");
    put_count(out, "ctx", n_ctx, ", ");
    put_count(out, "file", m->file, ", ");
    put_count(out, "weights", m->weights, ", ");
    put_count(out, "scratch", m->scratch, ", ");
    put_count(out, "session_fixed", m->session_fixed, ", ");
    put_count(out, "session_growth", m->session_growth, ", ");
    put_count(out, "total", m->total, "}, ");
}

static void put_tensors(strbuf *out, const gguf *g) {
    strbuf_puts(out, "\"tensors\": [");
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        strbuf_puts(out, i ? ", {" : "{");
        put_text(out, "name", t->name);
        put_type(out, t->type);
        put_shape(out, t->ne, t->n_dims, ", ");
        put_count(out, "bytes", t->n_bytes, "}");
    }
    strbuf_puts(out, "], ");
}

/* Values as text: arrays are shortened. */
static void put_keys(strbuf *out, const gguf *g) {
    strbuf_puts(out, "\"keys\": {");
    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        const gguf_kv *kv = gguf_kv_at(g, i);
        strbuf value = {0};
        show_value(&value, g, kv);
        if (i) strbuf_puts(out, ", ");
        io_json_text(out, kv->key.data, kv->key.n);
        strbuf_puts(out, ": ");
        io_json_text(out, value.data, value.n);
        strbuf_release(&value);
    }
    strbuf_puts(out, "}, ");
}

static void put_lints(strbuf *out, const lint_list *list) {
    strbuf_puts(out, "\"oddities\": [");
    for (size_t i = 0; i < list->n; i++) {
        const char *level = lint_level_name(list->items[i].level), *text = list->items[i].text;
        strbuf_puts(out, i ? ", {" : "{");
        put_text(out, "level", (strview){level, strlen(level)});
        io_json_key(out, "text");
        io_json_text(out, text, strlen(text));
        strbuf_putc(out, '}');
    }
    strbuf_puts(out, "]");
}

void show_json(strbuf *out, const description *d) {
    const gguf *g = d->file;
    strbuf_putc(out, '{');
    put_text(out, "path", (strview){gguf_path(g), strlen(gguf_path(g))});
    put_count(out, "bytes", gguf_file_bytes(g), ", ");
    put_count(out, "files", gguf_n_splits(g), ", ");
    put_count(out, "n_tensors", gguf_n_tensors(g), ", ");
    put_count(out, "n_keys", gguf_n_kv(g), ", ");
    put_count(out, "n_params", d->classes->n_elements, ", ");
    if (d->shape) put_model(out, d->shape);
    put_classes(out, d->classes);
    if (d->memory) put_memory(out, d->memory, d->n_ctx);
    if (d->has_tensors) put_tensors(out, g);
    if (d->has_keys) put_keys(out, g);
    put_lints(out, d->lints);
    strbuf_puts(out, "}\n");
}
