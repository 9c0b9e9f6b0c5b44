/* recipe_keys.c: the table of recipe keys. It is their documentation too: `whet help train` prints the help of the
 * honoured rows. To add a key: a field in Recipe, a row here. Every key of TRL's GRPOConfig, ModelConfig and
 * script arguments stands here (TRL 1.16 with transformers 5.23; tests/goldens/trl_keys.txt is the list that the
 * test compares with). Reading and checking is recipe.c's. Tested by tests/test_rl_recipe.c.
 *
 * Defaults are TRL's, but for these: dtype (TRL's is of the weights; whet's is what is computed in, and the
 * weights that learn are always float32), lora_dropout, logging_steps, save_total_limit and eval_on_start (a run
 * here is watched step by step, keeps its last checkpoints and the best, and compares with the untouched model).
 */
#include "rl/recipe.h"

#include <float.h>
#include <limits.h>

#define HEADING(title)                                                                                            \
    { .name = title, .fate = KEY_HEADING }
#define TEXT(field, trl, fallback, allowed, help)                                                                 \
    { #field, KEY_HONOURED, KEY_TEXT, offsetof(Recipe, field), fallback, allowed, 0, 0, trl, help }
#define WHOLE(field, trl, fallback, low, high, help)                                                              \
    { #field, KEY_HONOURED, KEY_WHOLE, offsetof(Recipe, field), fallback, NULL, low, high, trl, help }
#define NUMBER(field, trl, fallback, low, high, help)                                                             \
    { #field, KEY_HONOURED, KEY_NUMBER, offsetof(Recipe, field), fallback, NULL, low, high, trl, help }
#define SWITCH(field, trl, fallback, help)                                                                        \
    { #field, KEY_HONOURED, KEY_SWITCH, offsetof(Recipe, field), fallback, NULL, 0, 0, trl, help }
#define LIST(field, type, trl, fallback, help)                                                                    \
    { #field, KEY_HONOURED, type, offsetof(Recipe, field), fallback, NULL, 0, 0, trl, help }
#define UNNEEDED(key, from, why)                                                                                  \
    { .name = key, .fate = KEY_UNNEEDED, .trl = from, .help = why }
#define REFUSED(key, from, same, why)                                                                             \
    { .name = key, .fate = KEY_REFUSED, .allowed = same, .trl = from, .help = why }
#define ALIAS(key, of, values, from)                                                                              \
    { .name = key, .fate = KEY_ALIAS, .fallback = of, .allowed = values, .trl = from }

#define GRPO "GRPOConfig"
#define HF "TrainingArguments"
#define MODEL "ModelConfig"
#define SCRIPT "ScriptArguments"
#define OLD "older TRL or open-r1"
#define MIXTURE "DatasetMixtureConfig"
#define KWARGS "lr_scheduler_kwargs"

/* Reasons that several rows share. */
#define ENGINE "whet samples with its own engine"
#define PLAN "the memory plan decides what is kept and what is recomputed, with the same bits"
#define STORED "every completion is kept in run.db"
#define ONE "whet runs as one process"
#define HUB "whet talks to no hub; checkpoints lie in output_dir"
#define NOT_TORCH "whet is no PyTorch program"
#define FILES "data sets are files here: dataset_name and eval_dataset_name name them"
#define NO_4BIT "quantised weights can't learn here yet"

const RecipeKey recipe_keys[] = {
    HEADING("Model and data"),
    TEXT(model_name_or_path, MODEL, NULL, NULL, "the model that learns: a Hugging Face folder or a .gguf file"),
    TEXT(dataset_name, SCRIPT, NULL, NULL,
         "problems to learn from: a .jsonl or .jsonl.gz file, or generate:SPEC (generate:sums:max=20:held=7,3,4)"),
    LIST(datasets, KEY_TEXTS, MIXTURE, NULL,
         "several files as one, in the place of dataset_name: [a.jsonl, b.jsonl], or as TRL has them, - path: "
         "a.jsonl"),
    TEXT(eval_dataset_name, NULL, NULL, NULL,
         "problems to measure on, never learnt from; default: what a generator with held= holds out; \"\": none"),
    TEXT(from_store, NULL, NULL, NULL,
         "learn from the stored answers of another run (its output_dir), judged by reward_funcs, instead of "
         "sampling; "
         "with importance weights (vllm_importance_sampling_*), as another policy wrote them"),
    TEXT(problem_key, NULL, NULL, NULL, "column of the problem; default: the first of problem, question, prompt"),
    TEXT(answer_key, NULL, NULL, NULL, "column of the expected answer; default: the first of answer, solution"),
    TEXT(prompt_template, NULL, NULL, NULL,
         "what the model is given, with {problem} where the problem goes; saved with every checkpoint; default: "
         "the "
         "one that lies with the model"),
    TEXT(
        system_prompt, OLD, NULL, NULL,
        "a system message before each problem, in the model's chat format (with prompt_template: write it there)"),
    TEXT(chat_template, OLD, NULL, NULL,
         "a chat template (Jinja) in the place of the model's; saved with every checkpoint"),
    TEXT(output_dir, HF, "trainer_output", NULL, "folder of the run: run.db, metrics.jsonl, checkpoint-N"),
    SWITCH(overwrite_output_dir, OLD, "false", "begin anew in a folder that holds a run; the old run is lost"),
    TEXT(resume_from_checkpoint, HF, NULL, NULL, "go on from a checkpoint: its folder, or `last` (or true)"),
    WHOLE(seed, HF, "42", 0, LONG_MAX, "the seed of all that is random"),
    SWITCH(shuffle_dataset, GRPO, "true", "take a file's problems in a new order each epoch"),
    WHOLE(max_train_samples, NULL, "0", 0, LONG_MAX, "use only the first so many problems; 0: all"),
    WHOLE(max_eval_samples, NULL, "200", 0, LONG_MAX, "measure on only the first so many problems; 0: all"),
    WHOLE(max_skipped, NULL, "100", 1, 1e9, "broken rows of a file that are skipped before the file is refused"),
    LIST(frozen, KEY_TEXTS, NULL, NULL,
         "patterns (*, ?) of names of parameters that are not trained, such as model.embed_tokens.*"),

    HEADING("Low-rank adapters (LoRA)"),
    SWITCH(use_peft, MODEL, "false",
           "train low-rank adapters and leave the model as it is; checkpoints are folders that PEFT loads"),
    WHOLE(lora_r, MODEL, "16", 1, 4096, "rank of the adapters"),
    NUMBER(lora_alpha, MODEL, "32", DBL_MIN, 1e9, "the adapters' part is multiplied by lora_alpha / lora_r"),
    LIST(lora_target_modules, KEY_TEXTS, MODEL, NULL,
         "linears that get one: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, or all-linear; "
         "default: q_proj, v_proj, as in PEFT"),
    SWITCH(use_rslora, MODEL, "false", "multiply by lora_alpha / sqrt(lora_r) instead"),
    NUMBER(lora_dropout, MODEL, "0", 0, 1, "must be 0 (TRL: 0.05): what learns is what sampled"),

    HEADING("How long, and how many samples at a time"),
    WHOLE(max_steps, HF, "-1", -1, 1e9, "updates of the whole run; -1: as num_train_epochs says"),
    NUMBER(num_train_epochs, HF, "3", DBL_MIN, 1e9, "passes over the problems, when max_steps is -1"),
    WHOLE(num_generations, GRPO, "8", 2, 4096, "samples of each problem: the group whose rewards are compared"),
    WHOLE(
        per_device_train_batch_size, HF, "8", 1, 1e6,
        "samples of an update are this times gradient_accumulation_steps; how they are cut into micro-batches is "
        "micro_batch_tokens'"),
    WHOLE(gradient_accumulation_steps, HF, "1", 1, 1e6, "see per_device_train_batch_size"),
    WHOLE(num_processes, "accelerate", "1", 1, 1e6,
          "processes that share an update under TRL: its samples are times this; one process takes them all here"),
    WHOLE(generation_batch_size, GRPO, NULL, 1, 1e9,
          "samples drawn from one policy; default: per_device_train_batch_size * steps_per_generation"),
    WHOLE(steps_per_generation, GRPO, NULL, 1, 1e6,
          "generation_batch_size in units of per_device_train_batch_size; default: gradient_accumulation_steps"),
    WHOLE(num_iterations, GRPO, "1", 1, 1000, "how often each batch of samples is learnt from"),

    HEADING("Sampling"),
    WHOLE(max_prompt_length, OLD, "512", 1, 1e7, "tokens of a prompt; problems with longer ones are left out"),
    WHOLE(max_completion_length, GRPO, "512", 1, 1e7, "tokens of an answer at most"),
    NUMBER(temperature, GRPO, "1", 1e-3, 100, "temperature of sampling, and of the log-probs that the loss sees"),
    NUMBER(top_p, GRPO, "1", DBL_MIN, 1, "sample from the fewest tokens with this share of the probability"),
    WHOLE(top_k, GRPO, "0", -1, 1e7, "sample from this many tokens; 0 or -1: all"),
    NUMBER(min_p, GRPO, "0", 0, 1,
           "sample from tokens with at least this share of the likeliest one's probability"),
    LIST(stop_strings, KEY_TEXTS, NULL, NULL, "texts that end an answer, besides the model's end token"),
    TEXT(
        sampling_weights, NULL, "exact", "exact|int8",
        "int8: answers to learn from are sampled with a copy of the weights of one byte each, sooner where few "
        "are "
        "sampled at once (on the CPU); how far its log-probs are from the learner's is measured, and corrected by "
        "vllm_importance_sampling_*"),

    HEADING("Rewards"),
    LIST(reward_funcs, KEY_TEXTS, SCRIPT, "math",
         "judges: math, format, ..., or exec:COMMAND, a program of your own; their weighted sum is the reward"),
    LIST(reward_weights, KEY_NUMBERS, GRPO, NULL, "a weight for each of reward_funcs; default: 1 each"),
    LIST(reward_kinds, KEY_TEXTS, NULL, NULL,
         "for each of reward_funcs, the problems that it judges: a pattern (*, ?) of the rows' `kind`; default: "
         "all"),
    WHOLE(max_completion_len, NULL, NULL, 0, 1e9,
          "soft_overlong: tokens at which an answer loses 1; default: max_completion_length"),
    WHOLE(soft_punish_cache, NULL, NULL, 0, 1e9,
          "soft_overlong: over so many tokens before that it begins to lose; default: a fifth of them"),
    WHOLE(cosine_max_len, NULL, NULL, 0, 1e9, "cosine: tokens of a long answer; default: max_completion_length"),
    NUMBER(cosine_min_value_wrong, NULL, "-1", -1e6, 1e6, "cosine: what a wrong answer of no length is worth"),
    NUMBER(cosine_max_value_wrong, NULL, "-0.5", -1e6, 1e6, "and a long one"),
    NUMBER(cosine_min_value_correct, NULL, "0.5", -1e6, 1e6, "cosine: what a long right answer is worth"),
    NUMBER(cosine_max_value_correct, NULL, "1", -1e6, 1e6, "and one of no length"),
    WHOLE(repetition_n_grams, NULL, "3", 1, 1000, "repetition: words of a group that should not come again"),
    NUMBER(repetition_max_penalty, NULL, "-1", -1e6, 0, "repetition: what an answer of one group alone would get"),
    TEXT(reward_language, NULL, "en", NULL,
         "language: that of the thoughts (en, zh, ja, ko, ru, ar, ...), told by its script; a row's `lang` goes "
         "first"),
    WHOLE(reward_exec_workers, NULL, "1", 1, 256, "copies of an exec: program that run at once"),
    WHOLE(reward_exec_parallel, NULL, "8", 1, 4096, "answers that each copy is given at a time"),
    NUMBER(reward_exec_deadline, NULL, "30", 1e-3, 1e6,
           "seconds of silence after which a copy is killed and started anew"),
    NUMBER(max_unjudged, NULL, "0.1", 0, 1, "stop when a larger share of a step's answers could not be judged"),
    SWITCH(allow_weak_sandbox, NULL, "false",
           "run candidate programs also where the machine isolates them less than asked"),
    TEXT(dynamic_sampling, NULL, "none", "none|reward|accuracy|false=none|true=reward",
         "draw problems until none of the batch has equal rewards for all its answers (or is all right or all "
         "wrong); "
         "the groups that were passed over are kept in run.db"),
    WHOLE(max_generation_batches, NULL, "10", 1, 1e6,
          "with dynamic_sampling: draw at most so many times the problems of a batch, then learn from what is "
          "there"),

    HEADING("Advantages"),
    TEXT(advantage_estimator, NULL, "grpo",
         "grpo|rloo|reinforce_plus_plus|reinforce_plus_plus_baseline|remax|opo|gpg|grpo_passk",
         "what rewards are compared with: rl/advantage.h has the formulas"),
    TEXT(scale_rewards, GRPO, "group", "group|batch|none|true=group|false=none",
         "what advantages are divided by: the standard deviation of the group, of the batch, or nothing"),
    TEXT(multi_objective_aggregation, GRPO, "sum_then_normalize", "sum_then_normalize|normalize_then_sum",
         "compare the rewards' weighted sum, or each of reward_funcs by itself (GDPO)"),

    HEADING("Loss"),
    TEXT(loss_type, GRPO, "dapo", "grpo|dr_grpo|dapo|bnpo|luspo|cispo|sapo|vespo|gmpo|gpg|clip_cov|kl_cov",
         "the policy's term, and how tokens are averaged (bnpo is dapo, as the update is one batch): rl/loss.c"),
    TEXT(loss_aggregation, NULL, "auto", "auto|token|sequence|sequence_sum|constant",
         "average over all tokens, per answer, sum per answer, or over max_completion_length; auto: loss_type's"),
    TEXT(importance_sampling_level, GRPO, "token", "token|sequence|sequence_token",
         "whose ratio of policies: the token's, or the answer's (GSPO), that with the token's own gradient"),
    NUMBER(epsilon, GRPO, "0.2", 0, 1e6, "the ratio of policies is clipped below 1 minus this"),
    NUMBER(epsilon_high, GRPO, NULL, 0, 1e6, "and above 1 plus this (cispo: above this); default: epsilon"),
    NUMBER(delta, GRPO, NULL, 0, 1e6,
           "and bounded here where the advantage is negative (dual clip); default: nowhere"),
    NUMBER(sapo_temperature_pos, GRPO, "1", 1e-6, 1e6, "sapo: temperature of its gate for positive advantages"),
    NUMBER(sapo_temperature_neg, GRPO, "1.05", 1e-6, 1e6, "and for others"),
    NUMBER(vespo_k_pos, GRPO, "2", 0, 1e6, "vespo: power of the ratio for positive advantages"),
    NUMBER(vespo_lambda_pos, GRPO, "3", 0, 1e6, "and its decay"),
    NUMBER(vespo_k_neg, GRPO, "3", 0, 1e6, "vespo: power of the ratio for negative advantages"),
    NUMBER(vespo_lambda_neg, GRPO, "2", 0, 1e6, "and its decay"),
    NUMBER(clip_cov_ratio, NULL, "2e-4", DBL_MIN, 1,
           "clip_cov: share of tokens that are taken out, at random, of those"),
    NUMBER(clip_cov_lb, NULL, "1", -1e6, 1e6, "with a covariance of advantage and log-prob above this"),
    NUMBER(clip_cov_ub, NULL, "5", -1e6, 1e6, "and below this"),
    NUMBER(kl_cov_ratio, NULL, "2e-4", DBL_MIN, 1,
           "kl_cov: share of tokens, those of the greatest covariance, with"),
    NUMBER(ppo_kl_coef, NULL, "1", 0, 1e6, "this weight on how far they are from the policy that sampled"),
    SWITCH(mask_truncated_completions, GRPO, "false", "leave answers that ran out of tokens out of the loss"),
    NUMBER(off_policy_mask_threshold, GRPO, NULL, 0, 1e6,
           "leave answers with a negative advantage out that the policy has moved from by more, in mean log-prob"),
    NUMBER(top_entropy_quantile, GRPO, "1", DBL_MIN, 1,
           "learn only from this share of tokens, the least certain ones"),
    NUMBER(entropy_coef, GRPO, "0", -1e6, 1e6, "weight of the mean entropy, which is to grow"),
    SWITCH(use_adaptive_entropy, GRPO, "false", "let that weight follow the entropy:"),
    NUMBER(entropy_target, GRPO, "0.2", 0, 1e6, "it grows while the entropy is below this, else it shrinks,"),
    NUMBER(entropy_coef_delta, GRPO, "0.005", 0, 1e6, "by so much an update,"),
    NUMBER(entropy_coef_min, GRPO, "0", 0, 1e6, "not below this"),
    NUMBER(entropy_coef_max, GRPO, "1", 0, 1e6, "and not above this"),
    SWITCH(
        vllm_importance_sampling_correction, GRPO, "true",
        "weigh the policy loss of samples that another policy or instruction set drew (stored ones, and with "
        "sampling_weights int8: else whet's own are the learner's bit for bit) with the ratio of both; false: the "
        "loss's ratio begins at theirs"),
    TEXT(vllm_importance_sampling_mode, GRPO, "sequence_mask",
         "token_truncate|token_mask|sequence_truncate|sequence_mask",
         "one ratio per token or for the sequence; beyond the bounds it is cut off, or the token or sequence is"),
    NUMBER(vllm_importance_sampling_clip_max, GRPO, "3", 0, 1e9, "its upper bound; 0: none"),
    NUMBER(vllm_importance_sampling_clip_min, GRPO, "0", 0, 1e9, "its lower bound; 0: none"),

    HEADING("The reference model"),
    NUMBER(beta, GRPO, "0", 0, 100,
           "weight of the KL to the untouched model; 0: none, and it isn't kept in memory"),
    TEXT(kl_estimator, NULL, "k3", "k1|k2|k3|kl=k1|mse=k2|low_var_kl=k3", "how the KL is estimated: rl/loss.h"),
    SWITCH(use_bias_correction_kl, GRPO, "true", "multiply it by the ratio of policies, so that it is unbiased"),
    SWITCH(kl_in_reward, NULL, "false",
           "subtract it from the rewards, summed over the answer, instead of the loss"),
    SWITCH(sync_ref_model, GRPO, "false", "let the untouched model follow the one that learns"),
    WHOLE(ref_model_sync_steps, GRPO, "512", 1, 1e9, "every so many updates,"),
    NUMBER(ref_model_mixup_alpha, GRPO, "0.6", DBL_MIN, 1, "by this share; 1: replaced"),

    HEADING("Optimizer (AdamW)"),
    NUMBER(learning_rate, GRPO, "1e-6", 0, 10, "learning rate after the warm-up"),
    TEXT(lr_scheduler_type, HF, "linear",
         "constant|constant_with_warmup|linear|cosine|cosine_with_restarts|cosine_with_min_lr", "its course"),
    NUMBER(num_cycles, KWARGS, NULL, 0, 1e6,
           "cosine, cosine_with_min_lr: waves (default: half a one); cosine_with_restarts: falls (default: 1)"),
    NUMBER(min_lr, KWARGS, NULL, 0, 10, "cosine_with_min_lr: the rate that it ends at, or"),
    NUMBER(min_lr_rate, KWARGS, NULL, 0, 1, "that as a share of learning_rate"),
    NUMBER(warmup_steps, HF, "0", 0, 1e9, "updates of warm-up; below 1: a share of all updates"),
    NUMBER(warmup_ratio, OLD, "0", 0, 1, "the same as a share of all updates"),
    NUMBER(adam_beta1, HF, "0.9", 0, 0.9999999, "decay of the mean of gradients"),
    NUMBER(adam_beta2, HF, "0.999", 0, 0.9999999, "decay of the mean of squared gradients"),
    NUMBER(adam_epsilon, HF, "1e-8", DBL_MIN, 1, "added to the root of the latter"),
    NUMBER(weight_decay, HF, "0", 0, 10, "decoupled weight decay (not on norms and biases)"),
    NUMBER(max_grad_norm, HF, "1", 0, 1e9, "gradients are scaled down to this norm; 0: never"),

    HEADING("What is said, kept and measured, and when"),
    NUMBER(logging_steps, HF, "1", DBL_MIN, 1e9,
           "say a line every so many updates, or below 1 after this share of all (metrics.jsonl has every one)"),
    NUMBER(save_steps, HF, "500", 0, 1e9,
           "write a checkpoint every so many updates, or below 1 after this share of all; 0: only at the end"),
    WHOLE(save_total_limit, HF, "2", 0, 1e6, "keep the last so many checkpoints, and the best one; 0: all"),
    NUMBER(eval_steps, HF, "0", 0, 1e9,
           "measure every so many updates, or below 1 after this share of all; 0: only before and after"),
    SWITCH(eval_on_start, HF, "true", "measure the untouched model first"),
    WHOLE(num_generations_eval, GRPO, "1", 1, 4096, "answers to each problem when measuring"),
    NUMBER(eval_temperature, NULL, "0", 0, 100, "temperature when measuring; 0: always the likeliest token"),
    TEXT(metric_for_best_model, HF, "eval_accuracy", "eval_accuracy|eval_reward",
         "what makes a checkpoint the best"),

    HEADING("The machine"),
    TEXT(dtype, MODEL, "bfloat16", "float32|bfloat16",
         "what is computed in; the weights that learn are always float32"),
    TEXT(device, NULL, "auto", "auto|cpu|cuda|cuda:0|cuda:1|cuda:2|cuda:3|cuda:4|cuda:5|cuda:6|cuda:7",
         "auto takes a GPU if there is one; cuda:N that with number N"),
    TEXT(cpu_path, NULL, "auto", "auto|plain|avx2|avx512|avx512_bf16|avx512_bf16_plain|amx|amx_plain",
         "instruction set; results are the same only on one"),
    WHOLE(threads, NULL, "0", 0, 4096, "threads; 0: as many as cores. Changes no result"),
    WHOLE(slots, NULL, "64", 1, 65536,
          "sequences that are sampled at once (fewer where memory is short). Changes no result"),
    WHOLE(micro_batch_tokens, NULL, "0", 0, 1e9,
          "tokens of a micro-batch; 0: as max_memory allows. Changes no result"),
    {"max_memory", KEY_HONOURED, KEY_BYTES, offsetof(Recipe, max_memory), "0", NULL, 0, 0, NULL,
     "bytes that the run may take (8G, 500M); 0: what the machine has free"},

    HEADING("Other names of these"),
    {.name = KWARGS, .fate = KEY_GROUP, .trl = HF},
    ALIAS("torch_dtype", "dtype", NULL, OLD),
    ALIAS("bf16", "dtype", "true=bfloat16|false=float32", HF),
    ALIAS("dataset_prompt_column", "problem_key", NULL, OLD),
    ALIAS("nproc_per_node", "num_processes", NULL, "torchrun"),
    ALIAS("vllm_importance_sampling_cap", "vllm_importance_sampling_clip_max", NULL, GRPO),
    ALIAS("stop", "stop_strings", NULL, OLD),

    HEADING("TRL's keys that change nothing here"),
    UNNEEDED("env", "TrlParser", "environment variables are set in the shell"),
    UNNEEDED("trust_remote_code", GRPO, "whet runs no code out of model folders"),
    UNNEEDED("disable_dropout", GRPO, "there is no dropout"),
    UNNEEDED("remove_unused_columns", GRPO, "rewards see every column"),
    UNNEEDED("ds3_gather_for_generation", GRPO, ONE),
    UNNEEDED("pad_to_multiple_of", GRPO, "nothing is padded that the result could see"),
    UNNEEDED("cache_implementation", GRPO, ENGINE),
    UNNEEDED("use_vllm", GRPO, ENGINE),
    UNNEEDED("vllm_mode", GRPO, ENGINE),
    UNNEEDED("vllm_model_impl", GRPO, ENGINE),
    UNNEEDED("vllm_enable_sleep_mode", GRPO, ENGINE),
    UNNEEDED("vllm_server_base_url", GRPO, ENGINE),
    UNNEEDED("vllm_server_host", GRPO, ENGINE),
    UNNEEDED("vllm_server_port", GRPO, ENGINE),
    UNNEEDED("vllm_server_timeout", GRPO, ENGINE),
    UNNEEDED("vllm_group_port", GRPO, ENGINE),
    UNNEEDED("vllm_gpu_memory_utilization", GRPO, ENGINE),
    UNNEEDED("vllm_max_model_length", GRPO, ENGINE),
    UNNEEDED("vllm_tensor_parallel_size", GRPO, ENGINE),
    UNNEEDED("vllm_device", OLD, ENGINE),
    UNNEEDED("vllm_dtype", OLD, ENGINE),
    UNNEEDED("vllm_max_model_len", OLD, ENGINE),
    UNNEEDED("use_transformers_continuous_batching", GRPO, ENGINE),
    UNNEEDED("transformers_continuous_batching_config", GRPO, ENGINE),
    UNNEEDED("use_transformers_paged", GRPO, ENGINE),
    UNNEEDED("log_completions", GRPO, STORED),
    UNNEEDED("log_multimodal", GRPO, STORED),
    UNNEEDED("num_completions_to_print", GRPO, STORED),
    UNNEEDED("wandb_log_unique_prompts", OLD, STORED),
    UNNEEDED("log_unique_prompts", GRPO, STORED),
    UNNEEDED("log_completions_hub_repo", GRPO, HUB),
    UNNEEDED("attn_implementation", MODEL, "there is one attention, exact"),
    UNNEEDED("lora_task_type", MODEL, "there is one task: CAUSAL_LM"),
    UNNEEDED("dataset_streaming", SCRIPT, FILES),
    UNNEEDED("dataset_config", SCRIPT, FILES),
    UNNEEDED("dataset_configs", OLD, FILES),
    UNNEEDED("dataset_train_split", SCRIPT, FILES),
    UNNEEDED("dataset_test_split", SCRIPT, FILES),
    UNNEEDED("accelerate_config", "accelerate", ONE),
    UNNEEDED("callbacks", OLD, "open-r1's push to a hub and start benchmarks: `whet eval` measures a checkpoint"),
    UNNEEDED("benchmarks", OLD, "open-r1's push to a hub and start benchmarks: `whet eval` measures a checkpoint"),
    UNNEEDED("ignore_bias_buffers", SCRIPT, NOT_TORCH),
    UNNEEDED("average_tokens_across_devices", HF, ONE),
    UNNEEDED("bf16_full_eval", HF, "dtype is for measuring too"),
    UNNEEDED("fp16_full_eval", HF, "dtype is for measuring too"),
    UNNEEDED("tf32", HF, "float32 is float32 here"),
    UNNEEDED("activation_checkpointing", HF, PLAN),
    UNNEEDED("activation_checkpointing_kwargs", HF, PLAN),
    UNNEEDED("gradient_checkpointing", HF, PLAN),
    UNNEEDED("gradient_checkpointing_kwargs", HF, PLAN),
    UNNEEDED("torch_compile", HF, NOT_TORCH),
    UNNEEDED("torch_compile_backend", HF, NOT_TORCH),
    UNNEEDED("torch_compile_mode", HF, NOT_TORCH),
    UNNEEDED("use_liger_kernel", HF, "logits never exist for a whole batch"),
    UNNEEDED("use_liger_loss", OLD, "logits never exist for a whole batch"),
    UNNEEDED("liger_kernel_config", HF, "logits never exist for a whole batch"),
    UNNEEDED("use_cache", HF, ENGINE),
    UNNEEDED("torch_empty_cache_steps", HF, NOT_TORCH),
    UNNEEDED("auto_find_batch_size", HF, "the memory plan finds the micro-batches"),
    UNNEEDED("eval_strategy", HF, "eval_steps says when"),
    UNNEEDED("save_strategy", HF, "save_steps says when, and the best checkpoint is always kept"),
    UNNEEDED("logging_strategy", HF, "logging_steps says when"),
    UNNEEDED("logging_first_step", HF, "logging_steps says when"),
    UNNEEDED("logging_dir", OLD, "metrics lie in output_dir"),
    UNNEEDED("log_on_each_node", HF, ONE),
    UNNEEDED("logging_nan_inf_filter", HF, "a NaN is never hidden"),
    UNNEEDED("include_num_input_tokens_seen", HF, "num_tokens is always counted"),
    UNNEEDED("log_level", HF, "whet has one level"),
    UNNEEDED("log_level_replica", HF, ONE),
    UNNEEDED("disable_tqdm", HF, "there is a live line on a terminal only"),
    UNNEEDED("report_to", HF, "metrics go to run.db and metrics.jsonl"),
    UNNEEDED("run_name", HF, "a run is called by its output_dir"),
    UNNEEDED("project", HF, "metrics go to run.db and metrics.jsonl"),
    UNNEEDED("trackio_space_id", HF, HUB),
    UNNEEDED("trackio_bucket_id", HF, HUB),
    UNNEEDED("trackio_static_space_id", HF, HUB),
    UNNEEDED("wandb_entity", OLD, "metrics go to run.db and metrics.jsonl"),
    UNNEEDED("wandb_project", OLD, "metrics go to run.db and metrics.jsonl"),
    UNNEEDED("wandb_run_group", OLD, "metrics go to run.db and metrics.jsonl"),
    UNNEEDED("per_device_eval_batch_size", HF, "slots is for measuring too"),
    UNNEEDED("prediction_loss_only", HF, "measuring judges answers"),
    UNNEEDED("eval_do_concat_batches", HF, "measuring judges answers"),
    UNNEEDED("eval_use_gather_object", HF, ONE),
    UNNEEDED("eval_accumulation_steps", HF, "measuring judges answers"),
    UNNEEDED("include_for_metrics", HF, "measuring judges answers"),
    UNNEEDED("batch_eval_metrics", HF, "measuring judges answers"),
    UNNEEDED("do_train", HF, "`whet train` trains"),
    UNNEEDED("do_eval", HF, "eval_dataset_name and eval_steps say what is measured when"),
    UNNEEDED("do_predict", HF, "`whet sample` samples"),
    UNNEEDED("save_only_model", HF, "checkpoints hold all that going on needs"),
    UNNEEDED("save_on_each_node", HF, ONE),
    UNNEEDED("save_safetensors", OLD, "checkpoints are safetensors"),
    UNNEEDED("enable_jit_checkpoint", HF, "Ctrl-C finishes the step and saves"),
    UNNEEDED("push_to_hub", HF, HUB),
    UNNEEDED("hub_token", HF, HUB),
    UNNEEDED("hub_private_repo", HF, HUB),
    UNNEEDED("hub_model_id", HF, HUB),
    UNNEEDED("hub_model_revision", OLD, HUB),
    UNNEEDED("hub_strategy", HF, HUB),
    UNNEEDED("hub_always_push", HF, HUB),
    UNNEEDED("hub_revision", HF, HUB),
    UNNEEDED("push_to_hub_revision", OLD, HUB),
    UNNEEDED("restore_callback_states_from_checkpoint", HF, "there are no callbacks"),
    UNNEEDED("full_determinism", HF, "every run is deterministic"),
    UNNEEDED("use_cpu", HF, "device says where"),
    UNNEEDED("accelerator_config", HF, ONE),
    UNNEEDED("dataloader_drop_last", HF, "as in TRL's GRPO, what does not fill a batch is left out"),
    UNNEEDED("dataloader_num_workers", HF, "problems are in memory"),
    UNNEEDED("dataloader_pin_memory", HF, "problems are in memory"),
    UNNEEDED("dataloader_persistent_workers", HF, "problems are in memory"),
    UNNEEDED("dataloader_prefetch_factor", HF, "problems are in memory"),
    UNNEEDED("dataloader_multiprocessing_context", HF, "problems are in memory"),
    UNNEEDED("dataloader_in_order", HF, "problems are in memory"),
    UNNEEDED("length_column_name", HF, "problems are not grouped by length"),
    UNNEEDED("ddp_find_unused_parameters", HF, ONE),
    UNNEEDED("ddp_bucket_cap_mb", HF, ONE),
    UNNEEDED("ddp_broadcast_buffers", HF, ONE),
    UNNEEDED("ddp_static_graph", HF, ONE),
    UNNEEDED("ddp_backend", HF, ONE),
    UNNEEDED("ddp_timeout", HF, ONE),
    UNNEEDED("ddp_timeout_seconds", OLD, ONE),
    UNNEEDED("fsdp", HF, ONE),
    UNNEEDED("fsdp_config", HF, ONE),
    UNNEEDED("deepspeed", HF, ONE),
    UNNEEDED("parallelism_config", HF, ONE),
    UNNEEDED("local_rank", HF, ONE),
    UNNEEDED("debug", HF, NOT_TORCH),
    UNNEEDED("skip_memory_metrics", HF, "the memory plan is printed before the run"),
    /* Parameters of choices that are themselves refused: without the choice they say nothing. */
    UNNEEDED("max_tool_calling_iterations", GRPO, "there are no tools"),
    UNNEEDED("bnb_4bit_quant_type", MODEL, NO_4BIT),
    UNNEEDED("use_bnb_nested_quant", MODEL, NO_4BIT),
    UNNEEDED("bnb_4bit_quant_storage", MODEL, NO_4BIT),

    HEADING("TRL's keys that would change the result, and the values that do not"),
    REFUSED("fp16", HF, "false", "say dtype: bfloat16 or dtype: float32"),
    REFUSED("lora_target_parameters", MODEL, NULL, "adapters are of linears: lora_target_modules"),
    REFUSED("lora_modules_to_save", MODEL, NULL,
            "with use_peft the adapters alone learn; to train some parameters of the model say frozen"),
    REFUSED("use_dora", MODEL, "false", "adapters are plain here: use_rslora is the one variant"),
    REFUSED("load_in_8bit", MODEL, "false", NO_4BIT),
    REFUSED("load_in_4bit", MODEL, "false", NO_4BIT),
    REFUSED("model_revision", MODEL, "main", "models are folders here: name the folder of that revision"),
    REFUSED("model_init_kwargs", GRPO, NULL, "models have no hidden settings here"),
    REFUSED("router_aux_loss_coef", GRPO, "0", "models with experts do not exist here yet"),
    REFUSED("cast_lm_head_to_fp32", GRPO, "false",
            "the head sums in float32 always; for float32 weights in it say dtype: float32"),
    REFUSED("dataset_mixture", OLD, NULL, "say datasets, or name one file with dataset_name"),
    REFUSED("streaming", MIXTURE, "false|true", "data sets are files here"),
    REFUSED("test_split_size", MIXTURE, NULL, "give the problems to measure on as eval_dataset_name"),
    REFUSED("chat_template_kwargs", GRPO, NULL, "write prompt_template, with {problem} in it"),
    REFUSED("generation_kwargs", GRPO, NULL, "say temperature, top_p, top_k, min_p, stop_strings by themselves"),
    REFUSED("repetition_penalty", GRPO, "1", "sampling here has no penalties"),
    REFUSED("vllm_structured_outputs_regex", GRPO, NULL, "sampling here is free"),
    REFUSED("vllm_guided_decoding_regex", OLD, NULL, "sampling here is free"),
    REFUSED("reward_model_name_or_path", SCRIPT, NULL, "rewards are rules here: reward_funcs"),
    REFUSED("optim", HF, "adamw_torch|adamw_torch_fused|adamw_hf", "the optimizer is AdamW in float32"),
    REFUSED("optim_args", HF, NULL, "the optimizer is AdamW: adam_beta1, adam_beta2, adam_epsilon, weight_decay"),
    REFUSED("optim_target_modules", HF, NULL, "say what does not learn: frozen"),
    REFUSED("label_smoothing_factor", HF, "0", "there are no labels"),
    REFUSED("neftune_noise_alpha", HF, "0", "embeddings get no noise here"),
    REFUSED("data_seed", HF, NULL, "the order of problems follows seed"),
    REFUSED("train_sampling_strategy", HF, "random", "say shuffle_dataset"),
    REFUSED("group_by_length", OLD, "false", "problems are not grouped by length"),
    REFUSED("label_names", HF, NULL, "there are no labels"),
    REFUSED("ignore_data_skip", HF, "false", "a resumed run goes on where it stopped"),
    REFUSED("eval_delay", HF, "0", "measuring begins at once"),
    REFUSED("load_best_model_at_end", HF, "false",
            "the best checkpoint is kept beside the last: take it from there"),
    REFUSED("greater_is_better", HF, "true", "accuracy and reward are better when greater"),
    REFUSED("nnodes", "torchrun", "1", "whet runs on one machine: say how many processes in all: num_processes"),
};

const int recipe_n_keys = sizeof recipe_keys / sizeof *recipe_keys;

_Static_assert(sizeof recipe_keys / sizeof *recipe_keys <= RECIPE_KEYS_MAX, "RECIPE_KEYS_MAX is too small");
