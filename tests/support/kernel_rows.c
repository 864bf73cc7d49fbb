#include "tests/support/kernel_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint32_t rng_state = 1;

uint32_t rows_random(void) {
    rng_state = rng_state * 1664525u + 1013904223u;
    return rng_state >> 8 ^ rng_state << 16;
}

float rows_random_float(void) {
    return (float)(rows_random() & 0xffffff) * 0x1p-23f - 1.0f;
}

static int random_int(int lo, int hi) {
    return lo + (int)(rows_random() % (uint32_t)(hi - lo + 1));
}

/* ---- memory ---- */

/* A stack of mappings, each with a page behind it that nobody may touch; what is freed is lent
 * again. */
enum { MAX_BLOCKS = 256 };
static struct {
    uint8_t *base;
    size_t n_bytes; /* without the page */
} blocks[MAX_BLOCKS];
static size_t n_blocks;

static void map_block(size_t i, size_t n_bytes, size_t page) {
    if (blocks[i].base) munmap(blocks[i].base, blocks[i].n_bytes + page);
    n_bytes = (n_bytes + page - 1) / page * page;
    uint8_t *base =
        mmap(NULL, n_bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(base + n_bytes, page, PROT_NONE) != 0) abort();
    blocks[i].base = base;
    blocks[i].n_bytes = n_bytes;
}

void *rows_alloc(size_t n_bytes, size_t slack) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), i = n_blocks++;
    if (i == MAX_BLOCKS) abort();
    if (!blocks[i].base || blocks[i].n_bytes < n_bytes + slack) map_block(i, n_bytes + slack, page);
    uint8_t *p = blocks[i].base + blocks[i].n_bytes - slack - n_bytes;
    memset(p, 0, n_bytes);
    return p;
}

size_t rows_mark(void) {
    return n_blocks;
}

void rows_free_to(size_t mark) {
    n_blocks = mark;
}

/* ---- weights ---- */

/* Where a block keeps its f16 scale and minimum; -1 if absent. */
static const struct {
    quant_type type;
    int d_at, dmin_at;
} scale_fields[] = {
    {QUANT_Q8_0, 0, -1},   {QUANT_Q4_0, 0, -1},    {QUANT_Q2_K, 80, 82},
    {QUANT_Q3_K, 108, -1}, {QUANT_Q4_K, 0, 2},     {QUANT_Q5_K, 0, 2},
    {QUANT_Q6_K, 208, -1}, {QUANT_IQ2_XXS, 0, -1}, {QUANT_IQ2_XS, 0, -1},
};

static int dmin_at(quant_type type) {
    for (size_t i = 0; i < sizeof scale_fields / sizeof *scale_fields; i++)
        if (scale_fields[i].type == type) return scale_fields[i].dmin_at;
    return -1;
}

bool rows_set_scale(void *block, quant_type type, uint16_t d, uint16_t dmin) {
    uint8_t *b = block;
    if (type == QUANT_MXFP4) {
        b[0] = (uint8_t)d;
        return true;
    }
    for (size_t i = 0; i < sizeof scale_fields / sizeof *scale_fields; i++) {
        if (scale_fields[i].type != type) continue;
        memcpy(b + scale_fields[i].d_at, &d, sizeof d);
        if (scale_fields[i].dmin_at >= 0) memcpy(b + scale_fields[i].dmin_at, &dmin, sizeof dmin);
        return true;
    }
    return false;
}

static float make_float(rows_kind kind) {
    float sign = rows_random() & 1 ? -1.0f : 1.0f;
    switch (kind) {
    case ROWS_EXACT: return (float)random_int(-8, 8);
    case ROWS_MAX: return 1e17f * sign;
    case ROWS_TINY: return 1e-40f * rows_random_float();
    case ROWS_NEGATIVE: return -fabsf(rows_random_float());
    case ROWS_ZERO: return 0.0f * sign;
    default: return rows_random_float();
    }
}

/* Scales for block i. IQ2 values are eighths of d times an integer. */
static void make_scale(uint8_t *block, quant_type type, rows_kind kind) {
    bool is_mxfp4 = type == QUANT_MXFP4, is_iq2 = type == QUANT_IQ2_XXS || type == QUANT_IQ2_XS;
    uint16_t one = f32_to_f16(is_iq2 ? 8.0f : 1.0f), exponent_step = 0x400;
    switch (kind) {
    case ROWS_EXACT:
        one = (uint16_t)(one + exponent_step * (rows_random() & 1));
        rows_set_scale(block, type, is_mxfp4 ? (uint16_t)(128 + (rows_random() & 1)) : one, one);
        break;
    case ROWS_MAX: rows_set_scale(block, type, is_mxfp4 ? 200 : 0x7bff, 0x7bff); break;
    case ROWS_TINY: rows_set_scale(block, type, is_mxfp4 ? rows_random() & 1 : 1, 3); break;
    default: break;
    }
}

void rows_make_weight(void *row, const quant_info *info, size_t n, rows_kind kind) {
    static const uint8_t extreme[] = {0x00, 0xff, 0x80, 0x7f, 0x0f, 0xf0, 0x08, 0x88};
    uint8_t *b = row;
    size_t n_bytes = quant_row_bytes(info, n);
    if (info->type == QUANT_F32) {
        for (size_t i = 0; i < n; i++) ((float *)row)[i] = make_float(kind);
        return;
    }
    for (size_t i = 0; i < n_bytes; i++)
        b[i] = kind == ROWS_ZERO  ? 0
               : kind == ROWS_MAX ? extreme[rows_random() % 8]
                                  : (uint8_t)rows_random();
    if (kind == ROWS_RANDOM || kind == ROWS_NEGATIVE) quant_tame_row(info->type, row, n, 1.0f);
    for (size_t i = 0; i < n / info->block_elems; i++, b += info->block_bytes) {
        make_scale(b, info->type, kind);
        if (kind != ROWS_NEGATIVE) continue;
        float d = -(0.001f + fabsf(rows_random_float()));
        if (info->type == QUANT_MXFP4)
            for (size_t c = 1; c < info->block_bytes; c++) b[c] |= 0x88;
        else
            rows_set_scale(b, info->type, f32_to_f16(d), f32_to_f16(-d));
    }
}

