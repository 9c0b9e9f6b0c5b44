/* train_from.c: from_store: rounds whose answers another run has sampled and stored, in the place of sampling.
 * They are judged by this run's rewards, copied into its store, and learnt from with the importance weights of
 * foreign samples (train_round.c). Tested by tests/cmd_past.sh. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/store_internal.h"
#include "rl/text.h"
#include "rl/train_parts.h"

/* What the answers were drawn with must be what the learner computes their log-probabilities with. */
static bool same_sampling(const Recipe *from, const Recipe *r, Err *err) {
    const struct {
        const char *name;
        double there, here;
    } keys[] = {{"num_generations", (double)from->num_generations, (double)r->num_generations},
                {"temperature", from->temperature, r->temperature},
                {"top_k", (double)from->top_k, (double)r->top_k},
                {"top_p", from->top_p, r->top_p},
                {"min_p", from->min_p, r->min_p}};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (keys[i].there != keys[i].here)
            return err_set(err, "from_store %s: its answers have %s %g and the recipe says %g: set --%s %g",
                           r->from_store, keys[i].name, keys[i].there, keys[i].here, keys[i].name, keys[i].there);
    return true;
}

bool from_open(Trainer *t, Err *err) {
    const Recipe *r = t->recipe;
    int64_t n;
    if (!past_open(&t->from, r->from_store, false, err) || !same_sampling(&t->from.recipe, r, err)) return false;
    if (!store_ask_number(t->from.store, err, &n, "SELECT count(*) FROM groups WHERE run = ?", "l",
                          t->from.run.id))
        return false;
    t->from_groups = (long)n;
    return t->from_groups >= r->generation_groups ||
           err_set(err, "from_store %s: holds %ld groups and a step wants %ld", r->from_store, t->from_groups,
                   r->generation_groups);
}

/* Where the group of this number stands, counted through all steps. */
static bool place_find(Trainer *t, long number, long *step, int *position, Err *err) {
    Store *store = t->from.store;
    sqlite3_stmt *row =
        store_ask(store, err,
                  "SELECT step, position FROM groups WHERE run = ? ORDER BY step, position LIMIT 1 "
                  "OFFSET ?",
                  "ll", t->from.run.id, (int64_t)number);
    int got = row ? store_row(store, row, err) : -1;
    if (got != 1)
        return got < 0 ? false : err_set(err, "from_store %s: has fewer groups now", t->recipe->from_store);
    *step = (long)sqlite3_column_int64(row, 0), *position = sqlite3_column_int(row, 1);
    store_end(row);
    return true;
}

/* A sample of another tokenizer would teach nonsense; one that is too long has no room. */
static bool sample_fits(const Trainer *t, const StoreSample *s, long step, Err *err) {
    const Sample *x = &s->sample;
    Buf bytes = {0}, text = {0};
    bool good =
        x->n - x->n_prompt <= t->recipe->max_completion_length && x->n_prompt <= t->recipe->max_prompt_length;
    if (!good)
        return err_set(err,
                       "from_store %s: an answer of step %ld has %d + %d tokens: raise max_prompt_length or "
                       "max_completion_length",
                       t->recipe->from_store, step, x->n_prompt, x->n - x->n_prompt);
    for (int i = 0; i < x->n; i++) good = good && x->tok[i] >= 0 && x->tok[i] < t->model.policy->conf.vocab;
    if (good) tokenizer_decode(t->model.tok, x->tok + x->n_prompt, x->n - x->n_prompt, true, &bytes);
    text_utf8(&text, bytes.p ? bytes.p : "", bytes.n);
    good = good && text.n == s->text_n && (text.n == 0 || memcmp(text.p, s->text, text.n) == 0);
    buf_free(&bytes);
    buf_free(&text);
    return good ||
           err_set(err, "from_store %s: the tokens of step %ld do not spell its text in this model's tokenizer",
                   t->recipe->from_store, step);
}

/* The group that comes next, in the round's arena; steps[] holds what was read of the other store so far. */
static bool next_group(Trainer *t, StoreGroup *group, StoreStep **steps, int *n_steps, Err *err) {
    long step = 0;
    int position = 0, at = 0;
    uint64_t place = t->collector.next_place++;
    if (!place_find(t, (long)(place % (uint64_t)t->from_groups), &step, &position, err)) return false;
    while (at < *n_steps && (*steps)[at].step != step) at++;
    if (at == *n_steps) {
        *steps = mem_grow(*steps, (size_t)*n_steps + 1, sizeof **steps);
        if (!store_step_read(t->from.store, t->from.run.id, step, &(*steps)[at], err)) return false;
        ++*n_steps;
    }
    if (position >= (*steps)[at].n_groups)
        return err_set(err, "from_store %s: damaged at step %ld", t->recipe->from_store, step);
    *group = (*steps)[at].groups[position];
    group->place = place;
    for (int i = 0; i < group->n_samples; i++) {
        StoreSample *s = &group->samples[i];
        if (!sample_fits(t, s, step, err)) return false;
        s->id = s->parent = 0, s->advantage = NAN, s->sample.index = i, s->old_logp = NULL;
    }
    if (group->n_samples != t->recipe->num_generations)
        return err_set(err, "from_store %s: a group of step %ld has %d answers", t->recipe->from_store, step,
                       group->n_samples);
    return true;
}

bool from_round(Trainer *t, int n, Err *err) {
    bool good = true;
    t->groups = arena_alloc(&t->round_arena, (size_t)n, sizeof *t->groups);
    for (int g = 0; good && g < n; g++) good = next_group(t, &t->groups[g], &t->from_steps, &t->n_from_steps, err);
    t->n_groups = t->all_groups = n;
    return good && judge_groups(t->reward, t->recipe, t->groups, n, &t->round_arena, err);
}

void from_round_free(Trainer *t) {
    for (int i = 0; i < t->n_from_steps; i++) store_step_free(&t->from_steps[i]);
    free(t->from_steps);
    t->from_steps = NULL, t->n_from_steps = 0;
}
