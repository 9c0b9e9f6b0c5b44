"""Writes rl_zoo.json: the losses and advantages that TRL and verl offer, on random numbers in float64, with autograd's
derivatives by every log-probability and entropy. TRL's losses are its own code, called on a stand-in of its trainer;
the others are verl's formulas (verl/trainer/ppo/core_algos.py) written down anew.
Run: python tests/goldens/rl_zoo.py > tests/goldens/rl_zoo.json   (torch 2.15, trl 1.16)"""

import contextlib
import json
from collections import defaultdict
from types import SimpleNamespace

import torch
from trl.trainer.grpo_trainer import GRPOTrainer

torch.manual_seed(11)
torch.set_default_dtype(torch.float64)
LENGTHS, LONGEST = [5, 1, 7, 3, 6, 4], 8
ADVANTAGES = [0.8, -1.3, 0.0, -0.4, 1.7, -0.9]
TRUNCATED = [False, False, True, False, True, False]


def f32(t):
    return t.float().double()


B, T = len(LENGTHS), max(LENGTHS)
old = f32(-3 * torch.rand(B, T))
logp = f32(old + 0.4 * torch.randn(B, T))
ref = f32(old + 0.3 * torch.randn(B, T))
entropy = f32(2 * torch.rand(B, T))
whole = torch.tensor([[t < n for t in range(T)] for n in LENGTHS])
holes = whole.clone()
holes[0, 2] = holes[2, 0] = holes[4, 5] = False
adv = torch.tensor(ADVANTAGES)

PLAIN = dict(loss_type="grpo", level="token", epsilon=0.2, epsilon_high=0.2, delta=None, beta=0.0, kl="k3",
             corrected=False, entropy_coef=0.0, top_entropy=1.0, off_policy=None, sum=None, cov_share=0.0,
             cov_low=0.0, cov_high=0.0, cov_kl=0.0, mask_truncated=False, with_holes=False,
             sapo_pos=1.0, sapo_neg=1.05, vespo=[2.0, 3.0, 3.0, 2.0])


def mask_of(c):
    mask = (holes if c["with_holes"] else whole).double()
    return mask * (1 - torch.tensor(TRUNCATED).double())[:, None] if c["mask_truncated"] else mask


def trl_loss(c, lp, ent, mask):
    """GRPOTrainer._compute_loss itself: no network, the numbers are handed to it."""
    plain = lambda x, **_: x
    args = SimpleNamespace(
        delta=c["delta"], use_bias_correction_kl=c["corrected"], sapo_temperature_pos=c["sapo_pos"],
        sapo_temperature_neg=c["sapo_neg"], vespo_k_pos=c["vespo"][0], vespo_lambda_pos=c["vespo"][1],
        vespo_k_neg=c["vespo"][2], vespo_lambda_neg=c["vespo"][3], steps_per_generation=1, entropy_target=0.2)
    self = SimpleNamespace(
        args=args, loss_type=c["loss_type"], importance_sampling_level=c["level"], beta=c["beta"],
        epsilon_low=c["epsilon"], epsilon_high=c["epsilon_high"], top_entropy_quantile=c["top_entropy"],
        off_policy_mask_threshold=c["off_policy"], entropy_coef=c["entropy_coef"], use_adaptive_entropy=False,
        _entropy_bonus_enabled=c["entropy_coef"] != 0, max_completion_length=LONGEST, use_vllm=False,
        vllm_importance_sampling_correction=False, aux_loss_enabled=False, current_gradient_accumulation_steps=1,
        model=SimpleNamespace(training=True), _metrics={"train": defaultdict(list)},
        accelerator=SimpleNamespace(gather=plain, pad_across_processes=plain, num_processes=1, sync_gradients=True,
                                    reduce=lambda x, reduction: x, gather_for_metrics=plain))
    self._get_per_token_logps_and_entropies = lambda *a, **k: (lp, ent, None)
    for name in ("get_high_entropy_mask", "get_off_policy_mask", "get_gamma_weights"):
        member = getattr(GRPOTrainer, name)
        static = isinstance(GRPOTrainer.__dict__[name], staticmethod)
        setattr(self, name, member if static else member.__get__(self))
    ids = torch.zeros(B, T, dtype=torch.long)
    inputs = dict(prompt_ids=ids[:, :1], prompt_mask=ids[:, :1] + 1, completion_ids=ids, completion_mask=mask,
                  advantages=adv, old_per_token_logps=old, ref_per_token_logps=ref, num_items_in_batch=mask.sum())
    return GRPOTrainer._compute_loss(self, None, inputs)


