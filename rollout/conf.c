/* conf.c: a model as data: Conf out of config.json or GGUF metadata, and back into config.json.
 *
 * The only place that knows families of models by name: which are supported, how their settings are spelled, which
 * tensors they have and how GGUF names and turns them. Today: the Llama family (tied or not, biases by config;
 * rope scaling none, linear or llama3). Tested by tests/test_rollout_files.c.
 */
#include "rollout/internal.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LAYERS = 4096, MOST_HEADS = 4096, MOST_HEAD_DIM = 4096, MOST_DIM = 1 << 20, MOST_VOCAB = 1 << 24 };

/* architecture in config.json, model_type, general.architecture in GGUF */
static const struct {
    const char *architecture, *type, *gguf;
} FAMILIES[] = {
    {"LlamaForCausalLM", "llama", "llama"},
};
static const char SUPPORTED[] = "supported: LlamaForCausalLM";

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

const char *conf_family_gguf(const Conf *conf) {
    for (int i = 0; i < LENGTH(FAMILIES); i++)
        if (strcmp(conf->architecture, FAMILIES[i].architecture) == 0) return FAMILIES[i].gguf;
    CHECK(false, "no family %s", conf->architecture);
}

/* ---- the tensors of a model ---- */

typedef enum { SIZE_ONE, SIZE_DIM, SIZE_Q, SIZE_KV, SIZE_HIDDEN, SIZE_VOCAB } Size;
typedef enum { WHEN_ALWAYS, WHEN_QKV_BIAS, WHEN_OUT_BIAS, WHEN_MLP_BIAS, WHEN_UNTIED } When;
typedef enum { TURN_NONE, TURN_Q, TURN_K } Turn;
typedef struct {
    const char *name, *gguf; /* of a layer: without the prefix */
    Size rows, cols;
    When when;
    Turn turn;
} Row;

static const Row FIRST[] = {
    {"model.embed_tokens.weight", "token_embd.weight", SIZE_VOCAB, SIZE_DIM, WHEN_ALWAYS, TURN_NONE}};
static const Row LAYER[] = {
    {"input_layernorm.weight", "attn_norm.weight", SIZE_ONE, SIZE_DIM, WHEN_ALWAYS, TURN_NONE},
    {"self_attn.q_proj.weight", "attn_q.weight", SIZE_Q, SIZE_DIM, WHEN_ALWAYS, TURN_Q},
    {"self_attn.k_proj.weight", "attn_k.weight", SIZE_KV, SIZE_DIM, WHEN_ALWAYS, TURN_K},
    {"self_attn.v_proj.weight", "attn_v.weight", SIZE_KV, SIZE_DIM, WHEN_ALWAYS, TURN_NONE},
    {"self_attn.q_proj.bias", "attn_q.bias", SIZE_ONE, SIZE_Q, WHEN_QKV_BIAS, TURN_Q},
    {"self_attn.k_proj.bias", "attn_k.bias", SIZE_ONE, SIZE_KV, WHEN_QKV_BIAS, TURN_K},
    {"self_attn.v_proj.bias", "attn_v.bias", SIZE_ONE, SIZE_KV, WHEN_QKV_BIAS, TURN_NONE},
    {"self_attn.o_proj.weight", "attn_output.weight", SIZE_DIM, SIZE_Q, WHEN_ALWAYS, TURN_NONE},
    {"self_attn.o_proj.bias", "attn_output.bias", SIZE_ONE, SIZE_DIM, WHEN_OUT_BIAS, TURN_NONE},
    {"post_attention_layernorm.weight", "ffn_norm.weight", SIZE_ONE, SIZE_DIM, WHEN_ALWAYS, TURN_NONE},
    {"mlp.gate_proj.weight", "ffn_gate.weight", SIZE_HIDDEN, SIZE_DIM, WHEN_ALWAYS, TURN_NONE},
    {"mlp.up_proj.weight", "ffn_up.weight", SIZE_HIDDEN, SIZE_DIM, WHEN_ALWAYS, TURN_NONE},
    {"mlp.gate_proj.bias", "ffn_gate.bias", SIZE_ONE, SIZE_HIDDEN, WHEN_MLP_BIAS, TURN_NONE},
    {"mlp.up_proj.bias", "ffn_up.bias", SIZE_ONE, SIZE_HIDDEN, WHEN_MLP_BIAS, TURN_NONE},
    {"mlp.down_proj.weight", "ffn_down.weight", SIZE_DIM, SIZE_HIDDEN, WHEN_ALWAYS, TURN_NONE},
    {"mlp.down_proj.bias", "ffn_down.bias", SIZE_ONE, SIZE_DIM, WHEN_MLP_BIAS, TURN_NONE},
};
static const Row LAST[] = {
    {"model.norm.weight", "output_norm.weight", SIZE_ONE, SIZE_DIM, WHEN_ALWAYS, TURN_NONE},
    {"lm_head.weight", "output.weight", SIZE_VOCAB, SIZE_DIM, WHEN_UNTIED, TURN_NONE},
};

