/* conf.c: a model as data: the families that are known, the tensors that a Conf asks for, and the checks that
 * every source of a Conf passes (conf_json.c: config.json; conf_gguf.c: GGUF).
 *
 * conf*.c are the only places that know families of models by name. What a family is made of stands in one table
 * row each; the forward pass sees descriptors alone. Tested by tests/test_rollout_files.c and
 * tests/test_rollout_families.c.
 */
#include "rollout/internal.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LAYERS = 4096, MOST_HEADS = 4096, MOST_HEAD_DIM = 256, MOST_DIM = 1 << 20, MOST_VOCAB = 1 << 24 };

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

/* ---- families ---- */

/* The defaults are those of transformers' configuration classes. */
static const Family FAMILIES[] = {
    {.architecture = "LlamaForCausalLM",
     .type = "llama",
     .gguf = "llama",
     .turned = true,
     .attention_bias = true,
     .mlp_bias = true},
    {.architecture = "MistralForCausalLM",
     .type = "mistral",
     .gguf = "llama",
     .turned = true,
     .kv_heads = 8,
     .positions = 131072,
     .windows = WINDOWS_ALL,
     .window = 4096},
    {.architecture = "Qwen2ForCausalLM",
     .type = "qwen2",
     .gguf = "qwen2",
     .qkv_bias = true,
     .kv_heads = 32,
     .positions = 32768,
     .windows = WINDOWS_LATER,
     .window = 4096},
    {.architecture = "Qwen3ForCausalLM",
     .type = "qwen3",
     .gguf = "qwen3",
     .attention_bias = true,
     .qk_norm = true,
     .kv_heads = 32,
     .head_dim = 128,
     .positions = 32768,
     .windows = WINDOWS_LATER,
     .window = 4096},
    {.architecture = "Gemma2ForCausalLM",
     .type = "gemma2",
     .gguf = "gemma2",
     .attention_bias = true,
     .gemma = true,
     .kv_heads = 4,
     .head_dim = 256,
     .positions = 8192,
     .tied = true,
     .windows = WINDOWS_TURNS,
     .window = 4096,
     .every = 2,
     .attn_cap = 50,
     .final_cap = 30},
    {.architecture = "Gemma3ForCausalLM",
     .type = "gemma3_text",
     .gguf = "gemma3",
     .attention_bias = true,
     .gemma = true,
     .qk_norm = true,
     .kv_heads = 4,
     .head_dim = 256,
     .positions = 131072,
     .tied = true,
     .windows = WINDOWS_TURNS,
     .window = 4096,
     .every = 6,
     .theta = 1000000,
     .local_theta = 10000},
    {.architecture = "Phi3ForCausalLM",
     .type = "phi3",
     .gguf = "phi3",
     .fused = true,
     .partial = true,
     .eps = 1e-5,
     .positions = 4096,
     .original = 4096,
     .windows = WINDOWS_ALL},
    {.architecture = "SmolLM3ForCausalLM",
     .type = "smollm3",
     .gguf = "smollm3",
     .turned = true,
     .attention_bias = true,
     .mlp_bias = true,
     .kv_heads = 4,
     .positions = 32768,
     .tied = true,
     .theta = 2000000,
     .windows = WINDOWS_UNTURNED,
     .unturned = 4},
};

const char *families_text(void) {
    return "supported: Llama, Mistral, Qwen2, Qwen3, Gemma2, Gemma3, Phi3, SmolLM3";
}

const Family *family_of(const char *architecture, const char *type) {
    for (int i = 0; i < LENGTH(FAMILIES); i++)
        if (architecture ? strcmp(architecture, FAMILIES[i].architecture) == 0
                         : type && strcmp(type, FAMILIES[i].type) == 0)
            return &FAMILIES[i];
    return NULL;
}

const Family *family_of_gguf(View name) {
    for (int i = 0; i < LENGTH(FAMILIES); i++)
        if (name.n == strlen(FAMILIES[i].gguf) && memcmp(name.p, FAMILIES[i].gguf, name.n) == 0)
            return &FAMILIES[i];
    return NULL;
}

const Family *family_of_conf(const Conf *conf) {
    const Family *family = family_of(conf->architecture, NULL);
    CHECK(family, "no family %s", conf->architecture);
    return family;
}

void family_apply(const Family *f, Conf *conf) {
    snprintf(conf->architecture, sizeof conf->architecture, "%s", f->architecture);
    snprintf(conf->model_type, sizeof conf->model_type, "%s", f->type);
    conf->norms_from_one = f->gemma;
}

/* ---- the tensors of a model ---- */

