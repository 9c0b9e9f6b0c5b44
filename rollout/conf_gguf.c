/* conf_gguf.c: a Conf as the keys of a GGUF, in llama.cpp's spelling.
 *
 * The counterpart of conf_from_gguf. What GGUF has no key for is refused. Tested by tests/test_rollout_export.c.
 */
#include "rollout/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    GgufKeys *keys;
    const char *family;
} Writer;

static const char *key_of(char full[96], const Writer *w, const char *key) {
    snprintf(full, 96, "%s.%s", w->family, key);
    return full;
}

static void put_size(const Writer *w, const char *key, int value) {
    char full[96];
    gguf_put_int(w->keys, key_of(full, w, key), (uint32_t)value);
}

static void put_number(const Writer *w, const char *key, double value) {
    char full[96];
    gguf_put_float(w->keys, key_of(full, w, key), (float)value);
}

static double number_of(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

/* How much slower each pair turns: Llama 3's scaling, which GGUF keeps as a tensor. */
static float *llama3_factors(const Conf *conf, const json_t *scaling) {
    double factor = number_of(scaling, "factor"), low = number_of(scaling, "low_freq_factor"),
           high = number_of(scaling, "high_freq_factor"),
           original = number_of(scaling, "original_max_position_embeddings");
    float *factors = MEM_ARRAY(float, conf->head_dim / 2);
    for (int i = 0; i < conf->head_dim / 2; i++) {
        double wave = 2 * 3.14159265358979323846 * pow(conf->rope_theta, 2.0 * i / conf->head_dim);
        double smooth = (original / wave - low) / (high - low);
        factors[i] = (float)(wave < original / high  ? 1
                             : wave > original / low ? factor
                                                     : 1 / ((1 - smooth) / factor + smooth));
    }
    return factors;
}

static bool put_scaling(const Conf *conf, const Writer *w, float **factors, Err *err) {
    char key[96];
    *factors = NULL;
    if (!conf->rope_scaling[0]) return true;
    json_t *scaling = json_loads(conf->rope_scaling, 0, NULL);
    const char *type = json_string_value(json_object_get(scaling, "rope_type"));
    bool ok = true;
    if (type && strcmp(type, "linear") == 0) {
        gguf_put_text(w->keys, key_of(key, w, "rope.scaling.type"), "linear", 6);
        put_number(w, "rope.scaling.factor", number_of(scaling, "factor"));
    } else if (type && strcmp(type, "llama3") == 0) {
        *factors = llama3_factors(conf, scaling);
        gguf_put_text(w->keys, "whet.rope_scaling", conf->rope_scaling, strlen(conf->rope_scaling));
    } else
        ok = err_set(err, "the rope scaling \"%s\" can't be written to a GGUF: export to hf", type ? type : "?");
    json_decref(scaling);
    return ok;
}

bool conf_to_gguf(const Conf *conf, GgufKeys *keys, float **factors, Err *err) {
    *factors = NULL;
    for (int i = 0; i < conf->n_layers; i++)
        if (conf->layers[i].rope != ROPE_HALVES || conf->layers[i].window)
            return err_set(err,
                           "layer %d has a window or no rotary positions, which can't be written to a GGUF yet: "
                           "export to hf",
                           i);
    Writer w = {keys, conf_family_gguf(conf)};
    gguf_put_text(keys, "general.architecture", w.family, strlen(w.family));
    put_size(&w, "vocab_size", conf->vocab);
    put_size(&w, "context_length", conf->max_positions);
    put_size(&w, "embedding_length", conf->dim);
    put_size(&w, "block_count", conf->n_layers);
    put_size(&w, "feed_forward_length", conf->hidden);
    put_size(&w, "attention.head_count", conf->n_heads);
    put_size(&w, "attention.head_count_kv", conf->n_kv_heads);
    put_size(&w, "attention.key_length", conf->head_dim);
    put_size(&w, "attention.value_length", conf->head_dim);
    put_size(&w, "rope.dimension_count", conf->head_dim);
    put_number(&w, "rope.freq_base", conf->rope_theta);
    put_number(&w, "attention.layer_norm_rms_epsilon", (double)conf->norm_eps);
    return put_scaling(conf, &w, factors, err);
}
