/* report.h - the measurements as CSV or as JSON, with what they were measured on. */
#ifndef DS4_APP_BENCH_REPORT_H
#define DS4_APP_BENCH_REPORT_H

#include "app/bench/machine.h"
#include "app/bench/measure.h"
#include "base/strbuf.h"

typedef struct {
    machine              machine;
    const char          *model_path;
    const char          *numerics;
    const ds4_model_info *model;
    ds4_memory_plan      memory;
    uint32_t             n_repeats;
    uint32_t             n_chunk; /* rows of a step at most */
    const measure_point *points;  /* medians of the repeats */
    size_t               n_points;
} report;

void report_write_csv(strbuf *out, const report *r);
void report_write_json(strbuf *out, const report *r);

#endif
