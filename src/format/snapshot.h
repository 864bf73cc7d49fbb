/* snapshot.h - the session file: named sections, each with its length and checksum.
 *
 *   file     "DS4SNAP\n" | u32 version | u32 0 | u64 fingerprint | u64 XXH64 of the 24 bytes before
 *            section... | end section (tag 0, 0 bytes), the end of the file
 *   section  u32 tag | u32 0 | u64 n_bytes | u64 XXH64 of the payload
 *            | u64 XXH64 of the 24 bytes before | payload, padded with zeros to 8 bytes
 *   All little-endian; the hashes have seed 0. `fingerprint` tells what the content belongs to;
 *   nothing else knows. A tag is up to four letters, the first one in the lowest byte.
 *
 *   Owner    create/destroy and open/close. Views into an open file live until close and are
 *            aligned to 8 bytes (open_memory: if the bytes given are).
 *   Threads  One at a time.
 *   Errors   DS4_EIO with path and reason; DS4_EFORMAT naming path, section, found and expected;
 *            DS4_EINVAL for calls out of order. A writer works on a new file path.tmp.<pid>, or
 *            path.tmp.<pid>.<n> if that one exists, readable by its owner alone; finish syncs it
 *            and renames: `path` is the old file or the whole new one. A reader checks every length
 *            and checksum at open, so that a damaged file is known before anything is changed. */
#ifndef DS4_FORMAT_SNAPSHOT_H
#define DS4_FORMAT_SNAPSHOT_H

#include "base/strbuf.h"

enum { SNAPSHOT_VERSION = 1 };

typedef struct snapshot_writer snapshot_writer;

ds4_status snapshot_writer_create(snapshot_writer **out, const char *path, uint64_t fingerprint,
                                  ds4_error *err);
/* Sections (tag not 0) may be written in pieces. Errors are kept and reported by finish. */
void snapshot_begin(snapshot_writer *w, uint32_t tag);
void snapshot_write(snapshot_writer *w, const void *data, size_t n);
void snapshot_end(snapshot_writer *w);
/* Syncs and renames; on failure the temporary file is gone. Destroys nothing. Once only. */
ds4_status snapshot_finish(snapshot_writer *w, ds4_error *err);
/* Without finish: the temporary file is removed. */
void snapshot_writer_destroy(snapshot_writer *w);

typedef struct snapshot snapshot;

/* expected_fingerprint: DS4_EFORMAT if the file has another. */
ds4_status snapshot_open(snapshot **out, const char *path, uint64_t expected_fingerprint,
                         ds4_error *err);
/* Same over bytes the caller keeps alive (fuzzing). */
ds4_status snapshot_open_memory(snapshot **out, const void *data, size_t n,
                                uint64_t expected_fingerprint, ds4_error *err);
void snapshot_close(snapshot *s);
/* The first section of that tag; false if there is none. */
bool snapshot_find(const snapshot *s, uint32_t tag, const uint8_t **data, size_t *n);

#endif
