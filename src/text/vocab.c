#include "text/vocab.h"

#include "base/arena.h"
#include "base/checked.h"
#include "base/hash.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

/* A table that is at most half full and well mixed has runs below 100 slots even with millions of
 * entries; a longer one means that somebody chose the entries to collide. */
enum { MAX_PROBES = 512 };

typedef struct {
    int32_t left, right, result;
} merge;

typedef struct {
    strview text;
    int32_t id;
} marker;

struct vocab {
    arena memory;
    size_t n_tokens;
    char *bytes;   /* of all tokens, one after the other */
    size_t *first; /* [n_tokens + 1]; token i is bytes[first[i] .. first[i + 1]) */
    uint8_t *type; /* [n_tokens] vocab_type */
    int32_t byte_id[256];
    int32_t bos, eos;

    int32_t *normal_slot; /* [normal_mask + 1]: id by hash of the bytes, -1 empty */
    size_t normal_mask;

    merge *merges;        /* [n_merges] by rank */
    uint32_t *merge_slot; /* [1 << (64 - merge_shift)]: tag << 24 | rank, MERGE_EMPTY */
    unsigned merge_shift;

    marker *markers; /* [n_markers], sorted by text */
    size_t n_markers;
    bool marker_starts[256]; /* by first byte */
};

/* ---- the byte alphabet ---- */

/* The byte a character of the GPT-2 alphabet stands for; -1 if it is none of them. */
static int byte_of_char(int32_t code) {
    if (code >= 33 && code <= 255) return code < 127 || (code > 160 && code != 173) ? code : -1;
    if (code >= 256 && code < 256 + 33) return code - 256;       /* 0 .. 32 */
    if (code >= 289 && code < 289 + 34) return code - 289 + 127; /* 127 .. 160 */
    return code == 323 ? 173 : -1;
}

/* Writes the bytes of text to out, which has room for text.n of them. False outside the alphabet.
 */
static bool decode_alphabet(char *out, size_t *n_out, strview text) {
    size_t n = 0;
    for (size_t i = 0; i < text.n;) {
        int32_t code;
        i += utf8_decode(text.data + i, text.n - i, &code);
        int byte = byte_of_char(code);
        if (byte < 0) return false;
        out[n++] = (char)byte;
    }
    *n_out = n;
    return true;
}

/* ---- building ---- */

/* log2 of the number of slots for n entries at no more than half load. */
static unsigned table_bits(size_t n) {
    unsigned bits = 4;
    while (((size_t)1 << bits) / 2 < n) bits++;
    return bits;
}

static ds4_status read_tokens(vocab *v, const vocab_source *source, ds4_error *err) {
    size_t n = source->n_tokens;
    uint64_t n_bytes = 0;
    for (size_t i = 0; i < n; i++) {
        if (source->tokens[i].n == 0)
            return ds4_fail(err, DS4_EFORMAT, "vocab: token %zu: empty text", i);
        if (!checked_add(&n_bytes, n_bytes, source->tokens[i].n) || n_bytes > SIZE_MAX / 2)
            return ds4_fail(err, DS4_EFORMAT, "vocab: token %zu: total length overflows", i);
    }
    v->bytes = arena_alloc(&v->memory, (size_t)n_bytes);
    v->first = arena_array(&v->memory, n + 1, sizeof *v->first);
    v->type = arena_array(&v->memory, n, sizeof *v->type);
    if (!v->bytes || !v->first || !v->type) return ds4_fail_nomem(err, "vocab", (size_t)n_bytes);

    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        strview text = source->tokens[i];
        int32_t type = source->types[i];
        size_t n_token = text.n;
        if (type == VOCAB_NORMAL) {
            if (!decode_alphabet(v->bytes + at, &n_token, text))
                return ds4_fail(err, DS4_EFORMAT,
                                "vocab: token %zu: normal, but not in the byte alphabet", i);
        } else if (type == VOCAB_CONTROL || type == VOCAB_USER || type == VOCAB_UNUSED) {
            memcpy(v->bytes + at, text.data, text.n);
        } else {
            return ds4_fail(err, DS4_EFORMAT, "vocab: token %zu: type %d, expected 1, 3, 4 or 5", i,
                            (int)type);
        }
        v->type[i] = (uint8_t)type;
        at += n_token;
        v->first[i + 1] = at;
    }
    v->n_tokens = n;
    return DS4_OK;
}

