/* recipe.h: what a training run is told: keys from a YAML file, overridden by flags, checked, printed.
 *
 * Knows: names, defaults and meanings of keys (TRL's names, one table in recipe_keys.c). Must never know: what the
 * rest of rl does with them, devices, models, the store.
 * Structs: Recipe (flat, every field is a key or follows from keys), RecipeKey (a row of the table).
 * Ownership: a Recipe owns its strings and lists; recipe_free frees them. Zero-initialise: Recipe r = {0};
 * Tested by tests/test_rl_recipe.c.
 */
#ifndef WHET_RL_RECIPE_H
#define WHET_RL_RECIPE_H

#include "kernels/base.h"

typedef struct {
    const char **at; /* [n]; in a Recipe, a NULL follows */
    int n;
} TextList;

typedef struct {
    double *at; /* [n] */
    int n;
} NumberList;

enum { RECIPE_KEYS_MAX = 320 };

typedef struct {
    /* what is trained on what; names are as in the table, where `whet help train` explains each */
    const char *model_name_or_path;
    const char *dataset_name;      /* a file or generate:SPEC; with datasets, what they are called */
    TextList datasets;             /* files; none: dataset_name's */
    const char *eval_dataset_name; /* NULL: nothing is evaluated. A generator without one evaluates on itself */
    const char *from_store;        /* NULL: answers are sampled */
    const char *problem_key, *answer_key;      /* NULL: found in the data */
    const char *prompt_template;               /* NULL: the one that lies with the model */
    const char *system_prompt, *chat_template; /* NULL: none; the model's */
    const char *output_dir;
    bool overwrite_output_dir;
    const char *resume_from_checkpoint; /* NULL: begin anew; "last", or a folder */
    long seed, max_train_samples, max_eval_samples, max_skipped;
    bool shuffle_dataset;
    TextList frozen; /* patterns of names of parameters that are not trained */

    /* adapters */
    bool use_peft;
    long lora_r;
    double lora_alpha, lora_dropout; /* lora_dropout is 0 with use_peft */
    TextList lora_target_modules;
    bool use_rslora;

    /* how long, and how many samples at a time */
    long max_steps; /* -1: as long as num_train_epochs says */
    double num_train_epochs;
    long num_generations, per_device_train_batch_size, gradient_accumulation_steps, num_processes;
    long generation_batch_size, steps_per_generation, num_iterations;

    /* sampling */
    long max_prompt_length, max_completion_length;
    double temperature, top_p, min_p;
    long top_k; /* 0: all tokens */
    TextList stop_strings;
    const char *sampling_weights; /* exact, int8 */

    /* rewards */
    TextList reward_funcs;
    NumberList reward_weights; /* as many as reward_funcs */
    bool allow_weak_sandbox;
    long reward_exec_workers, reward_exec_parallel;
    double reward_exec_deadline;
    double max_unjudged;   /* share of unjudged scores above which the run stops */
    TextList reward_kinds; /* as many as reward_funcs, or none: patterns of kinds of problems */
    long max_completion_len, soft_punish_cache, cosine_max_len; /* tokens */
    double cosine_min_value_wrong, cosine_max_value_wrong, cosine_min_value_correct, cosine_max_value_correct;
    long repetition_n_grams;
    double repetition_max_penalty;
    const char *reward_language;
    const char *dynamic_sampling; /* none, reward, accuracy */
    long max_generation_batches;

    /* advantages, loss, reference; what the names stand for: objective.c */
    const char *advantage_estimator;
    const char *scale_rewards; /* group, batch, none */
    const char *multi_objective_aggregation;
    const char *loss_type, *loss_aggregation;
    const char *importance_sampling_level; /* token, sequence, sequence_token */
    double epsilon, epsilon_high, delta;   /* delta 0: none */
    double sapo_temperature_pos, sapo_temperature_neg;
    double vespo_k_pos, vespo_lambda_pos, vespo_k_neg, vespo_lambda_neg;
    double clip_cov_ratio, clip_cov_lb, clip_cov_ub, kl_cov_ratio, ppo_kl_coef;
    bool mask_truncated_completions;
    double off_policy_mask_threshold; /* 0: none */
    double top_entropy_quantile, entropy_coef;
    bool use_adaptive_entropy;
    double entropy_target, entropy_coef_delta, entropy_coef_min, entropy_coef_max;
    double beta;
    const char *kl_estimator; /* k1, k2, k3 */
    bool use_bias_correction_kl, kl_in_reward, sync_ref_model;
    long ref_model_sync_steps;
    double ref_model_mixup_alpha;
    bool vllm_importance_sampling_correction; /* of samples that another policy drew */
    const char *vllm_importance_sampling_mode;
    double vllm_importance_sampling_clip_max, vllm_importance_sampling_clip_min; /* 0: none */

    /* optimizer */
    double learning_rate, warmup_steps, warmup_ratio;
    const char *lr_scheduler_type;          /* schedule.h */
    double num_cycles, min_lr, min_lr_rate; /* 0: its default, none, none */
    double adam_beta1, adam_beta2, adam_epsilon, weight_decay, max_grad_norm;

    /* what is said, kept and evaluated when; steps count from 1, and 0 means never */
    double logging_steps, save_steps, eval_steps; /* below 1: a share of all steps (recipe_every) */
    long save_total_limit, num_generations_eval;  /* save_total_limit 0: all are kept */
    double eval_temperature;                      /* 0: greedy */
    bool eval_on_start;
    const char *metric_for_best_model; /* eval_accuracy, eval_reward */

    /* the machine */
    const char *dtype;       /* float32, bfloat16: what is computed in */
    const char *device;      /* auto, cpu, cuda, cuda:N */
    const char *cpu_path;    /* auto, plain, avx2, avx512, avx512_bf16, amx, or one of their *_plain */
    long threads;            /* 0: as many as cores */
    long slots;              /* sequences decoded at once */
    long micro_batch_tokens; /* 0: as the memory plan says */
    int64_t max_memory;      /* bytes; 0: what the machine has free */

    /* what follows from the keys (recipe_resolve) */
    long batch_samples;          /* samples of an update */
    long batch_groups;           /* problems of one update */
    long generation_groups;      /* problems that are sampled together, from one policy */
    long updates_per_generation; /* updates until new samples are drawn */
    bool eval_held_out;          /* evaluation takes the held-out part of its generator */
    TextList notes;              /* lines for the user: keys that are not needed here, and why */

    Arena arena;
    unsigned char given[RECIPE_KEYS_MAX]; /* per row of the table: not given, by the file, by a flag */
    long line[RECIPE_KEYS_MAX];           /* where in the file */
} Recipe;

