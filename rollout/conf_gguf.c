/* conf_gguf.c: a Conf out of the keys of a GGUF, in llama.cpp's spelling, and back into them.
 *
 * Much of what config.json says is code in llama.cpp: which layers have a window or no rotary positions, the scale
 * of Gemma's scores. What GGUF has no key for and llama.cpp would do otherwise is refused when writing. Tested by
 * tests/test_rollout_files.c and tests/test_rollout_export.c.
 */
#include "rollout/internal.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_HALF = 128 }; /* pairs of a head: conf_check sees to it */
#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

/* ---- what llama.cpp knows by itself ---- */

/* Windows and tables of the layers, given the keys' window and pattern. */
static void known_layers(const Family *f, Conf *conf, int window, int every) {
    for (int i = 0; i < conf->n_layers; i++) {
        LayerConf *layer = &conf->layers[i];
        bool sees = window > 0 &&
                    (f->windows == WINDOWS_TURNS ? every > 0 && (i + 1) % every != 0 : f->windows == WINDOWS_ALL);
        layer->window = sees ? window : 0;
        layer->rope = f->unturned && (i + 1) % f->unturned == 0 ? -1 : sees && conf->n_ropes == 2 ? 1 : 0;
    }
}

/* Gemma's scores: the 27 billion models are told by their layers. */
static double known_scalar(const Family *f, const Conf *conf) {
    bool large = f->gemma && conf->n_layers == (f->qk_norm ? 62 : 46);
    return large ? conf->dim / conf->n_heads : conf->head_dim;
}

/* ---- reading ---- */

