/* store.h: OUTPUT_DIR/run.db, the SQLite store of all that a run sampled, judged and learnt from.
 *
 * Knows: the tables (rl/schema.sql is their documentation). Must never know: how samples, scores or weights are
 * made. Structs: Store (an open database), StoreStep with its StoreGroups and StoreSamples (one training step, the
 * same shape when written and when read back), StoreRun, StoreEval. Ownership: what is written stays the caller's;
 * what is read lies in the arena of the struct that was filled, also the arrays of a Sample and the strings of a
 * RewardScore: free the arena, never the parts. Tested by tests/test_rl_store.c.
 *
 * A step is one transaction: written whole or not at all, on disk when store_step_write returns. Nothing that was
 * committed is ever removed: a step that is learnt again after a crash is read back, not written again. Every
 * function that fails leaves the store as it was, fills err and may be called again.
 */
#ifndef WHET_RL_STORE_H
#define WHET_RL_STORE_H

#include "datasets/datasets.h"
#include "kernels/base.h"
#include "reward/reward.h"
#include "rollout/rollout.h"

typedef struct Store Store;

/* Opens the store, or makes it where there is none, and keeps every other whet from writing to the same folder.
 * Refuses what is no store of whet's, is damaged, or was made by a newer whet. wait_seconds: how long to bear
 * another program's lock on the database (0: 30 s). */
Store *store_open(const char *path, double wait_seconds, Err *err);
/* Whether no whet writes to the folder of this store; false and err where one does. */
bool store_idle(const char *path, Err *err);
/* Opens it to be read, also while a run writes to it; nothing is locked, made or changed. */
Store *store_open_read(const char *path, Err *err);
/* Opens a store to which something is added that is no part of a run, also while one writes to it. */
Store *store_open_beside(const char *path, Err *err);
void store_close(Store *store); /* NULL is fine */

/* ---- runs and attempts -------------------------------------------------------------------------------------- */

typedef struct {
    int64_t id;
    const char *recipe;   /* the resolved recipe, the text of a JSON object */
    const char *path;     /* of the device (dev_path) */
    const char *version;  /* of whet */
    uint64_t weight_hash; /* of the weights before the first step */
} StoreRun;

bool store_run_begin(Store *store, StoreRun *run, Err *err); /* sets run->id */
/* The newest run: *found is false when there is none yet. */
bool store_run_last(Store *store, Arena *arena, StoreRun *run, bool *found, Err *err);

bool store_attempt_begin(Store *store, int64_t run, long from_step, const char *path, const char *version,
                         int threads, int64_t *attempt, Err *err);
/* outcome: finished, interrupted, failed. */
bool store_attempt_end(Store *store, int64_t attempt, const char *outcome, Err *err);

/* ---- steps -------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t id;       /* given by store_step_write, in order */
    Sample sample;    /* ticket is not stored; index is the sample's number in its group */
    const char *text; /* the completion, decoded; stored with U+FFFD for what is no UTF-8 */
    size_t text_n;
    const char *stage; /* what it was sampled for: "train", "baseline" */
    int64_t parent;    /* id of the sample that it goes on from; 0: none */
    double reward;     /* NaN: unjudged */
    ScoreClass class;
    RewardScore *scores; /* [parts of the step]; NaN where unjudged */
    double advantage;    /* with which this step consumed it; NaN: it did not */
    /* [n - n_prompt] log-probs under the weights that learn, before its first update; NULL: those that it was
     * drawn with */
    const real *old_logp;
} StoreSample;

typedef struct {
    int64_t id;         /* given by store_step_write */
    int64_t problem_id; /* likewise */
    Problem problem;
    const char *source;  /* where the problem comes from, as the recipe names it */
    uint64_t place, key; /* in the source; of the random numbers */
    const char *prompt;  /* the rendered template */
    const int *prompt_tok;
    int n_prompt;                   /* every sample begins with these tokens, and their log-probs are 0 */
    double reward_mean, reward_std; /* over judged samples; mean NaN when there are none */
    int judged;
    bool signal;
    StoreSample *samples;
    int n_samples;
    StoreSample *baseline; /* the greedy answer that they are compared with (ReMax); NULL: none */
} StoreGroup;

