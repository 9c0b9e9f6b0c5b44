/* plan.c: see plan.h. */
#include "rl/plan.h"

static size_t sum_of(const Plan *p) {
    return p->policy_bytes + p->reference_bytes + p->learner_bytes + p->engine_bytes + p->workspace_bytes;
}

static void plan_rows(Plan *p, const Model *model, int rows, bool recompute, const Params *params) {
    const Conf *conf = model_file_conf(model->file);
    p->learn.rows = rows, p->learn.recompute = recompute;
    p->learner_bytes = learner_bytes(model->dev, conf, model->type, params, &p->learn);
    int most = batch_limits(rows, p->learn.max_prompt, p->learn.max_completion, p->learn.group).max_head;
    int sampled = engine_rows(model->dev, &p->engine);
    if (most < sampled) most = sampled;
    p->workspace_bytes = workspace_bytes(model->dev, conf, most);
    p->total = sum_of(p);
}

/* The most rows that an update can have: more would be room for nothing. */
static int rows_of_update(const Recipe *r) {
    long prompt = (r->max_prompt_length + 31) / 32 * 32,
         samples = (r->max_completion_length + 31) * r->num_generations;
    long all = r->batch_groups * (prompt + samples);
    return all > 1 << 30 ? 1 << 30 : (int)all;
}

/* The most rows at once with which all fits, rather with everything on the tape than recomputed. */
static bool plan_learning(Plan *p, const Recipe *r, const Model *model, const Params *params) {
    static const int sizes[] = {2048, 1024, 512};
    int most = rows_of_update(r), fixed = (int)r->micro_batch_tokens;
    for (int recompute = 0; recompute < 2; recompute++)
        for (int i = 0; i < 3; i++) {
            plan_rows(p, model, fixed ? fixed : sizes[i] < most ? sizes[i] : most, recompute, params);
            if (p->total <= (size_t)model->memory) return true;
        }
    return false;
}

bool plan_make(Plan *p, const Recipe *r, const Model *model, Err *err) {
    const Conf *conf = model_file_conf(model->file);
    long longest = r->max_prompt_length + r->max_completion_length;
    if (longest > conf->max_positions)
        return err_set(
            err,
            "max_prompt_length %ld and max_completion_length %ld are together more than the model's %d positions",
            r->max_prompt_length, r->max_completion_length, conf->max_positions);
    bool cuts = r->top_k > 0 || r->top_p < 1 || r->min_p > 0;
    *p = (Plan){.policy = {.type = model->type, .train = true, .int8 = model->int8, .max_positions = (int)longest},
                .reference = {.type = model->type, .train = r->sync_ref_model, .max_positions = (int)longest},
                .learn = {.max_prompt = (int)r->max_prompt_length,
                          .max_completion = (int)r->max_completion_length,
                          .group = (int)r->num_generations,
                          .temperature = r->temperature > 0 ? r->temperature : 1,
                          .keep_sets = cuts,
                          .beta1 = r->adam_beta1,
                          .beta2 = r->adam_beta2,
                          .eps = r->adam_epsilon,
                          .weight_decay = r->weight_decay,
                          .max_grad_norm = r->max_grad_norm},
                .engine = {.slots = (int)r->slots, .max_tokens = (int)longest, .keep_sets = cuts}};
    p->policy.frozen = p->reference.frozen = r->frozen.n ? (const char *const *)r->frozen.at : NULL;
    p->policy_bytes = policy_bytes(model->dev, conf, &p->policy);
    /* Without its adapters the policy is the reference. */
    if (r->beta != 0 && !r->use_peft) p->reference_bytes = policy_bytes(model->dev, conf, &p->reference);
    Params params = params_of(conf, &p->policy);
    bool fits = false;
    for (int slots = (int)r->slots; slots > 0 && !fits; slots /= 2) { /* changes no result */
        p->engine.slots = slots;
        p->engine_bytes = engine_bytes(model->dev, conf, model->type, &p->engine);
        fits = plan_learning(p, r, model, &params);
    }
    int64_t trained = params.n_trained;
    params_free(&params);
    if (trained == 0)
        return err_set(err, "frozen: every parameter of the model is frozen, nothing is left to train");
    if (fits) return true;
    return err_set(
        err,
        "%.2f GB of memory are needed at the least (weights %.2f, learning %.2f, sampling %.2f) and %.2f GB may "
        "be taken: lower max_prompt_length or max_completion_length, or freeze parameters",
        (double)p->total * 1e-9, (double)(p->policy_bytes + p->reference_bytes) * 1e-9,
        (double)(p->learner_bytes + p->workspace_bytes) * 1e-9, (double)p->engine_bytes * 1e-9,
        (double)model->memory * 1e-9);
}

static void amount(Buf *out, const char *before, size_t bytes) {
    if (bytes < 100000000)
        buf_format(out, "%s%.1f MB", before, (double)bytes * 1e-6);
    else
        buf_format(out, "%s%.2f GB", before, (double)bytes * 1e-9);
}

void plan_print(const Plan *p, Buf *out) {
    amount(out, "memory: weights ", p->policy_bytes);
    if (p->reference_bytes) amount(out, ", reference ", p->reference_bytes);
    amount(out, ", learning ", p->learner_bytes + p->workspace_bytes);
    buf_format(out, " (%d rows%s)", p->learn.rows, p->learn.recompute ? ", recomputed" : "");
    amount(out, ", sampling ", p->engine_bytes);
    buf_format(out, " (%d slots)", p->engine.slots);
    amount(out, ": ", p->total);
    buf_format(out, " in all");
}
