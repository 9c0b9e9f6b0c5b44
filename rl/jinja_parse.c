/* jinja_parse.c: from a template's text to a tree. The grammar is that of Jinja 3.1's lexer.py and parser.py, as
 * far as chat templates use it. */
#include "rl/jinja_parts.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DEPTH = 200 };

typedef enum { T_END, T_DATA, T_NAME, T_TEXT, T_INT, T_OP, T_BEGIN, T_CLOSE } TokenKind; /* {% {{ and %} }} */
typedef struct {
    TokenKind kind;
    int line;
    const char *p; /* of T_OP, T_BEGIN and T_CLOSE: the mark; else the text */
    size_t n;
} Token;

typedef struct {
    Jinja *jinja;
    Run run; /* for the constants' texts */
    Err *err;
    const char *at;
    int line, nested;
    bool failed, line_begins;
    char closing; /* '%' or '}' inside of a tag; 0: outside */
    int braces;   /* that are open in a tag */
    Token token;
} Parser;

static bool fail(Parser *p, const char *what, const char *text, size_t n) {
    if (!p->failed) err_set(p->err, "line %d: %s%.*s", p->token.line, what, (int)(n > 40 ? 40 : n), text);
    p->failed = true;
    p->token = (Token){.kind = T_END, .line = p->line, .p = ""};
    return false;
}

/* ---- tokens ---- */

static size_t blanks_at_end(const char *p, size_t n) {
    size_t k = 0;
    while (k < n && isspace((unsigned char)p[n - 1 - k])) k++;
    return k;
}

static void count_lines(Parser *p, const char *end) {
    for (; p->at < end; p->at++) p->line += *p->at == '\n';
}

/* What stands after a tag's end: a line end is dropped after {% %} and comments, all blanks after a dash. */
static void after_tag(Parser *p, char sign, bool block) {
    const char *from = p->at, *end = from;
    if (sign == '-')
        while (isspace((unsigned char)*end)) end++;
    else if (block && sign != '+' && *end == '\n')
        end++;
    count_lines(p, end);
    p->line_begins = end > from && end[-1] == '\n';
}

/* Text up to the next tag, without what its beginning takes away. Comments are passed over. */
static void next_data(Parser *p) {
    const char *from = p->at, *end = from;
    while (*end && !(end[0] == '{' && (end[1] == '{' || end[1] == '%' || end[1] == '#'))) end++;
    size_t n = (size_t)(end - from);
    char sign = *end ? end[2] : 0;
    if (sign == '-')
        n -= blanks_at_end(from, n);
    else if (*end && end[1] != '{' && sign != '+') {
        size_t k = n;
        while (k && (from[k - 1] == ' ' || from[k - 1] == '\t')) k--;
        if (k ? from[k - 1] == '\n' : p->line_begins) n = k;
    }
    p->token = (Token){T_DATA, p->line, from, n};
    count_lines(p, end);
    p->line_begins = false;
    if (!*end) {
        p->token.kind = n ? T_DATA : T_END;
        return;
    }
    if (end[1] == '#') {
        const char *close = strstr(end + 2, "#}");
        p->token.line = p->line;
        if (!close) {
            fail(p, "a comment does not end", "", 0);
            return;
        }
        char last = close > end + 2 ? close[-1] : 0;
        count_lines(p, close + 2);
        after_tag(p, last, true);
        return;
    }
    p->closing = end[1] == '{' ? '}' : '%';
    p->braces = 0;
    if (n) return; /* the tag is begun with the next token */
    p->at += 2 + (sign == '-' || sign == '+');
    p->token = (Token){T_BEGIN, p->line, end, 2};
}

