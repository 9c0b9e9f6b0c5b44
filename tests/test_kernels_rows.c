/* test_kernels_rows.c: the ops that work row by row, the optimizer and the drawing of tokens, against naive
 * references in double, on all paths and with one and two threads bit for bit, at ragged sizes. */
#include "tests/kernels_help.h"

#include <xxhash.h>

static const int sizes[] = {1, 15, 16, 17, 31, 32, 33, 576};
enum { N_SIZES = sizeof sizes / sizeof *sizes };
#define FOR_SIZES(d) for (int i_ = 0, d; i_ < N_SIZES && (d = sizes[i_], true); i_++)

/* ---- copies, gather, scatter ---- */

typedef struct {
    int rows, cols;
    DType from, to;
    const real *x, *y;
    const int *index;
} Moves;

static void run_copy(Dev *dev, const void *self, Buf *out) {
    const Moves *m = self;
    Ten x = ten_make(dev, m->rows, m->cols, m->from, m->x), y = ten_make(dev, m->rows, m->cols + 3, m->to, NULL);
    k_copy(dev, ten_cols(y, 2, m->cols), x); /* a view: neighbours must stay */
    ten_take(dev, y, out);
    Ten z = ten_make(dev, m->rows, m->cols, m->to, NULL);
    k_copy(dev, z, x);
    ten_take(dev, z, out);
    Ten s = ten_make(dev, m->rows, m->cols + 3, m->to, NULL);
    k_scale(dev, ten_cols(s, 1, m->cols), x, (real)0.7);
    k_scale(dev, x, x, (real)0.7);
    ten_take(dev, s, out);
    k_free(dev, &x);
}

static void copy_and_scale_convert(void **state) {
    Buf out = {0};
    FOR_SIZES(d) {
        for (int kind = 0; kind < 4; kind++) {
            Moves m = {5, d, kind % 2 ? K_BF16 : K_REAL, kind / 2 ? K_BF16 : K_REAL, NULL, NULL, NULL};
            real *x = reals_random(1, 5 * (size_t)d, 3, m.from);
            m.x = x;
            on_all(*state, &out, run_copy, &m, 0);
            const real *got = reals_of(&out), *dense = got + 5 * (d + 3), *scaled = dense + 5 * d;
            for (int r = 0; r < 5; r++) {
                for (int i = 0; i < d; i++) {
                    assert_true(got[r * (d + 3) + 2 + i] == stored(x[r * d + i], m.to));
                    assert_true(dense[r * d + i] == stored(x[r * d + i], m.to));
                    assert_true(scaled[r * (d + 3) + 1 + i] == stored((real)0.7 * x[r * d + i], m.to));
                }
                assert_true(got[r * (d + 3)] == 0 && got[r * (d + 3) + d + 2] == 0);
                assert_true(scaled[r * (d + 3)] == 0 && scaled[r * (d + 3) + d + 1] == 0);
            }
            free(x);
        }
    }
    buf_free(&out);
}

static void run_moves(Dev *dev, const void *self, Buf *out) {
    const Moves *m = self;
    Ten x = ten_make(dev, m->rows, m->cols, K_REAL, m->x), y = ten_make(dev, 7, m->cols, K_REAL, m->y);
    Ten sum = ten_make(dev, m->rows, m->cols, K_REAL, m->x);
    k_scatter(dev, x, y, m->index);
    k_gather(dev, y, x, m->index);
    k_add(dev, sum, x);
    ten_take(dev, x, out);
    ten_take(dev, y, out);
    ten_take(dev, sum, out);
}

static void scatter_gather_add(void **state) {
    const int index[7] = {2, 0, -1, 2, 4, 2, 0};
    Buf out = {0};
    FOR_SIZES(d) {
        real *x = reals_random(2, 5 * (size_t)d, 1, K_REAL), *y = reals_random(3, 7 * (size_t)d, 1, K_REAL);
        real *want = MEM_ARRAY(real, 5 * d);
        memcpy(want, x, 5 * (size_t)d * sizeof *x);
        on_all(*state, &out, run_moves, &(Moves){5, d, K_REAL, K_REAL, x, y, index}, 0);
        const real *got = reals_of(&out);
        for (int i = 0; i < 7; i++) /* in order of i: exact */
            for (int c = 0; index[i] >= 0 && c < d; c++) want[index[i] * d + c] += y[i * d + c];
        for (int i = 0; i < 5 * d; i++) assert_true(got[i] == want[i]);
        for (int i = 0; i < 7 * d; i++)
            assert_true(got[5 * d + i] == (index[i / d] < 0 ? 0 : want[index[i / d] * d + i % d]));
        for (int i = 0; i < 5 * d; i++) assert_true(got[12 * d + i] == x[i] + want[i]);
        free(x), free(y), free(want);
    }
    buf_free(&out);
}

