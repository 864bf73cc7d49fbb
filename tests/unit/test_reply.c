/* ds4_reply, with toolcall, call_tag and message below it: all outputs of fixtures/encoding/parse, every
 * row of the table in docs/prompt.md, section 6, and both cut at every byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>

#include "base/json.h"
#include "tests/support/reply_log.h"
#include "text/markers.h"

#define FIXTURES "tests/data/encoding/parse"

#define D              MARKER_DSML
#define OPEN           "<" D "tool_calls>\n"
#define CLOSE          "</" D "tool_calls>"
#define INVOKE(name)   "<" D "invoke name=\"" name "\">\n"
#define INVOKED        "</" D "invoke>\n"
#define PARAM(key)     "<" D "parameter name=\"" key "\">"
#define STRING(key)    "<" D "parameter name=\"" key "\" string=\"true\">"
#define JSON(key)      "<" D "parameter name=\"" key "\" string=\"false\">"
#define END            "</" D "parameter>\n"
#define ROME           INVOKE("get_weather") STRING("city") "Rome" END INVOKED
#define ROME_CALL      "get_weather {\"city\": \"Rome\"};"
#define BLOCK          OPEN ROME CLOSE

/* The same block in other spellings: of the opening, the marker, the end. */
#define SPELT(m, block)                                                                            \
    "<" m block ">\n<" m "invoke name=\"get_weather\">\n<" m "parameter name=\"city\" string=\"true\">Rome</" \
    m "parameter>\n</" m "invoke>\n</" m block ">"

