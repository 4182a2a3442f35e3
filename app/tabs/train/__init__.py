"""The Train tab."""

from .layout import build, secret, visitors

__all__ = ["build", "secret", "visitors"]
