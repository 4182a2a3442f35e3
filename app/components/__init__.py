"""Gradio components of this app: static templates, data in props, DOM made with `textContent`."""

from .alignment import AlignmentView
from .fuse_view import FuseView
from .panel import Panel, busy, done, failed

__all__ = ["AlignmentView", "FuseView", "Panel", "busy", "done", "failed"]
