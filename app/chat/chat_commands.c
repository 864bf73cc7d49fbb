/* chat_commands.c - what a line that begins with "/" does. */
#include "app/chat/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/io.h"
#include "base/mapfile.h"

typedef command_result (*command_fn)(chat *c, const char *argument);

typedef struct {
    const char *name;
    const char *argument; /* as help shows it; "" for none */
    const char *help;
    command_fn  run;
} command;

static void tell(chat *c, const strbuf *text) {
    if (text->data) term_text(&c->screen, STYLE_PLAIN, text->data, text->n);
    term_end_line(&c->screen);
}

/* ---- the conversation ---- */

static command_result set_system(chat *c, const char *text) {
    if (!*text) {
        if (c->talk.system.n) tell(c, &c->talk.system);
        else term_note(&c->screen, "There is no system text.");
        return COMMAND_DONE;
    }
    strbuf fresh = {0};
    strbuf_puts(&fresh, text);
    if (fresh.is_failed) {
        term_error(&c->screen, "out of memory");
        return COMMAND_DONE;
    }
    strbuf_release(&c->talk.system);
    c->talk.system = fresh;
    c->is_live = false;
    term_note(&c->screen, "The system text is changed.");
    return COMMAND_DONE;
}

static command_result set_effort(chat *c, effort value, const char *note) {
    if (c->talk.effort != value) c->is_live = false;
    c->talk.effort = value;
    term_note(&c->screen, "%s", note);
    return COMMAND_DONE;
}

static command_result think(chat *c, const char *argument) {
    (void)argument;
    return set_effort(c, EFFORT_THINK, "Answers begin with thinking.");
}

static command_result nothink(chat *c, const char *argument) {
    (void)argument;
    return set_effort(c, EFFORT_NONE, "Answers come at once.");
}

static command_result max(chat *c, const char *argument) {
    (void)argument;
    return set_effort(c, EFFORT_MAX, "Answers begin with as much thinking as the model can give.");
}

static command_result rewind_turns(chat *c, const char *argument) {
    char *end;
    unsigned long n = *argument ? strtoul(argument, &end, 10) : 1;
    if (*argument && (*end || argument[0] < '0' || argument[0] > '9' || n == 0)) {
        term_error(&c->screen, "/rewind: found '%s', expected a number of turns", argument);
        return COMMAND_DONE;
    }
    size_t n_removed = conversation_rewind(&c->talk, n);
    c->is_live = false;
    term_note(&c->screen, "%zu turn%s taken back, %zu message%s left.", n_removed,
              n_removed == 1 ? "" : "s", c->talk.n, c->talk.n == 1 ? "" : "s");
    return COMMAND_DONE;
}

static command_result reset(chat *c, const char *argument) {
    (void)argument;
    conversation_clear(&c->talk);
    c->is_live = false;
    term_note(&c->screen, "A new conversation.");
    return COMMAND_DONE;
}

/* ---- files ---- */

static command_result read_file(chat *c, const char *path) {
    ds4_error err;
    mapfile file = {0};
    ds4_status status = mapfile_open(&file, path, &err);
    if (status == DS4_OK && file.n == 0) {
        term_error(&c->screen, "%s: the file is empty", path);
    } else if (status == DS4_OK) {
        term_note(&c->screen, "(%s: %zu bytes)", path, file.n);
        status = chat_turn(c, (const char *)file.data, file.n, &err);
    }
    mapfile_close(&file);
    if (status != DS4_OK) term_error(&c->screen, "/read: %s", err.message);
    return COMMAND_DONE;
}

/* FILE.json, for free(). */
static char *messages_path(const char *path) {
    strbuf name = {0};
    strbuf_puts(&name, path);
    strbuf_puts(&name, ".json");
    return strbuf_take(&name, NULL);
}

static ds4_status write_messages(const conversation *talk, const char *path, ds4_error *err) {
    strbuf json = {0};
    io_output out = {0};
    ds4_status status = conversation_write(talk, &json, 0, err);
    if (status == DS4_OK) status = io_output_open(&out, path, err);
    if (status == DS4_OK) status = io_output_write(&out, json.data, json.n, err);
    if (status == DS4_OK) status = io_output_commit(&out, err);
    io_output_release(&out);
    strbuf_release(&json);
    return status;
}

static ds4_status read_messages(conversation *talk, const char *path, ds4_error *err) {
    mapfile file = {0};
    DS4_TRY(mapfile_open(&file, path, err));
    ds4_status status = conversation_read(talk, (const char *)file.data, file.n, path, err);
    mapfile_close(&file);
    return status;
}

static command_result save(chat *c, const char *path) {
    ds4_error err;
    char *json_path = messages_path(path);
    ds4_status status = json_path ? DS4_OK : ds4_fail_nomem(&err, path, strlen(path));
    if (status == DS4_OK) status = ds4_session_save(c->session, path, &err);
    if (status == DS4_OK) status = write_messages(&c->talk, json_path, &err);
    if (status == DS4_OK) term_note(&c->screen, "Saved: %s (cache), %s (messages).", path, json_path);
    else term_error(&c->screen, "/save: %s", err.message);
    free(json_path);
    return COMMAND_DONE;
}

/* The messages are the conversation; the cache only saves the time to read them again, so a cache of
 * another model or a missing one is no obstacle. */
