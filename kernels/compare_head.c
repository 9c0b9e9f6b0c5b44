/* compare_head.c: log-probabilities, their gradient and sampling of a device against the CPU's. */
#include "kernels/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BOTH for (int i = 0; i < 2; i++)

typedef struct {
    const char *name;
    int t, d, vocab, used;
    DType type;
    bool kept, entropy;
    real cap, inv_temp;
} Case;

/* Sets of ids, with the target, for half of the rows; all ids for the others. */
static int *sets_of(Compare *c, const Case *k, const int *target) {
    int words = KEPT_WORDS(k->vocab), *sets = MEM_ARRAY(int, k->t *words);
    Rng rng = {c->seed++, 0};
    for (int t = 0; t < k->t; t++)
        for (int id = 0; id < k->vocab; id++)
            if (t % 2 || id == target[t] || rng_below(&rng, 3) == 0)
                sets[t * words + id / 32] |= (int)(1u << id % 32);
    return sets;
}

static void compare_logprob(Compare *c, const Case *k) {
    char shape[64];
    shape_text(shape, "%d rows, %d of %d, %s%s", k->t, k->d, k->vocab, k->type == K_BF16 ? "bf16" : "fp32",
               k->name);
    Two host = two_new(c, k->vocab, k->d, 0, K_REAL, FILL_RANDOM, 2 / sqrt(k->d));
    Two x = two_new(c, k->t, k->d, 0, k->type, FILL_RANDOM, 1), logp = two_new(c, 1, k->t, 0, K_REAL, FILL_NAN, 1);
    Two lse = two_new(c, 1, k->t, 0, K_REAL, FILL_NAN, 1), entropy = two_new(c, 1, k->t, 0, K_REAL, FILL_NAN, 1);
    Two dx = two_new(c, k->t, k->d, 0, K_REAL, FILL_NAN, 1),
        dw = two_new(c, k->vocab, k->d, 0, K_REAL, FILL_RANDOM, 0.01);
    real *coef = host_random(c, (size_t)k->t, 1, K_REAL), *ent = host_random(c, (size_t)k->t, 0.3, K_REAL);
    int *target = MEM_ARRAY(int, k->t);
    for (int t = 0; t < k->t; t++) target[t] = t % 5 == 3 ? -1 : (t * 37) % k->vocab;
    int *sets = sets_of(c, k, target);
    BOTH {
        Dev *dev = c->dev[i];
        Err err = {0};
        Mat w = k_mat_new(dev, k->vocab, k->d, k->type, true, &err);
        Ten kept = k_new(dev, k->t, KEPT_WORDS(k->vocab), K_I32, &err);
        if (!w.fwd.p || !kept.p) die("%s", err.msg);
        k_put(dev, kept, sets);
        k_mat_pack(dev, &w, host.at[i], 0);
        Ten set = k->kept ? kept : TEN_NONE;
        k_logprob(dev, logp.at[i], lse.at[i], k->entropy ? entropy.at[i] : TEN_NONE, x.at[i], &w, target, set,
                  k->inv_temp, k->cap);
        k_logprob_back(dev, dx.at[i], dw.at[i], x.at[i], &w, target, set, coef, k->entropy ? ent : NULL, lse.at[i],
                       k->entropy ? entropy.at[i] : TEN_NONE, k->inv_temp, k->cap, false);
        k_mat_free(dev, &w), k_free(dev, &kept);
    }
    /* A logit's error moves its logarithm by as much; the gradient is rounded to the products' type. */
    double sum = BOUND_SUM(4 * k->d) * 8, back = k->type == K_BF16 ? 0x1p-7 : 0x1p-16;
    two_check(c, "logprob", shape, &logp, sum), two_check(c, "logprob, lse", shape, &lse, sum);
    if (k->entropy)
        two_check(c, "logprob, entropy", shape, &entropy, sum);
    else
        two_free(c, &entropy);
    two_check(c, "logprob_back, dx", shape, &dx, back), two_check(c, "logprob_back, dw", shape, &dw, back);
    two_free(c, &host), two_free(c, &x);
    free(coef), free(ent), free(target), free(sets);
}

/* ---- sampling ---- */

enum { ROWS = 24 };
typedef struct {
    Dev *dev;
    Mat w;
    Ten x, logits, kept;
    Drawn drawn[ROWS];
    real logp[ROWS];
    int *sets;
} Side;

static Side side_new(Dev *dev, const Case *k, Ten x, Ten logits, Ten weights) {
    Err err = {0};
    Side s = {.dev = dev, .x = x, .logits = logits};
    s.w = k_mat_new(dev, k->vocab, k->d, k->type, false, &err);
    s.kept = k_new(dev, ROWS, KEPT_WORDS(k->vocab), K_I32, &err);
    if (!s.w.fwd.p || !s.kept.p) die("%s", err.msg);
    k_mat_pack(dev, &s.w, weights, 0);
    k_matmul(dev, logits, x, &s.w, TEN_NONE, TEN_NONE);
    s.sets = MEM_ARRAY(int, ROWS *KEPT_WORDS(k->vocab));
    return s;
}

