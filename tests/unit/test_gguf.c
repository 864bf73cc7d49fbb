/* test_gguf.c - reading and writing GGUF: values of every type, splits, and files that lie. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/gguf.h"
#include "format/gguf_write.h"
#include "quant/quant.h"
#include "tests/support/randmodel.h"

/* ---- files made by hand, field by field ---- */

static void u32(strbuf *b, uint32_t v) {
    for (int i = 0; i < 4; i++) strbuf_putc(b, (char)(v >> 8 * i));
}

static void u64(strbuf *b, uint64_t v) {
    for (int i = 0; i < 8; i++) strbuf_putc(b, (char)(v >> 8 * i));
}

static void string(strbuf *b, const char *s) {
    u64(b, strlen(s));
    strbuf_puts(b, s);
}

static void header(strbuf *b, uint64_t n_tensors, uint64_t n_kv) {
    *b = (strbuf){0};
    strbuf_puts(b, "GGUF");
    u32(b, 3);
    u64(b, n_tensors);
    u64(b, n_kv);
}

static void key(strbuf *b, const char *name, uint32_t type) {
    string(b, name);
    u32(b, type);
}

static void array(strbuf *b, uint32_t item_type, uint64_t n) {
    u32(b, item_type);
    u64(b, n);
}

static void tensor(strbuf *b, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1,
                   uint64_t offset) {
    string(b, name);
    u32(b, 2);
    u64(b, ne0);
    u64(b, ne1);
    u32(b, type);
    u64(b, offset);
}

/* Pads to the data's start and adds n bytes of it. */
static void data(strbuf *b, size_t n) {
    while (b->n % 32) strbuf_putc(b, 0);
    for (size_t i = 0; i < n; i++) strbuf_putc(b, (char)i);
}

static gguf *open_bytes(const strbuf *b) {
    gguf *g = NULL;
    ds4_error err = {0};
    if (gguf_open_memory(&g, b->data, b->n, &err) != DS4_OK) fail_msg("%s", err.message);
    return g;
}

/* The file is refused with a message of one line that holds `wanted`; releases b. */
static void refused(strbuf *b, const char *wanted) {
    gguf *g = (gguf *)b; /* must stay as it is */
    ds4_error err = {0};
    /* An exact copy, so that a sanitizer sees the first byte behind the end. */
    void *copy = malloc(b->n ? b->n : 1);
    assert_non_null(copy);
    if (b->n) memcpy(copy, b->data, b->n);
    assert_int_equal(gguf_open_memory(&g, copy, b->n, &err), DS4_EFORMAT);
    assert_int_equal(err.code, DS4_EFORMAT);
    assert_ptr_equal(g, b);
    assert_null(strchr(err.message, '\n'));
    assert_int_equal(strncmp(err.message, "(memory): ", 10), 0);
    if (!strstr(err.message, wanted))
        fail_msg("found '%s', expected '%s' in it", err.message, wanted);
    free(copy);
    strbuf_release(b);
}

/* ---- values ---- */

static const int8_t items_i8[3] = {-128, 0, 127};
static const uint16_t items_u16[2] = {0, 65535};
static const int32_t items_i32[2] = {INT32_MIN, 5};
static const uint64_t items_u64[2] = {1, UINT64_MAX};
static const int64_t items_i64[2] = {INT64_MIN, INT64_MAX};
static const float items_f32[2] = {1.5f, -0.25f};
static const double items_f64[2] = {0.1, 1e300};
static const uint8_t items_bool[2] = {1, 0};

/* A file with a key of every kind and tensors of three types. */
static gguf_writer *write_sample(uint32_t alignment) {
    static const strview strings[3] = {{"a", 1}, {"", 0}, {"b\0c", 3}};
    static const uint8_t bytes[4096] = {1, 2, 3};
    gguf_writer *w = NULL;
    assert_int_equal(gguf_writer_create(&w, alignment, NULL), DS4_OK);
    gguf_add_u32(w, "u32", 4000000000u);
    gguf_add_u64(w, "u64", 1ull << 40);
    gguf_add_f32(w, "f32", 0.1f);
    gguf_add_bool(w, "yes", true);
    gguf_add_bool(w, "no", false);
    gguf_add_string(w, "text", STRVIEW("gr\xc3\xbc\xc3\x9f"));
    gguf_add_string(w, "empty", STRVIEW(""));
    gguf_add_strings(w, "strings", strings, 3);
    gguf_add_strings(w, "none", NULL, 0);
    gguf_add_array(w, "i8s", GGUF_I8, items_i8, 3);
    gguf_add_array(w, "u16s", GGUF_U16, items_u16, 2);
    gguf_add_array(w, "i32s", GGUF_I32, items_i32, 2);
    gguf_add_array(w, "u64s", GGUF_U64, items_u64, 2);
    gguf_add_array(w, "i64s", GGUF_I64, items_i64, 2);
    gguf_add_array(w, "f32s", GGUF_F32, items_f32, 2);
    gguf_add_array(w, "f64s", GGUF_F64, items_f64, 2);
    gguf_add_array(w, "bools", GGUF_BOOL, items_bool, 2);
    gguf_add_tensor(w, "vector", QUANT_F32, 1, (const uint64_t[]){3}, bytes);
    gguf_add_tensor(w, "matrix", QUANT_Q8_0, 2, (const uint64_t[]){64, 5}, bytes);
    gguf_add_tensor(w, "stack", QUANT_F16, 4, (const uint64_t[]){2, 3, 4, 2}, bytes);
    return w;
}

