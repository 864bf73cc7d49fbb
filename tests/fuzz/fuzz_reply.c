/* fuzz_reply.c - any text as a reply: cuts are invisible, events follow their rules, and the
 * arguments of a call to known tools are JSON.
 *
 *   byte 0   bits 0-1: tools unknown, listed, none; bit 2: thinking; bit 3: cut by the limit
 *   byte 1   where the second reading is cut
 *   then     the text */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "tests/support/reply_log.h"
#include "text/markers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { UNKNOWN, LISTED, NONE };

static const char TOOLS[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"parameters\": "
    "{\"properties\": "
    "{\"city\": {\"type\": \"string\"}, \"days\": {\"type\": \"integer\"}}}}}, {\"name\": \"f\", "
    "\"parameters\": {\"properties\": {\"a\": {\"anyOf\": [{\"type\": \"array\"}, {\"const\": "
    "1}]}}}}]";

static void require(bool is_true) {
    if (!is_true) abort();
}

static ds4_reply *create(reply_log *log, uint8_t how) {
    ds4_reply_options options = {.is_thinking = how & 4};
    ds4_reply *reply = NULL;
    if ((how & 3) == LISTED) options.tools = TOOLS, options.n_tools = sizeof TOOLS - 1;
    if ((how & 3) == NONE) options.tools = "[]", options.n_tools = 2;
    require(ds4_reply_create(&reply, &options, reply_log_add, log, NULL) == DS4_OK);
    return reply;
}

/* An exact copy, so that a sanitizer sees the first byte behind the end. */
static void feed(ds4_reply *reply, const uint8_t *text, size_t n) {
    char *copy = malloc(n ? n : 1);
    require(copy != NULL);
    memcpy(copy, text, n);
    require(ds4_reply_feed(reply, copy, n, NULL) == DS4_OK);
    free(copy);
}

/* Pieces of 1 to n_max bytes, as `seed` decides; n_max 0: all at once. */
static void read_text(reply_log *log, uint8_t how, const uint8_t *text, size_t n, uint32_t seed,
                      size_t n_max) {
    ds4_reply *reply = create(log, how);
    if (n_max == 0) feed(reply, text, n);
    for (size_t at = 0; n_max && at < n;) {
        seed = seed * 1664525u + 1013904223u;
        size_t n_piece = 1 + (seed >> 16) % n_max;
        if (n_piece > n - at) n_piece = n - at;
        feed(reply, text + at, n_piece);
        at += n_piece;
    }
    require(ds4_reply_finish(reply, how & 8, NULL) == DS4_OK);
    ds4_reply_destroy(reply);
    require(!log->violation && !log->message.has_open);
    require(message_check(&log->message, NULL) == DS4_OK);
}

static void check_calls(const message *m, uint8_t how) {
    require((how & 3) != NONE || m->n_calls == 0);
    for (size_t i = 0; i < m->n_calls; i++) {
        const strbuf *arguments = &m->calls[i].arguments;
        json_doc doc = {0};
        require(arguments->n >= 2 && arguments->data[0] == '{');
        if ((how & 3) != LISTED) continue;
        require(json_parse(&doc, arguments->data, arguments->n, "arguments", NULL) == DS4_OK);
        require(doc.root->type == JSON_OBJECT);
        json_release(&doc);
    }
}

/* Text without calls, thinking and end comes out as it is. */
static void check_text(const message *m, uint8_t how, const uint8_t *text, size_t n) {
    strbuf valid = {0};
    if ((how & 3) != NONE || how & 12 || memmem(text, n, MARKER_EOS, strlen(MARKER_EOS))) return;
    utf8_append_valid(&valid, (const char *)text, n);
    require(valid.n == m->content.n && m->reasoning.n == 0);
    require(valid.n == 0 || memcmp(valid.data, m->content.data, valid.n) == 0);
    strbuf_release(&valid);
}

/* The message is JSON, whatever it holds. */
static void check_message(const message *m) {
    strbuf out = {0};
    json_doc doc = {0};
    message_write(m, &out);
    require(json_parse(&doc, out.data, out.n, "message", NULL) == DS4_OK);
    require(json_get(doc.root, "tool_calls")->n_items == m->n_calls);
    json_release(&doc);
    strbuf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    reply_log whole = {0}, pieces = {0}, bytes = {0};
    if (n < 2) return 0;
    uint8_t how = data[0];
    read_text(&whole, how, data + 2, n - 2, 0, 0);
    read_text(&pieces, how, data + 2, n - 2, data[1], 16);
    read_text(&bytes, how, data + 2, n - 2, 0, 1);
    require(reply_log_equal(&whole, &pieces) && reply_log_equal(&whole, &bytes));
    check_calls(&whole.message, how);
    check_text(&whole.message, how, data + 2, n - 2);
    check_message(&whole.message);
    reply_log_release(&whole);
    reply_log_release(&pieces);
    reply_log_release(&bytes);
    return 0;
}
