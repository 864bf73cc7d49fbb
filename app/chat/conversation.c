#include "app/chat/conversation.h"

#include <stdlib.h>
#include <string.h>

#include "app/io.h"
#include "base/json.h"

/* As the prompt's rules call them; NULL: nothing is said. */
static const char *const EFFORT_NAMES[] = {
    [EFFORT_NONE] = NULL, [EFFORT_THINK] = NULL, [EFFORT_LOW] = "low",
    [EFFORT_HIGH] = "high", [EFFORT_MAX] = "max",
};

/* ---- messages ---- */

static void message_release(chat_message *m) {
    strbuf_release(&m->content);
    strbuf_release(&m->reasoning);
    strbuf_release(&m->calls);
}

chat_message *conversation_add(conversation *c, bool is_user) {
    if (c->n == c->n_cap) {
        size_t n_cap = c->n_cap ? 2 * c->n_cap : 16;
        chat_message *items = realloc(c->items, n_cap * sizeof *items);
        if (!items) return NULL;
        c->items = items;
        c->n_cap = n_cap;
    }
    chat_message *m = &c->items[c->n++];
    *m = (chat_message){.is_user = is_user};
    return m;
}

void conversation_drop_last(conversation *c) {
    if (c->n) message_release(&c->items[--c->n]);
}

size_t conversation_rewind(conversation *c, size_t n_turns) {
    size_t n_removed = 0;
    while (n_removed < n_turns && c->n > 0) {
        bool is_turn_start = c->items[c->n - 1].is_user;
        conversation_drop_last(c);
        n_removed += is_turn_start;
    }
    return n_removed;
}

void conversation_clear(conversation *c) {
    while (c->n) conversation_drop_last(c);
}

void conversation_release(conversation *c) {
    conversation_clear(c);
    free(c->items);
    strbuf_release(&c->system);
    *c = (conversation){0};
}

/* ---- writing ---- */

static void write_member(strbuf *json, const char *name, const strbuf *text) {
    strbuf_puts(json, ", ");
    io_json_key(json, name);
    io_json_text(json, text->data, text->n);
}

static void write_message(strbuf *json, const chat_message *m) {
    strbuf_puts(json, m->is_user ? "{\"role\": \"user\"" : "{\"role\": \"assistant\"");
    write_member(json, "content", &m->content);
    if (m->reasoning.n) write_member(json, "reasoning_content", &m->reasoning);
    if (m->calls.n) {
        strbuf_puts(json, ", \"tool_calls\": [");
        strbuf_append(json, m->calls.data, m->calls.n);
        strbuf_putc(json, ']');
    }
    strbuf_putc(json, '}');
}

/* `"name": [...]` with the messages [first, end), the system text before message 0. */
static void write_messages(strbuf *json, const conversation *c, const char *name, size_t first,
                           size_t end) {
    const char *separator = "\n  ";
    strbuf_printf(json, ",\n \"%s\": [", name);
    if (first == 0 && c->system.n) {
        strbuf_printf(json, "%s{\"role\": \"system\"", separator);
        write_member(json, "content", &c->system);
        strbuf_putc(json, '}');
        separator = ",\n  ";
    }
    for (size_t i = first; i < end; i++) {
        strbuf_puts(json, separator);
        write_message(json, &c->items[i]);
        separator = ",\n  ";
    }
    strbuf_putc(json, ']');
}

ds4_status conversation_write(const conversation *c, strbuf *json, size_t n_rendered, ds4_error *err) {
    strbuf_printf(json, "{\"thinking_mode\": \"%s\"",
                  c->effort == EFFORT_NONE ? "chat" : "thinking");
    if (EFFORT_NAMES[c->effort])
        strbuf_printf(json, ", \"reasoning_effort\": \"%s\"", EFFORT_NAMES[c->effort]);
    if (n_rendered) write_messages(json, c, "context", 0, n_rendered);
    write_messages(json, c, "messages", n_rendered, c->n);
    strbuf_puts(json, "\n}\n");
    return strbuf_check(json, "conversation", err);
}

