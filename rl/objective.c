/* objective.c: see objective.h. */
#include "rl/objective.h"

#include <float.h>
#include <math.h>
#include <string.h>

static void numbers_of(LossConf *loss, const Recipe *r) {
    loss->epsilon = r->epsilon, loss->epsilon_high = r->epsilon_high, loss->delta = r->delta;
    loss->sapo_pos = r->sapo_temperature_pos, loss->sapo_neg = r->sapo_temperature_neg;
    loss->vespo_k_pos = r->vespo_k_pos, loss->vespo_lambda_pos = r->vespo_lambda_pos;
    loss->vespo_k_neg = r->vespo_k_neg, loss->vespo_lambda_neg = r->vespo_lambda_neg;
    loss->off_policy = r->off_policy_mask_threshold;
    loss->beta = r->kl_in_reward ? 0 : r->beta;
    loss->kl_corrected = r->use_bias_correction_kl;
    loss->watch_entropy = r->use_adaptive_entropy;
    loss->top_entropy = r->top_entropy_quantile;
    loss->cov_share = loss->pick == PICK_KL_COV ? r->kl_cov_ratio : r->clip_cov_ratio;
    loss->cov_low = r->clip_cov_lb, loss->cov_high = r->clip_cov_ub, loss->cov_kl = r->ppo_kl_coef;
    loss->max_completion_length = (int)r->max_completion_length;
    loss->mask_truncated_completions = r->mask_truncated_completions;
}

bool objective_of(Objective *o, const Recipe *r, Err *err) {
    *o = (Objective){.kl_reward = r->kl_in_reward ? r->beta : 0,
                     .by_part = strcmp(r->multi_objective_aggregation, "normalize_then_sum") == 0};
    if (!loss_find(r->loss_type, &o->loss)) return err_set(err, "loss_type %s is not known", r->loss_type);
    if (strcmp(r->loss_aggregation, "auto") != 0 && !loss_sum_find(r->loss_aggregation, &o->loss.sum))
        return err_set(err, "loss_aggregation %s is not known", r->loss_aggregation);
    if (!ratio_level_find(r->importance_sampling_level, &o->loss.level))
        return err_set(err, "importance_sampling_level %s is not known", r->importance_sampling_level);
    if (!kl_find(r->kl_estimator, &o->loss.kl))
        return err_set(err, "kl_estimator %s is not known", r->kl_estimator);
    if (!advantage_find(r->advantage_estimator, &o->advantage))
        return err_set(err, "advantage_estimator %s is not known", r->advantage_estimator);
    if (!scale_rewards_find(r->scale_rewards, &o->scale))
        return err_set(err, "scale_rewards %s is not known", r->scale_rewards);
    numbers_of(&o->loss, r);
    return true;
}

/* ---- the entropy bonus ----------------------------------------------------------------------------------------
 */

EntropyState entropy_state(const Recipe *recipe) { return (EntropyState){recipe->entropy_coef, DBL_MAX}; }

double entropy_coef(const Recipe *recipe, const EntropyState *state) {
    if (!recipe->use_adaptive_entropy) return recipe->entropy_coef;
    return state->entropy <= recipe->entropy_target ? state->coef : 0;
}

void entropy_update(const Recipe *r, EntropyState *state, double entropy) {
    state->entropy = entropy;
    state->coef = entropy <= r->entropy_target ? fmin(state->coef + r->entropy_coef_delta, r->entropy_coef_max)
                                               : fmax(state->coef - r->entropy_coef_delta, r->entropy_coef_min);
}
