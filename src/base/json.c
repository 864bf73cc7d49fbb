/* A recursive-descent parser over the whole text, and the two printers.
 *
 * Numbers never pass through the C locale: a decimal number is read as digits and an exponent, and
 * printed from its digits. */
#include "base/json.h"

#include "base/utf8.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LONGEST_DOUBLE = 17, /* significant digits that tell any two doubles apart */
    NODES_AT_ONCE = 64,
};

typedef struct {
    json_doc   *doc;
    const char *data;
    size_t      n;
    size_t      at;
    char       *text; /* decoded strings and numbers, one after the other; they fit into n bytes */
    json_node  *nodes;
    size_t      n_nodes; /* left in this chunk */
    const char *what;
    ds4_error  *err;
} parser;

/* ---- errors ------------------------------------------------------------------------------------ */

static ds4_status fail_at(parser *p, size_t at, const char *expected) {
    char found[32];
    if (at >= p->n) {
        strcpy(found, "the end");
    } else {
        unsigned char c = (unsigned char)p->data[at];
        if (c >= 0x20 && c < 0x7F) snprintf(found, sizeof found, "'%c'", c);
        else snprintf(found, sizeof found, "byte 0x%02x", c);
    }
    return ds4_fail(p->err, DS4_EFORMAT, "%s: JSON at byte %zu: found %s, expected %s", p->what, at,
                    found, expected);
}

static ds4_status fail(parser *p, const char *expected) { return fail_at(p, p->at, expected); }

/* ---- lexing ------------------------------------------------------------------------------------ */

static void skip_space(parser *p) {
    while (p->at < p->n) {
        char c = p->data[p->at];
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return;
        p->at++;
    }
}

static bool is_next(const parser *p, char c) { return p->at < p->n && p->data[p->at] == c; }

static bool is_digit_next(const parser *p) {
    return p->at < p->n && p->data[p->at] >= '0' && p->data[p->at] <= '9';
}

static ds4_status read_digits(parser *p) {
    if (!is_digit_next(p)) return fail(p, "a digit");
    while (is_digit_next(p)) p->at++;
    return DS4_OK;
}

static ds4_status read_number(parser *p, strview *text) {
    size_t from = p->at;
    if (is_next(p, '-')) p->at++;
    if (is_next(p, '0')) p->at++;
    else DS4_TRY(read_digits(p));
    if (is_next(p, '.')) {
        p->at++;
        DS4_TRY(read_digits(p));
    }
    if (is_next(p, 'e') || is_next(p, 'E')) {
        p->at++;
        if (is_next(p, '+') || is_next(p, '-')) p->at++;
        DS4_TRY(read_digits(p));
    }
    *text = (strview){p->text, p->at - from};
    memcpy(p->text, p->data + from, text->n);
    p->text += text->n;
    return DS4_OK;
}

static ds4_status read_hex(parser *p, uint32_t *code) {
    *code = 0;
    for (int i = 0; i < 4; i++, p->at++) {
        char     c = p->at < p->n ? p->data[p->at] : 0;
        uint32_t digit;
        if (c >= '0' && c <= '9') digit = (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f') digit = (uint32_t)(c - 'a' + 10);
        else if (c >= 'A' && c <= 'F') digit = (uint32_t)(c - 'A' + 10);
        else return fail(p, "four hexadecimal digits");
        *code = *code << 4 | digit;
    }
    return DS4_OK;
}

/* After "\u": one code point; a low surrogate that follows a high one belongs to it. */
static ds4_status read_unicode_escape(parser *p) {
    uint32_t code;
    DS4_TRY(read_hex(p, &code));
    if (code >= 0xD800 && code < 0xDC00 && p->n - p->at >= 6 && p->data[p->at] == '\\' &&
        p->data[p->at + 1] == 'u') {
        size_t   second = p->at;
        uint32_t low;
        p->at += 2;
        DS4_TRY(read_hex(p, &low));
        if (low >= 0xDC00 && low < 0xE000) code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        else p->at = second; /* an escape of its own */
    }
    if (code >= 0xD800 && code < 0xE000) code = 0xFFFD;
    char utf8[4];
    size_t n = utf8_encode(code, utf8);
    memcpy(p->text, utf8, n);
    p->text += n;
    return DS4_OK;
}

static ds4_status read_escape(parser *p) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    p->at++; /* the backslash */
    if (is_next(p, 'u')) {
        p->at++;
        return read_unicode_escape(p);
    }
    const char *found = p->at < p->n && p->data[p->at] ? strchr(from, p->data[p->at]) : NULL;
    if (!found) return fail(p, "an escape (one of \"\\/bfnrtu)");
    *p->text++ = to[found - from];
    p->at++;
    return DS4_OK;
}

