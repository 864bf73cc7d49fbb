/* The CPU device: opening, memory, weights, and how work is split over threads. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "backend/cpu/cpu.h"

/* ---- work ---- */

typedef struct {
    cpu_backend *b;
    cpu_range_fn fn;
    void        *arg;
    uint32_t     n, per_part;
} for_job;

static void run_part(void *arg, uint32_t part, uint32_t worker) {
    const for_job *j = arg;
    uint32_t       first = part * j->per_part;
    uint32_t       end = j->n - first < j->per_part ? j->n : first + j->per_part;
    j->fn(j->b, j->arg, first, end, worker);
}

void cpu_for(cpu_backend *b, uint32_t n, uint32_t unit, uint64_t work, cpu_range_fn fn, void *arg) {
    /* Waking the pool costs about as much as this many multiply-adds. */
    enum { WORK_OF_A_PART = 16384, PARTS_PER_THREAD = 4 };
    uint32_t n_threads = threads_count(b->pool);
    if (n == 0) return;
    uint64_t total = work * n;
    if (n_threads == 1 || total < 2 * WORK_OF_A_PART) {
        fn(b, arg, 0, n, 0);
        return;
    }
    uint64_t n_parts = total / WORK_OF_A_PART;
    if (n_parts > n_threads * PARTS_PER_THREAD) n_parts = n_threads * PARTS_PER_THREAD;
    for_job j = {b, fn, arg, n, 0};
    j.per_part = (uint32_t)((n + n_parts - 1) / n_parts);
    j.per_part = (j.per_part + unit - 1) / unit * unit;
    threads_run(b->pool, (n + j.per_part - 1) / j.per_part, run_part, &j);
}

/* ---- memory ---- */

static void cpu_close(backend *base) {
    if (!base) return;
    cpu_backend *b = cpu_of(base);
    while (b->buffers) {
        backend_buffer *next = b->buffers->next;
        free((void *)b->buffers->base);
        free(b->buffers);
        b->buffers = next;
    }
    cpu_caches_destroy(b);
    threads_destroy(b->pool);
    free(b->worker_scratch);
    free(b->mix);
    free(b->head);
    free(b->moe_memory);
    free(b);
}

static const char *cpu_describe(const backend *b) {
    return ((const cpu_backend *)b)->k->name;
}

static ds4_status cpu_buffer_create(backend *base, dev_ptr *out, size_t n_bytes, ds4_error *err) {
    cpu_backend    *b = cpu_of(base);
    backend_buffer *buffer = malloc(sizeof *buffer);
    void           *memory = calloc(1, n_bytes ? n_bytes : 1);
    if (!buffer || !memory) {
        free(buffer);
        free(memory);
        return ds4_fail_nomem(err, "cpu: buffer", n_bytes);
    }
    *buffer = (backend_buffer){(uintptr_t)memory, b->buffers};
    b->buffers = buffer;
    *out = (dev_ptr){buffer, 0};
    return DS4_OK;
}

static ds4_status cpu_bind(backend *base, weight *out, const tensor_source *source, act_kind act,
                           ds4_error *err) {
    cpu_backend      *b = cpu_of(base);
    const quant_info *info = quant_find(source->type);
    if (!info || !b->k->decode_row[source->type] || (act != ACT_F32 && !b->k->dot_q8[source->type]))
        return ds4_fail(err, DS4_EUNSUPPORTED, "cpu: tensor '%s': no kernel for type %d", source->name,
                        (int)source->type);
    *out = (weight){.data = {&b->process, (size_t)(uintptr_t)source->data},
                    .type = source->type,
                    .act = act,
                    .n_in = source->n_in,
                    .n_out = source->n_out,
                    .n_slices = source->n_slices,
                    .row_bytes = quant_row_bytes(info, source->n_in)};
    return DS4_OK;
}

static void cpu_copy(backend *b, dev_ptr to, dev_ptr from, size_t n_bytes) {
    (void)b;
    memmove(cpu_ptr(to), cpu_ptr(from), n_bytes);
}

static void cpu_read(backend *b, void *to, dev_ptr from, size_t n_bytes) {
    (void)b;
    memcpy(to, cpu_ptr(from), n_bytes);
}

