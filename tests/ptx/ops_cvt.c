/* ops_cvt.c: conversions. */
#include <fenv.h>

#include "tests/ptx/core.h"
#include "tests/ptx/half.h"

typedef enum { KIND_NONE, KIND_UNSIGNED, KIND_SIGNED, KIND_FLOAT } Kind;
static Kind kind_of(int t) {
    switch (t) {
    case T_U8:
    case T_U16:
    case T_U32:
    case T_U64:
    case T_B8:
    case T_B16:
    case T_B32:
    case T_B64:
        return KIND_UNSIGNED;
    case T_S8:
    case T_S16:
    case T_S32:
    case T_S64:
        return KIND_SIGNED;
    case T_F16:
    case T_BF16:
    case T_F32:
    case T_F64:
        return KIND_FLOAT;
    default:
        return KIND_NONE;
    }
}

/* Which are implemented: all between integers and floats, but 64-bit integers to 16-bit floats (two roundings),
 * and directed rounding to 16-bit floats other than towards zero. */
bool cvt_known(int to, int from, int rnd) {
    Kind k = kind_of(to), f = kind_of(from);
    if (k == KIND_NONE || f == KIND_NONE) return false;
    if (k == KIND_FLOAT && type_bytes((Type)to) == 2) {
        if (f != KIND_FLOAT && type_bytes((Type)from) == 8) return false;
        if (rnd != RND_RN && rnd != RND_RZ && !(rnd == RND_NONE && to == from)) return false;
    }
    if (k == KIND_FLOAT && f != KIND_FLOAT && (rnd < RND_RN || rnd > RND_RP)) return false;
    if (k != KIND_FLOAT && f == KIND_FLOAT && rnd < RND_RNI) return false;
    if (k != KIND_FLOAT && f != KIND_FLOAT && rnd != RND_NONE) return false;
    return true;
}

static double value_of(int type, uint64_t bits) {
    double d;
    switch (type) {
    case T_F16:
        return f16_value((uint16_t)bits);
    case T_BF16:
        return bf16_value((uint16_t)bits);
    case T_F32:
        return f32_of((uint32_t)bits);
    default:
        memcpy(&d, &bits, 8);
        return d;
    }
}

static double to_integral(double x, int rnd) {
    switch (rnd) {
    case RND_RNI:
        return nearbyint(x); /* the mode is nearest even */
    case RND_RZI:
        return trunc(x);
    case RND_RMI:
        return floor(x);
    case RND_RPI:
        return ceil(x);
    default:
        return x;
    }
}

static float to_float(double x, int rnd) { /* the double's one rounding to float */
    float f = (float)x;
    if (x != x) return f32_of(0x7fffffff);
    if (rnd == RND_RZ && fabs((double)f) > fabs(x)) f = nextafterf(f, 0);
    if (rnd == RND_RM && (double)f > x) f = nextafterf(f, -INFINITY);
    if (rnd == RND_RP && (double)f < x) f = nextafterf(f, INFINITY);
    return f;
}

static float to_float_ftz(double x, const Ins *in) {
    float f = to_float(x, in->rnd);
    return in->ftz && fabsf(f) < 0x1p-126f ? copysignf(0, f) : f;
}

static uint64_t float_to_bits(const Ins *in, double x) {
    uint64_t bits;
    if (in->sat) x = x > 0 ? x < 1 ? x : 1 : 0;
    switch (in->type) {
    case T_F16:
        return in->rnd == RND_RZ ? f16_truncate(x) : f16_round(x);
    case T_BF16:
        return in->rnd == RND_RZ ? bf16_truncate(x) : bf16_round(x);
    case T_F32:
        return f32_bits(to_float_ftz(x, in));
    default:
        memcpy(&bits, &x, 8);
        return bits;
    }
}

