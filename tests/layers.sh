#!/usr/bin/env bash
# layers.sh: the arrows of the house. A room includes its own headers, kernels/base.h, and of the rooms below it the
# one public header room/room.h; only rollout and rl know kernels/kernels.h.
cd "$(dirname "$0")/.." || exit 1
allowed_kernels='' allowed_datasets='' allowed_reward='datasets' allowed_rollout='kernels datasets'
allowed_rl='kernels datasets reward rollout' passed=0 failed=0
for room in kernels datasets reward rollout rl; do
    allowed="allowed_$room" pattern="$room/.*|kernels/base\.h"
    for below in ${!allowed}; do pattern+="|$below/$below\.h"; done
    wrong=$(grep -rnE '^ *# *include *"' --include='*.[ch]' --include='*.cu' --include='*.cuh' "$room" |
        grep -vE "include *\"($pattern)\"")
    if [ -z "$wrong" ]; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "$wrong"; fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
