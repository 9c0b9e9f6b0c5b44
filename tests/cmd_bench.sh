#!/usr/bin/env bash
# cmd_bench.sh: `whet bench` on weights at random in a tiny shape: with --json one flat object with every number it should
# have on stdout and all else on stderr. How fast anything is decides nothing here. WHET: the program (default ./whet).
set -u
cd "$(dirname "$0")/.." || exit 1
whet=$(realpath "${WHET:-./whet}")
work=$(mktemp -d) passed=0 failed=0
trap 'rm -rf "$work"' EXIT
check() { # check WHAT COMMAND...
    local what=$1
    shift
    if "$@" >"$work/log" 2>&1; then passed=$((passed + 1)); else
        failed=$((failed + 1)) && echo "FAILED: $what" && tail -n 5 "$work/log" | sed 's/^/    /'
    fi
}
cat >"$work/tiny.json" <<'END'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 48, "intermediate_size": 80,
 "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1, "vocab_size": 600,
 "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "hidden_act": "silu"}
END
check "bench --random runs" sh -c "'$whet' bench --random '$work/tiny.json' --json --ops --repeat 1 >'$work/out' 2>'$work/err'"
check "one flat object" python3 - "$work/out" <<'END'
import json, math, sys
lines = open(sys.argv[1]).read().splitlines()
assert len(lines) == 1, lines
r = json.loads(lines[0])
speeds = ["prompt_512", "decode_1", "decode_8", "decode_64", "forward", "train"]
wanted = ["roof_gflops", "bandwidth_gbs", "peak_rss_mb", "threads"] + speeds + [s + "_share" for s in speeds]
wanted += ["grpo_%s_s" % p for p in ("step", "sample", "train", "forward", "head", "backward", "optimizer")]
for name in wanted:
    assert math.isfinite(r[name]) and r[name] > 0, (name, r.get(name))
assert isinstance(r["path"], str) and set(r) == set(wanted) | {"path"}, set(r) ^ set(wanted)
END
check "bench with weights of int8" sh -c "'$whet' bench --random '$work/tiny.json' --repeat 1 --sampling_weights int8 2>&1 | grep -q decode_64"
check "unknown weights" sh -c "'$whet' bench --random '$work/tiny.json' --sampling_weights int4 2>&1 | grep -q 'int4 is not known; use exact or int8'"
check "ops and their times on stderr" grep -Eq '^ +matmul_dw +[0-9.]+ ms, [0-9]+ calls$' "$work/err"
check "no model and no shape" sh -c "! '$whet' bench"
check "both" sh -c "! '$whet' bench --random '$work/tiny.json' --model x"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
