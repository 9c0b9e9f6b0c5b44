/* compare_attend.c: rotary, pages and attention of a device against the CPU's. */
#include "kernels/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BOTH for (int i = 0; i < 2; i++)

/* Groups of samples that go on from one prompt, packed as rl packs them: the samples' rows, padding, then the
 * prompt's. A sample has the prompt's full pages and a copy of its last one. */
typedef struct {
    const char *name;
    int heads, groups, dim, window, rotary; /* query heads, key-value heads; features that turn */
    real cap;
    int prompt, samples[4]; /* lengths; a sample of 0 rows is an empty span; -1: no more */
    bool apart;             /* one group, whose prompt's rows are not in the batch; its pages are */
} World;

enum { ROWS = 512, SPANS = 16, TABLE = 128, PAGES = 48, FIRST_PAGE = 3 };
typedef struct {
    Rows rows;
    int tok[ROWS], pos[ROWS], page[ROWS], table[TABLE], n_table, pages;
    KvSpan spans[SPANS];
    KvShare shares[SPANS];
} Batch;

static void add_row(Batch *b, int pos, int page) {
    int at = b->rows.m++;
    CHECK(at < ROWS, "%d rows", at);
    b->tok[at] = 0, b->pos[at] = pos, b->page[at] = page;
}

static void add_span(Batch *b, int n, int pos0, int group, int share) {
    CHECK(b->rows.n_spans < SPANS, "%d spans", b->rows.n_spans);
    b->spans[b->rows.n_spans++] = (KvSpan){b->rows.m, n, pos0, b->n_table, group, share};
}

static void add_group(Batch *b, const World *w, int prompt, int group) {
    int pages = (prompt + KV_PAGE - 1) / KV_PAGE, full = prompt / KV_PAGE, rest = prompt % KV_PAGE,
        prompt0 = b->pages;
    b->pages += pages;
    for (int s = 0; s < 4 && w->samples[s] >= 0; s++) {
        int n = w->samples[s], own = b->pages, share = 0;
        if (rest && n) {
            b->shares[b->rows.n_shares] = (KvShare){prompt0 + full, own, rest};
            share = ++b->rows.n_shares;
        }
        add_span(b, n, prompt, group, share);
        for (int i = 0; i < full; i++) b->table[b->n_table++] = prompt0 + i;
        for (int i = full * KV_PAGE; i < prompt + n; i += KV_PAGE) b->table[b->n_table++] = b->pages++;
        for (int j = 0; j < n; j++) add_row(b, prompt + j, own + (prompt + j) / KV_PAGE - full);
    }
    while (b->rows.m % 32) add_row(b, 0, -1);
    if (w->apart) return;
    add_span(b, prompt, 0, group, 0);
    for (int i = 0; i < pages; i++) b->table[b->n_table++] = prompt0 + i;
    for (int p = 0; p < prompt; p++) add_row(b, p, prompt0 + p / KV_PAGE);
    while (b->rows.m % 32) add_row(b, 0, -1);
}

static Batch *batch_new(const World *w) {
    Batch *b = MEM_NEW(Batch);
    b->pages = FIRST_PAGE;
    add_group(b, w, w->prompt, 0);
    if (!w->apart) add_group(b, w, 5, 1);
    CHECK(b->pages <= PAGES && b->n_table <= TABLE, "%d pages", b->pages);
    b->rows.tok = b->tok, b->rows.pos = b->pos, b->rows.page = b->page;
    b->rows.spans = b->spans, b->rows.table = b->table, b->rows.shares = b->shares;
    return b;
}

static Kv kv_of(Dev *dev, const World *w, DType type, bool grad) {
    Err err = {0};
    Kv kv = k_kv_new(dev, PAGES, 2, w->groups, w->dim, type, grad, &err);
    if (!kv.data.p) die("%s", err.msg);
    return kv;
}

