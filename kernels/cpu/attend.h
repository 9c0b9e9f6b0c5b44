/* attend.h: keys and values in pages, and attention over them (forward).
 *
 * One layer of a page holds, for each key-value head, the keys as [head_dim / 2][32 keys][2] and, after all heads'
 * keys, for each head the values as [16 key pairs][head_dim][2]. So a vector of scores is a broadcast pair of q
 * times pairs of 16 keys, and a vector of the output a broadcast pair of probabilities times pairs of 16 features.
 *
 * A chain is one query head of one row: its scores, running maximum, sum and output go through fixed fma chains
 * over ascending features and keys, whatever other chains share the registers. Chains of the rows and the query
 * heads of one key-value head are computed side by side. On the BF16 dot path pages of bf16 are multiplied by
 * VDPBF16PS, pair by pair, in the same order. Included by body.h after rows.h. Tested by
 * tests/test_kernels_attend.c. */

enum { HEAD_DIM_MAX = 256 };
#define UNMASKED ((real)1e30)
#define MASKED ((real)-1e30)

/* Block b of a layer of a page: the keys of head b, or the values of head b - heads. */
static inline Row kv_block(const Kv *kv, int layer, int page, int b) {
    size_t block = (size_t)kv->head_dim * KV_PAGE;
    size_t at = (((size_t)layer * (size_t)kv->pages + (size_t)page) * 2 * (size_t)kv->heads + (size_t)b) * block;
    return kv->type == K_BF16 ? (Row){NULL, (uint16_t *)kv->data.p + at} : (Row){(real *)kv->data.p + at, NULL};
}

/* ---- shares ---- */

typedef struct {
    Kv *kv;
    const KvShare *shares;
    int n, layer0; /* item: layer and head, from layer0 */
} ShareJob;

static char *kv_block_bytes(const Kv *kv, int layer, int page, int b) {
    Row row = kv_block(kv, layer, page, b);
    return row.f ? (char *)row.f : (char *)row.h;
}

static void share_item(void *self, int item, int thread) {
    (void)thread;
    const ShareJob *job = self;
    const Kv *kv = job->kv;
    int layer = job->layer0 + item / kv->heads, head = item % kv->heads;
    size_t dim = (size_t)kv->head_dim, size = dtype_size(kv->type);
    for (const KvShare *s = job->shares; s < job->shares + job->n; s++) {
        char *to = kv_block_bytes(kv, layer, s->dst, head), *from = kv_block_bytes(kv, layer, s->src, head);
        for (size_t i = 0; i < dim / 2; i++)
            memcpy(to + i * 2 * KV_PAGE * size, from + i * 2 * KV_PAGE * size, 2 * (size_t)s->n * size);
        to = kv_block_bytes(kv, layer, s->dst, kv->heads + head);
        from = kv_block_bytes(kv, layer, s->src, kv->heads + head);
        size_t whole = (size_t)(s->n / 2) * 2 * dim * size;
        memcpy(to, from, whole);
        if (s->n % 2)
            for (size_t i = 0; i < dim; i++) memcpy(to + whole + i * 2 * size, from + whole + i * 2 * size, size);
    }
}

static void op_kv_copy(Dev *dev, Kv *kv, const KvShare *shares, int n) {
    CHECK(!kv->grad, "pages of gradients are not copied");
    ShareJob job = {kv, shares, n, 0};
    pool_run(dev->pool, n ? kv->layers * kv->heads : 0, share_item, &job);
}

/* The gradients of copied slots go back to the slots they came from: one head's. */
static void share_back(const Kv *dkv, int layer, const KvShare *s, int head) {
    for (int b = head; b < 2 * dkv->heads; b += dkv->heads) {
        Row to = kv_block(dkv, layer, s->src, b), add = kv_block(dkv, layer, s->dst, b);
        int n = s->n * dkv->head_dim;
        for (int i = 0; i < n; i += 16) row_set(to, i, n, v_add(row_get(to, i, n), row_get(add, i, n)));
    }
}

/* ---- rows into pages ---- */

typedef struct {
    Ten q, qkv; /* backward: dq, dqkv */
    Kv *kv;
    int layer, per;
    const Rows *rows;
    Ten cos, sin;
} QkvJob;

