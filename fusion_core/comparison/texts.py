"""Texts of a comparison: documents to train on, to choose by and to measure on, none in two."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from fusion_core import corpus
from fusion_core.errors import InputError
from fusion_core.io import documents
from fusion_core.io.files import write_whole

from .plan import DATA, ComparisonConfig

LONGEST = 2_000
"""Bytes above which documents are cut, so that there are several."""

FEWEST = 10
"""Documents of a kind of text below which nothing could be told."""

VALIDATION_SHARE = 0.4
"""Text to choose learning rates and checkpoints by, over the text that is held out."""


def write_texts(config: ComparisonConfig, folder: Path) -> None:
    """Write the documents of a comparison into its folder.

    Raises:
        InputError: a file cannot be read, or holds too few different documents.
    """
    kinds = _given(config) if config.data else _toy(config)
    learnt = [t for name in kinds for t in kinds[name][0]]
    for name, (own, validation, test) in kinds.items():
        write_jsonl(folder / f"train-{name}.jsonl", own)
        write_jsonl(folder / f"validation-{name}.jsonl", validation)
        write_jsonl(folder / f"test-{name}.jsonl", test)
    write_jsonl(folder / DATA, learnt)


def write_jsonl(path: Path, texts: Sequence[str]) -> None:
    """Write documents, one JSON object a line, all of them or none."""
    write_whole(path, documents.json_lines(texts))


Split = tuple[list[str], list[str], list[str]]
"""Documents to train on, to choose by, to measure on."""


def _toy(config: ComparisonConfig) -> dict[str, Split]:
    """Write text of the embedded domains, from splits that share no name."""
    held, each = config.test_bytes, config.train_bytes // len(corpus.DOMAINS)
    return {
        d: (
            corpus.text(d, "train", each, seed=1000),
            corpus.text(d, "validation", int(VALIDATION_SHARE * held), seed=5),
            corpus.text(d, "test", held, seed=7),
        )
        for d in corpus.DOMAINS
    }


def _given(config: ComparisonConfig) -> dict[str, Split]:
    """Split the documents of files; where there are few, a fifth of them is held out."""
    found: dict[str, Split] = {}
    for path in config.data:
        name = Path(path).stem
        if name in found:
            raise InputError(f"Two files of data are called {name}: give them different names.")
        texts = list(dict.fromkeys(documents.pieces(documents.load_documents(path), LONGEST)))
        if len(texts) < FEWEST:
            raise InputError(
                f"{path} has {len(texts)} different documents of up to {LONGEST:,} bytes, too few "
                f"to train and to measure on: give at least {FEWEST}."
            )
        random.Random(0).shuffle(texts)
        size = sum(len(t.encode()) for t in texts)
        test = _taken(texts, min(config.test_bytes, size // 5), 2)
        validation = _taken(texts, min(int(VALIDATION_SHARE * config.test_bytes), size // 10), 1)
        train = _taken(texts, config.train_bytes // len(config.data), 1)
        found[name] = train, validation, test
    return found


def _taken(texts: list[str], n_bytes: int, fewest: int) -> list[str]:
    """Take documents off the end of a list, about so many bytes."""
    taken: list[str] = []
    while texts and (len(taken) < fewest or n_bytes > 0):
        taken.append(texts.pop())
        n_bytes -= len(taken[-1].encode())
    return taken
