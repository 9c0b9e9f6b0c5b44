/* cmd_gpu.c: `whet gpu-selftest`: whether this machine's GPU computes what the CPU does, and how fast; one page to
 * paste into a report. Every op at ragged sizes against the CPU, whole random models, then a bench. No file and no
 * network is needed. Exit status 0 when all holds. Tested by tests/long_cuda.sh on the stand-in for a GPU. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rl/cmd.h"
#include "rl/options.h"
#include "rl/selftest.h"
#include "rl/version.h"

/* ---- a line for each op, and for each property of a model ---- */

enum { OPS_MOST = 64 };
typedef struct {
    const char *op[OPS_MOST];
    int checks[OPS_MOST], failed[OPS_MOST], n;
    double error[OPS_MOST], bound[OPS_MOST]; /* of the worst check, that nearest to its bound */
} Table;

static double nearness(double error, double bound) {
    return error == 0 ? 0 : bound > 0 ? error / bound : INFINITY;
}

static void hear(void *self, const CompareResult *r) {
    Table *t = self;
    int i = 0;
    while (i < t->n && strcmp(t->op[i], r->op) != 0) i++;
    CHECK(i < OPS_MOST, "more than %d ops", OPS_MOST);
    if (i == t->n) t->op[t->n++] = r->op;
    if (!t->checks[i] || nearness(r->error, r->bound) > nearness(t->error[i], t->bound[i]))
        t->error[i] = r->error, t->bound[i] = r->bound;
    t->checks[i]++, t->failed[i] += !r->good;
    if (!r->good) printf("  WRONG %s, %s: %.3g, at most %.3g\n", r->op, r->shape, r->error, r->bound);
}

static int table_print(const Table *t, const char *what, double seconds) {
    int checks = 0, failed = 0;
    for (int i = 0; i < t->n; i++) {
        printf("  %-52s %3d checks, %s", t->op[i], t->checks[i], t->failed[i] ? "WRONG" : "good");
        if (t->error[i] == 0)
            printf(", no difference\n");
        else
            printf(", worst %.1e of %.1e\n", t->error[i], t->bound[i]);
        checks += t->checks[i], failed += t->failed[i];
    }
    printf("%s: %d checks, %d wrong, %.1f s\n", what, checks, failed, seconds);
    fflush(stdout);
    return failed;
}

static int ops(Dev *dev, Dev *cpu) {
    Table t = {.n = 0};
    double began = clock_seconds();
    k_compare(dev, cpu, NULL, true, hear, &t);
    return table_print(&t, "ops", clock_seconds() - began);
}

static int models(Dev *dev, Dev *cpu, int steps) {
    Table t = {.n = 0};
    double began = clock_seconds();
    for (int which = 0; which < SELFTEST_MODELS; which++)
        for (int type = K_REAL; type <= K_BF16; type++) {
            const char *name;
            Conf conf = selftest_conf(which, &name);
            selftest_model(dev, cpu, &conf, name, (DType)type, steps, hear, &t);
        }
    char what[64];
    snprintf(what, sizeof what, "%d random models in fp32 and bf16, %d steps", SELFTEST_MODELS, steps);
    return table_print(&t, what, clock_seconds() - began);
}

/* ---- the bench: a random model, sampled and trained ---- */

enum {
    BENCH_GROUPS = 4,
    BENCH_SIZE = 16,
    BENCH_PROMPT = 64,
    BENCH_NEW = 128,
    BENCH_ALL = BENCH_GROUPS * BENCH_SIZE
};

static bool bench_submit(Engine *engine, int vocab, Err *err) {
    bool good = true;
    for (int g = 0; good && g < BENCH_GROUPS; g++) {
        int prompt[BENCH_PROMPT];
        for (int i = 0; i < BENCH_PROMPT; i++) prompt[i] = (g * 131 + i * 17) % vocab;
        Request r = {.ticket = g,
                     .prompt = prompt,
                     .n_prompt = BENCH_PROMPT,
                     .group = BENCH_SIZE,
                     .key = 1,
                     .max_new = BENCH_NEW};
        r.temperature = 1, r.top_p = 1;
        good = engine_submit(engine, &r, err);
    }
    return good;
}

