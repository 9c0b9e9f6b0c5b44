"""Makes tokenizer-goldens.jsonl.gz: lines of mixed text, with the ids that Hugging Face's tokenizers gives for them by
each of the tokenizers beside this script. One JSON object a line: {"text", "smollm", "llama3", "qwen2"}; the first
holds the list of tokenizer.json files. Deterministic.

    python tests/goldens/make_tokenizer_goldens.py                       writes the goldens
    python tests/goldens/make_tokenizer_goldens.py --lines FILE          writes only the texts, as JSON strings
"""

import gzip
import io
import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).parent
TOKENIZERS = {
    "smollm": "tiny-llama/tokenizer.json",
    "llama3": "tokenizer-llama3.json",
    "qwen2": "tokenizer-qwen2.json",
}
CODE = [
    "for (int i = 0; i < n; i++) {\n\tsum += a[i] * b[i];\n}", "def f(x):\n    return x ** 2  # squared\n",
    "SELECT count(*) FROM t WHERE x >= 10;", "#include <stdio.h>\r\nint main(void) { return 0; }\r\n",
    "if (a&&b||!c) { x ^= ~y >> 3; }", "print(f\"{value:.3f}\\n\")", "<div class=\"x\">&nbsp;</div>", "std::vector<int> v{1,2};",
    "const auto&& [k, v] = *it++;", "\\frac{a_{1}}{b^{2}} \\leq \\sqrt{3}", "$x^2 + y^2 = z^2$", "a->b.c[d](e)",
]
WORDS = (
    "the answer number seven therefore because return int float print self import 你好 世界 数学 问题 答案 等于 résumé naïve "
    "größer straße élève привет мир число ответ 答え 数字 안녕하세요 세계 مرحبا العالم שלום नमस्ते ไทย don't we'll I'm they'RE "
    "it'S o'clock 'tis x'll'd ''s l’été can’t 'ſ ﬁne ǅ ª º Ⅷ ½ ² ٣ ൴ 𝟘 〇"
).split()
EMOJI = ["😀", "🚀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "❤️", "☃", "🇩🇪", "🧑🏿‍💻", "✨✨✨"]
MARKS = ["e\u0301", "n\u0303", "a\u0308\u0323", "a\u0323\u0308", "o\u0302\u0301", "\u1e9b\u0323", "가", "\u1100\u1161\u11a8", "ё",
         "\u0438\u0306", "Å", "\u212b", "\u0958", "q\u0307\u0323", "\u0301", " \u0301x", "re\u0301sume\u0301", "\ufb01"]
BLANKS = [" ", "  ", "   ", "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", "\u00a0", "\u2003", "\u3000", "\u2028", "\u0085",
          "\u180e", "\u200b", "\ufeff", "\x0b", "\x0c", "\x1c", "\x1f", " \t \n\t ", "\u202f", "\u1680", "\u2060"]
SPECIALS = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<think>", "</think>", "<|left|>",
    "<|right|>", "alone", "résumé", "re\u0301sume\u0301", "<|im", "<|im_", "<|im_start", "<", "<|", "|>", "<|im_start|><|im_end|>",
]
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¿¡«»„“”…—–•·。，、！？（）「」"


def piece(rng):
    kind = rng.randrange(16)
    if kind < 4:
        return rng.choice(WORDS)
    if kind == 4:
        return str(rng.randrange(10 ** rng.randrange(1, 13)))
    if kind == 5:
        return rng.choice(CODE)
    if kind == 6:
        return "".join(rng.choice(EMOJI) for _ in range(rng.randrange(1, 4)))
    if kind == 7:
        return rng.choice(MARKS)
    if kind == 8:
        return chr(rng.randrange(1, 32)) if rng.random() < 0.7 else chr(rng.randrange(127, 160))
    if kind == 9:
        return rng.choice(BLANKS) * rng.choice([1, 1, 1, 2, 3, 7, 40])
    if kind == 10:
        return "".join(rng.choice(PUNCTUATION) for _ in range(rng.randrange(1, 6)))
    if kind == 11:
        return rng.choice(SPECIALS)
    if kind == 12:
        return "".join(rng.choice("abcdeABCDE'") for _ in range(rng.randrange(1, 12)))
    if kind == 13:  # letters, marks and symbols of every block that existed in Unicode 13
        return "".join(chr(rng.choice(ASSIGNED)) for _ in range(rng.randrange(1, 6)))
    if kind == 14:
        return "".join(chr(rng.randrange(0x4E00, 0x9FA0)) for _ in range(rng.randrange(1, 8)))
    return rng.choice("aeiou \t\n0") * rng.choice([1, 2, 5, 17, 60, 130])


def assigned():
    """Code points with a category in Python's own old table (Unicode 3.2), which no later version has changed much."""
    import unicodedata

    table = unicodedata.ucd_3_2_0
    return [c for c in range(0xA0, 0x30000) if table.category(chr(c)) not in ("Cn", "Cs", "Co")
            and table.category(chr(c)) == unicodedata.category(chr(c))]


ASSIGNED = assigned()


def lines(n, seed):
    rng = random.Random(seed)
    yield ""
    for text in WORDS + EMOJI + MARKS + BLANKS + SPECIALS + CODE:
        yield text
    yield "".join(chr(c) for c in range(0x100))
    yield "".join(rng.choice("theanswrounumb") for _ in range(3000)) + " " + "théañß你好" * 200
    yield " " * 300 + "x" + "\n" * 70 + "\t" * 33 + "end  "
    for _ in range(n):
        glue = rng.choice(["", "", " ", " ", "  ", "\n"])
        yield glue.join(piece(rng) for _ in range(rng.randrange(1, 9)))


def main():
    texts = list(lines(2200, 7))
    if len(sys.argv) == 3 and sys.argv[1] == "--lines":
        pathlib.Path(sys.argv[2]).write_text("".join(json.dumps(t) + "\n" for t in texts))
        return
    from tokenizers import Tokenizer

    toks = {name: Tokenizer.from_file(str(HERE / path)) for name, path in TOKENIZERS.items()}
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, compresslevel=9) as out:
        out.write((json.dumps(TOKENIZERS) + "\n").encode())
        for text in texts:
            row = {"text": text}
            for name, tok in toks.items():
                ids = tok.encode(text, add_special_tokens=False).ids
                row[name] = ids
                back = tok.decode(ids, skip_special_tokens=False)
                # tokenizers takes the é of an added token for a byte of the alphabet; whet gives the token's text
                row[name + "_back"] = back.replace("r\ufffdsum\ufffd", "résumé")
                if row[name + "_back"] == text:
                    del row[name + "_back"]
            out.write((json.dumps(row, separators=(",", ":")) + "\n").encode())
    (HERE / "tokenizer-goldens.jsonl.gz").write_bytes(raw.getvalue())
    print(len(texts), "lines,", len(raw.getvalue()), "bytes")


if __name__ == "__main__":
    main()
