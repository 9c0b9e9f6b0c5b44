/* collect.c: see collect.h. */
#include "rl/collect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/prompt.h"

/* ---- problems ---- */

static void *arena_copy(Arena *arena, const void *from, size_t count, size_t size) {
    void *to = arena_alloc(arena, count, size);
    if (count) memcpy(to, from, count * size);
    return to;
}

/* The next problem whose prompt is short enough, as a group without samples. */
static bool next_group(Collector *c, StoreGroup *group, Arena *arena, Err *err) {
    Prompt prompt = {0};
    const Recipe *recipe = c->recipe;
    bool good = true, found = false;
    for (long tries = 0; good && !found; tries++, c->next_place++) {
        if (tries > source_size(c->source)) {
            good = err_set(err, "%s: every prompt is longer than max_prompt_length %ld; raise it",
                           recipe->dataset_name, recipe->max_prompt_length);
            break;
        }
        const Problem *problem = source_at(c->source, c->next_place);
        good = prompt_make(&prompt, c->tok, &c->form, problem->problem, err);
        if (!good || prompt.n > recipe->max_prompt_length) continue;
        found = true;
        *group = (StoreGroup){.problem = *problem,
                              .source = recipe->dataset_name,
                              .place = c->next_place,
                              .prompt = arena_text(arena, prompt.text.p, prompt.text.n),
                              .prompt_tok = arena_copy(arena, prompt.ids, (size_t)prompt.n, sizeof(int)),
                              .n_prompt = prompt.n,
                              .n_samples = (int)recipe->num_generations};
        group->samples = arena_alloc(arena, (size_t)group->n_samples, sizeof *group->samples);
        if (strcmp(recipe->advantage_estimator, "remax") == 0)
            group->baseline = arena_alloc(arena, 1, sizeof *group->baseline);
    }
    prompt_free(&prompt);
    return good;
}

/* ---- samples ---- */

static bool submit_group(Collector *c, const StoreGroup *group, int64_t ticket, Err *err) {
    const Recipe *r = c->recipe;
    Request request = {.ticket = ticket,
                       .prompt = group->prompt_tok,
                       .n_prompt = group->n_prompt,
                       .group = group->n_samples,
                       .key = group->key,
                       .temperature = (real)r->temperature,
                       .top_k = (int)r->top_k,
                       .top_p = (real)r->top_p,
                       .min_p = (real)r->min_p,
                       .max_new = (int)r->max_completion_length,
                       .stop = r->stop_strings.n ? r->stop_strings.at : NULL};
    if (!engine_submit(c->engine, &request, err)) return false;
    if (!group->baseline) return true;
    request.ticket = ~ticket, request.group = 1; /* the answer that samples are compared with */
    request.temperature = 0, request.top_k = 0, request.top_p = 1, request.min_p = 0;
    return engine_submit(c->engine, &request, err);
}

/* The place of a ticket of the judges: a group's samples, and then its baseline. */
static StoreSample *sample_at(const Collector *c, StoreGroup *groups, int64_t ticket) {
    int size = (int)c->recipe->num_generations;
    StoreGroup *group = &groups[ticket / (size + 1)];
    return ticket % (size + 1) == size ? group->baseline : &group->samples[ticket % (size + 1)];
}

/* Hands an answer to the judges. */
static bool judge(Collector *c, const StoreGroup *group, StoreSample *s, int64_t group_number, int64_t ticket,
                  int parts, Arena *arena, Err *err) {
    s->scores = arena_alloc(arena, (size_t)parts, sizeof *s->scores);
    RewardItem item = {.problem = group->problem.problem,
                       .kind = group->problem.kind,
                       .prompt = group->prompt,
                       .completion = s->text,
                       .answer = group->problem.answer,
                       .fields = group->problem.fields,
                       .group = group_number,
                       .index = s->sample.index,
                       .n_tokens = s->sample.n - s->sample.n_prompt,
                       .finish = finish_name(s->sample.finish)};
    return reward_submit(c->reward, &item, 1, ticket, err);
}

