"""Training loop of a run: documents and rows, steps, the trained model in a folder of its own."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerState, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from fusion_core import compare, models
from fusion_core.cache import building
from fusion_core.cache.distributed import Processes
from fusion_core.config import RunConfig
from fusion_core.models import LoadedModel

from .adapters import merged, with_adapters
from .arguments import block_size_of, group_size, load_target, make_trainer
from .callbacks import Metrics, RunCallback, read_weights, writing_checkpoint
from .checkpoints import (
    CHECKPOINTS,
    best_folder,
    fall_back,
    fault,
    is_complete,
    last_checkpoint,
    read_complete,
    remove_incomplete,
    step_of,
)
from .checks import check, supports_packing
from .data import TrainingData, eval_texts, load_training_data, training_blocks
from .dataset import Blocks, Collator
from .export import Probe, checksums, export, push
from .stream import StreamedBlocks
from .trainer import FusionTrainer, Scorer

MODEL = "model"
PAIRS, DONE = "pairs", "result.json"


class StoppedError(Exception):
    """The run was asked to stop before its first step."""


@dataclass(frozen=True)
class Callbacks:
    """Callbacks of a run: what is called while it goes on.

    Attributes:
        stage: with what is being done, and the share of it that is behind.
        metrics: with the figures of every step and evaluation.
        stop: to ask whether to stop.
    """

    stage: Callable[[str, float], None] = lambda *_: None
    metrics: Callable[[Metrics], None] = lambda _: None
    stop: Callable[[], bool] = lambda: False

    def progress(self, stage: str, share: float) -> None:
        """Pass a stage's progress on, and end there if asked to.

        Raises:
            StoppedError: the run is to stop.
        """
        if self.stop() and group_size() == 1:  # several end together, after a step
            raise StoppedError
        self.stage(stage, share)


def versions() -> dict[str, str]:
    """Return the versions that decide a run's numbers."""
    return building.versions("accelerate", "peft")


def train(config: RunConfig, folder: Path, callbacks: Callbacks | None = None) -> dict[str, Any]:
    """Train, or go on from the last complete checkpoint in the folder, and export the model.

    Args:
        config: the settings.
        folder: of the run; rows, checkpoints and the model are written into it.
        callbacks: what is called while it goes on.

    Returns:
        The run's result: bits per byte before and after by text, steps, tokens, seconds; with
        ``stopped`` true, where it was asked to stop, and no model.

    Raises:
        FusionError: something that was given cannot be used, the disk is full, or the loss is no
            number.
        StoppedError: it was asked to stop before the first step.
    """
    callbacks = callbacks or Callbacks()
    began = time.monotonic()
    group = Processes()
    callbacks.progress("checking the settings", 0)
    check(config).check_memory(config)  # said now, not after hours
    loading = "loading the target"
    if models.find(config.target).gguf:
        loading += ": its weights are dequantised, and are trained and saved as that"
    callbacks.progress(loading, 0)
    target = load_target(config)
    block_size = block_size_of(config, target.context)
    per_step = config.batch_size * config.gradient_accumulation * group.number
    positions = config.max_steps * per_step * block_size if config.max_steps else None
    data = load_training_data(
        config, target, folder, positions, callbacks.progress, callbacks.stage
    )
    blocks = training_blocks(config, data, target, block_size)
    callbacks.progress("measuring the target", 0)
    score = scorer(target, eval_texts(config, target, data.examples, data.texts))
    before = score(target.network)
    uses_cache = getattr(target.network.config, "use_cache", None)
    if group.first:
        remove_incomplete(folder / CHECKPOINTS)
    trainer, callback = _trainer(config, folder, target, blocks, data, score, callbacks)
    trained = _train(trainer, config, folder, began, callbacks)
    result = {
        "steps": trainer.state.global_step,
        "tokens": trainer.tokens,
        "stopped": callback.stopped and trainer.state.global_step < trainer.state.max_steps,
        "sources": list(data.sources),
        "data": data.about,
        "documents": target.around_documents,
        "device": str(trainer.args.device),
        "best_step": trainer.state.best_global_step if config.keep == "best" else None,
        "versions": versions(),
    }
    if result["stopped"]:
        return result
    callbacks.stage("writing the model", 0)
    _restore_use_cache(target.network.config, uses_cache)
    _finish(config, folder, target, trainer, score, before, result, sharded=trained)
    return result


def _train(
    trainer: FusionTrainer, config: RunConfig, folder: Path, began: float, callbacks: Callbacks
) -> bool:
    """Take the steps that are ahead; return whether there were any."""
    callbacks.stage("training", 0)
    checkpoint = last_checkpoint(folder / CHECKPOINTS)
    trainer.tokens, spent = read_complete(checkpoint) if checkpoint else (0, 0.0)
    trainer.began = began - spent
    if checkpoint:
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if state.global_step >= state.max_steps:  # killed after its last step
            trainer.state = state
            read_weights(trainer.model, checkpoint)
            return False
    set_seed(config.seed)
    with writing_checkpoint(trainer):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return True


