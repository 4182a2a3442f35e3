"""The Fuse tab: who teaches each token of the text, and what other operators would make of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...components import busy, done
from ...state import AppState
from ..align.layout import Tab as AlignTab
from ..events import report_errors
from ..sidebar import Settings
from .component import FuseView
from .view import fuse_view, summary

INTRO = (
    "The text of the Align tab, fused as the sidebar says. Change operator, level or mapping there "
    "or in the tables, and everything follows."
)


def build(state: AppState, settings: Settings, shown: gr.Textbox, align: AlignTab) -> None:
    """Lay out the tab and connect it.

    Args:
        state: of the page.
        settings: models and ways of fusing.
        shown: holds the name of the tab that is shown; what is not shown is not worked out.
        align: the Align tab.
    """
    gr.Markdown(INTRO, elem_classes="fl-intro")
    view = FuseView(elem_id="fuse-view")

    def compare(shown: str, text: str, *choice: Any) -> Iterator[Any]:
        if shown != "fuse":
            yield gr.skip()
            return
        yield from report_errors(FuseView, _compare(state, text, choice))

    def use(choice: Any) -> list[Any]:
        choice = choice if isinstance(choice, dict) else {}
        names = ("strategy", "operator", "level")
        return [choice[n] if choice.get(n) else gr.skip() for n in names]

    gr.on(
        [shown.change, *(c.change for c in settings.all)],
        compare,
        [shown, align.text, *settings.all],
        view,
        trigger_mode="always_last",
        show_progress="hidden",
        concurrency_limit=2,
        concurrency_id="analyze",
        api_visibility="private",
    )
    view.choose(
        use,
        view,
        [settings.strategy, settings.operator, settings.level],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def _compare(state: AppState, text: str, choice: tuple[Any, ...]) -> Iterator[Any]:
    for step in state.compare(Settings.request(state.limits, text, choice)):
        if isinstance(step, str):
            yield FuseView(notice=busy(step))
            continue
        kept, found = step
        content = json.dumps(fuse_view(kept.analysis, found))
        yield FuseView(content=content, notice=done(summary(kept.analysis)))
