/* test_quant.c - number types, block codecs against values computed from their fields, encoders,
 * tables. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/grids.h"
#include "quant/quant.h"

/* A small generator: the same numbers on every machine. */
static uint32_t rng_state = 1;

static uint32_t random_u32(void) {
    rng_state = rng_state * 1664525u + 1013904223u;
    return rng_state >> 8 ^ rng_state << 16;
}

static int random_int(int lo, int hi) {
    return lo + (int)(random_u32() % (uint32_t)(hi - lo + 1));
}

static float random_float(void) {
    return (float)(random_u32() & 0xffffff) * 0x1p-23f - 1.0f;
}

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static void put_f16(uint8_t *p, float v) {
    uint16_t h = f32_to_f16(v);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

/* ---- the table of types ---- */

static void test_table(void **state) {
    (void)state;
    static const struct {
        uint32_t id, elems, bytes;
        const char *name;
    } expected[] = {
        {0, 1, 4, "f32"},         {1, 1, 2, "f16"},        {2, 32, 18, "q4_0"},
        {8, 32, 34, "q8_0"},      {10, 256, 84, "q2_k"},   {11, 256, 110, "q3_k"},
        {12, 256, 144, "q4_k"},   {13, 256, 176, "q5_k"},  {14, 256, 210, "q6_k"},
        {16, 256, 66, "iq2_xxs"}, {17, 256, 74, "iq2_xs"}, {26, 1, 4, "i32"},
        {27, 1, 8, "i64"},        {30, 1, 2, "bf16"},      {39, 32, 17, "mxfp4"},
    };
    size_t n, n_matrix = 0;
    const quant_info *table = quant_table(&n);
    assert_int_equal(n, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < n; i++) n_matrix += table[i].is_matrix;
    assert_int_equal(n_matrix, 13);
    for (size_t i = 0; i < n; i++) {
        const quant_info *info = quant_find(expected[i].id);
        assert_non_null(info);
        assert_int_equal(info->type, expected[i].id);
        assert_int_equal(info->block_elems, expected[i].elems);
        assert_int_equal(info->block_bytes, expected[i].bytes);
        assert_string_equal(info->name, expected[i].name);
        assert_ptr_equal(quant_find_name(info->name), info);
        assert_non_null(info->decode_row);
        assert_int_equal(quant_row_bytes(info, 512), 512 / expected[i].elems * expected[i].bytes);
    }
    assert_int_equal(quant_find_name("Q4_k")->type, QUANT_Q4_K);
    assert_null(quant_find_name("q4"));
    assert_null(quant_find_name("q4_kk"));
    assert_null(quant_find_name(""));
    assert_null(quant_find(3));
    assert_null(quant_find(UINT32_MAX));
}

static void test_block_sizes(void **state) {
    (void)state;
    uint32_t elems, bytes;
    const char *name;
    assert_true(quant_block_size(QUANT_Q6_K, &elems, &bytes, &name));
    assert_int_equal(elems, 256);
    assert_int_equal(bytes, 210);
    assert_string_equal(name, "q6_k");
    assert_true(quant_block_size(18, &elems, &bytes, &name)); /* foreign, but known */
    assert_int_equal(elems, 256);
    assert_int_equal(bytes, 98);
    assert_string_equal(name, "iq3_xxs");
    assert_true(quant_block_size(40, &elems, &bytes, &name));
    assert_int_equal(bytes, 36);
    static const uint32_t unknown[] = {4, 5, 31, 32, 33, 36, 37, 38, 43, 1000, UINT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        assert_false(quant_block_size(unknown[i], &elems, &bytes, &name));
}

/* ---- binary16 and bfloat16 ---- */

/* The value of a binary16 from its fields. */
static double f16_value(uint32_t h) {
    int exponent = (int)(h >> 10 & 31), mantissa = (int)(h & 1023);
    double v = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    if (exponent == 31) v = mantissa ? NAN : (double)INFINITY;
    return h & 0x8000 ? -v : v;
}

static void test_f16_all(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        double v = f16_value(h);
        float f = f16_to_f32((uint16_t)h);
        if (isnan(v)) {
            assert_true(isnan(f));
            uint16_t back = f32_to_f16(f);
            assert_true((back & 0x7c00) == 0x7c00 && (back & 0x3ff) != 0);
            continue;
        }
        assert_true((double)f == v);
        assert_int_equal(signbit(f) != 0, h >> 15);
        assert_int_equal(f32_to_f16(f), h);
    }
}

/* Between every two neighbours: the middle goes to the even one, its neighbours to theirs. */
static void test_f16_rounding(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        double next = h + 1 == 0x7c00 ? 65536.0 : f16_value(h + 1);
        float middle = (float)((f16_value(h) + next) / 2);
        for (uint32_t sign = 0; sign <= 1; sign++) {
            float s = sign ? -1.0f : 1.0f;
            uint32_t lo = h | sign << 15;
            assert_int_equal(f32_to_f16(s * middle), h & 1 ? lo + 1 : lo);
            assert_int_equal(f32_to_f16(s * nextafterf(middle, 0)), lo);
            assert_int_equal(f32_to_f16(s * nextafterf(middle, 1e9f)), lo + 1);
        }
    }
    assert_int_equal(f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(f32_to_f16(1e-30f), 0);
    assert_int_equal(f32_to_f16(-0.0f), 0x8000);
    assert_true(isnan(f16_to_f32(f32_to_f16(NAN))));
}

static void test_bf16(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = bf16_to_f32((uint16_t)h);
        assert_int_equal(bits_of(f), h << 16);
        if (isnan(f)) {
            assert_true(isnan(bf16_to_f32(f32_to_bf16(f))));
            continue;
        }
        assert_int_equal(f32_to_bf16(f), h);
        if ((h & 0x7fff) >= 0x7f80) continue;
        /* Half a step further, away from zero. */
        uint32_t middle = h << 16 | 0x8000;
        float v[3];
        uint32_t around[3] = {middle - 1, middle, middle + 1};
        memcpy(v, around, sizeof v);
        assert_int_equal(f32_to_bf16(v[0]), h);
        assert_int_equal(f32_to_bf16(v[1]), h & 1 ? h + 1 : h);
        assert_int_equal(f32_to_bf16(v[2]), h + 1);
    }
    float nan_low; /* its payload lies only in the bits that fall away */
    uint32_t nan_bits = 0x7f800001;
    memcpy(&nan_low, &nan_bits, sizeof nan_low);
    assert_true(isnan(bf16_to_f32(f32_to_bf16(nan_low))));
}

