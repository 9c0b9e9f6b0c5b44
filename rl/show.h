/* show.h: what a run's store holds, for a person: the run, a step, a sample with everything that belongs to it.
 *
 * Knows: the store. Must never write. Tested by tests/cmd_past.sh.
 */
#ifndef WHET_RL_SHOW_H
#define WHET_RL_SHOW_H

#include <stdio.h>

#include "rl/past.h"

bool show_run(Past *past, FILE *out, Err *err);
/* The step's metrics and guards, and a line for each sample. */
bool show_step(Past *past, long step, FILE *out, Err *err);
/* The samples of a group (number -1: all of them) with each token's log-probability and every part of the reward;
 * `json`: one JSON object a line. */
bool show_samples(Past *past, long step, long group, long number, bool json, FILE *out, Err *err);
/* Where a sample stands; false and err when there is none of this id. */
bool show_find(Past *past, int64_t sample, long *step, long *group, long *number, Err *err);

#endif
