/* math_parse.c: the grammar of lists, relations, sums and products; see math_atom.c for what they are made of.
 *
 *   list     item (separator item)*
 *   item     setexpr (relation setexpr)*
 *   setexpr  sum (union | intersection | difference sum)*
 *   sum      [sign] term (sign term)*
 *   term     product (times | divided | mod product)*
 *   product  factor factor*            juxtaposition binds tighter than a slash
 *
 * Tested by tests/test_reward_math.c.
 */
#include <string.h>

#include "reward/math_reader.h"

enum { UNIT_WORDS_MAX = 8, UNIT_LETTERS_MAX = 60, KIDS_MAX = 1024, ATOMS_MAX = 4 * TEXT_MAX };

/* A list of nodes that grows in the arena's manner: it is copied when it is full. */
typedef struct {
    Node **kids;
    int n, room;
} Kids;

static void kids_add(Reader *r, Kids *kids, Node *node) {
    if (kids->n == kids->room) {
        int room = kids->room ? 2 * kids->room : 4;
        Node **grown = arena_alloc(r->arena, (size_t)room, sizeof *grown);
        if (kids->n) memcpy(grown, kids->kids, (size_t)kids->n * sizeof *grown);
        kids->kids = grown;
        kids->room = room;
    }
    kids->kids[kids->n++] = node;
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char)c >= 0x80;
}

/* ---- products ---- */

static bool is_integer(const Node *node) {
    return node->kind == NODE_NUMBER && node->scale == 0 && node->decimals < 0 && !node->grouped;
}

static bool is_fraction_of_numbers(const Node *node) {
    return node->kind == NODE_DIV && is_integer(node->kids[0]) && is_integer(node->kids[1]) && !node->grouped;
}

/* "7 3/4" in plain text: reads the fraction after the whole number. */
static Node *mixed_plain(Reader *r, const Node *whole) {
    if (!is_integer(whole) || r->brackets > 8) return NULL;
    const char *p = r->p;
    if (p == r->start || (p[-1] != ' ' && (p >= r->end || *p != ' '))) return NULL;
    while (p < r->end && *p == ' ') p++;
    const char *top = p;
    while (p < r->end && *p >= '0' && *p <= '9') p++;
    const char *slash = p;
    if (p == top || p >= r->end || *p != '/') return NULL;
    const char *bottom = ++p;
    while (p < r->end && *p >= '0' && *p <= '9') p++;
    if (p == bottom) return NULL;
    r->p = p;
    return node_two(r->arena, NODE_DIV, node_text(r->arena, NODE_NUMBER, top, (size_t)(slash - top)),
                    node_text(r->arena, NODE_NUMBER, bottom, (size_t)(p - bottom)));
}

static Node *unit_node(Reader *r, Node *value, Span words) {
    while (words.n && strchr(" ~", words.p[0])) words.p++, words.n--;
    while (words.n && strchr(" ~.,", words.p[words.n - 1])) words.n--;
    Node *node = node_one(r->arena, NODE_UNIT, value);
    char *text = arena_text(r->arena, words.p, words.n), *to = text;
    for (const char *p = text; *p; p++)
        if (*p != '{' && *p != '}') *to++ = *p;
    *to = 0;
    node->text = text;
    return node;
}

static int64_t scale_word(Span s) {
    static const struct {
        const char *word;
        int64_t value;
    } scales[] = {{"hundred", 100},
                  {"thousand", 1000},
                  {"million", 1000000},
                  {"billion", 1000000000},
                  {"trillion", 1000000000000}};
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++)
        if (s.n >= strlen(scales[i].word) && !memcmp(s.p, scales[i].word, strlen(scales[i].word)))
            return scales[i].value;
    return 0;
}

/* A unit in \text{}, \mathrm{}: what follows a value and is made of words. */
static bool take_text_unit(Reader *r, Span *words) {
    static const char *const frames[] = {"text", "textbf", "textit", "textrm", "textnormal",
                                         "mbox", "mathrm", "rm",     "hbox"};
    const char *before = r->p;
    for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++) {
        if (!take_command(r, frames[i])) continue;
        Span in;
        if (!take_braces(r, &in)) break;
        int letters = 0;
        bool digits = false;
        for (size_t k = 0; k < in.n; k++) {
            letters += is_letter(in.p[k]);
            digits |= in.p[k] >= '0' && in.p[k] <= '9' && (k == 0 || in.p[k - 1] != '^');
        }
        Word word = word_find(in.p, in.n);
        bool other = word.kind == WORD_FN || word.kind == WORD_PERCENT || word.kind == WORD_CONST;
        if (!letters || digits || other || (in.n == 1 && in.p[0] == 'i')) break;
        *words = in;
        Span power;
        if (r->p < r->end && *r->p == '^') { /* cm^2 */
            r->p++;
            if (!take_braces(r, &power)) r->p += r->p < r->end;
            words->n = (size_t)(r->p - words->p);
        }
        return true;
    }
    r->p = before;
    return false;
}

