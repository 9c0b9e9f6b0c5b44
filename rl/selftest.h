/* selftest.h: a whole model on one device against the same on another: sampling, log-probabilities, gradients,
 * some steps of training; and what must hold on the device alone, bit for bit.
 *
 * Knows: engine and learner. Must never know: files, problems. Tested by tests/test_cuda_model.c, which runs it on
 * the stand-in for a GPU; users reach it as `whet gpu-selftest`.
 */
#ifndef WHET_RL_SELFTEST_H
#define WHET_RL_SELFTEST_H

#include "rl/learn.h"

/* Random models: every kind of layer that conf*.c can describe. The last is large enough to time. */
enum { SELFTEST_MODELS = 3, SELFTEST_TIMED = 3 };
Conf selftest_conf(int which, const char **name); /* layers are static */

/* One report for each property; error and bound as k_compare has them. Returns how many do not hold. */
int selftest_model(Dev *dev, Dev *cpu, const Conf *conf, const char *name, DType type, int steps,
                   void (*say)(void *self, const CompareResult *result), void *self);

#endif
