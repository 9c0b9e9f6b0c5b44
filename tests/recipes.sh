#!/usr/bin/env bash
# recipes.sh: every recipe in rl/recipes starts, and takes a step of a tiny model; so do TRL's and open-r1's, unchanged.
# Flags make them small: they name the model and the data, and lower lengths, batches and steps, nothing else.
set -u
here=$PWD whet=$(realpath "${WHET:-./whet}")
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

check() {
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $1"
        tail -n 5 "$work/log"
    fi
}

for i in 1 2 3 4 5 6 7 8; do echo "{\"problem\": \"What is $i + 1?\", \"solution\": \"$((i + 1))\"}"; done >"$work/data.jsonl"

# run NAME RECIPE FLAGS...: one update on 8 answers to each of 2 problems.
run() {
    local name=$1 recipe=$2
    shift 2
    "$whet" train "$recipe" --model_name_or_path tests/goldens/tiny-llama --dataset_name "$work/data.jsonl" \
        --output_dir "$work/$name" --max_steps 1 --num_generations 8 --max_prompt_length 320 \
        --max_completion_length 10 "$@" </dev/null >"$work/log" 2>&1
}
template=(--prompt_template "{problem}")
small=(--per_device_train_batch_size 16 --generation_batch_size 16)
rounds=(--per_device_train_batch_size 8 --generation_batch_size 16 --max_steps 2)

run r1_zero rl/recipes/r1_zero.yaml "${small[@]}" --ref_model_sync_steps 1
check "r1_zero.yaml" $?
[ -s "$work/r1_zero/checkpoint-1/reference.safetensors" ] && grep -q '"rewards/format/mean"' "$work/r1_zero/metrics.jsonl"
check "r1_zero.yaml keeps its moving reference, and judges the format" $?
run dapo rl/recipes/dapo.yaml "${small[@]}" "${template[@]}" --max_generation_batches 2 --max_completion_len 10 \
    --soft_punish_cache 4
check "dapo.yaml" $?
grep -q '"groups_passed_over": 2' "$work/dapo/metrics.jsonl"
check "dapo.yaml draws again where a random model solves nothing" $?
run dr_grpo rl/recipes/dr_grpo.yaml "${small[@]}" "${template[@]}"
check "dr_grpo.yaml" $?
run gspo rl/recipes/gspo.yaml "${rounds[@]}" "${template[@]}"
check "gspo.yaml" $?
run cispo rl/recipes/cispo.yaml "${rounds[@]}" "${template[@]}"
check "cispo.yaml" $?

