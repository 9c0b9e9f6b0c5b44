/* test_ptx_int.c: the interpreter's integer instructions, comparisons and conversions between integers, each
 * against a formula of its own on edge values and random numbers. */
#include "tests/ptx_help.h"

typedef uint64_t (*Reference)(uint64_t a, uint64_t b, uint64_t c, uint64_t e);
typedef struct {
    const char *ins, *sig;
    Reference ref;
} Case;

typedef unsigned __int128 u128;
typedef __int128 s128;
#define S16(x) ((s128)(int16_t)(x))
#define S32(x) ((s128)(int32_t)(x))
#define S64(x) ((s128)(int64_t)(x))
#define U(x) ((u128)(x))

#define REF(name, expr)                                                                                           \
    static uint64_t ref_##name(uint64_t a, uint64_t b, uint64_t c, uint64_t e) {                                  \
        (void)a, (void)b, (void)c, (void)e;                                                                       \
        return (uint64_t)(expr);                                                                                  \
    }

static u128 divide(u128 a, u128 b, u128 zero) { return b ? a / b : zero; }
static s128 divide_s(s128 a, s128 b) { return b ? a / b : -1; }
static s128 rest_s(s128 a, s128 b) { return b ? a % b : a; }
static s128 clamp32(s128 x) { return x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : x; }
static uint64_t low_bits(uint64_t n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }

