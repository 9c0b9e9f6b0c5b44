/* countdown.c: the judge of Countdown and of the game of 24: an expression that uses each given number exactly
 * once, with + - * / and parentheses, and has the target's value, in exact fractions.
 *
 * The row has `numbers` (or `nums`) and `target` (24 for game24 where it has none). The expression stands in
 * <answer> tags, in the last \boxed{}, or in the last line that has one; "expression = target" is fine, a chain of
 * equations is not. TinyZero's rules (countdown.py), but read by a parser. Tested by tests/test_reward_shape.c.
 */
#include <ctype.h>
#include <flint/fmpq.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reward/shape.h"

enum { NUMBERS_MAX = 32, DEPTH_MAX = 64, DIGITS_MAX = 40 };

typedef struct {
    const char *p, *end;
    int depth, n_used;
    fmpq *used; /* [NUMBERS_MAX + 1] the numbers as they come */
    const char *fault;
} Reader;

/* ---- the text ---- */

/* Symbols that mean an operator: LaTeX's and Unicode's become ASCII; dollars, \left and blanks go. */
static void expression_clean(Buf *out, const char *text, size_t n) {
    static const char *const from[] = {"\\times",  "\\cdot",   "\\div",        "\\left",      "\\right",
                                       "\xc3\x97", "\xc3\xb7", "\xe2\x88\x92", "\xc2\xb7",    "\xe2\x8b\x85",
                                       "\\(",      "\\)",      "\\[",          "\\]",         "\\,",
                                       "\\ ",      "\\dfrac",  "\\tfrac",      "\xe2\x80\x93"};
    static const char *const to[] = {"*", "*", "/", "", "", "*", "/",      "-",      "*", "*",
                                     "",  "",  "",  "", "", "",  "\\frac", "\\frac", "-"};
    for (size_t i = 0; i < n;) {
        size_t k = 0, m = sizeof from / sizeof *from;
        while (k < m && (strlen(from[k]) > n - i || memcmp(text + i, from[k], strlen(from[k])))) k++;
        if (k < m) {
            buf_text(out, to[k]);
            i += strlen(from[k]);
        } else {
            if (text[i] != '$' && text[i] != '`') buf_char(out, text[i]);
            i++;
        }
    }
    if (!out->p) buf_text(out, "");
}

static void blanks(Reader *r) {
    while (r->p < r->end && isspace((unsigned char)*r->p)) r->p++;
}

static bool next_is(Reader *r, char c) {
    blanks(r);
    if (r->p == r->end || *r->p != c) return false;
    r->p++;
    return true;
}

static bool fail(Reader *r, const char *fault) {
    if (!r->fault) r->fault = fault;
    return false;
}

/* Digits, perhaps with a point and more. */
static bool number_read(Reader *r, fmpq_t out) {
    const char *start = r->p;
    long decimals = 0;
    char digits[DIGITS_MAX + 1];
    int n = 0;
    for (bool point = false; r->p < r->end && (isdigit((unsigned char)*r->p) || (*r->p == '.' && !point));
         r->p++) {
        if (*r->p == '.') {
            point = true;
            continue;
        }
        if (n == DIGITS_MAX) return fail(r, "a number is too long");
        digits[n++] = *r->p, decimals += point;
    }
    digits[n] = 0;
    if (n == 0) return r->p = start, fail(r, "not an expression");
    fmpz_set_str(fmpq_numref(out), digits, 10);
    fmpz_set_ui(fmpq_denref(out), 10);
    fmpz_pow_ui(fmpq_denref(out), fmpq_denref(out), (ulong)decimals);
    fmpq_canonicalise(out);
    return true;
}

/* ---- the expression ---- */

static bool sum_read(Reader *r, fmpq_t out);

static bool factor_read(Reader *r, fmpq_t out) {
    bool good;
    if (++r->depth > DEPTH_MAX) return fail(r, "too deep");
    if (next_is(r, '-')) {
        good = factor_read(r, out);
        fmpq_neg(out, out);
    } else if (next_is(r, '+')) {
        good = factor_read(r, out);
    } else if (next_is(r, '(')) {
        good = sum_read(r, out) && (next_is(r, ')') || fail(r, "a parenthesis is not closed"));
    } else if (r->end - r->p > 5 && !memcmp(r->p, "\\frac{", 6)) {
        fmpq_t below;
        fmpq_init(below);
        r->p += 6;
        good = sum_read(r, out) && next_is(r, '}') && next_is(r, '{') && sum_read(r, below) && next_is(r, '}');
        if (good && fmpq_is_zero(below)) good = fail(r, "it divides by zero");
        if (good) fmpq_div(out, out, below);
        fmpq_clear(below);
    } else {
        good = number_read(r, out);
        if (good && r->n_used > NUMBERS_MAX) good = fail(r, "too many numbers");
        if (good) fmpq_set(r->used + r->n_used++, out);
    }
    r->depth--;
    return good;
}

