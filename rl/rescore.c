/* rescore.c: see rescore.h. */
#include "rl/rescore.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/collect.h"
#include "rl/report.h"
#include "rl/store_internal.h"
#include "rl/text.h"
#include "rl/train_parts.h"
#include "rl/version.h"

enum { PARTS_MAX = 32 };

typedef struct {
    double was, now;
} Both;

typedef struct {
    const Recipe *before, *now;
    Objective objective;
    Reward *reward;
    FILE *out;
    long examples, shown;
    Buf flips; /* their text */
    int64_t set;

    long samples, steps, groups;
    long table[3][3]; /* class before, class now */
    Both *rewards;    /* of all that were judged both times */
    size_t n, room;
    long other_reward; /* samples */
    long signal_was, signal_now, gained, lost;
    long advantages, sign, other_advantage;
    double seconds, micro[PARTS_MAX];
    double was_micro;
} Rescore;

/* ---- one step ----------------------------------------------------------------------------------------------- */

static StoreGroup *groups_copy(const StoreStep *row, Arena *arena) {
    StoreGroup *groups = arena_alloc(arena, (size_t)row->n_groups, sizeof *groups);
    memcpy(groups, row->groups, (size_t)row->n_groups * sizeof *groups);
    for (int g = 0; g < row->n_groups; g++) {
        size_t n = (size_t)groups[g].n_samples;
        StoreSample *samples = arena_alloc(arena, n, sizeof *samples);
        groups[g].samples = memcpy(samples, row->groups[g].samples, n * sizeof *samples);
        if (!groups[g].baseline) continue;
        groups[g].baseline = arena_alloc(arena, 1, sizeof(StoreSample));
        *groups[g].baseline = *row->groups[g].baseline;
    }
    return groups;
}

/* A reward may hold what no score says (kl_in_reward): that stays. */
static void rest_keep(const Rescore *x, const StoreSample *was, StoreSample *now) {
    ScoreClass class;
    if (isnan(was->reward) || isnan(now->reward)) return;
    double said = reward_total(was->scores, x->before->reward_weights.at, x->before->reward_funcs.n, &class);
    now->reward = now->reward == said ? was->reward : now->reward + (was->reward - said);
}

/* Advantages of the groups that were learnt from, of which dynamic sampling may have left others. */
static void advantages_of(Rescore *x, StoreGroup *groups, int n, int learnt, Arena *arena) {
    if (n == 0) return;
    int size = groups[0].n_samples;
    AdvantageIn in = rewards_of(&x->objective, x->now, groups, learnt, arena);
    double *values = arena_alloc(arena, (size_t)learnt * (size_t)size, sizeof *values);
    GroupStats *stats = arena_alloc(arena, (size_t)learnt, sizeof *stats);
    AdvantageReport report;
    advantages_compute(values, stats, &report, &in);
    for (int g = 0; g < n; g++)
        for (int i = 0; i < size; i++) {
            StoreSample *s = &groups[g].samples[i];
            s->advantage = g < learnt && s->class != SCORE_UNJUDGED ? values[g * size + i] : NAN;
            if (g < learnt) groups[g].signal = stats[g].signal;
        }
}

