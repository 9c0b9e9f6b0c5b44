/* math_equal.c: compares two answers type by type: names and their values, lists, tuples, sets, matrices.
 *
 * Order matters in tuples and matrices, not in sets and bare lists. Which reading of an ambiguous form counts:
 *   (a, b) is a point or an open interval, whichever the other side is;
 *   "x = 3" and "3" agree, "x = 3" and "y = 3" don't; of a chain of equations the last part counts;
 *   an inequality as the gold answer agrees with its interval, but an inequality is no answer where an interval or
 *   number is asked (a question's own inequality, echoed, must not count).
 * Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include "reward/math_parts.h"

enum { ITEMS_MAX = 64, SIGNS_MAX = 4 };

/* ---- plus-minus ---- */

static bool has_pm(const Node *node) {
    if (node->kind == NODE_PM) return true;
    for (int i = 0; i < node->n; i++)
        if (has_pm(node->kids[i])) return true;
    return false;
}

/* The tree with every plus-minus resolved: all take the upper sign, or all the lower one. */
static Node *pm_resolve(Arena *arena, Node *node, bool upper) {
    if (!node->n) return node;
    Node *copy = node_of(arena, (NodeKind)node->kind, node->n, node->kids);
    Node **kids = copy->kids;
    bool same = node->kind != NODE_PM;
    for (int i = 0; i < node->n; i++) {
        kids[i] = pm_resolve(arena, node->kids[i], upper);
        same = same && kids[i] == node->kids[i];
    }
    if (same) return node;
    *copy = *node;
    copy->kids = kids;
    if (node->kind != NODE_PM) return copy;
    bool plus = (node->op == '+') == upper;
    Node *last = plus ? kids[node->n - 1] : node_one(arena, NODE_NEG, kids[node->n - 1]);
    return node->n == 1 ? last : node_two(arena, NODE_ADD, kids[0], last);
}

static bool holds_items(const Node *node) { return node->kind == NODE_LIST || node->kind == NODE_SET; }

/* Spreads plus-minus over two items; other trees stay. */
static Node *pm_spread(Arena *arena, Node *node) {
    if (!has_pm(node)) return node;
    if (node->kind == NODE_CHAIN) {
        Node *copy = node_of(arena, NODE_CHAIN, node->n, node->kids);
        copy->ops = node->ops;
        copy->kids[node->n - 1] = pm_spread(arena, node->kids[node->n - 1]);
        return copy;
    }
    Node *items[ITEMS_MAX];
    int n = 0;
    int count = holds_items(node) ? node->n : 1;
    for (int i = 0; i < count; i++) {
        Node *item = holds_items(node) ? node->kids[i] : node;
        if (n + 2 > ITEMS_MAX) return node;
        items[n++] = pm_resolve(arena, item, true);
        if (has_pm(item)) items[n++] = pm_resolve(arena, item, false);
    }
    return node_of(arena, node->kind == NODE_SET ? NODE_SET : NODE_LIST, n, items);
}

/* ---- names ---- */

/* May this stand left of an equal sign as the name of what is asked? x, AB, f(x), |AB|, A:B, (p, q), a text. */
static bool is_name(const Node *node) {
    switch ((NodeKind)node->kind) {
    case NODE_SYMBOL:
    case NODE_CALL:
    case NODE_TEXT:
        return true;
    case NODE_CONST:
        return node->op == CONST_E || node->op == CONST_I;
    case NODE_FN:
        return node->n == 1 && (node->op == FN_ABS || node->op == FN_MAX || node->op == FN_MIN) &&
               is_name(node->kids[0]);
    case NODE_MUL:
    case NODE_TUPLE:
    case NODE_RATIO:
    case NODE_DIV:
        for (int i = 0; i < node->n; i++)
            if (!is_name(node->kids[i])) return false;
        return true;
    default:
        return false;
    }
}

static bool chain_of(const Node *node, Relation op, Relation also) {
    if (node->kind != NODE_CHAIN) return false;
    for (int i = 0; i < node->n - 1; i++)
        if (node->ops[i] != op && node->ops[i] != also) return false;
    return true;
}

static bool is_assignment(const Node *node) { return chain_of(node, REL_EQ, REL_IN) && is_name(node->kids[0]); }
static const Node *last_of(const Node *chain) { return chain->kids[chain->n - 1]; }

