#include "app/chat/term.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "app/clock.h"
#include "base/utf8.h"

enum {
    BAR_MIN_TOKENS = 256, /* a shorter prompt is read before a bar could be understood */
    BAR_MIN_COLUMNS = 60, /* a narrower terminal gets the figures without the bar */
};
#define BAR_INTERVAL_S 0.1

static bool understands_codes(int fd) {
    const char *kind = getenv("TERM");
    return isatty(fd) && kind && *kind && strcmp(kind, "dumb") != 0;
}

void term_init(term *t) {
    const char *no_color = getenv("NO_COLOR");
    *t = (term){
        .is_interactive = isatty(STDIN_FILENO),
        .is_filtered = isatty(STDOUT_FILENO),
        .has_style = understands_codes(STDOUT_FILENO) && !(no_color && *no_color),
        .has_bar = understands_codes(STDERR_FILENO),
    };
}

/* ---- text ---- */

static void set_style(term *t, term_style style) {
    if (t->style == style) return;
    t->style = style;
    if (t->has_style) fputs(style == STYLE_DIM ? "\033[2m" : "\033[0m", stdout);
}

/* One character; controls other than newline and tab in caret notation (C1 controls as \xNN). */
static void put_filtered(const char *s, size_t n, int32_t code) {
    if (code >= 0 && code < 0x20 && code != '\n' && code != '\t')
        printf("^%c", (int)code + '@');
    else if (code == 0x7f)
        fputs("^?", stdout);
    else if (code >= 0x80 && code < 0xa0)
        printf("\\x%02x", (unsigned)code);
    else if (code < 0)
        fputs("\xef\xbf\xbd", stdout);
    else
        fwrite(s, 1, n, stdout);
}

void term_text(term *t, term_style style, const char *text, size_t n) {
    if (n == 0) return;
    set_style(t, style);
    if (t->is_filtered) {
        for (size_t at = 0; at < n;) {
            int32_t code;
            size_t n_char = utf8_decode(text + at, n - at, &code);
            put_filtered(text + at, n_char, code);
            at += n_char;
        }
    } else {
        fwrite(text, 1, n, stdout);
    }
    t->is_mid_line = text[n - 1] != '\n';
}

void term_end_line(term *t) {
    set_style(t, STYLE_PLAIN);
    if (t->is_mid_line) putchar('\n');
    t->is_mid_line = false;
    fflush(stdout);
}

void term_flush(term *t) {
    (void)t;
    fflush(stdout);
}

/* A whole line to stderr; an answer that shares the screen is ended first. */
static void put_line(term *t, bool is_dim, const char *fmt, va_list args) {
    term_bar_end(t);
    if (t->is_filtered) term_end_line(t);
    is_dim = is_dim && t->has_bar && t->has_style;
    fputs(is_dim ? "\033[2m" : "", stderr);
    vfprintf(stderr, fmt, args);
    fputs(is_dim ? "\033[0m\n" : "\n", stderr);
}

void term_note(term *t, const char *fmt, ...) {
    if (!t->is_interactive) return;
    va_list args;
    va_start(args, fmt);
    put_line(t, true, fmt, args);
    va_end(args);
}

void term_error(term *t, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    put_line(t, false, fmt, args);
    va_end(args);
}

/* ---- the bar ---- */

static unsigned n_columns(void) {
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return size.ws_col;
}

/* "0:07", "12:30", "3:05:00"; out[32]. */
static void format_duration(char out[32], double seconds) {
    unsigned long s = seconds < 359999 ? (unsigned long)(seconds + 0.5) : 359999;
    if (s >= 3600)
        snprintf(out, 32, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 32, "%lu:%02lu", s / 60, s % 60);
}

static void put_bar(const term *t, size_t n_done, size_t n_prompt, double now) {
    char figures[120];
    int n = snprintf(figures, sizeof figures, " %zu/%zu tokens", n_done, n_prompt);
    double elapsed = now - t->bar_start_s;
    if (n_done > 0 && elapsed > 0) {
        double rate = (double)n_done / elapsed;
        char left[32];
        format_duration(left, (double)(n_prompt - n_done) / rate);
        n += snprintf(figures + n, sizeof figures - (size_t)n, "  %.*f tok/s  ETA %s",
                      rate < 100 ? 1 : 0, rate, left);
    }

    unsigned columns = n_columns();
    fputs("\r\033[K", stderr);
    if (columns >= BAR_MIN_COLUMNS) {
        char cells[32];
        unsigned n_cells = columns - (unsigned)n > 40 ? 30 : 10;
        size_t n_full = (size_t)((double)n_cells * (double)n_done / (double)n_prompt);
        memset(cells, '.', n_cells);
        memset(cells, '#', n_full);
        fprintf(stderr, "[%.*s]", (int)n_cells, cells);
    }
    fputs(figures, stderr);
    fflush(stderr);
}

void term_bar_begin(term *t, size_t n_prompt) {
    t->bar_start_s = clock_s();
    t->bar_drawn_s = 0;
    term_bar_draw(t, 0, n_prompt);
}

void term_bar_draw(term *t, size_t n_done, size_t n_prompt) {
    double now = clock_s();
    if (!t->has_bar || !t->is_interactive || n_prompt < BAR_MIN_TOKENS || n_done > n_prompt) return;
    if (now - t->bar_drawn_s < BAR_INTERVAL_S) return;
    t->bar_drawn_s = now;
    put_bar(t, n_done, n_prompt, now);
}

void term_bar_end(term *t) {
    if (t->bar_drawn_s > 0) fputs("\r\033[K", stderr);
    t->bar_drawn_s = 0;
}