static void test_plain_rows(void **state) {
    (void)state;
    const float x[3] = {1.5f, -2.0f, 0.1f};
    const int32_t narrow[3] = {7, -8, 1 << 30};
    const int64_t wide[3] = {7, -8, (int64_t)1 << 40};
    float out[3];
    uint8_t row[13]; /* decoded at an odd address */
    quant_find(QUANT_F32)->encode_row(row + 1, x, 3);
    quant_find(QUANT_F32)->decode_row(out, row + 1, 3);
    assert_memory_equal(out, x, sizeof x);
    quant_find(QUANT_F16)->encode_row(row + 1, x, 3);
    quant_find(QUANT_F16)->decode_row(out, row + 1, 3);
    assert_true(out[0] == 1.5f && out[1] == -2.0f && out[2] == f16_to_f32(f32_to_f16(0.1f)));
    quant_find(QUANT_BF16)->encode_row(row + 1, x, 3);
    quant_find(QUANT_BF16)->decode_row(out, row + 1, 3);
    assert_true(out[0] == 1.5f && out[1] == -2.0f && out[2] == bf16_to_f32(f32_to_bf16(0.1f)));
    quant_find(QUANT_I32)->decode_row(out, narrow, 3);
    assert_true(out[0] == 7 && out[1] == -8 && out[2] == 0x1p30f);
    quant_find(QUANT_I64)->decode_row(out, wide, 3);
    assert_true(out[0] == 7 && out[1] == -8 && out[2] == 0x1p40f);
}

