"""Greedy answers of 20 prompts, by whet and by llama.cpp, from the same exports of SmolLM2 (F32 and BF16).

llama.cpp rounds activations of products with BF16 weights, so answers may part where two tokens are nearly as likely.
What is asserted, with the logits' gap of the two tokens at the first place where an answer parts, in both programs:

- F32 and BF16 widened to F32 (the same weights; llama.cpp does not round then): equal, or both gaps below 2e-3.
- BF16: equal, or both gaps below what llama.cpp's own rounding does: twice the largest change of a chosen token's
  log-prob between its BF16 and its widened run over all places of all prompts; and at that place the widened run
  chooses whet's token. So what parts is llama.cpp's rounding, not whet.

    python tests/long_llama_cpp.py        needs WHET_MODEL (a GGUF) and llama_cpp; WHET names the program

PyPI has no wheel of llama_cpp, and it compiles for ten minutes: `make bench-peers` puts it into build/venv, after which
`make test-all` runs this, too.
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
LENGTH = 32
TIE_F32 = 2e-3  # float32 sums in another order, through 30 layers


def whet(*args, stdin=""):
    run = subprocess.run([WHET, *map(str, args)], input=stdin, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def text_of(prompt):
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def answer_of_whet(path, prompt):
    """ids of the answer, in float32 on the file's weights."""
    row = json.loads(whet("sample", "--model", path, "--dtype", "float32", "--temperature", 0, "--raw", "--json",
                          "--max_completion_length", LENGTH, "--prompt", text_of(prompt)))  # fmt: skip
    return row["tokens"]


class Peer:
    """llama.cpp with K and V in float32, on one thread (its threads spin)."""

    def __init__(self, path):
        from llama_cpp import Llama

        self.llm = Llama(str(path), n_ctx=256, n_threads=1, n_threads_batch=1, type_k=0, type_v=0, verbose=False)
        self.eos = self.llm.token_eos()

    def ids(self, prompt):
        return self.llm.tokenize(text_of(prompt).encode(), add_bos=False, special=True)

    def logp(self):
        logits = np.ctypeslib.as_array(self.llm._ctx.get_logits(), shape=(self.llm.n_vocab(),)).astype(np.float64)
        return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())

    def greedy(self, prompt):
        """Its own answer (with the EOS that ends it), and the log-probs of all tokens at each place."""
        self.llm.reset()
        self.llm.eval(self.ids(prompt))
        answer, rows = [], []
        while len(answer) < LENGTH and (not answer or answer[-1] != self.eos):
            rows.append(self.logp())
            answer.append(int(rows[-1].argmax()))
            self.llm.eval(answer[-1:])
        return answer, rows

    def forced(self, prompt, answer):
        """The log-probs at each place of an answer that is given."""
        self.llm.reset()
        self.llm.eval(self.ids(prompt))
        rows = [self.logp()]
        for token in answer[:-1]:
            self.llm.eval([token])
            rows.append(self.logp())
        return rows


def gap_in_whet(path, peer, prompt, before, ours, theirs):
    """How much likelier than the other's token whet's own is."""
    begin, found = peer.ids(prompt) + before, []
    for token in (ours, theirs):
        text = peer.llm.detokenize(begin + [token], special=True).decode()
        row = json.loads(whet("logprob", "--model", path, "--dtype", "float32", stdin=text))
        assert row["tokens"] == begin + [token], f"{prompt!r}: the text has other tokens"
        found.append(row["logprobs"][-1])
    return found[0] - found[1]


def first_apart(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def compare(name, path, peer, answers):
    """Where the peer's answers part from whet's: (prompt, place, the peer's token, both gaps); and all rows."""
    parts, theirs = [], {}
    for prompt, ours in answers.items():
        said, theirs[prompt] = peer.greedy(prompt)
        at = first_apart(said, ours)
        if at == len(said) == len(ours):
            continue
        assert at < min(len(said), len(ours)), f"{name}: {prompt!r}: one answer goes on after the other's end"
        row = theirs[prompt][at]
        gap = row[said[at]] - row[ours[at]]
        parts.append((prompt, at, said[at], gap_in_whet(path, peer, prompt, ours[:at], ours[at], said[at]), gap))
    return parts, theirs


def judge(name, parts, bound, sound=lambda prompt, at: True):
    bad = 0
    for prompt, at, token, ours, theirs in parts:
        tie = 0 <= ours < bound and 0 <= theirs < bound and sound(prompt, at)
        bad += not tie
        print(f"{name}: {prompt!r} parts at token {at}: whet prefers its own by {ours:.5f}, llama.cpp its own ({token}) by "
              f"{theirs:.5f}; the bound is {bound:.5f}: " + ("a tie" if tie else "NO TIE"))  # fmt: skip
    print(f"{name}: {len(PROMPTS) - len(parts)} of {len(PROMPTS)} answers equal, {len(parts) - bad} part at ties, {bad} otherwise")
    return bad


def main():
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        print("SKIPPED: llama_cpp is not installed\n0 passed, 0 failed, 3 skipped")
        return 0
    if not os.environ.get("WHET_MODEL"):
        print("SKIPPED: no model: set WHET_MODEL\n0 passed, 0 failed, 3 skipped")
        return 0
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        f32, bf16, wide = (pathlib.Path(folder) / f"{name}.gguf" for name in ("f32", "bf16", "wide"))
        for model, dtype, path in ((os.environ["WHET_MODEL"], "f32", f32), (os.environ["WHET_MODEL"], "bf16", bf16), (bf16, "f32", wide)):
            whet("export", "--model", model, "--format", "gguf", "--dtype", dtype, "--output", path)
        answers = {prompt: answer_of_whet(f32, prompt) for prompt in PROMPTS}
        bad.append(judge("F32", compare("F32", f32, Peer(f32), answers)[0], TIE_F32))
        f32.unlink()

        answers = {prompt: answer_of_whet(bf16, prompt) for prompt in PROMPTS}
        exact = Peer(wide)
        bad.append(judge("BF16 widened", compare("BF16 widened", wide, exact, answers)[0], TIE_F32))
        peer = Peer(bf16)
        parts, _ = compare("BF16", bf16, peer, answers)
        clean = {prompt: exact.forced(prompt, answer) for prompt, answer in answers.items()}
        change = max(abs(a[t] - b[t]) for prompt, answer in answers.items()
                     for a, b, t in zip(clean[prompt], peer.forced(prompt, answer), answer))  # fmt: skip
        print(f"BF16: llama.cpp's rounding of activations changes log-probs of chosen tokens by up to {change:.4f}")
        bad.append(judge("BF16", parts, 2 * change, lambda prompt, at: clean[prompt][at].argmax() == answers[prompt][at]))
    print(f"{bad.count(0)} passed, {len(bad) - bad.count(0)} failed")
    return any(bad)


if __name__ == "__main__":
    sys.exit(main())
