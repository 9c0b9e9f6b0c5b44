/* importance.h: weights for samples that another policy drew than the one that begins to learn from them: stored
 * ones, those of another run or of another instruction set.
 *
 * Knows: log-probabilities. Must never know: where samples come from, losses, the store. With rho = exp(old -
 * sampled), old under the policy at the beginning of the update and sampled under the one that drew the sample,
 * the policy's loss of each token is weighted with rho, truncated or masked to bounds: per token, or one rho of
 * the whole sequence (the sum of its differences). The names and formulas are TRL's (vllm_importance_sampling_*,
 * GRPOTrainer of TRL 1.16). Tested by tests/test_rl_importance.c.
 */
#ifndef WHET_RL_IMPORTANCE_H
#define WHET_RL_IMPORTANCE_H

#include "kernels/base.h"
#include "kernels/kernels.h"

typedef struct {
    bool sequence;      /* one ratio for all tokens */
    bool mask;          /* outside of the bounds 0; else the bound */
    double least, most; /* the bounds: 0 and INFINITY are none */
} ImportanceConf;

/* By TRL's mode: token_truncate, token_mask, sequence_truncate, sequence_mask. Bounds of 0 are none. */
bool importance_find(const char *mode, double clip_min, double clip_max, ImportanceConf *conf);

/* Over the samples so far; zero-initialise. */
typedef struct {
    double weight_sum, weight_least, weight_most; /* of tokens, or of sequences, after bounding, as in TRL */
    long weights;
    double diff_sum, diff_most; /* |old - sampled| */
    long tokens;
} ImportanceReport;

/* weight[n] of one sample. mask[n]: the tokens that are trained; NULL: all. The others have weight 0. */
void importance_weights(real *weight, ImportanceReport *report, const ImportanceConf *conf, const real *old_logp,
                        const real *sampled_logp, const bool *mask, int n);

#endif
