/* schedule.h: the learning rate of each update, with the values of transformers' schedulers.
 *
 * Knows: counts of updates. Must never know: anything else. Tested by tests/test_rl_loss.c.
 */
#ifndef WHET_RL_SCHEDULE_H
#define WHET_RL_SCHEDULE_H

#include "kernels/base.h"

/* transformers' lr_scheduler_type. As there, `constant` has no warm-up whatever was asked. */
typedef enum {
    SCHEDULE_CONSTANT,
    SCHEDULE_CONSTANT_WITH_WARMUP,
    SCHEDULE_LINEAR,
    SCHEDULE_COSINE,
    SCHEDULE_COSINE_WITH_RESTARTS,
    SCHEDULE_COSINE_WITH_MIN_LR
} ScheduleKind;
bool schedule_find(const char *name, ScheduleKind *kind); /* by transformers' name; false when there is no such */

typedef struct {
    ScheduleKind kind;
    long warmup;   /* updates */
    long total;    /* updates of the whole run, warm-up included */
    double cycles; /* of the cosines; 0: transformers' default, 0.5 (with restarts: 1, and the part before the
                      point) */
    double lowest; /* cosine_with_min_lr: the factor that it ends at */
} Schedule;

/* Warm-up in updates as transformers resolves it: warmup_steps when it is at least 1, else that share
 * (transformers 5) or, when warmup_steps is 0, the share warmup_ratio (transformers 4) of `total`, rounded up. */
long schedule_warmup(double warmup_steps, double warmup_ratio, long total);

/* What the learning rate is multiplied by in update `update`, counted from 0: the first one of a warm-up has 0. */
double schedule_factor(const Schedule *schedule, long update);

#endif
