/* lints.h - what is odd about a model file.
 *
 *   error    the file will not load, or not run right
 *   warning  it runs, but probably not as its maker meant
 *   note     worth knowing
 *
 *   Owner    The caller stores the list; nothing to release. */
#ifndef DS4_APP_INSPECT_LINTS_H
#define DS4_APP_INSPECT_LINTS_H

#include "app/inspect/classes.h"
#include "model/config.h"

enum { LINTS_MAX = 128, LINT_BYTES = 320 };

typedef enum { LINT_ERROR, LINT_WARNING, LINT_NOTE } lint_level;

typedef struct {
    lint_level level;
    char       text[LINT_BYTES]; /* one line, valid UTF-8 */
} lint;

typedef struct {
    lint   items[LINTS_MAX];
    size_t n;
    size_t n_left_out;
} lint_list;

const char *lint_level_name(lint_level level);
void lint_add(lint_list *list, lint_level level, const char *fmt, ...) DS4_PRINTF(3, 4);

/* config: NULL when the shape could not be read; then only names, types and keys are looked at. */
void lints_make(lint_list *list, const gguf *g, const class_list *classes, const config *c);

#endif
