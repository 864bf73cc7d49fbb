/* test_cache_layout.c - bytes of rows, rings and streams: the numbers of the released model,
 * written out by hand, and every plan against a slot that is filled position by position. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cache_layout.h"
#include "quant/grids.h"

/* ---- the released shapes ---- */

enum { SLACK = 16, N_FLASH = 44, MIB = 1 << 20 };

static const cache_layer sliding = {.head_dim = 512, .rot_dim = 64, .window = 128};
static const cache_layer csa = {
    .head_dim = 512, .rot_dim = 64, .window = 128, .ratio = 4, .index_dim = 128};
static const cache_layer hca = {.head_dim = 512, .rot_dim = 64, .window = 128, .ratio = 128};

/* Flash: two sliding layers, 21 of ratio 4 and 20 of ratio 128 in turn, and the MTP block. */
static cache_plan flash(cache_layer layers[N_FLASH], uint32_t n_ctx, bool is_packed) {
    for (uint32_t il = 0; il < N_FLASH; il++)
        layers[il] = il < 2 || il == 43 ? sliding : il % 2 ? hca : csa;
    return (cache_plan){.layers = layers,
                        .n_layers = N_FLASH,
                        .n_slots = 1,
                        .n_ctx = n_ctx,
                        .slack = SLACK,
                        .is_packed = is_packed};
}

static void test_row_bytes(void **state) {
    (void)state;
    /* 448 codes, 64 BF16, 7 scales, 1 of padding; 64 bytes of codes, 4 scales. */
    assert_int_equal(cache_kv_row_bytes(&csa, true), 584);
    assert_int_equal(cache_kv_row_bytes(&csa, false), 2048);
    assert_int_equal(cache_index_row_bytes(&csa, true), 68);
    assert_int_equal(cache_index_row_bytes(&csa, false), 512);
    /* 32 codes, 16 BF16, 1 scale: padded from 65 to 72; 16 bytes of codes, 1 scale: from 17 to 20.
     */
    const cache_layer small = {
        .head_dim = 48, .rot_dim = 16, .window = 8, .ratio = 4, .index_dim = 32};
    assert_int_equal(cache_kv_row_bytes(&small, true), 72);
    assert_int_equal(cache_index_row_bytes(&small, true), 20);
}

