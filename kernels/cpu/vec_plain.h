/* vec_plain.h: sixteen lanes in plain C, of float or, in the double variant, of double. The other vec_*.h give the
 * same functions with the same results, bit for bit. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/bf16.h"

typedef struct {
    real at[16];
} Vec;

#define LANES for (int i = 0; i < 16; i++)
#ifdef WHET_DOUBLE
#define FMA(a, b, c)                                                                                              \
    ((a) * (b) + (c)) /* nothing is compared with it bit for bit, and fma() may be a slow call                    \
                       */
#else
#define FMA fmaf
#endif

static inline Vec v_set(real a) {
    Vec r;
    LANES r.at[i] = a;
    return r;
}
static inline Vec v_load(const real *p) {
    Vec r;
    memcpy(r.at, p, sizeof r.at);
    return r;
}
static inline void v_store(real *p, Vec a) { memcpy(p, a.at, sizeof a.at); }
/* The first n lanes, 0 <= n < 16; the others are zero, and are not touched by the store. */
static inline Vec v_load_n(const real *p, int n) {
    Vec r = v_set(0);
    for (int i = 0; i < n; i++) r.at[i] = p[i];
    return r;
}
static inline void v_store_n(real *p, Vec a, int n) {
    for (int i = 0; i < n; i++) p[i] = a.at[i];
}
static inline Vec v_load_bf16(const uint16_t *p) {
    Vec r;
    LANES r.at[i] = bf16_widen(p[i]);
    return r;
}
static inline void v_store_bf16(uint16_t *p, Vec a) { LANES p[i] = bf16_round(a.at[i]); }
/* Stores past the caches of what is not read soon, to aligned memory: a whole line at once. far_end before others
 * read it. */
static inline void v_store_far(real *p, Vec a) { v_store(p, a); }
static inline void v_store_bf16_far(uint16_t *p, Vec a, Vec b) { v_store_bf16(p, a), v_store_bf16(p + 16, b); }
static inline void v_line_far(void *to, const void *from) { memcpy(to, from, 64); }
static inline void far_end(void) {}
/* 16 pairs: the even and the odd elements. */
static inline void v_load_pairs_bf16(const uint16_t *p, Vec *even, Vec *odd) {
    LANES even->at[i] = bf16_widen(p[2 * i]), odd->at[i] = bf16_widen(p[2 * i + 1]);
}
static inline void v_load_pairs(const real *p, Vec *even, Vec *odd) {
    LANES even->at[i] = p[2 * i], odd->at[i] = p[2 * i + 1];
}
/* Whole numbers of -127 .. 127; the store rounds to the nearest, ties to even, and cuts off. */
static inline Vec v_load_i8(const int8_t *p) {
    Vec r;
    LANES r.at[i] = p[i];
    return r;
}
static inline void v_store_i8(int8_t *p, Vec a) {
    LANES p[i] = (int8_t)rint((double)(a.at[i] > 127 ? 127 : a.at[i] < -127 ? -127 : a.at[i]));
}
/* Sixteen and sixteen of them as pairs of bf16. */
static inline void v_pairs_i8(uint32_t to[16], const int8_t *p) {
    LANES to[i] = (uint32_t)bf16_round(p[i]) | (uint32_t)bf16_round(p[16 + i]) << 16;
}
/* Words of two numbers, the low one first. */
static inline void v_zip_bf16(uint32_t to[16], const uint16_t *low, const uint16_t *high) {
    LANES to[i] = (uint32_t)low[i] | (uint32_t)high[i] << 16;
}
static inline void v_turn(uint32_t to[16][16], uint32_t from[16][16]) { /* rows become columns */
    LANES for (int j = 0; j < 16; j++) to[j][i] = from[i][j];
}
static inline Vec v_add(Vec a, Vec b) {
    LANES a.at[i] += b.at[i];
    return a;
}
static inline Vec v_sub(Vec a, Vec b) {
    LANES a.at[i] -= b.at[i];
    return a;
}
static inline Vec v_mul(Vec a, Vec b) {
    LANES a.at[i] *= b.at[i];
    return a;
}
static inline Vec v_div(Vec a, Vec b) {
    LANES a.at[i] /= b.at[i];
    return a;
}
static inline Vec v_fma(Vec a, Vec b, Vec c) { /* a b + c, rounded once */
    LANES c.at[i] = FMA(a.at[i], b.at[i], c.at[i]);
    return c;
}
static inline Vec v_max(Vec a, Vec b) { /* b where either is NaN, as the vector instruction does */
    LANES a.at[i] = a.at[i] > b.at[i] ? a.at[i] : b.at[i];
    return a;
}
static inline Vec v_min(Vec a, Vec b) {
    LANES a.at[i] = a.at[i] < b.at[i] ? a.at[i] : b.at[i];
    return a;
}
static inline Vec v_sqrt(Vec a) {
    LANES a.at[i] =
        (real)sqrt((double)a.at[i]); /* correctly rounded in float too: double has more than twice the bits */
    return a;
}
/* The lanes' sum and maximum in one fixed tree: i with i + 8, then 4, 2, 1. */
static inline real v_sum(Vec a) {
    for (int h = 8; h; h /= 2)
        for (int i = 0; i < h; i++) a.at[i] += a.at[i + h];
    return a.at[0];
}
static inline real v_top(Vec a) {
    for (int h = 8; h; h /= 2)
        for (int i = 0; i < h; i++) a.at[i] = a.at[i] > a.at[i + h] ? a.at[i] : a.at[i + h];
    return a.at[0];
}
#ifdef WHET_DOUBLE
static inline Vec v_exp(Vec a) {
    LANES a.at[i] = exp(a.at[i]);
    return a;
}
static inline Vec v_tanh(Vec a) {
    LANES a.at[i] = tanh(a.at[i]);
    return a;
}
static inline real s_exp(real x) { return exp(x); }
static inline real s_log(real x) { return log(x); }
#else
static inline Vec v_round(Vec a) { /* to the nearest integer, ties to even; for |a| < 2^22 */
    LANES a.at[i] = (a.at[i] + 0x1.8p23f) - 0x1.8p23f;
    return a;
}
static inline Vec v_scale2(Vec a, Vec n) { /* a 2^n for integral n in [-126, 127] */
    LANES {
        uint32_t u = (uint32_t)((int32_t)n.at[i] + 127) << 23;
        float f;
        memcpy(&f, &u, sizeof f);
        a.at[i] *= f;
    }
    return a;
}
static inline Vec v_zero_below(Vec a, Vec x, Vec low) { /* 0 where x < low, else a */
    LANES a.at[i] = x.at[i] < low.at[i] ? 0 : a.at[i];
    return a;
}
#include "kernels/cpu/vec_math.h"
#endif
#undef LANES
