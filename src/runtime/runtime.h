/* runtime.h - the insides of ds4_engine and ds4_session, shared by the files of this folder.
 *
 *   engine.c      open a model, plan its memory
 *   session.c     tokens, rewind, start of a generation
 *   scheduler.c   which rows make up a step, and what happens with its logits
 *   saved.c       sessions in files
 *   text.c        tokens and prompts of the public API
 *
 *   Threads  Everything belongs to the engine thread but `cancel`; `words` and `revision` do not change
 *            after opening, so that any thread may read them. */
#ifndef DS4_RUNTIME_RUNTIME_H
#define DS4_RUNTIME_RUNTIME_H

#include "model/forward.h"
#include "runtime/sampler.h"
#include "runtime/stops.h"
#include "text/bpe.h"
#include "text/chat.h"
#include "text/detok.h"
#include "text/vocab.h"

struct ds4_engine {
    ds4_engine_options options; /* with what was left open filled in */
    gguf              *file, *mtp_file;
    config             shape;
    arena              memory; /* of the weights' structs */
    weights            w;
    vocab             *words;
    chat_revision      revision; /* of the prompt's texts */
    backend           *device;
    forward           *pass;
    forward_limits     limits;
    ds4_model_info     info;
    ds4_memory_plan    plan;
    uint32_t           n_step_rows; /* of the model's own pass; the MTP block may have one more a session */
    size_t             n_longest_token; /* bytes */
    char              *name;

    ds4_session **sessions;   /* [n_sessions], by slot; NULL: free */
    uint32_t      next_turn;  /* the slot whose prompt gets the next long run */
    atomic_bool   cancel;

    /* one step in the making */
    step_row *rows;           /* [n_rows] */
    step_run *runs;           /* [n_sessions] */
    uint32_t *logit_rows;     /* [n_logits] */
    float    *logits;         /* [n_logits][n_vocab] */
};

struct ds4_session {
    ds4_engine *engine;
    uint32_t    slot;

    int32_t *tokens;      /* [n_ctx] */
    uint32_t n_tokens;    /* all; the cache holds the first n_evaluated */
    uint32_t n_evaluated;
    uint32_t n_high;      /* positions the rings have ever held: what a rewind is measured from */
    uint32_t n_drafted;   /* positions the MTP block has seen */

    float *logits;        /* [n_vocab] after token n_evaluated - 1 */
    bool   has_logits;
    ds4_logits_fn on_logits; /* during evaluate: wants every position */
    void         *on_logits_user;

    /* generation */
    ds4_generation how;   /* its pointers are not used after start */
    bool           is_generating;
    ds4_finish     finish;
    uint32_t       n_generated, n_prompt; /* of this generation; tokens to evaluate at start */
    sampler       *picker;
    stops         *stop_texts;
    detok          words;
    strbuf         decoded, text; /* reserved at start */
    ds4_logprob    top[20];
    ds4_token      token;   /* sampled in this step, to be reported at its end */
    bool           has_token;

    ds4_session_stats stats;
};

/* Forgets the generation in hand, without a callback. */
void session_end(ds4_session *s, ds4_finish finish);
/* True if steps have something to do for it. */
bool session_has_work(const ds4_session *s);

/* Forward limits and shape from options and file. */
forward_limits engine_limits(const config *c, const ds4_engine_options *o, bool has_mtp);

#endif
