"""Next-token rows -> the next character and the next byte, at any byte of a text.

Tokens of different vocabularies cannot be compared; the characters with which they go on can. Each
token of a row gives its probability to the character that it puts next, summed over the model's
covers of the bytes before. Without covers the row at the model's last boundary is conditioned on
the bytes since: tokens that contradict them are dropped; those that end within them are other
paths, on which the model has not been asked. These count as unknown, and so does what was cut off
a row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch

from .errors import InputError
from .records import Covers, DenseRows, Encoding, NextTokenRows
from .tokens import CharacterTable, Continuations, TextTokenizer

CHUNK_CELLS = 1 << 24
"""Rows times vocabulary that are worked on at once."""

_tables: WeakKeyDictionary[TextTokenizer, CharacterTable] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class NextCharacters:
    """What a model expects next at p bytes of a text.

    ``probs.sum(1) + partial.sum(1) + end + unknown == 1``, and
    ``byte_probs.sum(1) + end + unknown == 1``. Inside a character of several bytes the next
    character is the one that is being completed: `characters` and `parts` include its bytes before
    the position.

    Attributes:
        model: name of the model.
        positions: (p,) int64, bytes of the UTF-8 text before which the model is asked.
        characters: the c characters that get probability anywhere, by code point.
        probs: (p, c) float32, probability that each of them comes next.
        parts: q byte strings that are no character: the beginning of one, where a token ends within
            it; or what no character begins with, as short as shows it.
        partial: (p, q) float32, probability that each of these comes next.
        end: (p,) float32, probability that the text ends.
        unknown: (p,) float32, probability of other paths, of tokens without bytes, and of what was
            cut off the row; 1 where the model says nothing: before the first boundary of a model
            without a start token, where its tokens since their last boundary are not made of the
            text's bytes, and where a cut row has no token that agrees with them.
        byte_probs: (p, 256) float32, probability of each next byte.
    """

    model: str
    positions: np.ndarray
    characters: tuple[str, ...]
    probs: torch.Tensor
    parts: tuple[bytes, ...]
    partial: torch.Tensor
    end: torch.Tensor
    unknown: torch.Tensor
    byte_probs: torch.Tensor


def next_characters(
    rows: NextTokenRows,
    encoding: Encoding,
    tokenizer: TextTokenizer,
    positions: Sequence[int],
    covers: Covers | None = None,
) -> NextCharacters:
    """Sum a model's next-token rows over the tokens that go on with the same character.

    Args:
        rows: the model's rows on a text, whole or cut.
        encoding: the text in the model's tokens.
        tokenizer: the model's.
        positions: p bytes of the text, in any order; its end is one, too.
        covers: of all of these bytes.

    Returns:
        One distribution a position, on the device of the rows.

    Raises:
        InputError: a position lies outside the text, or the rows are of another text or vocabulary.
    """
    at = _checked(rows, encoding, tokenizer, positions)
    table = _table(tokenizer)
    asked = _of_covers(at, covers) if covers else _at_boundaries(at, encoding, tokenizer)
    like = rows.observed_logprob
    end, unknown = like.new_zeros(len(at)), like.new_ones(len(at))
    byte_probs = like.new_zeros(len(at), 256)
    found: list[tuple[torch.Tensor, list[str | bytes], torch.Tensor]] = []
    step = max(1, CHUNK_CELLS // tokenizer.size)
    for (known, head), members in _groups(asked, at, encoding).items():
        given = table.continuations(known, head)
        for first in range(0, len(members), step):
            chosen = members[first : first + step]
            where = torch.as_tensor(asked.position[chosen], device=like.device)
            probs, tail = _probs(covers or rows, asked, chosen)
            sums, ends, rest = _agreeing(probs, tail, given, normalise=covers is None)
            end.index_add_(0, where, ends)
            if covers is None:
                unknown[where] = rest
            else:
                unknown.index_add_(0, where, -sums.sum(1) - ends)
            byte_probs.index_add_(0, where, _summed(sums, given.next_byte, 256))
            occurs = (sums > 0).any(0)
            labels = [given.labels[n] for n in occurs.nonzero()[:, 0].tolist()]
            found.append((where, labels, sums[:, occurs]))
    characters, parts, laid_out = _laid_out(found, like.new_zeros(len(at), 0))
    return NextCharacters(
        model=rows.model,
        positions=at,
        characters=tuple(characters),
        probs=laid_out[:, : len(characters)],
        parts=tuple(parts),
        partial=laid_out[:, len(characters) :],
        end=end,
        unknown=unknown.clamp(min=0),
        byte_probs=byte_probs,
    )


def _laid_out(
    found: Sequence[tuple[torch.Tensor, list[str | bytes], torch.Tensor]], like: torch.Tensor
) -> tuple[list[str], list[bytes], torch.Tensor]:
    """Lay what was found at some positions each out over all characters and parts that occur."""
    occurring = {s for _, labels, _ in found for s in labels}
    characters = sorted(s for s in occurring if isinstance(s, str))
    parts = sorted(s for s in occurring if isinstance(s, bytes))
    place = {s: n for n, s in enumerate([*characters, *parts])}
    probs = like.new_zeros(len(like), len(place))
    for where, labels, sums in found:
        columns = torch.as_tensor([place[s] for s in labels], dtype=torch.int64, device=like.device)
        probs.index_put_((where[:, None], columns), sums, accumulate=True)
    return characters, parts, probs


def joined(parts: Sequence[NextCharacters], shifts: Sequence[int]) -> NextCharacters:
    """Join what a model expects in several stretches of one text, at least one.

    Args:
        parts: one for each stretch.
        shifts: the bytes at which the stretches begin.
    """
    characters = sorted({c for p in parts for c in p.characters})
    strings = sorted({s for p in parts for s in p.parts})

    def spread(
        names: Sequence[str | bytes], labels: Sequence, values: torch.Tensor
    ) -> torch.Tensor:
        place = {name: n for n, name in enumerate(names)}
        columns = torch.as_tensor(
            [place[x] for x in labels], dtype=torch.int64, device=values.device
        )
        return values.new_zeros(len(values), len(names)).index_copy_(1, columns, values)

    return NextCharacters(
        model=parts[0].model,
        positions=np.concatenate([p.positions + s for p, s in zip(parts, shifts, strict=True)]),
        characters=tuple(characters),
        probs=torch.cat([spread(characters, p.characters, p.probs) for p in parts]),
        parts=tuple(strings),
        partial=torch.cat([spread(strings, p.parts, p.partial) for p in parts]),
        end=torch.cat([p.end for p in parts]),
        unknown=torch.cat([p.unknown for p in parts]),
        byte_probs=torch.cat([p.byte_probs for p in parts]),
    )


def _checked(
    rows: NextTokenRows, encoding: Encoding, tokenizer: TextTokenizer, positions: Sequence[int]
) -> np.ndarray:
    """Return the positions as an array, or say why they cannot be answered."""
    at = np.asarray(positions, np.int64).reshape(-1)
    size = len(encoding.data)
    if outside := [b for b in at.tolist() if not 0 <= b <= size]:
        raise InputError(
            f"Byte {outside[0]} lies outside the text: choose positions from 0 to {size}."
        )
    if (len(rows.rows), rows.rows.vocab_size) != (len(encoding.row_bytes), tokenizer.size):
        raise InputError(
            f"{len(rows.rows)} rows of {rows.model} over {rows.rows.vocab_size} ids do not fit an "
            f"encoding with {len(encoding.row_bytes)} rows over {tokenizer.size}: give the rows, "
            "the encoding and the tokenizer of one model and text."
        )
    return at


def _table(tokenizer: TextTokenizer) -> CharacterTable:
    if tokenizer not in _tables:
        _tables[tokenizer] = CharacterTable(tokenizer)
    return _tables[tokenizer]


class _Asked(NamedTuple):
    """Rows of which positions take a part.

    Attributes:
        position: (e,) int64, index of the position.
        row: (e,) int64.
        known: (e,) int64, bytes from where the row stands to the position.
        cover: (e,) int64, numbers of covers.
    """

    position: np.ndarray
    row: np.ndarray
    known: np.ndarray
    cover: np.ndarray


def _of_covers(at: np.ndarray, covers: Covers) -> _Asked:
    """Ask the rows of all covers that were read."""
    position, cover = covers.at(at)
    return _Asked(position, covers.row[cover], covers.known[cover], cover)


def _at_boundaries(at: np.ndarray, encoding: Encoding, tokenizer: TextTokenizer) -> _Asked:
    """Ask the row at the last boundary; positions at which the model says nothing are left out."""
    row = np.searchsorted(encoding.row_bytes, at, side="right") - 1
    text = b" " + encoding.data  # a dummy prefix counts as a byte before the text
    row_byte = encoding.row_bytes[row]
    lost = encoding.lost_before
    answered = lost[at] == lost[np.maximum(row_byte, 0)]
    if tokenizer.start_id is None:
        answered &= row > 0
    read = encoding.ids[encoding.text_tokens]
    for n in np.flatnonzero(answered).tolist():
        known = text[row_byte[n] + 1 : at[n] + 1]
        # A token with characters that the text has not may begin otherwise, unless none are known.
        token = tokenizer.bytes_of[read[row[n]]] if known and row[n] < len(read) else b""
        answered[n] = (token or b"").startswith(known)
    some = np.flatnonzero(answered)
    return _Asked(some, row[some], (at - row_byte)[some], some)


def _groups(
    asked: _Asked, at: np.ndarray, encoding: Encoding
) -> dict[tuple[bytes, bytes], list[int]]:
    """Gather what is asked by the bytes since the row's boundary, and since a character began."""
    text = b" " + encoding.data
    leads = (np.frombuffer(encoding.data, np.uint8) & 0xC0) != 0x80
    begins = np.append(np.flatnonzero(leads), len(leads))
    begin = begins[np.searchsorted(begins, at, side="right") - 1]
    groups: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
    for e, n in enumerate(asked.position.tolist()):
        known = text[at[n] + 1 - asked.known[e] : at[n] + 1]
        groups[known, encoding.data[begin[n] : at[n]]].append(e)
    return groups