/* Moves a finished sample into its group, decodes it and hands it to the judges. */
static bool take_sample(Collector *c, Sample *from, StoreGroup *groups, int parts, Arena *arena, Err *err) {
    bool baseline = from->ticket < 0;
    int64_t g = baseline ? ~from->ticket : from->ticket;
    StoreGroup *group = &groups[g];
    int64_t ticket = g * (group->n_samples + 1) + (baseline ? group->n_samples : from->index);
    StoreSample *s = sample_at(c, groups, ticket);
    s->sample = *from;
    if (baseline) s->sample.index = group->n_samples;
    size_t n = (size_t)from->n;
    s->sample.tok = arena_copy(arena, from->tok, n, sizeof *from->tok);
    s->sample.logp = arena_copy(arena, from->logp, n, sizeof *from->logp);
    s->sample.draw_logp = arena_copy(arena, from->draw_logp, n, sizeof *from->draw_logp);
    if (from->kept) s->sample.kept = arena_copy(arena, from->kept, from->kept_n, 1);
    Buf text = {0};
    int new_tokens = from->n - from->n_prompt;
    tokenizer_decode(c->tok, s->sample.tok + from->n_prompt, new_tokens, true, &text);
    s->text = arena_text(arena, text.p ? text.p : "", text.n);
    s->text_n = text.n;
    s->stage = baseline ? "baseline" : "train";
    s->advantage = NAN;
    buf_free(&text);
    sample_free(from);
    return judge(c, group, s, g, ticket, parts, arena, err);
}
/* ---- scores ---- */

/* Takes the scores that are ready, waiting up to `seconds` for the first one. False and err when a judge fails. */
static bool take_scores(Collector *c, double seconds, StoreGroup *groups, Arena *arena, Err *err) {
    int64_t ticket;
    int part, got;
    RewardScore score;
    while ((got = reward_poll(c->reward, seconds, &ticket, &part, &score, err)) > 0) {
        RewardScore *to = &sample_at(c, groups, ticket)->scores[part];
        *to = score;
        to->reason = score.reason ? arena_text(arena, score.reason, strlen(score.reason)) : NULL;
        to->detail = score.detail ? arena_text(arena, score.detail, strlen(score.detail)) : NULL;
        reward_score_free(&score);
        seconds = 0;
    }
    return got == 0;
}

/* The sample's reward and class: what its parts say together. */
void collect_reward(const Recipe *recipe, StoreSample *s) {
    s->reward = reward_total(s->scores, recipe->reward_weights.at, recipe->reward_funcs.n, &s->class);
}

RewardConf reward_conf_of(const Recipe *recipe, RewardShape *shape) {
    *shape = (RewardShape){.overlong_max = recipe->max_completion_len,
                           .overlong_cache = recipe->soft_punish_cache,
                           .cosine_max = recipe->cosine_max_len,
                           .cosine_min_wrong = recipe->cosine_min_value_wrong,
                           .cosine_max_wrong = recipe->cosine_max_value_wrong,
                           .cosine_min_correct = recipe->cosine_min_value_correct,
                           .cosine_max_correct = recipe->cosine_max_value_correct,
                           .repetition_n = recipe->repetition_n_grams,
                           .repetition_penalty = recipe->repetition_max_penalty,
                           .language = recipe->reward_language};
    return (RewardConf){.shape = shape,
                        .kinds = recipe->reward_kinds.n ? recipe->reward_kinds.at : NULL,
                        .allow_weak_sandbox = recipe->allow_weak_sandbox,
                        .exec_workers = (int)recipe->reward_exec_workers,
                        .exec_parallel = (int)recipe->reward_exec_parallel,
                        .exec_deadline = recipe->reward_exec_deadline};
}

bool judge_groups(Reward *reward, const Recipe *recipe, StoreGroup *groups, int n, Arena *arena, Err *err) {
    Collector c = {.recipe = recipe, .reward = reward};
    int parts = reward_parts(reward), size = (int)recipe->num_generations;
    for (int g = 0; g < n; g++) {
        StoreGroup *group = &groups[g];
        CHECK(group->n_samples == size, "%d samples in a group of %d", group->n_samples, size);
        for (int i = 0; i < size + (group->baseline != NULL); i++) {
            StoreSample *s = i < size ? &group->samples[i] : group->baseline;
            if (!judge(&c, group, s, g, (int64_t)g * (size + 1) + i, parts, arena, err)) return false;
        }
        if (!take_scores(&c, 0, groups, arena, err)) return false;
    }
    while (reward_pending(reward) > 0)
        if (!take_scores(&c, 1, groups, arena, err)) return false;
    for (int g = 0; g < n; g++) {
        for (int i = 0; i < size; i++) collect_reward(recipe, &groups[g].samples[i]);
        if (groups[g].baseline) collect_reward(recipe, groups[g].baseline);
    }
    return true;
}

