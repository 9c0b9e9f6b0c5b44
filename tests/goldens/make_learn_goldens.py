"""Makes learn-goldens.json.gz: what PyTorch gives, in float32 on the CPU, for the learner's updates on the tiny models
beside this file: log-probs and entropies, the loss, the gradient of every parameter, and ten steps of AdamW. Each
case is one model, one loss and a few groups of random tokens, with old log-probs that are off-policy enough for
clipping to act, and a reference model for the KL. Run with a Python that has torch and transformers:

    python tests/goldens/make_learn_goldens.py

A tensor is stored as its norm and its products with 64 vectors of random signs: the root mean square of the
differences of these products estimates the norm of the tensors' difference (to about a tenth). Bit j of
splitmix64(i) is the sign of element i in vector j; tests/test_rl_golden.c does the same.
"""

import gzip
import json
import pathlib

import numpy as np
import torch
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
STEPS = 10
# The reference is the model with every weight times this: exact in float32, so both sides have the same.
REFERENCE = 0.96875

CASES = [
    dict(name="tied-grpo", model="tiny-llama", loss="grpo", temperature=1.0, beta=0.04, low=0.2, high=0.2),
    dict(name="tied-dr_grpo", model="tiny-llama", loss="dr_grpo", temperature=0.7, beta=0.0, low=0.2, high=0.28),
    dict(name="untied-dapo", model="tiny-untied", loss="dapo", temperature=1.0, beta=0.1, low=0.2, high=0.28),
    dict(name="biased-dapo", model="tiny-biased", loss="dapo", temperature=1.3, beta=0.05, low=0.1, high=0.2),
    dict(name="biased-grpo", model="tiny-biased", loss="grpo", temperature=1.0, beta=0.02, low=0.2, high=0.2),
]
OPTIMIZER = dict(lr=1e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
MAX_GRAD_NORM = 1.0
MAX_COMPLETION = 48


def load(name):
    model = AutoModelForCausalLM.from_pretrained(HERE / name, dtype=torch.float32, attn_implementation="eager").eval()
    # PyTorch would leave out the gradient that the padding token's row gets as an input; nothing here is padding.
    model.model.embed_tokens.padding_idx = None
    return model


def token_stats(model, prompt, completion, temperature):
    """Log-probs and entropies of the completion's tokens."""
    ids = torch.tensor([prompt + completion])
    logits = model(ids).logits[0, len(prompt) - 1 : -1] / temperature
    logp = torch.log_softmax(logits, -1)
    return logp.gather(1, ids[0, len(prompt) :, None])[:, 0], -(logp.exp() * logp).sum(-1)


def make_groups(case, vocab, gen):
    """Prompts around a page of keys; completions from 1 to MAX_COMPLETION tokens; one group that only the KL
    trains; one sequence with tokens that are not trained, one that was cut off."""

    def tokens(n):
        return torch.randint(vocab, (n,), generator=gen).tolist()

    groups = []
    for g, (n_prompt, lengths) in enumerate([(5, [1, 7, 48]), (32, [12, 2, 31]), (33, [20, 33]), (47, [9, 5])]):
        samples = []
        for n in lengths:
            advantage = float(torch.randn(1, generator=gen)) + 0.4
            samples.append(
                dict(tok=tokens(n), advantage=0.0 if g == 3 else float(f"{advantage:.4f}"), truncated=n == 48, mask=None)
            )
        groups.append(dict(prompt=tokens(n_prompt), samples=samples))
    groups[1]["samples"][0]["mask"] = [int(i % 5 != 2) for i in range(12)]
    case["mask_truncated"] = case["loss"] == "dapo"
    return groups


def each(groups):
    return [(g, s) for g in groups for s in g["samples"]]


def add_old_logps(model, groups, temperature, gen):
    for g, s in each(groups):
        with torch.no_grad():
            logp, _ = token_stats(model, g["prompt"], s["tok"], temperature)
        noise = 0.6 * (torch.rand(logp.shape, generator=gen) - 0.5)
        s["old_logp"] = [float(f"{v:.6f}") for v in (logp + noise).tolist()]


def loss_of(case, model, reference, groups, margins):
    """The loss of all groups, as TRL computes it."""
    total, tokens, count = 0.0, 0, len(each(groups))
    stats = []
    for g, s in each(groups):
        logp, entropy = token_stats(model, g["prompt"], s["tok"], case["temperature"])
        with torch.no_grad():
            ref, _ = token_stats(reference, g["prompt"], s["tok"], case["temperature"])
        stats.append((logp.detach().tolist(), entropy.detach().tolist()))
        mask = torch.tensor(s["mask"] or [1] * len(s["tok"]), dtype=torch.float32)
        if case["mask_truncated"] and s["truncated"]:
            mask *= 0
        ratio = torch.exp(logp - torch.tensor(s["old_logp"]))
        clipped = ratio.clamp(1 - case["low"], 1 + case["high"])
        per_token = -torch.min(ratio * s["advantage"], clipped * s["advantage"])
        if case["beta"]:
            per_token = per_token + case["beta"] * (torch.exp(ref - logp) - (ref - logp) - 1)
        summed = (per_token * mask).sum()
        if case["loss"] == "grpo":
            summed = summed / mask.sum().clamp(min=1)
        total = total + summed
        tokens += int(mask.sum())
        if s["advantage"]:
            for bound in (1 - case["low"], 1 + case["high"]):
                margins.append(float(((ratio.detach() - bound).abs() + 10 * (1 - mask)).min()))
    divisor = {"grpo": count, "dr_grpo": count * MAX_COMPLETION, "dapo": tokens}[case["loss"]]
    return total / divisor, stats


def splitmix64(n):
    with np.errstate(over="ignore"):
        z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def sketch(tensor):
    x = tensor.detach().double().flatten().numpy()
    bits = splitmix64(len(x))
    products = [float(f"{(x * np.where(bits >> np.uint64(j) & np.uint64(1), 1.0, -1.0)).sum():.9g}") for j in range(64)]
    return dict(norm=float(f"{np.linalg.norm(x):.9g}"), products=products)


def optimizer_of(model):
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    return torch.optim.AdamW([dict(params=decay), dict(params=plain, weight_decay=0.0)], **OPTIMIZER)


def run_case(case, seed):
    gen = torch.Generator().manual_seed(seed)
    model, reference = load(case["model"]), load(case["model"])
    with torch.no_grad():
        for p in reference.parameters():
            p.mul_(REFERENCE)
    groups = make_groups(case, model.config.vocab_size, gen)
    add_old_logps(model, groups, case["temperature"], gen)
    case.update(groups=groups, max_completion=MAX_COMPLETION, reference=REFERENCE, curve=[])
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer, margins = optimizer_of(model), []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss, stats = loss_of(case, model, reference, groups, margins)
        loss.backward()
        if step == 0:
            for (_, s), (logp, entropy) in zip(each(groups), stats):
                s["logp"] = [float(f"{v:.8g}") for v in logp]
                s["entropy"] = [float(f"{v:.8g}") for v in entropy]
            case["gradients"] = {n: sketch(p.grad) for n, p in model.named_parameters()}
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        case["curve"].append(dict(loss=float(f"{float(loss):.9g}"), grad_norm=float(f"{float(norm):.9g}")))
    case["moved"] = {n: sketch(p - start[n]) for n, p in model.named_parameters()}
    least = min(abs(c["loss"]) for c in case["curve"])
    print(case["name"], "seed", seed, [round(c["loss"], 4) for c in case["curve"]],
          [round(c["grad_norm"], 3) for c in case["curve"]], f"nearest to a bound {min(margins):.1e}")
    return min(margins) > 2e-4 and least > 0.005


def main():
    torch.manual_seed(0)
    torch.set_num_threads(2)
    cases = []
    for case in CASES:
        # A ratio that comes too near a clipping bound, or a loss too near 0, makes the comparison meaningless.
        cases.append(next(c for seed in range(1, 100) if run_case(c := dict(case), seed)))
    text = json.dumps(cases, separators=(",", ":")).encode()
    (HERE / "learn-goldens.json.gz").write_bytes(gzip.compress(text, 9, mtime=0))


if __name__ == "__main__":
    main()