def _probs(
    given: NextTokenRows | Covers, asked: _Asked, chosen: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what is asked as (r, vocabulary) probabilities, and the (r,) tails."""
    rows = given.rows
    if isinstance(rows, DenseRows):
        probs = rows.logprobs[torch.as_tensor(asked.row[chosen], device=rows.logprobs.device)].exp()
        tail = probs.new_zeros(len(probs))
    else:
        where = torch.as_tensor(asked.row[chosen], device=rows.probs.device)
        few, tail = rows.probs[where], rows.tail[where]
        probs = few.new_zeros(len(few), rows.vocab_size)
        probs.scatter_add_(1, rows.ids[where].clamp(min=0), few)
    if isinstance(given, Covers):
        for n, cover in enumerate(asked.cover[chosen].tolist()):
            probs[n, torch.as_tensor(given.excluded_of(cover), device=probs.device)] = 0
        weight = given.weight[asked.cover[chosen]]
        probs = probs * torch.as_tensor(weight, device=probs.device)[:, None]
    return probs, tail


def _agreeing(
    probs: torch.Tensor, tail: torch.Tensor, given: Continuations, *, normalise: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Take what agrees with known bytes.

    Args:
        probs: (r, vocabulary) probabilities.
        tail: (r,) mass that was cut off.
        given: what the vocabulary's tokens go on with after the known bytes.
        normalise: over what agrees, what ends within the known bytes, and the tail.

    Returns:
        (r, l) probabilities of the labels, (r,) of the text's end, and (r,) unknown.
    """
    candidates, others, end = (
        probs[:, torch.as_tensor(x, device=probs.device)]
        for x in (given.candidates, given.others, given.end)
    )
    sums, ends = _summed(candidates, given.label, len(given.labels)), end.sum(1)
    unknown = others.sum(1) + tail
    if not normalise:
        return sums, ends, unknown
    total = sums.sum(1) + ends + unknown
    unknown = torch.where(total > 0, unknown, 1)
    total = torch.where(total > 0, total, 1)
    return sums / total[:, None], ends / total, unknown / total


def _summed(values: torch.Tensor, group: np.ndarray, size: int) -> torch.Tensor:
    """Sum (r, n) values by the group of each column, to (r, size)."""
    index = torch.as_tensor(group, device=values.device).expand_as(values)
    return values.new_zeros(len(values), size).scatter_add_(1, index, values)