static bool unit_ends(const char *p, const char *end) {
    while (p < end && strchr(" .$\\", *p)) p++;
    return p == end || strchr(",;)]}=", *p);
}

/* "5 (five)": words in brackets behind a value. */
static bool take_comment(Reader *r, Span *words) {
    if (*r->p != '(') return false;
    const char *close = memchr(r->p, ')', (size_t)(r->end - r->p));
    if (!close || close - r->p < 4) return false;
    for (const char *p = r->p + 1; p < close; p++)
        if (!is_letter(*p) && *p != ' ') return false;
    size_t n = (size_t)(close - r->p - 1);
    if (word_find(r->p + 1, n).kind != WORD_NONE) return false;
    *words = (Span){r->p + 1, n};
    r->p = close + 1;
    return true;
}

/* Plain words after a value: "64 square feet", "9 m²" with a letter for a unit when that is asked for. */
static bool take_plain_unit(Reader *r, NodeKind kind, Span *words) {
    const char *before = r->p;
    skip_blank(r);
    bool blank = r->p > r->start && (r->p[-1] == ' ' || r->p[-1] == '~');
    if (r->p > r->start && is_letter(r->p[-1])) return r->p = before, false;
    if (blank && take_comment(r, words)) return true;
    const char *first = r->p, *p = first;
    int n_words = 0;
    size_t longest = 0;
    bool known = true;
    while (p < r->end) {
        const char *start = p;
        while (p < r->end && is_letter(*p) && p - start <= UNIT_LETTERS_MAX) p++;
        size_t n = (size_t)(p - start);
        if (!n) break;
        if (n > UNIT_LETTERS_MAX) return r->p = before, false;
        Word word = word_find(start, n);
        if (word.kind == WORD_FN || word.kind == WORD_CONST || word.kind == WORD_PERCENT)
            return r->p = before, false;
        if (word.kind == WORD_SEPARATOR) {
            p = start;
            break;
        }
        bool short_unit = n == 1 && n_words && strchr("mshgL", *start);
        known &= word.kind == WORD_UNIT || word.kind == WORD_DEGREE || (unsigned char)*start >= 0xe3 || short_unit;
        if (n > longest) longest = n;
        if (++n_words > UNIT_WORDS_MAX) return r->p = before, false; /* no unit, and no quadratic time */
        if (p < r->end && *p == '^') {                               /* feet^2 */
            p++;
            if (p < r->end && *p == '{')
                p = memchr(p, '}', (size_t)(r->end - p)) ? (const char *)memchr(p, '}', (size_t)(r->end - p)) + 1
                                                         : r->end;
            else if (p < r->end)
                p++;
        }
        while (p < r->end && (*p == ' ' || *p == '/')) p++;
    }
    bool number = kind == NODE_NUMBER || kind == NODE_DIV || kind == NODE_MUL || kind == NODE_ADD ||
                  kind == NODE_FN || kind == NODE_UNIT;
    bool letter = n_words == 1 && longest == 1 && (blank || first + 1 < p) && strchr("mshgLc", *first) && number &&
                  unit_ends(p, r->end);
    if (letter) r->parse->could |= READ_LETTER_UNITS;
    bool is = n_words && number && unit_ends(p, r->end) &&
              (known || (longest >= 4 && blank) || (letter && (r->parse->reading & READ_LETTER_UNITS)));
    if (!is) return r->p = before, false;
    *words = (Span){first, (size_t)(p - first)};
    r->p = p;
    return true;
}

/* Words that follow a value of this kind. */
static bool take_unit(Reader *r, const Node *value, NodeKind kind, Span *words) {
    while (value->kind == NODE_MUL || value->kind == NODE_NEG) value = value->kids[0];
    bool counted = value->kind != NODE_SYMBOL && value->kind != NODE_CONST && value->kind != NODE_CALL;
    if (kind == NODE_TEXT || kind == NODE_SYMBOL || kind == NODE_CALL) return false;
    return take_text_unit(r, words) || (counted && take_plain_unit(r, kind, words));
}

