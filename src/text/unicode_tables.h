/* unicode_tables.h - the class of a code point: letter, mark, number, punctuation, symbol, space.
 *
 *   Written by tools/unicode_tables.py from Unicode 16.0 data; do not edit.
 *
 *   page    code >> 8 -> one of 151 different pages
 *   first   page      -> its first run; the runs of page p are first[p] .. first[p + 1] - 1
 *   run     low byte of the first code << 8 | class; a run lasts until the next one begins
 *
 *   Runs instead of one entry per code point keep the tables at 5844 bytes. A page has 16 runs on
 *   average, 70 at most, so a search is a few steps.
 *
 *   Threads  Constant: any thread. */
#ifndef DS4_TEXT_UNICODE_TABLES_H
#define DS4_TEXT_UNICODE_TABLES_H

#include <stdint.h>

typedef enum {
    UNICODE_NONE,        /* control, format, private use, unassigned */
    UNICODE_LETTER,      /* L */
    UNICODE_MARK,        /* M */
    UNICODE_NUMBER,      /* N */
    UNICODE_PUNCTUATION, /* P */
    UNICODE_SYMBOL,      /* S */
    UNICODE_SPACE,       /* White_Space; disjoint from the others */
} unicode_class_id;

/* Code points from here on have no class, except variation selectors (below). */
#define UNICODE_TABLE_END 0x32400
/* The only range of a class beyond the table, and its class. */
#define UNICODE_FAR_FIRST 0xE0100
#define UNICODE_FAR_LAST  0xE01EF
#define UNICODE_FAR_CLASS 2

extern const uint8_t  unicode_page[];
extern const uint16_t unicode_page_first[];
extern const uint16_t unicode_run[];

/* The class of any 32-bit value; those that are no code point have none. */
static inline unicode_class_id unicode_class(int32_t code) {
    uint32_t c = (uint32_t)code;
    if (c >= UNICODE_TABLE_END)
        return c >= UNICODE_FAR_FIRST && c <= UNICODE_FAR_LAST ? UNICODE_FAR_CLASS : UNICODE_NONE;

    /* The last run that begins at or before c; the first of a page begins at its start. */
    uint32_t page = unicode_page[c / 256], low = c % 256;
    uint32_t lo = unicode_page_first[page], hi = unicode_page_first[page + 1];
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (unicode_run[mid] >> 8 <= low) lo = mid;
        else hi = mid;
    }
    return (unicode_class_id)(unicode_run[lo] & 0xFF);
}

#endif
