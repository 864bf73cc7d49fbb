#include "text/bpe.h"

#include "base/hash.h"
#include "tests/support/tokenizer_data.h"
#include "text/pretoken.h"

#include <pthread.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static bpe *create(const vocab *v) {
    bpe *b = NULL;
    assert_int_equal(bpe_create(&b, v, NULL), DS4_OK);
    return b;
}

static void encode(bpe *b, id_list *ids, strview text, bool has_markers) {
    ds4_error err = {0};
    if (bpe_encode(b, ids, text, has_markers, &err) != DS4_OK) fail_msg("%s", err.message);
}

static void assert_same_ids(const id_list *found, const id_list *expected, const char *what,
                            uint64_t number) {
    for (size_t i = 0; i < found->n && i < expected->n; i++)
        if (found->data[i] != expected->data[i])
            fail_msg("%s %llu: id %zu: found %d, expected %d", what, (unsigned long long)number, i,
                     (int)found->data[i], (int)expected->data[i]);
    if (found->n != expected->n)
        fail_msg("%s %llu: found %zu ids, expected %zu", what, (unsigned long long)number, found->n,
                 expected->n);
}

static void assert_decodes(const vocab *v, const id_list *ids, strview text, uint64_t number) {
    strbuf bytes = {0};
    assert_int_equal(vocab_decode_bytes(v, &bytes, ids->data, ids->n, NULL), DS4_OK);
    if (!strview_equal((strview){bytes.data, bytes.n}, text))
        fail_msg("text %llu: %zu bytes decode to %zu others", (unsigned long long)number, text.n,
                 bytes.n);
    strbuf_release(&bytes);
}

/* ---- the definition: merge the first pair of the lowest rank, look at everything again ---- */

