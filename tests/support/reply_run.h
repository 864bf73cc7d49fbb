/* reply_run.h - reads texts with ds4_reply, cut in every way, for the tests of it; needs cmocka.
 *
 *   Markup of calls as macros, so that a test shows its text as the model writes it:
 *
 *       OPEN INVOKE("f") STRING("key") "value" END INVOKED CLOSE */
#ifndef DS4_TESTS_REPLY_RUN_H
#define DS4_TESTS_REPLY_RUN_H

#include "tests/support/reply_log.h"
#include "text/markers.h"

#define D            MARKER_DSML
#define OPEN         "<" D "tool_calls>\n"
#define CLOSE        "</" D "tool_calls>"
#define INVOKE(name) "<" D "invoke name=\"" name "\">\n"
#define INVOKED      "</" D "invoke>\n"
#define PARAM(key)   "<" D "parameter name=\"" key "\">"
#define STRING(key)  "<" D "parameter name=\"" key "\" string=\"true\">"
#define JSON(key)    "<" D "parameter name=\"" key "\" string=\"false\">"
#define END          "</" D "parameter>\n"
#define ROME         INVOKE("get_weather") STRING("city") "Rome" END INVOKED
#define ROME_CALL    "get_weather {\"city\": \"Rome\"};"
#define BLOCK        OPEN ROME CLOSE

/* The same block in other spellings: of the opening, the marker, the end. */
#define SPELT(m, block)                                                                            \
    "<" m block ">\n<" m "invoke name=\"get_weather\">\n<" m                                       \
    "parameter name=\"city\" string=\"true\">Rome</" m "parameter>\n</" m "invoke>\n</" m block    \
    ">"

/* What is known of the tools: nothing, a list with get_weather and f, that there are none. */
enum { TOOLS_UNKNOWN, TOOLS_LISTED, TOOLS_NONE, N_TOOLS };

ds4_reply_options reply_options_for(bool is_thinking, int tools);

/* One reply by hand: each of these fails the test if the library does. */
ds4_reply *reply_start(reply_log *log, const ds4_reply_options *options);
void reply_give(ds4_reply *reply, const char *text, size_t n);
/* Finishes and destroys it; the log's rules must have held. */
void reply_end(ds4_reply *reply, const reply_log *log, bool is_cut);

/* A whole text, in pieces of n_piece bytes, the first one of n_first. */
void reply_read_pieces(reply_log *log, const ds4_reply_options *options, strview text,
                       size_t n_first, size_t n_piece, bool is_cut);
void reply_read_whole(reply_log *log, const ds4_reply_options *options, strview text, bool is_cut);
/* Two pieces cut anywhere and small pieces give the same events as the whole text. */
void reply_check_splits(const char *name, const ds4_reply_options *options, strview text,
                        bool is_cut);

/* Never NULL inside. */
strview reply_view(const strbuf *b);
void reply_expect_text(const char *name, const char *what, strview found, const char *expected);
/* Calls as "name arguments;" one after the other. */
void reply_expect_message(const char *name, const message *m, const char *reasoning,
                          const char *content, const char *calls);
/* The events of a text in chat mode, with tools listed and unknown, cut anywhere. */
void reply_expect_events(const char *text, bool is_cut, const char *expected);

#endif
