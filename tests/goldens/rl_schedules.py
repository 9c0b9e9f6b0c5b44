"""Writes rl_schedules.txt: factors of transformers' learning-rate schedulers, one line each:
name warmup_steps warmup_ratio total resolved_warmup update factor
Run: python tests/goldens/rl_schedules.py > tests/goldens/rl_schedules.txt   (transformers 5.23)"""

import math

import torch
from transformers import get_scheduler

CASES = [(0, 0.0, 10), (3, 0.0, 12), (0, 0.1, 40), (0, 0.07, 100), (0.05, 0.0, 50), (5, 0.5, 5), (8, 0.0, 5), (0, 0.0, 1)]

for name in ("constant", "constant_with_warmup", "linear", "cosine"):
    for steps, ratio, total in CASES:
        # TrainingArguments.get_warmup_steps, of transformers 5 (steps below 1 are a share) and 4 (warmup_ratio).
        warmup = int(steps) if steps >= 1 else math.ceil(total * (steps if steps > 0 else ratio))
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
        for update in range(total + 2):
            if total < 20 or update % 7 == 0 or update >= total - 1 or update in (warmup - 1, warmup, warmup + 1):
                print(name, steps, ratio, total, warmup, update, repr(scheduler.get_last_lr()[0]))
            optimizer.step()
            scheduler.step()
