/* train.c: see train.h. Here: one step after the other. Not here: opening and closing (train_open.c). */
#include "rl/train_parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/eval.h"
#include "rl/reference.h"

/* ---- where a step stands ---- */

static Round round_of(const Recipe *r, long step) {
    long at = (step - 1) % r->updates_per_generation, slices = r->generation_groups / r->batch_groups;
    return (Round){step - at, (int)(at % slices), (int)slices};
}

/* ---- the round's samples ---- */

static void round_free(Trainer *t) {
    arena_free(&t->round_arena);
    store_step_free(&t->stored);
    from_round_free(t);
    t->groups = NULL;
    t->n_groups = t->all_groups = 0;
    t->foreign = false;
    t->old_logp = t->weight = NULL;
}

static void show_progress(void *self, long done, long total) {
    report_progress(((Trainer *)self)->report, "sampling", done, total);
}

uint64_t round_key(const Recipe *r, long step) {
    return rng_mix(rng_mix((uint64_t)r->seed, 0x73616d706c65), (uint64_t)step);
}

bool path_fits(const Trainer *t, const char *path) {
    return path && dev_same_bits(path, dev_path(t->model.dev), t->model.type);
}

/* Whether the present weights are those that the store knows, and this path is the one that they came from: then
 * what the store holds of the steps that follow is what will be computed again. */
static bool same_run(Trainer *t, const char *path, bool *same, Err *err) {
    uint64_t hash;
    *same = false;
    if (!store_weights_after(t->store, t->run.id, t->state.step, &hash, err)) return false;
    *same = hash == t->state.weight_hash && path_fits(t, path);
    return true;
}

/* Whether the stored round is one that this recipe and this model can have made: the file may have been edited. */
static bool stored_fits(const Trainer *t, long step, Err *err) {
    const Recipe *r = t->recipe;
    for (int g = 0; g < t->stored.n_groups; g++) {
        const StoreGroup *group = &t->stored.groups[g];
        if (group->n_samples != r->num_generations)
            return err_set(err, "%s: damaged: group %d of step %ld holds %d answers where the recipe asks for %ld",
                           t->store_path, g, step, group->n_samples, r->num_generations);
        for (int i = 0; i < group->n_samples; i++) {
            const StoreSample *s = &group->samples[i];
            const Sample *x = &s->sample;
            if (x->index != i || x->n_prompt > r->max_prompt_length ||
                x->n - x->n_prompt > r->max_completion_length)
                return err_set(
                    err, "%s: damaged: step %ld: group %d, sample %d (id %lld) has number %d and %d + %d tokens",
                    t->store_path, step, g, i, (long long)s->id, x->index, x->n_prompt, x->n - x->n_prompt);
            for (int k = 0; k < x->n; k++)
                if (x->tok[k] < 0 || x->tok[k] >= t->model.policy->conf.vocab)
                    return err_set(
                        err,
                        "%s: damaged: step %ld: group %d, sample %d (id %lld): token %d of its %s is %d, "
                        "and the model has %d",
                        t->store_path, step, g, i, (long long)s->id, k < x->n_prompt ? k : k - x->n_prompt,
                        k < x->n_prompt ? "prompt" : "answer", x->tok[k], t->model.policy->conf.vocab);
        }
    }
    return true;
}

