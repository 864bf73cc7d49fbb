/* line.h - one line from the person at the terminal.
 *
 *   Two versions, one of which is built: line_edit.c with libedit (editing keys, history), and
 *   line_plain.c where that library is missing.
 *
 *   The history lives in $XDG_STATE_HOME/ds4/history, else ~/.local/state/ds4/history; the file is
 *   readable by its owner alone. Without a place to keep it there is history in this chat only.
 *
 *   Owner    open/close; a line is lent until the next call.
 *   Threads  The main thread; stdin is a terminal.
 *   Errors   open: DS4_ENOMEM. A history that cannot be read or kept is no error. */
#ifndef DS4_CHAT_LINE_H
#define DS4_CHAT_LINE_H

#include <stddef.h>

#include <ds4.h>

typedef struct line_reader line_reader;

typedef enum {
    LINE_TEXT,   /* a line; its newline is not part of it */
    LINE_BROKEN, /* Ctrl-C: what was typed so far is forgotten */
    LINE_END,    /* Ctrl-D on an empty line, or the terminal is gone */
} line_result;

ds4_status line_open(line_reader **reader, ds4_error *err);
line_result line_read(line_reader *reader, const char *prompt, const char **text, size_t *n);
void line_close(line_reader *reader);

#endif
