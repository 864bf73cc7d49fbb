/* io.c - files, stdin and stdout of the commands. */
#include "app/io.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/commands.h"
#include "base/utf8.h"

int io_fail(const char *command, const ds4_error *err) {
    fflush(stdout);
    fprintf(stderr, "ds4 %s: %s\n", command, err->message);
    return APP_ERROR;
}

static const char *shown_path(const char *path, const char *dash) {
    return strcmp(path, "-") == 0 ? dash : path;
}

/* ---- reading ---- */

ds4_status io_read(strbuf *out, const char *path, ds4_error *err) {
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    const char *name = shown_path(path, "stdin");
    if (!file) return ds4_fail(err, DS4_EIO, "%s: %s", name, strerror(errno));

    char chunk[1 << 14];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, file)) > 0 && !out->is_failed)
        strbuf_append(out, chunk, n);
    int reason = ferror(file) ? errno : 0;
    if (!is_stdin) fclose(file);
    if (reason) return ds4_fail(err, DS4_EIO, "%s: %s", name, strerror(reason));
    return strbuf_check(out, name, err);
}

ds4_status io_make_valid(strbuf *text, ds4_error *err) {
    if (text->n == 0 || utf8_is_valid(text->data, text->n)) return DS4_OK;
    strbuf valid = {0};
    utf8_append_valid(&valid, text->data, text->n);
    ds4_status status = strbuf_check(&valid, "text", err);
    if (status != DS4_OK) {
        strbuf_release(&valid);
        return status;
    }
    strbuf_release(text);
    *text = valid;
    return DS4_OK;
}

/* ---- writing ---- */

bool io_put(const void *data, size_t n) {
    return fwrite(data, 1, n, stdout) == n;
}

int io_finish(const char *command, int status) {
    errno = 0;
    bool is_ok = fflush(stdout) == 0 && !ferror(stdout);
    if (is_ok) return status;
    if (errno && errno != EPIPE) fprintf(stderr, "ds4 %s: stdout: %s\n", command, strerror(errno));
    return APP_ERROR;
}

static ds4_status fail_output(const io_output *out, ds4_error *err) {
    return ds4_fail(err, DS4_EIO, "%s: %s", shown_path(out->path, "stdout"), strerror(errno));
}

ds4_status io_output_open(io_output *out, const char *path, ds4_error *err) {
    *out = (io_output){.path = path};
    if (strcmp(path, "-") == 0) {
        out->file = stdout;
        return DS4_OK;
    }
    size_t n = strlen(path) + 32;
    out->tmp = malloc(n);
    if (!out->tmp) return ds4_fail_nomem(err, path, n);
    snprintf(out->tmp, n, "%s.tmp.%ld", path, (long)getpid());
    out->file = fopen(out->tmp, "wb");
    if (out->file) return DS4_OK;
    ds4_status status = fail_output(out, err);
    free(out->tmp);
    *out = (io_output){0};
    return status;
}

ds4_status io_output_write(io_output *out, const void *data, size_t n, ds4_error *err) {
    return fwrite(data, 1, n, out->file) == n ? DS4_OK : fail_output(out, err);
}

ds4_status io_output_commit(io_output *out, ds4_error *err) {
    if (!out->tmp) return fflush(out->file) == 0 ? DS4_OK : fail_output(out, err);
    if (fflush(out->file) != 0 || fsync(fileno(out->file)) != 0) return fail_output(out, err);
    int closed = fclose(out->file);
    out->file = NULL;
    if (closed != 0 || rename(out->tmp, out->path) != 0) return fail_output(out, err);
    free(out->tmp);
    *out = (io_output){0};
    return DS4_OK;
}

void io_output_release(io_output *out) {
    if (out->tmp) {
        if (out->file) fclose(out->file);
        remove(out->tmp);
        free(out->tmp);
    }
    *out = (io_output){0};
}

/* ---- token ids ---- */

static bool is_gap(char c) {
    return c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

ds4_status id_list_parse(id_list *list, const char *text, size_t n, const char *what, ds4_error *err) {
    size_t at = 0;
    while (at < n && is_gap(text[at])) at++;
    bool has_bracket = at < n && text[at] == '[';
    at += has_bracket;
    for (;; ) {
        while (at < n && is_gap(text[at])) at++;
        if (at == n || text[at] == ']') break;
        size_t start = at;
        int64_t id = 0;
        while (at < n && text[at] >= '0' && text[at] <= '9' && id <= INT32_MAX)
            id = id * 10 + (text[at++] - '0');
        bool has_end = at == n || is_gap(text[at]) || text[at] == ']';
        if (at == start || id > INT32_MAX || !has_end)
            return ds4_fail(err, DS4_EFORMAT, "%s: at byte %zu: found '%.*s', expected a token id", what,
                            start, (int)(n - start < 16 ? n - start : 16), text + start);
        if (!id_list_add(list, (int32_t)id)) return ds4_fail_nomem(err, what, n);
    }
    if (has_bracket != (at < n))
        return ds4_fail(err, DS4_EFORMAT, "%s: at byte %zu: brackets do not match", what, at);
    for (at += has_bracket; at < n; at++)
        if (!is_gap(text[at]))
            return ds4_fail(err, DS4_EFORMAT, "%s: at byte %zu: found text behind the list", what, at);
    return DS4_OK;
}

ds4_status id_list_from_option(id_list *list, const char *value, ds4_error *err) {
    if (value[0] != '@') return id_list_parse(list, value, strlen(value), "--tokens", err);
    strbuf text = {0};
    ds4_status status = io_read(&text, value + 1, err);
    if (status == DS4_OK) status = id_list_parse(list, text.data, text.n, value + 1, err);
    strbuf_release(&text);
    return status;
}

void id_list_write(strbuf *out, const int32_t *ids, size_t n) {
    strbuf_putc(out, '[');
    for (size_t i = 0; i < n; i++) strbuf_printf(out, "%s%d", i ? ", " : "", ids[i]);
    strbuf_putc(out, ']');
}

/* ---- JSON members ---- */

void io_json_key(strbuf *out, const char *name) {
    strbuf_printf(out, "\"%s\": ", name);
}

void io_json_text(strbuf *out, const char *text, size_t n) {
    if (n == 0 || utf8_is_valid(text, n)) {
        json_write_string(out, (strview){text, n});
        return;
    }
    strbuf valid = {0};
    utf8_append_valid(&valid, text, n);
    if (valid.is_failed) out->is_failed = true;
    else json_write_string(out, (strview){valid.data, valid.n});
    strbuf_release(&valid);
}

void io_json_number(strbuf *out, double v) {
    if (isfinite(v)) json_write_double(out, v);
    else strbuf_puts(out, "null");
}
