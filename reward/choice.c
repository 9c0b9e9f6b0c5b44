/* choice.c: the judge of multiple choice, and where answers stand.
 *
 * The expected answer is a letter ("B", "(B)"), or with `choices` (or `options`) in the row also one of their
 * texts or a number from 0. The chosen letter stands in <answer> tags, in the last \boxed{}, after the last
 * "answer is" or "answer:", or alone in the last line; the text of a choice in one of the first two will do. Two
 * different letters are no choice. Tested by tests/test_reward_shape.c.
 */
#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "reward/shape.h"

enum { LETTERS = 26 };

/* ---- where the answer stands ---- */

static const char *find_last(const char *text, const char *end, const char *piece) {
    const char *last = NULL;
    size_t n = strlen(piece);
    for (const char *p = text; p < end && (p = memmem(p, (size_t)(end - p), piece, n)); p++) last = p;
    return last;
}

/* What the last closed \boxed{} holds. */
static const char *box_last(const char *text, const char *end, size_t *n) {
    for (const char *box = end; (box = find_last(text, box, "\\boxed{"));) {
        int depth = 1;
        const char *start = box + 7, *p = start;
        for (; p < end && depth; p++) depth += *p == '{' ? 1 : *p == '}' ? -1 : 0;
        if (!depth) return *n = (size_t)(p - 1 - start), start;
    }
    return NULL;
}

const char *answer_region(const char *text, size_t *n, bool *marked) {
    const char *end = text + strlen(text), *thought = find_last(text, end, "</think>");
    if (thought) text = thought + 8;
    const char *close = find_last(text, end, "</answer>"),
               *open = find_last(text, close ? close : end, "<answer>");
    *marked = true;
    if (open) {
        open += 8;
        const char *stop = close ? close : end, *box = box_last(open, stop, n);
        if (box) return box;
        return *n = (size_t)(stop - open), open;
    }
    const char *box = box_last(text, end, n);
    if (box) return box;
    *marked = false;
    return *n = (size_t)(end - text), text;
}

/* ---- letters ---- */

static bool is_word(char c) { return isalnum((unsigned char)c) || (unsigned char)c >= 0x80 || c == '_'; }

/* The one letter that stands alone in the text (not part of a word): 0 .. 25; -1: none, -2: several. An "A" before
 * a lower-case word, and "I", are words of English unless `bare`. */
static int letter_in(const char *p, size_t n, bool bare) {
    int found = -1;
    for (size_t i = 0; i < n; i++) {
        if (!isupper((unsigned char)p[i]) || (i > 0 && is_word(p[i - 1])) || (i + 1 < n && is_word(p[i + 1])))
            continue;
        if (i > 0 && p[i - 1] == '\\') continue;
        size_t next = i + 1;
        while (next < n && p[next] == ' ') next++;
        bool bracket = i > 0 && (p[i - 1] == '(' || p[i - 1] == '*' || p[i - 1] == '{');
        bool listed = n - next > 3 && (!memcmp(p + next, "or ", 3) || !memcmp(p + next, "and", 3));
        bool english = (p[i] == 'A' || p[i] == 'I') && next > i + 1 && next < n && islower((unsigned char)p[next]);
        english = english && !listed;
        if (english && !bare && !bracket) continue;
        if (found >= 0 && found != p[i] - 'A') return -2;
        found = p[i] - 'A';
    }
    return found;
}

static bool text_equal(const char *p, size_t n, const char *text) {
    while (n && isspace((unsigned char)*p)) p++, n--;
    while (n && (isspace((unsigned char)p[n - 1]) || p[n - 1] == '.')) n--;
    size_t m = strlen(text);
    while (m && (isspace((unsigned char)text[m - 1]) || text[m - 1] == '.')) m--;
    while (m && isspace((unsigned char)*text)) text++, m--;
    return m && n == m && !strncasecmp(p, text, n);
}

/* The choice whose text this is, or -1. */
static int choice_named(json_t *choices, const char *p, size_t n) {
    size_t i;
    json_t *value;
    json_array_foreach(choices, i, value) {
        if (json_is_string(value) && text_equal(p, n, json_string_value(value))) return (int)i;
    }
    return -1;
}

