/* head.h: log-probabilities of chosen tokens and their gradient, without ever holding the logits of more than a
 * few rows of a block. What follows a product takes its sums as they come (Product's `take`), with tiles beside
 * the next products. Needs matmul.h and lse.h before it. */

/* Rows whose logits are held at once: 32 of the left operand stay in the first cache while tiles of panels go by.
 * The most rows of an item, which should stay in the second cache beside a block's weights. And columns whose
 * gradient is held at once, a multiple of HEAD_BLOCK. */
enum { HEAD_ROWS = 32, HEAD_MOST = 512, HEAD_SPAN = 2048 };

typedef struct {
    Lse lse;
    real sum_z; /* sum of exp(z - max) z */
} HeadPart;

typedef struct {
    Left x;
    const Mat *w;
    int t, blocks;
    int rows, row_blocks; /* of an item; items of a block */
    const int *target;
    Ten kept;
    real inv_temp, cap;
    struct HeadRoom *room; /* forward: [threads] */
    HeadPart *parts;       /* forward: [t, blocks] */
    Ten logp, entropy, lse;
    int first;   /* backward: first column of the span */
    Ten dz;      /* [t, HEAD_SPAN] */
    Left turned; /* [HEAD_SPAN, t] */
    bool tiled;  /* these two are tiles */
    const real *coef, *ent_coef;
} HeadJob;

static HeadJob head_job(Dev *dev, Ten x, const Mat *w, const int *target, Ten kept, real inv_temp, real cap) {
    HeadJob job = {.w = w,
                   .t = x.rows,
                   .blocks = ceil_div(w->n, HEAD_BLOCK),
                   .target = target,
                   .kept = kept,
                   .inv_temp = inv_temp,
                   .cap = cap};
    job.x = left_of(dev, x, w->type, PAIRS(w->k));
    return job;
}

/* Rows of an item, where there are `others` items of the same rows: as many as may be, but work for each thread.
 */
static int head_rows(int t, int most_rows, int others, int threads) {
    int rows = most_rows;
    while (rows > HEAD_ROWS && others * ceil_div(t, rows) < 2 * threads) rows /= 2;
    return rows;
}

/* The product x W^T of the columns of a block and rows row0 .. row0+rows-1. */
static Product head_product(const HeadJob *job, int block, int row0, int rows) {
    const Mat *w = job->w;
    const size_t panel = (size_t)PAIRS(w->k) * 32;
    return (Product){.a = left_from(job->x, w->type, row0, 0),
                     .w = (const char *)w->fwd.p + (size_t)block * (HEAD_BLOCK / 16) * panel * dtype_size(w->type),
                     .w_panel = panel,
                     .w_type = w->type,
                     .m = rows,
                     .n = least(HEAD_BLOCK, w->n - block * HEAD_BLOCK),
                     .pairs = PAIRS(w->k),
                     .y = {.type = K_REAL}};
}

/* ---- forward ---- */

/* Logits of a block for some rows, and what is summed of them. The next rows' logits take their place one by one,
 * and just before that their exponentials are summed. */
typedef struct HeadRoom {
    _Alignas(64) real z[HEAD_ROWS][HEAD_BLOCK];
    real sum[HEAD_ROWS][16], sum_z[HEAD_ROWS][16], max[HEAD_ROWS];
    real top[HEAD_ROWS][16]; /* maxima of the rows that are coming */
    const HeadJob *job;
    int block, n;   /* and its columns */
    int row0, rows; /* whose logits lie here */
} HeadRoom;

/* Sums columns first .. first+width-1 of row r. */
ALWAYS void head_sum(HeadRoom *room, int r, int first, const int width) {
    Vec max = v_set(room->max[r]), sum = v_load(room->sum[r]), sum_z = v_load(room->sum_z[r]);
    for (int i = first; i < first + width; i += 16) lse_add(v_load(room->z[r] + i), max, &sum, &sum_z);
    v_store(room->sum[r], sum), v_store(room->sum_z[r], sum_z);
}

/* What is not simply a scaled sum: logits under a cap, of ids that are not kept, beyond the vocabulary. */
static void head_cut(const HeadRoom *room, real *z, int r, int first, int width) {
    const HeadJob *job = room->job;
    const int n = least(width, room->n - first);
    for (int i = 0; i < width && job->cap > 0; i += 16)
        v_store(z + i, v_mul(v_set(job->inv_temp), v_softcap(v_load(z + i), job->cap)));
    for (int i = n; i < width; i++) z[i] = LSE_LOW;
    if (ten_is(job->kept))
        lse_keep(z, room->block * HEAD_BLOCK + first, n, kept_row(job->kept, room->row0 + room->rows + r));
}

