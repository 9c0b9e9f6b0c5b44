/* show.c: see show.h. */
#include "rl/show.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/checkpoint.h"
#include "rl/open.h"
#include "rl/report.h"
#include "rl/store_internal.h"
#include "rl/text.h"

/* ---- the run ------------------------------------------------------------------------------------------------ */

/* Prints each row of a query with the columns' texts where `format` has %s (five at most). */
static bool rows_print(Past *past, FILE *out, const char *title, const char *format, const char *sql, Err *err) {
    sqlite3_stmt *row = store_ask(past->store, err, sql, "l", past->run.id);
    int got = row ? 1 : -1;
    for (bool first = true; got == 1 && (got = store_row(past->store, row, err)) == 1; first = false) {
        const char *cells[5];
        if (first) fprintf(out, "%s\n", title);
        int at = 0, columns = sqlite3_column_count(row);
        for (int c = 0; c < 5; c++) {
            const char *text = c < columns ? (const char *)sqlite3_column_text(row, c) : NULL;
            cells[c] = text ? text : "-";
        }
        for (const char *p = format; *p; p++) {
            if (*p == '%')
                fputs(cells[at++], out);
            else
                fputc(*p, out);
        }
        fputc('\n', out);
    }
    return got == 0;
}

bool show_run(Past *past, FILE *out, Err *err) {
    const Recipe *r = &past->recipe;
    long last;
    store_doing(past->store, "reading the run");
    if (!store_step_last(past->store, past->run.id, &last, err)) return false;
    fprintf(out, "run       %s: %ld steps, computed as %s\n", past->folder, last, past->run.path);
    fprintf(out, "model     %s\ndata      %s\nrewards  ", r->model_name_or_path, r->dataset_name);
    for (int i = 0; i < r->reward_funcs.n; i++)
        fprintf(out, " %s x %g", r->reward_funcs.at[i], r->reward_weights.at[i]);
    fprintf(out, "\nlearning  %s, learning_rate %g, %ld answers to each of %ld problems a step\n", r->loss_type,
            r->learning_rate, r->num_generations, r->generation_groups);
    return rows_print(
               past, out, "starts", "  % from step %: %",
               "SELECT started_at, from_step, ifnull(outcome, 'running, or killed') FROM attempts WHERE run = ? "
               "ORDER BY id",
               err) &&
           rows_print(past, out, "steps", "  step % reward % right % % length %",
                      "SELECT step, printf('%.3f', reward), printf('%.1f', 100 * accuracy), '%', printf('%.1f', "
                      "mean_length) FROM reward_by_step WHERE run = ?1 AND step IN (SELECT (SELECT max(step) FROM "
                      "steps WHERE run = ?1) * k.value / 8 FROM json_each('[1,2,3,4,5,6,7,8]') k UNION SELECT 1)",
                      err) &&
           rows_print(
               past, out, "evaluations", "  step % %: % % of %",
               "SELECT step, name, printf('%.1f', 100 * accuracy), '%', n FROM evals WHERE run = ? ORDER BY "
               "step, name",
               err) &&
           rows_print(
               past, out, "guards", "  steps % to %, %: %",
               "SELECT min(step), max(step), name, line FROM step_guards WHERE run = ? GROUP BY name ORDER BY 1",
               err) &&
           rows_print(
               past, out, "other scores (whet rescore)", "  set %, %, of % answers: %",
               "SELECT id, made_at, (SELECT count(*) FROM rescores WHERE set_id = id), rewards FROM score_sets "
               "WHERE run = ? ORDER BY id",
               err);
}

