"""Columns of text that several models write side by side, and why each token was chosen."""

from __future__ import annotations

from typing import Any

from ...components.panel import Panel


class StreamView(Panel):
    """Shows `writing.heading` and, line by line, the batches after it.

    Its content only grows while models write, so that Gradio sends what was added and the script
    draws what is new.
    """

    script = "tabs/generate/view.js"
    styles = ("tabs/generate/view.css",)
    name = "fl-stream"


def stopped(text: str) -> dict[str, Any]:
    """Say that a visitor ended the work; the page ignores it where nothing was being done."""
    return {"kind": "done", "text": text, "stopped": True}
