"""Several models expect the next token of one text.

At each step every source reads the text so far in its own tokens, its row is projected to the
target's next token, and the rows are fused by an operator that does not look at what follows.

*Where the text ends inside a source's word.* A source that is asked after "hel" was never taught
what follows a token "hel" where the text goes on with "hello". Every path through its last few
boundaries is therefore asked, and weighed by its own probability: a token that begins at one of
them and reaches beyond the text's end, or at the end itself. The last needs a step of the source;
where it weighs next to nothing it is left out. Mappings that say nothing inside a token know the
last path alone.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from fusion_core import fuse
from fusion_core.errors import InputError
from fusion_core.mapping import VocabMapping, mapping_between
from fusion_core.models import LoadedModel
from fusion_core.models.incremental import BACK, Reader
from fusion_core.project import project_row
from fusion_core.reading import check_names
from fusion_core.records import (
    DenseRows,
    FusedRows,
    NextTokenRows,
    ProjectedRows,
    RowKind,
    SparseRows,
)

NEGLIGIBLE = 0.01
"""Weight of the path through the text's end, to all others, below which it is not asked."""


Sums = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""What was mapped, the mass that was mapped, and the mass of all tokens that agree."""


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
        projected = [
            self._projected(reader, mapping, ids, data, native)
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
    ) -> ProjectedRows:
        """Project one source's row, from all of its paths."""
        name, tokenizer = reader.model.name, reader.model.tokenizer
        context = reader.model.context
        if tokenizer.vocabulary_key == self.target.model.tokenizer.vocabulary_key:
            long = context is not None and len(ids) >= context - 1
            row = reader.row(ids[-(context // 2) :] if context and long else ids)
            mapped, kept, _ = project_row(row.to(native.device), native, mapping)
            return _as_projected(name, mapped, float(kept))
        decoder = getincrementaldecoder("utf-8")("ignore")  # bytes that are no text are left out
        text = decoder.decode(data)
        partial = decoder.getstate()[0]
        encoding = tokenizer.encode(text) if text else None
        read = encoding.text_tokens if encoding is not None else np.zeros(0, np.int64)
        if context is not None and len(read) >= context - 1:
            read = read[-(context // 2) :]
        tokens = encoding.ids[read].tolist() if encoding is not None else []
        sums = torch.zeros_like(native), native.new_zeros(()), native.new_zeros(())
        path = native.new_ones(())
        back = 0
        if mapping.inside and encoding is not None and encoding.lossless:
            back = _depth(tokens, reader.model)
        if back and not reader.has_read(tokens[:-1]):
            reader.row(tokens)  # in one go
        rows = {j: reader.row(tokens, j).to(native.device) for j in range(1, back + 1)}
        for j in range(back, 0, -1):
            # Paths on which a token that begins at this boundary reaches beyond the text's end …
            assert encoding is not None
            known = encoding.data[int(encoding.start[read[-j]]) :]
            if encoding.dummy_prefix and j == len(encoding.text_tokens):
                known = b" " + known
            sums = _added(sums, path, project_row(rows[j], native, mapping, known + partial))
            path = path * rows[j][tokens[-j]]
        # … and the one on which a token begins at the end.
        if float(path) > NEGLIGIBLE * float(sums[2]) and (mapping.inside or not partial):
            row = reader.row(tokens).to(native.device)
            sums = _added(sums, path, project_row(row, native, mapping, partial))
        mapped, kept, agreeing = sums
        total = float(agreeing)
        if total <= 0:
            return _as_projected(name, torch.zeros_like(native), 0.0)
        return _as_projected(name, mapped / total, min(1.0, float(kept) / total))


def _depth(read: Sequence[int], model: LoadedModel) -> int:
    """Tell how many boundaries before the text's end are asked."""
    mute = model.tokenizer.start_id is None  # its row before the first token says nothing
    return max(0, min(BACK, len(read) - mute))


def _added(sums: Sums, weight: torch.Tensor, more: Sums) -> Sums:
    return sums[0] + weight * more[0], sums[1] + weight * more[1], sums[2] + weight * more[2]


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
    rows = torch.stack([row, row]).log()
    nothing = torch.zeros(2, dtype=torch.int64, device=row.device)
    return NextTokenRows(name, DenseRows(rows), nothing, rows.new_zeros(2), np.zeros(2, np.int64))


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