/* Samples the groups of the round that begins at `step`, or reads them from the store where that has them. */
static bool round_begin(Trainer *t, long step, Err *err) {
    const Recipe *r = t->recipe;
    int n = (int)r->generation_groups;
    if (step <= t->state.step && step > t->stored_last)
        return err_set(err,
                       "%s: the samples of step %ld, which step %ld goes on with, are not there; begin anew with "
                       "--overwrite_output_dir",
                       t->store_path, step, t->state.step + 1);
    round_free(t);
    t->round = step;
    bool same = false;
    t->foreign = r->from_store || t->model.int8;
    if (step <= t->stored_last) {
        if (!store_step_read(t->store, t->run.id, step, &t->stored, err)) return false;
        if (t->stored.n_groups < n)
            return err_set(err, "%s: step %ld holds %d groups where the recipe asks for %d", t->store_path, step,
                           t->stored.n_groups, n);
        if (!stored_fits(t, step, err)) return false;
        t->groups = t->stored.groups, t->n_groups = n, t->all_groups = t->stored.n_groups;
        t->collector.next_place = 0;
        for (int g = 0; g < t->all_groups; g++)
            if (t->groups[g].place >= t->collector.next_place) t->collector.next_place = t->groups[g].place + 1;
        if (!same_run(t, t->stored.path, &same, err)) return false;
        t->foreign = t->foreign || !same;
    } else if (r->from_store) {
        if (!from_round(t, n, err)) return false;
    } else {
        t->collector.progress = show_progress, t->collector.self = t;
        if (!collect_signal(&t->collector, round_key(r, step), &t->groups, &t->all_groups, n, &t->round_arena,
                            err))
            return false;
        t->n_groups = n;
    }
    t->advantages = arena_alloc(&t->round_arena, (size_t)n * (size_t)r->num_generations, sizeof(double));
    if (t->foreign && !round_correct(t, same, err)) return false;
    return step <= t->stored_last || round_kl(t, err);
}

/* Too many samples that could not be judged: a reward that is broken must not teach. */
static bool judged_enough(const Trainer *t, Err *err) {
    long unjudged = 0, all = 0;
    const StoreSample *example = NULL;
    for (int g = 0; g < t->n_groups; g++)
        for (int i = 0; i < t->groups[g].n_samples; i++, all++)
            if (t->groups[g].samples[i].class == SCORE_UNJUDGED) unjudged++, example = &t->groups[g].samples[i];
    if (!example || (double)unjudged <= t->recipe->max_unjudged * (double)all) return true;
    const RewardScore *score = &example->scores[0];
    for (int p = 0; p < t->recipe->reward_funcs.n; p++)
        if (example->scores[p].class == SCORE_UNJUDGED) score = &example->scores[p];
    return err_set(
        err,
        "%ld of %ld answers could not be judged (%s%s%s), more than max_unjudged %g: look at the expected answers "
        "and the judge",
        unjudged, all, score->verdict, score->reason ? ": " : "", score->reason ? score->reason : "",
        t->recipe->max_unjudged);
}

/* ---- learning ---- */

/* A stored sample as the learner sees it. */
static bool batch_sample(const Trainer *t, BatchSample *to, const StoreSample *from, Arena *arena, Err *err) {
    const Sample *s = &from->sample;
    int n = s->n - s->n_prompt;
    real *numbers = arena_alloc(arena, 3 * (size_t)n, sizeof(real));
    *to = (BatchSample){
        .n = n, .tok = s->tok + s->n_prompt, .logp = numbers, .entropy = numbers + n, .coef = numbers + 2 * n};
    if (!s->kept) return true;
    size_t *at = arena_alloc(arena, (size_t)n, sizeof *at);
    to->kept = s->kept, to->kept_n = s->kept_n, to->kept_at = at;
    return kept_index(at, s->kept, s->kept_n, n, t->model.policy->conf.vocab) ||
           err_set(err, "%s: damaged: the kept ids of a sample are none", t->store_path);
}

/* The log-probabilities that it was drawn with, inside what top_k, top_p and min_p kept. */
static const real *drawn_logp(const Sample *s) { return (s->kept ? s->draw_logp : s->logp) + s->n_prompt; }