/* "2 = x" is "x = 2". */
static const Node *name_first(Arena *arena, const Node *node) {
    if (node->kind != NODE_CHAIN || node->n != 2 || node->ops[0] != REL_EQ) return node;
    if (is_name(node->kids[0]) || node_has_symbols(node->kids[0]) || !is_name(node->kids[1])) return node;
    Node *chain = node_two(arena, NODE_CHAIN, node->kids[1], node->kids[0]);
    chain->ops = node->ops;
    return chain;
}

/* a < x < b as the list of a < x and x < b. */
static Node *chain_links(Arena *arena, const Node *chain) {
    Node *links[16];
    int n = chain->n - 1;
    for (int i = 0; i < n; i++) {
        links[i] = node_two(arena, NODE_CHAIN, chain->kids[i], chain->kids[i + 1]);
        links[i]->ops = chain->ops + i;
    }
    return node_of(arena, NODE_LIST, n, links);
}

static bool all_chains(const Node *list) {
    for (int i = 0; list->kind == NODE_LIST && i < list->n; i++)
        if (list->kids[i]->kind != NODE_CHAIN) return false;
    return list->kind == NODE_LIST;
}

/* Cuts an approximation off: "sqrt(3)/3 ~ 0.577" is its left part, "x ~ 3.1" is an assignment. */
static const Node *about_cut(Arena *arena, const Node *node) {
    if (node->kind != NODE_CHAIN) return node;
    int keep = 1;
    while (keep < node->n && node->ops[keep - 1] != REL_ABOUT) keep++;
    if (keep == node->n) return node;
    if (keep == 1 && !is_name(node->kids[0])) return node->kids[0];
    int n = keep == 1 ? 2 : keep;
    Node *chain = node_of(arena, NODE_CHAIN, n, node->kids);
    uint8_t *ops = arena_alloc(arena, (size_t)n, 1);
    memset(ops, REL_EQ, (size_t)n);
    if (keep > 1) memcpy(ops, node->ops, (size_t)n - 1);
    chain->ops = ops;
    return chain;
}

/* The same function with another variable: f(x) = ... and f(t) = ... */
static Node *renamed(Arena *arena, const Node *node, const char *from, const char *to) {
    if (node->kind == NODE_SYMBOL && !strcmp(node->text, from))
        return node_text(arena, NODE_SYMBOL, to, strlen(to));
    if (!node->n) return (Node *)node;
    Node *copy = node_of(arena, (NodeKind)node->kind, node->n, node->kids);
    Node **kids = copy->kids;
    *copy = *node;
    copy->kids = kids;
    for (int i = 0; i < node->n; i++) kids[i] = renamed(arena, node->kids[i], from, to);
    return copy;
}

static bool same_call(const Node *a, const Node *b) {
    return a->kind == NODE_CALL && b->kind == NODE_CALL && a->n == 1 && b->n == 1 && !strcmp(a->text, b->text) &&
           a->kids[0]->kind == NODE_SYMBOL && b->kids[0]->kind == NODE_SYMBOL && !strchr(a->text, '_');
}

static Verdict named_equal(Compare *compare, const Node *gold, const Node *answer) {
    const Node *g = gold->kids[0], *a = answer->kids[0], *value = last_of(answer);
    if (same_call(g, a))
        value = renamed(compare->arena, value, a->kids[0]->text, g->kids[0]->text);
    else if (!node_same(g, a) && !(g->kind == NODE_TEXT || a->kind == NODE_TEXT))
        return VERDICT_DIFFERENT;
    return math_equal(compare, last_of(gold), value);
}

/* ---- items ---- */

static Verdict ordered_equal(Compare *compare, const Node *gold, const Node *answer) {
    if (gold->n != answer->n) return VERDICT_DIFFERENT;
    Verdict weakest = VERDICT_EXACT;
    bool unknown = false;
    compare->inside++;
    for (int i = 0; i < gold->n; i++) {
        Verdict verdict = math_equal(compare, gold->kids[i], answer->kids[i]);
        if (verdict == VERDICT_DIFFERENT) return compare->inside--, VERDICT_DIFFERENT;
        unknown |= verdict == VERDICT_TOO_LARGE;
        weakest = verdict_weaker(weakest, verdict);
    }
    compare->inside--;
    return unknown ? VERDICT_TOO_LARGE : weakest;
}

/* The list without items that are written alike: a set has each element once. */
static const Node *repeats_dropped(Arena *arena, const Node *list) {
    if (list->n > ITEMS_MAX) return list;
    Node *kept[ITEMS_MAX];
    int n = 0;
    for (int i = 0; i < list->n; i++) {
        bool again = false;
        for (int k = 0; k < n; k++) again |= node_same(kept[k], list->kids[i]);
        if (!again) kept[n++] = list->kids[i];
    }
    return n == list->n ? list : node_of(arena, (NodeKind)list->kind, n, kept);
}

