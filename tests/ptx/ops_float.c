/* ops_float.c: float and double. NaN results are canonical (0x7fffffff). Approximate functions are computed in
 * double and rounded once; with ptx_options.perturb they err by a fixed function of the argument and the seed, up
 * to what the PTX manual (9.0, chapter 9.7.3) allows. */
#include <fenv.h>
#include <math.h>

#include "tests/ptx/core.h"
#include "tests/ptx/half.h"

#define HANDLER(name) static void name(Warp *w, const Ins *in, uint32_t m)

static inline float canonical_f(float x) { return x != x ? f32_of(0x7fffffff) : x; }
static inline double canonical_d(double x) { return x; }
static inline float flush_f(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }
static inline double flush_d(double x) { return x; }
static inline float saturate_f(float x) { return x > 0 ? x < 1 ? x : 1 : 0; } /* NaN becomes 0 */
static inline double saturate_d(double x) { return x > 0 ? x < 1 ? x : 1 : 0; }

static int round_begin(int rnd) {
    int old = fegetround();
    if (rnd == RND_RZ)
        fesetround(FE_TOWARDZERO);
    else if (rnd == RND_RM)
        fesetround(FE_DOWNWARD);
    else if (rnd == RND_RP)
        fesetround(FE_UPWARD);
    return old;
}
#define BARRIER(t)                                                                                                \
    __asm__ volatile("" : : "r"(t) : "memory") /* nothing moves over a change of the rounding mode */

/* Up to three operands a, b, c of type T (suffix f or d). */
#define ARITH(name, T, s, n, expr)                                                                                \
    HANDLER(name##_##s) {                                                                                         \
        const T *pa = row(w, &in->o[1]), *pb = row(w, &in->o[n > 1 ? 2 : 1]),                                     \
                *pc = row(w, &in->o[n > 2 ? 3 : 1]);                                                              \
        T t[32];                                                                                                  \
        bool directed = in->rnd == RND_RZ || in->rnd == RND_RM || in->rnd == RND_RP;                              \
        int old = directed ? round_begin(in->rnd) : 0;                                                            \
        BARRIER(pa);                                                                                              \
        bool ftz = in->ftz;                                                                                       \
        LANES {                                                                                                   \
            T a = pa[l], b = pb[l], c = pc[l];                                                                    \
            if (ftz) a = flush_##s(a), b = flush_##s(b), c = flush_##s(c);                                        \
            (void)b, (void)c;                                                                                     \
            T r = (expr);                                                                                         \
            t[l] = canonical_##s(ftz ? flush_##s(r) : r);                                                         \
        }                                                                                                         \
        BARRIER(t);                                                                                               \
        if (directed) fesetround(old);                                                                            \
        if (in->sat) LANES t[l] = saturate_##s(t[l]);                                                             \
        PUT(T, row_out(w, &in->o[0]), t, m);                                                                      \
    }

/* -0 < +0; one NaN gives the other operand. */
static inline float min_f_(float a, float b) {
    return a != a ? b : b != b ? a : a == b ? (signbit(a) ? a : b) : a < b ? a : b;
}
static inline float max_f_(float a, float b) {
    return a != a ? b : b != b ? a : a == b ? (signbit(a) ? b : a) : a > b ? a : b;
}
static inline double min_d_(double a, double b) {
    return a != a ? b : b != b ? a : a == b ? (signbit(a) ? a : b) : a < b ? a : b;
}
static inline double max_d_(double a, double b) {
    return a != a ? b : b != b ? a : a == b ? (signbit(a) ? b : a) : a > b ? a : b;
}

ARITH(add, float, f, 2, a + b)
ARITH(sub, float, f, 2, a - b)
ARITH(mul, float, f, 2, a *b)
ARITH(fma, float, f, 3, fmaf(a, b, c))
ARITH(div, float, f, 2, a / b)
ARITH(rcp, float, f, 1, 1 / a)
ARITH(sqrt, float, f, 1, sqrtf(a))
ARITH(min, float, f, 2, min_f_(a, b))
ARITH(max, float, f, 2, max_f_(a, b))
ARITH(min_nan, float, f, 2, a != a || b != b ? NAN : min_f_(a, b))
ARITH(max_nan, float, f, 2, a != a || b != b ? NAN : max_f_(a, b))
ARITH(add, double, d, 2, a + b)
ARITH(sub, double, d, 2, a - b)
ARITH(mul, double, d, 2, a *b)
ARITH(fma, double, d, 3, fma(a, b, c))
ARITH(div, double, d, 2, a / b)
ARITH(rcp, double, d, 1, 1 / a)
ARITH(sqrt, double, d, 1, sqrt(a))
ARITH(min, double, d, 2, min_d_(a, b))
ARITH(max, double, d, 2, max_d_(a, b))

