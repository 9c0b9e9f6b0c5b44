/* selftest.c: see selftest.h. */
#include "rl/selftest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POSITIONS = 128, GROUPS = 3, SIZE = 3, MAX_NEW = 20 };

Conf selftest_conf(int which, const char **name) {
    static LayerConf plain[2] = {{.rope = 0}, {.rope = 0}};
    static LayerConf biased[3] = {{.rope = 0, .qkv_bias = true},
                                  {.rope = 0, .window = 24, .out_bias = true, .mlp_bias = true},
                                  {.rope = -1, .fused = true, .adapted = 0x188}};
    static LayerConf rich[3] = {{.rope = 0, .glu = GLU_GELU, .qk_norm = true, .post_norms = true},
                                {.rope = 1, .window = 24, .qk_norm = true, .qkv_bias = true},
                                {.rope = -1, .glu = GLU_GELU, .post_norms = true, .adapted = 0x7f}};
    static LayerConf timed[12];
    static const char *const names[] = {"plain", "biases, windows, fused, adapters",
                                        "norms, caps, GELU, tied, adapters", "152 million parameters"};
    Conf c = {.dim = 48, .hidden = 80, .n_layers = which ? 3 : 2, .n_heads = 6, .n_kv_heads = 2, .head_dim = 16};
    c.vocab = 301, c.max_positions = POSITIONS, c.norm_eps = 1e-5f, c.embed_scale = 1, c.attn_scalar = 16;
    c.ropes[0] = (Rope){.turned = 16, .theta = 10000}, c.ropes[1] = (Rope){.turned = 12, .theta = 100},
    c.n_ropes = 2;
    c.bos = c.pad = -1;
    c.layers = which == 0 ? plain : which == 1 ? biased : rich;
    if (which) c.lora = (Lora){5, 8, which == 2};
    if (which == 2) {
        c.tied = c.norms_from_one = true;
        c.embed_scale = 3, c.attn_scalar = 11, c.attn_cap = 4, c.final_cap = 6;
    }
    if (which == SELFTEST_TIMED) {
        c.dim = 1024, c.hidden = 2816, c.n_layers = 12, c.n_heads = 16, c.n_kv_heads = 4, c.head_dim = 64;
        c.vocab = 16384, c.max_positions = 2048, c.attn_scalar = 64, c.n_ropes = 1;
        c.ropes[0] = (Rope){.turned = 64, .theta = 10000};
        c.layers = timed, c.lora = (Lora){0};
    }
    *name = names[which];
    return c;
}

/* ---- one model on one device ---- */

typedef struct {
    Dev *dev;
    Policy *policy;
    Learner *learner;
    BatchGroup groups[GROUPS];
    BatchSample samples[GROUPS][SIZE];
    LearnSample extra[GROUPS][SIZE], *extras[GROUPS];
} Side;

static const LossConf loss_conf = {
    .term = TERM_CLIP, .sum = SUM_TOKEN, .epsilon = 0.2, .epsilon_high = 0.2, .max_completion_length = MAX_NEW};

static LearnConf learn_conf(int rows, bool recompute) {
    LearnConf c = {
        .rows = rows, .recompute = recompute, .max_prompt = 40, .max_completion = MAX_NEW, .group = SIZE};
    c.temperature = 0.9, c.beta1 = 0.9, c.beta2 = 0.99, c.eps = 1e-8, c.max_grad_norm = 1;
    return c;
}

static void side_open(Side *s, Dev *dev, const Conf *conf, DType type) {
    Err err = {0};
    PolicyConf policy = {.type = type, .train = true, .max_positions = POSITIONS};
    LearnConf learn = learn_conf(512, false);
    *s = (Side){.dev = dev};
    s->policy = policy_random(dev, conf, &policy, 5, &err);
    if (s->policy) s->learner = learner_open(s->policy, NULL, &learn, &err);
    if (!s->learner) die("%s", err.msg);
}

static void side_close(Side *s) {
    learner_close(s->learner);
    policy_close(s->policy);
    for (int g = 0; g < GROUPS; g++)
        for (int i = 0; i < SIZE; i++) {
            free(s->samples[g][i].logp), free(s->samples[g][i].entropy), free(s->samples[g][i].coef);
        }
}

static const int prompt_lengths[GROUPS] = {1, 33, 40};

/* Samples of every group, groups[g] SIZE of them. */
static void side_sample(Side *s, Sample all[GROUPS][SIZE], int slots) {
    Err err = {0};
    EngineConf conf = {.slots = slots, .prompt_rows = 64, .max_tokens = 40 + MAX_NEW};
    Engine *engine = engine_open(s->policy, NULL, &conf, &err);
    if (!engine) die("%s", err.msg);
    for (int g = 0; g < GROUPS; g++) {
        int prompt[40];
        Rng rng = {1000 + (uint64_t)g, 0};
        for (int i = 0; i < 40; i++) prompt[i] = (int)rng_below(&rng, (uint64_t)s->policy->conf.vocab);
        Request r = {.ticket = g,
                     .prompt = prompt,
                     .n_prompt = prompt_lengths[g],
                     .group = SIZE,
                     .key = 7,
                     .max_new = MAX_NEW};
        r.temperature = (real)0.9, r.top_p = 1;
        if (!engine_submit(engine, &r, &err)) die("%s", err.msg);
    }
    while (!engine_idle(engine)) {
        Sample sample;
        engine_step(engine);
        while (engine_take(engine, &sample)) all[sample.ticket][sample.index] = sample;
    }
    engine_cancel(engine);
    engine_close(engine);
}

