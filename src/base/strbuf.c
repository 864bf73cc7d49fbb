#include "base/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for n more bytes and the terminator. */
static bool grow(strbuf *b, size_t n) {
    if (b->is_failed) return false;
    if (n > SIZE_MAX / 4 || b->n > SIZE_MAX / 4) {
        b->is_failed = true;
        return false;
    }
    size_t n_needed = b->n + n + 1;
    if (n_needed <= b->n_cap) return true;
    size_t n_cap = b->n_cap ? b->n_cap : 64;
    while (n_cap < n_needed) n_cap *= 2;
    char *data = realloc(b->data, n_cap);
    if (!data) {
        b->is_failed = true;
        return false;
    }
    b->data = data;
    b->n_cap = n_cap;
    return true;
}

void strbuf_append(strbuf *b, const void *data, size_t n) {
    if (!grow(b, n)) return;
    if (n) memcpy(b->data + b->n, data, n);
    b->n += n;
    b->data[b->n] = 0;
}

void strbuf_puts(strbuf *b, const char *terminated) {
    strbuf_append(b, terminated, strlen(terminated));
}

void strbuf_putc(strbuf *b, char c) {
    strbuf_append(b, &c, 1);
}

void strbuf_view(strbuf *b, strview s) {
    strbuf_append(b, s.data, s.n);
}

void strbuf_printf(strbuf *b, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) {
        b->is_failed = true;
    } else if (grow(b, (size_t)n)) {
        vsnprintf(b->data + b->n, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
}

void strbuf_reserve(strbuf *b, size_t n) {
    grow(b, n);
}

void strbuf_truncate(strbuf *b, size_t n) {
    if (!b->data || n > b->n) return;
    b->n = n;
    b->data[n] = 0;
}

ds4_status strbuf_check(const strbuf *b, const char *what, ds4_error *err) {
    return b->is_failed ? ds4_fail_nomem(err, what, b->n_cap) : DS4_OK;
}

char *strbuf_take(strbuf *b, size_t *n) {
    if (!grow(b, 0)) {
        strbuf_release(b);
        return NULL;
    }
    b->data[b->n] = 0;
    char *data = b->data;
    if (n) *n = b->n;
    *b = (strbuf){0};
    return data;
}

void strbuf_release(strbuf *b) {
    free(b->data);
    *b = (strbuf){0};
}

bool strview_equal(strview a, strview b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.data, b.data, a.n) == 0);
}

bool strview_starts(strview s, strview prefix) {
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.data, prefix.data, prefix.n) == 0);
}
