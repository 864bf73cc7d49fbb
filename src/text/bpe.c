#include "text/bpe.h"

#include "base/arena.h"
#include "text/pretoken.h"

#include <string.h>

/* Most pieces are words that come again. An entry is one cache line; of two pieces that want the
 * same one, the later stays. */
enum {
    CACHE_SLOTS = 1 << 14,
    CACHE_PIECE_BYTES = 22,
    CACHE_PIECE_IDS = 10,
    /* Up to here looking at all pairs for the lowest rank is faster than a heap. */
    SHORT_PIECE_BYTES = 64,
    /* Room for longer pieces than this is not kept. */
    KEPT_PIECE_BYTES = 1 << 14,
};

typedef struct {
    uint8_t n_bytes; /* 0: empty */
    uint8_t n_ids;
    char bytes[CACHE_PIECE_BYTES];
    int32_t ids[CACHE_PIECE_IDS];
} cached_piece;

#define NO_NODE UINT32_MAX

/* A token of a long piece; its index is the place of its first byte. */
typedef struct {
    int32_t id;
    uint32_t previous, next; /* NO_NODE at the ends */
    uint32_t rank; /* of the merge with `next`; VOCAB_NO_MERGE also for a node that is gone */
} node;

/* A possible merge of a long piece: rank << 32 | place of the left token, so that the lowest number
 * is the lowest rank and, of equal ranks, the leftmost. */
typedef uint64_t merge_key;

struct bpe {
    arena memory;
    const vocab *words;
    cached_piece *cache; /* [CACHE_SLOTS], by hash */
    node *nodes;         /* [n_room] */
    merge_key *heap;     /* [2 * n_room]: a merge takes one key out and puts at most two in */
    size_t n_room;
};

ds4_status bpe_create(bpe **out, const vocab *v, ds4_error *err) {
    bpe *b = calloc(1, sizeof *b);
    if (!b) return ds4_fail_nomem(err, "bpe", sizeof *b);
    b->words = v;
    b->cache = arena_array(&b->memory, CACHE_SLOTS, sizeof *b->cache);
    if (!b->cache) {
        bpe_destroy(b);
        return ds4_fail_nomem(err, "bpe", CACHE_SLOTS * sizeof *b->cache);
    }
    *out = b;
    return DS4_OK;
}

static void release_room(bpe *b) {
    free(b->nodes);
    free(b->heap);
    b->nodes = NULL;
    b->heap = NULL;
    b->n_room = 0;
}

void bpe_destroy(bpe *b) {
    if (!b) return;
    release_room(b);
    arena_release(&b->memory);
    free(b);
}

/* ---- short pieces ---- */

/* Merges inside ids[0..n), which hold the ids of single bytes; returns how many ids remain. */
static size_t merge_short(const vocab *v, int32_t *ids, size_t n) {
    uint32_t rank[SHORT_PIECE_BYTES]; /* rank[i]: of ids[i] with ids[i + 1] */
    for (size_t i = 0; i + 1 < n; i++) rank[i] = vocab_merge_rank(v, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == VOCAB_NO_MERGE) break;

        ids[best] = vocab_merge_result(v, rank[best]);
        n--;
        for (size_t i = best + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            rank[i - 1] = rank[i];
        }
        if (best > 0) rank[best - 1] = vocab_merge_rank(v, ids[best - 1], ids[best]);
        if (best + 1 < n) rank[best] = vocab_merge_rank(v, ids[best], ids[best + 1]);
    }
    return n;
}

/* ---- long pieces ---- */

/* Moves the key at `at` down to where its children are not lower. */
static void sift_down(merge_key *heap, size_t n, size_t at) {
    merge_key key = heap[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (key <= heap[child]) break;
        heap[at] = heap[child];
    }
    heap[at] = key;
}

