/* test_rl_guard.c: the guards of a training run: each is raised by what it is for and by nothing else, and on
 * recorded runs (tests/goldens/guard_runs.json, made by guard_runs.py) the healthy ones raise none and each that
 * was hacked, or lost its accuracy, does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "rl/guard.h"

/* ---- made histories ---- */

typedef struct {
    const char *name;
    double from, to;
} Course; /* a metric that goes from one value to another; NaN stays */

static const char *const parts[] = {"math", "format"};
static const Course healthy[] = {{"frac_reward_zero_std", 0.5, 0.6},
                                 {"completions/clipped_ratio", 0.6, 0.0},
                                 {"completions/eos_ratio", 0.4, 1.0},
                                 {"completions/duplicate_ratio", 0, 0.1},
                                 {"completions/listing_ratio", 0, 0.02},
                                 {"accuracy", 0.1, 0.9},
                                 {"entropy", 1.2, 0.05},
                                 {"rewards/contradiction_ratio", NAN, NAN},
                                 {"unjudged_ratio", 0, 0},
                                 {"rewards/math/mean", 0.1, 0.9},
                                 {"rewards/format/mean", 0.0, 0.9}};
enum { N_HEALTHY = sizeof healthy / sizeof healthy[0] };

/* The guards that hold after `steps` steps of the healthy history with some courses replaced, as "a,b". */
static const char *raised(int steps, const Course *other, int n_other) {
    static char names[256];
    Guards guards = {0};
    Arena arena = {0};
    StoreGuard out[GUARDS_MOST];
    guards_parts(&guards, parts, 2, 4);
    for (int s = 0; s < steps; s++)
        for (int i = 0; i < N_HEALTHY; i++) {
            Course course = healthy[i];
            for (int k = 0; k < n_other; k++)
                if (strcmp(other[k].name, course.name) == 0) course = other[k];
            double share = steps > 1 ? (double)s / (steps - 1) : 1;
            guards_add(&guards, i == 0, course.name, course.from + share * (course.to - course.from));
        }
    int n = guards_check(&guards, out, &arena);
    names[0] = 0;
    for (int i = 0; i < n; i++) {
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? "," : "", out[i].name);
        assert_true(strlen(out[i].line) > 40);
        assert_null(strchr(out[i].line, '\n'));
    }
    arena_free(&arena);
    guards_free(&guards);
    return names;
}
#define RAISED(steps, ...)                                                                                        \
    raised(steps, (const Course[]){__VA_ARGS__}, sizeof((const Course[]){__VA_ARGS__}) / sizeof(Course))

static void test_each_guard(void **state) {
    (void)state;
    for (int steps = 0; steps <= 100; steps++) assert_string_equal(raised(steps, NULL, 0), "");
    assert_string_equal(RAISED(5, {"frac_reward_zero_std", 1, 1}), "no-signal");
    assert_string_equal(RAISED(2, {"frac_reward_zero_std", 1, 1}), "");
    assert_string_equal(RAISED(9, {"completions/clipped_ratio", 0.99, 1}), "truncated");
    assert_string_equal(RAISED(9, {"completions/clipped_ratio", 0.5, 0.97}), "");
    assert_string_equal(RAISED(3, {"completions/clipped_ratio", 1, 1}, {"completions/eos_ratio", 0, 0}), "no-eos");
    assert_string_equal(RAISED(40, {"accuracy", 0.9, 0.1}, {"entropy", 1, 1}), "accuracy-falls");
    assert_string_equal(RAISED(40, {"accuracy", 0.9, 0.1}, {"entropy", 1, 1}, {"rewards/format/mean", 0.9, 0.2}),
                        "accuracy-collapses");
    assert_string_equal(RAISED(40, {"accuracy", 0.9, 0.5}, {"entropy", 1, 1}, {"rewards/format/mean", 0.9, 0.2}),
                        "");
    assert_string_equal(RAISED(9, {"completions/duplicate_ratio", 0.6, 0.9}), "duplicates");
    assert_string_equal(RAISED(9, {"completions/listing_ratio", 0.3, 0.9}), "listing");
    assert_string_equal(RAISED(30, {"accuracy", 0.2, 0.2}, {"entropy", 1.5, 0.01}), "entropy");
    assert_string_equal(RAISED(30, {"accuracy", 0.2, 0.2}, {"entropy", 0.04, 0.03}), "");
    assert_string_equal(RAISED(9, {"rewards/contradiction_ratio", 0.4, 0.6}), "contradiction");
    assert_string_equal(RAISED(1, {"unjudged_ratio", 0.1, 0.1}), "unjudged");
}

