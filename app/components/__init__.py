"""Gradio components of this app: static templates, data in props, DOM made with `textContent`.

A tab's own component is in its folder, beside its scripts and styles; it is imported when it is
asked for, because the folder's package imports from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .panel import Panel, busy, done, failed
from .plotly_panel import PlotlyPanel

if TYPE_CHECKING:
    from ..tabs.align.component import AlignmentView
    from ..tabs.fuse.component import FuseView
    from ..tabs.generate.component import StreamView
    from ..tabs.train.component import RunView

__all__ = [
    "AlignmentView",
    "FuseView",
    "Panel",
    "PlotlyPanel",
    "RunView",
    "StreamView",
    "busy",
    "done",
    "failed",
]

_TABS = {"AlignmentView": "align", "FuseView": "fuse", "StreamView": "generate", "RunView": "train"}


def __getattr__(name: str) -> Any:
    """Import a tab's component."""
    if name not in _TABS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"..tabs.{_TABS[name]}.component", __name__), name)
