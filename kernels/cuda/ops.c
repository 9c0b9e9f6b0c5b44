/* ops.c: the ops that work on rows and elements, and the optimizer. */
#include "kernels/cuda/host.h"

#include <math.h>
#include <stdlib.h>

static cudaStream_t stream(Dev *dev) { return dev->cuda->stream; }

void op_copy(Dev *dev, Ten dst, Ten src) { cu_pair(stream(dev), PAIR_SET, dst, src, 1); }
void op_scale(Dev *dev, Ten y, Ten x, real s) { cu_pair(stream(dev), PAIR_SCALE, y, x, s); }
void op_add(Dev *dev, Ten y, Ten x) { cu_pair(stream(dev), PAIR_ADD, y, x, 1); }
void op_softcap(Dev *dev, Ten x, real cap) { cu_softcap(stream(dev), x, cap); }
void op_glu(Dev *dev, Ten h, Ten gu, GluKind kind) { cu_glu(stream(dev), h, gu, kind); }
void op_glu_back(Dev *dev, Ten dgu, Ten h, Ten dh, Ten gu, GluKind kind) {
    if (ten_is(h)) cu_glu(stream(dev), h, gu, kind);
    cu_glu_back(stream(dev), dgu, dh, gu, kind);
}

void op_mat_pack(Dev *dev, Mat *mat, Ten w, int row0) {
    cu_pack(stream(dev), ten_rows(mat_view(mat), row0, w.rows), w);
}

void op_matmul(Dev *dev, Ten y, Ten x, const Mat *w, Ten bias, Ten residual) {
    product(dev, y, x, w, 0, w->n, bias, residual);
}

void op_matmul_dx(Dev *dev, Ten dx, Ten dy, const Mat *w, Ten residual) {
    product_back(dev, dx, dy, w, 0, w->n, residual);
}

static void sum_rows(Dev *dev, Ten dw, Ten dy, Ten x, Ten rstd) {
    int blocks = (dy.rows + SUM_ROWS - 1) / SUM_ROWS;
    float *part = dev_scratch(dev, WS_SUMS, (size_t)blocks * (size_t)dw.cols * sizeof *part);
    cu_sum_rows(stream(dev), dw, part, dy, x, rstd);
}

void op_bias_back(Dev *dev, Ten db, Ten dy) { sum_rows(dev, db, dy, TEN_NONE, TEN_NONE); }

void op_rmsnorm(Dev *dev, Ten y, Ten rstd, Ten x, Ten w, Ten residual, real eps) {
    cu_rmsnorm(stream(dev), y, rstd, x, w, residual, eps);
}

void op_rmsnorm_back(Dev *dev, Ten dx, Ten low, Ten dw, Ten y, Ten dy, Ten x, Ten rstd, Ten w) {
    if (ten_is(dw)) sum_rows(dev, dw, dy, x, rstd); /* before dx, which may be dy */
    cu_rmsnorm_back(stream(dev), dx, low, y, dy, x, rstd, w);
}

/* ---- rows by index ---- */

void op_embed(Dev *dev, Ten x, const Mat *w, const Rows *rows) {
    cu_embed(stream(dev), x, ten_cols(mat_view(w), 0, w->k), rows_on(dev, rows).tok, 1);
}

void op_gather(Dev *dev, Ten y, Ten x, const int *index) {
    cu_gather(stream(dev), y, x, upload(dev, index, (size_t)y.rows * sizeof *index));
}

typedef struct {
    int to, from;
} Pair;

static int pair_order(const void *a, const void *b) {
    const Pair *x = a, *y = b;
    if (x->to != y->to) return x->to < y->to ? -1 : 1;
    return x->from < y->from ? -1 : x->from > y->from;
}

/* x[index[i]] += y[i] in order of i; rows with index -1 or page -1 (page may be NULL) are skipped. The rows of one
 * target are brought together here, so that one thread adds them in order. */
static void scatter(Dev *dev, Ten x, Ten y, const int *index, const int *page) {
    int m = y.rows, n = 0, targets = 0;
    Pair *pairs = MEM_ARRAY(Pair, m + 1);
    for (int i = 0; i < m; i++)
        if (index[i] >= 0 && !(page && page[i] < 0)) pairs[n++] = (Pair){index[i], i};
    qsort(pairs, (size_t)n, sizeof *pairs, pair_order);
    int *lists = MEM_ARRAY(int, 3 * m + 2), *to = lists, *first = to + m, *from = first + m + 1;
    for (int i = 0; i < n; i++) {
        if (i == 0 || pairs[i].to != pairs[i - 1].to) first[targets] = i, to[targets++] = pairs[i].to;
        from[i] = pairs[i].from;
    }
    first[targets] = n;
    const int *there = upload(dev, lists, (size_t)(3 * m + 2) * sizeof *lists);
    cu_scatter(stream(dev), x, y, targets, there, there + m, there + 2 * m + 1, 1);
    free(pairs), free(lists);
}

void op_scatter(Dev *dev, Ten x, Ten y, const int *index) { scatter(dev, x, y, index, NULL); }
void op_embed_back(Dev *dev, Ten dw, Ten dx, const Rows *rows) { scatter(dev, dw, dx, rows->tok, rows->page); }

/* ---- the optimizer ---- */

void op_adamw(Dev *dev, Ten w, Ten m, Ten v, Ten grad, const AdamStep *step) { /* as kernels/cpu/optim.h */
    AdamRates rates = {.beta2 = step->beta2, .eps = step->eps, .scale = step->grad_scale};
    rates.keep = (float)(1 - (double)step->lr * (double)step->weight_decay);
    rates.take1 = (float)(1 - (double)step->beta1);
    rates.take2 = (float)(1 - (double)step->beta2);
    rates.rate = (float)((double)step->lr / (double)step->correct1);
    rates.root2 = (float)sqrt((double)step->correct2);
    cu_adamw(stream(dev), w, m, v, grad, rates);
}

double op_sumsq(Dev *dev, Ten t) {
    const size_t all = (size_t)t.rows * (size_t)t.cols, piece = (size_t)SUMSQ_PIECE * SUMSQ_CHUNK;
    double sum = 0, *host = MEM_ARRAY(double, SUMSQ_PIECE);
    for (size_t at = 0; at < all; at += piece) {
        size_t n = all - at < piece ? all - at : piece, chunks = (n + SUMSQ_CHUNK - 1) / SUMSQ_CHUNK;
        double *sums = dev_scratch(dev, WS_SUMS, SUMSQ_PIECE * sizeof *sums);
        cu_sumsq(stream(dev), sums, (const float *)t.p + at, n);
        dev->ops->get(dev, host, (Ten){sums, 1, (int)chunks * 2, (int)chunks * 2, K_I32});
        for (size_t i = 0; i < chunks; i++) sum += host[i];
    }
    free(host);
    return sum;
}
