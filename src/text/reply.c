/* The public ds4_reply: from the model's text to events.
 *
 *   bytes --whole characters--> reasoning --</think>--> content --<--> block of calls --> done
 *                                   |                      |                               ^
 *                                   +------- end marker ---+-------------------------------+
 *
 * Bytes that are not UTF-8 become U+FFFD on the way in, so that all events are valid UTF-8. In
 * reasoning and content a '<' starts text that is held back while it may become one of the markers
 * that end this part. In content it is then offered to the reader of tool calls, together with up
 * to two newlines before it, which would belong to the block; what that gives back is content. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/markers.h"
#include "text/toolcall.h"

enum { HELD_MAX = 32, NEWLINES_MAX = 2 };

struct ds4_reply {
    reply_queue out;
    tool_list   tools;
    toolcall    call;
    bool        reads_calls; /* false: all blocks are content */
    enum { IN_REASONING, IN_CONTENT, IN_BLOCK, IS_OVER } place;
    bool   is_finished;
    bool   has_begun;      /* something of the reasoning was read */
    size_t n_newlines;     /* <= NEWLINES_MAX: content that is held back */
    char   held[HELD_MAX]; /* [n_held] start of a marker; 0: none */
    size_t n_held;
    char   tail[4]; /* [n_tail] start of a character */
    size_t n_tail;
};

/* ---- content ---- */

/* Those that were held back belong to no block. */
static void put_newlines(ds4_reply *r) {
    reply_queue_put(&r->out, DS4_REPLY_CONTENT, (strview){"\n\n", r->n_newlines});
    r->n_newlines = 0;
}

/* All but the last newlines, which may belong to a block. */
static void put_content(ds4_reply *r, strview text) {
    size_t n_end = 0;
    while (n_end < text.n && n_end < NEWLINES_MAX && text.data[text.n - 1 - n_end] == '\n') n_end++;
    if (n_end == text.n) { /* newlines alone join those before */
        size_t n_all = r->n_newlines + n_end;
        size_t n_out = n_all > NEWLINES_MAX ? n_all - NEWLINES_MAX : 0;
        reply_queue_put(&r->out, DS4_REPLY_CONTENT, (strview){"\n\n", n_out});
        r->n_newlines = n_all - n_out;
        return;
    }
    put_newlines(r);
    reply_queue_put(&r->out, DS4_REPLY_CONTENT, (strview){text.data, text.n - n_end});
    r->n_newlines = n_end;
}

static void put_text(ds4_reply *r, strview text) {
    if (r->place == IN_CONTENT) {
        put_content(r, text);
        return;
    }
    r->has_begun = r->has_begun || text.n > 0;
    reply_queue_put(&r->out, DS4_REPLY_REASONING, text);
}

static void end_turn(ds4_reply *r) {
    if (r->place == IN_CONTENT) put_newlines(r);
    r->place = IS_OVER;
}

/* The end marker ends the turn, also in the text of a block that turned out to be none. */
static void put_broken_block(ds4_reply *r, strview text) {
    const strview eos = STRVIEW(MARKER_EOS);
    const char *end = text.n ? memmem(text.data, text.n, eos.data, eos.n) : NULL;
    if (end) text.n = (size_t)(end - text.data);
    put_content(r, text);
    if (end) end_turn(r);
}

/* ---- blocks ---- */

static void take_text(ds4_reply *r, const char *text, size_t n);

/* The block was none. What is to be read again is at most one tag, which cannot break a second time
 * other than as a whole: this recurs once. */
static void leave_broken_block(ds4_reply *r) {
    const strbuf *raw = &r->call.raw;
    size_t n_broken = r->call.n_broken, n_again = raw->n - n_broken;
    char again[CALL_TAG_MAX];
    r->place = raw->is_failed ? IS_OVER : IN_CONTENT;
    if (raw->is_failed || n_again > sizeof again) return;
    if (n_again) memcpy(again, raw->data + n_broken, n_again);
    put_broken_block(r, (strview){raw->data, n_broken});
    take_text(r, again, n_again);
}

