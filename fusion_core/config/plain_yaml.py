"""YAML of settings: plain values, written out."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Loader without aliases: nine lines of them are a billion values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse an alias where it comes up."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases: write the values out")
        return super().compose_node(parent, index)


def read(text: str) -> Any:
    """Read a document.

    Raises:
        yaml.YAMLError: it is none, or has tags or aliases.
    """
    return yaml.load(text, _Loader)