static void row_fill(Row to, int n, const real *from) {
    for (int i = 0; i < n; i += 16) row_set(to, i, n, row_get((Row){(real *)from, NULL}, i, n));
}
static void row_copy(real *to, Row from, int n) {
    for (int i = 0; i < n; i += 16) row_set((Row){to, NULL}, i, n, row_get(from, i, n));
}

/* Heads of dim features one after the other, the first 2 cos.cols of each rotated by the angles of row pos; sign -1
 * turns back. Sin and cos of the row are shared by the two halves: y1 = x1 c - x2 s, y2 = x2 c + x1 s. */
static void heads_rotate(Row out, Row x, int heads, int dim, Ten cos, Ten sin, int pos, real sign) {
    const int half = ten_is(cos) ? cos.cols : 0;
    for (int i = 0; i < half; i += 16) {
        const Vec c = row_get(row_at(cos, pos), i, half), s = v_mul(row_get(row_at(sin, pos), i, half), v_set(sign));
        for (int at = 0; at < heads * dim; at += dim) {
            Row y = row_skip(out, at), x1 = row_skip(x, at);
            Vec a = row_get(x1, i, half), b = row_get(row_skip(x1, half), i, half);
            row_set(y, i, half, v_sub(v_mul(a, c), v_mul(b, s)));
            row_set(row_skip(y, half), i, half, v_add(v_mul(b, c), v_mul(a, s)));
        }
    }
    for (int at = 2 * half; at < heads * dim && 2 * half < dim; at += dim)
        for (int i = 0; i < dim - 2 * half; i += 16)
            row_set(row_skip(out, at), i, dim - 2 * half, row_get(row_skip(x, at), i, dim - 2 * half));
}

/* Room for one head in a page's type. */
typedef struct {
    real f[HEAD_DIM_MAX];
    uint16_t h[HEAD_DIM_MAX];
} OneHead;
static Row one_head(OneHead *room, Row like) { return like.f ? (Row){room->f, NULL} : (Row){NULL, room->h}; }

/* One slot's keys go in pairs, a page's width apart; its values as single numbers, two apart. */
static void key_put(Row to, int dim, Row x) {
    for (int i = 0; i < dim / 2; i++)
        if (to.f)
            memcpy(to.f + (size_t)i * 2 * KV_PAGE, x.f + 2 * i, 2 * sizeof *x.f);
        else
            memcpy(to.h + (size_t)i * 2 * KV_PAGE, x.h + 2 * i, 2 * sizeof *x.h);
}
static void value_put(Row to, int dim, Row x) {
    for (int i = 0; i < dim; i++)
        if (to.f)
            to.f[2 * i] = x.f[i];
        else
            to.h[2 * i] = x.h[i];
}

/* Whether row r + 1 is the odd slot of a pair of which row r is the even one. */
static bool rows_pair(const QkvJob *job, int r, int end) {
    const Rows *rows = job->rows;
    return r + 1 < end && rows->page[r] >= 0 && rows->page[r + 1] == rows->page[r] &&
           rows->pos[r + 1] == rows->pos[r] + 1 && rows->pos[r] % 2 == 0;
}

/* Their values, of one head: sixteen features of both at a time. False: the page or the head is not made so. */
static bool values_put(Row to, int dim, const real *even, const real *odd) {
    if (to.f || dim % 16) return false;
    for (int i = 0; i < dim; i += 16) {
        uint32_t both[16];
        v_pair_bf16(both, v_load(even + i), v_load(odd + i));
        memcpy(to.h + 2 * i, both, sizeof both);
    }
    return true;
}

/* Rows r and, if `pair`, r + 1. */
static void qkv_values(const QkvJob *job, int r, bool pair) {
    const Kv *kv = job->kv;
    const int dim = kv->head_dim, slot = job->rows->pos[r] % KV_PAGE;
    for (int g = 0; g < kv->heads; g++) {
        const Row value = row_skip(kv_block(kv, job->layer, job->rows->page[r], kv->heads + g), slot / 2 * 2 * dim);
        const int from = job->q.cols + (kv->heads + g) * dim;
        if (pair && values_put(value, dim, row_at(job->qkv, r).f + from, row_at(job->qkv, r + 1).f + from)) continue;
        for (int i = 0; i < (pair ? 2 : 1); i++) {
            OneHead room;
            Row one = one_head(&room, value);
            row_fill(one, dim, row_at(job->qkv, r + i).f + from);
            value_put(row_skip(value, (slot + i) % 2), dim, one);
        }
    }
}

