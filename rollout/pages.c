/* pages.c: which pages of keys and values are free, and how many sequences hold each. */
#include "rollout/rollout.h"

#include <stdlib.h>

void pages_open(Pages *pages, int n) {
    *pages = (Pages){MEM_ARRAY(int, n), MEM_ARRAY(int, n), n, n};
    for (int i = 0; i < n; i++) pages->free[i] = n - 1 - i; /* page 0 is taken first */
}

int pages_take(Pages *pages) {
    if (pages->n_free == 0) return -1;
    int page = pages->free[--pages->n_free];
    pages->holders[page] = 1;
    return page;
}

void pages_hold(Pages *pages, int page) {
    CHECK(page >= 0 && page < pages->n_pages && pages->holders[page] > 0, "page %d is not held", page);
    pages->holders[page]++;
}

void pages_drop(Pages *pages, int page) {
    CHECK(page >= 0 && page < pages->n_pages && pages->holders[page] > 0, "page %d is not held", page);
    if (--pages->holders[page] == 0) pages->free[pages->n_free++] = page;
}

void pages_close(Pages *pages) {
    free(pages->holders);
    free(pages->free);
    *pages = (Pages){0};
}