static size_t feed_block(ds4_reply *r, const char *text, size_t n) {
    toolcall_state state;
    size_t n_taken = toolcall_feed(&r->call, text, n, &state);
    if (state == TOOLCALL_END) r->place = IS_OVER;
    if (state == TOOLCALL_BROKEN) leave_broken_block(r);
    return n_taken;
}

/* What is held may begin a block. */
static void enter_block(ds4_reply *r) {
    char text[HELD_MAX];
    size_t n = r->n_held;
    memcpy(text, r->held, n);
    toolcall_start(&r->call, (strview){"\n\n", r->n_newlines});
    r->n_newlines = 0;
    r->n_held = 0;
    r->place = IN_BLOCK;
    take_text(r, text, n);
}

/* ---- markers ---- */

typedef enum { NO_MARKER, END_MARKER, THINK_CLOSE, THINK_OPEN, SOME_MARKER } marker;

static marker match(strview text, strview full, marker which) {
    if (!strview_starts(full, text)) return NO_MARKER;
    return text.n == full.n ? which : SOME_MARKER;
}

/* The marker that the held text is; SOME_MARKER while it is only the start of one. */
static marker find_marker(const ds4_reply *r) {
    strview text = {r->held, r->n_held};
    marker found = match(text, STRVIEW(MARKER_EOS), END_MARKER);
    if (r->place == IN_CONTENT || found != NO_MARKER) return found;
    found = match(text, STRVIEW(MARKER_THINK_CLOSE), THINK_CLOSE);
    /* The prompt has opened the thinking already; the model may do so again. */
    if (found != NO_MARKER || r->has_begun) return found;
    return match(text, STRVIEW(MARKER_THINK_OPEN), THINK_OPEN);
}

static void take_marker(ds4_reply *r, marker found) {
    r->n_held = 0;
    r->has_begun = true;
    if (found == THINK_CLOSE) r->place = IN_CONTENT;
    if (found == END_MARKER) end_turn(r);
}

/* What is held is no marker. */
static void release_held(ds4_reply *r) {
    strview held = {r->held, r->n_held};
    if (r->place == IN_CONTENT && r->reads_calls) {
        enter_block(r);
        return;
    }
    r->n_held = 0;
    put_text(r, held);
}

static size_t char_bytes(const char *text, size_t n) {
    int32_t code;
    return utf8_decode(text, n, &code);
}

/* Reasoning or content: a run of text, or one character of what may be a marker. */
static size_t feed_text(ds4_reply *r, const char *text, size_t n) {
    if (r->n_held == 0) {
        const char *tag = memchr(text, '<', n);
        size_t n_run = tag ? (size_t)(tag - text) : n;
        put_text(r, (strview){text, n_run});
        if (!tag) return n;
        r->held[0] = '<';
        r->n_held = 1;
        return n_run + 1;
    }
    size_t n_char = char_bytes(text, n); /* all markers are shorter than `held` */
    memcpy(r->held + r->n_held, text, n_char);
    r->n_held += n_char;
    marker found = find_marker(r);
    if (found == NO_MARKER) {
        r->n_held -= n_char;
        release_held(r);
        return 0;
    }
    if (found != SOME_MARKER) take_marker(r, found);
    return n_char;
}

/* ---- the stream ---- */

/* Whole characters. */
static void take_text(ds4_reply *r, const char *text, size_t n) {
    for (size_t at = 0; at < n && r->place != IS_OVER;) {
        if (r->place == IN_BLOCK) at += feed_block(r, text + at, n - at);
        else at += feed_text(r, text + at, n - at);
    }
}

/* Bytes that end with a whole character, valid or not. */
static void take_bytes(ds4_reply *r, const char *bytes, size_t n) {
    size_t run = 0;
    for (size_t at = 0; at < n;) {
        int32_t code;
        size_t n_char = utf8_decode(bytes + at, n - at, &code);
        if (code < 0) {
            take_text(r, bytes + run, at - run);
            take_text(r, "\xEF\xBF\xBD", 3);
            run = at + n_char;
        }
        at += n_char;
    }
    take_text(r, bytes + run, n - run);
}

