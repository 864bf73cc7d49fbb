#include "text/vocab.h"

#include "base/hash.h"
#include "format/gguf_write.h"
#include "tests/support/tokenizer_data.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- a small vocabulary ---- */

static const char *const MERGES[] = {"a b", "ab c"};
static const char *const MARKERS[] = {"<bos>", "<eos>", "<x>", "<x>y", "<", "y<"};
enum { AB = 256, ABC, BOS, EOS, X, XY, LESS, Y_LESS, N_TOKENS };

static vocab *own_vocab(void) {
    return small_vocab(MERGES, 2, MARKERS, 6);
}

static void assert_bytes(const vocab *v, int32_t id, const char *expected) {
    strview found = vocab_token_bytes(v, id);
    assert_true(strview_equal(found, (strview){expected, strlen(expected)}));
}

static void test_tokens(void **state) {
    (void)state;
    vocab *v = own_vocab();
    assert_int_equal(vocab_n_tokens(v), N_TOKENS);
    for (int byte = 0; byte < 256; byte++) {
        strview bytes = vocab_token_bytes(v, byte);
        assert_int_equal(bytes.n, 1);
        assert_int_equal((uint8_t)bytes.data[0], byte);
        assert_int_equal(vocab_byte_id(v, (uint8_t)byte), byte);
        assert_int_equal(vocab_find_normal(v, bytes), byte);
        assert_int_equal(vocab_token_type(v, byte), VOCAB_NORMAL);
    }
    assert_bytes(v, ABC, "abc");
    assert_bytes(v, XY, "<x>y");
    assert_bytes(v, -1, "");
    assert_bytes(v, N_TOKENS, "");
    assert_int_equal(vocab_token_type(v, BOS), VOCAB_CONTROL);
    assert_int_equal(vocab_token_type(v, X), VOCAB_USER);
    assert_int_equal(vocab_token_type(v, -1), VOCAB_UNUSED);
    assert_int_equal(vocab_token_type(v, N_TOKENS), VOCAB_UNUSED);
    assert_int_equal(vocab_bos(v), BOS);
    assert_int_equal(vocab_eos(v), EOS);

    assert_int_equal(vocab_find_normal(v, STRVIEW("abc")), ABC);
    assert_int_equal(vocab_find_normal(v, STRVIEW("abcd")), -1);
    assert_int_equal(vocab_find_normal(v, STRVIEW("")), -1);
    assert_int_equal(vocab_find_normal(v, STRVIEW("<x>")), -1);
    assert_int_equal(vocab_find_marker(v, STRVIEW("<x>")), X);
    assert_int_equal(vocab_find_marker(v, STRVIEW("<x")), -1);
    assert_int_equal(vocab_find_marker(v, STRVIEW("abc")), -1);
    assert_int_equal(vocab_find_marker(v, STRVIEW("")), -1);

    assert_int_equal(vocab_merge_rank(v, 'a', 'b'), 0);
    assert_int_equal(vocab_merge_result(v, 0), AB);
    assert_int_equal(vocab_merge_rank(v, AB, 'c'), 1);
    assert_int_equal(vocab_merge_result(v, 1), ABC);
    assert_true(vocab_merge_rank(v, 'b', 'a') == VOCAB_NO_MERGE);
    vocab_destroy(v);
    vocab_destroy(NULL);
}

static void test_decode(void **state) {
    (void)state;
    vocab *v = own_vocab();
    strbuf out = {0};
    strbuf_puts(&out, ">");
    static const int32_t good[] = {BOS, ABC, 0, 0xFF, XY}, bad[] = {ABC, N_TOKENS}, low[] = {-1};
    assert_int_equal(vocab_decode_bytes(v, &out, good, 5, NULL), DS4_OK);
    assert_true(strview_equal((strview){out.data, out.n}, STRVIEW("><bos>abc\0\xFF<x>y")));
    size_t n = out.n;
    assert_int_equal(vocab_decode_bytes(v, &out, bad, 2, NULL), DS4_EINVAL);
    assert_int_equal(vocab_decode_bytes(v, &out, low, 1, NULL), DS4_EINVAL);
    assert_int_equal(out.n, n);
    strbuf_release(&out);
    vocab_destroy(v);
}

