/* learn.c: see learn.h. */
#include "rl/learn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct Learner {
    Policy *policy, *reference;
    LearnConf conf;
    BatchLimits limits;
    Ten grads, m, v;
    /* Tied embeddings: the look-up's gradient, kept apart from the head's, so that the order of both sums does not
     * depend on the batches, and added at the end. Only of the tokens that occur, in the order in which they do.
     */
    Ten dembed;        /* [vocab, dim], of which the first n_seen rows stand */
    int *seen, n_seen; /* [vocab]: a row's token */
    int *place;        /* [vocab]: a token's row, or -1 */
    int *row_place;    /* [max_rows] of a batch */
    Tape *tape;
    Work work;
    BackWork back;
    Kv kv, dkv;
    Ten stream;                               /* [max_rows, dim] gradient of the residual stream */
    Ten picked, final, rstd, dfinal, dpicked; /* [max_head, dim]; rstd [max_head, 1] */
    Ten logp, lse, entropy;                   /* [1, max_head] */
    Ten kept;                                 /* [max_head, KEPT_WORDS(vocab)], with keep_sets */
    int32_t *host_kept;                       /* the same; NULL without */
    real *host_logp, *host_entropy, *host_coef, *host_ent_coef;
    Batch batch, prompt;
};

/* ---- memory ---- */

static bool separate_embed(const Conf *conf, const Params *params) {
    return conf->tied && params->items[0].trained; /* the table begins with the embedding */
}
static bool has_dembed(const Learner *l) { return separate_embed(&l->policy->conf, &l->policy->params); }

static BatchLimits limits_of(const LearnConf *c) {
    return batch_limits(c->rows, c->max_prompt, c->max_completion, c->group);
}

size_t learner_bytes(const Dev *dev, const Conf *conf, DType type, const Params *params, const LearnConf *learn) {
    BatchLimits limits = limits_of(learn);
    size_t rows = (size_t)limits.max_rows, head = (size_t)limits.max_head, dim = (size_t)conf->dim;
    size_t bytes = 3 * (size_t)params->n_trained * sizeof(real);
    if (separate_embed(conf, params)) bytes += (size_t)conf->vocab * dim * sizeof(real);
    bytes += tape_bytes(conf, type, limits.max_rows, learn->recompute) + work_bytes(conf, type, limits.max_rows);
    bytes += back_work_bytes(conf, type, limits.max_rows);
    bytes += (size_t)limits.max_pages *
             (k_kv_page_bytes(dev, conf->n_layers, conf->n_kv_heads, conf->head_dim, type, false) +
              k_kv_page_bytes(dev, conf->n_layers, conf->n_kv_heads, conf->head_dim, K_REAL, true));
    if (learn->keep_sets) bytes += head * (size_t)KEPT_WORDS(conf->vocab) * sizeof(int32_t);
    bytes += rows * dim * sizeof(real) + head * (dim * (3 * sizeof(real) + dtype_size(type)) + 4 * sizeof(real));
    return bytes;
}

static bool learner_memory(Learner *l, Err *err) {
    Policy *policy = l->policy;
    Dev *dev = policy->dev;
    const Conf *c = &policy->conf;
    int rows = l->limits.max_rows, head = l->limits.max_head, blocks = (int)(policy->params.n_trained / 16);
    struct {
        Ten *ten;
        int rows, cols;
        DType type;
    } all[] = {
        {&l->grads, blocks, 16, K_REAL},
        {&l->m, blocks, 16, K_REAL},
        {&l->v, blocks, 16, K_REAL},
        {&l->stream, rows, c->dim, K_REAL},
        {&l->picked, head, c->dim, K_REAL},
        {&l->final, head, c->dim, policy->type},
        {&l->rstd, head, 1, K_REAL},
        {&l->dfinal, head, c->dim, K_REAL},
        {&l->dpicked, head, c->dim, K_REAL},
        {&l->logp, 1, head, K_REAL},
        {&l->lse, 1, head, K_REAL},
        {&l->entropy, 1, head, K_REAL},
        {&l->dembed, has_dembed(l) ? c->vocab : 0, c->dim, K_REAL},
        {&l->kept, l->conf.keep_sets ? head : 0, KEPT_WORDS(c->vocab), K_I32},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        *all[i].ten = k_new(dev, all[i].rows, all[i].cols, all[i].type, err);
        if (!all[i].ten->p) return false;
    }
    l->kv = k_kv_new(dev, l->limits.max_pages, c->n_layers, c->n_kv_heads, c->head_dim, policy->type, false, err);
    l->dkv = k_kv_new(dev, l->limits.max_pages, c->n_layers, c->n_kv_heads, c->head_dim, K_REAL, true, err);
    l->tape = tape_open(policy, rows, l->conf.recompute, err);
    return l->kv.data.p && l->dkv.data.p && l->tape && work_open(&l->work, policy, rows, err) &&
           back_work_open(&l->back, policy, rows, err);
}

