#!/usr/bin/env bash
# long_crash.sh: 200 kills at random moments, and every kind of fault at every call that changes a file: see crash.py.
cd "$(dirname "$0")/.." || exit 1
make -s build/plain/tests/faults.so || exit 1
python3 tests/crash.py "${WHET:-./whet}" build/plain/tests/faults.so 200 1
