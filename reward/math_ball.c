/* math_ball.c: the value of a tree as a ball of complex numbers (Arb), free symbols taken at made-up points.
 *
 * A symbol's value is a function of its name and the point's number. An unknown function's value is a function of
 * its name and of the values of its arguments (rounded, so that equal arguments in other forms give the same), so
 * f(x+1) and f(1+x) agree and nothing else does; sums, integrals and limits that can't be computed likewise.
 * Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include <acb.h>
#include <arb.h>
#include <flint/fmpz.h>

#include "reward/math_parts.h"

typedef struct Env Env;
struct Env {
    const Env *outer;
    const char *name;
    acb_srcptr value;
};

typedef struct {
    Point *point;
    const Env *env;
    int angles; /* trigonometric functions around this place: there a degree is pi/180 */
} Eval;

enum { EXPONENT_BITS = 40, GAMMA_PREC = 640 };

static bool ball(const Node *node, acb_t out, Eval *eval);

/* ---- made-up values ---- */

static uint64_t text_hash(const char *text) {
    uint64_t h = 0x9e3779b97f4a7c15u;
    for (; *text; text++) h = rng_mix(h, (unsigned char)*text);
    return h;
}

/* Points 0..5 are reals of both signs, the others whole numbers from 3 on. */
static void value_from(acb_t out, uint64_t h, int point) {
    acb_zero(out);
    arb_ptr re = acb_realref(out);
    if (point >= 6) {
        arb_set_ui(re, 3 + h % 19);
        return;
    }
    arb_set_ui(re, (h >> 3) | 1);
    arb_mul_2exp_si(re, re, point == 4 ? -61 : -59 - (int)(h & 1));
    bool negative = (point == 2 && (h & 2)) || point == 3;
    if (negative) arb_neg(re, re);
}

static bool out_of_work(Eval *eval, int cost) {
    Budget *budget = eval->point->budget;
    budget->work -= cost * (int)(1 + eval->point->prec / 256);
    if (budget->work >= 0) return false;
    budget->over = true;
    return true;
}

/* Adds a value, rounded to 2^-60, to a hash. False when it is no finite number of moderate size. */
static bool value_hash(uint64_t *h, const acb_t x) {
    if (!acb_is_finite(x)) return false;
    fmpz_t whole;
    arf_t mid;
    fmpz_init(whole);
    arf_init(mid);
    bool ok = true;
    for (int part = 0; part < 2 && ok; part++) {
        arf_set(mid, arb_midref(part ? acb_imagref(x) : acb_realref(x)));
        arf_mul_2exp_si(mid, mid, 60);
        ok = arf_is_zero(mid) || arf_cmpabs_2exp_si(mid, 4000) < 0;
        if (!ok) break;
        arf_get_fmpz(whole, mid, ARF_RND_NEAR);
        *h = rng_mix(*h, (uint64_t)fmpz_sgn(whole) + 2);
        while (!fmpz_is_zero(whole)) {
            *h = rng_mix(*h, (uint64_t)fmpz_fdiv_ui(whole, 4294967291u));
            fmpz_tdiv_q_2exp(whole, whole, 32);
        }
    }
    fmpz_clear(whole);
    arf_clear(mid);
    return ok;
}

/* ---- domains and sizes ---- */

static bool is_real(const acb_t x) { return arb_is_zero(acb_imagref(x)); }
static bool is_negative(const acb_t x) { return is_real(x) && arb_is_negative(acb_realref(x)); }
static void domain_left(Eval *eval) { eval->point->left = true; }

/* Notes how far from 1 a value is; false when it is beyond any computing. */
static bool reach_note(Eval *eval, const acb_t x) {
    if (!acb_is_finite(x)) return false;
    if (acb_contains_zero(x)) return true;
    arf_t size;
    arf_init(size);
    acb_get_abs_lbound_arf(size, x, 32);
    slong e = ARF_IS_SPECIAL(size) ? 0 : arf_abs_bound_lt_2exp_si(size);
    arf_clear(size);
    if (e < 0) e = -e;
    if (e > eval->point->reach) eval->point->reach = e;
    if (e < (slong)1 << EXPONENT_BITS) return true;
    eval->point->budget->huge = true;
    return false;
}

