/* replay.c: see replay.h. */
#include "rl/replay.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/prompt.h"
#include "rl/text.h"
#include "rl/train_parts.h"

enum { FAULTS_SHOWN = 20 };

typedef struct {
    FILE *out;
    long wanted; /* the step that was asked for */
    bool sample;
    bool same_path; /* the bits of all steps so far can be had here */
    bool path_said;
    int faults, values_off;
    double logp_diff;       /* on another path: how far apart */
    long compared, numbers; /* samples, and metrics of steps */
} Replay;

/* ---- faults ------------------------------------------------------------------------------------------------- */

static void fault(Replay *replay, long step, const char *format, ...) FORMAT_LIKE(3, 4);
static void fault(Replay *replay, long step, const char *format, ...) {
    va_list args;
    if (replay->faults++ >= FAULTS_SHOWN) return;
    fprintf(replay->out, "step %ld: ", step);
    va_start(args, format);
    vfprintf(replay->out, format, args);
    va_end(args);
    fputc('\n', replay->out);
}

static const char *sample_name(Arena *arena, int group, const StoreSample *s) {
    return arena_format(arena, "group %d, sample %d (id %lld)", group, s->sample.index, (long long)s->id);
}

/* ---- a sample by itself ------------------------------------------------------------------------------------- */

/* Whether the stored text is what the stored tokens spell. */
static bool text_fits(const Trainer *t, const StoreSample *s) {
    Buf bytes = {0}, text = {0};
    tokenizer_decode(t->model.tok, s->sample.tok + s->sample.n_prompt, s->sample.n - s->sample.n_prompt, true,
                     &bytes);
    text_utf8(&text, bytes.p ? bytes.p : "", bytes.n);
    bool same = text.n == s->text_n && (text.n == 0 || memcmp(text.p, s->text, text.n) == 0);
    buf_free(&bytes);
    buf_free(&text);
    return same;
}

/* Its log-probabilities against those that the weights give now: names the first token where they part. A token
 * that was altered parts from its place on, as all that follows was sampled after another; a log-probability that
 * was altered stands alone. False when they differ. */
static bool logps_fit(Replay *replay, long step, const char *who, const StoreSample *s, const real *stored,
                      const real *now, bool text_good) {
    int n = s->sample.n - s->sample.n_prompt, first = -1, apart = 0;
    for (int i = 0; i < n; i++) {
        double diff = fabs((double)stored[i] - (double)now[i]);
        if (diff > replay->logp_diff || isnan(diff)) replay->logp_diff = diff;
        if (stored[i] == now[i]) continue;
        if (apart++ == 0) first = i;
    }
    if (apart == 0 || !replay->same_path) return true;
    const char *what = !text_good            ? "its tokens were altered, at or before"
                       : apart < (n + 1) / 2 ? "a log-probability was altered:"
                                             : "a token or a log-probability was altered:";
    fault(replay, step, "%s: %s token %d of %d (id %d): stored %.9g, computed %.9g; %d of %d differ", who, what,
          first, n, s->sample.tok[s->sample.n_prompt + first], (double)stored[first], (double)now[first], apart,
          n);
    return false;
}

/* Whether its reward is the weighted sum of its scores, less what kl_in_reward took off. */
static void reward_fits(Replay *replay, long step, const char *who, const Recipe *r, const StoreSample *s,
                        double penalty) {
    StoreSample fresh = *s;
    collect_reward(r, &fresh);
    if (r->kl_in_reward && r->beta != 0 && fresh.class == s->class) return; /* the KL is in it, too */
    if (penalty != 0) fresh.reward -= penalty;
    if (penalty != 0 && !replay->same_path) return;
    if (fresh.class == s->class && (fresh.reward == s->reward || (isnan(fresh.reward) && isnan(s->reward))))
        return;
    fault(replay, step, "%s: its reward is stored as %g (%s), and its scores give %g (%s)", who, s->reward,
          score_class_name(s->class), fresh.reward, score_class_name(fresh.class));
}

