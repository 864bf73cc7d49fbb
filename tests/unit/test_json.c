#include "base/json.h"

#include "tests/support/tokenizer_data.h"

#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static json_doc parse(const char *text) {
    json_doc doc;
    ds4_error err = {0};
    if (json_parse(&doc, text, strlen(text), "test", &err) != DS4_OK) fail_msg("%s", err.message);
    return doc;
}

static void assert_fails(const char *data, size_t n, const char *message) {
    json_doc doc;
    ds4_error err = {0};
    ds4_status status = json_parse(&doc, data, n, "test", &err);
    if (status != DS4_EFORMAT || strcmp(err.message, message) != 0)
        fail_msg("'%.40s': %s '%s', expected EFORMAT '%s'", data, ds4_status_name(status),
                 err.message, message);
    assert_null(doc.root);
    json_release(&doc); /* nothing to release, and no harm */
}

static void assert_text(strview found, const char *expected, size_t n) {
    if (!strview_equal(found, (strview){expected, n}))
        fail_msg("found '%.*s', expected '%s'", (int)found.n, found.data, expected);
}

#define ASSERT_TEXT(found, literal) assert_text(found, literal, sizeof(literal) - 1)

/* ---- reading --------------------------------------------------------------------------------- */

static void test_tree(void **state) {
    (void)state;
    json_doc doc = parse(" {\"a\" : [ 1 , -2.50e+1, {}, [] ], \"b\\n\":\"x\", \"c\":true,\n"
                         "\t\"d\":false,\"e\":null, \"a\": 7}\r\n");
    const json_node *root = doc.root, *a = root->first;
    assert_int_equal(root->type, JSON_OBJECT);
    assert_int_equal(root->n_items, 6);
    ASSERT_TEXT(a->key, "a");
    assert_int_equal(a->type, JSON_ARRAY);
    assert_int_equal(a->n_items, 4);
    ASSERT_TEXT(a->first->text, "1");
    ASSERT_TEXT(a->first->next->text, "-2.50e+1");
    assert_int_equal(a->first->next->next->type, JSON_OBJECT);
    assert_int_equal(a->first->next->next->next->n_items, 0);
    assert_null(a->first->next->next->next->next);
    ASSERT_TEXT(a->next->key, "b\n");
    ASSERT_TEXT(json_get(root, "b\n")->text, "x");
    assert_int_equal(json_get(root, "c")->type, JSON_TRUE);
    assert_int_equal(json_get(root, "d")->type, JSON_FALSE);
    assert_int_equal(json_get(root, "e")->type, JSON_NULL);
    ASSERT_TEXT(json_get(root, "a")->text, "7"); /* the last one */
    assert_null(json_get(root, "A"));
    assert_null(json_get(root, ""));
    assert_null(json_get(a, "a"));
    assert_null(json_get(NULL, "a"));
    json_release(&doc);
    assert_null(doc.root);
}