static bool smaller_than(const acb_t x, slong bits) {
    mag_t size;
    mag_init(size);
    acb_get_mag(size, x);
    bool small = mag_cmp_2exp_si(size, bits) < 0;
    mag_clear(size);
    return small;
}

/* ---- powers ---- */

/* |x|^(p/q) with the sign of an odd root of a negative number. */
static bool power_odd(acb_t out, const acb_t base, const fmpq_t power, slong prec) {
    acb_t size;
    arb_t exponent;
    acb_init(size);
    arb_init(exponent);
    acb_neg(size, base);
    arb_set_fmpq(exponent, power, prec);
    acb_pow_arb(out, size, exponent, prec);
    if (fmpz_is_odd(fmpq_numref(power))) acb_neg(out, out);
    acb_clear(size);
    arb_clear(exponent);
    return true;
}

static bool power_general(acb_t out, const acb_t base, const acb_t power, Eval *eval) {
    slong prec = eval->point->prec;
    if (acb_is_zero(base)) {
        if (!is_real(power) || !arb_is_positive(acb_realref(power))) return false;
        acb_zero(out);
        return true;
    }
    if (acb_contains_zero(base) && !acb_is_int(power)) return false;
    if (!smaller_than(power, EXPONENT_BITS)) {
        eval->point->budget->huge = true;
        return false;
    }
    if (is_negative(base) && !acb_is_int(power)) domain_left(eval);
    acb_pow(out, base, power, prec);
    return true;
}

static bool pow_ball(const Node *node, acb_t out, Eval *eval) {
    acb_t base, power;
    acb_init(base);
    acb_init(power);
    fmpq_t exact;
    fmpq_init(exact);
    bool ok = ball(node->kids[0], base, eval) && ball(node->kids[1], power, eval) && !out_of_work(eval, 4);
    if (ok && is_negative(base) && is_real(power) && !acb_is_int(power) &&
        exact_value(node->kids[1], exact, eval->point->budget) && fmpz_is_odd(fmpq_denref(exact)) &&
        !eval->point->complex)
        ok = power_odd(out, base, exact, eval->point->prec);
    else if (ok)
        ok = power_general(out, base, power, eval);
    fmpq_clear(exact);
    acb_clear(base);
    acb_clear(power);
    return ok;
}

static bool root_ball(acb_t out, const acb_t x, const acb_t n, Eval *eval) {
    if (!acb_is_int(n) || !smaller_than(n, 12)) return false;
    slong degree = arf_get_si(arb_midref(acb_realref(n)), ARF_RND_DOWN);
    if (degree < 1) return false;
    if (is_negative(x) && degree % 2 && !eval->point->complex) {
        acb_neg(out, x);
        acb_root_ui(out, out, (ulong)degree, eval->point->prec);
        acb_neg(out, out);
        return true;
    }
    if (is_negative(x)) domain_left(eval);
    acb_root_ui(out, x, (ulong)degree, eval->point->prec);
    return true;
}

/* ---- functions ---- */

static bool gamma_allowed(const acb_t x, Eval *eval) {
    if (eval->point->prec > GAMMA_PREC || !smaller_than(x, 17)) {
        eval->point->budget->huge = true;
        return false;
    }
    return !out_of_work(eval, 30);
}

static bool factorial_ball(acb_t out, const acb_t x, Eval *eval) {
    if (!gamma_allowed(x, eval)) return false;
    acb_add_ui(out, x, 1, eval->point->prec);
    acb_gamma(out, out, eval->point->prec);
    return true;
}