static Verdict unordered_equal(Compare *compare, const Node *gold, const Node *answer) {
    if (repeats_dropped(compare->arena, gold) == gold) answer = repeats_dropped(compare->arena, answer);
    if (gold->n != answer->n || gold->n > ITEMS_MAX)
        return gold->n > ITEMS_MAX && gold->n == answer->n ? ordered_equal(compare, gold, answer)
                                                           : VERDICT_DIFFERENT;
    bool taken[ITEMS_MAX] = {false};
    Verdict weakest = VERDICT_EXACT;
    bool unknown = false;
    for (int i = 0; i < gold->n; i++) {
        bool found = false;
        for (int k = 0; k < gold->n && !found; k++) {
            int at = (i + k) % gold->n; /* the usual order first */
            if (taken[at]) continue;
            Verdict verdict = math_equal(compare, gold->kids[i], answer->kids[at]);
            unknown |= verdict == VERDICT_TOO_LARGE;
            if (!verdict_right(verdict)) continue;
            taken[at] = found = true;
            weakest = verdict_weaker(weakest, verdict);
        }
        if (!found) return unknown ? VERDICT_TOO_LARGE : VERDICT_DIFFERENT;
    }
    return weakest;
}

static Node *values_of(Arena *arena, const Node *list) {
    Node *values = node_of(arena, NODE_LIST, list->n, list->kids);
    for (int i = 0; i < list->n; i++)
        if (is_assignment(list->kids[i])) values->kids[i] = (Node *)last_of(list->kids[i]);
    return values;
}

/* The letter that a name begins with: x_1 and x_2 have the same. */
static const char *name_stem(const Node *name) {
    return name->kind == NODE_CALL || name->kind == NODE_SYMBOL ? name->text : "";
}

/* 1 when all items are assignments to one name (or to one name with indices), 2 when to several, else 0. */
static int names_of(const Node *list) {
    int kind = 1;
    for (int i = 0; i < list->n; i++) {
        if (!is_assignment(list->kids[i])) return 0;
        const Node *first = list->kids[0]->kids[0], *name = list->kids[i]->kids[0];
        bool indexed =
            name->kind == NODE_CALL && first->kind == NODE_CALL && !strcmp(name_stem(first), name_stem(name));
        if (!node_same(first, name) && !indexed) kind = 2;
    }
    return kind;
}

/* Bare lists: named values match by name, values of one name in any order. */
static Verdict lists_equal(Compare *compare, const Node *gold, const Node *answer) {
    int g = names_of(gold), a = names_of(answer);
    if (g && a && !(g == 1 && a == 1)) return unordered_equal(compare, gold, answer);
    if (g || a) {
        Node *left = g ? values_of(compare->arena, gold) : (Node *)gold,
             *right = a ? values_of(compare->arena, answer) : (Node *)answer;
        return g == 2 || a == 2 ? ordered_equal(compare, left, right) : unordered_equal(compare, left, right);
    }
    return unordered_equal(compare, gold, answer);
}

/* ---- intervals and matrices ---- */

static bool is_pair(const Node *node) { return node->kind == NODE_TUPLE && node->n == 2; }

static bool is_set_like(const Node *node) {
    if (node->kind == NODE_CONST) return node->op >= CONST_EMPTY;
    return node->kind == NODE_SPAN || node->kind == NODE_SETOP || node->kind == NODE_SET;
}

static Verdict matrix_equal(Compare *compare, const Node *gold, const Node *answer) {
    if (gold->kind == NODE_MATRIX && answer->kind == NODE_MATRIX)
        return gold->rows == answer->rows ? ordered_equal(compare, gold, answer) : VERDICT_DIFFERENT;
    const Node *matrix = gold->kind == NODE_MATRIX ? gold : answer,
               *tuple = gold->kind == NODE_MATRIX ? answer : gold;
    bool vector = matrix->rows == 1 || matrix->rows == matrix->n;
    return vector && tuple->kind == NODE_TUPLE ? ordered_equal(compare, gold, answer) : VERDICT_DIFFERENT;
}

static bool is_relation(const Node *node) { return node->kind == NODE_CHAIN && !is_assignment(node); }

static bool is_inequality(const Node *node) {
    if (node->kind != NODE_CHAIN) return false;
    for (int i = 0; i < node->n - 1; i++)
        if (node->ops[i] == REL_EQ || node->ops[i] >= REL_IN) return false;
    return true;
}

