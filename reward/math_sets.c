/* math_sets.c: sets of real numbers (intervals, unions, finite sets) and relations (equations, inequalities).
 *
 * Two sets with constant ends are equal when they hold the same ends and the same gaps between them, so any way of
 * writing a union, intersection or difference will do. Two relations are equal when their sides' differences are
 * proportional (with the right sign, for inequalities). Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include <acb.h>

#include "reward/math_parts.h"

enum { ENDS_MAX = 24, POINTS = 10, POINTS_NEEDED = 3 };

/* ---- ends ---- */

typedef struct {
    const Node *ends[ENDS_MAX]; /* ascending */
    int n;
    bool failed;
} Ends;

static void end_add(Compare *compare, Ends *ends, const Node *end) {
    if (ends->failed) return;
    if (node_has_symbols(end)) {
        ends->failed = true;
        return;
    }
    int at = 0;
    for (; at < ends->n; at++) {
        int order = value_order(compare, end, ends->ends[at]);
        if (order == 0) return;
        if (order == 2) ends->failed = true;
        if (order < 0 || order == 2) break;
    }
    if (ends->n == ENDS_MAX) ends->failed = true;
    if (ends->failed) return;
    memmove(ends->ends + at + 1, ends->ends + at, sizeof ends->ends[0] * (size_t)(ends->n - at));
    ends->ends[at] = end;
    ends->n++;
}

static bool is_pair(const Node *node) { return node->kind == NODE_TUPLE && node->n == 2; }

static void ends_collect(Compare *compare, Ends *ends, const Node *set) {
    switch ((NodeKind)set->kind) {
    case NODE_SPAN:
    case NODE_SET:
    case NODE_LIST:
    case NODE_SETOP:
        for (int i = 0; i < set->n && !ends->failed; i++) {
            if (set->kind == NODE_SETOP)
                ends_collect(compare, ends, set->kids[i]);
            else
                end_add(compare, ends, set->kids[i]);
        }
        return;
    case NODE_TUPLE:
        if (set->n != 2) ends->failed = true;
        for (int i = 0; i < set->n && !ends->failed; i++) end_add(compare, ends, set->kids[i]);
        return;
    case NODE_CONST:
        if (set->op == CONST_REALS || set->op == CONST_EMPTY) return;
        if (set->op > CONST_EMPTY)
            ends->failed = true;
        else
            end_add(compare, ends, set);
        return;
    case NODE_CHAIN:
    case NODE_MATRIX:
    case NODE_TEXT:
        ends->failed = true;
        return;
    default:
        end_add(compare, ends, set); /* a lone number in a difference: R \ 0 */
    }
}

/* The place of an end: 2k+1 for the k-th; 2k is the gap before it. */
static int end_place(Compare *compare, const Ends *ends, const Node *end) {
    for (int i = 0; i < ends->n; i++)
        if (value_order(compare, end, ends->ends[i]) == 0) return 2 * i + 1;
    return -1;
}

static uint64_t place_bit(int place) { return place < 0 ? 0 : (uint64_t)1 << place; }

static uint64_t places_between(int low, int high, bool open_low, bool open_high) {
    uint64_t places = 0;
    if (low < 0 || high < 0) return 0;
    for (int i = low + open_low; i <= high - open_high; i++) places |= (uint64_t)1 << i;
    return places;
}

static uint64_t places_of(Compare *compare, const Ends *ends, const Node *set) {
    uint64_t places = 0, all = ((uint64_t)1 << (2 * ends->n + 1)) - 1;
    switch ((NodeKind)set->kind) {
    case NODE_SPAN:
    case NODE_TUPLE:
        return places_between(end_place(compare, ends, set->kids[0]), end_place(compare, ends, set->kids[1]),
                              set->kind == NODE_TUPLE || set->open_left,
                              set->kind == NODE_TUPLE || set->open_right);
    case NODE_SET:
    case NODE_LIST:
        for (int i = 0; i < set->n; i++) places |= place_bit(end_place(compare, ends, set->kids[i]));
        return places;
    case NODE_SETOP: {
        uint64_t left = places_of(compare, ends, set->kids[0]), right = places_of(compare, ends, set->kids[1]);
        return set->op == 'u' ? left | right : set->op == 'n' ? left & right : left & ~right;
    }
    case NODE_CONST:
        if (set->op == CONST_REALS) return all;
        if (set->op == CONST_EMPTY) return 0;
        break;
    default:
        break;
    }
    return place_bit(end_place(compare, ends, set));
}

