/* math_group.c: brackets, absolute values and environments of the math parser.
 * Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include "reward/math_reader.h"

/* What of the reader's state a bracket hides from its inside. */
typedef struct {
    int brackets, bars;
    bool commas, integral;
    const char *differential;
} Outside;

static Outside bracket_open(Reader *r) {
    Outside outside = {r->brackets, r->bars, r->commas, r->integral, r->differential};
    r->brackets++;
    r->bars = 0;
    r->commas = false;
    r->integral = false;
    r->differential = NULL;
    return outside;
}

static void bracket_close(Reader *r, Outside outside) {
    r->brackets = outside.brackets;
    r->bars = outside.bars;
    r->commas = outside.commas;
    r->integral = outside.integral;
    r->differential = outside.differential;
}

/* \{ x : x > 3 \}: the condition stands for the set. */
static Node *set_condition(Reader *r) {
    const char *before = r->p;
    if (!take_command(r, "mid") && !take_char(r, '|') && !take_char(r, ':')) {
        r->p = before;
        return NULL;
    }
    return read_list(r);
}

/* Skips the name in \{ x | x > 3 \} or \{ x \in R : ... \}; false when this is no such set. */
static bool builder_name(Reader *r) {
    const char *before = r->p;
    Span name = peek_word(r), in;
    bool is = name.n == 1;
    if (is) {
        r->p++;
        if (take_command(r, "in") && !(take_command(r, "mathbb") && take_braces(r, &in))) is = false;
        is = is && (peek(r) == '|' || peek(r) == ':' || at_command(r, "mid"));
    }
    if (!is) r->p = before;
    return is;
}

static Node *read_curly(Reader *r) {
    r->p += 2; /* \{ */
    skip_blank(r);
    if (r->end - r->p >= 2 && r->p[0] == '\\' && r->p[1] == '}') {
        r->p += 2;
        return node_const(r->arena, CONST_EMPTY);
    }
    Outside outside = bracket_open(r);
    Node *in = builder_name(r) ? set_condition(r) : read_list(r);
    if (!in) return NULL;
    Node *condition = in->kind == NODE_CHAIN ? in : set_condition(r);
    skip_blank(r);
    if (r->end - r->p < 2 || r->p[0] != '\\' || r->p[1] != '}') return reader_fail(r, "\\} expected");
    r->p += 2;
    bracket_close(r, outside);
    if (condition) return condition;
    if (in->kind == NODE_CHAIN && in->n == 2 && in->ops[0] == REL_OTHER) return in->kids[1]; /* x \mid x > 3 */
    if (in->kind == NODE_CHAIN && in->n > 2 && in->ops[0] == REL_OTHER) {
        Node *chain = node_of(r->arena, NODE_CHAIN, in->n - 1, in->kids + 1);
        chain->ops = in->ops + 1;
        return chain;
    }
    if (in->kind == NODE_LIST) return node_of(r->arena, NODE_SET, in->n, in->kids);
    return node_one(r->arena, NODE_SET, in);
}

static Node *span_node(Reader *r, const Node *in, bool open_left, bool open_right) {
    Node *node = node_two(r->arena, NODE_SPAN, in->kids[0], in->kids[1]);
    node->open_left = open_left;
    node->open_right = open_right;
    return node;
}

Node *read_bracket(Reader *r) {
    char open = peek(r);
    if (open == '\\') return read_curly(r);
    r->p++;
    Outside outside = bracket_open(r);
    Node *in = read_list(r);
    if (!in) return NULL;
    char close = peek(r);
    if (close != ')' && close != ']') return reader_fail(r, "a bracket does not close");
    r->p++;
    bracket_close(r, outside);
    if (in->kind != NODE_LIST) {
        if ((open == '(') != (close == ')')) return reader_fail(r, "a bracket closes with another kind");
        in->grouped = true;
        return in;
    }
    if (in->n == 2 && (open == '[' || close == ']')) return span_node(r, in, open == '(', close == ')');
    if ((open == '(') != (close == ')')) return reader_fail(r, "a bracket closes with another kind");
    return node_of(r->arena, NODE_TUPLE, in->n, in->kids);
}

