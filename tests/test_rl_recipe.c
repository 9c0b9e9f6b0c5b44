/* Tests of rl/recipe*.c: reading YAML and flags, checks, what follows from keys, printing, and TRL's list of keys.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datasets/datasets.h"
#include "rl/recipe.h"

#define NEEDED "model_name_or_path: m\ndataset_name: d.jsonl\noutput_dir: o\n"

/* YAML (after the three keys that every recipe needs), then flags apart by blanks. */
static bool load(Recipe *recipe, const char *yaml, const char *flags, Err *err) {
    char *argv[32], *rest, *copy = mem_text(flags ? flags : "");
    int argc = 0;
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) argv[argc++] = word;
    Buf text = {0};
    buf_format(&text, NEEDED "%s", yaml ? yaml : "");
    recipe_default(recipe);
    *err = (Err){0};
    bool good = recipe_read_yaml(recipe, text.p, text.n, "r.yaml", err) &&
                recipe_read_flags(recipe, argc, argv, err) && recipe_resolve(recipe, err);
    buf_free(&text);
    free(copy);
    return good;
}

static Recipe load_good(const char *yaml, const char *flags) {
    Recipe recipe;
    Err err;
    bool good = load(&recipe, yaml, flags, &err);
    if (!good) print_error("%s\n", err.msg);
    assert_true(good);
    return recipe;
}

static void refused(const char *yaml, const char *flags, const char *what) {
    Recipe recipe;
    Err err;
    assert_false(load(&recipe, yaml, flags, &err));
    if (!strstr(err.msg, what)) print_error("%s\n", err.msg);
    assert_non_null(strstr(err.msg, what));
    assert_null(strchr(err.msg, '\n'));
    recipe_free(&recipe);
}

static void test_defaults(void **state) {
    (void)state;
    Recipe r = load_good(NULL, NULL);
    assert_string_equal(r.model_name_or_path, "m");
    assert_null(r.eval_dataset_name);
    assert_int_equal(r.seed, 42);
    assert_true(r.learning_rate == 1e-6 && r.num_train_epochs == 3 && r.epsilon_high == 0.2 &&
                r.adam_beta2 == 0.999);
    assert_int_equal(r.num_generations, 8);
    assert_int_equal(r.batch_groups, 1);
    assert_int_equal(r.generation_batch_size, 8);
    assert_int_equal(r.updates_per_generation, 1);
    assert_string_equal(r.loss_type, "dapo");
    assert_string_equal(r.dtype, "bfloat16");
    assert_int_equal(r.reward_funcs.n, 1);
    assert_string_equal(r.reward_funcs.at[0], "math");
    assert_true(r.reward_weights.n == 1 && r.reward_weights.at[0] == 1);
    assert_int_equal(r.notes.n, 0);
    recipe_free(&r);
}

static void test_yaml_values(void **state) {
    (void)state;
    Recipe r = load_good("# a comment\n"
                         "learning_rate: 2.0e-05\nmax_steps: 1000\nseed: 9007199254740993\n"
                         "reward_funcs:\n- math\n- format\nreward_weights: [1.0, 0.1]\n"
                         "prompt_template: \"a\\n{problem}\\tb\"\n"
                         "stop_strings: [\"a,b\", '\n\n']\nfrozen: model.embed*, lm_head*\n"
                         "scale_rewards: False\nmask_truncated_completions: yes\nmax_memory: 8G\n"
                         "epsilon_high: null\ntop_k: -1\nbf16: true\ntorch_dtype: bfloat16\n",
                         NULL);
    assert_true(r.learning_rate == 2e-5);
    assert_int_equal(r.max_steps, 1000);
    assert_int_equal(r.seed, 9007199254740993);
    assert_int_equal(r.reward_funcs.n, 2);
    assert_string_equal(r.reward_funcs.at[1], "format");
    assert_true(r.reward_weights.at[1] == 0.1);
    assert_string_equal(r.prompt_template, "a\n{problem}\tb");
    assert_int_equal(r.stop_strings.n, 2);
    assert_string_equal(r.stop_strings.at[0], "a,b");
    assert_int_equal(r.frozen.n, 2);
    assert_string_equal(r.frozen.at[1], "lm_head*");
    assert_string_equal(r.scale_rewards, "none");
    assert_true(r.mask_truncated_completions);
    assert_true(r.max_memory == (int64_t)8 << 30);
    assert_true(r.epsilon_high == 0.2);
    assert_int_equal(r.top_k, 0);
    assert_string_equal(r.dtype, "bfloat16");
    recipe_free(&r);
}

