/* cmd_bench.c: `whet bench`: how fast a model is sampled and trained here, and what share of the machine's limits
 * that is. Timings never decide a test. Tested by tests/cmd_bench.sh (that it runs and says what it should). */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "rl/cmd.h"
#include "rl/learn.h"
#include "rl/open.h"

static const char usage[] =
    "usage: whet bench (--model MODEL | --random CONFIG.JSON) [--json] [--ops] [--repeat N]\n\n"
    "Measures the processor's limits, then sampling (one prompt of 512 tokens; 1, 8 and "
    "64 sequences of 48 + 48 tokens),\n"
    "the forward pass and training (8 sequences of 128 tokens) and a GRPO step (8 "
    "problems, 8 answers of 48 tokens).\n"
    "The text is random: only shapes matter. The best of --repeat runs counts.\n";

typedef struct {
    OpenConf open;
    const char *random;
    bool json, ops;
    long repeat, prompt, answer;
    Arena arena;
} Options;

typedef struct {
    Options o;
    Model model;
    json_t *result;
    double flops, bytes;  /* the machine's limits, a second */
    double weights;       /* parameters that every token is multiplied with */
    double read, sampled; /* bytes of these, as the learner and as the sampler read them */
    Rng rng;
} Bench;

static void say(Bench *b, const char *name, double value, const char *unit) {
    json_object_set_new(b->result, name, json_real(value));
    fprintf(stderr, "  %-18s %10.1f %s\n", name, value, unit);
}

/* A speed in tokens a second, and the share of the limit that bounds it: the products' or that of reading the
 * weights' bytes once a step. */
static void say_speed(Bench *b, const char *name, double speed, double flops_per_token, double bytes,
                      double tokens_per_pass) {
    char share[64];
    double bound = b->flops / flops_per_token;
    double read = b->bytes / bytes * tokens_per_pass;
    if (read < bound) bound = read;
    snprintf(share, sizeof share, "%s_share", name);
    json_object_set_new(b->result, name, json_real(speed));
    json_object_set_new(b->result, share, json_real(speed / bound));
    fprintf(stderr, "  %-18s %10.1f tokens/s, %4.1f %% of the bound by %s\n", name, speed, 100 * speed / bound,
            read <= bound ? "memory" : "products");
}

/* A measurement's runs; with --ops one more, which does not count: op after op, for say_ops. */
static bool runs(Bench *b, long i) {
    if (i >= b->o.repeat + b->o.ops) return false;
    dev_stat_apart(b->model.dev, i >= b->o.repeat);
    dev_stat_reset(b->model.dev);
    return true;
}
static bool counts(const Bench *b, long i) { return i < b->o.repeat; }
static void say_ops(Bench *b) {
    dev_stat_apart(b->model.dev, false);
    long calls;
    double seconds;
    const char *op;
    for (int i = 0; b->o.ops && (op = dev_stat(b->model.dev, i, &calls, &seconds)); i++)
        if (seconds > 0) fprintf(stderr, "    %-16s %9.2f ms, %ld calls\n", op, 1e3 * seconds, calls);
}

static int *random_tokens(Bench *b, long n) {
    int *tok = arena_alloc(&b->o.arena, (size_t)n, sizeof *tok);
    for (long i = 0; i < n; i++) tok[i] = (int)rng_below(&b->rng, (uint64_t)b->model.policy->conf.vocab);
    return tok;
}

/* Parameters in products: all matrices, the embedding once, as the head. */
static double product_weights(const Policy *policy) {
    double n = 0;
    for (int i = 0; i < policy->params.n; i++) {
        const Param *p = &policy->params.items[i];
        if (!p->is_vector && (i != policy->p_embed || policy->conf.tied)) n += (double)p->rows * p->cols;
    }
    return n;
}

/* ---- sampling ---- */

typedef struct {
    double prompt_seconds, decode_seconds;
    int64_t prompt_tokens, new_tokens;
} Sampled;

static Engine *open_engine(Bench *b, int sequences, int longest) {
    Err err = {0};
    EngineConf conf = {.slots = sequences, .max_tokens = longest};
    Engine *engine = engine_open(b->model.policy, b->model.tok, &conf, &err);
    if (!engine) die("bench: %s", err.msg);
    return engine;
}

