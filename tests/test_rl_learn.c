/* test_rl_learn.c: the learner: gradients against finite differences (double variant), invariance of every bit of
 * the gradient under micro-batches, threads and recomputation, frozen rows. Goldens from PyTorch:
 * test_rl_golden.c. (run.sh: long) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rl/learn.h"

/* ---- a tiny model and some groups ----
 * Untied: with biases here and there; tied: with norms, caps, GELU and two rotary tables. */

enum { TIED = 1, LORA = 2 }; /* kinds of it */

static const Conf *tiny_conf(int kind) {
    static LayerConf plain[3] = {{.rope = 0, .qkv_bias = true},
                                 {.rope = 0, .window = 24, .out_bias = true, .mlp_bias = true},
                                 {.rope = -1}};
    static LayerConf rich[3] = {{.rope = 0, .glu = GLU_GELU, .qk_norm = true, .post_norms = true},
                                {.rope = 1, .window = 24, .qk_norm = true, .qkv_bias = true},
                                {.rope = -1, .glu = GLU_GELU, .post_norms = true, .fused = true}};
    /* Adapters of all linears; of q, v, up, down; of k, o, gate, or the fused qkv, o, gate and up. */
    static LayerConf adapted[2][3];
    static const unsigned which[2][3] = {{0x7f, 0x65, 0x1a}, {0x7f, 0x65, 0x188}};
    static Conf conf[4];
    bool tied = kind & TIED;
    LayerConf *layers = tied ? rich : plain;
    for (int l = 0; l < 3; l++) adapted[tied][l] = layers[l], adapted[tied][l].adapted = which[tied][l];
    conf[kind] = (Conf){.dim = 48,
                        .hidden = 80,
                        .n_layers = 3,
                        .n_heads = 6,
                        .n_kv_heads = 2,
                        .head_dim = 16,
                        .vocab = 301,
                        .max_positions = 512,
                        .norm_eps = 1e-5f,
                        .ropes = {{.turned = 16, .theta = 10000}, {.turned = 12, .theta = 100}},
                        .n_ropes = 2,
                        .embed_scale = tied ? 3 : 1,
                        .attn_scalar = tied ? 11 : 16,
                        .attn_cap = tied ? 4 : 0,
                        .final_cap = tied ? 6 : 0,
                        .norms_from_one = tied,
                        .tied = tied,
                        .layers = kind & LORA ? adapted[tied] : layers,
                        .lora = {kind & LORA ? 5 : 0, 8, tied}};
    return &conf[kind];
}

typedef struct {
    int n, size;
    BatchGroup *groups;
    LearnSample **extra;
    Arena arena;
} World;

/* Groups with prompts and completions of ragged lengths, among them 1, 31, 32, 33 and one of 600 tokens. */
static World world_make(int n, int size, int longest, uint64_t seed) {
    static const int prompts[] = {1, 31, 32, 33, 7, 64, 40};
    World w = {.n = n, .size = size};
    Rng rng = {seed, 0};
    w.groups = arena_alloc(&w.arena, (size_t)n, sizeof *w.groups);
    w.extra = arena_alloc(&w.arena, (size_t)n, sizeof *w.extra);
    for (int g = 0; g < n; g++) {
        BatchGroup *group = &w.groups[g];
        group->n_prompt = prompts[g % 7], group->n = size;
        int *prompt = arena_alloc(&w.arena, (size_t)group->n_prompt, sizeof(int));
        for (int i = 0; i < group->n_prompt; i++) prompt[i] = (int)rng_below(&rng, 301);
        group->prompt = prompt;
        group->samples = arena_alloc(&w.arena, (size_t)size, sizeof *group->samples);
        w.extra[g] = arena_alloc(&w.arena, (size_t)size, sizeof **w.extra);
        for (int i = 0; i < size; i++) {
            BatchSample *s = &group->samples[i];
            s->n = i == 0 ? 1 : i == 1 && g == 0 ? longest : 1 + (int)rng_below(&rng, 40);
            int *tok = arena_alloc(&w.arena, (size_t)s->n, sizeof(int));
            real *old = arena_alloc(&w.arena, (size_t)s->n, sizeof(real));
            for (int t = 0; t < s->n; t++) tok[t] = (int)rng_below(&rng, 301);
            s->tok = tok;
            s->logp = arena_alloc(&w.arena, (size_t)s->n, sizeof(real));
            s->entropy = arena_alloc(&w.arena, (size_t)s->n, sizeof(real));
            s->coef = arena_alloc(&w.arena, (size_t)s->n, sizeof(real));
            w.extra[g][i] = (LearnSample){.seq = {.n = s->n, .advantage = rng_normal(&rng)}, .old_logp = old};
            w.extra[g][i].ref_logp = arena_alloc(&w.arena, (size_t)s->n, sizeof(real));
        }
    }
    return w;
}

