/* store_million.c: makes a store as large as a long run leaves it, for long_store.sh.
 *     store_million PATH SAMPLES TOKENS
 * Groups of 8 answers, 16 groups a step, 20000 problems. Ids follow Zipf's law as those of text do, every id
 * stands for a piece of text, log-probabilities are spread as a language model's: what takes room is as in a real
 * run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rl/store.h"

enum { GROUPS = 16, GROUP = 8, PROMPT = 40, VOCAB = 49152, PROBLEMS = 20000 };

static char pieces[VOCAB][16];

/* Rarer ids are longer pieces, as in a BPE vocabulary: 4 bytes a token in the mean. */
static void pieces_make(void) {
    for (int id = 0; id < VOCAB; id++) {
        Rng rng = {(uint64_t)id, 0};
        int n = 2 + (int)(log2(id + 2) * 0.4), at = 0;
        if (id % 2) pieces[id][at++] = ' ';
        while (at < n) pieces[id][at++] = (char)('a' + rng_below(&rng, 26));
    }
}

static int id_draw(Rng *rng) { return (int)(pow(VOCAB, rng_uniform(rng)) - 1); }

static void sample_fill(StoreSample *s, int index, long step, int tokens, Arena *arena, Rng *rng) {
    Sample *x = &s->sample;
    *x = (Sample){.index = index, .n_prompt = PROMPT, .n = PROMPT + tokens};
    x->finish = rng_below(rng, 4) ? FINISH_STOP : FINISH_LENGTH;
    x->tok = arena_alloc(arena, (size_t)x->n, sizeof(int));
    x->logp = arena_alloc(arena, (size_t)x->n, sizeof(real));
    char *text = arena_alloc(arena, 16 * (size_t)tokens + 1, 1);
    for (int t = 0; t < PROMPT; t++) x->tok[t] = t + 5;
    for (int t = PROMPT; t < x->n; t++) {
        x->tok[t] = id_draw(rng);
        x->logp[t] = (real)-exp(3 * rng_normal(rng) - 2);
        s->text_n += (size_t)sprintf(text + s->text_n, "%s", pieces[x->tok[t]]);
    }
    x->draw_logp = x->logp;
    x->segments[0] = (Segment){0, PROMPT, ROLE_PROMPT, false, step - 1};
    x->segments[1] = (Segment){PROMPT, tokens, ROLE_MODEL, true, step - 1};
    x->n_segments = 2;
    bool right = rng_below(rng, 3) == 0;
    s->text = text, s->stage = "train";
    s->class = right ? SCORE_RIGHT : SCORE_WRONG, s->reward = right, s->advantage = rng_normal(rng);
    s->scores = arena_alloc(arena, 1, sizeof(RewardScore));
    s->scores[0] = (RewardScore){s->reward,
                                 s->class,
                                 right ? "equal-exact" : "different",
                                 right ? NULL : arena_format(arena, "the answer is %d, not %d", index, tokens),
                                 NULL,
                                 10 * rng_uniform(rng)};
}

static void step_fill(StoreStep *step, long number, int tokens, Arena *arena) {
    static const char *const parts[] = {"math"};
    static const char *const names[] = {"loss",
                                        "grad_norm",
                                        "learning_rate",
                                        "epoch",
                                        "reward",
                                        "reward_std",
                                        "entropy",
                                        "completions/mean_length",
                                        "clip_ratio/low_mean",
                                        "clip_ratio/high_mean"};
    enum { N_NAMES = sizeof names / sizeof *names };
    Rng rng = {(uint64_t)number, 1};
    *step = (StoreStep){.step = number, .version = number, .path = "plain", .parts = parts, .n_parts = 1};
    step->weight_hash = rng_next(&rng), step->moment_hash = rng_next(&rng);
    step->metrics = arena_alloc(arena, N_NAMES, sizeof(StoreNumber)), step->n_metrics = N_NAMES;
    for (int i = 0; i < N_NAMES; i++) step->metrics[i] = (StoreNumber){names[i], rng_normal(&rng)};
    step->seconds = arena_alloc(arena, 1, sizeof(StoreNumber)), step->n_seconds = 1;
    step->seconds[0] = (StoreNumber){"step", 1 + rng_uniform(&rng)};
    step->groups = arena_alloc(arena, GROUPS, sizeof(StoreGroup)), step->n_groups = GROUPS;
    int *prompt = arena_alloc(arena, PROMPT, sizeof(int));
    for (int t = 0; t < PROMPT; t++) prompt[t] = t + 5;
    for (int g = 0; g < GROUPS; g++) {
        long place = (number - 1) * GROUPS + g, p = place % PROBLEMS;
        char *text =
            arena_format(arena, "Problem %ld: Ann has %ld apples and buys %ld more. How many are there?", p, p, p);
        StoreGroup *group = &step->groups[g];
        *group = (StoreGroup){.source = "train.jsonl",
                              .place = (uint64_t)place,
                              .key = rng_next(&rng),
                              .prompt = text,
                              .prompt_tok = prompt,
                              .n_prompt = PROMPT,
                              .reward_mean = 0.3,
                              .reward_std = 0.5,
                              .judged = GROUP,
                              .signal = g % 2,
                              .n_samples = GROUP};
        group->problem = (Problem){.id = arena_format(arena, "%ld", p),
                                   .kind = "math",
                                   .problem = text,
                                   .answer = arena_format(arena, "%ld", 2 * p)};
        group->samples = arena_alloc(arena, GROUP, sizeof(StoreSample));
        for (int i = 0; i < GROUP; i++) sample_fill(&group->samples[i], i, number, tokens, arena, &rng);
    }
}

int main(int argc, char **argv) {
    if (argc != 4) die("usage: store_million PATH SAMPLES TOKENS");
    long samples = atol(argv[2]), steps = (samples + GROUPS * GROUP - 1) / (GROUPS * GROUP);
    int tokens = atoi(argv[3]);
    Err err = {0};
    pieces_make();
    Store *store = store_open(argv[1], 0, &err);
    StoreRun run = {.recipe = "{}", .path = "plain", .version = "test"};
    bool good = store && store_run_begin(store, &run, &err);
    double writing = 0;
    for (long number = 1; good && number <= steps; number++) {
        Arena arena = {0};
        StoreStep step;
        step_fill(&step, number, tokens, &arena);
        double began = clock_seconds();
        good = store_step_write(store, run.id, &step, &err);
        writing += clock_seconds() - began;
        arena_free(&arena);
    }
    store_close(store);
    if (!good) die("%s", err.msg);
    printf("%ld samples of %d tokens in %ld steps, %.1f ms to write one\n", steps * GROUPS * GROUP, tokens, steps,
           1000 * writing / (double)steps);
    return 0;
}