/* A value and the words after it. */
static Node *with_unit(Reader *r, Node *value) {
    if (value->kind == NODE_TEXT || value->kind == NODE_SYMBOL || value->kind == NODE_CALL) {
        Span rest;
        if (!(value->kind == NODE_TEXT && take_text_unit(r, &rest))) return value;
        value->text = arena_format(r->arena, "%s %.*s", value->text, (int)rest.n, rest.p);
        return value;
    }
    Span words;
    while (!at_separator(r, false) && take_unit(r, value, (NodeKind)value->kind, &words)) {
        while (words.n && words.p[0] == ' ') words.p++, words.n--;
        int64_t scale = scale_word(words);
        if (scale) value = node_two(r->arena, NODE_MUL, value, node_int(r->arena, scale));
        if (!scale || memchr(words.p, ' ', words.n)) value = unit_node(r, value, words);
    }
    return value;
}

/* Words before a value that change nothing. */
static bool is_adverb(const Node *node) {
    static const char *const words[] = {"about", "approximately", "approx", "exactly", "around", "roughly", "or"};
    for (size_t i = 0; node->kind == NODE_TEXT && i < sizeof words / sizeof words[0]; i++)
        if (text_alike(node->text, words[i], strlen(words[i]) + 1)) return true;
    return false;
}

Node *read_product(Reader *r) {
    Kids kids = {0};
    do {
        if (kids.n && at_separator(r, false)) break;
        if (take_differential(r)) break;
        Span words;
        const char *before = r->p;
        if (kids.n && take_unit(r, kids.kids[0], kids.n == 1 ? kids.kids[0]->kind : NODE_MUL, &words)) {
            r->p = before;
            break;
        }
        Node *factor = read_factor(r);
        if (!factor) return NULL;
        if (!kids.n && is_adverb(factor) && at_atom(r)) continue;
        Node *last = kids.n ? kids.kids[kids.n - 1] : NULL;
        Node *fraction = mixed_plain(r, factor);
        if (fraction) factor = node_two(r->arena, NODE_ADD, factor, fraction);
        if (last && is_integer(last) && is_fraction_of_numbers(factor)) {
            kids.kids[kids.n - 1] = node_two(r->arena, NODE_ADD, last, factor); /* 1\frac{2}{3} */
            continue;
        }
        if (last && is_integer(last) && is_integer(factor)) return reader_fail(r, "two numbers side by side");
        kids_add(r, &kids, factor);
        if (r->integral && r->differential) break;
    } while (kids.n < KIDS_MAX && at_atom(r));
    if (kids.n == KIDS_MAX) return reader_fail(r, "too many factors");
    if (!kids.n) kids_add(r, &kids, node_int(r->arena, 1)); /* the differential alone */
    return with_unit(r, kids.n == 1 ? kids.kids[0] : node_of(r->arena, NODE_MUL, kids.n, kids.kids));
}

/* ---- terms ---- */

static Node *read_signed_product(Reader *r) {
    int negative = 0;
    for (char c; (c = peek(r)) == '-' || c == '+'; r->p++) negative ^= c == '-';
    Node *product = read_product(r);
    return product && negative ? node_one(r->arena, NODE_NEG, product) : product;
}

static bool take_mod(Reader *r) {
    if (take_command(r, "mod") || take_command(r, "bmod") || take_command(r, "pmod")) return true;
    Span word = peek_word(r);
    if (word.n != 3 || memcmp(word.p, "mod", 3)) return false;
    r->p += 3;
    return true;
}

static bool times_star(Reader *r) {
    if (peek(r) != '*') return false;
    r->p++;
    return true;
}

/* After a slash: "8y" belongs together, unless the loose reading is asked for. */
static Node *read_divisor(Reader *r, const Node *top, Kids *after) {
    char c = peek(r);
    if (c == '-' || c == '+') return read_signed_product(r);
    if (r->parse->reading & READ_LOOSE_SLASH) {
        Node *first = read_factor(r);
        while (first && !at_separator(r, false) && at_atom(r)) {
            Node *more = read_factor(r);
            if (!more) return NULL;
            kids_add(r, after, more);
        }
        return first ? with_unit(r, first) : NULL;
    }
    Node *product = read_product(r);
    if (product && product->kind == NODE_MUL && product->kids[0]->kind == NODE_NUMBER && top->kind == NODE_NUMBER)
        r->parse->could |= READ_LOOSE_SLASH;
    return product;
}

