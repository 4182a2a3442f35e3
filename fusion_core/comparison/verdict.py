"""Verdict on a claim: "better", "no gain" or "undecided", by a paired test that is written here.

The claim is that one method needs fewer bits per byte than another. Both were trained with the same
S seeds and measured on the same D documents, so that what counts is the difference of each pair:
d[s, i] = (bits of the other method - bits of this one) on document i with seed s, over the mean
number of bytes of a document; its mean is the gain in bits per byte.

Seeds and documents are both a sample of those that could have been drawn, and are crossed. With the
mean squares of seeds, of documents and of what is left,

    MS_s = D·Σ_s (d[s,·] - gain)²/(S-1)     MS_d = S·Σ_i (d[·,i] - gain)²/(D-1)
    MS_r = Σ_si (d[s,i] - d[s,·] - d[·,i] + gain)²/((S-1)(D-1))

the variance of the gain is V = M/(S·D) with M = max(MS_s + MS_d - MS_r, MS_s, MS_d), and has
M²/(MS_s²/(S-1) + MS_d²/(D-1)) degrees of freedom, by Satterthwaite's rule. The interval
gain ± t·√V, with Student's t at 95 %, decides:

    better      it lies above 0, and the gain is at least 1 % of the other method's bits per byte
    no gain     it lies below 1 % of the other method's bits per byte: less is worth no training
    undecided   all else; more seeds and documents would tell

One seed does not tell how much seeds matter: a claim about methods that are trained is then
undecided, and its interval that of the documents alone, V = MS_d/D. So is the interval of two
methods that are not trained, which every seed finds alike; it decides. With fewer than two
documents everything is undecided.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

MARGIN = 0.01
"""Share of the other method's bits per byte below which a gain is none."""

CONFIDENCE = 0.95

Word = Literal["better", "no gain", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """Verdict on the claim that one method is better than another.

    Attributes:
        word: "better", "no gain" or "undecided".
        gain: bits per byte that the method saves.
        low: lower end of the interval that covers the true gain.
        high: upper end.
        relative: gain over the other method's bits per byte.
        seeds: number of seeds; 1 where neither method is trained.
        documents: number of documents.
    """

    word: Word
    gain: float
    low: float
    high: float
    relative: float
    seeds: int
    documents: int

    def to_report(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return asdict(self)


def judge(
    method: np.ndarray, other: np.ndarray, n_bytes: np.ndarray, *, trained: bool = True
) -> Verdict:
    """Judge whether a method is better than another; see this module for the test.

    Args:
        method: (S, D) bits of every document with every seed; (1, D) of a method that is not
            trained.
        other: the same of the other method; the one with one row is repeated.
        n_bytes: (D,) of the documents.
        trained: whether one of them is.

    Raises:
        ValueError: the shapes do not agree.
    """
    rows = {len(method), len(other)} - {1}
    if len(rows) > 1 or not method.shape[1] == other.shape[1] == len(n_bytes):
        raise ValueError(f"{method.shape=}, {other.shape=} and {n_bytes.shape=} do not agree")
    size = float(n_bytes.mean())
    d = (np.asarray(other, float) - np.asarray(method, float)) / size  # (S, D)
    base, gain, half = float(np.mean(other)) / size, float(d.mean()), half_width(d)
    word: Word = "undecided"
    if len(d) > 1 or not trained:
        if gain + half < MARGIN * base:
            word = "no gain"
        elif gain - half > 0 and gain >= MARGIN * base:
            word = "better"
    relative = gain / base if base else 0.0
    return Verdict(word, gain, gain - half, gain + half, relative, *d.shape)


def half_width(d: np.ndarray) -> float:
    """Return half the width of the interval around the mean of (S, D) paired differences."""
    (seeds, documents), mean = d.shape, d.mean()
    if documents < 2:
        return math.inf
    of_seeds, of_documents = d.mean(1) - mean, d.mean(0) - mean
    ms_d = seeds * float((of_documents**2).sum()) / (documents - 1)
    if seeds == 1:
        return student(documents - 1) * math.sqrt(ms_d / documents)
    ms_s = documents * float((of_seeds**2).sum()) / (seeds - 1)
    rest = d - mean - of_seeds[:, None] - of_documents
    ms_r = float((rest**2).sum()) / ((seeds - 1) * (documents - 1))
    squares = ms_s**2 / (seeds - 1) + ms_d**2 / (documents - 1)
    if not squares:
        return 0.0
    most = max(ms_s + ms_d - ms_r, ms_s, ms_d)
    return student(most**2 / squares) * math.sqrt(most / d.size)


def student(freedom: float) -> float:
    """Return what Student's t exceeds in size in 5 of 100 draws, at any degrees of freedom.

    With x = √f·tan θ its density becomes that of θ, proportional to cos^(f-1) θ.
    """
    theta = np.linspace(0, math.pi / 2, 20_001)
    share = np.cumsum(np.cos((theta[1:] + theta[:-1]) / 2) ** (freedom - 1))
    at = np.interp(CONFIDENCE * share[-1], share, theta[1:])
    return math.sqrt(freedom) * math.tan(at)
