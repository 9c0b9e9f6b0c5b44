/* test_rl_store.c: the store: what is written comes back bit for bit, a step is whole or not there whatever kills
 * the program, the views answer, and each kind of trouble (full disk, lock, damage, a newer store) is one clear
 * line. */
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rl/store_internal.h"

enum { GROUPS = 3, SAMPLES = 4, PARTS = 2, PROMPT = 5, LONGEST = 40 };

/* ---- a folder for each test --------------------------------------------------------------------------------- */

typedef struct {
    char folder[64], db[80];
} Place;

static int place_open(void **state) {
    Place *place = MEM_NEW(Place);
    strcpy(place->folder, "/tmp/whet-store-XXXXXX");
    if (!mkdtemp(place->folder)) return -1;
    snprintf(place->db, sizeof place->db, "%s/run.db", place->folder);
    *state = place;
    return 0;
}

static int place_close(void **state) {
    Place *place = *state;
    static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    for (int i = 0; i < 4; i++) {
        char name[96];
        snprintf(name, sizeof name, "%s%s", place->db, ends[i]);
        unlink(name);
    }
    rmdir(place->folder);
    free(place);
    return 0;
}

static Store *must_open(const char *path) {
    Err err = {0};
    Store *store = store_open(path, 0, &err);
    CHECK(store, "%s", err.msg);
    return store;
}

