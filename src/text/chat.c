#include "text/chat.h"

#include "text/chat_private.h"

#include <stdlib.h>
#include <string.h>

/* ---- text ------------------------------------------------------------------------------------ */

ds4_status chat_render(chat_prompt *out, const json_node *conversation, chat_revision revision,
                       ds4_error *err) {
    chat_talk talk = {0};
    chat_prompt prompt = {0};
    ds4_status status = chat_read(&talk, conversation, revision, err);
    if (status == DS4_OK) status = chat_make_turns(&talk, err);
    if (status == DS4_OK) status = chat_write(&prompt, &talk, err);
    chat_talk_release(&talk);
    if (status == DS4_OK)
        *out = prompt;
    else
        chat_prompt_release(&prompt);
    return status;
}

void chat_prompt_release(chat_prompt *p) {
    strbuf_release(&p->text);
    free(p->markers);
    *p = (chat_prompt){0};
}

/* ---- ids ------------------------------------------------------------------------------------- */

static ds4_status encode(id_list *ids, const chat_prompt *p, bpe *b, const vocab *v,
                         ds4_error *err) {
    size_t at = 0;
    for (size_t i = 0; i < p->n_markers; i++) {
        const chat_marker *m = &p->markers[i];
        const strview text = {p->text.data + m->at, m->n_bytes};
        const int32_t id = vocab_find_marker(v, text);
        if (id < 0)
            return ds4_fail(err, DS4_EUNSUPPORTED, "the vocabulary has no marker '%.*s'",
                            (int)text.n, text.data);
        DS4_TRY(bpe_encode(b, ids, (strview){p->text.data + at, m->at - at}, false, err));
        if (!id_list_add(ids, id)) return ds4_fail_nomem(err, "token ids", ids->n * sizeof id);
        at = m->at + m->n_bytes;
    }
    return p->text.n > at
               ? bpe_encode(b, ids, (strview){p->text.data + at, p->text.n - at}, false, err)
               : DS4_OK;
}

ds4_status chat_encode(id_list *ids, const chat_prompt *p, bpe *b, const vocab *v, ds4_error *err) {
    const size_t n_before = ids->n;
    ds4_status status = encode(ids, p, b, v, err);
    if (status != DS4_OK) ids->n = n_before;
    return status;
}

/* ---- the revision of a model file ------------------------------------------------------------ */

static bool contains(strview text, const char *words) {
    return text.n && memmem(text.data, text.n, words, strlen(words));
}

/* False also for a value that is no text: such a file says nothing. */
static bool value_contains(const gguf *file, const char *key, const char *words) {
    strview text = {0};
    bool is_found = false;
    return gguf_get_string(file, key, &text, &is_found, NULL) == DS4_OK && is_found &&
           contains(text, words);
}

/* The names of the speculative head that only the later release has. */
static bool is_dspark(strview name) {
    return contains(name, "dspark") || contains(name, "markov_");
}

chat_revision chat_revision_of(const gguf *file) {
    static const char *const names[] = {"general.name", "general.basename", "general.version",
                                        "general.finetune"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (value_contains(file, names[i], "0731")) return CHAT_0731;
    if (value_contains(file, "tokenizer.chat_template", "Beyond maximum")) return CHAT_0731;
    for (size_t i = 0; i < gguf_n_kv(file); i++)
        if (is_dspark(gguf_kv_at(file, i)->key)) return CHAT_0731;
    for (size_t i = 0; i < gguf_n_tensors(file); i++)
        if (is_dspark(gguf_tensor_at(file, i)->name)) return CHAT_0731;
    return CHAT_PREVIEW;
}
