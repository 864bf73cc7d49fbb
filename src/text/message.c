#include "text/message.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static void call_release(message_call *call) {
    strbuf_release(&call->name);
    strbuf_release(&call->arguments);
}

static void open_call(message *m, strview name) {
    if (m->n_calls == m->calls_cap) {
        size_t        cap = m->calls_cap ? 2 * m->calls_cap : 4;
        message_call *calls = realloc(m->calls, cap * sizeof *calls);
        if (!calls) {
            m->is_failed = true;
            return;
        }
        m->calls = calls;
        m->calls_cap = cap;
    }
    m->calls[m->n_calls] = (message_call){0};
    strbuf_view(&m->calls[m->n_calls].name, name);
    m->has_open = true;
}

static bool has_duplicates(const json_node *object) {
    for (const json_node *a = object->first; a; a = a->next)
        for (const json_node *b = a->next; b; b = b->next)
            if (strview_equal(a->key, b->key)) return true;
    return false;
}

/* Arguments with a key twice are printed anew; all others stay as the model wrote them. */
static void settle_duplicates(message_call *call) {
    json_doc doc = {0};
    strbuf *text = &call->arguments;
    ds4_status status = json_parse(&doc, text->data, text->n, "arguments", NULL);
    if (status == DS4_ENOMEM) text->is_failed = true;
    if (status == DS4_OK && doc.root->type == JSON_OBJECT && has_duplicates(doc.root)) {
        strbuf_truncate(text, 0);
        json_write_python(text, doc.root);
    }
    json_release(&doc);
}

static void close_call(message *m, bool is_complete) {
    message_call *call = &m->calls[m->n_calls];
    m->has_open = false;
    if (!is_complete) {
        call_release(call);
        return;
    }
    if (!call->arguments.is_failed) settle_duplicates(call);
    m->n_calls++;
}

void message_add(void *user, ds4_reply_kind kind, const char *text, size_t n) {
    message *m = user;
    switch (kind) {
    case DS4_REPLY_REASONING: strbuf_append(&m->reasoning, text, n); break;
    case DS4_REPLY_CONTENT: strbuf_append(&m->content, text, n); break;
    case DS4_REPLY_CALL: open_call(m, (strview){text, n}); break;
    case DS4_REPLY_ARGUMENTS:
        if (m->has_open) strbuf_append(&m->calls[m->n_calls].arguments, text, n);
        break;
    case DS4_REPLY_CALL_END:
    case DS4_REPLY_CALL_DROPPED:
        if (m->has_open) close_call(m, kind == DS4_REPLY_CALL_END);
        break;
    }
}

static void write_member(strbuf *out, const char *name, const strbuf *text) {
    strbuf_printf(out, "\"%s\": ", name);
    json_write_string(out, (strview){text->data, text->n});
}

static void write_call(strbuf *out, const message_call *call) {
    strbuf_puts(out, "{\"type\": \"function\", \"function\": {");
    write_member(out, "name", &call->name);
    strbuf_puts(out, ", ");
    write_member(out, "arguments", &call->arguments);
    strbuf_puts(out, "}}");
}

void message_write(const message *m, strbuf *out) {
    strbuf_puts(out, "{\"role\": \"assistant\", ");
    write_member(out, "content", &m->content);
    strbuf_puts(out, ", ");
    write_member(out, "reasoning_content", &m->reasoning);
    strbuf_puts(out, ", \"tool_calls\": [");
    for (size_t i = 0; i < m->n_calls; i++) {
        if (i) strbuf_puts(out, ", ");
        write_call(out, &m->calls[i]);
    }
    strbuf_puts(out, "]}");
}

ds4_status message_check(const message *m, ds4_error *err) {
    if (m->is_failed) return ds4_fail_nomem(err, "message", m->calls_cap * sizeof *m->calls);
    DS4_TRY(strbuf_check(&m->content, "message", err));
    DS4_TRY(strbuf_check(&m->reasoning, "message", err));
    for (size_t i = 0; i < m->n_calls + m->has_open; i++) {
        DS4_TRY(strbuf_check(&m->calls[i].name, "message", err));
        DS4_TRY(strbuf_check(&m->calls[i].arguments, "message", err));
    }
    return DS4_OK;
}

void message_release(message *m) {
    for (size_t i = 0; i < m->n_calls + m->has_open; i++) call_release(&m->calls[i]);
    free(m->calls);
    strbuf_release(&m->content);
    strbuf_release(&m->reasoning);
    *m = (message){0};
}
