"""Greedy answers of 20 prompts, by whet and by llama.cpp, from the same exports of SmolLM2 (F32 and BF16): equal, but
where they part at a tie: the two tokens' logits in llama.cpp lie nearer to each other than llama.cpp's own rounding
(its products of BF16 round the activations, too, and its cache is of half precision) moves them, which is shown.

    python tests/long_llama_cpp.py        needs WHET_MODEL (a GGUF) and llama_cpp; WHET names the program
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

WHET = os.environ.get("WHET", "./whet")
PROMPTS = [
    "What is 7 + 8?", "Name three colours.", "What is the capital of France?", "Write one sentence about the sea.",
    "Is 17 a prime number?", "What is 12 times 12?", "How many days has a week?", "Translate 'good morning' into French.",
    "Who wrote Hamlet?", "What is water made of?", "Give me a synonym of 'big'.", "What comes after Tuesday?",
    "How many legs has a spider?", "What is 100 - 37?", "Name a fruit that is yellow.", "What is the largest planet?",
    "Spell 'cat' backwards.", "What is half of 50?", "Which is heavier, iron or feathers?", "Why is the sky blue?",
]  # fmt: skip
LENGTH = 24
TIE = 0.15  # in logits: BF16 keeps 8 bits of activations of some tens


def whet(*args, stdin=""):
    run = subprocess.run([WHET, *map(str, args)], input=stdin, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def main():
    try:
        from llama_cpp import Llama
    except ImportError:
        print("SKIPPED: llama_cpp is not installed\n0 passed, 0 failed, 1 skipped")
        return 0
    if not os.environ.get("WHET_MODEL"):
        print("SKIPPED: no model: set WHET_MODEL\n0 passed, 0 failed, 1 skipped")
        return 0
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("f32", "bf16"):
            path = pathlib.Path(folder) / f"{dtype}.gguf"
            whet("export", "--model", os.environ["WHET_MODEL"], "--format", "gguf", "--dtype", dtype, "--output", path)
            llm = Llama(str(path), n_ctx=256, n_threads=2, verbose=False)
            equal, ties = 0, []
            for prompt in PROMPTS:
                text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
                # whet, float32 on the same weights
                ours = whet("sample", "--model", path, "--dtype", "float32", "--temperature", 0, "--raw",
                            "--max_completion_length", LENGTH, "--prompt", text).rstrip("\n")  # fmt: skip
                llm.reset()
                ids = llm.tokenize(text.encode(), add_bos=False, special=True)
                llm.eval(ids)
                theirs, gaps = [], []
                for _ in range(LENGTH):
                    logits = np.ctypeslib.as_array(llm._ctx.get_logits(), shape=(llm.n_vocab(),)).copy()
                    order = np.argsort(-logits)[:2]
                    gaps.append(float(logits[order[0]] - logits[order[1]]))
                    if int(order[0]) == llm.token_eos():
                        break
                    theirs.append(int(order[0]))
                    llm.eval([int(order[0])])
                said = llm.detokenize(theirs).decode(errors="replace")
                if said.strip() == ours.strip():
                    equal += 1
                    continue
                ours_ids = llm.tokenize(ours.encode(), add_bos=False, special=False)
                at = next((i for i, (a, b) in enumerate(zip(theirs, ours_ids)) if a != b), min(len(theirs), len(ours_ids)))
                gap = gaps[min(at, len(gaps) - 1)]
                ties.append(gap)
                print(f"{dtype}: {prompt!r}: parts at token {at}, where llama.cpp's two best logits are {gap:.4f} apart")
                bad += gap > TIE
            print(f"{dtype}: {equal} of {len(PROMPTS)} answers equal, {len(ties)} part at ties of at most {max(ties, default=0):.4f}")
    print(f"{2 if not bad else 0} passed, {bad} failed")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