/* The slot of these bytes, or the empty one where they belong; NULL after too many probes. */
static int32_t *normal_slot(const vocab *v, strview bytes) {
    size_t slot = (size_t)hash64(bytes.data, bytes.n, 0) & v->normal_mask;
    for (int i = 0; i < MAX_PROBES; i++, slot = (slot + 1) & v->normal_mask) {
        int32_t id = v->normal_slot[slot];
        if (id < 0 || strview_equal(vocab_token_bytes(v, id), bytes)) return &v->normal_slot[slot];
    }
    return NULL;
}

static ds4_status index_normal(vocab *v, ds4_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < v->n_tokens; i++) n += v->type[i] == VOCAB_NORMAL;
    size_t n_slots = (size_t)1 << table_bits(n);
    v->normal_slot = arena_array(&v->memory, n_slots, sizeof *v->normal_slot);
    if (!v->normal_slot) return ds4_fail_nomem(err, "vocab", n_slots * sizeof *v->normal_slot);
    memset(v->normal_slot, 0xFF, n_slots * sizeof *v->normal_slot);
    v->normal_mask = n_slots - 1;

    for (size_t i = 0; i < v->n_tokens; i++) {
        if (v->type[i] != VOCAB_NORMAL) continue;
        int32_t *slot = normal_slot(v, vocab_token_bytes(v, (int32_t)i));
        if (!slot) return ds4_fail(err, DS4_EFORMAT, "vocab: token %zu: too many collisions", i);
        if (*slot >= 0)
            return ds4_fail(err, DS4_EFORMAT, "vocab: token %zu: same text as token %d", i,
                            (int)*slot);
        *slot = (int32_t)i;
    }
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        v->byte_id[byte] = vocab_find_normal(v, (strview){&c, 1});
        if (v->byte_id[byte] < 0)
            return ds4_fail(err, DS4_EFORMAT, "vocab: no token for the single byte 0x%02x", byte);
    }
    return DS4_OK;
}

/* The highest bits choose the slot, the eight below them are the tag. */
static inline uint64_t merge_hash(int32_t left, int32_t right) {
    uint64_t x = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    x *= 0x9E3779B97F4A7C15u; /* 2^64 / golden ratio */
    x ^= x >> 32;
    return x * 0x9E3779B97F4A7C15u;
}

#define MERGE_EMPTY UINT32_MAX

/* The slot of the pair, or the empty one where it belongs; NULL after too many probes. */
static uint32_t *merge_slot(const vocab *v, int32_t left, int32_t right) {
    uint64_t hash = merge_hash(left, right);
    size_t slot = (size_t)(hash >> v->merge_shift);
    size_t mask = ((size_t)1 << (64 - v->merge_shift)) - 1;
    uint32_t tag = (uint32_t)(hash >> (v->merge_shift - 8)) & 0xFF;
    for (int i = 0; i < MAX_PROBES; i++, slot = (slot + 1) & mask) {
        uint32_t entry = v->merge_slot[slot];
        if (entry == MERGE_EMPTY) return &v->merge_slot[slot];
        if (entry >> 24 != tag) continue;
        const merge *m = &v->merges[entry & 0xFFFFFF];
        if (m->left == left && m->right == right) return &v->merge_slot[slot];
    }
    return NULL;
}

/* Resolves "left right" to ids. `scratch` has room for the text. */
static ds4_status resolve_merge(const vocab *v, merge *m, strview text, char *scratch, size_t rank,
                                ds4_error *err) {
    const char *space = text.n ? memchr(text.data, ' ', text.n) : NULL;
    if (!space) return ds4_fail(err, DS4_EFORMAT, "vocab: merge %zu: no space between parts", rank);
    strview left = {text.data, (size_t)(space - text.data)};
    strview right = {space + 1, text.n - left.n - 1};

    /* The second part is decoded right behind the first: together they are the result. */
    size_t n_left, n_right;
    if (!decode_alphabet(scratch, &n_left, left) ||
        !decode_alphabet(scratch + n_left, &n_right, right))
        return ds4_fail(err, DS4_EFORMAT, "vocab: merge %zu: not in the byte alphabet", rank);

    m->left = vocab_find_normal(v, (strview){scratch, n_left});
    m->right = vocab_find_normal(v, (strview){scratch + n_left, n_right});
    m->result = vocab_find_normal(v, (strview){scratch, n_left + n_right});
    if (m->left < 0 || m->right < 0 || m->result < 0)
        return ds4_fail(err, DS4_EFORMAT, "vocab: merge %zu: %s is no normal token", rank,
                        m->left < 0    ? "the left part"
                        : m->right < 0 ? "the right part"
                                       : "the result");
    return DS4_OK;
}

