/* chat_turns.c - messages become turns.
 *
 *   merge   neighbouring user texts and tool results are one user turn, in either order
 *   sort    results stand in the order of the calls they answer
 *   drop    thinking before the last user turn is forgotten, and developer turns with it */
#include "text/chat_private.h"

#include <stdlib.h>
#include <string.h>

/* ---- merge ----------------------------------------------------------------------------------- */

static chat_role role_of(const json_node *role) {
    static const struct {
        const char *name;
        chat_role role;
    } roles[] = {
        {"system", ROLE_SYSTEM}, {"developer", ROLE_DEVELOPER},      {"user", ROLE_USER},
        {"tool", ROLE_TOOL},     {"latest_reminder", ROLE_REMINDER}, {"assistant", ROLE_ASSISTANT},
    };
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strview_equal(role->text, (strview){roles[i].name, strlen(roles[i].name)}))
            return roles[i].role;
    return ROLE_OTHER;
}

static const json_node *task_of(const json_node *message) {
    const json_node *task = json_get(message, "task");
    return chat_is_absent(task) ? NULL : task;
}

/* The turn of any message but a user's or a tool's. */
static ds4_status add_plain_turn(chat_talk *t, chat_turn turn, ds4_error *err) {
    turn.tools_at = turn.at;
    turn.task = task_of(turn.message);
    DS4_TRY(chat_list(&turn.tools, turn.at, "tools", json_get(turn.message, "tools"), err));
    t->turns[t->n_turns++] = turn;
    return DS4_OK;
}

/* `block` is its place: the blocks of a turn stand one after the other. */
static ds4_status add_block(chat_talk *t, chat_turn turn, size_t first, chat_block *block,
                            ds4_error *err) {
    *block = (chat_block){.at = turn.at,
                          .content = json_get(turn.message, "content"),
                          .is_result = turn.role == ROLE_TOOL};
    if (block->is_result)
        DS4_TRY(chat_text(&block->call_id, turn.at, "tool_call_id",
                          json_get(turn.message, "tool_call_id"), err));

    chat_turn *last = t->n_turns > first ? &t->turns[t->n_turns - 1] : NULL;
    bool is_joined = last && last->role == ROLE_USER;
    /* A task ends its turn; only a result may still follow. */
    if (is_joined && !block->is_result) is_joined = !last->task;
    if (!is_joined) {
        last = &t->turns[t->n_turns++];
        *last = turn;
        last->role = ROLE_USER;
        last->task = task_of(turn.message);
        last->blocks = block;
    }
    last->n_blocks++;
    return DS4_OK;
}

static ds4_status merge(chat_talk *t, const json_node *messages, const char *list, ds4_error *err) {
    if (!messages) return DS4_OK;
    const size_t first = t->n_turns; /* a context and what follows it are not merged */
    chat_block *blocks = arena_array(&t->memory, messages->n_items, sizeof *blocks);
    if (!blocks) return ds4_fail_nomem(err, list, messages->n_items * sizeof *blocks);
    chat_turn turn = {.at = {list, 0}};
    for (turn.message = messages->first; turn.message;
         turn.message = turn.message->next, turn.at.index++) {
        if (turn.message->type != JSON_OBJECT)
            return chat_refuse(turn.at, NULL, turn.message, "an object", err);
        const json_node *role = json_get(turn.message, "role");
        if (!role || role->type != JSON_STRING)
            return chat_refuse(turn.at, "role", role, "a string", err);
        turn.role = role_of(role);
        if (turn.role == ROLE_USER || turn.role == ROLE_TOOL)
            DS4_TRY(add_block(t, turn, first, blocks++, err));
        else
            DS4_TRY(add_plain_turn(t, turn, err));
    }
    return DS4_OK;
}

/* The request's tools belong to the first message, or to an empty system message in front of it. */
static void attach_tools(chat_talk *t) {
    static const json_node empty = {.type = JSON_OBJECT};
    chat_turn *first = t->turns;
    if (t->n_turns == 0 || (first->role != ROLE_SYSTEM && first->role != ROLE_DEVELOPER)) {
        memmove(first + 1, first, t->n_turns * sizeof *first);
        *first = (chat_turn){.at = {"messages", 0}, .role = ROLE_SYSTEM, .message = &empty};
        t->n_turns++;
        if (t->context) t->first_new++;
    }
    first->tools = t->tools;
    first->tools_at = (chat_place){0};
}

/* ---- sort ------------------------------------------------------------------------------------ */

/* The calls of one assistant turn, by id; of equal ids the last one counts. */
typedef struct {
    strview id;
    uint32_t index;
} placed_call;

typedef struct {
    placed_call *calls;
    size_t n; /* those without an id are left out */
} call_order;

typedef struct {
    chat_block block;
    uint32_t order, at;
} placed_result;

