/* test_rollout_adapter.c: low-rank adapters: how they begin, PEFT's folder written and read to the same bits, the
 * merged weights against the adapters applied, and folders of adapters that are not supported. Their gradients:
 * test_rl_learn.c; sampler and learner: test_rollout_engine.c; PEFT itself: long_lora.sh. */
#include "rollout/internal.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define GOLDENS "tests/goldens/"
enum { TOKENS = 90 };

static char folder[] = "/tmp/whet-adapter-XXXXXX";
static const char *const all_linears[] = {"all-linear", NULL};

/* ---- models ---- */

typedef struct {
    Dev *dev;
    ModelFile *file;
    Policy *policy;
} Model;

static ModelFile *file_of(const char *path) {
    Err err = {0};
    ModelFile *file = model_file_open(path, &err);
    if (!file) fail_msg("%s", err.msg);
    return file;
}

static Model load(ModelFile *file, DType type, bool train) {
    Err err = {0};
    Model m = {.dev = dev_open(&(DevConf){.threads = 2}, &err), .file = file};
    PolicyConf conf = {.type = type, .train = train, .max_positions = 128};
    m.policy = policy_load(m.dev, file, &conf, &err);
    if (!m.policy) fail_msg("%s", err.msg);
    return m;
}

static Model load_new(const char *path, const Lora *lora, const char *const *targets, DType type) {
    Err err = {0};
    ModelFile *file = file_of(path);
    if (!model_file_adapt_new(file, lora, targets, path, 5, &err)) fail_msg("%s", err.msg);
    return load(file, type, true);
}

static Model load_saved(const char *path, DType type, bool merged) {
    Err err = {0};
    ModelFile *file = file_of(path);
    if (!model_file_adapt(file, folder, &err)) fail_msg("%s", err.msg);
    if (merged) model_file_merge(file);
    return load(file, type, false);
}

static void close_all(Model *m) {
    policy_close(m->policy);
    model_file_close(m->file);
    dev_close(m->dev);
}

/* Log-probs of a fixed row of tokens. */
static void logp_of(Model *m, real logp[TOKENS]) {
    Err err = {0};
    Policy *policy = m->policy;
    const Conf *c = &policy->conf;
    Work work;
    int tok[TOKENS], pos[TOKENS], page[TOKENS], index[TOKENS], target[TOKENS], table[] = {0, 1, 2};
    for (int i = 0; i < TOKENS; i++)
        tok[i] = (37 * i + i * i) % c->vocab, pos[i] = index[i] = i, page[i] = i / KV_PAGE;
    for (int i = 0; i < TOKENS; i++) target[i] = tok[(i + 1) % TOKENS];
    assert_true(work_open(&work, policy, TOKENS, &err));
    Kv kv = k_kv_new(m->dev, 3, c->n_layers, c->n_kv_heads, c->head_dim, policy->type, false, &err);
    Ten y = k_new(m->dev, TOKENS, c->dim, policy->type, &err), x = k_new(m->dev, TOKENS, c->dim, K_REAL, &err);
    Ten out = k_new(m->dev, 1, TOKENS, K_REAL, &err), lse = k_new(m->dev, 1, TOKENS, K_REAL, &err);
    KvSpan span = {.n = TOKENS};
    Rows rows = {.m = TOKENS, .tok = tok, .pos = pos, .page = page, .n_spans = 1, .spans = &span, .table = table};
    forward_final(policy, y, TEN_NONE, x, forward(policy, &rows, &kv, NULL, &work), index);
    k_logprob(m->dev, out, lse, TEN_NONE, y, &policy->head, target, TEN_NONE, 1, (real)c->final_cap);
    k_get(m->dev, logp, out);
    k_free(m->dev, &y), k_free(m->dev, &x), k_free(m->dev, &out), k_free(m->dev, &lse);
    k_kv_free(m->dev, &kv);
    work_close(&work, policy);
}

