/* ds4.h - run DeepSeek V4 Flash models from a C program.
 *
 *   engine   one open model on one device, shared by any number of sessions
 *   session  one conversation: its tokens and its KV cache
 *   step     one forward pass over rows of one or several sessions
 *
 *       ds4_engine_open ──> ds4_session_create ──> ds4_session_append(tokens)
 *                                   │                      │
 *                                   │              ds4_session_start(how to generate)
 *                                   │                      │
 *                                   └──── ds4_engine_step, until nothing is left to do
 *
 *   Owner    Objects belong to the caller: close what you open, destroy what you create, sessions
 *            before their engine. Strings and arrays given in are borrowed for the call.
 *   Threads  An engine and its sessions belong to one thread at a time (the engine thread).
 *            ds4_engine_cancel and the text functions (tokenize, render, reply) may be called from
 *            any thread. Several engines in one process do not know of each other.
 *   Errors   Functions that can fail return ds4_status and fill `err` (which may be NULL). After a
 *            failure outputs are untouched and every object can still be used or destroyed. The
 *            library never exits, never prints and keeps no mutable globals. */
#ifndef DS4_H
#define DS4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define DS4_API __attribute__((visibility("default")))
#define DS4_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define DS4_API
#define DS4_PRINTF(fmt, args)
#endif

/* ---- Status ---------------------------------------------------------------------------------- */

typedef enum {
    DS4_OK = 0,
    DS4_EINVAL,       /* the caller broke the contract */
    DS4_ENOMEM,       /* memory could not be had; the message tells how much */
    DS4_EIO,          /* the operating system refused a file operation */
    DS4_EFORMAT,      /* bytes are not what they claim to be */
    DS4_EUNSUPPORTED, /* valid, but this build or device cannot do it */
    DS4_EDEVICE,      /* a device failed */
    DS4_EFULL,        /* the context, a slot table or a queue is full */
    DS4_ECANCELED,    /* ds4_engine_cancel or a callback asked to stop */
} ds4_status;

typedef struct {
    ds4_status code;
    char       message[480]; /* what, where, found, expected; one line, UTF-8, terminated */
} ds4_error;

/* "EFORMAT" and the like; a constant string. */
DS4_API const char *ds4_status_name(ds4_status status);

/* "0.1.0"; and what this build can do, one line: "cpu avx2; gcc 12.2.0". */
DS4_API const char *ds4_version(void);
DS4_API const char *ds4_build_info(void);

/* Frees what a function below says to free with it. NULL is fine. */
DS4_API void ds4_free(void *memory);

/* ---- Engine: one open model ------------------------------------------------------------------- */

typedef struct ds4_engine ds4_engine;
typedef struct ds4_session ds4_session;

typedef enum {
    DS4_NUMERICS_MODEL, /* as trained: cached rows on FP8/FP4 grids, int8 activations for quantised
                           weights */
    DS4_NUMERICS_PLAIN, /* float activations and caches, no grids: to compare with implementations
                           that leave them out */
} ds4_numerics;

/* Start from ds4_engine_defaults() and change what matters. */
typedef struct {
    const char  *device;      /* "cpu"; NULL: the best one this build and machine have */
    const char  *kernels;     /* CPU instruction set: "ref", "avx2", ...; NULL: the best */
    const char  *mtp_path;    /* file with the MTP block; NULL: the model file itself, if it is there */
    uint32_t     n_threads;   /* CPU threads, the caller's included; 0: one for each processor */
    uint32_t     n_ctx;       /* tokens one session can hold; 0: the model's own limit */
    uint32_t     n_sessions;  /* sessions at one time, at least 1 */
    uint32_t     n_step_rows; /* rows of one step: prompts are read in chunks of at most this */
    ds4_numerics numerics;
    bool         use_mtp; /* load the MTP block and draft one token ahead of each generated one */
    /* Called on the engine thread with one line, no newline; NULL: nobody listens. */
    void (*on_log)(void *user, const char *line);
    void *user;
} ds4_engine_options;

DS4_API ds4_engine_options ds4_engine_defaults(void);