static int size_of(const Conf *conf, Size size) {
    switch (size) {
    case SIZE_ONE:
        return 1;
    case SIZE_DIM:
        return conf->dim;
    case SIZE_Q:
        return conf->n_heads * conf->head_dim;
    case SIZE_KV:
        return conf->n_kv_heads * conf->head_dim;
    case SIZE_HIDDEN:
        return conf->hidden;
    case SIZE_VOCAB:
        return conf->vocab;
    }
    CHECK(false, "size %d", (int)size);
}

static bool row_is_there(const Conf *conf, const LayerConf *layer, When when) {
    switch (when) {
    case WHEN_ALWAYS:
        return true;
    case WHEN_QKV_BIAS:
        return layer->qkv_bias;
    case WHEN_OUT_BIAS:
        return layer->out_bias;
    case WHEN_MLP_BIAS:
        return layer->mlp_bias;
    case WHEN_UNTIED:
        return !conf->tied;
    }
    CHECK(false, "when %d", (int)when);
}

static int specs_add(const Conf *conf, const Row *rows, int n, int layer, TensorSpec *specs) {
    int added = 0;
    for (int i = 0; i < n; i++) {
        if (!row_is_there(conf, layer < 0 ? NULL : &conf->layers[layer], rows[i].when)) continue;
        TensorSpec *spec = &specs[added++];
        *spec = (TensorSpec){.rows = size_of(conf, rows[i].rows),
                             .cols = size_of(conf, rows[i].cols),
                             .is_vector = rows[i].rows == SIZE_ONE};
        if (rows[i].turn != TURN_NONE)
            spec->turned_heads = rows[i].turn == TURN_Q ? conf->n_heads : conf->n_kv_heads;
        char prefix[32] = "", short_prefix[32] = "";
        if (layer >= 0) {
            snprintf(prefix, sizeof prefix, "model.layers.%d.", layer);
            snprintf(short_prefix, sizeof short_prefix, "blk.%d.", layer);
        }
        snprintf(spec->name, sizeof spec->name, "%s%s", prefix, rows[i].name);
        snprintf(spec->gguf, sizeof spec->gguf, "%s%s", short_prefix, rows[i].gguf);
    }
    return added;
}

int conf_tensors(const Conf *conf, TensorSpec **specs) {
    *specs = MEM_ARRAY(TensorSpec, LENGTH(FIRST) + conf->n_layers * LENGTH(LAYER) + LENGTH(LAST));
    int n = specs_add(conf, FIRST, LENGTH(FIRST), -1, *specs);
    for (int i = 0; i < conf->n_layers; i++) n += specs_add(conf, LAYER, LENGTH(LAYER), i, *specs + n);
    return n + specs_add(conf, LAST, LENGTH(LAST), -1, *specs + n);
}

/* ---- rotary speeds ----
 * In float32 and step by step as transformers computes them, so that positions turn by the same angles. A scalar
 * divided by a tensor is a product with the reciprocal there. */

typedef struct {
    enum { SCALE_NONE, SCALE_LINEAR, SCALE_LLAMA3 } kind;
    double factor, low, high, original;
} Scaling;

static float scaled_speed(float speed, const Scaling *s) {
    float factor = (float)s->factor;
    if (s->kind == SCALE_NONE) return speed;
    if (s->kind == SCALE_LINEAR) return speed / factor;
    float wave = (1.0f / speed) * (float)(2 * 3.14159265358979323846);
    float longest = (float)(s->original / s->low), shortest = (float)(s->original / s->high);
    float slow = wave > longest ? speed / factor : speed;
    if (wave < shortest || wave > longest) return slow;
    float smooth = ((1.0f / wave) * (float)s->original - (float)s->low) / (float)(s->high - s->low);
    return (1.0f - smooth) * slow / factor + smooth * slow;
}

