/* recipe_resolve.c: what the keys of a recipe mean together: what follows from them, what contradicts what, and
 * what the user should be told. Reading is recipe.c's. Tested by tests/test_rl_recipe.c.
 */
#include "rl/recipe.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "datasets/datasets.h"
#include "reward/reward.h"

static bool is_given(const Recipe *recipe, const char *name) {
    int row = recipe_key_find(name);
    CHECK(row >= 0, "no key %s", name);
    return recipe->given[row] != 0;
}

static void note_add(Recipe *recipe, const char *text) {
    TextList *notes = &recipe->notes;
    const char **at = arena_alloc(&recipe->arena, (size_t)notes->n + 1, sizeof *at);
    if (notes->n) memcpy(at, notes->at, (size_t)notes->n * sizeof *at);
    at[notes->n++] = text;
    notes->at = at;
}

/* One line for each reason, with all the keys that it holds for. */
static void unneeded_note(Recipe *recipe) {
    bool told[RECIPE_KEYS_MAX] = {false};
    for (int i = 0; i < recipe_n_keys; i++) {
        if (recipe_keys[i].fate != KEY_UNNEEDED || !recipe->given[i] || told[i]) continue;
        Buf names = {0};
        buf_text(&names, recipe_keys[i].name);
        for (int j = i + 1; j < recipe_n_keys; j++) {
            if (recipe_keys[j].fate != KEY_UNNEEDED || !recipe->given[j]) continue;
            if (strcmp(recipe_keys[j].help, recipe_keys[i].help) != 0) continue;
            buf_format(&names, ", %s", recipe_keys[j].name);
            told[j] = true;
        }
        note_add(recipe, arena_format(&recipe->arena, "%s: not needed here: %s", names.p, recipe_keys[i].help));
        buf_free(&names);
    }
}

/* Several files have one name. */
static bool datasets_resolve(Recipe *r, Err *err) {
    if (!r->datasets.n) return true;
    if (is_given(r, "dataset_name")) note_add(r, "dataset_name: not needed here: datasets goes first, as in TRL");
    Buf names = {0};
    for (int i = 0; i < r->datasets.n; i++) buf_format(&names, "%s%s", i ? ", " : "", r->datasets.at[i]);
    r->dataset_name = arena_text(&r->arena, names.p, names.n);
    buf_free(&names);
    for (int i = 0; i < r->datasets.n; i++)
        if (strncmp(r->datasets.at[i], "generate:", 9) == 0)
            return err_set(err, "datasets: %s is no file: generators are joined by + in dataset_name",
                           r->datasets.at[i]);
    return true;
}

static bool required_check(const Recipe *recipe, Err *err) {
    if (!recipe->model_name_or_path)
        return err_set(err, "no model is named: --model_name_or_path FOLDER, or a .gguf file");
    if (!recipe->dataset_name && !recipe->datasets.n)
        return err_set(err, "no problems are named: --dataset_name FILE.jsonl, or generate:SPEC");
    if (!recipe->output_dir) return err_set(err, "no folder for the run is named: --output_dir FOLDER");
    return true;
}

/* TRL's: generation_batch_size = per_device_train_batch_size * steps_per_generation, either of which may be given.
 */
static bool batches_resolve(Recipe *r, Err *err) {
    long per_device = r->per_device_train_batch_size * r->num_processes;
    r->batch_samples = per_device * r->gradient_accumulation_steps;
    if (!r->generation_batch_size)
        r->generation_batch_size =
            per_device * (r->steps_per_generation ? r->steps_per_generation : r->gradient_accumulation_steps);
    if (r->steps_per_generation && r->generation_batch_size != per_device * r->steps_per_generation)
        return err_set(err,
                       "generation_batch_size %ld and steps_per_generation %ld contradict each other (with "
                       "per_device_train_batch_size %ld): give one of them",
                       r->generation_batch_size, r->steps_per_generation, per_device);
    if (r->batch_samples % r->num_generations)
        return err_set(
            err,
            "an update has %ld samples (per_device_train_batch_size %ld x gradient_accumulation_steps %ld), "
            "which num_generations %ld does not divide",
            r->batch_samples, per_device, r->gradient_accumulation_steps, r->num_generations);
    if (r->generation_batch_size % r->batch_samples)
        return err_set(err,
                       "generation_batch_size %ld is not a multiple of the %ld samples of an update "
                       "(per_device_train_batch_size x gradient_accumulation_steps)",
                       r->generation_batch_size, r->batch_samples);
    r->steps_per_generation = r->generation_batch_size / per_device;
    r->batch_groups = r->batch_samples / r->num_generations;
    r->generation_groups = r->generation_batch_size / r->num_generations;
    r->updates_per_generation = r->generation_batch_size / r->batch_samples * r->num_iterations;
    return true;
}

