/* guard.c: see guard.h. */
#include "rl/guard.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* ---- answers that list candidates --------------------------------------------------------------------------- */

enum { LIST_TAIL = 240, LIST_ITEMS = 4, LIST_BOXES = 3, ITEM_BYTES = 12, LIST_SEEN = 64 };

/* The end of the number or the single capital letter at p; p when there is none. */
static const char *item_end(const char *p) {
    const char *at = p + (*p == '-');
    if (isdigit((unsigned char)*at)) {
        while (isdigit((unsigned char)*at) || ((*at == '.' || *at == '/') && isdigit((unsigned char)at[1]))) at++;
        return at - p < ITEM_BYTES ? at : p;
    }
    return isupper((unsigned char)*p) && !isalnum((unsigned char)p[1]) ? p + 1 : p;
}

/* Passes over what may stand between two items of a list; *apart says whether it keeps them apart. */
static const char *between(const char *p, bool *apart) {
    for (*apart = false; *p; p++) {
        if (strchr(",;|\n", *p) || (strncmp(p, "or ", 3) == 0 || strncmp(p, "and ", 4) == 0)) *apart = true;
        if (strncmp(p, "or ", 3) == 0)
            p += 2;
        else if (strncmp(p, "and ", 4) == 0)
            p += 3;
        else if (!strchr(" ,;|\n().:*", *p))
            break;
    }
    return p;
}

/* The most different items that stand in one list. */
static int list_length(const char *text) {
    int most = 0;
    for (const char *p = text; *p;) {
        if (p > text && isalnum((unsigned char)p[-1])) {
            p++;
            continue;
        }
        const char *seen[LIST_SEEN], *end;
        size_t length[LIST_SEEN];
        int n = 0;
        bool apart = true;
        const char *start = p;
        while (apart && n < LIST_SEEN && (end = item_end(p)) > p) {
            bool known = false;
            for (int i = 0; i < n; i++)
                known = known || (length[i] == (size_t)(end - p) && memcmp(seen[i], p, length[i]) == 0);
            if (!known) seen[n] = p, length[n++] = (size_t)(end - p);
            p = between(end, &apart);
        }
        if (n > most) most = n;
        if (p == start) p++;
    }
    return most;
}

static int boxes(const char *text) {
    const char *seen[LIST_BOXES];
    int n = 0;
    for (const char *p = text; n < LIST_BOXES && (p = strstr(p, "\\boxed{"));) {
        p += 7;
        size_t length = strcspn(p, "}");
        bool known = false;
        for (int i = 0; i < n; i++)
            known = known || (strncmp(seen[i], p, length) == 0 && strcspn(seen[i], "}") == length);
        if (!known) seen[n++] = p;
    }
    return n;
}

bool guard_lists(const char *text, const char *expected) {
    size_t n = strlen(text);
    const char *tail = n > LIST_TAIL ? text + n - LIST_TAIL : text;
    int wanted = expected ? list_length(expected) : 1;
    int listed = list_length(tail);
    return (listed >= LIST_ITEMS && listed > 2 * wanted) || (wanted <= 1 && boxes(text) >= LIST_BOXES);
}

/* ---- numbers of a step -------------------------------------------------------------------------------------- */

enum { DUPLICATE_BYTES = 16 }; /* a short answer may be that of several problems: a letter, a word */

typedef struct {
    uint64_t text, answer;
} Pair;

static int pair_order(const void *a, const void *b) {
    const Pair *x = a, *y = b;
    return x->text < y->text ? -1 : x->text > y->text;
}

/* Answers, empty or long enough, that were given to problems with different expected answers. */
static long duplicates(Pair *pairs, long n) {
    long found = 0;
    qsort(pairs, (size_t)n, sizeof *pairs, pair_order);
    for (long i = 0, end; i < n; i = end) {
        bool other = false;
        for (end = i; end < n && pairs[end].text == pairs[i].text; end++)
            other = other || pairs[end].answer != pairs[i].answer;
        if (other) found += end - i;
    }
    return found;
}

