"""Writes rl_losses.json: TRL's policy losses (formulas of trl/trainer/grpo_trainer.py written down anew) on random
log-probabilities, with autograd's derivatives, in float64.
Run: python tests/goldens/rl_losses.py > tests/goldens/rl_losses.json   (torch 2.15)"""

import json

import torch

torch.manual_seed(7)
LENGTHS, LONGEST = [5, 1, 7, 3, 6], 8
ADVANTAGES = [0.8, -1.3, 0.0, -0.4, 1.7]
TRUNCATED = [False, False, True, False, True]


def f32(t):
    return t.float().double()


B, T = len(LENGTHS), max(LENGTHS)
old = f32(-2 * torch.rand(B, T, dtype=torch.float64))
logp = f32(old + 0.5 * torch.randn(B, T, dtype=torch.float64))
ref = f32(old + 0.3 * torch.randn(B, T, dtype=torch.float64))
whole = torch.tensor([[t < n for t in range(T)] for n in LENGTHS])
holes = whole.clone()
holes[0, 2] = holes[2, 0] = holes[4, 5] = False


def masked_seq_mean(x, mask):
    return (x * mask).sum(1) / mask.sum(1)


def run(kind, low, high, beta, mask_truncated, with_holes):
    mask = (holes if with_holes else whole).double()
    if mask_truncated:
        mask = mask * (1 - torch.tensor(TRUNCATED).double())[:, None]
    lp = logp.clone().requires_grad_()
    adv = torch.tensor(ADVANTAGES, dtype=torch.float64)[:, None]
    w = torch.exp(lp - old)
    loss_t = -torch.min(w * adv, torch.clamp(w, 1 - low, 1 + high) * adv)
    kl = torch.exp(ref - lp) - (ref - lp) - 1
    loss_t = loss_t + beta * kl
    if kind == "grpo":
        loss = ((loss_t * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()
    elif kind == "dr_grpo":
        loss = (loss_t * mask).sum() / (B * LONGEST)
    else:
        loss = (loss_t * mask).sum() / mask.sum()
    loss.backward()
    is_low, is_high = ((w < 1 - low) & (adv < 0)).double(), ((w > 1 + high) & (adv > 0)).double()
    live = mask.sum(1) > 0
    mean = lambda x: ((x * mask).sum() / mask.sum()).item()
    return {
        "loss_type": kind, "epsilon": low, "epsilon_high": high, "beta": beta, "mask_truncated": mask_truncated,
        "with_holes": with_holes, "loss": loss.item(), "kl": mean(kl.detach()),
        "low_mean": mean(is_low), "high_mean": mean(is_high), "region_mean": mean(torch.maximum(is_low, is_high)),
        "low_min": masked_seq_mean(is_low, mask)[live].min().item(),
        "high_max": masked_seq_mean(is_high, mask)[live].max().item(),
        "coef": [lp.grad[i, :n].tolist() for i, n in enumerate(LENGTHS)],
    }


runs = [
    run(kind, low, high, beta, mask_truncated, with_holes)
    for kind in ("grpo", "dr_grpo", "dapo")
    for low, high in ((0.2, 0.2), (0.2, 0.28), (10.0, 10.0))
    for beta in (0.0, 0.04)
    for mask_truncated, with_holes in ((False, False), (False, True), (True, True))
]
rows = lambda t: [t[i, :n].tolist() for i, n in enumerate(LENGTHS)]
out = {"longest": LONGEST, "advantages": ADVANTAGES, "truncated": TRUNCATED, "logp": rows(logp), "old": rows(old),
       "ref": rows(ref), "holes": rows(holes), "runs": runs}
print("{" + ",\n".join(f'"{k}": ' + ("[\n" + ",\n".join(map(json.dumps, v)) + "]" if k == "runs" else json.dumps(v)) for k, v in out.items()) + "}")
