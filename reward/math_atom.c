/* math_atom.c: atoms of the math grammar (symbols, functions, fractions, sums over a range, words) and what stands
 * behind them: powers, subscripts, factorials, primes, percent and degree signs.
 * Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include "reward/math_reader.h"

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

static bool span_is(Span s, const char *text) { return s.n == strlen(text) && !memcmp(s.p, text, s.n); }

static bool span_in(Span s, const char *const *list) {
    for (; *list; list++)
        if (span_is(s, *list)) return true;
    return false;
}

/* ---- where an atom can begin ---- */

static const char *const no_atoms[] = {
    "cdot",
    "times",
    "div",
    "ast",
    "star",
    "mod",
    "bmod",
    "pmod",
    "pm",
    "mp",
    "cup",
    "cap",
    "bigcup",
    "bigcap",
    "setminus",
    "backslash",
    "end",
    "rfloor",
    "rceil",
    "rangle",
    "rvert",
    "rVert",
    "choose",
    "mid",
    "over",
    "le",
    "leq",
    "leqslant",
    "leqq",
    "ge",
    "geq",
    "geqslant",
    "geqq",
    "lt",
    "gt",
    "ne",
    "neq",
    "in",
    "approx",
    "simeq",
    "cong",
    "equiv",
    "doteq",
    "to",
    "rightarrow",
    "Rightarrow",
    "implies",
    "mapsto",
    "iff",
    "Leftrightarrow",
    "longrightarrow",
    "Longrightarrow",
    "sim",
    "subset",
    "subseteq",
    "supset",
    "supseteq",
    "notin",
    "perp",
    "parallel",
    "propto",
    "not",
    "circ",
    "degree",
    "prime",
    NULL,
};

static bool at_union(const Reader *r) {
    if ((*r->p != 'U' && *r->p != 'u') || r->p == r->start || !strchr(")] ", r->p[-1])) return false;
    const char *p = r->p + 1;
    while (p < r->end && *p == ' ') p++;
    return p < r->end && strchr("([\\{", *p) &&
           (r->p[-1] != ' ' || (r->p - 1 > r->start && strchr(")]", r->p[-2])));
}

bool at_atom(Reader *r) {
    char c = peek(r);
    if (!c) return false;
    if (is_digit(c) || c == '(' || c == '[' || c == '{' || (unsigned char)c >= 0x80) return true;
    if (c == '.') return r->p + 1 < r->end && is_digit(r->p[1]);
    if (c == '|') return !r->bars;
    if (is_alpha(c)) return !at_union(r) && !span_is(peek_word(r), "mod");
    if (c != '\\') return false;
    Span command = peek_command(r);
    if (command.n) return !span_in(command, no_atoms);
    return r->p + 1 < r->end && (r->p[1] == '{' || r->p[1] == '|');
}

/* ---- arguments ---- */

static Node *read_atom(Reader *r);

/* What \frac, ^ and _ take: braces, one digit (a run of digits after ^), one letter or one command. */
static Node *argument_read(Reader *r, bool digits) {
    if (++r->depth > DEPTH_MAX) return reader_fail(r, "nested too deeply");
    char c = peek(r);
    Node *node;
    if (c == '{')
        node = read_braced(r);
    else if (digits && (c == '-' || c == '+')) {
        r->p++;
        node = argument_read(r, digits);
        if (node && c == '-') node = node_one(r->arena, NODE_NEG, node);
    } else if (is_digit(c)) {
        const char *stop = r->p + 1;
        while (digits && stop < r->end && is_digit(*stop)) stop++;
        node = node_text(r->arena, NODE_NUMBER, r->p, (size_t)(stop - r->p));
        r->p = stop;
    } else if (is_alpha(c) && (!digits || word_find(peek_word(r).p, peek_word(r).n).kind == WORD_NONE)) {
        node = c == 'e'                  ? node_const(r->arena, CONST_E)
               : c == 'i' && !r->bound_i ? node_const(r->arena, CONST_I)
                                         : node_text(r->arena, NODE_SYMBOL, r->p, 1);
        r->p++;
    } else if (at_atom(r))
        node = read_atom(r);
    else
        node = reader_fail(r, "an argument is missing");
    r->depth--;
    return node;
}

Node *read_argument(Reader *r) { return argument_read(r, false); }

