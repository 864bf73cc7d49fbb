/* fuzz_tokenizer.c - vocabularies and texts from outside: nothing may crash, and decoding gives the
 * text back.
 *
 *   "G" file          a GGUF file as it is; its own bytes are the text
 *   other lines       a vocabulary of 256 bytes, <bos>, <eos> and what the lines say, through GGUF:
 *                     "n" text   a normal token         "m" left right   a merge
 *                     "c" text   a control token        "u" text         a user token
 *                     "p" name   tokenizer.ggml.pre
 *                     an empty line: the rest is the text */
#include "base/utf8.h"
#include "format/gguf_write.h"
#include "text/bpe.h"
#include "text/detok.h"
#include "text/pretoken.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void expect(bool is_true) {
    if (!is_true) abort();
}

/* ---- a vocabulary ---- */

enum { MAX_LINES = 512 };

typedef struct {
    char bytes[256][4];
    strview tokens[258 + MAX_LINES], merges[MAX_LINES], pre;
    int32_t types[258 + MAX_LINES];
    size_t n_tokens, n_merges;
} lines;

static void add_token(lines *l, strview text, int32_t type) {
    l->tokens[l->n_tokens] = text;
    l->types[l->n_tokens++] = type;
}

/* Reads lines up to an empty one; returns what follows. */
static strview read_lines(lines *l, strview input) {
    uint32_t n_moved = 0;
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool is_itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
        size_t n = utf8_encode(is_itself ? byte : 256 + n_moved++, l->bytes[byte]);
        add_token(l, (strview){l->bytes[byte], n}, VOCAB_NORMAL);
    }
    add_token(l, STRVIEW("<bos>"), VOCAB_CONTROL);
    add_token(l, STRVIEW("<eos>"), VOCAB_CONTROL);
    l->pre = STRVIEW("joyai-llm");

    for (int i = 0; i < MAX_LINES && input.n; i++) {
        const char *newline = memchr(input.data, '\n', input.n);
        size_t n = newline ? (size_t)(newline - input.data) : input.n;
        strview rest = {input.data + 1, n ? n - 1 : 0};
        char kind = n ? input.data[0] : 0;
        if (kind == 'n') add_token(l, rest, VOCAB_NORMAL);
        if (kind == 'c') add_token(l, rest, VOCAB_CONTROL);
        if (kind == 'u') add_token(l, rest, VOCAB_USER);
        if (kind == 'm') l->merges[l->n_merges++] = rest;
        if (kind == 'p') l->pre = rest;
        n += newline != NULL;
        input = (strview){input.data + n, input.n - n};
        if (!kind) break;
    }
    return input;
}

static ds4_status load_bytes(vocab **v, const void *data, size_t n) {
    gguf *g = NULL;
    ds4_error err;
    DS4_TRY(gguf_open_memory(&g, data, n, &err));
    ds4_status status = vocab_load(v, g, &err);
    gguf_close(g);
    return status;
}

static ds4_status load_lines(vocab **v, const lines *l) {
    gguf_writer *w = NULL;
    void *data = NULL;
    size_t n = 0;
    DS4_TRY(gguf_writer_create(&w, 32, NULL));
    gguf_add_string(w, "tokenizer.ggml.model", STRVIEW("gpt2"));
    gguf_add_string(w, "tokenizer.ggml.pre", l->pre);
    gguf_add_strings(w, "tokenizer.ggml.tokens", l->tokens, l->n_tokens);
    gguf_add_array(w, "tokenizer.ggml.token_type", GGUF_I32, l->types, l->n_tokens);
    gguf_add_strings(w, "tokenizer.ggml.merges", l->merges, l->n_merges);
    gguf_add_u32(w, "tokenizer.ggml.bos_token_id", 256);
    gguf_add_u32(w, "tokenizer.ggml.eos_token_id", 257);
    ds4_status status = gguf_writer_finish_memory(w, &data, &n, NULL);
    gguf_writer_destroy(w);
    if (status == DS4_OK) status = load_bytes(v, data, n);
    free(data);
    return status;
}

/* ---- a text ---- */

/* The definition of BPE; see test_bpe. */
static void naive_piece(const vocab *v, id_list *ids, strview piece) {
    size_t first = ids->n;
    for (size_t i = 0; i < piece.n; i++)
        expect(id_list_add(ids, vocab_byte_id(v, (uint8_t)piece.data[i])));
    for (;;) {
        uint32_t lowest = VOCAB_NO_MERGE;
        size_t at = 0;
        for (size_t i = first; i + 1 < ids->n; i++) {
            uint32_t rank = vocab_merge_rank(v, ids->data[i], ids->data[i + 1]);
            if (rank < lowest) lowest = rank, at = i;
        }
        if (lowest == VOCAB_NO_MERGE) return;
        ids->data[at] = vocab_merge_result(v, lowest);
        ids->n--;
        memmove(ids->data + at + 1, ids->data + at + 2, (ids->n - at - 1) * sizeof *ids->data);
    }
}

static void check_decodes(const vocab *v, const id_list *ids, strview text) {
    strbuf bytes = {0}, shown = {0}, expected = {0};
    expect(vocab_decode_bytes(v, &bytes, ids->data, ids->n, NULL) == DS4_OK);
    expect(strview_equal((strview){bytes.data, bytes.n}, text));

    detok d = detok_from(v, false);
    for (size_t i = 0; i < ids->n; i++) detok_feed(&d, ids->data[i], &shown);
    detok_finish(&d, &shown);
    utf8_append_valid(&expected, text.data, text.n);
    expect(strview_equal((strview){shown.data, shown.n}, (strview){expected.data, expected.n}));
    strbuf_release(&bytes);
    strbuf_release(&shown);
    strbuf_release(&expected);
}

static void check_text(const vocab *v, strview text) {
    enum { MAX_NAIVE_BYTES = 400 };
    bpe *b = NULL;
    id_list ids = {0}, marked = {0}, naive = {0};
    expect(bpe_create(&b, v, NULL) == DS4_OK);
    expect(bpe_encode(b, &ids, text, false, NULL) == DS4_OK);
    expect(bpe_encode(b, &marked, text, true, NULL) == DS4_OK);
    check_decodes(v, &ids, text);
    check_decodes(v, &marked, text);
    if (text.n <= MAX_NAIVE_BYTES) {
        pretoken_iter it = pretoken_from(text);
        for (strview piece; pretoken_next(&it, &piece);) naive_piece(v, &naive, piece);
        expect(naive.n == ids.n);
        expect(ids.n == 0 || memcmp(naive.data, ids.data, ids.n * sizeof *ids.data) == 0);
    }
    id_list_release(&ids);
    id_list_release(&marked);
    id_list_release(&naive);
    bpe_destroy(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    strview text = {(const char *)data, n};
    vocab *v = NULL;
    ds4_status status;
    if (n && data[0] == 'G') {
        status = load_bytes(&v, data, n);
    } else {
        lines *l = calloc(1, sizeof *l);
        if (!l) return 0;
        text = read_lines(l, text);
        status = load_lines(&v, l);
        free(l);
    }
    if (status == DS4_OK) check_text(v, text);
    vocab_destroy(v);
    return 0;
}
