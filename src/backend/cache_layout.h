/* cache_layout.h - the bytes of a slot's caches: row formats, rings and the exported stream.
 *
 *   slot      fixed part: for each layer  window ring | u ring | z ring | index u ring | index z ring
 *             rows part:  for each layer  compressed rows | index rows
 *   ring      position p lies in row p % n_cap; u and z are floats [n_cap][lanes * d], z with ape added
 *   kv row    packed: e4m3 codes [head_dim - rot_dim] | bf16 [rot_dim] | ue8m0 [one per 64 codes] | pad to 8
 *             plain:  float [head_dim]
 *   index row packed: e2m1 codes, two to a byte | ue8m0 [one per 32] | pad to 4
 *             plain:  float [index_dim]
 *
 *   A ring holds what the next step needs plus `slack` positions, so that a rewind of at most slack
 *   positions finds everything in place: it only moves the position. Compressed rows are truncated by
 *   it, since row w of ratio m is there if and only if m * (w + 1) <= position.
 *
 *   Every backend uses these formats in its own memory; the exported stream is the parts above in this
 *   order for the positions held, so that a session moves between devices.
 *
 *   Threads  Pure functions. */
#ifndef DS4_BACKEND_CACHE_LAYOUT_H
#define DS4_BACKEND_CACHE_LAYOUT_H

#include "backend/types.h"

typedef enum {
    CACHE_WINDOW,
    CACHE_U,
    CACHE_Z,
    CACHE_INDEX_U,
    CACHE_INDEX_Z,
    CACHE_ROWS,
    CACHE_INDEX_ROWS,
    CACHE_N_PARTS,
} cache_part;

size_t cache_kv_row_bytes(const cache_layer *l, bool is_packed);
size_t cache_index_row_bytes(const cache_layer *l, bool is_packed);

/* Rows of the part that a slot has memory for; 0 if the layer has no such part. */
uint32_t cache_part_cap(const cache_plan *plan, const cache_layer *l, cache_part part);
size_t   cache_part_row_bytes(const cache_plan *plan, const cache_layer *l, cache_part part);

/* True for the parts that are rings by position, false for those that are arrays by row number. */
static inline bool cache_part_is_ring(cache_part part) {
    return part < CACHE_ROWS;
}

/* Bytes of one slot: the fixed part, and the rows of n_ctx positions. */
uint64_t cache_fixed_bytes(const cache_plan *plan);
uint64_t cache_rows_bytes(const cache_plan *plan);

/* The rows of a part that a slot with n_pos positions holds: [*first, *first + *n) by position for a
 * ring, by row number for an array. What the exported stream contains. */
void cache_part_held(const cache_plan *plan, const cache_layer *l, cache_part part, uint32_t n_pos,
                     uint32_t *first, uint32_t *n);
/* Length of the exported stream of a slot with n_pos positions. */
uint64_t cache_stream_bytes(const cache_plan *plan, uint32_t n_pos);

/* ---- rows ---- */

/* Stores x[head_dim], already on the grid, as a row. */
void cache_kv_store(void *row, const float *x, const cache_layer *l, bool is_packed);
void cache_kv_load(float *x, const void *row, const cache_layer *l, bool is_packed);
void cache_index_store(void *row, const float *x, const cache_layer *l, bool is_packed);
void cache_index_load(float *x, const void *row, const cache_layer *l, bool is_packed);

#endif
