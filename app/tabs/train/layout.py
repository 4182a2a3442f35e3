"""The Train tab: a short training beside its baseline, its curves, and a visitor's runs."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from fusion_core.errors import size_of

from ...components import PlotlyPanel, done
from ...state import AppState
from ...training.store import JobStore
from ..sidebar import Settings
from . import fields as form_fields
from .component import RunView
from .fields import Fields
from .page import DELETE, NOTHING, Board, Page

INTRO = (
    "The target learns from your text and from the fused rows of all sources; its baseline learns "
    "from the text alone. A run goes on when you close this page, and is here when you return."
)
STORAGE_KEY = "fuselab-visitor"


@dataclass(frozen=True)
class Tab:
    """What the page needs of this tab.

    Attributes:
        linked: components by the keys of a link.
        visitor: the key of this visitor's runs.
        jobs: the runs of all visitors.
    """

    linked: dict[str, Any]
    visitor: gr.BrowserState
    jobs: JobStore


def secret(root: Path) -> str:
    """Return the secret of what browsers keep; it is made once, and survives a restart."""
    file = root / ".secret"
    made = secrets.token_urlsafe(24)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(made)
    except FileExistsError:
        with suppress(OSError):
            return file.read_text("utf-8").strip() or made
    except OSError:
        pass  # pages forget their runs at a restart, and Start says what is wrong with the disk
    return made


def visitors(state: AppState) -> tuple[gr.BrowserState, JobStore]:
    """Return what knows a visitor again, and the runs; to be called outside of all tabs.

    What lies in a tab that is not shown has not read the browser's storage when a page opens.
    """
    found = JobStore(state.limits)
    return gr.BrowserState(None, storage_key=STORAGE_KEY, secret=secret(found.root)), found


def build(
    state: AppState, settings: Settings, demo: gr.Blocks, known: tuple[gr.BrowserState, JobStore]
) -> Tab:
    """Lay out the tab and connect it.

    Args:
        state: of the page.
        settings: the models, and how they are fused.
        demo: the page.
        known: from `visitors`.
    """
    visitor, found = known
    gr.Markdown(INTRO, elem_classes="fl-intro")
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320):
            fields = form_fields.build(state.limits)
            with gr.Row():
                ask = gr.Button("Estimate", elem_id="train-estimate", min_width=100)
                start = gr.Button("Start", variant="primary", elem_id="train-start", min_width=100)
            estimate = RunView(elem_id="train-plan")
            gr.Markdown(_limits(state), elem_classes="fl-limits")
        with gr.Column(scale=7, min_width=320):
            board = _board()
    page = Page(state, found, board)
    _connect(page, visitor, settings, fields, (ask, start, estimate), demo)
    return Tab(fields.linked, visitor, found)


def _limits(state: AppState) -> str:
    limits = state.limits
    time = f", {limits.train_seconds // 60} minutes a part" if limits.train_seconds else ""
    gone = limits.kept_seconds
    kept = f" Runs are deleted {gone // 60} minutes after they end." if gone else ""
    return (
        f"Up to {size_of(limits.data_bytes)} of text, {limits.steps:,} steps{time}, "
        f"{limits.trainings} runs of yours; {limits.trainings_at_once} at a time of all visitors. "
        f"Trains on {state.device}.{kept}"
    )


def _board() -> Board:
    runs = gr.Dropdown(
        [], label="My runs", info="seen by this browser only", elem_id="train-runs",
        interactive=True,
    )  # fmt: skip
    with gr.Row():
        small: dict[str, Any] = {"size": "sm", "interactive": False, "min_width": 80}
        stop = gr.Button("Stop", elem_id="train-stop", **small)
        resume = gr.Button("Resume", elem_id="train-resume", **small)
        delete = gr.Button(DELETE, elem_id="train-delete", **small)
    view = RunView(notice=done(NOTHING),
                   elem_id="train-view")  # fmt: skip
    curves = PlotlyPanel(elem_id="train-curves")
    written = RunView(elem_id="train-written")
    with gr.Row():
        samples = gr.Button(
            "Write samples", elem_id="train-samples", visible=False, min_width=130, size="sm"
        )
        pack = gr.Button(
            "Prepare downloads", elem_id="train-pack", visible=False, min_width=130, size="sm"
        )
    files = gr.File(
        label="Downloads", file_count="multiple", interactive=False, visible=False,
        elem_id="train-downloads",
    )  # fmt: skip
    with gr.Accordion("Open in a notebook", open=False, visible=False, elem_id="train-book") as box:
        snippet = gr.Code(
            "", language="python", interactive=False, elem_id="train-snippet", show_label=False
        )
    timer, known = gr.Timer(1.0, active=False), gr.State({})
    return Board(
        runs,
        view,
        curves,
        written,
        stop,
        resume,
        delete,
        samples,
        pack,
        files,
        snippet,
        box,
        timer,
        known,
    )


def _connect(
    page: Page,
    visitor: gr.BrowserState,
    settings: Settings,
    fields: Fields,
    form: tuple[gr.Button, gr.Button, RunView],
    demo: gr.Blocks,
) -> None:
    """Let the components answer to one another."""
    ask, start, estimate = form
    board = page.board
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    fast = quiet | {"queue": False}
    one = quiet | {"trigger_mode": "once"}
    filled = [*fields.all, *settings.all]
    here = [visitor, board.runs, board.known]
    demo.load(page.attach, [visitor, board.known], [visitor, *board.outputs], **fast)
    ask.click(page.estimate, filled, estimate, concurrency_id="train-plan", **one)
    start.click(
        page.start, [*here, *filled], [estimate, *board.outputs],
        concurrency_id="train", concurrency_limit=2, **one,
    )  # fmt: skip
    board.timer.tick(page.look, here, board.outputs, **fast | {"trigger_mode": "once"})
    board.runs.input(page.look, here, board.outputs, **fast)
    for button, action, words in (
        (board.stop, page.jobs.stop, "Stopping after the present step …"),
        (board.resume, page.jobs.resume, "Going on from the last checkpoint."),
    ):
        button.click(
            page.act(action, words), here, board.outputs, concurrency_id="train-act",
            concurrency_limit=4, **one,
        )  # fmt: skip
    board.delete.click(page.delete, [*here, board.delete], board.outputs, **fast)
    board.samples.click(page.samples, here, board.outputs, concurrency_id="train-samples", **one)
    board.pack.click(page.pack, here, board.outputs, concurrency_id="train-pack", **one)
