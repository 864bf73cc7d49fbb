/* classes.h - the tensors of a file, gathered: one class for each name without layer number and type.
 *
 *   Owner    The caller stores the struct and releases it; names point into the file. */
#ifndef DS4_APP_INSPECT_CLASSES_H
#define DS4_APP_INSPECT_CLASSES_H

#include "app/inspect/names.h"
#include "format/gguf.h"

enum { CLASSES_MAX = 512 }; /* a file with more has odd names: the rest is counted together */

typedef struct {
    tensor_place place;
    strview      stem;
    uint32_t     type;       /* GGUF id */
    uint32_t     n_tensors;
    uint32_t     first_layer; /* of the first one */
    uint64_t     ne[4];      /* of the first one */
    uint32_t     n_dims;
    bool         is_uneven;  /* others have other shapes */
    uint64_t     n_elements;
    uint64_t     n_bytes;
} tensor_class;

typedef struct {
    tensor_class *items; /* in order of first appearance */
    size_t        n;
    uint64_t      n_elements, n_bytes; /* of all tensors */
    size_t        n_left_out;          /* tensors beyond CLASSES_MAX classes */
} class_list;

ds4_status class_list_make(class_list *list, const gguf *g, uint32_t n_layer, ds4_error *err);
void class_list_release(class_list *list);

/* "blk.*.attn_q_a.weight" */
void tensor_class_name(strbuf *out, const tensor_class *c);
/* "q8_0", also for types that ds4 only knows by name; "type 77" else. Into buffer [24]. */
const char *tensor_type_name(uint32_t type, char buffer[24]);

#endif
