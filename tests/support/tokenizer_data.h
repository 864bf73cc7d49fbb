/* tokenizer_data.h - what the tests of the tokenizer share: vectors, vocabularies, random text.
 *
 *   The vocabulary of the V4 release is too big for this repository. It is made from tokenizer.json
 *   ($DS4_TOKENIZER_JSON, else ../shared/data/tokenizer/tokenizer.json.xz) by tools/vocab_gguf.py
 *   and kept as build/tests/v4-tokenizer.gguf. Without it the tests that need it are skipped.
 *
 *   Errors   Anything unexpected fails the running test. */
#ifndef DS4_TESTS_TOKENIZER_DATA_H
#define DS4_TESTS_TOKENIZER_DATA_H

#include "base/json.h"
#include "text/id_list.h"
#include "text/vocab.h"

#define NANO_MODEL "models/nano/ds4-nano.gguf"

/* The vocabulary of a GGUF file; NULL if there is no such file. */
vocab *vocab_of_file(const char *path);
/* The vocabulary of the release. Skips the running test if it cannot be had. */
vocab *v4_vocab(void);

/* A vocabulary of 256 bytes (id = byte), the tokens that the merges make in their order, and the
 * markers. merges: [n] "left right" in the byte alphabet. Ids: 256 + merge, then the markers; the
 * first two of those, which must be there, are bos and eos. */
vocab *small_vocab(const char *const *merges, size_t n_merges, const char *const *markers,
                   size_t n_markers);

/* A file with one JSON object in each line. */
typedef struct {
    char *data;
    size_t n, at;
    size_t line; /* of the object in doc, from 1 */
    bool is_whole;
    json_doc doc;
} jsonl;

/* tests/data/tokenizer/<name> */
void jsonl_open(jsonl *f, const char *name);
/* Any path; the whole file as one object. */
void jsonl_open_whole(jsonl *f, const char *path);
/* Parses the next line into f->doc; at the end releases everything and returns false. */
bool jsonl_next(jsonl *f);
/* The string member, or the array of ids. */
strview jsonl_text(const jsonl *f, const char *key);
void jsonl_ids(const jsonl *f, const char *key, id_list *ids);
/* Replaces ids by the items of an array. */
void ids_of_json(id_list *ids, const json_node *array);

/* A sequence of numbers that depends on nothing but the seed. */
uint64_t next_random(uint64_t *state);
/* Appends about n bytes: arbitrary ones, or Unicode text with many changes of class. */
void random_bytes(strbuf *out, uint64_t *state, size_t n);
void random_unicode(strbuf *out, uint64_t *state, size_t n);

#endif
