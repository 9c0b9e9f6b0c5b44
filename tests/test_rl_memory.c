/* test_rl_memory.c: the memory plan: policy_bytes and learner_bytes are what is allocated, to the byte, and
 * k_workspace_bytes is a bound on what the ops take for themselves; beyond a limit each part fails with one line
 * and leaves nothing behind; a sequence of 4,096 tokens trains, recomputed, where it would not fit otherwise. With
 * WHET_MODEL (a GGUF, or the one in build/model/) the same for a real model; with WHET_LONG also 4,096 tokens of
 * it. (run.sh: long) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rl/learn.h"

/* Where the real model is left out. */
#if defined(__SANITIZE_ADDRESS__) || defined(WHET_DOUBLE)
enum { SLOW = true };
#else
enum { SLOW = false };
#endif

/* ---- a small model and some groups ---- */

static const Conf *small_conf(bool tied) {
    static LayerConf plain[4] = {
        {.qkv_bias = true}, {.out_bias = true, .mlp_bias = true}, {.window = 100}, {.window = 100}};
    static LayerConf rich[4] = {{.qk_norm = true, .post_norms = true, .glu = GLU_GELU},
                                {.fused = true, .post_norms = true},
                                {.rope = 1, .window = 100, .qk_norm = true},
                                {.rope = -1, .window = 100}};
    static Conf conf[2];
    conf[tied] = (Conf){.dim = 40,
                        .hidden = 72,
                        .n_layers = 4,
                        .n_heads = 4,
                        .n_kv_heads = 2,
                        .head_dim = 16,
                        .vocab = 2601,
                        .max_positions = 4096,
                        .norm_eps = 1e-5f,
                        .ropes = {{.turned = 16, .theta = 10000}, {.turned = 12, .theta = 100}},
                        .n_ropes = 2,
                        .embed_scale = tied ? 3 : 1,
                        .attn_scalar = tied ? 11 : 16,
                        .attn_cap = tied ? 4 : 0,
                        .final_cap = tied ? 6 : 0,
                        .norms_from_one = tied,
                        .tied = tied,
                        .layers = tied ? rich : plain};
    return &conf[tied];
}

/* The same with adapters of all linears in some layers, and of some in others. */
static const Conf *adapted_conf(bool tied) {
    static const unsigned which[4] = {0x7f, 0x01, 0x60, 0};
    static LayerConf layers[4];
    static Conf conf[2];
    conf[tied] = *small_conf(tied);
    for (int l = 0; l < 4; l++) layers[l] = conf[tied].layers[l], layers[l].adapted = which[l];
    conf[tied].layers = layers, conf[tied].lora = (Lora){.r = 6, .alpha = 12};
    return &conf[tied];
}

typedef struct {
    int n;
    BatchGroup *groups;
    LearnSample **extra;
    Arena arena;
} World;

static World world_make(int n, int size, int n_prompt, int n_completion, int vocab) {
    World w = {.n = n};
    Rng rng = {9, 0};
    w.groups = arena_alloc(&w.arena, (size_t)n, sizeof *w.groups);
    w.extra = arena_alloc(&w.arena, (size_t)n, sizeof *w.extra);
    for (int g = 0; g < n; g++) {
        int *prompt = arena_alloc(&w.arena, (size_t)n_prompt, sizeof(int));
        for (int i = 0; i < n_prompt; i++) prompt[i] = (int)rng_below(&rng, (uint64_t)vocab);
        w.groups[g] = (BatchGroup){.n_prompt = n_prompt, .n = size, .prompt = prompt};
        w.groups[g].samples = arena_alloc(&w.arena, (size_t)size, sizeof *w.groups[g].samples);
        w.extra[g] = arena_alloc(&w.arena, (size_t)size, sizeof **w.extra);
        for (int i = 0; i < size; i++) {
            BatchSample *s = &w.groups[g].samples[i];
            int *tok = arena_alloc(&w.arena, (size_t)n_completion, sizeof(int));
            for (int t = 0; t < n_completion; t++) tok[t] = (int)rng_below(&rng, (uint64_t)vocab);
            s->n = n_completion, s->tok = tok;
            s->logp = arena_alloc(&w.arena, (size_t)n_completion, sizeof(real));
            s->entropy = arena_alloc(&w.arena, (size_t)n_completion, sizeof(real));
            s->coef = arena_alloc(&w.arena, (size_t)n_completion, sizeof(real));
            w.extra[g][i] = (LearnSample){.seq = {.n = n_completion, .advantage = i % 2 ? -1 : 1.5}};
        }
    }
    return w;
}