static void speeds_fill(Conf *conf, const Scaling *scaling) {
    int half = conf->head_dim / 2;
    conf->inv_freq = MEM_ARRAY(float, half);
    for (int i = 0; i < half; i++) {
        float power = (float)pow(conf->rope_theta, (double)((float)(2 * i) / (float)conf->head_dim));
        conf->inv_freq[i] = scaled_speed(1.0f / power, scaling);
    }
    conf->rope_scale = 1;
}

/* The scaling as config.json spells it, for saving. */
static void scaling_spell(Conf *conf, const Scaling *s) {
    if (s->kind == SCALE_LINEAR)
        snprintf(conf->rope_scaling, sizeof conf->rope_scaling, "{\"rope_type\": \"linear\", \"factor\": %#.15g}",
                 s->factor);
    if (s->kind == SCALE_LLAMA3)
        snprintf(
            conf->rope_scaling, sizeof conf->rope_scaling,
            "{\"rope_type\": \"llama3\", \"factor\": %#.15g, \"low_freq_factor\": %#.15g, \"high_freq_factor\": "
            "%#.15g, \"original_max_position_embeddings\": %.0f}",
            s->factor, s->low, s->high, s->original);
}

/* ---- checks that both sources share ---- */

static bool range_check(const char *where, const char *what, int64_t value, int64_t most, Err *err) {
    if (value >= 1 && value <= most) return true;
    return err_set(err, "%s: %s is %lld, expected 1 to %lld: the file is broken, fetch it again", where, what,
                   (long long)value, (long long)most);
}

static bool number_check(const char *where, const char *what, double value, double least, double most, Err *err) {
    if (value >= least && value <= most) return true;
    return err_set(err, "%s: %s is %g, expected %g to %g: the file is broken, fetch it again", where, what, value,
                   least, most);
}

static bool scaling_check(const Scaling *s, const char *where, Err *err) {
    if (s->kind == SCALE_NONE) return true;
    if (!number_check(where, "the rope scaling's factor", s->factor, 1e-3, 1e6, err)) return false;
    if (s->kind == SCALE_LINEAR) return true;
    return number_check(where, "the rope scaling's low_freq_factor", s->low, 1e-3, 1e6, err) &&
           number_check(where, "the rope scaling's high_freq_factor", s->high, s->low * 1.0001, 1e6, err) &&
           number_check(where, "the rope scaling's original_max_position_embeddings", s->original, 1, 1e9, err);
}

/* Everything the forward pass relies on, whatever the file said. Fills the speeds and makes room for the layers.
 */
static bool conf_finish(Conf *conf, const Scaling *scaling, const char *where, Err *err) {
    if (!range_check(where, "the width of the model", conf->dim, MOST_DIM, err) ||
        !range_check(where, "the width of the feed-forward", conf->hidden, MOST_DIM, err) ||
        !range_check(where, "the number of layers", conf->n_layers, MOST_LAYERS, err) ||
        !range_check(where, "the number of heads", conf->n_heads, MOST_HEADS, err) ||
        !range_check(where, "the number of key-value heads", conf->n_kv_heads, conf->n_heads, err) ||
        !range_check(where, "head_dim", conf->head_dim, MOST_HEAD_DIM, err) ||
        !range_check(where, "the size of the vocabulary", conf->vocab, MOST_VOCAB, err) ||
        !range_check(where, "the number of positions", conf->max_positions, INT_MAX, err) ||
        !number_check(where, "the norms' epsilon", (double)conf->norm_eps, 0, 1, err) ||
        !number_check(where, "rope_theta", conf->rope_theta, 1, 1e15, err) || !scaling_check(scaling, where, err))
        return false;
    if (conf->n_heads % conf->n_kv_heads)
        return err_set(err, "%s: %d heads are no multiple of %d key-value heads: the file is broken", where,
                       conf->n_heads, conf->n_kv_heads);
    if (conf->head_dim % 2)
        return err_set(err, "%s: head_dim %d is odd: the file is broken", where, conf->head_dim);
    if (conf->bos < -1 || conf->bos >= conf->vocab)
        return err_set(err, "%s: bos_token_id %d is outside the vocabulary of %d", where, conf->bos, conf->vocab);
    for (int i = 0; i < conf->n_eos; i++)
        if (conf->eos[i] < 0 || conf->eos[i] >= conf->vocab)
            return err_set(err, "%s: eos_token_id %d is outside the vocabulary of %d", where, conf->eos[i],
                           conf->vocab);
    if (conf->pad < 0 || conf->pad >= conf->vocab) conf->pad = -1; /* some models carry a pad that is no token */
    speeds_fill(conf, scaling);
    scaling_spell(conf, scaling);
    conf->layers = MEM_ARRAY(LayerConf, conf->n_layers);
    for (int i = 0; i < conf->n_layers; i++) conf->layers[i] = (LayerConf){.rope = ROPE_HALVES, .mlp = MLP_SWIGLU};
    return true;
}