static bool product_read(Reader *r, fmpq_t out) {
    fmpq_t next;
    fmpq_init(next);
    bool good = factor_read(r, out);
    while (good) {
        bool times = next_is(r, '*'), over = !times && next_is(r, '/');
        if (!times && !over) break;
        good = factor_read(r, next);
        if (good && over && fmpq_is_zero(next)) good = fail(r, "it divides by zero");
        if (good && times) fmpq_mul(out, out, next);
        if (good && over) fmpq_div(out, out, next);
    }
    fmpq_clear(next);
    return good;
}

static bool sum_read(Reader *r, fmpq_t out) {
    fmpq_t next;
    fmpq_init(next);
    bool good = product_read(r, out);
    while (good) {
        bool plus = next_is(r, '+'), minus = !plus && next_is(r, '-');
        if (!plus && !minus) break;
        good = product_read(r, next);
        if (good && plus) fmpq_add(out, out, next);
        if (good && minus) fmpq_sub(out, out, next);
    }
    fmpq_clear(next);
    return good;
}

/* ---- the problem ---- */

typedef struct {
    fmpq numbers[NUMBERS_MAX];
    int n;
    fmpq_t target;
} Puzzle;

static bool rational_of(const json_t *value, fmpq_t out) {
    Reader r = {0};
    char *text = json_is_string(value)   ? mem_text(json_string_value(value))
                 : json_is_number(value) ? json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15))
                                         : NULL;
    if (!text) return false;
    bool minus = *text == '-';
    r.p = text + minus, r.end = text + strlen(text);
    bool good = number_read(&r, out) && r.p == r.end;
    if (minus) fmpq_neg(out, out);
    free(text);
    return good;
}

/* False where the row does not say what the puzzle is. */
static bool puzzle_read(Puzzle *puzzle, const RewardItem *item, long target) {
    json_t *row = item->fields ? json_loads(item->fields, JSON_ALLOW_NUL, NULL) : NULL;
    json_t *numbers = json_object_get(row, "numbers"), *goal = json_object_get(row, "target");
    if (!numbers) numbers = json_object_get(row, "nums");
    size_t n = json_array_size(numbers);
    bool good = n > 0 && n <= NUMBERS_MAX;
    for (size_t i = 0; good && i < n; i++)
        good = rational_of(json_array_get(numbers, i), &puzzle->numbers[puzzle->n++]);
    if (good && goal)
        good = rational_of(goal, puzzle->target);
    else if (good && target)
        fmpq_set_si(puzzle->target, target, 1);
    else
        good = false;
    json_decref(row);
    return good;
}

/* Whether the numbers that were used are those that were given, each once. */
static bool numbers_fit(const Puzzle *puzzle, const Reader *r) {
    bool taken[NUMBERS_MAX] = {false};
    if (r->n_used != puzzle->n) return false;
    for (int i = 0; i < r->n_used; i++) {
        int k = 0;
        while (k < puzzle->n && (taken[k] || !fmpq_equal(&puzzle->numbers[k], r->used + i))) k++;
        if (k == puzzle->n) return false;
        taken[k] = true;
    }
    return true;
}

/* ---- the verdict ---- */

/* One side of an equation, or the whole: NULL when it solves the puzzle, else what is wrong with it. */
static const char *expression_fault(const Puzzle *puzzle, const char *p, size_t n) {
    Reader r = {.p = p, .end = p + n};
    fmpq value[1];
    fmpq_init(value);
    r.used = MEM_ARRAY(fmpq, NUMBERS_MAX + 1);
    for (int i = 0; i <= NUMBERS_MAX; i++) fmpq_init(r.used + i);
    const char *fault = NULL;
    bool good = sum_read(&r, value);
    blanks(&r);
    if (!good)
        fault = r.fault ? r.fault : "not an expression";
    else if (r.p != r.end)
        fault = "not an expression of numbers, + - * / and parentheses";
    else if (!numbers_fit(puzzle, &r))
        fault = "the given numbers are not used exactly once each";
    else if (!fmpq_equal(value, puzzle->target))
        fault = "it has another value";
    for (int i = 0; i <= NUMBERS_MAX; i++) fmpq_clear(r.used + i);
    free(r.used);
    fmpq_clear(value);
    return fault;
}

