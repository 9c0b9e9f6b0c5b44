/* compare.c: every op of a device against the CPU's, at sizes that no tile fits. See k_compare. */
#include "kernels/compare.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *shape_text(char text[64], const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(text, 64, format, args);
    va_end(args);
    return text;
}

/* ---- numbers of both devices ---- */

static uint16_t low_of(real x) { /* to bf16, to the nearest, ties to even */
    float f = (float)x;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}
static real high_of(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

real *host_random(Compare *c, size_t n, double scale, DType type) {
    real *x = MEM_ARRAY(real, n + 1);
    Rng rng = {c->seed++, 0};
    for (size_t i = 0; i < n; i++) {
        x[i] = (real)(rng_normal(&rng) * scale);
        if (type == K_BF16) x[i] = high_of(low_of(x[i]));
    }
    return x;
}

void host_put(Dev *dev, Ten t, const real *host) {
    size_t n = (size_t)t.rows * (size_t)t.cols;
    uint16_t *low = MEM_ARRAY(uint16_t, n + 1);
    for (size_t i = 0; i < n; i++) low[i] = isnan(host[i]) ? 0x7fc0 : low_of(host[i]);
    k_put(dev, t, t.type == K_BF16 ? (const void *)low : host);
    free(low);
}

real *host_of(Dev *dev, Ten t) {
    size_t n = (size_t)t.rows * (size_t)t.cols;
    real *host = MEM_ARRAY(real, n + 1);
    uint16_t *low = MEM_ARRAY(uint16_t, n + 1);
    k_get(dev, t.type == K_BF16 ? (void *)low : host, t);
    for (size_t i = 0; t.type == K_BF16 && i < n; i++) host[i] = high_of(low[i]);
    free(low);
    return host;
}

Two two_new(Compare *c, int rows, int cols, int pad, DType type, Fill fill, double scale) {
    Two two;
    size_t n = (size_t)rows * (size_t)(cols + pad);
    real *all = MEM_ARRAY(real, n + 1), *inner = host_random(c, (size_t)rows * (size_t)cols, scale, type);
    for (size_t i = 0; i < n; i++) all[i] = (real)NAN;
    for (size_t i = 0; fill != FILL_RANDOM && i < (size_t)rows * (size_t)cols; i++)
        inner[i] = fill == FILL_NAN ? (real)NAN : 0;
    for (int i = 0; i < 2; i++) {
        Err err = {0};
        two.whole[i] = k_new(c->dev[i], rows, cols + pad, type, &err);
        if (!two.whole[i].p) die("%s", err.msg);
        two.at[i] = ten_cols(two.whole[i], 0, cols);
        host_put(c->dev[i], two.whole[i], all);
        host_put(c->dev[i], two.at[i], inner);
    }
    free(all), free(inner);
    return two;
}

void two_free(Compare *c, Two *two) {
    for (int i = 0; i < 2; i++) k_free(c->dev[i], &two->whole[i]);
}

static void report(Compare *c, const char *op, const char *shape, double error, double bound) {
    CompareResult r = {op, shape, error, bound, error <= bound};
    c->checks++, c->failed += !r.good;
    if (c->say) c->say(c->self, &r);
}

void compare_numbers(Compare *c, const char *op, const char *shape, const real *got, const real *want, size_t n,
                     double bound) {
    double most = 0, worst = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs((double)want[i]));
    for (size_t i = 0; i < n; i++) {
        double off = fabs((double)got[i] - (double)want[i]);
        if (isnan(got[i]) && isnan(want[i])) off = 0;
        worst = isnan(off) ? INFINITY : fmax(worst, off);
    }
    if (worst > 0) worst /= most > 0 ? most : 1;
    if (bound == 0 && memcmp(got, want, n * sizeof *got) != 0 && worst == 0) worst = 0x1p-149; /* a zero's sign */
    report(c, op, shape, worst, bound);
}

