/* objective.h: what a recipe says of advantages and loss, as advantage.h and loss.h take it.
 *
 * Knows: keys of recipes, the structs of advantage.h and loss.h. Must never know: samples, the policy, the store.
 * Tested by tests/test_rl_zoo_runs.c.
 */
#ifndef WHET_RL_OBJECTIVE_H
#define WHET_RL_OBJECTIVE_H

#include "rl/advantage.h"
#include "rl/loss.h"
#include "rl/recipe.h"

typedef struct {
    LossConf loss;
    AdvantageKind advantage;
    ScaleRewards scale;
    bool by_part;     /* multi_objective_aggregation: normalize_then_sum */
    double kl_reward; /* weight of the KL in the rewards; 0: none */
} Objective;

bool objective_of(Objective *objective, const Recipe *recipe, Err *err);

/* The entropy bonus that follows the entropy (Skywork-OR1, arXiv 2505.22312; TRL): part of the state of a run. */
typedef struct {
    double coef;    /* of the next update, if it has one */
    double entropy; /* of the last update; huge before the first */
} EntropyState;
EntropyState entropy_state(const Recipe *recipe);
double entropy_coef(const Recipe *recipe, const EntropyState *state);
void entropy_update(const Recipe *recipe, EntropyState *state, double entropy);

#endif