Conf conf_copy(const Conf *conf) {
    Conf copy = *conf;
    copy.inv_freq = MEM_ARRAY(float, conf->head_dim / 2);
    copy.layers = MEM_ARRAY(LayerConf, conf->n_layers);
    memcpy(copy.inv_freq, conf->inv_freq, (size_t)(conf->head_dim / 2) * sizeof(float));
    memcpy(copy.layers, conf->layers, (size_t)conf->n_layers * sizeof(LayerConf));
    return copy;
}

void conf_free(Conf *conf) {
    free(conf->inv_freq);
    free(conf->layers);
    *conf = (Conf){0};
}

/* ---- from config.json ---- */

/* An integer of the object, or `otherwise` when the key is missing or null; err when it is something else. */
static bool json_int(const json_t *object, const char *key, int64_t otherwise, int *out, const char *where,
                     Err *err) {
    const json_t *value = json_object_get(object, key);
    int64_t number = otherwise;
    if (value && !json_is_null(value)) {
        if (!json_is_integer(value)) return err_set(err, "%s: %s is no integer: the file is broken", where, key);
        number = json_integer_value(value);
    }
    if (number < -1 || number > INT_MAX)
        return err_set(err, "%s: %s is %lld, which makes no sense: the file is broken", where, key,
                       (long long)number);
    *out = (int)number;
    return true;
}

static bool json_number(const json_t *object, const char *key, double otherwise, double *out, const char *where,
                        Err *err) {
    const json_t *value = json_object_get(object, key);
    if (value && !json_is_null(value) && !json_is_number(value))
        return err_set(err, "%s: %s is no number: the file is broken", where, key);
    *out = json_is_number(value) ? json_number_value(value) : otherwise;
    return true;
}

/* eos_token_id: a number, a list of up to eight, or null. */
static bool json_eos(const json_t *object, Conf *conf, const char *where, Err *err) {
    const json_t *value = json_object_get(object, "eos_token_id");
    if (!value || json_is_null(value)) return true;
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    if (n > LENGTH(conf->eos)) return err_set(err, "%s: eos_token_id lists more than 8 tokens", where);
    conf->n_eos = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT_MAX)
            return err_set(err, "%s: eos_token_id is no token id: the file is broken", where);
        conf->eos[conf->n_eos++] = (int)json_integer_value(id);
    }
    return true;
}

/* rope_parameters (transformers 5) or rope_scaling (4) with rope_theta inside or beside it. */
static bool json_rope(const json_t *config, Conf *conf, Scaling *s, const char *where, Err *err) {
    const json_t *rope = json_object_get(config, "rope_parameters");
    if (!json_is_object(rope)) rope = json_object_get(config, "rope_scaling");
    if (rope && !json_is_null(rope) && !json_is_object(rope))
        return err_set(err, "%s: rope_parameters or rope_scaling is no object: the file is broken", where);
    const json_t *kind = json_object_get(rope, "rope_type");
    if (!kind) kind = json_object_get(rope, "type");
    const char *name = kind ? json_string_value(kind) : "default";
    double theta = 0, part = 1;
    if (!json_number(config, "rope_theta", 10000, &theta, where, err) ||
        !json_number(rope, "rope_theta", theta, &conf->rope_theta, where, err) ||
        !json_number(config, "partial_rotary_factor", 1, &part, where, err) ||
        !json_number(rope, "partial_rotary_factor", part, &part, where, err))
        return false;
    if (part != 1) return err_set(err, "%s: partial_rotary_factor %g is not supported", where, part);
    if (name && strcmp(name, "default") == 0)
        s->kind = SCALE_NONE;
    else if (name && strcmp(name, "linear") == 0)
        s->kind = SCALE_LINEAR;
    else if (name && strcmp(name, "llama3") == 0)
        s->kind = SCALE_LLAMA3;
    else
        return err_set(err, "%s: the rope scaling \"%.60s\" is not supported (default, linear and llama3 are)",
                       where, name ? name : "?");
    return json_number(rope, "factor", 0, &s->factor, where, err) &&
           json_number(rope, "low_freq_factor", 0, &s->low, where, err) &&
           json_number(rope, "high_freq_factor", 0, &s->high, where, err) &&
           json_number(rope, "original_max_position_embeddings", 0, &s->original, where, err);
}