REF(add, a + b)
REF(sub, a - b)
REF(mul, a *b) REF(mad, a *b + c) REF(mulhi16u, U(a) * b >> 16) REF(mulhi16s, S16(a) * S16(b) >> 16) REF(
    mulhi32u, U(a) * b >> 32) REF(mulhi32s, S32(a) * S32(b) >> 32) REF(mulhi64u,
                                                                       U(a) * b >> 64) REF(mulhi64s,
                                                                                           S64(a) * S64(b) >> 64)
    REF(madhi32u, (U(a) * b >> 32) + c) REF(madhi32s, (S32(a) * S32(b) >> 32) + S32(c)) REF(
        wide16s, S16(a) * S16(b)) REF(wide32s,
                                      S32(a) * S32(b)) REF(madwide32s, S32(a) * S32(b) + S64(c))
        REF(div16u, divide(a, b, 0xffff)) REF(div32u, divide(a, b, 0xffffffffu)) REF(
            div64u,
            divide(a, b, ~0ull)) REF(div16s,
                                     divide_s(S16(a), S16(b))) REF(div32s, divide_s(S32(a), S32(b)))
            REF(div64s, divide_s(S64(a), S64(b))) REF(remu, b ? a % b : a) REF(rem16s, rest_s(S16(a), S16(b))) REF(
                rem32s,
                rest_s(S32(a), S32(b))) REF(rem64s, rest_s(S64(a), S64(b)))
                REF(minu, a < b ? a : b) REF(maxu, a < b ? b : a) REF(min16s, S16(a) < S16(b) ? a : b)
                    REF(max16s, S16(a) < S16(b) ? b : a) REF(min32s, S32(a) < S32(b) ? a : b)
                        REF(max32s, S32(a) < S32(b) ? b : a) REF(min64s, S64(a) < S64(b) ? a : b)
                            REF(max64s, S64(a) < S64(b) ? b : a) REF(neg, -a) REF(abs16, S16(a) < 0 ? -a : a)
                                REF(abs32, S32(a) < 0 ? -a
                                                      : a) REF(abs64, S64(a) < 0 ? -a : a)
                                    REF(and, a &b) REF(or, a | b) REF(xor, a ^ b) REF(not, ~a) REF(andnot, a & !b)
                                        REF(cnot, a == 0) REF(shl16, b > 15 ? 0 : a << b)
                                            REF(shl32,
                                                b > 31 ? 0 : a << b) REF(shl64, b > 63 ? 0 : a << b)
                                                REF(shru,
                                                    b > 63 ? 0 : a >> b) REF(shr16s, S16(a) >> (b > 15 ? 15 : b))
                                                    REF(shr32s, S32(a) >> (b > 31 ? 31 : b))
                                                        REF(shr64s,
                                                            S64(a) >> (b > 63 ? 63 : b)) REF(sel, c & 1 ? a : b)
                                                            REF(addsat, clamp32(S32(a) + S32(b)))
                                                                REF(subsat, clamp32(S32(a) - S32(b)))
                                                                    REF(sad, c + (a > b ? a - b
                                                                                        : b - a)) static uint64_t
    count(uint64_t a) {
    uint64_t n = 0;
    for (int i = 0; i < 64; i++) n += a >> i & 1;
    return n;
}
static uint64_t leading(uint64_t a, int bits) {
    uint64_t n = 0;
    for (int i = bits - 1; i >= 0 && !(a >> i & 1); i--) n++;
    return n;
}
static uint64_t mirror(uint64_t a, int bits) {
    uint64_t r = 0;
    for (int i = 0; i < bits; i++)
        if (a >> i & 1) r |= 1ull << (bits - 1 - i);
    return r;
}
REF(popc, count(a))
REF(clz32, leading(a, 32))
REF(clz64, leading(a, 64)) REF(brev32, mirror(a, 32)) REF(brev64, mirror(a, 64))
    REF(bfind32, a ? 31 - leading(a, 32) : 0xffffffffu) REF(bfind64, a ? 63 - leading(a, 64) : 0xffffffffu)
    /* As the manual writes bfe: bit by bit. */
    static uint64_t field(uint64_t a, uint64_t b, uint64_t c, int msb, bool sign) {
    uint64_t pos = b & 255, len = c & 255, d = 0, fill;
    if (!sign || len == 0)
        fill = 0;
    else
        fill = a >> (pos + len - 1 < (uint64_t)msb ? pos + len - 1 : (uint64_t)msb) & 1;
    for (uint64_t i = 0; i <= (uint64_t)msb; i++)
        d |= (i < len && pos + i <= (uint64_t)msb ? a >> (pos + i) & 1 : fill) << i;
    return d;
}
REF(bfe32u, field(a, b, c, 31, false))
REF(bfe32s, field(a, b, c, 31, true))
REF(bfe64u, field(a, b, c, 63, false)) REF(bfe64s, field(a, b, c, 63, true)) static uint64_t
    insert(uint64_t a, uint64_t f, uint64_t pos, uint64_t len, uint64_t bits) {
    pos &= 255, len &= 255;
    for (uint64_t i = 0; i < len && pos + i < bits; i++)
        f = (f & ~(1ull << (pos + i))) | (a >> i & 1) << (pos + i);
    return f;
}
REF(bfi32, insert(a, b, c, e, 32))
REF(bfi64, insert(a, b, c, e, 64)) static uint64_t pick(uint64_t a, uint64_t b, uint64_t c) {
    uint8_t bytes[8];
    uint64_t r = 0;
    for (int i = 0; i < 4; i++) bytes[i] = (uint8_t)(a >> 8 * i), bytes[4 + i] = (uint8_t)(b >> 8 * i);
    for (int i = 0; i < 4; i++) {
        uint64_t s = c >> 4 * i & 15, v = bytes[s & 7];
        r |= (s & 8 ? v >> 7 ? 0xff : 0 : v) << 8 * i;
    }
    return r;
}
REF(prmt, pick(a, b, c))
REF(shflw, c & 31 ? b << (c & 31) | a >> (32 - (c & 31)) : b)
REF(shfrw, c & 31 ? b << (32 - (c & 31)) | a >> (c & 31) : a)
REF(shflc, c > 31 ? a
           : c    ? b << c | a >> (32 - c)
                  : b) REF(shfrc, c > 31 ? b
                               : c    ? b << (32 - c) | a >> c
                                   : a) static uint64_t look(uint64_t a, uint64_t b, uint64_t c, uint64_t table) {
    uint64_t r = 0;
    for (int i = 0; i < 32; i++) r |= (table >> ((a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1)) & 1) << i;
    return r;
}
REF(lop3, look(a, b, c, 0x6a))
REF(lop3xor, look(a, b, c, 0x96))
REF(same, a) REF(pack, b << 32 | a) REF(pack16, b << 16 | a) REF(pack4, e << 48 | c << 32 | b << 16 | a)
    REF(high, a >> 32) REF(sx8, (int8_t)a) REF(sx16, (int16_t)a) REF(sx32, (int32_t)a) REF(low8, a & 255)
        REF(low16, a & 0xffff) REF(low32, a & 0xffffffffu) REF(sats8, S32(a) > 127    ? 127
                                                                      : S32(a) < -128 ? -128
                                                                                      : S32(a))
            REF(satu8, S32(a) > 255 ? 255
                       : S32(a) < 0 ? 0
                                    : S32(a)) REF(satu16u, a > 65535 ? 65535 : a) REF(shared, a | 1ull << 56)
                REF(local, a | 2ull << 56) REF(offset, a &low_bits(56))

