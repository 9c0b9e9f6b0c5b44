/* learn.h: one update of the policy: forward, loss, backward, clip, AdamW, over batches of rows.
 *
 * Knows: the policy, its gradients and moments. Must never know: problems, rewards, the store.
 * Structs: Learner (owns gradients, moments, tape, pages), LearnSample (a sample's part in the loss).
 * Tested by tests/test_rl_learn.c.
 */
#ifndef WHET_RL_LEARN_H
#define WHET_RL_LEARN_H

#include "rl/backward.h"
#include "rl/batch.h"
#include "rl/loss.h"

typedef struct {
    int rows;       /* of a batch; raised to what the longest sample needs */
    bool recompute; /* keep less on the tape: see rollout.h */
    int max_prompt, max_completion, group;
    double temperature; /* of the log-probabilities: the one that was sampled with */
    bool keep_sets;     /* samples may come with kept sets: their log-probabilities are those inside of them */
    double beta1, beta2, eps, weight_decay, max_grad_norm; /* max_grad_norm 0: no clipping */
} LearnConf;

typedef struct {
    LossSeq seq;
    const real *old_logp; /* [n] of the policy that sampled; NULL: the same, every ratio is 1 */
    real *ref_logp;       /* [n] filled from the reference; NULL without one */
    const real *weight;   /* [n] importance weights; NULL: 1 each */
} LearnSample;

typedef struct {
    LossReport loss;
    double grad_norm;  /* before clipping */
    long tokens, rows; /* trained tokens that went through the network; rows with padding */
    long measured; /* tokens that the two below are sums over: `tokens`, or one group where nothing has a gradient
                    */
    double entropy_sum;
    int batches, skipped;      /* groups without signal */
    double diff_sum, diff_max; /* |logp - old_logp| */
    double forward_seconds, head_seconds, backward_seconds, optimizer_seconds;
} LearnReport;

typedef struct Learner Learner;

/* Bytes of the device that learner_open asks for; the ops' workspaces (k_workspace_bytes) come on top. */
size_t learner_bytes(const Dev *dev, const Conf *conf, DType type, const Params *params, const LearnConf *learn);
/* `reference` may be NULL; it is of the same shape and compute type, or `policy` itself: then it is the policy
 * without its adapters, which costs no memory. Both must outlive the learner. */
Learner *learner_open(Policy *policy, Policy *reference, const LearnConf *conf, Err *err);

/* One update on n groups. extra[g][i] belongs to groups[g].samples[i]. Fills every sample's logp, entropy and
 * coef, but for groups without gradient, which are skipped. Err when the loss or the gradient is not finite; the
 * weights are then untouched. `step` counts updates from 1 (AdamW's bias correction). */
bool learner_update(Learner *learner, const BatchGroup *groups, LearnSample *const *extra, int n,
                    const LossConf *loss, double learning_rate, int64_t step, LearnReport *report, Err *err);
/* Only the gradients, as learner_update computes them, left in the learner's buffer: for tests. */
bool learner_gradients(Learner *learner, const BatchGroup *groups, LearnSample *const *extra, int n,
                       const LossConf *loss, LearnReport *report, Err *err);
/* Log-probabilities (and entropies) alone, into every sample's logp. */
void learner_logp(Learner *learner, Policy *policy, const BatchGroup *groups, int n);
void learner_reference_logp(Learner *learner, const BatchGroup *groups, int n); /* of the reference */

Ten learner_grads(Learner *learner);                    /* layout of the masters */
void learner_moments(Learner *learner, Ten *m, Ten *v); /* the same layout */
void learner_close(Learner *learner);

#endif
