/* chat.c - `ds4 chat`: opens the model and reads messages, from a person or from a pipe. */
#include "app/chat/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "app/chat/line.h"
#include "app/chat/stop_key.h"
#include "app/commands.h"
#include "app/engine_flags.h"
#include "app/io.h"

/* ---- options ---- */

typedef struct {
    ds4_generation generation;
    const char    *system;
    bool           is_thinking;
    bool           has_effort;
    int            level; /* index into LEVELS */
    bool           has_seed;
} settings;

static const char *const LEVELS[] = {"low", "high", "max", NULL}; /* from EFFORT_LOW on */

#define SAMPLING(field) offsetof(settings, generation.sampling.field)

static const option CHAT_TABLE[] = {
    {0, "system", OPTION_STRING, "TEXT", offsetof(settings, system),
     .help = "System text: what the model should know and be."},
    {0, "think", OPTION_SWITCH, NULL, offsetof(settings, is_thinking),
     .help = "The model thinks before it answers."},
    {0, "no-think", OPTION_NEGATE, NULL, offsetof(settings, is_thinking),
     .help = "The model answers at once. This is the default."},
    {0, "effort", OPTION_CHOICE, NULL, offsetof(settings, level), .choices = LEVELS,
     .given_at = offsetof(settings, has_effort), .hide_default = true,
     .help = "How thoroughly it thinks; implies --think. The first release of the model does not "
             "know low."},
};

static const option GENERATION_TABLE[] = {
    {'n', "max-tokens", OPTION_UINT32, "N", offsetof(settings, generation.max_tokens), .max = UINT32_MAX,
     .help = "Tokens of one answer, thinking included; 0: until the context is full."},
    {0, "temp", OPTION_FLOAT, "T", SAMPLING(temperature), .max = 100,
     .help = "Temperature; 0: always the likeliest token."},
    {0, "top-k", OPTION_UINT32, "K", SAMPLING(top_k), .max = UINT32_MAX,
     .help = "Chooses among the K likeliest tokens; 0: among all."},
    {0, "top-p", OPTION_FLOAT, "P", SAMPLING(top_p), .max = 1,
     .help = "Chooses among the likeliest tokens that together have probability P; 1: among all."},
    {0, "min-p", OPTION_FLOAT, "P", SAMPLING(min_p), .max = 1,
     .help = "Leaves out tokens less likely than P times the likeliest; 0: none."},
    {0, "repeat-penalty", OPTION_FLOAT, "X", SAMPLING(repeat_penalty), .min = 0.01, .max = 100,
     .help = "Makes tokens that are there already less likely; 1: off."},
    {0, "repeat-last", OPTION_UINT32, "N", SAMPLING(penalty_last_n), .max = UINT32_MAX,
     .help = "Tokens that the repeat penalty looks back on; 0: all."},
    {0, "presence-penalty", OPTION_FLOAT, "X", SAMPLING(presence_penalty), .min = -100, .max = 100,
     .help = "Subtracted once from the logit of a token in the answer; 0: off."},
    {0, "frequency-penalty", OPTION_FLOAT, "X", SAMPLING(frequency_penalty), .min = -100, .max = 100,
     .help = "Subtracted for each time a token is in the answer; 0: off."},
    {0, "seed", OPTION_UINT64, "S", SAMPLING(seed), .given_at = offsetof(settings, has_seed),
     .hide_default = true,
     .help = "Same seed, same messages: same answers. Without it: another one each time."},
};

static const manual PAGE = {
    .name = "chat",
    .summary = "talks with the model",
    .synopsis = "chat [-m FILE] [OPTIONS]",
    .description =
        "Reads messages and shows the model's answers as they are generated. Lines that begin with /"
        " are commands; /help lists them. Ctrl-C stops an answer, what there is of it stays part of"
        " the conversation; Ctrl-D ends the chat. Thinking is shown dimmed. A line that ends with \\"
        " goes on in the next one.\n"
        "When stdin is not a terminal, every line of it is one message (there are no commands), and"
        " stdout gets the answers alone, each ended by a newline.",
    .files = "$XDG_STATE_HOME/ds4/history or ~/.local/state/ds4/history\n"
             "    lines typed before (mode 0600)\n"
             "FILE, FILE.json\n"
             "    what /save FILE writes: the cache, and the messages for /load and ds4 render",
    .examples = "ds4 chat\n"
                "printf 'What is a badger?\\nWhere does it live?\\n' | ds4 chat --temp 0",
};

/* A seed nobody chose; it need not be secret, only different. */
static uint64_t fresh_seed(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec * 65537u + (uint64_t)getpid();
}

/* ---- messages from a pipe ---- */

