/* optim.h: the update of the weights (AdamW) and the norm of the gradients, over contiguous buffers.
 * Included by body.h after rows.h. Tested by tests/test_kernels_rows.c. */

typedef struct {
    Ten w, m, v, grad;
    Cut cut;
    real keep, beta2, take1, take2, rate, root2, eps, scale;
} AdamJob;

static void adamw_item(void *self, int item, int thread) {
    (void)thread;
    const AdamJob *job = self;
    int r = cut_row(&job->cut, item), end = cut_end(&job->cut, item);
    Row wr = row_at(job->w, r), mr = row_at(job->m, r), vr = row_at(job->v, r), gr = row_at(job->grad, r);
    Vec keep = v_set(job->keep), beta2 = v_set(job->beta2), take1 = v_set(job->take1), take2 = v_set(job->take2);
    Vec rate = v_set(-job->rate), root2 = v_set(job->root2), eps = v_set(job->eps), scale = v_set(job->scale);
    for (int i = cut_from(&job->cut, item); i < end; i += 16) {
        Vec g = v_mul(row_get(gr, i, end), scale), m = row_get(mr, i, end), v = row_get(vr, i, end);
        m = v_fma(take1, v_sub(g, m), m);
        v = v_fma(v_mul(take2, g), g, v_mul(v, beta2));
        Vec down = v_add(v_div(v_sqrt(v), root2), eps);
        row_set(mr, i, end, m);
        row_set(vr, i, end, v);
        row_set(wr, i, end, v_fma(rate, v_div(m, down), v_mul(row_get(wr, i, end), keep)));
    }
}

/* PyTorch's single-tensor AdamW: w *= 1 - lr wd; m += (1 - beta1) (g - m); v = beta2 v + (1 - beta2) g^2;
 * w -= lr / correct1 * m / (sqrt(v) / sqrt(correct2) + eps). */
static void op_adamw(Dev *dev, Ten w, Ten m, Ten v, Ten grad, const AdamStep *step) {
    AdamJob job = {.w = w, .m = m, .v = v, .grad = grad, .beta2 = step->beta2, .eps = step->eps};
    job.cut = cut_of(w.rows, w.cols, ten_dense(w) && ten_dense(m) && ten_dense(v) && ten_dense(grad));
    job.keep = (real)(1 - (double)step->lr * (double)step->weight_decay);
    job.take1 = (real)(1 - (double)step->beta1);
    job.take2 = (real)(1 - (double)step->beta2);
    job.rate = (real)((double)step->lr / (double)step->correct1);
    job.root2 = s_sqrt(step->correct2);
    job.scale = step->grad_scale;
    pool_run(dev->pool, job.cut.rows * job.cut.across, adamw_item, &job);
}

enum { SUMSQ_CHUNK = 4096, SUMSQ_PIECE = 8192 }; /* elements of a sum; sums that are held at once */

typedef struct {
    const real *from; /* of the piece */
    size_t n;         /* elements from there to the tensor's end */
    double *sums;     /* of each chunk of the piece */
} SumsqJob;

static void sumsq_item(void *self, int item, int thread) {
    (void)thread;
    const SumsqJob *job = self;
    size_t at = (size_t)item * SUMSQ_CHUNK, left = job->n - at;
    Row t = {(real *)job->from + at, NULL};
    int n = left < SUMSQ_CHUNK ? (int)left : SUMSQ_CHUNK;
    Vec sum = v_set(0);
    for (int i = 0; i < n; i += 16) {
        Vec a = row_get(t, i, n);
        sum = v_fma(a, a, sum);
    }
    job->sums[item] = (double)v_sum(sum);
}

/* The tensor is dense: one long row of chunks, whose sums are added in order, piece after piece. */
static double op_sumsq(Dev *dev, Ten t) {
    const size_t all = (size_t)t.rows * (size_t)t.cols, piece = (size_t)SUMSQ_PIECE * SUMSQ_CHUNK;
    double sum = 0;
    for (size_t at = 0; at < all; at += piece) {
        SumsqJob job = {(const real *)t.p + at, all - at, dev_scratch(dev, 0, SUMSQ_PIECE * sizeof(double))};
        size_t here = job.n < piece ? job.n : piece;
        int chunks = (int)((here + SUMSQ_CHUNK - 1) / SUMSQ_CHUNK);
        pool_run(dev->pool, chunks, sumsq_item, &job);
        for (int i = 0; i < chunks; i++) sum += job.sums[i];
    }
    return sum;
}
