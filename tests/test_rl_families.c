/* test_rl_families.c: every family of models against transformers: log-probs of a text's tokens and the gradient
 * of every parameter, in float32; and, in both compute types, what the sampler stores against the learner, bit for
 * bit. The numbers are tests/goldens/family-goldens.json.gz, made by make_family_goldens.py beside it, or those of
 * the file that WHET_FAMILIES names (tests/long_architectures.py makes more). Weights are a function of name and
 * place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "rl/learn.h"

/* ---- the goldens ---- */

static json_t *goldens_load(void) {
    const char *path = getenv("WHET_FAMILIES");
    gzFile file = gzopen(path ? path : "tests/goldens/family-goldens.json.gz", "rb");
    assert_non_null(file);
    Buf text = {0};
    char part[65536];
    for (int n; (n = gzread(file, part, sizeof part)) > 0;) buf_add(&text, part, (size_t)n);
    gzclose(file);
    json_t *all = json_loadb(text.p, text.n, 0, NULL);
    buf_free(&text);
    assert_non_null(all);
    return all;
}

static json_t *member(const json_t *object, const char *key) {
    json_t *value = json_object_get(object, key);
    if (!value) fail_msg("the goldens have no %s", key);
    return value;
}

static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* ---- the model ---- */

typedef struct {
    const TensorEntry *entries;
    bool from_one;
} Weights;

static bool weights_read(void *self, int index, float *out, Err *err) {
    (void)err;
    const Weights *w = self;
    const TensorEntry *t = &w->entries[index];
    uint64_t seed = 0xCBF29CE484222325u;
    for (const char *c = t->name; *c; c++) seed = (seed ^ (unsigned char)*c) * 0x100000001B3u;
    size_t length = strlen(t->name);
    bool norm = length > 11 && strcmp(t->name + length - 11, "norm.weight") == 0;
    for (size_t i = 0; i < (size_t)t->rows * (size_t)t->cols; i++) {
        double u = (double)(mix((i + 1) * 0x9E3779B97F4A7C15u + seed) >> 40) / 16777216.0 - 0.5;
        if (t->is_vector)
            u = u * 0.5 + (norm && !w->from_one ? 1 : 0);
        else if (!strstr(t->name, "embed_tokens"))
            u *= 3 / sqrt(t->cols);
        out[i] = (float)u;
    }
    return true;
}

/* The case as a Hugging Face folder. */
static void model_write(const json_t *golden, const char *folder) {
    Err err = {0};
    Arena arena = {0};
    json_t *config = member(golden, "config"), *gradients = member(golden, "gradients"), *one;
    assert_int_equal(json_dump_file(config, arena_format(&arena, "%s/config.json", folder), 0), 0);
    TensorEntry *entries = MEM_ARRAY(TensorEntry, json_object_size(gradients));
    const char *name, *type = json_string_value(member(config, "model_type"));
    int n = 0;
    json_object_foreach(gradients, name, one) {
        const json_t *shape = member(one, "shape");
        bool is_vector = json_array_size(shape) == 1;
        int rows = (int)json_integer_value(json_array_get(shape, 0)),
            cols = (int)json_integer_value(json_array_get(shape, 1));
        entries[n++] = (TensorEntry){name, is_vector ? 1 : rows, is_vector ? rows : cols, is_vector};
    }
    Weights weights = {entries, strncmp(type, "gemma", 5) == 0};
    if (!safetensors_write(arena_format(&arena, "%s/model.safetensors", folder), entries, n, false, weights_read,
                           &weights, NULL, &err))
        fail_msg("%s", err.msg);
    free(entries);
    arena_free(&arena);
}

typedef struct {
    int n, prompt;
    int *tok;
    real *logp, *entropy, *coef;
    ModelFile *file;
    Dev *dev;
    Policy *policy;
    Learner *learner;
} Bench;

static Bench bench_open(const json_t *golden, const ModelFile *file, DType type) {
    const json_t *tokens = member(golden, "tokens");
    Bench b = {.n = (int)json_array_size(tokens), .prompt = (int)json_integer_value(member(golden, "prompt"))};
    Err err = {0};
    b.tok = MEM_ARRAY(int, b.n), b.logp = MEM_ARRAY(real, b.n), b.entropy = MEM_ARRAY(real, b.n),
    b.coef = MEM_ARRAY(real, b.n);
    for (int i = 0; i < b.n; i++) b.tok[i] = (int)json_integer_value(json_array_get(tokens, (size_t)i));
    b.dev = dev_open(&(DevConf){.threads = 2, .trap_nan = true}, &err);
    b.policy = policy_load(b.dev, file, &(PolicyConf){.type = type, .train = true, .max_positions = b.n}, &err);
    if (!b.policy) fail_msg("%s", err.msg);
    LearnConf learn = {
        .rows = 256, .max_prompt = b.prompt, .max_completion = b.n - b.prompt, .group = 1, .temperature = 1};
    b.learner = learner_open(b.policy, NULL, &learn, &err);
    if (!b.learner) fail_msg("%s", err.msg);
    return b;
}

static void bench_close(Bench *b) {
    learner_close(b->learner);
    policy_close(b->policy);
    dev_close(b->dev);
    free(b->tok), free(b->logp), free(b->entropy), free(b->coef);
}

/* ---- against transformers ---- */

static double logp_error(const Bench *b, const json_t *golden) {
    double worst = 0;
    const json_t *list = member(golden, "logp");
    assert_int_equal(json_array_size(list), b->n - b->prompt);
    for (int i = 0; i < b->n - b->prompt; i++) {
        double want = json_number_value(json_array_get(list, (size_t)i));
        double error = fabs((double)b->logp[i] - want) / fmax(1, fabs(want));
        if (!(error <= worst)) worst = error;
    }
    return worst;
}