static void next_in_tag(Parser *p) {
    static const char *const OPS[] = {"//", "**", "==", "!=", "<=", ">="};
    while (isspace((unsigned char)*p->at)) count_lines(p, p->at + 1);
    const char *s = p->at, *e = s;
    p->token = (Token){.line = p->line, .p = s, .n = 1};
    char sign = *s == '-' || *s == '+' ? *s : 0;
    if (s[sign != 0] == p->closing && s[1 + (sign != 0)] == '}' && !p->braces) {
        p->token = (Token){T_CLOSE, p->line, s + (sign != 0), 2};
        p->at += 2 + (sign != 0);
        bool block = p->closing == '%';
        p->closing = 0;
        after_tag(p, sign, block);
        return;
    }
    if (!*s) {
        fail(p, "a tag does not end", "", 0);
        return;
    }
    if (*s == '\'' || *s == '"') {
        for (e++; *e && *e != *s; e++)
            if (*e == '\\' && e[1]) e++;
        if (!*e) {
            fail(p, "a text does not end", "", 0);
            return;
        }
        p->token = (Token){T_TEXT, p->line, s + 1, (size_t)(e - s - 1)};
        count_lines(p, e + 1);
        return;
    }
    while (isalnum((unsigned char)*e) || *e == '_') e++;
    if (e > s) {
        p->token = (Token){isdigit((unsigned char)*s) ? T_INT : T_NAME, p->line, s, (size_t)(e - s)};
        p->at = e;
        return;
    }
    size_t n = 1;
    for (size_t i = 0; i < sizeof OPS / sizeof *OPS; i++)
        if (strncmp(s, OPS[i], 2) == 0) n = 2;
    if (!strchr("+-*/%~<>=!()[]{}.,:|", *s)) {
        fail(p, "the character is not understood: ", s, 1);
        return;
    }
    p->braces += *s == '{' || *s == '(' || *s == '[' ? 1 : *s == '}' || *s == ')' || *s == ']' ? -1 : 0;
    p->token = (Token){T_OP, p->line, s, n};
    p->at += n;
}

static void advance(Parser *p) {
    if (p->failed) return;
    if (p->closing && p->token.kind == T_DATA) { /* the text before this tag was the last token */
        char sign = p->at[2];
        p->token = (Token){T_BEGIN, p->line, p->at, 2};
        p->at += 2 + (sign == '-' || sign == '+');
    } else if (p->closing)
        next_in_tag(p);
    else
        next_data(p);
}

static bool is_op(const Parser *p, const char *op) {
    return p->token.kind == T_OP && p->token.n == strlen(op) && strncmp(p->token.p, op, p->token.n) == 0;
}

static bool is_name(const Parser *p, const char *name) {
    return p->token.kind == T_NAME && p->token.n == strlen(name) && strncmp(p->token.p, name, p->token.n) == 0;
}

static bool take_op(Parser *p, const char *op) {
    if (!is_op(p, op)) return false;
    advance(p);
    return true;
}

static bool take_name(Parser *p, const char *name) {
    if (!is_name(p, name)) return false;
    advance(p);
    return true;
}

static void need_op(Parser *p, const char *op) {
    if (!take_op(p, op)) fail(p, "something else is expected before: ", p->token.p, p->token.n);
}

static const char *need_name(Parser *p) {
    if (p->token.kind != T_NAME) {
        fail(p, "a name is expected before: ", p->token.p, p->token.n);
        return "";
    }
    const char *name = arena_text(&p->jinja->arena, p->token.p, p->token.n);
    advance(p);
    return name;
}

static void need_close(Parser *p) {
    if (p->token.kind != T_CLOSE) {
        fail(p, "not understood: ", p->token.p, p->token.n);
        return;
    }
    advance(p);
}

/* ---- expressions ---- */

static Node *node_new(Parser *p, NodeKind kind, Node *a, Node *b, Node *c) {
    Node *node = arena_alloc(&p->jinja->arena, 1, sizeof *node);
    *node = (Node){.kind = kind, .line = p->token.line, .a = a, .b = b, .c = c};
    const Node *parts[] = {a, b, c};
    for (int i = 0; i < 3; i++)
        if (parts[i] && parts[i]->depth >= node->depth) node->depth = parts[i]->depth + 1;
    if (node->depth > MOST_DEPTH) fail(p, "nested too deeply", "", 0);
    return node;
}

static Node *node_op(Parser *p, NodeKind kind, const char *op, Node *a, Node *b) {
    Node *node = node_new(p, kind, a, b, NULL);
    strcpy(node->op, op);
    return node;
}

static Node *expression(Parser *p);
static Node *unary(Parser *p, bool filters);