/* A row by itself, as decoding has it. */
static void check_alone(Compare *c, const char *shape, const World *w, const Batch *b, Kv *kv, Ten q, Ten o) {
    Dev *dev = c->dev[0];
    Err err = {0};
    Ten one = k_new(dev, 1, o.cols, o.type, &err);
    bool same = one.p != NULL;
    for (int s = 0; same && s < b->rows.n_spans; s++)
        for (int j = 0; same && j < b->spans[s].n; j += 1 + b->spans[s].n / 5) {
            int r = b->spans[s].row0 + j;
            KvSpan span = {0, 1, b->pos[r], b->spans[s].table, 0, 0};
            Rows rows = {.m = 1, .tok = b->tok + r, .pos = b->pos + r, .page = b->page + r, .n_spans = 1};
            rows.spans = &span, rows.table = b->table;
            k_attend(dev, one, TEN_NONE, ten_rows(q, r, 1), kv, 1, &rows, (real)(1 / sqrt(w->dim)), w->cap,
                     w->window);
            real *got = host_of(dev, one), *want = host_of(dev, ten_rows(o, r, 1));
            same = memcmp(got, want, (size_t)o.cols * sizeof *got) == 0;
            free(got), free(want);
        }
    compare_true(c, "attend, a row alone", shape, same);
    k_free(dev, &one);
}

/* In bf16 the probabilities are rounded on both, at most one unit apart; backward the device also rounds
 * probabilities and score gradients before their products, which most of the CPU's paths keep: roundings of 2^-9 each,
 * of terms that partly cancel. */
static double bound_of(DType type, bool back) { return type == K_REAL ? 0x1p-17 : back ? 0x1p-6 : 0x1p-7; }

static void compare_world(Compare *c, const World *w, DType type) {
    char shape[64];
    shape_text(shape, "%s, %s", w->name, type == K_BF16 ? "bf16" : "fp32");
    Batch *b = batch_new(w);
    int m = b->rows.m, q_cols = w->heads * w->dim, kv_cols = w->groups * w->dim;
    real scale = (real)(1 / sqrt(w->dim));
    Two qkv = two_new(c, m, q_cols + 2 * kv_cols, 0, K_REAL, FILL_RANDOM, 1),
        q = two_new(c, m, q_cols, 0, type, FILL_NAN, 1);
    Two cos = two_new(c, ROWS, w->rotary / 2, 0, K_REAL, FILL_RANDOM, 1);
    Two sin = two_new(c, ROWS, w->rotary / 2, 0, K_REAL, FILL_RANDOM, 1);
    Two o = two_new(c, m, q_cols, 0, type, FILL_NAN, 1), lse = two_new(c, m, w->heads, 0, K_REAL, FILL_NAN, 1);
    Two dout = two_new(c, m, q_cols, 0, type, FILL_RANDOM, 1),
        dq = two_new(c, m, q_cols, 0, K_REAL, FILL_NAN, 1);
    Two dqkv = two_new(c, m, q_cols + 2 * kv_cols, 0, type, FILL_NAN, 1);
    Kv kv[2], dkv[2];
    BOTH {
        Dev *dev = c->dev[i];
        Ten turn_cos = w->rotary ? cos.at[i] : TEN_NONE, turn_sin = w->rotary ? sin.at[i] : TEN_NONE;
        kv[i] = kv_of(dev, w, type, false), dkv[i] = kv_of(dev, w, K_REAL, true);
        k_qkv(dev, q.at[i], &kv[i], 1, qkv.at[i], &b->rows, turn_cos, turn_sin);
        k_attend(dev, o.at[i], lse.at[i], q.at[i], &kv[i], 1, &b->rows, scale, w->cap, w->window);
    }
    check_alone(c, shape, w, b, &kv[0], q.at[0], o.at[0]);
    /* Backward from the same forward's results on both. */
    real *host_o = host_of(c->dev[1], o.at[1]), *host_lse = host_of(c->dev[1], lse.at[1]);
    Two same_o = two_new(c, m, q_cols, 0, type, FILL_NAN, 1),
        same_lse = two_new(c, m, w->heads, 0, K_REAL, FILL_NAN, 1);
    BOTH {
        Dev *dev = c->dev[i];
        Ten turn_cos = w->rotary ? cos.at[i] : TEN_NONE, turn_sin = w->rotary ? sin.at[i] : TEN_NONE;
        host_put(dev, same_o.at[i], host_o), host_put(dev, same_lse.at[i], host_lse);
        for (int more = 0; more < 2; more++) /* the pages' gradients are added to */
            k_attend_back(dev, dq.at[i], &dkv[i], dout.at[i], same_o.at[i], same_lse.at[i], q.at[i], &kv[i], 1,
                          &b->rows, scale, w->cap, w->window);
        k_qkv_back(dev, dqkv.at[i], dq.at[i], &dkv[i], 1, &b->rows, turn_cos, turn_sin);
    }
    two_check(c, "qkv", shape, &q, 0);
    two_check(c, "attend", shape, &o, bound_of(type, false)), two_check(c, "attend, lse", shape, &lse, 0x1p-17);
    two_check(c, "attend_back, dq", shape, &dq, bound_of(type, true));
    two_check(c, "attend_back, dk and dv", shape, &dqkv, bound_of(type, true));
    free(host_o), free(host_lse), free(b);
    Two *rest[] = {&qkv, &cos, &sin, &dout, &same_o, &same_lse};
    for (int i = 0; i < 6; i++) two_free(c, rest[i]);
    BOTH k_kv_free(c->dev[i], &kv[i]), k_kv_free(c->dev[i], &dkv[i]);
}

