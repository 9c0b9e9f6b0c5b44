/* train_open.c: opening and closing a training run. The steps are in train.c. */
#include "rl/train_parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rl/reference.h"
#include "rl/version.h"

static char *path_in(Trainer *t, const char *folder, const char *name) {
    return arena_format(&t->arena, "%s/%s", folder, name);
}

/* ---- the folder: a new run, or one that goes on ---- */

static bool exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

/* Makes the output folder and finds the checkpoint to go on from: *folder is NULL for a new run, and for one that
 * was stopped before its first checkpoint, which goes on from the beginning. */
static bool open_folder(Trainer *t, char **folder, Err *err) {
    const Recipe *r = t->recipe;
    *folder = NULL;
    t->state.entropy = entropy_state(r);
    t->store_path = path_in(t, r->output_dir, "run.db");
    if (!folder_make(r->output_dir, err)) return false;
    if (access(r->output_dir, W_OK) != 0)
        return err_set(err, "%s: the folder cannot be written; choose another --output_dir", r->output_dir);
    if (r->resume_from_checkpoint) {
        *folder = checkpoint_find(r->output_dir, r->resume_from_checkpoint);
        if (exists(t->store_path) && !store_idle(t->store_path, err)) return false; /* before anything is pruned */
        if (*folder && !checkpoint_state(*folder, &t->state, err)) return false;
        /* What the last start did not come to. */
        if (strcmp(r->resume_from_checkpoint, "last") == 0)
            checkpoint_prune(r->output_dir, r->save_total_limit, t->state.best_step);
        return true;
    }
    if (exists(t->store_path) && r->overwrite_output_dir)
        return store_idle(t->store_path, err) && run_remove(r->output_dir, err);
    if (exists(t->store_path))
        return err_set(err,
                       "%s holds a run already: go on with it (--resume_from_checkpoint last), replace it "
                       "(--overwrite_output_dir) or choose another --output_dir",
                       r->output_dir);
    return true;
}

/* ---- model, engine, learner ---- */

/* Lays new adapters over the model, or sees that the checkpoint has those that the recipe wants. */
static bool open_adapters(Trainer *t, const char *folder, Err *err) {
    const Recipe *r = t->recipe;
    ModelFile *file = t->model.file;
    bool there = model_file_base(file) != NULL;
    if (folder && there != r->use_peft)
        return err_set(err,
                       "%s holds %sadapters and the recipe says use_peft: %s: go on with the recipe that the run "
                       "was begun with",
                       folder, there ? "" : "no ", r->use_peft ? "true" : "false");
    if (!r->use_peft) model_file_merge(file); /* the whole model learns */
    if (!r->use_peft || folder) return true;
    if (there)
        return err_set(err, "%s holds adapters already: write them into the model first (whet export --model %s)",
                       r->model_name_or_path, r->model_name_or_path);
    const Lora lora = {(int)r->lora_r, r->lora_alpha, r->use_rslora};
    char *path = realpath(r->model_name_or_path, NULL); /* NULL: the name of a model in the cache */
    bool good = model_file_adapt_new(file, &lora, r->lora_target_modules.at, path ? path : r->model_name_or_path,
                                     (uint64_t)r->seed, err);
    free(path);
    return good;
}

/* The model under the adapters must be the one that they were trained over. */
static bool check_base(Trainer *t, const char *folder, Err *err) {
    uint64_t hash = t->recipe->use_peft ? model_file_hash(t->model.file) : 0;
    if (folder && t->state.base_hash && hash != t->state.base_hash)
        return err_set(err, "%s: its adapters were trained over another base model than what %s holds now", folder,
                       model_file_path(t->model.file));
    t->state.base_hash = hash;
    return true;
}

static void print_adapters(const Trainer *t) {
    const Params *params = &t->model.policy->params;
    int64_t trained = 0;
    for (int i = 0; i < params->n; i++)
        if (params->items[i].trained) trained += (int64_t)params->items[i].rows * params->items[i].cols;
    if (t->recipe->use_peft)
        fprintf(t->out, "adapters: %.2f of %.2f million parameters learn (%.2f %%)\n", (double)trained * 1e-6,
                (double)params->n_all * 1e-6, 100 * (double)trained / (double)params->n_all);
}

