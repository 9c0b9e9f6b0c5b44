/* math_tree.c: making, comparing and printing the trees of the math judge. No mathematics here.
 * Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include "reward/math_parts.h"

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char)c >= 0x80;
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

bool text_alike(const char *a, const char *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (lower(a[i]) != lower(b[i])) return false;
        if (!a[i]) return true;
    }
    return true;
}

Node *node_new(Arena *arena, NodeKind kind) {
    Node *node = arena_alloc(arena, 1, sizeof *node);
    node->kind = (uint8_t)kind;
    node->decimals = -1;
    return node;
}

Node *node_of(Arena *arena, NodeKind kind, int n, Node *const *kids) {
    CHECK(n >= 0 && n <= INT16_MAX, "%d kids", n);
    Node *node = node_new(arena, kind);
    node->n = (int16_t)n;
    node->kids = arena_alloc(arena, n ? (size_t)n : 1, sizeof *kids);
    if (n) memcpy(node->kids, kids, (size_t)n * sizeof *kids);
    return node;
}

Node *node_one(Arena *arena, NodeKind kind, Node *kid) { return node_of(arena, kind, 1, &kid); }

Node *node_two(Arena *arena, NodeKind kind, Node *a, Node *b) {
    Node *kids[2] = {a, b};
    return node_of(arena, kind, 2, kids);
}

Node *node_fn(Arena *arena, Function fn, int n, Node *const *kids) {
    Node *node = node_of(arena, NODE_FN, n, kids);
    node->op = (uint8_t)fn;
    return node;
}

Node *node_text(Arena *arena, NodeKind kind, const char *text, size_t n) {
    Node *node = node_new(arena, kind);
    node->text = arena_text(arena, text, n);
    return node;
}

Node *node_int(Arena *arena, int64_t value) {
    Node *node = node_new(arena, NODE_NUMBER);
    node->text = arena_format(arena, "%lld", (long long)(value < 0 ? -value : value));
    return value < 0 ? node_one(arena, NODE_NEG, node) : node;
}

Node *node_const(Arena *arena, Constant constant) {
    Node *node = node_new(arena, NODE_CONST);
    node->op = (uint8_t)constant;
    return node;
}

bool node_is(const Node *node, NodeKind kind) { return node && node->kind == kind; }

int node_count(const Node *node) {
    int count = 1;
    for (int i = 0; i < node->n; i++) count += node_count(node->kids[i]);
    return count;
}

bool node_has_symbols(const Node *node) {
    if (node->kind == NODE_SYMBOL || node->kind == NODE_CALL || node->kind == NODE_BIND || node->kind == NODE_TEXT)
        return true;
    for (int i = 0; i < node->n; i++)
        if (node_has_symbols(node->kids[i])) return true;
    return false;
}

bool node_same(const Node *a, const Node *b) {
    if (a->kind != b->kind || a->op != b->op || a->n != b->n || a->rows != b->rows || a->scale != b->scale)
        return false;
    if (a->open_left != b->open_left || a->open_right != b->open_right) return false;
    if ((a->text || b->text) && (!a->text || !b->text || strcmp(a->text, b->text))) return false;
    if (a->kind == NODE_CHAIN && memcmp(a->ops, b->ops, (size_t)a->n - 1)) return false;
    for (int i = 0; i < a->n; i++)
        if (!node_same(a->kids[i], b->kids[i])) return false;
    return true;
}

bool node_letters(const Node *node, Buf *buf) {
    switch (node->kind) {
    case NODE_SYMBOL:
        buf_text(buf, node->text);
        return true;
    case NODE_TEXT:
        for (const char *p = node->text; *p; p++)
            if (is_letter(*p) || (*p >= '0' && *p <= ':')) buf_char(buf, *p);
        return buf->n > 0;
    case NODE_CONST:
        if (node->op == CONST_E)
            buf_char(buf, 'e');
        else if (node->op == CONST_I)
            buf_char(buf, 'i');
        else
            return false;
        return true;
    case NODE_MUL:
        for (int i = 0; i < node->n; i++) {
            const Node *kid = node->kids[i];
            if (i && kid->kind == NODE_NUMBER && !kid->scale)
                buf_text(buf, kid->text); /* October 30 */
            else if (!node_letters(kid, buf))
                return false;
        }
        return true;
    default:
        return false;
    }
}

/* ---- printing ---- */

static const char *const function_names[] = {
    [FN_NONE] = "?",         [FN_SQRT] = "sqrt",        [FN_ROOT] = "root",      [FN_ABS] = "abs",
    [FN_FACT] = "factorial", [FN_FACT2] = "factorial2", [FN_BINOM] = "binomial", [FN_EXP] = "exp",
    [FN_LN] = "ln",          [FN_LOG] = "log",          [FN_LG] = "log10",       [FN_SIN] = "sin",
    [FN_COS] = "cos",        [FN_TAN] = "tan",          [FN_COT] = "cot",        [FN_SEC] = "sec",
    [FN_CSC] = "csc",        [FN_ASIN] = "asin",        [FN_ACOS] = "acos",      [FN_ATAN] = "atan",
    [FN_ACOT] = "acot",      [FN_ASEC] = "asec",        [FN_ACSC] = "acsc",      [FN_SINH] = "sinh",
    [FN_COSH] = "cosh",      [FN_TANH] = "tanh",        [FN_COTH] = "coth",      [FN_SECH] = "sech",
    [FN_CSCH] = "csch",      [FN_ASINH] = "asinh",      [FN_ACOSH] = "acosh",    [FN_ATANH] = "atanh",
    [FN_ACOTH] = "acoth",    [FN_ASECH] = "asech",      [FN_ACSCH] = "acsch",    [FN_FLOOR] = "floor",
    [FN_CEIL] = "ceil",      [FN_MOD] = "mod",          [FN_GCD] = "gcd",        [FN_LCM] = "lcm",
    [FN_MAX] = "max",        [FN_MIN] = "min",          [FN_RE] = "re",          [FN_IM] = "im",
    [FN_ARG] = "arg",        [FN_CONJ] = "conj",        [FN_DET] = "det",        [FN_SGN] = "sgn",
    [FN_SUM] = "sum",        [FN_PROD] = "prod",        [FN_INT] = "int",        [FN_LIM] = "lim",
    [FN_DIFF] = "diff",
};

