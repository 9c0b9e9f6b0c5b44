/* rescore.h: the samples of a run judged anew by other rewards: a second set of scores beside the first, and what
 * would have changed.
 *
 * Knows: the store, judges, advantages. Must never know: the policy; nothing is sampled and nothing learnt.
 * Tested by tests/cmd_past.sh.
 */
#ifndef WHET_RL_RESCORE_H
#define WHET_RL_RESCORE_H

#include <stdio.h>

#include "rl/past.h"

/* `recipe`: the run's with other rewards. The set goes into the store, and the report with at most `examples`
 * flipped verdicts to `out`. On failure the store holds no set. */
bool rescore(Past *past, const Recipe *recipe, long examples, FILE *out, Err *err);

#endif
