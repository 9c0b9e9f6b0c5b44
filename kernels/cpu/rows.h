/* rows.h: the ops that work on rows one by one: copies, embedding, RMSNorm, gated units, gather and scatter.
 *
 * Threads share rows where a row is the unit of work, columns where rows are summed (embed_back, scatter): every
 * sum over rows is one chain in ascending order, for the gain of rmsnorm_back one over the sums of 32 rows each.
 * Included by body.h; no products, no attention. Tested by tests/test_kernels_rows.c. */
#include <limits.h>
#include <math.h>

enum { ITEM_WORK = 16384 }; /* elements of one item: a few microseconds */

static inline int ceil_div(int a, int b) { return (a + b - 1) / b; }
static inline int least(int a, int b) { return a < b ? a : b; }
static inline int most(int a, int b) { return a > b ? a : b; }
static inline int rows_of_item(int cols) { return cols >= ITEM_WORK ? 1 : ITEM_WORK / cols; }
static inline real s_sqrt(real x) {
    return (real)sqrt((double)x);
} /* an instruction; correctly rounded for float too */

/* ---- element by element ---- */

typedef struct { /* a shape cut into pieces of a row; dense tensors count as one long row */
    int rows, cols, across;
} Cut;

static inline bool ten_dense(Ten t) { return t.rows <= 1 || t.stride == t.cols; }
static inline Cut cut_of(int rows, int cols, bool dense) {
    if (dense && (long)rows * cols < INT_MAX - ITEM_WORK) cols *= rows, rows = rows > 0;
    return (Cut){rows, cols, ceil_div(cols, ITEM_WORK)};
}
/* Row, first column and end of an item's piece. */
static inline int cut_row(const Cut *cut, int item) { return item / cut->across; }
static inline int cut_from(const Cut *cut, int item) { return item % cut->across * ITEM_WORK; }
static inline int cut_end(const Cut *cut, int item) { return least(cut_from(cut, item) + ITEM_WORK, cut->cols); }

typedef struct {
    Ten y, x;
    Cut cut;
    bool add;
} PairJob;

static void pair_item(void *self, int item, int thread) {
    (void)thread;
    const PairJob *job = self;
    Row y = row_at(job->y, cut_row(&job->cut, item)), x = row_at(job->x, cut_row(&job->cut, item));
    int end = cut_end(&job->cut, item);
    for (int i = cut_from(&job->cut, item); i < end; i += 16) {
        Vec a = row_get(x, i, end);
        row_set(y, i, end, job->add ? v_add(row_get(y, i, end), a) : a);
    }
}

static void op_copy(Dev *dev, Ten dst, Ten src) {
    PairJob job = {dst, src, cut_of(dst.rows, dst.cols, ten_dense(dst) && ten_dense(src)), false};
    pool_run(dev->pool, job.cut.rows * job.cut.across, pair_item, &job);
}

typedef struct {
    Ten y, x;
    Cut cut;
    real s;
} ScaleJob;

static void scale_item(void *self, int item, int thread) {
    (void)thread;
    const ScaleJob *job = self;
    Row y = row_at(job->y, cut_row(&job->cut, item)), x = row_at(job->x, cut_row(&job->cut, item));
    int end = cut_end(&job->cut, item);
    for (int i = cut_from(&job->cut, item); i < end; i += 16)
        row_set(y, i, end, v_mul(row_get(x, i, end), v_set(job->s)));
}

static void op_scale(Dev *dev, Ten y, Ten x, real s) {
    ScaleJob job = {y, x, cut_of(y.rows, y.cols, ten_dense(y) && ten_dense(x)), s};
    pool_run(dev->pool, job.cut.rows * job.cut.across, scale_item, &job);
}

static void op_add(Dev *dev, Ten y, Ten x) {
    PairJob job = {y, x, cut_of(y.rows, y.cols, ten_dense(y) && ten_dense(x)), true};
    pool_run(dev->pool, job.cut.rows * job.cut.across, pair_item, &job);
}

/* ---- rows by index ---- */

static void row_clear(Row to, int n) {
    for (int i = 0; i < n; i += 16) row_set(to, i, n, v_set(0));
}

typedef struct {
    Ten to, from;
    const int *index; /* gather: source row of each output row; scatter: output row of each source row (NULL: the
                         first); -1: none */
    const int *page;  /* scatter: rows with page -1 are skipped; may be NULL */
    int per;
} IndexJob;

static void gather_item(void *self, int item, int thread) {
    (void)thread;
    const IndexJob *job = self;
    for (int r = item * job->per; r < least((item + 1) * job->per, job->to.rows); r++) {
        Row to = row_at(job->to, r);
        Row from = row_at(job->from, job->index[r] < 0 ? 0 : job->index[r]);
        for (int i = 0; i < job->to.cols; i += 16)
            row_set(to, i, job->to.cols, job->index[r] < 0 ? v_set(0) : row_get(from, i, job->to.cols));
    }
}

