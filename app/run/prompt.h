/* prompt.h - what `ds4 run` gives the model to read: from its options to token ids.
 *
 *   --tokens IDS   the ids as they are
 *   --raw          the text as it is; marker texts in it become markers
 *   otherwise      the text as a user's turn in the chat frame; marker texts in it stay text
 *
 *   Errors   DS4_EINVAL for options that exclude each other or an empty prompt; what reading,
 *            rendering and tokenising report. */
#ifndef DS4_APP_RUN_PROMPT_H
#define DS4_APP_RUN_PROMPT_H

#include "app/io.h"

typedef struct {
    const char *text;   /* -p */
    const char *file;   /* -f; "-" is stdin */
    const char *tokens; /* --tokens */
    const char *system;
    bool        is_raw;
    bool        is_thinking;
    bool        has_no_think; /* --no-think was given: an effort does not turn thinking on */
    bool        has_effort;
    int         effort; /* index of PROMPT_EFFORTS */
    bool        is_continued; /* the turn follows a session that was loaded */
} prompt_source;

extern const char *const PROMPT_EFFORTS[]; /* low, high, max, NULL */

/* Checks the combination of options, before anything is loaded. */
ds4_status prompt_check(const prompt_source *source, ds4_error *err);
/* Appends the prompt to `ids`; appends nothing for a continued session without a new text. */
ds4_status prompt_make(id_list *ids, const prompt_source *source, const ds4_engine *engine,
                       ds4_error *err);

#endif
