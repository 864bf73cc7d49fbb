/* Which tables this build has, and which of them this processor can run. */
#include "backend/cpu/kernels_simd.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* Asked of the processor itself: __builtin_cpu_supports of older clangs does not know this name. The
 * registers that the instructions need are those of AVX2. */
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

#endif

/* From the plainest to the best. */
static const struct {
    const cpu_kernels *(*table)(void);
    bool (*is_supported)(void);
} tables[] = {
    {cpu_kernels_ref, NULL},
#if defined(__x86_64__)
    {cpu_kernels_avx2, has_avx2},
#endif
};

enum { N_TABLES = sizeof tables / sizeof *tables };

const cpu_kernels *cpu_kernels_at(size_t i) {
    for (size_t t = 0; t < N_TABLES; t++) {
        if (tables[t].is_supported && !tables[t].is_supported()) continue;
        if (i-- == 0) return tables[t].table();
    }
    return NULL;
}

const cpu_kernels *cpu_kernels_best(void) {
    const cpu_kernels *best = NULL, *k;
    for (size_t i = 0; (k = cpu_kernels_at(i)); i++) best = k;
    return best;
}

const cpu_kernels *cpu_kernels_find(const char *name) {
    const cpu_kernels *k;
    for (size_t i = 0; (k = cpu_kernels_at(i)); i++)
        if (strcmp(k->name, name) == 0) return k;
    return NULL;
}

size_t act_row_bytes(act_kind kind, size_t n) {
    switch (kind) {
    case ACT_F32: return n * sizeof(float);
    case ACT_Q8_32: return n + n / ACT_BLOCK_32 * sizeof(float);
    case ACT_Q8_256: return n + n / ACT_BLOCK_256 * sizeof(float) + n / ACT_SUM_ELEMS * sizeof(int16_t);
    }
    return 0;
}

void cpu_dot_decoded(const cpu_dot_args *a, quant_type type, size_t act_block, dot_i8_fn dot) {
    const quant_info *info = quant_find(type);
    size_t            block_bytes = act_block / info->block_elems * info->block_bytes;
    for (size_t i = 0; i < a->n_w; i++) {
        const uint8_t *row = (const uint8_t *)a->w + i * a->w_stride;
        for (size_t j = 0; j < a->n_x; j++) a->out[j * a->out_stride + i] = 0;
        for (size_t block = 0; block < a->n / act_block; block++) {
            float values[ACT_BLOCK_256];
            info->decode_row(values, row + block * block_bytes, act_block);
            for (size_t j = 0; j < a->n_x; j++) {
                const int8_t *qs = (const int8_t *)a->x + j * a->x_stride;
                float         d;
                memcpy(&d, qs + a->n + block * sizeof d, sizeof d);
                a->out[j * a->out_stride + i] += d * dot(values, qs + block * act_block, act_block);
            }
        }
    }
}