void compare_true(Compare *c, const char *op, const char *shape, bool holds) {
    report(c, op, shape, holds ? 0 : INFINITY, 0);
}

void two_check(Compare *c, const char *op, const char *shape, Two *two, double bound) {
    size_t rows = (size_t)two->at[0].rows, cols = (size_t)two->at[0].cols, wide = (size_t)two->whole[0].cols;
    real *got = host_of(c->dev[0], two->at[0]), *want = host_of(c->dev[1], two->at[1]);
    real *whole = host_of(c->dev[0], two->whole[0]);
    bool kept = true;
    for (size_t i = 0; i < rows * wide; i++) kept &= i % wide < cols || isnan(whole[i]);
    if (!kept) got[0] = (real)NAN, want[0] = 0; /* written outside */
    compare_numbers(c, op, shape, got, want, rows * cols, bound);
    free(got), free(want), free(whole);
    two_free(c, two);
}

/* ---- elements and rows ---- */

#define BOTH for (int i = 0; i < 2; i++)

static const int some_sizes[] = {1, 33, 130}, all_sizes[] = {1, 7, 31, 32, 33, 64, 127, 130, 257};
#define SIZES(all) ((all) ? all_sizes : some_sizes)
#define N_SIZES(all) ((int)((all) ? sizeof all_sizes : sizeof some_sizes) / (int)sizeof(int))

static void compare_elements(Compare *c, int rows, int cols, int pad, DType type) {
    char shape[64];
    shape_text(shape, "%d x %d, %s", rows, cols, type == K_BF16 ? "bf16" : "fp32");
    Two x = two_new(c, rows, cols, pad, K_REAL, FILL_RANDOM, 1);
    Two y = two_new(c, rows, cols, pad, type, FILL_NAN, 1), z = two_new(c, rows, cols, 1, type, FILL_NAN, 1);
    Two sum = two_new(c, rows, cols, pad, K_REAL, FILL_RANDOM, 1);
    BOTH {
        k_copy(c->dev[i], y.at[i], x.at[i]);
        k_scale(c->dev[i], z.at[i], x.at[i], 0.37f);
        k_add(c->dev[i], sum.at[i], x.at[i]);
    }
    two_check(c, "copy", shape, &y, 0), two_check(c, "scale", shape, &z, 0), two_check(c, "add", shape, &sum, 0);
    BOTH k_softcap(c->dev[i], x.at[i], 1.5f);
    two_check(c, "softcap", shape, &x, 0);
    for (int kind = GLU_SILU; kind <= GLU_GELU; kind++) {
        Two gu = two_new(c, rows, 2 * cols, pad, type, FILL_RANDOM, 2),
            dh = two_new(c, rows, cols, pad, K_REAL, FILL_RANDOM, 1);
        Two h = two_new(c, rows, cols, pad, type, FILL_NAN, 1),
            again = two_new(c, rows, cols, pad, type, FILL_NAN, 1),
            dgu = two_new(c, rows, 2 * cols, pad, type, FILL_NAN, 1);
        BOTH {
            k_glu(c->dev[i], h.at[i], gu.at[i], (GluKind)kind);
            k_glu_back(c->dev[i], dgu.at[i], again.at[i], dh.at[i], gu.at[i], (GluKind)kind);
        }
        two_check(c, "glu", shape, &h, 0), two_check(c, "glu_back", shape, &dgu, 0);
        two_check(c, "glu_back, h", shape, &again, 0);
        two_free(c, &gu), two_free(c, &dh);
    }
}

