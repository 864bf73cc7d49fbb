/* toolcall, and call_tag and tool_list below it, as ds4_reply shows them: every row of the table in
 * docs/prompt.md, section 6, what is seen when, and what is left of a block that is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/reply_run.h"

/* ---- the table ---- */

/* Chat mode. `calls` NULL: none, and the content is the whole text. */
typedef struct {
    const char *name, *text;
    struct {
        const char *content, *calls;
    } by[2]; /* TOOLS_UNKNOWN, TOOLS_LISTED; with TOOLS_NONE everything is content */
} row;

#define AS_CONTENT           {NULL, NULL}
#define BOTH(content, calls) {{content, calls}, {content, calls}}

static const row ROWS[] = {
    {"block at the start", BLOCK, BOTH("", ROME_CALL)},
    {"block after content", "ok" BLOCK, BOTH("ok", ROME_CALL)},
    {"block after one newline", "ok\n" BLOCK, BOTH("ok", ROME_CALL)},
    {"block after three newlines", "ok\n\n\n" BLOCK, BOTH("ok\n", ROME_CALL)},
    {"block after space", "ok\n\n " BLOCK, BOTH("ok\n\n ", ROME_CALL)},
    {"two calls", "\n\n" OPEN ROME INVOKE("f") "\n" INVOKED CLOSE, BOTH("", ROME_CALL "f {};")},
    {"undeclared tool, exact", "\n\n" OPEN INVOKE("other") INVOKED CLOSE, BOTH("", "other {};")},
    {"no calls", "ok\n\n" OPEN CLOSE, BOTH("ok", "")},

    {"opening misspelt", "ok\n\n<" D "toolcalls>\n" ROME CLOSE, {AS_CONTENT, {"ok", ROME_CALL}}},
    {"opening missing", "ok\n\n" ROME CLOSE, {AS_CONTENT, {"ok", ROME_CALL}}},
    {"opening and end missing", "ok\n\n" ROME ROME, {AS_CONTENT, {"ok", ROME_CALL ROME_CALL}}},
    {"opening misspelt, no end", "ok\n\n<" D "toolcalls>\n" ROME, {AS_CONTENT, {"ok", ROME_CALL}}},
    {"opening misspelt, undeclared",
     "\n\n<" D "toolcalls>\n" INVOKE("x") INVOKED CLOSE,
     {AS_CONTENT, AS_CONTENT}},
    {"opening missing, undeclared", "\n\n" INVOKE("x") INVOKED CLOSE, {AS_CONTENT, AS_CONTENT}},
    {"opening missing, invoke open",
     "\n\n" INVOKE("f") STRING("a") "b" END,
     {AS_CONTENT, AS_CONTENT}},
    {"opening misspelt, second call open",
     "<" D "toolcalls>\n" ROME INVOKE("f") STRING("a") "b" END,
     {AS_CONTENT, {INVOKE("f") STRING("a") "b" END, ROME_CALL}}},
    {"opening misspelt, no calls", "\n\n<" D "toolcalls>\n" CLOSE, {AS_CONTENT, AS_CONTENT}},

    {"first bar missing", "ok\n\n" SPELT("DSML｜", "tool_calls"), {AS_CONTENT, {"ok", ROME_CALL}}},
    {"ASCII bars", "ok\n\n" SPELT("|DSML|", "tool_calls"), {AS_CONTENT, {"ok", ROME_CALL}}},
    {"no marker", "ok\n\n" SPELT("", "tool_calls"), {AS_CONTENT, {"ok", ROME_CALL}}},
    {"no marker, older name",
     "ok\n\n" SPELT("", "function_calls"),
     {AS_CONTENT, {"ok", ROME_CALL}}},
    {"older name", "ok\n\n" SPELT(D, "function_calls"), {AS_CONTENT, {"ok", ROME_CALL}}},
    {"space after the marker", "ok\n\n" SPELT(D " ", "calls"), {AS_CONTENT, {"ok", ROME_CALL}}},
    {"first bar missing, block open",
     "\n\n<DSML｜tool_calls>\n" ROME "\n",
     {AS_CONTENT, AS_CONTENT}},
    {"older name, block open", "\n\n<" D "function_calls>\n" ROME "\n", {AS_CONTENT, AS_CONTENT}},
    {"older name, undeclared",
     "<" D "function_calls>\n" ROME INVOKE("x") INVOKED CLOSE,
     {AS_CONTENT, AS_CONTENT}},
    {"older name, text inside",
     "<" D "function_calls>\n" ROME "and" CLOSE,
     {AS_CONTENT, AS_CONTENT}},
    {"no marker, no block", "\n\n<invoke name=\"f\">\n</invoke>", {AS_CONTENT, AS_CONTENT}},
    {"no marker, no calls", "<tool_calls></tool_calls>", {AS_CONTENT, AS_CONTENT}},
    {"one tag without its first bar",
     "\n\n" OPEN "<DSML｜invoke name=\"f\">\n" STRING("a") "b" END INVOKED CLOSE,
     {AS_CONTENT, {"", "f {\"a\": \"b\"};"}}},
    {"a tag in a call without its bar",
     "\n\n" OPEN INVOKE("f") "<|DSML|parameter name=\"a\">b</|DSML|"
                             "parameter>" INVOKED CLOSE,
     {AS_CONTENT, {"", "f {\"a\": \"b\"};"}}},
    {"a tag in a call without its bar, block open",
     "\n\n" OPEN INVOKE("f") "<|DSML|parameter name=\"a\">b</|DSML|parameter>" INVOKED,
     {AS_CONTENT, AS_CONTENT}},
    {"the end without its bar", "\n\n" OPEN ROME "</DSML｜tool_calls>", BOTH("", ROME_CALL)},
    {"a value with other closers",
     "\n\n" OPEN INVOKE("f") STRING("a") "</parameter></DSML｜parameter></" D
                                         "parameter</" END INVOKED CLOSE,
     BOTH("", "f {\"a\": \"</parameter></DSML｜parameter></" D "parameter</\"};")},

    {"no newlines",
     "<" D "tool_calls><" D "invoke name=\"f\"><" D "parameter name=\"a\" string=\"true\">b</" D
     "parameter></" D "invoke></" D "tool_calls>",
     BOTH("", "f {\"a\": \"b\"};")},
    {"more space",
     "<" D "tool_calls >\r\n\t <" D "invoke \n name = \"f\" > \n\n<" D
     "parameter   name=\"a\"  string = \"true\" >b</" D "parameter>  </" D "invoke >\n\n\n</" D
     "tool_calls\n>",
     BOTH("", "f {\"a\": \"b\"};")},

    {"no type, no schema", OPEN INVOKE("f") PARAM("a") "1" END INVOKED CLOSE,
     BOTH("", "f {\"a\": \"1\"};")},
    {"no type, schema of strings", OPEN INVOKE("f") PARAM("text") "1" END INVOKED CLOSE,
     BOTH("", "f {\"text\": \"1\"};")},
    {"no type, schema of lists",
     OPEN INVOKE("f") PARAM("list") "[1]" END INVOKED CLOSE,
     {{"", "f {\"list\": \"[1]\"};"}, {"", "f {\"list\": [1]};"}}},
    {"no type, schema of lists, no JSON", OPEN INVOKE("f") PARAM("list") "[1" END INVOKED CLOSE,
     BOTH("", "f {\"list\": \"[1\"};")},
    {"no type, enum of numbers",
     OPEN INVOKE("f") PARAM("level") "2" END INVOKED CLOSE,
     {{"", "f {\"level\": \"2\"};"}, {"", "f {\"level\": 2};"}}},
    {"no type, mixed enum", OPEN INVOKE("f") PARAM("mode") "1" END INVOKED CLOSE,
     BOTH("", "f {\"mode\": \"1\"};")},
    {"no type, const",
     OPEN INVOKE("f") PARAM("zero") "0" END INVOKED CLOSE,
     {{"", "f {\"zero\": \"0\"};"}, {"", "f {\"zero\": 0};"}}},
    {"no type, anyOf", OPEN INVOKE("f") PARAM("any") "1" END INVOKED CLOSE,
     BOTH("", "f {\"any\": \"1\"};")},
    {"no type, oneOf",
     OPEN INVOKE("f") PARAM("one") "1" END INVOKED CLOSE,
     {{"", "f {\"one\": \"1\"};"}, {"", "f {\"one\": 1};"}}},
    {"no type, allOf",
     OPEN INVOKE("f") PARAM("all") "{}" END INVOKED CLOSE,
     {{"", "f {\"all\": \"{}\"};"}, {"", "f {\"all\": {}};"}}},
    {"no type, $ref", OPEN INVOKE("f") PARAM("ref") "1" END INVOKED CLOSE,
     BOTH("", "f {\"ref\": \"1\"};")},

    {"not JSON",
     OPEN INVOKE("f") JSON("a") "{oops" END INVOKED CLOSE,
     {{"", "f {\"a\": {oops};"}, {"", "f {\"a\": \"{oops\"};"}}},
    {"two values",
     OPEN INVOKE("f") JSON("a") "1, 2" END INVOKED CLOSE,
     {{"", "f {\"a\": 1, 2};"}, {"", "f {\"a\": \"1, 2\"};"}}},
    {"brackets that close too much",
     OPEN INVOKE("f") JSON("a") "1],[2" END INVOKED CLOSE,
     {{"", "f {\"a\": 1],[2};"}, {"", "f {\"a\": \"1],[2\"};"}}},
    {"empty value",
     OPEN INVOKE("f") JSON("a") END INVOKED CLOSE,
     {{"", "f {\"a\": };"}, {"", "f {\"a\": \"\"};"}}},
    {"JSON stays as it is", OPEN INVOKE("f") JSON("a") " [1.50 ,2] " END INVOKED CLOSE,
     BOTH("", "f {\"a\":  [1.50 ,2] };")},
    {"key twice",
     OPEN INVOKE("f") JSON("a") "1" END STRING("b") "x" END JSON("a") "2" END INVOKED CLOSE,
     BOTH("", "f {\"a\": 2, \"b\": \"x\"};")},
    {"key with quotes, no type", OPEN INVOKE("f") PARAM("a\"b") "c" END INVOKED CLOSE,
     BOTH("", "f {\"a\\\"b\": \"c\"};")},

    {"text after the block", BLOCK "\nDone." MARKER_EOS, BOTH("", ROME_CALL)},
    {"text instead of the end", OPEN ROME "Done.", BOTH("", ROME_CALL)},
    {"the marker in prose",
     "Write " D " and <" D "x> or <" D "tool_calls> first.",
     {AS_CONTENT, AS_CONTENT}},
    {"tags of other languages",
     "a <b>c</b> <tr> <tool> <invoke> </tool_calls> << 1",
     {AS_CONTENT, AS_CONTENT}},
    {"a quote of the opening, then a block", "As <" D "tool_calls> says.\n\n" BLOCK,
     BOTH("As <" D "tool_calls> says.", ROME_CALL)},
    {"opening twice", "\n\n" OPEN BLOCK, BOTH("\n\n<" D "tool_calls>", ROME_CALL)},
    {"a broken tag, then a block", OPEN INVOKE("f") "<" D "parameter nme=\"\n\n" BLOCK,
     BOTH(OPEN INVOKE("f") "<" D "parameter nme=\"", ROME_CALL)},
    {"an open name, then a block", "<" D "invoke name=\"\n\n" BLOCK,
     BOTH("<" D "invoke name=\"", ROME_CALL)},
    {"the end marker in a value of a broken call",
     OPEN INVOKE("f") STRING("a") "b" MARKER_EOS "c" END "text",
     {AS_CONTENT, AS_CONTENT}},
    {"text in a call", OPEN INVOKE("f") "text" INVOKED CLOSE, {AS_CONTENT, AS_CONTENT}},
    {"first call complete, second broken", OPEN ROME INVOKE("f") "x" INVOKED CLOSE,
     BOTH(INVOKE("f") "x" INVOKED CLOSE, ROME_CALL)},
    {"thinking in content", "a</think>b", {AS_CONTENT, AS_CONTENT}},
    {"trailing newlines", "a\n\n\n", {AS_CONTENT, AS_CONTENT}},
    {"start of a marker at the end", "a\n<" D "tool_cal", {AS_CONTENT, AS_CONTENT}},
    {"the end marker cut",
     "a <\xEF\xBD\x9C"
     "end",
     {AS_CONTENT, AS_CONTENT}},
};

