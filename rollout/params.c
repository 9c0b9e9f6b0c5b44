/* params.c: the table of parameters and the weights on a device. What the rows are called and how large they are
 * follows from Conf alone. Tested by tests/test_rollout_forward.c and tests/test_rl_learn.c. */
#include "rollout/internal.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table ---- */

static bool is_frozen(const Conf *model, const PolicyConf *conf, const char *name) {
    if (!conf->train) return true;
    if (model->lora.r && !adapter_tensor(name)) return true;
    for (const char *const *p = conf->frozen; p && *p; p++)
        if (fnmatch(*p, name, 0) == 0) return true;
    return false;
}

static int param_add(Policy *policy, const PolicyConf *conf, int layer, const char *part, int rows, int cols,
                     bool is_vector) {
    Params *params = &policy->params;
    params->items = mem_grow(params->items, (size_t)params->n + 1, sizeof *params->items);
    Param *param = &params->items[params->n];
    *param = (Param){.rows = rows, .cols = cols, .is_vector = is_vector, .offset = -1, .adapter_of = -1};
    if (layer < 0)
        snprintf(param->name, sizeof param->name, "%s", part);
    else
        snprintf(param->name, sizeof param->name, "model.layers.%d.%s", layer, part);
    int64_t elements = (int64_t)rows * cols;
    params->n_all += elements;
    if (!is_frozen(&policy->conf, conf, param->name)) {
        param->trained = true;
        param->offset = params->n_trained;
        params->n_trained += (elements + 15) / 16 * 16;
    }
    return params->n++;
}

typedef struct {
    const char *name; /* without ".weight" */
    int rows;
} Part;

/* The adapters of a linear's parts: all A, then all B, so that the gradients of the A lie side by side. */
static void adapters_add(Policy *policy, const PolicyConf *conf, int layer, const Part *part, Linear *linear) {
    const Conf *c = &policy->conf;
    char name[80];
    int r = c->lora.r, *rows[2] = {linear->a, linear->b};
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < linear->parts; i++) {
            rows[side][i] = -1;
            if (!r || !(c->layers[layer].adapted & lora_bit(part[i].name))) continue;
            snprintf(name, sizeof name, "%s.lora_%c.weight", part[i].name, "AB"[side]);
            rows[side][i] = side ? param_add(policy, conf, layer, name, part[i].rows, r, false)
                                 : param_add(policy, conf, layer, name, r, linear->mat.k, false);
            policy->params.items[rows[side][i]].adapter_of = linear->weight[i];
            if (!side) linear->low_a.n += r;
        }
    linear->low_a.k = linear->mat.k;
    linear->low_b.k = linear->low_a.n;
    linear->low_b.n = linear->low_a.n ? linear->mat.n : 0;
}

static Linear linear_add(Policy *policy, const PolicyConf *conf, int layer, const Part *part, int parts, int cols,
                         bool bias) {
    Linear linear = {.parts = parts, .bias_of = {-1, -1, -1}};
    char name[80];
    for (int i = 0; i < parts; i++) {
        snprintf(name, sizeof name, "%s.weight", part[i].name);
        linear.weight[i] = param_add(policy, conf, layer, name, part[i].rows, cols, false);
        linear.mat.n += part[i].rows;
    }
    linear.mat.k = cols;
    for (int i = 0; bias && i < parts; i++) {
        snprintf(name, sizeof name, "%s.bias", part[i].name);
        linear.bias_of[i] = param_add(policy, conf, layer, name, 1, part[i].rows, true);
    }
    adapters_add(policy, conf, layer, part, &linear);
    return linear;
}

static Norm norm_add(Policy *policy, const PolicyConf *conf, int layer, const char *part, int width) {
    return (Norm){.param = param_add(policy, conf, layer, part, 1, width, true)};
}

enum { LAYER_NORMS = 6 };
static void layer_norms(LayerWeights *w, Norm *norms[LAYER_NORMS]) {
    Norm *all[LAYER_NORMS] = {&w->norm1, &w->q_norm, &w->k_norm, &w->post1, &w->norm2, &w->post2};
    for (int i = 0; i < LAYER_NORMS; i++) norms[i] = all[i];
}