static const Family *gguf_family(const Gguf *gguf, const char *where, Err *err) {
    View name;
    if (!gguf_text(gguf, "general.architecture", &name)) {
        err_set(err, "%s: general.architecture is missing: the file is broken, fetch it again", where);
        return NULL;
    }
    const Family *family = family_of_gguf(name);
    if (!family)
        err_set(err, "%s: the architecture \"%.*s\" is not supported (%s)", where,
                name.n > 100 ? 100 : (int)name.n, name.p, families_text());
    return family;
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
static Rope gguf_settings(const Gguf *gguf) {
    View text;
    json_t *object = NULL;
    if (gguf_text(gguf, "whet.rope_scaling", &text)) object = json_loadb(text.p, text.n, 0, NULL);
    Rope r = {.kind = ROPE_LLAMA3,
              .factor = json_number_value(json_object_get(object, "factor")),
              .low = json_number_value(json_object_get(object, "low_freq_factor")),
              .high = json_number_value(json_object_get(object, "high_freq_factor")),
              .original = json_number_value(json_object_get(object, "original_max_position_embeddings"))};
    json_decref(object);
    return r;
}

/* How much slower each pair turns: Llama 3's scaling, which GGUF keeps as a tensor. */
static float *llama3_factors(const Rope *r) {
    float *factors = MEM_ARRAY(float, r->turned / 2);
    for (int i = 0; i < r->turned / 2; i++) {
        double wave = 2 * 3.14159265358979323846 * pow(r->theta, 2.0 * i / r->turned);
        double smooth = (r->original / wave - r->low) / (r->high - r->low);
        factors[i] = (float)(wave < r->original / r->high  ? 1
                             : wave > r->original / r->low ? r->factor
                                                           : 1 / ((1 - smooth) / r->factor + smooth));
    }
    return factors;
}

/* A tensor of n factors, or NULL; *missing tells a file without it from a broken one. */
static float *gguf_factors(const Gguf *gguf, const char *name, int n, bool *missing, const char *where, Err *err) {
    const StoredTensor *stored = gguf_tensor(gguf, name);
    *missing = stored == NULL;
    if (!stored) return NULL;
    if (stored->type != STORED_F32 || stored->rows != 1 || stored->cols != n || n == 0) {
        err_set(err, "%s: %s is not %d F32 values: fetch the file again", where, name, n);
        return NULL;
    }
    float *factors = MEM_ARRAY(float, n);
    if (stored_row(stored, 0, factors)) return factors;
    err_set(err, "%s: %s holds NaN or infinity: fetch the file again", where, name);
    free(factors);
    return NULL;
}

/* GGUF keeps Llama 3's scaling as a tensor of factors: find the settings that give it, so that it can be saved. */
static bool llama3_find(const Gguf *gguf, Rope *rope, int head_dim, const char *where, Err *err) {
    bool missing, found = false;
    float *factors = gguf_factors(gguf, "rope_freqs.weight", rope->turned / 2, &missing, where, err);
    if (!factors) return missing;
    Rope known[] = {{.kind = ROPE_LLAMA3, .factor = 8, .low = 1, .high = 4, .original = 8192},
                    {.kind = ROPE_LLAMA3, .factor = 32, .low = 1, .high = 4, .original = 8192},
                    gguf_settings(gguf)};
    for (int k = 0; !found && k < LENGTH(known); k++) {
        known[k].turned = rope->turned, known[k].theta = rope->theta, known[k].whole = true;
        if (!rope_check(&known[k], head_dim, "", NULL)) continue;
        float *would = llama3_factors(&known[k]);
        found = true;
        for (int i = 0; i < rope->turned / 2; i++)
            found = found && fabsf(would[i] - factors[i]) <= 1e-3f * would[i];
        free(would);
        if (found) *rope = known[k];
    }
    free(factors);
    return found || err_set(err,
                            "%s: rope_freqs.weight holds a rope scaling that is not known: give the Hugging Face "
                            "folder of the model",
                            where);
}

/* Phi-3's two sets of factors. */
static bool long_find(const Gguf *gguf, const char *prefix, const Conf *conf, Rope *rope, const char *where,
                      Err *err) {
    bool missing, missing_too;
    rope->shorter = gguf_factors(gguf, "rope_factors_short.weight", rope->turned / 2, &missing, where, err);
    if (!rope->shorter && !missing) return false;
    rope->longer = gguf_factors(gguf, "rope_factors_long.weight", rope->turned / 2, &missing_too, where, err);
    if (!rope->longer && !missing_too) return false;
    if (missing && missing_too) return true;
    if (missing || missing_too)
        return err_set(err,
                       "%s: only one of rope_factors_short.weight and rope_factors_long.weight is there: fetch "
                       "the file again",
                       where);
    rope->kind = ROPE_LONG;
    rope->factor = 0;
    /* what follows from the numbers of positions need not be said */
    double attention = gguf_number(gguf, prefix, "rope.scaling.attn_factor", 0),
           factor = conf->max_positions / rope->original;
    double own = factor <= 1 ? 1 : sqrt(1 + log(factor) / log(rope->original));
    rope->attention = attention > 0 && fabs(attention - own) > 1e-6 * own ? attention : 0;
    return true;
}

static bool gguf_scaling(const Gguf *gguf, const char *prefix, Rope *rope, const char *where, Err *err) {
    char key[96];
    View kind;
    snprintf(key, sizeof key, "%s.rope.scaling.type", prefix);
    if (!gguf_text(gguf, key, &kind) || (kind.n == 4 && memcmp(kind.p, "none", 4) == 0)) return true;
    bool yarn = kind.n == 4 && memcmp(kind.p, "yarn", 4) == 0,
         linear = kind.n == 6 && memcmp(kind.p, "linear", 6) == 0;
    if (kind.n == 8 && memcmp(kind.p, "longrope", 8) == 0) return true; /* its factors are tensors */
    if (!yarn && !linear)
        return err_set(err, "%s: the rope scaling \"%.*s\" is not supported (none, linear, yarn and longrope are)",
                       where, kind.n > 60 ? 60 : (int)kind.n, kind.p);
    rope->kind = yarn ? ROPE_YARN : ROPE_LINEAR;
    rope->factor = gguf_number(gguf, prefix, "rope.scaling.factor", 0);
    rope->low = gguf_number(gguf, prefix, "rope.scaling.yarn_beta_slow", 1);
    rope->high = gguf_number(gguf, prefix, "rope.scaling.yarn_beta_fast", 32);
    return true;
}

static bool gguf_ropes(const Gguf *gguf, const Family *f, Conf *conf, const char *where, Err *err) {
    const char *prefix = f->gguf;
    Rope rope = {.whole = true, .theta = gguf_number(gguf, prefix, "rope.freq_base", 10000)};
    int original = 0;
    if (!gguf_size(gguf, prefix, "rope.dimension_count", conf->head_dim, &rope.turned, where, err) ||
        !gguf_size(gguf, prefix, "rope.scaling.original_context_length", conf->max_positions, &original, where, err))
        return false;
    rope.original = original;
    conf->n_ropes = f->local_theta > 0 ? 2 : 1;
    conf->ropes[0] = rope;
    if (!f->partial && rope.turned != conf->head_dim)
        return err_set(err, "%s: rotary positions on %d of %d values of a head are not supported", where,
                       rope.turned, conf->head_dim);
    if (rope.turned < 2 || rope.turned > conf->head_dim) return rope_check(&rope, conf->head_dim, where, err);
    if (conf->n_ropes == 2)
        conf->ropes[1] = (Rope){.whole = true,
                                .turned = conf->head_dim,
                                .theta = gguf_number(gguf, prefix, "rope.freq_base_swa", f->local_theta)};
    return gguf_scaling(gguf, prefix, &conf->ropes[0], where, err) &&
           (f->partial ? long_find(gguf, prefix, conf, &conf->ropes[0], where, err)
                       : llama3_find(gguf, &conf->ropes[0], conf->head_dim, where, err));
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
        !range_check(where, "the number of heads", conf->n_heads, 1 << 20, err))
        return false;
    int head = conf->dim / conf->n_heads;
    if (!gguf_size(gguf, prefix, "attention.key_length", head, &key_length, where, err) ||
        !gguf_size(gguf, prefix, "attention.value_length", head, &value_length, where, err))
        return false;
    if (key_length != value_length)
        return err_set(err, "%s: keys of %d and values of %d numbers a head are not supported", where, key_length,
                       value_length);
    if (experts) return err_set(err, "%s: mixtures of experts are not supported (%s)", where, families_text());
    conf->head_dim = key_length;
    return true;
}

