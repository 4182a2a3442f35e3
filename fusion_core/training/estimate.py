"""Estimate of a training: time, memory and disk, before it begins."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from fusion_core import losses, models, pipeline
from fusion_core.cache import building
from fusion_core.config import RunConfig
from fusion_core.errors import InputError, size_of
from fusion_core.io import documents
from fusion_core.models import LoadedModel
from fusion_core.reading import read_documents

from .adapters import with_adapters
from .arguments import load_target
from .checks import check, check_memory, memory_free
from .data import from_cache

TRIED_BYTES = 400_000_000
"""Weights of all models together up to which a few real steps are timed."""

TRIED_TOKENS = 2048
"""Tokens of a step that is timed, at the most: one of more tokens takes that much longer."""

TRIED_TEXT = 4_000
"""Bytes of text whose rows are made to time that."""

ROW_TRIALS, STEP_TRIALS = 2, 3

SIDE_PATHS = 1.25
"""Time that exact rows take over those at the sources' boundaries, where it is not measured."""

DRAWN_BYTES = 20_000_000
"""Text that is drawn from a stream to count tokens in."""

UTILISATION = 0.4
"""Share of a device's speed in plain products that training comes to."""


@dataclass(frozen=True)
class Estimate:
    """Estimate of what a training will take.

    Attributes:
        parameters: of the target.
        trained: of them, or of the adapters.
        documents: that will be read.
        tokens: that the target will be taught, over all epochs.
        steps: of the optimiser.
        preparing_seconds: for reading and fusing the text; what the sources write takes longer.
        training_seconds: for the steps.
        memory_bytes: at the most, on the device that trains.
        free_memory_bytes: there now.
        disk_bytes: of rows, checkpoints and the model.
        free_disk_bytes: there now.
        how: "measured", where real steps were timed, or "table", from the number of parameters
            and the speed of the device.
    """

    parameters: int
    trained: int
    documents: int
    tokens: int
    steps: int
    preparing_seconds: float
    training_seconds: float
    memory_bytes: int
    free_memory_bytes: int
    disk_bytes: int
    free_disk_bytes: int
    how: str

    def check(self) -> None:
        """Refuse what cannot fit.

        Raises:
            InputError: memory or disk is short; the error says what to do.
        """
        check_memory(self.memory_bytes, self.free_memory_bytes)
        if self.disk_bytes > self.free_disk_bytes:
            raise InputError(
                f"The training needs about {size_of(self.disk_bytes)} on disk, but "
                f"{size_of(self.free_disk_bytes)} are free: make room or choose another folder."
            )