/* neg, abs and copysign touch the sign only. */
#define BITS(name, U, n, expr)                                                                                    \
    HANDLER(name) {                                                                                               \
        const U *pa = row(w, &in->o[1]), *pb = row(w, &in->o[n > 1 ? 2 : 1]);                                     \
        U t[32], sign = (U)1 << (8 * sizeof(U) - 1);                                                              \
        LANES {                                                                                                   \
            U a = pa[l], b = pb[l];                                                                               \
            (void)b;                                                                                              \
            t[l] = (U)(expr);                                                                                     \
            if (sizeof(U) == 4 && in->ftz && (t[l] & 0x7f800000u) == 0) t[l] &= sign;                             \
        }                                                                                                         \
        PUT(U, row_out(w, &in->o[0]), t, m);                                                                      \
    }
BITS(neg_f, uint32_t, 1, a ^ sign)
BITS(abs_f, uint32_t, 1, a & ~sign)
BITS(copysign_f, uint32_t, 2, (b & ~sign) | (a & sign))
BITS(neg_d, uint64_t, 1, a ^ sign)
BITS(abs_d, uint64_t, 1, a & ~sign)
BITS(copysign_d, uint64_t, 2, (b & ~sign) | (a & sign))

/* ---- approximate functions ---- */

/* x in double, once rounded; perturbed by up to relative and absolute. */
static float finish(double x, uint32_t argument, int function, double relative, double absolute) {
    if (!ptx_options.perturb || x != x || isinf(x) || x == 0) return (float)x;
    uint64_t h = ptx_hash(((uint64_t)argument << 8 | (uint64_t)function) ^ ptx_options.seed);
    double u = (double)(int64_t)h * 0x1p-63; /* -1 .. 1 */
    double bound = fabs(x) * relative > absolute ? fabs(x) * relative : absolute;
    return (float)(x + 0.9 * u * bound); /* 0.9: the rounding that follows must stay within the bound */
}

#define APPROX(name, n, expr, relative, absolute)                                                                 \
    HANDLER(name) {                                                                                               \
        const float *pa = row(w, &in->o[1]), *pb = row(w, &in->o[n > 1 ? 2 : 1]);                                 \
        float t[32];                                                                                              \
        LANES {                                                                                                   \
            ON(m) {                                                                                               \
                float a = pa[l], b = pb[l];                                                                       \
                if (in->ftz) a = flush_f(a), b = flush_f(b);                                                      \
                (void)b;                                                                                          \
                float r =                                                                                         \
                    finish((expr), f32_bits(a) ^ 31 * f32_bits(n > 1 ? b : 0), __LINE__, relative, absolute);     \
                t[l] = canonical_f(in->ftz ? flush_f(r) : r);                                                     \
            }                                                                                                     \
            else t[l] = 0;                                                                                        \
        }                                                                                                         \
        PUT(float, row_out(w, &in->o[0]), t, m);                                                                  \
    }
APPROX(rcp_approx, 1, 1.0 / a, 0x1p-23, 0)
APPROX(sqrt_approx, 1, sqrt((double)a), 0x1p-23, 0)
APPROX(rsqrt_approx, 1, 1.0 / sqrt((double)a), 0x1.11p-23, 0) /* 2^-22.9 */
APPROX(sin_approx, 1, sin((double)a), 0, 0x1.6ap-21)          /* 2^-20.5 in [-pi, pi] */
APPROX(cos_approx, 1, cos((double)a), 0, 0x1.6ap-21)
APPROX(lg2_approx, 1, log2((double)a), a > 0.5 && a < 2 ? 0 : 0x1p-22, a > 0.5 && a < 2 ? 0x1p-22 : 0)
APPROX(ex2_approx, 1, exp2((double)a), 0x1p-22, 0)
APPROX(tanh_approx, 1, tanh((double)a), 0x1p-11, 0)
APPROX(div_approx, 2,
       fabsf(b) > 0x1p126f && !isinf(b) ? (isinf(a) ? NAN : copysign(0, a) * copysign(1, b)) : (double)a / b,
       0x1p-22, 0)
