#include "format/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"

enum {
    FINGERPRINT = 0x1234,
    TAG_A = 0x41,
    TAG_BIG = 0x474942,
    TAG_EMPTY = 0x4550,
    BIG_BYTES = 300001
};

/* A fresh directory for each test; everything in it is removed at the end. */
typedef struct {
    char dir[256];
    char path[300];
} place;

static int set_up(void **state) {
    place      *p = calloc(1, sizeof *p);
    const char *tmp = getenv("TMPDIR");
    snprintf(p->dir, sizeof p->dir, "%s/snapshot-XXXXXX", tmp && strlen(tmp) < 200 ? tmp : "/tmp");
    if (!mkdtemp(p->dir)) return -1;
    snprintf(p->path, sizeof p->path, "%s/session", p->dir);
    *state = p;
    return 0;
}

/* The number of files in the directory; with `is_last` they are removed. */
static int count_files(const place *p, bool is_last) {
    int  n = 0;
    DIR *dir = opendir(p->dir);
    for (struct dirent *d; dir && (d = readdir(dir));) {
        if (d->d_name[0] == '.') continue;
        n++;
        if (is_last) unlinkat(dirfd(dir), d->d_name, 0);
    }
    if (dir) closedir(dir);
    return n;
}

static int tear_down(void **state) {
    place *p = *state;
    chmod(p->dir, 0700);
    count_files(p, true);
    rmdir(p->dir);
    free(p);
    return 0;
}

static uint8_t big_byte(size_t i) {
    return (uint8_t)(i * 7 + i / 256);
}

/* Several sections: in pieces of all sizes, empty, one tag twice. */
static void write_all(snapshot_writer *w) {
    snapshot_begin(w, TAG_A);
    snapshot_write(w, "hel", 3);
    snapshot_write(w, "", 0);
    snapshot_write(w, "lo", 2);
    snapshot_end(w);

    uint8_t *big = malloc(BIG_BYTES);
    for (size_t i = 0; i < BIG_BYTES; i++) big[i] = big_byte(i);
    snapshot_begin(w, TAG_BIG);
    for (size_t at = 0, n = 1; at < BIG_BYTES; at += n, n = n * 3 + 1) {
        if (n > BIG_BYTES - at) n = BIG_BYTES - at;
        snapshot_write(w, big + at, n);
    }
    snapshot_end(w);
    free(big);

    snapshot_begin(w, TAG_EMPTY);
    snapshot_end(w);
    snapshot_begin(w, TAG_A);
    snapshot_write(w, "again", 5);
    snapshot_end(w);
}

/* The small file of the damage tests: every kind of byte is in it. */
static void write_small(const char *path, const char *text) {
    snapshot_writer *w = NULL;
    assert_int_equal(snapshot_writer_create(&w, path, FINGERPRINT, NULL), DS4_OK);
    snapshot_begin(w, TAG_A);
    snapshot_write(w, text, strlen(text));
    snapshot_end(w);
    snapshot_begin(w, TAG_EMPTY);
    snapshot_end(w);
    assert_int_equal(snapshot_finish(w, NULL), DS4_OK);
    snapshot_writer_destroy(w);
}

static void expect_small(const char *path, const char *text) {
    snapshot *s = NULL;
    ds4_error err = {0};
    if (snapshot_open(&s, path, FINGERPRINT, &err) != DS4_OK) fail_msg("%s", err.message);
    const uint8_t *data;
    size_t         n;
    assert_true(snapshot_find(s, TAG_A, &data, &n));
    assert_int_equal(n, strlen(text));
    assert_memory_equal(data, text, n);
    snapshot_close(s);
}

static uint8_t *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint8_t *data = malloc(1 << 16);
    *n = fread(data, 1, 1 << 16, f);
    fclose(f);
    return data;
}

