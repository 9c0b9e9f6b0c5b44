"""Makes family-goldens.json.gz: what transformers gives, in float32 on the CPU, for tiny random models of every family
that whet loads: log-probs of a text's tokens and the gradient of every parameter. Run with a Python that has torch
and transformers:

    python tests/goldens/make_family_goldens.py

Weights are not stored: element j of a tensor is a function of its name and j (`weights`), which tests/test_rl_families.c
computes, too. A case holds a config.json as transformers 5 writes it, or spelt as transformers 4 did. Gradients are
stored as in make_learn_goldens.py, with fewer products. tests/long_architectures.py makes further cases at random.
"""

import gzip
import json
import pathlib
import random
import tempfile

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from make_learn_goldens import splitmix64

HERE = pathlib.Path(__file__).parent
PRODUCTS = 16
FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "smollm3"]


# ---- weights ----

def fnv(name):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = (h ^ b) * 0x100000001B3 % 2**64
    return h


def weights(name, shape, from_one):
    """Uniform numbers: norms around 1 (around 0 where the model adds the 1), matrices so that products keep size."""
    n = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = (np.arange(n, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(fnv(name))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(40)).astype(np.float64) / 2.0**24 - 0.5
    if len(shape) == 1:
        norm = name.endswith("norm.weight")
        u = u * 0.5 + (1.0 if norm and not from_one else 0.0)
    elif "embed_tokens" not in name:
        u = u * (3.0 / np.sqrt(shape[1]))
    return u.astype(np.float32).reshape(shape)


def model_of(config):
    """A model of transformers with these settings and our weights, and config.json as it writes it."""
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.from_numpy(weights(name, tuple(p.shape), config.model_type.startswith("gemma"))))
    model.model.embed_tokens.padding_idx = None
    return model


# ---- settings ----

