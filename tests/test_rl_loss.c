/* test_rl_loss.c: the host mathematics of learning: advantages, losses and schedules, against numbers worked out
 * from their formulas, TRL's formulas in torch (goldens/rl_losses.json), transformers (goldens/rl_schedules.txt),
 * finite differences and other cuts of the batch. */
#include "tests/loss_help.h"
#include "rl/schedule.h"

static void grpo_advantages(double *a, GroupStats *stats, AdvantageReport *report, const double *r, int groups,
                            int size, ScaleRewards scale) {
    advantages_compute(a, stats, report,
                       &(AdvantageIn){.scale = scale, .groups = groups, .size = size, .rewards = r});
}

/* ---- advantages --------------------------------------------------------------------------------------------- */

static void group_std_gives_trl_values(void **state) {
    (void)state;
    double a[8], four[] = {1, 0, 0, 1}, eight[] = {1, 0, 0, 0, 0, 0, 0, 0};
    GroupStats stats;
    AdvantageReport report;
    grpo_advantages(a, &stats, &report, four, 1, 4, SCALE_GROUP);
    NEAR(a[0], 0.865875, 5e-7);
    NEAR(a[1], -0.865875, 5e-7);
    NEAR(report.reward, 0.5, 0);
    NEAR(report.reward_std, 0.577350, 5e-7);
    grpo_advantages(a, &stats, &report, eight, 1, 8, SCALE_GROUP);
    NEAR(a[0], 2.474174, 5e-7);
    NEAR(a[7], -0.353453, 5e-7);
    NEAR(stats.mean, 0.125, 0);
    NEAR(stats.std, 0.353553, 5e-7);
    grpo_advantages(a, &stats, &report, eight, 1, 8, SCALE_NONE);
    NEAR(a[0], 0.875, 0);
    NEAR(a[3], -0.125, 0);
}

static void batch_std_keeps_group_means(void **state) {
    (void)state;
    double a[6], r[] = {1, 0, 0, 2, 2, 5};
    GroupStats stats[2];
    AdvantageReport report;
    grpo_advantages(a, stats, &report, r, 2, 3, SCALE_BATCH);
    double std = sqrt((4.0 / 9 + 25.0 / 9 + 25.0 / 9 + 1.0 / 9 + 1.0 / 9 + 100.0 / 9) / 5);
    double means[] = {1.0 / 3, 3};
    for (int i = 0; i < 6; i++) NEAR(a[i], (r[i] - means[i / 3]) / (std + 1e-4), 1e-15);
}

static void equal_rewards_give_exactly_zero(void **state) {
    (void)state;
    double a[6], r[] = {0.1, 0.1, 0.1, 1, 0, 1}; /* 3 * 0.1 / 3 is not 0.1 */
    GroupStats stats[2];
    AdvantageReport report;
    for (ScaleRewards scale = SCALE_GROUP; scale <= SCALE_BATCH; scale++) {
        grpo_advantages(a, stats, &report, r, 2, 3, scale);
        for (int i = 0; i < 3; i++) assert_true(a[i] == 0);
        assert_true(a[3] > 0 && a[4] < 0);
        assert_false(stats[0].signal);
        assert_true(stats[1].signal);
        assert_true(stats[0].mean == 0.1 && stats[0].std == 0);
        assert_int_equal(report.groups_with_signal, 1);
        NEAR(report.frac_reward_zero_std, 0.5, 0);
    }
}

static void unjudged_samples_are_left_out(void **state) {
    (void)state;
    double a[12], r[] = {1, NAN, 0, NAN, /**/ NAN, NAN, NAN, NAN, /**/ NAN, 1, NAN, NAN};
    GroupStats stats[3];
    AdvantageReport report;
    grpo_advantages(a, stats, &report, r, 3, 4, SCALE_GROUP);
    NEAR(a[0], 0.5 / (sqrt(0.5) + 1e-4), 1e-15);
    NEAR(a[2], -a[0], 0);
    for (int i = 0; i < 12; i++) assert_true(i == 0 || i == 2 || a[i] == 0);
    assert_int_equal(stats[0].judged, 2);
    assert_true(isnan(stats[1].mean) && !stats[1].signal);
    assert_true(stats[2].judged == 1 && !stats[2].signal);
    assert_int_equal(report.unjudged, 9);
    NEAR(report.reward, 2.0 / 3, 1e-15);
    for (int i = 0; i < 12; i++) r[i] = NAN;
    grpo_advantages(a, stats, &report, r, 3, 4, SCALE_BATCH);
    for (int i = 0; i < 12; i++) assert_true(a[i] == 0);
    assert_true(isnan(report.reward));
}