static void qkv_row(const QkvJob *job, int r) {
    const Kv *kv = job->kv;
    int dim = kv->head_dim, page = job->rows->page[r], pos = job->rows->pos[r], slot = pos % KV_PAGE;
    Row q = row_at(job->q, r), in = row_at(job->qkv, r), k = row_skip(in, job->q.cols);
    OneHead room;
    if (page < 0) {
        row_clear(q, job->q.cols);
        return;
    }
    heads_rotate(q, in, job->q.cols / dim, dim, job->cos, job->sin, pos, 1);
    for (int g = 0; g < kv->heads; g++) {
        Row key = kv_block(kv, job->layer, page, g), one = one_head(&room, key);
        heads_rotate(one, row_skip(k, g * dim), 1, dim, job->cos, job->sin, pos, 1);
        key_put(row_skip(key, 2 * slot), dim, one);
    }
}

/* Fetches the lines that row r's keys will be written to: one in each pair of features. */
static void qkv_fetch(const QkvJob *job, int r) {
    const Kv *kv = job->kv;
    int page = job->rows->page[r], at = 2 * (job->rows->pos[r] % KV_PAGE);
    size_t pair = 2 * KV_PAGE * dtype_size(kv->type);
    for (int g = 0; page >= 0 && g < kv->heads; g++) {
        const char *k = kv_block_bytes(kv, job->layer, page, g) + (size_t)at * dtype_size(kv->type);
        for (int i = 0; i < kv->head_dim / 2; i++) __builtin_prefetch(k + (size_t)i * pair, 1);
    }
}

static void qkv_item(void *self, int item, int thread) {
    (void)thread;
    const QkvJob *job = self;
    const Rows *rows = job->rows;
    const int first = item * job->per, end = least(first + job->per, job->q.rows);
    for (int r = first, pair; r < end; r += 1 + pair) {
        pair = rows_pair(job, r, end);
        for (int i = 0; i <= pair; i++) {
            const int next = r + i + 1; /* its keys' lines, where they are others than this one's */
            if (next < end && (rows->page[next] != rows->page[next - 1] || rows->pos[next] % 16 == 0))
                qkv_fetch(job, next);
            qkv_row(job, r + i);
        }
        if (rows->page[r] >= 0) qkv_values(job, r, pair);
    }
}

static void op_qkv(Dev *dev, Ten q, Kv *kv, int layer, Ten qkv, const Rows *rows, Ten cos, Ten sin) {
    /* Many rows: neighbours in a sequence lie in the same lines of a page, which two threads would take from each
     * other. */
    int per = q.rows >= 2 * KV_PAGE * dev->threads ? KV_PAGE : rows_of_item(2 * qkv.cols);
    QkvJob job = {q, qkv, kv, layer, per, rows, cos, sin};
    pool_run(dev->pool, ceil_div(q.rows, job.per), qkv_item, &job);
    ShareJob shares = {kv, rows->shares, rows->n_shares, layer};
    pool_run(dev->pool, rows->n_shares ? kv->heads : 0, share_item, &shares);
}

static void qkv_back_row(const QkvJob *job, int r) {
    const Kv *dkv = job->kv;
    int dim = dkv->head_dim, page = job->rows->page[r], pos = job->rows->pos[r];
    Row dq = row_at(job->q, r), out = row_at(job->qkv, r), dk = row_skip(out, job->q.cols);
    if (page < 0) {
        row_clear(out, job->qkv.cols);
        return;
    }
    heads_rotate(out, dq, job->q.cols / dim, dim, job->cos, job->sin, pos, -1);
    for (int g = 0; g < dkv->heads; g++) {
        int at = pos % KV_PAGE * dim;
        Row k = row_skip(kv_block(dkv, job->layer, page, g), at);
        heads_rotate(row_skip(dk, g * dim), k, 1, dim, job->cos, job->sin, pos, -1);
        row_fill(row_skip(dk, (dkv->heads + g) * dim), dim,
                 kv_block(dkv, job->layer, page, dkv->heads + g).f + at);
    }
}

