/* json.h - the only JSON of ds4: a parsed tree that keeps number text, and a writer.
 *
 *   Our own, because tool calls are replayed byte for byte and the packaged libraries lose number text.
 *
 *   Owner    A document owns its nodes and strings (an arena); views live until json_release.
 *   Threads  A document belongs to one thread at a time.
 *   Errors   DS4_EFORMAT with byte offset, found and expected. RFC 8259 exactly: valid UTF-8, no
 *            trailing commas, no comments, nothing but space after the value, depth at most 256
 *            (JSON_MAX_DEPTH). \u escapes of lone surrogates become U+FFFD. Memory stays below a
 *            small multiple of the input. */
#ifndef DS4_BASE_JSON_H
#define DS4_BASE_JSON_H

#include "base/arena.h"
#include "base/strbuf.h"

enum { JSON_MAX_DEPTH = 256 };

typedef enum {
    JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT,
} json_type;

typedef struct json_node json_node;
struct json_node {
    json_type  type;
    uint32_t   n_items; /* children of an array or object */
    strview    text;    /* string: decoded bytes (NUL allowed); number: its source text */
    strview    key;     /* of an object member: decoded */
    json_node *first;   /* first child, in source order, duplicates kept */
    json_node *next;    /* next sibling */
};

typedef struct {
    arena      memory;
    json_node *root;
} json_doc;

/* `what` names the input in messages ("request", a path). */
ds4_status json_parse(json_doc *doc, const char *data, size_t n, const char *what, ds4_error *err);
void json_release(json_doc *doc);

/* The LAST member of that name (as Python's parser decides duplicates); NULL if absent or no object. */
const json_node *json_get(const json_node *object, const char *key);
/* An object's members as Python's parser leaves them: of several with one name the last, at the place of
 * the first. (*members)[*n]: free() it; *n may be 0. False when memory runs out. */
bool json_take_members(const json_node *object, const json_node ***members, size_t *n);
/* True and *out for an integer number (optional '-', digits) that fits. */
bool json_int(const json_node *node, int64_t *out);
/* True and *out for any number. */
bool json_double(const json_node *node, double *out);
/* A name for messages: "object", "string", ... ; "nothing" for NULL. */
const char *json_type_name(const json_node *node);

/* ---- writing ---- */

/* Appends "text" with quotes; escapes only ", \ and U+0000..U+001F (\n \r \t \b \f, else \u00xx), as
 * Python's json.dumps(ensure_ascii=False). Text must be valid UTF-8. */
void json_write_string(strbuf *out, strview text);
/* Appends the node as Python's json.dumps(json.loads(text), ensure_ascii=False) prints it: ", " and
 * ": ", duplicate members resolved (last value, first position), integers exact, other numbers as
 * the shortest text that reads back (repr), Infinity for overflow. */
void json_write_python(strbuf *out, const json_node *node);
/* A finite double, shortest text that reads back; as Python's repr(float). */
void json_write_double(strbuf *out, double v);

#endif
