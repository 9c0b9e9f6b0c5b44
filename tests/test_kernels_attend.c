/* test_kernels_attend.c: keys and values in pages, attention and its gradient: against a naive reference in double
 * and its finite differences; bit for bit the same on all paths, for one row or many, in shared, copied and reused
 * pages, and however the batch is cut. */
#include "tests/kernels_help.h"

enum { ROWS_MAX = 320, SPANS_MAX = 16, TABLE_MAX = 64, SHARES_MAX = 4, PAGES = 24 };

/* Rows of qkv, each with the row before it in its sequence (-1: none): rows with one parent share what lies
 * before. */
typedef struct {
    int heads, groups, dim, window; /* query heads, key-value heads */
    int half;                       /* pairs of a head that turn */
    double cap;
    DType type;
    int m;
    int parent[ROWS_MAX], pos[ROWS_MAX];
    real *qkv, *cos, *sin;
} World;

static int world_cols(const World *w) { return (w->heads + 2 * w->groups) * w->dim; }

static World world_new(int heads, int groups, int dim, int window, int half, double cap, DType type) {
    World w = {heads, groups, dim, window, half, cap, type, 0, {0}, {0}, NULL, NULL, NULL};
    w.qkv = reals_random(20, (size_t)(ROWS_MAX * world_cols(&w)), 1, K_REAL);
    w.cos = MEM_ARRAY(real, ROWS_MAX * half), w.sin = MEM_ARRAY(real, ROWS_MAX * half);
    for (int i = 0; i < ROWS_MAX * half; i++) {
        double angle = i / half * pow(100, -1.0 * (i % half) / half);
        w.cos[i] = (real)cos(angle), w.sin[i] = (real)sin(angle);
    }
    return w;
}

static void world_free(World *w) { free(w->qkv), free(w->cos), free(w->sin); }

/* n rows after `parent`; returns the first. */
static int world_grow(World *w, int parent, int n) {
    int first = w->m;
    for (int i = 0; i < n; i++, w->m++) {
        w->parent[w->m] = i ? w->m - 1 : parent;
        w->pos[w->m] = i || parent >= 0 ? w->pos[w->parent[w->m]] + 1 : 0;
    }
    assert_true(w->m <= ROWS_MAX);
    return first;
}

/* ---- the naive reference ---- */

/* Rotates the q and k heads of all rows; rounds what would be stored. */
static void naive_turn(const World *w, const double *qkv, double *out) {
    int cols = world_cols(w), half = w->half;
    for (int r = 0; r < w->m; r++)
        for (int h = 0; h < w->heads + 2 * w->groups; h++) {
            for (int i = 2 * half; i < w->dim; i++) { /* these pass */
                int at = r * cols + h * w->dim + i;
                out[at] = w->type == K_REAL ? qkv[at] : (double)stored((real)qkv[at], K_BF16);
            }
            for (int i = 0; i < half; i++) {
                int at = r * cols + h * w->dim + i, angle = w->pos[r] * half + i;
                double c = (double)w->cos[angle], s = (double)w->sin[angle], a = qkv[at], b = qkv[at + half];
                if (h >= w->heads + w->groups) c = 1, s = 0;
                out[at] = a * c - b * s, out[at + half] = b * c + a * s;
                if (w->type == K_REAL) continue;
                out[at] = (double)stored((real)out[at], K_BF16);
                out[at + half] = (double)stored((real)out[at + half], K_BF16);
            }
        }
}

