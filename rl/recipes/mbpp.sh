#!/usr/bin/env bash
# mbpp.sh MODEL FOLDER [STEPS [MORE FLAGS...]]: trains MODEL into FOLDER on MBPP's train part with mbpp.yaml;
# the data are mbpp_train.jsonl.gz and mbpp_validation.jsonl.gz in $WHET_DATA (default ../shared/data), the
# program is $WHET (default ./whet).
set -eu
model=$1 folder=$2 steps=${3:-}
shift $(($# < 3 ? $# : 3))
data=${WHET_DATA:-../shared/data} whet=${WHET:-./whet}
rows=$folder.data
mkdir -p "$rows"
for part in train validation; do
    zcat "$data/mbpp_$part.jsonl.gz" | python3 -c '
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    tests = "\n".join(row["tests"])
    text = row["prompt"] + "\nYour code should pass these tests:\n\n" + tests + "\n\nAnswer with one ```python block."
    print(json.dumps({"id": row["id"], "problem": text, "asserts": row["tests"], "setup": row["setup"],
                      "entry_point": row["entry_point"], "language": "python", "limits": {"wall_s": 5}}))
' >"$rows/$part.jsonl"
done
[ -z "$steps" ] || set -- --max_steps "$steps" "$@"
exec "$whet" train rl/recipes/mbpp.yaml --dataset_name "$rows/train.jsonl" \
    --eval_dataset_name "$rows/validation.jsonl" --model_name_or_path "$model" --output_dir "$folder" --seed 1 "$@"
