"""What a training will take, before it begins."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fusion_core import build, documents, losses, models, pipeline
from fusion_core.cache import Cache
from fusion_core.config import RunConfig
from fusion_core.errors import InputError, ModelFormatError, size_of
from fusion_core.models import BATCH_TOKENS, LoadedModel
from fusion_core.reading import KEPT_CELLS, joint_texts

from .setup import block_size_of, check_device, group_size, weights_dtype, with_adapters

TRIED_BYTES = 400_000_000
"""Weights of all models together up to which a few real steps are timed."""

TRIED_TEXT = 4_000
"""Bytes of text whose rows are made to time that."""

DRAWN_BYTES = 20_000_000
"""Text that is drawn from a stream to count tokens in."""

UTILISATION = 0.4
"""Share of a device's speed in plain products that training comes to."""

BASE_BYTES = 600_000_000
"""What Python and its libraries take on the side of the processor."""

ACTIVATIONS = 34
"""Bytes in half precision that a layer keeps for each token and unit of its width, where attention
is fused (arXiv 2205.05198)."""


@dataclass(frozen=True)
class Estimate:
    """What a training will take.

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
        _refuse(self.memory_bytes, self.free_memory_bytes)
        if self.disk_bytes > self.free_disk_bytes:
            raise InputError(
                f"The training needs about {size_of(self.disk_bytes)} on disk, but "
                f"{size_of(self.free_disk_bytes)} are free: make room or choose another folder."
            )


def estimate(config: RunConfig, folder: str | Path = ".", processes: int = 1) -> Estimate:
    """Say what a training will take.

    Small models are loaded and timed on a little of the text; of larger ones only the configuration
    is read.

    Args:
        config: the run's.
        folder: where the run's folder will be.
        processes: that share the work.

    Raises:
        FusionError: the models or the data cannot be read.
    """
    sources = config.readers
    sizes = [_Size.of(name) for name in (config.target, *sources)]
    target, with_rows = sizes[0], config.mode != "clm" and bool(sources)
    texts, tokens_each = _text(config)
    tokens = sum(tokens_each)
    size = block_size_of(config, target.context)
    per_step = config.batch_size * config.gradient_accumulation * processes * size
    steps = config.max_steps or max(1, int(tokens * config.epochs / per_step))
    pairs = len(config.sources) if config.pairwise else 1
    taught = steps * per_step if config.max_steps else int(tokens * config.epochs)
    if config.max_steps:
        tokens = min(tokens, taught)
    trained = target.adapters(config) if config.lora else target.parameters
    device = check_device(config)
    if sum(s.parameters for s in sizes) * 4 <= TRIED_BYTES and texts:
        preparing, a_step = _tried(config, texts, size)
        rows_bytes = sum(len(t.encode()) for t in texts) * min(1.0, tokens / sum(tokens_each))
        preparing *= rows_bytes / TRIED_TEXT
        training, how = a_step * steps * config.gradient_accumulation, "measured"
    else:
        speed = _flops(device) * UTILISATION * processes
        read = 2 * sum(s.parameters for s in sizes) if with_rows else 0
        preparing = read * tokens / speed
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
        memory_bytes=_memory(config, sizes, trained, size, device),
        free_memory_bytes=_free_memory(device),
        disk_bytes=pairs * (rows + 2 * (4 * target.parameters + 8 * trained))
        + (pairs + 1) * 4 * target.parameters,
        free_disk_bytes=shutil.disk_usage(_existing(Path(folder))).free,
        how=how,
    )


@dataclass(frozen=True)
class _Size:
    """A model's shape, without its weights."""

    parameters: int
    vocabulary: int
    width: int
    layers: int
    context: int | None

    @staticmethod
    def of(name: str) -> _Size:
        from transformers import AutoConfig, AutoModelForCausalLM

        models.weights_bytes(name)  # says what is missing, as loading would
        source = models.find(name)
        try:
            config = AutoConfig.from_pretrained(source.location, trust_remote_code=False)
            with torch.device("meta"):
                network = AutoModelForCausalLM.from_config(config)
        except Exception as error:  # as in `models.load`
            raise ModelFormatError(
                f"The configuration of {name} cannot be read ({type(error).__name__}: "
                f"{str(error)[:200]}): check config.json."
            ) from error
        text = config.get_text_config()
        return _Size(
            sum(p.numel() for p in network.parameters()),
            text.vocab_size,
            text.hidden_size,
            text.num_hidden_layers,
            models.context_of(config),
        )

    def adapters(self, config: RunConfig) -> int:
        """About how many parameters adapters have on seven square layers a block."""
        assert config.lora is not None
        return 14 * self.layers * self.width * config.lora.r


