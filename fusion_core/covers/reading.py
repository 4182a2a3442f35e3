"""Texts -> a model's next-token rows and its covers of chosen bytes, many texts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from fusion_core import models, numerics
from fusion_core.config import Truncation
from fusion_core.errors import InputError
from fusion_core.models import LoadedModel
from fusion_core.records import Covers, DenseRows, Encoding, NextTokenRows
from fusion_core.tokens import TextTokenizer

from .search import Nodes, answered, find_covers
from .tree import PrefixTree


def check_exact(tokenizer: TextTokenizer) -> None:
    """Refuse a tokenizer whose tokenisations of a text's beginnings cannot be known.

    Raises:
        InputError: they cannot.
    """
    if reason := tokenizer.canonical.fault:
        raise InputError(
            f"Rows of {tokenizer.name} that know only what has been read cannot be had ({reason}): "
            "choose rows boundary."
        )


@torch.inference_mode()
def read_with_covers(
    model: LoadedModel,
    encodings: Sequence[Encoding],
    positions: Sequence[np.ndarray],
    *,
    prune: float,
    temperature: float = 1.0,
    cut: Truncation | None = None,
) -> list[tuple[NextTokenRows, Covers]]:
    """Read texts that fit the model's context, and side paths of them as far as they weigh.

    Args:
        model: the model.
        encodings: the texts in the model's tokens.
        positions: for each text the bytes of which covers are wanted.
        prune: as for `PrefixTree`.
        temperature: as for `models.read_rows_batch`; covers are weighed at the same.
        cut: what to keep of each row after covers have been weighed; everything by default.

    Raises:
        InputError: the model's tokenisations of a text's beginnings cannot be known.
        TooLargeError: a text has more tokens than the model's context, or memory is short.
        ModelFormatError: the model cannot read the text, or gives no numbers.
    """
    check_exact(model.tokenizer)
    out: dict[int, tuple[NextTokenRows, Covers]] = {}
    ids = [e.ids[e.text_tokens] for e in encodings]
    for batch in models.batches([len(i) + 1 for i in ids], models.batch_tokens(model)):
        logits, branches = models.Branches.read(model, [ids[i] for i in batch])
        rows = models.rows_of(model, [encodings[i] for i in batch], logits, temperature)
        searches = [
            find_covers(
                PrefixTree(given, encodings[i], model.tokenizer, positions[i], prune, model.context)
            )
            for i, given in zip(batch, rows, strict=True)
        ]
        found = answered(searches, partial(_read_aside, branches, temperature))
        for i, given, covers in zip(batch, rows, found, strict=True):
            out[i] = _cut(given, covers, cut)
    return [out[i] for i in range(len(encodings))]


def _read_aside(
    branches: models.Branches, temperature: float, asked: list[Nodes]
) -> list[torch.Tensor]:
    """Read side paths, at the temperature of the rows that they branch off."""
    rows = branches.rows(asked)
    return [numerics.log_softmax(r / temperature) for r in rows] if temperature != 1 else rows


def _cut(
    rows: NextTokenRows, covers: Covers, cut: Truncation | None
) -> tuple[NextTokenRows, Covers]:
    """Let the text's rows be the first ones of the covers', cut if they shall be."""
    every = covers.rows
    if cut is not None:
        assert isinstance(every, DenseRows)
        every = models.truncated(every, cut, rows.observed[:-1].cpu().numpy())
    return replace(rows, rows=every.part(0, len(rows.rows))), replace(covers, rows=every)