/* ---- embedding ---- */

static void run_embed(Dev *dev, const void *self, Buf *out) {
    const Moves *m = self;
    Err err = {0};
    const int page[7] = {0, 0, 0, 0, -1, 0, 0}, pos[7] = {0};
    Rows rows = {.m = 7, .tok = m->index, .pos = pos, .page = page};
    Ten w = ten_make(dev, m->rows, m->cols, K_REAL, m->x), x = ten_make(dev, 7, m->cols, K_REAL, NULL);
    Ten dx = ten_make(dev, 7, m->cols, K_REAL, m->y);
    Mat mat = k_mat_new(dev, m->rows, m->cols, m->to, false, &err);
    k_mat_pack(dev, &mat, w, 0);
    k_embed(dev, x, &mat, &rows);
    k_embed_back(dev, w, dx, &rows);
    ten_take(dev, x, out);
    ten_take(dev, w, out);
    k_free(dev, &dx);
    k_mat_free(dev, &mat);
}

static void embed_and_back(void **state) {
    const int tok[7] = {18, 0, 33, 18, 0, 16, 18};
    Buf out = {0};
    FOR_SIZES(d) {
        for (int kind = 0; kind < 2; kind++) {
            DType type = kind ? K_BF16 : K_REAL;
            real *w = reals_random(4, 34 * (size_t)d, 1, K_REAL), *dx = reals_random(5, 7 * (size_t)d, 1, K_REAL);
            on_all(*state, &out, run_embed, &(Moves){34, d, K_REAL, type, w, dx, tok}, 0);
            const real *got = reals_of(&out);
            for (int i = 0; i < 7 * d; i++) assert_true(got[i] == stored(w[tok[i / d] * d + i % d], type));
            for (int i = 0; i < 7 * d; i++)
                if (i / d != 4) w[tok[i / d] * d + i % d] += dx[i]; /* row 4 is padding */
            for (int i = 0; i < 34 * d; i++) assert_true(got[7 * d + i] == w[i]);
            free(w), free(dx);
        }
    }
    buf_free(&out);
}

/* ---- RMSNorm and gated units: values against a naive reference, gradients against its finite differences ---- */

enum { M = 6 };
typedef struct {
    int d;
    DType type; /* of y, dy, gate, up */
    const real *x, *w, *dy, *held;
    int first, m; /* rows taken */
    int runs;     /* of a row, each normed on its own */
    GluKind glu;
} Net;

static void naive_rmsnorm(double *y, const double *x, const double *w, int d) {
    double sum = 0;
    for (int i = 0; i < d; i++) sum += x[i] * x[i];
    for (int i = 0; i < d; i++) y[i] = w[i] * x[i] / sqrt(sum / d + 1e-5);
}

static void run_rmsnorm(Dev *dev, const void *self, Buf *out) {
    const Net *n = self;
    int d = n->d * n->runs;
    Ten wide = ten_make(dev, n->m, d + 5, K_REAL, NULL), x = ten_cols(wide, 2, d); /* a view */
    for (int r = 0; r < n->m; r++) k_put(dev, ten_rows(x, r, 1), n->x + (n->first + r) * d);
    Ten w = ten_make(dev, 1, n->d, K_REAL, n->w), y = ten_make(dev, n->m, d, n->type, NULL);
    Ten rstds = ten_make(dev, n->m, n->runs + 1, K_REAL, NULL), rstd = ten_cols(rstds, 1, n->runs);
    Ten dy = ten_make(dev, n->m, d, n->type, n->dy + n->first * d), dw = ten_make(dev, 1, n->d, K_REAL, n->held);
    Ten dx = ten_make(dev, n->m, d, K_REAL, n->held), no_dw = ten_make(dev, n->m, d, K_REAL, n->held);
    Ten sum = ten_make(dev, n->m, d, K_REAL, n->held);
    k_rmsnorm(dev, y, rstd, x, w, TEN_NONE, (real)1e-5);
    Ten again = ten_make(dev, n->m, d, n->type, NULL);
    Ten low = ten_make(dev, n->m, d, n->type, NULL), low_want = ten_make(dev, n->m, d, n->type, NULL);
    Buf first = {0}, second = {0};
    k_rmsnorm_back(dev, dx, TEN_NONE, dw, TEN_NONE, dy, x, rstd, w);
    k_rmsnorm_back(dev, no_dw, low, TEN_NONE, again, dy, x, rstd, w);
    Ten alone = ten_make(dev, n->m, d, K_REAL, NULL), zero = ten_make(dev, n->m, d, K_REAL, NULL);
    k_rmsnorm_back(dev, TEN_NONE, alone, TEN_NONE, TEN_NONE, dy, x, rstd, w);
    k_rmsnorm_back(dev, zero, TEN_NONE, TEN_NONE, TEN_NONE, dy, x, rstd, w);
    ten_add(dev, alone, &first), ten_take(dev, zero, &second);
    assert_memory_equal(first.p, second.p, first.n);
    buf_clear(&first), buf_clear(&second);
    k_copy(dev, low_want, no_dw);
    ten_take(dev, low, &first), ten_take(dev, low_want, &second);
    assert_memory_equal(first.p, second.p, first.n);
    buf_clear(&first), buf_clear(&second);
    k_free(dev, &alone);
    ten_add(dev, y, &first), ten_take(dev, again, &second);
    assert_memory_equal(first.p, second.p, first.n);
    buf_free(&first), buf_free(&second);
    k_rmsnorm(dev, sum, TEN_NONE, x, w, sum, (real)1e-5);
    k_rmsnorm(dev, x, TEN_NONE, x, w, TEN_NONE, (real)1e-5); /* in place */
    Ten placed = ten_make(dev, n->m, d, n->type, NULL);
    k_copy(dev, placed, x);
    ten_take(dev, y, out);
    ten_take(dev, dx, out);
    ten_take(dev, no_dw, out);
    ten_take(dev, dw, out);
    ten_take(dev, sum, out);
    ten_take(dev, placed, out);
    k_free(dev, &wide), k_free(dev, &w), k_free(dev, &rstds), k_free(dev, &dy);
}

