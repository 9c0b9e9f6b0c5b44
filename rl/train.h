/* train.h: the training run: sample, judge, learn, store, evaluate, save; over and over; and how it is gone on
 * with.
 *
 * Knows everything in rl. The checkpoint is the truth: a run goes on from one; steps that the store holds beyond
 * it are learnt again from their stored samples and must reach the stored hash of the weights. Tested by
 * tests/test_rl_train.c and tests/cmd_train.sh.
 */
#ifndef WHET_RL_TRAIN_H
#define WHET_RL_TRAIN_H

#include "rl/checkpoint.h"
#include "rl/collect.h"
#include "rl/plan.h"
#include "rl/report.h"
#include "rl/schedule.h"

typedef struct Trainer Trainer;

/* Opens all that the recipe asks for and prints what it is to `out`; the run begins or goes on. The recipe must
 * outlive the trainer. `stop` is looked at between steps: once it is not 0, the run saves and ends. */
Trainer *train_open(const Recipe *recipe, FILE *out, const volatile int *stop, Err *err);
/* All steps to the end, or to *stop. *finished says which. */
bool train_run(Trainer *trainer, bool *finished, Err *err);
/* Records how this attempt ended: finished, interrupted, failed. */
void train_end(Trainer *trainer, const char *outcome);
/* Accuracy before and after, answers before and after, where everything lies. */
void train_summary(Trainer *trainer);
void train_close(Trainer *trainer);

#endif
