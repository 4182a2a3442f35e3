"""`LoadedModel`: a causal language model with its tokenizer, and what tells it from others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from fusion_core.errors import ModelNotFoundError
from fusion_core.tokens import TextTokenizer

from .document_tokens import DocumentTokens
from .files import weight_files
from .names import find
from .server import Server

WINDOW_CELLS = 1 << 28
"""Rows times vocabulary of one window of a text: a gigabyte in float32."""


@dataclass(frozen=True, eq=False, repr=False)
class LoadedModel:
    """A causal language model with its tokenizer, ready to read.

    Attributes:
        name: as the caller typed it.
        tokenizer: the tokenizer as bytes.
        network: the `transformers` model, in evaluation mode.
        context: most tokens it reads at once, its start token included; None if unlimited.
        size_bytes: size of its parameters in memory.
        document_tokens: how its start and end of documents are known; None where it was made in
            the process.
        server: what reads it where it lives elsewhere; its network then refuses whatever is asked.
    """

    name: str
    tokenizer: TextTokenizer
    network: Any
    context: int | None
    size_bytes: int
    document_tokens: DocumentTokens | None = None
    server: Server | None = None

    def __repr__(self) -> str:
        if self.server:
            return f"LoadedModel({self.name}: {self.server}, {self.tokenizer.size:,} ids)"
        kind = type(self.network).__name__
        size = f"{self.size_bytes / 1e6:,.1f} MB, {self.tokenizer.size:,} ids"
        return f"LoadedModel({self.name}: {kind}, {size}, on {self.device})"

    @property
    def device(self) -> torch.device:
        """Device on which the model expects its input, and gives its rows."""
        return torch.device("cpu") if self.server else next(self.network.parameters()).device

    @property
    def around_documents(self) -> dict[str, Any]:
        """What it reads before documents and what ends them, as the vocabulary writes it.

        ``start`` (None for nothing), ``end`` (a list, the one that is taught first) and ``how`` the
        start was chosen, see `DocumentTokens`.
        """
        start, entry = self.tokenizer.start_id, self.tokenizer.entry
        return {
            "start": None if start is None else entry(start),
            "end": [entry(i) for i in self.tokenizer.end_ids],
            "how": self.document_tokens.how if self.document_tokens else "named",
        }

    @property
    def window(self) -> int:
        """Most tokens of a window: what the context and the memory for their rows allow."""
        rows = max(2, WINDOW_CELLS // self.tokenizer.size)
        return rows if self.context is None else min(rows, self.context)


def identity(model: LoadedModel) -> dict[str, Any]:
    """Say which model this is, so that what was made with it is not taken for another's.

    Returns:
        ``revision`` (commit of a hub model), ``weights`` (sha256 of a local folder's configuration
        and of the weights that are loaded, or what a server calls them), ``tokenizer`` (its
        content key, and what it reads around documents where that is not what its files state) and
        ``dtype``; None for what is not known.
    """
    tokenizer = model.tokenizer
    around = f"start {tokenizer.start_id} ends {tokenizer.end_ids}"
    key = tokenizer.key + ("" if tokenizer.as_stated else f" {around}")
    if model.server:
        served = f"served as {model.server.model}"
        return {"revision": None, "weights": served, "tokenizer": key, "dtype": None}
    try:
        source = find(model.name)
    except ModelNotFoundError:  # made in the process
        source = None
    digest = None
    if source is not None and source.path is not None:
        whole = hashlib.sha256()
        settings = [] if source.gguf else [source.path / "config.json"]
        for file in [*settings, *weight_files(source)]:
            with file.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
        digest = whole.hexdigest()
    return {
        "revision": getattr(model.network.config, "_commit_hash", None),
        "weights": digest,
        "tokenizer": key,
        "dtype": str(model.network.dtype).removeprefix("torch."),
    }
