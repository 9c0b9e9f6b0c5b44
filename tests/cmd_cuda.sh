#!/usr/bin/env bash
# cmd_cuda.sh: a whet with the CUDA back needs no CUDA library to start, takes the CPU where there is no GPU, and says so in one line
# when a GPU is asked for all the same. Where there is a GPU, `whet gpu-selftest` is its test.
whet=${WHET:-./whet}
passed=0 failed=0
check() { # NAME CONDITION...
    if "${@:2}"; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAILED: $1"; fi
}
one_line() { # PATTERN COMMAND...: fails, and its only line says so
    local out status
    out=$("${@:2}" 2>&1 </dev/null)
    status=$?
    [ $status != 0 ] && [ "$(wc -l <<<"$out")" = 1 ] && grep -Eq "$1" <<<"$out"
}
no_library() { ! ldd "$whet" | grep -Eiq 'libcu(da|blas)|libnv'; }
check "no CUDA library is linked" no_library
if ! ls /dev/nvidia[0-9]* >/dev/null 2>&1; then
    tiny=tests/goldens/tiny-llama
    on_cpu() { [ "$(echo hi | "$whet" logprob --model $tiny --device "$1" 2>&1)" = "$(echo hi | "$whet" logprob --model $tiny 2>&1)" ]; }
    check "auto is the CPU here" on_cpu cpu
    for command in "logprob --model $tiny" "sample --model $tiny --prompt x" gpu-selftest; do
        check "$command --device cuda" one_line '^whet: .*device cuda: .*(use device cpu|built without CUDA)' "$whet" $command --device cuda
    done
    check "cuda:3" one_line '^whet: .*device cuda' "$whet" logprob --model $tiny --device cuda:3
    check "no GPU at all" one_line 'is no GPU' "$whet" gpu-selftest --device cpu
fi
check "no such device" one_line 'device tpu is not known' "$whet" logprob --model tests/goldens/tiny-llama --device tpu
check "an instruction set of the GPU" one_line 'cpu_path avx2 is for the CPU' "$whet" logprob --model tests/goldens/tiny-llama --device cuda --cpu_path avx2
echo "$passed passed, $failed failed"
[ $failed = 0 ]
