/* test_rollout_engine.c: the engine: what it stores while it samples equals what the learner's forward computes,
 * bit for bit, on every path; slots, threads and neighbours change nothing; slots stay busy; sampling obeys its
 * settings. (run.sh: long) */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rollout/rollout.h"

enum { VOCAB = 300, POSITIONS = 160, SEED = 7 };

/* ---- a small random model ---- */

static bool adapted; /* with adapters: of all linears in one layer, of some in the other */

static Conf tiny_conf(void) {
    static LayerConf layers[2] = {{.rope = 0},
                                  {.rope = 1, .window = 40, .glu = GLU_GELU, .qk_norm = true, .post_norms = true}};
    layers[0].adapted = adapted ? 0x7f : 0, layers[1].adapted = adapted ? 0x2c : 0;
    Conf conf = {.dim = 48,
                 .hidden = 80,
                 .n_layers = 2,
                 .n_heads = 4,
                 .n_kv_heads = 2,
                 .head_dim = 16,
                 .vocab = VOCAB,
                 .max_positions = POSITIONS,
                 .norm_eps = 1e-5f,
                 .ropes = {{.turned = 16, .theta = 10000}, {.turned = 12, .theta = 100}},
                 .n_ropes = 2,
                 .embed_scale = 3,
                 .attn_scalar = 11,
                 .attn_cap = 4,
                 .final_cap = 6,
                 .norms_from_one = true,
                 .tied = true,
                 .bos = -1,
                 .pad = -1,
                 .layers = layers,
                 .lora = {.r = adapted ? 5 : 0, .alpha = 12}};
    for (int i = 0; i < 8; i++) conf.eos[conf.n_eos++] = 20 + 30 * i; /* about one token in forty ends a sample */
    return conf;
}

static Dev *open_dev(const char *path, int threads) {
    Err err = {0};
    Dev *dev = dev_open(&(DevConf){"cpu", path, threads, false}, &err);
    if (!dev) fail_msg("%s", err.msg);
    return dev;
}

static Policy *open_policy(Dev *dev, DType type) {
    Err err = {0};
    Conf conf = tiny_conf();
    PolicyConf policy_conf = {.type = type, .train = true, .max_positions = POSITIONS};
    Policy *policy = policy_random(dev, &conf, &policy_conf, SEED, &err);
    if (!policy) fail_msg("%s", err.msg);
    return policy;
}

static Engine *open_engine(Policy *policy, const Tokenizer *tok, int slots, int prompt_rows, int max_tokens) {
    Err err = {0};
    Engine *engine = engine_open(policy, tok, &(EngineConf){slots, prompt_rows, max_tokens, true}, &err);
    if (!engine) fail_msg("%s", err.msg);
    return engine;
}

static void submit(Engine *engine, const Request *request) {
    Err err = {0};
    if (!engine_submit(engine, request, &err)) fail_msg("%s", err.msg);
}

/* Runs until all is done; samples in the order of tickets and indices: place[ticket] + index. */
static int run_all(Engine *engine, Sample *all, const int *place) {
    int n = 0;
    Sample sample;
    while (!engine_idle(engine)) {
        engine_step(engine);
        while (engine_take(engine, &sample)) {
            Sample *at = &all[(place ? place[sample.ticket] : 0) + sample.index];
            assert_null(at->tok);
            *at = sample;
            n++;
        }
    }
    engine_cancel(engine); /* aborts unless every page is free again */
    return n;
}

/* ---- groups of ragged samples, and what the learner computes of them ---- */

enum { GROUPS = 6, MAX_NEW = 40, MAX_TOKENS = 33 + MAX_NEW, SAMPLES_MAX = 32 };
static const int PROMPT_LENGTHS[GROUPS] = {1, 31, 32, 33, 2, 64 - 32};
static const int GROUP_SIZES[GROUPS] = {5, 4, 3, 5, 1, 3};
static const int PLACES[GROUPS] = {0, 5, 9, 12, 17, 18};
enum { SAMPLES = 21 };

typedef struct {
    Sample sample[SAMPLES];
} Run;

static void group_prompt(int group, int *prompt) {
    Rng rng = {1000 + (uint64_t)group, 0};
    for (int i = 0; i < PROMPT_LENGTHS[group]; i++) prompt[i] = (int)rng_below(&rng, VOCAB);
}

