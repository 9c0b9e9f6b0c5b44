#!/usr/bin/env python3
"""Recipes against TRL, from end to end: random settings of the loss, each learnt twice from one batch of answers of a
tiny model in float32; PyTorch takes the stored answers, TRL's own GRPOTrainer._compute_loss on transformers' log-probs
and entropies, autograd, clipping and AdamW, and must reach the same loss, gradient norm and weights after each update.

    WHET=./whet python tests/long_recipes.py [COUNT [SEED]]
"""
import json, os, random, shutil, sqlite3, struct, subprocess, sys, tempfile, zlib
from collections import defaultdict
from types import SimpleNamespace

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

try:
    from trl.trainer.grpo_trainer import GRPOTrainer
except ImportError:
    sys.exit(print("SKIPPED: no Python with TRL: set PYTHON\n0 passed, 0 failed, 1 skipped"))

WHET, COUNT, SEED = os.environ.get("WHET", "./whet"), *(int(x) for x in (sys.argv[1:] + ["24", "1"][len(sys.argv) - 1:]))
MODEL, LONGEST, EPS, TEMPERATURE = "tests/goldens/tiny-llama", 12, 0.05, 0.9
random.seed(SEED)
transformers.utils.logging.disable_progress_bar()
torch.set_default_dtype(torch.float64)


def settings():
    """A random recipe, of keys that TRL has."""
    kind = random.choice(["grpo", "dr_grpo", "dapo", "bnpo", "luspo", "cispo", "sapo", "vespo"])
    clipped = kind in ("grpo", "dr_grpo", "dapo", "bnpo", "luspo")
    c = dict(loss_type=kind, scale_rewards=random.choice(["group", "batch", "none"]), beta=random.choice([0, 0.05, 0.5]),
             epsilon=random.choice([0.02, 0.2]), mask_truncated_completions=random.random() < 0.4,
             top_entropy_quantile=random.choice([1, 1, 0.5]), entropy_coef=random.choice([0, 0, 0.01]),
             use_bias_correction_kl=random.random() < 0.5)
    c["importance_sampling_level"] = "token" if kind == "vespo" else random.choice(["token", "sequence"])
    c["epsilon_high"] = 3 if kind == "cispo" else c["epsilon"] + random.choice([0, 0.05])
    c["delta"] = random.choice([None, 1.3]) if clipped else None
    c["off_policy_mask_threshold"] = random.choice([None, None, 0.01])
    return c


def train(folder, c):
    flags = [part for key, value in c.items() if value is not None for part in (f"--{key}", str(value))]
    subprocess.run([WHET, "train", "--model_name_or_path", MODEL, "--dataset_name", "generate:sums:min=1:max=3", "--output_dir",
                    folder, "--prompt_template", "Q: {problem}\nA:", "--reward_funcs", "exec:python3 tests/exec_rewarder.py good",
                    "--num_generations", "4", "--per_device_train_batch_size", "12", "--num_iterations", "2", "--max_steps", "2",
                    "--max_prompt_length", "40", "--max_completion_length", str(LONGEST), "--temperature", str(TEMPERATURE),
                    "--dtype", "float32", "--learning_rate", "0.5", "--lr_scheduler_type", "constant", "--adam_epsilon", str(EPS),
                    "--save_steps", "1", "--save_total_limit", "0", "--seed", str(random.randrange(1000)), *flags],
                   check=True, stdout=subprocess.DEVNULL)


def ids(blob):
    raw = zlib.decompress(blob)
    n = len(raw) // 4
    return list(struct.unpack(f"<{n}i", bytes(raw[b * n + i] for i in range(n) for b in range(4))))


def answers(folder):
    db = sqlite3.connect(folder + "/run.db")
    rows = db.execute("SELECT prompt_tokens, tokens, finish, reward FROM samples JOIN groups ON groups.id = group_id "
                      "ORDER BY position, number").fetchall()
    metrics = defaultdict(dict)
    for step, name, value in db.execute("SELECT step, name, value FROM step_metrics"):
        metrics[step][name] = value
    return [(ids(p), ids(t), f == "length", r) for p, t, f, r in rows], metrics


def advantages(c, rewards):
    """TRL's _generate_and_score_completions."""
    r = torch.tensor(rewards).view(-1, 4)
    a = r - r.mean(1, keepdim=True)
    if c["scale_rewards"] == "group":
        a = a / (r.std(1, keepdim=True) + 1e-4)
    if c["scale_rewards"] == "batch":
        a = a / (r.std() + 1e-4)
    return a.flatten()


def forward(model, rows):
    longest = max(len(t) for _, t, _, _ in rows)
    logps, entropies = [], []
    for prompt, tokens, _, _ in rows:
        logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1:-1] / TEMPERATURE
        every = torch.log_softmax(logits, -1)
        pad = (0, longest - len(tokens))
        logps.append(torch.nn.functional.pad(every.gather(1, torch.tensor(tokens)[:, None])[:, 0], pad))
        entropies.append(torch.nn.functional.pad(-(every.exp() * every).sum(-1), pad))
    entropies = torch.stack(entropies)
    # TRL has them in float32, where tokens after the same text, such as a group's first ones, are equally uncertain.
    return torch.stack(logps), entropies + (entropies.float().double() - entropies).detach()


