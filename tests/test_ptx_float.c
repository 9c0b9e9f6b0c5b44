/* test_ptx_float.c: the interpreter's floating point against MPFR, which rounds in any precision: f32, f64, f16
 * and bf16 arithmetic, comparisons and conversions, on edge values and random bits; approximate functions within
 * the errors that the PTX manual states. */
#include "tests/ptx_help.h"

#include <math.h>
#include <mpfr.h>

typedef struct {
    char name[5];
    char type; /* of its row */
    int precision, emin, emax;
} Format; /* MPFR's exponents are of a number between 1/2 and 1 */
static const Format f32 = {"f32", 'w', 24, -148, 128}, f64 = {"f64", 'd', 53, -1073, 1024},
                    f16 = {"f16", 'h', 11, -23, 16}, bf16 = {"bf16", 'h', 8, -132, 128};

static double decode(const Format *f, uint64_t bits) {
    if (f == &f64) {
        double d;
        memcpy(&d, &bits, 8);
        return d;
    }
    if (f != &f16) {
        uint32_t b = f == &f32 ? (uint32_t)bits : (uint32_t)bits << 16;
        float x;
        memcpy(&x, &b, 4);
        return x;
    }
    int e = (int)(bits >> 10 & 31), m = (int)(bits & 1023);
    double v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return bits & 0x8000 ? -v : v;
}

static uint64_t encode(const Format *f, double v) { /* of a value that the format holds */
    if (f == &f64) {
        uint64_t b;
        memcpy(&b, &v, 8);
        return b;
    }
    float x = (float)v;
    uint32_t b;
    memcpy(&b, &x, 4);
    if (f == &f32) return b;
    if (f == &bf16) return b >> 16;
    uint64_t sign = signbit(v) ? 0x8000 : 0;
    v = fabs(v);
    if (isinf(v)) return sign | 0x7c00;
    int e;
    double m = frexp(v, &e); /* m in [1/2, 1) */
    if (v == 0) return sign;
    if (e - 1 < -14) return sign | (uint64_t)ldexp(v, 24);
    return sign | ((uint64_t)(e - 1 + 15) << 10) | ((uint64_t)ldexp(m, 11) & 1023);
}

static void format_set(const Format *f) {
    mpfr_set_emin(f->emin);
    mpfr_set_emax(f->emax);
}
static double rounded(mpfr_t x, int ternary, mpfr_rnd_t rnd) {
    ternary = mpfr_check_range(x, ternary, rnd);
    mpfr_subnormalize(x, ternary, rnd);
    return mpfr_get_d(x, MPFR_RNDN);
}

/* a op b (op c), rounded once to the format. */
static double exact(const Format *f, const char *op, mpfr_rnd_t rnd, double a, double b, double c) {
    mpfr_t x, y, z, r;
    mpfr_set_emin(mpfr_get_emin_min()), mpfr_set_emax(mpfr_get_emax_max());
    mpfr_init2(x, 53), mpfr_init2(y, 53), mpfr_init2(z, 53), mpfr_init2(r, f->precision);
    mpfr_set_d(x, a, MPFR_RNDN), mpfr_set_d(y, b, MPFR_RNDN), mpfr_set_d(z, c, MPFR_RNDN);
    int t;
    if (!strcmp(op, "add"))
        t = mpfr_add(r, x, y, rnd);
    else if (!strcmp(op, "sub"))
        t = mpfr_sub(r, x, y, rnd);
    else if (!strcmp(op, "mul"))
        t = mpfr_mul(r, x, y, rnd);
    else if (!strcmp(op, "fma"))
        t = mpfr_fma(r, x, y, z, rnd);
    else if (!strcmp(op, "div"))
        t = mpfr_div(r, x, y, rnd);
    else if (!strcmp(op, "rcp"))
        t = mpfr_ui_div(r, 1, x, rnd);
    else if (!strcmp(op, "sqrt"))
        t = mpfr_sqrt(r, x, rnd);
    else if (!strcmp(op, "set"))
        t = mpfr_set(r, x, rnd);
    else
        abort();
    format_set(f);
    double v = rounded(r, t, rnd);
    mpfr_clears(x, y, z, r, (mpfr_ptr)0);
    return v;
}

