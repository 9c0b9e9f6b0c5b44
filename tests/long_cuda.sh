#!/usr/bin/env bash
# long_cuda.sh: the program on the stand-in for a GPU (tests/ptx): a toy run with store and checkpoint, gone on with once, whose
# stored log-probabilities are the learner's, bit for bit; every op at all its sizes in several orders of warps and streams; and
# whet gpu-selftest.
passed=0 failed=0
check() { # NAME COMMAND...
    if "${@:2}" >"$work/log" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAILED: $1" && tail -n 30 "$work/log"; fi
}
standin=build/plain/whet-standin
[ -x $standin ] || { echo "SKIPPED: no stand-in: this build has no CUDA" && echo "0 passed, 0 failed, 1 skipped" && exit 0; }
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cat >"$work/toy.yaml" <<YAML
model_name_or_path: tests/goldens/tiny-llama
dataset_name: generate:sums
prompt_template: "{problem}="
device: cuda
dtype: bfloat16
num_generations: 4
per_device_train_batch_size: 8
max_prompt_length: 40
max_completion_length: 12
micro_batch_tokens: 128
save_steps: 2
max_steps: 4
slots: 5
learning_rate: 1.0e-3
reward_funcs: ["exec:$work/reward.py"]
YAML
cat >"$work/reward.py" <<'PYTHON'
#!/usr/bin/env python3
import json, sys, zlib
for line in sys.stdin: # a function of the answer's text
    row = json.loads(line)
    reward = zlib.crc32(row["completion"].encode()) % 5 / 4
    print(json.dumps({"id": row["id"], "reward": reward, "reason": "crc"}), flush=True)
PYTHON
chmod +x "$work/reward.py"
train() { STANDIN_SEED=$1 exec $standin train "$work/toy.yaml" --output_dir "${@:2}"; }
killed() { # a run that is killed once it has its first checkpoint
    (train 0 "$work/parts") &
    local pid=$!
    until [ -f "$work/parts/checkpoint-2/model.safetensors" ] || ! kill -0 $pid; do sleep 0.1; done
    kill -KILL $pid
    wait $pid
    [ -d "$work/parts/checkpoint-2" ] && [ ! -d "$work/parts/checkpoint-4" ]
}
ask() { sqlite3 "$1/run.db" "$2"; }
same_store() { # the weights' hashes of all steps
    local a b
    a=$(ask "$work/whole" 'SELECT step, weight_hash FROM steps ORDER BY step') b=$(ask "$work/parts" 'SELECT step, weight_hash FROM steps ORDER BY step')
    echo "$a" && [ "$(cut -d'|' -f2 <<<"$a" | sort -u | wc -l)" = 4 ] && [ "$a" = "$b" ]
}
says_gpu() { grep -q '^device: .*cuda_sm' "$work/out" && grep -q '^memory: weights' "$work/out"; }
same_bits() { # in every step
    [ "$(ask "$work/whole" "SELECT count(*), max(abs(value)) FROM step_metrics WHERE name = 'sampling/sampling_logp_difference/max'")" = '4|0.0' ]
}
check "a run of 4 steps" eval '(train 0 "$work/whole") >"$work/out"'
check "it names the GPU and plans its memory" says_gpu
check "a run that is killed after 2 steps" killed
check "gone on with" eval '(train 0 "$work/parts" --resume_from_checkpoint last)'
check "the same weights as without the kill" same_store
check "a checkpoint" test -f "$work/whole/checkpoint-4/model.safetensors"
check "sampled log-probs are the learner's, bit for bit" same_bits
check "a step replayed" $standin replay "$work/whole" --step 3
for seed in 0 1 2; do
    check "every op, all sizes, seed $seed" env STANDIN_SEED=$seed STANDIN_PERTURB=1 WHET_ALL=1 build/plain/tests/test_cuda_ops
done
check "whole models" env WHET_ALL=1 build/plain/tests/test_cuda_model
check "gpu-selftest" $standin gpu-selftest --steps 1 --no_bench
echo "$passed passed, $failed failed"
[ $failed = 0 ]