bool show_find(Past *past, int64_t sample, long *step, long *group, long *number, Err *err) {
    store_doing(past->store, "looking for sample %lld", (long long)sample);
    sqlite3_stmt *row =
        store_ask(past->store, err,
                  "SELECT g.step, g.position, s.number FROM samples s JOIN groups g ON g.id = s.group_id "
                  "WHERE s.id = ?",
                  "l", sample);
    int got = row ? store_row(past->store, row, err) : -1;
    if (got == 0) return err_set(err, "%s: there is no sample %lld", past->path, (long long)sample);
    if (got < 0) return false;
    *step = sqlite3_column_int64(row, 0), *group = sqlite3_column_int64(row, 1),
    *number = sqlite3_column_int64(row, 2);
    store_end(row);
    return true;
}

/* ---- a step ------------------------------------------------------------------------------------------------- */

static bool step_read(Past *past, long step, StoreStep *row, Err *err) {
    long last;
    if (!store_step_last(past->store, past->run.id, &last, err)) return false;
    if (step < 1 || step > last)
        return err_set(err, "%s: step %ld is not there; the last one is %ld", past->path, step, last);
    return store_step_read(past->store, past->run.id, step, row, err);
}

static void line_of(Buf *line, const char *text, size_t n, int most) {
    buf_clear(line);
    buf_text(line, "");
    text_line_add(line, text, n, most);
}

/* "0.1", or "unjudged". */
static const char *value_text(char room[32], double value) {
    if (isnan(value)) return "unjudged";
    snprintf(room, 32, "%.4g", value);
    return room;
}

bool show_step(Past *past, long step, FILE *out, Err *err) {
    StoreStep row;
    Buf line = {0};
    char room[32];
    if (!step_read(past, step, &row, err)) return false;
    fprintf(out, "step %ld\n", step);
    for (int i = 0; i < row.n_metrics; i++)
        fprintf(out, "  %-40s %.6g\n", row.metrics[i].name, row.metrics[i].value);
    for (int i = 0; i < row.n_guards; i++)
        fprintf(out, "  guard %s: %s\n", row.guards[i].name, row.guards[i].line);
    if (row.n_groups == 0) fprintf(out, "its answers were sampled in an earlier step\n");
    for (int g = 0; g < row.n_groups; g++) {
        const StoreGroup *group = &row.groups[g];
        line_of(&line, group->problem.problem, strlen(group->problem.problem), 70);
        fprintf(out, "group %d: %s  [answer %s]  reward %.3g +- %.3g\n", g, line.p,
                group->problem.answer ? group->problem.answer : "-", group->reward_mean, group->reward_std);
        for (int i = 0; i < group->n_samples; i++) {
            const StoreSample *s = &group->samples[i];
            line_of(&line, s->text, s->text_n, 60);
            fprintf(out, "  %2d  id %-7lld %-8s reward %-8s advantage %7.3f  %3d tokens  %s\n", s->sample.index,
                    (long long)s->id, score_class_name(s->class), value_text(room, s->reward), s->advantage,
                    s->sample.n - s->sample.n_prompt, line.p);
        }
    }
    buf_free(&line);
    store_step_free(&row);
    return true;
}

/* ---- a sample ----------------------------------------------------------------------------------------------- */

typedef struct {
    ModelFile *file;
    Tokenizer *tok; /* NULL: the model is not there any more, so that tokens are numbers only */
} Words;

static Words words_open(const Past *past) {
    Words words = {0};
    Err err = {0};
    char *folder = checkpoint_before(past->folder, 1L << 60);
    words.file = model_file_named(folder ? folder : past->recipe.model_name_or_path, &err);
    if (!words.file && folder) words.file = model_file_named(past->recipe.model_name_or_path, &err);
    if (words.file) words.tok = tokenizer_open(words.file, &err);
    free(folder);
    return words;
}

static void words_close(Words *words) {
    if (words->tok) tokenizer_close(words->tok);
    if (words->file) model_file_close(words->file);
}