/* ---- markers ---- */

/* Every place, every marker. */
static bool next_marker_naively(const vocab *v, strview text, size_t from, vocab_match *match) {
    for (size_t at = from; at < text.n; at++) {
        *match = (vocab_match){at, 0, -1};
        for (size_t id = 0; id < vocab_n_tokens(v); id++) {
            vocab_type type = vocab_token_type(v, (int32_t)id);
            strview marker = vocab_token_bytes(v, (int32_t)id);
            if (type != VOCAB_CONTROL && type != VOCAB_USER) continue;
            if (marker.n <= match->n_bytes) continue;
            if (!strview_starts((strview){text.data + at, text.n - at}, marker)) continue;
            *match = (vocab_match){at, marker.n, (int32_t)id};
        }
        if (match->id >= 0) return true;
    }
    return false;
}

/* Both find the same from `from` on; returns where the marker ends, SIZE_MAX without one. */
static size_t check_marker(const vocab *v, strview text, size_t from, uint64_t seed) {
    vocab_match found = {0}, expected = {0};
    bool is_found = vocab_next_marker(v, text, from, &found);
    bool is_expected = next_marker_naively(v, text, from, &expected);
    if (is_found != is_expected ||
        (is_found &&
         (found.at != expected.at || found.n_bytes != expected.n_bytes || found.id != expected.id)))
        fail_msg("seed %llu: from %zu: found %d at %zu, expected %d at %zu",
                 (unsigned long long)seed, from, (int)found.id, found.at, (int)expected.id,
                 expected.at);
    return is_found ? found.at + found.n_bytes : SIZE_MAX;
}

static void test_markers(void **state) {
    (void)state;
    vocab *v = own_vocab();
    vocab_match m;
    assert_true(vocab_next_marker(v, STRVIEW("a<x>y"), 0, &m));
    assert_true(m.id == XY && m.at == 1 && m.n_bytes == 4);
    assert_true(vocab_next_marker(v, STRVIEW("ay<x>y"), 0, &m));
    assert_true(m.id == Y_LESS && m.at == 1 && m.n_bytes == 2);
    assert_false(vocab_next_marker(v, STRVIEW("abc"), 0, &m));
    assert_false(vocab_next_marker(v, STRVIEW("<x>"), 3, &m));

    static const char letters[] = "<<xyy>bos";
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        uint64_t random = seed;
        char text[24];
        size_t n = next_random(&random) % sizeof text;
        for (size_t i = 0; i < n; i++) text[i] = letters[next_random(&random) % 9];
        for (size_t from = 0; from <= n; from++) check_marker(v, (strview){text, n}, from, seed);
    }
    vocab_destroy(v);
}

/* ---- what is refused ---- */

typedef struct {
    strview tokens[300], merges[8];
    int32_t types[300];
    char bytes[256][2];
    vocab_source source;
} draft;

/* The single bytes, "ab", "<bos>" and "<eos>", and the merge of "ab". */
static void draft_init(draft *d) {
    static const char first_moved = (char)0xC4;
    uint32_t n_moved = 0;
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool is_itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
        uint32_t code = is_itself ? byte : 256 + n_moved++;
        size_t n = code < 128 ? 1 : 2;
        d->bytes[byte][0] = n == 1 ? (char)code : (char)(0xC0 | code >> 6);
        d->bytes[byte][1] = (char)(0x80 | (code & 0x3F));
        d->tokens[byte] = (strview){d->bytes[byte], n};
        d->types[byte] = VOCAB_NORMAL;
    }
    assert_int_equal(d->bytes[0][0], first_moved);
    d->tokens[256] = STRVIEW("ab");
    d->types[256] = VOCAB_NORMAL;
    d->tokens[257] = STRVIEW("<bos>");
    d->types[257] = VOCAB_CONTROL;
    d->tokens[258] = STRVIEW("<eos>");
    d->types[258] = VOCAB_USER;
    d->merges[0] = STRVIEW("a b");
    d->source = (vocab_source){.tokens = d->tokens,
                               .types = d->types,
                               .n_tokens = 259,
                               .merges = d->merges,
                               .n_merges = 1,
                               .bos = 257,
                               .eos = 258};
}

