/* conf_json.c: a Conf out of config.json, in the spelling of transformers 4 or 5, and back into it.
 *
 * Settings that would change the result and that whet does not have are refused by name. Tested by
 * tests/test_rollout_files.c and tests/test_rollout_families.c.
 */
#include "rollout/internal.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

/* ---- reading ---- */

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

bool json_number(const json_t *object, const char *key, double otherwise, double *out, const char *where,
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

static const Family *json_family(const json_t *config, const char *where, Err *err) {
    const char *name = json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    const char *type = json_string_value(json_object_get(config, "model_type"));
    const Family *family = family_of(name, type);
    if (family) return family;
    if (!name) name = type;
    if (!name)
        err_set(err, "%s: names no architecture: the file is broken, fetch it again", where);
    else
        err_set(err, "%s: the architecture \"%.100s\" is not supported (%s)", where, name, families_text());
    return NULL;
}

static bool json_activation(const json_t *config, const Family *f, GluKind *glu, const char *where, Err *err) {
    const json_t *value = f->gemma ? json_object_get(config, "hidden_activation") : NULL;
    if (!value || json_is_null(value)) value = json_object_get(config, "hidden_act");
    const char *name = json_is_string(value) ? json_string_value(value) : f->gemma ? "gelu_pytorch_tanh" : "silu";
    bool gelu = strcmp(name, "gelu_pytorch_tanh") == 0 || strcmp(name, "gelu_new") == 0;
    if (!gelu && strcmp(name, "silu") != 0 && strcmp(name, "swish") != 0)
        return err_set(err, "%s: hidden_act \"%.60s\" is not supported (silu and gelu_pytorch_tanh are)", where,
                       name);
    *glu = gelu ? GLU_GELU : GLU_SILU;
    return true;
}

/* The tables of rotary positions. With layers of two kinds rope_parameters has an object for each (transformers
 * 5), or rope_scaling speaks of those without a window and rope_local_base_freq of the others (4). */
static bool json_ropes(const json_t *config, const Family *f, Conf *conf, const char *where, Err *err) {
    const json_t *settings = json_object_get(config, "rope_parameters"), *local = NULL;
    double theta = f->theta > 0 ? f->theta : 10000, local_theta = f->local_theta, part = f->partial ? 1 : 0,
           original = 0;
    if (!json_number(config, "rope_theta", theta, &theta, where, err) ||
        !json_number(config, "rope_local_base_freq", local_theta, &local_theta, where, err) ||
        !json_number(config, "partial_rotary_factor", part, &part, where, err))
        return false;
    if (!f->partial && part == 1) part = 0;
    if (!f->partial && part != 0)
        return err_set(err, "%s: partial_rotary_factor %g is not supported for this architecture", where, part);
    double before = f->original ? f->original : conf->max_positions;
    if (!json_number(config, "original_max_position_embeddings", before, &original, where, err)) return false;
    if (json_is_object(settings) && f->local_theta > 0) {
        local = json_object_get(settings, "sliding_attention");
        settings = json_object_get(settings, "full_attention");
    } else if (!json_is_object(settings)) {
        settings = json_object_get(config, "rope_scaling");
    }
    conf->n_ropes = 1;
    if (!rope_from_json(&conf->ropes[0], settings, theta, original, part, conf->head_dim, where, err))
        return false;
    Rope *rope = &conf->ropes[0];
    if (f->partial && rope->kind == ROPE_YARN)
        return err_set(err, "%s: the rope scaling \"yarn\" is not supported for this architecture (longrope is)",
                       where);
    if (f->partial) rope->original = original; /* Phi-3's place for it has precedence */
    if (f->local_theta == 0) return true;
    conf->n_ropes = 2;
    return rope_from_json(&conf->ropes[1], local, local_theta, original, 0, conf->head_dim, where, err);
}

/* Which layers see a window: a list of names, or the family's rule. */
static bool json_windows(const json_t *config, const Family *f, Conf *conf, const char *where, Err *err) {
    const json_t *types = json_object_get(config, "layer_types"),
                 *size = json_object_get(config, "sliding_window");
    bool asked = f->windows != WINDOWS_NONE, used = json_is_true(json_object_get(config, "use_sliding_window"));
    int window = size && json_is_null(size) ? 0 : f->window, later = 28, every = f->every;
    if (!json_int(config, "sliding_window", window, &window, where, err) ||
        !json_int(config, "max_window_layers", later, &later, where, err) ||
        !json_int(config, "sliding_window_pattern", every, &every, where, err))
        return false;
    if (f->windows == WINDOWS_LATER || f->windows == WINDOWS_UNTURNED) asked = used;
    if (!asked || f->windows == WINDOWS_ALL) types = NULL;
    if (json_is_array(types) && json_array_size(types) < (size_t)conf->n_layers)
        return err_set(err, "%s: layer_types lists fewer than %d layers: the file is broken", where,
                       conf->n_layers);
    for (int i = 0; asked && i < conf->n_layers; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        bool sees = f->windows == WINDOWS_ALL     ? window > 0
                    : f->windows == WINDOWS_LATER ? window > 0 && i >= later
                    : f->windows == WINDOWS_TURNS ? every < 1 || (i + 1) % every != 0
                                                  : window > 0 && conf->layers[i].rope < 0;
        if (json_is_array(types)) {
            if (!type || (strcmp(type, "sliding_attention") != 0 && strcmp(type, "full_attention") != 0))
                return err_set(err,
                               "%s: layer_types[%d] \"%.60s\" is not supported (full_attention and "
                               "sliding_attention are)",
                               where, i, type ? type : "?");
            sees = type[0] == 's';
        }
        if (sees && window < 1)
            return err_set(err, "%s: layer %d has a window, but sliding_window is %d: the file is broken", where,
                           i, window);
        conf->layers[i].window = sees ? window : 0;
        if (sees && conf->n_ropes == 2) conf->layers[i].rope = 1;
    }
    return true;
}

/* Which layers have no rotary positions. */
static bool json_unturned(const json_t *config, const Family *f, Conf *conf, const char *where, Err *err) {
    int every = f->unturned;
    const json_t *list = json_object_get(config, "no_rope_layers");
    if (every == 0) return true;
    if (!json_int(config, "no_rope_layer_interval", every, &every, where, err)) return false;
    if (every < 1) return err_set(err, "%s: no_rope_layer_interval is %d: the file is broken", where, every);
    if (json_is_array(list) && json_array_size(list) < (size_t)conf->n_layers)
        return err_set(err, "%s: no_rope_layers lists fewer than %d layers: the file is broken", where,
                       conf->n_layers);
    for (int i = 0; i < conf->n_layers; i++) {
        bool turns = (i + 1) % every != 0;
        if (json_is_array(list)) turns = json_integer_value(json_array_get(list, (size_t)i)) != 0;
        if (!turns) conf->layers[i].rope = -1;
    }
    return true;
}

static bool json_sizes(const json_t *config, const Family *f, Conf *conf, const char *where, Err *err) {
    double eps = 0;
    if (!json_int(config, "hidden_size", 0, &conf->dim, where, err) ||
        !json_int(config, "intermediate_size", 0, &conf->hidden, where, err) ||
        !json_int(config, "num_hidden_layers", 0, &conf->n_layers, where, err) ||
        !json_int(config, "num_attention_heads", 0, &conf->n_heads, where, err))
        return false;
    int heads = conf->n_heads, head_dim = f->head_dim ? f->head_dim : heads > 0 ? conf->dim / heads : 0;
    const json_t *given = json_object_get(config, "num_key_value_heads");
    int kv = f->kv_heads && !json_is_null(given) ? f->kv_heads : heads;
    if (!json_int(config, "num_key_value_heads", kv, &conf->n_kv_heads, where, err) ||
        !json_int(config, "head_dim", head_dim, &conf->head_dim, where, err) ||
        !json_int(config, "vocab_size", 0, &conf->vocab, where, err) ||
        !json_int(config, "max_position_embeddings", f->positions ? f->positions : 2048, &conf->max_positions,
                  where, err) ||
        !json_int(config, "bos_token_id", -1, &conf->bos, where, err) ||
        !json_int(config, "pad_token_id", -1, &conf->pad, where, err) ||
        !json_number(config, "rms_norm_eps", f->eps > 0 ? f->eps : 1e-6, &eps, where, err))
        return false;
    conf->norm_eps = (float)eps;
    return true;
}

/* Soft caps, the scores' scale, biases, tied or not. */
static bool json_rest(const json_t *config, const Family *f, Conf *conf, const char *where, Err *err) {
    double attn = (double)f->attn_cap, final = (double)f->final_cap;
    const json_t *tied = json_object_get(config, "tie_word_embeddings"), *value;
    conf->tied = json_is_boolean(tied) ? json_is_true(tied) : f->tied;
    conf->attn_scalar = conf->head_dim;
    if (!f->gemma) return true;
    if (json_is_true(json_object_get(config, "use_bidirectional_attention")))
        return err_set(err, "%s: use_bidirectional_attention is not supported", where);
    if ((value = json_object_get(config, "attn_logit_softcapping")) != NULL && json_is_null(value)) attn = 0;
    if ((value = json_object_get(config, "final_logit_softcapping")) != NULL && json_is_null(value)) final = 0;
    if (!json_number(config, "query_pre_attn_scalar", 256, &conf->attn_scalar, where, err) ||
        !json_number(config, "attn_logit_softcapping", attn, &attn, where, err) ||
        !json_number(config, "final_logit_softcapping", final, &final, where, err))
        return false;
    conf->attn_cap = f->qk_norm ? 0 : (float)attn; /* transformers has the key for Gemma 3 and does not use it */
    conf->final_cap = (float) final;
    return true;
}

bool conf_from_json(Conf *conf, const json_t *config, const json_t *generation, const char *where, Err *err) {
    GluKind glu = GLU_SILU;
    *conf = (Conf){0};
    const Family *f = json_family(config, where, err);
    if (!f) return false;
    family_apply(f, conf);
    if (!json_activation(config, f, &glu, where, err) || !json_sizes(config, f, conf, where, err) ||
        !json_rest(config, f, conf, where, err) || !json_eos(config, conf, where, err) ||
        (generation && !json_eos(generation, conf, where, err)))
        return false;
    if (!json_ropes(config, f, conf, where, err) || !conf_check(conf, where, err)) return false;
    conf_layers(f, conf, glu);
    for (int i = 0; i < conf->n_layers; i++) {
        LayerConf *layer = &conf->layers[i];
        if (f->attention_bias)
            layer->qkv_bias = layer->out_bias = json_is_true(json_object_get(config, "attention_bias"));
        if (f->mlp_bias) layer->mlp_bias = json_is_true(json_object_get(config, "mlp_bias"));
    }
    return json_unturned(config, f, conf, where, err) && json_windows(config, f, conf, where, err);
}

/* ---- writing ---- */

/* The shortest decimal that reads back as the same float: 1e-05, not 9.99999975e-06. */
json_t *json_of_float(float value) {
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

static void put_int(json_t *c, const char *key, json_int_t value) {
    json_object_set_new(c, key, json_integer(value));
}

/* A whole number without a point: transformers is strict about it. */
static json_t *json_of_number(double value) {
    return value == floor(value) && fabs(value) < 1e15 ? json_integer((json_int_t)value) : json_real(value);
}

static void put_windows(json_t *c, const Family *f, const Conf *conf) {
    int window = 0, first = conf->n_layers;
    json_t *types = json_array();
    for (int i = 0; i < conf->n_layers; i++) {
        bool sees = conf->layers[i].window > 0;
        if (sees) window = conf->layers[i].window;
        if (sees && i < first) first = i;
        json_array_append_new(types, json_string(sees ? "sliding_attention" : "full_attention"));
    }
    if (f->windows != WINDOWS_NONE)
        json_object_set_new(c, "sliding_window", window ? json_integer(window) : json_null());
    if (f->windows == WINDOWS_LATER || f->windows == WINDOWS_UNTURNED)
        json_object_set_new(c, "use_sliding_window", json_boolean(window > 0));
    if (f->windows == WINDOWS_LATER) put_int(c, "max_window_layers", first);
    if (f->windows >= WINDOWS_LATER) json_object_set(c, "layer_types", types);
    json_decref(types);
    if (!f->unturned) return;
    json_t *turns = json_array();
    for (int i = 0; i < conf->n_layers; i++) json_array_append_new(turns, json_integer(conf->layers[i].rope >= 0));
    json_object_set_new(c, "no_rope_layers", turns);
    put_int(c, "no_rope_layer_interval", f->unturned);
}

static json_t *json_of_cap(float cap) { return cap > 0 ? json_of_float(cap) : json_null(); }

static void put_family(json_t *c, const Family *f, const Conf *conf) {
    const Rope *rope = &conf->ropes[0];
    const char *act = conf->layers[0].glu == GLU_GELU ? "gelu_pytorch_tanh" : "silu";
    json_object_set_new(c, f->gemma ? "hidden_activation" : "hidden_act", json_string(act));
    json_object_set_new(c, "rope_theta", json_real(rope->theta));
    json_object_set_new(c, "rope_scaling", rope_to_json(rope));
    if (conf->n_ropes == 2) json_object_set_new(c, "rope_local_base_freq", json_real(conf->ropes[1].theta));
    if (f->attention_bias) json_object_set_new(c, "attention_bias", json_boolean(conf->layers[0].qkv_bias));
    if (f->mlp_bias) json_object_set_new(c, "mlp_bias", json_boolean(conf->layers[0].mlp_bias));
    if (f->gemma) {
        json_object_set_new(c, "query_pre_attn_scalar", json_of_number(conf->attn_scalar));
        json_object_set_new(c, "attn_logit_softcapping", json_of_cap(conf->attn_cap));
        json_object_set_new(c, "final_logit_softcapping", json_of_cap(conf->final_cap));
    }
    if (f->partial) {
        double share = (double)rope->turned / conf->head_dim;
        if ((int)(conf->head_dim * share) < rope->turned) share = nextafter(share, 2); /* readers cut it */
        json_object_set_new(c, "partial_rotary_factor", json_real(share));
        put_int(c, "original_max_position_embeddings", (json_int_t)rope->original);
    }
    put_windows(c, f, conf);
}

/* In the spelling of transformers 4, which 5 reads as well. */
static json_t *config_make(const Conf *conf, StoredType type) {
    json_t *c = json_object();
    json_object_set_new(c, "architectures", json_pack("[s]", conf->architecture));
    json_object_set_new(c, "model_type", json_string(conf->model_type));
    put_int(c, "vocab_size", conf->vocab);
    put_int(c, "hidden_size", conf->dim);
    put_int(c, "intermediate_size", conf->hidden);
    put_int(c, "num_hidden_layers", conf->n_layers);
    put_int(c, "num_attention_heads", conf->n_heads);
    put_int(c, "num_key_value_heads", conf->n_kv_heads);
    put_int(c, "head_dim", conf->head_dim);
    put_int(c, "max_position_embeddings", conf->max_positions);
    json_object_set_new(c, "rms_norm_eps", json_of_float(conf->norm_eps));
    put_family(c, family_of_conf(conf), conf);
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

/* config.json has one switch for the biases of q, k, v and of the output, and one for all layers, or none. */
static bool biases_can_be_said(const Conf *conf) {
    const LayerConf *first = &conf->layers[0];
    const Family *f = family_of_conf(conf);
    for (int i = 0; i < conf->n_layers; i++) {
        const LayerConf *layer = &conf->layers[i];
        if (layer->qkv_bias != first->qkv_bias || layer->mlp_bias != first->mlp_bias) return false;
        if (f->attention_bias ? layer->out_bias != layer->qkv_bias
                              : layer->out_bias || layer->qkv_bias != f->qkv_bias)
            return false;
        if (layer->mlp_bias && !f->mlp_bias) return false;
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

bool conf_open(const char *path, Conf *conf, Err *err) {
    json_error_t wrong;
    json_t *config = json_load_file(path, 0, &wrong);
    if (!config) return err_set(err, "%s, line %d: %s", path, wrong.line, wrong.text);
    bool good = conf_from_json(conf, config, NULL, path, err);
    json_decref(config);
    return good;
}