static gguf *open_sample(void **memory) {
    gguf_writer *w = write_sample(32);
    gguf *g = NULL;
    size_t n;
    assert_int_equal(gguf_writer_finish_memory(w, memory, &n, NULL), DS4_OK);
    gguf_writer_destroy(w);
    assert_int_equal(gguf_open_memory(&g, *memory, n, NULL), DS4_OK);
    return g;
}

static void test_get(void **state) {
    (void)state;
    void *memory;
    gguf *g = open_sample(&memory);
    uint32_t narrow;
    uint64_t wide;
    float real;
    bool flag, found;
    strview text;

    assert_int_equal(gguf_get_u32(g, "u32", &narrow, NULL, NULL), DS4_OK);
    assert_int_equal(narrow, 4000000000u);
    assert_int_equal(gguf_get_u64(g, "u32", &wide, &found, NULL), DS4_OK);
    assert_true(found && wide == 4000000000u);
    assert_int_equal(gguf_get_u64(g, "u64", &wide, NULL, NULL), DS4_OK);
    assert_true(wide == 1ull << 40);
    assert_int_equal(gguf_get_f32(g, "f32", &real, &found, NULL), DS4_OK);
    assert_true(found && real == 0.1f);
    assert_int_equal(gguf_get_f32(g, "u64", &real, NULL, NULL), DS4_OK);
    assert_true(real == 0x1p40f);
    assert_int_equal(gguf_get_bool(g, "yes", &flag, NULL, NULL), DS4_OK);
    assert_true(flag);
    assert_int_equal(gguf_get_bool(g, "no", &flag, &found, NULL), DS4_OK);
    assert_true(found && !flag);
    assert_int_equal(gguf_get_bool(g, "u32", &flag, NULL, NULL), DS4_OK);
    assert_true(flag);
    assert_int_equal(gguf_get_string(g, "text", &text, NULL, NULL), DS4_OK);
    assert_true(strview_equal(text, STRVIEW("gr\xc3\xbc\xc3\x9f")));
    assert_int_equal(gguf_get_string(g, "empty", &text, &found, NULL), DS4_OK);
    assert_true(found && text.n == 0);
    gguf_close(g);
    free(memory);
}

static void test_get_fails(void **state) {
    (void)state;
    void *memory;
    gguf *g = open_sample(&memory);
    ds4_error err;
    uint32_t narrow = 77;
    float real = 7;
    bool flag = true, found = true;
    strview text = {"kept", 4};

    /* Absent: no failure unless the caller needs it. */
    assert_int_equal(gguf_get_u32(g, "absent", &narrow, &found, &err), DS4_OK);
    assert_true(!found && narrow == 77);
    assert_int_equal(gguf_get_string(g, "absent", &text, NULL, &err), DS4_EFORMAT);
    assert_string_equal(err.message, "(memory): key 'absent' is missing");

    /* There, but no such value: the outputs stay. */
    found = false;
    assert_int_equal(gguf_get_u32(g, "u64", &narrow, &found, &err), DS4_EFORMAT);
    assert_string_equal(err.message,
                        "(memory): key 'u64': found 1099511627776, expected an integer "
                        "from 0 to 2^32 - 1");
    assert_int_equal(gguf_get_u32(g, "f32", &narrow, &found, &err), DS4_EFORMAT);
    assert_non_null(strstr(err.message, "'f32': found f32, expected an integer"));
    assert_int_equal(gguf_get_u32(g, "yes", &narrow, &found, NULL), DS4_EFORMAT);
    assert_int_equal(gguf_get_u32(g, "u16s", &narrow, &found, &err), DS4_EFORMAT);
    assert_non_null(strstr(err.message, "found array of u16"));
    assert_int_equal(gguf_get_f32(g, "text", &real, &found, &err), DS4_EFORMAT);
    assert_non_null(strstr(err.message, "found string, expected a number"));
    assert_int_equal(gguf_get_f32(g, "yes", &real, &found, NULL), DS4_EFORMAT);
    assert_int_equal(gguf_get_bool(g, "f32", &flag, &found, NULL), DS4_EFORMAT);
    assert_int_equal(gguf_get_string(g, "u32", &text, &found, &err), DS4_EFORMAT);
    assert_non_null(strstr(err.message, "found u32, expected a string"));
    assert_int_equal(gguf_get_string(g, "strings", &text, &found, NULL), DS4_EFORMAT);
    assert_true(narrow == 77 && real == 7 && flag && !found && text.n == 4);
    gguf_close(g);
    free(memory);
}

static int64_t item_i64(const gguf *g, const char *name, uint64_t i) {
    int64_t v;
    assert_int_equal(gguf_item_i64(g, gguf_find(g, name), i, &v, NULL), DS4_OK);
    return v;
}

static float item_f32(const gguf *g, const char *name, uint64_t i) {
    float v;
    assert_int_equal(gguf_item_f32(g, gguf_find(g, name), i, &v, NULL), DS4_OK);
    return v;
}