typedef enum {
    SIZE_ONE,
    SIZE_DIM,
    SIZE_Q,
    SIZE_KV,
    SIZE_QKV,
    SIZE_HEAD,
    SIZE_HIDDEN,
    SIZE_TWO_HIDDEN,
    SIZE_VOCAB
} Size;
typedef enum {
    WHEN_ALWAYS,
    WHEN_SPLIT,
    WHEN_FUSED,
    WHEN_QKV_BIAS,
    WHEN_OUT_BIAS,
    WHEN_MLP_BIAS,
    WHEN_QK_NORM,
    WHEN_POST_NORMS,
    WHEN_NO_POST_NORMS,
    WHEN_UNTIED
} When;
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
    {"self_attn.q_proj.weight", "attn_q.weight", SIZE_Q, SIZE_DIM, WHEN_SPLIT, TURN_Q},
    {"self_attn.k_proj.weight", "attn_k.weight", SIZE_KV, SIZE_DIM, WHEN_SPLIT, TURN_K},
    {"self_attn.v_proj.weight", "attn_v.weight", SIZE_KV, SIZE_DIM, WHEN_SPLIT, TURN_NONE},
    {"self_attn.qkv_proj.weight", "attn_qkv.weight", SIZE_QKV, SIZE_DIM, WHEN_FUSED, TURN_NONE},
    {"self_attn.q_proj.bias", "attn_q.bias", SIZE_ONE, SIZE_Q, WHEN_QKV_BIAS, TURN_Q},
    {"self_attn.k_proj.bias", "attn_k.bias", SIZE_ONE, SIZE_KV, WHEN_QKV_BIAS, TURN_K},
    {"self_attn.v_proj.bias", "attn_v.bias", SIZE_ONE, SIZE_KV, WHEN_QKV_BIAS, TURN_NONE},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", SIZE_ONE, SIZE_HEAD, WHEN_QK_NORM, TURN_NONE},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", SIZE_ONE, SIZE_HEAD, WHEN_QK_NORM, TURN_NONE},
    {"self_attn.o_proj.weight", "attn_output.weight", SIZE_DIM, SIZE_Q, WHEN_ALWAYS, TURN_NONE},
    {"self_attn.o_proj.bias", "attn_output.bias", SIZE_ONE, SIZE_DIM, WHEN_OUT_BIAS, TURN_NONE},
    {"post_attention_layernorm.weight", "ffn_norm.weight", SIZE_ONE, SIZE_DIM, WHEN_NO_POST_NORMS, TURN_NONE},
    {"post_attention_layernorm.weight", "post_attention_norm.weight", SIZE_ONE, SIZE_DIM, WHEN_POST_NORMS,
     TURN_NONE},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight", SIZE_ONE, SIZE_DIM, WHEN_POST_NORMS, TURN_NONE},
    {"mlp.gate_proj.weight", "ffn_gate.weight", SIZE_HIDDEN, SIZE_DIM, WHEN_SPLIT, TURN_NONE},
    {"mlp.up_proj.weight", "ffn_up.weight", SIZE_HIDDEN, SIZE_DIM, WHEN_SPLIT, TURN_NONE},
    {"mlp.gate_up_proj.weight", "ffn_up.weight", SIZE_TWO_HIDDEN, SIZE_DIM, WHEN_FUSED, TURN_NONE},
    {"mlp.gate_proj.bias", "ffn_gate.bias", SIZE_ONE, SIZE_HIDDEN, WHEN_MLP_BIAS, TURN_NONE},
    {"mlp.up_proj.bias", "ffn_up.bias", SIZE_ONE, SIZE_HIDDEN, WHEN_MLP_BIAS, TURN_NONE},
    {"mlp.down_proj.weight", "ffn_down.weight", SIZE_DIM, SIZE_HIDDEN, WHEN_ALWAYS, TURN_NONE},
    {"mlp.down_proj.bias", "ffn_down.bias", SIZE_ONE, SIZE_DIM, WHEN_MLP_BIAS, TURN_NONE},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", SIZE_ONE, SIZE_DIM, WHEN_POST_NORMS, TURN_NONE},
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
    case SIZE_QKV:
        return (conf->n_heads + 2 * conf->n_kv_heads) * conf->head_dim;
    case SIZE_HEAD:
        return conf->head_dim;
    case SIZE_HIDDEN:
        return conf->hidden;
    case SIZE_TWO_HIDDEN:
        return 2 * conf->hidden;
    case SIZE_VOCAB:
        return conf->vocab;
    }
    CHECK(false, "size %d", (int)size);
}

