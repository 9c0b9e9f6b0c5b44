/* plan.h: how much memory a training run takes, and how its batches are cut to fit.
 *
 * Knows: what each part asks of the device. The plan is made before anything is allocated, printed, and then what
 * is allocated. Must never know: samples, rewards. Tested by tests/test_rl_train.c.
 */
#ifndef WHET_RL_PLAN_H
#define WHET_RL_PLAN_H

#include "rl/learn.h"
#include "rl/open.h"
#include "rl/recipe.h"

typedef struct {
    PolicyConf policy, reference;
    LearnConf learn;
    EngineConf engine;
    size_t policy_bytes, reference_bytes, learner_bytes, engine_bytes, workspace_bytes, total;
} Plan;

/* Chooses the rows of a batch and whether layers are recomputed so that all fits into model->memory; false and
 * err, with the least that is needed, when nothing does. `model` has been opened, not loaded. */
bool plan_make(Plan *plan, const Recipe *recipe, const Model *model, Err *err);
void plan_print(const Plan *plan, Buf *out);

#endif
