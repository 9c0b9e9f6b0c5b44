"""A Hugging Face folder with random bf16 weights in the shape of a config.json, for the peers.

usage: model.py CONFIG.JSON TOKENIZER_FOLDER OUT_FOLDER (the tokenizer's files are copied: only shapes matter)
"""
import os, shutil, sys
import torch
from transformers import AutoConfig, AutoModelForCausalLM

config, tokenizer, out = sys.argv[1:4]
os.makedirs(out, exist_ok=True)
shutil.copy(config, os.path.join(out, "config.json"))
for name in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copy(os.path.join(tokenizer, name), out)
torch.manual_seed(1)
model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(out), dtype=torch.bfloat16)
model.save_pretrained(out)
