/* attend_back.h: attention, backward: probabilities are computed again from the log-sum-exp of the forward pass,
 * in fp32 over the stored operands (pages of bf16 on paths that multiply pairs of it: attend_back_pairs.h).
 * Included by body.h after attend.h. Tested by tests/test_kernels_attend.c.
 *
 * With s = scale q k, p = exp(s - lse), dp = dout v, D = dout o: ds = p (dp - D) scale (under a cap s = cap
 * tanh(scale q k / cap), and ds gains the factor 1 - (s / cap)^2); dq = sum ds k; dk += ds q; dv += p dout. A
 * group of spans and one key-value head go through spans, chunks of rows and pages in ascending order, so each dk
 * and dv is one chain over rows and, inside a row, query heads. An item of work is one span of these: it waits for
 * the span before it, which another thread may have in work, so that three heads keep two threads busy. Vectors
 * run over the chains of a chunk (scores, dp, dq) or over features (dk, dv): all five products are plain ones on
 * fp32 scratch. */

#include <sched.h>
#include <stdatomic.h>

enum { BACK_CHAINS = 96 };

typedef struct {
    int span, head;
    int chain, before; /* group and head; its spans before this one */
} BackItem;

typedef struct {
    Ten dq, dout, o, lse, q;
    const Kv *kv;
    Kv *dkv;
    int layer;
    const Rows *rows;
    real scale, cap;
    int window;
    int group;     /* query heads of a key-value head */
    int chunk;     /* rows */
    int wide_c;    /* chains of a chunk, rounded up to whole vectors or, with pairs, to 32 */
    int wide_e;    /* features, likewise */
    bool pairs;    /* attend_back_pairs.h */
    BackItem *items;
    atomic_int *next; /* the next item; [1 + chain] the spans of a group's head that are done */
    real *mask;    /* MASKED, UNMASKED, MASKED, wide_c lanes each */
    real *scratch; /* of all threads */
    size_t scratch_each;
} BackJob;

typedef struct {            /* views into a thread's scratch; C = wide_c, E = wide_e */
    real *qt, *dot, *dqt;   /* [head_dim][C] */
    real *q, *dout;         /* [chain][E] */
    real *p, *ds;           /* [32][C] */
    real *lse, *d;          /* [C] */
    real *keys;             /* [head_dim][32] */
    real *values, *dk, *dv; /* [32][E] */
} Back;

static size_t back_layout(Back *b, real *p, int dim, int wide_c, int wide_e) {
    size_t c = (size_t)wide_c, e = (size_t)wide_e, at = 0;
    size_t sizes[] = {
        (size_t)dim * c,       (size_t)dim * c, (size_t)dim * c, c * e,      c * e, KV_PAGE * c, KV_PAGE * c, c, c,
        (size_t)dim * KV_PAGE, KV_PAGE * e,     KV_PAGE * e,     KV_PAGE * e};
    real **views[] = {&b->qt,  &b->dot, &b->dqt,  &b->q,      &b->dout, &b->p, &b->ds,
                      &b->lse, &b->d,   &b->keys, &b->values, &b->dk,   &b->dv};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (p) *views[i] = p + at;
        at += (sizes[i] + 15) / 16 * 16;
    }
    return at;
}

/* ---- c[m][n] (+)= a b, one chain over k for each element; n in whole vectors ---- */

typedef struct {
    const real *p;
    size_t row, step; /* from one row to the next, from one k to the next */
} Strided;

INLINE void plain_tile(const int R, const int V, real *c, size_t c_row, Strided a, const real *b, size_t b_row,
                       int k, bool fresh) {
    Vec acc[CHAIN_TILE][VEC_TILE];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) acc[r][v] =
        fresh ? v_set(0) : v_load(c + (size_t)r * c_row + 16 * v);
    for (int i = 0; i < k; i++, b += b_row) {
        Vec w[VEC_TILE];
        UNROLL for (int v = 0; v < V; v++) w[v] = v_load(b + 16 * v);
        UNROLL for (int r = 0; r < R; r++) {
            Vec x = v_set(a.p[(size_t)r * a.row + (size_t)i * a.step]);
            UNROLL for (int v = 0; v < V; v++) acc[r][v] = v_fma(x, w[v], acc[r][v]);
        }
    }
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++)
        v_store(c + (size_t)r * c_row + 16 * v, acc[r][v]);
}

