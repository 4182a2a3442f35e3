"""Documents that models write: a corpus to fuse on that has no end."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from fusion_core.errors import InputError, ModelFormatError
from fusion_core.models import LoadedModel
from fusion_core.records import Progress

AT_ONCE = 64
"""Documents that are written together."""

LONGEST = 512
"""Most tokens of a written document, where the model's context allows as many."""

MIN_SHARE, TRIES = 0.02, 256
"""Share of tries that must give a document, and after how many that is judged."""


def write_documents(
    writers: Sequence[LoadedModel],
    n_bytes: int,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    progress: Progress | None = None,
) -> list[str]:
    """Let models write documents from nothing but their start token, in equal shares.

    Args:
        writers: models that end their documents.
        n_bytes: how much text is wanted in all; the last document of each may exceed its share.
        seed: equal seeds give equal documents on one machine.
        temperature: what the logits are divided by.
        progress: told how much has been written.

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
        for text in _written(model, f"{seed}/{done}", temperature):
            written.append(text)
            room -= len(text.encode())
            if room <= 0:
                break
            if progress:
                share = 1 - room * len(writers) / n_bytes
                progress(f"{model.name} writes", (done + min(max(share, 0), 1)) / len(writers))
    random.Random(seed).shuffle(written)
    return written


def _written(model: LoadedModel, seed: str, temperature: float) -> Iterator[str]:
    """Write documents without end."""
    start, ends = model.tokenizer.start_id, model.tokenizer.end_ids
    if start is None or not ends:
        raise ModelFormatError(
            f"{model.name} has no token to begin or end a document with: let other sources write."
        )
    tried = whole = 0
    draws = random.Random(seed)
    while True:
        for ids in _drawn(model, start, ends, draws.getrandbits(62), temperature):
            tried += 1
            text = _text(model, ids, ends)
            if text is not None:
                whole += 1
                yield text
        if tried >= TRIES and whole < MIN_SHARE * tried:
            raise ModelFormatError(
                f"{model.name} ended {whole} of {tried} documents within {LONGEST} tokens: let "
                "other sources write."
            )


@torch.inference_mode()
def _drawn(
    model: LoadedModel, start: int, ends: Sequence[int], seed: int, temperature: float
) -> Sequence[np.ndarray]:
    """Draw tokens for several documents at once."""
    longest = min(LONGEST, model.context or LONGEST)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), _without_defaults(model.network):
        torch.manual_seed(seed)
        ids = model.network.generate(
            torch.full((AT_ONCE, 1), start, device=model.device),
            attention_mask=torch.ones((AT_ONCE, 1), dtype=torch.long, device=model.device),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_length=longest,
            eos_token_id=list(ends),
            pad_token_id=ends[0],
        )
    return ids[:, 1:].cpu().numpy()


@contextmanager
def _without_defaults(network: Any) -> Iterator[None]:
    """Draw from a model's own rows, without the penalties that its generation_config.json may ask.

    The library takes them over whatever is passed to it.
    """
    from transformers import GenerationConfig

    own, network.generation_config = network.generation_config, GenerationConfig()
    try:
        yield
    finally:
        network.generation_config = own


def _text(model: LoadedModel, ids: np.ndarray, ends: Sequence[int]) -> str | None:
    """Read a document, if it has an end, is not empty and is text."""
    ended = np.flatnonzero(np.isin(ids, ends))
    if not len(ended):
        return None
    text = model.tokenizer.text_of(ids[: ended[0]].tolist())
    return text.strip("\n") if text and text.strip() else None
