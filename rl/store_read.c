/* store_read.c: one training step out of the store, bit for bit as it was written. Not here: writing it
 * (store_write.c). Whatever the rows say is checked before it is believed: the file may have been edited.
 * Tested by tests/test_rl_store.c. */
#include "rl/store_internal.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

enum { MOST_TOKENS = 1 << 26, MOST_ROWS = 1 << 24 };

/* A count in a column: what lies outside of 0 .. most is damage. */
static bool count_read(Store *store, sqlite3_stmt *row, int column, int64_t most, int *n, Err *err) {
    int64_t value = sqlite3_column_int64(row, column);
    *n = (int)value;
    if (value >= 0 && value <= most) return true;
    return store_damaged(store, err, "%s is %lld", sqlite3_column_name(row, column), (long long)value);
}

/* ---- samples ------------------------------------------------------------------------------------------------ */

static bool role_find(const char *name, Role *role) {
    static const char *const roles[] = {[ROLE_PROMPT] = "prompt", [ROLE_MODEL] = "model", [ROLE_TOOL] = "tool"};
    for (int i = 0; i < 3; i++) {
        *role = (Role)i;
        if (name && strcmp(name, roles[i]) == 0) return true;
    }
    return false;
}

static bool segments_read(Store *store, sqlite3_stmt *row, int column, Sample *sample, Err *err) {
    const char *text = (const char *)sqlite3_column_text(row, column);
    json_t *list = json_loads(text ? text : "", 0, NULL), *item;
    int most = (int)(sizeof sample->segments / sizeof *sample->segments);
    size_t i;
    bool good = json_is_array(list) && json_array_size(list) <= (size_t)most;
    if (good) {
        json_array_foreach(list, i, item) {
            const char *role;
            int trained;
            json_int_t version;
            Segment *s = &sample->segments[sample->n_segments++];
            good = good && json_unpack(item, "{s:i, s:i, s:s, s:b, s:I}", "start", &s->start, "n", &s->n, "role",
                                       &role, "trained", &trained, "version", &version) == 0;
            good = good && role_find(role, &s->role) && s->start >= 0 && s->n >= 0 && s->start <= sample->n - s->n;
            if (!good) break;
            s->trained = trained;
            s->version = version;
        }
    }
    json_decref(list);
    return good || store_damaged(store, err, "segments of a sample are \"%.80s\"", text ? text : "");
}

/* The arrays: the group's prompt, then what the blobs hold. */
static bool arrays_read(Store *store, sqlite3_stmt *row, const StoreGroup *group, Sample *sample, Arena *arena,
                        Err *err) {
    int own;
    if (!count_read(store, row, 2, MOST_TOKENS, &sample->n_prompt, err)) return false;
    if (!count_read(store, row, 3, MOST_TOKENS, &own, err)) return false;
    if (sample->n_prompt < group->n_prompt) return store_damaged(store, err, "n_prompt is %d", sample->n_prompt);
    sample->n = sample->n_prompt + own;
    size_t n = (size_t)sample->n, skip = (size_t)group->n_prompt;
    sample->tok = arena_alloc(arena, n + 1, sizeof(int));
    sample->logp = arena_alloc(arena, n + 1, sizeof(real));
    sample->draw_logp = arena_alloc(arena, n + 1, sizeof(real));
    if (skip > 0) memcpy(sample->tok, group->prompt_tok, skip * sizeof(int));
    n -= skip;
    if (!store_words(store, row, 4, sample->tok + skip, n, err)) return false;
    if (!store_words(store, row, 5, sample->logp + skip, n, err)) return false;
    memcpy(sample->draw_logp + skip, sample->logp + skip, n * sizeof(real));
    return (sqlite3_column_type(row, 6) == SQLITE_NULL ||
            store_words(store, row, 6, sample->draw_logp + skip, n, err)) &&
           store_bytes(store, row, 15, &sample->kept, &sample->kept_n, arena, err);
}

static bool scores_read(Store *store, const StoreStep *step, StoreSample *s, Arena *arena, Err *err) {
    s->scores = arena_alloc(arena, (size_t)step->n_parts + 1, sizeof(RewardScore));
    sqlite3_stmt *row = store_ask(store, err,
                                  "SELECT value, class, verdict, reason, detail, microseconds FROM scores "
                                  "WHERE sample_id = ? ORDER BY part",
                                  "l", s->id);
    int got = row ? 1 : -1, n = 0;
    while (got == 1 && (got = store_row(store, row, err)) == 1) {
        if (n == step->n_parts) break;
        RewardScore *score = &s->scores[n++];
        score->value = store_double(row, 0);
        score->verdict = store_text(row, 2, NULL, arena);
        score->reason = (char *)store_text(row, 3, NULL, arena);
        score->detail = (char *)store_text(row, 4, NULL, arena);
        score->microseconds = store_double(row, 5);
        if (!store_class(store, row, 1, &score->class, err)) {
            store_end(row);
            return false;
        }
    }
    if (got < 0) return false;
    if (got == 1) store_end(row);
    if (got == 0 && n == step->n_parts) return true;
    return store_damaged(store, err, "sample %lld has another number of scores than the step", (long long)s->id);
}

