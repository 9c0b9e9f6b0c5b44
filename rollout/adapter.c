/* adapter.c: low-rank adapters (LoRA) of a model file: which linears have one, PEFT's folder read and written, new
 * ones begun, and the sum with the weight that they adapt. Their arithmetic is forward_linear's.
 * Tested by tests/test_rollout_adapter.c and tests/long_lora.sh (PEFT reads what is written here). */
#include "rollout/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH(a) ((int)(sizeof(a) / sizeof *(a)))

/* ---- which linears ---- */

/* Every linear of a layer that can have an adapter, and the product that it is a part of. LayerConf.adapted has a
 * bit for each. */
static const struct {
    const char *name;
    int product;
} LINEARS[] = {
    {"self_attn.q_proj", 0}, {"self_attn.k_proj", 0},   {"self_attn.v_proj", 0},
    {"self_attn.o_proj", 1}, {"mlp.gate_proj", 2},      {"mlp.up_proj", 2},
    {"mlp.down_proj", 3},    {"self_attn.qkv_proj", 0}, {"mlp.gate_up_proj", 2},
};

unsigned lora_bit(const char *linear) {
    for (int i = 0; i < LENGTH(LINEARS); i++)
        if (strcmp(LINEARS[i].name, linear) == 0) return 1u << i;
    return 0;
}

int lora_width(const Conf *conf) {
    int most = 0;
    for (int l = 0; l < conf->n_layers; l++) {
        int parts[4] = {0};
        for (int i = 0; i < LENGTH(LINEARS); i++)
            if (conf->layers[l].adapted & 1u << i && ++parts[LINEARS[i].product] > most)
                most = parts[LINEARS[i].product];
    }
    return most * conf->lora.r;
}

double lora_scale(const Lora *lora) { return lora->alpha / (lora->rslora ? sqrt(lora->r) : lora->r); }

/* The linear that a tensor "model.layers.3.mlp.up_proj.weight" is the weight of: its bit and its layer, and its
 * name without ".weight" in `module`. 0: none. */
static unsigned linear_of(const char *tensor, int *layer, char module[96]) {
    int at = 0;
    size_t n = strlen(tensor);
    if (sscanf(tensor, "model.layers.%d.%n", layer, &at) != 1 || !at || n < 7 || n > 95 ||
        strcmp(tensor + n - 7, ".weight") != 0)
        return 0;
    memcpy(module, tensor, n - 7);
    module[n - 7] = 0;
    return lora_bit(module + at);
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* PEFT's rule: a module is meant by its whole name or by the last parts of it. */
static bool is_target(const char *module, const char *target) {
    if (strcmp(target, "all-linear") == 0 || strcmp(module, target) == 0) return true;
    size_t n = strlen(module), m = strlen(target);
    return n > m && module[n - m - 1] == '.' && ends_with(module, target);
}

static bool targets_set(Conf *conf, const char *const *targets, Err *err) {
    TensorSpec *specs;
    int n = conf_tensors(conf, &specs), layer;
    char module[96];
    bool good = true;
    for (const char *const *t = targets; good && *t; t++) {
        bool found = false;
        for (int i = 0; i < n; i++) {
            unsigned bit = linear_of(specs[i].name, &layer, module);
            if (!bit || !is_target(module, *t)) continue;
            conf->layers[layer].adapted |= bit;
            found = true;
        }
        if (found) continue;
        Buf names = {0};
        for (int i = 0; i < n; i++)
            if (linear_of(specs[i].name, &layer, module) && layer == 0)
                buf_format(&names, "%s%s", names.n ? ", " : "", strrchr(module, '.') + 1);
        good = err_set(err,
                       "lora_target_modules: %.80s is no linear of this model's layers: name some of %s, or "
                       "all-linear",
                       *t, names.n ? names.p : "none");
        buf_free(&names);
    }
    free(specs);
    return good;
}

/* ---- adapters of a file, and new ones ---- */

static const char PREFIX[] = "base_model.model."; /* of PEFT's names */

struct Adapter {
    Lora lora;
    char *base;        /* the base model as adapter_config.json calls it */
    Safetensors *file; /* NULL: new ones */
    uint64_t seed;     /* of new ones */
};

void adapter_close(Adapter *adapter) {
    if (!adapter) return;
    if (adapter->file) safetensors_close(adapter->file);
    free(adapter->base);
    free(adapter);
}

const char *adapter_base_name(const Adapter *adapter) { return adapter->base; }

Adapter *adapter_new(Conf *conf, const Lora *lora, const char *const *targets, const char *base, uint64_t seed,
                     Err *err) {
    if (!targets_set(conf, targets, err)) return NULL;
    conf->lora = *lora;
    Adapter *adapter = MEM_NEW(Adapter);
    *adapter = (Adapter){.lora = *lora, .base = mem_text(base), .seed = seed};
    return adapter;
}

/* ---- PEFT's folder ---- */

static json_t *config_read(const char *folder, Err *err) {
    Arena arena = {0};
    json_t *config = json_file(arena_format(&arena, "%s/adapter_config.json", folder), err);
    arena_free(&arena);
    return config;
}

static bool is_in(const char *folder, const char *name) {
    Arena arena = {0};
    bool there = file_exists(arena_format(&arena, "%s/%s", folder, name));
    arena_free(&arena);
    return there;
}

bool adapter_base(const char *folder, char **base, Err *err) {
    *base = NULL;
    if (!is_in(folder, "adapter_config.json") || is_in(folder, "model.safetensors") ||
        is_in(folder, "model.safetensors.index.json"))
        return true;
    json_t *config = config_read(folder, err);
    if (!config) return false;
    const char *name = json_string_value(json_object_get(config, "base_model_name_or_path"));
    bool good = name && *name;
    if (good) *base = mem_text(name);
    if (!good)
        err_set(err,
                "%s/adapter_config.json: base_model_name_or_path is missing: write the base model's path there",
                folder);
    json_decref(config);
    return good;
}

static bool is_empty(const json_t *value) {
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_object(value) && !json_object_size(value)) ||
           (json_is_array(value) && !json_array_size(value));
}