/* `sequences` answers of exactly `answer` tokens each (no end token is heeded) to prompts of `prompt` tokens, each
 * prompt asked `group` times. As in a run of many steps the engine stays open from one time to the next. */
static Sampled sample_once(Bench *b, Engine *engine, int sequences, int group, int prompt, int answer) {
    Err err = {0};
    int n_eos = b->model.policy->conf.n_eos;
    b->model.policy->conf.n_eos = 0;
    engine_stats_reset(engine);
    for (int i = 0; i < sequences / group; i++) {
        Request request = {.ticket = i,
                           .prompt = random_tokens(b, prompt),
                           .n_prompt = prompt,
                           .group = group,
                           .key = (uint64_t)i,
                           .temperature = 1,
                           .top_p = 1,
                           .max_new = answer};
        if (!engine_submit(engine, &request, &err)) die("bench: %s", err.msg);
    }
    while (!engine_idle(engine)) engine_step(engine);
    const EngineStats *s = engine_stats(engine);
    Sampled out = {s->prompt_seconds, s->decode_seconds, s->prompt_tokens, s->new_tokens};
    b->model.policy->conf.n_eos = n_eos;
    return out;
}

static void bench_sampling(Bench *b) {
    double forward_flops = 2 * b->weights, best = 0;
    Engine *engine = open_engine(b, 1, 513);
    for (long i = 0; runs(b, i); i++) {
        Sampled s = sample_once(b, engine, 1, 1, 512, 1);
        if (counts(b, i)) best = fmax(best, (double)s.prompt_tokens / s.prompt_seconds);
    }
    engine_close(engine);
    say_speed(b, "prompt_512", best, forward_flops, b->sampled, 512);
    say_ops(b);
    static const int sizes[] = {1, 8, 64};
    for (int k = 0; k < 3; k++) {
        char name[32];
        best = 0;
        engine = open_engine(b, sizes[k], (int)(b->o.prompt + b->o.answer));
        for (long i = 0; runs(b, i); i++) {
            Sampled s = sample_once(b, engine, sizes[k], 1, (int)b->o.prompt, (int)b->o.answer);
            if (counts(b, i)) best = fmax(best, (double)s.new_tokens / s.decode_seconds);
        }
        engine_close(engine);
        snprintf(name, sizeof name, "decode_%d", sizes[k]);
        say_speed(b, name, best, forward_flops, b->sampled, sizes[k]);
        say_ops(b);
    }
}

/* ---- learning ---- */

typedef struct {
    int n;
    BatchGroup *groups;
    LearnSample **extra;
} Groups;

/* n groups of `size` answers; advantages of alternating sign, so that every token is learnt from. */
static Groups make_groups(Bench *b, int n, int size, int prompt, int answer) {
    Arena *arena = &b->o.arena;
    Groups all = {n, arena_alloc(arena, (size_t)n, sizeof(BatchGroup)),
                  arena_alloc(arena, (size_t)n, sizeof(LearnSample *))};
    for (int g = 0; g < n; g++) {
        all.groups[g] = (BatchGroup){prompt, size, random_tokens(b, prompt),
                                     arena_alloc(arena, (size_t)size, sizeof(BatchSample))};
        all.extra[g] = arena_alloc(arena, (size_t)size, sizeof(LearnSample));
        for (int i = 0; i < size; i++) {
            real *numbers = arena_alloc(arena, 3 * (size_t)answer, sizeof(real));
            all.groups[g].samples[i] = (BatchSample){.n = answer,
                                                     .tok = random_tokens(b, answer),
                                                     .logp = numbers,
                                                     .entropy = numbers + answer,
                                                     .coef = numbers + 2 * answer};
            all.extra[g][i].seq = (LossSeq){.n = answer, .advantage = i % 2 ? -1 : 1};
        }
    }
    return all;
}

