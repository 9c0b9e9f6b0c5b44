/* diff.h: two runs beside each other: recipes, metrics, and evaluations on the same problems with a paired test.
 *
 * Knows: two stores. Must never write. Tested by tests/cmd_past.sh.
 */
#ifndef WHET_RL_DIFF_H
#define WHET_RL_DIFF_H

#include <stdio.h>

#include "rl/past.h"

/* McNemar's exact test (Psychometrika 12, 1947): of b + c problems that only one of two sides solved, b are the
 * first's. The two-sided probability of a split as uneven as this, were both sides equally good: 2 P(X <= min(b,
 * c)), X binomial(b + c, 1/2), at most 1. */
double mcnemar_exact(long b, long c);

bool diff_runs(Past *a, Past *b, FILE *out, Err *err);

#endif
