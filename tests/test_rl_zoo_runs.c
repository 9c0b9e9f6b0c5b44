/* test_rl_zoo_runs.c: whole runs of a tiny model with the objectives beyond GRPO's own: each reaches the same
 * store and weights in other micro-batches, slots and threads, goes on from the middle to the same bits, and does
 * what its keys say. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rl/train.h"

static char root[] = "/tmp/whet-zoo-XXXXXX";
static volatile int no_stop;

static const char common[] =
    "--model_name_or_path tests/goldens/tiny-llama --dataset_name generate:sums:min=1:max=3:held=1,1,3 "
    "--eval_dataset_name= --reward_funcs language,math --reward_weights 1.0,0.1 "
    "--num_generations 4 "
    "--per_device_train_batch_size 16 --max_prompt_length 48 --max_completion_length 12 --learning_rate 1e-3 "
    "--seed 5 "
    "--max_steps 4 --save_steps 2 --save_total_limit 0 --eval_on_start false";

/* A run of `flags` (apart by blanks, after the common ones) in root/name. */
static bool run(const char *name, const char *flags, const char *more, Err *err) {
    char text[4000], *words[160];
    snprintf(text, sizeof text, "%s %s %s --output_dir %s/%s", common, flags, more, root, name);
    int n = 0;
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) words[n++] = word;
    Recipe recipe = {0};
    FILE *quiet = fopen("/dev/null", "w");
    bool finished = false, good = recipe_load(&recipe, NULL, n, words, err);
    Trainer *trainer = good ? train_open(&recipe, quiet, &no_stop, err) : NULL;
    good = trainer && train_run(trainer, &finished, err) && finished;
    if (trainer) train_end(trainer, good ? "finished" : "failed");
    train_close(trainer);
    recipe_free(&recipe);
    fclose(quiet);
    return good;
}

static void run_good(const char *name, const char *flags, const char *more) {
    Err err = {0};
    if (!run(name, flags, more, &err)) fail_msg("%s: %s", name, err.msg);
}

static Store *store_of(const char *name) {
    char path[300];
    Err err = {0};
    snprintf(path, sizeof path, "%s/%s/run.db", root, name);
    Store *store = store_open(path, 0, &err);
    assert_string_equal(err.msg, "");
    return store;
}

static uint64_t digest_of(const char *name) {
    uint64_t digest = 0;
    Err err = {0};
    Store *store = store_of(name);
    assert_true(store_digest(store, &digest, &err));
    store_close(store);
    return digest;
}

static StoreStep step_of(const char *name, long number) {
    StoreStep step;
    Err err = {0};
    Store *store = store_of(name);
    if (!store_step_read(store, 1, number, &step, &err)) fail_msg("%s", err.msg);
    store_close(store);
    return step;
}

static double metric(const StoreStep *step, const char *name) {
    for (int i = 0; i < step->n_metrics; i++)
        if (strcmp(step->metrics[i].name, name) == 0) return step->metrics[i].value;
    fail_msg("no metric %s", name);
    return NAN;
}

static void remove_from(const char *name, int first) {
    char command[400];
    for (int step = first; step <= 4; step += 2) {
        snprintf(command, sizeof command, "rm -r %s/%s/checkpoint-%d", root, name, step);
        assert_int_equal(system(command), 0);
    }
}

/* The same bits, however the batch is cut; and from checkpoint-2 on, with the stored samples: learning them again
 * must reach the stored weights, or the run says so and ends. */
static void run_all_ways(const char *name, const char *flags) {
    char other[100];
    run_good(name, flags, "");
    snprintf(other, sizeof other, "%s-cut", name);
    run_good(other, flags, "--micro_batch_tokens 96 --slots 3 --threads 1");
    if (digest_of(name) != digest_of(other)) fail_msg("%s: another cut of the batch gives other bits", name);
    remove_from(name, 4);
    run_good(name, flags, "--resume_from_checkpoint last");
}

/* ---- the runs -------------------------------------------------------------------------------------------------
 */

static void test_reference(void **state) {
    (void)state;
    run_all_ways(
        "sync",
        "--loss_type grpo --beta 0.5 --sync_ref_model --ref_model_sync_steps 2 --ref_model_mixup_alpha 0.6");
    StoreStep step = step_of("sync", 4);
    double follows = metric(&step, "kl");
    store_step_free(&step);
    run_good("stay", "--loss_type grpo --beta 0.5", "");
    step = step_of("stay", 4);
    print_message("kl %g where the reference follows, else %g\n", follows, metric(&step, "kl"));
    assert_true(follows < metric(&step, "kl")); /* the reference came nearer at step 2 */
    store_step_free(&step);
    run_good("replaced",
             "--loss_type grpo --beta 0.5 --sync_ref_model --ref_model_sync_steps 1 --ref_model_mixup_alpha 1",
             "");
    for (int i = 1; i <= 4; i++) { /* the policy is always its own reference */
        step = step_of("replaced", i);
        assert_true(metric(&step, "kl") == 0);
        store_step_free(&step);
    }
}

