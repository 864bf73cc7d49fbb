/* vocab_file.h - the tokenizer of a model file, without the model: works for files without weights.
 *
 *   Owner    The caller stores the struct (zeroed = closed) and closes it.
 *   Threads  One at a time.
 *   Errors   What reading the file reports; on failure nothing is open. */
#ifndef DS4_APP_VOCAB_FILE_H
#define DS4_APP_VOCAB_FILE_H

#include "app/io.h"
#include "text/bpe.h"
#include "text/vocab.h"

typedef struct {
    vocab *vocab;
    bpe   *bpe;
} vocab_file;

ds4_status vocab_file_open(vocab_file *v, const char *path, ds4_error *err);
void vocab_file_close(vocab_file *v);

#endif
