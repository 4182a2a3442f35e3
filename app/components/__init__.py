"""Gradio components of this app: static templates, data in props, DOM made with `textContent`."""

from .alignment import AlignmentView

__all__ = ["AlignmentView"]