static ds4_status read_string(parser *p, strview *text) {
    if (!is_next(p, '"')) return fail(p, "a string");
    size_t from = p->at++;
    char  *start = p->text;
    for (;;) {
        size_t run = p->at;
        while (p->at < p->n && p->data[p->at] != '"' && p->data[p->at] != '\\' &&
               (unsigned char)p->data[p->at] >= 0x20)
            p->at++;
        if (!utf8_is_valid(p->data + run, p->at - run)) {
            int32_t code = 0;
            while (code >= 0) run += utf8_decode(p->data + run, p->at - run, &code);
            return ds4_fail(p->err, DS4_EFORMAT,
                            "%s: JSON: string at byte %zu is not valid UTF-8 (before byte %zu)", p->what,
                            from, run);
        }
        memcpy(p->text, p->data + run, p->at - run);
        p->text += p->at - run;
        if (is_next(p, '"')) break;
        if (!is_next(p, '\\')) return fail(p, "the end of the string, with control characters escaped");
        DS4_TRY(read_escape(p));
    }
    p->at++;
    *text = (strview){start, (size_t)(p->text - start)};
    return DS4_OK;
}

static ds4_status read_word(parser *p, const char *word, json_type type, json_node *node) {
    size_t n = strlen(word);
    if (p->n - p->at < n || memcmp(p->data + p->at, word, n) != 0) return fail(p, "a value");
    p->at += n;
    node->type = type;
    return DS4_OK;
}

/* ---- the tree ---------------------------------------------------------------------------------- */

static json_node *new_node(parser *p) {
    if (p->n_nodes == 0) {
        p->nodes = arena_array(&p->doc->memory, NODES_AT_ONCE, sizeof *p->nodes);
        if (!p->nodes) return NULL;
        p->n_nodes = NODES_AT_ONCE;
    }
    p->n_nodes--;
    return p->nodes++;
}

static ds4_status read_value(parser *p, json_node *node, unsigned depth);

static ds4_status read_children(parser *p, json_node *parent, unsigned depth) {
    const bool is_object = parent->type == JSON_OBJECT;
    const char closer = is_object ? '}' : ']';
    if (depth >= JSON_MAX_DEPTH)
        return ds4_fail(p->err, DS4_EFORMAT, "%s: JSON at byte %zu: nested deeper than %d levels", p->what,
                        p->at, JSON_MAX_DEPTH);
    p->at++; /* the opener */
    skip_space(p);
    if (is_next(p, closer)) {
        p->at++;
        return DS4_OK;
    }
    for (json_node **tail = &parent->first;; tail = &(*tail)->next) {
        json_node *child = *tail = new_node(p);
        if (!child) return ds4_fail_nomem(p->err, "JSON", sizeof *child);
        parent->n_items++;
        skip_space(p);
        if (is_object) {
            if (!is_next(p, '"')) return fail(p, "the name of a member");
            DS4_TRY(read_string(p, &child->key));
            skip_space(p);
            if (!is_next(p, ':')) return fail(p, "':'");
            p->at++;
        }
        DS4_TRY(read_value(p, child, depth + 1));
        skip_space(p);
        if (is_next(p, closer)) break;
        if (!is_next(p, ',')) return fail(p, is_object ? "',' or '}'" : "',' or ']'");
        p->at++;
    }
    p->at++;
    return DS4_OK;
}

