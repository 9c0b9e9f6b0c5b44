/* forward.c: the only forward pass of the program. With a KV cache alone it decodes; with a tape it keeps what
 * rl/backward.c needs, which mirrors this file function by function. Tested by tests/test_rollout_forward.c. */
#include "rollout/rollout.h"

#include <math.h>
#include <stdlib.h>

static Ten first_rows(Ten t, int m) { return ten_is(t) ? ten_rows(t, 0, m) : t; }

Ten forward_low(Policy *policy, Ten x, const Linear *linear, Work *work) {
    Ten sum = ten_cols(ten_rows(work->low_sum, 0, x.rows), 0, linear->low_a.n),
        low = ten_cols(ten_rows(work->low, 0, x.rows), 0, linear->low_a.n);
    k_matmul(policy->dev, sum, x, &linear->low_a, TEN_NONE, TEN_NONE);
    k_scale(policy->dev, low, sum, (real)lora_scale(&policy->conf.lora));
    return low;
}

/* What the adapters add comes first: where y is bf16, it is their small part that is rounded before the sum. */
void forward_linear(Policy *policy, Ten y, Ten x, const Linear *linear, Ten residual, Work *work) {
    if (linear->low_a.n && !policy->adapters_off) {
        k_matmul(policy->dev, y, forward_low(policy, x, linear, work), &linear->low_b, TEN_NONE, residual);
        residual = y;
    }
    k_matmul(policy->dev, y, x, work->int8 ? &linear->int8 : &linear->mat, linear->bias, residual);
}

/* q and k, heads normed one by one, in place; what they were is kept for backward. */
static void norm_heads(Policy *policy, const LayerWeights *w, Ten qkv, const LayerTape *kept) {
    const Conf *c = &policy->conf;
    Dev *dev = policy->dev;
    int q = c->n_heads * c->head_dim, k = c->n_kv_heads * c->head_dim;
    Ten rstd = first_rows(kept->rstd_qk, qkv.rows), rstd_q = rstd, rstd_k = rstd;
    if (ten_is(rstd)) rstd_q = ten_cols(rstd, 0, c->n_heads), rstd_k = ten_cols(rstd, c->n_heads, c->n_kv_heads);
    if (ten_is(kept->qk)) k_copy(dev, ten_rows(kept->qk, 0, qkv.rows), ten_cols(qkv, 0, q + k));
    Ten qs = ten_cols(qkv, 0, q), ks = ten_cols(qkv, q, k);
    k_rmsnorm(dev, qs, rstd_q, qs, w->q_norm.gain, TEN_NONE, (real)c->norm_eps);
    k_rmsnorm(dev, ks, rstd_k, ks, w->k_norm.gain, TEN_NONE, (real)c->norm_eps);
}

/* mid = x + attention(norm(x)), or x + norm(attention(norm(x))) */
static void forward_attention(Policy *policy, int layer, const Rows *rows, Kv *kv, Ten x, const LayerTape *kept,
                              Work *work) {
    const Conf *c = &policy->conf;
    const LayerConf *kind = &c->layers[layer];
    const LayerWeights *w = &policy->layers[layer];
    Dev *dev = policy->dev;
    int m = rows->m;
    Ten normed = ten_rows(work->normed, 0, m), qkv = ten_rows(work->qkv, 0, m);
    Ten mid = ten_rows(kept->mid, 0, m), o = ten_rows(kept->o, 0, m), q = ten_rows(kept->q, 0, m);
    bool turns = kind->rope >= 0;
    k_rmsnorm(dev, normed, first_rows(kept->rstd1, m), x, w->norm1.gain, TEN_NONE, (real)c->norm_eps);
    forward_linear(policy, qkv, normed, &w->qkv, TEN_NONE, work);
    if (kind->qk_norm) norm_heads(policy, w, qkv, kept);
    k_qkv(dev, q, kv, layer, qkv, rows, turns ? policy->cos[kind->rope] : TEN_NONE,
          turns ? policy->sin[kind->rope] : TEN_NONE);
    k_attend(dev, o, first_rows(kept->lse, m), q, kv, layer, rows, (real)(1.0 / sqrt(c->attn_scalar)),
             (real)c->attn_cap, kind->window);
    if (!kind->post_norms) {
        forward_linear(policy, mid, o, &w->out, x, work);
        return;
    }
    Ten attn = ten_rows(kept->attn, 0, m);
    forward_linear(policy, attn, o, &w->out, TEN_NONE, work);
    k_rmsnorm(dev, mid, first_rows(kept->rstd_attn, m), attn, w->post1.gain, x, (real)c->norm_eps);
}