static bool schedule_check(Recipe *r, Err *err) {
    if (r->warmup_steps > 0 && r->warmup_ratio > 0)
        return err_set(err, "warmup_steps %g and warmup_ratio %g contradict each other: give one of them",
                       r->warmup_steps, r->warmup_ratio);
    if (r->warmup_steps > 1 && r->warmup_steps != floor(r->warmup_steps))
        return err_set(err, "warmup_steps %g must be whole, or a share below 1", r->warmup_steps);
    const double every[] = {r->logging_steps, r->save_steps, r->eval_steps};
    static const char *const names[] = {"logging_steps", "save_steps", "eval_steps"};
    for (int i = 0; i < 3; i++)
        if (every[i] > 1 && every[i] != floor(every[i]))
            return err_set(err, "%s %g must be whole, or a share below 1", names[i], every[i]);
    bool lowest = strcmp(r->lr_scheduler_type, "cosine_with_min_lr") == 0;
    if (lowest &&
        ((r->min_lr > 0 && r->min_lr_rate > 0) || (!is_given(r, "min_lr") && !is_given(r, "min_lr_rate"))))
        return err_set(err, "lr_scheduler_type cosine_with_min_lr wants one of min_lr and min_lr_rate");
    if (r->min_lr > r->learning_rate)
        return err_set(err, "min_lr %g is above learning_rate %g", r->min_lr, r->learning_rate);
    if (r->max_steps == 0)
        return err_set(err, "max_steps is 0: nothing would be learnt; `whet eval` measures a model");
    if (strcmp(r->lr_scheduler_type, "constant") == 0 && (r->warmup_steps > 0 || r->warmup_ratio > 0))
        note_add(r, "lr_scheduler_type constant has no warm-up, as in TRL; constant_with_warmup has one");
    return true;
}

/* Names under which TRL and open-r1 know a judge that exists here. */
static void reward_names_read(Recipe *r) {
    for (int i = 0; i < r->reward_funcs.n; i++) {
        const char *name = r->reward_funcs.at[i], *here = reward_alias(name);
        if (!here) continue;
        r->reward_funcs.at[i] = here;
        note_add(
            r, arena_format(&r->arena, "reward_funcs: %s is called %s here%s", name, here,
                            strcmp(name, "length") == 0
                                ? " (open-r1's `length`, which compares the answers of a group, is not to be had)"
                                : ""));
        if (strcmp(name, "get_soft_overlong_punishment") == 0) { /* TRL's script fixes them */
            if (!r->max_completion_len) r->max_completion_len = 1280;
            if (!r->soft_punish_cache) r->soft_punish_cache = 256;
        }
    }
    if (!r->max_completion_len) r->max_completion_len = r->max_completion_length;
    if (!r->soft_punish_cache) r->soft_punish_cache = (r->max_completion_len + 4) / 5;
    if (!r->cosine_max_len) r->cosine_max_len = r->max_completion_length;
}