bool slice_of(Trainer *t, Round round, Slice *out, Err *err) {
    bool good = true;
    int n = t->n_groups / round.slices;
    Slice slice = {.n = n, .group0 = round.slice * n};
    slice.groups = arena_alloc(&slice.arena, (size_t)n, sizeof *slice.groups);
    slice.extra = arena_alloc(&slice.arena, (size_t)n, sizeof *slice.extra);
    for (int g = 0; g < n; g++) {
        const StoreGroup *from = &t->groups[slice.group0 + g];
        slice.groups[g] =
            (BatchGroup){.n_prompt = from->n_prompt, .n = from->n_samples, .prompt = from->prompt_tok};
        slice.groups[g].samples = arena_alloc(&slice.arena, (size_t)from->n_samples, sizeof(BatchSample));
        slice.extra[g] = arena_alloc(&slice.arena, (size_t)from->n_samples, sizeof(LearnSample));
        for (int i = 0; i < from->n_samples; i++) {
            const StoreSample *s = &from->samples[i];
            int count = s->sample.n - s->sample.n_prompt;
            good = good && batch_sample(t, &slice.groups[g].samples[i], s, &slice.arena, err);
            LearnSample *x = &slice.extra[g][i];
            int at = (slice.group0 + g) * from->n_samples + i;
            x->seq = (LossSeq){.n = count,
                               .advantage = t->advantages[at],
                               .truncated = s->sample.finish == FINISH_LENGTH,
                               .unjudged = s->class == SCORE_UNJUDGED};
            x->old_logp = t->old_logp ? t->old_logp[at] : drawn_logp(&s->sample);
            x->weight = t->weight ? t->weight[at] : NULL;
            if (t->objective.loss.beta != 0) x->ref_logp = arena_alloc(&slice.arena, (size_t)count, sizeof(real));
        }
    }
    *out = slice;
    return good;
}

/* The sampler's log-probabilities and the learner's are one computation: any difference is a bug, and a run that
 * has it would learn from something else than it sampled. Where it is not so, a difference is still a number. */
static bool same_logp(const Trainer *t, const LearnReport *report, long step, Err *err) {
    if (step != t->round || report->diff_sum == 0 || t->audit) return true;
    if (t->foreign && isfinite(report->diff_sum)) return true;
    return err_set(
        err,
        "step %ld: the learner's log-probabilities differ from the sampler's, by %g in all; this is a bug of "
        "whet: please report it with the recipe",
        step, report->diff_sum);
}

/* ---- metrics ---- */

typedef struct {
    StoreNumber at[80];
    int n;
    Arena arena;
} Numbers;

static void number_add(Numbers *numbers, const char *name, double value) {
    CHECK(numbers->n < 80, "more than 80 numbers, at %s", name);
    numbers->at[numbers->n++] = (StoreNumber){name, value};
}

static void length_metrics(Numbers *out, const StoreGroup *groups, int n) {
    double sum = 0, least = INFINITY, most = 0, ended_sum = 0, ended_least = INFINITY, ended_most = 0;
    long all = 0, ended = 0;
    for (int g = 0; g < n; g++)
        for (int i = 0; i < groups[g].n_samples; i++) {
            const Sample *s = &groups[g].samples[i].sample;
            double length = s->n - s->n_prompt;
            all++, sum += length, least = fmin(least, length), most = fmax(most, length);
            if (s->finish != FINISH_STOP) continue;
            ended++, ended_sum += length, ended_least = fmin(ended_least, length),
                                          ended_most = fmax(ended_most, length);
        }
    number_add(out, "completions/mean_length", sum / (double)all);
    number_add(out, "completions/min_length", least);
    number_add(out, "completions/max_length", most);
    number_add(out, "completions/clipped_ratio", 1 - (double)ended / (double)all);
    number_add(out, "completions/mean_terminated_length", ended ? ended_sum / (double)ended : 0);
    number_add(out, "completions/min_terminated_length", ended ? ended_least : 0);
    number_add(out, "completions/max_terminated_length", ended_most);
}