static uint64_t edges(const Format *f, uint64_t i) {
    static const double v[] = {0,   1,     -1,   2,     0.5,       1.5,        2.5,   -2.5,     3,  1e-3,
                               100, 65504, 1e30, 1e-30, 0.3333333, 3.14159265, 127.5, 16777216, 255};
    static const uint64_t special16[] = {0x8000, 0x7c00, 0xfc00, 0x7e01, 0x0001, 0x8001, 0x03ff, 0x0400,
                                         0x7bff, 0x7f80, 0xff80, 0x7fc1, 0x007f, 0x0080, 0x7f7f};
    static const uint64_t special32[] = {0x80000000u, 0x7f800000u, 0xff800000u, 0x7fc00001u, 1,
                                         0x80000001u, 0x7fffff,    0x800000,    0x7f7fffffu, 0x4b800001u};
    static const uint64_t special64[] = {1ull << 63, 0x7ffull << 52,     0xfffull << 52, 0x7ff8000000000001ull,
                                         1,          0xfffffffffffffull, 1ull << 52,     0x7fefffffffffffffull};
    size_t n = sizeof v / sizeof *v, k = f->type == 'h' ? 15 : f->type == 'w' ? 10 : 8;
    i %= n + k;
    if (i < n) return encode(f, exact(f, "set", MPFR_RNDN, v[i], 0, 0));
    return f->type == 'h' ? special16[i - n] : f->type == 'w' ? special32[i - n] : special64[i - n];
}

static uint64_t draw(const Format *f, Rng *rng) {
    uint64_t r = rng_next(rng), v = rng_next(rng);
    if ((r & 7) < 2) return edges(f, r >> 8);
    uint64_t bits = f->type == 'h' ? v & 0xffff : f->type == 'w' ? v & 0xffffffffu : v;
    if ((r & 7) < 5) return bits;
    return encode(f, exact(f, "set", MPFR_RNDN, rng_normal(rng) * exp2((double)(r >> 8 & 15) - 8), 0, 0));
}

static void fill(const Format *f, uint64_t in[4][CASES], int n, uint64_t seed) {
    Rng rng = {seed, 0};
    for (int i = 0; i < n; i++)
        for (int j = 0; j < CASES; j++) in[i][j] = draw(f, &rng);
    for (int j = 0; n > 1 && j < CASES; j += 5)
        in[1][j] = in[0][j] ^ (j % 2 ? 0 : 1ull << (f->type == 'h' ? 15 : f->type == 'w' ? 31 : 63));
}

static bool same(const Format *f, uint64_t got, double want) {
    if (want != want) return decode(f, got) != decode(f, got);
    return got == encode(f, want);
}

static double flush(double x) { return fabs(x) < 0x1p-126 ? copysign(0, x) : x; }
static double clamp(double x) { return x > 0 ? x < 1 ? x : 1 : 0; }

static const struct {
    const char *name;
    mpfr_rnd_t rnd;
} rounds[] = {{".rn", MPFR_RNDN}, {".rz", MPFR_RNDZ}, {".rm", MPFR_RNDD}, {".rp", MPFR_RNDU}};

static void check_arithmetic(const Format *f, const char *op, int n, int rnd, const char *more) {
    static uint64_t in[4][CASES], out[CASES];
    char ins[64], sig[8] = {f->type, ':', f->type, n > 1 ? f->type : 0, n > 2 ? f->type : 0, 0};
    snprintf(ins, sizeof ins, "%s%s%s.%s D, A%s%s;", op, rounds[rnd].name, more, f->name, n > 1 ? ", B" : "",
             n > 2 ? ", C" : "");
    bool ftz = strstr(more, "ftz"), sat = strstr(more, "sat");
    fill(f, in, n, (uint64_t)(rnd * 7 + n));
    run_instruction(ins, sig, (const uint64_t *const[4]){in[0], in[1], in[2], in[3]}, out);
    for (int j = 0; j < CASES; j++) {
        double v[3];
        for (int i = 0; i < 3; i++) v[i] = ftz ? flush(decode(f, in[i][j])) : decode(f, in[i][j]);
        double want = exact(f, op, rounds[rnd].rnd, v[0], v[1], v[2]);
        if (ftz) want = flush(want);
        if (sat) want = clamp(want);
        if (!same(f, out[j], want))
            fail_msg("%s of %a %a %a: %llx is %a, not %a", ins, v[0], v[1], v[2], (unsigned long long)out[j],
                     decode(f, out[j]), want);
    }
}