static void compare_norm(Compare *c, int rows, int runs, int cols, int pad, DType type) {
    char shape[64];
    shape_text(shape, "%d x %d runs of %d, %s", rows, runs, cols, type == K_BF16 ? "bf16" : "fp32");
    int all = runs * cols;
    Two x = two_new(c, rows, all, pad, K_REAL, FILL_RANDOM, 1), w = two_new(c, 1, cols, 0, K_REAL, FILL_RANDOM, 1);
    Two residual = two_new(c, rows, all, 0, K_REAL, FILL_RANDOM, 1),
        dy = two_new(c, rows, all, pad, type, FILL_RANDOM, 1),
        again = two_new(c, rows, all, pad, type, FILL_NAN, 1);
    Two y = two_new(c, rows, all, pad, type, FILL_NAN, 1), rstd = two_new(c, rows, runs, 1, K_REAL, FILL_NAN, 1);
    Two dx = two_new(c, rows, all, pad, K_REAL, FILL_RANDOM, 1),
        dw = two_new(c, 1, cols, 0, K_REAL, FILL_RANDOM, 1),
        low = two_new(c, rows, all, pad, type, FILL_NAN, 1), alone = two_new(c, rows, all, 0, K_REAL, FILL_NAN, 1);
    BOTH {
        k_rmsnorm(c->dev[i], y.at[i], rstd.at[i], x.at[i], w.at[i], rows % 2 ? residual.at[i] : TEN_NONE, 1e-5f);
        k_rmsnorm_back(c->dev[i], dx.at[i], low.at[i], dw.at[i], again.at[i], dy.at[i], x.at[i], rstd.at[i],
                       w.at[i]);
        k_rmsnorm_back(c->dev[i], TEN_NONE, alone.at[i], TEN_NONE, TEN_NONE, dy.at[i], x.at[i], rstd.at[i], w.at[i]);
    }
    two_check(c, "rmsnorm", shape, &y, BOUND_SUM(cols) + BOUND_STORED(type));
    two_check(c, "rmsnorm, rstd", shape, &rstd, BOUND_SUM(cols));
    two_check(c, "rmsnorm_back, y", shape, &again, BOUND_SUM(cols) + BOUND_STORED(type));
    two_check(c, "rmsnorm_back, dx", shape, &dx, BOUND_SUM(4 * cols));
    two_check(c, "rmsnorm_back, low", shape, &low, BOUND_SUM(4 * cols) + BOUND_STORED(type));
    two_check(c, "rmsnorm_back, low alone", shape, &alone, BOUND_SUM(4 * cols));
    two_check(c, "rmsnorm_back, dw", shape, &dw, BOUND_SUM(rows * runs) + BOUND_SUM(cols));
    Two db = two_new(c, 1, all, 0, K_REAL, FILL_RANDOM, 1);
    BOTH k_bias_back(c->dev[i], db.at[i], dy.at[i]);
    two_check(c, "bias_back", shape, &db, BOUND_SUM(2 * rows));
    two_free(c, &x), two_free(c, &w), two_free(c, &residual), two_free(c, &dy);
}

static void compare_index(Compare *c, int rows, int cols) {
    char shape[64];
    shape_text(shape, "%d x %d", rows, cols);
    int *index = MEM_ARRAY(int, rows), *page = MEM_ARRAY(int, rows), from = rows / 2 + 1;
    Rng rng = {c->seed++, 0};
    for (int i = 0; i < rows; i++) {
        index[i] = (int)rng_below(&rng, (uint64_t)from + 1) - 1;
        page[i] = index[i] < 0 ? -1 : 0;
    }
    Two x = two_new(c, from, cols, 0, K_REAL, FILL_RANDOM, 1), y = two_new(c, rows, cols, 2, K_REAL, FILL_NAN, 1);
    BOTH k_gather(c->dev[i], y.at[i], x.at[i], index);
    two_check(c, "gather", shape, &y, 0);
    Two more = two_new(c, rows, cols, 2, K_REAL, FILL_RANDOM, 1),
        dw = two_new(c, from, cols, 0, K_REAL, FILL_RANDOM, 1);
    BOTH k_scatter(c->dev[i], x.at[i], more.at[i], index);
    two_check(c, "scatter", shape, &x, 0);
    for (int i = 0; i < rows; i++) index[i] = index[i] < 0 ? 0 : index[i];
    Rows batch = {.m = rows, .tok = index, .pos = index, .page = page};
    BOTH k_embed_back(c->dev[i], dw.at[i], more.at[i], &batch);
    two_check(c, "embed_back", shape, &dw, 0);
    two_free(c, &more);
    free(index), free(page);
}

