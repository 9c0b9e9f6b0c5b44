/* math_exact.c: the rational value of a tree, where it has one and the numbers on the way stay within BITS_MAX.
 *
 * FLINT can neither be interrupted nor told to stop, so the size of each result is bounded before it is computed.
 * Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include <flint/fmpz.h>

#include "reward/math_parts.h"

/* Values of summation variables. */
typedef struct Env Env;
struct Env {
    const Env *outer;
    const char *name;
    const fmpq *value;
};

enum { FACTORIAL_MAX = 5000 };

static bool value_of(const Node *node, fmpq_t out, Budget *budget, const Env *env);

static slong bits_of(const fmpq_t x) { return (slong)(fmpz_bits(fmpq_numref(x)) + fmpz_bits(fmpq_denref(x))); }

static bool sized(const fmpq_t x, Budget *budget) {
    if (bits_of(x) <= BITS_MAX) return true;
    budget->huge = true;
    return false;
}

static bool too_large(Budget *budget) {
    budget->huge = true;
    return false;
}

/* ---- numbers ---- */

static bool number_value(const Node *node, fmpq_t out, Budget *budget) {
    size_t n = strlen(node->text);
    budget->work -= (int)(n / 32); /* reading digits takes time as well */
    if (n <= 18) {
        ulong value = 0;
        for (size_t i = 0; i < n; i++) value = 10 * value + (ulong)(node->text[i] - '0');
        fmpq_set_ui(out, value, 1);
    } else {
        fmpz_one(fmpq_denref(out));
        if (fmpz_set_str(fmpq_numref(out), node->text, 10)) return false;
    }
    if (!node->scale || fmpq_is_zero(out)) return true;
    int32_t size = node->scale < 0 ? -node->scale : node->scale;
    if (size > BITS_MAX / 4) return too_large(budget);
    fmpz_t ten;
    fmpz_init(ten);
    fmpz_ui_pow_ui(ten, 10, (ulong)size);
    if (node->scale > 0)
        fmpq_mul_fmpz(out, out, ten);
    else
        fmpq_div_fmpz(out, out, ten);
    fmpz_clear(ten);
    return sized(out, budget);
}

static bool based_value(const Node *node, fmpq_t out) {
    for (const char *p = node->text; *p; p++)
        if (*p - '0' >= node->scale) return false;
    fmpz_one(fmpq_denref(out));
    return fmpz_set_str(fmpq_numref(out), node->text, node->scale) == 0;
}

/* ---- powers and roots ---- */

static bool power_integer(fmpq_t out, const fmpq_t base, const fmpz_t power, Budget *budget) {
    if (fmpq_is_zero(base)) {
        if (fmpz_sgn(power) <= 0) return false; /* 0^0 has no agreed value */
        fmpq_zero(out);
        return true;
    }
    if (fmpz_is_one(fmpq_denref(base)) && fmpz_is_pm1(fmpq_numref(base))) {
        bool minus = fmpz_sgn(fmpq_numref(base)) < 0 && fmpz_is_odd(power);
        fmpq_set_si(out, minus ? -1 : 1, 1);
        return true;
    }
    if (fmpz_bits(power) > 20) return too_large(budget);
    slong n = fmpz_get_si(power), size = n < 0 ? -n : n;
    if (bits_of(base) * size > BITS_MAX) return too_large(budget);
    fmpq_pow_si(out, base, n);
    return true;
}

static bool root_integer(fmpz_t out, const fmpz_t x, slong n) {
    bool negative = fmpz_sgn(x) < 0;
    if (negative && n % 2 == 0) return false;
    fmpz_t size;
    fmpz_init(size);
    fmpz_abs(size, x);
    bool exact = fmpz_root(out, size, n) != 0;
    if (negative) fmpz_neg(out, out);
    fmpz_clear(size);
    return exact;
}

static bool root_value(fmpq_t out, const fmpq_t x, slong n) {
    if (n < 1 || n > 1000) return false;
    return root_integer(fmpq_numref(out), fmpq_numref(x), n) && root_integer(fmpq_denref(out), fmpq_denref(x), n);
}

