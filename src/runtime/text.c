/* text.c - tokens, bytes and prompts for the users of an engine.
 *
 * Any thread may be here at any time: the engine is only read, and every call has an encoder of its
 * own. */
#include <stdlib.h>

#include "runtime/runtime.h"

/* Hands a list over; an empty one is memory too, so that NULL never means success. */
static ds4_status take_ids(int32_t **ids, size_t *n_ids, id_list *list, ds4_error *err) {
    if (!list->data && !id_list_reserve(list, 1))
        return ds4_fail_nomem(err, "token ids", sizeof(int32_t));
    *ids = list->data;
    *n_ids = list->n;
    *list = (id_list){0};
    return DS4_OK;
}

static ds4_status take_text(char **text, size_t *n_text, strbuf *bytes, ds4_error *err) {
    size_t n;
    DS4_TRY(strbuf_check(bytes, "text", err));
    char *taken = strbuf_take(bytes, &n);
    if (!taken) return ds4_fail_nomem(err, "text", 1);
    *text = taken;
    if (n_text) *n_text = n;
    return DS4_OK;
}

ds4_status ds4_tokenize(const ds4_engine *engine, int32_t **ids, size_t *n_ids, const char *text,
                        size_t n, bool has_markers, ds4_error *err) {
    bpe *b;
    id_list list = {0};
    DS4_TRY(bpe_create(&b, engine->words, err));
    ds4_status status = bpe_encode(b, &list, (strview){text, n}, has_markers, err);
    if (status == DS4_OK) status = take_ids(ids, n_ids, &list, err);
    id_list_release(&list);
    bpe_destroy(b);
    return status;
}

ds4_status ds4_detokenize(const ds4_engine *engine, char **text, size_t *n_text, const int32_t *ids,
                          size_t n, ds4_error *err) {
    strbuf bytes = {0};
    ds4_status status = vocab_decode_bytes(engine->words, &bytes, ids, n, err);
    if (status == DS4_OK) status = take_text(text, n_text, &bytes, err);
    strbuf_release(&bytes);
    return status;
}

static ds4_status encode_prompt(id_list *ids, const ds4_engine *engine, const chat_prompt *prompt,
                                ds4_error *err) {
    bpe *b;
    DS4_TRY(bpe_create(&b, engine->words, err));
    ds4_status status = chat_encode(ids, prompt, b, engine->words, err);
    bpe_destroy(b);
    return status;
}

ds4_status ds4_render(const ds4_engine *engine, char **text, size_t *n_text, int32_t **ids,
                      size_t *n_ids, const char *json, size_t n_json, ds4_error *err) {
    json_doc doc = {0};
    chat_prompt prompt = {0};
    id_list list = {0};
    int32_t *made = NULL;
    size_t n_made = 0;
    ds4_status status = json_parse(&doc, json, n_json, "conversation", err);
    if (status == DS4_OK) status = chat_render(&prompt, doc.root, engine->revision, err);
    if (status == DS4_OK && ids) {
        status = encode_prompt(&list, engine, &prompt, err);
        if (status == DS4_OK) status = take_ids(&made, &n_made, &list, err);
    }
    if (status == DS4_OK && text) status = take_text(text, n_text, &prompt.text, err);
    /* Outputs change only when nothing can fail any more. */
    if (status == DS4_OK && ids) {
        *ids = made;
        if (n_ids) *n_ids = n_made;
    } else {
        free(made);
    }
    id_list_release(&list);
    chat_prompt_release(&prompt);
    json_release(&doc);
    return status;
}