static void write_file(const char *path, const uint8_t *data, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void test_round_trip(void **state) {
    const place     *p = *state;
    snapshot_writer *w = NULL;
    assert_int_equal(snapshot_writer_create(&w, p->path, FINGERPRINT, NULL), DS4_OK);
    write_all(w);
    assert_int_equal(access(p->path, F_OK), -1); /* not before it is whole */
    assert_int_equal(snapshot_finish(w, NULL), DS4_OK);
    assert_int_equal(snapshot_finish(w, NULL), DS4_EINVAL);
    snapshot_writer_destroy(w);
    assert_int_equal(count_files(p, false), 1);

    snapshot *s = NULL;
    assert_int_equal(snapshot_open(&s, p->path, FINGERPRINT, NULL), DS4_OK);
    const uint8_t *data = NULL;
    size_t         n = 0;
    assert_true(snapshot_find(s, TAG_A, &data, &n));
    assert_int_equal(n, 5);
    assert_memory_equal(data, "hello", 5);
    assert_true(snapshot_find(s, TAG_EMPTY, &data, &n));
    assert_int_equal(n, 0);
    assert_true(snapshot_find(s, TAG_BIG, &data, &n));
    assert_int_equal(n, BIG_BYTES);
    assert_int_equal((uintptr_t)data % 8, 0);
    for (size_t i = 0; i < n; i++)
        if (data[i] != big_byte(i)) fail_msg("byte %zu", i);
    data = NULL;
    assert_false(snapshot_find(s, 0x42, &data, &n));
    assert_false(snapshot_find(s, 0, &data, &n));
    assert_null(data);
    snapshot_close(s);
    snapshot_close(NULL);
    snapshot_writer_destroy(NULL);
}

/* Sections whose header lies in front of, on and behind the edge of the writer's buffer. */
static void test_buffer_edges(void **state) {
    const place *p = *state;
    uint8_t     *bytes = calloc(1, 1 << 17);
    for (size_t n = 65536 - 200; n < 65536 + 40; n++) {
        snapshot_writer *w = NULL;
        assert_int_equal(snapshot_writer_create(&w, p->path, FINGERPRINT, NULL), DS4_OK);
        snapshot_begin(w, TAG_BIG);
        snapshot_write(w, bytes, 60000);
        snapshot_write(w, bytes, n - 60000);
        snapshot_end(w);
        snapshot_begin(w, TAG_A);
        snapshot_write(w, "hello", 5);
        snapshot_end(w);
        assert_int_equal(snapshot_finish(w, NULL), DS4_OK);
        snapshot_writer_destroy(w);
        expect_small(p->path, "hello");
    }
    free(bytes);
}

/* The bytes of the specification in the header, made by hand. */
static void test_layout(void **state) {
    const place *p = *state;
    write_small(p->path, "abc");
    size_t   n;
    uint8_t *data = read_file(p->path, &n);
    uint8_t  expected[32 * 4 + 8] = "DS4SNAP\n\1\0\0\0\0\0\0\0\x34\x12";
    expected[32] = TAG_A;
    expected[32 + 8] = 3;
    memcpy(expected + 64, "abc", 3);
    memcpy(expected + 72, "PE", 2);
    uint64_t hashes[2] = {hash64("abc", 3, 0), hash64("", 0, 0)};
    for (int i = 0; i < 8; i++) {
        expected[32 + 16 + i] = (uint8_t)(hashes[0] >> 8 * i);
        expected[72 + 16 + i] = expected[104 + 16 + i] = (uint8_t)(hashes[1] >> 8 * i);
    }
    static const int headers[] = {0, 32, 72, 104};
    for (int h = 0; h < 4; h++) {
        uint64_t hash = hash64(expected + headers[h], 24, 0);
        for (int i = 0; i < 8; i++) expected[headers[h] + 24 + i] = (uint8_t)(hash >> 8 * i);
    }
    assert_int_equal(n, sizeof expected);
    assert_memory_equal(data, expected, n);
    free(data);
}

/* The status of opening bytes, from memory and, the same, from a file. The memory is an exact copy,
 * so that a sanitizer sees the first byte read behind its end. */
static ds4_status open_status(const place *p, const uint8_t *data, size_t n, ds4_error *err) {
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, data, n);
    snapshot  *s = NULL;
    ds4_status status = snapshot_open_memory(&s, copy, n, FINGERPRINT, err);
    if (status == DS4_OK) snapshot_close(s);
    else assert_null(s);
    free(copy);

    write_file(p->path, data, n);
    ds4_status from_file = snapshot_open(&s, p->path, FINGERPRINT, NULL);
    assert_int_equal(from_file, status);
    if (status == DS4_OK) snapshot_close(s);
    return status;
}

