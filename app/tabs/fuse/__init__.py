"""The Fuse tab."""

from .layout import build

__all__ = ["build"]