/* Infinities are no numbers: whether an interval is written closed there makes no difference. */
static uint64_t infinite_places(Compare *compare, const Ends *ends) {
    Node *infinity = node_const(compare->arena, CONST_INF), *minus = node_one(compare->arena, NODE_NEG, infinity);
    uint64_t places = 0;
    int high = end_place(compare, ends, infinity), low = end_place(compare, ends, minus);
    if (high >= 0) places |= (uint64_t)3 << high;
    if (low >= 0) places |= (uint64_t)3 << (low - 1);
    return places;
}

/* ---- sets with symbols ---- */

enum { MEMBERS_MAX = 32 };

static int members_of(const Node *set, char op, const Node **members, int n) {
    if (set->kind == NODE_SETOP && set->op == op) {
        n = members_of(set->kids[0], op, members, n);
        return members_of(set->kids[1], op, members, n);
    }
    if (n < MEMBERS_MAX) members[n] = set;
    return n + 1;
}

static Verdict spans_equal(Compare *compare, const Node *g, const Node *a) {
    bool g_span = g->kind == NODE_SPAN || is_pair(g), a_span = a->kind == NODE_SPAN || is_pair(a);
    if (!g_span || !a_span) return g_span || a_span ? VERDICT_DIFFERENT : math_equal(compare, g, a);
    bool left = g->kind == NODE_TUPLE || g->open_left, right = g->kind == NODE_TUPLE || g->open_right;
    if (left != (a->kind == NODE_TUPLE || a->open_left) || right != (a->kind == NODE_TUPLE || a->open_right))
        return VERDICT_DIFFERENT;
    compare->inside++;
    Verdict low = math_equal(compare, g->kids[0], a->kids[0]);
    Verdict high = verdict_right(low) ? math_equal(compare, g->kids[1], a->kids[1]) : low;
    compare->inside--;
    return verdict_right(high) ? verdict_weaker(low, high) : high;
}

static Verdict members_equal(Compare *compare, const Node *g, const Node *a) {
    if (g->kind != NODE_SETOP || a->kind != NODE_SETOP) {
        if (g->kind == NODE_SETOP || a->kind == NODE_SETOP) return VERDICT_DIFFERENT;
        return spans_equal(compare, g, a);
    }
    if (g->op != a->op) return VERDICT_DIFFERENT;
    if (g->op == '\\') {
        Verdict left = set_equal(compare, g->kids[0], a->kids[0]);
        Verdict right = verdict_right(left) ? set_equal(compare, g->kids[1], a->kids[1]) : left;
        return verdict_right(right) ? verdict_weaker(left, right) : right;
    }
    const Node *left[MEMBERS_MAX], *right[MEMBERS_MAX];
    int n = members_of(g, (char)g->op, left, 0), m = members_of(a, (char)g->op, right, 0);
    if (n != m || n > MEMBERS_MAX) return VERDICT_DIFFERENT;
    bool taken[MEMBERS_MAX] = {false};
    Verdict weakest = VERDICT_EXACT;
    for (int i = 0; i < n; i++) {
        bool found = false;
        for (int k = 0; k < n && !found; k++) {
            if (taken[k]) continue;
            Verdict verdict = set_equal(compare, left[i], right[k]);
            if (!verdict_right(verdict)) continue;
            taken[k] = found = true;
            weakest = verdict_weaker(weakest, verdict);
        }
        if (!found) return VERDICT_DIFFERENT;
    }
    return weakest;
}

Verdict set_equal(Compare *compare, const Node *gold, const Node *answer) {
    if (node_same(gold, answer)) return VERDICT_EXACT;
    bool plain = (gold->kind == NODE_SPAN || is_pair(gold)) && (answer->kind == NODE_SPAN || is_pair(answer));
    if (plain) return spans_equal(compare, gold, answer);
    Ends ends = {.n = 0};
    ends_collect(compare, &ends, gold);
    ends_collect(compare, &ends, answer);
    if (compare->budget->over) return VERDICT_TOO_LARGE;
    if (ends.failed) return members_equal(compare, gold, answer);
    uint64_t beyond = infinite_places(compare, &ends);
    bool same = (places_of(compare, &ends, gold) & ~beyond) == (places_of(compare, &ends, answer) & ~beyond);
    if (compare->budget->over) return VERDICT_TOO_LARGE;
    return same ? VERDICT_EXACT : VERDICT_DIFFERENT;
}