static void test_items(void **state) {
    (void)state;
    void *memory;
    gguf *g = open_sample(&memory);
    for (uint64_t i = 0; i < 3; i++) assert_true(item_i64(g, "i8s", i) == items_i8[i]);
    for (uint64_t i = 0; i < 2; i++) {
        assert_true(item_i64(g, "u16s", i) == items_u16[i]);
        assert_true(item_i64(g, "i32s", i) == items_i32[i]);
        assert_true(item_i64(g, "i64s", i) == items_i64[i]);
        assert_true(item_f32(g, "f32s", i) == items_f32[i]);
        assert_true(item_f32(g, "i8s", i) == (float)items_i8[i]);
        assert_true(item_f32(g, "i64s", i) == (float)items_i64[i]);
    }
    assert_true(item_i64(g, "u32", 0) == 4000000000u);
    assert_true(item_f32(g, "f64s", 0) == (float)0.1);

    int64_t whole = 7;
    float real = 7;
    ds4_error err;
    assert_int_equal(gguf_item_i64(g, gguf_find(g, "u64s"), 1, &whole, &err), DS4_EFORMAT);
    assert_non_null(strstr(err.message, "'u64s': found 18446744073709551615, expected"));
    assert_int_equal(gguf_item_i64(g, gguf_find(g, "i8s"), 3, &whole, &err), DS4_EFORMAT);
    assert_non_null(strstr(err.message, "'i8s': found 3 items, expected at least 4"));
    assert_int_equal(gguf_item_i64(g, gguf_find(g, "i8s"), UINT64_MAX, &whole, NULL), DS4_EFORMAT);
    assert_int_equal(gguf_item_i64(g, gguf_find(g, "none"), 0, &whole, NULL), DS4_EFORMAT);
    assert_int_equal(gguf_item_i64(g, gguf_find(g, "u32"), 1, &whole, NULL), DS4_EFORMAT);
    assert_int_equal(gguf_item_i64(g, gguf_find(g, "f32s"), 0, &whole, NULL), DS4_EFORMAT);
    assert_int_equal(gguf_item_i64(g, gguf_find(g, "strings"), 0, &whole, NULL), DS4_EFORMAT);
    assert_int_equal(gguf_item_f32(g, gguf_find(g, "f64s"), 1, &real, &err), DS4_EFORMAT);
    assert_non_null(strstr(err.message, "found 1e+300"));
    assert_true(whole == 7 && real == 7);
    gguf_close(g);
    free(memory);
}

static void test_strings(void **state) {
    (void)state;
    void *memory;
    gguf *g = open_sample(&memory);
    gguf_string_iter it = {0};
    strview s;
    const gguf_kv *kv = gguf_find(g, "strings");
    assert_true(gguf_next_string(kv, &it, &s) && strview_equal(s, STRVIEW("a")));
    assert_true(gguf_next_string(kv, &it, &s) && s.n == 0);
    assert_true(gguf_next_string(kv, &it, &s) && s.n == 3 && memcmp(s.data, "b\0c", 3) == 0);
    assert_false(gguf_next_string(kv, &it, &s));
    assert_false(gguf_next_string(kv, &it, &s));
    it = (gguf_string_iter){0};
    assert_false(gguf_next_string(gguf_find(g, "none"), &it, &s));
    assert_false(gguf_next_string(gguf_find(g, "i8s"), &it, &s));
    assert_true(gguf_next_string(gguf_find(g, "text"), &it, &s) && s.n == 6);
    gguf_close(g);
    free(memory);
}

static void test_tensors(void **state) {
    (void)state;
    for (uint32_t alignment = 8; alignment <= 4096; alignment *= 2) {
        gguf_writer *w = write_sample(alignment);
        gguf *g = NULL;
        void *memory;
        size_t n, n_split;
        const uint8_t *bytes;
        assert_int_equal(gguf_writer_finish_memory(w, &memory, &n, NULL), DS4_OK);
        assert_int_equal(gguf_open_memory(&g, memory, n, NULL), DS4_OK);
        assert_int_equal(gguf_n_tensors(g), 3);
        assert_int_equal(gguf_n_kv(g), 17 + (alignment != 32));
        assert_int_equal(gguf_n_splits(g), 1);
        assert_int_equal(gguf_file_bytes(g), n);
        gguf_split_bytes(g, 0, &bytes, &n_split);
        assert_ptr_equal(bytes, memory);
        assert_int_equal(n_split, n);

        const gguf_tensor *t = gguf_find_tensor(g, "matrix");
        assert_ptr_equal(t, gguf_tensor_at(g, 1));
        assert_int_equal(t->type, QUANT_Q8_0);
        assert_int_equal(t->n_dims, 2);
        assert_true(t->ne[0] == 64 && t->ne[1] == 5 && t->ne[2] == 1 && t->ne[3] == 1);
        assert_int_equal(t->n_bytes, 340);
        assert_int_equal(t->split, 0);
        assert_int_equal((size_t)(t->data - bytes) % alignment, 0);
        assert_true(t->data[0] == 1 && t->data[2] == 3 && t->data[3] == 0);
        t = gguf_find_tensor(g, "stack");
        assert_int_equal(t->n_bytes, 96);
        assert_true(t->n_dims == 4 && t->ne[3] == 2);
        assert_null(gguf_find_tensor(g, "matri"));
        assert_null(gguf_find_tensor(g, "matrixx"));
        assert_null(gguf_find_tensor(g, ""));
        assert_null(gguf_find(g, "vector"));
        gguf_close(g);
        gguf_writer_destroy(w);
        free(memory);
    }
}

