"""What our own drawings have in common: a static template, a module, and data that is only data."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr

from . import scripts

_APP = Path(__file__).parent.parent


@cache
def _style(*names: str) -> str:
    """Return style sheets, one after another."""
    return "\n".join((_APP / name).read_text("utf-8") for name in names)


class Panel(gr.HTML):
    """A drawing that a module of ours makes of JSON.

    The template is static, and everything from a text, a vocabulary or a file name enters the page
    as `textContent`: `gr.HTML` would evaluate a token such as ``${alert(1)}`` in a template.

    Attributes:
        script: module that exports `mount` (`gradio.d.ts` has its argument), as a path in the app.
        styles: style sheets beside those that all drawings share, as paths in the app.
        triggers: names of the events that the module triggers.
        name: class of the component's root node, beside `fuselab-view`.
    """

    script: ClassVar[str]
    styles: ClassVar[tuple[str, ...]] = ()
    triggers: ClassVar[tuple[str, ...]] = ()
    name: ClassVar[str]

    def __init__(
        self,
        value: Any = None,
        *,
        content: str | None = None,
        notice: dict[str, str] | None = None,
        server_functions: list[Callable[..., Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        """Create the drawing.

        Args:
            value: what the visitor chose in it; set by the page.
            content: what is drawn, as JSON: Gradio clones and watches every item of a nested prop,
                which took longer than to draw it.
            notice: ``{"kind": "busy" | "error" | "done", "text": one sentence}``.
            server_functions: what the module may ask between two events, past the queue.
            **kwargs: passed to `gr.HTML`.
        """
        # The style goes to <head> once: a css_template is compiled again at every change.
        styles = _style("components/base.css", "components/cards.css", *self.styles)
        super().__init__(
            value=value,
            html_template=f'<div class="fuselab-view {self.name}"></div>',
            js_on_load=scripts.mounting(self.script, self.triggers),
            head=f"<style>{styles}</style>",
            apply_default_css=False,
            server_functions=server_functions,
            content=content,
            notice=notice,
            **kwargs,
        )


def busy(text: str) -> dict[str, str]:
    """Say what is being done."""
    return {"kind": "busy", "text": text}


def done(text: str) -> dict[str, str]:
    """Say that it is done."""
    return {"kind": "done", "text": text}


def failed(text: str) -> dict[str, str]:
    """Say what was wrong."""
    return {"kind": "error", "text": text}