def trl_loss(c, logp, entropy, old, ref, mask, adv):
    plain = lambda x, **_: x
    args = SimpleNamespace(delta=c["delta"], use_bias_correction_kl=c["use_bias_correction_kl"], sapo_temperature_pos=1.0,
                           sapo_temperature_neg=1.05, vespo_k_pos=2.0, vespo_lambda_pos=3.0, vespo_k_neg=3.0,
                           vespo_lambda_neg=2.0, steps_per_generation=1, entropy_target=0.2)
    trainer = SimpleNamespace(
        args=args, loss_type=c["loss_type"], importance_sampling_level=c["importance_sampling_level"], beta=c["beta"],
        epsilon_low=c["epsilon"], epsilon_high=c["epsilon_high"], top_entropy_quantile=c["top_entropy_quantile"],
        off_policy_mask_threshold=c["off_policy_mask_threshold"], entropy_coef=c["entropy_coef"], use_adaptive_entropy=False,
        _entropy_bonus_enabled=c["entropy_coef"] != 0, max_completion_length=LONGEST, use_vllm=False,
        vllm_importance_sampling_correction=False, aux_loss_enabled=False, current_gradient_accumulation_steps=1,
        model=SimpleNamespace(training=True), _metrics={"train": defaultdict(list)},
        accelerator=SimpleNamespace(gather=plain, pad_across_processes=plain, num_processes=1, sync_gradients=True,
                                    reduce=lambda x, reduction: x, gather_for_metrics=plain),
        _get_per_token_logps_and_entropies=lambda *a, **k: (logp, entropy, None))
    for name in ("get_high_entropy_mask", "get_off_policy_mask", "get_gamma_weights"):
        member = getattr(GRPOTrainer, name)
        static = isinstance(GRPOTrainer.__dict__[name], staticmethod)
        setattr(trainer, name, member if static else member.__get__(trainer))
    none = torch.zeros(mask.shape, dtype=torch.long)
    inputs = dict(prompt_ids=none[:, :1], prompt_mask=none[:, :1] + 1, completion_ids=none, completion_mask=mask,
                  advantages=adv, old_per_token_logps=old, num_items_in_batch=mask.sum())
    if c["beta"]:
        inputs["ref_per_token_logps"] = ref
    return GRPOTrainer._compute_loss(trainer, None, inputs)


def near(name, got, want, tolerance, worst):
    gap = abs(got - want) / max(abs(want), 1e-3)
    worst[name] = max(worst.get(name, 0), gap)
    return gap <= tolerance


def check(folder, c, worst):
    rows, metrics = answers(folder)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float64)
    adv = advantages(c, [r for _, _, _, r in rows])
    mask = torch.stack([torch.arange(max(len(t) for _, t, _, _ in rows)) < len(t) for _, t, _, _ in rows]).double()
    if c["mask_truncated_completions"]:
        mask = mask * torch.tensor([[0.0 if cut else 1.0] for _, _, cut, _ in rows])
    with torch.no_grad():
        old, _ = forward(model, rows)
    names, weights = zip(*model.named_parameters())
    moments = [[torch.zeros_like(w), torch.zeros_like(w)] for w in weights]
    good, largest = True, 1e-3
    for step in (1, 2):
        loss = trl_loss(c, *forward(model, rows), old, old, mask, adv)
        grads = torch.autograd.grad(loss, weights)
        norm = torch.stack([g.norm() for g in grads]).norm().item()
        good &= near("loss", metrics[step]["loss"], loss.item(), 1e-4, worst)
        good &= near("grad_norm", metrics[step]["grad_norm"], norm, 1e-4, worst)
        there = load_file(f"{folder}/checkpoint-{step}/model.safetensors")
        moved = 0.0
        with torch.no_grad():
            for (m, v), name, w, g in zip(moments, names, weights, grads):
                g = g * min(1, 1 / (norm + 1e-6))
                m.lerp_(g, 0.1), v.mul_(0.999).add_(0.001 * g * g)
                change = -0.5 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + EPS)
                w += change
                moved = max(moved, change.abs().max().item())
            apart = max((there[name].double() - w).abs().max().item() for name, w in zip(names, weights))
        # What errors of the gradients so far do to the weights at most: AdamW divides them by no less than EPS.
        largest = max(largest, min(norm, 1))
        good &= near("weights", 1 + apart * EPS / (0.5 * largest), 1, 2e-5, worst)
        if not good:
            print(f"  step {step}: loss {metrics[step]['loss']:.9g} and {loss.item():.9g}, grad_norm "
                  f"{metrics[step]['grad_norm']:.9g} and {norm:.9g}, weights apart {apart:.2g} of {moved:.2g}")
            break
    return good


work, worst, failed = tempfile.mkdtemp(), {}, 0
for i in range(COUNT):
    c = settings()
    train(f"{work}/{i}", c)
    if not check(f"{work}/{i}", c, worst):
        failed += 1
        print(f"FAILED: {json.dumps(c)}")
    shutil.rmtree(f"{work}/{i}")
shutil.rmtree(work)
print("worst, relative:", ", ".join(f"{name} {gap:.1e}" for name, gap in worst.items()))
print(f"{COUNT - failed} passed, {failed} failed")
sys.exit(failed != 0)