static bool power_value(fmpq_t out, const fmpq_t base, const fmpq_t power, Budget *budget) {
    if (fmpz_is_one(fmpq_denref(power))) return power_integer(out, base, fmpq_numref(power), budget);
    if (fmpz_bits(fmpq_denref(power)) > 10 || fmpz_bits(fmpq_numref(power)) > 20) return false;
    fmpq_t root;
    fmpq_init(root);
    bool ok = root_value(root, base, fmpz_get_si(fmpq_denref(power))) &&
              power_integer(out, root, fmpq_numref(power), budget);
    fmpq_clear(root);
    return ok;
}

/* ---- functions ---- */

static bool is_integer(const fmpq_t x) { return fmpz_is_one(fmpq_denref(x)); }

static bool factorial_value(fmpq_t out, const fmpq_t x, bool twice, Budget *budget) {
    if (!is_integer(x) || fmpz_sgn(fmpq_numref(x)) < 0) return false;
    if (fmpz_cmp_ui(fmpq_numref(x), FACTORIAL_MAX) > 0) return too_large(budget);
    ulong n = fmpz_get_ui(fmpq_numref(x));
    budget->work -= (int)n / 8;
    fmpz_one(fmpq_denref(out));
    if (!twice)
        fmpz_fac_ui(fmpq_numref(out), n);
    else if (n % 2 == 0) { /* (2k)!! = 2^k k! */
        fmpz_fac_ui(fmpq_numref(out), n / 2);
        fmpz_mul_2exp(fmpq_numref(out), fmpq_numref(out), n / 2);
    } else { /* (2k+1)!! = (2k+1)! / (2^k k!) */
        fmpz_fac_ui(fmpq_denref(out), n / 2);
        fmpz_mul_2exp(fmpq_denref(out), fmpq_denref(out), n / 2);
        fmpz_fac_ui(fmpq_numref(out), n);
        fmpq_canonicalise(out);
    }
    return true;
}

static bool binomial_value(fmpq_t out, const fmpq_t n, const fmpq_t k, Budget *budget) {
    if (!is_integer(n) || !is_integer(k) || fmpq_sgn(n) < 0 || fmpq_sgn(k) < 0) return false;
    if (fmpz_cmp(fmpq_numref(k), fmpq_numref(n)) > 0) {
        fmpq_zero(out);
        return true;
    }
    if (fmpz_bits(fmpq_numref(n)) > 24 || fmpz_cmp_ui(fmpq_numref(k), FACTORIAL_MAX) > 0) return too_large(budget);
    ulong k_ui = fmpz_get_ui(fmpq_numref(k));
    if ((slong)k_ui * (slong)fmpz_bits(fmpq_numref(n)) > BITS_MAX) return too_large(budget);
    budget->work -= (int)k_ui / 16;
    fmpz_one(fmpq_denref(out));
    fmpz_bin_uiui(fmpq_numref(out), fmpz_get_ui(fmpq_numref(n)), k_ui);
    return true;
}

static void floor_value(fmpq_t out, const fmpq_t x) {
    fmpz_fdiv_q(fmpq_numref(out), fmpq_numref(x), fmpq_denref(x));
    fmpz_one(fmpq_denref(out));
}

/* a mod b has the sign of b. */
static bool mod_value(fmpq_t out, const fmpq_t a, const fmpq_t b) {
    if (fmpq_is_zero(b)) return false;
    fmpq_t whole;
    fmpq_init(whole);
    fmpq_div(whole, a, b);
    floor_value(whole, whole);
    fmpq_mul(whole, whole, b);
    fmpq_sub(out, a, whole);
    fmpq_clear(whole);
    return true;
}

/* Of rational numbers: the largest number of which both are whole multiples. */
static void gcd_value(fmpq_t out, const fmpq_t a, const fmpq_t b) { fmpq_gcd(out, a, b); }

