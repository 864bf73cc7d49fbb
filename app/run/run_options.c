/* run_options.c - the table of `ds4 run` and what it implies. */
#include "app/run/run_options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "app/commands.h"
#include "base/hash.h"

#define AT(member) offsetof(run_options, member)

static const option PROMPT_TABLE[] = {
    {'p', "prompt", OPTION_STRING, "TEXT", AT(prompt.text), .help = "The prompt."},
    {'f', "file", OPTION_STRING, "FILE", AT(prompt.file),
     .help = "Reads the prompt from a file; - is stdin, which is also read when nothing names a "
             "prompt. In the chat frame one newline at its end does not count."},
    {0, "tokens", OPTION_STRING, "IDS", AT(prompt.tokens),
     .help = "The prompt as token ids, separated by commas, without frame; @FILE reads them from a "
             "file."},
    {0, "raw", OPTION_SWITCH, NULL, AT(prompt.is_raw),
     .help = "The prompt as it is, without chat frame and begin marker; texts of markers in it "
             "become markers."},
    {0, "system", OPTION_STRING, "TEXT", AT(prompt.system),
     .help = "System text in front of the user's turn."},
    {0, "think", OPTION_SWITCH, NULL, AT(prompt.is_thinking),
     .help = "The model thinks first: its text is the thinking, </think>, the answer."},
    {0, "no-think", OPTION_NEGATE, NULL, AT(prompt.is_thinking), .given_at = AT(prompt.has_no_think),
     .help = "The model answers at once. This is the default."},
    {0, "effort", OPTION_CHOICE, NULL, AT(prompt.effort), .choices = PROMPT_EFFORTS,
     .given_at = AT(prompt.has_effort), .hide_default = true,
     .help = "How thoroughly it thinks; implies --think. The first release of the model does not "
             "know low."},
};

static const option GENERATION_TABLE[] = {
    {'n', "max-tokens", OPTION_UINT32, "N", AT(max_tokens), .max = UINT32_MAX,
     .help = "Tokens to generate at most; 0: until the context is full."},
    {0, "temp", OPTION_FLOAT, "T", AT(sampling.temperature), .max = 100,
     .help = "Temperature; 0: always the likeliest token."},
    {0, "top-k", OPTION_UINT32, "K", AT(sampling.top_k), .max = UINT32_MAX,
     .help = "Draws among the K likeliest tokens; 0: off."},
    {0, "top-p", OPTION_FLOAT, "P", AT(sampling.top_p), .max = 1,
     .help = "Draws among the likeliest tokens that have probability P together; 1: off."},
    {0, "min-p", OPTION_FLOAT, "P", AT(sampling.min_p), .max = 1,
     .help = "Draws among tokens with at least P times the best probability; 0: off."},
    {0, "repeat-penalty", OPTION_FLOAT, "X", AT(sampling.repeat_penalty), .min = 0.01, .max = 100,
     .help = "Divides positive and multiplies negative logits of tokens seen before; 1: off."},
    {0, "repeat-last", OPTION_UINT32, "N", AT(sampling.penalty_last_n), .max = UINT32_MAX,
     .help = "Tokens that the repeat penalty looks back on; 0: all."},
    {0, "presence-penalty", OPTION_FLOAT, "X", AT(sampling.presence_penalty), .min = -100, .max = 100,
     .help = "Subtracted once from the logit of a token that was generated."},
    {0, "frequency-penalty", OPTION_FLOAT, "X", AT(sampling.frequency_penalty), .min = -100,
     .max = 100, .help = "Subtracted for each time that a token was generated."},
    {0, "logit-bias", OPTION_STRING, "ID=BIAS,...", AT(bias), .help = "Added to the logits of these tokens."},
    {0, "seed", OPTION_UINT64, "S", AT(sampling.seed), .given_at = AT(has_seed), .hide_default = true,
     .help = "Same seed, same tokens. Without it: another one each time, told on stderr."},
    {0, "stop", OPTION_STRINGS, "TEXT", AT(stops),
     .help = "Ends the generation before this text; may be given several times."},
    {0, "draft", OPTION_SWITCH, NULL, AT(has_drafts),
     .help = "Drafts one token ahead with the MTP block of the model file, or of --mtp FILE."},
};