#define C(text, sig, name)                                                                                        \
    { text, sig, ref_##name }
#define W3(op, h, w, d)                                                                                           \
    C(op "16 D, A, B;", "h:hh", h), C(op "32 D, A, B;", "w:ww", w), C(op "64 D, A, B;", "d:dd", d)
#define W2(op, h, w, d) C(op "16 D, A;", "h:h", h), C(op "32 D, A;", "w:w", w), C(op "64 D, A;", "d:d", d)
#define WS(op, h, w, d)                                                                                           \
    C(op "16 D, A, B;", "h:hw", h), C(op "32 D, A, B;", "w:ww", w), C(op "64 D, A, B;", "d:dw", d)

                    static const Case cases[] = {
                        W3("add.u", add, add, add),
                        W3("add.s", add, add, add),
                        W3("sub.u", sub, sub, sub),
                        W3("sub.s", sub, sub, sub),
                        W3("mul.lo.u", mul, mul, mul),
                        W3("mul.lo.s", mul, mul, mul),
                        W3("mul.hi.u", mulhi16u, mulhi32u, mulhi64u),
                        W3("mul.hi.s", mulhi16s, mulhi32s, mulhi64s),
                        W3("div.u", div16u, div32u, div64u),
                        W3("div.s", div16s, div32s, div64s),
                        W3("rem.u", remu, remu, remu),
                        W3("rem.s", rem16s, rem32s, rem64s),
                        W3("min.u", minu, minu, minu),
                        W3("max.u", maxu, maxu, maxu),
                        W3("min.s", min16s, min32s, min64s),
                        W3("max.s", max16s, max32s, max64s),
                        W3("and.b", and, and, and),
                        W3("or.b", or, or, or),
                        W3("xor.b", xor, xor, xor),
                        W2("not.b", not, not, not ),
                        W2("cnot.b", cnot, cnot, cnot),
                        W2("neg.s", neg, neg, neg),
                        W2("abs.s", abs16, abs32, abs64),
                        W2("mov.b", same, same, same),
                        W2("mov.u", same, same, same),
                        W2("mov.s", same, same, same),
                        WS("shl.b", shl16, shl32, shl64),
                        WS("shr.u", shru, shru, shru),
                        WS("shr.b", shru, shru, shru),
                        WS("shr.s", shr16s, shr32s, shr64s),
                        C("mad.lo.s16 D, A, B, C;", "h:hhh", mad),
                        C("mad.lo.s32 D, A, B, C;", "w:www", mad),
                        C("mad.lo.s64 D, A, B, C;", "d:ddd", mad),
                        C("mad.lo.u16 D, A, B, C;", "h:hhh", mad),
                        C("mad.lo.u32 D, A, B, C;", "w:www", mad),
                        C("mad.lo.u64 D, A, B, C;", "d:ddd", mad),
                        C("mad.hi.u32 D, A, B, C;", "w:www", madhi32u),
                        C("mad.hi.s32 D, A, B, C;", "w:www", madhi32s),
                        C("mul.wide.u16 D, A, B;", "w:hh", mul),
                        C("mul.wide.s16 D, A, B;", "w:hh", wide16s),
                        C("mul.wide.u32 D, A, B;", "d:ww", mul),
                        C("mul.wide.s32 D, A, B;", "d:ww", wide32s),
                        C("mad.wide.u32 D, A, B, C;", "d:wwd", mad),
                        C("mad.wide.s32 D, A, B, C;", "d:wwd", madwide32s),
                        C("mad.wide.u16 D, A, B, C;", "w:hhw", mad),
                        C("selp.b16 D, A, B, C;", "h:hhp", sel),
                        C("selp.b32 D, A, B, C;", "w:wwp", sel),
                        C("selp.b64 D, A, B, C;", "d:ddp", sel),
                        C("selp.u32 D, A, B, C;", "w:wwp", sel),
                        C("selp.s32 D, A, B, C;", "w:wwp", sel),
                        C("selp.f32 D, A, B, C;", "w:wwp", sel),
                        C("selp.u64 D, A, B, C;", "d:ddp", sel),
                        C("selp.u16 D, A, B, C;", "h:hhp", sel),
                        C("selp.f64 D, A, B, C;", "d:ddp", sel),
                        C("mov.f32 D, A;", "w:w", same),
                        C("mov.f64 D, A;", "d:d", same),
                        C("add.sat.s32 D, A, B;", "w:ww", addsat),
                        C("sub.sat.s32 D, A, B;", "w:ww", subsat),
                        C("sad.u32 D, A, B, C;", "w:www", sad),
                        C("popc.b32 D, A;", "w:w", popc),
                        C("popc.b64 D, A;", "w:d", popc),
                        C("clz.b32 D, A;", "w:w", clz32),
                        C("clz.b64 D, A;", "w:d", clz64),
                        C("brev.b32 D, A;", "w:w", brev32),
                        C("brev.b64 D, A;", "d:d", brev64),
                        C("bfind.u32 D, A;", "w:w", bfind32),
                        C("bfind.u64 D, A;", "w:d", bfind64),
                        C("bfe.u32 D, A, B, C;", "w:www", bfe32u),
                        C("bfe.s32 D, A, B, C;", "w:www", bfe32s),
                        C("bfe.u64 D, A, B, C;", "d:dww", bfe64u),
                        C("bfe.s64 D, A, B, C;", "d:dww", bfe64s),
                        C("bfi.b32 D, A, B, C, E;", "w:wwww", bfi32),
                        C("bfi.b64 D, A, B, C, E;", "d:ddww", bfi64),
                        C("prmt.b32 D, A, B, C;", "w:www", prmt),
                        C("shf.l.wrap.b32 D, A, B, C;", "w:www", shflw),
                        C("shf.r.wrap.b32 D, A, B, C;", "w:www", shfrw),
                        C("shf.l.clamp.b32 D, A, B, C;", "w:www", shflc),
                        C("shf.r.clamp.b32 D, A, B, C;", "w:www", shfrc),
                        C("lop3.b32 D, A, B, C, 0x6a;", "w:www", lop3),
                        C("lop3.b32 D, A, B, C, 150;", "w:www", lop3xor),
                        C("and.pred D, A, B;", "p:pp", and),
                        C("or.pred D, A, B;", "p:pp", or),
                        C("xor.pred D, A, B;", "p:pp", xor),
                        C("not.pred D, A;", "p:p", cnot),
                        C("mov.pred D, A;", "p:p", same),
                        C("and.pred D, A, !B;", "p:pp", andnot),
                        C("mov.b64 D, {A, B};", "d:ww", pack),
                        C("mov.b32 D, {A, B};", "w:hh", pack16),
                        C("mov.b64 D, {A, B, C, E};", "d:hhhh", pack4),
                        C("mov.b64 {_, D}, A;", "w:d", high),
                        C("cvt.s64.s32 D, A;", "d:w", sx32),
                        C("cvt.u64.u32 D, A;", "d:w", same),
                        C("cvt.u32.u64 D, A;", "w:d", low32),
                        C("cvt.s32.s64 D, A;", "w:d", low32),
                        C("cvt.u32.u16 D, A;", "w:h", same),
                        C("cvt.s32.s16 D, A;", "w:h", sx16),
                        C("cvt.u16.u32 D, A;", "h:w", low16),
                        C("cvt.s64.s16 D, A;", "d:h", sx16),
                        C("cvt.u64.u16 D, A;", "d:h", same),
                        C("cvt.s32.s8 D, A;", "w:w", sx8),
                        C("cvt.u32.u8 D, A;", "w:w", low8),
                        C("cvt.s16.s8 D, A;", "h:h", sx8),
                        C("cvt.u8.u32 D, A;", "h:w", low8),
                        C("cvt.s8.s32 D, A;", "w:w", sx8),
                        C("cvt.u16.u64 D, A;", "h:d", low16),
                        C("cvt.sat.s8.s32 D, A;", "w:w", sats8),
                        C("cvt.sat.u8.s32 D, A;", "w:w", satu8),
                        C("cvt.sat.u16.u32 D, A;", "h:w", satu16u),
                        C("cvta.shared.u64 D, A;", "d:d", shared),
                        C("cvta.to.shared.u64 D, A;", "d:d", offset),
                        C("cvta.to.global.u64 D, A;", "d:d", same),
                        C("cvta.local.u64 D, A;", "d:d", local),
                        C("cvta.to.local.u64 D, A;", "d:d", offset),
};

static const uint64_t edges[] = {0,
                                 1,
                                 2,
                                 3,
                                 7,
                                 8,
                                 15,
                                 16,
                                 17,
                                 31,
                                 32,
                                 33,
                                 63,
                                 64,
                                 65,
                                 127,
                                 128,
                                 255,
                                 256,
                                 0x7fff,
                                 0x8000,
                                 0xffff,
                                 0x10000,
                                 0x7fffffff,
                                 0x80000000u,
                                 0xffffffffu,
                                 0x100000000ull,
                                 0x7fffffffffffffffull,
                                 0x8000000000000000ull,
                                 ~0ull,
                                 0x5555555555555555ull};

static uint64_t mask_of(char type) {
    return type == 'h' ? 0xffff : type == 'w' ? 0xffffffffu : type == 'd' ? ~0ull : type == 'q' ? 3 : 1;
}

static void inputs(uint64_t in[4][CASES], const char *sig, uint64_t seed) {
    Rng rng = {seed, 0};
    for (int i = 0; i < (int)strlen(sig) - 2; i++)
        for (int j = 0; j < CASES; j++) {
            uint64_t r = rng_next(&rng), v = rng_next(&rng);
            size_t n = sizeof edges / sizeof *edges;
            uint64_t edge = edges[r / 8 % n];
            in[i][j] = (r & 7) < 3 ? edge : (r & 7) < 5 ? v >> (r >> 8 & 63) : (r & 7) < 6 ? v & 63 : v;
            in[i][j] &= mask_of(sig[2 + i]);
        }
}

static void check_case(const Case *c, uint64_t seed) {
    static uint64_t in[4][CASES], out[CASES];
    inputs(in, c->sig, seed);
    run_instruction(c->ins, c->sig, (const uint64_t *const[4]){in[0], in[1], in[2], in[3]}, out);
    for (int j = 0; j < CASES; j++) {
        uint64_t want = c->ref(in[0][j], in[1][j], in[2][j], in[3][j]) & mask_of(c->sig[0]);
        if (out[j] != want)
            fail_msg("%s of %llx %llx %llx %llx: %llx, not %llx", c->ins, (unsigned long long)in[0][j],
                     (unsigned long long)in[1][j], (unsigned long long)in[2][j], (unsigned long long)in[3][j],
                     (unsigned long long)out[j], (unsigned long long)want);
    }
}

static void test_instructions(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_case(&cases[i], i + 1);
}

/* setp of all comparisons and types, alone, with both results, and joined to a predicate. */
static int compare(uint64_t a, uint64_t b, int bits, bool sign) {
    uint64_t flip =
        sign ? 1ull << (bits - 1) : 0; /* order of signed numbers: of unsigned ones with the sign turned */
    a ^= flip, b ^= flip;
    return a < b ? -1 : a > b;
}
static bool holds(const char *cmp, int order) {
    static const char *const names[] = {"eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"};
    const bool yes[] = {
        order == 0, order != 0, order<0, order <= 0, order> 0, order >= 0, order<0, order <= 0, order> 0,
        order >= 0};
    for (int i = 0; i < 10; i++)
        if (strcmp(cmp, names[i]) == 0) return yes[i];
    abort();
}

static void check_setp(const char *cmp, const char *join, char kind, int bits, uint64_t seed) {
    static uint64_t in[4][CASES], out[CASES];
    char ins[128], sig[8], type = bits == 16 ? 'h' : bits == 32 ? 'w' : 'd';
    snprintf(ins, sizeof ins, "setp.%s%s.%c%d D|Q, A, B%s;", cmp, join, kind, bits, *join ? ", !C" : "");
    snprintf(sig, sizeof sig, "q:%c%c%s", type, type, *join ? "p" : "");
    inputs(in, sig, seed);
    for (int j = 0; j < CASES; j += 3) in[1][j] = in[0][j];
    run_instruction(ins, sig, (const uint64_t *const[4]){in[0], in[1], in[2], in[3]}, out);
    for (int j = 0; j < CASES; j++) {
        bool yes = holds(cmp, compare(in[0][j], in[1][j], bits, kind == 's')), no = !yes, c = !in[2][j];
        if (strcmp(join, ".and") == 0) yes = yes && c, no = no && c;
        if (strcmp(join, ".or") == 0) yes = yes || c, no = no || c;
        if (strcmp(join, ".xor") == 0) yes = yes != c, no = no != c;
        if (out[j] != (yes | (uint64_t)no << 1))
            fail_msg("%s of %llx %llx: %llx", ins, (unsigned long long)in[0][j], (unsigned long long)in[1][j],
                     (unsigned long long)out[j]);
    }
}

static void test_setp(void **state) {
    (void)state;
    static const char *const ordered[] = {"eq", "ne", "lt", "le", "gt", "ge"}, *const natural[] = {"lo", "ls",
                                                                                                   "hi", "hs"};
    static const char *const joins[] = {"", ".and", ".or", ".xor"};
    uint64_t seed = 100;
    for (int bits = 16; bits <= 64; bits *= 2) {
        for (int i = 0; i < 6; i++)
            check_setp(ordered[i], joins[i % 4], 'u', bits, seed++),
                check_setp(ordered[i], joins[(i + 1) % 4], 's', bits, seed++);
        for (int i = 0; i < 4; i++) check_setp(natural[i], joins[i], 'u', bits, seed++);
        for (int i = 0; i < 2; i++) check_setp(ordered[i], joins[i], 'b', bits, seed++);
    }
}

/* A predicated instruction leaves the other lanes' results alone; operands may be numbers. */
static void test_predicates(void **state) {
    (void)state;
    static uint64_t in[4][CASES], out[CASES];
    inputs(in, "w:wwp", 7);
    run_instruction("mov.u32 D, A;\n@C add.s32 D, D, -5;\n@!C xor.b32 D, D, 0xff;", "w:wwp",
                    (const uint64_t *const[4]){in[0], in[1], in[2], NULL}, out);
    for (int j = 0; j < CASES; j++)
        assert_int_equal(out[j], (in[2][j] ? in[0][j] - 5 : in[0][j] ^ 255) & 0xffffffffu);
    run_instruction(
        "setp.lt.s32 D, A, B;\nselp.b32 %r9, 1, 0, D;\nmul.wide.s32 %d9, %r9, 0x10;\nsetp.eq.s64 D, %d9, 16;",
        "p:ww", (const uint64_t *const[4]){in[0], in[1], NULL, NULL}, out);
    for (int j = 0; j < CASES; j++) assert_int_equal(out[j], (int32_t)in[0][j] < (int32_t)in[1][j]);
}

static void test_unknown(void **state) {
    (void)state;
    static const struct {
        const char *body, *says;
    } wrong[] = {
        {"dp4a.u32.u32 %r0, %r1, %r2, %r3;", "unknown instruction: dp4a.u32.u32 %r0, %r1, %r2, %r3;"},
        {"add.ftz.s32 %r0, %r1, %r2;", "unknown instruction"},
        {"add.s32 %r0, %r1;", "unknown instruction"},
        {"add.s32 %r0, %r1, %d2;", "64 bits, not 32"},
        {"add.s64 %d0, %d1, %r2;", "32 bits, not 64"},
        {"add.s32 %r0, %r1, %r99;", "register '%r99' is not known"},
        {"bra nowhere;", "label 'nowhere' is not known"},
        {"activemask.b32 %r0;", "unknown instruction"},
        {"bar.sync 1;", "unknown instruction"},
        {"wgmma.fence.sync.aligned;", "unknown instruction"},
        {"ld.global.v4.u64 %d0, [%d1];", "unknown instruction"},
        {"cp.async.cg.shared.global [%r0], [%d0], 8;", "unknown instruction"},
        {"mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 %r0, %r1, %r2, %r3;", "unknown instruction"},
        {".weird 5;", "directive '.weird' is not known"},
        {"mov.u32 %r0, %clock;", "register '%clock' is not known"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *why = load_error(wrong[i].body);
        if (!why || !strstr(why, wrong[i].says)) fail_msg("%s: %s", wrong[i].body, why ? why : "was loaded");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_instructions),
        cmocka_unit_test(test_setp),
        cmocka_unit_test(test_predicates),
        cmocka_unit_test(test_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