static const LossConf plain_loss = {
    .term = TERM_CLIP, .sum = SUM_TOKEN, .epsilon = 0.2, .epsilon_high = 0.2, .max_completion_length = 100};

static LearnConf learn_conf(int rows, bool recompute, int max_prompt, int max_completion, int group) {
    return (LearnConf){.rows = rows,
                       .recompute = recompute,
                       .max_prompt = max_prompt,
                       .max_completion = max_completion,
                       .group = group,
                       .temperature = 1,
                       .beta1 = 0.9,
                       .beta2 = 0.99,
                       .eps = 1e-8,
                       .max_grad_norm = 1};
}

static Dev *device(const char *path, int threads) {
    Err err = {0};
    Dev *dev = dev_open(&(DevConf){.path = path, .threads = threads}, &err);
    if (!dev) fail_msg("%s", err.msg);
    return dev;
}

static size_t learner_plan(const Dev *dev, const Conf *conf, const PolicyConf *policy, const LearnConf *learn) {
    Params params = params_of(conf, policy);
    size_t bytes = learner_bytes(dev, conf, policy->type, &params, learn);
    params_free(&params);
    return bytes;
}

static size_t workspace_plan(const Dev *dev, const Conf *c, const LearnConf *learn) {
    int rows = batch_limits(learn->rows, learn->max_prompt, learn->max_completion, learn->group).max_head;
    return k_workspace_bytes(dev, rows, c->dim, c->hidden, c->vocab, c->n_heads * c->head_dim,
                             c->n_kv_heads * c->head_dim);
}

static void train(Learner *learner, World *w, int64_t step) {
    LearnReport report;
    Err err = {0};
    if (!learner_update(learner, w->groups, w->extra, w->n, &plain_loss, 1e-3, step, &report, &err))
        fail_msg("%s", err.msg);
    assert_true(report.grad_norm > 0);
}

/* ---- the plan is what is allocated ---- */

static void exact(const Conf *conf, DType type, bool recompute, const char *const *frozen) {
    Dev *dev = device(NULL, 2);
    Err err = {0};
    bool int8 = recompute;
    PolicyConf learns = {.type = type, .train = true, .frozen = frozen, .int8 = int8, .max_positions = 200},
               stays = {.type = type, .int8 = int8, .max_positions = 200};
    LearnConf learn = learn_conf(600, recompute, 40, 50, 4);
    size_t policy_plan = policy_bytes(dev, conf, &learns), stays_plan = policy_bytes(dev, conf, &stays);
    Policy *policy = policy_random(dev, conf, &learns, 1, &err);
    assert_int_equal(dev_peak(dev), policy_plan);
    size_t before = dev_bytes(dev);
    assert_true(frozen || conf->lora.r ? before < policy_plan : before == policy_plan);
    Policy *reference = policy_random(dev, conf, &stays, 2, &err);
    assert_int_equal(dev_peak(dev) - before, stays_plan);
    before = dev_bytes(dev);
    Learner *learner = learner_open(policy, reference, &learn, &err);
    assert_int_equal(dev_bytes(dev) - before, learner_plan(dev, conf, &learns, &learn));
    learner_close(learner);
    policy_close(policy);
    policy_close(reference);
    assert_int_equal(dev_bytes(dev), 0);
    dev_close(dev);
}

