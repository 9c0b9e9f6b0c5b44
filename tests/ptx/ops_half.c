/* ops_half.c: arithmetic of f16, bf16 and their pairs, each rounded once; comparisons of all types. */
#include "tests/ptx/core.h"
#include "tests/ptx/half.h"

#define HANDLER(name) static void name(Warp *w, const Ins *in, uint32_t m)

static inline double smaller(double a, double b) {
    return a != a ? b : b != b ? a : a == b ? (signbit(a) ? a : b) : a < b ? a : b;
}
static inline double larger(double a, double b) {
    return a != a ? b : b != b ? a : a == b ? (signbit(a) ? b : a) : a > b ? a : b;
}

/* H is f16 or bf16; U the row's type: 16 bits, or 32 for a pair. */
#define HALF(name, H, U, suffix, expr)                                                                            \
    HANDLER(name##_##H##suffix) {                                                                                 \
        const U *pa = row(w, &in->o[1]), *pb = row(w, &in->o[in->n > 2 ? 2 : 1]),                                 \
                *pc = row(w, &in->o[in->n > 3 ? 3 : 1]);                                                          \
        U t[32];                                                                                                  \
        LANES {                                                                                                   \
            t[l] = 0;                                                                                             \
            ON(m) for (unsigned h = 0; h < 8 * sizeof(U); h += 16) {                                              \
                double a = H##_value((uint16_t)(pa[l] >> h)), b = H##_value((uint16_t)(pb[l] >> h));              \
                double c = H##_value((uint16_t)(pc[l] >> h));                                                     \
                (void)b, (void)c;                                                                                 \
                double r = (expr);                                                                                \
                uint16_t v = H##_round(in->sat ? (r > 0 ? r < 1 ? r : 1 : 0) : r);                                \
                t[l] = (U)(t[l] | (U)v << h);                                                                     \
            }                                                                                                     \
        }                                                                                                         \
        PUT(U, row_out(w, &in->o[0]), t, m);                                                                      \
    }
#define HALF4(name, expr)                                                                                         \
    HALF(name, f16, uint16_t, , expr)                                                                             \
    HALF(name, f16, uint32_t, x2, expr) HALF(name, bf16, uint16_t, , expr) HALF(name, bf16, uint32_t, x2, expr)
HALF4(add, sum_odd(a, b))
HALF4(sub, sum_odd(a, -b))
HALF4(mul, a *b)
HALF4(fma, sum_odd(a *b, c))
HALF4(min, smaller(a, b))
HALF4(max, larger(a, b))
HALF4(min_nan, a != a || b != b ? NAN : smaller(a, b))
HALF4(max_nan, a != a || b != b ? NAN : larger(a, b))

HANDLER(neg_16) {
    const uint16_t *a = row(w, &in->o[1]);
    uint16_t t[32];
    LANES t[l] = a[l] ^ 0x8000;
    PUT(uint16_t, row_out(w, &in->o[0]), t, m);
}
HANDLER(abs_16) {
    const uint16_t *a = row(w, &in->o[1]);
    uint16_t t[32];
    LANES t[l] = a[l] & 0x7fff;
    PUT(uint16_t, row_out(w, &in->o[0]), t, m);
}
HANDLER(neg_16x2) {
    const uint32_t *a = row(w, &in->o[1]);
    uint32_t t[32];
    LANES t[l] = a[l] ^ 0x80008000u;
    PUT(uint32_t, row_out(w, &in->o[0]), t, m);
}
HANDLER(abs_16x2) {
    const uint32_t *a = row(w, &in->o[1]);
    uint32_t t[32];
    LANES t[l] = a[l] & 0x7fff7fffu;
    PUT(uint32_t, row_out(w, &in->o[0]), t, m);
}

#define E(key, fn, shape, allow)                                                                                  \
    { key, fn, shape, PTX_FP, allow, 0 }