static bool binomial_ball(acb_t out, const acb_t n, const acb_t k, Eval *eval) {
    acb_t top, bottom, rest;
    acb_init(top);
    acb_init(bottom);
    acb_init(rest);
    slong prec = eval->point->prec;
    acb_sub(rest, n, k, prec);
    bool ok = factorial_ball(top, n, eval) && factorial_ball(bottom, k, eval) && factorial_ball(rest, rest, eval);
    if (ok) {
        acb_mul(bottom, bottom, rest, prec);
        acb_div(out, top, bottom, prec);
    }
    acb_clear(top);
    acb_clear(bottom);
    acb_clear(rest);
    return ok;
}

static bool floor_ball(acb_t out, const acb_t x, Eval *eval) {
    if (!is_real(x)) return false;
    arb_floor(acb_realref(out), acb_realref(x), eval->point->prec);
    arb_zero(acb_imagref(out));
    return arb_is_exact(acb_realref(out));
}

static bool mod_ball(acb_t out, const acb_t a, const acb_t b, Eval *eval) {
    acb_t whole;
    acb_init(whole);
    acb_div(whole, a, b, eval->point->prec);
    bool ok = floor_ball(whole, whole, eval);
    acb_mul(whole, whole, b, eval->point->prec);
    acb_sub(out, a, whole, eval->point->prec);
    acb_clear(whole);
    return ok;
}

static void outside_unit_note(const acb_t x, Eval *eval) {
    arb_t size;
    arb_init(size);
    arb_abs(size, acb_realref(x));
    arb_sub_ui(size, size, 1, 64);
    if (is_real(x) && arb_is_positive(size)) domain_left(eval);
    arb_clear(size);
}

static void reciprocal(acb_t out, slong prec) { acb_inv(out, out, prec); }

/* Trigonometric and hyperbolic functions and their inverses. */
static bool circle_ball(Function fn, acb_t out, const acb_t x, Eval *eval) {
    slong prec = eval->point->prec;
    if (!smaller_than(x, EXPONENT_BITS)) return false;
    switch (fn) {
    case FN_SIN:
        acb_sin(out, x, prec);
        return true;
    case FN_COS:
        acb_cos(out, x, prec);
        return true;
    case FN_TAN:
        acb_tan(out, x, prec);
        return true;
    case FN_COT:
        acb_cot(out, x, prec);
        return true;
    case FN_SEC:
        acb_sec(out, x, prec);
        return true;
    case FN_CSC:
        acb_csc(out, x, prec);
        return true;
    case FN_ASIN:
        outside_unit_note(x, eval);
        acb_asin(out, x, prec);
        return true;
    case FN_ACOS:
        outside_unit_note(x, eval);
        acb_acos(out, x, prec);
        return true;
    case FN_ATAN:
        acb_atan(out, x, prec);
        return true;
    case FN_SINH:
        acb_sinh(out, x, prec);
        return true;
    case FN_COSH:
        acb_cosh(out, x, prec);
        return true;
    case FN_TANH:
        acb_tanh(out, x, prec);
        return true;
    case FN_COTH:
        acb_coth(out, x, prec);
        return true;
    case FN_SECH:
        acb_sech(out, x, prec);
        return true;
    case FN_CSCH:
        acb_csch(out, x, prec);
        return true;
    case FN_ASINH:
        acb_asinh(out, x, prec);
        return true;
    case FN_ACOSH:
        acb_acosh(out, x, prec);
        return true;
    case FN_ATANH:
        outside_unit_note(x, eval);
        acb_atanh(out, x, prec);
        return true;
    default:
        break;
    }
    acb_set(out, x);
    reciprocal(out, prec);
    if (fn == FN_ACOT)
        acb_atan(out, out, prec);
    else if (fn == FN_ASEC)
        acb_acos(out, out, prec);
    else if (fn == FN_ACSC)
        acb_asin(out, out, prec);
    else if (fn == FN_ACOTH)
        acb_atanh(out, out, prec);
    else if (fn == FN_ASECH)
        acb_acosh(out, out, prec);
    else if (fn == FN_ACSCH)
        acb_asinh(out, out, prec);
    else
        return false;
    return true;
}

