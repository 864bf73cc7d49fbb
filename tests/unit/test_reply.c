/* ds4_reply and message: all outputs of fixtures/encoding/parse, each cut at every byte, bytes that
 * are not UTF-8, long texts, allocations that fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>

#include "base/json.h"
#include "tests/support/reply_run.h"

#define FIXTURES "tests/data/encoding/parse"

/* ---- allocations that fail: malloc and its kin go through here (see the Makefile) ---- */

static long n_until_failure; /* 0: never */
static long n_allocations;

static bool is_refused(void) {
    n_allocations++;
    return n_until_failure > 0 && --n_until_failure == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n) {
    return is_refused() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size) {
    return is_refused() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n) {
    return is_refused() ? NULL : __real_realloc(p, n);
}

/* ---- the fixtures ---- */

/* What becomes of the outputs that the reference refuses, tools unknown. NULL: reasoning "t". */
static const struct {
    const char *name, *reasoning, *content, *calls;
} REFUSED[] = {
    {"bare_invoke", NULL, "\n\n" ROME CLOSE, ""},
    {"begin_marker_in_content", NULL, "a" MARKER_BOS "b", ""},
    {"call_after_one_newline", NULL, "ok", ROME_CALL},
    {"call_directly_after_think", NULL, "", ROME_CALL},
    {"call_without_blank_line", NULL, "ok", ROME_CALL},
    {"dsml_quoted_in_content", NULL, "The tag is <" D "tool_calls> as such.", ""},
    {"duplicate_parameter", NULL, "", "f {\"a\": \"y\"};"},
    {"missing_end_marker_chat", "", "answer", ""},
    {"missing_end_marker_plain", NULL, "answer", ""},
    {"missing_name_attribute", NULL, "\n\n" OPEN "<" D "invoke>\n" INVOKED CLOSE, ""},
    {"missing_newline_after_invoke_name", NULL, "", "f {\"a\": \"x\"};"},
    {"missing_newline_after_opening", NULL, "", "f {};"},
    {"missing_newline_between_parameters", NULL, "", "f {\"a\": \"x\", \"b\": \"y\"};"},
    {"missing_string_attribute", NULL, "", "f {\"a\": \"x\"};"},
    {"missing_think_end", "still thinking", "", ""},
    {"missing_think_end_with_call", "still thinking\n\n" BLOCK, "", ""},
    {"misspelt_opener", NULL, "\n\n<" D "toolcalls>\n" ROME CLOSE, ""},
    {"nested_parameters", NULL,
     "\n\n" OPEN INVOKE("f") PARAM("o") "\n" STRING("k") "v" END END INVOKED CLOSE, ""},
    {"second_think_block", NULL, "a<think>b</think>c", ""},
    {"space_inside_tags", NULL,
     "\n\n<" D " calls>\n<" D " invoke name=\"get_weather\">\n<" D " parameter name=\"city\" "
     "string=\"true\">Rome</" D " parameter>\n</" D " invoke>\n</" D " calls>",
     ""},
    {"string_attribute_other_value", NULL, "", "f {\"a\": \"x\"};"},
    {"text_after_call_block", NULL, "", ROME_CALL},
    {"text_after_end_marker", NULL, "a", ""},
    {"think_start_in_reasoning", NULL, "a", ""},
    {"two_blocks", NULL, "", ROME_CALL},
    {"unterminated_block", NULL, "", ROME_CALL},
    {"unterminated_invoke", NULL, "\n\n" OPEN INVOKE("f") STRING("a") "x" END, ""},
    {"unterminated_parameter", NULL, "\n\n" OPEN INVOKE("f") STRING("a") "x", ""},
    {"wrong_block_name", NULL, "\n\n" SPELT(D, "function_calls"), ""},
};

enum { N_REFUSED = sizeof REFUSED / sizeof *REFUSED };

static void expect_result(const char *name, const message *m, const json_node *result) {
    strbuf found = {0}, expected = {0};
    message_write(m, &found);
    json_write_python(&expected, result);
    reply_expect_text(name, "message", reply_view(&found), expected.data);
    strbuf_release(&found);
    strbuf_release(&expected);
}

static void expect_refused(const char *name, const message *m) {
    for (size_t i = 0; i < N_REFUSED; i++) {
        if (strcmp(REFUSED[i].name, name) != 0) continue;
        reply_expect_message(name, m, REFUSED[i].reasoning ? REFUSED[i].reasoning : "t",
                             REFUSED[i].content, REFUSED[i].calls);
        return;
    }
    fail_msg("%s: not in the table of refused outputs", name);
}

static void read_file(strbuf *out, const char *path) {
    char block[4096];
    size_t n;
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("cannot open %s", path);
    while ((n = fread(block, 1, sizeof block, f)) > 0) strbuf_append(out, block, n);
    fclose(f);
}

