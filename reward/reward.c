/* reward.c: an open set of judges: the table of kinds, and one queue for what they answer.
 *
 * A judge that answers at once runs inside reward_submit and its score waits in the queue; a judge that works
 * elsewhere is asked in reward_poll. Nothing here knows what a judge compares.
 * Tested by tests/test_reward_math.c and tests/test_reward_format.c.
 */
#include "reward/reward.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The table of judges: to add one, write its JudgeKind and add its row. */
static const JudgeKind *const kinds[] = {
    &judge_math,   &judge_format,     &judge_code,         &judge_code_share, &judge_reasoning, &judge_countdown,
    &judge_game24, &judge_choice,     &judge_think_format, &judge_tag_count,  &judge_steps,     &judge_overlong,
    &judge_cosine, &judge_repetition, &judge_language,     &judge_exec,
};

/* Names under which TRL and open-r1 know a judge. */
static const char *const aliases[][2] = {
    {"accuracy_reward", "math"},
    {"accuracy", "math"},
    {"reasoning_accuracy_reward", "reasoning_accuracy"},
    {"think_format_reward", "think_format"},
    {"get_soft_overlong_punishment", "soft_overlong"},
    {"soft_overlong_punishment", "soft_overlong"},
    {"length", "soft_overlong"},
    {"get_cosine_scaled_reward", "cosine"},
    {"cosine_scaled_reward", "cosine"},
    {"get_repetition_penalty_reward", "repetition"},
    {"repetition_penalty_reward", "repetition"},
    {"repetition_penalty", "repetition"},
    {"binary_code", "code"},
};

const char *reward_alias(const char *name) {
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (!strcmp(aliases[i][0], name)) return aliases[i][1];
    return NULL;
}

typedef struct {
    int64_t ticket;
    int part;
    RewardScore score;
} Finished;

typedef struct {
    const JudgeKind *kind;
    void *self; /* of judges with open() */
    int64_t pending;
} Part;

struct Reward {
    RewardConf conf;
    RewardShape shape;
    int n_parts;
    Part *parts;
    Finished *queue; /* a ring of the scores that wait to be taken */
    size_t head, n_queued, room;
};

const char *score_class_name(ScoreClass class) {
    static const char *const names[] = {"right", "wrong", "unjudged"};
    CHECK((unsigned)class <= SCORE_UNJUDGED, "class %d", (int)class);
    return names[class];
}

void reward_score_free(RewardScore *score) {
    free(score->reason);
    free(score->detail);
    score->reason = score->detail = NULL;
}

bool reward_asked(const RewardScore *score) { return !score->verdict || strcmp(score->verdict, "not-asked") != 0; }

double reward_total(const RewardScore *scores, const double *weights, int n, ScoreClass *class) {
    double sum = 0;
    bool any = false, unjudged = false;
    for (int i = 0; i < n; i++) {
        if (!reward_asked(&scores[i])) continue;
        if (!any) *class = scores[i].class;
        any = true;
        unjudged = unjudged || scores[i].class == SCORE_UNJUDGED;
        sum += (weights ? weights[i] : 1) * scores[i].value;
    }
    if (any && !unjudged) return sum;
    *class = SCORE_UNJUDGED;
    return NAN;
}

/* "exec:PROGRAM" is the kind exec with an argument; the others take none. */
static const JudgeKind *kind_find(const char *name, const char **argument) {
    size_t n = strcspn(name, ":");
    *argument = name[n] ? name + n + 1 : NULL;
    if (reward_alias(name)) name = reward_alias(name), n = strlen(name);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strlen(kinds[i]->name) == n && !memcmp(kinds[i]->name, name, n) &&
            (*argument != NULL) == (kinds[i] == &judge_exec))
            return kinds[i];
    return NULL;
}

void reward_label(const char *name, char *out, size_t room) {
    const char *from = name, *end = name + strlen(name);
    if (!strncmp(name, "exec:", 5)) {
        /* Of "python3 ./my_reward.py --fast", the word that names a file of code; else the first. */
        const char *word = name + 5, *script = NULL;
        for (const char *p = word; *p && !script; p += strcspn(p, " "), p += strspn(p, " "))
            if (p > word && memchr(p, '.', strcspn(p, " ")) && *p != '-') script = p;
        if (script && !memchr(word, '.', strcspn(word, " "))) word = script;
        from = word;
        end = word + strcspn(word, " ");
        for (const char *p = word; p < end; p++)
            if (*p == '/' && p + 1 < end) from = p + 1;
        const char *dot = memchr(from, '.', (size_t)(end - from));
        if (dot && dot > from) end = dot;
    }
    snprintf(out, room, "%.*s", (int)(end - from), from);
}

static void names_list(char *out, size_t room) {
    out[0] = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (i) strncat(out, ", ", room - strlen(out) - 1);
        strncat(out, kinds[i] == &judge_exec ? "exec:PROGRAM" : kinds[i]->name, room - strlen(out) - 1);
    }
}