static int run_piped(chat *c) {
    ds4_error err;
    char *line = NULL;
    size_t n_cap = 0;
    ssize_t n;
    int status = APP_OK;
    while (status == APP_OK && !ferror(stdout) && (n = getline(&line, &n_cap, stdin)) >= 0) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
        if (n > 0 && chat_turn(c, line, (size_t)n, &err) != DS4_OK) status = io_fail("chat", &err);
    }
    free(line);
    return status;
}

/* ---- a person at the terminal ---- */

/* One message or command of one or more lines, without its backslashes. */
static line_result read_entry(line_reader *reader, strbuf *entry) {
    const char *prompt = "> ";
    for (;;) {
        const char *text;
        size_t n;
        line_result result = line_read(reader, prompt, &text, &n);
        if (result != LINE_TEXT) return result;
        bool goes_on = n > 0 && text[n - 1] == '\\';
        strbuf_append(entry, text, goes_on ? n - 1 : n);
        if (!goes_on) return LINE_TEXT;
        strbuf_putc(entry, '\n');
        prompt = ". ";
    }
}

static bool is_blank(const strbuf *text) {
    return text->n == 0 || text->data[strspn(text->data, " \t\n")] == 0;
}

/* A command or a message. True: the chat is over. */
static bool take_entry(chat *c, strbuf *entry) {
    ds4_error err;
    if (is_blank(entry)) return false;
    const char *text = entry->data;
    if (text[0] == '/' && text[1] != '/') {
        while (strchr(" \t", text[entry->n - 1])) strbuf_truncate(entry, entry->n - 1);
        return chat_command(c, text) == COMMAND_QUIT;
    }
    size_t n_escape = text[0] == '/';
    if (chat_turn(c, text + n_escape, entry->n - n_escape, &err) != DS4_OK) {
        term_error(&c->screen, "%s", err.message);
        if (err.code == DS4_EFULL)
            term_note(&c->screen, "/rewind takes turns back, /reset begins anew, -c N makes room.");
    }
    return ferror(stdout) != 0;
}

static void greet(chat *c) {
    const ds4_model_info *info = ds4_engine_info(c->engine);
    term_note(&c->screen, "%s: %.1f M parameters on %s (%s), %u tokens of context. /help lists commands.",
              info->name, 1e-6 * (double)info->n_params, info->device, info->kernels, info->n_ctx);
}

static int run_interactive(chat *c) {
    ds4_error err;
    line_reader *reader;
    if (line_open(&reader, &err) != DS4_OK) return io_fail("chat", &err);
    stop_key_install();
    greet(c);
    strbuf entry = {0};
    bool is_over = false;
    while (!is_over) {
        strbuf_truncate(&entry, 0);
        line_result result = read_entry(reader, &entry);
        is_over = result == LINE_END || entry.is_failed;
        if (result == LINE_TEXT && !is_over) is_over = take_entry(c, &entry);
    }
    int status = entry.is_failed ? APP_ERROR : APP_OK;
    strbuf_release(&entry);
    line_close(reader);
    return status;
}

/* ---- the command ---- */

static ds4_status open_chat(chat *c, engine_flags *flags, const settings *chosen, ds4_error *err) {
    ds4_engine_options options;
    DS4_TRY(engine_flags_resolve(flags, &options, err));
    DS4_TRY(ds4_engine_open(&c->engine, flags->path, &options, err));
    DS4_TRY(ds4_session_create(&c->session, c->engine, err));
    c->generation = chosen->generation;
    if (!chosen->has_seed) c->generation.sampling.seed = fresh_seed();
    c->talk.effort = chosen->is_thinking ? EFFORT_THINK : EFFORT_NONE;
    if (chosen->has_effort) c->talk.effort = (effort)(EFFORT_LOW + chosen->level);
    if (chosen->system) strbuf_puts(&c->talk.system, chosen->system);
    return strbuf_check(&c->talk.system, "--system", err);
}

int chat_main(int argc, char **argv) {
    settings chosen = {.generation = ds4_generation_defaults()};
    engine_flags flags = engine_flags_defaults();
    const option_group groups[] = {
        OPTION_GROUP("CHAT", CHAT_TABLE, &chosen),
        OPTION_GROUP("GENERATION", GENERATION_TABLE, &chosen),
        engine_flags_group(&flags),
    };
    int status;
    if (!options_parse(&PAGE, groups, 3, argc, argv, &status)) return status;

    ds4_error err;
    chat c = {0};
    term_init(&c.screen);
    if (open_chat(&c, &flags, &chosen, &err) != DS4_OK)
        status = io_fail("chat", &err);
    else
        status = c.screen.is_interactive ? run_interactive(&c) : run_piped(&c);
    conversation_release(&c.talk);
    ds4_session_destroy(c.session);
    ds4_engine_close(c.engine);
    return status;
}