static void run_groups(Run *run, Policy *policy, int slots, int prompt_rows, real temperature) {
    memset(run, 0, sizeof *run);
    Engine *engine = open_engine(policy, NULL, slots, prompt_rows, MAX_TOKENS);
    int prompt[MAX_TOKENS];
    for (int g = 0; g < GROUPS; g++) {
        group_prompt(g, prompt);
        submit(engine, &(Request){.ticket = g,
                                  .prompt = prompt,
                                  .n_prompt = PROMPT_LENGTHS[g],
                                  .group = GROUP_SIZES[g],
                                  .key = rng_mix(SEED, (uint64_t)g),
                                  .temperature = temperature,
                                  .top_p = 1,
                                  .max_new = MAX_NEW});
    }
    assert_int_equal(run_all(engine, run->sample, PLACES), SAMPLES);
    engine_close(engine);
}

static void run_free(Run *run) {
    for (int i = 0; i < SAMPLES; i++) sample_free(&run->sample[i]);
}

static void assert_runs_equal(const Run *a, const Run *b) {
    for (int i = 0; i < SAMPLES; i++) {
        const Sample *x = &a->sample[i], *y = &b->sample[i];
        assert_int_equal(x->n, y->n);
        assert_int_equal(x->finish, y->finish);
        assert_memory_equal(x->tok, y->tok, (size_t)x->n * sizeof(int));
        assert_memory_equal(x->logp, y->logp, (size_t)x->n * sizeof(real));
        assert_memory_equal(x->draw_logp, y->draw_logp, (size_t)x->n * sizeof(real));
        assert_int_equal(x->kept_n, y->kept_n);
        assert_memory_equal(x->kept, y->kept, x->kept_n);
    }
}

/* A packed batch as the learner makes it. */
typedef struct {
    int tok[2048], pos[2048], page[2048], index[2048], target[2048];
    KvSpan spans[64];
    KvShare shares[64];
    int table[1024];
    int n_table, n_pages;
    Rows rows;
} Packed;

static void packed_row(Packed *b, int tok, int pos, int page, int target) {
    int r = b->rows.m++;
    b->tok[r] = tok, b->pos[r] = pos, b->page[r] = page, b->target[r] = target, b->index[r] = r;
}

static void packed_pad(Packed *b) {
    while (b->rows.m % 32) packed_row(b, 0, 0, -1, -1);
}

/* Whole sequences, one after the other: every prompt is computed anew for every sample. */
static void pack_whole(Packed *b, const Sample *samples, int n) {
    for (int s = 0; s < n; s++) {
        const Sample *sample = &samples[s];
        b->spans[b->rows.n_spans] = (KvSpan){b->rows.m, sample->n - 1, 0, b->n_table, b->rows.n_spans, 0};
        b->rows.n_spans++;
        int table = b->n_table;
        for (int p = 0; p < sample->n - 1; p += KV_PAGE) b->table[b->n_table++] = b->n_pages++;
        for (int p = 0; p < sample->n - 1; p++)
            packed_row(b, sample->tok[p], p, b->table[table + p / KV_PAGE],
                       p + 1 >= sample->n_prompt ? sample->tok[p + 1] : -1);
        packed_pad(b);
    }
}

/* One group: its samples' rows, then its prompt's, whose pages the samples share. The first tokens' log-probs,
 * which all come from the prompt's last row, are asked of further rows of the head. */
static void pack_group(Packed *b, const Sample *samples, int n, int extra[], int *n_extra) {
    int prompt = samples[0].n_prompt, full = prompt / KV_PAGE, part = prompt % KV_PAGE;
    int pages = full + (part > 0), first = b->n_pages;
    b->n_pages += pages;
    for (int s = 0; s < n; s++) {
        const Sample *sample = &samples[s];
        int table = b->n_table, more = sample->n - 1 - prompt;
        for (int p = 0; p < full; p++) b->table[b->n_table++] = first + p;
        int share = part ? b->rows.n_shares + 1 : 0;
        if (part) {
            b->table[b->n_table++] = b->n_pages;
            b->shares[b->rows.n_shares++] = (KvShare){first + full, b->n_pages++, part};
        }
        for (int p = pages * KV_PAGE; p < sample->n - 1; p += KV_PAGE) b->table[b->n_table++] = b->n_pages++;
        b->spans[b->rows.n_spans++] = (KvSpan){b->rows.m, more, prompt, table, 0, share};
        for (int p = prompt; p < sample->n - 1; p++)
            packed_row(b, sample->tok[p], p, b->table[table + p / KV_PAGE], sample->tok[p + 1]);
    }
    packed_pad(b);
    int table = b->n_table;
    for (int p = 0; p < pages; p++) b->table[b->n_table++] = first + p;
    b->spans[b->rows.n_spans++] = (KvSpan){b->rows.m, prompt, 0, table, 0, 0};
    for (int p = 0; p < prompt; p++) packed_row(b, samples[0].tok[p], p, first + p / KV_PAGE, -1);
    for (int s = 0; s < n; s++) extra[(*n_extra)++] = b->rows.m - 1;
    packed_pad(b);
}

