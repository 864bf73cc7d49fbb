#include "text/detok.h"

#include "base/utf8.h"
#include "tests/support/tokenizer_data.h"
#include "text/bpe.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BAD "\xEF\xBF\xBD"

enum { BOS = 256, EOS, USER };

static vocab *byte_vocab(void) {
    static const char *const markers[] = {"<bos>", "<eos>", "<u>"};
    return small_vocab(NULL, 0, markers, 3);
}

/* Feeds one token and expects exactly this text from it. */
static void feed(detok *d, int32_t id, const char *expected) {
    strbuf out = {0};
    detok_feed(d, id, &out);
    assert_string_equal(out.data ? out.data : "", expected);
    strbuf_release(&out);
}

static void finish(detok *d, const char *expected) {
    strbuf out = {0};
    detok_finish(d, &out);
    assert_string_equal(out.data ? out.data : "", expected);
    assert_int_equal(d->n_held, 0);
    strbuf_release(&out);
}

static void test_characters(void **state) {
    (void)state;
    vocab *v = byte_vocab();
    detok d = detok_from(v, false);
    feed(&d, 'a', "a");
    feed(&d, 0xC3, "");
    feed(&d, 0xA8, "\xC3\xA8");
    feed(&d, 0xF0, "");
    feed(&d, 0x9F, "");
    feed(&d, 0x98, "");
    feed(&d, 0x80, "\xF0\x9F\x98\x80");
    finish(&d, "");
    vocab_destroy(v);
}

/* U+FFFD comes with the byte that decides, one for each maximal invalid prefix. */
static void test_invalid(void **state) {
    (void)state;
    vocab *v = byte_vocab();
    detok d = detok_from(v, false);
    feed(&d, 0x80, BAD);
    feed(&d, 0xFF, BAD);
    feed(&d, 0xC0, BAD);
    feed(&d, 0xE4, "");
    feed(&d, 0xB8, "");
    feed(&d, 'x', BAD "x");
    feed(&d, 0xE4, "");
    feed(&d, 0xB8, "");
    feed(&d, 0xC3, BAD);
    feed(&d, 0xA8, "\xC3\xA8");
    /* an overlong form and a surrogate: the second byte already decides */
    feed(&d, 0xE0, "");
    feed(&d, 0x80, BAD BAD);
    feed(&d, 0xED, "");
    feed(&d, 0xA0, BAD BAD);
    feed(&d, 0xF4, "");
    feed(&d, 0x90, BAD BAD);
    feed(&d, 0xF0, "");
    feed(&d, 0x9F, "");
    feed(&d, 0x98, "");
    finish(&d, BAD);
    feed(&d, 'a', "a");
    finish(&d, "");
    vocab_destroy(v);
}

static void test_control(void **state) {
    (void)state;
    vocab *v = byte_vocab();
    detok shown = detok_from(v, false), hidden = detok_from(v, true);
    feed(&shown, BOS, "<bos>");
    feed(&hidden, BOS, "");
    feed(&shown, USER, "<u>");
    feed(&hidden, USER, "<u>");
    /* what is left out does not part a character; what is shown does */
    feed(&hidden, 0xC3, "");
    feed(&hidden, EOS, "");
    feed(&hidden, 0xA8, "\xC3\xA8");
    feed(&shown, 0xC3, "");
    feed(&shown, EOS, BAD "<eos>");
    feed(&shown, 0xA8, BAD);
    /* no ids */
    feed(&shown, -1, "");
    feed(&shown, 100000, "");
    vocab_destroy(v);
}

/* ---- streams: the same text as all at once, whole UTF-8 at every moment ---- */

static void check_stream(const vocab *v, const id_list *ids, uint64_t number) {
    strbuf bytes = {0}, expected = {0}, found = {0};
    assert_int_equal(vocab_decode_bytes(v, &bytes, ids->data, ids->n, NULL), DS4_OK);
    utf8_append_valid(&expected, bytes.data, bytes.n);

    detok d = detok_from(v, false);
    size_t n_fed = 0;
    for (size_t i = 0; i < ids->n; i++) {
        size_t n_before = found.n, n_token = vocab_token_bytes(v, ids->data[i]).n;
        detok_feed(&d, ids->data[i], &found);
        n_fed += n_token;
        assert_true(d.n_held <= DETOK_HELD_BYTES);
        assert_true(found.n - n_before <= 3 * (DETOK_HELD_BYTES + n_token));
        if (found.n && !utf8_is_valid(found.data, found.n))
            fail_msg("stream %llu: id %zu: no UTF-8", (unsigned long long)number, i);
        /* Nothing waits that is decided. */
        strbuf shown = {0};
        utf8_append_valid(&shown, bytes.data, utf8_complete_prefix(bytes.data, n_fed));
        assert_true(strview_equal((strview){found.data, found.n}, (strview){shown.data, shown.n}));
        strbuf_release(&shown);
    }
    detok_finish(&d, &found);
    if (!strview_equal((strview){found.data, found.n}, (strview){expected.data, expected.n}))
        fail_msg("stream %llu: found %zu bytes, expected %zu", (unsigned long long)number, found.n,
                 expected.n);
    strbuf_release(&bytes);
    strbuf_release(&expected);
    strbuf_release(&found);
}