static const char TOOLS[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"parameters\": {\"type\": "
    "\"object\", \"properties\": {\"city\": {\"type\": \"string\"}, \"days\": {\"type\": \"integer\"}}}}},"
    " {\"type\": \"web_search\"},"
    " {\"name\": \"f\", \"parameters\": {\"properties\": {"
    "\"text\": {\"type\": [\"string\", \"null\"]}, \"list\": {\"type\": [\"array\", \"null\"]},"
    "\"level\": {\"enum\": [1, 2]}, \"mode\": {\"enum\": [1, \"x\"]}, \"zero\": {\"const\": 0},"
    "\"any\": {\"anyOf\": [{\"type\": \"number\"}, {\"type\": \"string\"}]},"
    "\"one\": {\"oneOf\": [{\"type\": \"number\"}, {\"type\": \"boolean\"}]},"
    "\"all\": {\"allOf\": [{}, {\"type\": \"object\"}]}, \"ref\": {\"$ref\": \"#/x\"}}}}]";

/* What is known of the tools. */
enum { UNKNOWN, LISTED, NONE, N_KNOWN };

static ds4_reply_options options_for(bool is_thinking, int known) {
    ds4_reply_options options = {.is_thinking = is_thinking};
    if (known == LISTED) options.tools = TOOLS, options.n_tools = sizeof TOOLS - 1;
    if (known == NONE) options.tools = "[]", options.n_tools = 2;
    return options;
}

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

/* ---- running a text ---- */

static ds4_reply *create(reply_log *log, const ds4_reply_options *options) {
    ds4_reply *reply = NULL;
    ds4_error  err = {0};
    if (ds4_reply_create(&reply, options, reply_log_add, log, &err) != DS4_OK)
        fail_msg("%s", err.message);
    return reply;
}

static void feed(ds4_reply *reply, const char *text, size_t n) {
    /* An exact copy, so that a sanitizer sees the first byte behind the end. */
    char *copy = malloc(n ? n : 1);
    memcpy(copy, text, n);
    assert_int_equal(ds4_reply_feed(reply, copy, n, NULL), DS4_OK);
    free(copy);
}

static void finish(ds4_reply *reply, const reply_log *log, bool is_cut) {
    assert_int_equal(ds4_reply_finish(reply, is_cut, NULL), DS4_OK);
    ds4_reply_destroy(reply);
    if (log->message.has_open) fail_msg("a call is open at the end");
    if (log->violation) fail_msg("does not hold: %s", log->violation);
}

/* Pieces of n_piece bytes, the first one of n_first. */
static void read_pieces(reply_log *log, const ds4_reply_options *options, strview text, size_t n_first,
                        size_t n_piece, bool is_cut) {
    ds4_reply *reply = create(log, options);
    feed(reply, text.data, n_first);
    for (size_t at = n_first; at < text.n; at += n_piece)
        feed(reply, text.data + at, n_piece < text.n - at ? n_piece : text.n - at);
    finish(reply, log, is_cut);
}

static void read_whole(reply_log *log, const ds4_reply_options *options, strview text, bool is_cut) {
    read_pieces(log, options, text, text.n, 1, is_cut);
}

static void show_difference(const char *name, const reply_log *found, const reply_log *expected,
                            const char *how, size_t at) {
    fail_msg("%s, %s %zu: found\n%s\nexpected\n%s", name, how, at, found->events.data,
             expected->events.data);
}

/* Cuts anywhere give the same events as none. */
static void check_splits(const char *name, const ds4_reply_options *options, strview text, bool is_cut) {
    reply_log whole = {0};
    read_whole(&whole, options, text, is_cut);
    for (size_t cut = 0; cut < text.n; cut++) {
        reply_log two = {0};
        read_pieces(&two, options, text, cut, text.n, is_cut);
        if (!reply_log_equal(&two, &whole)) show_difference(name, &two, &whole, "cut at", cut);
        reply_log_release(&two);
    }
    for (size_t n_piece = 1; n_piece <= 3; n_piece++) {
        reply_log bytes = {0};
        read_pieces(&bytes, options, text, 0, n_piece, is_cut);
        if (!reply_log_equal(&bytes, &whole)) show_difference(name, &bytes, &whole, "pieces of", n_piece);
        reply_log_release(&bytes);
    }
    reply_log_release(&whole);
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
     "string=\"true\">Rome</" D " parameter>\n</" D " invoke>\n</" D " calls>", ""},
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

static strview view(const strbuf *b) {
    return (strview){b->data ? b->data : "", b->n};
}

static void expect_text(const char *name, const char *what, strview found, const char *expected) {
    if (!strview_equal(found, (strview){expected, strlen(expected)}))
        fail_msg("%s: %s: found \"%.*s\", expected \"%s\"", name, what, (int)found.n, found.data,
                 expected);
}

/* Calls as "name arguments;" one after the other. */
static void expect_message(const char *name, const message *m, const char *reasoning,
                           const char *content, const char *calls) {
    strbuf text = {0};
    for (size_t i = 0; i < m->n_calls; i++)
        strbuf_printf(&text, "%s %s;", m->calls[i].name.data, m->calls[i].arguments.data);
    expect_text(name, "reasoning", view(&m->reasoning), reasoning);
    expect_text(name, "content", view(&m->content), content);
    expect_text(name, "calls", view(&text), calls);
    strbuf_release(&text);
}

static void expect_result(const char *name, const message *m, const json_node *result) {
    strbuf found = {0}, expected = {0};
    message_write(m, &found);
    json_write_python(&expected, result);
    expect_text(name, "message", view(&found), expected.data);
    strbuf_release(&found);
    strbuf_release(&expected);
}

static void expect_refused(const char *name, const message *m) {
    for (size_t i = 0; i < N_REFUSED; i++) {
        if (strcmp(REFUSED[i].name, name) != 0) continue;
        expect_message(name, m, REFUSED[i].reasoning ? REFUSED[i].reasoning : "t", REFUSED[i].content,
                       REFUSED[i].calls);
        return;
    }
    fail_msg("%s: not in the table of refused outputs", name);
}

static void read_file(strbuf *out, const char *path) {
    char   block[4096];
    size_t n;
    FILE  *f = fopen(path, "rb");
    if (!f) fail_msg("cannot open %s", path);
    while ((n = fread(block, 1, sizeof block, f)) > 0) strbuf_append(out, block, n);
    fclose(f);
}

/* Calls fn with every fixture; returns how many there are. */
static size_t each_fixture(void (*fn)(const char *name, const json_node *root)) {
    size_t n = 0;
    DIR   *dir = opendir(FIXTURES);
    if (!dir) fail_msg("cannot open " FIXTURES);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char      *end = strstr(entry->d_name, ".json"), path[512];
        strbuf     input = {0};
        json_doc   doc = {0};
        ds4_error  err = {0};
        if (!end) continue;
        snprintf(path, sizeof path, FIXTURES "/%s", entry->d_name);
        read_file(&input, path);
        if (json_parse(&doc, input.data, input.n, path, &err) != DS4_OK) fail_msg("%s", err.message);
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
    ds4_reply_options options = options_for(is_thinking(root), UNKNOWN);
    reply_log         log = {0};
    read_whole(&log, &options, json_get(root, "text")->text, false);
    const json_node *result = json_get(root, "result");
    if (result) expect_result(name, &log.message, result);
    else expect_refused(name, &log.message);
    reply_log_release(&log);
}

static void split_fixture(const char *name, const json_node *root) {
    strview text = json_get(root, "text")->text;
    for (int known = 0; known < N_KNOWN; known++) {
        ds4_reply_options options = options_for(is_thinking(root), known);
        check_splits(name, &options, text, false);
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

/* ---- the table ---- */

/* Chat mode. `calls` NULL: none, and the content is the whole text. */
typedef struct {
    const char *name, *text;
    struct {
        const char *content, *calls;
    } by[2]; /* UNKNOWN, LISTED; with NONE everything is content */
} row;

#define AS_CONTENT       {NULL, NULL}
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
    {"opening misspelt, undeclared", "\n\n<" D "toolcalls>\n" INVOKE("x") INVOKED CLOSE,
     {AS_CONTENT, AS_CONTENT}},
    {"opening missing, undeclared", "\n\n" INVOKE("x") INVOKED CLOSE, {AS_CONTENT, AS_CONTENT}},
    {"opening missing, invoke open", "\n\n" INVOKE("f") STRING("a") "b" END, {AS_CONTENT, AS_CONTENT}},
    {"opening misspelt, second call open", "<" D "toolcalls>\n" ROME INVOKE("f") STRING("a") "b" END,
     {AS_CONTENT, {INVOKE("f") STRING("a") "b" END, ROME_CALL}}},
    {"opening misspelt, no calls", "\n\n<" D "toolcalls>\n" CLOSE, {AS_CONTENT, AS_CONTENT}},

    {"first bar missing", "ok\n\n" SPELT("DSML｜", "tool_calls"), {AS_CONTENT, {"ok", ROME_CALL}}},
    {"ASCII bars", "ok\n\n" SPELT("|DSML|", "tool_calls"), {AS_CONTENT, {"ok", ROME_CALL}}},
    {"no marker", "ok\n\n" SPELT("", "tool_calls"), {AS_CONTENT, {"ok", ROME_CALL}}},
    {"no marker, older name", "ok\n\n" SPELT("", "function_calls"), {AS_CONTENT, {"ok", ROME_CALL}}},
    {"older name", "ok\n\n" SPELT(D, "function_calls"), {AS_CONTENT, {"ok", ROME_CALL}}},
    {"space after the marker", "ok\n\n" SPELT(D " ", "calls"), {AS_CONTENT, {"ok", ROME_CALL}}},
    {"first bar missing, block open", "\n\n<DSML｜tool_calls>\n" ROME "\n", {AS_CONTENT, AS_CONTENT}},
    {"older name, block open", "\n\n<" D "function_calls>\n" ROME "\n", {AS_CONTENT, AS_CONTENT}},
    {"older name, undeclared", "<" D "function_calls>\n" ROME INVOKE("x") INVOKED CLOSE,
     {AS_CONTENT, AS_CONTENT}},
    {"older name, text inside", "<" D "function_calls>\n" ROME "and" CLOSE, {AS_CONTENT, AS_CONTENT}},
    {"no marker, no block", "\n\n<invoke name=\"f\">\n</invoke>", {AS_CONTENT, AS_CONTENT}},
    {"no marker, no calls", "<tool_calls></tool_calls>", {AS_CONTENT, AS_CONTENT}},
    {"one tag without its first bar", "\n\n" OPEN "<DSML｜invoke name=\"f\">\n" STRING("a") "b" END INVOKED
     CLOSE, {AS_CONTENT, {"", "f {\"a\": \"b\"};"}}},
    {"a tag in a call without its bar", "\n\n" OPEN INVOKE("f") "<|DSML|parameter name=\"a\">b</|DSML|"
     "parameter>" INVOKED CLOSE, {AS_CONTENT, {"", "f {\"a\": \"b\"};"}}},
    {"the end without its bar", "\n\n" OPEN ROME "</DSML｜tool_calls>", BOTH("", ROME_CALL)},
    {"a value with other closers", "\n\n" OPEN INVOKE("f") STRING("a") "</parameter></DSML｜parameter></" D
     "parameter</" END INVOKED CLOSE,
     BOTH("", "f {\"a\": \"</parameter></DSML｜parameter></" D "parameter</\"};")},

    {"no newlines", "<" D "tool_calls><" D "invoke name=\"f\"><" D "parameter name=\"a\" string=\"true\">b</"
     D "parameter></" D "invoke></" D "tool_calls>", BOTH("", "f {\"a\": \"b\"};")},
    {"more space", "<" D "tool_calls >\r\n\t <" D "invoke \n name = \"f\" > \n\n<" D
     "parameter   name=\"a\"  string = \"true\" >b</" D "parameter>  </" D "invoke >\n\n\n</" D
     "tool_calls\n>", BOTH("", "f {\"a\": \"b\"};")},

    {"no type, no schema", OPEN INVOKE("f") PARAM("a") "1" END INVOKED CLOSE, BOTH("", "f {\"a\": \"1\"};")},
    {"no type, schema of strings", OPEN INVOKE("f") PARAM("text") "1" END INVOKED CLOSE,
     BOTH("", "f {\"text\": \"1\"};")},
    {"no type, schema of lists", OPEN INVOKE("f") PARAM("list") "[1]" END INVOKED CLOSE,
     {{"", "f {\"list\": \"[1]\"};"}, {"", "f {\"list\": [1]};"}}},
    {"no type, schema of lists, no JSON", OPEN INVOKE("f") PARAM("list") "[1" END INVOKED CLOSE,
     BOTH("", "f {\"list\": \"[1\"};")},
    {"no type, enum of numbers", OPEN INVOKE("f") PARAM("level") "2" END INVOKED CLOSE,
     {{"", "f {\"level\": \"2\"};"}, {"", "f {\"level\": 2};"}}},
    {"no type, mixed enum", OPEN INVOKE("f") PARAM("mode") "1" END INVOKED CLOSE,
     BOTH("", "f {\"mode\": \"1\"};")},
    {"no type, const", OPEN INVOKE("f") PARAM("zero") "0" END INVOKED CLOSE,
     {{"", "f {\"zero\": \"0\"};"}, {"", "f {\"zero\": 0};"}}},
    {"no type, anyOf", OPEN INVOKE("f") PARAM("any") "1" END INVOKED CLOSE,
     BOTH("", "f {\"any\": \"1\"};")},
    {"no type, oneOf", OPEN INVOKE("f") PARAM("one") "1" END INVOKED CLOSE,
     {{"", "f {\"one\": \"1\"};"}, {"", "f {\"one\": 1};"}}},
    {"no type, allOf", OPEN INVOKE("f") PARAM("all") "{}" END INVOKED CLOSE,
     {{"", "f {\"all\": \"{}\"};"}, {"", "f {\"all\": {}};"}}},
    {"no type, $ref", OPEN INVOKE("f") PARAM("ref") "1" END INVOKED CLOSE,
     BOTH("", "f {\"ref\": \"1\"};")},

    {"not JSON", OPEN INVOKE("f") JSON("a") "{oops" END INVOKED CLOSE,
     {{"", "f {\"a\": {oops};"}, {"", "f {\"a\": \"{oops\"};"}}},
    {"two values", OPEN INVOKE("f") JSON("a") "1, 2" END INVOKED CLOSE,
     {{"", "f {\"a\": 1, 2};"}, {"", "f {\"a\": \"1, 2\"};"}}},
    {"brackets that close too much", OPEN INVOKE("f") JSON("a") "1],[2" END INVOKED CLOSE,
     {{"", "f {\"a\": 1],[2};"}, {"", "f {\"a\": \"1],[2\"};"}}},
    {"empty value", OPEN INVOKE("f") JSON("a") END INVOKED CLOSE,
     {{"", "f {\"a\": };"}, {"", "f {\"a\": \"\"};"}}},
    {"JSON stays as it is", OPEN INVOKE("f") JSON("a") " [1.50 ,2] " END INVOKED CLOSE,
     BOTH("", "f {\"a\":  [1.50 ,2] };")},
    {"key twice", OPEN INVOKE("f") JSON("a") "1" END STRING("b") "x" END JSON("a") "2" END INVOKED CLOSE,
     BOTH("", "f {\"a\": 2, \"b\": \"x\"};")},
    {"key with quotes, no type", OPEN INVOKE("f") PARAM("a\"b") "c" END INVOKED CLOSE,
     BOTH("", "f {\"a\\\"b\": \"c\"};")},

    {"text after the block", BLOCK "\nDone." MARKER_EOS, BOTH("", ROME_CALL)},
    {"text instead of the end", OPEN ROME "Done.", BOTH("", ROME_CALL)},
    {"the marker in prose", "Write " D " and <" D "x> or <" D "tool_calls> first.",
     {AS_CONTENT, AS_CONTENT}},
    {"tags of other languages", "a <b>c</b> <tr> <tool> <invoke> </tool_calls> << 1", {AS_CONTENT, AS_CONTENT}},
    {"a quote of the opening, then a block", "As <" D "tool_calls> says.\n\n" BLOCK,
     BOTH("As <" D "tool_calls> says.", ROME_CALL)},
    {"opening twice", "\n\n" OPEN BLOCK, BOTH("\n\n<" D "tool_calls>", ROME_CALL)},
    {"a broken tag, then a block", OPEN INVOKE("f") "<" D "parameter nme=\"\n\n" BLOCK,
     BOTH(OPEN INVOKE("f") "<" D "parameter nme=\"", ROME_CALL)},
    {"text in a call", OPEN INVOKE("f") "text" INVOKED CLOSE, {AS_CONTENT, AS_CONTENT}},
    {"first call complete, second broken", OPEN ROME INVOKE("f") "x" INVOKED CLOSE,
     BOTH(INVOKE("f") "x" INVOKED CLOSE, ROME_CALL)},
    {"thinking in content", "a</think>b", {AS_CONTENT, AS_CONTENT}},
    {"trailing newlines", "a\n\n\n", {AS_CONTENT, AS_CONTENT}},
    {"start of a marker at the end", "a\n<" D "tool_cal", {AS_CONTENT, AS_CONTENT}},
    {"the end marker cut", "a <\xEF\xBD\x9C" "end", {AS_CONTENT, AS_CONTENT}},
};

static void check_row(const row *r, int known) {
    strview           text = {r->text, strlen(r->text)};
    ds4_reply_options options = options_for(false, known);
    reply_log         log = {0};
    strbuf            name = {0};
    strbuf_printf(&name, "%s (tools %s)", r->name, known == UNKNOWN ? "unknown" : known ? "listed" : "");
    read_whole(&log, &options, text, false);
    bool is_text = known == NONE || !r->by[known].calls;
    const char *eos = strstr(r->text, MARKER_EOS);
    strbuf all = {0};
    strbuf_append(&all, r->text, eos ? (size_t)(eos - r->text) : text.n);
    expect_message(name.data, &log.message, "", is_text ? all.data : r->by[known].content,
                   is_text ? "" : r->by[known].calls);
    check_splits(name.data, &options, text, false);
    strbuf_release(&all);
    strbuf_release(&name);
    reply_log_release(&log);
}

static void test_table(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++)
        for (int known = 0; known < N_KNOWN; known++) check_row(&ROWS[i], known);
}

/* The same rows as reasoning: nothing is a call before the thinking has ended. */
static void test_reasoning(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        ds4_reply_options options = options_for(true, LISTED);
        reply_log         log = {0};
        if (strstr(ROWS[i].text, MARKER_THINK_CLOSE) || strstr(ROWS[i].text, MARKER_EOS)) continue;
        read_whole(&log, &options, (strview){ROWS[i].text, strlen(ROWS[i].text)}, false);
        expect_message(ROWS[i].name, &log.message, ROWS[i].text, "", "");
        reply_log_release(&log);
    }
}

