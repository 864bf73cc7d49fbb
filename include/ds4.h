/* ds4.h - run DeepSeek V4 Flash models from a C program.
 *
 *   engine   one open model on one device, shared by any number of sessions
 *   session  one conversation: its tokens and its KV cache
 *   step     one forward pass over rows of one or several sessions
 *
 *       ds4_engine_open ──> ds4_session_create ──> ds4_session_append(tokens)
 *                                   │                      │
 *                                   │              ds4_session_start(how to generate)
 *                                   │                      │
 *                                   └──── ds4_engine_step, until nothing is left to do
 *
 *   Owner    Objects belong to the caller: close what you open, destroy what you create, sessions
 *            before their engine. Strings and arrays given in are borrowed for the call.
 *   Threads  An engine and its sessions belong to one thread at a time (the engine thread).
 *            ds4_engine_cancel and the text functions (tokenize, render, reply) may be called from
 *            any thread. Several engines in one process do not know of each other.
 *   Errors   Functions that can fail return ds4_status and fill `err` (which may be NULL). After a
 *            failure outputs are untouched and every object can still be used or destroyed. The
 *            library never exits, never prints and keeps no mutable globals. */
#ifndef DS4_H
#define DS4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define DS4_API __attribute__((visibility("default")))
#define DS4_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define DS4_API
#define DS4_PRINTF(fmt, args)
#endif

/* ---- Status ---------------------------------------------------------------------------------- */

typedef enum {
    DS4_OK = 0,
    DS4_EINVAL,       /* the caller broke the contract */
    DS4_ENOMEM,       /* memory could not be had; the message tells how much */
    DS4_EIO,          /* the operating system refused a file operation */
    DS4_EFORMAT,      /* bytes are not what they claim to be */
    DS4_EUNSUPPORTED, /* valid, but this build or device cannot do it */
    DS4_EDEVICE,      /* a device failed */
    DS4_EFULL,        /* the context, a slot table or a queue is full */
    DS4_ECANCELED,    /* ds4_engine_cancel or a callback asked to stop */
} ds4_status;

typedef struct {
    ds4_status code;
    char       message[480]; /* what, where, found, expected; one line, UTF-8, terminated */
} ds4_error;

/* "EFORMAT" and the like; a constant string. */
DS4_API const char *ds4_status_name(ds4_status status);

#ifdef __cplusplus
}
#endif
#endif