static void lcm_value(fmpq_t out, const fmpq_t a, const fmpq_t b) {
    fmpq_t gcd;
    fmpq_init(gcd);
    fmpq_gcd(gcd, a, b);
    if (fmpq_is_zero(gcd))
        fmpq_zero(out);
    else {
        fmpq_mul(out, a, b);
        fmpq_div(out, out, gcd);
    }
    fmpq_clear(gcd);
}

static void join_value(Function fn, fmpq_t out, const fmpq_t x) {
    fmpq_t joined;
    fmpq_init(joined);
    if (fn == FN_GCD)
        gcd_value(joined, out, x);
    else if (fn == FN_LCM)
        lcm_value(joined, out, x);
    else
        fmpq_set(joined, (fmpq_cmp(out, x) > 0) == (fn == FN_MAX) ? out : x);
    fmpq_swap(out, joined);
    fmpq_clear(joined);
}

static bool several_value(const Node *node, fmpq_t out, Budget *budget, const Env *env) {
    fmpq_t x;
    fmpq_init(x);
    bool ok = value_of(node->kids[0], out, budget, env);
    if (ok && node->n == 1 && node->op == FN_GCD) fmpq_abs(out, out);
    for (int i = 1; ok && i < node->n; i++) {
        ok = value_of(node->kids[i], x, budget, env);
        if (ok) join_value((Function)node->op, out, x);
        ok = ok && sized(out, budget);
    }
    fmpq_clear(x);
    return ok;
}

static bool one_value(Function fn, fmpq_t out, const fmpq_t x, Budget *budget) {
    switch (fn) {
    case FN_SQRT:
        return root_value(out, x, 2);
    case FN_ABS:
        fmpq_abs(out, x);
        return true;
    case FN_FACT:
        return factorial_value(out, x, false, budget);
    case FN_FACT2:
        return factorial_value(out, x, true, budget);
    case FN_FLOOR:
        floor_value(out, x);
        return true;
    case FN_CEIL:
        fmpq_neg(out, x);
        floor_value(out, out);
        fmpq_neg(out, out);
        return true;
    case FN_RE:
    case FN_CONJ:
        fmpq_set(out, x);
        return true;
    case FN_IM:
        fmpq_zero(out);
        return true;
    case FN_SGN:
        fmpq_set_si(out, fmpq_sgn(x), 1);
        return true;
    default:
        return false;
    }
}

static bool function_value(const Node *node, fmpq_t out, Budget *budget, const Env *env) {
    Function fn = (Function)node->op;
    if (fn == FN_GCD || fn == FN_LCM || fn == FN_MAX || fn == FN_MIN) return several_value(node, out, budget, env);
    if (node->n > 2) return false;
    fmpq_t x, y;
    fmpq_init(x);
    fmpq_init(y);
    bool ok = value_of(node->kids[0], x, budget, env) && (node->n < 2 || value_of(node->kids[1], y, budget, env));
    if (ok && node->n == 1)
        ok = one_value(fn, out, x, budget);
    else if (ok && fn == FN_BINOM)
        ok = binomial_value(out, x, y, budget);
    else if (ok && fn == FN_MOD)
        ok = mod_value(out, x, y);
    else if (ok && fn == FN_ROOT)
        ok = is_integer(y) && fmpz_bits(fmpq_numref(y)) < 12 && root_value(out, x, fmpz_get_si(fmpq_numref(y)));
    else
        ok = false;
    fmpq_clear(x);
    fmpq_clear(y);
    return ok;
}