/* ---- when events come ---- */

/* Nothing of a doubtful call may be seen before this much of the text has come. */
static void expect_no_call_before(const char *text, const char *last) {
    ds4_reply_options options = options_for(false, LISTED);
    size_t            n = (size_t)(strstr(text, last) - text) + strlen(last) - 1;
    reply_log         log = {0};
    ds4_reply        *reply = create(&log, &options);
    feed(reply, text, n);
    assert_int_equal(log.events.n, 0);
    feed(reply, text + n, 1);
    expect_message(text, &log.message, "", "", ROME_CALL);
    finish(reply, &log, true);
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
}

static void expect_events(const char *text, bool is_cut, const char *expected) {
    for (int known = UNKNOWN; known <= LISTED; known++) {
        ds4_reply_options options = options_for(false, known);
        reply_log         log = {0};
        read_whole(&log, &options, (strview){text, strlen(text)}, is_cut);
        expect_text(text, "events", view(&log.events), expected);
        check_splits(text, &options, (strview){text, strlen(text)}, is_cut);
        reply_log_release(&log);
    }
}

static void test_order_of_events(void **state) {
    (void)state;
    expect_events("ok\n\n" OPEN ROME INVOKE("f") INVOKED CLOSE, false,
                  "\x01" "Cok\x01" "Fget_weather\x01" "A{\"city\": \"Rome\"}\x01" "E\x01" "Ff\x01" "A{}\x01" "E");
    /* What was announced and turns out to be none is taken back before its text comes. */
    expect_events("ok\n\n" OPEN INVOKE("f") STRING("a") "b" END "x", false,
                  "\x01" "Cok\x01" "Ff\x01" "A{\"a\": \"b\"\x01" "D\x01" "C\n\n" OPEN INVOKE("f") STRING("a") "b"
                  END "x");
    expect_events("ok\n\n" OPEN INVOKE("f") STRING("a") "b", false,
                  "\x01" "Cok\x01" "Ff\x01" "A{\"a\": \"b\x01" "D\x01" "C\n\n" OPEN INVOKE("f") STRING("a") "b");
    expect_events("ok\n\n" OPEN INVOKE("f") STRING("a") "b", true,
                  "\x01" "Cok\x01" "Ff\x01" "A{\"a\": \"b\x01" "D");
}

