"""Random rows and random segmentations of a text over small vocabularies, and Jeffrey's rule.

The rows are of no model and the tokens of no tokenizer's own spelling, so that every kind of
position comes up: shared, inside a token, after a dummy prefix on one side or both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from conftest import byte_level, chain, sentencepiece

from fusion_core import project
from fusion_core.align import by_bytes
from fusion_core.mapping import Consistency, PrefixRelation, VocabMapping
from fusion_core.records import DenseRows, Encoding, NextTokenRows, SparseRows
from fusion_core.tokens import TextTokenizer

# The only lines that know how the library is called -------------------------------------------


@dataclass
class Case:
    """A text in the tokens of both sides, with rows for both."""

    target: Encoding
    source: Encoding
    target_rows: NextTokenRows
    source_rows: NextTokenRows

    def project(self, mapping: VocabMapping) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (m, V) probabilities, (m,) kept masses and (m,) kinds."""
        alignment = by_bytes(self.target, self.source)
        rows = project.project_rows(self.source_rows, self.target_rows, alignment, mapping)
        probs = rows.probs(self.target_rows.dense.probs[:-1])
        return probs.double().numpy(), rows.kept.double().numpy(), rows.kind


# Vocabularies, segmentations, rows ------------------------------------------------------------


def marked(*words: str) -> TextTokenizer:
    merges = chain(*words)
    letters = list("▁abcdefghijklmnopqrst東")
    backend = sentencepiece(letters + [a + b for a, b in merges], merges)
    return TextTokenizer(backend, "-".join(words), start_id=1, eos_id=2)


def plain(*words: str) -> TextTokenizer:
    backend = byte_level(chain(*words))
    eos = backend.token_to_id("<|endoftext|>")
    return TextTokenizer(backend, "-".join(words), start_id=eos, eos_id=eos)


VOCABULARIES = {
    "marked": marked("▁the", "▁cat", "at"),
    "marked too": marked("▁th", "▁ca", "cats", "▁a"),
    "plain": plain("Ġthe", "the", "Ġca", "ts"),
    "plain too": plain("Ġcat", "he", "æĿ±", "th"),
}
DUMMY = {"marked", "marked too"}
PAIRS = [
    ("marked", "marked too"),
    ("marked too", "marked"),
    ("marked", "plain"),
    ("plain", "marked"),
    ("plain", "plain too"),
    ("marked", "marked"),
    ("plain too", "plain too"),
]
TEXT = "the cats at 東 the"


def cut(name: str, text: str, rng: np.random.Generator) -> Encoding:
    """Cut a text into tokens of a vocabulary at random, its dummy prefix before it."""
    tokenizer, dummy = VOCABULARIES[name], name in DUMMY
    spelled = b" " * dummy + text.encode()
    ids, ends = [], []
    at = 0
    while at < len(spelled):
        lengths = [n for n in range(1, 9) if spelled[at : at + n] in tokenizer.ids_of]
        n = int(rng.choice([n for n in lengths if at + n <= len(spelled)]))
        ids.append(tokenizer.id_of(spelled[at : at + n]))
        at += n
        ends.append(at - dummy)
    start = [0, *ends[:-1]]
    special = np.zeros(len(ids), bool)
    pieces = tuple(map(str, ids))
    arrays = (np.asarray(x, np.int64) for x in (ids, start, ends))
    return Encoding(name, text.encode(), *arrays, special, pieces, dummy_prefix=dummy)


def next_tokens(encoding: Encoding, size: int, rng: np.random.Generator) -> NextTokenRows:
    """Draw rows, a quarter of their tokens impossible."""
    n = len(encoding) + 1
    p = rng.dirichlet(np.full(size, 0.3), n) * (rng.random((n, size)) > 0.25)
    logprobs = torch.from_numpy(p / p.sum(1, keepdims=True)).log().float()
    observed = torch.from_numpy(np.append(encoding.ids, -1))
    return NextTokenRows(
        encoding.model, DenseRows(logprobs), observed, torch.zeros(n), encoding.row_bytes
    )


def cut_to(rows: NextTokenRows, k: int) -> NextTokenRows:
    """Keep k tokens, one fewer in every other row."""
    top, ids = rows.dense.probs.topk(k, dim=1)
    top[::2, -1], ids[::2, -1] = 0, -1
    kept = SparseRows(ids, top, 1 - top.sum(1), rows.dense.vocab_size)
    return NextTokenRows(rows.model, kept, rows.observed, rows.observed_logprob, rows.boundary)


def drawn(target: str, source: str, seed: int, top_k: int | None = None) -> Case:
    rng = np.random.default_rng(seed)
    t, s = cut(target, TEXT, rng), cut(source, TEXT, rng)
    t_rows = next_tokens(t, VOCABULARIES[target].size, rng)
    s_rows = next_tokens(s, VOCABULARIES[source].size, rng)
    return Case(t, s, t_rows, cut_to(s_rows, top_k) if top_k else s_rows)


def row(rows: NextTokenRows, r: int) -> tuple[np.ndarray, float]:
    """Lay a row out over the vocabulary, with what was cut off."""
    if isinstance(rows.rows, DenseRows):
        return rows.dense.probs[r].double().numpy(), 0.0
    p = np.zeros(rows.rows.vocab_size)
    for token, x in zip(rows.rows.ids[r].tolist(), rows.rows.probs[r].tolist(), strict=True):
        if token >= 0:
            p[token] += x
    return p, float(rows.rows.tail[r])


RELATIONS: dict[tuple[str, str], PrefixRelation] = {}


def relation(target: str, source: str) -> PrefixRelation:
    return RELATIONS.setdefault(
        (target, source), PrefixRelation(VOCABULARIES[source], VOCABULARIES[target])
    )


def standing(case: Case, i: int) -> tuple[int, bytes, bool]:
    """Find where row i stands.

    Returns:
        The source's row, the bytes known of its next token, and whether the target alone has yet
        to spell its dummy prefix.
    """
    at, places = int(case.target.row_bytes[i]), case.source.row_bytes.tolist()
    at = max(at, places[0])
    r = max(j for j, place in enumerate(places) if place <= at)
    yet = case.target.dummy_prefix and not case.source.dummy_prefix and i == 0
    return r, (b" " + case.source.data)[places[r] + 1 : at + 1], yet


def jeffrey(
    p_s: np.ndarray, tail: float, p_t: np.ndarray, pairs: Consistency
) -> tuple[np.ndarray, float]:
    """Share the tokens that agree among their mates as the target has them.

    Returns:
        (S, V) what goes from where to where, and what share of the mass that agrees it is.
    """
    mates = np.zeros((len(p_s), len(p_t)))
    mates[pairs.candidates[pairs.edge_source], pairs.edge_target] = 1
    agrees = np.isin(np.arange(len(p_s)), pairs.candidates)
    ends = np.isin(np.arange(len(p_s)), pairs.others)
    total = p_s[agrees | ends].sum() + tail
    room = mates @ p_t
    mapped = np.where(agrees & (room > 0), p_s, 0)
    share = np.divide(mapped, room, where=room > 0, out=np.zeros_like(room))
    total = total or 1
    return share[:, None] * mates * p_t / total, mapped.sum() / total
