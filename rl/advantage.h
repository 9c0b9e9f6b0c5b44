/* advantage.h: from the rewards of groups to one advantage per sample. Host mathematics on a few hundred numbers.
 *
 * Knows: arrays of rewards. Must never know: problems, tokens, the store, devices.
 * A reward of NaN marks an unjudged sample: it is left out of its group's (and the batch's) mean and standard
 * deviation, and its advantage is 0.
 * Tested by tests/test_rl_loss.c.
 */
#ifndef WHET_RL_ADVANTAGE_H
#define WHET_RL_ADVANTAGE_H

#include "kernels/base.h"

/* TRL's scale_rewards. With r the reward, mean that of its group, std the sample standard deviation (n - 1):
 *   group: (r - mean) / (std of the group + 1e-4)     DeepSeekMath, arXiv 2402.03300; the constant is TRL's
 *   none:  r - mean                                   Dr. GRPO, arXiv 2503.20783
 *   batch: (r - mean) / (std of the batch + 1e-4)     Lite PPO, arXiv 2508.08221 */
typedef enum { SCALE_GROUP, SCALE_NONE, SCALE_BATCH } ScaleRewards;
bool scale_rewards_find(const char *name, ScaleRewards *scale); /* by TRL's name; false when there is no such */

typedef struct {
    double mean, std; /* of the judged samples; mean is NaN when there are none, std is 0 below two */
    int judged;
    bool signal; /* two judged rewards differ; without it every advantage of the group is exactly 0 */
} GroupStats;

typedef struct {
    double reward, reward_std;   /* mean and standard deviation over all judged samples; NaN and 0 when none */
    double frac_reward_zero_std; /* share of groups without signal */
    int judged, unjudged, groups_with_signal;
} AdvantageReport;

/* rewards and advantages are [groups][size]; stats is [groups]. */
void advantages_compute(double *advantages, GroupStats *stats, AdvantageReport *report, const double *rewards,
                        int groups, int size, ScaleRewards scale);

#endif