static ds4_status read_value(parser *p, json_node *node, unsigned depth) {
    skip_space(p);
    if (p->at >= p->n) return fail(p, "a value");
    switch (p->data[p->at]) {
    case '{': node->type = JSON_OBJECT; return read_children(p, node, depth);
    case '[': node->type = JSON_ARRAY; return read_children(p, node, depth);
    case '"': node->type = JSON_STRING; return read_string(p, &node->text);
    case 't': return read_word(p, "true", JSON_TRUE, node);
    case 'f': return read_word(p, "false", JSON_FALSE, node);
    case 'n': return read_word(p, "null", JSON_NULL, node);
    default:
        if (!is_next(p, '-') && !is_digit_next(p)) return fail(p, "a value");
        node->type = JSON_NUMBER;
        return read_number(p, &node->text);
    }
}

ds4_status json_parse(json_doc *doc, const char *data, size_t n, const char *what, ds4_error *err) {
    *doc = (json_doc){0};
    if (n > UINT32_MAX)
        return ds4_fail(err, DS4_EFORMAT, "%s: JSON of %zu bytes, expected less than 4 GiB", what, n);
    parser p = {.doc = doc, .data = data, .n = n, .what = what, .err = err};
    p.text = arena_alloc(&doc->memory, n + 1);
    doc->root = new_node(&p);
    ds4_status status = p.text && doc->root ? read_value(&p, doc->root, 0) : ds4_fail_nomem(err, what, n);
    if (status == DS4_OK) {
        skip_space(&p);
        if (p.at < n) status = fail(&p, "nothing after the value");
    }
    if (status != DS4_OK) json_release(doc);
    return status;
}

void json_release(json_doc *doc) {
    arena_release(&doc->memory);
    doc->root = NULL;
}

/* ---- reading the tree -------------------------------------------------------------------------- */

const json_node *json_get(const json_node *object, const char *key) {
    if (!object || object->type != JSON_OBJECT) return NULL;
    const strview    name = {key, strlen(key)};
    const json_node *found = NULL;
    for (const json_node *m = object->first; m; m = m->next)
        if (strview_equal(m->key, name)) found = m;
    return found;
}

static bool is_integer(strview text) {
    for (size_t i = 0; i < text.n; i++)
        if (text.data[i] == '.' || text.data[i] == 'e' || text.data[i] == 'E') return false;
    return true;
}

bool json_int(const json_node *node, int64_t *out) {
    if (!node || node->type != JSON_NUMBER || !is_integer(node->text)) return false;
    bool    is_negative = node->text.data[0] == '-';
    int64_t v = 0;
    for (size_t i = is_negative; i < node->text.n; i++) {
        int digit = node->text.data[i] - '0';
        if (__builtin_mul_overflow(v, 10, &v)) return false;
        if (__builtin_add_overflow(v, is_negative ? -digit : digit, &v)) return false;
    }
    *out = v;
    return true;
}

/* The exponent of number text, clamped to +-limit, far beyond what any double has. */
static long exponent_of(strview digits, long limit) {
    bool is_negative = digits.n && digits.data[0] == '-';
    long e = 0;
    for (size_t i = 0; i < digits.n; i++) {
        if (digits.data[i] == '-' || digits.data[i] == '+') continue;
        if (e < limit) e = e * 10 + (digits.data[i] - '0');
    }
    if (e > limit) e = limit;
    return is_negative ? -e : e;
}

/* strtod without a decimal point, which would be the locale's: "1.25e3" is read as "125e1". */
static bool to_double(strview text, double *out) {
    char  on_stack[64], *copy = on_stack;
    if (text.n + 32 > sizeof on_stack) copy = malloc(text.n + 32);
    if (!copy) return false;
    size_t n = 0, at = 0;
    long   exponent = 0;
    bool   is_fraction = false;
    for (; at < text.n && text.data[at] != 'e' && text.data[at] != 'E'; at++) {
        if (text.data[at] == '.') {
            is_fraction = true;
            continue;
        }
        copy[n++] = text.data[at];
        exponent -= is_fraction;
    }
    if (at < text.n)
        exponent += exponent_of((strview){text.data + at + 1, text.n - at - 1}, 1000000000L);
    snprintf(copy + n, 32, "e%ld", exponent);
    *out = strtod(copy, NULL);
    if (copy != on_stack) free(copy);
    return true;
}

