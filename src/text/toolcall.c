#include "text/toolcall.h"

#include <string.h>

void toolcall_start(toolcall *t, strview before) {
    strbuf_truncate(&t->raw, 0);
    strbuf_view(&t->raw, before);
    t->place = AT_OPENER;
    t->trust = BY_TEXT;
    t->is_in_tag = t->is_announced = false;
    t->n_calls = 0;
}

/* ---- endings ---- */

/* Takes back what was not passed on. The text up to n_broken becomes content. */
static toolcall_state give_up(toolcall *t, size_t n_broken) {
    reply_queue_discard(t->out);
    if (t->is_announced) reply_queue_put(t->out, DS4_REPLY_CALL_DROPPED, (strview){0});
    t->is_announced = false;
    /* Behind a complete call it is text after the calls, which nobody wants. */
    if (t->place == AT_INVOKE && t->trust != BY_BLOCK && t->n_calls > 0) return TOOLCALL_END;
    t->n_broken = n_broken;
    return TOOLCALL_BROKEN;
}

/* A tag that fits nowhere here may be the start of something else, unless it was the first: that
 * one was read as what it may be already. */
static toolcall_state give_up_at_tag(toolcall *t) {
    return give_up(t, t->place == AT_OPENER ? t->raw.n : t->tag_at);
}

/* The block has been closed. */
static toolcall_state end_block(toolcall *t) {
    if (t->trust != BY_TEXT && t->n_calls == 0) return give_up(t, t->raw.n);
    reply_queue_confirm(t->out);
    return TOOLCALL_END;
}

/* ---- values ---- */

static void put_arguments(toolcall *t, strview text) {
    reply_queue_put(t->out, DS4_REPLY_ARGUMENTS, text);
}

/* A piece of a JSON string, without quotes. */
static void put_escaped(toolcall *t, strview text) {
    strbuf_truncate(&t->scratch, 0);
    json_write_string(&t->scratch, text);
    if (!t->scratch.is_failed)
        put_arguments(t, (strview){t->scratch.data + 1, t->scratch.n - 2});
}

static void put_quoted(toolcall *t, strview text) {
    put_arguments(t, STRVIEW("\""));
    put_escaped(t, text);
    put_arguments(t, STRVIEW("\""));
}

/* Whether text is one JSON value that is still readable inside the arguments' object. */
static bool is_json(toolcall *t, strview text) {
    json_doc doc = {0};
    strbuf_truncate(&t->scratch, 0);
    strbuf_putc(&t->scratch, '[');
    strbuf_view(&t->scratch, text);
    strbuf_putc(&t->scratch, ']');
    if (t->scratch.is_failed) return false;
    ds4_status status = json_parse(&doc, t->scratch.data, t->scratch.n, "value", NULL);
    if (status == DS4_ENOMEM) t->scratch.is_failed = true;
    bool is_one = status == DS4_OK && doc.root->n_items == 1;
    json_release(&doc);
    return is_one;
}

static void end_value(toolcall *t) {
    t->place = AT_PARAMETER;
    if (t->raw.is_failed) return; /* the places in it are not true */
    strview text = {t->raw.data + t->value_at, t->raw.n - t->n_closer - t->value_at};
    if (t->value == IS_STRING) put_arguments(t, STRVIEW("\""));
    else if ((t->value == IS_JSON && !t->tools) || is_json(t, text)) put_arguments(t, text);
    else put_quoted(t, text);
}

static void put_value(toolcall *t, strview text) {
    if (t->value == IS_STRING) put_escaped(t, text);
}

