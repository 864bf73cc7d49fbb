/* commands.h - the commands of ds4, one folder each.
 *
 *   Every command gets its own arguments: argv[0] is the command's name ("run"), options follow. It
 *   returns the exit status. Machine-readable output goes to stdout alone, everything else to stderr;
 *   what is left in stdout's buffer is flushed, and checked, by main. */
#ifndef DS4_APP_COMMANDS_H
#define DS4_APP_COMMANDS_H

/* Exit statuses of every command; part of the manual. */
enum {
    APP_OK = 0,
    APP_ERROR = 1,         /* wrong usage, bad input, or a failure; one line on stderr tells which */
    APP_INTERRUPTED = 130, /* Ctrl-C: what was made until then has been written */
};

int run_main(int argc, char **argv);
int chat_main(int argc, char **argv);
int tokenize_main(int argc, char **argv);
int render_main(int argc, char **argv);
int parse_main(int argc, char **argv);
int logits_main(int argc, char **argv);
int bench_main(int argc, char **argv);
int inspect_main(int argc, char **argv);
int version_main(int argc, char **argv);

#endif
