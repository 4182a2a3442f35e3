"""The score: every model's tokens of one text on one axis of bytes, and the cards of one token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

_HERE = Path(__file__).parent
_SCRIPT = "\n".join(
    (_HERE / name).read_text("utf-8")
    for name in ("dom.js", "score.js", "cards.js", "panels.js", "view.js")
)
_STYLE = "\n".join((_HERE / name).read_text("utf-8") for name in ("score.css", "cards.css"))


class AlignmentView(gr.HTML):
    """Shows `views.score` and, for the selected token, `cards.cards`.

    Its value is the selection, ``{"id": analysis, "index": target text token}``, set by the page.
    The template is static and everything from a text or a vocabulary enters the page as
    `textContent`: `gr.HTML` would evaluate a token such as ``${alert(1)}`` in a template.
    """

    def __init__(
        self,
        value: dict[str, Any] | None = None,
        *,
        score: str | None = None,
        notice: dict[str, str] | None = None,
        server_functions: list[Callable[..., Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        """Create the view.

        Args:
            value: the selection.
            score: what `views.score` returns, as JSON: Gradio clones and watches every item of a
                nested prop, which took longer than to draw it.
            notice: ``{"kind": "busy" | "error" | "done", "text": one sentence}``.
            server_functions: `read_page` and `read_cards`, by which the view asks for more.
            **kwargs: passed to `gr.HTML`.
        """
        # The style goes to <head> once: a css_template is compiled again at every selection.
        super().__init__(
            value=value,
            html_template='<div class="fuselab-view"></div>',
            js_on_load=_SCRIPT,
            head=f"<style>{_STYLE}</style>",
            apply_default_css=False,
            server_functions=server_functions,
            score=score,
            notice=notice,
            **kwargs,
        )
