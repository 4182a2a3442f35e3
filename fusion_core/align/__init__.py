"""Encoding x Encoding -> `Alignment`: where two readings of one text share a boundary.

Byte offsets are the only coordinate. Both lists of end offsets are sorted, so that equal ends are
found in O(n + m); they close the groups, and a target row has a source row exactly where a source
token ends at the same byte, or, inside a source token, at the source's last boundary before it.
The published alignment by dynamic time warping stands beside it for study.
"""

from __future__ import annotations

from collections.abc import Callable

from fusion_core.records import Alignment

from .by_bytes import by_bytes, by_bytes_batch, positions_of
from .dtw import by_dtw

__all__ = ["METHODS", "by_bytes", "by_bytes_batch", "by_dtw", "positions_of"]

METHODS: dict[str, Callable[..., Alignment]] = {"bytes": by_bytes, "dtw": by_dtw}
"""Alignment methods by name. `bytes`: shared byte boundaries (FuseLab); `dtw`: dynamic time warping
of token strings (FuseLLM, arXiv 2401.10491)."""