Learner *learner_open(Policy *policy, Policy *reference, const LearnConf *conf, Err *err) {
    Learner *l = MEM_NEW(Learner);
    *l = (Learner){.policy = policy, .reference = reference, .conf = *conf, .limits = limits_of(conf)};
    batch_open(&l->batch, &l->limits);
    batch_open(&l->prompt, &l->limits);
    l->seen = MEM_ARRAY(int, policy->conf.vocab);
    l->place = MEM_ARRAY(int, policy->conf.vocab);
    l->row_place = MEM_ARRAY(int, l->limits.max_rows);
    for (int i = 0; i < policy->conf.vocab; i++) l->place[i] = -1;
    l->host_logp = MEM_ARRAY(real, l->limits.max_head);
    l->host_entropy = MEM_ARRAY(real, l->limits.max_head);
    l->host_coef = MEM_ARRAY(real, l->limits.max_head);
    l->host_ent_coef = MEM_ARRAY(real, l->limits.max_head);
    if (conf->keep_sets)
        l->host_kept = MEM_ARRAY(int32_t, (size_t)l->limits.max_head * (size_t)KEPT_WORDS(policy->conf.vocab));
    if (learner_memory(l, err)) return l;
    learner_close(l);
    return NULL;
}

void learner_close(Learner *l) {
    if (!l) return;
    Policy *policy = l->policy;
    Ten *all[] = {&l->grads,  &l->m,       &l->v,    &l->stream, &l->picked,  &l->final,  &l->rstd,
                  &l->dfinal, &l->dpicked, &l->logp, &l->lse,    &l->entropy, &l->dembed, &l->kept};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) k_free(policy->dev, all[i]);
    k_kv_free(policy->dev, &l->kv);
    k_kv_free(policy->dev, &l->dkv);
    tape_close(policy, l->tape);
    work_close(&l->work, policy);
    back_work_close(&l->back, policy);
    batch_close(&l->batch);
    batch_close(&l->prompt);
    free(l->seen);
    free(l->place);
    free(l->row_place);
    free(l->host_logp);
    free(l->host_entropy);
    free(l->host_coef);
    free(l->host_ent_coef);
    free(l->host_kept);
    free(l);
}

Ten learner_grads(Learner *l) { return l->grads; }
void learner_moments(Learner *l, Ten *m, Ten *v) { *m = l->m, *v = l->v; }

/* ---- the head ---- */

/* The engine's own computation: another rounding would make other log-probabilities. */
static real inv_temperature(const Learner *l) { return 1 / (real)l->conf.temperature; }

/* The kept sets of the batch's head rows, on the device; TEN_NONE where no sample has any. */
static Ten head_kept(Learner *l, const Batch *b, const BatchGroup *groups) {
    int vocab = l->policy->conf.vocab;
    size_t words = (size_t)KEPT_WORDS(vocab);
    bool any = false;
    for (int i = 0; i < b->n_head; i++) {
        HeadRow who = b->head[i];
        const BatchSample *s = who.group < 0 ? NULL : &groups[who.group].samples[who.sample];
        int32_t *bits = l->host_kept ? l->host_kept + (size_t)i * words : NULL;
        if (!s || !s->kept) {
            if (bits) memset(bits, -1, words * sizeof *bits);
            continue;
        }
        CHECK(bits, "a kept set, and no room for it");
        any = true;
        bool good = kept_read(s->kept + s->kept_at[who.token], s->kept + s->kept_n, bits, vocab) != NULL;
        CHECK(good, "kept set of token %d is none", who.token);
    }
    if (!any) return TEN_NONE;
    Ten kept = ten_rows(l->kept, 0, b->n_head);
    k_put(l->policy->dev, kept, l->host_kept);
    return kept;
}

