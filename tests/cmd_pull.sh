#!/usr/bin/env bash
# cmd_pull.sh: `whet pull` against a hub on this machine (pull_server.py): whole, cut off, wrong, redirected, a full
# disk; and `--model ORG/MODEL` out of the cache.
set -u
whet=${WHET:-./whet} tiny=tests/goldens/tiny-llama
work=$(mktemp -d) passed=0 failed=0 skipped=0
cp -r $tiny "$work/model"
echo "not needed" >"$work/model/README.md"
"${PYTHON:-python3}" tests/pull_server.py "$work/model" "$work/port" & server=$!
trap 'kill $server 2>/dev/null; rm -rf "$work"' EXIT
for _ in $(seq 100); do [ -s "$work/port" ] && break; sleep 0.1; done
port=$(cat "$work/port")
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "FAILED: $1"; sed 's/^/    /' "$work/err"; }

# pull FAULT CACHE [ARGUMENT...]
pull() {
    local fault=$1 cache=$2
    shift 2
    "$whet" pull org/model --base "http://127.0.0.1:$port/$fault" --cache "$work/$cache" --tries 2 "$@" \
        >"$work/out" 2>"$work/err"
}
same() {
    local file
    for file in config.json generation_config.json tokenizer.json tokenizer_config.json model.safetensors; do
        cmp -s "$work/model/$file" "$work/$1/org/model/$file" || return 1
    done
    [ ! -e "$work/$1/org/model/README.md" ] && ! ls "$work/$1"/org/model/*.part >/dev/null 2>&1
}
good() { if pull "$1" "$2" && same "$2"; then ok; else bad "$1"; fi }
# refused NAME PATTERN FAULT CACHE [ARGUMENT...]: status 1 and one line, prefixed, that says what
refused() {
    local name=$1 pattern=$2
    shift 2
    pull "$@"
    if [ $? = 1 ] && tail -n 1 "$work/err" | grep -q '^whet: pull: ' && tail -n 1 "$work/err" | grep -qE "$pattern"; then
        ok
    else
        bad "$name: expected $pattern"
    fi
}

good plain a
[ "$(cat "$work/out")" = "$work/a/org/model" ] && ok || bad "the folder is printed"
good plain a
[ "$(grep -c 'there already' "$work/err")" = 5 ] && ok || bad "what is there is kept"
good redirect b
good cut c
grep -q 'cut off after .* going on' "$work/err" && ok || bad "says that it goes on"
good norange d
refused "no bytes at all" 'cut off after 0 of .* run again' drop e
refused "wrong bytes" 'the hash is not [0-9a-f]+, twice' wrong f
ls "$work"/f/org/model/* >/dev/null 2>&1 && bad "wrong bytes are kept" || ok
refused "names that lead elsewhere" 'no plain file name' evil g
refused "no list" 'no list of files' noise h
refused "no such file" 'check the names' plain i --files nothing.gguf
refused "no server" 'can.t be fetched' plain j --base "http://127.0.0.1:1"
"$whet" pull org/other --base "http://127.0.0.1:$port/plain" --cache "$work/k" 2>"$work/err" && bad "an unknown model" ||
    { grep -q 'no such model' "$work/err" && ok || bad "an unknown model"; }
"$whet" pull ../../etc 2>"$work/err" && bad "a bad name" || { grep -q 'ORG/MODEL' "$work/err" && ok || bad "a bad name"; }

# A part from before: one that is a beginning is gone on with, one that is not is found by its hash.
mkdir -p "$work/l/org/model" "$work/m/org/model"
head -c 100000 "$work/model/model.safetensors" >"$work/l/org/model/model.safetensors.part"
good plain l
head -c 400000 /dev/zero >"$work/m/org/model/model.safetensors.part"
head -c 100000 /dev/zero >"$work/m/org/model/tokenizer.json.part"
good plain m

# A full disk, as a limit on the size of a file, and as a small file system where one may be mounted.
(ulimit -f 100 && pull plain n)
[ $? = 1 ] && grep -q 'File too large.*run again' "$work/err" && ok || bad "a file too large"
good plain n
cat >"$work/full.sh" <<END
mkdir -p "$work/o" && mount -t tmpfs -o size=200k none "$work/o" || exit 77
"$whet" pull org/model --base http://127.0.0.1:$port/plain --cache "$work/o" >/dev/null 2>"$work/err"
END
unshare -rm bash "$work/full.sh" 2>/dev/null
case $? in
    1) grep -q 'No space left.*make room' "$work/err" && ok || bad "a full disk" ;;
    0) bad "a full disk is not noticed" ;;
    *) echo "SKIPPED: no file system can be mounted here" && skipped=1 ;;
esac

# Out of the cache by name; the data path of a command without a device.
WHET_CACHE=$work/a "$whet" export --model org/model --format gguf --dtype f32 --output "$work/x.gguf" \
    >/dev/null 2>"$work/err" && [ -s "$work/x.gguf" ] && ok || bad "a model by its name"
WHET_CACHE=$work/a "$whet" sample --model org/model --prompt hi --max_completion_length 2 >/dev/null 2>"$work/err" &&
    ok || bad "a sample by name"
WHET_CACHE=$work/a "$whet" sample --model org/none --prompt hi 2>"$work/err" && bad "a name that is not there" ||
    { grep -q 'whet pull org/none' "$work/err" && ok || bad "what to do is not said"; }
"$whet" help pull >"$work/err" && grep -q 'WHET_HUB' "$work/err" && ok || bad "help"

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