/* gate_up = norm(mid) W; out = mid + glu(gate_up) W, or mid + norm(glu(gate_up) W) */
static void forward_mlp(Policy *policy, int layer, int m, Ten out, const LayerTape *kept, Work *work) {
    const LayerConf *kind = &policy->conf.layers[layer];
    const LayerWeights *w = &policy->layers[layer];
    Dev *dev = policy->dev;
    Ten normed = ten_rows(work->normed, 0, m), act = ten_rows(work->act, 0, m), mid = ten_rows(kept->mid, 0, m);
    Ten gate_up = ten_rows(kept->gate_up, 0, m);
    real eps = (real)policy->conf.norm_eps;
    k_rmsnorm(dev, normed, first_rows(kept->rstd2, m), mid, w->norm2.gain, TEN_NONE, eps);
    forward_linear(policy, gate_up, normed, &w->gate_up, TEN_NONE, work);
    if (!ten_is(out) && !kind->post_norms) return;
    k_glu(dev, act, gate_up, kind->glu);
    if (!kind->post_norms) {
        forward_linear(policy, out, act, &w->down, mid, work);
        return;
    }
    Ten ffn = ten_rows(kept->ffn, 0, m);
    forward_linear(policy, ffn, act, &w->down, TEN_NONE, work);
    if (!ten_is(out)) out = ten_rows(work->x, 0, m); /* for the sake of rstd */
    k_rmsnorm(dev, out, first_rows(kept->rstd_ffn, m), ffn, w->post2.gain, mid, eps);
}

void forward_layer(Policy *policy, int layer, const Rows *rows, Kv *kv, Ten x, Ten out, const LayerTape *kept,
                   Work *work) {
    forward_attention(policy, layer, rows, kv, x, kept, work);
    forward_mlp(policy, layer, rows->m, out, kept, work);
}

static Ten forward_now(Policy *policy, const Rows *rows, Kv *kv, Tape *tape, Work *work) {
    CHECK(rows->m <= (tape ? tape->max_rows : work->max_rows), "%d rows", rows->m);
    int m = rows->m, n_layers = policy->conf.n_layers;
    Ten x = ten_rows(tape && n_layers ? tape->layers[0].x : work->x, 0, m);
    k_embed(policy->dev, x, &policy->embed, rows);
    if (policy->conf.embed_scale != 1) k_scale(policy->dev, x, x, (real)policy->conf.embed_scale);
    for (int l = 0; l < n_layers; l++) {
        Ten out = work->x;
        const LayerTape *kept = &work->own;
        if (tape) {
            out = l + 1 < n_layers ? tape->layers[l + 1].x : tape->last;
            kept = tape->recompute ? &tape->scratch : &tape->layers[l];
        }
        out = ten_rows(out, 0, m);
        forward_layer(policy, l, rows, kv, x, out, kept, work);
        x = out;
    }
    return x;
}

/* What decides the ops of a forward pass without a tape, beside its rows. */
typedef struct {
    const Policy *policy;
    const void *kv, *x; /* the pages, and with them x the tensors of the work that it belongs to */
    size_t adapters_off;
} ForwardKey;

Ten forward(Policy *policy, const Rows *rows, Kv *kv, Tape *tape, Work *work) {
    if (tape) return forward_now(policy, rows, kv, tape, work);
    ForwardKey key = {policy, kv->data.p, work->x.p, policy->adapters_off};
    if (!k_again(policy->dev, rows, &key, sizeof key)) return ten_rows(work->x, 0, rows->m);
    Ten stream = forward_now(policy, rows, kv, NULL, work);
    k_again_end(policy->dev);
    return stream;
}

