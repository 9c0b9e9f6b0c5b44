/* math_value.c: are two values (numbers or expressions) equal?
 *
 * Rational numbers are compared exactly. Else the difference is enclosed in a ball: a ball without zero proves
 * that the values differ; a ball around zero with a radius below 2^-EQUAL_BITS of the values' size, computed with
 * twice the bits that the largest and smallest number on the way could hide, counts as equal. Expressions with
 * free symbols are compared at up to POINTS points: for rational functions of degree d the chance that different
 * ones agree at k points is below (d / 2^59)^k. Nothing is ever equal because it is near zero. Tested by
 * tests/test_reward_math.c.
 */
#include <string.h>

#include <acb.h>

#include "reward/math_parts.h"

enum { EQUAL_BITS = 96, POINTS = 10, POINTS_NEEDED = 3 };

/* ---- balls ---- */

typedef enum { SAME, OTHER, UNKNOWN, NO_VALUE } Likeness;

/* Compares a and b at one point and precision. */
static Likeness balls_compare(const Node *a, const Node *b, Point *point, bool need_real) {
    acb_t x, y;
    acb_init(x);
    acb_init(y);
    Likeness relation = NO_VALUE;
    if (ball_value(a, x, point) && ball_value(b, y, point) && !(need_real && point->left)) {
        mag_t size, radius;
        mag_init(size);
        mag_init(radius);
        acb_get_mag(size, x);
        acb_sub(y, x, y, point->prec);
        acb_get_mag(radius, y);
        mag_mul_2exp_si(size, size, -EQUAL_BITS);
        if (!acb_contains_zero(y))
            relation = OTHER;
        else
            relation = acb_is_zero(y) || mag_cmp(radius, size) < 0 ? SAME : UNKNOWN;
        mag_clear(size);
        mag_clear(radius);
    }
    acb_clear(x);
    acb_clear(y);
    return relation;
}

/* Raises the precision until the point is decided. */
static Likeness point_compare(Compare *compare, const Node *a, const Node *b, int number, bool symbols) {
    slong prec = 128;
    for (;;) {
        Point point = {.point = number, .prec = prec, .complex = compare->complex, .budget = compare->budget};
        Likeness relation = balls_compare(a, b, &point, symbols && !compare->complex);
        if (relation == NO_VALUE || relation == OTHER) return relation;
        slong need = 2 * point.reach + EQUAL_BITS + 64;
        if (relation == SAME && prec >= need) return SAME;
        if (prec >= PREC_MAX) {
            compare->budget->huge |= need > PREC_MAX;
            return UNKNOWN;
        }
        prec = need > 2 * prec ? need : 2 * prec;
        if (prec > PREC_MAX) prec = PREC_MAX;
    }
}

static Verdict numbers_compare(Compare *compare, const Node *a, const Node *b) {
    Likeness relation = point_compare(compare, a, b, 0, false);
    if (relation == SAME) return VERDICT_NUMERIC;
    return relation == UNKNOWN || compare->budget->huge || compare->budget->over ? VERDICT_TOO_LARGE
                                                                                 : VERDICT_DIFFERENT;
}

static Verdict expressions_compare(Compare *compare, const Node *a, const Node *b) {
    int agreed = 0;
    for (int i = 0; i < POINTS; i++) {
        Likeness relation = point_compare(compare, a, b, i, true);
        if (relation == OTHER) return VERDICT_DIFFERENT;
        agreed += relation == SAME;
        if (compare->budget->over) return VERDICT_TOO_LARGE;
    }
    if (agreed >= POINTS_NEEDED) return VERDICT_SYMBOLIC;
    return compare->budget->huge ? VERDICT_TOO_LARGE : VERDICT_DIFFERENT; /* no value at most points */
}

/* ---- infinity ---- */

/* 1 or -1 for plus or minus infinity, else 0. */
static int infinity_of(const Node *node) {
    switch (node->kind) {
    case NODE_CONST:
        return node->op == CONST_INF;
    case NODE_NEG:
        return -infinity_of(node->kids[0]);
    case NODE_PERCENT:
    case NODE_UNIT:
        return infinity_of(node->kids[0]);
    case NODE_ADD:
        return node->n == 1 ? infinity_of(node->kids[0]) : 0;
    default:
        return 0;
    }
}

/* ---- exact values ---- */

static bool has_constant(const Node *node) {
    if (node->kind == NODE_CONST) return true;
    for (int i = 0; i < node->n; i++)
        if (has_constant(node->kids[i])) return true;
    return false;
}