static double gap_of(const real *a, const real *b) {
    double most = 0;
    for (int i = 0; i < TOKENS; i++) most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

/* As if they had learnt: numbers of the size of A's in every B. */
static void learn(Model *m, uint64_t seed) {
    Rng rng = {seed, 0};
    const Params *params = &m->policy->params;
    for (int i = 0; i < params->n; i++) {
        const Param *p = &params->items[i];
        if (!p->trained || !strstr(p->name, "lora_B")) continue;
        real *host = MEM_ARRAY(real, (size_t)p->rows * (size_t)p->cols);
        for (int j = 0; j < p->rows * p->cols; j++) host[j] = (real)(0.1 * rng_normal(&rng));
        k_put(m->dev, policy_master(m->policy, i), host);
        free(host);
    }
    policy_pack(m->policy);
}

static void save(Model *m) {
    Err err = {0};
    Tokenizer *tok = tokenizer_open(m->file, &err);
    assert_non_null(tok);
    if (!adapter_save(folder, m->policy, tok, NULL, "Q: {problem}\nA:", &err)) fail_msg("%s", err.msg);
    tokenizer_close(tok);
}

/* ---- tests ---- */

/* New adapters are rows that learn beside frozen ones; they change nothing, to the last bit. */
static void test_new(void **state) {
    (void)state;
    static const char *const some[] = {"q_proj", "up_proj", "model.layers.1.self_attn.o_proj", NULL};
    Model m = load_new(GOLDENS "tiny-llama", &(Lora){.r = 4, .alpha = 8}, some, K_BF16),
          base = load(file_of(GOLDENS "tiny-llama"), K_BF16, false);
    const Params *params = &m.policy->params;
    int64_t trained = 0;
    int a = 0, others = 0;
    for (int i = 0; i < params->n; i++) {
        const Param *p = &params->items[i];
        others += p->adapter_of < 0;
        assert_int_equal(p->trained, p->adapter_of >= 0);
        if (!p->trained) continue;
        const Param *of = &params->items[p->adapter_of];
        bool is_a = strstr(p->name, ".lora_A.weight") != NULL;
        assert_memory_equal(p->name, of->name, strlen(of->name) - strlen(".weight"));
        assert_int_equal(p->rows, is_a ? 4 : of->rows);
        assert_int_equal(p->cols, is_a ? of->cols : 4);
        float *host = MEM_ARRAY(float, (size_t)p->rows *(size_t)p->cols);
        Err err = {0};
        assert_true(policy_read(m.policy, i, host, &err));
        float most = 0, bound = 1 / sqrtf((float)p->cols), sum = 0;
        for (int j = 0; j < p->rows * p->cols; j++) most = fmaxf(most, fabsf(host[j])), sum += host[j];
        if (is_a)
            assert_true(most <= bound && most > 0.9f * bound &&
                        fabsf(sum) < bound * 0.2f * (float)(p->rows * p->cols));
        if (!is_a) assert_true(most == 0);
        free(host);
        a += is_a;
        trained += p->rows * p->cols;
    }
    assert_int_equal(a, 2 * model_file_conf(m.file)->n_layers + 1);
    assert_int_equal(others, base.policy->params.n);
    assert_int_equal(trained, params->n_trained);
    real x[TOKENS], y[TOKENS];
    logp_of(&m, x), logp_of(&base, y);
    assert_memory_equal(x, y, sizeof x);
    learn(&m, 1);
    logp_of(&m, x);
    assert_true(gap_of(x, y) > 0.01);
    m.policy->adapters_off = true; /* the base model in the same memory */
    logp_of(&m, x);
    assert_memory_equal(x, y, sizeof x);
    close_all(&m);
    close_all(&base);
}

/* Saved and loaded they compute the same bits; merged into the weights the same to 1e-5 in float32. */
static void round_trip(const char *path, const Lora *lora, const char *const *targets) {
    Model m = load_new(path, lora, targets, K_REAL), base = load(file_of(path), K_REAL, false);
    learn(&m, 2);
    save(&m);
    char *name;
    Err err = {0};
    assert_true(adapter_base(folder, &name, &err));
    assert_string_equal(name, path);
    Model saved = load_saved(path, K_REAL, false), merged = load_saved(path, K_REAL, true);
    assert_string_equal(model_file_base(saved.file), path);
    assert_null(model_file_base(merged.file));
    assert_string_equal(model_file_prompt_template(saved.file), "Q: {problem}\nA:");
    assert_int_equal(merged.policy->params.n, base.policy->params.n);
    for (int l = 0; l < model_file_conf(m.file)->n_layers; l++)
        assert_int_equal(saved.policy->conf.layers[l].adapted, m.policy->conf.layers[l].adapted);
    real x[TOKENS], y[TOKENS], z[TOKENS], b[TOKENS];
    logp_of(&m, x), logp_of(&saved, y), logp_of(&merged, z), logp_of(&base, b);
    assert_memory_equal(x, y, sizeof x);
    print_message("%s: applied and merged differ by %.2g, with and without by %.2g\n", path, gap_of(x, z),
                  gap_of(x, b));
    assert_true(gap_of(x, z) < 1e-5);
    assert_true(gap_of(x, b) > 0.01);
    free(name);
    close_all(&m), close_all(&base), close_all(&saved), close_all(&merged);
}

static void test_round_trip(void **state) {
    (void)state;
    static const char *const attention[] = {"k_proj", "v_proj", NULL}, *const one[] = {
                                                                           "model.layers.1.mlp.gate_proj",
                                                                           "down_proj", NULL};
    round_trip(GOLDENS "tiny-llama", &(Lora){.r = 8, .alpha = 16}, all_linears);
    round_trip(GOLDENS "tiny-untied", &(Lora){.r = 3, .alpha = 5, .rslora = true}, attention);
    round_trip(GOLDENS "tiny-biased", &(Lora){.r = 1, .alpha = 0.5}, one);
    round_trip(GOLDENS "tiny.gguf", &(Lora){.r = 5, .alpha = 8}, all_linears); /* its q and k lie turned */
}

/* The settings of the saved folder with one of them changed, or a tensor's name, are refused. */
static void refused(const char *edit, const char *what) {
    Buf command = {0};
    buf_format(&command,
               "cd %s && cp adapter_config.json kept.json && cp adapter_model.safetensors kept && sed -i '%s' %s",
               folder, edit, strstr(edit, "lora_A.") ? "adapter_model.safetensors" : "adapter_config.json");
    assert_int_equal(system(command.p), 0);
    Err err = {0};
    ModelFile *file = file_of(GOLDENS "tiny-llama");
    assert_false(model_file_adapt(file, folder, &err));
    if (!strstr(err.msg, what)) fail_msg("%s: %s", edit, err.msg);
    assert_null(strchr(err.msg, '\n'));
    model_file_close(file);
    buf_clear(&command);
    buf_format(&command, "cd %s && mv kept.json adapter_config.json && mv kept adapter_model.safetensors", folder);
    assert_int_equal(system(command.p), 0);
    buf_free(&command);
}

static void test_refused(void **state) {
    (void)state;
    Model m = load_new(GOLDENS "tiny-llama", &(Lora){.r = 4, .alpha = 8}, all_linears, K_BF16);
    save(&m);
    refused("s/\"LORA\"/\"IA3\"/", "adapters of the type IA3 are not supported");
    refused("s/\"use_dora\": false/\"use_dora\": true/", "use_dora is not supported");
    refused("s/\"modules_to_save\": null/\"modules_to_save\": [\"lm_head\"]/", "modules_to_save is not supported");
    refused("s/\"rank_pattern\": {}/\"rank_pattern\": {\"q_proj\": 2}/", "rank_pattern is not supported");
    refused("s/\"bias\": \"none\"/\"bias\": \"all\"/", "bias \"all\" is not supported");
    refused("s/\"init_lora_weights\": true/\"init_lora_weights\": \"pissa_niter_4\"/", "changes the base model");
    refused("s/\"r\": 4/\"r\": 0/", "is no number above 0");
    refused("s/\"r\": 4/\"r\": 8/", "expected 8 x");
    refused("s/self_attn.q_proj.lora_A./self_attn.x_proj.lora_A./", "adapts no linear of the base model");
    refused("s/1.mlp.up_proj.lora_A./9.mlp.up_proj.lora_A./", "adapts no linear of the base model");
    refused("s/$/}/", "adapter_config.json");
    Err err = {0};
    ModelFile *file = file_of(GOLDENS "tiny-untied");
    bool same = model_file_conf(file)->hidden == model_file_conf(m.file)->hidden &&
                model_file_conf(file)->dim == model_file_conf(m.file)->dim;
    assert_int_equal(model_file_adapt(file, folder, &err), same);
    model_file_close(file);
    file = file_of(GOLDENS "tiny-llama");
    static const char *const head[] = {"q_proj", "lm_head", NULL};
    assert_false(model_file_adapt_new(file, &(Lora){.r = 4, .alpha = 8}, head, "x", 1, &err));
    assert_non_null(strstr(err.msg, "lm_head is no linear of this model's layers: name some of q_proj, k_proj"));
    model_file_close(file);
    close_all(&m);
}

int main(void) {
    assert_non_null(mkdtemp(folder));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) || failed;
}