static int compare_text(strview a, strview b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n ? memcmp(a.data, b.data, n) : 0;
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

static int compare_calls(const void *a, const void *b) {
    const placed_call *x = a, *y = b;
    int order = compare_text(x->id, y->id);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

static int compare_results(const void *a, const void *b) {
    const placed_result *x = a, *y = b;
    if (x->order != y->order) return x->order < y->order ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

static ds4_status read_order(chat_talk *t, call_order *order, const chat_turn *turn,
                             ds4_error *err) {
    const json_node *list;
    DS4_TRY(chat_list(&list, turn->at, "tool_calls", json_get(turn->message, "tool_calls"), err));
    if (!list) return DS4_OK; /* the order of earlier calls holds on */
    placed_call *calls = arena_array(&t->memory, list->n_items, sizeof *calls);
    if (!calls) return ds4_fail_nomem(err, "tool_calls", list->n_items * sizeof *calls);
    *order = (call_order){.calls = calls};
    uint32_t index = 0;
    for (const json_node *call = list->first; call; call = call->next, index++) {
        if (call->type != JSON_OBJECT)
            return chat_refuse(turn->at, "tool_calls", call, "an array of objects", err);
        strview id;
        DS4_TRY(chat_text(&id, turn->at, "tool_calls: id", json_get(call, "id"), err));
        if (id.n) calls[order->n++] = (placed_call){id, index};
    }
    qsort(calls, order->n, sizeof *calls, compare_calls);
    return DS4_OK;
}

/* The index of the call; 0 if there is none of that id. */
static uint32_t place_of(const call_order *order, strview id) {
    size_t lo = 0, hi = order->n; /* before lo: ids <= id; from hi on: greater ones */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (compare_text(order->calls[mid].id, id) <= 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    bool is_found = lo > 0 && strview_equal(order->calls[lo - 1].id, id);
    return is_found ? order->calls[lo - 1].index : 0;
}

/* Texts keep their places; results are sorted among theirs. */
static ds4_status sort_results(chat_talk *t, chat_turn *turn, const call_order *order,
                               ds4_error *err) {
    if (order->n == 0 || turn->n_blocks < 2) return DS4_OK;
    placed_result *results = arena_array(&t->memory, turn->n_blocks, sizeof *results);
    if (!results) return ds4_fail_nomem(err, "tool results", turn->n_blocks * sizeof *results);
    size_t n = 0;
    for (uint32_t i = 0; i < turn->n_blocks; i++)
        if (turn->blocks[i].is_result)
            results[n++] =
                (placed_result){turn->blocks[i], place_of(order, turn->blocks[i].call_id), i};
    qsort(results, n, sizeof *results, compare_results);
    n = 0;
    for (uint32_t i = 0; i < turn->n_blocks; i++)
        if (turn->blocks[i].is_result) turn->blocks[i] = results[n++].block;
    return DS4_OK;
}

static ds4_status sort_all_results(chat_talk *t, ds4_error *err) {
    call_order order = {0};
    for (size_t i = 0; i < t->n_turns; i++) {
        chat_turn *turn = &t->turns[i];
        if (turn->role == ROLE_ASSISTANT)
            DS4_TRY(read_order(t, &order, turn, err));
        else if (turn->role == ROLE_USER)
            DS4_TRY(sort_results(t, turn, &order, err));
    }
    return DS4_OK;
}

/* ---- drop ------------------------------------------------------------------------------------ */

static ptrdiff_t find_last_user(const chat_turn *turns, size_t n) {
    while (n > 0 && turns[n - 1].role != ROLE_USER && turns[n - 1].role != ROLE_DEVELOPER) n--;
    return (ptrdiff_t)n - 1;
}

static bool is_kept(const chat_turn *turn, size_t i, ptrdiff_t last_user) {
    if ((ptrdiff_t)i >= last_user) return true;
    return turn->role != ROLE_DEVELOPER && turn->role != ROLE_OTHER;
}

/* What the context keeps is judged by its own last user turn, since that is how it was rendered. */
static void drop_turns(chat_talk *t) {
    const size_t n_context = t->first_new;
    const ptrdiff_t context_user = find_last_user(t->turns, n_context);
    const ptrdiff_t last_user = find_last_user(t->turns, t->n_turns);
    size_t n_kept = 0, n_context_kept = 0;
    for (size_t i = 0; i < t->n_turns; i++) {
        if (i < n_context && is_kept(&t->turns[i], i, context_user)) n_context_kept++;
        if (is_kept(&t->turns[i], i, last_user)) t->turns[n_kept++] = t->turns[i];
    }
    t->n_turns = n_kept;
    t->first_new = n_context_kept;
}

ds4_status chat_make_turns(chat_talk *t, ds4_error *err) {
    size_t n_room = (size_t)t->messages->n_items + (t->context ? t->context->n_items : 0) + 1;
    t->turns = arena_array(&t->memory, n_room, sizeof *t->turns);
    if (!t->turns) return ds4_fail_nomem(err, "messages", n_room * sizeof *t->turns);

    DS4_TRY(merge(t, t->context, "context", err));
    t->first_new = t->n_turns;
    DS4_TRY(merge(t, t->messages, "messages", err));
    if (t->tools) attach_tools(t);
    DS4_TRY(sort_all_results(t, err));

    for (size_t i = 0; i < t->n_turns; i++)
        if (t->turns[i].tools) t->is_dropping = false;
    if (t->is_thinking && t->is_dropping) drop_turns(t);
    t->last_user = find_last_user(t->turns, t->n_turns);
    return DS4_OK;
}
