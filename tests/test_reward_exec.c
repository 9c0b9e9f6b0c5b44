/* test_reward_exec.c: rewards of programs of the user's (reward/exec.c): what they say arrives, and whatever they
 * do wrong leaves only the answers unjudged that they did it with. The program is tests/exec_rewarder.py.
 * (run.sh: alone) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "reward/reward.h"

enum { ANSWERS = 20 };

static const char *const text_of[ANSWERS] = {[3] = "BAD 3", [11] = "BAD 11", [12] = "\xff\xfe odd \"bytes\"\n"};
static RewardScore scores[ANSWERS];
static int counts[3];

static const char *completion(int i) {
    static const char plain[] = "xxxxxxxxxxxxxxxxxxxxxxxx";
    return text_of[i] ? text_of[i] : plain + (size_t)i;
}

/* Has ANSWERS answers judged by the program in this mode; each must come back exactly once. */
static void judge(const char *mode, double deadline, int workers, int parallel) {
    Err err = {0};
    char name[128];
    const char *names[] = {name};
    RewardConf conf = {.exec_deadline = deadline, .exec_workers = workers, .exec_parallel = parallel};
    snprintf(name, sizeof name, "exec:python3 'tests/exec_rewarder.py' %s", mode);
    Reward *reward = reward_open(names, 1, &conf, &err);
    assert_string_equal(err.msg, "");
    memset(counts, 0, sizeof counts);
    for (int i = 0; i < ANSWERS; i++) reward_score_free(&scores[i]);
    memset(scores, 0, sizeof scores);
    for (int i = 0; i < ANSWERS; i++) {
        RewardItem item = {.completion = completion(i), .answer = "7", .fields = "{\"k\": 1}", .index = i};
        assert_true(reward_submit(reward, &item, 1, i, &err));
    }
    while (reward_pending(reward) > 0) {
        int64_t ticket;
        int part, got;
        RewardScore score;
        if (!(got = reward_poll(reward, 10, &ticket, &part, &score, &err))) continue;
        assert_int_equal(got, 1);
        assert_null(scores[ticket].verdict);
        scores[ticket] = score;
        counts[score.class]++;
    }
    reward_close(reward);
}

/* All but the two BAD ones have their right reward, and those have `verdict` (NULL: a reward, too). */
static void only_bad(const char *mode, const char *verdict, const char *reason) {
    for (int i = 0; i < ANSWERS; i++) {
        const RewardScore *score = &scores[i];
        bool bad = strstr(completion(i), "BAD") != NULL && verdict;
        if (bad && (score->class != SCORE_UNJUDGED || strcmp(score->verdict, verdict) || !isnan(score->value)))
            fail_msg("%s: answer %d is %s, %s", mode, i, score_class_name(score->class), score->verdict);
        if (bad && *reason && !strstr(score->reason, reason)) fail_msg("%s: \"%s\"", mode, score->reason);
        /* two bytes that are no UTF-8 count as one character each, as Python counts */
        double value = (double)strlen(completion(i)) / 100;
        if (!bad && (score->class != SCORE_RIGHT || fabs(score->value - value) > 1e-9))
            fail_msg("%s: answer %d is %s with %g: %s", mode, i, score_class_name(score->class), score->value,
                     score->reason ? score->reason : "");
    }
}

static void test_good(void **state) {
    (void)state;
    judge("good", 60, 1, 1);
    only_bad("good", NULL, NULL);
    assert_string_equal(scores[0].reason, "its length");
    assert_string_equal(scores[0].detail, "{\"shape\":{\"n\":24}}");
    assert_string_equal(scores[0].verdict, "right");
    judge("good", 60, 3, 4);
    only_bad("good, 3 copies", NULL, NULL);
    judge("shuffle", 60, 1, 4);
    only_bad("shuffle", NULL, NULL);
    judge("twice", 60, 1, 8);
    only_bad("twice", NULL, NULL);
    judge("banner", 60, 1, 8);
    only_bad("banner", NULL, NULL);
    judge("stderr", 60, 1, 8);
    only_bad("stderr", NULL, NULL);
}

static void test_bad_answers(void **state) {
    (void)state;
    static const struct {
        const char *mode, *verdict, *reason;
        double deadline;
    } cases[] = {
        {"null", "unjudged", "no opinion", 60},       {"nan", "unjudged", "", 60},
        {"text", "rubbish", "no number", 60},         {"die", "died", "ended before", 60},
        {"kill", "died", "ended before", 60},         {"close", "died", "ended before", 60},
        {"flood", "flood", "writes and answers", 60}, {"wrong-id", "flood", "answers nothing", 60},
        {"hang", "timeout", "no answer within", 1},   {"rubbish", "timeout", "Traceback: rubbish", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        judge(cases[i].mode, cases[i].deadline, 1, 8);
        only_bad(cases[i].mode, cases[i].verdict, cases[i].reason);
    }
}

/* A program that never answers is given up, with its reason, and soon. */
static void test_broken_programs(void **state) {
    (void)state;
    judge("die-at-once-all", 60, 1, 8);
    assert_int_equal(counts[SCORE_UNJUDGED], ANSWERS);
    assert_non_null(strstr(scores[ANSWERS - 1].reason, "no licence"));
    judge("flood-all", 60, 1, 8);
    assert_int_equal(counts[SCORE_UNJUDGED], ANSWERS);
}

static void test_no_program(void **state) {
    (void)state;
    static const char *const names[] = {"exec:./nowhere.py", "exec:", "exec", "math:3", "exec:tests"};
    static const char *const says[] = {"nowhere.py", "names no program", "not known", "not known", "tests"};
    RewardConf conf = {0};
    for (int i = 0; i < 5; i++) {
        Err err = {0};
        assert_null(reward_open(&names[i], 1, &conf, &err));
        assert_non_null(strstr(err.msg, says[i]));
    }
}

static void test_labels(void **state) {
    (void)state;
    static const char *const names[][2] = {{"math", "math"},
                                           {"exec:./my_reward.py", "my_reward"},
                                           {"exec:python3 -u a/b/my.reward.py --fast 1", "my"},
                                           {"exec:/usr/bin/judge --model x", "judge"}};
    for (int i = 0; i < 4; i++) {
        char label[64];
        reward_label(names[i][0], label, sizeof label);
        assert_string_equal(label, names[i][1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad_answers),
                                       cmocka_unit_test(test_broken_programs), cmocka_unit_test(test_no_program),
                                       cmocka_unit_test(test_labels)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < ANSWERS; i++) reward_score_free(&scores[i]);
    return failed;
}
