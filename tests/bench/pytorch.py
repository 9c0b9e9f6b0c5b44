"""Tokens a second of PyTorch: forward, and forward and backward, of 8 x 128 tokens, each a target, in bf16 autocast.

usage: pytorch.py HF_FOLDER THREADS; prints one JSON object, the best of three runs.
"""
import json, sys, time
import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(int(sys.argv[2]))
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
ids = torch.randint(0, model.config.vocab_size - 1, (8, 128))


def logits():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model(ids).logits


def forward():
    with torch.no_grad():
        torch.log_softmax(logits()[:, :-1].float(), -1).gather(-1, ids[:, 1:, None])


def train():
    z = logits()[:, :-1].float()
    torch.nn.functional.cross_entropy(z.reshape(-1, z.shape[-1]), ids[:, 1:].reshape(-1)).backward()
    model.zero_grad()


def speed(what):
    best = 1e9
    for _ in range(3):
        began = time.perf_counter()
        what()
        best = min(best, time.perf_counter() - began)
    return ids.numel() / best


print(json.dumps({"forward": speed(forward), "train": speed(train)}))