static void test_truncation(void **state) {
    const place *p = *state;
    write_small(p->path, "some text");
    size_t    n;
    uint8_t  *data = read_file(p->path, &n);
    ds4_error err = {0};
    for (size_t cut = 0; cut < n; cut++)
        if (open_status(p, data, cut, &err) != DS4_EFORMAT)
            fail_msg("cut at %zu: not noticed", cut);
    assert_int_equal(open_status(p, data, n, &err), DS4_OK);
    data[n] = 0; /* one byte more */
    assert_int_equal(open_status(p, data, n + 1, &err), DS4_EFORMAT);
    free(data);
}

/* Every byte, every bit, and all bits of it. */
static void test_damage(void **state) {
    const place *p = *state;
    write_small(p->path, "some text");
    size_t    n;
    uint8_t  *data = read_file(p->path, &n);
    ds4_error err = {0};
    for (size_t at = 0; at < n; at++) {
        for (int bit = 0; bit <= 8; bit++) {
            uint8_t change = (uint8_t)(bit < 8 ? 1 << bit : 0xFF);
            data[at] ^= change;
            if (open_status(p, data, n, &err) != DS4_EFORMAT)
                fail_msg("byte %zu, change %02x: not noticed", at, change);
            data[at] ^= change;
        }
    }
    free(data);
}

/* Damage under checksums that are right: of another version of this program, or made on purpose. */
static void forge(uint8_t *data, size_t at, uint8_t value, size_t header) {
    data[at] = value;
    uint64_t hash = hash64(data + header, 24, 0);
    for (int i = 0; i < 8; i++) data[header + 24 + i] = (uint8_t)(hash >> 8 * i);
}

