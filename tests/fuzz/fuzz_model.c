/* fuzz_model.c - a model file through shape, weights and one step: whatever the keys and tensors
 * say, it is refused with one line, or it runs.
 *
 *   input   "GGUF..."         a file as it is
 *           kind, then {offset u24, byte} ...   patches on a tiny model of that kind, so that small
 *                             inputs reach deep; offsets count from the file's start and wrap round
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cache_layout.h"
#include "model/forward.h"
#include "tests/support/randmodel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { N_CTX = 64, N_ROWS = 3, MAX_BYTES = 64 << 20 };

static void require(bool is_true) {
    if (!is_true) abort();
}

/* ---- files ---- */

/* Bits of `kind`: MTP block, wide table, YaRN, types in blocks, one layer more; the scores in turn.
 */
static randmodel_shape tiny_shape(uint8_t kind) {
    static const uint32_t scores[] = {4, 1, 2, 4};
    randmodel_shape s = randmodel_shape_default();
    s.n_layer = kind & 16 ? 4 : 3;
    s.ratio[0] = 0, s.ratio[1] = 4, s.ratio[2] = 3, s.ratio[3] = 4;
    s.n_embd = s.n_q_rank = s.n_ff = 32;
    s.n_head = 2;
    s.head_dim = 16;
    s.n_rot = 4;
    s.n_out_rank = 16;
    s.window = 4;
    s.n_index_head = 1;
    s.index_dim = 8;
    s.index_top_k = 2;
    s.n_stream = 2;
    s.n_expert = 3;
    s.n_hash_layer = 1;
    s.n_vocab = RANDMODEL_MIN_VOCAB;
    s.has_mtp = kind & 1;
    s.has_wide_table = kind & 2;
    s.has_yarn = kind & 4;
    s.gating = scores[kind >> 5 & 3];
    for (int i = 0; i < RANDMODEL_N_CLASSES; i++)
        s.types[i] = !(kind & 8) ? QUANT_F16 : i % 2 ? QUANT_MXFP4 : QUANT_Q4_0;
    return s;
}

/* The tiny model of a kind; made once, then lent for good. */
static const void *tiny_file(uint8_t kind, size_t *n) {
    static struct {
        void *data;
        size_t n;
    } files[128];
    kind &= 127;
    if (!files[kind].data) {
        randmodel_shape s = tiny_shape(kind);
        require(randmodel_write_memory(&s, 1, &files[kind].data, &files[kind].n, NULL) == DS4_OK);
    }
    *n = files[kind].n;
    return files[kind].data;
}

/* The file that the input means; free() it. An exact copy: a sanitizer sees the byte behind it. */
static void *make_file(const uint8_t *data, size_t n, size_t *n_file) {
    bool is_file = n == 0 || data[0] == 'G';
    const void *from = is_file ? data : tiny_file(data[0], n_file);
    if (is_file) *n_file = n;
    uint8_t *file = malloc(*n_file ? *n_file : 1);
    require(file != NULL);
    if (*n_file) memcpy(file, from, *n_file);
    for (size_t i = 1; !is_file && i + 4 <= n; i += 4) {
        size_t at = (size_t)data[i] | (size_t)data[i + 1] << 8 | (size_t)data[i + 2] << 16;
        file[at % *n_file] = data[i + 3];
    }
    return file;
}

/* ---- running ---- */

static void check(ds4_status status, const ds4_error *err) {
    if (status == DS4_OK) return;
    require(err->code == status && err->message[0] && !strchr(err->message, '\n'));
}

static forward_limits limits_of(const config *c, bool has_mtp) {
    return (forward_limits){.n_rows = N_ROWS,
                            .n_logits = 1,
                            .n_slots = 1,
                            .n_ctx = c->n_ctx < N_CTX ? c->n_ctx : N_CTX,
                            .has_mtp = has_mtp};
}

/* Whether a step stays small: a patched key may ask for any amount of memory. */
static bool is_small(const config *c, const forward_limits *m, const backend_options *device) {
    static cache_layer layers[CONFIG_MAX_LAYERS];
    cache_plan p = forward_cache_plan(c, m, layers);
    uint64_t n_bytes = cache_fixed_bytes(&p) + cache_rows_bytes(&p);
    return n_bytes + forward_scratch_bytes(c, m, device) < MAX_BYTES;
}

/* Three tokens in one step, and the MTP block behind them. */
static void step(forward *pass, const config *c, const forward_limits *m) {
    const uint32_t logit_row = m->n_ctx < N_ROWS ? 0 : N_ROWS - 1, n = logit_row + 1;
    step_row rows[N_ROWS];
    for (uint32_t i = 0; i < N_ROWS; i++)
        rows[i] = (step_row){.token = (int32_t)(i * 41 % c->n_vocab), .pos = i};
    const step_run run = {.n = n, .is_prompt = true};
    const step_batch batch = {.rows = rows,
                              .runs = &run,
                              .logit_rows = &logit_row,
                              .n_rows = n,
                              .n_runs = 1,
                              .n_logits = 1};
    float *logits = malloc(c->n_vocab * sizeof *logits);
    require(logits != NULL);
    require(forward_step(pass, &batch, logits, NULL, NULL) == DS4_OK);
    if (m->has_mtp) require(forward_draft(pass, &batch, logits, NULL) == DS4_OK);
    free(logits);
}

static void run_model(const gguf *g, const config *c, const weights_source *source) {
    const backend_options device = {.n_threads = 1};
    const forward_limits limits = limits_of(c, source->use_mtp);
    if (!is_small(c, &limits, &device)) return;
    backend *b = NULL;
    forward *pass = NULL;
    weights w;
    arena a = {0};
    require(backend_open(&b, &device, NULL) == DS4_OK);
    require(weights_bind(&w, source, c, b, &a, NULL) == DS4_OK);
    require(w.n_tensors <= gguf_n_tensors(g));
    require(forward_create(&pass, c, &w, b, &limits, NULL) == DS4_OK);
    step(pass, c, &limits);
    forward_destroy(pass);
    b->ops->close(b);
    arena_release(&a);
}

static void read_model(const gguf *g) {
    static config c;
    weights w;
    arena a = {0};
    ds4_error err = {0};
    ds4_status status = config_read(&c, g, &err);
    check(status, &err);
    if (status != DS4_OK) return;
    weights_source source = {.file = g, .use_mtp = weights_have_mtp(g, &c)};
    status = weights_bind(&w, &source, &c, NULL, &a, &err);
    check(status, &err);
    arena_release(&a);
    if (status == DS4_OK) run_model(g, &c, &source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    size_t n_file;
    void *file = make_file(data, n, &n_file);
    gguf *g = NULL;
    ds4_error err = {0};
    ds4_status status = gguf_open_memory(&g, file, n_file, &err);
    check(status, &err);
    if (status == DS4_OK) read_model(g);
    gguf_close(g);
    free(file);
    return 0;
}