static Verdict plain_equal(Compare *compare, const Node *a, const Node *b) {
    if (node_same(a, b)) return VERDICT_EXACT;
    int left = infinity_of(a), right = infinity_of(b);
    if (left || right) return left == right ? VERDICT_EXACT : VERDICT_DIFFERENT;
    fmpq_t x, y;
    fmpq_init(x);
    fmpq_init(y);
    bool exact = exact_value(a, x, compare->budget) && exact_value(b, y, compare->budget);
    Verdict verdict = exact && fmpq_equal(x, y) ? VERDICT_EXACT : VERDICT_DIFFERENT;
    fmpq_clear(x);
    fmpq_clear(y);
    if (exact) return verdict;
    compare->budget->huge = false;
    if (node_has_symbols(a) || node_has_symbols(b)) return expressions_compare(compare, a, b);
    return numbers_compare(compare, a, b);
}

bool value_measurable(Budget *budget, const Node *node) {
    if (node->kind >= NODE_CHAIN || node->kind == NODE_PM) {
        for (int i = 0; i < node->n; i++)
            if (!value_measurable(budget, node->kids[i])) return false;
        return true;
    }
    acb_t x;
    acb_init(x);
    for (int i = 0; i < POINTS && !budget->huge && !budget->over; i += 6) {
        Point point = {.point = i, .prec = 128, .budget = budget};
        ball_value(node, x, &point);
    }
    acb_clear(x);
    return !budget->huge && !budget->over;
}

/* ---- rounding ---- */

static const Node *number_under(const Node *node, bool *negative) {
    *negative = false;
    for (;;) {
        if (node->kind == NODE_NEG)
            *negative = !*negative;
        else if (node->kind != NODE_UNIT && node->kind != NODE_PERCENT && node->kind != NODE_DEGREE)
            break;
        node = node->kids[0];
    }
    return node->kind == NODE_NUMBER ? node : NULL;
}

static int digits_of(const Node *number) { return (int)strlen(number->text); }

/* Does `value` lie within half a unit of the last decimal of `rounded`? */
static bool rounds_to(Compare *compare, const Node *value, const Node *rounded, int decimals) {
    Point point = {.prec = 256, .complex = compare->complex, .budget = compare->budget};
    acb_t x, y;
    acb_init(x);
    acb_init(y);
    bool ok = ball_value(value, x, &point) && ball_value(rounded, y, &point);
    if (ok) {
        acb_sub(x, x, y, 256);
        arb_t limit;
        arb_init(limit);
        arb_ui_pow_ui(limit, 10, (ulong)decimals, 256);
        arb_mul(acb_realref(x), acb_realref(x), limit, 256);
        arb_abs(acb_realref(x), acb_realref(x));
        arb_mul_ui(acb_realref(x), acb_realref(x), 2, 256);
        arb_sub_ui(acb_realref(x), acb_realref(x), 1, 256);
        ok = arb_is_zero(acb_imagref(x)) && !arb_is_positive(acb_realref(x));
        arb_clear(limit);
    }
    acb_clear(x);
    acb_clear(y);
    return ok;
}

/* Equal up to rounding, where rounding is called for:
 *   the gold answer is a decimal number, and the answer is an exact value that rounds to it (3 digits or more), or
 * a longer decimal that does (when the problem asks for rounding, or 4 digits and more); inside a container
 * (tuple, interval, matrix), an entry that is the gold entry rounded to 2 or more decimals: the other entries
 * confirm the answer there, while a rounded lone number is not the exact one that was asked. */
static bool rounding_equal(Compare *compare, const Node *gold, const Node *answer) {
    if (node_has_symbols(gold) || node_has_symbols(answer)) return false;
    bool sign;
    const Node *g = number_under(gold, &sign), *a = number_under(answer, &sign);
    if (a && compare->inside && (!g || a->decimals < g->decimals) && a->decimals >= 2 && a->decimals < 18 &&
        digits_of(a) >= 2)
        return rounds_to(compare, gold, answer, a->decimals);
    if (g && g->decimals > 0 && g->decimals < 18) {
        bool exact = !a, longer = a && a->decimals > g->decimals;
        int enough = compare->rounds ? 1 : exact ? 3 : 4;
        bool irrational = exact && has_constant(answer);
        bool may =
            (exact || longer) && digits_of(g) >= enough && (g->decimals >= 2 || compare->rounds || irrational);
        return may && rounds_to(compare, answer, gold, g->decimals);
    }
    return false;
}

/* ---- units and percent ---- */

typedef struct {
    const char *name;
    char dimension;
    double scale; /* only compared, never used to compute */
} UnitRow;

