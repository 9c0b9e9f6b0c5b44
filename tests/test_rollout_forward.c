/* test_rollout_forward.c: the forward pass against transformers: ids and float32 log-probs of texts under the tiny
 * models (and, given WHET_MODEL, under SmolLM2) as tests/goldens/make_logprob_goldens.py stored them; and the
 * same bits however a text is cut into batches. (run.sh: long) */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rollout/rollout.h"

#define TOLERANCE 2e-4 /* times max(1, |value|); 1.2e-6 was measured on the tiny models, 3.6e-5 on SmolLM2 */

typedef struct {
    Dev *dev;
    ModelFile *file;
    Tokenizer *tok;
    Policy *policy;
    char name[128];
} Model;

static void model_close(Model *model) {
    policy_close(model->policy);
    if (model->tok) tokenizer_close(model->tok);
    if (model->file) model_file_close(model->file);
    dev_close(model->dev);
    *model = (Model){0};
}

static void model_open(Model *model, const char *path, const char *name, const char *cpu_path, DType type) {
    Err err = {0};
    model_close(model);
    snprintf(model->name, sizeof model->name, "%s", name);
    model->dev = dev_open(&(DevConf){"cpu", cpu_path, 2, false}, &err);
    model->file = model->dev ? model_file_open(path, &err) : NULL;
    model->tok = model->file ? tokenizer_open(model->file, &err) : NULL;
    PolicyConf conf = {.type = type,
                       .max_positions = model->tok ? model_file_conf(model->file)->max_positions : 0};
    model->policy = model->tok ? policy_load(model->dev, model->file, &conf, &err) : NULL;
    if (!model->policy) fail_msg("%s", err.msg);
}

/* logp[i] of ids[i + 1], the text cut into batches of `rows` rows. */
static void text_logp(Model *model, const int *ids, int n, int rows, real *logp) {
    Err err = {0};
    Policy *policy = model->policy;
    const Conf *c = &policy->conf;
    Work work;
    int pages = (n + KV_PAGE - 1) / KV_PAGE;
    assert_true(work_open(&work, policy, rows, &err));
    Kv kv = k_kv_new(model->dev, pages, c->n_layers, c->n_kv_heads, c->head_dim, policy->type, false, &err);
    Ten y = k_new(model->dev, rows, c->dim, policy->type, &err),
        picked = k_new(model->dev, rows, c->dim, K_REAL, &err);
    Ten out = k_new(model->dev, 1, rows, K_REAL, &err), lse = k_new(model->dev, 1, rows, K_REAL, &err);
    int *table = MEM_ARRAY(int, pages), *pos = MEM_ARRAY(int, n), *page = MEM_ARRAY(int, n);
    int *index = MEM_ARRAY(int, rows), *target = MEM_ARRAY(int, rows);
    for (int i = 0; i < pages; i++) table[i] = i;
    for (int i = 0; i < n; i++) pos[i] = i, page[i] = i / KV_PAGE;
    for (int at = 0; at < n; at += rows) {
        int m = n - at < rows ? n - at : rows;
        for (int i = 0; i < m; i++) index[i] = i, target[i] = at + i + 1 < n ? ids[at + i + 1] : -1;
        KvSpan span = {.n = m, .pos0 = at};
        Rows batch = {.m = m,
                      .tok = ids + at,
                      .pos = pos + at,
                      .page = page + at,
                      .n_spans = 1,
                      .spans = &span,
                      .table = table};
        Ten stream = forward(policy, &batch, &kv, NULL, &work);
        forward_final(policy, ten_rows(y, 0, m), TEN_NONE, ten_rows(picked, 0, m), stream, index);
        k_logprob(model->dev, ten_cols(out, 0, m), ten_cols(lse, 0, m), TEN_NONE, ten_rows(y, 0, m), &policy->head,
                  target, TEN_NONE, 1, (real)policy->conf.final_cap);
        k_get(model->dev, logp + at, ten_cols(out, 0, m));
    }
    k_free(model->dev, &y), k_free(model->dev, &picked), k_free(model->dev, &out), k_free(model->dev, &lse);
    k_kv_free(model->dev, &kv);
    work_close(&work, policy);
    free(table), free(pos), free(page), free(index), free(target);
}

