/* show_text.c - the description for people. */
#include <string.h>

#include "app/inspect/show.h"
#include "app/io.h"
#include "base/utf8.h"

/* "16.9 MiB" */
static void put_size(strbuf *out, uint64_t bytes) {
    static const char *const UNITS[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    int unit = 0;
    while (v >= 1024 && unit < 4) {
        v /= 1024;
        unit++;
    }
    strbuf_printf(out, unit ? "%.2f %s" : "%.0f %s", v, UNITS[unit]);
}

/* Text from the file: valid, without control characters. */
static void put_plain(strbuf *out, strview s) {
    size_t start = out->n;
    utf8_append_valid(out, s.data, s.n);
    for (size_t i = start; i < out->n; i++)
        if ((unsigned char)out->data[i] < 0x20 || out->data[i] == 0x7f) out->data[i] = ' ';
}

static void put_shape(strbuf *out, const uint64_t ne[4], uint32_t n_dims) {
    for (uint32_t i = 0; i < n_dims && i < 4; i++)
        strbuf_printf(out, "%s%llu", i ? " x " : "", (unsigned long long)ne[i]);
}

/* Pads with spaces up to `width` columns since `start`. */
static void pad(strbuf *out, size_t start, size_t width) {
    do strbuf_putc(out, ' ');
    while (out->n - start < width && !out->is_failed);
}

static void put_label(strbuf *out, const char *label) {
    strbuf_printf(out, "    %-14s", label);
}

/* ---- sections ---- */

static void put_file(strbuf *out, const description *d) {
    const gguf *g = d->file;
    strview name = {0};
    bool found = false;
    ds4_error ignored;
    strbuf_puts(out, "FILE\n");
    put_label(out, "path");
    strbuf_printf(out, "%s\n", gguf_path(g));
    if (gguf_get_string(g, "general.name", &name, &found, &ignored) == DS4_OK && found) {
        put_label(out, "name");
        put_plain(out, name);
        strbuf_putc(out, '\n');
    }
    put_label(out, "size");
    put_size(out, gguf_file_bytes(g));
    strbuf_printf(out, " (%llu bytes) in %u file%s, %zu tensors, %zu keys\n",
                  (unsigned long long)gguf_file_bytes(g), gguf_n_splits(g),
                  gguf_n_splits(g) == 1 ? "" : "s", gguf_n_tensors(g), gguf_n_kv(g));
}

/* "0 0 4 128 4 128", repeated pairs shortened: "0 0 (4 128) x 20 4". */
static void put_ratios(strbuf *out, const uint32_t *ratio, uint32_t n) {
    for (uint32_t il = 0; il < n;) {
        uint32_t n_pairs = 0;
        while (il + 2 * n_pairs + 1 < n && ratio[il + 2 * n_pairs] == ratio[il] &&
               ratio[il + 2 * n_pairs + 1] == ratio[il + 1])
            n_pairs++;
        if (il) strbuf_putc(out, ' ');
        if (n_pairs >= 3) {
            strbuf_printf(out, "(%u %u) x %u", ratio[il], ratio[il + 1], n_pairs);
            il += 2 * n_pairs;
        } else {
            strbuf_printf(out, "%u", ratio[il++]);
        }
    }
}

static const char *score_name(router_score score) {
    switch (score) {
    case ROUTER_SOFTMAX: return "softmax";
    case ROUTER_SIGMOID: return "sigmoid";
    case ROUTER_SQRT_SOFTPLUS: return "sqrt(softplus)";
    }
    return "unknown score";
}

static void put_model(strbuf *out, const description *d) {
    const config *c = d->shape;
    if (!c) return;
    strbuf_puts(out, "\nSHAPE\n");
    put_label(out, "layers");
    strbuf_printf(out, "%u, compression ", c->n_layer);
    put_ratios(out, c->ratio, c->n_layer);
    strbuf_putc(out, '\n');
    put_label(out, "width");
    strbuf_printf(out, "%u, %u streams, %u Sinkhorn iterations\n", c->n_embd, c->n_stream, c->n_sinkhorn);
    put_label(out, "vocabulary");
    strbuf_printf(out, "%u tokens\n", c->n_vocab);
    put_label(out, "context");
    strbuf_printf(out, "%u tokens, window %u\n", c->n_ctx, c->window);
    put_label(out, "attention");
    strbuf_printf(out, "%u heads of %u, %u rotary; query latent %u; %u output groups, latent %u\n",
                  c->n_head, c->head_dim, c->n_rot, c->n_q_rank, c->n_out_group, c->n_out_rank);
    if (c->n_index_head) {
        put_label(out, "indexer");
        strbuf_printf(out, "%u heads of %u, top %u\n", c->n_index_head, c->index_dim, c->index_top_k);
    }
    put_label(out, "experts");
    strbuf_printf(out, "%u, %u used, inner width %u; %s; chosen by token in %u layer%s\n", c->n_expert,
                  c->n_expert_used, c->n_ff, score_name(c->score), c->n_hash_layer,
                  c->n_hash_layer == 1 ? "" : "s");
    put_label(out, "rotation");
    strbuf_printf(out, "base %g; compressed layers base %g", (double)c->rope_window.base,
                  (double)c->rope_compress.base);
    if (c->rope_compress.factor > 1)
        strbuf_printf(out, ", YaRN factor %g on %g", (double)c->rope_compress.factor,
                      (double)c->rope_compress.original_ctx);
    strbuf_putc(out, '\n');
    put_label(out, "parameters");
    strbuf_printf(out, "%llu (all tensors)\n", (unsigned long long)d->classes->n_elements);
}

static void put_classes(strbuf *out, const description *d) {
    const class_list *list = d->classes;
    char buffer[24];
    strbuf_puts(out, "\nTENSORS\n    count  type           bytes  share  name, shape\n");
    for (size_t i = 0; i < list->n; i++) {
        const tensor_class *c = &list->items[i];
        double share = list->n_bytes ? 100.0 * (double)c->n_bytes / (double)list->n_bytes : 0;
        strbuf_printf(out, "    %5u  %-8s%12llu %5.1f%%  ", c->n_tensors,
                      tensor_type_name(c->type, buffer), (unsigned long long)c->n_bytes, share);
        size_t start = out->n;
        strbuf name = {0};
        tensor_class_name(&name, c);
        put_plain(out, (strview){name.data, name.n});
        strbuf_release(&name);
        pad(out, start, 38);
        put_shape(out, c->ne, c->n_dims);
        strbuf_puts(out, c->is_uneven ? " and others\n" : "\n");
    }
    strbuf_printf(out, "    %5zu  all     %12llu 100.0%%\n", gguf_n_tensors(d->file),
                  (unsigned long long)list->n_bytes);
}

static void put_memory(strbuf *out, const description *d) {
    const ds4_memory_plan *m = d->memory;
    if (!m) return;
    const struct {
        const char *label, *meaning;
        uint64_t    bytes;
    } rows[] = {
        {"file", "mapped, paged in on use", m->file},
        {"weights", "copies beside the mapping", m->weights},
        {"scratch", "activations of one step", m->scratch},
        {"session", "from its start", m->session_fixed},
        {"growth", "of the session up to the whole context", m->session_growth},
        {"total", "", m->total},
    };
    strbuf_printf(out, "\nMEMORY for one session of %u tokens\n", d->n_ctx);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        put_label(out, rows[i].label);
        size_t start = out->n;
        put_size(out, rows[i].bytes);
        if (rows[i].meaning[0]) pad(out, start, 14);
        strbuf_printf(out, "%s\n", rows[i].meaning);
    }
}

