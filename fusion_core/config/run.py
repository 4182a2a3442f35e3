"""Everything that a training run needs: YAML in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from fusion_core.errors import InputError, shown

from . import plain_yaml
from .parts import Lora, Objective, TextMix
from .paths import eval_files, file_path, model_path
from .settings import (
    Count,
    FusionConfig,
    Names,
    Positive,
    Seed,
    Settings,
    Temperature,
    describe,
    is_whole,
)
from .text import BYTE_ORDER_MARK, decoded

MAX_YAML_BYTES = 1_000_000
_NOTES = "made_with"
_PARTS: dict[str, type[Settings]] = {
    "fusion": FusionConfig,
    "objective": Objective,
    "text": TextMix,
}
"""Fields of a run whose own fields are keys of its YAML."""

Text = Annotated[str, Field(min_length=1)]


class RunConfig(Settings):
    """A training run.

    `of` and `read` take the fields of `fusion`, `objective` and `text` as keys of their own.
    """

    target: Text = Field(description="the model that is trained, as zoo:NAME, a folder or a hub id")
    sources: Names = Field(
        default=(), description="the names of the models that are fused; mode clm needs none"
    )
    data: str | None = Field(
        default=None,
        description="documents, as a .txt, .jsonl or .parquet file or a hub dataset's id; none "
        "where the sources write all of the text",
    )
    eval_data: dict[str, str] = Field(
        default_factory=dict,
        description="such files by name, on which bits per byte are measured",
    )
    start: Text | None = Field(
        default=None,
        description="the token read before a document, as the vocabulary writes it, or none; found "
        "by default, and named for any other model in its name, NAME?start=TOKEN",
    )
    end: Text | None = Field(
        default=None,
        description="the token that ends a document, as the vocabulary writes it, or none; found "
        "by default, and named for any other model in its name, NAME?end=TOKEN",
    )
    mode: Literal["fusion", "clm", "kd"] = Field(
        default="fusion",
        description="what is learnt from, the fused rows of all sources beside the text (fusion), "
        "the text alone (clm) or beside it the rows of the source that reads it best (kd)",
    )
    cache: str | None = Field(
        default=None,
        description="a folder of rows that were made beforehand; they are made first by default",
    )
    pairwise: Literal["sce", "linear", "ties"] | None = Field(
        default=None,
        description="how targets that were trained on each source separately are merged "
        "(FuseChat); the sources are fused by default",
    )
    prompt_end: Text | None = Field(
        default=None,
        description="what the prompts in the documents end with; the text up to it is read, but "
        "not trained on",
    )
    generate_bytes: int = Field(
        default=0, ge=0, description="how much text the sources write, beside the data"
    )
    generate_temperature: Temperature = Field(
        default=1.0, description="what the logits of the writing sources are divided by"
    )
    fusion: FusionConfig = Field(
        default_factory=FusionConfig, description="how rows are projected and fused"
    )
    objective: Objective = Field(default_factory=Objective, description="the loss")
    text: TextMix = Field(default_factory=TextMix, description="what text is read, in shares")
    max_steps: Count | None = Field(
        default=None, description="the number of optimizer steps; epochs decide by default"
    )
    epochs: Positive = Field(default=1.0, description="how often the data is read")
    learning_rate: Positive = Field(default=1e-5, description="the peak of the learning rate")
    scheduler: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="how the learning rate goes on after warming up"
    )
    warmup: float = Field(
        default=0.03,
        ge=0,
        le=1,
        description="the share of the steps in which the learning rate rises",
    )
    weight_decay: float = Field(
        default=0.1, ge=0, description="the weight decay of AdamW (0.9, 0.95), on matrices"
    )
    max_grad_norm: Positive = Field(
        default=1.0, description="the norm to which longer gradients are clipped"
    )
    batch_size: Count = Field(default=4, description="how many blocks a step reads on each device")
    gradient_accumulation: Count = Field(default=1, description="how many batches make a step")
    block_size: int | None = Field(
        default=None,
        ge=8,
        description="how many tokens a block of packed documents has; by default the model's "
        "context, at most 2,048",
    )
    lora: Lora | None = Field(
        default=None, description="low-rank adapters; all weights are trained by default"
    )
    eval_every: Count | None = Field(
        default=None,
        description="how many steps lie between two evaluations; at the ends only by default",
    )
    keep: Literal["last", "best"] = Field(
        default="last",
        description="which weights are the result, the last or the best on eval_data",
    )
    checkpoint_steps: Count = Field(
        default=20, description="how many steps lie between two checkpoints, at least"
    )
    checkpoint_seconds: float = Field(
        default=30.0, ge=0, description="how many seconds lie between two checkpoints, at least"
    )
    seed: Seed = 0
    device: Text = Field(default="cpu", description="cpu, cuda, cuda:N, mps, auto or spread")
    dtype: Text | None = Field(
        default=None,
        description="what the weights are loaded in; on a CPU float32 by default",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="further transformers.TrainingArguments, such as deepspeed or report_to",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check what can be checked without opening anything."""
        if self.mode != "clm" and not self.sources and not self.cache:
            raise InputError(f"Mode {self.mode} needs sources: name at least one.")
        self._check_text()
        written = self.generate_bytes and self.sources
        if self.data is None and not written and not self.cache and not self.text.streams:
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
        return self

    def _check_text(self) -> None:
        """Check what is written while the training goes on.

        Raises:
            InputError: it cannot be, with the other settings.
        """
        text = self.text
        if not text.streams:
            return
        if self.cache or self.generate_bytes or self.pairwise:
            raise InputError(
                "Text is written while the training goes on (continuation_share, target_share): "
                "leave out the cache, generate_bytes and pairwise."
            )
        if text.target_share and self.mode == "clm":
            raise InputError(
                "Text that the target writes teaches by rows alone: leave out target_share, or "
                "choose mode fusion."
            )
        if text.continuation_share and not self.sources:
            raise InputError("Sources write the continuations: name at least one.")
        if self.data is None and not self.max_steps:
            raise InputError("Without data nothing says how much text is read: give max_steps.")
        if self.arguments.get("dataloader_num_workers"):
            raise InputError(
                "Text is written in the process that trains (continuation_share, target_share): "
                "leave out dataloader_num_workers."
            )

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
            values = plain_yaml.read(decoded(data, path).removeprefix(BYTE_ORDER_MARK))
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
        given = {str(k): v for k, v in values.items() if k != _NOTES}
        if _NOTES in values:  # a run of a version that had no other rows, where it names none
            given.setdefault("rows", "boundary")
        models: tuple[type[Settings], ...] = (*_PARTS.values(), RunConfig)
        known = {name for model in models for name in model.model_fields}.difference(_PARTS)
        if unknown := [key for key in given if key not in known]:
            raise InputError(
                f"There is no setting called {shown(unknown[0])}: choose from "
                f"{', '.join(sorted(known))}."
            )
        sources = given.get("sources") or ()
        sources = [sources] if isinstance(sources, str) else sources
        if isinstance(sources, list | tuple):
            sources = [model_path(s, base) for s in sources]
        files = eval_files(given.get("eval_data"), base)
        arguments = given.get("arguments") or {}
        given |= {"sources": sources, "eval_data": files, "arguments": arguments}
        if "target" in given:
            given["target"] = model_path(given["target"], base)
        for name in ("data", "cache"):
            if given.get(name) is not None:
                given[name] = file_path(name, given[name], base)
        if given.get("lora") is not None:
            given["lora"] = _lora(given["lora"])
        parts: dict[str, Any] = {
            name: model(**_fields(model, given)) for name, model in _PARTS.items()
        }
        return RunConfig(**parts, **_fields(RunConfig, given))

    @property
    def readers(self) -> tuple[str, ...]:
        """Names of the sources that are loaded: to read the text, or to write it."""
        writes = self.generate_bytes > 0 or self.text.continuation_share > 0
        needed = self.cache is None and (self.mode != "clm" or writes)
        return self.sources if needed else ()

    def baseline(self) -> RunConfig:
        """Return plain training with all else equal: what fusion is held against."""
        text = self.text
        if text.target_share:  # it has no label to learn from
            alone = not text.data_share + text.continuation_share
            text = text.replace(target_share=0.0, data_share=1.0 if alone else text.data_share)
        return self.replace(mode="clm", pairwise=None, text=text)

    def to_mapping(self) -> dict[str, Any]:
        """Return the keys and values that `of` takes."""
        values = self.model_dump()
        for part in _PARTS:
            values |= values.pop(part)
        values |= {"seed": self.seed, "sources": list(self.sources)}
        if self.lora and not isinstance(self.lora.target_modules, str):
            values["lora"]["target_modules"] = list(self.lora.target_modules)
        return values

    def to_yaml(self, notes: Mapping[str, Any] | None = None) -> str:
        """Write the file that `read` takes.

        Args:
            notes: what is kept beside the settings, under the key ``made_with``.
        """
        values = self.to_mapping() | ({_NOTES: dict(notes)} if notes else {})
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _fields(model: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the values of a model's fields; 1e-4, which YAML takes for a word, becomes a number."""
    kinds = {s.name: s.type for s in describe(model) if s.name in values}
    return {name: _number(values[name], kind) for name, kind in kinds.items()}


def _number(value: Any, kind: str) -> Any:
    if not isinstance(value, str) or kind not in ("integer", "number"):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if kind == "integer" and number.is_integer() else number


def _lora(value: Any) -> Lora:
    if value is True:
        return Lora()
    if is_whole(value):
        return Lora(r=value)
    if not isinstance(value, dict):
        raise InputError(
            "lora must be a rank, or a mapping of r, alpha, dropout and target_modules, not "
            f"{shown(value)}."
        )
    values = {str(k): v for k, v in value.items()}
    if isinstance(values.get("target_modules"), list):
        values["target_modules"] = tuple(map(str, values["target_modules"]))
    return Lora(**values | _fields(Lora, values))
