/* chat.h - a conversation as the exact text that the model was trained to read (docs/prompt.md).
 *
 *   messages --merge--> turns --sort results--> --drop old reasoning--> --write--> prompt
 *
 *   A prompt is one text in which the frame's own markers are known by place. So text from users,
 *   files and tools never becomes a marker token, whatever it contains, while its neighbouring runs
 *   still form one span for BPE:
 *
 *     text     <｜begin▁of▁sentence｜>Be brief.<｜User｜>What is <｜User｜>?<｜Assistant｜></think>
 *     markers  ^^^^^^^^^^^^^^^^^^^^^         ^^^^^^^^                 ^^^^^^^^^^^^^^^^^^^^^
 *
 *   Owner    The caller stores the prompt (zeroed = empty) and releases it.
 *   Threads  One at a time for each prompt.
 *   Errors   DS4_EINVAL naming message and member ("messages[3].content: found array, expected a
 *            string") for everything that the model's own encoder refuses and for members of a
 *            wrong type; out is as before. DS4_ENOMEM.
 *   Time     Linear in the conversation, but for sorting tool results and members by name. */
#ifndef DS4_TEXT_CHAT_H
#define DS4_TEXT_CHAT_H

#include "base/json.h"
#include "text/bpe.h"

/* Which texts stand for a reasoning effort: a property of the weights. */
typedef enum { CHAT_PREVIEW, CHAT_0731 } chat_revision;

typedef struct {
    size_t at, n_bytes; /* text[at .. at + n_bytes) is a marker of the frame */
} chat_marker;

typedef struct {
    strbuf       text;
    chat_marker *markers; /* [n_markers], ascending, disjoint */
    size_t       n_markers, markers_cap;
    bool         is_failed; /* memory ran out */
} chat_prompt;

/* Writes `conversation` (an object, members as told at ds4_render and in tests/data/encoding) into
 * the empty prompt. `revision` holds unless the conversation has a member "revision". Nothing beyond
 * the encoder's own rules happens here: no roles are changed, no messages joined with newlines. */
ds4_status chat_render(chat_prompt *out, const json_node *conversation, chat_revision revision,
                       ds4_error *err);
void chat_prompt_release(chat_prompt *p);

/* Appends the prompt's ids: markers by place, everything else as plain text. DS4_EUNSUPPORTED if the
 * vocabulary lacks a marker. */
ds4_status chat_encode(id_list *ids, const chat_prompt *p, bpe *b, const vocab *v, ds4_error *err);

/* The revision that a model file shows signs of: "0731" in its name or version, dspark keys or
 * tensors, or the words of that revision in an embedded template; else CHAT_PREVIEW. */
chat_revision chat_revision_of(const gguf *file);

#endif
