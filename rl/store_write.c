/* store_write.c: one training step into the store, as one transaction. Not here: reading it back (store_read.c).
 * Tested by tests/test_rl_store.c and test_rl_store_death.c. */
#include "rl/store_internal.h"

#include <math.h>
#include <string.h>

static void segments_json(Buf *json, const Sample *sample) {
    static const char *const roles[] = {[ROLE_PROMPT] = "prompt", [ROLE_MODEL] = "model", [ROLE_TOOL] = "tool"};
    buf_clear(json);
    buf_char(json, '[');
    for (int i = 0; i < sample->n_segments; i++) {
        const Segment *s = &sample->segments[i];
        buf_format(json, "%s{\"start\":%d,\"n\":%d,\"role\":\"%s\",\"trained\":%s,\"version\":%lld}", i ? "," : "",
                   s->start, s->n, roles[s->role], s->trained ? "true" : "false", (long long)s->version);
    }
    buf_char(json, ']');
}

/* Of the policy that wrote the last token of its own. */
static int64_t policy_version(const Sample *sample) {
    int64_t version = 0;
    for (int i = 0; i < sample->n_segments; i++) {
        if (sample->segments[i].role == ROLE_MODEL) version = sample->segments[i].version;
    }
    return version;
}

static void sample_check(const StoreGroup *group, const Sample *sample) {
    CHECK(sample->n_prompt >= group->n_prompt && sample->n >= sample->n_prompt,
          "group's prompt %d, sample's %d of %d", group->n_prompt, sample->n_prompt, sample->n);
    CHECK(memcmp(sample->tok, group->prompt_tok, (size_t)group->n_prompt * sizeof(int)) == 0,
          "sample %d does not begin with the prompt of its group", sample->index);
    CHECK(sample->n_segments >= 0 &&
              sample->n_segments <= (int)(sizeof sample->segments / sizeof *sample->segments),
          "%d segments", sample->n_segments);
}

static bool sample_put(Store *store, const StoreGroup *group, StoreSample *s, Buf *json, Err *err) {
    const Sample *sample = &s->sample;
    sample_check(group, sample);
    segments_json(json, sample);
    size_t skip = (size_t)group->n_prompt, n = (size_t)sample->n - skip;
    const real *draw_logp = sample->draw_logp + skip;
    if (memcmp(draw_logp, sample->logp + skip, n * sizeof *draw_logp) == 0) draw_logp = NULL;
    bool good = store_put(
        store, err,
        "INSERT INTO samples (group_id, number, parent_id, stage, n_prompt, n_tokens, tokens, "
        "logprobs, draw_logprobs, kept, segments, text, finish, policy_version, reward, class) "
        "VALUES (?, ?, nullif(?, 0), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "liltiiwwwbsstldt", group->id, sample->index, s->parent, s->stage, sample->n_prompt,
        sample->n - sample->n_prompt, (const void *)(sample->tok + skip), n, (const void *)(sample->logp + skip),
        n, (const void *)draw_logp, n, (const void *)sample->kept, sample->kept_n, json->p, json->n, s->text,
        s->text_n, finish_name(sample->finish), policy_version(sample), s->reward, score_class_name(s->class));
    s->id = sqlite3_last_insert_rowid(store->db);
    size_t own = (size_t)(sample->n - sample->n_prompt);
    if (good && s->old_logp)
        good = store_put(store, err, "INSERT INTO learner_logprobs (sample_id, logprobs) VALUES (?, ?)", "lw",
                         s->id, (const void *)s->old_logp, own);
    return good;
}

static bool scores_put(Store *store, const StoreStep *step, const StoreSample *s, Err *err) {
    bool good = true;
    for (int part = 0; good && part < step->n_parts; part++) {
        const RewardScore *score = &s->scores[part];
        good = store_put(store, err,
                         "INSERT INTO scores (sample_id, part, name, value, class, verdict, reason, detail, "
                         "microseconds) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                         "litdttttd", s->id, part, step->parts[part], score->value, score_class_name(score->class),
                         score->verdict, score->reason, score->detail, score->microseconds);
    }
    return good;
}

static bool use_put(Store *store, int64_t run, long step, int64_t sample, double advantage, Err *err) {
    return store_put(store, err, "INSERT INTO advantages (run, step, sample_id, advantage) VALUES (?, ?, ?, ?)",
                     "llld", run, (int64_t)step, sample, advantage);
}

static bool group_put(Store *store, int64_t run, const StoreStep *step, int position, Buf *json, Err *err) {
    StoreGroup *g = &step->groups[position];
    bool good = store_problem(store, g->source, &g->problem, &g->problem_id, err);
    good = good && store_put(store, err,
                             "INSERT INTO groups (run, step, position, problem_id, place, key, prompt, n_prompt, "
                             "prompt_tokens, reward_mean, reward_std, judged, signal) "
                             "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                             "llillltiwddii", run, (int64_t)step->step, position, g->problem_id, (int64_t)g->place,
                             (int64_t)g->key, g->prompt, g->n_prompt, (const void *)g->prompt_tok,
                             (size_t)g->n_prompt, g->reward_mean, g->reward_std, g->judged, (int)g->signal);
    g->id = sqlite3_last_insert_rowid(store->db);
    for (int i = 0; good && i < g->n_samples; i++) {
        StoreSample *s = &g->samples[i];
        good = sample_put(store, g, s, json, err) && scores_put(store, step, s, err);
        if (good && !isnan(s->advantage)) good = use_put(store, run, step->step, s->id, s->advantage, err);
    }
    if (good && g->baseline)
        good = sample_put(store, g, g->baseline, json, err) && scores_put(store, step, g->baseline, err);
    return good;
}