static size_t char_bytes(char lead) {
    unsigned char c = (unsigned char)lead;
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

/* Takes a run of text, or a character of the closing tag, whose only '<' is its first. */
static size_t feed_value(toolcall *t, const char *text, size_t n) {
    if (t->n_closed == 0) {
        const char *tag = memchr(text, '<', n);
        size_t n_run = tag ? (size_t)(tag - text) : n;
        put_value(t, (strview){text, n_run});
        strbuf_append(&t->raw, text, n_run);
        if (!tag) return n;
        strbuf_putc(&t->raw, '<');
        t->n_closed = 1;
        return n_run + 1;
    }
    size_t n_char = char_bytes(text[0]);
    if (n_char > t->n_closer - t->n_closed || memcmp(t->closer + t->n_closed, text, n_char) != 0) {
        put_value(t, (strview){t->closer, t->n_closed});
        t->n_closed = 0;
        return 0;
    }
    strbuf_append(&t->raw, text, n_char);
    t->n_closed += n_char;
    if (t->n_closed == t->n_closer) end_value(t);
    return n_char;
}

/* ---- tags ---- */

static toolcall_state open_block(toolcall *t) {
    if (t->tag.is_exact && !strview_equal(t->tag.word, STRVIEW("tool_calls"))) {
        bool is_older = strview_equal(t->tag.word, STRVIEW("function_calls"));
        t->trust = is_older ? BY_BLOCK : BY_INVOKE;
    }
    t->place = AT_INVOKE;
    if (t->trust == BY_BLOCK) reply_queue_hold(t->out);
    return TOOLCALL_OPEN;
}

static toolcall_state open_call(toolcall *t) {
    if (t->place == AT_OPENER) {
        if (!t->tag.is_exact) return give_up_at_tag(t);
        t->trust = BY_INVOKE;
    }
    t->tool = t->tools ? tool_list_find(t->tools, t->tag.name) : NULL;
    if (t->trust != BY_TEXT && !t->tool) return give_up_at_tag(t);
    if (t->trust == BY_INVOKE) reply_queue_hold(t->out);
    if (t->trust == BY_TEXT) t->is_announced = true;
    t->n_parameters = 0;
    t->place = AT_PARAMETER;
    reply_queue_put(t->out, DS4_REPLY_CALL, t->tag.name);
    put_arguments(t, STRVIEW("{"));
    return TOOLCALL_OPEN;
}

static toolcall_state close_call(toolcall *t) {
    put_arguments(t, STRVIEW("}"));
    reply_queue_put(t->out, DS4_REPLY_CALL_END, (strview){0});
    t->n_calls++;
    t->place = AT_INVOKE;
    if (t->trust == BY_BLOCK) return TOOLCALL_OPEN; /* the end waits, even if the call has not */
    reply_queue_confirm(t->out);
    t->is_announced = false;
    strbuf_truncate(&t->raw, 0);
    return TOOLCALL_OPEN;
}

static toolcall_state open_value(toolcall *t) {
    const call_tag *tag = &t->tag;
    if (t->n_parameters++) put_arguments(t, STRVIEW(", "));
    put_quoted(t, tag->name);
    put_arguments(t, STRVIEW(": "));

    if (tag->has_type) t->value = tag->is_string ? IS_STRING : IS_JSON;
    else t->value = tool_excludes_string(t->tool, tag->name) ? IS_EITHER : IS_STRING;
    if (t->value == IS_STRING) put_arguments(t, STRVIEW("\""));

    size_t n = 0;
    const strview parts[] = {STRVIEW("</"), tag->marker, STRVIEW("parameter>")};
    for (size_t i = 0; i < 3; i++) {
        if (parts[i].n) memcpy(t->closer + n, parts[i].data, parts[i].n);
        n += parts[i].n;
    }
    t->n_closer = n;
    t->n_closed = 0;
    t->value_at = t->raw.n;
    t->place = AT_VALUE;
    return TOOLCALL_OPEN;
}

static toolcall_state take_tag(toolcall *t) {
    if (!t->tag.is_exact && t->trust != BY_BLOCK) {
        t->trust = BY_BLOCK;
        if (t->place != AT_OPENER) reply_queue_hold(t->out);
    }
    switch (t->tag.kind) {
    case TAG_BLOCK: return open_block(t);
    case TAG_BLOCK_END: return end_block(t);
    case TAG_INVOKE: return open_call(t);
    case TAG_INVOKE_END: return close_call(t);
    case TAG_PARAMETER: break;
    }
    return open_value(t);
}

static void start_tag(toolcall *t) {
    bool is_lenient = t->tools != NULL;
    unsigned allowed = TAG_PARAMETER | TAG_INVOKE_END;
    if (t->place == AT_OPENER) allowed = is_lenient ? TAG_BLOCK | TAG_INVOKE : TAG_BLOCK;
    if (t->place == AT_INVOKE) allowed = TAG_INVOKE | TAG_BLOCK_END;
    call_tag_start(&t->tag, allowed, is_lenient);
    t->is_in_tag = true;
    t->tag_at = t->raw.n;
    strbuf_putc(&t->raw, '<');
}

/* ---- the stream ---- */

/* Between tags: white space or the start of one. */
static size_t feed_gap(toolcall *t, char c, toolcall_state *state) {
    if (c == '<') {
        start_tag(t);
        return 1;
    }
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
        if (t->raw.n) strbuf_putc(&t->raw, c); /* else it belongs to the call before */
        return 1;
    }
    *state = give_up(t, t->raw.n);
    return 0;
}

static size_t feed_tag(toolcall *t, const char *text, toolcall_state *state) {
    size_t n_char = char_bytes(text[0]);
    call_tag_state tag = call_tag_put(&t->tag, text, n_char);
    if (tag == TAG_BAD) {
        *state = give_up_at_tag(t);
        return 0;
    }
    strbuf_append(&t->raw, text, n_char);
    if (tag == TAG_DONE) {
        t->is_in_tag = false;
        *state = take_tag(t);
    }
    return n_char;
}

size_t toolcall_feed(toolcall *t, const char *text, size_t n, toolcall_state *state) {
    size_t at = 0;
    *state = TOOLCALL_OPEN;
    while (at < n && *state == TOOLCALL_OPEN) {
        if (t->place == AT_VALUE) at += feed_value(t, text + at, n - at);
        else if (t->is_in_tag) at += feed_tag(t, text + at, state);
        else at += feed_gap(t, text[at], state);
    }
    return at;
}

toolcall_state toolcall_finish(toolcall *t, bool is_cut) {
    toolcall_state state = give_up(t, t->raw.n);
    return is_cut ? TOOLCALL_END : state;
}

ds4_status toolcall_check(const toolcall *t, ds4_error *err) {
    DS4_TRY(strbuf_check(&t->raw, "tool call", err));
    return strbuf_check(&t->scratch, "tool call", err);
}

void toolcall_release(toolcall *t) {
    strbuf_release(&t->raw);
    strbuf_release(&t->scratch);
}
