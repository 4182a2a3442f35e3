"""What a training would be refused for, found before anything is loaded, read or made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.integrations import apply_liger_kernel

from fusion_core import fuse, mapping, models, pipeline
from fusion_core.config import RunConfig
from fusion_core.io import documents
from fusion_core.models import LoadedModel

from . import memory
from .adapters import with_adapters
from .arguments import (
    block_size_of,
    check_device,
    check_sharding,
    group_size,
    is_sharded,
    make_trainer,
    sentence,
    weights_dtype,
)
from .blocks import Collator
from .export import save_tokenizer
from .memory import Size
from .trainer import FusionTrainer


@dataclass(frozen=True, eq=False)
class Plan:
    """A training that nothing speaks against.

    Attributes:
        target: the model that will be taught, without anything in its weights.
        sizes: of the target and of the sources that will be read.
        trained: parameters that are trained: all, or those of the adapters.
        block_size: positions of a block.
        device: that trains.
    """

    target: LoadedModel
    sizes: tuple[Size, ...]
    trained: int
    block_size: int
    device: torch.device

    def memory_bytes(self, config: RunConfig) -> int:
        """Return the bytes that it takes on its device at the most."""
        return memory.needed(config, self.sizes, self.trained, self.block_size, self.device)

    def check_memory(self, config: RunConfig) -> None:
        """Refuse it where it cannot fit.

        Raises:
            InputError: memory is short.
        """
        memory.refuse(self.memory_bytes(config), memory.free(self.device))


def check(config: RunConfig) -> Plan:
    """Try all that can be tried without a weight, a document or a row.

    Args:
        config: the run's.

    Raises:
        FusionError: something that was given cannot be used; the error says what to do.
    """
    device, dtype = check_device(config), models.DTYPES[weights_dtype(config)]
    pipeline.check_names(config.target, *config.sources)
    check_sharding(config)
    if config.mode != "clm":
        fuse.operator_of(config.fusion.operator, config.fusion.level)
        mapping.strategy(config.fusion.strategy)
    for path in config.eval_data.values():
        documents.read_documents(path)
    network = memory.hollow(config.target, device, dtype)
    others = (Size.of(memory.hollow(name, device)) for name in config.readers)
    sizes = (Size.of(network), *others)
    block_size = block_size_of(config, sizes[0].context)
    tokenizer = models.load_tokenizer(config.target)
    for name in filter(None, (config.start, config.end)):
        models.token_of(tokenizer, name)
    for name in config.readers:
        if models.split_name(name)[1]:
            models.load_tokenizer(name)
    target = LoadedModel(config.target, tokenizer, network, sizes[0].context, 0)
    with tempfile.TemporaryDirectory() as scratch:
        network.config.save_pretrained(scratch)  # it, too, decides how a tokenizer is loaded
        save_tokenizer(target, Path(scratch))
        if config.lora:
            network = with_adapters(config, network)
        if not is_sharded(config):  # else it is made once, when all models are loaded
            with _environment_kept():
                _try_trainer(config, network, block_size, Path(scratch))
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Plan(target, sizes, trained, block_size, device)


def _try_trainer(config: RunConfig, network: Any, block_size: int, folder: Path) -> None:
    """Build what a training consists of, on blocks in which nothing row_bytes."""
    blocks: list[list[Any]] = [[]] * (config.batch_size * group_size())
    trainer: FusionTrainer = make_trainer(
        config, folder, network, blocks, Collator(block_size, 0), score=lambda _: {"": 0.0}
    )
    args = trainer.args
    with sentence():
        loader: Any = trainer.get_train_dataloader()
        next(iter(loader.batch_sampler))
        trainer.create_optimizer_and_scheduler(config.max_steps or 100)
        if args.activation_checkpointing:
            network.activation_checkpointing_enable()
        if args.use_liger_kernel:
            apply_liger_kernel(network, args.liger_kernel_config)
        if args.torch_compile:
            _compile(args.torch_compile_backend, args.torch_compile_mode, args.device)


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Take back what the trainer says to its libraries: the next one may have other arguments."""
    before = {k: v for k, v in os.environ.items() if k.startswith(_SAID)}
    try:
        yield
    finally:
        for name in [k for k in os.environ if k.startswith(_SAID)]:
            del os.environ[name]
        os.environ.update(before)


_SAID = ("ACCELERATE_", "FSDP_")


def _compile(backend: str | None, mode: str | None, device: torch.device) -> None:
    """Compile something small, which needs all that a model needs."""
    compiled = torch.compile(lambda x: 2 * x.sin(), backend=backend or "inductor", mode=mode)
    compiled(torch.ones(8, device=device))
