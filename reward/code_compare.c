/* code_compare.c: compares what a program wrote with what was expected. Bytes in, yes or no out.
 * Lines: after trailing blanks of each line and trailing empty lines are dropped. Tokens: the words, wherever they
 * stand. Floats: words that are numbers may differ by the tolerance, absolute or relative. Tested by
 * tests/test_reward_code.c. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reward/code.h"

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v'; }

static size_t trimmed(const char *p, size_t n) {
    while (n && (blank(p[n - 1]) || p[n - 1] == '\n')) n--;
    return n;
}

static bool lines_equal(const char *a, size_t na, const char *b, size_t nb) {
    na = trimmed(a, na), nb = trimmed(b, nb);
    size_t i = 0, j = 0;
    for (;;) {
        const char *ea = memchr(a + i, '\n', na - i), *eb = memchr(b + j, '\n', nb - j);
        size_t la = ea ? (size_t)(ea - a) - i : na - i, lb = eb ? (size_t)(eb - b) - j : nb - j;
        size_t ta = trimmed(a + i, la), tb = trimmed(b + j, lb);
        if (ta != tb || memcmp(a + i, b + j, ta) != 0) return false;
        if (!ea || !eb) return !ea && !eb;
        i += la + 1, j += lb + 1;
    }
}

static bool next_word(const char *p, size_t n, size_t *at, const char **word, size_t *length) {
    while (*at < n && isspace((unsigned char)p[*at])) ++*at;
    *word = p + *at;
    size_t start = *at;
    while (*at < n && !isspace((unsigned char)p[*at])) ++*at;
    *length = *at - start;
    return *length > 0;
}

static bool number_of_word(const char *word, size_t n, double *value) {
    char text[64], *end;
    if (n >= sizeof text || strspn(word, "+-.0123456789eE") < n) return false; /* no nan, inf or hexadecimal */
    memcpy(text, word, n);
    text[n] = '\0';
    *value = strtod(text, &end);
    return *end == '\0' && isfinite(*value);
}

static bool words_equal(const char *a, size_t na, const char *b, size_t nb, Compare compare, double tolerance) {
    size_t i = 0, j = 0, la, lb;
    const char *wa, *wb;
    for (;;) {
        bool more_a = next_word(a, na, &i, &wa, &la), more_b = next_word(b, nb, &j, &wb, &lb);
        if (!more_a || !more_b) return more_a == more_b;
        if (la == lb && memcmp(wa, wb, la) == 0) continue;
        double x, y;
        if (compare != COMPARE_FLOATS || !number_of_word(wa, la, &x) || !number_of_word(wb, lb, &y)) return false;
        if (!(fabs(x - y) <= tolerance * fmax(1.0, fabs(x)))) return false;
    }
}

bool outputs_equal(const char *expected, size_t n_expected, const char *got, size_t n_got, Compare compare,
                   double tolerance) {
    if (compare == COMPARE_LINES) return lines_equal(expected, n_expected, got, n_got);
    return words_equal(expected, n_expected, got, n_got, compare, tolerance);
}
