"""Gradio components of this app: static templates, data in props, DOM made with `textContent`."""

from .alignment import AlignmentView
from .fuse_view import FuseView
from .panel import Panel, busy, done, failed
from .plotly_panel import PlotlyPanel
from .run_view import RunView
from .stream import StreamView

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
