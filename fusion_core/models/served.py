"""Models of servers, as `LoadedModel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from fusion_core import tokens
from fusion_core.errors import InputError

from .document_tokens import choose
from .files import hub_bytes
from .loaded import LoadedModel
from .names import ModelSource
from .server import Server


def connected(source: ModelSource) -> LoadedModel:
    """Connect to the server of a model, of which the tokenizer is read here."""
    assert source.server
    if source.path is None:
        hub_bytes(source.location)
    tokenizer = tokens.load(source.location, source.name, **source.options)
    server = Server.connect(source.server, tokenizer)
    context = None if server.context is None else server.context - 2  # one more is sent, one comes

    def scored(read: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        return [s.observed[1:-1] for s in server.score(read, 1)]

    chosen = choose(
        tokenizer,
        tokenizer.end_ids,
        scored,
        context=context,
        folder=None if source.gguf else source.path,
        start=source.start,
        end=source.end,
    )
    return LoadedModel(
        name=source.name,
        tokenizer=tokenizer.with_document_tokens(chosen.start, chosen.ends),
        network=_Elsewhere(source.name),
        context=context,
        size_bytes=0,
        document_tokens=chosen,
        server=server,
    )


class _Elsewhere:
    """The network of a server's model, which is not here: whatever is asked of it is refused."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, _: str) -> NoReturn:
        raise InputError(
            f"{self._name} is a server's model, which can be a source of rows alone: load the "
            "model itself to write with it or to train it."
        )
