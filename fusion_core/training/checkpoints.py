"""Checkpoints of a run: each complete only with its mark, which has a digest of every file.

A bit that flips on a disk must not become another model: a checkpoint that is not what was written
is passed over for the older one, and that is said.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from fusion_core.errors import InputError
from fusion_core.io.files import write_whole

CHECKPOINTS = "checkpoints"
BEST = "best"
COMPLETE = "complete.json"
COMPLETE_BEFORE = "whole.json"
"""What that file is called in the checkpoints of older runs."""

_MARKED, _WITH_DIGESTS = {"tokens", "seconds"}, {"tokens", "seconds", "files", "sha256"}
_log = logging.getLogger(__name__)


def checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Return where the library writes the checkpoint of the present step."""
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def best_folder(folder: Path, step: int | None) -> Path:
    """Return where a run keeps the weights of a step that was the best so far."""
    return folder / f"{BEST}-{step}"


def mark_complete(folder: Path, tokens: int, seconds: float) -> None:
    """Mark a checkpoint of which all has been written, with a digest of each of its files.

    Args:
        folder: of the checkpoint.
        tokens: that had been taught by then.
        seconds: that the run had taken by then.
    """
    digests = {name: _digest(folder / name) for name in _files(folder)}
    values = {"tokens": tokens, "seconds": seconds, "files": digests}
    write_whole(folder / COMPLETE, json.dumps(values | {"sha256": _digest_of(values)}).encode())


def is_complete(checkpoint: Path) -> bool:
    """Tell whether all of a checkpoint has been written."""
    return _mark(checkpoint).is_file()


def read_complete(checkpoint: Path) -> tuple[int, float]:
    """Return the tokens and seconds with which a checkpoint was marked."""
    values = json.loads(_mark(checkpoint).read_bytes())
    return values["tokens"], values["seconds"]


def fault(checkpoint: Path) -> str | None:
    """Name the file of a marked folder that is not what was written; None where all are.

    Checkpoints of older runs have no digests: of them nothing is known.
    """
    mark = _mark(checkpoint)
    try:
        values = json.loads(mark.read_bytes())
        if set(values) == _MARKED:
            return None if set(map(type, values.values())) <= {int, float} else mark.name
        whole = set(values) == _WITH_DIGESTS and values.pop("sha256") == _digest_of(values)
        if not whole:
            return mark.name
        files = set(_files(checkpoint))
        for name, digest in values["files"].items():
            if name not in files or _digest(checkpoint / name) != digest:
                return name
        return next(iter(files - set(values["files"])), None)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return mark.name


def _mark(checkpoint: Path) -> Path:
    file = checkpoint / COMPLETE
    return file if file.is_file() else checkpoint / COMPLETE_BEFORE


def _files(folder: Path) -> Iterator[str]:
    """Yield the names of a folder's files but for its marks."""
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name not in (COMPLETE, COMPLETE_BEFORE):
            yield name


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest_of(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def step_of(checkpoint: Path) -> int:
    """Return the step of a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a folder, the newest first."""
    found = (
        path
        for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.name.rpartition("-")[2].isdecimal() and is_complete(path)
    )
    return sorted(found, key=step_of, reverse=True)


def last_checkpoint(folder: Path) -> Path | None:
    """Find the newest complete checkpoint."""
    return next(iter(complete_checkpoints(folder)), None)


def remove_incomplete(folder: Path) -> None:
    """Remove checkpoints of which not all has been written."""
    for path in folder.glob("*"):
        if path.is_dir() and not is_complete(path):
            shutil.rmtree(path, ignore_errors=True)


def fall_back(run: Path) -> str | None:
    """Remove checkpoints that are damaged, as long as an older one is not.

    Args:
        run: folder of a run, or of one of its pairs.

    Returns:
        A sentence that says so; None where the newest one is as it was written.

    Raises:
        InputError: all of them are damaged; nothing is removed.
    """
    damaged: list[str] = []
    for checkpoint in complete_checkpoints(run / CHECKPOINTS):
        found = fault(checkpoint)
        if found is None:
            for name in damaged:
                shutil.rmtree(run / CHECKPOINTS / name.partition("/")[0])
            if not damaged:
                return None
            said = f"{damaged[0]} is damaged: the run goes on from step {step_of(checkpoint)}."
            _log.warning(said)
            return said
        damaged.append(f"{checkpoint.name}/{found}")
    if damaged:
        raise InputError(
            f"All checkpoints of the run at {run} are damaged ({damaged[0]}): restore one of them, "
            "or start the run again in another folder."
        )
    return None


def remove_former_best(run: Path) -> None:
    """Remove the best weights of steps that no checkpoint refers to any more."""
    wanted = set()
    for checkpoint in complete_checkpoints(run / CHECKPOINTS):
        with suppress(OSError, ValueError, TypeError):
            state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
            wanted.add(best_folder(run, state.best_global_step))
    for folder in run.glob(f"{BEST}-*"):
        if folder not in wanted:
            shutil.rmtree(folder, ignore_errors=True)