Node *read_script(Reader *r) { return argument_read(r, true); }

/* The arguments of f(a, b), or one argument without brackets. */
static Node *read_arguments(Reader *r) {
    Node *in = read_bracket(r);
    if (in && in->kind == NODE_SPAN) return reader_fail(r, "an interval as an argument");
    return in;
}

/* "\sin 2x" takes factors up to the next function; "\sin(x)" and "\sin{x}" take just that. */
static Node *read_open_argument(Reader *r) {
    if (++r->depth > DEPTH_MAX) return reader_fail(r, "nested too deeply");
    char c = peek(r);
    Node *node = NULL;
    if (c == '(' || c == '[')
        node = read_arguments(r);
    else if (c == '{')
        node = read_braced(r);
    else {
        Node *kids[16];
        int n = 0;
        while (n < 16 && at_atom(r) && !(n && (at_separator(r, false) || at_differential(r)))) {
            Span command = peek_command(r), word = command.n ? command : peek_word(r);
            bool function = word.n > 1 && word_find(word.p, word.n).kind == WORD_FN && !span_is(word, "sqrt");
            if (n && (function || strchr("([", peek(r)) || span_is(word, "text") || span_is(word, "mathrm")))
                break;
            Node *factor = read_factor(r);
            if (!factor) return NULL;
            kids[n++] = factor;
            if (function) break;
        }
        if (!n) return reader_fail(r, "a function without an argument");
        node = n == 1 ? kids[0] : node_of(r->arena, NODE_MUL, n, kids);
        if (!node_has_symbols(node) && peek(r) == '/' && r->p + 1 < r->end && is_digit(r->p[1])) { /* \sin \pi/3 */
            r->p++;
            Node *divisor = read_number(r);
            node = node_two(r->arena, NODE_DIV, node, divisor);
        }
    }
    r->depth--;
    return node;
}

/* ---- functions ---- */

static Function function_inverse(Function fn) {
    switch (fn) {
    case FN_SIN:
        return FN_ASIN;
    case FN_COS:
        return FN_ACOS;
    case FN_TAN:
        return FN_ATAN;
    case FN_COT:
        return FN_ACOT;
    case FN_SEC:
        return FN_ASEC;
    case FN_CSC:
        return FN_ACSC;
    case FN_SINH:
        return FN_ASINH;
    case FN_COSH:
        return FN_ACOSH;
    case FN_TANH:
        return FN_ATANH;
    case FN_COTH:
        return FN_ACOTH;
    case FN_SECH:
        return FN_ASECH;
    case FN_CSCH:
        return FN_ACSCH;
    default:
        return FN_NONE;
    }
}

static Node *read_root(Reader *r, bool word) {
    Node *index = NULL;
    if (peek(r) == '[') {
        r->p++;
        index = read_sum(r);
        if (!index || !take_char(r, ']')) return reader_fail(r, "the index of a root does not end");
    }
    Node *kids[2];
    kids[0] = !word || peek(r) == '{' ? read_argument(r) : read_factor(r);
    if (!kids[0]) return NULL;
    if (!index) return node_fn(r->arena, FN_SQRT, 1, kids);
    kids[1] = index;
    return node_fn(r->arena, FN_ROOT, 2, kids);
}

static bool function_takes(Function fn, int n) {
    if (fn == FN_GCD || fn == FN_LCM || fn == FN_MAX || fn == FN_MIN) return n >= 1;
    if (fn == FN_BINOM) return n == 2;
    return n == 1;
}

static Node *function_node(Reader *r, Function fn, Node *argument, Node *base, Node *power) {
    Node *const *kids = &argument;
    int n = 1;
    if (argument->kind == NODE_TUPLE || (argument->kind == NODE_SET && (fn == FN_MAX || fn == FN_MIN)))
        kids = argument->kids, n = argument->n;
    if (!function_takes(fn, n)) return reader_fail(r, "a function with the wrong number of arguments");
    Node *node;
    if (base && fn == FN_LOG) {
        Node *both[2] = {argument, base};
        node = node_fn(r->arena, FN_LOG, 2, both);
    } else if (fn == FN_ROOT) {
        Node *both[2] = {argument, node_int(r->arena, 3)};
        node = node_fn(r->arena, FN_ROOT, 2, both);
    } else
        node = node_fn(r->arena, fn == FN_LOG ? FN_LN : fn, n, kids);
    return power ? node_two(r->arena, NODE_POW, node, power) : node;
}

