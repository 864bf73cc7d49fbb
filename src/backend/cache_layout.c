#include "backend/cache_layout.h"

#include <string.h>

#include "quant/grids.h"

static size_t round_up(size_t n, size_t unit) {
    return (n + unit - 1) / unit * unit;
}

size_t cache_kv_row_bytes(const cache_layer *l, bool is_packed) {
    if (!is_packed) return l->head_dim * sizeof(float);
    size_t n_codes = l->head_dim - l->rot_dim;
    return round_up(n_codes + l->rot_dim * sizeof(uint16_t) + (n_codes + FP8_BLOCK - 1) / FP8_BLOCK, 8);
}

size_t cache_index_row_bytes(const cache_layer *l, bool is_packed) {
    if (!is_packed) return l->index_dim * sizeof(float);
    return round_up((l->index_dim + 1) / 2 + (l->index_dim + FP4_BLOCK - 1) / FP4_BLOCK, 4);
}

uint32_t cache_part_cap(const cache_plan *plan, const cache_layer *l, cache_part part) {
    switch (part) {
    case CACHE_WINDOW:
        return l->window + plan->slack;
    case CACHE_U:
    case CACHE_Z:
        /* A row that closes looks back on its own window, and with two lanes on the one before. */
        return l->ratio ? cache_lanes(l) * l->ratio + plan->slack : 0;
    case CACHE_INDEX_U:
    case CACHE_INDEX_Z:
        return l->index_dim ? cache_lanes(l) * l->ratio + plan->slack : 0;
    case CACHE_ROWS:
        return l->ratio ? plan->n_ctx / l->ratio : 0;
    case CACHE_INDEX_ROWS:
        return l->index_dim ? plan->n_ctx / l->ratio : 0;
    case CACHE_N_PARTS:
        break;
    }
    return 0;
}

size_t cache_part_row_bytes(const cache_plan *plan, const cache_layer *l, cache_part part) {
    switch (part) {
    case CACHE_WINDOW:
    case CACHE_ROWS:
        return cache_kv_row_bytes(l, plan->is_packed);
    case CACHE_U:
    case CACHE_Z:
        return (size_t)cache_lanes(l) * l->head_dim * sizeof(float);
    case CACHE_INDEX_U:
    case CACHE_INDEX_Z:
        return (size_t)cache_lanes(l) * l->index_dim * sizeof(float);
    case CACHE_INDEX_ROWS:
        return cache_index_row_bytes(l, plan->is_packed);
    case CACHE_N_PARTS:
        break;
    }
    return 0;
}

static uint64_t sum_parts(const cache_plan *plan, cache_part from, cache_part to) {
    uint64_t n_bytes = 0;
    for (uint32_t i = 0; i < plan->n_layers; i++) {
        const cache_layer *l = &plan->layers[i];
        for (cache_part part = from; part < to; part++)
            n_bytes += (uint64_t)cache_part_cap(plan, l, part) * cache_part_row_bytes(plan, l, part);
    }
    return n_bytes;
}

uint64_t cache_fixed_bytes(const cache_plan *plan) {
    return sum_parts(plan, CACHE_WINDOW, CACHE_ROWS);
}

uint64_t cache_rows_bytes(const cache_plan *plan) {
    return sum_parts(plan, CACHE_ROWS, CACHE_N_PARTS);
}

void cache_part_held(const cache_plan *plan, const cache_layer *l, cache_part part, uint32_t n_pos,
                     uint32_t *first, uint32_t *n) {
    uint32_t cap = cache_part_cap(plan, l, part);
    *first = 0;
    if (cap == 0) {
        *n = 0;
    } else if (!cache_part_is_ring(part)) {
        *n = n_pos / l->ratio;
    } else {
        *n = n_pos < cap ? n_pos : cap;
        *first = n_pos - *n;
    }
}

uint64_t cache_stream_bytes(const cache_plan *plan, uint32_t n_pos) {
    uint64_t n_bytes = 0;
    for (uint32_t i = 0; i < plan->n_layers; i++) {
        const cache_layer *l = &plan->layers[i];
        for (cache_part part = 0; part < CACHE_N_PARTS; part++) {
            uint32_t first, n;
            cache_part_held(plan, l, part, n_pos, &first, &n);
            n_bytes += (uint64_t)n * cache_part_row_bytes(plan, l, part);
        }
    }
    return n_bytes;
}

void cache_kv_store(void *row, const float *x, const cache_layer *l, bool is_packed) {
    if (!is_packed) {
        memcpy(row, x, l->head_dim * sizeof *x);
        return;
    }
    uint32_t n_codes = l->head_dim - l->rot_dim;
    uint8_t *codes = row, *rotary = codes + n_codes;
    fp8_pack(codes, rotary + l->rot_dim * sizeof(uint16_t), x, n_codes);
    for (uint32_t i = 0; i < l->rot_dim; i++) {
        uint16_t bits = f32_to_bf16(x[n_codes + i]);
        memcpy(rotary + i * sizeof bits, &bits, sizeof bits);
    }
}

void cache_kv_load(float *x, const void *row, const cache_layer *l, bool is_packed) {
    if (!is_packed) {
        memcpy(x, row, l->head_dim * sizeof *x);
        return;
    }
    uint32_t       n_codes = l->head_dim - l->rot_dim;
    const uint8_t *codes = row, *rotary = codes + n_codes;
    fp8_unpack(x, codes, rotary + l->rot_dim * sizeof(uint16_t), n_codes);
    for (uint32_t i = 0; i < l->rot_dim; i++) {
        uint16_t bits;
        memcpy(&bits, rotary + i * sizeof bits, sizeof bits);
        x[n_codes + i] = bf16_to_f32(bits);
    }
}

void cache_index_store(void *row, const float *x, const cache_layer *l, bool is_packed) {
    uint8_t *codes = row;
    if (is_packed) fp4_pack(codes, codes + (l->index_dim + 1) / 2, x, l->index_dim);
    else memcpy(row, x, l->index_dim * sizeof *x);
}

void cache_index_load(float *x, const void *row, const cache_layer *l, bool is_packed) {
    const uint8_t *codes = row;
    if (is_packed) fp4_unpack(x, codes, codes + (l->index_dim + 1) / 2, l->index_dim);
    else memcpy(x, row, l->index_dim * sizeof *x);
}
