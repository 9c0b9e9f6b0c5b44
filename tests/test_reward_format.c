/* Tests of the format judge: <think>...</think><answer>...</answer>, each once, in order, nothing outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "reward/reward.h"

static bool has_format(const char *prompt, const char *completion) {
    RewardConf conf = {0};
    RewardItem item = {.prompt = prompt, .completion = completion};
    RewardScore score;
    judge_format.judge(&conf, &item, &score);
    bool right = score.class == SCORE_RIGHT;
    assert_int_not_equal(score.class, SCORE_UNJUDGED);
    assert_true(score.value == (right ? 1 : 0));
    assert_string_equal(score.verdict, right ? "format" : "wrong-format");
    assert_non_null(score.reason);
    reward_score_free(&score);
    return right;
}

static void test_right(void **state) {
    (void)state;
    assert_true(has_format(NULL, "<think>a</think><answer>b</answer>"));
    assert_true(has_format(NULL, " <think>\na\n</think>\n\n<answer>\nb\n</answer>\n"));
    assert_true(has_format(NULL, "<think></think><answer></answer>"));
    assert_true(has_format("Solve it.", "<think>x < y</think> <answer>1</answer>"));
    assert_true(has_format("Solve it.\n<think>\n", "a</think><answer>b</answer>"));
}

static void test_wrong(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        "b",
        "<think>a</think>",
        "<answer>b</answer>",
        "<think>a</think><answer>b",
        "<think>a<answer>b</answer>",
        "a</think><answer>b</answer>",
        "<answer>b</answer><think>a</think>",
        "<think>a<answer>b</answer></think>",
        "x<think>a</think><answer>b</answer>",
        "<think>a</think>x<answer>b</answer>",
        "<think>a</think><answer>b</answer>x",
        "<think><think>a</think><answer>b</answer>",
        "<think>a</think></think><answer>b</answer>",
        "<think>a</think><answer>b</answer><answer>c</answer>",
        "<think>a</think><answer><answer>b</answer>",
        "<THINK>a</THINK><ANSWER>b</ANSWER>",
        "</think><think><answer></answer>",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (has_format(NULL, texts[i])) fail_msg("taken for the format: %s", texts[i]);
    assert_false(has_format("<think>", "<think>a</think><answer>b</answer>"));
    assert_false(has_format("<think> well,", "a</think><answer>b</answer>"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_right), cmocka_unit_test(test_wrong)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
