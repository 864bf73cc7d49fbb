/* version.c - ds4 version. */
#include <ds4.h>
#include <stdio.h>

#include "app/commands.h"
#include "app/options.h"

int version_main(int argc, char **argv) {
    static const manual page = {
        .name = "version",
        .summary = "version and build",
        .synopsis = "version",
        .description = "Prints two lines: the version, and what this build can do (devices, "
                       "instruction sets, compiler).",
        .examples = "ds4 version\nds4 version | head -n 1",
    };
    const option_group groups[] = {{.title = "OPTIONS"}};
    int status;
    if (!options_parse(&page, groups, 1, argc, argv, &status)) return status;
    printf("ds4 %s\n%s\n", ds4_version(), ds4_build_info());
    return APP_OK;
}
