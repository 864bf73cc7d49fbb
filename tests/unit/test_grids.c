/* test_grids.c - every code of the FP8 and FP4 grids, ties, scales at powers of two, packing,
 * Hadamard. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "quant/grids.h"
#include "quant/quant.h"

static uint32_t rng_state = 1;

static uint32_t random_u32(void) {
    rng_state = rng_state * 1664525u + 1013904223u;
    return rng_state >> 8 ^ rng_state << 16;
}

static float random_float(void) {
    return (float)(random_u32() & 0xffffff) * 0x1p-23f - 1.0f;
}

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* ---- codes ---- */

/* The magnitude of an E4M3 code 0 .. 126 from its fields. */
static double e4m3_value(int code) {
    int exponent = code >> 3, mantissa = code & 7;
    return exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
}

static void test_e4m3(void **state) {
    (void)state;
    assert_true(e4m3_value(126) == 448);
    for (int code = 0; code < 127; code++) {
        for (int sign = 0; sign <= 128; sign += 128) {
            double s = sign ? -1 : 1;
            float v = e4m3_decode((uint8_t)(code | sign));
            assert_true((double)v == s * e4m3_value(code));
            assert_int_equal(signbit(v) != 0, sign != 0);
            assert_int_equal(e4m3_encode(v), code | sign);
            if (code == 126) continue;
            /* Between two neighbours: the middle goes to the even code. */
            float middle = (float)((e4m3_value(code) + e4m3_value(code + 1)) / 2);
            assert_int_equal(e4m3_encode((float)s * middle), (code + (code & 1)) | sign);
            assert_int_equal(e4m3_encode((float)s * nextafterf(middle, 0)), code | sign);
            assert_int_equal(e4m3_encode((float)s * nextafterf(middle, 1e9f)), (code + 1) | sign);
        }
    }
    assert_true(isnan(e4m3_decode(0x7f)) && isnan(e4m3_decode(0xff)));
    assert_int_equal(e4m3_encode(449), 126);
    assert_int_equal(e4m3_encode(-1e30f), 126 | 128);
    assert_int_equal(e4m3_encode(INFINITY), 126);
    assert_int_equal(e4m3_encode(1e-30f), 0);
    assert_int_equal(e4m3_encode(NAN) & 127, 127);
}

