/* gguf_private.h - what the files of the GGUF reader share. */
#ifndef DS4_FORMAT_GGUF_PRIVATE_H
#define DS4_FORMAT_GGUF_PRIVATE_H

#include "format/gguf.h"

/* A name for a message: one line of valid UTF-8 whatever the file holds, cut where it gets long. */
typedef struct {
    char text[96];
} gguf_shown;

gguf_shown gguf_show(strview name);

#endif
