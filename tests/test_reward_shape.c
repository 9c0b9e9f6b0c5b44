/* test_reward_shape.c: the judges of length, repetition, tags, language, number puzzles and multiple choice:
 * values of their formulas (TRL's and open-r1's), the data sets' own solutions, and answers that try to cheat. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "datasets/datasets.h"
#include "reward/reward.h"

static double value_of(const JudgeKind *kind, const RewardShape *shape, const RewardItem *item,
                       const char *verdict) {
    RewardConf conf = {.shape = shape};
    RewardScore score = {0};
    kind->judge(&conf, item, &score);
    assert_non_null(score.reason);
    assert_int_equal(score.class == SCORE_UNJUDGED, isnan(score.value));
    if (verdict && strcmp(score.verdict, verdict) != 0)
        fail_msg("%s: %.80s: %s (%s), wanted %s", kind->name, item->completion, score.verdict, score.reason,
                 verdict);
    double value = score.value;
    reward_score_free(&score);
    return value;
}

static void near(double got, double want) {
    if (!(fabs(got - want) < 1e-9)) fail_msg("%.12g, wanted %.12g", got, want);
}

/* ---- length ---- */

static void test_overlong(void **state) {
    (void)state;
    RewardShape dapo = reward_shape_default;
    dapo.overlong_max = 20480, dapo.overlong_cache = 4096;
    static const struct {
        int n;
        double value;
    } cases[] = {{16384, 0}, {16385, -0.000244140625}, {18432, -0.5}, {20480, -1}, {20481, -1}};
    for (int i = 0; i < 5; i++)
        near(value_of(&judge_overlong, &dapo, &(RewardItem){.completion = "x", .n_tokens = cases[i].n}, NULL),
             cases[i].value);
    near(value_of(&judge_overlong, NULL, &(RewardItem){.completion = "x", .n_tokens = 1152}, "overlong"), -0.5);
    value_of(&judge_overlong, NULL, &(RewardItem){.completion = "x"}, "no-length");
}

static void test_cosine(void **state) {
    (void)state;
    static const struct {
        int n;
        double right, wrong;
    } cases[] = {{1, 1, -1}, {250, .926776695, -.926776695}, {500, .75, -.75}, {1000, .5, -.5}, {3000, .5, -.5}};
    for (int i = 0; i < 5; i++) {
        double right =
            value_of(&judge_cosine, NULL,
                     &(RewardItem){.completion = "\\boxed{4}", .answer = "4", .n_tokens = cases[i].n}, NULL);
        double wrong =
            value_of(&judge_cosine, NULL,
                     &(RewardItem){.completion = "\\boxed{5}", .answer = "4", .n_tokens = cases[i].n}, NULL);
        assert_true(fabs(right - cases[i].right) < 3e-6 && fabs(wrong - cases[i].wrong) < 3e-6);
    }
    value_of(&judge_cosine, NULL, &(RewardItem){.completion = "\\boxed{5}", .n_tokens = 5}, "unparseable-gold");
}

/* ---- repetition ---- */

static void test_repetition(void **state) {
    (void)state;
    RewardShape two = reward_shape_default;
    two.repetition_n = 2;
    near(value_of(&judge_repetition, &two, &(RewardItem){.completion = "1 2 3 4"}, "no-repetition"), 0);
    near(value_of(&judge_repetition, &two, &(RewardItem){.completion = "5 5 5\n5  5"}, "repetition"), -.75);
    near(value_of(&judge_repetition, NULL, &(RewardItem){.completion = "a b"}, "too-short"), 0);
    near(value_of(&judge_repetition, NULL, &(RewardItem){.completion = ""}, "too-short"), 0);
    /* 7 groups of 3 words, 4 different; lower case, Unicode too */
    near(value_of(&judge_repetition, NULL, &(RewardItem){.completion = "\xc3\x84 b c d \xc3\xa4 B c D x"}, NULL),
         -(1 - 5. / 7));
    near(value_of(&judge_repetition, NULL, &(RewardItem){.completion = "\xff\xfe \xff\xfe \xff\xfe \xff\xfe"},
                  NULL),
         -.5);
}

