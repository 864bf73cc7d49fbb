#include "app/chat/line.h"

#ifdef DS4_HAVE_EDIT

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/strbuf.h"

enum { HISTORY_LINES = 1000 };

struct line_reader {
    EditLine   *editor;
    History    *history;
    strbuf      history_path; /* empty: not kept */
    const char *prompt;       /* of the line that is being read */
    bool        is_broken;    /* Ctrl-C was typed */
};

/* ---- where the history is kept ---- */

/* Creates the folders of an absolute path, each for its owner alone, up to the last '/'. */
static bool make_folders(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        bool is_there = mkdir(path, 0700) == 0 || errno == EEXIST;
        *slash = '/';
        if (!is_there) return false;
    }
    return true;
}

/* Leaves `path` empty if there is no place. */
static void find_history(strbuf *path) {
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    if (state && *state == '/')
        strbuf_printf(path, "%s/ds4/history", state);
    else if (home && *home == '/')
        strbuf_printf(path, "%s/.local/state/ds4/history", home);
    else
        return;

    /* The library writes into the file that is there, so that its mode stays what it is here. */
    int file = -1;
    if (!path->is_failed && make_folders(path->data))
        file = open(path->data, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0)
        strbuf_release(path);
    else
        close(file);
}

/* ---- libedit ---- */

static char *give_prompt(EditLine *editor) {
    line_reader *reader = NULL;
    el_get(editor, EL_CLIENTDATA, &reader);
    return (char *)(uintptr_t)reader->prompt; /* libedit does not write to it */
}

static unsigned char on_ctrl_c(EditLine *editor, int key) {
    (void)key;
    line_reader *reader = NULL;
    el_get(editor, EL_CLIENTDATA, &reader);
    reader->is_broken = true;
    return CC_EOF;
}

/* libedit's own handler gives the terminal back before the program stops, and redraws afterwards. */
static unsigned char on_ctrl_z(EditLine *editor, int key) {
    (void)editor;
    (void)key;
    raise(SIGTSTP);
    return CC_REFRESH;
}

/* libedit reads characters by the locale, and only UTF-8 can carry every text. */
static void choose_utf8(void) {
    static const char *const names[] = {"", "C.UTF-8", "en_US.UTF-8", "UTF-8"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (setlocale(LC_CTYPE, names[i]) && MB_CUR_MAX > 1) return;
}

static ds4_status open_history(line_reader *reader, ds4_error *err) {
    HistEvent event;
    reader->history = history_init();
    if (!reader->history) return ds4_fail_nomem(err, "line history", 0);
    history(reader->history, &event, H_SETSIZE, HISTORY_LINES);
    history(reader->history, &event, H_SETUNIQUE, 1);
    find_history(&reader->history_path);
    if (reader->history_path.n) history(reader->history, &event, H_LOAD, reader->history_path.data);
    return DS4_OK;
}

static ds4_status open_editor(line_reader *reader, ds4_error *err) {
    reader->editor = el_init("ds4", stdin, stdout, stderr);
    if (!reader->editor) return ds4_fail_nomem(err, "line editor", 0);
    EditLine *editor = reader->editor;
    el_set(editor, EL_CLIENTDATA, reader);
    el_set(editor, EL_PROMPT, give_prompt);
    el_set(editor, EL_EDITOR, "emacs");
    el_set(editor, EL_HIST, history, reader->history);
    el_set(editor, EL_SIGNAL, 1); /* window size, suspend and continue */
    el_set(editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(editor, EL_BIND, "\\e[3~", "ed-delete-next-char", NULL);
    el_set(editor, EL_BIND, "\\e[1~", "ed-move-to-beg", NULL);
    el_set(editor, EL_BIND, "\\e[4~", "ed-move-to-end", NULL);
    el_source(editor, NULL); /* the user's ~/.editrc */
    /* While a line is edited Ctrl-C is a key, since as a signal it would not end the reading; Ctrl-Z
     * has to become one with it. (libedit never frees the names of functions: some 200 bytes.) */
    el_set(editor, EL_SETTY, "-d", "-isig", NULL);
    el_set(editor, EL_ADDFN, "ds4-break", "forget this line", on_ctrl_c);
    el_set(editor, EL_BIND, "^C", "ds4-break", NULL);
    el_set(editor, EL_ADDFN, "ds4-suspend", "stop the program until fg", on_ctrl_z);
    el_set(editor, EL_BIND, "^Z", "ds4-suspend", NULL);
    return DS4_OK;
}

/* ---- the interface ---- */

ds4_status line_open(line_reader **out, ds4_error *err) {
    line_reader *reader = calloc(1, sizeof *reader);
    if (!reader) return ds4_fail_nomem(err, "line reader", sizeof *reader);
    choose_utf8();
    ds4_status status = open_history(reader, err);
    if (status == DS4_OK) status = open_editor(reader, err);
    if (status != DS4_OK) {
        line_close(reader);
        return status;
    }
    *out = reader;
    return DS4_OK;
}

static void remember(line_reader *reader, const char *text) {
    HistEvent event;
    if (text[strspn(text, " \t\n")] == 0) return;
    history(reader->history, &event, H_ENTER, text);
    /* At once, so that it survives whatever happens to the program. */
    if (reader->history_path.n) history(reader->history, &event, H_SAVE, reader->history_path.data);
}

line_result line_read(line_reader *reader, const char *prompt, const char **text, size_t *n) {
    int count = 0;
    reader->prompt = prompt;
    reader->is_broken = false;
    const char *line = el_gets(reader->editor, &count);
    if (reader->is_broken || !line || count <= 0) {
        fputs(reader->is_broken ? "^C\n" : "\n", stdout);
        fflush(stdout);
        return reader->is_broken ? LINE_BROKEN : LINE_END;
    }
    remember(reader, line);
    *n = (size_t)count;
    if (line[*n - 1] == '\n') (*n)--;
    *text = line;
    return LINE_TEXT;
}

void line_close(line_reader *reader) {
    if (!reader) return;
    if (reader->editor) el_end(reader->editor);
    if (reader->history) history_end(reader->history);
    strbuf_release(&reader->history_path);
    free(reader);
}

#else
/* ISO C wants something in every file. */
typedef int line_edit_is_not_built;
#endif
