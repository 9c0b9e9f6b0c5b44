/* Tests of the math judge: the cases of tests/cases/ (one line each), and what must hold for any input: bounded
 * time and memory, the same verdict whatever ran before, in any thread and locale. Mutants of the cases are the
 * input; WHET_HOSTILE=1000000 asks for more of them than the default. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <flint/flint.h>
#include <jansson.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "reward/reward.h"

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1, MUTANTS = 20000 };
#else
enum { SANITIZED = 0, MUTANTS = 20000 };
#endif
enum { THREADS = 4 };

typedef struct {
    json_t *row;
    RewardItem item;
    const char *verdict;
    bool strict;
} Case;

static Case *cases;
static int n_cases;

static void cases_read(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) fail_msg("%s is missing (run from the repository's root)", path);
    char *line = NULL;
    size_t room = 0;
    for (int number = 1; getline(&line, &room, file) > 0; number++) {
        json_t *row = json_loads(line, 0, NULL);
        if (!row) fail_msg("%s:%d is no JSON", path, number);
        cases = mem_grow(cases, (size_t)n_cases + 1, sizeof *cases);
        Case *at = &cases[n_cases++];
        *at = (Case){.row = row};
        at->item.answer = json_string_value(json_object_get(row, "gold"));
        at->item.completion = json_string_value(json_object_get(row, "completion"));
        at->item.problem = json_string_value(json_object_get(row, "problem"));
        at->verdict = json_string_value(json_object_get(row, "verdict"));
        at->strict = json_is_true(json_object_get(row, "strict"));
        if (!at->item.answer || !at->item.completion || !at->verdict)
            fail_msg("%s:%d lacks a field", path, number);
    }
    free(line);
    fclose(file);
}

static int cases_open(void **state) {
    (void)state;
    cases_read("tests/cases/math.jsonl");
    cases_read("tests/cases/math_upstream.jsonl");
    return 0;
}

static int cases_close(void **state) {
    (void)state;
    for (int i = 0; i < n_cases; i++) json_decref(cases[i].row);
    free(cases);
    flint_cleanup();
    return 0;
}

static RewardScore case_judge(const Case *at) {
    RewardConf conf = {.strict = at->strict};
    RewardScore score;
    judge_math.judge(&conf, &at->item, &score);
    return score;
}

static void test_cases(void **state) {
    (void)state;
    int wrong = 0;
    for (int i = 0; i < n_cases; i++) {
        RewardScore score = case_judge(&cases[i]);
        if (strcmp(score.verdict, cases[i].verdict)) {
            wrong++;
            print_error("%s, not %s (%s): gold %.200s, completion %.200s, %s\n", score.verdict, cases[i].verdict,
                        score.reason, cases[i].item.answer, cases[i].item.completion, score.detail);
        }
        reward_score_free(&score);
    }
    assert_int_equal(wrong, 0);
}

/* Class, value and verdict say the same; the detail is a JSON object. */
static void score_check(const RewardScore *score) {
    bool right = !strncmp(score->verdict, "equal-", 6);
    bool unjudged = strstr(score->verdict, "gold") != NULL;
    assert_int_equal(score->class, right ? SCORE_RIGHT : unjudged ? SCORE_UNJUDGED : SCORE_WRONG);
    assert_true(unjudged ? isnan(score->value) : (score->value == 1) == right);
    json_t *detail = json_loads(score->detail, 0, NULL);
    assert_true(json_is_object(detail));
    json_decref(detail);
}

static void test_scores_are_whole(void **state) {
    (void)state;
    for (int i = 0; i < n_cases; i++) {
        RewardConf conf = {.strict = cases[i].strict, .explain = true};
        RewardScore score;
        judge_math.judge(&conf, &cases[i].item, &score);
        score_check(&score);
        reward_score_free(&score);
    }
}

/* ---- order, threads, locales ---- */

/* Steps of this size reach every case. */
static int stride_of(int n) { return n % 7 ? 7 : n % 11 ? 11 : 13; }

static void *cases_again(void *argument) {
    int start = *(int *)argument;
    intptr_t wrong = 0;
    for (int k = 0; k < n_cases; k++) {
        const Case *at = &cases[(start + stride_of(n_cases) * k) % n_cases];
        RewardScore score = case_judge(at);
        wrong += strcmp(score.verdict, at->verdict) != 0;
        reward_score_free(&score);
    }
    flint_cleanup();
    return (void *)wrong;
}