static void test_forged(void **state) {
    const place *p = *state;
    static const struct {
        size_t      at;
        uint8_t     value;
        const char *message;
    } cases[] = {
        {8, 2, "version 2"},            {12, 1, "version 1 (1)"},
        {16, 0x35, "found fingerprint 0000000000001235, expected 0000000000001234"},
        {36, 1, "section 'A' at 32: reserved field"}, {40, 200, "section 'A' at 32: cut off"},
        {47, 0xFF, "section 'A' at 32: cut off"}, {40, 4, "section 'A' at 32: checksum"},
        {33, '!', "end of the file"}, /* a new name alone is fine; see below */
        {72, 0, "section '0x00004500'"}, {104, 'x', "cut off: found 136 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_small(p->path, "abc");
        size_t   n;
        uint8_t *data = read_file(p->path, &n);
        size_t   at = cases[i].at, header = at < 32 ? 0 : at < 72 ? 32 : at < 104 ? 72 : 104;
        forge(data, at, cases[i].value, header);
        if (at == 33) data[n++] = 0;
        if (at == 72) forge(data, 72 + 4, 1, 72);
        ds4_error err = {0};
        assert_int_equal(open_status(p, data, n, &err), DS4_EFORMAT);
        if (!strstr(err.message, cases[i].message))
            fail_msg("case %zu: found \"%s\", expected \"%s\"", i, err.message, cases[i].message);
        free(data);
    }
}

/* A section that claims nearly 2^64 bytes, and an end section that has some. */
static void test_forged_sizes(void **state) {
    const place *p = *state;
    write_small(p->path, "abc");
    size_t    n;
    uint8_t  *data = read_file(p->path, &n);
    ds4_error err = {0};
    for (int i = 0; i < 8; i++) forge(data, 40 + (size_t)i, i ? 0xFF : 0xF9, 32);
    assert_int_equal(open_status(p, data, n, &err), DS4_EFORMAT);
    free(data);

    data = calloc(1, 200);
    write_small(p->path, "abc");
    uint8_t *small = read_file(p->path, &n);
    memcpy(data, small, n);
    forge(data, 32, 0, 32);
    assert_int_equal(open_status(p, data, 72, &err), DS4_EFORMAT);
    assert_non_null(strstr(err.message, "end section: found 3 bytes"));
    free(small);
    free(data);
}

static void test_other_model(void **state) {
    const place *p = *state;
    write_small(p->path, "abc");
    snapshot *s = NULL;
    ds4_error err = {0};
    assert_int_equal(snapshot_open(&s, p->path, FINGERPRINT + 1, &err), DS4_EFORMAT);
    assert_null(s);
    assert_non_null(strstr(err.message, p->path));
}

static void test_no_file(void **state) {
    const place *p = *state;
    snapshot    *s = NULL;
    ds4_error    err = {0};
    assert_int_equal(snapshot_open(&s, p->path, FINGERPRINT, &err), DS4_EIO);
    assert_non_null(strstr(err.message, p->path));
    assert_int_equal(snapshot_open(&s, p->dir, FINGERPRINT, &err), DS4_EIO);
    assert_null(s);
}

/* ---- what goes wrong while writing ----------------------------------------------------------- */

static void test_unwritable(void **state) {
    const place     *p = *state;
    snapshot_writer *w = NULL;
    ds4_error        err = {0};
    char             path[400];
    snprintf(path, sizeof path, "%s/missing/session", p->dir);
    assert_int_equal(snapshot_writer_create(&w, path, FINGERPRINT, &err), DS4_EIO);
    assert_non_null(strstr(err.message, strerror(ENOENT)));
    write_small(p->path, "abc");
    snprintf(path, sizeof path, "%s/session/below", p->dir);
    assert_int_equal(snapshot_writer_create(&w, path, FINGERPRINT, &err), DS4_EIO);
    if (geteuid() != 0) { /* root may write everywhere */
        chmod(p->dir, 0500);
        assert_int_equal(snapshot_writer_create(&w, p->path, FINGERPRINT, &err), DS4_EIO);
        chmod(p->dir, 0700);
    }
    assert_null(w);
    expect_small(p->path, "abc");
    assert_int_equal(count_files(p, false), 1);
}

/* The name belongs to a directory: noticed when the file is to get it. */
static void test_name_taken(void **state) {
    const place *p = *state;
    assert_int_equal(mkdir(p->path, 0700), 0);
    snapshot_writer *w = NULL;
    assert_int_equal(snapshot_writer_create(&w, p->path, FINGERPRINT, NULL), DS4_OK);
    write_all(w);
    ds4_error err = {0};
    assert_int_equal(snapshot_finish(w, &err), DS4_EIO);
    assert_int_equal(count_files(p, false), 1);
    snapshot_writer_destroy(w);
    assert_int_equal(rmdir(p->path), 0);
}

/* The system refuses bytes beyond a limit, as on a full disk, wherever that may happen. */
static void test_disk_full(void **state) {
    const place *p = *state;
    write_small(p->path, "the old one");
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    void (*old_handler)(int) = signal(SIGXFSZ, SIG_IGN);
    static const size_t limits[] = {0, 1, 31, 40, 65535, 65536, 65537, 200000, 300000, 300100};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        limit = before;
        limit.rlim_cur = limits[i];
        snapshot_writer *w = NULL;
        ds4_error        err = {0};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        ds4_status created = snapshot_writer_create(&w, p->path, FINGERPRINT, &err);
        ds4_status status = created;
        if (created == DS4_OK) {
            write_all(w);
            status = snapshot_finish(w, &err);
        }
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_int_equal(status, DS4_EIO);
        assert_int_equal(err.code, DS4_EIO);
        assert_non_null(strstr(err.message, p->path));
        assert_int_equal(count_files(p, false), 1); /* before destroy */
        snapshot_writer_destroy(w);
        expect_small(p->path, "the old one");
    }
    signal(SIGXFSZ, old_handler);
    write_small(p->path, "the new one");
    expect_small(p->path, "the new one");
}