static void test_many_names(void **state) {
    (void)state;
    enum { N = 5000 };
    gguf_writer *w = NULL;
    gguf *g = NULL;
    void *memory;
    size_t n;
    char name[32];
    const uint64_t ne = 1;
    const float value = 1;
    assert_int_equal(gguf_writer_create(&w, 32, NULL), DS4_OK);
    for (uint32_t i = 0; i < N; i++) {
        snprintf(name, sizeof name, "blk.%u.x", i);
        gguf_add_u32(w, name, i);
        gguf_add_tensor(w, name, QUANT_F32, 1, &ne, &value);
    }
    assert_int_equal(gguf_writer_finish_memory(w, &memory, &n, NULL), DS4_OK);
    assert_int_equal(gguf_open_memory(&g, memory, n, NULL), DS4_OK);
    for (uint32_t i = 0; i < N + 10; i++) {
        snprintf(name, sizeof name, "blk.%u.x", i);
        const gguf_tensor *t = gguf_find_tensor(g, name);
        if (i < N)
            assert_ptr_equal(t, gguf_tensor_at(g, i));
        else
            assert_null(t);
        uint32_t v;
        if (i < N) assert_int_equal(gguf_get_u32(g, name, &v, NULL, NULL), DS4_OK);
        if (i < N) assert_int_equal(v, i);
    }
    gguf_close(g);
    gguf_writer_destroy(w);
    free(memory);
}

/* Keys copied from an open file, and the same tensors: the same bytes. */
static void test_copy(void **state) {
    (void)state;
    gguf_writer *w = write_sample(64), *again = NULL;
    gguf *g = NULL;
    void *memory, *copy;
    size_t n, n_copy;
    assert_int_equal(gguf_writer_finish_memory(w, &memory, &n, NULL), DS4_OK);
    assert_int_equal(gguf_open_memory(&g, memory, n, NULL), DS4_OK);
    assert_int_equal(gguf_writer_create(&again, 64, NULL), DS4_OK);
    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        const gguf_kv *kv = gguf_kv_at(g, i);
        if (!strview_equal(kv->key, STRVIEW("general.alignment"))) gguf_add_kv(again, kv);
    }
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        char name[32];
        snprintf(name, sizeof name, "%.*s", (int)t->name.n, t->name.data);
        gguf_add_tensor(again, name, t->type, t->n_dims, t->ne, t->data);
    }
    assert_int_equal(gguf_writer_finish_memory(again, &copy, &n_copy, NULL), DS4_OK);
    assert_int_equal(n_copy, n);
    assert_memory_equal(copy, memory, n);
    gguf_close(g);
    gguf_writer_destroy(w);
    gguf_writer_destroy(again);
    free(memory);
    free(copy);
}

/* ---- files that lie ---- */

static void test_header(void **state) {
    (void)state;
    strbuf b = {0};
    refused(&b, "does not begin with \"GGUF\"");
    strbuf_puts(&b, "GGU");
    refused(&b, "does not begin with \"GGUF\"");
    strbuf_puts(&b, "GGML and more bytes than a header");
    refused(&b, "does not begin with \"GGUF\"");
    strbuf_puts(&b, "GGUF");
    u32(&b, 2);
    u64(&b, 0);
    u64(&b, 0);
    refused(&b, "found GGUF version 2, expected 3");
    header(&b, 0, 1);
    refused(&b, "the file (24 bytes) ends inside key 1 of 1");
    header(&b, 0, UINT64_MAX);
    refused(&b, "ends inside key 1 of 18446744073709551615");
    header(&b, UINT64_MAX, 0);
    refused(&b, "ends inside the description of tensor 1 of 18446744073709551615");
    header(&b, 0, 0);
    gguf *g = open_bytes(&b); /* nothing in it, but nothing wrong */
    assert_int_equal(gguf_n_tensors(g) + gguf_n_kv(g), 0);
    assert_null(gguf_find(g, "x"));
    assert_null(gguf_find_tensor(g, "x"));
    gguf_close(g);
    strbuf_release(&b);
}

static void test_bad_keys(void **state) {
    (void)state;
    strbuf b;
    header(&b, 0, 1);
    key(&b, "k", 13);
    u64(&b, 0);
    u64(&b, 0);
    refused(&b, "key 'k': value type 13, expected 0 to 12");
    header(&b, 0, 1);
    key(&b, "k", GGUF_ARRAY);
    array(&b, 99, 0);
    refused(&b, "key 'k': value type 99");
    header(&b, 0, 1);
    u64(&b, UINT64_MAX); /* length of the key */
    strbuf_puts(&b, "a few bytes of a key that goes on and on");
    refused(&b, "ends inside key 1 of 1");
    header(&b, 0, 1);
    key(&b, "k", GGUF_STRING);
    u64(&b, UINT64_MAX - 7);
    u64(&b, 0);
    refused(&b, "key 'k': its value goes beyond the end of the file");
    header(&b, 0, 1);
    key(&b, "k", GGUF_ARRAY);
    array(&b, GGUF_U64, 1ull << 61); /* 8 times that is 0 in 64 bits */
    refused(&b, "key 'k': its value goes beyond the end of the file");
    header(&b, 0, 1);
    key(&b, "k", GGUF_ARRAY);
    array(&b, GGUF_STRING, 1ull << 60);
    string(&b, "one");
    refused(&b, "key 'k': its value goes beyond the end of the file");
    header(&b, 0, 2);
    key(&b, "same", GGUF_U32);
    u32(&b, 1);
    key(&b, "same", GGUF_U32);
    u32(&b, 2);
    refused(&b, "key 'same' appears twice");
    header(&b, 0, 1);
    key(&b, "line\nbreak\x7f\xff", 13);
    refused(&b, "key 'line?break?\?': value type 13");
    header(&b, 0, 1);
    u64(&b, 300);
    for (int i = 0; i < 150; i++) strbuf_puts(&b, "\xc3\xa4"); /* cut between characters */
    u32(&b, 13);
    refused(&b, "\xc3\xa4...': value type 13");
}