static uint64_t float_to_integer(const Ins *in, double x) {
    int bits = 8 * type_bytes((Type)in->type);
    bool sign = kind_of(in->type) == KIND_SIGNED;
    if (x != x) return in->type2 != T_F64 && bits < 64 ? 0 : 1ull << (bits - 1);
    x = to_integral(x, in->rnd);
    double top = ldexp(1, sign ? bits - 1 : bits);
    if (sign)
        return x >= top ? ((uint64_t)1 << (bits - 1)) - 1 : x < -top ? 1ull << (bits - 1) : (uint64_t)(int64_t)x;
    return x >= top ? ~0ull >> (64 - bits) : x < 0 ? 0 : (uint64_t)x;
}

/* The low bits of type, extended by its sign. */
static uint64_t extend(int type, uint64_t v) {
    int up = 64 - 8 * type_bytes((Type)type);
    return kind_of(type) == KIND_SIGNED ? (uint64_t)((int64_t)(v << up) >> up) : v << up >> up;
}

static uint64_t integer_to_integer(const Ins *in, uint64_t v) {
    int bits = 8 * type_bytes((Type)in->type);
    if (in->sat && bits < 64) {
        bool sign = kind_of(in->type) == KIND_SIGNED, from = kind_of(in->type2) == KIND_SIGNED;
        int64_t low = sign ? -(1ll << (bits - 1)) : 0, high = sign ? (1ll << (bits - 1)) - 1 : (1ll << bits) - 1;
        if (from && (int64_t)v < low)
            v = (uint64_t)low;
        else if (from ? (int64_t)v > high : v > (uint64_t)high)
            v = (uint64_t)high;
    }
    return extend(in->type, v);
}

static uint64_t integer_to_float(const Ins *in, uint64_t v) {
    bool sign = kind_of(in->type2) == KIND_SIGNED;
    int old = fegetround();
    fesetround(in->rnd == RND_RZ   ? FE_TOWARDZERO
               : in->rnd == RND_RM ? FE_DOWNWARD
               : in->rnd == RND_RP ? FE_UPWARD
                                   : FE_TONEAREST);
    volatile double d = 0;
    volatile float f = 0;
    volatile int64_t s = (int64_t)v; /* volatile: the conversion stays between the changes of the mode */
    volatile uint64_t u = v;
    if (in->type == T_F32) {
        if (sign)
            f = (float)s;
        else
            f = (float)u;
    } else {
        if (sign)
            d = (double)s;
        else
            d = (double)u;
    }
    fesetround(old);
    return in->type == T_F32 ? f32_bits(f) : float_to_bits(in, d);
}

static void cvt_any(Warp *w, const Ins *in, uint32_t m) {
    uint64_t v[32];
    row_get(w, &in->o[1], v);
    Kind to = kind_of(in->type), from = kind_of(in->type2);
    LANES ON(m) {
        if (from == KIND_FLOAT) {
            double x = value_of(in->type2, v[l]);
            if (in->ftz && in->type2 == T_F32 && fabs(x) < 0x1p-126) x = copysign(0, x);
            if (to != KIND_FLOAT)
                v[l] = extend(in->type, float_to_integer(in, x));
            else
                v[l] = float_to_bits(in, in->rnd >= RND_RNI ? to_integral(x, in->rnd) : x);
        } else {
            uint64_t x = extend(in->type2, v[l]);
            v[l] = to == KIND_FLOAT ? integer_to_float(in, x) : integer_to_integer(in, x);
        }
    }
    row_put(w, &in->o[0], v, m);
}

/* The frequent ones, whole rows at once. */
#define FAST(name, D, S, expr)                                                                                    \
    static void name(Warp *w, const Ins *in, uint32_t m) {                                                        \
        const S *pa = row(w, &in->o[1]);                                                                          \
        D t[32];                                                                                                  \
        LANES {                                                                                                   \
            S a = pa[l];                                                                                          \
            t[l] = (D)(expr);                                                                                     \
        }                                                                                                         \
        PUT(D, row_out(w, &in->o[0]), t, m);                                                                      \
    }