typedef void NaiveRow(double *y, const double *x, const double *w, int d);

/* d/d(*at) of sum(c y) by central differences; at points into x or w. */
static double slope_of(NaiveRow *naive, const double *c, int outputs, double *x, double *w, double *at, int d) {
    double y[2048], h = 1e-5, held = *at, sum = 0;
    for (int sign = 1; sign >= -1; sign -= 2) {
        *at = held + sign * h;
        naive(y, x, w, d);
        for (int i = 0; i < outputs; i++) sum += sign * c[i] * y[i];
    }
    *at = held;
    return sum / (2 * h);
}

static double *doubles(const real *x, int n) {
    double *y = MEM_ARRAY(double, n);
    for (int i = 0; i < n; i++) y[i] = (double)x[i];
    return y;
}

static void rmsnorm_and_back(void **state) {
    Buf out = {0}, one = {0};
    FOR_SIZES(d) {
        for (int kind = 0; kind < 2; kind++) {
            DType type = kind ? K_BF16 : K_REAL;
            real *x = reals_random(6, (size_t)(M * d), 2, K_REAL), *w = reals_random(7, (size_t)d, 1, K_REAL);
            real *dy = reals_random(8, (size_t)(M * d), 1, type),
                 *held = reals_random(9, (size_t)(M * d), 1, K_REAL);
            Net net = {d, type, x, w, dy, held, 0, M, 1, GLU_SILU};
            on_all(*state, &out, run_rmsnorm, &net, 0);
            const real *y = reals_of(&out), *dx = y + M * d, *dw = dx + 2 * M * d, *sum_y = dw + d;
            for (int i = 0; i < M * d && kind == 0; i++) assert_true(sum_y[i] == y[i] + held[i]);
            assert_memory_equal(sum_y + M * d, y, (size_t)(M * d) * sizeof *y);
            net.m = M / 3, net.runs = 3; /* the same numbers as runs of fewer rows */
            on_all(*state, &one, run_rmsnorm, &net, 0);
            assert_memory_equal(one.p, out.p, out.n);
            assert_memory_equal(dx, dx + M * d, (size_t)(M * d) * sizeof *dx);
            double *xd = doubles(x, M * d), *wd = doubles(w, d), *c = doubles(dy, M * d), want[2048];
            for (int r = 0; r < M; r++) {
                naive_rmsnorm(want, xd + r * d, wd, d);
                for (int i = 0; i < d; i++) NEAR(y[r * d + i], want[i], kind ? 4e-3 : TOLERANCE(2e-6, 1e-13));
                for (int i = 0; i < d; i += 1 + d / 9)
                    NEAR(dx[r * d + i] - held[r * d + i],
                         slope_of(naive_rmsnorm, c + r * d, d, xd + r * d, wd, xd + r * d + i, d),
                         TOLERANCE(1e-5, 1e-8));
            }
            for (int i = 0; i < d; i += 1 + d / 9) {
                double sum = (double)held[i];
                for (int r = 0; r < M; r++)
                    sum += slope_of(naive_rmsnorm, c + r * d, d, xd + r * d, wd, wd + i, d);
                NEAR(dw[i], sum, TOLERANCE(1e-5, 1e-8));
            }
            net.first = 3, net.m = 1, net.runs = 1; /* a row alone is the same row */
            on_all(*state, &one, run_rmsnorm, &net, 0);
            assert_memory_equal(one.p, y + 3 * d, (size_t)d * sizeof *y);
            free(x), free(w), free(dy), free(held), free(xd), free(wd), free(c);
        }
    }
    buf_free(&out), buf_free(&one);
}