static const char *const constant_names[] = {
    [CONST_PI] = "pi",    [CONST_E] = "e",        [CONST_I] = "i",        [CONST_INF] = "oo",
    [CONST_EMPTY] = "{}", [CONST_NATURALS] = "N", [CONST_INTEGERS] = "Z", [CONST_RATIONALS] = "Q",
    [CONST_REALS] = "R",  [CONST_COMPLEX] = "C",
};

static const char *const relation_names[] = {
    "=", "!=", "<", "<=", ">", ">=", "in", "~", "->", "within", "contains", "?"};

enum { PRINT_MAX = 4 * TEXT_MAX };

static void kids_print(Buf *buf, const Node *node, const char *open, const char *between, const char *close) {
    buf_text(buf, open);
    for (int i = 0; i < node->n; i++) {
        if (i) buf_text(buf, between);
        if (node->kids[i]) node_print(buf, node->kids[i]);
    }
    buf_text(buf, close);
}

static void number_print(Buf *buf, const Node *node) {
    if (node->decimals > 0 && (size_t)node->decimals < strlen(node->text) && node->scale == -node->decimals) {
        size_t whole = strlen(node->text) - (size_t)node->decimals;
        buf_add(buf, node->text, whole);
        buf_char(buf, '.');
        buf_text(buf, node->text + whole);
        return;
    }
    buf_text(buf, node->text);
    if (node->scale) buf_format(buf, "e%d", node->scale);
}

static void matrix_print(Buf *buf, const Node *node) {
    int columns = node->rows ? node->n / node->rows : 0;
    buf_text(buf, "[");
    for (int i = 0; i < node->n; i++) {
        buf_text(buf, i == 0 ? "[" : i % columns == 0 ? "], [" : ", ");
        node_print(buf, node->kids[i]);
    }
    buf_text(buf, "]]");
}

static void chain_print(Buf *buf, const Node *node) {
    for (int i = 0; i < node->n; i++) {
        if (i) buf_format(buf, " %s ", relation_names[node->ops[i - 1]]);
        node_print(buf, node->kids[i]);
    }
}

void node_print(Buf *buf, const Node *node) {
    if (buf->n > PRINT_MAX) return;
    switch ((NodeKind)node->kind) {
    case NODE_NUMBER:
        number_print(buf, node);
        break;
    case NODE_SYMBOL:
        buf_text(buf, node->text);
        break;
    case NODE_CONST:
        buf_text(buf, constant_names[node->op]);
        break;
    case NODE_ADD:
        kids_print(buf, node, "(", " + ", ")");
        break;
    case NODE_MUL:
        kids_print(buf, node, "(", "*", ")");
        break;
    case NODE_DIV:
        kids_print(buf, node, "(", "/", ")");
        break;
    case NODE_POW:
        kids_print(buf, node, "(", "^", ")");
        break;
    case NODE_NEG:
        kids_print(buf, node, "-", "", "");
        break;
    case NODE_PM:
        kids_print(buf, node, node->op == '+' ? "+-(" : "-+(", ", ", ")");
        break;
    case NODE_FN:
        buf_text(buf, function_names[node->op]);
        kids_print(buf, node, "(", ", ", ")");
        break;
    case NODE_BIND:
        buf_text(buf, function_names[node->op]);
        buf_format(buf, "[%s]", node->text);
        kids_print(buf, node, "(", ", ", ")");
        break;
    case NODE_CALL:
        buf_text(buf, node->text);
        kids_print(buf, node, "(", ", ", ")");
        break;
    case NODE_PERCENT:
        kids_print(buf, node, "", "", "%");
        break;
    case NODE_DEGREE:
        kids_print(buf, node, "", "", "deg");
        break;
    case NODE_UNIT:
        kids_print(buf, node, "", "", " [");
        buf_text(buf, node->text);
        buf_char(buf, ']');
        break;
    case NODE_BASE:
        buf_format(buf, "%s_%d", node->text, node->scale);
        break;
    case NODE_RATIO:
        kids_print(buf, node, "", ":", "");
        break;
    case NODE_TEXT:
        buf_char(buf, '\'');
        buf_text(buf, node->text);
        buf_char(buf, '\'');
        break;
    case NODE_CHAIN:
        chain_print(buf, node);
        break;
    case NODE_LIST:
        kids_print(buf, node, "", ", ", "");
        break;
    case NODE_TUPLE:
        kids_print(buf, node, "(", ", ", ")");
        break;
    case NODE_SET:
        kids_print(buf, node, "{", ", ", "}");
        break;
    case NODE_SPAN:
        kids_print(buf, node, node->open_left ? "(" : "[", ", ", node->open_right ? ")" : "]");
        break;
    case NODE_SETOP:
        kids_print(buf, node, "(", node->op == 'u' ? " u " : node->op == 'n' ? " n " : " \\ ", ")");
        break;
    case NODE_MATRIX:
        matrix_print(buf, node);
        break;
    }
}