/* Sampling with other weights than those that learn is never silent. */
static void print_int8(const Trainer *t) {
    const Recipe *r = t->recipe;
    if (!t->model.int8) return;
    fprintf(t->out,
            "sampling: with weights of int8; how far its log-probabilities are from the learner's is measured "
            "(sampling/sampling_logp_difference) and ");
    if (t->objective.loss.term == TERM_VESPO)
        fprintf(t->out, "corrected by loss_type vespo\n");
    else if (r->vllm_importance_sampling_correction)
        fprintf(t->out, "corrected by importance weights (%s)\n", r->vllm_importance_sampling_mode);
    else
        fprintf(t->out, "NOT corrected, as vllm_importance_sampling_correction is false\n");
}

static bool open_model(Trainer *t, const char *folder, Err *err) {
    const Recipe *r = t->recipe;
    OpenConf conf = {.model = folder ? folder : r->model_name_or_path,
                     .dtype = r->dtype,
                     .device = r->device,
                     .cpu_path = r->cpu_path,
                     .sampling_weights = r->sampling_weights,
                     .threads = r->threads,
                     .max_memory = r->max_memory};
    if (!model_open(&t->model, &conf, err) || !open_adapters(t, folder, err) || !check_base(t, folder, err) ||
        !plan_make(&t->plan, r, &t->model, err))
        return false;
    Buf line = {0};
    plan_print(&t->plan, &line);
    fprintf(t->out, "device: %s, %s", dev_name(t->model.dev), dev_path(t->model.dev));
    if (dev_left(t->model.dev) < 0) fprintf(t->out, ", %d threads", dev_threads(t->model.dev));
    fprintf(t->out, "\n%s\n", line.p);
    fflush(t->out);
    buf_free(&line);
    size_t more = t->plan.total - t->plan.policy_bytes;
    if (!model_load(&t->model, &t->plan.policy, more, err)) return false;
    t->model.policy->version = t->state.version;
    print_adapters(t);
    Policy *reference = r->use_peft ? t->model.policy : NULL; /* without its adapters */
    if (r->beta != 0 && !reference) {
        t->reference_file = model_file_named(r->model_name_or_path, err);
        if (t->reference_file) {
            model_file_merge(t->reference_file);
            t->reference = policy_load(t->model.dev, t->reference_file, &t->plan.reference, err);
        }
        if (!t->reference) return false;
        reference = t->reference;
    }
    t->engine = engine_open(t->model.policy, t->model.tok, &t->plan.engine, err);
    if (t->engine) t->learner = learner_open(t->model.policy, reference, &t->plan.learn, err);
    if (!t->learner) return false;
    if (folder && r->sync_ref_model && !reference_read(folder, t->reference, err)) return false;
    return !folder || checkpoint_moments(folder, t->model.policy, t->learner, err);
}

/* ---- data and judges ---- */

static bool open_data(Trainer *t, Err *err) {
    const Recipe *r = t->recipe;
    SourceConf conf = {.name = r->dataset_name,
                       .files = r->datasets.at,
                       .n_files = r->datasets.n,
                       .problem_key = r->problem_key,
                       .answer_key = r->answer_key,
                       .seed = (uint64_t)r->seed,
                       .shuffle = r->shuffle_dataset,
                       .max_problems = r->max_train_samples,
                       .max_skipped = r->max_skipped};
    t->source = source_open(&conf, err);
    if (!t->source) return false;
    if (source_skipped_note(t->source)) fprintf(t->out, "%s\n", source_skipped_note(t->source));
    if (r->eval_dataset_name) {
        conf.n_files = 0, conf.name = r->eval_dataset_name, conf.held_out = r->eval_held_out;
        conf.shuffle = false, conf.max_problems = r->max_eval_samples;
        t->eval_source = source_open(&conf, err);
        if (!t->eval_source) return false;
        t->eval_name = r->eval_held_out ? arena_format(&t->arena, "%s (held out)", r->eval_dataset_name)
                                        : r->eval_dataset_name;
    }
    const PromptAsk ask = {r->prompt_template, r->chat_template, r->system_prompt};
    return model_prompt_form(&t->model, &ask, &t->form, err);
}