/* Inputs that the backward ops make again for k_matmul_dw alone, in its own order: the same gradients as of rows. */
static void pairs_give_the_same_gradients(void **state) {
    const Devs *devs = *state;
    enum { D = 48, N = 32 };
    static const int rows[] = {32, 96, 1632}; /* the last in two stretches */
    for (int size = 0; size < 3; size++) {
        const int m = rows[size];
        real *x = reals_random(1, (size_t)m * 2 * D, 1, K_BF16), *dy = reals_random(2, (size_t)m * D, 1, K_BF16);
        real *w = reals_random(3, D, 1, K_REAL), *scales = reals_random(4, (size_t)m, 1, K_REAL);
        for (int i = 0; i < devs->n; i++) {
            Dev *dev = devs->dev[i];
            Ten gu = ten_make(dev, m, 2 * D, K_BF16, x), d = ten_make(dev, m, D, K_BF16, dy), dgu, stream, dx;
            Ten out = ten_make(dev, m, N, K_BF16, dy), gain = ten_make(dev, 1, D, K_REAL, w);
            Ten rstd = ten_make(dev, m, 1, K_REAL, scales);
            dgu = ten_make(dev, m, 2 * D, K_BF16, NULL), stream = ten_make(dev, m, D, K_REAL, x);
            dx = ten_make(dev, m, D, K_REAL, NULL);
            Buf grads[2] = {{0}, {0}};
            for (int paired = 0; paired < 2; paired++) {
                Ten h = ten_make(dev, m, D, K_BF16, NULL), y = ten_make(dev, m, D, K_BF16, NULL);
                Ten dw = ten_make(dev, N, D, K_REAL, NULL), dv = ten_make(dev, N, D, K_REAL, NULL);
                Ten to_h = paired ? ten_pairs(dev, h) : h, to_y = paired ? ten_pairs(dev, y) : y;
                assert_int_equal(to_h.type, paired ? K_BF16_PAIRS : K_BF16);
                k_glu_back(dev, dgu, to_h, d, gu, GLU_SILU);
                k_rmsnorm_back(dev, dx, TEN_NONE, TEN_NONE, to_y, d, stream, rstd, gain);
                k_matmul_dw(dev, dw, out, to_h, true);
                k_matmul_dw(dev, dv, out, to_y, true);
                ten_add(dev, dw, &grads[paired]), ten_add(dev, dv, &grads[paired]);
                k_free(dev, &h), k_free(dev, &y), k_free(dev, &dw), k_free(dev, &dv);
            }
            assert_memory_equal(grads[0].p, grads[1].p, grads[0].n);
            assert_true(reals_of(&grads[0])[0] != 0 && reals_of(&grads[0])[N * D] != 0);
            Ten odd = ten_pairs(dev, ten_rows(d, 0, 31)), narrow = ten_pairs(dev, ten_cols(d, 0, 32));
            assert_true(odd.type == K_BF16 && narrow.type == K_BF16 && ten_pairs(dev, dx).type == K_REAL);
            buf_free(&grads[0]), buf_free(&grads[1]);
            Ten *all[] = {&gu, &d, &dgu, &stream, &dx, &out, &gain, &rstd};
            for (size_t k = 0; k < sizeof all / sizeof *all; k++) k_free(dev, all[k]);
        }
        free(x), free(dy), free(w), free(scales);
    }
}

static void naive_silu(double *y, const double *gu, const double *unused, int d) {
    (void)unused;
    for (int i = 0; i < d; i++) y[i] = gu[i] / (1 + exp(-gu[i])) * gu[d + i];
}

static void naive_gelu(double *y, const double *gu, const double *unused, int d) {
    (void)unused;
    for (int i = 0; i < d; i++) {
        double g = gu[i], inner = sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g);
        y[i] = 0.5 * g * (1 + tanh(inner)) * gu[d + i];
    }
}

static void run_glu(Dev *dev, const void *self, Buf *out) {
    const Net *n = self;
    int d = n->d;
    Ten gu = ten_make(dev, n->m, 2 * d, n->type, n->x + n->first * 2 * d),
        h = ten_make(dev, n->m, d, n->type, NULL);
    Ten dh = ten_make(dev, n->m, d, n->type, n->dy + n->first * d),
        dgu = ten_make(dev, n->m, 2 * d, n->type, NULL);
    k_glu(dev, h, gu, n->glu);
    Ten again = ten_make(dev, n->m, d, n->type, NULL), dgu_alone = ten_make(dev, n->m, 2 * d, n->type, NULL);
    k_glu_back(dev, dgu, again, dh, gu, n->glu);
    k_glu_back(dev, dgu_alone, TEN_NONE, dh, gu, n->glu);
    size_t bytes = (size_t)(n->m * d) * dtype_size(n->type);
    assert_memory_equal(again.p, h.p, bytes);
    assert_memory_equal(dgu_alone.p, dgu.p, 2 * bytes);
    k_free(dev, &again), k_free(dev, &dgu_alone);
    ten_take(dev, h, out);
    ten_take(dev, dgu, out);
    k_free(dev, &gu), k_free(dev, &dh);
}

