"""whet beside what one would take instead: llama.cpp (decoding), PyTorch (forward, training) and TRL (a GRPO step).

usage: peers.py WHET MODEL [--random CONFIG.JSON] [--rounds 2] [--runs 3] [--prompt 48] [--new 48] [--only llama,pytorch,trl]

All run on the same weights, one after another, in every round; the best of each counts. WHET exports the model for the others;
with --random all have random weights in the shape of a config.json, and MODEL lends the tokenizer. Prints a Markdown table.
"""
import argparse, json, os, subprocess, sys, tempfile

here = os.path.dirname(os.path.abspath(__file__))
parser = argparse.ArgumentParser()
parser.add_argument("whet")
parser.add_argument("model")
parser.add_argument("--random")
parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--runs", type=int, default=3, help="of each measurement in a round")
parser.add_argument("--prompt", type=int, default=48)
parser.add_argument("--new", type=int, default=48)
parser.add_argument("--only", default="llama,pytorch,trl")
args = parser.parse_args()
threads = str(len(os.sched_getaffinity(0)))


def run(*command):
    out = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if out.returncode:
        sys.exit("%s\n%s" % (" ".join(map(str, command)), out.stderr[-2000:]))
    return out.stdout


def better(name, a, b):
    return min(a, b) if name.endswith("_s") or name == "peak_rss_mb" else max(a, b)


with tempfile.TemporaryDirectory() as work:
    folder, gguf = os.path.join(work, "hf"), os.path.join(work, "model.gguf")
    run(args.whet, "export", "--model", args.model, "--format", "hf", "--output", folder)
    if args.random:
        lender, folder = folder, os.path.join(work, "random")
        run(sys.executable, os.path.join(here, "model.py"), args.random, lender, folder)
    run(args.whet, "export", "--model", folder, "--format", "gguf", "--output", gguf)
    lengths = ["--prompt_length", args.prompt, "--completion_length", args.new]
    commands = {
        "whet": [args.whet, "bench", "--model", folder, "--json", "--repeat", args.runs, *lengths],
        "llama": [sys.executable, os.path.join(here, "llama.py"), gguf, threads, args.prompt, args.new, args.runs],
        "pytorch": [sys.executable, os.path.join(here, "pytorch.py"), folder, threads],
        "trl": [sys.executable, os.path.join(here, "trl_step.py"), folder, threads, args.prompt, args.new],
    }
    results = {}
    for _ in range(args.rounds):
        for who in ["whet"] + args.only.split(","):
            for name, value in json.loads(run(*commands[who]).splitlines()[-1]).items():
                mine = results.setdefault(who, {})
                mine[name] = better(name, mine[name], value) if name in mine and not isinstance(value, str) else value
            print(who, json.dumps(results[who]), file=sys.stderr, flush=True)

print("| | whet (%s) | peer | ratio |\n| --- | --- | --- | --- |" % results["whet"]["path"])
names = {"llama": "llama.cpp BF16", "pytorch": "PyTorch bf16 autocast", "trl": "TRL bf16"}
for who in args.only.split(","):
    for name, theirs in results[who].items():
        ours = results["whet"][name]
        ratio = theirs / ours if better(name, 1, 2) == 1 else ours / theirs
        unit = "MiB" if name.endswith("_mb") else "s" if name.endswith("_s") else "tokens/s"
        form = "%.2f" if unit == "s" else "%.0f"
        print("| %s, %s | %s | %s %s | %.2f x |" % (name, unit, form % ours, names[who], form % theirs, ratio))