/* After an opening bar, floor or the like: reads up to its end, a command's name or "|". */
Node *read_bars(Reader *r, const char *close) {
    Outside outside = bracket_open(r);
    r->bars = *close == '|';
    Node *in = read_list(r);
    if (!in) return NULL;
    bool closed = *close == '|' ? take_char(r, '|') : take_command(r, close);
    if (!closed) return reader_fail(r, "an absolute value or rounding does not close");
    bracket_close(r, outside);
    return in;
}

/* ---- environments ---- */

enum { ENTRIES_MAX = 400 };

static bool take_row_end(Reader *r) {
    skip_blank(r);
    if (r->end - r->p < 2 || r->p[0] != '\\' || r->p[1] != '\\') return false;
    r->p += 2;
    if (r->p < r->end && *r->p == '[') { /* \\[2mm] */
        const char *close = memchr(r->p, ']', (size_t)(r->end - r->p));
        if (close && close - r->p < 8) r->p = close + 1;
    }
    return true;
}

static bool at_end(Reader *r) { return at_command(r, "end"); }

static Node *read_matrix(Reader *r) {
    Node *entries[ENTRIES_MAX];
    int n = 0, columns = -1, row = 0, rows = 0;
    while (!at_end(r)) {
        if (n == ENTRIES_MAX) return reader_fail(r, "a matrix with too many entries");
        Node *entry = read_item(r);
        if (!entry) return NULL;
        entries[n++] = entry;
        row++;
        if (take_char(r, '&')) continue;
        bool ended = take_row_end(r);
        if (!ended && !at_end(r)) return reader_fail(r, "a matrix entry is not understood");
        if (columns >= 0 && row != columns) return reader_fail(r, "rows of different lengths");
        columns = row;
        row = 0;
        rows++;
    }
    if (!n || row) return reader_fail(r, "an empty matrix");
    Node *matrix = node_of(r->arena, NODE_MATRIX, n, entries);
    matrix->rows = (int16_t)rows;
    return matrix;
}

/* Rows of equations or of cases: a list, its & without meaning. */
static Node *read_rows(Reader *r) {
    Node *items[64];
    int n = 0;
    while (!at_end(r)) {
        if (n == 64) return reader_fail(r, "too many rows");
        if (take_row_end(r)) continue;
        Node *item = read_item(r);
        if (!item) return NULL;
        items[n++] = item;
        while (at_separator(r, true)) {
        }
        if (!take_row_end(r) && !at_end(r) && !at_atom(r)) return reader_fail(r, "a row is not understood");
    }
    if (!n) return reader_fail(r, "an empty environment");
    return n == 1 ? items[0] : node_of(r->arena, NODE_LIST, n, items);
}

Node *read_environment(Reader *r) {
    Span name, other;
    if (!take_command(r, "begin") || !take_braces(r, &name)) return reader_fail(r, "\\begin without a name");
    if (++r->depth > DEPTH_MAX) return reader_fail(r, "nested too deeply");
    bool matrix = memmem(name.p, name.n, "matrix", 6) || memmem(name.p, name.n, "array", 5);
    bool array = memmem(name.p, name.n, "array", 5);
    Outside outside = bracket_open(r);
    bool before = r->matrix, rows = r->rows;
    r->matrix = true;
    r->rows = !matrix;
    if (array) take_braces(r, &other);
    Node *in = matrix ? read_matrix(r) : read_rows(r);
    if (!in) return NULL;
    r->matrix = before;
    r->rows = rows;
    bracket_close(r, outside);
    r->depth--;
    if (!take_command(r, "end") || !take_braces(r, &other)) return reader_fail(r, "\\end without a name");
    if (name.n == 7 && !memcmp(name.p, "vmatrix", 7)) return node_fn(r->arena, FN_DET, 1, &in);
    return in;
}
