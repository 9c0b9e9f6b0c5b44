/* advantage.c: means, standard deviations and advantages of groups of rewards. Not here: rewards (reward/) and
 * what an advantage does to a token (loss.c). Tested by tests/test_rl_loss.c. */
#include "rl/advantage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* TRL adds this to a standard deviation before it divides. */
static const double STD_FLOOR = 1e-4;

bool advantage_find(const char *name, AdvantageKind *kind) {
    static const char *const names[] = {[ADVANTAGE_GRPO] = "grpo",
                                        [ADVANTAGE_RLOO] = "rloo",
                                        [ADVANTAGE_REINFORCE] = "reinforce_plus_plus",
                                        [ADVANTAGE_REINFORCE_BASELINE] = "reinforce_plus_plus_baseline",
                                        [ADVANTAGE_REMAX] = "remax",
                                        [ADVANTAGE_OPO] = "opo",
                                        [ADVANTAGE_GPG] = "gpg",
                                        [ADVANTAGE_PASSK] = "grpo_passk"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *kind = (AdvantageKind)i;
        return true;
    }
    return false;
}

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

/* ---- the estimators: advantages of one group from its rewards ------------------------------------------------
 */

typedef struct {
    const AdvantageIn *in;
    const GroupStats *stats, *batch;
    const double *r;
    const int *lengths;
    int group;
} Group;

/* What a group's rewards are compared with; NaN where nothing can be said. */
static double baseline_of(const Group *g) {
    double sum = 0, tokens = 0;
    switch (g->in->kind) {
    case ADVANTAGE_REINFORCE:
        return 0;
    case ADVANTAGE_REMAX:
        return g->in->greedy[g->group];
    case ADVANTAGE_OPO:
        if (!g->stats->signal) return g->stats->mean;
        for (int i = 0; i < g->in->size; i++)
            if (!isnan(g->r[i])) sum += g->lengths[i] * g->r[i], tokens += g->lengths[i];
        return sum / tokens;
    default:
        return g->stats->mean;
    }
}

/* What the difference is divided by. */
static double divisor_of(const Group *g, double gpg) {
    const AdvantageIn *in = g->in;
    switch (in->kind) {
    case ADVANTAGE_GRPO:
        if (in->scale == SCALE_NONE) return 1;
        return (in->scale == SCALE_GROUP ? g->stats->std : g->batch->std) + STD_FLOOR;
    case ADVANTAGE_RLOO:
        return g->stats->judged > 1 ? (g->stats->judged - 1.0) / g->stats->judged : 1;
    case ADVANTAGE_GPG:
        return 1 / gpg;
    default:
        return 1;
    }
}

/* Only the best sample of the group learns, from how much better it is than the next. */
static void passk_advantages(double *a, const Group *g) {
    int best = -1, second = -1;
    for (int i = 0; i < g->in->size; i++) {
        a[i] = 0;
        if (isnan(g->r[i])) continue;
        if (best < 0 || g->r[i] > g->r[best])
            second = best, best = i;
        else if (second < 0 || g->r[i] > g->r[second])
            second = i;
    }
    if (second < 0) return;
    a[best] = (g->r[best] - g->r[second]) / (g->in->scale == SCALE_NONE ? 1 : g->stats->std + 1e-6);
}

/* Minus the mean, through the deviation, both over all tokens: sample i has lengths[i] of them. */
static void whiten(double *a, const AdvantageIn *in) {
    long n = (long)in->groups * in->size;
    double tokens = 0, sum = 0, squares = 0, first = NAN;
    bool differ = false;
    for (long i = 0; i < n; i++) {
        if (isnan(in->rewards[i])) continue;
        if (isnan(first)) first = a[i];
        differ = differ || a[i] != first;
        tokens += in->lengths[i], sum += in->lengths[i] * a[i];
    }
    double mean = sum / tokens;
    for (long i = 0; i < n; i++)
        if (!isnan(in->rewards[i])) squares += in->lengths[i] * (a[i] - mean) * (a[i] - mean);
    double scale = 1 / sqrt(squares / (tokens - 1) + 1e-8);
    for (long i = 0; i < n; i++) a[i] = differ && !isnan(in->rewards[i]) ? (a[i] - mean) * scale : 0;
}