static bool json_family(const json_t *config, Conf *conf, const char *where, Err *err) {
    const char *name = json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    const char *type = json_string_value(json_object_get(config, "model_type"));
    for (int i = 0; i < LENGTH(FAMILIES); i++) {
        if (name ? strcmp(name, FAMILIES[i].architecture) != 0 : !type || strcmp(type, FAMILIES[i].type) != 0)
            continue;
        snprintf(conf->architecture, sizeof conf->architecture, "%s", FAMILIES[i].architecture);
        snprintf(conf->model_type, sizeof conf->model_type, "%s", FAMILIES[i].type);
        return true;
    }
    if (!name) name = type;
    if (!name) return err_set(err, "%s: names no architecture: the file is broken, fetch it again", where);
    return err_set(err, "%s: the architecture \"%.100s\" is not supported (%s)", where, name, SUPPORTED);
}

/* Settings that would change the result and that whet does not have. */
static bool json_refusals(const json_t *config, const char *where, Err *err) {
    const char *act = json_string_value(json_object_get(config, "hidden_act"));
    if (act && strcmp(act, "silu") != 0)
        return err_set(err, "%s: hidden_act \"%.60s\" is not supported (silu is)", where, act);
    return true;
}

bool conf_from_json(Conf *conf, const json_t *config, const json_t *generation, const char *where, Err *err) {
    *conf = (Conf){0};
    Scaling scaling = {0};
    double eps = 0;
    if (!json_family(config, conf, where, err) || !json_refusals(config, where, err) ||
        !json_int(config, "hidden_size", 0, &conf->dim, where, err) ||
        !json_int(config, "intermediate_size", 0, &conf->hidden, where, err) ||
        !json_int(config, "num_hidden_layers", 0, &conf->n_layers, where, err) ||
        !json_int(config, "num_attention_heads", 0, &conf->n_heads, where, err) ||
        !json_int(config, "num_key_value_heads", conf->n_heads, &conf->n_kv_heads, where, err) ||
        !json_int(config, "head_dim", conf->n_heads > 0 ? conf->dim / conf->n_heads : 0, &conf->head_dim, where,
                  err) ||
        !json_int(config, "vocab_size", 0, &conf->vocab, where, err) ||
        !json_int(config, "max_position_embeddings", 2048, &conf->max_positions, where, err) ||
        !json_int(config, "bos_token_id", -1, &conf->bos, where, err) ||
        !json_int(config, "pad_token_id", -1, &conf->pad, where, err) ||
        !json_number(config, "rms_norm_eps", 1e-6, &eps, where, err) ||
        !json_rope(config, conf, &scaling, where, err) || !json_eos(config, conf, where, err) ||
        (generation && !json_eos(generation, conf, where, err)))
        return false;
    conf->norm_eps = (float)eps;
    conf->tied = json_is_true(json_object_get(config, "tie_word_embeddings"));
    if (!conf_finish(conf, &scaling, where, err)) return false;
    for (int i = 0; i < conf->n_layers; i++) {
        conf->layers[i].qkv_bias = conf->layers[i].out_bias =
            json_is_true(json_object_get(config, "attention_bias"));
        conf->layers[i].mlp_bias = json_is_true(json_object_get(config, "mlp_bias"));
    }
    return true;
}

/* ---- from GGUF ---- */

static bool gguf_family(const Gguf *gguf, Conf *conf, char prefix[32], const char *where, Err *err) {
    View name;
    if (!gguf_text(gguf, "general.architecture", &name))
        return err_set(err, "%s: general.architecture is missing: the file is broken, fetch it again", where);
    for (int i = 0; i < LENGTH(FAMILIES); i++) {
        if (name.n != strlen(FAMILIES[i].gguf) || memcmp(name.p, FAMILIES[i].gguf, name.n) != 0) continue;
        snprintf(conf->architecture, sizeof conf->architecture, "%s", FAMILIES[i].architecture);
        snprintf(conf->model_type, sizeof conf->model_type, "%s", FAMILIES[i].type);
        snprintf(prefix, 32, "%s", FAMILIES[i].gguf);
        return true;
    }
    return err_set(err, "%s: the architecture \"%.*s\" is not supported (%s)", where,
                   name.n > 100 ? 100 : (int)name.n, name.p, SUPPORTED);
}

