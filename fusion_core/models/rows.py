"""Texts -> next-token rows, many texts at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from fusion_core import numerics
from fusion_core.config import Truncation, check_temperature
from fusion_core.errors import (
    FusionError,
    InputError,
    ModelFormatError,
    TooLargeError,
    is_out_of_memory,
)
from fusion_core.records import DenseRows, Encoding, NextTokenRows, SparseRows

from .loaded import LoadedModel
from .server import Server
from .truncation import CHUNK_CELLS, generator_of, truncate_rows

BATCH_TOKENS = 4096
"""Tokens that are read at once, padding included."""

BATCH_CELLS = 1 << 28
"""Tokens times vocabulary that are read at once: a gigabyte of logits in float32."""


def read_rows(model: LoadedModel, encoding: Encoding, *, temperature: float = 1.0) -> NextTokenRows:
    """Read one text; see `read_rows_batch`."""
    return read_rows_batch(model, [encoding], temperature=temperature)[0]


@torch.inference_mode()
def read_rows_batch(
    model: LoadedModel,
    encodings: Sequence[Encoding],
    *,
    temperature: float = 1.0,
    cut: Truncation | None = None,
) -> list[NextTokenRows]:
    """Read texts that fit the model's context, and return their next-token rows.

    The model reads its start token (see `document_tokens`) and then the text's tokens; those
    that a post-processor inserted are left out. Texts of like length are read together, padded at
    their ends, which a causal model does not see. Logits are the model's, cut to the ids that
    its tokenizer has.

    Args:
        model: the model.
        encodings: the texts in the model's tokens, n of them not special.
        temperature: what the logits are divided by.
        cut: what to keep of each row; everything by default.

    Returns:
        For each text n + 1 rows on the device of the model's logits. Without a start token row 0
        knows nothing: it is uniform, and the log-probability of the token that follows is nan.

    Raises:
        InputError: the temperature is not above 0.
        TooLargeError: a text has more tokens than the model's context, or memory is short.
        ModelFormatError: the model cannot read the text, or gives no numbers.
    """
    check_temperature(temperature)
    ids = [e.ids[e.text_tokens] for e in encodings]
    read = with_start(model, ids)
    if model.server:
        return _served(model.server, model.name, encodings, read, _asked(model, temperature, cut))
    out: list[NextTokenRows | None] = [None] * len(encodings)
    for batch in batches([len(r) for r in read], batch_tokens(model)):
        logits = forward(model, [read[i] for i in batch])
        found = rows_of(model, [encodings[i] for i in batch], logits, temperature, cut)
        for i, rows in zip(batch, found, strict=True):
            out[i] = rows
    return [r for r in out if r is not None]


def _asked(model: LoadedModel, temperature: float, cut: Truncation | None) -> int:
    """Return how many tokens of each row a server is asked for.

    Raises:
        InputError: it cannot give what is asked for.
    """
    if cut is None or not cut.top_k or temperature != 1:
        raise InputError(
            f"{model.name} is a server's model, of which only the most probable tokens are to be "
            "had: let it be a source, with source_top_k (--source-top-k) set to what the server "
            "gives, 20 as a rule, and temperature 1."
        )
    return cut.top_k


def _served(
    server: Server,
    name: str,
    encodings: Sequence[Encoding],
    read: Sequence[np.ndarray],
    top_k: int,
) -> list[NextTokenRows]:
    """Ask a server for the top-k rows of texts."""
    found = []
    for encoding, given, scored in zip(encodings, read, server.score(read, top_k), strict=True):
        ids = encoding.ids[encoding.text_tokens]
        first = len(given) - len(ids)  # row 0 is what follows a start token, or knows nothing
        probs = torch.as_tensor(scored.logprobs[first:]).exp()
        rows = SparseRows(
            torch.as_tensor(scored.ids[first:]),
            probs,
            (1 - probs.sum(1)).clamp(min=0),
            server.tokenizer.size,
        )
        picked = torch.as_tensor(np.append(scored.observed[first:-1], np.float32("nan")))
        found.append(
            NextTokenRows(
                model=name,
                rows=rows,
                observed=torch.as_tensor(np.append(ids, -1)),
                observed_logprob=picked,
                boundary=np.concatenate([[0], encoding.end[encoding.text_tokens]]).astype(np.int64),
            )
        )
    return found


def with_start(model: LoadedModel, ids: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Put a model's start token, where it has one, before the tokens of texts.

    Raises:
        TooLargeError: one has more tokens then than the model's context.
    """
    start = model.tokenizer.start_id
    read = [np.asarray(i, np.int64) for i in ids]
    if start is not None:
        read = [np.concatenate([[start], i]) for i in read]
    check_length(model, max(map(len, read), default=0))
    return read


def check_length(model: LoadedModel, n_tokens: int) -> None:
    """Refuse what is longer than a model's context.

    Raises:
        TooLargeError: it is.
    """
    if model.context is not None and n_tokens > model.context:
        raise TooLargeError(
            f"{model.name} reads at most {model.context} tokens at once, not {n_tokens}: cut the "
            "text into windows."
        )