/* PEFT's other kinds of adapters, and its settings that make another function of the same tensors. */
static bool config_check(const json_t *config, Lora *lora, const char *folder, Err *err) {
    static const char *const others[] = {"use_dora",
                                         "fan_in_fan_out",
                                         "lora_bias",
                                         "modules_to_save",
                                         "rank_pattern",
                                         "alpha_pattern",
                                         "layer_replication",
                                         "use_qalora",
                                         "trainable_token_indices",
                                         "target_parameters",
                                         "alora_invocation_tokens",
                                         "use_bdlora",
                                         "arrow_config",
                                         "velora_config",
                                         "kasa_config"};
    /* These ways of beginning change the base's weights too. */
    static const char *const begins[] = {"pissa", "olora", "corda", "loftq", "lora_ga"};
    const char *type = json_string_value(json_object_get(config, "peft_type")),
               *bias = json_string_value(json_object_get(config, "bias")),
               *init = json_string_value(json_object_get(config, "init_lora_weights"));
    const json_t *r = json_object_get(config, "r"), *alpha = json_object_get(config, "lora_alpha");
    if (!type || strcmp(type, "LORA") != 0)
        return err_set(err, "%s/adapter_config.json: adapters of the type %.40s are not supported (LORA is)",
                       folder, type ? type : "?");
    for (int i = 0; i < LENGTH(others); i++)
        if (!is_empty(json_object_get(config, others[i])))
            return err_set(err, "%s/adapter_config.json: %s is not supported: merge the adapter with PEFT first",
                           folder, others[i]);
    if (bias && strcmp(bias, "none") != 0)
        return err_set(
            err, "%s/adapter_config.json: bias \"%.40s\" is not supported: merge the adapter with PEFT first",
            folder, bias);
    for (int i = 0; init && i < LENGTH(begins); i++)
        if (strncmp(init, begins[i], strlen(begins[i])) == 0)
            return err_set(err,
                           "%s/adapter_config.json: init_lora_weights \"%.40s\" changes the base model: merge the "
                           "adapter with PEFT first",
                           folder, init);
    if (!json_is_integer(r) || json_integer_value(r) < 1 || json_integer_value(r) > 1 << 16 ||
        !json_is_number(alpha) || !(json_number_value(alpha) > 0))
        return err_set(err, "%s/adapter_config.json: r or lora_alpha is no number above 0: the file is broken",
                       folder);
    *lora = (Lora){(int)json_integer_value(r), json_number_value(alpha),
                   json_is_true(json_object_get(config, "use_rslora"))};
    return true;
}

