"""Makes random models of every family in many shapes with transformers and compares them with whet: log-probs and
gradients through tests/test_rl_families.c; and folders as transformers saves them, their exports to GGUF and back, and
whet logprob on each, also with llama.cpp where llama_cpp is installed.

    python tests/long_architectures.py [SEED]      whet and test_rl_families must be built; WHET names the program
"""

import gzip
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

os.environ.update(HF_HUB_DISABLE_PROGRESS_BARS="1", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")
import torch  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/goldens"))
from make_family_goldens import FAMILIES, ROPES, case_of, model_of, settings  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer  # noqa: E402

WHET = os.environ.get("WHET", str(ROOT / "whet"))
TINY = ROOT / "tests/goldens/tiny-llama"
TEXT = "What is 7 + 8? It is 15. Problem 3: what is 3 + 10? The answer is 13, of course; ask (again) for 21 * 2."


def goldens(folder, seed):
    """Many cases for the C test."""
    rng, cases = random.Random(seed), []
    for family in FAMILIES:
        for i in range(9):
            rope = rng.choice(["default"] + ROPES.get(family, [])) if i % 2 else "default"
            cases.append(case_of(f"{family}-{seed}-{i}-{rope}", family, rng.randrange(2**32), rope, old=rng.random() < 0.5))
    path = folder / "cases.json.gz"
    path.write_bytes(gzip.compress(json.dumps(cases).encode()))
    out = subprocess.run([ROOT / "build/plain/tests/test_rl_families"], cwd=ROOT, capture_output=True, text=True,
                         env=dict(os.environ, WHET_FAMILIES=str(path)))  # fmt: skip
    lines = [line for line in (out.stdout + out.stderr).splitlines() if "logp" in line or "ERROR" in line or "off by" in line]
    for line in lines if out.returncode else sorted(lines, key=lambda x: float(x.split("logp ")[1].split(",")[0]))[-3:]:
        print(line)
    assert out.returncode == 0
    return len(cases)


def whet(*args, stdin=""):
    run = subprocess.run([WHET, *map(str, args)], input=stdin, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def logprobs(model):
    row = json.loads(whet("logprob", "--model", model, "--dtype", "float32", stdin=TEXT))
    return row["tokens"], row["logprobs"][1:]


def apart(a, b):
    return max(abs(x - y) / max(1, abs(y)) for x, y in zip(a, b, strict=True))


def of_transformers(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = AutoTokenizer.from_pretrained(folder)(TEXT).input_ids
    with torch.no_grad():
        logp = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].float(), -1)
    return ids, logp.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist(), model.state_dict()


def of_llama_cpp(path, ids):
    import numpy as np
    from llama_cpp import Llama

    llm = Llama(str(path), n_ctx=128, n_batch=128, logits_all=True, verbose=False)
    llm.eval(ids)
    logits = torch.from_numpy(np.array(llm.scores[: len(ids) - 1], dtype=np.float32))
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


# What llama.cpp has no key for and does by itself: what of a random model can be said in a GGUF, and at all.
def plain(family, c):
    heads = c["num_attention_heads"]
    c.update(num_hidden_layers=6 if family.startswith("gemma") else 4, vocab_size=384)
    if family.startswith("gemma"):
        c.update(query_pre_attn_scalar=c["head_dim"], attention_bias=False)
    if family == "gemma2":
        c.update(attn_logit_softcapping=50.0, final_logit_softcapping=30.0, tie_word_embeddings=True)
    if family in ("qwen2", "qwen3"):
        c.update(use_sliding_window=False, sliding_window=None, attention_bias=False)
    if family == "smollm3":
        c.update(use_sliding_window=False, sliding_window=None, attention_bias=False, mlp_bias=False,
                 no_rope_layer_interval=4)  # fmt: skip
        c.pop("no_rope_layers", None)
    if family == "mistral":
        c["sliding_window"] = None
    if family == "phi3":  # llama.cpp's shortest context is 256, for which it takes the long factors
        c.update(sliding_window=None, original_max_position_embeddings=32)
    assert heads
    return c


def round_trip(family, rope, seed, folder):
    rng = random.Random(seed)
    model = model_of(AutoConfig.for_model(family, **plain(family, settings(family, rng, rope))))
    saved, again, gguf, back = folder / "saved", folder / "again", folder / "x.gguf", folder / "back"
    for path in (saved, again, back):
        shutil.rmtree(path, ignore_errors=True)
    model.save_pretrained(saved)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, saved)
    ids, want, state = of_transformers(saved)
    got_ids, got = logprobs(saved)
    assert ids == got_ids
    report = [f"saved {apart(got, want):.1e}"]
    assert apart(got, want) < 2e-4
    whet("export", "--model", saved, "--format", "hf", "--dtype", "f32", "--output", again)
    _, want_again, state_again = of_transformers(again)
    assert state.keys() == state_again.keys() and all(torch.equal(v, state_again[k]) for k, v in state.items())
    assert want_again == want
    whet("export", "--model", saved, "--format", "gguf", "--dtype", "f32", "--output", gguf)
    _, from_gguf = logprobs(gguf)
    report.append(f"gguf {apart(from_gguf, got):.1e}")
    assert apart(from_gguf, got) < 2e-4
    whet("export", "--model", gguf, "--format", "hf", "--dtype", "f32", "--output", back)
    _, want_back, state_back = of_transformers(back)
    worst = max(float((v - state_back[k]).abs().max()) for k, v in state.items())
    assert worst < 1e-6 if family.startswith("gemma") else worst == 0  # 1 + w and back
    assert apart(want_back, want) < 2e-4
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        report.append("llama.cpp skipped")
    else:
        report.append(f"llama.cpp {apart(of_llama_cpp(gguf, ids), got):.1e}")
        assert apart(of_llama_cpp(gguf, ids), got) < 5e-3  # it keeps K and V in half precision
    print(family, rope, ", ".join(report))