static void test_flags(void **state) {
    (void)state;
    Recipe r = load_good("learning_rate: 1e-6\nshuffle_dataset: true\nreward_funcs: [format]\n",
                         "--learning_rate 2e-5 --max_steps=-1 --no_shuffle_dataset --overwrite_output_dir "
                         "--mask-truncated-completions true --reward_funcs math format --reward_weights 1,0.5 "
                         "--eval_on_start=false --use_vllm --max_memory 1.5GiB --bf16 false");
    assert_true(r.learning_rate == 2e-5);
    assert_int_equal(r.max_steps, -1);
    assert_false(r.shuffle_dataset);
    assert_true(r.overwrite_output_dir);
    assert_true(r.mask_truncated_completions);
    assert_int_equal(r.reward_funcs.n, 2);
    assert_true(r.reward_weights.at[1] == 0.5);
    assert_false(r.eval_on_start);
    assert_true(r.max_memory == (int64_t)3 << 29);
    assert_string_equal(r.dtype, "float32");
    assert_int_equal(r.notes.n, 1);
    assert_string_equal(r.notes.at[0], "use_vllm: not needed here: whet samples with its own engine");
    recipe_free(&r);
    r = load_good("dtype: bfloat16\n", "--dtype float32"); /* a flag overrides the file */
    assert_string_equal(r.dtype, "float32");
    recipe_free(&r);
    refused(NULL, "--learning_rate", "--learning_rate: wants a value");
    refused(NULL, "--learning_rate --seed 1", "--learning_rate: wants a value");
    refused(NULL, "--learning_rat 1", "there is no key learning_rat; did you mean learning_rate?");
    refused(NULL, "--seed 1 2", "2: a flag was expected here");
    refused(NULL, "-seed 1", "-seed: a flag was expected here");
    refused(NULL, "--", "no such key");
    refused(NULL, "--seed=1.5", "--seed: seed is 1.5 and must be a whole number");
    refused(NULL, "--device tpu", "must be one of auto");
    refused(NULL, "--output_dir=\xff", "not valid UTF-8");
}

static void test_yaml_refused(void **state) {
    (void)state;
    refused("num_generation: 4\n", NULL,
            "r.yaml, line 4: there is no key num_generation; did you mean num_generations?");
    refused("quite_another_thing: 4\n", NULL, "there is no key quite_another_thing; `whet help train` lists them");
    refused("learning_rate: fast\n", NULL, "line 4: learning_rate is fast and must be a number");
    refused("learning_rate: nan\n", NULL, "must be a number");
    refused("temperature: 0\n", NULL, "temperature is 0 and must be at least 0.001");
    refused("top_p: 0\n", NULL, "top_p is 0 and must be above 0");
    refused("top_p: 1.5\n", NULL, "top_p is 1.5 and must be at most 1");
    refused("num_generations: 1\n", NULL, "must be at least 2");
    refused("loss_type: ppo\n", NULL, "loss_type is ppo and must be one of grpo, dr_grpo, dapo, bnpo, luspo");
    refused("scale_rewards: some\n", NULL, "must be one of group, batch, none");
    refused("shuffle_dataset: maybe\n", NULL, "must be true or false");
    refused("max_memory: 8 elephants\n", NULL, "must be a size such as 8G");
    refused("seed: [1, 2]\n", NULL, "seed wants one value, not a list");
    refused("seed: {a: 1}\n", NULL, "seed wants a value, not keys of its own");
    refused("reward_weights: [a]\n", NULL, "reward_weights has a and must have numbers");
    refused("seed: 1\nseed: 2\n", NULL, "line 5: seed stands in line 4 already, with another value");
    refused("dtype: float32\nbf16: true\n", NULL, "line 5: dtype stands in line 4 already");
    refused("bf16: perhaps\n", NULL, "bf16 is perhaps");
    refused("seed: [1\n", NULL, "not YAML");
    refused("- seed\n", NULL, "not YAML");
    refused("? [a]\n: b\n", NULL, "a key must be a name");
    Recipe r;
    Err err = {0};
    recipe_default(&r);
    assert_false(recipe_read_yaml(&r, "- a\n- b\n", 8, "list.yaml", &err));
    assert_non_null(strstr(err.msg, "list.yaml: a recipe is lines of `key: value`"));
    assert_true(recipe_read_yaml(&r, "# nothing\n", 10, "empty.yaml", &err));
    assert_false(recipe_resolve(&r, &err));
    assert_non_null(strstr(err.msg, "no model is named"));
    recipe_free(&r);
    assert_false(recipe_load(&r, "/nowhere.yaml", 0, NULL, &err));
    assert_non_null(strstr(err.msg, "cannot open the recipe /nowhere.yaml: No such file"));
    recipe_free(&r);
    assert_false(recipe_load(&r, "/tmp", 0, NULL, &err));
    assert_non_null(strstr(err.msg, "cannot read the recipe /tmp: Is a directory"));
    recipe_free(&r);
}

