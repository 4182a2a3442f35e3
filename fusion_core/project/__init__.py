"""Next-token rows -> the target's positions and vocabulary.

At a shared boundary the source's row is carried over through a vocab mapping, or by optimal
transport between its most probable tokens and the target's. Inside a source token, and only with
the `prefix` relation, the source's row at its last boundary is conditioned on the bytes that are
already known. Whatever is not mapped goes to the target's own row, and the kept mass says how much
was not.

    carrier    a source's rows on their way
    pairs      which tokens go where, looked up for all positions at once
    transport  the plans of optimal transport
    observed   the chain rule for the token that followed
"""

from __future__ import annotations

import numpy as np
import torch

from fusion_core.mapping import Consistency, Mapping
from fusion_core.numerics import index_sum
from fusion_core.records import Alignment, Encoding, NextTokenRows, ProjectedRows, RowKind

from .carrier import Carrier
from .chain_rule import chain_rule, probs_at
from .pairs import TINY, Pairs
from .transport import transport_plan

__all__ = [
    "Carrier",
    "carry_row",
    "chain_rule",
    "probs_at",
    "project",
    "target_rows",
    "transport_plan",
]


def project(
    source: NextTokenRows,
    target: NextTokenRows,
    alignment: Alignment,
    mapping: Mapping | None,
    *,
    source_encoding: Encoding,
    target_encoding: Encoding,
) -> ProjectedRows:
    """Carry a source's rows to the target's rows and vocabulary.

    Args:
        source: n + 1 rows on the source's vocabulary, whole or cut.
        target: m + 1 whole rows of the target on the same text.
        alignment: of the target's rows with the source's.
        mapping: from the source's vocabulary to the target's; None where they are identical.
        source_encoding: the source's tokens.
        target_encoding: the target's tokens.

    Returns:
        m rows that sum to 1: row i predicts the target's text token i. Rows of kind NONE are the
        target's own, with kept mass 0.
    """
    return Carrier(
        source,
        target,
        alignment,
        mapping,
        source_encoding=source_encoding,
        target_encoding=target_encoding,
    ).rows


def carry_row(
    given: torch.Tensor, own: torch.Tensor, pairs: Consistency
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Carry the tokens of one row that agree with known bytes over, by Jeffrey's rule.

    Args:
        given: (source vocabulary,) probabilities.
        own: (target vocabulary,), the target's own row.
        pairs: what goes where at this kind of position.

    Returns:
        (target vocabulary,) what was carried, the mass that was mapped, and the mass of all tokens
        that agree; nothing is normalised.
    """
    lists = Pairs.of(pairs)
    candidates, source, goes = (
        x.to(own.device) for x in (lists.candidates, lists.source, lists.target)
    )
    mass, prior = given[candidates], own[goes]
    room = index_sum(len(mass), source, prior)
    mapped = torch.where(room > TINY, mass, 0)
    share = (mapped / room.clamp(min=TINY))[source] * prior
    return index_sum(len(own), goes, share), mapped.sum(), mass.sum()


def target_rows(target: NextTokenRows) -> ProjectedRows:
    """Let the target's own rows stand beside those of the sources: m rows of m + 1."""
    m, size = len(target.rows) - 1, target.rows.vocab_size
    ones = target.dense.logprobs.new_ones(m)
    nothing = torch.zeros((2, 0), dtype=torch.int64, device=ones.device)
    carried = torch.sparse_coo_tensor(nothing, ones[:0], (m, size), check_invariants=False)
    return ProjectedRows(target.model, carried, ones, ones, np.full(m, int(RowKind.SHARED)))
