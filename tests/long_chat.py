"""Runs real chat templates in whet and in transformers on the conversations of make_chat_goldens.py and compares: those
that TRL carries (Qwen, Llama, Gemma, Phi, DeepSeek, Cohere, GLM, LFM2, Nemotron, gpt-oss, ...), and the files given.
Templates that take parts of messages as lists (of images) show nothing of a text, and are refused.

    python tests/long_chat.py [FILE.jinja ...]      test_rl_chat must be built
"""

import contextlib
import gzip
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.update(TRANSFORMERS_VERBOSITY="error", SOURCE_DATE_EPOCH=str(int(time.time())), TZ="UTC")
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/goldens"))
import trl  # noqa: E402
from make_chat_goldens import CONVERSATIONS, render  # noqa: E402

TOKENS = {"llama3": ("<|begin_of_text|>", "<|eot_id|>"), "gemma": ("<bos>", "<eos>"), "qwen": ("<|endoftext|>", "<|im_end|>"),
          "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")}  # fmt: skip
OF_LISTS = ("idefics3", "llava_next", "smolvlm")


def main():
    rows = []
    for path in sys.argv[1:] or sorted(pathlib.Path(trl.__file__).parent.glob("chat_templates/*.jinja")):
        path = pathlib.Path(path)
        if path.stem.startswith(OF_LISTS):
            continue
        bos, eos = next((t for key, t in TOKENS.items() if key in path.stem.lower()), ("<s>", "</s>"))
        template = path.read_text()
        with contextlib.redirect_stdout(io.StringIO()):  # what a template refuses is null
            cases = [{"messages": m, "text": render(template, bos, eos, m)} for m in CONVERSATIONS]
        rows.append({"name": path.stem, "template": template, "bos": bos, "eos": eos, "cases": cases})
    with tempfile.NamedTemporaryFile(suffix=".json.gz") as file:
        file.write(gzip.compress(json.dumps(rows, ensure_ascii=False).encode()))
        file.flush()
        run = subprocess.run([ROOT / "build/plain/tests/test_rl_chat"], cwd=ROOT, capture_output=True, text=True,
                             env=dict(os.environ, WHET_CHAT=file.name))  # fmt: skip
    said = run.stdout + run.stderr
    refused = [line for line in said.splitlines() if ": refused: " in line]
    good = run.returncode == 0 and not refused and rows and f"{len(rows)} templates" in said
    print("\n".join(refused) if good is not True or refused else f"{len(rows)} templates, {len(rows) * len(CONVERSATIONS)} conversations")
    if run.returncode:
        print(said[-4000:])
    print("1 passed, 0 failed" if good else "0 passed, 1 failed")
    return not good


if __name__ == "__main__":
    sys.exit(main())