static void step_metrics(Numbers *out, Trainer *t, const AdvantageReport *advantage, const LearnReport *learn,
                         double learning_rate, long step) {
    const Recipe *r = t->recipe;
    LossMetrics loss = loss_metrics(&learn->loss);
    double measured = learn->measured > 0 ? (double)learn->measured : 1;
    number_add(out, "loss", loss.loss);
    number_add(out, "grad_norm", learn->grad_norm);
    number_add(out, "learning_rate", learning_rate);
    number_add(out, "epoch", (double)t->collector.next_place / (double)source_size(t->source));
    number_add(out, "num_tokens", (double)t->state.num_tokens);
    number_add(out, "reward", advantage->reward);
    number_add(out, "reward_std", advantage->reward_std);
    number_add(out, "frac_reward_zero_std", advantage->frac_reward_zero_std);
    for (int p = 0; p < r->reward_funcs.n; p++) {
        PartStats part = part_stats(t->groups, t->n_groups, p);
        char label[128];
        reward_label(r->reward_funcs.at[p], label, sizeof label);
        number_add(out, arena_format(&out->arena, "rewards/%s/mean", label), part.mean);
        number_add(out, arena_format(&out->arena, "rewards/%s/std", label), part.std);
        if (p == 0) number_add(out, "accuracy", part.judged ? (double)part.right / part.judged : NAN);
        number_add(out, arena_format(&out->arena, "rewards/%s/unjudged", label), part.unjudged);
    }
    length_metrics(out, t->groups, t->n_groups);
    StoreNumber guard[GUARD_NUMBERS];
    const Conf *conf = &t->model.policy->conf;
    guard_numbers(guard, t->groups, t->n_groups, conf->eos, conf->n_eos);
    for (int i = 0; i < GUARD_NUMBERS; i++) number_add(out, guard[i].name, guard[i].value);
    number_add(out, "entropy", learn->entropy_sum / measured);
    if (t->objective.loss.beta != 0) number_add(out, "kl", loss.kl);
    if (t->objective.kl_reward != 0) number_add(out, "kl", round_mean_kl(t));
    if (t->recipe->use_adaptive_entropy) number_add(out, "entropy_coef", t->state.entropy.coef);
    if (strcmp(t->recipe->dynamic_sampling, "none") != 0)
        number_add(out, "groups_passed_over", t->all_groups - t->n_groups);
    number_add(out, "policy_loss", loss.policy_loss);
    number_add(out, "clip_ratio/low_mean", loss.clip_low_mean);
    number_add(out, "clip_ratio/low_min", loss.clip_low_min);
    number_add(out, "clip_ratio/high_mean", loss.clip_high_mean);
    number_add(out, "clip_ratio/high_max", loss.clip_high_max);
    number_add(out, "clip_ratio/region_mean", loss.clip_region_mean);
    if (step == t->round) { /* later updates of a round are meant to differ */
        const ImportanceReport *i = &t->importance;
        number_add(out, "sampling/sampling_logp_difference/mean",
                   t->weight ? i->diff_sum / (double)i->tokens : learn->diff_sum / measured);
        number_add(out, "sampling/sampling_logp_difference/max", t->weight ? i->diff_most : learn->diff_max);
        if (t->weight) {
            number_add(out, "sampling/importance_sampling_ratio/min", i->weight_least);
            number_add(out, "sampling/importance_sampling_ratio/mean", i->weight_sum / (double)i->weights);
            number_add(out, "sampling/importance_sampling_ratio/max", i->weight_most);
        }
    }
}

static double number_of(const Numbers *numbers, const char *name) {
    for (int i = 0; i < numbers->n; i++)
        if (strcmp(numbers->at[i].name, name) == 0) return numbers->at[i].value;
    return NAN;
}

/* ---- storing ---- */

/* The record of a fresh step. A round's first step brings its groups; the samples that other steps of the round
 * consume are named as uses there. */
static bool store_step(Trainer *t, long step, const Slice *slice, const Numbers *metrics, const Numbers *seconds,
                       const StoreGuard *guards, int n_guards, Err *err) {
    const Recipe *r = t->recipe;
    StoreStep row = {.step = step,
                     .version = t->state.version,
                     .weight_hash = t->state.weight_hash,
                     .moment_hash = moments_hash(t->model.policy, t->learner),
                     .path = dev_path(t->model.dev),
                     .parts = r->reward_funcs.at,
                     .n_parts = r->reward_funcs.n,
                     .metrics = (StoreNumber *)metrics->at,
                     .n_metrics = metrics->n,
                     .seconds = (StoreNumber *)seconds->at,
                     .n_seconds = seconds->n,
                     .guards = guards,
                     .n_guards = n_guards};
    StoreUse *uses = NULL;
    for (int g = 0; g < slice->n; g++)
        for (int i = 0; i < slice->groups[g].n; i++) {
            StoreSample *s = &t->groups[slice->group0 + g].samples[i];
            double advantage = s->class == SCORE_UNJUDGED ? NAN : slice->extra[g][i].seq.advantage;
            if (step == t->round) {
                s->advantage = advantage;
            } else if (!isnan(advantage)) {
                uses = mem_grow(uses, (size_t)row.n_uses + 1, sizeof *uses);
                uses[row.n_uses++] = (StoreUse){s->id, advantage};
            }
        }
    if (step == t->round) row.groups = t->groups, row.n_groups = t->all_groups;
    row.uses = uses;
    bool good = store_step_write(t->store, t->run.id, &row, err);
    free(uses);
    return good;
}

