/* interrupt.c - the signal handler and the pointer it needs. */
#include "app/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

static _Atomic(ds4_engine *) interrupt_engine;
static atomic_bool interrupt_came;
static struct sigaction interrupt_old_int, interrupt_old_term;

static void on_signal(int number) {
    (void)number;
    ds4_engine *engine = atomic_load(&interrupt_engine);
    atomic_store(&interrupt_came, true);
    if (engine) ds4_engine_cancel(engine);
}

void interrupt_begin(ds4_engine *engine) {
    atomic_store(&interrupt_came, false);
    atomic_store(&interrupt_engine, engine);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = (int)SA_RESETHAND | SA_RESTART; /* the second signal finds the default */
    sigaction(SIGINT, &action, &interrupt_old_int);
    sigaction(SIGTERM, &action, &interrupt_old_term);
}

bool interrupt_seen(void) {
    return atomic_load(&interrupt_came);
}

void interrupt_end(void) {
    sigaction(SIGINT, &interrupt_old_int, NULL);
    sigaction(SIGTERM, &interrupt_old_term, NULL);
    atomic_store(&interrupt_engine, NULL);
}
