#!/usr/bin/env bash
# cmd_past.sh: the commands that read a run which is there: replay, show, rescore, diff, train --from_store; and what guards say. WHET: the program (default ./whet).
# (run.sh: long)
set -u
cd "$(dirname "$0")/.." || exit 1
whet=$(realpath "${WHET:-./whet}") tiny=$PWD/tests/goldens/tiny-llama
work=$(mktemp -d) passed=0 failed=0 skipped=0
trap 'rm -rf "$work"' EXIT
export ASAN_OPTIONS=${ASAN_OPTIONS:-exitcode=99}

ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)) && echo "FAILED: $*" && tail -n 4 "$work/out" "$work/err" | sed 's/^/    /'; }
# ends STATUS WHAT PATTERN COMMAND...: this status, and a line (of stderr when the status is not 0 and stdout is empty) like
# PATTERN (grep -E).
ends() {
    local want=$1 what=$2 pattern=$3 status
    shift 3
    "$@" >"$work/out" 2>"$work/err"
    status=$?
    if [ $status = "$want" ] && cat "$work/out" "$work/err" | grep -qE -- "$pattern"; then ok; else
        bad "$what: status $status, or no line like /$pattern/"
    fi
}
train() { # NAME [FLAG...]
    "$whet" train --model_name_or_path "$tiny" --dataset_name generate:sums:min=1:max=3:held=1,1,3 \
        --prompt_template 'Q: {problem}
A:' --reward_funcs math,format --reward_weights 1,0.1 --num_generations 8 --per_device_train_batch_size 32 \
        --max_prompt_length 48 --max_completion_length 16 --temperature 1.1 --learning_rate 1e-3 --beta 0.02 --seed 3 \
        --max_steps 6 --save_steps 3 --save_total_limit 0 --output_dir "$work/$1" "${@:2}" >"$work/out" 2>"$work/err"
}
# altered PYTHON [RUN]: a copy of the run in which one thing was altered: `db` is its open store, `pack` and `unpack` blobs.
altered() {
    rm -rf "$work/altered" && cp -r "$work/${2:-run}" "$work/altered"
    python3 - "$work/altered/run.db" "$1" <<'PY' || bad "python: $1"
import sqlite3, struct, sys, zlib
db = sqlite3.connect(sys.argv[1])
def unpack(blob, kind):
    raw = zlib.decompress(blob)
    n = len(raw) // 4
    return list(struct.unpack(f"<{n}{kind}", bytes(raw[b * n + i] for i in range(n) for b in range(4))))
def pack(values, kind):
    raw = struct.pack(f"<{len(values)}{kind}", *values)
    return zlib.compress(bytes(raw[4 * i + b] for b in range(4) for i in range(len(values))))
def change(id, column, kind, at, f):
    blob, = db.execute(f"SELECT {column} FROM samples WHERE id = ?", (id,)).fetchone()
    values = unpack(blob, kind)
    values[at] = f(values[at])
    db.execute(f"UPDATE samples SET {column} = ? WHERE id = ?", (pack(values, kind), id))
exec(sys.argv[2])
db.commit()
PY
}

train run && ok || bad "a run"
train blind --reward_funcs format --reward_weights 1 --max_steps 3 --eval_dataset_name "" && grep -q '^step 3, no-signal: no group has' "$work/out" && ok ||
    bad "a guard is not said"
[ "$(sqlite3 "$work/blind/run.db" "SELECT count(*) FROM step_guards WHERE name = 'no-signal' AND step = 3")" = 1 ] && ok || bad "nor stored"
train rounds --num_iterations 2 --generation_batch_size 64 --beta 0 --top_k 20 && ok || bad "a run in rounds"