/* Takes one tensor of the file: it must be the A or the B of a linear, and of its shape. */
static bool tensor_take(const Conf *conf, const Lora *lora, const TensorSpec *specs, int n, const StoredTensor *t,
                        unsigned *has_a, unsigned *has_b, const char *folder, Err *err) {
    char name[96], module[96];
    size_t length = strlen(t->name), prefix = strlen(PREFIX), suffix = strlen(".lora_A.weight");
    bool is_a = ends_with(t->name, ".lora_A.weight"), is_b = ends_with(t->name, ".lora_B.weight");
    unsigned bit = 0;
    int layer = 0, at = n;
    if (strncmp(t->name, PREFIX, prefix) == 0 && (is_a || is_b) && length - prefix < sizeof name) {
        snprintf(name, sizeof name, "%.*s.weight", (int)(length - prefix - suffix), t->name + prefix);
        bit = linear_of(name, &layer, module);
        for (at = 0; bit && at < n && strcmp(specs[at].name, name) != 0;) at++;
    }
    if (!bit || at == n || layer < 0 || layer >= conf->n_layers)
        return err_set(err,
                       "%s: the tensor %.100s adapts no linear of the base model's layers: not supported, or the "
                       "base model is another",
                       folder, t->name);
    int rows = is_a ? lora->r : specs[at].rows, cols = is_a ? specs[at].cols : lora->r;
    if (t->rows != rows || t->cols != cols || t->type == STORED_OTHER)
        return err_set(err, "%s: the tensor %.100s is %d x %d %s, expected %d x %d: the base model is another",
                       folder, t->name, t->rows, t->cols, t->type_name, rows, cols);
    (is_a ? has_a : has_b)[layer] |= bit;
    return true;
}

static bool tensors_take(Adapter *adapter, Conf *conf, const char *folder, Err *err) {
    TensorSpec *specs;
    const StoredTensor *tensors;
    int n = conf_tensors(conf, &specs), count = safetensors_all(adapter->file, &tensors);
    unsigned *has_a = MEM_ARRAY(unsigned, conf->n_layers), *has_b = MEM_ARRAY(unsigned, conf->n_layers);
    bool good = count > 0 || err_set(err, "%s: adapter_model.safetensors is empty", folder);
    for (int i = 0; good && i < count; i++)
        good = tensor_take(conf, &adapter->lora, specs, n, &tensors[i], has_a, has_b, folder, err);
    for (int l = 0; good && l < conf->n_layers; l++) {
        if (has_a[l] != has_b[l])
            good = err_set(err,
                           "%s: layer %d has a lora_A without its lora_B, or the other way round: fetch it again",
                           folder, l);
        conf->layers[l].adapted = has_a[l];
    }
    if (good) conf->lora = adapter->lora;
    free(specs), free(has_a), free(has_b);
    return good;
}

Adapter *adapter_open(Conf *conf, const char *folder, Err *err) {
    Adapter *adapter = MEM_NEW(Adapter);
    Arena arena = {0};
    json_t *config = config_read(folder, err);
    bool good = config && config_check(config, &adapter->lora, folder, err);
    const char *base = json_string_value(json_object_get(config, "base_model_name_or_path"));
    adapter->base = mem_text(base ? base : "");
    if (good) adapter->file = safetensors_open(arena_format(&arena, "%s/adapter_model.safetensors", folder), err);
    good = good && adapter->file && tensors_take(adapter, conf, folder, err);
    json_decref(config);
    arena_free(&arena);
    if (good) return adapter;
    adapter_close(adapter);
    return NULL;
}

/* ---- their numbers ---- */

bool adapter_tensor(const char *name) {
    return ends_with(name, ".lora_A.weight") || ends_with(name, ".lora_B.weight");
}

bool adapter_read(const Adapter *adapter, const char *name, int rows, int cols, float *out, Err *err) {
    if (adapter->file) {
        char full[128];
        snprintf(full, sizeof full, "%s%s", PREFIX, name);
        return safetensors_read(adapter->file, full, rows, cols, out, err);
    }
    bool is_a = ends_with(name, ".lora_A.weight");
    uint64_t key = adapter->seed;
    for (const char *p = name; *p; p++) key = rng_mix(key, (unsigned char)*p);
    Rng rng = {key, 0};
    double bound = 1 / sqrt((double)cols); /* Kaiming's uniform one with a = sqrt(5) */
    for (size_t i = 0; i < (size_t)rows * (size_t)cols; i++)
        out[i] = is_a ? (float)(bound * (2 * rng_uniform(&rng) - 1)) : 0;
    return true;
}

