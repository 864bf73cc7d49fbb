/* Which tables this build has, and which of them this processor can run. */
#include "backend/cpu/kernels_simd.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* Asked of the processor itself: __builtin_cpu_supports of older clangs does not know this name.
 * The registers that the instructions need are those of AVX2. */
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

static bool has_neon(void) {
    const unsigned long dot_product = 1ul << 20; /* HWCAP_ASIMDDP */
    return (getauxval(AT_HWCAP) & dot_product) != 0;
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
    {cpu_kernels_avx512, has_avx512},
#elif defined(__aarch64__) && defined(__linux__)
    {cpu_kernels_neon, has_neon},
#elif defined(__aarch64__) && defined(__APPLE__)
    {cpu_kernels_neon, NULL}, /* every Apple processor of this kind has the instructions */
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
    case ACT_Q8_256:
        return n + n / ACT_BLOCK_256 * sizeof(float) + n / ACT_SUM_ELEMS * sizeof(int16_t);
    }
    return 0;
}