/* Accuracy that only varies, as much as it can (every problem's answers all alike), is no collapse; one that is
 * lost is, on four problems a step. */
static void test_collapse(void **state) {
    (void)state;
    static const double shares[] = {0.05, 0.15, 0.3, 0.5, 0.8};
    static const int sizes[] = {1, 2, 4, 8, 32};
    Rng rng = {7, 0};
    Arena arena = {0};
    StoreGuard out[GUARDS_MOST];
    for (int k = 0; k < 25 * 4; k++) {
        Guards guards = {0};
        double share = shares[k % 5], lost = share > 0.4 ? 0.02 : share;
        int size = sizes[k / 5 % 5], raised_at = 0;
        guards_parts(&guards, parts, 1, size);
        for (int step = 1; step <= 430; step++) {
            int right = 0;
            for (int i = 0; i < size; i++) right += rng_uniform(&rng) < (step > 400 ? lost : share);
            guards_add(&guards, true, "accuracy", (double)right / size);
            int n = guards_check(&guards, out, &arena);
            assert_true(n <= 1);
            if (n && !raised_at) raised_at = step;
            if (n) assert_string_equal(out[0].name, "accuracy-collapses");
        }
        bool falls = lost != share, known = size >= 4; /* fewer problems say too little */
        if (raised_at ? raised_at <= 400 || !falls : falls && known)
            fail_msg("%d problems, %g right: raised at step %d", size, share, raised_at);
        guards_free(&guards);
    }
    arena_free(&arena);
}

/* ---- numbers of a step ---- */

