/* collect.h: from problems to judged groups: draws problems, samples answers, has them judged.
 *
 * Knows: source, template, engine, judges. Must never know: losses, the policy's weights, the store's tables (it
 * fills the store's structs, which are the record of a sample). Ownership: what it fills lies in the caller's
 * arena. Judging overlaps with sampling: an answer is handed to the judges as soon as it ends. Tested by
 * tests/test_rl_train.c.
 */
#ifndef WHET_RL_COLLECT_H
#define WHET_RL_COLLECT_H

#include "rl/prompt.h"
#include "rl/recipe.h"
#include "rl/store.h"

typedef struct {
    const Recipe *recipe;
    const Tokenizer *tok;
    PromptForm form;
    Engine *engine;
    Reward *reward;
    Source *source;
    uint64_t next_place;                                 /* in the source: part of the state of a run */
    void (*progress)(void *self, long done, long total); /* NULL: none */
    void *self;
} Collector;

/* The reward and the class that follow from a sample's scores. */
void collect_reward(const Recipe *recipe, StoreSample *sample);
/* How the recipe wants its judges. */
RewardConf reward_conf_of(const Recipe *recipe, RewardShape *shape);

/* The next n problems with recipe->num_generations answers each. `key` seeds the random numbers of all of them.
 * Problems whose prompt is longer than max_prompt_length are passed over. */
bool collect(Collector *collector, uint64_t key, StoreGroup *groups, int n, Arena *arena, Err *err);

/* The same with the recipe's dynamic_sampling (DAPO, arXiv 2503.14476): draws until n groups have something to
 * teach, or max_generation_batches is reached. *groups has *all of them: first the n to learn from, in the order
 * in which they were drawn (those without signal last, where there are too few others), then those that were
 * passed over. */
bool collect_signal(Collector *collector, uint64_t key, StoreGroup **groups, int *all, int n, Arena *arena,
                    Err *err);

/* Judges the answers of groups anew, of any recipe's: scores, reward and class of each sample (and baseline) are
 * replaced; their strings lie in the arena. */
bool judge_groups(Reward *reward, const Recipe *recipe, StoreGroup *groups, int n, Arena *arena, Err *err);

/* Mean and standard deviation of one part's values, and counts over all samples. */
typedef struct {
    double mean, std;
    int judged, right, unjudged;
} PartStats;
PartStats part_stats(const StoreGroup *groups, int n, int part);

#endif