static void contradictions(const StoreGroup *group, long *against, long *all) {
    for (int i = 0; i < group->n_samples; i++)
        for (int j = 0; j < group->n_samples; j++) {
            const StoreSample *right = &group->samples[i], *wrong = &group->samples[j];
            if (right->class != SCORE_RIGHT || wrong->class != SCORE_WRONG) continue;
            ++*all, *against += wrong->reward > right->reward;
        }
}

void guard_numbers(StoreNumber out[GUARD_NUMBERS], const StoreGroup *groups, int n, const int *eos, int n_eos) {
    long all = 0, ended = 0, listing = 0, unjudged = 0, against = 0, pairs_all = 0, n_pairs = 0;
    for (int g = 0; g < n; g++) all += groups[g].n_samples;
    Pair *pairs = MEM_ARRAY(Pair, all + 1);
    for (int g = 0; g < n; g++) {
        const char *answer = groups[g].problem.answer ? groups[g].problem.answer : groups[g].problem.problem;
        contradictions(&groups[g], &against, &pairs_all);
        for (int i = 0; i < groups[g].n_samples; i++) {
            const StoreSample *s = &groups[g].samples[i];
            int last = s->sample.n > s->sample.n_prompt ? s->sample.tok[s->sample.n - 1] : -1;
            bool end = false;
            for (int e = 0; e < n_eos; e++) end = end || eos[e] == last;
            ended += end;
            listing += guard_lists(s->text, groups[g].problem.answer);
            unjudged += s->class == SCORE_UNJUDGED;
            if (s->text_n == 0 || s->text_n >= DUPLICATE_BYTES)
                pairs[n_pairs++] = (Pair){XXH3_64bits(s->text, s->text_n), XXH3_64bits(answer, strlen(answer))};
        }
    }
    double most = all > 0 ? (double)all : 1;
    out[0] = (StoreNumber){"completions/eos_ratio", (double)ended / most};
    out[1] = (StoreNumber){"completions/duplicate_ratio", (double)duplicates(pairs, n_pairs) / most};
    out[2] = (StoreNumber){"completions/listing_ratio", (double)listing / most};
    out[3] = (StoreNumber){"rewards/contradiction_ratio", pairs_all ? (double)against / (double)pairs_all : NAN};
    out[4] = (StoreNumber){"unjudged_ratio", (double)unjudged / most};
    free(pairs);
}

/* ---- the history -------------------------------------------------------------------------------------------- */

void guards_parts(Guards *guards, const char *const *parts, int n, double problems) {
    guards->problems = problems;
    guards->n_parts = n < GUARD_PARTS ? n : GUARD_PARTS;
    for (int p = 0; p < guards->n_parts; p++) reward_label(parts[p], guards->labels[p], sizeof guards->labels[p]);
}

void guards_free(Guards *guards) {
    free(guards->steps);
    *guards = (Guards){0};
}

void guards_add(Guards *guards, bool new_step, const char *name, double value) {
    static const struct {
        const char *name;
        size_t at;
    } fields[] = {
        {"frac_reward_zero_std", offsetof(GuardStep, no_signal)},
        {"completions/clipped_ratio", offsetof(GuardStep, clipped)},
        {"completions/eos_ratio", offsetof(GuardStep, eos)},
        {"completions/duplicate_ratio", offsetof(GuardStep, duplicate)},
        {"completions/listing_ratio", offsetof(GuardStep, listing)},
        {"accuracy", offsetof(GuardStep, accuracy)},
        {"entropy", offsetof(GuardStep, entropy)},
        {"rewards/contradiction_ratio", offsetof(GuardStep, contradiction)},
        {"unjudged_ratio", offsetof(GuardStep, unjudged)},
    };
    if (new_step) {
        if (guards->n == guards->room)
            guards->steps =
                mem_grow(guards->steps, (size_t)(guards->room = 2 * guards->room + 64), sizeof(GuardStep));
        GuardStep *step = &guards->steps[guards->n++];
        for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
            *(double *)((char *)step + fields[i].at) = NAN;
        for (int p = 0; p < GUARD_PARTS; p++) step->part[p] = NAN;
    }
    CHECK(guards->n > 0, "%s before the first step", name);
    GuardStep *step = &guards->steps[guards->n - 1];
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strcmp(name, fields[i].name) == 0) *(double *)((char *)step + fields[i].at) = value;
    if (step->entropy == 0) step->entropy = NAN; /* no token was learnt from, so none was measured */
    if (strncmp(name, "rewards/", 8) != 0) return;
    for (int p = 0; p < guards->n_parts; p++) {
        size_t n = strlen(guards->labels[p]);
        if (strncmp(name + 8, guards->labels[p], n) == 0 && strcmp(name + 8 + n, "/mean") == 0)
            step->part[p] = value;
    }
}

