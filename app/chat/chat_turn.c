/* chat_turn.c - one message and its answer: render, reuse what the cache holds, generate, show. */
#include "app/chat/chat.h"

#include <stdio.h>
#include <string.h>

#include "app/chat/stop_key.h"
#include "app/clock.h"
#include "app/io.h"

/* ---- the prompt ---- */

/* The session becomes exactly ids[0..n); the common prefix is kept. */
static ds4_status replace_tokens(ds4_session *session, const int32_t *ids, size_t n, ds4_error *err) {
    size_t n_old, n_same = 0;
    const int32_t *old = ds4_session_tokens(session, &n_old);
    while (n_same < n_old && n_same < n && old[n_same] == ids[n_same]) n_same++;
    if (n_same < n_old) DS4_TRY(ds4_session_rewind(session, n_same, err));
    return n_same < n ? ds4_session_append(session, ids + n_same, n - n_same, err) : DS4_OK;
}

/* Adds ids[0..n), the rendering of what is new, after the end marker of the last answer, which is
 * missing when that answer was cut short. */
static ds4_status extend_tokens(chat *c, const int32_t *ids, size_t n, ds4_error *err) {
    int32_t eos = ds4_engine_info(c->engine)->eos;
    size_t n_old;
    const int32_t *old = ds4_session_tokens(c->session, &n_old);
    if (n_old > 0 && old[n_old - 1] != eos) DS4_TRY(ds4_session_append(c->session, &eos, 1, err));
    return ds4_session_append(c->session, ids, n, err);
}

/* Brings the conversation, which ends with the user's message, into the session.
 *
 * In chat mode a conversation that goes on only gets longer, so the session keeps the answer in the
 * tokens the model chose, and only the new message is rendered. Otherwise everything is rendered
 * anew: in thinking mode the past itself changes, since earlier thinking is left out. */
static ds4_status prepare_session(chat *c, ds4_error *err) {
    bool is_extension = c->is_live && c->talk.effort == EFFORT_NONE && c->talk.n > 1;
    strbuf json = {0};
    int32_t *ids = NULL;
    size_t n_ids = 0;
    ds4_status status = conversation_write(&c->talk, &json, is_extension ? c->talk.n - 1 : 0, err);
    if (status == DS4_OK)
        status = ds4_render(c->engine, NULL, NULL, &ids, &n_ids, json.data, json.n, err);
    strbuf_release(&json);
    if (status != DS4_OK) return status;

    c->is_live = false;
    status = is_extension ? extend_tokens(c, ids, n_ids, err)
                          : replace_tokens(c->session, ids, n_ids, err);
    ds4_free(ids);
    return status;
}

/* ---- the answer ---- */

typedef struct {
    chat      *c;
    chat_message *answer; /* the conversation's last; nothing is added to it meanwhile */
    ds4_reply *reply;
    strbuf     arguments; /* of the call that is open */
    bool       has_call;  /* one is open */
    size_t     call_at;   /* where it starts in the message's calls */
    bool       has_dropped; /* a call that was begun is none */
    bool       is_in_thinking;
    double     start_s;
    double     first_s; /* of the first token; 0: none yet */
    double     last_s;
    size_t     n_generated;
    ds4_status status; /* of the reply parser */
    ds4_error *err;
} turn;

/* Thinking is dimmed; a screen without styles gets a line before and after it. */
static void show_thinking(turn *t, const char *text, size_t n) {
    term *screen = &t->c->screen;
    if (!screen->is_interactive) return;
    if (!t->is_in_thinking && !screen->has_style) term_text(screen, STYLE_PLAIN, "[thinking]\n", 11);
    t->is_in_thinking = true;
    term_text(screen, STYLE_DIM, text, n);
}

static void show_answer(turn *t, const char *text, size_t n) {
    term *screen = &t->c->screen;
    if (t->is_in_thinking) {
        term_end_line(screen);
        term_text(screen, STYLE_PLAIN, screen->has_style ? "\n" : "[answer]\n", screen->has_style ? 1 : 9);
    }
    t->is_in_thinking = false;
    term_text(screen, STYLE_PLAIN, text, n);
}

