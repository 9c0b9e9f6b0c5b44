/* math_fold.c: computes what trees say about matrices (sums, products, powers, determinants) and about greatest
 * common divisors and least common multiples of monomials, leaving trees without them.
 *
 * gcd and lcm of expressions are those of polynomials: of coefficients when all are whole numbers (else the
 * coefficient is 1), and of powers; whatever is no monomial is taken as a variable of its own.
 * Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include <flint/fmpz.h>

#include "reward/math_parts.h"

enum { CELLS_MAX = 64, FACTORS_MAX = 32, POWER_MAX = 16, NODES_MAX = 3000 };

typedef struct {
    Arena *arena;
    Budget *budget;
} Fold;

static bool folds(const Node *node) {
    if (node->kind == NODE_MATRIX) return true;
    if (node->kind == NODE_FN && (node->op == FN_GCD || node->op == FN_LCM || node->op == FN_DET)) return true;
    for (int i = 0; i < node->n; i++)
        if (folds(node->kids[i])) return true;
    return false;
}

/* ---- matrices ---- */

static int columns_of(const Node *matrix) { return matrix->n / matrix->rows; }

static Node *matrix_new(Fold *fold, int rows, int n, Node *const *cells) {
    Node *matrix = node_of(fold->arena, NODE_MATRIX, n, cells);
    matrix->rows = (int16_t)rows;
    return matrix;
}

static Node *rational_node(Fold *fold, const fmpq_t x);

/* Numbers as cells are computed at once, so that products of products stay small. */
static Node *cells_compute(Fold *fold, Node *matrix) {
    fmpq_t x;
    fmpq_init(x);
    for (int i = 0; i < matrix->n; i++)
        if (matrix->kids[i]->n && exact_value(matrix->kids[i], x, fold->budget))
            matrix->kids[i] = rational_node(fold, x);
    fmpq_clear(x);
    return matrix;
}

/* May cells of this many nodes be made? A cell may stand in several places, so nodes are counted, not memory. */
static bool size_allows(const Node *a, int times_a, const Node *b, int times_b) {
    int64_t size = (int64_t)times_a * node_count(a) + (b ? (int64_t)times_b * node_count(b) : 0);
    return size <= NODES_MAX;
}

static Node *cells_each(Fold *fold, const Node *matrix, NodeKind kind, Node *other, bool first) {
    Node *cells[CELLS_MAX];
    if (matrix->n > CELLS_MAX || !size_allows(matrix, 1, other, matrix->n)) return NULL;
    for (int i = 0; i < matrix->n; i++)
        cells[i] = !other  ? node_one(fold->arena, kind, matrix->kids[i])
                   : first ? node_two(fold->arena, kind, other, matrix->kids[i])
                           : node_two(fold->arena, kind, matrix->kids[i], other);
    return cells_compute(fold, matrix_new(fold, matrix->rows, matrix->n, cells));
}

static Node *matrix_add(Fold *fold, const Node *a, const Node *b) {
    Node *cells[CELLS_MAX];
    if (a->n > CELLS_MAX || a->n != b->n || a->rows != b->rows || !size_allows(a, 1, b, 1)) return NULL;
    for (int i = 0; i < a->n; i++) cells[i] = node_two(fold->arena, NODE_ADD, a->kids[i], b->kids[i]);
    return cells_compute(fold, matrix_new(fold, a->rows, a->n, cells));
}

static Node *matrix_mul(Fold *fold, const Node *a, const Node *b) {
    int rows = a->rows, inner = columns_of(a), columns = columns_of(b);
    if (inner != b->rows || rows * columns > CELLS_MAX) return NULL;
    if (!size_allows(a, columns, b, rows)) return NULL;
    Node *cells[CELLS_MAX], *terms[CELLS_MAX];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) {
            for (int k = 0; k < inner && k < CELLS_MAX; k++)
                terms[k] = node_two(fold->arena, NODE_MUL, a->kids[r * inner + k], b->kids[k * columns + c]);
            cells[r * columns + c] = node_of(fold->arena, NODE_ADD, inner, terms);
        }
    return cells_compute(fold, matrix_new(fold, rows, rows * columns, cells));
}

