#!/usr/bin/env bash
# long_paths.sh: the demo, shortened, on each of the machine's paths: in no step does a log-probability of the learner
# differ from the sampler's in a single bit, and plain C, AVX2 and AVX-512 make the same run. WHET: the program.
cd "$(dirname "$0")/.." || exit 1
whet=$(realpath "${WHET:-./whet}") steps=3 passed=0 failed=0 skipped=0
[ -f "${WHET_MODEL:-}" ] || { echo "SKIPPED: no model: set WHET_MODEL (make test-all and CI fetch one and run this)" && echo "0 passed, 0 failed, 1 skipped" && exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)) && echo "FAILED: $*" && tail -n 3 "$work/err" | sed 's/^/    /'; }
ask() { sqlite3 "$work/$1/run.db" "$2"; }

same_bits=
for path in plain avx2 avx512 avx512_bf16 amx; do
    if ! "$whet" train rl/recipes/demo.yaml --model_name_or_path "$WHET_MODEL" --cpu_path $path --max_steps $steps \
        --num_generations 4 --per_device_train_batch_size 8 --reward_funcs math,cosine --eval_steps 0 --eval_dataset_name "" --save_steps 0 \
        --output_dir "$work/$path" >"$work/out" 2>"$work/err"; then
        grep -q 'this processor lacks the instructions' "$work/err" || { bad "$path: the run did not end well" && continue; }
        skipped=$((skipped + 1)) && echo "SKIPPED: $path: this processor lacks its instructions; CI runs it where a machine has them" && continue
    fi
    [ "$(ask $path "SELECT count(*), max(value) FROM step_metrics WHERE name = 'sampling/sampling_logp_difference/max'")" = "$steps|0.0" ] &&
        ok || bad "$path: sampler and learner differ"
    [ "$(ask $path "SELECT max(value) > 0 FROM step_metrics WHERE name = 'grad_norm'")" = 1 ] && ok || bad "$path: nothing was learnt"
    case $path in plain | avx2 | avx512)
        hashes=$(ask $path "SELECT weight_hash, moment_hash FROM steps ORDER BY step")
        [ "$hashes" = "${same_bits:=$hashes}" ] && ok || bad "$path: another run than plain C's" ;;
    esac
done
if [ $skipped = 0 ]; then echo "$passed passed, $failed failed"; else echo "$passed passed, $failed failed, $skipped skipped"; fi
[ $failed = 0 ]
