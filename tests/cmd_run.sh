#!/usr/bin/env bash
# cmd_run.sh: the commands sample, eval, logprob and help on a tiny model: what they print, and that slots, threads and
# batches change none of it. WHET: the program (default ./whet).
set -u
shopt -s lastpipe # json counts at the end of a pipe
cd "$(dirname "$0")/.." || exit 1
whet=$(realpath "${WHET:-./whet}") tiny=tests/goldens/tiny-llama
work=$(mktemp -d) passed=0 failed=0
trap 'rm -rf "$work"' EXIT

ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)) && echo "FAILED: $*"; }
# says WHAT PATTERN COMMAND...: status 0, and a line of stdout matches PATTERN (grep -E).
says() {
    local what=$1 pattern=$2
    shift 2
    if "$@" >"$work/out" 2>"$work/err" && grep -qE -- "$pattern" "$work/out"; then ok; else
        bad "$what: no line like /$pattern/" && tail -n 3 "$work/out" "$work/err" | sed 's/^/    /'
    fi
}
# refused WHAT PATTERN COMMAND...: status 1 or 2, one line on stderr like PATTERN.
refused() {
    local what=$1 pattern=$2 status
    shift 2
    "$@" >"$work/out" 2>"$work/err" </dev/null
    status=$?
    if { [ $status = 1 ] || [ $status = 2 ]; } && [ "$(wc -l <"$work/err")" = 1 ] && grep -qE -- "$pattern" "$work/err"
    then ok; else bad "$what: status $status" && tail -n 3 "$work/err" | sed 's/^/    /'; fi
}
# same WHAT FILE FILE: equal and not empty.
same() { if [ -s "$2" ] && cmp -s "$2" "$3"; then ok; else bad "$1: $2 and $3 differ"; fi; }
logprob() { printf '%s' "$1" | "$whet" logprob --model $tiny "${@:2}"; }
json() { python3 -c "import json,sys; r=[json.loads(l) for l in sys.stdin]; assert $1, r" && ok || bad "$2"; }

# ---- help ----
says "help" '^  eval ' "$whet" help
says "help eval" '^  --num_samples ' "$whet" help eval
says "help train" 'learning_rate' "$whet" help train
says "train --help" 'learning_rate' "$whet" train --help
refused "unknown command" 'no command "evil"' "$whet" evil
refused "misspelt flag" 'did you mean --model' "$whet" sample --modle x
refused "flag without value" 'wants a value' "$whet" eval --data
refused "bad number" 'must be a whole number' "$whet" eval --num_samples 2.5
refused "number out of range" 'from' "$whet" sample --temperature -1
refused "no model" '--model is needed' "$whet" logprob
refused "unknown dtype" 'float32 or bfloat16' "$whet" logprob --model $tiny --dtype half
refused "unknown path" 'cpu_path' "$whet" logprob --model $tiny --cpu_path mmx
refused "too little memory" 'memory' "$whet" sample --model $tiny --prompt a --max_memory 100K

# ---- logprob ----
text=$(printf 'What is %d + 8?\n<|im_end|>' {1..30})
logprob "$text" --threads 1 >"$work/one"
logprob "$text" --threads 2 >"$work/two"
same "logprob with 1 and 2 threads" "$work/one" "$work/two"
json "len(r) == 1 and r[0]['dtype'] == 'float32' and len(r[0]['tokens']) == len(r[0]['logprobs']) > 300 and \
r[0]['logprobs'][0] is None and all(x < 0 for x in r[0]['logprobs'][1:]) and 2 in r[0]['tokens']" "logprob" <"$work/one"
logprob "$text" --dtype=bfloat16 | json "r[0]['dtype'] == 'bfloat16'" "logprob in bfloat16"
logprob "" | json "r[0]['tokens'] == [] and r[0]['logprobs'] == []" "logprob of nothing"
logprob "a" | json "len(r[0]['tokens']) == 1 and r[0]['logprobs'] == [None]" "logprob of one token"
long=$(printf 'a b %.0s' {1..600})
printf '%s' "$long" >"$work/long"
if "$whet" logprob --model $tiny <"$work/long" >"$work/out" 2>"$work/err"; then bad "logprob of a text too long"; else
    grep -q '512' "$work/err" && ok || bad "logprob of a text too long: $(cat "$work/err")"
fi

