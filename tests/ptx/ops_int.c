/* ops_int.c: integers, bits, predicates, moves. Every lane is computed; PUT keeps those that are not asked for. */
#include "tests/ptx/core.h"

#define HANDLER(name) static void name(Warp *w, const Ins *in, uint32_t m)
#define UNARY(name, D, A, expr)                                                                                   \
    HANDLER(name) {                                                                                               \
        const A *pa = row(w, &in->o[1]);                                                                          \
        D t[32];                                                                                                  \
        LANES {                                                                                                   \
            A a = pa[l];                                                                                          \
            t[l] = (D)(expr);                                                                                     \
        }                                                                                                         \
        PUT(D, row_out(w, &in->o[0]), t, m);                                                                      \
    }
#define BINARY(name, D, A, B, expr)                                                                               \
    HANDLER(name) {                                                                                               \
        const A *pa = row(w, &in->o[1]);                                                                          \
        const B *pb = row(w, &in->o[2]);                                                                          \
        D t[32];                                                                                                  \
        LANES {                                                                                                   \
            A a = pa[l];                                                                                          \
            B b = pb[l];                                                                                          \
            t[l] = (D)(expr);                                                                                     \
        }                                                                                                         \
        PUT(D, row_out(w, &in->o[0]), t, m);                                                                      \
    }
#define TERNARY(name, D, A, B, C, expr)                                                                           \
    HANDLER(name) {                                                                                               \
        const A *pa = row(w, &in->o[1]);                                                                          \
        const B *pb = row(w, &in->o[2]);                                                                          \
        const C *pc = row(w, &in->o[3]);                                                                          \
        D t[32];                                                                                                  \
        LANES {                                                                                                   \
            A a = pa[l];                                                                                          \
            B b = pb[l];                                                                                          \
            C c = pc[l];                                                                                          \
            t[l] = (D)(expr);                                                                                     \
        }                                                                                                         \
        PUT(D, row_out(w, &in->o[0]), t, m);                                                                      \
    }

typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef __int128 s128;
typedef unsigned __int128 u128;

/* One of each for the widths; W is a type as wide as an int at least, so that nothing overflows as a signed
 * number. */