static void test_contradictions(void **state) {
    (void)state;
    refused("num_generations: 16\n", NULL, "an update has 8 samples");
    refused("generation_batch_size: 12\n", NULL, "generation_batch_size 12 is not a multiple of the 8 samples");
    refused("generation_batch_size: 16\nsteps_per_generation: 3\n", NULL, "contradict each other");
    refused("warmup_steps: 3\nwarmup_ratio: 0.1\n", NULL, "warmup_steps 3 and warmup_ratio 0.1 contradict");
    refused("warmup_steps: 3.5\n", NULL, "must be whole");
    refused("max_steps: 0\n", NULL, "nothing would be learnt");
    refused("reward_funcs: [math, format]\nreward_weights: [1]\n", NULL, "1 numbers for 2 reward_funcs");
    refused("reward_funcs: [math, math]\n", NULL, "names math twice");
    refused("reward_weights: [0]\n", NULL, "are all 0");
    refused("reward_funcs: [accuracy, math]\n", NULL, "names math twice");
    refused("datasets: [{path: a, fraction: 0.3}]\n", NULL,
            "line 4: fraction of datasets would change the result");
    refused("datasets: [{name: a}]\n", NULL, "each of datasets wants a path");
    refused("datasets: ['generate:sums']\n", NULL, "generate:sums is no file");
    refused("save_steps: 7.5\n", NULL, "save_steps 7.5 must be whole, or a share below 1");
    refused("lr_scheduler_type: cosine_with_min_lr\n", NULL, "wants one of min_lr and min_lr_rate");
    refused("lr_scheduler_type: cosine_with_min_lr\nmin_lr: 1e-7\nmin_lr_rate: 0.1\n", NULL, "wants one of");
    refused("lr_scheduler_type: cosine_with_min_lr\nmin_lr: 1e-3\n", NULL, "min_lr 0.001 is above learning_rate");
    refused("lr_scheduler_kwargs: {learning_rate: 1}\n", NULL,
            "r.yaml, line 4: lr_scheduler_kwargs has no key learning_rate");
    refused("lr_scheduler_kwargs:\n  lr_end: 0\n", NULL, "line 5: lr_scheduler_kwargs has no key lr_end");
    refused("lr_scheduler_kwargs: 3\n", NULL, "wants keys of its own");
    refused(NULL, "--lr_scheduler_kwargs min_lr",
            "--lr_scheduler_kwargs: lr_scheduler_kwargs wants keys of its own");
    refused("system_prompt: s\nprompt_template: '{problem}'\n", NULL,
            "prompt_template and system_prompt contradict");
    refused("num_generations_eval: 4\n", NULL, "the same answer 4 times");
    refused("prompt_template: solve this\n", NULL, "prompt_template: the prompt template has no {problem}");
    refused("stop_strings: ['']\n", NULL, "stop_strings has an empty text");
    refused("resume_from_checkpoint: true\noverwrite_output_dir: true\n", NULL, "contradict each other");
    refused("use_peft: true\nlora_dropout: 0.05\n", NULL, "lora_dropout 0.05: with dropout");
    refused("use_peft: true\nfrozen: '*.mlp.*'\n", NULL, "frozen and use_peft contradict each other");
    refused("use_peft: true\nlora_target_modules: []\n", NULL, "lora_target_modules is empty");
    refused("use_dora: true\n", NULL, "use_dora: true would change the result and is not to be had here");
    refused("generation_kwargs: {top_k: 3}\n", NULL, "generation_kwargs: {...} would change the result");
    refused("sync_ref_model: true\n", NULL, "sync_ref_model without a reference");
    refused("sync_ref_model: true\nuse_peft: true\nbeta: 1\n", NULL, "sync_ref_model and use_peft");
    refused("kl_in_reward: true\n", NULL, "kl_in_reward without a weight");
    refused("multi_objective_aggregation: normalize_then_sum\nadvantage_estimator: rloo\n", NULL, "not of rloo");
    refused("multi_objective_aggregation: normalize_then_sum\nbeta: 1\nkl_in_reward: true\n", NULL, "one reward");
    refused("loss_type: kl_cov\nimportance_sampling_level: sequence\n", NULL, "goes with");
    refused("delta: 1.1\n", NULL, "inside the clip");
    refused("clip_cov_lb: 7\n", NULL, "not below clip_cov_ub");
    refused("entropy_coef_min: 2\n", NULL, "above entropy_coef_max");
    refused(NULL, "--load_in_4bit", "load_in_4bit: true would change the result");
}

