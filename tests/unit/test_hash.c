/* test_hash.c - XXH64 against values of its reference program, and the streaming form against the
 * whole. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/hash.h"

enum { N = 300 };
static const uint64_t SEED = 2654435761u;

/* The bytes of the reference's own self-test. */
static void fill(uint8_t data[N]) {
    uint64_t generator = SEED;
    for (int i = 0; i < N; i++) {
        data[i] = (uint8_t)(generator >> 56);
        generator *= 11400714785074694797u;
    }
}

static void equals(uint64_t found, uint64_t expected, size_t n) {
    if (found != expected)
        fail_msg("%zu bytes: found %016llx, expected %016llx", n, (unsigned long long)found,
                 (unsigned long long)expected);
}

/* Printed by xxhsum -H64 for the first n bytes; every way through the tail is among the lengths. */
static void test_known_values(void **state) {
    (void)state;
    static const struct {
        size_t n;
        uint64_t hash;
    } known[] = {
        {0, 0xef46db3751d8e999u},  {1, 0xe934a84adb052768u},   {3, 0xff7e1959cb50794au},
        {4, 0x9136a0dca57457eeu},  {7, 0x6c83909a9f01ed25u},   {8, 0xcdbcf538e71d1348u},
        {14, 0x8282dcc4994e35c8u}, {31, 0x299b39a290e6d783u},  {32, 0x18b216492bb44b70u},
        {33, 0x55c8dc3e578f5b59u}, {63, 0xa9efbe0fa0f3f4e7u},  {64, 0xef558f8acac2b5cdu},
        {65, 0xde0f20dc2631af7au}, {222, 0xb641ae8cb691c174u}, {300, 0x27d0e073ec12824fu},
    };
    uint8_t data[N];
    fill(data);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        equals(hash64(data, known[i].n, 0), known[i].hash, known[i].n);
    equals(hash64("a", 1, 0), 0xd24ec4f1a98c6e5bu, 1);
    equals(hash64("abc", 3, 0), 0x44bc2cf5ad770999u, 3);
    const char *text = "Nobody inspects the spammish repetition";
    equals(hash64(text, strlen(text), 0), 0xfbcea83c8a378bf1u, strlen(text));
}

/* With a seed: the values of the self-test itself. */
static void test_known_values_with_seed(void **state) {
    (void)state;
    uint8_t data[N];
    fill(data);
    equals(hash64(data, 0, SEED), 0xac75fda2929b17efu, 0);
    equals(hash64(data, 1, SEED), 0x5014607643a9b4c3u, 1);
    equals(hash64(data, 14, SEED), 0xc3bd6bf63deb6df0u, 14);
    equals(hash64(data, 222, SEED), 0x20cb8ab7ae10c14au, 222);
}

/* Every length in two pieces cut anywhere, and in pieces of every size. */
static void test_stream(void **state) {
    (void)state;
    enum { N_LONG = 100 };
    uint8_t data[N];
    fill(data);
    for (size_t n = 0; n <= N_LONG; n++)
        for (size_t cut = 0; cut <= n; cut++) {
            hash64_stream h;
            hash64_init(&h, 5);
            hash64_update(&h, data, cut);
            hash64_update(&h, data + cut, n - cut);
            equals(hash64_finish(&h), hash64(data, n, 5), n);
        }
    for (size_t piece = 1; piece <= 70; piece++) {
        hash64_stream h;
        hash64_init(&h, 0);
        for (size_t at = 0; at < N; at += piece)
            hash64_update(&h, data + at, N - at < piece ? N - at : piece);
        hash64_update(&h, NULL, 0);
        equals(hash64_finish(&h), 0x27d0e073ec12824fu, N);
    }
}

/* Finishing does not end a stream. */
static void test_finish_twice(void **state) {
    (void)state;
    uint8_t data[N];
    fill(data);
    hash64_stream h;
    hash64_init(&h, 0);
    hash64_update(&h, data, 33);
    equals(hash64_finish(&h), 0x55c8dc3e578f5b59u, 33);
    hash64_update(&h, data + 33, 30);
    equals(hash64_finish(&h), 0xa9efbe0fa0f3f4e7u, 63);
    equals(hash64_finish(&h), 0xa9efbe0fa0f3f4e7u, 63);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_known_values_with_seed),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_finish_twice),
    };
    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
