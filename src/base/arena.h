/* arena.h - memory for things that end together: many allocations, one release.
 *
 *   Owner    The caller stores the struct; everything allocated lives until arena_release.
 *   Threads  One thread at a time.
 *   Errors   NULL when the system has no memory; the arena stays usable. A zeroed struct is valid. */
#ifndef DS4_BASE_ARENA_H
#define DS4_BASE_ARENA_H

#include <stddef.h>

struct arena_block;

typedef struct {
    struct arena_block *last; /* blocks are chained from the newest to the oldest */
    size_t n_bytes;           /* handed out so far */
} arena;

/* Zeroed memory, aligned to 64 bytes (a cache line and the widest vector). */
void *arena_alloc(arena *a, size_t n_bytes);
/* Zeroed array; NULL if the product overflows. */
void *arena_array(arena *a, size_t n_items, size_t item_bytes);
/* A terminated copy of s[0..n). */
char *arena_strdup(arena *a, const char *s, size_t n);
void arena_release(arena *a);

#endif