static void test_part_sizes(void **state) {
    (void)state;
    cache_layer layers[N_FLASH];
    cache_plan p = flash(layers, 1000, true);
    static const struct {
        const cache_layer *layer;
        uint32_t cap[CACHE_N_PARTS], row_bytes[CACHE_N_PARTS];
    } expected[] = {
        {&sliding, {144, 0, 0, 0, 0, 0, 0}, {584}},
        {&csa, {144, 24, 24, 24, 24, 250, 250}, {584, 4096, 4096, 1024, 1024, 584, 68}},
        {&hca, {144, 144, 144, 0, 0, 7, 0}, {584, 2048, 2048, 0, 0, 584, 0}},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        for (cache_part part = 0; part < CACHE_N_PARTS; part++) {
            uint32_t cap = expected[i].cap[part];
            assert_int_equal(cache_part_cap(&p, expected[i].layer, part), cap);
            if (cap > 0)
                assert_int_equal(cache_part_row_bytes(&p, expected[i].layer, part),
                                 expected[i].row_bytes[part]);
        }
    assert_int_equal(cache_part_cap(&p, &csa, CACHE_N_PARTS), 0);
    assert_int_equal(cache_part_row_bytes(&p, &csa, CACHE_N_PARTS), 0);
}

/* The published sizes: growth per token, and with a million tokens. */
static void test_flash_growth(void **state) {
    (void)state;
    cache_layer layers[N_FLASH];
    cache_plan packed = flash(layers, MIB, true);
    /* 21 (584 + 68) / 4 + 20 * 584 / 128 = 3514.25 bytes a token */
    assert_true(cache_rows_bytes(&packed) ==
                (uint64_t)MIB / 4 * 21 * (584 + 68) + MIB / 128 * 20 * 584);
    assert_in_range(cache_rows_bytes(&packed) / MIB, 3514, 3514);
    cache_plan plain = flash(layers, MIB, false);
    assert_true(cache_rows_bytes(&plain) == (uint64_t)MIB * 3440 * sizeof(float));
}

static void test_flash_fixed(void **state) {
    (void)state;
    cache_layer layers[N_FLASH];
    cache_plan packed = flash(layers, MIB, true);
    uint64_t windows = (uint64_t)44 * (128 + SLACK) * 584;
    uint64_t overlapping = (uint64_t)21 * 2 * (8 + SLACK) * (1024 + 256) * sizeof(float);
    uint64_t others = (uint64_t)20 * 2 * (128 + SLACK) * 512 * sizeof(float);
    assert_true(cache_fixed_bytes(&packed) == windows + overlapping + others);

    /* Without slack and MTP block: what the model itself has to keep. */
    packed.n_layers = 43;
    packed.slack = 0;
    windows = (uint64_t)43 * 128 * 584;
    overlapping = (uint64_t)21 * (8 * 1024 + 8 * 256) * 2 * sizeof(float);
    assert_true(cache_fixed_bytes(&packed) == windows + overlapping + (uint64_t)20 * 524288);
    assert_int_equal(overlapping / 21, 81920); /* 65536 of the rows, 16384 of the index rows */
    packed.n_ctx = 0;
    assert_true(cache_rows_bytes(&packed) == 0);
}

/* ---- what a slot holds, by filling one ---- */

/* The row that lies in each place of a ring, or of an array of rows: -1 before the first. */
typedef struct {
    int64_t at[4096];
    uint32_t n_cap;
} filled_part;

static void fill(filled_part *f, const cache_plan *p, const cache_layer *l, cache_part part,
                 uint32_t n_pos) {
    f->n_cap = cache_part_cap(p, l, part);
    assert_in_range(f->n_cap, 0, 4096);
    for (uint32_t i = 0; i < f->n_cap; i++) f->at[i] = -1;
    for (uint32_t pos = 0; pos < n_pos && f->n_cap; pos++) {
        if (cache_part_is_ring(part))
            f->at[pos % f->n_cap] = pos;
        else if ((pos + 1) % l->ratio == 0)
            f->at[pos / l->ratio] = pos / l->ratio;
    }
}

static void check_held(const cache_plan *p, const cache_layer *l, cache_part part, uint32_t n_pos) {
    static filled_part f;
    uint32_t first, n, n_there = 0;
    fill(&f, p, l, part, n_pos);
    cache_part_held(p, l, part, n_pos, &first, &n);
    for (uint32_t i = 0; i < f.n_cap; i++) n_there += f.at[i] >= 0;
    if (n != n_there)
        fail_msg("part %d, ratio %u, %u positions: holds %u, expected %u", (int)part, l->ratio,
                 n_pos, n, n_there);
    for (uint32_t row = first; row < first + n; row++)
        assert_int_equal(f.at[cache_part_is_ring(part) ? row % f.n_cap : row], row);
}

static void test_held(void **state) {
    (void)state;
    enum { N_CTX = 600 };
    static const uint32_t ratios[] = {0, 1, 3, 4, 8, 128}, windows[] = {1, 16, 128};
    for (size_t r = 0; r < sizeof ratios / sizeof *ratios; r++)
        for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
            const cache_layer l = {.head_dim = 48,
                                   .rot_dim = 16,
                                   .window = windows[w],
                                   .ratio = ratios[r],
                                   .index_dim = ratios[r] == 4 ? 32 : 0};
            const cache_plan p = {.layers = &l,
                                  .n_layers = 1,
                                  .n_slots = 1,
                                  .n_ctx = N_CTX,
                                  .slack = r % 2 ? SLACK : 0};
            for (uint32_t n_pos = 0; n_pos <= N_CTX; n_pos += n_pos < 40 ? 1 : 7)
                for (cache_part part = 0; part < CACHE_N_PARTS; part++)
                    check_held(&p, &l, part, n_pos);
        }
}