static Learner *open_learner(Bench *b, int prompt, int answer, int group) {
    Err err = {0};
    LearnConf conf = {.rows = 2048,
                      .max_prompt = prompt,
                      .max_completion = answer,
                      .group = group,
                      .temperature = 1,
                      .beta1 = 0.9,
                      .beta2 = 0.99,
                      .eps = 1e-8,
                      .max_grad_norm = 1};
    Learner *learner = learner_open(b->model.policy, NULL, &conf, &err);
    if (!learner) die("bench: %s", err.msg);
    return learner;
}

/* The learning rate is so small that the weights stay what they are for the measurements that follow. */
static double learn_once(Learner *learner, const Groups *groups, LearnReport *report) {
    Err err = {0};
    LossConf loss = {
        .term = TERM_CLIP, .sum = SUM_TOKEN, .epsilon = 0.2, .epsilon_high = 0.2, .max_completion_length = 1};
    double began = clock_seconds();
    if (!learner_update(learner, groups->groups, groups->extra, groups->n, &loss, 1e-12, 1, report, &err))
        die("bench: %s", err.msg);
    return clock_seconds() - began;
}

static void bench_learning(Bench *b) {
    Learner *learner = open_learner(b, 1, 128, 8);
    Groups groups = make_groups(b, 1, 8, 1, 128); /* 8 x 128 tokens, each a target, after one and the same */
    double forward = INFINITY, train = INFINITY, tokens = 8 * 128;
    for (long i = 0; runs(b, i); i++) {
        LearnReport report;
        double began = clock_seconds();
        learner_logp(learner, b->model.policy, groups.groups, groups.n);
        if (counts(b, i)) forward = fmin(forward, clock_seconds() - began);
        dev_stat_reset(b->model.dev);
        double seconds = learn_once(learner, &groups, &report) - report.optimizer_seconds;
        if (counts(b, i)) train = fmin(train, seconds);
    }
    say_speed(b, "forward", tokens / forward, 2 * b->weights, b->read, tokens);
    say_speed(b, "train", tokens / train, 6 * b->weights, b->read, tokens);
    say_ops(b);
    learner_close(learner);
}

static void bench_step(Bench *b) {
    int prompt = (int)b->o.prompt, answer = (int)b->o.answer;
    Learner *learner = open_learner(b, prompt, answer, 8);
    Engine *engine = open_engine(b, 64, prompt + answer);
    Groups groups = make_groups(b, 8, 8, prompt, answer);
    double best = INFINITY;
    for (long i = 0; runs(b, i); i++) {
        LearnReport r;
        Sampled s = sample_once(b, engine, 64, 8, prompt, answer);
        double sample = s.prompt_seconds + s.decode_seconds, train = learn_once(learner, &groups, &r);
        if (sample + train >= best || !counts(b, i)) continue;
        best = sample + train;
        const struct {
            const char *name;
            double seconds;
        } phases[] = {{"grpo_step_s", best},
                      {"grpo_sample_s", sample},
                      {"grpo_train_s", train},
                      {"grpo_forward_s", r.forward_seconds},
                      {"grpo_head_s", r.head_seconds},
                      {"grpo_backward_s", r.backward_seconds},
                      {"grpo_optimizer_s", r.optimizer_seconds}};
        for (size_t k = 0; k < sizeof phases / sizeof phases[0]; k++)
            json_object_set_new(b->result, phases[k].name, json_real(phases[k].seconds));
    }
    const char *name;
    json_t *value;
    json_object_foreach(b->result, name, value) if (strncmp(name, "grpo_", 5) == 0)
        fprintf(stderr, "  %-18s %10.2f s\n", name, json_real_value(value));
    say_ops(b);
    engine_close(engine);
    learner_close(learner);
}

/* ---- the command ---- */

/* Device and type without any model. */
static bool bench_device(Bench *b, Err *err) {
    const OpenConf *o = &b->o.open;
    b->model.type = strcmp(o->dtype, "float32") == 0 ? K_REAL : K_BF16;
    b->model.dev = dev_open(&(DevConf){.device = o->device, .path = o->cpu_path, .threads = (int)o->threads}, err);
    return b->model.dev && model_int8(o, b->model.dev, &b->model.int8, err);
}

