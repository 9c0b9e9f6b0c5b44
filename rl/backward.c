/* backward.c: see backward.h. */
#include "rl/backward.h"

#include <math.h>

static bool any_qk_norm(const Conf *conf) {
    bool any = false;
    for (int l = 0; l < conf->n_layers; l++) any |= conf->layers[l].qk_norm;
    return any;
}

size_t back_work_bytes(const Conf *conf, DType type, int max_rows) {
    size_t q = (size_t)conf->n_heads * (size_t)conf->head_dim,
           kv = (size_t)conf->n_kv_heads * (size_t)conf->head_dim;
    size_t low = 2 * (size_t)conf->dim + 3 * (size_t)conf->hidden + 2 * q + 2 * kv;
    size_t full = q + (any_qk_norm(conf) ? q + 2 * kv : 0);
    return (size_t)max_rows * (low * dtype_size(type) + full * sizeof(real) +
                               (size_t)lora_width(conf) * (dtype_size(type) + sizeof(real)));
}

bool back_work_open(BackWork *back, Policy *policy, int max_rows, Err *err) {
    const Conf *c = &policy->conf;
    Dev *dev = policy->dev;
    int q = c->n_heads * c->head_dim;
    *back = (BackWork){.max_rows = max_rows};
    back->dx_low = k_new(dev, max_rows, c->dim, policy->type, err);
    back->dnormed = k_new(dev, max_rows, c->dim, policy->type, err);
    back->dact = k_new(dev, max_rows, c->hidden, policy->type, err);
    back->dgate_up = k_new(dev, max_rows, 2 * c->hidden, policy->type, err);
    back->dout = k_new(dev, max_rows, q, policy->type, err);
    back->dq = k_new(dev, max_rows, q, K_REAL, err);
    if (any_qk_norm(c)) back->dturned = k_new(dev, max_rows, q + 2 * c->n_kv_heads * c->head_dim, K_REAL, err);
    back->dqkv = k_new(dev, max_rows, q + 2 * c->n_kv_heads * c->head_dim, policy->type, err);
    back->dlow_sum = k_new(dev, max_rows, lora_width(c), K_REAL, err);
    back->dlow = k_new(dev, max_rows, lora_width(c), policy->type, err);
    if (back->dlow_sum.p && back->dlow.p && back->dx_low.p && back->dnormed.p && back->dact.p &&
        back->dgate_up.p && back->dout.p && back->dq.p && back->dqkv.p && (!any_qk_norm(c) || back->dturned.p))
        return true;
    back_work_close(back, policy);
    return false;
}

void back_work_close(BackWork *back, Policy *policy) {
    Ten *all[] = {&back->dx_low, &back->dnormed,  &back->dact, &back->dgate_up, &back->dout,   &back->dq,
                  &back->dqkv,   &back->dlow_sum, &back->dlow, &back->dturned};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) k_free(policy->dev, all[i]);
}

/* ---- one product ---- */

static Ten grad_of(const Policy *policy, int param, Ten grads) {
    if (param < 0 || !policy->params.items[param].trained) return TEN_NONE;
    return params_view(&policy->params, param, grads);
}

/* Gradients of matrices that lie below each other in one product (rows of Params; -1: left out), given dy of its
 * output and its input x. Those whose gradients lie side by side are one product. */
static void back_parts(Policy *policy, const int *param, int parts, Ten grads, Ten dy, Ten x, bool fresh) {
    const Param *items = policy->params.items;
    for (int i = 0, row = 0; i < parts;) {
        Ten dw = grad_of(policy, param[i], grads);
        int rows = param[i] < 0 ? 0 : items[param[i]].rows, next = i + 1;
        while (ten_is(dw) && next < parts && param[next] >= 0) {
            const Param *last = &items[param[next - 1]], *more = &items[param[next]];
            if (!more->trained || more->offset != last->offset + (int64_t)last->rows * last->cols) break;
            rows += more->rows, next++;
        }
        dw.rows = rows;
        if (ten_is(dw)) k_matmul_dw(policy->dev, dw, ten_cols(dy, row, rows), x, fresh);
        row += rows, i = next;
    }
}

/* dlow = s dy B, of what adapters add, s (x A^T) B^T. */
static Ten dlow_of(const BackWork *back, const Linear *linear, int rows) {
    return ten_cols(ten_rows(back->dlow, 0, rows), 0, linear->low_a.n);
}

/* forward_linear's: the gradient of the input, in dx (overwritten), given dy of the output; of adapters dx += dlow
 * A. */
