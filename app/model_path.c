/* model_path.c - the program's own place, and the folders around it. */
#include "app/model_path.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif

#ifndef DS4_SHARE_DIR
#define DS4_SHARE_DIR "/usr/local/share/ds4"
#endif

#define NANO "ds4-nano.gguf"

/* Relative to the folder of the program. */
static const char *const PLACES[] = {
    NANO,
    "models/nano/" NANO,
    "../models/nano/" NANO,
    "../../models/nano/" NANO,
    "../share/ds4/" NANO,
};

/* The folder that the running program is in; false if the system does not tell. */
static bool program_folder(char *folder, size_t n_folder) {
    char path[4096];
#ifdef __APPLE__
    char raw[4096];
    uint32_t n_raw = sizeof raw;
    if (_NSGetExecutablePath(raw, &n_raw) != 0) return false;
    char *real = realpath(raw, NULL);
    if (!real) return false;
    snprintf(path, sizeof path, "%s", real);
    free(real);
#else
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) return false;
    path[n] = '\0';
#endif
    char *slash = strrchr(path, '/');
    if (!slash) return false;
    *slash = '\0';
    return (size_t)snprintf(folder, n_folder, "%s", path) < n_folder;
}

ds4_status model_path_find(char *path, size_t n_path, ds4_error *err) {
    char folder[4096] = "", full[8300];
    if (program_folder(folder, sizeof folder))
        for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
            snprintf(full, sizeof full, "%s/%s", folder, PLACES[i]);
            if (strlen(full) < n_path && access(full, R_OK) == 0) {
                memcpy(path, full, strlen(full) + 1);
                return DS4_OK;
            }
        }
    if (sizeof DS4_SHARE_DIR "/" NANO <= n_path && access(DS4_SHARE_DIR "/" NANO, R_OK) == 0) {
        memcpy(path, DS4_SHARE_DIR "/" NANO, sizeof DS4_SHARE_DIR "/" NANO);
        return DS4_OK;
    }
    return ds4_fail(err, DS4_EIO,
                    "no model: give one with -m FILE (the bundled " NANO
                    " was looked for in and around %.200s and in " DS4_SHARE_DIR ")",
                    folder[0] ? folder : "the program's folder");
}
