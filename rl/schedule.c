/* schedule.c: learning-rate schedules, the formulas of transformers/optimization.py (LambdaLR), term by term and
 * in double, so that the numbers are the same. Not here: the optimizer. Tested by tests/test_rl_loss.c. */
#include "rl/schedule.h"

#include <math.h>
#include <string.h>

bool schedule_find(const char *name, ScheduleKind *kind) {
    static const char *const names[] = {[SCHEDULE_CONSTANT] = "constant",
                                        [SCHEDULE_CONSTANT_WITH_WARMUP] = "constant_with_warmup",
                                        [SCHEDULE_LINEAR] = "linear",
                                        [SCHEDULE_COSINE] = "cosine",
                                        [SCHEDULE_COSINE_WITH_RESTARTS] = "cosine_with_restarts",
                                        [SCHEDULE_COSINE_WITH_MIN_LR] = "cosine_with_min_lr"};
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *kind = (ScheduleKind)i;
            return true;
        }
    }
    return false;
}

long schedule_warmup(double warmup_steps, double warmup_ratio, long total) {
    if (warmup_steps >= 1) return (long)warmup_steps;
    double share = warmup_steps > 0 ? warmup_steps : warmup_ratio;
    return (long)ceil((double)total * share);
}

double schedule_factor(const Schedule *schedule, long update) {
    if (schedule->kind == SCHEDULE_CONSTANT) return 1;
    long warmup = schedule->warmup, total = schedule->total;
    if (update < warmup) return (double)update / (double)warmup;
    if (schedule->kind == SCHEDULE_CONSTANT_WITH_WARMUP) return 1;
    double span = total - warmup > 1 ? (double)(total - warmup) : 1;
    if (schedule->kind == SCHEDULE_LINEAR) return fmax(0, (double)(total - update) / span);
    double progress = (double)(update - warmup) / span, cycles = schedule->cycles > 0 ? schedule->cycles : 0.5;
    if (schedule->kind == SCHEDULE_COSINE_WITH_RESTARTS) {
        cycles = schedule->cycles >= 1 ? floor(schedule->cycles) : 1;
        return progress >= 1 ? 0 : fmax(0, 0.5 * (1 + cos(M_PI * fmod(cycles * progress, 1))));
    }
    double factor = 0.5 * (1 + cos(M_PI * cycles * 2 * progress));
    if (schedule->kind == SCHEDULE_COSINE_WITH_MIN_LR) factor = factor * (1 - schedule->lowest) + schedule->lowest;
    return fmax(0, factor);
}