static void test_threads_and_order(void **state) {
    (void)state;
    assert_int_not_equal(n_cases % stride_of(n_cases), 0);
    pthread_t threads[THREADS];
    int starts[THREADS];
    for (int i = 0; i < THREADS; i++) {
        starts[i] = i * n_cases / THREADS;
        assert_int_equal(pthread_create(&threads[i], NULL, cases_again, &starts[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
}

/* A locale with a decimal comma: one of the system's, or one made from its sources. */
static const char *comma_locale(void) {
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "ru_RU.UTF-8"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (setlocale(LC_ALL, names[i])) return names[i];
    static char folder[] = "/tmp/whet-locale-XXXXXX";
    char command[200];
    if (!mkdtemp(folder)) return NULL;
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >/dev/null 2>&1", folder);
    bool made = system(command) == 0 && setenv("LOCPATH", folder, 1) == 0;
    const char *set = made && setlocale(LC_ALL, "de_DE.UTF-8") ? "de_DE.UTF-8" : NULL;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) == 0 ? set : NULL;
}

static void test_locale(void **state) {
    (void)state;
    if (!comma_locale()) {
        printf("SKIPPED: no locale with a decimal comma\n");
        skip();
    }
    assert_string_equal(localeconv()->decimal_point, ",");
    int start = 0;
    void *wrong = cases_again(&start);
    setlocale(LC_ALL, "C");
    assert_null(wrong);
}

/* ---- hostile input ---- */

static const char *const pieces[] = {
    "a ",
    " ab",
    "abcd",
    "1 ",
    "\\text{a} ",
    "f(",
    "x_",
    "\\to ",
    "\\frac{",
    "}{",
    "}",
    "{",
    "(",
    ")",
    "[",
    "]",
    "\\{",
    "\\}",
    "^",
    "_",
    "!",
    "9",
    "99",
    "999999999",
    "10^",
    "e^",
    "x",
    "y",
    "n",
    "+",
    "-",
    "*",
    "/",
    "\\cdot ",
    "\\sqrt{",
    "\\sqrt[3]{",
    "\\sin ",
    "\\cos(",
    "\\log_2 ",
    "\\binom{",
    "\\sum_{k=1}^{n} ",
    "\\prod_{i=1}^{1000} ",
    "\\int_0^1 ",
    "\\lim_{x\\to 0} ",
    "\\begin{pmatrix}",
    "\\begin{vmatrix}",
    "&",
    "\\\\",
    "\\end{pmatrix}",
    ",",
    ";",
    "\\cup ",
    "\\cap ",
    "\\setminus ",
    "\\le ",
    "=",
    "<",
    ">",
    "\\pm ",
    "|",
    "\\text{",
    "\\%",
    "%",
    "$",
    "\\$",
    "\\boxed{",
    "\\pi ",
    "i",
    "\\infty ",
    "\\gcd(",
    "\\lcm(",
    "\\max(",
    "\\lfloor ",
    "\\rfloor ",
    ".5",
    "1.5E300",
    "E-9",
    "\\",
    "\x01",
    "\xc3\xa9",
    "\xcf\x80",
    "\xe2\x88\x9e",
    "\xc2\xbd",
    "\xc2\xb2",
    "\xff",
    "\xe2\x82",
    " and ",
    " or ",
    "answer is ",
    "final answer: ",
    "####",
    "</think>",
    "<answer>",
    "0.\\overline{3}",
    "1,000",
    "\\mod ",
    "^\\circ",
    "'",
    "\\left(",
    "\\right)",
    "f(",
    "!!",
    "9^{9^{9^{9}}}",
    "((9!)!)!",
    "10^{10^{10}}",
    "99999!",
    "1E999999",
    "(x+y+z+1)^{400}",
    "\\sum_{k=1}^{1000}\\sum_{j=1}^{1000}\\frac{1}{k+j}",
    "\\binom{1000000}{500000}",
    "\\prod_{k=1}^{1000} k!",
    "e^{e^{e^{e}}}",
    "\\cos(10^{300})",
    "(1/3)!",
    "^T",
    "\\det",
    "\\pm1",
    "\n",
    "12:00",
    "\\quad",
};

static void text_add(Buf *buf, Rng *rng, const char *text) {
    uint64_t times = rng_below(rng, 40) == 0 ? 1 + rng_below(rng, 600) : 1;
    for (uint64_t i = 0; i < times && buf->n < 20000; i++) buf_text(buf, text);
}

static const char *piece(Rng *rng) { return pieces[rng_below(rng, sizeof pieces / sizeof pieces[0])]; }

/* A case's text with some pieces cut out, put in or repeated; or pieces alone. */
static void mutant_make(Buf *buf, Rng *rng) {
    buf_clear(buf);
    buf_text(buf, "");
    if (rng_below(rng, 8) == 0) { /* one pattern over and over: finds what takes quadratic time */
        const char *first = piece(rng), *second = rng_below(rng, 2) ? piece(rng) : "";
        for (buf_text(buf, piece(rng)); buf->n < 1900 && *first;) {
            buf_text(buf, first);
            buf_text(buf, second);
        }
        return;
    }
    if (rng_below(rng, 3) == 0) {
        for (uint64_t n = rng_below(rng, 40); n; n--) text_add(buf, rng, piece(rng));
        return;
    }
    const Case *at = &cases[rng_below(rng, (uint64_t)n_cases)];
    const char *text = rng_below(rng, 2) ? at->item.answer : at->item.completion;
    size_t n = strlen(text), cuts = 1 + rng_below(rng, 5), from = 0;
    for (size_t i = 0; i < cuts && from < n; i++) {
        size_t to = from + rng_below(rng, n - from + 1);
        buf_add(buf, text + from, to - from);
        uint64_t kind = rng_below(rng, 3);
        if (kind > 0) text_add(buf, rng, piece(rng));
        from = kind < 2 ? to + rng_below(rng, 4) : to - rng_below(rng, to + 1 < 9 ? to + 1 : 9);
    }
    if (from < n) buf_text(buf, text + from);
}

static double cpu_seconds(void) {
    struct timespec at;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

static void test_hostile(void **state) {
    (void)state;
    const char *asked = getenv("WHET_HOSTILE");
    int64_t n = asked ? atoll(asked) : MUTANTS;
    Rng rng = {.key = asked ? 2 : 1};
    Buf gold = {0}, completion = {0};
    double worst = 0;
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    for (int64_t i = 0; i < n; i++) {
        mutant_make(&gold, &rng);
        uint64_t kind = rng_below(&rng, 4);
        if (kind == 0) { /* an answer like the gold one gets past the parser, to the comparison */
            buf_clear(&completion);
            buf_format(&completion, "\\boxed{%s%s}", gold.p, rng_below(&rng, 2) ? piece(&rng) : "");
        } else
            mutant_make(&completion, &rng);
        RewardConf conf = {.strict = kind == 1, .explain = kind == 2};
        RewardItem item = {
            .answer = gold.p, .completion = completion.p, .problem = kind == 3 ? completion.p : NULL};
        RewardScore score;
        double start = cpu_seconds();
        judge_math.judge(&conf, &item, &score);
        double seconds = cpu_seconds() - start;
        if (seconds > worst) worst = seconds;
        if (seconds > (SANITIZED ? 0.5 : 0.05))
            fail_msg("%.0f ms for gold %s and completion %s", 1e3 * seconds, gold.p, completion.p);
        if (i % 16 == 0) score_check(&score);
        reward_score_free(&score);
    }
    getrusage(RUSAGE_SELF, &after);
    print_message("%lld hostile pairs, the slowest %.1f ms, %ld KiB more memory\n", (long long)n, 1e3 * worst,
                  after.ru_maxrss - before.ru_maxrss);
    if (!SANITIZED) assert_true(after.ru_maxrss - before.ru_maxrss < 32 * 1024);
    buf_free(&gold);
    buf_free(&completion);
}

/* ---- the open set of judges ---- */

static void test_reward_queue(void **state) {
    (void)state;
    const char *names[] = {"math", "format"};
    RewardConf conf = {0};
    Err err = {0};
    Reward *reward = reward_open(names, 2, &conf, &err);
    assert_non_null(reward);
    assert_int_equal(reward_parts(reward), 2);
    RewardItem items[100];
    for (int i = 0; i < 100; i++)
        items[i] =
            (RewardItem){.answer = "4", .completion = i % 2 ? "<think>a</think><answer>4</answer>" : "\\boxed{5}"};
    assert_true(reward_submit(reward, items, 100, 1000, &err));
    assert_int_equal(reward_pending(reward), 200);
    bool seen[2][100] = {{false}};
    int64_t ticket;
    int part;
    RewardScore score;
    while (reward_poll(reward, 0, &ticket, &part, &score, &err) > 0) {
        int i = (int)(ticket - 1000);
        assert_in_range(i, 0, 99);
        assert_false(seen[part][i]);
        seen[part][i] = true;
        assert_true(score.value == i % 2);
        reward_score_free(&score);
        if (reward_pending(reward) == 10) break;
    }
    assert_int_equal(reward_pending(reward), 10);
    reward_close(reward); /* with scores that nobody took */
    names[1] = "nonsense";
    assert_null(reward_open(names, 2, &conf, &err));
    assert_non_null(strstr(err.msg, "nonsense"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_scores_are_whole),
        cmocka_unit_test(test_threads_and_order),
        cmocka_unit_test(test_locale),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_reward_queue),
    };
    return cmocka_run_group_tests(tests, cases_open, cases_close);
}
