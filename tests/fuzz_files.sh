#!/usr/bin/env bash
# fuzz_files.sh: fuzzes what reads model files (tests/fuzz/fuzz_files.c) with clang's libFuzzer, ASan and UBSan for
# FUZZ_SECONDS (default 5), from the small models of the tests. What was found stays in build/fuzz-files/.
cd "$(dirname "$0")/.." || exit 1
seconds=${FUZZ_SECONDS:-5} clang=${CLANG:-clang} out=build/fuzz-files name=fuzz_files
mkdir -p $out/seeds $out/corpus
echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' >$out/probe.c
if ! $clang -fsanitize=fuzzer $out/probe.c -o $out/probe 2>/dev/null; then
    echo "SKIPPED: clang with libFuzzer is not installed"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
flags='-std=c11 -D_GNU_SOURCE -O1 -g -I. -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all'
objects=()
for source in rollout/{conf,conf_gguf,formats,gguf,gguf_write,model_file,model_save,safetensors,split,stored}.c \
    rollout/{vocabulary,tokenizer,tokenizer_export,tokenizer_gguf,tokenizer_json,tokenizer_save,tokenizer_spm}.c \
    rl/chat.c kernels/base.c tests/fuzz/fuzz_files.c; do
    object=$out/$(basename "${source%.c}").o
    objects+=("$object")
    newest=$(ls -t "$source" rollout/*.h rl/chat.h kernels/*.h "$object" 2>/dev/null | head -1)
    [ "$newest" = "$object" ] && continue
    $clang $flags -c -o "$object" "$source" || exit 1
done
$clang $flags -fsanitize=fuzzer -o $out/$name "${objects[@]}" -ljansson -lpcre2-8 -lutf8proc -lxxhash -lz -lm || exit 1
seed() { { printf '%s' "$1"; head -c 200000 "$2"; } >"$out/seeds/$3"; }
seed g tests/goldens/tiny-spm.gguf gguf-spm
seed g tests/goldens/tiny.gguf gguf
seed s tests/goldens/tiny-fp8/model.safetensors safetensors
seed t tests/goldens/tiny-llama/tokenizer.json tokenizer
seed t tests/goldens/tokenizer-llama3.json tokenizer-llama3
seed c tests/goldens/tiny-biased/config.json config
printf '%s' 'j{{ bos_token }}{% for m in messages %}<|im_start|>system\nYou.<|im_end|>[INST] <<SYS>> eos_token' >$out/seeds/chat
if $out/$name -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 -max_len=200000 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix=$out/$name- $out/corpus $out/seeds >$out/$name.log 2>&1; then
    echo "$name: $(grep -o 'number_of_executed_units: [0-9]*' $out/$name.log), none failed"
    echo "1 passed, 0 failed"
else
    tail -n 60 $out/$name.log
    echo "0 passed, 1 failed"
    exit 1
fi
