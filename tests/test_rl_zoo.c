/* test_rl_zoo.c: the losses and advantages beyond GRPO's own: against TRL's code and verl's formulas in torch
 * (goldens/rl_zoo.json), finite differences, numbers worked out from the papers, and other cuts of the batch. */
#include "tests/loss_help.h"

/* ---- goldens -------------------------------------------------------------------------------------------------
 */

static int golden_open(void **state) { return golden_load(state, "tests/goldens/rl_zoo.json"); }

static LossConf golden_conf(Golden *golden, const json_t *run) {
    json_t *vespo = member(run, "vespo");
    LossConf conf = {.epsilon = number(run, "epsilon"),
                     .epsilon_high = number(run, "epsilon_high"),
                     .delta = number(run, "delta"),
                     .sapo_pos = number(run, "sapo_pos"),
                     .sapo_neg = number(run, "sapo_neg"),
                     .vespo_k_pos = json_number_value(json_array_get(vespo, 0)),
                     .vespo_lambda_pos = json_number_value(json_array_get(vespo, 1)),
                     .vespo_k_neg = json_number_value(json_array_get(vespo, 2)),
                     .vespo_lambda_neg = json_number_value(json_array_get(vespo, 3)),
                     .off_policy = number(run, "off_policy"),
                     .beta = number(run, "beta"),
                     .kl_corrected = json_is_true(member(run, "corrected")),
                     .entropy_coef = number(run, "entropy_coef"),
                     .top_entropy = number(run, "top_entropy"),
                     .cov_share = number(run, "cov_share"),
                     .cov_low = number(run, "cov_low"),
                     .cov_high = number(run, "cov_high"),
                     .cov_kl = number(run, "cov_kl"),
                     .max_completion_length = (int)number(golden->root, "longest"),
                     .mask_truncated_completions = json_is_true(member(run, "mask_truncated"))};
    assert_true(loss_find(word(run, "loss_type"), &conf));
    assert_true(ratio_level_find(word(run, "level"), &conf.level));
    assert_true(kl_find(word(run, "kl"), &conf.kl));
    if (word(run, "sum")) assert_true(loss_sum_find(word(run, "sum"), &conf.sum));
    bool holes = json_is_true(member(run, "with_holes"));
    for (int i = 0; i < golden->n; i++) golden->seqs[i].mask = holes ? golden->mask[i] : NULL;
    return conf;
}

static LossLogps logps_of(Golden *golden, const LossConf *conf, int i) {
    return (LossLogps){golden->logp[i], golden->old[i], conf->beta != 0 ? golden->ref[i] : NULL,
                       golden->entropy[i], NULL};
}

/* The marks of the numbers as they stand. */
static void golden_marks(Golden *golden, const LossConf *conf) {
    LossLogps in[MOST];
    for (int i = 0; i < golden->n; i++) {
        in[i] = logps_of(golden, conf, i);
        golden->seqs[i].marks = loss_needs_marks(conf) ? golden->marks[i] : NULL;
    }
    if (loss_needs_marks(conf)) loss_marks(conf, golden->seqs, in, golden->n);
}

static LossReport golden_update(Golden *golden, const LossConf *conf, real coef[MOST][MOST]) {
    LossNorm norm = loss_norm(conf, golden->seqs, golden->n);
    LossReport report = {0};
    for (int i = 0; i < golden->n; i++) {
        LossLogps in = logps_of(golden, conf, i);
        assert_true(loss_coefs(coef[i], &report, conf, &norm, &golden->seqs[i], &in));
    }
    return report;
}