/* ---- the guards --------------------------------------------------------------------------------------------- */

typedef struct {
    const Guards *guards;
    StoreGuard *out;
    int n;
    Arena *arena;
} Check;

static double at(const Check *c, size_t field, long back) {
    return *(const double *)((const char *)&c->guards->steps[c->guards->n - 1 - back] + field);
}

/* Whether a number has been at least (or, with `sign` -1, at most) `limit` in the last steps, all of them. */
static bool lasts(const Check *c, size_t field, double limit, int sign) {
    for (long i = 0; i < GUARD_STEPS; i++)
        if (i >= c->guards->n || !(sign * at(c, field, i) >= sign * limit)) return false;
    return true;
}

/* Mean of what is a number in steps first .. first + n - 1. */
static double mean_at(const Check *c, size_t field, long first, long n) {
    double sum = 0;
    long count = 0;
    for (long i = first; i < first + n && i < c->guards->n; i++) {
        double value = *(const double *)((const char *)&c->guards->steps[i] + field);
        if (isnan(value)) continue;
        sum += value, count++;
    }
    return count ? sum / (double)count : NAN;
}
static double recent(const Check *c, size_t field) {
    return mean_at(c, field, c->guards->n - GUARD_STEPS > 0 ? c->guards->n - GUARD_STEPS : 0, GUARD_STEPS);
}

static void raise_guard(Check *c, const char *name, const char *format, ...) FORMAT_LIKE(3, 4);
static void raise_guard(Check *c, const char *name, const char *format, ...) {
    char line[400];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    c->out[c->n++] = (StoreGuard){name, arena_text(c->arena, line, strlen(line))};
}

#define FIELD(name) offsetof(GuardStep, name)

static void check_signal(Check *c) {
    if (!lasts(c, FIELD(no_signal), 1, 1)) return;
    double accuracy = recent(c, FIELD(accuracy));
    const char *why = accuracy >= 0.5
                          ? "they are right, so the problems are too easy: take harder ones"
                          : "none is better than another: take easier problems, more num_generations, or "
                            "look whether the reward can be reached (whet show)";
    raise_guard(c, "no-signal",
                "no group has answers with different rewards for %d steps, so nothing is learnt; %s", GUARD_STEPS,
                why);
}

static void check_ends(Check *c) {
    bool never = c->guards->n >= GUARD_STEPS;
    for (long i = 0; i < c->guards->n && never; i++) never = c->guards->steps[i].eos == 0;
    if (never)
        raise_guard(
            c, "no-eos",
            "not one answer has ended with the model's end token since step 1: the prompt template or the end "
            "token may be wrong, or max_completion_length is far too short");
    else if (lasts(c, FIELD(clipped), GUARD_TRUNCATED, 1))
        raise_guard(
            c, "truncated",
            "nearly every answer (%.0f %%) runs out of tokens: raise max_completion_length, or ask for shorter "
            "answers (a length reward, mask_truncated_completions)",
            100 * recent(c, FIELD(clipped)));
}