static void test_what_follows(void **state) {
    (void)state;
    Recipe r = load_good("per_device_train_batch_size: 16\ngradient_accumulation_steps: 4\nnum_generations: 8\n"
                         "steps_per_generation: 8\nnum_iterations: 2\nnum_train_epochs: 1.5\n"
                         "warmup_ratio: 0.1\nlr_scheduler_type: constant\nreward_funcs: accuracy_reward\n"
                         "gradient_checkpointing: true\ngradient_checkpointing_kwargs:\n  use_reentrant: false\n"
                         "resume_from_checkpoint: true\nrepetition_penalty: 1.0\nlr_scheduler_kwargs: {}\n",
                         NULL);
    assert_int_equal(r.batch_samples, 64);
    assert_int_equal(r.batch_groups, 8);
    assert_int_equal(r.generation_batch_size, 128);
    assert_int_equal(r.generation_groups, 16);
    assert_int_equal(r.updates_per_generation, 4);
    assert_int_equal(recipe_updates(&r, 100), 36); /* 6 full batches x 4 updates x 1.5 passes */
    assert_int_equal(recipe_updates(&r, 15), 0);
    assert_string_equal(r.resume_from_checkpoint, "last");
    assert_string_equal(r.reward_funcs.at[0], "math");
    assert_int_equal(r.notes.n, 3); /* the checkpointing keys share a line */
    assert_non_null(
        strstr(r.notes.at[0], "gradient_checkpointing, gradient_checkpointing_kwargs: not needed here"));
    assert_non_null(strstr(r.notes.at[1], "constant has no warm-up"));
    assert_non_null(strstr(r.notes.at[2], "accuracy_reward is called math"));
    recipe_free(&r);
    r = load_good("max_steps: 7\n", NULL);
    assert_int_equal(recipe_updates(&r, 1), 7);
    recipe_free(&r);
    r = load_good(
        "save_steps: 0.1\nlr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs:\n  min_lr_rate: 0.1\n"
        "nproc_per_node: 4\n",
        "--lr_scheduler_kwargs {\"num_cycles\":1.5}");
    assert_true(r.min_lr_rate == 0.1 && r.num_cycles == 1.5);
    assert_int_equal(r.num_processes, 4);
    assert_int_equal(recipe_every(r.save_steps, 101), 11); /* rounded up, as in transformers */
    assert_int_equal(recipe_every(r.eval_steps, 101), 0);
    assert_int_equal(recipe_every(1, 101), 1);
    recipe_free(&r);
    r = load_good("datasets:\n  - path: a.jsonl\n    split: train\n  - path: json\n    data_files: b.jsonl\n",
                  NULL);
    assert_int_equal(r.datasets.n, 2);
    assert_string_equal(r.datasets.at[1], "b.jsonl");
    assert_string_equal(r.dataset_name, "a.jsonl, b.jsonl");
    assert_non_null(strstr(r.notes.at[0], "datasets goes first"));
    recipe_free(&r);
    r = load_good("eval_steps: 5\n", NULL);
    assert_non_null(strstr(r.notes.at[0], "nothing is measured"));
    recipe_free(&r);
    r = load_good(NULL, "--dataset_name generate:sums:held=7,3,4"); /* measured on what it holds out */
    assert_string_equal(r.eval_dataset_name, r.dataset_name);
    assert_true(r.eval_held_out);
    recipe_free(&r);
    r = load_good(NULL, "--dataset_name generate:sums");
    assert_null(r.eval_dataset_name);
    recipe_free(&r);
    r = load_good(NULL, "--dataset_name generate:sums:held=7,3,4 --eval_dataset_name=");
    assert_null(r.eval_dataset_name);
    recipe_free(&r);
    r = load_good("use_peft: true\n", NULL);
    assert_int_equal(r.lora_target_modules.n, 2);
    assert_string_equal(r.lora_target_modules.at[1], "v_proj");
    assert_non_null(strstr(r.notes.at[0], "lora_dropout is 0 here"));
    recipe_free(&r);
    r = load_good("lora_r: 8\nlora_target_modules: all-linear\nlora_dropout: 0.05\n", NULL); /* means nothing */
    assert_int_equal(r.notes.n, 1);
    assert_non_null(strstr(r.notes.at[0], "there are no adapters without use_peft"));
    recipe_free(&r);
    r = load_good("eval_dataset_name: d.jsonl\n", NULL);
    assert_false(r.eval_held_out);
    assert_non_null(strstr(r.notes.at[0], "what is measured is what is learnt"));
    recipe_free(&r);
}

