/* Which devices this build has, best first. A backend adds one line here. */
#include <string.h>

#include "backend/backend.h"
#include "backend/cpu/cpu.h"

static const struct {
    const char *name;
    ds4_status (*open)(backend **out, const backend_options *options, ds4_error *err);
    uint64_t (*scratch_bytes)(const backend_options *options, const backend_plan *plan);
} devices[] = {
    {"cpu", cpu_backend_open, cpu_scratch_bytes},
};

enum { N_DEVICES = sizeof devices / sizeof *devices };

/* The first device if none is named; N_DEVICES if there is none of the name. */
static size_t device_index(const char *name) {
    size_t i = 0;
    while (name && i < N_DEVICES && strcmp(name, devices[i].name) != 0) i++;
    return i;
}

ds4_status backend_open(backend **out, const backend_options *options, ds4_error *err) {
    size_t i = device_index(options->device);
    if (i == N_DEVICES)
        return ds4_fail(err, DS4_EUNSUPPORTED, "device '%s': this build has only 'cpu'", options->device);
    return devices[i].open(out, options, err);
}

uint64_t backend_scratch_bytes(const backend_options *options, const backend_plan *plan) {
    size_t i = device_index(options->device);
    return i == N_DEVICES ? 0 : devices[i].scratch_bytes(options, plan);
}
