/* store_help.h: what the tests of the store share: a folder for each test, steps of odd numbers to store, and the
 * comparison of what came back. */
#ifndef WHET_TESTS_STORE_HELP_H
#define WHET_TESTS_STORE_HELP_H

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rl/store_internal.h"

#define UNUSED_HERE __attribute__((unused))
enum { GROUPS = 3, SAMPLES = 4, PARTS = 2, PROMPT = 5, LONGEST = 40 };

/* ---- a folder for each test --------------------------------------------------------------------------------- */

typedef struct {
    char folder[64], db[80];
} Place;

UNUSED_HERE static int place_open(void **state) {
    Place *place = MEM_NEW(Place);
    strcpy(place->folder, "/tmp/whet-store-XXXXXX");
    if (!mkdtemp(place->folder)) return -1;
    snprintf(place->db, sizeof place->db, "%s/run.db", place->folder);
    *state = place;
    return 0;
}

UNUSED_HERE static int place_close(void **state) {
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

UNUSED_HERE static Store *must_open(const char *path) {
    Err err = {0};
    Store *store = store_open(path, 0, &err);
    CHECK(store, "%s", err.msg);
    return store;
}

/* One number by plain SQL, as a user would ask for it. */
UNUSED_HERE static double ask(const char *path, const char *sql) {
    sqlite3 *db;
    sqlite3_stmt *row;
    CHECK(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK, "%s", path);
    CHECK(sqlite3_prepare_v2(db, sql, -1, &row, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
    double value = sqlite3_step(row) == SQLITE_ROW ? store_double(row, 0) : -1;
    sqlite3_finalize(row);
    sqlite3_close(db);
    return value;
}

UNUSED_HERE static void change(const char *path, const char *sql) {
    sqlite3 *db;
    CHECK(sqlite3_open(path, &db) == SQLITE_OK, "%s", path);
    CHECK(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
    sqlite3_close(db);
}

/* ---- steps to store ----------------------------------------------------------------------------------------- */

UNUSED_HERE static real odd_number(Rng *rng) {
    static const float odd[] = {-0.0f, 1e-45f, -INFINITY, -0.1f, -87.5f};
    return rng_below(rng, 4) == 0 ? (real)odd[rng_below(rng, 5)] : (real)-fabs(rng_normal(rng));
}

UNUSED_HERE static void sample_make(StoreSample *s, const StoreGroup *group, int index, long step, Arena *arena, Rng *rng) {
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

UNUSED_HERE static void step_make(StoreStep *step, long number) {
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

UNUSED_HERE static bool step_write(Store *store, int64_t run, long number, Err *err) {
    StoreStep step;
    step_make(&step, number);
    bool good = store_step_write(store, run, &step, err);
    arena_free(&step.arena);
    return good;
}

/* A new store with one run and `steps` steps; returns the run. */
UNUSED_HERE static int64_t store_fill(Store *store, long steps) {
    Err err = {0};
    StoreRun run = {.recipe = "{\"learning_rate\":2e-05}", .path = "plain", .version = "1", .weight_hash = 7};
    CHECK(store_run_begin(store, &run, &err), "%s", err.msg);
    for (long n = 1; n <= steps; n++) CHECK(step_write(store, run.id, n, &err), "%s", err.msg);
    return run.id;
}

/* ---- equality ----------------------------------------------------------------------------------------------- */

UNUSED_HERE static void text_equal(const char *a, const char *b) {
    assert_int_equal(a == NULL, b == NULL);
    if (a) assert_string_equal(a, b);
}

UNUSED_HERE static void double_equal(double a, double b) {
    if (isnan(a) && isnan(b)) return;
    assert_memory_equal(&a, &b, sizeof a);
}

UNUSED_HERE static void sample_equal(const StoreSample *a, const StoreSample *b) {
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

UNUSED_HERE static void group_equal(const StoreGroup *a, const StoreGroup *b) {
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

UNUSED_HERE static void numbers_equal(const StoreNumber *a, const StoreNumber *b, int n) {
    for (int i = 0; i < n; i++) { /* read back in order of their names */
        int j = 0;
        while (j < n && strcmp(a[i].name, b[j].name) != 0) j++;
        assert_true(j < n);
        double_equal(a[i].value, b[j].value);
    }
}

UNUSED_HERE static void step_equal(const StoreStep *a, const StoreStep *b) {
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

#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, place_open, place_close)

#endif
