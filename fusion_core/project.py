"""Next-token rows -> the target's positions and vocabulary.

At a shared boundary the source's row is carried over through a vocab mapping, or by optimal
transport between its most probable tokens and the target's. Inside a source token, and only with
the `prefix` relation, the source's row at its last boundary is conditioned on the bytes that are
already known. Whatever is not mapped goes to the target's own row, and the kept mass says how much
was not.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch

from .records import Alignment, Encoding, NextTokenRows, ProjectedRows, RowKind, VocabMap
from .vocab import Consistency, Mapping, PrefixRelation, Transport

CHUNK_CELLS = 1 << 24
"""Rows times pairs that are worked on at once."""

TRANSPORT_TOP_K = 10
"""Tokens of either row between which mass is transported (PTA-LLM)."""

TRANSPORT_SHARPNESS = 5.0
"""λ of the kernel exp(-λ · edit distance). Of 0.1 to 5 the largest carried over best."""

TRANSPORT_ERROR = 1e-5
"""Largest error of a marginal at which Sinkhorn's iterations stop (PTA-LLM), and their number."""
TRANSPORT_STEPS = 500


def truncate(rows: NextTokenRows, k: int | None) -> NextTokenRows:
    """Keep the k most probable tokens of each row; what is cut off becomes its tail.

    Args:
        rows: full rows.
        k: tokens to keep; None, or k at least the vocabulary, keeps all.
    """
    if k is None or k >= rows.logprobs.shape[1]:
        return rows
    top, ids = rows.logprobs.topk(k, dim=1)
    kept = torch.full_like(rows.logprobs, -torch.inf).scatter_(1, ids, top)
    tail = (1 - top.exp().sum(1)).clamp(min=0)
    return NextTokenRows(
        model=rows.model,
        logprobs=kept,
        tail=tail,
        observed=rows.observed,
        observed_logprob=rows.observed_logprob,
        boundary=rows.boundary,
        temperature=rows.temperature,
    )


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
        source: n + 1 rows on the source's vocabulary, full or truncated.
        target: m + 1 full rows of the target on the same text.
        alignment: of the target's rows with the source's.
        mapping: from the source's vocabulary to the target's; None where they are identical.
        source_encoding: the source's tokens.
        target_encoding: the target's tokens.

    Returns:
        m rows that sum to 1: row i predicts the target's text token i. Rows of kind NONE are the
        target's own, with kept mass 0.
    """
    own = target.logprobs[: len(alignment.row)].exp()
    probs = own.clone()
    kept = own.new_zeros(len(own))
    kind = alignment.kind.copy()
    if not isinstance(mapping, PrefixRelation):
        kind[kind == RowKind.INSIDE] = RowKind.NONE
    groups = _groups(alignment, kind, mapping, source_encoding, target_encoding)
    for (known, at_start), positions in groups.items():
        pairs: Consistency | VocabMap | Transport | None = None
        width = source.logprobs.shape[1]
        if isinstance(mapping, VocabMap):
            pairs, width = mapping, len(mapping.indices)
        elif isinstance(mapping, Transport):
            pairs = mapping
        elif mapping is not None and not (mapping.identical and not known and not at_start):
            pairs = mapping.given(known, target_start=at_start)
            width = len(pairs.edge_target)
        step = max(1, CHUNK_CELLS // max(width, 1))
        for first in range(0, len(positions), step):
            where = torch.as_tensor(positions[first : first + step], device=own.device)
            chosen = torch.as_tensor(alignment.row[where.cpu().numpy()], device=own.device)
            given = source.logprobs[chosen].exp()
            tail = source.tail[chosen]
            if pairs is None:
                probs[where], kept[where] = _identity(given, tail, own[where])
            elif isinstance(pairs, VocabMap):
                probs[where], kept[where] = _linear(given, pairs, own[where])
            elif isinstance(pairs, Transport):
                probs[where], kept[where] = _transported(given, pairs, own[where])
            else:
                probs[where], kept[where] = _jeffrey(given, tail, pairs, own[where])
    return ProjectedRows(source=source.model, probs=probs, kept=kept, kind=kind)


def _groups(
    alignment: Alignment,
    kind: np.ndarray,
    mapping: Mapping | None,
    source: Encoding,
    target: Encoding,
) -> dict[tuple[bytes, bool], list[int]]:
    """Gather target rows by what is known of the source's next token when the target is asked.

    A dummy prefix that the source has yet to spell is known to come; where only the target has one,
    its first token is read without it.
    """
    groups: dict[tuple[bytes, bool], list[int]] = defaultdict(list)
    fixed = not isinstance(mapping, PrefixRelation)
    text = b" " + target.data  # the source's dummy prefix counts as a byte before the text
    at = np.maximum(target.stands[:-1], source.stands[0]) + 1
    for i in np.flatnonzero(kind != RowKind.NONE):
        known = text[at[i] - alignment.offset[i] : at[i]]
        # A source without a dummy prefix meets a target that has yet to spell its own.
        target_start = not fixed and i == 0 and target.dummy_prefix and not source.dummy_prefix
        groups[known, target_start].append(int(i))
    return groups


def _identity(
    given: torch.Tensor, tail: torch.Tensor, own: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carry rows between identical vocabularies: as they are, a tail over the tokens cut off."""
    rest = own * (given == 0)
    room = rest.sum(1, keepdim=True)
    spread = torch.where(room > 0, rest / room.clamp(min=1e-30), own)
    return given + tail[:, None] * spread, 1 - tail