static void round_trip(const char *yaml, const char *flags) {
    Recipe first = load_good(yaml, flags), second;
    Buf a = {0}, b = {0}, x = {0}, y = {0};
    recipe_yaml(&first, &a);
    recipe_json(&first, &x);
    Err err = {0};
    recipe_default(&second);
    assert_true(recipe_read_yaml(&second, a.p, a.n, "printed", &err));
    bool good = recipe_resolve(&second, &err);
    if (!good) print_error("%s\n", err.msg);
    assert_true(good);
    recipe_yaml(&second, &b);
    recipe_json(&second, &y);
    assert_string_equal(a.p, b.p);
    assert_string_equal(x.p, y.p);
    json_error_t bad;
    json_t *json = json_loads(x.p, JSON_REJECT_DUPLICATES, &bad);
    assert_non_null(json);
    int honoured = 0;
    for (int i = 0; i < recipe_n_keys; i++) honoured += recipe_keys[i].fate == KEY_HONOURED;
    assert_int_equal(json_object_size(json), honoured);
    assert_true(json_real_value(json_object_get(json, "learning_rate")) == first.learning_rate);
    assert_int_equal(json_integer_value(json_object_get(json, "num_generations")), first.num_generations);
    assert_int_equal(json_array_size(json_object_get(json, "reward_funcs")), first.reward_funcs.n);
    assert_true(json_is_null(json_object_get(json, "resume_from_checkpoint")));
    if (first.prompt_template)
        assert_string_equal(json_string_value(json_object_get(json, "prompt_template")), first.prompt_template);
    json_decref(json);
    recipe_free(&first);
    recipe_free(&second);
    buf_free(&a);
    buf_free(&b);
    buf_free(&x);
    buf_free(&y);
}

static void test_printing(void **state) {
    (void)state;
    round_trip(NULL, NULL);
    round_trip("lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-7}\nsave_steps: 0.25\n"
               "system_prompt: \"a\\n<think>\"\n",
               NULL);
    round_trip("prompt_template: \"<|u|>\\n{problem}\\u001b \\\"x\\\" \\xe9 # no comment\"\nstop_strings: ['a: "
               "b', '\\']\n"
               "learning_rate: 3.3333333333333335e-7\nmax_memory: 3G\n",
               NULL);
}

