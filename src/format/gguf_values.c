/* gguf_values.c - metadata as values: numbers of any width, strings, items of arrays. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/utf8.h"
#include "format/gguf.h"

/* A value of any numeric type: an integer in sign and magnitude, or a real number. */
typedef struct {
    bool is_real, is_negative;
    uint64_t magnitude;
    double real;
} number;

const char *gguf_value_type_name(gguf_value_type type) {
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return names[type];
}

size_t gguf_value_bytes(gguf_value_type type) {
    static const uint8_t n_bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return n_bytes[type];
}

static ds4_status wrong_type(const gguf *g, const gguf_kv *kv, const char *expected,
                             ds4_error *err) {
    return ds4_fail(err, DS4_EFORMAT, "%s: key '%s': found %s%s, expected %s", gguf_path(g),
                    gguf_show(kv->key).text, kv->type == GGUF_ARRAY ? "array of " : "",
                    gguf_value_type_name(kv->item_type), expected);
}

static ds4_status does_not_fit(const gguf *g, const gguf_kv *kv, number n, const char *expected,
                               ds4_error *err) {
    gguf_shown key = gguf_show(kv->key);
    if (n.is_real)
        return ds4_fail(err, DS4_EFORMAT, "%s: key '%s': found %g, expected %s", gguf_path(g),
                        key.text, n.real, expected);
    return ds4_fail(err, DS4_EFORMAT, "%s: key '%s': found %s%llu, expected %s", gguf_path(g),
                    key.text, n.is_negative ? "-" : "", (unsigned long long)n.magnitude, expected);
}

static number from_signed(int64_t v) {
    return (number){.is_negative = v < 0, .magnitude = v < 0 ? 0 - (uint64_t)v : (uint64_t)v};
}

/* The number of fixed-size type at p; bool reads as 0 or 1. */
static number read_number(gguf_value_type type, const uint8_t *p) {
    bytes_cursor in = bytes_from(p, 8); /* never reads more than the type has */
    switch (type) {
    case GGUF_U8: return (number){.magnitude = bytes_u8(&in)};
    case GGUF_U16: return (number){.magnitude = bytes_u16(&in)};
    case GGUF_U32: return (number){.magnitude = bytes_u32(&in)};
    case GGUF_U64: return (number){.magnitude = bytes_u64(&in)};
    case GGUF_I8: return from_signed((int8_t)bytes_u8(&in));
    case GGUF_I16: return from_signed((int16_t)bytes_u16(&in));
    case GGUF_I32: return from_signed((int32_t)bytes_u32(&in));
    case GGUF_I64: return from_signed((int64_t)bytes_u64(&in));
    case GGUF_BOOL: return (number){.magnitude = bytes_u8(&in) != 0};
    case GGUF_F32: return (number){.is_real = true, .real = (double)bytes_f32(&in)};
    case GGUF_F64: {
        uint64_t bits = bytes_u64(&in);
        number n = {.is_real = true};
        memcpy(&n.real, &bits, sizeof n.real);
        return n;
    }
    case GGUF_STRING:
    case GGUF_ARRAY: break;
    }
    return (number){0};
}

/* Item i, for a conversion to a number: bool is none unless `is_bool_ok`, a real one only if
 * `is_real_ok`. */
static ds4_status take_number(const gguf *g, const gguf_kv *kv, uint64_t i, bool is_bool_ok,
                              bool is_real_ok, const char *expected, number *n, ds4_error *err) {
    gguf_value_type type = kv->item_type;
    bool is_real = type == GGUF_F32 || type == GGUF_F64;
    if (gguf_value_bytes(type) == 0 || (type == GGUF_BOOL && !is_bool_ok) ||
        (is_real && !is_real_ok))
        return wrong_type(g, kv, expected, err);
    if (i >= kv->n_items)
        return ds4_fail(err, DS4_EFORMAT, "%s: key '%s': found %llu items, expected at least %llu",
                        gguf_path(g), gguf_show(kv->key).text, (unsigned long long)kv->n_items,
                        (unsigned long long)i + 1);
    *n = read_number(type, kv->data + i * gguf_value_bytes(type));
    return DS4_OK;
}

/* The key's value if it is there and stands alone; `found` as gguf.h tells. *kv NULL: absent. */
static ds4_status find_scalar(const gguf *g, const char *key, const gguf_kv **kv,
                              const char *expected, bool *found, ds4_error *err) {
    *kv = gguf_find(g, key);
    if (!*kv) {
        if (!found) return ds4_fail(err, DS4_EFORMAT, "%s: key '%s' is missing", gguf_path(g), key);
        *found = false;
        return DS4_OK;
    }
    return (*kv)->type == GGUF_ARRAY ? wrong_type(g, *kv, expected, err) : DS4_OK;
}