/* A product of scalars and matrices, left to right. */
static Node *pair_mul(Fold *fold, Node *a, Node *b) {
    if (a->kind == NODE_MATRIX && b->kind == NODE_MATRIX) {
        if (a->n > CELLS_MAX || b->n > CELLS_MAX) return NULL;
        return matrix_mul(fold, a, b);
    }
    if (a->kind == NODE_MATRIX) return cells_each(fold, a, NODE_MUL, b, false);
    if (b->kind == NODE_MATRIX) return cells_each(fold, b, NODE_MUL, a, true);
    return node_two(fold->arena, NODE_MUL, a, b);
}

static Node *pair_add(Fold *fold, Node *a, Node *b) {
    if (a->kind == NODE_MATRIX && b->kind == NODE_MATRIX) return matrix_add(fold, a, b);
    if (a->kind == NODE_MATRIX || b->kind == NODE_MATRIX) return NULL;
    return node_two(fold->arena, NODE_ADD, a, b);
}

static bool any_matrix(const Node *node) {
    for (int i = 0; i < node->n; i++)
        if (node->kids[i]->kind == NODE_MATRIX) return true;
    return false;
}

static Node *transpose(Fold *fold, const Node *matrix) {
    Node *cells[CELLS_MAX];
    if (matrix->n > CELLS_MAX) return NULL;
    int columns = columns_of(matrix);
    for (int i = 0; i < matrix->n; i++) cells[(i % columns) * matrix->rows + i / columns] = matrix->kids[i];
    return matrix_new(fold, columns, matrix->n, cells);
}

static Node *det_expand(Fold *fold, const Node *matrix);

/* The inverse of a matrix of up to 3 x 3: cofactors over the determinant. */
static Node *matrix_inverse(Fold *fold, const Node *matrix) {
    int n = matrix->rows;
    if (matrix->n != n * n || n < 2 || n > 3) return NULL;
    Node *det = det_expand(fold, matrix);
    if (!det || !size_allows(det, 12, NULL, 0)) return NULL;
    Node *cells[9], *minor[4];
    for (int i = 0; i < n * n; i++) {
        int row = i % n, column = i / n, m = 0; /* transposed */
        for (int k = 0; k < n * n; k++)
            if (k / n != row && k % n != column) minor[m++] = matrix->kids[k];
        Node *cell = det_expand(fold, matrix_new(fold, n - 1, m, minor));
        if (!cell) return NULL;
        if ((row + column) % 2) cell = node_one(fold->arena, NODE_NEG, cell);
        cells[i] = node_two(fold->arena, NODE_DIV, cell, det);
    }
    return cells_compute(fold, matrix_new(fold, n, n * n, cells));
}

static Node *matrix_power(Fold *fold, Node *matrix, const Node *power) {
    if (power->kind == NODE_SYMBOL && (!strcmp(power->text, "T") || !strcmp(power->text, "top")))
        return transpose(fold, matrix);
    if (power->kind == NODE_NEG && power->kids[0]->kind == NODE_NUMBER && !strcmp(power->kids[0]->text, "1"))
        return matrix_inverse(fold, matrix);
    if (power->kind != NODE_NUMBER || power->scale || strlen(power->text) > 2) return NULL;
    int n = 0;
    for (const char *p = power->text; *p; p++) n = 10 * n + (*p - '0');
    if (n < 1 || n > POWER_MAX) return NULL;
    Node *product = matrix;
    for (int i = 1; product && i < n; i++) product = pair_mul(fold, product, matrix);
    return product;
}

