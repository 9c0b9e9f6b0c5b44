"""Makes tiny.gguf (the weights of tiny-llama, in every number format that whet reads, q and k turned as llama.cpp's
converter does, with its tokenizer), tiny-split-0000?-of-00003.gguf (the same in three files), tiny-fp8/ (tiny-llama with
its matrices in FP8 and a scale for each block of 24 x 40) and files-goldens.json: for each tiny model the CRC-32 of every tensor as float32
in Hugging Face's order, and rotary speeds as transformers computes them, as bit patterns.

    python tests/goldens/make_file_goldens.py
"""

import json
import pathlib
import shutil
import zlib

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

HERE = pathlib.Path(__file__).parent
HEADS, KV_HEADS = 4, 2
NAMES = {
    "input_layernorm.weight": ("attn_norm.weight", Q.F32),
    "self_attn.q_proj.weight": ("attn_q.weight", Q.Q4_1),
    "self_attn.k_proj.weight": ("attn_k.weight", Q.Q4_0),
    "self_attn.v_proj.weight": ("attn_v.weight", Q.F16),
    "self_attn.o_proj.weight": ("attn_output.weight", Q.Q8_0),
    "post_attention_layernorm.weight": ("ffn_norm.weight", Q.F32),
    "mlp.gate_proj.weight": ("ffn_gate.weight", Q.BF16),
    "mlp.up_proj.weight": ("ffn_up.weight", Q.F32),
    "mlp.down_proj.weight": ("ffn_down.weight", Q.Q4_1),
}
OTHERS = {"model.embed_tokens.weight": ("token_embd.weight", Q.Q8_0), "model.norm.weight": ("output_norm.weight", Q.F32)}


def turn(w, heads):
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def turn_back(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def crc(array):
    return zlib.crc32(np.ascontiguousarray(array, dtype=np.float32).tobytes())


def entry(array):
    rows, cols = (1, array.shape[0]) if array.ndim == 1 else array.shape
    return [rows, cols, crc(array)]


def add_tokenizer(writer):
    tok = json.loads((HERE / "tiny-llama/tokenizer.json").read_text())
    vocab = sorted(tok["model"]["vocab"].items(), key=lambda item: item[1])
    special = {t["id"] for t in tok["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([text for text, _ in vocab])
    writer.add_token_types([3 if i in special else 1 for _, i in vocab])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tok["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(json.loads((HERE / "tiny-llama/tokenizer_config.json").read_text())["chat_template"])


def make_gguf(target, **how):
    """Returns the entries of what a reader has to get out of it."""
    config = json.loads((HERE / "tiny-llama/config.json").read_text())
    state = AutoModelForCausalLM.from_pretrained(HERE / "tiny-llama", dtype=torch.float32).state_dict()
    writer = gguf.GGUFWriter(str(HERE / target), "llama", **how)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    add_tokenizer(writer)
    entries = {}
    for name, tensor in state.items():
        if name == "lm_head.weight":
            continue
        if name in OTHERS:
            target, kind = OTHERS[name]
        else:
            layer, part = name.removeprefix("model.layers.").split(".", 1)
            target, kind = f"blk.{layer}.{NAMES[part][0]}", NAMES[part][1]
        array = tensor.numpy()
        heads = HEADS if "q_proj" in name else KV_HEADS if "k_proj" in name else 0
        if heads:
            array = turn(array, heads)
        packed = gguf.quants.quantize(array, kind)
        plain = gguf.quants.dequantize(packed, kind).reshape(array.shape)
        entries[name] = entry(turn_back(plain, heads) if heads else plain)
        writer.add_tensor(target, packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return entries


def to_fp8(w, rows, cols):
    """The codes, and the factor of each block (what a code is multiplied by)."""
    factors = torch.zeros(-(-w.shape[0] // rows), -(-w.shape[1] // cols))
    codes = torch.zeros(w.shape, dtype=torch.float8_e4m3fn)
    plain = torch.zeros(w.shape)
    for i in range(factors.shape[0]):
        for j in range(factors.shape[1]):
            at = slice(i * rows, (i + 1) * rows), slice(j * cols, (j + 1) * cols)
            factors[i, j] = w[at].abs().max() / 448
            codes[at] = (w[at] / factors[i, j]).to(torch.float8_e4m3fn)
            plain[at] = codes[at].float() * factors[i, j]
    return codes, factors, plain


def make_fp8():
    folder = HERE / "tiny-fp8"
    folder.mkdir(exist_ok=True)
    config = json.loads((HERE / "tiny-llama/config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [24, 40]}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(HERE / "tiny-llama" / name, folder / name)
    stored, entries = {}, {}
    for name, w in load_file(HERE / "tiny-llama/model.safetensors").items():
        if w.dim() == 2 and "layers" in name:
            stored[name], stored[name + "_scale_inv"], plain = to_fp8(w.float(), 24, 40)
        else:
            stored[name] = w.double() if w.dim() == 1 else w.bfloat16()
            plain = stored[name].float()
        entries[name] = entry(plain.numpy())
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return entries


def speeds(**rope):
    config = LlamaConfig(
        hidden_size=rope.pop("dim"), num_attention_heads=1, max_position_embeddings=131072, rope_parameters=rope
    )
    return LlamaRotaryEmbedding(config).inv_freq.view(torch.int32).tolist()


def make_speeds():
    """config.json's part and the bits of the speeds."""
    rows = []
    llama3 = dict(rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
    for dim in (16, 64, 80, 128):
        for theta in (10000.0, 100000.0, 500000.0, 1000000.0):
            for rope in ({"rope_type": "default"}, {"rope_type": "linear", "factor": 3.0}, {**llama3, "factor": 8.0},
                         {**llama3, "factor": 32.0}):
                rope = {**rope, "rope_theta": theta}
                rows.append({"head_dim": dim, "rope": rope, "bits": speeds(dim=dim, **rope)})
    return rows


def main():
    goldens = {"tiny.gguf": make_gguf("tiny.gguf")}
    goldens["tiny-split-00001-of-00003.gguf"] = make_gguf("tiny-split.gguf", split_max_tensors=8)
    goldens["tiny-fp8"] = make_fp8()
    for name in ("tiny-llama", "tiny-untied", "tiny-biased"):
        model = AutoModelForCausalLM.from_pretrained(HERE / name, dtype=torch.float32)
        tied = model.config.tie_word_embeddings
        goldens[name] = {k: entry(v.numpy()) for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")}
    goldens["speeds"] = make_speeds()
    (HERE / "files-goldens.json").write_text(json.dumps(goldens, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