/* ---- GDPO ----------------------------------------------------------------------------------------------------
 */

static double *part_of_group(const AdvantageIn *in, int group, int part, double *values) {
    for (int i = 0; i < in->size; i++)
        values[i] = in->parts[((size_t)group * (size_t)in->size + (size_t)i) * (size_t)in->n_parts + (size_t)part];
    return values;
}

static void gdpo_advantages(double *a, GroupStats *stats, const AdvantageIn *in) {
    double *values = MEM_ARRAY(double, in->size);
    for (int g = 0; g < in->groups; g++) {
        double *to = a + (size_t)g * (size_t)in->size;
        const double *r = in->rewards + (size_t)g * (size_t)in->size;
        for (int i = 0; i < in->size; i++) to[i] = isnan(r[i]) ? NAN : 0;
        stats[g].signal = false;
        for (int k = 0; k < in->n_parts; k++) {
            GroupStats part = stats_of(part_of_group(in, g, k, values), in->size);
            stats[g].signal |= part.signal && in->weights[k] != 0;
            for (int i = 0; i < in->size; i++)
                if (part.signal && !isnan(values[i]))
                    to[i] += in->weights[k] * (values[i] - part.mean) / (part.std + STD_FLOOR);
        }
    }
    GroupStats batch = stats_of(a, (long)in->groups * in->size);
    for (long i = 0; i < (long)in->groups * in->size; i++)
        a[i] = stats[i / in->size].signal && !isnan(a[i]) ? (a[i] - batch.mean) / (batch.std + STD_FLOOR) : 0;
    free(values);
}

/* ---- all ------------------------------------------------------------------------------------------------------
 */

static double gpg_factor(const AdvantageIn *in, int judged) {
    long other = 0;
    for (long i = 0; i < (long)in->groups * in->size; i++) other += !isnan(in->rewards[i]) && in->rewards[i] != 0;
    return judged / fmax(1, (double)other);
}

void advantages_compute(double *advantages, GroupStats *stats, AdvantageReport *report, const AdvantageIn *in) {
    CHECK(in->groups > 0 && in->size > 0, "%d groups of %d samples", in->groups, in->size);
    int groups = in->groups, size = in->size;
    GroupStats batch = stats_of(in->rewards, (long)groups * size);
    *report = (AdvantageReport){.reward = batch.mean,
                                .reward_std = batch.std,
                                .judged = batch.judged,
                                .unjudged = groups * size - batch.judged};
    double gpg = gpg_factor(in, batch.judged);
    for (int g = 0; g < groups; g++) {
        size_t at = (size_t)g * (size_t)size;
        double *a = advantages + at;
        stats[g] = stats_of(in->rewards + at, size);
        Group group = {in, &stats[g], &batch, in->rewards + at, in->lengths ? in->lengths + at : NULL, g};
        if (in->kind == ADVANTAGE_PASSK) {
            passk_advantages(a, &group);
            continue;
        }
        double baseline = baseline_of(&group), divisor = divisor_of(&group, gpg);
        bool alone =
            in->kind == ADVANTAGE_REINFORCE || in->kind == ADVANTAGE_REMAX; /* no comparison in the group */
        for (int i = 0; i < size; i++) {
            double difference = group.r[i] - baseline;
            a[i] = (alone || stats[g].signal) && !isnan(difference) ? difference / divisor : 0;
        }
    }
    if (in->kind == ADVANTAGE_REINFORCE || in->kind == ADVANTAGE_REINFORCE_BASELINE) whiten(advantages, in);
    if (in->parts) gdpo_advantages(advantages, stats, in);
    for (int g = 0; g < groups; g++) report->groups_with_signal += stats[g].signal;
    report->frac_reward_zero_std = (double)(groups - report->groups_with_signal) / groups;
}
