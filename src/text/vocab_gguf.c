/* The part of vocab.h that reads GGUF: finds the keys, checks their types and counts, and hands
 * plain arrays to vocab_create. */
#include "text/vocab.h"

#include "base/arena.h"
#include "base/hash.h"

/* hash64 (seed 0) over all tokens of the V4 release in the order of their ids, each as its length
 * (u32, little-endian) and the bytes it stands for. The SHA-256 of the same bytes is the one
 * published for this vocabulary: c9403804cfc41621b0e57d25a0b1c5059e7da7fc5b10810a2b33cdb9327a494a.
 */
#define V4_TOKENS_HASH UINT64_C(0x0ee85edb012ae152)

static uint64_t hash_tokens(const vocab *v) {
    hash64_stream h;
    hash64_init(&h, 0);
    for (size_t i = 0; i < vocab_n_tokens(v); i++) {
        strview bytes = vocab_token_bytes(v, (int32_t)i);
        uint8_t length[4];
        for (int k = 0; k < 4; k++) length[k] = (uint8_t)(bytes.n >> 8 * k);
        hash64_update(&h, length, sizeof length);
        hash64_update(&h, bytes.data, bytes.n);
    }
    return hash64_finish(&h);
}

/* The array of `key`; DS4_EFORMAT if it is absent or its items are not of `item_type`. */
static ds4_status find_array(const gguf *g, const gguf_kv **kv, const char *key, bool is_string,
                             ds4_error *err) {
    const gguf_kv *found = gguf_find(g, key);
    if (!found) return ds4_fail(err, DS4_EFORMAT, "vocab: key '%s' is missing", key);
    if (found->type != GGUF_ARRAY || (found->item_type == GGUF_STRING) != is_string)
        return ds4_fail(err, DS4_EFORMAT, "vocab: key '%s': expected an array of %s", key,
                        is_string ? "strings" : "integers");
    *kv = found;
    return DS4_OK;
}

static void fill_strings(strview *out, const gguf_kv *kv) {
    gguf_string_iter it = {0};
    for (size_t i = 0; i < kv->n_items && gguf_next_string(kv, &it, &out[i]); i++) continue;
}

static ds4_status fill_types(int32_t *out, const gguf *g, const gguf_kv *kv, ds4_error *err) {
    for (uint64_t i = 0; i < kv->n_items; i++) {
        int64_t type;
        DS4_TRY(gguf_item_i64(g, kv, i, &type, err));
        out[i] = type >= 0 && type <= INT32_MAX ? (int32_t)type : -1;
    }
    return DS4_OK;
}

static ds4_status get_id(const gguf *g, const char *key, int32_t *id, ds4_error *err) {
    uint32_t value = 0;
    bool is_found;
    DS4_TRY(gguf_get_u32(g, key, &value, &is_found, err));
    if (is_found && value > INT32_MAX)
        return ds4_fail(err, DS4_EFORMAT, "vocab: key '%s': %u is no token id", key, value);
    *id = is_found ? (int32_t)value : -1;
    return DS4_OK;
}

/* The splitting rules are not in the file; its name for them must be one that means ours. */
static ds4_status check_rules(const gguf *g, const vocab *v, ds4_error *err) {
    strview pre = {0};
    bool is_found;
    DS4_TRY(gguf_get_string(g, "tokenizer.ggml.pre", &pre, &is_found, err));
    if (!is_found || strview_equal(pre, STRVIEW("joyai-llm")) ||
        strview_equal(pre, STRVIEW("deepseek-v3")) || hash_tokens(v) == V4_TOKENS_HASH)
        return DS4_OK;
    return ds4_fail(err, DS4_EUNSUPPORTED,
                    "vocab: key 'tokenizer.ggml.pre': found '%s', expected 'joyai-llm' or "
                    "'deepseek-v3', and the tokens are not those of DeepSeek V4",
                    gguf_show(pre).text);
}

/* Fills `source` with arrays in `scratch` whose strings are those of the file. */
static ds4_status read_source(vocab_source *source, arena *scratch, const gguf *g, ds4_error *err) {
    const gguf_kv *tokens_kv = NULL, *types_kv = NULL, *merges_kv = NULL;
    DS4_TRY(find_array(g, &tokens_kv, "tokenizer.ggml.tokens", true, err));
    DS4_TRY(find_array(g, &types_kv, "tokenizer.ggml.token_type", false, err));
    DS4_TRY(find_array(g, &merges_kv, "tokenizer.ggml.merges", true, err));
    size_t n_tokens = (size_t)tokens_kv->n_items, n_merges = (size_t)merges_kv->n_items;
    if (types_kv->n_items != n_tokens)
        return ds4_fail(err, DS4_EFORMAT,
                        "vocab: key 'tokenizer.ggml.token_type': %llu items for %zu tokens",
                        (unsigned long long)types_kv->n_items, n_tokens);

    strview *tokens = arena_array(scratch, n_tokens, sizeof *tokens);
    strview *merges = arena_array(scratch, n_merges, sizeof *merges);
    int32_t *types = arena_array(scratch, n_tokens, sizeof *types);
    if (!tokens || !merges || !types)
        return ds4_fail_nomem(err, "vocab", (n_tokens + n_merges) * sizeof *tokens);
    fill_strings(tokens, tokens_kv);
    fill_strings(merges, merges_kv);
    DS4_TRY(fill_types(types, g, types_kv, err));

    *source = (vocab_source){.tokens = tokens,
                             .types = types,
                             .n_tokens = n_tokens,
                             .merges = merges,
                             .n_merges = n_merges};
    DS4_TRY(get_id(g, "tokenizer.ggml.bos_token_id", &source->bos, err));
    return get_id(g, "tokenizer.ggml.eos_token_id", &source->eos, err);
}

ds4_status vocab_load(vocab **out, const gguf *g, ds4_error *err) {
    strview model = {0};
    DS4_TRY(gguf_get_string(g, "tokenizer.ggml.model", &model, NULL, err));
    if (!strview_equal(model, STRVIEW("gpt2")))
        return ds4_fail(err, DS4_EUNSUPPORTED,
                        "vocab: key 'tokenizer.ggml.model': found '%s', expected 'gpt2'",
                        gguf_show(model).text);

    arena scratch = {0};
    vocab_source source;
    vocab *v = NULL;
    ds4_status status = read_source(&source, &scratch, g, err);
    if (status == DS4_OK) status = vocab_create(&v, &source, err);
    if (status == DS4_OK) status = check_rules(g, v, err);
    arena_release(&scratch);
    if (status == DS4_OK)
        *out = v;
    else
        vocab_destroy(v);
    return status;
}
