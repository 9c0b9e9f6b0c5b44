/* reference.h: a reference model that follows the policy (TR-DPO, arXiv 2404.09656; DeepSeek-R1 replaces it every 400
 * updates).
 *
 * Knows: two policies of one shape. Must never know: why one is compared with the other.
 * Tested by tests/test_rl_zoo_runs.c.
 */
#ifndef WHET_RL_REFERENCE_H
#define WHET_RL_REFERENCE_H

#include "rollout/rollout.h"

/* reference = alpha policy + (1 - alpha) reference, on the masters of all trained rows; alpha 1: a copy. */
void reference_follow(Policy *reference, const Policy *policy, double alpha);

/* FOLDER/reference.safetensors, of a checkpoint: a reference that has moved is part of the state of a run. */
bool reference_write(const char *folder, Policy *reference, Err *err);
bool reference_read(const char *folder, Policy *reference, Err *err);

#endif