# ---- replay ----
replay() { "$whet" replay "$work/$1" "${@:2}"; }
train int8 --sampling_weights int8 --num_iterations 2 --generation_batch_size 64 && ok || bad "a run with weights of int8"
grep -q '^sampling: with weights of int8; .* is measured .* corrected by importance weights (sequence_mask)$' "$work/out" && ok || bad "int8 is silent"
sum=$(sha256sum "$work/run/run.db")
for step in 1 2 3 4 5 6; do
    ends 0 "replay of step $step" "^step $step agrees: .*differ by at most 0$" replay run --step $step
    ends 0 "replay of step $step in rounds" "^step $step agrees" replay rounds --step $step
    ends 0 "replay of step $step with int8" "^step $step agrees: .*differ by at most 0$" replay int8 --step $step
done
ends 0 "replay with int8 samples anew" '^step 5: 8 groups sampled and judged anew: all as stored' replay int8 --step 6
cp -r "$work/int8" "$work/int8-altered" && sqlite3 "$work/int8-altered/run.db" "UPDATE learner_logprobs SET logprobs =
    (SELECT logprobs FROM samples WHERE id = 105) WHERE sample_id = 105"
ends 1 "the learner's log-probs" '^step 5: group 5, sample 0 \(id 105\): .* was altered' replay int8-altered --step 5
cp -r "$work/run" "$work/before-int8" && sqlite3 "$work/before-int8/run.db" "DROP TABLE learner_logprobs"
ends 0 "a store without the learner's log-probs" "^step 5 agrees" replay before-int8 --step 5
ends 0 "replay of the last step" '^step 6: 4 groups sampled and judged anew: all as stored' replay run
[ "$sum" = "$(sha256sum "$work/run/run.db")" ] && ok || bad "replay changed the store"
# Samples 1 .. 32 are step 1's; 97 .. 128 are step 4's, the first after checkpoint-3; 105 is sample 0 of its group 1.
altered 'change(105, "logprobs", "f", 3, lambda x: x + 1e-4)'
ends 1 "one log-prob" '^step 4: group 1, sample 0 \(id 105\): a log-probability was altered: token 3 ' replay altered --step 4
ends 1 "one log-prob, met on the way" 'group 1, sample 0 \(id 105\).*token 3 ' replay altered --step 6 --no_sampling
altered 'change(106, "tokens", "i", 2, lambda x: x ^ 1)'
ends 1 "one token" '^step 4: group 1, sample 1 \(id 106\): its tokens were altered.* token 2 ' replay altered --step 4
altered 'db.execute("UPDATE samples SET reward = reward + 1 WHERE id = 107")'
ends 1 "one reward" '^step 4: group 1, sample 2 \(id 107\): its reward is stored as' replay altered --step 4
altered 'db.execute("UPDATE scores SET value = value + 1, class = '"'right'"' WHERE sample_id = 107 AND part = 0"); db.execute("UPDATE samples SET reward = reward + 1, class = '"'right'"' WHERE id = 107")'
ends 1 "one score with its reward" '^step 4: group 1, sample 2 \(id 107\): judged anew by math' replay altered --step 4
altered 'db.execute("UPDATE samples SET text = text || 1 WHERE id = 108")'
ends 1 "one text" '^step 4: group 1, sample 3 \(id 108\): its text was altered' replay altered --step 4 --no_sampling
altered 'db.execute("UPDATE advantages SET advantage = advantage + 1 WHERE sample_id = 109")'
ends 1 "one advantage" '^step 4: group 1, sample 4 \(id 109\): its advantage' replay altered --step 4
altered 'change(128, "logprobs", "f", -1, lambda x: struct.unpack("<f", struct.pack("<I", struct.unpack("<I", struct.pack("<f", x))[0] + 1))[0])'
ends 1 "the last bit of the last log-prob" '^step 4: group 3, sample 7 \(id 128\): a log-probability was altered: token ' replay altered --step 4
for token in -1 100000000; do
    altered "change(105, 'tokens', 'i', 2, lambda x: $token)"
    ends 1 "no token" "damaged: step 4: group 1, sample 0 \\(id 105\\): token 2 of its answer is $token" replay altered --step 4