def batch_tokens(model: LoadedModel) -> int:
    """Return how many tokens a model reads at once, as its vocabulary allows."""
    return max(1, min(BATCH_TOKENS, BATCH_CELLS // model.tokenizer.size))


def batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Gather texts of like length, so that little is padded; ``most`` tokens in each."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def forward(model: LoadedModel, read: Sequence[np.ndarray]) -> torch.Tensor:
    """Run the network on b lists of ids: (b, longest, head) logits; those of padding are junk.

    Raises:
        TooLargeError: memory is short.
        ModelFormatError: the network cannot read the ids.
    """
    batch = padded(model, read)
    with reading(model, batch.numel()):
        return model.network(input_ids=batch, use_cache=False).logits


def padded(model: LoadedModel, read: Sequence[np.ndarray]) -> torch.Tensor:
    """Return b lists of ids as (b, longest) on the model's device, zeros at their ends."""
    out = np.zeros((len(read), max(map(len, read))), np.int64)
    for line, tokens in zip(out, read, strict=True):
        line[: len(tokens)] = tokens
    return torch.as_tensor(out, device=model.device)


@contextmanager
def reading(model: LoadedModel, n_tokens: int) -> Iterator[None]:
    """Name the real cause where a network fails.

    Raises:
        TooLargeError: memory is short.
        ModelFormatError: the network cannot read the ids.
    """
    try:
        yield
    except FusionError:
        raise
    except Exception as error:  # networks raise many types
        if is_out_of_memory(error):
            raise TooLargeError(
                f"{model.name} ran out of memory on {n_tokens} tokens: read shorter texts, choose "
                "a smaller model or another device."
            ) from error
        raise ModelFormatError(
            f"{model.name} failed to read {n_tokens} tokens ({type(error).__name__}: "
            f"{str(error)[:200]}): read a shorter text; where short ones fail, too, check that its "
            "tokenizer and weights belong together."
        ) from error


def rows_of(
    model: LoadedModel,
    encodings: Sequence[Encoding],
    logits: torch.Tensor,
    temperature: float = 1.0,
    cut: Truncation | None = None,
) -> list[NextTokenRows]:
    """Turn the logits (b, longest, head) of texts, padded at their ends, into their rows."""
    found = []
    for encoding, native in zip(encodings, logits, strict=True):
        ids = encoding.ids[encoding.text_tokens]
        n = len(ids) + (model.tokenizer.start_id is not None)
        with reading(model, n):
            found.append(_rows(model, encoding, ids, native[:n], temperature, cut))
    return found


def _rows(
    model: LoadedModel,
    encoding: Encoding,
    ids: np.ndarray,
    logits: torch.Tensor,
    temperature: float,
    cut: Truncation | None,
) -> NextTokenRows:
    """Turn the logits (n or n + 1, head) of one text into its rows."""
    lacks_start = int(model.tokenizer.start_id is None)
    observed = torch.as_tensor(np.append(ids, -1), device=logits.device)
    picked = logits.new_full((len(ids) + 1,), torch.nan, dtype=torch.float32)
    step = max(1, CHUNK_CELLS // model.tokenizer.size)
    generator = generator_of(ids, cut, logits.device)
    # Whole rows are written where they stay: a second copy of all would be the largest thing here.
    whole = (len(ids) + 1 if cut is None else 0, model.tokenizer.size)
    dense, done = logits.new_empty(whole, dtype=torch.float32), 0
    parts: list[SparseRows] = []
    for first in range(0, len(logits), step):
        logprobs = log_softmax(model, logits[first : first + step])
        place = first + lacks_start
        follows = observed[place : place + len(logprobs)]
        picked[place : place + len(follows)] = logprobs.gather(1, follows.clamp(min=0)[:, None])[
            :, 0
        ]
        if temperature != 1:
            logprobs = numerics.log_softmax(logprobs / temperature)
        if lacks_start and first == 0:
            nothing = log_softmax(model, torch.zeros_like(logprobs[:1]))
            logprobs = torch.cat([nothing, logprobs])
        if cut is None:
            dense[done : done + len(logprobs)] = logprobs
            done += len(logprobs)
        else:
            parts.append(truncate_rows(logprobs, cut, temperature, generator))
    picked[-1] = torch.nan
    return NextTokenRows(
        model=model.name,
        rows=SparseRows.concat(parts) if parts else DenseRows(dense, temperature),
        observed=observed,
        observed_logprob=picked,
        boundary=np.concatenate([[0], encoding.end[encoding.text_tokens]]).astype(np.int64),
    )


def log_softmax(model: LoadedModel, logits: torch.Tensor) -> torch.Tensor:
    """Normalise (n, head) logits over the ids that the tokenizer has: (n, vocabulary) float32 nats.

    Raises:
        ModelFormatError: there is a logit that is no number.
    """
    size = model.tokenizer.size
    known = logits[:, :size].float()
    if known.shape[1] < size:
        known = torch.nn.functional.pad(known, (0, size - known.shape[1]), value=-torch.inf)
    if len(model.tokenizer.unused_ids):
        unused = torch.as_tensor(model.tokenizer.unused_ids, device=known.device)
        known = known.index_fill(1, unused, -torch.inf)
    logprobs = numerics.log_softmax(known)
    if bool(torch.isnan(logprobs[:, 0]).any()):  # one of them makes all of its row so
        raise ModelFormatError(
            f"{model.name} gives logits that are no numbers: load it in another dtype such as "
            "float32, or check its weights."
        )
    return logprobs