/* Calls fn with every fixture; returns how many there are. */
static size_t each_fixture(void (*fn)(const char *name, const json_node *root)) {
    size_t n = 0;
    DIR *dir = opendir(FIXTURES);
    if (!dir) fail_msg("cannot open " FIXTURES);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char *end = strstr(entry->d_name, ".json"), path[512];
        strbuf input = {0};
        json_doc doc = {0};
        ds4_error err = {0};
        if (!end) continue;
        snprintf(path, sizeof path, FIXTURES "/%s", entry->d_name);
        read_file(&input, path);
        if (json_parse(&doc, input.data, input.n, path, &err) != DS4_OK)
            fail_msg("%s", err.message);
        *end = 0;
        fn(entry->d_name, doc.root);
        json_release(&doc);
        strbuf_release(&input);
        n++;
    }
    closedir(dir);
    return n;
}

static bool is_thinking(const json_node *root) {
    return strview_equal(json_get(root, "thinking_mode")->text, STRVIEW("thinking"));
}

static void check_fixture(const char *name, const json_node *root) {
    ds4_reply_options options = reply_options_for(is_thinking(root), TOOLS_UNKNOWN);
    reply_log log = {0};
    reply_read_whole(&log, &options, json_get(root, "text")->text, false);
    const json_node *result = json_get(root, "result");
    if (result)
        expect_result(name, &log.message, result);
    else
        expect_refused(name, &log.message);
    reply_log_release(&log);
}

static void split_fixture(const char *name, const json_node *root) {
    strview text = json_get(root, "text")->text;
    for (int known = 0; known < N_TOOLS; known++) {
        ds4_reply_options options = reply_options_for(is_thinking(root), known);
        reply_check_splits(name, &options, text, false);
    }
}

static void test_fixtures(void **state) {
    (void)state;
    assert_int_equal(each_fixture(check_fixture), 62);
}

static void test_fixture_splits(void **state) {
    (void)state;
    assert_int_equal(each_fixture(split_fixture), 62);
}

/* ---- thinking ---- */

static void test_thinking(void **state) {
    (void)state;
    static const struct {
        const char *text, *reasoning, *content;
    } cases[] = {
        {"<think>a</think>b", "a", "b"}, /* as the prompt has it already */
        {"<think><think>a</think>b", "<think>a", "b"},
        {"a<think>b</think>c", "a<think>b", "c"},
        {"a < b </thin", "a < b </thin", ""},
        {"<thin", "<thin", ""},
        {"a" MARKER_EOS "b", "a", ""},
        {"</think>\n\n" MARKER_EOS "b", "", "\n\n"},
    };
    for (int tools = 0; tools < N_TOOLS; tools++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            ds4_reply_options options = reply_options_for(true, tools);
            strview text = {cases[i].text, strlen(cases[i].text)};
            reply_log log = {0};
            reply_read_whole(&log, &options, text, false);
            reply_expect_message(cases[i].text, &log.message, cases[i].reasoning, cases[i].content,
                                 "");
            reply_check_splits(cases[i].text, &options, text, false);
            reply_log_release(&log);
        }
}

/* ---- bytes, sizes, memory ---- */