done
altered 'db.execute("UPDATE samples SET logprobs = zeroblob(20) WHERE id = 105")'
ends 1 "no log-probs" 'damaged, found while reading step 4, sample 105: logprobs' replay altered --step 4
altered 'db.execute("DELETE FROM samples WHERE id = 105")'
ends 1 "a lost sample" 'damaged: group 1 of step 4 holds 7 answers' replay altered --step 4
altered 'db.execute("UPDATE samples SET finish = CASE finish WHEN '"'stop' THEN 'length' ELSE 'stop'"' END WHERE id = 128")'
ends 1 "how it ended" '^step 4: group 3, sample 7 \(id 128\): sampled anew, the way it ended' replay altered --step 4
altered 'db.execute("DELETE FROM advantages WHERE sample_id = 128")'
ends 1 "a lost advantage" '^step 4: group 3, sample 7 \(id 128\): its advantage is stored as nan' replay altered --step 4
altered 'db.execute("UPDATE groups SET signal = 1 - signal WHERE step = 4 AND position = 3")'
ends 1 "a group's numbers" '^step 4: group 3: its mean' replay altered --step 4
altered 'db.execute("UPDATE groups SET key = key + 1 WHERE step = 4 AND position = 3")'
ends 1 "a group's key" '^step 4: group 3: drawn anew, the key' replay altered --step 4
altered 'change(40, "draw_logprobs", "f", 3, lambda x: x + 1e-4)' rounds
for step in 1 4; do # step 4 goes on with samples of step 1, and checkpoint-3 lies between them
    ends 1 "a sample of an earlier step" '^step 1: group 4, sample 7 \(id 40\): a log-probability was altered: token 3 ' replay altered --step $step
done
altered 'db.execute("UPDATE advantages SET advantage = advantage + 1 WHERE sample_id = 40 AND step = 4")' rounds
ends 1 "an advantage of a later step" '^step 4: group 4, sample 7 \(id 40\): its advantage is' replay altered --step 4
altered 'db.execute("DELETE FROM step_metrics WHERE name IN ('"'completions/eos_ratio', 'rewards/contradiction_ratio'"')")'
ends 0 "a run of an older whet" '^step 5: .* \([0-9]+ of [0-9]+ numbers: its whet stored no others\)$' replay altered --step 5
grep -qE '^step 5 agrees: 64 answers and [0-9]+ numbers compared' "$work/out" && ok || bad "an older whet's does not agree"
# The instruction set: the step's own, or one with its bits; on others numbers are compared loosely.
pairs=("plain avx512 bits" "avx2 plain bits" "amx amx_plain bits" "amx_plain plain loosely" "plain amx_plain loosely")
case $whet in *asan*) pairs=("avx2 avx512 bits" "avx512 avx512_bf16 loosely") ;; esac # plain C takes minutes there
for paths in "${pairs[@]}"; do
    read -r from to how <<<"$paths"
    for path in "$from" "$to"; do
        echo x | "$whet" logprob --model "$tiny" --cpu_path "$path" >/dev/null 2>&1 || path=none && [ $path = none ] && break
    done
    [ $path = none ] && skipped=$((skipped + 1)) && echo "SKIPPED: $from replayed on $to: this machine lacks one" && continue
    train path --cpu_path "$from" --save_steps 1 --max_steps 2 --overwrite_output_dir && ok || bad "a run on $from"
    ends 0 "its own path" '^step 2 agrees: 32 answers and [0-9]+ numbers compared, log-probabilities differ by at most 0$' replay path
    if [ "$how" = bits ]; then
        ends 0 "$from on $to" "^step 2 was computed on path $from, whose bits $to has, too" replay path --cpu_path "$to"
        grep -q '^step 2 agrees: .* at most 0$' "$work/out" && ok || bad "$from on $to"
    else
        ends 0 "$from on $to" "^step 2 was computed on path $from and this is $to, .*--cpu_path $from" replay path --cpu_path "$to"
        grep -q '^step 2 agrees, loosely: .* at most [0-9.e-]*[1-9]' "$work/out" && ok || bad "$from on $to"
    fi