/* What the next position and a rewind by up to `slack` need is always held: the window before it,
 * and the tokens of the compressed row that closes next, with two lanes those of the row before as
 * well. */
static void test_rings_suffice(void **state) {
    (void)state;
    static const cache_layer *const kinds[] = {&csa, &hca};
    const cache_plan p = {.n_ctx = 2000, .slack = SLACK};
    for (size_t i = 0; i < 2; i++)
        for (uint32_t n_pos = SLACK; n_pos <= 700; n_pos++) {
            const cache_layer *l = kinds[i];
            uint32_t next = n_pos - SLACK, first, n;
            uint32_t window_start = next > l->window - 1 ? next - (l->window - 1) : 0;
            cache_part_held(&p, l, CACHE_WINDOW, n_pos, &first, &n);
            assert_true(first <= window_start && first + n == n_pos);

            uint32_t row_start = next / l->ratio * l->ratio, n_back = l->ratio == 4 ? 4 : 0;
            cache_part_held(&p, l, CACHE_Z, n_pos, &first, &n);
            assert_true(first <= (row_start > n_back ? row_start - n_back : 0));
            assert_int_equal(first + n, n_pos);
        }
}

static void test_stream_bytes(void **state) {
    (void)state;
    cache_layer layers[N_FLASH];
    cache_plan p = flash(layers, 10000, true);
    assert_true(cache_stream_bytes(&p, 0) == 0);
    /* One position: a window row everywhere, and its compressor inputs. */
    assert_true(cache_stream_bytes(&p, 1) ==
                44 * 584 + 21 * (2 * 4096 + 2 * 1024) + 20 * (2 * 2048));
    for (uint32_t n_pos = 0; n_pos <= 10000; n_pos += n_pos < 300 ? 1 : 97) {
        uint64_t n_bytes = 0;
        for (uint32_t il = 0; il < N_FLASH; il++)
            for (cache_part part = 0; part < CACHE_N_PARTS; part++) {
                uint32_t first, n;
                cache_part_held(&p, &layers[il], part, n_pos, &first, &n);
                n_bytes += (uint64_t)n * cache_part_row_bytes(&p, &layers[il], part);
            }
        assert_true(cache_stream_bytes(&p, n_pos) == n_bytes);
    }
    /* Full, the stream is as long as the slot. */
    assert_true(cache_stream_bytes(&p, 10000) == cache_fixed_bytes(&p) + cache_rows_bytes(&p));
    /* A million tokens of 64 layers do not fit into 32 bits. */
    p.n_ctx = 1 << 24;
    assert_true(cache_stream_bytes(&p, 1 << 24) > (uint64_t)40 << 30);
}

/* ---- rows ---- */

static float random_float(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return ldexpf((float)(*state >> 8) - 0x1p23f, -23 - (int)(*state % 7));
}

/* Widths with whole and with cut blocks. A guard behind the row must stay. */
static const cache_layer widths[] = {
    {.head_dim = 512, .rot_dim = 64, .index_dim = 128},
    {.head_dim = 48, .rot_dim = 16, .index_dim = 32},
    {.head_dim = 130, .rot_dim = 2, .index_dim = 2},
    {.head_dim = 66, .rot_dim = 64, .index_dim = 64},
    {.head_dim = 64, .rot_dim = 64, .index_dim = 16},
};
enum { N_WIDTHS = sizeof widths / sizeof *widths, MAX_DIM = 512, GUARD = 0xA5 };

static void check_guard(const uint8_t *row, size_t n) {
    for (size_t i = n; i < n + 16; i++) assert_int_equal(row[i], GUARD);
}

