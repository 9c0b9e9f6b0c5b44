"""Makes smollm2-goldens.jsonl.gz: for the lines of make_tokenizer_goldens.py the ids of SmolLM2's tokenizer, and in the
first line the CRC-32 of some tensors as float32 in Hugging Face's order, as the gguf package decodes them.

The reference is transformers' tokenizer of the GGUF with the pre-tokenizer that the checkpoint's own tokenizer.json
names (transformers forgets the digits when it reads a GGUF).

    python tests/goldens/make_smollm2_goldens.py build/model/SmolLM2-135M-Instruct.Q4_1.gguf
"""

import gzip
import io
import json
import pathlib
import sys

import gguf
from make_file_goldens import crc, turn_back
from make_tokenizer_goldens import lines
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

HERE = pathlib.Path(__file__).parent
HEADS, KV_HEADS = 9, 3
TENSORS = {
    "model.embed_tokens.weight": ("token_embd.weight", 0),
    "model.layers.0.self_attn.q_proj.weight": ("blk.0.attn_q.weight", HEADS),
    "model.layers.29.self_attn.k_proj.weight": ("blk.29.attn_k.weight", KV_HEADS),
    "model.layers.7.self_attn.o_proj.weight": ("blk.7.attn_output.weight", 0),
    "model.layers.14.mlp.down_proj.weight": ("blk.14.ffn_down.weight", 0),
    "model.norm.weight": ("output_norm.weight", 0),
}


def sums(path):
    stored = {t.name: t for t in gguf.GGUFReader(path).tensors}
    result = {}
    for name, (source, heads) in TENSORS.items():
        t = stored[source]
        plain = gguf.quants.dequantize(t.data, t.tensor_type).reshape(tuple(int(n) for n in t.shape[::-1]))
        result[name] = crc(turn_back(plain, heads) if heads else plain)
    return result


def reference(path):
    path = pathlib.Path(path)
    tok = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tok


def main():
    path = sys.argv[1]
    tok = reference(path)
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, compresslevel=9) as out:
        out.write((json.dumps(sums(path)) + "\n").encode())
        for text in lines(2200, 7):
            ids = tok.encode(text, add_special_tokens=False).ids
            row = {"text": text, "smollm2": ids}
            back = tok.decode(ids, skip_special_tokens=False)
            if back != text:  # some control characters have no token and are dropped
                row["smollm2_back"] = back
            out.write((json.dumps(row, separators=(",", ":")) + "\n").encode())
    (HERE / "smollm2-goldens.jsonl.gz").write_bytes(raw.getvalue())


if __name__ == "__main__":
    main()
