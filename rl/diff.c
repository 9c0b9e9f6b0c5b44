/* diff.c: see diff.h. */
#include "rl/diff.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/report.h"
#include "rl/store_internal.h"
#include "rl/text.h"

enum { LAST_STEPS = 10, KEY_WIDTH = 38 };

double mcnemar_exact(long b, long c) {
    double n = (double)(b + c), sum = 0;
    for (long k = 0; k <= (b < c ? b : c); k++)
        sum += exp(lgamma(n + 1) - lgamma((double)k + 1) - lgamma(n - (double)k + 1) - n * log(2));
    return fmin(1, 2 * sum);
}

/* ---- recipes ------------------------------------------------------------------------------------------------ */

static void recipes_print(const Past *a, const Past *b, FILE *out) {
    json_t *one = json_loads(a->run.recipe, 0, NULL), *two = json_loads(b->run.recipe, 0, NULL), *value;
    const char *key;
    int n = 0;
    json_object_foreach(one, key, value) {
        json_t *other = json_object_get(two, key);
        if (strcmp(key, "output_dir") == 0 || strcmp(key, "overwrite_output_dir") == 0 || json_equal(value, other))
            continue;
        char *x = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        char *y = other ? json_dumps(other, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) : mem_text("-");
        if (n++ == 0) fprintf(out, "recipes\n");
        fprintf(out, "  %-*s %s | %s\n", KEY_WIDTH, key, x, y);
        free(x);
        free(y);
    }
    if (n == 0) fprintf(out, "recipes     the same\n");
    if (strcmp(a->run.path, b->run.path) != 0)
        fprintf(out, "  %-*s %s | %s\n", KEY_WIDTH, "(instruction set)", a->run.path, b->run.path);
    json_decref(one);
    json_decref(two);
}

/* ---- metrics ------------------------------------------------------------------------------------------------ */

/* The mean of a metric over the LAST_STEPS steps to `last`; NaN when there is none. */
static bool metric_mean(Past *past, const char *name, long last, double *mean, Err *err) {
    sqlite3_stmt *row =
        store_ask(past->store, err,
                  "SELECT avg(value) FROM step_metrics WHERE run = ? AND name = ? AND step <= ? AND step > ?",
                  "ltll", past->run.id, name, (int64_t)last, (int64_t)last - LAST_STEPS);
    int got = row ? store_row(past->store, row, err) : -1;
    *mean = got == 1 ? store_double(row, 0) : NAN;
    if (got == 1) store_end(row);
    return got >= 0;
}

static bool metrics_print(Past *a, Past *b, FILE *out, Err *err) {
    static const char *const names[] = {"reward",
                                        "accuracy",
                                        "frac_reward_zero_std",
                                        "completions/mean_length",
                                        "completions/clipped_ratio",
                                        "entropy",
                                        "kl",
                                        "grad_norm",
                                        "loss"};
    long last_a, last_b;
    if (!store_step_last(a->store, a->run.id, &last_a, err) || !store_step_last(b->store, b->run.id, &last_b, err))
        return false;
    long last = last_a < last_b ? last_a : last_b, first = last > LAST_STEPS ? last - LAST_STEPS + 1 : 1;
    fprintf(out, "steps       %ld | %ld\n", last_a, last_b);
    if (last == 0) return true;
    fprintf(out, "metrics, mean of steps %ld to %ld of both\n", first, last);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        double x, y;
        if (!metric_mean(a, names[i], last, &x, err) || !metric_mean(b, names[i], last, &y, err)) return false;
        if (!isnan(x) || !isnan(y)) fprintf(out, "  %-*s %.6g | %.6g\n", KEY_WIDTH, names[i], x, y);
    }
    return true;
}

/* ---- evaluations -------------------------------------------------------------------------------------------- */

/* The last evaluation on the data of this name; *found is false when there is none. */
static bool eval_last(Past *past, const char *name, StoreEval *eval, bool *found, Err *err) {
    int64_t step, there;
    *found = false;
    if (!store_ask_number(past->store, err, &there, "SELECT count(*) FROM evals WHERE run = ? AND name = ?", "lt",
                          past->run.id, name) ||
        !store_ask_number(past->store, err, &step, "SELECT max(step) FROM evals WHERE run = ? AND name = ?", "lt",
                          past->run.id, name))
        return false;
    return there == 0 || store_eval_read(past->store, past->run.id, step, name, eval, found, err);
}

typedef struct {
    const Problem *problem;
    double right[2]; /* answers of each run */
    long n[2];
    const StoreAnswer *shown[2];
} Pair;

static int pair_order(const void *x, const void *y) {
    const Pair *a = x, *b = y;
    int order = strcmp(a->problem->problem, b->problem->problem);
    if (order == 0)
        order = strcmp(a->problem->answer ? a->problem->answer : "", b->problem->answer ? b->problem->answer : "");
    return order;
}