/* Log-probabilities and entropies of every head row of the batch, to their samples. */
static void head_forward(Learner *l, Policy *policy, const Batch *b, Ten stream, const BatchGroup *groups) {
    int n = b->n_head;
    Dev *dev = policy->dev;
    forward_final(policy, ten_rows(l->final, 0, n), ten_rows(l->rstd, 0, n), ten_rows(l->picked, 0, n), stream,
                  b->head_index);
    k_logprob(dev, ten_cols(l->logp, 0, n), ten_cols(l->lse, 0, n), ten_cols(l->entropy, 0, n),
              ten_rows(l->final, 0, n), &policy->head, b->target, head_kept(l, b, groups), inv_temperature(l),
              (real)policy->conf.final_cap);
    k_get(dev, l->host_logp, ten_cols(l->logp, 0, n));
    k_get(dev, l->host_entropy, ten_cols(l->entropy, 0, n));
    for (int i = 0; i < n; i++) {
        HeadRow who = b->head[i];
        if (who.group < 0) continue;
        const BatchSample *s = &groups[who.group].samples[who.sample];
        s->logp[who.token] = l->host_logp[i];
        s->entropy[who.token] = l->host_entropy[i];
    }
}

static Ten param_grad(const Learner *l, int param) {
    if (!l->policy->params.items[param].trained) return TEN_NONE;
    return params_view(&l->policy->params, param, l->grads);
}

/* ---- one batch ---- */

/* Rows first .. of a tape, as a tape of its own; free its layers. */
static Tape tape_part(const Tape *tape, int first) {
    Tape part = *tape;
    int n = tape->max_rows - first;
    part.max_rows = n;
    part.layers = MEM_ARRAY(LayerTape, tape->n_layers);
    part.scratch = layer_tape_rows(&tape->scratch, first, n);
    for (int l = 0; l < tape->n_layers; l++) part.layers[l] = layer_tape_rows(&tape->layers[l], first, n);
    part.last = ten_rows(tape->last, first, n);
    return part;
}

typedef struct {
    Learner *l;
    const BatchGroup *groups;
    LearnSample *const *extra;
    const LossConf *loss;
    LossNorm norm;
    LearnReport *report;
    Err *err;
} Update;

/* From the samples' coefficients to the gradient of the residual stream, through the head and the final norm. What
 * head_forward left for this batch must still stand. */
static void head_backward(const Update *u, const Batch *b) {
    Learner *l = u->l;
    Policy *policy = l->policy;
    Dev *dev = policy->dev;
    int n = b->n_head;
    bool bonus = u->loss->entropy_coef != 0;
    for (int i = 0; i < n; i++) {
        HeadRow who = b->head[i];
        l->host_coef[i] = l->host_ent_coef[i] = 0;
        if (who.group < 0) continue;
        l->host_coef[i] = u->groups[who.group].samples[who.sample].coef[who.token];
        const LossSeq *seq = &u->extra[who.group][who.sample].seq;
        l->host_ent_coef[i] = (real)loss_entropy_coef(u->loss, &u->norm, seq, who.token);
    }
    Ten dfinal = ten_rows(l->dfinal, 0, n), dpicked = ten_rows(l->dpicked, 0, n),
        stream = ten_rows(l->stream, 0, b->rows.m);
    k_logprob_back(dev, dfinal, param_grad(l, policy->p_head), ten_rows(l->final, 0, n), &policy->head, b->target,
                   head_kept(l, b, u->groups), l->host_coef, bonus ? l->host_ent_coef : NULL,
                   ten_cols(l->lse, 0, n), bonus ? ten_cols(l->entropy, 0, n) : TEN_NONE, inv_temperature(l),
                   (real)policy->conf.final_cap, l->back.fresh);
    k_rmsnorm_back(dev, TEN_NONE, dpicked, param_grad(l, policy->p_norm), TEN_NONE, dfinal,
                   ten_rows(l->picked, 0, n), ten_rows(l->rstd, 0, n), policy->norm);
    k_zero(dev, stream);
    k_scatter(dev, stream, dpicked, b->head_index);
}

static LossLogps logps_of(const BatchSample *s, const LearnSample *x) {
    return (LossLogps){s->logp, x->old_logp, x->ref_logp, s->entropy, x->weight};
}

