"""Curves that grow: Plotly's own script, fed with plain data, in the page's colours."""

from __future__ import annotations

from .panel import Panel


class PlotlyPanel(Panel):
    """Shows ``{"figures": [{"name", "title", "note", "traces", "layout"}, …]}``.

    Colours may be names of the style sheet, such as ``var(--fl-fused)``; they follow the theme. A
    figure keeps its node, and its zoom as long as ``layout.uirevision`` is the same. Names in it
    are text: Plotly would draw a little HTML. Plotly is loaded from this machine, once, when the
    first figure comes into sight.
    """

    script = "components/plotly_panel.js"
    styles = ("components/plotly_panel.css",)
    name = "fl-plots"
