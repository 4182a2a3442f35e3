"""Settings models: each field's type, default, bounds and description stand here once.

Constructors, flags of the command line, fields of forms and JSON schemas (`model_json_schema`) all
come from them. A value that does not fit is an InputError of one sentence.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from fusion_core.errors import InputError, shown

LARGEST_SEED = 2**32 - 1
"""The largest that Python, numpy and torch all take."""

LARGEST_COUNT = 2**31 - 1
"""The largest that every library counts to."""

Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
Positive = Annotated[float, Field(gt=0)]
Temperature = Annotated[float, Field(ge=1e-4)]
"""Quotients of logits by less are no numbers."""

Share = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED, description="the seed of draws")]
Names = Annotated[tuple[str, ...], Field(strict=False)]
"""Several texts; a list of them is taken, too."""

_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "array": "a list of texts",
    "object": "a mapping",
}


class Settings(BaseModel):
    """Base of all settings: frozen, strict about types, without unknown names.

    Raises:
        InputError: a value cannot be used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    prefix: ClassVar[str] = ""
    """What stands before the fields' names in errors."""

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_sentence(
        cls, values: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            raise InputError(_sentence(cls, error, info.context or {})) from None

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values, checked as these were."""
        return type(self)(**(dict(self) | changes))


@dataclass(frozen=True)
class Setting:
    """A field of a settings model, as flags and forms show it.

    Attributes:
        name: of the field.
        type: "integer", "number", "boolean", "string", "array" or "object", as in a JSON schema.
        default: None where there is none.
        minimum: least value, or what a value lies above.
        maximum: largest value, or what a value lies below.
        choices: all values, where they are known.
        description: a noun phrase.
        expected: what a value must be, in words, such as "a whole number of at least 1".
    """

    name: str
    type: str
    default: Any
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    description: str
    expected: str

    def refused(self, value: Any) -> str:
        """Say that a value does not fit, and what to choose."""
        what = self.description.partition(";")[0]
        return f"{self.name} must be {self.expected}, not {shown(value)}: choose {what}."


@cache
def describe(model: type[Settings], **most: float) -> tuple[Setting, ...]:
    """List the fields of a settings model, in their order; `most` lowers what is largest."""
    found = []
    for name, schema in model.model_json_schema()["properties"].items():
        kinds = [k for k in schema.get("anyOf", [schema]) if k.get("type") != "null"]
        first = kinds[0]
        for kind in kinds:
            if kind.get("maximum") == LARGEST_COUNT:  # no choice of ours
                del kind["maximum"]
        if name in most:
            first["maximum"] = min(most[name], first.get("maximum", most[name]))
        setting = Setting(
            name=name,
            type=first.get("type", "object"),
            default=schema.get("default"),
            minimum=first.get("minimum", first.get("exclusiveMinimum")),
            maximum=first.get("maximum", first.get("exclusiveMaximum")),
            choices=tuple(first.get("enum", ())),
            description=schema.get("description", ""),
            expected=" or ".join(_WORDS[k.get("type", "object")] + _bounds(k) for k in kinds),
        )
        found.append(setting)
    return tuple(found)


def _bounds(schema: dict[str, Any]) -> str:
    """Put the bounds of a number into words."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" between {low:,} and {high:,}"
    limits = {
        "of at least": low,
        "above": schema.get("exclusiveMinimum"),
        "at most": high,
        "below": schema.get("exclusiveMaximum"),
    }
    words = " and ".join(f"{how} {limit:,}" for how, limit in limits.items() if limit is not None)
    return words and f" {words}"


def _sentence(
    model: type[Settings], error: ValidationError, labelled: Mapping[str, Setting]
) -> str:
    """Say what the first error is and what to choose; a misspelt name comes before all else."""
    errors = error.errors(include_url=False)
    known = model.model_fields
    first = next((e for e in errors if e["loc"] and e["loc"][0] not in known), errors[0])
    fields = ", ".join(sorted(known))
    if not first["loc"]:
        return f"{model.__name__} must be a mapping of {fields}, not {shown(first['input'])}."
    name = f"{model.prefix}{first['loc'][0]}"
    if first["loc"][0] not in known:
        return f"There is no setting called {shown(name)}: choose from {fields}."
    setting = next(s for s in describe(model) if s.name == first["loc"][0])
    setting = labelled.get(setting.name) or replace(setting, name=name)
    if first["type"] == "missing":
        return f"The setting {name} is missing: choose {setting.description.partition(';')[0]}."
    if setting.choices:
        return _unknown(setting.name, first["input"], setting.choices)
    if first.get("ctx", {}).get("le") == LARGEST_COUNT:
        setting = replace(setting, expected=f"at most {LARGEST_COUNT:,}")
    return setting.refused(first["input"])


def _unknown(name: str, value: Any, known: Iterable[str]) -> str:
    return f"There is no {name} {shown(value)}: choose one of {', '.join(known)}."


def one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Refuse a name that is not known.

    Raises:
        InputError: it is none of them.
    """
    if value not in known:
        raise InputError(_unknown(name, value, known))


def is_number(value: Any) -> bool:
    """Tell a finite number from all else."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def is_whole(value: Any) -> bool:
    """Tell a whole number from all else."""
    return isinstance(value, int) and not isinstance(value, bool)


# The settings of a fusion -----------------------------------------------------------------------


class Truncation(Settings):
    """What is kept of a source's rows: one of three ways."""

    top_k: Count | None = Field(default=None, description="how many tokens are kept")
    top_p: Share | None = Field(default=None, description="the share that the tokens kept reach")
    samples: Count | None = Field(default=None, description="how many tokens are drawn instead")
    seed: Seed = 0


class FusionConfig(Settings):
    """How rows are projected and fused.

    Names of strategies, operators and levels are looked up in their registries where they are used.
    """

    strategy: str = Field(
        default="prefix",
        description="the vocab mapping that carries a source's mass to the target's vocabulary",
    )
    rows: Literal["exact", "boundary"] = Field(
        default="exact",
        description="whether a source's rows know only what has been read (exact: a sum over its "
        "tokenisations), or also that one of its tokens ends there in the whole text (boundary)",
    )
    prune: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="the share of a row's mass below which a tokenisation is left out of exact "
        "rows, and its share to the target's own; 0 leaves none out",
    )
    operator: str = Field(default="min_ce", description="the fusion operator")
    level: str = Field(
        default="sequence",
        description="whether a weight is chosen once a document (sequence) or at each position "
        "(token); only min_ce and avg_ce have a level",
    )
    top_k: Count = Field(
        default=10, description="how many tokens of a fused row are kept; the rest is its tail"
    )
    source_top_k: Count | None = Field(
        default=None,
        description="how many tokens of a source's row are kept before projection; all by default",
    )
    source_top_p: Share | None = Field(
        default=None, description="the share of a source's row that is kept before projection"
    )
    source_samples: Count | None = Field(
        default=None, description="how many tokens are drawn from a source's row in its place"
    )
    temperature: Temperature = Field(
        default=1.0,
        description="what the logits of all models are divided by, where 1 changes nothing; "
        "cross-entropies are of temperature 1, whatever it is",
    )
    operator_temperature: Temperature = Field(
        default=1.0, description="what an operator's scores are divided by before its softmax"
    )
    chain_rule: bool = Field(
        default=False,
        description="whether the product of the source's own steps replaces the projected "
        "probability of the token that followed, where it is known",
    )
    with_target: bool = Field(
        default=False,
        description="whether the target's own rows are fused, too, after those of the sources",
    )
    seed: Seed = 0
    overlap: float = Field(
        default=0.25,
        ge=0,
        le=0.75,
        description="the share of a window that the next one reads again, for texts beyond a "
        "context or the memory for their rows",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        cuts = (self.source_top_k, self.source_top_p, self.source_samples)
        if sum(value is not None for value in cuts) > 1:
            raise InputError(
                "A source's rows are cut in one way: give only one of source_top_k, source_top_p "
                "and source_samples."
            )
        if self.chain_rule and self.temperature != 1:
            raise InputError(
                "The chain rule gives probabilities of temperature 1: leave out chain_rule or the "
                "temperature."
            )
        return self

    @property
    def source_truncation(self) -> Truncation | None:
        """What is kept of a source's rows; None for everything."""
        if self.source_top_k is self.source_top_p is self.source_samples is None:
            return None
        return Truncation(
            top_k=self.source_top_k,
            top_p=self.source_top_p,
            samples=self.source_samples,
            seed=self.seed,
        )


def check_temperature(value: float) -> None:
    """Refuse what logits cannot be divided by.

    Raises:
        InputError: it is not a finite number of at least 0.0001.
    """
    FusionConfig(temperature=value)


class Sampling(Settings):
    """How the tokens of a continuation are chosen."""

    max_new_tokens: int = Field(
        default=64, ge=1, le=100_000, description="how many tokens are generated at most"
    )
    temperature: float = Field(
        default=0.8,
        ge=0,
        description="what the log-probabilities are divided by; 0 takes the most probable token",
    )
    top_p: Share = Field(
        default=0.95, description="the share that the fewest tokens to choose from must reach"
    )
    seed: Seed = 0
    stop: Names = Field(default=(), description="a string at which the text ends")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not all(self.stop):
            raise InputError(
                "A stop string is empty: give at least one character, or leave it out."
            )
        return self