/* Coefficients of the samples whose last head row is in this batch. */
static bool batch_loss(Update *u, const Batch *b) {
    LossReport unused = {0}; /* update_report sums in an order that does not depend on batches */
    for (int i = 0; i < b->n_head; i++) {
        HeadRow who = b->head[i];
        if (who.group < 0) continue;
        const BatchSample *s = &u->groups[who.group].samples[who.sample];
        const LearnSample *x = &u->extra[who.group][who.sample];
        if (who.token != s->n - 1) continue;
        LossLogps in = logps_of(s, x);
        if (!loss_coefs(s->coef, &unused, u->loss, &u->norm, &x->seq, &in))
            return err_set(u->err, "the loss of sample %d of group %d is not finite; lower learning_rate",
                           who.sample, who.group);
    }
    return true;
}

/* Entropy and difference of a sample that went forward. */
static void measure(LearnReport *r, const BatchSample *s, const LearnSample *x) {
    r->measured += s->n;
    for (int t = 0; t < s->n; t++) {
        r->entropy_sum += (double)s->entropy[t];
        double diff = x->old_logp ? fabs((double)s->logp[t] - (double)x->old_logp[t]) : 0;
        r->diff_sum += diff;
        if (!(diff <= r->diff_max)) r->diff_max = diff; /* NaN is a difference, too */
    }
}

/* The report of the whole update, sample after sample. */
static void update_report(Update *u, int n, const bool *skip) {
    LearnReport *r = u->report;
    for (int g = 0; g < n; g++) {
        r->skipped += skip[g];
        for (int i = 0; i < u->groups[g].n; i++) {
            const BatchSample *s = &u->groups[g].samples[i];
            const LearnSample *x = &u->extra[g][i];
            if (skip[g]) {
                loss_skip(&r->loss, u->loss, &x->seq);
                continue;
            }
            LossLogps in = logps_of(s, x);
            loss_coefs(s->coef, &r->loss, u->loss, &u->norm, &x->seq, &in);
            r->tokens += s->n;
            measure(r, s, x);
        }
    }
}

/* The embedding's gradient, of rows' gradients in `stream`. */
static void embed_backward(Learner *l, const Rows *rows, Ten stream) {
    Dev *dev = l->policy->dev;
    Ten dw = param_grad(l, l->policy->p_embed);
    if (!has_dembed(l)) {
        if (ten_is(dw)) k_embed_back(dev, dw, stream, rows);
        return;
    }
    Rows placed = *rows;
    const int known = l->n_seen;
    for (int r = 0; r < rows->m; r++) {
        int *place = &l->place[rows->tok[r]];
        l->row_place[r] = 0;
        if (rows->page[r] < 0) continue; /* padding */
        if (*place < 0) {
            *place = l->n_seen++;
            l->seen[*place] = rows->tok[r];
        }
        l->row_place[r] = *place;
    }
    placed.tok = l->row_place;
    k_zero(dev, ten_rows(l->dembed, known, l->n_seen - known));
    k_embed_back(dev, l->dembed, stream, &placed);
}

static void run_backward(Learner *l, const Batch *b, const Tape *tape) {
    Ten stream = ten_rows(l->stream, 0, b->rows.m);
    backward(l->policy, l->grads, &b->rows, &l->kv, &l->dkv, tape, &l->work, &l->back, stream);
    embed_backward(l, &b->rows, stream);
    l->back.fresh = false;
}

static void zero_page_gradients(Learner *l, int first, int end) {
    for (int page = first; page < end; page++) k_kv_zero(l->policy->dev, &l->dkv, page);
}

/* Forward, loss, backward of one batch. A group's lone prompt goes forward when it is met and backward after the
 * group's last chunk, when its pages' gradients are complete. */
