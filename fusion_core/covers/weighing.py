"""A tree of prefixes -> covers: light ones dropped, impossible pairs excluded, the rest weighed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from fusion_core.records import LIGHT, Covers, DenseRows

from .tree import PrefixTree

TINY = np.finfo(np.float32).tiny

CHUNK_CELLS = 1 << 24
"""Rows times vocabulary that are searched at once."""


def weighed(tree: PrefixTree) -> Covers:
    """Drop what is light, exclude pairs that the tokenizer never makes, and weigh the rest."""
    pairs, share = _kept(tree)
    rows = torch.cat([tree.logprobs, *tree.branches]) if tree.branches else tree.logprobs
    log_z = tree.log_z  # what was dropped counts
    of_row = np.where(pairs[:, 1] < 0, share, np.asarray(tree.log_p)[pairs[:, 1]])
    weight = of_row - log_z[pairs[:, 0]]
    cover, token, mass = _never(tree, pairs, weight, rows)
    gone = np.bincount(pairs[cover, 0], mass, minlength=len(log_z))
    begun = pairs[cover, 2] > 0  # at a byte before, where it was left out as well
    before = np.bincount(pairs[cover[begun], 0], mass[begun], minlength=len(log_z))
    with np.errstate(divide="ignore"):
        stays = np.log(np.maximum(1 - gone, 0))
    said = np.isfinite(stays) & np.isfinite(log_z)
    keep = said[pairs[:, 0]]
    number, listed = np.cumsum(keep) - 1, keep[cover]
    excluded = number[cover[listed]] * rows.shape[1] + token[listed]
    return Covers(
        positions=tree.positions,
        log_mass=np.where(said, log_z + stays, -np.inf),
        noncanonical=((gone - before) / np.maximum(1 - before, TINY)).astype(np.float32),
        rows=DenseRows(rows, tree.temperature),
        place=pairs[keep, 0],
        row=pairs[keep, 1],
        known=pairs[keep, 2],
        weight=np.exp((weight - stays[pairs[:, 0]])[keep]).astype(np.float32),
        excluded=np.sort(excluded),
        prune=tree.prune,
    )


def _kept(tree: PrefixTree) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.concatenate([np.zeros((0, 3), np.int64), *tree.pairs])
    share = np.concatenate([np.zeros(0), *tree.shares])
    keep = (share > tree.log_z[pairs[:, 0]] + tree.log_light) & (share > -np.inf)
    keep |= _nearest(tree, pairs) & (share > -np.inf)  # without it the text itself may be lost
    pairs, share = pairs[keep], share[keep]
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], share[order]


def _nearest(tree: PrefixTree, pairs: np.ndarray) -> np.ndarray:
    """(e,) bool, covers that begin at the text's last boundary before their position."""
    bounds = np.asarray(tree.byte)[tree.main_nodes]
    place = np.searchsorted(bounds, tree.positions, "right") - 1
    nearest = np.where(place >= 0, np.asarray(tree.main_nodes)[place.clip(min=0)], -2)
    return pairs[:, 1] == nearest[pairs[:, 0]]


def _never(
    tree: PrefixTree, pairs: np.ndarray, weight: np.ndarray, rows: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List pairs of last and next token that the tokenizer never makes, the light ones apart.

    Returns:
        (x,) covers, (x,) next tokens and (x,) their share of the position's mass.
    """
    _, row, known = pairs.T
    last = np.where(row < 0, -1, np.asarray(tree.last)[row])
    inside = np.flatnonzero((last >= 0) & (known > 0))
    spans = [
        tree.index.span(tree.text[tree.byte[n] + 1 : tree.byte[n] + 1 + b])
        for n, b in zip(row[inside].tolist(), known[inside].tolist(), strict=True)
    ]
    which, token = tree.tokens(np.asarray(spans, np.int64).reshape(-1, 2))
    which = inside[which]
    share = np.exp(tree.at(rows, row[which], token) + weight[which])
    heavy = share > tree.light
    found = [(which[heavy], token[heavy], share[heavy])]
    found += _heavy(tree, np.flatnonzero((last >= 0) & (known == 0)), row, weight, rows)
    cover, token, mass = (np.concatenate(x) for x in zip(*found, strict=True))
    # A character that has begun is finished first: nearly all other tokens never follow it.
    never = _within(tree, row[cover]) & tree.index.begins_character[token]
    never |= _spelled_in_bytes(tree, row[cover], token)
    never[~never] = ~tree.tokenizer.canonical.stays(
        np.stack([last[cover[~never]], token[~never]], axis=1)
    )
    return cover[never], token[never], mass[never]


def _within(tree: PrefixTree, row: np.ndarray) -> np.ndarray:
    """(t,) bool, whether rows stand within a character."""
    place = np.asarray(tree.byte)[row] + 1
    return (np.frombuffer(tree.text + b"a", np.uint8)[place] & 0xC0) == 0x80


def _spelled_in_bytes(tree: PrefixTree, row: np.ndarray, token: np.ndarray) -> np.ndarray:
    """(t,) bool, byte pieces that finish a character which has a token of its own."""
    tokenizer = tree.tokenizer
    found = _within(tree, row) & tokenizer.is_byte_piece[token]
    for n in np.flatnonzero(found).tolist():
        begin = end = tree.byte[row[n]] + 1
        while tree.text[begin - 1] & 0xC0 == 0x80:
            begin -= 1
        character = tree.text[begin - 1 : end] + (tokenizer.bytes_of[token[n]] or b"")
        found[n] = character in tokenizer.ids_of
    return found


def _heavy(
    tree: PrefixTree, covers: np.ndarray, row: np.ndarray, weight: np.ndarray, rows: torch.Tensor
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """List the tokens of whole rows whose share of a position's mass is not negligible."""
    at = row[covers]  # a row stands at one position, where nothing of its next token is known
    light = np.where(_within(tree, at), LIGHT * tree.light, tree.light)
    least, cover_of = np.full(len(rows), np.inf), np.full(len(rows), -1)
    cover_of[at] = covers
    with np.errstate(divide="ignore"):
        least[at] = np.log(light) - weight[covers]
    bound = torch.as_tensor(least, device=rows.device, dtype=rows.dtype)[:, None]
    step = max(1, CHUNK_CELLS // rows.shape[1])
    for first in range(0, len(rows), step):
        given = rows[first : first + step]
        which, token = (given > bound[first : first + step]).nonzero(as_tuple=True)
        log_p = given[which, token].double().cpu().numpy()
        cover = cover_of[first + which.cpu().numpy()]
        yield cover, token.cpu().numpy(), np.exp(log_p + weight[cover])
