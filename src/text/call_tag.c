#include "text/call_tag.h"

#include <string.h>

#include "text/markers.h"

enum { WORD_MAX = 24 };

void call_tag_start(call_tag *t, unsigned allowed, bool is_lenient) {
    t->allowed = allowed;
    t->is_lenient = is_lenient;
    t->place = IN_HEAD;
    t->text[0] = '<';
    t->n = 1;
    t->name = (strview){0};
    t->has_type = t->is_string = false;
}

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_word_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
}

/* ---- the marker ---- */

typedef enum { NO, PARTLY, YES } match;

/* Whether s starts with `literal`, which is then removed, or may do so when it goes on. */
static match take(strview *s, strview literal) {
    if (s->n < literal.n) return strview_starts(literal, *s) ? PARTLY : NO;
    if (!strview_starts(*s, literal)) return NO;
    s->data += literal.n;
    s->n -= literal.n;
    return YES;
}

static match take_bar(strview *s) {
    match full = take(s, STRVIEW("｜"));
    return full != NO ? full : take(s, STRVIEW("|"));
}

/* Removes the marker. YES also if there is none. */
static match take_marker(strview *s, bool is_lenient) {
    if (!is_lenient) return take(s, STRVIEW(MARKER_DSML));
    match bar = take_bar(s);
    if (bar == PARTLY) return PARTLY;
    match name = take(s, STRVIEW("DSML"));
    if (name != YES) return name == NO && bar == NO ? YES : name;
    match last = take_bar(s);
    if (last == YES && s->n && s->data[0] == ' ') take(s, STRVIEW(" "));
    return last;
}

/* ---- the word ---- */

static bool fits(strview word, strview full, bool is_whole) {
    return is_whole ? strview_equal(word, full) : strview_starts(full, word);
}

static bool fits_block(const call_tag *t, strview word, bool is_whole, bool is_end) {
    strview usual = STRVIEW("tool_calls");
    if (fits(word, usual, is_whole)) return true;
    if (t->marker.n == 0) return fits(word, STRVIEW("function_calls"), is_whole);
    if (!t->is_lenient && !is_end) return false;
    bool is_other = fits(word, STRVIEW("invoke"), true) || fits(word, STRVIEW("parameter"), true);
    return !(is_whole && is_other) && word.n >= (is_whole ? 1 : 0) && word.n <= WORD_MAX;
}

/* The kind of tag that the word makes or, when it is not whole yet, may make; 0: none that may come. */
static unsigned kind_of(const call_tag *t, strview word, bool is_whole, bool is_end) {
    bool is_invoke = fits(word, STRVIEW("invoke"), is_whole);
    bool is_parameter = fits(word, STRVIEW("parameter"), is_whole);
    unsigned kinds = 0;
    if (is_invoke) kinds |= is_end ? TAG_INVOKE_END : TAG_INVOKE;
    if (is_parameter && !is_end) kinds |= TAG_PARAMETER;
    if (fits_block(t, word, is_whole, is_end)) kinds |= is_end ? TAG_BLOCK_END : TAG_BLOCK;
    return kinds & t->allowed;
}

/* Reads the head again with each character: it is short. */
static call_tag_state read_head(call_tag *t) {
    strview rest = {t->text + 1, t->n - 1};
    bool is_end = rest.n && rest.data[0] == '/';
    if (is_end) take(&rest, STRVIEW("/"));

    t->marker.data = rest.data;
    match marker = take_marker(&rest, t->is_lenient);
    if (marker != YES) return marker == PARTLY ? TAG_MORE : TAG_BAD;
    t->marker.n = (size_t)(rest.data - t->marker.data);
    t->is_exact = strview_equal(t->marker, STRVIEW(MARKER_DSML));

    strview word = {rest.data, 0};
    while (word.n < rest.n && is_word_char(word.data[word.n])) word.n++;
    bool     is_whole = word.n < rest.n;
    unsigned kind = kind_of(t, word, is_whole, is_end);
    if (!kind) return TAG_BAD;
    if (!is_whole) return TAG_MORE;

    /* One character follows the word: the first of what comes next. */
    char after = word.data[word.n];
    bool has_name = kind == TAG_INVOKE || kind == TAG_PARAMETER;
    t->kind = (call_tag_kind)kind;
    t->word = word;
    t->place = has_name ? BEFORE_NAME : BEFORE_END;
    t->n_prefix = 0;
    if (is_space(after)) return TAG_MORE;
    return after == '>' && !has_name ? TAG_DONE : TAG_BAD;
}

/* ---- attributes ---- */

static call_tag_state read_prefix(call_tag *t, char c) {
    static const char prefix[] = "name=\"";
    bool is_gap = t->n_prefix == 0 || t->n_prefix >= 4; /* around `name` and `=` */
    if (is_gap && is_space(c)) return TAG_MORE;
    if (c != prefix[t->n_prefix]) return TAG_BAD;
    if (prefix[++t->n_prefix]) return TAG_MORE;
    t->place = IN_NAME;
    t->name_at = t->n;
    t->quote_at = 0;
    return TAG_MORE;
}

static void trim_end(strview *s) {
    while (s->n && is_space(s->data[s->n - 1])) s->n--;
}

static bool drop_end(strview *s, strview end) {
    if (s->n < end.n || memcmp(s->data + s->n - end.n, end.data, end.n) != 0) return false;
    s->n -= end.n;
    return true;
}

/* Splits `KEY" string="true`, the text between the first and the last quote of a parameter. A key
 * alone may contain quotes too. */
static void split_type(call_tag *t) {
    strview key = t->name, value;
    while (key.n && key.data[key.n - 1] != '"') key.n--;
    value = (strview){key.data + key.n, t->name.n - key.n};
    if (!drop_end(&key, STRVIEW("\""))) return;
    trim_end(&key);
    if (!drop_end(&key, STRVIEW("="))) return;
    trim_end(&key);
    if (!drop_end(&key, STRVIEW("string"))) return;
    trim_end(&key);
    if (!drop_end(&key, STRVIEW("\""))) return;
    t->name = key;
    t->is_string = strview_equal(value, STRVIEW("true"));
    t->has_type = t->is_string || strview_equal(value, STRVIEW("false"));
}

static call_tag_state read_name(call_tag *t, char c) {
    if (c == '>' && t->quote_at) {
        t->name = (strview){t->text + t->name_at, t->quote_at - t->name_at};
        if (t->kind == TAG_PARAMETER) split_type(t);
        return TAG_DONE;
    }
    if (c == '"') t->quote_at = t->n - 1;
    else if (c == '\n' && !t->quote_at) return TAG_BAD; /* so that prose is not swallowed */
    else if (!is_space(c)) t->quote_at = 0;
    return TAG_MORE;
}

call_tag_state call_tag_put(call_tag *t, const char *c, size_t n) {
    if (n > CALL_TAG_MAX - t->n) return TAG_BAD;
    memcpy(t->text + t->n, c, n);
    t->n += (uint32_t)n;
    switch (t->place) {
    case IN_HEAD: return read_head(t);
    case BEFORE_NAME: return read_prefix(t, c[0]);
    case IN_NAME: return read_name(t, c[0]);
    case BEFORE_END: break;
    }
    if (c[0] == '>') return TAG_DONE;
    return is_space(c[0]) ? TAG_MORE : TAG_BAD;
}
