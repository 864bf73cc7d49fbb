/* options.h - the command line of one command, declared as tables: parsed and explained from them.
 *
 *   static const option table[] = {
 *       {'n', "tokens", OPTION_UINT32, "N", offsetof(settings, n_tokens), .max = 1e6, .help = "..."},
 *   };
 *   const option_group groups[] = {OPTION_GROUP("Generation", table, &settings), ...};
 *   if (!options_parse(&manual, groups, 2, argc, argv, &status)) return status;
 *
 *   A table names places in a settings struct; what stands there before parsing is the default, and
 *   the manual page shows it. -h and --help belong to every command.
 *
 *   Owner    Strings that are stored point into argv.
 *   Errors   One line on stderr naming the option, found and expected; exit status 1. */
#ifndef DS4_APP_OPTIONS_H
#define DS4_APP_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    OPTION_SWITCH,  /* bool: becomes true */
    OPTION_NEGATE,  /* bool: becomes false */
    OPTION_UINT32,  /* uint32_t in [min, max] */
    OPTION_UINT64,  /* uint64_t, any */
    OPTION_FLOAT,   /* float in [min, max] */
    OPTION_STRING,  /* const char *; NULL while not given */
    OPTION_STRINGS, /* option_strings: may be given several times */
    OPTION_CHOICE,  /* int: index into choices */
    OPTION_OPERAND, /* const char *: an argument that is no option; `name` is what help calls it */
} option_type;

enum { OPTION_STRINGS_MAX = 64 };

typedef struct {
    const char *items[OPTION_STRINGS_MAX];
    size_t      n;
} option_strings;

typedef struct {
    char               short_name; /* 0: none */
    const char        *name;
    option_type        type;
    const char        *arg; /* what the value is called in help; NULL for switches */
    size_t             at;  /* offset of the value in the settings */
    double             min, max;
    const char *const *choices;  /* NULL-terminated */
    size_t             given_at; /* offset of a bool that tells whether it was given; 0: none */
    const char        *help;     /* one or more sentences, with the unit; wrapped when printed */
    bool               hide_default;
} option;

typedef struct {
    const char   *title;
    const option *options;
    size_t        n;
    void         *settings;
} option_group;

#define OPTION_GROUP(title, table, settings) {title, table, sizeof(table) / sizeof *(table), settings}

/* The manual page around the options. Texts may have several lines; NULL leaves a section out. */
typedef struct {
    const char *name;        /* "run" */
    const char *summary;     /* "answers one prompt" */
    const char *synopsis;    /* one form per line, without "ds4 " */
    const char *description;
    const char *files;
    const char *exit_status; /* NULL: the statuses that all commands share */
    const char *examples;    /* two */
} manual;

/* True: go on. False: leave with *exit_status; help was printed or the error told. */
bool options_parse(const manual *page, const option_group *groups, size_t n_groups, int argc,
                   char **argv, int *exit_status);

#endif