static void test_kv_rows(void **state) {
    (void)state;
    uint32_t seed = 1;
    for (size_t i = 0; i < 50 * N_WIDTHS; i++)
        for (int is_packed = 0; is_packed < 2; is_packed++) {
            const cache_layer *l = &widths[i % N_WIDTHS];
            float x[MAX_DIM], back[MAX_DIM + 1];
            uint8_t row[MAX_DIM * sizeof(float) + 16];
            uint32_t n_codes = l->head_dim - l->rot_dim;
            for (uint32_t d = 0; d < l->head_dim; d++) x[d] = random_float(&seed);
            if (is_packed) { /* onto the grid: codes on FP8, the rotary part on BF16 */
                fp8_round(x, n_codes);
                for (uint32_t d = n_codes; d < l->head_dim; d++) {
                    uint32_t bits;
                    memcpy(&bits, &x[d], sizeof bits);
                    bits &= 0xFFFF0000u;
                    memcpy(&x[d], &bits, sizeof bits);
                }
            }
            memset(row, GUARD, sizeof row);
            back[l->head_dim] = 77.0f;
            cache_kv_store(row, x, l, is_packed);
            check_guard(row, cache_kv_row_bytes(l, is_packed));
            cache_kv_load(back, row, l, is_packed);
            assert_memory_equal(back, x, l->head_dim * sizeof *x);
            assert_true(back[l->head_dim] == 77.0f);
        }
}

static void test_index_rows(void **state) {
    (void)state;
    uint32_t seed = 2;
    for (size_t i = 0; i < 50 * N_WIDTHS; i++)
        for (int is_packed = 0; is_packed < 2; is_packed++) {
            const cache_layer *l = &widths[i % N_WIDTHS];
            float x[MAX_DIM], back[MAX_DIM + 1];
            uint8_t row[MAX_DIM * sizeof(float) + 16];
            for (uint32_t d = 0; d < l->index_dim; d++) x[d] = random_float(&seed);
            if (is_packed) fp4_round(x, l->index_dim);
            memset(row, GUARD, sizeof row);
            back[l->index_dim] = 77.0f;
            cache_index_store(row, x, l, is_packed);
            check_guard(row, cache_index_row_bytes(l, is_packed));
            cache_index_load(back, row, l, is_packed);
            assert_memory_equal(back, x, l->index_dim * sizeof *x);
            assert_true(back[l->index_dim] == 77.0f);
        }
}

/* The layout that the header draws, byte by byte: files and other devices rely on it. */
static void test_packed_layout(void **state) {
    (void)state;
    const cache_layer *l = &csa;
    float x[512] = {0};
    uint8_t row[584];
    memset(row, GUARD, sizeof row);
    x[0] = 448.0f, x[1] = -1.0f;   /* block 0, scale 1: e4m3 0x7E and 0xB8 */
    x[64 * 6] = 896.0f;            /* block 6, scale 2 */
    x[448] = 1.0f, x[511] = -2.0f; /* rotary: 0x3F80, 0xC000 */
    cache_kv_store(row, x, l, true);
    assert_int_equal(row[0], 0x7E);
    assert_int_equal(row[1], 0xB8);
    assert_int_equal(row[64 * 6], 0x7E);
    assert_int_equal(row[448] | row[449] << 8, 0x3F80);
    assert_int_equal(row[448 + 126] | row[448 + 127] << 8, 0xC000);
    assert_int_equal(row[576], 127);
    assert_int_equal(row[576 + 6], 128);

    float k[128] = {0};
    k[0] = 6.0f, k[1] = -0.5f, k[127] = 12.0f; /* scale 1: codes 7 and 9; block 3: scale 2 */
    cache_index_store(row, k, l, true);
    assert_int_equal(row[0], 0x97);
    assert_int_equal(row[63], 0x70);
    assert_int_equal(row[64], 127);
    assert_int_equal(row[67], 128);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row_bytes),    cmocka_unit_test(test_part_sizes),
        cmocka_unit_test(test_flash_growth), cmocka_unit_test(test_flash_fixed),
        cmocka_unit_test(test_held),         cmocka_unit_test(test_rings_suffice),
        cmocka_unit_test(test_stream_bytes), cmocka_unit_test(test_kv_rows),
        cmocka_unit_test(test_index_rows),   cmocka_unit_test(test_packed_layout),
    };
    return cmocka_run_group_tests_name("cache_layout", tests, NULL, NULL);
}