int set_within(Compare *compare, const Node *a, const Node *b) {
    Ends ends = {.n = 0};
    ends_collect(compare, &ends, a);
    ends_collect(compare, &ends, b);
    if (ends.failed || compare->budget->over) return -1;
    return (places_of(compare, &ends, a) & ~places_of(compare, &ends, b)) == 0;
}

/* ---- inequalities as sets ---- */

static Node *span_of(Compare *compare, Node *low, Node *high, bool open_low, bool open_high) {
    Node *span = node_two(compare->arena, NODE_SPAN, low, high);
    span->open_left = open_low;
    span->open_right = open_high;
    return span;
}

static bool greater(Relation op) { return op == REL_GT || op == REL_GE; }
static bool strict(Relation op) { return op == REL_LT || op == REL_GT; }

static Node *without(Compare *compare, Node *value) {
    Node *infinity = node_const(compare->arena, CONST_INF), *minus = node_one(compare->arena, NODE_NEG, infinity);
    Node *set = node_two(compare->arena, NODE_SETOP, span_of(compare, minus, value, true, true),
                         span_of(compare, value, infinity, true, true));
    set->op = 'u';
    return set;
}

Node *chain_set(Compare *compare, const Node *chain) {
    if (chain->kind != NODE_CHAIN || chain->n > 3) return NULL;
    Node *infinity = node_const(compare->arena, CONST_INF), *minus = node_one(compare->arena, NODE_NEG, infinity);
    Relation op = (Relation)chain->ops[0];
    Node *left = chain->kids[0], *right = chain->kids[1];
    if (chain->n == 2) {
        if (op == REL_IN && left->kind == NODE_SYMBOL) return right;
        bool name_left = left->kind == NODE_SYMBOL, name_right = right->kind == NODE_SYMBOL;
        if (name_left == name_right || op == REL_EQ || op > REL_GE) return NULL;
        Node *value = name_left ? right : left;
        if (op == REL_NE) return without(compare, value);
        bool above = greater(op) == name_left;
        return above ? span_of(compare, value, infinity, strict(op), true)
                     : span_of(compare, minus, value, true, strict(op));
    }
    Relation second = (Relation)chain->ops[1];
    bool ordered =
        op >= REL_LT && op <= REL_GE && second >= REL_LT && second <= REL_GE && greater(op) == greater(second);
    if (!ordered || right->kind != NODE_SYMBOL) return NULL;
    Node *far = chain->kids[2];
    return greater(op) ? span_of(compare, far, left, strict(second), strict(op))
                       : span_of(compare, left, far, strict(op), strict(second));
}

/* ---- relations ---- */

static Relation flipped(Relation op) {
    switch (op) {
    case REL_LT:
        return REL_GT;
    case REL_LE:
        return REL_GE;
    case REL_GT:
        return REL_LT;
    case REL_GE:
        return REL_LE;
    default:
        return op;
    }
}

/* The sign of a constant ratio of the differences of two relations' sides: 1, -1; 2 for a complex one, 0 for none.
 */
static int ratio_sign(Compare *compare, const Node *a, const Node *b, const Node *c, const Node *d) {
    enum { PREC = 192 };
    acb_t x, y, ratio, first;
    acb_init(x);
    acb_init(y);
    acb_init(ratio);
    acb_init(first);
    int agreed = 0;
    bool differs = false;
    for (int i = 0; i < POINTS && !differs && !compare->budget->over; i++) {
        Point point = {.point = i, .prec = PREC, .complex = compare->complex, .budget = compare->budget};
        if (!ball_value(a, x, &point) || !ball_value(b, ratio, &point)) continue;
        acb_sub(x, x, ratio, PREC);
        if (!ball_value(c, y, &point) || !ball_value(d, ratio, &point)) continue;
        acb_sub(y, y, ratio, PREC);
        if (point.left && !compare->complex) continue;
        if (acb_contains_zero(x) || acb_contains_zero(y)) {
            differs = acb_contains_zero(x) != acb_contains_zero(y);
            continue;
        }
        acb_div(ratio, x, y, PREC);
        if (agreed == 0)
            acb_set(first, ratio);
        else
            differs = !acb_overlaps(first, ratio);
        agreed++;
    }
    int sign = 0;
    if (!differs && agreed >= POINTS_NEEDED) {
        bool real = arb_contains_zero(acb_imagref(first));
        sign = !real ? 2 : arb_is_positive(acb_realref(first)) ? 1 : -1;
    }
    acb_clear(x);
    acb_clear(y);
    acb_clear(ratio);
    acb_clear(first);
    return sign;
}