bool json_double(const json_node *node, double *out) {
    return node && node->type == JSON_NUMBER && to_double(node->text, out);
}

const char *json_type_name(const json_node *node) {
    static const char *const names[] = {"null", "false", "true", "number", "string", "array", "object"};
    return node ? names[node->type] : "nothing";
}

/* ---- members ----------------------------------------------------------------------------------- */

typedef struct {
    const json_node *member;
    uint32_t         at;
} placed_member;

static int compare_names(const void *a, const void *b) {
    const placed_member *x = a, *y = b;
    const strview        s = x->member->key, t = y->member->key;
    int                  order = memcmp(s.data, t.data, s.n < t.n ? s.n : t.n);
    if (order == 0) order = (s.n > t.n) - (s.n < t.n);
    if (order == 0) order = (x->at > y->at) - (x->at < y->at);
    return order;
}

/* values[i] <- what stands at the place of member i; NULL for the later ones of a name. */
static void resolve_members(placed_member *sorted, uint32_t n, const json_node **values) {
    qsort(sorted, n, sizeof *sorted, compare_names);
    for (uint32_t i = 0, from = 0; i < n; i++) {
        if (!strview_equal(sorted[i].member->key, sorted[from].member->key)) from = i;
        if (i > from) values[sorted[i].at] = NULL;
        values[sorted[from].at] = sorted[i].member;
    }
}

bool json_take_members(const json_node *object, const json_node ***members, size_t *n) {
    const size_t      n_room = (size_t)object->n_items + 1;
    const json_node **values = malloc(n_room * sizeof *values);
    placed_member    *sorted = malloc(n_room * sizeof *sorted);
    if (!values || !sorted) {
        free(values);
        free(sorted);
        return false;
    }
    uint32_t n_all = 0;
    for (const json_node *m = object->first; m; m = m->next, n_all++)
        sorted[n_all] = (placed_member){m, n_all};
    resolve_members(sorted, n_all, values);
    free(sorted);

    *n = 0;
    for (uint32_t i = 0; i < n_all; i++)
        if (values[i]) values[(*n)++] = values[i];
    *members = values;
    return true;
}

/* ---- writing ----------------------------------------------------------------------------------- */

void json_write_string(strbuf *out, strview text) {
    static const char plain[] = "\"\\\n\r\t\b\f", escaped[] = "\"\\nrtbf";
    if (text.n == 0) text.data = ""; /* it may be NULL, which has no places */
    strbuf_putc(out, '"');
    size_t run = 0;
    for (size_t i = 0; i <= text.n; i++) {
        unsigned char c = i < text.n ? (unsigned char)text.data[i] : 0;
        if (i < text.n && c >= 0x20 && c != '"' && c != '\\') continue;
        strbuf_append(out, text.data + run, i - run);
        run = i + 1;
        if (i == text.n) break;
        const char *found = c ? strchr(plain, c) : NULL;
        if (found) strbuf_printf(out, "\\%c", escaped[found - plain]);
        else strbuf_printf(out, "\\u%04x", c);
    }
    strbuf_putc(out, '"');
}

static bool reads_back(const char *digits, int n, int point, double v) {
    char text[48];
    snprintf(text, sizeof text, "%.*se%d", n, digits, point - n);
    return strtod(text, NULL) == v;
}

/* The next greater number of n digits. */
static void increment(char *digits, int n, int *point) {
    while (n > 0 && digits[n - 1] == '9') digits[--n] = '0';
    if (n > 0) {
        digits[n - 1]++;
    } else {
        digits[0] = '1';
        ++*point;
    }
}