static Node *read_term(Reader *r) {
    Node *term = read_signed_product(r);
    while (term) {
        if (times_star(r) || take_command(r, "cdot") || take_command(r, "times") || take_command(r, "ast") ||
            take_command(r, "star")) {
            Node *factor = read_signed_product(r);
            if (!factor) return NULL;
            term = node_two(r->arena, NODE_MUL, term, factor);
        } else if (peek(r) == '/' || at_command(r, "div") || at_command(r, "over")) {
            if (!take_char(r, '/') && !take_command(r, "div")) take_command(r, "over");
            Kids after = {0};
            Node *divisor = read_divisor(r, term, &after);
            if (!divisor) return NULL;
            term = node_two(r->arena, NODE_DIV, term, divisor);
            for (int i = 0; i < after.n; i++) term = node_two(r->arena, NODE_MUL, term, after.kids[i]);
        } else if (take_mod(r)) {
            Node *divisor = read_signed_product(r);
            if (!divisor) return NULL;
            Node *kids[2] = {term, divisor};
            term = node_fn(r->arena, FN_MOD, 2, kids);
        } else if (peek(r) == ':' && r->p + 1 < r->end && r->p[1] != '=' && !r->bars) {
            r->p++;
            Node *other = read_signed_product(r);
            if (!other) return NULL;
            if (term->kind == NODE_RATIO) {
                Kids kids = {0};
                for (int i = 0; i < term->n; i++) kids_add(r, &kids, term->kids[i]);
                kids_add(r, &kids, other);
                term = node_of(r->arena, NODE_RATIO, kids.n, kids.kids);
            } else
                term = node_two(r->arena, NODE_RATIO, term, other);
        } else
            break;
        if (++r->work > ATOMS_MAX) return reader_fail(r, "too long");
    }
    if (term) term = with_unit(r, term);
    char next = term && term->kind == NODE_UNIT && !r->brackets ? peek(r) : 0;
    if (next >= '0' && next <= '9') { /* 4 ft 3 in: two values in order */
        Node *rest = read_term(r);
        return rest ? node_two(r->arena, NODE_TUPLE, term, rest) : NULL;
    }
    return term;
}

/* ---- sums ---- */

static char take_sign(Reader *r, bool *both) {
    *both = false;
    char c = peek(r);
    if (c == '+' && r->p + 1 < r->end && r->p[1] == '-' &&
        (r->p + 2 < r->end && r->p[2] != ' ' && r->p[2] != '-')) {
        /* "1+-2" is a sum all the same; "+-" between values in plain text is read as a signed term */
        r->p++;
        return '+';
    }
    if (c == '+' || c == '-') {
        r->p++;
        return c;
    }
    *both = true;
    if (take_command(r, "pm")) return '+';
    if (take_command(r, "mp")) return '-';
    return 0;
}

static Node *pm_node(Reader *r, char sign, Node *left, Node *right) {
    Node *node = left ? node_two(r->arena, NODE_PM, left, right) : node_one(r->arena, NODE_PM, right);
    node->op = (uint8_t)sign;
    return node;
}

/* A leading minus belongs to the number before mod. */
static Node *node_negated(Reader *r, Node *term) {
    if (term->kind != NODE_FN || term->op != FN_MOD) return node_one(r->arena, NODE_NEG, term);
    term->kids[0] = node_negated(r, term->kids[0]);
    return term;
}

Node *read_sum(Reader *r) {
    bool both;
    Kids kids = {0};
    char sign = take_sign(r, &both);
    Node *term = read_term(r);
    if (!term) return NULL;
    if (sign && both)
        term = pm_node(r, sign, NULL, term);
    else if (sign == '-')
        term = node_negated(r, term);
    kids_add(r, &kids, term);
    while (!at_separator(r, false) && !(r->integral && r->differential) && (sign = take_sign(r, &both))) {
        term = read_term(r);
        if (!term) return NULL;
        if (both) {
            Node *left = kids.n == 1 ? kids.kids[0] : node_of(r->arena, NODE_ADD, kids.n, kids.kids);
            kids = (Kids){0};
            kids_add(r, &kids, pm_node(r, sign, left, term));
        } else
            kids_add(r, &kids, sign == '-' ? node_one(r->arena, NODE_NEG, term) : term);
        if (kids.n == KIDS_MAX) return reader_fail(r, "too many terms");
    }
    return kids.n == 1 ? kids.kids[0] : node_of(r->arena, NODE_ADD, kids.n, kids.kids);
}

/* ---- sets and relations ---- */

