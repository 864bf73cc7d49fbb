#include "tests/support/tokenizer_data.h"

#include "base/mapfile.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define V4_FILE "build/tests/v4-tokenizer.gguf"

/* ---- vocabularies ---- */

static bool is_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

vocab *vocab_of_file(const char *path) {
    if (!is_file(path)) return NULL;
    gguf *g = NULL;
    vocab *v = NULL;
    ds4_error err = {0};
    if (gguf_open(&g, path, &err) != DS4_OK || vocab_load(&v, g, &err) != DS4_OK)
        fail_msg("%s: %s", path, err.message);
    gguf_close(g);
    return v;
}

vocab *v4_vocab(void) {
    if (!is_file(V4_FILE)) {
        mkdir("build", 0777);
        mkdir("build/tests", 0777);
        int status = system("python3 tools/vocab_gguf.py " V4_FILE);
        if (!is_file(V4_FILE)) {
            print_message("skipped: no vocabulary of the release (vocab_gguf.py: status %d)\n",
                          status);
            skip();
        }
    }
    return vocab_of_file(V4_FILE);
}

/* "left right" without its space */
static size_t joined(char *out, strview merge) {
    size_t n = 0;
    for (size_t i = 0; i < merge.n; i++)
        if (merge.data[i] != ' ') out[n++] = merge.data[i];
    return n;
}

vocab *small_vocab(const char *const *merges, size_t n_merges, const char *const *markers,
                   size_t n_markers) {
    enum { MAX_TOKENS = 1024, MAX_TEXT = 64 };
    assert_true(256 + n_merges + n_markers <= MAX_TOKENS);
    static char text[MAX_TOKENS][MAX_TEXT];
    static strview tokens[MAX_TOKENS], lines[MAX_TOKENS];
    static int32_t types[MAX_TOKENS];
    size_t n = 0;
    uint32_t n_moved = 0;
    for (uint32_t byte = 0; byte < 256; byte++, n++) {
        bool is_itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
        tokens[n] = (strview){text[n], utf8_encode(is_itself ? byte : 256 + n_moved++, text[n])};
        types[n] = VOCAB_NORMAL;
    }
    for (size_t i = 0; i < n_merges; i++, n++) {
        lines[i] = (strview){merges[i], strlen(merges[i])};
        assert_true(lines[i].n < MAX_TEXT);
        tokens[n] = (strview){text[n], joined(text[n], lines[i])};
        types[n] = VOCAB_NORMAL;
    }
    for (size_t i = 0; i < n_markers; i++, n++) {
        tokens[n] = (strview){markers[i], strlen(markers[i])};
        types[n] = i < 2 ? VOCAB_CONTROL : VOCAB_USER;
    }
    vocab_source source = {.tokens = tokens,
                           .types = types,
                           .n_tokens = n,
                           .merges = lines,
                           .n_merges = n_merges,
                           .bos = (int32_t)(256 + n_merges),
                           .eos = (int32_t)(257 + n_merges)};
    vocab *v = NULL;
    ds4_error err = {0};
    if (vocab_create(&v, &source, &err) != DS4_OK) fail_msg("%s", err.message);
    return v;
}

/* ---- vectors ---- */

static void open_path(jsonl *f, const char *path, bool is_whole) {
    mapfile m;
    ds4_error err = {0};
    if (mapfile_open(&m, path, &err) != DS4_OK) fail_msg("%s", err.message);
    *f = (jsonl){.data = malloc(m.n + 1), .n = m.n, .is_whole = is_whole};
    assert_non_null(f->data);
    memcpy(f->data, m.data, m.n);
    mapfile_close(&m);
}

void jsonl_open(jsonl *f, const char *name) {
    char path[256];
    snprintf(path, sizeof path, "tests/data/tokenizer/%s", name);
    open_path(f, path, false);
}

void jsonl_open_whole(jsonl *f, const char *path) {
    open_path(f, path, true);
}

bool jsonl_next(jsonl *f) {
    if (f->line) json_release(&f->doc);
    if (f->at >= f->n) {
        free(f->data);
        *f = (jsonl){0};
        return false;
    }
    const char *line = f->data + f->at,
               *end = f->is_whole ? NULL : memchr(line, '\n', f->n - f->at);
    size_t n = end ? (size_t)(end - line) : f->n - f->at;
    ds4_error err = {0};
    f->line++;
    if (json_parse(&f->doc, line, n, "vectors", &err) != DS4_OK)
        fail_msg("line %zu: %s", f->line, err.message);
    f->at += n + 1;
    return true;
}

strview jsonl_text(const jsonl *f, const char *key) {
    const json_node *node = json_get(f->doc.root, key);
    if (!node || node->type != JSON_STRING) fail_msg("line %zu: no string '%s'", f->line, key);
    return node->text;
}

void jsonl_ids(const jsonl *f, const char *key, id_list *ids) {
    const json_node *node = json_get(f->doc.root, key);
    if (!node || node->type != JSON_ARRAY) fail_msg("line %zu: no array '%s'", f->line, key);
    ids_of_json(ids, node);
}

void ids_of_json(id_list *ids, const json_node *array) {
    ids->n = 0;
    for (const json_node *item = array->first; item; item = item->next) {
        int64_t id;
        assert_true(json_int(item, &id));
        assert_true(id_list_add(ids, (int32_t)id));
    }
}

/* ---- random text ---- */

uint64_t next_random(uint64_t *state) {
    uint64_t x = *state += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

void random_bytes(strbuf *out, uint64_t *state, size_t n) {
    while (n--) strbuf_putc(out, (char)next_random(state));
}

void random_unicode(strbuf *out, uint64_t *state, size_t n) {
    /* First code points of stretches of 32: letters, digits, signs, spaces, marks, Han, kana,
     * emoji. */
    static const uint32_t stretches[] = {
        0x20,   0x20,   0x30,   0x40,   0x60,    0x60,    0x60,    0,       0xA0,   0x300,
        0x410,  0x660,  0x900,  0x2000, 0x2028,  0x2150,  0x3000,  0x3040,  0x30A0, 0x4E00,
        0x9F90, 0xAC00, 0xFE00, 0xFF00, 0x1F600, 0x20000, 0xE0100, 0x10FFE0};
    size_t end = out->n + n;
    while (out->n < end && !out->is_failed) {
        uint64_t r = next_random(state);
        uint32_t first = stretches[(r >> 32) % (sizeof stretches / sizeof *stretches)];
        for (uint64_t i = 0; i <= r % 5; i++) {
            char bytes[4];
            uint32_t code = first + (uint32_t)(next_random(state) % 32);
            strbuf_append(out, bytes, utf8_encode(code, bytes));
        }
    }
}