static void qkv_back_item(void *self, int item, int thread) {
    (void)thread;
    const QkvJob *job = self;
    for (int r = item * job->per; r < least((item + 1) * job->per, job->q.rows); r++) qkv_back_row(job, r);
}

static void op_qkv_back(Dev *dev, Ten dqkv, Ten dq, Kv *dkv, int layer, const Rows *rows, Ten cos, Ten sin) {
    QkvJob job = {dq, dqkv, dkv, layer, rows_of_item(2 * dqkv.cols), rows, cos, sin};
    pool_run(dev->pool, ceil_div(dq.rows, job.per), qkv_back_item, &job);
}

/* ---- attention ----
 * An item of work: up to CHAINS chains, the rows of a span's tile by the query heads of one key-value head. */

#ifdef TILES
enum { CHAINS = 32 };
#else
enum { CHAINS = 24 };
#endif

typedef struct {
    Ten o, lse, q;
    const Kv *kv;
    int layer;
    const Rows *rows;
    real scale, cap;
    int window;
    int group; /* query heads of a key-value head */
    int heads; /* of them in an item; heads_items such parts */
    int heads_items;
    int tile;   /* rows of an item */
    int *item0; /* [n_spans + 1] the first item of each span */
} AttendJob;

typedef struct {
    real q[CHAINS * HEAD_DIM_MAX];   /* [CHAINS][HEAD_DIM_MAX] */
    real out[CHAINS * HEAD_DIM_MAX]; /* [CHAINS][dim rounded up to 16] */
    real p[CHAINS * KV_PAGE];        /* scores, then probabilities */
#if defined BF16_DOT || defined TILES
    uint16_t q_pairs[CHAINS * HEAD_DIM_MAX]; /* in place of q and p where pages are bf16 */
    uint16_t p_pairs[CHAINS * KV_PAGE];
#endif
    real max[CHAINS + 16], sum[CHAINS + 16]; /* loaded sixteen at a time from any chain on */
    int shaped; /* TILES: the chains that the tiles are shaped for; 0: they are not */
} Chains;
#ifdef TILES
#include "kernels/cpu/attend_tiles.h"
#endif

/* Registers: tiles of CHAIN_TILE chains by VEC_TILE vectors, whose accumulators and operands fit the register
 * file. */
#ifdef __AVX512F__
enum { CHAIN_TILE = 8, VEC_TILE = 2 };
#else
enum { CHAIN_TILE = 4, VEC_TILE = 1 };
#endif
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

INLINE void pairs_load(Row row, size_t at, Vec *even, Vec *odd) {
    if (row.f)
        v_load_pairs(row.f + at, even, odd);
    else
        v_load_pairs_bf16(row.h + at, even, odd);
}
/* The first n pairs only, the others zero. */
static inline void pairs_load_n(Row row, size_t at, int n, Vec *even, Vec *odd) {
    real f[32] = {0};
    uint16_t h[32] = {0};
    if (row.f)
        memcpy(f, row.f + at, 2 * (size_t)n * sizeof *f);
    else
        memcpy(h, row.h + at, 2 * (size_t)n * sizeof *h);
    pairs_load(row.f ? (Row){f, NULL} : (Row){NULL, h}, 0, even, odd);
}

/* R chains times V vectors: c[r][v] += sum over pairs of a[r][2 i], a[r][2 i + 1] times the pairs of b. */
INLINE void chain_tile(const int R, const int V, real *c, size_t c_row, const real *a, size_t a_row, Row b,
                       size_t b_step, int pairs, int tail, ptrdiff_t ahead) {
    Vec acc[CHAIN_TILE][VEC_TILE];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) acc[r][v] =
        v_load(c + (size_t)r * c_row + 16 * v);
    for (int i = 0; i < pairs; i++) {
        Vec even[VEC_TILE], odd[VEC_TILE];
        UNROLL for (int v = 0; v < V; v++) {
            size_t at = (size_t)i * b_step + 32 * (size_t)v;
            __builtin_prefetch((const char *)(b.f ? (const void *)(b.f + at) : b.h + at) + ahead);
            if (tail)
                pairs_load_n(b, at, tail, &even[v], &odd[v]);
            else
                pairs_load(b, at, &even[v], &odd[v]);
        }
        const real *x = a + 2 * (size_t)i;
        UNROLL for (int r = 0; r < R; r++) {
            Vec x0 = v_set(x[(size_t)r * a_row]), x1 = v_set(x[(size_t)r * a_row + 1]);
            UNROLL for (int v = 0; v < V; v++) acc[r][v] = v_fma(x1, odd[v], v_fma(x0, even[v], acc[r][v]));
        }
    }
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++)
        v_store(c + (size_t)r * c_row + 16 * v, acc[r][v]);
}