static char take_setop(Reader *r) {
    if (take_command(r, "cup") || take_command(r, "bigcup")) return 'u';
    if (take_command(r, "cap") || take_command(r, "bigcap")) return 'n';
    if (take_command(r, "setminus") || take_command(r, "backslash")) return '\\';
    Span word = peek_word(r);
    if (word.n == 1 && (*word.p == 'U' || *word.p == 'u') && word.p > r->start && strchr(")] ", word.p[-1])) {
        const char *p = word.p + 1;
        while (p < r->end && *p == ' ') p++;
        if (p < r->end && strchr("([\\{", *p)) return r->p = p, 'u'; /* (0,1) U (2,3) */
    }
    return 0;
}

static Node *read_setexpr(Reader *r) {
    Node *left = read_sum(r);
    for (char op; left && (op = take_setop(r));) {
        Node *right = read_sum(r);
        if (!right) return NULL;
        left = node_two(r->arena, NODE_SETOP, left, right);
        left->op = (uint8_t)op;
    }
    return left;
}

typedef struct {
    const char *name;
    uint8_t relation;
} RelationRow;

static const RelationRow relations[] = {
    {"le", REL_LE},
    {"leq", REL_LE},
    {"leqslant", REL_LE},
    {"leqq", REL_LE},
    {"ge", REL_GE},
    {"geq", REL_GE},
    {"geqslant", REL_GE},
    {"geqq", REL_GE},
    {"lt", REL_LT},
    {"gt", REL_GT},
    {"ne", REL_NE},
    {"neq", REL_NE},
    {"in", REL_IN},
    {"approx", REL_ABOUT},
    {"simeq", REL_ABOUT},
    {"cong", REL_EQ},
    {"equiv", REL_EQ},
    {"doteq", REL_ABOUT},
    {"to", REL_TO},
    {"rightarrow", REL_TO},
    {"Rightarrow", REL_TO},
    {"implies", REL_TO},
    {"mapsto", REL_TO},
    {"iff", REL_TO},
    {"Leftrightarrow", REL_TO},
    {"sim", REL_OTHER},
    {"subset", REL_SUBSET},
    {"subseteq", REL_SUBSET},
    {"supset", REL_SUPSET},
    {"supseteq", REL_SUPSET},
    {"notin", REL_OTHER},
    {"perp", REL_OTHER},
    {"parallel", REL_OTHER},
    {"propto", REL_OTHER},
    {"mid", REL_OTHER},
    {"longrightarrow", REL_TO},
    {"Longrightarrow", REL_TO},
};

static bool take_relation_sign(Reader *r, Relation *relation) {
    static const struct {
        const char *sign;
        Relation relation;
    } rows[] = {{"<=", REL_LE}, {">=", REL_GE}, {"=<", REL_LE}, {"=>", REL_TO}, {"==", REL_EQ}, {"!=", REL_NE},
                {":=", REL_EQ}, {"->", REL_TO}, {"=", REL_EQ},  {"<", REL_LT},  {">", REL_GT}};
    skip_blank(r);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t n = strlen(rows[i].sign);
        if ((size_t)(r->end - r->p) < n || memcmp(r->p, rows[i].sign, n)) continue;
        r->p += n;
        *relation = rows[i].relation;
        return true;
    }
    return false;
}

static bool take_relation(Reader *r, Relation *relation) {
    if (take_relation_sign(r, relation)) return true;
    Span command = peek_command(r);
    if (!command.n) return false;
    if (command.n == 3 && !memcmp(command.p, "not", 3)) {
        r->p += 4;
        if (!take_relation(r, relation)) return false;
        *relation = *relation == REL_EQ ? REL_NE : REL_OTHER;
        return true;
    }
    for (size_t i = 0; i < sizeof relations / sizeof relations[0]; i++) {
        if (strlen(relations[i].name) != command.n || memcmp(relations[i].name, command.p, command.n)) continue;
        r->p += 1 + command.n;
        *relation = (Relation)relations[i].relation;
        return true;
    }
    return false;
}

Node *read_item(Reader *r) {
    Kids kids = {0};
    uint8_t ops[16];
    Node *first = read_setexpr(r);
    if (!first) return NULL;
    kids_add(r, &kids, first);
    Relation relation;
    while (kids.n < 16 && take_relation(r, &relation)) {
        skip_blank(r);
        if (r->p == r->end && relation == REL_ABOUT) break;
        Node *next = read_setexpr(r);
        if (!next) return NULL;
        ops[kids.n - 1] = (uint8_t)relation;
        kids_add(r, &kids, next);
    }
    if (kids.n == 1) return first;
    Node *chain = node_of(r->arena, NODE_CHAIN, kids.n, kids.kids);
    uint8_t *copy = arena_alloc(r->arena, (size_t)kids.n, 1);
    memcpy(copy, ops, (size_t)kids.n - 1);
    chain->ops = copy;
    return chain;
}