static void glu_and_back(void **state) {
    Buf out = {0}, one = {0};
    FOR_SIZES(d) {
        for (int way = 0; way < 4; way++) {
            int kind = way % 2;
            NaiveRow *naive = way / 2 ? naive_gelu : naive_silu;
            DType type = kind ? K_BF16 : K_REAL;
            real *gu = reals_random(10, (size_t)(M * 2 * d), 3, type),
                 *dh = reals_random(11, (size_t)(M * d), 1, type);
            if (d == 17) gu[0] = -300, gu[1] = 300; /* far beyond the range of exp */
            Net net = {d, type, gu, NULL, dh, NULL, 0, M, 1, way / 2 ? GLU_GELU : GLU_SILU};
            on_all(*state, &out, run_glu, &net, 0);
            const real *h = reals_of(&out), *dgu = h + M * d;
            double *x = doubles(gu, M * 2 * d), *c = doubles(dh, M * d), want[2048];
            double near = kind ? 5e-3 : TOLERANCE(2e-6, 1e-9);
            for (int r = 0; r < M; r++) {
                double *row = x + r * 2 * d;
                naive(want, row, NULL, d);
                for (int i = 0; i < d; i++) NEAR(h[r * d + i], want[i], near);
                for (int i = 0; i < 2 * d; i += 1 + d / 9)
                    NEAR(dgu[r * 2 * d + i], slope_of(naive, c + r * d, d, row, row, row + i, d), near + 2e-8);
            }
            net.first = 2, net.m = 1;
            on_all(*state, &one, run_glu, &net, 0);
            assert_memory_equal(one.p, h + 2 * d, (size_t)d * sizeof *h);
            free(gu), free(dh), free(x), free(c);
        }
    }
    buf_free(&out), buf_free(&one);
}

/* ---- the optimizer ---- */

static void run_adamw(Dev *dev, const void *self, Buf *out) {
    const Net *n = self;
    Ten w = ten_make(dev, M, n->d, K_REAL, n->w), grad = ten_make(dev, M, n->d, K_REAL, n->dy);
    Ten m = ten_make(dev, M, n->d, K_REAL, NULL), v = ten_make(dev, M, n->d, K_REAL, NULL);
    AdamStep step = {(real)0.01, (real)0.9, (real)0.999, (real)1e-8, (real)0.1, 0, 0, (real)0.5};
    double b1 = 1, b2 = 1;
    for (int i = 0; i < 3; i++) {
        b1 *= (double)step.beta1, b2 *= (double)step.beta2;
        step.correct1 = (real)(1 - b1), step.correct2 = (real)(1 - b2);
        k_adamw(dev, w, m, v, grad, &step);
    }
    double sums[2] = {k_sumsq(dev, w), k_sumsq(dev, ten_rows(w, 1, 2))};
    ten_take(dev, w, out);
    buf_add(out, sums, sizeof sums);
    k_free(dev, &grad), k_free(dev, &m), k_free(dev, &v);
}

/* The library's hash of the parts as one stretch of memory. */
static void run_hash(Dev *dev, const void *self, Buf *out) {
    const real *x = self;
    Buf all = {0};
    Ten t = ten_make(dev, 3, 1000, K_REAL, x), low = ten_make(dev, 1, 77, K_BF16, x);
    Ten parts[] = {ten_rows(t, 1, 2), low, ten_rows(t, 0, 1), ten_rows(t, 1, 1)};
    for (int i = 0; i < 4; i++) {
        size_t bytes = (size_t)parts[i].rows * (size_t)parts[i].cols * dtype_size(parts[i].type);
        char *host = mem_alloc(bytes, 1);
        k_get(dev, host, parts[i]);
        buf_add(&all, host, bytes);
        free(host);
    }
    uint64_t hash = k_hash(dev, parts, 4);
    assert_true(hash == XXH3_64bits(all.p, all.n));
    assert_true(k_hash(dev, parts, 0) == XXH3_64bits("", 0));
    buf_add(out, &hash, sizeof hash);
    buf_free(&all), k_free(dev, &t), k_free(dev, &low);
}

static void hash_is_the_library_s(void **state) {
    Buf out = {0};
    real *x = reals_random(17, 3000, 1, K_BF16);
    on_all(*state, &out, run_hash, x, 0);
    free(x), buf_free(&out);
}