/* Streams: what the value is known to be has come out already. */
static void test_strings_stream(void **state) {
    (void)state;
    ds4_reply_options options = options_for(false, LISTED);
    reply_log         log = {0};
    ds4_reply        *reply = create(&log, &options);
    static const struct {
        const char *text, *argument;
    } steps[] = {
        {OPEN INVOKE("f") STRING("a"), "{\"a\": \""}, {"x", "x"}, {"\n", "\\n"}, {"\xF0\x9F", ""},
        {"\x98\x80", "😀"}, {"</", ""}, {"\xEF\xBD", ""}, {"\x9C" "DSM", ""}, {"X", "</｜DSMX"},
        {"</\xEF\xBD", ""}, {"\x9D", "</\xEF\xBD\x9D"}, {"<", ""}, {"<", "<"}, {"</" D "parameter", "<"},
        {">", "\""}, {JSON("b") "[1", ", \"b\": "}, {",2]</" D "parameter", ""}, {">", "[1,2]"},
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        size_t n_before = log.n_argument_bytes;
        feed(reply, steps[i].text, strlen(steps[i].text));
        size_t n = log.n_argument_bytes - n_before;
        strview all = view(&log.events);
        expect_text(steps[i].text, "argument", (strview){all.data + all.n - n, n}, steps[i].argument);
    }
    finish(reply, &log, true);
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
    for (int known = UNKNOWN; known <= LISTED; known++) {
        ds4_reply_options options = options_for(is_think, known);
        for (size_t n = 0; n <= strlen(text); n++) {
            reply_log log = {0};
            strview   prefix = {text, n};
            read_whole(&log, &options, prefix, true);
            if (strchr(view(&log.message.content).data, '<') ||
                strchr(view(&log.message.reasoning).data, '<'))
                fail_msg("cut at %zu: markup in \"%s\" or \"%s\"", n, view(&log.message.content).data,
                         view(&log.message.reasoning).data);
            if (log.n_ended != count(prefix, invoke_end))
                fail_msg("cut at %zu: %zu calls ended", n, log.n_ended);
            reply_log_release(&log);
        }
    }
}