ALWAYS void head_replace(HeadRoom *room, int row, int rows, int first, const int width, const real *c,
                         const bool cut) {
    const Vec scale = v_set(room->job->cap > 0 ? 1 : room->job->inv_temp);
    for (int r = row; r < row + rows; r++, c += width) {
        real *z = room->z[r] + first;
        Vec top = v_load(room->top[r]);
        head_sum(room, r, first, width);
        for (int i = 0; i < width; i += 16) v_store(z + i, v_mul(scale, v_load(c + i)));
        if (cut) head_cut(room, z, r, first, width);
        for (int i = 0; i < width; i += 16) top = v_max(v_load(z + i), top);
        v_store(room->top[r], top);
    }
}

/* z = inv_temp (x W^T, capped), where kept. */
static void head_take(void *self, int row, int rows, int first, int width, const real *c) {
    HeadRoom *room = self;
    const HeadJob *job = room->job;
    const bool cut = job->cap > 0 || ten_is(job->kept) || first + width > room->n;
    if (width == 32 && !cut) /* with tiles as a rule */
        head_replace(room, row, rows, first, 32, c, false);
    else
        head_replace(room, row, rows, first, width, c, cut);
}

/* The rows that lie here are summed but for those from row `from` on; the next ones are there. */
static void head_next(HeadRoom *room, int from, int next) {
    const HeadJob *job = room->job;
    for (int r = 0; r < room->rows; r++) {
        HeadPart *part = &job->parts[(size_t)(room->row0 + r) * (size_t)job->blocks + (size_t)room->block];
        if (r >= from) head_sum(room, r, 0, PANELS(room->n) * 16);
        *part = (HeadPart){{room->max[r], v_sum(v_load(room->sum[r]))}, v_sum(v_load(room->sum_z[r]))};
    }
    room->row0 += room->rows, room->rows = next;
    for (int r = 0; r < HEAD_ROWS; r++) {
        int target = r < next ? job->target[room->row0 + r] - room->block * HEAD_BLOCK : -1;
        if (target >= 0 && target < room->n) row_at(job->logp, 0).f[room->row0 + r] = room->z[r][target];
        room->max[r] = v_top(v_load(room->top[r]));
        v_store(room->sum[r], v_set(0)), v_store(room->sum_z[r], v_set(0)), v_store(room->top[r], v_set(LSE_LOW));
    }
}

static void logprob_part(void *self, int item, int thread) {
    const HeadJob *job = self;
    const int block = item / job->row_blocks, row0 = item % job->row_blocks * job->rows,
              row1 = least(row0 + job->rows, job->t);
    HeadRoom *room = &job->room[thread];
    *room = (HeadRoom){
        .job = job, .block = block, .n = least(HEAD_BLOCK, job->w->n - block * HEAD_BLOCK), .row0 = row0};
    head_next(room, 0, 0);
    for (int r = row0; r < row1; r += HEAD_ROWS) {
        Product g = head_product(job, block, r, least(HEAD_ROWS, row1 - r));
        g.by_rows = true, g.take = head_take, g.taker = room;
        product_block(&g, 0, g.m, 0, PANELS(g.n));
        head_next(room, g.m, g.m);
    }
    head_next(room, 0, 0);
}

