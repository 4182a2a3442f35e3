"""Tiny tokenizers of many kinds: with spaces in their tokens and without, any mark of a word."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import tiny
from conftest import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from fusion_core import tokens
from fusion_core.tokens import TextTokenizer

SPECIAL = ["<s>", "</s>", "<unk>"]


def named(backend: Any, name: str) -> TextTokenizer:
    """Wrap a backend whose first tokens are `SPECIAL`."""
    return TextTokenizer(backend, name, start_id=0, eos_id=1)


def trained(
    model: Any, trainer: Any, pre_tokenizer: Any, normalizer: Any = None, decoder: Any = None
) -> Tokenizer:
    """Train a tokenizer on the small corpus."""
    backend = Tokenizer(model)
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizer
    backend.train_from_iterator(tiny.CORPUS * 4, trainer)
    if decoder is not None:
        backend.decoder = decoder
    return backend


def bpe(pre_tokenizer: Any, size: int = 200, **how: Any) -> Tokenizer:
    """Train a BPE; ``normalizer`` and ``decoder`` are parts, all else is the trainer's."""
    parts = {k: how.pop(k) for k in ("normalizer", "decoder") if k in how}
    model = models.BPE(unk_token="<unk>", **{k: v for k, v in how.items() if "fix" in k})
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, **how)
    return trained(model, trainer, pre_tokenizer, **parts)


def openai_gpt() -> Tokenizer:
    """Words end in ``</w>``, all of them lower-cased, as the first GPT reads."""
    return bpe(
        pre_tokenizers.BertPreTokenizer(),
        normalizer=normalizers.BertNormalizer(lowercase=True),
        decoder=decoders.BPEDecoder("</w>"),
        end_of_word_suffix="</w>",
    )


def clip() -> Tokenizer:
    """Words end in ``</w>`` and are written in the byte alphabet, as CLIP reads."""
    words = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), "removed", invert=True)
    return bpe(
        pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        size=600,
        decoder=decoders.ByteLevel(),
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )


def wordpiece() -> Tokenizer:
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL)
    model = models.WordPiece(unk_token="<unk>")
    return trained(model, trainer, pre_tokenizers.BertPreTokenizer(), None, decoders.WordPiece())


def word_level() -> Tokenizer:
    trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL)
    return trained(models.WordLevel(unk_token="<unk>"), trainer, pre_tokenizers.Whitespace())


def continued_bpe() -> Tokenizer:
    return bpe(pre_tokenizers.WhitespaceSplit(), continuing_subword_prefix="##")


def ctrl(folder: Path) -> TextTokenizer:
    """CTRL's: a tokenizer without a Rust form, in which a word that goes on says so by ``@@``."""
    from transformers import CTRLTokenizer

    merges = ["t h", "th e</w>", "c a", "ca t</w>", "s a"]
    letters = "abcdefghijklmnopqrstuvwxyz,:"
    entries = [*SPECIAL, *letters, *(f"{c}@@" for c in letters), "the", "cat", "ca@@", "sa@@"]
    folder.mkdir(exist_ok=True)
    vocabulary = json.dumps({e: i for i, e in enumerate(entries)})
    (folder / "mapping.json").write_text(vocabulary)
    (folder / "merges.txt").write_text("\n".join(["#version", *merges, ""]))
    tokenizer = CTRLTokenizer(str(folder / "mapping.json"), str(folder / "merges.txt"))
    return replace_start(tokens.from_transformers(tokenizer, "ctrl"))


def replace_start(tokenizer: TextTokenizer) -> TextTokenizer:
    return TextTokenizer(tokenizer._backend, tokenizer.name, start_id=0, eos_id=1)


WITHOUT_SPACES: dict[str, Callable[[], Tokenizer]] = {
    "openai-gpt": openai_gpt,
    "clip": clip,
    "wordpiece": wordpiece,
    "wordlevel": word_level,
    "continued bpe": continued_bpe,
    # Trained without its suffix, it keeps none, and joins words: huggingface/tokenizers#1793
    "words of letters": lambda: bpe(pre_tokenizers.Whitespace()),
    "a mark in parts": lambda: bpe(
        pre_tokenizers.Split("<", "isolated"), normalizer=normalizers.Replace(" ", "<sp>")
    ),
}


@cache
def without_spaces(name: str) -> TextTokenizer:
    return named(WITHOUT_SPACES[name](), name)


def metaspace(style: Any, mark: str, scheme: str) -> Tokenizer:
    """Train a BPE or Unigram with a Metaspace of any mark."""
    part = pre_tokenizers.Metaspace(replacement=mark, prepend_scheme=scheme)
    decoder = decoders.Metaspace(replacement=mark, prepend_scheme=scheme)
    if style == "bpe":
        return bpe(part, decoder=decoder)
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", initial_alphabet=[mark]
    )
    return trained(models.Unigram(), trainer, part, decoder=decoder)


def characters() -> Tokenizer:
    """Letters alone; a space is unknown, and shown as such."""
    entries = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz"]
    backend = Tokenizer(models.BPE({e: i for i, e in enumerate(entries)}, [], unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    return backend


WITH_SPACES: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": lambda: bpe(pre_tokenizers.ByteLevel(), decoder=decoders.ByteLevel()),
    "lower-cased bytes": lambda: bpe(
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        normalizer=normalizers.Lowercase(),
        decoder=decoders.ByteLevel(),
    ),
    "sentencepiece": lambda: sentencepiece(list("▁thecatso")),
    "unigram": lambda: metaspace("unigram", "▁", "always"),
    "never prefixed": lambda: metaspace("bpe", "▁", "never"),
    "collapsed spaces": lambda: bpe(
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        normalizer=normalizers.Replace(Regex(" {2,}"), " "),
    ),
    "unknown spaces": characters,
    "a continued word and a space": lambda: bpe(
        pre_tokenizers.Metaspace(prepend_scheme="never"), continuing_subword_prefix="##"
    ),
}
