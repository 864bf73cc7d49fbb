/* strbuf.h - a growing byte string. Bytes may be anything, NUL included; lengths count.
 *
 *   Owner    The caller stores the struct (zeroed = empty) and releases it, or takes the bytes.
 *   Errors   Appending never fails loudly: `is_failed` is set when memory runs out and later appends
 *            do nothing, so that a writer checks once at its end with strbuf_check. */
#ifndef DS4_BASE_STRBUF_H
#define DS4_BASE_STRBUF_H

#include "base/status.h"

typedef struct {
    char  *data; /* terminated by a NUL that n does not count; NULL while nothing was appended */
    size_t n;
    size_t n_cap;
    bool   is_failed;
} strbuf;

/* A borrowed byte string. */
typedef struct {
    const char *data;
    size_t      n;
} strview;

#define STRVIEW(literal) ((strview){literal, sizeof(literal) - 1})

void strbuf_append(strbuf *b, const void *data, size_t n);
void strbuf_puts(strbuf *b, const char *terminated);
void strbuf_putc(strbuf *b, char c);
void strbuf_view(strbuf *b, strview s);
void strbuf_printf(strbuf *b, const char *fmt, ...) DS4_PRINTF(2, 3);
/* Makes room for n more bytes, so that the next n bytes of appends allocate nothing. */
void strbuf_reserve(strbuf *b, size_t n);
/* Shortens to n bytes; n <= b->n. */
void strbuf_truncate(strbuf *b, size_t n);
/* DS4_ENOMEM naming `what` if an append failed. */
ds4_status strbuf_check(const strbuf *b, const char *what, ds4_error *err);
/* Hands the terminated bytes over (free with free()); b is empty again. Never NULL unless failed. */
char *strbuf_take(strbuf *b, size_t *n);
void strbuf_release(strbuf *b);

bool strview_equal(strview a, strview b);
bool strview_starts(strview s, strview prefix);

#endif