static bool same(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static void flip_add(Rescore *x, long step, int g, const StoreGroup *group, const StoreSample *was,
                     const StoreSample *now) {
    if (x->shown++ >= x->examples) return;
    Buf *out = &x->flips;
    const RewardScore *score = &now->scores[0];
    buf_format(out, "  step %ld, group %d, sample %d (id %lld): was %s (%s), now %s (%s%s%s)\n    problem  ", step,
               g, was->sample.index, (long long)was->id, score_class_name(was->class),
               was->scores[0].verdict ? was->scores[0].verdict : "-", score_class_name(now->class),
               score->verdict ? score->verdict : "-", score->reason ? ": " : "",
               score->reason ? score->reason : "");
    text_line_add(out, group->problem.problem, strlen(group->problem.problem), 100);
    buf_format(out, "  [answer %s]\n    text     ", group->problem.answer ? group->problem.answer : "-");
    text_line_add(out, was->text, was->text_n, 160);
    buf_char(out, '\n');
}

static void sample_count(Rescore *x, long step, int g, const StoreGroup *group, const StoreSample *was,
                         const StoreSample *now) {
    x->samples++;
    x->table[was->class][now->class]++;
    if (was->class != now->class) flip_add(x, step, g, group, was, now);
    x->other_reward += !same(was->reward, now->reward);
    for (int p = 0; p < x->now->reward_funcs.n; p++) x->micro[p] += now->scores[p].microseconds;
    for (int p = 0; p < x->before->reward_funcs.n; p++) x->was_micro += was->scores[p].microseconds;
    if (!isnan(was->advantage) && !isnan(now->advantage)) {
        x->advantages++;
        x->other_advantage += was->advantage != now->advantage;
        x->sign += (was->advantage > 0) != (now->advantage > 0) || (was->advantage < 0) != (now->advantage < 0);
    }
    if (isnan(was->reward) || isnan(now->reward)) return;
    if (x->n == x->room) x->rewards = mem_grow(x->rewards, x->room = 2 * x->room + 1024, sizeof *x->rewards);
    x->rewards[x->n++] = (Both){was->reward, now->reward};
}

static bool sample_put(Store *store, const Rescore *x, const StoreSample *s, Err *err) {
    bool good = store_put(
        store, err, "INSERT INTO rescores (set_id, sample_id, reward, class, advantage) VALUES (?, ?, ?, ?, ?)",
        "lldtd", x->set, s->id, s->reward, score_class_name(s->class), s->advantage);
    for (int p = 0; good && p < x->now->reward_funcs.n; p++) {
        const RewardScore *c = &s->scores[p];
        good =
            store_put(store, err,
                      "INSERT INTO rescore_parts (set_id, sample_id, part, name, value, class, verdict, reason, "
                      "detail, microseconds) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                      "llitdttttd", x->set, s->id, p, x->now->reward_funcs.at[p], c->value,
                      score_class_name(c->class), c->verdict, c->reason, c->detail, c->microseconds);
    }
    return good;
}

static bool step_rescore(Past *past, Rescore *x, long step, Err *err) {
    StoreStep row;
    if (!store_step_read(past->store, past->run.id, step, &row, err)) return false;
    int n = row.n_groups, learnt = n < (int)x->now->generation_groups ? n : (int)x->now->generation_groups;
    StoreGroup *groups = groups_copy(&row, &row.arena);
    bool good = true;
    for (int g = 0; good && g < n; g++)
        if (groups[g].n_samples != (int)x->now->num_generations)
            good = err_set(err, "%s: step %ld: a group has %d answers where the recipe has num_generations %ld",
                           past->path, step, groups[g].n_samples, x->now->num_generations);
    good = good && judge_groups(x->reward, x->now, groups, n, &row.arena, err);
    for (int g = 0; good && g < n; g++)
        for (int i = 0; i < groups[g].n_samples; i++)
            rest_keep(x, &row.groups[g].samples[i], &groups[g].samples[i]);
    if (good) advantages_of(x, groups, n, learnt, &row.arena);
    store_doing(past->store, "storing other scores of step %ld", step);
    good = good && store_begin(past->store, err);
    bool begun = good;
    for (int g = 0; good && g < n; g++) {
        x->groups++;
        if (g < learnt) {
            x->signal_was += row.groups[g].signal, x->signal_now += groups[g].signal;
            x->gained += !row.groups[g].signal && groups[g].signal,
                x->lost += row.groups[g].signal && !groups[g].signal;
        }
        for (int i = 0; good && i < groups[g].n_samples; i++) {
            sample_count(x, step, g, &groups[g], &row.groups[g].samples[i], &groups[g].samples[i]);
            good = sample_put(past->store, x, &groups[g].samples[i], err);
        }
    }
    if (begun) good = store_finish(past->store, good, err);
    store_step_free(&row);
    x->steps++;
    return good;
}

/* ---- rank correlation --------------------------------------------------------------------------------------- */

static int was_order(const void *a, const void *b) {
    const Both *x = a, *y = b;
    return x->was < y->was ? -1 : x->was > y->was;
}
static int now_order(const void *a, const void *b) {
    const Both *x = a, *y = b;
    return x->now < y->now ? -1 : x->now > y->now;
}

/* Puts ranks in the place of values (ties have the mean of their places), sorted by them. */
static void ranks_put(Both *all, size_t n, bool now) {
    qsort(all, n, sizeof *all, now ? now_order : was_order);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i; end < n && (now ? all[end].now == all[i].now : all[end].was == all[i].was); end++) {
        }
        for (size_t k = end; k-- > i;) *(now ? &all[k].now : &all[k].was) = 0.5 * (double)(i + end - 1);
    }
}

