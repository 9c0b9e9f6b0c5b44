#!/usr/bin/env bash
# exec_rewarder.sh: runs whose reward is a program of the user's: one that works, ones that misbehave now and then (the
# run goes on and counts what was unjudged), one that is broken (the run stops, and says why), and README.md's example.
set -u
cd "$(dirname "$0")/.." || exit 1
whet=$(realpath "${WHET:-./whet}") tiny=$PWD/tests/goldens/tiny-llama program=$PWD/tests/exec_rewarder.py
work=$(mktemp -d) passed=0 failed=0
trap 'rm -rf "$work"' EXIT
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)) && echo "FAILED: $*" && tail -n 3 "$work/out" | sed 's/^/    /'; }
train() { # NAME REWARD [FLAG...]
    "$whet" train --model_name_or_path "$tiny" --dataset_name generate:sums:min=2:max=9 --num_generations 4 --max_steps 2 \
        --per_device_train_batch_size 16 --max_prompt_length 64 --max_completion_length 6 --output_dir "$work/$1" \
        --reward_funcs "$2" --eval_dataset_name "" "${@:3}" >"$work/out" 2>&1
}
ask() { sqlite3 "$work/$1/run.db" "$2"; }

train good "exec:python3 $program good" && ok || bad "a run with a reward program"
[ "$(ask good "SELECT count(*) FROM scores WHERE abs(value - length(CAST((SELECT text FROM samples WHERE id = sample_id)
    AS TEXT)) / 100.0) < 1e-9 AND reason = 'its length' AND detail LIKE '{\"shape\"%'")" = 32 ] && ok || bad "its rewards"
grep -q '"rewards/exec_rewarder/mean": ' "$work/good/metrics.jsonl" && ok || bad "the metric has the program's name"
for mode in sometimes-die sometimes-null; do
    train $mode "exec:python3 $program $mode" --max_unjudged 0.5 --reward_exec_deadline 20 && ok || bad "a run with $mode"
    [ "$(ask $mode "SELECT sum(class = 'unjudged') BETWEEN 1 AND 16 AND count(*) = 32 FROM samples")" = 1 ] && ok ||
        bad "$mode: unjudged answers are not counted"
done
train broken "exec:python3 $program die-at-once-all" && bad "a broken program did not stop the run" || ok
grep -q 'could not be judged.*no licence.*max_unjudged' "$work/out" && ok || bad "it does not say why"
train none "exec:$work/nowhere.py" && bad "no program" || ok
grep -q 'nowhere.py.*cannot be started: No such file' "$work/out" && ok || bad "no program: no reason"

# README.md's example, as it stands there.
awk '/^    cat > my_reward.py/ { on = 1; next } /^    EOF/ { on = 0 } on' README.md | sed 's/^    //' >"$work/my_reward.py"
chmod +x "$work/my_reward.py"
[ "$(wc -l <"$work/my_reward.py")" -ge 5 ] && ok || bad "README.md has no my_reward.py"
printf '%s\n' '{"completion": "7 + 8 = 15.", "answer": "15"}' '{"completion": "15, 16, 17", "answer": "16"}' |
    "$whet" score --reward_funcs "exec:$work/my_reward.py" >"$work/scored" 2>"$work/out"
[ "$(grep -o '"reward":[0-9.]*' "$work/scored" | tr '\n' ' ')" = '"reward":1 "reward":0 ' ] && ok || bad "README.md's example"

echo "$passed passed, $failed failed"
[ $failed = 0 ]