static void back_input(Policy *policy, const Linear *linear, Ten dx, Ten dy, BackWork *back) {
    Dev *dev = policy->dev;
    k_matmul_dx(dev, dx, dy, &linear->mat, TEN_NONE);
    if (!linear->low_a.n) return;
    Ten dlow = dlow_of(back, linear, dy.rows), dsum = ten_cols(ten_rows(back->dlow_sum, 0, dy.rows), 0, dlow.cols);
    k_matmul_dx(dev, dsum, dy, &linear->low_b, TEN_NONE);
    k_scale(dev, dlow, dsum, (real)lora_scale(&policy->conf.lora));
    k_matmul_dx(dev, dx, dlow, &linear->low_a, dx);
}

/* The gradients of adapters: dB = dy^T low with low = s x A^T made anew; dA = dlow^T x. */
static void back_low(Policy *policy, const Linear *linear, Ten grads, Ten dy, Ten x, Work *work, BackWork *back) {
    Ten low = forward_low(policy, x, linear, work);
    for (int i = 0, row = 0, col = 0; i < linear->parts; i++) {
        int rows = policy->params.items[linear->weight[i]].rows, r = policy->conf.lora.r;
        Ten db = grad_of(policy, linear->b[i], grads);
        if (ten_is(db)) k_matmul_dw(policy->dev, db, ten_cols(dy, row, rows), ten_cols(low, col, r), back->fresh);
        if (linear->b[i] >= 0) col += r;
        row += rows;
    }
    back_parts(policy, linear->a, linear->parts, grads, dlow_of(back, linear, x.rows), x, back->fresh);
}

/* forward_linear's, after back_input with the same dy: the gradients of weights, biases and adapters, given the
 * input. */
static void back_weights(Policy *policy, const Linear *linear, Ten grads, Ten dy, Ten x, Work *work,
                         BackWork *back) {
    const Param *items = policy->params.items;
    back_parts(policy, linear->weight, linear->parts, grads, dy, x, back->fresh);
    for (int i = 0, row = 0; i < linear->parts; i++) {
        int rows = items[linear->weight[i]].rows;
        Ten db = grad_of(policy, linear->bias_of[i], grads);
        if (ten_is(db)) k_bias_back(policy->dev, db, ten_cols(dy, row, rows));
        row += rows;
    }
    if (linear->low_a.n) back_low(policy, linear, grads, dy, x, work, back);
}

/* ---- one layer ---- */

/* Room for the input of a product whose forward pass is over, made again for the gradients of its weights. Adapters
 * multiply it once more. */
static Ten input_room(const Policy *policy, const Linear *linear, Ten room) {
    return linear->low_a.n ? room : ten_pairs(policy->dev, room);
}

/* What the products of a branch get of dx, the gradient of residual + norm(branch); of residual + branch they get
 * dx_low, which the op before made of dx. */
static void back_post(Policy *policy, const Norm *norm, Ten grads, BackWork *back, Ten dx, Ten branch, Ten rstd) {
    if (ten_is(norm->gain))
        k_rmsnorm_back(policy->dev, TEN_NONE, ten_rows(back->dx_low, 0, dx.rows),
                       grad_of(policy, norm->param, grads), TEN_NONE, dx, ten_rows(branch, 0, dx.rows),
                       ten_rows(rstd, 0, dx.rows), norm->gain);
}

/* out = mid + glu(norm(mid) Wgu) Wd. dx, the gradient of out, becomes that of mid. */
static void back_mlp(Policy *policy, int layer, Ten grads, int m, const LayerTape *kept, Work *work,
                     BackWork *back, Ten dx) {
    const LayerWeights *w = &policy->layers[layer];
    Dev *dev = policy->dev;
    Ten gate_up = ten_rows(kept->gate_up, 0, m), mid = ten_rows(kept->mid, 0, m),
        rstd = ten_rows(kept->rstd2, 0, m);
    Ten act = input_room(policy, &w->down, ten_rows(work->act, 0, m));
    Ten normed = input_room(policy, &w->gate_up, ten_rows(work->normed, 0, m));
    Ten dx_low = ten_rows(back->dx_low, 0, m), dact = ten_rows(back->dact, 0, m);
    Ten dgate_up = ten_rows(back->dgate_up, 0, m), dnormed = ten_rows(back->dnormed, 0, m);
    back_post(policy, &w->post2, grads, back, dx, kept->ffn, kept->rstd_ffn);
    back_input(policy, &w->down, dact, dx_low, back);
    k_glu_back(dev, dgate_up, act, dact, gate_up, policy->conf.layers[layer].glu);
    back_weights(policy, &w->down, grads, dx_low, act, work, back);
    back_input(policy, &w->gate_up, dnormed, dgate_up, back);
    k_rmsnorm_back(dev, dx, dx_low, grad_of(policy, w->norm2.param, grads), normed, dnormed, mid, rstd,
                   w->norm2.gain);
    back_weights(policy, &w->gate_up, grads, dgate_up, normed, work, back);
}