static void test_e2m1(void **state) {
    (void)state;
    static const float values[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    for (int code = 0; code < 8; code++)
        for (int sign = 0; sign <= 8; sign += 8) {
            float s = sign ? -1.0f : 1.0f, v = e2m1_decode((uint8_t)(code | sign));
            assert_true(v == s * values[code]);
            assert_int_equal(signbit(v) != 0, sign != 0);
            assert_int_equal(e2m1_encode(v), code | sign);
            if (code == 7) continue;
            float middle = (values[code] + values[code + 1]) / 2;
            assert_int_equal(e2m1_encode(s * middle), (code + (code & 1)) | sign);
            assert_int_equal(e2m1_encode(s * nextafterf(middle, 0)), code | sign);
            assert_int_equal(e2m1_encode(s * nextafterf(middle, 9)), (code + 1) | sign);
        }
    /* The ties as the model's description lists them. */
    static const float ties[7][2] = {{0.25f, 0}, {0.75f, 1}, {1.25f, 1}, {1.75f, 2},
                                     {2.5f, 2},  {3.5f, 4},  {5, 4}};
    for (int i = 0; i < 7; i++) assert_true(e2m1_decode(e2m1_encode(ties[i][0])) == ties[i][1]);
    assert_int_equal(e2m1_encode(100), 7);
    assert_int_equal(e2m1_encode(-100), 15);
}

/* ---- scales ---- */

static void check_scale(float amax, float grid_max) {
    float product = amax * (1.0f / grid_max);
    int exponent;
    /* ceil(log2): frexp gives a fraction in [0.5, 1), 0.5 for a power of two. */
    int expected = frexp((double)product, &exponent) == 0.5 ? exponent - 1 : exponent;
    assert_int_equal(ue8m0_scale_for(amax, grid_max), expected + 127);
}

static void test_scales(void **state) {
    (void)state;
    for (int byte = 0; byte < 255; byte++)
        assert_true((double)ue8m0_decode((uint8_t)byte) == ldexp(1, byte - 127));
    assert_true(isnan(ue8m0_decode(255)));
    for (int k = -100; k < 100; k++) {
        float power = ldexpf(1, k);
        for (int grid = 0; grid < 2; grid++) {
            float max = grid ? 6.0f : 448.0f, edge = max * power;
            check_scale(edge, max);
            check_scale(nextafterf(edge, 0), max);
            check_scale(nextafterf(edge, INFINITY), max);
            check_scale(power, max);
            for (int i = 0; i < 20; i++) check_scale(power * (1 + fabsf(random_float())), max);
            /* What fits exactly needs no larger scale; a little more does. */
            assert_int_equal(ue8m0_scale_for(edge, max), k + 127);
            assert_int_equal(ue8m0_scale_for(edge * 1.0001f, max), k + 128);
        }
    }
}

/* ---- rounding of blocks ---- */

enum { MAX_N = 448 };

/* The nearest of scale * grid[0..n) to x, ties to the even index, by looking at all of them. */
static float nearest(float x, double scale, const double *grid, int n) {
    int best = 0;
    double best_distance = INFINITY;
    for (int i = 0; i < n; i++) {
        double distance = fabs(fabs((double)x) - scale * grid[i]);
        if (distance < best_distance || (distance == best_distance && i % 2 == 0)) {
            best = i;
            best_distance = distance;
        }
    }
    float v = (float)(scale * grid[best]);
    return signbit(x) ? -v : v;
}

/* Rounds x[n] by the definition: scale from the block's maximum, then the nearest of all values. */
static void round_by_search(float *x, size_t n, bool is_fp4) {
    static const double fp4[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    double fp8[127];
    for (int i = 0; i < 127; i++) fp8[i] = e4m3_value(i);
    size_t n_block = is_fp4 ? FP4_BLOCK : FP8_BLOCK;
    for (size_t at = 0; at < n; at += n_block) {
        size_t end = at + n_block < n ? at + n_block : n;
        float amax = is_fp4 ? 6 * 0x1p-126f : 1e-4f;
        for (size_t i = at; i < end; i++) amax = fmaxf(amax, fabsf(x[i]));
        double scale = ldexp(1, (int)ue8m0_scale_for(amax, is_fp4 ? 6.0f : 448.0f) - 127);
        for (size_t i = at; i < end; i++)
            x[i] = is_fp4 ? nearest(x[i], scale, fp4, 8) : nearest(x[i], scale, fp8, 127);
    }
}

static void draw(float *x, size_t n, int kind) {
    for (size_t i = 0; i < n; i++) {
        float v = random_float();
        switch (kind) {
        case 0: x[i] = 3 * v; break;
        case 1:
            x[i] = v * ldexpf(1, (int)(random_u32() % 60) - 40);
            break; /* all sizes in one block */
        case 2:
            x[i] = ldexpf(v < 0 ? -1 : 1, (int)(random_u32() % 12) - 6);
            break;                                    /* powers of two */
        case 3: x[i] = 0.125f * rintf(16 * v); break; /* many ties */
        case 4: x[i] = i % 3 ? 0.0f : -0.0f; break;
        default: x[i] = i % 64 == 7 ? 448.0f : i % 64 == 40 ? 6.0f : 1e-3f * v; break;
        }
    }
}

static void check_round(size_t n, int kind, bool is_fp4) {
    float x[MAX_N + 1], rounded[MAX_N + 1], searched[MAX_N], unpacked[MAX_N + 1];
    uint8_t codes[MAX_N + 1], scales[MAX_N / 32 + 2];
    draw(x, n, kind);
    memcpy(rounded, x, sizeof *x * n);
    memcpy(searched, x, sizeof *x * n);
    rounded[n] = unpacked[n] = 77;
    size_t n_codes = is_fp4 ? (n + 1) / 2 : n, n_block = is_fp4 ? FP4_BLOCK : FP8_BLOCK;
    size_t n_scales = (n + n_block - 1) / n_block;
    codes[n_codes] = scales[n_scales] = 0xa5;

    (is_fp4 ? fp4_round : fp8_round)(rounded, n);
    (is_fp4 ? fp4_pack : fp8_pack)(codes, scales, x, n);
    (is_fp4 ? fp4_unpack : fp8_unpack)(unpacked, codes, scales, n);
    round_by_search(searched, n, is_fp4);
    assert_true(rounded[n] == 77 && unpacked[n] == 77);
    assert_int_equal(codes[n_codes], 0xa5);
    assert_int_equal(scales[n_scales], 0xa5);
    for (size_t i = 0; i < n; i++) {
        if (bits_of(rounded[i]) != bits_of(searched[i]) ||
            bits_of(rounded[i]) != bits_of(unpacked[i]))
            fail_msg("fp%d, kind %d, %zu of %zu: %a rounds to %a, packs to %a, expected %a",
                     is_fp4 ? 4 : 8, kind, i, n, (double)x[i], (double)rounded[i],
                     (double)unpacked[i], (double)searched[i]);
        assert_true(bf16_to_f32(f32_to_bf16(rounded[i])) == rounded[i]);
    }
    /* A rounded row stays as it is. */
    memcpy(searched, rounded, sizeof *x * n);
    (is_fp4 ? fp4_round : fp8_round)(rounded, n);
    assert_memory_equal(rounded, searched, sizeof *x * n);
}

static void test_round_and_pack(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 31, 32, 33, 63, 64, 65, 128, 200, 448};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int kind = 0; kind < 6; kind++)
            for (int try = 0; try < 20; try++) {
                check_round(sizes[s], kind, false);
                check_round(sizes[s], kind, true);
            }
}