static void layer_add(Policy *policy, const PolicyConf *conf, int layer) {
    const Conf *c = &policy->conf;
    const LayerConf *kind = &c->layers[layer];
    LayerWeights *w = &policy->layers[layer];
    int q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    const Part qkv[] = {{"self_attn.q_proj", q}, {"self_attn.k_proj", kv}, {"self_attn.v_proj", kv}};
    const Part out[] = {{"self_attn.o_proj", c->dim}}, down[] = {{"mlp.down_proj", c->dim}};
    const Part gate_up[] = {{"mlp.gate_proj", c->hidden}, {"mlp.up_proj", c->hidden}};
    const Part one_qkv[] = {{"self_attn.qkv_proj", q + 2 * kv}},
               one_gate_up[] = {{"mlp.gate_up_proj", 2 * c->hidden}};
    bool post = kind->post_norms;
    w->norm1 = norm_add(policy, conf, layer, "input_layernorm.weight", c->dim);
    w->qkv =
        linear_add(policy, conf, layer, kind->fused ? one_qkv : qkv, kind->fused ? 1 : 3, c->dim, kind->qkv_bias);
    w->q_norm = w->k_norm = w->post1 = w->post2 = (Norm){.param = -1};
    if (kind->qk_norm) {
        w->q_norm = norm_add(policy, conf, layer, "self_attn.q_norm.weight", c->head_dim);
        w->k_norm = norm_add(policy, conf, layer, "self_attn.k_norm.weight", c->head_dim);
    }
    w->out = linear_add(policy, conf, layer, out, 1, q, kind->out_bias);
    if (post) w->post1 = norm_add(policy, conf, layer, "post_attention_layernorm.weight", c->dim);
    w->norm2 = norm_add(policy, conf, layer,
                        post ? "pre_feedforward_layernorm.weight" : "post_attention_layernorm.weight", c->dim);
    w->gate_up = linear_add(policy, conf, layer, kind->fused ? one_gate_up : gate_up, kind->fused ? 1 : 2, c->dim,
                            kind->mlp_bias);
    w->down = linear_add(policy, conf, layer, down, 1, c->hidden, kind->mlp_bias);
    if (post) w->post2 = norm_add(policy, conf, layer, "post_feedforward_layernorm.weight", c->dim);
}

/* A policy with its table and no memory on the device. */
static Policy *policy_plan(Dev *dev, const Conf *model, const PolicyConf *conf) {
    Policy *policy = MEM_NEW(Policy);
    policy->dev = dev, policy->type = conf->type, policy->max_positions = conf->max_positions;
    policy->conf = conf_copy(model);
    const Conf *c = &policy->conf;
    policy->layers = MEM_ARRAY(LayerWeights, c->n_layers);
    policy->p_embed = param_add(policy, conf, -1, "model.embed_tokens.weight", c->vocab, c->dim, false);
    for (int l = 0; l < c->n_layers; l++) layer_add(policy, conf, l);
    policy->p_norm = param_add(policy, conf, -1, "model.norm.weight", 1, c->dim, true);
    policy->p_head = policy->p_embed;
    if (!c->tied) policy->p_head = param_add(policy, conf, -1, "lm_head.weight", c->vocab, c->dim, false);
    return policy;
}

static void policy_free_plan(Policy *policy) {
    free(policy->params.items);
    free(policy->layers);
    conf_free(&policy->conf);
    free(policy);
}

Params params_of(const Conf *model, const PolicyConf *conf) {
    Policy *policy = policy_plan(NULL, model, conf);
    Params params = policy->params;
    policy->params.items = NULL;
    policy_free_plan(policy);
    return params;
}

void params_free(Params *params) {
    free(params->items);
    *params = (Params){0};
}

Ten params_view(const Params *params, int param, Ten buffer) {
    const Param *p = &params->items[param];
    CHECK(p->trained && ten_is(buffer), "%s has no place in the trained buffers", p->name);
    Ten at = ten_rows(buffer, (int)(p->offset / 16), (p->rows * p->cols + 15) / 16);
    return (Ten){at.p, p->rows, p->cols, p->cols, at.type};
}

Ten policy_master(const Policy *policy, int param) { return params_view(&policy->params, param, policy->master); }

/* ---- memory ---- */

/* The i-th matrix: 0 the embedding, 1 the head, then of each layer four weights, each with its two of adapters.
 * NULL past the last; what does not exist has n = 0: the head of a tied model, adapters. */