void forward_final(Policy *policy, Ten y, Ten rstd, Ten picked, Ten stream, const int *index) {
    k_gather(policy->dev, picked, stream, index);
    k_rmsnorm(policy->dev, y, rstd, picked, policy->norm, TEN_NONE, (real)policy->conf.norm_eps);
}

/* ---- memory ---- */

/* What a LayerTape's tensors measure, in one place for the plan and for the allocator. */
typedef struct {
    int cols;
    DType type;
    size_t at; /* offset of the Ten in LayerTape */
} Slot;

static bool any_post_norms(const Conf *c) {
    bool any = false;
    for (int l = 0; l < c->n_layers; l++) any |= c->layers[l].post_norms;
    return any;
}

/* A tensor that only some models need has no columns in the others. */
enum { LAYER_SLOTS = 14 };
static void layer_slots(Slot slots[LAYER_SLOTS], const Conf *c, DType type) {
    int q = c->n_heads * c->head_dim, heads = 0, post = any_post_norms(c);
    for (int l = 0; l < c->n_layers; l++)
        if (c->layers[l].qk_norm) heads = c->n_heads + c->n_kv_heads;
    const Slot all[LAYER_SLOTS] = {
        {c->dim, K_REAL, offsetof(LayerTape, x)},
        {1, K_REAL, offsetof(LayerTape, rstd1)},
        {heads * c->head_dim, K_REAL, offsetof(LayerTape, qk)},
        {heads, K_REAL, offsetof(LayerTape, rstd_qk)},
        {q, type, offsetof(LayerTape, q)},
        {q, type, offsetof(LayerTape, o)},
        {c->n_heads, K_REAL, offsetof(LayerTape, lse)},
        {post * c->dim, K_REAL, offsetof(LayerTape, attn)},
        {post, K_REAL, offsetof(LayerTape, rstd_attn)},
        {c->dim, K_REAL, offsetof(LayerTape, mid)},
        {1, K_REAL, offsetof(LayerTape, rstd2)},
        {2 * c->hidden, type, offsetof(LayerTape, gate_up)},
        {post * c->dim, K_REAL, offsetof(LayerTape, ffn)},
        {post, K_REAL, offsetof(LayerTape, rstd_ffn)},
    };
    for (int i = 0; i < LAYER_SLOTS; i++) slots[i] = all[i];
}

static size_t slots_bytes(const Conf *c, DType type, int rows, int first, int last) {
    Slot slots[LAYER_SLOTS];
    layer_slots(slots, c, type);
    size_t bytes = 0;
    for (int i = first; i < last; i++) bytes += (size_t)rows * (size_t)slots[i].cols * dtype_size(slots[i].type);
    return bytes;
}

/* Slots first .. last-1: slot 0 is x. */
static bool slots_open(Policy *policy, LayerTape *tape, int rows, int first, int last, Err *err) {
    Slot slots[LAYER_SLOTS];
    layer_slots(slots, &policy->conf, policy->type);
    for (int i = first; i < last; i++) {
        if (slots[i].cols == 0) continue;
        Ten *t = (Ten *)(void *)((char *)tape + slots[i].at);
        *t = k_new(policy->dev, rows, slots[i].cols, slots[i].type, err);
        if (!t->p) return false;
    }
    return true;
}

static void slots_close(Policy *policy, LayerTape *tape) {
    Ten *all = &tape->x;
    for (int i = 0; i < LAYER_SLOTS; i++) k_free(policy->dev, &all[i]);
}

LayerTape layer_tape_rows(const LayerTape *tape, int first, int n) {
    _Static_assert(sizeof(LayerTape) == LAYER_SLOTS * sizeof(Ten), "a LayerTape is its tensors");
    LayerTape part = *tape;
    Ten *all = &part.x;
    for (int i = 0; i < LAYER_SLOTS; i++)
        if (ten_is(all[i])) all[i] = ten_rows(all[i], first, n);
    return part;
}