/* Log-probs of rows of a packed batch, through a tape, as training computes them. */
static void packed_logp(Policy *policy, Packed *b, const int *index, const int *target, int n, real temperature,
                        real *out) {
    Err err = {0};
    const Conf *c = &policy->conf;
    b->rows.tok = b->tok, b->rows.pos = b->pos, b->rows.page = b->page;
    b->rows.spans = b->spans, b->rows.table = b->table, b->rows.shares = b->shares;
    Work work;
    assert_true(work_open(&work, policy, b->rows.m, &err));
    Tape *tape = tape_open(policy, b->rows.m, false, &err);
    Kv kv = k_kv_new(policy->dev, b->n_pages, c->n_layers, c->n_kv_heads, c->head_dim, policy->type, false, &err);
    Ten y = k_new(policy->dev, n, c->dim, policy->type, &err),
        picked = k_new(policy->dev, n, c->dim, K_REAL, &err);
    Ten logp = k_new(policy->dev, 1, n, K_REAL, &err), lse = k_new(policy->dev, 1, n, K_REAL, &err);
    Ten stream = forward(policy, &b->rows, &kv, tape, &work);
    forward_final(policy, y, TEN_NONE, picked, stream, index);
    k_logprob(policy->dev, logp, lse, TEN_NONE, y, &policy->head, target, TEN_NONE,
              temperature > 0 ? 1 / temperature : 1, (real)policy->conf.final_cap);
    k_get(policy->dev, out, logp);
    k_free(policy->dev, &y), k_free(policy->dev, &picked), k_free(policy->dev, &logp), k_free(policy->dev, &lse);
    k_kv_free(policy->dev, &kv);
    tape_close(policy, tape);
    work_close(&work, policy);
}

/* Sampled tokens whose stored log-prob is not the learner's, bit for bit; *worst is the largest difference. */
static int differ_whole(Policy *policy, const Run *run, real temperature, double *worst) {
    Packed *b = MEM_NEW(Packed);
    real *logp = MEM_ARRAY(real, 2048);
    int differ = 0, r = 0;
    pack_whole(b, run->sample, SAMPLES);
    packed_logp(policy, b, b->index, b->target, b->rows.m, temperature, logp);
    for (int s = 0; s < SAMPLES; s++, r = (r + 31) / 32 * 32)
        for (int p = 0; p < run->sample[s].n - 1; p++, r++) {
            if (b->target[r] < 0) continue;
            double gap = fabs((double)logp[r] - (double)run->sample[s].logp[p + 1]);
            if (gap > *worst) *worst = gap;
            differ += memcmp(&logp[r], &run->sample[s].logp[p + 1], sizeof(real)) != 0;
        }
    free(logp);
    free(b);
    return differ;
}

static int differ_group(Policy *policy, const Sample *samples, int n, real temperature) {
    Packed *b = MEM_NEW(Packed);
    real *logp = MEM_ARRAY(real, 2048);
    int extra[16], n_extra = 0, differ = 0, r = 0;
    pack_group(b, samples, n, extra, &n_extra);
    int m = b->rows.m;
    for (int s = 0; s < n; s++) {
        b->index[m + s] = extra[s];
        b->target[m + s] = samples[s].tok[samples[s].n_prompt];
    }
    packed_logp(policy, b, b->index, b->target, m + n, temperature, logp);
    for (int s = 0; s < n; s++) {
        const Sample *sample = &samples[s];
        differ += memcmp(&logp[m + s], &sample->logp[sample->n_prompt], sizeof(real)) != 0;
        for (int p = sample->n_prompt; p < sample->n - 1; p++, r++)
            differ += memcmp(&logp[r], &sample->logp[p + 1], sizeof(real)) != 0;
    }
    free(logp);
    free(b);
    return differ;
}

/* ---- exactness ---- */

