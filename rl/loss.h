/* loss.h: from log-probabilities to the loss and its derivative by each of them. Host mathematics, no network in
 * it.
 *
 * Knows: log-probabilities, masks, advantages. Must never know: tokens' meaning, tensors, the store. The network
 * reaches every loss only through the log-probability of each token, so a loss is whatever this file says it is:
 * coef[t] = dLoss/dlogp[t] is all that backward needs.
 *
 * Everything is normalised over the whole batch of one update (loss_norm), never over a part of it: cutting the
 * batch into micro-batches changes nothing, down to the last bit.
 * Tested by tests/test_rl_loss.c (finite differences, check values, micro-batches).
 */
#ifndef WHET_RL_LOSS_H
#define WHET_RL_LOSS_H

#include "kernels/base.h"
#include "kernels/kernels.h"

/* TRL's loss_type. All three share the clipped policy term and differ in what its sum over tokens is divided by.
 */
typedef enum { LOSS_GRPO, LOSS_DR_GRPO, LOSS_DAPO } LossKind;
bool loss_find(const char *name, LossKind *kind); /* by TRL's name; false when there is no such */

typedef struct {
    LossKind kind;
    double epsilon, epsilon_high; /* the ratio is clipped to 1 - epsilon .. 1 + epsilon_high */
    double beta;                  /* weight of the k3 KL to the reference; 0: no reference is needed */
    int max_completion_length;    /* what dr_grpo divides by */
    bool mask_truncated_completions;
} LossConf;

/* One sequence of an update, as far as the loss knows it. */
typedef struct {
    int n;            /* tokens of the completion */
    const bool *mask; /* [n] which of them are trained; NULL: all */
    double advantage;
    bool truncated; /* ended by length: left out of the loss by mask_truncated_completions */
    bool unjudged;  /* no gradient at all (also none from the KL), but counted in the normalisers, as in TRL */
} LossSeq;

/* Counts over the whole batch of an update. */
typedef struct {
    long sequences; /* all, also those that are masked or have no advantage */
    long tokens;    /* that are in the loss */
} LossNorm;
LossNorm loss_norm(const LossConf *conf, const LossSeq *seqs, int n);

/* Sums over the sequences seen so far; zero-initialise for each update, feed in one fixed order. */
typedef struct {
    double loss, policy_loss; /* complete once every sequence of the update has been seen */
    double kl;                /* k3, summed over tokens; 0 without a reference */
    double ratio;             /* summed over ratio_tokens, those that went through the policy term */
    double max_ratio;
    double low_min, high_max; /* least and greatest share of clipped tokens in one sequence */
    long sequences, tokens, ratio_tokens, low, high;
} LossReport;

/* Whether a sequence has any gradient. Where none of a group has, its forward and backward can be left out:
 * loss_skip then takes the place of loss_coefs. */
bool loss_has_gradient(const LossConf *conf, const LossSeq *seq);

/* coef[n] = dLoss/dlogp[n], and the sequence's part of the report. logp: of the policy that learns; old_logp: of
 * the one that sampled (NULL: the same, so every ratio is 1); ref_logp: of the reference, NULL if and only if beta
 * is 0. Returns false when the loss is not finite (an overflowing ratio, NaN from the network); coef is then all
 * 0. */
bool loss_coefs(real *coef, LossReport *report, const LossConf *conf, const LossNorm *norm, const LossSeq *seq,
                const real *logp, const real *old_logp, const real *ref_logp);
void loss_skip(LossReport *report, const LossConf *conf, const LossSeq *seq);

/* TRL's metrics of one update: means over tokens; low_min and high_max over sequences. */
typedef struct {
    double loss, policy_loss, kl, ratio_mean, ratio_max;
    double clip_low_mean, clip_low_min, clip_high_mean, clip_high_max, clip_region_mean;
} LossMetrics;
LossMetrics loss_metrics(const LossReport *report);

#endif