static void test_arithmetic(void **state) {
    (void)state;
    static const char *const ops[] = {"add", "sub", "mul", "fma", "div", "rcp", "sqrt"};
    for (int i = 0; i < 7; i++)
        for (int r = 0; r < 4; r++) {
            int n = i < 3 || i == 4 ? 2 : i == 3 ? 3 : 1;
            check_arithmetic(&f32, ops[i], n, r, "");
            check_arithmetic(&f64, ops[i], n, r, "");
            if (r == 0) check_arithmetic(&f32, ops[i], n, r, ".ftz");
            if (i < 4 && r == 0) check_arithmetic(&f32, ops[i], n, r, ".sat");
            if (i < 4 && r == 0)
                check_arithmetic(&f16, ops[i], n, r, ""), check_arithmetic(&bf16, ops[i], n, r, "");
            if (i < 4 && r == 0) check_arithmetic(&f16, ops[i], n, r, ".sat");
        }
}

/* Pairs give what their halves give. */
static void test_pairs(void **state) {
    (void)state;
    static uint64_t in[4][CASES], low[4][CASES], high[4][CASES], out[CASES], one[CASES];
    static const char *const ops[] = {"add.rn", "sub.rn",  "mul.rn",  "fma.rn", "min",
                                      "max",    "min.NaN", "max.NaN", "neg",    "abs"};
    for (int k = 0; k < 20; k++) {
        const Format *f = k % 2 ? &f16 : &bf16;
        int n = k / 2 == 3 ? 3 : k / 2 >= 8 ? 1 : 2;
        char ins[64], args[32], sig[8];
        snprintf(args, sizeof args, " D, A%s%s;", n > 1 ? ", B" : "", n > 2 ? ", C" : "");
        fill(f, low, n, (uint64_t)k), fill(f, high, n, (uint64_t)k + 50);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < CASES; j++) in[i][j] = high[i][j] << 16 | low[i][j];
        snprintf(ins, sizeof ins, "%s.%sx2%s", ops[k / 2], f->name, args);
        snprintf(sig, sizeof sig, "w:%.*s", n, "www");
        run_instruction(ins, sig, (const uint64_t *const[4]){in[0], in[1], in[2], in[3]}, out);
        snprintf(ins, sizeof ins, "%s.%s%s", ops[k / 2], f->name, args);
        snprintf(sig, sizeof sig, "h:%.*s", n, "hhh");
        run_instruction(ins, sig, (const uint64_t *const[4]){low[0], low[1], low[2], low[3]}, one);
        for (int j = 0; j < CASES; j++) assert_int_equal(out[j] & 0xffff, one[j]);
        run_instruction(ins, sig, (const uint64_t *const[4]){high[0], high[1], high[2], high[3]}, one);
        for (int j = 0; j < CASES; j++) assert_int_equal(out[j] >> 16, one[j]);
    }
}

static double least(double a, double b, bool nan) {
    if (a != a || b != b) return nan || (a != a && b != b) ? NAN : a != a ? b : a;
    return a < b || (a == b && signbit(a)) ? a : b;
}
static void test_min_max_sign(void **state) {
    (void)state;
    static uint64_t in[4][CASES], out[CASES];
    static const Format *const formats[] = {&f32, &f64, &f16, &bf16};
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < 7; i++) {
            static const char *const ops[] = {"min", "max", "min.NaN", "max.NaN", "neg", "abs", "copysign"};
            const Format *f = formats[k];
            if ((f == &f64 && (i == 2 || i == 3)) || (f->type == 'h' && i == 6)) continue;
            char ins[64], sig[8] = {f->type, ':', f->type, i == 4 || i == 5 ? 0 : f->type, 0};
            snprintf(ins, sizeof ins, "%s.%s D, A%s;", ops[i], f->name, sig[3] ? ", B" : "");
            fill(f, in, 2, (uint64_t)(k * 10 + i));
            run_instruction(ins, sig, (const uint64_t *const[4]){in[0], in[1], NULL, NULL}, out);
            for (int j = 0; j < CASES; j++) {
                double a = decode(f, in[0][j]), b = decode(f, in[1][j]), want;
                if (i < 4)
                    want = i % 2 ? -least(-a, -b, i > 1) : least(a, b, i > 1);
                else
                    want = i == 4 ? -a : i == 5 ? fabs(a) : copysign(b, a); /* PTX: the sign of a, the rest of b */
                if (!same(f, out[j], want))
                    fail_msg("%s of %a %a: %a, not %a", ins, a, b, decode(f, out[j]), want);
            }
        }
}