static bool run_batch(Update *u) {
    Learner *l = u->l;
    Batch *b = &l->batch;
    bool chunks = b->kind == BATCH_CHUNKS;
    int prompt_rows = chunks ? l->prompt.rows.m : 0;
    Tape tape = chunks ? tape_part(l->tape, prompt_rows) : *l->tape;
    double t0 = clock_seconds();
    zero_page_gradients(l, chunks ? b->prompt_pages : 0, b->pages_used);
    Ten stream = forward(l->policy, &b->rows, &l->kv, &tape, &l->work);
    double t1 = clock_seconds();
    head_forward(l, l->policy, b, stream, u->groups);
    bool good = batch_loss(u, b);
    if (b->kind == BATCH_PROMPT) batch_prompt(&l->prompt, u->groups, b->group0);
    double t2 = clock_seconds(), t3 = t2;
    if (good && b->kind != BATCH_PROMPT) {
        head_backward(u, b);
        t3 = clock_seconds();
        run_backward(l, b, &tape);
    }
    if (good && chunks && b->last) {
        head_forward(l, l->policy, &l->prompt, ten_rows(l->tape->last, 0, prompt_rows), u->groups);
        head_backward(u, &l->prompt);
        run_backward(l, &l->prompt, l->tape);
    }
    double t4 = clock_seconds();
    u->report->forward_seconds += t1 - t0;
    u->report->head_seconds += t3 - t1;
    u->report->backward_seconds += t4 - t3;
    u->report->rows += b->rows.m;
    u->report->batches++;
    if (chunks) free(tape.layers);
    return good;
}

/* ---- log-probabilities alone ---- */

static void logp_of(Learner *l, Policy *policy, const BatchGroup *groups, int n, const bool *skip) {
    BatchCursor cursor = {0};
    while (batch_next(&l->batch, &cursor, groups, n, skip)) {
        Ten stream = forward(policy, &l->batch.rows, &l->kv, NULL, &l->work);
        head_forward(l, policy, &l->batch, stream, groups);
    }
}

void learner_logp(Learner *l, Policy *policy, const BatchGroup *groups, int n) {
    bool *skip = MEM_ARRAY(bool, n);
    logp_of(l, policy, groups, n, skip);
    free(skip);
}

void learner_reference_logp(Learner *l, const BatchGroup *groups, int n) {
    l->reference->adapters_off = l->reference == l->policy;
    learner_logp(l, l->reference, groups, n);
    l->reference->adapters_off = false;
}

/* No group has a gradient: the first one goes forward all the same, so that entropy and the difference between
 * sampler and learner are measured in each step. */
static void measure_only(Update *u, int n) {
    if (n == 0) return;
    learner_logp(u->l, u->l->policy, u->groups, 1);
    for (int i = 0; i < u->groups[0].n; i++) measure(u->report, &u->groups[0].samples[i], &u->extra[0][i]);
}

/* The same groups, with the log-probabilities going to ref_logp. */
static void reference_logp(Learner *l, const BatchGroup *groups, LearnSample *const *extra, int n,
                           const bool *skip) {
    Arena arena = {0};
    BatchGroup *views = arena_alloc(&arena, (size_t)n, sizeof *views);
    for (int g = 0; g < n; g++) {
        views[g] = groups[g];
        views[g].samples = arena_alloc(&arena, (size_t)groups[g].n, sizeof *views[g].samples);
        for (int i = 0; i < groups[g].n; i++) {
            views[g].samples[i] = groups[g].samples[i];
            views[g].samples[i].logp = extra[g][i].ref_logp;
        }
    }
    l->reference->adapters_off = l->reference == l->policy;
    logp_of(l, l->reference, views, n, skip);
    l->reference->adapters_off = false;
    arena_free(&arena);
}

/* ---- the update ---- */

/* Groups without any gradient cost no forward and no backward. */
static bool *groups_without_gradient(const Update *u, int n) {
    bool *skip = MEM_ARRAY(bool, n);
    for (int g = 0; g < n; g++) {
        skip[g] = true;
        for (int i = 0; i < u->groups[g].n; i++)
            skip[g] = skip[g] && !loss_has_gradient(u->loss, &u->extra[g][i].seq);
    }
    return skip;
}

/* The update's counts, and the marks of its tokens where the loss asks for them: these need every sample's
 * log-probabilities and entropies first, which costs a forward pass of its own. The marks live in `arena`. */
static void count_and_mark(Update *u, int n, Arena *arena) {
    int count = 0, at = 0;
    for (int g = 0; g < n; g++) count += u->groups[g].n;
    LossSeq *seqs = arena_alloc(arena, (size_t)count, sizeof *seqs);
    LossLogps *in = arena_alloc(arena, (size_t)count, sizeof *in);
    bool marks = loss_needs_marks(u->loss);
    if (marks) learner_logp(u->l, u->l->policy, u->groups, n);
    for (int g = 0; g < n; g++)
        for (int i = 0; i < u->groups[g].n; i++, at++) {
            LossSeq *seq = &u->extra[g][i].seq;
            seq->marks = marks ? arena_alloc(arena, (size_t)seq->n, 1) : NULL;
            seqs[at] = *seq;
            in[at] = logps_of(&u->groups[g].samples[i], &u->extra[g][i]);
        }
    if (marks) loss_marks(u->loss, seqs, in, count);
    u->norm = loss_norm(u->loss, seqs, count);
}