static void test_kl_in_reward(void **state) {
    (void)state;
    run_all_ways("reward-kl", "--advantage_estimator rloo --beta 0.05 --kl_in_reward --kl_estimator k1 "
                              "--importance_sampling_level sequence");
    StoreStep step = step_of("reward-kl", 1);
    assert_true(metric(&step, "kl") == 0); /* the first samples are the reference's own */
    store_step_free(&step);
    step = step_of("reward-kl", 4);
    assert_true(metric(&step, "kl") != 0);
    const StoreSample *s = &step.groups[0].samples[0];
    assert_true(fabs(s->reward - s->scores[0].value - 0.1 * s->scores[1].value) > 1e-9);
    store_step_free(&step);
}

static void test_remax(void **state) {
    (void)state;
    run_all_ways("remax", "--advantage_estimator remax --loss_type gpg");
    StoreStep step = step_of("remax", 2);
    for (int g = 0; g < step.n_groups; g++) {
        const StoreGroup *group = &step.groups[g];
        assert_non_null(group->baseline);
        assert_string_equal(group->baseline->stage, "baseline");
        assert_int_equal(group->n_samples, 4);
        for (int i = 0; i < 4; i++)
            assert_true(group->samples[i].advantage == group->samples[i].reward - group->baseline->reward);
    }
    store_step_free(&step);
}

/* Answers so short that some groups are all alike. */
static void test_dynamic_sampling(void **state) {
    (void)state;
    run_all_ways("dapo", "--dynamic_sampling reward --max_generation_batches 3 --epsilon_high 0.28 "
                         "--max_completion_length 4");
    int passed = 0;
    for (int i = 1; i <= 4; i++) {
        StoreStep step = step_of("dapo", i);
        assert_in_range(step.n_groups, 4, 12);
        assert_int_equal(metric(&step, "groups_passed_over"), step.n_groups - 4);
        for (int g = 0; g < step.n_groups; g++) {
            bool used = !isnan(step.groups[g].samples[0].advantage);
            assert_int_equal(used, g < 4);
            if (g >= 4) assert_false(step.groups[g].signal);
            if (g < 4 && step.n_groups < 12) assert_true(step.groups[g].signal);
        }
        passed += step.n_groups - 4;
        store_step_free(&step);
    }
    assert_true(passed > 0);
}

static void test_entropy(void **state) {
    (void)state;
    run_all_ways("entropy",
                 "--use_adaptive_entropy --entropy_target 50 --entropy_coef 0.1 --entropy_coef_delta 0.25 "
                 "--entropy_coef_max 0.5 --top_entropy_quantile 0.5 --num_iterations 2");
    static const double wanted[] = {.35, .5, .5, .5}; /* the weight of the next update */
    for (int i = 1; i <= 4; i++) {
        StoreStep step = step_of("entropy", i);
        assert_true(fabs(metric(&step, "entropy_coef") - wanted[i - 1]) < 1e-12);
        if (i > 1)
            assert_true(metric(&step, "loss") < metric(&step, "policy_loss")); /* the first has none, as in TRL */
        store_step_free(&step);
    }
    /* With nothing else to learn from, a bonus makes answers less certain, and a malus more. */
    run_good("wild", "--reward_funcs format,math --entropy_coef 1 --top_entropy_quantile 1", "");
    run_good("tame", "--reward_funcs format,math --entropy_coef -1 --top_entropy_quantile 1", "");
    StoreStep wild = step_of("wild", 4), tame = step_of("tame", 4);
    assert_true(metric(&wild, "entropy") > metric(&tame, "entropy"));
    store_step_free(&wild);
    store_step_free(&tame);
}

static void test_others(void **state) {
    (void)state;
    run_all_ways("gspo",
                 "--loss_type grpo --importance_sampling_level sequence --epsilon 3e-4 --epsilon_high 4e-4 "
                 "--steps_per_generation 2 --per_device_train_batch_size 8");
    run_all_ways("kl-cov", "--loss_type kl_cov --kl_cov_ratio 0.1 --num_iterations 2");
    run_all_ways("clip-cov", "--loss_type clip_cov --clip_cov_ratio 0.1 --clip_cov_lb 0.001 --num_iterations 2");
    run_all_ways("gdpo", "--multi_objective_aggregation normalize_then_sum --loss_type sapo --num_iterations 2");
    run_all_ways("reinforce", "--advantage_estimator reinforce_plus_plus --loss_type vespo --num_iterations 2");
    run_all_ways("gmpo", "--advantage_estimator opo --loss_type gmpo --epsilon 0.4 --num_iterations 2 "
                         "--off_policy_mask_threshold 0.001");
}

static int make_root(void **state) {
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state) {
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference), cmocka_unit_test(test_kl_in_reward),
        cmocka_unit_test(test_remax),     cmocka_unit_test(test_dynamic_sampling),
        cmocka_unit_test(test_entropy),   cmocka_unit_test(test_others),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
