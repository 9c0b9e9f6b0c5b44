/* rope.c: tables of rotary positions: their speeds, and their settings out of and into config.json.
 *
 * In float32 and step by step as transformers computes them (modeling_rope_utils.py), so that positions turn by
 * the same angles. A scalar divided by a tensor is a product with the reciprocal there. Tested by
 * tests/test_rollout_files.c and tests/test_rollout_families.c.
 */
#include "rollout/internal.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- speeds ---- */

static const double PI = 3.14159265358979323846;

/* Llama 3.1: slow pairs are stretched by the factor, fast ones not at all, those between in between. */
static float llama3_speed(float speed, const Rope *r) {
    float factor = (float)r->factor, wave = (1.0f / speed) * (float)(2 * PI);
    float longest = (float)(r->original / r->low), shortest = (float)(r->original / r->high);
    float slow = wave > longest ? speed / factor : speed;
    if (wave < shortest || wave > longest) return slow;
    float smooth = ((1.0f / wave) * (float)r->original - (float)r->low) / (float)(r->high - r->low);
    return (1.0f - smooth) * slow / factor + smooth * slow;
}

/* YaRN (Peng et al. 2023): the pair at which a position turns so many times within the first training. */
static double yarn_pair(const Rope *r, double turns) {
    return r->turned * log(r->original / (turns * 2 * PI)) / (2 * log(r->theta));
}

static void yarn_speeds(const Rope *r, double factor, const float *powers, float *speeds) {
    double low = yarn_pair(r, r->high), high = yarn_pair(r, r->low);
    if (r->whole) low = floor(low), high = ceil(high);
    low = low < 0 ? 0 : low, high = high > r->turned - 1 ? r->turned - 1 : high;
    if (low == high) high += 0.001;
    for (int i = 0; i < r->turned / 2; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1.0f - (ramp < 0 ? 0 : ramp > 1 ? 1 : ramp);
        float stretched = 1.0f / ((float)factor * powers[i]), plain = 1.0f / powers[i];
        speeds[i] = stretched * (1.0f - keep) + plain * keep;
    }
}

static double yarn_scale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1; }

static double scale_of(const Conf *conf, const Rope *r) {
    double factor = r->factor > 0 ? r->factor : conf->max_positions / r->original;
    if (r->kind != ROPE_YARN && r->kind != ROPE_LONG) return 1;
    if (r->attention > 0) return r->attention;
    if (r->kind == ROPE_LONG) return factor <= 1 ? 1 : sqrt(1 + log(factor) / log(r->original));
    if (r->mscale != 0 && r->mscale_all != 0)
        return yarn_scale(factor, r->mscale) / yarn_scale(factor, r->mscale_all);
    return yarn_scale(factor, 1);
}

double rope_speeds(const Conf *conf, const Rope *r, int positions, float *speeds) {
    int half = r->turned / 2;
    double theta = r->theta, factor = r->factor > 0 ? r->factor : conf->max_positions / r->original;
    if (r->kind == ROPE_DYNAMIC && positions > conf->max_positions)
        theta *= pow(r->factor * positions / conf->max_positions - (r->factor - 1), r->turned / (r->turned - 2.0));
    float *powers = MEM_ARRAY(float, half);
    for (int i = 0; i < half; i++) powers[i] = (float)pow(theta, (double)((float)(2 * i) / (float)r->turned));
    for (int i = 0; i < half; i++) {
        speeds[i] = 1.0f / powers[i];
        if (r->kind == ROPE_LINEAR) speeds[i] /= (float)r->factor;
        if (r->kind == ROPE_LLAMA3) speeds[i] = llama3_speed(speeds[i], r);
        if (r->kind == ROPE_LONG)
            speeds[i] = 1.0f / ((positions > r->original ? r->longer : r->shorter)[i] * powers[i]);
    }
    if (r->kind == ROPE_YARN) yarn_speeds(r, factor, powers, speeds);
    free(powers);
    return scale_of(conf, r);
}

/* ---- checks ---- */

