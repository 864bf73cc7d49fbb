/* quant.c - the table of types and the lookups over it. */
#include "quant/quant.h"

#include <string.h>

#include "quant/codec.h"

static const quant_info table[] = {
    {QUANT_F32, "f32", 1, 4, ACT_F32, true, f32_decode_row, f32_encode_row},
    {QUANT_F16, "f16", 1, 2, ACT_F32, true, f16_decode_row, f16_encode_row},
    {QUANT_BF16, "bf16", 1, 2, ACT_F32, true, bf16_decode_row, bf16_encode_row},
    {QUANT_Q8_0, "q8_0", 32, 34, ACT_Q8_32, true, q8_0_decode_row, q8_0_encode_row},
    {QUANT_Q4_0, "q4_0", 32, 18, ACT_Q8_32, true, q4_0_decode_row, q4_0_encode_row},
    {QUANT_MXFP4, "mxfp4", 32, 17, ACT_Q8_32, true, mxfp4_decode_row, mxfp4_encode_row},
    {QUANT_Q2_K, "q2_k", 256, 84, ACT_Q8_256, true, q2_k_decode_row, NULL},
    {QUANT_Q3_K, "q3_k", 256, 110, ACT_Q8_256, true, q3_k_decode_row, NULL},
    {QUANT_Q4_K, "q4_k", 256, 144, ACT_Q8_256, true, q4_k_decode_row, NULL},
    {QUANT_Q5_K, "q5_k", 256, 176, ACT_Q8_256, true, q5_k_decode_row, NULL},
    {QUANT_Q6_K, "q6_k", 256, 210, ACT_Q8_256, true, q6_k_decode_row, NULL},
    {QUANT_IQ2_XXS, "iq2_xxs", 256, 66, ACT_Q8_256, true, iq2_xxs_decode_row, NULL},
    {QUANT_IQ2_XS, "iq2_xs", 256, 74, ACT_Q8_256, true, iq2_xs_decode_row, NULL},
    {QUANT_I32, "i32", 1, 4, ACT_F32, false, i32_decode_row, NULL},
    {QUANT_I64, "i64", 1, 8, ACT_F32, false, i64_decode_row, NULL},
};
enum { N_TYPES = sizeof table / sizeof *table };

/* Types that may stand in a file beside those above; ds4 only needs to step over their bytes. */
static const struct {
    uint32_t    type, block_elems, block_bytes;
    const char *name;
} foreign[] = {
    {3, 32, 20, "q4_1"},      {6, 32, 22, "q5_0"},    {7, 32, 24, "q5_1"},
    {15, 256, 292, "q8_k"},   {18, 256, 98, "iq3_xxs"}, {19, 256, 50, "iq1_s"},
    {20, 32, 18, "iq4_nl"},   {21, 256, 110, "iq3_s"},  {22, 256, 82, "iq2_s"},
    {23, 256, 136, "iq4_xs"}, {24, 1, 1, "i8"},         {25, 1, 2, "i16"},
    {28, 1, 8, "f64"},        {29, 256, 56, "iq1_m"},   {40, 64, 36, "nvfp4"},
};

const quant_info *quant_find(uint32_t type) {
    for (size_t i = 0; i < N_TYPES; i++)
        if ((uint32_t)table[i].type == type) return &table[i];
    return NULL;
}

/* ASCII lower case, whatever the locale of the process. */
static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static bool equal_any_case(const char *a, const char *b) {
    while (*a && lower(*a) == lower(*b)) a++, b++;
    return lower(*a) == lower(*b);
}

const quant_info *quant_find_name(const char *name) {
    for (size_t i = 0; i < N_TYPES; i++)
        if (equal_any_case(table[i].name, name)) return &table[i];
    return NULL;
}

const quant_info *quant_table(size_t *n) {
    *n = N_TYPES;
    return table;
}

bool quant_block_size(uint32_t type, uint32_t *block_elems, uint32_t *block_bytes,
                      const char **name) {
    const quant_info *info = quant_find(type);
    if (info) {
        *block_elems = info->block_elems;
        *block_bytes = info->block_bytes;
        *name = info->name;
        return true;
    }
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (foreign[i].type == type) {
            *block_elems = foreign[i].block_elems;
            *block_bytes = foreign[i].block_bytes;
            *name = foreign[i].name;
            return true;
        }
    return false;
}

size_t quant_row_bytes(const quant_info *info, size_t n) {
    return n / info->block_elems * info->block_bytes;
}