static void compare_optimizer(Compare *c, int rows, int cols) {
    char shape[64];
    shape_text(shape, "%d x %d", rows, cols);
    Two w = two_new(c, rows, cols, 0, K_REAL, FILL_RANDOM, 1),
        m = two_new(c, rows, cols, 0, K_REAL, FILL_RANDOM, 0.1);
    Two v = two_new(c, rows, cols, 0, K_REAL, FILL_RANDOM, 0.1),
        g = two_new(c, rows, cols, 0, K_REAL, FILL_RANDOM, 1);
    AdamStep step = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.19f, 0.0975f, 0.5f};
    double sums[2];
    BOTH {
        real *host = host_of(c->dev[i], v.at[i]);
        for (int j = 0; j < rows * cols; j++) host[j] *= host[j];
        host_put(c->dev[i], v.at[i], host);
        free(host);
        sums[i] = k_sumsq(c->dev[i], g.at[i]);
        k_adamw(c->dev[i], w.at[i], m.at[i], v.at[i], g.at[i], &step);
    }
    const real got = (real)sums[0], want = (real)sums[1];
    compare_numbers(c, "sumsq", shape, &got, &want, 1, BOUND_SUM(4096));
    two_check(c, "adamw", shape, &w, 0), two_check(c, "adamw, m", shape, &m, 0),
        two_check(c, "adamw, v", shape, &v, 0);
    two_free(c, &g);
}

/* Streams of parts that end anywhere in XXH3's stripes and blocks; some lie side by side. */
static void compare_hash(Compare *c, int first, int second, int third) {
    char shape[64];
    shape_text(shape, "%d + %d + %d numbers", first, second, third);
    Two x = two_new(c, 1, first + second + 16, 0, K_REAL, FILL_RANDOM, 1);
    Two y = two_new(c, 1, third, 0, K_REAL, FILL_RANDOM, 1);
    uint64_t hash[2];
    BOTH {
        Ten parts[] = {ten_cols(x.at[i], 0, first), ten_cols(x.at[i], first, second), y.at[i],
                       ten_cols(x.at[i], 16, second)};
        hash[i] = k_hash(c->dev[i], parts, 4);
    }
    compare_true(c, "hash", shape, hash[0] == hash[1]);
    two_free(c, &x), two_free(c, &y);
}

/* ---- products ---- */

typedef struct {
    Mat at[2];
} TwoMat;

static TwoMat mat_new(Compare *c, int n, int k, DType type) {
    TwoMat w;
    Two host = two_new(c, n, k, 0, K_REAL, FILL_RANDOM, 1 / sqrt(k));
    BOTH {
        Err err = {0};
        w.at[i] = k_mat_new(c->dev[i], n, k, type, true, &err);
        if (!w.at[i].fwd.p) die("%s", err.msg);
        for (int row = 0; row < n; row += 40) /* in parts */
            k_mat_pack(c->dev[i], &w.at[i], ten_rows(host.at[i], row, n - row < 40 ? n - row : 40), row);
    }
    two_free(c, &host);
    return w;
}