static void check_random_streams(const vocab *v, size_t n_streams) {
    for (uint64_t seed = 1; seed <= n_streams; seed++) {
        uint64_t random = seed;
        id_list ids = {0};
        for (size_t n = next_random(&random) % 40; n > 0; n--)
            assert_true(id_list_add(&ids, (int32_t)(next_random(&random) % vocab_n_tokens(v))));
        check_stream(v, &ids, seed);
        id_list_release(&ids);
    }
}

static void test_random_bytes(void **state) {
    (void)state;
    static const int32_t bytes[] = {'a',  0x80, 0x90, 0xA0, 0xBF, 0xC2,
                                    0xE0, 0xE4, 0xED, 0xF0, 0xF4, 0xFF};
    vocab *v = byte_vocab();
    check_random_streams(v, 1000);
    for (uint64_t seed = 1; seed <= 4000; seed++) {
        uint64_t random = seed;
        id_list ids = {0};
        for (size_t n = next_random(&random) % 12; n > 0; n--)
            assert_true(id_list_add(&ids, bytes[next_random(&random) % 12]));
        check_stream(v, &ids, seed);
        id_list_release(&ids);
    }
    vocab_destroy(v);
}

static void test_nano(void **state) {
    (void)state;
    vocab *v = vocab_of_file(NANO_MODEL);
    if (!v) {
        print_message("skipped: no %s\n", NANO_MODEL);
        skip();
    }
    check_random_streams(v, 1000);
    vocab_destroy(v);
}

static void from_hex(strbuf *out, strview hex) {
    for (size_t i = 0; i + 1 < hex.n; i += 2) {
        char digits[3] = {hex.data[i], hex.data[i + 1], 0};
        strbuf_putc(out, (char)strtoul(digits, NULL, 16));
    }
}

static void test_vectors(void **state) {
    (void)state;
    vocab *v = v4_vocab();
    jsonl f;
    size_t n_lines = 0;
    id_list ids = {0};
    for (jsonl_open(&f, "decode.jsonl"); jsonl_next(&f); n_lines++) {
        strbuf expected = {0}, found = {0};
        jsonl_ids(&f, "ids", &ids);
        from_hex(&expected, jsonl_text(&f, "hex"));
        assert_int_equal(vocab_decode_bytes(v, &found, ids.data, ids.n, NULL), DS4_OK);
        if (!strview_equal((strview){found.data, found.n}, (strview){expected.data, expected.n}))
            fail_msg("decode.jsonl:%zu: other bytes", f.line);
        check_stream(v, &ids, f.line);
        strbuf_release(&expected);
        strbuf_release(&found);
    }
    assert_int_equal(n_lines, 220);
    id_list_release(&ids);
    check_random_streams(v, 1000);
    vocab_destroy(v);
}

/* A whole text, token by token. */
static void test_round_trip(void **state) {
    (void)state;
    vocab *v = v4_vocab();
    bpe *b = NULL;
    assert_int_equal(bpe_create(&b, v, NULL), DS4_OK);
    for (uint64_t seed = 1; seed <= 300; seed++) {
        uint64_t random = seed;
        strbuf text = {0}, found = {0};
        id_list ids = {0};
        random_unicode(&text, &random, 200);
        assert_int_equal(bpe_encode(b, &ids, (strview){text.data, text.n}, false, NULL), DS4_OK);
        detok d = detok_from(v, true);
        for (size_t i = 0; i < ids.n; i++) detok_feed(&d, ids.data[i], &found);
        detok_finish(&d, &found);
        assert_true(strview_equal((strview){found.data, found.n}, (strview){text.data, text.n}));
        strbuf_release(&text);
        strbuf_release(&found);
        id_list_release(&ids);
    }
    bpe_destroy(b);
    vocab_destroy(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_characters), cmocka_unit_test(test_invalid),
        cmocka_unit_test(test_control),    cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_nano),       cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests_name("detok", tests, NULL, NULL);
}
