/* status.h - how a function inside the library fails.
 *
 *   return ds4_fail(err, DS4_EFORMAT, "gguf: %s: found %u, expected 3", path, version);
 *   DS4_TRY(inner(x, err));
 *
 *   Errors   The first line that notices a problem writes the message; callers pass the code up. */
#ifndef DS4_BASE_STATUS_H
#define DS4_BASE_STATUS_H

#include <ds4.h>

/* Fills `err` (which may be NULL) and returns `code`. */
ds4_status ds4_fail(ds4_error *err, ds4_status code, const char *fmt, ...) DS4_PRINTF(3, 4);

/* "what: out of memory (n bytes)". */
ds4_status ds4_fail_nomem(ds4_error *err, const char *what, size_t n_bytes);

#define DS4_TRY(call)                                                                              \
    do {                                                                                           \
        ds4_status try_status_ = (call);                                                           \
        if (try_status_ != DS4_OK) return try_status_;                                             \
    } while (0)

#endif
