#!/usr/bin/env bash
# fuzz.sh: builds the libFuzzer targets of tests/fuzz/ with clang, ASan and UBSan and runs each for FUZZ_SECONDS
# (default 5), starting from the cases. `make fuzz FUZZ_SECONDS=300` is the long run by hand. A crash, a leak or an
# input of more than a second fails; what was found stays in build/fuzz/. (run.sh: long)
cd "$(dirname "$0")/.." || exit 1
seconds=${FUZZ_SECONDS:-5} clang=${CLANG:-clang} out=build/fuzz passed=0 failed=0
echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' >/tmp/whet-fuzz-$$.c
if ! $clang -fsanitize=fuzzer /tmp/whet-fuzz-$$.c -o /tmp/whet-fuzz-$$ 2>/dev/null; then
    rm -f /tmp/whet-fuzz-$$*
    echo "SKIPPED: clang with libFuzzer is not installed"
    echo "0 passed, 0 failed, 2 skipped"
    exit 0
fi
rm -f /tmp/whet-fuzz-$$*
mkdir -p $out
flags='-std=c11 -D_GNU_SOURCE -O1 -g -I. -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all'
for source in reward/math*.c kernels/base.c; do
    object=$out/$(basename "${source%.c}").o
    [ "$object" -nt "$source" ] && [ "$object" -nt reward/math_parts.h ] && [ "$object" -nt reward/math_reader.h ] && continue
    $clang $flags -c -o "$object" "$source" || exit 1
done
for target in parse pair; do
    name=fuzz_math_$target
    $clang $flags -fsanitize=fuzzer -o $out/$name tests/fuzz/$name.c $out/*.o -lflint-arb -lflint -lmpfr -lgmp -lm || exit 1
    mkdir -p $out/seeds-$target $out/corpus-$target
    if [ -z "$(ls -A $out/seeds-$target)" ]; then
        python3 - $out/seeds-$target $target <<'PY'
import json, sys
for path in ("tests/cases/math.jsonl", "tests/cases/math_upstream.jsonl"):
    for i, line in enumerate(open(path)):
        row = json.loads(line)
        text = row["gold"] if sys.argv[2] == "parse" else row["gold"].replace("\n", " ") + "\n" + row["completion"]
        with open(f"{sys.argv[1]}/{path[12:-6]}-{i}", "wb") as seed:
            seed.write(text.encode())
PY
    fi
    if $out/$name -max_total_time="$seconds" -timeout=1 -rss_limit_mb=1024 -max_len=3000 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix=$out/$name- $out/corpus-$target $out/seeds-$target >$out/$name.log 2>&1; then
        passed=$((passed + 1))
        echo "$name: $(grep -o 'number_of_executed_units: [0-9]*' $out/$name.log), none failed"
    else
        failed=$((failed + 1))
        tail -n 60 $out/$name.log
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
