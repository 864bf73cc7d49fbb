/* Each sequence is followed by a Knuth-Morris-Pratt automaton of its own: `n_matched` is the length
 * of its longest prefix that the text ends with. The longest of them over all sequences is what may
 * still become a stop sequence, and is held back. A few short sequences are the rule, so one
 * automaton for all of them would gain nothing. */
#include "runtime/stops.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

typedef struct {
    const char *bytes;
    /* [n] fallback[i]: of the prefix of i + 1 bytes, the longest shorter prefix it ends with */
    uint16_t *fallback;
    uint32_t  n;
    uint32_t  n_matched; /* < n between two bytes */
} sequence;

struct stops {
    sequence list[STOPS_MAX];
    size_t   n_list;
    void    *memory; /* the bytes and fallbacks of all sequences */
    char     held[STOPS_MAX_BYTES];
    size_t   n_held; /* < the longest sequence */
    bool     is_complete;
};

ds4_status stops_create(stops **out, ds4_error *err) {
    stops *s = calloc(1, sizeof *s);
    if (!s) return ds4_fail_nomem(err, "stops", sizeof *s);
    *out = s;
    return DS4_OK;
}

void stops_destroy(stops *s) {
    if (!s) return;
    free(s->memory);
    free(s);
}

static ds4_status check_sequences(const char *const *sequences, size_t n, size_t *n_bytes,
                                  ds4_error *err) {
    if (n > STOPS_MAX)
        return ds4_fail(err, DS4_EINVAL, "stops: found %zu sequences, expected at most %d", n,
                        STOPS_MAX);
    if (n && !sequences)
        return ds4_fail(err, DS4_EINVAL, "stops: no list, expected %zu sequences", n);
    *n_bytes = 0;
    for (size_t i = 0; i < n; i++) {
        if (!sequences[i] || !sequences[i][0])
            return ds4_fail(err, DS4_EINVAL, "stops[%zu]: found no text", i);
        size_t length = strnlen(sequences[i], STOPS_MAX_BYTES + 1);
        if (length > STOPS_MAX_BYTES)
            return ds4_fail(err, DS4_EINVAL, "stops[%zu]: longer than %d bytes", i,
                            STOPS_MAX_BYTES);
        if (!utf8_is_valid(sequences[i], length))
            return ds4_fail(err, DS4_EINVAL, "stops[%zu]: not valid UTF-8", i);
        *n_bytes += length;
    }
    return DS4_OK;
}

/* Takes the next byte: the length of the longest prefix that the text ends with then. */
static uint32_t advance(const sequence *q, uint32_t n_matched, char byte) {
    while (n_matched > 0 && q->bytes[n_matched] != byte) n_matched = q->fallback[n_matched - 1];
    return n_matched + (q->bytes[n_matched] == byte);
}

static void prepare(sequence *q) {
    q->fallback[0] = 0;
    for (uint32_t i = 1; i < q->n; i++)
        q->fallback[i] = (uint16_t)advance(q, q->fallback[i - 1], q->bytes[i]);
}

ds4_status stops_start(stops *s, const char *const *sequences, size_t n, ds4_error *err) {
    size_t n_bytes = 0;
    DS4_TRY(check_sequences(sequences, n, &n_bytes, err));
    void *memory = NULL;
    if (n > 0) {
        memory = malloc(n_bytes * (sizeof(uint16_t) + 1));
        if (!memory) return ds4_fail_nomem(err, "stops", n_bytes * (sizeof(uint16_t) + 1));
    }
    free(s->memory);
    s->memory = memory;
    s->n_list = n;
    s->n_held = 0;
    s->is_complete = false;
    if (n == 0) return DS4_OK;

    uint16_t *fallback = memory;
    char     *bytes = (char *)memory + n_bytes * sizeof *fallback;
    for (size_t i = 0; i < n; i++) {
        uint32_t length = (uint32_t)strlen(sequences[i]);
        memcpy(bytes, sequences[i], length);
        s->list[i] = (sequence){bytes, fallback, length, 0};
        prepare(&s->list[i]);
        bytes += length;
        fallback += length;
    }
    return DS4_OK;
}

/* Moves every sequence on by one byte. Returns the length of the longest that is complete, or 0. */
static uint32_t take_byte(stops *s, char byte) {
    uint32_t n_complete = 0;
    for (size_t i = 0; i < s->n_list; i++) {
        sequence *q = &s->list[i];
        q->n_matched = advance(q, q->n_matched, byte);
        if (q->n_matched == q->n && q->n > n_complete) n_complete = q->n;
    }
    return n_complete;
}

static size_t longest_match(const stops *s) {
    size_t longest = 0;
    for (size_t i = 0; i < s->n_list; i++)
        if (s->list[i].n_matched > longest) longest = s->list[i].n_matched;
    return longest;
}

/* Appends the first n bytes of what was held followed by text; the rest of what was held stays. */
static void release(stops *s, strbuf *out, const char *text, size_t n) {
    size_t n_old = n < s->n_held ? n : s->n_held;
    strbuf_append(out, s->held, n_old);
    if (n > n_old) strbuf_append(out, text, n - n_old);
    memmove(s->held, s->held + n_old, s->n_held - n_old);
    s->n_held -= n_old;
}

bool stops_feed(stops *s, strbuf *out, const char *text, size_t n) {
    if (s->is_complete) return true;
    for (size_t i = 0; i < n; i++) {
        uint32_t n_complete = take_byte(s, text[i]);
        if (n_complete == 0) continue;
        /* It starts at or behind the first byte held: all its proper prefixes were held. */
        release(s, out, text, s->n_held + i + 1 - n_complete);
        s->n_held = 0;
        s->is_complete = true;
        return true;
    }
    size_t n_keep = longest_match(s);
    size_t n_release = s->n_held + n - n_keep;
    size_t n_text_out = n_release > s->n_held ? n_release - s->n_held : 0;
    release(s, out, text, n_release);
    if (n > n_text_out) memcpy(s->held + s->n_held, text + n_text_out, n - n_text_out);
    s->n_held += n - n_text_out;
    return false;
}

void stops_finish(stops *s, strbuf *out) {
    if (s->is_complete) return;
    strbuf_append(out, s->held, s->n_held);
    s->n_held = 0;
    for (size_t i = 0; i < s->n_list; i++) s->list[i].n_matched = 0;
}