/* One number by plain SQL, as a user would ask for it. */
static double ask(const char *path, const char *sql) {
    sqlite3 *db;
    sqlite3_stmt *row;
    CHECK(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK, "%s", path);
    CHECK(sqlite3_prepare_v2(db, sql, -1, &row, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
    double value = sqlite3_step(row) == SQLITE_ROW ? store_double(row, 0) : -1;
    sqlite3_finalize(row);
    sqlite3_close(db);
    return value;
}

static void change(const char *path, const char *sql) {
    sqlite3 *db;
    CHECK(sqlite3_open(path, &db) == SQLITE_OK, "%s", path);
    CHECK(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
    sqlite3_close(db);
}

/* ---- steps to store ----------------------------------------------------------------------------------------- */

static real odd_number(Rng *rng) {
    static const float odd[] = {-0.0f, 1e-45f, -INFINITY, -0.1f, -87.5f};
    return rng_below(rng, 4) == 0 ? (real)odd[rng_below(rng, 5)] : (real)-fabs(rng_normal(rng));
}

static void sample_make(StoreSample *s, const StoreGroup *group, int index, long step, Arena *arena, Rng *rng) {
    Sample *sample = &s->sample;
    int own = (int)rng_below(rng, LONGEST); /* none, now and then */
    *sample = (Sample){
        .index = index, .n_prompt = PROMPT, .n = PROMPT + own, .finish = own % 3 ? FINISH_STOP : FINISH_LENGTH};
    sample->tok = arena_alloc(arena, (size_t)sample->n, sizeof(int));
    sample->logp = arena_alloc(arena, (size_t)sample->n, sizeof(real));
    sample->draw_logp = arena_alloc(arena, (size_t)sample->n, sizeof(real));
    memcpy(sample->tok, group->prompt_tok, PROMPT * sizeof(int));
    for (int t = PROMPT; t < sample->n; t++) {
        sample->tok[t] = (int)rng_below(rng, 50000);
        sample->logp[t] = odd_number(rng);
        sample->draw_logp[t] = index % 2 ? sample->logp[t] : odd_number(rng);
    }
    if (index % 4 == 1 && own) {
        sample->kept_n = 1 + (size_t)own * 300;
        sample->kept = arena_alloc(arena, sample->kept_n, 1);
        for (size_t i = 0; i < sample->kept_n; i++) sample->kept[i] = (unsigned char)rng_below(rng, index * 9);
    }
    sample->segments[0] = (Segment){0, PROMPT, ROLE_PROMPT, false, 0};
    sample->segments[1] = (Segment){PROMPT, own / 2, ROLE_MODEL, true, step};
    sample->segments[2] = (Segment){PROMPT + own / 2, own - own / 2, ROLE_TOOL, false, 0};
    sample->n_segments = 2 + index % 2;
    s->text = "so 7 + 8 = \0 15 \xff";
    s->text_n = 18;
    s->stage = "train";
    s->class = (ScoreClass)(index % 3);
    s->reward = index % 3 == 2 ? NAN : index % 3 == 0 ? 1.1 : 0.1 / 3;
    s->advantage = index == 3 ? NAN : index % 3 == 2 ? 0 : rng_normal(rng);
    s->scores = arena_alloc(arena, PARTS, sizeof(RewardScore));
    s->scores[0] = (RewardScore){s->reward, s->class, index % 2 ? "no-answer" : "equal-exact", NULL, NULL, 12.5};
    s->scores[1] = (RewardScore){
        0.1, SCORE_WRONG, "no-tags", arena_text(arena, "no tags", 7), arena_text(arena, "{\"at\":3}", 8), 0.25};
}

static void step_make(StoreStep *step, long number) {
    static const char *const parts[] = {"math", "format"};
    Rng rng = {.key = (uint64_t)number};
    static const StoreGuard guards[] = {{"entropy", "entropy: gone"}, {"truncated", "truncated: all of it"}};
    *step = (StoreStep){.step = number,
                        .version = number,
                        .weight_hash = rng_next(&rng),
                        .path = number % 2 ? "plain" : "avx2",
                        .moment_hash = rng_next(&rng),
                        .n_groups = GROUPS,
                        .guards = guards,
                        .n_guards = number % 2 ? 2 : 0};
    Arena *arena = &step->arena;
    step->parts = parts;
    step->n_parts = PARTS;
    step->groups = arena_alloc(arena, GROUPS, sizeof(StoreGroup));
    for (int g = 0; g < GROUPS; g++) {
        StoreGroup *group = &step->groups[g];
        int *tok = arena_alloc(arena, PROMPT, sizeof(int)), which = (int)((number + g) % 5);
        for (int t = 0; t < PROMPT; t++) tok[t] = which * 100 + t;
        *group = (StoreGroup){.source = "train.jsonl",
                              .place = (uint64_t)(number * GROUPS + g),
                              .key = rng_next(&rng),
                              .prompt = arena_format(arena, "<user>What is 7 + %d?", which),
                              .prompt_tok = tok,
                              .n_prompt = PROMPT,
                              .reward_mean = g == 2 ? NAN : 0.1 * g,
                              .reward_std = 1 / 3.0,
                              .judged = 3,
                              .signal = g != 1,
                              .n_samples = SAMPLES};
        group->problem = (Problem){.id = arena_format(arena, "%d", which),
                                   .kind = "sums",
                                   .problem = arena_format(arena, "What is 7 + %d?", which),
                                   .answer = which == 4 ? NULL : arena_format(arena, "%d", 7 + which),
                                   .fields = which == 3 ? "{\"level\":2}" : NULL};
        group->samples = arena_alloc(arena, SAMPLES, sizeof(StoreSample));
        for (int i = 0; i < SAMPLES; i++) sample_make(&group->samples[i], group, i, number, arena, &rng);
    }
    step->metrics = arena_alloc(arena, 3, sizeof(StoreNumber));
    step->metrics[0] = (StoreNumber){"loss", 0.1 * (double)number};
    step->metrics[1] = (StoreNumber){"kl", NAN};
    step->metrics[2] = (StoreNumber){"completions/mean_length", 17};
    step->n_metrics = 3;
    step->seconds = arena_alloc(arena, 2, sizeof(StoreNumber));
    step->seconds[0] = (StoreNumber){"sample", 1.5};
    step->seconds[1] = (StoreNumber){"step", 4.0};
    step->n_seconds = 2;
}

static bool step_write(Store *store, int64_t run, long number, Err *err) {
    StoreStep step;
    step_make(&step, number);
    bool good = store_step_write(store, run, &step, err);
    arena_free(&step.arena);
    return good;
}

/* A new store with one run and `steps` steps; returns the run. */
static int64_t store_fill(Store *store, long steps) {
    Err err = {0};
    StoreRun run = {.recipe = "{\"learning_rate\":2e-05}", .path = "plain", .version = "1", .weight_hash = 7};
    CHECK(store_run_begin(store, &run, &err), "%s", err.msg);
    for (long n = 1; n <= steps; n++) CHECK(step_write(store, run.id, n, &err), "%s", err.msg);
    return run.id;
}

/* ---- equality ----------------------------------------------------------------------------------------------- */

static void text_equal(const char *a, const char *b) {
    assert_int_equal(a == NULL, b == NULL);
    if (a) assert_string_equal(a, b);
}

static void double_equal(double a, double b) {
    if (isnan(a) && isnan(b)) return;
    assert_memory_equal(&a, &b, sizeof a);
}

static void sample_equal(const StoreSample *a, const StoreSample *b) {
    const Sample *x = &a->sample, *y = &b->sample;
    assert_int_equal(x->index, y->index);
    assert_int_equal(x->n_prompt, y->n_prompt);
    assert_int_equal(x->n, y->n);
    assert_int_equal(x->finish, y->finish);
    assert_int_equal(x->n_segments, y->n_segments);
    assert_memory_equal(x->tok, y->tok, (size_t)x->n * sizeof(int));
    assert_memory_equal(x->logp, y->logp, (size_t)x->n * sizeof(real));
    assert_memory_equal(x->draw_logp, y->draw_logp, (size_t)x->n * sizeof(real));
    assert_true(x->kept_n == y->kept_n && (x->kept != NULL) == (y->kept != NULL));
    if (x->kept) assert_memory_equal(x->kept, y->kept, x->kept_n);
    for (int i = 0; i < x->n_segments; i++) {
        const Segment *s = &x->segments[i], *t = &y->segments[i];
        assert_true(s->start == t->start && s->n == t->n && s->role == t->role && s->trained == t->trained);
        assert_true(s->version == t->version);
    }
    assert_int_equal(b->text_n, 20); /* the broken last byte is U+FFFD */
    assert_memory_equal(b->text, "so 7 + 8 = \0 15 \xef\xbf\xbd", 20);
    text_equal(a->stage, b->stage);
    assert_true(a->id == b->id && a->parent == b->parent && a->class == b->class);
    double_equal(a->reward, b->reward);
    double_equal(a->advantage, b->advantage);
    for (int p = 0; p < PARTS; p++) {
        const RewardScore *s = &a->scores[p], *t = &b->scores[p];
        double_equal(s->value, t->value);
        double_equal(s->microseconds, t->microseconds);
        assert_int_equal(s->class, t->class);
        text_equal(s->verdict, t->verdict);
        text_equal(s->reason, t->reason);
        text_equal(s->detail, t->detail);
    }
}

static void group_equal(const StoreGroup *a, const StoreGroup *b) {
    assert_true(a->id == b->id && a->problem_id == b->problem_id && a->place == b->place && a->key == b->key);
    assert_true(a->n_prompt == b->n_prompt && a->judged == b->judged && a->signal == b->signal);
    text_equal(a->source, b->source);
    text_equal(a->prompt, b->prompt);
    text_equal(a->problem.id, b->problem.id);
    text_equal(a->problem.kind, b->problem.kind);
    text_equal(a->problem.problem, b->problem.problem);
    text_equal(a->problem.answer, b->problem.answer);
    text_equal(a->problem.fields, b->problem.fields);
    double_equal(a->reward_mean, b->reward_mean);
    double_equal(a->reward_std, b->reward_std);
    assert_memory_equal(a->prompt_tok, b->prompt_tok, (size_t)a->n_prompt * sizeof(int));
    assert_int_equal(a->n_samples, b->n_samples);
    for (int i = 0; i < a->n_samples; i++) sample_equal(&a->samples[i], &b->samples[i]);
}

static void numbers_equal(const StoreNumber *a, const StoreNumber *b, int n) {
    for (int i = 0; i < n; i++) { /* read back in order of their names */
        int j = 0;
        while (j < n && strcmp(a[i].name, b[j].name) != 0) j++;
        assert_true(j < n);
        double_equal(a[i].value, b[j].value);
    }
}

static void step_equal(const StoreStep *a, const StoreStep *b) {
    assert_true(a->step == b->step && a->version == b->version && a->weight_hash == b->weight_hash);
    assert_true(a->moment_hash == b->moment_hash && a->n_guards == b->n_guards);
    for (int i = 0; i < a->n_guards; i++) {
        text_equal(a->guards[i].name, b->guards[i].name);
        text_equal(a->guards[i].line, b->guards[i].line);
    }
    text_equal(a->path, b->path);
    assert_true(a->n_groups == b->n_groups && a->n_parts == b->n_parts);
    assert_true(a->n_metrics == b->n_metrics && a->n_seconds == b->n_seconds);
    for (int i = 0; i < a->n_parts; i++) text_equal(a->parts[i], b->parts[i]);
    for (int i = 0; i < a->n_groups; i++) group_equal(&a->groups[i], &b->groups[i]);
    numbers_equal(a->metrics, b->metrics, a->n_metrics);
    numbers_equal(a->seconds, b->seconds, a->n_seconds);
}

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

/* ---- the program dies --------------------------------------------------------------------------------------- */

static void die_at(void *count, int what, const char *db, const char *table, sqlite3_int64 row) {
    (void)what, (void)db, (void)table, (void)row;
    if (--*(int *)count == 0) raise(SIGKILL);
}

static int die_now(void *unused) {
    (void)unused;
    return raise(SIGKILL);
}

/* Goes on from the last complete step up to `steps`; dies at the change number `deadly` (0: never), or as it is
 * about to commit (-1). */
static pid_t write_in_child(const char *path, long steps, int deadly) {
    pid_t child = fork();
    if (child != 0) return child;
    Err err = {0};
    Arena arena = {0};
    StoreRun run;
    bool found;
    long last = 0;
    Store *store = must_open(path);
    CHECK(store_run_last(store, &arena, &run, &found, &err) && found, "%s", err.msg);
    CHECK(store_step_last(store, run.id, &last, &err), "%s", err.msg);
    /* Few pages in memory: what is not yet committed is already in the log. */
    sqlite3_exec(store->db, "PRAGMA cache_size = 8", NULL, NULL, NULL);
    if (deadly > 0) sqlite3_update_hook(store->db, die_at, &deadly);
    if (deadly < 0) sqlite3_commit_hook(store->db, die_now, NULL);
    while (last < steps) CHECK(step_write(store, run.id, ++last, &err), "%s", err.msg);
    _exit(0);
}

static uint64_t digest_of(const char *path) {
    Err err = {0};
    uint64_t digest;
    Store *store = must_open(path);
    CHECK(store_digest(store, &digest, &err), "%s", err.msg);
    store_close(store);
    return digest;
}

/* All steps up to the last are whole and as written. Returns the last. */
static long check_whole(const char *path) {
    Err err = {0};
    long last;
    Store *store = must_open(path);
    assert_true(store_step_last(store, 1, &last, &err));
    for (long n = 1; n <= last; n++) {
        StoreStep made, read;
        step_make(&made, n);
        assert_true(store_step_read(store, 1, n, &read, &err));
        assert_true(read.n_groups == GROUPS && read.weight_hash == made.weight_hash);
        assert_memory_equal(read.groups[2].samples[3].sample.tok, made.groups[2].samples[3].sample.tok,
                            sizeof(int));
        store_step_free(&read);
        arena_free(&made.arena);
    }
    store_close(store);
    assert_true(ask(path, "SELECT count(*) FROM groups") == (double)last * GROUPS);
    assert_true(ask(path, "SELECT count(*) FROM scores") == (double)last * GROUPS * SAMPLES * PARTS);
    assert_true(ask(path, "SELECT count(*) FROM step_metrics") == (double)last * 3);
    return last;
}

static void killed_inside_a_transaction(void **state) {
    const Place *place = *state;
    const long steps = 3;
    int died = 0;
    Store *store = must_open(place->db);
    store_fill(store, 0);
    store_close(store);
    for (int deadly = -1;; deadly++) {
        if (deadly == 0) continue;
        int status;
        waitpid(write_in_child(place->db, steps, deadly), &status, 0);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            break;
        }
        assert_int_equal(WTERMSIG(status), SIGKILL);
        check_whole(place->db);
        died++;
    }
    assert_true(died >= GROUPS * (1 + SAMPLES)); /* the hook sees a step's groups and samples */
    assert_int_equal(check_whole(place->db), steps);
    uint64_t digest = digest_of(place->db);
    unlink(place->db); /* the same steps, undisturbed */
    store = must_open(place->db);
    store_fill(store, steps);
    store_close(store);
    assert_true(digest_of(place->db) == digest);
}

static void killed_at_any_time(void **state) {
    const Place *place = *state;
    Store *store = must_open(place->db);
    store_fill(store, 0);
    store_close(store);
    Rng rng = {.key = 5};
    long last = 0,
         longest = 30000; /* longer where the machine is so busy that no step was stored before the kill */
    for (int i = 0; i < 12; i++) {
        pid_t child = write_in_child(place->db, 1000000, 0);
        usleep((useconds_t)(3000 + rng_below(&rng, (uint64_t)longest)));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        long now = check_whole(place->db);
        assert_true(now >= last);
        if (now == last) longest *= 2;
        last = now;
    }
    assert_true(last > 0);
}

/* ---- trouble with the disk ---------------------------------------------------------------------------------- */

/* Runs body in a child; returns its exit status (0: good, 77: not possible here). */
static int in_child(int (*body)(const Place *), const Place *place) {
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) _exit(body(place));
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Writes steps until the disk is full: one clear line, and all that was stored is there. Then `relieve` makes
 * room, and the same step is written with the same open store. */
static int fill_disk(const char *path, void (*relieve)(const char *path)) {
    Err err = {0};
    Store *store = must_open(path);
    int64_t run = store_fill(store, 2);
    long n = 3, last;
    while (n < 5000 && step_write(store, run, n, &err)) n++;
    CHECK(n < 5000, "the disk never filled");
    CHECK(strstr(err.msg, "no space left on the disk (or under a limit) while storing step"), "%s", err.msg);
    CHECK(store_step_last(store, run, &last, &err) && last == n - 1, "last is %ld", last);
    relieve(path);
    CHECK(step_write(store, run, n, &err), "%s", err.msg);
    store_close(store);
    CHECK(check_whole(path) == n, "not %ld steps", n);
    return 0;
}

static void raise_limit(const char *path) {
    (void)path;
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
}

static int limited_file(const Place *place) {
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){2 << 20, RLIM_INFINITY});
    return fill_disk(place->db, raise_limit);
}

