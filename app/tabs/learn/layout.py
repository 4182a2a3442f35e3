"""The Learn tab: a walk through the method, shown step by step in other tabs; the notebooks."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..align.layout import Tab as AlignTab
from ..sidebar import Settings
from .view import STEPS, WalkStep, notebooks


def build(settings: Settings, align: AlignTab, tabs: gr.Tabs) -> None:
    """Lay out the walk.

    Args:
        settings: models and ways of fusing, which a step may set.
        align: the Align tab.
        tabs: of the page; a step shows itself in one of them.
    """
    gr.Markdown(
        "Seven steps from a text to a fused model. Each has a button that shows it on real models.",
        elem_classes="fl-intro",
    )
    with gr.Walkthrough(selected=0, elem_id="walk") as walk:
        for number, step in enumerate(STEPS):
            with gr.Step(step.title, id=number):
                gr.Markdown(step.says, elem_classes="fl-walk")
                with gr.Row():
                    show = gr.Button("Show me", variant="primary", scale=0, min_width=160)
                    if number + 1 < len(STEPS):
                        following = gr.Button("Next step", scale=0, min_width=160)
                        _show_step(following, walk, number + 1)
                _connect(show, step, settings, align, tabs)
    gr.Markdown(notebooks(), elem_classes="fl-walk")


def _show_step(button: gr.Button, walk: gr.Walkthrough, number: int) -> None:
    button.click(
        lambda: gr.Walkthrough(selected=number),
        None,
        walk,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def _connect(
    show: gr.Button, step: WalkStep, settings: Settings, align: AlignTab, tabs: gr.Tabs
) -> None:
    chosen = [settings.strategy, settings.operator, settings.level]

    def values() -> list[Any]:
        fusion = [step.fusion.get(n, gr.skip()) for n in ("strategy", "operator", "level")]
        text = gr.skip() if step.text is None else step.text
        return [gr.Tabs(selected=step.tab), text, str(step.token or ""), *fusion]

    event = show.click(
        values,
        None,
        [tabs, align.text, align.token, *chosen],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    if step.text is not None:
        event.success(**align.run)
