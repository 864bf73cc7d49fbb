/* machine.h - what a measurement ran on: processor, system, number of processors. */
#ifndef DS4_APP_BENCH_MACHINE_H
#define DS4_APP_BENCH_MACHINE_H

typedef struct {
    char cpu[160];    /* the maker's name of it, or the architecture */
    char system[160]; /* "Linux 6.1.0 x86_64" */
    long n_cpus;      /* online */
} machine;

void machine_read(machine *m);

#endif
