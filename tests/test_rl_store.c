/* test_rl_store.c: the store: what is written comes back bit for bit, the views answer, and locks, damage and a
 * newer store are each one clear line. */
#include "tests/store_help.h"

#include <fcntl.h>
#include <sys/stat.h>

/* ---- reading back ------------------------------------------------------------------------------------------- */

static void steps_come_back_bit_for_bit(void **state) {
    const Place *place = *state;
    Err err = {0};
    StoreStep written[3], read;
    Store *store = must_open(place->db);
    int64_t run = store_fill(store, 0);
    for (int n = 0; n < 3; n++) {
        step_make(&written[n], n + 1);
        if (n == 2) written[2].groups[1].samples[2].parent = written[0].groups[0].samples[1].id;
        assert_true(store_step_write(store, run, &written[n], &err));
    }
    assert_int_equal(written[2].groups[0].id, 2 * GROUPS + 1); /* ids are counted */
    assert_int_equal(written[2].groups[2].samples[3].id, 3 * GROUPS * SAMPLES);
    for (int again = 0; again < 2; again++) {
        for (int n = 2; n >= 0; n--) {
            assert_true(store_step_read(store, run, n + 1, &read, &err));
            step_equal(&written[n], &read);
            store_step_free(&read);
        }
        store_close(store);
        store = must_open(place->db);
    }
    long last;
    assert_true(store_step_last(store, run, &last, &err));
    assert_int_equal(last, 3);
    assert_false(store_step_read(store, run, 4, &read, &err));
    assert_non_null(strstr(err.msg, "reading step 4"));
    store_close(store);
    for (int n = 0; n < 3; n++) arena_free(&written[n].arena);
    assert_true(ask(place->db, "SELECT count(*) FROM problems") == 5);
}

static void samples_may_be_consumed_later(void **state) {
    const Place *place = *state;
    Err err = {0};
    StoreUse uses[] = {{2, -0.25}, {4, 1.5}};
    StoreStep learnt = {.path = "plain", .step = 2, .version = 2, .weight_hash = 9, .uses = uses, .n_uses = 2},
              read;
    Store *store = must_open(place->db);
    int64_t run = store_fill(store, 1);
    assert_true(store_step_write(store, run, &learnt, &err));
    assert_true(step_write(store, run, 3, &err));
    assert_true(store_step_read(store, run, 2, &read, &err));
    assert_true(read.n_groups == 0 && read.n_uses == 2 && read.weight_hash == 9);
    assert_memory_equal(read.uses, uses, sizeof uses);
    store_step_free(&read);
    assert_true(store_step_read(store, run, 3, &read, &err));
    assert_true(read.n_groups == GROUPS && read.n_uses == 0);
    store_step_free(&read);
    assert_true(step_write(store, run, 7, &err)); /* as when a checkpoint outlived the store */
    store_close(store);
    /* The fourth sample was first consumed by step 2, the second by its own step. */
    assert_true(ask(place->db, "SELECT advantage FROM answers WHERE sample_id = 4") == 1.5);
    assert_true(ask(place->db, "SELECT count(*) FROM answers") == 3 * GROUPS * SAMPLES);
    assert_true(ask(place->db, "SELECT count(*) FROM advantages WHERE sample_id = 2") == 2);
}

static void runs_and_attempts_are_kept(void **state) {
    const Place *place = *state;
    Err err = {0};
    Arena arena = {0};
    StoreRun run = {.recipe = "{\"learning_rate\":2e-05}", .path = "avx2", .version = "0.1", .weight_hash = ~0ull},
             read;
    bool found;
    long last;
    int64_t attempt;
    Store *store = must_open(place->db);
    assert_true(store_run_last(store, &arena, &read, &found, &err) && !found);
    assert_true(store_run_begin(store, &run, &err));
    assert_true(store_step_last(store, run.id, &last, &err) && last == 0);
    assert_true(store_attempt_begin(store, run.id, 0, "avx2", "0.1", 2, &attempt, &err));
    store_close(store); /* as if killed */
    store = must_open(place->db);
    assert_true(store_run_last(store, &arena, &read, &found, &err) && found);
    text_equal(read.recipe, run.recipe);
    text_equal(read.path, "avx2");
    text_equal(read.version, "0.1");
    assert_true(read.weight_hash == run.weight_hash && read.id == run.id);
    assert_true(store_attempt_begin(store, run.id, 20, "avx2", "0.1", 1, &attempt, &err));
    assert_true(store_attempt_end(store, attempt, "finished", &err));
    store_close(store);
    arena_free(&arena);
    assert_true(ask(place->db, "SELECT count(*) FROM attempts WHERE ended_at IS NULL AND from_step = 0") == 1);
    assert_true(ask(place->db,
                    "SELECT count(*) FROM attempts WHERE ended_at >= started_at AND outcome = 'finished'") == 1);
    assert_true(ask(place->db, "SELECT recipe ->> '$.learning_rate' FROM runs") == 2e-05);
}