static void plain_product(real *c, size_t c_row, Strided a, const real *b, size_t b_row, int m, int n, int k,
                          bool fresh) {
    for (int j = 0; j < n;) {
        bool wide = VEC_TILE == 2 && j + 32 <= n;
        for (int i = 0; i < m;) {
            Strided x = {a.p + (size_t)i * a.row, a.row, a.step};
            real *to = c + (size_t)i * c_row + j;
            bool tall = i + CHAIN_TILE <= m;
            if (wide && tall)
                plain_tile(CHAIN_TILE, VEC_TILE, to, c_row, x, b + j, b_row, k, fresh);
            else if (wide)
                plain_tile(1, VEC_TILE, to, c_row, x, b + j, b_row, k, fresh);
            else if (tall)
                plain_tile(CHAIN_TILE, 1, to, c_row, x, b + j, b_row, k, fresh);
            else
                plain_tile(1, 1, to, c_row, x, b + j, b_row, k, fresh);
            i += tall ? CHAIN_TILE : 1;
        }
        j += wide ? 32 : 16;
    }
}

/* ---- a chunk of rows ---- */

static void chunk_begin(const BackJob *job, Back *b, int row0, int n, int g) {
    int dim = job->kv->head_dim, count = n * job->group;
    for (int c = 0; c < job->wide_c; c++) {
        real *q = b->q + c * job->wide_e, *dout = b->dout + c * job->wide_e;
        row_clear((Row){q, NULL}, job->wide_e);
        row_clear((Row){dout, NULL}, job->wide_e);
        b->lse[c] = b->d[c] = 0;
        if (c >= count) continue;
        int r = row0 + c / job->group, h = g * job->group + c % job->group;
        Row from = row_skip(row_at(job->q, r), h * dim), o = row_skip(row_at(job->o, r), h * dim);
        Row grad = row_skip(row_at(job->dout, r), h * dim);
        Vec sum = v_set(0);
        for (int e = 0; e < dim; e += 16) {
            v_store(q + e, row_get(from, e, dim));
            v_store(dout + e, row_get(grad, e, dim));
            sum = v_fma(row_get(grad, e, dim), row_get(o, e, dim), sum);
        }
        b->lse[c] = row_at(job->lse, r).f[h];
        b->d[c] = v_sum(sum);
    }
    for (int e = 0; e < dim; e++)
        for (int c = 0; c < job->wide_c; c++) {
            b->qt[e * job->wide_c + c] = b->q[c * job->wide_e + e];
            b->dot[e * job->wide_c + c] = b->dout[c * job->wide_e + e];
        }
    row_clear((Row){b->dqt, NULL}, dim * job->wide_c);
}

static void chunk_end(const BackJob *job, const Back *b, int row0, int n, int g) {
    int dim = job->kv->head_dim;
    for (int c = 0; c < n * job->group; c++) {
        real *dq = row_at(job->dq, row0 + c / job->group).f + (g * job->group + c % job->group) * dim;
        for (int e = 0; e < dim; e++) dq[e] = b->dqt[e * job->wide_c + c];
    }
}

/* A page's keys and values into scratch. */
static void page_load(const BackJob *job, Back *b, int page, int g) {
    int dim = job->kv->head_dim;
    Row k = kv_block(job->kv, job->layer, page, g), v = kv_block(job->kv, job->layer, page, job->kv->heads + g);
    Vec even, odd;
    for (int i = 0; i < dim / 2; i++)
        for (int half = 0; half < KV_PAGE; half += 16) {
            pairs_load(k, (size_t)(i * 2 * KV_PAGE + 2 * half), &even, &odd);
            v_store(b->keys + 2 * i * KV_PAGE + half, even);
            v_store(b->keys + (2 * i + 1) * KV_PAGE + half, odd);
        }
    for (int i = 0; i < KV_PAGE / 2; i++)
        for (int e = 0; e < dim; e += 16) {
            size_t at = (size_t)(i * dim + e) * 2;
            if (dim - e >= 16)
                pairs_load(v, at, &even, &odd);
            else
                pairs_load_n(v, at, dim - e, &even, &odd);
            v_store(b->values + 2 * i * job->wide_e + e, even);
            v_store(b->values + (2 * i + 1) * job->wide_e + e, odd);
        }
}

/* A page's gradients so far into scratch, and back. */
static void page_grads(const BackJob *job, const Back *b, int page, int g, bool store) {
    int dim = job->kv->head_dim;
    Row dk = kv_block(job->dkv, job->layer, page, g),
        dv = kv_block(job->dkv, job->layer, page, job->kv->heads + g);
    for (int i = 0; i < KV_PAGE; i++, dk = row_skip(dk, dim), dv = row_skip(dv, dim)) {
        real *k = b->dk + i * job->wide_e, *v = b->dv + i * job->wide_e;
        if (store)
            row_fill(dk, dim, k), row_fill(dv, dim, v);
        else
            row_copy(k, dk, dim), row_copy(v, dv, dim);
    }
}

static inline int clamp(int x, int low, int high) { return x < low ? low : x > high ? high : x; }

