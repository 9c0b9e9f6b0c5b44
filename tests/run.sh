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

# CUDA=0 leaves out the tests of the CUDA back, and says so; nothing else does.
without_cuda() {
    case ${CUDA:-}:$1 in 0:test_standin_* | 0:test_cuda_* | 0:long_cuda_*) ;; *) return 1 ;; esac
    [ "${variant:-plain}" != plain ] || { echo "$1: SKIPPED, CUDA=0" && skipped=$((skipped + 1)); }
}

# What runs in plain, in double and with sanitizers waits in three lists of commands. As many run at a time as there are
# cores, what says `run.sh: long` in its source first. What says `run.sh: alone` (its subject is time, or it kills or counts
# every sandbox there is) runs one at a time, beside others of the other lists that are nice and get only what it leaves.
long=() rest=() alone=()
for variant in plain double asan; do
    for source in tests/test_*.c tests/*.sh; do
        test=$(basename "$source" .c)
        case $source in
            tests/run.sh | tests/deps.sh | tests/nvcc.sh | tests/long_*) continue ;;
            *.sh)
                [ $variant = double ] && continue
                [ $variant = asan ] && ! grep -q WHET "$source" && continue # it does not run the program
                command="env WHET=build/$variant/whet bash $source"
                ;;
            *)
                without_cuda "$test" && continue
                command=build/$variant/tests/$test
                [ $variant = double ] && [ ! -x "$command" ] && continue
                ;;
        esac
        case $(grep -om 1 'run\.sh: [a-z]*' "$source") in
            *alone) alone+=("$variant $test|$command") ;;
            *long) long+=("$variant $test|$command") ;;
            *) rest+=("$variant $test|$command") ;;
        esac
    done
done
rest=("${long[@]}" "${rest[@]}")
declare -A running=() # what runs: its process and its name
first='' cores=$(nproc)
while [ $((${#alone[@]} + ${#rest[@]} + ${#running[@]})) -gt 0 ]; do
    if [ -z "$first" ] && [ ${#alone[@]} -gt 0 ]; then
        attempt "${alone[0]%|*}" 600 ${alone[0]#*|} &
        first=$! running[$!]=${alone[0]%|*} alone=("${alone[@]:1}")
    elif [ ${#rest[@]} -gt 0 ] && [ ${#running[@]} -lt "$cores" ]; then
        attempt "${rest[0]%|*}" 600 nice -n 19 ${rest[0]#*|} &
        running[$!]=${rest[0]%|*} rest=("${rest[@]:1}")
    else
        wait -n -p ended
        judge "${running[$ended]}"
        unset "running[$ended]"
        [ "$ended" != "$first" ] || first=''
    fi
done

# judged NAME COMMAND...: one of --all, on its own.
judged() { attempt "$1" 1800 "${@:2}" && judge "$1"; }
if [ "${1:-}" = --all ]; then
    for script in tests/long_*; do
        without_cuda "$(basename "$script")" && continue
        case $script in
            *.sh) WHET=./whet judged "$(basename "$script")" bash "$script" ;;
            *.py) [ -f "${script%.py}.sh" ] || WHET=./whet judged "$(basename "$script")" "$PYTHON" "$script" ;;
        esac
    done
fi

[ ${#failures[@]} = 0 ] || printf 'failed: %s\n' "${failures[@]}"
[ $skipped = 0 ] || echo "skipped: $skipped (see SKIPPED above)"
[ $passed -gt 0 ] || failed=$((failed + 1))
echo "$passed passed, $failed failed"
[ $failed = 0 ]
