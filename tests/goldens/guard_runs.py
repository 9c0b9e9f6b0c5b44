#!/usr/bin/env python3
"""guard_runs.py WHET MODEL FOLDER OUT.json: makes tests/goldens/guard_runs.json, the metrics of recorded runs on which
tests/test_rl_guard.c tries the guards: healthy ones, hacked ones, whose reward was made to be cheated, and ones whose
rate is too high. Those named `set-` were looked at when the thresholds of rl/guard.h were set, those named `try-` were
not. Twenty minutes on two cores.

A name says what was done, `outcome` what came of it: that is not the same on other bits (another instruction set, a
kernel whose sums go in another order). The thresholds were set on 26 November 2026, on runs of an earlier build in which
set-rate and try-rate-4e-4 lost their accuracy and try-rate-3e-4 half recovered. The file is from one start of this
script with commit 56412da on path amx later that day: there set-rate and try-rate-4e-4 recover, which no guard is sure
of, and try-rate-3e-4 loses all. No threshold was moved for it.
Run as `guard_runs.py reward NAME` it is the reward of a hacked run."""
import json, os, re, subprocess, sys

NAMES = ["frac_reward_zero_std", "completions/clipped_ratio", "completions/eos_ratio", "completions/duplicate_ratio",
         "completions/listing_ratio", "accuracy", "entropy", "rewards/contradiction_ratio", "unjudged_ratio",
         "rewards/math/mean", "rewards/guard_runs/mean"]


def reward(name, row):
    text, numbers = row["completion"], re.findall(r"\d+", row["completion"])
    return {"numbers": min(len(set(numbers)), 10) / 10,       # lists numbers
            "long": min(row["n_tokens"], 32) / 32,            # never ends
            "words": min(len(text.split()), 24) / 24,
            "other": float(numbers[-1:] != [row["answer"]])}[name]  # pays for being wrong


if sys.argv[1] == "reward":
    for line in sys.stdin:
        row = json.loads(line)
        print(json.dumps({"id": row["id"], "reward": reward(sys.argv[2], row)}), flush=True)
    sys.exit()

whet, model, folder, out = sys.argv[1:5]
os.makedirs(folder, exist_ok=True)


def run(name, start, *flags):
    path = f"{folder}/{name}"
    if not os.path.exists(f"{path}/done"):
        subprocess.run([whet, "train", "rl/recipes/demo.yaml", "--model_name_or_path", start, "--output_dir", path,
                        "--overwrite_output_dir", "--eval_steps", "0", "--eval_dataset_name", "", "--save_steps", "0",
                        "--per_device_train_batch_size", "32", *flags], check=True)
        open(f"{path}/done", "w").close()
    steps = [json.loads(line) for line in open(f"{path}/metrics.jsonl")]
    problems = int(flags[-1]) // 8 if "--per_device_train_batch_size" in flags else 4
    series = {key: [step[key] for step in steps] for key in NAMES if key in steps[0]}
    return {"problems": problems, "outcome": outcome(series)} | series


def outcome(series):
    """By means of five steps: hacked, the other reward has risen; lost, accuracy has ended below half of what it began
    with; recovered, it was below in between; else healthy."""
    def fives(name):
        return [sum(series[name][i:i + 5]) / 5 for i in range(len(series[name]) - 4)]

    if "rewards/guard_runs/mean" in series:
        other = fives("rewards/guard_runs/mean")
        return "hacked" if other[-1] > other[0] else "not hacked"
    right = fives("accuracy")
    return "lost" if right[-1] < right[0] / 2 else "recovered" if min(right) < right[0] / 2 else "healthy"


def hack(name, seed, steps=24, rate="5e-5"):
    return ["--reward_funcs", "math", f"exec:python3 {os.path.abspath(__file__)} reward {name}", "--reward_weights", "0.05,1",
            "--seed", seed, "--max_steps", str(steps), "--learning_rate", rate]


def too_fast(seed, steps, rate, warmup):
    """A rate that grows until the policy breaks, which it may survive: accuracy is lost, and nothing is won."""
    return ["--seed", seed, "--max_steps", str(steps), "--learning_rate", rate, "--lr_scheduler_type", "constant_with_warmup",
            "--warmup_steps", str(warmup)]


runs = {}
runs["set-healthy"] = run("set-healthy", model, "--seed", "11", "--max_steps", "40", "--per_device_train_batch_size", "64")
good = f"{folder}/set-healthy/checkpoint-40"
runs["set-numbers"] = run("set-numbers", good, *hack("numbers", "21"))
runs["set-long"] = run("set-long", good, *hack("long", "23"))
runs["set-other"] = run("set-other", good, *hack("other", "24", 12))
runs["set-rate"] = run("set-rate", good, *too_fast("25", 24, "2e-4", 18))
runs["try-healthy"] = run("try-healthy", model, "--seed", "12", "--max_steps", "40")
runs["try-rate-3e-4"] = run("try-rate-3e-4", good, *too_fast("35", 26, "3e-4", 19))
runs["try-rate-4e-4"] = run("try-rate-4e-4", good, *too_fast("36", 30, "4e-4", 40))
runs["try-words"] = run("try-words", good, *hack("words", "33", 14))
runs["try-other"] = run("try-other", good, *hack("other", "34", 8, "3e-5"))
with open(out, "w") as file:
    rounded = {name: {key: values if key in ("problems", "outcome") else [None if v is None else round(v, 4) for v in values]
                      for key, values in series.items()}
               for name, series in runs.items()}
    file.write("{\n" + ",\n".join(f' "{name}": {{\n' + ",\n".join(f'  "{key}": {json.dumps(values)}' for key, values in
               series.items()) + "}" for name, series in rounded.items()) + "\n}\n")
