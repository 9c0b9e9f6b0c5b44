"""Compares what whet reads of quantised GGUF files, as it writes it in an F32 GGUF, with what the `gguf` package makes
of them: every tensor, bit for bit. long_gguf.sh runs it.

    python tests/long_gguf.py FILE.gguf ...         WHET names the program
"""

import collections
import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from gguf.quants import dequantize


def floats(tensor):
    return np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)


def check(path, folder):
    written = os.path.join(folder, "f32.gguf")
    command = [os.environ.get("WHET", "./whet"), "export", "--format", "gguf", "--dtype", "f32", "--model", path, "--output", written]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ours = {t.name: t for t in gguf.GGUFReader(written).tensors}
    types, wrong = collections.Counter(), []
    for tensor in gguf.GGUFReader(path).tensors:
        types[tensor.tensor_type.name] += 1
        got, want = ours.pop(tensor.name, None), floats(tensor)
        if got is None or got.tensor_type != gguf.GGMLQuantizationType.F32 or floats(got).tobytes() != want.tobytes():
            wrong.append(tensor.name)
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(types.items()))
    print(f"{os.path.basename(path)}: {kinds}: " + (f"other bits in {wrong[:5]}" if wrong else "the same bits"))
    return not wrong and not ours and len(types) > 1


def main():
    with tempfile.TemporaryDirectory() as folder:
        good = [check(path, folder) for path in sys.argv[1:]]
    sys.exit(not good or not all(good))


if __name__ == "__main__":
    main()
