/* store_write.c: one training step into the store, as one transaction. Not here: reading it back (store_read.c).
 * Tested by tests/test_rl_store.c. */
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
    size_t skip = (size_t)group->n_prompt, kept = (size_t)sample->n - skip;
    bool good = store_put(store, err,
                          "INSERT INTO samples (group_id, number, parent_id, stage, n_prompt, n_tokens, tokens, "
                          "logprobs, draw_logprobs, "
                          "segments, text, finish, policy_version, reward, class) "
                          "VALUES (?, ?, nullif(?, 0), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                          "liltiibbbsstldt", group->id, sample->index, s->parent, s->stage, sample->n_prompt,
                          sample->n - sample->n_prompt, (const void *)(sample->tok + skip), kept * sizeof(int),
                          (const void *)(sample->logp + skip), kept * sizeof(real),
                          (const void *)(sample->draw_logp + skip), kept * sizeof(real), json->p, json->n, s->text,
                          s->text_n, finish_name(sample->finish), policy_version(sample), s->reward,
                          score_class_name(s->class));
    s->id = sqlite3_last_insert_rowid(store->db);
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
    good = good &&
           store_put(store, err,
                     "INSERT INTO groups (run, step, position, problem_id, place, key, prompt, n_prompt, "
                     "prompt_tokens, reward_mean, reward_std, judged, signal) "
                     "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                     "llillltibddii", run, (int64_t)step->step, position, g->problem_id, (int64_t)g->place,
                     (int64_t)g->key, g->prompt, g->n_prompt, (const void *)g->prompt_tok,
                     (size_t)g->n_prompt * sizeof(int), g->reward_mean, g->reward_std, g->judged, (int)g->signal);
    g->id = sqlite3_last_insert_rowid(store->db);
    for (int i = 0; good && i < g->n_samples; i++) {
        StoreSample *s = &g->samples[i];
        good = sample_put(store, g, s, json, err) && scores_put(store, step, s, err);
        if (good && !isnan(s->advantage)) good = use_put(store, run, step->step, s->id, s->advantage, err);
    }
    return good;
}

static bool step_put(Store *store, int64_t run, const StoreStep *step, Err *err) {
    int64_t last, number = step->step;
    if (!store_ask_number(store, err, &last, "SELECT max(step) FROM steps WHERE run = ?", "l", run)) return false;
    CHECK(number > last, "step %lld after step %lld", (long long)number, (long long)last);
    bool good = store_put(store, err, "INSERT INTO steps (run, step, version, weight_hash, moment_hash) "
                          "VALUES (?, ?, ?, ?, ?)",
                          "lllhh", run, number, step->version, step->weight_hash, step->moment_hash);
    Buf json = {0};
    for (int i = 0; good && i < step->n_groups; i++) good = group_put(store, run, step, i, &json, err);
    buf_free(&json);
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