/* ---- tags ---- */

static void test_tags(void **state) {
    (void)state;
    static const struct {
        const char *text, *prompt;
        double value;
    } cases[] = {
        {"<think>\nx\n</think>\n<answer>\n5\n</answer>", NULL, .75}, /* \n</think>\n<answer>\n: one line break */
        {"<think>\nx\n</think>\n\n<answer>\n5\n</answer>", NULL, 1},
        {"x\n</think>\n\n<answer>\n5\n</answer>", "solve <think>\n", 1},
        {"<think>\nx\n</think>\n\n<answer>\n5\n</answer>", "solve <think>\n", .75},
        {"<think>\n<think>\n", NULL, 0},
        {"", NULL, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double got = value_of(&judge_tag_count, NULL,
                              &(RewardItem){.completion = cases[i].text, .prompt = cases[i].prompt}, NULL);
        if (i == 0) /* Python counts "\n</think>\n" and then "\n<answer>\n" apart: they may share a line break */
            assert_true(got == 1);
        else
            near(got, cases[i].value);
    }
    near(value_of(&judge_think_format, NULL, &(RewardItem){.completion = "<think>\nr\n</think>\nanswer"}, NULL),
         1);
    near(value_of(&judge_think_format, NULL, &(RewardItem){.completion = "<think>\nr\nanswer"}, NULL), 0);
    near(value_of(&judge_think_format, NULL, &(RewardItem){.completion = "<think>a<think></think>"}, NULL), 0);
    near(value_of(&judge_think_format, NULL, &(RewardItem){.completion = " <think>a</think>"}, NULL), 0);
    near(value_of(&judge_think_format, NULL, &(RewardItem){.completion = "r</think>a", .prompt = "<think>"}, NULL),
         1);
    near(value_of(&judge_steps, NULL, &(RewardItem){.completion = "Step 1: a\n- b\nFinally, c"}, NULL), 1);
    near(value_of(&judge_steps, NULL, &(RewardItem){.completion = "1. a 2. b, First, x"}, NULL), 2 / 3.);
    near(value_of(&judge_reasoning, NULL,
                  &(RewardItem){.completion = "<think>\\boxed{3}</think> \\boxed{4}", .answer = "4"}, NULL),
         1);
    near(value_of(&judge_reasoning, NULL, &(RewardItem){.completion = "<think>\\boxed{4}", .answer = "4"},
                  "no-think-end"),
         0);
}

/* ---- language ---- */

static void test_language(void **state) {
    (void)state;
    static const struct {
        const char *text, *lang;
        double share;
    } cases[] = {
        {"The sum of $x$ and $\\alpha$ is four. \xe6\x89\x80\xe4\xbb\xa5", "en", 6 / 8.},
        {"The sum is 4.", "zh", 0},
        {"\xe5\x9b\xa0\xe6\xad\xa4 x = 4", "zh", 1},
        {"<think>It's fine</think> \xd0\xbd\xd0\xb5\xd1\x82", "en", 1},
        {"\xd0\xbd\xd0\xb5\xd1\x82, no", "ru", .5},
        {"123 + 4", "en", 0},
        {"na\xc3\xafve caf\x65\xcc\x81 \xff words", "en", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RewardShape shape = reward_shape_default;
        shape.language = cases[i].lang;
        near(value_of(&judge_language, &shape, &(RewardItem){.completion = cases[i].text}, NULL), cases[i].share);
    }
    near(value_of(&judge_language, NULL,
                  &(RewardItem){.completion = "\xe5\x9b\xa0\xe6\xad\xa4", .fields = "{\"lang\": \"zh\"}"},
                  "one-language"),
         1);
    value_of(&judge_language, NULL, &(RewardItem){.completion = "x", .fields = "{\"lang\": \"tlh\"}"},
             "unknown-language");
}

/* ---- countdown ---- */

static void test_countdown(void **state) {
    (void)state;
    static const char row[] = "{\"numbers\": [1, 7, 3], \"target\": 28}";
    static const struct {
        const char *text, *verdict;
    } cases[] = {
        {"<answer>(1+3)*7</answer>", "solved"},
        {"<answer> (1 + 3) * 7 = 28 </answer>", "solved"},
        {"<answer>28 = 7(1+3)</answer>", "wrong-expression"}, /* no sign for times */
        {"28 is \\boxed{(1+3) \\times 7}", "solved"},
        {"<answer>\\boxed{7 \\cdot \\left(3+1\\right)}</answer>", "solved"},
        {"First 1 + 3 = 4.\nAnswer: (3 + 1) \xc3\x97 7 = 28", "solved"},
        {"so $(1+3)*7 = 28$.", "wrong-expression"}, /* a sentence is no expression */
        {"$(1+3)*7 = 28$.", "solved"},
        {"<answer>-(1+3)*(-7)</answer>", "solved"},
        {"<answer>28</answer>", "wrong-expression"},
        {"<answer>7*3+7</answer>", "wrong-expression"},       /* 7 twice */
        {"<answer>(1+3)*7+1-1</answer>", "wrong-expression"}, /* 1 three times */
        {"<answer>(1+3)*7 (1+3)*7</answer>", "wrong-expression"},
        {"<answer>1+3=4, 4*7=28</answer>", "wrong-expression"},
        {"<answer>1+7+3 = 28</answer>", "wrong-expression"}, /* a lie */
        {"<answer>(1+3)*7 = 29</answer>", "wrong-expression"},
        {"<answer>7*(3+1/1-1</answer>", "wrong-expression"},
        {"<answer>1/(3-3)*7</answer>", "wrong-expression"},
        {"<answer>4*7</answer>", "wrong-expression"},
        {"<answer>(1+3)**7</answer>", "wrong-expression"},
        {"<answer>28 or (1+3)*7</answer>", "wrong-expression"},
        {"<answer></answer>", "wrong-expression"},
        {"nothing here", "no-answer"},
        {"", "no-answer"},
        {"<answer>7*(3+1)</answer> <answer>1</answer>", "wrong-expression"}, /* the last counts */
        {"<answer>17+3+8</answer>", "wrong-expression"},
        {"<answer>+7*(1++3)</answer>", "solved"}, /* signs, as Python takes them */
        {"<answer>-7*(\xe2\x80\x93"
         "1-3)</answer>",
         "solved"},
        {"**Answer:** (1 + 3) * 7 = 28", "solved"},
        {"**(1 + 3) * 7 = 28.**", "solved"},
        {"\\boxed{\\dfrac{7}{1} + 3*\\tfrac{7}{1}}", "wrong-expression"},
        {"\\boxed{\\dfrac{7}{1/(1+3)}}", "wrong-expression"},
        {"\\boxed{7\\cdot\\dfrac{3+1}{\\frac{1}{1}}}", "wrong-expression"},
        {"<answer>7*(3+1)*</answer>**", "solved"},
        {"<answer>\xef\xbc\x91+3*7</answer>", "wrong-expression"}, /* a wide 1 */
        {"<answer>(1+3)*7 # 28</answer>", "wrong-expression"},
        {"<answer>0x1+3*7</answer>", "wrong-expression"},
        {"<answer>7*(3+1e0)</answer>", "wrong-expression"},
        {"<answer>7//(1/3)+7</answer>", "wrong-expression"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        value_of(&judge_countdown, NULL, &(RewardItem){.completion = cases[i].text, .fields = row},
                 cases[i].verdict);
    value_of(&judge_countdown, NULL, &(RewardItem){.completion = "1", .fields = "{\"numbers\": [1]}"},
             "no-numbers");
    value_of(&judge_countdown, NULL, &(RewardItem){.completion = "1"}, "no-numbers");
    value_of(
        &judge_countdown, NULL,
        &(RewardItem){.completion = "<answer>0.5*8</answer>", .fields = "{\"nums\": [0.5, 8], \"target\": \"4\"}"},
        "solved");
    value_of(&judge_game24, NULL,
             &(RewardItem){.completion = "<answer>8/(3-8/3)</answer>", .fields = "{\"numbers\": [3, 3, 8, 8]}"},
             "solved");
    value_of(&judge_game24, NULL,
             &(RewardItem){.completion = "\\boxed{\\dfrac{8}{3-\\tfrac{8}{3}}}",
                           .fields = "{\"numbers\": [3, 3, 8, 8]}"},
             "solved");
    value_of(&judge_game24, NULL,
             &(RewardItem){.completion = "\\boxed{\\frac{8}{3-\\frac{8}{3}}}",
                           .fields = "{\"numbers\": [3, 3, 8, 8], \"target\": 24}"},
             "solved");
    Buf deep = {0}; /* it ends, whatever comes */
    for (int i = 0; i < 100000; i++) buf_text(&deep, "(-");
    value_of(&judge_countdown, NULL, &(RewardItem){.completion = deep.p, .fields = row}, NULL);
    buf_free(&deep);
}

/* Every solution of the data sets is one, and none of them solves the next problem with other numbers. */
static void puzzles_of(const char *name, const JudgeKind *kind) {
    const char *folder = getenv("WHET_DATA");
    char path[500];
    snprintf(path, sizeof path, "%s/%s_dev.jsonl.gz", folder ? folder : "../shared/data", name);
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not there\n", path);
        return;
    }
    Err err = {0};
    Lines *lines = lines_open(path, &err);
    assert_non_null(lines);
    size_t n;
    int count = 0;
    char *before = NULL;
    for (const char *line; (line = lines_next(lines, &n, &err)); count++) {
        json_t *row = json_loads(line, 0, NULL);
        char *text = NULL;
        assert_true(asprintf(&text, "I found it.\n<answer>%s</answer>",
                             json_string_value(json_object_get(row, "answer"))) > 0);
        near(value_of(kind, NULL, &(RewardItem){.completion = text, .fields = line}, "solved"), 1);
        if (before && strcmp(before, text) != 0 && strlen(before) < strlen(text))
            near(value_of(kind, NULL, &(RewardItem){.completion = before, .fields = line}, NULL), 0);
        free(before);
        before = text;
        json_decref(row);
    }
    free(before);
    lines_close(lines);
    assert_true(count > 1000);
}

static void test_puzzle_data(void **state) {
    (void)state;
    puzzles_of("countdown", &judge_countdown);
    puzzles_of("game24", &judge_game24);
}

/* ---- choice ---- */

static void test_choice(void **state) {
    (void)state;
    static const struct {
        const char *text, *verdict;
    } cases[] = {
        {"<answer>B</answer>", "right-choice"},
        {"<answer>(B)</answer>", "right-choice"},
        {"<answer>B) blue</answer>", "right-choice"},
        {"<answer>blue</answer>", "right-choice"},
        {"\\boxed{\\text{(B)}}", "right-choice"},
        {"\\boxed{\\textbf{B}}", "right-choice"},
        {"Looking at A and C, no. The answer is **B**.", "right-choice"},
        {"The correct answer is option (B) because", "right-choice"},
        {"Answer: B", "right-choice"},
        {"I think so.\n(B)", "right-choice"},
        {"I think so.\nB. blue", "right-choice"},
        {"<answer>A</answer>", "wrong-choice"},
        {"<think>B</think><answer>C</answer>", "wrong-choice"},
        {"<answer>A or B</answer>", "several-choices"},
        {"\\boxed{A, B, C, D}", "several-choices"},
        {"A B C D", "several-choices"},
        {"The answer is a blue one.", "no-answer"},
        {"A blue sky makes me think of B", "no-answer"},
        {"Because", "no-answer"},
        {"", "no-answer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        value_of(&judge_choice, NULL,
                 &(RewardItem){.completion = cases[i].text,
                               .answer = "B",
                               .fields = "{\"choices\": [\"red\", \"blue\", \"green\", \"A\"]}"},
                 cases[i].verdict);
    static const char choices[] = "{\"answer\": 2, \"options\": [\"one\", \"two\", \"three\"]}";
    value_of(&judge_choice, NULL,
             &(RewardItem){.completion = "<answer>C</answer>", .answer = "2", .fields = choices}, "right-choice");
    value_of(&judge_choice, NULL,
             &(RewardItem){.completion = "<answer>C</answer>",
                           .answer = "three",
                           .fields = "{\"choices\": [\"x\", \"y\", \"three\"]}"},
             "right-choice");
    value_of(&judge_choice, NULL, &(RewardItem){.completion = "<answer>C</answer>", .answer = "twelve"},
             "no-choice-expected");
}

/* ---- several judges, by kind of problem ---- */

static void test_kinds(void **state) {
    (void)state;
    static const char *const names[] = {"math", "countdown", "cosine"}, *const kinds[] = {"", "countdown",
                                                                                          "count*"};
    Err err = {0};
    RewardConf conf = {.kinds = kinds};
    Reward *reward = reward_open(names, 3, &conf, &err);
    assert_non_null(reward);
    RewardItem items[] = {{.completion = "\\boxed{4}", .answer = "4", .kind = "sums", .n_tokens = 500},
                          {.completion = "\\boxed{1+3}",
                           .answer = "4",
                           .kind = "countdown",
                           .fields = "{\"numbers\": [1, 3], \"target\": 4}",
                           .n_tokens = 500}};
    RewardScore scores[2][3];
    assert_true(reward_submit(reward, items, 2, 0, &err));
    for (int i = 0; i < 6; i++) {
        int64_t ticket;
        int part;
        RewardScore score;
        assert_int_equal(reward_poll(reward, 1, &ticket, &part, &score, &err), 1);
        scores[ticket][part] = score;
    }
    ScoreClass class;
    const double weights[] = {1, 2, 4};
    assert_true(reward_asked(&scores[0][0]) && !reward_asked(&scores[0][1]) && !reward_asked(&scores[0][2]));
    near(reward_total(scores[0], weights, 3, &class), 1);
    assert_int_equal(class, SCORE_RIGHT);
    near(reward_total(scores[1], weights, 3, &class), 1 + 2 + 4 * .75);
    assert_true(isnan(reward_total(&scores[0][1], weights, 2, &class)) &&
                class == SCORE_UNJUDGED); /* nobody was asked */
    for (int i = 0; i < 2; i++)
        for (int p = 0; p < 3; p++) reward_score_free(&scores[i][p]);
    reward_close(reward);
}

/* TRL's and open-r1's names. */
static void test_names(void **state) {
    (void)state;
    static const char *const names[] = {"accuracy_reward",
                                        "reasoning_accuracy_reward",
                                        "think_format_reward",
                                        "get_soft_overlong_punishment",
                                        "cosine",
                                        "repetition_penalty",
                                        "tag_count",
                                        "reasoning_steps",
                                        "length",
                                        "repetition",
                                        "language",
                                        "game24",
                                        "choice"};
    Err err = {0};
    RewardConf conf = {0};
    Reward *reward = reward_open(names, sizeof names / sizeof *names, &conf, &err);
    assert_string_equal(err.msg, "");
    reward_close(reward);
    const char *none = "nonsense";
    assert_null(reward_open(&none, 1, &conf, &err));
    assert_non_null(strstr(err.msg, "language, exec:PROGRAM"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overlong),    cmocka_unit_test(test_cosine),   cmocka_unit_test(test_repetition),
        cmocka_unit_test(test_tags),        cmocka_unit_test(test_language), cmocka_unit_test(test_countdown),
        cmocka_unit_test(test_puzzle_data), cmocka_unit_test(test_choice),   cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
