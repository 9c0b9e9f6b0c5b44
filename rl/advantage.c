/* advantage.c: means, standard deviations and advantages of groups of rewards. Not here: rewards (reward/) and
 * what an advantage does to a token (loss.c). Tested by tests/test_rl_loss.c. */
#include "rl/advantage.h"

#include <math.h>
#include <string.h>

/* TRL adds this to a standard deviation before it divides. */
static const double STD_FLOOR = 1e-4;

bool scale_rewards_find(const char *name, ScaleRewards *scale) {
    static const char *const names[] = {[SCALE_GROUP] = "group", [SCALE_NONE] = "none", [SCALE_BATCH] = "batch"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *scale = (ScaleRewards)i;
            return true;
        }
    }
    return false;
}

/* Mean and sample standard deviation of what is not NaN; `signal` by comparison, not by the rounded deviation, so
 * that equal rewards (three times 0.1) have none. */
static GroupStats stats_of(const double *r, long n) {
    GroupStats stats = {.mean = NAN};
    double sum = 0, squares = 0, first = NAN;
    for (long i = 0; i < n; i++) {
        if (isnan(r[i])) continue;
        if (stats.judged++ == 0) first = r[i];
        if (r[i] != first) stats.signal = true;
        sum += r[i];
    }
    if (stats.judged == 0) return stats;
    if (!stats.signal) {
        stats.mean = first;
        return stats;
    }
    stats.mean = sum / stats.judged;
    for (long i = 0; i < n; i++) {
        if (!isnan(r[i])) squares += (r[i] - stats.mean) * (r[i] - stats.mean);
    }
    stats.std = sqrt(squares / (stats.judged - 1));
    return stats;
}

void advantages_compute(double *advantages, GroupStats *stats, AdvantageReport *report, const double *rewards,
                        int groups, int size, ScaleRewards scale) {
    CHECK(groups > 0 && size > 0, "%d groups of %d samples", groups, size);
    GroupStats batch = stats_of(rewards, (long)groups * size);
    *report = (AdvantageReport){.reward = batch.mean,
                                .reward_std = batch.std,
                                .judged = batch.judged,
                                .unjudged = groups * size - batch.judged};
    for (int g = 0; g < groups; g++) {
        const double *r = rewards + (size_t)g * size;
        double *a = advantages + (size_t)g * size;
        stats[g] = stats_of(r, size);
        report->groups_with_signal += stats[g].signal;
        double std = scale == SCALE_GROUP ? stats[g].std : batch.std;
        double divisor = scale == SCALE_NONE ? 1 : std + STD_FLOOR;
        for (int i = 0; i < size; i++) {
            a[i] = stats[g].signal && !isnan(r[i]) ? (r[i] - stats[g].mean) / divisor : 0;
        }
    }
    report->frac_reward_zero_std = (double)(groups - report->groups_with_signal) / groups;
}
