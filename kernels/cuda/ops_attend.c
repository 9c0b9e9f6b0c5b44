/* ops_attend.c: keys and values in pages, attention: which tiles and which pages the kernels go through. */
#include "kernels/cuda/host.h"

#include <stdlib.h>

static size_t layer_elements(const Kv *kv) {
    size_t wide = (size_t)((kv->head_dim + KV_WIDE - 1) / KV_WIDE * KV_WIDE);
    return (size_t)kv->pages * 2 * (size_t)kv->heads * KV_PAGE * wide;
}

static DevKv layer_of(const Kv *kv, int layer) {
    int wide = (kv->head_dim + KV_WIDE - 1) / KV_WIDE * KV_WIDE;
    char *p = (char *)kv->data.p + (size_t)layer * layer_elements(kv) * dtype_size(kv->type);
    return (DevKv){p, kv->heads, kv->head_dim, wide, kv->type};
}

void op_kv_copy(Dev *dev, Kv *kv, const KvShare *shares, int n) {
    CHECK(!kv->grad, "pages of gradients are not copied");
    const KvShare *there = upload(dev, shares, (size_t)n * sizeof *shares);
    cu_shares(dev->cuda->stream, layer_of(kv, 0), layer_elements(kv), kv->layers, there, n);
}

void op_qkv(Dev *dev, Ten q, Kv *kv, int layer, Ten qkv, const Rows *rows, Ten cos, Ten sin) {
    DevRows there = rows_on(dev, rows);
    cu_qkv(dev->cuda->stream, q, layer_of(kv, layer), qkv, there, cos, sin);
    cu_shares(dev->cuda->stream, layer_of(kv, layer), 0, 1, there.shares, there.n_shares);
}

void op_qkv_back(Dev *dev, Ten dqkv, Ten dq, Kv *dkv, int layer, const Rows *rows, Ten cos, Ten sin) {
    cu_qkv_back(dev->cuda->stream, dqkv, dq, layer_of(dkv, layer), rows_on(dev, rows), cos, sin);
}

static bool has_padding(const Rows *rows) {
    for (int r = 0; r < rows->m; r++)
        if (rows->page[r] < 0) return true;
    return false;
}

/* What both directions ask: tiles of chains, span after span. */
static Attend attend_of(Dev *dev, Ten q, const Kv *kv, int layer, const Rows *rows, real scale, real cap,
                        int window) {
    Attend a = {.q = q, .kv = layer_of(kv, layer), .window = window, .scale = scale, .cap = cap};
    a.group = q.cols / (kv->heads * kv->head_dim);
    int most = a.group; /* a row's */
    for (int i = 0; i < rows->n_spans; i++)
        if (rows->spans[i].n * a.group > most) most = rows->spans[i].n * a.group;
    a.chains = cu_attend_chains(kv->type, a.kv.wide, most);
    a.rows = rows_on(dev, rows);
    a.padding = has_padding(rows);
    if (rows_decode(rows)) { /* an empty span has tiles as well: the launch depends on the number of spans alone */
        a.tiles = (a.group + a.chains - 1) / a.chains;
        a.items = rows->n_spans * a.tiles;
        return a;
    }
    int *item0 = MEM_ARRAY(int, rows->n_spans + 1);
    for (int i = 0; i < rows->n_spans; i++)
        item0[i + 1] = item0[i] + (rows->spans[i].n * a.group + a.chains - 1) / a.chains;
    a.items = item0[rows->n_spans];
    a.item0 = upload_kept(dev, &dev->cuda->tiles, item0, (size_t)(rows->n_spans + 1) * sizeof *item0);
    free(item0);
    return a;
}

void op_attend(Dev *dev, Ten o, Ten lse, Ten q, const Kv *kv, int layer, const Rows *rows, real scale, real cap,
               int window) {
    Attend a = attend_of(dev, q, kv, layer, rows, scale, cap, window);
    a.o = o, a.lse = lse;
    cu_attend(dev->cuda->stream, a);
}

/* ---- backward: the pages that get gradients ---- */

typedef struct { /* a page's events as a list in their order */
    int first, last, level;
    bool met, closed; /* closed: copied back to where it came from */
} PageList;

typedef struct {
    BackEvent *events;
    int *next, n, room;
    PageList *pages;
    int *order, n_pages; /* pages in the order in which they were met */
} Plan;

