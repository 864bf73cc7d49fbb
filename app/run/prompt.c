/* prompt.c - text, file or ids; raw or in the chat frame. */
#include "app/run/prompt.h"

#include <string.h>
#include <unistd.h>

const char *const PROMPT_EFFORTS[] = {"low", "high", "max", NULL};

ds4_status prompt_check(const prompt_source *s, ds4_error *err) {
    int n_sources = (s->text != NULL) + (s->file != NULL) + (s->tokens != NULL);
    if (n_sources > 1) return ds4_fail(err, DS4_EINVAL, "-p, -f and --tokens exclude each other");
    if (s->text && !s->text[0]) return ds4_fail(err, DS4_EINVAL, "the prompt is empty");
    bool has_frame = !s->is_raw && !s->tokens;
    if (!has_frame && (s->system || s->is_thinking || s->has_effort))
        return ds4_fail(err, DS4_EINVAL,
                        "--system, --think and --effort belong to the chat frame: not with --raw or "
                        "--tokens");
    if (s->is_continued && s->system)
        return ds4_fail(err, DS4_EINVAL, "--system stands at the start of a session: not with --load");
    if (n_sources == 0 && !s->is_continued && isatty(STDIN_FILENO))
        return ds4_fail(err, DS4_EINVAL, "no prompt: use -p TEXT, -f FILE or stdin");
    return DS4_OK;
}

/* The prompt's text, valid UTF-8. */
static ds4_status read_text(strbuf *text, const prompt_source *s, ds4_error *err) {
    if (s->text) {
        strbuf_puts(text, s->text);
        DS4_TRY(strbuf_check(text, "prompt", err));
    } else {
        DS4_TRY(io_read(text, s->file ? s->file : "-", err));
        /* Editors and echo end a file with a newline that is not part of the question. */
        bool has_newline = text->n > 0 && text->data[text->n - 1] == '\n';
        if (!s->is_raw && has_newline) strbuf_truncate(text, text->n - 1);
    }
    if (text->n == 0) return ds4_fail(err, DS4_EINVAL, "the prompt is empty");
    return io_make_valid(text, err);
}

static void write_message(strbuf *json, const char *role, const char *text, size_t n) {
    strbuf_printf(json, "{\"role\": \"%s\", \"content\": ", role);
    io_json_text(json, text, n);
    strbuf_putc(json, '}');
}

/* The conversation that the library renders. A continued session knows its tokens but not its
 * messages; for the frame of the next turn it only matters that a finished one stands before it. */
static void write_conversation(strbuf *json, const prompt_source *s, const strbuf *text) {
    bool is_thinking = s->is_thinking || (s->has_effort && !s->has_no_think);
    strbuf_printf(json, "{\"thinking_mode\": \"%s\", ", is_thinking ? "thinking" : "chat");
    if (s->has_effort)
        strbuf_printf(json, "\"reasoning_effort\": \"%s\", ", PROMPT_EFFORTS[s->effort]);
    if (s->is_continued) {
        strbuf_puts(json, "\"context\": [");
        write_message(json, "user", "", 0);
        strbuf_puts(json, ", ");
        write_message(json, "assistant", "", 0);
        strbuf_puts(json, "], ");
    }
    strbuf_puts(json, "\"messages\": [");
    if (s->system) {
        write_message(json, "system", s->system, strlen(s->system));
        strbuf_puts(json, ", ");
    }
    write_message(json, "user", text->data, text->n);
    strbuf_puts(json, "]}");
}

static ds4_status make_framed(id_list *ids, const prompt_source *s, const strbuf *text,
                              const ds4_engine *engine, ds4_error *err) {
    strbuf json = {0};
    write_conversation(&json, s, text);
    ds4_status status = strbuf_check(&json, "prompt", err);
    id_list made = {0};
    if (status == DS4_OK)
        status = ds4_render(engine, NULL, NULL, &made.data, &made.n, json.data, json.n, err);
    for (size_t i = 0; status == DS4_OK && i < made.n; i++)
        if (!id_list_add(ids, made.data[i])) status = ds4_fail_nomem(err, "prompt", made.n);
    ds4_free(made.data);
    strbuf_release(&json);
    return status;
}

static ds4_status make_raw(id_list *ids, const strbuf *text, const ds4_engine *engine, ds4_error *err) {
    id_list made = {0};
    ds4_status status = ds4_tokenize(engine, &made.data, &made.n, text->data, text->n, true, err);
    for (size_t i = 0; status == DS4_OK && i < made.n; i++)
        if (!id_list_add(ids, made.data[i])) status = ds4_fail_nomem(err, "prompt", made.n);
    ds4_free(made.data);
    return status;
}

ds4_status prompt_make(id_list *ids, const prompt_source *s, const ds4_engine *engine,
                       ds4_error *err) {
    if (s->tokens) return id_list_from_option(ids, s->tokens, err);
    if (s->is_continued && !s->text && !s->file) return DS4_OK;

    strbuf text = {0};
    ds4_status status = read_text(&text, s, err);
    if (status == DS4_OK)
        status = s->is_raw ? make_raw(ids, &text, engine, err)
                           : make_framed(ids, s, &text, engine, err);
    strbuf_release(&text);
    return status;
}