/* From the gradient of the normed heads, dturned, to that of the product, dqkv. */
static void back_heads(Policy *policy, const LayerWeights *w, Ten grads, Ten dqkv, Ten dturned,
                       const LayerTape *kept) {
    const Conf *c = &policy->conf;
    Dev *dev = policy->dev;
    int m = dqkv.rows, q = c->n_heads * c->head_dim, k = c->n_kv_heads * c->head_dim;
    Ten qk = ten_rows(kept->qk, 0, m), rstd = ten_rows(kept->rstd_qk, 0, m);
    k_rmsnorm_back(dev, TEN_NONE, ten_cols(dqkv, 0, q), grad_of(policy, w->q_norm.param, grads), TEN_NONE,
                   ten_cols(dturned, 0, q), ten_cols(qk, 0, q), ten_cols(rstd, 0, c->n_heads), w->q_norm.gain);
    k_rmsnorm_back(dev, TEN_NONE, ten_cols(dqkv, q, k), grad_of(policy, w->k_norm.param, grads), TEN_NONE,
                   ten_cols(dturned, q, k), ten_cols(qk, q, k), ten_cols(rstd, c->n_heads, c->n_kv_heads),
                   w->k_norm.gain);
    k_copy(dev, ten_cols(dqkv, q + k, k), ten_cols(dturned, q + k, k));
}

/* mid = x + attention(norm(x)). dx, the gradient of mid, becomes that of x. */
static void back_attention(Policy *policy, int layer, Ten grads, const Rows *rows, Kv *kv, Kv *dkv,
                           const LayerTape *kept, Work *work, BackWork *back, Ten dx) {
    const Conf *c = &policy->conf;
    const LayerConf *kind = &c->layers[layer];
    const LayerWeights *w = &policy->layers[layer];
    Dev *dev = policy->dev;
    int m = rows->m;
    Ten x = ten_rows(kept->x, 0, m), rstd = ten_rows(kept->rstd1, 0, m), o = ten_rows(kept->o, 0, m);
    Ten normed = input_room(policy, &w->qkv, ten_rows(work->normed, 0, m));
    Ten dx_low = ten_rows(back->dx_low, 0, m);
    Ten dout = ten_rows(back->dout, 0, m), dq = ten_rows(back->dq, 0, m), dqkv = ten_rows(back->dqkv, 0, m);
    Ten dnormed = ten_rows(back->dnormed, 0, m);
    Ten dturned = kind->qk_norm ? ten_rows(back->dturned, 0, m) : dqkv;
    bool turns = kind->rope >= 0;
    back_post(policy, &w->post1, grads, back, dx, kept->attn, kept->rstd_attn);
    back_input(policy, &w->out, dout, dx_low, back);
    back_weights(policy, &w->out, grads, dx_low, o, work, back);
    k_attend_back(dev, dq, dkv, dout, o, ten_rows(kept->lse, 0, m), ten_rows(kept->q, 0, m), kv, layer, rows,
                  (real)(1.0 / sqrt(c->attn_scalar)), (real)c->attn_cap, kind->window);
    k_qkv_back(dev, dturned, dq, dkv, layer, rows, turns ? policy->cos[kind->rope] : TEN_NONE,
               turns ? policy->sin[kind->rope] : TEN_NONE);
    if (kind->qk_norm) back_heads(policy, w, grads, dqkv, dturned, kept);
    back_input(policy, &w->qkv, dnormed, dqkv, back);
    k_rmsnorm_back(dev, dx, dx_low, grad_of(policy, w->norm1.param, grads), normed, dnormed, x, rstd, w->norm1.gain);
    back_weights(policy, &w->qkv, grads, dqkv, normed, work, back);
}

void backward(Policy *policy, Ten grads, const Rows *rows, Kv *kv, Kv *dkv, const Tape *tape, Work *work,
              BackWork *back, Ten dstream) {
    k_copy(policy->dev, ten_rows(back->dx_low, 0, rows->m), dstream);
    for (int l = policy->conf.n_layers - 1; l >= 0; l--) {
        LayerTape kept = tape->layers[l];
        if (tape->recompute) {
            kept = tape->scratch;
            kept.x = tape->layers[l].x;
            forward_layer(policy, l, rows, kv, ten_rows(kept.x, 0, rows->m), TEN_NONE, &kept, work);
        }
        back_mlp(policy, l, grads, rows->m, &kept, work, back, dstream);
        back_attention(policy, l, grads, rows, kv, dkv, &kept, work, back, dstream);
    }
    if (policy->conf.embed_scale != 1) k_scale(policy->dev, dstream, dstream, (real)policy->conf.embed_scale);
}
