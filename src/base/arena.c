#include "base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_ALIGN = 64, ARENA_BLOCK_BYTES = 64 * 1024 };

typedef struct arena_block {
    struct arena_block *previous;
    size_t n_used; /* from the aligned start; <= n_cap */
    size_t n_cap;
} arena_block;

static unsigned char *block_start(arena_block *block) {
    uintptr_t p = (uintptr_t)(block + 1);
    return (unsigned char *)((p + ARENA_ALIGN - 1) & ~(uintptr_t)(ARENA_ALIGN - 1));
}

void *arena_alloc(arena *a, size_t n_bytes) {
    if (n_bytes > SIZE_MAX / 2) return NULL;
    size_t n = (n_bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (n == 0) n = ARENA_ALIGN;

    if (!a->last || a->last->n_cap - a->last->n_used < n) {
        size_t n_cap = n > ARENA_BLOCK_BYTES ? n : ARENA_BLOCK_BYTES;
        /* calloc: big blocks come lazily zeroed from the system and cost nothing until touched. */
        arena_block *block = calloc(1, sizeof *block + n_cap + ARENA_ALIGN);
        if (!block) return NULL;
        block->n_cap = n_cap;
        block->previous = a->last;
        a->last = block;
    }
    void *p = block_start(a->last) + a->last->n_used;
    a->last->n_used += n;
    a->n_bytes += n;
    return p;
}

void *arena_array(arena *a, size_t n_items, size_t item_bytes) {
    size_t n_bytes;
    if (__builtin_mul_overflow(n_items, item_bytes, &n_bytes)) return NULL;
    return arena_alloc(a, n_bytes);
}

char *arena_strdup(arena *a, const char *s, size_t n) {
    if (n == SIZE_MAX) return NULL;
    char *copy = arena_alloc(a, n + 1);
    if (copy && n) memcpy(copy, s, n);
    return copy;
}

void arena_release(arena *a) {
    for (arena_block *block = a->last; block;) {
        arena_block *previous = block->previous;
        free(block);
        block = previous;
    }
    *a = (arena){0};
}