static void test_exact(void **state) {
    (void)state;
    static const char *const some[] = {"model.layers.0.*", NULL}, *const embed[] = {"model.embed_tokens.weight",
                                                                                    NULL};
    for (int tied = 0; tied < 2; tied++)
        for (int recompute = 0; recompute < 2; recompute++) {
            exact(small_conf(tied), K_BF16, recompute, NULL);
            exact(small_conf(tied), K_REAL, recompute, NULL);
            exact(small_conf(tied), K_BF16, recompute, some);
            exact(small_conf(tied), K_BF16, recompute, embed);
            exact(adapted_conf(tied), K_BF16, recompute, NULL);
            exact(adapted_conf(tied), K_REAL, recompute, NULL);
        }
}

/* ---- workspaces ---- */

/* What the ops took for themselves in training and in asking for log-probs, over the bound. */
static double workspace_share(const Conf *conf, DType type, const char *path, int threads, int rows) {
    Dev *dev = device(path, threads);
    Err err = {0};
    PolicyConf learns = {.type = type, .train = true, .max_positions = 200};
    LearnConf learn = learn_conf(rows, false, 40, 50, 8);
    Policy *policy = policy_random(dev, conf, &learns, 1, &err);
    Learner *learner = learner_open(policy, NULL, &learn, &err);
    size_t before = dev_bytes(dev), bound = workspace_plan(dev, conf, &learn);
    World w = world_make(3, 8, 40, 50, conf->vocab);
    train(learner, &w, 1);
    learner_logp(learner, policy, w.groups, w.n);
    size_t took = dev_bytes(dev) - before;
    assert_true(took > 0);
    if (took > bound) fail_msg("%zu bytes on %s, the bound is %zu", took, dev_path(dev), bound);
    assert_true(dev_peak(dev) <= before + bound);
    arena_free(&w.arena);
    learner_close(learner);
    policy_close(policy);
    dev_close(dev);
    return (double)took / (double)bound;
}

static void test_workspaces(void **state) {
    (void)state;
    const char *names[8];
    int n = dev_paths(names);
    double least = 1, most = 0;
    for (int i = 0; i < n; i++)
        for (int kind = 0; kind < 4; kind++) {
            if (kind && (SLOW || (i < n - 1 && strstr(names[i], "plain")))) break; /* plain C is slow too */
            double share = workspace_share(small_conf(kind % 2), kind % 2 ? K_BF16 : K_REAL, names[i], 1 + kind,
                                           kind < 2 ? 600 : 1400);
            least = fmin(least, share), most = fmax(most, share);
        }
    workspace_share(adapted_conf(true), K_BF16, names[n - 1], 2, 600);
    workspace_share(adapted_conf(false), K_REAL, names[n - 1], 2, 600);
    print_message("workspaces take %.0f to %.0f %% of their bound\n", 100 * least, 100 * most);
    assert_true(most > 0.3); /* a bound, not a guess */
}

/* What an engine takes, with weights of int8 or without. */
static void engine_share(const char *path, DType type, bool int8) {
    Dev *dev = device(path, 2);
    Err err = {0};
    const Conf *conf = small_conf(true);
    PolicyConf samples = {.type = type, .int8 = int8, .max_positions = 100};
    EngineConf engine_conf = {.slots = 40, .max_tokens = 100};
    Policy *policy = policy_random(dev, conf, &samples, 1, &err);
    size_t before = dev_bytes(dev);
    size_t bound =
        engine_bytes(dev, conf, type, &engine_conf) + workspace_bytes(dev, conf, engine_rows(dev, &engine_conf));
    Engine *engine = engine_open(policy, NULL, &engine_conf, &err);
    int prompt[70] = {0};
    for (int i = 0; i < 3; i++) {
        Request request = {
            .prompt = prompt, .n_prompt = 70, .group = 20, .temperature = 1, .top_p = 1, .max_new = 20};
        assert_true(engine_submit(engine, &request, &err));
    }
    while (!engine_idle(engine)) engine_step(engine);
    if (dev_peak(dev) > before + bound)
        fail_msg("%zu bytes on %s, the bound is %zu", dev_peak(dev) - before, dev_path(dev), bound);
    engine_close(engine);
    policy_close(policy);
    dev_close(dev);
}

