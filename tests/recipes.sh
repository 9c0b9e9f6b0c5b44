#!/usr/bin/env bash
# recipes.sh: every recipe in rl/recipes starts, and takes a step of a tiny model; so does a recipe of TRL's, unchanged.
# Flags make them small: they name the model and the data, and lower lengths, batches and steps, nothing else.
set -u
whet=${WHET:-./whet}
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

# TRL's, with the model and the data that the test has in place of the hub's.
"$whet" train tests/cases/trl_grpo.yaml --model_name_or_path tests/goldens/tiny-llama --dataset_name "$work/data.jsonl" \
    --output_dir "$work/trl" "${template[@]}" --max_steps 1 --per_device_train_batch_size 8 \
    --max_completion_length 10 --max_prompt_length 64 </dev/null >"$work/log" 2>&1
check "TRL's recipe, unchanged but for what is on a hub and for its size" $?
python3 - "$work" <<'PY'
import json, sys
log = open(sys.argv[1] + "/log").read()
for line in ("accuracy_reward is called math", "use_vllm", "not needed here"):
    assert line in log, (line, log)
row = json.loads(open(sys.argv[1] + "/trl/metrics.jsonl").readline())
for name in ("rewards/math/mean", "rewards/think_format/mean", "rewards/soft_overlong/mean", "kl", "clip_ratio/low_mean"):
    assert name in row, name
PY
check "TRL's recipe: its rewards, its KL, and a reason for each key that is not needed" $?

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
