"""Checks that Hugging Face loads a folder that whet has saved: the model whole, and the tokenizer to the ids of the
goldens. Needs a Python with torch and transformers.

    WHET_EXPORT=/tmp/export build/plain/tests/test_rollout_model
    python tests/check_export.py /tmp/export tests/goldens/smollm2-goldens.jsonl.gz smollm2
"""

import gzip
import json
import sys
import zlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    folder, goldens, key = sys.argv[1:4]
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    tok = AutoTokenizer.from_pretrained(folder)
    rows = [json.loads(line) for line in gzip.open(goldens, "rt", encoding="utf-8")]
    state = model.state_dict()
    for name, wanted in rows[0].items():
        if name in state:
            assert zlib.crc32(state[name].numpy().tobytes()) == wanted, name
    wrong = [r["text"] for r in rows[1:] if tok(r["text"], add_special_tokens=False)["input_ids"] != r[key]]
    back = [r["text"] for r in rows[1:] if tok.decode(r[key], skip_special_tokens=False) != r.get(key + "_back", r["text"])]
    chat = tok.apply_chat_template([{"role": "user", "content": "What is 7 + 8?"}], tokenize=False, add_generation_prompt=True)
    eos = model.generation_config.eos_token_id
    assert "What is 7 + 8?" in chat and tok.eos_token_id in (eos if isinstance(eos, list) else [eos])
    with torch.no_grad():
        logits = model(torch.tensor([tok("The answer is 15.")["input_ids"]])).logits
    assert torch.isfinite(logits).all()
    print(f"{len(rows) - 1} lines: {len(wrong)} with other ids, {len(back)} with other text; eos {tok.eos_token!r}")
    for text in (wrong + back)[:5]:
        print("   ", repr(text))
    sys.exit(1 if wrong or back else 0)


if __name__ == "__main__":
    main()