static void test_help(void **state) {
    (void)state;
    Buf help = {0};
    recipe_help(&help);
    for (int i = 0; i < recipe_n_keys; i++) {
        const RecipeKey *key = &recipe_keys[i];
        if (key->fate != KEY_HEADING) assert_int_equal(recipe_key_find(key->name), i); /* no name stands twice */
        if (key->fate == KEY_ALIAS) {
            int row = recipe_key_find(key->fallback);
            assert_true(row >= 0 && recipe_keys[row].fate == KEY_HONOURED);
        }
        if (key->fate == KEY_UNNEEDED || key->fate == KEY_REFUSED) assert_true(key->help && *key->help);
        char flag[100];
        snprintf(flag, sizeof flag, "  --%s ", key->name);
        char flag_line[100];
        snprintf(flag_line, sizeof flag_line, "  --%s\n", key->name);
        bool shown = strstr(help.p, flag) || strstr(help.p, flag_line);
        assert_int_equal(shown, key->fate == KEY_HONOURED);
    }
    assert_non_null(strstr(help.p, "(group, batch, none; default group)"));
    assert_non_null(strstr(help.p, "(default 1e-6)"));
    for (const char *line = help.p; *line; line += strcspn(line, "\n") + 1)
        assert_in_range(strcspn(line, "\n"), 0, 115);
    buf_free(&help);
}

/* Every key of TRL is known; at its default it is borne, but for those that are on this list on purpose. */
static void test_trl_keys(void **state) {
    (void)state;
    static const char *const other_defaults[] = {
        "dtype",        "logging_steps",        "save_total_limit",      "eval_on_start", "min_p",
        "reward_funcs", "num_generations_eval", "metric_for_best_model", "eval_steps",    "lora_dropout"};
    Err err = {0};
    Lines *lines = lines_open("tests/goldens/trl_keys.txt", &err);
    if (!lines) print_error("%s (run from the root of the repository)\n", err.msg);
    assert_non_null(lines);
    int count = 0;
    size_t n;
    for (const char *line; (line = lines_next(lines, &n, &err)); count++) {
        char name[80];
        assert_int_equal(sscanf(line, "%79[a-zA-Z0-9_]:", name), 1);
        int row = recipe_key_find(name);
        if (row < 0) print_error("TRL's %s is not in the table\n", name);
        assert_true(row >= 0);
        bool other = false;
        for (size_t i = 0; i < sizeof other_defaults / sizeof *other_defaults; i++)
            other |= strcmp(other_defaults[i], name) == 0;
        if (other) continue;
        Recipe plain, with;
        recipe_default(&plain);
        recipe_default(&with);
        bool good = recipe_read_yaml(&with, line, n, "trl", &err);
        if (!good) print_error("%s\n", err.msg);
        assert_true(good);
        Buf a = {0}, b = {0};
        recipe_json(&plain, &a);
        recipe_json(&with, &b);
        if (strcmp(a.p, b.p) != 0) print_error("TRL's default differs: %s\n", line);
        assert_string_equal(a.p, b.p);
        buf_free(&a);
        buf_free(&b);
        recipe_free(&plain);
        recipe_free(&with);
    }
    assert_int_equal(count, 218);
    lines_close(lines);
}

/* Another value than the one that the key has: of its words, its range or its kind. */
static void other_value(const RecipeKey *key, char *out, size_t room) {
    if (key->type == KEY_SWITCH) {
        snprintf(out, room, "%s", strcmp(key->fallback, "true") == 0 ? "false" : "true");
    } else if (key->type == KEY_WHOLE || key->type == KEY_NUMBER) {
        double now = key->fallback ? strtod(key->fallback, NULL) : key->low, value = now + 1;
        if (value > key->high) value = key->type == KEY_WHOLE ? now - 1 : (now + key->low) / 2;
        if (now == value || value < key->low) value = key->low;
        snprintf(out, room, "%.9g", value);
    } else if (key->type == KEY_TEXT && key->allowed) {
        for (const char *p = key->allowed; *p; p += strcspn(p, "|"), p += *p == '|') {
            snprintf(out, room, "%.*s", (int)strcspn(p, "|="), p);
            if (strcmp(out, key->fallback) != 0) return;
        }
        snprintf(out, room, "%s", key->fallback); /* it has one word only */
    } else {
        snprintf(out, room, key->type == KEY_NUMBERS ? "3" : key->type == KEY_BYTES ? "3G" : "other");
    }
}

static char *json_of(const Recipe *r) {
    Buf out = {0};
    recipe_json(r, &out);
    return out.p;
}