/* ---- blocks: fields are drawn, packed as the format says, and the decoded values compared ----
 *
 * Scales are powers of two and everything else small integers, so every value is exact. */

enum { N_TRIES = 20, MAX_BYTES = 256 };
static const float D = 0.25f, DMIN = 0.125f;

static void check_block(quant_type type, const uint8_t *block, const float *expected) {
    const quant_info *info = quant_find(type);
    uint8_t two[2 * MAX_BYTES + 1]; /* two blocks, at an odd address */
    float out[2 * 256 + 1];
    memcpy(two + 1, block, info->block_bytes);
    memcpy(two + 1 + info->block_bytes, block, info->block_bytes);
    out[2 * info->block_elems] = 12345;
    info->decode_row(out, two + 1, 2 * info->block_elems);
    assert_true(out[2 * info->block_elems] == 12345);
    for (uint32_t e = 0; e < 2 * info->block_elems; e++)
        if (out[e] != expected[e % info->block_elems])
            fail_msg("%s: element %u: found %g, expected %g", info->name, e, (double)out[e],
                     (double)expected[e % info->block_elems]);
}

static void test_q8_0(void **state) {
    (void)state;
    uint8_t block[34];
    float y[32];
    put_f16(block, D);
    for (int j = 0; j < 32; j++) {
        int q = j == 0 ? -128 : j == 1 ? 127 : random_int(-128, 127);
        block[2 + j] = (uint8_t)q;
        y[j] = D * (float)q;
    }
    check_block(QUANT_Q8_0, block, y);
}

static void test_q4_0(void **state) {
    (void)state;
    uint8_t block[18] = {0};
    float y[32];
    put_f16(block, -D); /* the sign of d is part of the format */
    for (int j = 0; j < 32; j++) {
        int q = j % 16;
        block[2 + j % 16] |= (uint8_t)(j < 16 ? q : (15 - q) << 4);
        y[j] = -D * (float)((j < 16 ? q : 15 - q) - 8);
    }
    check_block(QUANT_Q4_0, block, y);
}

/* Eight 6-bit scales and minimums in 12 bytes: a set of bits at a time. */
static void pack_k_scales(uint8_t sc[12], const int s[8], const int m[8]) {
    memset(sc, 0, 12);
    for (int b = 0; b < 4; b++) {
        sc[b] = (uint8_t)(s[b] | (s[b + 4] >> 4) << 6);
        sc[4 + b] = (uint8_t)(m[b] | (m[b + 4] >> 4) << 6);
        sc[8 + b] = (uint8_t)((s[b + 4] & 15) | (m[b + 4] & 15) << 4);
    }
}

/* Q4_K, and with a fifth bit Q5_K. */
static void check_k4_k5(bool has_fifth) {
    for (int try = 0; try < N_TRIES; try++) {
        uint8_t block[176] = {0}, *qh = block + 16, *qs = block + (has_fifth ? 48 : 16);
        float y[256];
        int s[8], m[8];
        put_f16(block, D);
        put_f16(block + 2, DMIN);
        for (int b = 0; b < 8; b++) {
            s[b] = random_int(0, 63);
            m[b] = random_int(0, 63);
        }
        pack_k_scales(block + 4, s, m);
        for (int e = 0; e < 256; e++) {
            int b = e / 32, l = e % 32, q = random_int(0, has_fifth ? 31 : 15);
            qs[32 * (b / 2) + l] |= (uint8_t)((q & 15) << 4 * (b % 2));
            if (has_fifth) qh[l] |= (uint8_t)(q >> 4 << b);
            y[e] = D * (float)s[b] * (float)q - DMIN * (float)m[b];
        }
        check_block(has_fifth ? QUANT_Q5_K : QUANT_Q4_K, block, y);
    }
}

static void test_q4_k(void **state) {
    (void)state;
    check_k4_k5(false);
}