Reward *reward_open(const char *const *names, int n_names, const RewardConf *conf, Err *err) {
    CHECK(n_names > 0, "no reward function named (%d)", n_names);
    Reward *reward = MEM_NEW(Reward);
    reward->conf = *conf;
    reward->shape = conf->shape ? *conf->shape : reward_shape_default;
    reward->conf.shape = &reward->shape;
    reward->parts = MEM_ARRAY(Part, n_names);
    for (int i = 0; i < n_names; i++) {
        const char *argument;
        const JudgeKind *kind = kind_find(names[i], &argument);
        if (!kind) {
            char known[512];
            names_list(known, sizeof known);
            err_set(err, "reward function \"%s\" is not known; known are: %s", names[i], known);
            reward_close(reward);
            return NULL;
        }
        Part *part = &reward->parts[reward->n_parts];
        part->kind = kind;
        if (kind->open && !(part->self = kind->open(&reward->conf, argument, err))) {
            reward_close(reward);
            return NULL;
        }
        reward->n_parts++;
    }
    return reward;
}

void reward_close(Reward *reward) {
    if (!reward) return;
    for (int i = 0; i < reward->n_parts; i++)
        if (reward->parts[i].kind->close) reward->parts[i].kind->close(reward->parts[i].self);
    for (size_t i = 0; i < reward->n_queued; i++)
        reward_score_free(&reward->queue[(reward->head + i) % reward->room].score);
    free(reward->queue);
    free(reward->parts);
    free(reward);
}

int reward_parts(const Reward *reward) { return reward->n_parts; }

static void queue_push(Reward *reward, Finished finished) {
    if (reward->n_queued == reward->room) {
        size_t room = reward->room ? 2 * reward->room : 64;
        Finished *queue = MEM_ARRAY(Finished, room);
        for (size_t i = 0; i < reward->n_queued; i++) queue[i] = reward->queue[(reward->head + i) % reward->room];
        free(reward->queue);
        reward->queue = queue;
        reward->room = room;
        reward->head = 0;
    }
    reward->queue[(reward->head + reward->n_queued++) % reward->room] = finished;
}

/* Whether part p is asked about problems of this kind. */
static bool part_asked(const Reward *reward, int p, const RewardItem *item) {
    const char *const *asked = reward->conf.kinds;
    return !asked || !*asked[p] || fnmatch(asked[p], item->kind ? item->kind : "", 0) == 0;
}

static JudgeNow *truth_of(const Reward *reward, const RewardItem *item) {
    for (int p = 0; p < reward->n_parts; p++) {
        const JudgeKind *kind = reward->parts[p].kind;
        if (kind->truth && kind->judge && part_asked(reward, p, item)) return kind->judge;
    }
    return NULL;
}

bool reward_submit(Reward *reward, const RewardItem *items, int n, int64_t ticket, Err *err) {
    for (int p = 0; p < reward->n_parts; p++) {
        Part *part = &reward->parts[p];
        for (int i = 0; i < n; i++) {
            if (!part_asked(reward, p, &items[i])) {
                RewardScore score = {.value = NAN, .class = SCORE_UNJUDGED, .verdict = "not-asked"};
                queue_push(reward, (Finished){ticket + i, p, score});
            } else if (part->kind->judge) {
                Finished finished = {.ticket = ticket + i, .part = p};
                RewardConf conf = reward->conf;
                double start = clock_seconds();
                conf.truth = truth_of(reward, &items[i]);
                part->kind->judge(&conf, &items[i], &finished.score);
                finished.score.microseconds = 1e6 * (clock_seconds() - start);
                queue_push(reward, finished);
            } else {
                if (!part->kind->submit(part->self, ticket + i, &items[i], err)) return false;
                part->pending++;
            }
        }
    }
    return true;
}

/* Asks the judges that work elsewhere, each for at most `seconds`. */
static int parts_poll(Reward *reward, double seconds, int64_t *ticket, int *part, RewardScore *score, Err *err) {
    for (int p = 0; p < reward->n_parts; p++) {
        Part *at = &reward->parts[p];
        if (!at->pending) continue;
        int got = at->kind->poll(at->self, seconds, ticket, score, err);
        if (got > 0) {
            at->pending--;
            *part = p;
        }
        if (got) return got;
    }
    return 0;
}

int reward_poll(Reward *reward, double seconds, int64_t *ticket, int *part, RewardScore *score, Err *err) {
    if (reward->n_queued) {
        Finished *finished = &reward->queue[reward->head];
        *ticket = finished->ticket;
        *part = finished->part;
        *score = finished->score;
        reward->head = (reward->head + 1) % reward->room;
        reward->n_queued--;
        return 1;
    }
    int waiting = 0;
    for (int p = 0; p < reward->n_parts; p++) waiting += reward->parts[p].pending > 0;
    if (!waiting) return 0;
    double end = clock_seconds() + seconds, slice = waiting == 1 ? seconds : 0.005;
    for (;;) {
        double left = end - clock_seconds();
        int got = parts_poll(reward, left < slice ? (left > 0 ? left : 0) : slice, ticket, part, score, err);
        if (got || clock_seconds() >= end) return got;
    }
}

int64_t reward_pending(const Reward *reward) {
    int64_t pending = (int64_t)reward->n_queued;
    for (int p = 0; p < reward->n_parts; p++) pending += reward->parts[p].pending;
    return pending;
}