static bool open_maths(Trainer *t, Err *err) {
    const Recipe *r = t->recipe;
    if (!objective_of(&t->objective, r, err)) return false;
    if (!importance_find(r->vllm_importance_sampling_mode, r->vllm_importance_sampling_clip_min,
                         r->vllm_importance_sampling_clip_max, &t->bounds))
        return err_set(err, "vllm_importance_sampling_mode %s is not known", r->vllm_importance_sampling_mode);
    if (r->from_store && !from_open(t, err)) return false;
    print_int8(t);
    t->steps = recipe_updates(r, r->from_store ? t->from_groups : source_size(t->source));
    if (t->steps < 1)
        return err_set(err, "%s: %ld problems do not fill one batch of %ld", r->dataset_name,
                       source_size(t->source), r->generation_groups);
    t->schedule.total = t->steps;
    t->schedule.warmup = schedule_warmup(r->warmup_steps, r->warmup_ratio, t->steps);
    if (!schedule_find(r->lr_scheduler_type, &t->schedule.kind))
        return err_set(err, "lr_scheduler_type %s is not known", r->lr_scheduler_type);
    t->schedule.cycles = r->num_cycles;
    t->schedule.lowest = r->min_lr > 0 ? r->min_lr / r->learning_rate : r->min_lr_rate;
    return true;
}

/* ---- the store ---- */

/* A run that goes on must be the run that is stored: every key that changes results has the same value. */
static bool same_recipe(const Trainer *t, const char *now, Err *err) {
    if (strcmp(now, t->run.recipe) == 0) return true;
    char *key = recipe_difference(t->run.recipe, now);
    if (!key) return true;
    err_set(err, "%s: the run was begun with another %s; go on with the recipe that it has, or begin anew",
            t->store_path, key);
    free(key);
    return false;
}

static bool open_store(Trainer *t, bool from_checkpoint, Err *err) {
    const char *path = dev_path(t->model.dev);
    Buf recipe = {0};
    bool found = false;
    recipe_json(t->recipe, &recipe);
    char *text = arena_text(&t->arena, recipe.p, recipe.n);
    buf_free(&recipe);
    t->store = store_open(t->store_path, 0, err);
    if (!t->store || !store_run_last(t->store, &t->arena, &t->run, &found, err)) return false;
    uint64_t hash = weights_hash(t->model.policy);
    if (from_checkpoint && t->state.weight_hash != hash)
        return err_set(err,
                       "the checkpoint's weights are not those that were saved (%016" PRIx64 ", not %016" PRIx64
                       "): the files were changed",
                       hash, t->state.weight_hash);
    if (found && !same_recipe(t, text, err)) return false;
    if (found && !from_checkpoint && t->run.weight_hash != hash)
        return err_set(err, "%s: %s holds other weights than those that the run began with", t->store_path,
                       t->recipe->model_name_or_path);
    if (!found) { /* a new run, or one whose store was lost: the checkpoint is the truth */
        t->run = (StoreRun){.recipe = text, .path = path, .version = WHET_VERSION, .weight_hash = hash};
        if (!store_run_begin(t->store, &t->run, err)) return false;
    }
    if (!store_step_last(t->store, t->run.id, &t->stored_last, err)) return false;
    t->same_path = path_fits(t, from_checkpoint ? t->state.path : t->run.path);
    snprintf(t->state.path, sizeof t->state.path, "%s", path);
    t->state.weight_hash = hash;
    return store_attempt_begin(t->store, t->run.id, t->state.step, path, WHET_VERSION, dev_threads(t->model.dev),
                               &t->attempt, err);
}

static void past_metric(void *self, bool new_step, const char *name, double value) {
    Trainer *t = self;
    guards_add(&t->guards, new_step, name, value);
    if (strcmp(name, "reward") == 0) report_past(t->report, value);
}

/* The curve of the rewards so far, and what the guards look back at. */
static bool show_past(Trainer *t, Err *err) {
    if (!store_metrics_each(t->store, t->run.id, t->state.step, past_metric, t, err)) return false;
    if (!t->state.step && t->recipe->resume_from_checkpoint)
        report_note(t->report, "there is no checkpoint yet: going on from the beginning");
    if (t->state.step) report_note(t->report, "going on after step %ld of %ld", t->state.step, t->steps);
    if (!t->same_path)
        report_note(
            t->report,
            "the run so far was computed on another instruction set: it goes on, but not to the same bits");
    if (t->stored_last > t->state.step)
        report_note(t->report, "steps %ld to %ld are learnt again from their stored answers", t->state.step + 1,
                    t->stored_last);
    return true;
}