done
ends 1 "an unknown path" 'cpu_path mmx' replay run --cpu_path mmx
altered 'db.execute("UPDATE step_metrics SET value = value + 1e-9 WHERE step = 5 AND name = '"'grad_norm'"'")'
ends 1 "one metric" '^step 5: .*grad_norm .* where .* is stored' replay altered --step 5
altered 'db.execute("UPDATE steps SET moment_hash = '"'0000000000000000'"' WHERE step = 5")'
ends 1 "the hash of the moments" '^step 5: .* moments others' replay altered --step 6
ends 1 "no such run" 'no such folder' replay nowhere
ends 1 "no run" 'needed' "$whet" replay
ends 1 "a folder without a run" 'holds no run' "$whet" replay tests
ends 1 "no such step" 'step 7 is not there; the last one is 6' replay run --step 7
ends 1 "another model" 'not those that the run' replay run --step 1 --model "$PWD/tests/goldens/tiny-untied"
cp -r "$work/run" "$work/old" && sqlite3 "$work/old/run.db" 'PRAGMA user_version = 1'
ends 1 "a store of another version" 'older whet' replay old
ends 0 "help" 'usage: whet replay RUN' "$whet" help replay

# A run that another whet writes to (which holds this lock) is neither replaced nor gone on with.
for flag in "--overwrite_output_dir" "--resume_from_checkpoint last"; do
    (flock 9 && train run $flag) 9<"$work/run" && bad "$flag beside another whet" || ok
    grep -q 'another whet is writing to' "$work/err" && [ "$sum" = "$(sha256sum "$work/run/run.db")" ] &&
        [ -d "$work/run/checkpoint-3" ] && ok || bad "$flag beside another whet: not said, or something is lost"
done

# ---- show ----
show() { "$whet" show "$work/run" "$@"; }
ends 0 "show a run" '^ *step 6 reward ' show
ends 0 "show a step" '^group 1: .*answer' show --step 4
ends 0 "show a group" '^sample 112: step 4, group 1, sample 7 of 8' show --step 4 --group 1
ends 0 "show a sample" '^sample 105: step 4, group 1, sample 0 of 8' show --sample 105
for line in '^ +15 +[0-9]+ +-[0-9.]+  "' '^  math +0 x 1  wrong, ' '^  format +0 x 0.1  wrong, wrong-format: ' '^group     reward ' \
    '^advantage [-0-9.e]+, with which step 4 learnt from it' '^    Q: What is '; do
    grep -qE "$line" "$work/out" && ok || bad "show a sample: no line like /$line/"
done
ends 0 "show a sample of rounds" 'with which step 3 learnt' "$whet" show "$work/rounds" --sample 5
show --step 4 --group 1 --number 0 --json >"$work/json"
python3 - "$work/json" "$work/run/run.db" <<'PY' && ok || bad "show --json"
import json, sqlite3, sys
row = json.loads(open(sys.argv[1]).read())
text, n, reward, advantage = sqlite3.connect(sys.argv[2]).execute("SELECT text, n_tokens, reward, advantage FROM samples JOIN "
    "advantages ON sample_id = id WHERE id = 105").fetchone()
assert row["sample"] == 105 and row["text"] == text and len(row["tokens"]) == len(row["logprobs"]) == n
assert row["reward"] == reward and row["advantage"] == advantage and [p["name"] for p in row["parts"]] == ["math", "format"]
PY
ends 1 "no such sample" 'no sample 999' show --sample 999
ends 1 "no such group" 'groups 0 to 3' show --step 4 --group 9
ends 1 "no such step to show" 'step 7 is not there; the last one is 6' show --step 7
ends 1 "a group of no step" 'wants a --step' show --group 1
rm -rf "$work/lost" && cp -r "$work/run" "$work/lost" && rm -r "$work/lost"/checkpoint-*
sqlite3 "$work/lost/run.db" "UPDATE runs SET recipe = json_set(recipe, '$.model_name_or_path', 'nowhere')"
ends 0 "show without the model" 'tokens are numbers' "$whet" show "$work/lost" --sample 105
ends 0 "guards are shown" 'guard no-signal: no group has' "$whet" show "$work/blind" --step 3