static bool rewards_resolve(Recipe *r, Err *err) {
    int n = r->reward_funcs.n;
    if (!n) return err_set(err, "reward_funcs is empty: name at least one judge, such as math");
    reward_names_read(r);
    for (int i = 0; i < n; i++) {
        if (!*r->reward_funcs.at[i]) return err_set(err, "reward_funcs has an empty name");
        for (int j = 0; j < i; j++)
            if (strcmp(r->reward_funcs.at[i], r->reward_funcs.at[j]) == 0)
                return err_set(err, "reward_funcs names %s twice", r->reward_funcs.at[i]);
    }
    if (r->reward_kinds.n && r->reward_kinds.n != n)
        return err_set(err, "reward_kinds has %d patterns for %d reward_funcs", r->reward_kinds.n, n);
    if (r->soft_punish_cache > r->max_completion_len)
        return err_set(err, "soft_punish_cache %ld is more than max_completion_len %ld", r->soft_punish_cache,
                       r->max_completion_len);
    if (!r->reward_weights.n) {
        r->reward_weights = (NumberList){arena_alloc(&r->arena, (size_t)n, sizeof(double)), n};
        for (int i = 0; i < n; i++) r->reward_weights.at[i] = 1;
    }
    if (r->reward_weights.n != n)
        return err_set(err, "reward_weights has %d numbers for %d reward_funcs", r->reward_weights.n, n);
    for (int i = 0; i < n; i++)
        if (r->reward_weights.at[i] != 0) return true;
    return err_set(err, "reward_weights are all 0: nothing would be learnt");
}

static bool sampling_check(Recipe *r, Err *err) {
    if (r->top_k < 0) r->top_k = 0;
    if (!is_given(r, "epsilon_high")) r->epsilon_high = r->epsilon;
    double most = r->vllm_importance_sampling_clip_max;
    if (most > 0 && r->vllm_importance_sampling_clip_min >= most)
        return err_set(
            err, "vllm_importance_sampling_clip_min %g must be less than vllm_importance_sampling_clip_max %g",
            r->vllm_importance_sampling_clip_min, most);
    if (r->from_store && strcmp(r->sampling_weights, "int8") == 0)
        return err_set(err, "sampling_weights int8: with from_store nothing is sampled: leave it out");
    for (int i = 0; i < r->stop_strings.n; i++)
        if (!*r->stop_strings.at[i])
            return err_set(err, "stop_strings has an empty text: every answer would be empty");
    for (int i = 0; i < r->frozen.n; i++)
        if (!*r->frozen.at[i]) return err_set(err, "frozen has an empty pattern");
    if (r->prompt_template && (r->system_prompt || r->chat_template))
        return err_set(err, "prompt_template and %s contradict each other: it says all that a prompt holds",
                       r->system_prompt ? "system_prompt" : "chat_template");
    if (!r->prompt_template) return true;
    Span spans[TEMPLATE_SPANS_MAX];
    Err why = {0};
    if (template_render(spans, r->prompt_template, "x", &why) >= 0) return true;
    return err_set(err, "prompt_template: %s", why.msg);
}

static bool adapters_check(Recipe *r, Err *err) {
    static const char *const keys[] = {"lora_r", "lora_alpha", "lora_target_modules", "use_rslora",
                                       "lora_dropout"};
    for (size_t i = 0; !r->use_peft && i < sizeof keys / sizeof *keys; i++)
        if (is_given(r, keys[i])) {
            note_add(r, arena_format(&r->arena, "%s: not needed here: there are no adapters without use_peft",
                                     keys[i]));
            break;
        }
    if (!r->use_peft) return true;
    if (r->lora_dropout > 0)
        return err_set(
            err,
            "lora_dropout %g: with dropout the learner would compute another function than the one that "
            "was sampled from; say lora_dropout: 0",
            r->lora_dropout);
    if (r->frozen.n)
        return err_set(err,
                       "frozen and use_peft contradict each other: with adapters, lora_target_modules says what "
                       "learns");
    if (!r->lora_target_modules.n && is_given(r, "lora_target_modules"))
        return err_set(err, "lora_target_modules is empty: name linears, or all-linear");
    if (!r->lora_target_modules.n) { /* PEFT's */
        const char **both = arena_alloc(&r->arena, 3, sizeof *both);
        both[0] = "q_proj", both[1] = "v_proj";
        r->lora_target_modules = (TextList){both, 2};
    }
    if (!is_given(r, "lora_dropout")) note_add(r, "lora_dropout is 0 here (TRL's default is 0.05)");
    return true;
}

/* ---- advantages and loss ---- */

