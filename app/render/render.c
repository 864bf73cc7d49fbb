/* render.c - ds4 render: a conversation in JSON -> the exact prompt, and its token ids. */
#include <string.h>

#include "app/commands.h"
#include "app/engine_flags.h"
#include "app/io.h"
#include "format/gguf.h"
#include "text/chat.h"

typedef struct {
    engine_flags engine;
    const char *file;
    bool has_ids;
} settings;

static const option TABLE[] = {
    {0, "FILE", OPTION_OPERAND, NULL, offsetof(settings, file),
     .help = "The conversation, one JSON object; - or nothing is stdin."},
    {0, "ids", OPTION_SWITCH, NULL, offsetof(settings, has_ids),
     .help =
         "Writes a newline and the prompt's token ids as a JSON array after it. Texts of markers "
         "become their tokens wherever they stand, inside messages too. (run, chat and the "
         "library give messages no marker tokens.)"},
};

static const manual PAGE = {
    .name = "render",
    .summary = "a conversation as the exact text that the model reads",
    .synopsis = "render [FILE]\n"
                "render [-m MODEL] --ids [FILE]",
    .description =
        "Writes the prompt, byte for byte, without a newline after it.\n"
        "\n"
        "The object's members: \"messages\", each with role (system, developer, user, tool, "
        "assistant, "
        "latest_reminder), content, and by role reasoning_content, tool_calls, tool_call_id, "
        "tools, "
        "response_format, task, wo_eos; \"context\", messages that were rendered earlier; "
        "\"tools\"; "
        "\"thinking_mode\" (\"thinking\" or \"chat\", the default); \"reasoning_effort\" (\"low\", "
        "\"high\", \"max\"); \"drop_thinking\" (default true: earlier thinking is left out unless "
        "there "
        "are tools); \"add_default_bos_token\" (default true); \"revision\" (\"preview\" or "
        "\"0731\", the "
        "texts for an effort; default: what the model file shows signs of, without -m and --ids "
        "\"preview\"). Others do not count.\n"
        "\n"
        "What the model's own encoder refuses is an error. Without -m and --ids no model is "
        "needed; with "
        "--ids its vocabulary is read, so a file without weights will do.",
    .examples =
        "ds4 render talk.json\n"
        "echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}' | ds4 render --ids",
};

/* What a prompt needs of a model file. */
typedef struct {
    chat_revision revision;
    vocab *words; /* NULL: no ids are wanted */
    bpe *encoder;
} model;

static ds4_status open_model(model *m, const settings *set, ds4_error *err) {
    gguf *file;
    DS4_TRY(gguf_open(&file, set->engine.path, err));
    m->revision = chat_revision_of(file);
    ds4_status status = set->has_ids ? vocab_load(&m->words, file, err) : DS4_OK;
    if (status == DS4_OK && set->has_ids) status = bpe_create(&m->encoder, m->words, err);
    gguf_close(file); /* the vocabulary keeps nothing of it */
    return status;
}

static void close_model(model *m) {
    bpe_destroy(m->encoder);
    vocab_destroy(m->words);
}

static ds4_status render(strbuf *out, const model *m, const strbuf *input, const char *what,
                         ds4_error *err) {
    json_doc doc;
    chat_prompt prompt = {0};
    id_list ids = {0};
    ds4_error inner = {0};
    DS4_TRY(json_parse(&doc, input->data, input->n, what, err));
    ds4_status status = chat_render(&prompt, doc.root, m->revision, &inner);
    if (status != DS4_OK) ds4_fail(err, status, "%.160s: %.300s", what, inner.message);
    const strview text = {prompt.text.data, prompt.text.n};
    if (status == DS4_OK && m->encoder) status = bpe_encode(m->encoder, &ids, text, true, err);
    if (status == DS4_OK) strbuf_view(out, text);
    if (status == DS4_OK && m->encoder) {
        strbuf_putc(out, '\n');
        id_list_write(out, ids.data, ids.n);
        strbuf_putc(out, '\n');
    }
    id_list_release(&ids);
    chat_prompt_release(&prompt);
    json_release(&doc);
    return status == DS4_OK ? strbuf_check(out, what, err) : status;
}

static ds4_status run(settings *set, ds4_error *err) {
    const char *file = set->file ? set->file : "-";
    const char *what = strcmp(file, "-") == 0 ? "stdin" : file;
    strbuf input = {0}, out = {0};
    model m = {.revision = CHAT_PREVIEW};
    ds4_status status = DS4_OK;
    if (set->has_ids || set->engine.model) {
        status = engine_flags_find_model(&set->engine, err);
        if (status == DS4_OK) status = open_model(&m, set, err);
    }
    if (status == DS4_OK) status = io_read(&input, file, err);
    if (status == DS4_OK) status = render(&out, &m, &input, what, err);
    if (status == DS4_OK) io_put(out.data, out.n);
    close_model(&m);
    strbuf_release(&input);
    strbuf_release(&out);
    return status;
}

int render_main(int argc, char **argv) {
    settings set = {.engine = engine_flags_defaults()};
    const option_group groups[] = {OPTION_GROUP("OPTIONS", TABLE, &set),
                                   engine_flags_model_group(&set.engine)};
    int exit_status;
    if (!options_parse(&PAGE, groups, 2, argc, argv, &exit_status)) return exit_status;
    ds4_error err = {0};
    return run(&set, &err) == DS4_OK ? APP_OK : io_fail("render", &err);
}
