/* The mixture of experts: rows sorted by expert, so that each expert's weights are read once a step.
 *
 *   pair   one row at one expert; the shared expert has one pair for each row, behind the others
 *   1. sort pairs by expert, gather their activations
 *   2. gate and up products and the gated product h, by expert and output rows
 *   3. h quantised, if down wants it
 *   4. down products
 *   5. each row adds its pairs in the order of the choice, then the shared expert */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"

/* A pool of rows in all three forms: the region of each kind begins n_pairs * n * act_region[kind] bytes
 * into it. Quantised rows with their scales and sums take less than two bytes a value. */
static const uint8_t act_region[] = {[ACT_F32] = 0, [ACT_Q8_32] = 4, [ACT_Q8_256] = 6};
enum { ACT_POOL_BYTES = 8 };

size_t cpu_moe_bytes(cpu_backend *b, const backend_plan *plan, uint8_t *base) {
    size_t n_pairs = (size_t)plan->n_rows * (plan->n_expert_used + 1);
    struct {
        size_t n_bytes;
        void **to;
    } parts[] = {
        {n_pairs * sizeof(uint32_t), b ? (void **)&b->pair_row : NULL},
        {n_pairs * sizeof(uint32_t), b ? (void **)&b->pair_of : NULL},
        {(plan->n_expert + 2) * sizeof(uint32_t), b ? (void **)&b->expert_first : NULL},
        {(plan->n_expert + 1) * sizeof(uint32_t), b ? (void **)&b->expert_used : NULL},
        {n_pairs * plan->n_embd * ACT_POOL_BYTES, b ? &b->moe_x : NULL},
        {n_pairs * plan->n_ff * sizeof(float), b ? (void **)&b->moe_up : NULL},
        {n_pairs * plan->n_ff * ACT_POOL_BYTES, b ? &b->moe_h : NULL},
        {n_pairs * plan->n_embd * sizeof(float), b ? (void **)&b->moe_y : NULL},
    };
    size_t n_bytes = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (base) *parts[i].to = base + n_bytes;
        n_bytes += (parts[i].n_bytes + 63) / 64 * 64;
    }
    return n_bytes;
}

typedef struct {
    const moe_args *a;
    const int32_t  *ids;
    const float    *weights;
    uint32_t        n_rows, n_expert, n_pairs, n_embd, n_ff;
    uint32_t        n_used;  /* experts with pairs, the shared one included */
    uint32_t        n_tiles; /* of the output rows of the product in hand */
} moe_job;

/* expert_first[e] .. expert_first[e + 1] - 1 are the pairs of expert e, rows ascending;
 * pair_of[row * (k + 1) + j] is the pair of choice j, j = k the shared expert's. */
static void sort_pairs(cpu_backend *b, const moe_job *j) {
    uint32_t k = j->a->k, *first = b->expert_first;
    memset(first, 0, (j->n_expert + 2) * sizeof *first);
    for (uint32_t i = 0; i < j->n_rows * k; i++) first[j->ids[i] + 1]++;
    for (uint32_t e = 0; e < j->n_expert; e++) first[e + 1] += first[e];
    first[j->n_expert + 1] = j->n_pairs;
    for (uint32_t row = 0; row < j->n_rows; row++) {
        for (uint32_t c = 0; c < k; c++) {
            uint32_t pair = first[j->ids[row * k + c]]++;
            b->pair_row[pair] = row;
            b->pair_of[row * (k + 1) + c] = pair;
        }
        uint32_t pair = j->n_rows * k + row;
        b->pair_row[pair] = row;
        b->pair_of[row * (k + 1) + k] = pair;
    }
    /* Filling moved every start to its end: move back. */
    for (uint32_t e = j->n_expert; e > 0; e--) first[e] = first[e - 1];
    first[0] = 0;
}

/* The shared expert counts as number n_expert. */
static const ffn_weights *ffn_of(const moe_job *j, uint32_t expert, size_t *slice) {
    bool is_shared = expert == j->n_expert;
    *slice = is_shared ? 0 : expert;
    return is_shared ? j->a->shared : j->a->experts;
}

static uint8_t *pool_row(void *pool, const moe_job *j, act_kind kind, size_t n, uint32_t pair) {
    return (uint8_t *)pool + j->n_pairs * n * act_region[kind] + pair * act_row_bytes(kind, n);
}

static void gather_one(cpu_backend *b, const moe_job *j, const weight *w, uint32_t pair) {
    size_t         n_bytes;
    const uint8_t *x = cpu_act(&j->a->x, w, &n_bytes);
    memcpy(pool_row(b->moe_x, j, w->act, w->n_in, pair), x + b->pair_row[pair] * n_bytes, n_bytes);
}

static void gather_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    (void)worker;
    const moe_job *j = arg;
    for (uint32_t pair = first; pair < end; pair++) {
        size_t             slice;
        bool               is_shared = pair >= j->n_rows * j->a->k;
        const ffn_weights *f = ffn_of(j, is_shared ? j->n_expert : 0, &slice);
        gather_one(b, j, &f->gate, pair);
        if (f->up.act != f->gate.act) gather_one(b, j, &f->up, pair);
    }
}

/* One tile of output rows of one expert: out[pair][row] for all its pairs. */
static void expert_tile(cpu_backend *b, const moe_job *j, uint32_t worker, float *out, const weight *w,
                        size_t slice, uint32_t row, uint32_t n, void *pool, uint32_t pair, uint32_t n_x) {
    cpu_dot_rows(b, worker, out + (size_t)pair * w->n_out + row, w->n_out, w, slice * w->n_out + row, n,
                 pool_row(pool, j, w->act, w->n_in, pair), act_row_bytes(w->act, w->n_in), n_x);
}

