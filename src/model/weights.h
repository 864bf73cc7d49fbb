/* weights.h - the tensors of a model, checked against its shape and bound to a backend.
 *
 *   Matrices stay where the file is mapped (or are copied to the device) in their own type. Vectors
 *   become floats, token tables int32: small copies that the backend owns.
 *
 *   Owner    weights_bind fills a struct whose layers lie in the caller's arena; the bound memory ends
 *            with the backend. The files must outlive both.
 *   Errors   DS4_EFORMAT naming tensor, found and expected; DS4_EUNSUPPORTED naming tensor and type. */
#ifndef DS4_MODEL_WEIGHTS_H
#define DS4_MODEL_WEIGHTS_H

#include "base/arena.h"
#include "model/config.h"

typedef struct {
    hc_params hc_attn, hc_ffn;
    dev_ptr   attn_norm, ffn_norm;

    /* attention */
    weight  q_a, q_b, kv, out_a, out_b;
    dev_ptr q_norm, kv_norm, sinks;

    /* compressor; set if the layer has a ratio */
    weight  comp_kv, comp_gate;
    dev_ptr comp_ape, comp_norm;

    /* indexer with its own compressor; set if the ratio is 4 */
    weight  index_q, index_w, icomp_kv, icomp_gate;
    dev_ptr icomp_ape, icomp_norm;

    /* mixture of experts */
    weight      router;
    dev_ptr     router_bias; /* or tid2eid, int32 [n_vocab][k] */
    dev_ptr     tid2eid;
    ffn_weights experts, shared;
    float       clamp, clamp_shared;
} layer_weights;

typedef struct {
    weight        e_proj, h_proj;
    dev_ptr       enorm, hnorm, norm;
    layer_weights block;
    hc_params     head;
} mtp_weights;

typedef struct {
    weight         embed, output;
    dev_ptr        output_norm;
    hc_params      head;
    layer_weights *layers; /* [config.n_layer] */
    bool           has_mtp;
    mtp_weights    mtp;
    dev_ptr        freq_window, freq_compress; /* [n_rot / 2] */

    uint64_t n_params;    /* elements of all tensors above */
    uint64_t copy_bytes;  /* floats and tables beside the mapping */
    uint64_t fingerprint; /* of shape, types and samples of the data */
    uint32_t n_tensors;
} weights;

typedef struct {
    const gguf *file;
    const gguf *mtp_file; /* NULL: the MTP block is in `file`, or there is none */
    bool        use_mtp;  /* false: leave it out even if it is there */
    bool        is_plain; /* plain numerics: all matmuls take float activations */
} weights_source;

/* True if the file has an MTP block, of either family. */
bool weights_have_mtp(const gguf *file, const config *c);

/* `b` NULL: everything is checked and counted, nothing bound. */
ds4_status weights_bind(weights *w, const weights_source *source, const config *c, backend *b, arena *a,
                        ds4_error *err);

#endif