/* A Jinja string's value: its escapes are Python's. */
static Value constant_text(Parser *p) {
    Buf out = {0};
    buf_text(&out, "");
    const char *s = p->token.p, *end = s + p->token.n;
    while (s < end) {
        if (*s != '\\') {
            buf_char(&out, *s++);
            continue;
        }
        static const char FROM[] = "ntrbfva0\\'\"", TO[] = "\n\t\r\b\f\v\a\0\\'\"";
        const char *known = s[1] ? strchr(FROM, s[1]) : NULL;
        size_t digits = s[1] == 'x' ? 2 : s[1] == 'u' ? 4 : s[1] == 'U' ? 8 : 0;
        if (known && s[1] != '0')
            buf_char(&out, TO[known - FROM]);
        else if (digits && (size_t)(end - s) >= 2 + digits) {
            char hex[9] = "", *stop;
            memcpy(hex, s + 2, digits);
            unsigned long code = strtoul(hex, &stop, 16);
            if (*stop || !code || code >= RAW) fail(p, "an escape is not understood: ", s, 2 + digits);
            char_put(&out, (Char)code);
            s += digits;
        } else if (s[1] != '\n')
            buf_add(&out, s, 2); /* Python keeps what it does not know */
        s += 2;
    }
    Value value = value_text(text_new(&p->run, out.p, out.n, 0));
    buf_free(&out);
    return value;
}

/* (a, b, name=c): the values hang together by `next`, their names are `other`. */
static Node *arguments(Parser *p, const char *close) {
    Node *first = NULL, **last = &first;
    while (!p->failed && !is_op(p, close)) {
        const char *keyword = NULL;
        Node *value = expression(p);
        if (value->kind == N_NAME && take_op(p, "=")) {
            keyword = value->name;
            value = expression(p);
        }
        Node *item = node_new(p, N_BLOCK, value, NULL, NULL);
        item->other = keyword;
        *last = item, last = &item->next;
        if (!is_op(p, close)) need_op(p, ",");
    }
    need_op(p, close);
    return first;
}

static Node *dictionary(Parser *p) {
    Node *dict = node_new(p, N_DICT, NULL, NULL, NULL), **last = &dict->items;
    while (!p->failed && !is_op(p, "}")) {
        Node *key = expression(p);
        need_op(p, ":");
        Node *item = node_new(p, N_BLOCK, key, expression(p), NULL);
        *last = item, last = &item->next;
        if (!is_op(p, "}")) need_op(p, ",");
    }
    need_op(p, "}");
    return dict;
}

static Node *constant(Parser *p, Value value) {
    Node *node = node_new(p, N_CONST, NULL, NULL, NULL);
    node->value = value;
    return node;
}

static Node *name_node(Parser *p) {
    static const struct {
        const char *name;
        Value value;
    } KNOWN[] = {{"true", {V_BOOL, .i = 1}},  {"True", {V_BOOL, .i = 1}}, {"false", {V_BOOL, .i = 0}},
                 {"False", {V_BOOL, .i = 0}}, {"none", {.kind = V_NONE}}, {"None", {.kind = V_NONE}}};
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (take_name(p, KNOWN[i].name)) return constant(p, KNOWN[i].value);
    Node *node = node_new(p, N_NAME, NULL, NULL, NULL);
    node->name = need_name(p);
    return node;
}

static Node *primary(Parser *p) {
    if (p->token.kind == T_NAME) return name_node(p);
    if (p->token.kind == T_TEXT) {
        Node *node = constant(p, constant_text(p));
        for (advance(p); p->token.kind == T_TEXT; advance(p))
            node->value.text = text_joined(&p->run, node->value.text, constant_text(p).text);
        return node;
    }
    if (p->token.kind == T_INT) {
        char digits[20] = "", *stop;
        if (p->token.n < sizeof digits) memcpy(digits, p->token.p, p->token.n);
        Node *node = constant(p, value_int(strtoll(digits, &stop, 10)));
        if (*stop || !*digits || *p->at == '.') fail(p, "the number is not understood: ", p->token.p, p->token.n);
        advance(p);
        return node;
    }
    if (take_op(p, "[")) {
        Node *list = node_new(p, N_LIST, NULL, NULL, NULL);
        list->items = arguments(p, "]");
        return list;
    }
    if (take_op(p, "{")) return dictionary(p);
    if (!take_op(p, "(")) fail(p, "not understood: ", p->token.p, p->token.n);
    if (p->failed) return constant(p, value_int(0));
    Node *inner = is_op(p, ")") ? NULL : expression(p);
    if (inner && take_op(p, ")")) return inner;
    Node *tuple = node_new(p, N_LIST, NULL, NULL, NULL);
    if (inner) need_op(p, ",");
    tuple->items = node_new(p, N_BLOCK, inner, NULL, NULL);
    tuple->items->next = arguments(p, ")");
    if (!inner) tuple->items = tuple->items->next;
    return tuple;
}

