/* stops.h - stop sequences in text that arrives in pieces.
 *
 *   Text goes in as it is decoded and comes out as soon as it cannot be the beginning of a stop
 *   sequence any more. The first sequence to be complete ends the text; of several that end at the
 *   same byte the longest counts; neither it nor anything behind it comes out.
 *
 *       sequences "</s>", "stop"      in   "a <"   "/b> st"    "op it"
 *                                     out  "a "    "</b> "     "", and true
 *
 *   How the text is cut into pieces makes no difference to what comes out. If whole characters go
 *   in, whole characters come out.
 *
 *   Owner    create/destroy; the sequences are copied.
 *   Threads  One at a time.
 *   Errors   start: DS4_ENOMEM; DS4_EINVAL for an empty or overlong sequence, one that is not
 *            UTF-8, or too many: the sequences before stay. Feeding allocates nothing but in `out`:
 *            less than the length of the longest sequence is held back. */
#ifndef DS4_RUNTIME_STOPS_H
#define DS4_RUNTIME_STOPS_H

#include "base/strbuf.h"

enum { STOPS_MAX = 64, STOPS_MAX_BYTES = 4096 };

typedef struct stops stops;

/* Without sequences: all text goes through. */
ds4_status stops_create(stops **out, ds4_error *err);
void stops_destroy(stops *s);
/* New sequences, nothing held. */
ds4_status stops_start(stops *s, const char *const *sequences, size_t n, ds4_error *err);
/* Takes text[0..n); appends to `out` (reserve n + STOPS_MAX_BYTES and nothing is allocated) what is
 * certain. True: a stop sequence is complete, everything after is ignored. */
bool stops_feed(stops *s, strbuf *out, const char *text, size_t n);
/* The text is over: what was held back comes out, unless a sequence was complete. */
void stops_finish(stops *s, strbuf *out);

#endif
