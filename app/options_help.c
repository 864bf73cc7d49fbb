/* options_help.c - synopsis, options with their defaults, files, exit status, examples. */
#include "app/options_help.h"

#include <stdio.h>
#include <string.h>

enum { WIDTH = 80, TEXT_AT = 4, HELP_AT = 28 };

static const char SHARED_EXIT_STATUS[] =
    "0    success\n"
    "1    wrong usage, bad input or a failure; one line on stderr tells which\n"
    "130  interrupted by Ctrl-C; what was made until then has been written";

static void indent(size_t n) {
    printf("%*s", (int)n, "");
}

/* Prints text in lines up to WIDTH, each from column `at`; the first one starts at `column`. */
static void print_wrapped(const char *text, size_t at, size_t column) {
    for (const char *word = text; *word;) {
        size_t n = strcspn(word, " \n");
        if (column > at && column + 1 + n > WIDTH) {
            putchar('\n');
            column = 0;
        }
        if (column < at) {
            indent(at - column);
            column = at;
        } else if (column > at) {
            putchar(' ');
            column++;
        }
        fwrite(word, 1, n, stdout);
        column += n;
        word += n;
        word += strspn(word, " ");
        if (*word == '\n') { /* a line break of the text itself */
            putchar('\n');
            column = 0;
            word++;
        }
    }
    putchar('\n');
}

/* Every line of text as it is. */
static void print_lines(const char *text, const char *prefix) {
    while (*text) {
        size_t n = strcspn(text, "\n");
        if (n) printf("%*s%s%.*s", TEXT_AT, "", prefix, (int)n, text);
        putchar('\n');
        text += n + (text[n] == '\n');
    }
}

static void print_section(const char *title, const char *text, const char *prefix) {
    if (!text) return;
    printf("\n%s\n", title);
    print_lines(text, prefix);
}

/* "a, b or c" */
static void put_choices(char *out, size_t n_out, const option *o) {
    out[0] = '\0';
    for (int i = 0; o->choices[i]; i++) {
        size_t n = strlen(out);
        snprintf(out + n, n_out - n, "%s%s", i ? "|" : "", o->choices[i]);
    }
}

/* " Default: 0.8." or nothing. */
static void put_default(char *out, size_t n_out, const option *o, const char *settings) {
    const void *at = settings + o->at;
    out[0] = '\0';
    if (o->hide_default) return;
    switch (o->type) {
    case OPTION_UINT32: snprintf(out, n_out, " Default: %u.", *(const uint32_t *)at); break;
    case OPTION_UINT64:
        snprintf(out, n_out, " Default: %llu.", (unsigned long long)*(const uint64_t *)at);
        break;
    case OPTION_FLOAT: snprintf(out, n_out, " Default: %g.", (double)*(const float *)at); break;
    case OPTION_CHOICE: snprintf(out, n_out, " Default: %s.", o->choices[*(const int *)at]); break;
    case OPTION_STRING: {
        const char *text = *(const char *const *)at;
        if (text) snprintf(out, n_out, " Default: %s.", text);
        break;
    }
    default: break;
    }
}

static void print_option(const option *o, const char *settings) {
    char head[120], choices[100] = "", text[1400], fallback[120];
    if (o->choices) put_choices(choices, sizeof choices, o);
    const char *arg = o->arg ? o->arg : choices;
    if (o->type == OPTION_OPERAND)
        snprintf(head, sizeof head, "%s", o->name);
    else
        snprintf(head, sizeof head, "%c%c%s--%s%s%s", o->short_name ? '-' : ' ',
                 o->short_name ? o->short_name : ' ', o->short_name ? ", " : "  ", o->name,
                 arg[0] ? " " : "", arg);

    put_default(fallback, sizeof fallback, o, settings);
    snprintf(text, sizeof text, "%s%s", o->help, fallback);
    printf("%*s%s", TEXT_AT, "", head);
    size_t column = TEXT_AT + strlen(head);
    if (column + 2 > HELP_AT) {
        putchar('\n');
        column = 0;
    }
    print_wrapped(text, HELP_AT, column);
}

static const option HELP_OPTION = {'h', "help", OPTION_SWITCH, NULL, 0, .help = "Prints this page."};

void options_help_print(const manual *page, const option_group *groups, size_t n_groups) {
    printf("NAME\n%*sds4 %s - %s\n", TEXT_AT, "", page->name, page->summary);
    print_section("SYNOPSIS", page->synopsis, "ds4 ");
    if (page->description) {
        printf("\nDESCRIPTION\n");
        print_wrapped(page->description, TEXT_AT, 0);
    }
    for (size_t g = 0; g < n_groups; g++) {
        printf("\n%s\n", groups[g].title);
        for (size_t i = 0; i < groups[g].n; i++)
            print_option(&groups[g].options[i], groups[g].settings);
        if (g + 1 == n_groups) print_option(&HELP_OPTION, NULL);
    }
    print_section("FILES", page->files, "");
    print_section("EXIT STATUS", page->exit_status ? page->exit_status : SHARED_EXIT_STATUS, "");
    print_section("EXAMPLES", page->examples, "");
}
