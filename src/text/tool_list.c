#include "text/tool_list.h"

ds4_status tool_list_read(tool_list *list, const char *json, size_t n, ds4_error *err) {
    json_doc doc = {0};
    ds4_status status = json_parse(&doc, json, n, "tools", err);
    if (status == DS4_EFORMAT && err) err->code = DS4_EINVAL;
    if (status != DS4_OK) return status == DS4_EFORMAT ? DS4_EINVAL : status;
    if (doc.root->type != JSON_ARRAY) {
        status = ds4_fail(err, DS4_EINVAL, "tools: found %s, expected an array",
                          json_type_name(doc.root));
        json_release(&doc);
        return status;
    }
    json_release(&list->doc);
    list->doc = doc;
    return DS4_OK;
}

void tool_list_release(tool_list *list) {
    json_release(&list->doc);
}

bool tool_list_is_empty(const tool_list *list) {
    return !list->doc.root || list->doc.root->n_items == 0;
}

const json_node *tool_list_find(const tool_list *list, strview name) {
    if (!list->doc.root) return NULL;
    for (const json_node *item = list->doc.root->first; item; item = item->next) {
        const json_node *function = json_get(item, "function");
        const json_node *tool = function ? function : item;
        const json_node *found = json_get(tool, "name");
        if (found && found->type == JSON_STRING && strview_equal(found->text, name)) return tool;
    }
    return NULL;
}

/* ---- schemas ---- */

static bool is_word(const json_node *node, strview word) {
    return node->type == JSON_STRING && strview_equal(node->text, word);
}

/* Of the values that an "enum" lists. */
static bool has_string(const json_node *values) {
    for (const json_node *value = values->first; value; value = value->next)
        if (value->type == JSON_STRING) return true;
    return false;
}

/* Of the types that a "type" lists. */
static bool names_string(const json_node *types) {
    for (const json_node *type = types->first; type; type = type->next)
        if (is_word(type, STRVIEW("string"))) return true;
    return false;
}

static bool schema_excludes_string(const json_node *schema);

static bool all_exclude_string(const json_node *schemas) {
    if (!schemas || schemas->type != JSON_ARRAY || !schemas->first) return false;
    for (const json_node *schema = schemas->first; schema; schema = schema->next)
        if (!schema_excludes_string(schema)) return false;
    return true;
}

/* Each member narrows what a value may be, so one that excludes strings is enough. The nesting is
 * bounded by what the JSON parser accepts. */
static bool schema_excludes_string(const json_node *schema) {
    const json_node *type = json_get(schema, "type"), *values = json_get(schema, "enum");
    const json_node *value = json_get(schema, "const"), *all_of = json_get(schema, "allOf");
    if (type && type->type == JSON_STRING && !is_word(type, STRVIEW("string"))) return true;
    if (type && type->type == JSON_ARRAY && !names_string(type)) return true;
    if (values && values->type == JSON_ARRAY && !has_string(values)) return true;
    if (value && value->type != JSON_STRING) return true;
    if (all_exclude_string(json_get(schema, "anyOf"))) return true;
    if (all_exclude_string(json_get(schema, "oneOf"))) return true;
    if (!all_of || all_of->type != JSON_ARRAY) return false;
    for (const json_node *part = all_of->first; part; part = part->next)
        if (schema_excludes_string(part)) return true;
    return false;
}

bool tool_excludes_string(const json_node *tool, strview key) {
    const json_node *parameters = tool ? json_get(tool, "parameters") : NULL;
    const json_node *properties = parameters ? json_get(parameters, "properties") : NULL;
    const json_node *schema = NULL;
    if (!properties || properties->type != JSON_OBJECT) return false;
    for (const json_node *member = properties->first; member; member = member->next)
        if (strview_equal(member->key, key)) schema = member; /* the last one counts */
    return schema && schema_excludes_string(schema);
}