static void naive_head(const World *w, const double *turned, int r, int h, double *o, double *lse) {
    int cols = world_cols(w), dim = w->dim, g = h / (w->heads / w->groups), n = 0, seen[ROWS_MAX];
    double score[ROWS_MAX], top = -1e300, sum = 0;
    for (int j = r; j >= 0 && (!w->window || w->pos[j] > w->pos[r] - w->window); j = w->parent[j]) {
        const double *q = turned + r * cols + h * dim, *k = turned + j * cols + (w->heads + g) * dim;
        double dot = 0;
        for (int i = 0; i < dim; i++) dot += q[i] * k[i];
        dot /= sqrt(dim);
        if (w->cap > 0) dot = w->cap * tanh(dot / w->cap);
        seen[n] = j, score[n++] = dot;
        top = fmax(top, dot);
    }
    for (int i = 0; i < dim; i++) o[i] = 0;
    for (int j = 0; j < n; j++) {
        const double *v = turned + seen[j] * cols + (w->heads + w->groups + g) * dim;
        double p = exp(score[j] - top);
        sum += p;
        for (int i = 0; i < dim; i++) o[i] += p * v[i];
    }
    for (int i = 0; i < dim; i++) o[i] /= sum;
    *lse = top + log(sum);
}

static void naive_attend(const World *w, const double *qkv, double *o, double *lse) {
    double *turned = MEM_ARRAY(double, w->m *world_cols(w));
    naive_turn(w, qkv, turned);
    for (int r = 0; r < w->m; r++)
        for (int h = 0; h < w->heads; h++)
            naive_head(w, turned, r, h, o + (r * w->heads + h) * w->dim, lse + r * w->heads + h);
    free(turned);
}

/* ---- batches over the world's rows ---- */

typedef struct {
    int tok[ROWS_MAX], pos[ROWS_MAX], page[ROWS_MAX], row[ROWS_MAX]; /* row: of the world; -1 for padding */
    int table[TABLE_MAX], m, n_spans, n_table, n_shares;
    KvSpan spans[SPANS_MAX];
    KvShare shares[SHARES_MAX];
} Batch;

/* n rows of the world from `row` on, whose sequence lies in these pages. */
static void batch_add(Batch *b, const World *w, int row, int n, const int *pages, int group) {
    int pos0 = n ? w->pos[row] : 0, blocks = n ? (pos0 + n + KV_PAGE - 1) / KV_PAGE : 0;
    b->spans[b->n_spans++] = (KvSpan){b->m, n, pos0, b->n_table, group, 0};
    for (int i = 0; i < blocks; i++) b->table[b->n_table++] = pages[i];
    for (int i = 0; i < n; i++, b->m++) {
        b->row[b->m] = row + i, b->pos[b->m] = pos0 + i;
        b->page[b->m] = pages[(pos0 + i) / KV_PAGE];
    }
}
static void batch_pad(Batch *b) { b->row[b->m] = -1, b->pos[b->m] = 0, b->page[b->m++] = -1; }

static Rows batch_rows(const Batch *b) {
    return (Rows){b->m, b->tok, b->pos, b->page, b->n_spans, b->spans, b->table, b->n_shares, b->shares};
}

typedef struct {
    Dev *dev;
    const World *w;
    Kv kv, dkv;
    Ten cos, sin;
} Bench;

static Bench bench_open(Dev *dev, const World *w) {
    Err err = {0};
    Bench b = {.dev = dev, .w = w};
    b.kv = k_kv_new(dev, PAGES, 2, w->groups, w->dim, w->type, false, &err);
    b.dkv = k_kv_new(dev, PAGES, 2, w->groups, w->dim, K_REAL, true, &err);
    b.cos = ten_make(dev, ROWS_MAX, w->half, K_REAL, w->cos);
    b.sin = ten_make(dev, ROWS_MAX, w->half, K_REAL, w->sin);
    return b;
}
static void bench_close(Bench *b) {
    k_kv_free(b->dev, &b->kv), k_kv_free(b->dev, &b->dkv);
    k_free(b->dev, &b->cos), k_free(b->dev, &b->sin);
}

