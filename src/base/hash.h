/* hash.h - 64-bit hashes for tables and for checksums of our own files (not for secrets).
 *
 *   Source   The XXH64 function as specified in the xxHash format description; the streaming form
 *            lets files be checked while they are written or read. */
#ifndef DS4_BASE_HASH_H
#define DS4_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash64(const void *data, size_t n, uint64_t seed);

typedef struct {
    uint64_t lane[4];
    uint64_t n_total;
    uint64_t seed;
    uint8_t  tail[32]; /* bytes not yet mixed in */
    size_t   n_tail;   /* < 32 */
} hash64_stream;

void hash64_init(hash64_stream *h, uint64_t seed);
void hash64_update(hash64_stream *h, const void *data, size_t n);
uint64_t hash64_finish(const hash64_stream *h);

#endif
