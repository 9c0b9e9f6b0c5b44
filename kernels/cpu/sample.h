/* sample.h: drawing one token from each row of logits, and its log-probability as the learner will compute it.
 *
 * Plain sampling inverts the distribution over blocks of HEAD_BLOCK columns, then inside one block. With top_k,
 * top_p or min_p the largest logits are sorted (logit descending, then id ascending) and filtered as transformers'
 * processors do, in their order: top_k keeps every token that ties with the k-th; top_p keeps a token if the
 * tokens before it have less than top_p of what top_k kept; min_p keeps a token with at least min_p of the largest
 * probability. The log-probability inside what is kept is summed in the order of k_logprob, not in this one.
 * Included by body.h after lse.h. Tested by tests/test_kernels_rows.c. */
#include "kernels/cpu/lse.h"

#include <stdlib.h>

typedef struct {
    real z;
    int id;
} Candidate;

typedef struct {
    Drawn *drawn;
    Ten logits;
    const Draw *draws;
    int used;        /* ids below it may be drawn */
    Ten kept;        /* or TEN_NONE */
    Candidate *room; /* [threads][used + 1], for filtered rows */
} SampleJob;

static void scaled_block(real z[HEAD_BLOCK], Row logits, int from, int n, real inv_temp) {
    Vec scale = v_set(inv_temp);
    for (int i = 0; i < n; i += 16)
        row_set((Row){z, NULL}, i, n, v_mul(row_get(row_skip(logits, from), i, n), scale));
}

/* Log-sum-exp of columns 0 .. cols-1; masses, which may be NULL, takes each block's. */
static Lse row_lse(Row logits, int cols, real inv_temp, Lse *masses) {
    real z[HEAD_BLOCK];
    Lse all = lse_none();
    for (int from = 0, b = 0; from < cols; from += HEAD_BLOCK, b++) {
        int n = least(HEAD_BLOCK, cols - from);
        scaled_block(z, logits, from, n, inv_temp);
        Lse one = lse_block(z, n, NULL);
        if (masses) masses[b] = one;
        all = lse_merge(all, one);
    }
    return all;
}

/* The first column with the largest logit; masses are those of the blocks up to `used`, at inv_temp 1. */
static int row_largest(Row logits, int used, const Lse *masses) {
    int best = 0, from;
    for (int b = 1; b < ceil_div(used, HEAD_BLOCK); b++)
        if (masses[b].max > masses[best].max) best = b;
    for (from = best * HEAD_BLOCK; from < used - 1 && row_one(logits, from) < masses[best].max;) from++;
    return from;
}

/* The id at which the running sum of probabilities passes u. A rounding at the very end of a block takes the last
 * id there that has any probability. */
static int draw_plain(Row logits, int used, const Draw *draw, Lse all, const Lse *masses) {
    int blocks = ceil_div(used, HEAD_BLOCK), b = 0, last = -1;
    double total = 0, target, before = 0;
    for (int i = 0; i < blocks; i++) total += (double)masses[i].sum * (double)s_exp(masses[i].max - all.max);
    target = draw->u * total;
    for (; b < blocks - 1; b++) {
        double mass = (double)masses[b].sum * (double)s_exp(masses[b].max - all.max);
        if (before + mass > target) break;
        before += mass;
    }
    real z[HEAD_BLOCK];
    int n = least(HEAD_BLOCK, used - b * HEAD_BLOCK);
    scaled_block(z, logits, b * HEAD_BLOCK, n, draw->inv_temp);
    for (int i = 0; i < n; i++) {
        double p = (double)s_exp(z[i] - all.max);
        if (p > 0) last = i;
        before += p;
        if (p > 0 && before > target) break;
    }
    return b * HEAD_BLOCK + most(last, 0);
}