static bool log_ball(acb_t out, const acb_t x, Eval *eval) {
    if (acb_contains_zero(x)) return false;
    if (is_negative(x)) domain_left(eval);
    acb_log(out, x, eval->point->prec);
    return true;
}

static bool one_ball(Function fn, acb_t out, const acb_t x, Eval *eval) {
    slong prec = eval->point->prec;
    switch (fn) {
    case FN_SQRT:
        if (is_negative(x)) domain_left(eval);
        acb_sqrt(out, x, prec);
        return true;
    case FN_ABS:
        acb_abs(acb_realref(out), x, prec);
        arb_zero(acb_imagref(out));
        return true;
    case FN_FACT:
        return factorial_ball(out, x, eval);
    case FN_EXP:
        if (!smaller_than(x, EXPONENT_BITS)) return eval->point->budget->huge = true, false;
        acb_exp(out, x, prec);
        return true;
    case FN_LN:
        return log_ball(out, x, eval);
    case FN_LG:
        if (!log_ball(out, x, eval)) return false;
        {
            arb_t ten;
            arb_init(ten);
            arb_const_log10(ten, prec);
            acb_div_arb(out, out, ten, prec);
            arb_clear(ten);
        }
        return true;
    case FN_FLOOR:
        return floor_ball(out, x, eval);
    case FN_CEIL:
        acb_neg(out, x);
        if (!floor_ball(out, out, eval)) return false;
        acb_neg(out, out);
        return true;
    case FN_RE:
        acb_set_arb(out, acb_realref(x));
        return true;
    case FN_IM:
        acb_set_arb(out, acb_imagref(x));
        return true;
    case FN_CONJ:
        acb_conj(out, x);
        return true;
    case FN_ARG:
        acb_arg(acb_realref(out), x, prec);
        arb_zero(acb_imagref(out));
        return true;
    case FN_SGN:
        acb_sgn(out, x, prec);
        return true;
    default:
        return circle_ball(fn, out, x, eval);
    }
}

static bool two_ball(Function fn, acb_t out, const acb_t x, const acb_t y, Eval *eval) {
    slong prec = eval->point->prec;
    if (fn == FN_ROOT) return root_ball(out, x, y, eval);
    if (fn == FN_BINOM) return binomial_ball(out, x, y, eval);
    if (fn == FN_MOD) return mod_ball(out, x, y, eval);
    if (fn != FN_LOG) return false;
    acb_t base;
    acb_init(base);
    bool ok = log_ball(out, x, eval) && log_ball(base, y, eval);
    if (ok) acb_div(out, out, base, prec);
    acb_clear(base);
    return ok;
}

static bool extreme_ball(const Node *node, acb_t out, Eval *eval) {
    acb_t x;
    acb_init(x);
    bool ok = ball(node->kids[0], out, eval) && is_real(out);
    for (int i = 1; ok && i < node->n; i++) {
        ok = ball(node->kids[i], x, eval) && is_real(x);
        if (!ok) break;
        if (node->op == FN_MAX)
            arb_max(acb_realref(out), acb_realref(out), acb_realref(x), eval->point->prec);
        else
            arb_min(acb_realref(out), acb_realref(out), acb_realref(x), eval->point->prec);
    }
    acb_clear(x);
    return ok;
}

/* Adds the value of a tree, infinity included, to a hash. */
static bool kid_hash(const Node *node, uint64_t *h, acb_t x, Eval *eval) {
    bool minus = node->kind == NODE_NEG;
    const Node *size = minus ? node->kids[0] : node;
    if (size->kind == NODE_CONST && size->op == CONST_INF) {
        *h = rng_mix(*h, 991 + minus);
        return true;
    }
    return ball(node, x, eval) && value_hash(h, x);
}

/* A value made of a name and the values of the kids. */
static bool opaque_ball(const char *name, const Node *node, acb_t out, Eval *eval) {
    uint64_t h = text_hash(name);
    acb_t x;
    acb_init(x);
    bool ok = true;
    for (int i = 0; i < node->n && ok; i++) {
        ok = kid_hash(node->kids[i], &h, x, eval);
        h = rng_mix(h, 77);
    }
    acb_clear(x);
    if (ok) value_from(out, h, 0);
    return ok;
}

