#!/usr/bin/env bash
# fuzz_files.sh: fuzzes what reads model files (tests/fuzz/fuzz_files.c: a target for each parser) with clang's
# libFuzzer, ASan and UBSan for FUZZ_SECONDS each (default 2), from the small models of the tests. What was found stays in
# build/fuzz-files/. Mutants that know the structure of the files: test_rl_mutants.c. (run.sh: long)
cd "$(dirname "$0")/.." || exit 1
seconds=${FUZZ_SECONDS:-2} clang=${CLANG:-clang} out=build/fuzz-files parsers="GGUF SAFETENSORS CONFIG TOKENIZER CHAT"
for parser in $parsers; do mkdir -p $out/$parser/seeds $out/$parser/corpus; done
echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' >$out/probe.c
if ! $clang -fsanitize=fuzzer $out/probe.c -o $out/probe 2>/dev/null; then
    echo "SKIPPED: clang with libFuzzer is not installed"
    echo "0 passed, 0 failed, 5 skipped"
    exit 0
fi
flags='-std=c11 -D_GNU_SOURCE -O1 -g -I. -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all'
objects=()
for source in rollout/{adapter,conf,conf_json,conf_gguf,rope,formats,gguf,gguf_write,model_file,model_save,safetensors,split,stored}.c \
    rollout/{vocabulary,tokenizer,tokenizer_export,tokenizer_gguf,tokenizer_json,tokenizer_save,tokenizer_spm}.c \
    rl/chat.c rl/jinja_{parse,values,run}.c kernels/base.c; do
    object=$out/$(basename "${source%.c}").o
    objects+=("$object")
    newest=$(ls -t "$source" rollout/*.h rl/chat.h rl/jinja*.h kernels/*.h "$object" 2>/dev/null | head -1)
    [ "$newest" = "$object" ] && continue
    $clang $flags -c -o "$object" "$source" || exit 1
done
cp tests/goldens/tiny-spm.gguf tests/goldens/tiny.gguf $out/GGUF/seeds/
cp tests/goldens/tiny-fp8/model.safetensors $out/SAFETENSORS/seeds/
cp tests/goldens/tiny-llama/tokenizer.json tests/goldens/tokenizer-llama3.json $out/TOKENIZER/seeds/
cp tests/goldens/tiny-biased/config.json $out/CONFIG/seeds/
python3 - $out <<'PY' || exit 1
import gzip, json, struct, sys
folder = sys.argv[1]
for case in json.load(gzip.open("tests/goldens/family-goldens.json.gz")): # each family's settings, both spellings
    with open(f"{folder}/CONFIG/seeds/{case['name']}", "w") as seed:
        seed.write(json.dumps(case["config"]))
for case in json.load(gzip.open("tests/goldens/chat-goldens.json.gz")):
    with open(f"{folder}/CHAT/seeds/{case['name']}", "w") as seed:
        seed.write(case["template"])
# Each family's keys in a GGUF, with an embedding and the factors of rotary tables.
text = lambda s: struct.pack("<Q", len(s)) + s.encode()
for arch in "llama qwen2 qwen3 gemma2 gemma3 phi3 smollm3".split():
    size = lambda key, v: text(f"{arch}.{key}") + struct.pack("<II", 4, v)
    real = lambda key, v: text(f"{arch}.{key}") + struct.pack("<If", 6, v)
    keys = [text("general.architecture") + struct.pack("<I", 8) + text(arch),
            text(f"{arch}.rope.scaling.type") + struct.pack("<I", 8) + text("longrope" if arch == "phi3" else "yarn")]
    keys += [size(k, v) for k, v in {"embedding_length": 8, "feed_forward_length": 8, "block_count": 2, "context_length": 64,
             "attention.head_count": 2, "attention.head_count_kv": 1, "attention.key_length": 4, "attention.value_length": 4,
             "attention.sliding_window": 8, "rope.dimension_count": 4, "rope.scaling.original_context_length": 16}.items()]
    keys += [real(k, v) for k, v in {"rope.freq_base": 1e4, "attn_logit_softcapping": 50, "final_logit_softcapping": 30,
             "rope.scaling.factor": 4, "rope.scaling.attn_factor": 1.2, "attention.layer_norm_rms_epsilon": 1e-6}.items()]
    shapes = {"token_embd.weight": (8, 32), "rope_factors_short.weight": (2,), "rope_factors_long.weight": (2,),
              "rope_freqs.weight": (2,), "output_norm.weight": (8,)}
    tensors, at = b"", 0
    for name, shape in shapes.items():
        tensors += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in shape)
        tensors += struct.pack("<IQ", 0, at)
        n = 4
        for d in shape: n *= d
        at += (n + 31) // 32 * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(keys)) + b"".join(keys) + tensors
    with open(f"{folder}/GGUF/seeds/{arch}", "wb") as seed:
        seed.write(head + b"\0" * (-len(head) % 32) + struct.pack("<f", 1.0) * (at // 4))
PY
passed=0 failed=0
for parser in $parsers; do
    name=fuzz_$parser log=$out/$parser.log
    $clang $flags -DPARSER=$parser -fsanitize=fuzzer -o $out/$name tests/fuzz/fuzz_files.c "${objects[@]}" \
        -ljansson -lpcre2-8 -lutf8proc -lxxhash -lz -lm || exit 1
    if $out/$name -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 -max_len=200000 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix=$out/$name- $out/$parser/corpus $out/$parser/seeds >$log 2>&1; then
        passed=$((passed + 1))
        echo "$name: $(grep -o 'number_of_executed_units: [0-9]*' $log), none failed"
    else
        failed=$((failed + 1))
        tail -n 60 $log
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