static void cpu_write(backend *b, dev_ptr to, const void *from, size_t n_bytes) {
    (void)b;
    memcpy(cpu_ptr(to), from, n_bytes);
}

/* ---- scratch ---- */

static size_t worker_floats(const backend_plan *plan) {
    size_t n = cpu_matmul_floats(plan);
    size_t others[] = {cpu_attention_floats(plan), cpu_index_floats(plan), cpu_compress_floats(plan)};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i] > n) n = others[i];
    return (n + 15) / 16 * 16 + 16; /* workers do not share cache lines */
}

uint64_t cpu_scratch_bytes(const backend_options *options, const backend_plan *plan) {
    uint32_t n_threads = options->n_threads ? options->n_threads : threads_default_count();
    return (uint64_t)worker_floats(plan) * n_threads * sizeof(float) +
           (uint64_t)plan->n_rows * plan->n_mix * sizeof(float) +
           (uint64_t)plan->n_logits * plan->n_embd * sizeof(float) + cpu_moe_bytes(NULL, plan, NULL) +
           cache_fixed_bytes(&plan->caches);
}

static ds4_status cpu_prepare(backend *base, const backend_plan *plan, ds4_error *err) {
    cpu_backend *b = cpu_of(base);
    b->plan = *plan;
    DS4_TRY(cpu_caches_create(b, &plan->caches, err));
    b->worker_floats = worker_floats(plan);
    b->worker_scratch = calloc((size_t)threads_count(b->pool) * b->worker_floats, sizeof(float));
    uint32_t n_mix_rows = plan->n_rows > plan->n_logits ? plan->n_rows : plan->n_logits;
    b->mix = calloc((size_t)n_mix_rows * plan->n_mix, sizeof(float));
    b->head = calloc((size_t)plan->n_logits * plan->n_embd, sizeof(float));
    b->moe_memory = calloc(1, cpu_moe_bytes(NULL, plan, NULL));
    if (!b->worker_scratch || !b->mix || !b->head || !b->moe_memory)
        return ds4_fail_nomem(err, "cpu: scratch", 0);
    cpu_moe_bytes(b, plan, b->moe_memory);
    return DS4_OK;
}

static const backend_ops cpu_ops = {
    .name = "cpu",
    .close = cpu_close,
    .describe = cpu_describe,
    .prepare = cpu_prepare,
    .buffer_create = cpu_buffer_create,
    .bind = cpu_bind,
    .copy = cpu_copy,
    .read = cpu_read,
    .write = cpu_write,
    .cache_export = cpu_cache_export,
    .cache_import = cpu_cache_import,
    .step_begin = cpu_step_begin,
    .step_end = cpu_step_end,
    .step_abort = cpu_step_abort,
    .embed = cpu_embed,
    .hc_pre = cpu_hc_pre,
    .norm = cpu_norm,
    .quantize_rows = cpu_quantize_rows,
    .matmul = cpu_matmul_op,
    .rope = cpu_rope_op,
    .kv_append = cpu_kv_append,
    .compress = cpu_compress,
    .index_topk = cpu_index_topk,
    .attention = cpu_attention,
    .router = cpu_router,
    .moe = cpu_moe,
    .hc_post = cpu_hc_post,
    .head = cpu_head,
};

ds4_status cpu_backend_open(backend **out, const backend_options *options, ds4_error *err) {
    const cpu_kernels *k = options->kernels ? cpu_kernels_find(options->kernels) : cpu_kernels_best();
    if (!k)
        return ds4_fail(err, DS4_EUNSUPPORTED,
                        "cpu: no kernels '%s' in this build or for this processor", options->kernels);
    cpu_backend *b = calloc(1, sizeof *b);
    if (!b) return ds4_fail_nomem(err, "cpu", sizeof *b);
    b->base.ops = &cpu_ops;
    b->k = k;
    b->shadow_slot = -1;
    ds4_status status = threads_create(&b->pool, options->n_threads, err);
    if (status != DS4_OK) {
        cpu_close(&b->base);
        return status;
    }
    *out = &b->base;
    return DS4_OK;
}
