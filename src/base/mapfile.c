#include "base/mapfile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

ds4_status mapfile_open(mapfile *m, const char *path, ds4_error *err) {
    /* O_NONBLOCK: a pipe is refused below, and opening it must not wait for its other end. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return ds4_fail(err, DS4_EIO, "%s: cannot open: %s", path, strerror(errno));

    struct stat info;
    ds4_status status = DS4_OK;
    mapfile result = {0};
    if (fstat(fd, &info) != 0) {
        status = ds4_fail(err, DS4_EIO, "%s: cannot stat: %s", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        status = ds4_fail(err, DS4_EIO, "%s: not a regular file", path);
    } else if (info.st_size > 0) {
        void *p = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            status = ds4_fail(err, DS4_EIO, "%s: cannot map %lld bytes: %s", path,
                              (long long)info.st_size, strerror(errno));
        else
            result = (mapfile){p, (size_t)info.st_size};
    }
    close(fd);
    if (status == DS4_OK) *m = result;
    return status;
}

void mapfile_close(mapfile *m) {
    if (m->data) munmap((void *)(uintptr_t)m->data, m->n);
    *m = (mapfile){0};
}
