/* train_parts.h: the trainer's struct, shared by train.c (steps) and train_open.c (opening, closing, evaluation).
 */
#ifndef WHET_RL_TRAIN_PARTS_H
#define WHET_RL_TRAIN_PARTS_H

#include "rl/advantage.h"
#include "rl/train.h"

struct Trainer {
    const Recipe *recipe;
    const volatile int *stop;
    FILE *out;
    Model model;
    ModelFile *reference_file;
    Policy *reference; /* NULL without a KL term, and with adapters */
    Plan plan;
    Engine *engine;
    Learner *learner;
    Reward *reward;
    Source *source, *eval_source; /* eval_source NULL: nothing is evaluated */
    const char *eval_name, *prompt_template;
    Collector collector;
    LossConf loss;
    ScaleRewards scale;
    Schedule schedule;
    long steps; /* of the whole run */

    Store *store;
    char *store_path;
    StoreRun run;
    int64_t attempt;
    long stored_last; /* the last step that the store holds */
    bool same_path;   /* the device computes with the bits of the run so far */
    MetricsFile *metrics;
    Report *report;
    TrainState state;
    long saved; /* step of the newest checkpoint of this attempt */

    /* the round: samples drawn together */
    long round; /* its first step; 0: none */
    StoreGroup *groups;
    int n_groups;
    double *advantages; /* [n_groups * num_generations] */
    Arena round_arena;
    StoreStep stored; /* where it was read from the store */

    StoreEval before, after;
    Arena arena;
};

#endif
