"""Compares whet's adapters with PEFT. long_lora.sh runs it.

    python tests/long_lora.py CHECKPOINT LOGPROBS MERGED TEXT

CHECKPOINT is a folder of adapters that whet saved; PEFT finds the base model by the path that stands in it. LOGPROBS is
what `whet logprob` printed of TEXT for it (float32: tokens and log-probs), MERGED the folder that `whet export` wrote of
it in f32. PEFT must give the same log-probs; the merged weights must be PEFT's own merge, and give these log-probs too.
"""

import json
import pathlib
import sys

import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer


def logprobs(model, tokens):
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double()
    return torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0], logits


def gap(a, b):
    """The largest difference, as a share of the value where that is above 1."""
    return ((a - b).abs() / b.abs().clamp(min=1)).max().item()


def main():
    checkpoint, printed, merged_folder, text = sys.argv[1:]
    printed = json.loads(pathlib.Path(printed).read_text())
    tokens, whet = printed["tokens"], torch.tensor(printed["logprobs"][1:], dtype=torch.float64)
    tok = AutoTokenizer.from_pretrained(checkpoint)
    assert tok(pathlib.Path(text).read_text(), add_special_tokens=False)["input_ids"] == tokens
    model = AutoPeftModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    trained = sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    applied, logits = logprobs(model, tokens)
    with model.disable_adapter():
        base, _ = logprobs(model, tokens)
    exported = AutoModelForCausalLM.from_pretrained(merged_folder, dtype=torch.float32)
    merged, merged_logits = logprobs(exported, tokens)
    state = exported.state_dict()
    own = model.merge_and_unload()
    own_merged, own_logits = logprobs(own, tokens)
    weights = max(((state[n] - w).abs() / w.abs().max()).max().item() for n, w in own.state_dict().items())
    exact, _ = logprobs(AutoPeftModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).double().eval(), tokens)
    exported64, _ = logprobs(exported.double(), tokens)
    moved = (applied - base).abs().max().item()
    size = logits.abs().max().item()
    print(f"{trained} numbers in adapters, {len(tokens)} tokens; with and without adapters: {moved:.3g}")
    print(f"log-probs: whet and PEFT {gap(whet, applied):.2g}; whet's adapters and its export {gap(whet, merged):.2g}")
    print(f"logits, as a share of the largest ({size:.1f}): PEFT's adapters and whet's export "
          f"{(logits - merged_logits).abs().max().item() / size:.2g}, and PEFT's own merge "
          f"{(logits - own_logits).abs().max().item() / size:.2g}")
    print(f"weights of whet's export and of PEFT's merge: {weights:.2g}")
    print(f"log-probs against the adapters in float64: the export in float64 {gap(exported64, exact):.2g}; in float32 whet's "
          f"adapters {gap(whet, exact):.2g}, PEFT's {gap(applied, exact):.2g}, the export {gap(merged, exact):.2g}")
    assert moved > 1e-2, "the adapters do nothing"
    assert gap(whet, applied) < 2e-4 and gap(whet, merged) < 2e-4
    assert (logits - merged_logits).abs().max().item() / size < 1e-5
    assert weights < 1e-6
    # Merging loses nothing but the last rounding of each weight; what float32 then adds is the forward pass's.
    assert gap(exported64, exact) < 1e-5


if __name__ == "__main__":
    main()
