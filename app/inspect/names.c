/* names.c - the tensors of the two file families, by name. */
#include "app/inspect/names.h"

#include <string.h>

static const known_tensor KNOWN[] = {
    {"token_embd.weight", PLACE_TOP, NEED_ALWAYS, KIND_MATRIX},
    {"output.weight", PLACE_TOP, NEED_ALWAYS, KIND_MATRIX},
    {"output_norm.weight", PLACE_TOP, NEED_ALWAYS, KIND_VECTOR},
    {"output_hc_fn.weight", PLACE_TOP, NEED_ALWAYS, KIND_FINE},
    {"output_hc_base.weight", PLACE_TOP, NEED_ALWAYS, KIND_VECTOR},
    {"output_hc_scale.weight", PLACE_TOP, NEED_ALWAYS, KIND_VECTOR},

    {"hc_attn_fn.weight", PLACE_LAYER, NEED_ALWAYS, KIND_FINE},
    {"hc_attn_base.weight", PLACE_LAYER, NEED_ALWAYS, KIND_VECTOR},
    {"hc_attn_scale.weight", PLACE_LAYER, NEED_ALWAYS, KIND_VECTOR},
    {"hc_ffn_fn.weight", PLACE_LAYER, NEED_ALWAYS, KIND_FINE},
    {"hc_ffn_base.weight", PLACE_LAYER, NEED_ALWAYS, KIND_VECTOR},
    {"hc_ffn_scale.weight", PLACE_LAYER, NEED_ALWAYS, KIND_VECTOR},
    {"attn_norm.weight", PLACE_LAYER, NEED_ALWAYS, KIND_VECTOR},
    {"attn_q_a.weight", PLACE_LAYER, NEED_ALWAYS, KIND_MATRIX},
    {"attn_q_a_norm.weight", PLACE_LAYER, NEED_ALWAYS, KIND_VECTOR},
    {"attn_q_b.weight", PLACE_LAYER, NEED_ALWAYS, KIND_MATRIX},
    {"attn_kv.weight", PLACE_LAYER, NEED_ALWAYS, KIND_MATRIX},
    {"attn_kv_a_norm.weight", PLACE_LAYER, NEED_ALWAYS, KIND_VECTOR},
    {"attn_sinks.weight", PLACE_LAYER, NEED_ALWAYS, KIND_VECTOR},
    {"attn_output_a.weight", PLACE_LAYER, NEED_ALWAYS, KIND_MATRIX},
    {"attn_output_b.weight", PLACE_LAYER, NEED_ALWAYS, KIND_MATRIX},
    {"ffn_norm.weight", PLACE_LAYER, NEED_ALWAYS, KIND_VECTOR},
    {"ffn_gate_inp.weight", PLACE_LAYER, NEED_ALWAYS, KIND_FINE},
    {"exp_probs_b.bias", PLACE_LAYER, NEED_BIAS, KIND_VECTOR},
    {"ffn_gate_tid2eid.weight", PLACE_LAYER, NEED_HASH, KIND_TABLE},
    {"ffn_gate_exps.weight", PLACE_LAYER, NEED_ALWAYS, KIND_MATRIX},
    {"ffn_up_exps.weight", PLACE_LAYER, NEED_ALWAYS, KIND_MATRIX},
    {"ffn_down_exps.weight", PLACE_LAYER, NEED_ALWAYS, KIND_MATRIX},
    {"ffn_gate_shexp.weight", PLACE_LAYER, NEED_ALWAYS, KIND_MATRIX},
    {"ffn_up_shexp.weight", PLACE_LAYER, NEED_ALWAYS, KIND_MATRIX},
    {"ffn_down_shexp.weight", PLACE_LAYER, NEED_ALWAYS, KIND_MATRIX},

    {"attn_compressor_kv.weight", PLACE_LAYER, NEED_COMPRESSED, KIND_FINE},
    {"attn_compressor_gate.weight", PLACE_LAYER, NEED_COMPRESSED, KIND_FINE},
    {"attn_compressor_ape.weight", PLACE_LAYER, NEED_COMPRESSED, KIND_VECTOR},
    {"attn_compressor_norm.weight", PLACE_LAYER, NEED_COMPRESSED, KIND_VECTOR},
    {"indexer.attn_q_b.weight", PLACE_LAYER, NEED_INDEXED, KIND_FINE},
    {"indexer.proj.weight", PLACE_LAYER, NEED_INDEXED, KIND_FINE},
    {"indexer_compressor_kv.weight", PLACE_LAYER, NEED_INDEXED, KIND_FINE},
    {"indexer_compressor_gate.weight", PLACE_LAYER, NEED_INDEXED, KIND_FINE},
    {"indexer_compressor_ape.weight", PLACE_LAYER, NEED_INDEXED, KIND_VECTOR},
    {"indexer_compressor_norm.weight", PLACE_LAYER, NEED_INDEXED, KIND_VECTOR},

    {"e_proj.weight", PLACE_MTP, NEED_NEVER, KIND_MATRIX},
    {"h_proj.weight", PLACE_MTP, NEED_NEVER, KIND_MATRIX},
    {"eh_proj.weight", PLACE_MTP, NEED_NEVER, KIND_MATRIX},
    {"enorm.weight", PLACE_MTP, NEED_NEVER, KIND_VECTOR},
    {"hnorm.weight", PLACE_MTP, NEED_NEVER, KIND_VECTOR},
    {"norm.weight", PLACE_MTP, NEED_NEVER, KIND_VECTOR},
    {"shared_head_norm.weight", PLACE_MTP, NEED_NEVER, KIND_VECTOR},
    {"hc_head_fn.weight", PLACE_MTP, NEED_NEVER, KIND_FINE},
    {"hc_head_base.weight", PLACE_MTP, NEED_NEVER, KIND_VECTOR},
    {"hc_head_scale.weight", PLACE_MTP, NEED_NEVER, KIND_VECTOR},
};