APPROX(div_full, 2, (double)a / b, 0x1p-22, 0)

#define TESTP(name, expr)                                                                                         \
    HANDLER(testp_##name) {                                                                                       \
        const float *pa = row(w, &in->o[1]);                                                                      \
        uint32_t r = 0;                                                                                           \
        LANES {                                                                                                   \
            float a = pa[l];                                                                                      \
            r |= (uint32_t)(expr) << l;                                                                           \
        }                                                                                                         \
        pred_put(w, in->o[0].off, r, m);                                                                          \
    }
TESTP(finite, isfinite(a) != 0)
TESTP(infinite, isinf(a) != 0)
TESTP(number, a == a)
TESTP(notanumber, a != a)
TESTP(normal, isnormal(a) != 0)
TESTP(subnormal, fpclassify(a) == FP_SUBNORMAL)

#define E(key, fn, shape, allow)                                                                                  \
    { key, fn, shape, PTX_FP, allow, 0 }
#define SFU(key, fn)                                                                                              \
    { key, fn, "44", PTX_SFU, ALLOW_FTZ, 0 }
#define RFS (ALLOW_RND | ALLOW_FTZ | ALLOW_SAT)
#define RF (ALLOW_RND | ALLOW_FTZ)

const OpEntry ops_float[] = {
    E("add.f32", add_f, "444", RFS),
    E("sub.f32", sub_f, "444", RFS),
    E("mul.f32", mul_f, "444", RFS),
    E("fma.f32", fma_f, "4444", RFS),
    E("div.f32", div_f, "444", RF),
    E("rcp.f32", rcp_f, "44", RF),
    E("sqrt.f32", sqrt_f, "44", RF),
    E("min.f32", min_f, "444", ALLOW_FTZ),
    E("max.f32", max_f, "444", ALLOW_FTZ),
    E("min.NaN.f32", min_nan_f, "444", ALLOW_FTZ),
    E("max.NaN.f32", max_nan_f, "444", ALLOW_FTZ),
    E("neg.f32", neg_f, "44", ALLOW_FTZ),
    E("abs.f32", abs_f, "44", ALLOW_FTZ),
    E("copysign.f32", copysign_f, "444", 0),
    E("add.f64", add_d, "888", ALLOW_RND),
    E("sub.f64", sub_d, "888", ALLOW_RND),
    E("mul.f64", mul_d, "888", ALLOW_RND),
    E("fma.f64", fma_d, "8888", ALLOW_RND),
    E("div.f64", div_d, "888", ALLOW_RND),
    E("rcp.f64", rcp_d, "88", ALLOW_RND),
    E("sqrt.f64", sqrt_d, "88", ALLOW_RND),
    E("min.f64", min_d, "888", 0),
    E("max.f64", max_d, "888", 0),
    E("neg.f64", neg_d, "88", 0),
    E("abs.f64", abs_d, "88", 0),
    E("copysign.f64", copysign_d, "888", 0),
    E("testp.finite.f32", testp_finite, "p4", 0),
    E("testp.infinite.f32", testp_infinite, "p4", 0),
    E("testp.number.f32", testp_number, "p4", 0),
    E("testp.notanumber.f32", testp_notanumber, "p4", 0),
    E("testp.normal.f32", testp_normal, "p4", 0),
    E("testp.subnormal.f32", testp_subnormal, "p4", 0),
    SFU("rcp.approx.f32", rcp_approx),
    SFU("sqrt.approx.f32", sqrt_approx),
    SFU("rsqrt.approx.f32", rsqrt_approx),
    SFU("sin.approx.f32", sin_approx),
    SFU("cos.approx.f32", cos_approx),
    SFU("lg2.approx.f32", lg2_approx),
    SFU("ex2.approx.f32", ex2_approx),
    SFU("tanh.approx.f32", tanh_approx),
    {"div.approx.f32", div_approx, "444", PTX_SFU, ALLOW_FTZ, 0},
    {"div.full.f32", div_full, "444", PTX_SFU, ALLOW_FTZ, 0},
    {NULL, NULL, NULL, 0, 0, 0},
};