static void adamw_and_sumsq(void **state) {
    Buf out = {0};
    const int wide[] = {1, 17, 4097, 20001};
    for (int k = 0; k < 4; k++) {
        int d = wide[k];
        real *w = reals_random(12, (size_t)(M * d), 1, K_REAL),
             *grad = reals_random(13, (size_t)(M * d), 1, K_REAL);
        on_all(*state, &out, run_adamw, &(Net){d, K_REAL, NULL, w, grad, NULL, 0, M, 1, GLU_SILU}, 0);
        double all = 0, left = 0, sums[2];
        for (int i = 0; i < M * d; i++) {
            double x = (double)w[i], m = 0, v = 0, g = (double)grad[i] * 0.5;
            for (int t = 1; t <= 3; t++) {
                x -= 0.01 * 0.1 * x;
                m = 0.9 * m + 0.1 * g, v = 0.999 * v + 0.001 * g * g;
                x -= 0.01 / (1 - pow(0.9, t)) * m / (sqrt(v) / sqrt(1 - pow(0.999, t)) + 1e-8);
            }
            NEAR(reals_of(&out)[i], x, TOLERANCE(2e-6, 1e-12));
            all += x * x, left += i / d == 1 || i / d == 2 ? x * x : 0;
        }
        memcpy(sums, out.p + (size_t)(M * d) * sizeof *w, sizeof sums);
        NEAR(sums[0], all, TOLERANCE(1e-6, 1e-12));
        NEAR(sums[1], left, TOLERANCE(1e-6, 1e-12));
        free(w), free(grad);
    }
    buf_free(&out);
}

/* ---- drawing ---- */

typedef struct {
    int rows, vocab, used;
    const real *logits;
    const Draw *draws;
} Lot;

static void run_sample(Dev *dev, const void *self, Buf *out) {
    const Lot *lot = self;
    Ten logits = ten_make(dev, lot->rows, lot->vocab, K_REAL, lot->logits);
    Drawn *drawn = MEM_ARRAY(Drawn, lot->rows);
    k_sample(dev, drawn, TEN_NONE, logits, lot->draws, lot->used);
    for (int r = 0; r < lot->rows; r++) {
        real row[3] = {(real)drawn[r].tok, drawn[r].logp, drawn[r].draw_logp};
        buf_add(out, row, sizeof row);
    }
    free(drawn);
    k_free(dev, &logits);
}

typedef struct {
    double z;
    int id;
} Ranked;

static int ranked_order(const void *a, const void *b) {
    const Ranked *x = a, *y = b;
    return x->z != y->z ? (x->z > y->z ? -1 : 1) : x->id - y->id;
}

/* The kept set, sorted, as transformers' processors leave it: one after the other, each over a softmax of its own.
 */
static int naive_kept(Ranked *list, const real *logits, int used, const Draw *draw) {
    int n = used, keep = 0;
    for (int i = 0; i < used; i++) list[i] = (Ranked){(double)(draw->inv_temp * logits[i]), i};
    qsort(list, (size_t)n, sizeof *list, ranked_order);
    if (draw->top_k && draw->top_k < n) {
        double least = list[draw->top_k - 1].z;
        while (n > 0 && list[n - 1].z < least) n--;
    }
    double sum = 0, before = 0;
    for (int i = 0; i < n; i++) sum += exp(list[i].z - list[0].z);
    if (draw->top_p < 1) {
        while (keep < n && (keep == 0 || before / sum < (double)draw->top_p))
            before += exp(list[keep++].z - list[0].z);
        n = keep;
    }
    while (n > 1 && exp(list[n - 1].z - list[0].z) < (double)draw->min_p) n--;
    return n;
}

/* A token drawn with u must be where the running sum of the kept set's probabilities passes u. */
static void check_draw(const real *got, const Lot *lot, int row) {
    const Draw *draw = &lot->draws[row];
    const real *logits = lot->logits + row * lot->vocab;
    bool plain = (!draw->top_k || draw->top_k >= lot->used) && draw->top_p >= 1 && draw->min_p <= 0;
    Ranked *list = MEM_ARRAY(Ranked, lot->used);
    int n = naive_kept(list, logits, lot->used, draw), tok = (int)got[0];
    double whole = 0, kept = 0, before = 0, mine = 0, top = list[0].z;
    for (int i = 0; i < lot->vocab; i++) whole += exp((double)(draw->inv_temp * logits[i]) - top);
    for (int i = 0; i < n; i++) kept += exp(list[i].z - top);
    for (int i = 0; i < n; i++) {
        if (list[i].id == tok)
            mine = exp(list[i].z - top);
        else if (plain ? list[i].id < tok : mine == 0)
            before += exp(list[i].z - top);
    }
    if (mine == 0) fail_msg("row %d: token %d is not among the %d kept", row, tok, n);
    assert_true(draw->u * kept >= before - 1e-5 * kept && draw->u * kept <= before + mine + 1e-5 * kept);
    NEAR(got[1], log(mine / whole), TOLERANCE(1e-6, 1e-12));
    NEAR(got[2], log(mine / kept), TOLERANCE(2e-6, 1e-7));
    free(list);
}

