#!/usr/bin/env bash
# long_cuda.sh: the program on the stand-in for a GPU (tests/ptx): a toy run with store and checkpoint, gone on with once, whose
# stored log-probabilities are the learner's, bit for bit, and whose memory is what was planned; every op at all its sizes in
# several orders of warps and streams; whet gpu-selftest; and the demo with a program that has the CUDA back, where there is no
# CUDA library.
passed=0 failed=0 skipped=0
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
train() { STANDIN_SEED=$1 STANDIN_PEAK="$2.peak" exec $standin train "$work/toy.yaml" --output_dir "${@:2}"; }
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
says_gpu() { grep -q '^device: .*cuda_sm' "$work/whole.out" && grep -q '^memory: weights' "$work/whole.out"; }
same_bits() { # in every step
    [ "$(ask "$work/whole" "SELECT count(*), max(abs(value)) FROM step_metrics WHERE name = 'sampling/sampling_logp_difference/max'")" = '4|0.0' ]
}
planned() { # RUN: what was in use at the most is what was planned, or up to 6 % less
    python3 - "$1.out" "$1.peak" <<'PYTHON'
import re, sys
number, unit = re.search(r"^memory: .*: ([0-9.]+) (MB|GB) in all", open(sys.argv[1]).read(), re.M).groups()
plan, peak = float(number) * {"MB": 1e6, "GB": 1e9}[unit], int(open(sys.argv[2]).read())
print("%s: planned %.1f MB, at the most %.1f MB" % (sys.argv[2], plan / 1e6, peak / 1e6))
sys.exit(not 0.94 * plan <= peak <= plan + 0.06e6)
PYTHON
}
hidden() { # COMMAND...: in a place where no CUDA is installed
    local empty=$work/empty
    mkdir -p "$empty"
    env -u LD_LIBRARY_PATH -u CUDA_HOME -u CUDA_PATH -u VIRTUAL_ENV -u CONDA_PREFIX unshare $1 -m bash -c '
        for folder in /usr/local/cuda*; do [ -d "$folder" ] && { mount --bind "$0" "$folder" || exit 99; }; done
        for file in $(ldconfig -p | sed -n "s/^.*lib\(cuda\|cudart\|cublas\|cublasLt\)\.so.* => //p"); do
            [ -f "$file" ] && { mount --bind /dev/null "$file" || exit 99; }
        done
        exec "$@"' "$empty" "${@:2}"
}
no_library() { ! hidden "$as" ldd ./whet | grep -Eiq 'libcu(da|blas)|libnv|not found' && ! hidden "$as" bash -c 'ls /usr/local/cuda*/*' 2>/dev/null; }
demo_runs() { hidden "$as" bash rl/recipes/demo.sh "$WHET_MODEL" "$work/demo" 1 2 && [ "$(ask "$work/demo" 'SELECT count(*) FROM steps')" = 2 ]; }
one_line() { # PATTERN COMMAND...: fails, and its only line of errors says so
    local out
    out=$("${@:2}" 2>&1 >/dev/null </dev/null) && return 1
    echo "$out"
    [ "$(wc -l <<<"$out")" = 1 ] && grep -Eq "$1" <<<"$out"
}
auto_is_cpu() {
    hidden "$as" env STANDIN_CUBLASLT=/none "${ask_gpu[@]/%cuda/auto}" >"$work/auto" 2>"$work/why" && cat "$work/why" && [ -s "$work/auto" ] &&
        grep -q 'libcublasLt.so.13.*device auto takes the CPU' "$work/why"
}
check "a run of 4 steps" eval '(train 0 "$work/whole") >"$work/whole.out"'
check "it names the GPU and plans its memory" says_gpu
learn=(--max_steps 1 --micro_batch_tokens 512 --num_generations 8 --per_device_train_batch_size 24 --max_completion_length 24)
check "a large batch" eval '(train 0 "$work/large" "${learn[@]}") >"$work/large.out"'
check "a large batch with adapters" eval '(train 0 "$work/lora" "${learn[@]}" --use_peft --lora_r 4) >"$work/lora.out"'
check "their memory is what was planned" planned "$work/large"
check "their memory is what was planned, with adapters" planned "$work/lora"
check "a run that is killed after 2 steps" killed
check "gone on with" eval '(train 0 "$work/parts" --resume_from_checkpoint last)'
check "the same weights as without the kill" same_store
check "a checkpoint" test -f "$work/whole/checkpoint-4/model.safetensors"
check "sampled log-probs are the learner's, bit for bit" same_bits
check "a step replayed" $standin replay "$work/whole" --step 3
for seed in 1 2; do # gpu-selftest is seed 0
    check "every op, all sizes, seed $seed" env STANDIN_SEED=$seed STANDIN_PERTURB=1 WHET_ALL=1 build/plain/tests/test_cuda_ops
done
# A machine without CUDA: the library's folders are covered; no GPU is here in any case.
as=
hidden "" true 2>/dev/null || as=-r
if ! hidden "$as" true 2>/dev/null; then
    echo "SKIPPED: no mount namespace is to be had here: CUDA cannot be hidden" && skipped=$((skipped + 1))
else
    check "no CUDA library is linked, and none is there" no_library
    if [ -n "${WHET_MODEL:-}" ]; then
        check "the demo without a CUDA library" demo_runs
    else
        echo "SKIPPED: no model: the demo without a CUDA library" && skipped=$((skipped + 1))
    fi
    check "device cuda there" one_line '^whet: .*device cuda: .*use device cpu' hidden "$as" ./whet train "$work/toy.yaml" --output_dir "$work/none"
    ask_gpu=($standin sample --model tests/goldens/tiny-llama --prompt x --max_completion_length 2 --device cuda)
    check "a GPU without cuBLASLt" one_line '^whet: .*libcublasLt.so.13.*was not found' hidden "$as" env STANDIN_CUBLASLT=/none "${ask_gpu[@]}"
    check "device auto takes the CPU then, and says so" auto_is_cpu
    mkdir -p "$work/env/lib/python3.11/site-packages/nvidia/cu13/lib"
    cp build/plain/libcublasLt.so.13 "$work/env/lib/python3.11/site-packages/nvidia/cu13/lib/"
    check "cuBLASLt among Python's packages" hidden "$as" env STANDIN_CUBLASLT=/none VIRTUAL_ENV="$work/env" "${ask_gpu[@]}"
fi
check "gpu-selftest: every op, whole models of each architecture" $standin gpu-selftest --steps 3 --no_bench
[ $skipped = 0 ] || more=", $skipped skipped"
echo "$passed passed, $failed failed${more:-}"
[ $failed = 0 ]
