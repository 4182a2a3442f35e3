"""The Fuse tab: who teaches each token of the text, and what other operators would make of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...components import busy, done
from ...fusing import fuse_view
from ...session import Session
from .. import align
from ..answer import told
from ..sidebar import Settings
from .component import FuseView

INTRO = (
    "The text of the Align tab, fused as the sidebar says. Change operator, level or mapping there "
    "or in the tables, and everything follows."
)


def build(session: Session, settings: Settings, shown: gr.Textbox, reading: align.Tab) -> None:
    """Lay out the tab and connect it.

    Args:
        session: the page's state.
        settings: models and ways of fusing.
        shown: holds the name of the tab that is shown; what is not shown is not worked out.
        reading: the Align tab.
    """
    gr.Markdown(INTRO, elem_classes="fl-intro")
    view = FuseView(elem_id="fuse-view")

    def study(shown: str, text: str, *choice: Any) -> Iterator[Any]:
        if shown != "fuse":
            yield gr.skip()
            return
        yield from told(FuseView, _study(session, text, choice))

    def use(choice: Any) -> list[Any]:
        choice = choice if isinstance(choice, dict) else {}
        names = ("strategy", "operator", "level")
        return [choice[n] if choice.get(n) else gr.skip() for n in names]

    gr.on(
        [shown.change, *(c.change for c in settings.all)],
        study,
        [shown, reading.text, *settings.all],
        view,
        trigger_mode="always_last",
        show_progress="hidden",
        concurrency_limit=2,
        concurrency_id="analyse",
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


def _study(session: Session, text: str, choice: tuple[Any, ...]) -> Iterator[Any]:
    for step in session.study(Settings.request(session, text, choice)):
        if isinstance(step, str):
            yield FuseView(notice=busy(step))
            continue
        kept, found = step
        analysis = kept.analysis
        summary = (
            f"{len(analysis.target.data):,} bytes · fused {analysis.fused_bits_per_byte:.3f} bits "
            f"per byte · target {analysis.target_bits_per_byte:.3f}"
        )
        yield FuseView(content=json.dumps(fuse_view(analysis, found)), notice=done(summary))