/* What the step adds to the summaries: schema.sql says what they are. */
static bool summaries_put(Store *store, int64_t run, int64_t step, Err *err) {
    return store_put(store, err,
                     "INSERT INTO step_summary SELECT run, step, count(*), sum(n), sum(rewarded), total(reward), "
                     "sum(n_right), sum(unjudged), sum(clipped), sum(tokens), sum(signal), "
                     "sum(NOT signal AND n_right = judged AND judged > 0), "
                     "sum(NOT signal AND n_right = 0 AND judged > 0) "
                     "FROM (SELECT g.run, g.step, g.signal, g.judged, count(*) AS n, count(s.reward) AS rewarded, "
                     "total(s.reward) AS reward, sum(s.class = 'right') AS n_right, "
                     "sum(s.class = 'unjudged') AS unjudged, sum(s.finish = 'length') AS clipped, "
                     "sum(s.n_tokens) AS tokens FROM groups g CROSS JOIN samples s ON s.group_id = g.id "
                     "WHERE g.run = ? AND g.step = ? AND s.stage = 'train' GROUP BY g.id) GROUP BY run, step",
                     "ll", run, step) &&
           store_put(store, err,
                     "INSERT INTO problem_summary SELECT g.problem_id, count(*), sum(s.class = 'right'), "
                     "total(s.reward), g.step, g.step FROM groups g CROSS JOIN samples s ON s.group_id = g.id "
                     "WHERE g.run = ? AND g.step = ? AND s.class <> 'unjudged' AND s.stage = 'train' GROUP BY "
                     "g.problem_id "
                     "ON CONFLICT DO UPDATE SET asked = asked + excluded.asked, "
                     "n_right = n_right + excluded.n_right, reward = reward + excluded.reward, "
                     "first_step = min(first_step, excluded.first_step), "
                     "last_step = max(last_step, excluded.last_step)",
                     "ll", run, step) &&
           store_put(store, err,
                     "INSERT INTO step_verdicts SELECT g.run, g.step, c.name, c.class, c.verdict, count(*), "
                     "avg(c.value), avg(c.microseconds) FROM groups g CROSS JOIN samples s ON s.group_id = g.id "
                     "CROSS JOIN scores c ON c.sample_id = s.id WHERE g.run = ? AND g.step = ? "
                     "AND s.stage = 'train' GROUP BY g.run, g.step, c.name, c.class, c.verdict",
                     "ll", run, step);
}

static bool step_put(Store *store, int64_t run, const StoreStep *step, Err *err) {
    int64_t last, number = step->step;
    if (!store_ask_number(store, err, &last, "SELECT max(step) FROM steps WHERE run = ?", "l", run)) return false;
    CHECK(number > last, "step %lld after step %lld", (long long)number, (long long)last);
    bool good = store_put(store, err,
                          "INSERT INTO steps (run, step, version, weight_hash, moment_hash, path) "
                          "VALUES (?, ?, ?, ?, ?, ?)",
                          "lllhht", run, number, step->version, step->weight_hash, step->moment_hash, step->path);
    Buf json = {0};
    for (int i = 0; good && i < step->n_groups; i++) good = group_put(store, run, step, i, &json, err);
    buf_free(&json);
    good = good && (step->n_groups == 0 || summaries_put(store, run, number, err));
    for (int i = 0; good && i < step->n_uses; i++) {
        good = use_put(store, run, step->step, step->uses[i].sample, step->uses[i].advantage, err);
    }
    for (int i = 0; good && i < step->n_metrics; i++) {
        good = store_put(store, err, "INSERT INTO step_metrics (run, step, name, value) VALUES (?, ?, ?, ?)",
                         "lltd", run, number, step->metrics[i].name, step->metrics[i].value);
    }
    for (int i = 0; good && i < step->n_guards; i++) {
        good = store_put(store, err, "INSERT INTO step_guards (run, step, name, line) VALUES (?, ?, ?, ?)", "lltt",
                         run, number, step->guards[i].name, step->guards[i].line);
    }
    for (int i = 0; good && i < step->n_seconds; i++) {
        good = store_put(store, err, "INSERT INTO step_seconds (run, step, phase, seconds) VALUES (?, ?, ?, ?)",
                         "lltd", run, number, step->seconds[i].name, step->seconds[i].value);
    }
    return good;
}

bool store_step_write(Store *store, int64_t run, StoreStep *step, Err *err) {
    store_doing(store, "storing step %ld", step->step);
    return store_begin(store, err) && store_finish(store, step_put(store, run, step, err), err);
}
