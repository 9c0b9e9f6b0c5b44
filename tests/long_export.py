"""Checks that Hugging Face loads what whet has saved: each model whole and with the weights of the goldens, each
tokenizer to the ids of the goldens. long_export.sh runs it.

    python tests/long_export.py FOLDER      with FOLDER/smollm2, FOLDER/tiny-llama, ... as test_rollout_model saves them
"""

import gzip
import json
import pathlib
import sys
import zlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

GOLDENS = pathlib.Path(__file__).parent / "goldens"


def rows_of(name):
    return [json.loads(line) for line in gzip.open(GOLDENS / name, "rt", encoding="utf-8")]


def check(folder, sums, rows, key):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    state = model.state_dict()
    for name, wanted in sums.items():
        wanted = wanted if isinstance(wanted, int) else wanted[2]
        assert zlib.crc32(state[name].contiguous().numpy().tobytes()) == wanted, name
    tok = AutoTokenizer.from_pretrained(folder)
    wrong = [r["text"] for r in rows if tok(r["text"], add_special_tokens=False)["input_ids"] != r[key]]
    back = [r["text"] for r in rows if tok.decode(r[key], skip_special_tokens=False) != r.get(key + "_back", r["text"])]
    chat = tok.apply_chat_template([{"role": "user", "content": "What is 7 + 8?"}], tokenize=False, add_generation_prompt=True)
    eos = model.generation_config.eos_token_id
    assert "What is 7 + 8?" in chat and tok.eos_token_id in (eos if isinstance(eos, list) else [eos])
    with torch.no_grad():
        assert torch.isfinite(model(torch.tensor([tok("The answer is 15.")["input_ids"]])).logits).all()
    print(f"{folder.name}: {len(sums)} tensors, {len(rows)} lines: {len(wrong)} with other ids, {len(back)} with other text")
    for text in (wrong + back)[:5]:
        print("   ", repr(text))
    return not wrong and not back


def main():
    folder = pathlib.Path(sys.argv[1])
    tiny, real = rows_of("tokenizer-goldens.jsonl.gz"), rows_of("smollm2-goldens.jsonl.gz")
    sums = json.loads((GOLDENS / "files-goldens.json").read_text())
    ok = [check(folder / name, sums[name], tiny[1:], "smollm") for name in ("tiny.gguf", "tiny-llama", "tiny-untied", "tiny-biased")]
    if (folder / "smollm2").exists():
        ok.append(check(folder / "smollm2", real[0], real[1:], "smollm2"))
    else:
        print("SKIPPED: no model: set WHET_MODEL")
    print(f"{ok.count(True)} passed, {ok.count(False)} failed")
    sys.exit(0 if all(ok) else 1)


if __name__ == "__main__":
    main()