static void check_row(const row *r, int known) {
    strview text = {r->text, strlen(r->text)};
    ds4_reply_options options = reply_options_for(false, known);
    reply_log log = {0};
    strbuf name = {0};
    strbuf_printf(&name, "%s (tools %s)", r->name,
                  known == TOOLS_UNKNOWN ? "unknown"
                  : known                ? "listed"
                                         : "");
    reply_read_whole(&log, &options, text, false);
    bool is_text = known == TOOLS_NONE || !r->by[known].calls;
    const char *eos = strstr(r->text, MARKER_EOS);
    strbuf all = {0};
    strbuf_append(&all, r->text, eos ? (size_t)(eos - r->text) : text.n);
    reply_expect_message(name.data, &log.message, "", is_text ? all.data : r->by[known].content,
                         is_text ? "" : r->by[known].calls);
    reply_check_splits(name.data, &options, text, false);
    strbuf_release(&all);
    strbuf_release(&name);
    reply_log_release(&log);
}

static void test_table(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++)
        for (int known = 0; known < N_TOOLS; known++) check_row(&ROWS[i], known);
}

/* The same rows as reasoning: nothing is a call before the thinking has ended. */
static void test_reasoning(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        ds4_reply_options options = reply_options_for(true, TOOLS_LISTED);
        reply_log log = {0};
        if (strstr(ROWS[i].text, MARKER_THINK_CLOSE) || strstr(ROWS[i].text, MARKER_EOS)) continue;
        reply_read_whole(&log, &options, (strview){ROWS[i].text, strlen(ROWS[i].text)}, false);
        reply_expect_message(ROWS[i].name, &log.message, ROWS[i].text, "", "");
        reply_log_release(&log);
    }
}

