#!/usr/bin/env bash
# code_rewarder.sh: `whet score --reward_funcs code` over the hostile programs of tests/hostile and the
# reference solutions of HumanEval and MBPP, and `whet sandbox-selftest`. The sanitized program does a part of
# it. Mutants: long_code_mutants.sh. (run.sh: alone)
set -u
status=0
"$WHET" sandbox-selftest || status=1
case $WHET in
    *asan*)
        "$PYTHON" tests/hostile.py "$WHET" exit_zero equals_everything output_bomb fork_bomb right_c mock_any ||
            status=1
        ;;
    *)
        "$PYTHON" tests/hostile.py "$WHET" || status=1
        "$PYTHON" tests/code_references.py "$WHET" "$WHET_DATA" || status=1
        ;;
esac
exit $status
