/* chat_write.c - turns become text, in the order of docs/prompt.md, section 3, step 4. */
#include "text/chat_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- text and markers ------------------------------------------------------------------------ */

static void put_view(chat_prompt *out, strview text) {
    strbuf_view(&out->text, text);
}

static void put(chat_prompt *out, const char *text) {
    strbuf_puts(&out->text, text);
}

static void put_marker(chat_prompt *out, const char *marker) {
    if (out->n_markers == out->markers_cap) {
        size_t n_cap = out->markers_cap ? 2 * out->markers_cap : 64;
        chat_marker *markers = realloc(out->markers, n_cap * sizeof *markers);
        if (!markers) {
            out->is_failed = true;
            return;
        }
        out->markers = markers;
        out->markers_cap = n_cap;
    }
    out->markers[out->n_markers++] = (chat_marker){out->text.n, strlen(marker)};
    put(out, marker);
}

/* Our own text, in which some markers stand: those are marked. */
static void put_frame(chat_prompt *out, const char *text) {
    static const char *const markers[] = {MARKER_DSML, MARKER_THINK_OPEN, MARKER_THINK_CLOSE};
    const char *run = text;
    while (*text) {
        const char *found = NULL;
        for (size_t i = 0; i < sizeof markers / sizeof *markers; i++)
            if (strncmp(text, markers[i], strlen(markers[i])) == 0) found = markers[i];
        if (!found) {
            text++;
            continue;
        }
        strbuf_append(&out->text, run, (size_t)(text - run));
        put_marker(out, found);
        run = text += strlen(found);
    }
    put(out, run);
}

/* A string member; nothing if it is absent or null. */
static ds4_status put_member(chat_prompt *out, const chat_turn *turn, const char *member,
                             ds4_error *err) {
    strview text;
    DS4_TRY(chat_text(&text, turn->at, member, json_get(turn->message, member), err));
    put_view(out, text);
    return DS4_OK;
}

/* ---- system and developer turns -------------------------------------------------------------- */

static ds4_status put_tools(chat_prompt *out, const chat_turn *turn, ds4_error *err) {
    if (!turn->tools) return DS4_OK;
    put_frame(out, "\n\n");
    put_frame(out, chat_tools_head);
    uint32_t index = 0;
    for (const json_node *tool = turn->tools->first; tool; tool = tool->next, index++) {
        const json_node *function = json_get(tool, "function");
        if (!function || function->type != JSON_OBJECT) {
            char member[48];
            snprintf(member, sizeof member, "tools[%u].function", index);
            return chat_refuse(turn->tools_at, member, function, "an object", err);
        }
        if (index) put(out, "\n");
        json_write_python(&out->text, function);
    }
    put_frame(out, chat_tools_tail);
    return DS4_OK;
}

static ds4_status put_format(chat_prompt *out, const chat_turn *turn, ds4_error *err) {
    const json_node *format = json_get(turn->message, "response_format");
    if (chat_is_absent(format)) return DS4_OK;
    if (format->type != JSON_OBJECT)
        return chat_refuse(turn->at, "response_format", format, "an object", err);
    if (format->n_items == 0) return DS4_OK;
    put(out, "\n\n");
    put_frame(out, chat_format_head);
    json_write_python(&out->text, format);
    return DS4_OK;
}

static ds4_status put_system(chat_prompt *out, const chat_turn *turn, ds4_error *err) {
    DS4_TRY(put_member(out, turn, "content", err));
    DS4_TRY(put_tools(out, turn, err));
    return put_format(out, turn, err);
}

static ds4_status put_developer(chat_prompt *out, const chat_turn *turn, ds4_error *err) {
    const json_node *content = json_get(turn->message, "content");
    if (chat_is_absent(content) || (content->type == JSON_STRING && content->text.n == 0))
        return chat_refuse(turn->at, "content", content, "text in a developer message", err);
    put_marker(out, MARKER_USER);
    return put_system(out, turn, err);
}

/* ---- user turns ------------------------------------------------------------------------------ */

/* A result in parts: the texts, and what stands for the rest. */
static ds4_status put_parts(chat_prompt *out, const chat_block *block, ds4_error *err) {
    for (const json_node *part = block->content->first; part; part = part->next) {
        const json_node *type = json_get(part, "type");
        if (!type || type->type != JSON_STRING)
            return chat_refuse(block->at, "content: type of a part", type, "a string", err);
        if (part != block->content->first) put(out, "\n\n");
        if (strview_equal(type->text, STRVIEW("text"))) {
            strview text;
            DS4_TRY(chat_text(&text, block->at, "content: text of a part", json_get(part, "text"),
                              err));
            put_view(out, text);
        } else {
            put(out, "[Unsupported ");
            put_view(out, type->text);
            put(out, "]");
        }
    }
    return DS4_OK;
}

