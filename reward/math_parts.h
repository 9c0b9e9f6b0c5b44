/* math_parts.h: what the files of the math judge share; no other file includes it.
 *
 *   math_extract.c  a completion -> the texts that may be its answer, best first
 *   math_words.c    words and Unicode signs; math_lex.c: commands, blanks and numbers
 *   math_parse.c    a text -> a tree (math_atom.c, math_group.c: its parts)
 *   math_bind.c     sums, integrals, limits, derivatives
 *   math_tree.c     making, comparing and printing trees
 *   math_exact.c    a tree -> a rational number, where it is one
 *   math_ball.c     a tree -> a complex ball, at given values of its free symbols
 *   math_equal.c    two trees -> a verdict (math_sets.c: sets and relations)
 *   math.c          the judge
 *
 * Everything is bounded: an answer has at most TEXT_MAX bytes and DEPTH_MAX levels, so its tree is small; exact
 * numbers have at most BITS_MAX bits, balls at most PREC_MAX; each comparison has a budget of evaluated nodes. So
 * no input needs another process. All memory of one judgement is in one arena. No function here depends on the
 * locale, on global state or on the order of calls.
 */
#ifndef WHET_MATH_PARTS_H
#define WHET_MATH_PARTS_H

#include <flint/fmpq.h>
#include <acb.h>

#include "kernels/base.h"

enum {
    TEXT_MAX = 2048,    /* bytes of an answer; MATH's longest has 159 */
    DEPTH_MAX = 60,     /* levels of brackets, braces and functions */
    BITS_MAX = 1 << 16, /* of an exact number: about 20,000 digits */
    PREC_MAX = 4096,    /* bits of a ball */
    WORK_MAX = 12000,   /* nodes evaluated for one pair of answers */
    RANGE_MAX = 1000,   /* terms of a sum or product with number bounds */
};

typedef struct {
    const char *p;
    size_t n;
} Span;

/* ---- trees ---- */

typedef enum {
    NODE_NUMBER, /* text: digits without separators; scale: power of ten; decimals: digits after the point, or -1
                  */
    NODE_SYMBOL, /* text: the name */
    NODE_CONST,  /* op: Constant */
    NODE_ADD,
    NODE_MUL,
    NODE_DIV,
    NODE_POW,
    NODE_NEG,
    NODE_PM,   /* op '+' for plus-minus, '-' for minus-plus; one or two kids */
    NODE_FN,   /* op: Function */
    NODE_CALL, /* text: name of an unknown function, or of an indexed symbol with '_' at its end */
    NODE_BIND, /* op: Function (sum, product, integral, limit, derivative); text: variable; kids: low, high, body
                */
    NODE_PERCENT,
    NODE_DEGREE,
    NODE_UNIT,   /* one kid; text: the unit's words */
    NODE_BASE,   /* text: digits; scale: the base */
    NODE_RATIO,  /* a:b:c */
    NODE_TEXT,   /* text: words */
    NODE_CHAIN,  /* kids with relations between them: op[i] between i and i+1 */
    NODE_LIST,   /* bare, separated by commas */
    NODE_TUPLE,  /* in round brackets */
    NODE_SET,    /* in braces */
    NODE_SPAN,   /* an interval: open_left, open_right */
    NODE_SETOP,  /* op 'u', 'n', '\\' */
    NODE_MATRIX, /* rows, kids */
} NodeKind;

typedef enum {
    CONST_PI,
    CONST_E,
    CONST_I,
    CONST_INF,
    CONST_EMPTY,
    CONST_NATURALS,
    CONST_INTEGERS,
    CONST_RATIONALS,
    CONST_REALS,
    CONST_COMPLEX,
} Constant;

typedef enum {
    FN_NONE,
    FN_SQRT,
    FN_ROOT,
    FN_ABS,
    FN_FACT,
    FN_FACT2,
    FN_BINOM,
    FN_EXP,
    FN_LN,
    FN_LOG,
    FN_LG,
    FN_SIN,
    FN_COS,
    FN_TAN,
    FN_COT,
    FN_SEC,
    FN_CSC,
    FN_ASIN,
    FN_ACOS,
    FN_ATAN,
    FN_ACOT,
    FN_ASEC,
    FN_ACSC,
    FN_SINH,
    FN_COSH,
    FN_TANH,
    FN_COTH,
    FN_SECH,
    FN_CSCH,
    FN_ASINH,
    FN_ACOSH,
    FN_ATANH,
    FN_ACOTH,
    FN_ASECH,
    FN_ACSCH,
    FN_FLOOR,
    FN_CEIL,
    FN_MOD,
    FN_GCD,
    FN_LCM,
    FN_MAX,
    FN_MIN,
    FN_RE,
    FN_IM,
    FN_ARG,
    FN_CONJ,
    FN_DET,
    FN_SGN,
    FN_SUM,
    FN_PROD,
    FN_INT,
    FN_LIM,
    FN_DIFF,
} Function;

typedef enum {
    REL_EQ,
    REL_NE,
    REL_LT,
    REL_LE,
    REL_GT,
    REL_GE,
    REL_IN,
    REL_ABOUT,
    REL_TO,
    REL_SUBSET,
    REL_SUPSET,
    REL_OTHER
} Relation;

typedef struct Node Node;
struct Node {
    uint8_t kind, op;
    bool open_left, open_right; /* of intervals */
    bool grouped;               /* stood in brackets of its own */
    bool raised;                /* a superscript, or words: can't be the number part of a mixed number */
    int16_t n, rows;
    int32_t scale, decimals;
    const char *text;
    const uint8_t *ops; /* of chains: n - 1 relations */
    Node **kids;
};