static void test_invalid_utf8(void **state) {
    (void)state;
    static const struct {
        const char *text, *events;
    } cases[] = {
        {"a\xFF"
         "b",
         "\x01"
         "Ca\xEF\xBF\xBD"
         "b"},
        {"a\xE2\x82", "\x01"
                      "Ca\xEF\xBF\xBD"},
        {"\xF0\x9F<"
         "b\xC3",
         "\x01"
         "C\xEF\xBF\xBD<b\xEF\xBF\xBD"},
        {OPEN INVOKE("\xFF") STRING("k\x80") "\xE2\x82</" D "parameter>" INVOKED CLOSE,
         "\x01"
         "F\xEF\xBF\xBD\x01"
         "A{\"k\xEF\xBF\xBD\": \"\xEF\xBF\xBD\"}\x01"
         "E"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        reply_expect_events(cases[i].text, false, cases[i].events);

    /* A limit may cut a character: that is no mistake of the text. */
    reply_expect_events("a\xE2\x82", true,
                        "\x01"
                        "Ca");

    /* U+0000 is a character as others. */
    static const char zero[] = "a\0<\0b";
    ds4_reply_options options = reply_options_for(false, TOOLS_UNKNOWN);
    reply_log log = {0};
    reply_read_whole(&log, &options, (strview){zero, sizeof zero - 1}, false);
    assert_int_equal(log.message.content.n, sizeof zero - 1);
    assert_memory_equal(log.message.content.data, zero, sizeof zero - 1);
    reply_log_release(&log);
}

enum { MEGABYTE = 1 << 20, HOLD_MAX = 64 };

/* A long string comes out as it comes in; allocations show that no buffer is filled over and over.
 */
static void test_long_string(void **state) {
    (void)state;
    static const char before[] = OPEN INVOKE("f") STRING("a"), after[] = END INVOKED CLOSE;
    ds4_reply_options options = reply_options_for(false, TOOLS_LISTED);
    reply_log log = {0};
    ds4_reply *reply = reply_start(&log, &options);
    reply_give(reply, before, sizeof before - 1);
    long n_before = n_allocations;
    for (size_t i = 0; i < MEGABYTE; i++) {
        static const char text[] = "</｜DSML｜parameter, or a < b";
        assert_int_equal(ds4_reply_feed(reply, text + i % (sizeof text - 1), 1, NULL), DS4_OK);
        assert_true(log.n_argument_bytes + HOLD_MAX > i);
    }
    assert_true(n_allocations - n_before < 100);
    reply_give(reply, after, sizeof after - 1);
    reply_end(reply, &log, false);
    assert_int_equal(log.n_ended, 1);
    reply_log_release(&log);
}

/* Texts that break over and over, and one that breaks at its very end: all is read at most twice.
 */
static void test_long_broken(void **state) {
    (void)state;
    static const char *const pieces[] = {
        "<",
        "\n",
        "<tool_calls>",
        OPEN,
        OPEN INVOKE("f"),
        INVOKE("f") STRING("a") "<" D "tool_calls>",
        "<" D "invoke name=\"",
        "<tool_calls><invoke name=\"f\"><parameter name=\"a\">",
        "<" D "function_calls>" INVOKE("f") INVOKED,
        ("<\xEF\xBD\x9C"
         "end"),
    };
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        ds4_reply_options options = reply_options_for(false, TOOLS_LISTED);
        reply_log log = {0};
        strbuf text = {0};
        while (text.n < MEGABYTE) strbuf_puts(&text, pieces[i]);
        reply_read_pieces(&log, &options, reply_view(&text), 0, 1000, false);
        assert_int_equal(log.n_ended, 0);
        if (!strview_equal(reply_view(&log.message.content), reply_view(&text)))
            fail_msg("%s...: found %zu bytes, expected the text, %zu bytes", pieces[i],
                     log.message.content.n, text.n);
        strbuf_release(&text);
        reply_log_release(&log);
    }
}

/* JSON as deep as it may be on its own is too deep inside the arguments. */
static void test_deep_value(void **state) {
    (void)state;
    ds4_reply_options options = reply_options_for(false, TOOLS_LISTED);
    for (size_t depth = JSON_MAX_DEPTH - 2; depth <= JSON_MAX_DEPTH; depth++) {
        strbuf text = {0};
        reply_log log = {0};
        json_doc doc = {0};
        strbuf_puts(&text, OPEN INVOKE("f") JSON("a"));
        for (size_t i = 0; i < depth; i++) strbuf_putc(&text, '[');
        for (size_t i = 0; i < depth; i++) strbuf_putc(&text, ']');
        strbuf_puts(&text, END INVOKED CLOSE);
        reply_read_whole(&log, &options, reply_view(&text), false);
        assert_int_equal(log.message.n_calls, 1);
        strview arguments = reply_view(&log.message.calls[0].arguments);
        assert_int_equal(json_parse(&doc, arguments.data, arguments.n, "arguments", NULL), DS4_OK);
        assert_int_equal(json_get(doc.root, "a")->type,
                         depth < JSON_MAX_DEPTH ? JSON_ARRAY : JSON_STRING);
        json_release(&doc);
        strbuf_release(&text);
        reply_log_release(&log);
    }
}

/* One run with the n-th allocation refused; true if there were fewer. Whatever was said is a prefix
 * of what would have been said. */
static bool run_refused(long n, const reply_log *whole, const ds4_reply_options *options,
                        strview text) {
    reply_log log = {0};
    ds4_reply *reply = NULL;
    /* The log's own memory is there before. */
    strbuf_reserve(&log.events, 4096);
    n_until_failure = n;
    ds4_error err = {0};
    ds4_status status = ds4_reply_create(&reply, options, reply_log_add, &log, &err);
    for (size_t at = 0; status == DS4_OK && at < text.n; at += 7)
        status = ds4_reply_feed(reply, text.data + at, text.n - at < 7 ? text.n - at : 7, &err);
    if (status == DS4_OK) status = ds4_reply_finish(reply, false, &err);
    bool is_complete = n_until_failure > 0;
    n_until_failure = 0;
    if (status != DS4_OK) {
        assert_int_equal(status, DS4_ENOMEM);
        assert_true(err.message[0] != 0);
        assert_true(strview_starts(reply_view(&whole->events), reply_view(&log.events)));
        if (reply) assert_int_not_equal(ds4_reply_feed(reply, "x", 1, NULL), DS4_OK);
    } else if (!log.message.is_failed) {
        assert_true(reply_log_equal(&log, whole));
        ds4_status check = message_check(&log.message, NULL);
        assert_true(check == DS4_OK || check == DS4_ENOMEM);
        assert_true(!is_complete || check == DS4_OK);
    }
    ds4_reply_destroy(reply);
    reply_log_release(&log);
    return is_complete;
}

static void test_allocations_fail(void **state) {
    (void)state;
    static const char text[] = "t</think>ok\n\n<" D "toolcalls>" ROME INVOKE("f")
        PARAM("list") "[1]" END JSON("a") "{oops" END JSON("a") "1" END INVOKED INVOKE("f")
            STRING("a") "b" END "broken";
    for (int known = 0; known < N_TOOLS; known++) {
        ds4_reply_options options = reply_options_for(true, known);
        reply_log whole = {0};
        long n = 1;
        reply_read_whole(&whole, &options, (strview){text, sizeof text - 1}, false);
        while (!run_refused(n, &whole, &options, (strview){text, sizeof text - 1})) n++;
        assert_in_range(n, 5, 500);
        reply_log_release(&whole);
    }
}

/* ---- the contract ---- */

static void test_contract(void **state) {
    (void)state;
    static const struct {
        const char *tools, *message;
    } cases[] = {
        {"", "tools: JSON"},
        {"{}", "tools: found object, expected an array"},
        {"[1,]", "tools: JSON"},
        {"null", "tools: found null"},
    };
    reply_log log = {0};
    ds4_reply *reply = NULL;
    ds4_error err = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ds4_reply_options options = {.tools = cases[i].tools, .n_tools = strlen(cases[i].tools)};
        assert_int_equal(ds4_reply_create(&reply, &options, reply_log_add, &log, &err), DS4_EINVAL);
        assert_int_equal(err.code, DS4_EINVAL);
        if (!strstr(err.message, cases[i].message))
            fail_msg("found \"%s\", expected \"%s\"", err.message, cases[i].message);
        assert_null(reply);
    }
    ds4_reply_options options = {0};
    assert_int_equal(ds4_reply_create(&reply, &options, NULL, NULL, &err), DS4_EINVAL);

    reply = reply_start(&log, &options);
    assert_int_equal(ds4_reply_feed(reply, NULL, 0, NULL), DS4_OK);
    assert_int_equal(ds4_reply_feed(reply, NULL, 1, NULL), DS4_EINVAL);
    reply_give(reply, "a" MARKER_EOS "b", strlen("a" MARKER_EOS "b"));
    reply_give(reply, "c", 1);
    assert_int_equal(ds4_reply_finish(reply, false, NULL), DS4_OK);
    assert_int_equal(ds4_reply_finish(reply, true, NULL), DS4_OK);
    assert_int_equal(ds4_reply_feed(reply, "d", 1, &err), DS4_EINVAL);
    ds4_reply_destroy(reply);
    ds4_reply_destroy(NULL);
    reply_expect_text("contract", "events", reply_view(&log.events),
                      "\x01"
                      "Ca");
    reply_log_release(&log);
}