#ifdef BF16_DOT
/* The same with pairs of bf16. */
INLINE void dot_tile(const int R, const int V, real *c, size_t c_row, const uint16_t *a, size_t a_row,
                     const uint16_t *b, size_t b_step, int pairs, int tail, ptrdiff_t ahead) {
    Vec acc[CHAIN_TILE][VEC_TILE];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) acc[r][v] =
        v_load(c + (size_t)r * c_row + 16 * v);
    for (int i = 0; i < pairs; i++) {
        Pairs w[VEC_TILE];
        UNROLL for (int v = 0; v < V; v++) {
            const uint16_t *at = b + (size_t)i * b_step + 32 * (size_t)v;
            __builtin_prefetch((const char *)at + ahead);
            w[v] = tail ? dot_load_n(at, tail) : dot_load(at);
        }
        UNROLL for (int r = 0; r < R; r++) {
            Pairs x = dot_set(a + (size_t)r * a_row + 2 * (size_t)i);
            UNROLL for (int v = 0; v < V; v++) acc[r][v] = v_dot(acc[r][v], x, w[v]);
        }
    }
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++)
        v_store(c + (size_t)r * c_row + 16 * v, acc[r][v]);
}
#endif

/* Scores of R chains from c on: q [chain][HEAD_DIM_MAX] times keys. */
INLINE void score_tile(const int R, Chains *s, int c, Row k, int dim, ptrdiff_t ahead) {
    for (int v = 0; v < KV_PAGE / 16; v += VEC_TILE) {
        real *p = s->p + c * KV_PAGE + 16 * v;
        Row b = row_skip(k, 32 * v);
        if (b.f)
            chain_tile(R, VEC_TILE, p, KV_PAGE, s->q + c * HEAD_DIM_MAX, HEAD_DIM_MAX, (Row){b.f, NULL},
                       2 * KV_PAGE, dim / 2, 0, ahead);
        else
#ifdef BF16_DOT
            dot_tile(R, VEC_TILE, p, KV_PAGE, s->q_pairs + c * HEAD_DIM_MAX, HEAD_DIM_MAX, b.h, 2 * KV_PAGE,
                     dim / 2, 0, ahead);
#else
            chain_tile(R, VEC_TILE, p, KV_PAGE, s->q + c * HEAD_DIM_MAX, HEAD_DIM_MAX, (Row){NULL, b.h},
                       2 * KV_PAGE, dim / 2, 0, ahead);
#endif
    }
}

/* Output of R chains from c on: probabilities [chain][32] times 16 V features of the values from e on. */
INLINE void value_part(const int R, const int V, Chains *s, int c, size_t wide, Row value, int dim, int e,
                       int pairs, int tail, ptrdiff_t ahead) {
    real *out = s->out + (size_t)c * wide + e;
    const real *p = s->p + c * KV_PAGE;
    size_t step = 2 * (size_t)dim;
    Row b = row_skip(value, 2 * e);
    if (b.f)
        chain_tile(R, V, out, wide, p, KV_PAGE, (Row){b.f, NULL}, step, pairs, tail, ahead);
    else
#ifdef BF16_DOT
        dot_tile(R, V, out, wide, s->p_pairs + c * KV_PAGE, KV_PAGE, b.h, step, pairs, tail, ahead);
#else
        chain_tile(R, V, out, wide, p, KV_PAGE, (Row){NULL, b.h}, step, pairs, tail, ahead);
#endif
}
INLINE void value_tile(const int R, Chains *s, int c, size_t wide, Row value, int dim, int pairs,
                       ptrdiff_t ahead) {
    int e = 0;
    for (; e + 16 * VEC_TILE <= dim; e += 16 * VEC_TILE)
        value_part(R, VEC_TILE, s, c, wide, value, dim, e, pairs, 0, ahead);
    for (; e + 16 <= dim; e += 16) value_part(R, 1, s, c, wide, value, dim, e, pairs, 0, ahead);
    if (e < dim) value_part(R, 1, s, c, wide, value, dim, e, pairs, dim - e, ahead);
}

