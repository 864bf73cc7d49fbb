/* record.h - what a generation made: ids, text, probabilities, drafts, times; and its JSON.
 *
 *   Owner    The caller stores the struct (zeroed = empty) and releases it.
 *   Errors   Adding sets is_failed when memory runs out. */
#ifndef DS4_APP_RUN_RECORD_H
#define DS4_APP_RUN_RECORD_H

#include "app/io.h"

typedef struct {
    id_list generated; /* the stop token included */
    id_list drafts;    /* for each generated token the draft of the one after it; -1: none */
    strbuf  text;      /* without the stop token */
    strbuf  logprobs;  /* JSON objects, separated by commas */
    bool    is_failed;
} record;

void record_add(record *r, const ds4_token *token, bool has_logprobs);
void record_release(record *r);

/* What stands around the record in the JSON. */
typedef struct {
    const int32_t    *prompt_ids;
    size_t            n_prompt;
    const char       *finish_reason;
    uint64_t          seed;
    double            load_s;        /* opening the model */
    double            first_token_s; /* from the start of the prompt to the first token */
    ds4_session_stats stats;
    bool              has_logprobs;
    bool              has_drafts;
} record_frame;

/* One JSON object and a newline. */
ds4_status record_write_json(strbuf *out, const record *r, const record_frame *frame, ds4_error *err);

/* Tokens per second; 0 when no time was measured. */
double record_rate(uint64_t n_tokens, double seconds);

#endif