bool collect(Collector *c, uint64_t key, StoreGroup *groups, int n, Arena *arena, Err *err) {
    int parts = reward_parts(c->reward);
    long done = 0, total = 0;
    for (int g = 0; g < n; g++) {
        if (!next_group(c, &groups[g], arena, err)) return false;
        groups[g].key = rng_mix(key, groups[g].place);
        total += groups[g].n_samples + (groups[g].baseline != NULL);
        if (!submit_group(c, &groups[g], g, err)) return false;
    }
    while (!engine_idle(c->engine)) {
        Sample sample;
        engine_step(c->engine);
        for (; engine_take(c->engine, &sample); done++)
            if (!take_sample(c, &sample, groups, parts, arena, err)) return false;
        if (!take_scores(c, 0, groups, arena, err)) return false;
        if (c->progress) c->progress(c->self, done, total);
    }
    while (reward_pending(c->reward) > 0)
        if (!take_scores(c, 1, groups, arena, err)) return false;
    for (int g = 0; g < n; g++) {
        for (int i = 0; i < groups[g].n_samples; i++) collect_reward(c->recipe, &groups[g].samples[i]);
        if (groups[g].baseline) collect_reward(c->recipe, groups[g].baseline);
    }
    return true;
}

/* ---- groups that teach ---- */

/* Whether two judged answers of the group differ: in their class, or in their reward. */
static bool has_signal(const StoreGroup *group, bool by_class) {
    const StoreSample *first = NULL;
    for (int i = 0; i < group->n_samples; i++) {
        const StoreSample *s = &group->samples[i];
        if (s->class == SCORE_UNJUDGED) continue;
        if (!first) first = s;
        if (by_class ? s->class != first->class : s->reward != first->reward) return true;
    }
    return false;
}

bool collect_signal(Collector *c, uint64_t key, StoreGroup **groups, int *all, int n, Arena *arena, Err *err) {
    const char *how = c->recipe->dynamic_sampling;
    bool any = strcmp(how, "none") == 0, by_class = strcmp(how, "accuracy") == 0;
    int most = any ? n : (int)fmin((double)c->recipe->max_generation_batches * n, 1 << 28), drawn = 0, kept = 0;
    StoreGroup *good = arena_alloc(arena, (size_t)n, sizeof *good), *bad = NULL, *wave = NULL;
    while (kept < n && drawn < most) {
        int count = n - kept < most - drawn ? n - kept : most - drawn;
        wave = mem_grow(wave, (size_t)count, sizeof *wave);
        if (!collect(c, key, wave, count, arena, err)) {
            free(wave);
            free(bad);
            return false;
        }
        bad = mem_grow(bad, (size_t)(drawn - kept + count), sizeof *bad);
        for (int i = 0; i < count; i++, drawn++) {
            if (any || has_signal(&wave[i], by_class))
                good[kept++] = wave[i];
            else
                bad[drawn - kept] = wave[i];
        }
    }
    *groups = arena_alloc(arena, (size_t)drawn, sizeof **groups);
    memcpy(*groups, good, (size_t)kept * sizeof **groups);
    if (drawn > kept) memcpy(*groups + kept, bad, (size_t)(drawn - kept) * sizeof **groups);
    *all = drawn;
    free(wave);
    free(bad);
    return true;
}

PartStats part_stats(const StoreGroup *groups, int n, int part) {
    PartStats stats = {0};
    double sum = 0, squares = 0; /* about the mean, in a second pass */
    for (int pass = 0; pass < 2; pass++) {
        for (int g = 0; g < n; g++)
            for (int i = 0; i < groups[g].n_samples; i++) {
                const RewardScore *score = &groups[g].samples[i].scores[part];
                if (!reward_asked(score)) continue;
                if (pass == 0) stats.unjudged += score->class == SCORE_UNJUDGED;
                if (score->class == SCORE_UNJUDGED) continue;
                if (pass == 0)
                    stats.judged++, stats.right += score->class == SCORE_RIGHT, sum += score->value;
                else
                    squares += (score->value - stats.mean) * (score->value - stats.mean);
            }
        stats.mean = stats.judged ? sum / stats.judged : NAN;
    }
    stats.std = stats.judged > 1 ? sqrt(squares / (stats.judged - 1)) : 0;
    return stats;
}