/* An integer under the architecture's prefix; `otherwise` < 0: it must be there. */
static bool gguf_size(const Gguf *gguf, const char *prefix, const char *key, int otherwise, int *out,
                      const char *where, Err *err) {
    char full[96];
    snprintf(full, sizeof full, "%s.%s", prefix, key);
    int64_t value = otherwise;
    if (gguf_has(gguf, full) && !gguf_int(gguf, full, &value))
        return err_set(err, "%s: %s is no integer, which is not supported", where, full);
    if (value < 0 || value > INT_MAX)
        return err_set(err, "%s: %s is missing or makes no sense (%lld): fetch the file again", where, full,
                       (long long)value);
    *out = (int)value;
    return true;
}

static double gguf_number(const Gguf *gguf, const char *prefix, const char *key, double otherwise) {
    char full[96];
    snprintf(full, sizeof full, "%s.%s", prefix, key);
    double value = otherwise;
    gguf_float(gguf, full, &value);
    return value;
}

static int gguf_token(const Gguf *gguf, const char *key) {
    int64_t value = -1;
    return gguf_int(gguf, key, &value) && value >= 0 && value <= INT_MAX ? (int)value : -1;
}

/* The settings that whet wrote beside the factors. */
static Scaling gguf_settings(const Gguf *gguf) {
    View text;
    json_t *object = NULL;
    if (gguf_text(gguf, "whet.rope_scaling", &text)) object = json_loadb(text.p, text.n, 0, NULL);
    Scaling s = {SCALE_LLAMA3, json_number_value(json_object_get(object, "factor")),
                 json_number_value(json_object_get(object, "low_freq_factor")),
                 json_number_value(json_object_get(object, "high_freq_factor")),
                 json_number_value(json_object_get(object, "original_max_position_embeddings"))};
    json_decref(object);
    return s;
}

static bool factors_are(const Conf *conf, const Scaling *s, const float *factors) {
    if (!scaling_check(s, "", NULL)) return false;
    for (int i = 0; i < conf->head_dim / 2; i++) {
        float speed = 1.0f / (float)pow(conf->rope_theta, (double)((float)(2 * i) / (float)conf->head_dim));
        float factor = speed / scaled_speed(speed, s);
        if (!(fabsf(factor - factors[i]) <= 1e-3f * factor)) return false;
    }
    return true;
}

/* GGUF keeps Llama 3's scaling as a tensor of factors: find the settings that give it, so that it can be saved. */
static bool gguf_factors(const Gguf *gguf, const Conf *conf, Scaling *s, const char *where, Err *err) {
    const StoredTensor *stored = gguf_tensor(gguf, "rope_freqs.weight");
    if (!stored) return true;
    const Scaling known[] = {{SCALE_LLAMA3, 8, 1, 4, 8192}, {SCALE_LLAMA3, 32, 1, 4, 8192}, gguf_settings(gguf)};
    int half = conf->head_dim / 2;
    if (stored->type != STORED_F32 || stored->rows != 1 || stored->cols != half || half == 0)
        return err_set(err, "%s: rope_freqs.weight is not %d F32 values: fetch the file again", where, half);
    float *factors = MEM_ARRAY(float, half);
    bool found = false, finite = stored_row(stored, 0, factors);
    for (int k = 0; finite && !found && k < LENGTH(known); k++) {
        found = factors_are(conf, &known[k], factors);
        if (found) *s = known[k];
    }
    free(factors);
    return found || err_set(err,
                            "%s: rope_freqs.weight holds a rope scaling that is not known: give the Hugging Face "
                            "folder of the model",
                            where);
}