static void test_q5_k(void **state) {
    (void)state;
    check_k4_k5(true);
}

static void test_q6_k(void **state) {
    (void)state;
    for (int try = 0; try < N_TRIES; try++) {
        uint8_t block[210] = {0}, *ql = block, *qh = block + 128;
        float y[256];
        for (int i = 0; i < 16; i++) block[192 + i] = (uint8_t)random_int(-128, 127);
        put_f16(block + 208, D);
        for (int e = 0; e < 256; e++) {
            int half = e / 128, run = e % 128 / 32, l = e % 32, q = random_int(0, 63);
            ql[64 * half + l + (run % 2 ? 32 : 0)] |= (uint8_t)((q & 15) << (run >= 2 ? 4 : 0));
            qh[32 * half + l] |= (uint8_t)(q >> 4 << 2 * run);
            y[e] = D * (float)(int8_t)block[192 + e / 16] * (float)(q - 32);
        }
        check_block(QUANT_Q6_K, block, y);
    }
}

static void test_q2_k(void **state) {
    (void)state;
    for (int try = 0; try < N_TRIES; try++) {
        uint8_t block[84] = {0};
        float y[256];
        for (int i = 0; i < 16; i++) block[i] = (uint8_t)random_int(0, 255);
        put_f16(block + 80, D);
        put_f16(block + 82, DMIN);
        for (int e = 0; e < 256; e++) {
            int q = random_int(0, 3), scale = block[e / 16] % 16, minimum = block[e / 16] / 16;
            block[16 + e / 128 * 32 + e % 32] |= (uint8_t)(q << 2 * (e % 128 / 32));
            y[e] = D * (float)(scale * q) - DMIN * (float)minimum;
        }
        check_block(QUANT_Q2_K, block, y);
    }
}

static void test_q3_k(void **state) {
    (void)state;
    for (int try = 0; try < N_TRIES; try++) {
        uint8_t block[110] = {0}, *sc = block + 96;
        float y[256];
        int scale[16];
        for (int i = 0; i < 16; i++) {
            scale[i] = random_int(-32, 31);
            int code = scale[i] + 32;
            sc[i % 8] |= (uint8_t)((code & 15) << (i < 8 ? 0 : 4));
            sc[8 + i % 4] |= (uint8_t)(code >> 4 << 2 * (i / 4));
        }
        put_f16(block + 108, D);
        for (int e = 0; e < 256; e++) {
            int q = random_int(-4, 3), code = q + 4;
            block[32 + e / 128 * 32 + e % 32] |= (uint8_t)((code & 3) << 2 * (e % 128 / 32));
            block[e % 32] |= (uint8_t)(code >> 2 << e / 32);
            y[e] = D * (float)(scale[e / 16] * q);
        }
        check_block(QUANT_Q3_K, block, y);
    }
}

/* The sign of element j: seven bits as stored, the eighth makes their number even. */
static int sign_of(int index, int j) {
    int parity = 0;
    for (int k = 0; k < 7; k++) parity ^= index >> k & 1;
    return (j < 7 ? index >> j & 1 : parity) ? -1 : 1;
}

static void test_iq2_xxs(void **state) {
    (void)state;
    for (int try = 0; try < N_TRIES; try++) {
        uint8_t block[66];
        float y[256];
        put_f16(block, D);
        for (int g = 0; g < 8; g++) {
            int scale = random_int(0, 15);
            uint32_t bits = (uint32_t)scale << 28;
            for (int l = 0; l < 4; l++) {
                int row = random_int(0, 255), signs = random_int(0, 127);
                block[2 + 8 * g + l] = (uint8_t)row;
                bits |= (uint32_t)signs << 7 * l;
                for (int j = 0; j < 8; j++) {
                    int magnitude = (int)(iq2_xxs_grid[row] >> 8 * j & 255);
                    y[32 * g + 8 * l + j] =
                        D * ((float)scale + 0.5f) / 4 * (float)(sign_of(signs, j) * magnitude);
                }
            }
            for (int i = 0; i < 4; i++) block[2 + 8 * g + 4 + i] = (uint8_t)(bits >> 8 * i);
        }
        check_block(QUANT_IQ2_XXS, block, y);
    }
}

