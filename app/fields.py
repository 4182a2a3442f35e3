"""Settings as fields of a form: their labels, help and bounds, and one way to read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from fusion_core.config import Setting, Settings, describe
from fusion_core.errors import InputError

S = TypeVar("S", bound=Settings)

LABELS = {
    "strategy": "Vocabulary mapping",
    "rows": "Source rows",
    "operator": "Fusion operator",
    "level": "Level",
    "top_k": "Top-k of the fused row",
    "with_target": "Target takes part",
    "max_new_tokens": "New tokens",
    "temperature": "Temperature",
    "top_p": "Top-p",
    "seed": "Seed",
    "kilobytes": "KB of toy text",
    "steps": "Steps",
    "lm_weight": "λ",
    "learning_rate": "Learning rate",
    "batch_size": "Batch",
}
"""What the page calls a setting."""


def fields_of(model: type[Settings], **most: float) -> dict[str, Setting]:
    """Return the fields of settings by name, called as on the page.

    Args:
        model: the settings.
        **most: by field, what this place allows at most.
    """
    return {s.name: replace(s, name=LABELS.get(s.name, s.name)) for s in describe(model, **most)}


def shown(setting: Setting, value: Any = None) -> dict[str, Any]:
    """Return value, label and help of a component.

    Args:
        setting: from `fields_of`.
        value: of a form that does not begin with the setting's default.
    """
    value, most, info = setting.default if value is None else value, setting.maximum, ""
    if most is not None:
        value, info = min(value, most), f"; at most {most:,}"
    return {"value": value, "label": setting.name, "info": setting.description + info}


def whole_number(number: Any) -> Any:
    """Return 10 for 10.0, which is what a number field holds."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def read(model: type[S], values: Mapping[str, Any], **most: float) -> S:
    """Make settings of what was filled in; others have their defaults.

    Args:
        model: the settings.
        values: by field.
        **most: by field, what this place allows at most.

    Raises:
        InputError: a value cannot be used; the sentence has the field's label.
    """
    fields = fields_of(model, **most)
    whole = {name for name, setting in fields.items() if setting.type == "integer"}
    given = {k: whole_number(v) if k in whole else v for k, v in values.items()}
    found = model.model_validate(given, context=fields)
    for name, limit in most.items():
        if getattr(found, name) > limit:
            raise InputError(fields[name].refused(given[name]))
    return found
