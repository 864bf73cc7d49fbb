/* vocab.h - the tokens of a model: bytes, types, merges and markers, read from GGUF metadata.
 *
 *   id     0 ................................................................ n_tokens - 1
 *   type   normal   a BPE token; its text in the file is in the byte alphabet of GPT-2, one
 *                   character per byte (33-126, 161-172 and 174-255 stand for themselves, the
 *                   other 68 bytes in order are U+0100 ...); stored here as those bytes
 *          control  an added token that is "special": left out of text without special tokens
 *          user     an added token that is not special
 *          unused   a hole in the numbering; has a text, is never made from text
 *
 *   Added tokens (control, user) are plain text in the file; they are the *markers*. They are found
 *   in one pass: the leftmost, at one place the longest. The model's own tokenizer makes two (first
 *   the tokens with normalized = false, then the others), but GGUF does not carry that flag, and
 *   converters disagree on control and user. One pass is the same for this vocabulary: no marker
 *   contains another, and the only two that can overlap are one of the first pass at the left and
 *   one of the second at the right. test_vocab checks that on the real list.
 *
 *   Owner    vocab_load creates, vocab_destroy destroys; nothing of the GGUF is kept. Views live as
 *            long as the vocab. Source arrays are borrowed for the call.
 *   Threads  Read-only after creation: any thread.
 *   Errors   DS4_EFORMAT naming key, id or merge number for anything that contradicts itself: wrong
 *            counts, duplicate tokens or merges, merges of unknown tokens, missing single bytes,
 *            text outside the alphabet. DS4_EUNSUPPORTED for another kind of tokenizer. Time and
 *            memory are linear in the metadata. */
#ifndef DS4_TEXT_VOCAB_H
#define DS4_TEXT_VOCAB_H

#include "base/strbuf.h"
#include "format/gguf.h"

typedef struct vocab vocab;

/* The numbers are those of `tokenizer.ggml.token_type`. */
typedef enum {
    VOCAB_NORMAL = 1,
    VOCAB_CONTROL = 3,
    VOCAB_USER = 4,
    VOCAB_UNUSED = 5,
} vocab_type;

enum {
    VOCAB_MARKER_MAX_BYTES = 256, /* bounds the work of the marker search at one place */
    VOCAB_MAX_MERGES = (1 << 24) - 1,
};

/* What a vocabulary is made of, as the file has it. */
typedef struct {
    const strview *tokens; /* [n_tokens] */
    const int32_t *types;  /* [n_tokens] */
    size_t n_tokens;
    const strview *merges; /* [n_merges] "left right" in rank order */
    size_t n_merges;
    int32_t bos, eos; /* -1: found by the model's own names for them */
} vocab_source;

/* Reads the keys `tokenizer.ggml.*`. The splitting rules are those of pretoken.h: `pre` must be
 * `joyai-llm`, `deepseek-v3` or missing; with any other name the tokens must be those of the V4
 * release. `add_bos_token` and the like are ignored: a rendered prompt carries its own BOS. */
ds4_status vocab_load(vocab **out, const gguf *g, ds4_error *err);
ds4_status vocab_create(vocab **out, const vocab_source *source, ds4_error *err);
void vocab_destroy(vocab *v);

size_t vocab_n_tokens(const vocab *v);
/* The type of `id`; VOCAB_UNUSED for a number that is no id. */
vocab_type vocab_token_type(const vocab *v, int32_t id);
/* The bytes `id` stands for, perhaps not whole UTF-8; markers give their text. Empty for a number
 * that is no id. */
strview vocab_token_bytes(const vocab *v, int32_t id);
int32_t vocab_bos(const vocab *v);
int32_t vocab_eos(const vocab *v);

/* Appends the bytes of ids[0..n), unsanitised (detok.h makes valid UTF-8 of a stream). DS4_EINVAL
 * for a number that is no id; nothing is appended then. */
ds4_status vocab_decode_bytes(const vocab *v, strbuf *out, const int32_t *ids, size_t n,
                              ds4_error *err);

/* ---- looking up; -1 if there is none ---- */

/* The normal token that stands for exactly these bytes. */
int32_t vocab_find_normal(const vocab *v, strview bytes);
/* The marker with exactly this text. */
int32_t vocab_find_marker(const vocab *v, strview text);

/* Finds the first marker at or behind `from`: true, its place, length and id; else false. */
typedef struct {
    size_t at;
    size_t n_bytes;
    int32_t id;
} vocab_match;
bool vocab_next_marker(const vocab *v, strview text, size_t from, vocab_match *match);

/* ---- for BPE ---- */

#define VOCAB_NO_MERGE UINT32_MAX

/* The token of a single byte; always there. */
int32_t vocab_byte_id(const vocab *v, uint8_t byte);
/* The rank of merging `left` and `right`, lower first; VOCAB_NO_MERGE if they do not merge. */
uint32_t vocab_merge_rank(const vocab *v, int32_t left, int32_t right);
/* The token that merge makes; `rank` is one that vocab_merge_rank gave. */
int32_t vocab_merge_result(const vocab *v, uint32_t rank);

#endif