/* "k = 1, 2, 3" gives k a list: the items after the first are values without relations. */
static Node *list_assigned(Reader *r, Kids *kids) {
    Node *first = kids->kids[0];
    if (kids->n < 2 || first->kind != NODE_CHAIN) return NULL;
    Relation op = (Relation)first->ops[first->n - 2];
    if (first->n != 2 || (op != REL_EQ && op != REL_IN && op != REL_NE)) return NULL;
    for (int i = 1; i < kids->n; i++)
        if (kids->kids[i]->kind == NODE_CHAIN || kids->kids[i]->kind == NODE_TEXT) return NULL;
    Kids values = {0};
    kids_add(r, &values, first->kids[1]);
    for (int i = 1; i < kids->n; i++) kids_add(r, &values, kids->kids[i]);
    Node *chain =
        node_two(r->arena, NODE_CHAIN, first->kids[0], node_of(r->arena, NODE_LIST, values.n, values.kids));
    chain->ops = first->ops;
    return chain;
}

Node *read_list(Reader *r) {
    Kids kids = {0};
    if (++r->depth > DEPTH_MAX) return reader_fail(r, "nested too deeply");
    for (;;) {
        Node *item = read_item(r);
        if (!item) return NULL;
        kids_add(r, &kids, item);
        if (kids.n == KIDS_MAX) return reader_fail(r, "too many items");
        bool more = false, word = false;
        while (at_separator(r, false)) { /* "1, 2, and 3", but not "1,,2" */
            char mark = peek(r);
            mark = mark == ',' || mark == ';';
            if (mark && more && !word) return reader_fail(r, "an item is missing");
            at_separator(r, true);
            more = true;
            word = !mark;
        }
        char c = peek(r);
        if (!more || !c || strchr(")]}", c) || (c == '.' && !at_atom(r))) break;
        if (c == '\\' && r->p + 1 < r->end && (r->p[1] == '}' || r->p[1] == '%')) break;
    }
    r->depth--;
    if (kids.n == 1) return kids.kids[0];
    Node *assigned = list_assigned(r, &kids);
    return assigned ? assigned : node_of(r->arena, NODE_LIST, kids.n, kids.kids);
}

/* {a} groups, {a, b} is a set. */
Node *read_braced(Reader *r) {
    if (!take_char(r, '{')) return reader_fail(r, "{ expected");
    int brackets = r->brackets, bars = r->bars;
    bool commas = r->commas;
    r->bars = 0;
    Node *in;
    Node *top = NULL;
    in = read_list(r);
    if (in && take_command(r, "choose")) {
        Node *bottom = read_list(r);
        if (!bottom) return NULL;
        Node *kids[2] = {in, bottom};
        in = node_fn(r->arena, FN_BINOM, 2, kids);
    }
    (void)top;
    if (!in) return NULL;
    if (!take_char(r, '}')) return reader_fail(r, "} expected");
    r->brackets = brackets, r->bars = bars, r->commas = commas;
    if (in->kind == NODE_LIST) {
        Node *set = node_of(r->arena, NODE_SET, in->n, in->kids);
        return set;
    }
    return in;
}

Node *math_parse(Parse *parse, const char *text, size_t n) {
    parse->fault = NULL;
    parse->could = 0;
    if (n > TEXT_MAX) {
        parse->fault = "longer than an answer may be";
        return NULL;
    }
    Reader r = {.parse = parse, .arena = parse->arena, .start = text, .p = text, .end = text + n, .commas = true};
    Relation about;
    if (peek(&r) == '=' || at_command(&r, "approx")) take_relation(&r, &about); /* "= 5": the name is left out */
    if (!peek(&r)) return reader_fail(&r, "nothing there");
    Node *node = read_list(&r);
    if (!node) return NULL;
    while (r.p < r.end && (strchr(".,;:*", *r.p) || peek(&r) == 0)) {
        if (r.p < r.end) r.p++;
    }
    if (peek(&r)) {
        parse->fault = arena_format(parse->arena, "not understood from \"%.40s\"", r.p);
        return NULL;
    }
    return node;
}