/* Rows of a host array with `cols` numbers a world row, as the batch orders them; padding holds junk. */
static Ten batch_ten(Dev *dev, const Batch *b, const real *of_world, int cols, DType type) {
    real *host = MEM_ARRAY(real, b->m * cols);
    for (int i = 0; i < b->m * cols; i++)
        host[i] = b->row[i / cols] < 0 ? 7 : of_world[b->row[i / cols] * cols + i % cols];
    Ten t = ten_make(dev, b->m, cols, type, host);
    free(host);
    return t;
}

/* A tensor's rows to the places of their world rows; padding rows must be zero. Frees the tensor. */
static void batch_read(Dev *dev, const Batch *b, Ten t, real *of_world) {
    real *host = MEM_ARRAY(real, b->m * t.cols);
    ten_read(dev, t, host);
    for (int i = 0; i < b->m * t.cols; i++) {
        if (b->row[i / t.cols] < 0)
            assert_true(host[i] == 0);
        else
            of_world[b->row[i / t.cols] * t.cols + i % t.cols] = host[i];
    }
    free(host);
    k_free(dev, &t);
}

typedef struct {
    Ten q, o, lse;
} Pass;

static Pass bench_pass(Bench *bench, const Batch *b) {
    const World *w = bench->w;
    Rows rows = batch_rows(b);
    Ten qkv = batch_ten(bench->dev, b, w->qkv, world_cols(w), K_REAL);
    Pass p = {ten_make(bench->dev, b->m, w->heads * w->dim, w->type, NULL),
              ten_make(bench->dev, b->m, w->heads * w->dim, w->type, NULL),
              ten_make(bench->dev, b->m, w->heads, K_REAL, NULL)};
    k_qkv(bench->dev, p.q, &bench->kv, 1, qkv, &rows, bench->cos, bench->sin);
    k_attend(bench->dev, p.o, p.lse, p.q, &bench->kv, 1, &rows, (real)(1 / sqrt(w->dim)), (real)w->cap, w->window);
    k_free(bench->dev, &qkv);
    return p;
}

static void bench_forward(Bench *bench, const Batch *b, real *o, real *lse) {
    Pass p = bench_pass(bench, b);
    batch_read(bench->dev, b, p.o, o);
    batch_read(bench->dev, b, p.lse, lse);
    k_free(bench->dev, &p.q);
}

/* ---- values ---- */

static const int scattered[] = {5, 2, 9, 0, 7, 3, 11, 8, 1, 10, 4, 6};

static void run_whole(Dev *dev, const void *self, Buf *out) {
    const World *w = self;
    Bench bench = bench_open(dev, w);
    real *o = MEM_ARRAY(real, w->m * w->heads * w->dim), *lse = MEM_ARRAY(real, w->m * w->heads);
    Batch b = {0};
    for (int r = 0, end, page = 0; r < w->m; r = end) { /* each sequence one span */
        for (end = r + 1; end < w->m && w->parent[end] >= 0;) end++;
        batch_add(&b, w, r, end - r, scattered + page, r);
        page += (end - r + KV_PAGE - 1) / KV_PAGE;
        batch_pad(&b);
    }
    bench_forward(&bench, &b, o, lse);
    buf_add(out, o, (size_t)(w->m * w->heads * w->dim) * sizeof *o);
    buf_add(out, lse, (size_t)(w->m * w->heads) * sizeof *lse);
    free(o), free(lse);
    bench_close(&bench);
}

static const struct {
    int heads, groups, dim, window, half;
    double cap;
} shapes[] = {{3, 1, 64, 0, 32, 0},   {9, 3, 64, 40, 32, 1.5},  {1, 1, 16, 0, 8, 0},    {4, 4, 20, 7, 10, 0},
              {8, 1, 96, 33, 36, 0},  {6, 2, 128, 0, 64, 0},    {32, 1, 16, 0, 8, 0.7}, {7, 1, 2, 1, 1, 0},
              {2, 2, 80, 0, 19, 0.5}, {2, 1, 256, 100, 128, 0}, {5, 1, 40, 0, 20, 0}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };
#ifdef __SANITIZE_ADDRESS__
enum { SHAPE_STEP = 3 }; /* minutes otherwise; every kind is among them */
#else
enum { SHAPE_STEP = 1 };
#endif
static World world_of(int k, DType type) {
    return world_new(shapes[k].heads, shapes[k].groups, shapes[k].dim, shapes[k].window, shapes[k].half,
                     shapes[k].cap, type);
}

static void attend_equals_naive(void **state) {
    const int lengths[] = {1, 33, 32, 31, 70, 15};
    Buf out = {0};
    for (int k = 0; k < N_SHAPES; k += SHAPE_STEP) {
        for (int kind = 0; kind < 2; kind++) {
            World w = world_of(k, kind ? K_BF16 : K_REAL);
            for (int i = 0; i < 6; i++) world_grow(&w, -1, lengths[i]);
            int n = w.m * w.heads;
            double *qkv = MEM_ARRAY(double, w.m *world_cols(&w)), *o = MEM_ARRAY(double, n *w.dim);
            double *lse = MEM_ARRAY(double, n);
            for (int i = 0; i < w.m * world_cols(&w); i++) qkv[i] = (double)w.qkv[i];
            on_all(*state, &out, run_whole, &w, kind ? 1.2e-2 : 0);
            naive_attend(&w, qkv, o, lse);
            for (int i = 0; i < n * w.dim; i++)
                NEAR(reals_of(&out)[i], o[i], kind ? 1.2e-2 : TOLERANCE(3e-6, 1e-12));
            for (int i = 0; i < n; i++)
                NEAR(reals_of(&out)[n * w.dim + i], lse[i], kind ? 3e-3 : TOLERANCE(3e-6, 1e-12));
            free(qkv), free(o), free(lse);
            world_free(&w);
        }
    }
    buf_free(&out);
}

/* ---- exactness: alone or together, shared or not ---- */

enum { PROMPT = 41, TAIL = 30 };

/* A prompt in two pages, and two continuations that share the first page and copy the second's nine slots: by a
 * share in the prompt's batch, and by k_kv_copy. */
static const int prompt_pages[] = {5, 2}, first_pages[] = {5, 9, 0}, second_pages[] = {5, 7, 3};

static void fill_with_junk(Bench *bench) {
    World junk = *bench->w;
    junk.m = 0;
    world_grow(&junk, -1, 6 * KV_PAGE); /* the pages that follow are among the first six of `scattered` */
    Batch b = {0};
    batch_add(&b, &junk, 0, junk.m, scattered, 0);
    junk.qkv = MEM_ARRAY(real, junk.m * world_cols(&junk));
    for (int i = 0; i < junk.m * world_cols(&junk); i++) junk.qkv[i] = -9 * bench->w->qkv[i];
    Rows rows = batch_rows(&b);
    Ten qkv = batch_ten(bench->dev, &b, junk.qkv, world_cols(&junk), K_REAL);
    Ten q = ten_make(bench->dev, b.m, junk.heads * junk.dim, junk.type, NULL);
    k_qkv(bench->dev, q, &bench->kv, 1, qkv, &rows, bench->cos, bench->sin);
    k_free(bench->dev, &q), k_free(bench->dev, &qkv);
    free(junk.qkv);
}