/* On one path: this number of slots, rows of a prompt batch and threads gives the samples of `first`, and the
 * learner their log-probs, whether it computes whole sequences or groups that share their prompt. */
static void path_exact(const char *path, int threads, DType type, int slots, int prompt_rows, const Run *first) {
    Dev *dev = open_dev(path, threads);
    Policy *policy = open_policy(dev, type);
    real temperature = (real)0.7;
    Run run;
    run_groups(&run, policy, slots, prompt_rows, temperature);
    assert_runs_equal(&run, first);
    double worst = 0;
    if (slots > 1) assert_int_equal(differ_whole(policy, &run, temperature, &worst), 0);
    for (int g = 0; slots == 64 && g < GROUPS; g++)
        assert_int_equal(differ_group(policy, run.sample + PLACES[g], GROUP_SIZES[g], temperature), 0);
    run_free(&run);
    policy_close(policy);
    dev_close(dev);
}

static void assert_ragged(const Run *run) {
    int stopped = 0, least = MAX_NEW, most = 0;
    for (int i = 0; i < SAMPLES; i++) {
        const Sample *s = &run->sample[i];
        int n = s->n - s->n_prompt;
        if (n < least) least = n;
        if (n > most) most = n;
        stopped += s->finish == FINISH_STOP;
        assert_true(n >= 1 && n <= MAX_NEW);
        assert_true(s->finish == FINISH_STOP || n == MAX_NEW);
        assert_int_equal(s->n_segments, 2);
        assert_int_equal(s->segments[0].n, s->n_prompt);
        assert_false(s->segments[0].trained);
        assert_int_equal(s->segments[1].start, s->n_prompt);
        assert_int_equal(s->segments[1].n, n);
        assert_true(s->segments[1].trained && s->segments[1].role == ROLE_MODEL);
        for (int p = 0; p < s->n; p++) assert_true(p < s->n_prompt ? s->logp[p] == 0 : s->logp[p] < 0);
        for (int p = s->n_prompt; p < s->n; p++)
            assert_memory_equal(&s->logp[p], &s->draw_logp[p], sizeof(real)); /* nothing is cut off */
    }
    assert_true(stopped >= 3 && stopped < SAMPLES && least < MAX_NEW / 2 && most == MAX_NEW);
}

static void paths_exact(int first_type) {
    const char *names[8];
    int n = dev_paths(names);
    for (int type = first_type; type < 2; type++)
        for (int p = 0; p < n; p++) {
#ifdef __SANITIZE_ADDRESS__ /* in plain C it takes minutes there */
            if (p < n - 1 && strstr(names[p], "plain")) continue;
#endif
            Dev *dev = open_dev(names[p], 1);
            Policy *policy = open_policy(dev, type ? K_BF16 : K_REAL);
            Run first;
            run_groups(&first, policy, 5, 0, (real)0.7);
            assert_ragged(&first);
            path_exact(names[p], 1, policy->type, 64, 40, &first);
            path_exact(names[p], 2, policy->type, 7, 7, &first);
            if (type) path_exact(names[p], 2, policy->type, 1, 512, &first);
            run_free(&first);
            policy_close(policy);
            dev_close(dev);
        }
}

static void test_exact(void **state) {
    (void)state;
    paths_exact(0);
}

static void test_exact_adapters(void **state) {
    (void)state;
    adapted = true;
    paths_exact(1);
    adapted = false;
}

/* The same model with its features in another order: every product and norm then sums the same numbers in another
 * order. A planted fault for the test above. */
static void policy_shuffle(Policy *policy, uint64_t seed) {
    int dim = policy->conf.dim, *to = MEM_ARRAY(int, dim);
    Rng rng = {seed, 0};
    for (int i = 0; i < dim; i++) to[i] = i;
    for (int i = dim - 1; i > 0; i--) {
        int j = (int)rng_below(&rng, (uint64_t)i + 1), t = to[i];
        to[i] = to[j], to[j] = t;
    }
    for (int i = 0; i < policy->params.n; i++) {
        const Param *param = &policy->params.items[i];
        if (strstr(param->name, "q_norm") || strstr(param->name, "k_norm")) continue; /* of other features */
        bool rows = strstr(param->name, "o_proj") || strstr(param->name, "down_proj");
        size_t cols = (size_t)param->cols, n = (size_t)param->rows * cols;
        real *from = MEM_ARRAY(real, n), *new = MEM_ARRAY(real, n);
        k_get(policy->dev, from, policy_master(policy, i));
        for (size_t r = 0; r < (size_t)param->rows; r++)
            for (size_t c = 0; c < cols; c++)
                new[rows ? (size_t)to[r] * cols + c : r * cols + (size_t)to[c]] = from[r * cols + c];
        k_put(policy->dev, policy_master(policy, i), new);
        free(from);
        free(new);
    }
    policy_pack(policy);
    free(to);
}