static void plan_event(Plan *plan, int page, BackEvent event) {
    PageList *list = &plan->pages[page];
    CHECK(!list->closed, "page %d gets a gradient after it was copied back", page);
    if (plan->n == plan->room) {
        plan->room = 2 * plan->room + 64;
        plan->events = mem_grow(plan->events, (size_t)plan->room, sizeof *plan->events);
        plan->next = mem_grow(plan->next, (size_t)plan->room, sizeof *plan->next);
    }
    if (list->met)
        plan->next[list->last] = plan->n;
    else
        list->first = plan->n, plan->order[plan->n_pages++] = page;
    list->met = true, list->last = plan->n;
    plan->next[plan->n] = -1;
    plan->events[plan->n++] = event;
}

/* A page that others copied waits for them: its level is above theirs. */
static Plan plan_of(const Kv *kv, const Rows *rows, int window) {
    Plan plan = {.pages = MEM_ARRAY(PageList, kv->pages), .order = MEM_ARRAY(int, kv->pages)};
    for (int i = 0; i < rows->n_spans; i++) {
        const KvSpan *s = &rows->spans[i];
        int first = window && s->pos0 - window + 1 > 0 ? (s->pos0 - window + 1) / KV_PAGE : 0;
        int end = s->n ? (s->pos0 + s->n - 1) / KV_PAGE + 1 : 0;
        for (int b = first; b < end; b++) plan_event(&plan, rows->table[s->table + b], (BackEvent){i, b, 0});
        if (!s->share) continue;
        const KvShare *share = &rows->shares[s->share - 1];
        plan_event(&plan, share->src, (BackEvent){-1, share->dst, share->n});
        PageList *from = &plan.pages[share->dst], *to = &plan.pages[share->src];
        from->closed = true;
        if (to->level <= from->level) to->level = from->level + 1;
    }
    return plan;
}

/* Events page after page, pages level after level; runs the kernel once a level. */
static void plan_run(Dev *dev, Plan *plan, AttendBack *b) {
    int top = 0, n = 0, at = 0;
    for (int i = 0; i < plan->n_pages; i++)
        if (plan->pages[plan->order[i]].level > top) top = plan->pages[plan->order[i]].level;
    int *lists = MEM_ARRAY(int, 2 * plan->n_pages + 1), *first = lists + plan->n_pages;
    int *levels = MEM_ARRAY(int, top + 2);
    BackEvent *events = MEM_ARRAY(BackEvent, plan->n + 1);
    for (int level = 0; level <= top; level++) {
        for (int i = 0; i < plan->n_pages; i++) {
            const PageList *list = &plan->pages[plan->order[i]];
            if (list->level != level) continue;
            lists[n] = plan->order[i], first[n++] = at;
            for (int e = list->first; e >= 0; e = plan->next[e]) events[at++] = plan->events[e];
        }
        levels[level + 1] = n;
    }
    first[n] = at;
    b->pages = upload(dev, lists, (size_t)(2 * plan->n_pages + 1) * sizeof *lists);
    b->first = b->pages + plan->n_pages;
    b->events = upload(dev, events, (size_t)plan->n * sizeof *events);
    for (int level = 0; level <= top; level++)
        cu_attend_dkv(dev->cuda->stream, *b, levels[level], levels[level + 1] - levels[level]);
    free(lists), free(levels), free(events);
}

void op_attend_back(Dev *dev, Ten dq, Kv *dkv, Ten dout, Ten o, Ten lse, Ten q, const Kv *kv, int layer,
                    const Rows *rows, real scale, real cap, int window) {
    AttendBack b = {.a = attend_of(dev, q, kv, layer, rows, scale, cap, window), .dq = dq};
    const size_t heads = (size_t)(q.cols / kv->head_dim), numbers = (size_t)q.rows * (size_t)q.cols;
    const size_t low_bytes = (numbers * dtype_size(kv->type) + 255) / 256 * 256;
    char *room = dev_scratch(dev, WS_ATTEND, low_bytes + (size_t)q.rows * heads * sizeof(float));
    float *delta = (float *)(void *)(room + low_bytes);
    b.a.lse = lse;
    b.dout = (Ten){room, q.rows, q.cols, q.cols, kv->type};
    b.delta = delta;
    b.dkv = layer_of(dkv, layer);
    cu_attend_delta(dev->cuda->stream, delta, b.dout, dout, o, kv->head_dim);
    cu_attend_dq(dev->cuda->stream, b);
    Plan plan = plan_of(kv, rows, window);
    plan_run(dev, &plan, &b);
    free(plan.events), free(plan.next), free(plan.pages), free(plan.order);
}