/* ---- when events come ---- */

/* Nothing of a doubtful call may be seen before this much of the text has come. */
static void expect_no_call_before(const char *text, const char *last) {
    ds4_reply_options options = reply_options_for(false, TOOLS_LISTED);
    size_t n = (size_t)(strstr(text, last) - text) + strlen(last) - 1;
    reply_log log = {0};
    ds4_reply *reply = reply_start(&log, &options);
    reply_give(reply, text, n);
    assert_int_equal(log.events.n, 0);
    reply_give(reply, text + n, 1);
    reply_expect_message(text, &log.message, "", "", ROME_CALL);
    reply_end(reply, &log, true);
    reply_log_release(&log);
}

static void test_doubtful_calls_wait(void **state) {
    (void)state;
    expect_no_call_before("\n\n<" D "toolcalls>\n" ROME CLOSE, "</" D "invoke>");
    expect_no_call_before("\n\n" ROME CLOSE, "</" D "invoke>");
    expect_no_call_before("\n\n" SPELT("DSML｜", "tool_calls"), "</DSML｜tool_calls>");
    expect_no_call_before("\n\n" SPELT("|DSML|", "tool_calls"), "</|DSML|tool_calls>");
    expect_no_call_before("\n\n" SPELT("", "tool_calls"), "</tool_calls>");
    expect_no_call_before("\n\n" SPELT(D, "function_calls"), "</" D "function_calls>");
    expect_no_call_before("\n\n" OPEN "<DSML｜invoke name=\"get_weather\">" STRING("city") "Rome" END
                              INVOKED CLOSE, CLOSE);
}