/* The whole way: defaults, the YAML file at `path` (NULL: none), the flags, then recipe_resolve. Free the
 * recipe when it failed, too. */
bool recipe_load(Recipe *recipe, const char *path, int n_flags, char *const *flags, Err *err);

/* Its steps. `name` is how errors call the text. Flags are --key value, --key=value, --switch, --no_switch; a list
 * is written a,b,c or as several values. */
void recipe_default(Recipe *recipe);
bool recipe_read_yaml(Recipe *recipe, const char *text, size_t n, const char *name, Err *err);
bool recipe_read_file(Recipe *recipe, const char *path, Err *err);
bool recipe_read_flags(Recipe *recipe, int n, char *const *flags, Err *err);
bool recipe_resolve(Recipe *recipe, Err *err);
void recipe_free(Recipe *recipe);

/* Updates of the whole run, given how many problems an epoch has; as in TRL, what does not fill a batch is
 * left out. */
long recipe_updates(const Recipe *recipe, long problems);
/* logging_steps, save_steps or eval_steps of a run of so many updates, as transformers takes them; 0: never. */
long recipe_every(double steps, long updates);

/* The resolved recipe, every honoured key in the order of the table. What recipe_yaml writes, recipe_read_yaml
 * reads back to the same recipe. */
void recipe_yaml(const Recipe *recipe, Buf *out);
void recipe_json(const Recipe *recipe, Buf *out);
/* Between two recipe_json texts, the name of the first key that differs and changes what is learnt; NULL when
 * there is none. The caller's. */
char *recipe_difference(const char *before, const char *now);
void recipe_help(Buf *out); /* every honoured key with its default and its meaning */

/* ---- the table ---- */

typedef enum {
    KEY_HEADING,  /* no key: the title of the rows that follow */
    KEY_HONOURED, /* does what it does in TRL (or is whet's own) */
    KEY_UNNEEDED, /* changes no result here: borne, with one line that says why */
    KEY_REFUSED,  /* would change the result and does not exist here: refused unless it says what is done anyway */
    KEY_ALIAS,    /* another name of a key */
    KEY_GROUP,    /* a mapping whose keys are those rows of the table that have it as `trl` */
} KeyFate;

typedef enum { KEY_TEXT, KEY_WHOLE, KEY_NUMBER, KEY_SWITCH, KEY_BYTES, KEY_TEXTS, KEY_NUMBERS } KeyType;

typedef struct {
    const char *name;
    KeyFate fate;
    KeyType type;
    size_t at;            /* honoured: its field in Recipe */
    const char *fallback; /* honoured: the default; NULL: none. Alias: the key that it names */
    /* Values apart by "|", NULL: any; a=b reads a as b. Refused: the values that change nothing. */
    const char *allowed;
    double low, high; /* of whole and other numbers */
    const char *trl;  /* where TRL has the name: "GRPOConfig", ...; NULL: whet's own */
    const char *help; /* honoured: what it does. Unneeded: why. Refused: why, and what to do */
} RecipeKey;

extern const RecipeKey recipe_keys[];
extern const int recipe_n_keys;                                      /* at most RECIPE_KEYS_MAX */
int recipe_key_find(const char *name);                               /* its row, or -1; a heading is no key */
const char *recipe_key_near(const char *name);                       /* the known name that is nearest, or NULL */
void recipe_key_words(const RecipeKey *key, char *out, size_t room); /* its values: "grpo, dr_grpo, dapo" */

/* What flags of other commands share with a recipe's. */
int name_distance(const char *a, const char *b); /* Levenshtein's; both shorter than 80 bytes */
bool bytes_read(const char *text, int64_t *out); /* 8G, 500M, 12345 */

#endif
