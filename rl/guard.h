/* guard.h: what goes wrong in training runs, said in one plain line each: what it means, and what to try.
 *
 * Knows: the metrics of the steps so far, and a few numbers about the answers of a step. Must never know: where
 * the numbers come from. A guard is a function of the run alone, so that a run that is gone on with raises the
 * same ones. Structs: Guards (the history; guards_free), GuardStep. The thresholds below were set on the runs that
 * tests/goldens/guard_runs.py names, and are tested on others. Tested by tests/test_rl_guard.c.
 */
#ifndef WHET_RL_GUARD_H
#define WHET_RL_GUARD_H

#include "rl/store.h"

enum {
    GUARD_STEPS = 3,   /* what is wrong must be so for as many steps in a row */
    GUARD_WINDOW = 10, /* steps of the means that falling and rising are read from */
    GUARD_PAIRS = 5,   /* steps over which contradictions are averaged */
    GUARD_PARTS = 8,
    GUARDS_MOST = 9,
    GUARD_NUMBERS = 5,
};
#define GUARD_TRUNCATED 0.98    /* share of answers that ran out of tokens */
#define GUARD_FALL 0.15         /* accuracy that a window has lost against the best one before it ... */
#define GUARD_RISE 0.10         /* ... while another part of the reward has gained this */
#define GUARD_COLLAPSE 0.5      /* or, with no such part, share of that best accuracy that is left at most ... */
#define GUARD_SURE 5.5          /* ... and standard errors between the two, were all answers to a problem alike */
#define GUARD_DUPLICATE 0.5     /* share of answers that were also given to a problem with another answer */
#define GUARD_LISTING 0.25      /* share of answers that list candidates */
#define GUARD_ENTROPY 0.15      /* nats a token, below which the policy hardly varies ... */
#define GUARD_ENTROPY_KEPT 0.2  /* ... and share of the first steps' entropy that is left ... */
#define GUARD_ENTROPY_RIGHT 0.5 /* ... at less accuracy than this: a model that is right may be sure */
#define GUARD_CONTRADICTION                                                                                       \
    0.3 /* share of pairs of a right and a wrong answer in which the wrong one has more reward */
#define GUARD_UNJUDGED 0.02 /* share of answers that could not be judged */

typedef struct {
    double no_signal, clipped, eos, accuracy, entropy, duplicate, listing, contradiction, unjudged;
    double part[GUARD_PARTS]; /* mean of each part of the reward; NaN: there is none */
} GuardStep;

typedef struct {
    GuardStep *steps;
    long n, room;
    double problems; /* that a step's accuracy is measured on */
    int n_parts;
    char labels[GUARD_PARTS][64];
} Guards; /* zero-initialise */

/* The parts of the reward, as reward_funcs names them, and how many new problems a step has. */
void guards_parts(Guards *guards, const char *const *parts, int n, double problems);

/* What the guards ask of a step's answers, as metrics: completions/eos_ratio, completions/duplicate_ratio,
 * completions/listing_ratio, rewards/contradiction_ratio, unjudged_ratio. */
void guard_numbers(StoreNumber out[GUARD_NUMBERS], const StoreGroup *groups, int n, const int *eos, int n_eos);

/* One more number of the history. Steps come in order. */
void guards_add(Guards *guards, bool new_step, const char *name, double value);

/* Those that hold after the last step; returns how many. The lines lie in the arena. */
int guards_check(const Guards *guards, StoreGuard out[GUARDS_MOST], Arena *arena);
void guards_free(Guards *guards);

/* Whether an answer names many candidates in one breath, or in several boxes, where the expected answer does not.
 */
bool guard_lists(const char *text, const char *expected);

#endif