/* Spearman's. NaN when one side is the same everywhere. */
static double rank_correlation(Both *all, size_t n) {
    double mean = 0.5 * ((double)n - 1), xy = 0, xx = 0, yy = 0;
    ranks_put(all, n, false);
    ranks_put(all, n, true);
    for (size_t i = 0; i < n; i++) {
        double x = all[i].was - mean, y = all[i].now - mean;
        xy += x * y, xx += x * x, yy += y * y;
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}

/* ---- the report --------------------------------------------------------------------------------------------- */

static void rewards_print(FILE *out, const Recipe *r) {
    for (int i = 0; i < r->reward_funcs.n; i++)
        fprintf(out, "%s%s x %g", i ? ", " : "", r->reward_funcs.at[i], r->reward_weights.at[i]);
}

static void report(Rescore *x, const Past *past) {
    FILE *out = x->out;
    double was = 0, now = 0;
    for (size_t i = 0; i < x->n; i++) was += x->rewards[i].was, now += x->rewards[i].now;
    fprintf(out, "%ld answers of %ld steps of %s judged anew (set %lld in its store)\n  before  ", x->samples,
            x->steps, past->folder, (long long)x->set);
    rewards_print(out, x->before);
    fprintf(out, "\n  now     ");
    rewards_print(out, x->now);
    fprintf(out, "\n\nverdicts          now right   now wrong   unjudged\n");
    for (int c = SCORE_RIGHT; c <= SCORE_UNJUDGED; c++)
        fprintf(out, "  was %-10s %10ld  %10ld %10ld\n", score_class_name((ScoreClass)c), x->table[c][SCORE_RIGHT],
                x->table[c][SCORE_WRONG], x->table[c][SCORE_UNJUDGED]);
    fprintf(out, "rewards     mean %.4f, now %.4f; %ld of %ld answers have another; rank correlation %.4f\n",
            x->n ? was / (double)x->n : NAN, x->n ? now / (double)x->n : NAN, x->other_reward, x->samples,
            rank_correlation(x->rewards, x->n));
    fprintf(out, "groups      %ld of %ld had signal, now %ld: %ld gained it, %ld lost it\n", x->signal_was,
            x->groups, x->signal_now, x->gained, x->lost);
    fprintf(out, "advantages  %ld of %ld changed their sign (or to or from 0), %ld their value\n", x->sign,
            x->advantages, x->other_advantage);
    fprintf(out, "cost        %.1f s in all;", x->seconds);
    for (int p = 0; p < x->now->reward_funcs.n; p++)
        fprintf(out, " %s %.1f us,", x->now->reward_funcs.at[p], x->micro[p] / (double)x->samples);
    fprintf(out, " before %.1f us an answer\n", x->was_micro / (double)x->samples);
    if (x->other_reward == 0 && x->other_advantage == 0 && x->shown == 0)
        fprintf(out, "nothing would have changed\n");
    if (x->shown > 0)
        fprintf(out, "\nverdicts that flipped (%ld of %ld shown):\n%s",
                x->shown < x->examples ? x->shown : x->examples, x->shown, x->flips.p ? x->flips.p : "");
    fprintf(
        out,
        "\nmore: sqlite3 -box %s \"SELECT problem, text, reward, new_reward FROM side_by_side WHERE set_id = %lld "
        "AND reward <> new_reward LIMIT 5\"\n",
        past->path, (long long)x->set);
}

/* ---- the whole ---------------------------------------------------------------------------------------------- */

static bool set_begin(Past *past, Rescore *x, Err *err) {
    json_t *funcs = json_array(), *weights = json_array();
    store_doing(past->store, "storing other scores");
    for (int i = 0; i < x->now->reward_funcs.n; i++) {
        json_array_append_new(funcs, json_string(x->now->reward_funcs.at[i]));
        json_array_append_new(weights, json_real(x->now->reward_weights.at[i]));
    }
    json_t *all =
        json_pack("{s:o, s:o, s:s, s:s}", "reward_funcs", funcs, "reward_weights", weights, "scale_rewards",
                  x->now->scale_rewards, "advantage_estimator", x->now->advantage_estimator);
    char *text = json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(12));
    json_decref(all);
    bool good = store_put(past->store, err,
                          "INSERT INTO score_sets (run, rewards, version, made_at) VALUES (?, ?, ?, "
                          "strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))",
                          "ltt", past->run.id, (const char *)text, WHET_VERSION);
    free(text);
    x->set = sqlite3_last_insert_rowid(past->store->db);
    return good;
}

bool rescore(Past *past, const Recipe *recipe, long examples, FILE *out, Err *err) {
    Rescore x = {.before = &past->recipe, .now = recipe, .out = out, .examples = examples};
    RewardShape shape;
    RewardConf judges = reward_conf_of(recipe, &shape);
    long last;
    if (recipe->reward_funcs.n > PARTS_MAX) return err_set(err, "more than %d reward_funcs", PARTS_MAX);
    if (!objective_of(&x.objective, recipe, err)) return false;
    x.reward = reward_open(recipe->reward_funcs.at, recipe->reward_funcs.n, &judges, err);
    if (!x.reward) return false;
    bool good = store_step_last(past->store, past->run.id, &last, err) && set_begin(past, &x, err);
    double began = clock_seconds();
    for (long step = 1; good && step <= last; step++) good = step_rescore(past, &x, step, err);
    x.seconds = clock_seconds() - began;
    if (good && x.samples == 0) good = err_set(err, "%s: holds no answer yet", past->path);
    if (good)
        report(&x, past);
    else if (x.set)
        store_put(past->store, NULL, "DELETE FROM score_sets WHERE id = ?", "l", x.set);
    reward_close(x.reward);
    buf_free(&x.flips);
    free(x.rewards);
    return good;
}
