/* loss.h: from log-probabilities to the loss and its derivative by each of them. Host mathematics, no network in
 * it.
 *
 * Knows: log-probabilities, entropies, masks, advantages. Must never know: tokens' meaning, tensors, the store. The
 * network reaches every loss only through the log-probability (and the entropy) of each token, so a loss is
 * whatever this file says it is: coef[t] = dLoss/dlogp[t] and loss_entropy_coef are all that backward needs.
 *
 * Everything is normalised over the whole batch of one update (loss_norm, loss_marks), never over a part of it:
 * cutting the batch into micro-batches changes nothing, down to the last bit.
 * Tested by tests/test_rl_loss.c and tests/test_rl_zoo.c (finite differences, check values, torch, micro-batches).
 */
#ifndef WHET_RL_LOSS_H
#define WHET_RL_LOSS_H

#include "kernels/base.h"
#include "kernels/kernels.h"

/* ---- what is computed ---------------------------------------------------------------------------------------- */

/* The policy's term of one token; formulas and sources stand with the functions in loss.c. */
typedef enum { TERM_CLIP, TERM_RATIO, TERM_CISPO, TERM_SAPO, TERM_VESPO, TERM_GMPO, TERM_GPG } LossTerm;

/* What the sum of all terms is divided by, with B sequences and N tokens in the update and L tokens in one of them. */
typedef enum {
    SUM_SEQUENCE,     /* mean over sequences of their mean over tokens, 1 / (B L)       DeepSeekMath, 2402.03300 */
    SUM_CONSTANT,     /* a constant instead of the length, 1 / (B max_completion_length)     Dr. GRPO, 2503.20783 */
    SUM_TOKEN,        /* mean over all tokens of the update, 1 / N                               DAPO, 2503.14476 */
    SUM_SEQUENCE_SUM, /* mean over sequences of their sums, 1 / B; with a sequence's ratio: LUSPO, 2602.05261 */
} LossSum;
bool loss_sum_find(const char *name, LossSum *sum); /* token, sequence, sequence_sum, constant */

/* Tokens that are treated apart for their covariance of advantage and log-probability (arXiv 2505.22617). */
typedef enum { PICK_NONE, PICK_CLIP_COV, PICK_KL_COV } LossPick;

/* Whose ratio to the policy that sampled: the token's, or exp of the mean over the sequence (GSPO, arXiv
 * 2507.18071), the latter with a gradient through the whole mean or only through the token's own part. */
typedef enum { LEVEL_TOKEN, LEVEL_SEQUENCE, LEVEL_SEQUENCE_TOKEN } RatioLevel;
bool ratio_level_find(const char *name, RatioLevel *level); /* token, sequence, sequence_token */

/* Estimators of the KL to the reference, x = logp - ref_logp (J. Schulman, "Approximating KL divergence", 2020). */
typedef enum { KL_K3, KL_K1, KL_K2 } KlKind;
bool kl_find(const char *name, KlKind *kind); /* k1, k2, k3 */
double kl_value(KlKind kind, double x);

typedef struct {
    LossTerm term;
    LossSum sum;
    LossPick pick;
    RatioLevel level;
    double epsilon, epsilon_high; /* the ratio is clipped to 1 - epsilon .. 1 + epsilon_high; see the terms */
    double delta;                 /* 0: none; TERM_CLIP with A < 0 is bounded at this ratio (dual clip) */
    double sapo_pos, sapo_neg;    /* temperatures for A > 0 and else */
    double vespo_k_pos, vespo_lambda_pos, vespo_k_neg, vespo_lambda_neg;
    double off_policy; /* 0: none; a sequence with A < 0 and mean(old_logp - logp) above has no policy term */

    double beta; /* weight of the KL to the reference; 0: no reference is needed */
    KlKind kl;
    bool kl_corrected; /* the KL is multiplied by the ratio: unbiased under samples of the old policy */

    double entropy_coef; /* weight of the mean entropy, which is subtracted */
    bool watch_entropy;  /* all judged sequences go through the network, so that the mean entropy is all tokens' */
    double top_entropy;  /* share of tokens, those of the greatest entropy, that have a policy term; 1 (or 0): all */
    double cov_share;    /* PICK_*: share of tokens that may be picked */
    double cov_low, cov_high; /* PICK_CLIP_COV: among those with a covariance inside */
    double cov_kl;            /* PICK_KL_COV: weight of |logp - old_logp| on those picked */
    uint64_t key;             /* PICK_CLIP_COV: of the choice among candidates */

    int max_completion_length; /* SUM_CONSTANT */
    bool mask_truncated_completions;
} LossConf;

