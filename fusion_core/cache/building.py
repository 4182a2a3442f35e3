"""Documents -> a cache of fused rows, or of each source's projected rows."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusion_core import __version__, fuse, mapping, models, pipeline
from fusion_core.config import FusionConfig
from fusion_core.errors import InputError
from fusion_core.models import LoadedModel
from fusion_core.project import project
from fusion_core.reading import check_rows, read_documents
from fusion_core.records import (
    FusedRows,
    Progress,
    ProjectedRows,
    ProjectedWindow,
    SparseRows,
    TextReading,
    scattered,
)

from .distributed import Processes
from .manifest import Manifest, plan
from .shards import StoredDocument
from .store import Cache, CacheWriter

SHARD_BYTES = 256_000
"""Text of one shard: what a kill can cost."""

KEPT_STEPS = 255
"""In how many steps a cache counts kept mass."""

KINDS = {"fused": "one fused row a position", "sources": "every source's row, to be fused later"}
LIBRARIES = ("numpy", "tokenizers", "torch", "transformers")


def settings(
    target: LoadedModel,
    sources: Sequence[LoadedModel],
    config: FusionConfig,
    corpus: Sequence[str] = (),
) -> dict[str, Any]:
    """Name all that decides the numbers of a cache; training compares what it asks for with it.

    Args:
        target: the model that is to be taught.
        sources: the models that teach.
        config: how rows are projected and fused.
        corpus: texts for strategies that count.
    """
    counts = mapping.strategy(config.strategy).counts
    return {
        "target": {"name": target.name, **models.identity(target)},
        "sources": [{"name": s.name, **models.identity(s)} for s in sources],
        "config": config.model_dump(),
        "corpus": mapping.corpus_key(corpus) if counts else None,
        "versions": versions(),
    }


def versions(*more: str) -> dict[str, str]:
    """Return the versions that decide a cache's numbers, and those of more libraries."""
    return {"fusion_core": __version__} | {
        name: importlib.metadata.version(name) for name in (*LIBRARIES, *more)
    }


def build_cache(
    target: LoadedModel,
    sources: Sequence[LoadedModel],
    documents: Sequence[str],
    config: FusionConfig,
    folder: str | Path,
    *,
    kind: str = "fused",
    shard_bytes: int = SHARD_BYTES,
    corpus: Sequence[str] = (),
    progress: Progress | None = None,
) -> Cache:
    """Fuse documents and write their rows, or go on where an earlier build was interrupted.

    Started by `accelerate launch` with any number of processes, each writes its own shards. The
    content of a shard depends on its documents and the settings alone.

    Args:
        target: the model that is to be taught.
        sources: the models that teach, at least one.
        documents: texts that are not empty.
        config: how rows are projected and fused.
        folder: a new or empty folder, or one with an unfinished cache of the same settings.
        kind: name in `KINDS`.
        shard_bytes: most bytes of text of a shard.
        corpus: texts for strategies that count; the documents by default.
        progress: told of every shard.

    Raises:
        InputError: the folder holds something else, or cannot be written; no source; a model named
            twice; a document that is of no use; a tokenizer without exact rows, where such are
            asked for.
    """
    if kind not in KINDS:
        raise InputError(f"There is no kind of cache {kind!r}: choose one of {', '.join(KINDS)}.")
    maps = pipeline.mappings(
        target, sources, config, corpus or documents, progress, keep=bool(corpus)
    )
    sizes = [len(d.encode()) for d in documents]
    manifest = Manifest(
        kind,
        settings(target, sources, config, corpus or documents),
        mapping.corpus_key(documents),
        plan(sizes, shard_bytes),
    )
    served = [s.name for s in sources if s.server]
    check_rows(target.tokenizer, [s.tokenizer for s in sources], config, served)
    writer = CacheWriter(folder, manifest)
    group = Processes()
    if group.first:
        writer.prepare(documents)
    group.wait()
    began, missing = time.monotonic(), writer.missing(group.index, group.number)
    for done, number in enumerate(missing):
        if progress:
            progress(_sentence(done, len(missing), began), done / len(missing))
        first, last = manifest.shards[number]
        some = read_documents([target, *sources], documents[first:last], config, before=first)
        writer.write(number, [stored(reading, maps, config, kind) for reading in some])
    group.wait()
    return Cache.open(folder)


def _sentence(done: int, shards: int, began: float) -> str:
    """Say which shard is made, and about how long the others will take."""
    left = ""
    if done:
        seconds = (time.monotonic() - began) / done * (shards - done)
        left = f", about {seconds:.0f} s left"
    return f"shard {done + 1} of {shards}{left}"


