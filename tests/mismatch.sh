#!/usr/bin/env bash
# mismatch.sh [PATH...]: a sampler that computes otherwise than the learner is noticed. One kernel is compiled with its
# sums in another order for some numbers of rows (in a copy of its source, changed here), and the run must stop at its
# first step with a line that says so, and store nothing; without the change it must not. On the path plain, if no other is
# named. And plain C gives the same run compiled with and without the FMA instruction. (run.sh: long)
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d) passed=0 failed=0 skipped=0
trap 'rm -rf "$work"' EXIT
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)) && echo "FAILED: $*" && tail -n 3 "$work/err" | sed 's/^/    /'; }

# change NAME FILE SED: a copy of kernels/ in the folder NAME, with a change of a file.
change() {
    mkdir -p "$work/$1/kernels" && { [ -d "$work/$1/kernels/cpu" ] || cp -r kernels/cpu kernels/*.h "$work/$1/kernels/"; }
    sed -i -E "$3" "$work/$1/kernels/cpu/$2"
    if cmp -s "kernels/cpu/$2" "$work/$1/kernels/cpu/$2"; then bad "$1: the change fits no line of $2"; fi
}
# build NAME FILES: the program with these files of the changed copy.
build() { make -s CHANGED="$work/$1" FILES="$2" "$work/$1/whet" >"$work/err" 2>&1 || bad "$1: does not build"; }
# train NAME PATH DTYPE: three steps of a tiny model.
train() {
    rm -rf "$work/run"
    "$work/$1/whet" train --model_name_or_path tests/goldens/tiny-llama --dataset_name generate:sums:min=1:max=3 \
        --prompt_template 'Q: {problem} A:' --num_generations 8 --per_device_train_batch_size 32 --max_prompt_length 48 \
        --max_completion_length 16 --slots 1 --eval_dataset_name "" --max_steps 3 --cpu_path "$2" --dtype "$3" \
        --output_dir "$work/run" >"$work/out" 2>"$work/err"
}
ask() { sqlite3 "$work/run/run.db" "$1"; }

mkdir -p "$work/same" && cp build/plain/whet "$work/same/"
# Processors with FMA have two builds of plain C.
two() { grep -m 1 '^flags' /proc/cpuinfo | grep -w fma | grep -qw avx2; }
paths=() files=()
for path in "${@:-plain}"; do
    case $path in plain) file=plain && ! two || file=plain_fma ;; avx512_bf16) file=dot ;; *) file=$path ;; esac
    if train same "$path" float32; then paths+=("$path") files+=("$file"); else
        grep -q 'this processor lacks the instructions' "$work/err" || bad "unchanged, $path: the run did not end well"
        skipped=$((skipped + 1)) && echo "SKIPPED: $path: this processor lacks its instructions; CI runs it where a machine has them"
    fi
done
# A product of one row (--slots 1: each answer is written alone) sums from its end.
change one-row matmul.h '/ tile_(fma|dot)\(/,/^\}/ s/for \(int k = 0; k < pairs; k\+\+\) \{/for (int i = 0, k = R == 1 ? pairs - 1 : 0; i < pairs; i++, k += R == 1 ? -1 : 1) {/'
change one-row matmul_tiles.h '/ tiles_product\(/,/^\}/ s/for \(int k = 0; k < blocks; k\+\+([^)]*)\) \{/for (int turn = 0, k = rows == 1 ? blocks - 1 : 0; turn < blocks; turn++, k += rows == 1 ? -1 : 1\1) {/'
build one-row "${files[*]}"
for path in "${paths[@]}"; do
    for dtype in float32 bfloat16; do
        if train same "$path" $dtype && [ "$(ask 'SELECT count(*) FROM steps')" = 3 ]; then ok; else
            bad "unchanged, $path, $dtype: the run did not end well"
        fi
        if train one-row "$path" $dtype; then bad "$path, $dtype: not noticed"
        elif ! grep -q "step 1: the learner's log-probabilities differ from the sampler's, by" "$work/err"; then
            bad "$path, $dtype: another line"
        elif [ "$(ask 'SELECT count(*) FROM steps')" != 0 ]; then bad "$path, $dtype: the step was stored"
        else ok; fi
    done
done
if [ $# = 0 ] && two; then
    change base cpu.c '/ \{&cpu_plain_fma_ops, has_avx2\},/d'
    build base cpu
    for dtype in float32 bfloat16; do
        train base plain $dtype && hash=$(ask 'SELECT weight_hash, moment_hash FROM steps WHERE step = 3')
        if train same plain $dtype && [ "$hash" = "$(ask 'SELECT weight_hash, moment_hash FROM steps WHERE step = 3')" ]; then ok; else
            bad "plain C without FMA, $dtype: not the same"
        fi
    done
fi

if [ $skipped = 0 ]; then echo "$passed passed, $failed failed"; else echo "$passed passed, $failed failed, $skipped skipped"; fi
[ $failed = 0 ]
