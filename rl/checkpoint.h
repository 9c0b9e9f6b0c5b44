/* checkpoint.h: OUTPUT_DIR/checkpoint-N/: the model in the Hugging Face layout, or its adapters in PEFT's, and beside it what going on needs.
 *
 * Knows: the policy, its moments, the counters of a run. Must never know: samples, the store.
 * A checkpoint is written under a temporary name, synced and renamed: it is whole or not there.
 * Tested by tests/test_rl_train.c.
 */
#ifndef WHET_RL_CHECKPOINT_H
#define WHET_RL_CHECKPOINT_H

#include "rl/learn.h"
#include "rl/objective.h"

/* The counters of a run: trainer_state.json. */
typedef struct {
    long step;            /* updates done */
    uint64_t next_place;  /* in the source of problems */
    int64_t version;      /* of the policy */
    int64_t num_tokens;   /* seen so far: TRL's num_tokens */
    uint64_t weight_hash; /* of the trained weights */
    uint64_t base_hash;   /* of the model's file that adapters are trained over (model_file_hash); 0: none, not known */
    long best_step;       /* checkpoint with the best evaluation; 0: none yet */
    double best_value;
    EntropyState entropy; /* of use_adaptive_entropy */
    char path[32]; /* instruction set that the run goes on with to the same bits */
} TrainState;

typedef struct {
    Policy *policy;
    Learner *learner;
    const Tokenizer *tok;
    const char *chat_template, *prompt_template; /* NULL: none */
    Policy *reference;                           /* NULL: it stays as it was loaded */
} CheckpointParts;

/* A hash of the weights that are trained. */
uint64_t weights_hash(const Policy *policy);
uint64_t moments_hash(const Policy *policy, Learner *learner); /* and of AdamW's moments */

bool checkpoint_save(const char *output_dir, const TrainState *state, const CheckpointParts *parts, Err *err);
/* The folder that `which` names: "last" is the newest one in output_dir (NULL when there is none yet), all else is
 * a path. Owned by the caller. */
char *checkpoint_find(const char *output_dir, const char *which);
/* The newest checkpoint of a step at or before `step`; NULL when there is none. Owned by the caller. */
char *checkpoint_before(const char *output_dir, long step);
bool checkpoint_state(const char *folder, TrainState *state, Err *err);
/* Reads the moments; the weights came with the policy, which was loaded from the same folder. */
bool checkpoint_moments(const char *folder, Policy *policy, Learner *learner, Err *err);
/* Removes all but the newest `keep` checkpoints (0: none is removed) and the best one, and what a crash left. */
void checkpoint_prune(const char *output_dir, long keep, long best_step);

/* Makes a folder with its parents. */
bool folder_make(const char *path, Err *err);
/* Removes the run that lies in output_dir: its store, metrics and checkpoints, and nothing else. */
bool run_remove(const char *output_dir, Err *err);

#endif