# ---- rescore ----
rescore() { "$whet" rescore "$work/$1" "${@:2}"; }
ask() { sqlite3 "$work/run/run.db" "$1"; }
before=$(sqlite3 "$work/run/run.db" .dump | grep -cE 'INSERT INTO (samples|scores|advantages|steps|groups) ')
ends 0 "the same rewards" '^nothing would have changed' rescore run --reward_funcs math,format --reward_weights 1,0.1
[ "$(ask "SELECT count(*), sum(r.reward IS s.reward), sum(r.class = s.class), sum(r.advantage IS a.advantage) FROM rescores r
    JOIN samples s ON s.id = r.sample_id JOIN advantages a ON a.sample_id = s.id WHERE set_id = 1")" = "192|192|192|192" ] &&
    ok || bad "the same rewards are not the same"
[ "$(ask "SELECT count(*) FROM rescore_parts r JOIN scores s ON s.sample_id = r.sample_id AND s.part = r.part AND s.name = r.name
    AND s.value IS r.value AND s.verdict IS r.verdict AND s.reason IS r.reason WHERE set_id = 1")" = 384 ] && ok || bad "nor their parts"
ends 0 "rounds and kept sets" '^nothing would have changed' rescore rounds --reward_funcs math,format --reward_weights 1,0.1
train kl --kl_in_reward true --max_steps 2 --loss_type grpo && ok || bad "a run with the KL in its rewards"
ends 0 "the KL stays in the rewards" '^nothing would have changed' rescore kl --reward_funcs math,format --reward_weights 1,0.1
printf 'reward_funcs: ["exec:python3 tests/exec_rewarder.py good"]\nlearning_rate: 7\n' >"$work/other.yaml"
ends 0 "another reward" 'rank correlation' rescore run --recipe "$work/other.yaml" --examples 3
grep -qE '^verdicts that flipped \(3 of [0-9]+ shown\)' "$work/out" && grep -qE '0 lost it$' "$work/out" && ok || bad "its report"
[ "$(ask "SELECT count(*), sum(abs(new_reward - length(CAST(text AS TEXT)) / 100.0) < 1e-9) FROM side_by_side WHERE set_id = 2")" = \
    "192|192" ] && ok || bad "another reward's values"
# Advantages of the new rewards, by hand: (r - mean) / (std + 1e-4) in each group.
python3 - "$work/run/run.db" <<'PY' && ok || bad "another reward's advantages"
import sqlite3, statistics, sys
rows = sqlite3.connect(sys.argv[1]).execute("SELECT step, position, new_reward, new_advantage FROM side_by_side WHERE set_id = 2").fetchall()
for key in {r[:2] for r in rows}:
    group = [r for r in rows if r[:2] == key]
    mean, std = statistics.mean(r[2] for r in group), statistics.stdev(r[2] for r in group)
    assert len(group) == 8 and all(abs(r[3] - (r[2] - mean) / (std + 1e-4)) < 1e-9 for r in group)
PY
[ "$before" = "$(sqlite3 "$work/run/run.db" .dump | grep -cE 'INSERT INTO (samples|scores|advantages|steps|groups) ')" ] && ok ||
    bad "rescore changed the run"
ends 0 "replay beside other scores" '^step 6 agrees' replay run --step 6
ends 0 "show lists the sets" 'set 2, 20' show
ends 1 "no rewards" 'by which rewards' rescore run
ends 1 "an unknown reward" 'nonesuch' rescore run --reward_funcs nonesuch
ends 1 "an unknown key" 'reward_func.*reward_funcs' rescore run --reward_func math
ends 1 "weights that do not fit" 'reward_weights has 1' rescore run --reward_funcs math,format --reward_weights 1
[ "$(ask "SELECT count(*) FROM score_sets")" = 2 ] && ok || bad "a refused set was left"

# ---- from_store ----
train from --from_store "$work/run" --beta 0 --seed 9 && ok || bad "a run from stored answers"
from() { sqlite3 "$work/from/run.db" "ATTACH '$work/run/run.db' AS old; $1"; }
[ "$(from "SELECT count(*), sum(s.text = o.text), sum(s.logprobs = o.logprobs), sum(s.tokens = o.tokens) FROM samples s JOIN
    old.samples o USING (id)")" = "192|192|192|192" ] && ok || bad "it has not the answers of the other run"