static int candidate_order(const void *a, const void *b) {
    const Candidate *x = a, *y = b;
    if (x->z != y->z) return x->z > y->z ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* All ids whose z is within `depth` of the maximum, unsorted; depth < 0: all ids. */
static int candidates_get(Candidate *list, Row logits, int used, real inv_temp, const Lse *masses, real max,
                          real depth) {
    real z[HEAD_BLOCK], low = depth < 0 ? LSE_LOW : max - depth;
    int n = 0;
    for (int from = 0, b = 0; from < used; from += HEAD_BLOCK, b++) {
        int width = least(HEAD_BLOCK, used - from);
        if (depth >= 0 && masses[b].max < low) continue;
        scaled_block(z, logits, from, width, inv_temp);
        for (int i = 0; i < width; i++) {
            list[n] = (Candidate){z[i], from + i};
            n += depth < 0 || z[i] >= low;
        }
    }
    return n;
}

/* Whether it is worth sorting n candidates: they may hold all that is kept. */
static bool candidates_enough(const Candidate *list, int n, const Draw *draw, double whole) {
    double mass = 0;
    if (n == 0 || (draw->top_k > 0 && n <= draw->top_k)) return false;
    if (draw->top_k > 0 || draw->top_p >= 1) return true;
    real max = list[0].z;
    for (int i = 1; i < n; i++) max = list[i].z > max ? list[i].z : max;
    for (int i = 0; i < n && mass < whole; i++) mass += (double)s_exp(list[i].z - max);
    return mass >= (double)draw->top_p * whole;
}

/* How many of the n sorted candidates are kept, with their summed exp(z - max) in *mass; -1 if the answer may
 * depend on ids that are not among the candidates. */
static int candidates_keep(const Candidate *list, int n, int used, const Draw *draw, double whole, double *mass) {
    real max = list[0].z;
    int keep = n;
    bool open = n < used; /* there are more ids */
    if (draw->top_k > 0 && draw->top_k < used) {
        if (n <= draw->top_k && open) return -1;
        for (keep = least(draw->top_k, n); keep < n && list[keep].z == list[draw->top_k - 1].z;) keep++;
        if (keep == n && open) return -1;
        open = false;
        whole = 0;
        for (int i = 0; i < keep; i++) whole += (double)s_exp(list[i].z - max);
    }
    double before = 0;
    int i = 0;
    for (; i < keep; i++) {
        double p = (double)s_exp(list[i].z - max);
        bool out = (draw->top_p < 1 && before >= (double)draw->top_p * whole) || p < (double)draw->min_p;
        if (i && out) break;
        before += p;
    }
    *mass = before;
    return i == keep && open ? -1 : i;
}

/* Log-sum-exp of the kept ids, as k_logprob sums it. */
static Lse kept_lse(Row logits, int cols, real inv_temp, const int32_t *kept) {
    real z[HEAD_BLOCK];
    Lse all = lse_none();
    for (int from = 0; from < cols; from += HEAD_BLOCK) {
        int n = least(HEAD_BLOCK, cols - from), words = KEPT_WORDS(n);
        bool any = false;
        for (int i = 0; i < words && !any; i++) any = kept[from / 32 + i] != 0;
        if (!any) continue; /* merging it would change nothing */
        scaled_block(z, logits, from, n, inv_temp);
        lse_keep(z, from, n, kept);
        all = lse_merge(all, lse_block(z, n, NULL));
    }
    return all;
}

/* The candidates are looked for ever deeper below the maximum, since the kept ones are few as a rule. What is kept
 * does not depend on the depths tried. */
static int draw_filtered(Candidate *list, Row logits, int used, const Draw *draw, Lse all, const Lse *masses,
                         int32_t *kept) {
    static const real depths[] = {1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, -1};
    double mass = 0, before = 0, whole = (double)all.sum;
    int keep = -1, pick = 0;
    for (int i = 0; keep < 0; i++) {
        int n = candidates_get(list, logits, used, draw->inv_temp, masses, all.max, depths[i]);
        if (depths[i] >= 0 && !candidates_enough(list, n, draw, whole)) continue;
        qsort(list, (size_t)n, sizeof *list, candidate_order);
        keep = candidates_keep(list, n, used, draw, whole, &mass);
    }
    double target = draw->u * mass;
    for (; pick < keep - 1; pick++) {
        before += (double)s_exp(list[pick].z - list[0].z);
        if (before > target) break;
    }
    for (int i = 0; i < keep; i++) kept[list[i].id / 32] |= (int32_t)(1u << list[i].id % 32);
    return list[pick].id;
}

static void sample_item(void *self, int item, int thread) {
    const SampleJob *job = self;
    const Draw *draw = &job->draws[item];
    Row logits = row_at(job->logits, item);
    bool greedy = draw->inv_temp == 0;
    bool filtered = (draw->top_k > 0 && draw->top_k < job->used) || draw->top_p < 1 || draw->min_p > 0;
    real inv_temp = greedy ? 1 : draw->inv_temp, draw_logp = 0;
    int cols = job->logits.cols, used = job->used, tok;
    Lse *masses = MEM_ARRAY(Lse, ceil_div(cols, HEAD_BLOCK)), all = row_lse(logits, cols, inv_temp, masses);
    Lse drawable = used < cols ? row_lse(logits, used, inv_temp, masses) : all;
    size_t set_bytes = (size_t)KEPT_WORDS(cols) * sizeof(int32_t);
    int32_t *set = ten_is(job->kept)     ? memset(kept_row(job->kept, item), 0, set_bytes)
                   : filtered && !greedy ? mem_alloc(1, set_bytes)
                                         : NULL;
    if (greedy)
        tok = row_largest(logits, used, masses);
    else if (filtered)
        tok = draw_filtered(job->room + (size_t)thread * (size_t)(used + 1), logits, used, draw, drawable, masses,
                            set);
    else
        tok = draw_plain(logits, used, draw, drawable, masses);
    real z = inv_temp * row_one(logits, tok);
    if (!greedy) draw_logp = z - lse_value(filtered ? kept_lse(logits, cols, inv_temp, set) : drawable);
    job->drawn[item] = (Drawn){tok, z - lse_value(all), draw_logp};
    free(masses);
    if (!ten_is(job->kept)) free(set);
}

static void op_sample(Dev *dev, Drawn *drawn, Ten kept, Ten logits, const Draw *draws, int vocab_used) {
    SampleJob job = {drawn, logits, draws, vocab_used, kept, NULL};
    job.room = dev_scratch(dev, 1, (size_t)dev->threads * (size_t)(vocab_used + 1) * sizeof(Candidate));
    pool_run(dev->pool, logits.rows, sample_item, &job);
}