/* The largest tile that n chains fill. */
static inline int tile_of(int n) { return n >= CHAIN_TILE ? CHAIN_TILE : n >= 4 ? 4 : n; }

static void chain_scores(Chains *s, int from, int to, Row k, int dim, ptrdiff_t ahead) {
#ifdef TILES
    if (k.h) {
        tiles_scores(s, from, to, k.h, dim, ahead);
        return;
    }
#endif
    for (int i = from * KV_PAGE; i < to * KV_PAGE; i += 16) v_store(s->p + i, v_set(0));
    for (int c = from, n; c < to; c += n) {
        n = tile_of(to - c);
        if (n > 4)
            score_tile(CHAIN_TILE, s, c, k, dim, ahead);
        else if (n == 4)
            score_tile(4, s, c, k, dim, ahead);
        else if (n == 3)
            score_tile(3, s, c, k, dim, ahead);
        else if (n == 2)
            score_tile(2, s, c, k, dim, ahead);
        else
            score_tile(1, s, c, k, dim, ahead);
    }
}

static void chain_values(Chains *s, int from, int to, size_t wide, Row v, int dim, int keys, ptrdiff_t ahead) {
    int pairs = (keys + 1) / 2;
#ifdef TILES
    if (v.h) {
        tiles_values(s, from, to, wide, v.h, dim, keys, ahead);
        return;
    }
#endif
    for (int c = from, n; c < to; c += n) {
        n = tile_of(to - c);
        if (n > 4)
            value_tile(CHAIN_TILE, s, c, wide, v, dim, pairs, ahead);
        else if (n == 4)
            value_tile(4, s, c, wide, v, dim, pairs, ahead);
        else if (n == 3)
            value_tile(3, s, c, wide, v, dim, pairs, ahead);
        else if (n == 2)
            value_tile(2, s, c, wide, v, dim, pairs, ahead);
        else
            value_tile(1, s, c, wide, v, dim, pairs, ahead);
    }
}

/* MASKED, UNMASKED, MASKED, 32 lanes each: a view of it says which of 32 keys are seen. */
#define FOUR(x) x, x, x, x
#define LANES32(x) FOUR(FOUR(x)), FOUR(FOUR(x))
static const real key_mask[96] = {LANES32(MASKED), LANES32(UNMASKED), LANES32(MASKED)};

/* Probabilities in bf16: v_exp's least is 0, then e^-87, which is not denormal. */
static inline void p_store(uint16_t *to, Vec p) {
#ifdef TILES
    normal_store_bf16(to, p);
#else
    v_store_bf16(to, p);
#endif
}

/* Probabilities i .. i+15 of chain c, as the product with the values takes them. */
static inline void chain_keep(Chains *s, int c, int i, Vec p, bool bf16) {
    uint16_t h[16];
    if (!bf16) {
        v_store(s->p + c * KV_PAGE + i, p);
        return;
    }
#if defined BF16_DOT || defined TILES
    (void)h;
    p_store(s->p_pairs + c * KV_PAGE + i, p);
#else
    v_store_bf16(h, p);
    v_store(s->p + c * KV_PAGE + i, v_load_bf16(h));
#endif
}

/* The scores of chain c over the block that begins with key0, scaled and masked, in place; at: its row's position.
 * The maximum of each lane. */
static inline Vec chain_mask(const AttendJob *job, Chains *s, int c, int at, int key0) {
    real *p = s->p + c * KV_PAGE;
    Vec p0 = v_mul(v_load(p), v_set(job->scale)), p1 = v_mul(v_load(p + 16), v_set(job->scale));
    if (job->cap > 0) p0 = v_softcap(p0, job->cap), p1 = v_softcap(p1, job->cap);
    int first = job->window ? most(0, at - job->window + 1 - key0) : 0, end = least(KV_PAGE, at - key0 + 1);
    if (first > 0 || end < KV_PAGE) {
        const real *low = key_mask + 32 - first, *high = key_mask + 64 - end;
        p0 = v_min(v_min(p0, v_load(low)), v_load(high));
        p1 = v_min(v_min(p1, v_load(low + 16)), v_load(high + 16));
    }
    v_store(p, p0), v_store(p + 16, p1);
    return v_max(p0, p1);
}

