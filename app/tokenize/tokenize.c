/* tokenize.c - ds4 tokenize: text to ids and back, whole files or line by line. */
#include <string.h>

#include "app/commands.h"
#include "app/engine_flags.h"
#include "app/io.h"
#include "app/vocab_file.h"

typedef struct {
    engine_flags engine;
    const char  *file;
    bool         has_no_specials;
    bool         is_decode;
    bool         is_jsonl;
} settings;

static const option TABLE[] = {
    {0, "FILE", OPTION_OPERAND, NULL, offsetof(settings, file),
     .help = "What to read; - or nothing is stdin."},
    {0, "no-specials", OPTION_SWITCH, NULL, offsetof(settings, has_no_specials),
     .help = "Texts of markers are ordinary text. Without it they become their tokens."},
    {0, "decode", OPTION_SWITCH, NULL, offsetof(settings, is_decode),
     .help = "Reads ids and writes the bytes they stand for, exactly; markers as their texts."},
    {0, "jsonl", OPTION_SWITCH, NULL, offsetof(settings, is_jsonl),
     .help = "Reads one JSON object per line: {\"text\": ...} gives a line with the array of ids; "
             "{\"ids\": [...]} (with --decode, or when there is no text) a line {\"text\": ..., \"hex\": "
             "...}, the bytes as valid UTF-8 and exactly. Other members do not count."},
};

static const manual PAGE = {
    .name = "tokenize",
    .summary = "text to token ids, and back",
    .synopsis = "tokenize [-m MODEL] [--no-specials] [--jsonl] [FILE]\n"
                "tokenize [-m MODEL] --decode [--jsonl] [FILE]",
    .description =
        "Writes one JSON array of token ids. No begin marker is added. Only the vocabulary of the "
        "model is read, so a file without weights will do. Bytes that are not UTF-8 count as "
        "U+FFFD. Ids to decode are separated by commas or white space, in brackets or not.",
    .examples = "printf 'Hello' | ds4 tokenize\n"
                "ds4 tokenize -m model.gguf --jsonl texts.jsonl > ids.jsonl",
};

/* ---- one text, one list of ids ---- */

static ds4_status encode(strbuf *out, vocab_file *v, strview text, bool has_markers, ds4_error *err) {
    id_list ids = {0};
    ds4_status status = bpe_encode(v->bpe, &ids, text, has_markers, err);
    if (status == DS4_OK) {
        id_list_write(out, ids.data, ids.n);
        strbuf_putc(out, '\n');
    }
    id_list_release(&ids);
    return status;
}

static ds4_status encode_all(strbuf *out, vocab_file *v, strbuf *input, bool has_markers,
                             ds4_error *err) {
    DS4_TRY(io_make_valid(input, err));
    return encode(out, v, (strview){input->data, input->n}, has_markers, err);
}

static ds4_status decode_all(strbuf *out, vocab_file *v, const strbuf *input, const char *what,
                             ds4_error *err) {
    id_list ids = {0};
    ds4_status status = id_list_parse(&ids, input->data, input->n, what, err);
    if (status == DS4_OK) status = vocab_decode_bytes(v->vocab, out, ids.data, ids.n, err);
    id_list_release(&ids);
    return status;
}

/* ---- line by line ---- */

static ds4_status decode_line(strbuf *out, vocab_file *v, const json_node *ids, ds4_error *err) {
    id_list list = {0};
    strbuf bytes = {0};
    ds4_status status = DS4_OK;
    for (const json_node *id = ids->first; id && status == DS4_OK; id = id->next) {
        int64_t value;
        if (!json_int(id, &value) || value < 0 || value > INT32_MAX)
            status = ds4_fail(err, DS4_EFORMAT, "ids: found %s, expected token ids", json_type_name(id));
        else if (!id_list_add(&list, (int32_t)value))
            status = ds4_fail_nomem(err, "ids", ids->n_items);
    }
    if (status == DS4_OK) status = vocab_decode_bytes(v->vocab, &bytes, list.data, list.n, err);
    if (status == DS4_OK) {
        strbuf_puts(out, "{\"text\": ");
        io_json_text(out, bytes.data, bytes.n);
        strbuf_puts(out, ", \"hex\": \"");
        for (size_t i = 0; i < bytes.n; i++) strbuf_printf(out, "%02x", (unsigned char)bytes.data[i]);
        strbuf_puts(out, "\"}\n");
    }
    strbuf_release(&bytes);
    id_list_release(&list);
    return status;
}

