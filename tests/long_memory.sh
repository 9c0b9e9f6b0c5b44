#!/usr/bin/env bash
# long_memory.sh: one sequence of 4,096 tokens of the real model trains, recomputed, in the planned memory (about 4.1 GB).
[ -n "${WHET_MODEL:-}" ] || { echo "SKIPPED: no model: set WHET_MODEL" && echo "0 passed, 0 failed, 1 skipped" && exit 0; }
WHET_LONG=1 build/plain/tests/test_rl_memory