static ds4_status put_result(chat_prompt *out, const chat_block *block, ds4_error *err) {
    const json_node *content = block->content;
    put(out, "<tool_result>");
    if (content && content->type == JSON_ARRAY) {
        DS4_TRY(put_parts(out, block, err));
    } else {
        if (!chat_is_absent(content) && content->type != JSON_STRING)
            return chat_refuse(block->at, "content", content, "a string or an array of parts", err);
        if (content) put_view(out, content->text);
    }
    put(out, "</tool_result>");
    return DS4_OK;
}

static ds4_status put_user(chat_prompt *out, const chat_turn *turn, ds4_error *err) {
    put_marker(out, MARKER_USER);
    for (uint32_t i = 0; i < turn->n_blocks; i++) {
        const chat_block *block = &turn->blocks[i];
        strview text = {"", 0};
        if (i) put(out, "\n\n");
        if (block->is_result)
            DS4_TRY(put_result(out, block, err));
        else
            DS4_TRY(chat_text(&text, block->at, "content", block->content, err));
        put_view(out, text);
    }
    return DS4_OK;
}

/* ---- assistant turns ------------------------------------------------------------------------- */

/* A string stands as it is; everything else as JSON. */
static void put_parameter(chat_prompt *out, strview key, const json_node *value) {
    const bool is_string = value->type == JSON_STRING;
    put_frame(out, "<" MARKER_DSML "parameter name=\"");
    put_view(out, key);
    put(out, is_string ? "\" string=\"true\">" : "\" string=\"false\">");
    if (is_string)
        put_view(out, value->text);
    else
        json_write_python(&out->text, value);
    put_frame(out, "</" MARKER_DSML "parameter>");
}

static ds4_status put_object(chat_prompt *out, const json_node *arguments, ds4_error *err) {
    const json_node **members;
    size_t n;
    if (!json_take_members(arguments, &members, &n))
        return ds4_fail_nomem(err, "arguments", arguments->n_items * sizeof *members);
    for (size_t i = 0; i < n; i++) {
        if (i) put(out, "\n");
        put_parameter(out, members[i]->key, members[i]);
    }
    free(members);
    return DS4_OK;
}

/* Text that is no JSON, and arguments that are no text, become one parameter of that name. */
static ds4_status put_arguments(chat_prompt *out, const json_node *arguments, chat_place at,
                                const char *member, ds4_error *err) {
    const strview key = STRVIEW("arguments");
    if (!arguments) return chat_refuse(at, member, arguments, "JSON text", err);
    if (arguments->type != JSON_STRING) {
        put_parameter(out, key, arguments);
        return DS4_OK;
    }
    json_doc doc = {0};
    ds4_status status = json_parse(&doc, arguments->text.data, arguments->text.n, member, NULL);
    if (status == DS4_ENOMEM) return ds4_fail_nomem(err, member, arguments->text.n);
    if (status != DS4_OK) {
        put_parameter(out, key, arguments);
        return DS4_OK;
    }
    if (doc.root->type == JSON_OBJECT)
        status = put_object(out, doc.root, err);
    else
        status = chat_refuse(at, member, doc.root, "the text of a JSON object", err);
    json_release(&doc);
    return status;
}

static ds4_status put_call(chat_prompt *out, const json_node *call, const chat_turn *turn,
                           uint32_t index, ds4_error *err) {
    char member[64];
    const json_node *function = json_get(call, "function"), *name = json_get(function, "name");
    snprintf(member, sizeof member, "tool_calls[%u].function", index);
    if (!function || function->type != JSON_OBJECT)
        return chat_refuse(turn->at, member, function, "an object", err);
    snprintf(member, sizeof member, "tool_calls[%u].function.name", index);
    if (!name || name->type != JSON_STRING)
        return chat_refuse(turn->at, member, name, "a string", err);

    put_frame(out, "<" MARKER_DSML "invoke name=\"");
    put_view(out, name->text);
    put(out, "\">\n");
    snprintf(member, sizeof member, "tool_calls[%u].function.arguments", index);
    DS4_TRY(put_arguments(out, json_get(function, "arguments"), turn->at, member, err));
    put_frame(out, "\n</" MARKER_DSML "invoke>");
    return DS4_OK;
}

static ds4_status put_calls(chat_prompt *out, const chat_turn *turn, ds4_error *err) {
    const json_node *list;
    DS4_TRY(chat_list(&list, turn->at, "tool_calls", json_get(turn->message, "tool_calls"), err));
    if (!list) return DS4_OK;
    put_frame(out, "\n\n<" MARKER_DSML "tool_calls>");
    uint32_t index = 0;
    for (const json_node *call = list->first; call; call = call->next, index++) {
        put(out, "\n");
        DS4_TRY(put_call(out, call, turn, index, err));
    }
    put_frame(out, "\n</" MARKER_DSML "tool_calls>");
    return DS4_OK;
}