static void test_other_order_is_seen(void **state) {
    (void)state;
    Dev *dev = open_dev("auto", 1);
    Policy *policy = open_policy(dev, K_REAL);
    Run run;
    double worst = 0;
    run_groups(&run, policy, 7, 0, 1);
    assert_int_equal(differ_whole(policy, &run, 1, &worst), 0);
    assert_true(worst == 0);
    policy_shuffle(policy, 99);
    int differ = differ_whole(policy, &run, 1, &worst);
    assert_true(differ > 20);
    assert_true(worst > 0 && worst < 1e-4);
    run_free(&run);
    policy_close(policy);
    dev_close(dev);
}

/* A sequence that is continued draws what it would have drawn: a token's number depends on key, index and position
 * only. */
static void test_continued(void **state) {
    (void)state;
    Dev *dev = open_dev("auto", 1);
    Policy *policy = open_policy(dev, K_BF16);
    Run run;
    run_groups(&run, policy, 7, 0, 1);
    Engine *engine = open_engine(policy, NULL, 2, 0, MAX_TOKENS);
    for (int g = 0; g < GROUPS; g++)
        for (int i = 0; i < GROUP_SIZES[g]; i++) {
            const Sample *whole = &run.sample[PLACES[g] + i];
            int n = whole->n_prompt + (whole->n - whole->n_prompt) / 2;
            Sample rest = {0}, all[8] = {{0}};
            if (n == whole->n) continue;
            submit(engine, &(Request){.prompt = whole->tok,
                                      .n_prompt = n,
                                      .group = 1,
                                      .index0 = i,
                                      .key = rng_mix(SEED, (uint64_t)g),
                                      .temperature = 1,
                                      .top_p = 1,
                                      .max_new = MAX_NEW - (n - whole->n_prompt)});
            assert_int_equal(run_all(engine, all, NULL), 1);
            rest = all[i];
            assert_int_equal(rest.n, whole->n);
            assert_memory_equal(rest.tok, whole->tok, (size_t)whole->n * sizeof(int));
            assert_memory_equal(rest.logp + n, whole->logp + n, (size_t)(whole->n - n) * sizeof(real));
            sample_free(&rest);
        }
    engine_close(engine);
    run_free(&run);
    policy_close(policy);
    dev_close(dev);
}

/* ---- slots and memory ---- */

static void test_slots_stay_busy(void **state) {
    (void)state;
    Dev *dev = open_dev("auto", 1);
    Policy *policy = open_policy(dev, K_BF16);
    for (int slots = 8; slots <= 32; slots *= 4) {
        Engine *engine = open_engine(policy, NULL, slots, 64, POSITIONS);
        int samples = 0, finished = 0, prompt[80];
        Rng rng = {5, 0};
        for (int g = 0; g < 80; g++) {
            int n = 1 + (int)rng_below(&rng, 80), group = 1 + (int)rng_below(&rng, 6);
            for (int i = 0; i < n; i++) prompt[i] = (int)rng_below(&rng, VOCAB);
            submit(engine, &(Request){.ticket = g,
                                      .prompt = prompt,
                                      .n_prompt = n,
                                      .group = group,
                                      .key = (uint64_t)g,
                                      .temperature = 1,
                                      .top_p = 1,
                                      .max_new = 1 + (int)rng_below(&rng, POSITIONS - 81)});
            samples += group;
        }
        Sample sample;
        while (!engine_idle(engine)) {
            engine_step(engine);
            for (; engine_take(engine, &sample); finished++) sample_free(&sample);
        }
        assert_int_equal(finished, samples);
        const EngineStats *stats = engine_stats(engine);
        double busy = (double)stats->busy_slot_steps / (double)stats->slot_steps;
        print_message("%d slots, ragged: %.1f %% busy while requests wait\n", slots, 100 * busy);
        assert_true(stats->slot_steps > 20 * slots && busy >= 0.9);
        engine_cancel(engine);
        engine_close(engine);
    }
    policy_close(policy);
    dev_close(dev);
}