/* A sum or product over a short range of whole numbers. */
static bool range_value(const Node *node, fmpq_t out, Budget *budget, const Env *env) {
    if (node->n != 3 || (node->op != FN_SUM && node->op != FN_PROD)) return false;
    fmpq_t low, high, term;
    fmpq_init(low);
    fmpq_init(high);
    fmpq_init(term);
    bool ok = value_of(node->kids[0], low, budget, env) && value_of(node->kids[1], high, budget, env) &&
              is_integer(low) && is_integer(high) && fmpz_bits(fmpq_numref(low)) < 40 &&
              fmpz_bits(fmpq_numref(high)) < 40;
    slong first = ok ? fmpz_get_si(fmpq_numref(low)) : 0, last = ok ? fmpz_get_si(fmpq_numref(high)) : 0;
    if (ok && last - first > RANGE_MAX) ok = too_large(budget);
    fmpq_set_si(out, node->op == FN_PROD, 1);
    for (slong k = first; ok && k <= last; k++) {
        fmpq_set_si(low, k, 1);
        Env inner = {env, node->text, low};
        ok = value_of(node->kids[2], term, budget, &inner);
        if (ok && node->op == FN_SUM)
            fmpq_add(out, out, term);
        else if (ok)
            fmpq_mul(out, out, term);
        ok = ok && sized(out, budget);
        budget->work -= (int)(bits_of(out) / 128);
    }
    fmpq_clear(low);
    fmpq_clear(high);
    fmpq_clear(term);
    return ok;
}

/* ---- trees ---- */

static bool kids_value(const Node *node, fmpq_t out, Budget *budget, const Env *env) {
    fmpq_t x;
    fmpq_init(x);
    bool ok = value_of(node->kids[0], out, budget, env);
    for (int i = 1; ok && i < node->n; i++) {
        ok = value_of(node->kids[i], x, budget, env);
        if (!ok) break;
        if (node->kind == NODE_ADD)
            fmpq_add(out, out, x);
        else if (node->kind == NODE_MUL)
            fmpq_mul(out, out, x);
        else if ((ok = !fmpq_is_zero(x)))
            fmpq_div(out, out, x);
        ok = ok && sized(out, budget);
        budget->work -= (int)(bits_of(out) / 128);
    }
    fmpq_clear(x);
    return ok;
}

static bool pow_value(const Node *node, fmpq_t out, Budget *budget, const Env *env) {
    fmpq_t base, power;
    fmpq_init(base);
    fmpq_init(power);
    bool ok = value_of(node->kids[0], base, budget, env) && value_of(node->kids[1], power, budget, env) &&
              power_value(out, base, power, budget);
    budget->work -= (int)(bits_of(out) / 128);
    fmpq_clear(base);
    fmpq_clear(power);
    return ok;
}

static bool value_of(const Node *node, fmpq_t out, Budget *budget, const Env *env) {
    if (--budget->work < 0) {
        budget->over = true;
        return false;
    }
    switch ((NodeKind)node->kind) {
    case NODE_NUMBER:
        return number_value(node, out, budget);
    case NODE_BASE:
        return based_value(node, out);
    case NODE_SYMBOL:
        for (; env; env = env->outer)
            if (!strcmp(env->name, node->text)) {
                fmpq_set(out, env->value);
                return true;
            }
        return false;
    case NODE_ADD:
    case NODE_MUL:
    case NODE_DIV:
        return kids_value(node, out, budget, env);
    case NODE_RATIO:
        return node->n == 2 && kids_value(node, out, budget, env);
    case NODE_POW:
        return pow_value(node, out, budget, env);
    case NODE_NEG:
        if (!value_of(node->kids[0], out, budget, env)) return false;
        fmpq_neg(out, out);
        return true;
    case NODE_PERCENT:
        if (!value_of(node->kids[0], out, budget, env)) return false;
        fmpq_div_2exp(out, out, 2); /* by 4 and by 25 */
        fmpz_mul_ui(fmpq_denref(out), fmpq_denref(out), 25);
        fmpq_canonicalise(out);
        return true;
    case NODE_DEGREE:
    case NODE_UNIT:
        return value_of(node->kids[0], out, budget, env);
    case NODE_FN:
        return function_value(node, out, budget, env);
    case NODE_BIND:
        return range_value(node, out, budget, env);
    default:
        return false;
    }
}

bool exact_value(const Node *node, fmpq_t out, Budget *budget) { return value_of(node, out, budget, NULL); }