def _restore_use_cache(settings: Any, uses_cache: bool | None) -> None:
    """Undo what the trainer does to a configuration; it sets the key also where it is not known."""
    if uses_cache is None:
        del settings.use_cache
    else:
        settings.use_cache = uses_cache


def _finish(
    config: RunConfig,
    folder: Path,
    target: LoadedModel,
    trainer: FusionTrainer,
    score: Scorer,
    before: dict[str, float],
    result: dict[str, Any],
    *,
    sharded: bool,
) -> None:
    """Choose the weights, measure them, and write them down."""
    sharded &= trainer.sharded
    network: Any = trainer.model_wrapped if sharded else trainer.trained_network()
    if result["best_step"]:
        read_weights(network, best_folder(folder, result["best_step"]))
    probe = Probe.of(target, network.eval(), half=sharded)
    if config.lora:
        network = merged(network)
    result |= compare_scores(before, score(network))
    result["seconds"] = time.monotonic() - trainer.began
    gathered = folder / f".{MODEL}.sharded"
    if sharded:  # every process takes part
        trainer.save_model(str(gathered))
    if not trainer.args.should_save:
        return

    def save(part: Path) -> None:
        if sharded:
            shutil.rmtree(part)
            gathered.rename(part)
        else:
            network.save_pretrained(part)

    if not sharded:
        probe = replace(probe, weights=checksums(network))
    export(target, save, partial(probe.check, trained=network), folder / MODEL, config, result)
    push(folder / MODEL, config)


def _trainer(
    config: RunConfig,
    folder: Path,
    target: LoadedModel,
    blocks: Blocks | StreamedBlocks,
    data: TrainingData,
    score: Scorer,
    callbacks: Callbacks,
) -> tuple[FusionTrainer, RunCallback]:
    """Put the trainer together."""
    packed = supports_packing(target)
    network = target.network
    if config.lora:
        network = with_adapters(config, network)
    else:
        network.requires_grad_(True)
    end, start = target.tokenizer.eos_id, target.tokenizer.start_id
    pad = end if end is not None else start if start is not None else 0
    trainer = make_trainer(
        config,
        folder,
        network,
        blocks,
        Collator(blocks.block_size, pad, packed),
        temperature=data.temperature,
        score=score,
    )
    trainer.remove_callback(PrinterCallback)  # `callbacks` get the metrics instead
    callback = RunCallback(trainer, config, folder, callbacks.metrics, callbacks.stop)
    trainer.add_callback(callback)
    return trainer, callback


def compare_scores(before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """Set what was measured before beside what was measured after."""
    texts = {name: {"before": before[name], "after": after[name]} for name in before}
    means = {
        when: sum(x[when] for x in texts.values()) / len(texts) for when in ("before", "after")
    }
    return {"texts": texts, "bits_per_byte": means}


def scorer(target: LoadedModel, texts: dict[str, list[str]]) -> Scorer:
    """Return what measures bits per byte of a network that has the target's tokenizer."""

    def score(network: Any) -> dict[str, float]:
        reader = replace(target, network=network)
        return {
            name: compare.bits_per_byte([reader], some)[target.name]["bits_per_byte"]
            for name, some in texts.items()
        }

    return score


def steps_done(folder: Path) -> int:
    """Return the step from which a run goes on, of pairs or not."""
    steps = 0
    for pair in sorted((folder / PAIRS).glob("[0-9]*"), key=lambda p: int(p.name)):
        finished = pair_result(pair)
        if finished is None:
            return steps + steps_done(pair)
        steps += finished["steps"]
    last = last_checkpoint(folder / CHECKPOINTS)
    return steps + (step_of(last) if last else 0)


def check_checkpoints(folder: Path) -> str | None:
    """Look whether the checkpoints of a run that is gone on with are as they were written.

    Args:
        folder: of the run, of pairs or not.

    Returns:
        A sentence that says from which one it goes on, where the newest is damaged.

    Raises:
        InputError: all are damaged.
    """
    said = [fall_back(pair) for pair in (folder, *sorted((folder / PAIRS).glob("[0-9]*")))]
    return next(filter(None, said), None)


def pair_result(folder: Path) -> dict[str, Any] | None:
    """Read the result of a pair whose model is as it was written; None of another."""
    if is_complete(folder / MODEL) and fault(folder / MODEL):
        return None
    try:
        return json.loads((folder / DONE).read_bytes())
    except (OSError, ValueError):
        return None
