"""One training: its parts and how far they are, before and after, what the models write."""

from __future__ import annotations

from ...components.panel import Panel


class RunView(Panel):
    """Shows ``{"title", "note", "facts", "parts", "table", "samples"}``; each may be missing.

    ``facts`` are pairs of text; ``parts`` are made by `tabs.train_view`, ``table`` by
    `curves.comparison`; ``samples`` are ``{"prompt", "texts": [[label, text], …]}``.
    """

    script = "tabs/train/view.js"
    styles = ("tabs/train/view.css",)
    name = "fl-run"
