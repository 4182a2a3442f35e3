"""Tokens are drawn, and shown as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fusion_core import fuse
from fusion_core.config import MAX_TEXT_BYTES, Sampling, utf8
from fusion_core.errors import InputError, ModelFormatError
from fusion_core.models import LoadedModel
from fusion_core.records import FusedRows, Progress

from .ensemble import Ensemble


@dataclass(frozen=True)
class Step:
    """One chosen token.

    Attributes:
        token: id in the target's vocabulary.
        text: what can be shown of the text since the step before: whole characters that are not
            the beginning of a stop string.
        probability: of the token, before temperature and top-p.
        entropy: nats, of the row it was chosen from.
        weights: of the sources; empty for a model by itself.
        winner: index of the source with the largest weight, or -1.
        end: "" while the text goes on; else why it ended: "length", "stop" or "end of text".
    """

    token: int
    text: str
    probability: float
    entropy: float
    weights: tuple[float, ...]
    winner: int
    end: str = ""


def stream(ensemble: Ensemble, prompt: str, sampling: Sampling | None = None) -> Iterator[Step]:
    """Continue a text token by token.

    Args:
        ensemble: one model, or several.
        prompt: the text to continue.
        sampling: how tokens are chosen.

    Yields:
        The steps; their texts joined are the continuation.

    Raises:
        InputError: the prompt is empty, or the target reads nothing in it.
        TooLargeError: the prompt has more than a million bytes.
    """
    sampling = sampling or Sampling()
    data = utf8(prompt, limit=MAX_TEXT_BYTES)
    model = ensemble.target.model
    encoding = model.tokenizer.encode(prompt)
    ids = encoding.ids[encoding.text_tokens].tolist()
    if not ids:
        raise InputError(f"The tokenizer of {model.name} makes no token of this prompt.")
    ensemble.forget()
    draws = torch.Generator().manual_seed(sampling.seed)
    shown = _Shown(sampling.stop)
    for n in range(1, sampling.max_new_tokens + 1):
        if model.context is not None and len(ids) >= model.context - 1:
            ids = ids[-(model.context // 2) :]
        row = ensemble.next(ids, data)
        token, probability = _choose(row, ensemble.speaks, sampling, draws)
        ended = token in model.tokenizer.end_ids
        own = b"" if ended else model.tokenizer.adds(ids, token)
        ids, data = [*ids, token], data + own
        text, stopped = shown.add(own)
        end = "stop" if stopped else "end of text" if ended else ""
        end = end or ("length" if n == sampling.max_new_tokens else "")
        yield Step(
            token,
            text + shown.rest() if end and not stopped else text,
            probability,
            float(row.entropy[0]),
            tuple(row.weights[0].tolist()) if ensemble.sources else (),
            int(row.winner[0]) if ensemble.sources else -1,
            end,
        )
        if end:
            return


def _choose(
    row: FusedRows, speaks: torch.Tensor, sampling: Sampling, draws: torch.Generator
) -> tuple[int, float]:
    """Draw a token from a row in falling order: its id and its probability in the row."""
    ids, probs = row.rows.ids[0], row.rows.probs[0]
    allowed = speaks[ids]
    ids, probs = ids[allowed].cpu(), probs[allowed].double().cpu()
    if not len(probs) or float(probs.sum()) <= 0:
        raise ModelFormatError("No token has any probability: check the models' weights.")
    if sampling.temperature == 0:
        at = int(probs.argmax())
    else:
        logs = probs.log()  # the largest is taken off first: any quotient of it is a number then
        warm = torch.softmax((logs - logs.max()) / sampling.temperature, dim=0)
        warm = torch.where(warm.cumsum(0) - warm < sampling.top_p, warm, 0)
        at = int(torch.multinomial(warm, 1, generator=draws))
    return int(ids[at]), float(probs[at])


class _Shown:
    """What of a growing text can be shown: whole characters before any stop string."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop, self._waiting, self._held = stop, b"", ""

    def add(self, own: bytes) -> tuple[str, bool]:
        """Take a token's bytes: the text that can be shown now, and whether it has ended."""
        self._waiting += own
        try:
            text, self._waiting = self._waiting.decode(), b""
        except UnicodeDecodeError as error:
            whole = self._waiting[: error.start].decode()
            late = error.reason != "unexpected end of data"
            # Bytes that are no text, and never will be, are shown as such.
            text = self._waiting.decode("utf-8", "replace") if late else whole
            self._waiting = b"" if late else self._waiting[error.start :]
        self._held += text
        found = [at for s in self._stop if (at := self._held.find(s)) >= 0]
        if found:
            text, self._held = self._held[: min(found)], ""
            return text, True
        keep = max(
            (n for s in self._stop for n in range(1, len(s)) if self._held.endswith(s[:n])),
            default=0,
        )
        text = self._held[: len(self._held) - keep]
        self._held = self._held[len(text) :]
        return text, False

    def rest(self) -> str:
        """What was held back, where the text ends without a stop string."""
        text, self._held = self._held, ""
        return text


def generate(
    target: LoadedModel,
    sources: Sequence[LoadedModel],
    prompt: str,
    *,
    operator: str = "confidence",
    with_target: bool = False,
    strategy: str = "prefix",
    sampling: Sampling | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Continue a prompt with the target, with each source, and with the ensemble.

    Args:
        target: the model in whose tokens the ensemble writes.
        sources: the models that are fused.
        prompt: the text to continue.
        operator: one of `fuse.label_free`.
        with_target: let the target take part in the ensemble.
        strategy: vocab mapping; one that counts does so in the prompt.
        sampling: how tokens are chosen.
        progress: told of every token.

    Returns:
        The continuations: ``target`` (str), ``sources`` (by name) and ``ensemble`` (str).
    """
    together = Ensemble(
        target,
        sources,
        operator=operator,
        with_target=with_target,
        strategy=strategy,
        corpus=[prompt],
    )
    sampling = sampling or Sampling()
    writers = {"target": Ensemble(target)}
    writers |= {f"source {n}": Ensemble(s) for n, s in enumerate(sources)}
    texts: dict[str, str] = {}
    for done, (name, writer) in enumerate([*writers.items(), ("ensemble", together)]):
        texts[name] = ""
        for n, step in enumerate(stream(writer, prompt, sampling)):
            texts[name] += step.text
            if progress:
                share = n / sampling.max_new_tokens
                progress(f"{name} writes", (done + share) / (len(writers) + 1))
    return {
        "target": texts["target"],
        "sources": {s.name: texts[f"source {n}"] for n, s in enumerate(sources)},
        "ensemble": texts["ensemble"],
    }


def score(ensemble: Ensemble, text: str) -> tuple[float, int]:
    """Score a text as the ensemble would write it, token by token.

    Args:
        ensemble: one model, or several.
        text: at most as many tokens as the target's context.

    Returns:
        Nats of the text in the target's tokens, and its bytes.
    """
    encoding = ensemble.target.model.tokenizer.encode(text)
    own = encoding.text_tokens
    nats = 0.0
    for n, i in enumerate(own.tolist()):
        row = ensemble.next(encoding.ids[own[:n]].tolist(), encoding.data[: int(encoding.start[i])])
        at = row.rows.ids[0] == int(encoding.ids[i])
        nats -= float(row.rows.probs[0][at].double().clamp(min=fuse.FLOOR).log().sum())
    return nats, len(encoding.data)
