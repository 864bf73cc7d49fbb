/* io.h - what the commands read and write: whole inputs, whole outputs, lists of ids, error lines.
 *
 *   "-" means stdin or stdout. Text from the command line and from files becomes valid UTF-8 before
 *   it is tokenised: every maximal invalid sequence is replaced by U+FFFD.
 *
 *   Errors   DS4_EIO naming the file and the system's reason; DS4_EFORMAT naming what was found. */
#ifndef DS4_APP_IO_H
#define DS4_APP_IO_H

#include <stdio.h>

#include "base/json.h"
#include "base/strbuf.h"
#include "text/id_list.h"

/* "ds4 COMMAND: message" on stderr; returns APP_ERROR. */
int io_fail(const char *command, const ds4_error *err);

/* Appends all bytes of a file, or of stdin. */
ds4_status io_read(strbuf *out, const char *path, ds4_error *err);
/* Replaces the bytes by valid UTF-8. */
ds4_status io_make_valid(strbuf *text, ds4_error *err);

/* Writes to stdout. False when that has failed (the reader may be gone): stop then. */
bool io_put(const void *data, size_t n);
/* Flushes stdout and turns a failed write into APP_ERROR; else returns `status`. A reader that closed
 * the pipe early is no news: nothing is told. */
int io_finish(const char *command, int status);

/* A file that appears under its name only when it is complete: written as PATH.tmp.PID, renamed. */
typedef struct {
    FILE       *file; /* NULL: not open */
    const char *path; /* borrowed; "-" is stdout, which is written directly */
    char       *tmp;
} io_output;

ds4_status io_output_open(io_output *out, const char *path, ds4_error *err);
ds4_status io_output_write(io_output *out, const void *data, size_t n, ds4_error *err);
/* Syncs and renames. */
ds4_status io_output_commit(io_output *out, ds4_error *err);
/* Removes what was not committed. */
void io_output_release(io_output *out);

/* ---- token ids: more for text/id_list.h ---- */

/* Ids separated by commas or white space, in brackets or not: "1,2,3", "[1, 2, 3]". `what` names the
 * source in messages. */
ds4_status id_list_parse(id_list *list, const char *text, size_t n, const char *what, ds4_error *err);
/* An option's value: the list itself, or @FILE. */
ds4_status id_list_from_option(id_list *list, const char *value, ds4_error *err);
/* "[1, 2, 3]" */
void id_list_write(strbuf *out, const int32_t *ids, size_t n);

/* ---- JSON members ---- */

/* `"name": ` */
void io_json_key(strbuf *out, const char *name);
/* A quoted string; invalid UTF-8 is replaced. */
void io_json_text(strbuf *out, const char *text, size_t n);
/* A number; what JSON cannot express (infinities, NaN) is null. */
void io_json_number(strbuf *out, double v);

#endif