static Node *read_function(Reader *r, Function fn, bool word) {
    if (fn == FN_SQRT) return read_root(r, word);
    if (fn == FN_BINOM && peek(r) == '{') {
        Node *kids[2];
        if (!(kids[0] = read_argument(r)) || !(kids[1] = read_argument(r))) return NULL;
        return node_fn(r->arena, FN_BINOM, 2, kids);
    }
    Node *base = NULL, *power = NULL;
    for (int i = 0; i < 2; i++) {
        if (!base && take_char(r, '_') && !(base = read_argument(r))) return NULL;
        if (!power && take_char(r, '^') && !(power = read_script(r))) return NULL;
    }
    Node minus_one = {.kind = NODE_NUMBER, .text = "1", .decimals = -1};
    bool inverse =
        power && power->kind == NODE_NEG && node_same(power->kids[0], &minus_one) && function_inverse(fn);
    if (inverse) fn = function_inverse(fn), power = NULL;
    Node *argument = read_open_argument(r);
    return argument ? function_node(r, fn, argument, base, power) : NULL;
}

static Node *read_fraction(Reader *r) {
    const char *before = r->p;
    Node *derivative = read_derivative(r);
    if (derivative || r->p != before) return derivative;
    Node *top = read_argument(r);
    Node *bottom = top ? read_argument(r) : NULL;
    return bottom ? node_two(r->arena, NODE_DIV, top, bottom) : NULL;
}

/* ---- words ---- */

/* \bar{x}, \vec{x}: names of their own. */
typedef struct {
    const char *name, *meaning;
} AccentRow;

static const AccentRow accents[] = {
    {"overline", "bar"}, {"bar", "bar"},     {"vec", "vec"},     {"overrightarrow", "vec"},
    {"hat", "hat"},      {"widehat", "hat"}, {"tilde", "tilde"},
};

static Node *read_accent(Reader *r, const char *meaning) {
    Node *in = read_argument(r);
    if (!in) return NULL;
    Node *node = node_one(r->arena, NODE_CALL, in);
    node->text = meaning;
    return node;
}

/* The words of \text{}: a symbol, mathematics, or text. */
static Node *read_words(Reader *r) {
    Span in;
    if (!take_braces(r, &in)) return reader_fail(r, "\\text without braces");
    while (in.n && (in.p[0] == ' ' || in.p[0] == '~')) in.p++, in.n--;
    while (in.n && strchr(" .,~", in.p[in.n - 1])) in.n--;
    size_t letters = 0, run = 0;
    for (size_t i = 0; i < in.n; i++) {
        bool joint = run == 0 && in.n - i > 2 &&
                     (!memcmp(in.p + i, "and ", in.n - i > 3 ? 4 : 3) || !memcmp(in.p + i, "or ", 3));
        if (joint) i += in.p[i] == 'a' ? 3 : 2; /* "A and B" is a list */
        if (i >= in.n) break;
        run = is_alpha(in.p[i]) || (unsigned char)in.p[i] >= 0x80 ? run + 1 : 0;
        if (run > letters) letters = run;
    }
    Word word = in.n ? word_find(in.p, in.n) : (Word){WORD_NONE, 0};
    if (word.kind == WORD_FN) return read_function(r, (Function)word.value, true);
    if (letters < 2 || word.kind == WORD_CONST || (in.n && is_digit(*in.p))) {
        Parse parse = {.arena = r->arena, .reading = r->parse->reading};
        Node *node = r->depth < DEPTH_MAX / 2 ? math_parse(&parse, in.p, in.n) : NULL;
        if (node) return node;
    }
    if (!in.n) return reader_fail(r, "an empty text");
    return node_text(r->arena, NODE_TEXT, in.p, in.n);
}

/* Letters in plain text: a function, a constant, or the first letter as a symbol. */
static Node *symbol_read(Reader *r, const char *name, size_t n);