static void names_are_trls(void **state) {
    (void)state;
    ScaleRewards scale;
    LossConf loss;
    ScheduleKind schedule;
    assert_true(scale_rewards_find("batch", &scale) && scale == SCALE_BATCH);
    assert_true(loss_find("dr_grpo", &loss) && loss.sum == SUM_CONSTANT);
    assert_true(schedule_find("cosine", &schedule) && schedule == SCHEDULE_COSINE);
    assert_false(scale_rewards_find("groups", &scale));
    assert_false(loss_find("ppo", &loss));
    assert_false(schedule_find("", &schedule));
}

/* ---- losses ------------------------------------------------------------------------------------------------- */

/* The loss of one token with the given ratio (grpo over one sequence of one token is just that). */
static double one_token(double advantage, double ratio, double low, double high, double beta, double x) {
    LossConf conf = {.sum = SUM_SEQUENCE, .epsilon = low, .epsilon_high = high, .beta = beta};
    LossSeq seq = {.n = 1, .advantage = advantage};
    LossNorm norm = loss_norm(&conf, &seq, 1);
    LossReport report = {0};
    real logp = (real)-2, old = (real)(-2 - log(ratio)), ref = (real)(-2 - x), coef;
    assert_true(loss_coefs(&coef, &report, &conf, &norm, &seq,
                           &(LossLogps){&logp, &old, beta != 0 ? &ref : NULL, NULL, NULL}));
    return report.loss;
}

static void clipped_terms_have_check_values(void **state) {
    (void)state;
    static const double cases[][4] = {/* A, w, PPO(.2), clip-higher(.28) */
                                      {1, 1.5, -1.2, -1.28},
                                      {-1, 1.5, 1.5, 1.5},
                                      {1, .5, -.5, -.5},
                                      {-1, .5, .8, .8},
                                      {-1, 10, 10, 10}};
    for (int i = 0; i < 5; i++) {
        NEAR(one_token(cases[i][0], cases[i][1], .2, .2, 0, 0), cases[i][2], 2e-6);
        NEAR(one_token(cases[i][0], cases[i][1], .2, .28, 0, 0), cases[i][3], 2e-6);
    }
}

static void k3_has_check_values(void **state) {
    (void)state;
    static const double cases[][2] = {{.1, .004837}, {-.1, .005171}, {.5, .106531}, {1, .367879}, {0, 0}};
    for (int i = 0; i < 5; i++) NEAR(one_token(0, 1, .2, .2, 1, cases[i][0]), cases[i][1], 6e-7);
}

/* Two sequences of 2 and 4 tokens whose tokens lose 1 and 0.5. */
static void aggregations_have_check_values(void **state) {
    (void)state;
    static const double wanted[] = {
        [SUM_SEQUENCE] = .75, [SUM_CONSTANT] = .25, [SUM_TOKEN] = 2 / 3., [SUM_SEQUENCE_SUM] = 2};
    for (LossSum sum = SUM_SEQUENCE; sum <= SUM_SEQUENCE_SUM; sum++) {
        LossConf conf = {.sum = sum, .epsilon = .2, .epsilon_high = .2, .max_completion_length = 8};
        LossSeq seqs[] = {{.n = 2, .advantage = -1}, {.n = 4, .advantage = -.5}};
        real logp[4] = {-1, -2, -3, -4}, coef[4];
        LossNorm norm = loss_norm(&conf, seqs, 2);
        LossReport report = {0};
        for (int i = 0; i < 2; i++)
            assert_true(loss_coefs(coef, &report, &conf, &norm, &seqs[i], &(LossLogps){.logp = logp, NULL}));
        NEAR(report.loss, wanted[sum], 1e-15);
        NEAR(loss_metrics(&report).ratio_mean, 1, 0);
    }
}

static int golden_open(void **state) { return golden_load(state, "tests/goldens/rl_losses.json"); }

static LossConf golden_conf(Golden *golden, const json_t *run) {
    LossConf conf = {.epsilon = number(run, "epsilon"),
                     .epsilon_high = number(run, "epsilon_high"),
                     .beta = number(run, "beta"),
                     .max_completion_length = (int)number(golden->root, "longest"),
                     .mask_truncated_completions = json_is_true(json_object_get(run, "mask_truncated"))};
    assert_true(loss_find(json_string_value(json_object_get(run, "loss_type")), &conf));
    bool holes = json_is_true(json_object_get(run, "with_holes"));
    for (int i = 0; i < golden->n; i++) golden->seqs[i].mask = holes ? golden->mask[i] : NULL;
    return conf;
}

static LossReport golden_update(Golden *golden, const LossConf *conf, real coef[MOST][MOST]) {
    LossNorm norm = loss_norm(conf, golden->seqs, golden->n);
    LossReport report = {0};
    for (int i = 0; i < golden->n; i++) {
        assert_true(loss_coefs(
            coef[i], &report, conf, &norm, &golden->seqs[i],
            &(LossLogps){golden->logp[i], golden->old[i], conf->beta != 0 ? golden->ref[i] : NULL, NULL, NULL}));
    }
    return report;
}

