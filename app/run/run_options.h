/* run_options.h - the options of `ds4 run`: their table, their meaning, the manual page. */
#ifndef DS4_APP_RUN_OPTIONS_H
#define DS4_APP_RUN_OPTIONS_H

#include "app/engine_flags.h"
#include "app/run/prompt.h"

enum { RUN_BIAS_MAX = 256 };

typedef struct {
    engine_flags   engine;
    prompt_source  prompt;
    ds4_sampling   sampling;
    bool           has_seed;
    const char    *bias; /* "ID=BIAS,..." */
    ds4_logit_bias bias_list[RUN_BIAS_MAX];
    uint32_t       max_tokens;
    option_strings stops;
    uint32_t       n_top;
    bool           has_logprobs;
    bool           has_drafts;
    bool           is_json;
    bool           is_quiet;
    const char    *save, *load;
} run_options;

/* False: leave with *exit_status. Afterwards the options fit together, the bias list is read and a
 * seed is chosen. `options` must stay where it is. */
bool run_options_parse(run_options *options, int argc, char **argv, int *exit_status);

#endif