/* The learner's view of the samples (which stay their owner's), with random advantages. */
static void side_learns(Side *s, Sample all[GROUPS][SIZE]) {
    Rng rng = {3, 0};
    for (int g = 0; g < GROUPS; g++) {
        s->groups[g] = (BatchGroup){
            .prompt = all[g][0].tok, .n_prompt = prompt_lengths[g], .n = SIZE, .samples = s->samples[g]};
        s->extras[g] = s->extra[g];
        for (int i = 0; i < SIZE; i++) {
            BatchSample *b = &s->samples[g][i];
            int n = all[g][i].n - prompt_lengths[g];
            b->n = n, b->tok = all[g][i].tok + prompt_lengths[g];
            b->logp = MEM_ARRAY(real, n), b->entropy = MEM_ARRAY(real, n), b->coef = MEM_ARRAY(real, n);
            s->extra[g][i] = (LearnSample){.seq = {.n = n, .advantage = rng_normal(&rng)}};
        }
    }
}

/* ---- comparing ---- */

typedef struct {
    void (*say)(void *self, const CompareResult *result);
    void *self;
    char shape[96];
    int failed;
} Report;

static void report(Report *r, const char *what, double error, double bound) {
    CompareResult one = {what, r->shape, error, bound, error <= bound};
    r->failed += !one.good;
    r->say(r->self, &one);
}

/* The distance of two vectors in units of the second's length. */
static double distance(const real *a, const real *b, size_t n) {
    double off = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        all += (double)b[i] * (double)b[i];
    }
    return off == 0 ? 0 : all > 0 ? sqrt(off / all) : INFINITY;
}

static real *numbers_of(Dev *dev, Ten t, size_t *n) {
    *n = (size_t)t.rows * (size_t)t.cols;
    real *host = MEM_ARRAY(real, *n + 1);
    k_get(dev, host, t);
    return host;
}

/* The log-probabilities stored while sampling against those of the learner, on one device: the same bits. */
static void compare_stored(Report *r, Side *s, Sample all[GROUPS][SIZE]) {
    int differ = 0;
    learner_logp(s->learner, s->policy, s->groups, GROUPS);
    for (int g = 0; g < GROUPS; g++)
        for (int i = 0; i < SIZE; i++) {
            size_t n = (size_t)s->samples[g][i].n;
            differ += memcmp(s->samples[g][i].logp, all[g][i].logp + prompt_lengths[g], n * sizeof(real)) != 0;
        }
    report(r, "sampled log-prob = trained log-prob, bit for bit", differ, 0);
}

/* On the device alone with its log-probabilities' bits; against another without. In bf16 a rounding may turn the choice of a token, after which a sample is another one; that must be rare. */
static void compare_tokens(Report *r, Sample got[GROUPS][SIZE], Sample want[GROUPS][SIZE], DType type,
                           bool devices) {
    long same = 0, all = 0;
    for (int g = 0; g < GROUPS; g++)
        for (int i = 0; i < SIZE; i++) {
            const Sample *a = &got[g][i], *b = &want[g][i];
            int t = prompt_lengths[g];
            while (t < a->n && t < b->n && a->tok[t] == b->tok[t] &&
                   (devices || memcmp(&a->logp[t], &b->logp[t], sizeof a->logp[t]) == 0))
                t++;
            same += t - prompt_lengths[g], all += b->n - prompt_lengths[g];
        }
    report(r, devices ? "sampling, tokens that differ from the CPU's" : "sampling with 2 slots for 5, op by op, bit for bit",
           1 - (double)same / (double)all, devices && type == K_BF16 ? 0.25 : 0);
}

static void compare_logp(Report *r, Side *dev, Side *cpu, double bound) {
    double worst = 0;
    learner_logp(dev->learner, dev->policy, dev->groups, GROUPS);
    learner_logp(cpu->learner, cpu->policy, cpu->groups, GROUPS);
    for (int g = 0; g < GROUPS; g++)
        for (int i = 0; i < SIZE; i++)
            for (int t = 0; t < dev->samples[g][i].n; t++)
                worst = fmax(worst, fabs((double)dev->samples[g][i].logp[t] - (double)cpu->samples[g][i].logp[t]));
    report(r, "log-probabilities", worst, bound);
}

/* Every parameter's gradient; the worst. And on the device alone: cut into small batches and recomputed, the same
 * bits. */
