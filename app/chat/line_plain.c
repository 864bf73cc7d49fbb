#include "app/chat/line.h"

#ifndef DS4_HAVE_EDIT

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/status.h"

struct line_reader {
    char  *text; /* getline's */
    size_t n_cap;
};

ds4_status line_open(line_reader **reader, ds4_error *err) {
    *reader = calloc(1, sizeof **reader);
    return *reader ? DS4_OK : ds4_fail_nomem(err, "line reader", sizeof **reader);
}

line_result line_read(line_reader *reader, const char *prompt, const char **text, size_t *n) {
    fputs(prompt, stdout);
    fflush(stdout);
    errno = 0;
    ssize_t length = getline(&reader->text, &reader->n_cap, stdin);
    if (length < 0) {
        bool is_broken = errno == EINTR;
        clearerr(stdin);
        putchar('\n');
        return is_broken ? LINE_BROKEN : LINE_END;
    }
    if (length > 0 && reader->text[length - 1] == '\n') reader->text[--length] = 0;
    *text = reader->text;
    *n = (size_t)length;
    return LINE_TEXT;
}

void line_close(line_reader *reader) {
    if (!reader) return;
    free(reader->text);
    free(reader);
}

#else
/* ISO C wants something in every file. */
typedef int line_plain_is_not_built;
#endif
