/* advantage.h: from the rewards of groups to one advantage per sample. Host mathematics on a few hundred numbers.
 *
 * Knows: arrays of rewards and lengths. Must never know: problems, tokens, the store, devices.
 * A reward of NaN marks an unjudged sample: it is left out of its group's (and the batch's) mean and standard
 * deviation, and its advantage is 0.
 * Tested by tests/test_rl_loss.c and tests/test_rl_zoo.c.
 */
#ifndef WHET_RL_ADVANTAGE_H
#define WHET_RL_ADVANTAGE_H

#include "kernels/base.h"

/* With r the reward, L the answer's tokens, G the group's judged samples, mean and std (n - 1) the group's:
 *   grpo:         (r - mean) / s, s by ScaleRewards                              DeepSeekMath, arXiv 2402.03300
 *   rloo:         r - mean of the group's others = G / (G - 1) (r - mean)                           2402.14740
 *   reinforce_plus_plus:          (r - m) / sqrt(var + 1e-8), m and var (n - 1) over all tokens     2501.03262
 *   reinforce_plus_plus_baseline: the same of r - mean
 *   remax:        r - reward of the greedy answer                                                   2310.10505
 *   opo:          r - sum(L r) / sum(L) of the group                                                2505.23585
 *   gpg:          (r - mean) B / (rewards of the batch's B that are not 0)                          2504.02546
 *   grpo_passk:   the best: (r - second best) / (std + 1e-6), or r - second best unscaled; others 0 2503.19595
 * Names and formulas are verl's (adv_estimator), with TRL's constant for grpo. */
typedef enum {
    ADVANTAGE_GRPO,
    ADVANTAGE_RLOO,
    ADVANTAGE_REINFORCE,
    ADVANTAGE_REINFORCE_BASELINE,
    ADVANTAGE_REMAX,
    ADVANTAGE_OPO,
    ADVANTAGE_GPG,
    ADVANTAGE_PASSK,
} AdvantageKind;
bool advantage_find(const char *name, AdvantageKind *kind); /* false when there is no such */

/* TRL's scale_rewards: what grpo divides by.
 *   group: std of the group + 1e-4                    DeepSeekMath; the constant is TRL's
 *   none:  1                                          Dr. GRPO, arXiv 2503.20783
 *   batch: std of the batch + 1e-4                    Lite PPO, arXiv 2508.08221 */
typedef enum { SCALE_GROUP, SCALE_NONE, SCALE_BATCH } ScaleRewards;
bool scale_rewards_find(const char *name, ScaleRewards *scale); /* by TRL's name; false when there is no such */

typedef struct {
    AdvantageKind kind;
    ScaleRewards scale;
    int groups, size;
    const double *rewards; /* [groups][size] */
    const int *lengths;    /* [groups][size] tokens: opo and reinforce_plus_plus; else NULL is fine */
    const double *greedy;  /* [groups] remax: the greedy answers' rewards; NaN: unjudged, no advantages */
    /* GDPO (arXiv 2601.05242; TRL's normalize_then_sum), with grpo: each part is normalised inside its group, then
     * their weighted sum over the batch. NULL: the sum of the parts is normalised. */
    const double *parts; /* [groups][size][n_parts]; NaN: the part has no say */
    const double *weights;
    int n_parts;
} AdvantageIn;

typedef struct {
    double mean, std; /* of the judged samples; mean is NaN when there are none, std is 0 below two */
    int judged;
    bool signal; /* two judged rewards (with `parts`: values of a part) differ; without it every advantage that
                    compares with the group is exactly 0 */
} GroupStats;

typedef struct {
    double reward, reward_std;   /* mean and standard deviation over all judged samples; NaN and 0 when none */
    double frac_reward_zero_std; /* share of groups without signal */
    int judged, unjudged, groups_with_signal;
} AdvantageReport;

/* advantages is [groups][size]; stats is [groups]. */
void advantages_compute(double *advantages, GroupStats *stats, AdvantageReport *report, const AdvantageIn *in);

#endif