static Node *subscript(Parser *p, Node *of) {
    Node *part[3] = {NULL, NULL, NULL};
    int n = 0;
    bool slice = false;
    while (!p->failed && !is_op(p, "]")) {
        if (take_op(p, ":")) {
            slice = true;
            if (++n == 3) fail(p, "a slice has too many parts", "", 0);
        } else
            part[n < 3 ? n : 2] = expression(p);
    }
    need_op(p, "]");
    Node *node = node_new(p, slice ? N_SLICE : N_INDEX, of, part[0], part[1]);
    if (slice)
        node->items = part[2];
    else if (!part[0])
        fail(p, "an index is missing", "", 0);
    return node;
}

static Node *postfix(Parser *p, Node *node) {
    for (;;) {
        if (take_op(p, ".")) {
            node = node_new(p, N_ATTR, node, NULL, NULL);
            if (p->token.kind == T_INT) fail(p, "not understood: .", p->token.p, p->token.n);
            node->name = need_name(p);
        } else if (take_op(p, "["))
            node = subscript(p, node);
        else if (take_op(p, "(")) {
            node = node_new(p, N_CALL, node, NULL, NULL);
            node->items = arguments(p, ")");
        } else
            return node;
    }
}

/* Whether a test's argument follows without brackets: `is divisibleby 3`. */
static bool bare_argument(const Parser *p) {
    static const char *const OTHER[] = {"else", "or", "and", "is", "if", "not", "in"};
    if (p->token.kind == T_NAME)
        for (size_t i = 0; i < sizeof OTHER / sizeof *OTHER; i++)
            if (is_name(p, OTHER[i])) return false;
    return p->token.kind == T_NAME || p->token.kind == T_TEXT || p->token.kind == T_INT || is_op(p, "[") ||
           is_op(p, "{");
}

static Node *filters(Parser *p, Node *node) {
    while (!p->failed) {
        bool test = is_name(p, "is");
        if (!test && !is_op(p, "|")) return node;
        advance(p);
        node = node_new(p, test ? N_TEST : N_FILTER, node, NULL, NULL);
        node->negate = test && take_name(p, "not");
        node->name = need_name(p);
        if (take_op(p, "("))
            node->items = arguments(p, ")");
        else if (test && bare_argument(p)) {
            node->items = node_new(p, N_BLOCK, NULL, NULL, NULL);
            node->items->a = postfix(p, primary(p));
        }
    }
    return node;
}

static Node *unary(Parser *p, bool with_filters) {
    Node *node;
    if (++p->nested > MOST_DEPTH) fail(p, "nested too deeply", "", 0);
    if (take_op(p, "-"))
        node = node_new(p, N_NEG, unary(p, false), NULL, NULL);
    else if (take_op(p, "+"))
        node = unary(p, false);
    else
        node = postfix(p, primary(p));
    p->nested--;
    return with_filters ? filters(p, postfix(p, node)) : node;
}

/* Operators of one rank, from the left. */
static Node *ranked(Parser *p, int rank) {
    static const char *const OPS[3][5] = {{"+", "-"}, {"~"}, {"*", "/", "//", "%"}};
    if (rank == 3) return unary(p, true);
    Node *node = ranked(p, rank + 1);
    for (int i = 0; OPS[rank][i] && !p->failed; i++)
        if (take_op(p, OPS[rank][i])) {
            node = node_op(p, N_MATH, OPS[rank][i], node, ranked(p, rank + 1));
            i = -1;
        }
    return node;
}

