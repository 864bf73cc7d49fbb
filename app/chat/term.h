/* term.h - what a person sees of a chat: answer, dimmed thinking, notes, the bar while a prompt is read.
 *
 *   answer, thinking -> stdout                  notes, progress bar -> stderr
 *
 *   On a terminal, control characters of the model's text are shown as ^X: an answer must not be able
 *   to move the cursor or retitle the window. Into a pipe or file bytes go as they are, and there are
 *   no escape codes and no bar.
 *
 *   Owner    The caller stores the struct; it holds no resources.
 *   Threads  The main thread.
 *   Errors   None: output that cannot be written is lost. */
#ifndef DS4_CHAT_TERM_H
#define DS4_CHAT_TERM_H

#include <stdbool.h>
#include <stddef.h>

#include <ds4.h>

typedef enum { STYLE_PLAIN, STYLE_DIM } term_style;

typedef struct {
    bool       is_interactive; /* a person types: stdin is a terminal */
    bool       is_filtered;    /* stdout is a terminal */
    bool       has_style;      /* stdout is one that understands escape codes */
    bool       has_bar;        /* stderr is one that understands escape codes */
    bool       is_mid_line;    /* the last character on stdout was no newline */
    term_style style;          /* in force on stdout */
    /* the bar */
    double bar_start_s; /* when reading began */
    double bar_drawn_s; /* when it was last drawn; 0: it is not on the screen */
} term;

void term_init(term *t);
/* Text for stdout, cut anywhere between characters. */
void term_text(term *t, term_style style, const char *text, size_t n);
/* Back to plain style; what follows begins on a new line. */
void term_end_line(term *t);
/* Everything so far reaches the screen or the pipe. */
void term_flush(term *t);
/* One line of the program's own, dimmed, for the person at the keyboard; nothing when piped. */
void term_note(term *t, const char *fmt, ...) DS4_PRINTF(2, 3);
/* One line that tells of a failure, also when piped. */
void term_error(term *t, const char *fmt, ...) DS4_PRINTF(2, 3);

/* The bar over n_prompt tokens that have to be read: begin once, draw as they are done, end before any
 * other output. */
void term_bar_begin(term *t, size_t n_prompt);
void term_bar_draw(term *t, size_t n_done, size_t n_prompt);
void term_bar_end(term *t);

#endif
