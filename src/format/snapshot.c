#include "format/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/mapfile.h"

enum {
    HEADER_BYTES = 32, /* of the file, and of a section */
    HASHED_BYTES = 24, /* of a header: all but its hash */
    ALIGNMENT = 8,
    BUFFER_BYTES = 1 << 16,
    WRITE_MAX = 1 << 30, /* some systems refuse more than 2 GiB in one call */
    MAX_TEMPORARY = 100, /* leftovers of broken-off processes of the same id, before we give up */
};

static const char MAGIC[8] = "DS4SNAP\n";
static const uint8_t ZEROS[HEADER_BYTES];

static void store(uint8_t *p, uint64_t v, unsigned n_bytes) {
    for (unsigned i = 0; i < n_bytes; i++) p[i] = (uint8_t)(v >> 8 * i);
}

/* Bytes of zeros behind a payload. */
static size_t padding_of(uint64_t n_bytes) {
    return (size_t)(-n_bytes & (ALIGNMENT - 1));
}

/* A tag for messages: its letters, or its number if they are none. */
typedef struct {
    char text[16];
} tag_name;

static tag_name name_of(uint32_t tag) {
    tag_name name = {{0}};
    for (unsigned i = 0; i < 4 && tag >> 8 * i; i++) {
        char c = (char)(tag >> 8 * i & 0xFF);
        if (c <= ' ' || c > '~') {
            snprintf(name.text, sizeof name.text, "0x%08" PRIx32, tag);
            break;
        }
        name.text[i] = c;
    }
    return name;
}

/* ---- writing --------------------------------------------------------------------------------- */

struct snapshot_writer {
    char         *path, *temporary; /* one allocation each */
    int           fd;               /* -1 once the file is closed: finished or given up */
    ds4_error     error;            /* the first one; nothing is written after it */
    bool          is_in_section;
    uint32_t      tag;
    uint64_t      header_at; /* of the section, in the file */
    uint64_t      n_payload;
    hash64_stream payload_hash;
    uint64_t      n_written; /* bytes of the file, those in the buffer not counted */
    size_t        n_buffer;
    uint8_t       buffer[BUFFER_BYTES];
};

static bool has_failed(const snapshot_writer *w) {
    return w->error.code != DS4_OK;
}

static void misuse(snapshot_writer *w, const char *what) {
    if (!has_failed(w)) ds4_fail(&w->error, DS4_EINVAL, "%s: snapshot: %s", w->path, what);
}

/* Writes at the offset, whatever it takes. */
static void write_at(snapshot_writer *w, const uint8_t *data, size_t n, uint64_t at) {
    while (n > 0 && !has_failed(w)) {
        ssize_t n_done = pwrite(w->fd, data, n < WRITE_MAX ? n : WRITE_MAX, (off_t)at);
        if (n_done < 0 && errno == EINTR) continue;
        if (n_done <= 0) {
            int reason = n_done < 0 ? errno : ENOSPC;
            ds4_fail(&w->error, DS4_EIO, "%s: cannot write %zu bytes at %" PRIu64 ": %s",
                     w->temporary, n, at, strerror(reason));
            return;
        }
        data += n_done;
        n -= (size_t)n_done;
        at += (size_t)n_done;
    }
}

static void flush(snapshot_writer *w) {
    write_at(w, w->buffer, w->n_buffer, w->n_written);
    w->n_written += w->n_buffer;
    w->n_buffer = 0;
}

/* Appends to the file. Big pieces, such as cache rows, go past the buffer. */
static void append(snapshot_writer *w, const void *data, size_t n) {
    if (n > BUFFER_BYTES - w->n_buffer) flush(w);
    if (n > BUFFER_BYTES) {
        write_at(w, data, n, w->n_written);
        w->n_written += n;
    } else if (n > 0) {
        memcpy(w->buffer + w->n_buffer, data, n);
        w->n_buffer += n;
    }
}

/* Creates a file that was not there, so that no other writer of this path, in whatever thread,
 * works on the same one. */
