/* vocab_file.c - GGUF metadata -> vocabulary -> encoder. */
#include "app/vocab_file.h"

#include "format/gguf.h"

ds4_status vocab_file_open(vocab_file *v, const char *path, ds4_error *err) {
    gguf *file;
    *v = (vocab_file){0};
    DS4_TRY(gguf_open(&file, path, err));
    ds4_status status = vocab_load(&v->vocab, file, err);
    gguf_close(file); /* the vocabulary keeps nothing of it */
    if (status == DS4_OK) status = bpe_create(&v->bpe, v->vocab, err);
    if (status != DS4_OK) vocab_file_close(v);
    return status;
}

void vocab_file_close(vocab_file *v) {
    bpe_destroy(v->bpe);
    vocab_destroy(v->vocab);
    *v = (vocab_file){0};
}
