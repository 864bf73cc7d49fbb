/* fuzz_gguf.c - opens any bytes as GGUF, reads every key in every way and touches every tensor;
 * what could be read is written again and must come back the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format/gguf.h"
#include "format/gguf_write.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void require(bool is_true) {
    if (!is_true) abort();
}

/* The terminated copy that lookups want; NULL if a NUL inside would cut it. */
static char *terminated(strview s) {
    char *copy = malloc(s.n + 1);
    require(copy != NULL);
    if (s.n) memcpy(copy, s.data, s.n);
    copy[s.n] = 0;
    if (strlen(copy) == s.n) return copy;
    free(copy);
    return NULL;
}

/* Reads every byte, whatever the compiler thinks of it. */
static void touch(const void *data, size_t n) {
    const volatile uint8_t *p = data;
    for (size_t i = 0; i < n; i++) (void)p[i];
}

/* Every getter on a key: whatever it says, it must not trip, and a failure leaves one line. */
static void read_scalar(const gguf *g, const gguf_kv *kv) {
    char *key = terminated(kv->key);
    ds4_error err = {0};
    uint32_t narrow;
    uint64_t wide;
    float real;
    bool flag, found = false;
    strview text;
    if (!key) return;
    require(gguf_find(g, key) == kv);
    ds4_status status[] = {
        gguf_get_u32(g, key, &narrow, &found, &err), gguf_get_u64(g, key, &wide, &found, &err),
        gguf_get_f32(g, key, &real, &found, &err),   gguf_get_bool(g, key, &flag, NULL, &err),
        gguf_get_string(g, key, &text, NULL, &err),
    };
    for (size_t i = 0; i < sizeof status / sizeof *status; i++)
        require(status[i] == DS4_OK || status[i] == DS4_EFORMAT);
    require(strchr(err.message, '\n') == NULL);
    if (status[4] == DS4_OK) touch(text.data, text.n);
    free(key);
}

static void read_items(const gguf *g, const gguf_kv *kv) {
    int64_t whole;
    float real;
    for (uint64_t i = 0; i <= kv->n_items && i < 100; i++) {
        ds4_status status = gguf_item_i64(g, kv, i, &whole, NULL);
        require(status == DS4_OK ? i < kv->n_items : status == DS4_EFORMAT);
        gguf_item_f32(g, kv, i, &real, NULL);
    }
    gguf_item_i64(g, kv, kv->n_items - 1, &whole, NULL);
    gguf_string_iter it = {0};
    strview s;
    uint64_t n = 0;
    for (; gguf_next_string(kv, &it, &s); n++) touch(s.data, s.n);
    require(kv->item_type == GGUF_STRING ? n == kv->n_items : n == 0);
    touch(kv->data, (size_t)kv->n_bytes);
}

static void read_all(const gguf *g, const uint8_t *data, size_t n) {
    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        read_scalar(g, gguf_kv_at(g, i));
        read_items(g, gguf_kv_at(g, i));
    }
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        char *name = terminated(t->name);
        if (name) require(gguf_find_tensor(g, name) == t);
        free(name);
        require(t->n_dims >= 1 && t->n_dims <= 4);
        require(t->data >= data && t->n_bytes <= n && t->data <= data + n - t->n_bytes);
        touch(t->data, (size_t)t->n_bytes);
    }
}

/* The keys and the tensors of known size, written and read again. */
static void write_again(const gguf *g) {
    gguf_writer *w = NULL;
    gguf *again = NULL;
    void *memory = NULL;
    size_t n, n_written = 0;
    require(gguf_writer_create(&w, 32, NULL) == DS4_OK);
    for (size_t i = 0; i < gguf_n_kv(g); i++)
        if (!strview_equal(gguf_kv_at(g, i)->key, STRVIEW("general.alignment")))
            gguf_add_kv(w, gguf_kv_at(g, i));
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        char *name = terminated(t->name);
        if (name && t->n_bytes > 0) {
            gguf_add_tensor(w, name, t->type, t->n_dims, t->ne, t->data);
            n_written++;
        }
        free(name);
    }
    require(gguf_writer_finish_memory(w, &memory, &n, NULL) == DS4_OK);
    ds4_error err;
    ds4_status status = gguf_open_memory(&again, memory, n, &err);
    /* Only what is said about splits can be wrong now: tensors were left out. */
    require(status == DS4_OK || strstr(err.message, "split.") != NULL);
    if (status == DS4_OK) require(gguf_n_tensors(again) == n_written);
    gguf_close(again);
    free(memory);
    gguf_writer_destroy(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    gguf *g = NULL;
    ds4_error err = {0};
    ds4_status status = gguf_open_memory(&g, data, n, &err);
    if (status != DS4_OK) {
        require(g == NULL && status == DS4_EFORMAT && err.message[0] != 0);
        require(strchr(err.message, '\n') == NULL);
        return 0;
    }
    read_all(g, data, n);
    write_again(g);
    gguf_close(g);
    return 0;
}
