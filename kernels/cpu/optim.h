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

enum { SUMSQ_CHUNK = 4096 };

typedef struct {
    Ten t;
    Cut cut;
    int chunks;   /* of a row */
    double *sums; /* of each chunk */
} SumsqJob;

static void sumsq_item(void *self, int item, int thread) {
    (void)thread;
    const SumsqJob *job = self;
    int r = cut_row(&job->cut, item), end = cut_end(&job->cut, item);
    Row t = row_at(job->t, r);
    for (int from = cut_from(&job->cut, item); from < end; from += SUMSQ_CHUNK) {
        int stop = least(from + SUMSQ_CHUNK, end);
        Vec sum = v_set(0);
        for (int i = from; i < stop; i += 16) {
            Vec a = row_get(t, i, stop);
            sum = v_fma(a, a, sum);
        }
        job->sums[(size_t)r * (size_t)job->chunks + (size_t)(from / SUMSQ_CHUNK)] = (double)v_sum(sum);
    }
}

/* A dense tensor is one row of chunks (each of its rows has its own where an int cannot count the elements). */
static double op_sumsq(Dev *dev, Ten t) {
    SumsqJob job = {.t = t, .cut = cut_of(t.rows, t.cols, ten_dense(t))};
    job.chunks = ceil_div(job.cut.cols, SUMSQ_CHUNK);
    size_t n = (size_t)job.cut.rows * (size_t)job.chunks;
    job.sums = dev_scratch(dev, 0, n * sizeof *job.sums);
    pool_run(dev->pool, job.cut.rows * job.cut.across, sumsq_item, &job);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += job.sums[i];
    return sum;
}