static Node *read_plain_word(Reader *r) {
    Span word = peek_word(r);
    Word found = word_find(word.p, word.n);
    if (found.kind == WORD_FN && word.n > 1) {
        r->p += word.n;
        return read_function(r, (Function)found.value, true);
    }
    if (found.kind == WORD_CONST) {
        r->p += word.n;
        return node_const(r->arena, (Constant)found.value);
    }
    if (found.kind == WORD_GREEK) {
        r->p += word.n;
        return symbol_read(r, word.p, word.n);
    }
    for (size_t i = 0; i < sizeof accents / sizeof accents[0]; i++) /* as SymPy prints them: bar{x} */
        if (span_is(word, accents[i].name) && word.p + word.n < r->end && word.p[word.n] == '{') {
            r->p += word.n;
            return read_accent(r, accents[i].meaning);
        }
    /* "sinx", "lnx": a function glued to its argument */
    for (size_t n = word.n - 1; n >= 2 && word.n <= 8; n--) {
        Word glued = word_find(word.p, n);
        if (glued.kind != WORD_FN || glued.value == FN_MAX || glued.value == FN_MIN || glued.value == FN_RE ||
            glued.value == FN_IM || glued.value == FN_ARG || glued.value == FN_DET || word.n - n > 2)
            continue;
        r->p += n;
        return read_function(r, (Function)glued.value, true);
    }
    r->p++;
    return symbol_read(r, word.p, 1);
}

/* ---- symbols ---- */

/* f(x): a call. Other letters before a bracket are factors. */
static bool calls(const char *name, size_t n, bool marked) {
    if (n > 1) return (n == 5 && !memcmp(name, "Theta", 5)) || (n == 5 && !memcmp(name, "Omega", 5));
    return marked ? *name == 'f' || *name == 'g' || *name == 'h' : strchr("fghFGHPQTWO", *name) != NULL;
}

/* "(", or "{(" as SymPy prints it. */
static bool at_call(Reader *r) {
    if (peek(r) == '(') return true;
    const char *before = r->p;
    bool is = take_char(r, '{') && peek(r) == '(';
    r->p = before;
    return is;
}

static Node *call_node(Reader *r, const char *name, Node *in) {
    bool several = in->kind == NODE_TUPLE || in->kind == NODE_LIST || in->kind == NODE_SET;
    Node *node = several ? node_of(r->arena, NODE_CALL, in->n, in->kids) : node_one(r->arena, NODE_CALL, in);
    node->text = name;
    return node;
}

static Node *symbol_read(Reader *r, const char *name, size_t n) {
    Buf text = {0};
    buf_add(&text, name, n);
    const char *after = r->p;
    while (r->p < r->end && *r->p == '\'') {
        buf_char(&text, '\'');
        r->p++;
    }
    bool marked = r->p > after;
    if (n == 1 && r->end - r->p > 5 && !memcmp(r->p, "^{-1}", 5) &&
        (r->p[5] == '(' || !strncmp(r->p + 5, "\\left(", 6)) && calls(name, n, true)) {
        buf_text(&text, "^-1"); /* an inverse function */
        r->p += 5;
        marked = true;
    }
    char *full = arena_text(r->arena, text.p, text.n);
    buf_free(&text);
    Node *node = NULL;
    if (peek(r) == '_') {
        r->p++;
        Node *index = read_argument(r);
        if (!index) return NULL;
        full = arena_format(r->arena, "%s_", full);
        node = call_node(r, full, index);
        marked = true;
    }
    if (at_call(r) && calls(name, n, marked)) {
        Node *in = peek(r) == '{' ? read_braced(r) : read_arguments(r);
        if (!in) return NULL;
        if (!node) return call_node(r, full, in);
        Node *both = node_two(r->arena, NODE_CALL, node, in);
        both->text = full;
        return both;
    }
    if (node) return node;
    if (n == 1 && !marked && *name == 'e') return node_const(r->arena, CONST_E);
    if (n == 1 && !marked && ((*name == 'i' && !r->bound_i) || *name == 'I')) return node_const(r->arena, CONST_I);
    node = node_new(r->arena, NODE_SYMBOL);
    node->text = full;
    return node;
}

static Node *read_foreign(Reader *r) {
    const char *stop = r->p + 1;
    bool wide = (unsigned char)*r->p >= 0xe3;
    while (stop < r->end && ((unsigned char)*stop & 0xc0) == 0x80) stop++;
    while (wide && stop < r->end && (unsigned char)*stop >= 0x80) stop++;
    Node *node = node_text(r->arena, wide ? NODE_TEXT : NODE_SYMBOL, r->p, (size_t)(stop - r->p));
    r->p = stop;
    return node;
}