/* ---- all of it ---- */

static bool open_all(Trainer *t, Err *err) {
    const Recipe *r = t->recipe;
    char *folder = NULL;
    RewardShape shape;
    RewardConf judges = reward_conf_of(r, &shape);
    bool good = open_folder(t, &folder, err);
    /* Judges come before the weights: those that work in processes of their own begin small. */
    if (good) t->reward = reward_open(r->reward_funcs.at, r->reward_funcs.n, &judges, err);
    good = good && t->reward && open_model(t, folder, err) && open_data(t, err) && open_maths(t, err) &&
           open_store(t, folder != NULL, err);
    free(folder);
    if (!good) return false;
    t->metrics = metrics_open(path_in(t, r->output_dir, "metrics.jsonl"), t->state.step, err);
    t->report = report_open(t->out, t->steps);
    t->collector = (Collector){.recipe = r,
                               .tok = t->model.tok,
                               .form = t->form,
                               .engine = t->engine,
                               .reward = t->reward,
                               .source = t->source,
                               .next_place = t->state.next_place};
    double problems = (double)r->batch_groups / (double)r->num_iterations;
    guards_parts(&t->guards, r->reward_funcs.at, r->reward_funcs.n, problems);
    return t->metrics && show_past(t, err);
}

Trainer *train_open(const Recipe *recipe, FILE *out, const volatile int *stop, Err *err) {
    Trainer *t = MEM_NEW(Trainer);
    t->recipe = recipe, t->out = out, t->stop = stop;
    if (open_all(t, err)) return t;
    train_close(t);
    return NULL;
}

Trainer *train_open_audit(const Recipe *r, const char *checkpoint, Store *store, const StoreRun *run,
                          const Audit *audit, FILE *out, Err *err) {
    static const volatile int never;
    Trainer *t = MEM_NEW(Trainer);
    t->recipe = r, t->out = out, t->stop = &never, t->audit = audit, t->store = store, t->run = *run;
    t->store_path = path_in(t, r->output_dir, "run.db");
    bool good = !checkpoint || checkpoint_state(checkpoint, &t->state, err);
    if (good && audit->sample) {
        RewardShape shape;
        RewardConf judges = reward_conf_of(r, &shape);
        t->reward = reward_open(r->reward_funcs.at, r->reward_funcs.n, &judges, err);
        good = t->reward != NULL;
    }
    good = good && open_model(t, checkpoint, err) && open_data(t, err) && open_maths(t, err) &&
           store_step_last(store, run->id, &t->stored_last, err);
    uint64_t hash = good ? weights_hash(t->model.policy) : 0;
    if (good && hash != (checkpoint ? t->state.weight_hash : run->weight_hash))
        good = err_set(err, "%s: its weights are not those that the run %s: it was changed",
                       checkpoint ? checkpoint : r->model_name_or_path, checkpoint ? "saved" : "began with");
    if (!good) {
        train_close(t);
        return NULL;
    }
    t->state.weight_hash = hash;
    t->same_path = path_fits(t, run->path);
    t->report = report_open(out, t->steps);
    t->collector = (Collector){.recipe = r,
                               .tok = t->model.tok,
                               .form = t->form,
                               .engine = t->engine,
                               .reward = t->reward,
                               .source = t->source,
                               .next_place = t->state.next_place};
    return t;
}

void train_end(Trainer *t, const char *outcome) {
    Err err = {0};
    if (t->store && t->attempt && !store_attempt_end(t->store, t->attempt, outcome, &err))
        report_note(t->report, "%s", err.msg);
}

void train_close(Trainer *t) {
    if (!t) return;
    report_close(t->report);
    from_round_free(t);
    past_close(&t->from);
    guards_free(&t->guards);
    metrics_close(t->metrics);
    store_close(t->store);
    store_eval_free(&t->before);
    store_eval_free(&t->after);
    store_step_free(&t->stored);
    arena_free(&t->round_arena);
    learner_close(t->learner);
    engine_close(t->engine);
    policy_close(t->reference);
    if (t->reference_file) model_file_close(t->reference_file);
    model_close(&t->model);
    if (t->source) source_close(t->source);
    if (t->eval_source) source_close(t->eval_source);
    reward_close(t->reward);
    arena_free(&t->arena);
    free(t);
}
