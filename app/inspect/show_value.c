/* show_value.c - one metadata value as JSON-like text. */
#include "app/inspect/show.h"
#include "app/io.h"

enum { SHOWN_ITEMS = 8, SHOWN_BYTES = 120 };

static void put_string(strbuf *out, strview s) {
    bool is_cut = s.n > SHOWN_BYTES;
    io_json_text(out, s.data, is_cut ? SHOWN_BYTES : s.n);
    if (is_cut) strbuf_printf(out, "... (%zu bytes)", s.n);
}

static void put_number(strbuf *out, const gguf *g, const gguf_kv *kv, uint64_t i) {
    int64_t whole;
    float real;
    ds4_error ignored;
    bool is_real = kv->item_type == GGUF_F32 || kv->item_type == GGUF_F64;
    if (kv->item_type == GGUF_BOOL)
        strbuf_puts(out, kv->data[i] ? "true" : "false");
    else if (!is_real && gguf_item_i64(g, kv, i, &whole, &ignored) == DS4_OK)
        strbuf_printf(out, "%lld", (long long)whole);
    else if (gguf_item_f32(g, kv, i, &real, &ignored) == DS4_OK)
        strbuf_printf(out, "%.7g", (double)real);
    else
        strbuf_putc(out, '?');
}

static void put_array(strbuf *out, const gguf *g, const gguf_kv *kv) {
    gguf_string_iter it = {0};
    strview s;
    strbuf_putc(out, '[');
    for (uint64_t i = 0; i < kv->n_items && i < SHOWN_ITEMS; i++) {
        if (i) strbuf_puts(out, ", ");
        if (kv->item_type == GGUF_ARRAY) strbuf_puts(out, "[...]");
        else if (kv->item_type != GGUF_STRING) put_number(out, g, kv, i);
        else if (gguf_next_string(kv, &it, &s)) put_string(out, s);
    }
    if (kv->n_items > SHOWN_ITEMS) strbuf_puts(out, ", ...");
    strbuf_printf(out, "] (%llu items)", (unsigned long long)kv->n_items);
}

/* A string that stands alone: found by its key, which is not terminated in the file. */
static void put_scalar_string(strbuf *out, const gguf *g, const gguf_kv *kv) {
    strbuf key = {0};
    strview s;
    bool found = false;
    ds4_error ignored;
    strbuf_view(&key, kv->key);
    if (!key.is_failed && key.data &&
        gguf_get_string(g, key.data, &s, &found, &ignored) == DS4_OK && found)
        put_string(out, s);
    strbuf_release(&key);
}

void show_value(strbuf *out, const gguf *g, const gguf_kv *kv) {
    if (kv->type == GGUF_ARRAY) put_array(out, g, kv);
    else if (kv->type == GGUF_STRING) put_scalar_string(out, g, kv);
    else put_number(out, g, kv, 0);
}