/* A step that the store holds was learnt again: it must have reached the same weights, when it began at those that
 * the store knows (`same`). */
static bool same_weights(Trainer *t, long step, bool same, Err *err) {
    StoreStep stored = {0};
    const StoreStep *row = step == t->round ? &t->stored : &stored;
    if (step != t->round && !store_step_read(t->store, t->run.id, step, &stored, err)) return false;
    uint64_t hash = row->weight_hash, moments = row->moment_hash;
    same = same && path_fits(t, row->path);
    store_step_free(&stored);
    if (hash == t->state.weight_hash && moments == moments_hash(t->model.policy, t->learner)) return true;
    if (!same) {
        report_note(t->report, "step %ld: other weights than stored, as the instruction set was another", step);
        return true;
    }
    return err_set(
        err,
        "step %ld was learnt again and reached weights %016" PRIx64 " where the store has %016" PRIx64
        " (or other moments): the store or the checkpoint was changed; `whet replay %s --step %ld` says "
        "where; begin anew with --overwrite_output_dir",
        step, t->state.weight_hash, hash, t->recipe->output_dir, step);
}

/* ---- one step ---- */

static void report_of_step(Trainer *t, long step, const Numbers *m, double sampled, double seconds) {
    ReportStep line = {.step = step,
                       .reward = number_of(m, "reward"),
                       .accuracy = number_of(m, "accuracy"),
                       .length = number_of(m, "completions/mean_length"),
                       .seconds = seconds,
                       .tokens_per_second = seconds > 0 ? sampled / seconds : 0};
    long every = recipe_every(t->recipe->logging_steps, t->steps);
    if (every > 0 && (step % every == 0 || step == t->steps)) report_step(t->report, &line);
}

static long round_tokens(const Trainer *t) {
    long n = 0;
    for (int g = 0; g < t->all_groups; g++) {
        for (int i = 0; i < t->groups[g].n_samples; i++) n += t->groups[g].samples[i].sample.n;
        if (t->groups[g].baseline) n += t->groups[g].baseline->sample.n;
    }
    return n;
}

/* What follows the policy: the reference model, and the weight of the entropy bonus. */
static void follow(Trainer *t, long step, const LearnReport *learn) {
    const Recipe *r = t->recipe;
    if (r->sync_ref_model && step % r->ref_model_sync_steps == 0)
        reference_follow(t->reference, t->model.policy, r->ref_model_mixup_alpha);
    if (r->use_adaptive_entropy) entropy_update(r, &t->state.entropy, loss_metrics(&learn->loss).entropy);
}

/* All samples of the round, before anything is learnt from them. */
static bool show_round(Trainer *t, long step, Err *err) {
    Slice all;
    bool good = slice_of(t, (Round){step, 0, 1}, &all, err) &&
                t->audit->before(t->audit->self, t, step, all.groups, all.n, err);
    arena_free(&all.arena);
    return good;
}

/* What looks wrong is said when it begins. */
static void report_guards(Trainer *t, long step, const StoreGuard *guards, int n) {
    for (int i = 0; i < n; i++) {
        bool said = false;
        for (int k = 0; k < t->n_raised; k++) said = said || strcmp(t->raised[k], guards[i].name) == 0;
        if (!said) report_note(t->report, "step %ld, %s: %s", step, guards[i].name, guards[i].line);
    }
    t->n_raised = n;
    for (int i = 0; i < n; i++) t->raised[i] = guards[i].name;
}