/* Ids equal, log-probs within the tolerance (float32) or near (bfloat16); returns the worst relative difference.
 */
static double check_text(Model *model, const json_t *row) {
    const char *text = json_string_value(json_object_get(row, "text"));
    const json_t *tokens = json_object_get(row, "tokens"), *logprobs = json_object_get(row, "logprobs");
    int *ids = NULL, n = 0, room = 0;
    tokenizer_encode(model->tok, text, strlen(text), true, &ids, &n, &room);
    assert_int_equal(n, json_array_size(tokens));
    for (int i = 0; i < n; i++) assert_int_equal(ids[i], json_integer_value(json_array_get(tokens, (size_t)i)));
    real *whole = MEM_ARRAY(real, n), *cut = MEM_ARRAY(real, n);
    text_logp(model, ids, n, n, whole);
    text_logp(model, ids, n, 37, cut);
    assert_memory_equal(whole, cut, (size_t)n * sizeof(real));
    double worst = 0, sum = 0;
    for (int i = 1; i < n; i++) {
        double want = json_number_value(json_array_get(logprobs, (size_t)i));
        double gap = fabs((double)whole[i - 1] - want) / fmax(1, fabs(want));
        if (gap > worst) worst = gap;
        sum += gap;
    }
    if (model->policy->type == K_REAL)
        assert_true(worst < TOLERANCE);
    else
        assert_true(sum < 0.05 * n);
    free(whole), free(cut), free(ids);
    return worst;
}

static json_t *goldens(const char *path) {
    json_error_t error;
    json_t *rows = json_load_file(path, 0, &error);
    if (!rows) fail_msg("%s: %s", path, error.text);
    return rows;
}

static void check_tiny(const char *cpu_path, DType type) {
    json_t *rows = goldens("tests/goldens/logprob-tiny.json"), *row;
    Model model = {0};
    double worst = 0;
    size_t i;
    json_array_foreach(rows, i, row) {
        const char *name = json_string_value(json_object_get(row, "model"));
        char path[160];
        snprintf(path, sizeof path, "tests/goldens/%s", name);
        if (strcmp(name, model.name) != 0) model_open(&model, path, name, cpu_path, type);
        double gap = check_text(&model, row);
        if (gap > worst) worst = gap;
    }
    print_message("%s, %s: %zu texts, worst %.1e\n", cpu_path, type == K_REAL ? "float32" : "bfloat16", i, worst);
    model_close(&model);
    json_decref(rows);
}

static void test_tiny_models(void **state) {
    (void)state;
    const char *names[8];
    int n = dev_paths(names);
    for (int p = 0; p < n; p++) {
        check_tiny(names[p], K_REAL);
        check_tiny(names[p], K_BF16);
    }
}

static void test_real_model(void **state) {
    (void)state;
    const char *path = getenv("WHET_MODEL");
    if (!path || !*path) {
        print_message("SKIPPED: WHET_MODEL is not set, SmolLM2 is not compared\n");
        skip();
    }
#ifdef __SANITIZE_ADDRESS__
    print_message("SKIPPED: SmolLM2 takes minutes under the sanitizers; the plain build compares it\n");
    skip();
#endif
    json_t *rows = goldens("tests/goldens/logprob-smollm2.json"), *row;
    Model model = {0};
    double worst = 0;
    size_t i;
    model_open(&model, path, "smollm2", "auto", K_REAL);
    json_array_foreach(rows, i, row) {
        double gap = check_text(&model, row);
        if (gap > worst) worst = gap;
    }
    print_message("%s: %zu texts, worst %.1e\n", path, i, worst);
    model_close(&model);
    json_decref(rows);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_models),
        cmocka_unit_test(test_real_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
