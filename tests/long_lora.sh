#!/usr/bin/env bash
# long_lora.sh: adapters that whet trained, on a tiny model and on SmolLM2 (WHET_MODEL), are loaded by PEFT and give the
# same log-probs there; so does the merged export (long_lora.py). WHET: the program (default ./whet).
set -eu
cd "$(dirname "$0")/.."
whet=${WHET:-./whet}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}
"$python" -c 'import peft' 2>/dev/null || { echo "SKIPPED: no Python with PEFT: set PYTHON"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }

# check NAME MODEL FLAGS...: a few steps from the Hugging Face folder MODEL, at a rate that moves much.
check() {
    local name=$1 model=$2
    shift 2
    "$whet" train --model_name_or_path "$model" --output_dir "$work/$name" --use_peft \
        --dataset_name generate:sums:min=1:max=3 --reward_funcs math \
        --prompt_template $'<|im_start|>user\n{problem}<|im_end|>\n<|im_start|>assistant\n' \
        --num_generations 8 --max_prompt_length 64 --max_completion_length 16 --scale_rewards none \
        --beta 0.05 --seed 2 "$@" >"$work/log" 2>&1 ||
        { cat "$work/log"; exit 1; }
    local last
    last=$(ls -d "$work/$name"/checkpoint-* | tail -n 1)
    head -c 700 README.md >"$work/text"
    "$whet" logprob --model "$last" <"$work/text" >"$work/logprobs"
    "$whet" export --model "$last" --format hf --dtype f32 --output "$work/merged-$name" >/dev/null
    echo "$name:"
    "$python" tests/long_lora.py "$last" "$work/logprobs" "$work/merged-$name" "$work/text" 2>"$work/err" ||
        { cat "$work/err"; exit 1; }
}

check tiny tests/goldens/tiny-untied --lora_r 4 --lora_target_modules all-linear --learning_rate 0.05 --max_steps 4 \
    --per_device_train_batch_size 64
check some tests/goldens/tiny-llama --lora_r 6 --lora_alpha 9 --use_rslora --lora_target_modules k_proj,up_proj \
    --learning_rate 0.05 --max_steps 4 --per_device_train_batch_size 64
if [ -n "${WHET_MODEL:-}" ]; then
    "$whet" export --model "$WHET_MODEL" --format hf --dtype f32 --output "$work/base" >/dev/null
    check smollm2 "$work/base" --lora_r 8 --lora_target_modules all-linear --learning_rate 0.003 --max_steps 2 \
        --per_device_train_batch_size 16
else
    echo "SKIPPED: no model: set WHET_MODEL"
fi