static void test_setp(void **state) {
    (void)state;
    static uint64_t in[4][CASES], out[CASES];
    static const Format *const formats[] = {&f32, &f64, &f16, &bf16};
    static const char *const cmps[] = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                       "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
    for (int k = 0; k < 4 * 14; k++) {
        const Format *f = formats[k / 14];
        int i = k % 14;
        char ins[64], sig[8] = {'p', ':', f->type, f->type, 0};
        snprintf(ins, sizeof ins, "setp.%s.%s D, A, B;", cmps[i], f->name);
        fill(f, in, 2, (uint64_t)k);
        run_instruction(ins, sig, (const uint64_t *const[4]){in[0], in[1], NULL, NULL}, out);
        for (int j = 0; j < CASES; j++) {
            double a = decode(f, in[0][j]), b = decode(f, in[1][j]);
            bool nan = a != a || b != b;
            bool base[] = {a == b, a != b, a<b, a <= b, a> b, a >= b};
            bool want = i == 12 ? !nan : i == 13 ? nan : i < 6 ? !nan && base[i] : nan || base[i - 6];
            if (out[j] != want) fail_msg("%s of %a %a: %d", ins, a, b, (int)out[j]);
        }
    }
    fill(&f32, in, 2, 99); /* ftz: denormals are zeros */
    run_instruction("setp.lt.ftz.f32 D, A, B;", "p:ww", (const uint64_t *const[4]){in[0], in[1], NULL, NULL}, out);
    for (int j = 0; j < CASES; j++)
        assert_int_equal(out[j], flush(decode(&f32, in[0][j])) < flush(decode(&f32, in[1][j])));
}

/* ---- conversions ---- */

