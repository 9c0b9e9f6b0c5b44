/* replay.h: learns a stored step again, from the checkpoint before it, and says whether all that the store holds
 * of it fits; where something does not, which sample.
 *
 * Knows: the trainer, the store. Must never write: neither store nor folder are changed.
 * Tested by tests/cmd_past.sh.
 */
#ifndef WHET_RL_REPLAY_H
#define WHET_RL_REPLAY_H

#include <stdio.h>

#include "rl/past.h"

/* Walks from the newest checkpoint before the step that drew its samples to `step` and reports to `out`. `path`:
 * the instruction set; NULL: the step's, or the best one where this machine has none with its bits. `sample`: its
 * answers are also sampled and judged anew. *fits says whether everything agrees. The trainer takes over
 * past->store. */
bool replay(Past *past, long step, const char *path, bool sample, FILE *out, bool *fits, Err *err);

#endif
