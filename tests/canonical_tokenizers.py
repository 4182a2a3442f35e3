"""Small tokenizers of all families that spell their spaces, and texts in which they look ahead."""

from __future__ import annotations

import math
from functools import cache

import tiny
from conftest import byte_level, chain, sentencepiece
from tiny_tokenizers import SPECIAL, WITH_SPACES, metaspace, named, trained
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from fusion_core import tokens
from fusion_core.tokens import TextTokenizer
from fusion_core.zoo.vocabularies import FAMILIES

TEXTS = (
    "Don't  stop: 1234567 times,\n\n   she's\tat 10.50 (x == y).  \u00a0 z",
    "  the cat sat on the mat,   the cats 東京都に行く。naïve cafés e\u0301 hahahahaha ======",
    "中文没有空格所以不能回到文本的开头否则每个字节都要重新编码整个文本这样就太慢了",
)


def wordpiece() -> TextTokenizer:
    """WordPiece that spells its spaces."""
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL)
    part = pre_tokenizers.Metaspace(prepend_scheme="never")
    model = models.WordPiece(unk_token="<unk>")
    return named(trained(model, trainer, part, None, decoders.WordPiece()), "wordpiece")


def unsplit_unigram() -> TextTokenizer:
    """Unigram with pieces across words, and runs that can be cut in many ways."""
    pieces = [
        *((special, 0.0) for special in ("<unk>", "<s>", "</s>")),
        *((c, -5.0) for c in "▁abcdehnost."),
        ("aaa", -5.0),
        ("aa", -5.5),
    ]
    pieces += [("▁the", -4.0), ("the▁cat", -6.0), ("▁c", -5.2), ("at▁s", -6.0), ("haha", -4.0)]
    backend = sentencepiece([])
    backend.model = models.Unigram(pieces, unk_id=0)
    return TextTokenizer(backend, "unsplit", start_id=None, eos_id=None)


def fractional_unigram() -> TextTokenizer:
    """Unigram whose scores are no round numbers: equal sums differ in their last digits."""
    scores = {"▁": 0.03, "a": 0.1, "aa": 0.07, "c": 0.013, "t": 0.017, "▁c": 0.011, "東": 0.0031}
    pieces = [
        *((special, 0.0) for special in SPECIAL),
        *((p, math.log(s)) for p, s in scores.items()),
    ]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Metaspace(prepend_scheme="never")
    return named(backend, "fractional")


def across_words() -> TextTokenizer:
    """Byte-pair encoding with merges across spaces."""
    merges = chain("the", "▁the", "of▁the", "▁cat", "at", "aa", "aaaa")
    letters = list("▁abcdefghijklmnopqrstuvwxyz.")
    return named(sentencepiece(letters + [a + b for a, b in merges], merges), "across")


@cache
def small(name: str) -> TextTokenizer:
    text = [*TEXTS, *tiny.CORPUS]
    makers = {
        "wordpiece": wordpiece,
        "unsplit": unsplit_unigram,
        "fractional": fractional_unigram,
        "across words": across_words,
        "bytes": lambda: named(byte_level(chain("Ġthe", "the", "æĿ±", "ĠĠĠ", "'l", "lla")), "b"),
        **{n: lambda n=n: named(metaspace("unigram", "▁", n), n) for n in ("always", "first")},
        **{n: lambda n=n: tokens.from_transformers(FAMILIES[n](text, 600), n) for n in FAMILIES},
    }
    return makers[name]() if name in makers else named(WITH_SPACES[name](), name)


PLAIN = (
    "wordpiece",
    "unsplit",
    "fractional",
    "across words",
    "bytes",
    "always",
    "first",
)
ALL_SMALL = (*PLAIN, *FAMILIES, *WITH_SPACES)