static void test_cut_by_limit(void **state) {
    (void)state;
    check_prefixes("think</think>Let me look.\n\n" OPEN ROME INVOKE("f") STRING("a") "b é\n" END JSON("n")
                   "[1, 2]" END INVOKED CLOSE MARKER_EOS, "</" D "invoke>", true);
    check_prefixes("\n" OPEN INVOKE("f") "\n" INVOKED CLOSE, "</" D "invoke>", false);

    /* A doubtful block that is cut is no call, and no content either. */
    static const char *const doubtful[] = {
        "\n\n" SPELT("DSML｜", "tool_calls"), "\n\n" SPELT("", "tool_calls"),
        "\n\n" SPELT(D, "function_calls"),
    };
    ds4_reply_options options = options_for(false, LISTED);
    for (size_t i = 0; i < sizeof doubtful / sizeof *doubtful; i++)
        for (size_t n = 3; n < strlen(doubtful[i]); n++) {
            reply_log log = {0};
            read_whole(&log, &options, (strview){doubtful[i], n}, true);
            assert_int_equal(log.events.n, 0);
            reply_log_release(&log);
        }

    /* What cannot be markup any more has come out. */
    expect_events("a < b\n\n", true, "\x01" "Ca < b\n\n");
}

/* ---- bytes, sizes, memory ---- */