static bool number_ball(const Node *node, acb_t out, Eval *eval);

static bool turns(Function fn) { return (fn >= FN_SIN && fn <= FN_CSC); }

static bool function_ball(const Node *node, acb_t out, Eval *eval) {
    Function fn = (Function)node->op;
    if (fn == FN_MAX || fn == FN_MIN) return extreme_ball(node, out, eval);
    if (fn == FN_GCD || fn == FN_LCM || fn == FN_DET || fn == FN_FACT2)
        return number_ball(node, out, eval) || opaque_ball(fn == FN_GCD   ? "gcd"
                                                           : fn == FN_LCM ? "lcm"
                                                           : fn == FN_DET ? "det"
                                                                          : "!!",
                                                           node, out, eval);
    if (out_of_work(eval, 8)) return false;
    acb_t x, y;
    acb_init(x);
    acb_init(y);
    eval->angles += turns(fn);
    bool ok = ball(node->kids[0], x, eval) && (node->n < 2 || ball(node->kids[1], y, eval));
    eval->angles -= turns(fn);
    if (ok) ok = node->n == 1 ? one_ball(fn, out, x, eval) : two_ball(fn, out, x, y, eval);
    acb_clear(x);
    acb_clear(y);
    return ok;
}

/* ---- sums, integrals, limits ---- */

static bool body_ball(const Node *body, const char *name, const acb_t value, acb_t out, Eval *eval) {
    Env inner = {eval->env, name, value};
    eval->env = &inner;
    bool ok = ball(body, out, eval);
    eval->env = inner.outer;
    return ok;
}

static bool range_ball(const Node *node, slong first, slong last, acb_t out, Eval *eval) {
    acb_t k, term;
    acb_init(k);
    acb_init(term);
    bool ok = true;
    acb_set_si(out, node->op == FN_PROD);
    for (slong i = first; ok && i <= last; i++) {
        acb_set_si(k, i);
        ok = body_ball(node->kids[2], node->text, k, term, eval);
        if (ok && node->op == FN_SUM)
            acb_add(out, out, term, eval->point->prec);
        else if (ok)
            acb_mul(out, out, term, eval->point->prec);
    }
    acb_clear(k);
    acb_clear(term);
    return ok;
}

static bool bind_ball(const Node *node, acb_t out, Eval *eval) {
    acb_t x, k;
    acb_init(x);
    acb_init(k);
    uint64_t h = rng_mix(0xb14d, node->op);
    slong bounds[2] = {0, -1};
    bool ok = true, whole = node->n == 3 && (node->op == FN_SUM || node->op == FN_PROD);
    for (int i = 0; i + 1 < node->n && ok; i++) {
        acb_zero(x);
        ok = kid_hash(node->kids[i], &h, x, eval);
        whole = whole && ok && acb_is_int(x) && smaller_than(x, 30) && node->kids[i]->kind != NODE_CONST;
        if (whole) bounds[i] = arf_get_si(arb_midref(acb_realref(x)), ARF_RND_DOWN);
    }
    if (ok && whole && eval->env == NULL && node->kids[1]->kind != NODE_SYMBOL &&
        bounds[1] - bounds[0] <= RANGE_MAX) {
        ok = range_ball(node, bounds[0], bounds[1], out, eval);
    } else if (ok) {
        /* the body at two made-up values of the variable stands for the body as a whole */
        for (int i = 0; i < 2 && ok; i++) {
            value_from(k, rng_mix(0x5eed, (uint64_t)eval->point->depth), i);
            eval->point->depth++;
            ok = body_ball(node->kids[node->n - 1], node->text, k, x, eval) && value_hash(&h, x);
            eval->point->depth--;
        }
        if (node->op == FN_DIFF && ok) {
            value_from(k, text_hash(node->text), eval->point->point);
            ok = value_hash(&h, k);
        }
        if (ok) value_from(out, h, 0);
    }
    acb_clear(x);
    acb_clear(k);
    return ok;
}