/* Keys that say nothing beside another key's value: whoever sets them is told. */
static const struct {
    const char *key, *of, *values; /* "of" must have one of the values, apart by | */
} only_with[] = {
    {"delta", "loss_type", "grpo|dr_grpo|dapo|bnpo|luspo|clip_cov"},
    {"sapo_temperature_pos", "loss_type", "sapo"},
    {"sapo_temperature_neg", "loss_type", "sapo"},
    {"vespo_k_pos", "loss_type", "vespo"},
    {"vespo_lambda_pos", "loss_type", "vespo"},
    {"vespo_k_neg", "loss_type", "vespo"},
    {"vespo_lambda_neg", "loss_type", "vespo"},
    {"clip_cov_ratio", "loss_type", "clip_cov"},
    {"clip_cov_lb", "loss_type", "clip_cov"},
    {"clip_cov_ub", "loss_type", "clip_cov"},
    {"kl_cov_ratio", "loss_type", "kl_cov"},
    {"ppo_kl_coef", "loss_type", "kl_cov"},
    {"importance_sampling_level", "loss_type", "grpo|dr_grpo|dapo|bnpo|luspo|cispo|sapo"},
    {"num_cycles", "lr_scheduler_type", "cosine|cosine_with_restarts|cosine_with_min_lr"},
    {"min_lr", "lr_scheduler_type", "cosine_with_min_lr"},
    {"min_lr_rate", "lr_scheduler_type", "cosine_with_min_lr"},
    {"scale_rewards", "advantage_estimator", "grpo|grpo_passk"},
    {"max_generation_batches", "dynamic_sampling", "reward|accuracy"},
};

static bool is_one_of(const char *word, const char *words) {
    size_t n = strlen(word);
    for (const char *p = words; *p; p += strcspn(p, "|"), p += *p == '|')
        if (strcspn(p, "|") == n && strncmp(p, word, n) == 0) return true;
    return false;
}

static const char *text_of(const Recipe *r, const char *key) {
    return *(const char *const *)((const char *)r + recipe_keys[recipe_key_find(key)].at);
}

/* Whether the key's field has another value than by default. */
static bool is_changed(const Recipe *r, const char *key) {
    Recipe plain;
    recipe_default(&plain);
    const RecipeKey *row = &recipe_keys[recipe_key_find(key)];
    const char *now = (const char *)r + row->at, *before = (const char *)&plain + row->at;
    bool same = row->type == KEY_TEXT     ? strcmp(*(const char *const *)now, *(const char *const *)before) == 0
                : row->type == KEY_NUMBER ? *(const double *)now == *(const double *)before
                                          : *(const long *)now == *(const long *)before;
    recipe_free(&plain);
    return !same;
}

static void idle_notes(Recipe *r) {
    for (size_t i = 0; i < sizeof only_with / sizeof *only_with; i++) {
        const char *key = only_with[i].key, *word = text_of(r, only_with[i].of);
        if (!is_given(r, key) || is_one_of(word, only_with[i].values) || !is_changed(r, key)) continue;
        note_add(r, arena_format(&r->arena, "%s: changes nothing with %s %s", key, only_with[i].of, word));
    }
}

static bool objective_check(Recipe *r, Err *err) {
    bool by_part = strcmp(r->multi_objective_aggregation, "normalize_then_sum") == 0;
    bool by_token = strcmp(r->importance_sampling_level, "token") == 0;
    if (by_part && strcmp(r->advantage_estimator, "grpo") != 0)
        return err_set(err,
                       "multi_objective_aggregation normalize_then_sum is a form of advantage_estimator grpo, not "
                       "of %s",
                       r->advantage_estimator);
    if (by_part && r->kl_in_reward)
        return err_set(err,
                       "kl_in_reward asks for one reward, which multi_objective_aggregation normalize_then_sum "
                       "does not have");
    if (r->kl_in_reward && r->beta == 0)
        return err_set(err, "kl_in_reward without a weight: say beta, for example 0.05");
    if (r->sync_ref_model && r->use_peft)
        return err_set(err,
                       "sync_ref_model and use_peft contradict each other: the reference is the model without "
                       "its adapters");
    if (r->sync_ref_model && r->beta == 0)
        return err_set(err, "sync_ref_model without a reference: it is there with beta above 0 only");
    if (!by_token && is_one_of(r->loss_type, "clip_cov|kl_cov"))
        return err_set(err, "loss_type %s goes with importance_sampling_level token only", r->loss_type);
    if (r->delta > 0 && r->delta <= 1 + r->epsilon_high && is_one_of(r->loss_type, only_with[0].values))
        return err_set(err, "delta %g is inside the clip of 1 + epsilon_high %g: raise it", r->delta,
                       r->epsilon_high);
    if (r->clip_cov_lb >= r->clip_cov_ub)
        return err_set(err, "clip_cov_lb %g is not below clip_cov_ub %g", r->clip_cov_lb, r->clip_cov_ub);
    if (r->entropy_coef_min > r->entropy_coef_max)
        return err_set(err, "entropy_coef_min %g is above entropy_coef_max %g", r->entropy_coef_min,
                       r->entropy_coef_max);
    idle_notes(r);
    return true;
}