/* A union of the intervals that a list of inequalities describes: "x < 3 or x > 5". */
static Node *inequalities_set(Compare *compare, const Node *node) {
    if (node->kind == NODE_CHAIN) return chain_set(compare, node);
    if (node->kind != NODE_LIST) return NULL;
    Node *all = NULL;
    for (int i = 0; i < node->n; i++) {
        if (!is_inequality(node->kids[i])) return NULL;
        Node *set = chain_set(compare, node->kids[i]);
        if (!set) return NULL;
        if (all) {
            all = node_two(compare->arena, NODE_SETOP, all, set);
            all->op = 'u';
        } else
            all = set;
    }
    return all;
}

static Verdict relation_against(Compare *compare, const Node *gold, const Node *answer) {
    if (is_set_like(answer) || is_pair(answer)) {
        Node *set = inequalities_set(compare, gold);
        return set ? set_equal(compare, set, answer) : VERDICT_DIFFERENT;
    }
    return VERDICT_DIFFERENT;
}

/* ---- the order of questions ---- */

static Verdict collections_equal(Compare *compare, const Node *g, const Node *a) {
    if (g->kind == NODE_MATRIX || a->kind == NODE_MATRIX) return matrix_equal(compare, g, a);
    if (g->kind == NODE_SETOP || a->kind == NODE_SETOP || g->kind == NODE_SPAN || a->kind == NODE_SPAN)
        return set_equal(compare, g, a);
    if (g->kind == NODE_LIST && a->kind == NODE_LIST) return lists_equal(compare, g, a);
    bool bare = g->kind == NODE_LIST || a->kind == NODE_LIST;
    if (g->kind == NODE_TUPLE || a->kind == NODE_TUPLE) {
        if (g->kind != a->kind && bare && (names_of(g) || names_of(a)))
            return ordered_equal(compare, values_of(compare->arena, g), values_of(compare->arena, a));
        return ordered_equal(compare, g, a);
    }
    return bare ? lists_equal(compare, g, a) : unordered_equal(compare, g, a);
}

static bool is_collection(const Node *node) {
    return node->kind == NODE_LIST || node->kind == NODE_SET || node->kind == NODE_TUPLE ||
           node->kind == NODE_SPAN || node->kind == NODE_SETOP || node->kind == NODE_MATRIX;
}

/* A list of letters and a text: "A, B" against "\text{A, B}" has been parsed alike; here only scalars are left. */
static Verdict scalar_collection(Compare *compare, const Node *g, const Node *a) {
    const Node *collection = is_collection(g) ? g : a, *scalar = is_collection(g) ? a : g;
    if (collection->kind == NODE_SET && collection->n == 1)
        return collection == g ? math_equal(compare, collection->kids[0], scalar)
                               : math_equal(compare, scalar, collection->kids[0]);
    if (collection != a || a->kind != NODE_LIST) return VERDICT_DIFFERENT;
    Verdict weakest = VERDICT_EXACT; /* "1/2 or 0.5": one value in several forms */
    for (int i = 0; i < a->n; i++) {
        Verdict verdict = math_equal(compare, g, a->kids[i]);
        if (!verdict_right(verdict)) return VERDICT_DIFFERENT;
        weakest = verdict_weaker(weakest, verdict);
    }
    return weakest;
}

static Verdict assigned_equal(Compare *compare, const Node *g, const Node *a) {
    if (is_assignment(g) && is_assignment(a)) {
        Verdict verdict = named_equal(compare, g, a);
        if (verdict != VERDICT_DIFFERENT || g->n != 2 || a->n != 2) return verdict;
        return chain_equal(compare, g, a);
    }
    if (g->kind == NODE_CHAIN && a->kind == NODE_CHAIN) return chain_equal(compare, g, a);
    if (is_assignment(g)) return math_equal(compare, last_of(g), a);
    if (g->kind == NODE_CHAIN) {
        if (chain_of(g, REL_EQ, REL_EQ) && !node_has_symbols(g))
            return math_equal(compare, last_of(g), a); /* 0.56 = 56% */
        return relation_against(compare, g, a);
    }
    if (is_relation(a) && !chain_of(a, REL_EQ, REL_IN)) return VERDICT_DIFFERENT;
    const Node *value = last_of(a); /* "a + b = 9" says 9, but "2x - y = 0" is an equation */
    if (is_relation(a) && node_has_symbols(a) && value->kind == NODE_NUMBER && !strcmp(value->text, "0"))
        return VERDICT_DIFFERENT;
    return math_equal(compare, g, last_of(a));
}