/* A step's record: into the store, or before the eyes of who looks on. */
static bool keep_step(Trainer *t, long step, bool same, const Slice *slice, const Numbers *metrics,
                      const Numbers *seconds, Err *err) {
    if (t->audit) return t->audit->after(t->audit->self, t, step, metrics->at, metrics->n, err);
    StoreGuard guards[GUARDS_MOST];
    Arena arena = {0};
    int n = 0;
    for (int i = 0; i < metrics->n; i++) guards_add(&t->guards, i == 0, metrics->at[i].name, metrics->at[i].value);
    n = guards_check(&t->guards, guards, &arena);
    bool good = step <= t->stored_last ? same_weights(t, step, same, err)
                                       : store_step(t, step, slice, metrics, seconds, guards, n, err);
    if (good) report_guards(t, step, guards, n);
    arena_free(&arena);
    return good && metrics_write(t->metrics, step, metrics->at, metrics->n, seconds->at, seconds->n, err);
}

bool train_step(Trainer *t, long step, Err *err) {
    const Recipe *r = t->recipe;
    Round round = round_of(r, step);
    double t0 = clock_seconds();
    if (round.first != t->round && !round_begin(t, round.first, err)) return false;
    double t1 = clock_seconds();
    AdvantageReport advantage;
    round_advantages(t, &advantage);
    if (step == t->round) t->state.num_tokens += round_tokens(t);
    if (!judged_enough(t, err)) return false;
    Slice slice;
    bool good = slice_of(t, round, &slice, err);
    bool same = true;
    if (good && step <= t->stored_last) good = same_run(t, dev_path(t->model.dev), &same, err);
    double rate = r->learning_rate * schedule_factor(&t->schedule, step - 1);
    LearnReport learn;
    LossConf loss = t->objective.loss;
    loss.entropy_coef = entropy_coef(r, &t->state.entropy);
    loss.key = rng_mix(rng_mix((uint64_t)r->seed, 0x636c6970), (uint64_t)step);
    report_progress(t->report, "learning", 0, 0);
    if (good && t->audit && step == t->round) good = show_round(t, step, err);
    good = good &&
           learner_update(t->learner, slice.groups, slice.extra, slice.n, &loss, rate, step, &learn, err) &&
           same_logp(t, &learn, step, err);
    double t2 = clock_seconds();
    Numbers metrics = {0}, seconds = {0};
    if (good) {
        t->state.step = step, t->state.version = t->model.policy->version,
        t->state.next_place = t->collector.next_place;
        t->state.weight_hash = weights_hash(t->model.policy);
        follow(t, step, &learn);
        step_metrics(&metrics, t, &advantage, &learn, rate, step);
        number_add(&seconds, "sample", t1 - t0);
        number_add(&seconds, "forward", learn.forward_seconds);
        number_add(&seconds, "head", learn.head_seconds);
        number_add(&seconds, "backward", learn.backward_seconds);
        number_add(&seconds, "optimizer", learn.optimizer_seconds);
        number_add(&seconds, "learn", t2 - t1);
        number_add(&seconds, "step", clock_seconds() - t0);
        good = keep_step(t, step, same, &slice, &metrics, &seconds, err);
    }
    if (good && !t->audit)
        report_of_step(t, step, &metrics,
                       step == t->round ? number_of(&metrics, "completions/mean_length") *
                                              (double)(t->n_groups * r->num_generations)
                                        : 0,
                       clock_seconds() - t0);
    arena_free(&slice.arena);
    arena_free(&metrics.arena);
    return good;
}

/* ---- the run ---- */

static bool save(Trainer *t, Err *err) {
    const char *jinja = t->recipe->chat_template;
    CheckpointParts parts = {t->model.policy, t->learner,
                             t->model.tok,    jinja ? jinja : model_file_chat_template(t->model.file),
                             t->form.text,    t->recipe->sync_ref_model ? t->reference : NULL};
    report_progress(t->report, "saving", 0, 0);
    if (!metrics_sync(t->metrics, err)) return false;
    if (!checkpoint_save(t->recipe->output_dir, &t->state, &parts, err)) return false;
    checkpoint_prune(t->recipe->output_dir, t->recipe->save_total_limit, t->state.best_step);
    t->saved = t->state.step;
    return true;
}

static void show_measuring(void *self, long done, long total) {
    report_progress(((Trainer *)self)->report, "measuring", done, total);
}