static bool gguf_rope(const Gguf *gguf, const char *prefix, Conf *conf, Scaling *s, const char *where, Err *err) {
    char key[96];
    View kind;
    int turned = 0;
    conf->rope_theta = gguf_number(gguf, prefix, "rope.freq_base", 10000);
    if (!gguf_size(gguf, prefix, "rope.dimension_count", conf->head_dim, &turned, where, err)) return false;
    if (turned != conf->head_dim)
        return err_set(err, "%s: rotary positions on %d of %d values of a head are not supported", where, turned,
                       conf->head_dim);
    snprintf(key, sizeof key, "%s.rope.scaling.type", prefix);
    if (gguf_text(gguf, key, &kind) && !(kind.n == 4 && memcmp(kind.p, "none", 4) == 0)) {
        if (kind.n != 6 || memcmp(kind.p, "linear", 6) != 0)
            return err_set(err, "%s: the rope scaling \"%.*s\" is not supported (none and linear are)", where,
                           kind.n > 60 ? 60 : (int)kind.n, kind.p);
        *s = (Scaling){.kind = SCALE_LINEAR, .factor = gguf_number(gguf, prefix, "rope.scaling.factor", 0)};
    }
    return gguf_factors(gguf, conf, s, where, err);
}

static bool gguf_sizes(const Gguf *gguf, const char *prefix, Conf *conf, const char *where, Err *err) {
    int key_length = 0, value_length = 0, experts = 0;
    const StoredTensor *embed = gguf_tensor(gguf, "token_embd.weight");
    if (!embed) return err_set(err, "%s: the tensor token_embd.weight is missing: fetch the file again", where);
    if (!gguf_size(gguf, prefix, "embedding_length", -1, &conf->dim, where, err) ||
        !gguf_size(gguf, prefix, "feed_forward_length", -1, &conf->hidden, where, err) ||
        !gguf_size(gguf, prefix, "block_count", -1, &conf->n_layers, where, err) ||
        !gguf_size(gguf, prefix, "attention.head_count", -1, &conf->n_heads, where, err) ||
        !gguf_size(gguf, prefix, "attention.head_count_kv", conf->n_heads, &conf->n_kv_heads, where, err) ||
        !gguf_size(gguf, prefix, "context_length", 2048, &conf->max_positions, where, err) ||
        !gguf_size(gguf, prefix, "vocab_size", embed->rows < 0 ? 0 : embed->rows, &conf->vocab, where, err) ||
        !gguf_size(gguf, prefix, "expert_count", 0, &experts, where, err) ||
        !range_check(where, "the number of heads", conf->n_heads, MOST_HEADS, err))
        return false;
    int head = conf->dim / conf->n_heads;
    if (!gguf_size(gguf, prefix, "attention.key_length", head, &key_length, where, err) ||
        !gguf_size(gguf, prefix, "attention.value_length", head, &value_length, where, err))
        return false;
    if (key_length != value_length)
        return err_set(err, "%s: keys of %d and values of %d numbers a head are not supported", where, key_length,
                       value_length);
    if (experts) return err_set(err, "%s: mixtures of experts are not supported (%s)", where, SUPPORTED);
    conf->head_dim = key_length;
    return true;
}

bool conf_from_gguf(Conf *conf, const Gguf *gguf, const char *where, Err *err) {
    *conf = (Conf){0};
    char prefix[32];
    Scaling scaling = {0};
    if (!gguf_family(gguf, conf, prefix, where, err) || !gguf_sizes(gguf, prefix, conf, where, err) ||
        !gguf_rope(gguf, prefix, conf, &scaling, where, err))
        return false;
    conf->norm_eps = (float)gguf_number(gguf, prefix, "attention.layer_norm_rms_epsilon", 1e-6);
    conf->tied = gguf_tensor(gguf, "output.weight") == NULL;
    conf->bos = gguf_token(gguf, "tokenizer.ggml.bos_token_id");
    conf->pad = gguf_token(gguf, "tokenizer.ggml.padding_token_id");
    static const char *const ENDS[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (int i = 0; i < LENGTH(ENDS); i++) {
        int id = gguf_token(gguf, ENDS[i]);
        bool there = id < 0;
        for (int k = 0; k < conf->n_eos; k++) there |= conf->eos[k] == id;
        if (!there) conf->eos[conf->n_eos++] = id;
    }
    if (!conf_finish(conf, &scaling, where, err)) return false;
    for (int i = 0; i < conf->n_layers; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.attn_q.bias", i);
        conf->layers[i].qkv_bias = gguf_tensor(gguf, name) != NULL;
        snprintf(name, sizeof name, "blk.%d.attn_output.bias", i);
        conf->layers[i].out_bias = gguf_tensor(gguf, name) != NULL;
        snprintf(name, sizeof name, "blk.%d.ffn_down.bias", i);
        conf->layers[i].mlp_bias = gguf_tensor(gguf, name) != NULL;
    }
    return true;
}

/* ---- writing ---- */

/* The shortest decimal that reads back as the same float: 1e-05, not 9.99999975e-06. */
static json_t *json_of_float(float value) {
    char text[40];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value) break;
    }
    return json_real(strtod(text, NULL));
}