/* A folder of its own that nobody else sees; false where this is not allowed. */
static bool mount_private(const char *folder, unsigned long flags, const char *options) {
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", folder, "tmpfs", flags, options) == 0;
}

static void grow_disk(const char *path) {
    char folder[80];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    CHECK(mount(NULL, folder, NULL, MS_REMOUNT, "size=16m") == 0, "%s", folder);
}

static int small_disk(const Place *place) {
    if (!mount_private(place->folder, 0, "size=3m")) return 77;
    return fill_disk(place->db, grow_disk);
}

static void full_disk_loses_nothing(void **state) {
    assert_int_equal(in_child(limited_file, *state), 0);
    place_close(state);
    assert_int_equal(place_open(state), 0);
    int result = in_child(small_disk, *state);
    if (result == 77)
        print_message("LEFT OUT: a small tmpfs (needs the right to mount)\n");
    else
        assert_int_equal(result, 0);
}

static int read_only(const Place *place) {
    Err err = {0};
    if (geteuid() == 0) {
        if (!mount_private(place->folder, 0, "size=4m")) return 77;
        store_close(must_open(place->db)); /* also with a store that was made before */
        if (mount(NULL, place->folder, NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0) return 77;
    } else {
        chmod(place->folder, 0500);
    }
    CHECK(!store_open(place->db, 0, &err), "opened in a read-only folder");
    CHECK(strstr(err.msg, place->db) && strstr(err.msg, "cannot be written"), "%s", err.msg);
    char other[96];
    snprintf(other, sizeof other, "%s/new.db", place->folder);
    CHECK(!store_open(other, 0, &err), "made in a read-only folder");
    CHECK(strstr(err.msg, "cannot be written"), "%s", err.msg);
    chmod(place->folder, 0700);
    return 0;
}

static void read_only_folder_is_one_line(void **state) {
    const Place *place = *state;
    int result = in_child(read_only, place);
    if (result == 77)
        print_message("LEFT OUT: a read-only folder (needs the right to mount)\n");
    else
        assert_int_equal(result, 0);
    Err err = {0};
    assert_null(store_open("/nowhere/at/all/run.db", 0, &err));
    assert_non_null(strstr(err.msg, "No such file or directory"));
    assert_null(strchr(err.msg, '\n'));
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
#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, place_open, place_close)
        STORE_TEST(steps_come_back_bit_for_bit),
        STORE_TEST(samples_may_be_consumed_later),
        STORE_TEST(runs_and_attempts_are_kept),
        STORE_TEST(evaluations_are_kept_and_replaced),
        STORE_TEST(views_answer),
        STORE_TEST(digest_sees_all_but_times),
        STORE_TEST(killed_inside_a_transaction),
        STORE_TEST(killed_at_any_time),
        STORE_TEST(full_disk_loses_nothing),
        STORE_TEST(read_only_folder_is_one_line),
        STORE_TEST(locks_are_waited_for_and_reported),
        STORE_TEST(newer_and_foreign_stores_are_refused),
        STORE_TEST(stores_are_read_while_they_are_written),
        STORE_TEST(damaged_files_are_refused),
        STORE_TEST(damaged_rows_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