static void evaluations_are_kept_and_replaced(void **state) {
    const Place *place = *state;
    Err err = {0};
    Store *store = must_open(place->db);
    int64_t run = store_fill(store, 1);
    StoreAnswer answers[] = {
        {.problem = {"0", "sums", "1 + 1?", "2", NULL}, .text = "2", .text_n = 1, .n_tokens = 2, .reward = 1},
        {.problem = {"1", "sums", "1 + 2?", "3", NULL}, .text = "", .reward = NAN, .class = SCORE_UNJUDGED},
    };
    answers[0].verdict = "equal-exact";
    answers[1].finish = FINISH_LENGTH;
    StoreEval eval = {.name = "held-out",
                      .n = 1,
                      .accuracy = 1,
                      .ci_low = .2,
                      .ci_high = NAN,
                      .mean_length = 1,
                      .seconds = 3,
                      .answers = answers,
                      .n_answers = 2},
              read;
    for (int again = 0; again < 2; again++) { /* of step 1; then another one in its place */
        eval.step = 0;
        assert_true(store_eval_write(store, run, &eval, &err));
        eval.step = 1;
        eval.accuracy = 0.5 * again;
        assert_true(store_eval_write(store, run, &eval, &err));
    }
    bool found;
    assert_true(store_eval_read(store, run, 2, "held-out", &read, &found, &err) && !found);
    assert_true(store_eval_read(store, run, 1, "held-out", &read, &found, &err) && found);
    assert_true(read.accuracy == 0.5 && read.ci_low == .2 && isnan(read.ci_high) && read.n == 1 &&
                read.n_answers == 2);
    text_equal(read.answers[0].problem.problem, "1 + 1?");
    text_equal(read.answers[0].verdict, "equal-exact");
    assert_true(isnan(read.answers[1].reward) && read.answers[1].class == SCORE_UNJUDGED);
    assert_true(read.answers[1].finish == FINISH_LENGTH && read.answers[1].text_n == 0 &&
                !read.answers[1].verdict);
    store_eval_free(&read);
    store_close(store);
    assert_true(ask(place->db, "SELECT count(*) FROM eval_answers") == 4);
    assert_true(ask(place->db, "SELECT count(*) FROM before_after WHERE step_before = 0 AND step_after = 1") == 2);
}

static void views_answer(void **state) {
    const Place *place = *state;
    Store *store = must_open(place->db);
    store_fill(store, 4);
    store_close(store);
    /* Of a group's four samples numbers 0 and 3 are right (1.1), 1 wrong (0.1/3), 2 unjudged. */
    assert_true(ask(place->db, "SELECT count(*) FROM samples WHERE reward IS NULL") == 4 * GROUPS);
    assert_true(ask(place->db, "SELECT count(*) FROM samples WHERE (reward IS NULL) <> (class = 'unjudged')") ==
                0);
    /* The summaries are what the rows add up to. */
    static const char *const sums[] = {
        "SELECT count(*) FROM step_summary y WHERE samples = (SELECT count(*) FROM answers a WHERE a.step = "
        "y.step) "
        "AND tokens = (SELECT sum(n_tokens) FROM answers a WHERE a.step = y.step) "
        "AND clipped = (SELECT sum(finish = 'length') FROM answers a WHERE a.step = y.step) "
        "AND abs(reward - (SELECT sum(reward) FROM answers a WHERE a.step = y.step)) < 1e-12",
        "SELECT 4 * (count(*) = (SELECT count(DISTINCT problem_id) FROM groups)) FROM problem_summary y "
        "WHERE asked = (SELECT count(reward) FROM answers a WHERE a.problem_id = y.problem_id) "
        "AND n_right = (SELECT sum(class = 'right') FROM answers a WHERE a.problem_id = y.problem_id) "
        "AND first_step = (SELECT min(step) FROM answers a WHERE a.problem_id = y.problem_id) "
        "AND last_step = (SELECT max(step) FROM answers a WHERE a.problem_id = y.problem_id)",
        "SELECT 4.0 * sum(n) / (SELECT count(*) FROM scores) FROM verdicts"};
    for (int i = 0; i < 3; i++) assert_true(ask(place->db, sums[i]) == 4);
    double reward = ask(place->db, "SELECT reward FROM reward_by_step WHERE step = 3");
    assert_true(fabs(reward - (2.2 + 0.1 / 3) / 3) < 1e-12);
    assert_true(ask(place->db, "SELECT accuracy FROM reward_by_step WHERE step = 3") == 0.5);
    assert_true(ask(place->db, "SELECT unjudged FROM reward_by_step WHERE step = 3") == GROUPS);
    double tokens = ask(place->db, "SELECT sum(n_tokens) / 4.0 FROM answers WHERE step = 2");
    assert_true(ask(place->db, "SELECT tokens_per_second FROM reward_by_step WHERE step = 2") == tokens);
    assert_true(ask(place->db,
                    "SELECT count(*) FROM hardest_problems WHERE right_share > 0.66 AND right_share < 0.67") == 5);
    assert_true(ask(place->db, "SELECT sum(asked) FROM hardest_problems") == 4 * GROUPS * 3);
    assert_true(ask(place->db, "SELECT n_tokens FROM longest_right LIMIT 1") ==
                ask(place->db, "SELECT max(n_tokens) FROM samples WHERE class = 'right'"));
    assert_true(ask(place->db, "SELECT sum(n) FROM verdicts WHERE name = 'math' AND verdict = 'no-answer'") ==
                8 * GROUPS);
    assert_true(ask(place->db, "SELECT sum(with_signal) FROM signal_by_step") == 8);
    assert_true(ask(place->db, "SELECT count(*) FROM answers WHERE advantage IS NULL") == 4 * GROUPS);
    assert_true(ask(place->db, "SELECT value FROM step_metrics WHERE step = 4 AND name = 'loss'") == 0.4);
}