static ds4_status read_merges(vocab *v, const vocab_source *source, ds4_error *err) {
    size_t n = source->n_merges, n_scratch = 1;
    if (n > VOCAB_MAX_MERGES)
        return ds4_fail(err, DS4_EFORMAT, "vocab: %zu merges, at most %d are possible", n,
                        VOCAB_MAX_MERGES);
    unsigned bits = table_bits(n);
    size_t n_slots = (size_t)1 << bits;
    v->merges = arena_array(&v->memory, n, sizeof *v->merges);
    v->merge_slot = arena_array(&v->memory, n_slots, sizeof *v->merge_slot);
    if (!v->merges || !v->merge_slot) return ds4_fail_nomem(err, "vocab", n * sizeof *v->merges);
    memset(v->merge_slot, 0xFF, n_slots * sizeof *v->merge_slot); /* MERGE_EMPTY */
    v->merge_shift = 64 - bits;

    for (size_t i = 0; i < n; i++)
        if (source->merges[i].n > n_scratch) n_scratch = source->merges[i].n;
    char *scratch = malloc(n_scratch);
    if (!scratch) return ds4_fail_nomem(err, "vocab", n_scratch);

    ds4_status status = DS4_OK;
    for (size_t i = 0; i < n && status == DS4_OK; i++) {
        merge *m = &v->merges[i];
        status = resolve_merge(v, m, source->merges[i], scratch, i, err);
        if (status != DS4_OK) break;
        uint32_t *slot = merge_slot(v, m->left, m->right);
        if (!slot) {
            status = ds4_fail(err, DS4_EFORMAT, "vocab: merge %zu: too many collisions", i);
        } else if (*slot != MERGE_EMPTY) {
            status = ds4_fail(err, DS4_EFORMAT, "vocab: merge %zu: same as merge %u", i,
                              *slot & 0xFFFFFF);
        } else {
            uint64_t hash = merge_hash(m->left, m->right);
            *slot = ((uint32_t)(hash >> (v->merge_shift - 8)) & 0xFF) << 24 | (uint32_t)i;
        }
    }
    free(scratch);
    return status;
}

static int compare_text(strview a, strview b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n ? memcmp(a.data, b.data, n) : 0;
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

static int compare_markers(const void *a, const void *b) {
    return compare_text(((const marker *)a)->text, ((const marker *)b)->text);
}

static bool is_marker(const vocab *v, size_t i) {
    return v->type[i] == VOCAB_CONTROL || v->type[i] == VOCAB_USER;
}

static ds4_status index_markers(vocab *v, ds4_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < v->n_tokens; i++) n += is_marker(v, i);
    v->markers = arena_array(&v->memory, n, sizeof *v->markers);
    if (!v->markers) return ds4_fail_nomem(err, "vocab", n * sizeof *v->markers);

    for (size_t i = 0; i < v->n_tokens; i++) {
        if (!is_marker(v, i)) continue;
        strview text = vocab_token_bytes(v, (int32_t)i);
        if (text.n > VOCAB_MARKER_MAX_BYTES)
            return ds4_fail(err, DS4_EFORMAT,
                            "vocab: token %zu: added token of %zu bytes, at most %d", i, text.n,
                            VOCAB_MARKER_MAX_BYTES);
        v->markers[v->n_markers++] = (marker){text, (int32_t)i};
        v->marker_starts[(uint8_t)text.data[0]] = true;
    }
    qsort(v->markers, n, sizeof *v->markers, compare_markers);
    for (size_t i = 1; i < n; i++)
        if (compare_markers(&v->markers[i - 1], &v->markers[i]) == 0)
            return ds4_fail(err, DS4_EFORMAT, "vocab: token %d: same text as token %d",
                            (int)v->markers[i].id, (int)v->markers[i - 1].id);
    return DS4_OK;
}

static ds4_status choose_id(const vocab *v, int32_t *id, int32_t given, strview name,
                            const char *what, ds4_error *err) {
    *id = given >= 0 ? given : vocab_find_marker(v, name);
    if (*id >= 0 && (size_t)*id < v->n_tokens) return DS4_OK;
    if (*id < 0) return ds4_fail(err, DS4_EFORMAT, "vocab: no %s token", what);
    return ds4_fail(err, DS4_EFORMAT, "vocab: %s token %d of %zu", what, (int)*id, v->n_tokens);
}

static ds4_status build(vocab *v, const vocab_source *source, ds4_error *err) {
    if (source->n_tokens > INT32_MAX)
        return ds4_fail(err, DS4_EFORMAT, "vocab: %zu tokens, at most %d are possible",
                        source->n_tokens, INT32_MAX);
    DS4_TRY(read_tokens(v, source, err));
    DS4_TRY(index_normal(v, err));
    DS4_TRY(read_merges(v, source, err));
    DS4_TRY(index_markers(v, err));
    DS4_TRY(choose_id(v, &v->bos, source->bos, STRVIEW("<｜begin▁of▁sentence｜>"), "begin-of-text",
                      err));
    return choose_id(v, &v->eos, source->eos, STRVIEW("<｜end▁of▁sentence｜>"), "end-of-text", err);
}

