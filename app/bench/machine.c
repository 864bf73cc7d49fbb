/* machine.c - /proc/cpuinfo on Linux, sysctl on macOS, uname everywhere. */
#include "app/bench/machine.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

#ifndef __APPLE__
/* The value of the first line "name ... : value" of /proc/cpuinfo; empty if there is none. */
static void read_cpuinfo(char *out, size_t n_out, const char *name) {
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "r");
    out[0] = '\0';
    while (file && !out[0] && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, name, strlen(name)) != 0) continue;
        colon[1 + strcspn(colon + 1, "\n")] = '\0';
        snprintf(out, n_out, "%s", colon + 1 + strspn(colon + 1, " \t"));
    }
    if (file) fclose(file);
}
#endif

static void read_cpu(char *out, size_t n_out, const char *architecture) {
    out[0] = '\0';
#ifdef __APPLE__
    size_t n = n_out;
    if (sysctlbyname("machdep.cpu.brand_string", out, &n, NULL, 0) != 0) out[0] = '\0';
#else
    read_cpuinfo(out, n_out, "model name");
    if (!out[0]) read_cpuinfo(out, n_out, "Model"); /* ARM boards */
#endif
    if (!out[0]) snprintf(out, n_out, "%s", architecture);
}

void machine_read(machine *m) {
    struct utsname name;
    memset(m, 0, sizeof *m);
    memset(&name, 0, sizeof name);
    uname(&name);
    snprintf(m->system, sizeof m->system, "%.50s %.50s %.50s", name.sysname, name.release, name.machine);
    read_cpu(m->cpu, sizeof m->cpu, name.machine);
    m->n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
}