static void digest_sees_all_but_times(void **state) {
    const Place *place = *state;
    static const char *const times[] = {"UPDATE scores SET microseconds = 99",
                                        "UPDATE step_seconds SET seconds = 9", "DELETE FROM attempts",
                                        "UPDATE evals SET seconds = 8", "UPDATE runs SET recipe = '{}'"};
    static const char *const others[] = {"UPDATE samples SET text = 'x' WHERE id = 5",
                                         "UPDATE step_metrics SET value = 0.10000000000000002 WHERE value = 0.1",
                                         "UPDATE scores SET verdict = NULL WHERE sample_id = 1",
                                         "UPDATE advantages SET advantage = 1 WHERE sample_id = 1",
                                         "UPDATE groups SET key = key + 1 WHERE id = 2",
                                         "UPDATE steps SET weight_hash = '0' WHERE step = 2",
                                         "UPDATE steps SET moment_hash = '0' WHERE step = 2",
                                         "UPDATE step_guards SET line = '' WHERE step = 1",
                                         "UPDATE problems SET answer = '' WHERE answer IS NULL",
                                         "UPDATE evals SET n = 3"};
    Err err = {0};
    uint64_t first, now;
    Store *store = must_open(place->db);
    int64_t run = store_fill(store, 2);
    StoreEval eval = {.name = "held-out", .n = 1};
    assert_true(store_eval_write(store, run, &eval, &err));
    assert_true(store_digest(store, &first, &err));
    for (int i = 0; i < 5; i++) {
        change(place->db, times[i]);
        assert_true(store_digest(store, &now, &err) && now == first);
    }
    for (int i = 0; i < 10; i++) {
        change(place->db, others[i]);
        assert_true(store_digest(store, &now, &err));
        assert_true(now != first);
        first = now;
    }
    store_close(store);
}

/* ---- other programs ----------------------------------------------------------------------------------------- */

static void refused(const char *path, const char *why) {
    Err err = {0};
    assert_null(store_open(path, 0.2, &err));
    assert_non_null(strstr(err.msg, path));
    if (!strstr(err.msg, why)) fail_msg("%s", err.msg);
    assert_null(strchr(err.msg, '\n'));
}