static const option OUTPUT_TABLE[] = {
    {0, "json", OPTION_SWITCH, NULL, AT(is_json),
     .help = "Writes one JSON object at the end instead of text: prompt_ids, generated_ids (stop "
             "token included), text (without it), finish_reason (eos, stop, length, canceled), seed, "
             "timings (seconds, tokens, tokens per second), and logprobs, drafts where asked for."},
    {0, "logprobs", OPTION_UINT32, "K", AT(n_top), .max = 20, .given_at = AT(has_logprobs),
     .hide_default = true,
     .help = "With --json: for each token its natural log probability and the K likeliest ones."},
    {0, "save", OPTION_STRING, "FILE", AT(save),
     .help = "Saves the session (tokens and cache) at the end."},
    {0, "load", OPTION_STRING, "FILE", AT(load),
     .help = "Goes on from a saved session: the prompt is its next turn; without a prompt the "
             "answer goes on."},
    {'q', "quiet", OPTION_SWITCH, NULL, AT(is_quiet), .help = "No progress, no timings on stderr."},
};

static const manual PAGE = {
    .name = "run",
    .summary = "answers one prompt",
    .synopsis = "run [-m MODEL] [-p TEXT | -f FILE | --tokens IDS] [OPTIONS]\n"
                "[-m MODEL] -p TEXT [OPTIONS]",
    .description =
        "Reads the prompt, writes the model's text to stdout as it comes, and timings to stderr. The "
        "prompt is data: texts of markers such as <think> in it have no power unless --raw is given. "
        "Ctrl-C ends the generation with what is there; a second one ends the program.",
    .files = "FILE of --save  appears when it is complete; replaces an older one whole",
    .examples = "ds4 run -p 'What is 12 + 30?' --think\n"
                "ds4 -m model.gguf -f question.txt --temp 0 -n 200 --json > answer.json",
};

/* Reads "ID=BIAS,ID=BIAS" into the list. */
static ds4_status parse_bias(run_options *o, ds4_error *err) {
    size_t n = 0;
    for (const char *at = o->bias; *at;) {
        char *end;
        long id = strtol(at, &end, 10);
        bool is_ok = end != at && *end == '=' && id >= 0 && id <= INT32_MAX;
        const char *value = end + 1;
        double bias = is_ok ? strtod(value, &end) : 0;
        is_ok = is_ok && end != value && (*end == ',' || *end == '\0') && !isnan(bias);
        if (!is_ok)
            return ds4_fail(err, DS4_EINVAL, "--logit-bias: found '%.40s', expected ID=BIAS,...", at);
        if (n == RUN_BIAS_MAX)
            return ds4_fail(err, DS4_EINVAL, "--logit-bias: more than %d tokens", RUN_BIAS_MAX);
        o->bias_list[n++] = (ds4_logit_bias){.id = (int32_t)id, .bias = (float)bias};
        at = end + (*end == ',');
    }
    o->sampling.bias = o->bias_list;
    o->sampling.n_bias = n;
    return DS4_OK;
}

/* Not for secrets: another number each time is all that is needed. */
static uint64_t fresh_seed(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t mix[3] = {(uint64_t)now.tv_sec, (uint64_t)now.tv_nsec, (uint64_t)getpid()};
    return hash64(mix, sizeof mix, 0) >> 11; /* 53 bits: exact in every JSON reader */
}

static ds4_status check(run_options *o, ds4_error *err) {
    DS4_TRY(prompt_check(&o->prompt, err));
    if (o->has_logprobs && !o->is_json) return ds4_fail(err, DS4_EINVAL, "--logprobs needs --json");
    if (o->bias) DS4_TRY(parse_bias(o, err));
    return DS4_OK;
}

bool run_options_parse(run_options *o, int argc, char **argv, int *exit_status) {
    *o = (run_options){.engine = engine_flags_defaults(), .sampling = ds4_sampling_defaults()};
    const option_group groups[] = {
        OPTION_GROUP("PROMPT", PROMPT_TABLE, o),
        OPTION_GROUP("GENERATION", GENERATION_TABLE, o),
        OPTION_GROUP("OUTPUT", OUTPUT_TABLE, o),
        engine_flags_group(&o->engine),
    };
    if (!options_parse(&PAGE, groups, 4, argc, argv, exit_status)) return false;

    ds4_error err = {0};
    o->prompt.is_continued = o->load != NULL;
    if (!o->has_seed) o->sampling.seed = fresh_seed();
    if (check(o, &err) == DS4_OK) return true;
    *exit_status = io_fail("run", &err);
    return false;
}
