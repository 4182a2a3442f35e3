"""Gradio components of this app: static templates, data in props, DOM made with `textContent`.

A component of one tab is in the tab's folder, beside its scripts and styles.
"""

from .panel import Panel, busy, done, failed
from .plotly_panel import PlotlyPanel

__all__ = ["Panel", "PlotlyPanel", "busy", "done", "failed"]
