/* Operations on single vectors: embed, norm, rope. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "quant/grids.h"

void cpu_embed(backend *base, const embed_args *a) {
    cpu_backend   *b = cpu_of(base);
    const weight  *w = a->table;
    const uint8_t *rows = cpu_ptr(w->data);
    float         *out = cpu_ptr(a->out);
    for (uint32_t i = 0; i < b->batch->n_rows; i++) {
        b->k->decode_row[w->type](out, rows + (size_t)b->batch->rows[i].token * w->row_bytes, w->n_in);
        for (uint32_t s = 1; s < a->n_streams; s++)
            memcpy(out + (size_t)s * w->n_in, out, w->n_in * sizeof *out);
        out += (size_t)a->n_streams * w->n_in;
    }
}

/* 1 / sqrt(mean(x^2) + eps) */
static float inverse_rms(const cpu_kernels *k, const float *x, uint32_t n, float eps) {
    float sum = 0;
    k->dot_f32(&(cpu_dot_args){.out = &sum, .out_stride = 1, .w = x, .n_w = 1, .x = x, .n_x = 1, .n = n});
    return 1.0f / sqrtf(sum / (float)n + eps);
}

void cpu_rmsnorm(const cpu_kernels *k, float *out, const float *in, const float *w, uint32_t n,
                 float eps) {
    float r = inverse_rms(k, in, n, eps);
    if (w) {
        for (uint32_t i = 0; i < n; i++) out[i] = w[i] * (in[i] * r);
    } else {
        for (uint32_t i = 0; i < n; i++) out[i] = in[i] * r;
    }
}

typedef struct {
    const norm_args *a;
    float           *out;
    const float     *in, *w;
} norm_job;

static void norm_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    (void)worker;
    const norm_job *j = arg;
    uint32_t        n = j->a->n;
    for (uint32_t i = first; i < end; i++)
        cpu_rmsnorm(b->k, j->out + (size_t)i * n, j->in + (size_t)i * n, j->w, n, j->a->eps);
}

void cpu_norm(backend *base, const norm_args *a) {
    norm_job j = {a, cpu_ptr(a->out), cpu_ptr(a->in), cpu_ptr(a->w)};
    cpu_for(cpu_of(base), a->n_vec, 1, 2 * (uint64_t)a->n, norm_range, &j);
}

void cpu_rope(float *x, const float *freq, uint32_t n, uint32_t n_rot, uint32_t pos, bool is_inverse,
              rope_grid grid) {
    float *tail = x + (n - n_rot);
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        float angle = (float)pos * freq[i];
        float c = cosf(angle), s = is_inverse ? -sinf(angle) : sinf(angle);
        float a = tail[2 * i], b = tail[2 * i + 1];
        tail[2 * i] = a * c - b * s;
        tail[2 * i + 1] = a * s + b * c;
    }
    if (grid == GRID_FP8) {
        fp8_round(x, n - n_rot);
        for (uint32_t i = 0; i < n_rot; i++) tail[i] = bf16_to_f32(f32_to_bf16(tail[i]));
    } else if (grid == GRID_FP4) {
        hadamard(x, n);
        fp4_round(x, n);
    }
}

typedef struct {
    const rope_args *a;
    float           *x;
    const float     *freq;
} rope_job;

static void rope_range(cpu_backend *b, void *arg, uint32_t first, uint32_t end, uint32_t worker) {
    (void)worker;
    const rope_job  *j = arg;
    const rope_args *a = j->a;
    for (uint32_t row = first; row < end; row++) {
        for (uint32_t h = 0; h < a->n_heads; h++)
            cpu_rope(j->x + ((size_t)row * a->n_heads + h) * a->n, j->freq, a->n, a->n_rot,
                     b->batch->rows[row].pos, a->is_inverse, a->grid);
    }
}

void cpu_rope_op(backend *base, const rope_args *a) {
    cpu_backend *b = cpu_of(base);
    rope_job     j = {a, cpu_ptr(a->x), cpu_ptr(a->freq)};
    /* A sine costs about twenty multiply-adds. */
    uint64_t work = (uint64_t)a->n_heads * (20 * a->n_rot + (a->grid == GRID_NONE ? 0 : 10 * a->n));
    cpu_for(b, b->batch->n_rows, 1, work, rope_range, &j);
}