/* TRL's loss_type (grpo, dapo, bnpo, dr_grpo, luspo, cispo, sapo, vespo) and more (gmpo, gpg, clip_cov, kl_cov):
 * sets term, sum and pick. False when there is no such. */
bool loss_find(const char *name, LossConf *conf);

/* ---- what it is computed on ---------------------------------------------------------------------------------- */

enum {
    MARK_CALM = 1, /* below the quantile of top_entropy: no policy term, no entropy bonus */
    MARK_CUT = 2,  /* picked by clip_cov: no policy term */
    MARK_HELD = 4, /* picked by kl_cov */
};

/* One sequence of an update, as far as the loss knows it. */
typedef struct {
    int n;            /* tokens of the completion */
    const bool *mask; /* [n] which of them are trained; NULL: all */
    double advantage;
    unsigned char *marks; /* [n] of loss_marks, or NULL: none */
    bool truncated;       /* ended by length: left out of the loss by mask_truncated_completions */
    bool unjudged; /* no gradient at all (also none from the KL), but counted in the normalisers, as in TRL */
} LossSeq;

/* What the network and the samples say of a sequence's tokens, each [n]. */
typedef struct {
    const real *logp;     /* of the policy that learns */
    const real *old_logp; /* of the one that sampled (NULL: the same, so every ratio is 1) */
    const real *ref_logp; /* of the reference, NULL if and only if beta is 0 */
    const real *entropy;  /* of the policy that learns; may be NULL without an entropy bonus */
    const real *weight;   /* of each token's policy term, a constant (importance.h); NULL: 1 */
} LossLogps;

/* Counts over the whole batch of an update. */
typedef struct {
    long sequences; /* all, also those that are masked or have no advantage */
    long tokens;    /* that are in the loss */
    long active;    /* of these, those that are not MARK_CALM: the entropy bonus is their mean */
} LossNorm;
LossNorm loss_norm(const LossConf *conf, const LossSeq *seqs, int n); /* after loss_marks */

/* Whether the loss needs marks: log-probabilities and entropies of all sequences before the first coefficient. */
bool loss_needs_marks(const LossConf *conf);
/* Fills seqs[i].marks from all sequences of the update. */
void loss_marks(const LossConf *conf, LossSeq *seqs, const LossLogps *in, int n);

/* ---- the loss -------------------------------------------------------------------------------------------------- */

/* Sums over the sequences seen so far; zero-initialise for each update, feed in one fixed order. */
typedef struct {
    double loss, policy_loss; /* complete once every sequence of the update has been seen; loss has KL and bonus */
    double kl;                /* summed over tokens; 0 without a reference */
    double entropy;           /* summed over the active tokens of judged sequences, where entropies are given */
    double ratio;             /* summed over ratio_tokens, those that went through the policy term */
    double max_ratio;
    double low_min, high_max; /* least and greatest share of clipped tokens in one sequence */
    /* clip_of: what low and high count, tokens, or sequences where a ratio is the sequence's */
    long sequences, tokens, ratio_tokens, active, clip_of, low, high;
} LossReport;

/* Whether a sequence has any gradient. Where none of a group has, its forward and backward can be left out:
 * loss_skip then takes the place of loss_coefs. */
bool loss_has_gradient(const LossConf *conf, const LossSeq *seq);

/* coef[n] = dLoss/dlogp[n], and the sequence's part of the report. Returns false when the loss is not finite (an
 * overflowing ratio, NaN from the network); coef is then all 0. */
bool loss_coefs(real *coef, LossReport *report, const LossConf *conf, const LossNorm *norm, const LossSeq *seq,
                const LossLogps *in);
void loss_skip(LossReport *report, const LossConf *conf, const LossSeq *seq);
/* dLoss/dentropy of token t. */
double loss_entropy_coef(const LossConf *conf, const LossNorm *norm, const LossSeq *seq, int t);

/* TRL's metrics of one update: means over tokens; low_min and high_max over sequences. */
typedef struct {
    double loss, policy_loss, kl, entropy, ratio_mean, ratio_max;
    double clip_low_mean, clip_low_min, clip_high_mean, clip_high_max, clip_region_mean;
} LossMetrics;
LossMetrics loss_metrics(const LossReport *report);

/* For loss_marks.c too: whether token t of the sequence is in the loss, and whether any is. */
static inline bool seq_has(const LossSeq *seq, int t) { return !seq->mask || seq->mask[t]; }
static inline bool seq_left_out(const LossConf *conf, const LossSeq *seq) {
    return conf->mask_truncated_completions && seq->truncated;
}

#endif
