/* classes.c - gathering tensors. */
#include "app/inspect/classes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/quant.h"

static bool is_class_of(const tensor_class *c, const tensor_name *name, uint32_t type) {
    return c->place == name->place && c->type == type && strview_equal(c->stem, name->stem);
}

/* The class of the tensor, a new one if needed; NULL when the list is full. */
static tensor_class *find_class(class_list *list, const tensor_name *name, const gguf_tensor *t) {
    for (size_t i = 0; i < list->n; i++)
        if (is_class_of(&list->items[i], name, t->type)) return &list->items[i];
    if (list->n == CLASSES_MAX) return NULL;
    tensor_class *c = &list->items[list->n++];
    *c = (tensor_class){.place = name->place, .stem = name->stem, .type = t->type,
                        .first_layer = name->layer, .n_dims = t->n_dims};
    memcpy(c->ne, t->ne, sizeof c->ne);
    return c;
}

ds4_status class_list_make(class_list *list, const gguf *g, uint32_t n_layer, ds4_error *err) {
    *list = (class_list){.items = calloc(CLASSES_MAX, sizeof(tensor_class))};
    if (!list->items) return ds4_fail_nomem(err, "tensor table", CLASSES_MAX * sizeof(tensor_class));
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        tensor_name name = tensor_name_parse(t->name, n_layer);
        uint64_t n_elements = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; /* checked by the reader */
        list->n_elements += n_elements;
        list->n_bytes += t->n_bytes;
        tensor_class *c = find_class(list, &name, t);
        if (!c) {
            list->n_left_out++;
            continue;
        }
        c->n_tensors++;
        c->n_elements += n_elements;
        c->n_bytes += t->n_bytes;
        if (memcmp(c->ne, t->ne, sizeof c->ne) != 0) c->is_uneven = true;
    }
    return DS4_OK;
}

void class_list_release(class_list *list) {
    free(list->items);
    *list = (class_list){0};
}

void tensor_class_name(strbuf *out, const tensor_class *c) {
    if (c->place == PLACE_LAYER) strbuf_puts(out, "blk.*.");
    if (c->place == PLACE_MTP) strbuf_puts(out, "mtp.*.");
    strbuf_view(out, c->stem);
}

const char *tensor_type_name(uint32_t type, char buffer[24]) {
    const quant_info *info = quant_find(type);
    if (info) return info->name;
    uint32_t elems, bytes;
    const char *name;
    if (quant_block_size(type, &elems, &bytes, &name)) return name;
    snprintf(buffer, 24, "type %u", type);
    return buffer;
}
