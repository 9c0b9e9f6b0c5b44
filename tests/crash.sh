#!/usr/bin/env bash
# crash.sh: a run that was stopped anywhere, by anything, goes on to the same end: a part of what long_crash.sh does.
# (run.sh: long)
cd "$(dirname "$0")/.." || exit 1
make -s build/plain/tests/faults.so || exit 1
python3 tests/crash.py build/plain/whet build/plain/tests/faults.so 12 17 # the plain program: its runs are short