/* One entry for each problem of either evaluation, its judged answers counted; returns how many. */
static int pairs_of(Pair *pairs, const StoreEval evals[2]) {
    int n = 0, kept = 0;
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < evals[side].n_answers; i++) {
            const StoreAnswer *a = &evals[side].answers[i];
            if (a->class == SCORE_UNJUDGED) continue;
            Pair *pair = &pairs[n++];
            *pair = (Pair){.problem = &a->problem};
            pair->n[side] = 1, pair->right[side] = a->class == SCORE_RIGHT, pair->shown[side] = a;
        }
    if (n > 0) qsort(pairs, (size_t)n, sizeof *pairs, pair_order);
    for (int i = 0; i < n; i++) {
        if (kept == 0 || pair_order(&pairs[kept - 1], &pairs[i]) != 0) {
            pairs[kept++] = pairs[i];
            continue;
        }
        Pair *to = &pairs[kept - 1];
        for (int side = 0; side < 2; side++) {
            to->n[side] += pairs[i].n[side], to->right[side] += pairs[i].right[side];
            if (!to->shown[side]) to->shown[side] = pairs[i].shown[side];
        }
    }
    return kept;
}

static void answer_print(FILE *out, const char *who, const StoreAnswer *answer) {
    Buf text = {0};
    text_line_add(&text, answer->text, answer->text_n, 90);
    fprintf(out, "      %s %s  [%s]\n", who, text.p ? text.p : "", score_class_name(answer->class));
    buf_free(&text);
}

static void pairs_report(const Pair *pairs, int n, FILE *out) {
    long both = 0, better[2] = {0, 0}, shown[2] = {0, 0};
    for (int i = 0; i < n; i++) {
        if (pairs[i].n[0] == 0 || pairs[i].n[1] == 0) continue;
        double diff = pairs[i].right[0] / (double)pairs[i].n[0] - pairs[i].right[1] / (double)pairs[i].n[1];
        both++;
        if (diff != 0) better[diff < 0]++;
    }
    double p = mcnemar_exact(better[0], better[1]);
    fprintf(out, "    %ld problems of both: the first run does better on %ld, the second on %ld\n", both,
            better[0], better[1]);
    fprintf(out, "    McNemar's exact test: p = %.4f: %s\n", p,
            p < 0.05 ? "the difference is hardly chance" : "this may well be chance");
    for (int i = 0; i < n; i++) {
        if (pairs[i].n[0] == 0 || pairs[i].n[1] == 0) continue;
        double diff = pairs[i].right[0] / (double)pairs[i].n[0] - pairs[i].right[1] / (double)pairs[i].n[1];
        if (diff == 0 || shown[diff < 0]++ >= 2) continue;
        Buf text = {0};
        text_line_add(&text, pairs[i].problem->problem, strlen(pairs[i].problem->problem), 90);
        fprintf(out, "    %s\n", text.p ? text.p : "");
        answer_print(out, "first: ", pairs[i].shown[0]);
        answer_print(out, "second:", pairs[i].shown[1]);
        buf_free(&text);
    }
}

static bool evals_compare(Past *a, Past *b, const char *name, FILE *out, Err *err) {
    StoreEval evals[2] = {{0}, {0}};
    bool found[2] = {false, false};
    bool good = eval_last(a, name, &evals[0], &found[0], err) && eval_last(b, name, &evals[1], &found[1], err);
    if (good && found[0] && found[1]) {
        fprintf(out, "evaluation  %s\n", name);
        for (int side = 0; side < 2; side++)
            fprintf(out,
                    "    %s run, step %ld: %.1f %% (95 %%: %.1f to %.1f) of %d answers, %.1f tokens an answer\n",
                    side ? "second" : "first ", evals[side].step, 100 * evals[side].accuracy,
                    100 * evals[side].ci_low, 100 * evals[side].ci_high, evals[side].n, evals[side].mean_length);
        Pair *pairs = MEM_ARRAY(Pair, evals[0].n_answers + evals[1].n_answers + 1);
        pairs_report(pairs, pairs_of(pairs, evals), out);
        free(pairs);
    } else if (good) {
        fprintf(out, "evaluation  %s: only of the %s run\n", name, found[0] ? "first" : "second");
    }
    for (int side = 0; side < 2; side++)
        if (found[side]) store_eval_free(&evals[side]);
    return good;
}

/* The names of what a run was measured on, in the arena. */
static bool eval_names(Past *past, TextList *names, Arena *arena, Err *err) {
    sqlite3_stmt *row = store_ask(past->store, err, "SELECT DISTINCT name FROM evals WHERE run = ? ORDER BY name",
                                  "l", past->run.id);
    int got = row ? 1 : -1;
    while (got == 1 && (got = store_row(past->store, row, err)) == 1) {
        const char **more = arena_alloc(arena, (size_t)names->n + 1, sizeof *more);
        if (names->n) memcpy(more, names->at, (size_t)names->n * sizeof *more);
        names->at = more;
        names->at[names->n++] = store_text(row, 0, NULL, arena);
    }
    return got == 0;
}

bool diff_runs(Past *a, Past *b, FILE *out, Err *err) {
    Arena arena = {0};
    TextList names = {0};
    store_doing(a->store, "comparing it");
    store_doing(b->store, "comparing it");
    fprintf(out, "runs        %s | %s\n", a->folder, b->folder);
    recipes_print(a, b, out);
    bool good =
        metrics_print(a, b, out, err) && eval_names(a, &names, &arena, err) && eval_names(b, &names, &arena, err);
    for (int i = 0; good && i < names.n; i++) {
        bool twice = false;
        for (int k = 0; k < i; k++) twice = twice || strcmp(names.at[k], names.at[i]) == 0;
        if (!twice) good = evals_compare(a, b, names.at[i], out, err);
    }
    if (good && names.n == 0) fprintf(out, "evaluation  neither run has one\n");
    arena_free(&arena);
    return good;
}
