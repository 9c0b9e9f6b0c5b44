/* batch.c: see batch.h. */
#include "rl/batch.h"

#include <stdlib.h>
#include <string.h>

static int round_up(int n, int to) { return (n + to - 1) / to * to; }
static int pages_of(int positions) { return round_up(positions, KV_PAGE) / KV_PAGE; }
static int larger(int a, int b) { return a > b ? a : b; }

BatchLimits batch_limits(int rows, int max_prompt, int max_completion, int group) {
    int chunk = larger(CHUNK_ROWS, round_up(max_completion, 32));
    BatchLimits limits = {.max_rows = larger(round_up(rows, 32), round_up(max_prompt, 32) + chunk)};
    limits.max_head = limits.max_rows + round_up(group, 32);
    /* A sample of few rows holds up to two pages of its own, so short samples need more pages than their rows
     * fill. */
    int own = chunk / KV_PAGE + 2 * (group < CHUNK_ROWS ? group : CHUNK_ROWS);
    limits.max_pages = larger(limits.max_rows / 16, pages_of(max_prompt) + own);
    return limits;
}

void batch_open(Batch *batch, const BatchLimits *limits) {
    int rows = limits->max_rows;
    *batch = (Batch){.max_rows = rows, .max_head = limits->max_head, .max_pages = limits->max_pages};
    batch->tok = MEM_ARRAY(int, rows), batch->pos = MEM_ARRAY(int, rows), batch->page = MEM_ARRAY(int, rows);
    batch->head_index = MEM_ARRAY(int, limits->max_head), batch->target = MEM_ARRAY(int, limits->max_head);
    batch->head = MEM_ARRAY(HeadRow, limits->max_head);
}

void batch_close(Batch *batch) {
    void *all[] = {batch->tok,    batch->pos,    batch->page, batch->table,      batch->spans,
                   batch->shares, batch->target, batch->head, batch->head_index, batch->prompt_table};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    *batch = (Batch){0};
}

/* ---- what a piece takes ---- */

typedef struct {
    int rows, head, pages;
} Need;

static Need need_add(Need a, Need b) { return (Need){a.rows + b.rows, a.head + b.head, a.pages + b.pages}; }

static int sample_pages(const BatchGroup *g, const BatchSample *s) {
    return s->n > 1 ? pages_of(g->n_prompt + s->n - 1) - g->n_prompt / KV_PAGE : 0;
}

static Need prompt_need(const BatchGroup *g) {
    return (Need){round_up(g->n_prompt, 32), round_up(g->n, 32), pages_of(g->n_prompt)};
}

/* Where the chunk that begins at a sample ends: as many samples as fit into CHUNK_ROWS, at least one. */
static int chunk_end(const BatchGroup *g, int first) {
    int rows = 0, end = first;
    while (end < g->n && (end == first || rows + g->samples[end].n - 1 <= CHUNK_ROWS))
        rows += g->samples[end++].n - 1;
    return end;
}

static Need chunk_need(const BatchGroup *g, int first, int end) {
    Need need = {0};
    for (int i = first; i < end; i++) {
        need.rows += g->samples[i].n - 1;
        need.pages += sample_pages(g, &g->samples[i]);
    }
    need.rows = need.head = round_up(need.rows, 32);
    return need;
}

static Need group_need(const BatchGroup *g) {
    Need need = prompt_need(g);
    for (int first = 0, end; first < g->n; first = end) {
        end = chunk_end(g, first);
        need = need_add(need, chunk_need(g, first, end));
    }
    return need;
}

static bool need_fits(const Batch *b, Need have, Need more) {
    Need all = need_add(have, more);
    return all.rows <= b->max_rows && all.head <= b->max_head && all.pages <= b->max_pages;
}

/* ---- filling ---- */

static void *grown(void *p, int n, int *room, size_t size) {
    if (n < *room) return p;
    *room = larger(64, 2 * n);
    return mem_grow(p, (size_t)*room, size);
}

static void add_table(Batch *b, int page) {
    b->table = grown(b->table, b->n_table, &b->table_room, sizeof *b->table);
    b->table[b->n_table++] = page;
}

static void add_row(Batch *b, int tok, int pos, int page) {
    int at = b->rows.m++;
    b->tok[at] = tok, b->pos[at] = pos, b->page[at] = page;
}

static void add_head(Batch *b, int index, int target, HeadRow who) {
    int at = b->n_head++;
    b->head_index[at] = index, b->target[at] = target, b->head[at] = who;
}

static void pad(Batch *b) {
    while (b->rows.m % 32) add_row(b, 0, 0, -1);
    while (b->n_head % 32) add_head(b, -1, -1, (HeadRow){-1, 0, 0});
}

static void add_span(Batch *b, KvSpan span) {
    b->spans = grown(b->spans, b->rows.n_spans, &b->span_room, sizeof *b->spans);
    b->spans[b->rows.n_spans++] = span;
}

static void take_prompt_pages(Batch *b, const BatchGroup *g) {
    b->prompt_pages = pages_of(g->n_prompt);
    b->prompt_table = grown(b->prompt_table, b->prompt_pages, &b->prompt_room, sizeof *b->prompt_table);
    for (int i = 0; i < b->prompt_pages; i++) b->prompt_table[i] = b->pages_used++;
}