/* ---- commands ---- */

static Node *read_blackboard(Reader *r) {
    Span in;
    if (!take_braces(r, &in)) {
        in = (Span){r->p, r->p < r->end};
        r->p += in.n;
    }
    static const char letters[] = "NZQRC";
    const char *at = in.n == 1 ? strchr(letters, *in.p) : NULL;
    if (at && *at) return node_const(r->arena, (Constant)(CONST_NATURALS + (at - letters)));
    return node_text(r->arena, NODE_SYMBOL, in.p, in.n);
}

static Node *read_operator_name(Reader *r) {
    take_char(r, '*');
    Span in;
    if (!take_braces(r, &in)) return reader_fail(r, "\\operatorname without a name");
    Word word = in.n ? word_find(in.p, in.n) : (Word){WORD_NONE, 0};
    if (word.kind == WORD_FN) return read_function(r, (Function)word.value, true);
    if (word.kind == WORD_CONST) return node_const(r->arena, (Constant)word.value);
    if (!in.n) return reader_fail(r, "\\operatorname without a name");
    char *name = arena_text(r->arena, in.p, in.n);
    if (peek(r) == '(') {
        Node *arguments = read_arguments(r);
        return arguments ? call_node(r, name, arguments) : NULL;
    }
    return symbol_read(r, name, in.n);
}

typedef struct {
    const char *name, *close;
    Function fn;
} FenceRow;

static const FenceRow fences[] = {
    {"lfloor", "rfloor", FN_FLOOR}, {"lceil", "rceil", FN_CEIL}, {"lvert", "rvert", FN_ABS},
    {"lVert", "rVert", FN_ABS},     {"vert", "vert", FN_ABS},    {"Vert", "Vert", FN_ABS},
};

static const char *const styles[] = {
    "mathbf", "boldsymbol", "mathsf",    "mathcal", "mathscr",    "mathfrak",
    "bm",     "pmb",        "boxed",     "fbox",    "variable",   "underline",
    "mathop", "mathord",    "mathstrut", "smash",   "ensuremath", "textsuperscript",
    "cancel", "emph",       "color",     NULL,
};
static const char *const texts[] = {"text",   "textbf", "textit", "textrm", "textnormal", "mbox",
                                    "mathrm", "hbox",   "texttt", "textsf", NULL};
static const char *const fractions[] = {"frac", "dfrac", "tfrac", "cfrac", NULL};

static Node *read_angle(Reader *r) {
    int brackets = r->brackets++;
    bool commas = r->commas;
    r->commas = false;
    Node *in = read_list(r);
    if (!in) return NULL;
    r->brackets = brackets;
    r->commas = commas;
    if (!take_command(r, "rangle")) return reader_fail(r, "\\langle does not close");
    return in->kind == NODE_LIST ? node_of(r->arena, NODE_TUPLE, in->n, in->kids) : in;
}

static Node *read_fence(Reader *r, const FenceRow *fence) {
    Node *in = read_bars(r, fence->close);
    return in ? node_fn(r->arena, fence->fn, 1, &in) : NULL;
}

/* \mathit{word}: letters, and digits after them. */
static Node *read_identifier(Reader *r) {
    Span in;
    const char *before = r->p;
    if (!take_braces(r, &in)) return read_argument(r);
    for (size_t i = 0; i < in.n; i++)
        if (!is_alpha(in.p[i]) && !(i && (is_digit(in.p[i]) || in.p[i] == '_')))
            return reader_fail(r, "\\mathit of something else than a name");
    r->p = before;
    return read_braced(r);
}

/* A command whose name names a symbol: Greek letters and what is unknown. */
static Node *read_named(Reader *r, Span name) {
    if (name.n > 3 && !memcmp(name.p, "var", 3) && name.n > 5) name.p += 3, name.n -= 3; /* \varphi is \phi */
    if (peek(r) == '{') return read_braced(r);
    if (span_is(name, "ldots") || span_is(name, "cdots") || span_is(name, "dotsc"))
        return symbol_read(r, "dots", 4);
    return symbol_read(r, name.p, name.n);
}