static Node *det_expand(Fold *fold, const Node *matrix) {
    int n = matrix->rows;
    if (matrix->n != n * n || n > 4 || !size_allows(matrix, 6, NULL, 0)) return NULL;
    if (n == 1) return matrix->kids[0];
    Node *terms[4], *cells[9];
    for (int c = 0; c < n; c++) {
        int m = 0;
        for (int i = n; i < n * n; i++)
            if (i % n != c) cells[m++] = matrix->kids[i];
        Node *minor = det_expand(fold, matrix_new(fold, n - 1, m, cells));
        if (!minor) return NULL;
        Node *term = node_two(fold->arena, NODE_MUL, matrix->kids[c], minor);
        terms[c] = c % 2 ? node_one(fold->arena, NODE_NEG, term) : term;
    }
    return node_of(fold->arena, NODE_ADD, n, terms);
}

/* The tree with its matrices joined, or NULL where that makes no sense (then it stays as it is). */
static Node *matrix_join(Fold *fold, Node *node) {
    bool matrix = any_matrix(node);
    if (node->kind == NODE_FN && node->op == FN_DET && matrix) return det_expand(fold, node->kids[0]);
    if (!matrix || node->n > CELLS_MAX) return NULL;
    Node *joined = node->kids[0];
    switch (node->kind) {
    case NODE_ADD:
        for (int i = 1; joined && i < node->n; i++) joined = pair_add(fold, joined, node->kids[i]);
        return joined;
    case NODE_MUL:
        for (int i = 1; joined && i < node->n; i++) joined = pair_mul(fold, joined, node->kids[i]);
        return joined;
    case NODE_NEG:
        return cells_each(fold, joined, NODE_NEG, NULL, false);
    case NODE_UNIT:
        return joined;
    case NODE_DIV:
        return joined->kind == NODE_MATRIX ? cells_each(fold, joined, NODE_DIV, node->kids[1], false) : NULL;
    case NODE_POW:
        return joined->kind == NODE_MATRIX ? matrix_power(fold, joined, node->kids[1]) : NULL;
    default:
        return NULL;
    }
}

/* ---- divisors and multiples ---- */

typedef struct {
    fmpq_t coefficient;
    int n;
    Node *base[FACTORS_MAX];
    slong power[FACTORS_MAX];
} Monomial;

static bool factor_add(Monomial *m, Node *base, slong power) {
    for (int i = 0; i < m->n; i++)
        if (node_same(m->base[i], base)) {
            m->power[i] += power;
            return true;
        }
    if (m->n == FACTORS_MAX) return false;
    m->base[m->n] = base;
    m->power[m->n++] = power;
    return true;
}

static bool monomial_read(Fold *fold, Node *node, Monomial *m) {
    fmpq_t value;
    fmpq_init(value);
    bool ok = true;
    if (exact_value(node, value, fold->budget))
        fmpq_mul(m->coefficient, m->coefficient, value);
    else if (node->kind == NODE_NEG) {
        fmpq_neg(m->coefficient, m->coefficient);
        ok = monomial_read(fold, node->kids[0], m);
    } else if (node->kind == NODE_MUL) {
        for (int i = 0; ok && i < node->n; i++) ok = monomial_read(fold, node->kids[i], m);
    } else if (node->kind == NODE_POW && exact_value(node->kids[1], value, fold->budget) &&
               fmpz_is_one(fmpq_denref(value)) && fmpz_sgn(fmpq_numref(value)) > 0 &&
               fmpz_bits(fmpq_numref(value)) < 20) {
        ok = factor_add(m, node->kids[0], fmpz_get_si(fmpq_numref(value)));
    } else
        ok = factor_add(m, node, 1);
    fmpq_clear(value);
    return ok && fmpz_bits(fmpq_numref(m->coefficient)) + fmpz_bits(fmpq_denref(m->coefficient)) < BITS_MAX / 4;
}

static void coefficients_join(Function fn, fmpq_t out, const fmpq_t a, const fmpq_t b) {
    if (!fmpz_is_one(fmpq_denref(a)) || !fmpz_is_one(fmpq_denref(b))) {
        fmpq_one(out);
        return;
    }
    fmpq_t gcd;
    fmpq_init(gcd);
    fmpq_gcd(gcd, a, b);
    if (fn == FN_GCD)
        fmpq_set(out, gcd);
    else {
        fmpq_mul(out, a, b);
        if (!fmpq_is_zero(gcd)) fmpq_div(out, out, gcd);
    }
    fmpq_clear(gcd);
}

