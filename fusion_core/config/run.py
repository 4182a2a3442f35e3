"""Everything that a training run needs: YAML in and out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from fusion_core.errors import InputError

from .fusion import FusionConfig
from .parts import Lora, Objective, is_number, is_whole, one_of
from .text import BYTE_ORDER_MARK, decoded

MODES = {
    "fusion": "the fused rows of all sources beside the text",
    "clm": "the text alone",
    "kd": "the rows of the one source that reads the data best, beside the text",
}
MERGES = ("sce", "linear", "ties")
SCHEDULERS = ("cosine", "linear", "constant")
DOCUMENT_FILES = (".txt", ".md", ".jsonl", ".parquet")
OTHER_FILES = (".csv", ".tsv", ".json", ".arrow", ".gz", ".zst", ".zip")
"""Endings that no dataset's id has, beside `DOCUMENT_FILES`."""
MAX_YAML_BYTES = 1_000_000
_DATASET_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class RunConfig:
    """A training run.

    Attributes:
        target: name of the model that is taught.
        sources: names of the models that teach; none are needed for mode "clm".
        data: documents: a .txt, .jsonl or .parquet file, or a hub dataset's id; None where the
            sources write all of the text.
        eval_data: such files by name, on which bits per byte are measured.
        start: token that the target reads before a document, as its vocabulary writes it, or
            "none"; None finds it. Of a source its name tells: ``NAME?start=TOKEN&end=TOKEN``.
        end: the same of the token that ends a document, which is taught there.
        mode: name in `MODES`.
        cache: a folder of rows that were made beforehand; None makes them first.
        pairwise: teach the target by each source separately and merge the results by this method
            of `MERGES` (FuseChat); None fuses.
        prompt_end: what the prompts in the documents end with; the text up to it is read, but not
            taught. None teaches all of it.
        generate_bytes: text that the sources write, beside the data.
        generate_temperature: what the logits of the writing sources are divided by.
        fusion: how rows are carried over and fused.
        objective: the loss.
        max_steps: optimiser steps; None goes by epochs.
        epochs: how often the data is read.
        learning_rate: its peak.
        scheduler: its course after warming up, one of `SCHEDULERS`.
        warmup: share of the steps in which it rises.
        weight_decay: of AdamW (0.9, 0.95), on matrices.
        max_grad_norm: length to which longer gradients are cut.
        batch_size: blocks a step on each device.
        gradient_accumulation: batches a step.
        block_size: tokens of a block, documents packed; None takes the model's context, 2,048 at
            most.
        lora: adapters; None trains all weights.
        eval_every: steps between two evaluations; None evaluates at the ends only.
        keep: which weights are the result, "last" or "best" on eval_data.
        checkpoint_steps: steps between two checkpoints, at least.
        checkpoint_seconds: seconds between two checkpoints, at least.
        seed: of everything that is drawn.
        device: as in `models.load`.
        dtype: what the models are loaded in; None for float32 on a CPU.
        arguments: further `transformers.TrainingArguments`, such as deepspeed or report_to.

    Raises:
        InputError: a value cannot be used.
    """

    target: str
    sources: tuple[str, ...] = ()
    data: str | None = None
    eval_data: dict[str, str] = field(default_factory=dict)
    start: str | None = None
    end: str | None = None
    mode: str = "fusion"
    cache: str | None = None
    pairwise: str | None = None
    prompt_end: str | None = None
    generate_bytes: int = 0
    generate_temperature: float = 1.0
    fusion: FusionConfig = field(default_factory=FusionConfig)
    objective: Objective = field(default_factory=Objective)
    max_steps: int | None = None
    epochs: float = 1.0
    learning_rate: float = 1e-5
    scheduler: str = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    batch_size: int = 4
    gradient_accumulation: int = 1
    block_size: int | None = None
    lora: Lora | None = None
    eval_every: int | None = None
    keep: str = "last"
    checkpoint_steps: int = 20
    checkpoint_seconds: float = 30.0
    seed: int = 0
    device: str = "cpu"
    dtype: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what can be checked without opening anything."""
        one_of("mode", self.mode, tuple(MODES))
        one_of("keep", self.keep, ("last", "best"))
        one_of("scheduler", self.scheduler, SCHEDULERS)
        if self.pairwise is not None:
            one_of("pairwise", self.pairwise, MERGES)
        for name in ("device", "prompt_end", "dtype", "start", "end"):
            value = getattr(self, name)
            if not (isinstance(value, str) and value) and (name == "device" or value is not None):
                raise InputError(f"{name} must be text, not {value!r}.")
        if not isinstance(self.target, str) or not self.target:
            raise InputError("target must name a model: give zoo:NAME, a folder or a hub id.")
        if self.mode != "clm" and not self.sources and not self.cache:
            raise InputError(f"Mode {self.mode} needs sources: name at least one.")
        if self.data is None and not (self.generate_bytes and self.sources) and not self.cache:
            raise InputError(
                "There is nothing to read: give data, a cache, or generate_bytes and sources that "
                "write them."
            )
        if self.keep == "best" and not (self.eval_data and self.eval_every):
            raise InputError("keep: best needs eval_data and eval_every to choose by.")
        if self.pairwise and (self.mode != "fusion" or self.cache or not self.sources):
            raise InputError(
                "pairwise trains on rows of its own for each source: use it with mode fusion, with "
                "sources and without a cache."
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        least: dict[str, tuple[float, bool, bool]] = {  # least value, whole, may be None
            "max_steps": (1, True, True),
            "batch_size": (1, True, False),
            "gradient_accumulation": (1, True, False),
            "block_size": (8, True, True),
            "eval_every": (1, True, True),
            "checkpoint_steps": (1, True, False),
            "checkpoint_seconds": (0, False, False),
            "generate_bytes": (0, True, False),
            "warmup": (0, False, False),
            "weight_decay": (0, False, False),
            "seed": (0, True, False),
        }
        for name, (low, whole, optional) in least.items():
            value = getattr(self, name)
            if value is None and optional:
                continue
            if not (is_whole(value) if whole else is_number(value)) or value < low:
                kind = "a whole number" if whole else "a number"
                raise InputError(f"{name} must be {kind} of at least {low}, not {value!r}.")
        for name in ("learning_rate", "epochs", "max_grad_norm", "generate_temperature"):
            value = getattr(self, name)
            if not is_number(value) or not value > 0:
                raise InputError(f"{name} must be a number above 0, not {value!r}.")
        if self.warmup > 1:
            raise InputError(f"warmup must be a share from 0 to 1, not {self.warmup!r}.")

    @staticmethod
    def read(path: str | Path) -> RunConfig:
        """Read a YAML file; relative paths in it are relative to the file.

        Raises:
            InputError: the file cannot be read, lacks a key, has an unknown one or a wrong value.
        """
        file = Path(path)
        try:
            data = file.read_bytes()
            if len(data) > MAX_YAML_BYTES:
                raise InputError(f"{path} has more than {MAX_YAML_BYTES:,} bytes: shorten it.")
            values = yaml.safe_load(decoded(data, path).removeprefix(BYTE_ORDER_MARK))
        except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"{path} cannot be read as YAML ({reason}): check the file."
            ) from error
        if not isinstance(values, dict):
            raise InputError(
                f"{path} is no mapping of keys to values: write `target: …` and so on."
            )
        return RunConfig.of(values, file.parent)

    @staticmethod
    def of(values: Mapping[str, Any], base: str | Path = ".") -> RunConfig:
        """Make a configuration of the keys of a YAML file.

        Args:
            values: the keys and values.
            base: folder that relative paths start from.

        Raises:
            InputError: a key is missing or unknown, or a value cannot be used.
        """
        given = {k: v for k, v in values.items() if k not in _NOTES}
        known = _keys()
        unknown = [str(k) for k in given if k not in known]
        if unknown:
            raise InputError(
                f"There is no setting called {unknown[0]!r}: choose from "
                f"{', '.join(sorted(known))}."
            )
        if "target" not in given:
            raise InputError("The setting target is missing: name the model that is taught.")
        given = {k: _typed(k, v, known[k]) for k, v in given.items()}
        if isinstance(given.get("sources"), str):
            given["sources"] = [given["sources"]]
        sources = given.get("sources") or []
        if not isinstance(sources, list | tuple) or not all(isinstance(s, str) for s in sources):
            raise InputError("sources must be a list of model names.")
        given["sources"] = tuple(_model(s, base) for s in sources)
        given["target"] = _model(given["target"], base)
        given["eval_data"] = _eval_data(given.get("eval_data"), base)
        for name in ("data", "cache"):
            if given.get(name) is not None:
                given[name] = _path(name, given[name], base)
        if given.get("lora") is not None:
            given["lora"] = _lora(given["lora"])
        if not isinstance(given.setdefault("arguments", {}) or {}, dict):
            raise InputError("arguments must be a mapping of transformers.TrainingArguments.")
        given["arguments"] = given["arguments"] or {}
        fusion = {f.name: given[f.name] for f in fields(FusionConfig) if f.name in given}
        objective = {f.name: given[f.name] for f in fields(Objective) if f.name in given}
        own = {f.name: given[f.name] for f in fields(RunConfig) if f.name in given}
        return RunConfig(fusion=FusionConfig(**fusion), objective=Objective(**objective), **own)

    @property
    def readers(self) -> tuple[str, ...]:
        """Names of the sources that are loaded: to read the text, or to write it."""
        needed = self.cache is None and (self.mode != "clm" or self.generate_bytes > 0)
        return self.sources if needed else ()

    def twin(self) -> RunConfig:
        """Return plain training with all else equal: what fusion is held against."""
        return replace(self, mode="clm", pairwise=None)

    def to_mapping(self) -> dict[str, Any]:
        """Return the keys and values that `of` takes."""
        values = asdict(self)
        values |= values.pop("fusion") | values.pop("objective") | {"seed": self.seed}
        values["sources"] = list(self.sources)
        if self.lora and not isinstance(self.lora.target_modules, str):
            values["lora"]["target_modules"] = list(self.lora.target_modules)
        return values

    def to_yaml(self, notes: Mapping[str, Any] | None = None) -> str:
        """Write the file that `read` takes.

        Args:
            notes: what is kept beside the settings, under the key ``made_with``.
        """
        values = self.to_mapping() | ({"made_with": dict(notes)} if notes else {})
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


_NOTES = ("made_with",)


def _keys() -> dict[str, str]:
    """Name the keys of a run's YAML, with their types."""
    keys = {
        f.name: str(f.type) for kind in (FusionConfig, Objective, RunConfig) for f in fields(kind)
    }
    return {k: v for k, v in keys.items() if k not in ("fusion", "objective")}