static Mat *policy_mat(Policy *policy, int i, const PolicyConf *conf, int *n, int *k, bool *with_back) {
    const Conf *c = &policy->conf;
    *with_back = conf->train;
    if (i < 2) {
        *n = i == 1 && c->tied ? 0 : c->vocab, *k = c->dim;
        if (i == 0 && !c->tied) *with_back = false; /* nothing flows back through a look-up */
        return i == 0 ? &policy->embed : &policy->head;
    }
    int layer = (i - 2) / 12, kind = (i - 2) % 3;
    if (layer >= c->n_layers) return NULL;
    LayerWeights *w = &policy->layers[layer];
    Linear *linear = (Linear *[]){&w->qkv, &w->out, &w->gate_up, &w->down}[(i - 2) % 12 / 3];
    Mat *mat = kind == 0 ? &linear->mat : kind == 1 ? &linear->low_a : &linear->low_b;
    *n = kind == 0 && conf->int8 && !conf->train ? 0 : mat->n, *k = mat->k;
    return mat;
}

/* All matrices of int8, in the order of their use: four of each layer. Not the head: its error would go into the
 * log-probs as it is, and where it is the embedding too, the exact one must be there anyway. */
static int int8_mats(Policy *policy, Mat **mats) {
    int n = 0;
    for (int l = 0; l < policy->conf.n_layers; l++) {
        LayerWeights *w = &policy->layers[l];
        Linear *linear[4] = {&w->qkv, &w->out, &w->gate_up, &w->down};
        for (int i = 0; i < 4; i++) {
            linear[i]->int8.n = linear[i]->mat.n, linear[i]->int8.k = linear[i]->mat.k;
            mats[n++] = &linear[i]->int8;
        }
    }
    return n;
}

static int vectors_size(const Policy *policy) {
    int n = 0;
    for (int i = 0; i < policy->params.n; i++)
        if (policy->params.items[i].is_vector) n += policy->params.items[i].cols;
    return n;
}

/* Elements of `block`: the largest low_b that has the B of several parts. */
static int block_size(const Policy *policy) {
    int size = 0;
    for (int l = 0; l < policy->conf.n_layers; l++) {
        const LayerWeights *w = &policy->layers[l];
        const Linear *linear[4] = {&w->qkv, &w->out, &w->gate_up, &w->down};
        for (int i = 0; i < 4; i++) {
            int all = linear[i]->low_b.n * linear[i]->low_b.k;
            if (linear[i]->low_b.k > policy->conf.lora.r && all > size) size = all;
        }
    }
    return size;
}

/* Elements through which frozen parameters are loaded: some rows of the widest. 0: all are trained. */
static int slab_size(const Policy *policy) {
    enum { SLAB = 1 << 20 };
    int64_t size = 0;
    for (int i = 0; i < policy->params.n; i++) {
        const Param *p = &policy->params.items[i];
        int64_t all = (int64_t)p->rows * p->cols, some = all < SLAB ? all : p->cols < SLAB ? SLAB : p->cols;
        if (!p->trained && some > size) size = some;
    }
    return (int)size;
}

static int ones_size(const Conf *c) {
    return !c->norms_from_one ? 0 : c->dim > c->head_dim ? c->dim : c->head_dim;
}

size_t policy_bytes(const Dev *dev, const Conf *conf, const PolicyConf *policy_conf) {
    Policy *policy = policy_plan((Dev *)dev, conf, policy_conf);
    size_t bytes = (size_t)policy->params.n_trained * sizeof(real) + (size_t)vectors_size(policy) * sizeof(real);
    bytes += ((size_t)slab_size(policy) + (size_t)block_size(policy)) * sizeof(real);
    for (int i = 0; i < conf->n_ropes; i++)
        bytes += 2 * (size_t)policy_conf->max_positions * (size_t)(conf->ropes[i].turned / 2) * sizeof(real);
    bytes += (size_t)ones_size(conf) * sizeof(real);
    int n, k;
    bool back;
    for (int i = 0; policy_mat(policy, i, policy_conf, &n, &k, &back); i++)
        if (n) bytes += k_mat_bytes(dev, n, k, policy_conf->type, back);
    Mat **mats = MEM_ARRAY(Mat *, 4 * conf->n_layers);
    for (int i = policy_conf->int8 ? int8_mats(policy, mats) : 0; i-- > 0;)
        bytes += k_mat_bytes_int8(dev, mats[i]->n, mats[i]->k);
    free(mats);
    policy_free_plan(policy);
    return bytes;
}