static void test_invalid_utf8(void **state) {
    (void)state;
    static const struct {
        const char *text, *events;
    } cases[] = {
        {"a\xFF" "b", "\x01" "Ca\xEF\xBF\xBD" "b"},
        {"a\xE2\x82", "\x01" "Ca\xEF\xBF\xBD"},
        {"\xF0\x9F<" "b\xC3", "\x01" "C\xEF\xBF\xBD<b\xEF\xBF\xBD"},
        {OPEN INVOKE("\xFF") STRING("k\x80") "\xE2\x82</" D "parameter>" INVOKED CLOSE,
         "\x01" "F\xEF\xBF\xBD\x01" "A{\"k\xEF\xBF\xBD\": \"\xEF\xBF\xBD\"}\x01" "E"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_events(cases[i].text, false, cases[i].events);

    /* A limit may cut a character: that is no mistake of the text. */
    expect_events("a\xE2\x82", true, "\x01" "Ca");

    /* U+0000 is a character as others. */
    static const char zero[] = "a\0<\0b";
    ds4_reply_options options = options_for(false, UNKNOWN);
    reply_log         log = {0};
    read_whole(&log, &options, (strview){zero, sizeof zero - 1}, false);
    assert_int_equal(log.message.content.n, sizeof zero - 1);
    assert_memory_equal(log.message.content.data, zero, sizeof zero - 1);
    reply_log_release(&log);
}

enum { MEGABYTE = 1 << 20, HOLD_MAX = 64 };

/* A long string comes out as it comes in; allocations show that no buffer is filled over and over. */
static void test_long_string(void **state) {
    (void)state;
    static const char before[] = OPEN INVOKE("f") STRING("a"), after[] = END INVOKED CLOSE;
    ds4_reply_options options = options_for(false, LISTED);
    reply_log         log = {0};
    ds4_reply        *reply = create(&log, &options);
    feed(reply, before, sizeof before - 1);
    long n_before = n_allocations;
    for (size_t i = 0; i < MEGABYTE; i++) {
        static const char text[] = "</｜DSML｜parameter, or a < b";
        assert_int_equal(ds4_reply_feed(reply, text + i % (sizeof text - 1), 1, NULL), DS4_OK);
        assert_true(log.n_argument_bytes + HOLD_MAX > i);
    }
    assert_true(n_allocations - n_before < 100);
    feed(reply, after, sizeof after - 1);
    finish(reply, &log, false);
    assert_int_equal(log.n_ended, 1);
    reply_log_release(&log);
}

/* Texts that break over and over, and one that breaks at its very end: all is read at most twice. */
static void test_long_broken(void **state) {
    (void)state;
    static const char *const pieces[] = {
        "<", "\n", "<tool_calls>", OPEN, OPEN INVOKE("f"), INVOKE("f") STRING("a") "<" D "tool_calls>",
        "<" D "invoke name=\"", "<tool_calls><invoke name=\"f\"><parameter name=\"a\">",
        "<" D "function_calls>" INVOKE("f") INVOKED, "<\xEF\xBD\x9C" "end",
    };
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        ds4_reply_options options = options_for(false, LISTED);
        reply_log         log = {0};
        strbuf            text = {0};
        while (text.n < MEGABYTE) strbuf_puts(&text, pieces[i]);
        read_pieces(&log, &options, view(&text), 0, 1000, false);
        assert_int_equal(log.n_ended, 0);
        if (!strview_equal(view(&log.message.content), view(&text)))
            fail_msg("%s...: found %zu bytes, expected the text, %zu bytes", pieces[i],
                     log.message.content.n, text.n);
        strbuf_release(&text);
        reply_log_release(&log);
    }
}

/* JSON as deep as it may be on its own is too deep inside the arguments. */
static void test_deep_value(void **state) {
    (void)state;
    ds4_reply_options options = options_for(false, LISTED);
    for (size_t depth = JSON_MAX_DEPTH - 2; depth <= JSON_MAX_DEPTH; depth++) {
        strbuf    text = {0};
        reply_log log = {0};
        json_doc  doc = {0};
        strbuf_puts(&text, OPEN INVOKE("f") JSON("a"));
        for (size_t i = 0; i < depth; i++) strbuf_putc(&text, '[');
        for (size_t i = 0; i < depth; i++) strbuf_putc(&text, ']');
        strbuf_puts(&text, END INVOKED CLOSE);
        read_whole(&log, &options, view(&text), false);
        assert_int_equal(log.message.n_calls, 1);
        strview arguments = view(&log.message.calls[0].arguments);
        assert_int_equal(json_parse(&doc, arguments.data, arguments.n, "arguments", NULL), DS4_OK);
        assert_int_equal(json_get(doc.root, "a")->type, depth < JSON_MAX_DEPTH ? JSON_ARRAY : JSON_STRING);
        json_release(&doc);
        strbuf_release(&text);
        reply_log_release(&log);
    }
}

/* One run with the n-th allocation refused; true if there were fewer. Whatever was said is a prefix of
 * what would have been said. */
static bool run_refused(long n, const reply_log *whole, const ds4_reply_options *options, strview text) {
    reply_log  log = {0};
    ds4_reply *reply = NULL;
    /* The log's own memory is there before. */
    strbuf_reserve(&log.events, 4096);
    n_until_failure = n;
    ds4_error  err = {0};
    ds4_status status = ds4_reply_create(&reply, options, reply_log_add, &log, &err);
    for (size_t at = 0; status == DS4_OK && at < text.n; at += 7)
        status = ds4_reply_feed(reply, text.data + at, text.n - at < 7 ? text.n - at : 7, &err);
    if (status == DS4_OK) status = ds4_reply_finish(reply, false, &err);
    bool is_complete = n_until_failure > 0;
    n_until_failure = 0;
    if (status != DS4_OK) {
        assert_int_equal(status, DS4_ENOMEM);
        assert_true(err.message[0] != 0);
        assert_true(strview_starts(view(&whole->events), view(&log.events)));
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
    static const char text[] = "t</think>ok\n\n<" D "toolcalls>" ROME INVOKE("f") PARAM("list") "[1]" END
        JSON("a") "{oops" END JSON("a") "1" END INVOKED INVOKE("f") STRING("a") "b" END "broken";
    for (int known = 0; known < N_KNOWN; known++) {
        ds4_reply_options options = options_for(true, known);
        reply_log         whole = {0};
        long              n = 1;
        read_whole(&whole, &options, (strview){text, sizeof text - 1}, false);
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
        {"", "tools: JSON"}, {"{}", "tools: found object, expected an array"}, {"[1,]", "tools: JSON"},
        {"null", "tools: found null"},
    };
    reply_log  log = {0};
    ds4_reply *reply = NULL;
    ds4_error  err = {0};
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

    reply = create(&log, &options);
    assert_int_equal(ds4_reply_feed(reply, NULL, 0, NULL), DS4_OK);
    assert_int_equal(ds4_reply_feed(reply, NULL, 1, NULL), DS4_EINVAL);
    feed(reply, "a" MARKER_EOS "b", strlen("a" MARKER_EOS "b"));
    feed(reply, "c", 1);
    assert_int_equal(ds4_reply_finish(reply, false, NULL), DS4_OK);
    assert_int_equal(ds4_reply_finish(reply, true, NULL), DS4_OK);
    assert_int_equal(ds4_reply_feed(reply, "d", 1, &err), DS4_EINVAL);
    ds4_reply_destroy(reply);
    ds4_reply_destroy(NULL);
    expect_text("contract", "events", view(&log.events), "\x01" "Ca");
    reply_log_release(&log);
}

/* A message in the middle: an open call does not count. */
static void test_message(void **state) {
    (void)state;
    message m = {0};
    strbuf  out = {0};
    message_write(&m, &out);
    expect_text("empty", "message", view(&out),
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
        cmocka_unit_test(test_fixtures),          cmocka_unit_test(test_fixture_splits),
        cmocka_unit_test(test_table),             cmocka_unit_test(test_reasoning),
        cmocka_unit_test(test_doubtful_calls_wait), cmocka_unit_test(test_order_of_events),
        cmocka_unit_test(test_strings_stream),    cmocka_unit_test(test_cut_by_limit),
        cmocka_unit_test(test_invalid_utf8),      cmocka_unit_test(test_long_string),
        cmocka_unit_test(test_long_broken),       cmocka_unit_test(test_deep_value),
        cmocka_unit_test(test_allocations_fail),  cmocka_unit_test(test_contract),
        cmocka_unit_test(test_message),
    };
    return cmocka_run_group_tests_name("reply", tests, NULL, NULL);
}