/* Tokens a second of the second time: the first chooses algorithms and records graphs. 0: err. */
static double bench_sample(Policy *policy, Sample all[BENCH_ALL], Err *err) {
    EngineConf conf = {.slots = BENCH_ALL, .max_tokens = BENCH_PROMPT + BENCH_NEW};
    Engine *engine = engine_open(policy, NULL, &conf, err);
    if (!engine) return 0;
    double seconds = 0;
    for (int time = 0; time < 2; time++) {
        if (!bench_submit(engine, policy->conf.vocab, err)) return 0;
        double began = clock_seconds();
        while (!engine_idle(engine)) {
            Sample sample;
            engine_step(engine);
            while (engine_take(engine, &sample)) {
                Sample *to = &all[sample.ticket * BENCH_SIZE + sample.index];
                if (time == 1) sample_free(to);
                *to = sample;
            }
        }
        seconds = clock_seconds() - began;
    }
    engine_close(engine);
    return BENCH_ALL * BENCH_NEW / seconds;
}

/* Numbers that differ. */
static int differ(const real *a, const real *b, int n) {
    int count = 0;
    for (int i = 0; i < n; i++) count += memcmp(&a[i], &b[i], sizeof *a) != 0;
    return count;
}

/* `unlike`: log-probs of the batch as a whole whose bits are not those of sampling. */
static double bench_learn(Policy *policy, Sample all[BENCH_ALL], int *unlike, Err *err) {
    LearnConf learn = {.rows = 2048, .max_prompt = BENCH_PROMPT, .max_completion = BENCH_NEW, .group = BENCH_SIZE};
    learn.temperature = 1, learn.beta1 = 0.9, learn.beta2 = 0.99, learn.eps = 1e-8, learn.max_grad_norm = 1;
    LossConf loss = {.term = TERM_CLIP, .sum = SUM_TOKEN, .epsilon = 0.2, .epsilon_high = 0.2};
    Learner *learner = learner_open(policy, NULL, &learn, err);
    if (!learner) return 0;
    BatchGroup groups[BENCH_GROUPS];
    BatchSample samples[BENCH_ALL];
    LearnSample extra[BENCH_ALL], *extras[BENCH_GROUPS];
    real *numbers = MEM_ARRAY(real, 3 * BENCH_ALL * BENCH_NEW);
    for (int i = 0; i < BENCH_ALL; i++) {
        real *at = numbers + 3 * i * BENCH_NEW;
        samples[i] = (BatchSample){.n = BENCH_NEW, .tok = all[i].tok + BENCH_PROMPT, .logp = at};
        samples[i].entropy = at + BENCH_NEW, samples[i].coef = at + 2 * BENCH_NEW;
        extra[i] = (LearnSample){.seq = {.n = BENCH_NEW, .advantage = i % 2 ? 1 : -1}};
        if (i % BENCH_SIZE) continue;
        groups[i / BENCH_SIZE] = (BatchGroup){BENCH_PROMPT, BENCH_SIZE, all[i].tok, samples + i};
        extras[i / BENCH_SIZE] = extra + i;
    }
    learner_logp(learner, policy, groups, BENCH_GROUPS);
    for (int i = 0; i < BENCH_ALL; i++) *unlike += differ(samples[i].logp, all[i].logp + BENCH_PROMPT, BENCH_NEW);
    double seconds = 0;
    for (int64_t step = 1; step <= 2; step++) { /* the first chooses algorithms */
        LearnReport report;
        double began = clock_seconds();
        if (!learner_update(learner, groups, extras, BENCH_GROUPS, &loss, 1e-5, step, &report, err))
            die("%s", err->msg);
        k_sync(policy->dev);
        seconds = clock_seconds() - began;
    }
    learner_close(learner);
    free(numbers);
    return BENCH_ALL * BENCH_NEW / seconds;
}