static void losses_equal_torch(void **state) {
    Golden *golden = *state;
    assert_true(golden->n_runs == 54);
    for (int k = 0; k < golden->n_runs; k++) {
        json_t *run = json_array_get(json_object_get(golden->root, "runs"), (size_t)k);
        LossConf conf = golden_conf(golden, run);
        real coef[MOST][MOST];
        LossReport report = golden_update(golden, &conf, coef);
        LossMetrics metrics = loss_metrics(&report);
        NEAR(metrics.loss, number(run, "loss"), 1e-12);
        if (conf.beta != 0) NEAR(metrics.kl, number(run, "kl"), 1e-12);
        NEAR(metrics.clip_low_mean, number(run, "low_mean"), 1e-15);
        NEAR(metrics.clip_high_mean, number(run, "high_mean"), 1e-15);
        NEAR(metrics.clip_region_mean, number(run, "region_mean"), 1e-15);
        NEAR(metrics.clip_low_min, number(run, "low_min"), 1e-15);
        NEAR(metrics.clip_high_max, number(run, "high_max"), 1e-15);
        for (int i = 0; i < golden->n; i++) {
            json_t *row = json_array_get(json_object_get(run, "coef"), (size_t)i);
            for (int t = 0; t < golden->seqs[i].n; t++) {
                NEAR(coef[i][t], json_number_value(json_array_get(row, (size_t)t)), 1e-7);
            }
        }
    }
}

/* Central differences of the whole update's loss. Log-probabilities are moved by a power of two that they can hold
 * exactly, away from the corners of the clipped term. */
static void coefs_are_derivatives(void **state) {
    Golden *golden = *state;
    const double h = 1.0 / 4096;
    real coef[MOST][MOST], dummy[MOST][MOST];
    int checked = 0;
    for (int k = 0; k < golden->n_runs; k++) {
        LossConf conf = golden_conf(golden, json_array_get(json_object_get(golden->root, "runs"), (size_t)k));
        golden_update(golden, &conf, coef);
        for (int i = 0; i < golden->n; i++) {
            for (int t = 0; t < golden->seqs[i].n; t++) {
                real *logp = &golden->logp[i][t], saved = *logp;
                double ratio = exp((double)saved - (double)golden->old[i][t]);
                if (fabs(ratio - 1 + conf.epsilon) < .01 || fabs(ratio - 1 - conf.epsilon_high) < .01) continue;
                volatile real up = (real)((double)saved + h), down = (real)((double)saved - h);
                *logp = up;
                double above = golden_update(golden, &conf, dummy).loss;
                *logp = down;
                double below = golden_update(golden, &conf, dummy).loss;
                *logp = saved;
                NEAR(coef[i][t], (above - below) / ((double)up - (double)down), 2e-6);
                checked++;
            }
        }
    }
    assert_true(checked > 1000);
}

/* Micro-batches: sequences taken one by one, in chunks, with other sequences in between or not at all give the
 * same bits, because each depends on itself and on the update's counts only. */
static void cutting_the_batch_changes_no_bit(void **state) {
    Golden *golden = *state;
    for (int k = 0; k < golden->n_runs; k++) {
        LossConf conf = golden_conf(golden, json_array_get(json_object_get(golden->root, "runs"), (size_t)k));
        real whole[MOST][MOST], part[MOST];
        LossReport report = golden_update(golden, &conf, whole), again = {0};
        LossNorm norm = loss_norm(&conf, golden->seqs, golden->n);
        for (int i = golden->n - 1; i >= 0; i--) {
            LossReport alone = {0};
            const real *ref = conf.beta != 0 ? golden->ref[i] : NULL;
            loss_coefs(part, &alone, &conf, &norm, &golden->seqs[i],
                       &(LossLogps){golden->logp[i], golden->old[i], ref, NULL, NULL});
            assert_memory_equal(part, whole[i], (size_t)golden->seqs[i].n * sizeof(real));
            again.loss += alone.loss;
        }
        NEAR(again.loss, report.loss, 1e-15);
    }
}