/* Scores of the n chains from c0 on, sixteen at most, become probabilities against their new maxima; what was summed
 * before is scaled to these. Maxima and sums are a chain a lane; lanes from n on keep what they have. */
static inline void chains_probable(const AttendJob *job, Chains *s, int c0, int n, size_t wide, int pos, int key0) {
    const bool bf16 = job->kv->type == K_BF16;
    Vec part[16];
    real down[16];
    for (int i = 0, at = pos + c0 / job->heads, h = c0 % job->heads; i < n; i++) {
        part[i] = chain_mask(job, s, c0 + i, at, key0);
        if (++h == job->heads) h = 0, at++;
    }
    for (int i = n; i < 16; i++) part[i] = v_set(MASKED);
    const Vec before = v_load(s->max + c0), max = v_max(v_tops(part), before), scale = v_exp(v_sub(before, max));
    v_store(s->max + c0, max);
    v_store(down, scale);
    for (int i = 0; i < n; i++) {
        real *p = s->p + (c0 + i) * KV_PAGE, *out = s->out + (size_t)(c0 + i) * wide;
        for (size_t e = 0; down[i] != 1 && e < wide; e += 16)
            v_store(out + e, v_mul(v_load(out + e), v_set(down[i])));
        const Vec shift = v_set(s->max[c0 + i]);
        Vec p0 = v_exp(v_sub(v_load(p), shift)), p1 = v_exp(v_sub(v_load(p + 16), shift));
        chain_keep(s, c0 + i, 0, p0, bf16);
        chain_keep(s, c0 + i, 16, p1, bf16);
        part[i] = v_add(p0, p1);
    }
    for (int i = n; i < 16; i++) part[i] = v_set(0);
    v_store(s->sum + c0, v_add(v_mul(v_load(s->sum + c0), scale), v_sums(part)));
}

/* The rows of a tile whose first is at position pos, against one block of keys. A row to which the block is masked
 * as a whole, from the right or from the left, does not see it at all. */
static void tile_block(const AttendJob *job, Chains *s, int pos, int n, int block, int g, int page, int next) {
    const Kv *kv = job->kv;
    int dim = kv->head_dim, key0 = block * KV_PAGE, heads = job->heads;
    size_t wide = (size_t)ceil_div(dim, 16) * 16;
    int first = most(0, key0 - pos), end = job->window ? least(n, key0 + KV_PAGE - 1 + job->window - pos) : n;
    if (first >= end) return;
    ptrdiff_t ahead = (next - page) * 2 * (ptrdiff_t)kv->heads * dim * KV_PAGE * (ptrdiff_t)dtype_size(kv->type);
    chain_scores(s, first * heads, end * heads, kv_block(kv, job->layer, page, g), dim, ahead);
    for (int c = first * heads; c < end * heads; c += 16)
        chains_probable(job, s, c, least(16, end * heads - c), wide, pos, key0);
    int keys = least(KV_PAGE, pos + end - key0);
    chain_values(s, first * heads, end * heads, wide, kv_block(kv, job->layer, page, kv->heads + g), dim, keys,
                 ahead);
}

static void tile_begin(const AttendJob *job, Chains *s, int row0, int n, int h0) {
    int dim = job->kv->head_dim, chains = n * job->heads;
    for (int c = 0; c < chains; c++) {
        Row q = row_skip(row_at(job->q, row0 + c / job->heads), (h0 + c % job->heads) * dim);
#if defined BF16_DOT || defined TILES
        if (q.h) {
            memcpy(s->q_pairs + c * HEAD_DIM_MAX, q.h, (size_t)dim * sizeof *q.h);
            memset(s->q_pairs + c * HEAD_DIM_MAX + dim, 0, (size_t)(ceil_div(dim, 32) * 32 - dim) * sizeof *q.h);
        } else
            row_copy(s->q + c * HEAD_DIM_MAX, q, dim);
#else
        row_copy(s->q + c * HEAD_DIM_MAX, q, dim);
#endif
    }
    for (int c = 0; c < CHAINS + 16; c++) s->max[c] = MASKED, s->sum[c] = 0;
    s->shaped = 0;
    int wide = ceil_div(dim, 16) * 16;
    for (int i = 0; i < chains * wide; i += 16) v_store(s->out + i, v_set(0));
}

