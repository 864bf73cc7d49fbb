/* Hyper-connections: hc_pre, hc_post, and the head, which begins with their last reduction. */
#include <math.h>

#include "backend/cpu/cpu.h"

static float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

/* 1 / rms of all streams of a row together */
static float streams_scale(cpu_backend *b, const float *hc, uint32_t n, float eps) {
    float sum = 0;
    b->k->dot_f32(
        &(cpu_dot_args){.out = &sum, .out_stride = 1, .w = hc, .n_w = 1, .x = hc, .n_x = 1, .n = n});
    return 1.0f / sqrtf(sum / (float)n + eps);
}

/* m[s][t] becomes doubly stochastic, but for eps: softmax and columns, then rows and columns. */
static void sinkhorn(float *m, uint32_t n, uint32_t n_iters, float eps) {
    for (uint32_t s = 0; s < n; s++) {
        float *row = m + s * n, max = row[0], sum = 0;
        for (uint32_t t = 1; t < n; t++) max = cpu_max(row[t], max);
        for (uint32_t t = 0; t < n; t++) sum += row[t] = expf(row[t] - max);
        for (uint32_t t = 0; t < n; t++) row[t] = row[t] / sum + eps;
    }
    for (uint32_t iter = 0; iter < n_iters; iter++) {
        for (uint32_t s = 0; iter > 0 && s < n; s++) {
            float sum = eps;
            for (uint32_t t = 0; t < n; t++) sum += m[s * n + t];
            for (uint32_t t = 0; t < n; t++) m[s * n + t] /= sum;
        }
        for (uint32_t t = 0; t < n; t++) {
            float sum = eps;
            for (uint32_t s = 0; s < n; s++) sum += m[s * n + t];
            for (uint32_t s = 0; s < n; s++) m[s * n + t] /= sum;
        }
    }
}

void cpu_collapse(float *x, const float *hc, const float *pre, uint32_t n_streams, uint32_t n_embd) {
    for (uint32_t d = 0; d < n_embd; d++) x[d] = pre[0] * hc[d];
    for (uint32_t s = 1; s < n_streams; s++) {
        const float *stream = hc + (size_t)s * n_embd;
        for (uint32_t d = 0; d < n_embd; d++) x[d] += pre[s] * stream[d];
    }
}

typedef struct {
    const hc_pre_args *a;
    const float       *hc, *base, *scale, *norm;
    float             *x, *mix;
} hc_pre_job;

static void hc_pre_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    (void)worker;
    const hc_pre_job *j = arg;
    const hc_params  *p = j->a->hc_site;
    uint32_t          n = p->n_streams, n_out = 2 * n + n * n;
    for (uint32_t i = first; i < end; i++) {
        const float *hc = j->hc + (size_t)i * n * p->n_embd;
        float       *raw = b->mix + (size_t)i * n_out;
        float       *post = j->mix + (size_t)i * (n + n * n), *comb = post + n;
        float        r = streams_scale(b, hc, n * p->n_embd, p->eps);

        for (uint32_t s = 0; s < n; s++) {
            raw[s] = sigmoid(raw[s] * r * j->scale[0] + j->base[s]) + p->eps_hc;
            post[s] = 2.0f * sigmoid(raw[n + s] * r * j->scale[1] + j->base[n + s]);
        }
        for (uint32_t s = 0; s < n * n; s++)
            comb[s] = raw[2 * n + s] * r * j->scale[2] + j->base[2 * n + s];
        sinkhorn(comb, n, p->n_iters, p->eps_hc);

        float *x = j->x + (size_t)i * p->n_embd;
        cpu_collapse(x, hc, raw, n, p->n_embd);
        cpu_rmsnorm(b->k, x, x, j->norm, p->n_embd, j->a->eps);
    }
}

void cpu_hc_pre(backend *base, const hc_pre_args *a) {
    cpu_backend     *b = cpu_of(base);
    const hc_params *p = a->hc_site;
    uint32_t         n_rows = b->batch->n_rows, n = p->n_streams;
    size_t           width = (size_t)n * p->n_embd;
    hc_pre_job       j = {a, cpu_ptr(a->hc), cpu_ptr(p->base), cpu_ptr(p->scale), cpu_ptr(a->norm),
                          cpu_ptr(a->x), cpu_ptr(a->mix)};
    cpu_matmul(b, b->mix, p->fn.n_out, &p->fn, j.hc, width * sizeof(float), n_rows);
    cpu_for(b, n_rows, 1, 3 * width + 40 * (uint64_t)n * n * p->n_iters, hc_pre_range, &j);
}