static void op_gather(Dev *dev, Ten y, Ten x, const int *index) {
    IndexJob job = {y, x, index, NULL, rows_of_item(y.cols)};
    pool_run(dev->pool, ceil_div(y.rows, job.per), gather_item, &job);
}

enum { SCATTER_COLS = 64, GAIN_ROWS = 32 };

static void scatter_item(void *self, int item, int thread) {
    (void)thread;
    const IndexJob *job = self;
    int from = item * SCATTER_COLS, end = least(from + SCATTER_COLS, job->to.cols);
    for (int r = 0; r < job->from.rows; r++) {
        int index = job->index ? job->index[r] : 0;
        if (index < 0 || (job->page && job->page[r] < 0)) continue;
        Row to = row_at(job->to, index), add = row_at(job->from, r);
        for (int i = from; i < end; i += 16) row_set(to, i, end, v_add(row_get(to, i, end), row_get(add, i, end)));
    }
}

static void op_scatter(Dev *dev, Ten x, Ten y, const int *index) {
    IndexJob job = {x, y, index, NULL, 0};
    pool_run(dev->pool, ceil_div(x.cols, SCATTER_COLS), scatter_item, &job);
}

static void op_embed_back(Dev *dev, Ten dw, Ten dx, const Rows *rows) {
    IndexJob job = {dw, dx, rows->tok, rows->page, 0};
    pool_run(dev->pool, ceil_div(dw.cols, SCATTER_COLS), scatter_item, &job);
}

typedef struct {
    Ten x;
    const Mat *w;
    const int *tok;
    int per;
} EmbedJob;

static void embed_item(void *self, int item, int thread) {
    (void)thread;
    const EmbedJob *job = self;
    size_t pairs = PAIRS(job->w->k);
    for (int r = item * job->per; r < least((item + 1) * job->per, job->x.rows); r++) {
        Row to = row_at(job->x, r), w = row_at(job->w->fwd, 0);
        int n = job->tok[r];
        size_t at = (size_t)(n / 16) * pairs * 32 + (size_t)(n % 16) * 2;
        for (int k = 0; k < job->w->k; k++) {
            size_t e = at + (size_t)(k / 2) * 32 + (size_t)(k % 2);
            to.f[k] = w.f ? w.f[e] : bf16_widen(w.h[e]);
        }
    }
}

static void op_embed(Dev *dev, Ten x, const Mat *w, const Rows *rows) {
    EmbedJob job = {x, w, rows->tok, rows_of_item(4 * w->k)};
    pool_run(dev->pool, ceil_div(x.rows, job.per), embed_item, &job);
}

/* ---- RMSNorm ---- */

typedef struct {
    Ten y, rstd, x, w, residual, dx, low, dw, dy;
    real eps;
    int per;
    Ten gains; /* backward, with dw: [items, E] each item's sum */
} NormJob;

static void rmsnorm_row(const NormJob *job, int r) {
    int d = job->w.cols;
    Row w = row_at(job->w, 0);
    for (int at = 0; at < job->x.cols; at += d) {
        Row x = row_skip(row_at(job->x, r), at), y = row_skip(row_at(job->y, r), at);
        Vec sum = v_set(0);
        for (int i = 0; i < d; i += 16) {
            Vec a = row_get(x, i, d);
            row_ahead(x, i);
            sum = v_fma(a, a, sum);
        }
        real rstd = 1 / s_sqrt(v_sum(sum) / (real)d + job->eps);
        for (int i = 0; i < d; i += 16) {
            Vec a = v_mul(row_get(w, i, d), v_mul(row_get(x, i, d), v_set(rstd)));
            if (ten_is(job->residual)) a = v_add(a, row_get(row_skip(row_at(job->residual, r), at), i, d));
            row_set(y, i, d, a);
        }
        if (ten_is(job->rstd)) row_at(job->rstd, r).f[at / d] = rstd;
    }
}

static void rmsnorm_item(void *self, int item, int thread) {
    (void)thread;
    const NormJob *job = self;
    for (int r = item * job->per; r < least((item + 1) * job->per, job->x.rows); r++) rmsnorm_row(job, r);
}

static void op_rmsnorm(Dev *dev, Ten y, Ten rstd, Ten x, Ten w, Ten residual, real eps) {
    NormJob job = {
        .y = y, .rstd = rstd, .x = x, .w = w, .residual = residual, .eps = eps, .per = rows_of_item(2 * x.cols)};
    pool_run(dev->pool, ceil_div(x.rows, job.per), rmsnorm_item, &job);
}