static void losses_equal_torch(void **state) {
    Golden *golden = *state;
    int from_trl = 0;
    for (int k = 0; k < golden->n_runs; k++) {
        json_t *run = run_of(golden, k);
        LossConf conf = golden_conf(golden, run);
        real coef[MOST][MOST], wanted[MOST][MOST], slope[MOST][MOST];
        golden_marks(golden, &conf);
        LossReport report = golden_update(golden, &conf, coef);
        LossNorm norm = loss_norm(&conf, golden->seqs, golden->n);
        golden_rows(member(run, "coef"), golden->n, wanted);
        golden_rows(member(run, "entropy_slope"), golden->n, slope);
        from_trl += strcmp(word(run, "source"), "trl") == 0;
        double far = fabs(report.loss - number(run, "loss"));
        for (int i = 0; i < golden->n; i++)
            for (int t = 0; t < golden->seqs[i].n; t++) {
                far = fmax(far, fabs((double)coef[i][t] - (double)wanted[i][t]));
                double e = loss_entropy_coef(&conf, &norm, &golden->seqs[i], t);
                far = fmax(far, fabs(e - (double)slope[i][t]));
            }
        if (!(far < 3e-7)) {
            char *text = json_dumps(run, 0);
            print_error("run %d is %g away: %.200s\n", k, far, text);
            free(text);
            fail();
        }
    }
    assert_int_equal(golden->n_runs, 80);
    assert_int_equal(from_trl, 58);
}

/* ---- finite differences ----------------------------------------------------------------------------------------
 */

/* Near a corner of a clipped term differences say nothing; constants (CISPO's weight, VESPO's phi, the token's own
 * part of a sequence ratio) are not to be differentiated, so their losses are left to torch. */
static bool has_differences(const LossConf *conf) {
    return conf->term != TERM_CISPO && conf->term != TERM_VESPO && conf->level != LEVEL_SEQUENCE_TOKEN;
}

static void coefs_are_derivatives(void **state) {
    Golden *golden = *state;
    const double h = 1.0 / 2048;
    int checked = 0, corners = 0;
    for (int k = 0; k < golden->n_runs; k++) {
        LossConf conf = golden_conf(golden, run_of(golden, k));
        if (!has_differences(&conf)) continue;
        real coef[MOST][MOST], dummy[MOST][MOST];
        golden_marks(golden, &conf); /* and left as they are: a mark is a constant */
        golden_update(golden, &conf, coef);
        for (int i = 0; i < golden->n; i++)
            for (int t = 0; t < golden->seqs[i].n; t++) {
                real *logp = &golden->logp[i][t], saved = *logp;
                volatile real up = (real)((double)saved + h), down = (real)((double)saved - h);
                double here = golden_update(golden, &conf, dummy).loss;
                *logp = up;
                double above = golden_update(golden, &conf, dummy).loss;
                *logp = down;
                double below = golden_update(golden, &conf, dummy).loss;
                *logp = saved;
                double right = (above - here) / ((double)up - (double)saved),
                       left = (here - below) / ((double)saved - (double)down);
                checked++;
                if (fabs(right - left) > 0.02 * (fabs(right) + fabs(left)) + 1e-4) {
                    corners++;
                    continue;
                }
                NEAR(coef[i][t], (above - below) / ((double)up - (double)down), 3e-6);
            }
    }
    assert_true(checked > 1500 && corners < checked / 100);
}

/* Sequences taken one by one, in another order, give the same bits: each depends on itself, on its marks and on
 * the update's counts. */
static void cutting_the_batch_changes_no_bit(void **state) {
    Golden *golden = *state;
    for (int k = 0; k < golden->n_runs; k++) {
        LossConf conf = golden_conf(golden, run_of(golden, k));
        real whole[MOST][MOST], part[MOST];
        golden_marks(golden, &conf);
        golden_update(golden, &conf, whole);
        LossNorm norm = loss_norm(&conf, golden->seqs, golden->n);
        for (int i = golden->n - 1; i >= 0; i--) {
            LossReport alone = {0};
            LossLogps in = logps_of(golden, &conf, i);
            loss_coefs(part, &alone, &conf, &norm, &golden->seqs[i], &in);
            assert_memory_equal(part, whole[i], (size_t)golden->seqs[i].n * sizeof(real));
        }
    }
}

/* ---- numbers from the papers
 * ------------------------------------------------------------------------------------ */

static double one_token(LossConf conf, double a, double w) {
    LossSeq seq = {.n = 1, .advantage = a};
    LossNorm norm = loss_norm(&conf, &seq, 1);
    LossReport report = {0};
    real logp = (real)-1, old = (real)(-1 - log(w)), coef;
    LossLogps in = {.logp = &logp, .old_logp = &old};
    assert_true(loss_coefs(&coef, &report, &conf, &norm, &seq, &in));
    return report.loss;
}