typedef struct {
    float       *hc;
    const float *y, *mix;
    uint32_t     n, n_embd;
} hc_post_job;

static void hc_post_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    (void)b, (void)worker;
    const hc_post_job *j = arg;
    enum { BLOCK = 256 };
    uint32_t n = j->n;
    for (uint32_t i = first; i < end; i++) {
        float       *hc = j->hc + (size_t)i * n * j->n_embd;
        const float *y = j->y + (size_t)i * j->n_embd;
        if (!j->mix) {
            for (uint32_t t = 0; t < n; t++)
                for (uint32_t d = 0; d < j->n_embd; d++) hc[(size_t)t * j->n_embd + d] += y[d];
            continue;
        }
        /* Block by block, since every new stream needs all old ones. */
        const float *post = j->mix + (size_t)i * (n + n * n), *comb = post + n;
        for (uint32_t d0 = 0; d0 < j->n_embd; d0 += BLOCK) {
            uint32_t n_d = j->n_embd - d0 < BLOCK ? j->n_embd - d0 : BLOCK;
            float    next[16][BLOCK];
            for (uint32_t t = 0; t < n; t++) {
                for (uint32_t d = 0; d < n_d; d++) next[t][d] = post[t] * y[d0 + d];
                for (uint32_t s = 0; s < n; s++) {
                    const float *stream = hc + (size_t)s * j->n_embd + d0;
                    float        c = comb[s * n + t];
                    for (uint32_t d = 0; d < n_d; d++) next[t][d] += c * stream[d];
                }
            }
            for (uint32_t t = 0; t < n; t++)
                for (uint32_t d = 0; d < n_d; d++) hc[(size_t)t * j->n_embd + d0 + d] = next[t][d];
        }
    }
}

void cpu_hc_post(backend *base, const hc_post_args *a) {
    cpu_backend *b = cpu_of(base);
    hc_post_job  j = {cpu_ptr(a->hc), cpu_ptr(a->y), cpu_ptr(a->mix), a->n_streams, a->n_embd};
    cpu_for(b, b->batch->n_rows, 1, (uint64_t)a->n_streams * (a->n_streams + 1) * a->n_embd / 4,
            hc_post_range, &j);
}

typedef struct {
    const head_args *a;
    const float     *hc, *base, *scale, *norm;
} head_job;

static void head_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    const head_job  *j = arg;
    const hc_params *p = j->a->hc_site;
    size_t           width = (size_t)p->n_streams * p->n_embd;
    for (uint32_t i = first; i < end; i++) {
        const float *hc = j->hc + b->batch->logit_rows[i] * width;
        float       *m = b->mix + (size_t)i * p->n_streams;
        float       *x = b->head + (size_t)i * p->n_embd;
        cpu_dot_rows(b, worker, m, p->n_streams, &p->fn, 0, p->n_streams, hc, width * sizeof *hc, 1);
        float r = streams_scale(b, hc, (uint32_t)width, p->eps);
        for (uint32_t s = 0; s < p->n_streams; s++)
            m[s] = sigmoid(m[s] * r * j->scale[0] + j->base[s]) + p->eps_hc;
        cpu_collapse(x, hc, m, p->n_streams, p->n_embd);
        cpu_rmsnorm(b->k, x, x, j->norm, p->n_embd, j->a->eps);
    }
}

void cpu_head(backend *base, const head_args *a) {
    cpu_backend     *b = cpu_of(base);
    const hc_params *p = a->hc_site;
    uint32_t         n_logits = b->batch->n_logits;
    head_job         j = {a, cpu_ptr(a->hc), cpu_ptr(p->base), cpu_ptr(p->scale), cpu_ptr(a->norm)};
    cpu_for(b, n_logits, 1, (uint64_t)p->n_streams * p->n_streams * p->n_embd, head_range, &j);
    cpu_matmul(b, cpu_ptr(a->logits), a->output->n_out, a->output, b->head, p->n_embd * sizeof(float),
               n_logits);
}
