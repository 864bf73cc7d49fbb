/* inspect.c - ds4 inspect: what is in a model file, and what is odd about it. */
#include <ds4.h>
#include <stdlib.h>

#include "app/commands.h"
#include "app/engine_flags.h"
#include "app/inspect/show.h"
#include "app/io.h"

typedef struct {
    engine_flags engine;
    const char  *file;
    bool         is_json, has_tensors, has_keys;
} settings;

static const option TABLE[] = {
    {0, "FILE", OPTION_OPERAND, NULL, offsetof(settings, file),
     .help = "The model; the same as -m FILE."},
    {0, "tensors", OPTION_SWITCH, NULL, offsetof(settings, has_tensors),
     .help = "Lists every tensor as well: type, bytes, name, shape (contiguous dimension first)."},
    {0, "keys", OPTION_SWITCH, NULL, offsetof(settings, has_keys),
     .help = "Lists the metadata; arrays and long texts are shortened."},
    {0, "json", OPTION_SWITCH, NULL, offsetof(settings, is_json),
     .help = "Writes one JSON object: path, bytes, shape, classes, memory, oddities (and tensors, keys)."},
};

static const manual PAGE = {
    .name = "inspect",
    .summary = "shape, tensors, memory and oddities of a model file",
    .synopsis = "inspect [FILE] [--ctx N] [--tensors] [--keys] [--json]",
    .description =
        "Reads the metadata of a GGUF file (all parts of a split one) and prints its shape, a table of its "
        "tensors by class (one line for all layers) with types and bytes, the memory that a session "
        "of --ctx tokens would need, and what is odd: missing or unused tensors, unexpected "
        "types, missing keys. No weights are read.",
    .exit_status = "0    ds4 can run the file; oddities may be listed\n"
                   "1    it cannot (the reason is among the oddities and on stderr), or wrong usage",
    .examples = "ds4 inspect model.gguf --ctx 32768\n"
                "ds4 inspect model.gguf --json | python3 -m json.tool",
};

/* Shape and plan: what fails there keeps the file from running, and is told once. */
static ds4_status examine(config *shape, ds4_memory_plan *memory, description *d, const settings *set,
                          const ds4_engine_options *options, ds4_error *err) {
    DS4_TRY(config_read(shape, d->file, err));
    d->shape = shape;
    d->n_ctx = options->n_ctx ? options->n_ctx : shape->n_ctx;
    DS4_TRY(ds4_engine_plan(memory, set->engine.path, options, err));
    d->memory = memory;
    return DS4_OK;
}

static ds4_status print_description(const description *d, bool is_json, ds4_error *err) {
    strbuf out = {0};
    if (is_json) show_json(&out, d);
    else show_text(&out, d);
    ds4_status status = strbuf_check(&out, "inspect", err);
    if (status == DS4_OK) io_put(out.data, out.n);
    strbuf_release(&out);
    return status;
}

static ds4_status inspect(settings *set, lint_list *lints, config *shape, ds4_error *err) {
    ds4_engine_options options;
    gguf *file;
    class_list classes = {0};
    ds4_memory_plan memory;
    DS4_TRY(engine_flags_resolve(&set->engine, &options, err));
    DS4_TRY(gguf_open(&file, set->engine.path, err));

    description d = {.file = file, .classes = &classes, .lints = lints,
                     .has_tensors = set->has_tensors, .has_keys = set->has_keys};
    ds4_status verdict = examine(shape, &memory, &d, set, &options, err);
    ds4_error ignored; /* the verdict keeps its message */
    ds4_status status = class_list_make(&classes, file, d.shape ? shape->n_layer : UINT32_MAX,
                                        verdict == DS4_OK ? err : &ignored);
    if (status == DS4_OK) {
        if (verdict != DS4_OK && err) lint_add(lints, LINT_ERROR, "%s", err->message);
        lints_make(lints, file, &classes, d.shape);
        status = print_description(&d, set->is_json, verdict == DS4_OK ? err : &ignored);
    }
    class_list_release(&classes);
    gguf_close(file);
    return verdict != DS4_OK ? verdict : status;
}

int inspect_main(int argc, char **argv) {
    settings set = {.engine = engine_flags_defaults()};
    const option_group groups[] = {OPTION_GROUP("OPTIONS", TABLE, &set),
                                   engine_flags_group(&set.engine)};
    int exit_status;
    if (!options_parse(&PAGE, groups, 2, argc, argv, &exit_status)) return exit_status;
    if (set.file) set.engine.model = set.file;

    /* Large for a stack. */
    lint_list *lints = calloc(1, sizeof *lints);
    config *shape = calloc(1, sizeof *shape);
    ds4_error err = {0};
    ds4_status status = lints && shape ? inspect(&set, lints, shape, &err)
                                       : ds4_fail_nomem(&err, "inspect", sizeof *lints);
    free(lints);
    free(shape);
    return status == DS4_OK ? APP_OK : io_fail("inspect", &err);
}
