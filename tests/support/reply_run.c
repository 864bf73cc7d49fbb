#include "tests/support/reply_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char TOOLS[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", "
    "\"parameters\": {\"type\": \"object\", \"properties\": "
    "{\"city\": {\"type\": \"string\"}, \"days\": {\"type\": \"integer\"}}}}},"
    " {\"type\": \"web_search\"},"
    " {\"name\": \"f\", \"parameters\": {\"properties\": {"
    "\"text\": {\"type\": [\"string\", \"null\"]}, \"list\": {\"type\": [\"array\", \"null\"]},"
    "\"level\": {\"enum\": [1, 2]}, \"mode\": {\"enum\": [1, \"x\"]}, \"zero\": {\"const\": 0},"
    "\"any\": {\"anyOf\": [{\"type\": \"number\"}, {\"type\": \"string\"}]},"
    "\"one\": {\"oneOf\": [{\"type\": \"number\"}, {\"type\": \"boolean\"}]},"
    "\"all\": {\"allOf\": [{}, {\"type\": \"object\"}]}, \"ref\": {\"$ref\": \"#/x\"}}}}]";

ds4_reply_options reply_options_for(bool is_thinking, int tools) {
    ds4_reply_options options = {.is_thinking = is_thinking};
    if (tools == TOOLS_LISTED) options.tools = TOOLS, options.n_tools = sizeof TOOLS - 1;
    if (tools == TOOLS_NONE) options.tools = "[]", options.n_tools = 2;
    return options;
}

ds4_reply *reply_start(reply_log *log, const ds4_reply_options *options) {
    ds4_reply *reply = NULL;
    ds4_error err = {0};
    if (ds4_reply_create(&reply, options, reply_log_add, log, &err) != DS4_OK)
        fail_msg("%s", err.message);
    return reply;
}

void reply_give(ds4_reply *reply, const char *text, size_t n) {
    /* An exact copy, so that a sanitizer sees the first byte behind the end. */
    char *copy = malloc(n ? n : 1);
    memcpy(copy, text, n);
    assert_int_equal(ds4_reply_feed(reply, copy, n, NULL), DS4_OK);
    free(copy);
}

void reply_end(ds4_reply *reply, const reply_log *log, bool is_cut) {
    assert_int_equal(ds4_reply_finish(reply, is_cut, NULL), DS4_OK);
    ds4_reply_destroy(reply);
    if (log->message.has_open) fail_msg("a call is open at the end");
    if (log->violation) fail_msg("does not hold: %s", log->violation);
}

void reply_read_pieces(reply_log *log, const ds4_reply_options *options, strview text,
                       size_t n_first, size_t n_piece, bool is_cut) {
    ds4_reply *reply = reply_start(log, options);
    reply_give(reply, text.data, n_first);
    for (size_t at = n_first; at < text.n; at += n_piece)
        reply_give(reply, text.data + at, n_piece < text.n - at ? n_piece : text.n - at);
    reply_end(reply, log, is_cut);
}

void reply_read_whole(reply_log *log, const ds4_reply_options *options, strview text, bool is_cut) {
    reply_read_pieces(log, options, text, text.n, 1, is_cut);
}

static void show_difference(const char *name, const reply_log *found, const reply_log *expected,
                            const char *how, size_t at) {
    fail_msg("%s, %s %zu: found\n%s\nexpected\n%s", name, how, at, found->events.data,
             expected->events.data);
}

void reply_check_splits(const char *name, const ds4_reply_options *options, strview text,
                        bool is_cut) {
    reply_log whole = {0};
    reply_read_whole(&whole, options, text, is_cut);
    for (size_t cut = 0; cut < text.n; cut++) {
        reply_log two = {0};
        reply_read_pieces(&two, options, text, cut, text.n, is_cut);
        if (!reply_log_equal(&two, &whole)) show_difference(name, &two, &whole, "cut at", cut);
        reply_log_release(&two);
    }
    for (size_t n_piece = 1; n_piece <= 3; n_piece++) {
        reply_log bytes = {0};
        reply_read_pieces(&bytes, options, text, 0, n_piece, is_cut);
        if (!reply_log_equal(&bytes, &whole))
            show_difference(name, &bytes, &whole, "pieces of", n_piece);
        reply_log_release(&bytes);
    }
    reply_log_release(&whole);
}

strview reply_view(const strbuf *b) {
    return (strview){b->data ? b->data : "", b->n};
}

void reply_expect_text(const char *name, const char *what, strview found, const char *expected) {
    if (!strview_equal(found, (strview){expected, strlen(expected)}))
        fail_msg("%s: %s: found \"%.*s\", expected \"%s\"", name, what, (int)found.n, found.data,
                 expected);
}

void reply_expect_message(const char *name, const message *m, const char *reasoning,
                          const char *content, const char *calls) {
    strbuf text = {0};
    for (size_t i = 0; i < m->n_calls; i++)
        strbuf_printf(&text, "%s %s;", m->calls[i].name.data, m->calls[i].arguments.data);
    reply_expect_text(name, "reasoning", reply_view(&m->reasoning), reasoning);
    reply_expect_text(name, "content", reply_view(&m->content), content);
    reply_expect_text(name, "calls", reply_view(&text), calls);
    strbuf_release(&text);
}

void reply_expect_events(const char *text, bool is_cut, const char *expected) {
    for (int known = TOOLS_UNKNOWN; known <= TOOLS_LISTED; known++) {
        ds4_reply_options options = reply_options_for(false, known);
        reply_log log = {0};
        reply_read_whole(&log, &options, (strview){text, strlen(text)}, is_cut);
        reply_expect_text(text, "events", reply_view(&log.events), expected);
        reply_check_splits(text, &options, (strview){text, strlen(text)}, is_cut);
        reply_log_release(&log);
    }
}
