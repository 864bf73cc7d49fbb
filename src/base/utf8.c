#include "base/utf8.h"

/* Length announced by a lead byte and the range of its second byte (Unicode 16, table 3-7). */
static size_t lead_info(uint8_t lead, uint8_t *low, uint8_t *high) {
    *low = 0x80;
    *high = 0xBF;
    if (lead < 0x80) return 1;
    if (lead < 0xC2) return 0;
    if (lead < 0xE0) return 2;
    if (lead < 0xF0) {
        if (lead == 0xE0) *low = 0xA0;
        if (lead == 0xED) *high = 0x9F;
        return 3;
    }
    if (lead > 0xF4) return 0;
    if (lead == 0xF0) *low = 0x90;
    if (lead == 0xF4) *high = 0x8F;
    return 4;
}

/* Decodes as far as the bytes go: *n_good is the length of the valid part, the result the length
 * that the lead byte announces (0 for a byte that cannot start a sequence). */
static size_t scan(const char *s, size_t n, size_t *n_good, uint32_t *code) {
    uint8_t low, high, lead = (uint8_t)s[0];
    size_t length = lead_info(lead, &low, &high);
    *n_good = length ? 1 : 0;
    if (length <= 1) {
        *code = lead;
        return length;
    }
    *code = lead & (0x7Fu >> length);
    for (size_t i = 1; i < length && i < n; i++) {
        uint8_t byte = (uint8_t)s[i];
        if (byte < low || byte > high) break;
        low = 0x80;
        high = 0xBF;
        *code = *code << 6 | (byte & 0x3Fu);
        *n_good = i + 1;
    }
    return length;
}

size_t utf8_decode(const char *s, size_t n, int32_t *code) {
    size_t n_good;
    uint32_t value;
    size_t length = scan(s, n, &n_good, &value);
    if (length && n_good == length) {
        *code = (int32_t)value;
        return length;
    }
    *code = -1;
    return n_good ? n_good : 1;
}

size_t utf8_encode(uint32_t code, char out[4]) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

bool utf8_is_valid(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        int32_t code;
        i += utf8_decode(s + i, n - i, &code);
        if (code < 0) return false;
    }
    return true;
}

size_t utf8_complete_prefix(const char *s, size_t n) {
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        uint8_t byte = (uint8_t)s[n - back];
        if ((byte & 0xC0) == 0x80) continue;
        size_t n_good;
        uint32_t value;
        size_t length = scan(s + n - back, back, &n_good, &value);
        return length > back && n_good == back ? n - back : n;
    }
    return n;
}

void utf8_append_valid(strbuf *out, const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        int32_t code;
        size_t length = utf8_decode(s + i, n - i, &code);
        if (code < 0) strbuf_append(out, "\xEF\xBF\xBD", 3);
        else strbuf_append(out, s + i, length);
        i += length;
    }
}