def check_memory(config: RunConfig) -> None:
    """Refuse a training that cannot fit into memory, by the models' configurations alone.

    Raises:
        FusionError: memory is short, or a configuration cannot be read.
    """
    sizes = [_Size.of(name) for name in (config.target, *config.readers)]
    device = check_device(config)
    trained = sizes[0].adapters(config) if config.lora else sizes[0].parameters
    size = block_size_of(config, sizes[0].context)
    _refuse(_memory(config, sizes, trained, size, device), _free_memory(device))


def _refuse(needed: int, free: int) -> None:
    if needed > free:
        raise InputError(
            f"The training needs about {size_of(needed)} of memory, but {size_of(free)} are free: "
            "choose lora, a smaller batch_size or block_size, or smaller models."
        )


def _text(config: RunConfig) -> tuple[list[str], list[int]]:
    """Read the text, and about how many tokens each document has."""
    tokenizer = models.load_tokenizer(config.target)
    if config.cache:
        lengths = Cache.open(config.cache, verify=False).lengths
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
        n_tokens = sum(len(e.text_tokens) for e in tokenizer.encode_batch(some))
        share = sum(len(t.encode()) for t in some) / max(1, n_tokens)
    if config.generate_bytes:
        texts = texts + [texts[0]] * (config.generate_bytes // max(1, len(texts[0].encode())))
    return texts, [round(len(t.encode()) / share) + 1 for t in texts]


def _tried(config: RunConfig, texts: list[str], size: int) -> tuple[float, float]:
    """Time the rows of a little text, and two steps of one batch."""
    target = models.load(config.target, device=config.device, dtype=weights_dtype(config))
    preparing = 0.0
    if config.mode != "clm" and config.readers:
        sources = [models.load(s, device=config.device, dtype=config.dtype) for s in config.readers]
        some = documents.sample(texts, TRIED_TEXT)
        maps = pipeline.mappings(target, sources, config.fusion, some)
        began = time.perf_counter()
        for text in joint_texts([target, *sources], some, config.fusion):
            build.stored(text, maps, config.fusion, "fused")
        scale = TRIED_TEXT / sum(len(t.encode()) for t in some)
        preparing = (time.perf_counter() - began) * scale
    return preparing, _step_seconds(config, target, size)


def _step_seconds(config: RunConfig, target: LoadedModel, size: int) -> float:
    network: Any = target.network
    network = with_adapters(config, network) if config.lora else network.requires_grad_(True)
    network.train()
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.0)
    ids = torch.randint(target.tokenizer.size, (config.batch_size, size), device=target.device)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        logits = network(input_ids=ids, use_cache=False).logits
        losses.token_losses(logits.flatten(0, 1), ids.flatten()).clm.mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        if target.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _memory(
    config: RunConfig, sizes: list[_Size], trained: int, size: int, device: torch.device
) -> int:
    """Bytes at the most: while rows are made, or while the target is trained."""
    target = sizes[0]
    item = 2 if config.dtype in ("bfloat16", "float16") else 4
    base = BASE_BYTES if device.type == "cpu" else 0
    tokens = config.batch_size * size
    wide = 2 if device.type == "cuda" else 4  # autocast
    activations = tokens * target.layers * target.width * ACTIVATIONS * wide // 2
    if {"activation_checkpointing", "gradient_checkpointing"} & set(config.arguments):
        activations = activations // 10 + tokens * target.layers * target.width * wide
    logits = 2 * wide * min(tokens * target.vocabulary, 2 * KEPT_CELLS)
    shares = group_size() if os.environ.get("ACCELERATE_USE_FSDP") == "true" else 1
    states = (item * target.parameters + (item + 2 * item) * trained) // shares
    training = max(states, item * target.parameters) + activations + logits
    rows = 0
    if len(sizes) > 1:
        cells = max(s.vocabulary for s in sizes) * BATCH_TOKENS
        rows = item * sum(s.parameters for s in sizes) + 4 * (
            KEPT_CELLS + 2 * min(cells, KEPT_CELLS)
        )
    return base + max(training, rows)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def _flops(device: torch.device) -> float:
    """Operations a second in plain products."""
    n, dtype = (1024, torch.float32) if device.type == "cpu" else (8192, torch.bfloat16)
    a = torch.randn(n, n, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    return next(f for f in (folder, *folder.parents) if f.exists())
