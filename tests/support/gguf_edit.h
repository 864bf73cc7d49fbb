/* gguf_edit.h - a GGUF file in memory with some keys and tensors replaced, renamed or left out.
 *
 *   gguf_edit e;
 *   gguf_edit_init(&e, bytes, n);                   takes the bytes over: malloc'ed
 *   gguf_edit_drop(&e, "deepseek4.vocab_size");
 *   gguf_add_u32(e.w, "deepseek4.vocab_size", 7);
 *   const gguf *g = gguf_edit_finish(&e);
 *
 *   Owner    The caller stores the struct and releases it; what finish lends lives until then.
 *   Errors   For tests: a failure prints its reason and aborts. */
#ifndef DS4_TESTS_GGUF_EDIT_H
#define DS4_TESTS_GGUF_EDIT_H

#include "base/arena.h"
#include "format/gguf_write.h"
#include "tests/support/randmodel.h"

enum { GGUF_EDIT_MAX_CHANGES = 256 };

typedef struct {
    gguf_writer *w; /* for keys and tensors of one's own, before finish */
    arena a;

    gguf *from, *result;
    void *from_bytes, *result_bytes;
    size_t n_result;
    struct {
        const char *name, *new_name; /* NULL: left out */
    } changes[GGUF_EDIT_MAX_CHANGES];
    size_t n_changes;
} gguf_edit;

void gguf_edit_init(gguf_edit *e, void *bytes, size_t n);
/* Starts from a random model. */
void gguf_edit_init_random(gguf_edit *e, const randmodel_shape *shape, uint64_t seed);

/* Leaves out the key or the tensor of this name; the name is copied. */
void gguf_edit_drop(gguf_edit *e, const char *name);
void gguf_edit_rename_tensor(gguf_edit *e, const char *name, const char *new_name);
/* Replaces or adds a tensor of zeros; n_dims as needed for ne, whose unused entries are 0. */
void gguf_edit_tensor(gguf_edit *e, const char *name, uint32_t type, const uint64_t ne[4]);
/* Replaces or adds a tensor with these bytes, copied. */
void gguf_edit_data(gguf_edit *e, const char *name, uint32_t type, const uint64_t ne[4],
                    const void *data, size_t n_bytes);

const gguf *gguf_edit_finish(gguf_edit *e);
void gguf_edit_release(gguf_edit *e);

#endif
