#include "base/hash.h"

#include <string.h>

static const uint64_t P1 = 0x9E3779B185EBCA87u, P2 = 0xC2B2AE3D27D4EB4Fu, P3 = 0x165667B19E3779F9u,
                      P4 = 0x85EBCA77C2B2AE63u, P5 = 0x27D4EB2F165667C5u;

static uint64_t rotate(uint64_t x, int n) {
    return (x << n) | (x >> (64 - n));
}

static uint64_t load64(const uint8_t *p) {
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

static uint64_t mix_lane(uint64_t lane, uint64_t input) {
    return rotate(lane + input * P2, 31) * P1;
}

static uint64_t merge_lane(uint64_t h, uint64_t lane) {
    return (h ^ mix_lane(0, lane)) * P1 + P4;
}

void hash64_init(hash64_stream *h, uint64_t seed) {
    *h = (hash64_stream){.lane = {seed + P1 + P2, seed + P2, seed, seed - P1}, .seed = seed};
}

static void mix_stripe(hash64_stream *h, const uint8_t *p) {
    for (int i = 0; i < 4; i++) h->lane[i] = mix_lane(h->lane[i], load64(p + 8 * i));
}

void hash64_update(hash64_stream *h, const void *data, size_t n) {
    const uint8_t *p = data;
    h->n_total += n;
    if (h->n_tail) {
        size_t n_take = 32 - h->n_tail < n ? 32 - h->n_tail : n;
        if (n_take) memcpy(h->tail + h->n_tail, p, n_take);
        h->n_tail += n_take;
        p += n_take;
        n -= n_take;
        if (h->n_tail < 32) return;
        mix_stripe(h, h->tail);
        h->n_tail = 0;
    }
    for (; n >= 32; p += 32, n -= 32) mix_stripe(h, p);
    if (n) memcpy(h->tail, p, n);
    h->n_tail = n;
}

uint64_t hash64_finish(const hash64_stream *h) {
    uint64_t r;
    if (h->n_total >= 32) {
        r = rotate(h->lane[0], 1) + rotate(h->lane[1], 7) + rotate(h->lane[2], 12) +
            rotate(h->lane[3], 18);
        for (int i = 0; i < 4; i++) r = merge_lane(r, h->lane[i]);
    } else {
        r = h->seed + P5;
    }
    r += h->n_total;

    const uint8_t *p = h->tail;
    size_t n = h->n_tail;
    for (; n >= 8; p += 8, n -= 8) r = rotate(r ^ mix_lane(0, load64(p)), 27) * P1 + P4;
    if (n >= 4) {
        uint64_t word = (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 |
                        (uint64_t)p[3] << 24;
        r = rotate(r ^ word * P1, 23) * P2 + P3;
        p += 4;
        n -= 4;
    }
    for (; n; p++, n--) r = rotate(r ^ *p * P5, 11) * P1;
    r = (r ^ r >> 33) * P2;
    r = (r ^ r >> 29) * P3;
    return r ^ r >> 32;
}

uint64_t hash64(const void *data, size_t n, uint64_t seed) {
    hash64_stream h;
    hash64_init(&h, seed);
    hash64_update(&h, data, n);
    return hash64_finish(&h);
}