static void sample_draws_the_right_token(void **state) {
    enum { ROWS = 96 };
    const int vocabs[] = {1, 17, 512, 513, 1500};
    Buf out = {0};
    for (int k = 0; k < 5; k++) {
        int vocab = vocabs[k];
        for (int short_by = 0; short_by < 2; short_by++) {
            Draw draws[ROWS];
            Rng rng = {77, 0};
            real *logits = reals_random(14, (size_t)(ROWS * vocab), 4, K_REAL);
            for (int r = 0; r < ROWS; r++) {
                draws[r] = (Draw){(real)(0.5 + rng_uniform(&rng)), 0, 1, 0, rng_uniform(&rng)};
                if (r % 2) draws[r].top_k = (int[]){1, 5, 40, 700}[r / 2 % 4];
                if (r % 3 == 1) draws[r].top_p = (real[]){(real)0.1, (real)0.5, (real)0.95}[r / 3 % 3];
                if (r % 5 == 2) draws[r].min_p = (real[]){(real)0.02, (real)0.3}[r / 5 % 2];
                if (r % 7 == 3) /* many equal logits, also at the edge of top_k */
                    for (int i = 0; i < vocab; i++) logits[r * vocab + i] = (real)(i * 7 % 5);
            }
            Lot lot = {ROWS, vocab, vocab - (vocab > 16 ? 9 * short_by : 0), logits, draws};
            on_all(*state, &out, run_sample, &lot, 0);
            for (int r = 0; r < ROWS; r++) check_draw(reals_of(&out) + 3 * r, &lot, r);
            free(logits);
        }
    }
    buf_free(&out);
}

static void sample_greedy_and_edges(void **state) {
    enum { V = 600 };
    real *logits = reals_random(15, 4 * V, 1, K_REAL);
    logits[3] = logits[555] = logits[40] = 50; /* equal: the lowest id */
    logits[V + 599] = 70, logits[V + 5] = 60;  /* the largest is an unused id */
    Draw draws[4] = {{0, 0, 1, 0, 0.5}, {0, 0, 1, 0, 0.5}, {1, 0, 1, 0, 0.0}, {1, 0, 1, 0, 0x1.fffffffffffffp-1}};
    Lot lot = {4, V, 599, logits, draws};
    Buf out = {0};
    on_all(*state, &out, run_sample, &lot, 0);
    const real *got = reals_of(&out);
    assert_true(got[0] == 3 && got[3] == 5 && got[6] == 0 && got[9] == 598);
    NEAR(got[1], -log(3), 1e-6);
    NEAR(got[4], -10 - log1p(exp(-10)), 1e-6);
    assert_true(got[2] == 0 && got[5] == 0);
    free(logits);
    buf_free(&out);
}

/* Pearson's statistic over many draws with a fixed seed: within five standard deviations of its mean. */
static void sample_frequencies(void **state) {
    enum { V = 40, N = 20000 };
    const Devs *devs = *state;
    real *row = reals_random(16, V, 1, K_REAL), *logits = MEM_ARRAY(real, N * V);
    Draw *draws = MEM_ARRAY(Draw, N);
    Rng rng = {78, 0};
    for (int i = 0; i < N; i++) {
        memcpy(logits + i * V, row, V * sizeof *row);
        draws[i] = (Draw){(real)0.7, 0, 1, 0, rng_uniform(&rng)};
    }
    Buf out = {0};
    Lot lot = {N, V, V, logits, draws};
    run_sample(devs->dev[devs->n - 1], &lot, &out);
    double sum = 0, chi = 0;
    int counts[V] = {0};
    for (int i = 0; i < N; i++) counts[(int)reals_of(&out)[3 * i]]++;
    for (int i = 0; i < V; i++) sum += exp(0.7 * (double)row[i]);
    for (int i = 0; i < V; i++) {
        double want = N * exp(0.7 * (double)row[i]) / sum;
        chi += (counts[i] - want) * (counts[i] - want) / want;
    }
    assert_true(fabs(chi - (V - 1)) < 5 * sqrt(2.0 * (V - 1)));
    free(row), free(logits), free(draws);
    buf_free(&out);
}

/* Rows that are cut down: k_sample's kept set is the naive one, and replayed in k_logprob it gives draw_logp's
 * bits. Other rows keep no set. */
