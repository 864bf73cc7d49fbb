/* Any bytes as a session file: refused, or every byte of every section can be read. Checksums keep
 * a fuzzer out of the inside, so each input is tried again with its checksums put right. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "format/snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static uint64_t load(const uint8_t *p, unsigned n_bytes) {
    uint64_t v = 0;
    for (unsigned i = n_bytes; i-- > 0;) v = v << 8 | p[i];
    return v;
}

static void store_hash(uint8_t *at, const uint8_t *data, size_t n) {
    uint64_t hash = hash64(data, n, 0);
    for (unsigned i = 0; i < 8; i++) at[i] = (uint8_t)(hash >> 8 * i);
}

/* Puts the checksums right as far as headers and payloads lie in the data. */
static void repair(uint8_t *data, size_t n) {
    if (n < 32) return;
    store_hash(data + 24, data, 24);
    for (size_t at = 32; n - at >= 32;) {
        uint8_t *header = data + at;
        uint64_t n_bytes = load(header + 8, 8), n_left = n - at - 32;
        if (n_bytes <= n_left) store_hash(header + 16, header + 32, (size_t)n_bytes);
        store_hash(header + 24, header, 24);
        if (n_bytes > n_left || n_left - n_bytes < (-n_bytes & 7)) return;
        at += 32 + (size_t)(n_bytes + (-n_bytes & 7));
    }
}

/* Opens, and finds all tags that may be there. */
static void try_open(const uint8_t *data, size_t n) {
    uint64_t  fingerprint = n >= 24 ? load(data + 16, 8) : 0;
    snapshot *s = NULL;
    ds4_error err = {0};
    ds4_status status = snapshot_open_memory(&s, data, n, fingerprint, &err);
    if (status != DS4_OK) {
        if (s || status != DS4_EFORMAT || err.code != status || !err.message[0]) abort();
        return;
    }
    for (size_t at = 32; at + 32 <= n; at += 8) {
        uint32_t       tag = (uint32_t)load(data + at, 4);
        const uint8_t *payload = NULL;
        size_t         n_payload = 0;
        if (!snapshot_find(s, tag, &payload, &n_payload)) continue;
        if (tag == 0 || payload < data || n_payload > n - (size_t)(payload - data)) abort();
    }
    snapshot_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    try_open(data, n);
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy) return 0;
    memcpy(copy, data, n);
    repair(copy, n);
    try_open(copy, n);
    free(copy);
    return 0;
}