/* The lone letter of "(B)", "B.", "**B**", "$B$", "\text{B}" and the like, with what may follow it. */
static int letter_first(const char *p, size_t n) {
    size_t i = 0;
    while (i < n && strchr(" \t\n([{*$:\"'", p[i])) i++;
    if (n - i > 6 && !memcmp(p + i, "\\text{", 6)) i += 6;
    if (n - i > 8 && !memcmp(p + i, "\\mathrm{", 8)) i += 8;
    while (i < n && p[i] == '(') i++;
    if (i >= n || !isupper((unsigned char)p[i]) || (i + 1 < n && is_word(p[i + 1]))) return -1;
    size_t next = i + 1;
    while (next < n && p[next] == ' ') next++;
    if ((p[i] == 'A' || p[i] == 'I') && next > i + 1 && next < n && islower((unsigned char)p[next])) return -1;
    return p[i] - 'A';
}

/* After the last phrase that announces an answer. */
static int letter_announced(const char *text, size_t n) {
    static const char *const phrases[] = {"answer is", "answer:", "answer**:", "choice is", "option is"};
    const char *best = NULL;
    for (size_t k = 0; k < sizeof phrases / sizeof *phrases; k++)
        for (size_t m = strlen(phrases[k]), i = 0; i + m <= n; i++)
            if (!strncasecmp(text + i, phrases[k], m) && (!best || text + i + m > best)) best = text + i + m;
    if (!best) return -1;
    size_t rest = (size_t)(text + n - best);
    for (size_t skip = 0; skip < rest && skip < 12; skip++) { /* "answer is option (B)" */
        int letter = letter_first(best + skip, rest - skip);
        if (letter >= 0 && (skip == 0 || !is_word(best[skip - 1]))) return letter;
    }
    return -1;
}

static const char *line_last(const char *text, size_t *n) {
    const char *end = text + *n;
    while (end > text && isspace((unsigned char)end[-1])) end--;
    const char *start = end;
    while (start > text && start[-1] != '\n') start--;
    return *n = (size_t)(end - start), start;
}

static bool has_word(const char *p, size_t n) {
    for (size_t i = 1; i < n; i++)
        if (is_word(p[i]) && is_word(p[i - 1])) return true;
    return false;
}

/* The chosen letter; -1: none, -2: several. */
static int choice_made(const char *completion, json_t *choices) {
    size_t n;
    bool marked;
    const char *text = answer_region(completion, &n, &marked);
    if (marked) {
        int named = choice_named(choices, text, n);
        if (named >= 0) return named;
        int announced = letter_announced(text, n), letter = letter_in(text, n, false);
        if (announced >= 0 && letter != -2) return announced;
        if (letter == -1) letter = letter_first(text, n);
        return letter;
    }
    int letter = letter_announced(text, n);
    if (letter >= 0) return letter;
    text = line_last(text, &n);
    letter = letter_first(text, n);
    if (letter >= 0 && letter_in(text, n, true) == -2) return -2;
    bool listed = letter >= 0 && memchr(text, ')', n < 4 ? n : 4);
    return letter >= 0 && (listed || !has_word(text, n) || memchr(text, '.', n < 3 ? n : 3)) ? letter : -1;
}

/* ---- the verdict ---- */

/* What the row expects: a letter's number, or -1. */
static int choice_expected(const RewardItem *item, json_t *row, json_t *choices) {
    const char *answer = item->answer;
    json_t *number = json_object_get(row, "answer");
    if (json_is_integer(number) && choices) {
        json_int_t i = json_integer_value(number);
        return i >= 0 && i < (json_int_t)json_array_size(choices) ? (int)i : -1;
    }
    if (!answer) return -1;
    int named = choice_named(choices, answer, strlen(answer)), letter = letter_first(answer, strlen(answer));
    if (letter >= 0 && !has_word(answer, strlen(answer))) return letter;
    return named;
}

static void choice_judge(const RewardConf *conf, const RewardItem *item, RewardScore *score) {
    (void)conf;
    json_t *row = item->fields ? json_loads(item->fields, JSON_ALLOW_NUL, NULL) : NULL;
    json_t *choices = json_object_get(row, "choices");
    if (!json_is_array(choices)) choices = json_object_get(row, "options");
    if (!json_is_array(choices)) choices = NULL;
    int expected = choice_expected(item, row, choices);
    if (expected < 0 || expected >= LETTERS) {
        score_unjudged(score, "no-choice-expected", "the row's answer is no letter and none of its choices");
    } else {
        int made = choice_made(item->completion, choices);
        bool right = made == expected;
        score_set(score, right, right,
                  right        ? "right-choice"
                  : made == -2 ? "several-choices"
                  : made < 0   ? "no-answer"
                               : "wrong-choice",
                  made < 0 ? mem_text(made == -2 ? "it names several letters" : "no letter is chosen")
                           : text_format("it chooses %c, %c is right", 'A' + made, 'A' + expected));
    }
    json_decref(row);
}

const JudgeKind judge_choice = {.name = "choice", .judge = choice_judge, .truth = true};
