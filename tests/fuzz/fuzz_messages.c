/* fuzz_messages.c - any bytes as a conversation: JSON is read and printed, messages become a
 * prompt, the prompt becomes ids.
 *
 *   What must hold: printed JSON reads as itself; a prompt is valid UTF-8, its markers stand in
 * order where their texts are; its ids decode to it and have just these marker tokens. */
#include "base/utf8.h"
#include "text/chat.h"
#include "text/markers.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void require(bool is_true) {
    if (!is_true) abort();
}

/* ---- a vocabulary of bytes and markers ---- */

static const char *const MARKERS[] = {
    MARKER_BOS,   MARKER_EOS,      MARKER_USER,           MARKER_ASSISTANT,
    MARKER_DSML,  MARKER_REMINDER, MARKER_THINK_OPEN,     MARKER_THINK_CLOSE,
    MARKER_QUERY, MARKER_ACTION,   MARKER_AUTHORITY,      MARKER_DOMAIN,
    MARKER_TITLE, MARKER_READ_URL, "<｜extracted_url｜>",
};
enum { N_MARKERS = sizeof MARKERS / sizeof *MARKERS, N_TOKENS = 256 + N_MARKERS };

static vocab *create_vocab(void) {
    char bytes[256][4];
    strview tokens[N_TOKENS];
    int32_t types[N_TOKENS];
    uint32_t n_moved = 0;
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool is_itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
        size_t n = utf8_encode(is_itself ? byte : 256 + n_moved++, bytes[byte]);
        tokens[byte] = (strview){bytes[byte], n};
        types[byte] = VOCAB_NORMAL;
    }
    for (int i = 0; i < N_MARKERS; i++) {
        tokens[256 + i] = (strview){MARKERS[i], strlen(MARKERS[i])};
        types[256 + i] = i < 2 ? VOCAB_CONTROL : VOCAB_USER;
    }
    vocab_source source = {
        .tokens = tokens, .types = types, .n_tokens = N_TOKENS, .bos = 256, .eos = 257};
    vocab *v = NULL;
    require(vocab_create(&v, &source, NULL) == DS4_OK);
    return v;
}

/* ---- what must hold ---- */

/* True if a number has become one of the words that are not JSON. */
static bool has_infinity(const json_node *node) {
    double v;
    if (json_double(node, &v)) return v > 1e308 || v < -1e308;
    bool is_found = false;
    for (const json_node *item = node->first; item && !is_found; item = item->next)
        is_found = has_infinity(item);
    return is_found;
}

static void check_printing(const json_node *root) {
    if (has_infinity(root)) return;
    strbuf once = {0}, twice = {0};
    json_doc doc;
    json_write_python(&once, root);
    require(!once.is_failed);
    require(json_parse(&doc, once.data, once.n, "printed", NULL) == DS4_OK);
    json_write_python(&twice, doc.root);
    require(once.n == twice.n && memcmp(once.data, twice.data, once.n) == 0);
    json_release(&doc);
    strbuf_release(&once);
    strbuf_release(&twice);
}

static void check_markers(const chat_prompt *p) {
    size_t end = 0;
    for (size_t i = 0; i < p->n_markers; i++) {
        const chat_marker m = p->markers[i];
        bool is_known = false;
        require(m.at >= end && m.n_bytes <= p->text.n && m.at <= p->text.n - m.n_bytes);
        for (int k = 0; k < N_MARKERS; k++)
            is_known |= m.n_bytes == strlen(MARKERS[k]) &&
                        memcmp(p->text.data + m.at, MARKERS[k], m.n_bytes) == 0;
        require(is_known);
        end = m.at + m.n_bytes;
    }
}

static void check_ids(const chat_prompt *p) {
    vocab *v = create_vocab();
    bpe *b = NULL;
    id_list ids = {0};
    strbuf bytes = {0};
    size_t n_markers = 0;
    require(bpe_create(&b, v, NULL) == DS4_OK);
    require(chat_encode(&ids, p, b, v, NULL) == DS4_OK);
    require(vocab_decode_bytes(v, &bytes, ids.data, ids.n, NULL) == DS4_OK);
    require(bytes.n == p->text.n);
    require(bytes.n == 0 || memcmp(bytes.data, p->text.data, bytes.n) == 0);
    for (size_t i = 0; i < ids.n; i++) n_markers += ids.data[i] >= 256;
    require(n_markers == p->n_markers);
    id_list_release(&ids);
    strbuf_release(&bytes);
    bpe_destroy(b);
    vocab_destroy(v);
}

static void check_prompt(const json_node *conversation, chat_revision revision) {
    chat_prompt prompt = {0};
    ds4_error err = {0};
    ds4_status status = chat_render(&prompt, conversation, revision, &err);
    if (status == DS4_OK) {
        require(prompt.text.n == 0 || utf8_is_valid(prompt.text.data, prompt.text.n));
        check_markers(&prompt);
        check_ids(&prompt);
    } else {
        require(status == DS4_EINVAL && err.code == DS4_EINVAL && err.message[0]);
        require(!prompt.text.data && !prompt.markers && !strchr(err.message, '\n'));
    }
    chat_prompt_release(&prompt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    json_doc doc;
    ds4_error err = {0};
    if (json_parse(&doc, (const char *)data, n, "input", &err) != DS4_OK) {
        require(err.code == DS4_EFORMAT && err.message[0]);
        return 0;
    }
    check_printing(doc.root);
    check_prompt(doc.root, CHAT_PREVIEW);
    check_prompt(doc.root, CHAT_0731);
    json_release(&doc);
    return 0;
}
