#!/usr/bin/env bash
# score.sh: tests of `whet score`: rows in and out, and its agreement with the labels of the files in WHET_DATA
# (skipped where they are absent). WHET is the program.
cd "$(dirname "$0")/.." || exit 1
whet=${WHET:-./whet} data=${WHET_DATA:-../shared/data} passed=0 failed=0 skipped=0
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

check() { # check NAME STATUS
    if [ "$2" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAILED: $1"; fi
}
score() { "$whet" score --reward_funcs math "$@" 2>"$work/summary"; }

# ---- rows ----
cat >"$work/rows" <<'ROWS'
{"id": 7, "completion": "so \\boxed{\\frac{2}{4}}", "answer": "1/2", "mine": [1, {"a": null}]}
{"id": 7, "completion": "", "answer": "1/2"}
not JSON
{"id": 8, "answer": "1/2"}

{"completion": "\\boxed{3}", "answer": 3, "reward": 99, "verdict": "old"}
{"completion": "\\boxed{3}"}
{"completion": "é \\boxed{\\text{é}} \u0000", "answer": "\\frac{}{2}"}
{"completion": "\ud83d lone, \ud83d\ude00 whole: \\boxed{4}", "answer": "4"}
ROWS
printf '{"completion": "\xff\xe2\x82 \\\\boxed{4}", "answer": "4"}\n' >>"$work/rows"
score <"$work/rows" >"$work/out"
check "exit status 0 with wrong and unjudged rows" $?
python3 - "$work" <<'PY'
import json, sys
out = [json.loads(line) for line in open(sys.argv[1] + "/out")]
assert len(out) == 10, len(out)
assert [r["verdict"] for r in out] == ["equal-exact", "no-answer", "bad-row", "bad-row", "bad-row", "equal-exact",
                                       "unparseable-gold", "unparseable-gold", "equal-exact", "equal-exact"], out
assert [r["reward"] for r in out] == [1, 0, None, None, None, 1, None, None, 1, 1]
assert [r["class"] for r in out] == ["right", "wrong"] + 3 * ["unjudged"] + ["right"] + 2 * ["unjudged"] + 2 * ["right"]
assert out[0]["id"] == 7 and out[0]["mine"] == [1, {"a": None}] and out[0]["extracted"] == "\\frac{2}{4}"
assert out[1]["id"] == 7 and out[1]["extracted"] is None and out[3]["id"] == 8
assert all(r["reason"] for r in out)
PY
check "one row out for each row in, in order, fields kept" $?
grep -q '10 rows: 4 right, 1 wrong, 5 unjudged' "$work/summary"
check "summary on stderr" $?

score --explain <"$work/rows" | head -n 1 | grep -q '"answer_form":"(2/4)","gold_form":"(1/2)"'
check "--explain shows both forms" $?
[ "$(score --strict <<<'{"completion": "The answer is 5.", "answer": "5"}' | grep -c '"reward":0,"class":"wrong","verdict":"no-answer"')" = 1 ]
check "--strict wants a box" $?
"$whet" score --reward_funcs math,format --reward_weights 1,0.5 2>/dev/null >"$work/two" <<'ROWS'
{"completion": "<think>a</think><answer>5</answer>", "answer": "5"}
{"completion": "<answer>5</answer>", "answer": "5"}
{"completion": "<think>a</think><answer>6</answer>", "answer": "\\frac{}{2}"}
ROWS
python3 - "$work" <<'PY'
import json, sys
out = [json.loads(line) for line in open(sys.argv[1] + "/two")]
assert [r["reward"] for r in out] == [1.5, 1, None], out
assert [r["class"] for r in out] == ["right", "wrong", "unjudged"]
assert out[1]["parts"]["math"]["reward"] == 1 and out[1]["parts"]["format"]["verdict"] == "wrong-format"
PY
check "two reward functions with weights" $?
"$whet" score --reward_funcs nonsense </dev/null 2>"$work/error"
[ $? = 1 ] && grep -q 'nonsense.*math' "$work/error"
check "an unknown reward function is named" $?
(echo '{"completion": "\\boxed{1}", "answer": "1"}'; sleep 2) | score | head -n 1 >"$work/first" &
sleep 1; grep -q '"reward":1' "$work/first"
check "a row is answered before the next one comes" $?
wait
python3 -c '
for i in range(5000): print("{\"id\": %d, \"completion\": \"\\\\boxed{%d}\", \"answer\": \"%d\"}" % (i, i % 7, i % 5))' >"$work/many"
score <"$work/many" >"$work/one" && score <"$work/many" >"$work/again" && cmp -s "$work/one" "$work/again" &&
    [ "$(grep -c '"reward":1' "$work/one")" = 715 ]
check "the same bytes again" $?

# ---- agreement ----
if [ ! -f "$data/math_equiv_dev.jsonl.gz" ]; then
    echo "SKIPPED: $data has no math_equiv_dev.jsonl.gz"
    echo "$passed passed, $failed failed, 5 skipped"
    [ $failed = 0 ]
    exit
fi
cat >"$work/make.py" <<'PY'
import gzip, json, sys

def rows(kind, data):
    for line in gzip.open(f"{data}/{kind}.jsonl.gz", "rt"):
        r = json.loads(line)
        if kind == "latex_parse_dev":
            if r.get("must_fail"):
                yield {"completion": "\\boxed{1}", "answer": r["latex"], "want": None}
            else:
                yield {"completion": "\\boxed{%s}" % r["latex"], "answer": "$%s$" % r["sympy_latex"], "want": 1}
        elif kind in ("math_train", "gsm8k_train"):
            yield {"completion": "\\boxed{%s}" % r["answer"], "answer": r["answer"], "problem": r["problem"], "want": 1}
        elif not r.get("artifact"):
            bare = r["category"] == "synthetic" or r.get("config", {}).get("form") == "bare answers"
            want = r.get("expected_corrected", r["expected"]) if r.get("suspect") else r["expected"]
            yield {"completion": "\\boxed{%s}" % r["answer"] if bare else r["answer"], "answer": r["gold"], "want": int(want)}

for r in rows(sys.argv[1], sys.argv[2]):
    print(json.dumps(r))
PY
agree() { # agree FILE PERCENT: at least so many rows have the wanted reward
    python3 "$work/make.py" "$1" "$data" >"$work/in" && score <"$work/in" >"$work/out" &&
        python3 - "$1" "$2" "$work/out" <<'PY'
import json, sys
out = [json.loads(line) for line in open(sys.argv[3])]
good = sum((r["reward"] or 0) == r["want"] if r["want"] is not None else r["verdict"] == "unparseable-gold" for r in out)
print(f"{sys.argv[1]}: {good} of {len(out)} agree = {100 * good / len(out):.2f} %, asked {sys.argv[2]} %")
sys.exit(100 * good < float(sys.argv[2]) * len(out))
PY
    check "agreement on $1" $?
}
agree math_equiv_dev 98
agree math_equiv_synth_dev 100
agree latex_parse_dev 93
agree math_train 99.5
agree gsm8k_train 100
echo "$passed passed, $failed failed"
[ $failed = 0 ]