/* The powers of gcd or lcm, into a. */
static bool monomials_join(Function fn, Monomial *a, const Monomial *b) {
    if (fn == FN_LCM) {
        for (int i = 0; i < b->n; i++) {
            int at = 0;
            while (at < a->n && !node_same(a->base[at], b->base[i])) at++;
            if (at == a->n) {
                if (!factor_add(a, b->base[i], b->power[i])) return false;
            } else if (a->power[at] < b->power[i])
                a->power[at] = b->power[i];
        }
    } else {
        for (int i = 0; i < a->n; i++) {
            int at = 0;
            while (at < b->n && !node_same(a->base[i], b->base[at])) at++;
            slong other = at < b->n ? b->power[at] : 0;
            if (a->power[i] > other) a->power[i] = other;
        }
    }
    coefficients_join(fn, a->coefficient, a->coefficient, b->coefficient);
    return true;
}

static Node *rational_node(Fold *fold, const fmpq_t x) {
    char *top = fmpz_get_str(NULL, 10, fmpq_numref(x)), *bottom = fmpz_get_str(NULL, 10, fmpq_denref(x));
    bool negative = top[0] == '-';
    Node *a = node_text(fold->arena, NODE_NUMBER, top + negative, strlen(top + negative));
    Node *b = node_text(fold->arena, NODE_NUMBER, bottom, strlen(bottom));
    flint_free(top);
    flint_free(bottom);
    Node *node = node_two(fold->arena, NODE_DIV, a, b);
    return negative ? node_one(fold->arena, NODE_NEG, node) : node;
}

static Node *monomial_node(Fold *fold, const Monomial *m) {
    Node *factors[FACTORS_MAX + 1];
    int n = 0;
    factors[n++] = rational_node(fold, m->coefficient);
    for (int i = 0; i < m->n; i++)
        if (m->power[i] == 1)
            factors[n++] = m->base[i];
        else if (m->power[i])
            factors[n++] = node_two(fold->arena, NODE_POW, m->base[i], node_int(fold->arena, m->power[i]));
    return n == 1 ? factors[0] : node_of(fold->arena, NODE_MUL, n, factors);
}

static Node *divisor_join(Fold *fold, Node *node) {
    fmpq_t value;
    fmpq_init(value);
    bool rational = exact_value(node, value, fold->budget);
    fmpq_clear(value);
    if (rational) return NULL;
    Monomial all = {.n = 0}, one = {.n = 0};
    fmpq_init(all.coefficient);
    fmpq_init(one.coefficient);
    fmpq_one(all.coefficient);
    bool ok = monomial_read(fold, node->kids[0], &all);
    for (int i = 1; ok && i < node->n; i++) {
        fmpq_one(one.coefficient);
        one.n = 0;
        ok = monomial_read(fold, node->kids[i], &one) && monomials_join((Function)node->op, &all, &one);
    }
    Node *joined = ok ? monomial_node(fold, &all) : NULL;
    fmpq_clear(all.coefficient);
    fmpq_clear(one.coefficient);
    return joined;
}

/* ---- trees ---- */

static Node *fold_node(Fold *fold, Node *node) {
    if (!folds(node)) return node;
    Node *copy = node_of(fold->arena, (NodeKind)node->kind, node->n, node->kids);
    Node **kids = copy->kids;
    *copy = *node;
    copy->kids = kids;
    for (int i = 0; i < node->n; i++) kids[i] = fold_node(fold, node->kids[i]);
    Node *joined = NULL;
    if (node->kind == NODE_FN && (node->op == FN_GCD || node->op == FN_LCM))
        joined = divisor_join(fold, copy);
    else if (node->kind != NODE_MATRIX)
        joined = matrix_join(fold, copy);
    return joined ? joined : copy;
}

Node *math_fold(Arena *arena, Budget *budget, Node *node) {
    Fold fold = {.arena = arena, .budget = budget};
    return fold_node(&fold, node);
}