static void test_narrow(void **state) {
    (void)state;
    static uint64_t in[4][CASES], out[CASES];
    static const struct {
        const Format *to, *from;
    } pairs[] = {{&f32, &f64}, {&f16, &f32}, {&bf16, &f32}, {&f64, &f32},
                 {&f32, &f16}, {&f16, &f64}, {&f32, &bf16}};
    for (int k = 0; k < 7 * 4; k++) {
        const Format *to = pairs[k / 4].to, *from = pairs[k / 4].from;
        int r = k % 4;
        bool widen = to->precision > from->precision;
        if ((widen && r) || (to->type == 'h' && r > 1)) continue;
        char ins[64], sig[8] = {to->type, ':', from->type, 0};
        snprintf(ins, sizeof ins, "cvt%s.%s.%s D, A;", widen ? "" : rounds[r].name, to->name, from->name);
        fill(from, in, 1, (uint64_t)k);
        if (!widen) /* what lies between two values of the narrow format, and just beside the middle */
            for (int j = 0; j < CASES / 2; j++) {
                double v = decode(to, (uint64_t)(j * 31) & 0x7fff),
                       next = decode(to, ((uint64_t)(j * 31) & 0x7fff) + 1);
                double mid = v + (next - v) / 2;
                in[0][j] = encode(
                    from, exact(from, "set", MPFR_RNDN, j % 3 ? mid : mid * (1 + (j % 2 ? 1e-7 : -1e-7)), 0, 0));
            }
        run_instruction(ins, sig, (const uint64_t *const[4]){in[0], NULL, NULL, NULL}, out);
        for (int j = 0; j < CASES; j++) {
            double a = decode(from, in[0][j]), want = exact(to, "set", rounds[r].rnd, a, 0, 0);
            if (to->type == 'h' && r == 1 && isinf(want) == 0 && a != a) want = NAN;
            if (!same(to, out[j], want))
                fail_msg("%s of %a: %llx %a, not %a", ins, a, (unsigned long long)out[j], decode(to, out[j]),
                         want);
        }
    }
    fill(&f32, in, 2, 77);
    for (int k = 0; k < 2; k++) {
        const Format *to = k ? &f16 : &bf16;
        run_instruction(k ? "cvt.rn.f16x2.f32 D, A, B;" : "cvt.rn.bf16x2.f32 D, A, B;", "w:ww",
                        (const uint64_t *const[4]){in[0], in[1], NULL, NULL}, out);
        for (int j = 0; j < CASES; j++) {
            assert_true(same(to, out[j] >> 16, exact(to, "set", MPFR_RNDN, decode(&f32, in[0][j]), 0, 0)));
            assert_true(same(to, out[j] & 0xffff, exact(to, "set", MPFR_RNDN, decode(&f32, in[1][j]), 0, 0)));
        }
    }
    run_instruction("cvt.rna.tf32.f32 D, A;", "w:w", (const uint64_t *const[4]){in[0], NULL, NULL, NULL}, out);
    for (int j = 0; j < CASES; j++) {
        double a = decode(&f32, in[0][j]), unit = ldexp(1, (int)fmax(ilogb(a), -126) - 10);
        double want = copysign(floor(fabs(a) / unit + 0.5) * unit, a);
        if (a != a || isinf(a) || want > 0x1.ffcp127)
            continue; /* overflow: as infinity, elsewhere in the manual */
        if (a == 0) want = a;
        if (decode(&f32, out[j]) != want) fail_msg("tf32 of %a: %a, not %a", a, decode(&f32, out[j]), want);
    }
}

static const struct {
    const char *name;
    int bits;
    bool sign;
} ints[] = {{"u8", 8, false},   {"s8", 8, true},   {"u16", 16, false}, {"s16", 16, true},
            {"u32", 32, false}, {"s32", 32, true}, {"u64", 64, false}, {"s64", 64, true}};

static char row_of(int bits) { return bits <= 16 ? 'h' : bits == 32 ? 'w' : 'd'; }

static void check_to_int(int i, const Format *from, int r, uint64_t seed) {
    static uint64_t in[4][CASES], out[CASES];
    static const char *const names[] = {"rni", "rzi", "rmi", "rpi"};
    char ins[64], sig[8] = {row_of(ints[i].bits), ':', from->type, 0};
    snprintf(ins, sizeof ins, "cvt.%s.%s.%s D, A;", names[r], ints[i].name, from->name);
    fill(from, in, 1, seed);
    run_instruction(ins, sig, (const uint64_t *const[4]){in[0], NULL, NULL, NULL}, out);
    int bits = ints[i].bits;
    uint64_t row = bits <= 16 ? 0xffff : bits == 32 ? 0xffffffffu : ~0ull;
    for (int j = 0; j < CASES; j++) {
        double a = decode(from, in[0][j]);
        uint64_t want;
        long double v = r == 0 ? roundevenl(a) : r == 1 ? truncl(a) : r == 2 ? floorl(a) : ceill(a);
        long double low = ints[i].sign ? -ldexpl(1, bits - 1) : 0,
                    high = ldexpl(1, ints[i].sign ? bits - 1 : bits) - 1;
        if (a != a)
            want = from == &f64 || bits == 64 ? 1ull << (bits - 1) : 0;
        else if (v < low)
            v = low;
        else if (v > high)
            v = high;
        if (a == a) want = ints[i].sign ? (uint64_t)(int64_t)v : (uint64_t)v;
        if (a != a && ints[i].sign) want = (uint64_t)((int64_t)(want << (64 - bits)) >> (64 - bits));
        if (out[j] != (want & row))
            fail_msg("%s of %a: %llx, not %llx", ins, a, (unsigned long long)out[j],
                     (unsigned long long)(want & row));
    }
}