/* Every honoured key, set in a file and by a flag, is in the recipe that is stored; every key that is not needed
 * has its line; every refused key is refused, but for the values that say what is done anyway. */
static void test_every_key(void **state) {
    (void)state;
    int honoured = 0, unneeded = 0, refused_keys = 0;
    for (int i = 0; i < recipe_n_keys; i++) {
        const RecipeKey *key = &recipe_keys[i];
        char value[200], line[400], *flags[2] = {NULL, value};
        Recipe plain, file, flag;
        Err err = {0};
        recipe_default(&plain), recipe_default(&file), recipe_default(&flag);
        if (key->fate == KEY_HONOURED) {
            other_value(key, value, sizeof value);
            snprintf(line, sizeof line, "--%s", key->name);
            flags[0] = line;
            bool good = recipe_read_flags(&flag, 2, flags, &err);
            snprintf(line, sizeof line, "%s: %s\n", key->name, value);
            good = good && recipe_read_yaml(&file, line, strlen(line), "test", &err);
            if (!good) print_error("%s: %s\n", key->name, err.msg);
            assert_true(good);
            char *a = json_of(&plain), *b = json_of(&file), *c = json_of(&flag);
            bool one_word = key->allowed && !strchr(key->allowed, '|');
            if (!one_word && strcmp(a, b) == 0) fail_msg("%s: %s changes nothing", key->name, value);
            assert_string_equal(b, c);
            free(a), free(b), free(c);
            honoured++;
        } else if (key->fate == KEY_UNNEEDED) {
            snprintf(line, sizeof line, "%s: some\n", key->name);
            Recipe r = load_good(line, NULL);
            assert_int_equal(r.notes.n, 1);
            assert_non_null(strstr(r.notes.at[0], key->name));
            assert_non_null(strstr(r.notes.at[0], key->help));
            recipe_free(&r);
            unneeded++;
        } else if (key->fate == KEY_REFUSED) {
            snprintf(line, sizeof line, "%s: some_other_value\n", key->name);
            assert_false(recipe_read_yaml(&file, line, strlen(line), "test", &err));
            assert_non_null(strstr(err.msg, key->help));
            const char *p = key->allowed ? key->allowed : "null";
            snprintf(line, sizeof line, "%s: %.*s\n", key->name, (int)strcspn(p, "|"), p);
            assert_true(recipe_read_yaml(&flag, line, strlen(line), "test", &err));
            refused_keys++;
        }
        recipe_free(&plain), recipe_free(&file), recipe_free(&flag);
    }
    print_message("%d keys are honoured, %d not needed, %d refused\n", honoured, unneeded, refused_keys);
    assert_true(honoured > 100 && unneeded > 100 && refused_keys > 30);
}

static void test_demo_recipe(void **state) {
    (void)state;
    Recipe r;
    Err err = {0};
    char *flags[] = {"--model_name_or_path", "m", "--output_dir", "demo-run", "--seed", "2"};
    bool good = recipe_load(&r, "rl/recipes/demo.yaml", 6, flags, &err);
    if (!good) print_error("%s\n", err.msg);
    assert_true(good);
    assert_int_equal(r.batch_groups, 8);
    assert_int_equal(r.batch_samples, 64);
    assert_int_equal(r.seed, 2);
    assert_int_equal(r.notes.n, 0);
    assert_string_equal(r.prompt_template, "<|im_start|>user\n{problem}<|im_end|>\n<|im_start|>assistant\n");
    SourceConf conf = {
        .name = r.eval_dataset_name, .held_out = r.eval_held_out, .max_problems = r.max_eval_samples};
    Source *source = source_open(&conf, &err);
    assert_non_null(source);
    assert_int_equal(source_size(source), 120);
    source_close(source);
    recipe_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),       cmocka_unit_test(test_yaml_values),
        cmocka_unit_test(test_flags),          cmocka_unit_test(test_yaml_refused),
        cmocka_unit_test(test_contradictions), cmocka_unit_test(test_what_follows),
        cmocka_unit_test(test_printing),       cmocka_unit_test(test_help),
        cmocka_unit_test(test_trl_keys),       cmocka_unit_test(test_demo_recipe),
        cmocka_unit_test(test_every_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
