"""Several models expect the next token of one text.

At each step every source reads the text so far in its own tokens, its row is projected to the
target's next token, and the rows are fused by an operator that does not look at what follows.

*Where the text ends inside a source's word.* A source that is asked after "hel" was never taught
what follows a token "hel" where the text goes on with "hello". All of its covers of the text are
therefore asked (see `covers`), those that begin at its last few boundaries. The one that ends where
the text does needs a step of the source; where it weighs next to nothing it is left out. Mappings
that say nothing inside a token know that one alone, and so do tokenizers that cannot be asked how
they spell the beginnings of a text.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from fusion_core import fuse
from fusion_core.covers import PrefixTree, answered, find_covers
from fusion_core.errors import InputError
from fusion_core.mapping import VocabMapping, mapping_between
from fusion_core.models import LoadedModel
from fusion_core.models.incremental import BACK, Reader
from fusion_core.project import at_boundaries, project_row
from fusion_core.reading import check_names
from fusion_core.records import (
    LIGHT,
    Covers,
    DenseRows,
    Encoding,
    FusedRows,
    NextTokenRows,
    ProjectedRows,
    RowKind,
    SparseRows,
)

PRUNE = 0.01
"""Share of the mass below which covers are left out."""


class Ensemble:
    """A target, and sources that are fused on its next token.

    Without a source it is the target by itself.
    """

    def __init__(
        self,
        target: LoadedModel,
        sources: Sequence[LoadedModel] = (),
        *,
        operator: str = "confidence",
        operator_temperature: float = 1.0,
        with_target: bool = False,
        strategy: str = "prefix",
        corpus: Sequence[str] = (),
    ) -> None:
        """Check that the models can be fused.

        Args:
            target: the model in whose tokens text is written.
            sources: the models that are fused.
            operator: one of `fuse.label_free`.
            operator_temperature: what an operator's scores are divided by before its softmax.
            with_target: fuse the target's own row, too, after those of the sources.
            strategy: vocab mapping, a name in `mapping.STRATEGIES`.
            corpus: texts for strategies that count.

        Raises:
            InputError: the operator looks at the token that follows, there is no such strategy or
                nothing to count in, or a model is named twice.
            ModelFormatError: vocabularies differ, and one spells no spaces.
        """
        check(operator)
        check_names(target.name, *(s.name for s in sources))
        self.target, self.sources = Reader(target), [Reader(s) for s in sources]
        self._operator, self._operator_temperature = operator, operator_temperature
        self._with_target = with_target
        self._mappings = [
            mapping_between(s.tokenizer, target.tokenizer, strategy, corpus) for s in sources
        ]

    @cached_property
    def speaks(self) -> torch.Tensor:
        """(vocabulary,) bool, the target's tokens that are text or end it."""
        tokenizer = self.target.model.tokenizer
        text = [bool(b) or i in tokenizer.end_ids for i, b in enumerate(tokenizer.bytes_of)]
        return torch.as_tensor(text, device=self.target.model.device)

    def forget(self) -> None:
        """Start afresh, so that what was read before leaves no trace in the last bits."""
        for reader in (self.target, *self.sources):
            reader.forget()

    def next(self, ids: Sequence[int], data: bytes) -> FusedRows:
        """Fuse what the sources expect after a text.

        Args:
            ids: the text in the target's tokens, special ones apart.
            data: the text, which may end within a character.

        Returns:
            One row with all of the target's tokens, by falling probability.
        """
        native = self.target.row(ids)  # (V,)
        name = self.target.model.name
        if not self.sources:
            return alone(name, native)
        target = _as_rows(name, native)
        last = np.asarray([ids[-1] if ids else -1])
        projected = [
            self._projected(reader, mapping, ids, data, native, last)
            for reader, mapping in zip(self.sources, self._mappings, strict=True)
        ]
        if self._with_target:
            projected.append(fuse.target_rows(target))
        return fuse.fuse_rows(
            projected,
            target,
            [0.0] * len(projected),
            operator=self._operator,
            top_k=len(native),
            operator_temperature=self._operator_temperature,
        )

    def _projected(
        self,
        reader: Reader,
        mapping: VocabMapping,
        ids: Sequence[int],
        data: bytes,
        native: torch.Tensor,
        last: np.ndarray,
    ) -> ProjectedRows:
        """Project one source's row."""
        name, tokenizer = reader.model.name, reader.model.tokenizer
        context, target = reader.model.context, self.target.model.tokenizer
        if tokenizer.vocabulary_key == target.vocabulary_key:
            long = context is not None and len(ids) >= context - 1
            row = reader.row(ids[-(context // 2) :] if context and long else ids)
            mapped, kept, _ = project_row(row.to(native.device), native, mapping)
            return _as_projected(name, mapped, float(kept))
        decoder = getincrementaldecoder("utf-8")("ignore")  # bytes that are no text are left out
        text = decoder.decode(data)
        partial = decoder.getstate()[0]
        encoding = tokenizer.encode(text) if text else None
        first, number = 0, 0 if encoding is None else len(encoding.text_tokens)
        if context is not None and number >= context - 1:
            first = number - context // 2
        exact = mapping.inside and encoding is not None and encoding.lossless
        if not exact or tokenizer.canonical.fault:
            return self._at_end(reader, mapping, encoding, first, partial, native)
        assert encoding is not None
        encoding = replace(encoding, data=encoding.data + partial)
        covers = _covers_at_end(reader, encoding, first)
        sums = torch.zeros_like(native), native.new_zeros(())
        shown = b" " + encoding.data  # a dummy prefix counts as a byte before the text
        rows = covers.dense
        for e, (row, known, weight) in enumerate(
            zip(covers.row.tolist(), covers.known.tolist(), covers.weight.tolist(), strict=True)
        ):
            probs = rows.logprobs[row].exp().to(native.device)  # (S,)
            probs[torch.as_tensor(covers.excluded_of(e), device=probs.device)] = 0
            mapped, kept, _ = project_row(probs, native, mapping, shown[len(shown) - known :])
            sums = sums[0] + weight * mapped, sums[1] + weight * kept
        projected = _as_projected(name, sums[0], float(sums[1]))
        least = covers.prune * LIGHT
        own = _listed(name, [native]).dense
        return at_boundaries(projected, own, last, target.canonical, least)

    def _at_end(
        self,
        reader: Reader,
        mapping: VocabMapping,
        encoding: Encoding | None,
        first: int,
        partial: bytes,
        native: torch.Tensor,
    ) -> ProjectedRows:
        """Project the row after the text's last token, as far as an unfinished character allows."""
        read = [] if encoding is None else encoding.ids[encoding.text_tokens][first:].tolist()
        total, mapped, kept = 0.0, torch.zeros_like(native), native.new_zeros(())
        if mapping.inside or not partial:
            row = reader.row(read).to(native.device)
            mapped, kept, agreeing = project_row(row, native, mapping, partial)
            total = float(agreeing)
        if total <= 0:
            return _as_projected(reader.model.name, torch.zeros_like(native), 0.0)
        return _as_projected(reader.model.name, mapped / total, min(1.0, float(kept) / total))


def _covers_at_end(reader: Reader, encoding: Encoding, first: int) -> Covers:
    """Find a source's covers of a text's end, with rows of its last few boundaries.

    Args:
        reader: of the source.
        encoding: the text in the source's tokens, in whose data an unfinished character may follow.
        first: text tokens that are too long ago to be read.
    """
    tokens = encoding.ids[encoding.text_tokens][first:].tolist()
    mute = reader.model.tokenizer.start_id is None  # its row before the first token says nothing
    back = max(0, min(BACK, len(tokens) - mute))
    if back and not reader.has_read(tokens[:-1]):
        reader.row(tokens)  # in one go
    before = [tokens[: len(tokens) - j] for j in range(back, 0, -1)]
    rows = reader.rows(before or [tokens])
    begin = len(tokens) - back
    paths = [tokens[: begin + i] for i in range(len(rows))]
    tree = PrefixTree(
        _listed(reader.model.name, rows),
        encoding,
        reader.model.tokenizer,
        np.asarray([len(encoding.data)]),
        PRUNE,
        reader.model.context,
        first + begin,
    )

    def ask(asked: list[list[tuple[int, int]]]) -> list[torch.Tensor]:
        found = [[*paths[parent], token] for parent, token in asked[0]]
        paths.extend(found)
        return [torch.stack(reader.rows(found)).log()]

    return answered([find_covers(tree)], ask)[0]


def check(operator: str) -> None:
    """Refuse an operator that cannot generate text.

    Raises:
        InputError: there is no such operator, or it looks at the token that follows.
    """
    if not fuse.operator_of(operator).label_free:
        raise InputError(
            f"{operator} looks at the token that follows, which is not there yet: choose one of "
            f"{', '.join(fuse.label_free())} to generate text."
        )


def _as_rows(name: str, row: torch.Tensor) -> NextTokenRows:
    """Let one row (vocabulary,) of probabilities stand as a text's first, and last, row."""
    return _listed(name, [row, row])


def _listed(name: str, rows: Sequence[torch.Tensor]) -> NextTokenRows:
    """Let rows (vocabulary,) of probabilities stand as those of a text that is not looked at."""
    logprobs = torch.stack(list(rows)).log()
    n = len(logprobs)
    nothing = torch.zeros(n, dtype=torch.int64, device=logprobs.device)
    return NextTokenRows(
        name, DenseRows(logprobs), nothing, logprobs.new_zeros(n), np.zeros(n, np.int64)
    )


def alone(name: str, row: torch.Tensor) -> FusedRows:
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


def _as_projected(name: str, mapped: torch.Tensor, kept: float) -> ProjectedRows:
    mass = mapped.new_full((1,), min(kept, 1.0))
    kind = np.full(1, int(RowKind.SHARED))
    return ProjectedRows(name, mapped[None], 1 - mass, mass, kind, torch.ones_like(mass))
