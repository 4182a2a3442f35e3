"""Text of a run before it begins: the data, and what the sources write beside it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fusion_core import generation
from fusion_core.cache.distributed import Processes
from fusion_core.config import RunConfig
from fusion_core.io import documents
from fusion_core.io.files import write_whole
from fusion_core.models import LoadedModel
from fusion_core.records import Progress

from .stream import KeptBatches

LONGEST_TOKEN = 16
"""Bytes of text that are drawn from a stream for every token that will be taught."""

WRITTEN, WRITING = "written.jsonl", "writing"


def read_texts(
    config: RunConfig,
    target: LoadedModel,
    sources: Sequence[LoadedModel],
    folder: Path,
    positions: int | None,
    progress: Progress,
) -> tuple[list[str], str]:
    """Read the data and what the sources write, no more than will be read.

    Args:
        config: the run's.
        target: in whose tokens what will be read is counted.
        sources: that write.
        folder: the run's, where what they write is kept.
        positions: how many positions of the target will be read at most; None for all.
        progress: called with what is being done.

    Returns:
        The documents, and a sentence on them.
    """
    texts: list[str] = []
    about = []
    if config.data is not None:
        at_most = documents.IN_MEMORY if positions is None else LONGEST_TOKEN * positions
        texts += documents.pieces(
            documents.load_documents(config.data, seed=config.seed, at_most=at_most)
        )
        local = Path(config.data).is_absolute()
        about.append(f"`{Path(config.data).name if local else config.data}`")
    if config.generate_bytes:
        texts += written(config, sources, folder, progress)
        about.append(
            f"{config.generate_bytes:,} bytes written by the sources (temperature "
            f"{config.generate_temperature:g}, seed {config.seed})"
        )
    text = config.text
    if text.streams:
        shares = {
            "of these documents": text.data_share if texts else 0.0,
            "continued by the sources": text.continuation_share,
            "written by the target": text.target_share,
        }
        parts = [f"{s / sum(shares.values()):.0%} {what}" for what, s in shares.items() if s]
        about.append(f"text written while it was trained ({', '.join(parts)})")
    if positions is not None:
        texts = _enough(texts, target, positions, config.seed)
    size = sum(len(t.encode()) for t in texts)
    return texts, f"{' and '.join(about)}: {len(texts):,} documents, {size:,} bytes."


def written(
    config: RunConfig, sources: Sequence[LoadedModel], folder: Path, progress: Progress
) -> list[str]:
    """Let the sources write, or read what they wrote before the run was interrupted."""
    file, group = folder / WRITTEN, Processes()
    if group.first and not file.exists():
        texts = generation.write_documents(
            sources,
            config.generate_bytes,
            seed=config.seed,
            temperature=config.generate_temperature,
            progress=progress,
            keep=KeptBatches(folder / WRITING),
        )
        write_whole(file, documents.json_lines(texts))
        shutil.rmtree(folder / WRITING, ignore_errors=True)
    group.wait()
    return documents.read_documents(file)


def _enough(texts: list[str], target: LoadedModel, positions: int, seed: int) -> list[str]:
    """Draw documents until a training of so many positions will have new ones to the end."""
    order = np.random.default_rng(seed).permutation(len(texts))
    chosen: list[str] = []
    while positions > 0 and len(chosen) < len(order):
        some = [texts[i] for i in order[len(chosen) : 2 * len(chosen) + 1]]
        for text, encoding in zip(some, target.tokenizer.encode_batch(some), strict=True):
            if positions > 0:
                chosen.append(text)
                positions -= len(encoding.text_tokens) + 1
    return chosen