static void naive_piece(const vocab *v, id_list *ids, strview piece) {
    size_t first = ids->n;
    for (size_t i = 0; i < piece.n; i++)
        assert_true(id_list_add(ids, vocab_byte_id(v, (uint8_t)piece.data[i])));
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

static void naive_encode(const vocab *v, id_list *ids, strview text) {
    pretoken_iter it = pretoken_from(text);
    for (strview piece; pretoken_next(&it, &piece);) naive_piece(v, ids, piece);
}

static void check_against_naive(bpe *b, const vocab *v, strview text, uint64_t number) {
    id_list found = {0}, expected = {0};
    encode(b, &found, text, false);
    naive_encode(v, &expected, text);
    assert_same_ids(&found, &expected, "text", number);
    assert_decodes(v, &found, text, number);
    id_list_release(&found);
    id_list_release(&expected);
}

/* Words over few letters, so that many merges compete, of all lengths around the limit between the
 * two ways; with bytes, Unicode and long runs in between. */
static void check_random_texts(const vocab *v, const char *letters, uint64_t n_texts) {
    bpe *b = create(v);
    for (uint64_t seed = 1; seed <= n_texts; seed++) {
        uint64_t random = seed;
        strbuf text = {0};
        if (seed % 4 == 0)
            random_bytes(&text, &random, next_random(&random) % 300);
        else if (seed % 4 == 1)
            random_unicode(&text, &random, next_random(&random) % 300);
        else
            for (uint64_t n = next_random(&random) % 300; n > 0; n--)
                strbuf_putc(&text, letters[next_random(&random) % strlen(letters)]);
        check_against_naive(b, v, (strview){text.data, text.n}, seed);
        strbuf_release(&text);
    }
    bpe_destroy(b);
}

/* ---- a vocabulary of our own ---- */

/* The byte alphabet writes a space as U+0120. */
#define SPACE "\xC4\xA0"

/* clang-format off */
static const char *const MERGES[] = {
    "a b", "b c", "ab c", "a a", "aa aa", "aaaa aaaa", "b b", "ab ab", "c a", "ca b",
    "abab abab", "abc ab", "x x", "y x", "xx y", SPACE " a", (SPACE "a b"),
};
/* clang-format on */
static const char *const MARKERS[] = {"<bos>", "<eos>", "<x>", "<x>>", "<>"};
enum { N_MERGES = sizeof MERGES / sizeof *MERGES, N_MARKERS = sizeof MARKERS / sizeof *MARKERS };

static vocab *own_vocab(void) {
    return small_vocab(MERGES, N_MERGES, MARKERS, N_MARKERS);
}

static void check_ids(bpe *b, const char *text, bool has_markers, const int32_t *ids, size_t n) {
    id_list found = {0}, expected = {0};
    for (size_t i = 0; i < n; i++) assert_true(id_list_add(&expected, ids[i]));
    encode(b, &found, (strview){text, strlen(text)}, has_markers);
    assert_same_ids(&found, &expected, text, 0);
    id_list_release(&found);
    id_list_release(&expected);
}

#define IDS(...)                                                                                   \
    (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

static void test_small(void **state) {
    (void)state;
    vocab *v = own_vocab();
    bpe *b = create(v);
    check_ids(b, "", false, NULL, 0);
    id_list none = {0};
    encode(b, &none, (strview){0}, true);
    assert_int_equal(none.n, 0);
    check_ids(b, "abc", false, IDS(258));
    check_ids(b, "aaa", false, IDS(259, 'a'));
    check_ids(b, "aaab", false, IDS(259, 256));
    check_ids(b, "bca", false, IDS(257, 'a'));
    check_ids(b, "z a", false, IDS('z', 271));
    check_ids(b, "z aa", false, IDS('z', ' ', 259));
    /* the merge of " a" comes after those of "ab" and "abc" */
    check_ids(b, " abc", false, IDS(' ', 258));
    /* markers */
    enum { BOS = 256 + N_MERGES, EOS, X, XX, EMPTY };
    check_ids(b, "<bos>ab<x>c<x>>", true, IDS(BOS, 256, X, 'c', XX));
    check_ids(b, "<<>>", true, IDS('<', EMPTY, '>'));
    check_ids(b, "<x", true, IDS('<', 'x'));
    check_ids(b, "a<x>b", true, IDS('a', X, 'b'));
    check_ids(b, "<x>", false, IDS('<', 'x', '>'));
    check_ids(b, "<bos><eos>", true, IDS(BOS, EOS));
    bpe_destroy(b);
    vocab_destroy(v);
    bpe_destroy(NULL);
}

/* Ids are appended; what was there stays. */
static void test_appends(void **state) {
    (void)state;
    vocab *v = own_vocab();
    bpe *b = create(v);
    id_list ids = {0};
    encode(b, &ids, STRVIEW("abc"), false);
    encode(b, &ids, STRVIEW("abc"), false);
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.data[0], 258);
    assert_int_equal(ids.data[1], 258);
    id_list_release(&ids);
    bpe_destroy(b);
    vocab_destroy(v);
}

static void test_small_random(void **state) {
    (void)state;
    vocab *v = own_vocab();
    check_random_texts(v, "abc", 3000);
    check_random_texts(v, "ab", 1000);
    check_random_texts(v, "xxy a", 1000);
    vocab_destroy(v);
}

/* ---- the nano model ---- */

static void test_nano(void **state) {
    (void)state;
    vocab *v = vocab_of_file(NANO_MODEL);
    if (!v) {
        print_message("skipped: no %s\n", NANO_MODEL);
        skip();
    }
    assert_int_equal(vocab_n_tokens(v), 4096);
    assert_int_equal(vocab_bos(v), 0);
    assert_int_equal(vocab_eos(v), 1);
    bpe *b = create(v);
    check_ids(b,
              "<\xEF\xBD\x9C"
              "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>You are a helpful "
              "assistant<\xEF\xBD\x9CUser\xEF\xBD\x9C>Hello!<\xEF\xBD\x9C"
              "Assistant\xEF\xBD\x9C>"
              "</think>",
              true, IDS(0, 380, 425, 261, 640, 642, 4080, 2191, 36, 4081, 4083));
    bpe_destroy(b);
    check_random_texts(v, "etaoin shrdlu", 1000);
    vocab_destroy(v);
}

/* The prompts of its own reference, as text and as ids. */
static void test_nano_prompts(void **state) {
    (void)state;
    vocab *v = vocab_of_file(NANO_MODEL);
    if (!v) {
        print_message("skipped: no %s\n", NANO_MODEL);
        skip();
    }
    bpe *b = create(v);
    jsonl f;
    size_t n = 0;
    jsonl_open_whole(&f, "models/nano/golden.json");
    assert_true(jsonl_next(&f));
    for (const json_node *p = json_get(f.doc.root, "prompts")->first; p; p = p->next, n++) {
        id_list found = {0}, expected = {0};
        encode(b, &found, json_get(p, "prompt")->text, true);
        ids_of_json(&expected, json_get(p, "prompt_ids"));
        assert_same_ids(&found, &expected, "prompt", n);
        id_list_release(&found);
        id_list_release(&expected);
    }
    assert_false(jsonl_next(&f));
    assert_int_equal(n, 28);
    bpe_destroy(b);
    vocab_destroy(v);
}

/* ---- the vocabulary of the release ---- */

static size_t check_vectors(bpe *b, const vocab *v, const char *name, bool has_markers) {
    jsonl f;
    size_t n_lines = 0;
    id_list found = {0}, expected = {0};
    for (jsonl_open(&f, name); jsonl_next(&f); n_lines++) {
        strview text = jsonl_text(&f, "text");
        jsonl_ids(&f, "ids", &expected);
        found.n = 0;
        encode(b, &found, text, has_markers);
        assert_same_ids(&found, &expected, name, f.line);
        assert_decodes(v, &found, text, f.line);
    }
    id_list_release(&found);
    id_list_release(&expected);
    return n_lines;
}

static void test_vectors(void **state) {
    (void)state;
    vocab *v = v4_vocab();
    bpe *b = create(v);
    assert_int_equal(check_vectors(b, v, "golden.jsonl", true), 958);
    assert_int_equal(check_vectors(b, v, "golden_plain.jsonl", false), 67);
    /* again, now out of the cache */
    check_vectors(b, v, "golden.jsonl", true);
    check_vectors(b, v, "golden_plain.jsonl", false);
    bpe_destroy(b);
    vocab_destroy(v);
}

/* All texts of the vectors joined by line ends, twenty times. */
static void make_bulk(strbuf *text) {
    jsonl f;
    strbuf once = {0};
    for (jsonl_open(&f, "golden.jsonl"); jsonl_next(&f);) {
        if (f.line > 1) strbuf_putc(&once, '\n');
        strbuf_view(&once, jsonl_text(&f, "text"));
    }
    for (int i = 0; i < 20; i++) {
        if (i) strbuf_putc(text, '\n');
        strbuf_append(text, once.data, once.n);
    }
    strbuf_release(&once);
    assert_int_equal(text->n, 643139);
}

/* hash64 of the ids as little-endian u32; the SHA-256 of the same bytes is that of the reference:
 * 4849d0f2efc81005c578099123942ef90a67072578ae958bf22b8bfef83d0146. */
static uint64_t hash_ids(const id_list *ids) {
    hash64_stream h;
    hash64_init(&h, 0);
    for (size_t i = 0; i < ids->n; i++) {
        uint32_t id = (uint32_t)ids->data[i];
        uint8_t bytes[4] = {(uint8_t)id, (uint8_t)(id >> 8), (uint8_t)(id >> 16),
                            (uint8_t)(id >> 24)};
        hash64_update(&h, bytes, sizeof bytes);
    }
    return hash64_finish(&h);
}

#define BULK_IDS  336481
#define BULK_HASH UINT64_C(0xc60e090a4cbc1dd1)

typedef struct {
    const vocab *v;
    strview text;
    size_t n_ids;
    uint64_t hash;
} worker;

static void *encode_bulk(void *user) {
    worker *w = user;
    bpe *b = NULL;
    id_list ids = {0};
    if (bpe_create(&b, w->v, NULL) == DS4_OK &&
        bpe_encode(b, &ids, w->text, true, NULL) == DS4_OK) {
        w->n_ids = ids.n;
        w->hash = hash_ids(&ids);
    }
    id_list_release(&ids);
    bpe_destroy(b);
    return NULL;
}

/* Several threads with one vocabulary, each with its own bpe. */
static void test_bulk(void **state) {
    (void)state;
    vocab *v = v4_vocab();
    strbuf text = {0};
    make_bulk(&text);
    enum { N_THREADS = 4 };
    worker workers[N_THREADS];
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) {
        workers[i] = (worker){.v = v, .text = {text.data, text.n}};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_bulk, &workers[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(workers[i].n_ids, BULK_IDS);
        assert_true(workers[i].hash == BULK_HASH);
    }
    strbuf_release(&text);
    vocab_destroy(v);
}

static void test_v4_random(void **state) {
    (void)state;
    vocab *v = v4_vocab();
    check_random_texts(v, "etaoinshrdlu", 1500);
    check_random_texts(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", 500);
    check_random_texts(v, "a", 500);
    check_random_texts(v, "=-*# \n", 500);
    vocab_destroy(v);
}

/* Every normal token that is one piece gives itself: the merges lead to it. */
static void test_v4_tokens(void **state) {
    (void)state;
    vocab *v = v4_vocab();
    bpe *b = create(v);
    id_list ids = {0};
    size_t n_pieces = 0;
    for (size_t i = 0; i < vocab_n_tokens(v); i++) {
        strview bytes = vocab_token_bytes(v, (int32_t)i), piece;
        pretoken_iter it = pretoken_from(bytes);
        if (vocab_token_type(v, (int32_t)i) != VOCAB_NORMAL) continue;
        if (!pretoken_next(&it, &piece) || piece.n != bytes.n) continue;
        n_pieces++;
        ids.n = 0;
        encode(b, &ids, bytes, false);
        if (ids.n != 1 || ids.data[0] != (int32_t)i)
            fail_msg("token %zu: its bytes give %zu ids, the first is %d", i, ids.n,
                     (int)ids.data[0]);
    }
    print_message("%zu tokens are one piece\n", n_pieces);
    assert_true(n_pieces >= 126527);
    id_list_release(&ids);
    bpe_destroy(b);
    vocab_destroy(v);
}

/* One word of a megabyte; the time is only told, since sanitizers and busy machines are slow. */
static void check_long_word(bpe *b, const vocab *v, const char *letters, const char *what) {
    strbuf text = {0};
    uint64_t random = 1;
    while (text.n < 1 << 20) strbuf_putc(&text, letters[next_random(&random) % strlen(letters)]);
    id_list ids = {0};
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    encode(b, &ids, (strview){text.data, text.n}, false);
    clock_gettime(CLOCK_MONOTONIC, &after);
    print_message("1 MiB of %s: %zu ids, %.3f s\n", what, ids.n,
                  (double)(after.tv_sec - before.tv_sec) +
                      1e-9 * (double)(after.tv_nsec - before.tv_nsec));
    assert_decodes(v, &ids, (strview){text.data, text.n}, 0);
    id_list_release(&ids);
    strbuf_release(&text);
}

static void test_long_words(void **state) {
    (void)state;
    vocab *v = v4_vocab();
    bpe *b = create(v);
    check_long_word(b, v, "a", "one letter");
    check_long_word(b, v, "abcdefghijklmnopqrstuvwxyz", "random letters");
    check_long_word(b, v, "ab", "two letters");
    check_long_word(b, v, "-", "one sign");
    check_long_word(b, v, " ", "spaces");
    bpe_destroy(b);
    vocab_destroy(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),        cmocka_unit_test(test_appends),
        cmocka_unit_test(test_small_random), cmocka_unit_test(test_nano),
        cmocka_unit_test(test_nano_prompts), cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_bulk),         cmocka_unit_test(test_v4_random),
        cmocka_unit_test(test_v4_tokens),    cmocka_unit_test(test_long_words),
    };
    return cmocka_run_group_tests_name("bpe", tests, NULL, NULL);
}