static void test_strings(void **state) {
    (void)state;
    static const struct {
        const char *json, *text;
        size_t n;
    } cases[] = {
        {"\"\"", "", 0},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8},
        {"\"a\\u0000b\"", "a\0b", 3},
        {"\"\\u00e9\\u20AC\"", "\xC3\xA9\xE2\x82\xAC", 5},
        {"\"\\ud83d\\ude00\"", "\xF0\x9F\x98\x80", 4},
        {"\"\\uDBFF\\uDFFF\"", "\xF4\x8F\xBF\xBF", 4},
        /* lone surrogates: U+FFFD each; what follows stands for itself */
        {"\"\\ud83d\"", "\xEF\xBF\xBD", 3},
        {"\"\\ude00x\"", "\xEF\xBF\xBDx", 4},
        {"\"\\ud83dx\"", "\xEF\xBF\xBDx", 4},
        {"\"\\ud83d\\n\"", "\xEF\xBF\xBD\n", 4},
        {"\"\\ud83d\\u0041\"",
         "\xEF\xBF\xBD"
         "A",
         4},
        {"\"\\ud83d\\ud83d\\ude00\"", "\xEF\xBF\xBD\xF0\x9F\x98\x80", 7},
        {"\"\\ude00\\ud83d\"", "\xEF\xBF\xBD\xEF\xBF\xBD", 6},
        {"\"\x7F\xC2\x85\xE2\x80\xA8\"", "\x7F\xC2\x85\xE2\x80\xA8", 6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_doc doc = parse(cases[i].json);
        assert_int_equal(doc.root->type, JSON_STRING);
        assert_text(doc.root->text, cases[i].text, cases[i].n);
        json_release(&doc);
    }
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        const char *json, *message;
    } cases[] = {
        {"", "test: JSON at byte 0: found the end, expected a value"},
        {"  ", "test: JSON at byte 2: found the end, expected a value"},
        {"\xEF\xBB\xBF{}", "test: JSON at byte 0: found byte 0xef, expected a value"},
        {"tru", "test: JSON at byte 0: found 't', expected a value"},
        {"True", "test: JSON at byte 0: found 'T', expected a value"},
        {"NaN", "test: JSON at byte 0: found 'N', expected a value"},
        {"nullx", "test: JSON at byte 4: found 'x', expected nothing after the value"},
        {"1 2", "test: JSON at byte 2: found '2', expected nothing after the value"},
        {"01", "test: JSON at byte 1: found '1', expected nothing after the value"},
        {"+1", "test: JSON at byte 0: found '+', expected a value"},
        {".5", "test: JSON at byte 0: found '.', expected a value"},
        {"-", "test: JSON at byte 1: found the end, expected a digit"},
        {"-x", "test: JSON at byte 1: found 'x', expected a digit"},
        {"1.", "test: JSON at byte 2: found the end, expected a digit"},
        {"1.e5", "test: JSON at byte 2: found 'e', expected a digit"},
        {"1e", "test: JSON at byte 2: found the end, expected a digit"},
        {"1e+", "test: JSON at byte 3: found the end, expected a digit"},
        {"0x1", "test: JSON at byte 1: found 'x', expected nothing after the value"},
        {"[", "test: JSON at byte 1: found the end, expected a value"},
        {"[1", "test: JSON at byte 2: found the end, expected ',' or ']'"},
        {"[1,]", "test: JSON at byte 3: found ']', expected a value"},
        {"[,1]", "test: JSON at byte 1: found ',', expected a value"},
        {"[1}", "test: JSON at byte 2: found '}', expected ',' or ']'"},
        {"[1 /* */]", "test: JSON at byte 3: found '/', expected ',' or ']'"},
        {"{", "test: JSON at byte 1: found the end, expected the name of a member"},
        {"{a:1}", "test: JSON at byte 1: found 'a', expected the name of a member"},
        {"{'a':1}", "test: JSON at byte 1: found ''', expected the name of a member"},
        {"{\"a\"}", "test: JSON at byte 4: found '}', expected ':'"},
        {"{\"a\":}", "test: JSON at byte 5: found '}', expected a value"},
        {"{\"a\":1,}", "test: JSON at byte 7: found '}', expected the name of a member"},
        {"{\"a\":1]", "test: JSON at byte 6: found ']', expected ',' or '}'"},
        {"\"a", "test: JSON at byte 2: found the end, expected the end of the string, with control "
                "characters escaped"},
        {"\"a\nb\"", "test: JSON at byte 2: found byte 0x0a, expected the end of the string, with "
                     "control characters escaped"},
        {"\"\\", "test: JSON at byte 2: found the end, expected an escape (one of \"\\/bfnrtu)"},
        {"\"\\x\"", "test: JSON at byte 2: found 'x', expected an escape (one of \"\\/bfnrtu)"},
        {"\"\\u12\"", "test: JSON at byte 5: found '\"', expected four hexadecimal digits"},
        {"\"\\u12g4\"", "test: JSON at byte 5: found 'g', expected four hexadecimal digits"},
        {"\"\\ud83d\\u12\"", "test: JSON at byte 11: found '\"', expected four hexadecimal digits"},
        {"\"ab\xFF\"", "test: JSON: string at byte 0 is not valid UTF-8 (before byte 4)"},
        {"[\"\xED\xA0\x80\"]", "test: JSON: string at byte 1 is not valid UTF-8 (before byte 3)"},
        {"[\"\xF0\x9F\x98\"]", "test: JSON: string at byte 1 is not valid UTF-8 (before byte 5)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_fails(cases[i].json, strlen(cases[i].json), cases[i].message);
    assert_fails("[1\0]", 4, "test: JSON at byte 2: found byte 0x00, expected ',' or ']'");
    assert_fails("\"\\\0\"", 4,
                 "test: JSON at byte 2: found byte 0x00, expected an escape (one of \"\\/bfnrtu)");
    assert_fails(NULL, 0, "test: JSON at byte 0: found the end, expected a value");

    json_doc doc;
    assert_int_equal(json_parse(&doc, "[", 1, "test", NULL), DS4_EFORMAT);
}

/* Arrays and objects in turn, n levels. */
static void nest(strbuf *out, int n) {
    for (int i = 0; i < n; i++) strbuf_puts(out, i % 2 ? "{\"a\": " : "[");
    if (n % 2 == 0) strbuf_puts(out, "1");
    for (int i = n; i-- > 0;) strbuf_puts(out, i % 2 ? "}" : "]");
}

static void test_depth(void **state) {
    (void)state;
    strbuf text = {0}, printed = {0};
    nest(&text, JSON_MAX_DEPTH);
    json_doc doc = parse(text.data);
    json_write_python(&printed, doc.root);
    assert_text((strview){printed.data, printed.n}, text.data, text.n);
    json_release(&doc);
    strbuf_truncate(&text, 0);
    nest(&text, JSON_MAX_DEPTH + 1);
    /* 128 times "[" and "{"a": " */
    assert_fails(text.data, text.n, "test: JSON at byte 896: nested deeper than 256 levels");
    strbuf_truncate(&text, 0);
    for (int i = 0; i < 1000000; i++) strbuf_putc(&text, '[');
    assert_fails(text.data, text.n, "test: JSON at byte 256: nested deeper than 256 levels");
    strbuf_release(&text);
    strbuf_release(&printed);
}

/* Every byte string that is a prefix of a text fails cleanly, and so does every changed byte. */
static void test_damage(void **state) {
    (void)state;
    const char text[] = "{\"a\": [1.5e3, \"\\u00e9\\n\xC3\xA9\", true, {\"b\": null}], \"c\": -0}";
    for (size_t n = 0; n < sizeof text - 1; n++) {
        json_doc doc;
        /* An exact copy, so that a sanitizer sees a read beyond it. */
        char *copy = malloc(n + 1);
        assert_non_null(copy);
        memcpy(copy, text, n);
        assert_int_equal(json_parse(&doc, copy, n, "test", NULL), DS4_EFORMAT);
        for (int byte = 0; byte < 256; byte++) {
            memcpy(copy, text, n);
            copy[n] = (char)byte;
            if (json_parse(&doc, copy, n + 1, "test", NULL) == DS4_OK) json_release(&doc);
        }
        free(copy);
    }
}

static void test_numbers(void **state) {
    (void)state;
    static const struct {
        const char *json;
        bool is_int;
        int64_t i;
        double d;
    } cases[] = {
        {"0", true, 0, 0},
        {"-0", true, 0, -0.0},
        {"17", true, 17, 17},
        {"9223372036854775807", true, INT64_MAX, 9223372036854775808.0},
        {"-9223372036854775808", true, INT64_MIN, -9223372036854775808.0},
        {"9223372036854775808", false, 0, 9223372036854775808.0},
        {"-9223372036854775809", false, 0, -9223372036854775808.0},
        {"99999999999999999999999", false, 0, 1e23},
        {"1.0", false, 0, 1},
        {"1e2", false, 0, 100},
        {"1E-2", false, 0, 0.01},
        {"-12.375e+2", false, 0, -1237.5},
        {"0.1", false, 0, 0.1},
        {"1e400", false, 0, INFINITY},
        {"1e-400", false, 0, 0},
        {"1e99999999999999999999", false, 0, INFINITY},
        {"0.000000000000000000000000000001e30", false, 0, 1},
        {"9007199254740993", true, 9007199254740993, 9007199254740992.0},
        {"9007199254740993.0000000000000000000000000000000000000000000000000001", false, 0,
         9007199254740994.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_doc doc = parse(cases[i].json);
        int64_t v = 42;
        double d;
        if (json_int(doc.root, &v) != cases[i].is_int) fail_msg("%s: an integer?", cases[i].json);
        assert_true(v == (cases[i].is_int ? cases[i].i : 42));
        assert_true(json_double(doc.root, &d));
        if (memcmp(&d, &cases[i].d, sizeof d) != 0) fail_msg("%s: found %.17g", cases[i].json, d);
        json_release(&doc);
    }
    json_doc doc = parse("\"1\"");
    int64_t v;
    double d;
    assert_false(json_int(doc.root, &v));
    assert_false(json_double(doc.root, &d));
    assert_false(json_int(NULL, &v));
    assert_false(json_double(NULL, &d));
    json_release(&doc);
}

static void test_type_names(void **state) {
    (void)state;
    json_doc doc = parse("[null, false, true, 0, \"\", [], {}]");
    static const char *const names[] = {"null",   "false", "true",  "number",
                                        "string", "array", "object"};
    size_t i = 0;
    for (const json_node *n = doc.root->first; n; n = n->next)
        assert_string_equal(json_type_name(n), names[i++]);
    assert_string_equal(json_type_name(NULL), "nothing");
    json_release(&doc);
}

static void test_members(void **state) {
    (void)state;
    json_doc doc = parse("{\"b\": 1, \"a\": 2, \"\": 3, \"b\": 4, \"aa\": 5, \"a\": 6, \"b\": 7}");
    const json_node **members;
    size_t n;
    assert_true(json_take_members(doc.root, &members, &n));
    assert_int_equal(n, 4);
    ASSERT_TEXT(members[0]->key, "b");
    ASSERT_TEXT(members[0]->text, "7");
    ASSERT_TEXT(members[1]->text, "6");
    ASSERT_TEXT(members[2]->text, "3");
    ASSERT_TEXT(members[3]->text, "5");
    free(members);
    json_release(&doc);
    doc = parse("{}");
    assert_true(json_take_members(doc.root, &members, &n));
    assert_int_equal(n, 0);
    free(members);
    json_release(&doc);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void assert_prints(const char *json, const char *expected) {
    json_doc doc = parse(json);
    strbuf out = {0};
    json_write_python(&out, doc.root);
    if (out.is_failed || strcmp(out.data, expected) != 0)
        fail_msg("%s: found %s, expected %s", json, out.data, expected);
    strbuf_release(&out);
    json_release(&doc);
}

/* Each right side is what json.dumps(json.loads(left), ensure_ascii=False) of Python prints. */
static void test_python(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {" [ 1,2 ,\n3 ] ", "[1, 2, 3]"},
        {"[]", "[]"},
        {"{}", "{}"},
        {"[[],{}]", "[[], {}]"},
        {"{\"b\":1,\"a\":{\"c\":[true,false,null]}}",
         "{\"b\": 1, \"a\": {\"c\": [true, false, null]}}"},
        {"{\"k\":1,\"x\":2,\"k\":{\"y\":1,\"y\":2}}", "{\"k\": {\"y\": 2}, \"x\": 2}"},
        {"\"\\/\\u0041\\u00e9\\u007f\\u2028\"", "\"/Aé\x7F\xE2\x80\xA8\""},
        {"\"\\b\\f\\n\\r\\t\\u0000\\u001F\\u000b\\\"\\\\\"",
         "\"\\b\\f\\n\\r\\t\\u0000\\u001f\\u000b\\\"\\\\\""},
        {"{\"\\n\":\"\"}", "{\"\\n\": \"\"}"},
        {"\"\\ud83d\\ude00\"", "\"😀\""},
        /* integers of any size */
        {"-0", "0"},
        {"-17", "-17"},
        {"123456789012345678901234567890", "123456789012345678901234567890"},
        /* doubles */
        {"1.0", "1.0"},
        {"1.50", "1.5"},
        {"-0.0", "-0.0"},
        {"-0e5", "-0.0"},
        {"0.0001", "0.0001"},
        {"0.00001", "1e-05"},
        {"0.00012345", "0.00012345"},
        {"1e3", "1000.0"},
        {"1E15", "1000000000000000.0"},
        {"9999999999999998.0", "9999999999999998.0"},
        {"1e16", "1e+16"},
        {"12345678901234567.0", "1.2345678901234568e+16"},
        {"1e-7", "1e-07"},
        {"1.5e300", "1.5e+300"},
        {"-2.5e-300", "-2.5e-300"},
        {"1e100", "1e+100"},
        {"0.1", "0.1"},
        {"0.30000000000000004", "0.30000000000000004"},
        {"100.25", "100.25"},
        {"1e400", "Infinity"},
        {"-1e400", "-Infinity"},
        {"1e-400", "0.0"},
        {"-1e-400", "-0.0"},
        {"1.7976931348623157e308", "1.7976931348623157e+308"},
        {"2.2250738585072014e-308", "2.2250738585072014e-308"},
        {"5e-324", "5e-324"},
        {"1.5e-323", "1.5e-323"},
        {"9.5367431640625e-07", "9.5367431640625e-07"},
        /* powers of two, whose neighbour below is nearer than the one above */
        {"7.1202363472230444e-307", "7.120236347223045e-307"},
        {"5.684341886080802e-14", "5.684341886080802e-14"},
        {"5.4266571032350524e-166", "5.426657103235053e-166"},
        {"9007199254740992.0", "9007199254740992.0"},
        {"1.8446744073709552e19", "1.8446744073709552e+19"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_prints(cases[i][0], cases[i][1]);
}

/* Every power of two, its neighbours, and random doubles: they read back, and nothing shorter does.
 */
static void check_double(double v) {
    strbuf out = {0};
    json_write_double(&out, v);
    char digits[32];
    int n_digits = 0;
    if (strtod(out.data, NULL) != v) fail_msg("%.17g: printed as %s", v, out.data);
    for (const char *c = out.data; *c && *c != 'e'; c++)
        if (*c >= '1' || (*c == '0' && n_digits)) digits[n_digits++] = *c;
    while (n_digits > 1 && digits[n_digits - 1] == '0') n_digits--;
    if (n_digits > 17) fail_msg("%.17g: printed as %s", v, out.data);
    /* The nearest number with a digit less is the best try there is, but for powers of two. */
    char shorter[48];
    snprintf(shorter, sizeof shorter, "%.*e", n_digits > 1 ? n_digits - 2 : 0, v);
    if (n_digits > 1 && strtod(shorter, NULL) == v)
        fail_msg("%.17g: printed as %s, %s is enough", v, out.data, shorter);
    strbuf_release(&out);
}

static void test_doubles(void **state) {
    (void)state;
    for (int e = -1074; e < 1024; e++) {
        check_double(ldexp(1, e));
        if (e > -1074) check_double(nextafter(ldexp(1, e), 0));
        check_double(-nextafter(ldexp(1, e), INFINITY));
    }
    uint64_t random = 1;
    for (int i = 0; i < 5000; i++) {
        uint64_t bits = next_random(&random);
        double v;
        memcpy(&v, &bits, sizeof v);
        if (isfinite(v)) check_double(v);
    }
}

/* A random value, of at most `depth` levels. */
static void random_value(strbuf *out, uint64_t *random, int depth) {
    static const char *const leaves[] = {"null",  "true",    "-1",          "0.1",   "1e30", "\"\"",
                                         "\"é\"", "\"\\n\"", "\"\\u0000\"", "17.50", "false"};
    uint64_t r = next_random(random);
    if (depth == 0 || r % 3 == 0) {
        strbuf_puts(out, leaves[(r >> 8) % (sizeof leaves / sizeof *leaves)]);
        return;
    }
    bool is_object = r % 3 == 1;
    strbuf_putc(out, is_object ? '{' : '[');
    for (uint64_t i = 0, n = (r >> 8) % 5; i < n; i++) {
        if (i) strbuf_putc(out, ',');
        if (is_object) strbuf_printf(out, "\"%c\" :", 'a' + (int)(next_random(random) % 4));
        random_value(out, random, depth - 1);
    }
    strbuf_putc(out, is_object ? '}' : ']');
}

/* What was printed prints as itself. */
static void test_printing_is_stable(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 500; seed++) {
        uint64_t random = seed;
        strbuf text = {0}, once = {0}, twice = {0};
        random_value(&text, &random, 6);
        json_doc doc = parse(text.data), again;
        json_write_python(&once, doc.root);
        again = parse(once.data);
        json_write_python(&twice, again.root);
        if (strcmp(once.data, twice.data) != 0)
            fail_msg("seed %d: %s, then %s", (int)seed, once.data, twice.data);
        json_release(&doc);
        json_release(&again);
        strbuf_release(&text);
        strbuf_release(&once);
        strbuf_release(&twice);
    }
}

/* Documents that would be slow if anything were quadratic. */
static void test_large(void **state) {
    (void)state;
    enum { N = 100000 };
    strbuf text = {0}, out = {0};
    strbuf_putc(&text, '{');
    for (int i = 0; i < N; i++)
        strbuf_printf(&text, "%s\"k%d\": %d", i ? ", " : "", i % (N / 2), i);
    strbuf_putc(&text, '}');
    json_doc doc = parse(text.data);
    assert_int_equal(doc.root->n_items, N);
    json_write_python(&out, doc.root);
    assert_memory_equal(out.data, "{\"k0\": 50000, \"k1\": 50001, ", 27);
    json_release(&doc);
    strbuf_release(&text);
    strbuf_release(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),       cmocka_unit_test(test_strings),
        cmocka_unit_test(test_errors),     cmocka_unit_test(test_depth),
        cmocka_unit_test(test_damage),     cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_type_names), cmocka_unit_test(test_members),
        cmocka_unit_test(test_python),     cmocka_unit_test(test_doubles),
        cmocka_unit_test(test_large),      cmocka_unit_test(test_printing_is_stable),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