static bool sample_read(Store *store, sqlite3_stmt *row, StoreStep *step, const StoreGroup *group, StoreSample *s,
                        Err *err) {
    Arena *arena = &step->arena;
    s->id = sqlite3_column_int64(row, 0);
    store_doing(store, "reading step %ld, sample %lld", step->step, (long long)s->id);
    if (!count_read(store, row, 1, MOST_ROWS, &s->sample.index, err)) return false;
    if (!arrays_read(store, row, group, &s->sample, arena, err)) return false;
    if (!segments_read(store, row, 7, &s->sample, err)) return false;
    s->text = store_text(row, 8, &s->text_n, arena);
    s->stage = store_text(row, 9, NULL, arena);
    s->parent = sqlite3_column_int64(row, 10);
    s->reward = store_double(row, 11);
    s->advantage = store_double(row, 12);
    size_t own = (size_t)(s->sample.n - s->sample.n_prompt);
    if (sqlite3_column_type(row, 16) != SQLITE_NULL) {
        real *old = arena_alloc(arena, own + 1, sizeof *old);
        if (!store_words(store, row, 16, old, own, err)) return false;
        s->old_logp = old;
    }
    return store_finish_kind(store, row, 13, &s->sample.finish, err) &&
           store_class(store, row, 14, &s->class, err);
}

static bool samples_read(Store *store, int64_t run, StoreStep *step, StoreGroup *group, Err *err) {
    int64_t n;
    if (!store_ask_number(store, err, &n, "SELECT count(*) FROM samples WHERE group_id = ?", "l", group->id)) {
        return false;
    }
    group->samples = arena_alloc(&step->arena, (size_t)n + 1, sizeof(StoreSample));
    sqlite3_stmt *row =
        store_ask(store, err,
                  "SELECT s.id, s.number, s.n_prompt, s.n_tokens, s.tokens, s.logprobs, "
                  "s.draw_logprobs, s.segments, s.text, s.stage, s.parent_id, s.reward, a.advantage, "
                  "s.finish, s.class, s.kept, l.logprobs FROM samples s LEFT JOIN advantages a "
                  "ON a.sample_id = s.id AND a.run = ? AND a.step = ? "
                  "LEFT JOIN learner_logprobs l ON l.sample_id = s.id "
                  "WHERE s.group_id = ? ORDER BY s.number",
                  "lll", run, (int64_t)step->step, group->id);
    int got = row ? 1 : -1;
    while (got == 1 && (got = store_row(store, row, err)) == 1) {
        if (sample_read(store, row, step, group, &group->samples[group->n_samples++], err)) continue;
        store_end(row);
        return false;
    }
    for (int i = 0; got == 0 && i < group->n_samples; i++) {
        if (!scores_read(store, step, &group->samples[i], &step->arena, err)) return false;
    }
    if (group->n_samples > 0 && strcmp(group->samples[group->n_samples - 1].stage, "baseline") == 0)
        group->baseline = &group->samples[--group->n_samples];
    return got == 0;
}

/* ---- groups ------------------------------------------------------------------------------------------------- */

static bool group_read(Store *store, sqlite3_stmt *row, StoreGroup *g, Arena *arena, Err *err) {
    g->id = sqlite3_column_int64(row, 0);
    g->problem_id = sqlite3_column_int64(row, 1);
    g->problem = (Problem){.id = store_text(row, 2, NULL, arena),
                           .kind = store_text(row, 3, NULL, arena),
                           .problem = store_text(row, 4, NULL, arena),
                           .answer = store_text(row, 5, NULL, arena),
                           .fields = store_text(row, 6, NULL, arena)};
    g->source = store_text(row, 7, NULL, arena);
    g->place = (uint64_t)sqlite3_column_int64(row, 8);
    g->key = (uint64_t)sqlite3_column_int64(row, 9);
    g->prompt = store_text(row, 10, NULL, arena);
    g->reward_mean = store_double(row, 11);
    g->reward_std = store_double(row, 12);
    g->judged = sqlite3_column_int(row, 13);
    g->signal = sqlite3_column_int(row, 14) != 0;
    if (!count_read(store, row, 15, MOST_TOKENS, &g->n_prompt, err)) return false;
    int *tok = arena_alloc(arena, (size_t)g->n_prompt + 1, sizeof(int));
    g->prompt_tok = tok;
    return store_words(store, row, 16, tok, (size_t)g->n_prompt, err);
}