/* The draft makes no vocabulary, and the message has these words. */
static void assert_refused(draft *d, const char *words) {
    vocab *v = NULL;
    ds4_error err = {0};
    assert_int_equal(vocab_create(&v, &d->source, &err), DS4_EFORMAT);
    assert_null(v);
    if (!strstr(err.message, words)) fail_msg("found '%s', expected '%s'", err.message, words);
    draft_init(d);
}

static void test_refused(void **state) {
    (void)state;
    draft d;
    draft_init(&d);
    vocab *v = NULL;
    assert_int_equal(vocab_create(&v, &d.source, NULL), DS4_OK);
    vocab_destroy(v);

    d.source.n_tokens = 0;
    assert_refused(&d, "no token for the single byte 0x00");
    d.tokens[256] = STRVIEW("");
    assert_refused(&d, "token 256: empty text");
    d.types[256] = 2;
    assert_refused(&d, "token 256: type 2");
    d.types[256] = -1;
    assert_refused(&d, "token 256: type -1");
    d.types[7] = VOCAB_UNUSED;
    assert_refused(&d, "no token for the single byte 0x07");
    d.tokens[256] = STRVIEW("a b");
    assert_refused(&d, "token 256: normal, but not in the byte alphabet");
    d.tokens[256] = STRVIEW("a\xC5\x84"); /* U+0144, the first one behind the alphabet */
    assert_refused(&d, "not in the byte alphabet");
    d.tokens[256] = STRVIEW("a\xC5");
    assert_refused(&d, "not in the byte alphabet");
    d.tokens[256] = STRVIEW("a");
    assert_refused(&d, "token 256: same text as token 97");
    d.tokens[258] = STRVIEW("<bos>");
    assert_refused(&d, "same text as token");
    char long_marker[VOCAB_MARKER_MAX_BYTES + 1];
    memset(long_marker, 'x', sizeof long_marker);
    d.tokens[258] = (strview){long_marker, sizeof long_marker};
    assert_refused(&d, "token 258: added token of 257 bytes");

    d.merges[0] = STRVIEW("ab");
    assert_refused(&d, "merge 0: no space");
    d.merges[0] = STRVIEW("");
    assert_refused(&d, "merge 0: no space");
    d.merges[0] = STRVIEW("a b ");
    assert_refused(&d, "merge 0: not in the byte alphabet");
    d.merges[0] = STRVIEW("xx b");
    assert_refused(&d, "merge 0: the left part");
    d.merges[0] = STRVIEW(" b");
    assert_refused(&d, "merge 0: the left part");
    d.merges[0] = STRVIEW("a ");
    assert_refused(&d, "merge 0: the right part");
    d.merges[0] = STRVIEW("b a");
    assert_refused(&d, "merge 0: the result");
    d.merges[1] = STRVIEW("a b");
    d.source.n_merges = 2;
    assert_refused(&d, "merge 1: same as merge 0");

    d.source.bos = 259;
    assert_refused(&d, "begin-of-text token 259 of 259");
    d.source.bos = -1;
    assert_refused(&d, "no begin-of-text token");
    d.source.eos = -1;
    assert_refused(&d, "no end-of-text token");
}

/* Without ids for them, the model's own names count. */
static void test_named_ends(void **state) {
    (void)state;
    draft d;
    draft_init(&d);
    d.tokens[257] = STRVIEW("<｜end▁of▁sentence｜>");
    d.tokens[258] = STRVIEW("<｜begin▁of▁sentence｜>");
    d.source.bos = d.source.eos = -1;
    vocab *v = NULL;
    assert_int_equal(vocab_create(&v, &d.source, NULL), DS4_OK);
    assert_int_equal(vocab_bos(v), 258);
    assert_int_equal(vocab_eos(v), 257);
    vocab_destroy(v);
}

/* ---- from GGUF ---- */

enum {
    HAS_MODEL = 1,
    HAS_TOKENS = 2,
    HAS_TYPES = 4,
    HAS_MERGES = 8,
    HAS_ENDS = 16,
    HAS_ALL = 31,
};

