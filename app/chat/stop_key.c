#include "app/chat/stop_key.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>

static _Atomic(ds4_engine *) armed_engine; /* whose step SIGINT cancels; NULL: none */
static atomic_bool           is_pressed;

static void on_sigint(int signal_number) {
    (void)signal_number;
    int saved = errno;
    atomic_store(&is_pressed, true);
    ds4_engine *engine = atomic_load(&armed_engine);
    if (engine) ds4_engine_cancel(engine);
    errno = saved;
}

void stop_key_install(void) {
    /* Without SA_RESTART: a line that is being read ends with EINTR. */
    struct sigaction action = {.sa_handler = on_sigint};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

void stop_key_arm(ds4_engine *engine) {
    atomic_store(&is_pressed, false);
    atomic_store(&armed_engine, engine);
}

void stop_key_disarm(void) {
    atomic_store(&armed_engine, NULL);
}

bool stop_key_pressed(void) {
    return atomic_load(&is_pressed);
}