static void nested(strbuf *b, int depth) {
    header(b, 0, 2);
    key(b, "deep", GGUF_ARRAY);
    for (int i = 1; i < depth; i++) array(b, GGUF_ARRAY, 1);
    array(b, GGUF_U8, 2);
    strbuf_append(b, "\1\2", 2);
    key(b, "next", GGUF_U32);
    u32(b, 5);
}

static void test_nested_arrays(void **state) {
    (void)state;
    strbuf b;
    nested(&b, 8);
    gguf *g = open_bytes(&b);
    const gguf_kv *kv = gguf_find(g, "deep");
    int64_t v;
    assert_true(kv->item_type == GGUF_ARRAY && kv->n_items == 1 && kv->n_bytes == 7 * 12 + 2);
    assert_int_equal(gguf_item_i64(g, kv, 0, &v, NULL), DS4_EFORMAT);
    assert_true(item_i64(g, "next", 0) == 5);
    gguf_close(g);
    strbuf_release(&b);
    nested(&b, 9);
    refused(&b, "key 'deep': arrays nested deeper than 8");
    nested(&b, 5000);
    refused(&b, "key 'deep': arrays nested deeper than 8");
}

static void test_alignment(void **state) {
    (void)state;
    static const uint32_t bad[] = {0, 1, 2, 3, 4, 33, 0x80000000u};
    strbuf b;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        header(&b, 1, 1);
        key(&b, "general.alignment", GGUF_U32);
        u32(&b, bad[i]);
        tensor(&b, "t", QUANT_F32, 1, 1, 0);
        data(&b, 64);
        refused(&b, "'general.alignment': found");
    }
    header(&b, 1, 1);
    key(&b, "general.alignment", GGUF_U64);
    u64(&b, 64);
    tensor(&b, "t", QUANT_F32, 1, 1, 0);
    data(&b, 64);
    refused(&b, "'general.alignment': found u64, expected u32");
}

static void test_bad_tensors(void **state) {
    (void)state;
    strbuf b;
    for (uint32_t n_dims = 0; n_dims <= 5; n_dims += 5) {
        header(&b, 1, 0);
        string(&b, "t");
        u32(&b, n_dims);
        for (int i = 0; i < 8; i++) u64(&b, 1);
        refused(&b, "tensor 't': number of dimensions");
    }
    header(&b, 1, 0);
    tensor(&b, "t", QUANT_F32, 4, 0, 0);
    refused(&b, "tensor 't': a dimension of 0, expected at least 1");
    header(&b, 1, 0);
    tensor(&b, "t", 1000, 1ull << 33, 1ull << 33, 0);
    refused(&b, "tensor 't': a dimension of 8589934592, expected a product below 2^64");
    header(&b, 1, 0);
    tensor(&b, "t", QUANT_F32, 1ull << 31, 1ull << 31, 0);
    refused(&b, "tensor 't': elements 4611686018427387904, expected fewer than 2^64 bytes");
    header(&b, 1, 0);
    tensor(&b, "t", QUANT_Q4_K, 128, 2, 0);
    data(&b, 4096);
    refused(&b, "tensor 't': rows of 128, expected a multiple of 256 for type q4_k");
    header(&b, 1, 0);
    tensor(&b, "t", QUANT_F32, 8, 1, 16);
    data(&b, 64);
    refused(&b, "tensor 't': offset 16, expected a multiple of 32");
    header(&b, 1, 0);
    tensor(&b, "t", QUANT_F32, 17, 1, 0);
    data(&b, 64);
    refused(&b, "tensor 't': its data ends at byte 164, but the file has 160: is it complete?");
    header(&b, 1, 0);
    tensor(&b, "t", QUANT_F32, 8, 1, UINT64_MAX - 31);
    data(&b, 64);
    refused(&b, "tensor 't': its data ends at byte");
    header(&b, 1, 0);
    tensor(&b, "t", 1000, 8, 1, 1 << 20); /* of unknown size, but where it is must be in the file */
    data(&b, 64);
    refused(&b, "tensor 't': its data ends at byte");
    header(&b, 2, 0);
    tensor(&b, "t", QUANT_F32, 8, 1, 0);
    tensor(&b, "t", QUANT_F32, 8, 1, 32);
    data(&b, 64);
    refused(&b, "tensor 't' appears twice");
    header(&b, 3, 0);
    tensor(&b, "c", QUANT_F32, 8, 1, 64);
    tensor(&b, "a", QUANT_F32, 9, 1, 0);
    tensor(&b, "b", QUANT_F32, 8, 1, 32);
    data(&b, 96);
    refused(&b, "tensors 'a' and 'b' overlap");
    header(&b, 2, 0);
    tensor(&b, "a", QUANT_F32, 8, 1, 0);
    tensor(&b, "b", QUANT_F32, 8, 1, 0);
    data(&b, 96);
    refused(&b, "overlap");
}

static void test_foreign_types(void **state) {
    (void)state;
    strbuf b;
    header(&b, 3, 0);
    tensor(&b, "unknown", 1000, 7, 3, 0);
    tensor(&b, "iq3", 18, 256, 2, 32);
    tensor(&b, "last", QUANT_F32, 1, 1, 256);
    data(&b, 260);
    gguf *g = open_bytes(&b);
    const gguf_tensor *t = gguf_find_tensor(g, "unknown");
    assert_true(t->type == 1000 && t->n_bytes == 0 && t->ne[0] == 7);
    assert_int_equal(gguf_find_tensor(g, "iq3")->n_bytes, 196);
    assert_int_equal(gguf_find_tensor(g, "last")->data[1], 1);
    gguf_close(g);
    strbuf_release(&b);
}