static void terms_have_check_values(void **state) {
    (void)state;
    static const double cases[][5] = {/* A, w, dual c=3, delta=4, SAPO */
                                      {1, 1.5, -1.2, -1.2, -2.489837},
                                      {-1, 1.5, 1.5, 1.5, 2.393585},
                                      {1, .5, -.5, -.5, -1.510163},
                                      {-1, .5, .8, .8, 1.415938},
                                      {-1, 10, 3, 4, 3.809224}};
    LossConf clip = {.epsilon = .2, .epsilon_high = .2}, sapo = {.sapo_pos = 1, .sapo_neg = 1.05};
    assert_true(loss_find("sapo", &sapo));
    for (int i = 0; i < 5; i++) {
        clip.delta = 3;
        NEAR(one_token(clip, cases[i][0], cases[i][1]), cases[i][2], 2e-6);
        clip.delta = 4;
        NEAR(one_token(clip, cases[i][0], cases[i][1]), cases[i][3], 2e-6);
        NEAR(one_token(sapo, cases[i][0], cases[i][1]), cases[i][4], 2e-6);
    }
    LossConf vespo = {.vespo_k_pos = 2, .vespo_lambda_pos = 3, .vespo_k_neg = 3, .vespo_lambda_neg = 2};
    assert_true(loss_find("vespo", &vespo)); /* logp is -1: the loss is phi A */
    static const double phi[][3] = {{1, 1, 1}, {1.5, .502043, 1.241593}, {.5, 1.120422, .339785}};
    for (int i = 0; i < 3; i++) {
        NEAR(one_token(vespo, 1, phi[i][0]), phi[i][1], 1e-6);
        NEAR(one_token(vespo, -1, phi[i][0]), -phi[i][2], 1e-6);
    }
}

static void kls_have_check_values(void **state) {
    (void)state;
    static const double cases[][4] = {/* x, k1, k2, k3 */
                                      {.1, .1, .005, .004837},
                                      {-.1, -.1, .005, .005171},
                                      {.5, .5, .125, .106531},
                                      {1, 1, .5, .367879}};
    for (int i = 0; i < 4; i++) {
        NEAR(kl_value(KL_K1, cases[i][0]), cases[i][1], 0);
        NEAR(kl_value(KL_K2, cases[i][0]), cases[i][2], 1e-15);
        NEAR(kl_value(KL_K3, cases[i][0]), cases[i][3], 6e-7);
    }
}

static void gspo_has_its_check_value(void **state) {
    (void)state;
    LossConf conf = {.level = LEVEL_SEQUENCE, .epsilon = .2, .epsilon_high = .2};
    static const double d[] = {0, .002, -.001, .003};
    real logp[4], old[4], coef[4];
    for (int t = 0; t < 4; t++) old[t] = (real)-1, logp[t] = (real)(-1 + d[t]);
    LossSeq seq = {.n = 4, .advantage = -1};
    LossNorm norm = loss_norm(&conf, &seq, 1);
    LossReport report = {0};
    LossLogps in = {.logp = logp, .old_logp = old};
    assert_true(loss_coefs(coef, &report, &conf, &norm, &seq, &in));
    NEAR(report.loss, 1.00100050, 2e-7);
    for (int t = 0; t < 4; t++) NEAR(coef[t], 1.00100050 / 4, 1e-7);
}

/* ---- marks
 * ------------------------------------------------------------------------------------------------------- */

enum { LONG = 4000 };

