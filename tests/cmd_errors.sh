#!/usr/bin/env bash
# cmd_errors.sh: bad input of the command line. Each ends the program with one clear line on stderr and a status of
# its own making (1 or 2, no signal), and what was there stays whole. WHET: the program (default ./whet).
set -u
cd "$(dirname "$0")/.." || exit 1
whet=$(realpath "${WHET:-./whet}") tiny=$PWD/tests/goldens/tiny-llama gguf=$PWD/tests/goldens/tiny.gguf
work=$(mktemp -d) passed=0 failed=0 skipped=0
trap 'rm -rf "$work"' EXIT
export ASAN_OPTIONS=${ASAN_OPTIONS:-exitcode=99}

ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)) && echo "FAILED: $*"; }
skip() { skipped=$((skipped + $1)) && echo "SKIPPED: $2"; }

# refused WHAT PATTERN COMMAND...: status 1 or 2, one line on stderr, which matches PATTERN (grep -E).
refused() {
    local what=$1 pattern=$2 status
    shift 2
    "$@" >"$work/out" 2>"$work/err"
    status=$?
    if [ $status != 1 ] && [ $status != 2 ]; then
        bad "$what: status $status, not 1 or 2"
    elif [ "$(wc -l <"$work/err")" != 1 ]; then
        bad "$what: $(wc -l <"$work/err") lines on stderr, not 1"
    elif ! grep -qE "$pattern" "$work/err"; then
        bad "$what: the line does not match /$pattern/"
    else
        ok && return
    fi
    head -n 5 "$work/err" | sed 's/^/    /'
}
# check WHAT COMMAND...: the command succeeds.
check() {
    local what=$1
    shift
    if "$@" >"$work/out" 2>"$work/err"; then ok; else
        bad "$what: ${*:1:3} ..." && tail -n 3 "$work/out" "$work/err" | sed 's/^/    /'
    fi
}
logprob() { echo hello | "$whet" logprob --model "$1"; }
# model NAME: a copy of the tiny model that may be broken.
model() { rm -rf "$work/$1" && cp -r "$tiny" "$work/$1"; }

# ---- model files ----
refused "missing model" 'nowhere.*no such' logprob "$work/nowhere"
: >"$work/empty.gguf"
refused "empty GGUF" 'empty\.gguf' logprob "$work/empty.gguf"
for bytes in 7 100 3000 20000 $(($(stat -c %s "$gguf") - 1)); do
    head -c "$bytes" "$gguf" >"$work/cut.gguf"
    refused "GGUF cut at $bytes" 'cut\.gguf' logprob "$work/cut.gguf"
done
sed '0,/llama/s/llama/lxama/' "$gguf" >"$work/other.gguf"
refused "GGUF of an unknown architecture" 'lxama' logprob "$work/other.gguf"
mkdir "$work/nothing"
refused "folder without config.json" 'config\.json' logprob "$work/nothing"
for part in config.json tokenizer.json model.safetensors; do
    model m && rm "$work/m/$part"
    refused "no $part" "${part%%.*}" logprob "$work/m"
    model m && : >"$work/m/$part"
    refused "empty $part" "$part" logprob "$work/m"
    model m && head -c "$(($(stat -c %s "$tiny/$part") / 2))" "$tiny/$part" >"$work/m/$part"
    refused "half of $part" "$part" logprob "$work/m"
done
model m && sed -i 's/"llama"/"lxama"/; s/LlamaForCausalLM/LxamaForCausalLM/' "$work/m/config.json"
refused "unknown architecture" '[Ll]xama' logprob "$work/m"
model m && sed -i 's/"hidden_size": *[0-9]*/"hidden_size": 999999999/' "$work/m/config.json"
refused "absurd hidden_size" 'hidden_size|999999999' logprob "$work/m"
model m && at=$(($(stat -c %s "$tiny/model.safetensors") - 4))
printf '\xff\xff\xff\xff' | dd of="$work/m/model.safetensors" bs=1 seek=$at conv=notrunc status=none
refused "NaN in the weights" '[Nn]a[Nn]|not a number' logprob "$work/m"