static void check_from_int(int i, const Format *to, int r, uint64_t seed) {
    static uint64_t in[4][CASES], out[CASES];
    int bits = ints[i].bits;
    char ins[64], sig[8] = {to->type, ':', row_of(bits), 0};
    snprintf(ins, sizeof ins, "cvt%s.%s.%s D, A;", rounds[r].name, to->name, ints[i].name);
    Rng rng = {seed, 1};
    for (int j = 0; j < CASES; j++)
        in[0][j] = (rng_next(&rng) >> (j % 64)) & (sig[2] == 'h' ? 0xffff : sig[2] == 'w' ? 0xffffffffu : ~0ull);
    run_instruction(ins, sig, (const uint64_t *const[4]){in[0], NULL, NULL, NULL}, out);
    for (int j = 0; j < CASES; j++) {
        uint64_t v = in[0][j] << (64 - bits);
        mpfr_t x;
        mpfr_set_emin(mpfr_get_emin_min()), mpfr_set_emax(mpfr_get_emax_max());
        mpfr_init2(x, to->precision);
        int t = ints[i].sign ? mpfr_set_si(x, (long)((int64_t)v >> (64 - bits)), rounds[r].rnd)
                             : mpfr_set_ui(x, v >> (64 - bits), rounds[r].rnd);
        format_set(to);
        double want = rounded(x, t, rounds[r].rnd);
        mpfr_clear(x);
        if (want == 0) want = 0;
        if (!same(to, out[j], want))
            fail_msg("%s of %llx: %a, not %a", ins, (unsigned long long)in[0][j], decode(to, out[j]), want);
    }
}

static void test_integers(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++)
        for (int r = 0; r < 4; r++) {
            check_to_int(i, &f32, r, (uint64_t)(i * 4 + r));
            check_from_int(i, &f32, r, (uint64_t)(i * 4 + r));
            if (r == i % 4 || ints[i].bits == 64) check_to_int(i, &f64, r, 5), check_from_int(i, &f64, r, 6);
            if (r == 0 && ints[i].bits < 64) check_from_int(i, &f16, r, 7), check_from_int(i, &bf16, r, 8);
            if (r == 1) check_to_int(i, &f16, r, 9);
        }
    static uint64_t in[4][CASES], out[CASES]; /* to an integral float */
    static const char *const names[] = {"rni", "rzi", "rmi", "rpi"};
    for (int k = 0; k < 8; k++) {
        const Format *f = k < 4 ? &f32 : &f64;
        char ins[64], sig[4] = {f->type, ':', f->type, 0};
        snprintf(ins, sizeof ins, "cvt.%s.%s.%s D, A;", names[k % 4], f->name, f->name);
        fill(f, in, 1, (uint64_t)k);
        run_instruction(ins, sig, (const uint64_t *const[4]){in[0], NULL, NULL, NULL}, out);
        for (int j = 0; j < CASES; j++) {
            double a = decode(f, in[0][j]);
            double want = k % 4 == 0 ? roundeven(a) : k % 4 == 1 ? trunc(a) : k % 4 == 2 ? floor(a) : ceil(a);
            if (!same(f, out[j], want)) fail_msg("%s of %a: %a", ins, a, decode(f, out[j]));
        }
    }
}

/* ---- approximate functions ---- */

static const struct {
    const char *name;
    double (*ref)(double);
    double relative, absolute, low, high;
} approximate[] = {
    {"rcp", NULL, 0x1p-23, 0, -1e30, 1e30},      {"sqrt", sqrt, 0x1p-23, 0, 0, 1e30},
    {"rsqrt", NULL, 0x1.12p-23, 0, 1e-30, 1e30}, {"sin", sin, 0, 0x1.6bp-21, -3.14, 3.14},
    {"cos", cos, 0, 0x1.6bp-21, -3.14, 3.14},    {"lg2", log2, 0x1p-22, 0, 2, 1e30},
    {"lg2", log2, 0, 0x1p-22, 0.5, 2},           {"lg2", log2, 0x1p-22, 0, 1e-30, 0.5},
    {"ex2", exp2, 0x1p-22, 0, -120, 120},        {"tanh", tanh, 0x1p-11, 0, -20, 20},
};

