/* interrupt.h - Ctrl-C ends the work of an engine between two layers, not the program.
 *
 *   The first SIGINT (or SIGTERM) cancels the step; a second one ends the program at once, as if this
 *   module were not there.
 *
 *   Owner    The engine must outlive its interrupt_end.
 *   Threads  One engine at a time. The engine's address is the program's only mutable global: a signal
 *            handler has no other way to reach it. */
#ifndef DS4_APP_INTERRUPT_H
#define DS4_APP_INTERRUPT_H

#include <ds4.h>

void interrupt_begin(ds4_engine *engine);
/* True if a signal came since interrupt_begin. */
bool interrupt_seen(void);
/* Back to the handlers that were there before. */
void interrupt_end(void);

#endif
