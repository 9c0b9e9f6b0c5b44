"""Makes formats-goldens.bin.gz: for every number format of GGUF that whet reads, random blocks (each byte pattern that
a finite file can hold) and what the gguf package dequantises them to; and for the formats that whet writes, values
and what gguf quantises them to.

The file is records of {name, 8 bytes with zeros; values, 4 bytes; bytes of the stored form, 4 bytes; the stored form;
the values as float32}. Q8_K, which the package can't decode, is computed here after its definition.

    python tests/goldens/make_format_goldens.py
"""

import gzip
import pathlib
import struct

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q

HERE = pathlib.Path(__file__).parent
# where the halves (scales) lie in a block
HALVES = {
    Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.Q2_K: [80, 82], Q.Q3_K: [108], Q.Q4_K: [0, 2],
    Q.Q5_K: [0, 2], Q.Q6_K: [208], Q.IQ4_NL: [0], Q.IQ4_XS: [0],
}
BLOCKS = {32: 96, 256: 16}


def record(name, stored, values):
    stored = np.ascontiguousarray(stored).tobytes()
    values = np.ascontiguousarray(values, dtype=np.float32)
    return struct.pack("<8sII", name.encode(), values.size, len(stored)) + stored + values.tobytes()


def random_blocks(rng, kind):
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (BLOCKS[block], size), dtype=np.uint8)
    for at in HALVES[kind]:
        half = rng.integers(0, 1 << 16, len(blocks)).astype(np.uint16)
        half[half & 0x7C00 == 0x7C00] &= 0x83FF  # subnormal instead of NaN and infinity
        blocks[:, at : at + 2] = half.view(np.uint8).reshape(-1, 2)
    return blocks


def q8_k(rng):
    d = rng.normal(size=16).astype(np.float32)
    q = rng.integers(-128, 128, (16, 256)).astype(np.int8)
    sums = q.reshape(16, 16, 16).sum(-1).astype(np.int16)
    blocks = np.concatenate([d.view(np.uint8).reshape(16, 4), q.view(np.uint8), sums.view(np.uint8).reshape(16, 32)], 1)
    return blocks, d[:, None] * q.astype(np.float32)


def values_to_write(rng):
    """Blocks of every size of number, zeros, ties of absolute value, and one large value among small ones."""
    v = rng.normal(size=(96, 32)).astype(np.float32) * (10.0 ** rng.integers(-6, 4, (96, 1))).astype(np.float32)
    v[3] = 0
    v[4, :] = np.where(np.arange(32) % 2, 1.5, -1.5)
    v[5, 7] = 60000
    v[6] = np.arange(32) - 16
    v[7] = (np.arange(32) + 0.5) / 127
    return v


def main():
    rng = np.random.default_rng(4)
    out = []
    for kind in HALVES:
        blocks = random_blocks(rng, kind)
        out.append(record(kind.name, blocks, gguf.quants.dequantize(blocks, kind)))
    out.append(record("Q8_K", *q8_k(rng)))
    codes = np.array([c for c in range(256) if c & 0x7F != 0x7F], dtype=np.uint8)
    out.append(record("E4M3", codes, torch.from_numpy(codes).view(torch.float8_e4m3fn).float().numpy()))
    wide = rng.normal(size=64)
    out.append(record("F64", wide, wide.astype(np.float32)))
    v = values_to_write(rng)
    v[8, :8] = np.array([5.9604645e-8, 2.9802322e-8, 8.9e-8, 6.0975552e-5, 65503.996, 6.1e-5, 1e-9, 3e-6])
    for kind in (Q.F32, Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0):
        out.append(record("w" + kind.name, gguf.quants.quantize(v, kind), v))
    (HERE / "formats-goldens.bin.gz").write_bytes(gzip.compress(b"".join(out), mtime=0))


if __name__ == "__main__":
    main()