bool rope_check(const Rope *r, int head_dim, const char *where, Err *err) {
    if (r->turned < 2 || r->turned > head_dim || r->turned % 2)
        return err_set(err,
                       "%s: rotary positions on %d of %d values of a head are not supported (2, 4, ... %d are)",
                       where, r->turned, head_dim, head_dim / 2 * 2);
    if (!number_check(where, "rope_theta", r->theta, 1, 1e15, err)) return false;
    if (r->kind == ROPE_DEFAULT) return true;
    bool own = r->factor == 0 && (r->kind == ROPE_LONG || r->kind == ROPE_YARN); /* positions / original */
    if (!own && !number_check(where, "the rope scaling's factor", r->factor, 1e-3, 1e6, err)) return false;
    if (r->kind == ROPE_LINEAR) return true;
    if (r->kind == ROPE_DYNAMIC)
        return r->turned > 2 || err_set(err, "%s: dynamic rope scaling needs more than two turning values", where);
    if (!number_check(where, "the rope scaling's original_max_position_embeddings", r->original, 1, 1e9, err))
        return false;
    if (r->kind == ROPE_LLAMA3)
        return number_check(where, "the rope scaling's low_freq_factor", r->low, 1e-3, 1e6, err) &&
               number_check(where, "the rope scaling's high_freq_factor", r->high, r->low * 1.0001, 1e6, err);
    if (!number_check(where, "the rope scaling's attention_factor", r->attention, 0, 1e3, err)) return false;
    if (r->kind == ROPE_YARN)
        return number_check(where, "the rope scaling's beta_slow", r->low, 1e-6, 1e6, err) &&
               number_check(where, "the rope scaling's beta_fast", r->high, 1e-6, 1e6, err) &&
               number_check(where, "the rope scaling's mscale", r->mscale, 0, 1e3, err) &&
               number_check(where, "the rope scaling's mscale_all_dim", r->mscale_all, 0, 1e3, err) &&
               number_check(where, "rope_theta", r->theta, 1.0001, 1e15, err);
    for (int i = 0; i < r->turned / 2; i++)
        if (!number_check(where, "one of the rope scaling's short_factor", (double)r->shorter[i], 1e-6, 1e9,
                          err) ||
            !number_check(where, "one of the rope scaling's long_factor", (double)r->longer[i], 1e-6, 1e9, err))
            return false;
    return true;
}

Rope rope_copy(const Rope *rope) {
    Rope copy = *rope;
    size_t half = (size_t)rope->turned / 2;
    if (rope->shorter) copy.shorter = memcpy(MEM_ARRAY(float, half), rope->shorter, half * sizeof(float));
    if (rope->longer) copy.longer = memcpy(MEM_ARRAY(float, half), rope->longer, half * sizeof(float));
    return copy;
}

void rope_free(Rope *rope) {
    free(rope->shorter);
    free(rope->longer);
    *rope = (Rope){0};
}

/* ---- config.json ---- */

static const struct {
    const char *name;
    RopeKind kind;
} KINDS[] = {{"default", ROPE_DEFAULT}, {"linear", ROPE_LINEAR}, {"dynamic", ROPE_DYNAMIC}, {"yarn", ROPE_YARN},
             {"longrope", ROPE_LONG},   {"su", ROPE_LONG},       {"llama3", ROPE_LLAMA3}};
enum { N_KINDS = sizeof KINDS / sizeof *KINDS };

static const char *kind_name(RopeKind kind) {
    for (int i = 0; i < N_KINDS; i++)
        if (KINDS[i].kind == kind) return KINDS[i].name;
    CHECK(false, "kind %d", (int)kind);
}

/* turned/2 numbers. */
static bool factors_read(const json_t *settings, const char *key, int half, float **out, const char *where,
                         Err *err) {
    const json_t *list = json_object_get(settings, key), *item;
    size_t i;
    if (!json_is_array(list) || json_array_size(list) != (size_t)half)
        return err_set(err, "%s: the rope scaling's %s is no list of %d numbers: the file is broken", where, key,
                       half);
    *out = MEM_ARRAY(float, half);
    json_array_foreach(list, i, item) {
        if (!json_is_number(item))
            return err_set(err, "%s: the rope scaling's %s is no list of numbers: the file is broken", where, key);
        (*out)[i] = (float)json_number_value(item);
    }
    return true;
}