def _typed(name: str, value: Any, kind: str) -> Any:
    """Read 1e-4, which YAML takes for a word, as the number that it is."""
    if isinstance(value, str) and "str" not in kind and ("float" in kind or "int" in kind):
        try:
            number = float(value)
        except ValueError:
            raise InputError(f"{name} must be a number, not {value!r}.") from None
        return int(number) if "float" not in kind and number.is_integer() else number
    if "bool" in kind and not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, not {value!r}.")
    return value


def _model(name: Any, base: str | Path) -> str:
    """Make a model's name independent of the current folder where it names a folder."""
    if not isinstance(name, str):
        raise InputError(f"A model's name must be text, not {name!r}.")
    plain, mark, asked = name.partition("?")  # the tokens around documents that it asks for
    if mark and "\0" not in name and Path(base, os.path.expanduser(name)).is_dir():
        plain, mark, asked = name, "", ""
    folder = Path(base, os.path.expanduser(plain))
    local = bool(plain) and ":" not in plain and "\0" not in plain and folder.is_dir()
    return f"{folder.resolve()}{mark}{asked}" if local else name


def may_be_dataset(name: str, base: str | Path = ".") -> bool:
    """Tell an id of a hub dataset from the name of a file or folder, which may be missing.

    Args:
        name: what a person typed.
        base: folder that relative paths start from.
    """
    path = Path(base, name)
    file = path.suffix.lower() in (*DOCUMENT_FILES, *OTHER_FILES)
    return bool(_DATASET_ID.fullmatch(name)) and not file and not path.parent.is_dir()


