/* record.c - collecting tokens and writing them as JSON. */
#include "app/run/record.h"

#include <string.h>

/* {"id": 5, "logprob": -0.1, "top": [[5, -0.1], [9, -2.5]]} */
static void add_logprobs(strbuf *out, const ds4_token *token) {
    if (out->n) strbuf_puts(out, ", ");
    strbuf_printf(out, "{\"id\": %d, \"logprob\": ", token->id);
    io_json_number(out, (double)token->logprob);
    strbuf_puts(out, ", \"top\": [");
    for (uint32_t i = 0; i < token->n_top; i++) {
        strbuf_printf(out, "%s[%d, ", i ? ", " : "", token->top[i].id);
        io_json_number(out, (double)token->top[i].logprob);
        strbuf_putc(out, ']');
    }
    strbuf_puts(out, "]}");
}

void record_add(record *r, const ds4_token *token, bool has_logprobs) {
    strbuf_append(&r->text, token->text, token->n_text);
    if (has_logprobs) add_logprobs(&r->logprobs, token);
    bool is_ok = id_list_add(&r->generated, token->id) && id_list_add(&r->drafts, token->draft);
    if (!is_ok || r->text.is_failed || r->logprobs.is_failed) r->is_failed = true;
}

void record_release(record *r) {
    id_list_release(&r->generated);
    id_list_release(&r->drafts);
    strbuf_release(&r->text);
    strbuf_release(&r->logprobs);
    *r = (record){0};
}

double record_rate(uint64_t n_tokens, double seconds) {
    return seconds > 0 ? (double)n_tokens / seconds : 0;
}

static void write_number(strbuf *out, const char *name, double v, const char *behind) {
    io_json_key(out, name);
    io_json_number(out, v);
    strbuf_puts(out, behind);
}

static void write_timings(strbuf *out, const record_frame *f) {
    const ds4_session_stats *s = &f->stats;
    io_json_key(out, "timings");
    strbuf_putc(out, '{');
    write_number(out, "load_s", f->load_s, ", ");
    strbuf_printf(out, "\"prompt_tokens\": %llu, ", (unsigned long long)s->n_prompt);
    write_number(out, "prompt_s", s->prompt_s, ", ");
    write_number(out, "prompt_tokens_per_s", record_rate(s->n_prompt, s->prompt_s), ", ");
    write_number(out, "first_token_s", f->first_token_s, ", ");
    strbuf_printf(out, "\"generated_tokens\": %llu, ", (unsigned long long)s->n_generated);
    write_number(out, "generate_s", s->generate_s, ", ");
    write_number(out, "generate_tokens_per_s", record_rate(s->n_generated, s->generate_s), "}");
}

ds4_status record_write_json(strbuf *out, const record *r, const record_frame *f, ds4_error *err) {
    strbuf_putc(out, '{');
    io_json_key(out, "prompt_ids");
    id_list_write(out, f->prompt_ids, f->n_prompt);
    strbuf_puts(out, ", ");
    io_json_key(out, "generated_ids");
    id_list_write(out, r->generated.data, r->generated.n);
    strbuf_puts(out, ", ");
    io_json_key(out, "text");
    io_json_text(out, r->text.data, r->text.n);
    strbuf_puts(out, ", ");
    io_json_key(out, "finish_reason");
    io_json_text(out, f->finish_reason, strlen(f->finish_reason));
    strbuf_printf(out, ", \"seed\": %llu, ", (unsigned long long)f->seed);
    write_timings(out, f);
    if (f->has_logprobs) {
        strbuf_puts(out, ", ");
        io_json_key(out, "logprobs");
        strbuf_putc(out, '[');
        strbuf_append(out, r->logprobs.data, r->logprobs.n);
        strbuf_putc(out, ']');
    }
    if (f->has_drafts) {
        strbuf_puts(out, ", ");
        io_json_key(out, "drafts");
        id_list_write(out, r->drafts.data, r->drafts.n);
    }
    strbuf_puts(out, "}\n");
    return strbuf_check(out, "answer", err);
}
