"""Trains tiny tokenizers and writes what Python makes of some texts: `python make.py FILE...` beside it.

Needs sentencepiece, tokenizers and transformers. FILE... are texts to train on, of a few hundred kilobytes.
"""

import json
import pathlib
import sys

import sentencepiece
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Tokenizer

HERE = pathlib.Path(__file__).parent
TEXTS = [
    "", " ", "  ", "a", "The quick brown fox jumps over the lazy dog.", " leading and trailing ", "two  spaces   and\ttabs\n\nlines",
    "It's 2024: 3.14 % of 1,000,000!", "naïve café — “quoted”", "ﬁne ① ﾊﾝ", "e\u0301 combining", "\u00a0no\u3000break\u200b",
    "日本語 中文 한국어", "עברית العربية हिन्दी", "😀👩‍👩‍👧", "\u2581underscored\u2581", "<s> and </s> and <unk> <0x41>", "sop philosopher [gMASK] eop",
    "x" * 70, "= = Heading = =\n", "\x00\x07", "aAbB" * 9, "<tool>call</tool>",
]


def train(name, files, **options):
    sentencepiece.SentencePieceTrainer.train(
        input=",".join(files), model_prefix=str(HERE / name), minloglevel=2, num_threads=1, **options
    )
    (HERE / f"{name}.vocab").unlink()
    model = sentencepiece.SentencePieceProcessor(model_file=str(HERE / f"{name}.model"))
    return [dict(text=text, ids=model.encode(text)) for text in TEXTS]


def main(files):
    rules = HERE / "rules.tsv"
    # A few rules of normalisation, in place of the thousands of NFKC.
    pairs = [("ﬁ", "fi"), ("①", "1"), ("\u00a0", " "), ("\u3000", " "), ("“", '"'), ("”", '"'), ("\u200b", "")]
    hexed = lambda text: " ".join(f"{ord(c):X}" for c in text)
    rules.write_text("".join(f"{hexed(a)}\t{hexed(b)}\n" for a, b in pairs))
    expected = {
        # As LLaMA's.
        "bpe": train(
            "bpe", files, model_type="bpe", vocab_size=560, byte_fallback=True, character_coverage=0.9995,
            normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
        ),
        "unigram": train(
            "unigram", files, model_type="unigram", vocab_size=400, byte_fallback=False, character_coverage=0.999,
            normalization_rule_tsv=str(rules), user_defined_symbols=["<tool>"],
        ),
        "unigram-bytes": train(
            "unigram-bytes", files, model_type="unigram", vocab_size=500, byte_fallback=True, character_coverage=0.99,
            normalization_rule_name="identity", remove_extra_whitespaces=True,
        ),
    }
    rules.unlink()
    byte_level = ByteLevelBPETokenizer()
    byte_level.train(files, vocab_size=420, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False)
    byte_level.save_model(str(HERE))
    special = dict(bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>", add_bos_token=True)
    opt = GPT2Tokenizer.from_pretrained(HERE, **special)
    expected["opt"] = [dict(text=text, ids=opt.encode(text)) for text in TEXTS]
    (HERE / "expected.json").write_text(json.dumps(expected, ensure_ascii=True, indent=0) + "\n")


main(sys.argv[1:])