/* A call has been read: its arguments become one JSON text inside the message's "tool_calls". */
static void close_call(turn *t) {
    strbuf *calls = &t->answer->calls;
    io_json_text(calls, t->arguments.data, t->arguments.n);
    strbuf_puts(calls, "}}");
    strbuf_truncate(&t->arguments, 0);
    t->has_call = false;
}

/* It turned out to be none: its text, if it is wanted, follows as content. */
static void drop_call(turn *t) {
    strbuf_truncate(&t->answer->calls, t->call_at);
    strbuf_truncate(&t->arguments, 0);
    t->has_call = false;
    t->has_dropped = true;
}

static void open_call(turn *t, const char *name, size_t n) {
    strbuf *calls = &t->answer->calls;
    t->call_at = calls->n;
    if (calls->n) strbuf_puts(calls, ", ");
    strbuf_puts(calls, "{\"type\": \"function\", \"function\": {\"name\": ");
    io_json_text(calls, name, n);
    strbuf_puts(calls, ", \"arguments\": ");
    t->has_call = true;
}

static void on_reply(void *user, ds4_reply_kind kind, const char *text, size_t n) {
    turn *t = user;
    switch (kind) {
    case DS4_REPLY_REASONING:
        strbuf_append(&t->answer->reasoning, text, n);
        show_thinking(t, text, n);
        break;
    case DS4_REPLY_CONTENT:
        strbuf_append(&t->answer->content, text, n);
        show_answer(t, text, n);
        break;
    case DS4_REPLY_CALL:
        open_call(t, text, n);
        show_answer(t, "[calls ", 7);
        show_answer(t, text, n);
        show_answer(t, " ", 1);
        break;
    case DS4_REPLY_ARGUMENTS:
        strbuf_append(&t->arguments, text, n);
        show_answer(t, text, n);
        break;
    case DS4_REPLY_CALL_END:
        close_call(t);
        show_answer(t, "]\n", 2);
        break;
    case DS4_REPLY_CALL_DROPPED:
        drop_call(t);
        show_answer(t, " - no call]\n", 12);
        break;
    }
}

static bool on_token(void *user, const ds4_token *token) {
    turn *t = user;
    t->last_s = clock_s();
    if (t->n_generated++ == 0) {
        t->first_s = t->last_s;
        term_bar_end(&t->c->screen);
    }
    if (token->n_text) t->status = ds4_reply_feed(t->reply, token->text, token->n_text, t->err);
    term_flush(&t->c->screen);
    /* Nobody reads a closed pipe: stop there. */
    return t->status == DS4_OK && !stop_key_pressed() && !ferror(stdout);
}

static void on_progress(void *user, size_t n_done, size_t n_prompt) {
    turn *t = user;
    if (t->n_generated == 0) term_bar_draw(&t->c->screen, n_done, n_prompt);
}

/* Steps until the answer is complete or, by Ctrl-C, canceled. */
static ds4_status run_steps(chat *c, ds4_error *err) {
    ds4_status status = DS4_OK;
    bool has_work = true;
    while (status == DS4_OK && has_work && ds4_session_finish(c->session) == DS4_FINISH_NONE) {
        status = ds4_engine_step(c->engine, &has_work, err);
        /* A key pressed just after the last answer cancels a step of this one: try again. */
        if (status == DS4_ECANCELED && !stop_key_pressed()) status = DS4_OK;
    }
    if (ds4_session_finish(c->session) == DS4_FINISH_NONE) {
        size_t n_tokens;
        ds4_session_tokens(c->session, &n_tokens);
        ds4_session_rewind(c->session, n_tokens, NULL); /* ends the generation, keeps the tokens */
    }
    return status == DS4_ECANCELED ? DS4_OK : status;
}

