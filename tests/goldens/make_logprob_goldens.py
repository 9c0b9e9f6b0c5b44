"""Makes logprob-tiny.json and logprob-smollm2.json: what transformers gives, in float32 on the CPU, as the log-probs
of texts under the tiny models beside this file and under SmolLM2-135M-Instruct (Q4_1 GGUF, dequantised by
transformers). Run with a Python that has torch, transformers, tokenizers and gguf:

    python tests/goldens/make_logprob_goldens.py [FOLDER_OF_THE_GGUF]

transformers' tokenizer of the GGUF forgets that digits stand alone; here it is told so.
"""

import json
import pathlib
import sys

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
LONG = " ".join(f"Problem {i}: what is {i} + {3 * i + 1}? The answer is {4 * i + 1}." for i in range(1, 40))
TEXTS = [
    "What is 7 + 8? It is 15.",
    "a",
    "<|im_start|>user\nWhat is 3 times 11?<|im_end|>\n<|im_start|>assistant\n3 times 11 is 33.<|im_end|>\n",
    "def f(x):\n    return x + 1\n\n\tnaïve 世界 😀  \n\n12",
]


def row(name, model, tok, text):
    ids = tok(text, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(ids).logits[0].float()
    logp = torch.log_softmax(logits[:-1], -1).gather(1, ids[0, 1:, None])[:, 0]
    return {
        "model": name,
        "text": text,
        "tokens": ids[0].tolist(),
        "logprobs": [None] + [float(f"{v:.7g}") for v in logp.tolist()],
    }


def write(path, rows):
    path.write_text("[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n]\n")
    print(path.name, len(rows), "texts", sum(len(r["tokens"]) for r in rows), "tokens")


def tiny():
    rows = []
    for name in ["tiny-llama", "tiny-untied", "tiny-biased"]:
        tok = AutoTokenizer.from_pretrained(HERE / name)
        model = AutoModelForCausalLM.from_pretrained(HERE / name, dtype=torch.float32).eval()
        for text in TEXTS:
            rows.append(row(name, model, tok, text))
        ids = tok(LONG).input_ids
        for n in [31, 32, 33, 500]:  # around a page of keys, and nearly all positions
            text = tok.decode(ids[:n])
            rows.append(row(name, model, tok, text))
    return rows


def real(folder):
    tok = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    tok.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    if hasattr(loaded.config, "quantization_config"):
        delattr(loaded.config, "quantization_config")
    model = LlamaForCausalLM(loaded.config).float().eval()
    print(model.load_state_dict(loaded.state_dict(), strict=False))
    model.tie_weights()
    texts = TEXTS + [LONG]
    return [row(GGUF, model, tok, text) for text in texts]


torch.manual_seed(0)
write(HERE / "logprob-tiny.json", tiny())
if len(sys.argv) > 1:
    write(HERE / "logprob-smollm2.json", real(sys.argv[1]))
