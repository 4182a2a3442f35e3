"""Answers of the Train tab's events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import hash_file
from gradio.utils import get_upload_folder

from ...components import PlotlyPanel, busy, done, failed
from ...compute import train
from ...state import AppState
from ...training import downloads, store
from ...training.job import Job, active
from ...training.plan import Plan, make_plan
from ...training.store import JobStore
from ..events import sentence, visitor_address
from . import fields
from . import view as views
from .component import RunView

DELETE, SURE = "Delete", "Delete for good?"
NOTHING = "No run yet: fill in the form and press Start."


@dataclass(frozen=True)
class Board:
    """Components that show one run; the last ones are nothing to look at."""

    runs: gr.Dropdown
    view: RunView
    curves: PlotlyPanel
    written: RunView
    stop: gr.Button
    resume: gr.Button
    delete: gr.Button
    samples: gr.Button
    pack: gr.Button
    files: gr.File
    snippet: gr.Code
    box: gr.Accordion
    timer: gr.Timer
    known: gr.State

    @property
    def outputs(self) -> list[Any]:
        """Return the components in the order in which `Page.look` answers."""
        return list(vars(self).values())


_KINDS = {
    "runs": "Dropdown",
    "stop": "Button",
    "resume": "Button",
    "delete": "Button",
    "samples": "Button",
    "pack": "Button",
    "box": "Accordion",
    "snippet": "Code",
    "timer": "Timer",
}


class Page:
    """Answers of the tab's events."""

    def __init__(self, state: AppState, found: JobStore, board: Board) -> None:
        """Take what they work on."""
        self.state, self.jobs, self.board = state, found, board
        self._metrics = views.MetricsReader()

    def look(
        self,
        key: Any,
        id_: Any,
        known: Any,
        *,
        notice: dict[str, str] | None = None,
        sure: bool = False,
        files: list[str] | None = None,
    ) -> list[Any]:
        """Show a run and the list of them.

        Args:
            key: the visitor's.
            id_: which run; the newest where there is no such one.
            known: what the page shows already, which is not sent again.
            notice: said above the run; what was said before, by default.
            sure: the next press of Delete deletes.
            files: to be fetched.
        """
        mine = self.jobs.list(key)
        job = next((j for j in mine if j.id == id_), mine[0] if mine else None)
        updates = self._list(mine, job) | self._run(job, sure)
        seen = dict(known) if isinstance(known, dict) else {}
        out: dict[str, Any] = {}
        for name, update in updates.items():
            mark = sha256(repr(update).encode()).hexdigest()[:16]
            if seen.get(name) != mark:
                out[name] = getattr(gr, _KINDS[name])(**update) if name in _KINDS else update
            seen[name] = mark
        view = {"content": updates["view"]} if "view" in out else {}
        if notice is not None:
            view["notice"] = notice
        elif seen.get("job") != (job.id if job else ""):
            view["notice"] = done("" if job else NOTHING)
        out["view"] = RunView(**view) if view else gr.skip()
        if "curves" in out:
            out["curves"] = PlotlyPanel(content=updates["curves"])
        if "written" in out:
            out["written"] = RunView(content=updates["written"])
        if files is not None:
            out["files"] = gr.File(files, visible=True)
        elif seen.get("job") != (job.id if job else ""):
            out["files"] = gr.File(None, visible=False)
        seen["job"] = job.id if job else ""
        out["known"] = seen
        return [out.get(name, gr.skip()) for name in vars(self.board)]

    def _list(self, mine: list[Job], job: Job | None) -> dict[str, Any]:
        choices = [(f"{j.name} · {_state(j)}", j.id) for j in mine]
        return {"runs": {"choices": choices, "value": job.id if job else None}}

    def _run(self, job: Job | None, sure: bool) -> dict[str, Any]:
        if job is None:
            off = {"interactive": False}
            empty: dict[str, Any] = {"view": '{"facts": []}', "curves": '{"figures": []}',
                "written": "{}"}  # fmt: skip
            empty |= {"stop": off, "resume": off, "delete": off | {"value": DELETE}}
            empty |= {name: {"visible": False} for name in ("samples", "pack", "box")}
            return empty | {"timer": {"active": False}, "snippet": {"value": ""}}
        shown = views.show(job, self._metrics)
        states = {s.state for s in shown.statuses.values()}
        live = active(shown.statuses)
        finished = {p: s for p, s in shown.statuses.items() if s.state == "finished"}
        code = downloads.snippet(job, finished, self.state.limits.local_folders)
        return {
            "view": shown.view,
            "curves": shown.curves,
            "written": shown.written,
            "stop": {"interactive": live},
            "resume": {"interactive": not live and states != {"finished"}},
            "delete": {
                "interactive": not live,
                "value": SURE if sure else DELETE,
                "variant": "stop" if sure else "secondary",
            },
            "samples": {"visible": bool(finished) and not live},
            "pack": {"visible": not live},
            "box": {"visible": bool(finished)},
            "snippet": {"value": code if finished else ""},
            "timer": {"active": live},
        }

    # Events -----------------------------------------------------------------------------------

    def attach(self, key: Any, known: Any) -> list[Any]:
        """Give a new visitor a key, and show the runs of one who was here before."""
        fresh = None if store.is_key(key) else store.new_key()
        mine = [] if fresh else self.jobs.list(key)
        live = next((j.id for j in mine if active(j.statuses())), None)
        return [fresh or gr.skip(), *self.look(fresh or key, live, known)]

    def plan(self, *values: Any) -> Plan:
        """Check a form and say what it will take."""
        form = fields.form(self.state.limits, values)
        return make_plan(form, self.jobs.limits, self.state.device, self.jobs.root, train.measure)

    def estimate(self, *values: Any) -> Iterator[Any]:
        """Say what a training will take."""
        yield RunView(notice=busy("Timing a few steps …"))
        try:
            plan = self.plan(*values)
            yield RunView(content=json.dumps(views.facts(plan)), notice=done(""))
            plan.estimate.check()
        except Exception as error:
            yield RunView(notice=failed(sentence(error)))

    def start(self, key: Any, id_: Any, known: Any, *values: Any) -> Iterator[list[Any]]:
        """Begin a training."""
        still = [gr.skip()] * len(self.board.outputs)
        yield [RunView(notice=busy("Timing a few steps …")), *still]
        try:
            address = visitor_address()
            self.jobs.check_room(key, address)
            plan = self.plan(*values)
            plan.estimate.check()
            job = self.jobs.create(key, plan, self.state.device, address)
        except Exception as error:
            yield [RunView(notice=failed(sentence(error))), *still]
            return
        facts = RunView(content=json.dumps(views.facts(plan)), notice=done("Started."))
        yield [facts, *self.look(key, job.id, known, notice=done(""))]
        yield from self._work(key, job.id, gr.skip())

    def _work(self, key: Any, id_: Any, *more: Any) -> Iterator[list[Any]]:
        """Train inside this event, where the device is lent to nothing else."""
        if not self.jobs.limits.in_event:
            return
        try:
            for _ in self.jobs.work(key, id_):
                yield [*more, *self.look(key, id_, {})]
        except Exception as error:
            yield [*more, *self.look(key, id_, {}, notice=failed(sentence(error)))]
            return
        yield [*more, *self.look(key, id_, {})]

    def act(
        self, action: Callable[[Any, Any], None], words: str
    ) -> Callable[[Any, Any, Any], Iterator[list[Any]]]:
        """Make an event that does something with the chosen run."""

        def event(key: Any, id_: Any, known: Any) -> Iterator[list[Any]]:
            try:
                action(key, id_)
            except Exception as error:
                yield self.look(key, id_, known, notice=failed(sentence(error)))
                return
            yield self.look(key, id_, known, notice=done(words))
            if action == self.jobs.resume:
                yield from self._work(key, id_)

        return event

    def delete(self, key: Any, id_: Any, known: Any, label: Any) -> list[Any]:
        """Ask once more, then delete."""
        if label != SURE:
            words = done("Press Delete once more: the run and its models will be gone.")
            return self.look(key, id_, known, notice=words, sure=True)
        try:
            copies = _served(self.jobs.downloads.files(self.jobs.get(key, id_).id))
            self.jobs.delete(key, id_)
            for copy in copies:
                copy.unlink(missing_ok=True)
        except Exception as error:
            return self.look(key, id_, known, notice=failed(sentence(error)))
        return self.look(key, None, known, notice=done("Deleted."))

    def samples(self, key: Any, id_: Any, known: Any) -> Iterator[list[Any]]:
        """Let the models of a run continue the same prompts."""
        try:
            job = self.jobs.get(key, id_)
            names = views.writers(job)
            models = self.state.models
            for step in models.loading(list(names.values())):
                yield self.look(key, id_, known, notice=busy(step))
            yield self.look(key, id_, known, notice=busy("Writing …"))
            texts = views.prompts(job)
            seed = int(job.about["seed"]) % 2**31
            for written in train.samples(models.key, list(names.values()), texts, seed):
                views.keep_samples(job, texts, written, list(names))
                yield self.look(key, id_, known, notice=busy("Writing …"))
            yield self.look(key, id_, known, notice=done(""))
        except Exception as error:
            yield self.look(key, id_, known, notice=failed(sentence(error)))

    def pack(self, key: Any, id_: Any, known: Any) -> list[Any]:
        """Write the files of a run for a download."""
        try:
            files = self.jobs.downloads.prepare(self.jobs.get(key, id_))
        except Exception as error:
            return self.look(key, id_, known, notice=failed(sentence(error)))
        return self.look(key, id_, known, notice=done(""), files=files)


def _served(files: Sequence[Path]) -> list[Path]:
    """Name the copies of files that gradio made to serve them, each at an address of its own."""
    folder = Path(get_upload_folder())
    return [folder / hash_file(file) / file.name for file in files]


def _state(job: Job) -> str:
    states = [s.state for s in job.statuses().values()]
    order = ("training", "preparing", "starting", "waiting", "failed", "interrupted", "stopped")
    return next((s for s in order if s in states), "finished")