#define EH(H, s)                                                                                                  \
    E("add." #H, add_##H, s s s, ALLOW_RND | ALLOW_SAT), E("sub." #H, sub_##H, s s s, ALLOW_RND | ALLOW_SAT),     \
        E("mul." #H, mul_##H, s s s, ALLOW_RND | ALLOW_SAT),                                                      \
        E("fma." #H, fma_##H, s s s s, ALLOW_RND | ALLOW_SAT), E("min." #H, min_##H, s s s, 0),                   \
        E("max." #H, max_##H, s s s, 0), E("min.NaN." #H, min_nan_##H, s s s, 0),                                 \
        E("max.NaN." #H, max_nan_##H, s s s, 0)

const OpEntry ops_half[] = {
    EH(f16, "2"),
    EH(bf16, "2"),
    EH(f16x2, "4"),
    EH(bf16x2, "4"),
    E("neg.f16", neg_16, "22", 0),
    E("neg.bf16", neg_16, "22", 0),
    E("abs.f16", abs_16, "22", 0),
    E("abs.bf16", abs_16, "22", 0),
    E("neg.f16x2", neg_16x2, "44", 0),
    E("neg.bf16x2", neg_16x2, "44", 0),
    E("abs.f16x2", abs_16x2, "44", 0),
    E("abs.bf16x2", abs_16x2, "44", 0),
    {NULL, NULL, NULL, 0, 0, 0},
};

/* ---- setp ---- */

static void set_finish(Warp *w, const Ins *in, uint32_t r, uint32_t m) {
    uint32_t no = ~r;
    if (in->cmp) {
        uint32_t c = pred_get(w, &in->o[3]);
        r = in->cmp == 1 ? r & c : in->cmp == 2 ? r | c : r ^ c;
        no = in->cmp == 1 ? no & c : in->cmp == 2 ? no | c : no ^ c;
    }
    if (in->o[0].kind == OPD_PRED) pred_put(w, in->o[0].off, r, m);
    if (in->o[0].pair) pred_put(w, in->o[0].pair, no, m);
}

#define LOAD_AS_IS(x) (x)
#define SET(name, T, load, expr)                                                                                  \
    HANDLER(set_##name) {                                                                                         \
        const T *pa = row(w, &in->o[1]), *pb = row(w, &in->o[2]);                                                 \
        uint32_t r = 0;                                                                                           \
        LANES {                                                                                                   \
            __auto_type a = load(pa[l]);                                                                          \
            __auto_type b = load(pb[l]);                                                                          \
            if (in->ftz) a = fabs((double)a) < 0x1p-126 ? 0 : a, b = fabs((double)b) < 0x1p-126 ? 0 : b;          \
            r |= (uint32_t)(expr) << l;                                                                           \
        }                                                                                                         \
        set_finish(w, in, r, m);                                                                                  \
    }
#define SET_ORDERED(name, T, load)                                                                                \
    SET(eq_##name, T, load, a == b)                                                                               \
    SET(ne_##name, T, load, (a < b) | (a > b))                                                                    \
    SET(lt_##name, T, load, a < b)                                                                                \
    SET(le_##name, T, load, a <= b) SET(gt_##name, T, load, a > b) SET(ge_##name, T, load, a >= b)
/* u: true if either is NaN. ne is false then, as PTX defines it. */
#define SET_FLOAT(name, T, load)                                                                                  \
    SET_ORDERED(name, T, load)                                                                                    \
    SET(equ_##name, T, load, !((a < b) | (a > b)))                                                                \
    SET(neu_##name, T, load, a != b)                                                                              \
    SET(ltu_##name, T, load, !(a >= b))                                                                           \
    SET(leu_##name, T, load, !(a > b))                                                                            \
    SET(gtu_##name, T, load, !(a <= b))                                                                           \
    SET(geu_##name, T, load, !(a < b))                                                                            \
    SET(num_##name, T, load, (a == a) & (b == b)) SET(nan_##name, T, load, (a != a) | (b != b))
SET_ORDERED(u16, uint16_t, LOAD_AS_IS)
SET_ORDERED(s16, int16_t, LOAD_AS_IS)
SET_ORDERED(u32, uint32_t, LOAD_AS_IS)
SET_ORDERED(s32, int32_t, LOAD_AS_IS)
SET_ORDERED(u64, uint64_t, LOAD_AS_IS)
SET_ORDERED(s64, int64_t, LOAD_AS_IS)
SET_FLOAT(f32, float, LOAD_AS_IS)
SET_FLOAT(f64, double, LOAD_AS_IS)
SET_FLOAT(f16, uint16_t, f16_value)
SET_FLOAT(bf16, uint16_t, bf16_value)

#define S(key, fn, shape)                                                                                         \
    { "setp." key, set_##fn, "P" shape, PTX_INT, 0, 0 }
#define SF(key, fn, shape, allow)                                                                                 \
    { "setp." key, set_##fn, "P" shape, PTX_FP, allow, 0 }
#define S_ORDERED(t, sh)                                                                                          \
    S("eq." #t, eq_##t, sh), S("ne." #t, ne_##t, sh), S("lt." #t, lt_##t, sh), S("le." #t, le_##t, sh),           \
        S("gt." #t, gt_##t, sh), S("ge." #t, ge_##t, sh)
#define S_UNSIGNED(t, sh)                                                                                         \
    S("lo." #t, lt_##t, sh), S("ls." #t, le_##t, sh), S("hi." #t, gt_##t, sh), S("hs." #t, ge_##t, sh)
#define S_BITS(b, t, sh) S("eq." b, eq_##t, sh), S("ne." b, ne_##t, sh)
#define S_FLOAT(t, sh, a)                                                                                         \
    SF("eq." #t, eq_##t, sh, a), SF("ne." #t, ne_##t, sh, a), SF("lt." #t, lt_##t, sh, a),                        \
        SF("le." #t, le_##t, sh, a), SF("gt." #t, gt_##t, sh, a), SF("ge." #t, ge_##t, sh, a),                    \
        SF("equ." #t, equ_##t, sh, a), SF("neu." #t, neu_##t, sh, a), SF("ltu." #t, ltu_##t, sh, a),              \
        SF("leu." #t, leu_##t, sh, a), SF("gtu." #t, gtu_##t, sh, a), SF("geu." #t, geu_##t, sh, a),              \
        SF("num." #t, num_##t, sh, a), SF("nan." #t, nan_##t, sh, a)

const OpEntry ops_set[] = {
    S_ORDERED(u16, "22"),          S_ORDERED(s16, "22"),     S_ORDERED(u32, "44"),     S_ORDERED(s32, "44"),
    S_ORDERED(u64, "88"),          S_ORDERED(s64, "88"),     S_UNSIGNED(u16, "22"),    S_UNSIGNED(u32, "44"),
    S_UNSIGNED(u64, "88"),         S_BITS("b16", u16, "22"), S_BITS("b32", u32, "44"), S_BITS("b64", u64, "88"),
    S_FLOAT(f32, "44", ALLOW_FTZ), S_FLOAT(f64, "88", 0),    S_FLOAT(f16, "22", 0),    S_FLOAT(bf16, "22", 0),
    {NULL, NULL, NULL, 0, 0, 0},
};