static ds4_status convert_line(strbuf *out, vocab_file *v, const json_node *object,
                               const settings *set, ds4_error *err) {
    const json_node *text = json_get(object, "text"), *ids = json_get(object, "ids");
    bool is_decode = set->is_decode || !text;
    const json_node *wanted = is_decode ? ids : text;
    json_type type = is_decode ? JSON_ARRAY : JSON_STRING;
    if (!wanted || wanted->type != type)
        return ds4_fail(err, DS4_EFORMAT, "found %s as '%s', expected %s", json_type_name(wanted),
                        is_decode ? "ids" : "text", is_decode ? "an array of ids" : "a string");
    return is_decode ? decode_line(out, v, wanted, err)
                     : encode(out, v, text->text, !set->has_no_specials, err);
}

/* Writes as it goes, so that a pipe sees lines early. */
static ds4_status convert_lines(vocab_file *v, const strbuf *input, const settings *set,
                                const char *what, ds4_error *err) {
    strbuf out = {0};
    ds4_status status = DS4_OK;
    size_t number = 0;
    bool can_write = true;
    for (size_t at = 0; at < input->n && status == DS4_OK && can_write;) {
        const char *line = input->data + at;
        const char *end = memchr(line, '\n', input->n - at);
        size_t n = end ? (size_t)(end - line) : input->n - at;
        at += n + (end != NULL);
        number++;
        if (n == 0) continue;

        char name[300];
        json_doc doc = {0};
        snprintf(name, sizeof name, "%.256s:%zu", what, number);
        status = json_parse(&doc, line, n, name, err);
        if (status != DS4_OK) break;
        ds4_error inner = {0};
        status = convert_line(&out, v, doc.root, set, &inner);
        if (status != DS4_OK) ds4_fail(err, status, "%s: %.200s", name, inner.message);
        json_release(&doc);
        if (status == DS4_OK) status = strbuf_check(&out, what, err);
        if (status == DS4_OK) can_write = io_put(out.data, out.n);
        strbuf_truncate(&out, 0);
    }
    strbuf_release(&out);
    return status;
}

static ds4_status run(settings *set, ds4_error *err) {
    const char *file = set->file ? set->file : "-";
    const char *what = strcmp(file, "-") == 0 ? "stdin" : file;
    strbuf input = {0}, out = {0};
    vocab_file v = {0};
    ds4_status status = engine_flags_find_model(&set->engine, err);
    if (status == DS4_OK) status = vocab_file_open(&v, set->engine.path, err);
    if (status == DS4_OK) status = io_read(&input, file, err);
    if (status == DS4_OK) {
        if (set->is_jsonl) status = convert_lines(&v, &input, set, what, err);
        else if (set->is_decode) status = decode_all(&out, &v, &input, what, err);
        else status = encode_all(&out, &v, &input, !set->has_no_specials, err);
    }
    if (status == DS4_OK) status = strbuf_check(&out, what, err);
    if (status == DS4_OK) io_put(out.data, out.n);
    vocab_file_close(&v);
    strbuf_release(&input);
    strbuf_release(&out);
    return status;
}

int tokenize_main(int argc, char **argv) {
    settings set = {.engine = engine_flags_defaults()};
    const option_group groups[] = {OPTION_GROUP("OPTIONS", TABLE, &set),
                                   engine_flags_model_group(&set.engine)};
    int exit_status;
    if (!options_parse(&PAGE, groups, 2, argc, argv, &exit_status)) return exit_status;
    ds4_error err = {0};
    return run(&set, &err) == DS4_OK ? APP_OK : io_fail("tokenize", &err);
}
