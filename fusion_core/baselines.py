"""Weight merging: fine-tuned copies of one base model become one model.

FuseChat (arXiv 2408.07990) teaches copies of one model by one source each and merges the copies.
Three ways of merging are here. With the base θ, the copies θ_j and their task vectors
δ_j = θ_j - θ, they work tensor by tensor and in no way across tensors:

    linear    Σ_j w_j·θ_j / Σ_j w_j
    ties      θ + the mean, by w_j, of those δ_j whose sign wins; every δ_j trimmed before
    sce       θ + the same mean by Σ δ_j²; all δ_j kept only where they differ most between copies

Sums over models are taken in float64, so that neither a sign that is voted on nor the result hangs
on the order in which the models are named; all else is float32.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import InputError
from .io.files import DOCUMENT_TOKENS, TOKENIZER_FILES, folder_whole

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"

COPIED = (CONFIG, "generation_config.json", DOCUMENT_TOKENS, *TOKENIZER_FILES)
"""Files that a merged model takes over from the first of those it is made of."""

# One tensor of all models -----------------------------------------------------------------------


def linear(base: Tensor, tuned: Tensor, weights: Tensor, density: float = 1.0) -> Tensor:
    """Average the models: model soups, arXiv 2203.05482.

    Args:
        base: (...) of any shape; not used, as the average does not depend on it.
        tuned: (models, ...).
        weights: (models,), none negative, not all 0.
        density: not used, as nothing is left out.

    Returns:
        (...) in the type of the models.
    """
    return (_sum(tuned, weights) / weights.sum().double()).to(tuned.dtype)


def ties(base: Tensor, tuned: Tensor, weights: Tensor, density: float) -> Tensor:
    """Trim, elect signs, and average what agrees: TIES, arXiv 2306.01708, with λ = 1.

    Each task vector keeps its elements of largest magnitude. The sign of an element is that of its
    sum over models; where that is 0, no sign wins and the base stays. A weight counts like so many
    copies of the model, in the vote as in the mean. The paper trims a model as a whole; here, as
    in most programs, each tensor is trimmed for itself.

    `peft.utils.merge_utils.ties` does the same for weights of 1. It is not used because it divides
    weighted sums by the number of models instead of their weights, and does not weigh the vote;
    rounds down what is kept, so that it drops small tensors whole; and lets plus win when votes
    are even. The tests hold this function against it.

    Args:
        base: (...) of any shape.
        tuned: (models, ...).
        weights: (models,), none negative, not all 0.
        density: share of the elements that each task vector keeps, at least one of them; elements
            as large as the last one kept stay too. With 1, equal models give themselves.

    Returns:
        (...) in the type of the base.
    """
    task = tuned - base
    for vector in task:
        vector.mul_(_top(vector.abs(), density))
    elected = _sum(task, weights).sign()
    return (base + _mean_of_agreeing(task, weights, elected)).to(base.dtype)


def sce(base: Tensor, tuned: Tensor, weights: Tensor, density: float) -> Tensor:
    """Select, calculate and erase: FuseChat, arXiv 2408.07990.

    Select the elements whose task vectors vary most between the models, the same ones for all.
    Calculate one weight for each model and tensor, in proportion to the sum of squares of what is
    selected of its task vector. Erase the elements whose sign is not that of their sum over
    models. What is left of an element is averaged by the weights of those that are left in it, as
    mergekit does; were the weights of the erased not made up for, every conflict would shrink the
    task vector.

    Args:
        base: (...) of any shape.
        tuned: (models, ...).
        weights: not used, as the method works out its own.
        density: share of the elements that are selected, at least one of them; elements that vary
            as much as the last one selected are selected too. So equal models, which vary nowhere,
            give themselves with any density.

    Returns:
        (...) in the type of the base.
    """
    task = tuned - base
    task *= _top(task.var(dim=0, correction=0), density)
    squares = torch.stack([torch.linalg.vector_norm(v, dtype=torch.float64) ** 2 for v in task])
    elected = _sum(task, torch.ones(len(task))).sign()
    return (base + _mean_of_agreeing(task, squares, elected)).to(base.dtype)


Method = Callable[[Tensor, Tensor, Tensor, float], Tensor]

METHODS: dict[str, Method] = {"linear": linear, "ties": ties, "sce": sce}
"""Every way of merging: (base, tuned, weights, density) of one tensor to the merged tensor."""


def _sum(vectors: Tensor, weights: Tensor) -> Tensor:
    """Add up (models, ...) by their weights, in float64 and without a copy of them all in it."""
    total = torch.zeros_like(vectors[0], dtype=torch.float64)
    for vector, weight in zip(vectors, weights.tolist(), strict=True):
        total.add_(vector, alpha=weight)
    return total


def _top(score: Tensor, density: float) -> Tensor:
    """Mark the highest share of scores, and all that equal the lowest of these."""
    below = score.numel() - max(1, round(density * score.numel()))
    if below == 0:
        return torch.ones_like(score, dtype=torch.bool)
    return score >= float(np.partition(score.flatten().numpy(), below)[below])


def _mean_of_agreeing(task: Tensor, weights: Tensor, elected: Tensor) -> Tensor:
    """Average (models, ...) over the models that have the elected sign; 0 where none has."""
    total, share = torch.zeros_like(elected), torch.zeros_like(elected)
    for vector, weight in zip(task, weights.tolist(), strict=True):
        agreeing = vector.sign() == elected
        total.add_(vector * agreeing, alpha=weight)
        share.add_(agreeing, alpha=weight)
    return torch.where(share > 0, total / share, 0.0)


# Whole models -----------------------------------------------------------------------------------


def merge(
    base: str | Path,
    tuned: Sequence[str | Path],
    out: str | Path,
    *,
    method: str = "sce",
    weights: Sequence[float] | None = None,
    density: float = 0.2,
) -> None:
    """Merge fine-tuned copies of one base model into a model folder, there whole or not at all.

    What is held at once is the merged model, in the type of the first copy, and one tensor of
    every model, in float32. Tensors that are not of a floating type are those of the first copy.

    Args:
        base: folder of the model that was fine-tuned, in the format of transformers: with
            `model.safetensors`, or shards and their index. It may have another floating type.
        tuned: folders of its copies, one or more. All have the same tensors; only a tied tensor
            may be written twice in some of them.
        out: folder to write, with the weights, and with the configuration and the tokenizer of
            the first copy. A model that is there already is replaced.
        method: one of `METHODS`.
        weights: of the copies, in any scale; equal if left out, and always with "sce", which
            works out its own.
        density: share of the elements that count, in (0, 1]; "linear" does not use it.

    Raises:
        InputError: an option is out of range, a file is missing or broken, the models are not
            copies of one another, or the folder cannot be written.
    """
    folders = [Path(base), *map(Path, tuned)]
    shares = _checked(len(tuned), method, weights, density)
    out = Path(out)
    _check_out(out, folders)
    with ExitStack() as stack:
        models = [_Weights(folder, stack) for folder in folders]
        _check_config(folders[1])
        for model in (models[0], *models[2:]):
            _check_alike(models[1], model)
        _write(out, folders[1], _merged(models, METHODS[method], shares, density))


def _checked(models: int, method: str, weights: Sequence[float] | None, density: float) -> Tensor:
    """Return (models,) weights, after a look at all options."""
    if models < 1:
        raise InputError("There is nothing to merge: name one fine-tuned model or more.")
    if method not in METHODS:
        raise InputError(f"There is no method {method!r}: choose one of {', '.join(METHODS)}.")
    if not 0 < density <= 1:
        raise InputError(f"The density is {density}: choose one above 0 and not above 1.")
    if weights is None:
        return torch.ones(models, dtype=torch.float64)
    if method == "sce":
        raise InputError(
            "The method sce works out its own weights: leave them out, or choose linear or ties."
        )
    if len(weights) != models:
        raise InputError(
            f"The number of weights is {len(weights)} and that of fine-tuned models {models}: "
            "give one weight for each model."
        )
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
        raise InputError(
            f"The weights are {', '.join(map(str, weights))}: give numbers that are not negative, "
            "at least one of them above 0."
        )
    return torch.tensor(weights, dtype=torch.float64)


def _check_out(out: Path, folders: list[Path]) -> None:
    """Refuse to replace a folder that is still needed, or that holds something else."""
    place = out.resolve()
    for folder in folders:
        if folder.resolve().is_relative_to(place):
            raise InputError(f"Writing {out} would delete {folder}: choose another folder.")
    if out.exists() and not (out / CONFIG).is_file() and not (out.is_dir() and _empty(out)):
        raise InputError(f"{out} is there and is no model folder: choose another name.")


def _empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None


def _check_config(folder: Path) -> None:
    """Make sure that the configuration can be copied, and fits weights that are plain numbers."""
    config = _json(folder / CONFIG)
    if "quantization_config" in config:
        raise InputError(
            f"The model in {folder} is quantized: merge models in float32, bfloat16 or float16."
        )


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"There is no {file}: save the model there with save_pretrained.")
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}): save the model again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} does not hold a JSON object: save the model again.")
    return content


class _Weights:
    """The tensors of a model folder, read one at a time."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._file_of: dict[str, Any] = {}
        for file in _files(folder):
            if not file.is_file():
                raise InputError(f"There is no {file}: copy the whole model there.")
            try:
                opened = stack.enter_context(safe_open(file, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise InputError(f"{file} cannot be read ({error}): copy it again.") from error
            self._file_of |= dict.fromkeys(opened.keys(), opened)

    @property
    def names(self) -> set[str]:
        return set(self._file_of)

    def shape(self, name: str) -> list[int]:
        """Tell a tensor's shape without reading the tensor."""
        return list(self._file_of[name].get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        return self._file_of[name].get_tensor(name)


def _files(folder: Path) -> list[Path]:
    """List the files of weights that a model folder has, or should have by its index."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise InputError(
            f"There is no {WEIGHTS} in {folder}: save the model there with save_pretrained."
        )
    shards = _json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise InputError(f"{folder / INDEX} names no files: save the model again.")
    return [folder / str(name) for name in sorted(set(shards.values()))]


def _check_alike(first: _Weights, other: _Weights) -> None:
    """Make sure that a model has the tensors of the first fine-tuned one, and no more."""
    advice = "merge only a base model and copies of it, all saved by the same program"
    for name in sorted(first.names):
        if name not in other.names:
            raise InputError(
                f"The model in {other.folder} lacks the tensor {name} of {first.folder}: {advice}."
            )
        if first.shape(name) != other.shape(name):
            raise InputError(
                f"The tensor {name} is {first.shape(name)} in {first.folder} and "
                f"{other.shape(name)} in {other.folder}: {advice}."
            )
    for name in sorted(other.names - first.names):
        if not _written_twice(other, name, first.names):
            raise InputError(
                f"The model in {first.folder} lacks the tensor {name} of {other.folder}: {advice}."
            )


def _written_twice(model: _Weights, name: str, known: set[str]) -> bool:
    """Tell whether a tensor is one of the others, as some programs write out tied ones."""
    alike = [n for n in sorted(known) if model.shape(n) == model.shape(name)]
    return any(torch.equal(model.tensor(n), model.tensor(name)) for n in alike)


def _merged(
    models: list[_Weights], method: Method, weights: Tensor, density: float
) -> Iterator[tuple[str, Tensor]]:
    """Merge one tensor after the other; the base comes first among the models."""
    base, *tuned = models
    for name in sorted(tuned[0].names):
        first = tuned[0].tensor(name)
        if not first.is_floating_point() or not first.numel():
            yield name, first
            continue
        stacked = torch.stack([model.tensor(name).float() for model in tuned])
        yield name, method(base.tensor(name).float(), stacked, weights, density).to(first.dtype)


def _write(out: Path, like: Path, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """Write a model folder with the small files of another one, all of it or nothing."""
    try:
        with folder_whole(out) as part:
            for name in COPIED:
                if (like / name).is_file():
                    shutil.copyfile(like / name, part / name)
            save_file(dict(tensors), part / WEIGHTS, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"The merged model cannot be written to {out} ({error}): make room there or choose "
            "another folder."
        ) from error