enum { TILE_ROWS = 16 };

/* Item i: expert i / n_tiles of those in use, tile i % n_tiles of its rows. */
static void gate_up_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    const moe_job *j = arg;
    uint32_t       n_ff = j->n_ff;
    for (uint32_t i = first; i < end; i++) {
        uint32_t expert = b->expert_used[i / j->n_tiles], row = i % j->n_tiles * TILE_ROWS;
        uint32_t n = n_ff - row < TILE_ROWS ? n_ff - row : TILE_ROWS;
        uint32_t pair = b->expert_first[expert], n_x = b->expert_first[expert + 1] - pair;
        size_t   slice;
        const ffn_weights *f = ffn_of(j, expert, &slice);
        float             *gate = (float *)pool_row(b->moe_h, j, ACT_F32, n_ff, 0);
        expert_tile(b, j, worker, gate, &f->gate, slice, row, n, b->moe_x, pair, n_x);
        expert_tile(b, j, worker, b->moe_up, &f->up, slice, row, n, b->moe_x, pair, n_x);

        float clamp = expert == j->n_expert ? j->a->clamp_shared : j->a->clamp;
        for (uint32_t x = 0; x < n_x; x++) {
            float *g = gate + (size_t)(pair + x) * n_ff + row;
            float *u = b->moe_up + (size_t)(pair + x) * n_ff + row;
            for (uint32_t c = 0; c < n; c++) {
                float gc = clamp > 0 ? cpu_min(clamp, g[c]) : g[c];
                float uc = clamp > 0 ? cpu_max(-clamp, cpu_min(clamp, u[c])) : u[c];
                g[c] = gc / (1.0f + expf(-gc)) * uc;
            }
        }
    }
}

static void quantize_h_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    (void)worker;
    const moe_job *j = arg;
    for (uint32_t pair = first; pair < end; pair++) {
        size_t        slice;
        const weight *down = &ffn_of(j, pair >= j->n_rows * j->a->k ? j->n_expert : 0, &slice)->down;
        const float  *h = (float *)pool_row(b->moe_h, j, ACT_F32, j->n_ff, pair);
        void         *to = pool_row(b->moe_h, j, down->act, j->n_ff, pair);
        if (down->act == ACT_Q8_32) b->k->quantize_q8_32(to, h, j->n_ff);
        else if (down->act == ACT_Q8_256) b->k->quantize_q8_256(to, h, j->n_ff);
    }
}

static void down_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    const moe_job *j = arg;
    for (uint32_t i = first; i < end; i++) {
        uint32_t expert = b->expert_used[i / j->n_tiles], row = i % j->n_tiles * TILE_ROWS;
        uint32_t n = j->n_embd - row < TILE_ROWS ? j->n_embd - row : TILE_ROWS;
        uint32_t pair = b->expert_first[expert], n_x = b->expert_first[expert + 1] - pair;
        size_t   slice;
        const ffn_weights *f = ffn_of(j, expert, &slice);
        expert_tile(b, j, worker, b->moe_y, &f->down, slice, row, n, b->moe_h, pair, n_x);
    }
}

static void add_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    (void)worker;
    const moe_job *j = arg;
    uint32_t       k = j->a->k;
    float         *out = cpu_ptr(j->a->out);
    for (uint32_t row = first; row < end; row++) {
        float *to = out + (size_t)row * j->n_embd;
        memset(to, 0, j->n_embd * sizeof *to);
        for (uint32_t c = 0; c <= k; c++) {
            const float *y = b->moe_y + (size_t)b->pair_of[row * (k + 1) + c] * j->n_embd;
            float        weight_of_y = c < k ? j->weights[row * k + c] : 1.0f;
            for (uint32_t d = 0; d < j->n_embd; d++) to[d] += weight_of_y * y[d];
        }
    }
}

void cpu_moe(backend *base, const moe_args *a) {
    cpu_backend *b = cpu_of(base);
    moe_job      j = {.a = a, .ids = cpu_ptr(a->ids), .weights = cpu_ptr(a->weights),
                      .n_rows = b->batch->n_rows, .n_expert = a->experts->gate.n_slices,
                      .n_embd = a->experts->gate.n_in, .n_ff = a->experts->gate.n_out};
    j.n_pairs = j.n_rows * (a->k + 1);
    sort_pairs(b, &j);
    for (uint32_t e = 0; e <= j.n_expert; e++)
        if (b->expert_first[e + 1] > b->expert_first[e]) b->expert_used[j.n_used++] = e;
    uint64_t pairs_per_expert = (j.n_pairs + j.n_used - 1) / j.n_used;

    cpu_for(b, j.n_pairs, 1, j.n_embd, gather_range, &j);
    j.n_tiles = (j.n_ff + TILE_ROWS - 1) / TILE_ROWS;
    uint64_t work = TILE_ROWS * pairs_per_expert;
    cpu_for(b, j.n_used * j.n_tiles, 1, work * (2 * j.n_embd + 10), gate_up_range, &j);
    cpu_for(b, j.n_pairs, 1, j.n_ff, quantize_h_range, &j);
    j.n_tiles = (j.n_embd + TILE_ROWS - 1) / TILE_ROWS;
    cpu_for(b, j.n_used * j.n_tiles, 1, work * j.n_ff, down_range, &j);
    cpu_for(b, j.n_rows, 1, (uint64_t)j.n_embd * (a->k + 1) / 4, add_range, &j);
}
