#!/usr/bin/env bash
# long_code_mutants.sh: of 1,000 mutants of the reference solutions at least 95 % must fail; 10,000 candidates
# in a row must leave no process, descriptor, mount or file.
set -u
status=0
"${PYTHON:-python3}" tests/code_references.py "$WHET" "$WHET_DATA" --mutants 1000 || status=1
"${PYTHON:-python3}" tests/code_leaks.py "$WHET" 10000 || status=1
exit $status