static json_t *json_of_token(int id) { return id < 0 ? json_null() : json_integer(id); }

static json_t *json_of_eos(const Conf *conf) {
    if (conf->n_eos == 0) return json_null();
    if (conf->n_eos == 1) return json_integer(conf->eos[0]);
    json_t *list = json_array();
    for (int i = 0; i < conf->n_eos; i++) json_array_append_new(list, json_integer(conf->eos[i]));
    return list;
}

/* In the spelling of transformers 4, which 5 reads as well. */
static json_t *config_make(const Conf *conf, StoredType type) {
    json_t *c = json_object();
    json_object_set_new(c, "architectures", json_pack("[s]", conf->architecture));
    json_object_set_new(c, "model_type", json_string(conf->model_type));
    json_object_set_new(c, "vocab_size", json_integer(conf->vocab));
    json_object_set_new(c, "hidden_size", json_integer(conf->dim));
    json_object_set_new(c, "intermediate_size", json_integer(conf->hidden));
    json_object_set_new(c, "num_hidden_layers", json_integer(conf->n_layers));
    json_object_set_new(c, "num_attention_heads", json_integer(conf->n_heads));
    json_object_set_new(c, "num_key_value_heads", json_integer(conf->n_kv_heads));
    json_object_set_new(c, "head_dim", json_integer(conf->head_dim));
    json_object_set_new(c, "hidden_act", json_string("silu"));
    json_object_set_new(c, "max_position_embeddings", json_integer(conf->max_positions));
    json_object_set_new(c, "rms_norm_eps", json_of_float(conf->norm_eps));
    json_object_set_new(c, "rope_theta", json_real(conf->rope_theta));
    json_object_set_new(c, "rope_scaling",
                        conf->rope_scaling[0] ? json_loads(conf->rope_scaling, 0, NULL) : json_null());
    json_object_set_new(c, "attention_bias", json_boolean(conf->layers[0].qkv_bias));
    json_object_set_new(c, "mlp_bias", json_boolean(conf->layers[0].mlp_bias));
    json_object_set_new(c, "tie_word_embeddings", json_boolean(conf->tied));
    json_object_set_new(c, "bos_token_id", json_of_token(conf->bos));
    json_object_set_new(c, "eos_token_id", json_of_eos(conf));
    json_object_set_new(c, "pad_token_id", json_of_token(conf->pad));
    json_object_set_new(c, "torch_dtype",
                        json_string(type == STORED_F32   ? "float32"
                                    : type == STORED_F16 ? "float16"
                                                         : "bfloat16"));
    json_object_set_new(c, "use_cache", json_true());
    return c;
}

/* config.json has one switch for the biases of q, k, v and of the output, and one for all layers. */
static bool biases_can_be_said(const Conf *conf) {
    const LayerConf *first = &conf->layers[0];
    for (int i = 0; i < conf->n_layers; i++) {
        const LayerConf *layer = &conf->layers[i];
        if (layer->qkv_bias != first->qkv_bias || layer->mlp_bias != first->mlp_bias ||
            layer->out_bias != layer->qkv_bias)
            return false;
    }
    return true;
}

bool conf_write(const Conf *conf, const char *folder, StoredType type, Err *err) {
    if (!biases_can_be_said(conf))
        return err_set(err, "%s: this model has biases in some places only, which config.json can't say", folder);
    Arena arena = {0};
    json_t *config = config_make(conf, type), *generation = json_object();
    json_object_set_new(generation, "bos_token_id", json_of_token(conf->bos));
    json_object_set_new(generation, "eos_token_id", json_of_eos(conf));
    json_object_set_new(generation, "pad_token_id", json_of_token(conf->pad));
    bool ok = json_write(arena_format(&arena, "%s/config.json", folder), config, err) &&
              json_write(arena_format(&arena, "%s/generation_config.json", folder), generation, err);
    json_decref(config);
    json_decref(generation);
    arena_free(&arena);
    return ok;
}