/* The speeds; and at the sizes of real runs, what was checked of tiny models. Returns what does not hold. */
static int bench(Dev *dev) {
    Err err = {0};
    const char *name;
    Conf conf = selftest_conf(SELFTEST_TIMED, &name);
    PolicyConf policy_conf = {.type = K_BF16, .train = true, .max_positions = BENCH_PROMPT + BENCH_NEW};
    printf("bench: products %.1f TFLOP/s in bf16, memory %.0f GB/s\n", dev_roof_flops(dev) * 1e-12,
           dev_roof_bytes(dev) * 1e-9);
    Policy *policy = policy_random(dev, &conf, &policy_conf, 1, &err);
    Sample all[BENCH_ALL], again[BENCH_ALL];
    int unlike = 0, apart = 0;
    double sampled = policy ? bench_sample(policy, all, &err) : 0;
    dev_again(dev, false);
    double single = sampled > 0 ? bench_sample(policy, again, &err) : 0;
    dev_again(dev, true);
    double learned = single > 0 ? bench_learn(policy, all, &unlike, &err) : 0;
    if (learned == 0) {
        printf("bench: a model of %s: not measured: %s\n", name, err.msg);
    } else {
        printf("bench: a model of %s, bf16, %d sequences of %d + %d tokens: sampled %.0f tokens/s (without graphs "
               "%.0f), trained %.0f tokens/s\n",
               name, BENCH_ALL, BENCH_PROMPT, BENCH_NEW, sampled, single, learned);
        for (int i = 0; i < BENCH_ALL; i++) {
            apart += differ(all[i].logp + BENCH_PROMPT, again[i].logp + BENCH_PROMPT, BENCH_NEW);
            sample_free(&all[i]), sample_free(&again[i]);
        }
        printf(
            "bench: of %d log-probs %d are not those of training, bit for bit, and %d not those without graphs\n",
            BENCH_ALL * BENCH_NEW, unlike, apart);
    }
    policy_close(policy);
    return (unlike > 0) + (apart > 0);
}

int cmd_gpu(int argc, char **argv) {
    const char *device = "cuda";
    long steps = 10;
    bool with_bench = true;
    const Option options[] = {
        {"device", KEY_TEXT, &device, 0, 0, "which GPU: cuda or cuda:N"},
        {"steps", KEY_WHOLE, &steps, 1, 1000, "training steps of each model"},
        {"bench", KEY_SWITCH, &with_bench, 0, 0,
         "whether speed is measured at the end, and a larger model compared with itself"},
    };
    Arena arena = {0};
    options_read("usage: whet gpu-selftest [--option value ...]\n\nWhether this machine's GPU computes what its "
                 "CPU does, and "
                 "how fast: one page.\n",
                 options, 3, argc, argv, &arena);
    arena_free(&arena);
    Err err = {0};
    double began = clock_seconds();
    Dev *dev = dev_open(&(DevConf){.device = device}, &err), *cpu = NULL;
    if (dev && dev_left(dev) < 0) err_set(&err, "device %s is no GPU; use cuda or cuda:N", device);
    if (dev && !*err.msg) cpu = dev_open(&(DevConf){.device = "cpu", .path = "plain"}, &err);
    if (!cpu) {
        fprintf(stderr, "whet: gpu-selftest: %s\n", err.msg);
        dev_close(dev);
        return 1;
    }
    printf("whet %s gpu-selftest: %s, %s, %.1f GB free\n", WHET_VERSION, dev_name(dev), dev_path(dev),
           (double)dev_left(dev) * 1e-9);
    int failed = ops(dev, cpu) + models(dev, cpu, (int)steps);
    if (with_bench) failed += bench(dev);
    printf("%s, %.0f s\n", failed ? "NOT ALL HOLDS" : "all holds", clock_seconds() - began);
    dev_close(dev);
    dev_close(cpu);
    return failed ? 1 : 0;
}