# Adapters whose base model is another now: one weight is enough.
model base
adapters=(train --model_name_or_path "$work/base" --dataset_name generate:sums:min=1:max=3 --use_peft --max_steps 1
    --prompt_template '{problem}' --max_prompt_length 40 --max_completion_length 4 --output_dir "$work/adapters")
check "adapters" "$whet" "${adapters[@]}"
check "adapters gone on with" "$whet" "${adapters[@]}" --resume_from_checkpoint last
at=$(($(stat -c %s "$tiny/model.safetensors") - 4))
printf '\x00\x00\x00\x3d' | dd of="$work/base/model.safetensors" bs=1 seek=$at conv=notrunc status=none
refused "adapters on another base model" 'checkpoint-1: its adapters were trained over another base model' \
    "$whet" "${adapters[@]}" --resume_from_checkpoint last

# ---- texts, problems ----
refused "missing data" 'nowhere\.jsonl' "$whet" eval --model "$tiny" --data "$work/nowhere.jsonl"
: >"$work/empty.jsonl"
refused "empty data" 'empty\.jsonl' "$whet" eval --model "$tiny" --data "$work/empty.jsonl"
logprob_to_full() { logprob "$tiny" >/dev/full; }
refused "an output that is full" 'No space|full' logprob_to_full
many=$(printf 'ab %.0s' {1..6000})
refused "a prompt beyond the model" 'tokens' "$whet" sample --model "$tiny" --raw --prompt "$many"

# ---- recipes ----
cat >"$work/tiny.yaml" <<EOF
model_name_or_path: $tiny
dataset_name: generate:sums:min=2:max=9
num_generations: 4
per_device_train_batch_size: 8
max_prompt_length: 64
max_completion_length: 8
max_steps: 3
save_steps: 1
save_total_limit: 0
EOF
train() { "$whet" train "$work/tiny.yaml" --output_dir "$@"; }
run=$work/run
refused "no such recipe" 'nowhere\.yaml' "$whet" train "$work/nowhere.yaml" --output_dir "$run"
printf 'max_steps: [1\n' >"$work/broken.yaml"
refused "broken YAML" 'broken\.yaml' "$whet" train "$work/broken.yaml" --output_dir "$run"
printf 'learning_rte: 1.0e-5\n' >"$work/typo.yaml"
refused "unknown key" 'learning_rte.*learning_rate' "$whet" train "$work/typo.yaml" --output_dir "$run"
refused "unknown flag" 'learning-?_?rte.*learning_rate' train "$run" --learning_rte 1
refused "a number that is none" 'max_steps' train "$run" --max_steps many
refused "contradictory keys" 'reward_weights' train "$run" --reward_weights 1,2,3
refused "contradictory warm-up" 'warmup' train "$run" --warmup_steps 5 --warmup_ratio 0.1
refused "an unknown reward" 'nonesuch' train "$run" --reward_funcs nonesuch
refused "an unknown loss" 'nonesuch' train "$run" --loss_type nonesuch
refused "a template without {problem}" '\{problem\}' train "$run" --prompt_template hello
refused "no model" 'model' "$whet" train --dataset_name generate:sums --output_dir "$run"
refused "an unknown command" 'trian' "$whet" trian
refused "more memory than there is" '[0-9.]+ [KMG]i?B' train "$run" --max_memory 1M
refused "nothing to go on from" 'checkpoint-9' train "$run" --resume_from_checkpoint "$run/checkpoint-9"
[ -e "$run/run.db" ] && bad "a refused run left a store"

# ---- broken rows of a data set: counted, named by line, borne up to a limit ----
for i in 1 2 3 4 5 6 7 8; do
    echo "{\"problem\": \"What is $i + 1?\", \"answer\": \"$((i + 1))\"}"
