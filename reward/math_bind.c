/* math_bind.c: what binds a variable: sums, products, integrals, limits and derivatives.
 * Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include "reward/math_reader.h"

static bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* "_{k = 1}": the variable's name in *name. The bound itself, or NULL where braces are empty. */
static bool read_bound(Reader *r, Node **bound) {
    *bound = NULL;
    Span in;
    const char *before = r->p, *p = r->p;
    while (p < r->end && *p == ' ') p++;
    if (p < r->end && *p == '{') {
        for (p++; p < r->end && *p == ' '; p++) {
        }
        if (p < r->end && *p == '}') return r->p = p + 1, true;
    }
    if (peek(r) == '{' && take_braces(r, &in)) {
        if (in.p[0] == 'i') r->bound_i = true;
        r->p = in.p;
        *bound = read_item(r);
        if (*bound && !take_char(r, '}')) reader_fail(r, "a bound does not end");
        return *bound && !r->parse->fault;
    }
    r->p = before;
    return (*bound = read_script(r)) != NULL;
}

static Node *bind_node(Reader *r, Function fn, const char *name, int n, Node *const *kids) {
    Node *node = node_of(r->arena, NODE_BIND, n, kids);
    node->op = (uint8_t)fn;
    node->text = name;
    return node;
}

static Node *read_integral(Reader *r, Node *low, Node *high) {
    bool integral = r->integral;
    const char *differential = r->differential;
    r->integral = true;
    r->differential = NULL;
    Node *body = read_sum(r);
    const char *name = r->differential ? r->differential : "x";
    r->integral = integral;
    r->differential = differential;
    if (!body) return NULL;
    Node *kids[3] = {low, high, body};
    bool definite = low && high;
    return bind_node(r, FN_INT, name, definite ? 3 : 1, definite ? kids : kids + 2);
}

Node *read_bind(Reader *r, Function fn) {
    Node *low = NULL, *high = NULL;
    if (++r->depth > DEPTH_MAX) return reader_fail(r, "nested too deeply");
    bool bound_i = r->bound_i;
    for (int i = 0; i < 2; i++) {
        if (take_char(r, '_') && !read_bound(r, &low)) return reader_fail(r, "a bound is missing");
        if (take_char(r, '^') && !read_bound(r, &high)) return reader_fail(r, "a bound is missing");
    }
    Node *node = NULL;
    if (fn == FN_INT)
        node = read_integral(r, low, high);
    else {
        bool chain = low && low->kind == NODE_CHAIN && low->n == 2 && low->kids[0]->kind == NODE_SYMBOL;
        if (!chain) return reader_fail(r, "a sum or limit without its variable");
        Node *body = read_product(r);
        if (!body) return NULL;
        Node *kids[3] = {low->kids[1], high ? high : node_text(r->arena, NODE_SYMBOL, "?", 1), body};
        if (fn == FN_LIM) kids[1] = body;
        node = bind_node(r, fn, low->kids[0]->text, fn == FN_LIM ? 2 : 3, kids);
    }
    r->bound_i = bound_i;
    r->depth--;
    return node;
}

/* What follows d or \partial in one half of a derivative; false when there is no such sign. */
static bool differential_cut(Span *s) {
    while (s->n && s->p[0] == ' ') s->p++, s->n--;
    while (s->n && s->p[s->n - 1] == ' ') s->n--;
    size_t sign = s->n && s->p[0] == 'd' ? 1 : s->n >= 8 && !memcmp(s->p, "\\partial", 8) ? 8 : 0;
    s->p += sign;
    s->n -= sign;
    while (s->n && s->p[0] == ' ') s->p++, s->n--;
    return sign != 0;
}

/* \frac{d}{dx} f and \frac{df}{dx}. */
Node *read_derivative(Reader *r) {
    const char *before = r->p;
    Span top, bottom;
    bool is = take_braces(r, &top) && take_braces(r, &bottom) && differential_cut(&top) &&
              differential_cut(&bottom) && (bottom.n == 1 || (bottom.n > 1 && bottom.p[0] == '\\')) &&
              (is_alpha(*bottom.p) || *bottom.p == '\\');
    if (!is) {
        r->p = before;
        return NULL;
    }
    Node *body = NULL;
    if (top.n) {
        Parse parse = {.arena = r->arena, .reading = r->parse->reading};
        body = r->depth < DEPTH_MAX / 2 ? math_parse(&parse, top.p, top.n) : NULL;
    } else if (at_atom(r))
        body = read_product(r);
    if (!body) return reader_fail(r, "a derivative of nothing");
    return bind_node(r, FN_DIFF, arena_text(r->arena, bottom.p, bottom.n), 1, &body);
}

bool at_differential(Reader *r) {
    const char *before = r->p, *differential = r->differential;
    bool is = take_differential(r);
    r->p = before;
    r->differential = differential;
    return is;
}

bool take_differential(Reader *r) {
    if (!r->integral || r->differential) return false;
    Span word = peek_word(r);
    if (!word.n || *word.p != 'd' || word.n > 2) return false;
    const char *before = r->p;
    r->p++;
    Span name = word.n == 2 ? (Span){word.p + 1, 1} : peek_command(r);
    if (word.n == 1 && !name.n) name = peek_word(r).n == 1 ? (Span){r->p, 1} : (Span){r->p, 0};
    if (!name.n) {
        r->p = before;
        return false;
    }
    r->differential = arena_text(r->arena, name.p, name.n);
    r->p = name.p + name.n;
    return true;
}