/* clip_cov picks its share among the candidates, by the key alone. */
static void clip_cov_picks_at_random(void **state) {
    (void)state;
    LossConf conf = {.epsilon = .2, .epsilon_high = .2, .cov_share = .01, .cov_low = .5, .cov_high = 50, .key = 1};
    assert_true(loss_find("clip_cov", &conf));
    real *logp = MEM_ARRAY(real, 2 * LONG);
    unsigned char *marks = MEM_ARRAY(unsigned char, 4 * LONG);
    for (int t = 0; t < 2 * LONG; t++) logp[t] = (real)(t % 2 ? -3 : 0);
    LossSeq seqs[2] = {{.n = LONG, .advantage = 1, .marks = marks},
                       {.n = LONG, .advantage = -1, .marks = marks + LONG}};
    LossLogps in[2] = {{.logp = logp}, {.logp = logp + LONG}};
    long picked = 0, same = 0;
    loss_marks(&conf, seqs, in, 2);
    memcpy(marks + 2 * LONG, marks, 2 * LONG);
    for (int t = 0; t < 2 * LONG; t++) { /* a candidate is a likely good or an unlikely bad token */
        picked += marks[t] == MARK_CUT;
        assert_true(marks[t] == 0 || (t < LONG ? t % 2 == 0 : t % 2 == 1));
    }
    assert_int_equal(picked, 80);
    loss_marks(&conf, seqs, in, 2);
    assert_memory_equal(marks, marks + 2 * LONG, 2 * LONG);
    conf.key = 2;
    loss_marks(&conf, seqs, in, 2);
    for (int t = 0; t < 2 * LONG; t++) same += marks[t] && marks[t + 2 * LONG];
    assert_true(same < 20);
    free(logp);
    free(marks);
}

static void calm_tokens_are_below_the_quantile(void **state) {
    (void)state;
    LossConf conf = {.epsilon = .2, .epsilon_high = .2, .top_entropy = .2, .entropy_coef = .1};
    real logp[10], entropy[10];
    unsigned char marks[20];
    for (int t = 0; t < 10; t++) logp[t] = (real)-1, entropy[t] = (real)t;
    LossSeq seqs[2] = {{.n = 10, .advantage = 1, .marks = marks},
                       {.n = 10, .advantage = 1, .unjudged = true, .marks = marks + 10}};
    LossLogps in[2] = {{.logp = logp, .entropy = entropy}, {.logp = logp, .entropy = entropy}};
    loss_marks(&conf, seqs, in, 2);
    for (int t = 0; t < 10; t++) assert_int_equal(marks[t], t < 8 ? MARK_CALM : 0);
    LossNorm norm = loss_norm(&conf, seqs, 1);
    assert_int_equal(norm.active, 2);
    assert_true(loss_entropy_coef(&conf, &norm, &seqs[0], 7) == 0);
    NEAR(loss_entropy_coef(&conf, &norm, &seqs[0], 8), -.05, 0);
    assert_true(loss_entropy_coef(&conf, &norm, &seqs[1], 9) == 0);
}

/* A bonus or a KL gives sequences without advantage a gradient; an unjudged one never has any. */
static void silent_sequences_may_have_a_bonus(void **state) {
    (void)state;
    LossConf conf = {.epsilon = .2, .epsilon_high = .2, .entropy_coef = .1};
    LossSeq seq = {.n = 2};
    assert_true(loss_has_gradient(&conf, &seq));
    seq.unjudged = true;
    assert_false(loss_has_gradient(&conf, &seq));
    seq = (LossSeq){.n = 2, .truncated = true};
    conf.mask_truncated_completions = true;
    assert_false(loss_has_gradient(&conf, &seq));
}

/* ---- advantages
 * --------------------------------------------------------------------------------------------------- */

static void numbers_read(const json_t *from, double *out) {
    for (size_t i = 0; i < json_array_size(from); i++) out[i] = json_number_value(json_array_get(from, i));
}

static void advantages_equal_verl(void **state) {
    Golden *golden = *state;
    json_t *all = member(golden->root, "estimators"), *wanted;
    double rewards[12], greedy[3], parts[24], weights[2], want[12], got[12];
    int lengths[12];
    numbers_read(member(all, "rewards"), rewards);
    numbers_read(member(all, "greedy"), greedy);
    numbers_read(member(all, "parts"), parts);
    numbers_read(member(all, "weights"), weights);
    for (size_t i = 0; i < 12; i++)
        lengths[i] = (int)json_integer_value(json_array_get(member(all, "lengths"), i));
    const char *name;
    int count = 0;
    json_object_foreach(member(all, "wanted"), name, wanted) {
        AdvantageIn in = {
            .groups = 3, .size = 4, .rewards = rewards, .lengths = lengths, .greedy = greedy, .weights = weights};
        if (strcmp(name, "batch") == 0)
            in.scale = SCALE_BATCH;
        else if (strcmp(name, "gdpo") == 0)
            in.parts = parts, in.n_parts = 2;
        else
            assert_true(advantage_find(name, &in.kind));
        GroupStats stats[3];
        AdvantageReport report;
        advantages_compute(got, stats, &report, &in);
        numbers_read(wanted, want);
        for (int i = 0; i < 12; i++) {
            if (fabs(got[i] - want[i]) > 1e-12) print_error("%s, sample %d\n", name, i);
            NEAR(got[i], want[i], 1e-12);
        }
        count++;
    }
    assert_int_equal(count, 10);
}

