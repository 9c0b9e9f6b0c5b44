/* code_help.h: what the tests of the code rewarder share: rows in as JSON text, scores out. */
#ifndef WHET_TESTS_CODE_HELP_H
#define WHET_TESTS_CODE_HELP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "reward/reward.h"

static inline Reward *code_open(bool weak, int workers, Err *err) {
    const char *names[] = {"code"};
    RewardConf conf = {.allow_weak_sandbox = weak, .workers = workers};
    return reward_open(names, 1, &conf, err);
}

/* Submits one row (JSON text whose "completion" is the response). The row must live until its score is taken. */
static inline void code_submit(Reward *reward, json_t *row, char **fields, int64_t ticket) {
    Err err = {{0}};
    *fields = json_dumps(row, JSON_COMPACT);
    RewardItem item = {.completion = json_string_value(json_object_get(row, "completion")), .fields = *fields};
    if (!reward_submit(reward, &item, 1, ticket, &err)) fail_msg("submit: %s", err.msg);
}

static inline void code_take(Reward *reward, double seconds, int64_t *ticket, RewardScore *score) {
    Err err = {{0}};
    int part;
    double until = clock_seconds() + seconds;
    for (;;) {
        int got = reward_poll(reward, 1, ticket, &part, score, &err);
        if (got == 1) return;
        if (got < 0) fail_msg("poll: %s", err.msg);
        if (clock_seconds() > until) fail_msg("no score within %g s", seconds);
    }
}

static inline RewardScore code_judge(Reward *reward, json_t *row) {
    char *fields;
    int64_t ticket;
    RewardScore score;
    code_submit(reward, row, &fields, 7);
    code_take(reward, 60, &ticket, &score);
    assert_int_equal(ticket, 7);
    free(fields);
    json_decref(row);
    return score;
}

/* Judges a row and compares the verdict. */
#define expect_verdict(reward, row, wanted) code_expect(reward, row, wanted, __LINE__)
static inline void code_expect(Reward *reward, json_t *row, const char *wanted, int line) {
    RewardScore score = code_judge(reward, row);
    if (strcmp(score.verdict, wanted) != 0)
        fail_msg("line %d: %s (%s), not %s", line, score.verdict, score.reason ? score.reason : "", wanted);
    ScoreClass class = !strcmp(wanted, "pass")            ? SCORE_RIGHT
                       : !strcmp(wanted, "sandbox-error") ? SCORE_UNJUDGED
                                                          : SCORE_WRONG;
    assert_int_equal(score.class, class);
    reward_score_free(&score);
}

static inline json_t *row_asserts(const char *code, const char *test) {
    return json_pack("{s:s, s:s, s:[s], s:s}", "completion", code, "language", "python", "asserts", test,
                     "entry_point", "f");
}

static inline json_t *row_io(const char *language, const char *code, const char *input, const char *output) {
    return json_pack("{s:s, s:s, s:[{s:s, s:s}]}", "completion", code, "language", language, "tests", "stdin",
                     input, "stdout", output);
}

static inline int count_entries(const char *folder) {
    DIR *dir = opendir(folder);
    int n = 0;
    for (struct dirent *d; dir && (d = readdir(dir));) n += d->d_name[0] != '.';
    if (dir) closedir(dir);
    return n;
}

/* The processes of sandboxes that descend from `root`, or all that are left on this machine when root is 0. */
static inline int sandbox_processes(pid_t *pids, int most) {
    DIR *dir = opendir("/proc");
    int n = 0;
    for (struct dirent *d; dir && (d = readdir(dir));) {
        char path[300], text[300] = "";
        snprintf(path, sizeof path, "/proc/%s/cmdline", d->d_name);
        FILE *file = atoi(d->d_name) > 0 ? fopen(path, "re") : NULL;
        size_t got = file ? fread(text, 1, sizeof text - 1, file) : 0;
        if (file) fclose(file);
        for (size_t i = 0; i < got; i++)
            if (!text[i]) text[i] = ' ';
        bool ours = strstr(text, "whet-code-worker") == text || strstr(text, "s=os.pread(5");
        if (ours && n < most) pids[n] = (pid_t)atoi(d->d_name);
        n += ours;
    }
    if (dir) closedir(dir);
    return n;
}

#endif
