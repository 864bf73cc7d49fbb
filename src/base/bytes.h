/* bytes.h - a bounded cursor over little-endian bytes that came from outside.
 *
 *   Owner    Borrows the bytes.
 *   Errors   A read past the end sets `is_short`, yields zeros, and stays so: a parser may read a
 *            group of fields and check once. */
#ifndef DS4_BASE_BYTES_H
#define DS4_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const uint8_t *data;
    size_t         n;
    size_t         at; /* <= n */
    bool           is_short;
} bytes_cursor;

static inline bytes_cursor bytes_from(const void *data, size_t n) {
    return (bytes_cursor){.data = data, .n = n};
}

/* Lends the next n bytes, or NULL if there are fewer. */
static inline const uint8_t *bytes_take(bytes_cursor *c, uint64_t n) {
    if (c->is_short || n > c->n - c->at) {
        c->is_short = true;
        return NULL;
    }
    const uint8_t *p = c->data + c->at;
    c->at += (size_t)n;
    return p;
}

static inline uint64_t bytes_uint(bytes_cursor *c, unsigned n_bytes) {
    const uint8_t *p = bytes_take(c, n_bytes);
    uint64_t v = 0;
    if (p)
        for (unsigned i = n_bytes; i-- > 0;) v = v << 8 | p[i];
    return v;
}

static inline uint8_t bytes_u8(bytes_cursor *c) {
    return (uint8_t)bytes_uint(c, 1);
}
static inline uint16_t bytes_u16(bytes_cursor *c) {
    return (uint16_t)bytes_uint(c, 2);
}
static inline uint32_t bytes_u32(bytes_cursor *c) {
    return (uint32_t)bytes_uint(c, 4);
}
static inline uint64_t bytes_u64(bytes_cursor *c) {
    return bytes_uint(c, 8);
}
static inline float bytes_f32(bytes_cursor *c) {
    uint32_t bits = bytes_u32(c);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

#endif
