/* names.h - what a tensor's name says: its place in the model, and what ds4 knows under that name.
 *
 *   blk.17.attn_q_a.weight            layer 17     attn_q_a.weight
 *   mtp.0.attn_q_a.weight             MTP block 0  attn_q_a.weight
 *   blk.43.nextn.e_proj.weight        MTP block 0  nextn.e_proj.weight   (of a model with 43 layers)
 *   output_norm.weight                top level    output_norm.weight */
#ifndef DS4_APP_INSPECT_NAMES_H
#define DS4_APP_INSPECT_NAMES_H

#include "base/strbuf.h"

typedef enum { PLACE_TOP, PLACE_LAYER, PLACE_MTP } tensor_place;

typedef struct {
    tensor_place place;
    uint32_t     layer; /* of the layer or MTP block; 0 at the top level */
    strview      stem;  /* the rest of the name; points into it */
} tensor_name;

/* n_layer: layers of the model without MTP blocks; UINT32_MAX while unknown. */
tensor_name tensor_name_parse(strview name, uint32_t n_layer);

/* Which layers must have a tensor. */
typedef enum {
    NEED_ALWAYS,
    NEED_HASH,       /* layers routed by token */
    NEED_BIAS,       /* layers routed by score */
    NEED_COMPRESSED, /* ratio > 0 */
    NEED_INDEXED,    /* ratio 4 */
    NEED_NEVER,      /* optional */
} tensor_need;

/* What its type may be without being odd. */
typedef enum {
    KIND_VECTOR, /* F32; F16 and BF16 are converted */
    KIND_FINE,   /* a matrix that steers: F32, F16, BF16 as released */
    KIND_MATRIX, /* any type with a kernel */
    KIND_TABLE,  /* integers */
} tensor_kind;

typedef struct {
    const char  *stem;
    tensor_place place; /* PLACE_LAYER: in MTP blocks as well */
    tensor_need  need;
    tensor_kind  kind;
} known_tensor;

/* NULL: ds4 does not use a tensor of that name. */
const known_tensor *known_tensor_find(const tensor_name *name);
const known_tensor *known_tensor_table(size_t *n);

#endif
