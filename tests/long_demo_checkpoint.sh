#!/usr/bin/env bash
# long_demo_checkpoint.sh: the newest checkpoint of demo-run/, or one that two steps of the demo make here, as Hugging
# Face's libraries load it: the same ids and log-probs as `whet logprob` gives. The comparison is in the .py beside it.
set -u
cd "$(dirname "$0")/.." || exit 1
whet=${WHET:-./whet} work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
checkpoint=$(ls -d demo-run/checkpoint-* 2>/dev/null | sort -t- -k3 -n | tail -n 1)
if [ -z "$checkpoint" ]; then
    "$whet" train rl/recipes/demo.yaml --model_name_or_path "${WHET_MODEL:?the demo model is not there}" \
        --output_dir "$work/run" --max_steps 2 --save_steps 2 --eval_steps 0 >"$work/log" 2>&1 ||
        { tail "$work/log"; exit 1; }
    checkpoint=$work/run/checkpoint-2
fi
echo "checkpoint: $checkpoint"
"${PYTHON:-python3}" tests/long_demo_checkpoint.py "$whet" "$checkpoint"