static void test_engine(void **state) {
    (void)state;
    const char *names[8];
    for (int n = dev_paths(names), i = 0; i < n; i++)
        for (int kind = 0; kind < 4; kind++) {
            if (SLOW && i < n - 1) break;
            engine_share(names[i], kind % 2 ? K_BF16 : K_REAL, kind / 2);
        }
    /* A byte a weight of the layers, and a scale an output, where there were two. */
    const Conf *conf = small_conf(true);
    Dev *dev = device(NULL, 1);
    PolicyConf exact = {.type = K_BF16, .max_positions = 100}, small = exact, both = exact;
    small.int8 = both.int8 = both.train = exact.train = true, small.train = false;
    size_t more = policy_bytes(dev, conf, &both) - policy_bytes(dev, conf, &exact);
    exact.train = false;
    size_t less = policy_bytes(dev, conf, &exact) - policy_bytes(dev, conf, &small), layers = 0, scales = 0;
    Params params = params_of(conf, &exact);
    for (int i = 1; i < params.n; i++) {
        const Param *p = &params.items[i];
        if (p->is_vector) continue;
        layers += (size_t)((p->rows + 15) / 16 * 16 * ((p->cols + 31) / 32 * 32));
        scales += (size_t)((p->rows + 15) / 16 * 16) * sizeof(real);
    }
    params_free(&params);
    assert_true(more <= layers + scales && more > layers + scales - layers / 8); /* parts share padding */
    assert_true(less <= layers - scales + layers / 8 && less >= layers - scales - layers / 8);
    dev_close(dev);
}

/* ---- limits ---- */

static void test_limit(void **state) {
    (void)state;
    Dev *dev = device(NULL, 2);
    Err err = {0};
    const Conf *conf = small_conf(true);
    PolicyConf learns = {.type = K_BF16, .train = true, .max_positions = 200};
    LearnConf learn = learn_conf(600, false, 40, 50, 4);
    size_t weights = policy_bytes(dev, conf, &learns), rest = learner_plan(dev, conf, &learns, &learn);
    dev_limit(dev, weights - 1);
    assert_null(policy_random(dev, conf, &learns, 1, &err));
    assert_non_null(strstr(err.msg, "the limit is"));
    assert_int_equal(dev_bytes(dev), 0);
    dev_limit(dev, weights + rest - 1);
    Policy *policy = policy_random(dev, conf, &learns, 1, &err);
    assert_non_null(policy);
    err.msg[0] = 0;
    assert_null(learner_open(policy, NULL, &learn, &err));
    assert_non_null(strstr(err.msg, "the limit is"));
    assert_int_equal(dev_bytes(dev), weights);
    dev_limit(dev, weights + rest);
    Learner *learner = learner_open(policy, NULL, &learn, &err);
    assert_non_null(learner);
    learner_close(learner);
    policy_close(policy);
    dev_close(dev);
}

/* ---- 4,096 tokens ---- */

enum { LONG = 4096, LONG_PROMPT = 96 };

/* Trains one sequence of LONG tokens and a short one beside it in just the planned memory, where it would not fit
 * without recomputing. */
static void train_long(Dev *dev, Policy *policy, size_t planned, size_t workspaces) {
    Err err = {0};
    int vocab = policy->conf.vocab;
    LearnConf learn = learn_conf(512, true, LONG_PROMPT, LONG - LONG_PROMPT, 2), whole = learn;
    whole.recompute = false;
    dev_limit(dev, planned);
    assert_null(learner_open(policy, NULL, &whole, &err));
    Learner *learner = learner_open(policy, NULL, &learn, &err);
    if (!learner) fail_msg("%s", err.msg);
    size_t limit = planned + workspaces;
    dev_limit(dev, limit);
    World w = world_make(1, 2, LONG_PROMPT, LONG - LONG_PROMPT, vocab);
    w.groups[0].samples[1].n = w.extra[0][1].seq.n = 5;
    double began = clock_seconds();
    train(learner, &w, 1);
    print_message("%d tokens in %.1f s, %.0f MB of %.0f MB at the most\n", LONG, clock_seconds() - began,
                  (double)dev_peak(dev) * 1e-6, (double)limit * 1e-6);
    assert_true(dev_peak(dev) <= limit);
    arena_free(&w.arena);
    learner_close(learner);
}