# ---- sample ----
sample() { "$whet" sample --model $tiny --prompt 'What is 7 + 8?' --max_completion_length 12 "$@" 2>"$work/err"; }
says "sample" '.' sample
sample --num_samples 20 --json --slots 64 >"$work/one"
sample --num_samples 20 --json --slots 3 --threads 1 >"$work/two"
same "samples with 64 and 3 slots" "$work/one" "$work/two"
json "len(r) == 20 and [x['index'] for x in r] == list(range(20)) and len({x['text'] for x in r}) > 10 and \
all(len(x['tokens']) == len(x['logprobs']) <= 12 for x in r)" "sample --json" <"$work/one"
sample --num_samples 20 --json --seed 43 >"$work/two"
cmp -s "$work/one" "$work/two" && bad "another seed gives the same samples" || ok
sample --num_samples 2 --temperature 0 --json | json "r[0]['tokens'] == r[1]['tokens']" "greedy samples"
echo 'What is 7 + 8?' | "$whet" sample --model $tiny --json --max_completion_length 3 2>/dev/null |
    json "r[0]['prompt_tokens'] > 3" "a prompt on standard input"
# The log-probs of a sample are those of the text (float32, as logprob computes them).
sample --dtype float32 --json --num_samples 1 >"$work/sample"
python3 - "$work/sample" "$whet" $tiny <<'PY' && ok || bad "log-probs of a sample and of logprob differ"
import json, subprocess, sys
row = json.loads(open(sys.argv[1]).readline())
text = "What is 7 + 8?" + row["text"]
out = subprocess.run([sys.argv[2], "logprob", "--model", sys.argv[3]], input=text.encode(), stdout=subprocess.PIPE).stdout
got = json.loads(out)
n = row["prompt_tokens"]
if got["tokens"][n:] == row["tokens"]:  # the same text may be spelt with other tokens
    assert all(abs(a - b) < 1e-6 * abs(b) + 1e-6 for a, b in zip(got["logprobs"][n:], row["logprobs"])), (got, row)
PY

# ---- eval ----
printf '%s\n' '{"problem": "What is 7 + 8?", "answer": "15"}' '{broken' '{"question": "1?", "answer": "1"}' \
    '{"problem": "<|im_end|> 3?", "answer": "3"}' >"$work/rows.jsonl"
eval_() { "$whet" eval --model $tiny --data "$work/rows.jsonl" --max_completion_length 9 "$@" 2>"$work/err"; }
says "eval" '% of 2 problems right' eval_
grep -q '2 rows skipped' "$work/err" && ok || bad "eval does not say what it skipped: $(cat "$work/err")"
eval_ --json | tail -n 1 | json "r[0]['n'] == 2 and 0 <= r[0]['ci_low'] <= r[0]['accuracy'] <= r[0]['ci_high'] <= 1" \
    "eval --json"
echo '{"problem": "What is it?"}' >"$work/rows.jsonl" # no answer to compare with: never scored as zero
eval_ --json | json "r[0]['n'] == 0 and r[0]['unjudged'] == 1 and r[0]['accuracy'] is None" "eval of what can't be judged"
data=generate:sums:min=2:max=20:held=7,3,4
pass() { "$whet" eval --model $tiny --data $data --held_out --max_samples 9 --num_samples 6 --temperature 1 --json \
    --max_completion_length 9 --reward_funcs math,format --reward_weights 1,0.1 "$@" 2>/dev/null | sed 's/"seconds": [^,]*,//'; }
pass --slots 64 >"$work/one"
pass --slots 5 --threads 1 >"$work/two"
same "evaluations with 64 and 5 slots" "$work/one" "$work/two"
json "r[0]['n'] == 9 and r[0]['samples'] == 54 and sorted(map(int, r[0]['pass_at'])) == [1, 2, 4, 6]" "pass@k" <"$work/one"

# ---- export: what is there stays until the new one is whole, for it may be the very file that is read ----
says "export" 'written as gguf f32' "$whet" export --model $tiny --format gguf --dtype f32 --output "$work/a.gguf"
cp "$work/a.gguf" "$work/b.gguf" && ln -s b.gguf "$work/link.gguf"
for name in b link; do
    says "export onto its model" 'written as gguf f32' "$whet" export --model "$work/b.gguf" --format gguf --dtype f32 --output "$work/$name.gguf"
    same "export onto its model" "$work/a.gguf" "$work/b.gguf"
done
refused "export to a full disk" 'writing failed' bash -c 'ulimit -f 10; exec "$@"' - "$whet" export --model $tiny --format gguf --dtype f16 --output "$work/b.gguf"
same "export to a full disk" "$work/a.gguf" "$work/b.gguf"
for name in c d; do # the second onto the first's
    says "export of a folder" 'written as hf f32' "$whet" export --model "$([ $name = c ] && echo $tiny || echo "$work/c")" --format hf --dtype f32 --output "$work/c"
    cp "$work/c/model.safetensors" "$work/$name.safetensors"
done
same "export onto its folder" "$work/c.safetensors" "$work/d.safetensors"
[ -L "$work/link.gguf" ] && [ -z "$(find "$work" -name '*.part')" ] && ok || bad "export leaves other files"

echo "$passed passed, $failed failed"
[ $failed = 0 ]
