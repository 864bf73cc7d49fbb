/* tame.c - turn random bytes into rows of ordinary weights: only the scale fields need replacing.
 *
 *   Every field of a block but its floats may hold any bits. A float becomes `unit` times a factor in
 *   [0.5, 1.5) that its old bits decide, so that a row stays a pure function of its bytes. */
#include <string.h>

#include "quant/codec.h"

/* Where a type keeps its f16 scales, and the root mean square of a value whose d is 1 and whose other
 * fields are random; minimums stand in the ratio that centres the values around zero. */
typedef struct {
    quant_type type;
    int        d_at, dmin_at; /* byte offsets in the block; -1 if absent */
    float      rms, dmin_ratio;
} scale_fields;

static const scale_fields scaled[] = {
    {QUANT_Q8_0, 0, -1, 74.0f, 0},     {QUANT_Q4_0, 0, -1, 4.6f, 0},
    {QUANT_Q2_K, 80, 82, 14.0f, 1.5f}, {QUANT_Q3_K, 108, -1, 42.0f, 0},
    {QUANT_Q4_K, 0, 2, 256.0f, 7.5f},  {QUANT_Q5_K, 0, 2, 512.0f, 15.5f},
    {QUANT_Q6_K, 208, -1, 1370.0f, 0}, {QUANT_IQ2_XXS, 0, -1, 57.0f, 0},
    {QUANT_IQ2_XS, 0, -1, 57.0f, 0},
};

static float factor(uint16_t bits) {
    return 0.5f + (float)(bits & 0xff) / 256.0f;
}

static void tame_f16(uint8_t *p, float unit) {
    store_scale_f16(p, unit * factor(load_u16(p)));
}

/* A uniform value with root mean square `scale`: the half-width is sqrt(3) times that. */
static float tame_value(uint16_t bits, float scale) {
    return scale * 1.7320508f * ((float)bits / 32768.0f - 1.0f);
}

static void tame_floats(quant_type type, uint8_t *row, size_t n, float scale) {
    for (size_t i = 0; i < n; i++) {
        if (type == QUANT_F32) {
            float v = tame_value(load_u16(row + 4 * i), scale);
            memcpy(row + 4 * i, &v, sizeof v);
        } else {
            float v = tame_value(load_u16(row + 2 * i), scale);
            store_u16(row + 2 * i, type == QUANT_F16 ? f32_to_f16(v) : f32_to_bf16(v));
        }
    }
}

static void tame_mxfp4(uint8_t *row, size_t n, float scale) {
    int exponent = ilogbf(fmaxf(scale / 2.9f, 0x1p-100f)) + 127; /* codes have rms 2.9 */
    for (size_t i = 0; i < n / 32; i++) {
        int e = exponent + row[17 * i] % 3 - 1;
        row[17 * i] = (uint8_t)(e < 1 ? 1 : e > 240 ? 240 : e);
    }
}

void quant_tame_row(quant_type type, void *row, size_t n, float scale) {
    uint8_t *p = row;
    if (type == QUANT_F32 || type == QUANT_F16 || type == QUANT_BF16) tame_floats(type, p, n, scale);
    if (type == QUANT_MXFP4) tame_mxfp4(p, n, scale);
    for (size_t k = 0; k < sizeof scaled / sizeof *scaled; k++) {
        const scale_fields *f = &scaled[k];
        if (f->type != type) continue;
        const quant_info *info = quant_find((uint32_t)type);
        for (size_t i = 0; i < n / info->block_elems; i++, p += info->block_bytes) {
            tame_f16(p + f->d_at, scale / f->rms);
            if (f->dmin_at >= 0) tame_f16(p + f->dmin_at, f->dmin_ratio * scale / f->rms);
        }
    }
}