typedef struct {
    const char *name;
    double value;
} StoreNumber;

/* What looked wrong with a step: see guard.h. */
typedef struct {
    const char *name, *line;
} StoreGuard;

/* A sample of an earlier step that this one consumed: several updates from one batch, sampling ahead. */
typedef struct {
    int64_t sample;
    double advantage;
} StoreUse;

typedef struct {
    long step;            /* from 1 */
    int64_t version;      /* of the policy after the step */
    uint64_t weight_hash; /* of the weights after the step */
    uint64_t moment_hash; /* of AdamW's moments after the step */
    const char *path;     /* of the device (dev_path) that sampled it and learnt from it */
    StoreGroup *groups;   /* sampled in this step, in the order in which they are learnt from; may be none */
    int n_groups;
    StoreUse *uses; /* in order of the samples' ids when read */
    int n_uses;
    const char *const *parts; /* names of reward_funcs */
    int n_parts;
    StoreNumber *metrics; /* under TRL's names; functions of the run only, never times */
    int n_metrics;
    StoreNumber *seconds; /* by phase */
    int n_seconds;
    const StoreGuard *guards;
    int n_guards;
    Arena arena; /* of a step that was read */
} StoreStep;

/* Writes a step with all that belongs to it, and fills in the ids. `step` must come after the
 * last one stored (and follows it, unless the file was lost and a checkpoint goes on without it). */
bool store_step_write(Store *store, int64_t run, StoreStep *step, Err *err);
/* The hash of the weights after a step, as stored; after step 0, or one that is not there: of the run's first
 * ones. */
bool store_weights_after(Store *store, int64_t run, long step, uint64_t *hash, Err *err);
/* The last complete step of the run; 0 when there is none. */
bool store_step_last(Store *store, int64_t run, long *step, Err *err);
/* Reads a step back, bit for bit: to be learnt again instead of sampled again. Metrics and seconds come in order
 * of their names. */
bool store_step_read(Store *store, int64_t run, long number, StoreStep *step, Err *err);
/* The metrics of all steps to `last`, in order of steps and names. */
bool store_metrics_each(Store *store, int64_t run, long last,
                        void (*each)(void *self, bool new_step, const char *name, double value), void *self,
                        Err *err);
void store_step_free(StoreStep *step); /* of store_step_read */

/* ---- evaluations -------------------------------------------------------------------------------------------- */

typedef struct {
    Problem problem;
    const char *text;
    size_t text_n;
    int n_tokens;
    Finish finish;
    double reward; /* NaN: unjudged */
    ScoreClass class;
    const char *verdict; /* or NULL */
} StoreAnswer;

typedef struct {
    long step;        /* after which it was made; 0: before the first */
    const char *name; /* of the data; also the source of the problems */
    int n;            /* answers judged */
    double accuracy, ci_low, ci_high, mean_length, seconds;
    StoreAnswer *answers;
    int n_answers;
    Arena arena; /* of one that was read */
} StoreEval;

/* Writes an evaluation; one of the same step and name is replaced. */
bool store_eval_write(Store *store, int64_t run, const StoreEval *eval, Err *err);
bool store_eval_read(Store *store, int64_t run, long step, const char *name, StoreEval *eval, bool *found,
                     Err *err);
void store_eval_free(StoreEval *eval); /* of store_eval_read */

/* ---- comparing stores --------------------------------------------------------------------------------------- */

/* A hash of everything that is a function of the run: all tables but runs and attempts, without times. */
bool store_digest(Store *store, uint64_t *digest, Err *err);

const char *finish_name(Finish finish); /* "stop", "length", "cancelled" */

#endif