def tiny_saved(folder, family, **changes):
    shutil.rmtree(folder, ignore_errors=True)
    config = plain(family, settings(family, random.Random(1))) | changes
    model_of(AutoConfig.for_model(family, **config)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, folder)


def not_in_gguf(folder):
    """llama.cpp knows no window in a GGUF of Mistral: what is written says so, takes texts as long as the window, and
    gives them what the model gives. Of Gemma 2 it knows neither untied embeddings nor logits without a cap."""
    saved, gguf = folder / "saved", folder / "x.gguf"
    tiny_saved(saved, "mistral", sliding_window=16)
    said = whet("export", "--model", saved, "--format", "gguf", "--dtype", "f32", "--output", gguf)
    assert "up to 16 tokens, the model's sliding window" in said
    got, want = (json.loads(whet("logprob", "--model", m, "--dtype", "float32", stdin=TEXT[:20])) for m in (gguf, saved))
    assert len(want["tokens"]) > 8 and got == want
    long = subprocess.run([WHET, "logprob", "--model", gguf], input=TEXT, capture_output=True, text=True)
    assert long.returncode == 1 and "the model takes 16" in long.stderr
    for change in (dict(tie_word_embeddings=False), dict(final_logit_softcapping=None)):
        tiny_saved(saved, "gemma2", **change)
        run = subprocess.run([WHET, "export", "--model", saved, "--format", "gguf", "--output", gguf], capture_output=True, text=True)
        assert run.returncode == 1 and "llama.cpp knows" in run.stderr and "export to hf" in run.stderr


def main():
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(2)
    passed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        print(goldens(folder, seed), "random models")
        passed += 1
        for family in FAMILIES:
            for rope in ["default"] + [r for r in ROPES.get(family, []) if r != "dynamic"]:
                round_trip(family, rope, seed, folder)
                passed += 1
        not_in_gguf(folder)
        passed += 1
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main()
