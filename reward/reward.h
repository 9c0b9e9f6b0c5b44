/* reward.h: the room that judges text.
 *
 * Knows: problems' expected answers, completions and rules that compare them; programs that run tests.
 * Must never know: tokens, tensors, models, the store, who asked. Strings and plain numbers only.
 * Structs: RewardItem (what is judged), RewardScore (one part's judgement), Reward (an open set of judges).
 * Ownership: items are views that must live until their scores have been taken; the strings of a score belong to
 * the caller, who frees them with reward_score_free.
 * Tested by tests/test_reward_*.c.
 *
 * A batch is submitted and answered when it can be: submit returns at once, poll gives what is ready, in any
 * order. So slow judges overlap with sampling, and group-level judges, external programs and reward models need no
 * other interface.
 */
#ifndef WHET_REWARD_H
#define WHET_REWARD_H

#include "kernels/base.h"

typedef enum {
    SCORE_RIGHT,
    SCORE_WRONG,    /* all that the answer itself causes: nothing found, unparseable, too large, over a limit */
    SCORE_UNJUDGED, /* not the candidate's fault: unusable gold answer, a judge that failed after one retry */
} ScoreClass;

const char *score_class_name(ScoreClass class); /* "right", "wrong", "unjudged" */

typedef struct {
    const char *problem; /* the problem's text, or NULL */
    const char *kind;    /* the kind of problem (which judges apply), or NULL for any */
    const char *prompt;  /* what the model was given, or NULL */
    const char
        *completion;    /* what the model wrote; NUL-terminated UTF-8 (invalid bytes are the judge's to bear) */
    const char *answer; /* the expected answer, or NULL */
    const char *fields; /* the whole row as the text of a JSON object (tests, language, limits, ...), or NULL */
    int64_t group;      /* items of one group answer the same problem */
    int index;          /* place inside the group */
    int n_tokens;       /* length of the completion */
    const char *finish; /* "stop", "length", or NULL */
} RewardItem;

typedef struct {
    double value; /* NaN when class is SCORE_UNJUDGED; else the reward, 1 and 0 for most judges */
    ScoreClass class;
    const char *verdict; /* a constant: "equal-exact", "no-answer", "wrong-answer", ... never freed */
    char *reason;        /* a sentence for a person, or NULL */
    char *detail;        /* the text of a JSON object with further fields ("extracted", "tests", ...), or NULL */
    double microseconds; /* what judging took */
} RewardScore;

void reward_score_free(RewardScore *score);

/* Whether the judge was asked: reward_open's `kinds` can keep it to some kinds of problems. One that was not has
 * class unjudged, verdict "not-asked" and no say in the total. */
bool reward_asked(const RewardScore *score);
/* What n parts say together: the weighted sum of those that were asked (weights NULL: 1 each), and the first one's
 * class. NaN and SCORE_UNJUDGED where one of them, or all of them, could not say. */
double reward_total(const RewardScore *scores, const double *weights, int n, ScoreClass *class);

typedef struct Judge Judge;

/* What judges of shape are told. */
typedef struct {
    long overlong_max, overlong_cache; /* soft_overlong: tokens */
    long cosine_max;                   /* cosine: tokens, and what it is worth at 0 and at these */
    double cosine_min_wrong, cosine_max_wrong, cosine_min_correct, cosine_max_correct;
    long repetition_n; /* repetition: words of a group */
    double repetition_penalty;
    const char *language; /* of rows without `lang`: en, zh, ... */
} RewardShape;
extern const RewardShape reward_shape_default; /* TRL's values */

typedef struct RewardConf RewardConf;
typedef void JudgeNow(const RewardConf *conf, const RewardItem *item, RewardScore *score);

struct RewardConf {
    const RewardShape *shape; /* NULL: reward_shape_default */
    const char *const
        *kinds;              /* [names] a pattern (*, ?) of the kinds of problems each judge is asked; NULL: all */
    JudgeNow *truth;         /* set by reward_submit: the first of the judges that says right or wrong */
    bool strict;             /* math: only the last box counts */
    bool explain;            /* fill reason and detail at length */
    bool allow_weak_sandbox; /* code: run candidates with fewer layers of isolation than asked */
    int workers;             /* code: how many candidates at once; 0: as many as cores */
    int exec_workers;        /* exec: copies of the program; 0: 1 */
    int exec_parallel;       /* exec: requests that a copy has at once; 0: 8 */
    double exec_deadline;    /* exec: seconds of silence after which a copy is killed; 0: 30 */
};

/* A kind of judge: one row of the table in reward.c. To add one: write a file with these functions, add its row.
 * Judges that answer at once give `judge`; judges that work elsewhere (processes) give open, submit, poll, close.
 * judge() must be safe to call from several threads at once. */
typedef struct {
    const char *name; /* as reward_funcs names it */
    bool truth;       /* it says whether an answer is right, not how it is written */
    JudgeNow *judge;
    /* NULL and err when it can't run. argument: what stands after the name and a colon, or NULL. */
    void *(*open)(const RewardConf *conf, const char *argument, Err *err);
    bool (*submit)(void *self, int64_t ticket, const RewardItem *item, Err *err);
    /* Waits up to `seconds` for one finished score: 1 and *ticket, *score; 0 when none came; -1 and err. */
    int (*poll)(void *self, double seconds, int64_t *ticket, RewardScore *score, Err *err);
    void (*close)(void *self);
} JudgeKind;

extern const JudgeKind judge_math, judge_format, judge_code, judge_code_share, judge_exec;
extern const JudgeKind judge_overlong, judge_cosine, judge_repetition, judge_tag_count, judge_think_format,
    judge_steps, judge_reasoning, judge_countdown, judge_game24, judge_choice, judge_language;

/* An open set of judges, in the order of reward_funcs. */
typedef struct Reward Reward;
Reward *reward_open(const char *const *names, int n_names, const RewardConf *conf, Err *err);
/* What a judge is called here whom TRL or open-r1 calls `name`; NULL when there is no other name for it. */
const char *reward_alias(const char *name);
int reward_parts(const Reward *reward);
/* What metrics call a judge: its name, and the program's for exec: my_reward for "exec:./my_reward.py --fast". */
void reward_label(const char *name, char *out, size_t room);
/* Hands n items to every judge. `ticket` is the caller's number of the first item; the others follow it. */
bool reward_submit(Reward *reward, const RewardItem *items, int n, int64_t ticket, Err *err);
/* Waits up to `seconds` for one finished part: 1 and *ticket, *part, *score; 0 when none is ready; -1 and err. */
int reward_poll(Reward *reward, double seconds, int64_t *ticket, int *part, RewardScore *score, Err *err);
int64_t reward_pending(const Reward *reward); /* parts submitted and not yet taken */
void reward_close(Reward *reward);

/* Measures which layers of isolation hold here for candidate programs. *text (the caller's, or NULL) tells them;
 * false and err when some that code rewards ask for do not. */
bool reward_sandbox_report(char **text, Err *err);

#endif
