/* parse.c - ds4 parse: the model's text as a message. */
#include <string.h>

#include "app/commands.h"
#include "app/io.h"
#include "app/options.h"
#include "text/message.h"

typedef struct {
    const char *file;
} settings;

static const option TABLE[] = {
    {0, "FILE", OPTION_OPERAND, NULL, offsetof(settings, file),
     .help = "The JSON object to read; - or nothing is stdin."},
};

static const manual PAGE = {
    .name = "parse",
    .summary = "the model's text as a message: reasoning, content, tool calls",
    .synopsis = "parse [FILE]",
    .description =
        "Reads a JSON object: \"text\", what the model wrote after the prompt, end marker "
        "included; \"thinking_mode\", \"thinking\" or \"chat\" (the default), the mode of the prompt; and "
        "\"tools\", the declared tools in the OpenAI form.\n"
        "Writes the assistant's message as one JSON object: role, content, reasoning_content and "
        "tool_calls. Without tools only the exact markup of calls counts, and values are copied "
        "unchecked; with an empty array no call counts; with a list also mistakes that the "
        "model is known to make. Markup that cannot be read is content.",
    .examples = "ds4 parse reply.json\n"
                "printf '{\"text\": \"Hello.\"}' | ds4 parse",
};

/* ---- the input ---- */

static ds4_status read_mode(bool *is_thinking, const json_node *root, ds4_error *err) {
    const json_node *mode = json_get(root, "thinking_mode");
    *is_thinking = false;
    if (!mode) return DS4_OK;
    if (mode->type == JSON_STRING) {
        *is_thinking = strview_equal(mode->text, STRVIEW("thinking"));
        if (*is_thinking || strview_equal(mode->text, STRVIEW("chat"))) return DS4_OK;
    }
    return ds4_fail(err, DS4_EFORMAT,
                    "found %s as 'thinking_mode', expected \"thinking\" or \"chat\"",
                    mode->type == JSON_STRING ? "another text" : json_type_name(mode));
}

static ds4_status parse_reply(message *m, const json_node *root, ds4_error *err) {
    const json_node *text = json_get(root, "text"), *tools = json_get(root, "tools");
    ds4_reply_options options = {0};
    if (!text || text->type != JSON_STRING)
        return ds4_fail(err, DS4_EFORMAT, "found %s as 'text', expected a string",
                        json_type_name(text));
    DS4_TRY(read_mode(&options.is_thinking, root, err));

    strbuf list = {0};
    ds4_reply *reply = NULL;
    if (tools && tools->type != JSON_NULL) json_write_python(&list, tools);
    options.tools = list.data;
    options.n_tools = list.n;
    ds4_status status = strbuf_check(&list, "tools", err);
    if (status == DS4_OK) status = ds4_reply_create(&reply, &options, message_add, m, err);
    if (status == DS4_OK) status = ds4_reply_feed(reply, text->text.data, text->text.n, err);
    if (status == DS4_OK) status = ds4_reply_finish(reply, false, err);
    if (status == DS4_OK) status = message_check(m, err);
    ds4_reply_destroy(reply);
    strbuf_release(&list);
    return status;
}

static ds4_status run(const settings *set, ds4_error *err) {
    const char *file = set->file ? set->file : "-";
    const char *what = strcmp(file, "-") == 0 ? "stdin" : file;
    strbuf input = {0}, out = {0};
    json_doc doc = {0};
    message m = {0};
    ds4_status status = io_read(&input, file, err);
    if (status == DS4_OK) status = json_parse(&doc, input.data, input.n, what, err);
    if (status == DS4_OK) {
        ds4_error inner = {0};
        status = parse_reply(&m, doc.root, &inner);
        if (status != DS4_OK) ds4_fail(err, status, "%.256s: %.200s", what, inner.message);
    }
    if (status == DS4_OK) {
        message_write(&m, &out);
        strbuf_putc(&out, '\n');
        status = strbuf_check(&out, what, err);
    }
    if (status == DS4_OK) io_put(out.data, out.n);
    message_release(&m);
    json_release(&doc);
    strbuf_release(&input);
    strbuf_release(&out);
    return status;
}

int parse_main(int argc, char **argv) {
    settings set = {0};
    const option_group groups[] = {OPTION_GROUP("OPTIONS", TABLE, &set)};
    int exit_status;
    if (!options_parse(&PAGE, groups, 1, argc, argv, &exit_status)) return exit_status;
    ds4_error err = {0};
    return run(&set, &err) == DS4_OK ? APP_OK : io_fail("parse", &err);
}