/* Completes the character that the last feed has cut; returns how many bytes that took. */
static size_t complete_tail(ds4_reply *r, const char *text, size_t n) {
    size_t at = 0;
    while (r->n_tail > 0 && at < n) {
        r->tail[r->n_tail++] = text[at++];
        size_t n_whole = utf8_complete_prefix(r->tail, r->n_tail);
        take_bytes(r, r->tail, n_whole);
        memmove(r->tail, r->tail + n_whole, r->n_tail - n_whole);
        r->n_tail -= n_whole;
    }
    return at;
}

static ds4_status check(const ds4_reply *r, ds4_error *err) {
    DS4_TRY(toolcall_check(&r->call, err));
    return reply_queue_check(&r->out, err);
}

ds4_status ds4_reply_create(ds4_reply **reply, const ds4_reply_options *options, ds4_reply_fn fn,
                            void *user, ds4_error *err) {
    if (!reply || !options || !fn)
        return ds4_fail(err, DS4_EINVAL, "reply: found no %s",
                        !reply ? "place for it" : !options ? "options" : "function to call");
    ds4_reply *r = calloc(1, sizeof *r);
    if (!r) return ds4_fail_nomem(err, "reply", sizeof *r);
    if (options->tools) {
        ds4_status status = tool_list_read(&r->tools, options->tools, options->n_tools, err);
        if (status != DS4_OK) {
            free(r);
            return status;
        }
        r->call.tools = &r->tools;
    }
    r->out.fn = fn;
    r->out.user = user;
    r->call.out = &r->out;
    r->reads_calls = !options->tools || !tool_list_is_empty(&r->tools);
    r->place = options->is_thinking ? IN_REASONING : IN_CONTENT;
    *reply = r;
    return DS4_OK;
}

void ds4_reply_destroy(ds4_reply *reply) {
    if (!reply) return;
    reply_queue_release(&reply->out);
    toolcall_release(&reply->call);
    tool_list_release(&reply->tools);
    free(reply);
}

ds4_status ds4_reply_feed(ds4_reply *reply, const char *text, size_t n, ds4_error *err) {
    if (reply->is_finished)
        return ds4_fail(err, DS4_EINVAL, "reply: found %zu bytes after its end", n);
    if (n && !text) return ds4_fail(err, DS4_EINVAL, "reply: found no text, expected %zu bytes", n);
    DS4_TRY(check(reply, err)); /* what has failed once cannot go on */
    size_t at = complete_tail(reply, text, n);
    if (at < n) {
        size_t n_whole = utf8_complete_prefix(text + at, n - at);
        take_bytes(reply, text + at, n_whole);
        reply->n_tail = n - at - n_whole;
        memcpy(reply->tail, text + at + n_whole, reply->n_tail);
    }
    DS4_TRY(check(reply, err));
    reply_queue_flush(&reply->out);
    return DS4_OK;
}

/* What is held back comes out, unless it may be the start of markup, or of a character, that the
 * limit has cut. */
static void finish_text(ds4_reply *r, bool is_cut) {
    if (!is_cut) take_bytes(r, r->tail, r->n_tail);
    r->n_tail = 0;
    if (r->n_held && is_cut) {
        r->n_held = r->n_newlines = 0;
    } else if (r->n_held) {
        strview held = {r->held, r->n_held};
        put_text(r, held);
    }
    if (r->place == IN_BLOCK && toolcall_finish(&r->call, is_cut) == TOOLCALL_BROKEN)
        leave_broken_block(r);
    end_turn(r);
}

ds4_status ds4_reply_finish(ds4_reply *reply, bool is_cut, ds4_error *err) {
    if (reply->is_finished) return DS4_OK;
    reply->is_finished = true;
    DS4_TRY(check(reply, err));
    finish_text(reply, is_cut);
    DS4_TRY(check(reply, err));
    reply_queue_flush(&reply->out);
    return DS4_OK;
}