static void prompt_fits(Replay *replay, const Trainer *t, long step, int group, const StoreGroup *g) {
    Prompt prompt = {0};
    Err err = {0};
    if (prompt_make(&prompt, t->model.tok, &t->form, g->problem.problem, &err) &&
        (prompt.n != g->n_prompt || memcmp(prompt.ids, g->prompt_tok, (size_t)prompt.n * sizeof(int)) != 0))
        fault(replay, step, "group %d: its prompt is not what the template makes of its problem", group);
    prompt_free(&prompt);
}

/* ---- sampled and judged anew -------------------------------------------------------------------------------- */

static bool scores_equal(const RewardScore *a, const RewardScore *b) {
    return a->class == b->class && (a->value == b->value || (isnan(a->value) && isnan(b->value)));
}

static bool segments_equal(const Sample *a, const Sample *b) {
    bool same = a->n_segments == b->n_segments;
    for (int i = 0; same && i < a->n_segments; i++) {
        const Segment *x = &a->segments[i], *y = &b->segments[i];
        same = x->start == y->start && x->n == y->n && x->role == y->role && x->trained == y->trained &&
               x->version == y->version;
    }
    return same;
}

static void sample_equal(Replay *replay, const Trainer *t, long step, const char *who, const StoreSample *a,
                         const StoreSample *b) {
    int n = a->sample.n < b->sample.n ? a->sample.n : b->sample.n, at = a->sample.n_prompt;
    while (at < n && a->sample.tok[at] == b->sample.tok[at]) at++;
    if (at < n || a->sample.n != b->sample.n) {
        fault(replay, step, "%s: sampled anew, it differs at token %d: stored id %d, sampled %d", who,
              at - a->sample.n_prompt, at < a->sample.n ? a->sample.tok[at] : -1,
              at < b->sample.n ? b->sample.tok[at] : -1);
        return;
    }
    for (int i = a->sample.n_prompt; i < n; i++)
        if (a->sample.logp[i] != b->sample.logp[i] || a->sample.draw_logp[i] != b->sample.draw_logp[i]) {
            fault(replay, step, "%s: sampled anew, the log-probability of token %d is %.9g where %.9g is stored",
                  who, i - a->sample.n_prompt, (double)b->sample.logp[i], (double)a->sample.logp[i]);
            return;
        }
    const char *what = a->sample.finish != b->sample.finish      ? "the way it ended"
                       : !segments_equal(&a->sample, &b->sample) ? "who wrote its tokens"
                       : a->sample.kept_n != b->sample.kept_n ||
                               (a->sample.kept_n && memcmp(a->sample.kept, b->sample.kept, a->sample.kept_n) != 0)
                           ? "what it was drawn from (kept)"
                           : NULL;
    if (what) fault(replay, step, "%s: sampled anew, %s is not what is stored", who, what);
    for (int p = 0; !what && p < t->recipe->reward_funcs.n; p++)
        if (!scores_equal(&a->scores[p], &b->scores[p])) {
            fault(replay, step, "%s: judged anew by %s, it gets %g (%s) where %g (%s) is stored", who,
                  t->recipe->reward_funcs.at[p], b->scores[p].value, score_class_name(b->scores[p].class),
                  a->scores[p].value, score_class_name(a->scores[p].class));
            return;
        }
}

/* The round sampled and judged once more, by the code that did it first: all groups that were drawn for it, also
 * those that dynamic sampling passed over, in the order of their problems. */
static bool sampled_again(Replay *replay, Trainer *t, long step, Err *err) {
    Arena arena = {0};
    int n = t->all_groups;
    StoreGroup *groups = arena_alloc(&arena, (size_t)n, sizeof *groups);
    uint64_t next = t->collector.next_place;
    t->collector.next_place = t->groups[0].place;
    for (int g = 1; g < n; g++)
        if (t->groups[g].place < t->collector.next_place) t->collector.next_place = t->groups[g].place;
    bool good = collect(&t->collector, round_key(t->recipe, step), groups, n, &arena, err);
    t->collector.next_place = next;
    for (int g = 0; good && g < n; g++) {
        const StoreGroup *stored = &t->groups[g], *fresh = NULL;
        for (int k = 0; k < n; k++)
            if (groups[k].place == stored->place) fresh = &groups[k];
        if (!fresh || strcmp(fresh->problem.problem, stored->problem.problem) != 0) {
            fault(replay, step, "group %d: its problem is not the one that the data set has there now", g);
            continue;
        }
        const char *was = stored->problem.answer ? stored->problem.answer : "",
                   *is = fresh->problem.answer ? fresh->problem.answer : "";
        const char *what = strcmp(was, is) != 0                         ? "the answer that it expects"
                           : stored->key != fresh->key                  ? "the key of its random numbers"
                           : strcmp(stored->prompt, fresh->prompt) != 0 ? "its prompt's text"
                                                                        : NULL;
        if (what) fault(replay, step, "group %d: drawn anew, %s is not what is stored", g, what);
        for (int i = 0; i < fresh->n_samples && i < stored->n_samples; i++)
            sample_equal(replay, t, step, sample_name(&arena, g, &stored->samples[i]), &stored->samples[i],
                         &fresh->samples[i]);
    }
    arena_free(&arena);
    return good;
}