static ds4_status create_temporary(snapshot_writer *w, size_t cap, ds4_error *err) {
    for (int i = 0; i < MAX_TEMPORARY; i++) {
        int n = snprintf(w->temporary, cap, "%s.tmp.%ld", w->path, (long)getpid());
        if (i > 0) snprintf(w->temporary + n, cap - (size_t)n, ".%d", i);
        w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (w->fd >= 0) return DS4_OK;
        if (errno != EEXIST) break;
    }
    return ds4_fail(err, DS4_EIO, "%s: cannot create: %s", w->temporary, strerror(errno));
}

static void write_file_header(snapshot_writer *w, uint64_t fingerprint) {
    uint8_t header[HEADER_BYTES] = {0};
    memcpy(header, MAGIC, sizeof MAGIC);
    store(header + 8, SNAPSHOT_VERSION, 4);
    store(header + 16, fingerprint, 8);
    store(header + 24, hash64(header, HASHED_BYTES, 0), 8);
    append(w, header, sizeof header);
}

ds4_status snapshot_writer_create(snapshot_writer **out, const char *path, uint64_t fingerprint,
                                  ds4_error *err) {
    snapshot_writer *w = calloc(1, sizeof *w);
    if (!w) return ds4_fail_nomem(err, "snapshot", sizeof *w);
    size_t n_path = strlen(path), cap = n_path + 48; /* ".tmp.", a process id, a number */
    w->fd = -1;
    w->path = malloc(n_path + 1);
    w->temporary = malloc(cap);
    ds4_status status = DS4_OK;
    if (w->path && w->temporary) {
        memcpy(w->path, path, n_path + 1);
        status = create_temporary(w, cap, err);
    } else {
        status = ds4_fail_nomem(err, "snapshot", n_path + cap);
    }
    if (status != DS4_OK) {
        snapshot_writer_destroy(w);
        return status;
    }
    write_file_header(w, fingerprint);
    *out = w;
    return DS4_OK;
}

/* The header of a section is known at its end: zeros keep its place. */
void snapshot_begin(snapshot_writer *w, uint32_t tag) {
    if (w->fd < 0 || w->is_in_section || tag == 0)
        misuse(w, tag == 0 ? "a section without tag" : "a section begins out of order");
    if (has_failed(w)) return;
    w->is_in_section = true;
    w->tag = tag;
    w->header_at = w->n_written + w->n_buffer;
    w->n_payload = 0;
    hash64_init(&w->payload_hash, 0);
    append(w, ZEROS, HEADER_BYTES);
}

void snapshot_write(snapshot_writer *w, const void *data, size_t n) {
    if (!w->is_in_section) misuse(w, "data outside of a section");
    if (has_failed(w)) return;
    hash64_update(&w->payload_hash, data, n);
    w->n_payload += n;
    append(w, data, n);
}

static void make_section_header(uint8_t header[HEADER_BYTES], uint32_t tag, uint64_t n_bytes,
                                uint64_t payload_hash) {
    memset(header, 0, HEADER_BYTES);
    store(header, tag, 4);
    store(header + 8, n_bytes, 8);
    store(header + 16, payload_hash, 8);
    store(header + 24, hash64(header, HASHED_BYTES, 0), 8);
}

void snapshot_end(snapshot_writer *w) {
    if (!w->is_in_section) misuse(w, "the end of no section");
    if (has_failed(w)) return;
    w->is_in_section = false;
    uint8_t header[HEADER_BYTES];
    make_section_header(header, w->tag, w->n_payload, hash64_finish(&w->payload_hash));
    append(w, ZEROS, padding_of(w->n_payload));
    if (w->header_at >= w->n_written)
        memcpy(w->buffer + (w->header_at - w->n_written), header, sizeof header);
    else
        write_at(w, header, sizeof header, w->header_at);
}

/* Makes a rename in the directory of `path` last. The new file is whole and visible by then, and
 * some file systems cannot sync a directory, so that a refusal is no failure. */
static void sync_directory(const char *path) {
    const char *slash = strrchr(path, '/');
    size_t      n = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;
    char       *directory = slash ? strndup(path, n) : NULL;
    int         fd = open(directory ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!fsync(fd);
        close(fd);
    }
    free(directory);
}