static bool groups_read(Store *store, int64_t run, StoreStep *step, Err *err) {
    int64_t n;
    if (!store_ask_number(store, err, &n, "SELECT count(*) FROM groups WHERE run = ? AND step = ?", "ll", run,
                          (int64_t)step->step)) {
        return false;
    }
    step->groups = arena_alloc(&step->arena, (size_t)n + 1, sizeof(StoreGroup));
    sqlite3_stmt *row =
        store_ask(store, err,
                  "SELECT g.id, p.id, p.name, p.kind, p.problem, p.answer, p.fields, p.source, g.place, "
                  "g.key, g.prompt, g.reward_mean, g.reward_std, g.judged, g.signal, "
                  "g.n_prompt, g.prompt_tokens "
                  "FROM groups g JOIN problems p ON p.id = g.problem_id "
                  "WHERE g.run = ? AND g.step = ? ORDER BY g.position",
                  "ll", run, (int64_t)step->step);
    int got = row ? 1 : -1;
    while (got == 1 && (got = store_row(store, row, err)) == 1) {
        if (group_read(store, row, &step->groups[step->n_groups++], &step->arena, err)) continue;
        store_end(row);
        return false;
    }
    for (int i = 0; got == 0 && i < step->n_groups; i++) {
        if (!samples_read(store, run, step, &step->groups[i], err)) return false;
    }
    return got == 0;
}

/* What the step consumed of earlier steps' samples. */
static bool uses_read(Store *store, int64_t run, StoreStep *step, Err *err) {
    int64_t n;
    if (!store_ask_number(store, err, &n, "SELECT count(*) FROM advantages WHERE run = ? AND step = ?", "ll", run,
                          (int64_t)step->step)) {
        return false;
    }
    step->uses = arena_alloc(&step->arena, (size_t)n + 1, sizeof(StoreUse));
    sqlite3_stmt *row = store_ask(store, err,
                                  "SELECT a.sample_id, a.advantage FROM advantages a "
                                  "JOIN samples s ON s.id = a.sample_id JOIN groups g ON g.id = s.group_id "
                                  "WHERE a.run = ? AND a.step = ? AND (g.step <> a.step OR g.run <> a.run) "
                                  "ORDER BY a.sample_id",
                                  "ll", run, (int64_t)step->step);
    int got = row ? 1 : -1;
    while (got == 1 && (got = store_row(store, row, err)) == 1) {
        step->uses[step->n_uses++] = (StoreUse){sqlite3_column_int64(row, 0), sqlite3_column_double(row, 1)};
    }
    return got == 0;
}

/* ---- the step ----------------------------------------------------------------------------------------------- */

/* Names and numbers of a query with two columns, in the arena. */
static bool numbers_read(Store *store, sqlite3_stmt *row, StoreNumber **numbers, int *n, Arena *arena, Err *err) {
    int got = row ? 1 : -1, room = 0;
    while (got == 1 && (got = store_row(store, row, err)) == 1) {
        if (*n == room) {
            room = room > 0 ? 2 * room : 32;
            StoreNumber *more = arena_alloc(arena, (size_t)room, sizeof(StoreNumber));
            if (*n > 0) memcpy(more, *numbers, (size_t)*n * sizeof(StoreNumber));
            *numbers = more;
        }
        (*numbers)[(*n)++] = (StoreNumber){store_text(row, 0, NULL, arena), store_double(row, 1)};
    }
    return got == 0;
}

/* The parts of the reward, as the first sample's scores name them. */
static bool parts_read(Store *store, int64_t run, StoreStep *step, Err *err) {
    StoreNumber *parts = NULL;
    sqlite3_stmt *row =
        store_ask(store, err,
                  "SELECT name, part FROM scores WHERE sample_id = (SELECT min(s.id) FROM samples s "
                  "JOIN groups g ON g.id = s.group_id WHERE g.run = ? AND g.step = ?) ORDER BY part",
                  "ll", run, (int64_t)step->step);
    if (!numbers_read(store, row, &parts, &step->n_parts, &step->arena, err)) return false;
    const char **names = arena_alloc(&step->arena, (size_t)step->n_parts + 1, sizeof(char *));
    for (int i = 0; i < step->n_parts; i++) names[i] = parts[i].name;
    step->parts = names;
    return true;
}

