"""The Align tab: a text, the score of its tokens, and the distributions at one of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from fusion_core.errors import FusionError, InputError

from ... import example_texts
from ...components import busy, done, scripts
from ...state import AppState, KeptAnalysis
from .. import examples
from ..events import announce, report_errors
from ..sidebar import Settings
from . import cards, view
from .component import AlignmentView

INTRO = (
    "Equal bytes stand under one another; the target is the lowest lane. Choose one of its tokens "
    "to see what each model expected there, how that was carried over, and what was fused."
)
GONE = "The server no longer has this analysis: press Analyse to read the text again."


@dataclass(frozen=True)
class Tab:
    """What other tabs need of this one.

    Attributes:
        text: the text that is read.
        score: the drawing.
        run: the event that reads the text, as arguments of a listener.
        token: the number of the token that a link opens, from 1.
    """

    text: gr.Textbox
    score: AlignmentView
    run: dict[str, Any]
    token: gr.Textbox


def build(state: AppState, settings: Settings) -> Tab:
    """Lay out the tab and connect it; the page says when the first text is read."""
    gr.Markdown(INTRO, elem_classes="fl-intro")
    with gr.Row(equal_height=False):
        text = gr.Textbox(
            example_texts.OPENING,
            label=f"Text, up to {state.limits.text_bytes:,} bytes (Shift+Enter analyses)",
            lines=3,
            max_lines=9,
            scale=5,
            min_width=280,
            elem_id="text",
        )
        with gr.Column(scale=1, min_width=220):
            example = examples.offer(example_texts.examples(), text, "example")
            button = gr.Button("Analyse", variant="primary", elem_id="analyze")
    token = gr.Textbox("", visible=False, elem_id="token")
    score = AlignmentView(server_functions=_questions(state), elem_id="align-view")

    def analyze(token: str, text: str, *choice: Any) -> Iterator[Any]:
        yield from report_errors(AlignmentView, _analyze(state, token, text, choice))

    def ask(selection: Any) -> Iterator[Any]:
        yield from report_errors(AlignmentView, _ask_characters(state, selection))

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    run = quiet | {
        "fn": analyze,
        "inputs": [token, text, *settings.all],
        "outputs": score,
        "trigger_mode": "always_last",
        "concurrency_limit": 2,
        "concurrency_id": "analyze",
    }
    # `change` comes once the value is there; a name typed into a multiselect fires no `input`.
    gr.on([button.click, text.submit, *(c.change for c in settings.all)], **run)
    example.success(**run)
    announce([button.click, text.submit], "analyze", AlignmentView, score)
    score.characters(
        ask, score, score, trigger_mode="once", concurrency_id="analyze", concurrency_limit=2,
        **quiet,
    )  # fmt: skip
    score.change(None, score, None, js=scripts.call("links.js", "linkToken"))
    return Tab(text, score, run, token)


def _questions(state: AppState) -> list[Callable[..., Any]]:
    """Return what the view may ask between analyses, as plain functions.

    Gradio marks them, and makes their names attributes of the component. Questions come from a
    page, past queue and session: they only read, and what fits nothing is answered by None.
    """

    def read_page(question: dict[str, Any]) -> dict[str, Any] | None:
        kept, number = asked_for(state, question, "page")
        return view.score(kept.analysis, kept.id, number) if kept else None

    def read_cards(question: dict[str, Any]) -> dict[str, Any] | None:
        kept, index = asked_for(state, question, "index")
        try:
            return cards.cards(kept.analysis, index, kept.pieces) if kept else None
        except FusionError:
            return None

    def read_characters(question: dict[str, Any]) -> dict[str, Any] | None:
        kept, index = asked_for(state, question, "index")
        if kept is None:
            return None
        readers = kept.characters.get(_positions(kept, index))
        return cards.characters(readers, kept.analysis, index) if readers else {"wait": True}

    return [read_page, read_cards, read_characters]


def asked_for(state: AppState, question: Any, what: str) -> tuple[KeptAnalysis | None, int]:
    """Return the kept analysis of a question from a page, and the number that it asks for.

    Returns:
        No analysis where the question lacks either.
    """
    given = question if isinstance(question, dict) else {}
    number = given.get(what)
    return (state.find(given.get("id")), number) if isinstance(number, int) else (None, 0)


def _positions(kept: KeptAnalysis, index: int) -> tuple[int, ...]:
    return view.page_positions(kept.analysis, view.page_of(kept.analysis, index))


def _analyze(state: AppState, token: str, text: str, choice: tuple[Any, ...]) -> Iterator[Any]:
    for step in state.analyze(Settings.request(state.limits, text, choice)):
        if isinstance(step, str):
            yield AlignmentView(notice=busy(step))
            continue
        analysis = step.analysis
        opening = None
        if token.isdecimal() and 0 < int(token[:9]) <= len(analysis.target.text_tokens):
            opening = int(token[:9]) - 1
        page = 0 if opening is None else view.page_of(analysis, opening)
        score = view.score(analysis, step.id, page)
        score["open"] = score["open"] if opening is None else opening
        yield AlignmentView(content=json.dumps(score), notice=done(view.summary(analysis)))


def _ask_characters(state: AppState, selection: Any) -> Iterator[Any]:
    kept, index = asked_for(state, selection, "index")
    if kept is None:
        raise InputError(GONE)
    for step in state.ask_characters(kept, _positions(kept, index)):
        yield AlignmentView(notice=busy(step))
    yield AlignmentView(notice=done(view.summary(kept.analysis)))