static ds4_status generate(turn *t, ds4_error *err) {
    chat *c = t->c;
    ds4_generation generation = c->generation;
    generation.sampling.seed += c->n_answers;
    generation.on_token = on_token;
    generation.on_progress = on_progress;
    generation.user = t;
    ds4_reply_options options = {.is_thinking = c->talk.effort != EFFORT_NONE};
    DS4_TRY(ds4_reply_create(&t->reply, &options, on_reply, t, err));

    ds4_status status = ds4_session_start(c->session, &generation, err);
    if (status == DS4_OK) status = run_steps(c, err);
    term_bar_end(&c->screen);

    if (status == DS4_OK) status = t->status;
    ds4_finish finish = ds4_session_finish(c->session);
    bool is_cut = finish != DS4_FINISH_EOS && finish != DS4_FINISH_STOP;
    ds4_status finished = ds4_reply_finish(t->reply, is_cut, status == DS4_OK ? err : NULL);
    if (t->has_call) drop_call(t); /* the parser has failed */
    ds4_reply_destroy(t->reply);
    strbuf_release(&t->arguments);
    return status == DS4_OK ? finished : status;
}

/* Ends the line, and tells a person how the answer ended. */
static void tell_ending(chat *c, const turn *t) {
    bool is_stopped = c->last.finish == DS4_FINISH_CANCELED && stop_key_pressed();
    /* Behind a pipe even an empty answer is a line. */
    bool is_empty = t->n_generated > 0 && t->answer->content.n == 0 && t->answer->calls.n == 0;
    if (is_empty && !c->screen.is_interactive) term_text(&c->screen, STYLE_PLAIN, "\n", 1);
    term_end_line(&c->screen);
    if (is_stopped && c->last.n_generated == 0)
        term_note(&c->screen, "(stopped before the answer began; the message is taken back)");
    else if (is_stopped)
        term_note(&c->screen, "(stopped)");
    else if (c->last.finish == DS4_FINISH_LENGTH)
        term_note(&c->screen, "(the answer has reached its limit of tokens, or the context is full)");
}

static ds4_status take_turn(chat *c, const char *text, size_t n, ds4_error *err) {
    /* 1. the message */
    chat_message *question = conversation_add(&c->talk, true);
    if (!question) return ds4_fail_nomem(err, "message", n);
    strbuf_append(&question->content, text, n);
    ds4_status status = strbuf_check(&question->content, "message", err);
    if (status == DS4_OK) status = prepare_session(c, err);
    chat_message *answer = status == DS4_OK ? conversation_add(&c->talk, false) : NULL;
    if (!answer) {
        conversation_drop_last(&c->talk);
        return status != DS4_OK ? status : ds4_fail_nomem(err, "message", sizeof *answer);
    }

    /* 2. the answer */
    turn t = {.c = c, .answer = answer, .start_s = clock_s(), .err = err};
    c->last = (turn_record){.n_reused = ds4_session_n_evaluated(c->session)};
    ds4_session_tokens(c->session, &c->last.n_prompt);
    term_bar_begin(&c->screen, c->last.n_prompt - c->last.n_reused);
    status = generate(&t, err);

    /* 3. what is left of it */
    c->last.n_generated = t.n_generated;
    c->last.prompt_s = (t.n_generated ? t.first_s : clock_s()) - t.start_s;
    c->last.generate_s = t.last_s - t.first_s;
    c->last.finish = ds4_session_finish(c->session);
    c->n_answers++;
    tell_ending(c, &t);
    if (t.n_generated == 0) {
        conversation_drop_last(&c->talk);
        conversation_drop_last(&c->talk);
        return status;
    }
    /* A call that was dropped is in the session, but not in the conversation. */
    c->is_live = status == DS4_OK && c->talk.effort == EFFORT_NONE && !t.has_dropped;
    return status;
}

ds4_status chat_turn(chat *c, const char *text, size_t n, ds4_error *err) {
    /* From here on, since tokenising a long message takes time too. */
    stop_key_arm(c->engine);
    ds4_status status = take_turn(c, text, n, err);
    stop_key_disarm();
    return status;
}