static const UnitRow units[] = {
    {"mm", 'l', 0.001},
    {"millimeter", 'l', 0.001},
    {"cm", 'l', 0.01},
    {"centimeter", 'l', 0.01},
    {"m", 'l', 1},
    {"meter", 'l', 1},
    {"metre", 'l', 1},
    {"km", 'l', 1000},
    {"kilometer", 'l', 1000},
    {"inch", 'l', 0.0254},
    {"inche", 'l', 0.0254},
    {"in", 'l', 0.0254},
    {"ft", 'l', 0.3048},
    {"foot", 'l', 0.3048},
    {"feet", 'l', 0.3048},
    {"yard", 'l', 0.9144},
    {"mile", 'l', 1609.344},
    {"second", 't', 1},
    {"sec", 't', 1},
    {"minute", 't', 60},
    {"min", 't', 60},
    {"hour", 't', 3600},
    {"hr", 't', 3600},
    {"day", 't', 86400},
    {"week", 't', 604800},
    {"month", 't', 2629746},
    {"year", 't', 31556952},
    {"dollar", 'd', 1},
    {"cent", 'd', 0.01},
    {"penny", 'd', 0.01},
    {"pennie", 'd', 0.01},
    {"gram", 'g', 1},
    {"g", 'g', 1},
    {"kg", 'g', 1000},
    {"kilogram", 'g', 1000},
    {"pound", 'g', 453.6},
    {"lb", 'g', 453.6},
    {"ounce", 'g', 28.35},
    {"oz", 'g', 28.35},
};

static const UnitRow *unit_find(const char *text) {
    size_t n = 0;
    while (text[n] && (((unsigned char)text[n] | 32) >= 'a' && ((unsigned char)text[n] | 32) <= 'z')) n++;
    for (const char *p = text + n; *p; p++)
        if (*p != ' ' && *p != '.') return NULL; /* "square feet", "cm^2", "miles per hour": not looked at */
    size_t stem = n > 1 && text[n - 1] == 's' ? n - 1 : n;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if ((strlen(units[i].name) == stem || strlen(units[i].name) == n) &&
            text_alike(units[i].name, text, strlen(units[i].name)))
            return &units[i];
    return NULL;
}

static const Node *without_unit(const Node *node, const char **unit) {
    *unit = NULL;
    while (node->kind == NODE_UNIT) {
        *unit = node->text;
        node = node->kids[0];
    }
    return node;
}

/* Both name a unit of the table, and not the same one: 5 cm is not 5 m. */
static bool units_clash(const char *a, const char *b) {
    const UnitRow *x = a ? unit_find(a) : NULL, *y = b ? unit_find(b) : NULL;
    return x && y && (x->dimension != y->dimension || x->scale < y->scale || x->scale > y->scale);
}

static Node *scaled(Compare *compare, const Node *node, int64_t top, int64_t bottom) {
    Node *product = node_two(compare->arena, NODE_MUL, (Node *)node, node_int(compare->arena, top));
    return node_two(compare->arena, NODE_DIV, product, node_int(compare->arena, bottom));
}

/* A percentage is a number of hundredths, and where only one side has the sign, it may be left out. */
static Verdict percent_equal(Compare *compare, const Node *gold, const Node *answer) {
    const Node *g = gold->kind == NODE_PERCENT ? gold->kids[0] : gold,
               *a = answer->kind == NODE_PERCENT ? answer->kids[0] : answer;
    if ((g == gold) == (a == answer)) return VERDICT_DIFFERENT;
    return plain_equal(compare, g, a);
}

/* Degrees and radians: 90 degrees is pi/2. */
static Verdict degree_equal(Compare *compare, const Node *gold, const Node *answer) {
    const Node *degrees = gold->kind == NODE_DEGREE ? gold : answer,
               *radians = gold->kind == NODE_DEGREE ? answer : gold;
    fmpq_t number;
    fmpq_init(number);
    bool rational = exact_value(radians, number, compare->budget);
    fmpq_clear(number);
    if (degrees->kind != NODE_DEGREE || radians->kind == NODE_DEGREE || rational) return VERDICT_DIFFERENT;
    Node *turned = node_two(compare->arena, NODE_MUL, degrees->kids[0], node_const(compare->arena, CONST_PI));
    turned = node_two(compare->arena, NODE_DIV, turned, node_int(compare->arena, 180));
    return plain_equal(compare, turned, radians);
}

/* ---- text ---- */

/* A time of day as text: "8:34p"; a ratio of two or three whole numbers may be one. */
static bool time_text(const Node *node, Buf *buf) {
    if (node->kind == NODE_TEXT && node->text[0] >= '0' && node->text[0] <= '9' && strchr(node->text, ':')) {
        buf_text(buf, node->text);
        return true;
    }
    if (node->kind != NODE_RATIO) return false;
    for (int i = 0; i < node->n; i++) {
        if (node->kids[i]->kind != NODE_NUMBER || node->kids[i]->scale) return false;
        buf_format(buf, i && strlen(node->kids[i]->text) == 1 ? ":0%s" : i ? ":%s" : "%s", node->kids[i]->text);
    }
    return true;
}

