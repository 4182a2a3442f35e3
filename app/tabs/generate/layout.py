"""The Generate tab: one prompt, continued by every model and by all together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.context import Context

from fusion_core import fuse
from fusion_core.config import FusionConfig, Sampling

from ... import example_texts
from ...components import busy, done
from ...compute import generate
from ...fields import fields_of, shown
from ...requests import ENSEMBLE_OPERATOR, generation_request
from ...state import AppState
from .. import examples
from ..events import report_errors, waiting
from ..sidebar import Settings
from . import view as views
from .component import StreamView, stopped

INTRO = (
    "The target, every source and all of them fused continue one prompt, a token each in turn. "
    "Models come from the sidebar; the colour under a fused token says whose word it was."
)


@dataclass(frozen=True)
class Tab:
    """What the page needs of this tab.

    Attributes:
        linked: components by the keys of a link.
        trained: which models trained here write too; whoever trains sets its choices and shows it.
    """

    linked: dict[str, Any]
    trained: gr.Dropdown


@dataclass(frozen=True)
class Fields:
    """What a visitor fills in."""

    prompt: gr.Textbox
    operator: gr.Dropdown
    with_target: gr.Checkbox
    max_new_tokens: gr.Number
    temperature: gr.Number
    top_p: gr.Number
    seed: gr.Number
    trained: gr.Dropdown


def build(
    state: AppState,
    settings: Settings,
    *,
    resolve: Callable[[str], str] = str,
    label: Callable[[str], str] = str,
) -> Tab:
    """Lay out the tab and connect it.

    Args:
        state: of the page.
        settings: target and sources.
        resolve: turns a value of the dropdown of trained models into what can be loaded; raises
            a `FusionError` where there is no such model.
        label: turns such a value into the title of its column.
    """
    prompts = example_texts.prompts()
    gr.Markdown(INTRO, elem_classes="fl-intro")
    with gr.Row(equal_height=False):
        prompt = gr.Textbox(
            next(iter(prompts.values())),
            label=f"Prompt, up to {state.limits.text_bytes:,} bytes (Shift+Enter writes)",
            lines=4,
            max_lines=9,
            scale=5,
            min_width=280,
            elem_id="prompt",
        )
        with gr.Column(scale=1, min_width=220):
            examples.offer(prompts, prompt, "prompt-example")
            with gr.Row():
                start = gr.Button("Write", variant="primary", elem_id="write", min_width=80)
                stop = gr.Button("Stop", elem_id="stop-writing", min_width=80)
    fields = _fields(state, prompt)
    view = StreamView(elem_id="generate-view")
    _connect(state, settings, fields, view, (start, stop), (resolve, label))
    linked = {
        "prompt": prompt,
        "writer": fields.operator,
        "with_target": fields.with_target,
        "new_tokens": fields.max_new_tokens,
        "temperature": fields.temperature,
        "top_p": fields.top_p,
        "seed": fields.seed,
    }
    return Tab(linked, fields.trained)


def _fields(state: AppState, prompt: gr.Textbox) -> Fields:
    """Lay out how the models write; numbers are checked where they are read, in one sentence."""
    fusion = fields_of(FusionConfig)
    sampling = fields_of(Sampling, max_new_tokens=state.limits.new_tokens)
    with gr.Row(elem_id="writer-fields"):
        return Fields(
            prompt=prompt,
            operator=gr.Dropdown(
                [name for name, operator in fuse.OPERATORS.items() if operator.label_free],
                **shown(fusion["operator"], ENSEMBLE_OPERATOR),
                elem_id="writer-operator", min_width=140,
            ),
            max_new_tokens=gr.Number(
                **shown(sampling["max_new_tokens"]), elem_id="new-tokens", min_width=140
            ),
            temperature=gr.Number(
                **shown(sampling["temperature"]), step=0.1, elem_id="temperature", min_width=140
            ),
            top_p=gr.Number(**shown(sampling["top_p"]), step=0.05, elem_id="top-p", min_width=140),
            seed=gr.Number(**shown(sampling["seed"]), elem_id="writer-seed", min_width=140),
            with_target=gr.Checkbox(
                **shown(fusion["with_target"]), elem_id="writer-with-target", min_width=140
            ),
            trained=gr.Dropdown(
                [], value=[], label="Trained here", info="write, too", multiselect=True,
                visible=False, elem_id="trained-here", min_width=700,
            ),
        )  # fmt: skip


def _connect(
    state: AppState,
    settings: Settings,
    fields: Fields,
    view: StreamView,
    buttons: tuple[gr.Button, gr.Button],
    trained: tuple[Callable[[str], str], Callable[[str], str]],
) -> None:
    start, stop = buttons
    resolve, label = trained
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def write(target: str, sources: list[str], strategy: str, *values: Any) -> Iterator[Any]:
        given = dict(zip(Fields.__dataclass_fields__, values, strict=True))
        given["strategy"] = strategy
        yield from report_errors(StreamView, _write(state, target, sources, given, resolve, label))

    # A button that is off takes no second press; keys go through it.
    fields.prompt.submit(
        None, js="() => document.querySelector('#write')?.click()", api_visibility="private"
    )
    blocks = Context.root_block

    def begin() -> tuple[StreamView, gr.Button]:
        said = waiting(blocks, "generate") or "Waiting for a turn …"
        return StreamView(notice=busy(said)), gr.Button(interactive=False)

    run = start.click(
        begin,
        None,
        [view, start],
        queue=False,
        **quiet,
    ).then(
        write,
        [settings.target, settings.sources, settings.strategy, *vars(fields).values()],
        view,
        concurrency_limit=2,
        concurrency_id="generate",
        **quiet,
    )
    # Also where it fails or is stopped.
    run.then(lambda: gr.Button(interactive=True), None, start, queue=False, **quiet)
    # The page takes these in turn: nothing of the work may come after the word that it has ended.
    stop.click(None, None, None, cancels=[run])
    stop.click(
        lambda: StreamView(notice=stopped("Stopped: what was written stays.")),
        None,
        view,
        queue=False,
        **quiet,
    )


def _write(
    state: AppState,
    target: str,
    sources: Sequence[str],
    given: dict[str, Any],
    resolve: Callable[[str], str],
    label: Callable[[str], str],
) -> Iterator[Any]:
    names = [(label(run), resolve(run)) for run in given.pop("trained") or ()]
    asked = generation_request(state.limits, target, sources, trained=names, **given)
    for sentence in state.models.loading(asked.names):
        yield StreamView(notice=busy(sentence))
    content = views.heading(asked)
    notice = busy("Writing …")
    yield StreamView(content=content, notice=busy("Reading the prompt with every model …"))
    tokens = 0
    for batch in generate.write(state.models.key, asked):
        content += views.line(batch)
        tokens += len(batch.steps)
        yield StreamView(content=content, notice=notice)
    columns = len(views.columns(asked))
    yield StreamView(content=content, notice=done(f"{tokens:,} tokens in {columns} columns."))