/* One row at a time must give the bits that all rows together gave; cut: dw in two parts. */
static void check_alone(Compare *c, const char *shape, Ten x, const Mat *w, Ten bias, Ten y, bool cut) {
    Dev *dev = c->dev[0];
    Err err = {0};
    Ten one = k_new(dev, 1, w->n, y.type, &err), row = k_new(dev, 1, w->k, x.type, &err);
    bool same = one.p && row.p;
    for (int r = 0; same && r < x.rows; r += x.rows < 8 ? 1 : x.rows / 7) {
        k_copy(dev, row, ten_rows(x, r, 1)); /* elsewhere in memory */
        k_matmul(dev, one, row, w, bias, TEN_NONE);
        real *a = host_of(dev, one), *b = host_of(dev, ten_rows(y, r, 1));
        same = memcmp(a, b, (size_t)w->n * sizeof *a) == 0;
        free(a), free(b);
    }
    compare_true(c, "matmul, a row alone", shape, same);
    k_free(dev, &one), k_free(dev, &row);
    if (!cut) return;
    Ten whole = k_new(dev, w->n, w->k, K_REAL, &err), parts = k_new(dev, w->n, w->k, K_REAL, &err);
    Ten dy = k_new(dev, x.rows, w->n, x.type, &err);
    if (!whole.p || !parts.p || !dy.p) die("%s", err.msg);
    real *host = host_random(c, (size_t)x.rows * (size_t)w->n, 1, x.type);
    host_put(dev, dy, host);
    k_matmul_dw(dev, whole, dy, x, false);
    k_matmul_dw(dev, parts, ten_rows(dy, 0, 32), ten_rows(x, 0, 32), true);
    k_matmul_dw(dev, parts, ten_rows(dy, 32, x.rows - 32), ten_rows(x, 32, x.rows - 32), false);
    real *a = host_of(dev, whole), *b = host_of(dev, parts);
    compare_true(c, "matmul_dw, cut at 32", shape, memcmp(a, b, (size_t)w->n * (size_t)w->k * sizeof *a) == 0);
    free(host), free(a), free(b);
    k_free(dev, &whole), k_free(dev, &parts), k_free(dev, &dy);
}

static void compare_product(Compare *c, int m, int n, int k, int pad, DType type, DType out) {
    char shape[64];
    shape_text(shape, "%d x %d x %d, %s to %s", m, n, k, type == K_BF16 ? "bf16" : "fp32",
               out == K_BF16 ? "bf16" : "fp32");
    TwoMat w = mat_new(c, n, k, type);
    Two x = two_new(c, m, k, pad, type, FILL_RANDOM, 1), dy = two_new(c, m, n, pad, type, FILL_RANDOM, 1);
    Two y = two_new(c, m, n, pad, out, FILL_NAN, 1), bias = two_new(c, 1, n, 0, K_REAL, FILL_RANDOM, 1);
    Two sum = two_new(c, m, n, pad, out, FILL_RANDOM, 1), apart = two_new(c, m, n, 0, K_REAL, FILL_RANDOM, 1);
    Two y2 = two_new(c, m, n, pad, out, FILL_NAN, 1), y3 = two_new(c, m, n, pad, out, FILL_NAN, 1);
    Two dx = two_new(c, m, k, pad, K_REAL, FILL_NAN, 1), dx2 = two_new(c, m, k, pad, out, FILL_RANDOM, 1);
    Two dw = two_new(c, n, k, pad, K_REAL, FILL_RANDOM, 1), fresh = two_new(c, n, k, pad, K_REAL, FILL_NAN, 1);
    BOTH {
        k_matmul(c->dev[i], y.at[i], x.at[i], &w.at[i], TEN_NONE, TEN_NONE);
        k_matmul(c->dev[i], sum.at[i], x.at[i], &w.at[i], TEN_NONE, sum.at[i]);
        k_matmul(c->dev[i], y2.at[i], x.at[i], &w.at[i], bias.at[i], TEN_NONE);
        k_matmul(c->dev[i], y3.at[i], x.at[i], &w.at[i], bias.at[i], apart.at[i]);
        k_matmul_dx(c->dev[i], dx.at[i], dy.at[i], &w.at[i], TEN_NONE);
        k_matmul_dx(c->dev[i], dx2.at[i], dy.at[i], &w.at[i], dx2.at[i]);
        k_matmul_dw(c->dev[i], dw.at[i], dy.at[i], x.at[i], false);
        k_matmul_dw(c->dev[i], fresh.at[i], dy.at[i], x.at[i], true);
    }
    double sum_k = BOUND_SUM(2 * k) + BOUND_STORED(out), sum_n = BOUND_SUM(2 * n);
    check_alone(c, shape, x.at[0], &w.at[0], bias.at[0], y2.at[0], m > 40 && m < 200);
    two_check(c, "matmul", shape, &y, sum_k), two_check(c, "matmul, in place", shape, &sum, sum_k);
    two_check(c, "matmul, bias", shape, &y2, sum_k), two_check(c, "matmul, residual", shape, &y3, sum_k);
    two_check(c, "matmul_dx", shape, &dx, sum_n);
    two_check(c, "matmul_dx, in place", shape, &dx2, sum_n + BOUND_STORED(out));
    two_check(c, "matmul_dw", shape, &dw, BOUND_SUM(2 * m));
    two_check(c, "matmul_dw, fresh", shape, &fresh, BOUND_SUM(2 * m));
    Two e = two_new(c, m, k, pad, K_REAL, FILL_NAN, 1);
    int *tok = MEM_ARRAY(int, m);
    for (int i = 0; i < m; i++) tok[i] = (i * 7) % n;
    Rows rows = {.m = m, .tok = tok, .pos = tok, .page = tok};
    BOTH k_embed(c->dev[i], e.at[i], &w.at[i], &rows);
    two_check(c, "embed", shape, &e, 0);
    free(tok);
    two_free(c, &x), two_free(c, &dy), two_free(c, &bias), two_free(c, &apart);
    BOTH k_mat_free(c->dev[i], &w.at[i]);
}

