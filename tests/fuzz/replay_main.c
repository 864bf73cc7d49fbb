/* replay_main.c - runs a fuzz target over the files of a directory, without libFuzzer: the corpus and
 * every cut-off version of its small files, so that it is a test in every build. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MAX_BYTES = 1 << 24, MAX_CUT_BYTES = 512 };

static int replay(const char *dir, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    if (!f) return 0;
    uint8_t *data = malloc(MAX_BYTES);
    size_t   n = data ? fread(data, 1, MAX_BYTES, f) : 0;
    fclose(f);
    for (size_t cut = n <= MAX_CUT_BYTES ? 0 : n; cut <= n; cut++) {
        /* An exact copy, so that a sanitizer sees the first byte behind the end. */
        uint8_t *copy = malloc(cut ? cut : 1);
        if (!copy) break;
        memcpy(copy, data, cut);
        LLVMFuzzerTestOneInput(copy, cut);
        free(copy);
    }
    free(data);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 1;
    }
    DIR *dir = opendir(argv[1]);
    if (!dir) {
        perror(argv[1]);
        return 1;
    }
    int n = 0;
    for (struct dirent *d; (d = readdir(dir));)
        if (d->d_name[0] != '.') n += replay(argv[1], d->d_name);
    closedir(dir);
    printf("%d passed, %d failed, 0 skipped\n", n, n == 0);
    return n == 0;
}