/* The prompt, then both continuations in steps of `step` rows, with other sequences and padding between. */
static void run_in_steps(Dev *dev, const World *w, int step, real *o, real *lse) {
    Bench bench = bench_open(dev, w);
    fill_with_junk(&bench);
    Batch *b = MEM_NEW(Batch);
    batch_add(b, w, 0, PROMPT, prompt_pages, 0);
    b->shares[b->n_shares++] = (KvShare){2, 9, PROMPT - KV_PAGE};
    bench_forward(&bench, b, o, lse);
    k_kv_copy(dev, &bench.kv, &(KvShare){9, 7, PROMPT - KV_PAGE}, 1);
    for (int at = 0; at < TAIL; at += step) {
        int n = at + step < TAIL ? step : TAIL - at;
        memset(b, 0, sizeof *b);
        batch_pad(b);
        batch_add(b, w, PROMPT + TAIL + at, n, second_pages, 1);
        batch_add(b, w, 0, 0, NULL, 2);
        batch_pad(b), batch_pad(b);
        batch_add(b, w, PROMPT + at, n, first_pages, 3);
        batch_pad(b);
        bench_forward(&bench, b, o, lse);
    }
    free(b);
    bench_close(&bench);
}

/* Each continuation with its prompt as one whole sequence in pages of its own: the second half of the rows is the
 * second continuation's. */
static void run_unshared(Dev *dev, const World *w, real *o, real *lse) {
    World alone = *w;
    alone.m = 0;
    alone.qkv = MEM_ARRAY(real, 2 * (PROMPT + TAIL) * world_cols(w));
    size_t cols = (size_t)world_cols(w), out = (size_t)(w->heads * w->dim), row = 0;
    for (int i = 0; i < 2; i++) {
        world_grow(&alone, -1, PROMPT + TAIL);
        memcpy(alone.qkv + row * cols, w->qkv, PROMPT * cols * sizeof(real));
        row += PROMPT;
        memcpy(alone.qkv + row * cols, w->qkv + (size_t)(PROMPT + i * TAIL) * cols, TAIL * cols * sizeof(real));
        row += TAIL;
    }
    Buf got = {0};
    run_whole(dev, &alone, &got);
    const real *all = reals_of(&got), *all_lse = all + row * out;
    size_t heads = (size_t)w->heads, second = PROMPT + TAIL + PROMPT;
    memcpy(o, all, (PROMPT + TAIL) * out * sizeof *o);
    memcpy(o + (PROMPT + TAIL) * out, all + second * out, TAIL * out * sizeof *o);
    memcpy(lse, all_lse, (PROMPT + TAIL) * heads * sizeof *lse);
    memcpy(lse + (PROMPT + TAIL) * heads, all_lse + second * heads, TAIL * heads * sizeof *lse);
    buf_free(&got);
    free(alone.qkv);
}

static void rows_do_not_know_their_batch(void **state) {
    const Devs *devs = *state;
    const int steps[] = {1, 7, TAIL};
    for (int k = 0; k < N_SHAPES; k += SHAPE_STEP) {
        for (int kind = 0; kind < 2; kind++) {
            World w = world_of(k, kind ? K_BF16 : K_REAL);
            world_grow(&w, -1, PROMPT);
            world_grow(&w, PROMPT - 1, TAIL);
            world_grow(&w, PROMPT - 1, TAIL);
            size_t n = (size_t)(w.m * w.heads);
            real *o = MEM_ARRAY(real, n * (size_t)w.dim), *lse = MEM_ARRAY(real, n);
            real *o2 = MEM_ARRAY(real, n * (size_t)w.dim), *lse2 = MEM_ARRAY(real, n);
            for (int i = 0; i < devs->n; i++) {
                if (devs->n > 2 && (i / 2 + k) % 2 != kind)
                    continue; /* each path has either type in half the shapes */
                run_unshared(devs->dev[i], &w, o, lse);
                run_in_steps(devs->dev[i], &w, steps[(i + k / 2) % 3], o2, lse2);
                assert_memory_equal(o, o2, n * (size_t)w.dim * sizeof *o);
                assert_memory_equal(lse, lse2, n * sizeof *lse);
            }
            free(o), free(lse), free(o2), free(lse2);
            world_free(&w);
        }
    }
}

/* ---- gradients ---- */

typedef struct {
    const World *w;
    const real *dout;
    int cut; /* rows of each call of k_attend_back; 0: all in one */
} Slope;