/* The samples' old log-probabilities: the policy's own, moved a little, well inside the clipping range. */
static void world_old(World *w, Learner *l, Policy *policy, double spread) {
    Rng rng = {77, 0};
    learner_logp(l, policy, w->groups, w->n);
    for (int g = 0; g < w->n; g++)
        for (int i = 0; i < w->size; i++)
            for (int t = 0; t < w->groups[g].samples[i].n; t++)
                ((real *)w->extra[g][i].old_logp)[t] =
                    w->groups[g].samples[i].logp[t] + (real)(spread * (rng_uniform(&rng) - 0.5));
}

typedef struct {
    Dev *dev;
    Policy *policy, *reference;
    Learner *learner;
} Bench;

/* With adapters, the reference is the policy without them. */
static Bench bench_open(int kind, DType type, int threads, const char *path, int rows, bool recompute,
                        const char *const *frozen) {
    Err err = {0};
    Bench b = {.dev = dev_open(&(DevConf){.threads = threads, .path = path, .trap_nan = true}, &err)};
    assert_non_null(b.dev);
    PolicyConf conf = {.type = type, .train = true, .frozen = frozen, .max_positions = 1024};
    b.policy = policy_random(b.dev, tiny_conf(kind), &conf, 5, &err);
    b.reference = kind & LORA ? b.policy
                              : policy_random(b.dev, tiny_conf(kind),
                                              &(PolicyConf){.type = type, .max_positions = 1024}, 6, &err);
    assert_non_null(b.policy);
    LearnConf learn = {.rows = rows,
                       .recompute = recompute,
                       .max_prompt = 64,
                       .max_completion = 610,
                       .group = 5,
                       .temperature = 0.9,
                       .beta1 = 0.9,
                       .beta2 = 0.99,
                       .eps = 1e-8,
                       .max_grad_norm = 1};
    b.learner = learner_open(b.policy, b.reference, &learn, &err);
    assert_string_equal(err.msg, "");
    assert_non_null(b.learner);
    return b;
}

static void bench_close(Bench *b) {
    learner_close(b->learner);
    if (b->reference != b->policy) policy_close(b->reference);
    policy_close(b->policy);
    assert_int_equal(dev_bytes(b->dev) <= 64 << 20, true); /* workspaces only */
    dev_close(b->dev);
}

static const LossConf loss_conf = {.term = TERM_CLIP,
                                   .sum = SUM_TOKEN,
                                   .epsilon = 0.2,
                                   .epsilon_high = 0.2,
                                   .beta = 0.05,
                                   .max_completion_length = 610};

/* An answer's ratio, a KL that goes through it, and an entropy bonus, whose gradient has a way of its own. */
static const LossConf other_conf = {.term = TERM_SAPO,
                                    .sum = SUM_SEQUENCE,
                                    .level = LEVEL_SEQUENCE,
                                    .sapo_pos = 1,
                                    .sapo_neg = 1.05,
                                    .beta = 0.05,
                                    .kl_corrected = true,
                                    .entropy_coef = 0.1,
                                    .max_completion_length = 610};

static double loss_of(Bench *b, World *w, const LossConf *loss) {
    LearnReport report;
    Err err = {0};
    assert_true(learner_gradients(b->learner, w->groups, w->extra, w->n, loss, &report, &err));
    return loss_metrics(&report.loss).loss;
}

static real *copy_of(Dev *dev, Ten t, size_t *n) {
    *n = (size_t)t.rows * (size_t)t.cols;
    real *host = malloc(*n * sizeof(real));
    k_get(dev, host, t);
    return host;
}

/* ---- tests ---- */

/* The derivative along a random direction of all parameters against central differences: to 1e-6 in doubles;
 * floats leave only a coarse check. */
