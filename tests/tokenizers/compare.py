#!/usr/bin/env python3
"""Compares tokens with those of Python's sentencepiece and transformers, text by text. See README.md."""

import argparse
import csv
import importlib.metadata
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# SentencePiece itself does not look for these in text; transformers does.
SPECIAL = ["<unk>", "<s>", "</s>"]
CHATGLM = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]


def strings(value):
    """All strings in a JSON document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)


def texts_of(path):
    """Fields of a table, strings of JSON, lines of a text; and of a text also the whole of it."""
    if path.suffix in (".csv", ".tsv"):
        with open(path, encoding="utf-8", newline="") as file:
            quoting = csv.QUOTE_NONE if path.suffix == ".tsv" else csv.QUOTE_MINIMAL
            for row in csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", quoting=quoting):
                yield from row
        return
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        yield from strings(json.loads(text))
    elif path.suffix == ".jsonl":
        for line in text.split("\n"):
            if line:
                yield from strings(json.loads(line))
    else:
        yield from text.splitlines(keepends=True)
        yield text


def random_texts(count):
    """Texts of what is hard: runs, spaces of all kinds, combining and composed characters, many scripts."""
    dice = random.Random(0)
    alphabet = ["a", "e", "th", "ing", " the", "A", "0", "12", " ", "  ", "\n", "\t", "\r\n", "=", "--", "…", "'s", "\u2581"]
    alphabet += ["é", "e\u0301", "ﬁ", "①", "ｱﾞ", "Å", "\u00a0", "\u3000", "\u200b", "\ufeff", "한국", "\u1112\u1161", "中文", "漢"]
    alphabet += ["ابت", "שלום", "हिन्दी", "ไทย", "Ω", "😀", "👩‍👩‍👧", "𝔸", "\x00", "\x7f", "\ufffd", "<0x41>", "_"]
    for _ in range(count):
        chosen = dice.sample(alphabet, dice.randint(1, 12))
        yield "".join(dice.choice(chosen) * dice.choice([1, 1, 1, 2, 3, 7]) for _ in range(dice.randint(1, 40)))


def ours(binary, directory, texts, *options):
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    run = subprocess.run([binary, directory, *options], input=lines, stdout=subprocess.PIPE, text=True, check=True)
    answers = [line.split("\t") for line in run.stdout.split("\n") if line]
    return [json.loads(ids) for ids, _ in answers], [json.loads(text) for _, text in answers]


def config(directory, name):
    path = directory / name
    return json.loads(path.read_text()) if path.exists() else {}


def references(directory, saved):
    """Ways to encode a text in Python: a name, a function, and the tokens in text that it does not look for."""
    version = importlib.metadata.version("transformers")
    old = version.split(".")[0] < "5"
    settings = config(directory, "tokenizer_config.json")
    if (directory / "tokenizer.model").exists():
        import sentencepiece

        model = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
        chatglm = settings.get("tokenizer_class") == "ChatGLMTokenizer"
        if chatglm:
            size = model.get_piece_size()
            before = [size + CHATGLM.index("[gMASK]"), size + CHATGLM.index("sop")]
        else:
            before = [model.bos_id()] if model.bos_id() >= 0 and settings.get("add_bos_token", True) else []
        name = f"sentencepiece {sentencepiece.__version__}"
        yield name, lambda text: before + model.encode(text), [] if chatglm else SPECIAL
        if chatglm and old and (directory / "tokenization_chatglm.py").exists():
            from transformers import AutoTokenizer

            slow = AutoTokenizer.from_pretrained(directory, trust_remote_code=True)

            def encode(text):
                # Not `encode`: it pads, in a way that their code of then does not know.
                return slow.build_inputs_with_special_tokens(slow.convert_tokens_to_ids(slow.tokenize(text)))

            yield f"tokenization_chatglm.py, transformers {version}", encode, []
        elif old and not chatglm:
            from transformers import LlamaTokenizer

            slow = LlamaTokenizer(str(directory / "tokenizer.model"), legacy=True)
            yield f"LlamaTokenizer(legacy), transformers {version}", slow.encode, []
    else:
        from transformers import GPT2Tokenizer

        special = {} if settings else dict(bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>", add_bos_token=True)
        reader = GPT2Tokenizer.from_pretrained(directory, **special)
        yield f"GPT2Tokenizer, transformers {version}", reader.encode, []
    if not old and (saved / "tokenizer.json").exists():
        from transformers import AutoTokenizer

        fast = AutoTokenizer.from_pretrained(saved)
        yield f"AutoTokenizer of what we save, transformers {version}", fast.encode, []


def compare(binary, directory, texts, show):
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        found, decoded = ours(binary, str(directory), texts, "--save", folder)
        round_trips = sum(text == again for text, again in zip(texts, decoded))
        print(f"{directory}: {len(texts)} texts, {sum(map(len, found))} tokens; {round_trips} decode to themselves")
        for name, encode, unsought in references(directory, Path(folder)):
            wrong = compared = 0
            for text, ids in zip(texts, found):
                if any(token in text for token in unsought):
                    continue
                compared += 1
                expected = list(encode(text))
                if expected != ids:
                    wrong += 1
                    if wrong <= show:
                        at = next((i for i, (a, b) in enumerate(zip(expected, ids)) if a != b), min(len(expected), len(ids)))
                        print(f"    {text[:80]!r}: token {at}: expected {expected[at:at + 6]}, got {ids[at:at + 6]}")
            print(f"  {name}: {compared} texts compared, {wrong} differ")
            failed |= wrong > 0
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", action="append", type=Path, required=True, help="directory; may be repeated")
    parser.add_argument("--random", type=int, default=0, help="also this many random texts")
    parser.add_argument("--show", type=int, default=3, help="differences to print of each comparison")
    parser.add_argument("--binary", type=Path, help="the example `tokenize`, built")
    parser.add_argument("texts", nargs="*", type=Path, help="files of text: .json, .jsonl, .csv, .tsv, others by line")
    arguments = parser.parse_args()
    binary = arguments.binary
    if binary is None:
        build = ["cargo", "build", "--release", "-p", "llmcb-model-files", "--example", "tokenize"]
        subprocess.run(build, cwd=ROOT, check=True)
        binary = ROOT / "target/release/examples/tokenize"
    csv.field_size_limit(sys.maxsize)
    texts = list(dict.fromkeys(text for path in arguments.texts for text in texts_of(path)))
    texts += random_texts(arguments.random)
    failed = [compare(str(binary), directory, texts, arguments.show) for directory in arguments.tokenizer]
    sys.exit(1 if any(failed) else 0)


if __name__ == "__main__":
    main()