/* The whole of forward and backward over prompt, two continuations and one sequence more; appends dqkv. */
static void run_slope(Dev *dev, const void *self, Buf *out) {
    const Slope *s = self;
    const World *w = s->w;
    Bench bench = bench_open(dev, w);
    Batch *b = MEM_NEW(Batch);
    int wide = w->heads * w->dim;
    batch_add(b, w, 0, PROMPT, prompt_pages, 0);
    batch_pad(b);
    batch_add(b, w, PROMPT, TAIL, first_pages, 0);
    batch_add(b, w, PROMPT + TAIL, TAIL, second_pages, 0);
    batch_add(b, w, PROMPT + 2 * TAIL, 5, (const int[]){11}, 1);
    b->shares[b->n_shares++] = (KvShare){2, 9, PROMPT - KV_PAGE};
    b->shares[b->n_shares++] = (KvShare){2, 7, PROMPT - KV_PAGE};
    for (int i = 0; i < b->n_spans; i++) { /* the continuations' first pages are these copies */
        int first = b->table[b->spans[i].table + b->spans[i].pos0 / KV_PAGE];
        b->spans[i].share = first == 9 ? 1 : first == 7 ? 2 : 0;
    }
    Pass p = bench_pass(&bench, b);
    Ten dq = ten_make(dev, b->m, wide, K_REAL, NULL), dqkv = ten_make(dev, b->m, world_cols(w), K_REAL, NULL);
    Ten dout = batch_ten(dev, b, s->dout, wide, K_REAL);
    Rows rows = batch_rows(b);
    k_attend_back(dev, dq, &bench.dkv, dout, p.o, p.lse, p.q, &bench.kv, 1, &rows, (real)(1 / sqrt(w->dim)),
                  (real)w->cap, w->window);
    k_qkv_back(dev, dqkv, dq, &bench.dkv, 1, &rows, bench.cos, bench.sin);
    real *got = MEM_ARRAY(real, w->m * world_cols(w));
    batch_read(dev, b, dqkv, got);
    buf_add(out, got, (size_t)(w->m * world_cols(w)) * sizeof *got);
    free(got), free(b);
    k_free(dev, &p.q), k_free(dev, &p.o), k_free(dev, &p.lse), k_free(dev, &dq), k_free(dev, &dout);
    bench_close(&bench);
}

static double naive_loss(const World *w, const double *qkv, const real *dout, double *o, double *lse) {
    double sum = 0;
    naive_attend(w, qkv, o, lse);
    for (int i = 0; i < w->m * w->heads * w->dim; i++) sum += (double)dout[i] * o[i];
    return sum;
}

static void gradients_are_slopes(void **state) {
    const struct {
        int heads, groups, dim, window, half;
        double cap;
    } small[] = {{4, 2, 6, 0, 3, 0}, {3, 1, 16, 20, 5, 0.6}, {2, 2, 20, 50, 10, 2}, {49, 1, 2, 0, 1, 0}};
    Buf out = {0};
    for (int k = 0; k < 4; k++) {
        World w = world_new(small[k].heads, small[k].groups, small[k].dim, small[k].window, small[k].half,
                            small[k].cap, K_REAL);
        world_grow(&w, -1, PROMPT);
        world_grow(&w, PROMPT - 1, TAIL);
        world_grow(&w, PROMPT - 1, TAIL);
        world_grow(&w, -1, 5);
        int n = w.m * world_cols(&w), outs = w.m * w.heads * w.dim;
        real *dout = reals_random(22, (size_t)outs, 1, K_REAL);
        on_all(*state, &out, run_slope, &(Slope){&w, dout, 0}, 0);
        double *qkv = MEM_ARRAY(double, n), *o = MEM_ARRAY(double, outs), *lse = MEM_ARRAY(double, w.m *w.heads);
        for (int i = 0; i < n; i++) qkv[i] = (double)w.qkv[i];
        for (int i = 0; i < n; i += 1 + n / 97) {
            double held = qkv[i], h = 1e-5;
            qkv[i] = held + h;
            double up = naive_loss(&w, qkv, dout, o, lse);
            qkv[i] = held - h;
            double slope = (up - naive_loss(&w, qkv, dout, o, lse)) / (2 * h);
            qkv[i] = held;
            NEAR(reals_of(&out)[i], slope, TOLERANCE(3e-5, 1e-7));
        }
        free(dout), free(qkv), free(o), free(lse);
        world_free(&w);
    }
    buf_free(&out);
}