/* The last window against the one before it that had the best accuracy. */
static void check_accuracy(Check *c) {
    long n = c->guards->n, last = n - GUARD_WINDOW;
    double best = -1;
    long best_at = 0;
    for (long i = 0; i + GUARD_WINDOW <= last; i++) {
        double mean = mean_at(c, FIELD(accuracy), i, GUARD_WINDOW);
        if (mean > best) best = mean, best_at = i;
    }
    double now = n > 0 && last >= GUARD_WINDOW ? mean_at(c, FIELD(accuracy), last, GUARD_WINDOW) : NAN;
    if (!(best - now >= GUARD_FALL)) return;
    for (int p = 1; p < c->guards->n_parts; p++) {
        size_t field = FIELD(part) + (size_t)p * sizeof(double);
        double was = mean_at(c, field, best_at, GUARD_WINDOW), is = mean_at(c, field, last, GUARD_WINDOW);
        if (!(is - was >= GUARD_RISE)) continue;
        raise_guard(
            c, "accuracy-falls",
            "accuracy has fallen from %.0f to %.0f %% while the reward %s rose from %.2f to %.2f: the policy "
            "learns the reward instead of the task; lower that part's weight",
            100 * best, 100 * now, c->guards->labels[p], was, is);
        return;
    }
    /* Nothing that the policy could have learnt instead: two shares, compared as if a problem were one answer. */
    double both = (best + now) / 2, error = sqrt(both * (1 - both) * 2 / (GUARD_WINDOW * c->guards->problems));
    if (now <= GUARD_COLLAPSE * best && best - now >= GUARD_SURE * error)
        raise_guard(c, "accuracy-collapses",
                    "accuracy has fallen from %.0f to %.0f %% and no other reward rose for it: the policy is "
                    "breaking (or the "
                    "problems have become harder); lower learning_rate, add beta, go back to a checkpoint",
                    100 * best, 100 * now);
}

static void check_answers(Check *c) {
    if (lasts(c, FIELD(duplicate), GUARD_DUPLICATE, 1))
        raise_guard(
            c, "duplicates",
            "%.0f %% of the answers are given word for word to problems with other answers (or are empty): the "
            "policy has stopped looking at the problem; lower learning_rate, add beta, look at the reward",
            100 * recent(c, FIELD(duplicate)));
    if (lasts(c, FIELD(listing), GUARD_LISTING, 1))
        raise_guard(
            c, "listing",
            "%.0f %% of the answers list candidates instead of deciding: make the reward take one final answer "
            "only (ask for a box, judge strictly)",
            100 * recent(c, FIELD(listing)));
}

static void check_entropy(Check *c) {
    double first = mean_at(c, FIELD(entropy), 0, GUARD_STEPS), now = recent(c, FIELD(entropy));
    if (!lasts(c, FIELD(entropy), GUARD_ENTROPY, -1) || !(now < GUARD_ENTROPY_KEPT * first)) return;
    if (!(recent(c, FIELD(accuracy)) < GUARD_ENTROPY_RIGHT)) return;
    raise_guard(
        c, "entropy",
        "entropy has fallen from %.2f to %.3f nats a token at %.0f %% accuracy: answers hardly vary, so there is "
        "little left to learn from; lower learning_rate, raise epsilon_high or temperature, go back to a "
        "checkpoint",
        first, now, 100 * recent(c, FIELD(accuracy)));
}

static void check_reward(Check *c) {
    double sum = 0;
    int known = 0;
    for (long i = 0; i < GUARD_PAIRS && i < c->guards->n; i++) {
        double share = at(c, FIELD(contradiction), i);
        if (!isnan(share)) sum += share, known++;
    }
    if (known >= GUARD_STEPS && sum / known > GUARD_CONTRADICTION)
        raise_guard(
            c, "contradiction",
            "in %.0f %% of the pairs of a right and a wrong answer to one problem the wrong one has the higher "
            "reward: the parts of the reward contradict the verdict; raise the weight of %s or lower the others",
            100 * sum / known, c->guards->n_parts ? c->guards->labels[0] : "the first part");
    double unjudged = c->guards->n > 0 ? at(c, FIELD(unjudged), 0) : 0;
    if (unjudged > GUARD_UNJUDGED)
        raise_guard(
            c, "unjudged",
            "%.1f %% of the answers could not be judged and teach nothing: look at expected answers and judge "
            "(SELECT verdict, reason FROM scores WHERE class = 'unjudged')",
            100 * unjudged);
}

int guards_check(const Guards *guards, StoreGuard out[GUARDS_MOST], Arena *arena) {
    Check check = {guards, out, 0, arena};
    check_signal(&check);
    check_ends(&check);
    check_accuracy(&check);
    check_answers(&check);
    check_entropy(&check);
    check_reward(&check);
    return check.n;
}
