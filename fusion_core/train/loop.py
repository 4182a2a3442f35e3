"""A whole training: documents and rows, steps, the trained model in a folder of its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerState, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from fusion_core import pipeline
from fusion_core.cache import building
from fusion_core.config import RunConfig
from fusion_core.errors import InputError
from fusion_core.io import documents
from fusion_core.models import LoadedModel

from .adapters import merged, with_adapters
from .arguments import CHECKPOINTS, block_size_of, group_size, load_target, make_trainer
from .blocks import Blocks, Collator
from .callbacks import Metrics, RunCallback, best_folder
from .checkpoints import WHOLE, last_checkpoint, read_weights, whole
from .checks import check
from .data import SAMPLE_BYTES, TrainingData, prepare
from .dataset import ExampleDataset, prompt_tokens
from .export import export, push
from .packing import supports_packing
from .probe import Probe, checksums
from .trainer import FusionTrainer

MODEL = "model"
TRAINING_TEXT = "training text"
"""What the text is called on which bits per byte are measured where no eval_data is given."""


class StoppedError(Exception):
    """The run was asked to stop before its first step."""


@dataclass(frozen=True)
class Observer:
    """Who looks on.

    Attributes:
        stage: told what is being done, and the share of it that is behind.
        metrics: told the figures of every step and evaluation.
        stop: asked whether to stop.
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


def teach(config: RunConfig, folder: Path, observer: Observer | None = None) -> dict[str, Any]:
    """Train, or go on from the last whole checkpoint in the folder, and export the model.

    Args:
        config: the settings.
        folder: of the run; rows, checkpoints and the model are written into it.
        observer: who looks on.

    Returns:
        What it came to: bits per byte before and after by text, steps, tokens, seconds; with
        ``stopped`` true, where it was asked to stop, and no model.

    Raises:
        FusionError: something that was given cannot be used, the disk is full, or the loss is no
            number.
        StoppedError: it was asked to stop before the first step.
    """
    observer = observer or Observer()
    began = time.monotonic()
    group = building.Processes()
    observer.progress("checking the settings", 0)
    check(config).check_memory(config)  # said now, not after hours
    observer.progress("loading the target", 0)
    target = load_target(config)
    block_size = block_size_of(config, target.context)
    per_step = config.batch_size * config.gradient_accumulation * group.number
    positions = config.max_steps * per_step * block_size if config.max_steps else None
    prepared = prepare(config, target, folder, positions, observer.progress)
    blocks = Blocks(
        prepared.examples,
        block_size,
        start_id=target.tokenizer.start_id,
        end_id=target.tokenizer.eos_id,
        seed=config.seed,
        weigh_by_kept=config.objective.weigh_by_kept,
        prompt=partial(prompt_tokens, target.tokenizer, end=config.prompt_end)
        if config.prompt_end
        else None,
    )
    if not len(blocks):
        raise InputError("The documents hold no token to predict: give longer ones.")
    observer.progress("measuring the target", 0)
    score = scorer(target, eval_texts(config, prepared.examples, target))
    before = score(target.network)
    checkpoint = last_checkpoint(folder / CHECKPOINTS)
    if group.first:
        _tidy(folder)
    settings = target.network.config
    uses_cache = getattr(settings, "use_cache", None)
    trainer, watch = _trainer(config, folder, target, blocks, prepared, score, observer)
    observer.stage("training", 0)
    trainer.tokens, spent = whole(checkpoint) if checkpoint else (0, 0.0)
    trainer.began = began - spent
    trained = not (checkpoint and _is_last(checkpoint))
    if checkpoint and not trained:  # killed after its last step
        trainer.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        read_weights(trainer.model, checkpoint)
    else:
        set_seed(config.seed)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    result = {
        "steps": trainer.state.global_step,
        "tokens": trainer.tokens,
        "stopped": watch.stopped and trainer.state.global_step < trainer.state.max_steps,
        "sources": list(prepared.sources),
        "data": prepared.about,
        "documents": target.around_documents,
        "device": str(trainer.args.device),
        "best_step": trainer.state.best_global_step if config.keep == "best" else None,
        "versions": versions(),
    }
    if result["stopped"]:
        return result
    observer.stage("writing the model", 0)
    if uses_cache is None:  # the trainer turns it off, also where it is not known
        del settings.use_cache
    else:
        settings.use_cache = uses_cache
    _finish(config, folder, target, trainer, score, before, result, sharded=trained)
    return result


def _finish(
    config: RunConfig,
    folder: Path,
    target: LoadedModel,
    trainer: FusionTrainer,
    score: Callable[[Any], dict[str, float]],
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
    after = score(network)
    result |= result_of(before, after)
    result["seconds"] = time.monotonic() - trainer.began
    if sharded:  # every process takes part
        trainer.save_model(str(folder / f".{MODEL}.sharded"), _internal_call=True)
    if not trainer.args.should_save:
        return

    def save(part: Path) -> None:
        if sharded:
            shutil.rmtree(part)
            (folder / f".{MODEL}.sharded").rename(part)
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
    blocks: Blocks,
    prepared: TrainingData,
    score: Callable[[Any], dict[str, float]],
    observer: Observer,
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
    collator = Collator(blocks.block_size, pad, packed)
    trainer = make_trainer(
        config,
        folder,
        network,
        blocks,
        collator,
        temperature=prepared.temperature,
        score=score,
    )
    trainer.remove_callback(PrinterCallback)  # the observer is told instead
    watch = RunCallback(trainer, config, folder, observer.metrics, observer.stop)
    trainer.add_callback(watch)
    return trainer, watch


def result_of(before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """Set what was measured before beside what was measured after."""
    texts = {name: {"before": before[name], "after": after[name]} for name in before}
    means = {
        when: sum(x[when] for x in texts.values()) / len(texts) for when in ("before", "after")
    }
    return {"texts": texts, "bits_per_byte": means}


def scorer(target: LoadedModel, texts: dict[str, list[str]]) -> Callable[[Any], dict[str, float]]:
    """Return what measures bits per byte of a network that has the target's tokenizer."""

    def score(network: Any) -> dict[str, float]:
        reader = replace(target, network=network)
        return {
            name: pipeline.bits_per_byte([reader], some)[target.name]["bits_per_byte"]
            for name, some in texts.items()
        }

    return score


def eval_texts(
    config: RunConfig, examples: ExampleDataset, target: LoadedModel
) -> dict[str, list[str]]:
    """Read what is evaluated on; the first documents that are trained on where nothing is given."""
    if config.eval_data:
        return {name: documents.read_documents(path) for name, path in config.eval_data.items()}
    texts: list[str] = []
    room = SAMPLE_BYTES
    for i in range(len(examples)):
        text = target.tokenizer.text_of(examples[i].ids.tolist())
        if not text:
            continue
        room -= len(text.encode())
        if texts and room < 0:
            break
        texts.append(text)
    return {TRAINING_TEXT: texts}


def _tidy(folder: Path) -> None:
    """Remove checkpoints that are not whole."""
    for path in (folder / CHECKPOINTS).glob("*"):
        if path.is_dir() and not (path / WHOLE).is_file():
            shutil.rmtree(path, ignore_errors=True)


def _is_last(checkpoint: Path) -> bool:
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    return state.global_step >= state.max_steps
