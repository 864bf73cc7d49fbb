/* main.c - ds4 COMMAND ARGUMENTS: the table of commands. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "app/commands.h"
#include "app/io.h"

typedef struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} command;

static const command COMMANDS[] = {
    {"run", run_main, "answers one prompt (the default: ds4 -p TEXT)"},
    {"chat", chat_main, "talks with the model"},
    {"tokenize", tokenize_main, "text to token ids, and back"},
    {"render", render_main, "a conversation as the exact text that the model reads"},
    {"parse", parse_main, "the model's text as a message: reasoning, content, tool calls"},
    {"logits", logits_main, "the numbers behind the next token"},
    {"bench", bench_main, "speed of prefill and decode at several context lengths"},
    {"inspect", inspect_main, "shape, tensors, memory and oddities of a model file"},
    {"version", version_main, "version and build"},
};

enum { N_COMMANDS = sizeof COMMANDS / sizeof *COMMANDS };

static const char OVERVIEW_HEAD[] =
    "ds4 - runs DeepSeek V4 Flash models on this machine\n\n"
    "    ds4 COMMAND [OPTIONS]\n"
    "    ds4 -p TEXT               the same as ds4 run -p TEXT\n\n"
    "COMMANDS\n";

static const char OVERVIEW_TAIL[] =
    "    help       this page; help COMMAND: the manual page of one\n\n"
    "Without -m FILE the commands use the bundled nano model, a toy that shows that\n"
    "everything works. 'ds4 COMMAND --help' tells all options, units and defaults.\n\n"
    "EXIT STATUS\n"
    "    0    success\n"
    "    1    wrong usage, bad input or a failure; one line on stderr tells which\n"
    "    130  interrupted by Ctrl-C\n\n"
    "EXAMPLES\n"
    "    ds4 chat\n"
    "    ds4 -m model.gguf -p 'Why is the sky blue?'\n";

static void print_overview(FILE *to) {
    fputs(OVERVIEW_HEAD, to);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(to, "    %-10s %s\n", COMMANDS[i].name, COMMANDS[i].summary);
    fputs(OVERVIEW_TAIL, to);
}

static const command *find_command(const char *name) {
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(COMMANDS[i].name, name) == 0) return &COMMANDS[i];
    return NULL;
}

static int fail_unknown(const char *name) {
    fprintf(stderr, "ds4: unknown command '%s' (see 'ds4 --help')\n", name);
    return APP_ERROR;
}

/* help [COMMAND] */
static int help(int argc, char **argv) {
    if (argc < 2 || argv[1][0] == '-') {
        print_overview(stdout);
        return APP_OK;
    }
    const command *c = find_command(argv[1]);
    if (!c && strcmp(argv[1], "help") != 0) return fail_unknown(argv[1]);
    if (!c) return help(1, argv);
    char flag[] = "--help";
    char *words[] = {argv[1], flag, NULL};
    return c->run(2, words);
}

static bool is_word(const char *word, const char *a, const char *b) {
    return strcmp(word, a) == 0 || strcmp(word, b) == 0;
}

static int dispatch(int argc, char **argv) {
    char name_run[] = "run", name_version[] = "version";
    if (argc < 2) {
        print_overview(stderr);
        return APP_ERROR;
    }
    if (is_word(argv[1], "--help", "-h")) return help(1, argv);
    if (strcmp(argv[1], "help") == 0) return help(argc - 1, argv + 1);
    if (strcmp(argv[1], "--version") == 0) {
        char *words[] = {name_version, NULL};
        return version_main(1, words);
    }
    if (argv[1][0] == '-') { /* options without a command: run */
        argv[0] = name_run;
        return run_main(argc, argv);
    }
    const command *c = find_command(argv[1]);
    return c ? c->run(argc - 1, argv + 1) : fail_unknown(argv[1]);
}

int main(int argc, char **argv) {
    /* A reader that leaves early shows as a failed write, which every command notices. */
    signal(SIGPIPE, SIG_IGN);
    int status = dispatch(argc, argv);
    return io_finish("stdout", status);
}
