/* chat_read.c - the members of a conversation, and how values are refused.
 *
 * Members that are null count as absent, as clients send them. */
#include "text/chat_private.h"

#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

/* ---- values ---------------------------------------------------------------------------------- */

/* A string in quotes, its start if it is long, on one line; of other values the type. */
static void describe(char *out, size_t n_out, const json_node *found) {
    enum { MAX_SHOWN = 40 };
    if (!found || found->type != JSON_STRING) {
        snprintf(out, n_out, "%s", json_type_name(found));
        return;
    }
    strview text = found->text;
    bool is_long = text.n > MAX_SHOWN;
    if (is_long) text.n = utf8_complete_prefix(text.data, MAX_SHOWN);
    strbuf shown = {0};
    json_write_string(&shown, text);
    snprintf(out, n_out, "%s%s", shown.data ? shown.data : "a string", is_long ? "..." : "");
    strbuf_release(&shown);
}

ds4_status chat_refuse(chat_place at, const char *member, const json_node *found,
                       const char *expected, ds4_error *err) {
    char shown[300], item[16] = "";
    describe(shown, sizeof shown, found);
    if (!at.list)
        return ds4_fail(err, DS4_EINVAL, "%s: found %s, expected %s", member, shown, expected);
    snprintf(item, sizeof item, "[%u]", at.index);
    return ds4_fail(err, DS4_EINVAL, "%s%s%s%s: found %s, expected %s", at.list, item,
                    member ? "." : "", member ? member : "", shown, expected);
}

bool chat_is_absent(const json_node *node) {
    return !node || node->type == JSON_NULL;
}

ds4_status chat_text(strview *out, chat_place at, const char *member, const json_node *found,
                     ds4_error *err) {
    *out = (strview){"", 0};
    if (chat_is_absent(found)) return DS4_OK;
    if (found->type != JSON_STRING) return chat_refuse(at, member, found, "a string", err);
    *out = found->text;
    return DS4_OK;
}

ds4_status chat_flag(bool *out, chat_place at, const char *member, const json_node *found,
                     ds4_error *err) {
    if (chat_is_absent(found)) return DS4_OK;
    if (found->type != JSON_TRUE && found->type != JSON_FALSE)
        return chat_refuse(at, member, found, "true or false", err);
    *out = found->type == JSON_TRUE;
    return DS4_OK;
}

ds4_status chat_list(const json_node **out, chat_place at, const char *member,
                     const json_node *found, ds4_error *err) {
    *out = NULL;
    if (chat_is_absent(found)) return DS4_OK;
    if (found->type != JSON_ARRAY) return chat_refuse(at, member, found, "an array", err);
    if (found->n_items) *out = found;
    return DS4_OK;
}

/* ---- the conversation ------------------------------------------------------------------------ */

static const chat_place TOP = {NULL, 0};

static bool is_text(const json_node *node, const char *text) {
    return node->type == JSON_STRING && strview_equal(node->text, (strview){text, strlen(text)});
}

static ds4_status read_revision(chat_talk *t, const json_node *found, ds4_error *err) {
    if (chat_is_absent(found)) return DS4_OK;
    if (is_text(found, "preview"))
        t->revision = CHAT_PREVIEW;
    else if (is_text(found, "0731"))
        t->revision = CHAT_0731;
    else
        return chat_refuse(TOP, "revision", found, "preview or 0731", err);
    return DS4_OK;
}

static ds4_status read_mode(chat_talk *t, const json_node *found, ds4_error *err) {
    t->is_thinking = !chat_is_absent(found) && is_text(found, "thinking");
    if (!t->is_thinking && !chat_is_absent(found) && !is_text(found, "chat"))
        return chat_refuse(TOP, "thinking_mode", found, "thinking or chat", err);
    return DS4_OK;
}

/* An effort is checked in chat mode too, where it writes nothing. */
static ds4_status read_effort(chat_talk *t, const json_node *found, ds4_error *err) {
    static const struct {
        const char *name, *preview, *v0731; /* NULL: unknown; "": known, and no text */
    } efforts[] = {
        {"low", NULL, ""},
        {"high", "", chat_effort_absolute},
        {"max", chat_effort_absolute, chat_effort_beyond},
    };
    if (chat_is_absent(found)) return DS4_OK;
    for (size_t i = 0; i < sizeof efforts / sizeof *efforts; i++) {
        const char *text = t->revision == CHAT_0731 ? efforts[i].v0731 : efforts[i].preview;
        if (!text || !is_text(found, efforts[i].name)) continue;
        t->effort_text = text;
        return DS4_OK;
    }
    return chat_refuse(TOP, "reasoning_effort", found,
                       t->revision == CHAT_0731 ? "low, high or max"
                                                : "high or max (revision preview of the model)",
                       err);
}

/* "tools_text", the client's own text, goes before "tools". */
static ds4_status read_tools(chat_talk *t, const json_node *conversation, ds4_error *err) {
    const json_node *text = json_get(conversation, "tools_text");
    if (chat_is_absent(text))
        return chat_list(&t->tools, TOP, "tools", json_get(conversation, "tools"), err);
    if (text->type != JSON_STRING) return chat_refuse(TOP, "tools_text", text, "a string", err);
    ds4_status status = json_parse(&t->tools_doc, text->text.data, text->text.n, "tools_text", err);
    if (status == DS4_EFORMAT && err) err->code = DS4_EINVAL;
    if (status != DS4_OK) return status == DS4_EFORMAT ? DS4_EINVAL : status;
    return chat_list(&t->tools, TOP, "tools_text", t->tools_doc.root, err);
}

ds4_status chat_read(chat_talk *t, const json_node *conversation, chat_revision revision,
                     ds4_error *err) {
    if (!conversation || conversation->type != JSON_OBJECT)
        return chat_refuse(TOP, "conversation", conversation, "an object", err);
    t->revision = revision;
    t->is_dropping = true;
    t->has_bos = true;
    t->messages = json_get(conversation, "messages");
    if (!t->messages || t->messages->type != JSON_ARRAY)
        return chat_refuse(TOP, "messages", t->messages, "an array", err);
    DS4_TRY(chat_list(&t->context, TOP, "context", json_get(conversation, "context"), err));
    DS4_TRY(read_revision(t, json_get(conversation, "revision"), err));
    DS4_TRY(read_mode(t, json_get(conversation, "thinking_mode"), err));
    DS4_TRY(read_effort(t, json_get(conversation, "reasoning_effort"), err));
    DS4_TRY(chat_flag(&t->is_dropping, TOP, "drop_thinking",
                      json_get(conversation, "drop_thinking"), err));
    DS4_TRY(chat_flag(&t->has_bos, TOP, "add_default_bos_token",
                      json_get(conversation, "add_default_bos_token"), err));
    return read_tools(t, conversation, err);
}

void chat_talk_release(chat_talk *t) {
    arena_release(&t->memory);
    json_release(&t->tools_doc);
    *t = (chat_talk){0};
}
