#!/usr/bin/env bash
# mismatch.sh: a sampler that computes otherwise than the learner is noticed. One kernel is compiled with its sums in
# another order for some numbers of rows (in a copy of its source, changed here), and the run must stop at its first step
# with a line that says so, and store nothing; without the change it must not.
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d) passed=0 failed=0
trap 'rm -rf "$work"' EXIT
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)) && echo "FAILED: $*" && tail -n 3 "$work/err" | sed 's/^/    /'; }

# variant NAME FILE SED: the program with a change of one of the plain path's files.
variant() {
    mkdir -p "$work/$1/kernels" && cp -r kernels/cpu kernels/*.h "$work/$1/kernels/"
    sed -i -E "$3" "$work/$1/kernels/cpu/$2"
    if cmp -s "kernels/cpu/$2" "$work/$1/kernels/cpu/$2"; then
        bad "$1: the change fits no line of $2" && return 1
    fi
    make -s CHANGED="$work/$1" "$work/$1/whet" >"$work/err" 2>&1 || { bad "$1: does not build" && return 1; }
}
# train NAME DTYPE: three steps of a tiny model.
train() {
    rm -rf "$work/run"
    "$work/$1/whet" train --model_name_or_path tests/goldens/tiny-llama --dataset_name generate:sums:min=1:max=3 \
        --prompt_template 'Q: {problem} A:' --num_generations 8 --per_device_train_batch_size 32 --max_prompt_length 48 \
        --max_completion_length 16 --slots 1 --eval_dataset_name "" --max_steps 3 --cpu_path plain --dtype "$2" \
        --output_dir "$work/run" >"$work/out" 2>"$work/err"
}
steps() { sqlite3 "$work/run/run.db" "SELECT count(*) FROM steps"; }

mkdir -p "$work/same" && cp build/plain/whet "$work/same/"
for dtype in float32 bfloat16; do
    if train same $dtype && [ "$(steps)" = 3 ]; then ok; else bad "unchanged, $dtype: the run did not end well"; fi
done
# caught NAME FILE SED: the run stops.
caught() {
    variant "$@" || return
    for dtype in float32 bfloat16; do
        if train "$1" $dtype; then bad "$1, $dtype: not noticed"
        elif ! grep -q "step 1: the learner's log-probabilities differ from the sampler's by up to" "$work/err"; then
            bad "$1, $dtype: another line"
        elif [ "$(steps)" != 0 ]; then bad "$1, $dtype: the step was stored"
        else ok; fi
    done
}
# A product of one row (--slots 1: each answer is written alone) sums from its end.
caught one-row matmul.h '/ tile_fma\(/,/^\}/ s/for \(int k = 0; k < pairs; k\+\+\) \{/for (int i = 0, k = R == 1 ? pairs - 1 : 0; i < pairs; i++, k += R == 1 ? -1 : 1) {/'

echo "$passed passed, $failed failed"
[ $failed = 0 ]