/* The worst of all parameters: the norm of the difference, estimated, over the norm; floor: norms below it count
 * as that (a gradient that is 0 but for rounding). */
static double gradient_error(const Bench *b, const json_t *stored, double floor, const char **name) {
    double worst = 0;
    assert_int_equal(json_object_size(stored), b->policy->params.n);
    for (int p = 0; p < b->policy->params.n; p++) {
        const Param *param = &b->policy->params.items[p];
        const json_t *one = member(stored, param->name), *products = member(one, "products");
        int n = param->rows * param->cols, count = (int)json_array_size(products);
        real *host = MEM_ARRAY(real, n);
        k_get(b->dev, host, params_view(&b->policy->params, p, learner_grads(b->learner)));
        double sums[64] = {0}, off = 0;
        assert_true(count > 0 && count <= 64);
        for (int i = 0; i < n; i++) {
            uint64_t bits = mix(((uint64_t)i + 1) * 0x9E3779B97F4A7C15u);
            for (int j = 0; j < count; j++) sums[j] += bits >> j & 1 ? (double)host[i] : -(double)host[i];
        }
        for (int j = 0; j < count; j++) {
            double d = sums[j] - json_number_value(json_array_get(products, (size_t)j));
            off += d * d;
        }
        off = sqrt(off / count) / fmax(floor, json_number_value(member(one, "norm")));
        if (!(off <= worst)) worst = off, *name = param->name;
        free(host);
    }
    return worst;
}

static BatchGroup group_of(const Bench *b, BatchSample *sample, const int *tok, int n) {
    *sample = (BatchSample){.n = n - b->prompt, .tok = tok + b->prompt};
    sample->logp = b->logp, sample->entropy = b->entropy, sample->coef = b->coef;
    return (BatchGroup){.n_prompt = b->prompt, .n = 1, .prompt = tok, .samples = sample};
}

static void against_transformers(const json_t *golden, const ModelFile *file) {
    Bench b = bench_open(golden, file, K_REAL);
    Err err = {0};
    LearnReport report;
    BatchSample sample;
    BatchGroup group = group_of(&b, &sample, b.tok, b.n);
    LearnSample extra = {.seq = {.n = sample.n, .advantage = 1}}, *extras[1] = {&extra};
    LossConf loss = {.epsilon = 0.2, .epsilon_high = 0.2, .max_completion_length = sample.n};
    assert_true(loss_find("dr_grpo", &loss));
    assert_true(learner_gradients(b.learner, &group, extras, 1, &loss, &report, &err));
    const char *which = "", *name = json_string_value(member(golden, "name"));
    const json_t *gradients = member(golden, "gradients");
    double most = 0, logp = logp_error(&b, golden);
    const json_t *one;
    const char *key;
    json_object_foreach((json_t *)gradients, key, one) most = fmax(most, json_number_value(member(one, "norm")));
    double gradient = gradient_error(&b, gradients, 1e-3 * most, &which);
    print_message("%s: %d tokens, logp %.1e, gradient %.1e (%s)\n", name, b.n, logp, gradient, which);
    if (!(logp < 2e-4)) fail_msg("%s: log-probs are off by %.1e", name, logp);
    if (!(gradient < 1e-3)) fail_msg("%s: the gradient of %s is off by %.1e", name, which, gradient);
    bench_close(&b);
}

/* ---- the sampler against the learner ---- */

static void exact(const json_t *golden, const ModelFile *file, DType type) {
    enum { GROUP = 3 };
    Bench b = bench_open(golden, file, type);
    Err err = {0};
    Engine *engine = engine_open(b.policy, NULL, &(EngineConf){.slots = 2, .max_tokens = b.n}, &err);
    if (!engine) fail_msg("%s", err.msg);
    Request request = {.prompt = b.tok,
                       .n_prompt = b.prompt,
                       .group = GROUP,
                       .key = 5,
                       .temperature = 1,
                       .top_p = 1,
                       .max_new = b.n - b.prompt};
    if (!engine_submit(engine, &request, &err)) fail_msg("%s", err.msg);
    int taken = 0;
    while (taken < GROUP) {
        engine_step(engine);
        for (Sample s; engine_take(engine, &s); sample_free(&s), taken++) {
            BatchSample sample;
            BatchGroup group = group_of(&b, &sample, s.tok, s.n);
            learner_logp(b.learner, b.policy, &group, 1);
            if (memcmp(b.logp, s.logp + b.prompt, (size_t)sample.n * sizeof(real)) != 0)
                fail_msg("%s: other bits than the learner's", json_string_value(member(golden, "name")));
        }
    }
    engine_close(engine);
    bench_close(&b);
}

static void test_families(void **state) {
    json_t *golden;
    size_t i;
    char folder[] = "/tmp/whet-families-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    json_array_foreach((json_t *)*state, i, golden) {
        Err err = {0};
        model_write(golden, folder);
        ModelFile *file = model_file_open(folder, &err);
        if (!file) fail_msg("%s: %s", json_string_value(member(golden, "name")), err.msg);
        against_transformers(golden, file);
        exact(golden, file, K_REAL);
        exact(golden, file, K_BF16);
        model_file_close(file);
    }
    const char *const files[] = {"config.json", "model.safetensors"};
    for (int f = 0; f < 2; f++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[f]);
        unlink(path);
    }
    rmdir(folder);
}

static int setup(void **state) {
    *state = goldens_load();
    return 0;
}
static int teardown(void **state) {
    json_decref(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_families)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