/* a < b; a < b < c is refused, for no template has it. */
static Node *comparison(Parser *p) {
    static const char *const OPS[] = {"==", "!=", "<=", ">=", "<", ">"};
    Node *node = ranked(p, 0), *result = NULL;
    for (size_t i = 0; i < sizeof OPS / sizeof *OPS && !result; i++)
        if (take_op(p, OPS[i])) result = node_op(p, N_COMPARE, OPS[i], node, ranked(p, 0));
    if (!result) {
        bool negate = is_name(p, "not");
        if (negate) advance(p);
        if (take_name(p, "in")) {
            result = node_op(p, N_COMPARE, "in", node, ranked(p, 0));
            result->negate = negate;
        } else if (negate)
            fail(p, "not understood: not ", p->token.p, p->token.n);
    }
    for (size_t i = 0; i < sizeof OPS / sizeof *OPS && result; i++)
        if (is_op(p, OPS[i])) fail(p, "comparisons in a row are not supported: ", OPS[i], 2);
    return result ? result : node;
}

static Node *negation(Parser *p) {
    if (!take_name(p, "not")) return comparison(p);
    if (++p->nested > MOST_DEPTH) fail(p, "nested too deeply", "", 0);
    Node *node = node_new(p, N_NOT, negation(p), NULL, NULL);
    p->nested--;
    return node;
}

static Node *conjunction(Parser *p) {
    Node *node = negation(p);
    while (take_name(p, "and")) node = node_new(p, N_AND, node, negation(p), NULL);
    return node;
}

static Node *disjunction(Parser *p) {
    Node *node = conjunction(p);
    while (take_name(p, "or")) node = node_new(p, N_OR, node, conjunction(p), NULL);
    return node;
}

static Node *expression(Parser *p) {
    if (++p->nested > MOST_DEPTH) fail(p, "nested too deeply", "", 0);
    Node *node = disjunction(p);
    while (take_name(p, "if")) {
        Node *condition = disjunction(p), *otherwise = take_name(p, "else") ? expression(p) : NULL;
        node = node_new(p, N_IF_ELSE, node, condition, otherwise);
    }
    p->nested--;
    return node;
}

/* ---- statements ---- */

/* The statements up to a tag that begins with one of these words, whose name is then the token. */
static Node *body(Parser *p, const char *const *ends);

static bool ends_here(const Parser *p, const char *const *ends) {
    for (; *ends; ends++)
        if (is_name(p, *ends)) return true;
    return false;
}

static Node *parse_if(Parser *p) {
    static const char *const ENDS[] = {"elif", "else", "endif", NULL};
    Node *node = node_new(p, N_IF, expression(p), NULL, NULL), *branch = node;
    need_close(p);
    branch->b = body(p, ENDS);
    while (take_name(p, "elif")) { /* branches hang together by c */
        Node *more = node_new(p, N_IF, expression(p), NULL, NULL);
        need_close(p);
        more->b = body(p, ENDS);
        branch->c = more, branch = more;
    }
    if (take_name(p, "else")) {
        need_close(p);
        branch->c = node_new(p, N_IF, NULL, NULL, NULL);
        branch->c->b = body(p, ENDS);
    }
    if (!take_name(p, "endif")) fail(p, "endif is expected before: ", p->token.p, p->token.n);
    return node;
}

static Node *parse_for(Parser *p) {
    static const char *const ENDS[] = {"else", "endfor", NULL};
    Node *node = node_new(p, N_FOR, NULL, NULL, NULL);
    bool tuple = take_op(p, "(");
    node->name = need_name(p);
    if (take_op(p, ",")) node->other = need_name(p);
    if (tuple) need_op(p, ")");
    if (!take_name(p, "in")) fail(p, "in is expected before: ", p->token.p, p->token.n);
    node->a = disjunction(p);
    if (take_name(p, "if")) node->items = expression(p);
    need_close(p);
    node->b = body(p, ENDS);
    if (take_name(p, "else")) {
        need_close(p);
        node->c = body(p, ENDS);
    }
    if (!take_name(p, "endfor")) fail(p, "endfor is expected before: ", p->token.p, p->token.n);
    return node;
}

static Node *parse_set(Parser *p) {
    static const char *const ENDS[] = {"endset", NULL};
    Node *node = node_new(p, N_SET, NULL, NULL, NULL);
    node->name = need_name(p);
    if (take_op(p, ".")) node->other = need_name(p);
    if (take_op(p, "=")) {
        node->a = expression(p);
        return node;
    }
    if (p->token.kind == T_CLOSE) {
        advance(p);
        node->b = body(p, ENDS);
        if (take_name(p, "endset")) return node;
    }
    fail(p, "the kind of set is not supported: ", p->token.p, p->token.n);
    return node;
}

