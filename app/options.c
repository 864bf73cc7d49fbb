/* options.c - walking argv along the tables. */
#include "app/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/commands.h"
#include "app/options_help.h"

typedef struct {
    const manual       *page;
    const option_group *groups;
    size_t              n_groups;
    const char         *word; /* the option as it was typed */
    bool                is_dry; /* the first walk: nothing is stored */
    bool                wants_help;
    size_t              n_operands; /* seen on this walk */
} walk;

/* An option and the settings that its group stores into. */
typedef struct {
    const option *option;
    char         *settings;
} target;

static bool complain(const walk *w, const char *what, const char *found, const char *expected) {
    fprintf(stderr, "ds4 %s: %s", w->page->name, what);
    if (w->word) fprintf(stderr, " %s", w->word);
    if (found) fprintf(stderr, ": found '%s', expected %s", found, expected);
    else if (expected) fprintf(stderr, ": %s", expected);
    fprintf(stderr, " (see 'ds4 %s --help')\n", w->page->name);
    return false;
}

static bool is_named(const option *o, const char *name, size_t n) {
    return o->type != OPTION_OPERAND && strlen(o->name) == n && memcmp(o->name, name, n) == 0;
}

/* By long name[0..n), or by short name when name is NULL; .option is NULL if there is none. */
static target find_option(const walk *w, const char *name, size_t n, char short_name) {
    for (size_t g = 0; g < w->n_groups; g++)
        for (size_t i = 0; i < w->groups[g].n; i++) {
            const option *o = &w->groups[g].options[i];
            bool is_it = name ? is_named(o, name, n) : o->short_name && o->short_name == short_name;
            if (is_it) return (target){o, w->groups[g].settings};
        }
    return (target){0};
}

/* The k-th operand of the tables. */
static target find_operand(const walk *w, size_t k) {
    for (size_t g = 0; g < w->n_groups; g++)
        for (size_t i = 0; i < w->groups[g].n; i++) {
            const option *o = &w->groups[g].options[i];
            if (o->type == OPTION_OPERAND && k-- == 0) return (target){o, w->groups[g].settings};
        }
    return (target){0};
}

static bool takes_value(const option *o) {
    return o->type != OPTION_SWITCH && o->type != OPTION_NEGATE;
}

static bool read_uint64(const char *text, uint64_t *v) {
    if (text[0] < '0' || text[0] > '9') return false;
    char *end;
    errno = 0;
    *v = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static bool read_double(const char *text, double *v) {
    char *end;
    *v = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*v);
}

static bool store_uint32(const walk *w, const option *o, void *at, const char *value) {
    uint64_t v;
    if (!read_uint64(value, &v) || (double)v < o->min || (double)v > o->max) {
        char expected[80];
        snprintf(expected, sizeof expected, "a whole number from %.0f to %.0f", o->min, o->max);
        return complain(w, "option", value, expected);
    }
    if (!w->is_dry) *(uint32_t *)at = (uint32_t)v;
    return true;
}

static bool store_uint64(const walk *w, void *at, const char *value) {
    uint64_t v;
    if (!read_uint64(value, &v)) return complain(w, "option", value, "a whole number");
    if (!w->is_dry) *(uint64_t *)at = v;
    return true;
}

static bool store_float(const walk *w, const option *o, void *at, const char *value) {
    double v;
    if (!read_double(value, &v) || v < o->min || v > o->max) {
        char expected[80];
        snprintf(expected, sizeof expected, "a number from %g to %g", o->min, o->max);
        return complain(w, "option", value, expected);
    }
    if (!w->is_dry) *(float *)at = (float)v;
    return true;
}

static bool store_choice(const walk *w, const option *o, void *at, const char *value) {
    char expected[120] = "";
    for (int i = 0; o->choices[i]; i++) {
        if (strcmp(o->choices[i], value) == 0) {
            if (!w->is_dry) *(int *)at = i;
            return true;
        }
        size_t n = strlen(expected);
        const char *joint = i == 0 ? "" : o->choices[i + 1] ? ", " : " or ";
        snprintf(expected + n, sizeof expected - n, "%s%s", joint, o->choices[i]);
    }
    return complain(w, "option", value, expected);
}

static bool store_strings(const walk *w, option_strings *list, const char *value) {
    if (w->is_dry) return true;
    if (list->n == OPTION_STRINGS_MAX)
        return complain(w, "option", NULL, "given too often");
    list->items[list->n++] = value;
    return true;
}