static void side_sample(Side *s, const Case *k, const Draw *draws) {
    k_sample(s->dev, s->drawn, s->kept, s->logits, draws, k->used);
    k_get(s->dev, s->sets, s->kept);
    for (int r = 0; r < ROWS; r++) s->logp[r] = s->drawn[r].logp;
}

static void side_free(Side *s) {
    k_mat_free(s->dev, &s->w), k_free(s->dev, &s->kept);
    free(s->sets);
}

/* What was stored while sampling must be the learner's, bit for bit: that of all ids and that of the kept ones. */
static void check_learner(Compare *c, const char *shape, const Case *k, const Side *s, const Draw *draws) {
    Err err = {0};
    Ten logp = k_new(s->dev, 1, ROWS, K_REAL, &err), lse = k_new(s->dev, 1, ROWS, K_REAL, &err);
    if (!logp.p || !lse.p) die("%s", err.msg);
    int target[ROWS];
    real all[ROWS], kept[ROWS];
    bool same = true, same_kept = true;
    for (int r = 0; r < ROWS; r++) target[r] = s->drawn[r].tok;
    k_logprob(s->dev, logp, lse, TEN_NONE, s->x, &s->w, target, TEN_NONE, k->inv_temp, 0);
    k_get(s->dev, all, logp);
    k_logprob(s->dev, logp, lse, TEN_NONE, s->x, &s->w, target, s->kept, k->inv_temp, 0);
    k_get(s->dev, kept, logp);
    for (int r = 0; r < ROWS; r++) {
        bool cut = draws[r].top_k > 0 || draws[r].top_p < 1 || draws[r].min_p > 0;
        if (draws[r].inv_temp == 0) continue;
        same &= memcmp(&all[r], &s->drawn[r].logp, sizeof(real)) == 0;
        same_kept &= !cut || memcmp(&kept[r], &s->drawn[r].draw_logp, sizeof(real)) == 0;
    }
    compare_true(c, "sampler equals learner", shape, same);
    compare_true(c, "sampler equals learner, kept", shape, same_kept);
    k_free(s->dev, &logp), k_free(s->dev, &lse);
}

/* From the same logits the same tokens and sets must come. */
static void compare_sample(Compare *c, const Case *k) {
    char shape[64];
    shape_text(shape, "%d of %d, %s%s", k->d, k->vocab, k->type == K_BF16 ? "bf16" : "fp32", k->name);
    Two host = two_new(c, k->vocab, k->d, 0, K_REAL, FILL_RANDOM, 2.5 / sqrt(k->d));
    Two x = two_new(c, ROWS, k->d, 0, k->type, FILL_RANDOM, 1);
    Two logits = two_new(c, ROWS, k->vocab, 0, K_REAL, FILL_NAN, 1);
    Draw draws[ROWS];
    Side side[2];
    Rng rng = {c->seed++, 0};
    for (int r = 0; r < ROWS; r++) {
        real top_p = r % 4 == 1 ? (real)0.8 : 1, min_p = r % 4 == 2 ? (real)0.1 : 0;
        draws[r] = (Draw){r % 8 == 7 ? 0 : k->inv_temp, r % 3 == 1 ? 5 : 0, top_p, min_p, rng_uniform(&rng)};
    }
    draws[4].u = 0, draws[0].u = 0.9999;
    BOTH side[i] = side_new(c->dev[i], k, x.at[i], logits.at[i], host.at[i]);
    real *own = host_of(c->dev[0], logits.at[0]), *same = host_of(c->dev[1], logits.at[1]);
    compare_numbers(c, "logits", shape, own, same, (size_t)ROWS * (size_t)k->vocab, BOUND_SUM(2 * k->d));
    side_sample(&side[0], k, draws);
    check_learner(c, shape, k, &side[0], draws);
    host_put(c->dev[0], logits.at[0], same);
    BOTH side_sample(&side[i], k, draws);
    bool tokens = true;
    for (int r = 0; r < ROWS; r++) tokens &= side[0].drawn[r].tok == side[1].drawn[r].tok;
    compare_true(c, "sample, tokens", shape, tokens);
    size_t bytes = (size_t)ROWS * (size_t)KEPT_WORDS(k->vocab) * sizeof(int);
    compare_true(c, "sample, kept", shape, memcmp(side[0].sets, side[1].sets, bytes) == 0);
    compare_numbers(c, "sample, logp", shape, side[0].logp, side[1].logp, ROWS, 0x1p-18);
    BOTH side_free(&side[i]);
    free(own), free(same);
    two_free(c, &host), two_free(c, &x), two_free(c, &logits);
}

void compare_head(Compare *c, bool all) {
    static const Case cases[] = {
        {"", 33, 40, 700, 700, K_BF16, false, true, 0, 1},
        {", kept", 5, 24, 513, 513, K_REAL, true, false, 0, (real)1.25},
        {", cap", 64, 64, 130, 120, K_BF16, false, true, 3, (real)0.7},
        {", kept, cap", 31, 17, 1025, 1025, K_BF16, true, true, 2, 1},
        {"", 130, 33, 512, 400, K_REAL, false, true, 0, 2},
        {", several products", 34, 8, 8192 + 77, 8200, K_BF16, false, false, 0, 1},
    };
    for (int i = 0; i < (all ? 6 : 3); i++) {
        compare_logprob(c, &cases[i]);
        compare_sample(c, &cases[i]);
    }
}