/* The token's own bytes as a quoted JSON string; "" without a tokenizer. */
static void token_add(Buf *out, const Words *words, int id) {
    Buf text = {0};
    if (words->tok) tokenizer_decode(words->tok, &id, 1, false, &text);
    json_t *json = text_json(text.p ? text.p : "", text.n);
    char *quoted = json_dumps(json, JSON_ENCODE_ANY);
    buf_text(out, quoted);
    free(quoted);
    json_decref(json);
    buf_free(&text);
}

/* Which steps learnt from it. */
static bool uses_print(Past *past, const StoreSample *s, FILE *out, Err *err) {
    sqlite3_stmt *row =
        store_ask(past->store, err,
                  "SELECT a.step, a.advantage, t.version FROM advantages a JOIN steps t ON t.run = a.run "
                  "AND t.step = a.step WHERE a.sample_id = ? ORDER BY a.step",
                  "l", s->id);
    int got = row ? 1 : -1, n = 0;
    for (; got == 1 && (got = store_row(past->store, row, err)) == 1; n++)
        fprintf(out, "advantage %.6g, with which step %lld learnt from it (it made version %lld of the weights)\n",
                sqlite3_column_double(row, 1), (long long)sqlite3_column_int64(row, 0),
                (long long)sqlite3_column_int64(row, 2));
    if (got == 0 && n == 0) fprintf(out, "advantage none: no step has learnt from it\n");
    return got == 0;
}

/* A text, line by line, without what would move a terminal's cursor. */
static void block_print(FILE *out, const char *title, const char *text) {
    Buf line = {0};
    fprintf(out, "%s\n", title);
    for (const char *p = text; p && *p;) {
        size_t n = strcspn(p, "\n");
        line_of(&line, p, n, 1 << 24);
        fprintf(out, "    %s\n", line.p);
        p += n + (p[n] != 0);
    }
    buf_free(&line);
}

static bool sample_print(Past *past, const StoreStep *row, const StoreGroup *g, const StoreSample *s,
                         const Words *words, FILE *out, Err *err) {
    const Recipe *r = &past->recipe;
    char room[32];
    int n = s->sample.n - s->sample.n_prompt;
    fprintf(out, "sample %lld: step %ld, group %d, sample %d of %d\n", (long long)s->id, row->step,
            (int)(g - row->groups), s->sample.index, g->n_samples);
    block_print(out, "problem", g->problem.problem);
    fprintf(out, "expected  %s\n", g->problem.answer ? g->problem.answer : "-");
    fprintf(out, "prompt, %d tokens", g->n_prompt);
    block_print(out, "", g->prompt);
    fprintf(out, "answer, %d tokens, ended by %s, by version %lld of the weights\n", n,
            finish_name(s->sample.finish),
            (long long)(s->sample.n_segments ? s->sample.segments[s->sample.n_segments - 1].version : 0));
    if (!words->tok) fprintf(out, "(the model is not there, so tokens are numbers)\n");
    Buf text = {0};
    double sum = 0;
    for (int t = 0; t < n; t++) {
        int at = s->sample.n_prompt + t, id = s->sample.tok[at];
        buf_clear(&text);
        token_add(&text, words, id);
        sum += (double)s->sample.logp[at];
        fprintf(out, "  %4d %7d %11.6f", t, id, (double)s->sample.logp[at]);
        if (s->sample.draw_logp[at] != s->sample.logp[at])
            fprintf(out, " (%.6f of what was kept)", (double)s->sample.draw_logp[at]);
        fprintf(out, "  %s\n", text.p);
    }
    fprintf(out, "log-prob  %.6f in all, %.4f a token\n", sum, n ? sum / n : 0);
    block_print(out, "text", s->text);
    fprintf(out, "reward    %s (%s)\n", value_text(room, s->reward), score_class_name(s->class));
    for (int p = 0; p < row->n_parts; p++) {
        const RewardScore *c = &s->scores[p];
        fprintf(out, "  %-12s %s x %g  %s, %s%s%s\n", row->parts[p], value_text(room, c->value),
                p < r->reward_weights.n ? r->reward_weights.at[p] : 1, score_class_name(c->class),
                c->verdict ? c->verdict : "-", c->reason ? ": " : "", c->reason ? c->reason : "");
        if (c->detail) fprintf(out, "  %-12s %s\n", "", c->detail);
    }
    fprintf(out, "group     reward %.4g +- %.4g of %d judged%s:", g->reward_mean, g->reward_std, g->judged,
            g->signal ? "" : ", no signal");
    for (int i = 0; i < g->n_samples; i++) fprintf(out, " %s", value_text(room, g->samples[i].reward));
    fputc('\n', out);
    buf_free(&text);
    return uses_print(past, s, out, err);
}

