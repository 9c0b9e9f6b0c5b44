/* head.h: log-probabilities of chosen tokens and their gradient, without ever holding the logits of more than a
 * few blocks. Needs matmul.h and lse.h before it. */

/* Rows of an item; and columns whose gradient is held at once, a multiple of HEAD_BLOCK: for the sums over rows
 * they are the rows of dW that are visited once. */
enum { HEAD_ROWS = 64, HEAD_SPAN = 2048 };

typedef struct {
    Lse lse;
    real sum_z; /* sum of exp(z - max) z */
} HeadPart;

typedef struct {
    Left x;
    const Mat *w;
    int t, blocks, row_blocks;
    const int *target;
    Ten kept;
    real inv_temp, cap;
    real *z;         /* a buffer [HEAD_ROWS, HEAD_BLOCK] for each thread */
    HeadPart *parts; /* forward: [t, blocks] */
    Ten logp, entropy, lse;
    int first; /* backward: first block of the span */
    Ten dz;    /* [t, HEAD_SPAN] */
    const real *coef, *ent_coef;
} HeadJob;

/* z[rows, n] = inv_temp (x W^T, capped) for rows row0 .. of the columns of one block, where kept. */
static void head_logits(const HeadJob *job, real *z, int row0, int rows, int block, int n) {
    const Mat *w = job->w;
    size_t panel = (size_t)PAIRS(w->k) * 32;
    Product g = {.w = (const char *)w->fwd.p + (size_t)block * (HEAD_BLOCK / 16) * panel * dtype_size(w->type),
                 .w_panel = panel,
                 .w_type = w->type,
                 .m = rows,
                 .n = n,
                 .pairs = PAIRS(w->k),
                 .y = {z, rows, n, HEAD_BLOCK, K_REAL}};
    g.a = job->x;
    g.a.p = (const char *)g.a.p + (size_t)row0 * g.a.stride * LEFT_SIZE(w->type);
    product_block(&g, 0, rows, 0, PANELS(n));
    Vec scale = v_set(job->inv_temp);
    for (int r = 0; r < rows; r++) {
        Row row = {z + r * HEAD_BLOCK, NULL};
        for (int i = 0; i < n; i += 16) {
            Vec one = row_get(row, i, n);
            row_set(row, i, n, v_mul(scale, job->cap > 0 ? v_softcap(one, job->cap) : one));
        }
        if (ten_is(job->kept)) lse_keep(row.f, block * HEAD_BLOCK, n, kept_row(job->kept, row0 + r));
    }
}

static int head_width(const Mat *w, int block) {
    int left = w->n - block * HEAD_BLOCK;
    return left < HEAD_BLOCK ? left : HEAD_BLOCK;
}

static void logprob_part(void *self, int item, int thread) {
    HeadJob *job = self;
    int block = item / job->row_blocks, row0 = item % job->row_blocks * HEAD_ROWS;
    int rows = job->t - row0 < HEAD_ROWS ? job->t - row0 : HEAD_ROWS, n = head_width(job->w, block);
    real *z = job->z + (size_t)thread * HEAD_ROWS * HEAD_BLOCK;
    head_logits(job, z, row0, rows, block, n);
    for (int r = 0; r < rows; r++) {
        const real *at = z + r * HEAD_BLOCK;
        HeadPart *part = &job->parts[(size_t)(row0 + r) * (size_t)job->blocks + (size_t)block];
        part->lse = ten_is(job->entropy) ? lse_block(at, n, &part->sum_z) : lse_block(at, n, NULL);
        int target = job->target[row0 + r] - block * HEAD_BLOCK;
        if (target >= 0 && target < n) row_at(job->logp, 0).f[row0 + r] = at[target];
    }
}

static HeadJob head_job(Dev *dev, Ten x, const Mat *w, const int *target, Ten kept, real inv_temp, real cap) {
    HeadJob job = {.w = w,
                   .t = x.rows,
                   .blocks = (w->n + HEAD_BLOCK - 1) / HEAD_BLOCK,
                   .target = target,
                   .kept = kept,
                   .row_blocks = (x.rows + HEAD_ROWS - 1) / HEAD_ROWS,
                   .inv_temp = inv_temp,
                   .cap = cap};
    job.x = left_of(dev, x, w->type, PAIRS(w->k));
    job.z = dev_scratch(dev, 2, (size_t)dev->threads * HEAD_ROWS * HEAD_BLOCK * sizeof(real));
    return job;
}

static void op_logprob(Dev *dev, Ten logp, Ten lse, Ten entropy, Ten x, const Mat *w, const int *target, Ten kept,
                       real inv_temp, real cap) {
    HeadJob job = head_job(dev, x, w, target, kept, inv_temp, cap);
    job.parts = dev_scratch(dev, 3, (size_t)job.t * (size_t)job.blocks * sizeof *job.parts);
    job.logp = logp, job.entropy = entropy;
    pool_run(dev->pool, job.blocks * job.row_blocks, logprob_part, &job);
    real *out = logp.p, *all = lse.p, *ent = entropy.p;
    for (int t = 0; t < job.t; t++) {
        const HeadPart *parts = job.parts + (size_t)t * (size_t)job.blocks;
        Lse sum = lse_none();
        for (int b = 0; b < job.blocks; b++) sum = lse_merge(sum, parts[b].lse);
        all[t] = target[t] < 0 ? 0 : lse_value(sum);
        out[t] = target[t] < 0 ? 0 : out[t] - all[t];
        if (!ent) continue;
        real mean_z = 0;
        for (int b = 0; b < job.blocks; b++) mean_z += s_exp(parts[b].lse.max - all[t]) * parts[b].sum_z;
        ent[t] = target[t] < 0 ? 0 : all[t] - mean_z;
    }
}