/* The log-sum-exp of every chain: a loop that becomes vectors. */
static void chains_lse(real *restrict lse, const real *restrict max, const real *restrict sum) {
    for (int c = 0; c < CHAINS; c++) lse[c] = max[c] + s_log(sum[c]);
}

static void tile_end(const AttendJob *job, Chains *s, int row0, int n, int h0) {
    int dim = job->kv->head_dim, wide = ceil_div(dim, 16) * 16;
    real lse[CHAINS];
    if (ten_is(job->lse)) chains_lse(lse, s->max, s->sum);
    for (int c = 0; c < n * job->heads; c++) {
        int r = row0 + c / job->heads, h = h0 + c % job->heads;
        Row o = row_skip(row_at(job->o, r), h * dim), out = {s->out + c * wide, NULL};
        Vec inverse = v_set(1 / s->sum[c]);
        for (int e = 0; e < dim; e += 16) row_set(o, e, dim, v_mul(row_get(out, e, wide), inverse));
        if (ten_is(job->lse)) row_at(job->lse, r).f[h] = lse[c];
    }
}

static void attend_item(void *self, int item, int thread) {
    (void)thread;
    const AttendJob *job = self;
    int low = 0, high = job->rows->n_spans; /* the span with item0[low] <= item < item0[low + 1] */
    while (high - low > 1) {
        int mid = (low + high) / 2;
        if (job->item0[mid] <= item)
            low = mid;
        else
            high = mid;
    }
    const KvSpan *span = &job->rows->spans[low];
    int tiles = ceil_div(span->n, job->tile), local = item - job->item0[low];
    int row = (tiles - 1 - local % tiles) * job->tile, part = local / tiles, n = least(job->tile, span->n - row);
    int g = part / job->heads_items, h = part % job->heads_items * job->heads;
    AttendJob mine = *job;
    mine.heads = least(job->heads, job->group - h);
    h += g * job->group;
    int pos = span->pos0 + row, first = job->window ? most(0, pos - job->window + 1) / KV_PAGE : 0;
    Chains s;
    tile_begin(&mine, &s, span->row0 + row, n, h);
    const int *table = job->rows->table + span->table;
    for (int block = first, last = (pos + n - 1) / KV_PAGE; block <= last; block++)
        tile_block(&mine, &s, pos, n, block, g, table[block], table[least(block + 1, last)]);
    tile_end(&mine, &s, span->row0 + row, n, h);
#ifdef TILES
    if (s.shaped) TILE_RELEASE();
#endif
}

static void op_attend(Dev *dev, Ten o, Ten lse, Ten q, const Kv *kv, int layer, const Rows *rows, real scale,
                      real cap, int window) {
    CHECK(kv->head_dim <= HEAD_DIM_MAX, "head_dim %d is above %d", kv->head_dim, HEAD_DIM_MAX);
    AttendJob job = {.o = o,
                     .lse = lse,
                     .q = q,
                     .kv = kv,
                     .layer = layer,
                     .rows = rows,
                     .scale = scale,
                     .cap = cap,
                     .window = window};
    job.group = q.cols / (kv->heads * kv->head_dim);
    job.heads = least(job.group, CHAINS);
    job.heads_items = ceil_div(job.group, job.heads);
    job.tile = CHAINS / job.heads;
    job.item0 = dev_scratch(dev, 0, (size_t)(rows->n_spans + 1) * sizeof(int));
    job.item0[0] = 0;
    for (int i = 0; i < rows->n_spans; i++)
        job.item0[i + 1] = job.item0[i] + ceil_div(rows->spans[i].n, job.tile) * kv->heads * job.heads_items;
    for (int r = 0; r < o.rows; r++) {
        if (rows->page[r] >= 0) continue;
        row_clear(row_at(o, r), o.cols);
        if (ten_is(lse)) row_clear(row_at(lse, r), lse.cols);
    }
    pool_run(dev->pool, job.item0[rows->n_spans], attend_item, &job);
}
