"""Small models of several families that read texts exactly, and their rows on a target's tokens."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from canonical_tokenizers import across_words, unsplit_unigram, wordpiece
from conftest import byte_level, tiny_model
from tiny_tokenizers import metaspace, named

import fusion_core as fl
from fusion_core import corpus, tokens
from fusion_core.config import FusionConfig
from fusion_core.models import LoadedModel
from fusion_core.records import ProjectedWindow
from fusion_core.tokens import TextTokenizer
from fusion_core.zoo.vocabularies import FAMILIES

WORDS = (
    *("the", "cat", " ", "  ", " the", "sat", "s", "t", "o", "h", "e", ".", "\n", "return", "name"),
    *(
        " Tom",
        " has",
        "a",
        "é",
        "東",
        "京",
        "  \n",
        "1",
        "23",
        "'s",
        "=",
        " ==",
        "def",
        "ing",
        "in",
    ),
)
"""Parts of texts for tokenizers that know all bytes."""

LETTERS = (
    "the",
    "cat",
    " ",
    " the",
    "sat",
    "s",
    "t",
    "o",
    "h",
    "e",
    "a",
    " a",
    "and",
    "two",
    " ran",
)
"""Parts of texts for those that know few."""

KINDS = {
    "sentencepiece_bpe": WORDS,
    "sentencepiece_unigram": WORDS,
    "byte_level_digits": WORDS,
    "byte_level_code": WORDS,
    "wordpiece": LETTERS,
    "metaspace": LETTERS,
    "across words": LETTERS,
}
"""Families of tokenizers, and parts of texts that they reproduce."""


@cache
def tokenizer(name: str) -> TextTokenizer:
    """Make a small tokenizer of a family; ``letters`` reads single bytes."""
    if name in FAMILIES:
        some = [t for domain in corpus.DOMAINS for t in corpus.text(domain, "train", 8000)]
        return tokens.from_transformers(FAMILIES[name]([*some, "naïve 東京"], 600), name)
    made = {
        "letters": lambda: TextTokenizer(byte_level(), "letters", start_id=256, eos_id=256),
        "wordpiece": wordpiece,
        "metaspace": lambda: named(metaspace("unigram", "▁", "always"), "metaspace"),
        "across words": across_words,
        "unsplit": unsplit_unigram,
    }
    return made[name]()


@cache
def model(name: str, seed: int = 0, *, exact: bool = True) -> LoadedModel:
    """Make a random model of a family, in float64 where rounding is not to be seen."""
    made = tiny_model(tokenizer(name), seed=seed)
    if exact:
        made.network.double()
    return made


def projected(
    text: str, target: LoadedModel, source: LoadedModel, strategy: str = "prefix", **how: Any
) -> tuple[torch.Tensor, ProjectedWindow]:
    """Read a text of one window, and project its source: whole rows, and the window."""
    reading = fl.read(text, target, [source], FusionConfig(**{"prune": 0.0} | how))
    (window,) = reading.project(strategy, chain_rule=how.get("chain_rule", False)).windows
    native = window.reading.rows[0].logprobs[:-1].exp()
    return window.rows[0].probs(native), window