static void directional(int kind, const LossConf *loss) {
    Bench b = bench_open(kind, K_REAL, 2, NULL, 2048, false, NULL);
    World w = world_make(4, 5, 70, 11);
    world_old(&w, b.learner, b.policy, 0.2);
    loss_of(&b, &w, loss);
    size_t n;
    real *grads = copy_of(b.dev, learner_grads(b.learner), &n), *start = copy_of(b.dev, b.policy->master, &n);
    double step = sizeof(real) == 8 ? 1e-5 : 3e-3, bound = sizeof(real) == 8 ? 1e-6 : 3e-2;
    for (int d = 0; d < 3; d++) {
        Rng rng = {(uint64_t)d + 100, 0};
        real *direction = malloc(n * sizeof(real)), *moved = malloc(n * sizeof(real));
        double expect = 0, norm = 0, value[2];
        for (size_t i = 0; i < n; i++)
            direction[i] = (real)rng_normal(&rng), norm += (double)(direction[i] * direction[i]);
        for (size_t i = 0; i < n; i++)
            direction[i] /= (real)sqrt(norm), expect += (double)grads[i] * (double)direction[i];
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < n; i++) moved[i] = start[i] + (real)(side ? -step : step) * direction[i];
            k_put(b.dev, b.policy->master, moved);
            policy_pack(b.policy);
            value[side] = loss_of(&b, &w, loss);
        }
        double got = (value[0] - value[1]) / (2 * step), scale = 0;
        for (size_t i = 0; i < n; i++) scale += (double)grads[i] * (double)grads[i];
        scale = sqrt(scale / (double)n); /* what a random direction typically gives */
        print_message("direction %d: %.9g against %.9g\n", d, expect, got);
        assert_true(fabs(got - expect) <= bound * (fabs(expect) + scale));
        free(direction);
        free(moved);
    }
    free(grads);
    free(start);
    arena_free(&w.arena);
    bench_close(&b);
}

static void test_directional_tied(void **state) {
    (void)state;
    directional(TIED, &loss_conf);
    directional(TIED, &other_conf);
}
static void test_directional_untied(void **state) {
    (void)state;
    directional(0, &loss_conf);
}
static void test_directional_adapters(void **state) {
    (void)state;
    directional(LORA, &loss_conf);
    directional(LORA | TIED, &loss_conf);
}

typedef struct {
    real *grads, *master;
    size_t n;
    LearnReport report;
    real first;
} Outcome;

/* Two updates; all that they leave. */
static Outcome outcome_of(int kind, DType type, const char *path, int threads, int rows, bool recompute) {
    Bench b = bench_open(kind, type, threads, path, rows, recompute, NULL);
    World w = world_make(7, 5, 600, 3);
    world_old(&w, b.learner, b.policy, 0.2);
    for (int i = 0; i < w.size; i++) w.extra[2][i].seq.advantage = 0; /* KL alone still trains it */
    Outcome out = {0};
    Err err = {0};
    for (int step = 1; step <= 2; step++) {
        assert_true(learner_update(b.learner, w.groups, w.extra, w.n, &loss_conf, 1e-3, step, &out.report, &err));
        assert_true(out.report.grad_norm > 1e-3);
    }
    out.grads = copy_of(b.dev, learner_grads(b.learner), &out.n);
    out.master = copy_of(b.dev, b.policy->master, &out.n);
    out.first = w.groups[3].samples[2].logp[0];
    arena_free(&w.arena);
    bench_close(&b);
    return out;
}

static void same_outcome(const Outcome *a, const Outcome *b, const char *what) {
    print_message("%s: %d batches of %ld rows, loss %.9g\n", what, b->report.batches, b->report.rows,
                  loss_metrics(&b->report.loss).loss);
    assert_memory_equal(&a->first, &b->first, sizeof a->first);
    assert_memory_equal(&a->report.loss, &b->report.loss, sizeof a->report.loss);
    assert_memory_equal(a->grads, b->grads, a->n * sizeof(real));
    assert_memory_equal(a->master, b->master, a->n * sizeof(real));
}

static void outcome_free(Outcome *o) {
    free(o->grads);
    free(o->master);
}

static void invariance(int kind, DType type, const char *path) {
    Outcome whole = outcome_of(kind, type, path, 2, 8192, false);
    struct {
        const char *what;
        int threads, rows;
        bool recompute;
    } runs[] = {{"one thread", 1, 8192, false},
                {"three threads, recomputed", 3, 8192, true},
                {"small batches", 2, 700, false},
                {"smaller, recomputed", 1, 1000, true}};
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        Outcome other = outcome_of(kind, type, path, runs[i].threads, runs[i].rows, runs[i].recompute);
        assert_true(runs[i].rows > 4096 || other.report.batches > whole.report.batches);
        same_outcome(&whole, &other, runs[i].what);
        outcome_free(&other);
    }
    outcome_free(&whole);
}

static void test_invariance(void **state) {
    (void)state;
    const char *names[8];
    int n = dev_paths(names), last = 0;
#ifdef __SANITIZE_ADDRESS__
    last = n - 1; /* one path shows what there is to find */
#endif
    for (int i = n - 1; i >= last; i--) {
        if (i < n - 1 && strstr(names[i], "plain")) continue; /* slow, with the bits of others (test_kernels_*) */
        print_message("path %s\n", names[i]);
        invariance(TIED, K_BF16, names[i]);
        if (i == n - 1) invariance(TIED | LORA, K_BF16, names[i]);
        if (i == n - 1) invariance(TIED, K_REAL, names[i]);
    }
}