/* Closes the temporary file and gives it its name. */
static void publish(snapshot_writer *w) {
    if (!has_failed(w) && fsync(w->fd) != 0)
        ds4_fail(&w->error, DS4_EIO, "%s: cannot sync: %s", w->temporary, strerror(errno));
    if (close(w->fd) != 0 && !has_failed(w))
        ds4_fail(&w->error, DS4_EIO, "%s: cannot close: %s", w->temporary, strerror(errno));
    w->fd = -1;
    if (!has_failed(w) && rename(w->temporary, w->path) != 0)
        ds4_fail(&w->error, DS4_EIO, "%s: cannot replace: %s", w->path, strerror(errno));
    if (has_failed(w)) unlink(w->temporary);
    else sync_directory(w->path);
}

ds4_status snapshot_finish(snapshot_writer *w, ds4_error *err) {
    if (w->fd < 0) return ds4_fail(err, DS4_EINVAL, "%s: snapshot: finished before", w->path);
    if (w->is_in_section) misuse(w, "a section has no end");
    if (!has_failed(w)) {
        uint8_t header[HEADER_BYTES];
        make_section_header(header, 0, 0, hash64(NULL, 0, 0));
        append(w, header, sizeof header);
        flush(w);
    }
    publish(w);
    if (has_failed(w)) return ds4_fail(err, w->error.code, "%s", w->error.message);
    return DS4_OK;
}

void snapshot_writer_destroy(snapshot_writer *w) {
    if (!w) return;
    if (w->fd >= 0) {
        close(w->fd);
        unlink(w->temporary);
    }
    free(w->temporary);
    free(w->path);
    free(w);
}

/* ---- reading --------------------------------------------------------------------------------- */

struct snapshot {
    mapfile      map; /* empty for open_memory */
    bytes_cursor sections; /* from the first section's header to the end, checked */
};

typedef struct {
    uint32_t       tag;
    uint64_t       n_bytes;
    const uint8_t *payload; /* [n_bytes] */
} section;

/* The next header, NULL if the data is too short; *is_sound tells whether its hash is right. */
static const uint8_t *take_header(bytes_cursor *c, bool *is_sound) {
    const uint8_t *header = bytes_take(c, HEADER_BYTES);
    if (!header) return NULL;
    bytes_cursor stored = bytes_from(header + HASHED_BYTES, 8);
    *is_sound = bytes_u64(&stored) == hash64(header, HASHED_BYTES, 0);
    return header;
}

static ds4_status check_file_header(bytes_cursor *c, const char *path,
                                    uint64_t expected_fingerprint, ds4_error *err) {
    if (c->n < sizeof MAGIC || memcmp(c->data, MAGIC, sizeof MAGIC) != 0)
        return ds4_fail(err, DS4_EFORMAT, "%s: not a saved session: it does not begin with DS4SNAP",
                        path);
    bool           is_sound = false;
    const uint8_t *header = take_header(c, &is_sound);
    if (!header)
        return ds4_fail(err, DS4_EFORMAT, "%s: cut off: found %zu bytes, expected at least %d",
                        path, c->n, 2 * HEADER_BYTES);
    bytes_cursor fields = bytes_from(header + sizeof MAGIC, HASHED_BYTES - sizeof MAGIC);
    uint32_t     version = bytes_u32(&fields), reserved = bytes_u32(&fields);
    uint64_t     fingerprint = bytes_u64(&fields);
    if (!is_sound)
        return ds4_fail(err, DS4_EFORMAT, "%s: file header: checksum does not match", path);
    if (version != SNAPSHOT_VERSION || reserved != 0)
        return ds4_fail(err, DS4_EFORMAT,
                        "%s: found version %" PRIu32 " (%" PRIu32 "), expected %d (0)", path,
                        version, reserved, SNAPSHOT_VERSION);
    if (fingerprint != expected_fingerprint)
        return ds4_fail(
            err, DS4_EFORMAT,
            "%s: saved with another model or other numerics: found fingerprint %016" PRIx64
            ", expected %016" PRIx64,
            path, fingerprint, expected_fingerprint);
    return DS4_OK;
}