static void test_iq2_xs(void **state) {
    (void)state;
    for (int try = 0; try < N_TRIES; try++) {
        uint8_t block[74] = {0};
        float y[256];
        int scale[16];
        put_f16(block, D);
        for (int i = 0; i < 16; i++) {
            scale[i] = random_int(0, 15);
            block[66 + i / 2] |= (uint8_t)(scale[i] << 4 * (i % 2));
        }
        for (int k = 0; k < 32; k++) {
            int row = random_int(0, 511), signs = random_int(0, 127);
            block[2 + 2 * k] = (uint8_t)row;
            block[3 + 2 * k] = (uint8_t)(row >> 8 | signs << 1);
            for (int j = 0; j < 8; j++) {
                int magnitude = (int)(iq2_xs_grid[row] >> 8 * j & 255);
                y[8 * k + j] =
                    D * ((float)scale[k / 2] + 0.5f) / 4 * (float)(sign_of(signs, j) * magnitude);
            }
        }
        check_block(QUANT_IQ2_XS, block, y);
    }
}

static void test_mxfp4(void **state) {
    (void)state;
    for (int e = 0; e < 255; e++) {
        uint8_t block[17] = {(uint8_t)e};
        float y[32];
        for (int j = 0; j < 32; j++) {
            int code = j < 16 ? j : 31 - j;
            block[1 + j % 16] |= (uint8_t)(j < 16 ? code : code << 4);
            y[j] = (float)ldexp((double)e2m1_decode((uint8_t)code), e - 127);
        }
        check_block(QUANT_MXFP4, block, y);
    }
    for (int code = 0; code < 16; code++)
        assert_true((float)mxfp4_values[code] == 2 * e2m1_decode((uint8_t)code));
}

/* ---- the tables of the IQ2 types ---- */

static void check_grid(const uint64_t *grid, int n) {
    for (int i = 0; i < n; i++) {
        int n_25 = 0;
        for (int j = 0; j < 8; j++) {
            int magnitude = (int)(grid[i] >> 8 * j & 255);
            assert_true(magnitude == 8 || magnitude == 25 || magnitude == 43);
            n_25 += magnitude == 25;
        }
        assert_int_equal(n_25 % 2, 0);
        if (i) assert_true(grid[i - 1] < grid[i]); /* ascending, so all are different */
    }
}

static void test_iq2_tables(void **state) {
    (void)state;
    check_grid(iq2_xxs_grid, 256);
    check_grid(iq2_xs_grid, 512);
    for (int i = 0; i < 128; i++) {
        int n_set = 0;
        for (int j = 0; j < 8; j++) {
            n_set += iq2_signs[i] >> j & 1;
            assert_int_equal(iq2_signs[i] >> j & 1, sign_of(i, j) < 0);
        }
        assert_int_equal(iq2_signs[i] & 127, i);
        assert_int_equal(n_set % 2, 0);
    }
}

/* ---- encoders ---- */

enum { ROW = 32 * 24 };

/* Rows of every kind of block: ordinary, with an outlier, tiny, large, zero. */
static void draw_row(float x[ROW]) {
    for (int i = 0; i < ROW; i++) {
        int block = i / 32;
        float scale = block < 8    ? 1.0f
                      : block < 12 ? 1e-3f
                      : block < 16 ? 300.0f
                      : block < 20 ? 0.1f
                                   : 0;
        x[i] = scale * random_float();
        if (block >= 16 && block < 20 && i % 32 == block) x[i] = block % 2 ? 5.0f : -5.0f;
    }
}

