/* test_rounded.c - the FP8 and FP4 grids of the caches against another implementation of them:
 * logits of the nano model with rounded caches and float activations (tests/data/rounded/make.py).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/mapfile.h"
#include "tests/support/pass.h"

/* Values that lie between two points of a grid may fall on either side: the logits were seen to
 * differ by 2e-5 where none did, and by 4e-3 over 834 tokens. Without grids they differ by 0.06 to
 * 0.17. */
static const double BOUND = 0.015;

static void map(mapfile *m, const char *path) {
    ds4_error err = {0};
    if (mapfile_open(m, path, &err) != DS4_OK) fail_msg("%s", err.message);
}

static size_t count_of(const json_node *node) {
    int64_t v = -1;
    if (!json_int(node, &v) || v < 0) fail_msg("golden.json: expected a count");
    return (size_t)v;
}

/* The prompt of that name and as much of its answer as makes n tokens. */
static int32_t *tokens_of(const json_node *root, strview name, size_t n) {
    const json_node *prompt = json_get(root, "prompts")->first;
    while (prompt && !strview_equal(json_get(prompt, "name")->text, name)) prompt = prompt->next;
    assert_non_null(prompt);
    int32_t *ids = calloc(n, sizeof *ids);
    size_t at = 0;
    assert_non_null(ids);
    for (const char *const *key = (const char *const[]){"prompt_ids", "continuation_ids", NULL};
         *key; key++)
        for (const json_node *id = json_get(prompt, *key)->first; id && at < n; id = id->next)
            ids[at++] = (int32_t)count_of(id);
    assert_int_equal(at, n);
    return ids;
}

/* One entry of the list `logits`; returns how many floats of `expected` it took. */
static size_t compare_entry(const json_node *root, const json_node *entry, const float *expected) {
    size_t first = count_of(json_get(entry, "first_position"));
    size_t n_rows = count_of(json_get(entry, "rows"));
    strview name = json_get(entry, "name")->text;
    uint32_t n_tokens = (uint32_t)(first + n_rows);
    int32_t *ids = tokens_of(root, name, n_tokens);
    pass p;
    pass_open(&p, &(pass_options){.path = "models/nano/ds4-nano.gguf",
                                  .n_threads = 2,
                                  .n_ctx = n_tokens,
                                  .has_float_weights = true});
    pass_run(&p, ids, n_tokens, pass_in_chunks);
    size_t n_vocab = p.shape.n_vocab;
    const float *found = p.logits + first * n_vocab;
    for (size_t i = 0; i < n_rows * n_vocab; i++) {
        double d = fabs((double)found[i] - (double)expected[i]);
        if (!(d <= BOUND))
            fail_msg("'%.*s', row %zu, token %zu: found %.6f, expected %.6f, bound %g", (int)name.n,
                     name.data, i / n_vocab, i % n_vocab, (double)found[i], (double)expected[i],
                     BOUND);
    }
    pass_close(&p);
    free(ids);
    return n_rows * n_vocab;
}

static void test_rounded(void **state) {
    (void)state;
    mapfile golden, rows;
    json_doc doc;
    ds4_error err = {0};
    map(&golden, "models/nano/golden.json");
    map(&rows, "tests/data/rounded/rounded_logits.bin");
    if (json_parse(&doc, (const char *)golden.data, golden.n, "golden.json", &err) != DS4_OK)
        fail_msg("%s", err.message);
    const float *expected = (const float *)(const void *)rows.data;
    const json_node *entry = json_get(doc.root, "logits")->first;
    for (; entry; entry = entry->next) expected += compare_entry(doc.root, entry, expected);
    assert_ptr_equal(expected, rows.data + rows.n);
    json_release(&doc);
    mapfile_close(&golden);
    mapfile_close(&rows);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rounded)};
    return cmocka_run_group_tests_name("rounded", tests, NULL, NULL);
}