static void op_logprob(Dev *dev, Ten logp, Ten lse, Ten entropy, Ten x, const Mat *w, const int *target, Ten kept,
                       real inv_temp, real cap) {
    HeadJob job = head_job(dev, x, w, target, kept, inv_temp, cap);
    job.rows = head_rows(job.t, HEAD_MOST, job.blocks, dev->threads), job.row_blocks = ceil_div(job.t, job.rows);
    job.room = dev_scratch(dev, 2, (size_t)dev->threads * sizeof *job.room);
    job.parts = dev_scratch(dev, 3, (size_t)job.t * (size_t)job.blocks * sizeof *job.parts);
    job.logp = logp;
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

/* ---- backward ----
 * dz of a span of columns in the product's type, then what it gives to dW and to dx. With tiles dz is written as
 * the left operands of these two: tiles and, whenever there are 32 rows, turned ones. */

/* dz of sixteen columns out of the product's sums. */
static Vec dz_lanes(const HeadJob *job, int t, int col, Vec sums) {
    const int target = job->target[t], n = least(16, job->w->n - col);
    if (target < 0) return v_set(0);
    Vec one = v_mul(v_set(job->inv_temp), job->cap > 0 ? v_softcap(sums, job->cap) : sums);
    real lanes[16];
    if (ten_is(job->kept)) {
        v_store(lanes, one);
        lse_keep(lanes, col, n, kept_row(job->kept, t));
        one = v_load(lanes);
    }
    const real coef = job->coef[t] * job->inv_temp, ent = job->ent_coef ? job->ent_coef[t] * job->inv_temp : 0;
    Vec log_p = v_sub(one, v_set(row_at(job->lse, 0).f[t])), p = v_exp(log_p), d = v_mul(v_set(-coef), p);
    if (ent != 0) d = v_fma(v_mul(v_set(-ent), p), v_add(log_p, v_set(row_at(job->entropy, 0).f[t])), d);
    if (target >= col && target < col + 16) {
        memset(lanes, 0, sizeof lanes);
        lanes[target - col] = coef; /* the target's share, in its lane */
        d = v_add(d, v_load(lanes));
    }
    if (job->cap > 0) d = v_mul(d, v_softcap_slope(one, 1 / (job->cap * job->inv_temp))); /* z is scaled already */
    return n < 16 ? (v_store(lanes, d), v_load_n(lanes, n)) : d;
}

/* Where dz of row t and of columns from col on lies: the rest of the row, with tiles of its sixteen. */
static inline Row dz_at(const HeadJob *job, int t, int col) {
    col -= job->first;
    if (!job->tiled) return row_skip(row_at(job->dz, t), col);
    uint16_t *tile = (uint16_t *)job->dz.p + (size_t)t / 16 * 16 * HEAD_SPAN + (size_t)col / 32 * 512;
    return (Row){NULL, tile + t % 16 * 32 + col % 32};
}

/* Sixteen columns of the 32 rows from t on, turned, with zeros for the rows that there are not. */
static void dz_turn(const HeadJob *job, int t, int col) {
    _Alignas(64) uint32_t across[16][16];
    for (int r = job->t; r < t + 32; r++) memset(dz_at(job, r, col).h, 0, 16 * sizeof(uint16_t));
    for (int r = 0; r < 16; r++)
        v_zip_bf16(across[r], dz_at(job, t + 2 * r, col).h, dz_at(job, t + 2 * r + 1, col).h);
    v_turn((uint32_t(*)[16])(uintptr_t)left_from(job->turned, K_BF16, col - job->first, t).p, across);
}

typedef struct {
    const HeadJob *job;
    int row0, col0; /* of the product */
} DzPart;

static void dz_take(void *self, int row, int rows, int first, int width, const real *c) {
    const DzPart *part = self;
    const HeadJob *job = part->job;
    const int col0 = part->col0 + first, t0 = part->row0 + row, t1 = t0 + rows;
    const bool plain = width == 32 && job->tiled && job->cap <= 0 && !ten_is(job->kept) && !job->ent_coef &&
                       col0 + 32 <= job->w->n;
    const Vec scale = v_set(job->inv_temp);
    for (int t = t0; t < t1; t++, c += width) {
        const int target = job->target[t];
        if (plain && target >= 0 &&
            (target < col0 || target >= col0 + 32)) { /* nearly always: dz_lanes, in short */
            Vec minus = v_set(-(job->coef[t] * job->inv_temp)), shift = v_set(row_at(job->lse, 0).f[t]);
            uint16_t *to = dz_at(job, t, col0).h;
            v_store_bf16(to, v_mul(minus, v_exp(v_sub(v_mul(scale, v_load(c)), shift))));
            v_store_bf16(to + 16, v_mul(minus, v_exp(v_sub(v_mul(scale, v_load(c + 16)), shift))));
            continue;
        }
        for (int i = 0; i < width && col0 + i < job->w->n; i += 16)
            row_set(dz_at(job, t, col0 + i), 0, job->tiled ? 16 : job->w->n - col0 - i,
                    dz_lanes(job, t, col0 + i, v_load(c + i)));
    }
    for (int i = 0; i < width && job->turned.p && (t1 % 32 == 0 || t1 == job->t); i += 16)
        dz_turn(job, (t1 - 1) / 32 * 32, col0 + i);
}

/* dz of one block for some rows. */
static void dz_part(void *self, int item, int thread) {
    (void)thread;
    const HeadJob *job = self;
    const int block = job->first / HEAD_BLOCK + item / job->row_blocks, row0 = item % job->row_blocks * job->rows;
    DzPart part = {job, row0, block * HEAD_BLOCK};
    Product g = head_product(job, block, row0, least(job->rows, job->t - row0));
    g.take = dz_take, g.taker = &part;
    product_block(&g, 0, g.m, 0, PANELS(g.n));
    for (int t = row0; t < row0 + g.m && job->tiled && PANELS(g.n) % 2; t++) /* the rest of the last tile */
        memset(dz_at(job, t, part.col0 + PANELS(g.n) * 16).h, 0, 16 * sizeof(uint16_t));
}

/* dx of some rows: their sums stay in the second cache while parts of the span, whose panels do so too, go by. */
enum { DX_ROWS = 256, DX_PART = 512 };

typedef struct {
    Product g;
    int rows; /* of an item */
} DxJob;

static void dx_part(void *self, int item, int thread) {
    (void)thread;
    const DxJob *job = self;
    const int row0 = item * job->rows, row1 = least(row0 + job->rows, job->g.m), k1 = 2 * job->g.pairs;
    Product g = job->g;
    for (int k = 0; k < k1; k += DX_PART) {
        g.pairs = PAIRS(least(DX_PART, k1 - k));
        g.a = left_from(job->g.a, g.w_type, 0, k);
        g.w = (const char *)job->g.w + (size_t)k * 16 * dtype_size(g.w_type);
        product_block(&g, row0, row1, 0, PANELS(g.n));
        g.start = g.y;
    }
}

static void op_logprob_back(Dev *dev, Ten dx, Ten dw, Ten x, const Mat *w, const int *target, Ten kept,
                            const real *coef, const real *ent_coef, Ten lse, Ten entropy, real inv_temp, real cap,
                            bool fresh) {
    const int t = x.rows;
    if (fresh && t == 0 && ten_is(dw)) cpu_zero(dev, dw);
    if (t == 0) return;
    HeadJob job = head_job(dev, x, w, target, kept, inv_temp, cap);
    job.tiled = LEFT_TILED(w->type);
    job.rows = head_rows(t, HEAD_MOST, HEAD_SPAN / HEAD_BLOCK, dev->threads),
    job.row_blocks = ceil_div(t, job.rows);
    const size_t rows = 2 * (size_t)PAIRS(t), dz_bytes = rows * HEAD_SPAN * dtype_size(w->type),
                 turned = job.tiled && ten_is(dw) ? dz_bytes : 0,
                 x_bytes = (size_t)t * job.x.stride * LEFT_SIZE(w->type);
    char *keep = dev_scratch(dev, 3, dz_bytes + turned + x_bytes);
    /* Scratch 0 to 2 serve the products below; x's left operand must outlive them. */
    if (job.x.p == dev->scratch[0].p) job.x.p = memcpy(keep + dz_bytes + turned, job.x.p, x_bytes);
    job.dz = (Ten){keep, t, HEAD_SPAN, HEAD_SPAN, w->type};
    job.turned = (Left){turned ? keep + dz_bytes : NULL, rows, true};
    job.coef = coef, job.ent_coef = ent_coef, job.lse = lse, job.entropy = entropy;
    Right right = ten_is(dw) ? right_of(dev, x, 0, x.rows, w->type) : (Right){NULL, 0};
    for (int v = 0; v < w->n; v += HEAD_SPAN) {
        const int wide = least(HEAD_SPAN, w->n - v);
        const Ten dz = ten_cols(job.dz, 0, wide);
        job.first = v;
        pool_run(dev->pool, ceil_div(wide, HEAD_BLOCK) * job.row_blocks, dz_part, &job);
        if (ten_is(dw))
            product_dw(dev, ten_rows(dw, v, wide), turned ? job.turned : turn_of(dev, dz), t, w->type, right,
                       fresh);
        DxJob to_x = {.rows = head_rows(t, DX_ROWS, 1, dev->threads)};
        to_x.g = (Product){.a = job.tiled ? (Left){keep, HEAD_SPAN, true} : left_of(dev, dz, w->type, PAIRS(wide)),
                           .w = (const char *)w->back.p + (size_t)v / 2 * 32 * dtype_size(w->type),
                           .w_panel = (size_t)PAIRS(w->n) * 32,
                           .w_type = w->type,
                           .m = t,
                           .n = w->k,
                           .pairs = PAIRS(wide),
                           .y = dx,
                           .start = v > 0 ? dx : TEN_NONE,
                           .by_rows = true};
        pool_run(dev->pool, ceil_div(t, to_x.rows), dx_part, &to_x);
    }
}