static void advantages_have_check_values(void **state) {
    (void)state;
    static const struct {
        AdvantageKind kind;
        double first, others;
    } cases[] = {{ADVANTAGE_RLOO, 1, -.142857}, {ADVANTAGE_PASSK, 2.828419, 0}, {ADVANTAGE_GPG, 7, -1}};
    double rewards[8] = {1}, a[8];
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        GroupStats stats;
        AdvantageReport report;
        AdvantageIn in = {.kind = cases[k].kind, .groups = 1, .size = 8, .rewards = rewards};
        advantages_compute(a, &stats, &report, &in);
        NEAR(a[0], cases[k].first, 1e-6);
        for (int i = 1; i < 8; i++) NEAR(a[i], cases[k].others, 1e-6);
    }
}

/* Unjudged samples have no say and no advantage; a group of equal rewards says nothing but where it is compared
 * with something outside. */
static void unjudged_and_equal_rewards(void **state) {
    (void)state;
    double rewards[] = {NAN, 0.1, 0.1, 0.1, /**/ 2, NAN, 0, 1}, greedy[] = {0, NAN}, a[8], without[6];
    const double judged[] = {0.1, 0.1, 0.1, /**/ 2, 0, 1};
    int lengths[] = {1, 2, 3, 4, 5, 6, 7, 8}, judged_lengths[] = {2, 3, 4, 5, 7, 8};
    GroupStats stats[2];
    AdvantageReport report;
    for (AdvantageKind kind = ADVANTAGE_GRPO; kind <= ADVANTAGE_PASSK; kind++) {
        AdvantageIn in = {
            .kind = kind, .groups = 2, .size = 4, .rewards = rewards, .lengths = lengths, .greedy = greedy};
        advantages_compute(a, stats, &report, &in);
        assert_true(a[0] == 0 && a[5] == 0);
        assert_int_equal(report.groups_with_signal, 1);
        bool alone = kind == ADVANTAGE_REINFORCE || kind == ADVANTAGE_REMAX;
        if (kind != ADVANTAGE_REINFORCE_BASELINE) assert_int_equal(a[1] != 0, alone);
        if (kind == ADVANTAGE_REMAX) assert_true(a[4] == 0 && a[7] == 0); /* its greedy answer is unjudged */
        in = (AdvantageIn){
            .kind = kind, .groups = 2, .size = 3, .rewards = judged, .lengths = judged_lengths, .greedy = greedy};
        advantages_compute(without, stats, &report, &in);
        for (int i = 0; i < 3; i++) {
            NEAR(a[i + 1], without[i], 1e-15);
            NEAR(a[i + (i == 0 ? 4 : 5)], without[i + 3], 1e-15);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(losses_equal_torch, golden_open, golden_close),
        cmocka_unit_test_setup_teardown(coefs_are_derivatives, golden_open, golden_close),
        cmocka_unit_test_setup_teardown(cutting_the_batch_changes_no_bit, golden_open, golden_close),
        cmocka_unit_test(terms_have_check_values),
        cmocka_unit_test(kls_have_check_values),
        cmocka_unit_test(gspo_has_its_check_value),
        cmocka_unit_test(clip_cov_picks_at_random),
        cmocka_unit_test(calm_tokens_are_below_the_quantile),
        cmocka_unit_test(silent_sequences_may_have_a_bonus),
        cmocka_unit_test_setup_teardown(advantages_equal_verl, golden_open, golden_close),
        cmocka_unit_test(advantages_have_check_values),
        cmocka_unit_test(unjudged_and_equal_rewards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