/* Bytes, known before anything of size is allocated. */
typedef struct {
    uint64_t file;           /* of the model file(s), mapped */
    uint64_t weights;        /* copies of weights beside the mapping */
    uint64_t scratch;        /* activations of one step */
    uint64_t session_fixed;  /* each session from its start: windows, partial rows */
    uint64_t session_growth; /* each session at n_ctx tokens, beyond the fixed part */
    uint64_t total;          /* all of it, n_sessions sessions at n_ctx tokens */
} ds4_memory_plan;

typedef struct {
    const char *name;         /* general.name of the file, or its file name */
    const char *device;       /* "cpu" */
    const char *kernels;      /* "avx2" */
    uint32_t    n_threads;
    uint32_t    n_layer;
    uint32_t    n_embd;
    uint32_t    n_vocab;
    uint32_t    n_expert, n_expert_used;
    uint32_t    n_ctx_model;  /* positions the model knows */
    uint32_t    n_ctx;        /* tokens a session of this engine holds */
    uint64_t    n_params;     /* elements of all tensors in use */
    bool        has_mtp;      /* an MTP block is loaded */
    int32_t     bos, eos;
    uint64_t    fingerprint;  /* of shape, weights and numerics: what a saved session belongs to */
} ds4_model_info;

/* What opening would need, from the file's metadata alone. */
DS4_API ds4_status ds4_engine_plan(ds4_memory_plan *plan, const char *path,
                                   const ds4_engine_options *options, ds4_error *err);
/* Opens a GGUF file (any split of a split file). Weights stay mapped and are paged in on use. */
DS4_API ds4_status ds4_engine_open(ds4_engine **engine, const char *path,
                                   const ds4_engine_options *options, ds4_error *err);
DS4_API void ds4_engine_close(ds4_engine *engine);
DS4_API const ds4_model_info *ds4_engine_info(const ds4_engine *engine);
DS4_API ds4_memory_plan ds4_engine_memory(const ds4_engine *engine);

/* One forward pass: first one row for each session that generates, then chunks of prompts, in turn, up
 * to n_step_rows rows. Samples, and calls the sessions' callbacks at its end. *has_work (may be NULL)
 * tells whether anything is left to do. After DS4_ECANCELED the sessions are as before the step. */
DS4_API ds4_status ds4_engine_step(ds4_engine *engine, bool *has_work, ds4_error *err);
/* Any thread, also a signal handler: the step that runs, or else the next one, ends between two
 * layers with DS4_ECANCELED. */
DS4_API void ds4_engine_cancel(ds4_engine *engine);

/* ---- Text and tokens --------------------------------------------------------------------------- */

/* Token ids of text[0..n), which need not be UTF-8. With `has_markers` the model's marker texts, such
 * as "<｜User｜>", become their tokens: for text that the program itself has made. Without, they are
 * plain text: for anything that came from outside. *ids: ds4_free. */
DS4_API ds4_status ds4_tokenize(const ds4_engine *engine, int32_t **ids, size_t *n_ids,
                                const char *text, size_t n, bool has_markers, ds4_error *err);
/* The bytes of ids[0..n), markers as their texts; *text is terminated: ds4_free. */
DS4_API ds4_status ds4_detokenize(const ds4_engine *engine, char **text, size_t *n_text,
                                  const int32_t *ids, size_t n, ds4_error *err);

/* A conversation, as a JSON object in the OpenAI form, rendered exactly as the model was trained to
 * read it (docs/prompt.md). Members: "messages" (role, content, reasoning_content, tool_calls,
 * tool_call_id, tools, response_format), "tools", "thinking_mode" ("thinking" or "chat", the default),
 * "reasoning_effort", "drop_thinking", "context", "revision" ("preview" or "0731"; default: the
 * model's). The prompt's ids have marker tokens only where the frame puts them: marker texts inside
 * messages stay text. Either output may be NULL; *text, *ids: ds4_free. DS4_EINVAL for what the model's
 * own encoder refuses, DS4_EUNSUPPORTED if the vocabulary lacks a marker that the frame needs. */
DS4_API ds4_status ds4_render(const ds4_engine *engine, char **text, size_t *n_text, int32_t **ids,
                              size_t *n_ids, const char *json, size_t n_json, ds4_error *err);

