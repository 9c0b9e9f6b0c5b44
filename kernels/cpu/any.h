/* any.h: sixteen lanes from and to a tensor's row of either type. Needs a vec_*.h before it. */
#include "kernels/cpu/cpu.h"

typedef struct { /* one row of a tensor: floats or bf16 */
    real *f;
    uint16_t *h;
} Row;

static inline Row row_at(Ten t, int r) {
    size_t at = (size_t)r * (size_t)t.stride;
    return t.type == K_BF16 ? (Row){NULL, (uint16_t *)t.p + at} : (Row){(real *)t.p + at, NULL};
}
static inline Row row_skip(Row row, int cols) {
    return row.f ? (Row){row.f + cols, NULL} : (Row){NULL, row.h + cols};
}
static inline Row row_or_none(Ten t, int r, int cols) {
    return ten_is(t) ? row_skip(row_at(t, r), cols) : (Row){NULL, NULL};
}
/* Lanes i .. i+15 of the row, those at or after n zero; and the store that leaves those alone. */
static inline Vec row_get(Row row, int i, int n) {
    if (n - i >= 16) return row.f ? v_load(row.f + i) : v_load_bf16(row.h + i);
    if (row.f) return v_load_n(row.f + i, n - i);
    uint16_t all[16] = {0};
    memcpy(all, row.h + i, (size_t)(n - i) * 2);
    return v_load_bf16(all);
}
static inline void row_set(Row row, int i, int n, Vec a) {
    if (row.f) {
        if (n - i >= 16)
            v_store(row.f + i, a);
        else
            v_store_n(row.f + i, a, n - i);
    } else if (n - i >= 16) {
        v_store_bf16(row.h + i, a);
    } else {
        uint16_t all[16];
        v_store_bf16(all, a);
        memcpy(row.h + i, all, (size_t)(n - i) * 2);
    }
}
#ifndef V_OWN
/* v_sum and v_top of sixteen vectors, one a lane. */
static inline Vec v_sums(const Vec a[16]) {
    real all[16];
    for (int i = 0; i < 16; i++) all[i] = v_sum(a[i]);
    return v_load(all);
}
static inline Vec v_tops(const Vec a[16]) {
    real all[16];
    for (int i = 0; i < 16; i++) all[i] = v_top(a[i]);
    return v_load(all);
}
/* Words of two numbers rounded to bf16, the odd one above. */
static inline void v_pair_bf16(uint32_t to[16], Vec even, Vec odd) {
    uint16_t h[2][16];
    v_store_bf16(h[0], even), v_store_bf16(h[1], odd);
    v_zip_bf16(to, h[0], h[1]);
}
#endif
/* Columns i .. i+15 of an even row and of the one below it, of a tensor of K_BF16_PAIRS. */
static inline void pairs_set(Ten t, int r, int i, Vec even, Vec odd) {
    _Alignas(64) uint32_t both[16];
    v_pair_bf16(both, even, odd);
    v_line_far((uint16_t *)t.p + ((size_t)i / 16 * (size_t)t.rows + (size_t)r) * 16, both);
}
/* Fetches what lies somewhat behind lane i: in a dense tensor what will be read a row or two later. The
 * processor's own fetching ends with each 4 KiB and hides a third of the wait. */
enum { AHEAD_BYTES = 4096 };
static inline void row_ahead(Row row, int i) {
    const void *at = row.f ? (const void *)(row.f + i) : row.h + i;
    __builtin_prefetch((const char *)at + AHEAD_BYTES);
}
/* A soft cap: cap tanh(x / cap); and its slope where it gave y, with per = 1 / cap. One arithmetic for attention,
 * head and sampler. */
static inline Vec v_softcap(Vec x, real cap) { return v_mul(v_tanh(v_mul(x, v_set(1 / cap))), v_set(cap)); }
static inline Vec v_softcap_slope(Vec y, real per) {
    Vec t = v_max(v_mul(y, v_set(per)), v_set(-1)); /* below it lie the logits of ids that are not kept */
    return v_fma(v_sub(v_set(0), t), t, v_set(1));
}
static inline real row_one(Row row, int i) { return row.f ? row.f[i] : bf16_widen(row.h[i]); }
