/* tap.h - looks into a forward pass from outside: keeps what the operations of a backend compute.
 *
 *   forward.c ──> tap's table of operations ──> the backend's own table
 *                          └──> values[kind][layer][pos]
 *
 *   The tap replaces the table of one open backend by a copy whose entries call the original and
 *   then read its outputs, so that src/ needs no hooks. Values are kept by position, whatever the
 *   steps were cut into: a later step at the same position overwrites.
 *
 *   Limits   One slot; the main layers, not the MTP block. The device must have finished an
 *            operation when it returns (the CPU backend).
 *   Owner    tap_create after backend_open and before forward_create (which keeps the table);
 *            tap_destroy after forward_destroy and before the backend is closed. `c` is borrowed.
 *   Errors   Lack of memory, or a step beyond the limits, fails the running test. */
#ifndef DS4_TESTS_TAP_H
#define DS4_TESTS_TAP_H

#include "model/forward.h"

typedef enum {
    TAP_EMBEDDING,       /* [S][D], of layer 0 only */
    TAP_AFTER_ATTENTION, /* [S][D] the streams behind the attention half of the layer */
    TAP_AFTER_LAYER,     /* [S][D] */
    TAP_QUERY,           /* [H][dh] normed and rotated */
    TAP_KV,              /* [dh] normed and rotated */
    TAP_HEADS,           /* [H][dh] attention output, rotated back */
    TAP_ATTENTION_OUT,   /* [D] behind the output projections */
    TAP_INDEX_QUERY,     /* [HI][dI] */
    TAP_INDEX_WEIGHTS,   /* [HI] scaled */
    TAP_INDEX_SELECTED,  /* int32 [top_k] */
    TAP_ROUTER_LOGITS,   /* [E] */
    TAP_EXPERTS,         /* int32 [k] in the order of the choice */
    TAP_EXPERT_WEIGHTS,  /* [k] in the same order */
    TAP_N_KINDS,
} tap_kind;

typedef struct tap tap;

/* For positions below n_pos. */
tap *tap_create(backend *b, const config *c, uint32_t n_pos);
void tap_destroy(tap *t);

/* The values of one position, and how many they are; NULL if no step computed them. Lent until the
 * next step. Kinds that hold integers: tap_ints. */
const float *tap_floats(const tap *t, tap_kind kind, uint32_t layer, uint32_t pos, size_t *n);
const int32_t *tap_ints(const tap *t, tap_kind kind, uint32_t layer, uint32_t pos, size_t *n);

#endif
