"""The Generate tab."""

from .layout import build

__all__ = ["build"]