static void test_order_of_events(void **state) {
    (void)state;
    reply_expect_events("ok\n\n" OPEN ROME INVOKE("f") INVOKED CLOSE, false,
                        "\x01"
                        "Cok\x01"
                        "Fget_weather\x01"
                        "A{\"city\": \"Rome\"}\x01"
                        "E\x01"
                        "Ff\x01"
                        "A{}\x01"
                        "E");
    /* What was announced and turns out to be none is taken back before its text comes. */
    reply_expect_events("ok\n\n" OPEN INVOKE("f") STRING("a") "b" END "x", false,
                        "\x01"
                        "Cok\x01"
                        "Ff\x01"
                        "A{\"a\": \"b\"\x01"
                        "D\x01"
                        "C\n\n" OPEN INVOKE("f") STRING("a") "b" END "x");
    reply_expect_events("ok\n\n" OPEN INVOKE("f") STRING("a") "b", false,
                        "\x01"
                        "Cok\x01"
                        "Ff\x01"
                        "A{\"a\": \"b\x01"
                        "D\x01"
                        "C\n\n" OPEN INVOKE("f") STRING("a") "b");
    reply_expect_events("ok\n\n" OPEN INVOKE("f") STRING("a") "b", true,
                        "\x01"
                        "Cok\x01"
                        "Ff\x01"
                        "A{\"a\": \"b\x01"
                        "D");
}

