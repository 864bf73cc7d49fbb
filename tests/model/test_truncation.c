/* test_truncation.c - model files that were cut off or damaged: opening them says so, or works; it
 * never crashes, hangs, or reads past the end. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ds4.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/gguf.h"
#include "tests/support/randmodel.h"

static char folder[] = "/tmp/ds4-truncation-XXXXXX";
static char path[64];

static int setup(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* ---- opening ---- */

/* Opens with all files' memory kept small, whatever a damaged key asks for. */
static ds4_status open_model(ds4_engine **engine, ds4_error *err) {
    ds4_engine_options o = ds4_engine_defaults();
    o.n_threads = 1;
    o.n_ctx = 64;
    o.n_step_rows = 4;
    return ds4_engine_open(engine, path, &o, err);
}

/* A status from bytes that are wrong, with one line that names the file. */
static void check_refusal(ds4_status status, const ds4_error *err, const char *what, size_t at) {
    bool is_code = status == DS4_EFORMAT || status == DS4_EUNSUPPORTED || status == DS4_EINVAL ||
                   status == DS4_ENOMEM;
    if (!is_code || err->code != status || !err->message[0] || strchr(err->message, '\n'))
        fail_msg("%s %zu: status %s, message '%s'", what, at, ds4_status_name(status),
                 err->message);
}

/* The memory that a step of the undamaged files needs, many times over: a damaged key may ask for
 * more than the test should touch. */
static const uint64_t MAX_BYTES = (uint64_t)256 << 20;

static void run_one_step(ds4_engine *engine, const char *what, size_t at) {
    static const int32_t ids[] = {0, 40, 41};
    ds4_session *session = NULL;
    ds4_error err = {0};
    if (ds4_engine_memory(engine).total > MAX_BYTES) return;
    if (ds4_engine_info(engine)->n_vocab < 42) return;
    ds4_status status = ds4_session_create(&session, engine, &err);
    if (status == DS4_OK) status = ds4_session_append(session, ids, 3, &err);
    if (status == DS4_OK) status = ds4_session_evaluate(session, NULL, NULL, &err);
    if (status != DS4_OK) fail_msg("%s %zu: step: %s", what, at, err.message);
    assert_non_null(ds4_session_logits(session));
    ds4_session_destroy(session);
}

/* Opens the file as it lies there. True if that worked; then it has run one step as well. */
static bool try_model(const char *what, size_t at) {
    ds4_engine *const untouched = (ds4_engine *)&path;
    ds4_engine *engine = untouched;
    ds4_error err = {0};
    ds4_status status = open_model(&engine, &err);
    if (status != DS4_OK) {
        check_refusal(status, &err, what, at);
        assert_ptr_equal(engine, untouched);
        return false;
    }
    run_one_step(engine, what, at);
    ds4_engine_close(engine);
    return true;
}

/* ---- cutting off ---- */

static int descending(const void *a, const void *b) {
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Every place where something begins or ends, and the bytes beside it: keys, values, descriptions
 * of tensors (from the next one's name backwards), data. *n_needed: the end of the last tensor. */
static size_t *borders(size_t *n, size_t *n_needed, size_t *n_file) {
    gguf *g = NULL;
    const uint8_t *bytes;
    assert_int_equal(gguf_open(&g, path, NULL), DS4_OK);
    gguf_split_bytes(g, 0, &bytes, n_file);
    size_t n_cap = 3 * (6 + 2 * gguf_n_kv(g) + 3 * gguf_n_tensors(g));
    size_t *at = malloc(n_cap * sizeof *at), n_raw = 0;
    static const size_t header[] = {0, 4, 8, 16, 24};
    for (size_t i = 0; i < 5; i++) at[n_raw++] = header[i];
    for (size_t i = 0; i < gguf_n_kv(g); i++) {
        const gguf_kv *kv = gguf_kv_at(g, i);
        at[n_raw++] = (size_t)((const uint8_t *)kv->key.data - bytes);
        at[n_raw++] = (size_t)(kv->data + kv->n_bytes - bytes);
    }
    *n_needed = 0;
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        size_t end = (size_t)(t->data + t->n_bytes - bytes);
        at[n_raw++] = (size_t)((const uint8_t *)t->name.data - bytes);
        at[n_raw++] = (size_t)(t->data - bytes);
        at[n_raw++] = end;
        if (end > *n_needed) *n_needed = end;
    }
    *n = n_raw;
    for (size_t i = 0; i < n_raw; i++) {
        if (at[i] > 0) at[(*n)++] = at[i] - 1;
        at[(*n)++] = at[i] + 1;
    }
    gguf_close(g);
    return at;
}

/* Cuts the file shorter and shorter, from the largest length down, and opens it each time. */
static void check_cuts(size_t n_lengths_random, uint64_t seed) {
    size_t n_borders, n_needed, n_file;
    size_t *lengths = borders(&n_borders, &n_needed, &n_file);
    lengths = realloc(lengths, (n_borders + n_lengths_random) * sizeof *lengths);
    for (size_t i = 0; i < n_lengths_random; i++)
        lengths[n_borders + i] = (size_t)(next_random(&seed) % n_file);
    size_t n = n_borders + n_lengths_random;
    qsort(lengths, n, sizeof *lengths, descending);
    for (size_t i = 0; i < n; i++) {
        if (lengths[i] > n_file || (i && lengths[i] == lengths[i - 1])) continue;
        assert_int_equal(truncate(path, (off_t)lengths[i]), 0);
        bool is_open = try_model("length", lengths[i]);
        if (is_open != (lengths[i] >= n_needed))
            fail_msg("length %zu of %zu, %zu of them needed: %s", lengths[i], n_file, n_needed,
                     is_open ? "opened" : "refused");
    }
    free(lengths);
}

static void test_random_model_cut(void **state) {
    (void)state;
    randmodel_shape s = randmodel_shape_default();
    s.has_mtp = true;
    assert_int_equal(randmodel_write_file(&s, 1, path, NULL), DS4_OK);
    check_cuts(200, 1);
}

static void copy_nano(void) {
    FILE *from = fopen("models/nano/ds4-nano.gguf", "rb"), *to = fopen(path, "wb");
    char buffer[65536];
    assert_non_null(from);
    assert_non_null(to);
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, from)) > 0;)
        assert_int_equal(fwrite(buffer, 1, n, to), n);
    fclose(from);
    assert_int_equal(fclose(to), 0);
}

