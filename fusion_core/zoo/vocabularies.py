"""Four kinds of tokenizer, trained on the toy corpus; each spells any text without loss."""

import json
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]
END = "<|endoftext|>"
MARKED_WORDS = r"▁+(?=▁)|▁?\p{L}+|▁?[^▁\n\p{N}\p{L}]+|\n+|\p{N}|▁"
SINGLE_DIGITS = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
RARE_LETTER = 200  # letters seen less often are left to the byte pieces
BYTE_PIECE_SCORE = -200.0  # so low that written text such as `<0x0A>` is never read as a byte


def sentencepiece_bpe(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Trains a vocabulary like Llama-2's: BPE with byte fallback, `▁` for spaces, a dummy prefix.

    Args:
        texts: what to learn the merges from.
        size: number of tokens, byte pieces included.

    Returns:
        A tokenizer which puts `<s>` before a text.
    """
    specials = ["<unk>", "<s>", "</s>"]
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.normalizer = spaces
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(MARKED_WORDS), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials + BYTE_PIECES,
        limit_alphabet=90,  # the rarest letters (東, ø) are left to the byte pieces
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    model = models.BPE(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = spaces
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(specials)
    return _wrapped(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def sentencepiece_unigram(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Trains a unigram vocabulary with byte fallback, cut at `▁`, with a dummy prefix.

    Args:
        texts: what to fit the pieces to.
        size: number of tokens, byte pieces included.

    Returns:
        A tokenizer without a start token; `</s>` ends a text.
    """
    specials = ["<unk>", "</s>"]
    prefix = normalizers.Prepend("▁")
    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n+|[^\w\s▁]|\d"), "isolated"),
            pre_tokenizers.Metaspace("▁", prepend_scheme="never"),
        ]
    )
    words = Counter(
        word for text in texts for word, _ in cut.pre_tokenize_str(prefix.normalize_str(text))
    )
    pieces = _unigram_pieces(words, size - len(BYTE_PIECES) - len(specials))
    vocabulary = [
        *((special, 0.0) for special in specials),
        *((piece, BYTE_PIECE_SCORE) for piece in BYTE_PIECES),
        *pieces,
    ]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = prefix, cut
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace("▁", prepend_scheme="always")]
    )
    tokenizer.add_special_tokens(specials)
    return _wrapped(tokenizer, eos_token="</s>", unk_token="<unk>")


def _unigram_pieces(words: Counter[str], size: int) -> list[tuple[str, float]]:
    """Fits a unigram model to word counts by hard expectation-maximisation.

    The candidates are the pieces of a larger BPE vocabulary, the rarest of which are dropped in
    each round. (The library's own trainer gives another vocabulary each time it runs.)

    Args:
        words: how often each word occurs, its `▁` included.
        size: number of pieces.

    Returns:
        Pieces with their log-probabilities, the most probable first.
    """
    learner = Tokenizer(models.BPE())
    alphabet = sorted({*"".join(words), *string.ascii_letters, *string.digits, *string.punctuation})
    trainer = trainers.BpeTrainer(
        vocab_size=2 * size, initial_alphabet=alphabet, limit_alphabet=10**6, show_progress=False
    )
    ordered = sorted(words)
    repeated = (word for word in ordered for _ in range(words[word]))
    learner.train_from_iterator(repeated, trainer)
    common = Counter(letter for word in ordered for letter in word * words[word])
    rare = {x for x in alphabet if not x.isascii() and common[x] < RARE_LETTER}
    kept = [piece for piece in learner.get_vocab() if piece not in rare]
    model: models.Model = learner.model
    for room in (*range(2 * size, size, -max(1, size // 6)), size, size):
        counts = Counter(dict.fromkeys(kept, 0))
        for word in ordered:
            for token in model.tokenize(word):
                if token.value in counts:
                    counts[token.value] += words[word]
        kept.sort(key=lambda piece: (len(piece) > 1, -counts[piece], piece))
        kept = kept[:room]
        total = sum(counts[piece] + 1 for piece in kept)
        scored = [(piece, math.log((counts[piece] + 0.5) / total)) for piece in kept]
        model = models.Unigram([("<unk>", 0.0), *scored], unk_id=0)
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))


def byte_level_digits(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Trains byte-level BPE that keeps every digit apart, for arithmetic.

    Args:
        texts: what to learn the merges from.
        size: number of tokens, the 256 bytes included.

    Returns:
        A tokenizer whose `<|endoftext|>` is start and end at once.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SINGLE_DIGITS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    _train_byte_level(tokenizer, texts, size)
    return _wrapped(tokenizer, bos_token=END, eos_token=END)


def byte_level_code(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Trains byte-level BPE with added tokens for runs of spaces, for code.

    Args:
        texts: what to learn the merges from.
        size: number of tokens, the 256 bytes and the runs included.

    Returns:
        A tokenizer whose `<|endoftext|>` is start and end at once.
    """
    runs = [" " * length for length in range(8, 1, -1)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces = (piece for text in texts for piece in re.split(" {2,}", text))
    _train_byte_level(tokenizer, pieces, size - len(runs))
    tokenizer.add_tokens([AddedToken(run, normalized=False, special=False) for run in runs])
    return _wrapped(tokenizer, bos_token=END, eos_token=END)


def _train_byte_level(tokenizer: Tokenizer, texts: Iterable[str], size: int) -> None:
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)


def _wrapped(tokenizer: Tokenizer, **specials: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        **specials,
    )


FAMILIES: dict[str, Callable[[Iterable[str], int], PreTrainedTokenizerFast]] = {
    "sentencepiece_bpe": sentencepiece_bpe,
    "sentencepiece_unigram": sentencepiece_unigram,
    "byte_level_digits": byte_level_digits,
    "byte_level_code": byte_level_code,
}