/* Answers to the evaluation's problems at the present weights. The random numbers are the same at every step. */
static bool evaluate_now(Trainer *t, StoreEval *eval, Err *err) {
    const Recipe *r = t->recipe;
    EvalConf conf = {.name = t->eval_name,
                     .source = t->eval_source,
                     .form = t->form,
                     .tok = t->model.tok,
                     .engine = t->engine,
                     .max_tokens = t->plan.engine.max_tokens,
                     .reward = t->reward,
                     .weights = r->reward_weights.at,
                     .num_samples = (int)r->num_generations_eval,
                     .temperature = r->eval_temperature,
                     .top_p = 1,
                     .max_new = (int)r->max_completion_length,
                     .stop = r->stop_strings.n ? r->stop_strings.at : NULL,
                     .key = rng_mix((uint64_t)r->seed, 0x6d656173757265),
                     .progress = show_measuring,
                     .self = t};
    Evaluation evaluation = {0};
    engine_exact(t->engine, true); /* what is measured is what is saved */
    bool good = evaluate(&conf, &evaluation, err);
    engine_exact(t->engine, false);
    if (!good) return false;
    *eval = evaluation.eval;
    eval->step = t->state.step;
    return true;
}

/* What the best checkpoint is chosen by. */
static double eval_value(const Trainer *t, const StoreEval *eval) {
    if (strcmp(t->recipe->metric_for_best_model, "eval_reward") != 0) return eval->accuracy;
    double sum = 0;
    int n = 0;
    for (int i = 0; i < eval->n_answers; i++)
        if (!isnan(eval->answers[i].reward)) sum += eval->answers[i].reward, n++;
    return n ? sum / n : 0;
}

/* An evaluation at the present weights; where the store has it already, it is read. */
static bool measure(Trainer *t, Err *err) {
    if (!t->eval_source) return true;
    long step = t->state.step;
    StoreEval *eval = step == 0 ? &t->before : &t->after;
    bool found;
    store_eval_free(eval);
    *eval = (StoreEval){0};
    if (!store_eval_read(t->store, t->run.id, step, t->eval_name, eval, &found, err)) return false;
    if (!found && (!evaluate_now(t, eval, err) || !store_eval_write(t->store, t->run.id, eval, err))) return false;
    const char *when = step == 0 ? "before" : "evaluation";
    if (eval->n == 0)
        report_note(t->report, "%s: none of %d answers could be judged", when, eval->n_answers);
    else
        report_note(
            t->report, "%s: accuracy %.1f %% on %d unseen problems (95 %%: %.1f to %.1f), %.1f tokens an answer",
            when, 100 * eval->accuracy, eval->n, 100 * eval->ci_low, 100 * eval->ci_high, eval->mean_length);
    double value = eval_value(t, eval);
    if (step > 0 && !isnan(value) && (t->state.best_step == 0 || value > t->state.best_value))
        t->state.best_step = step, t->state.best_value = value;
    return true;
}

bool train_run(Trainer *t, bool *finished, Err *err) {
    const Recipe *r = t->recipe;
    long eval_every = recipe_every(r->eval_steps, t->steps), save_every = recipe_every(r->save_steps, t->steps);
    *finished = false;
    if (t->state.step == 0 && r->eval_on_start && !measure(t, err)) return false;
    for (long step = t->state.step + 1; step <= t->steps; step++) {
        if (*t->stop) return t->saved == t->state.step || t->state.step == 0 || save(t, err);
        if (!train_step(t, step, err)) return false;
        bool last = step == t->steps;
        if ((last || (eval_every > 0 && step % eval_every == 0)) && !measure(t, err)) return false;
        if ((last || (save_every > 0 && step % save_every == 0) || t->state.best_step == step) && !save(t, err))
            return false;
    }
    *finished = true;
    return true;
}

void train_summary(Trainer *t) {
    char *checkpoint = arena_format(&t->arena, "%s/checkpoint-%ld", t->recipe->output_dir, t->state.step);
    bool both = t->eval_source && t->before.n > 0 && t->after.n > 0;
    report_summary(t->report, both ? &t->before : NULL, both ? &t->after : NULL, t->recipe->output_dir,
                   checkpoint);
}