/* A reply as it streams out of the model, cut into what it means. */
typedef struct ds4_reply ds4_reply;

typedef enum {
    DS4_REPLY_REASONING,    /* text: more of the thinking */
    DS4_REPLY_CONTENT,      /* text: more of the answer */
    DS4_REPLY_CALL,         /* text: the name of a tool that is called */
    DS4_REPLY_ARGUMENTS,    /* text: more of that call's arguments, JSON */
    DS4_REPLY_CALL_END,     /* no text; the call is complete */
    DS4_REPLY_CALL_DROPPED, /* no text; instead of CALL_END: the call is none. If its markup was broken,
                               the raw text follows as content; if it was cut off, nothing does */
} ds4_reply_kind;

typedef void (*ds4_reply_fn)(void *user, ds4_reply_kind kind, const char *text, size_t n);

typedef struct {
    bool        is_thinking; /* the prompt ended with the opening of the thinking part */
    const char *tools;       /* [n_tools bytes] JSON array of the declared tools, OpenAI form; borrowed
                                for the call. "[]": none, calls are content. NULL: unknown, exact calls
                                count; with a list also what the model is known to misspell */
    size_t      n_tools;
} ds4_reply_options;

DS4_API ds4_status ds4_reply_create(ds4_reply **reply, const ds4_reply_options *options, ds4_reply_fn fn,
                                    void *user, ds4_error *err);
DS4_API void ds4_reply_destroy(ds4_reply *reply);
/* Feeds text as on_token gives it, cut anywhere. What may still become markup is held back. Text behind
 * the end marker or behind a block of calls is dropped. */
DS4_API ds4_status ds4_reply_feed(ds4_reply *reply, const char *text, size_t n, ds4_error *err);
/* The text is over. `is_cut`: by the limit of tokens or by the user, not by the model. */
DS4_API ds4_status ds4_reply_finish(ds4_reply *reply, bool is_cut, ds4_error *err);

/* ---- Sessions ---------------------------------------------------------------------------------- */

/* An empty session. DS4_EFULL if n_sessions exist. */
DS4_API ds4_status ds4_session_create(ds4_session **session, ds4_engine *engine, ds4_error *err);
DS4_API void ds4_session_destroy(ds4_session *session);

/* Adds tokens; steps evaluate them. DS4_EFULL beyond n_ctx, DS4_EINVAL for an id out of range or while
 * the session generates. */
DS4_API ds4_status ds4_session_append(ds4_session *session, const int32_t *ids, size_t n,
                                      ds4_error *err);
/* All tokens, evaluated or not, generated ones included; lent until the session changes. */
DS4_API const int32_t *ds4_session_tokens(const ds4_session *session, size_t *n);
/* How many of them the cache holds. */
DS4_API size_t ds4_session_n_evaluated(const ds4_session *session);
/* Keeps the first n tokens, and as much of the cache as stays exact: all of it for a few tokens, none
 * for many (the next steps evaluate again). Ends a generation without a callback. */
DS4_API ds4_status ds4_session_rewind(ds4_session *session, size_t n, ds4_error *err);

/* Called with the logits [n_vocab] after position pos; lent for the call. */
typedef void (*ds4_logits_fn)(void *user, size_t pos, const float *logits);
/* Steps until every token is evaluated. fn (may be NULL) sees every position that was not evaluated
 * before. Other sessions of the engine go on in the same steps. */
DS4_API ds4_status ds4_session_evaluate(ds4_session *session, ds4_logits_fn fn, void *user,
                                        ds4_error *err);
/* The logits [n_vocab] after the last token; NULL unless everything is evaluated. */
DS4_API const float *ds4_session_logits(const ds4_session *session);

/* Tokens and cache in one file, written whole or not at all, checksummed. A session that is loaded
 * goes on bit for bit as the saved one would have. */
DS4_API ds4_status ds4_session_save(const ds4_session *session, const char *path, ds4_error *err);
/* Replaces what the session holds; on failure it is as before or, if the file broke off in the middle
 * of the cache, empty. DS4_EFORMAT for a damaged file or one of another model or numerics. */
DS4_API ds4_status ds4_session_load(ds4_session *session, const char *path, ds4_error *err);