static void compare_gradients(Report *r, Side *dev, Side *cpu, double bound) {
    Err err = {0};
    LearnReport a, b;
    size_t n;
    if (!learner_gradients(dev->learner, dev->groups, dev->extras, GROUPS, &loss_conf, &a, &err) ||
        !learner_gradients(cpu->learner, cpu->groups, cpu->extras, GROUPS, &loss_conf, &b, &err))
        die("%s", err.msg);
    report(r, "loss", fabs(loss_metrics(&a.loss).loss - loss_metrics(&b.loss).loss), bound);
    real *got = numbers_of(dev->dev, learner_grads(dev->learner), &n),
         *want = numbers_of(cpu->dev, learner_grads(cpu->learner), &n);
    const Params *params = &dev->policy->params;
    double worst = 0;
    for (int i = 0; i < params->n; i++) {
        const Param *p = &params->items[i];
        if (p->trained)
            worst = fmax(worst, distance(got + p->offset, want + p->offset, (size_t)p->rows * (size_t)p->cols));
    }
    report(r, "gradients, the worst parameter's", worst, bound);
    LearnConf small = learn_conf(64, true);
    Learner *other = learner_open(dev->policy, NULL, &small, &err);
    if (!other || !learner_gradients(other, dev->groups, dev->extras, GROUPS, &loss_conf, &a, &err))
        die("%s", err.msg);
    real *cut = numbers_of(dev->dev, learner_grads(other), &n);
    report(r, "gradients in small batches, recomputed, bit for bit", memcmp(cut, got, n * sizeof *got) != 0, 0);
    learner_close(other);
    free(got), free(want), free(cut);
}

/* Training steps on both from the same start: the loss's curve, and how far the weights went. */
static void compare_steps(Report *r, Side *dev, Side *cpu, int steps, double bound) {
    Err err = {0};
    size_t n;
    real *start = numbers_of(dev->dev, dev->policy->master, &n);
    double off = 0;
    for (int step = 1; step <= steps; step++) {
        LearnReport a, b;
        if (!learner_update(dev->learner, dev->groups, dev->extras, GROUPS, &loss_conf, 1e-3, step, &a, &err) ||
            !learner_update(cpu->learner, cpu->groups, cpu->extras, GROUPS, &loss_conf, 1e-3, step, &b, &err))
            die("%s", err.msg);
        off = fmax(off, fabs(a.grad_norm - b.grad_norm) / b.grad_norm);
    }
    real *got = numbers_of(dev->dev, dev->policy->master, &n),
         *want = numbers_of(cpu->dev, cpu->policy->master, &n);
    for (size_t i = 0; i < n; i++) got[i] -= start[i], want[i] -= start[i];
    report(r, "training, gradient norms along the steps", off, bound);
    /* AdamW's first steps are the gradients' signs: numbers near 0 may go either way. */
    report(r, "training, the weights' way", distance(got, want, n), 10 * bound);
    free(start), free(got), free(want);
}

int selftest_model(Dev *dev, Dev *cpu, const Conf *conf, const char *name, DType type, int steps,
                   void (*say)(void *self, const CompareResult *result), void *self) {
    Report r = {say, self, {0}, 0};
    Side a, b, again;
    Sample got[GROUPS][SIZE], want[GROUPS][SIZE], few[GROUPS][SIZE];
    /* fp32: sums in another order, through a few layers. bf16: roundings of 2^-9 that fall differently. */
    double bound = type == K_BF16 ? 0.04 : 2e-4;
    snprintf(r.shape, sizeof r.shape, "%s, %s", name, type == K_BF16 ? "bf16" : "fp32");
    side_open(&a, dev, conf, type), side_open(&b, cpu, conf, type), side_open(&again, dev, conf, type);
    side_sample(&a, got, 5), side_sample(&b, want, 5);
    dev_again(dev, false); /* what the device keeps of a decoding step changes no bit */
    side_sample(&a, few, 2);
    dev_again(dev, true);
    compare_tokens(&r, got, want, type, true);
    compare_tokens(&r, few, got, type, false);
    side_learns(&a, got), side_learns(&b, got), side_learns(&again, got);
    compare_stored(&r, &a, got);
    compare_logp(&r, &a, &b, bound);
    compare_gradients(&r, &a, &b, bound);
    compare_steps(&r, &a, &b, steps, bound);
    Err err = {0};
    for (int step = 1; step <= steps; step++) {
        LearnReport report_;
        if (!learner_update(again.learner, again.groups, again.extras, GROUPS, &loss_conf, 1e-3, step, &report_,
                            &err))
            die("%s", err.msg);
    }
    size_t n;
    real *first = numbers_of(dev, a.policy->master, &n), *second = numbers_of(dev, again.policy->master, &n);
    report(&r, "training again, bit for bit", memcmp(first, second, n * sizeof *first) != 0, 0);
    free(first), free(second);
    for (int g = 0; g < GROUPS; g++)
        for (int i = 0; i < SIZE; i++) sample_free(&got[g][i]), sample_free(&want[g][i]), sample_free(&few[g][i]);
    side_close(&a), side_close(&b), side_close(&again);
    return r.failed;
}
