/* engine_flags.c - the shared options and what they mean to the engine. */
#include "app/engine_flags.h"

#include <stdio.h>
#include <string.h>

#include "app/model_path.h"
#include "format/gguf.h"

static const char *const NUMERICS[] = {"model", "plain", NULL}; /* the order of ds4_numerics */

#define MODEL_OPTION                                                                               \
    {'m', "model", OPTION_STRING, "FILE", offsetof(engine_flags, model),                           \
     .help = "The model, a GGUF file (any part of a split one). Without it: the bundled nano "     \
             "model."}

static const option MODEL_TABLE[] = {MODEL_OPTION};

static const option TABLE[] = {
    MODEL_OPTION,
    {'c', "ctx", OPTION_UINT32, "N", offsetof(engine_flags, n_ctx), .max = 1u << 30,
     .given_at = offsetof(engine_flags, has_ctx),
     .help = "Context: tokens that prompt and answer together may have; 0: the model's own limit, "
             "which is also the most."},
    {'t', "threads", OPTION_UINT32, "N", offsetof(engine_flags, n_threads), .max = 256,
     .help = "CPU threads; 0: one for each processor. The result does not depend on it."},
    {0, "numerics", OPTION_CHOICE, NULL, offsetof(engine_flags, numerics), .choices = NUMERICS,
     .help = "model: caches and activations on the grids the model was trained with; plain: floats "
             "everywhere, to compare with other implementations."},
    {0, "kernels", OPTION_STRING, "NAME", offsetof(engine_flags, kernels),
     .help = "CPU instruction set: ref, avx2, ... Without it: the best this machine has."},
    {0, "device", OPTION_STRING, "NAME", offsetof(engine_flags, device),
     .help = "Device: cpu, ... Without it: the best of this build and machine."},
    {0, "mtp", OPTION_STRING, "FILE", offsetof(engine_flags, mtp),
     .help = "Loads the MTP (draft) block from this file."},
    {'v', "verbose", OPTION_SWITCH, NULL, offsetof(engine_flags, is_verbose),
     .help = "Tells on stderr what the engine does."},
};

engine_flags engine_flags_defaults(void) {
    return (engine_flags){.n_ctx = ENGINE_FLAGS_CTX, .numerics = DS4_NUMERICS_MODEL};
}

option_group engine_flags_group(engine_flags *flags) {
    return (option_group)OPTION_GROUP("MODEL AND ENGINE", TABLE, flags);
}

option_group engine_flags_model_group(engine_flags *flags) {
    return (option_group)OPTION_GROUP("MODEL", MODEL_TABLE, flags);
}

ds4_status engine_flags_find_model(engine_flags *flags, ds4_error *err) {
    if (!flags->model) return model_path_find(flags->path, sizeof flags->path, err);
    size_t n = strlen(flags->model);
    if (n >= sizeof flags->path)
        return ds4_fail(err, DS4_EINVAL, "model path: %zu bytes, expected less than %zu", n,
                        sizeof flags->path);
    memcpy(flags->path, flags->model, n + 1);
    return DS4_OK;
}

/* The default context, or the model's own limit where that is smaller. A file that cannot be read is
 * left to the engine, which tells what is wrong with it. */
static uint32_t default_ctx(const char *path) {
    uint32_t n_model = ENGINE_FLAGS_CTX;
    bool found = false;
    gguf *file;
    if (gguf_open(&file, path, NULL) != DS4_OK) return ENGINE_FLAGS_CTX;
    bool is_ok = gguf_get_u32(file, "deepseek4.context_length", &n_model, &found, NULL) == DS4_OK;
    gguf_close(file);
    return is_ok && n_model < ENGINE_FLAGS_CTX ? n_model : ENGINE_FLAGS_CTX;
}

static void log_line(void *user, const char *line) {
    const engine_flags *flags = user;
    if (flags->is_verbose) fprintf(stderr, "ds4: %s\n", line);
}

ds4_status engine_flags_resolve(engine_flags *flags, ds4_engine_options *options, ds4_error *err) {
    DS4_TRY(engine_flags_find_model(flags, err));
    *options = ds4_engine_defaults();
    options->device = flags->device;
    options->kernels = flags->kernels;
    options->mtp_path = flags->mtp;
    options->use_mtp = flags->mtp != NULL;
    options->n_threads = flags->n_threads;
    options->n_ctx = flags->has_ctx ? flags->n_ctx : default_ctx(flags->path);
    options->n_sessions = 1;
    options->numerics = (ds4_numerics)flags->numerics;
    options->on_log = log_line;
    options->user = flags;
    return DS4_OK;
}
