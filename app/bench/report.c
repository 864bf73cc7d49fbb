/* report.c - header lines "# name: value" and rows; or one JSON object. */
#include "app/bench/report.h"

#include <string.h>

#include "app/io.h"

static double rate(uint32_t n, double seconds) {
    return n && seconds > 0 ? n / seconds : 0;
}

/* ",tokens,seconds,rate"; the last two are empty for what was not measured. */
static void put_cells(strbuf *out, uint32_t n, double seconds) {
    strbuf_printf(out, ",%u", n);
    if (n) strbuf_printf(out, ",%.6f,%.2f", seconds, rate(n, seconds));
    else strbuf_puts(out, ",,");
}

void report_write_csv(strbuf *out, const report *r) {
    const ds4_model_info *m = r->model;
    strbuf_printf(out, "# cpu: %s, %ld processors\n", r->machine.cpu, r->machine.n_cpus);
    strbuf_printf(out, "# system: %s\n", r->machine.system);
    strbuf_printf(out, "# ds4: %s; %s\n", ds4_version(), ds4_build_info());
    strbuf_printf(out, "# model: %s, %llu parameters, %s\n", m->name, (unsigned long long)m->n_params,
                  r->model_path);
    strbuf_printf(out, "# device: %s, kernels %s, %u threads, numerics %s, steps of %u rows\n",
                  m->device, m->kernels, m->n_threads, r->numerics, r->n_chunk);
    strbuf_printf(out, "# memory: %llu bytes planned, %llu of them the file\n",
                  (unsigned long long)r->memory.total, (unsigned long long)r->memory.file);
    strbuf_printf(out, "# median of %u; seconds and tokens per second\n", r->n_repeats);
    strbuf_puts(out, "context,prefill_tokens,prefill_s,prefill_tps,decode_tokens,decode_s,decode_tps\n");
    for (size_t i = 0; i < r->n_points; i++) {
        const measure_point *p = &r->points[i];
        strbuf_printf(out, "%u", p->n_context);
        put_cells(out, p->n_prefill, p->prefill_s);
        put_cells(out, p->n_decode, p->decode_s);
        strbuf_putc(out, '\n');
    }
}

static void put_text(strbuf *out, const char *name, const char *text, const char *behind) {
    io_json_key(out, name);
    io_json_text(out, text, strlen(text));
    strbuf_puts(out, behind);
}

static void put_count(strbuf *out, const char *name, uint64_t v, const char *behind) {
    io_json_key(out, name);
    strbuf_printf(out, "%llu%s", (unsigned long long)v, behind);
}

/* A number, or null for what was not measured. */
static void put_measured(strbuf *out, const char *name, uint32_t n, double v, const char *behind) {
    io_json_key(out, name);
    if (n) io_json_number(out, v);
    else strbuf_puts(out, "null");
    strbuf_puts(out, behind);
}

static void put_point(strbuf *out, const measure_point *p) {
    strbuf_putc(out, '{');
    put_count(out, "context", p->n_context, ", ");
    put_count(out, "prefill_tokens", p->n_prefill, ", ");
    put_measured(out, "prefill_s", p->n_prefill, p->prefill_s, ", ");
    put_measured(out, "prefill_tps", p->n_prefill, rate(p->n_prefill, p->prefill_s), ", ");
    put_count(out, "decode_tokens", p->n_decode, ", ");
    put_measured(out, "decode_s", p->n_decode, p->decode_s, ", ");
    put_measured(out, "decode_tps", p->n_decode, rate(p->n_decode, p->decode_s), "}");
}

void report_write_json(strbuf *out, const report *r) {
    const ds4_model_info *m = r->model;
    strbuf_puts(out, "{\"machine\": {");
    put_text(out, "cpu", r->machine.cpu, ", ");
    put_count(out, "n_cpus", (uint64_t)r->machine.n_cpus, ", ");
    put_text(out, "system", r->machine.system, "}, ");
    put_text(out, "version", ds4_version(), ", ");
    put_text(out, "build", ds4_build_info(), ", ");
    put_text(out, "model", m->name, ", ");
    put_text(out, "path", r->model_path, ", ");
    put_count(out, "n_params", m->n_params, ", ");
    put_text(out, "device", m->device, ", ");
    put_text(out, "kernels", m->kernels, ", ");
    put_count(out, "threads", m->n_threads, ", ");
    put_text(out, "numerics", r->numerics, ", ");
    put_count(out, "step_rows", r->n_chunk, ", ");
    put_count(out, "memory_bytes", r->memory.total, ", ");
    put_count(out, "repeats", r->n_repeats, ", \"results\": [");
    for (size_t i = 0; i < r->n_points; i++) {
        if (i) strbuf_puts(out, ", ");
        put_point(out, &r->points[i]);
    }
    strbuf_puts(out, "]}\n");
}
