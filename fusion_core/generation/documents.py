"""Documents that models write: a corpus to fuse on that has no end."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fusion_core.errors import InputError, ModelFormatError
from fusion_core.models import LoadedModel
from fusion_core.records import Progress

from .batched import Continuation, continue_batch

AT_ONCE = 512
"""Documents that are written together, where the memory for their keys and values allows it."""

KEYS_BYTES = 3 << 29
"""Keys and values of documents that are written together, at the most; or as the weights take."""

FEWEST, SHORT_BYTES = 8, 200
"""Documents of the first batch at the least, doubled for each that follows: little may be text; and
for so many bytes that are wanted one more."""

LONGEST = 512
"""Most tokens of a written document, where the model's context allows as many."""

NO_START = "no token to begin or end a document with"

MIN_SHARE, TRIES = 0.02, 256
"""Share of tries that must give a document, and after how many that is judged."""


@dataclass(frozen=True)
class Written:
    """A document that a model has written, or continued.

    Attributes:
        text: not empty.
        whole: whether the model ended it; else it breaks off.
    """

    text: str
    whole: bool = True


Keep = Callable[[str, Callable[[], list[Written]]], list[Written]]
"""Name of a batch, and what writes it -> the batch, as it was written before or is now."""


def write_documents(
    writers: Sequence[LoadedModel],
    n_bytes: int,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    progress: Progress | None = None,
    keep: Keep = lambda _, write: write(),
) -> list[str]:
    """Let models write documents from nothing but their start token, in equal shares.

    Args:
        writers: models that end their documents.
        n_bytes: how much text is wanted in all; the last document of each may exceed its share.
        seed: equal seeds give equal documents on one machine.
        temperature: what the logits are divided by.
        progress: told how much has been written.
        keep: what remembers batches.

    Returns:
        The documents, those of all writers mixed.

    Raises:
        InputError: there is no writer.
        ModelFormatError: a model has no start token, or does not end what it writes.
    """
    if not writers:
        raise InputError("There is no source that could write: name at least one.")
    written: list[str] = []
    for done, model in enumerate(writers):
        room = math.ceil(n_bytes / len(writers))
        for text in _without_end(model, room, done, seed, temperature, keep):
            written.append(text)
            room -= len(text.encode())
            if room <= 0:
                break
            if progress:
                share = 1 - room * len(writers) / n_bytes
                progress(f"{model.name} writes", (done + min(max(share, 0), 1)) / len(writers))
    random.Random(seed).shuffle(written)
    return written


def _without_end(
    model: LoadedModel, n_bytes: int, number: int, seed: int, temperature: float, keep: Keep
) -> Iterator[str]:
    """Write documents without end, in batches for the bytes that are left of those wanted."""
    if model.tokenizer.start_id is None or not model.tokenizer.end_ids:
        raise ModelFormatError(f"{model.name} has {NO_START}: let other sources write.")
    tried = whole = batch = 0
    draws = random.Random(f"{seed}/{number}")
    while True:
        rows = min(max(FEWEST << min(batch, 9), n_bytes // SHORT_BYTES), rows_at_once(model))
        prompts, drawn = [np.zeros(0, np.int64)] * rows, draws.getrandbits(62)

        def write(prompts: list[np.ndarray] = prompts, drawn: int = drawn) -> list[Written]:
            return continue_documents(model, prompts, seed=drawn, temperature=temperature)

        texts = [w.text for w in keep(f"{number}-{batch}", write) if w.whole]
        yield from texts
        n_bytes -= sum(len(t.encode()) for t in texts)
        tried, whole, batch = tried + rows, whole + len(texts), batch + 1
        if tried >= TRIES and whole < MIN_SHARE * tried:
            raise ModelFormatError(
                f"{model.name} ended {whole} of {tried} documents within {LONGEST} tokens: let "
                "other sources write."
            )


def continue_documents(
    model: LoadedModel, prompts: Sequence[np.ndarray], *, seed: int, temperature: float = 1.0
) -> list[Written]:
    """Let a model continue the beginnings of documents.

    Args:
        model: that writes, as it is.
        prompts: the beginnings in its tokens, without a start token; none empty where it has none.
        seed: equal seeds give equal texts on one machine.
        temperature: what the logits are divided by.

    Returns:
        For each prompt what it has become, up to `LONGEST` tokens; none that is empty or no text.

    Raises:
        ModelFormatError: there is nothing to begin a document with.
    """
    if model.tokenizer.start_id is None and not all(map(len, prompts)):
        raise ModelFormatError(f"{model.name} has {NO_START}: let other sources write.")
    longest, at_once = longest_of(model), rows_at_once(model)
    draws = random.Random(seed)
    written = (
        _read(model, continuation)
        for first in range(0, len(prompts), at_once)
        for continuation in continue_batch(
            model,
            prompts[first : first + at_once],
            longest,
            seed=draws.getrandbits(62),
            temperature=temperature,
        )
    )
    return [w for w in written if w is not None]


def longest_of(model: LoadedModel) -> int:
    """Return the most tokens of a document that a model writes, its start token included."""
    return min(LONGEST, model.context or LONGEST)


def rows_at_once(model: LoadedModel) -> int:
    """Return how many documents a model writes together."""
    layers = getattr(model.network.config.get_text_config(), "num_hidden_layers", None) or 1
    embeddings = model.network.get_input_embeddings().weight
    each = 2 * layers * embeddings.shape[1] * embeddings.element_size() * longest_of(model)
    return int(np.clip(max(KEYS_BYTES, model.size_bytes) // each, 1, AT_ONCE))


def _read(model: LoadedModel, continuation: Continuation) -> Written | None:
    """Read a document, if it is text and not empty; up to a whole character where it breaks off."""
    ids = continuation.ids.tolist()
    for end in range(len(ids), len(ids) - (1 if continuation.ended else 4), -1):
        text = model.tokenizer.text_of(ids[: max(end, 0)])
        if text is not None:
            return Written(text.strip("\n"), continuation.ended) if text.strip() else None
    return None