static void round_trip(quant_type type, float out[ROW], const float x[ROW]) {
    uint8_t row[ROW * 2 + 8];
    const quant_info *info = quant_find(type);
    size_t n_bytes = quant_row_bytes(info, ROW);
    memset(row, 0xa5, sizeof row);
    info->encode_row(row, x, ROW);
    for (size_t i = n_bytes; i < sizeof row; i++) assert_int_equal(row[i], 0xa5);
    info->decode_row(out, row, ROW);
}

static float max_of_block(const float *x) {
    float amax = 0;
    for (int j = 0; j < 32; j++) amax = fmaxf(amax, fabsf(x[j]));
    return amax;
}

static void test_encode_q8_0(void **state) {
    (void)state;
    float x[ROW], out[ROW];
    for (int try = 0; try < 50; try++) {
        draw_row(x);
        round_trip(QUANT_Q8_0, out, x);
        for (int i = 0; i < ROW; i++) {
            /* Half a step; and d in f16 is off by 2^-11 or, where it is subnormal, 2^-25, which the
             * code 127 multiplies. */
            float amax = max_of_block(x + i / 32 * 32);
            float bound = amax / 127 * 0.502f + amax * 0x1p-11f + 128 * 0x1p-25f;
            assert_true(fabsf(out[i] - x[i]) <= bound);
            if (amax == 0) assert_true(out[i] == 0);
        }
    }
}

static void test_encode_q4_0(void **state) {
    (void)state;
    float x[ROW], out[ROW];
    for (int try = 0; try < 50; try++) {
        draw_row(x);
        round_trip(QUANT_Q4_0, out, x);
        for (int i = 0; i < ROW; i++) {
            /* Half a step of amax / 8, a whole one at the end that has only the code 7. */
            float amax = max_of_block(x + i / 32 * 32), step = amax / 8 * 1.001f + 0x1p-25f;
            bool is_at_end = fabsf(x[i]) > 7.4f * amax / 8;
            assert_true(fabsf(out[i] - x[i]) <= step * (is_at_end ? 1.0f : 0.51f) + 8 * 0x1p-25f);
            if (amax == 0) assert_true(out[i] == 0);
        }
    }
}

/* The error of a block with the smallest scale that holds its largest value. */
static double plain_mxfp4_error(const float *x) {
    double scale = ldexp(1, (int)ue8m0_scale_for(max_of_block(x), 6.0f) - 127), error = 0;
    for (int j = 0; j < 32; j++) {
        double diff =
            (double)x[j] - scale * (double)e2m1_decode(e2m1_encode((float)((double)x[j] / scale)));
        error += diff * diff;
    }
    return error;
}

static void test_encode_mxfp4(void **state) {
    (void)state;
    float x[ROW], out[ROW];
    for (int try = 0; try < 50; try++) {
        draw_row(x);
        round_trip(QUANT_MXFP4, out, x);
        for (int block = 0; block < ROW / 32; block++) {
            const float *in = x + 32 * block, *found = out + 32 * block;
            double error = 0;
            for (int j = 0; j < 32; j++) {
                error += ((double)found[j] - (double)in[j]) * ((double)found[j] - (double)in[j]);
                /* Between 4 and 6 scales the step is 2 scales; scale <= 2 amax / 6. */
                assert_true(fabsf(found[j] - in[j]) <= max_of_block(in) / 3 * 1.001f);
            }
            assert_true(error <= plain_mxfp4_error(in) * 1.0001);
        }
    }
}

static void check_exact(quant_type type, const float x[ROW]) {
    float out[ROW];
    round_trip(type, out, x);
    for (int i = 0; i < ROW; i++) assert_true(out[i] == x[i]); /* zeros of either sign are equal */
}

/* What is on the grid already comes back unchanged. */
static void test_encode_exact(void **state) {
    (void)state;
    float x[ROW];
    for (int i = 0; i < ROW; i++)
        x[i] = (float)(i % 32 == 3 ? 127 : random_int(-127, 127)) * 0x1p-6f;
    check_exact(QUANT_Q8_0, x);
    for (int i = 0; i < ROW; i++) x[i] = (float)(i % 32 == 3 ? 8 : random_int(-7, 8)) * 0x1p-6f;
    check_exact(QUANT_Q4_0, x);
    for (int i = 0; i < ROW; i++)
        x[i] = e2m1_decode((uint8_t)(i % 32 == 3 ? 7 : random_int(0, 15))) * 0x1p9f;
    check_exact(QUANT_MXFP4, x);
}