/* Cut after any byte: a clear error. */
static void test_truncation(void **state) {
    (void)state;
    gguf_writer *w = write_sample(32);
    void *memory;
    size_t n; /* the last tensor, of 96 bytes, ends the file without padding */
    assert_int_equal(gguf_writer_finish_memory(w, &memory, &n, NULL), DS4_OK);
    gguf_writer_destroy(w);
    for (size_t cut = 0; cut < n; cut++) {
        strbuf b = {0};
        strbuf_append(&b, memory, cut);
        refused(&b, cut < 4 ? "not a GGUF file" : cut < 24 ? "ends inside its header" : "");
    }
    free(memory);
}

/* Every byte replaced by a few others: refused or read, but never out of bounds. */
static void test_damage(void **state) {
    (void)state;
    static const uint8_t xors[] = {0x01, 0x80, 0xff, 0x10};
    gguf_writer *w = write_sample(32);
    void *memory;
    size_t n, n_read = 0;
    assert_int_equal(gguf_writer_finish_memory(w, &memory, &n, NULL), DS4_OK);
    gguf_writer_destroy(w);
    uint8_t *bytes = memory;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof xors; k++) {
            gguf *g = NULL;
            ds4_error err = {0};
            bytes[i] ^= xors[k];
            ds4_status status = gguf_open_memory(&g, memory, n, &err);
            assert_true(status == DS4_OK || (status == DS4_EFORMAT && err.message[0]));
            n_read += status == DS4_OK;
            gguf_close(g);
            bytes[i] ^= xors[k];
        }
    assert_true(n_read > 0);
    free(memory);
}

/* ---- files on disk ---- */

/* A path below the test's own directory; the last four results are valid. */
static const char *temp_path(const char *name) {
    static char paths[4][256];
    static int at;
    char *path = paths[at++ % 4];
    snprintf(path, sizeof paths[0], "/tmp/ds4-test-gguf-%ld-%s", (long)getpid(), name);
    return path;
}

static void write_split(const char *name, const char *tensor_name, int64_t no, int64_t count,
                        int64_t n_all) {
    static const float value = 2;
    gguf_writer *w = NULL;
    assert_int_equal(gguf_writer_create(&w, 32, NULL), DS4_OK);
    if (no >= 0) gguf_add_u32(w, "split.no", (uint32_t)no);
    if (count >= 0) gguf_add_u32(w, "split.count", (uint32_t)count);
    if (n_all >= 0) gguf_add_u32(w, "split.tensors.count", (uint32_t)n_all);
    if (no == 0)
        gguf_add_u32(w, "only.first", 1);
    else
        gguf_add_u32(w, "only.later", 1);
    gguf_add_tensor(w, tensor_name, QUANT_F32, 1, (const uint64_t[]){1}, &value);
    assert_int_equal(gguf_writer_finish(w, temp_path(name), NULL), DS4_OK);
    gguf_writer_destroy(w);
}

static void refused_file(const char *name, ds4_status code, const char *wanted) {
    gguf *g = NULL;
    ds4_error err = {0};
    assert_int_equal(gguf_open(&g, temp_path(name), &err), code);
    assert_null(g);
    if (!strstr(err.message, wanted))
        fail_msg("found '%s', expected '%s' in it", err.message, wanted);
}

static void test_splits(void **state) {
    (void)state;
    const char *names[3] = {"s-00001-of-00003.gguf", "s-00002-of-00003.gguf",
                            "s-00003-of-00003.gguf"};
    write_split(names[0], "a", 0, 3, 3);
    write_split(names[1], "b", 1, 3, 3);
    write_split(names[2], "c", 2, 3, 3);
    for (int k = 0; k < 3; k++) {
        gguf *g = NULL;
        const char *path = temp_path(names[k]);
        assert_int_equal(gguf_open(&g, path, NULL), DS4_OK);
        assert_string_equal(gguf_path(g), path);
        assert_int_equal(gguf_n_splits(g), 3);
        assert_int_equal(gguf_n_tensors(g), 3);
        assert_non_null(gguf_find(g, "only.first"));
        assert_null(gguf_find(g, "only.later"));
        uint64_t n_all = 0;
        for (uint32_t i = 0; i < 3; i++) {
            const char name[2] = {(char)('a' + i), 0};
            const gguf_tensor *t = gguf_find_tensor(g, name);
            const uint8_t *bytes;
            size_t n;
            gguf_split_bytes(g, i, &bytes, &n);
            assert_int_equal(t->split, i);
            assert_true(t->data >= bytes && t->data + t->n_bytes <= bytes + n);
            n_all += n;
        }
        assert_int_equal(gguf_file_bytes(g), n_all);
        gguf_close(g);
    }

    write_split(names[1], "b", 2, 3, 3);
    refused_file(names[0], DS4_EFORMAT, "s-00002-of-00003.gguf: 'split.no': found 2, expected 1");
    write_split(names[1], "a", 1, 3, 3);
    refused_file(names[0], DS4_EFORMAT, "tensor 'a' appears twice");
    write_split(names[1], "b", 1, 3, 3);
    write_split(names[0], "a", 0, 2, 3);
    refused_file(names[2], DS4_EFORMAT, "'split.count': found 2, expected 3");
    write_split(names[0], "a", 0, 3, 4);
    refused_file(names[2], DS4_EFORMAT, "'split.tensors.count': found 4, but the files have 3");
    write_split(names[0], "a", -1, -1, -1); /* without the keys the names decide */
    gguf *g = NULL;
    assert_int_equal(gguf_open(&g, temp_path(names[0]), NULL), DS4_OK);
    gguf_close(g);
    unlink(temp_path(names[1]));
    refused_file(names[0], DS4_EIO, "s-00002-of-00003.gguf: cannot open");

    /* A part under another name cannot lead to the others. */
    write_split("alone.gguf", "a", 0, 3, 3);
    refused_file("alone.gguf", DS4_EFORMAT, "'split.count': found 3, expected 1");
    unlink(temp_path("alone.gguf"));
    unlink(temp_path(names[0]));
    unlink(temp_path(names[2]));
}