static command_result load(chat *c, const char *path) {
    ds4_error err;
    char *json_path = messages_path(path);
    ds4_status status = json_path ? read_messages(&c->talk, json_path, &err)
                                  : ds4_fail_nomem(&err, path, strlen(path));
    free(json_path);
    if (status != DS4_OK) {
        term_error(&c->screen, "/load: %s", err.message);
        return COMMAND_DONE;
    }
    c->is_live = false;
    if (ds4_session_load(c->session, path, &err) != DS4_OK)
        term_error(&c->screen, "The cache cannot be used and is built again: %s", err.message);
    term_note(&c->screen, "Loaded: %zu message%s.", c->talk.n, c->talk.n == 1 ? "" : "s");
    return COMMAND_DONE;
}

/* ---- figures ---- */

static double rate(double n, double seconds) {
    return n > 0 && seconds > 0 ? n / seconds : 0;
}

static command_result stats(chat *c, const char *argument) {
    (void)argument;
    const ds4_model_info *info = ds4_engine_info(c->engine);
    ds4_session_stats total = ds4_session_get_stats(c->session);
    const turn_record *last = &c->last;
    size_t n_tokens;
    ds4_session_tokens(c->session, &n_tokens);

    strbuf out = {0};
    strbuf_printf(&out, "model    %s, %.1f M parameters; %s (%s), %u thread%s\n", info->name,
                  1e-6 * (double)info->n_params, info->device, info->kernels, info->n_threads,
                  info->n_threads == 1 ? "" : "s");
    strbuf_printf(&out, "context  %zu of %u tokens, %zu messages\n", n_tokens, info->n_ctx, c->talk.n);
    if (last->n_prompt) {
        size_t n_read = last->n_prompt - last->n_reused;
        double n_more = (double)last->n_generated - 1; /* the first token ends the reading */
        strbuf_printf(&out, "last     prompt %zu tokens, %zu of them reused; %.3f s, %.1f tok/s\n",
                      last->n_prompt, last->n_reused, last->prompt_s,
                      rate((double)n_read, last->prompt_s));
        strbuf_printf(&out, "         answer %zu tokens; %.3f s, %.1f tok/s; end: %s\n",
                      last->n_generated, last->generate_s, rate(n_more, last->generate_s),
                      ds4_finish_name(last->finish));
    }
    strbuf_printf(&out, "total    %llu tokens read, %.1f tok/s; %llu generated, %.1f tok/s\n",
                  (unsigned long long)total.n_prompt, rate((double)total.n_prompt, total.prompt_s),
                  (unsigned long long)total.n_generated,
                  rate((double)total.n_generated, total.generate_s));
    tell(c, &out);
    strbuf_release(&out);
    return COMMAND_DONE;
}

static command_result quit(chat *c, const char *argument) {
    (void)c;
    (void)argument;
    return COMMAND_QUIT;
}

static command_result help(chat *c, const char *argument);

/* ---- the table ---- */

static const command COMMANDS[] = {
    {"help", "", "this list", help},
    {"system", "[TEXT]", "sets the system text; without TEXT: shows it", set_system},
    {"think", "", "the model thinks before it answers", think},
    {"nothink", "", "the model answers at once", nothink},
    {"max", "", "the model thinks as long as it can", max},
    {"read", "FILE", "sends the text of FILE as your message", read_file},
    {"save", "FILE", "saves the conversation: FILE (cache) and FILE.json (messages)", save},
    {"load", "FILE", "goes on with a saved conversation", load},
    {"rewind", "[N]", "takes back the last N turns, or the last one", rewind_turns},
    {"reset", "", "begins a new conversation; the system text stays", reset},
    {"stats", "", "tokens, times, speeds", stats},
    {"quit", "", "ends the chat, as Ctrl-D does", quit},
};
enum { N_COMMANDS = sizeof COMMANDS / sizeof *COMMANDS };

static command_result help(chat *c, const char *argument) {
    (void)argument;
    strbuf out = {0};
    for (size_t i = 0; i < N_COMMANDS; i++) {
        char usage[32];
        snprintf(usage, sizeof usage, "/%s %s", COMMANDS[i].name, COMMANDS[i].argument);
        strbuf_printf(&out, "%-16s %s\n", usage, COMMANDS[i].help);
    }
    strbuf_puts(&out, "\nCtrl-C stops an answer. A line that ends with \\ goes on in the next one; a message\n"
                      "that begins with / is written with //.\n");
    tell(c, &out);
    strbuf_release(&out);
    return COMMAND_DONE;
}

command_result chat_command(chat *c, const char *line) {
    size_t n_name = strcspn(line + 1, " \t");
    const char *argument = line + 1 + n_name;
    argument += strspn(argument, " \t");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        const command *entry = &COMMANDS[i];
        if (strlen(entry->name) != n_name || memcmp(entry->name, line + 1, n_name) != 0) continue;
        bool needs_argument = *entry->argument && *entry->argument != '[';
        if (needs_argument && !*argument) {
            term_error(&c->screen, "/%s: %s is missing", entry->name, entry->argument);
            return COMMAND_DONE;
        }
        return entry->run(c, argument);
    }
    term_error(&c->screen, "/%.*s: no such command; /help lists them", (int)(n_name < 40 ? n_name : 40),
               line + 1);
    return COMMAND_DONE;
}
