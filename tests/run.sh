#!/usr/bin/env bash
# run.sh: runs what `make test` has built, counts, and ends with `N passed, N failed`; status 1 when anything
# failed or nothing ran. With --all also tests/long_*, which need the model and a Python with torch and transformers.
#
# Three kinds of tests:  tests/test_*.c     cmocka programs: plain, in double where built, with ASan and UBSan
#                        tests/*.sh         scripts, run with the plain and then with the sanitized program
#                        tests/long_*       scripts of --all (.sh, or .py where there is no .sh of that name)
# A script finds in its environment WHET (the program), WHET_MODEL (a GGUF, unset when not fetched), WHET_DATA and
# PYTHON; it is one test, or as many as its last line `N passed, N failed[, N skipped]` says.
cd "$(dirname "$0")/.." || exit 1
export WHET_DATA=${WHET_DATA:-../shared/data} PYTHON=${PYTHON:-python3}
[ -n "${WHET_MODEL:-}" ] || { [ -f "${MODEL:-}" ] && export WHET_MODEL=$MODEL; }
export UBSAN_OPTIONS=print_stacktrace=1
TIMEFORMAT='%R %U %S'
logs=build/test-logs passed=0 failed=0 skipped=0 failures=()
rm -rf $logs && mkdir -p $logs

# attempt NAME SECONDS COMMAND...: runs it and leaves its output, status and times in files of that name.
attempt() {
    local log=$logs/${1//[\/ ]/-}.log limit=$2
    shift 2
    { time timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null; } 2>"$log.time"
    echo $? >"$log.status"
    case $(cat "$log.status") in 124 | 137) echo "run.sh: took more than $limit s" >>"$log" ;; esac
}

# judge NAME: one line for what was attempted, its whole output where it failed, and what it skipped.
judge() {
    local name=$1 log status p f s wall user system
    log=$logs/${name//[\/ ]/-}.log
    status=$(cat "$log.status")
    read -r wall user system < <(tail -n 1 "$log.time") # a crash has a line before it
    read -r p f s < <(awk '
        /^\[  PASSED  \] [0-9]+ test/ { p += $4 } /^\[  FAILED  \] [0-9]+ test/ { f += $4 }
        /^\[  SKIPPED \] [0-9]+ test/ { s += $4 }
        /^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/ { lp = $1; lf = $3; ls = $5; line = NR }
        END { if (line && line == NR) { p += lp; f += lf; s += ls } print p + 0, f + 0, s + 0 }' "$log")
    if [ $status != 0 ] && [ "$f" = 0 ]; then
        f=1 # a crash, a leak, the time: no test of its own says so
        echo "run.sh: ended with status $status" >>"$log"
    elif [ $status = 0 ] && [ $((p + f + s)) = 0 ]; then
        case $name in *.sh | *.py) p=1 ;; *) f=1 && echo "run.sh: no test ran" >>"$log" ;; esac
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    printf '%-46s %4d passed' "$name" "$p"
    [ "$f" = 0 ] || printf ', %d FAILED' "$f"
    [ "$s" = 0 ] || printf ', %d skipped' "$s"
    awk -v w="$wall" -v u="$user" -v s="$system" 'BEGIN { printf "  (%.1f s, CPU %.1f s)\n", w, u + s }'
    if [ "$f" = 0 ]; then
        grep -h '^SKIPPED' "$log" | sort | uniq -c | sed 's/^ */    /'
    else
        failures+=("$name") && sed 's/^/    /' "$log" | tail -n 200
    fi
}

run() { attempt "$@" && judge "$1"; }

# CUDA=0 leaves out the tests of the CUDA back, and says so; nothing else does.
without_cuda() {
    case ${CUDA:-}:$1 in 0:test_standin_* | 0:test_cuda_* | 0:long_cuda_*) ;; *) return 1 ;; esac
    [ "${variant:-plain}" != plain ] || { echo "$1: SKIPPED, CUDA=0" && skipped=$((skipped + 1)); }
}

# The programs run as many at a time as there are cores, but for those whose subject is time: their source says
# `run.sh: alone`.
for variant in plain double asan; do
    together=() alone=()
    for source in tests/test_*.c; do
        test=$(basename "$source" .c)
        without_cuda "$test" && continue
        [ -x build/$variant/tests/"$test" ] || { [ $variant != double ] && alone+=("$test"); continue; }
        if grep -q 'run\.sh: alone' "$source"; then alone+=("$test"); else together+=("$test"); fi
    done
    for test in "${together[@]}"; do
        while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
        attempt "$variant $test" 600 build/$variant/tests/"$test" &
    done
    wait
    for test in "${together[@]}"; do judge "$variant $test"; done
    for test in "${alone[@]}"; do run "$variant $test" 300 build/$variant/tests/"$test"; done
    [ $variant = double ] && continue
    for script in tests/*.sh; do
        case $script in tests/run.sh | tests/deps.sh | tests/nvcc.sh | tests/long_*) continue ;; esac
        [ $variant = asan ] && ! grep -q WHET "$script" && continue # it does not run the program
        WHET=build/$variant/whet run "$variant $(basename "$script")" 300 bash "$script"
    done
done
if [ "${1:-}" = --all ]; then
    for script in tests/long_*; do
        without_cuda "$(basename "$script")" && continue
        case $script in
            *.sh) WHET=./whet run "$(basename "$script")" 1800 bash "$script" ;;
            *.py) [ -f "${script%.py}.sh" ] || WHET=./whet run "$(basename "$script")" 1800 "$PYTHON" "$script" ;;
        esac
    done
fi

[ ${#failures[@]} = 0 ] || printf 'failed: %s\n' "${failures[@]}"
[ $skipped = 0 ] || echo "skipped: $skipped (see SKIPPED above)"
[ $passed -gt 0 ] || failed=$((failed + 1))
echo "$passed passed, $failed failed"
[ $failed = 0 ]