static bool guards_read(Store *store, int64_t run, StoreStep *step, Err *err) {
    StoreGuard *guards = NULL;
    sqlite3_stmt *row =
        store_ask(store, err, "SELECT name, line FROM step_guards WHERE run = ? AND step = ? ORDER BY name", "ll",
                  run, (int64_t)step->step);
    int got = row ? 1 : -1;
    while (got == 1 && (got = store_row(store, row, err)) == 1) {
        StoreGuard *more = arena_alloc(&step->arena, (size_t)step->n_guards + 1, sizeof *more);
        if (guards) memcpy(more, guards, (size_t)step->n_guards * sizeof *more);
        guards = more;
        guards[step->n_guards++] =
            (StoreGuard){store_text(row, 0, NULL, &step->arena), store_text(row, 1, NULL, &step->arena)};
    }
    step->guards = guards;
    return got == 0;
}

static bool step_read(Store *store, int64_t run, StoreStep *step, Err *err) {
    int64_t number = step->step;
    sqlite3_stmt *row = store_ask(
        store, err, "SELECT version, weight_hash, moment_hash, path FROM steps WHERE run = ? AND step = ?", "ll",
        run, number);
    int got = row ? store_row(store, row, err) : -1;
    if (got < 0) return false;
    if (got == 0) return store_damaged(store, err, "the step is not there");
    step->version = sqlite3_column_int64(row, 0);
    step->weight_hash = store_hash(row, 1);
    step->moment_hash = store_hash(row, 2);
    step->path = store_text(row, 3, NULL, &step->arena);
    store_end(row);
    if (!parts_read(store, run, step, err) || !groups_read(store, run, step, err)) return false;
    if (!uses_read(store, run, step, err)) return false;
    row = store_ask(store, err, "SELECT name, value FROM step_metrics WHERE run = ? AND step = ? ORDER BY name",
                    "ll", run, number);
    if (!numbers_read(store, row, &step->metrics, &step->n_metrics, &step->arena, err)) return false;
    row =
        store_ask(store, err, "SELECT phase, seconds FROM step_seconds WHERE run = ? AND step = ? ORDER BY phase",
                  "ll", run, number);
    return numbers_read(store, row, &step->seconds, &step->n_seconds, &step->arena, err) &&
           guards_read(store, run, step, err);
}

bool store_metrics_each(Store *store, int64_t run, long last,
                        void (*each)(void *self, bool new_step, const char *name, double value), void *self,
                        Err *err) {
    store_doing(store, "reading the metrics");
    sqlite3_stmt *row = store_ask(store, err,
                                  "SELECT step, name, value FROM step_metrics WHERE run = ? AND step <= ? "
                                  "ORDER BY step, name",
                                  "ll", run, (int64_t)last);
    int got = row ? 1 : -1;
    for (int64_t step = 0; got == 1 && (got = store_row(store, row, err)) == 1;
         step = sqlite3_column_int64(row, 0))
        each(self, sqlite3_column_int64(row, 0) != step, (const char *)sqlite3_column_text(row, 1),
             store_double(row, 2));
    return got == 0;
}

bool store_step_read(Store *store, int64_t run, long number, StoreStep *step, Err *err) {
    store_doing(store, "reading step %ld", number);
    *step = (StoreStep){.step = number};
    if (step_read(store, run, step, err)) return true;
    store_step_free(step);
    return false;
}

void store_step_free(StoreStep *step) {
    arena_free(&step->arena);
    *step = (StoreStep){0};
}

bool store_weights_after(Store *store, int64_t run, long step, uint64_t *hash, Err *err) {
    store_doing(store, "looking for the weights after step %ld", step);
    sqlite3_stmt *row = store_ask(store, err,
                                  "SELECT coalesce((SELECT weight_hash FROM steps WHERE run = r.id AND step = ?), "
                                  "r.weight_hash) FROM runs r WHERE r.id = ?",
                                  "ll", (int64_t)step, run);
    int got = row ? store_row(store, row, err) : -1;
    *hash = got == 1 ? store_hash(row, 0) : 0;
    if (got == 1) store_end(row);
    return got >= 0;
}

bool store_step_last(Store *store, int64_t run, long *step, Err *err) {
    int64_t last;
    store_doing(store, "looking for the last step");
    bool good = store_ask_number(store, err, &last, "SELECT max(step) FROM steps WHERE run = ?", "l", run);
    *step = (long)last;
    return good;
}
