"""Texts with the rows of a target and three sources, ready to be projected and fused.

The zoo on documents in which its domains meet, and the vocabularies of real models with random rows
along a real text; fusion.py, storage.py and gpu.py measure on them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fusion_core import corpus, fuse, mapping, project, tokens
from fusion_core.align import by_bytes
from fusion_core.config import FusionConfig
from fusion_core.mapping import VocabMapping
from fusion_core.models import LoadedModel
from fusion_core.reading import read
from fusion_core.records import (
    Alignment,
    DenseRows,
    Encoding,
    FusedRows,
    NextTokenRows,
    SparseRows,
    TextReading,
)
from fusion_core.tokens import TextTokenizer

POSITIONS = 2048
CONFIG = FusionConfig(source_top_k=10, overlap=0)
OPERATORS = ("min_ce", "mean", "product")
LARGE = ("llama-2-7b-fast", "gpt-neox-20b_mpt", "open_llama_3b-fast", "llama-3")
"""The target and the sources whose vocabularies are large."""
SPREAD, LIFT = 2.5, 4.0
"""Random rows: standard deviation of their logits, and how much the next token's is raised, in
nats. The target's most probable token has 0.1 to 0.6."""


@dataclass(frozen=True, eq=False)
class Part:
    """A window, ready to be projected and fused.

    Attributes:
        encodings: of the target and of each source.
        rows: of the target, whole, and of each source, cut.
        alignments: of the target with each source.
    """

    encodings: list[Encoding]
    rows: list[NextTokenRows]
    alignments: list[Alignment]

    @staticmethod
    def all_of(reading: TextReading) -> list[Part]:
        """List the windows of a text."""
        sources = range(1, len(reading.models))
        return [
            Part(list(w.encodings), list(w.rows), [project.aligned(reading, w, j) for j in sources])
            for w in reading.windows
        ]

    @property
    def kinds(self) -> np.ndarray:
        """(S, m) of `RowKind`."""
        return np.stack([a.kind for a in self.alignments])


@dataclass(frozen=True, eq=False)
class Case:
    """A text as a target and three sources read it."""

    name: str
    tokenizers: list[TextTokenizer]
    text: str
    parts: list[Part]
    bits: list[float]

    def maps(self, strategy: str) -> list[VocabMapping]:
        """Return the sources' vocab mappings."""
        target, *sources = self.tokenizers
        return [mapping.mapping_between(s, target, strategy, [self.text]) for s in sources]


def exactly(tokenizer: TextTokenizer, text: str) -> str:
    """Cut a text so that it has exactly POSITIONS tokens."""
    whole = tokenizer.encode(text)
    for last in whole.end[whole.text_tokens][POSITIONS - 8 :].tolist():
        part = whole.data[:last].decode("utf-8", "ignore")
        if len(tokenizer.encode(part).text_tokens) == POSITIONS:
            return part
    raise ValueError(f"no beginning of the text has {POSITIONS} tokens")


def zoo_case(readers: Sequence[LoadedModel]) -> Case:
    """Let the zoo read documents in which its domains meet."""
    text = exactly(readers[0].tokenizer, "\n\n".join(corpus.text("mixed", "test", 12_000)))
    reading = read(text, readers[0], readers[1:], CONFIG)
    parts = Part.all_of(reading)
    bits = list(reading.bits_per_byte.values())
    return Case(f"the zoo, {len(parts)} windows", list(reading.tokenizers), text, parts, bits)


def large_case(tokenizers: Path, data: Path) -> Case:
    """Give the vocabularies of real models random rows along a real text."""
    loaded = [tokens.load(tokenizers / name, name) for name in LARGE]
    raw = (data / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")
    encodings = [t.encode(exactly(loaded[0], raw[:20_000])) for t in loaded]
    generator = torch.Generator().manual_seed(0)
    rows = [
        random_rows(e, t.size, generator, CONFIG.source_top_k if j else None)
        for j, (e, t) in enumerate(zip(encodings, loaded, strict=True))
    ]
    part = Part(encodings, rows, [by_bytes(encodings[0], e) for e in encodings[1:]])
    text = encodings[0].data.decode("utf-8")
    return Case(f"{LARGE[0]} ← {', '.join(LARGE[1:])}", loaded, text, [part], [1.0, 0.9, 0.8, 1.0])


def random_rows(
    encoding: Encoding,
    size: int,
    generator: torch.Generator,
    top_k: int | None,
    device: str = "cpu",
) -> NextTokenRows:
    """Draw peaked rows: the text's own token frequencies times log-normal noise.

    Rows of independent noise alone would name rare long tokens, which hardly go anywhere.

    Args:
        encoding: a text of n tokens.
        size: of the vocabulary.
        generator: of the noise.
        top_k: tokens kept of a row; None for whole rows.
        device: where the rows are to be.
    """
    ids = torch.as_tensor(encoding.ids[encoding.text_tokens])
    observed = torch.cat([ids, torch.tensor([-1])])
    frequency = (torch.bincount(ids, minlength=size) + 0.01).log()
    parts: list[tuple[torch.Tensor, ...]] = []
    for some in observed.split(256):
        logits = frequency + SPREAD * torch.randn(len(some), size, generator=generator)
        logits[torch.arange(len(some)), some.clamp(min=0)] += LIFT
        logprobs = torch.log_softmax(logits, dim=1)
        parts.append((logprobs,) if top_k is None else logprobs.topk(top_k, dim=1))
    joined = [torch.cat(x) for x in zip(*parts, strict=True)]
    rows: DenseRows | SparseRows
    if top_k is None:
        rows = DenseRows(joined[0])
        picked = rows.logprobs.gather(1, observed.clamp(min=0)[:, None])[:, 0]
    else:
        probs = joined[0].exp()
        rows = SparseRows(joined[1], probs, 1 - probs.sum(1), size)
        picked = torch.full((len(observed),), torch.nan)
    where = torch.device(device)
    boundary = encoding.row_bytes.clip(0)
    return NextTokenRows(
        encoding.model, rows.to(where), observed.to(where), picked.to(where), boundary
    )


def fused(
    case: Case,
    maps: Sequence[VocabMapping],
    operator: str = CONFIG.operator,
    *,
    entropy: bool = True,
) -> list[FusedRows]:
    """Project and fuse: one record a part.

    Args:
        case: the text.
        maps: the sources' vocab mappings.
        operator: name in `fuse.OPERATORS`.
        entropy: as for `fuse.fuse_rows`.
    """
    out = []
    for part in case.parts:
        # New rows forget what they have been asked before.
        target = replace(part.rows[0], rows=DenseRows(part.rows[0].logprobs))
        projected = [
            project.project_rows(part.rows[j], target, part.alignments[j - 1], pairs)
            for j, pairs in enumerate(maps, start=1)
        ]
        out.append(
            fuse.fuse_rows(
                projected,
                target,
                case.bits[1:],
                operator=operator,
                top_k=CONFIG.top_k,
                entropy=entropy,
            )
        )
    return out