/* Takes "prefix" and a number and a dot from the front of the name. */
static bool take_number(strview *rest, strview prefix, uint32_t *number) {
    if (!strview_starts(*rest, prefix)) return false;
    size_t at = prefix.n, start = at;
    uint64_t v = 0;
    while (at < rest->n && rest->data[at] >= '0' && rest->data[at] <= '9' && v < UINT32_MAX)
        v = v * 10 + (uint64_t)(rest->data[at++] - '0');
    if (at == start || at >= rest->n || rest->data[at] != '.' || v >= UINT32_MAX) return false;
    *number = (uint32_t)v;
    *rest = (strview){rest->data + at + 1, rest->n - at - 1};
    return true;
}

tensor_name tensor_name_parse(strview name, uint32_t n_layer) {
    tensor_name t = {.place = PLACE_TOP, .stem = name};
    if (take_number(&t.stem, STRVIEW("mtp."), &t.layer)) {
        t.place = PLACE_MTP;
    } else if (take_number(&t.stem, STRVIEW("blk."), &t.layer)) {
        bool is_mtp = t.layer >= n_layer;
        t.place = is_mtp ? PLACE_MTP : PLACE_LAYER;
        if (is_mtp) t.layer -= n_layer;
    }
    return t;
}

const known_tensor *known_tensor_find(const tensor_name *name) {
    strview stem = name->stem, nextn = STRVIEW("nextn.");
    bool has_nextn = name->place == PLACE_MTP && strview_starts(stem, nextn);
    if (has_nextn) stem = (strview){stem.data + nextn.n, stem.n - nextn.n};
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        const known_tensor *k = &KNOWN[i];
        bool is_place = k->place == name->place ||
                        (k->place == PLACE_LAYER && name->place == PLACE_MTP && !has_nextn);
        if (is_place && strview_equal(stem, (strview){k->stem, strlen(k->stem)})) return k;
    }
    return NULL;
}

const known_tensor *known_tensor_table(size_t *n) {
    *n = sizeof KNOWN / sizeof *KNOWN;
    return KNOWN;
}
