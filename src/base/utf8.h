/* utf8.h - UTF-8, one code point at a time. Bytes may be anything; nothing reads past n. */
#ifndef DS4_BASE_UTF8_H
#define DS4_BASE_UTF8_H

#include "base/strbuf.h"

/* Decodes the sequence at s[0..n), n >= 1, and returns its length (1..4). An invalid or cut sequence
 * gives *code = -1 and the length of its maximal invalid prefix (Unicode 16, section 3.9). */
size_t utf8_decode(const char *s, size_t n, int32_t *code);
/* Writes code (0..0x10FFFF) to out[4] and returns its length. */
size_t utf8_encode(uint32_t code, char out[4]);
/* True if s[0..n) is valid. */
bool utf8_is_valid(const char *s, size_t n);
/* Length of the longest prefix of s[0..n) that does not end inside a sequence that may still become
 * valid: what a stream may show now. At most 3 bytes stay behind. */
size_t utf8_complete_prefix(const char *s, size_t n);
/* Appends s with every maximal invalid prefix replaced by U+FFFD. */
void utf8_append_valid(strbuf *out, const char *s, size_t n);

#endif