# The other run's first step comes from these very weights: the ratio is 1, and the same is learnt (seed changes nothing).
train same --from_store "$work/run" --max_steps 1 --lr_scheduler_type constant && train one --max_steps 1 --lr_scheduler_type constant &&
    [ "$(sqlite3 "$work/same/run.db" 'SELECT weight_hash FROM steps')" = "$(sqlite3 "$work/one/run.db" 'SELECT weight_hash FROM steps')" ] &&
    ok || bad "the first step from stored answers is another"
train half --from_store "$work/run" --beta 0 --seed 9 --reward_funcs format,math --reward_weights 1,1 && ok || bad "with another reward"
[ "$(sqlite3 "$work/half/run.db" "SELECT count(*) FROM scores WHERE part = 0 AND name = 'format'")" = 192 ] && ok || bad "not judged by it"
cp -r "$work/from" "$work/cut" && rm -r "$work/cut/checkpoint-6"
train cut --from_store "$work/run" --beta 0 --seed 9 --resume_from_checkpoint last &&
    cmp -s "$work/cut/checkpoint-6/model.safetensors" "$work/from/checkpoint-6/model.safetensors" && ok || bad "going on from stored answers"
ends 0 "replay of a run from stored answers" '^step 5 agrees' replay from --step 5
train bad --from_store "$work/run" --num_generations 4 --per_device_train_batch_size 16 && bad "another num_generations" || ok
grep -q 'its answers have num_generations 8 and the recipe says 4' "$work/err" && ok || bad "not said"
train bad --from_store "$work/nowhere" && bad "no store to learn from" || ok
grep -q 'nowhere: there is no such folder' "$work/err" && ok || bad "not said"

# ---- diff ----
diff_() { "$whet" diff "$work/$1" "$work/$2"; }
ends 0 "a run and itself" '^recipes     the same' diff_ run run
grep -q 'the first run does better on 0, the second on 0' "$work/out" && grep -q 'p = 1.0000' "$work/out" && ok || bad "a run and itself"
ends 0 "two runs" '^  num_iterations +1 \| 2' diff_ run rounds
grep -qE '^metrics, mean of steps 1 to 6 of both' "$work/out" && grep -qE '^  reward +[0-9.e-]+ \| ' "$work/out" && ok || bad "their metrics"
# Of 30 problems of both, the first run alone solves 1 and the second 9: p = 22 / 1024.
cp -r "$work/run" "$work/first" && cp -r "$work/run" "$work/second"
for side in first second; do
    sqlite3 "$work/$side/run.db" "INSERT INTO problems (id, source, name, kind, problem, answer) SELECT 1000 + value, 'x', value, 'k',
        'problem ' || value, '1' FROM generate_series(1, 30)" \
        "INSERT INTO evals SELECT 1, 6, 'x', 30, 0.5, 0, 1, 1, 0" "INSERT INTO eval_answers (run, step, name, position, problem_id, text,
        n_tokens, finish, class) SELECT 1, 6, 'x', value, 1000 + value, 'answer', 1, 'stop', CASE WHEN value > 20 OR
        (value = 1 AND '$side' = 'first') OR (value BETWEEN 2 AND 10 AND '$side' = 'second') THEN 'right' ELSE 'wrong' END
        FROM generate_series(1, 30)"
done
ends 0 "a paired test" "McNemar's exact test: p = 0.0215: the difference is hardly chance" diff_ first second
grep -q '30 problems of both: the first run does better on 1, the second on 9' "$work/out" && ok || bad "the pairs"
ends 1 "diff of one run" 'needed' "$whet" diff "$work/run"
ends 1 "diff without a run" 'no such folder' diff_ run nowhere

if [ $skipped = 0 ]; then echo "$passed passed, $failed failed"; else echo "$passed passed, $failed failed, $skipped skipped"; fi
[ $failed = 0 ]