def stored(
    reading: TextReading,
    maps: Sequence[mapping.VocabMapping],
    config: FusionConfig,
    kind: str,
) -> StoredDocument:
    """Fuse one document's rows, in the form in which a cache keeps them.

    Args:
        reading: the document.
        maps: the sources' vocab mappings.
        config: how rows are projected and fused.
        kind: name in `KINDS`.

    Returns:
        The rows, and with them ``bits_per_byte`` (S + 1,) of the target and the sources. Kind
        "fused": ``weights`` (S,) of the sources, averaged over the rows, and ``kept`` (m,) uint8,
        the mass that was mapped in 255ths, 0 where the target's native row stands. Kind "sources":
        ``kept`` (m, S) uint8, ``ce`` and ``entropy`` (m, S) float16 of the projected rows.
    """
    every = _EverySource(config.top_k) if kind == "sources" else None
    projection = project(reading, config.strategy, mappings=maps, chain_rule=config.chain_rule)
    fused = pipeline.fuse_text(projection, config, entropy=False, look=every).fused
    bits = list(reading.bits_per_byte.values())
    extras: dict[str, np.ndarray] = {"bits_per_byte": np.asarray(bits, np.float32)}
    kept = (fused.weights * fused.kept).sum(1) if every is None else fused.kept[:, : len(maps)]
    # Rounded up: 0 is kept for rows to which no source had anything to say.
    extras["kept"] = np.ceil(KEPT_STEPS * kept.clamp(0, 1).numpy()).astype(np.uint8)
    if every is None:
        rows = {"fused": fused.rows}
        extras["weights"] = fused.weights.mean(0).numpy().astype(np.float16)
    else:
        rows = every.rows(len(fused))
        extras["ce"] = fused.ce[:, : len(maps)].numpy().astype(np.float16)
        extras["entropy"] = every.entropies(len(fused)).numpy().astype(np.float16)
    target = reading.encodings[0]
    ids = target.ids[target.text_tokens]
    return StoredDocument(rows, fused.rows.ids.new_tensor(ids), extras)


class _EverySource:
    """Keeps the top of every source's projected rows, and of the target's native rows."""

    def __init__(self, top_k: int) -> None:
        self._top_k = top_k
        self._tops: dict[str, list[SparseRows]] = {}
        self._entropies: list[torch.Tensor] = []
        self._where: list[np.ndarray] = []

    def __call__(
        self, window: ProjectedWindow, rows: list[ProjectedRows], fused: FusedRows
    ) -> None:
        """Take the rows that a window owns; see `fuse.rows.Look`."""
        reading, target = window.reading, window.reading.rows[0]
        where, own = reading.owned(0)
        pick = torch.as_tensor(own, device=fused.winner.device)
        tops = {str(j): fuse.top_rows(r, target, self._top_k) for j, r in enumerate(window.rows)}
        tops["target"] = pipeline.top_of(target, self._top_k)
        for name, top in tops.items():
            self._tops.setdefault(name, []).append(top.at(pick))
        self._entropies.append(fuse.entropies(window.rows, target)[pick])
        self._where.append(where)

    def rows(self, m: int) -> dict[str, SparseRows]:
        """Return the m rows of each source by its number, and of the target."""
        where = np.concatenate(self._where)
        return {n: SparseRows.concat(tops).scattered(where, m) for n, tops in self._tops.items()}

    def entropies(self, m: int) -> torch.Tensor:
        """Return (m, S) nats, the entropies of the sources' projected rows."""
        return scattered(torch.cat(self._entropies), np.concatenate(self._where), m)


def fuse_again(
    document: StoredDocument,
    *,
    operator: str = "min_ce",
    level: str = "sequence",
    top_k: int = 10,
    operator_temperature: float = 1.0,
    sources: Sequence[int] | None = None,
) -> StoredDocument:
    """Fuse a document of a cache of kind "sources" again, without any model.

    Args:
        document: as `stored` made it.
        operator: name in `fuse.OPERATORS`.
        level: "sequence" or "token".
        top_k: tokens kept of a fused row.
        operator_temperature: what scores are divided by before a softmax.
        sources: which of them take part; all by default.

    Returns:
        The document as a cache of kind "fused" has it, but for what the sources' tails held.

    Raises:
        InputError: there is no such operator, level or source, or the document has fused rows.
    """
    fuse.operator_of(operator, level)
    every = len(document.rows) - 1
    chosen = list(range(every)) if sources is None else list(sources)
    if "target" not in document.rows or not chosen or not set(chosen) <= set(range(every)):
        raise InputError(
            f"Sources {chosen} are not to be had from this document of {max(every, 0)}: build a "
            "cache of kind sources, and name sources that it has."
        )
    extras = document.extras
    rows, weights = fuse.fuse_truncated(
        [document.rows[str(j)] for j in chosen],
        document.rows["target"],
        _measures(document, chosen),
        operator=operator,
        level=level,
        top_k=top_k,
        operator_temperature=operator_temperature,
    )
    kept = (weights.numpy() * extras["kept"][:, chosen]).sum(1)
    return StoredDocument(
        {"fused": rows},
        document.observed,
        {
            "bits_per_byte": extras["bits_per_byte"][[0, *(j + 1 for j in chosen)]],
            "kept": np.ceil(kept).astype(np.uint8),
            "weights": weights.mean(0).numpy().astype(np.float16),
        },
    )


def _measures(document: StoredDocument, chosen: Sequence[int]) -> fuse.Measures:
    """Return what sources can be weighed by, as far as a cache keeps it."""
    extras = document.extras

    def of(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values[..., list(chosen)].astype(np.float32))

    return fuse.Measures(
        token_ce=lambda: of(extras["ce"]),
        sequence_ce=lambda: of(extras["bits_per_byte"][1:]).expand(len(document), -1),
        entropy=lambda: of(extras["entropy"]),
        top=lambda: torch.stack([document.rows[str(j)].probs[:, 0] for j in chosen], dim=1),
    )