static void test_long(void **state) {
    (void)state;
    Dev *dev = device(NULL, 2);
    Err err = {0};
    const Conf *conf = small_conf(true);
    PolicyConf learns = {.type = K_BF16, .train = true, .max_positions = LONG};
    LearnConf learn = learn_conf(512, true, LONG_PROMPT, LONG - LONG_PROMPT, 2);
    size_t planned = policy_bytes(dev, conf, &learns) + learner_plan(dev, conf, &learns, &learn);
    dev_limit(dev, planned);
    Policy *policy = policy_random(dev, conf, &learns, 1, &err);
    assert_non_null(policy);
    train_long(dev, policy, planned, workspace_plan(dev, conf, &learn));
    policy_close(policy);
    dev_close(dev);
}

/* ---- a real model ---- */

static char *model_path(void) {
    const char *env = getenv("WHET_MODEL");
    if (env && env[0]) return mem_text(env);
    glob_t found;
    char *path = NULL;
    if (glob("build/model/*.gguf", 0, NULL, &found) == 0 && found.gl_pathc == 1)
        path = mem_text(found.gl_pathv[0]);
    globfree(&found);
    if (!path) print_message("SKIPPED: no model: set WHET_MODEL, or put one .gguf file into build/model/\n");
    return path;
}

static void test_real(void **state) {
    (void)state;
    char *path = SLOW ? NULL : model_path();
    if (!path) skip();
    bool longest = getenv("WHET_LONG") != NULL;
    Err err = {0};
    Dev *dev = device(NULL, 2);
    ModelFile *file = model_file_open(path, &err);
    if (!file) fail_msg("%s", err.msg);
    const Conf *conf = model_file_conf(file);
    PolicyConf learns = {.type = K_BF16, .train = true, .max_positions = LONG};
    Policy *policy = policy_load(dev, file, &learns, &err);
    if (!policy) fail_msg("%s", err.msg);
    size_t weights = policy_bytes(dev, conf, &learns);
    assert_int_equal(dev_peak(dev), weights);
    LearnConf learn =
        longest ? learn_conf(512, true, LONG_PROMPT, LONG - LONG_PROMPT, 2) : learn_conf(512, true, 20, 24, 8);
    size_t rest = learner_plan(dev, conf, &learns, &learn), bound = workspace_plan(dev, conf, &learn);
    print_message("weights %.0f MB, learner %.0f MB, workspaces at most %.0f MB\n", (double)weights * 1e-6,
                  (double)rest * 1e-6, (double)bound * 1e-6);
    if (longest) {
        train_long(dev, policy, weights + rest, bound);
    } else {
        Learner *learner = learner_open(policy, NULL, &learn, &err);
        assert_int_equal(dev_bytes(dev), weights + rest);
        World w = world_make(1, 8, 20, 24, conf->vocab);
        train(learner, &w, 1);
        print_message("workspaces took %.0f MB\n", (double)(dev_bytes(dev) - weights - rest) * 1e-6);
        assert_true(dev_peak(dev) <= weights + rest + bound);
        arena_free(&w.arena);
        learner_close(learner);
    }
    policy_close(policy);
    model_file_close(file);
    dev_close(dev);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact), cmocka_unit_test(test_workspaces), cmocka_unit_test(test_engine),
        cmocka_unit_test(test_limit), cmocka_unit_test(test_long),       cmocka_unit_test(test_real),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
