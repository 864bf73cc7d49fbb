#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

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

/* Keeps what ds4.h promises of a message, whatever a file, a path or a user put into it: one line of
 * UTF-8, also where it was cut. */
static void make_presentable(char *text, bool is_cut) {
    if (is_cut) text[utf8_complete_prefix(text, strlen(text))] = 0;
    bool is_utf8 = utf8_is_valid(text, strlen(text));
    for (char *c = text; *c; c++) {
        unsigned char byte = (unsigned char)*c;
        if (byte < 0x20 || byte == 0x7f || (byte >= 0x80 && !is_utf8)) *c = '?';
    }
}

ds4_status ds4_fail(ds4_error *err, ds4_status code, const char *fmt, ...) {
    if (!err) return code;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    make_presentable(err->message, n >= (int)sizeof err->message);
    err->code = code;
    return code;
}

ds4_status ds4_fail_nomem(ds4_error *err, const char *what, size_t n_bytes) {
    return ds4_fail(err, DS4_ENOMEM, "%s: out of memory (%zu bytes)", what, n_bytes);
}
