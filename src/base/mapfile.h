/* mapfile.h - a whole file mapped read-only.
 *
 *   Owner    The caller stores the struct; the bytes live until mapfile_close.
 *   Threads  The bytes may be read by any thread.
 *   Errors   DS4_EIO naming the path and the system's reason; directories and devices are refused. */
#ifndef DS4_BASE_MAPFILE_H
#define DS4_BASE_MAPFILE_H

#include "base/status.h"

typedef struct {
    const uint8_t *data; /* NULL for an empty file */
    size_t         n;
} mapfile;

ds4_status mapfile_open(mapfile *m, const char *path, ds4_error *err);
void mapfile_close(mapfile *m);

#endif
