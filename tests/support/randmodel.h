/* randmodel.h - small random GGUF models of the DeepSeek V4 architecture, for property tests.
 *
 *   Every key and tensor of a stock file, random weights of a size that keeps activations near 1 and
 *   logits within about 10, and a vocabulary of 256 single bytes and the markers:
 *
 *   id   0 BOS | 1 EOS | 2 pad | 3 + b the byte b | 259.. User, Assistant, <think>, ... | unused
 *
 *   The weights of a tensor depend on the seed and on the tensor's name, type and size alone: the same
 *   seed with and without the MTP block gives the same trunk.
 *
 *   Owner    write_memory: free(*data).
 *   Errors   DS4_EINVAL naming what contradicts itself in the shape; else those of gguf_write.h. */
#ifndef DS4_TESTS_RANDMODEL_H
#define DS4_TESTS_RANDMODEL_H

#include "base/status.h"
#include "quant/quant.h"

enum { RANDMODEL_MAX_LAYERS = 16, RANDMODEL_MIN_VOCAB = 260, RANDMODEL_FIRST_BYTE = 3 };

/* Tensors that share one type. */
typedef enum {
    RANDMODEL_EMBEDDING,
    RANDMODEL_ATTENTION,   /* and the two projections of the MTP block */
    RANDMODEL_SHARED,      /* the shared expert */
    RANDMODEL_ROUTED,      /* gate and up of the routed experts */
    RANDMODEL_ROUTED_DOWN,
    RANDMODEL_OUTPUT,
    RANDMODEL_HC,
    RANDMODEL_COMPRESSOR,  /* of compressed rows and of index rows */
    RANDMODEL_INDEXER,
    RANDMODEL_ROUTER,
    RANDMODEL_N_CLASSES,
} randmodel_class;

typedef struct {
    uint32_t n_layer;                     /* 1 .. RANDMODEL_MAX_LAYERS, without the MTP block */
    uint32_t ratio[RANDMODEL_MAX_LAYERS]; /* 0: window only; 4: with indexer; others: plain */
    uint32_t n_embd;                      /* D */
    uint32_t n_head, head_dim, n_rot;     /* H, dh, dr */
    uint32_t n_q_rank;                    /* Rq */
    uint32_t n_out_group, n_out_rank;     /* G, Ro */
    uint32_t window;
    uint32_t n_index_head, index_dim, index_top_k; /* HI, dI, top-k */
    uint32_t n_stream;                    /* S */
    uint32_t n_expert, n_expert_used;     /* E, k */
    uint32_t n_ff;                        /* F */
    uint32_t n_hash_layer;
    uint32_t n_vocab;                     /* V, at least RANDMODEL_MIN_VOCAB */
    uint32_t n_ctx;
    bool     has_yarn, has_mtp;
    bool     has_wide_table;              /* tid2eid as I64 instead of I32 */
    uint32_t gating;                      /* 1 softmax, 2 sigmoid, 4 sqrt(softplus) */
    float    clamp, clamp_shared;         /* of SwiGLU; 0: none */
    float    weight_scale;                /* of routed experts */
    /* A type is used where its blocks divide the row length; else Q8_0, and where that does not fit
     * either, F16. */
    quant_type types[RANDMODEL_N_CLASSES];
} randmodel_shape;

/* Five layers of all kinds, types as in stock files, no MTP block; below 2 MB. */
randmodel_shape randmodel_shape_default(void);
/* Another geometry for every seed: two to six layers, types mixed over all matrix types, up to 64
 * experts; below 32 MB. */
randmodel_shape randmodel_shape_random(uint64_t seed);

ds4_status randmodel_write_memory(const randmodel_shape *shape, uint64_t seed, void **data, size_t *n,
                                  ds4_error *err);
ds4_status randmodel_write_file(const randmodel_shape *shape, uint64_t seed, const char *path,
                                ds4_error *err);

#endif