/* y of the run of columns from `at` on, of an even row and the one below it. */
static void norm_pairs(const NormJob *job, int r, int at) {
    int d = job->w.cols;
    Row w = row_at(job->w, 0), even = row_skip(row_at(job->x, r), at), odd = row_skip(row_at(job->x, r + 1), at);
    Vec scale0 = v_set(row_at(job->rstd, r).f[at / d]), scale1 = v_set(row_at(job->rstd, r + 1).f[at / d]);
    for (int i = 0; i < d; i += 16) {
        Vec gain = row_get(w, i, d);
        pairs_set(job->y, r, at + i, v_mul(gain, v_mul(row_get(even, i, d), scale0)),
                  v_mul(gain, v_mul(row_get(odd, i, d), scale1)));
    }
}

/* With n = x rstd: dx += rstd (w dy - n mean(w dy n)), gain += dy n and y = w n; what there is of them. */
static void rmsnorm_back_row(const NormJob *job, int r, Row gain) {
    int d = job->w.cols;
    Row w = row_at(job->w, 0);
    for (int at = 0; at < job->x.cols; at += d) {
        Row x = row_skip(row_at(job->x, r), at), dy = row_skip(row_at(job->dy, r), at);
        Row dx = row_or_none(job->dx, r, at), low = row_or_none(job->low, r, at);
        Vec sum = v_set(0), scale = v_set(row_at(job->rstd, r).f[at / d]);
        for (int i = 0; i < d; i += 16) {
            Vec n = v_mul(row_get(x, i, d), scale), g = row_get(dy, i, d);
            row_ahead(x, i), row_ahead(dy, i);
            if (dx.f) row_ahead(dx, i);
            sum = v_fma(v_mul(row_get(w, i, d), g), n, sum);
            if (gain.f) row_set(gain, i, d, v_fma(g, n, row_get(gain, i, d)));
        }
        Vec mean = v_set(-(v_sum(sum) / (real)d));
        Row y = job->y.type == K_BF16_PAIRS ? (Row){NULL, NULL} : row_or_none(job->y, r, at);
        for (int i = 0; i < d; i += 16) {
            Vec n = v_mul(row_get(x, i, d), scale), gain_of = row_get(w, i, d);
            Vec g = v_fma(n, mean, v_mul(gain_of, row_get(dy, i, d)));
            Vec all = v_fma(g, scale, dx.f ? row_get(dx, i, d) : v_set(0));
            if (dx.f) row_set(dx, i, d, all);
            if (low.f || low.h) row_set(low, i, d, all);
            if (y.f || y.h) row_set(y, i, d, v_mul(gain_of, n));
        }
        if (job->y.type == K_BF16_PAIRS && r % 2) norm_pairs(job, r - 1, at);
    }
}

static void rmsnorm_back_item(void *self, int item, int thread) {
    (void)thread;
    const NormJob *job = self;
    Row gain = {NULL, NULL};
    if (ten_is(job->dw)) row_clear(gain = row_at(job->gains, item), job->gains.cols);
    for (int r = item * job->per; r < least((item + 1) * job->per, job->x.rows); r++)
        rmsnorm_back_row(job, r, gain);
    if (job->y.type == K_BF16_PAIRS) far_end();
}

static void op_rmsnorm_back(Dev *dev, Ten dx, Ten low, Ten dw, Ten y, Ten dy, Ten x, Ten rstd, Ten w) {
    NormJob job = {.y = y, .rstd = rstd, .x = x, .w = w, .dx = dx, .low = low, .dw = dw, .dy = dy, .per = GAIN_ROWS};
    int items = ceil_div(x.rows, job.per), wide = ceil_div(w.cols, 16) * 16;
    if (ten_is(dw))
        job.gains =
            (Ten){dev_scratch(dev, 0, (size_t)items * (size_t)wide * sizeof(real)), items, w.cols, wide, K_REAL};
    pool_run(dev->pool, items, rmsnorm_back_item, &job);
    IndexJob sums = {dw, job.gains, NULL, NULL, 0};
    pool_run(dev->pool, ten_is(dw) ? ceil_div(w.cols, SCATTER_COLS) : 0, scatter_item, &sums);
}

/* ---- gated units ---- */

static inline Vec v_sigmoid(Vec g) { return v_div(v_set(1), v_add(v_set(1), v_exp(v_sub(v_set(0), g)))); }

/* The gate's sigmoid takes a(g): g itself, or 2 sqrt(2/pi) (g + 0.044715 g^3), and a'(g). */
#define GELU_1 ((real)1.5957691216057308)
#define GELU_3 ((real)0.07135481627260025)
static inline Vec v_gate(Vec g, GluKind kind) {
    return kind == GLU_SILU ? g : v_mul(g, v_fma(v_mul(g, g), v_set(GELU_3), v_set(GELU_1)));
}
static inline Vec v_gate_slope(Vec g, GluKind kind) {
    return kind == GLU_SILU ? v_set(1) : v_fma(v_mul(g, g), v_set(3 * GELU_3), v_set(GELU_1));
}