static void test_frozen(void **state) {
    (void)state;
    static const char *const frozen[] = {"model.embed_tokens.weight", "*.mlp.*", "model.layers.1.*", NULL};
    Bench b = bench_open(TIED, K_BF16, 2, NULL, 2048, false, frozen),
          all = bench_open(TIED, K_BF16, 2, NULL, 2048, false, NULL);
    const Params *params = &b.policy->params;
    int64_t trained = 0;
    for (int i = 0; i < params->n; i++) {
        const Param *p = &params->items[i];
        assert_int_equal(p->trained,
                         !(strstr(p->name, "embed") || strstr(p->name, ".mlp.") || strstr(p->name, "layers.1.")));
        if (p->trained) trained += (p->rows * p->cols + 15) / 16 * 16;
    }
    assert_int_equal(trained, params->n_trained);
    /* No gradient and no moment is kept for frozen rows: the buffers are as long as the trained rows. */
    Ten m, v;
    learner_moments(b.learner, &m, &v);
    assert_int_equal((int64_t)m.rows * m.cols, trained);
    assert_int_equal((int64_t)v.rows * v.cols, trained);
    assert_int_equal((int64_t)learner_grads(b.learner).rows * 16, trained);
    assert_true(dev_bytes(b.dev) < dev_bytes(all.dev));
    size_t n, n_embed;
    uint16_t *before = malloc((size_t)b.policy->embed.fwd.rows * 64),
             *after = malloc((size_t)b.policy->embed.fwd.rows * 64);
    k_get(b.dev, before, b.policy->embed.fwd);
    n_embed = (size_t)b.policy->embed.fwd.rows * 64;
    World w = world_make(4, 5, 70, 11);
    world_old(&w, b.learner, b.policy, 0.2);
    LearnReport report;
    Err err = {0};
    real *start = copy_of(b.dev, b.policy->master, &n);
    assert_true(learner_update(b.learner, w.groups, w.extra, w.n, &loss_conf, 1e-2, 1, &report, &err));
    assert_true(learner_gradients(all.learner, w.groups, w.extra, w.n, &loss_conf, &report, &err));
    k_get(b.dev, after, b.policy->embed.fwd);
    assert_memory_equal(before, after, n_embed); /* they stay */
    real *end = copy_of(b.dev, b.policy->master, &n);
    assert_true(memcmp(start, end, n * sizeof(real)) != 0);
    /* The gradients of the rows that are trained are those of the whole model. */
    for (int i = 0; i < params->n; i++) {
        if (!params->items[i].trained) continue;
        size_t count;
        Ten a = params_view(params, i, learner_grads(b.learner)),
            c = params_view(&all.policy->params, i, learner_grads(all.learner));
        real *x = copy_of(b.dev, a, &count), *y = copy_of(all.dev, c, &count);
        assert_memory_equal(x, y, count * sizeof(real));
        free(x);
        free(y);
    }
    free(before);
    free(after);
    free(start);
    free(end);
    arena_free(&w.arena);
    bench_close(&b);
    bench_close(&all);
}

/* Groups without signal cost no rows; a group whose samples are all unjudged has no gradient. */
static void test_skipped(void **state) {
    (void)state;
    Bench b = bench_open(TIED, K_BF16, 2, NULL, 2048, false, NULL);
    World w = world_make(4, 5, 30, 11);
    world_old(&w, b.learner, b.policy, 0);
    LossConf loss = loss_conf;
    loss.beta = 0;
    for (int g = 0; g < w.n; g++)
        for (int i = 0; i < w.size; i++) w.extra[g][i].ref_logp = NULL;
    LearnReport some, none;
    Err err = {0};
    assert_true(learner_gradients(b.learner, w.groups, w.extra, w.n, &loss, &some, &err));
    for (int i = 0; i < w.size; i++) w.extra[1][i].seq.advantage = 0;
    assert_true(learner_gradients(b.learner, w.groups, w.extra, w.n, &loss, &none, &err));
    assert_int_equal(none.skipped, 1);
    assert_true(none.rows < some.rows);
    assert_true(some.diff_max == 0); /* the forward alone and the one with a tape: the same bits */
    arena_free(&w.arena);
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directional_tied),
        cmocka_unit_test(test_directional_untied),
        cmocka_unit_test(test_directional_adapters),
        cmocka_unit_test(test_invariance),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