/* The first backward pass stores the gradients of matrices; zeroed is what every pass adds to. */
static void begin_gradients(Learner *l) {
    const Params *params = &l->policy->params;
    for (int i = 0; i < params->n; i++)
        if (params->items[i].trained &&
            (params->items[i].is_vector || (i == l->policy->p_embed && !l->policy->conf.tied)))
            k_zero(l->policy->dev, params_view(params, i, l->grads));
    while (l->n_seen > 0) l->place[l->seen[--l->n_seen]] = -1;
    l->back.fresh = true;
}

bool learner_gradients(Learner *l, const BatchGroup *groups, LearnSample *const *extra, int n,
                       const LossConf *loss, LearnReport *report, Err *err) {
    *report = (LearnReport){0};
    Arena marks = {0};
    Update u = {.l = l, .groups = groups, .extra = extra, .loss = loss, .report = report, .err = err};
    count_and_mark(&u, n, &marks);
    CHECK(loss->beta == 0 || l->reference, "a KL term of weight %g without a reference", loss->beta);
    bool *skip = groups_without_gradient(&u, n);
    if (loss->beta != 0) reference_logp(l, groups, extra, n, skip);
    begin_gradients(l);
    bool good = true;
    BatchCursor cursor = {0};
    while (good && batch_next(&l->batch, &cursor, groups, n, skip)) good = run_batch(&u);
    if (good) update_report(&u, n, skip);
    if (good && !u.report->batches) measure_only(&u, n);
    if (good && l->back.fresh) k_zero(l->policy->dev, l->grads); /* nothing was learnt from */
    free(skip);
    for (int g = 0; g < n; g++)
        for (int i = 0; i < groups[g].n; i++) extra[g][i].seq.marks = NULL;
    arena_free(&marks);
    if (good && l->n_seen)
        k_scatter(l->policy->dev, param_grad(l, l->policy->p_embed), ten_rows(l->dembed, 0, l->n_seen), l->seen);
    return good;
}

/* AdamW on every trained row; as in transformers, vectors (norms and biases) do not decay. */
static void adam(Learner *l, const AdamStep *step) {
    const Params *params = &l->policy->params;
    for (int i = 0; i < params->n; i++) {
        if (!params->items[i].trained) continue;
        AdamStep one = *step;
        if (params->items[i].is_vector) one.weight_decay = 0;
        k_adamw(l->policy->dev, policy_master(l->policy, i), params_view(params, i, l->m),
                params_view(params, i, l->v), params_view(params, i, l->grads), &one);
    }
}

bool learner_update(Learner *l, const BatchGroup *groups, LearnSample *const *extra, int n, const LossConf *loss,
                    double learning_rate, int64_t step, LearnReport *report, Err *err) {
    if (!learner_gradients(l, groups, extra, n, loss, report, err)) return false;
    double began = clock_seconds();
    const LearnConf *c = &l->conf;
    report->grad_norm = sqrt(k_sumsq(l->policy->dev, l->grads));
    if (!isfinite(report->grad_norm)) return err_set(err, "the gradient is not finite; lower learning_rate");
    double scale = 1;
    if (c->max_grad_norm > 0 && report->grad_norm > c->max_grad_norm)
        scale = c->max_grad_norm / (report->grad_norm + 1e-6); /* torch.nn.utils.clip_grad_norm_ */
    AdamStep adam_step = {
        .lr = (real)learning_rate,
        .beta1 = (real)c->beta1,
        .beta2 = (real)c->beta2,
        .eps = (real)c->eps,
        .weight_decay = (real)c->weight_decay,
        .correct1 = (real)(1 - pow(c->beta1, (double)step)),
        .correct2 = (real)(1 - pow(c->beta2, (double)step)),
        .grad_scale = (real)scale,
    };
    adam(l, &adam_step);
    policy_pack(l->policy);
    l->policy->version++;
    report->optimizer_seconds = clock_seconds() - began;
    return true;
}