typedef struct {
    Ten h, gu, dgu, dh;
    GluKind kind;
    int per;
} GluJob;

static void glu_item(void *self, int item, int thread) {
    (void)thread;
    const GluJob *job = self;
    int f = job->h.cols;
    for (int r = item * job->per; r < least((item + 1) * job->per, job->h.rows); r++) {
        Row h = row_at(job->h, r), gr = row_at(job->gu, r), u = row_skip(gr, f);
        for (int i = 0; i < f; i += 16) {
            Vec g = row_get(gr, i, f);
            row_ahead(gr, i), row_ahead(u, i);
            row_set(h, i, f, v_mul(v_mul(g, v_sigmoid(v_gate(g, job->kind))), row_get(u, i, f)));
        }
    }
}

static void op_glu(Dev *dev, Ten h, Ten gu, GluKind kind) {
    GluJob job = {.h = h, .gu = gu, .kind = kind, .per = rows_of_item(2 * h.cols)};
    pool_run(dev->pool, ceil_div(h.rows, job.per), glu_item, &job);
}

typedef struct { /* rows of a GluJob's tensors */
    Row g, u, dg, du, dh;
} GluRows;

static GluRows glu_rows(const GluJob *job, int r) {
    int f = job->dh.cols;
    Row gu = row_at(job->gu, r), dgu = row_at(job->dgu, r);
    return (GluRows){gu, row_skip(gu, f), dgu, row_skip(dgu, f), row_at(job->dh, r)};
}

/* With s = sigmoid(a(g)): d(g s)/dg = s (1 + g (1 - s) a'(g)). Gives h. */
static inline Vec glu_back_lanes(GluRows row, int i, int f, GluKind kind) {
    Vec g = row_get(row.g, i, f), d = row_get(row.dh, i, f), s = v_sigmoid(v_gate(g, kind)), one = v_set(1);
    row_ahead(row.g, i), row_ahead(row.u, i), row_ahead(row.dh, i);
    Vec rise = v_mul(v_mul(g, v_gate_slope(g, kind)), v_sub(one, s)), u = row_get(row.u, i, f), gs = v_mul(g, s);
    row_set(row.dg, i, f, v_mul(v_mul(d, u), v_mul(s, v_add(rise, one))));
    row_set(row.du, i, f, v_mul(d, gs));
    return v_mul(gs, u);
}

static void glu_back_item(void *self, int item, int thread) {
    (void)thread;
    const GluJob *job = self;
    const int f = job->dh.cols, end = least((item + 1) * job->per, job->dh.rows);
    const bool pairs = job->h.type == K_BF16_PAIRS;
    for (int r = item * job->per; r < end; r += pairs ? 2 : 1) {
        GluRows row = glu_rows(job, r), below = glu_rows(job, pairs ? r + 1 : r);
        Row h = ten_is(job->h) && !pairs ? row_at(job->h, r) : (Row){NULL, NULL};
        for (int i = 0; i < f; i += 16) {
            Vec a = glu_back_lanes(row, i, f, job->kind);
            if (pairs)
                pairs_set(job->h, r, i, a, glu_back_lanes(below, i, f, job->kind));
            else if (ten_is(job->h))
                row_set(h, i, f, a);
        }
    }
    if (pairs) far_end();
}

static void op_glu_back(Dev *dev, Ten dgu, Ten h, Ten dh, Ten gu, GluKind kind) {
    GluJob job = {.h = h, .gu = gu, .dgu = dgu, .dh = dh, .kind = kind};
    job.per = ceil_div(rows_of_item(2 * dh.cols), 2) * 2;
    pool_run(dev->pool, ceil_div(dh.rows, job.per), glu_back_item, &job);
}

/* ---- soft caps ---- */

typedef struct {
    Ten x;
    real cap;
    int per;
} CapJob;

static void softcap_item(void *self, int item, int thread) {
    (void)thread;
    const CapJob *job = self;
    for (int r = item * job->per; r < least((item + 1) * job->per, job->x.rows); r++) {
        Row x = row_at(job->x, r);
        for (int i = 0; i < job->x.cols; i += 16)
            row_set(x, i, job->x.cols, v_softcap(row_get(x, i, job->x.cols), job->cap));
    }
}

static void op_softcap(Dev *dev, Ten x, real cap) {
    CapJob job = {x, cap, rows_of_item(4 * x.cols)};
    pool_run(dev->pool, ceil_div(x.rows, job.per), softcap_item, &job);
}