#define WIDTH(U, S, W, bits)                                                                                      \
    UNARY(mov_##U, U, U, a)                                                                                       \
    BINARY(add_##U, U, U, U, (W)a + b)                                                                            \
    BINARY(sub_##U, U, U, U, (W)a - b)                                                                            \
    BINARY(mul_##U, U, U, U, (W)a *b)                                                                             \
    TERNARY(mad_##U, U, U, U, U, (W)a *b + c)                                                                     \
    BINARY(div_##U, U, U, U, b ? a / b : (U)~0ull)                                                                \
    BINARY(rem_##U, U, U, U, b ? a % b : a)                                                                       \
    BINARY(div_##S, S, S, S, b == 0 ? (S)-1 : b == -1 ? (S)(0 - (W)a) : (S)(a / b))                               \
    BINARY(rem_##S, S, S, S, b == 0 ? a : b == -1 ? 0 : (S)(a % b))                                               \
    BINARY(min_##U, U, U, U, a < b ? a : b)                                                                       \
    BINARY(max_##U, U, U, U, a > b ? a : b)                                                                       \
    BINARY(min_##S, S, S, S, a < b ? a : b)                                                                       \
    BINARY(max_##S, S, S, S, a > b ? a : b)                                                                       \
    UNARY(neg_##S, U, U, (W)0 - a)                                                                                \
    UNARY(abs_##S, U, U, (S)a < 0 ? (W)0 - a : a)                                                                 \
    BINARY(and_##U, U, U, U, a &b)                                                                                \
    BINARY(or_##U, U, U, U, a | b)                                                                                \
    BINARY(xor_##U, U, U, U, a ^ b)                                                                               \
    UNARY(not_##U, U, U, ~a)                                                                                      \
    UNARY(cnot_##U, U, U, a == 0)                                                                                 \
    BINARY(shl_##U, U, U, u32, b < bits ? (W)a << (b % bits) : 0)                                                 \
    BINARY(shr_##U, U, U, u32, b < bits ? a >> (b % bits) : 0)                                                    \
    BINARY(shr_##S, S, S, u32, a >> (b < bits ? b : bits - 1))
WIDTH(u16, s16, u32, 16)
WIDTH(u32, s32, u32, 32)
WIDTH(u64, s64, u64, 64)

#define WIDE(name, D, A, X)                                                                                       \
    BINARY(mul_wide_##name, D, A, A, (X)a *b)                                                                     \
    TERNARY(mad_wide_##name, D, A, A, D, (X)a *b + c)                                                             \
    BINARY(mul_hi_##name, A, A, A, (X)a *b >> (8 * sizeof(A)))                                                    \
    TERNARY(mad_hi_##name, A, A, A, A, ((X)a * b >> (8 * sizeof(A))) + (X)c)
WIDE(u16, u32, u16, u32)
WIDE(s16, u32, s16, s32)
WIDE(u32, u64, u32, u64)
WIDE(s32, u64, s32, s64)
BINARY(mul_hi_u64, u64, u64, u64, (u128)a *b >> 64)
BINARY(mul_hi_s64, s64, s64, s64, (s128)a *b >> 64)
TERNARY(mad_hi_s64, s64, s64, s64, s64, ((s128)a * b >> 64) + c)
TERNARY(mad_hi_u64, u64, u64, u64, u64, ((u128)a * b >> 64) + c)

BINARY(add_sat_s32, s32, s32, s32,
       (s64)a + b > INT32_MAX   ? INT32_MAX
       : (s64)a + b < INT32_MIN ? INT32_MIN
                                : (s64)a + b)
BINARY(sub_sat_s32, s32, s32, s32,
       (s64)a - b > INT32_MAX   ? INT32_MAX
       : (s64)a - b < INT32_MIN ? INT32_MIN
                                : (s64)a - b)
TERNARY(sad_u32, u32, u32, u32, u32, (a > b ? a - b : b - a) + c)

UNARY(popc_b32, u32, u32, __builtin_popcount(a))
UNARY(popc_b64, u32, u64, __builtin_popcountll(a))
UNARY(clz_b32, u32, u32, a ? __builtin_clz(a) : 32)
UNARY(clz_b64, u32, u64, a ? __builtin_clzll(a) : 64)
static u64 reverse(u64 a) {
    u64 r = 0;
    for (int i = 0; i < 64; i++) r |= (a >> i & 1) << (63 - i);
    return r;
}
UNARY(brev_b32, u32, u32, reverse(a) >> 32)
UNARY(brev_b64, u64, u64, reverse(a))
UNARY(bfind_u32, u32, u32, a ? 31 - __builtin_clz(a) : -1)
UNARY(bfind_u64, u32, u64, a ? 63 - __builtin_clzll(a) : -1)

/* The low 8 bits of position and length count. */
static u64 extract(u64 a, u32 pos, u32 len, int bits, bool sign) {
    pos &= 255, len &= 255;
    if (len == 0) return 0;
    u64 top = pos + len - 1 < (u32)bits ? pos + len - 1 : (u32)bits - 1; /* where the sign comes from */
    bool fill = sign && (a >> top & 1);
    u64 field = pos < (u32)bits ? a >> pos : 0;
    u64 have = pos < (u32)bits ? (u64)bits - pos : 0;
    u64 n = len < have ? len : have;
    u64 mask = n >= 64 ? ~0ull : (1ull << n) - 1;
    return (field & mask) | (fill ? ~mask : 0);
}
static u64 insert(u64 a, u64 b, u32 pos, u32 len, int bits) {
    pos &= 255, len &= 255;
    if (pos >= (u32)bits || len == 0) return b;
    u64 mask = (len >= 64 ? ~0ull : (1ull << len) - 1) << pos;
    return (b & ~mask) | (a << pos & mask);
}
TERNARY(bfe_u32, u32, u32, u32, u32, extract(a, b, c, 32, false))
TERNARY(bfe_s32, u32, u32, u32, u32, extract(a, b, c, 32, true))
TERNARY(bfe_u64, u64, u64, u32, u32, extract(a, b, c, 64, false))
TERNARY(bfe_s64, u64, u64, u32, u32, extract(a, b, c, 64, true))
HANDLER(bfi_b32) {
    const u32 *a = row(w, &in->o[1]), *b = row(w, &in->o[2]), *c = row(w, &in->o[3]), *d = row(w, &in->o[4]);
    u32 t[32];
    LANES t[l] = (u32)insert(a[l], b[l], c[l], d[l], 32);
    PUT(u32, row_out(w, &in->o[0]), t, m);
}
HANDLER(bfi_b64) {
    const u64 *a = row(w, &in->o[1]), *b = row(w, &in->o[2]);
    const u32 *c = row(w, &in->o[3]), *d = row(w, &in->o[4]);
    u64 t[32];
    LANES t[l] = insert(a[l], b[l], c[l], d[l], 64);
    PUT(u64, row_out(w, &in->o[0]), t, m);
}

static u32 permute(u32 a, u32 b, u32 c) {
    u64 both = (u64)b << 32 | a;
    u32 r = 0;
    for (int i = 0; i < 4; i++) {
        u32 s = c >> (4 * i) & 15, byte = (u32)(both >> (8 * (s & 7))) & 255;
        if (s & 8) byte = byte & 128 ? 255 : 0;
        r |= byte << (8 * i);
    }
    return r;
}
TERNARY(prmt_b32, u32, u32, u32, u32, permute(a, b, c))
TERNARY(shf_l_wrap, u32, u32, u32, u32, (((u64)b << 32 | a) << (c & 31)) >> 32)
TERNARY(shf_r_wrap, u32, u32, u32, u32, ((u64)b << 32 | a) >> (c & 31))
TERNARY(shf_l_clamp, u32, u32, u32, u32, c >= 32 ? a : (((u64)b << 32 | a) << (c & 31)) >> 32)
TERNARY(shf_r_clamp, u32, u32, u32, u32, c >= 32 ? b : ((u64)b << 32 | a) >> (c & 31))

HANDLER(lop3_b32) {
    const u32 *a = row(w, &in->o[1]), *b = row(w, &in->o[2]), *c = row(w, &in->o[3]);
    u32 table = *(const u32 *)row(w, &in->o[4]), t[32];
    LANES {
        u32 r = 0;
        for (int i = 0; i < 8; i++)
            if (table >> i & 1) r |= (i & 4 ? a[l] : ~a[l]) & (i & 2 ? b[l] : ~b[l]) & (i & 1 ? c[l] : ~c[l]);
        t[l] = r;
    }
    PUT(u32, row_out(w, &in->o[0]), t, m);
}

#define SELECT(U)                                                                                                 \
    HANDLER(selp_##U) {                                                                                           \
        const U *a = row(w, &in->o[1]), *b = row(w, &in->o[2]);                                                   \
        u32 p = pred_get(w, &in->o[3]);                                                                           \
        U t[32];                                                                                                  \
        LANES t[l] = p >> l & 1 ? a[l] : b[l];                                                                    \
        PUT(U, row_out(w, &in->o[0]), t, m);                                                                      \
    }
SELECT(u16)
SELECT(u32)
SELECT(u64)

HANDLER(and_pred) { pred_put(w, in->o[0].off, pred_get(w, &in->o[1]) & pred_get(w, &in->o[2]), m); }
HANDLER(or_pred) { pred_put(w, in->o[0].off, pred_get(w, &in->o[1]) | pred_get(w, &in->o[2]), m); }
HANDLER(xor_pred) { pred_put(w, in->o[0].off, pred_get(w, &in->o[1]) ^ pred_get(w, &in->o[2]), m); }
HANDLER(not_pred) { pred_put(w, in->o[0].off, ~pred_get(w, &in->o[1]), m); }
void exec_mov_pred(Warp *w, const Ins *in, uint32_t m) { pred_put(w, in->o[0].off, pred_get(w, &in->o[1]), m); }

void exec_nothing(Warp *w, const Ins *in, uint32_t m) { (void)w, (void)in, (void)m; }

void exec_pack(Warp *w, const Ins *in, uint32_t m) {
    uint64_t whole[32] = {0}, part[32];
    const Opd *v = &in->o[1];
    for (int i = 0; i < v->n; i++) {
        row_get(w, &v->vec[i], part);
        LANES whole[l] |= (v->width == 8 ? part[l] : part[l] & ((1ull << 8 * v->width) - 1)) << (8 * v->width * i);
    }
    row_put(w, &in->o[0], whole, m);
}
void exec_unpack(Warp *w, const Ins *in, uint32_t m) {
    uint64_t whole[32], part[32];
    const Opd *v = &in->o[0];
    row_get(w, &in->o[1], whole);
    for (int i = 0; i < v->n; i++) {
        if (v->vec[i].kind == OPD_SINK) continue;
        LANES part[l] = whole[l] >> (8 * v->width * i);
        row_put(w, &v->vec[i], part, m);
    }
}

/* Addresses: in the window of a space, or generic. */
UNARY(cvta_same, u64, u64, a)
UNARY(cvta_shared, u64, u64, a | SHARED_WINDOW)
UNARY(cvta_local, u64, u64, a | LOCAL_WINDOW)
UNARY(cvta_to_window, u64, u64, OFFSET(a))

#define E(key, fn, shape)                                                                                         \
    { key, fn, shape, PTX_INT, 0, 0 }
#define ALL_WIDTH(n, U, S, d1, d2, d3, sh)                                                                        \
    E("mov.b" n, mov_##U, d1), E("mov.u" n, mov_##U, d1), E("mov.s" n, mov_##U, d1), E("add.u" n, add_##U, d2),   \
        E("add.s" n, add_##U, d2), E("sub.u" n, sub_##U, d2), E("sub.s" n, sub_##U, d2),                          \
        E("mul.lo.u" n, mul_##U, d2), E("mul.lo.s" n, mul_##U, d2), E("mad.lo.u" n, mad_##U, d3),                 \
        E("mad.lo.s" n, mad_##U, d3), E("mul.hi.u" n, mul_hi_##U, d2), E("mul.hi.s" n, mul_hi_##S, d2),           \
        E("mad.hi.u" n, mad_hi_##U, d3), E("mad.hi.s" n, mad_hi_##S, d3), E("div.u" n, div_##U, d2),              \
        E("div.s" n, div_##S, d2), E("rem.u" n, rem_##U, d2), E("rem.s" n, rem_##S, d2),                          \
        E("min.u" n, min_##U, d2), E("min.s" n, min_##S, d2), E("max.u" n, max_##U, d2),                          \
        E("max.s" n, max_##S, d2), E("neg.s" n, neg_##S, d1), E("abs.s" n, abs_##S, d1),                          \
        E("and.b" n, and_##U, d2), E("or.b" n, or_##U, d2), E("xor.b" n, xor_##U, d2), E("not.b" n, not_##U, d1), \
        E("cnot.b" n, cnot_##U, d1), E("shl.b" n, shl_##U, sh), E("shr.b" n, shr_##U, sh),                        \
        E("shr.u" n, shr_##U, sh), E("shr.s" n, shr_##S, sh), E("selp.b" n, selp_##U, d2 "p"),                    \
        E("selp.u" n, selp_##U, d2 "p"), E("selp.s" n, selp_##U, d2 "p")

const OpEntry ops_int[] = {
    ALL_WIDTH("16", u16, s16, "22", "222", "2222", "224"),
    ALL_WIDTH("32", u32, s32, "44", "444", "4444", "444"),
    ALL_WIDTH("64", u64, s64, "88", "888", "8888", "884"),
    E("mov.f32", mov_u32, "44"),
    E("mov.f64", mov_u64, "88"),
    E("mov.f16", mov_u16, "22"),
    E("mov.bf16", mov_u16, "22"),
    E("selp.f32", selp_u32, "444p"),
    E("selp.f64", selp_u64, "888p"),
    E("mul.wide.u16", mul_wide_u16, "422"),
    E("mul.wide.s16", mul_wide_s16, "422"),
    E("mul.wide.u32", mul_wide_u32, "844"),
    E("mul.wide.s32", mul_wide_s32, "844"),
    E("mad.wide.u16", mad_wide_u16, "4224"),
    E("mad.wide.s16", mad_wide_s16, "4224"),
    E("mad.wide.u32", mad_wide_u32, "8448"),
    E("mad.wide.s32", mad_wide_s32, "8448"),
    E("sad.u32", sad_u32, "4444"),
    E("popc.b32", popc_b32, "44"),
    E("popc.b64", popc_b64, "48"),
    E("clz.b32", clz_b32, "44"),
    E("clz.b64", clz_b64, "48"),
    E("brev.b32", brev_b32, "44"),
    E("brev.b64", brev_b64, "88"),
    E("bfind.u32", bfind_u32, "44"),
    E("bfind.u64", bfind_u64, "48"),
    E("bfe.u32", bfe_u32, "4444"),
    E("bfe.s32", bfe_s32, "4444"),
    E("bfe.u64", bfe_u64, "8844"),
    E("bfe.s64", bfe_s64, "8844"),
    E("bfi.b32", bfi_b32, "44444"),
    E("bfi.b64", bfi_b64, "88844"),
    E("prmt.b32", prmt_b32, "4444"),
    E("shf.l.wrap.b32", shf_l_wrap, "4444"),
    E("shf.r.wrap.b32", shf_r_wrap, "4444"),
    E("shf.l.clamp.b32", shf_l_clamp, "4444"),
    E("shf.r.clamp.b32", shf_r_clamp, "4444"),
    E("lop3.b32", lop3_b32, "44444"),
    E("and.pred", and_pred, "ppp"),
    E("or.pred", or_pred, "ppp"),
    E("xor.pred", xor_pred, "ppp"),
    E("not.pred", not_pred, "pp"),
    E("cvta.u64", cvta_same, "88"), /* never printed without a space, but legal for generic ones */
    E("cvta.global.u64", cvta_same, "88"),
    E("cvta.const.u64", cvta_same, "88"),
    E("cvta.shared.u64", cvta_shared, "88"),
    E("cvta.local.u64", cvta_local, "88"),
    E("cvta.to.global.u64", cvta_same, "88"),
    E("cvta.to.const.u64", cvta_same, "88"),
    E("cvta.to.shared.u64", cvta_to_window, "88"),
    E("cvta.to.local.u64", cvta_to_window, "88"),
    E("sat add.s32", add_sat_s32,
      "444"), /* decode.c writes a modifier that an entry does not allow before the key */
    E("sat sub.s32", sub_sat_s32, "444"),
    {NULL, NULL, NULL, 0, 0, 0},
};

void row_get(const Warp *w, const Opd *o, uint64_t v[32]) {
    const char *p = row(w, o);
    if (o->width == 2)
        LANES v[l] = ((const uint16_t *)p)[l];
    else if (o->width == 4)
        LANES v[l] = ((const uint32_t *)p)[l];
    else
        memcpy(v, p, 256);
}
void row_put(Warp *w, const Opd *o, const uint64_t v[32], uint32_t m) {
    if (o->kind == OPD_SINK) return;
    char *p = row_out(w, o);
    if (o->width == 2) LANES {
            ON(m)((uint16_t *)p)[l] = (uint16_t)v[l];
        }
    else if (o->width == 4)
        LANES { ON(m)((uint32_t *)p)[l] = (uint32_t)v[l]; }
    else
        LANES { ON(m)((uint64_t *)p)[l] = v[l]; }
}