Node *node_new(Arena *arena, NodeKind kind);
Node *node_of(Arena *arena, NodeKind kind, int n, Node *const *kids);
Node *node_one(Arena *arena, NodeKind kind, Node *kid);
Node *node_two(Arena *arena, NodeKind kind, Node *a, Node *b);
Node *node_fn(Arena *arena, Function fn, int n, Node *const *kids);
Node *node_int(Arena *arena, int64_t value);
Node *node_text(Arena *arena, NodeKind kind, const char *text, size_t n);
Node *node_const(Arena *arena, Constant constant);
int node_count(const Node *node);
bool node_same(const Node *a, const Node *b); /* the same tree, numbers compared by digits */
void node_print(Buf *buf, const Node *node);  /* a normal form for people */
bool node_has_symbols(const Node *node);      /* free or bound names, unknown functions */
bool node_is(const Node *node, NodeKind kind);
/* The letters of a product of one-letter symbols, or of a text, joined; false when it is neither. */
bool node_letters(const Node *node, Buf *buf);

/* The first n characters are the same, ASCII letters compared without case (whatever the locale). */
bool text_alike(const char *a, const char *b, size_t n);

/* ---- words ---- */

typedef enum {
    WORD_NONE,
    WORD_FN,
    WORD_CONST,
    WORD_SEPARATOR,
    WORD_PERCENT,
    WORD_UNIT,
    WORD_GREEK,
    WORD_DEGREE
} WordKind;
typedef struct {
    WordKind kind;
    int value; /* Function or Constant */
} Word;
Word word_find(const char *p, size_t n);
/* Replaces Unicode signs by LaTeX or ASCII ones and drops invisible characters; at most max bytes of output. */
char *text_plain(Arena *arena, const char *p, size_t n, size_t max);

/* ---- parsing ---- */

typedef enum {
    READ_DECIMAL_COMMA = 1, /* 3,5 is 3.5 */
    READ_LOOSE_SLASH = 2,   /* 1/2x is (1/2)x */
    READ_LETTER_UNITS = 4,  /* 5 m is 5 meters */
    READ_SCIENTIFIC = 8,    /* 2e-3 is 0.002 */
} Reading;

typedef struct {
    Arena *arena;
    unsigned reading;
    unsigned could; /* readings that the text would allow besides */
    const char *fault;
} Parse;

/* The tree of a text, or NULL and parse->fault. */
Node *math_parse(Parse *parse, const char *text, size_t n);

/* ---- extraction ---- */

typedef struct {
    const char *text; /* plain text, at most TEXT_MAX + 1 bytes; longer: cut there */
    const char *how;  /* "box", "answer tag", "####", ... */
} Candidate;

typedef struct {
    int n;
    Candidate c[16];
    bool words;        /* words alone may be the answer */
    bool thought_only; /* the completion never left its thought */
} Candidates;

/* words: the expected answer has words, so words alone may be the answer. */
void answer_extract(Arena *arena, const char *completion, bool strict, bool words, Candidates *out);
void gold_extract(Arena *arena, const char *gold, Candidates *out);
/* The letter of an option: of a short answer such as "(C)", "C. 12", "\text{(C)}"; 0 when it is none. */
char option_letter(const char *text);
/* The letter that a whole response settles on, or 0. */
char option_settled(Arena *arena, const char *completion);

/* ---- values ---- */

typedef struct {
    int work;  /* nodes that may still be evaluated */
    bool over; /* it ran out */
    bool huge; /* a number was too large to be computed */
} Budget;

/* True when the tree is a rational number within the limits; then it is in out. */
bool exact_value(const Node *node, fmpq_t out, Budget *budget);
/* The values of free symbols are numbers made of their names, the point's number and its kind. */
typedef struct {
    int point;
    slong prec;
    bool complex; /* the trees speak of i: nothing is outside the domain */
    bool left;    /* out: a real function was used outside its real domain */
    slong reach;  /* out: the largest |log2| of a value on the way */
    Budget *budget;
    int depth;
} Point;
bool ball_value(const Node *node, acb_t out, Point *point);

/* The tree with matrices joined and gcd, lcm of monomials computed. */
Node *math_fold(Arena *arena, Budget *budget, Node *node);

/* ---- comparison ---- */

typedef enum { VERDICT_DIFFERENT, VERDICT_EXACT, VERDICT_SYMBOLIC, VERDICT_NUMERIC, VERDICT_TOO_LARGE } Verdict;

typedef struct {
    Arena *arena;
    Budget *budget;
    bool rounds;  /* the problem asks for a rounded answer */
    bool complex; /* either side speaks of i */
    int inside;   /* levels of containers around what is compared */
    int binds;
} Compare;

Verdict math_equal(Compare *compare, const Node *gold, const Node *answer);
/* Two values (numbers or expressions). */
Verdict value_equal(Compare *compare, const Node *gold, const Node *answer);
/* Can all values in the tree be computed within the limits? */
bool value_measurable(Budget *budget, const Node *node);
/* Sign of a - b for real constants: -1, 0, 1; 2 when it can't be told. */
int value_order(Compare *compare, const Node *a, const Node *b);
Verdict set_equal(Compare *compare, const Node *gold, const Node *answer);
Verdict chain_equal(Compare *compare, const Node *gold, const Node *answer);
/* Is set a a part of set b, both of constants? 1, 0, or -1 when it can't be told. */
int set_within(Compare *compare, const Node *a, const Node *b);
Node *chain_set(Compare *compare, const Node *chain); /* the interval that an inequality describes, or NULL */
static inline bool verdict_right(Verdict v) { return v >= VERDICT_EXACT && v <= VERDICT_NUMERIC; }
static inline Verdict verdict_weaker(Verdict a, Verdict b) { return a > b ? a : b; } /* of two right ones */

#endif
