"""Several models expect the next token of one text.

At each step every source reads the text so far in its own tokens, its row is carried over to the
target's next token, and the rows are fused by an operator that does not look at what follows.

*Where the text ends inside a source's word.* A source that is asked after "hel" was never taught
what follows a token "hel" where the text goes on with "hello". Every path through its last few
boundaries is therefore asked, and weighed by its own probability: a token that begins at one of
them and reaches beyond the text's end, or at the end itself. The last needs a step of the source;
where it weighs next to nothing it is left out.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from fusion_core import fuse, pipeline
from fusion_core.errors import InputError
from fusion_core.mapping import PrefixRelation
from fusion_core.models import LoadedModel
from fusion_core.models.incremental import BACK, Reader
from fusion_core.project import carry_row, target_rows
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
        own = self.target.row(ids)
        if not self.sources:
            return alone(self.target.model.name, own)
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
        """Carry one source's row over, from all of its paths."""
        context = reader.model.context
        if relation is None:
            long = context is not None and len(ids) >= context - 1
            row = reader.row(ids[-(context // 2) :] if context and long else ids).to(own.device)
            return _as_carried(reader.model.name, row, 1.0)
        decoder = getincrementaldecoder("utf-8")("ignore")  # bytes that are no text are left out
        text = decoder.decode(data)
        partial = decoder.getstate()[0]
        encoding = reader.model.tokenizer.encode(text) if text else None
        kept = encoding.text_tokens if encoding is not None else np.zeros(0, np.int64)
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
    one, other = source.tokenizer, target.tokenizer
    same = one.vocabulary_key == other.vocabulary_key
    if same and set(one.end_ids) <= set(other.end_ids):
        return None
    found = None if same else pipeline.mapping(one, other, "prefix")
    return found if isinstance(found, PrefixRelation) else PrefixRelation(one, other)


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


def _as_carried(name: str, carried: torch.Tensor, kept: float) -> ProjectedRows:
    mass = carried.new_full((1,), kept)
    return ProjectedRows(name, carried[None], 1 - mass, mass, np.full(1, int(RowKind.SHARED)))