done >"$work/rows.jsonl"
sed -i '3s/.*/{"problem": "What/; 5s/.*/[1]/' "$work/rows.jsonl"
data=(--dataset_name "$work/rows.jsonl" --max_steps 1 --overwrite_output_dir)
check "two broken rows of eight" train "$run" "${data[@]}"
grep -qE 'rows\.jsonl.*line 3|line 3.*rows\.jsonl' "$work/out" "$work/err" && ok || bad "broken line 3 is not named"
refused "more broken rows than max_skipped" 'line 3' train "$work/skip" "${data[@]}" --max_skipped 1

# ---- the folder of the run ----
rm -rf "$run"
check "a run of 3 steps" train "$run"
refused "a folder that holds a run" 'resume_from_checkpoint' train "$run"
refused "going on with another recipe" 'learning_rate' train "$run" --resume_from_checkpoint last --learning_rate 0.5
cp -r "$run" "$work/newer" && sqlite3 "$work/newer/run.db" 'PRAGMA user_version = 99'
sum=$(sha256sum <"$work/newer/run.db")
refused "a store of a newer version" '99|newer' train "$work/newer" --resume_from_checkpoint last
[ "$sum" = "$(sha256sum <"$work/newer/run.db")" ] && ok || bad "the newer store was written to"
cp -r "$run" "$work/torn" && for file in "$work/torn"/checkpoint-3/*; do : >"$file"; done
refused "an emptied checkpoint" 'checkpoint-3' train "$work/torn" --resume_from_checkpoint last
echo text >"$work/file"
refused "a file where the folder should be" 'file' train "$work/file"

# Root may write anywhere: the same as nobody.
mkdir "$work/locked" && chmod 555 "$work/locked" && chmod 755 "$work"
as=() && [ "$(id -u)" = 0 ] && as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
if "${as[@]}" test -x "$whet" -a -r "$tiny/config.json" -a -r "$work/tiny.yaml"; then
    refused "a read-only folder" 'locked' "${as[@]}" "$whet" train "$work/tiny.yaml" --output_dir "$work/locked"
    refused "a folder inside a read-only one" 'locked' \
        "${as[@]}" "$whet" train "$work/tiny.yaml" --output_dir "$work/locked/run"
else
    skip 2 "a read-only folder: nobody may not read this checkout"
fi

# A disk that fills up: one line, and with room again the run goes on to the same weights.
disk_full() {
    mkdir -p "$work/disk" && mount -t tmpfs -o size="$1" none "$work/disk" || exit 77
    refused "a full disk" '[Nn]o space|full' train "$work/disk/run"
    mount -o remount,size=256m "$work/disk"
    if ls -d "$work/disk/run"/checkpoint-* >/dev/null 2>&1; then
        check "going on with room again" train "$work/disk/run" --resume_from_checkpoint last
    else
        check "beginning anew with room again" train "$work/disk/run" --overwrite_output_dir
    fi
    cmp -s "$work/disk/run/checkpoint-3/model.safetensors" "$run/checkpoint-3/model.safetensors" && ok ||
        bad "the run that met a full disk ends with other weights"
    echo "$passed $failed" >"$work/counts"
}
export -f disk_full refused check train ok bad
size=$(du -sk "$run/checkpoint-1" | cut -f1)
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
    for kib in $((size / 2)) $((size * 2)); do # full in the first checkpoint, and in a later one
        rm -f "$work/counts"
        whet=$whet work=$work run=$run passed=$passed failed=$failed unshare -m bash -c "disk_full ${kib}k"
        if [ -f "$work/counts" ]; then
            read -r passed failed <"$work/counts"
        else
            skip 3 "a full disk: no small disk can be mounted here"
        fi
    done
else
    skip 6 "a full disk: only root can mount a small disk"
fi

if [ $skipped = 0 ]; then echo "$passed passed, $failed failed"; else
    echo "$passed passed, $failed failed, $skipped skipped"
fi
[ $failed = 0 ]
