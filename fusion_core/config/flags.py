"""Flags of the command line, from the fields of settings models."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, TypeVar

from .settings import Settings, describe

S = TypeVar("S", bound=Settings)

_FLAGS: dict[str, dict[str, Any]] = {
    "integer": {"type": int},
    "number": {"type": float},
    "boolean": {"action": "store_true"},
    "string": {},
    "array": {"action": "append"},
}


def add_flags(
    parser: argparse._ActionsContainer,
    model: type[Settings],
    *names: str,
    **known: Iterable[str],
) -> None:
    """Add flags with the types, defaults and descriptions of fields.

    Args:
        parser: a parser, or a group of one.
        model: the settings.
        names: its fields.
        known: for a field whose values a registry holds, their names.
    """
    settings = {s.name: s for s in describe(model)}
    for name in names:
        setting = settings[name]
        words = setting.description.replace("%", "%%")
        if choices := known.get(name, setting.choices):
            words += f": {', '.join(choices)}"
        if setting.default is not None and setting.type not in ("boolean", "array"):
            words += " (default: %(default)s)"
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, help=words, default=setting.default, **_FLAGS[setting.type])


def read_flags(options: argparse.Namespace, model: type[S]) -> S:
    """Make settings of the flags that `add_flags` added; other fields have their defaults."""
    return model(**{k: v for k, v in vars(options).items() if k in model.model_fields})