/* The same time; where one side doesn't say whether before noon or after, that is left open. */
static bool times_equal(const Node *a, const Node *b) {
    Buf x = {0}, y = {0};
    bool same = time_text(a, &x) && time_text(b, &y);
    if (same) {
        size_t n = x.n < y.n ? x.n : y.n;
        same = !memcmp(x.p, y.p, n) &&
               (x.n == y.n || (x.n == n + 1 && strchr("ap", x.p[n])) || (y.n == n + 1 && strchr("ap", y.p[n])));
    }
    buf_free(&x);
    buf_free(&y);
    return same;
}

static bool letters_equal(const Node *a, const Node *b) {
    Buf x = {0}, y = {0};
    bool same = node_letters(a, &x) && node_letters(b, &y) && x.n == y.n && x.n > 0 &&
                (x.n > 1 ? text_alike(x.p, y.p, x.n) : x.p[0] == y.p[0]);
    buf_free(&x);
    buf_free(&y);
    return same;
}

static bool is_based(const Node *node) {
    return node->kind == NODE_BASE || (node->kind == NODE_NEG && is_based(node->kids[0]));
}

/* A percentage, an angle in degrees and a number with some other unit are three kinds of things. */
static bool kinds_clash(const Node *gold, const char *unit_gold, const Node *answer, const char *unit_answer) {
    if (unit_gold && answer->kind == NODE_PERCENT) return true;
    if (unit_answer && gold->kind == NODE_PERCENT) return true;
    if (unit_gold && answer->kind == NODE_DEGREE) return !text_alike(unit_gold, "deg", 3);
    if (unit_answer && gold->kind == NODE_DEGREE) return !text_alike(unit_answer, "deg", 3);
    return (gold->kind == NODE_PERCENT && answer->kind == NODE_DEGREE) ||
           (gold->kind == NODE_DEGREE && answer->kind == NODE_PERCENT);
}

static bool is_whole(const Node *node) { return node->kind == NODE_NUMBER && node->decimals < 0; }

Verdict value_equal(Compare *compare, const Node *gold, const Node *answer) {
    const char *unit_gold, *unit_answer;
    gold = without_unit(gold, &unit_gold);
    answer = without_unit(answer, &unit_answer);
    if (gold->kind == NODE_TEXT || answer->kind == NODE_TEXT)
        return letters_equal(gold, answer) || times_equal(gold, answer) ? VERDICT_EXACT : VERDICT_DIFFERENT;
    if ((gold->kind == NODE_RATIO && is_whole(answer)) || (answer->kind == NODE_RATIO && is_whole(gold)))
        return VERDICT_DIFFERENT; /* 3:1 is a ratio, 3 is none */
    if (kinds_clash(gold, unit_gold, answer, unit_answer)) return VERDICT_DIFFERENT;
    if (is_based(gold) != is_based(answer)) return VERDICT_DIFFERENT; /* the base was asked for */
    if (units_clash(unit_gold, unit_answer)) {
        const UnitRow *g = unit_find(unit_gold), *a = unit_find(unit_answer);
        if (g->dimension != 'd' || a->dimension != 'd') return VERDICT_DIFFERENT;
        return g->scale > a->scale ? plain_equal(compare, scaled(compare, gold, 100, 1), answer)
                                   : plain_equal(compare, gold, scaled(compare, answer, 100, 1));
    }
    Verdict verdict = plain_equal(compare, gold, answer);
    if (verdict_right(verdict)) return verdict;
    Verdict other = percent_equal(compare, gold, answer);
    if (verdict_right(other)) return other;
    other = degree_equal(compare, gold, answer);
    if (verdict_right(other)) return other;
    if (verdict == VERDICT_DIFFERENT && rounding_equal(compare, gold, answer)) return VERDICT_NUMERIC;
    return verdict;
}

/* ---- order ---- */

int value_order(Compare *compare, const Node *a, const Node *b) {
    int left = infinity_of(a), right = infinity_of(b);
    if (left || right) return left == right ? 0 : left < right ? -1 : 1;
    Verdict verdict = plain_equal(compare, a, b);
    if (verdict_right(verdict)) return 0;
    if (verdict == VERDICT_TOO_LARGE) return 2;
    acb_t x, y;
    acb_init(x);
    acb_init(y);
    int order = 2;
    for (slong prec = 128; prec <= 1024 && order == 2; prec *= 2) {
        Point point = {.prec = prec, .complex = compare->complex, .budget = compare->budget};
        if (!ball_value(a, x, &point) || !ball_value(b, y, &point)) break;
        if (!arb_contains_zero(acb_imagref(x)) || !arb_contains_zero(acb_imagref(y))) break;
        if (arb_lt(acb_realref(x), acb_realref(y)))
            order = -1;
        else if (arb_gt(acb_realref(x), acb_realref(y)))
            order = 1;
    }
    acb_clear(x);
    acb_clear(y);
    return order;
}
