"""Seconds of a GRPO step of TRL: 8 problems x 8 samples of exactly 48 + 48 tokens, bf16 autocast, no group without signal.

usage: trl_step.py HF_FOLDER THREADS PROMPT NEW; prints one JSON object: the best of steps 2 and 3, and the peak memory.
"""
import json, random, re, resource, sys, tempfile, time
import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

folder, threads, n_prompt, n_new = sys.argv[1], *map(int, sys.argv[2:5])
torch.set_num_threads(threads)
tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
random.seed(1)


words = [w for w in map(tokenizer.decode, range(min(len(tokenizer), 20000))) if re.fullmatch(" [a-z]+", w)]


def prompt():  # words of one token each
    for _ in range(1000):
        text = "".join(random.choice(words) for _ in range(n_prompt))
        if len(tokenizer(text)["input_ids"]) == n_prompt:
            return text
    sys.exit("this tokenizer gives no prompt of %d tokens" % n_prompt)


def reward(completions, **_):  # of every group some are good
    return [float(i % 2) for i, _ in enumerate(completions)]


config = GRPOConfig(
    output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=True, per_device_train_batch_size=64, num_generations=8,
    max_completion_length=n_new, learning_rate=1e-6, max_steps=3, logging_steps=1, beta=0.0, temperature=1.0,
    generation_kwargs={"min_new_tokens": n_new}, report_to=[], save_strategy="no", lr_scheduler_type="constant",
    gradient_checkpointing=False, model_init_kwargs={"dtype": "float32"}, disable_tqdm=True)


class Trainer(GRPOTrainer):
    steps, sampling, began = [], 0, None

    def _generate_single_turn(self, *args, **kwargs):
        began = time.perf_counter()
        out = super()._generate_single_turn(*args, **kwargs)
        self.sampling = time.perf_counter() - began
        return out

    def training_step(self, *args, **kwargs):
        self.began = time.perf_counter()
        return super().training_step(*args, **kwargs)

    def log(self, logs, *args, **kwargs):
        if "loss" in logs:
            self.steps.append((time.perf_counter() - self.began, self.sampling))


trainer = Trainer(model=folder, args=config, reward_funcs=reward, processing_class=tokenizer,
                  train_dataset=Dataset.from_list([{"prompt": prompt()} for _ in range(64)]))
trainer.train()
step, sampling = min(trainer.steps[1:])
print(json.dumps({"grpo_step_s": step, "grpo_sample_s": sampling, "grpo_train_s": step - sampling,
                  "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
