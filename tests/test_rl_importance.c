/* test_rl_importance.c: importance weights against TRL's formulas in plain words, at ratios below, inside and
 * above the bounds, per token and per sequence; and their way through the loss: a weight multiplies the policy
 * term of its token and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "rl/importance.h"
#include "rl/loss.h"

enum { N = 5 };
static const real sampled[N] = {(real)-1, (real)-2, (real)-0.5, (real)-3, (real)-0.25};
static const double ratios[N] = {1, 0.25, 4, 2, 0.5};

static void old_of(real old[N]) {
    for (int t = 0; t < N; t++) old[t] = (real)((double)sampled[t] + log(ratios[t]));
}

static void weights_are(const char *mode, double clip_min, double clip_max, const bool *mask,
                        const double want[N]) {
    real old[N], weight[N];
    ImportanceConf conf;
    ImportanceReport report = {0};
    old_of(old);
    assert_true(importance_find(mode, clip_min, clip_max, &conf));
    importance_weights(weight, &report, &conf, old, sampled, mask, N);
    double sum = 0, least = INFINITY, most = 0;
    for (int t = 0; t < N; t++) {
        if (fabs((double)weight[t] - want[t]) > 1e-5) fail_msg("%s: weight[%d] is %g", mode, t, (double)weight[t]);
        if (mask && !mask[t]) continue;
        sum += want[t], least = fmin(least, want[t]), most = fmax(most, want[t]);
    }
    bool sequence = strncmp(mode, "sequence", 8) == 0;
    assert_int_equal(report.weights, sequence ? 1 : report.tokens);
    assert_true(fabs(report.weight_sum - (sequence ? most : sum)) < 1e-5);
    assert_true(fabs(report.weight_least - least) < 1e-5 && fabs(report.weight_most - most) < 1e-5);
}

static void as_trl_says(void **state) {
    (void)state;
    static const bool mask[N] = {true, true, false, true, true}; /* without it the product is 0.25, with it 1 */
    weights_are("token_truncate", 0, 3, NULL, (double[]){1, 0.25, 3, 2, 0.5});
    weights_are("token_truncate", 0.5, 2, NULL, (double[]){1, 0.5, 2, 2, 0.5});
    weights_are("token_mask", 0, 3, NULL, (double[]){1, 0.25, 0, 2, 0.5});
    weights_are("token_mask", 0.4, 0, NULL, (double[]){1, 0, 4, 2, 0.5});
    weights_are("token_mask", 0, 3, mask, (double[]){1, 0.25, 0, 2, 0.5});
    weights_are("sequence_truncate", 0, 3, NULL, (double[]){1, 1, 1, 1, 1});
    weights_are("sequence_truncate", 0, 0.75, NULL, (double[]){0.75, 0.75, 0.75, 0.75, 0.75});
    weights_are("sequence_mask", 0, 3, mask, (double[]){0.25, 0.25, 0, 0.25, 0.25});
    weights_are("sequence_mask", 0.3, 3, mask, (double[]){0, 0, 0, 0, 0});
    ImportanceConf conf;
    assert_false(importance_find("sequence", 0, 3, &conf));
}

/* A difference too large for exp is bounded like any other. */
static void far_away(void **state) {
    (void)state;
    real far[1] = {-2000}, near[1] = {-1}, weight[1];
    ImportanceConf conf;
    ImportanceReport report = {0};
    assert_true(importance_find("token_truncate", 0, 3, &conf));
    importance_weights(weight, &report, &conf, near, far, NULL, 1);
    assert_true(weight[0] == 3);
    importance_weights(weight, &report, &conf, far, near, NULL, 1);
    assert_true(weight[0] == 0);
    assert_true(importance_find("sequence_mask", 0, 3, &conf));
    importance_weights(weight, &report, &conf, near, far, NULL, 1);
    assert_true(weight[0] == 0 && report.diff_most == 1999 && report.tokens == 3);
}

static void weights_in_the_loss(void **state) {
    (void)state;
    static const char *const kinds[] = {"grpo", "dapo", "dr_grpo", "cispo"};
    static const real weight[N] = {0, (real)0.5, 1, 2, 3};
    for (int k = 0; k < 4; k++) {
        LossConf conf = {
            .epsilon = 0.2, .epsilon_high = 5, .beta = 0.1, .top_entropy = 1, .max_completion_length = 9};
        real old[N], plain[N], weighted[N], kl[N];
        old_of(old);
        assert_true(loss_find(kinds[k], &conf));
        LossSeq seq = {.n = N, .advantage = 0.7}, flat = {.n = N, .advantage = 1e-30};
        LossNorm norm = loss_norm(&conf, &seq, 1);
        LossReport a = {0}, b = {0}, c = {0};
        LossLogps in = {.logp = old, .old_logp = sampled, .ref_logp = sampled};
        assert_true(loss_coefs(plain, &a, &conf, &norm, &seq, &in));
        assert_true(loss_coefs(kl, &c, &conf, &norm, &flat, &in)); /* the KL alone */
        in.weight = weight;
        assert_true(loss_coefs(weighted, &b, &conf, &norm, &seq, &in));
        for (int t = 0; t < N; t++) {
            double want = (double)weight[t] * ((double)plain[t] - (double)kl[t]) + (double)kl[t];
            if (fabs((double)weighted[t] - want) > 1e-6)
                fail_msg("%s: token %d: %g", kinds[k], t, (double)weighted[t]);
        }
        assert_true(a.kl == b.kl && fabs(b.loss - b.policy_loss - (a.loss - a.policy_loss)) < 1e-12);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_trl_says), cmocka_unit_test(far_away),
                                       cmocka_unit_test(weights_in_the_loss)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
