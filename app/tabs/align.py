"""The Align tab: a text, the score of its tokens, and the distributions at one of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from fusion_core import fuse
from fusion_core.errors import FusionError
from fusion_core.records import Analysis

from .. import texts, views
from ..components import AlignmentView, busy, done, failed
from ..session import Session
from .sidebar import Settings

_log = logging.getLogger(__name__)

INTRO = (
    "Equal bytes stand under one another; the target is the lowest lane. Choose one of its tokens "
    "to see what each model expected there, how that was carried over, and what was fused."
)


def build(session: Session, settings: Settings, demo: gr.Blocks) -> None:
    """Lay out the tab and connect it."""
    examples = texts.examples()
    gr.Markdown(INTRO, elem_classes="fl-intro")
    with gr.Row(equal_height=False):
        text = gr.Textbox(
            texts.OPENING,
            label=f"Text, up to {session.limits.text_bytes:,} bytes (Shift+Enter analyses)",
            lines=3,
            max_lines=9,
            scale=5,
            min_width=280,
            elem_id="text",
        )
        with gr.Column(scale=1, min_width=220):
            example = gr.Dropdown(
                list(examples),
                value=next(iter(examples)),
                label="Example",
                elem_id="example",
                interactive=True,  # no function reads it
            )
            button = gr.Button("Analyse", variant="primary", elem_id="analyse")
    view = AlignmentView(server_functions=_questions(session), elem_id="align-view")

    def analyse(text: str, target: str, sources: list[str], *choice: Any) -> Iterator[Any]:
        yield from _analyse(session, text, target, sources, choice)

    def chosen(event: gr.SelectData) -> str:
        # The event's own value: the dropdown's may still be the one before.
        return examples[event.value]

    run: dict[str, Any] = {
        "fn": analyse,
        "inputs": [text, *settings.all],
        "outputs": view,
        "trigger_mode": "always_last",
        "show_progress": "hidden",
        "concurrency_limit": 2,
        "concurrency_id": "analyse",
        "api_visibility": "private",
    }
    # `change` comes once the value is there; a name typed into a multiselect fires no `input`.
    changes = [c.change for c in settings.all]
    gr.on([demo.load, button.click, text.submit, *changes], **run)
    # Not `input`: a dropdown fires that when it is merely left, and would replace a text.
    example.select(chosen, None, text, api_visibility="private", show_progress="hidden").success(
        **run
    )


def _questions(session: Session) -> list[Callable[..., Any]]:
    """Return what the view may ask between analyses, as plain functions.

    Gradio marks them, and makes their names attributes of the component.
    """

    def read_page(question: dict[str, Any]) -> dict[str, Any] | None:
        return session.page(question)

    def read_cards(question: dict[str, Any]) -> dict[str, Any] | None:
        return session.cards(question)

    return [read_page, read_cards]


def _analyse(
    session: Session, text: str, target: str, sources: list[str], choice: tuple[Any, ...]
) -> Iterator[Any]:
    strategy, operator, level, top_k = choice
    try:
        if isinstance(top_k, float) and top_k.is_integer():
            top_k = int(top_k)
        request = session.request(
            target, sources, text, strategy=strategy, operator=operator, level=level, top_k=top_k
        )
        for step in session.analyse(request):
            if isinstance(step, str):
                yield AlignmentView(notice=busy(step))
            else:
                yield AlignmentView(
                    content=json.dumps(views.score(step.analysis, step.id)),
                    notice=done(_summary(step.analysis)),
                )
    except FusionError as error:
        yield AlignmentView(notice=failed(str(error)))
    except Exception as error:  # a fault of ours must not leave the page waiting
        _log.exception("analysis failed")
        sentence = f"FuseLab failed at this ({type(error).__name__}): try other settings or text."
        yield AlignmentView(notice=failed(sentence))


def _summary(analysis: Analysis) -> str:
    best = min(analysis.sources, key=lambda s: s.bits_per_byte)
    details = analysis.details
    sees = details["level"] == "token" and not fuse.OPERATORS[details["operator"]].label_free
    return (
        f"{len(analysis.target.data):,} bytes · {len(analysis.target.text_tokens):,} target tokens "
        f"· best source {views.short_name(best.encoding.model)} {best.bits_per_byte:.2f} bits/byte "
        f"· target {analysis.target_bits_per_byte:.2f} · fused {analysis.fused_bits_per_byte:.2f}"
        + (", chosen knowing each token" if sees else "")
    )
