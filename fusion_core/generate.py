"""Text from one model, or from several at once: the ensemble writes in the target's tokens.

At each step every source reads the text so far in its own tokens, its row is carried over to the
target's next token, and the rows are fused by an operator that does not look at what follows.

*Where the text ends inside a source's word.* A source that is asked after "hel" was never taught
what follows a token "hel" where the text goes on with "hello". Every path through its last few
boundaries is therefore asked, and weighed by its own probability: a token that begins at one of
them and reaches beyond the text's end, or at the end itself. The last needs a step of the source;
where it weighs next to nothing it is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from . import fuse, models, pipeline
from .config import MAX_TEXT_BYTES, utf8
from .errors import InputError, ModelFormatError
from .models import LoadedModel
from .project import carry_row, target_rows
from .reading import Progress
from .records import (
    DenseRows,
    FusedRows,
    NextTokenRows,
    ProjectedRows,
    RowKind,
    SparseRows,
)
from .vocab import PrefixRelation

NEGLIGIBLE = 0.01
"""Weight of the path through the text's end, to all others, below which it is not asked."""

BACK = 4
"""Boundaries before the text's end from which a source's token may reach beyond it."""

KEPT_ROWS = 2 * BACK
"""Rows of a reader that are remembered, counted from the end."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: most tokens of the target that are generated.
        temperature: what the log-probabilities are divided by; 0 takes the most probable token.
        top_p: the fewest tokens whose probabilities reach it are chosen from.
        seed: of the draws.
        stop: strings at which the text ends; they are not part of it.

    Raises:
        InputError: a number is outside its range.
    """

    max_new_tokens: int = 64
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 1 <= self.max_new_tokens <= 100_000:
            raise InputError(
                f"max_new_tokens must lie between 1 and 100,000, not {self.max_new_tokens!r}."
            )
        if not 0 <= self.temperature < float("inf"):
            raise InputError(
                f"temperature must be 0 or more, not {self.temperature!r}: 0 takes the most "
                "probable token."
            )
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must lie above 0 and be at most 1, not {self.top_p!r}.")
        if not all(self.stop):
            raise InputError(
                "A stop string is empty: give at least one character, or leave it out."
            )


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


class Reader:
    """One model's reading of a text that grows: its cache is kept where the tokens are the same."""

    def __init__(self, model: LoadedModel) -> None:
        """Start with nothing read."""
        self.model = model
        self._ids: list[int] = []
        self._cache: Any = None
        self._rows: dict[int, torch.Tensor] = {}

    def row(self, ids: Sequence[int], back: int = 0) -> torch.Tensor:
        """Read tokens of the text, and return the row after all of them, or ``back`` before.

        Args:
            ids: the text's tokens, those of a start token apart.
            back: at most `BACK`.

        Returns:
            (vocabulary,) float32 probabilities. Where a model without a start token has read
            nothing, they are all the same.
        """
        start = self.model.tokenizer.start_id
        read = [*([] if start is None else [start]), *ids]
        wanted = len(read) - back
        read = read[:wanted]
        if not read:
            size = self.model.tokenizer.size
            return torch.full((size,), 1 / size, device=self.model.device)
        same = 0
        for a, b in zip(self._ids, read, strict=False):
            if a != b:
                break
            same += 1
        if same == wanted and wanted in self._rows:
            return self._rows[wanted]
        self._forward(read, min(same, wanted - 1))
        return self._rows[wanted]

    def forget(self) -> None:
        """Start afresh, so that what was read before leaves no trace in the last bits."""
        self._ids, self._cache, self._rows = [], None, {}

    def has_read(self, ids: Sequence[int]) -> bool:
        """Tell whether the row after tokens, those of a start token apart, is at hand."""
        start = self.model.tokenizer.start_id
        read = [*([] if start is None else [start]), *ids]
        return self._ids[: len(read)] == read and len(read) in self._rows

    @torch.inference_mode()
    def _forward(self, read: list[int], same: int) -> None:
        """Read the tokens after the first ``same``, which the cache may have."""
        surplus = len(self._ids) - same
        if surplus and self._cache is not None:
            try:
                self._cache.crop(-surplus)
            except (AttributeError, NotImplementedError, RuntimeError, ValueError):
                self._cache, same = None, 0  # states that cannot be cut: read all of it again
        if self._cache is None:
            same = 0
        batch = torch.as_tensor([read[same:]], device=self.model.device)
        try:
            out = self.model.network(input_ids=batch, past_key_values=self._cache, use_cache=True)
        except (IndexError, RuntimeError, ValueError) as error:
            self._cache, self._ids = None, []
            raise ModelFormatError(
                f"{self.model.name} failed to read the text ({type(error).__name__}: "
                f"{str(error)[:200]}): check that its tokenizer and weights belong together."
            ) from error
        self._cache, self._ids = getattr(out, "past_key_values", None), read
        logits = out.logits[0, -KEPT_ROWS:]
        probs = models.log_softmax(self.model, logits).exp()
        first = len(read) - len(probs) + 1
        kept = {n: r for n, r in self._rows.items() if n <= same and n > len(read) - KEPT_ROWS}
        self._rows = kept | {first + n: row for n, row in enumerate(probs)}


