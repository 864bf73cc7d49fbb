/* model_path.h - where the bundled nano model is.
 *
 *   Looked for beside the program, in the source tree around a build folder (DIR/.., DIR/../.. +
 *   models/nano), in share/ds4 next to the program's bin folder, and in the share folder that the
 *   program was installed with (DS4_SHARE_DIR).
 *
 *   Errors   DS4_EIO listing the places. */
#ifndef DS4_APP_MODEL_PATH_H
#define DS4_APP_MODEL_PATH_H

#include "base/status.h"

ds4_status model_path_find(char *path, size_t n_path, ds4_error *err);

#endif
