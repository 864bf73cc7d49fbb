/* stop_key.h - Ctrl-C in a chat stops the answer, and never the program, however often it is pressed.
 *
 *   That is what sets it apart from app/interrupt.h, where the second signal ends the program and the
 *   handlers live only as long as one piece of work. A signal handler gets no argument, so what it
 *   needs stands in two variables of stop_key.c; the program has one chat, on its main thread.
 *
 *   Threads  The main thread calls; the handler may run on any thread. */
#ifndef DS4_CHAT_STOP_KEY_H
#define DS4_CHAT_STOP_KEY_H

#include <ds4.h>

/* From now on SIGINT no longer ends the program. */
void stop_key_install(void);
/* From here to stop_key_disarm SIGINT cancels the engine's step. Forgets what was pressed before. */
void stop_key_arm(ds4_engine *engine);
void stop_key_disarm(void);
/* True if SIGINT came since stop_key_arm. */
bool stop_key_pressed(void);

#endif