/* The fewest significant digits that read back as v > 0: digits[] and v = 0.d1d2... * 10^*point. */
static void shortest_digits(double v, char digits[LONGEST_DOUBLE + 1], int *n_digits, int *point) {
    /* If DBL_DIG digits or less are enough, rounding to DBL_DIG gives them, and zeros. That does not
     * hold for subnormal numbers. */
    int n = v >= DBL_MIN ? DBL_DIG : 1, exponent;
    /* Below a power of two the next double is half as far away as above it: the nearest number of n
     * digits may be too far below it while the next greater one is near enough. */
    const bool is_power = frexp(v, &exponent) == 0.5;
    for (;; n++) {
        char text[48], *at = text;
        snprintf(text, sizeof text, "%.*e", n - 1, v);
        for (int i = 0; *at != 'e'; at++)
            if (*at >= '0' && *at <= '9') digits[i++] = *at;
        *point = atoi(at + 1) + 1;
        if (n == LONGEST_DOUBLE || reads_back(digits, n, *point, v)) break;
        if (!is_power) continue;
        increment(digits, n, point);
        if (reads_back(digits, n, *point, v)) break;
    }
    while (n > 1 && digits[n - 1] == '0') n--;
    *n_digits = n;
}

void json_write_double(strbuf *out, double v) {
    if (signbit(v)) strbuf_putc(out, '-');
    v = fabs(v);
    if (isinf(v)) {
        strbuf_puts(out, "Infinity");
        return;
    }
    if (v == 0) {
        strbuf_puts(out, "0.0");
        return;
    }
    char digits[LONGEST_DOUBLE + 1];
    int  n, point;
    shortest_digits(v, digits, &n, &point);
    const int exponent = point - 1;
    if (exponent < -4 || exponent >= 16) {
        strbuf_putc(out, digits[0]);
        if (n > 1) strbuf_putc(out, '.');
        strbuf_append(out, digits + 1, (size_t)n - 1);
        strbuf_printf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (point <= 0) {
        strbuf_puts(out, "0.");
        for (int i = point; i < 0; i++) strbuf_putc(out, '0');
        strbuf_append(out, digits, (size_t)n);
        return;
    }
    for (int i = 0; i < point; i++) strbuf_putc(out, i < n ? digits[i] : '0');
    strbuf_putc(out, '.');
    if (n > point) strbuf_append(out, digits + point, (size_t)(n - point));
    else strbuf_putc(out, '0');
}

static void write_object(strbuf *out, const json_node *object) {
    const json_node **members;
    size_t            n;
    if (!json_take_members(object, &members, &n)) {
        out->is_failed = true;
        return;
    }
    strbuf_putc(out, '{');
    for (size_t i = 0; i < n; i++) {
        if (i) strbuf_puts(out, ", ");
        json_write_string(out, members[i]->key);
        strbuf_puts(out, ": ");
        json_write_python(out, members[i]);
    }
    strbuf_putc(out, '}');
    free(members);
}

static void write_number(strbuf *out, strview text) {
    double v;
    if (is_integer(text)) strbuf_view(out, strview_equal(text, STRVIEW("-0")) ? STRVIEW("0") : text);
    else if (to_double(text, &v)) json_write_double(out, v);
    else out->is_failed = true;
}

void json_write_python(strbuf *out, const json_node *node) {
    switch (node->type) {
    case JSON_NULL:
    case JSON_FALSE:
    case JSON_TRUE: strbuf_puts(out, json_type_name(node)); break;
    case JSON_NUMBER: write_number(out, node->text); break;
    case JSON_STRING: json_write_string(out, node->text); break;
    case JSON_OBJECT: write_object(out, node); break;
    case JSON_ARRAY:
        strbuf_putc(out, '[');
        for (const json_node *item = node->first; item; item = item->next) {
            if (item != node->first) strbuf_puts(out, ", ");
            json_write_python(out, item);
        }
        strbuf_putc(out, ']');
        break;
    }
}