/* Which of the chains c .. c+15 see a key: bounds for their scores. */
typedef struct {
    const real *low, *high;
} Seen;
static Seen key_seen(const BackJob *job, int pos, int key) {
    int wide = job->wide_c, first = clamp((key - pos) * job->group, 0, wide), end = wide;
    if (job->window) end = clamp((key + job->window - pos) * job->group, 0, wide);
    return (Seen){job->mask + wide - first, job->mask + 2 * wide - end};
}

/* q k and dout v of chains c .. c+15 with one key become their probabilities and the gradients of q k. */
INLINE void chains_softmax(const BackJob *job, const Back *b, Seen seen, int c, Vec *p, Vec *ds) {
    Vec s = v_mul(*p, v_set(job->scale)), slope = v_set(job->scale);
    if (job->cap > 0) {
        s = v_softcap(s, job->cap);
        slope = v_mul(slope, v_softcap_slope(s, 1 / job->cap));
    }
    *p = v_exp(v_sub(v_min(v_min(s, v_load(seen.low + c)), v_load(seen.high + c)), v_load(b->lse + c)));
    *ds = v_mul(v_mul(*p, v_sub(*ds, v_load(b->d + c))), slope);
}

static void page_softmax(const BackJob *job, Back *b, int pos, int key0, int keys, int c0, int c1) {
    for (int i = 0; i < keys; i++) {
        const Seen seen = key_seen(job, pos, key0 + i);
        for (int c = c0; c < c1; c += 16) {
            real *p = b->p + i * job->wide_c + c, *ds = b->ds + i * job->wide_c + c;
            Vec vp = v_load(p), vds = v_load(ds);
            chains_softmax(job, b, seen, c, &vp, &vds);
            v_store(p, vp);
            v_store(ds, vds);
        }
    }
}

/* One chunk of rows, the first of which is at pos, against one block of keys. */
static void chunk_block(const BackJob *job, Back *b, int pos, int n, int block, int page, int g) {
    int dim = job->kv->head_dim, key0 = block * KV_PAGE, count = n * job->group;
    int keys = least(KV_PAGE, (pos + n - key0 + 7) / 8 * 8); /* whole tiles; keys past the last row are masked */
    int c0 = most(0, key0 - pos) * job->group / 16 * 16;     /* chains before it see nothing of the block */
    int c1 = ceil_div(count, 16) * 16;
    size_t C = (size_t)job->wide_c, E = (size_t)job->wide_e;
    page_load(job, b, page, g);
    page_grads(job, b, page, g, false);
    plain_product(b->p + c0, C, (Strided){b->keys, 1, KV_PAGE}, b->qt + c0, C, keys, c1 - c0, dim, true);
    plain_product(b->ds + c0, C, (Strided){b->values, E, 1}, b->dot + c0, C, keys, c1 - c0, dim, true);
    page_softmax(job, b, pos, key0, keys, c0, c1);
    plain_product(b->dqt + c0, C, (Strided){b->keys, KV_PAGE, 1}, b->ds + c0, C, dim, c1 - c0, keys, false);
    Strided ds = {b->ds + c0, C, 1}, p = {b->p + c0, C, 1};
    plain_product(b->dk, E, ds, b->q + (size_t)c0 * E, E, keys, job->wide_e, count - c0, false);
    plain_product(b->dv, E, p, b->dout + (size_t)c0 * E, E, keys, job->wide_e, count - c0, false);
    page_grads(job, b, page, g, true);
}

#if defined TILES || defined BF16_DOT
#include "kernels/cpu/attend_back_pairs.h"
#define PAIRS_OF_PAGES(kv) ((kv)->type == K_BF16)
#else
#define PAIRS_OF_PAGES(kv) false
#endif

/* Numbers of a thread's scratch. */
static size_t back_scratch(int dim, int wide_c, int wide_e) {
    Back unused;
    size_t all = back_layout(&unused, NULL, dim, wide_c, wide_e);
#if defined TILES || defined BF16_DOT
    BackPairs none;
    all += back_pairs_layout(&none, NULL, wide_c, wide_e);
#endif
    return all;
}

static void back_chunk(const BackJob *job, Back *b, const KvSpan *span, int row, int g) {
    int n = least(job->chunk, span->n - row), pos = span->pos0 + row;
    int first = job->window ? most(0, pos - job->window + 1) / KV_PAGE : 0, last = (pos + n - 1) / KV_PAGE;
    const int *table = job->rows->table + span->table;
#if defined TILES || defined BF16_DOT
    if (job->pairs) {
        Back fp32;
        BackPairs low;
        size_t before = back_layout(&fp32, NULL, job->wide_e, job->wide_c, job->wide_e);
        back_pairs_layout(&low, (uint16_t *)(b->qt + before), job->wide_c, job->wide_e);
        pairs_begin(job, b, &low, span->row0 + row, n, g);
        for (int block = first, at = span->row0 + row + n; block <= last; block++) {
            /* the next chunk's rows, shared out among this one's blocks */
            int end = span->row0 + row + n + job->chunk * (block - first + 1) / (last - first + 1);
            low.fetch = at, low.fetch_end = at = least(end, job->dq.rows);
            pairs_block(job, b, &low, pos, n, block, table[block], g);
        }
        pairs_end(job, b, span->row0 + row, n, g);
        return;
    }
#endif
    chunk_begin(job, b, span->row0 + row, n, g);
    for (int block = first; block <= last; block++) chunk_block(job, b, pos, n, block, table[block], g);
    chunk_end(job, b, span->row0 + row, n, g);
}