def estimate(config: RunConfig, folder: str | Path = ".", processes: int = 1) -> Estimate:
    """Say what a training will take.

    Small models are loaded and timed on a little of the text; of larger ones only the configuration
    is read. Whatever a training would refuse before its first step is refused here.

    Args:
        config: the run's.
        folder: where the run's folder will be.
        processes: that share the work.

    Raises:
        FusionError: the models or the data cannot be read.
    """
    plan = check(config)
    target, size, device, trained = plan.sizes[0], plan.block_size, plan.device, plan.trained
    with_rows = config.mode != "clm" and bool(config.readers)
    texts, tokens_each = _text(config, plan.target)
    tokens = sum(tokens_each)
    per_step = config.batch_size * config.gradient_accumulation * processes * size
    steps = config.max_steps or max(1, int(tokens * config.epochs / per_step))
    pairs = len(config.sources) if config.pairwise else 1
    taught = steps * per_step if config.max_steps else int(tokens * config.epochs)
    if config.max_steps:
        tokens = min(tokens, taught)
    everyone = sum(s.parameters for s in plan.sizes)
    free = memory_free(device)
    few = config.replace(batch_size=min(config.batch_size, max(1, TRIED_TOKENS // size)))
    fits = plan.memory_bytes(config) <= free  # else nothing is tried: it will be refused
    if everyone * 4 <= TRIED_BYTES and texts and fits:
        preparing, a_step = _tried(few, texts, size)
        a_step *= config.batch_size / few.batch_size
        rows_bytes = sum(len(t.encode()) for t in texts) * min(1.0, tokens / sum(tokens_each))
        preparing *= rows_bytes / TRIED_TEXT
        training, how = a_step * steps * config.gradient_accumulation, "measured"
    else:
        speed = _flops(device) * UTILISATION * processes
        read = 2 * everyone if with_rows else 0
        preparing = read * tokens / speed * (SIDE_PATHS if config.fusion.rows == "exact" else 1)
        training, how = 6 * target.parameters * taught / speed, "table"
    rows = 40 * tokens if with_rows else 0
    return Estimate(
        parameters=target.parameters,
        trained=trained,
        documents=len(texts),
        tokens=taught * pairs,
        steps=steps * pairs,
        preparing_seconds=preparing / (processes if how == "measured" else 1),
        training_seconds=training * pairs,
        memory_bytes=plan.memory_bytes(config),
        free_memory_bytes=free,
        disk_bytes=pairs * (rows + 2 * (4 * target.parameters + 8 * trained))
        + (pairs + 1) * 4 * target.parameters,
        free_disk_bytes=shutil.disk_usage(_existing(Path(folder))).free,
        how=how,
    )


def estimate_plain(settings: str, folder: str) -> dict[str, Any]:
    """Estimate a training by the YAML of its settings, as plain data for another process."""
    return asdict(estimate(RunConfig.of(yaml.safe_load(settings)), folder))


def _text(config: RunConfig, target: LoadedModel) -> tuple[list[str], list[int]]:
    """Read the text, and about how many tokens each document has."""
    if config.cache:
        lengths = from_cache(config, target, verify=False).examples.lengths
        return [""] * len(lengths), (lengths + 1).tolist()
    texts: list[str] = []
    if config.data:
        texts = documents.pieces(
            documents.load_documents(config.data, seed=config.seed, at_most=DRAWN_BYTES)
        )
    if not texts:
        texts = [" ".join(["word"] * 80)]
        share = 2.5
    else:
        some = documents.sample(texts, 50_000)
        n_tokens = sum(len(e.text_tokens) for e in target.tokenizer.encode_batch(some))
        share = sum(len(t.encode()) for t in some) / max(1, n_tokens)
    if config.generate_bytes:
        texts = texts + [texts[0]] * (config.generate_bytes // max(1, len(texts[0].encode())))
    return texts, [round(len(t.encode()) / share) + 1 for t in texts]


def _tried(config: RunConfig, texts: list[str], size: int) -> tuple[float, float]:
    """Time the rows of a little text, and a step of one batch, with models that are loaded once.

    Whatever else runs, and cold caches, only make things slower: the quickest of a few trials is
    nearest.
    """
    target = load_target(config)
    preparing = 0.0
    if config.mode != "clm" and config.readers:
        sources = [models.load(s, device=config.device, dtype=config.dtype) for s in config.readers]
        some = documents.sample(texts, TRIED_TEXT)
        maps = pipeline.mappings(target, sources, config.fusion, some)

        def rows() -> None:
            for reading in read_documents([target, *sources], some, config.fusion):
                building.stored(reading, maps, config.fusion, "fused")

        scale = TRIED_TEXT / sum(len(t.encode()) for t in some)
        preparing = _quickest(rows, ROW_TRIALS) * scale
    return preparing, _step_seconds(config, target, min(size, target.context or size))


def _quickest(call: Callable[[], Any], trials: int) -> float:
    """Return the seconds of the quickest of several calls."""
    seconds = []
    for _ in range(trials):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _step_seconds(config: RunConfig, target: LoadedModel, size: int) -> float:
    network: Any = target.network
    network = with_adapters(config, network) if config.lora else network.requires_grad_(True)
    network.train()
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0)
    ids = torch.randint(target.tokenizer.size, (config.batch_size, size), device=target.device)

    def step() -> None:
        logits = network(input_ids=ids, use_cache=False).logits
        losses.token_losses(logits.flatten(0, 1), ids.flatten()).clm.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        _synchronize(target.device)

    return _quickest(step, STEP_TRIALS)


def _flops(device: torch.device) -> float:
    """Operations a second in plain products."""
    n, dtype = (1024, torch.float32) if device.type == "cpu" else (8192, torch.bfloat16)
    a = torch.randn(n, n, device=device, dtype=dtype)

    def product() -> None:
        a @ a
        _synchronize(device)

    return 2 * n**3 / _quickest(product, STEP_TRIALS)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    return next(f for f in (folder, *folder.parents) if f.exists())