/* dq and dqkv of one sequence, with k_attend_back called for `cut` rows at a time, or once for all. */
static void run_cut(Dev *dev, const void *self, Buf *out) {
    const Slope *s = self;
    const World *w = s->w;
    Bench bench = bench_open(dev, w);
    Batch *b = MEM_NEW(Batch), *part = MEM_NEW(Batch);
    int wide = w->heads * w->dim;
    batch_add(b, w, 0, w->m, scattered, 0);
    Pass p = bench_pass(&bench, b);
    Ten dq = ten_make(dev, b->m, wide, K_REAL, NULL), dqkv = ten_make(dev, b->m, world_cols(w), K_BF16, NULL);
    Ten dout = batch_ten(dev, b, s->dout, wide, w->type);
    Rows rows = batch_rows(b);
    for (int at = 0, n; at < w->m; at += n) {
        n = s->cut && at + s->cut < w->m ? s->cut : w->m - at;
        memset(part, 0, sizeof *part);
        batch_add(part, w, at, n, scattered, 0);
        Rows some = batch_rows(part);
        k_attend_back(dev, ten_rows(dq, at, n), &bench.dkv, ten_rows(dout, at, n), ten_rows(p.o, at, n),
                      ten_rows(p.lse, at, n), ten_rows(p.q, at, n), &bench.kv, 1, &some, (real)(1 / sqrt(w->dim)),
                      (real)w->cap, w->window);
    }
    k_qkv_back(dev, dqkv, dq, &bench.dkv, 1, &rows, TEN_NONE, TEN_NONE);
    ten_take(dev, dq, out);
    ten_take(dev, dqkv, out);
    real *pages = MEM_ARRAY(real, bench.dkv.data.rows * bench.dkv.data.cols);
    k_get(dev, pages, bench.dkv.data);
    buf_add(out, pages, (size_t)bench.dkv.data.rows * (size_t)bench.dkv.data.cols * sizeof *pages);
    free(pages), free(b), free(part);
    k_free(dev, &p.q), k_free(dev, &p.o), k_free(dev, &p.lse), k_free(dev, &dout);
    bench_close(&bench);
}

static void gradients_do_not_know_the_cut(void **state) {
    Buf whole = {0}, cut = {0};
    for (int k = 0; k < N_SHAPES; k += SHAPE_STEP) {
        World w = world_of(k, k % 2 ? K_BF16 : K_REAL);
        world_grow(&w, -1, 101);
        real *dout = reals_random(23, (size_t)(w.m * w.heads * w.dim), 1, w.type);
        on_all(*state, &whole, run_cut, &(Slope){&w, dout, 0}, k % 2 ? 5e-2 : 0);
        on_all(*state, &cut, run_cut, &(Slope){&w, dout, KV_PAGE}, k % 2 ? 5e-2 : 0);
        assert_true(whole.n == cut.n && memcmp(whole.p, cut.p, cut.n) == 0);
        free(dout);
        world_free(&w);
    }
    buf_free(&whole), buf_free(&cut);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attend_equals_naive),
        cmocka_unit_test(rows_do_not_know_their_batch),
        cmocka_unit_test(gradients_are_slopes),
        cmocka_unit_test(gradients_do_not_know_the_cut),
    };
    return cmocka_run_group_tests(tests, devs_open, devs_close);
}
