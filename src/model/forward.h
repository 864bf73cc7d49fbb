/* forward.h - one forward pass over a batch of rows, written once for every device.
 *
 *   tokens -> embed -> layers -> head -> logits          forward_step
 *   streams and next tokens -> MTP block -> logits       forward_draft
 *
 *   Owner    create/destroy; config, weights and backend are borrowed. All buffers are allocated at
 *            creation, none in a step.
 *   Threads  The engine thread. `cancel` may be set by any thread.
 *   Errors   A step that fails or is canceled leaves the caches as they were before it. */
#ifndef DS4_MODEL_FORWARD_H
#define DS4_MODEL_FORWARD_H

#include <stdatomic.h>

#include "model/weights.h"

/* Positions that a slot can be rewound exactly; drafts are shorter. */
enum { FORWARD_SLACK = 16 };

/* The limits of one forward pass. */
typedef struct {
    uint32_t n_rows, n_logits; /* of one step */
    uint32_t n_slots, n_ctx;
    bool     is_plain; /* plain numerics: no grids, float caches */
    bool     has_mtp;
} forward_limits;

typedef struct forward forward;

/* Prepares the backend and allocates the activations. */
ds4_status forward_create(forward **out, const config *c, const weights *w, backend *b,
                          const forward_limits *limits, ds4_error *err);
void forward_destroy(forward *f);
/* Bytes of activations on the device; private scratch of the backend included. */
uint64_t forward_scratch_bytes(const config *c, const forward_limits *limits,
                               const backend_options *options);
/* The cache plan that create gives to the backend; layers[n_layer + 1] is the caller's memory. */
cache_plan forward_cache_plan(const config *c, const forward_limits *limits, cache_layer *layers);

/* logits [n_logits][n_vocab] of the batch's logit rows. `cancel` (may be NULL) is looked at between
 * layers: DS4_ECANCELED. */
ds4_status forward_step(forward *f, const step_batch *batch, float *logits, const atomic_bool *cancel,
                        ds4_error *err);

/* ---- MTP: drafts one token further ----
 * A row pairs the streams of position pos, as the last step or an earlier one left them, with the token
 * at pos + 1; its logits predict the token at pos + 2. Rows of a slot follow each other without gaps
 * from position 0; the streams of the last FORWARD_SLACK + 1 positions of a slot are kept. */
ds4_status forward_draft(forward *f, const step_batch *batch, float *logits, ds4_error *err);
/* The kept streams of a slot, for snapshots: bytes, and reading and writing them. 0 without MTP. */
size_t forward_streams_bytes(const forward *f);
void   forward_read_streams(forward *f, uint32_t slot, void *to);
void   forward_write_streams(forward *f, uint32_t slot, const void *from);

#endif
