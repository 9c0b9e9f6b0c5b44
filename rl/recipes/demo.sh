#!/usr/bin/env bash
# demo.sh MODEL FOLDER SEED [STEPS]: what `make demo` runs when all is built: trains MODEL into FOLDER with demo.yaml.
# A run that an earlier demo left there is moved to FOLDER.old.
set -u
model=$1 folder=$2 seed=$3 steps=${4:-}
if [ -e "$folder" ]; then
    rm -rf "$folder.old" && mv "$folder" "$folder.old" || exit 1
    echo "demo: the run of an earlier demo is in $folder.old/ now"
fi
train=(./whet train rl/recipes/demo.yaml --model_name_or_path "$model" --output_dir "$folder" --seed "$seed")
[ -z "$steps" ] || train+=(--max_steps "$steps")
echo "${train[*]}"
exec "${train[@]}"