static void test_approximate(void **state) {
    (void)state;
    static uint64_t in[4][CASES], out[CASES], again[CASES];
    double worst = 0;
    for (int k = 0; k < 2 * (int)(sizeof approximate / sizeof *approximate); k++) {
        int i = k / 2;
        Rng rng = {(uint64_t)k, 3};
        char ins[64];
        for (int j = 0; j < CASES; j++) {
            double low = approximate[i].low, high = approximate[i].high,
                   x = low + (high - low) * rng_uniform(&rng);
            if (j % 2 && low > 0) x = low * pow(high / low, rng_uniform(&rng));
            in[0][j] = encode(&f32, (double)(float)x);
        }
        snprintf(ins, sizeof ins, "%s.approx.f32 D, A;", approximate[i].name);
        ptx_options.perturb = k % 2;
        run_instruction(ins, "w:w", (const uint64_t *const[4]){in[0], NULL, NULL, NULL}, out);
        run_instruction(ins, "w:w", (const uint64_t *const[4]){in[0], NULL, NULL, NULL}, again);
        ptx_options.perturb = false;
        assert_memory_equal(out, again, sizeof out); /* the same argument, the same result */
        int inexact = 0;
        for (int j = 0; j < CASES; j++) {
            double a = decode(&f32, in[0][j]), got = decode(&f32, out[j]);
            double want = approximate[i].ref              ? approximate[i].ref(a)
                          : approximate[i].name[1] == 'c' ? 1 / a
                                                          : 1 / sqrt(a);
            double bound = fmax(fabs(want) * approximate[i].relative, approximate[i].absolute);
            bound += fabs(want) * 0x1p-24; /* tanh, rcp: bounds near one rounding */
            if (!(fabs(got - want) <= bound)) fail_msg("%s of %a: %a, not %a", ins, a, got, want);
            inexact += got != (double)(float)want;
            worst = fmax(worst, fabs(got - want) / bound);
        }
        if (k % 2)
            assert_true(inexact > CASES / 8);
        else
            assert_true(inexact <= CASES / 100);
    }
    assert_true(worst > 0.5);
    for (int k = 0; k < 2; k++) {
        fill(&f32, in, 2, (uint64_t)k);
        run_instruction(k ? "div.full.f32 D, A, B;" : "div.approx.f32 D, A, B;", "w:ww",
                        (const uint64_t *const[4]){in[0], in[1], NULL, NULL}, out);
        for (int j = 0; j < CASES; j++) {
            double a = decode(&f32, in[0][j]), b = decode(&f32, in[1][j]), got = decode(&f32, out[j]);
            if (!(fabs(b) >= 0x1p-126 && fabs(b) <= 0x1p126)) continue;
            if (a / b == a / b && isfinite((float)(a / b)))
                assert_true(fabs(got - a / b) <= fabs(a / b) * 0x1p-22 + 0x1p-149);
        }
    }
}

static void test_testp(void **state) {
    (void)state;
    static uint64_t in[4][CASES], out[CASES];
    static const char *const names[] = {"finite", "infinite", "number", "notanumber", "normal", "subnormal"};
    fill(&f32, in, 1, 5);
    for (int i = 0; i < 6; i++) {
        char ins[64];
        snprintf(ins, sizeof ins, "testp.%s.f32 D, A;", names[i]);
        run_instruction(ins, "p:w", (const uint64_t *const[4]){in[0], NULL, NULL, NULL}, out);
        for (int j = 0; j < CASES; j++) {
            uint64_t e = in[0][j] >> 23 & 255, m = in[0][j] & 0x7fffff;
            bool want[] = {e < 255, e == 255 && !m, e < 255 || !m, e == 255 && m, e > 0 && e < 255, e == 0 && m};
            assert_int_equal(out[j], want[i]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arithmetic),  cmocka_unit_test(test_pairs),  cmocka_unit_test(test_min_max_sign),
        cmocka_unit_test(test_setp),        cmocka_unit_test(test_narrow), cmocka_unit_test(test_integers),
        cmocka_unit_test(test_approximate), cmocka_unit_test(test_testp),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mpfr_free_cache();
    return failed;
}