/* The grids are the same at every power of two. */
static void test_round_scaled(void **state) {
    (void)state;
    float x[128], y[128];
    for (int k = -8; k <= 20; k++) {
        draw(x, 128, 0);
        for (int i = 0; i < 128; i++) y[i] = ldexpf(x[i], k);
        fp8_round(x, 128);
        fp8_round(y, 128);
        for (int i = 0; i < 128; i++) assert_true(y[i] == ldexpf(x[i], k));
        draw(x, 128, 0);
        for (int i = 0; i < 128; i++) y[i] = ldexpf(x[i], k);
        fp4_round(x, 128);
        fp4_round(y, 128);
        for (int i = 0; i < 128; i++) assert_true(y[i] == ldexpf(x[i], k));
    }
}

/* Below 1e-4 the FP8 scale stays where the reference keeps it: values get coarser, then zero. */
static void test_fp8_floor(void **state) {
    (void)state;
    float x[64] = {1e-4f, 5e-5f, 1e-7f, 1e-12f},
          scale = ldexpf(1, (int)ue8m0_scale_for(1e-4f, 448) - 127);
    float y[64] = {5e-5f, 1e-7f};
    fp8_round(x, 64);
    fp8_round(y, 64);
    assert_true(y[0] == x[1] && y[1] == x[2]);
    assert_true(x[3] == 0);
    assert_true(x[1] == e4m3_decode(e4m3_encode(5e-5f / scale)) * scale);
}

/* ---- Hadamard ---- */

static void test_hadamard(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 2, 4, 32, 64, 128, 256};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = sizes[s];
        float x[257] = {0}, y[257] = {0};
        /* Entry (i, j) is the parity of the bits that i and j share. */
        for (size_t j = 0; j < n; j++) {
            memset(x, 0, sizeof x);
            x[j] = 1;
            hadamard(x, n);
            for (size_t i = 0; i < n; i++) {
                float expected = (float)(1 / sqrt((double)n));
                assert_true(x[i] == (__builtin_parityll(i & j) ? -expected : expected));
            }
        }
        draw(x, n, 0);
        memcpy(y, x, sizeof x);
        y[n] = 77;
        hadamard(y, n);
        double before = 0, after = 0;
        for (size_t i = 0; i < n; i++) {
            before += (double)x[i] * (double)x[i];
            after += (double)y[i] * (double)y[i];
        }
        assert_true(fabs(before - after) <= 1e-5 * before);
        hadamard(y, n);
        assert_true(y[n] == 77);
        /* Twice log2(n) + 1 roundings of sums that stay below sqrt(n) * max|x|. */
        for (size_t i = 0; i < n; i++)
            assert_true(fabsf(y[i] - x[i]) <= 18 * 0x1p-24f * 3 * sqrtf((float)n));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_e4m3),         cmocka_unit_test(test_e2m1),
        cmocka_unit_test(test_scales),       cmocka_unit_test(test_round_and_pack),
        cmocka_unit_test(test_round_scaled), cmocka_unit_test(test_fp8_floor),
        cmocka_unit_test(test_hadamard),
    };
    return cmocka_run_group_tests_name("grids", tests, NULL, NULL);
}