static void locks_are_waited_for_and_reported(void **state) {
    const Place *place = *state;
    Err err = {0};
    long last;
    Store *store = store_open(place->db, 0.2, &err);
    assert_non_null(store);
    int64_t run = store_fill(store, 1);
    refused(place->db, "another whet is writing");
    sqlite3 *other;
    assert_int_equal(sqlite3_open(place->db, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_false(step_write(store, run, 2, &err));
    assert_non_null(strstr(err.msg, "locked by another program for 0.2 s while storing step 2"));
    sqlite3_exec(other, "ROLLBACK; BEGIN; SELECT count(*) FROM samples", NULL, NULL,
                 NULL); /* a reader blocks nobody */
    assert_true(step_write(store, run, 2, &err));
    sqlite3_close(other);
    assert_true(store_step_last(store, run, &last, &err) && last == 2);
    store_close(store);
}

static void newer_and_foreign_stores_are_refused(void **state) {
    const Place *place = *state;
    Store *store = must_open(place->db);
    store_fill(store, 1);
    store_close(store);
    change(place->db, "PRAGMA user_version = 3");
    refused(place->db, "made by a newer whet (store version 3, this one knows 2)");
    assert_true(ask(place->db, "SELECT count(*) FROM steps") == 1);
    change(place->db, "PRAGMA user_version = 1");
    refused(place->db, "made by an older whet (store version 1, this one knows 2)");
    change(place->db, "PRAGMA user_version = 2");
    store_close(must_open(place->db));
    unlink(place->db);
    change(place->db, "CREATE TABLE notes (text)");
    refused(place->db, "another program");
    assert_true(ask(place->db, "SELECT count(*) FROM sqlite_schema") == 1);
}

/* Others read what is committed, and may add what is no part of the run, while a run writes. */
static void stores_are_read_while_they_are_written(void **state) {
    const Place *place = *state;
    Err err = {0};
    assert_null(store_open_read(place->db, &err));
    assert_non_null(strstr(err.msg, "no such store"));
    Store *store = must_open(place->db);
    int64_t run = store_fill(store, 1);
    Store *reader = store_open_read(place->db, &err), *beside = store_open_beside(place->db, &err);
    assert_true(reader && beside);
    for (long n = 1, last; n <= 3; n++) {
        assert_true(store_step_last(reader, run, &last, &err));
        assert_int_equal(last, n);
        assert_true(step_write(store, run, n + 1, &err));
    }
    assert_true(store_put(beside, &err,
                          "INSERT INTO score_sets (run, rewards, version, made_at) VALUES (1, '', '', '')", ""));
    assert_false(store_put(reader, &err, "DELETE FROM score_sets", ""));
    store_close(beside);
    store_close(reader);
    store_close(store);
    change(place->db, "PRAGMA user_version = 1");
    assert_null(store_open_read(place->db, &err));
    assert_non_null(strstr(err.msg, "older whet"));
}

/* ---- damage ------------------------------------------------------------------------------------------------- */

static void damaged_files_are_refused(void **state) {
    const Place *place = *state;
    Store *store = must_open(place->db);
    store_fill(store, 6);
    store_close(store);
    struct stat stat_now;
    assert_int_equal(stat(place->db, &stat_now), 0);
    assert_int_equal(truncate(place->db, stat_now.st_size / 4096 / 2 * 4096), 0);
    refused(place->db, "damaged");
    int file = open(place->db, O_WRONLY | O_TRUNC);
    for (int i = 0; i < 4096; i++) assert_int_equal(write(file, "garbage!", 8), 8);
    close(file);
    refused(place->db, "damaged");
}

static void damaged_rows_are_reported(void **state) {
    const Place *place = *state;
    static const char *const harm[] = {
        "UPDATE samples SET logprobs = x'00' WHERE id = 3",
        "UPDATE samples SET tokens = substr(tokens, 1, 12) WHERE id = 3",
        "UPDATE samples SET n_tokens = n_tokens + 1 WHERE id = 3",
        "UPDATE samples SET n_tokens = 99999999999 WHERE id = 3",
        "UPDATE samples SET n_prompt = -1 WHERE id = 3",
        "UPDATE samples SET segments = "
        "'[{\"start\":0,\"n\":9999,\"role\":\"model\",\"trained\":true,\"version\":0}]' WHERE id = 3",
        "UPDATE samples SET segments = '[[[' WHERE id = 3",
        "UPDATE samples SET finish = 'maybe' WHERE id = 3",
        "UPDATE groups SET n_prompt = 4 WHERE id = 1",
        "DELETE FROM scores WHERE sample_id = 3 AND part = 1",
        "PRAGMA ignore_check_constraints = 1; UPDATE samples SET class = 'odd' WHERE id = 3",
    };
    for (int i = 0; i < (int)(sizeof harm / sizeof *harm); i++) {
        Err err = {0};
        StoreStep step;
        Store *store = must_open(place->db);
        int64_t run = store_fill(store, 2);
        store_close(store);
        change(place->db, harm[i]);
        store = must_open(place->db);
        if (store_step_read(store, run, 1, &step, &err)) fail_msg("not noticed: %s", harm[i]);
        assert_non_null(strstr(err.msg, "damaged, found while reading step 1"));
        assert_true(store_step_read(store, run, 2, &step, &err)); /* the rest can still be read */
        store_step_free(&step);
        store_close(store);
        unlink(place->db);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(steps_come_back_bit_for_bit),
        STORE_TEST(samples_may_be_consumed_later),
        STORE_TEST(runs_and_attempts_are_kept),
        STORE_TEST(evaluations_are_kept_and_replaced),
        STORE_TEST(views_answer),
        STORE_TEST(digest_sees_all_but_times),
        STORE_TEST(locks_are_waited_for_and_reported),
        STORE_TEST(newer_and_foreign_stores_are_refused),
        STORE_TEST(stores_are_read_while_they_are_written),
        STORE_TEST(damaged_files_are_refused),
        STORE_TEST(damaged_rows_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
