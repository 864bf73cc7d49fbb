/* test_mapfile.c - mapping files, and what is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mapfile.h"

static char folder[] = "/tmp/ds4-mapfile-XXXXXX";
static char path[64];

static int setup(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/file", folder);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void write_file(size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (size_t i = 0; i < n; i++) fputc((int)(i * 31 & 0xFF), f);
    assert_int_equal(fclose(f), 0);
}

static size_t n_open_files(void) {
    size_t n = 0;
    DIR *d = opendir("/dev/fd");
    if (!d) return 0;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void test_contents(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 4095, 4096, 4097, 100000};
    size_t n_files = n_open_files();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        mapfile m = {0};
        write_file(sizes[i]);
        assert_int_equal(mapfile_open(&m, path, NULL), DS4_OK);
        assert_int_equal(n_open_files(), n_files); /* the mapping needs no descriptor */
        assert_int_equal(m.n, sizes[i]);
        assert_int_equal((uintptr_t)m.data % 4096, 0);
        for (size_t at = 0; at < m.n; at++) assert_int_equal(m.data[at], at * 31 & 0xFF);
        mapfile_close(&m);
        assert_null(m.data);
        assert_int_equal(m.n, 0);
        mapfile_close(&m);
    }
}

/* The bytes outlive the name: a model that is replaced while it runs stays what it was. */
static void test_unlinked(void **state) {
    (void)state;
    mapfile m = {0};
    write_file(5000);
    assert_int_equal(mapfile_open(&m, path, NULL), DS4_OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(m.data[4999], 4999 * 31 & 0xFF);
    mapfile_close(&m);
}

static void test_empty(void **state) {
    (void)state;
    mapfile m = {(const uint8_t *)"", 5};
    write_file(0);
    assert_int_equal(mapfile_open(&m, path, NULL), DS4_OK);
    assert_null(m.data);
    assert_int_equal(m.n, 0);
    mapfile_close(&m);
}

/* One line that begins with the path and tells the reason; the struct is untouched. */
static void refused(const char *name, const char *reason) {
    const uint8_t before = 0;
    mapfile m = {&before, 77};
    ds4_error err = {0};
    assert_int_equal(mapfile_open(&m, name, &err), DS4_EIO);
    assert_int_equal(err.code, DS4_EIO);
    assert_ptr_equal(m.data, &before);
    assert_int_equal(m.n, 77);
    if (strncmp(err.message, name, strlen(name)) != 0 || !strstr(err.message, reason))
        fail_msg("found '%s', expected '%s: ... %s'", err.message, name, reason);
    assert_int_equal(mapfile_open(&m, name, NULL), DS4_EIO);
}

static void test_refused(void **state) {
    (void)state;
    size_t n_files = n_open_files();
    unlink(path);
    refused(path, "cannot open: No such file");
    refused(folder, "not a regular file");
    refused("/dev/null", "not a regular file");
    refused("", "cannot open: No such file");
    assert_int_equal(n_open_files(), n_files);
}

/* A pipe must not be waited for. */
static void test_pipe(void **state) {
    (void)state;
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(10);
    refused(path, "not a regular file");
    alarm(0);
    assert_int_equal(unlink(path), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contents), cmocka_unit_test(test_unlinked),
        cmocka_unit_test(test_empty),    cmocka_unit_test(test_refused),
        cmocka_unit_test(test_pipe),
    };
    return cmocka_run_group_tests_name("mapfile", tests, setup, teardown);
}
