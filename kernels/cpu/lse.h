/* lse.h: log-sum-exp of one row of logits, block after block: the one arithmetic of k_logprob and k_sample, so
 * that the log-probability stored while sampling is the learner's bit for bit. Blocks of HEAD_BLOCK columns are
 * merged in ascending order, beginning with lse_none. Needs a vec_*.h before it. Tested by
 * tests/test_kernels_rows.c. */
#ifndef WHET_LSE_H
#define WHET_LSE_H

typedef struct {
    real max, sum; /* the sum of exp(z - max) */
} Lse;

#define LSE_LOW ((real)-1e30) /* below every logit; exp(LSE_LOW - max) is exactly 0 */

static inline Lse lse_none(void) { return (Lse){LSE_LOW, 0}; }

/* Lanes i .. i+15 of z, those at or after n being LSE_LOW. */
static inline Vec lse_lanes(const real *z, int i, int n) {
    if (n - i >= 16) return v_load(z + i);
    real all[16];
    for (int j = 0; j < 16; j++) all[j] = i + j < n ? z[i + j] : LSE_LOW;
    return v_load(all);
}

/* Sixteen more of a row's z, in ascending order: each lane's sums of exp(z - max), and of exp(z - max) z. */
static inline void lse_add(Vec z, Vec max, Vec *sum, Vec *sum_z) {
    Vec e = v_exp(v_sub(z, max));
    *sum = v_add(*sum, e);
    *sum_z = v_fma(e, z, *sum_z);
}

/* sum_z, or NULL: the sum of exp(z - max) z. */
static inline Lse lse_block(const real *z, int n, real *sum_z) {
    Vec top = v_set(LSE_LOW);
    for (int i = 0; i < n; i += 16) top = v_max(lse_lanes(z, i, n), top);
    real max = v_top(top);
    Vec sum = v_set(0), with_z = v_set(0), shift = v_set(max);
    for (int i = 0; i < n; i += 16) lse_add(lse_lanes(z, i, n), shift, &sum, &with_z);
    if (sum_z) *sum_z = v_sum(with_z);
    return (Lse){max, v_sum(sum)};
}

static inline Lse lse_merge(Lse a, Lse b) {
    real max = a.max > b.max ? a.max : b.max;
    return (Lse){max, a.sum * s_exp(a.max - max) + b.sum * s_exp(b.max - max)};
}

/* Takes the ids that are not kept out of z, the logits of columns from .. from+n-1. A block without any kept id
 * merges into nothing. */
static inline void lse_keep(real *z, int from, int n, const int32_t *kept) {
    for (int i = 0; i < n; i++)
        if (!((uint32_t)kept[(from + i) / 32] >> (from + i) % 32 & 1)) z[i] = LSE_LOW;
}

static inline int32_t *kept_row(Ten kept, int row) {
    return (int32_t *)kept.p + (size_t)row * (size_t)kept.stride;
}

static inline real lse_value(Lse a) { return a.max + s_log(a.sum); }

#endif
