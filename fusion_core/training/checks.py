"""Checks of a training before anything is loaded, read or made: settings, memory, packing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.integrations import apply_liger_kernel

from fusion_core import fuse, mapping, memory, models
from fusion_core.config import RunConfig, one_of
from fusion_core.errors import InputError, is_out_of_memory, size_of
from fusion_core.io import documents
from fusion_core.io.documents import LONGEST
from fusion_core.models import LoadedModel
from fusion_core.reading import check_names, check_rows
from fusion_core.records.windows import KEPT_BYTES

from .adapters import with_adapters
from .arguments import (
    block_size_of,
    check_device,
    check_sharding,
    check_streaming,
    group_size,
    is_sharded,
    make_trainer,
    sentence,
    weights_dtype,
)
from .dataset import Collator
from .export import save_tokenizer
from .trainer import FusionTrainer

PACKED_TOLERANCE = 1e-3
"""Share of the logits' spread by which they may differ where documents are told apart."""

BASE_BYTES = 600_000_000
"""What Python and its libraries take on the side of the processor."""

LEAST_BYTES = 3
"""Bytes of text to a token, at the least, in a document of ordinary text."""

ACTIVATIONS = 34
"""Bytes in half precision that a layer keeps for each token and unit of its width, where attention
is fused (arXiv 2205.05198)."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Plan of a training that nothing speaks against.

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
        return memory_needed(config, self.sizes, self.trained, self.block_size, self.device)

    def check_memory(self, config: RunConfig) -> None:
        """Refuse it where it cannot fit.

        Raises:
            InputError: memory is short.
        """
        check_memory(self.memory_bytes(config), memory_free(self.device))


def check(config: RunConfig) -> Plan:
    """Try all that can be tried without a weight, a document or a row.

    Args:
        config: the run's.

    Raises:
        FusionError: something that was given cannot be used; the error says what to do.
    """
    device, dtype = check_device(config), models.DTYPES[weights_dtype(config)]
    check_names(config.target, *config.sources)
    check_sharding(config)
    check_streaming(config)
    if config.mode != "clm":
        fuse.operator_of(config.fusion.operator, config.fusion.level)
        mapping.strategy(config.fusion.strategy)
        if config.text.target_share:
            one_of("target_operator", config.text.target_operator, fuse.label_free())
    for path in config.eval_data.values():
        documents.read_documents(path)
    network = hollow(config.target, device, dtype)
    served = [name for name in config.readers if models.find(name).server]
    for name in served:
        if config.generate_bytes or config.text.continuation_share:
            raise InputError(f"{name} is a server's model, which writes no text: give data alone.")
    others = (Size.of(hollow(name, device)) for name in config.readers if name not in served)
    sizes = (Size.of(network), *others)
    block_size = block_size_of(config, sizes[0].context)
    tokenizer = models.load_tokenizer(config.target)
    for name in filter(None, (config.start, config.end)):
        models.token_of(tokenizer, name)
    sources = [models.load_tokenizer(name) for name in config.readers]
    if config.mode != "clm":
        check_rows(tokenizer, sources, config.fusion, served)
    target = LoadedModel(config.target, tokenizer, network, sizes[0].context, 0)
    with tempfile.TemporaryDirectory() as scratch:
        network.config.save_pretrained(scratch)  # it, too, decides how a tokenizer is loaded
        save_tokenizer(target, Path(scratch))
        if config.lora:
            network = with_adapters(config, network)
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        plan = Plan(target, sizes, trained, block_size, device)
        fits = plan.memory_bytes(config) <= memory_free(device)  # else it will be refused
        if fits and not is_sharded(config):  # else it is made once, when all models are loaded
            with _environment_kept():
                _try_trainer(config, network, block_size, Path(scratch))
    return plan


def _try_trainer(config: RunConfig, network: Any, block_size: int, folder: Path) -> None:
    """Build what a training consists of, on blocks without a document."""
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


@torch.no_grad()
def supports_packing(model: LoadedModel) -> bool:
    """Tell whether a model reads several documents in one line without mixing them up.

    Models whose attention goes by positions that start anew, as most of `transformers` do, see
    each document by itself; others, such as those with ALiBi, see the first from the second. A
    document is read behind two others, in one line with each; its logits must stay the same.
    """
    network, device, size = model.network, model.device, min(model.tokenizer.size, 1000)
    half = 8
    if model.context is not None and model.context < 2 * half:
        return False
    ids = torch.randint(size, (3, half), generator=torch.Generator().manual_seed(0)).to(device)
    lines = torch.stack([torch.cat([ids[0], ids[2]]), torch.cat([ids[1], ids[2]])])
    at = torch.arange(half, device=device).repeat(2).expand(2, -1)
    try:
        logits = network(input_ids=lines, position_ids=at, use_cache=False).logits[:, half:]
    except (RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        return False  # a model that takes no positions
    behind_one, behind_other = logits.float()
    off = (behind_one - behind_other).abs().max()
    return bool(off <= PACKED_TOLERANCE * behind_one.std().clamp(min=1e-6))


# Memory ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """Shape of a model.

    Attributes:
        parameters: of the whole model.
        vocabulary: of its input embeddings.
        width: units of a layer.
        layers: of the part that reads text.
        context: most tokens that it reads at once; None if unlimited.
    """

    parameters: int
    vocabulary: int
    width: int
    layers: int
    context: int | None

    @staticmethod
    def of(network: Any) -> Size:
        """Measure a network, whether there is anything in its weights or not."""
        text = network.config.get_text_config()
        rows, columns = network.get_input_embeddings().weight.shape
        stacks = (len(m) for m in network.modules() if isinstance(m, torch.nn.ModuleList))
        return Size(
            sum(p.numel() for p in network.parameters()),
            rows,
            getattr(text, "hidden_size", None) or columns,
            getattr(text, "num_hidden_layers", None) or max(stacks, default=1),
            models.context_of(network.config),
        )


def hollow(name: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """Make a model by its configuration alone: the shapes of its weights, but nothing in them.

    Every weight is one number, repeated: it takes no memory, but lies on a device and has a type,
    so that adapters, optimizers and the like can be built on it.

    Raises:
        FusionError: there is no such model, or its configuration cannot be read.
    """
    models.weights_bytes(name)  # says what is missing, as loading would
    network = models.skeleton(name, models.read_config(models.find(name)), dtype)
    network._apply(lambda t: torch.zeros((), dtype=t.dtype, device=device).expand(t.shape))
    network.tie_weights()
    return network


def memory_needed(
    config: RunConfig, sizes: Sequence[Size], trained: int, block_size: int, device: torch.device
) -> int:
    """Return bytes at the most: while rows are made, or while the target is trained.

    Args:
        config: the run's.
        sizes: of the target and of the sources that are read.
        trained: parameters that are trained.
        block_size: positions of a block.
        device: that trains.
    """
    target = sizes[0]
    item = 2 if config.dtype in ("bfloat16", "float16") else 4
    base = BASE_BYTES if device.type == "cpu" else 0
    tokens = config.batch_size * block_size
    wide = 2 if device.type == "cuda" else 4  # autocast
    activations = tokens * target.layers * target.width * ACTIVATIONS * wide // 2
    if {"activation_checkpointing", "gradient_checkpointing"} & set(config.arguments):
        activations = activations // 10 + tokens * target.layers * target.width * wide
    logits = 2 * wide * min(tokens * target.vocabulary, KEPT_BYTES // 2)
    shares = group_size() if os.environ.get("ACCELERATE_USE_FSDP") == "true" else 1
    states = (item * target.parameters + (item + 2 * item) * trained) // shares
    training = max(states, item * target.parameters) + activations + logits
    if config.text.streams and config.mode != "clm":
        training += item * target.parameters  # as it was before, for its rows
    rows = 0
    if len(sizes) > 1:  # every model's rows of a window, and what each source's become
        cells = [_window_cells(s) for s in sizes]
        laid_out = KEPT_BYTES // 4 + sum(cells) + len(cells) * cells[0]
        if config.fusion.rows == "exact":  # rows on side paths are put behind a copy of a source's
            laid_out += max(cells[1:])
        rows = item * sum(s.parameters for s in sizes) + 4 * laid_out
    return base + max(training, rows)


def _window_cells(size: Size) -> int:
    """Rows times vocabulary of the longest window of a document that a run reads."""
    tokens = min(size.context or LONGEST, LONGEST // LEAST_BYTES)
    return min(tokens * size.vocabulary, models.WINDOW_CELLS)


def memory_free(device: torch.device) -> int:
    """Return the bytes that a device has left."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return memory.available()


def check_memory(needs: int, has: int) -> None:
    """Refuse a training that cannot fit.

    Raises:
        InputError: memory is short.
    """
    if needs > has:
        raise InputError(
            f"The training needs about {size_of(needs)} of memory, but {size_of(has)} are free: "
            "choose lora, a smaller batch_size or block_size, or smaller models."
        )
