#!/usr/bin/env bash
# nvcc.sh: CUDA's compiler for the tests, which never skip the CUDA back. Where none is found it comes from PyPI into
# build/nvcc, in the version that tests/ptx/table.txt is of: nvcc, its headers, the static runtime, and cuBLASLt's header
# (out of a large package, of which nothing else stays). `nvcc.sh install` does so even where there is one. CUDA=0 in the
# environment builds and tests without CUDA.
set -eu
cd "$(dirname "$0")/.."
[ "${CUDA:-}" = 0 ] && exit 0
if [ "${1:-}" != install ]; then
    for nvcc in build/nvcc/bin/nvcc /usr/local/cuda/bin/nvcc "$(command -v nvcc || true)"; do
        [ -x "$nvcc" ] && exit 0
    done
fi
packages=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85 nvidia-cublas==13.0.2.14)
echo "nvcc: installing ${packages[*]}"
mkdir -p build
rm -rf build/nvcc build/nvcc.part
trap 'rm -rf build/nvcc.part' EXIT
for try in 1 2 3; do
    python3 -m pip install --disable-pip-version-check --progress-bar off -q --no-deps --no-cache-dir --target build/nvcc.part \
        "${packages[@]}" && break
    [ $try = 3 ] && echo "nvcc: PyPI gave no compiler (is there a network?): install the CUDA toolkit, or set CUDA=0" >&2 && exit 1
    sleep $((5 * try))
done
rm -f build/nvcc.part/nvidia/cu13/lib/libcublas*
mv build/nvcc.part/nvidia/cu13 build/nvcc
build/nvcc/bin/nvcc --version >/dev/null