/* ---- instruction sets ----------------------------------------------------------------------------------------
 */

/* The instruction set that the step was computed on, where this machine has it; else one that gives the same bits,
 * else the best one. */
static bool path_choose(Past *past, long step, Err *err) {
    const char *names[8];
    DType type = strcmp(past->recipe.dtype, "float32") == 0 ? K_REAL : K_BF16;
    StoreStep row;
    if (!store_step_read(past->store, past->run.id, step, &row, err)) return false;
    past->recipe.cpu_path = "auto";
    for (int n = dev_paths(names), i = 0; i < n; i++)
        if (dev_same_bits(names[i], row.path, type) && strcmp(past->recipe.cpu_path, row.path) != 0)
            past->recipe.cpu_path = names[i];
    if (strcmp(past->recipe.cpu_path, "auto") != 0) past->recipe.device = "cpu";
    store_step_free(&row);
    return true;
}

/* Whether the step's bits can be had here, as those of all before it. */
static void path_check(Replay *replay, const Trainer *t, long step) {
    const char *here = dev_path(t->model.dev), *there = t->stored.path;
    if (!replay->same_path || strcmp(here, there) == 0) return;
    replay->same_path = path_fits(t, there);
    if (!replay->same_path)
        fprintf(replay->out,
                "step %ld was computed on path %s and this is %s, which rounds otherwise: numbers are compared "
                "loosely, bits not; %s%s\n",
                step, there, here,
                strncmp(there, "cuda", 4) == 0 ? "its GPU has them" : "they can be had with --cpu_path ",
                strncmp(there, "cuda", 4) == 0 ? ""
                : strcmp(there, "amx") == 0    ? "amx_plain"
                                               : there);
    else if (!replay->path_said)
        fprintf(replay->out, "step %ld was computed on path %s, whose bits %s has, too\n", step, there, here);
    replay->path_said = true;
}

/* ---- the trainer's calls ------------------------------------------------------------------------------------ */

static bool before(void *self, Trainer *t, long step, const BatchGroup *groups, int n, Err *err) {
    Replay *replay = self;
    Arena arena = {0};
    path_check(replay, t, step);
    int faults = replay->faults;
    double weight = t->objective.kl_reward;
    double *kl = arena_alloc(&arena, (size_t)n * (size_t)t->recipe->num_generations, sizeof *kl);
    if (weight != 0 && !round_kl_sums(t, kl, err)) {
        arena_free(&arena);
        return false;
    }
    learner_logp(t->learner, t->model.policy, groups, n);
    for (int g = 0; g < n; g++) {
        const StoreGroup *group = &t->groups[g];
        prompt_fits(replay, t, step, g, group);
        for (int i = 0; i < group->n_samples; i++, replay->compared++) {
            const StoreSample *s = &group->samples[i];
            const char *who = sample_name(&arena, g, s);
            bool text_good = text_fits(t, s);
            const real *drawn = (s->sample.kept ? s->sample.draw_logp : s->sample.logp) + s->sample.n_prompt;
            /* What other weights sampled has their log-probabilities, and may have the learner's beside them. */
            bool others = t->recipe->from_store || t->model.int8;
            bool good = (others && !s->old_logp) ||
                        logps_fit(replay, step, who, s, others ? s->old_logp : drawn, groups[g].samples[i].logp,
                                  text_good);
            if (good && !text_good) fault(replay, step, "%s: its text was altered: its tokens spell another", who);
            reward_fits(replay, step, who, t->recipe, s, weight * kl[g * group->n_samples + i]);
        }
    }
    arena_free(&arena);
    if (!replay->sample || step > replay->wanted || step + t->recipe->updates_per_generation <= replay->wanted)
        return true;
    if (!replay->same_path || t->recipe->from_store) return true;
    bool good = sampled_again(replay, t, step, err);
    if (good && replay->faults == faults)
        fprintf(replay->out, "step %ld: %d groups sampled and judged anew: all as stored\n", step, t->all_groups);
    return good;
}