def rope_of(kind, rng, turned, positions):
    factors = lambda low, high: [round(rng.uniform(low, high), 3) for _ in range(turned // 2)]
    theta = rng.choice([10000.0, 500000.0, 1000000.0])
    return {
        "default": dict(rope_type="default", rope_theta=theta),
        "linear": dict(rope_type="linear", rope_theta=theta, factor=rng.choice([2.0, 8.0])),
        "dynamic": dict(rope_type="dynamic", rope_theta=theta, factor=rng.choice([2.0, 4.0])),
        "llama3": dict(rope_type="llama3", rope_theta=theta, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                       original_max_position_embeddings=rng.choice([32, 64])),
        "yarn": dict(rope_type="yarn", rope_theta=theta, factor=4.0, original_max_position_embeddings=positions // 4),
        "longrope": dict(rope_type="longrope", rope_theta=theta, short_factor=factors(1, 1.5), long_factor=factors(1, 9)),
    }[kind]


def settings(family, rng, rope="default"):
    """A random configuration of the family."""
    head_dim = rng.choice([8, 16, 24, 32, 40])
    kv = rng.choice([1, 2, 3])
    heads = kv * rng.choice([1, 2, 3])
    positions = 128
    c = dict(
        vocab_size=rng.randint(260, 700), num_hidden_layers=rng.choice([2, 3, 4]), num_attention_heads=heads,
        num_key_value_heads=kv, intermediate_size=rng.randint(20, 140), max_position_embeddings=positions,
        rms_norm_eps=rng.choice([1e-5, 1e-6]), bos_token_id=1, eos_token_id=2, pad_token_id=None,
        tie_word_embeddings=rng.random() < 0.5,
        hidden_size=heads * head_dim if family in ("qwen2", "phi3", "smollm3") else heads * rng.randint(8, 40),
    )  # fmt: skip
    if family in ("llama", "mistral", "qwen3") or family.startswith("gemma"):
        c["head_dim"] = head_dim
    window = rng.choice([8, 17, 32])
    if family == "llama":
        c.update(attention_bias=rng.random() < 0.5, mlp_bias=rng.random() < 0.5)
    if family == "mistral":
        c["sliding_window"] = rng.choice([None, window])
    if family in ("qwen2", "qwen3"):
        used = rng.random() < 0.4
        c.update(use_sliding_window=used, sliding_window=window if used else None, max_window_layers=rng.choice([0, 1, 2]))
    if family == "qwen3":
        c["attention_bias"] = rng.random() < 0.3
    if family.startswith("gemma"):
        c.update(query_pre_attn_scalar=rng.choice([head_dim, 10, 24]), sliding_window=window, attention_bias=rng.random() < 0.2)
        c["final_logit_softcapping"] = rng.choice([None, 30.0, 3.0])
        if rng.random() < 0.5:
            c["num_hidden_layers"] = 7  # a seventh layer, after one without a window
    if family == "gemma2":
        c["attn_logit_softcapping"] = rng.choice([None, 50.0, 2.0])
    turned = head_dim
    if family == "phi3":
        c["sliding_window"] = rng.choice([None, window])
        part = rng.choice([1.0, 0.75, 0.5])
        turned = int(head_dim * part)
    c["rope_parameters"] = rope_of(rope, rng, turned, positions)
    if family == "phi3":
        c["rope_parameters"]["partial_rotary_factor"] = part
        c["original_max_position_embeddings"] = positions // rng.choice([1, 4])
    if family == "gemma3_text":
        local = rope_of("default", rng, head_dim, positions)
        c["rope_parameters"] = dict(full_attention=c["rope_parameters"], sliding_attention=local)
    if family == "smollm3":
        if rng.random() < 0.5:
            c["no_rope_layers"] = [rng.randint(0, 1) for _ in range(c["num_hidden_layers"])]
        else:
            c["no_rope_layer_interval"] = rng.choice([2, 4])
        used = rng.random() < 0.4
        c.update(use_sliding_window=used, sliding_window=window if used else None, attention_bias=rng.random() < 0.3,
                 mlp_bias=rng.random() < 0.3)  # fmt: skip
    return c


def spelt_as_4(config):
    """The settings of config.json as transformers 4 wrote them."""
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    kind = rope.pop("rope_type")
    rope.pop("original_max_position_embeddings", None) if kind == "longrope" else None
    config["rope_scaling"] = None if kind == "default" else {"type" if kind == "longrope" else "rope_type": kind, **rope}
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["transformers_version"] = "4.51.0"
    return config


# ---- one case ----

def sketch(tensor):
    x = tensor.detach().double().flatten().numpy()
    bits = splitmix64(len(x))
    products = [(x * np.where(bits >> np.uint64(j) & np.uint64(1), 1.0, -1.0)).sum() for j in range(PRODUCTS)]
    return dict(shape=list(tensor.shape), norm=float(f"{np.linalg.norm(x):.7g}"),
                products=[float(f"{v:.7g}") for v in products])  # fmt: skip


def case_of(name, family, seed, rope="default", old=False, length=None):
    rng = random.Random(seed)
    config = AutoConfig.for_model(family, **settings(family, rng, rope))
    model = model_of(config)
    n = length or rng.choice([40, 70, 100])
    ids = [rng.randrange(config.vocab_size) for _ in range(n)]
    prompt = rng.randint(1, 12)
    logits = model(torch.tensor([ids])).logits[0, prompt - 1 : -1].float()
    logp = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[prompt:])[:, None])[:, 0]
    (-logp.mean()).backward()
    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        written = json.loads((pathlib.Path(folder) / "config.json").read_text())
    written["architectures"] = [type(model).__name__]
    if old:
        written = spelt_as_4(written)
    gradients = {k: sketch(p.grad) for k, p in model.named_parameters()}
    return dict(name=name, config=written, prompt=prompt, tokens=ids, logp=[float(f"{v:.8g}") for v in logp.tolist()],
                gradients=gradients)  # fmt: skip


ROPES = {"llama": ["linear", "llama3", "dynamic", "yarn"], "qwen2": ["yarn"], "qwen3": ["yarn"], "gemma3_text": ["linear"],
         "phi3": ["longrope"]}  # fmt: skip


def main():
    torch.set_num_threads(2)
    cases = []
    for f, family in enumerate(FAMILIES):
        ropes = ["default", "default"] + ROPES.get(family, [])
        for i, rope in enumerate(ropes):
            # longrope once on either side of its knee; dynamic also beyond the positions first learnt
            long = 150 if rope == "dynamic" else 100 if rope == "longrope" else None
            cases.append(case_of(f"{family}-{i}-{rope}", family, 100 * f + i, rope, old=i % 2 == 1, length=long))
            print(cases[-1]["name"], len(cases[-1]["tokens"]))
        if family == "phi3":
            cases.append(case_of("phi3-short", family, 100 * f + 2, "longrope", old=True, length=28))
    text = json.dumps(cases, separators=(",", ":")).encode()
    (HERE / "family-goldens.json.gz").write_bytes(gzip.compress(text, 9, mtime=0))


if __name__ == "__main__":
    main()