/* The opening of the thinking was written by the turn before. The output of a task has none. */
static ds4_status put_reasoning(chat_prompt *out, const chat_talk *t, size_t i, ds4_error *err) {
    bool is_task_output = i > 0 && t->turns[i - 1].task;
    bool is_left_out = t->is_dropping && (ptrdiff_t)i <= t->last_user;
    if (!t->is_thinking || is_task_output || is_left_out) return DS4_OK;
    DS4_TRY(put_member(out, &t->turns[i], "reasoning_content", err));
    put_marker(out, MARKER_THINK_CLOSE);
    return DS4_OK;
}

static ds4_status put_assistant(chat_prompt *out, const chat_talk *t, size_t i, ds4_error *err) {
    const chat_turn *turn = &t->turns[i];
    bool is_open = false;
    DS4_TRY(put_reasoning(out, t, i, err));
    DS4_TRY(put_member(out, turn, "content", err));
    DS4_TRY(put_calls(out, turn, err));
    DS4_TRY(chat_flag(&is_open, turn->at, "wo_eos", json_get(turn->message, "wo_eos"), err));
    if (!is_open) put_marker(out, MARKER_EOS);
    return DS4_OK;
}

/* ---- turns ----------------------------------------------------------------------------------- */

static ds4_status put_body(chat_prompt *out, const chat_talk *t, size_t i, ds4_error *err) {
    const chat_turn *turn = &t->turns[i];
    switch (turn->role) {
    case ROLE_SYSTEM: return put_system(out, turn, err);
    case ROLE_DEVELOPER: return put_developer(out, turn, err);
    case ROLE_USER:
    case ROLE_TOOL: return put_user(out, turn, err);
    case ROLE_REMINDER:
        put_marker(out, MARKER_REMINDER);
        return put_member(out, turn, "content", err);
    case ROLE_ASSISTANT: return put_assistant(out, t, i, err);
    case ROLE_OTHER: break;
    }
    return chat_refuse(turn->at, "role", json_get(turn->message, "role"),
                       "system, developer, user, tool, assistant or latest_reminder", err);
}

static void put_header(chat_prompt *out, bool is_thinking) {
    put_marker(out, MARKER_ASSISTANT);
    put_marker(out, is_thinking ? MARKER_THINK_OPEN : MARKER_THINK_CLOSE);
}

static ds4_status put_task(chat_prompt *out, const chat_talk *t, const chat_turn *turn,
                           ds4_error *err) {
    static const struct {
        const char *name, *marker;
        bool has_header;
    } tasks[] = {
        {"action", MARKER_ACTION, true},        {"query", MARKER_QUERY, false},
        {"authority", MARKER_AUTHORITY, false}, {"domain", MARKER_DOMAIN, false},
        {"title", MARKER_TITLE, false},         {"read_url", MARKER_READ_URL, false},
    };
    strview name;
    DS4_TRY(chat_text(&name, turn->at, "task", turn->task, err));
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) {
        if (!strview_equal(name, (strview){tasks[i].name, strlen(tasks[i].name)})) continue;
        if (tasks[i].has_header) put_header(out, t->is_thinking);
        put_marker(out, tasks[i].marker);
        return DS4_OK;
    }
    return chat_refuse(turn->at, "task", turn->task,
                       "action, query, authority, domain, title or read_url", err);
}

/* What stands between a turn and the answer to it. */
static ds4_status put_transition(chat_prompt *out, const chat_talk *t, size_t i, ds4_error *err) {
    const chat_turn *turn = &t->turns[i];
    if (i + 1 < t->n_turns) {
        chat_role next = t->turns[i + 1].role;
        if (next != ROLE_ASSISTANT && next != ROLE_REMINDER) return DS4_OK;
    }
    if (turn->task) return put_task(out, t, turn, err);
    if (turn->role == ROLE_USER || turn->role == ROLE_DEVELOPER)
        put_header(out, t->is_thinking && (!t->is_dropping || (ptrdiff_t)i >= t->last_user));
    return DS4_OK;
}

ds4_status chat_write(chat_prompt *out, const chat_talk *t, ds4_error *err) {
    if (t->has_bos && !t->context) put_marker(out, MARKER_BOS);
    for (size_t i = t->first_new; i < t->n_turns; i++) {
        if (i == 0 && t->is_thinking && t->effort_text) put_frame(out, t->effort_text);
        DS4_TRY(put_body(out, t, i, err));
        DS4_TRY(put_transition(out, t, i, err));
    }
    out->is_failed |= out->text.is_failed;
    return out->is_failed ? ds4_fail_nomem(err, "prompt", out->text.n) : DS4_OK;
}
