"""Makes tokenizer-variants.json (a small SentencePiece-style BPE, and pipelines to put around it or around the byte-level
tokenizer-llama3.json: Llama 2's, Mistral's, Gemma's, DeepSeek's), variants-goldens.jsonl.gz (texts with the ids and
the text back that Hugging Face's tokenizers gives for each) and tiny-spm.gguf, a model with the same tokenizer as
llama.cpp keeps it (scores instead of merges).

    python tests/goldens/make_spm_goldens.py
"""

import gzip
import json
import pathlib

import gguf
import numpy as np
from make_tiny_models import corpus
from make_tokenizer_goldens import lines
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
MARK = "\u2581"
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
PREPEND = {"type": "Prepend", "prepend": MARK}
DECODE = [{"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def metaspace(scheme, split):
    return {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": split}


def sequence(key, *items):
    return {"type": "Sequence", key: list(items)}


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
VARIANTS = {
    "llama2": {
        "normalizer": sequence("normalizers", PREPEND, REPLACE), "pre_tokenizer": None,
        "decoder": sequence("decoders", *DECODE, STRIP),
    },
    "mistral": {"normalizer": None, "pre_tokenizer": metaspace("first", False), "decoder": sequence("decoders", *DECODE, STRIP)},
    "always": {"normalizer": None, "pre_tokenizer": metaspace("always", True), "decoder": sequence("decoders", *DECODE, STRIP)},
    "gemma": {
        "normalizer": REPLACE,
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "decoder": sequence("decoders", *DECODE),
    },
    "deepseek3": {
        "pre_tokenizer": sequence(
            "pretokenizers", split("\\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
            split("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|"
                  "\\s*[\r\n]+|\\s+(?!\\S)|\\s+"), BYTES),
    },
    "deepseek-coder": {
        "pre_tokenizer": sequence(
            "pretokenizers", split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"),
            split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), {"type": "Digits", "individual_digits": True}, BYTES),
    },
}


def train():
    """The pieces beside the bytes: merged ones first, best first, then single characters."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.train_from_iterator(corpus(3), trainers.BpeTrainer(vocab_size=640, limit_alphabet=200, show_progress=False))
    order = [text for text, _ in sorted(tok.get_vocab().items(), key=lambda item: item[1])]
    return [t for t in order if len(t) > 1], [t for t in order if len(t) == 1]


def spm():
    merged, single = train()
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + merged + single + ["<think>"]
    vocab = {text: i for i, text in enumerate(pieces)}
    scores = {text: -float(i) for i, text in enumerate(merged + single)}
    merges = []
    for text, score in scores.items():  # as transformers lists them for a SentencePiece model
        cuts = [(text[:i], text[i:]) for i in range(1, len(text)) if text[:i] in vocab and text[i:] in vocab]
        merges += [(left, right, score) for left, right in sorted(cuts, key=lambda c: (vocab[c[0]], vocab[c[1]]))]
    merges = sorted(merges, key=lambda m: (m[2], len(m[0]), len(m[1])), reverse=True)
    added = [dict(id=vocab[t], content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=s)
             for t, s in (("<unk>", True), ("<s>", True), ("</s>", True), ("<think>", False))]
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "fuse_unk": True, "byte_fallback": True, "ignore_merges": False, "vocab": vocab, "merges": [list(m[:2]) for m in merges]}
    bos = {"id": "<s>", "ids": [1], "tokens": ["<s>"]}
    post = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"<s>": bos}}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "post_processor": post, "model": model}, scores


def make_gguf(base, scores):
    """A model of one small layer."""
    rng = np.random.default_rng(5)
    pieces = list(base["model"]["vocab"])
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3, "<think>": 4}
    writer = gguf.GGUFWriter(str(HERE / "tiny-spm.gguf"), "llama")
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores([scores.get(p, 0.0) for p in pieces])
    writer.add_token_types([kinds.get(p, 6 if 3 <= i < 259 else 1) for i, p in enumerate(pieces)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    shapes = {"token_embd": (len(pieces), 32), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,), "output_norm": (32,)}
    shapes |= {f"blk.0.{n}": (32, 32) for n in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    for name, shape in shapes.items():
        kind = gguf.GGMLQuantizationType.Q8_0 if len(shape) == 2 else gguf.GGMLQuantizationType.F32
        data = rng.normal(size=shape).astype(np.float32)
        writer.add_tensor(name + ".weight", gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    base, scores = spm()
    file = {"spm": base, "variants": VARIANTS}
    (HERE / "tokenizer-variants.json").write_text(json.dumps(file, ensure_ascii=False, separators=(",", ":")) + "\n")
    make_gguf(base, scores)
    bytes_base = json.loads((HERE / "tokenizer-llama3.json").read_text())
    toks = {}
    for name, parts in VARIANTS.items():
        whole = {**(base if "decoder" in parts else bytes_base), **parts}
        toks[name] = Tokenizer.from_str(json.dumps(whole))
    rows = []
    extra = ["<s> Hello<s>world</s> the answer", " leading", "  two", "\u2581", "a \u2581 b", "<think>the <think> answer", "x<unk>y \U0001f999"]
    for text in extra + [t for t in lines(700, 21) if len(t) < 4000]:
        row = {"text": text}
        for name, tok in toks.items():
            row[name] = tok.encode(text, add_special_tokens=False).ids
            back = tok.decode(row[name], skip_special_tokens=False)
            if back != text:
                row[name + "_back"] = back
        rows.append(json.dumps(row, separators=(",", ":")) + "\n")
    (HERE / "variants-goldens.jsonl.gz").write_bytes(gzip.compress("".join(rows).encode(), mtime=0))
    print(len(rows), "lines")


if __name__ == "__main__":
    main()