/* Every sequence as long as it may be, and prompts that nearly fill it: pages are at their shortest. */
static void test_pages_never_end(void **state) {
    (void)state;
    Dev *dev = open_dev("auto", 1);
    Policy *policy = open_policy(dev, K_BF16);
    policy->conf.n_eos = 0;
    static const int lengths[] = {1, 95, 64, 63, 32, 94};
    for (int slots = 1; slots <= 9; slots += 4) {
        Engine *engine = open_engine(policy, NULL, slots, 16, 96);
        int prompt[96] = {0}, samples = 0;
        for (int g = 0; g < 18; g++) {
            submit(engine, &(Request){.prompt = prompt,
                                      .n_prompt = lengths[g % 6],
                                      .group = 1 + g % 3,
                                      .index0 = samples,
                                      .temperature = 1,
                                      .top_p = 1,
                                      .max_new = 1000});
            samples += 1 + g % 3;
        }
        Sample all[64] = {{0}};
        assert_int_equal(run_all(engine, all, NULL), samples);
        for (int i = 0; i < samples; i++) {
            assert_int_equal(all[i].n, 96);
            assert_int_equal(all[i].finish, FINISH_LENGTH);
            sample_free(&all[i]);
        }
        engine_close(engine);
    }
    policy_close(policy);
    dev_close(dev);
}

static void test_memory_plan_and_errors(void **state) {
    (void)state;
    Dev *dev = open_dev("plain", 1);
    Policy *policy = open_policy(dev, K_BF16);
    EngineConf conf = {5, 32, 64, true};
    Err err = {0};
    size_t before = dev_bytes(dev), plan = engine_bytes(dev, &policy->conf, K_BF16, &conf);
    Engine *engine = engine_open(policy, NULL, &conf, &err);
    assert_int_equal(dev_bytes(dev) - before, plan);
    engine_close(engine);
    assert_int_equal(dev_bytes(dev), before);
    engine = open_engine(policy, NULL, conf.slots, conf.prompt_rows, conf.max_tokens);
    int prompt[64] = {1, 2, VOCAB};
    Request request = {.prompt = prompt, .n_prompt = 64, .group = 2, .temperature = 1, .top_p = 1, .max_new = 4};
    assert_false(engine_submit(engine, &request, &err));
    assert_non_null(strstr(err.msg, "64 tokens"));
    request.n_prompt = 0;
    assert_false(engine_submit(engine, &request, &err));
    request.n_prompt = 3;
    assert_false(engine_submit(engine, &request, &err));
    assert_non_null(strstr(err.msg, "id 300"));
    request.n_prompt = 2, request.group = 9;
    submit(engine, &request);
    submit(engine, &request);
    engine_step(engine);
    assert_false(engine_idle(engine));
    engine_cancel(engine); /* aborts unless every page is free */
    assert_true(engine_idle(engine));
    engine_close(engine);
    before = dev_bytes(dev); /* the back keeps its workspaces */
    dev_limit(dev, before + plan / 2);
    assert_null(engine_open(policy, NULL, &conf, &err));
    assert_int_equal(dev_bytes(dev), before);
    dev_limit(dev, 0);
    assert_null(engine_open(policy, NULL, &(EngineConf){1, 0, POSITIONS + 1, false}, &err));
    policy_close(policy);
    dev_close(dev);
}

/* ---- sampling ---- */

/* Log-softmax of the next token after a prompt. */
static void next_logp(Policy *policy, const int *prompt, int n, real temperature, double *logp) {
    Packed *b = MEM_NEW(Packed);
    for (int p = 0; p < n; p++) packed_row(b, prompt[p], p, p / KV_PAGE, -1);
    b->spans[0] = (KvSpan){0, n, 0, 0, 0, 0};
    for (b->n_pages = 0; b->n_pages * KV_PAGE < n; b->n_pages++) b->table[b->n_pages] = b->n_pages;
    b->rows.n_spans = 1;
    int *index = MEM_ARRAY(int, VOCAB), *target = MEM_ARRAY(int, VOCAB);
    real *out = MEM_ARRAY(real, VOCAB);
    for (int v = 0; v < VOCAB; v++) index[v] = n - 1, target[v] = v;
    packed_logp(policy, b, index, target, VOCAB, temperature, out);
    for (int v = 0; v < VOCAB; v++) logp[v] = (double)out[v];
    free(index);
    free(target);
    free(out);
    free(b);
}