static void silent_sequences_have_no_gradient_but_count(void **state) {
    (void)state;
    LossConf conf = {.sum = SUM_TOKEN, .epsilon = .2, .epsilon_high = .2};
    LossSeq seqs[] = {
        {.n = 3, .advantage = 1}, {.n = 3, .advantage = 0}, {.n = 3, .advantage = 1, .unjudged = true}};
    LossNorm norm = loss_norm(&conf, seqs, 3);
    assert_int_equal(norm.tokens, 9);
    assert_true(loss_has_gradient(&conf, &seqs[0]));
    assert_false(loss_has_gradient(&conf, &seqs[1]));
    real logp[] = {-1, -1, -1}, old[] = {-2, -2, -2}, coef[3];
    LossReport skipped = {0}, computed = {0};
    loss_coefs(coef, &skipped, &conf, &norm, &seqs[0], &(LossLogps){logp, old, NULL, NULL, NULL});
    NEAR(skipped.loss, -1.2 / 3, 1e-15);
    computed = skipped;
    for (int i = 1; i < 3; i++) {
        loss_skip(&skipped, &conf, &seqs[i]);
        loss_coefs(coef, &computed, &conf, &norm, &seqs[i], &(LossLogps){logp, old, NULL, NULL, NULL});
        for (int t = 0; t < 3; t++) assert_true(coef[t] == 0);
    }
    assert_memory_equal(&skipped, &computed, sizeof skipped);
    NEAR(loss_metrics(&skipped).clip_high_mean, 1.0 / 3, 1e-15);
    NEAR(loss_metrics(&skipped).ratio_mean, exp(1), 1e-15);
    conf.beta = 0.1; /* the KL pulls on judged sequences without advantage, on unjudged ones never */
    assert_true(loss_has_gradient(&conf, &seqs[1]));
    assert_false(loss_has_gradient(&conf, &seqs[2]));
    loss_coefs(coef, &computed, &conf, &norm, &seqs[2], &(LossLogps){logp, old, old, NULL, NULL});
    for (int t = 0; t < 3; t++) assert_true(coef[t] == 0);
}

static void numbers_that_are_none_are_refused(void **state) {
    (void)state;
    LossConf conf = {.sum = SUM_SEQUENCE, .epsilon = .2, .epsilon_high = .2};
    LossSeq seq = {.n = 3, .advantage = -1};
    LossNorm norm = loss_norm(&conf, &seq, 1);
    real coef[3];
    const real bad[][3] = {{-1, NAN, -1}, {-1, -INFINITY, -1}, {-1, 2000, -1}};
    const real old[] = {-1, -1, -1}, old_bad[] = {-1, -INFINITY, -1};
    for (int i = 0; i < 5; i++) {
        LossReport report = {0};
        /* -inf against a finite old value is a ratio of 0, a number; against itself it is none. */
        LossLogps in = {i < 3 ? bad[i] : i == 3 ? bad[1] : old, i < 3 ? old : old_bad, NULL, NULL, NULL};
        bool fine = loss_coefs(coef, &report, &conf, &norm, &seq, &in);
        assert_int_equal(fine, i == 1);
        assert_int_equal(report.sequences, fine);
        if (!fine) assert_true(coef[0] == 0 && coef[1] == 0 && coef[2] == 0);
    }
}

/* ---- schedules ---------------------------------------------------------------------------------------------- */

static void schedules_equal_transformers(void **state) {
    (void)state;
    FILE *file = fopen("tests/goldens/rl_schedules.txt", "r");
    assert_non_null(file);
    char name[64];
    double cycles, lowest, steps, ratio, factor;
    long total, warmup, update, lines = 0;
    while (fscanf(file, "%63s %lf %lf %lf %lf %ld %ld %ld %lf", name, &cycles, &lowest, &steps, &ratio, &total,
                  &warmup, &update, &factor) == 9) {
        Schedule schedule = {
            .total = total, .warmup = schedule_warmup(steps, ratio, total), .cycles = cycles, .lowest = lowest};
        assert_true(schedule_find(name, &schedule.kind));
        assert_int_equal(schedule.warmup, warmup);
        NEAR(schedule_factor(&schedule, update), factor, 0);
        lines++;
    }
    fclose(file);
    assert_true(lines > 700);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(group_std_gives_trl_values),
        cmocka_unit_test(batch_std_keeps_group_means),
        cmocka_unit_test(equal_rewards_give_exactly_zero),
        cmocka_unit_test(unjudged_samples_are_left_out),
        cmocka_unit_test(names_are_trls),
        cmocka_unit_test(clipped_terms_have_check_values),
        cmocka_unit_test(k3_has_check_values),
        cmocka_unit_test(aggregations_have_check_values),
        cmocka_unit_test_setup_teardown(losses_equal_torch, golden_open, golden_close),
        cmocka_unit_test_setup_teardown(coefs_are_derivatives, golden_open, golden_close),
        cmocka_unit_test_setup_teardown(cutting_the_batch_changes_no_bit, golden_open, golden_close),
        cmocka_unit_test(silent_sequences_have_no_gradient_but_count),
        cmocka_unit_test(numbers_that_are_none_are_refused),
        cmocka_unit_test(schedules_equal_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
