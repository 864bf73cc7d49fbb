/* show.h - a model file's description as text for people or as one JSON object. */
#ifndef DS4_APP_INSPECT_SHOW_H
#define DS4_APP_INSPECT_SHOW_H

#include "app/inspect/lints.h"

typedef struct {
    const gguf            *file;
    const config          *shape; /* NULL: could not be read */
    const class_list      *classes;
    const lint_list       *lints;
    const ds4_memory_plan *memory; /* NULL: could not be made */
    uint32_t               n_ctx;  /* tokens that the memory plan is for */
    bool                   has_tensors, has_keys; /* list every one */
} description;

void show_text(strbuf *out, const description *d);
void show_json(strbuf *out, const description *d);

/* A metadata value: scalars as they are, arrays as their first items and their length. */
void show_value(strbuf *out, const gguf *g, const gguf_kv *kv);

#endif