static bool kind_read(const json_t *settings, RopeKind *kind, const char *where, Err *err) {
    const json_t *value = json_object_get(settings, "rope_type");
    if (!value) value = json_object_get(settings, "type");
    const char *name = value ? json_string_value(value) : "default";
    for (int i = 0; i < N_KINDS; i++)
        if (name && strcmp(name, KINDS[i].name) == 0) {
            *kind = KINDS[i].kind;
            return true;
        }
    return err_set(err,
                   "%s: the rope scaling \"%.60s\" is not supported (default, linear, dynamic, yarn, longrope and "
                   "llama3 are)",
                   where, name ? name : "?");
}

bool rope_from_json(Rope *r, const json_t *settings, double theta, double original, double part, int head_dim,
                    const char *where, Err *err) {
    double share = part;
    *r = (Rope){.whole = true};
    if (settings && !json_is_null(settings) && !json_is_object(settings))
        return err_set(err, "%s: rope_parameters or rope_scaling is no object: the file is broken", where);
    if (!kind_read(settings, &r->kind, where, err) ||
        !json_number(settings, "rope_theta", theta, &r->theta, where, err) ||
        !json_number(settings, "partial_rotary_factor", part, &share, where, err) ||
        !number_check(where, "partial_rotary_factor", share, 0, 1, err))
        return false;
    r->turned = (int)(head_dim * share);
    if (part == 0) r->turned = head_dim; /* a family whose heads turn as a whole */
    if (part == 0 && share != 0 && share != 1)
        return err_set(err, "%s: partial_rotary_factor %g is not supported for this architecture", where, share);
    if (r->kind == ROPE_DEFAULT) return true;
    bool yarn = r->kind == ROPE_YARN;
    const json_t *truncate = json_object_get(settings, "truncate");
    if (json_is_false(truncate)) r->whole = false;
    if (!json_number(settings, "factor", 0, &r->factor, where, err) ||
        !json_number(settings, "original_max_position_embeddings", original, &r->original, where, err) ||
        !json_number(settings, yarn ? "beta_slow" : "low_freq_factor", yarn ? 1 : 0, &r->low, where, err) ||
        !json_number(settings, yarn ? "beta_fast" : "high_freq_factor", yarn ? 32 : 0, &r->high, where, err) ||
        !json_number(settings, "attention_factor", 0, &r->attention, where, err) ||
        !json_number(settings, "mscale", 0, &r->mscale, where, err) ||
        !json_number(settings, "mscale_all_dim", 0, &r->mscale_all, where, err))
        return false;
    int half = r->turned / 2;
    return r->kind != ROPE_LONG || (factors_read(settings, "short_factor", half, &r->shorter, where, err) &&
                                    factors_read(settings, "long_factor", half, &r->longer, where, err));
}

static json_t *factors_json(const float *factors, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_of_float(factors[i]));
    return list;
}

static void put_number(json_t *object, const char *key, double value) {
    json_object_set_new(object, key, json_real(value));
}

json_t *rope_to_json(const Rope *r) {
    if (r->kind == ROPE_DEFAULT) return json_null();
    json_t *s = json_object();
    bool is_long = r->kind == ROPE_LONG;
    json_object_set_new(s, is_long ? "type" : "rope_type", json_string(kind_name(r->kind)));
    if (r->factor > 0) put_number(s, "factor", r->factor);
    if (r->kind == ROPE_LLAMA3 || r->kind == ROPE_YARN) {
        put_number(s, r->kind == ROPE_YARN ? "beta_slow" : "low_freq_factor", r->low);
        put_number(s, r->kind == ROPE_YARN ? "beta_fast" : "high_freq_factor", r->high);
        json_object_set_new(s, "original_max_position_embeddings", json_integer((json_int_t)r->original));
    }
    if (r->attention > 0) put_number(s, "attention_factor", r->attention);
    if (r->mscale != 0) put_number(s, "mscale", r->mscale);
    if (r->mscale_all != 0) put_number(s, "mscale_all_dim", r->mscale_all);
    if (!r->whole) json_object_set_new(s, "truncate", json_false());
    if (is_long) {
        json_object_set_new(s, "short_factor", factors_json(r->shorter, r->turned / 2));
        json_object_set_new(s, "long_factor", factors_json(r->longer, r->turned / 2));
    }
    return s;
}