static inline uint16_t bf16_of_float(float f) { /* as bf16_round, of a float */
    uint32_t b = f32_bits(f);
    uint32_t r = (b + 0x7fffu + (b >> 16 & 1)) >> 16;
    return (uint16_t)((b & 0x7fffffffu) > 0x7f800000u ? 0x7fff : r);
}
FAST(s64_s32, int64_t, int32_t, a)
FAST(u64_u32, uint64_t, uint32_t, a)
FAST(u32_u64, uint32_t, uint64_t, a)
FAST(u32_u16, uint32_t, uint16_t, a)
FAST(u16_u32, uint16_t, uint32_t, a)
FAST(f32_s32, float, int32_t, a)
FAST(f32_u32, float, uint32_t, a)
FAST(bf16_f32, uint16_t, float, bf16_of_float(a))

Exec cvt_handler(const Ins *in) {
    static const struct {
        uint8_t to, from, rnd, d, s;
        Exec fn;
    } fast[] = {
        {T_S64, T_S32, 0, 8, 4, s64_s32},        {T_U64, T_U32, 0, 8, 4, u64_u32},
        {T_U32, T_U64, 0, 4, 8, u32_u64},        {T_S32, T_S64, 0, 4, 8, u32_u64},
        {T_U32, T_U16, 0, 4, 2, u32_u16},        {T_U16, T_U32, 0, 2, 4, u16_u32},
        {T_F32, T_S32, RND_RN, 4, 4, f32_s32},   {T_F32, T_U32, RND_RN, 4, 4, f32_u32},
        {T_BF16, T_F32, RND_RN, 2, 4, bf16_f32},
    };
    for (size_t i = 0; i < sizeof fast / sizeof *fast; i++)
        if (fast[i].to == in->type && fast[i].from == in->type2 && fast[i].rnd == in->rnd && !in->sat &&
            !in->ftz && in->o[0].width == fast[i].d && in->o[1].width == fast[i].s)
            return fast[i].fn;
    return cvt_any;
}

/* d = {a in the upper half, b in the lower}. */
#define PAIR(name, round)                                                                                         \
    static void name(Warp *w, const Ins *in, uint32_t m) {                                                        \
        const float *a = row(w, &in->o[1]), *b = row(w, &in->o[2]);                                               \
        uint32_t t[32];                                                                                           \
        LANES t[l] = (uint32_t)round(a[l]) << 16 | round(b[l]);                                                   \
        PUT(uint32_t, row_out(w, &in->o[0]), t, m);                                                               \
    }
static uint16_t pair_bf16(float x, const Ins *in) {
    return in->rnd == RND_RZ ? bf16_truncate(x) : bf16_of_float(x);
}
static uint16_t pair_f16(float x, const Ins *in) { return in->rnd == RND_RZ ? f16_truncate(x) : f16_round(x); }
#define ROUND_BF16(x) pair_bf16(x, in)
#define ROUND_F16(x) pair_f16(x, in)
PAIR(bf16x2_f32, ROUND_BF16)
PAIR(f16x2_f32, ROUND_F16)

static void tf32_f32(Warp *w, const Ins *in,
                     uint32_t m) { /* rna: nearest, ties away from zero; 10 bits are kept */
    const uint32_t *a = row(w, &in->o[1]);
    uint32_t t[32];
    LANES t[l] = (a[l] & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : (a[l] + 0x1000u) & ~0x1fffu;
    PUT(uint32_t, row_out(w, &in->o[0]), t, m);
}

const OpEntry ops_cvt[] = {
    {"cvt.bf16x2.f32", bf16x2_f32, "444", PTX_FP, ALLOW_RND, 0},
    {"cvt.f16x2.f32", f16x2_f32, "444", PTX_FP, ALLOW_RND, 0},
    {"cvt.rna.tf32.f32", tf32_f32, "44", PTX_FP, 0, 0},
    {NULL, NULL, NULL, 0, 0, 0},
};