static void heap_push(merge_key *heap, size_t *n, merge_key key) {
    size_t at = (*n)++;
    for (; at > 0 && key < heap[(at - 1) / 2]; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = key;
}

static merge_key heap_pop(merge_key *heap, size_t *n) {
    merge_key top = heap[0];
    heap[0] = heap[--*n];
    if (*n) sift_down(heap, *n, 0);
    return top;
}

/* Notes the rank of `left` with the token behind it; puts it into the heap if they merge. */
static void offer_merge(bpe *b, size_t *n_heap, uint32_t left) {
    node *l = &b->nodes[left];
    l->rank = l->next == NO_NODE ? VOCAB_NO_MERGE
                                 : vocab_merge_rank(b->words, l->id, b->nodes[l->next].id);
    if (l->rank != VOCAB_NO_MERGE) heap_push(b->heap, n_heap, (uint64_t)l->rank << 32 | left);
}

/* Makes the nodes of the piece and the heap of their merges; returns the length of the heap. */
static size_t start_long(bpe *b, strview piece) {
    uint32_t n = (uint32_t)piece.n;
    for (uint32_t i = 0; i < n; i++)
        b->nodes[i] = (node){.id = vocab_byte_id(b->words, (uint8_t)piece.data[i]),
                             .previous = i > 0 ? i - 1 : NO_NODE,
                             .next = i + 1 < n ? i + 1 : NO_NODE,
                             .rank = VOCAB_NO_MERGE};
    size_t n_heap = 0;
    for (uint32_t i = 0; i + 1 < n; i++) {
        uint32_t rank = vocab_merge_rank(b->words, b->nodes[i].id, b->nodes[i + 1].id);
        b->nodes[i].rank = rank;
        if (rank != VOCAB_NO_MERGE) b->heap[n_heap++] = (uint64_t)rank << 32 | i;
    }
    for (size_t i = n_heap / 2; i-- > 0;) sift_down(b->heap, n_heap, i);
    return n_heap;
}

/* Writes the ids of the piece, of 1 .. n_room bytes, to ids; returns how many. */
static size_t merge_long(bpe *b, int32_t *ids, strview piece) {
    size_t n_heap = start_long(b, piece);
    while (n_heap) {
        merge_key key = heap_pop(b->heap, &n_heap);
        uint32_t rank = (uint32_t)(key >> 32), left = (uint32_t)key;
        node *l = &b->nodes[left];
        /* Tokens only grow, so the pair of a key that was overtaken never comes back. */
        if (l->rank != rank) continue;

        node *r = &b->nodes[l->next];
        r->rank = VOCAB_NO_MERGE;
        l->id = vocab_merge_result(b->words, rank);
        l->next = r->next;
        if (l->next != NO_NODE) b->nodes[l->next].previous = left;
        offer_merge(b, &n_heap, left);
        if (l->previous != NO_NODE) offer_merge(b, &n_heap, l->previous);
    }
    size_t n_ids = 0;
    for (uint32_t i = 0; i != NO_NODE; i = b->nodes[i].next) ids[n_ids++] = b->nodes[i].id;
    return n_ids;
}

static ds4_status make_room(bpe *b, size_t n_bytes, ds4_error *err) {
    if (n_bytes <= b->n_room) return DS4_OK;
    if (n_bytes >= NO_NODE || n_bytes > SIZE_MAX / 2 / sizeof *b->nodes)
        return ds4_fail(err, DS4_EINVAL, "bpe: a piece of %zu bytes, expected less than 4 GiB",
                        n_bytes);
    release_room(b);
    b->nodes = malloc(n_bytes * sizeof *b->nodes);
    b->heap = malloc(2 * n_bytes * sizeof *b->heap);
    if (!b->nodes || !b->heap) {
        release_room(b);
        return ds4_fail_nomem(err, "bpe", n_bytes * (sizeof *b->nodes + 2 * sizeof *b->heap));
    }
    b->n_room = n_bytes;
    return DS4_OK;
}

/* ---- all pieces ---- */

static cached_piece *cache_slot(const bpe *b, strview piece) {
    uint64_t hash = piece.n;
    for (size_t i = 0; i < piece.n; i++)
        hash = (hash ^ (uint8_t)piece.data[i]) * 0x9E3779B97F4A7C15u; /* 2^64 / golden ratio */
    return &b->cache[(hash ^ hash >> 32) >> 8 & (CACHE_SLOTS - 1)];
}

static ds4_status encode_piece(bpe *b, id_list *ids, strview piece, ds4_error *err) {
    /* Never more ids than bytes. */
    if (!id_list_reserve(ids, piece.n))
        return ds4_fail_nomem(err, "token ids", piece.n * sizeof *ids->data);
    int32_t *tail = ids->data + ids->n;

    if (piece.n > SHORT_PIECE_BYTES) {
        DS4_TRY(make_room(b, piece.n, err));
        ids->n += merge_long(b, tail, piece);
        if (b->n_room > KEPT_PIECE_BYTES) release_room(b);
        return DS4_OK;
    }

    cached_piece *cached = piece.n <= CACHE_PIECE_BYTES ? cache_slot(b, piece) : NULL;
    if (cached && cached->n_bytes == piece.n && memcmp(cached->bytes, piece.data, piece.n) == 0) {
        memcpy(tail, cached->ids, cached->n_ids * sizeof *tail);
        ids->n += cached->n_ids;
        return DS4_OK;
    }
    for (size_t i = 0; i < piece.n; i++) tail[i] = vocab_byte_id(b->words, (uint8_t)piece.data[i]);
    size_t n_ids = merge_short(b->words, tail, piece.n);
    ids->n += n_ids;
    if (cached && n_ids <= CACHE_PIECE_IDS) {
        cached->n_bytes = (uint8_t)piece.n;
        cached->n_ids = (uint8_t)n_ids;
        memcpy(cached->bytes, piece.data, piece.n);
        memcpy(cached->ids, tail, n_ids * sizeof *tail);
    }
    return DS4_OK;
}

static ds4_status encode_span(bpe *b, id_list *ids, strview span, ds4_error *err) {
    pretoken_iter it = pretoken_from(span);
    for (strview piece; pretoken_next(&it, &piece);) DS4_TRY(encode_piece(b, ids, piece, err));
    return DS4_OK;
}

/* Nothing merges across a marker: every stretch between two is a text of its own. */
static ds4_status encode_with_markers(bpe *b, id_list *ids, strview text, ds4_error *err) {
    size_t at = 0;
    for (vocab_match m; vocab_next_marker(b->words, text, at, &m); at = m.at + m.n_bytes) {
        DS4_TRY(encode_span(b, ids, (strview){text.data + at, m.at - at}, err));
        if (!id_list_add(ids, m.id)) return ds4_fail_nomem(err, "token ids", sizeof m.id);
    }
    return encode_span(b, ids, (strview){text.data + at, text.n - at}, err);
}

ds4_status bpe_encode(bpe *b, id_list *ids, strview text, bool has_markers, ds4_error *err) {
    if (text.n == 0) return DS4_OK; /* its data may be NULL */
    size_t n_before = ids->n;
    ds4_status status =
        has_markers ? encode_with_markers(b, ids, text, err) : encode_span(b, ids, text, err);
    if (status != DS4_OK) ids->n = n_before;
    return status;
}