/* Values that no weight has: the result may be poor, but it is finite where the input is. */
static void test_encode_extremes(void **state) {
    (void)state;
    static const quant_type types[] = {QUANT_Q8_0, QUANT_Q4_0, QUANT_MXFP4};
    static const float extremes[] = {1e38f, -1e38f, 1e-45f, 1e-38f, INFINITY, -INFINITY, NAN};
    for (size_t t = 0; t < 3; t++)
        for (size_t k = 0; k < sizeof extremes / sizeof *extremes; k++) {
            float x[ROW], out[ROW];
            draw_row(x);
            for (int i = 5; i < ROW; i += 32) x[i] = extremes[k];
            round_trip(types[t], out, x);
            for (int i = 0; isfinite(extremes[k]) && i < ROW; i++) assert_true(isfinite(out[i]));
        }
}

/* ---- random weights ---- */

static void check_tame(const quant_info *info, float scale) {
    enum { N = 256 * 64, GUARD = 64 };
    size_t n_bytes = quant_row_bytes(info, N);
    uint8_t *row = malloc(n_bytes + GUARD), *again = malloc(n_bytes + GUARD);
    float *out = malloc(N * sizeof *out);
    assert_true(row && again && out);
    for (size_t i = 0; i < n_bytes + GUARD; i++) row[i] = again[i] = (uint8_t)random_u32();
    quant_tame_row(info->type, row, N, scale);
    assert_memory_equal(row + n_bytes, again + n_bytes, GUARD);
    quant_tame_row(info->type, again, N, scale);
    assert_memory_equal(row, again, n_bytes);
    info->decode_row(out, row, N);
    double sum = 0, squares = 0;
    for (int i = 0; i < N; i++) {
        assert_true(isfinite(out[i]));
        sum += (double)out[i];
        squares += (double)out[i] * (double)out[i];
    }
    double rms = sqrt(squares / N), mean = sum / N;
    if (rms < 0.7 * (double)scale || rms > 1.4 * (double)scale || fabs(mean) > 0.2 * (double)scale)
        fail_msg("%s: rms %g, mean %g, expected a scale of %g", info->name, rms, mean,
                 (double)scale);
    free(row);
    free(again);
    free(out);
}

static void test_tame(void **state) {
    (void)state;
    size_t n;
    const quant_info *table = quant_table(&n);
    for (size_t i = 0; i < n; i++) {
        if (!table[i].is_matrix) continue;
        check_tame(&table[i], 1.0f);
        check_tame(&table[i], 0.0625f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),        cmocka_unit_test(test_block_sizes),
        cmocka_unit_test(test_f16_all),      cmocka_unit_test(test_f16_rounding),
        cmocka_unit_test(test_bf16),         cmocka_unit_test(test_plain_rows),
        cmocka_unit_test(test_q8_0),         cmocka_unit_test(test_q4_0),
        cmocka_unit_test(test_q4_k),         cmocka_unit_test(test_q5_k),
        cmocka_unit_test(test_q6_k),         cmocka_unit_test(test_q2_k),
        cmocka_unit_test(test_q3_k),         cmocka_unit_test(test_iq2_xxs),
        cmocka_unit_test(test_iq2_xs),       cmocka_unit_test(test_mxfp4),
        cmocka_unit_test(test_iq2_tables),   cmocka_unit_test(test_encode_q8_0),
        cmocka_unit_test(test_encode_q4_0),  cmocka_unit_test(test_encode_mxfp4),
        cmocka_unit_test(test_encode_exact), cmocka_unit_test(test_encode_extremes),
        cmocka_unit_test(test_tame),
    };
    return cmocka_run_group_tests_name("quant", tests, NULL, NULL);
}