/* Every vector gets its place in `vectors`; a layer's biases of one product lie side by side there. */
static void place_vectors(Policy *policy) {
    int at = 0;
    Ten all = policy->vectors;
    for (int l = 0; l < policy->conf.n_layers; l++) {
        LayerWeights *w = &policy->layers[l];
        Norm *norms[LAYER_NORMS];
        layer_norms(w, norms);
        for (int i = 0; i < LAYER_NORMS; i++) {
            if (norms[i]->param < 0) continue;
            int width = policy->params.items[norms[i]->param].cols;
            norms[i]->gain = ten_cols(all, at, width), at += width;
        }
        Linear *linear[4] = {&w->qkv, &w->out, &w->gate_up, &w->down};
        for (int i = 0; i < 4; i++)
            if (linear[i]->bias_of[0] >= 0)
                linear[i]->bias = ten_cols(all, at, linear[i]->mat.n), at += linear[i]->mat.n;
    }
    policy->norm = ten_cols(all, at, policy->conf.dim);
}

/* cos and sin of position * speed, the product rounded to float32 as transformers does. */
static bool make_rotary(Policy *policy, int table, int positions, Err *err) {
    const Conf *c = &policy->conf;
    const Rope *rope = &c->ropes[table];
    int half = rope->turned / 2;
    Ten *cosine = &policy->cos[table], *sine = &policy->sin[table];
    *cosine = k_new(policy->dev, positions, half, K_REAL, err);
    *sine = k_new(policy->dev, positions, half, K_REAL, err);
    if (!cosine->p || !sine->p) return false;
    real *cosines = MEM_ARRAY(real, (size_t)positions * (size_t)half),
         *sines = MEM_ARRAY(real, (size_t)positions * (size_t)half);
    float *speeds = MEM_ARRAY(float, half);
    double scale = rope_speeds(c, rope, positions, speeds);
    for (int p = 0; p < positions; p++)
        for (int i = 0; i < half; i++) {
            float angle = (float)p * speeds[i];
            cosines[p * half + i] = (real)(cos((double)angle) * scale);
            sines[p * half + i] = (real)(sin((double)angle) * scale);
        }
    k_put(policy->dev, *cosine, cosines);
    k_put(policy->dev, *sine, sines);
    free(cosines);
    free(sines);
    free(speeds);
    return true;
}

static bool make_ones(Policy *policy, Err *err) {
    int n = ones_size(&policy->conf);
    if (n == 0) return true;
    policy->ones = k_new(policy->dev, 1, n, K_REAL, err);
    if (!policy->ones.p) return false;
    real *ones = MEM_ARRAY(real, n);
    for (int i = 0; i < n; i++) ones[i] = 1;
    k_put(policy->dev, policy->ones, ones);
    free(ones);
    return true;
}

static bool matrices_memory(Policy *policy, const PolicyConf *conf, Err *err) {
    int n_mats = 0, most = 2 + 12 * policy->conf.n_layers, n, k;
    Mat **mats = MEM_ARRAY(Mat *, most), *mat;
    bool *with_back = MEM_ARRAY(bool, most), back;
    for (int i = 0; (mat = policy_mat(policy, i, conf, &n, &k, &back)) != NULL; i++) {
        if (!n) continue;
        mat->n = n, mat->k = k;
        with_back[n_mats] = back, mats[n_mats++] = mat;
    }
    bool ok = k_mats_new(policy->dev, &policy->matrices, mats, with_back, n_mats, conf->type, err);
    if (ok && conf->int8)
        ok = k_mats_new_int8(policy->dev, &policy->int8s, mats, int8_mats(policy, mats), conf->type, err);
    if (policy->conf.tied) policy->head = policy->embed;
    free(mats), free(with_back);
    return ok;
}

