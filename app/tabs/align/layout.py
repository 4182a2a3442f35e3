"""The Align tab: a text, the score of its tokens, and the distributions at one of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from fusion_core import fuse
from fusion_core.records import Analysis

from ... import texts, views
from ...components import busy, done, scripts
from ...session import Session
from .. import examples
from ..answer import told
from ..sidebar import Settings
from .component import AlignmentView

INTRO = (
    "Equal bytes stand under one another; the target is the lowest lane. Choose one of its tokens "
    "to see what each model expected there, how that was carried over, and what was fused."
)


@dataclass(frozen=True)
class Tab:
    """What other tabs need of this one.

    Attributes:
        text: the text that is read.
        view: the score.
        run: the event that reads the text, as arguments of a listener.
        token: the number of the token that a link opens, from 1.
    """

    text: gr.Textbox
    view: AlignmentView
    run: dict[str, Any]
    token: gr.Textbox


def build(session: Session, settings: Settings) -> Tab:
    """Lay out the tab and connect it; the page says when the first text is read."""
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
            example = examples.offer(texts.examples(), text, "example")
            button = gr.Button("Analyse", variant="primary", elem_id="analyse")
    token = gr.Textbox("", visible=False, elem_id="token")
    view = AlignmentView(server_functions=_questions(session), elem_id="align-view")

    def analyse(token: str, text: str, *choice: Any) -> Iterator[Any]:
        yield from told(AlignmentView, _analyse(session, token, text, choice))

    def ask(selection: Any) -> Iterator[Any]:
        yield from told(AlignmentView, _characters(session, selection))

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    run = quiet | {
        "fn": analyse,
        "inputs": [token, text, *settings.all],
        "outputs": view,
        "trigger_mode": "always_last",
        "concurrency_limit": 2,
        "concurrency_id": "analyse",
    }
    # `change` comes once the value is there; a name typed into a multiselect fires no `input`.
    gr.on([button.click, text.submit, *(c.change for c in settings.all)], **run)
    example.success(**run)
    view.characters(
        ask, view, view, trigger_mode="once", concurrency_id="analyse", concurrency_limit=2, **quiet
    )
    view.change(None, view, None, js=scripts.call("links.js", "linkToken"))
    return Tab(text, view, run, token)


def _questions(session: Session) -> list[Callable[..., Any]]:
    """Return what the view may ask between analyses, as plain functions.

    Gradio marks them, and makes their names attributes of the component.
    """

    def read_page(question: dict[str, Any]) -> dict[str, Any] | None:
        return session.page(question)

    def read_cards(question: dict[str, Any]) -> dict[str, Any] | None:
        return session.cards(question)

    def read_characters(question: dict[str, Any]) -> dict[str, Any] | None:
        return session.characters(question)

    return [read_page, read_cards, read_characters]


def _analyse(session: Session, token: str, text: str, choice: tuple[Any, ...]) -> Iterator[Any]:
    for step in session.analyse(Settings.request(session, text, choice)):
        if isinstance(step, str):
            yield AlignmentView(notice=busy(step))
            continue
        analysis = step.analysis
        opening = None
        if token.isdecimal() and 0 < int(token[:9]) <= len(analysis.target.text_tokens):
            opening = int(token[:9]) - 1
        page = 0 if opening is None else views.page_of(analysis, opening)
        score = views.score(analysis, step.id, page)
        score["open"] = score["open"] if opening is None else opening
        yield AlignmentView(content=json.dumps(score), notice=done(_summary(analysis)))


def _characters(session: Session, selection: Any) -> Iterator[Any]:
    for step in session.ask_characters(selection):
        yield AlignmentView(notice=busy(step))
    kept = session.find(selection)
    yield AlignmentView(notice=done(_summary(kept.analysis) if kept else ""))


def _summary(analysis: Analysis) -> str:
    best = min(analysis.sources, key=lambda s: s.bits_per_byte)
    details = analysis.details
    sees = details["level"] == "token" and not fuse.OPERATORS[details["operator"]].label_free
    return (
        f"{len(analysis.target.data):,} bytes · {len(analysis.target.text_tokens):,} target tokens "
        f"· best source {views.short_name(best.encoding.model)} {best.bits_per_byte:.2f} bits/byte "
        f"· target {analysis.target_bits_per_byte:.2f} · fused {analysis.fused_bits_per_byte:.2f}"
        + (", chosen knowing each token" if sees else "")
        + _starts(details["documents"])
    )


def _starts(documents: dict[str, dict[str, Any]]) -> str:
    """Say what is read before the text, where a model's tokenizer does not say it alone."""
    told = [
        f"{views.short_name(name.partition('?')[0])} reads {around['start'] or 'nothing'} first "
        f"({around['how']})"
        for name, around in documents.items()
        if around["how"] != "stated"
    ]
    return "".join(f" · {t}" for t in told)