/* Names that look like splits but are none. */
static void test_split_names(void **state) {
    (void)state;
    static const char *const names[] = {"x-00000-of-00002.gguf", "x-00003-of-00002.gguf",
                                        "x-0001-of-00002.gguf", "x-00001-of-00002.bin",
                                        "x-00001-off00002.gguf"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        write_split(names[i], "a", 0, 1, 1);
        gguf *g = NULL;
        assert_int_equal(gguf_open(&g, temp_path(names[i]), NULL), DS4_OK);
        assert_int_equal(gguf_n_splits(g), 1);
        gguf_close(g);
        unlink(temp_path(names[i]));
    }
}

static void test_no_file(void **state) {
    (void)state;
    gguf *g = NULL;
    ds4_error err;
    refused_file("absent.gguf", DS4_EIO, "absent.gguf: cannot open: No such file or directory");
    assert_int_equal(gguf_open(&g, "tests", &err), DS4_EIO);
    assert_string_equal(err.message, "tests: not a regular file");
    FILE *f = fopen(temp_path("empty.gguf"), "w");
    assert_non_null(f);
    fclose(f);
    refused_file("empty.gguf", DS4_EFORMAT, "does not begin with \"GGUF\"");
    unlink(temp_path("empty.gguf"));
    gguf_close(NULL);
}

/* The writer replaces a file whole or not at all. */
static void test_write_file(void **state) {
    (void)state;
    gguf_writer *w = write_sample(32);
    const char *path = temp_path("w.gguf");
    void *memory;
    size_t n;
    ds4_error err;
    gguf *g = NULL;
    assert_int_equal(gguf_writer_finish(w, path, NULL), DS4_OK);
    assert_int_equal(gguf_writer_finish(w, path, NULL), DS4_OK); /* again, over the first */
    assert_int_equal(gguf_writer_finish_memory(w, &memory, &n, NULL), DS4_OK);
    assert_int_equal(gguf_open(&g, path, NULL), DS4_OK);
    const uint8_t *bytes;
    size_t n_file;
    gguf_split_bytes(g, 0, &bytes, &n_file);
    assert_int_equal(n_file, n);
    assert_memory_equal(bytes, memory, n);
    gguf_close(g);

    /* A tensor that cannot be: reported by either finish, the old file stays. */
    gguf_add_tensor(w, "odd", QUANT_Q4_K, 1, (const uint64_t[]){100}, memory);
    gguf_add_tensor(w, "later", QUANT_F32, 1, (const uint64_t[]){1}, memory);
    assert_int_equal(gguf_writer_finish(w, path, &err), DS4_EINVAL);
    assert_non_null(strstr(err.message, "tensor 'odd': type 12"));
    void *untouched = memory;
    assert_int_equal(gguf_writer_finish_memory(w, &untouched, &n, NULL), DS4_EINVAL);
    assert_ptr_equal(untouched, memory);
    assert_int_equal(gguf_open(&g, path, NULL), DS4_OK);
    gguf_close(g);
    gguf_writer_destroy(w);
    free(memory);
    unlink(path);

    w = write_sample(32);
    assert_int_equal(gguf_writer_finish(w, "/nowhere/x.gguf", &err), DS4_EIO);
    assert_non_null(strstr(err.message, "/nowhere/x.gguf"));
    path = temp_path("dir");
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(gguf_writer_finish(w, path, &err), DS4_EIO); /* a file cannot become it */
    char left[300];
    snprintf(left, sizeof left, "%s.tmp.%ld", path, (long)getpid());
    assert_int_not_equal(access(left, F_OK), 0);
    rmdir(path);
    gguf_writer_destroy(w);
    gguf_writer_destroy(NULL);
    assert_int_equal(gguf_writer_create(&w, 48, NULL), DS4_EINVAL);
    assert_int_equal(gguf_writer_create(&w, 4, NULL), DS4_EINVAL);
}

/* ---- models ---- */

static void test_oracle_model(void **state) {
    (void)state;
    gguf *g = NULL;
    ds4_error err;
    strview text;
    uint32_t v;
    if (gguf_open(&g, "tests/data/oracle/a/model.gguf", &err) != DS4_OK)
        fail_msg("%s", err.message);
    assert_int_equal(gguf_get_string(g, "general.architecture", &text, NULL, NULL), DS4_OK);
    assert_true(strview_equal(text, STRVIEW("deepseek4")));
    assert_int_equal(gguf_get_u32(g, "deepseek4.block_count", &v, NULL, NULL), DS4_OK);
    assert_int_equal(v, 6);
    assert_int_equal(gguf_find(g, "tokenizer.ggml.tokens")->n_items, 512);
    const gguf_tensor *t = gguf_find_tensor(g, "blk.5.ffn_down_exps.weight");
    assert_true(t->type == QUANT_F16 && t->ne[0] == 32 && t->ne[1] == 96 && t->ne[2] == 8);
    assert_int_equal(t->n_bytes, 2 * 32 * 96 * 8);
    gguf_close(g);
}