/* ---- reading ---- */

/* Stores a member that is a string, null or absent. */
static ds4_status read_text(strbuf *out, const json_node *object, const char *name, size_t index,
                            const char *what, ds4_error *err) {
    const json_node *node = json_get(object, name);
    if (!node || node->type == JSON_NULL) return DS4_OK;
    if (node->type != JSON_STRING)
        return ds4_fail(err, DS4_EFORMAT, "%s: message %zu: '%s' is %s, expected a string", what,
                        index, name, json_type_name(node));
    strbuf_view(out, node->text);
    return strbuf_check(out, what, err);
}

static ds4_status read_calls(strbuf *out, const json_node *object, size_t index, const char *what,
                             ds4_error *err) {
    const json_node *calls = json_get(object, "tool_calls");
    if (!calls || calls->type == JSON_NULL) return DS4_OK;
    if (calls->type != JSON_ARRAY)
        return ds4_fail(err, DS4_EFORMAT, "%s: message %zu: 'tool_calls' is %s, expected an array",
                        what, index, json_type_name(calls));
    for (const json_node *call = calls->first; call; call = call->next) {
        if (call != calls->first) strbuf_puts(out, ", ");
        json_write_python(out, call);
    }
    return strbuf_check(out, what, err);
}

static ds4_status read_message(conversation *c, const json_node *node, size_t index, const char *what,
                               ds4_error *err) {
    const json_node *role = json_get(node, "role");
    strview name = role && role->type == JSON_STRING ? role->text : (strview){0};
    if (strview_equal(name, STRVIEW("system")) && index == 0)
        return read_text(&c->system, node, "content", index, what, err);

    bool is_user = strview_equal(name, STRVIEW("user"));
    if (!is_user && !strview_equal(name, STRVIEW("assistant")))
        return ds4_fail(err, DS4_EFORMAT,
                        "%s: message %zu: role '%.*s', expected user or assistant (or system first)",
                        what, index, (int)(name.n < 40 ? name.n : 40), name.n ? name.data : "");
    chat_message *m = conversation_add(c, is_user);
    if (!m) return ds4_fail_nomem(err, what, sizeof *m);
    DS4_TRY(read_text(&m->content, node, "content", index, what, err));
    if (is_user) return DS4_OK;
    DS4_TRY(read_text(&m->reasoning, node, "reasoning_content", index, what, err));
    return read_calls(&m->calls, node, index, what, err);
}

static bool is_text(const json_node *node, const char *text) {
    return node && node->type == JSON_STRING && strview_equal(node->text, (strview){text, strlen(text)});
}

static effort read_effort(const json_node *root) {
    if (!is_text(json_get(root, "thinking_mode"), "thinking")) return EFFORT_NONE;
    const json_node *name = json_get(root, "reasoning_effort");
    for (effort e = EFFORT_LOW; e <= EFFORT_MAX; e++)
        if (is_text(name, EFFORT_NAMES[e])) return e;
    return EFFORT_THINK;
}

static ds4_status read_root(conversation *c, const json_node *root, const char *what, ds4_error *err) {
    const json_node *messages = json_get(root, "messages");
    if (!messages || messages->type != JSON_ARRAY)
        return ds4_fail(err, DS4_EFORMAT, "%s: 'messages' is %s, expected an array", what,
                        json_type_name(messages));
    c->effort = read_effort(root);
    size_t index = 0;
    for (const json_node *node = messages->first; node; node = node->next)
        DS4_TRY(read_message(c, node, index++, what, err));
    return DS4_OK;
}

ds4_status conversation_read(conversation *c, const char *json, size_t n, const char *what,
                             ds4_error *err) {
    json_doc doc = {0};
    DS4_TRY(json_parse(&doc, json, n, what, err));
    conversation fresh = {0};
    ds4_status status = read_root(&fresh, doc.root, what, err);
    json_release(&doc);
    if (status != DS4_OK) {
        conversation_release(&fresh);
        return status;
    }
    conversation_release(c);
    *c = fresh;
    return DS4_OK;
}