static Verdict equal_unspread(Compare *compare, const Node *g, const Node *a) {
    if (node_same(g, a)) return VERDICT_EXACT;
    if (compare->budget->over) return VERDICT_TOO_LARGE;
    if (g->kind == NODE_CHAIN && all_chains(a) && g->n == a->n + 1)
        return unordered_equal(compare, chain_links(compare->arena, g), a);
    if (a->kind == NODE_CHAIN && all_chains(g) && a->n == g->n + 1)
        return unordered_equal(compare, g, chain_links(compare->arena, a));
    if (g->kind == NODE_CHAIN || a->kind == NODE_CHAIN) {
        if (g->kind == NODE_CHAIN && a->kind == NODE_LIST && !is_assignment(g)) return VERDICT_DIFFERENT;
        if (g->kind == NODE_LIST && a->kind == NODE_CHAIN && names_of(g) == 0 && is_assignment(a))
            return math_equal(compare, g, last_of(a));
        return assigned_equal(compare, g, a);
    }
    if (g->kind == NODE_LIST && (is_set_like(a) || is_pair(a)) && g->n > 0 && is_inequality(g->kids[0]))
        return relation_against(compare, g, a);
    if (is_collection(g) && is_collection(a)) return collections_equal(compare, g, a);
    if (g->kind == NODE_TEXT && a->kind == NODE_TEXT) return value_equal(compare, g, a);
    bool named_set =
        (g->kind == NODE_CONST && g->op >= CONST_EMPTY) || (a->kind == NODE_CONST && a->op >= CONST_EMPTY);
    if (named_set && (is_set_like(g) || is_pair(g)) && (is_set_like(a) || is_pair(a)))
        return set_equal(compare, g, a);
    if (named_set) return VERDICT_DIFFERENT;
    if (is_collection(g) || is_collection(a)) return scalar_collection(compare, g, a);
    return value_equal(compare, g, a);
}

/* Words that name a set: "all real numbers", "no solution". */
static const Node *words_meaning(Arena *arena, const Node *node) {
    static const struct {
        const char *words;
        Constant set;
    } rows[] = {{"allrealnumbers", CONST_REALS},  {"allreals", CONST_REALS},    {"realnumbers", CONST_REALS},
                {"nosolution", CONST_EMPTY},      {"nosolutions", CONST_EMPTY}, {"norealsolution", CONST_EMPTY},
                {"norealsolutions", CONST_EMPTY}, {"emptyset", CONST_EMPTY}};
    if (node->kind != NODE_TEXT && node->kind != NODE_MUL) return node;
    Buf buf = {0};
    const Node *meaning = node;
    if (node_letters(node, &buf))
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
            if (buf.n == strlen(rows[i].words) && text_alike(buf.p, rows[i].words, buf.n))
                meaning = node_const(arena, rows[i].set);
    buf_free(&buf);
    return meaning;
}

/* "\{1\} \subset \{1, 2\}" against "True". */
static const Node *truth_of(Compare *compare, const Node *node, const Node *other) {
    bool asked =
        other->kind == NODE_TEXT && (text_alike(other->text, "true", 5) || text_alike(other->text, "false", 6));
    if (!asked || node->kind != NODE_CHAIN || node->n != 2) return node;
    bool within = node->ops[0] == REL_SUBSET;
    if (!within && node->ops[0] != REL_SUPSET) return node;
    int truth = set_within(compare, node->kids[!within], node->kids[within]);
    if (truth < 0) return node;
    return truth ? node_text(compare->arena, NODE_TEXT, "True", 4)
                 : node_text(compare->arena, NODE_TEXT, "False", 5);
}

Verdict math_equal(Compare *compare, const Node *gold, const Node *answer) {
    Arena *arena = compare->arena;
    while (gold->kind == NODE_UNIT && is_collection(gold->kids[0])) gold = gold->kids[0];
    while (answer->kind == NODE_UNIT && is_collection(answer->kids[0])) answer = answer->kids[0];
    gold = words_meaning(arena, gold);
    answer = words_meaning(arena, answer);
    gold = truth_of(compare, gold, answer);
    answer = truth_of(compare, answer, gold);
    const Node *g = about_cut(arena, pm_spread(arena, (Node *)gold)),
               *a = about_cut(arena, pm_spread(arena, (Node *)answer));
    return equal_unspread(compare, name_first(arena, g), name_first(arena, a));
}