def _linear(
    given: torch.Tensor, pairs: VocabMap, own: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carry rows (r, source vocabulary) through a fixed map; the rest goes to the target's own."""
    sources = torch.as_tensor(pairs.source_ids, device=given.device)
    targets = torch.as_tensor(pairs.indices, device=given.device)
    weights = torch.as_tensor(pairs.weights, device=given.device)
    carried = torch.zeros_like(own).index_add_(1, targets, given[:, sources] * weights)
    kept = carried.sum(1).clamp(max=1)
    return carried + (1 - kept)[:, None] * own, kept


def _transported(
    given: torch.Tensor, costs: Transport, own: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carry the top of each row to the target's top by optimal transport.

    Each source token goes whole to the target token that the plan sends most of it to; what is not
    among the source's top goes to the target's own row.

    Source: PTA-LLM (arXiv 2509.17276).
    """
    mass, source_ids = given.topk(min(TRANSPORT_TOP_K, given.shape[1]), dim=1)
    room, target_ids = own.topk(min(TRANSPORT_TOP_K, own.shape[1]), dim=1)
    pairs = torch.stack(
        torch.broadcast_tensors(source_ids[:, :, None], target_ids[:, None, :]), dim=-1
    )
    distinct, place = pairs.reshape(-1, 2).unique(dim=0, return_inverse=True)
    costs_of = costs.costs(*distinct.T.tolist())
    cost = torch.as_tensor(costs_of, device=given.device)[place].reshape(pairs.shape[:-1])
    goes = target_ids.gather(1, transport_plan(mass, room, cost).argmax(dim=2))
    carried = torch.zeros_like(own).scatter_add_(1, goes, mass)
    kept = mass.sum(1).clamp(max=1)
    return carried + (1 - kept)[:, None] * own, kept


def transport_plan(mass: torch.Tensor, room: torch.Tensor, cost: torch.Tensor) -> torch.Tensor:
    """Solve r small problems of entropic optimal transport by Sinkhorn's iterations.

    Args:
        mass: (r, k) what there is to carry; scaled to sum to 1.
        room: (r, l) where it is to go; scaled to sum to 1.
        cost: (r, k, l) of carrying one unit.

    Returns:
        (r, k, l) float64 plans, not negative; their sums over l are the scaled masses, and over k
        the scaled rooms, to within TRANSPORT_ERROR unless the iterations run out.
    """
    rows, columns = (
        x.double() / x.double().sum(1, keepdim=True).clamp(min=1e-30) for x in (mass, room)
    )
    # The cheapest way of each source token costs nothing more: scales change no plan.
    cost = cost.double() - cost.double().min(dim=2, keepdim=True).values
    kernel = torch.exp(-TRANSPORT_SHARPNESS * cost).clamp(min=1e-30)
    right = torch.ones_like(columns)
    for _ in range(TRANSPORT_STEPS):
        left = rows / (kernel @ right[:, :, None])[:, :, 0].clamp(min=1e-300)
        right = columns / (left[:, None, :] @ kernel)[:, 0].clamp(min=1e-300)
        reached = left * (kernel @ right[:, :, None])[:, :, 0]
        if float((reached - rows).abs().max()) < TRANSPORT_ERROR:
            break
    return left[:, :, None] * kernel * right[:, None, :]


def _jeffrey(
    given: torch.Tensor, tail: torch.Tensor, pairs: Consistency, own: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Share each source token's mass among its consistent target tokens.

    q(v) = sum over w of p_s(w) p_t(v) [v ~ w] / (sum over v' ~ w of p_t(v')): Jeffrey's rule, with
    the target's own row p_t as the prior. Source tokens that contradict the known bytes are
    dropped; those that end within them, the tail, and tokens with nothing consistent keep p_t.

    Args:
        given: (r, source vocabulary) probabilities.
        tail: (r,) mass that was cut off.
        pairs: e consistent pairs of c candidates.
        own: (r, target vocabulary), the target's rows.

    Returns:
        (r, target vocabulary) rows that sum to 1, and (r,) kept mass.
    """
    device = given.device
    candidates = given[:, torch.as_tensor(pairs.candidates, device=device)]
    other = given[:, torch.as_tensor(pairs.others, device=device)].sum(1) + tail
    edge_source = torch.as_tensor(pairs.edge_source, device=device)
    edge_target = torch.as_tensor(pairs.edge_target, device=device)
    prior = own[:, edge_target]
    room = torch.zeros_like(candidates).index_add_(1, edge_source, prior)
    smallest = torch.finfo(room.dtype).tiny
    mapped = room > smallest
    share = torch.where(mapped, candidates / room.clamp(min=smallest), 0)
    carried = torch.zeros_like(own).index_add_(1, edge_target, share[:, edge_source] * prior)
    kept_mass = torch.where(mapped, candidates, 0).sum(1)
    total = candidates.sum(1) + other
    alone = total <= 0
    total = torch.where(alone, 1.0, total)
    kept = torch.where(alone, 0.0, kept_mass / total).clamp(max=1)
    return carried / total[:, None] + (1 - kept)[:, None] * own, kept
