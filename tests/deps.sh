#!/usr/bin/env bash
# `make deps`: installs with apt what whet needs to be built, tested and run, and is missing. When nothing is, it
# returns at once and asks no network. As root, or with sudo. `tests/deps.sh PACKAGE...` also installs these; `--list`
# only names the packages.
set -u
packages=(
    gcc g++ make libc6-dev      # the build (g++: nvcc's host compiler)
    libsqlite3-dev              # the store
    zlib1g-dev libjansson-dev   # data: .gz, JSON
    libpcre2-dev                # the tokenizer's patterns
    libyaml-dev                 # recipes
    libcurl4-openssl-dev libssl-dev # whet pull and its hashes
    libutf8proc-dev             # Unicode normalisation
    libxxhash-dev               # hashes
    libflint-dev libflint-arb-dev libmpfr-dev libgmp-dev # exact comparison of answers
    libseccomp-dev bubblewrap   # the sandbox of candidate programs
    libcmocka-dev               # tests
    python3 python3-pip python3-venv # fetches the demo's model; runs candidate programs; references of test-all
    ca-certificates sqlite3     # downloads; questions to the store
)
[ "${1:-}" = --list ] && { printf '%s\n' "${packages[@]}"; exit 0; }
packages+=("$@")

if ! command -v dpkg-query apt-get >/dev/null; then
    echo "deps: this is no Debian: install by hand what corresponds to: ${packages[*]}" >&2
    exit 0 # it may all be there: the compiler will say
fi
there=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null)
missing=()
for package in "${packages[@]}"; do
    grep -qxF "$package installed" <<<"$there" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

apt=(apt-get)
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "deps: missing and only root may install it: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    apt=(sudo apt-get)
fi
echo "deps: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for try in 1 2 3; do
    { "${apt[@]}" update -q && "${apt[@]}" install -q -y --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1 </dev/null && exit 0
    [ $try = 3 ] || sleep $((5 * try))
done
tail -n 15 "$log" >&2
echo "deps: apt-get could not install: ${missing[*]} (is there a network?)" >&2
exit 1
