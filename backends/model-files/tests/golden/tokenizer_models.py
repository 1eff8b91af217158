#!/usr/bin/env python3
"""Writes golden/tokenizer_models: small tokenizers, and the tokens that Python's sentencepiece and transformers make of texts.

Run with an environment that has sentencepiece, transformers and tokenizers.
"""

import json
import tempfile
from pathlib import Path

import sentencepiece
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Tokenizer

OUT = Path(__file__).with_name("tokenizer_models")
SUBJECTS = ["the river", "a quiet miller", "every lantern", "our neighbour", "the old ferry", "a geographer", "the others"]
VERBS = ["carries", "remembers", "measures", "follows", "is compressing", "had weighed", "will not forget"]
OBJECTS = ["the water", "12 barrels of flour", "a letter from 1987", "nothing at all", "the café's garden", "its own echo", "3.5 miles"]
CORPUS = [f"{s.capitalize()} {v} {o}." for s in SUBJECTS for v in VERBS for o in OBJECTS]
TEXTS = [
    "", " ", "   ", "a", " a", "a ", "The river carries 12 barrels of flour.", "the  old   ferry", "  two spaces\n\n and\ttabs ",
    "philosopher people sop eop [gMASK] <|user|>", "café cafe\u0301 ﬁne", "日本語 😀", "=====----", "a<sep>b", "<sep>", "<sep>a <sep> <sep><sep>",
    "x<s>y</s> z", "<unk>", "<0x41>", "\u2581a\u2581", "\u3000a\u3000\u3000b\u3000", "1987 1987", "aaaaaaaaaaaaaaaaaaaaaaa", "\r\n\x00\x7f", "It's his, they'll",
]
# Replaced, and replaced by: one character, several, a longer match of the same beginning, a space, nothing.
RULES = ["FB01\t66 69", "65 301\tE9", "65 301 301\t45", "3000\t20", "9\t20", "A\t20", "200B\t"]


def train(name, **options):
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        rules = Path(scratch) / "rules.tsv"
        rules.write_text("\n".join(RULES) + "\n")
        if options.pop("rules", False):
            options["normalization_rule_tsv"] = str(rules)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_prefix=str(Path(scratch) / "m"), num_threads=1, minloglevel=2, **options
        )
        (folder / "tokenizer.model").write_bytes((Path(scratch) / "m.model").read_bytes())
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def write(name, file, value):
    (OUT / name).mkdir(parents=True, exist_ok=True)
    (OUT / name / file).write_text(json.dumps(value, ensure_ascii=True, indent=1) + "\n")


def main():
    plain = dict(normalization_rule_name="identity", remove_extra_whitespaces=False)
    expected = {}

    def ask(name, encode, unsought=()):
        expected[name] = [[text, list(encode(text))] for text in TEXTS if not any(token in text for token in unsought)]

    # transformers finds these in text, SentencePiece does not.
    special = ["<s>", "</s>", "<unk>"]
    llama = train("llama", model_type="bpe", vocab_size=400, byte_fallback=True, **plain)
    ask("llama", lambda text: [1] + llama.encode(text), special)
    chatglm = train("chatglm", model_type="bpe", vocab_size=400, byte_fallback=True, **plain)
    write("chatglm", "tokenizer_config.json", {"tokenizer_class": "ChatGLMTokenizer", "remove_space": False})
    first = chatglm.get_piece_size()
    ask("chatglm", lambda text: [first + 1, first + 3] + chatglm.encode(text))
    merging = train("bpe-rules", model_type="bpe", vocab_size=120, rules=True, user_defined_symbols=["<sep>", "<sep>a"])
    ask("bpe-rules", lambda text: [1] + merging.encode(text), special)
    unigram = train("unigram", model_type="unigram", vocab_size=75, rules=True, user_defined_symbols=["<sep>"])
    ask("unigram", lambda text: [1] + unigram.encode(text), special)
    unigram = train("unigram-bytes", model_type="unigram", vocab_size=330, byte_fallback=True, add_dummy_prefix=False, **plain)
    write("unigram-bytes", "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "add_eos_token": True})
    ask("unigram-bytes", lambda text: unigram.encode(text) + [2], special)

    opt = ByteLevelBPETokenizer()
    opt.train_from_iterator(CORPUS, vocab_size=340, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False)
    (OUT / "opt").mkdir(parents=True, exist_ok=True)
    opt.save_model(str(OUT / "opt"))
    names = dict(bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>")
    reader = GPT2Tokenizer.from_pretrained(OUT / "opt", add_bos_token=True, **names)
    ask("opt", reader.encode)
    (OUT / "expected.json").write_text(json.dumps(expected, ensure_ascii=True, separators=(",", ":")).replace("]],", "]],\n") + "\n")


if __name__ == "__main__":
    main()