static int argmax(const double *logp) {
    int best = 0;
    for (int v = 1; v < VOCAB; v++)
        if (logp[v] > logp[best]) best = v;
    return best;
}

static void test_greedy(void **state) {
    (void)state;
    Dev *dev = open_dev("auto", 1);
    Policy *policy = open_policy(dev, K_BF16);
    Run run;
    run_groups(&run, policy, 7, 0, 0);
    double worst = 0, logp[VOCAB];
    assert_int_equal(differ_whole(policy, &run, 0, &worst), 0);
    for (int g = 0; g < GROUPS; g++) {
        const Sample *s = &run.sample[PLACES[g]];
        for (int p = s->n_prompt; p < s->n && p < s->n_prompt + 6; p++) {
            next_logp(policy, s->tok, p, 0, logp);
            assert_int_equal(s->tok[p], argmax(logp));
        }
        for (int i = 1; i < GROUP_SIZES[g]; i++) assert_memory_equal(s->tok, s[i].tok, (size_t)s->n * sizeof(int));
    }
    run_free(&run);
    policy_close(policy);
    dev_close(dev);
}

enum { DRAWS = 6000 };
static Sample *draw_many(Policy *policy, const Request *settings) {
    Engine *engine = open_engine(policy, NULL, 64, 0, 64);
    int prompt[3] = {5, 6, 7};
    Request request = *settings;
    request.prompt = prompt, request.n_prompt = 3, request.group = DRAWS, request.max_new = 1, request.key = 12345;
    submit(engine, &request);
    Sample *all = MEM_ARRAY(Sample, DRAWS);
    assert_int_equal(run_all(engine, all, NULL), DRAWS);
    assert_int_equal(engine_stats(engine)->prompt_tokens, 3); /* once for the whole group */
    engine_close(engine);
    return all;
}

/* The set that came with the sample's first token. */
static void check_kept(const Sample *sample, const bool *kept, int n_kept) {
    int32_t bits[KEPT_WORDS(VOCAB)];
    if (n_kept == VOCAB) {
        assert_null(sample->kept);
        return;
    }
    assert_non_null(kept_read(sample->kept, sample->kept + sample->kept_n, bits, VOCAB));
    for (int v = 0; v < VOCAB; v++) assert_int_equal((uint32_t)bits[v / 32] >> v % 32 & 1, kept[v]);
}

/* Draws fall on the kept tokens only, as often as their probabilities say (chi-square), and draw_logp is the
 * log-probability inside the kept set. */
static void check_draws(Policy *policy, const Request *settings, const bool *kept, const double *logp) {
    Sample *all = draw_many(policy, settings);
    int counts[VOCAB] = {0}, n_kept = 0;
    double mass = 0, chi = 0;
    for (int v = 0; v < VOCAB; v++)
        if (kept[v]) mass += exp(logp[v]), n_kept++;
    for (int i = 0; i < DRAWS; i++) {
        int id = all[i].tok[3];
        assert_true(kept[id]);
        counts[id]++;
        assert_true(fabs((double)all[i].logp[3] - logp[id]) < 1e-5);
        assert_true(fabs((double)all[i].draw_logp[3] - (logp[id] - log(mass))) < 1e-4);
        check_kept(&all[i], kept, n_kept);
        sample_free(&all[i]);
    }
    for (int v = 0; v < VOCAB; v++)
        if (kept[v]) {
            double want = DRAWS * exp(logp[v]) / mass;
            chi += (counts[v] - want) * (counts[v] - want) / want;
        }
    double freedom = n_kept - 1, z = freedom > 0 ? (chi - freedom) / sqrt(2 * freedom) : 0;
    print_message("%d tokens kept, mass %.3f: chi-square %.1f, %.1f deviations\n", n_kept, mass, chi, z);
    assert_true(z < 4);
    free(all);
}