/* ---- Generation -------------------------------------------------------------------------------- */

typedef struct {
    int32_t id;
    float   bias; /* added to the logit */
} ds4_logit_bias;

/* Applied in this order: bias, penalties, temperature, top-k, top-p, min-p. Start from
 * ds4_sampling_defaults(). */
typedef struct {
    float    temperature;       /* 0: greedy, the lowest id of equal logits */
    uint32_t top_k;             /* 0: off */
    float    top_p;             /* 1: off */
    float    min_p;             /* 0: off; keeps tokens of at least min_p times the best probability */
    float    repeat_penalty;    /* 1: off; divides positive, multiplies negative logits */
    float    presence_penalty;  /* 0: off; subtracted once from a token that was generated */
    float    frequency_penalty; /* 0: off; subtracted for each time it was generated */
    uint32_t penalty_last_n;    /* tokens the repeat penalty looks back on; 0: all */
    uint64_t seed;              /* same seed, same tokens */
    const ds4_logit_bias *bias; /* copied at start */
    size_t                n_bias;
} ds4_sampling;

DS4_API ds4_sampling ds4_sampling_defaults(void);

typedef enum {
    DS4_FINISH_NONE,     /* still generating, or never started */
    DS4_FINISH_EOS,      /* the model ended its turn */
    DS4_FINISH_STOP,     /* a stop sequence; it is not part of the text */
    DS4_FINISH_LENGTH,   /* max_tokens, or the context is full */
    DS4_FINISH_CANCELED, /* on_token asked to stop, or the session was rewound */
} ds4_finish;

/* "eos", "stop", "length", "canceled". */
DS4_API const char *ds4_finish_name(ds4_finish finish);

typedef struct {
    int32_t id;
    float   logprob; /* natural logarithm, before temperature and penalties */
} ds4_logprob;

/* One generated token, lent for the call. */
typedef struct {
    int32_t            id;
    float              logprob;
    const ds4_logprob *top;   /* [n_top] the likeliest tokens, best first */
    uint32_t           n_top; /* ds4_generation.n_top, or 0 */
    int32_t            draft; /* the MTP block's guess of the token after this one; -1: none */
    const char        *text;  /* bytes that became certain with it: whole UTF-8 characters, nothing */
    size_t             n_text; /*  that may belong to a stop sequence, without the EOS marker */
    ds4_finish         finish; /* NONE, or this is the last one */
} ds4_token;

typedef struct {
    ds4_sampling       sampling;
    uint32_t           max_tokens; /* 0: until the context is full */
    uint32_t           n_top;      /* likeliest tokens to report, at most 20 */
    const char *const *stops;      /* [n_stops] texts that end the generation; copied at start */
    size_t             n_stops;
    bool               ignore_eos; /* go on after the end of the turn (benchmarks) */
    /* Both on the engine thread, at the end of a step; either may be NULL. on_token returns false to
     * stop. They may read the session but not change it. */
    bool (*on_token)(void *user, const ds4_token *token);
    void (*on_progress)(void *user, size_t n_done, size_t n_prompt); /* while the prompt is read */
    void *user;
} ds4_generation;

DS4_API ds4_generation ds4_generation_defaults(void);

/* From the next step on the session evaluates what is missing and then generates. Generated tokens are
 * part of the session; the last one is not yet evaluated. DS4_EINVAL for an empty session or values out
 * of range (the message names the field). */
DS4_API ds4_status ds4_session_start(ds4_session *session, const ds4_generation *generation,
                                     ds4_error *err);
DS4_API ds4_finish ds4_session_finish(const ds4_session *session);
/* start, then steps until this session has finished. */
DS4_API ds4_status ds4_session_generate(ds4_session *session, const ds4_generation *generation,
                                        ds4_error *err);

typedef struct {
    uint64_t n_prompt, n_generated; /* tokens evaluated as prompt; tokens generated */
    double   prompt_s, generate_s;  /* seconds of the steps they took part in */
} ds4_session_stats;

DS4_API ds4_session_stats ds4_session_get_stats(const ds4_session *session);

#ifdef __cplusplus
}
#endif
#endif