static void bench_open(Bench *b, int argc, char **argv) {
    Err err = {0};
    Options *o = &b->o;
    o->open = (OpenConf){.dtype = "bfloat16", .device = "auto", .cpu_path = "auto"};
    o->repeat = 3, o->prompt = 48, o->answer = 48;
    enum { OWN = 7 };
    Option table[OPEN_OPTIONS + OWN] = {
        {"random", KEY_TEXT, &o->random, 0, 0,
         "instead of a model: weights at random in the shape of a config.json"},
        {"json", KEY_SWITCH, &o->json, 0, 0,
         "one flat JSON object on standard output; all else goes to standard error"},
        {"ops", KEY_SWITCH, &o->ops, 0, 0,
         "also the time that each op takes, in one more run of each measurement, op after op"},
        {"repeat", KEY_WHOLE, &o->repeat, 1, 1000, "runs of each measurement"},
        {"prompt_length", KEY_WHOLE, &o->prompt, 1, 100000, "tokens of a prompt, for decode_* and grpo_*"},
        {"sampling_weights", KEY_TEXT, &o->open.sampling_weights, 0, 0,
         "what prompt_*, decode_* and grpo_sample_* use: exact, or int8"},
        {"completion_length", KEY_WHOLE, &o->answer, 2, 100000, "tokens of an answer, likewise"},
    };
    open_options(&o->open, table + OWN);
    options_read(usage, table, OPEN_OPTIONS + OWN, argc, argv, &o->arena);
    if (o->random && o->open.model) die("bench: --model and --random exclude each other");
    Conf conf = {0};
    if (o->random ? !conf_open(o->random, &conf, &err) || !bench_device(b, &err)
                  : !model_open(&b->model, &o->open, &err))
        die("bench: %s", err.msg);
    if (!o->random) conf = *model_file_conf(b->model.file);
    long longest = o->prompt + o->answer > 513 ? o->prompt + o->answer : 513;
    if (longest > conf.max_positions)
        die("bench: the model has %d positions, %ld are asked", conf.max_positions, longest);
    PolicyConf policy = {
        .type = b->model.type, .int8 = b->model.int8, .train = true, .max_positions = (int)longest};
    if (o->random)
        b->model.policy = policy_random(b->model.dev, &conf, &policy, 1, &err);
    else
        model_load(&b->model, &policy, 0, &err);
    if (!b->model.policy) die("bench: %s", err.msg);
    if (o->random) conf_free(&conf);
    const Conf *c = &b->model.policy->conf;
    double size = (double)dtype_size(b->model.type), head = (double)c->vocab * c->dim;
    b->weights = product_weights(b->model.policy);
    b->read = b->sampled = b->weights * size;
    if (b->model.int8) b->sampled -= (b->weights - head) * (size - 1); /* all but the head */
}

int cmd_bench(int argc, char **argv) {
    Bench b = {.result = json_object(), .rng = {1, 0}};
    bench_open(&b, argc, argv);
    json_object_set_new(b.result, "path", json_string(dev_path(b.model.dev)));
    json_object_set_new(b.result, "threads", json_integer(dev_threads(b.model.dev)));
    fprintf(stderr, "%s, %d threads, %s\n", dev_path(b.model.dev), dev_threads(b.model.dev), b.o.open.dtype);
    b.flops = dev_roof_flops(b.model.dev), b.bytes = dev_roof_bytes(b.model.dev);
    say(&b, "roof_gflops", b.flops * 1e-9, "GF/s");
    say(&b, "bandwidth_gbs", b.bytes * 1e-9, "GB/s");
    bench_sampling(&b);
    bench_learning(&b);
    bench_step(&b);
    struct rusage usage_now;
    getrusage(RUSAGE_SELF, &usage_now);
    say(&b, "peak_rss_mb", (double)usage_now.ru_maxrss / 1024, "MiB");
    if (b.o.json) {
        char *text = json_dumps(b.result, JSON_COMPACT | JSON_REAL_PRECISION(6));
        printf("%s\n", text);
        free(text);
    }
    json_decref(b.result);
    model_close(&b.model);
    arena_free(&b.o.arena);
    return 0;
}