static void test_given_up(void **state) {
    const place *p = *state;
    write_small(p->path, "the old one");
    snapshot_writer *w = NULL;
    assert_int_equal(snapshot_writer_create(&w, p->path, FINGERPRINT, NULL), DS4_OK);
    snapshot_begin(w, TAG_A);
    snapshot_write(w, "half", 4);
    assert_int_equal(count_files(p, false), 2);
    snapshot_writer_destroy(w);
    assert_int_equal(count_files(p, false), 1);
    expect_small(p->path, "the old one");
}

/* Two writers of one path do not disturb each other, and a leftover of a process of this id is no
 * obstacle. */
static void test_two_writers(void **state) {
    const place *p = *state;
    char         leftover[400];
    snprintf(leftover, sizeof leftover, "%s.tmp.%ld", p->path, (long)getpid());
    write_file(leftover, (const uint8_t *)"junk", 4);
    snapshot_writer *first = NULL, *second = NULL;
    assert_int_equal(snapshot_writer_create(&first, p->path, FINGERPRINT, NULL), DS4_OK);
    snapshot_begin(first, TAG_A);
    assert_int_equal(snapshot_writer_create(&second, p->path, FINGERPRINT, NULL), DS4_OK);
    snapshot_begin(second, TAG_A);
    snapshot_write(second, "second", 6);
    snapshot_end(second);
    snapshot_write(first, "first", 5);
    snapshot_end(first);
    assert_int_equal(snapshot_finish(second, NULL), DS4_OK);
    expect_small(p->path, "second");
    assert_int_equal(snapshot_finish(first, NULL), DS4_OK);
    expect_small(p->path, "first");
    snapshot_writer_destroy(first);
    snapshot_writer_destroy(second);
    assert_int_equal(count_files(p, false), 2);
}

static void test_misuse(void **state) {
    const place *p = *state;
    for (int i = 0; i < 5; i++) {
        snapshot_writer *w = NULL;
        assert_int_equal(snapshot_writer_create(&w, p->path, FINGERPRINT, NULL), DS4_OK);
        if (i == 0) snapshot_begin(w, 0);
        if (i == 1) snapshot_write(w, "x", 1);
        if (i == 2) snapshot_end(w);
        if (i >= 3) snapshot_begin(w, TAG_A);
        if (i == 4) snapshot_begin(w, TAG_BIG);
        assert_int_equal(snapshot_finish(w, NULL), DS4_EINVAL);
        snapshot_writer_destroy(w);
        assert_int_equal(count_files(p, false), 0);
    }
}

static void test_private(void **state) {
    const place *p = *state;
    write_small(p->path, "abc");
    struct stat info;
    assert_int_equal(stat(p->path, &info), 0);
    assert_int_equal(info.st_mode & 077, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip),   TEST(test_buffer_edges), TEST(test_layout),
        TEST(test_truncation),   TEST(test_damage),       TEST(test_forged),
        TEST(test_forged_sizes), TEST(test_other_model),  TEST(test_no_file),
        TEST(test_unwritable),   TEST(test_name_taken),   TEST(test_disk_full),
        TEST(test_given_up),     TEST(test_two_writers),  TEST(test_misuse),
        TEST(test_private),
    };
    return cmocka_run_group_tests_name("snapshot", tests, NULL, NULL);
}