/* ---- activations ---- */

static int8_t make_code(act_kind act, rows_kind kind) {
    switch (kind) {
    case ROWS_EXACT: return (int8_t)(act == ACT_Q8_32 ? random_int(-127, 127) : random_int(-3, 3));
    case ROWS_MAX: return rows_random() & 1 ? -127 : 127;
    case ROWS_NEGATIVE: return (int8_t)random_int(-127, -1);
    case ROWS_ZERO: return 0;
    default: return (int8_t)random_int(-127, 127);
    }
}

static float make_act_scale(rows_kind kind) {
    switch (kind) {
    case ROWS_EXACT: return rows_random() & 1 ? 0.5f : 1.0f;
    case ROWS_MAX: return 1e10f;
    case ROWS_TINY: return 1e-41f;
    case ROWS_ZERO: return 0;
    default: return (1.0f + fabsf(rows_random_float())) / 127.0f;
    }
}

void rows_make_act(void *row, act_kind act, size_t n, rows_kind kind) {
    if (act == ACT_F32) {
        for (size_t i = 0; i < n; i++) ((float *)row)[i] = make_float(kind);
        return;
    }
    size_t block = act == ACT_Q8_32 ? ACT_BLOCK_32 : ACT_BLOCK_256;
    int8_t *qs = row, *sums = qs + n + n / block * sizeof(float);
    /* Runs of one sign reach the largest sums of neighbours; every second block has them. */
    for (size_t i = 0; i < n; i++)
        qs[i] = kind == ROWS_MAX && i / 16 % 2 && i % 16 ? qs[i - 1] : make_code(act, kind);
    for (size_t i = 0; i < n / block; i++) {
        float d = make_act_scale(kind);
        memcpy(qs + n + i * sizeof d, &d, sizeof d);
    }
    if (act == ACT_Q8_32) return;
    for (size_t i = 0; i < n / ACT_SUM_ELEMS; i++) {
        int16_t sum = 0;
        for (size_t c = 0; c < ACT_SUM_ELEMS; c++) sum = (int16_t)(sum + qs[i * ACT_SUM_ELEMS + c]);
        memcpy(sums + i * sizeof sum, &sum, sizeof sum);
    }
}

/* ---- what comes out ---- */

/* With the sign of dmin turned, d * q - dmin * m becomes d * q + dmin * m: the larger of the two in
 * magnitude is the sum of both magnitudes. */
static void magnitudes(float *out, const quant_info *info, const uint8_t *block) {
    float turned[ACT_BLOCK_256];
    uint8_t copy[256];
    int at = dmin_at(info->type);
    info->decode_row(out, block, info->block_elems);
    if (at >= 0) {
        memcpy(copy, block, info->block_bytes);
        copy[at + 1] ^= 0x80;
        info->decode_row(turned, copy, info->block_elems);
    }
    for (uint32_t i = 0; i < info->block_elems; i++)
        out[i] = at < 0 ? fabsf(out[i]) : fmaxf(fabsf(out[i]), fabsf(turned[i]));
}

static double dot_floats(const float *w, const float *x, size_t n, double *magnitude) {
    double sum = 0;
    *magnitude = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)w[i] * (double)x[i];
        *magnitude += fabs((double)w[i] * (double)x[i]);
    }
    return sum;
}

double rows_dot(const quant_info *info, const void *w, const void *x, size_t n, double *magnitude) {
    if (info->act == ACT_F32) return dot_floats(w, x, n, magnitude);
    size_t act_block = info->act == ACT_Q8_32 ? ACT_BLOCK_32 : ACT_BLOCK_256;
    const int8_t *qs = x;
    const uint8_t *block = w;
    double sum = 0;
    *magnitude = 0;
    for (size_t at = 0; at < n; at += info->block_elems, block += info->block_bytes) {
        float values[ACT_BLOCK_256], sizes[ACT_BLOCK_256], d;
        memcpy(&d, qs + n + at / act_block * sizeof d, sizeof d);
        info->decode_row(values, block, info->block_elems);
        magnitudes(sizes, info, block);
        for (uint32_t i = 0; i < info->block_elems; i++) {
            sum += (double)values[i] * qs[at + i] * (double)d;
            *magnitude += fabs((double)sizes[i] * qs[at + i] * (double)d);
        }
    }
    return sum;
}

/* Each rounding adds at most 2^-24 of the sum of magnitudes, and at most that many lie on one
 * product's way into the result: for floats the n additions; for blocks those within a block and
 * those of the blocks; and 8 for decoding, scaling and adding up lanes. Below the normal range a
 * rounding of a scale adds up to 2^-150, which the integer sum of the products multiplies (at most
 * 2^19 for each). */
double rows_tolerance(const quant_info *info, size_t n, double magnitude) {
    size_t act_block = info->act == ACT_Q8_32 ? ACT_BLOCK_32 : ACT_BLOCK_256;
    size_t n_steps = (info->act == ACT_F32 ? n : act_block + n / act_block) + 8;
    return (double)n_steps * 0x1p-24 * magnitude + (double)n * 0x1p-131;
}