def aggregate(how, l, mask):
    if how == "token":
        return (l * mask).sum() / mask.sum()
    if how == "sequence":
        return ((l * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()
    if how == "sequence_sum":
        return (l * mask).sum(1).mean()
    return (l * mask).sum() / (B * LONGEST)


def kl_of(c, lp):
    x = lp - ref
    return {"k1": x, "k2": x * x / 2, "k3": torch.exp(-x) + x - 1}[c["kl"]]


def verl_loss(c, lp, mask):
    kind, a = c["loss_type"], adv[:, None] * torch.ones(B, T)
    d = lp - old
    w = torch.exp(d)
    lo, hi = c["epsilon"], c["epsilon_high"]
    if c["level"] == "sequence_token":  # compute_policy_loss_gspo, without its clamp at 10
        seq = ((d * mask).sum(1) / mask.sum(1).clamp(min=1))[:, None]
        w = torch.exp(lp - lp.detach() + seq.detach())
    l = torch.maximum(-a * w, -a * torch.clamp(w, 1 - lo, 1 + hi))
    if c["delta"]:  # dual clip of compute_policy_loss_vanilla
        l = torch.where(a < 0, torch.minimum(l, -a * c["delta"]), l)
    how = "token"
    if kind == "grpo":
        how = "sequence"
    elif kind == "gpg":
        l = -lp * a
    elif kind == "gmpo":  # compute_policy_loss_geo_mean
        s = torch.sign(a)
        clipped = s * torch.min(s * d, s * torch.clamp(d, -lo, hi))
        l = -a * torch.exp((clipped * mask).sum(1) / mask.sum(1).clamp(min=1))[:, None]
        how = "sequence"
    elif kind in ("clip_cov", "kl_cov"):
        mean = lambda x: (x * mask).sum() / mask.sum()
        cov = ((a - mean(a)) * (lp - mean(lp))).detach()
        cov[mask == 0] = -torch.inf
        if kind == "clip_cov":
            cov[-a * torch.clamp(w, 1 - lo, 1 + hi) > -a * w] = -torch.inf
            chosen = (cov < c["cov_high"]) & (cov > c["cov_low"])
            assert 0 < chosen.sum() <= max(1, int(c["cov_share"] * mask.sum())), "the choice must not be random"
            l = l * (~chosen)
        else:
            k = max(1, int(mask.sum().item() * c["cov_share"]))
            chosen = torch.zeros(B * T, dtype=bool)
            chosen[torch.topk(cov.reshape(-1), k).indices] = True
            l = -a * w + c["cov_kl"] * d.abs() * chosen.reshape(B, T)
    kl = kl_of(c, lp)
    if c["corrected"]:
        kl = kl * torch.exp(d)
    return aggregate(c["sum"] or how, l + c["beta"] * kl, mask)


def run(source, **changes):
    c = PLAIN | changes
    mask = mask_of(c)
    lp, ent = logp.clone().requires_grad_(), entropy.clone().requires_grad_()
    loss = trl_loss(c, lp, ent, mask) if source == "trl" else verl_loss(c, lp, mask)
    loss.backward()
    zero = torch.zeros(B, T)
    row = lambda g: [(g if g is not None else zero)[i, :n].tolist() for i, n in enumerate(LENGTHS)]
    return {k: v for k, v in c.items() if v is not None} | {
        "source": source, "loss": loss.item(), "coef": row(lp.grad), "entropy_slope": row(ent.grad)}


# ---- advantages: verl's ---------------------------------------------------------------------------------------------

GROUPS, SIZE = 3, 4
rewards = torch.tensor([1.0, 0, 0.5, 0, 0.25, 0.25, 0.25, 0.25, 0, -1, 2, 0.5])
lengths = torch.tensor([3, 9, 4, 1, 5, 5, 7, 2, 8, 8, 1, 6])
greedy = torch.tensor([0.5, 0.25, -1.0])
parts = f32(torch.rand(GROUPS * SIZE, 2))
weights = torch.tensor([1.0, 0.5])


def whiten(x):
    tokens = torch.repeat_interleave(x, lengths)
    return (x - tokens.mean()) * torch.rsqrt(tokens.var(unbiased=True) + 1e-8)


def advantages(kind):
    r, l = rewards.view(GROUPS, SIZE), lengths.view(GROUPS, SIZE).double()
    centred = (r - r.mean(1, keepdim=True)).reshape(-1)
    if kind == "rloo":
        return centred * SIZE / (SIZE - 1)
    if kind == "reinforce_plus_plus":
        return whiten(rewards)
    if kind == "reinforce_plus_plus_baseline":
        return whiten(centred)
    if kind == "remax":
        return (r - greedy[:, None]).reshape(-1)
    if kind == "opo":
        return (r - (r * l).sum(1, keepdim=True) / l.sum(1, keepdim=True)).reshape(-1)
    if kind == "gpg":
        return centred * len(rewards) / torch.count_nonzero(rewards)
    if kind == "grpo_passk":
        out = torch.zeros(GROUPS, SIZE)
        for g in range(GROUPS):
            best = torch.topk(r[g], 2)
            out[g, best.indices[0]] = (best.values[0] - best.values[1]) / (r[g].std() + 1e-6)
        return out.reshape(-1)
    if kind == "gdpo":  # TRL's normalize_then_sum
        p = parts.view(GROUPS, SIZE, 2)
        z = (p - p.mean(1, keepdim=True)) / (p.std(1, keepdim=True) + 1e-4)
        s = (z.view(-1, 2) * weights).sum(1)
        return (s - s.mean()) / (s.std() + 1e-4)
    std = {"grpo": r.std(1, keepdim=True).expand(GROUPS, SIZE).reshape(-1) + 1e-4, "batch": rewards.std() + 1e-4}[kind]
    return centred / std


runs = []
for loss_type in ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"):
    for level in ("token", "sequence"):
        high = 1.3 if loss_type == "cispo" else 0.28
        plain = dict(loss_type=loss_type, level=level, epsilon_high=high)
        runs += [run("trl", **plain), run("trl", **plain, beta=0.04, corrected=True, with_holes=True, mask_truncated=True),
                 run("trl", **plain, beta=0.04, top_entropy=0.4, entropy_coef=0.03, with_holes=True)]
for level in ("token", "sequence"):
    runs += [run("trl", level=level, delta=1.5), run("trl", level=level, off_policy=0.05, loss_type="dapo"),
             run("trl", level=level, epsilon=3e-4, epsilon_high=4e-4), run("trl", level=level, epsilon=10, epsilon_high=10, beta=0.001, corrected=True)]
runs += [run("trl", loss_type="sapo", sapo_pos=2.0, sapo_neg=0.5), run("trl", loss_type="vespo", vespo=[1.0, 0.5, 0.5, 2.0])]
for kind in ("dapo", "gpg", "gmpo"):
    for kl in ("k1", "k2", "k3"):
        runs.append(run("verl", loss_type=kind, epsilon=0.4, epsilon_high=0.4, beta=0.1, kl=kl, with_holes=True))
runs += [run("verl", loss_type="dapo", beta=0.1, kl=kl, corrected=True) for kl in ("k1", "k2")]
runs += [run("verl", loss_type="dapo", delta=1.4), run("verl", level="sequence_token", epsilon=0.02, epsilon_high=0.03),
         run("verl", level="sequence_token", epsilon=0.02, epsilon_high=0.03, sum="sequence_sum"),
         run("verl", loss_type="clip_cov", cov_share=0.25, cov_low=0.2, cov_high=0.9),
         run("verl", loss_type="clip_cov", cov_share=0.25, cov_low=0.3, cov_high=5.0, with_holes=True, mask_truncated=True),
         run("verl", loss_type="kl_cov", cov_share=0.2, cov_kl=0.7), run("verl", loss_type="kl_cov", cov_share=0.01, cov_kl=1.0, with_holes=True)]
for how in ("token", "sequence", "sequence_sum", "constant"):
    runs.append(run("verl", loss_type="gpg", sum=how, with_holes=True))

rows = lambda t: [t[i, :n].tolist() for i, n in enumerate(LENGTHS)]
kinds = ("grpo", "batch", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "remax", "opo", "gpg", "grpo_passk", "gdpo")
out = {"longest": LONGEST, "advantages": ADVANTAGES, "truncated": TRUNCATED, "logp": rows(logp), "old": rows(old),
       "ref": rows(ref), "entropy": rows(entropy), "holes": rows(holes),
       "estimators": {"groups": GROUPS, "size": SIZE, "rewards": rewards.tolist(), "lengths": lengths.tolist(),
                      "greedy": greedy.tolist(), "parts": parts.reshape(-1).tolist(), "weights": weights.tolist(),
                      "wanted": {k: advantages(k).tolist() for k in kinds}},
       "runs": runs}


def short(x):
    if isinstance(x, float):
        return float(f"{x:.12g}")
    if isinstance(x, list):
        return [short(y) for y in x]
    return {k: short(v) for k, v in x.items()} if isinstance(x, dict) else x


exact = ("logp", "old", "ref", "entropy", "holes", "estimators")
show = lambda k, v: json.dumps(v if k in exact else short(v))
print("{" + ",\n".join(f'"{k}": ' + ("[\n" + ",\n".join(show(k, r) for r in v) + "]" if k == "runs" else show(k, v))
                       for k, v in out.items()) + "}")