static bool policy_memory(Policy *policy, const PolicyConf *conf, Err *err) {
    Dev *dev = policy->dev;
    if (!matrices_memory(policy, conf, err)) return false;
    policy->vectors = k_new(dev, 1, vectors_size(policy), K_REAL, err);
    if (!policy->vectors.p) return false;
    place_vectors(policy);
    if (block_size(policy)) {
        policy->block = k_new(dev, 1, block_size(policy), K_REAL, err);
        if (!policy->block.p) return false;
    }
    if (policy->params.n_trained) {
        policy->master = k_new(dev, (int)(policy->params.n_trained / 16), 16, K_REAL, err);
        if (!policy->master.p) return false;
    }
    for (int i = 0; i < policy->conf.n_ropes; i++)
        if (!make_rotary(policy, i, conf->max_positions, err)) return false;
    return make_ones(policy, err);
}

void policy_close(Policy *policy) {
    if (!policy) return;
    Dev *dev = policy->dev;
    k_mats_free(dev, &policy->matrices);
    k_mats_free(dev, &policy->int8s);
    k_free(dev, &policy->vectors);
    k_free(dev, &policy->block);
    k_free(dev, &policy->master);
    for (int i = 0; i < 2; i++) k_free(dev, &policy->cos[i]), k_free(dev, &policy->sin[i]);
    k_free(dev, &policy->ones);
    policy_free_plan(policy);
}

/* ---- filling ---- */

static void pack_norm(Policy *policy, Ten gain, Ten w) {
    k_copy(policy->dev, gain, w);
    if (ten_is(policy->ones)) k_add(policy->dev, gain, ten_cols(policy->ones, 0, gain.cols));
}

/* w, rows row0 .. of the B of a part, whose columns begin at `col`. */
static void pack_b(Policy *policy, Linear *linear, Ten w, int row0, int col) {
    int k = linear->low_b.k;
    if (k > w.cols) {
        Ten block = ten_shape(ten_cols(policy->block, 0, w.rows * k), w.rows, k);
        k_zero(policy->dev, block);
        k_copy(policy->dev, ten_cols(block, col, w.cols), w);
        w = block;
    }
    k_mat_pack(policy->dev, &linear->low_b, w, row0);
}

/* Puts w, rows row0 .. of a parameter, where the products read it. */
static void pack_param(Policy *policy, int param, Ten w, int row0) {
    Dev *dev = policy->dev;
    if (param == policy->p_embed) k_mat_pack(dev, &policy->embed, w, row0);
    if (param == policy->p_head && !policy->conf.tied) k_mat_pack(dev, &policy->head, w, row0);
    if (param == policy->p_norm) pack_norm(policy, policy->norm, w);
    for (int l = 0; l < policy->conf.n_layers; l++) {
        LayerWeights *lw = &policy->layers[l];
        if (param < lw->norm1.param) return; /* parameters are in the order of the layers */
        Norm *norms[LAYER_NORMS];
        layer_norms(lw, norms);
        for (int i = 0; i < LAYER_NORMS; i++)
            if (param == norms[i]->param) pack_norm(policy, norms[i]->gain, w);
        Linear *linear[4] = {&lw->qkv, &lw->out, &lw->gate_up, &lw->down};
        for (int i = 0; i < 4; i++)
            for (int part = 0, row = 0, low = 0; part < linear[i]->parts; part++) {
                if (param == linear[i]->weight[part]) {
                    if (ten_is(linear[i]->mat.fwd)) k_mat_pack(dev, &linear[i]->mat, w, row + row0);
                    if (ten_is(linear[i]->int8.fwd)) k_mat_pack(dev, &linear[i]->int8, w, row + row0);
                }
                if (param == linear[i]->bias_of[part]) k_copy(dev, ten_cols(linear[i]->bias, row, w.cols), w);
                if (param == linear[i]->a[part]) k_mat_pack(dev, &linear[i]->low_a, w, low + row0);
                if (param == linear[i]->b[part]) pack_b(policy, linear[i], w, row + row0, low);
                if (linear[i]->a[part] >= 0) low += policy->conf.lora.r;
                row += policy->params.items[linear[i]->weight[part]].rows;
            }
    }
}

void policy_pack(Policy *policy) {
    for (int i = 0; i < policy->params.n; i++)
        if (policy->params.items[i].trained) pack_param(policy, i, policy_master(policy, i), 0);
}

/* Gives host values of a parameter: from a file or from a generator. */
typedef bool Filler(void *self, const Param *param, float *out, Err *err);

