"""Writes rl_schedules.txt: factors of transformers' learning-rate schedulers, one line each:
name num_cycles lowest warmup_steps warmup_ratio total resolved_warmup update factor
Run: python tests/goldens/rl_schedules.py > tests/goldens/rl_schedules.txt   (transformers 5.23)"""

import math

import torch
from transformers import get_scheduler

CASES = [(0, 0.0, 10), (3, 0.0, 12), (0, 0.1, 40), (0, 0.07, 100), (0.05, 0.0, 50), (5, 0.5, 5), (8, 0.0, 5), (0, 0.0, 1)]

KINDS = [("constant", {}), ("constant_with_warmup", {}), ("linear", {}), ("cosine", {}), ("cosine", {"num_cycles": 1.5}),
         ("cosine_with_restarts", {}), ("cosine_with_restarts", {"num_cycles": 3}), ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
         ("cosine_with_min_lr", {"min_lr": 0.25, "num_cycles": 1})]  # of a rate of 1
for name, more in KINDS:
    lowest = more.get("min_lr_rate", more.get("min_lr", 0))
    for steps, ratio, total in CASES:
        # TrainingArguments.get_warmup_steps, of transformers 5 (steps below 1 are a share) and 4 (warmup_ratio).
        warmup = int(steps) if steps >= 1 else math.ceil(total * (steps if steps > 0 else ratio))
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total, scheduler_specific_kwargs=more)
        for update in range(total + 2):
            if total < 20 or update % 7 == 0 or update >= total - 1 or update in (warmup - 1, warmup, warmup + 1):
                print(name, more.get("num_cycles", 0), lowest, steps, ratio, total, warmup, update, repr(scheduler.get_last_lr()[0]))
            optimizer.step()
            scheduler.step()