/* Loads the draft from a file with these keys; pre: NULL for none. */
static ds4_status load(const draft *d, unsigned keys, const char *pre, size_t n_types,
                       ds4_error *err) {
    gguf_writer *w = NULL;
    const vocab_source *s = &d->source;
    assert_int_equal(gguf_writer_create(&w, 32, NULL), DS4_OK);
    if (keys & HAS_MODEL) gguf_add_string(w, "tokenizer.ggml.model", STRVIEW("gpt2"));
    if (pre) gguf_add_string(w, "tokenizer.ggml.pre", (strview){pre, strlen(pre)});
    if (keys & HAS_TOKENS) gguf_add_strings(w, "tokenizer.ggml.tokens", s->tokens, s->n_tokens);
    if (keys & HAS_TYPES)
        gguf_add_array(w, "tokenizer.ggml.token_type", GGUF_I32, s->types, n_types);
    if (keys & HAS_MERGES) gguf_add_strings(w, "tokenizer.ggml.merges", s->merges, s->n_merges);
    if (keys & HAS_ENDS) {
        gguf_add_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)s->bos);
        gguf_add_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)s->eos);
    }
    void *data = NULL;
    size_t n = 0;
    assert_int_equal(gguf_writer_finish_memory(w, &data, &n, NULL), DS4_OK);
    gguf_writer_destroy(w);

    gguf *g = NULL;
    vocab *v = NULL;
    assert_int_equal(gguf_open_memory(&g, data, n, NULL), DS4_OK);
    ds4_status status = vocab_load(&v, g, err);
    gguf_close(g);
    free(data);
    /* Nothing of the file is needed any more. */
    if (status == DS4_OK)
        assert_int_equal(vocab_find_normal(v, STRVIEW("ab")), 256);
    else
        assert_null(v);
    vocab_destroy(v);
    return status;
}

static void test_gguf(void **state) {
    (void)state;
    draft d;
    draft_init(&d);
    ds4_error err;
    assert_int_equal(load(&d, HAS_ALL, "joyai-llm", 259, NULL), DS4_OK);
    assert_int_equal(load(&d, HAS_ALL, "deepseek-v3", 259, NULL), DS4_OK);
    assert_int_equal(load(&d, HAS_ALL, NULL, 259, NULL), DS4_OK);
    assert_int_equal(load(&d, HAS_ALL, "llama-bpe", 259, &err), DS4_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "found 'llama-bpe'"));
    assert_int_equal(load(&d, HAS_ALL, "a\n\x1b[31m", 259, &err), DS4_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "found 'a??[31m'")); /* a message is one line of text */
    assert_int_equal(load(&d, HAS_ALL, "joyai-llm", 258, &err), DS4_EFORMAT);
    assert_non_null(strstr(err.message, "258 items for 259 tokens"));
    for (unsigned key = HAS_MODEL; key <= HAS_ENDS; key *= 2)
        assert_int_equal(load(&d, HAS_ALL & ~key, "joyai-llm", 259, &err), DS4_EFORMAT);
    d.source.bos = -1; /* 2^32 - 1 in the file */
    assert_int_equal(load(&d, HAS_ALL, "joyai-llm", 259, &err), DS4_EFORMAT);
}

/* ---- the vocabulary of the release ---- */