static json_t *number_json(double value) { return isfinite(value) ? json_real(value) : json_null(); }

static void sample_json(const StoreStep *row, const StoreGroup *g, const StoreSample *s, FILE *out) {
    json_t *tokens = json_array(), *logps = json_array(), *drawn = json_array(), *parts = json_array();
    for (int at = s->sample.n_prompt; at < s->sample.n; at++) {
        json_array_append_new(tokens, json_integer(s->sample.tok[at]));
        json_array_append_new(logps, number_json((double)s->sample.logp[at]));
        json_array_append_new(drawn, number_json((double)s->sample.draw_logp[at]));
    }
    for (int p = 0; p < row->n_parts; p++) {
        const RewardScore *c = &s->scores[p];
        json_t *detail = c->detail ? json_loads(c->detail, 0, NULL) : NULL;
        json_array_append_new(parts,
                              json_pack("{s:s, s:o, s:s, s:s?, s:s?, s:o}", "name", row->parts[p], "value",
                                        number_json(c->value), "class", score_class_name(c->class), "verdict",
                                        c->verdict, "reason", c->reason, "detail", detail ? detail : json_null()));
    }
    json_t *all =
        json_pack("{s:I, s:i, s:i, s:i, s:s, s:s?, s:s, s:o, s:s, s:i, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o}",
                  "sample", (json_int_t)s->id, "step", (int)row->step, "group", (int)(g - row->groups), "number",
                  s->sample.index, "problem", g->problem.problem, "answer", g->problem.answer, "prompt", g->prompt,
                  "text", text_json(s->text, s->text_n), "finish", finish_name(s->sample.finish), "n_tokens",
                  s->sample.n - s->sample.n_prompt, "tokens", tokens, "logprobs", logps, "draw_logprobs", drawn,
                  "reward", number_json(s->reward), "class", score_class_name(s->class), "advantage",
                  number_json(s->advantage), "group_mean", number_json(g->reward_mean), "parts", parts);
    char *text = json_dumps(all, JSON_COMPACT);
    fprintf(out, "%s\n", text);
    free(text);
    json_decref(all);
}

bool show_samples(Past *past, long step, long group, long number, bool json, FILE *out, Err *err) {
    StoreStep row;
    if (!step_read(past, step, &row, err)) return false;
    bool good = true;
    if (group < 0 || group >= row.n_groups)
        good = err_set(err, "%s: step %ld has groups 0 to %d, and not %ld", past->path, step, row.n_groups - 1,
                       group);
    else if (number >= row.groups[group].n_samples)
        good = err_set(err, "%s: the group has samples 0 to %d, and not %ld", past->path,
                       row.groups[group].n_samples - 1, number);
    Words words = {0};
    if (good && !json) words = words_open(past);
    for (int i = 0; good && i < row.groups[group].n_samples; i++) {
        const StoreGroup *g = &row.groups[group];
        if (number >= 0 && g->samples[i].sample.index != number) continue;
        if (json)
            sample_json(&row, g, &g->samples[i], out);
        else
            good = sample_print(past, &row, g, &g->samples[i], &words, out, err);
        if (!json && number < 0 && i + 1 < g->n_samples) fputc('\n', out);
    }
    words_close(&words);
    store_step_free(&row);
    return good;
}