static ds4_status get_unsigned(const gguf *g, const char *key, uint64_t max, const char *expected,
                               uint64_t *v, bool *found, ds4_error *err) {
    const gguf_kv *kv;
    number n;
    DS4_TRY(find_scalar(g, key, &kv, expected, found, err));
    if (!kv) return DS4_OK;
    DS4_TRY(take_number(g, kv, 0, false, false, expected, &n, err));
    if (n.is_negative || n.magnitude > max) return does_not_fit(g, kv, n, expected, err);
    *v = n.magnitude;
    if (found) *found = true;
    return DS4_OK;
}

ds4_status gguf_get_u32(const gguf *g, const char *key, uint32_t *v, bool *found, ds4_error *err) {
    uint64_t wide = *v;
    DS4_TRY(get_unsigned(g, key, UINT32_MAX, "an integer from 0 to 2^32 - 1", &wide, found, err));
    *v = (uint32_t)wide;
    return DS4_OK;
}

ds4_status gguf_get_u64(const gguf *g, const char *key, uint64_t *v, bool *found, ds4_error *err) {
    return get_unsigned(g, key, UINT64_MAX, "an integer from 0 to 2^64 - 1", v, found, err);
}

static ds4_status to_f32(const gguf *g, const gguf_kv *kv, number n, float *v, ds4_error *err) {
    if (n.is_real && isfinite(n.real) && fabs(n.real) > (double)FLT_MAX)
        return does_not_fit(g, kv, n, "a number within the range of f32", err);
    if (n.is_real)
        *v = (float)n.real;
    else
        *v = n.is_negative ? -(float)n.magnitude : (float)n.magnitude;
    return DS4_OK;
}

ds4_status gguf_get_f32(const gguf *g, const char *key, float *v, bool *found, ds4_error *err) {
    const char *expected = "a number";
    const gguf_kv *kv;
    number n;
    DS4_TRY(find_scalar(g, key, &kv, expected, found, err));
    if (!kv) return DS4_OK;
    DS4_TRY(take_number(g, kv, 0, false, true, expected, &n, err));
    DS4_TRY(to_f32(g, kv, n, v, err));
    if (found) *found = true;
    return DS4_OK;
}

ds4_status gguf_get_bool(const gguf *g, const char *key, bool *v, bool *found, ds4_error *err) {
    const char *expected = "a bool";
    const gguf_kv *kv;
    number n;
    DS4_TRY(find_scalar(g, key, &kv, expected, found, err));
    if (!kv) return DS4_OK;
    DS4_TRY(take_number(g, kv, 0, true, false, expected, &n, err));
    *v = n.magnitude != 0;
    if (found) *found = true;
    return DS4_OK;
}

ds4_status gguf_get_string(const gguf *g, const char *key, strview *v, bool *found,
                           ds4_error *err) {
    const char *expected = "a string";
    const gguf_kv *kv;
    gguf_string_iter it = {0};
    DS4_TRY(find_scalar(g, key, &kv, expected, found, err));
    if (!kv) return DS4_OK;
    if (kv->type != GGUF_STRING) return wrong_type(g, kv, expected, err);
    gguf_next_string(kv, &it, v);
    if (found) *found = true;
    return DS4_OK;
}

ds4_status gguf_item_i64(const gguf *g, const gguf_kv *kv, uint64_t i, int64_t *v, ds4_error *err) {
    const char *expected = "an integer from -2^63 to 2^63 - 1";
    number n;
    DS4_TRY(take_number(g, kv, i, false, false, expected, &n, err));
    if (n.magnitude > (uint64_t)INT64_MAX + n.is_negative)
        return does_not_fit(g, kv, n, expected, err);
    /* -(m - 1) - 1: the smallest integer has no positive twin. */
    *v = n.is_negative ? -(int64_t)(n.magnitude - 1) - 1 : (int64_t)n.magnitude;
    return DS4_OK;
}

ds4_status gguf_item_f32(const gguf *g, const gguf_kv *kv, uint64_t i, float *v, ds4_error *err) {
    number n;
    DS4_TRY(take_number(g, kv, i, false, true, "a number", &n, err));
    return to_f32(g, kv, n, v, err);
}

gguf_shown gguf_show(strview s) {
    gguf_shown shown;
    const size_t n_max = sizeof shown.text - sizeof "...";
    size_t n = s.n > n_max ? utf8_complete_prefix(s.data, n_max) : s.n;
    bool is_utf8 = utf8_is_valid(s.data, n);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s.data[i];
        bool is_shown = c >= 0x80 ? is_utf8 : c >= 0x20 && c != 0x7f;
        shown.text[i] = is_shown ? (char)c : '?';
    }
    strcpy(shown.text + n, n < s.n ? "..." : "");
    return shown;
}

bool gguf_next_string(const gguf_kv *kv, gguf_string_iter *it, strview *s) {
    if (kv->item_type != GGUF_STRING || it->i >= kv->n_items) return false;
    bytes_cursor in = bytes_from(kv->data, (size_t)kv->n_bytes);
    in.at = it->offset;
    uint64_t n = bytes_u64(&in);
    *s = (strview){(const char *)bytes_take(&in, n), (size_t)n};
    it->offset = in.at;
    it->i++;
    return true;
}