/* One sample: its rows, a table of the prompt's full pages and its own, and a copy of the prompt's last page where
 * that is only partly filled. */
static void add_sample(Batch *b, const BatchGroup *g, int group, int sample) {
    const BatchSample *s = &g->samples[sample];
    int full = g->n_prompt / KV_PAGE, rest = g->n_prompt % KV_PAGE, n = s->n - 1, own = b->pages_used;
    if (n == 0) return;
    if (rest) {
        b->shares = grown(b->shares, b->rows.n_shares, &b->share_room, sizeof *b->shares);
        b->shares[b->rows.n_shares++] = (KvShare){b->prompt_table[full], own, rest};
    }
    add_span(b, (KvSpan){b->rows.m, n, g->n_prompt, b->n_table, group, rest ? b->rows.n_shares : 0});
    for (int i = 0; i < full; i++) add_table(b, b->prompt_table[i]);
    for (int i = sample_pages(g, s); i > 0; i--) add_table(b, b->pages_used++);
    for (int j = 0; j < n; j++) {
        int pos = g->n_prompt + j;
        add_head(b, b->rows.m, s->tok[j + 1], (HeadRow){group, sample, j + 1});
        add_row(b, s->tok[j], pos, own + pos / KV_PAGE - full);
    }
}

static void add_chunk(Batch *b, const BatchGroup *g, int group, int first, int end) {
    for (int i = first; i < end; i++) add_sample(b, g, group, i);
    pad(b);
}

static void add_prompt(Batch *b, const BatchGroup *g, int group) {
    add_span(b, (KvSpan){b->rows.m, g->n_prompt, 0, b->n_table, group, 0});
    for (int i = 0; i < b->prompt_pages; i++) add_table(b, b->prompt_table[i]);
    for (int p = 0; p < g->n_prompt; p++) add_row(b, g->prompt[p], p, b->prompt_table[p / KV_PAGE]);
    for (int i = 0; i < g->n; i++) add_head(b, b->rows.m - 1, g->samples[i].tok[0], (HeadRow){group, i, 0});
    pad(b);
}

static void batch_clear(Batch *b, BatchKind kind, int group, int pages_used) {
    b->kind = kind, b->group0 = group, b->groups = 1, b->last = false;
    b->rows = (Rows){0};
    b->n_table = b->n_head = 0;
    b->pages_used = pages_used;
}

static void batch_finish(Batch *b) {
    b->rows.tok = b->tok, b->rows.pos = b->pos, b->rows.page = b->page;
    b->rows.spans = b->spans, b->rows.table = b->table, b->rows.shares = b->shares;
}

void batch_prompt(Batch *b, const BatchGroup *groups, int group) {
    const BatchGroup *g = &groups[group];
    batch_clear(b, BATCH_PROMPT, group, 0);
    CHECK(need_fits(b, (Need){0}, prompt_need(g)), "a prompt of %d tokens does not fit", g->n_prompt);
    take_prompt_pages(b, g);
    add_prompt(b, g, group);
    batch_finish(b);
}

/* The next chunks of a group whose prompt has been given out. Their rows come after the prompt's in the tape, so
 * the prompt takes part in the room that is left. */
static void next_chunks(Batch *b, BatchCursor *cursor, const BatchGroup *groups) {
    const BatchGroup *g = &groups[cursor->group];
    batch_clear(b, BATCH_CHUNKS, cursor->group, b->prompt_pages);
    Need have = {round_up(g->n_prompt, 32), 0, b->prompt_pages};
    while (cursor->sample < g->n) {
        int end = chunk_end(g, cursor->sample);
        Need need = chunk_need(g, cursor->sample, end);
        if (!need_fits(b, have, need)) break;
        have = need_add(have, need);
        add_chunk(b, g, cursor->group, cursor->sample, end);
        cursor->sample = end;
    }
    CHECK(b->rows.m > 0 || cursor->sample == g->n, "a chunk of group %d does not fit into %d rows", cursor->group,
          b->max_rows);
    b->last = cursor->sample == g->n;
    if (b->last) *cursor = (BatchCursor){.group = cursor->group + 1};
    batch_finish(b);
}

bool batch_next(Batch *b, BatchCursor *cursor, const BatchGroup *groups, int n, const bool *skip) {
    if (cursor->in_group) {
        next_chunks(b, cursor, groups);
        return true;
    }
    while (cursor->group < n && skip[cursor->group]) cursor->group++;
    if (cursor->group == n) return false;
    batch_clear(b, BATCH_GROUPS, cursor->group, 0);
    Need have = {0}, need = group_need(&groups[cursor->group]);
    if (!need_fits(b, have, need)) {
        batch_prompt(b, groups, cursor->group);
        cursor->in_group = true, cursor->sample = 0;
        return true;
    }
    for (int g = cursor->group; g < n; g++) {
        if (skip[g]) continue;
        need = group_need(&groups[g]);
        if (!need_fits(b, have, need)) break;
        have = need_add(have, need);
        take_prompt_pages(b, &groups[g]);
        for (int first = 0, end; first < groups[g].n; first = end) {
            end = chunk_end(&groups[g], first);
            add_chunk(b, &groups[g], g, first, end);
        }
        add_prompt(b, &groups[g], g);
        cursor->group = g + 1;
    }
    b->groups = cursor->group - b->group0;
    batch_finish(b);
    return true;
}