/* dz of one block for some rows, in the product's type. */
static void logprob_back_part(void *self, int item, int thread) {
    HeadJob *job = self;
    int block = job->first + item / job->row_blocks, row0 = item % job->row_blocks * HEAD_ROWS;
    int rows = job->t - row0 < HEAD_ROWS ? job->t - row0 : HEAD_ROWS, n = head_width(job->w, block);
    real *z = job->z + (size_t)thread * HEAD_ROWS * HEAD_BLOCK;
    head_logits(job, z, row0, rows, block, n);
    const real *lse = job->lse.p, *entropy = job->entropy.p;
    real per_cap = job->cap > 0 ? 1 / (job->cap * job->inv_temp) : 0; /* z is scaled already */
    for (int r = 0; r < rows; r++) {
        int t = row0 + r, target = job->target[t];
        bool on = target >= 0;
        real coef = on ? job->coef[t] * job->inv_temp : 0;
        real ent = on && job->ent_coef ? job->ent_coef[t] * job->inv_temp : 0;
        Row row = {z + r * HEAD_BLOCK, NULL}, to = row_skip(row_at(job->dz, t), (block - job->first) * HEAD_BLOCK);
        Vec minus = v_set(-coef), shift = v_set(lse[t]), high = v_set(ent != 0 ? entropy[t] : 0), e = v_set(-ent);
        int at = target - block * HEAD_BLOCK;
        real hit[16] = {0}; /* the target's share, in its lane */
        if (on && at >= 0 && at < n) hit[at % 16] = coef;
        for (int i = 0; i < n; i += 16) {
            Vec one = row_get(row, i, n), log_p = v_sub(one, shift), p = v_exp(log_p), d = v_mul(minus, p);
            if (ent != 0) d = v_fma(v_mul(e, p), v_add(log_p, high), d);
            if (i == at / 16 * 16) d = v_add(d, v_load(hit));
            if (job->cap > 0) d = v_mul(d, v_softcap_slope(one, per_cap));
            row_set(to, i, n, on ? d : v_set(0));
        }
    }
}

static void op_logprob_back(Dev *dev, Ten dx, Ten dw, Ten x, const Mat *w, const int *target, Ten kept,
                            const real *coef, const real *ent_coef, Ten lse, Ten entropy, real inv_temp, real cap,
                            bool fresh) {
    int t = x.rows;
    if (fresh && t == 0 && ten_is(dw)) cpu_zero(dev, dw);
    if (t == 0) return;
    /* Scratch 0 and 1 serve the products below; x's left operand must outlive them. */
    HeadJob job = head_job(dev, x, w, target, kept, inv_temp, cap);
    size_t x_bytes = (size_t)t * job.x.stride * LEFT_SIZE(w->type);
    size_t dz_bytes = ((size_t)t * HEAD_SPAN * dtype_size(w->type) + 63) / 64 * 64;
    char *keep = dev_scratch(dev, 3, dz_bytes + x_bytes);
    if (job.x.p == dev->scratch[0].p) job.x.p = memcpy(keep + dz_bytes, job.x.p, x_bytes);
    job.dz = (Ten){keep, t, HEAD_SPAN, HEAD_SPAN, w->type};
    job.coef = coef, job.ent_coef = ent_coef, job.lse = lse, job.entropy = entropy;
    const void *packed_x = ten_is(dw) ? right_of(dev, x, w->type) : NULL;
    for (int v = 0; v < w->n; v += HEAD_SPAN) {
        int wide = w->n - v < HEAD_SPAN ? w->n - v : HEAD_SPAN;
        job.first = v / HEAD_BLOCK;
        pool_run(dev->pool, (wide + HEAD_BLOCK - 1) / HEAD_BLOCK * job.row_blocks, logprob_back_part, &job);
        Ten dz = ten_cols(job.dz, 0, wide);
        Product g = {.w = (const char *)w->back.p + (size_t)v / 2 * 32 * dtype_size(w->type),
                     .w_panel = (size_t)PAIRS(w->n) * 32,
                     .w_type = w->type,
                     .m = t,
                     .n = w->k,
                     .pairs = PAIRS(wide),
                     .y = dx,
                     .start = v > 0 ? dx : TEN_NONE,
                     .by_rows = v > 0};
        g.a = left_of(dev, dz, w->type, g.pairs);
        product(dev, &g);
        if (packed_x) product_dw(dev, ten_rows(dw, v, wide), dz, packed_x, fresh);
    }
}
