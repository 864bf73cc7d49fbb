/* forward_private.h - the buffers of a forward pass, shared by forward.c and mtp.c.
 *
 *   R = rows of the largest step. All buffers are floats unless said otherwise. */
#ifndef DS4_MODEL_FORWARD_PRIVATE_H
#define DS4_MODEL_FORWARD_PRIVATE_H

#include "model/forward.h"

struct forward {
    const config      *c;
    const weights     *w;
    backend           *b;
    const backend_ops *ops;
    forward_limits     limits;
    uint32_t           n_rows; /* of the batch in hand */

    dev_ptr hc;     /* [R][S][D] the residual streams */
    dev_ptr mix;    /* [R][S + S*S] */
    dev_ptr x, y;   /* [R][D] input and output of a sublayer */
    dev_ptr qr;     /* [R][Rq] query latent */
    dev_ptr q, o;   /* [R][H][dh] */
    dev_ptr kv;     /* [R][dh] */
    dev_ptr u, z;   /* [R][lanes * dh] compressor */
    dev_ptr iu, iz; /* [R][lanes * dI] the indexer's compressor */
    dev_ptr iq, iw; /* [R][HI][dI], [R][HI] indexer queries and weights */
    dev_ptr sel;    /* int32 [R][top_k] */
    dev_ptr latent; /* [R][G * Ro] */
    dev_ptr router; /* [R][E] */
    dev_ptr ids, expert_weights; /* int32, float [R][k] */
    dev_ptr q8_32, q8_256;       /* quantised activations of whatever is read next */
    dev_ptr logits; /* [n_logits][V] */

    /* MTP only */
    dev_ptr   draft_in, draft_hc; /* [R][S][D] */
    dev_ptr   streams;            /* [n_slots][FORWARD_SLACK + 1][S][D], position p in row p mod that */
    step_run *last_runs;          /* [n_slots] of the step whose streams are in hc */
    uint32_t  n_last_runs;
};

/* One layer on streams hc[R][S][D] of the current batch; il counts the caches (n_layer: MTP). */
void forward_block(forward *f, const layer_weights *l, uint32_t il, dev_ptr hc);

/* x with the quantised forms that its readers (a list that ends with NULL) want; they stay valid until
 * the next call. */
act_rows forward_act(forward *f, dev_ptr x, uint32_t n_vec, uint32_t n, const weight *const *readers);

/* Before hc is overwritten: keeps what the MTP block may still need of the last step. Not before its
 * draft, which also reads the position before a run, and a long run takes that one's place. */
void forward_keep_streams(forward *f);

#endif