static void gguf_tokens(const Gguf *gguf, Conf *conf) {
    static const char *const ENDS[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    conf->bos = gguf_token(gguf, "tokenizer.ggml.bos_token_id");
    conf->pad = gguf_token(gguf, "tokenizer.ggml.padding_token_id");
    for (int i = 0; i < LENGTH(ENDS); i++) {
        int id = gguf_token(gguf, ENDS[i]);
        bool there = id < 0;
        for (int k = 0; k < conf->n_eos; k++) there |= conf->eos[k] == id;
        if (!there) conf->eos[conf->n_eos++] = id;
    }
}

bool conf_from_gguf(Conf *conf, const Gguf *gguf, const char *where, Err *err) {
    *conf = (Conf){0};
    const Family *f = gguf_family(gguf, where, err);
    if (!f) return false;
    family_apply(f, conf);
    int window = 0, every = f->every;
    if (!gguf_sizes(gguf, f->gguf, conf, where, err) ||
        !gguf_size(gguf, f->gguf, "attention.sliding_window", f->attn_cap > 0 ? 4096 : 0, &window, where, err) ||
        !gguf_size(gguf, f->gguf, "attention.sliding_window_pattern", every, &every, where, err) ||
        !gguf_ropes(gguf, f, conf, where, err))
        return false;
    conf->norm_eps =
        (float)gguf_number(gguf, f->gguf, "attention.layer_norm_rms_epsilon", f->eps > 0 ? f->eps : 1e-6);
    conf->attn_scalar = known_scalar(f, conf);
    if (f->gemma) {
        conf->attn_cap = f->attn_cap;
        if (f->attn_cap > 0) conf->attn_cap = (float)gguf_number(gguf, f->gguf, "attn_logit_softcapping", 50);
        conf->final_cap = (float)gguf_number(gguf, f->gguf, "final_logit_softcapping", (double)f->final_cap);
    }
    conf->tied = gguf_tensor(gguf, "output.weight") == NULL;
    gguf_tokens(gguf, conf);
    if (!conf_check(conf, where, err)) return false;
    conf_layers(f, conf, f->gemma ? GLU_GELU : GLU_SILU);
    known_layers(f, conf, window, every);
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

static float *copy_of(const float *values, int n) {
    return memcpy(MEM_ARRAY(float, n), values, (size_t)n * sizeof *values);
}

static bool put_scaling(const Conf *conf, const Writer *w, GgufFactors factors[2], int *n_factors, Err *err) {
    char key[96];
    const Rope *r = &conf->ropes[0];
    const char *type = r->kind == ROPE_LINEAR ? "linear" : r->kind == ROPE_YARN ? "yarn" : NULL;
    int half = r->turned / 2;
    if (r->kind == ROPE_DYNAMIC || (r->kind == ROPE_YARN && (r->attention > 0 || r->mscale != 0 || !r->whole)))
        return err_set(err, "this rope scaling can't be written to a GGUF: export to hf");
    if (r->kind == ROPE_LONG && r->factor > 0 &&
        fabs(r->factor - conf->max_positions / r->original) > 1e-9 * r->factor)
        return err_set(err, "this longrope scaling's factor can't be written to a GGUF: export to hf");
    double scale = rope_speeds(conf, r, 1, (float[MOST_HALF]){0});
    if (type) {
        gguf_put_text(w->keys, key_of(key, w, "rope.scaling.type"), type, strlen(type));
        put_number(w, "rope.scaling.factor", r->factor > 0 ? r->factor : conf->max_positions / r->original);
    }
    if (r->kind == ROPE_YARN || r->kind == ROPE_LONG)
        put_size(w, "rope.scaling.original_context_length", (int)r->original);
    if (r->kind == ROPE_YARN && (r->low != 1 || r->high != 32)) {
        put_number(w, "rope.scaling.yarn_beta_slow", r->low);
        put_number(w, "rope.scaling.yarn_beta_fast", r->high);
    }
    if (r->kind == ROPE_LLAMA3) {
        json_t *settings = rope_to_json(r);
        char *text = json_dumps(settings, JSON_COMPACT);
        gguf_put_text(w->keys, "whet.rope_scaling", text, strlen(text));
        free(text);
        json_decref(settings);
        factors[(*n_factors)++] = (GgufFactors){"rope_freqs.weight", llama3_factors(r), half};
    }
    if (r->kind == ROPE_LONG) {
        put_number(w, "rope.scaling.attn_factor", scale);
        factors[(*n_factors)++] = (GgufFactors){"rope_factors_long.weight", copy_of(r->longer, half), half};
        factors[(*n_factors)++] = (GgufFactors){"rope_factors_short.weight", copy_of(r->shorter, half), half};
    }
    return true;
}

/* Whether a reader that knows only the keys, llama.cpp's or ours, would make the same layers. */
static bool layers_can_be_said(const Family *f, const Conf *conf, int window, int every, Err *err) {
    Conf would = conf_copy(conf);
    known_layers(f, &would, window, every);
    bool ok = true;
    for (int i = 0; ok && i < conf->n_layers; i++) {
        const LayerConf *a = &conf->layers[i], *b = &would.layers[i];
        if (a->rope != b->rope || a->window != b->window || a->glu != (f->gemma ? GLU_GELU : GLU_SILU))
            ok = err_set(
                err, "layer %d's window, rotary positions or activation can't be written to a GGUF: export to hf",
                i);
    }
    conf_free(&would);
    return ok;
}

bool conf_to_gguf(const Conf *conf, GgufKeys *keys, GgufFactors factors[2], int *n_factors, Err *err) {
    const Family *f = family_of_conf(conf);
    *n_factors = 0;
    int window = 0, positions = conf->max_positions;
    for (int i = 0; i < conf->n_layers; i++)
        if (conf->layers[i].window) window = conf->layers[i].window;
    Conf said = *conf;
    if (strcmp(f->gguf, "llama") == 0 &&
        window > 0) { /* llama.cpp's llama knows no window: the context ends with it */
        if (window < positions) positions = window;
        f = family_of("LlamaForCausalLM", NULL), window = 0;
        said = conf_copy(conf);
        for (int i = 0; i < conf->n_layers; i++) said.layers[i].window = 0;
    }
    bool ok = layers_can_be_said(f, &said, window, f->every, err);
    if (said.layers != conf->layers) conf_free(&said);
    if (!ok) return false;
    if (fabs(conf->attn_scalar - known_scalar(f, conf)) > 1e-9 || (f->attn_cap > 0 && !(conf->attn_cap > 0)) ||
        (f->final_cap > 0 && !(conf->final_cap > 0)))
        return err_set(err, "query_pre_attn_scalar, attn_logit_softcapping or final_logit_softcapping is not what "
                            "llama.cpp knows of this architecture, and can't be written to a GGUF: export to hf");
    if (f->attn_cap > 0 && !conf->tied)
        return err_set(err, "llama.cpp knows this architecture with tied embeddings alone: export to hf");
    Writer w = {keys, f->gguf};
    gguf_put_text(keys, "general.architecture", w.family, strlen(w.family));
    put_size(&w, "vocab_size", conf->vocab);
    put_size(&w, "context_length", positions);
    put_size(&w, "embedding_length", conf->dim);
    put_size(&w, "block_count", conf->n_layers);
    put_size(&w, "feed_forward_length", conf->hidden);
    put_size(&w, "attention.head_count", conf->n_heads);
    put_size(&w, "attention.head_count_kv", conf->n_kv_heads);
    put_size(&w, "attention.key_length", conf->head_dim);
    put_size(&w, "attention.value_length", conf->head_dim);
    put_size(&w, "rope.dimension_count", conf->ropes[0].turned);
    put_number(&w, "rope.freq_base", conf->ropes[0].theta);
    put_number(&w, "attention.layer_norm_rms_epsilon", (double)conf->norm_eps);
    if (window > 0 || f->windows == WINDOWS_ALL) put_size(&w, "attention.sliding_window", window);
    if (conf->n_ropes == 2) put_number(&w, "rope.freq_base_swa", conf->ropes[1].theta);
    if (f->attn_cap > 0) put_number(&w, "attn_logit_softcapping", (double)conf->attn_cap);
    if (f->gemma && (f->final_cap > 0 || conf->final_cap > 0))
        put_number(&w, "final_logit_softcapping", (double)conf->final_cap);
    return put_scaling(conf, &w, factors, n_factors, err);
}
