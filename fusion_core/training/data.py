"""Training data: a run's settings -> the documents that the target is taught, with their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusion_core import compare, models
from fusion_core.cache import Cache, StoredDocument, building, first_texts, read_manifest
from fusion_core.config import RunConfig
from fusion_core.errors import InputError
from fusion_core.io import documents
from fusion_core.models import LoadedModel
from fusion_core.records import Progress
from fusion_core.tokens import TextTokenizer

from .dataset import Blocks, CachedRowsDataset, ExampleDataset, TextDataset
from .stream import SHARD_BYTES, StreamedBlocks, TextStream
from .texts import read_texts

SAMPLE_BYTES = 60_000
"""Text on which sources are compared for mode "kd"."""

TRAINING_TEXT = "training text"
"""What the text is called on which bits per byte are measured where no eval_data is given."""

REBUILT_TEXT = "training text, rebuilt from its tokens"
"""The same where a cache of an earlier version has kept nothing but tokens."""

CACHE = "cache"
RE_FUSED = ("operator", "level", "top_k", "operator_temperature")
"""Settings of a cache of every source's rows that a run may choose anew."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Training data of a run.

    Attributes:
        examples: the documents.
        temperature: of their rows.
        sources: names of the models whose rows these are.
        about: a sentence on the text, for the card.
        texts: of the first documents; None where only their tokens are known.
        stream: what makes text while the training goes on, or None.
    """

    examples: ExampleDataset
    temperature: float
    sources: tuple[str, ...]
    about: str
    texts: list[str] | None
    stream: TextStream | None = None


def load_training_data(
    config: RunConfig,
    target: LoadedModel,
    folder: Path,
    positions: int | None,
    progress: Progress,
    stage: Progress = lambda *_: None,
) -> TrainingData:
    """Read, write or fetch the documents, and where they are to be had, their rows.

    Rows that no cache holds are made once and kept in the run's folder.

    Args:
        config: the run's.
        target: the model that is taught.
        folder: the run's.
        positions: how many positions of the target will be read at most; None for all.
        progress: called with what is being done.
        stage: the same while the training goes on.

    Raises:
        InputError: the data, the cache or the sources are of no use.
    """
    if config.cache:
        return from_cache(config, target)
    sources = [models.load(s, device=config.device, dtype=config.dtype) for s in config.readers]
    texts, about = read_texts(config, target, sources, folder, positions, progress)
    first = first_texts(texts)
    names: tuple[str, ...] = ()
    if config.mode == "kd":
        sources = [_best(sources, texts, progress)]
    if config.mode == "clm" or (config.text.streams and not (texts and config.text.data_share)):
        examples: ExampleDataset = TextDataset(target.tokenizer, texts, progress)
    else:
        cache = building.build_cache(
            target,
            sources,
            texts,
            config.fusion,
            folder / CACHE,
            shard_bytes=SHARD_BYTES,
            progress=progress,
        )
        examples = CachedRowsDataset(cache)
    if config.mode != "clm":
        names = tuple(s.name for s in sources)
    stream = None
    if config.text.streams:
        stream = TextStream(config, target, sources, texts, examples, folder, stage)
    return TrainingData(
        examples, config.fusion.temperature if names else 1.0, names, about, first, stream
    )


def eval_texts(
    config: RunConfig, target: LoadedModel, examples: ExampleDataset, texts: list[str] | None
) -> dict[str, list[str]]:
    """Read what is evaluated on; the first documents that are trained on where nothing is given.

    Args:
        config: the run's.
        target: the model that is taught.
        examples: the documents that are trained on.
        texts: of the first of them; None where only tokens are known.

    Raises:
        InputError: the data cannot be read, or only tokens are known that spell no text.
    """
    if config.eval_data:
        return {name: documents.read_documents(path) for name, path in config.eval_data.items()}
    if texts is not None:
        return {TRAINING_TEXT: texts}
    spelled = (target.tokenizer.text_of(examples[i].ids.tolist()) for i in range(len(examples)))
    rebuilt = first_texts(filter(None, spelled))
    if not rebuilt:
        raise InputError("The cache has kept no text to measure the target on: give eval_data.")
    return {REBUILT_TEXT: rebuilt}


def training_blocks(
    config: RunConfig, data: TrainingData, target: LoadedModel, block_size: int
) -> Blocks | StreamedBlocks:
    """Pack the documents into blocks, or have them packed while the training goes on.

    Raises:
        InputError: there is no token to predict.
    """
    tokenizer, prompt_end = target.tokenizer, config.prompt_end
    lay_out = partial(
        Blocks,
        block_size=block_size,
        start_id=tokenizer.start_id,
        end_id=tokenizer.eos_id,
        seed=config.seed,
        weigh_by_kept=config.objective.weigh_by_kept,
        prompt=partial(prompt_tokens, tokenizer, end=prompt_end) if prompt_end else None,
    )
    blocks = lay_out(data.examples)
    if data.stream and (config.max_steps or len(blocks)):
        per_step = config.batch_size * config.gradient_accumulation
        of_data = max(1, round(len(blocks) * config.epochs))
        number = config.max_steps * per_step if config.max_steps else of_data
        return StreamedBlocks(data.stream, lay_out, block_size, number)
    if not len(blocks):
        raise InputError("The documents hold no token to predict: give longer ones.")
    return blocks


def prompt_tokens(tokenizer: TextTokenizer, ids: torch.Tensor, end: str) -> int:
    """Count the tokens up to where a document's prompt ends.

    Args:
        tokenizer: the target's.
        ids: (m,) the document's text tokens.
        end: what the prompt ends with; its first occurrence counts.

    Returns:
        Tokens that begin before the end of it; 0 where it does not occur.
    """
    if not tokenizer.spells_spaces:
        end = "".join(end.split())
    parts = [tokenizer.bytes_of[i] or b"" for i in ids.tolist()]
    at = b"".join(parts).find(end.encode())
    if at < 0:
        return 0
    starts = np.cumsum([0, *map(len, parts)])[:-1]
    return int(np.searchsorted(starts, at + len(end.encode())))


def _best(sources: Sequence[LoadedModel], texts: Sequence[str], progress: Progress) -> LoadedModel:
    """Choose the source that reads the data best."""
    if len(sources) == 1:
        return sources[0]
    sample = documents.sample(texts, SAMPLE_BYTES)
    scores = compare.bits_per_byte(sources, sample, progress=progress)
    return min(sources, key=lambda s: scores[s.name]["bits_per_byte"])


# A cache that is there ------------------------------------------------------------------------


def from_cache(config: RunConfig, target: LoadedModel, *, verify: bool = True) -> TrainingData:
    """Take the documents and rows of a cache.

    Args:
        config: the run's.
        target: the model that is taught; of its weights the files are hashed.
        verify: compare every shard with its digest.

    Raises:
        InputError: there is no cache, or it is not of this target, these sources or settings.
    """
    assert config.cache is not None
    cache = Cache.open(config.cache, _expected(config, target), verify=verify)
    settings = cache.manifest.settled
    names = tuple(s["name"] for s in settings["sources"])
    if config.sources and config.sources != names:
        raise InputError(
            f"The cache at {config.cache} is of the sources {', '.join(names)}, not "
            f"{', '.join(config.sources)}: leave sources out, or build another cache."
        )
    if config.generate_bytes:
        raise InputError(
            "A cache has the documents that it was built from: leave out generate_bytes, or the "
            "cache."
        )
    rows = "" if config.mode == "clm" else f", whose rows are {settings['config']['rows']}"
    about = f"{len(cache):,} documents of the cache `{Path(config.cache).name}`{rows}."
    temperature = settings["config"]["temperature"]
    if config.mode == "clm":
        examples = CachedRowsDataset(cache, plain=True)
        return TrainingData(examples, temperature, (), about, cache.texts())
    chosen = list(range(len(names)))
    if config.mode == "kd" and len(names) > 1:
        if cache.manifest.kind == "fused":
            raise InputError(
                f"The cache at {config.cache} holds fused rows of {len(names)} sources: for mode "
                "kd build one with --keep sources, or of one source."
            )
        chosen = [_best_of_cache(cache, len(names), target.tokenizer)]
    fused: partial[StoredDocument] | None = None
    if cache.manifest.kind == "sources":
        fused = partial(
            building.fuse_again,
            operator=config.fusion.operator,
            level=config.fusion.level,
            top_k=config.fusion.top_k,
            operator_temperature=config.fusion.operator_temperature,
            sources=chosen,
        )
        fused(cache[0])  # says what is wrong with the settings before anything begins
    examples = CachedRowsDataset(cache, fused)
    sources = tuple(names[j] for j in chosen)
    return TrainingData(examples, temperature, sources, about, cache.texts())


def _expected(config: RunConfig, target: LoadedModel) -> dict[str, Any]:
    """Say what a cache must be of: this target, and what the run's settings change on purpose."""
    identity = models.identity(target)
    asked = config.fusion.model_dump(exclude_defaults=True, exclude={"seed"})
    assert config.cache is not None
    if read_manifest(config.cache).kind == "sources":
        asked = {k: v for k, v in asked.items() if k not in RE_FUSED}
    known = {k: identity[k] for k in ("weights", "tokenizer", "revision") if identity[k]}
    if not target.document_tokens:  # which count as part of it, and have yet to be found
        del known["tokenizer"]
    return {"target": known, "config": asked}


def _best_of_cache(cache: Cache, sources: int, tokenizer: TextTokenizer) -> int:
    """Choose the source that read the cache's documents best, all of them as one text."""
    totals = np.zeros(sources)
    for document in cache:
        n_bytes = sum(len(tokenizer.bytes_of[i] or b"") for i in document.observed.tolist())
        bits = document.extras["bits_per_byte"][1:] * n_bytes
        totals += np.where(np.isnan(bits), 0, bits)  # of a document that no model scores
    return int(totals.argmin())