def _path(key: str, value: Any, base: str | Path) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(f"{key} must be the name of a file or folder, not {value!r}.")
    hub = key == "data" and may_be_dataset(value, base)
    return value if hub else str(Path(base, os.path.expanduser(value)).resolve())


def _eval_data(value: Any, base: str | Path) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, str):
        value = {Path(value).stem: value}
    if isinstance(value, list):
        stems = [Path(str(v)).stem for v in value]
        if len(set(stems)) < len(stems):
            raise InputError("Two files of eval_data have one name: give them names of their own.")
        value = dict(zip(stems, value, strict=True))
    if not isinstance(value, dict):
        raise InputError("eval_data must be a file, a list of files, or files by name.")
    return {str(name): _path("eval_data", path, base) for name, path in value.items()}


def _lora(value: Any) -> Lora:
    if value is True:
        return Lora()
    if is_whole(value):
        return Lora(r=value)
    if not isinstance(value, dict):
        raise InputError("lora must be a rank, or a mapping of r, alpha, dropout, target_modules.")
    unknown = set(value) - {f.name for f in fields(Lora)}
    if unknown:
        raise InputError(f"There is no setting called lora.{sorted(map(str, unknown))[0]}.")
    if isinstance(value.get("target_modules"), list):
        value = value | {"target_modules": tuple(map(str, value["target_modules"]))}
    return Lora(**value)