/* NULL: the run did not store it, as its whet did not know it. */
static const double *metric_of(const StoreStep *row, const char *name) {
    for (int i = 0; i < row->n_metrics; i++)
        if (strcmp(row->metrics[i].name, name) == 0) return &row->metrics[i].value;
    return NULL;
}

static bool same_number(const Replay *replay, double a, double b) {
    if (a == b || (isnan(a) && isnan(b))) return true;
    return !replay->same_path && fabs(a - b) <= 0.05 * fmax(fabs(a), fabs(b)) + 1e-3;
}

/* With which advantage the step consumed a sample; NaN: it did not. */
static double advantage_stored(const StoreStep *row, int64_t id) {
    for (int g = 0; g < row->n_groups; g++)
        for (int i = 0; i < row->groups[g].n_samples; i++)
            if (row->groups[g].samples[i].id == id) return row->groups[g].samples[i].advantage;
    for (int i = 0; i < row->n_uses; i++)
        if (row->uses[i].sample == id) return row->uses[i].advantage;
    return NAN;
}

/* Against the advantages that the rewards of the groups give. */
static void advantages_fit(Replay *replay, const Trainer *t, long step, const StoreStep *row) {
    Arena arena = {0};
    int slices = (int)(t->recipe->generation_groups / t->recipe->batch_groups), n = t->n_groups / slices;
    int first = (int)((step - t->round) % slices) * n;
    for (int g = first; g < first + n; g++)
        for (int i = 0; i < t->groups[g].n_samples; i++) {
            const StoreSample *s = &t->groups[g].samples[i];
            double now = s->class == SCORE_UNJUDGED ? NAN : t->advantages[g * t->groups[g].n_samples + i];
            double stored = advantage_stored(row, s->id);
            if (!same_number(replay, stored, now))
                fault(replay, step, "%s: its advantage is stored as %.9g, and its group's rewards give %.9g",
                      sample_name(&arena, g, s), stored, now);
        }
    arena_free(&arena);
}

/* What the groups say of their rewards, against what these give: `row` is the step as it is stored. */
static void groups_fit(Replay *replay, const Trainer *t, long step, const StoreStep *row) {
    for (int g = 0; g < row->n_groups; g++) {
        const StoreGroup *stored = &row->groups[g], *now = &t->groups[g];
        if (stored->judged != now->judged || stored->signal != now->signal ||
            !same_number(replay, stored->reward_mean, now->reward_mean) ||
            !same_number(replay, stored->reward_std, now->reward_std))
            fault(replay, step,
                  "group %d: its mean %.9g, deviation %.9g, judged %d, signal %d are stored, and its "
                  "rewards give %.9g, %.9g, %d, %d",
                  g, stored->reward_mean, stored->reward_std, stored->judged, stored->signal, now->reward_mean,
                  now->reward_std, now->judged, now->signal);
    }
}

