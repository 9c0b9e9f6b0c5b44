"""Makes the tiny random models that the tests load: tiny-llama/, tiny-untied/, tiny-biased/ and the tokenizers
tokenizer-llama3.json, tokenizer-qwen2.json. Deterministic: the same versions of torch and tokenizers give the same
files. Run with a Python that has torch, transformers, tokenizers and safetensors:

    python tests/goldens/make_tiny_models.py
"""

import json
import pathlib
import random
import shutil

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = """the of and to in is that it for was on are as with his they at be this from have or by one had not but what
all were when we there can an your which their said if do will each about how up out them then she many some so these
would other into has more her two like him see time could no make than first been its who now people my made over did
down only way find use may water long little very after words called just where most know seven times plus answer
number problem solution therefore because return def int float void char print self import for while if else
你好 世界 数学 问题 答案 等于 número résumé naïve größer straße élève привет мир число ответ 答え 数字 안녕 세계 😀 🚀 é ñ""".split()


def corpus(seed, lines=4000):
    """Text with the shapes that matter to a byte-level BPE: words, code, digits, blanks, several scripts."""
    rng = random.Random(seed)
    for _ in range(lines):
        words = []
        for _ in range(rng.randint(2, 14)):
            kind = rng.random()
            if kind < 0.75:
                words.append(rng.choice(WORDS))
            elif kind < 0.9:
                words.append(str(rng.randint(0, 9999)))
            else:
                words.append(rng.choice(["(", ")", "==", "+=", "->", "\n", "\n\n", "    ", "\t", "don't", "we'll", "I'm"]))
        yield " ".join(words) + rng.choice([".", "?", "!", "\n", ""])


def train(pre_tokenizer, vocab, seed, specials, normalizer=None, ignore_merges=False):
    tok = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre_tokenizer
    tok.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tok.train_from_iterator(corpus(seed), trainer)
    return tok


def smollm_tokenizer():
    """SmolLM2's pipeline: single digits, then ByteLevel with its own GPT-2 pattern."""
    pre = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    return train(pre, 384, 1, SPECIALS)


def split(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
        ]
    )


def llama3_tokenizer():
    """Llama 3's pipeline: its pattern, whole words looked up before merging, one BOS before every text."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    tok = train(split(pattern), 480, 2, ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"], ignore_merges=True)
    bos = "<|begin_of_text|>"
    tok.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, 0)]),
        ]
    )
    return tok


def qwen2_tokenizer():
    """Qwen2's pipeline: NFC, its pattern, added tokens of every kind (special or not, stripping, whole words)."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    tok = train(split(pattern), 480, 3, SPECIALS, normalizer=normalizers.NFC())
    tok.add_tokens(
        [
            AddedToken("<think>", special=False, normalized=False),
            AddedToken("</think>", special=False, normalized=False),
            AddedToken("<|left|>", special=False, normalized=False, lstrip=True),
            AddedToken("<|right|>", special=False, normalized=False, rstrip=True),
            AddedToken("alone", special=False, normalized=False, single_word=True),
            AddedToken("résumé", special=False, normalized=True),
            AddedToken("<|im", special=False, normalized=False),
        ]
    )
    return tok


def random_weights(config, seed):
    """Weights large enough that attention and logits are far from uniform; norms around one."""
    gen = torch.Generator().manual_seed(seed)
    model = LlamaForCausalLM(config)
    for name, p in model.named_parameters():
        with torch.no_grad():
            if "norm" in name:
                p.copy_(1 + 0.2 * torch.randn(p.shape, generator=gen))
            elif p.dim() == 1:
                p.copy_(0.1 * torch.randn(p.shape, generator=gen))
            else:
                p.copy_(torch.randn(p.shape, generator=gen) * 1.5 / p.shape[1] ** 0.5)
    return model


def save_tokenizer(tok, folder, model_max_length=512):
    tok.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": model_max_length,
        "chat_template": CHAT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def fresh(name):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def base_config(vocab, **more):
    common = dict(vocab_size=vocab, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=2)
    return LlamaConfig(**{**common, **more})


def make_tiny_llama(tok):
    """Tied, grouped queries, float32, in the spelling of the transformers that runs this (5)."""
    config = base_config(
        tok.get_vocab_size(), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    folder = fresh("tiny-llama")
    random_weights(config, 11).save_pretrained(folder)
    save_tokenizer(tok, folder)


def make_tiny_untied(tok):
    """Untied, bfloat16, two shards with an index, config.json in the spelling of transformers 4."""
    vocab = tok.get_vocab_size()
    config = base_config(
        vocab, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    )
    folder = fresh("tiny-untied")
    state = {k: v.to(torch.bfloat16) for k, v in random_weights(config, 12).state_dict().items()}
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    place = {k: shards[0] if ".layers.1." not in k and "lm_head" not in k else shards[1] for k in sorted(state)}
    for shard in shards:
        save_file({k: state[k].contiguous() for k in place if place[k] == shard}, folder / shard, {"format": "pt"})
    index = {"metadata": {"total_size": sum(v.numel() * 2 for v in state.values())}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    spelling4 = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "hidden_act": "silu", "max_position_embeddings": 512, "rms_norm_eps": 1e-06, "rope_theta": 100000.0,
        "rope_scaling": None, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 2, "torch_dtype": "bfloat16",
        "transformers_version": "4.46.0", "use_cache": True, "attention_dropout": 0.0, "pretraining_tp": 1,
    }
    (folder / "config.json").write_text(json.dumps(spelling4, indent=2) + "\n")
    save_tokenizer(tok, folder, int(1e30))  # what transformers writes for "no limit"


def make_tiny_biased(tok):
    """Every bias, one kv head, head_dim apart from dim / heads, float16, Llama 3's rope scaling."""
    config = base_config(
        tok.get_vocab_size(), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, head_dim=16, rms_norm_eps=1e-5, tie_word_embeddings=True, attention_bias=True,
        mlp_bias=True,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        },
    )
    folder = fresh("tiny-biased")
    random_weights(config, 13).to(torch.float16).save_pretrained(folder)
    save_tokenizer(tok, folder)


def main():
    tok = smollm_tokenizer()
    make_tiny_llama(tok)
    make_tiny_untied(tok)
    make_tiny_biased(tok)
    llama3_tokenizer().save(str(HERE / "tokenizer-llama3.json"))
    qwen2_tokenizer().save(str(HERE / "tokenizer-qwen2.json"))


if __name__ == "__main__":
    main()