/* Every token's experts are different ones of those there are. */
static void check_token_table(const gguf_tensor *t, uint32_t n_expert) {
    const quant_info *info = quant_find(t->type);
    uint64_t k = t->ne[0];
    for (uint64_t token = 0; token < t->ne[1]; token++) {
        float ids[64];
        assert_true(k <= 64);
        info->decode_row(ids, t->data + token * k * info->block_bytes, k);
        for (uint64_t i = 0; i < k; i++) {
            assert_true(ids[i] >= 0 && ids[i] < (float)n_expert);
            for (uint64_t j = 0; j < i; j++) assert_true(ids[i] != ids[j]);
        }
    }
}

static size_t expected_tensors(const randmodel_shape *s) {
    size_t n = 6 + 24 * (size_t)s->n_layer; /* the bias or the table of each layer included */
    for (uint32_t il = 0; il < s->n_layer; il++) n += s->ratio[il] == 4 ? 10 : s->ratio[il] ? 4 : 0;
    return n + (s->has_mtp ? 24 + 8 : 0);
}

static void test_random_models(void **state) {
    (void)state;
    bool is_type_seen[64] = {false};
    for (uint64_t seed = 0; seed < 60; seed++) {
        randmodel_shape s = seed ? randmodel_shape_random(seed) : randmodel_shape_default();
        void *memory;
        size_t n;
        gguf *g = NULL;
        ds4_error err = {0};
        if (randmodel_write_memory(&s, seed, &memory, &n, &err) != DS4_OK ||
            gguf_open_memory(&g, memory, n, &err) != DS4_OK)
            fail_msg("seed %llu: %s", (unsigned long long)seed, err.message);
        assert_true(n < 32 << 20);
        assert_int_equal(gguf_n_tensors(g), expected_tensors(&s));
        for (size_t i = 0; i < gguf_n_tensors(g); i++) {
            const gguf_tensor *t = gguf_tensor_at(g, i);
            is_type_seen[t->type] = true;
            if (t->type == QUANT_I32 || t->type == QUANT_I64) check_token_table(t, s.n_expert);
        }
        gguf_close(g);
        free(memory);
    }
    size_t n_types;
    const quant_info *types = quant_table(&n_types);
    for (size_t i = 0; i < n_types; i++)
        if (!is_type_seen[types[i].type]) fail_msg("no random model has %s", types[i].name);
}

/* The same seed gives the same file; with an MTP block the rest stays as it is. */
static void test_random_model_repeats(void **state) {
    (void)state;
    randmodel_shape s = randmodel_shape_default(), with_mtp = s;
    with_mtp.has_mtp = true;
    void *memory, *memory_mtp;
    size_t n, n_mtp;
    gguf *g = NULL, *g_mtp = NULL;
    const char *path = temp_path("random.gguf");
    assert_int_equal(randmodel_write_memory(&s, 7, &memory, &n, NULL), DS4_OK);
    assert_int_equal(randmodel_write_memory(&with_mtp, 7, &memory_mtp, &n_mtp, NULL), DS4_OK);
    assert_int_equal(randmodel_write_file(&s, 7, path, NULL), DS4_OK);
    assert_int_equal(gguf_open(&g, path, NULL), DS4_OK);
    assert_int_equal(gguf_open_memory(&g_mtp, memory_mtp, n_mtp, NULL), DS4_OK);
    const uint8_t *bytes;
    size_t n_file;
    gguf_split_bytes(g, 0, &bytes, &n_file);
    assert_int_equal(n_file, n);
    assert_memory_equal(bytes, memory, n);
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i), *same = gguf_tensor_at(g_mtp, i);
        assert_true(strview_equal(t->name, same->name));
        assert_memory_equal(t->data, same->data, t->n_bytes);
    }
    assert_non_null(gguf_find_tensor(g_mtp, "mtp.0.hc_head_fn.weight"));
    assert_non_null(gguf_find_tensor(g_mtp, "mtp.0.exp_probs_b.bias"));
    gguf_close(g);
    gguf_close(g_mtp);
    free(memory);
    free(memory_mtp);
    unlink(path);

    s.n_out_group = 3;
    ds4_error err;
    assert_int_equal(randmodel_write_memory(&s, 7, &memory, &n, &err), DS4_EINVAL);
    assert_non_null(strstr(err.message, "n_out_group"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get),           cmocka_unit_test(test_get_fails),
        cmocka_unit_test(test_items),         cmocka_unit_test(test_strings),
        cmocka_unit_test(test_tensors),       cmocka_unit_test(test_many_names),
        cmocka_unit_test(test_copy),          cmocka_unit_test(test_header),
        cmocka_unit_test(test_bad_keys),      cmocka_unit_test(test_nested_arrays),
        cmocka_unit_test(test_alignment),     cmocka_unit_test(test_bad_tensors),
        cmocka_unit_test(test_foreign_types), cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_damage),        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_split_names),   cmocka_unit_test(test_no_file),
        cmocka_unit_test(test_write_file),    cmocka_unit_test(test_oracle_model),
        cmocka_unit_test(test_random_models), cmocka_unit_test(test_random_model_repeats),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