static void test_nano_cut(void **state) {
    (void)state;
    copy_nano();
    check_cuts(200, 2);
}

/* The message of a download that broke off helps its reader. */
static void test_messages(void **state) {
    (void)state;
    static const struct {
        off_t n;
        const char *wanted;
    } known[] = {
        {10000000, "but the file has 10000000: is it complete?"},
        {100, "goes beyond the end of the file (100 bytes)"},
        {20, "the file (20 bytes) ends inside its header"},
        {0, "not a GGUF file"},
    };
    copy_nano();
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        ds4_engine *engine;
        ds4_error err = {0};
        assert_int_equal(truncate(path, known[i].n), 0);
        assert_int_equal(open_model(&engine, &err), DS4_EFORMAT);
        if (strncmp(err.message, path, strlen(path)) != 0 || !strstr(err.message, known[i].wanted))
            fail_msg("%ld bytes: found '%s', expected '%s' in it", (long)known[i].n, err.message,
                     known[i].wanted);
    }
}

/* ---- damage ---- */

/* Flips one bit at each of n random places among the first n_bytes, one at a time. Returns how
 * often the file could still be opened. */
static size_t check_flips(size_t n_flips, size_t n_bytes, uint64_t seed) {
    size_t n_open = 0;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    for (size_t i = 0; i < n_flips; i++) {
        uint64_t r = next_random(&seed);
        off_t at = (off_t)(r % n_bytes);
        uint8_t byte, flipped;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        flipped = byte ^ (uint8_t)(1u << (r >> 61));
        assert_int_equal(pwrite(fd, &flipped, 1, at), 1);
        n_open += try_model("bit flipped in byte", (size_t)at);
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    close(fd);
    return n_open;
}

/* Where the tensors' data begins, and the length of the file. */
static size_t metadata_bytes(size_t *n_file) {
    gguf *g = NULL;
    const uint8_t *bytes;
    assert_int_equal(gguf_open(&g, path, NULL), DS4_OK);
    gguf_split_bytes(g, 0, &bytes, n_file);
    size_t n = *n_file;
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        size_t at = (size_t)(gguf_tensor_at(g, i)->data - bytes);
        if (at < n) n = at;
    }
    gguf_close(g);
    return n;
}

static void test_random_model_flipped(void **state) {
    (void)state;
    randmodel_shape s = randmodel_shape_default();
    size_t n_file;
    assert_int_equal(randmodel_write_file(&s, 1, path, NULL), DS4_OK);
    size_t n_metadata = metadata_bytes(&n_file);
    /* Most of it are names of tensors and tokens: many flips make a file that is refused, and many
     * others (in texts of unused keys, in numbers that may vary) one that works. */
    size_t n_open = check_flips(500, n_metadata, 3);
    assert_in_range(n_open, 20, 480);
    check_flips(100, n_file, 4); /* mostly weights: also NaN and infinities */
    assert_true(try_model("restored", 0));
}

static void test_nano_flipped(void **state) {
    (void)state;
    size_t n_file;
    copy_nano();
    check_flips(60, metadata_bytes(&n_file), 5);
    assert_true(try_model("restored", 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_model_cut), cmocka_unit_test(test_nano_cut),
        cmocka_unit_test(test_messages),         cmocka_unit_test(test_random_model_flipped),
        cmocka_unit_test(test_nano_flipped),
    };
    return cmocka_run_group_tests_name("truncation", tests, setup, teardown);
}
