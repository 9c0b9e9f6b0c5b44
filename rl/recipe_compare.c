/* recipe_compare.c: whether a run can go on with a recipe: which keys may differ from those that it was begun
 * with. Tested by tests/test_rl_train.c. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "rl/recipe.h"

/* Keys that change no weights: where things lie, what is said, kept and measured, how the machine is used. */
static const char *const free_keys[] = {
    "output_dir",
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "logging_steps",
    "save_steps",
    "save_total_limit",
    "eval_dataset_name",
    "eval_steps",
    "eval_on_start",
    "num_generations_eval",
    "eval_temperature",
    "max_eval_samples",
    "metric_for_best_model",
    "device",
    "cpu_path",
    "threads",
    "slots",
    "micro_batch_tokens",
    "max_memory",
    "reward_exec_workers",
    "reward_exec_parallel",
    "reward_exec_deadline",
    "max_unjudged",
    "max_skipped",
    "allow_weak_sandbox",
    "model_name_or_path",
};

static bool is_free(const char *key, bool constant_rate) {
    for (size_t i = 0; i < sizeof free_keys / sizeof free_keys[0]; i++)
        if (strcmp(key, free_keys[i]) == 0) return true;
    /* A longer run is the same run so far, unless the learning rate depends on its length. */
    return constant_rate && (strcmp(key, "max_steps") == 0 || strcmp(key, "num_train_epochs") == 0);
}

char *recipe_difference(const char *before, const char *now) {
    json_t *a = json_loads(before, 0, NULL), *b = json_loads(now, 0, NULL);
    const char *rate = json_string_value(json_object_get(b, "lr_scheduler_type"));
    bool constant = rate && strcmp(rate, "constant") == 0;
    char *found = NULL;
    const char *key;
    json_t *value;
    json_object_foreach(b, key, value) {
        if (found || is_free(key, constant)) continue;
        json_t *was = json_object_get(a, key);
        if (was && !json_equal(was, value)) found = mem_text(key); /* a key that is new in whet had its default */
    }
    json_decref(a);
    json_decref(b);
    return found;
}
