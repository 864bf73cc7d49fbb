/* lints.c - types, missing and unused tensors, metadata. */
#include "app/inspect/lints.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "quant/quant.h"

const char *lint_level_name(lint_level level) {
    static const char *const NAMES[] = {"error", "warning", "note"};
    return NAMES[level];
}

void lint_add(lint_list *list, lint_level level, const char *fmt, ...) {
    if (list->n == LINTS_MAX) {
        list->n_left_out++;
        return;
    }
    lint *l = &list->items[list->n++];
    va_list args;
    va_start(args, fmt);
    vsnprintf(l->text, sizeof l->text, fmt, args);
    va_end(args);
    l->level = level;
    /* Names from the file may be anything, and the line may have been cut inside a character. */
    bool is_text = utf8_is_valid(l->text, strlen(l->text));
    for (char *c = l->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f || ((unsigned char)*c >= 0x80 && !is_text)) *c = '?';
}

/* The name of a class as a C string that lives until the next call with the same buffer. */
static const char *class_name(strbuf *buffer, const tensor_class *c) {
    strbuf_truncate(buffer, 0);
    tensor_class_name(buffer, c);
    return buffer->data && !buffer->is_failed ? buffer->data : "?";
}

/* ---- types ---- */

static bool is_float_type(uint32_t type) {
    return type == QUANT_F32 || type == QUANT_F16 || type == QUANT_BF16;
}

static bool is_integer_type(uint32_t type) {
    return type == QUANT_I32 || type == QUANT_I64;
}

static void check_type(lint_list *list, const tensor_class *c, const char *name) {
    char buffer[24];
    const char *type = tensor_type_name(c->type, buffer);
    const tensor_name parsed = {.place = c->place, .stem = c->stem};
    const known_tensor *known = known_tensor_find(&parsed);
    if (!known) {
        lint_add(list, LINT_WARNING, "%s: %u tensors of %s: not used by ds4", name, c->n_tensors, type);
        return;
    }
    const quant_info *info = quant_find(c->type);
    if (!info) {
        lint_add(list, LINT_ERROR, "%s: type %s: no kernel for it", name, type);
        return;
    }
    switch (known->kind) {
    case KIND_VECTOR:
        if (!info->is_matrix)
            lint_add(list, LINT_ERROR, "%s: type %s, expected f32 or another type of weights", name, type);
        else if (!is_float_type(c->type))
            lint_add(list, LINT_WARNING, "%s: type %s, usually f32", name, type);
        else if (c->type != QUANT_F32 && c->n_dims == 1)
            lint_add(list, LINT_NOTE, "%s: type %s, usually f32", name, type);
        break;
    case KIND_FINE:
        if (!info->is_matrix) lint_add(list, LINT_ERROR, "%s: type %s is no matrix", name, type);
        else if (!is_float_type(c->type))
            lint_add(list, LINT_WARNING,
                     "%s: type %s: usually f16 or wider; quantising what steers the model costs more "
                     "quality than it saves memory", name, type);
        break;
    case KIND_MATRIX:
        if (!info->is_matrix) lint_add(list, LINT_ERROR, "%s: type %s is no matrix", name, type);
        break;
    case KIND_TABLE:
        if (!is_integer_type(c->type))
            lint_add(list, LINT_ERROR, "%s: type %s, expected i32", name, type);
        break;
    }
}

/* The compressor's width depends on the layer's ratio: different shapes are as they should be. */
static bool has_ratio_shape(const tensor_class *c) {
    const tensor_name parsed = {.place = c->place, .stem = c->stem};
    const known_tensor *known = known_tensor_find(&parsed);
    return known && known->need == NEED_COMPRESSED;
}

static void check_classes(lint_list *list, const class_list *classes) {
    strbuf buffer = {0};
    for (size_t i = 0; i < classes->n; i++) {
        const tensor_class *c = &classes->items[i];
        const char *name = class_name(&buffer, c);
        check_type(list, c, name);
        if (c->is_uneven && !has_ratio_shape(c))
            lint_add(list, LINT_NOTE, "%s: the shape varies by layer", name);
        for (size_t k = 0; k < i; k++)
            if (classes->items[k].place == c->place && strview_equal(classes->items[k].stem, c->stem)) {
                lint_add(list, LINT_NOTE, "%s: the type varies by layer", name);
                break;
            }
    }
    if (classes->n_left_out)
        lint_add(list, LINT_WARNING, "%zu tensors with further names are not listed",
                 classes->n_left_out);
    strbuf_release(&buffer);
}

/* ---- missing tensors ---- */

static bool is_needed(const known_tensor *k, const config *c, uint32_t il) {
    switch (k->need) {
    case NEED_ALWAYS: return true;
    case NEED_HASH: return il < c->n_hash_layer;
    case NEED_BIAS: return il >= c->n_hash_layer;
    case NEED_COMPRESSED: return c->ratio[il] > 0;
    case NEED_INDEXED: return c->ratio[il] == 4;
    case NEED_NEVER: return false;
    }
    return false;
}

static void check_missing_in_layers(lint_list *list, const gguf *g, const config *c,
                                    const known_tensor *k) {
    uint32_t n_missing = 0, first = 0;
    for (uint32_t il = 0; il < c->n_layer; il++) {
        char name[96];
        snprintf(name, sizeof name, "blk.%u.%s", il, k->stem);
        if (!is_needed(k, c, il) || gguf_find_tensor(g, name)) continue;
        if (n_missing++ == 0) first = il;
    }
    if (n_missing)
        lint_add(list, LINT_ERROR, "blk.%u.%s is missing (and so in %u layers)", first, k->stem,
                 n_missing);
}

