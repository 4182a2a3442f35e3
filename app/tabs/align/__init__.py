"""The Align tab."""

from .layout import Tab, build

__all__ = ["Tab", "build"]