static Node *read_command(Reader *r) {
    Span name = peek_command(r);
    if (!name.n) {
        if (r->p + 1 < r->end && r->p[1] == '{') return read_bracket(r);
        if (r->p + 1 < r->end && r->p[1] == '|') {
            r->p += 2;
            Node *in = read_bars(r, "|");
            return in ? node_fn(r->arena, FN_ABS, 1, &in) : NULL;
        }
        return reader_fail(r, "an unknown command");
    }
    if (span_is(name, "begin")) return read_environment(r);
    r->p += 1 + name.n;
    if (span_in(name, fractions)) return read_fraction(r);
    if (span_is(name, "binom") || span_is(name, "dbinom") || span_is(name, "tbinom"))
        return read_function(r, FN_BINOM, false);
    if (span_in(name, texts)) return read_words(r);
    if (span_is(name, "mathit")) return read_identifier(r);
    if (span_in(name, styles)) return peek(r) == '{' ? read_braced(r) : read_argument(r);
    for (size_t i = 0; i < sizeof accents / sizeof accents[0]; i++)
        if (span_is(name, accents[i].name)) return read_accent(r, accents[i].meaning);
    if (span_is(name, "mathbb") || span_is(name, "Bbb")) return read_blackboard(r);
    if (span_is(name, "operatorname")) return read_operator_name(r);
    if (span_is(name, "langle")) return read_angle(r);
    if (span_is(name, "sum")) return read_bind(r, FN_SUM);
    if (span_is(name, "prod")) return read_bind(r, FN_PROD);
    if (span_is(name, "int")) return read_bind(r, FN_INT);
    if (span_is(name, "lim")) return read_bind(r, FN_LIM);
    if (span_is(name, "emptyset") || span_is(name, "varnothing")) return node_const(r->arena, CONST_EMPTY);
    if (span_is(name, "exponentialE")) return node_const(r->arena, CONST_E);
    if (span_is(name, "imath") || span_is(name, "imaginaryI")) return node_const(r->arena, CONST_I);
    if (span_is(name, "angle") || span_is(name, "triangle")) return read_factor(r);
    if (span_is(name, "char")) return reader_fail(r, "\\char is not understood");
    for (size_t i = 0; i < sizeof fences / sizeof fences[0]; i++)
        if (span_is(name, fences[i].name)) return read_fence(r, &fences[i]);
    if (span_in(name, no_atoms)) return reader_fail(r, "an operator stands where a value should");
    Word word = word_find(name.p, name.n);
    if (word.kind == WORD_FN) return read_function(r, (Function)word.value, span_is(name, "surd"));
    if (word.kind == WORD_CONST) return node_const(r->arena, (Constant)word.value);
    return read_named(r, name);
}

/* ---- atoms and what follows them ---- */

static Node *read_atom(Reader *r) {
    if (++r->work > 4 * TEXT_MAX) return reader_fail(r, "too long");
    char c = peek(r);
    if (is_digit(c) || (c == '.' && r->p + 1 < r->end && is_digit(r->p[1]))) return read_number(r);
    if (is_alpha(c)) return read_plain_word(r);
    if (c == '(' || c == '[') return read_bracket(r);
    if (c == '{') return read_braced(r);
    if (c == '\\') return read_command(r);
    if ((unsigned char)c >= 0x80) return read_foreign(r);
    if (c == '|') {
        r->p++;
        Node *in = read_bars(r, "|");
        return in ? node_fn(r->arena, FN_ABS, 1, &in) : NULL;
    }
    return reader_fail(r, c ? "a value is missing" : "the text ends too early");
}

/* ^\circ, ^{\circ}, \circ after a number, \degree. */
static bool take_degree(Reader *r) {
    const char *before = r->p;
    if (take_command(r, "degree")) return true;
    if (take_char(r, '^')) {
        bool braces = take_char(r, '{');
        if ((take_command(r, "circ") || take_command(r, "degree")) && (!braces || take_char(r, '}'))) {
            if (take_char(r, 'C') || take_char(r, 'F')) return true;
            Span in;
            before = r->p;
            if ((take_command(r, "text") || take_command(r, "mathrm")) && take_braces(r, &in) && in.n <= 2)
                return true;
            r->p = before;
            return true;
        }
    }
    r->p = before;
    return false;
}