static bool store(const walk *w, target t, const char *value) {
    const option *o = t.option;
    char *at = t.settings + o->at;
    bool is_ok = true;
    switch (o->type) {
    case OPTION_SWITCH:
    case OPTION_NEGATE:
        if (!w->is_dry) *(bool *)(void *)at = o->type == OPTION_SWITCH;
        break;
    case OPTION_UINT32: is_ok = store_uint32(w, o, at, value); break;
    case OPTION_UINT64: is_ok = store_uint64(w, at, value); break;
    case OPTION_FLOAT: is_ok = store_float(w, o, at, value); break;
    case OPTION_CHOICE: is_ok = store_choice(w, o, at, value); break;
    case OPTION_STRINGS: is_ok = store_strings(w, (option_strings *)(void *)at, value); break;
    case OPTION_STRING:
    case OPTION_OPERAND:
        if (!w->is_dry) *(const char **)(void *)at = value;
        break;
    }
    if (is_ok && !w->is_dry && o->given_at) *(bool *)(void *)(t.settings + o->given_at) = true;
    return is_ok;
}

/* --name, --name=value, --name value; *i moves past a value that stands alone. */
static bool walk_long(walk *w, int argc, char **argv, int *i) {
    const char *name = argv[*i] + 2;
    size_t n = strcspn(name, "=");
    const char *value = name[n] ? name + n + 1 : NULL;
    w->word = argv[*i];
    if (!value && strcmp(name, "help") == 0) return w->wants_help = true;

    target t = find_option(w, name, n, 0);
    if (!t.option) return complain(w, "unknown option", NULL, NULL);
    if (!takes_value(t.option)) {
        if (value) return complain(w, "option", NULL, "takes no value");
    } else if (!value) {
        if (*i + 1 >= argc) return complain(w, "option", NULL, "needs a value");
        value = argv[++*i];
    }
    return store(w, t, value);
}

/* -n 5, -n5, and switches that share a dash. */
static bool walk_short(walk *w, int argc, char **argv, int *i) {
    w->word = argv[*i];
    for (const char *s = argv[*i] + 1; *s; s++) {
        if (*s == 'h') return w->wants_help = true;
        target t = find_option(w, NULL, 0, *s);
        if (!t.option) return complain(w, "unknown option", NULL, NULL);
        if (!takes_value(t.option)) {
            if (!store(w, t, NULL)) return false;
            continue;
        }
        const char *value = s[1] ? s + 1 : NULL;
        if (!value) {
            if (*i + 1 >= argc) return complain(w, "option", NULL, "needs a value");
            value = argv[++*i];
        }
        return store(w, t, value);
    }
    return true;
}

static bool walk_operand(walk *w, char *word) {
    w->word = NULL;
    target t = find_operand(w, w->n_operands++);
    if (!t.option) {
        fprintf(stderr, "ds4 %s: unexpected argument '%s' (see 'ds4 %s --help')\n", w->page->name,
                word, w->page->name);
        return false;
    }
    return store(w, t, word);
}

static bool walk_all(walk *w, int argc, char **argv) {
    bool has_ended = false; /* behind "--" everything is an operand */
    for (int i = 1; i < argc && !w->wants_help; i++) {
        char *word = argv[i];
        bool is_ok;
        if (!has_ended && strcmp(word, "--") == 0) {
            has_ended = true;
            continue;
        }
        if (has_ended || word[0] != '-' || !word[1]) is_ok = walk_operand(w, word);
        else if (word[1] == '-') is_ok = walk_long(w, argc, argv, &i);
        else is_ok = walk_short(w, argc, argv, &i);
        if (!is_ok) return false;
    }
    return true;
}

/* Two walks: the first only checks, so that help still sees the defaults in the settings. */
bool options_parse(const manual *page, const option_group *groups, size_t n_groups, int argc,
                   char **argv, int *exit_status) {
    walk first = {.page = page, .groups = groups, .n_groups = n_groups, .is_dry = true};
    walk second = {.page = page, .groups = groups, .n_groups = n_groups};
    *exit_status = APP_ERROR;
    if (!walk_all(&first, argc, argv)) return false;
    if (first.wants_help) {
        options_help_print(page, groups, n_groups);
        *exit_status = APP_OK;
        return false;
    }
    return walk_all(&second, argc, argv);
}