static void check_missing(lint_list *list, const gguf *g, const config *c) {
    size_t n;
    const known_tensor *table = known_tensor_table(&n);
    for (size_t i = 0; i < n; i++) {
        const known_tensor *k = &table[i];
        if (k->place == PLACE_LAYER) check_missing_in_layers(list, g, c, k);
        else if (k->place == PLACE_TOP && !gguf_find_tensor(g, k->stem))
            lint_add(list, LINT_ERROR, "%s is missing%s", k->stem,
                     strcmp(k->stem, "output.weight") == 0
                         ? " (this model does not tie it to token_embd.weight)" : "");
    }
}

static void check_mtp(lint_list *list, const gguf *g, const class_list *classes) {
    bool has_block = false;
    for (size_t i = 0; i < classes->n; i++)
        if (classes->items[i].place == PLACE_MTP) has_block = true;
    uint64_t n_promised = 0;
    bool found = false;
    ds4_error ignored;
    if (gguf_get_u64(g, "deepseek4.nextn_predict_layers", &n_promised, &found, &ignored) != DS4_OK)
        lint_add(list, LINT_WARNING, "%s", ignored.message);
    if (!has_block)
        lint_add(list, LINT_NOTE, "no MTP block: drafts need --mtp FILE%s",
                 n_promised ? ", although deepseek4.nextn_predict_layers promises one" : "");
}

/* ---- metadata ---- */

static const char *const WANTED_KEYS[] = {
    "deepseek4.block_count", "deepseek4.context_length", "deepseek4.embedding_length",
    "deepseek4.attention.compress_ratios", "deepseek4.attention.sliding_window",
    "deepseek4.expert_used_count", "deepseek4.rope.freq_base", "tokenizer.ggml.tokens",
    "tokenizer.ggml.merges", "tokenizer.ggml.token_type",
};

static void check_architecture(lint_list *list, const gguf *g) {
    strview name = {"", 0};
    bool found = false;
    ds4_error ignored;
    ds4_status status = gguf_get_string(g, "general.architecture", &name, &found, &ignored);
    if (status != DS4_OK || !found || !strview_equal(name, STRVIEW("deepseek4")))
        lint_add(list, LINT_ERROR, "general.architecture: found '%.*s', expected 'deepseek4'",
                 (int)(name.n < 40 ? name.n : 40), name.data);
}

static void check_pretokenizer(lint_list *list, const gguf *g) {
    strview pre = {0};
    bool found = false;
    ds4_error ignored;
    ds4_status status = gguf_get_string(g, "tokenizer.ggml.pre", &pre, &found, &ignored);
    bool is_known = strview_equal(pre, STRVIEW("joyai-llm")) || strview_equal(pre, STRVIEW("deepseek-v3"));
    if (status == DS4_OK && found && !is_known)
        lint_add(list, LINT_WARNING,
                 "tokenizer.ggml.pre: found '%.*s', expected joyai-llm or deepseek-v3",
                 (int)(pre.n < 40 ? pre.n : 40), pre.data);
}

static void check_ratios(lint_list *list, const gguf *g, const config *c) {
    const gguf_kv *kv = gguf_find(g, "deepseek4.attention.compress_ratios");
    if (kv && c && kv->n_items > (uint64_t)c->n_layer + 1)
        lint_add(list, LINT_NOTE, "deepseek4.attention.compress_ratios: %llu entries for %u layers",
                 (unsigned long long)kv->n_items, c->n_layer);
    for (uint32_t il = 0; c && il < c->n_layer; il++)
        if (c->ratio[il] != 0 && c->ratio[il] != 4 && c->ratio[il] != 128) {
            lint_add(list, LINT_NOTE, "layer %u: compression ratio %u, released models have 0, 4, 128",
                     il, c->ratio[il]);
            return;
        }
}

static void check_metadata(lint_list *list, const gguf *g, const config *c) {
    check_architecture(list, g);
    check_pretokenizer(list, g);
    check_ratios(list, g, c);
    for (size_t i = 0; i < sizeof WANTED_KEYS / sizeof *WANTED_KEYS; i++)
        if (!gguf_find(g, WANTED_KEYS[i]))
            lint_add(list, LINT_WARNING, "key %s is missing", WANTED_KEYS[i]);
    if (!gguf_find(g, "deepseek4.swiglu_clamp_exp"))
        lint_add(list, LINT_WARNING, "key deepseek4.swiglu_clamp_exp is missing: experts run without "
                                     "clamp, released models have 10");
    if (gguf_find(g, "tokenizer.chat_template"))
        lint_add(list, LINT_NOTE, "tokenizer.chat_template is there and is not used: ds4 renders "
                                  "prompts as the model's own encoder does");
    if (c && c->rope_compress.original_ctx > 0 &&
        (float)c->n_ctx > c->rope_compress.original_ctx * c->rope_compress.factor)
        lint_add(list, LINT_NOTE, "context_length %u is beyond what YaRN stretches to (%.0f)", c->n_ctx,
                 (double)(c->rope_compress.original_ctx * c->rope_compress.factor));
}

void lints_make(lint_list *list, const gguf *g, const class_list *classes, const config *c) {
    check_metadata(list, g, c);
    check_classes(list, classes);
    if (c) check_missing(list, g, c);
    check_mtp(list, g, classes);
}