static void test_listing(void **state) {
    (void)state;
    static const struct {
        const char *text, *expected;
        bool lists;
    } cases[] = {
        {"The answer is 15.", "15", false},
        {"The answer is A, B, C or D.", "B", true},
        {"(A) (B) (C) (D)", "B", false}, /* nothing keeps them apart: perhaps the question, told again */
        {"1, 2, 3, 4, 5, 6", "4", true},
        {"It is 1 or 2 or 3 or 4.", "4", true},
        {"12\n13\n14\n15", "15", true},
        {"The roots are 1, 2, 3, 4", "1, 2, 3, 4", false},
        {"5, 5, 5, 5, 5", "5", false},
        {"7 + 8 = 15", "15", false},
        {"First 3, then 12: 3 + 12 = 15.", "15", false},
        {"\\boxed{1} \\boxed{2} \\boxed{3}", "3", true},
        {"\\boxed{1} and so \\boxed{1} \\boxed{1}", "1", false},
        {"", "3", false},
        {"A man, a plan", "3", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (guard_lists(cases[i].text, cases[i].expected) != cases[i].lists) fail_msg("\"%s\"", cases[i].text);
}

static void test_numbers(void **state) {
    (void)state;
    static const char *const texts[2][4] = {{"the same long answer", "", "15", "the answer is then 15"},
                                            {"the same long answer", "", "15", "1, 2, 3, 4, 5, 6, 7"}};
    static const double rewards[2][4] = {{0, 0, 1, 2}, {3, 1, 1, 0}};
    StoreGroup groups[2] = {{.problem = {.answer = "15"}, .n_samples = 4},
                            {.problem = {.answer = "16"}, .n_samples = 4}};
    StoreSample samples[2][4];
    int tok[3] = {5, 6, 2};
    for (int g = 0; g < 2; g++) {
        groups[g].samples = samples[g];
        for (int i = 0; i < 4; i++)
            samples[g][i] = (StoreSample){.text = texts[g][i],
                                          .text_n = strlen(texts[g][i]),
                                          .reward = rewards[g][i],
                                          .class = g == 0 && i >= 2   ? SCORE_RIGHT
                                                   : g == 1 && i == 3 ? SCORE_UNJUDGED
                                                                      : SCORE_WRONG,
                                          .sample = {.tok = tok, .n = i == 0 ? 2 : 3, .n_prompt = 1}};
    }
    samples[1][2].class = SCORE_RIGHT; /* 1, where one of two wrong answers has 3 */
    StoreNumber out[GUARD_NUMBERS];
    guard_numbers(out, groups, 2, (int[]){9, 2}, 2);
    assert_true(out[0].value == 0.75 && out[1].value == 0.5 && out[2].value == 1.0 / 8 && out[4].value == 1.0 / 8);
    assert_true(fabs(out[3].value - 1.0 / 6) < 1e-12);
}

/* ---- recorded runs ---- */

/* The guards that each raises, and at which step first. None of them lost its accuracy for good after ten good
 * steps, which is when accuracy-collapses speaks: see test_collapse. */
static const struct {
    const char *name, *raised;
} recorded[] = {
    {"set-healthy", ""},
    {"set-numbers", " contradiction@5 truncated@10 accuracy-falls@20"},
    {"set-long", " contradiction@4 truncated@10 accuracy-falls@20"},
    {"set-other", " contradiction@3"},
    {"set-rate", ""},
    {"try-healthy", ""},
    {"try-rate-3e-4", " no-signal@17"},
    {"try-rate-4e-4", ""},
    {"try-words", " contradiction@3 truncated@12"},
    {"try-other", " contradiction@3"},
};

static void test_recorded(void **state) {
    (void)state;
    json_t *runs = json_load_file("tests/goldens/guard_runs.json", 0, NULL), *run;
    static const char *const with[] = {"math", "exec:guard_runs.py"};
    const char *name;
    int quiet = 0, said = 0;
    size_t k = 0;
    assert_non_null(runs);
    json_object_foreach(runs, name, run) {
        Guards guards = {0};
        Arena arena = {0};
        StoreGuard out[GUARDS_MOST];
        char seen[256] = "";
        guards_parts(&guards, with, json_object_get(run, "rewards/guard_runs/mean") ? 2 : 1,
                     json_number_value(json_object_get(run, "problems")));
        size_t steps = json_array_size(json_object_get(run, "accuracy"));
        for (size_t s = 0; s < steps; s++) {
            const char *metric;
            json_t *values;
            bool first = true;
            json_object_foreach(run, metric, values) {
                const json_t *value = json_array_get(values, s);
                if (!json_is_array(values)) continue;
                guards_add(&guards, first, metric, json_is_null(value) ? NAN : json_number_value(value));
                first = false;
            }
            int n = guards_check(&guards, out, &arena);
            for (int i = 0; i < n; i++)
                if (!strstr(seen, out[i].name))
                    snprintf(seen + strlen(seen), sizeof seen - strlen(seen), " %s@%zu", out[i].name, s + 1);
        }
        const char *outcome = json_string_value(json_object_get(run, "outcome"));
        bool wrong = strcmp(outcome, "hacked") == 0 || strcmp(outcome, "lost") == 0;
        print_message("%-14s %zu steps, %s:%s\n", name, steps, outcome, *seen ? seen : " nothing");
        if (wrong && !*seen) fail_msg("%s, %s, raised nothing", name, outcome);
        if (strcmp(outcome, "healthy") == 0 && *seen) fail_msg("%s, healthy, raised:%s", name, seen);
        if (strstr(name, "healthy")) assert_string_equal(outcome, "healthy");
        assert_true(k < sizeof recorded / sizeof recorded[0]);
        assert_string_equal(name, recorded[k].name);
        assert_string_equal(seen, recorded[k++].raised);
        quiet += strcmp(outcome, "healthy") == 0, said += wrong;
        arena_free(&arena);
        guards_free(&guards);
    }
    json_decref(runs);
    assert_true(k == sizeof recorded / sizeof recorded[0] && quiet >= 2 && said >= 6);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_guard), cmocka_unit_test(test_collapse),
                                       cmocka_unit_test(test_listing), cmocka_unit_test(test_numbers),
                                       cmocka_unit_test(test_recorded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
