/* engine_flags.h - the options that say which model to open and how; shared by all commands that do.
 *
 *   engine_flags flags = engine_flags_defaults();
 *   option_group groups[] = {..., engine_flags_group(&flags)};
 *   options_parse(...);
 *   DS4_TRY(engine_flags_resolve(&flags, &options, &err));     -> flags.path, options
 *   DS4_TRY(ds4_engine_open(&engine, flags.path, &options, &err));
 *
 *   Owner    The caller stores the struct; it must outlive the engine (log callback). */
#ifndef DS4_APP_ENGINE_FLAGS_H
#define DS4_APP_ENGINE_FLAGS_H

#include "app/options.h"
#include "base/status.h"

enum { ENGINE_FLAGS_CTX = 8192, ENGINE_FLAGS_PATH = 4096 };

typedef struct {
    const char *model;   /* NULL: the bundled nano model */
    const char *mtp;     /* file with the MTP block; implies use_mtp */
    const char *device;  /* NULL: the best one */
    const char *kernels; /* NULL: the best ones */
    uint32_t    n_ctx;   /* tokens; 0: the model's own limit */
    bool        has_ctx; /* -c was given */
    uint32_t    n_threads;
    int         numerics; /* ds4_numerics */
    bool        is_verbose;
    char        path[ENGINE_FLAGS_PATH]; /* after resolve: the model file */
} engine_flags;

engine_flags engine_flags_defaults(void);
option_group engine_flags_group(engine_flags *flags);

/* Only -m, for commands that need no more than the file; reads into the same struct. */
option_group engine_flags_model_group(engine_flags *flags);
/* Finds the model file: flags->path. DS4_EIO telling where it was looked for. */
ds4_status engine_flags_find_model(engine_flags *flags, ds4_error *err);

/* flags->path and *options (one session; the caller may change more). */
ds4_status engine_flags_resolve(engine_flags *flags, ds4_engine_options *options, ds4_error *err);

#endif