static void put_lints(strbuf *out, const description *d) {
    strbuf_puts(out, "\nODDITIES\n");
    if (d->lints->n == 0) strbuf_puts(out, "    none\n");
    for (size_t i = 0; i < d->lints->n; i++)
        strbuf_printf(out, "    %-8s %s\n", lint_level_name(d->lints->items[i].level),
                      d->lints->items[i].text);
    if (d->lints->n_left_out) strbuf_printf(out, "    and %zu more\n", d->lints->n_left_out);
}

static void put_tensors(strbuf *out, const gguf *g) {
    char buffer[24];
    strbuf_puts(out, "\nALL TENSORS\n");
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        strbuf_printf(out, "    %-8s%12llu  ", tensor_type_name(t->type, buffer),
                      (unsigned long long)t->n_bytes);
        size_t start = out->n;
        put_plain(out, t->name);
        pad(out, start, 40);
        put_shape(out, t->ne, t->n_dims);
        strbuf_putc(out, '\n');
    }
}

static void put_keys(strbuf *out, const gguf *g) {
    strbuf_puts(out, "\nALL KEYS\n");
    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        const gguf_kv *kv = gguf_kv_at(g, i);
        strbuf value = {0};
        show_value(&value, g, kv);
        strbuf_puts(out, "    ");
        put_plain(out, kv->key);
        strbuf_puts(out, " = ");
        put_plain(out, (strview){value.data, value.n});
        strbuf_putc(out, '\n');
        strbuf_release(&value);
    }
}

void show_text(strbuf *out, const description *d) {
    put_file(out, d);
    put_model(out, d);
    put_classes(out, d);
    put_memory(out, d);
    put_lints(out, d);
    if (d->has_tensors) put_tensors(out, d->file);
    if (d->has_keys) put_keys(out, d->file);
}