/* Reads one section; every byte of it is checked. */
static ds4_status take_section(section *out, bytes_cursor *c, const char *path, ds4_error *err) {
    size_t         at = c->at;
    bool           is_sound = false;
    const uint8_t *header = take_header(c, &is_sound);
    if (!header)
        return ds4_fail(
            err, DS4_EFORMAT,
            "%s: cut off: found %zu bytes, expected a section or the end section at %zu", path,
            c->n, at);
    if (!is_sound)
        return ds4_fail(err, DS4_EFORMAT, "%s: section header at %zu: checksum does not match",
                        path, at);
    bytes_cursor fields = bytes_from(header, HASHED_BYTES);
    section      s = {.tag = bytes_u32(&fields)};
    uint32_t     reserved = bytes_u32(&fields);
    tag_name     name = name_of(s.tag);
    s.n_bytes = bytes_u64(&fields);
    uint64_t payload_hash = bytes_u64(&fields);
    if (reserved != 0)
        return ds4_fail(err, DS4_EFORMAT, "%s: section '%s' at %zu: reserved field: found %" PRIu32
                        ", expected 0", path, name.text, at, reserved);

    size_t n_left = c->n - c->at;
    s.payload = bytes_take(c, s.n_bytes);
    const uint8_t *padding = s.payload ? bytes_take(c, padding_of(s.n_bytes)) : NULL;
    if (!padding)
        return ds4_fail(err, DS4_EFORMAT,
                        "%s: section '%s' at %zu: cut off: found %zu bytes, expected %" PRIu64,
                        path, name.text, at, n_left, s.n_bytes);
    if (hash64(s.payload, (size_t)s.n_bytes, 0) != payload_hash ||
        memcmp(padding, ZEROS, padding_of(s.n_bytes)) != 0)
        return ds4_fail(err, DS4_EFORMAT, "%s: section '%s' at %zu: checksum does not match", path,
                        name.text, at);
    *out = s;
    return DS4_OK;
}

static ds4_status check_file(bytes_cursor *c, const char *path, uint64_t expected_fingerprint,
                             ds4_error *err) {
    DS4_TRY(check_file_header(c, path, expected_fingerprint, err));
    section s = {0};
    do {
        DS4_TRY(take_section(&s, c, path, err));
    } while (s.tag != 0);
    if (s.n_bytes != 0)
        return ds4_fail(err, DS4_EFORMAT, "%s: end section: found %" PRIu64 " bytes, expected none",
                        path, s.n_bytes);
    if (c->at != c->n)
        return ds4_fail(err, DS4_EFORMAT,
                        "%s: found %zu bytes, expected the end of the file at %zu", path, c->n,
                        c->at);
    return DS4_OK;
}

static ds4_status open_bytes(snapshot **out, mapfile map, const void *data, size_t n,
                             const char *path, uint64_t expected_fingerprint, ds4_error *err) {
    bytes_cursor c = bytes_from(data, n);
    DS4_TRY(check_file(&c, path, expected_fingerprint, err));
    snapshot *s = malloc(sizeof *s);
    if (!s) return ds4_fail_nomem(err, "snapshot", sizeof *s);
    s->map = map;
    s->sections = bytes_from((const uint8_t *)data + HEADER_BYTES, n - HEADER_BYTES);
    *out = s;
    return DS4_OK;
}

ds4_status snapshot_open(snapshot **out, const char *path, uint64_t expected_fingerprint,
                         ds4_error *err) {
    mapfile map = {0};
    DS4_TRY(mapfile_open(&map, path, err));
    ds4_status status = open_bytes(out, map, map.data, map.n, path, expected_fingerprint, err);
    if (status != DS4_OK) mapfile_close(&map);
    return status;
}

ds4_status snapshot_open_memory(snapshot **out, const void *data, size_t n,
                                uint64_t expected_fingerprint, ds4_error *err) {
    return open_bytes(out, (mapfile){0}, data, n, "snapshot", expected_fingerprint, err);
}

void snapshot_close(snapshot *s) {
    if (!s) return;
    mapfile_close(&s->map);
    free(s);
}

bool snapshot_find(const snapshot *s, uint32_t tag, const uint8_t **data, size_t *n) {
    bytes_cursor c = s->sections;
    for (;;) {
        uint32_t found = bytes_u32(&c);
        bytes_u32(&c);
        uint64_t n_bytes = bytes_u64(&c);
        bytes_take(&c, HEADER_BYTES - 16);
        const uint8_t *payload = bytes_take(&c, n_bytes);
        bytes_take(&c, padding_of(n_bytes));
        if (found == 0 || c.is_short) return false;
        if (found == tag) {
            *data = payload;
            *n = (size_t)n_bytes;
            return true;
        }
    }
}