static bool is_generator(const char *name) { return strncmp(name, "generate:", 9) == 0; }

static bool eval_resolve(Recipe *r, Err *err) {
    if (!r->eval_dataset_name && !is_given(r, "eval_dataset_name") && is_generator(r->dataset_name) &&
        strstr(r->dataset_name, "held="))
        r->eval_dataset_name = r->dataset_name;
    r->eval_held_out =
        r->eval_dataset_name && is_generator(r->eval_dataset_name) && strstr(r->eval_dataset_name, "held=");
    if (!r->eval_dataset_name && r->eval_steps > 0)
        note_add(r, "eval_steps: nothing is measured, as there is nothing to measure on: eval_dataset_name");
    if (r->num_generations_eval > 1 && r->eval_temperature == 0)
        return err_set(err,
                       "num_generations_eval %ld with eval_temperature 0 would give the same answer %ld times",
                       r->num_generations_eval, r->num_generations_eval);
    if (r->eval_dataset_name && !r->eval_held_out && strcmp(r->eval_dataset_name, r->dataset_name) == 0)
        note_add(r, "eval_dataset_name is dataset_name: what is measured is what is learnt");
    return true;
}

static bool resume_resolve(Recipe *r, Err *err) {
    const char *from = r->resume_from_checkpoint;
    if (from && strcasecmp(from, "true") == 0) r->resume_from_checkpoint = "last";
    if (from && strcasecmp(from, "false") == 0) r->resume_from_checkpoint = NULL;
    if (r->resume_from_checkpoint && r->overwrite_output_dir)
        return err_set(err,
                       "resume_from_checkpoint and overwrite_output_dir contradict each other: give one of them");
    return true;
}

static bool from_store_check(const Recipe *r, Err *err) {
    if (!r->from_store) return true;
    if (r->updates_per_generation != 1)
        return err_set(
            err,
            "from_store learns from each batch once: num_iterations 1, and generation_batch_size as an update");
    if (strcmp(r->dynamic_sampling, "none") != 0)
        return err_set(err, "from_store samples nothing: dynamic_sampling must be none");
    return strcmp(r->advantage_estimator, "remax") != 0 ||
           err_set(
               err,
               "from_store samples nothing, and advantage_estimator remax wants a greedy answer: choose another");
}

bool recipe_resolve(Recipe *recipe, Err *err) {
    unneeded_note(recipe);
    return required_check(recipe, err) && datasets_resolve(recipe, err) && batches_resolve(recipe, err) &&
           schedule_check(recipe, err) && rewards_resolve(recipe, err) && sampling_check(recipe, err) &&
           adapters_check(recipe, err) && objective_check(recipe, err) && eval_resolve(recipe, err) &&
           resume_resolve(recipe, err) && from_store_check(recipe, err);
}

long recipe_every(double steps, long updates) { return (long)(steps < 1 ? ceil((double)updates * steps) : steps); }

long recipe_updates(const Recipe *recipe, long problems) {
    if (recipe->max_steps > 0) return recipe->max_steps;
    double epoch = (double)(problems / recipe->generation_groups) * (double)recipe->updates_per_generation;
    return (long)ceil(fmin(epoch * recipe->num_train_epochs, 1e15));
}
