/* train_parts.h: the trainer's struct, shared by train.c (steps) and train_open.c (opening, closing, evaluation).
 */
#ifndef WHET_RL_TRAIN_PARTS_H
#define WHET_RL_TRAIN_PARTS_H

#include "rl/guard.h"
#include "rl/importance.h"
#include "rl/objective.h"
#include "rl/past.h"
#include "rl/train.h"

/* Who looks on while stored steps are learnt again (replay.c). Nothing is then written anywhere. */
typedef struct {
    void *self;
    bool sample; /* the engine and the judges will be used */
    /* The samples of a round, before its first update; and a step, with its metrics, after its update. */
    bool (*before)(void *self, Trainer *trainer, long step, const BatchGroup *groups, int n, Err *err);
    bool (*after)(void *self, Trainer *trainer, long step, const StoreNumber *metrics, int n, Err *err);
} Audit;

struct Trainer {
    const Recipe *recipe;
    const volatile int *stop;
    FILE *out;
    const Audit *audit; /* NULL: the run is trained */
    Model model;
    ModelFile *reference_file;
    Policy *reference; /* NULL without a KL term, and with adapters */
    Plan plan;
    Engine *engine;
    Learner *learner;
    Reward *reward;
    Source *source, *eval_source; /* eval_source NULL: nothing is evaluated */
    const char *eval_name;
    PromptForm form;
    Collector collector;
    Objective objective;
    ImportanceConf bounds;
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
    Guards guards;                   /* of the steps so far */
    const char *raised[GUARDS_MOST]; /* those of the last step: each is said when it begins */
    int n_raised;
    long saved; /* step of the newest checkpoint of this attempt */

    /* the round: samples drawn together */
    long round;         /* its first step; 0: none */
    StoreGroup *groups; /* [all_groups] */
    int n_groups;       /* those that are learnt from; dynamic_sampling passed over the others */
    int all_groups;
    double *advantages; /* [n_groups * num_generations] */
    Arena round_arena;
    StoreStep stored; /* where it was read from the store */
    /* Its samples were drawn by other weights than the present ones (or by these as int8), or on another path: the
     * learner's log-probabilities are not theirs. Then, each [n_groups * num_generations], or NULL: */
    bool foreign;
    /* from_store: the run that the answers come from, its groups, and what the round has read of it */
    Past from;
    long from_groups;
    StoreStep *from_steps;
    int n_from_steps;
    const real **old_logp, **weight; /* under the policy at the round's beginning; importance weights */
    ImportanceReport importance;

    StoreEval before, after;
    Arena arena;
};

/* Updates come in rounds: each draws samples once and learns from them updates_per_generation times, a slice of
 * the groups at a time, num_iterations times around. */
typedef struct {
    long first;        /* the round's first step */
    int slice, slices; /* of this step */
} Round;

/* A slice's samples as the learner takes them. */
typedef struct {
    BatchGroup *groups;
    LearnSample **extra;
    int n, group0; /* groups of the round */
    Arena arena;
} Slice;
bool slice_of(Trainer *trainer, Round round, Slice *slice, Err *err); /* free its arena in any case */

/* train_round.c: rewards and advantages of the round's samples. */
bool round_kl(Trainer *trainer, Err *err); /* kl_in_reward, once, when they have been sampled */
/* sums[n_groups * num_generations]: each answer's KL to the reference, as round_kl takes it off. */
bool round_kl_sums(Trainer *trainer, double *sums, Err *err);
/* Of the groups that are learnt from; also sets what is known of every group's rewards. */
void round_advantages(Trainer *trainer, AdvantageReport *report);
/* Where the round is foreign: its weight and old_logp, under the present weights; or as `stored` with the samples.
 */
bool round_correct(Trainer *trainer, bool stored, Err *err);
double round_mean_kl(const Trainer *trainer); /* what round_kl took away, per token and for a weight of 1 */

/* The key of the random numbers of the round that begins at `step`. */
uint64_t round_key(const Recipe *recipe, long step);
/* The rewards of groups, as advantages_compute takes them. */
AdvantageIn rewards_of(const Objective *objective, const Recipe *recipe, const StoreGroup *groups, int n,
                       Arena *arena);
/* from_store (train_from.c). */
bool from_open(Trainer *trainer, Err *err);
bool from_round(Trainer *trainer, int groups, Err *err); /* in place of sampling */
void from_round_free(Trainer *trainer);
/* Whether what was computed on this path has the bits that are computed here; NULL: not known. */
bool path_fits(const Trainer *trainer, const char *path);
/* One step; those that the store holds are learnt again from it. */
bool train_step(Trainer *trainer, long step, Err *err);
/* Opens the run that `store` holds (which the trainer then owns) to learn stored steps again before the eyes of
 * `audit`, from a checkpoint, or from the start (NULL). */
Trainer *train_open_audit(const Recipe *recipe, const char *checkpoint, Store *store, const StoreRun *run,
                          const Audit *audit, FILE *out, Err *err);

#endif