static Node *parse_macro(Parser *p) {
    static const char *const ENDS[] = {"endmacro", NULL};
    Node *node = node_new(p, N_MACRO, NULL, NULL, NULL), **last = &node->items;
    node->name = need_name(p);
    need_op(p, "(");
    while (!p->failed && !is_op(p, ")")) {
        Node *parameter = node_new(p, N_NAME, NULL, NULL, NULL);
        parameter->name = need_name(p);
        if (take_op(p, "=")) parameter->a = expression(p);
        *last = parameter, last = &parameter->next;
        if (!is_op(p, ")")) need_op(p, ",");
    }
    need_op(p, ")");
    need_close(p);
    node->b = body(p, ENDS);
    take_name(p, "endmacro");
    if (p->token.kind == T_NAME) advance(p); /* endmacro NAME */
    return node;
}

static Node *statement(Parser *p) {
    static const char *const ENDS[] = {"endgeneration", NULL};
    static const struct {
        const char *name;
        Node *(*parse)(Parser *p);
    } KNOWN[] = {{"if", parse_if}, {"for", parse_for}, {"set", parse_set}, {"macro", parse_macro}};
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (take_name(p, KNOWN[i].name)) return KNOWN[i].parse(p);
    if (take_name(p, "break")) return node_new(p, N_BREAK, NULL, NULL, NULL);
    if (take_name(p, "continue")) return node_new(p, N_CONTINUE, NULL, NULL, NULL);
    Node *node = node_new(p, N_BLOCK, NULL, NULL, NULL);
    if (take_name(p, "generation")) { /* marks what an assistant says, for training; it renders as it stands */
        need_close(p);
        node->b = body(p, ENDS);
        take_name(p, "endgeneration");
    } else
        fail(p, "the statement is not supported: ", p->token.p, p->token.n);
    return node;
}

static Node *body(Parser *p, const char *const *ends) {
    Node *first = NULL, **last = &first;
    if (++p->nested > MOST_DEPTH) fail(p, "nested too deeply", "", 0);
    while (!p->failed && p->token.kind != T_END) {
        Node *node = NULL;
        if (p->token.kind == T_DATA) {
            node = node_new(p, N_DATA, NULL, NULL, NULL);
            node->value = value_text(text_new(&p->run, p->token.p, p->token.n, 0));
            advance(p);
        } else if (p->token.p[1] == '{') {
            advance(p);
            node = node_new(p, N_OUTPUT, expression(p), NULL, NULL);
            need_close(p);
        } else {
            advance(p);
            if (ends && ends_here(p, ends)) break;
            node = statement(p);
            need_close(p);
        }
        *last = node, last = &node->next;
    }
    if (ends && p->token.kind == T_END) fail(p, "the end is missing: ", *ends, strlen(*ends));
    p->nested--;
    return first;
}

Jinja *jinja_open(const char *source, Err *err) {
    Parser p = {.jinja = MEM_NEW(Jinja), .err = err, .line = 1, .line_begins = true};
    char *text = arena_text(&p.run.arena, source, strlen(source)), *to = text;
    for (const char *c = text; *c; c++) { /* \r\n and \r are line ends */
        if (*c == '\r')
            *to++ = '\n', c += c[1] == '\n';
        else
            *to++ = *c;
    }
    *to = 0;
    if (to > text && to[-1] == '\n') to[-1] = 0; /* Jinja drops a last line end */
    p.at = text;
    p.run.err = err;
    advance(&p);
    p.jinja->body = body(&p, NULL);
    if (p.token.kind != T_END) fail(&p, "not understood: ", p.token.p, p.token.n);
    Jinja *jinja = p.jinja;
    jinja->constants = p.run.arena;
    if (!p.failed && !p.run.failed) return jinja;
    jinja_close(jinja);
    return NULL;
}

void jinja_close(Jinja *jinja) {
    if (!jinja) return;
    arena_free(&jinja->arena);
    arena_free(&jinja->constants);
    free(jinja);
}