ds4_status vocab_create(vocab **out, const vocab_source *source, ds4_error *err) {
    vocab *v = calloc(1, sizeof *v);
    if (!v) return ds4_fail_nomem(err, "vocab", sizeof *v);
    ds4_status status = build(v, source, err);
    if (status == DS4_OK)
        *out = v;
    else
        vocab_destroy(v);
    return status;
}

void vocab_destroy(vocab *v) {
    if (!v) return;
    arena_release(&v->memory);
    free(v);
}

/* ---- reading ---- */

size_t vocab_n_tokens(const vocab *v) {
    return v->n_tokens;
}

static bool is_id(const vocab *v, int32_t id) {
    return id >= 0 && (size_t)id < v->n_tokens;
}

vocab_type vocab_token_type(const vocab *v, int32_t id) {
    return is_id(v, id) ? (vocab_type)v->type[id] : VOCAB_UNUSED;
}

strview vocab_token_bytes(const vocab *v, int32_t id) {
    if (!is_id(v, id)) return (strview){"", 0};
    return (strview){v->bytes + v->first[id], v->first[id + 1] - v->first[id]};
}

int32_t vocab_bos(const vocab *v) {
    return v->bos;
}

int32_t vocab_eos(const vocab *v) {
    return v->eos;
}

ds4_status vocab_decode_bytes(const vocab *v, strbuf *out, const int32_t *ids, size_t n,
                              ds4_error *err) {
    for (size_t i = 0; i < n; i++)
        if (!is_id(v, ids[i]))
            return ds4_fail(err, DS4_EINVAL, "vocab: token id %d of %zu", (int)ids[i], v->n_tokens);
    for (size_t i = 0; i < n; i++) strbuf_view(out, vocab_token_bytes(v, ids[i]));
    return strbuf_check(out, "decoded text", err);
}

int32_t vocab_find_normal(const vocab *v, strview bytes) {
    const int32_t *slot = normal_slot(v, bytes);
    return slot ? *slot : -1;
}

int32_t vocab_find_marker(const vocab *v, strview text) {
    size_t lo = 0, hi = v->n_markers;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = compare_text(v->markers[mid].text, text);
        if (order == 0) return v->markers[mid].id;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return -1;
}

/* The first of markers[lo..hi) whose byte `depth` is at least `byte`; all are longer than that. */
static size_t lower_bound(const vocab *v, size_t lo, size_t hi, size_t depth, unsigned byte) {
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if ((uint8_t)v->markers[mid].text.data[depth] < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The longest marker at the start of `text`, NULL if none: walks the sorted list byte by byte,
 * where lo..hi are the markers that begin with the bytes seen so far. */
static const marker *longest_marker(const vocab *v, strview text) {
    const marker *best = NULL;
    size_t lo = 0, hi = v->n_markers;
    for (size_t depth = 0; depth < text.n; depth++) {
        unsigned byte = (uint8_t)text.data[depth];
        lo = lower_bound(v, lo, hi, depth, byte);
        hi = lower_bound(v, lo, hi, depth, byte + 1);
        if (lo == hi) break;
        /* A marker that ends here sorts before the longer ones. */
        if (v->markers[lo].text.n == depth + 1) {
            best = &v->markers[lo++];
            if (lo == hi) break;
        }
    }
    return best;
}

bool vocab_next_marker(const vocab *v, strview text, size_t from, vocab_match *match) {
    for (size_t at = from; at < text.n; at++) {
        if (!v->marker_starts[(uint8_t)text.data[at]]) continue;
        const marker *m = longest_marker(v, (strview){text.data + at, text.n - at});
        if (!m) continue;
        *match = (vocab_match){at, m->text.n, m->id};
        return true;
    }
    return false;
}

int32_t vocab_byte_id(const vocab *v, uint8_t byte) {
    return v->byte_id[byte];
}

uint32_t vocab_merge_rank(const vocab *v, int32_t left, int32_t right) {
    const uint32_t *slot = merge_slot(v, left, right);
    return slot && *slot != MERGE_EMPTY ? *slot & 0xFFFFFF : VOCAB_NO_MERGE;
}

int32_t vocab_merge_result(const vocab *v, uint32_t rank) {
    return v->merges[rank].result;
}
