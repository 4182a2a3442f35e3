"""Documents -> a cache of fused rows, or of each source's carried-over rows."""

from __future__ import annotations

import hashlib
import importlib.metadata
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fusion_core import __version__, fuse, mapping, models, pipeline
from fusion_core.config import FusionConfig
from fusion_core.errors import InputError
from fusion_core.gather import Gathering
from fusion_core.models import LoadedModel
from fusion_core.reading import JointText, Progress, joint_texts

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
        config: how rows are carried over and fused.
        corpus: texts for strategies that count.
    """
    counts = mapping.strategy(config.strategy).counts
    return {
        "target": {"name": target.name, **models.identity(target)},
        "sources": [{"name": s.name, **models.identity(s)} for s in sources],
        "config": asdict(config),
        "corpus": data_key(corpus) if counts else None,
        "versions": versions(),
    }


def versions(*more: str) -> dict[str, str]:
    """Return the versions that decide a cache's numbers, and those of more libraries."""
    return {"fusion_core": __version__} | {
        name: importlib.metadata.version(name) for name in (*LIBRARIES, *more)
    }


def data_key(documents: Sequence[str]) -> str:
    """Hash documents, where they begin and end included."""
    key = hashlib.sha256()
    for document in documents:
        data = document.encode()
        key.update(len(data).to_bytes(8, "big") + data)
    return key.hexdigest()


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
        config: how rows are carried over and fused.
        folder: a new or empty folder, or one with an unfinished cache of the same settings.
        kind: name in `KINDS`.
        shard_bytes: most bytes of text of a shard.
        corpus: texts for strategies that count; the documents by default.
        progress: told of every shard.

    Raises:
        InputError: the folder holds something else, or cannot be written; no source; a model named
            twice; a document that is of no use.
    """
    if kind not in KINDS:
        raise InputError(f"There is no kind of cache {kind!r}: choose one of {', '.join(KINDS)}.")
    maps = pipeline.mappings(target, sources, config, corpus or documents, progress)
    sizes = [len(d.encode()) for d in documents]
    manifest = Manifest(
        kind,
        settings(target, sources, config, corpus or documents),
        data_key(documents),
        plan(sizes, shard_bytes),
    )
    writer = CacheWriter(folder, manifest)
    group = Processes()
    if group.first:
        writer.prepare(documents)
    group.wait()
    began, missing = time.monotonic(), writer.missing(group.index, group.number)
    for done, number in enumerate(missing):
        if progress:
            progress(_told(done, len(missing), began), done / len(missing))
        first, last = manifest.shards[number]
        texts = joint_texts([target, *sources], documents[first:last], config, before=first)
        writer.write(number, [stored(text, maps, config, kind) for text in texts])
    group.wait()
    return Cache.open(folder)


def _told(done: int, shards: int, began: float) -> str:
    left = ""
    if done:
        seconds = (time.monotonic() - began) / done * (shards - done)
        left = f", about {seconds:.0f} s left"
    return f"shard {done + 1} of {shards}{left}"


def stored(
    text: JointText, maps: Sequence[mapping.Mapping | None], config: FusionConfig, kind: str
) -> StoredDocument:
    """Fuse one document's rows, in the form in which a cache keeps them.

    Args:
        text: the document.
        maps: the sources' vocab mappings.
        config: how rows are carried over and fused.
        kind: name in `KINDS`.

    Returns:
        The rows, and with them ``bits_per_byte`` (S + 1,) of the target and the sources. Kind
        "fused": ``weights`` (S,) of the sources, averaged over the rows, and ``kept`` (m,) uint8,
        the mass that was mapped in 255ths, 0 where the target's own row stands. Kind "sources":
        ``kept`` (m, S) uint8, ``ce`` and ``entropy`` (m, S) float16 of the carried-over rows.
    """
    top_k = config.top_k if kind == "sources" else None
    gathered = Gathering(text, maps, config, carried_top_k=top_k)
    gathered.gather()
    fused, own = gathered.fused(), text.encodings[0]
    extras: dict[str, np.ndarray] = {"bits_per_byte": np.asarray(gathered.bits, np.float32)}
    kept = fused.kept if kind == "sources" else (fused.weights * fused.kept).sum(1)
    # Rounded up: 0 is kept for rows to which no source had anything to say.
    extras["kept"] = np.ceil(KEPT_STEPS * kept.clamp(0, 1).numpy()).astype(np.uint8)
    if kind == "fused":
        rows = {"fused": fused.rows}
        extras["weights"] = fused.weights.mean(0).numpy().astype(np.float16)
    else:
        n = len(maps)
        rows = {str(j): gathered.carried(j + 1) for j in range(n)} | {"target": gathered.carried(0)}
        extras["kept"] = extras["kept"][:, :n]
        extras["ce"] = fused.ce[:, :n].numpy().astype(np.float16)
        extras["entropy"] = gathered.row_values("entropies").numpy().astype(np.float16)
    ids = own.ids[own.text_tokens]
    return StoredDocument(rows, fused.rows.ids.new_tensor(ids), extras)


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
    fuse.check(operator, level)
    every = len(document.rows) - 1
    chosen = list(range(every)) if sources is None else list(sources)
    if "target" not in document.rows or not chosen or not set(chosen) <= set(range(every)):
        raise InputError(
            f"Sources {chosen} are not to be had from this document of {max(every, 0)}: build a "
            "cache of kind sources, and name sources that it has."
        )
    m, extras = len(document), document.extras
    bits = np.broadcast_to(extras["bits_per_byte"][1:], (m, every))
    scores = {
        "ce": bits if level == "sequence" else extras["ce"],
        "entropy": extras["entropy"],
        "": bits,
    }[fuse.OPERATORS[operator].score]
    rows, weights = fuse.fuse_sparse(
        [document.rows[str(j)] for j in chosen],
        document.rows["target"],
        scores[:, chosen].astype(np.float32) / operator_temperature,
        operator=operator,
        top_k=top_k,
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