/* Items are taken in their own order, whatever the pool's: what one waits for is then done or in work. */
static void attend_back_item(void *self, int any, int thread) {
    (void)any;
    const BackJob *job = self;
    const BackItem *item = &job->items[atomic_fetch_add(job->next, 1)];
    const KvSpan *span = &job->rows->spans[item->span];
    Back b;
    back_layout(&b, job->scratch + (size_t)thread * job->scratch_each,
                job->pairs ? job->wide_e : job->kv->head_dim, job->wide_c, job->wide_e);
    while (atomic_load(&job->next[1 + item->chain]) < item->before) sched_yield();
#ifdef TILES
    if (job->pairs) tiles_shape(TILES_ROWS);
#endif
    for (int row = 0; row < span->n; row += job->chunk) back_chunk(job, &b, span, row, item->head);
    if (span->share) share_back(job->dkv, job->layer, &job->rows->shares[span->share - 1], item->head);
#ifdef TILES
    if (job->pairs) TILE_RELEASE();
#endif
    atomic_fetch_add(&job->next[1 + item->chain], 1);
}

/* Every group's first span, head by head, then every group's second one. */
static void back_items(Dev *dev, BackJob *job) {
    const Rows *rows = job->rows;
    const int heads = job->kv->heads, n = rows->n_spans * heads;
    job->items = dev_scratch(dev, 0, (size_t)n * sizeof *job->items + (size_t)(n + 1) * sizeof *job->next);
    job->next = (atomic_int *)(job->items + n);
    for (int i = 0; i <= n; i++) atomic_init(&job->next[i], 0);
    for (int before = 0, at = 0; at < n; before++)
        for (int i = 0, first = 0, group = -1; i < rows->n_spans; i++) {
            if (i == 0 || rows->spans[i].group != rows->spans[i - 1].group) first = i, group++;
            for (int h = 0; i - first == before && h < heads; h++)
                job->items[at++] = (BackItem){i, h, group * heads + h, before};
        }
}

/* Rows of a chunk: with pairs a power of two, so that 32 rows are whole chunks. */
static int back_rows(int group, bool pairs) {
    int rows = most(1, BACK_CHAINS / group), whole = 32;
    while (whole > rows) whole /= 2;
    return pairs ? whole : rows;
}

static void op_attend_back(Dev *dev, Ten dq, Kv *dkv, Ten dout, Ten o, Ten lse, Ten q, const Kv *kv, int layer,
                           const Rows *rows, real scale, real cap, int window) {
    CHECK(kv->head_dim <= HEAD_DIM_MAX, "head_dim %d is above %d", kv->head_dim, HEAD_DIM_MAX);
    BackJob job = {.dq = dq,
                   .dout = dout,
                   .o = o,
                   .lse = lse,
                   .q = q,
                   .kv = kv,
                   .dkv = dkv,
                   .layer = layer,
                   .rows = rows,
                   .scale = scale,
                   .cap = cap,
                   .window = window};
    int dim = kv->head_dim;
    job.group = q.cols / (kv->heads * dim);
    job.pairs = PAIRS_OF_PAGES(kv);
    job.chunk = back_rows(job.group, job.pairs);
    int whole = job.pairs ? 32 : 16;
    job.wide_c = ceil_div(job.chunk * job.group, whole) * whole;
    job.wide_e = ceil_div(dim, whole) * whole;
    back_items(dev, &job);
    job.scratch_each = back_scratch(job.pairs ? job.wide_e : dim, job.wide_c, job.wide_e);
    size_t mask = 3 * (size_t)job.wide_c;
    job.mask = dev_scratch(dev, 1, (mask + job.scratch_each * (size_t)dev->threads) * sizeof(real));
    job.scratch = job.mask + mask;
    for (size_t i = 0; i < mask; i++) job.mask[i] = i / (size_t)job.wide_c == 1 ? UNMASKED : MASKED;
    for (int r = 0; r < dq.rows; r++)
        if (rows->page[r] < 0) row_clear(row_at(dq, r), dq.cols);
    pool_run(dev->pool, rows->n_spans * kv->heads, attend_back_item, &job);
}
