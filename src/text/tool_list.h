/* tool_list.h - the tools that a request declares: names, and what their schemas say of strings.
 *
 *   [{"type": "function",
 *     "function": {"name": ..., "parameters": {"properties": {KEY: schema, ...}}}}, ...]
 *
 *   An item may also be the inner object itself. Items without a name are no functions and do not
 *   count.
 *
 *   Owner    The caller stores the list (zeroed = empty) and releases it; nodes live as long as it.
 *   Threads  Any number may read.
 *   Errors   DS4_EINVAL if the text is not a JSON array; the list is as before. DS4_ENOMEM. */
#ifndef DS4_TEXT_TOOL_LIST_H
#define DS4_TEXT_TOOL_LIST_H

#include "base/json.h"

typedef struct {
    json_doc doc; /* root: the array */
} tool_list;

ds4_status tool_list_read(tool_list *list, const char *json, size_t n, ds4_error *err);
void tool_list_release(tool_list *list);
/* True for "[]". */
bool tool_list_is_empty(const tool_list *list);
/* The object that has the tool's name and parameters; NULL if no such tool is declared. */
const json_node *tool_list_find(const tool_list *list, strview name);
/* True if by its schema the parameter `key` is never a string. False in doubt and for no tool. */
bool tool_excludes_string(const json_node *tool, strview key);

#endif