size_t tape_bytes(const Conf *conf, DType type, int max_rows, bool recompute) {
    size_t one = slots_bytes(conf, type, max_rows, 0, 1), rest = slots_bytes(conf, type, max_rows, 1, LAYER_SLOTS);
    size_t layers = (size_t)conf->n_layers;
    return one * (layers + 1) + rest * (recompute ? 1 : layers);
}

Tape *tape_open(Policy *policy, int max_rows, bool recompute, Err *err) {
    int n = policy->conf.n_layers;
    Tape *tape = MEM_NEW(Tape);
    *tape = (Tape){.max_rows = max_rows, .n_layers = n, .recompute = recompute, .layers = MEM_ARRAY(LayerTape, n)};
    tape->last = k_new(policy->dev, max_rows, policy->conf.dim, K_REAL, err);
    bool good = tape->last.p != NULL;
    if (good && recompute) good = slots_open(policy, &tape->scratch, max_rows, 1, LAYER_SLOTS, err);
    for (int l = 0; good && l < n; l++)
        good = slots_open(policy, &tape->layers[l], max_rows, 0, recompute ? 1 : LAYER_SLOTS, err);
    if (good) return tape;
    tape_close(policy, tape);
    return NULL;
}

void tape_close(Policy *policy, Tape *tape) {
    if (!tape) return;
    for (int l = 0; l < tape->n_layers; l++) slots_close(policy, &tape->layers[l]);
    slots_close(policy, &tape->scratch);
    k_free(policy->dev, &tape->last);
    free(tape->layers);
    free(tape);
}

/* Without a tape: the residual stream lives in x alone (own.mid is x), and norms keep no rstd. */
size_t work_bytes(const Conf *conf, DType type, int max_rows) {
    size_t rows = (size_t)max_rows, size = dtype_size(type);
    int q = conf->n_heads * conf->head_dim, qkv = q + 2 * conf->n_kv_heads * conf->head_dim;
    return rows * ((size_t)lora_width(conf) * (sizeof(real) + size) + (size_t)conf->dim * sizeof(real) +
                   (size_t)conf->dim * size + (size_t)qkv * sizeof(real) + (size_t)conf->hidden * size +
                   2 * (size_t)q * size + 2 * (size_t)conf->hidden * size +
                   (any_post_norms(conf) ? (size_t)conf->dim * sizeof(real) : 0));
}

bool work_open(Work *work, Policy *policy, int max_rows, Err *err) {
    const Conf *c = &policy->conf;
    Dev *dev = policy->dev;
    int q = c->n_heads * c->head_dim;
    *work = (Work){.max_rows = max_rows};
    work->x = k_new(dev, max_rows, c->dim, K_REAL, err);
    work->normed = k_new(dev, max_rows, c->dim, policy->type, err);
    work->qkv = k_new(dev, max_rows, q + 2 * c->n_kv_heads * c->head_dim, K_REAL, err);
    work->act = k_new(dev, max_rows, c->hidden, policy->type, err);
    work->own.q = k_new(dev, max_rows, q, policy->type, err);
    work->own.o = k_new(dev, max_rows, q, policy->type, err);
    work->own.gate_up = k_new(dev, max_rows, 2 * c->hidden, policy->type, err);
    work->own.mid = work->x;
    work->low_sum = k_new(dev, max_rows, lora_width(c), K_REAL, err);
    work->low = k_new(dev, max_rows, lora_width(c), policy->type, err);
    bool post = any_post_norms(c);
    if (post) work->branch = work->own.attn = work->own.ffn = k_new(dev, max_rows, c->dim, K_REAL, err);
    if (work->low_sum.p && work->low.p && (!post || work->branch.p) && work->x.p && work->normed.p &&
        work->qkv.p && work->act.p && work->own.q.p && work->own.o.p && work->own.gate_up.p)
        return true;
    work_close(work, policy);
    return false;
}

void work_close(Work *work, Policy *policy) {
    Ten *all[] = {&work->x,     &work->normed, &work->qkv,         &work->act,     &work->own.q,
                  &work->own.o, &work->low,    &work->own.gate_up, &work->low_sum, &work->branch};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) k_free(policy->dev, all[i]);
    work->own.mid = work->own.attn = work->own.ffn = TEN_NONE;
}
