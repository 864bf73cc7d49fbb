/* fixture.h - named arrays of an oracle model: tests/data/oracle/<model>/index.json and its *.bin.
 *
 *   index.json   {"config": {...}, "report": {...},
 *                 "tensors": [{"file", "name", "dtype": "f32" | "i32", "shape", "offset"}, ...]}
 *   *.bin        the values, little-endian, last dimension contiguous
 *
 *   Every array that is asked for is marked as taken, so that a test can tell at its end which of
 *   the recorded ones it has left out.
 *
 *   Owner    The caller stores the struct and releases it; arrays live until then.
 *   Errors   A file that cannot be read, or a name that is not there, fails the running test. */
#ifndef DS4_TESTS_FIXTURE_H
#define DS4_TESTS_FIXTURE_H

#include "base/json.h"
#include "base/mapfile.h"

enum { FIXTURE_MAX_DIMS = 3 };

typedef struct {
    const char *name;
    bool is_i32;
    bool is_taken;
    uint32_t n_dims;
    uint32_t shape[FIXTURE_MAX_DIMS];
    size_t n;         /* elements */
    const float *f32; /* one of the two is set */
    const int32_t *i32;
} fixture_array;

typedef struct {
    json_doc index;
    arena memory;
    fixture_array *arrays;
    size_t n_arrays;
} fixture;

void fixture_open(fixture *f, const char *folder);
void fixture_release(fixture *f);

/* The array of that printf-formatted name, marked as taken. */
const fixture_array *fixture_take(fixture *f, const char *fmt, ...) DS4_PRINTF(2, 3);
/* The same, NULL if there is none. */
const fixture_array *fixture_find(fixture *f, const char *fmt, ...) DS4_PRINTF(2, 3);
/* The first array with a name that begins with `prefix` and was never taken; NULL: none. */
const fixture_array *fixture_untaken(const fixture *f, const char *prefix);

#endif