static void test_cuts(void **state) {
    (void)state;
    Dev *dev = open_dev("auto", 1);
    Policy *policy = open_policy(dev, K_REAL);
    int prompt[3] = {5, 6, 7}, order[VOCAB];
    double logp[VOCAB], sum = 0;
    bool all[VOCAB], top[VOCAB] = {false}, nucleus[VOCAB] = {false}, near[VOCAB];
    real temperature = (real)0.5;
    next_logp(policy, prompt, 3, temperature, logp);
    for (int v = 0; v < VOCAB; v++) {
        all[v] = true, order[v] = v;
        near[v] = logp[v] >= logp[argmax(logp)] + log(0.4);
        for (int i = v; i > 0 && logp[order[i]] > logp[order[i - 1]]; i--) {
            int t = order[i];
            order[i] = order[i - 1], order[i - 1] = t;
        }
    }
    for (int i = 0; i < 7; i++) top[order[i]] = true;
    for (int i = 0; i < VOCAB && sum < 0.6; i++) nucleus[order[i]] = true, sum += exp(logp[order[i]]);
    check_draws(policy, &(Request){.temperature = temperature, .top_p = 1}, all, logp);
    check_draws(policy, &(Request){.temperature = temperature, .top_p = 1, .top_k = 7}, top, logp);
    check_draws(policy, &(Request){.temperature = temperature, .top_p = (real)0.6}, nucleus, logp);
    check_draws(policy, &(Request){.temperature = temperature, .top_p = 1, .min_p = (real)0.4}, near, logp);
    policy_close(policy);
    dev_close(dev);
}

/* ---- stop strings and the tokenizer ---- */

static void sample_text(const Tokenizer *tok, const Sample *sample, int n, Buf *text) {
    buf_clear(text);
    tokenizer_decode(tok, sample->tok + sample->n_prompt, n - sample->n_prompt, false, text);
}

static void test_stop_strings(void **state) {
    (void)state;
    Err err = {0};
    Dev *dev = open_dev("auto", 1);
    Tokenizer *tok = tokenizer_open_json("tests/goldens/tiny-llama/tokenizer.json", &err);
    if (!tok) fail_msg("%s", err.msg);
    Conf conf = tiny_conf();
    conf.vocab = tokenizer_vocab(tok) + 20; /* rows of the head that no token uses */
    conf.n_eos = 0;
    PolicyConf policy_conf = {.type = K_BF16, .max_positions = POSITIONS};
    Policy *policy = policy_random(dev, &conf, &policy_conf, SEED, &err);
    Engine *engine = open_engine(policy, tok, 4, 0, POSITIONS);
    int prompt[3] = {40, 41, 42}, stopped = 0;
    Request request = {
        .prompt = prompt, .n_prompt = 3, .group = 12, .key = 3, .temperature = 2, .top_p = 1, .max_new = 60};
    Sample whole[12] = {{0}}, cut[12] = {{0}};
    submit(engine, &request);
    assert_int_equal(run_all(engine, whole, NULL), 12);
    Buf text = {0};
    for (int i = 0; i < 12; i++) {
        for (int p = 3; p < whole[i].n; p++) assert_true(whole[i].tok[p] < tokenizer_vocab(tok));
        /* a string that begins in one token and ends in another, far apart */
        sample_text(tok, &whole[i], 20, &text);
        size_t from = text.n - 1;
        sample_text(tok, &whole[i], 24, &text);
        char *stop_text = mem_text_n(text.p + from, text.n - from);
        if (strlen(stop_text) != text.n - from) *stop_text = 0; /* a NUL byte: this one is left out */
        const char *stop[] = {"never to be found", stop_text, NULL};
        request.group = 1, request.index0 = i, request.stop = stop;
        submit(engine, &request);
        assert_int_equal(run_all(engine, cut, NULL), 1);
        assert_memory_equal(cut[i].tok, whole[i].tok, (size_t)cut[i].n * sizeof(int));
        if (*stop_text) {
            assert_true(cut[i].n <= 24 && cut[i].finish == FINISH_STOP);
            sample_text(tok, &cut[i], cut[i].n, &text);
            assert_non_null(memmem(text.p, text.n, stop_text, strlen(stop_text)));
            sample_text(tok, &cut[i], cut[i].n - 1, &text);
            assert_null(memmem(text.p, text.n, stop_text, strlen(stop_text)));
            stopped++;
        }
        free(stop_text);
    }
    assert_true(stopped >= 6);
    for (int i = 0; i < 12; i++) sample_free(&whole[i]), sample_free(&cut[i]);
    buf_free(&text);
    engine_close(engine);
    policy_close(policy);
    tokenizer_close(tok);
    dev_close(dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_exact_adapters),
        cmocka_unit_test(test_other_order_is_seen),
        cmocka_unit_test(test_continued),
        cmocka_unit_test(test_slots_stay_busy),
        cmocka_unit_test(test_pages_never_end),
        cmocka_unit_test(test_memory_plan_and_errors),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_stop_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