/* x^{+}, x^{-} of one-sided limits. */
static char take_side(Reader *r) {
    const char *before = r->p;
    if (take_char(r, '^')) {
        bool braces = take_char(r, '{');
        char c = peek(r);
        if (c == '+' || c == '-') {
            r->p++;
            if (braces ? take_char(r, '}') : peek(r) == '}') return c;
        }
    }
    r->p = before;
    return 0;
}

static bool take_prime(Reader *r) {
    const char *before = r->p;
    if (take_char(r, '\'')) return true;
    if (take_char(r, '^')) {
        bool braces = take_char(r, '{');
        if (take_command(r, "prime") && (!braces || take_char(r, '}'))) return true;
    }
    r->p = before;
    return false;
}

static bool take_percent(Reader *r) {
    if (take_char(r, '%')) return true;
    skip_blank(r);
    if (r->end - r->p >= 2 && r->p[0] == '\\' && r->p[1] == '%') {
        r->p += 2;
        return true;
    }
    const char *before = r->p;
    Span in, word;
    if ((take_command(r, "text") || take_command(r, "mathrm")) && take_braces(r, &in)) {
        while (in.n && in.p[0] == ' ') in.p++, in.n--;
        while (in.n && strchr(" .", in.p[in.n - 1])) in.n--;
        if ((in.n && word_find(in.p, in.n).kind == WORD_PERCENT) || span_is(in, "%") || span_is(in, "\\%"))
            return true;
    }
    r->p = before;
    word = peek_word(r);
    if (!word.n || word_find(word.p, word.n).kind != WORD_PERCENT) return false;
    r->p += word.n;
    return true;
}

static Node *read_power(Reader *r, Node *base) {
    Node *power = read_script(r);
    static const char *const ordinals[] = {"th", "st", "nd", "rd"}; /* 5^{\text{th}} */
    for (size_t i = 0; power && power->kind == NODE_TEXT && i < 4; i++)
        if (!strcmp(power->text, ordinals[i])) return base;
    return power ? node_two(r->arena, NODE_POW, base, power) : NULL;
}

Node *read_factor(Reader *r) {
    if (++r->depth > DEPTH_MAX) return reader_fail(r, "nested too deeply");
    peek(r);
    bool money = r->money == r->p && r->p < r->end && (is_digit(*r->p) || *r->p == '.');
    Node *node = read_atom(r);
    for (int i = 0; node; i++) {
        if (i > 64) return reader_fail(r, "too many signs behind a value");
        skip_blank(r);
        char side;
        bool not_equal =
            r->end - r->p >= 2 && r->p[0] == '!' && r->p[1] == '=' && !(r->end - r->p > 2 && r->p[2] == '=');
        if (peek(r) == '!' && !not_equal) {
            r->p++;
            bool twice = r->p < r->end && *r->p == '!';
            r->p += twice;
            node = node_fn(r->arena, twice ? FN_FACT2 : FN_FACT, 1, &node);
        } else if (take_degree(r))
            node = node_one(r->arena, NODE_DEGREE, node);
        else if (take_prime(r)) {
            node = node_one(r->arena, NODE_CALL, node);
            node->text = "prime";
        } else if ((side = take_side(r))) {
            if (side == '+') continue;
            node = node_one(r->arena, NODE_CALL, node);
            node->text = "minus";
        } else if (take_char(r, '^'))
            node = read_power(r, node);
        else if (r->end - r->p >= 2 && r->p[0] == '*' && r->p[1] == '*') {
            r->p += 2;
            node = read_power(r, node);
        } else if (take_percent(r))
            node = node_one(r->arena, NODE_PERCENT, node);
        else if (node->kind != NODE_NUMBER && peek(r) == '_') {
            r->p++;
            Node *index = read_argument(r);
            if (!index) return NULL;
            Node **base = node->kind == NODE_POW ? &node->kids[0] : &node; /* x^2_1 is (x_1)^2 */
            bool name = (*base)->kind == NODE_SYMBOL;
            const char *text = name ? arena_format(r->arena, "%s_", (*base)->text) : "_";
            *base = name ? node_one(r->arena, NODE_CALL, index) : node_two(r->arena, NODE_CALL, *base, index);
            (*base)->text = text;
        } else
            break;
    }
    if (node && money) {
        node = node_one(r->arena, NODE_UNIT, node);
        node->text = "dollars";
    }
    r->depth--;
    return node;
}
