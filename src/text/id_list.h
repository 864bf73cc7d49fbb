/* id_list.h - a growing list of token ids.
 *
 *   Owner    The caller stores the struct (zeroed = empty) and releases it; `data` is from malloc.
 *   Errors   false when memory runs out or the size overflows; the list is as before. */
#ifndef DS4_TEXT_ID_LIST_H
#define DS4_TEXT_ID_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    int32_t *data; /* [n_cap]; NULL while n_cap is 0 */
    size_t n;      /* <= n_cap; those beyond are garbage */
    size_t n_cap;
} id_list;

/* Room for n_more ids behind the last one: they may be written to data[n..] before n is raised. */
static inline bool id_list_reserve(id_list *list, size_t n_more) {
    if (n_more <= list->n_cap - list->n) return true;
    size_t n_max = SIZE_MAX / sizeof *list->data / 2;
    if (list->n > n_max || n_more > n_max - list->n) return false;
    size_t n_cap = list->n + n_more;
    if (n_cap < 2 * list->n_cap) n_cap = 2 * list->n_cap;
    if (n_cap < 16) n_cap = 16;
    int32_t *data = (int32_t *)realloc(list->data, n_cap * sizeof *data);
    if (!data) return false;
    list->data = data;
    list->n_cap = n_cap;
    return true;
}

static inline bool id_list_add(id_list *list, int32_t id) {
    if (!id_list_reserve(list, 1)) return false;
    list->data[list->n++] = id;
    return true;
}

static inline void id_list_release(id_list *list) {
    free(list->data);
    *list = (id_list){0};
}

#endif
