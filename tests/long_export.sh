#!/usr/bin/env bash
# long_export.sh: saves SmolLM2 (WHET_MODEL, a GGUF) and the tiny models as Hugging Face folders, and has transformers
# load them (long_export.py).
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
WHET_EXPORT=$folder build/plain/tests/test_rollout_model >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
"$PYTHON" tests/long_export.py "$folder"