# The recipe of TRL's documentation, as a file and as flags. Only what lies on a hub is named anew: a tiny model with
# room for TRL's 512 tokens of prompt and of answer, and conversations as TRL has them.
mkdir "$work/tiny" && cp tests/goldens/tiny-llama/* "$work/tiny" &&
    sed -i 's/"max_position_embeddings": 512/"max_position_embeddings": 2048/' "$work/tiny/config.json"
for i in 1 2 3 4; do
    echo "{\"prompt\": [{\"role\": \"user\", \"content\": \"What is $i + 1?\"}], \"solution\": \"$((i + 1))\"}"
done >"$work/chat.jsonl"
names=(--model_name_or_path "$work/tiny" --dataset_name "$work/chat.jsonl")
cd "$work" || exit 1
"$whet" train --config "$here/tests/cases/trl_docs_grpo.yaml" "${names[@]}" </dev/null >log 2>&1
check "the recipe of TRL's documentation runs to its end" $?
[ "$(wc -l <trainer_output/metrics.jsonl)" = 12 ] && [ -s trainer_output/checkpoint-12/model.safetensors ]
check "it takes TRL's 3 epochs of 4 prompts into trainer_output" $?
"$whet" train "${names[@]}" --reward_funcs accuracy_reward --deepspeed examples/deepspeed_configs/zero2.json \
    --nproc_per_node 4 --output_dir flags --max_completion_length 64 </dev/null >log 2>&1
check "its flags, on four processes" $?
[ "$(wc -l <flags/metrics.jsonl)" = 3 ] && grep -q 'deepspeed: not needed here' log
check "four processes' samples are one update's" $?
"$whet" train --config "$here/tests/cases/trl_docs_grpo.yaml" --model_name_or_path tiny --output_dir none \
    </dev/null >log 2>&1
[ $? = 1 ] && grep -q 'Polaris-Dataset-53K: there is no such file; a data set on a hub' log
check "a data set on a hub is refused with what to do" $?
# The documentation's mixture ("Using dataset mixtures"), of files.
cat >mix.yaml <<'YAML'
model_name_or_path: tiny
datasets:
  - path: chat.jsonl
  - path: json
    data_files: data.jsonl
    split: train
reward_funcs:
  - accuracy_reward
YAML
"$whet" train --config mix.yaml --num_train_epochs 1 --max_completion_length 16 --output_dir mix </dev/null >log 2>&1
check "a mixture of data sets" $?
[ "$(sqlite3 mix/run.db "SELECT count(*), sum(answer IS NOT NULL), max(source) FROM problems")" = "12|12|chat.jsonl, data.jsonl" ]
check "it takes the rows of both" $?
"$whet" replay mix --step 2 </dev/null >log 2>&1
check "and is replayed" $?
cd "$here" || exit 1

# open-r1's: a system message in the model's chat format, a rate that ends at a tenth, a checkpoint each tenth of the run.
"$whet" train --config tests/cases/open_r1_grpo.yaml --model_name_or_path tests/goldens/tiny-llama \
    --dataset_name "$work/data.jsonl" --output_dir "$work/r1" --num_processes 1 --gradient_accumulation_steps 1 \
    --per_device_train_batch_size 7 --max_completion_length 10 --max_prompt_length 400 --num_train_epochs 2 \
    </dev/null >"$work/log" 2>&1
check "open-r1's recipe" $?
python3 - "$work" <<'PY'
import json, math, sqlite3, sys
work = sys.argv[1]
rows = [json.loads(line) for line in open(work + "/r1/metrics.jsonl")]
assert len(rows) == 16, len(rows)
rates = [0, 2e-5 / 2] + [2e-5 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * i / 14))) for i in range(14)]
assert all(abs(row["learning_rate"] - rate) < 1e-12 for row, rate in zip(rows, rates)), rows
assert "rewards/tag_count/mean" in rows[0] and "kl" in rows[0]
log = open(work + "/log").read()
for line in ("dataset_config", "callbacks, benchmarks: not needed here", "nothing is measured"):
    assert line in log, (line, log)
template = open(work + "/r1/checkpoint-16/whet_template.txt").read()
assert template.startswith("<|im_start|>system\nYou first think") and "<answer>\n...\n</answer><|im_end|>" in template
PY
check "open-r1's recipe: its rate, its rewards, its system message, a reason for each key that is not needed" $?

run zero tests/cases/open_r1_zero.yaml "${small[@]}"
[ $? = 0 ] && [ "$(sqlite3 "$work/zero/run.db" "SELECT prompt FROM groups WHERE position = 0 AND step = 1" | tr '\n' '|')" = \
    "A conversation between User and Assistant.||User: $(sqlite3 "$work/zero/run.db" "SELECT problem FROM groups JOIN problems ON
    problem_id = problems.id WHERE position = 0 AND step = 1")||Assistant: |" ]
check "open-r1's recipe with a chat template of its own" $?

# A longer one of TRL's keys, with the model and the data that the test has in place of the hub's.
"$whet" train tests/cases/trl_grpo.yaml --model_name_or_path tests/goldens/tiny-llama --dataset_name "$work/data.jsonl" \
    --output_dir "$work/trl" "${template[@]}" --max_steps 1 --per_device_train_batch_size 8 \
    --max_completion_length 10 --max_prompt_length 64 </dev/null >"$work/log" 2>&1
check "a recipe of TRL's keys, unchanged but for what is on a hub and for its size" $?
python3 - "$work" <<'PY'
import json, sys
log = open(sys.argv[1] + "/log").read()
for line in ("accuracy_reward is called math", "use_vllm", "not needed here"):
    assert line in log, (line, log)
row = json.loads(open(sys.argv[1] + "/trl/metrics.jsonl").readline())
for name in ("rewards/math/mean", "rewards/think_format/mean", "rewards/soft_overlong/mean", "kl", "clip_ratio/low_mean"):
    assert name in row, name
PY
check "that recipe: its rewards, its KL, and a reason for each key that is not needed" $?

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
