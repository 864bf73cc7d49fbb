/* markers.h - the texts of the model's markers, as string literals (docs/prompt.md, section 1). */
#ifndef DS4_TEXT_MARKERS_H
#define DS4_TEXT_MARKERS_H

#define MARKER_BOS         "<｜begin▁of▁sentence｜>"
#define MARKER_EOS         "<｜end▁of▁sentence｜>"
#define MARKER_USER        "<｜User｜>"
#define MARKER_ASSISTANT   "<｜Assistant｜>"
#define MARKER_THINK_OPEN  "<think>"
#define MARKER_THINK_CLOSE "</think>"
#define MARKER_DSML        "｜DSML｜"
#define MARKER_REMINDER    "<｜latest_reminder｜>"

/* one-shot side tasks */
#define MARKER_ACTION    "<｜action｜>"
#define MARKER_QUERY     "<｜query｜>"
#define MARKER_AUTHORITY "<｜authority｜>"
#define MARKER_DOMAIN    "<｜domain｜>"
#define MARKER_TITLE     "<｜title｜>"
#define MARKER_READ_URL  "<｜read_url｜>"

#endif
