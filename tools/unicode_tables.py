#!/usr/bin/env python3
"""Makes src/text/unicode_tables.h and .c: the general category classes of all code points.

Usage: unicode_tables.py unicode_classes.json OUTPUT_FOLDER

The input maps L, M, N, P, S and W to inclusive code point ranges (W: White_Space). The layout is
explained in the header that this script writes.
"""
import json
import sys

CLASSES = 'LMNPSW'  # class k is CLASSES[k - 1]; 0 is "none of them"
PAGE = 256

HEADER = '''\
/* unicode_tables.h - the class of a code point: letter, mark, number, punctuation, symbol, space.
 *
 *   Written by tools/unicode_tables.py from Unicode %(version)s data; do not edit.
 *
 *   page    code >> 8 -> one of %(n_pages)d different pages
 *   first   page      -> its first run; the runs of page p are first[p] .. first[p + 1] - 1
 *   run     low byte of the first code << 8 | class; a run lasts until the next one begins
 *
 *   Runs instead of one entry per code point keep the tables at %(n_bytes)d bytes. A page has %(mean).0f runs on
 *   average, %(longest)d at most, so a search is a few steps.
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
#define UNICODE_TABLE_END 0x%(end)X
/* The only range of a class beyond the table, and its class. */
#define UNICODE_FAR_FIRST 0x%(far_first)X
#define UNICODE_FAR_LAST  0x%(far_last)X
#define UNICODE_FAR_CLASS %(far_class)d

extern const uint8_t  unicode_page[];
extern const uint16_t unicode_page_first[];
extern const uint16_t unicode_run[];

/* The class of any 32-bit value; those that are no code point have none. */
static inline unicode_class_id unicode_class(int32_t code) {
    uint32_t c = (uint32_t)code;
    if (c >= UNICODE_TABLE_END)
        return c >= UNICODE_FAR_FIRST && c <= UNICODE_FAR_LAST ? UNICODE_FAR_CLASS : UNICODE_NONE;

    /* The last run that begins at or before c; the first of a page begins at its start. */
    uint32_t page = unicode_page[c / %(page)d], low = c %% %(page)d;
    uint32_t lo = unicode_page_first[page], hi = unicode_page_first[page + 1];
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (unicode_run[mid] >> 8 <= low) lo = mid;
        else hi = mid;
    }
    return (unicode_class_id)(unicode_run[lo] & 0xFF);
}

#endif
'''


def runs_of(page):
    """[(low byte, class)] of one page, a new entry where the class changes."""
    return [(i, c) for i, c in enumerate(page) if i == 0 or page[i - 1] != c]


def c_array(declaration, values, width):
    rows = ['const %s = {' % declaration]
    line = '   '
    for value in values:
        item = ' %s,' % (('%%%dd' % width) % value)
        if len(line) + len(item) > 100:
            rows.append(line)
            line = '   '
        line += item
    return '\n'.join(rows + [line, '};', ''])


def main():
    source, folder = sys.argv[1:]
    data = json.load(open(source, encoding='utf-8'))
    classes = bytearray(0x110000)
    for k, name in enumerate(CLASSES):
        for first, last in data[name]:
            for code in range(first, last + 1):
                if classes[code]:
                    sys.exit('U+%04X is in two classes' % code)
                classes[code] = k + 1

    # Everything beyond plane 3 is empty but one range, which is handled apart.
    far = [c for c in range(0x40000, 0x110000) if classes[c]]
    if far != list(range(far[0], far[-1] + 1)) or len({classes[c] for c in far}) != 1:
        sys.exit('more than one range beyond plane 3: extend the generator')
    end = max(c for c in range(0x40000) if classes[c]) // PAGE * PAGE + PAGE

    pages = {}
    index = [pages.setdefault(bytes(classes[c:c + PAGE]), len(pages)) for c in range(0, end, PAGE)]
    if len(pages) > 256:
        sys.exit('too many different pages')
    first, runs = [0], []
    for page in pages:
        runs += [low << 8 | c for low, c in runs_of(page)]
        first.append(len(runs))

    facts = dict(version=data['unicode'], n_pages=len(pages), end=end, page=PAGE,
                 n_bytes=len(index) + 2 * len(first) + 2 * len(runs), mean=len(runs) / len(pages),
                 longest=max(b - a for a, b in zip(first, first[1:])),
                 far_first=far[0], far_last=far[-1], far_class=classes[far[0]])
    with open(folder + '/unicode_tables.h', 'w', encoding='ascii') as out:
        out.write(HEADER % facts)
    with open(folder + '/unicode_tables.c', 'w', encoding='ascii') as out:
        out.write('/* Written by tools/unicode_tables.py from Unicode %s data; do not edit. */\n'
                  '#include "text/unicode_tables.h"\n\n' % data['unicode'])
        out.write(c_array('uint8_t unicode_page[%d]' % len(index), index, 3) + '\n')
        out.write(c_array('uint16_t unicode_page_first[%d]' % len(first), first, 4) + '\n')
        out.write(c_array('uint16_t unicode_run[%d]' % len(runs), runs, 5))


if __name__ == "__main__":
    main()
