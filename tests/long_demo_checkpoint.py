"""Compares a checkpoint of whet, loaded by transformers as it is, with `whet logprob --dtype float32`: equal ids, and
log-probs within 2e-4 * max(1, |value|). Run by long_demo_checkpoint.sh:

    python tests/long_demo_checkpoint.py WHET CHECKPOINT
"""

import json
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

CHAT = "<|im_start|>user\nWhat is 17 + 18?<|im_end|>\n<|im_start|>assistant\n17 + 18 = 35<|im_end|>\n"
TEXTS = [
    CHAT,
    "The quick brown fox jumps over the lazy dog.",
    "for (int i = 0; i < 128; i++) {\n\tsum += a[i] * b[i];\n}\n\n\n",
    "1234567890 times 987654321, roughly 1.2e18.  \u00e9\u00e8\u00fc \u4f60\u597d \U0001f600\U0001f44d\u200d \u0303",
    " ".join(f"{i} squared is {i * i}." for i in range(1, 90)),
    "x",
]


def whet_logprob(whet, checkpoint, text):
    command = [whet, "logprob", "--model", checkpoint, "--dtype", "float32"]
    return json.loads(subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout)


def main():
    whet, checkpoint = sys.argv[1:3]
    model, info = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    passed = failed = 0

    def check(good, what):
        nonlocal passed, failed
        passed, failed = passed + good, failed + (not good)
        print("ok    " if good else "FAILED", what)

    check(not any(info.values()), f"every tensor has its place {info if any(info.values()) else ''}")
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
    check("<|im_start|>user\nhello<|im_end|>" in chat, "the chat template came along")
    for text in TEXTS:
        got = whet_logprob(whet, checkpoint, text)
        ids = tokenizer(text)["input_ids"]
        check(ids == got["tokens"], f"{len(ids)} ids equal: {text[:40]!r}")
        if ids != got["tokens"] or len(ids) < 2:
            continue
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1].float()
        wanted = logits.log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        error = (torch.tensor(got["logprobs"][1:]) - wanted).abs() / wanted.abs().clamp(min=1)
        check(error.max().item() <= 2e-4, f"log-probs within 2e-4: {error.max().item():.1e}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
