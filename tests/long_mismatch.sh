#!/usr/bin/env bash
# long_mismatch.sh: what mismatch.sh tries on plain C, on the machine's other paths.
exec bash "$(dirname "$0")/mismatch.sh" avx2 avx512 avx512_bf16 amx