static void check_kept(Dev *dev, Ten x, const Mat *mat, Ten logits, Ten kept, const Draw *draws,
                       const Drawn *drawn, real cap) {
    int T = logits.rows, V = logits.cols, words = KEPT_WORDS(V);
    Ten out = ten_make(dev, 2, T, K_REAL, NULL);
    real *row = MEM_ARRAY(real, T * V), *logp = MEM_ARRAY(real, T);
    int *target = MEM_ARRAY(int, T);
    int32_t *sets = MEM_ARRAY(int32_t, T * words);
    Ranked *list = MEM_ARRAY(Ranked, V);
    k_get(dev, row, logits), k_get(dev, sets, kept);
    for (int t = 0; t < T; t++) {
        bool cut = draws[t].top_k || draws[t].top_p < 1 || draws[t].min_p > 0;
        int n = cut ? naive_kept(list, row + t * V, V, &draws[t]) : 0, found = 0;
        target[t] = cut ? drawn[t].tok : -1;
        for (int i = 0; i < V; i++) found += (int)((uint32_t)sets[t * words + i / 32] >> i % 32 & 1);
        for (int i = 0; i < n; i++)
            assert_true((uint32_t)sets[t * words + list[i].id / 32] >> list[i].id % 32 & 1);
        assert_int_equal(found, n);
    }
    k_logprob(dev, ten_rows(out, 0, 1), ten_rows(out, 1, 1), TEN_NONE, x, mat, target, kept, draws[0].inv_temp,
              cap);
    k_get(dev, logp, ten_rows(out, 0, 1));
    for (int t = 0; t < T; t++)
        if (target[t] >= 0) assert_memory_equal(&logp[t], &drawn[t].draw_logp, sizeof(real));
    k_free(dev, &out);
    free(row), free(logp), free(target), free(sets), free(list);
}

/* What is stored while sampling is what the learner computes: the same bits from k_matmul and k_sample as from
 * k_logprob. */
static void sample_logp_is_the_learners(void **state) {
    enum { V = 1100, D = 33, T = 18 };
    const Devs *devs = *state;
    real *w = reals_random(17, V * D, 0.3, K_REAL), *x = reals_random(18, T * D, 1, K_REAL);
    for (int i = 0; i < devs->n; i++) {
        for (int kind = 0; kind < 8; kind++) {
            Dev *dev = devs->dev[i];
            DType type = kind % 2 ? K_BF16 : K_REAL;
            Err err = {0};
            real inv_temp = (real)(kind / 2 % 2 ? 1.25 : 1), cap = (real)(kind / 4 ? 1.5 : 0), logp[T];
            Mat mat = k_mat_new(dev, V, D, type, false, &err);
            Ten tw = ten_make(dev, V, D, K_REAL, w), tx = ten_make(dev, T, D, type, x);
            Ten logits = ten_make(dev, T, V, K_REAL, NULL), out = ten_make(dev, 2, T, K_REAL, NULL);
            k_mat_pack(dev, &mat, tw, 0);
            k_matmul(dev, logits, tx, &mat, TEN_NONE, TEN_NONE);
            if (cap > 0) k_softcap(dev, logits, cap);
            Draw draws[T];
            Drawn drawn[T];
            int target[T];
            for (int t = 0; t < T; t++) {
                draws[t] = (Draw){inv_temp, t % 3 * 20, 1, 0, (t + 0.5) / T};
                if (t % 4 == 2) draws[t].top_p = (real)0.8;
                if (t % 5 == 2) draws[t].min_p = (real)0.1;
            }
            Ten kept = k_new(dev, T, KEPT_WORDS(V), K_I32, &err);
            k_sample(dev, drawn, kept, logits, draws, V);
            check_kept(dev, tx, &mat, logits, kept, draws, drawn, cap);
            for (int t = 0; t < T; t++) target[t] = drawn[t].tok;
            k_logprob(dev, ten_rows(out, 0, 1), ten_rows(out, 1, 1), TEN_NONE, tx, &mat, target, TEN_NONE,
                      inv_temp, cap);
            k_get(dev, logp, ten_rows(out, 0, 1));
            for (int t = 0; t < T; t++) assert_true(memcmp(&logp[t], &drawn[t].logp, sizeof(real)) == 0);
            k_free(dev, &tw), k_free(dev, &tx), k_free(dev, &logits), k_free(dev, &out), k_free(dev, &kept);
            k_mat_free(dev, &mat);
        }
    }
    free(w), free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copy_and_scale_convert),
        cmocka_unit_test(scatter_gather_add),
        cmocka_unit_test(embed_and_back),
        cmocka_unit_test(rmsnorm_and_back),
        cmocka_unit_test(glu_and_back),
        cmocka_unit_test(pairs_give_the_same_gradients),
        cmocka_unit_test(adamw_and_sumsq),
        cmocka_unit_test(hash_is_the_library_s),
        cmocka_unit_test(sample_draws_the_right_token),
        cmocka_unit_test(sample_greedy_and_edges),
        cmocka_unit_test(sample_frequencies),
        cmocka_unit_test(sample_logp_is_the_learners),
    };
    return cmocka_run_group_tests(tests, devs_open, devs_close);
}
