"""Gradio components of this app: static templates, data in props, DOM made with `textContent`.

A tab's own component is in its folder, beside its scripts and styles.
"""

from .panel import Panel, busy, done, failed
from .plotly_panel import PlotlyPanel

__all__ = ["Panel", "PlotlyPanel", "busy", "done", "failed"]
