"""Trainings inside an event, their estimates, and samples of the models that they made."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from fusion_core import isolated, memory, runs, training
from fusion_core.config import RunConfig
from fusion_core.errors import FusionError, InputError
from fusion_core.generation import Ensemble, Sampling, stream
from fusion_core.runs import RunStatus
from fusion_core.runs.folder import STOP

from . import device
from .device import on_device
from .model_cache import ModelCache

LOOK_SECONDS = 0.5
SAMPLE_TOKENS = 48
MEASURE_SECONDS = 60.0
_log = logging.getLogger(__name__)


def _train_seconds(folder: str, config: str, seconds: float) -> int:
    return max(30, round(seconds) + 20)


@on_device(_train_seconds)
def train(folder: str, config: str, seconds: float) -> Iterator[RunStatus]:
    """Train inside a visitor's event, where the device is lent to nothing else.

    Args:
        folder: of the run; one that was interrupted goes on.
        config: its settings as YAML.
        seconds: after which it is stopped.

    Yields:
        How far the run is, twice a second; the files in its folder tell the same.
    """
    place = Path(folder)
    settings = RunConfig.of(yaml.safe_load(config))
    worker = threading.Thread(target=_run, args=(settings, place))
    worker.start()
    try:
        waited = 0.0
        while worker.is_alive():
            worker.join(LOOK_SECONDS)
            waited += LOOK_SECONDS
            if waited > seconds:
                (place / STOP).touch()
            with suppress(InputError):  # there may be none yet
                yield runs.status(place)
    finally:
        # The page was closed: what was learnt is written down.
        if worker.is_alive():
            (place / STOP).touch()
            worker.join()
    yield runs.status(place)


def _run(config: RunConfig, folder: Path) -> None:
    try:
        runs.run(config, folder, resume=True)
    except FusionError:
        pass  # the run's status says it
    except Exception:
        _log.exception("a training failed")


def _measure_seconds(config: str, folder: str) -> int:
    return round(MEASURE_SECONDS)


@on_device(_measure_seconds)
def measure(config: str, folder: str) -> training.Estimate:
    """Say what a training will take, by a few steps in a process of its own.

    Args:
        config: its settings as YAML.
        folder: on whose disk it will be written.

    Raises:
        FusionError: the models or the data cannot be read.
    """
    if device.LENT:  # this is a process of its own
        return training.estimate(RunConfig.of(yaml.safe_load(config)), folder)
    found = isolated.call(
        "training.estimate:estimate_plain",
        config,
        folder,
        memory=memory.available(),
        seconds=MEASURE_SECONDS,
        what="Timing this training",
    )
    return training.Estimate(**found)


def _sample_seconds(cache: str, names: Sequence[str], prompts: Sequence[str], seed: int) -> int:
    return min(120, 20 + 3 * len(names) * len(prompts))


@on_device(_sample_seconds)
def samples(
    cache: str, names: Sequence[str], prompts: Sequence[str], seed: int
) -> Iterator[list[list[str]]]:
    """Let several models continue the same prompts.

    Args:
        cache: key of the cache that holds the models.
        names: of the models.
        prompts: texts to continue.
        seed: of the draws.

    Yields:
        For each prompt, as soon as it is finished, the continuation of every model, and those of
        the prompts before it.
    """
    here = ModelCache.at(cache)
    written: list[list[str]] = []
    sampling = Sampling(max_new_tokens=SAMPLE_TOKENS, temperature=0.7, seed=seed)
    writers = [Ensemble(here.get(name)) for name in names]
    for prompt in prompts:
        written.append(["".join(s.text for s in stream(w, prompt, sampling)) for w in writers])
        yield written