bool adapter_add(const Adapter *adapter, const char *name, int rows, int cols, float *w, Err *err) {
    char a_name[128], b_name[128], module[96];
    int layer, r = adapter->lora.r;
    if (!linear_of(name, &layer, module)) return true;
    snprintf(a_name, sizeof a_name, "%s%s.lora_A.weight", PREFIX, module);
    snprintf(b_name, sizeof b_name, "%s%s.lora_B.weight", PREFIX, module);
    if (!adapter->file || !safetensors_tensor(adapter->file, a_name)) return true;
    float *a = MEM_ARRAY(float, (size_t)r *(size_t)cols), *b = MEM_ARRAY(float, (size_t)rows *(size_t)r);
    double *sum = MEM_ARRAY(double, cols), s = lora_scale(&adapter->lora);
    bool good = safetensors_read(adapter->file, a_name, r, cols, a, err) &&
                safetensors_read(adapter->file, b_name, rows, r, b, err);
    for (int i = 0; good && i < rows; i++, w += cols) {
        memset(sum, 0, (size_t)cols * sizeof *sum);
        for (int k = 0; k < r; k++) {
            double factor = (double)b[(size_t)i * (size_t)r + (size_t)k];
            const float *row = a + (size_t)k * (size_t)cols;
            for (int j = 0; j < cols; j++) sum[j] += factor * (double)row[j];
        }
        for (int j = 0; j < cols; j++) w[j] = (float)((double)w[j] + s * sum[j]);
    }
    free(a), free(b), free(sum);
    return good;
}

/* ---- saving ---- */

/* target_modules: a last name where all linears that have it are adapted, else whole names. */
static json_t *targets_json(const Conf *conf) {
    TensorSpec *specs;
    int n = conf_tensors(conf, &specs), layer;
    char module[96];
    unsigned some = 0, all = ~0u;
    for (int i = 0; i < n; i++) {
        unsigned bit = linear_of(specs[i].name, &layer, module);
        some |= bit & conf->layers[bit ? layer : 0].adapted;
        if (bit && !(conf->layers[layer].adapted & bit)) all &= ~bit;
    }
    json_t *list = json_array();
    for (int i = 0; i < LENGTH(LINEARS); i++)
        if (some & all & 1u << i) json_array_append_new(list, json_string(strrchr(LINEARS[i].name, '.') + 1));
    for (int i = 0; i < n; i++) {
        unsigned bit = linear_of(specs[i].name, &layer, module);
        if (bit && conf->layers[layer].adapted & bit & ~all) json_array_append_new(list, json_string(module));
    }
    free(specs);
    return list;
}

static bool config_write(const char *folder, const Conf *conf, const char *base, Err *err) {
    const Lora *lora = &conf->lora;
    json_t *alpha = lora->alpha == floor(lora->alpha) && lora->alpha < 1e15 ? json_integer((json_int_t)lora->alpha)
                                                                            : json_real(lora->alpha);
    json_t *config =
        json_pack("{s:s, s:s, s:s, s:n, s:i, s:o, s:f, s:o, s:s, s:b, s:b, s:b, s:b, s:b, s:n, s:{}, s:{}}",
                  "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path", base, "revision", "r",
                  lora->r, "lora_alpha", alpha, "lora_dropout", 0.0, "target_modules", targets_json(conf), "bias",
                  "none", "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1, "use_rslora",
                  (int)lora->rslora, "use_dora", 0, "modules_to_save", "rank_pattern", "alpha_pattern");
    CHECK(config, "adapter_config.json of %s can't be made", base);
    Arena arena = {0};
    bool good = json_write(arena_format(&arena, "%s/adapter_config.json", folder), config, err);
    json_decref(config);
    arena_free(&arena);
    return good;
}

typedef struct {
    Policy *policy;
    int *param; /* of each entry */
} AdapterSource;

static bool param_read(void *self, int index, float *out, Err *err) {
    const AdapterSource *source = self;
    return policy_read(source->policy, source->param[index], out, err);
}

bool adapter_save(const char *folder, Policy *policy, const Tokenizer *tok, const char *chat_template,
                  const char *prompt_template, Err *err) {
    static const char *const metadata[] = {"format", "pt", NULL};
    const Params *params = &policy->params;
    Arena arena = {0};
    TensorEntry *entries = arena_alloc(&arena, (size_t)params->n, sizeof *entries);
    AdapterSource source = {policy, arena_alloc(&arena, (size_t)params->n, sizeof(int))};
    int n = 0;
    for (int i = 0; i < params->n; i++) {
        const Param *p = &params->items[i];
        if (p->adapter_of < 0) continue;
        source.param[n] = i;
        entries[n++] = (TensorEntry){arena_format(&arena, "%s%s", PREFIX, p->name), p->rows, p->cols, false};
    }
    bool good = config_write(folder, &policy->conf, model_file_base(policy->file), err) &&
                tokenizer_save(tok, &policy->conf, chat_template, folder, err) &&
                safetensors_write(arena_format(&arena, "%s/adapter_model.safetensors", folder), entries, n, false,
                                  param_read, &source, metadata, err);
    if (good && prompt_template)
        good = file_write(arena_format(&arena, "%s/whet_template.txt", folder), prompt_template,
                          strlen(prompt_template), err);
    arena_free(&arena);
    return good;
}