/* A fraction of two trees. */
typedef struct {
    Node *top, *bottom; /* bottom: NULL for 1 */
} Split;

static Node *times(Compare *compare, Node *a, Node *b) {
    return !a ? b : !b ? a : node_two(compare->arena, NODE_MUL, a, b);
}

static Split split_sum(Compare *compare, Split a, Split b) {
    Node *left = times(compare, a.top, b.bottom), *right = times(compare, b.top, a.bottom);
    return (Split){node_two(compare->arena, NODE_ADD, left, right), times(compare, a.bottom, b.bottom)};
}

/* Brings a tree over one denominator; *size bounds what is made. */
static Split split_of(Compare *compare, Node *node, int *size) {
    Split all = {node, NULL};
    if (--*size < 0) return all;
    if (node->kind == NODE_NEG) {
        all = split_of(compare, node->kids[0], size);
        all.top = node_one(compare->arena, NODE_NEG, all.top);
    } else if (node->kind == NODE_DIV) {
        Split a = split_of(compare, node->kids[0], size), b = split_of(compare, node->kids[1], size);
        all.top = times(compare, a.top, b.bottom);
        all.bottom = times(compare, a.bottom, b.top);
    } else if (node->kind == NODE_ADD || node->kind == NODE_MUL) {
        all = split_of(compare, node->kids[0], size);
        for (int i = 1; i < node->n; i++) {
            Split one = split_of(compare, node->kids[i], size);
            if (node->kind == NODE_ADD)
                all = split_sum(compare, all, one);
            else
                all = (Split){times(compare, all.top, one.top), times(compare, all.bottom, one.bottom)};
        }
    }
    return all;
}

/* The numerator of a - b. */
static Node *numerator(Compare *compare, Node *a, Node *b) {
    int size = 60;
    Split all = split_sum(compare, split_of(compare, a, &size),
                          split_of(compare, node_one(compare->arena, NODE_NEG, b), &size));
    return size < 0 || node_count(all.top) > 600 ? NULL : all.top;
}

/* xy = 3 and y = 3/x: the numerators of the differences of the sides are proportional. */
static bool numerators_equal(Compare *compare, Node *a, Node *b, Node *c, Node *d) {
    Node *left = numerator(compare, a, b), *right = numerator(compare, c, d), *zero = node_int(compare->arena, 0);
    return left && right && ratio_sign(compare, left, zero, right, zero) != 0;
}

static bool link_equal(Compare *compare, const Node *g, int i, const Node *a, int k, bool reversed) {
    Relation op = (Relation)g->ops[i], other = reversed ? flipped((Relation)a->ops[k]) : (Relation)a->ops[k];
    Node *left = a->kids[reversed ? k + 1 : k], *right = a->kids[reversed ? k : k + 1];
    if (op > REL_GE || other > REL_GE) {
        if (op != other) return false;
        return verdict_right(math_equal(compare, g->kids[i], left)) &&
               verdict_right(math_equal(compare, g->kids[i + 1], right));
    }
    if (op == other && node_same(g->kids[i], left) && node_same(g->kids[i + 1], right)) return true;
    int sign = ratio_sign(compare, g->kids[i], g->kids[i + 1], left, right);
    if (op == REL_EQ || op == REL_NE)
        return other == op && (sign != 0 || numerators_equal(compare, g->kids[i], g->kids[i + 1], left, right));
    return (sign == 1 && op == other) || (sign == -1 && op == flipped(other));
}

Verdict chain_equal(Compare *compare, const Node *gold, const Node *answer) {
    if (gold->n == answer->n) {
        for (int reversed = 0; reversed < 2; reversed++) {
            bool same = true;
            for (int i = 0; i + 1 < gold->n && same; i++)
                same = link_equal(compare, gold, i, answer, reversed ? gold->n - 2 - i : i, reversed);
            if (same) return VERDICT_SYMBOLIC;
        }
    }
    Node *g = chain_set(compare, gold), *a = chain_set(compare, answer);
    if (g && a && (gold->ops[0] == REL_IN) <= (answer->ops[0] == REL_IN)) {
        const Node *x = gold->kids[gold->n == 3 || gold->kids[0]->kind != NODE_SYMBOL],
                   *y = answer->kids[answer->n == 3 || answer->kids[0]->kind != NODE_SYMBOL];
        return node_same(x, y) ? set_equal(compare, g, a) : VERDICT_DIFFERENT;
    }
    return compare->budget->over ? VERDICT_TOO_LARGE : VERDICT_DIFFERENT;
}
