/* train_round.c: what a round's samples are worth: the KL in their rewards, their advantages, and the weights of
 * those that another policy drew. Not here:
 * sampling and judging them (collect.c), the formulas (advantage.c). Tested by tests/test_rl_train.c.
 */
#include "rl/train_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool round_kl_sums(Trainer *t, double *sums, Err *err) {
    Slice all;
    bool good = slice_of(t, (Round){.slices = 1}, &all, err);
    if (good) learner_reference_logp(t->learner, all.groups, all.n);
    for (int g = 0; good && g < all.n; g++)
        for (int i = 0; i < all.groups[g].n; i++, sums++) {
            *sums = 0;
            for (int k = 0; k < all.groups[g].samples[i].n; k++)
                *sums += kl_value(t->objective.loss.kl,
                                  (double)all.extra[g][i].old_logp[k] - (double)all.groups[g].samples[i].logp[k]);
        }
    arena_free(&all.arena);
    return good;
}

/* r - beta sum KL(policy that sampled, reference), for every judged answer of the groups that are learnt from (as
 * in TRL's RLOO: once for the answer, not token by token). */
bool round_kl(Trainer *t, Err *err) {
    int size = (int)t->recipe->num_generations;
    if (t->objective.kl_reward == 0) return true;
    double *sums = MEM_ARRAY(double, (size_t)t->n_groups *(size_t)size);
    bool good = round_kl_sums(t, sums, err);
    for (int i = 0; good && i < t->n_groups * size; i++) {
        StoreSample *s = &t->groups[i / size].samples[i % size];
        if (s->class != SCORE_UNJUDGED) s->reward -= t->objective.kl_reward * sums[i];
    }
    free(sums);
    return good;
}

/* VESPO weighs with the whole ratio to the policy that sampled, by itself. */
bool round_correct(Trainer *t, bool stored, Err *err) {
    t->importance = (ImportanceReport){0};
    if (!t->recipe->vllm_importance_sampling_correction || t->objective.loss.term == TERM_VESPO) return true;
    for (int g = 0; g < t->n_groups; g++)
        for (int i = 0; i < t->groups[g].n_samples; i++) stored = stored && t->groups[g].samples[i].old_logp;
    Slice all;
    bool good = slice_of(t, (Round){.slices = 1}, &all, err);
    if (good && !stored) learner_logp(t->learner, t->model.policy, all.groups, all.n);
    size_t n = (size_t)t->n_groups * (size_t)t->recipe->num_generations, at = 0;
    const real **old = arena_alloc(&t->round_arena, n, sizeof *old);
    const real **weight = arena_alloc(&t->round_arena, n, sizeof *weight);
    for (int g = 0; good && g < all.n; g++)
        for (int i = 0; i < all.groups[g].n; i++, at++) {
            const BatchSample *s = &all.groups[g].samples[i];
            StoreSample *from = &t->groups[g].samples[i];
            const real *now = stored ? from->old_logp : s->logp;
            real *numbers = arena_alloc(&t->round_arena, 2 * (size_t)s->n, sizeof *numbers);
            from->old_logp = old[at] = memcpy(numbers, now, (size_t)s->n * sizeof *numbers);
            weight[at] = numbers + s->n;
            importance_weights(numbers + s->n, &t->importance, &t->bounds, old[at], all.extra[g][i].old_logp, NULL,
                               s->n);
        }
    t->old_logp = old, t->weight = weight;
    arena_free(&all.arena);
    return good && (isfinite(t->importance.diff_sum) ||
                    err_set(err, "step %ld: the log-probabilities of sampler and learner differ by %g", t->round,
                            t->importance.diff_sum));
}

/* The stored rewards know it: what they lack of their parts' total. */
double round_mean_kl(const Trainer *t) {
    double sum = 0;
    long tokens = 0;
    for (int g = 0; g < t->n_groups; g++)
        for (int i = 0; i < t->groups[g].n_samples; i++) {
            const StoreSample *s = &t->groups[g].samples[i];
            ScoreClass class;
            if (s->class == SCORE_UNJUDGED) continue;
            sum += reward_total(s->scores, t->recipe->reward_weights.at, t->recipe->reward_funcs.n, &class) -
                   s->reward;
            tokens += s->sample.n - s->sample.n_prompt;
        }
    return tokens ? sum / t->objective.kl_reward / (double)tokens : 0;
}

AdvantageIn rewards_of(const Objective *objective, const Recipe *r, const StoreGroup *groups, int n,
                       Arena *arena) {
    int size = (int)r->num_generations, parts = r->reward_funcs.n;
    size_t count = (size_t)n * (size_t)size, at = 0;
    double *rewards = arena_alloc(arena, count, sizeof *rewards),
           *greedy = arena_alloc(arena, (size_t)n, sizeof *greedy);
    double *values = arena_alloc(arena, count * (size_t)parts, sizeof *values);
    int *lengths = arena_alloc(arena, count, sizeof *lengths);
    for (int g = 0; g < n; g++) {
        const StoreGroup *group = &groups[g];
        greedy[g] = group->baseline ? group->baseline->reward : NAN;
        for (int i = 0; i < size; i++, at++) {
            const StoreSample *s = &group->samples[i];
            rewards[at] = s->reward;
            lengths[at] = s->sample.n - s->sample.n_prompt;
            for (int p = 0; p < parts; p++) values[at * (size_t)parts + (size_t)p] = s->scores[p].value;
        }
    }
    return (AdvantageIn){.kind = objective->advantage,
                         .scale = objective->scale,
                         .groups = n,
                         .size = size,
                         .rewards = rewards,
                         .lengths = lengths,
                         .greedy = greedy,
                         .parts = objective->by_part ? values : NULL,
                         .weights = r->reward_weights.at,
                         .n_parts = parts};
}

static void stats_put(Trainer *t, int first, int n, const GroupStats *stats) {
    for (int g = 0; g < n; g++) {
        StoreGroup *group = &t->groups[first + g];
        group->reward_mean = stats[g].mean, group->reward_std = stats[g].std;
        group->judged = stats[g].judged, group->signal = stats[g].signal;
    }
}

void round_advantages(Trainer *t, AdvantageReport *report) {
    Arena arena = {0};
    AdvantageIn in = rewards_of(&t->objective, t->recipe, t->groups, t->n_groups, &arena);
    GroupStats *stats = arena_alloc(&arena, (size_t)t->all_groups, sizeof *stats);
    advantages_compute(t->advantages, stats, report, &in);
    stats_put(t, 0, t->n_groups, stats);
    int passed = t->all_groups - t->n_groups;
    if (passed > 0) {
        AdvantageReport unused;
        AdvantageIn others = rewards_of(&t->objective, t->recipe, t->groups + t->n_groups, passed, &arena);
        double *nothing = arena_alloc(&arena, (size_t)passed * (size_t)others.size, sizeof *nothing);
        advantages_compute(nothing, stats, &unused, &others);
        stats_put(t, t->n_groups, passed, stats);
        for (int g = 0; g < passed; g++) /* not learnt from */
            for (int i = 0; i < others.size; i++) t->groups[t->n_groups + g].samples[i].advantage = NAN;
    }
    arena_free(&arena);
}