/* Streams: what the value is known to be has come out already. */
static void test_strings_stream(void **state) {
    (void)state;
    ds4_reply_options options = reply_options_for(false, TOOLS_LISTED);
    reply_log log = {0};
    ds4_reply *reply = reply_start(&log, &options);
    static const struct {
        const char *text, *argument;
    } steps[] = {
        {OPEN INVOKE("f") STRING("a"), "{\"a\": \""},
        {"x", "x"},
        {"\n", "\\n"},
        {"\xF0\x9F", ""},
        {"\x98\x80", "😀"},
        {"</", ""},
        {"\xEF\xBD", ""},
        {"\x9C"
         "DSM",
         ""},
        {"X", "</｜DSMX"},
        {"</\xEF\xBD", ""},
        {"\x9D", "</\xEF\xBD\x9D"},
        {"<", ""},
        {"<", "<"},
        {"</" D "parameter", "<"},
        {">", "\""},
        {JSON("b") "[1", ", \"b\": "},
        {",2]</" D "parameter", ""},
        {">", "[1,2]"},
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        size_t n_before = log.n_argument_bytes;
        reply_give(reply, steps[i].text, strlen(steps[i].text));
        size_t n = log.n_argument_bytes - n_before;
        strview all = reply_view(&log.events);
        reply_expect_text(steps[i].text, "argument", (strview){all.data + all.n - n, n},
                          steps[i].argument);
    }
    reply_end(reply, &log, true);
    reply_log_release(&log);
}

/* ---- cut by the limit ---- */

static size_t count(strview text, const char *word) {
    size_t n = 0;
    for (size_t at = 0; at + strlen(word) <= text.n; at++)
        n += memcmp(text.data + at, word, strlen(word)) == 0;
    return n;
}

/* Every prefix of a text whose only '<' belong to markup: none of them leaks. */
static void check_prefixes(const char *text, const char *invoke_end, bool is_think) {
    for (int known = TOOLS_UNKNOWN; known <= TOOLS_LISTED; known++) {
        ds4_reply_options options = reply_options_for(is_think, known);
        for (size_t n = 0; n <= strlen(text); n++) {
            reply_log log = {0};
            strview prefix = {text, n};
            reply_read_whole(&log, &options, prefix, true);
            if (strchr(reply_view(&log.message.content).data, '<') ||
                strchr(reply_view(&log.message.reasoning).data, '<'))
                fail_msg("cut at %zu: markup in \"%s\" or \"%s\"", n,
                         reply_view(&log.message.content).data,
                         reply_view(&log.message.reasoning).data);
            if (log.n_ended != count(prefix, invoke_end))
                fail_msg("cut at %zu: %zu calls ended", n, log.n_ended);
            reply_log_release(&log);
        }
    }
}

static void test_cut_by_limit(void **state) {
    (void)state;
    check_prefixes("think</think>Let me look.\n\n" OPEN ROME INVOKE("f")
                       STRING("a") "b é\n" END JSON("n") "[1, 2]" END INVOKED CLOSE MARKER_EOS,
                   "</" D "invoke>", true);
    check_prefixes("\n" OPEN INVOKE("f") "\n" INVOKED CLOSE, "</" D "invoke>", false);

    /* A doubtful block that is cut is no call, and no content either. */
    static const char *const doubtful[] = {
        "\n\n" SPELT("DSML｜", "tool_calls"),
        "\n\n" SPELT("", "tool_calls"),
        "\n\n" SPELT(D, "function_calls"),
    };
    ds4_reply_options options = reply_options_for(false, TOOLS_LISTED);
    for (size_t i = 0; i < sizeof doubtful / sizeof *doubtful; i++)
        for (size_t n = 3; n < strlen(doubtful[i]); n++) {
            reply_log log = {0};
            reply_read_whole(&log, &options, (strview){doubtful[i], n}, true);
            assert_int_equal(log.events.n, 0);
            reply_log_release(&log);
        }

    /* What cannot be markup any more has come out. */
    reply_expect_events("a < b\n\n", true,
                        "\x01"
                        "Ca < b\n\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_reasoning),
        cmocka_unit_test(test_doubtful_calls_wait),
        cmocka_unit_test(test_order_of_events),
        cmocka_unit_test(test_strings_stream),
        cmocka_unit_test(test_cut_by_limit),
    };
    return cmocka_run_group_tests_name("toolcall", tests, NULL, NULL);
}