static void test_v4(void **state) {
    (void)state;
    vocab *v = v4_vocab();
    assert_int_equal(vocab_n_tokens(v), 129280);
    assert_int_equal(vocab_bos(v), 0);
    assert_int_equal(vocab_eos(v), 1);

    size_t n_of_type[6] = {0};
    hash64_stream h;
    hash64_init(&h, 0);
    for (int32_t id = 0; id < 129280; id++) {
        strview bytes = vocab_token_bytes(v, id);
        uint8_t length[4] = {(uint8_t)bytes.n, (uint8_t)(bytes.n >> 8), 0, 0};
        hash64_update(&h, length, sizeof length);
        hash64_update(&h, bytes.data, bytes.n);
        n_of_type[vocab_token_type(v, id)]++;
    }
    /* SHA-256 of the same bytes, as published:
     * c9403804cfc41621b0e57d25a0b1c5059e7da7fc5b10810a2b33cdb9327a494a */
    assert_true(hash64_finish(&h) == UINT64_C(0x0ee85edb012ae152));
    assert_int_equal(n_of_type[VOCAB_NORMAL], 127997);
    assert_int_equal(n_of_type[VOCAB_CONTROL] + n_of_type[VOCAB_USER], 1283);

    static const struct {
        int32_t id;
        vocab_type type;
        const char *text;
    } markers[] = {
        {0, VOCAB_CONTROL, "<｜begin▁of▁sentence｜>"},
        {1, VOCAB_CONTROL, "<｜end▁of▁sentence｜>"},
        {2, VOCAB_CONTROL, "<｜▁pad▁｜>"},
        {128799, VOCAB_CONTROL, "<｜place▁holder▁no▁799｜>"},
        {128803, VOCAB_USER, "<｜User｜>"},
        {128804, VOCAB_USER, "<｜Assistant｜>"},
        {128805, VOCAB_USER, "<|EOT|>"},
        {128821, VOCAB_USER, "<think>"},
        {128822, VOCAB_USER, "</think>"},
        {128825, VOCAB_USER, "｜DSML｜"},
        {128828, VOCAB_USER, "<｜latest_reminder｜>"},
        {128840, VOCAB_USER, "<dsml:"},
        {128846, VOCAB_CONTROL, "<｜end_of_query｜>"},
    };
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++) {
        strview text = {markers[i].text, strlen(markers[i].text)};
        assert_int_equal(vocab_find_marker(v, text), markers[i].id);
        assert_int_equal(vocab_find_normal(v, text), -1);
        assert_int_equal(vocab_token_type(v, markers[i].id), markers[i].type);
        assert_true(strview_equal(vocab_token_bytes(v, markers[i].id), text));
    }
    vocab_destroy(v);
}

static bool starts_at(strview text, size_t at, strview part) {
    size_t n = text.n - at < part.n ? text.n - at : part.n;
    return text.data[at] == part.data[0] && memcmp(text.data + at, part.data, n) == 0;
}

static bool contains(strview text, strview part) {
    for (size_t at = 0; at + part.n <= text.n; at++)
        if (starts_at(text, at, part)) return true;
    return false;
}

/* True if the end of a can be the beginning of b. */
static bool overlaps(strview a, strview b) {
    for (size_t at = a.n > b.n ? a.n - b.n + 1 : 1; at < a.n; at++)
        if (starts_at(a, at, b)) return true;
    return false;
}

/* What vocab.h says about markers: none contains another, and those that overlap give the same in
 * one pass and in two. "<｜/table>｜" is of the first pass, "｜DSML｜" of the second. */
static void test_v4_markers_overlap(void **state) {
    (void)state;
    vocab *v = v4_vocab();
    size_t n_overlaps = 0;
    strview markers[1283];
    size_t n = 0;
    for (int32_t id = 0; id < 129280; id++)
        if (vocab_token_type(v, id) != VOCAB_NORMAL) markers[n++] = vocab_token_bytes(v, id);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++) {
            if (i != k) assert_false(contains(markers[i], markers[k]));
            if (!overlaps(markers[i], markers[k])) continue;
            n_overlaps++;
            assert_true(strview_equal(markers[k], STRVIEW("｜DSML｜")));
            assert_true(i == k || strview_equal(markers[i], STRVIEW("<｜/table>｜")));
        }
    assert_int_equal(n_overlaps, 2);
    vocab_destroy(v);
}

static void test_v4_random_markers(void **state) {
    (void)state;
    vocab *v = v4_vocab();
    static const char *const parts[] = {
        "<｜", "User", "｜>",    "<think>", "｜DSML｜",     "<",
        ">",   "｜",   "<dsml:", "</",      "<｜/table>｜", "begin▁of▁sentence"};
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t random = seed;
        strbuf text = {0};
        for (int i = 0; i < 8; i++) strbuf_puts(&text, parts[next_random(&random) % 12]);
        for (size_t from = 0; from != SIZE_MAX;)
            from = check_marker(v, (strview){text.data, text.n}, from, seed);
        strbuf_release(&text);
    }
    vocab_destroy(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_markers),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_named_ends),
        cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_v4),
        cmocka_unit_test(test_v4_markers_overlap),
        cmocka_unit_test(test_v4_random_markers),
    };
    return cmocka_run_group_tests_name("vocab", tests, NULL, NULL);
}