static bool is_target(const Puzzle *puzzle, const char *p, size_t n) {
    Reader r = {.p = p, .end = p + n};
    fmpq_t value;
    fmpq_init(value);
    blanks(&r);
    bool minus = next_is(&r, '-');
    blanks(&r);
    bool good = number_read(&r, value);
    blanks(&r);
    if (minus) fmpq_neg(value, value);
    good = good && r.p == r.end && fmpq_equal(value, puzzle->target);
    fmpq_clear(value);
    return good;
}

static const char *equation_fault(const Puzzle *puzzle, const char *text, size_t n) {
    Buf clean = {0};
    expression_clean(&clean, text, n);
    const char *p = clean.p, *fault;
    n = clean.n;
    while (n && strchr(" \t\r\n*", *p)) p++, n--; /* Markdown's stars, too */
    while (n && strchr(" \t\r\n*.", p[n - 1])) n--;
    const char *equals = memchr(p, '=', n);
    if (!equals) {
        fault = expression_fault(puzzle, p, n);
    } else {
        size_t left = (size_t)(equals - p), right = n - left - 1;
        if (memchr(equals + 1, '=', right))
            fault = "several equations where one expression is asked for";
        else if (is_target(puzzle, equals + 1, right))
            fault = expression_fault(puzzle, p, left);
        else if (is_target(puzzle, p, left))
            fault = expression_fault(puzzle, equals + 1, right);
        else
            fault = "the equation does not end at the target";
    }
    buf_free(&clean);
    return fault;
}

static bool may_be_expression(const char *p, size_t n) {
    bool digit = false, sign = false;
    for (size_t i = 0; i < n; i++) {
        digit |= isdigit((unsigned char)p[i]) != 0;
        sign |= strchr("+-*/\\\xc3\xe2", p[i]) != NULL; /* also those of LaTeX and Unicode */
    }
    return digit && sign;
}

/* Without a mark: the last line that may be an expression, from what follows a colon. */
static const char *line_of(const char *text, size_t *n) {
    const char *end = text + *n;
    while (end > text) {
        const char *start = end;
        while (start > text && start[-1] != '\n') start--;
        const char *colon = memrchr(start, ':', (size_t)(end - start)), *from = colon ? colon + 1 : start;
        if (may_be_expression(from, (size_t)(end - from))) return *n = (size_t)(end - from), from;
        end = start > text ? start - 1 : start;
    }
    return NULL;
}

static void puzzle_judge(const RewardItem *item, RewardScore *score, long target) {
    Puzzle puzzle = {0};
    fmpq_init(puzzle.target);
    for (int i = 0; i < NUMBERS_MAX; i++) fmpq_init(&puzzle.numbers[i]);
    size_t n;
    bool marked;
    if (!puzzle_read(&puzzle, item, target)) {
        score_unjudged(score, "no-numbers", "the row does not have numbers (an array) and a target");
    } else {
        const char *text = answer_region(item->completion, &n, &marked);
        if (!marked) text = line_of(text, &n);
        const char *fault = text ? equation_fault(&puzzle, text, n) : "no expression found";
        score_set(score, fault ? 0 : 1, !fault,
                  !fault ? "solved"
                  : text ? "wrong-expression"
                         : "no-answer",
                  mem_text(fault ? fault : "it uses each number once and has the target's value"));
    }
    for (int i = 0; i < NUMBERS_MAX; i++) fmpq_clear(&puzzle.numbers[i]);
    fmpq_clear(puzzle.target);
}

static void countdown_judge(const RewardConf *conf, const RewardItem *item, RewardScore *score) {
    (void)conf;
    puzzle_judge(item, score, 0);
}
static void game24_judge(const RewardConf *conf, const RewardItem *item, RewardScore *score) {
    (void)conf;
    puzzle_judge(item, score, 24);
}

const JudgeKind judge_countdown = {.name = "countdown", .judge = countdown_judge, .truth = true};
const JudgeKind judge_game24 = {.name = "game24", .judge = game24_judge, .truth = true};