/* ---- trees ---- */

static bool symbol_ball(const Node *node, acb_t out, Eval *eval) {
    for (const Env *env = eval->env; env; env = env->outer)
        if (!strcmp(env->name, node->text)) {
            acb_set(out, env->value);
            return true;
        }
    value_from(out, rng_mix(text_hash(node->text), (uint64_t)eval->point->point), eval->point->point);
    return true;
}

static bool kids_ball(const Node *node, acb_t out, Eval *eval) {
    acb_t x;
    acb_init(x);
    slong prec = eval->point->prec;
    bool ok = ball(node->kids[0], out, eval);
    for (int i = 1; ok && i < node->n; i++) {
        ok = ball(node->kids[i], x, eval);
        if (!ok) break;
        if (node->kind == NODE_ADD)
            acb_add(out, out, x, prec);
        else if (node->kind == NODE_MUL)
            acb_mul(out, out, x, prec);
        else
            acb_div(out, out, x, prec);
    }
    acb_clear(x);
    return ok;
}

static bool constant_ball(const Node *node, acb_t out, slong prec) {
    acb_zero(out);
    if (node->op == CONST_PI)
        arb_const_pi(acb_realref(out), prec);
    else if (node->op == CONST_E)
        arb_const_e(acb_realref(out), prec);
    else if (node->op == CONST_I)
        acb_onei(out);
    else
        return false;
    return true;
}

static bool number_ball(const Node *node, acb_t out, Eval *eval) {
    fmpq_t x;
    fmpq_init(x);
    bool ok = exact_value(node, x, eval->point->budget);
    if (ok) acb_set_fmpq(out, x, eval->point->prec);
    fmpq_clear(x);
    return ok;
}

static bool degree_ball(const Node *node, acb_t out, Eval *eval) {
    if (!ball(node->kids[0], out, eval)) return false;
    if (!eval->angles) return true;
    arb_t pi;
    arb_init(pi);
    arb_const_pi(pi, eval->point->prec);
    acb_mul_arb(out, out, pi, eval->point->prec);
    acb_div_ui(out, out, 180, eval->point->prec);
    arb_clear(pi);
    return true;
}

static bool ball_plain(const Node *node, acb_t out, Eval *eval) {
    switch ((NodeKind)node->kind) {
    case NODE_NUMBER:
    case NODE_BASE:
        return number_ball(node, out, eval);
    case NODE_SYMBOL:
        return symbol_ball(node, out, eval);
    case NODE_TEXT:
        value_from(out, text_hash(node->text), eval->point->point);
        return true;
    case NODE_CONST:
        return constant_ball(node, out, eval->point->prec);
    case NODE_ADD:
    case NODE_MUL:
    case NODE_DIV:
        return kids_ball(node, out, eval);
    case NODE_RATIO:
        return node->n == 2 && kids_ball(node, out, eval);
    case NODE_POW:
        return pow_ball(node, out, eval);
    case NODE_NEG:
        if (!ball(node->kids[0], out, eval)) return false;
        acb_neg(out, out);
        return true;
    case NODE_PERCENT:
        if (!ball(node->kids[0], out, eval)) return false;
        acb_div_ui(out, out, 100, eval->point->prec);
        return true;
    case NODE_UNIT:
        return ball(node->kids[0], out, eval);
    case NODE_DEGREE:
        return degree_ball(node, out, eval);
    case NODE_FN:
        return function_ball(node, out, eval);
    case NODE_CALL:
        return opaque_ball(node->text, node, out, eval);
    case NODE_BIND:
        return bind_ball(node, out, eval);
    default:
        return false;
    }
}

static bool ball(const Node *node, acb_t out, Eval *eval) {
    if (out_of_work(eval, 1)) return false;
    return ball_plain(node, out, eval) && reach_note(eval, out);
}

bool ball_value(const Node *node, acb_t out, Point *point) {
    Eval eval = {.point = point};
    return ball(node, out, &eval);
}
