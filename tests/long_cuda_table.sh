#!/usr/bin/env bash
# long_cuda_table.sh: the static gates of the CUDA kernels on every architecture, and the committed table of what nvcc
# makes of them (tests/ptx/table.txt). `tests/long_cuda_table.sh write` writes the table anew.
set -eu
cd "$(dirname "$0")/.."
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
STANDIN_COUNTS=$counts build/plain/tests/test_standin_shapes >"$counts.log" 2>&1 || { cat "$counts.log" && exit 1; }
rm -f "$counts.log"
COUNTS=$counts python3 tests/ptx/table.py "$@"