/* Pages are zeroed and copied, for all layers: seen through attention of the copies. */
static void compare_pages(Compare *c, DType type) {
    const World w = {"pages", 4, 2, 24, 0, 0, 0, 20, {-1}, false};
    int n = 20;
    Two qkv = two_new(c, n, (4 + 4) * 24, 0, K_REAL, FILL_RANDOM, 1),
        q = two_new(c, n, 4 * 24, 0, type, FILL_NAN, 1);
    Two o = two_new(c, n, 4 * 24, 0, type, FILL_NAN, 1);
    int pos[20], page[20], table[1] = {5};
    for (int i = 0; i < n; i++) pos[i] = i, page[i] = 4;
    KvSpan span = {0, n, 0, 0, 0, 0};
    Rows put = {.m = n, .tok = pos, .pos = pos, .page = page},
         see = {.m = n, .tok = pos, .pos = pos, .page = page};
    see.n_spans = 1, see.spans = &span, see.table = table;
    BOTH {
        Kv kv = kv_of(c->dev[i], &w, type, false);
        for (int layer = 0; layer < 2; layer++)
            k_qkv(c->dev[i], q.at[i], &kv, layer, qkv.at[i], &put, TEN_NONE, TEN_NONE);
        k_kv_copy(c->dev[i], &kv, (KvShare[]){{4, 5, 13}, {4, 6, 1}}, 2);
        k_kv_zero(c->dev[i], &kv, 4);
        k_kv_copy(c->dev[i], &kv, (KvShare[]){{4, 5, 3}}, 1); /* zeros over the first three */
        k_attend(c->dev[i], o.at[i], TEN_NONE, q.at[i], &kv, 1, &see, 0.2f, 0, 0);
        k_kv_free(c->dev[i], &kv);
    }
    two_check(c, "kv_copy, kv_zero", type == K_BF16 ? "bf16" : "fp32", &o, bound_of(type, false));
    two_free(c, &qkv), two_free(c, &q);
}

void compare_attention(Compare *c, bool all) {
    static const World worlds[] = {
        {"3 heads over 1 of 16", 3, 1, 16, 0, 16, 0, 37, {40, 1, 0, 33}, false},
        {"4 heads over 2 of 64, window 20", 4, 2, 64, 20, 64, 0, 70, {31, 65, -1}, false},
        {"2 heads of 80, cap", 2, 2, 80, 0, 32, 2, 33, {9, -1}, false},
        {"4 heads over 2 of 16, a row each", 4, 2, 16, 0, 16, 0, 32, {1, 0, 1, 1}, true},
        {"8 heads over 1 of 24, window 33", 8, 1, 24, 33, 0, 0, 64, {32, 33, -1}, false},
        {"5 heads of 6", 5, 5, 6, 0, 6, 0, 1, {1, 2, -1}, false},
        {"4 heads over 2 of 128", 4, 2, 128, 0, 128, 0, 31, {34, -1}, false},
        {"2 heads over 1 of 256, cap, window 64", 2, 1, 256, 64, 256, 3, 90, {10, 3, -1}, false},
        {"20 heads over 1 of 10, window 2", 20, 1, 10, 2, 10, 0, 40, {5, -1}, false},
    };
    for (int i = 0; i < (all ? 9 : 4); i++)
        for (int type = K_REAL; type <= K_BF16; type++) compare_world(c, &worlds[i], (DType)type);
    for (int type = K_REAL; type <= K_BF16; type++) compare_pages(c, (DType)type);
}
