/* options_help.h - the manual page of a command, printed to stdout from its tables. */
#ifndef DS4_APP_OPTIONS_HELP_H
#define DS4_APP_OPTIONS_HELP_H

#include "app/options.h"

void options_help_print(const manual *page, const option_group *groups, size_t n_groups);

#endif