class Ensemble:
    """A target, and sources that are fused on its next token.

    Without a source it is the target by itself.
    """

    def __init__(
        self,
        target: LoadedModel,
        sources: Sequence[LoadedModel] = (),
        *,
        operator: str = "mean",
        operator_temperature: float = 1.0,
        with_target: bool = False,
    ) -> None:
        """Check that the models can be fused.

        Args:
            target: the model in whose tokens text is written.
            sources: the models that are fused.
            operator: one of `fuse.LABEL_FREE`.
            operator_temperature: what an operator's scores are divided by before its softmax.
            with_target: fuse the target's own row, too, after those of the sources.

        Raises:
            InputError: the operator looks at the token that follows; a model is named twice.
        """
        check(operator)
        pipeline.check_names(target.name, *(s.name for s in sources))
        self.target, self.sources = Reader(target), [Reader(s) for s in sources]
        self._operator, self._operator_temperature = operator, operator_temperature
        self._with_target = with_target
        self._relations = [_relation(s, target) for s in sources]

    @cached_property
    def speaks(self) -> torch.Tensor:
        """(vocabulary,) bool, the target's tokens that are text or end it."""
        tokenizer = self.target.model.tokenizer
        text = [bool(b) or i == tokenizer.eos_id for i, b in enumerate(tokenizer.bytes_of)]
        return torch.as_tensor(text, device=self.target.model.device)

    def next(self, ids: Sequence[int], data: bytes) -> FusedRows:
        """Fuse what the sources expect after a text.

        Args:
            ids: the text in the target's tokens, special ones apart.
            data: the text, which may end within a character.

        Returns:
            One row with all of the target's tokens, by falling probability.
        """
        own = self.target.row(ids)
        if not self.sources:
            return _alone(self.target.model.name, own)
        target = _as_rows(self.target.model.name, own)
        carried = [
            self._carried(reader, relation, ids, data, own)
            for reader, relation in zip(self.sources, self._relations, strict=True)
        ]
        if self._with_target:
            carried.append(target_rows(target))
        return fuse.fuse(
            carried,
            target,
            [0.0] * len(carried),
            operator=self._operator,
            top_k=len(own),
            operator_temperature=self._operator_temperature,
        )

    def _carried(
        self,
        reader: Reader,
        relation: PrefixRelation | None,
        ids: Sequence[int],
        data: bytes,
        own: torch.Tensor,
    ) -> ProjectedRows:
        """Carry one source's row over, from both of its paths."""
        if relation is None:
            row = reader.row(ids).to(own.device)
            return _as_carried(reader.model.name, row, 1.0)
        text = data.decode("utf-8", "ignore") if data else ""
        partial = data[len(text.encode()) :]
        encoding = reader.model.tokenizer.encode(text) if text else None
        kept = encoding.text_tokens if encoding is not None else np.zeros(0, np.int64)
        context = reader.model.context
        if context is not None and len(kept) >= context - 1:
            kept = kept[-(context // 2) :]
        read = encoding.ids[kept].tolist() if encoding is not None else []
        carried, mapped, agree = torch.zeros_like(own), own.new_zeros(()), own.new_zeros(())
        lossless = encoding is not None and encoding.lossless
        back = _depth(read, reader.model) if lossless else 0
        path = own.new_ones(())
        if back and not reader.has_read(read[:-1]):
            reader.row(read)  # in one go
        rows = {j: reader.row(read, j).to(own.device) for j in range(1, back + 1)}
        for j in range(back, 0, -1):
            # Paths on which a token that begins at this boundary reaches beyond the text's end …
            assert encoding is not None
            known = encoding.data[int(encoding.start[kept[-j]]) :]
            if encoding.dummy_prefix and j == len(encoding.text_tokens):
                known = b" " + known
            pairs = relation.given(known + partial)
            if len(pairs.candidates):
                found = carry_row(rows[j], own, pairs)
                carried, mapped, agree = _added((carried, mapped, agree), path, found)
            path = path * rows[j][read[-j]]
        # … and the one on which a token begins at the end.
        if float(path) > NEGLIGIBLE * float(agree):
            found = carry_row(reader.row(read).to(own.device), own, relation.given(partial))
            carried, mapped, agree = _added((carried, mapped, agree), path, found)
        total = float(agree)
        if total <= 0:
            return _as_carried(reader.model.name, torch.zeros_like(own), 0.0)
        return _as_carried(reader.model.name, carried / total, min(1.0, float(mapped) / total))


def _depth(read: Sequence[int], model: LoadedModel) -> int:
    """Tell how many boundaries before the text's end are asked."""
    mute = model.tokenizer.start_id is None  # its row before the first token says nothing
    return max(0, min(BACK, len(read) - mute))


def _added(
    sums: Sequence[torch.Tensor], weight: torch.Tensor, more: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    return tuple(a + weight * b for a, b in zip(sums, more, strict=True))


def check(operator: str) -> None:
    """Refuse an operator that cannot generate text.

    Raises:
        InputError: there is no such operator, or it looks at the token that follows.
    """
    fuse.check(operator, "token")
    if operator not in fuse.LABEL_FREE:
        raise InputError(
            f"{operator} looks at the token that follows, which is not there yet: choose one of "
            f"{', '.join(fuse.LABEL_FREE)} to generate text."
        )


def _relation(source: LoadedModel, target: LoadedModel) -> PrefixRelation | None:
    """Return how the vocabularies are related; None where ids mean the same."""
    if source.tokenizer.vocabulary_key == target.tokenizer.vocabulary_key:
        return None
    found = pipeline.mapping(source.tokenizer, target.tokenizer, "prefix")
    assert isinstance(found, PrefixRelation)
    return found


def _as_rows(name: str, row: torch.Tensor) -> NextTokenRows:
    """Let one row (vocabulary,) of probabilities stand as a text's first, and last, row."""
    rows = torch.stack([row, row]).log()
    nothing = torch.zeros(2, dtype=torch.int64, device=row.device)
    return NextTokenRows(name, DenseRows(rows), nothing, rows.new_zeros(2), np.zeros(2, np.int64))


def _alone(name: str, row: torch.Tensor) -> FusedRows:
    """Let a model's own row (vocabulary,) stand as the fused one."""
    probs, ids = row.sort(descending=True)
    one, none = row.new_ones(1), row.new_zeros(1)
    return FusedRows(
        rows=SparseRows(ids[None], probs[None], none, len(row)),
        sources=(name,),
        weights=one[None],
        winner=torch.zeros(1, dtype=torch.int64),
        kept=one[None],
        ce=none[None],
        entropy=torch.special.entr(probs).sum()[None],
        observed_logprob=none,
    )


def _as_carried(name: str, carried: torch.Tensor, kept: float) -> ProjectedRows:
    mass = carried.new_full((1,), kept)
    return ProjectedRows(name, carried[None], 1 - mass, mass, np.full(1, int(RowKind.SHARED)))


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
    for reader in (ensemble.target, *ensemble.sources):
        reader.forget()
    draws = torch.Generator().manual_seed(sampling.seed)
    shown = _Shown(sampling.stop)
    for n in range(1, sampling.max_new_tokens + 1):
        if model.context is not None and len(ids) >= model.context - 1:
            ids = ids[-(model.context // 2) :]
        row = ensemble.next(ids, data)
        token, probability = _choose(row, ensemble.speaks, sampling, draws)
        ended = token == model.tokenizer.eos_id
        own = b"" if ended else model.tokenizer.bytes_of[token] or b""
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
        warm = torch.softmax(probs.log() / sampling.temperature, dim=0)
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
    operator: str = "mean",
    with_target: bool = False,
    sampling: Sampling | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Continue a prompt with the target, with each source, and with the ensemble.

    Args:
        target: the model in whose tokens the ensemble writes.
        sources: the models that are fused.
        prompt: the text to continue.
        operator: one of `fuse.LABEL_FREE`.
        with_target: let the target take part in the ensemble.
        sampling: how tokens are chosen.
        progress: told of every token.

    Returns:
        The continuations: ``target`` (str), ``sources`` (by name) and ``ensemble`` (str).
    """
    together = Ensemble(target, sources, operator=operator, with_target=with_target)
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
