/* bpe.h - from text to token ids: byte-level BPE.
 *
 *   text  --markers (vocab.h)-->  spans  --pretoken.h-->  pieces  --merges-->  ids
 *
 *   A piece starts as its single bytes. The adjacent pair with the lowest merge rank, of equal ones
 *   the leftmost, becomes one token, until no pair is in the list of merges. Pieces do not see each
 *   other. No begin token is added. Text may be any bytes; decoding the ids gives them back.
 *
 *   Owner    bpe_create creates, bpe_destroy destroys. It holds a cache of pieces and room to work
 *            in: 1 MiB, of which the system counts only what was touched, so that one for each text
 *            is fine. The vocab is borrowed and must live longer.
 *   Threads  One at a time for each bpe; any number of them share a vocab.
 *   Errors   DS4_ENOMEM; DS4_EINVAL for a piece of 4 GiB. The list of ids is as before then.
 *   Time     n log n in the length of a piece, linear in the number of pieces. */
#ifndef DS4_TEXT_BPE_H
#define DS4_TEXT_BPE_H

#include "text/id_list.h"
#include "text/vocab.h"

typedef struct bpe bpe;

ds4_status bpe_create(bpe **out, const vocab *v, ds4_error *err);
void bpe_destroy(bpe *b);

/* Appends the ids of text. With has_markers, the texts of markers become their tokens wherever they
 * stand: for text that the program itself has made. Without, they are plain text: for everything
 * that came from outside. Text between two markers must come in one call, since tokens may span
 * the place where it was put together. */
ds4_status bpe_encode(bpe *b, id_list *ids, strview text, bool has_markers, ds4_error *err);

#endif