static bool after(void *self, Trainer *t, long step, const StoreNumber *metrics, int n, Err *err) {
    static const char *const shown[] = {"loss", "grad_norm"};
    Replay *replay = self;
    StoreStep row;
    if (!store_step_read(t->store, t->run.id, step, &row, err)) return false;
    int off = 0, numbers = 0;
    Buf line = {0}, others = {0};
    for (int i = 0; i < n; i++) {
        const char *name = metrics[i].name;
        const double *stored = metric_of(&row, name), now = metrics[i].value;
        if (!stored) continue;
        numbers++;
        /* Here the sampler was another path. */
        bool skipped = !replay->same_path && strncmp(name, "sampling/", 9) == 0, main = false;
        bool good = skipped || same_number(replay, *stored, now);
        for (int k = 0; k < 2; k++) main = main || strcmp(name, shown[k]) == 0;
        off += !good;
        if (main && *stored == now) buf_format(&line, "%s %.9g as stored, ", name, now);
        if (main && *stored != now) buf_format(&line, "%s %.9g where %.9g is stored, ", name, now, *stored);
        if (!main && !good && others.n < 200)
            buf_format(&others, "\n  %s %.9g where %.9g is stored", name, now, *stored);
    }
    uint64_t weights = t->state.weight_hash, moments = moments_hash(t->model.policy, t->learner);
    bool hashes = weights == row.weight_hash && moments == row.moment_hash;
    if (hashes)
        buf_format(&line, "weights %016" PRIx64 " and moments as stored", weights);
    else if (!replay->same_path)
        buf_text(&line, "weights and moments not comparable");
    else
        buf_format(&line, "weights %016" PRIx64 " where %016" PRIx64 " is stored, moments %s", weights,
                   row.weight_hash, moments == row.moment_hash ? "as stored" : "others");
    if (numbers < n && replay->same_path)
        buf_format(&line, " (%d of %d numbers: its whet stored no others)", numbers, n);
    fprintf(replay->out, "step %ld: %s%s\n", step, line.p, others.p ? others.p : "");
    replay->numbers += numbers;
    replay->values_off += off + (!hashes && replay->same_path);
    if (!replay->faults) advantages_fit(replay, t, step, &row); /* altered rewards have others */
    if (step == t->round) groups_fit(replay, t, step, &row);
    buf_free(&line);
    buf_free(&others);
    store_step_free(&row);
    return true;
}

/* ---- the whole ---------------------------------------------------------------------------------------------- */

static bool walk(Replay *replay, Trainer *t, long step, Err *err) {
    for (long s = t->state.step + 1; s <= step; s++) {
        if (!train_step(t, s, err)) return false;
        if (replay->faults || replay->values_off) break; /* what follows was learnt from it */
    }
    return true;
}

bool replay(Past *past, long step, const char *path, bool sample, FILE *out, bool *fits, Err *err) {
    Replay state = {.out = out, .wanted = step, .sample = sample, .same_path = true};
    const Audit audit = {.self = &state, .sample = sample, .before = before, .after = after};
    long round = step - (step - 1) % past->recipe.updates_per_generation; /* its samples are looked at, too */
    char *checkpoint = checkpoint_before(past->folder, round - 1);
    if (!path && !path_choose(past, step, err)) {
        free(checkpoint);
        return false;
    }
    if (path) past->recipe.cpu_path = path, past->recipe.device = "cpu";
    past->recipe.slots = past->recipe.slots > 0 ? past->recipe.slots : 64;
    fprintf(out, "replaying %s to step %ld from %s\n", past->folder, step,
            checkpoint ? checkpoint : past->recipe.model_name_or_path);
    fflush(out);
    Store *store = past->store;
    past->store = NULL;
    Trainer *t = train_open_audit(&past->recipe, checkpoint, store, &past->run, &audit, out, err);
    free(checkpoint);
    bool good = t && walk(&state, t, step, err);
    long reached = t ? t->state.step : 0;
    train_close(t);
    if (!good) return false;
    *fits = state.faults == 0 && state.values_off == 0;
    if (state.faults > FAULTS_SHOWN) fprintf(out, "(%d more)\n", state.faults - FAULTS_SHOWN);
    const char *way = state.same_path ? "" : ", loosely";
    if (*fits)
        fprintf(
            out,
            "step %ld agrees%s: %ld answers and %ld numbers compared, log-probabilities differ by at most %g\n",
            step, way, state.compared, state.numbers, state.logp_diff);
    else if (!state.faults && !state.same_path)
        fprintf(out,
                "step %ld does not agree%s: the other instruction set rounds too differently, or the store was "
                "changed\n",
                reached, way);
    else
        fprintf(out, "step %ld does not agree: %s\n", reached,
                state.faults
                    ? "the store was changed where it says above"
                    : "no sample of it is to blame: its checkpoint, its recipe or this program are others");
    return true;
}