static void compare_sizes(Compare *c, bool all, bool elements) {
    const int *sizes = SIZES(all), n = N_SIZES(all);
    for (int i = 0; i < n; i++) {
        int other = sizes[(i + 1) % n];
        for (int type = K_REAL; type <= K_BF16; type++)
            if (elements)
                compare_elements(c, sizes[i], other, i % 2 * 3, (DType)type);
            else
                compare_norm(c, sizes[i], 1 + i % 3, other, i % 2 * 4, (DType)type);
        if (elements) compare_optimizer(c, sizes[i], other);
        if (!elements) compare_index(c, sizes[i], other);
    }
}

static void compare_products(Compare *c, bool all) {
    static const int products[][3] = {{1, 24, 40}, {33, 130, 72}, {96, 64, 64},  {31, 17, 5},
                                      {32, 1, 8},  {70, 129, 96}, {300, 40, 24}, {5, 200, 33}};
    for (int i = 0; i < (all ? 8 : 4); i++)
        for (int type = K_REAL; type <= K_BF16; type++) {
            const int *p = products[i];
            compare_product(c, p[0], p[1], p[2], i % 3 == 1 ? 3 : 0, (DType)type, K_REAL);
            compare_product(c, p[0], p[1], p[2], 0, (DType)type, (DType)type);
        }
}

int k_compare(Dev *dev, Dev *cpu, const char *part, bool all, void (*say)(void *self, const CompareResult *result),
              void *self) {
    Compare c = {.dev = {dev, cpu}, .say = say, .self = self, .seed = 1};
    if (!part || strcmp(part, "elements") == 0) {
        compare_sizes(&c, all, true);
        compare_optimizer(&c, 3, 4099);
        if (all) compare_hash(&c, 1 << 22, 5000, 3); /* more than hash.c takes at once */
        for (int i = 0; i < 6; i++)
            compare_hash(&c, (int[]){1, 40, 256, 511, 800, 65537}[i], 215 + i * 300, 1 + i * i * 85);
    }
    if (!part || strcmp(part, "rows") == 0) compare_sizes(&c, all, false);
    if (!part || strcmp(part, "products") == 0) compare_products(&c, all);
    if (!part || strcmp(part, "attention") == 0) compare_attention(&c, all);
    if (!part || strcmp(part, "head") == 0) compare_head(&c, all);
    if (!part || strcmp(part, "again") == 0) compare_again(&c);
    return c.failed;
}