/* A message in the middle: an open call does not count. */
static void test_message(void **state) {
    (void)state;
    message m = {0};
    strbuf out = {0};
    message_write(&m, &out);
    reply_expect_text("empty", "message", reply_view(&out),
                      "{\"role\": \"assistant\", \"content\": \"\", \"reasoning_content\": \"\", "
                      "\"tool_calls\": []}");
    for (int i = 0; i < 9; i++) {
        message_add(&m, DS4_REPLY_CALL, "f", 1);
        message_add(&m, DS4_REPLY_ARGUMENTS, "{}", 2);
        message_add(&m, i % 2 ? DS4_REPLY_CALL_DROPPED : DS4_REPLY_CALL_END, "", 0);
    }
    assert_int_equal(m.n_calls, 5);
    message_add(&m, DS4_REPLY_CALL, "g", 1);
    assert_int_equal(m.n_calls, 5);
    assert_int_equal(message_check(&m, NULL), DS4_OK);
    message_release(&m);
    strbuf_release(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixtures),    cmocka_unit_test(test_fixture_splits),
        cmocka_unit_test(test_thinking),    cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_long_string), cmocka_unit_test(test_long_broken),
        cmocka_unit_test(test_deep_value),  cmocka_unit_test(test_allocations_fail),
        cmocka_unit_test(test_contract),    cmocka_unit_test(test_message),
    };
    return cmocka_run_group_tests_name("reply", tests, NULL, NULL);
}
