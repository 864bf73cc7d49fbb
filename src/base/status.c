#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

const char *ds4_status_name(ds4_status status) {
    switch (status) {
    case DS4_OK: return "OK";
    case DS4_EINVAL: return "EINVAL";
    case DS4_ENOMEM: return "ENOMEM";
    case DS4_EIO: return "EIO";
    case DS4_EFORMAT: return "EFORMAT";
    case DS4_EUNSUPPORTED: return "EUNSUPPORTED";
    case DS4_EDEVICE: return "EDEVICE";
    case DS4_EFULL: return "EFULL";
    case DS4_ECANCELED: return "ECANCELED";
    }
    return "unknown status";
}

ds4_status ds4_fail(ds4_error *err, ds4_status code, const char *fmt, ...) {
    if (!err) return code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    err->code = code;
    return code;
}

ds4_status ds4_fail_nomem(ds4_error *err, const char *what, size_t n_bytes) {
    return ds4_fail(err, DS4_ENOMEM, "%s: out of memory (%zu bytes)", what, n_bytes);
}
