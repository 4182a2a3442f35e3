"""Curves that grow: Plotly's own script, fed with plain data, in the page's colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from .panel import Panel


class PlotlyPanel(Panel):
    """Shows ``{"figures": [{"name", "title", "note", "traces", "layout"}, …]}``.

    Colours may be names of the style sheet, such as ``var(--fl-fused)``; they follow the theme. A
    figure keeps its node, and its zoom as long as ``layout.uirevision`` is the same. Names in it
    are text: Plotly would draw a little HTML. Plotly is loaded from this machine, once, when the
    first figure comes into sight.
    """

    scripts = ("plotly_panel.js",)
    styles = ("cards.css", "plotly_panel.css")
    name = "fl-plots"

    @classmethod
    def served(cls, **kwargs: Any) -> PlotlyPanel:
        """Create a panel of a page, and let the page fetch the script that plotly brings along.

        Args:
            **kwargs: passed to `Panel`.
        """
        import plotly

        path = Path(plotly.__file__).resolve().parent / "package_data" / "plotly.min.js"
        gr.set_static_paths([path])
        panel = cls(**kwargs)
        # Not a prop: an update replaces all of them.
        panel.js_on_load = f"const LIBRARY = {json.dumps(path.as_posix())};\n{panel.js_on_load}"
        return panel