/* A frozen parameter passes through the slab on its way to the compute copy, some rows at a time. */
static void fill_frozen(Policy *policy, int param, Ten slab, const real *host) {
    const Param *p = &policy->params.items[param];
    int step = slab.cols / p->cols;
    for (int row = 0; row < p->rows; row += step) {
        int n = p->rows - row < step ? p->rows - row : step;
        Ten w = ten_shape(ten_cols(slab, 0, n * p->cols), n, p->cols);
        k_put(policy->dev, w, host + (size_t)row * (size_t)p->cols);
        pack_param(policy, param, w, row);
    }
}

static bool policy_fill(Policy *policy, Filler *fill, void *self, Err *err) {
    int slab_cols = slab_size(policy);
    Ten slab = slab_cols ? k_new(policy->dev, 1, slab_cols, K_REAL, err) : TEN_NONE;
    if (slab_cols && !slab.p) return false;
    size_t most = 0;
    for (int i = 0; i < policy->params.n; i++) {
        size_t elements = (size_t)policy->params.items[i].rows * (size_t)policy->params.items[i].cols;
        if (elements > most) most = elements;
    }
    float *host = MEM_ARRAY(float, most);
    real *wide = sizeof(real) == sizeof(float) ? (real *)(void *)host : MEM_ARRAY(real, most);
    bool good = true;
    for (int i = 0; good && i < policy->params.n; i++) {
        const Param *param = &policy->params.items[i];
        size_t elements = (size_t)param->rows * (size_t)param->cols;
        good = fill(self, param, host, err);
        if (!good) break;
        if (sizeof(real) != sizeof(float))
            for (size_t j = 0; j < elements; j++) wide[j] = (real)host[j];
        if (param->trained) {
            k_put(policy->dev, policy_master(policy, i), wide);
            pack_param(policy, i, policy_master(policy, i), 0);
        } else {
            fill_frozen(policy, i, slab, wide);
        }
    }
    k_free(policy->dev, &slab);
    if ((void *)wide != (void *)host) free(wide);
    free(host);
    return good;
}

static bool fill_from_file(void *self, const Param *param, float *out, Err *err) {
    return model_file_read(self, param->name, param->rows, param->cols, out, err);
}

static bool fill_random(void *self, const Param *param, float *out, Err *err) {
    (void)err;
    Rng *rng = self;
    bool norm = param->is_vector && strstr(param->name, "norm");
    for (size_t i = 0; i < (size_t)param->rows * (size_t)param->cols; i++)
        out[i] = (float)((norm ? 1.0 : 0.0) + (param->is_vector ? 0.1 : 0.05) * rng_normal(rng));
    return true;
}

static Policy *policy_make(Dev *dev, const Conf *model, const PolicyConf *conf, Filler *fill, void *self,
                           Err *err) {
    Policy *policy = policy_plan(dev, model, conf);
    if (policy_memory(policy, conf, err) && policy_fill(policy, fill, self, err)) return policy;
    policy_close(policy);
    return NULL;
}

Policy *policy_load(Dev *dev, const ModelFile *file, const PolicyConf *conf, Err *err) {
    Policy *policy = policy_make(dev, model_file_conf(file), conf, fill_from_file, (void *)file, err);
    if (policy) policy->file = file;
    return policy;
}

Policy *policy_random(Dev *dev, const Conf *model, const PolicyConf *conf, uint64_t seed, Err *err) {
    Rng rng = {seed, 0};
    return policy_make(dev, model, conf, fill_random, &rng, err);
}

bool policy_read(void *self, int param, float *out, Err *err) {
    Policy *policy = self;
    const Param *p = &policy->params.items[param];
    if (!p->trained) {
        CHECK(policy->file, "%s is frozen and came from no file", p->name);
        return model_file_read(policy->file, p->name, p->rows, p->cols, out, err);
    }
    if (sizeof(real) == sizeof(float)) {
        k_get(policy->dev, out, policy_master(policy, param));
        return true;
    }
    size_t elements = (size_t)p->rows * (size_t)p->cols;
    real *wide = MEM_ARRAY(real, elements);
    k_get(policy->dev, wide, policy_master(policy, param));
    for (size_t i = 0; i < elements; i++) out[i] = (float)wide[i];
    free(wide);
    return true;
}
