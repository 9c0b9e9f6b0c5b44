/* eval.h: how many problems a policy solves: problems in, answers, verdicts and an accuracy out.
 *
 * Knows: source, template, engine, judges, for `whet eval` and for the trainer alike. Must never know: losses, the
 * store's tables (it fills the store's structs). Structs: EvalConf (views, owns nothing), Evaluation (what came
 * out: its strings lie in eval.arena; store_eval_free(&evaluation.eval) frees all). Tested by
 * tests/test_rl_eval.c.
 */
#ifndef WHET_RL_EVAL_H
#define WHET_RL_EVAL_H

#include "rl/prompt.h"
#include "rl/store.h"

typedef struct {
    const char *name; /* of the data, as the store names it */
    Source *source;
    long n; /* problems: the first so many; 0: all */
    PromptForm form;
    const Tokenizer *tok;
    Engine *engine;
    int max_tokens; /* of the engine: problems whose prompt leaves no room for max_new are left out */
    Reward *reward;
    const double *weights; /* of the reward's parts; NULL: 1 each */
    int num_samples;       /* answers to each problem */
    double temperature;    /* 0: greedy */
    int top_k;
    double top_p, min_p;
    int max_new;
    const char *const *stop;                             /* NULL-terminated, or NULL */
    uint64_t key;                                        /* of the random numbers */
    void (*progress)(void *self, long done, long total); /* NULL: none */
    void *self;
} EvalConf;

enum { PASS_MAX = 24 };
typedef struct {
    StoreEval eval; /* n: answers judged; accuracy: their share that is right, NaN of none; answers in the order of
                       problems */
    long problems;  /* with a judged answer: the interval is Wilson's for so many */
    long left_out;  /* whose prompt is too long */
    int unjudged;   /* answers */
    double reward;  /* mean over judged answers; NaN when there are none */
    double clipped; /* share of answers that ran out of tokens */
    int n_pass;     /* unbiased pass@k for k = 1, 2, 4, ... and num_samples, when that is above 1 */
    struct {
        int k;
        double share;
    } pass[PASS_MAX];
} Evaluation;

/* The first part of the reward decides what is right; an answer with an unjudged part is unjudged. */
bool evaluate(const EvalConf *conf, Evaluation *evaluation, Err *err);
/* Tokens of the longest prompt among the first n problems (0: all). -1 and err when the template is wrong. */
long eval_longest_prompt(const Tokenizer *tok, Source *source, long n, const PromptForm *form, Err *err);

/* The share of sets of k among n answers that hold a right one, when c are right: 1 - C(n-c, k) / C(n, k). (Chen
 * et al., "Evaluating large language models trained on code", 2021.) */
double pass_at_k(int n, int c, int k);

#endif