static bool row_is_there(const Conf *conf, const LayerConf *layer, When when) {
    switch (when) {
    case WHEN_ALWAYS:
        return true;
    case WHEN_SPLIT:
        return !layer->fused;
    case WHEN_FUSED:
        return layer->fused;
    case WHEN_QK_NORM:
        return layer->qk_norm;
    case WHEN_POST_NORMS:
        return layer->post_norms;
    case WHEN_NO_POST_NORMS:
        return !layer->post_norms;
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
        spec->from_one = conf->norms_from_one && strstr(rows[i].name, "norm.weight") != NULL;
        if (rows[i].turn != TURN_NONE && family_of_conf(conf)->turned)
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

/* ---- checks that both sources share ---- */

bool range_check(const char *where, const char *what, int64_t value, int64_t most, Err *err) {
    if (value >= 1 && value <= most) return true;
    return err_set(err, "%s: %s is %lld, expected 1 to %lld: the file is broken, fetch it again", where, what,
                   (long long)value, (long long)most);
}

bool number_check(const char *where, const char *what, double value, double least, double most, Err *err) {
    if (value >= least && value <= most) return true;
    return err_set(err, "%s: %s is %g, expected %g to %g: the file is broken, fetch it again", where, what, value,
                   least, most);
}

/* Everything the forward pass relies on, whatever the file said. */
bool conf_check(Conf *conf, const char *where, Err *err) {
    if (!range_check(where, "the width of the model", conf->dim, MOST_DIM, err) ||
        !range_check(where, "the width of the feed-forward", conf->hidden, MOST_DIM, err) ||
        !range_check(where, "the number of layers", conf->n_layers, MOST_LAYERS, err) ||
        !range_check(where, "the number of heads", conf->n_heads, MOST_HEADS, err) ||
        !range_check(where, "the number of key-value heads", conf->n_kv_heads, conf->n_heads, err) ||
        !range_check(where, "head_dim", conf->head_dim, MOST_DIM, err) ||
        !range_check(where, "the size of the vocabulary", conf->vocab, MOST_VOCAB, err) ||
        !range_check(where, "the number of positions", conf->max_positions, INT_MAX, err) ||
        !number_check(where, "the norms' epsilon", (double)conf->norm_eps, 0, 1, err) ||
        !number_check(where, "query_pre_attn_scalar", conf->attn_scalar, 1e-6, 1e9, err) ||
        !number_check(where, "the soft cap of the scores", (double)conf->attn_cap, 0, 1e9, err) ||
        !number_check(where, "the soft cap of the logits", (double)conf->final_cap, 0, 1e9, err))
        return false;
    if (conf->n_heads % conf->n_kv_heads)
        return err_set(err, "%s: %d heads are no multiple of %d key-value heads: the file is broken", where,
                       conf->n_heads, conf->n_kv_heads);
    if (conf->head_dim > MOST_HEAD_DIM)
        return err_set(err, "%s: heads of %d values are not supported (up to %d are)", where, conf->head_dim,
                       MOST_HEAD_DIM);
    if (conf->head_dim % 2)
        return err_set(err, "%s: head_dim %d is odd: the file is broken", where, conf->head_dim);
    for (int i = 0; i < conf->n_ropes; i++)
        if (!rope_check(&conf->ropes[i], conf->head_dim, where, err)) return false;
    if (conf->bos < -1 || conf->bos >= conf->vocab)
        return err_set(err, "%s: bos_token_id %d is outside the vocabulary of %d", where, conf->bos, conf->vocab);
    for (int i = 0; i < conf->n_eos; i++)
        if (conf->eos[i] < 0 || conf->eos[i] >= conf->vocab)
            return err_set(err, "%s: eos_token_id %d is outside the vocabulary of %d", where, conf->eos[i],
                           conf->vocab);
    if (conf->pad < 0 || conf->pad >= conf->vocab) conf->pad = -1; /* some models carry a pad that is no token */
    return true;
}

void conf_layers(const Family *f, Conf *conf, GluKind glu) {
    conf->embed_scale = f->gemma ? (float)sqrt((double)conf->dim) : 1;
    conf->layers = MEM_ARRAY(LayerConf, conf->n_layers);
    for (int i = 0; i < conf->n_layers; i++)
        conf->layers[i] = (LayerConf){
            .glu = glu, .qkv_bias = f->qkv_bias, .qk_norm = f->qk_norm, .post_norms = f->gemma, .fused = f->fused};
}

Conf conf_copy(const Conf *conf) {
    Conf copy = *conf;
    for (int i = 0; i < conf->n_ropes; i++) copy.ropes[i] = rope_copy(&conf->ropes[i]);
    copy.layers = MEM_ARRAY(LayerConf, conf->n_layers);
    memcpy(copy.layers, conf->layers, (size_t)conf->n_layers * sizeof(LayerConf));
    return copy;
}

void conf_free(Conf *conf) {
    for (int i = 0; i < conf->n_ropes; i++) rope_free(&conf->ropes[i]);
    free(conf->layers);
    *conf = (Conf){0};
}
